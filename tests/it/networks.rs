//! From a TorchScript file to a map, compared with an independent implementation in PyTorch
//! (tests/reference), for tiny networks of every family, scripted and traced.

use crate::common::{NETWORKS, Npz, assert_near, data, largest_difference};
use prism::Size;
use prism::hooks::{Excitations, HookedModel, Hooks, NetworkGraph, Precision, Rule, Upsampling};
use prism::internals::Spool;
use prism::map::{Collector, FeatureFilter, MapOptions, Maps};
use tch::{Device, Tensor};

/// Largest difference of a pixel, and largest mean difference.
const WORST: f64 = 1e-3;
const MEAN: f64 = 1e-4;

/// The filters of colours, as the expected arrays name them.
const FILTERS: [(FeatureFilter, &str); 3] = [
    (FeatureFilter::Shared, "inclusive"),
    (FeatureFilter::Unique, "exclusive"),
    (FeatureFilter::All, "both"),
];

fn by(rule: Rule, layer: Option<&str>) -> Hooks {
    Hooks {
        rule,
        layer: layer.map(String::from),
        ..Hooks::default()
    }
}

fn load(file: &str) -> NetworkGraph {
    NetworkGraph::load(&data("networks").join(file), Device::Cpu).unwrap()
}

fn hook(file: &str, rule: Rule) -> HookedModel {
    HookedModel::new(&load(file), Size::new(64, 64), &by(rule, None)).unwrap()
}

fn load_odd(name: &str) -> NetworkGraph {
    let path = data("odd_networks").join(format!("{name}.pt"));
    NetworkGraph::load(&path, Device::Cpu).unwrap()
}

/// An odd network by the default rule.
fn hook_odd(name: &str) -> anyhow::Result<HookedModel> {
    HookedModel::new(&load_odd(name), Size::new(32, 32), &Hooks::default())
}

fn maps(model: &HookedModel, input: &Tensor, chunk: i64, extrapolate: bool) -> Maps {
    kept_maps(model, input, chunk, extrapolate, None)
}

fn kept_maps(
    model: &HookedModel,
    input: &Tensor,
    chunk: i64,
    extrapolate: bool,
    keep: Option<FeatureFilter>,
) -> Maps {
    let mut options = MapOptions::of(model, keep);
    if !extrapolate {
        options.upsampling = Upsampling::None;
    }
    let mut collector = Collector::new(options);
    for batch in input.split(chunk, 0) {
        collector.add(model.forward(&batch).unwrap()).unwrap();
    }
    collector.finish().unwrap()
}

fn all(maps: &Maps) -> Tensor {
    maps.map(0..maps.len()).unwrap()
}

fn each(mut check: impl FnMut(&str, &str, &Npz)) {
    for (network, kinds) in NETWORKS {
        let expected = Npz::open(format!("tests/data/expected/{network}.npz"));
        for kind in kinds {
            check(network, &format!("{network}_{kind}.pt"), &expected);
        }
    }
}

#[test]
fn scores_features_and_variances_are_those_of_pytorch() {
    each(|_, file, expected| {
        let input = expected.tensor("input");
        for (rule, suffix) in [(Rule::Torchprism, ""), (Rule::Auto, "_auto")] {
            let maps = maps(&hook(file, rule), &input, 3, true);
            let logits = expected.tensor("logits");
            let scale = logits.abs().max().double_value(&[]);
            assert!(
                largest_difference(&maps.logits(0..maps.len()).unwrap(), &logits) < 1e-3 * scale,
                "{file}"
            );

            let features = expected.tensor(&format!("features{suffix}"));
            let scale = features.abs().max().double_value(&[]);
            assert!(
                largest_difference(&maps.features(0..maps.len()).unwrap(), &features)
                    < 1e-3 * scale,
                "{file} {rule:?}: features"
            );
            let variances = Tensor::from_slice(&maps.variance_ratio);
            let expected = expected.tensor(&format!("variance_ratio{suffix}"));
            assert!(
                largest_difference(&variances, &expected) < 1e-3,
                "{file} {rule:?}"
            );
        }
    });
}

#[test]
fn maps_are_those_of_pytorch_by_both_rules() {
    each(|_, file, expected| {
        let input = expected.tensor("input");
        for (rule, name) in [(Rule::Torchprism, "torchprism"), (Rule::Auto, "auto")] {
            for (extrapolate, suffix) in [(true, ""), (false, "_no_ge")] {
                let ours = all(&maps(&hook(file, rule), &input, 3, extrapolate));
                let theirs = expected.tensor(&format!("maps_{name}{suffix}"));
                let what = format!("{file} {name}{suffix}");
                assert_same_map(&ours, &theirs, &what);
                if !extrapolate || hook(file, rule).upsampling() == Upsampling::Product {
                    assert_near(&ours, &theirs, WORST, &what);
                }
            }
        }
    });
}

/// Rounding of a stored guide by another step moves single pixels; other constants of the rule move
/// the mean by 5e-4 at least.
fn assert_same_map(ours: &Tensor, theirs: &Tensor, what: &str) {
    let difference = (ours - theirs).abs();
    let mean = difference.mean(tch::Kind::Double).double_value(&[]);
    let off = difference.gt(WORST).to_kind(tch::Kind::Double);
    let off = off.mean(tch::Kind::Double).double_value(&[]);
    assert!(
        mean <= MEAN && off <= 0.005,
        "{what}: {mean} in the mean, {off} of the pixels"
    );
}

/// The guides of the VGG family serve both ways.
#[test]
fn the_vgg_family_can_be_upsampled_bilaterally() {
    let expected = Npz::open("tests/data/expected/tiny_vgg.npz");
    let hooks = Hooks {
        upsampling: Some(Upsampling::Bilateral),
        ..Hooks::default()
    };
    let network = load("tiny_vgg_traced.pt");
    let model = HookedModel::new(&network, Size::new(64, 64), &hooks).unwrap();
    let ours = all(&maps(&model, &expected.tensor("input"), 2, true));
    assert_same_map(&ours, &expected.tensor("maps_auto_bilateral"), "tiny_vgg");
}

/// Shared, unique and all quantised colours. Rounding decides for pixels at the border of two
/// colours: one pixel may differ at feature resolution, half a percent at image resolution.
#[test]
fn quantised_maps_are_those_of_pytorch() {
    for file in ["tiny_vgg_scripted.pt", "tiny_resnet_traced.pt"] {
        let network = file.rsplit_once('_').unwrap().0;
        let expected = Npz::open(format!("tests/data/expected/{network}.npz"));
        let (input, model) = (expected.tensor("input"), hook(file, Rule::Torchprism));
        for (keep, name) in FILTERS {
            for (extrapolate, suffix, allowed) in
                [(true, "", 0.005 * 3.0 * 4096.0), (false, "_no_ge", 1.0)]
            {
                let ours = all(&kept_maps(&model, &input, 2, extrapolate, Some(keep)));
                let theirs = expected.tensor(&format!("maps_{name}{suffix}"));
                assert_eq!(ours.size(), theirs.size(), "{file} {name}{suffix}");
                let off = (&ours - &theirs)
                    .abs()
                    .amax([1i64].as_slice(), false)
                    .gt(WORST);
                let off = off
                    .to_kind(tch::Kind::Double)
                    .sum(tch::Kind::Double)
                    .double_value(&[]);
                assert!(off <= allowed, "{file} {name}{suffix}: {off} pixels");
            }
        }
    }
}

/// Every pixel has one of the 27 colours or is left out, at any resolution.
#[test]
fn quantised_maps_of_the_auto_rule_are_those_of_pytorch() {
    let model = hook("tiny_resnet_traced.pt", Rule::Auto);
    let expected = Npz::open("tests/data/expected/tiny_resnet.npz");
    let input = expected.tensor("input");
    for (keep, name) in FILTERS {
        for (extrapolate, suffix, allowed) in
            [(true, "", 0.005 * 3.0 * 4096.0), (false, "_no_ge", 1.0)]
        {
            let what = format!("{name}{suffix}");
            let ours = all(&kept_maps(&model, &input, 2, extrapolate, Some(keep)));
            let left_out = ours.select(1, 0).isnan();
            let colours = ours.nan_to_num(0.0, None, None);
            let theirs = expected.tensor(&format!("maps_auto_{what}"));
            assert_eq!(colours.size(), theirs.size(), "{what}");
            let count = |wrong: Tensor| wrong.count_nonzero(0).int64_value(&[]) as f64;
            let off = (&colours - &theirs)
                .abs()
                .amax([1i64].as_slice(), false)
                .gt(1e-6);
            assert!(count(off.reshape([-1])) <= allowed, "{what}");
            let levels = (&colours * 2.0 - (&colours * 2.0).round()).abs();
            assert_eq!(
                levels.max().double_value(&[]),
                0.0,
                "{what}: one of 27 colours"
            );
            if keep == FeatureFilter::All {
                assert_eq!(count(left_out.reshape([-1])), 0.0, "{what}");
            } else {
                let theirs = expected.flags(&format!("left_out_auto_{what}"));
                assert!(count(theirs.reshape([-1])) > 0.0);
                assert!(
                    count(left_out.logical_xor(&theirs).reshape([-1])) <= allowed,
                    "{what}"
                );
            }
        }
    }
}

/// Notes and maps of batches in which the filter of colours leaves nothing, or everything.
#[test]
fn a_choice_that_leaves_nothing_is_black_and_said() {
    let model = hook("tiny_vgg_scripted.pt", Rule::Auto);
    let input = Npz::open("tests/data/expected/tiny_vgg.npz").tensor("input");
    let one = input.narrow(0, 0, 1);
    let unique = kept_maps(&model, &one, 1, true, Some(FeatureFilter::Unique));
    assert!(unique.note().unwrap().contains("every colour is common"));
    assert_eq!(all(&unique).abs().max().double_value(&[]), 0.0);
    let common = kept_maps(&model, &one, 1, true, Some(FeatureFilter::Shared));
    assert!(common.note().unwrap().contains("none was left out"));
    let quantised = kept_maps(&model, &one, 1, true, Some(FeatureFilter::All));
    assert_eq!(largest_difference(&all(&common), &all(&quantised)), 0.0);
    assert!(quantised.note().is_none());
}

/// Folded batch-norms and oneDNN's layouts change only the rounding; bfloat16 changes more.
#[test]
fn the_optimised_graph_gives_what_the_plain_one_gives() {
    each(|_, file, expected| {
        let input = expected.tensor("input");
        let network = load(file);
        for rule in [Rule::Torchprism, Rule::Auto] {
            let hooks = by(rule, None);
            let plain = HookedModel::new_plain(&network, Size::new(64, 64), &hooks).unwrap();
            let optimised = HookedModel::new(&network, Size::new(64, 64), &hooks).unwrap();
            let bf16 = Hooks {
                precision: Precision::Bf16,
                ..hooks
            };
            let rounded = HookedModel::new(&network, Size::new(64, 64), &bf16).unwrap();
            let exact = plain.forward(&input).unwrap();
            let tensors = |seen: &Excitations| -> Vec<Tensor> {
                let whole = [&seen.logits, &seen.excitation].into_iter();
                whole
                    .chain(&seen.guides)
                    .map(Tensor::shallow_clone)
                    .collect()
            };
            for (made, tolerance) in [(&optimised, 1e-5), (&rounded, 0.1)] {
                let seen = made.forward(&input).unwrap();
                for (tensor, wanted) in tensors(&seen).iter().zip(tensors(&exact)) {
                    let scale = wanted.abs().max().double_value(&[]);
                    let off = largest_difference(tensor, &wanted) / scale;
                    assert!(
                        off < tolerance,
                        "{file} {rule:?} {:?}: {off}",
                        wanted.size()
                    );
                    assert_eq!(tensor.kind(), tch::Kind::Float);
                }
            }
            let maps = |model: &HookedModel| all(&maps(model, &input, 3, true));
            let off = (maps(&optimised) - maps(&plain)).abs();
            assert!(
                off.max().double_value(&[]) < WORST,
                "{file} {rule:?}: {off:?}"
            );
        }
    });
}

/// libtorch's passes fail on the scripted network. The loss of precision by bfloat16 is expected.
#[test]
fn a_graph_that_cannot_be_optimised_runs_as_it_is() {
    let input = Npz::open("tests/data/odd_networks/expected.npz").tensor("input");
    let traced = load_odd("PaddedInWords");
    let traced = HookedModel::new_plain(&traced, Size::new(32, 32), &Hooks::default()).unwrap();
    let traced = traced.forward(&input).unwrap();
    let scripted = load_odd("PaddedInWordsScripted");
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.05)] {
        let hooks = Hooks {
            precision,
            ..Hooks::default()
        };
        let scripted = HookedModel::new(&scripted, Size::new(32, 32), &hooks).unwrap();
        let scripted = scripted.forward(&input).unwrap();
        for (found, wanted) in [
            (&scripted.logits, &traced.logits),
            (&scripted.excitation, &traced.excitation),
        ] {
            let off = largest_difference(found, wanted);
            assert!(off < tolerance, "{precision:?}: {off}");
        }
    }
}

/// libtorch's pass gives oneDNN all poolings, but oneDNN lacks some and computes one differently.
#[test]
fn poolings_are_what_they_are_in_pytorch() {
    let expected = Npz::open(data("odd_networks/expected.npz"));
    let found = hook_odd("Pools")
        .unwrap()
        .forward(&expected.tensor("input"))
        .unwrap();
    let off = largest_difference(&found.logits, &expected.tensor("pools_logits"));
    assert!(off < 1e-6, "{off}");
}

/// Tensors that do not fit in memory are written to a file. The map is the same.
#[test]
fn a_map_is_the_same_from_memory_and_from_a_file() {
    let model = hook("tiny_resnet_traced.pt", Rule::Auto);
    let input = Npz::open("tests/data/expected/tiny_resnet.npz").tensor("input");
    let of = |limit| {
        let spool = Spool::new(limit, &std::env::temp_dir());
        let mut collector = Collector::with_spool(MapOptions::of(&model, None), &spool);
        for image in input.split(1, 0) {
            collector.add(model.forward(&image).unwrap()).unwrap();
        }
        (all(&collector.finish().unwrap()), spool.written())
    };
    let ((in_memory, none), (from_file, some)) = (of(usize::MAX), of(20_000));
    assert_eq!(none, 0);
    assert!(some > 0);
    assert_eq!(largest_difference(&in_memory, &from_file), 0.0);
}

/// The layers that the reference implementation lists for each rule by hand, with their shapes
/// and the mean of each captured channel, which distinguishes layers of equal shape.
#[test]
fn the_rules_capture_the_layers_listed_by_hand() {
    each(|_, file, expected| {
        let input = expected.tensor("input");
        let layers = expected.json("layers");
        for (rule, name) in [(Rule::Torchprism, "torchprism"), (Rule::Auto, "auto")] {
            let seen = hook(file, rule).forward(&input).unwrap();
            let mut captured: Vec<&Tensor> = seen.guides.iter().collect();
            captured.push(&seen.excitation);
            let expected = layers[name].as_array().unwrap();
            assert_eq!(captured.len(), expected.len(), "{file} {name}");
            for (tensor, layer) in captured.into_iter().zip(expected) {
                let shape: Vec<i64> = layer["shape"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|n| n.as_i64().unwrap())
                    .collect();
                let means: Vec<f64> = serde_json::from_value(layer["means"].clone()).unwrap();
                let what = format!("{file} {name}: {}", layer["name"]);
                assert_eq!(tensor.size()[2..], shape[1..], "{what}");
                let ours = tensor.mean_dim([0i64, 2, 3].as_slice(), false, tch::Kind::Double);
                assert_eq!(ours.size(), [means.len() as i64], "{what}");
                let difference = largest_difference(&ours, &Tensor::from_slice(&means));
                assert!(difference < 1e-4, "{what}: {difference}");
            }
        }
    });
}

#[test]
fn scripted_and_traced_files_name_their_layers_alike() {
    for (network, kinds) in NETWORKS {
        // The traced Inception is inside another module.
        if kinds.len() < 2 || network == "tiny_inception" {
            continue;
        }
        let names = |kind: &str| {
            let model = hook(&format!("{network}_{kind}.pt"), Rule::Auto);
            let guides: Vec<String> = model.guide_names().iter().map(|n| n.to_string()).collect();
            (model.excitation_name().to_string(), guides)
        };
        assert_eq!(names("scripted"), names("traced"), "{network}");
    }
    let names: Vec<String> = hook("tiny_resnet_scripted.pt", Rule::Auto)
        .layers()
        .into_iter()
        .map(|layer| layer.name)
        .collect();
    for name in [
        "conv1",
        "layer1.0.bn2",
        "layer2.0.downsample.0",
        "layer2.1.add",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
}

/// The map of a batch does not depend on the chunks in which it is forwarded.
#[test]
fn the_size_of_the_chunks_does_not_change_the_map() {
    each(|_, file, expected| {
        let input = expected.tensor("input");
        let input = Tensor::cat(&[&input, &input.flip([3]), &input.flip([2])], 0);
        let model = hook(file, Rule::Auto);
        let whole = maps(&model, &input, 9, true);
        for chunk in [1, 4] {
            let chunked = maps(&model, &input, chunk, true);
            let difference = largest_difference(&all(&chunked), &all(&whole));
            assert!(
                difference < 1e-4,
                "{file} in chunks of {chunk}: {difference}"
            );
        }
    });
}

#[test]
fn a_layer_by_name_becomes_the_excitation_and_guides_end_before_it() {
    let network = load("tiny_resnet_scripted.pt");
    let try_hook =
        |layer| HookedModel::new(&network, Size::new(64, 64), &by(Rule::Auto, Some(layer)));
    let hooked = |layer| try_hook(layer).unwrap();
    let model = hooked("layer1.1.bn2");
    assert_eq!(model.excitation_name(), "layer1.1.bn2");
    let inner = ["layer1.0.relu.relu_1", "layer1.0.relu.relu_2"];
    assert_eq!(
        model.guide_names(),
        ["relu", inner[0], inner[1], "layer1.1.relu.relu_1"]
    );
    // A module's name means what it computes last.
    assert_eq!(hooked("layer1").excitation_name(), "layer1.1.relu.relu_2");
    let error = try_hook("layer1.1.bn3").unwrap_err();
    assert!(prism::internals::is_usage(&error));
    assert!(format!("{error:#}").contains("layer1.1.bn2"), "{error:#}");
}

/// A captured tensor is the output of the layer, even if the network later changes it in place (as
/// the residual sum and the ReLU after it do).
#[test]
fn later_in_place_operators_do_not_reach_what_was_captured() {
    let network = load("tiny_resnet_scripted.pt");
    let input = Npz::open("tests/data/expected/tiny_resnet.npz").tensor("input");
    let excitation = |layer| {
        HookedModel::new(&network, Size::new(64, 64), &by(Rule::Auto, Some(layer)))
            .unwrap()
            .forward(&input)
            .unwrap()
            .excitation
    };
    let (normalised, sum) = (excitation("layer1.0.bn2"), excitation("layer1.0.add"));
    let activated = excitation("layer1.0.relu.relu_2");
    assert!(
        sum.min().double_value(&[]) < 0.0,
        "before the ReLU there are negative values"
    );
    assert_eq!(largest_difference(&sum.relu(), &activated), 0.0);
    let stream = excitation("maxpool");
    assert!(largest_difference(&(normalised + stream), &sum) < 1e-5);
}

/// Networks that compute the same in unusual ways: the captured tensors are those that
/// tests/reference/make_odd_networks.py returns.
#[test]
fn odd_ways_of_writing_a_network_are_captured_alike() {
    let expected = Npz::open(data("odd_networks/expected.npz"));
    let input = expected.tensor("input");
    for (file, road, tolerance) in [
        ("ReluThroughView", "plain", 1e-5),
        ("ReluInBranch", "plain", 1e-5),
        ("ErasedAfterUse", "plain", 1e-5),
        ("ScalesItsInput", "scaled", 1e-5),
        ("Patched", "patched", 1e-5),
        ("ChannelsLast", "plain", 1e-5),
        ("ByItem", "plain", 1e-5),
        ("Appending", "plain", 1e-5),
        ("OneImage", "plain", 1e-5),
        ("PooledLayout", "plain", 1e-5),
        ("Flag", "plain", 1e-5),
        ("PutsAside", "plain", 1e-5),
        ("Half", "plain", 1e-2), // the weights were rounded
    ] {
        let model = hook_odd(file).unwrap();
        let before = input.copy();
        let seen = model.forward(&input).unwrap();
        assert_eq!(
            largest_difference(&input, &before),
            0.0,
            "{file} changed its input"
        );
        assert_eq!(seen.guides.len(), 2, "{file}: {:?}", model.guide_names());
        for (what, tensor) in [
            ("logits", &seen.logits),
            ("excitation", &seen.excitation),
            ("guide_1", &seen.guides[0]),
            ("guide_2", &seen.guides[1]),
        ] {
            let difference =
                largest_difference(tensor, &expected.tensor(&format!("{road}_{what}")));
            assert!(difference < tolerance, "{file} {what}: {difference}");
        }
    }
}

#[test]
fn a_stride_of_zero_is_an_error_and_no_crash() {
    let error = hook_odd("NoStep").unwrap_err();
    assert!(
        format!("{error:#}").contains("non-positive stride"),
        "{error:#}"
    );
}
