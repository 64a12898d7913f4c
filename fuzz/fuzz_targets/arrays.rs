//! A preprocessed `input`: `.npz`, the `.npy` in it, and `.safetensors`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::arrays::read_input;
use prism_fuzz::{Place, zipped};

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    let path = if bytes.starts_with(b"\x93NUMPY") {
        PLACE.file("a.npz", &zipped(&[("input.npy", bytes)]))
    } else if bytes.get(8) == Some(&b'{') {
        PLACE.file("a.safetensors", bytes)
    } else {
        PLACE.file("a.npz", bytes)
    };
    if let Ok(images) = read_input(&path) {
        assert!(images.shape()[1] == 3 && !images.is_empty());
        assert!(images.iter().all(|value| value.is_finite()));
    }
});
