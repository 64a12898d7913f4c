//! Files of torch.export: what is read of one is what is read of the TorchScript file of the same
//! network. The expected scores are PyTorch's (tests/reference/make_exported.py).

use prism::Size;
use prism::hooks::{Excitations, HookedModel, Hooks, NetworkGraph, SaliencyHook};
use prism::model::exported;
use prism::saliency::Method;
use tch::{Device, Tensor};

use crate::common::{Npz, data, largest_difference};

const NETWORKS: [&str; 7] = [
    "tiny_vgg",
    "tiny_resnet",
    "tiny_inception",
    "tiny_mobilenet",
    "tiny_dense",
    "tiny_shuffle",
    "tiny_convnext",
];

fn load(name: &str) -> NetworkGraph {
    let file = data("exported").join(format!("{name}.pt2"));
    exported::load(&file, Device::Cpu).unwrap().graph
}

fn load_script(name: &str) -> NetworkGraph {
    let file = data("networks").join(format!("{name}_traced.pt"));
    NetworkGraph::load(&file, Device::Cpu).unwrap()
}

fn hook(network: &NetworkGraph, method: Option<Method>, plain: bool) -> HookedModel {
    let saliency = method.map(|method| SaliencyHook {
        method,
        layer: None,
    });
    let hooks = Hooks {
        saliency,
        ..Hooks::default()
    };
    let size = Size::new(64, 64);
    match plain {
        true => HookedModel::new_plain(network, size, &hooks).unwrap(),
        false => HookedModel::new(network, size, &hooks).unwrap(),
    }
}

fn tensors(seen: Excitations) -> Vec<Tensor> {
    let whole = [seen.logits, seen.excitation];
    let parts = whole.into_iter().chain(seen.guides);
    parts.chain(seen.saliency).collect()
}

fn off(found: &Tensor, wanted: &Tensor) -> f64 {
    largest_difference(found, wanted) / wanted.abs().max().double_value(&[])
}

#[test]
fn scores_are_those_of_pytorch() {
    let expected = Npz::open(data("exported/expected.npz"));
    let images = expected.tensor("input");
    for name in NETWORKS {
        let wanted = expected.tensor(name);
        for (plain, tolerance) in [(true, 1e-6), (false, 1e-5)] {
            let seen = hook(&load(name), None, plain).forward(&images).unwrap();
            let off = off(&seen.logits, &wanted);
            assert!(off < tolerance, "{name} {plain}: off by {off}");
        }
    }
    // A batch of one image is built in.
    let seen = hook(&load("static_one"), None, true);
    let seen = seen.forward(&images).unwrap();
    assert!(off(&seen.logits, &expected.tensor("tiny_vgg")) < 1e-5);
}

#[test]
fn everything_is_that_of_the_torchscript_file() {
    let images = Npz::open(data("exported/expected.npz")).tensor("input");
    let methods = [
        None,
        Some(Method::GradCam),
        Some(Method::ExcitationBackprop),
    ];
    for name in NETWORKS {
        let (ours, script) = (load(name), load_script(name));
        for method in methods {
            let [ours, script] = [&ours, &script].map(|network| hook(network, method, true));
            assert_eq!(ours.guide_names(), script.guide_names(), "{name}");
            assert_eq!(ours.excitation_name(), script.excitation_name(), "{name}");
            let [ours, script] =
                [ours, script].map(|model| tensors(model.forward(&images).unwrap()));
            assert_eq!(ours.len(), script.len(), "{name}");
            for (index, (found, wanted)) in ours.iter().zip(&script).enumerate() {
                assert_eq!(found, wanted, "{name} {method:?}: tensor {index}");
            }
        }
        let unoptimised = hook(&ours, None, false).unoptimised();
        assert_eq!(unoptimised, None, "{name}");
    }
}

/// The operators that `run_decompositions()` leaves are put back.
#[test]
fn decomposed_networks_are_those_of_the_torchscript_file() {
    let images = Npz::open(data("exported/expected.npz")).tensor("input");
    for name in ["tiny_vgg", "tiny_resnet", "tiny_convnext"] {
        let (ours, script) = (load(&format!("{name}_core")), load_script(name));
        for method in [Method::GradCam, Method::ExcitationBackprop] {
            // There is no rule for the as_strided that its pooling becomes.
            if name == "tiny_convnext" && method == Method::ExcitationBackprop {
                continue;
            }
            let [ours, script] = [&ours, &script].map(|network| hook(network, Some(method), true));
            assert_eq!(ours.excitation_name(), script.excitation_name(), "{name}");
            let [ours, script] =
                [ours, script].map(|model| tensors(model.forward(&images).unwrap()));
            assert_eq!(ours.len(), script.len(), "{name}");
            for (index, (found, wanted)) in ours.iter().zip(&script).enumerate() {
                let off = off(found, wanted);
                assert!(
                    off < 1e-5,
                    "{name} {method:?}: tensor {index} is off by {off}"
                );
            }
        }
    }
}
