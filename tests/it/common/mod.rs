//! Paths, arrays that the reference scripts wrote, differences, and the folder to run in.

pub mod browser;
pub mod place;

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use prism::Size;
use prism::hooks::{HookedModel, Hooks, NetworkGraph, SaliencyHook};
use prism::saliency::Method;
use tch::{Kind, Tensor};

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path below `tests/data`.
pub fn data(path: &str) -> PathBuf {
    repository("tests/data").join(path)
}

/// The tiny networks of every family in tests/data/networks, and how each is
/// stored.
pub const NETWORKS: [(&str, &[&str]); 11] = [
    ("tiny_vgg", &["scripted", "traced"]),
    ("tiny_resnet", &["scripted", "traced"]),
    ("tiny_bottleneck", &["scripted", "traced"]),
    ("tiny_inception", &["scripted", "traced"]),
    ("tiny_mobilenet", &["scripted", "traced"]),
    ("tiny_squeezenet", &["scripted", "traced"]),
    ("tiny_dict", &["scripted"]),
    ("tiny_gated", &["scripted", "traced"]),
    ("tiny_dense", &["scripted", "traced"]),
    ("tiny_shuffle", &["scripted", "traced"]),
    ("tiny_convnext", &["scripted", "traced"]),
];

/// A file of arrays.
pub struct Npz(std::cell::RefCell<NpzReader<File>>);

impl Npz {
    pub fn open(path: impl AsRef<Path>) -> Npz {
        let path = path.as_ref();
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Npz(NpzReader::new(file).unwrap().into())
    }

    /// An array of flags.
    pub fn flags(&self, name: &str) -> Tensor {
        let array: ArrayD<bool> = self.0.borrow_mut().by_name(name).unwrap();
        let array = array.mapv(u8::from);
        let tensor = Tensor::try_from(array.as_standard_layout().into_owned()).unwrap();
        tensor.to_kind(tch::Kind::Bool)
    }

    /// A float32 or float64 array as a float32 tensor.
    pub fn tensor(&self, name: &str) -> Tensor {
        let mut npz = self.0.borrow_mut();
        let array: ArrayD<f32> = match npz.by_name(name) {
            Ok(array) => array,
            Err(_) => {
                let wide: ArrayD<f64> = npz.by_name(name).unwrap_or_else(|e| panic!("{name}: {e}"));
                wide.mapv(|value| value as f32)
            }
        };
        Tensor::try_from(array.as_standard_layout().into_owned()).unwrap()
    }

    /// An array of bytes.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let bytes: ArrayD<u8> = self.0.borrow_mut().by_name(name).unwrap();
        bytes.into_raw_vec_and_offset().0
    }

    /// An array of UTF-8 bytes that is JSON.
    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }

    /// The names of all arrays.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow_mut().names().unwrap()
    }
}

/// Fails if two tensors differ by more than `most` anywhere.
pub fn assert_near(a: &Tensor, b: &Tensor, most: f64, what: &str) {
    let off = largest_difference(a, b);
    assert!(off <= most, "{what}: off by {off}");
}

/// The largest absolute difference; infinite if shapes differ or a value is NaN.
pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    if a.size() != b.size() {
        return f64::INFINITY;
    }
    let worst = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[]);
    if worst.is_nan() { f64::INFINITY } else { worst }
}

/// A network hooked for images of `size` x `size`, with its operators one by one if `plain`.
pub fn hooked(
    network: &NetworkGraph,
    size: i64,
    method: Option<Method>,
    plain: bool,
) -> anyhow::Result<HookedModel> {
    let saliency = method.map(|method| SaliencyHook {
        method,
        layer: None,
    });
    let hooks = Hooks {
        saliency,
        ..Hooks::default()
    };
    let size = Size::new(size, size);
    match plain {
        true => HookedModel::new_plain(network, size, &hooks),
        false => HookedModel::new(network, size, &hooks),
    }
}
