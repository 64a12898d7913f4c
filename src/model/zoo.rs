//! The networks that prism knows by name: torchvision's names.

use super::alexnet::alexnet;
use super::densenet::densenet;
use super::efficientnet_lite::lite;
use super::googlenet::googlenet;
use super::metadata::ModelMetadata;
use super::transform_input::transform_input;
use super::vgg::{self, vgg};
use crate::convert::Normalisation;
use crate::names::most_similar;
use crate::size::Size;
use std::path::Path;
use tch::nn::{self, ModuleT};
use tch::vision::{inception, mobilenet, resnet, squeezenet};

/// One network of the zoo.
#[derive(Debug)]
pub struct ZooEntry {
    /// torchvision's name, `vgg16`.
    pub name: &'static str,
    /// File name of torchvision's IMAGENET1K_V1 weights, `vgg16-397923af.pth`; the digits are
    /// the start of its SHA-256. `None` if there is no official file to download.
    pub file: Option<&'static str>,
    /// Size of its input.
    pub input: Size,
    /// Number of trained values, for 1000 classes.
    pub parameters: u64,
    /// The layer that computes the scores, as named in the state dict: `classifier.6`.
    pub last_layer: &'static str,
    build: Build,
}

impl ZooEntry {
    /// Size of the image for tracing: a third of the input size. No network here turns its
    /// input size into a constant, and the forward pass of a small image is fast. (The
    /// smallest side is 63 pixels for alexnet and 75 for inception_v3.)
    pub fn traced(&self) -> Size {
        Size::new(self.input.height / 3, self.input.width / 3)
    }

    /// Whether a file has the name of the official weights, or of those that `make weights` makes;
    /// their classes are ImageNet's.
    pub fn is_official(&self, file: &Path) -> bool {
        let made = format!("{}.pth", self.name);
        file.file_name() == Some(self.file.unwrap_or(&made).as_ref())
    }

    /// What the authors state of the input.
    pub fn metadata(&self) -> ModelMetadata {
        let Normalisation { mean, std, .. } = Normalisation::default();
        ModelMetadata {
            image_size: Some(self.input),
            mean: Some(mean),
            std: Some(std),
            ..ModelMetadata::default()
        }
    }

    /// Builds the network for `classes` classes, with variables under `p` that have
    /// torchvision's names: `[N, 3, H, W]` float32 to scores `[N, classes]`. The variables have
    /// no trained values yet (see [`super::weights::load`]). For evaluation only: `train` must
    /// be false.
    pub fn build(&self, p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
        (self.build)(p, classes)
    }
}

impl PartialEq for ZooEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ZooEntry {}

/// The network with that name.
pub fn find(name: &str) -> Option<&'static ZooEntry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// All networks, sorted by family and size.
pub fn entries() -> &'static [ZooEntry] {
    &ENTRIES
}

/// The names most similar to `name`, at most four, the most similar first.
pub fn nearest(name: &str) -> Vec<&'static str> {
    // Case and separators vary: VGG-16, ResNet50, mobilenetv2.
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let names = ENTRIES.iter().map(|entry| entry.name);
    most_similar(name, names, plain, LEAST_SIMILARITY, 4)
}

/// The least similarity (Jaro-Winkler) of a name that is suggested in place of another.
const LEAST_SIMILARITY: f64 = 0.85;

type Build = fn(&nn::Path, i64) -> Box<dyn ModuleT>;

const fn entry(
    name: &'static str,
    file: &'static str,
    parameters: u64,
    last_layer: &'static str,
    build: Build,
) -> ZooEntry {
    ZooEntry {
        name,
        file: Some(file),
        input: Size::new(224, 224),
        parameters,
        last_layer,
        build,
    }
}

const fn lite_entry(name: &'static str, side: i64, parameters: u64, build: Build) -> ZooEntry {
    ZooEntry {
        file: None,
        input: Size::new(side, side),
        ..entry(name, "", parameters, "_fc", build)
    }
}

fn inception_v3(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    let network = inception::v3(p, classes);
    Box::new(nn::seq_t().add_fn(transform_input).add(network))
}

#[rustfmt::skip]
static ENTRIES: [ZooEntry; 26] = [
    entry("alexnet", "alexnet-owt-7be5be79.pth", 61_100_840, "classifier.6", |p, k| Box::new(alexnet(p, k))),
    entry("densenet121", "densenet121-a639ec97.pth", 7_978_856, "classifier", |p, k| densenet(p, 32, [6, 12, 24, 16], 64, k)),
    entry("densenet161", "densenet161-8d451a50.pth", 28_681_000, "classifier", |p, k| densenet(p, 48, [6, 12, 36, 24], 96, k)),
    entry("densenet169", "densenet169-b2777c0a.pth", 14_149_480, "classifier", |p, k| densenet(p, 32, [6, 12, 32, 32], 64, k)),
    entry("densenet201", "densenet201-c1103571.pth", 20_013_928, "classifier", |p, k| densenet(p, 32, [6, 12, 48, 32], 64, k)),
    lite_entry("efficientnet_lite0", 224, 4_652_008, |p, k| lite(p, 1.0, 1.0, 224, k)),
    lite_entry("efficientnet_lite1", 240, 5_416_680, |p, k| lite(p, 1.0, 1.1, 240, k)),
    lite_entry("efficientnet_lite2", 260, 6_092_072, |p, k| lite(p, 1.1, 1.2, 260, k)),
    entry("googlenet", "googlenet-1378be20.pth", 6_624_904, "fc", |p, k| Box::new(googlenet(p, k))),
    ZooEntry {
        input: Size::new(299, 299),
        ..entry("inception_v3", "inception_v3_google-0cc3c7bd.pth", 23_834_568, "fc", inception_v3)
    },
    entry("mobilenet_v2", "mobilenet_v2-b0353104.pth", 3_504_872, "classifier.1", |p, k| Box::new(mobilenet::v2(p, k))),
    entry("resnet18", "resnet18-f37072fd.pth", 11_689_512, "fc", |p, k| Box::new(resnet::resnet18(p, k))),
    entry("resnet34", "resnet34-b627a593.pth", 21_797_672, "fc", |p, k| Box::new(resnet::resnet34(p, k))),
    entry("resnet50", "resnet50-0676ba61.pth", 25_557_032, "fc", |p, k| Box::new(resnet::resnet50(p, k))),
    entry("resnet101", "resnet101-63fe2227.pth", 44_549_160, "fc", |p, k| Box::new(resnet::resnet101(p, k))),
    entry("resnet152", "resnet152-394f9c45.pth", 60_192_808, "fc", |p, k| Box::new(resnet::resnet152(p, k))),
    entry("squeezenet1_0", "squeezenet1_0-b66bff10.pth", 1_248_424, "classifier.1", |p, k| Box::new(squeezenet::v1_0(p, k))),
    entry("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 1_235_496, "classifier.1", |p, k| Box::new(squeezenet::v1_1(p, k))),
    entry("vgg11", "vgg11-8a719046.pth", 132_863_336, "classifier.6", |p, k| vgg(p, vgg::A, false, k)),
    entry("vgg11_bn", "vgg11_bn-6002323d.pth", 132_868_840, "classifier.6", |p, k| vgg(p, vgg::A, true, k)),
    entry("vgg13", "vgg13-19584684.pth", 133_047_848, "classifier.6", |p, k| vgg(p, vgg::B, false, k)),
    entry("vgg13_bn", "vgg13_bn-abd245e5.pth", 133_053_736, "classifier.6", |p, k| vgg(p, vgg::B, true, k)),
    entry("vgg16", "vgg16-397923af.pth", 138_357_544, "classifier.6", |p, k| vgg(p, vgg::D, false, k)),
    entry("vgg16_bn", "vgg16_bn-6c64b313.pth", 138_365_992, "classifier.6", |p, k| vgg(p, vgg::D, true, k)),
    entry("vgg19", "vgg19-dcbb9e9d.pth", 143_667_240, "classifier.6", |p, k| vgg(p, vgg::E, false, k)),
    entry("vgg19_bn", "vgg19_bn-c79401a0.pth", 143_678_248, "classifier.6", |p, k| vgg(p, vgg::E, true, k)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Trace;

    #[test]
    fn a_misspelt_name_finds_its_neighbours() {
        assert_eq!(nearest("VGG-16")[0], "vgg16");
        assert_eq!(nearest("resnet-50")[0], "resnet50");
        assert_eq!(nearest("mobilenetv2")[0], "mobilenet_v2");
        assert_eq!(nearest("squeeznet1_0")[0], "squeezenet1_0");
        assert!(nearest("a picture of my cat").is_empty());
    }

    #[test]
    fn every_network_can_be_built_and_recorded_skip_init() {
        for entry in entries() {
            let mut vs = nn::VarStore::new(tch::Device::Cpu);
            let module = crate::hooks::skip_init(|| entry.build(&vs.root(), 1000));
            vs.freeze();
            let size = entry.traced();
            let example = tch::Tensor::zeros([1, 3, size.height, size.width], tch::kind::FLOAT_CPU);
            let recorded = Trace::record(entry.name, &example, |images| {
                let scores = module.forward_t(images, false);
                assert_eq!(scores.size(), [1, 1000], "{}", entry.name);
                scores
            });
            recorded.unwrap();
            for (name, variable) in vs.variables() {
                let strides = variable.stride();
                assert!(strides.iter().all(|&s| s == 0), "{}: {name}", entry.name);
            }
        }
    }

    #[test]
    fn official_weights_are_known_by_their_names() {
        let is_official = |name, file: &str| find(name).unwrap().is_official(Path::new(file));
        assert!(is_official("resnet18", "a/resnet18-f37072fd.pth"));
        assert!(is_official(
            "efficientnet_lite0",
            "models/efficientnet_lite0.pth"
        ));
        assert!(!is_official("resnet18", "resnet18.pth"));
        assert!(!is_official("resnet18", "best.pth"));
    }

    #[test]
    fn names_are_unique() {
        for entry in entries() {
            assert_eq!(find(entry.name), Some(entry));
        }
        assert_eq!(find("VGG16"), None);
    }
}
