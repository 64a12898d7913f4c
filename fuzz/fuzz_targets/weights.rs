//! Files of weights as they are handed in: zip archives and old files of
//! `torch.save`, and safetensors.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::model::ModelMetadata;
use prism::model::weights::{StateDict, is_torchscript};
use prism::model::zoo;
use prism_fuzz::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    // The extension chooses the reader, so the content chooses the extension:
    // the header of safetensors is JSON behind 8 bytes.
    let name = match bytes.get(8) {
        Some(b'{') => "a.safetensors",
        _ => "a.pth",
    };
    let path = PLACE.file(name, bytes);
    let _ = is_torchscript(&path);
    let _ = ModelMetadata::read(&path);
    let Ok(state) = StateDict::open(&path) else {
        return;
    };
    for entry in zoo::entries() {
        assert!(state.classes(entry).is_none_or(|classes| classes > 0));
    }
    if let Ok(tensors) = state.read() {
        let values = |size: Vec<i64>| size.iter().product::<i64>() as u64;
        let all: u64 = tensors
            .iter()
            .map(|(_, tensor)| values(tensor.size()))
            .sum();
        // Memory as the file is long, but for a small factor.
        assert!(all <= 8 * bytes.len() as u64, "{all} values");
    }
});
