//! The key of the colours: groups of places, and the classes that their features speak for.

use crate::common::place::Place;
use crate::common::{NETWORKS, Npz, assert_near, data};
use prism::Size;
use prism::hooks::{HookedModel, Hooks, NetworkGraph};
use prism::map::{Collector, MapOptions, Maps};
use tch::{Device, Kind, Tensor};

fn hook(file: &str, layer: Option<&str>) -> HookedModel {
    let network = NetworkGraph::load(&data("networks").join(file), Device::Cpu).unwrap();
    let hooks = Hooks {
        scores_of_features: true,
        layer: layer.map(String::from),
        ..Hooks::default()
    };
    HookedModel::new(&network, Size::new(64, 64), &hooks).unwrap()
}

fn head() -> Npz {
    Npz::open("tests/data/head.npz")
}

#[test]
fn scores_of_given_features_are_those_of_pytorch() {
    let head = head();
    for (network, kinds) in NETWORKS {
        for kind in kinds {
            let model = hook(&format!("{network}_{kind}.pt"), None);
            let scores = model.scores_of(&head.tensor(&format!("{network}_input")));
            let scores = scores.unwrap().expect(network);
            let expected = head.tensor(&format!("{network}_scores"));
            assert_near(&scores, &expected, 1e-4, &format!("{network}_{kind}"));
        }
    }
}

/// What follows the layer makes of an image's own features the scores of the image.
#[test]
fn scores_of_the_features_of_an_image_are_those_of_the_image() {
    let (mut same, mut unknown) = (0, Vec::new());
    for folder in ["heads", "networks"] {
        let files = std::fs::read_dir(data(folder)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|kind| kind == "pt")) {
            let network = NetworkGraph::load(&file, Device::Cpu).unwrap();
            let hooks = Hooks {
                scores_of_features: true,
                ..Hooks::default()
            };
            let Ok(model) = HookedModel::new(&network, Size::new(64, 64), &hooks) else {
                continue; // of another input size
            };
            tch::manual_seed(3);
            let shape = [2, model.channels(), 64, 64];
            let images = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let made = model.forward(&images).unwrap();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            match model.scores_of(&made.excitation).unwrap() {
                Some(scores) => {
                    let scale = made.logits.abs().max().double_value(&[]);
                    assert_near(&scores, &made.logits, 1e-4 * scale.max(1.0), &name);
                    same += 1;
                }
                None => unknown.push(name),
            }
        }
    }
    assert!(same >= 40, "{same} of the networks; not of {unknown:?}");
}

/// Scores that also depend on what bypasses the layer cannot be known.
#[test]
fn features_that_a_connection_bypasses_have_no_scores_of_their_own() {
    for (file, layer) in [
        ("tiny_resnet_scripted.pt", "layer1.0.relu.relu_1"),
        ("tiny_dense_traced.pt", "block1.0.conv1"),
    ] {
        let model = hook(file, Some(layer));
        let [channels, height, width] = (model.layers().iter())
            .find(|found| found.name == layer)
            .map(|found| <[i64; 3]>::from(found.shape))
            .unwrap();
        let zeros = Tensor::zeros([1, channels, height, width], (Kind::Float, Device::Cpu));
        assert!(model.scores_of(&zeros).unwrap().is_none(), "{file} {layer}");
        let remarks: Vec<String> = model.remarks().into_iter().map(|r| r.text).collect();
        let bypass = format!("also depend on layers that bypass '{layer}'");
        assert!(
            remarks.iter().any(|remark| remark.contains(&bypass)),
            "{remarks:?}"
        );
    }
}

fn grouped(model: &HookedModel, input: &Tensor) -> Maps {
    let options = MapOptions {
        groups: true,
        ..MapOptions::of(model, None)
    };
    let mut collector = Collector::new(options);
    for batch in input.split(2, 0) {
        collector.add(model.forward(&batch).unwrap()).unwrap();
    }
    collector.finish().unwrap()
}

#[test]
fn a_group_is_the_mean_of_its_places_and_speaks_for_what_the_last_layer_says() {
    let model = hook("tiny_resnet_traced.pt", None);
    let input = Npz::open("tests/data/expected/tiny_resnet.npz").tensor("input");
    let maps = grouped(&model, &input);
    let groups = maps.groups.as_ref().unwrap();
    let excitation = model.forward(&input).unwrap().excitation;
    let of_places = groups.of_places(0..3).unwrap();
    assert_eq!(of_places.size(), [3, 8, 8]);
    assert!((2..=8).contains(&groups.shares.len()));
    assert!(groups.shares.is_sorted_by(|a, b| a >= b));
    let rows = excitation
        .permute([0, 2, 3, 1])
        .reshape([-1, 24])
        .to_kind(Kind::Double);
    let of_places = of_places.reshape([-1]);
    for (group, &share) in (0..).zip(&groups.shares) {
        let own = of_places.eq(group).nonzero().reshape([-1]);
        assert_eq!(own.size()[0] as f64 / 192.0, share);
        let mean = rows
            .index_select(0, &own)
            .mean_dim([0i64].as_slice(), false, Kind::Double);
        assert_near(&groups.means.get(group), &mean, 1e-6, "mean");
    }
    let mean = rows.mean_dim([0i64].as_slice(), false, Kind::Double);
    assert_near(&groups.mean, &mean, 1e-6, "mean of all places");

    // Average pooling and a linear layer: W (mean of the group - mean of all).
    let all = Tensor::cat(&[&groups.means, &groups.mean.unsqueeze(0)], 0).to_kind(Kind::Float);
    let spread = all.unsqueeze(2).unsqueeze(3).expand([-1, -1, 8, 8], false);
    let scores = model.scores_of(&spread.contiguous()).unwrap().unwrap();
    let count = groups.shares.len() as i64;
    let rises = scores.narrow(0, 0, count) - scores.narrow(0, count, 1);
    let weight = head().tensor("tiny_resnet_weight").to_kind(Kind::Double);
    let expected = (&groups.means - &groups.mean).matmul(&weight.tr());
    assert_near(&rises.to_kind(Kind::Double), &expected, 1e-4, "rises");
    assert!(expected.abs().max().double_value(&[]) > 0.01);
}

/// The colour of a group is that of its mean, and the ends of a component have its colours.
#[test]
fn the_ends_of_a_component_have_the_colours_0_and_1() {
    let model = hook("tiny_resnet_traced.pt", None);
    let input = Npz::open("tests/data/expected/tiny_resnet.npz").tensor("input");
    let maps = grouped(&model, &input);
    for component in 0..3 {
        for end in 0..2 {
            let colour = maps.colours_of(&maps.ends().get(component).narrow(0, end, 1));
            let found = colour.double_value(&[0, component]);
            assert!(
                (found - end as f64).abs() < 1e-5,
                "{component} {end}: {found}"
            );
        }
    }
}

#[test]
fn the_summary_has_the_key() {
    let place = Place::new();
    let key = |options: &str| -> serde_json::Value {
        let text = place.run(&format!("--input photos --quiet --json - {options}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["key"].take()
    };
    let named = key("");
    let groups = named["groups"].as_array().unwrap();
    let shares: f64 = groups
        .iter()
        .map(|group| group["share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-12, "{shares}");
    for sign in groups
        .iter()
        .flat_map(|group| group["classes"].as_array().unwrap())
    {
        let id = sign["id"].as_u64().unwrap();
        assert_eq!(sign["name"], format!("class {id}"));
        assert!(sign["evidence"].is_f64() && sign["probability"].as_f64() <= Some(1.0));
    }
    assert_eq!(named["components"].as_array().map(Vec::len), Some(3));
    // A colour that all images share is left out of the unique ones, and the other way round.
    let both = ["--inclusive", "--exclusive"].map(key);
    let left_out = both.map(|key| {
        let groups = key["groups"].as_array().unwrap().clone();
        groups
            .iter()
            .map(|group| group["left_out"].as_bool().unwrap())
            .collect::<Vec<_>>()
    });
    let [common, unique] = left_out;
    assert!(
        common.iter().zip(&unique).all(|(a, b)| a != b),
        "{common:?} {unique:?}"
    );
    assert!(key("--no-legend").is_null());
}
