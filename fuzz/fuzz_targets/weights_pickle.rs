//! The pickle inside of a state dict, in an archive that is otherwise good.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::model::weights::StateDict;
use prism_fuzz::{Place, zipped};

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    let archive = zipped(&[
        ("a/data.pkl", bytes),
        ("a/byteorder", b"little"),
        ("a/data/0", &[1; 64]),
        ("a/data/1", &[2; 8]),
        ("a/data/2", &[3; 8]),
        ("a/version", b"3\n"),
    ]);
    let path = PLACE.file("a.pth", &archive);
    if let Ok(state) = StateDict::open(&path) {
        let _ = state.read();
    }
});
