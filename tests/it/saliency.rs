//! The saliency methods, compared with an independent implementation over torch.fx
//! (tests/reference/saliency_reference.py), for tiny networks of every family, scripted and traced,
//! at the final excitation and at an earlier layer.

use std::path::Path;

use crate::common::{NETWORKS, Npz, largest_difference};
use prism::Size;
use prism::hooks::{HookedModel, Hooks, NetworkGraph, Rule, SaliencyHook};
use prism::internals::is_usage;
use prism::map::{Collector, MapOptions};
use prism::saliency::Method;
use tch::{Device, Kind, Tensor};

const EBP: Method = Method::ExcitationBackprop;
const CEBP: Method = Method::ContrastiveExcitationBackprop;
const METHODS: [(Method, &str); 3] = [(Method::GradCam, "gradcam"), (EBP, "ebp"), (CEBP, "cebp")];

/// Relative to the largest magnitude. The reference in float32 and float64 differs by 2e-6.
const TOLERANCE: f64 = 1e-4;

fn hooks(method: Method, layer: Option<&str>) -> Hooks {
    Hooks {
        saliency: Some(SaliencyHook {
            method,
            layer: layer.map(String::from),
        }),
        ..Hooks::default()
    }
}

fn load(file: &str) -> NetworkGraph {
    NetworkGraph::load(&Path::new("tests/data").join(file), Device::Cpu).unwrap()
}

fn saliency(network: &NetworkGraph, hooks: &Hooks, input: &Tensor) -> Tensor {
    let side = input.size()[2];
    let model = HookedModel::new(network, Size::new(side, side), hooks).unwrap();
    model.forward(input).unwrap().saliency.unwrap()
}

/// The difference relative to the largest magnitude of the reference.
fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    largest_difference(ours, theirs) / theirs.abs().max().double_value(&[]).max(1e-9)
}

fn sums(saliency: &Tensor) -> Vec<f64> {
    let sums = saliency.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
    Vec::try_from(sums).unwrap()
}

/// Calls `check` for each network with its name, graph, images and reference.
fn each(mut check: impl FnMut(&str, &NetworkGraph, &Tensor, &serde_json::Value)) {
    let text = std::fs::read_to_string("tests/data/expected/saliency.json").unwrap();
    let known: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, kinds) in NETWORKS {
        let input = Npz::open(format!("tests/data/expected/{name}.npz")).tensor("input");
        for kind in kinds {
            let network = load(&format!("networks/{name}_{kind}.pt"));
            check(name, &network, &input, &known[name]);
        }
    }
}

/// The name of a layer in this file: a traced Inception is inside another module.
fn layer(network: &NetworkGraph, name: &str) -> String {
    let model = HookedModel::new(network, Size::new(64, 64), &Hooks::default()).unwrap();
    let layers = model.layers();
    let found = layers
        .iter()
        .find(|layer| layer.name == name || layer.name.ends_with(&format!(".{name}")));
    found.unwrap_or_else(|| panic!("{name}")).name.clone()
}

#[test]
fn saliency_is_that_of_pytorch() {
    let expected = Npz::open("tests/data/expected/saliency.npz");
    each(|name, network, input, known| {
        let last = layer(network, known["layer"].as_str().unwrap());
        let early = layer(network, known["early_layer"].as_str().unwrap());
        for (method, key) in METHODS {
            for (layer, suffix) in [(&last, ""), (&early, "_early")] {
                let theirs = expected.tensor(&format!("{name}/{key}{suffix}"));
                if theirs.abs().max().double_value(&[]) == 0.0 {
                    let hooks = hooks(method, Some(layer));
                    let error = HookedModel::new(network, Size::new(64, 64), &hooks).unwrap_err();
                    assert!(is_usage(&error), "{error:#}");
                    assert!(format!("{error:#}").contains("zero at layer"), "{error:#}");
                    continue;
                }
                let ours = saliency(network, &hooks(method, Some(layer)), input);
                let difference = difference(&ours, &theirs);
                assert!(difference < TOLERANCE, "{name} {key}{suffix}: {difference}");
            }
        }
    });
}

/// Probability is lost only at units without a positive input; the sum is that of the reference.
#[test]
fn the_first_pass_keeps_its_sum() {
    each(|name, network, input, known| {
        let early = layer(network, known["early_layer"].as_str().unwrap());
        for (layer, key) in [(None, "sum_ebp"), (Some(early.as_str()), "sum_ebp_early")] {
            let ours = sums(&saliency(network, &hooks(EBP, layer), input));
            let theirs = known[key].as_array().unwrap();
            for (ours, theirs) in ours.iter().zip(theirs) {
                let theirs = theirs.as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-3, "{name} {key}: {ours}");
                assert!(
                    layer.is_some() || (ours - 1.0).abs() < 1e-3,
                    "{name}: {ours}"
                );
            }
        }
    });
}

#[test]
fn without_a_layer_it_is_read_at_the_final_excitation() {
    let expected = Npz::open("tests/data/expected/saliency.npz");
    for name in ["tiny_vgg", "tiny_resnet", "tiny_gated"] {
        let input = Npz::open(format!("tests/data/expected/{name}.npz")).tensor("input");
        let network = load(&format!("networks/{name}_traced.pt"));
        for (method, key) in METHODS {
            let ours = saliency(&network, &hooks(method, None), &input);
            let theirs = expected.tensor(&format!("{name}/{key}"));
            assert!(difference(&ours, &theirs) < TOLERANCE, "{name} {key}");
        }
    }
}

/// At the input of a 1x1 convolution that makes the scores the contrast is always zero.
#[test]
fn if_the_contrast_vanishes_an_earlier_layer_is_used() {
    let input = Npz::open("tests/data/expected/tiny_squeezenet.npz").tensor("input");
    let network = load("networks/tiny_squeezenet_scripted.pt");
    let model =
        |method| HookedModel::new(&network, Size::new(64, 64), &hooks(method, None)).unwrap();
    for method in [Method::GradCam, EBP] {
        let model = model(method);
        assert_eq!(model.saliency_name(), Some(model.excitation_name()));
    }
    let model = model(CEBP);
    assert_eq!(model.saliency_name(), model.guide_names().last().copied());
    let saliency = model.forward(&input).unwrap().saliency.unwrap();
    assert!(saliency.max().double_value(&[]) > 1e-3);
}

#[test]
fn a_target_is_traced_back_in_every_image() {
    let expected = Npz::open("tests/data/expected/saliency.npz");
    let input = Npz::open("tests/data/expected/tiny_resnet.npz").tensor("input");
    let network = load("networks/tiny_resnet_scripted.pt");
    for (method, key) in METHODS {
        let mut model =
            HookedModel::new(&network, Size::new(64, 64), &hooks(method, None)).unwrap();
        model.set_target(3).unwrap();
        let ours = model.forward(&input).unwrap().saliency.unwrap();
        let theirs = expected.tensor(&format!("tiny_resnet/{key}_class3"));
        let difference = difference(&ours, &theirs);
        assert!(difference < TOLERANCE, "{key}: {difference}");
        let error = model.set_target(10).unwrap_err();
        assert!(is_usage(&error), "{error:#}");
        assert!(error.to_string().contains("0 to 9"), "{error:#}");
    }
}

/// The saliency does not change the other tensors, and does not depend on the batches.
#[test]
fn saliency_changes_nothing_else_and_does_not_depend_on_batches() {
    each(|name, network, input, _| {
        let plain = HookedModel::new_plain(network, Size::new(64, 64), &Hooks::default()).unwrap();
        let plain = plain.forward(input).unwrap();
        for (method, key) in METHODS {
            let hooks = hooks(method, None);
            let with = HookedModel::new(network, Size::new(64, 64), &hooks).unwrap();
            let with = with.forward(input).unwrap();
            assert!(!with.logits.requires_grad() && !with.excitation.requires_grad());
            assert_eq!(
                largest_difference(&with.logits, &plain.logits),
                0.0,
                "{name}"
            );
            let moved = largest_difference(&with.excitation, &plain.excitation);
            assert_eq!(moved, 0.0, "{name} {key}");
            for (guide, plain) in with.guides.iter().zip(&plain.guides) {
                assert_eq!(largest_difference(guide, plain), 0.0, "{name} {key}");
            }
            let single: Vec<Tensor> = (0..3)
                .map(|image| saliency(network, &hooks, &input.narrow(0, image, 1)))
                .collect();
            let apart = difference(&Tensor::cat(&single, 0), &with.saliency.unwrap());
            assert!(apart < TOLERANCE, "{name} {key}: {apart}");
        }
    });
}

/// At the first stage: in-place operators, through views, in branches, as statements and under two
/// names; lists and dictionaries; computed weights; batch-norms of negative scale after every type
/// of layer; a softmax at the end.
#[test]
fn odd_ways_of_writing_a_network_do_not_change_its_saliency() {
    let expected = Npz::open("tests/data/odd_networks/expected.npz");
    let input = expected.tensor("input");
    for (file, like, tolerance) in [
        ("ReluThroughView", "Plain", TOLERANCE),
        ("ReluInBranch", "Plain", TOLERANCE),
        ("ErasedAfterUse", "Plain", TOLERANCE),
        ("ByItem", "Plain", TOLERANCE),
        ("Appending", "Plain", TOLERANCE),
        ("OneImage", "Plain", TOLERANCE),
        ("PooledLayout", "Plain", TOLERANCE),
        ("Flag", "Plain", TOLERANCE),
        ("WithSoftmax", "Plain", TOLERANCE),
        ("DropoutInPlace", "Plain", TOLERANCE),
        ("Half", "Plain", 2e-2), // the weights were rounded
        ("InStatements", "InStatements", TOLERANCE),
        ("ComputedWeights", "ComputedWeights", TOLERANCE),
        ("Folded", "Folded", TOLERANCE),
        ("PaddedInWords", "PaddedInWords", TOLERANCE),
    ] {
        let network = load(&format!("odd_networks/{file}.pt"));
        let model = HookedModel::new(&network, Size::new(32, 32), &Hooks::default()).unwrap();
        let first = match file {
            "PaddedInWords" | "Folded" => "relu_1",
            _ => model.guide_names()[0],
        };
        for (method, key) in METHODS {
            let ours = saliency(&network, &hooks(method, Some(first)), &input);
            let difference = difference(&ours, &expected.tensor(&format!("{like}_{key}")));
            assert!(
                difference < tolerance,
                "{file} {key} at {first}: {difference}"
            );
        }
    }
}

/// Neither another rule nor another final excitation changes the saliency.
#[test]
fn other_hooks_do_not_change_the_saliency() {
    let input = Npz::open("tests/data/expected/tiny_gated.npz").tensor("input");
    let network = load("networks/tiny_gated_scripted.pt");
    let with = |rule, layer: Option<&str>| {
        let hooks = Hooks {
            rule,
            layer: layer.map(String::from),
            ..hooks(CEBP, Some("blocks.1.add"))
        };
        saliency(&network, &hooks, &input)
    };
    let plain = with(Rule::Auto, None);
    for other in [
        with(Rule::Torchprism, None),
        with(Rule::Auto, Some("blocks.3.project.0")),
        with(Rule::Auto, Some("blocks.2.depthwise.0")),
    ] {
        assert!(difference(&other, &plain) < TOLERANCE);
    }
}

#[test]
fn an_operator_without_a_rule_is_named() {
    let refused = |file: &str, method, layer| {
        let network = load(&format!("odd_networks/{file}.pt"));
        HookedModel::new(&network, Size::new(32, 32), &hooks(method, layer)).unwrap_err()
    };
    let error = format!("{:#}", refused("Sine", EBP, Some("first")));
    assert!(error.contains("aten::sin"), "{error}");
    let error = format!("{:#}", refused("TwoHeads", CEBP, None));
    assert!(
        error.contains("scores") && error.contains("more"),
        "{error}"
    );
    let error = format!("{:#}", refused("NotAPlainGate", EBP, Some("first")));
    assert!(
        error.contains("aten::mul") && error.contains("gate"),
        "{error}"
    );
    let error = format!("{:#}", refused("PartInPlace", EBP, Some("first")));
    assert!(
        error.contains("aten::copy_") && error.contains("in place"),
        "{error}"
    );
    let error = refused("TwoHeads", EBP, Some("aside"));
    assert!(is_usage(&error), "{error:#}");
    assert!(format!("{error:#}").contains("aside"), "{error:#}");
    let error = refused("TwoHeads", Method::GradCam, Some("thrid"));
    assert!(format!("{error:#}").contains("third"), "{error:#}");
    // Grad-CAM needs no rule.
    let input = Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu));
    let sine = load("odd_networks/Sine.pt");
    assert_eq!(
        saliency(&sine, &hooks(Method::GradCam, None), &input).size()[1],
        1
    );
    for file in ["PartInPlace", "NotAPlainGate"] {
        let network = load(&format!("odd_networks/{file}.pt"));
        let seen = saliency(&network, &hooks(Method::GradCam, Some("first")), &input);
        assert_eq!(seen.size()[2..], [16, 16]);
    }
    let gate_first = load("odd_networks/GateFirst.pt");
    let sum = sums(&saliency(&gate_first, &hooks(EBP, Some("mul")), &input))[0];
    assert!((sum - 1.0).abs() < 1e-3);
    let ebp = saliency(&load("odd_networks/TwoHeads.pt"), &hooks(EBP, None), &input);
    assert!((sums(&ebp)[0] - 1.0).abs() < 1e-3);
}

/// Alpha is the saliency, stretched per image and upsampled to the map. The colours do not change.
#[test]
fn the_map_takes_the_saliency_as_alpha() {
    let input = Npz::open("tests/data/expected/tiny_vgg.npz").tensor("input");
    let network = load("networks/tiny_vgg_scripted.pt");
    let maps = |model: HookedModel| {
        let options = MapOptions::of(&model, None);
        let mut collector = Collector::new(options);
        for image in input.split(1, 0) {
            collector.add(model.forward(&image).unwrap()).unwrap();
        }
        collector.finish().unwrap()
    };
    let size = Size::new(64, 64);
    let plain = maps(HookedModel::new_plain(&network, size, &Hooks::default()).unwrap());
    let with = maps(HookedModel::new(&network, size, &hooks(Method::GradCam, None)).unwrap());
    assert_eq!((plain.channels(), with.channels()), (3, 4));
    let map = with.map(0..3).unwrap();
    assert_eq!(map.size(), [3, 4, 64, 64]);
    let colours = map.narrow(1, 0, 3);
    assert_eq!(largest_difference(&colours, &plain.map(0..3).unwrap()), 0.0);
    let saliency = with.saliency(0..3).unwrap().unwrap();
    for image in 0..3 {
        let one = saliency.narrow(0, image, 1);
        let (low, high) = (one.min(), one.max());
        let alpha = ((one - &low) / (high - low)).upsample_bilinear2d([64, 64], false, None, None);
        let ours = map.narrow(0, image, 1).narrow(1, 3, 1);
        assert!(largest_difference(&ours, &alpha) < 1e-6);
        assert!((ours.max().double_value(&[]) - 1.0).abs() < 0.05);
    }
    assert_eq!(with.not_salient(), 0);
}
