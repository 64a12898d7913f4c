//! Files of torch.export: what is read of one is what is read of the TorchScript file of the same
//! network. The files and the expected scores are PyTorch's (tests/reference/make_exported.py).

use std::path::{Path, PathBuf};

use prism::Size;
use prism::hooks::{Excitations, HookedModel, Hooks, Layer, NetworkGraph, OutputChoice};
use prism::map::{Collector, MapOptions};
use prism::model::{ModelMetadata, exported};
use prism::saliency::Method;
use tch::{Device, Kind, Tensor};

use crate::common::{Npz, data, hooked, largest_difference};

/// Networks of tests/data/networks.
const NETWORKS: [&str; 5] = [
    "tiny_inception",
    "tiny_mobilenet",
    "tiny_dense",
    "tiny_shuffle",
    "tiny_convnext",
];

/// The versions of torch that wrote the network "small", of each series the last.
const VERSIONS: [&str; 11] = [
    "2_5", "2_6", "2_7", "2_8", "2_9", "2_10", "2_11", "2_12", "2_13", "2_14", "2_15",
];

const METHODS: [Option<Method>; 3] = [
    None,
    Some(Method::GradCam),
    Some(Method::ExcitationBackprop),
];

/// A file, the TorchScript file that it must be like, and images.
struct Pair {
    name: String,
    script: PathBuf,
    size: i64,
    images: Tensor,
}

impl Pair {
    /// Of the networks that tests/data/networks has.
    fn of_network(name: &str, network: &str) -> Pair {
        let images = Npz::open(data("expected/tiny_resnet.npz")).tensor("input");
        Pair {
            name: name.to_string(),
            script: data("networks").join(format!("{network}_traced.pt")),
            size: 64,
            images,
        }
    }

    /// Of the network that has its TorchScript file beside it.
    fn of_small(name: &str, network: &str) -> Pair {
        Pair {
            name: name.to_string(),
            script: data("exported").join(format!("{network}.pt")),
            size: 32,
            images: expected().tensor("input"),
        }
    }

    fn load(&self) -> NetworkGraph {
        let loaded = exported::load(&file(&self.name), Device::Cpu);
        loaded.unwrap_or_else(|error| panic!("{error:#}")).graph
    }

    fn load_script(&self) -> NetworkGraph {
        NetworkGraph::load(&self.script, Device::Cpu).unwrap()
    }

    fn hook(&self, network: &NetworkGraph, method: Option<Method>, plain: bool) -> HookedModel {
        hooked(network, self.size, method, plain).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Scores by the plain graph to 1e-6 of the largest (bits depend on the processor's vector
    /// units), by the optimised one to 1e-5.
    fn check_scores(&self, wanted: &Tensor) {
        let network = self.load();
        for (plain, most) in [(true, 1e-6), (false, 1e-5)] {
            let model = self.hook(&network, None, plain);
            let seen = model.forward(&self.images).unwrap();
            let off = off(&seen.logits, wanted);
            assert!(off < most, "{} plain {plain}: off by {off}", self.name);
            assert_eq!(model.unoptimised(), None, "{}", self.name);
        }
    }

    /// The table of layers, scores, excitation, guides, saliency and map are those of the
    /// TorchScript file, to `most` of the largest value.
    fn check(&self, methods: &[Option<Method>], most: f64) {
        let tables = [self.load(), self.load_script()]
            .map(|network| table(&self.hook(&network, None, true)));
        assert_eq!(tables[0], tables[1], "{}", self.name);
        self.check_hooks(methods, most);
    }

    /// All of them but the table.
    fn check_hooks(&self, methods: &[Option<Method>], most: f64) {
        let name = &self.name;
        let (ours, script) = (self.load(), self.load_script());
        for &method in methods {
            let [ours, script] = [&ours, &script].map(|network| self.hook(network, method, true));
            assert_eq!(ours.guide_names(), script.guide_names(), "{name}");
            assert_eq!(ours.excitation_name(), script.excitation_name(), "{name}");
            if method.is_none() {
                let [ours, script] = [&ours, &script].map(|model| self.map(model));
                let off = (ours - script).abs().mean(Kind::Double).double_value(&[]);
                assert!(off <= most * 10.0, "{name}: the map is off by {off}");
            }
            let [ours, script] =
                [ours, script].map(|model| tensors(model.forward(&self.images).unwrap()));
            assert_eq!(ours.len(), script.len(), "{name}");
            for (index, (found, wanted)) in ours.iter().zip(&script).enumerate() {
                let off = off(found, wanted);
                assert!(
                    off <= most,
                    "{name} {method:?}: tensor {index} is off by {off}"
                );
            }
        }
    }

    fn map(&self, model: &HookedModel) -> Tensor {
        let mut collector = Collector::new(MapOptions::of(model, None));
        collector.add(model.forward(&self.images).unwrap()).unwrap();
        let maps = collector.finish().unwrap();
        maps.map(0..maps.len()).unwrap()
    }
}

fn file(name: &str) -> PathBuf {
    data("exported").join(format!("{name}.pt2"))
}

fn expected() -> Npz {
    Npz::open(data("exported/expected.npz"))
}

fn tensors(seen: Excitations) -> Vec<Tensor> {
    let whole = [seen.logits, seen.excitation];
    let parts = whole.into_iter().chain(seen.guides);
    parts.chain(seen.saliency).collect()
}

/// The layers, but for the parts of a list: a trace has no modules for them.
fn table(model: &HookedModel) -> Vec<Layer> {
    let mut layers = model.layers();
    layers.retain(|layer| layer.operator != "ListUnpack");
    layers
}

fn off(found: &Tensor, wanted: &Tensor) -> f64 {
    largest_difference(found, wanted) / wanted.abs().max().double_value(&[])
}

#[test]
fn networks_are_those_of_pytorch() {
    for name in NETWORKS {
        let pair = Pair::of_network(name, name);
        pair.check_scores(&expected().tensor(name));
        pair.check(&METHODS, 0.0);
    }
}

/// Every version of torch that writes such files, in the operators that `export()` writes from 2.7
/// on, in those that it wrote before, and in those that `run_decompositions()` leaves.
#[test]
fn files_of_all_versions_are_read() {
    for version in VERSIONS {
        // There, a global pooling is a mean.
        for (dialect, most) in [("training", 0.0), ("aten", 0.0), ("core", 1e-5)] {
            let name = format!("torch_{version}_{dialect}");
            let pair = Pair::of_small(&name, "small");
            pair.check_scores(&expected().tensor(&format!("torch_{version}")));
            pair.check(&METHODS, most);
        }
    }
}

#[test]
fn decomposed_networks_are_those_of_the_torchscript_file() {
    let pair = Pair::of_network("tiny_convnext_core", "tiny_convnext");
    pair.check_scores(&expected().tensor("tiny_convnext"));
    pair.check(&METHODS, 1e-5);
}

fn check_feature(name: &str) {
    let pair = Pair::of_small(name, name);
    pair.check_scores(&expected().tensor(name));
    pair.check(&METHODS, 0.0);
}

/// Their layers take [N,h,w,C], their instance-norms one image at a time.
#[test]
fn decomposed_normalisations_are_what_they_were() {
    check_feature("wide");
    let pair = Pair::of_small("wide_core", "wide");
    pair.check_scores(&expected().tensor("wide"));
    pair.check(&METHODS, 1e-5);
}

#[test]
fn flags_are_no_numbers() {
    Pair::of_small("flags", "flags").check_scores(&expected().tensor("flags"));
}

/// Also in the TorchScript file.
#[test]
fn comparisons_in_place_keep_the_number_format() {
    let pair = Pair::of_small("compared", "compared");
    let wanted = expected().tensor("compared");
    pair.check_scores(&wanted);
    let script = pair.hook(&pair.load_script(), None, true);
    let seen = script.forward(&pair.images).unwrap();
    assert!(off(&seen.logits, &wanted) < 1e-6);
}

/// PyTorch writes an expansion and a bmm for it.
#[test]
fn decomposed_linear_layers_may_take_what_is_not_contiguous() {
    check_feature("unordered");
    let pair = Pair::of_small("unordered_core", "unordered");
    pair.check_scores(&expected().tensor("unordered"));
    let table = table(&pair.hook(&pair.load(), None, true));
    let layer = table.iter().find(|layer| layer.operator == "linear");
    assert_eq!(layer.map(|layer| layer.shape), Some((4, 8, 8)));
    // The copy before the layer has a name, so that those of guides differ.
    let networks = [pair.load(), pair.load_script()];
    for method in METHODS {
        let [ours, script] = networks.each_ref().map(|network| {
            let model = pair.hook(network, method, true);
            tensors(model.forward(&pair.images).unwrap())
        });
        assert_eq!(ours.len(), script.len());
        for (found, wanted) in ours.iter().zip(&script) {
            assert!(off(found, wanted) <= 1e-5, "{method:?}");
        }
    }
}

/// libtorch merges them in TorchScript files.
#[test]
fn branches_may_begin_with_the_same_operator() {
    check_feature("branches");
}

/// The last layers also run alone, from the features on.
#[test]
fn the_last_layers_may_begin_with_a_view() {
    check_feature("rows");
    let pair = Pair::of_small("rows", "rows");
    let hooks = Hooks {
        scores_of_features: true,
        ..Hooks::default()
    };
    for network in [pair.load(), pair.load_script()] {
        let model = HookedModel::new(&network, Size::new(32, 32), &hooks).unwrap();
        let seen = model.forward(&pair.images).unwrap();
        let scores = model.scores_of(&seen.excitation).unwrap().unwrap();
        assert!(off(&scores, &expected().tensor("rows")) < 1e-5);
    }
}

#[test]
fn layers_may_share_weights() {
    check_feature("tied");
}

#[test]
fn constants_of_the_code_are_read() {
    check_feature("lifted");
}

/// Weight standardisation normalises weights by their own statistics, which is no training.
#[test]
fn weights_may_be_normalised_by_their_statistics() {
    check_feature("standardised");
}

#[test]
fn buffers_of_all_formats_and_layouts_are_read() {
    check_feature("buffers");
    // By a file of torch.save.
    let pair = Pair::of_small("buffers_old", "buffers");
    pair.check_scores(&expected().tensor("buffers"));
    pair.check(&METHODS, 0.0);
}

#[test]
fn sizes_may_be_computed_with() {
    check_feature("sizes");
}

#[test]
fn scores_are_found_in_tuples_and_dictionaries() {
    check_feature("tuple");
    check_feature("named");
    let network = Pair::of_small("named", "named").load();
    let chosen = |name: &str| {
        let mut hooks = Hooks::default();
        hooks.scores.output = Some(OutputChoice(name.to_string()));
        HookedModel::new(&network, Size::new(32, 32), &hooks)
    };
    assert!(chosen("logits").is_ok());
    let error = format!("{:#}", chosen("features").err().unwrap());
    assert!(
        error.contains("output features is not class scores"),
        "{error}"
    );
}

/// Half and double weights count as the nearest float32.
#[test]
fn weights_may_have_other_number_formats() {
    check_feature("half");
    let pair = Pair::of_small("double", "small");
    pair.check_scores(&expected().tensor("small"));
    pair.check(&METHODS, 1e-6);
}

#[test]
fn weights_may_be_channels_last() {
    let pair = Pair::of_small("channels_last", "small");
    pair.check_scores(&expected().tensor("small"));
    pair.check(&METHODS, 1e-5);
}

#[test]
fn a_batch_of_one_may_be_built_in() {
    let pair = Pair::of_small("static_one", "small");
    pair.check_scores(&expected().tensor("small"));
    pair.check(&METHODS, 1e-5);
}

#[test]
fn prism_json_is_read_in_all_layouts() {
    for version in VERSIONS {
        let file = file(&format!("torch_{version}_training"));
        assert_described(&file);
    }
}

/// An archive that somebody unpacked and packed again may be compressed, and have another folder
/// in front, or none.
#[test]
fn archives_may_have_been_packed_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let small = Pair::of_small("torch_2_13_training", "small");
    for version in ["2_5", "2_8", "2_13"] {
        for root in ["", "other/"] {
            let packed = folder.path().join("packed.pt2");
            let original = file(&format!("torch_{version}_training"));
            pack_again(&original, &packed, root);
            assert!(exported::holds_program(&packed));
            assert_described(&packed);
            let network = exported::load(&packed, Device::Cpu).unwrap().graph;
            let model = small.hook(&network, None, true);
            let scores = model.forward(&small.images).unwrap().logits;
            assert!(off(&scores, &expected().tensor("small")) < 1e-6);
        }
    }
}

fn assert_described(file: &Path) {
    let (about, remark) = ModelMetadata::read(file).unwrap();
    assert_eq!(about.image_size, Some(Size::new(32, 32)), "{file:?}");
    assert_eq!(about.mean, Some(vec![0.5]), "{file:?}");
    assert_eq!(about.labels.unwrap().len(), 10);
    assert!(remark.is_none());
}

fn pack_again(from: &Path, to: &Path, root: &str) {
    let mut old = zip::ZipArchive::new(std::fs::File::open(from).unwrap()).unwrap();
    let mut new = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    for index in 0..old.len() {
        let mut entry = old.by_index(index).unwrap();
        let has_folder = entry.name().starts_with("torch_");
        let place = entry.name().split_once('/').filter(|_| has_folder);
        let place = place.map_or(entry.name(), |(_, place)| place);
        new.start_file(format!("{root}{place}"), options).unwrap();
        std::io::copy(&mut entry, &mut new).unwrap();
    }
    new.finish().unwrap();
}

#[test]
fn parts_of_tensors_are_read() {
    let pair = Pair::of_small("sliced", "sliced");
    pair.check_scores(&expected().tensor("sliced"));
    // A trace also has slices that take everything.
    pair.check_hooks(&METHODS, 0.0);
}
