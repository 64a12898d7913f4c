//! One network, one answer: what files have built in (training mode, statistics of the batch, a
//! batch size, random numbers, devices, number formats) is undone or said. The expected scores
//! and activations are PyTorch's, of each image by itself in evaluation mode
//! (tests/reference/make_loading_networks.py).

use prism::Size;
use prism::hooks::{Excitations, HookedModel, Hooks, NetworkGraph, SaliencyHook, Upsampling};
use prism::map::{Collector, MapOptions};
use prism::saliency::Method;
use tch::{Device, Kind, Tensor};

use crate::common::{NETWORKS, Npz, data, largest_difference};

/// Largest difference of scores and activations, in units of the largest value.
const TOLERANCE: f64 = 1e-5;

const METHODS: [Option<Method>; 3] = [
    None,
    Some(Method::GradCam),
    Some(Method::ContrastiveExcitationBackprop),
];

fn hooks(method: Option<Method>) -> Hooks {
    Hooks {
        saliency: method.map(|method| SaliencyHook {
            method,
            layer: None,
        }),
        ..Hooks::default()
    }
}

fn load(name: &str) -> anyhow::Result<NetworkGraph> {
    NetworkGraph::load(&data("loading").join(format!("{name}.pt")), Device::Cpu)
}

fn hook(name: &str, hooks: &Hooks) -> anyhow::Result<HookedModel> {
    HookedModel::new(&load(name)?, Size::new(32, 32), hooks)
}

fn expected() -> Npz {
    Npz::open(data("loading/expected.npz"))
}

/// Everything that is read of all images, forwarded `chunk` at a time.
fn forward(model: &HookedModel, images: &Tensor, chunk: i64) -> Vec<Tensor> {
    let parts: Vec<Vec<Tensor>> = images
        .split(chunk, 0)
        .iter()
        .map(|batch| tensors(model.forward(batch).unwrap()))
        .collect();
    let joined = |index: usize| {
        let tensors: Vec<&Tensor> = parts.iter().map(|part| &part[index]).collect();
        Tensor::cat(&tensors, 0)
    };
    (0..parts[0].len()).map(joined).collect()
}

/// Class scores, final excitation and guides.
fn tensors(seen: Excitations) -> Vec<Tensor> {
    let whole = [seen.logits, seen.excitation];
    whole.into_iter().chain(seen.guides).collect()
}

fn assert_near(found: &Tensor, wanted: &Tensor, what: &str) {
    let off = largest_difference(found, wanted) / wanted.abs().max().double_value(&[]);
    assert!(off < TOLERANCE, "{what}: off by {off}");
}

fn remarks(model: &HookedModel) -> String {
    let lines: Vec<String> = model.remarks().iter().map(|one| one.line()).collect();
    lines.join("\n")
}

/// For every batch size, with and without saliency.
fn check(name: &str, file: &str, remark: &str) {
    let expected = expected();
    let images = expected.tensor("input");
    let [logits, excitation] =
        ["logits", "excitation"].map(|part| expected.tensor(&format!("{name}_{part}")));
    for method in METHODS {
        // There is no such rule for attention, and none for integers or chosen places.
        let excites = method == Some(Method::ContrastiveExcitationBackprop);
        if excites && ["Attends", "Clamps", "DynamicInt8"].contains(&name) {
            continue;
        }
        for chunk in [1, 2, 3, 4, 5] {
            let what = format!("{file} {method:?} {chunk}");
            let model = hook(file, &hooks(method)).unwrap_or_else(|e| panic!("{what}: {e:#}"));
            let found = forward(&model, &images, chunk);
            assert_near(&found[0], &logits, &what);
            assert_near(&found[1], &excitation, &what);
            let said = remarks(&model);
            // One image at a time may be what was asked for.
            let silent = chunk == 1 && name == "BatchOfOne";
            match remark {
                _ if silent => assert_eq!(said, "", "{what}"),
                "" => assert_eq!(said, "", "{what}"),
                remark => assert!(said.contains(remark), "{what}: {said}"),
            }
            assert!(said.lines().count() <= 1, "{what}: {said}");
        }
    }
}

#[test]
fn training_mode_is_left() {
    let mode = "exported in training mode; it is put into inference mode";
    let all = "1 rrelu, 1 feature_dropout, 1 stochastic depth, 1 dropout, 1 alpha_dropout";
    check("Trained", "Trained", mode);
    check("Trained", "Trained", all);
    check("InstanceNorm", "InstanceNorm", "(1 instance_norm)");
    check("Attends", "Attends", "(1 scaled_dot_product_attention)");
    check("AlwaysDrops", "AlwaysDrops", "(1 dropout)");
    check("AlwaysDrops", "AlwaysDropsScripted", "(1 dropout)");
}

#[test]
fn images_do_not_depend_on_the_images_beside_them() {
    let statistics = "use the statistics of the batch, because none are stored";
    check("BatchStatistics", "BatchStatistics", statistics);
    check(
        "Standardises",
        "Standardises",
        "depend on the images beside",
    );
}

#[test]
fn a_batch_size_that_is_built_in_is_filled() {
    check("BatchOfFour", "BatchOfFour", "batch size 4 is built into");
    check("TableOfThree", "TableOfThree", "batch size 3 is built into");
    check("BatchOfOne", "BatchOfOne", "batch size 1 is built into");
    let model = hook("AddsUp", &Hooks::default()).unwrap();
    for chunk in [1, 4] {
        let images = expected().tensor("input").narrow(0, 0, chunk);
        let error = format!("{:#}", model.forward(&images).unwrap_err());
        for part in ["AddsUp.pt", "batch size of 4 is built in", "dynamic batch"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn devices_and_number_formats_are_replaced() {
    check("OnDevice", "OnDevice", "");
    check("HalfInside", "HalfInside", "");
    check("DoubleInside", "DoubleInside", "");
}

/// libtorch's passes refuse a graph with a clamp whose bounds are integers.
#[test]
fn clamps_by_integers_leave_a_graph_optimised() {
    check("Clamps", "Clamps", "");
    let model = hook("Clamps", &hooks(None)).unwrap();
    assert_eq!(model.unoptimised(), None);
    // They also refuse padding that is given as a word, which stays.
    let padded = data("odd_networks/PaddedInWordsScripted.pt");
    let padded = NetworkGraph::load(&padded, Device::Cpu).unwrap();
    let padded = HookedModel::new(&padded, Size::new(32, 32), &hooks(None)).unwrap();
    assert!(padded.unoptimised().is_some());
}

#[test]
fn weights_of_eight_bits_are_those_of_pytorch_and_have_a_gradient() {
    check(
        "DynamicInt8",
        "DynamicInt8",
        "round what they read by the range of the batch",
    );
    let expected = expected();
    let model = hook("DynamicInt8", &hooks(Some(Method::GradCam))).unwrap();
    let seen = model.forward(&expected.tensor("input")).unwrap();
    let wanted = expected.tensor("DynamicInt8_gradcam");
    assert_near(&seen.saliency.unwrap(), &wanted, "Grad-CAM");
    let error = hook("DynamicInt8", &hooks(METHODS[2])).unwrap_err();
    assert!(format!("{error:#}").contains("linear_dynamic"), "{error:#}");
}

/// A random network is seeded for each image, so that its answer depends on nothing else.
#[test]
fn a_random_network_is_named_and_repeats_itself() {
    let images = expected().tensor("input");
    let run = |seed, method, chunk| {
        let hooks = Hooks {
            seed,
            ..hooks(method)
        };
        let model = hook("Random", &hooks).unwrap();
        let made = forward(&model, &images, chunk);
        let said = remarks(&model);
        assert!(said.contains("the network is random"), "{said}");
        assert!(said.contains("--seed"), "{said}");
        made
    };
    let first = run(0, None, 5);
    for (method, chunk) in [
        (None, 5),
        (None, 1),
        (None, 2),
        (METHODS[1], 5),
        (METHODS[2], 3),
    ] {
        let again = run(0, method, chunk);
        for (found, wanted) in again.iter().zip(&first) {
            assert_near(found, wanted, &format!("{method:?} {chunk}"));
        }
    }
    let other = run(1, None, 5);
    assert!(largest_difference(&other[0], &first[0]) > 1e-3);
}

#[test]
fn what_cannot_be_undone_is_refused() {
    for (name, parts) in [
        (
            "Quantised",
            &["quantised network", "before quantisation"][..],
        ),
        ("QuantisedScripted", &["quantised network"]),
        (
            "OneValue",
            &["'norm'", "one value per channel", "inference mode"],
        ),
    ] {
        let error = format!("{:#}", hook(name, &Hooks::default()).unwrap_err());
        for part in parts {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}

/// The graph for saliency runs as it is written, the other one is optimised.
#[test]
fn a_saliency_changes_neither_scores_nor_maps() {
    let mut files: Vec<(String, Size, Tensor)> = Vec::new();
    for (network, kinds) in NETWORKS {
        let images = Npz::open(format!("tests/data/expected/{network}.npz")).tensor("input");
        for kind in kinds {
            let file = format!("networks/{network}_{kind}.pt");
            files.push((file, Size::new(64, 64), images.shallow_clone()));
        }
    }
    for (folder, side) in [
        ("odd_networks", 32),
        ("heads", 48),
        ("scores", 32),
        ("loading", 32),
    ] {
        let images = Npz::open(data(folder).join("expected.npz")).tensor("input");
        for entry in std::fs::read_dir(data(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // Its images depend on each other: other tests say that it is refused.
            if name.ends_with(".pt") && name != "AddsUp.pt" {
                let file = format!("{folder}/{name}");
                files.push((file, Size::new(side, side), images.shallow_clone()));
            }
        }
    }
    let (mut compared, mut excited) = (0, 0);
    for (file, size, images) in files {
        let Ok(network) = NetworkGraph::load(&data(&file), Device::Cpu) else {
            continue;
        };
        let Ok(plain) = HookedModel::new(&network, size, &Hooks::default()) else {
            continue; // other tests say which ones are refused
        };
        if plain.channels() != images.size()[1] {
            continue;
        }
        let map = |model: &HookedModel| {
            let options = MapOptions::of(model, None);
            let mut collector = Collector::new(options);
            collector.add(model.forward(&images).unwrap()).unwrap();
            let maps = collector.finish().unwrap();
            let colours = maps.map(0..maps.len()).unwrap();
            colours.narrow(1, 0, 3) // alpha is the saliency
        };
        let (wanted, colours) = (tensors(plain.forward(&images).unwrap()), map(&plain));
        for method in &METHODS[1..] {
            let Ok(model) = HookedModel::new(&network, size, &hooks(*method)) else {
                continue; // an operator without a rule
            };
            let found = tensors(model.forward(&images).unwrap());
            assert_eq!(found.len(), wanted.len(), "{file}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_near(found, wanted, &format!("{file} {method:?}"));
            }
            let most = match model.upsampling() {
                Upsampling::Bilateral => 1e-2,
                _ => 1e-3,
            };
            // Another rounding of a stored guide, by one step, moves single pixels.
            let off = (map(&model) - &colours).abs();
            let (mean, worst) = (off.mean(Kind::Double), off.max());
            let (mean, worst) = (mean.double_value(&[]), worst.double_value(&[]));
            assert!(
                mean < 1e-4 && worst < most,
                "{file} {method:?}: maps differ by {mean}, {worst}"
            );
            compared += 1;
            excited += usize::from(*method != Some(Method::GradCam));
        }
    }
    assert!(compared > 140 && excited > 60, "{compared}, {excited}");
}
