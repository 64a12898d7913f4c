//! ONNX files. What operators make is ONNX Runtime's (tests/reference/make_onnx_operators.py), what
//! networks make is PyTorch's (make_onnx.py).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prism::Size;
use prism::hooks::{HookedModel, NetworkGraph};
use prism::map::{Collector, MapOptions};
use prism::model::{ModelMetadata, onnx};
use prism::saliency::Method;
use tch::{Device, Kind, Tensor};

use crate::common::place::Place;
use crate::common::{Npz, data, hooked};

/// Single operators may differ by this part of the largest value; they sum up in another order.
const ROUNDING: f64 = 2e-6;

fn load(file: &Path) -> Result<NetworkGraph, String> {
    let loaded = onnx::load(file, Device::Cpu, None);
    loaded
        .map(|loaded| loaded.graph)
        .map_err(|error| format!("{error:#}"))
}

/// The largest difference as a part of the largest value; infinite values must be the same. What a
/// network returns as [N,K,1,1] is [N,K].
fn off(found: &Tensor, wanted: &Tensor) -> f64 {
    let sizes = wanted.size();
    let wanted = match sizes.get(2..) {
        Some(rest) if rest.iter().all(|&size| size == 1) => &wanted.view([sizes[0], sizes[1]]),
        _ => wanted,
    };
    if found.size() != wanted.size() {
        return f64::INFINITY;
    }
    let [found, wanted] = [found, wanted].map(|tensor| {
        let clipped = tensor.to_kind(Kind::Double).clamp(-1e30, 1e30);
        clipped.nan_to_num(7e30, None::<f64>, None::<f64>)
    });
    if wanted.numel() == 0 {
        return 0.0;
    }
    let largest = wanted.abs().max().double_value(&[]).max(1e-6);
    (found - wanted).abs().max().double_value(&[]) / largest
}

/// A case of the table: what is wrong with it, if anything is.
fn fault(table: &Npz, name: &str, folder: &Path) -> Option<String> {
    let file = folder.join("case.onnx");
    std::fs::write(&file, table.bytes(&format!("{name}.onnx"))).unwrap();
    let input = table.json(&format!("{name}.input"));
    let images = table.tensor(&format!("input.{}", input.as_str().unwrap()));
    let network = match load(&file) {
        Ok(network) => network,
        Err(error) => return Some(error),
    };
    for is_plain in [true, false] {
        let found = match network.returned(&images, is_plain) {
            Ok(found) => found,
            Err(error) => return Some(format!("plain {is_plain}: {error:#}")),
        };
        for (index, found) in found.iter().enumerate() {
            let wanted = table.tensor(&format!("{name}.{index}"));
            let off = off(found, &wanted);
            if off > ROUNDING {
                let sizes = (found.size(), wanted.size());
                return Some(format!(
                    "plain {is_plain}: result {index} is off by {off} {sizes:?}"
                ));
            }
        }
    }
    None
}

#[test]
fn every_operator_computes_what_onnx_runtime_does() {
    let table = Npz::open(data("onnx/operators.npz"));
    let names = table.names();
    let cases: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".onnx"))
        .collect();
    assert!(cases.len() > 400, "{}", cases.len());
    let folder = tempfile::tempdir().unwrap();
    let faults: Vec<String> = cases
        .iter()
        .filter_map(|name| Some(format!("{name}: {}", fault(&table, name, folder.path())?)))
        .collect();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// The files say that they take one image; with several, these networks would put them together.
#[test]
fn images_that_a_network_would_mix_go_one_at_a_time() {
    let table = Npz::open(data("onnx/operators.npz"));
    let folder = tempfile::tempdir().unwrap();
    let images = table.tensor("apart");
    let mut count = 0;
    for name in table.names() {
        let Some(network) = name.strip_suffix(".network") else {
            continue;
        };
        let file = folder.path().join("apart.onnx");
        std::fs::write(&file, table.bytes(&name)).unwrap();
        let loaded = load(&file).unwrap_or_else(|error| panic!("{error}"));
        for plain in [true, false] {
            let model = hooked(&loaded, 8, None, plain).unwrap();
            let seen = model.forward(&images).unwrap();
            let off = off(&seen.logits, &table.tensor(&format!("{network}.scores")));
            assert!(off < 1e-5, "{network} plain {plain}: off by {off}");
        }
        count += 1;
    }
    assert_eq!(count, 7);
}

/// A file, the TorchScript file of the same network, and images.
struct Pair {
    file: String,
    script: PathBuf,
    size: i64,
    images: Tensor,
}

impl Pair {
    fn of_small(file: &str, script: &str) -> Pair {
        Pair {
            file: file.to_string(),
            script: data("onnx").join(format!("{script}.pt")),
            size: 32,
            images: expected().tensor("input"),
        }
    }

    /// Of the networks that tests/data/networks has.
    fn of_network(name: &str) -> Pair {
        Pair {
            file: name.to_string(),
            script: data("networks").join(format!("{name}_traced.pt")),
            size: 64,
            images: Npz::open(data("expected/tiny_resnet.npz")).tensor("input"),
        }
    }

    fn networks(&self) -> [NetworkGraph; 2] {
        let file = data("onnx").join(format!("{}.onnx", self.file));
        let ours = load(&file).unwrap_or_else(|error| panic!("{error}"));
        [ours, NetworkGraph::load(&self.script, Device::Cpu).unwrap()]
    }

    fn hook(&self, network: &NetworkGraph, method: Option<Method>, plain: bool) -> HookedModel {
        hooked(network, self.size, method, plain)
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.file))
    }

    /// Scores are PyTorch's, plainly and optimised.
    fn check_scores(&self, wanted: &Tensor) {
        let [network, _] = self.networks();
        for plain in [true, false] {
            let model = self.hook(&network, None, plain);
            let seen = model.forward(&self.images).unwrap();
            let off = off(&seen.logits, wanted);
            assert!(off < 1e-5, "{} plain {plain}: off by {off}", self.file);
            assert_eq!(model.unoptimised(), None, "{}", self.file);
        }
    }

    /// Excitation, guides, saliency and map are those of the TorchScript file.
    fn check(&self) {
        self.check_methods(&METHODS);
    }

    fn check_methods(&self, methods: &[Option<Method>]) {
        let name = &self.file;
        let networks = self.networks();
        for &method in methods {
            let models = networks
                .each_ref()
                .map(|network| self.hook(network, method, true));
            let [ours, script] = models.each_ref().map(|model| {
                let seen = model.forward(&self.images).unwrap();
                let whole = [seen.logits, seen.excitation].into_iter();
                whole
                    .chain(seen.guides)
                    .chain(seen.saliency)
                    .collect::<Vec<_>>()
            });
            assert_eq!(ours.len(), script.len(), "{name} {method:?}");
            for (index, (found, wanted)) in ours.iter().zip(&script).enumerate().skip(1) {
                let off = off(found, wanted);
                assert!(
                    off < 1e-4,
                    "{name} {method:?}: tensor {index} is off by {off}"
                );
            }
            let [ours, script] = models.each_ref().map(|model| self.map(model));
            let off = (ours - script).abs().mean(Kind::Double).double_value(&[]);
            assert!(off < 1e-3, "{name}: the map is off by {off}");
        }
    }

    fn map(&self, model: &HookedModel) -> Tensor {
        let mut collector = Collector::new(MapOptions::of(model, None));
        collector.add(model.forward(&self.images).unwrap()).unwrap();
        let maps = collector.finish().unwrap();
        maps.map(0..maps.len()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let [network, _] = self.networks();
        let model = self.hook(&network, None, true);
        model.layers().into_iter().map(|layer| layer.name).collect()
    }
}

const METHODS: [Option<Method>; 3] = [
    None,
    Some(Method::GradCam),
    Some(Method::ExcitationBackprop),
];

fn expected() -> Npz {
    Npz::open(data("onnx/expected.npz"))
}

#[test]
fn a_network_of_every_opset_and_exporter_is_that_of_pytorch() {
    let opsets = [9, 11, 13, 17, 18].map(|opset| format!("small_{opset}"));
    let others = [
        "small_export_18",
        "small_export_21",
        "small_external",
        "small_free",
    ];
    let others = others.map(String::from);
    for name in opsets.iter().chain(&others) {
        let pair = Pair::of_small(name, "small");
        pair.check_scores(&expected().tensor("small"));
        pair.check();
    }
}

#[test]
fn networks_with_channels_last_are_computed_with_channels_first() {
    let pair = Pair::of_small("small_nhwc", "small");
    pair.check_scores(&expected().tensor("small"));
    pair.check();
    // Every permutation is undone by another one, so none is left.
    let [network, _] = pair.networks();
    let model = pair.hook(&network, None, true);
    assert!(
        model
            .layers()
            .iter()
            .all(|layer| layer.operator != "permute"),
        "{:?}",
        pair.names()
    );
}

#[test]
fn a_fixed_number_of_images_is_freed_and_scores_may_be_planes() {
    let pair = Pair::of_small("small_one", "small");
    let [network, _] = pair.networks();
    let model = pair.hook(&network, None, false);
    let seen = model.forward(&pair.images).unwrap();
    assert_eq!(seen.logits.size(), [4, 10]);
    // What is returned is before the softmax at the end.
    let found = seen.logits.softmax(1, Kind::Float);
    assert!(off(&found, &expected().tensor("small_one")) < 1e-5);
}

#[test]
fn group_norms_activations_and_padding_are_what_they_were() {
    for name in ["grouped", "activated", "padded"] {
        for file in [format!("{name}_17"), format!("{name}_export")] {
            let pair = Pair::of_small(&file, name);
            pair.check_scores(&expected().tensor(name));
            pair.check();
        }
    }
    let layers = Pair::of_small("grouped_17", "grouped").names();
    assert!(
        layers.iter().any(|name| name == "norm.group_norm"),
        "{layers:?}"
    );
}

#[test]
fn tiny_networks_are_those_of_pytorch() {
    for name in ["tiny_shuffle", "tiny_convnext"] {
        let pair = Pair::of_network(name);
        pair.check_scores(&expected().tensor(name));
        // PyTorch writes the pooling of tiny_convnext as values by index, for which there is no rule.
        let count = if name == "tiny_convnext" { 2 } else { 3 };
        pair.check_methods(&METHODS[..count]);
    }
}

#[test]
fn layers_have_the_names_of_modules() {
    let wanted = "conv1 relu maxpool layer1.0.conv layer1.0.add layer1.0.relu layer2.0 layer2.1";
    let traced = Pair::of_small("small_17", "small").names();
    assert_eq!(traced.join(" "), wanted);
    // A batch-norm that is folded into its convolution names it there.
    let exported = Pair::of_small("small_export_18", "small").names();
    let wanted = "bn1 relu maxpool layer1.0.bn layer1.0.add layer1.0.relu layer2.0 layer2.1";
    assert_eq!(exported.join(" "), wanted);
}

/// Padding by -inf, which a max-pool needs, is no activation.
#[test]
fn padding_of_a_max_pool_is_no_guide() {
    let file = data("onnx/same_pool.onnx");
    let network = load(&file).unwrap();
    let model = hooked(&network, 32, None, true).unwrap();
    let seen = model.forward(&expected().tensor("input")).unwrap();
    assert_eq!(seen.excitation.size(), [4, 4, 15, 15]);
    let guide = &seen.guides[0];
    assert_eq!(guide.size()[2..], [30, 30]);
    assert!(guide.min().double_value(&[]) >= 0.0);
    let mut collector = Collector::new(MapOptions::of(&model, None));
    collector.add(seen).unwrap();
    assert_eq!(collector.finish().unwrap().len(), 4);
}

#[test]
fn a_network_for_one_size_that_its_file_does_not_state_is_told_it() {
    let file = data("onnx/bad_one_size.onnx");
    let of = |size| onnx::load(&file, Device::Cpu, size);
    let error = format!("{:#}", of(None).err().unwrap());
    assert!(
        error.contains("cannot run on 2 images of 224x224"),
        "{error}"
    );
    assert!(of(Some(Size::new(8, 8))).is_ok());
}

#[test]
fn gelu_is_found_in_its_formula() {
    let layers = Pair::of_small("activated_17", "activated").names();
    assert!(layers.iter().any(|name| name == "gelu"), "{layers:?}");
}

/// Rounding to 8 bits is left out; the ranges of the integers, which are rectifiers here, are not.
#[test]
fn a_quantised_network_is_computed_with_floats() {
    let loaded = onnx::load(&data("onnx/quantised.onnx"), Device::Cpu, None).unwrap();
    let remarks: Vec<&str> = loaded
        .remarks
        .iter()
        .map(|remark| remark.text.as_str())
        .collect();
    assert!(
        remarks.iter().any(|text| text.contains("without rounding")),
        "{remarks:?}"
    );
    let pair = Pair::of_small("quantised", "small");
    let model = pair.hook(&loaded.graph, None, true);
    let seen = model.forward(&pair.images).unwrap();
    // The weights were rounded to 8 bits of each channel's range.
    assert!(off(&seen.logits, &expected().tensor("small")) < 0.05);
    assert!(seen.excitation.min().double_value(&[]) >= 0.0);
}

#[test]
fn what_a_network_expects_may_be_beside_its_file() {
    let place = Place::new();
    let small = data("onnx/small_17.onnx");
    let copied = place.path("net.bin");
    std::fs::copy(&small, &copied).unwrap();
    let about = r#"{"image_size": [32, 32], "mean": [0.5], "std": [0.25], "labels": ["a","b","c","d","e","f","g","h","i","j"]}"#;
    std::fs::write(place.path("net.prism.json"), about).unwrap();
    let (metadata, remark) = ModelMetadata::read(&copied).unwrap();
    assert_eq!(remark, None);
    assert_eq!(metadata.mean, Some(vec![0.5]));
    assert_eq!(metadata.labels.unwrap().len(), 10);
    std::fs::write(place.path("net.prism.json"), "[").unwrap();
    let error = format!("{:#}", ModelMetadata::read(&copied).unwrap_err());
    assert!(
        error.contains("net.prism.json: this file cannot be used"),
        "{error}"
    );
}

/// Keras orders images [N,H,W,C], and casts, pads and permutes around all layers.
#[test]
fn a_network_of_keras_has_its_scores_and_layers() {
    let expected = Npz::open(data("onnx/keras.npz"));
    let place = Place::bare();
    let arrays = [("input", expected.tensor("input"))];
    Tensor::write_npz(&arrays, place.path("in.npz")).unwrap();
    let network = data("onnx/keras.onnx").display().to_string();
    place.succeed(&format!(
        "in.npz --model {network} --save-arrays a.npz --json s.json"
    ));
    let found = Npz::open(place.path("a.npz")).tensor("probabilities");
    let off = off(&found, &expected.tensor("scores"));
    assert!(off < ROUNDING, "{off}");
    let summary = std::fs::read(place.path("s.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(
        summary["excitation"]["shape"],
        serde_json::json!([16, 6, 6])
    );
    let guides = summary["guides"].as_array().unwrap();
    let shapes: Vec<String> = guides
        .iter()
        .map(|guide| guide["shape"].to_string())
        .collect();
    assert_eq!(
        shapes,
        ["[8,24,24]", "[8,24,24]", "[12,12,12]", "[12,12,12]"],
        "guides are activations, not what a convolution reads"
    );
    let (layers, _) = place.succeed(&format!("layers --model {network}"));
    assert!(!layers.contains(" to "), "{layers}");
}
