//! The basis of an earlier run: what is read can be written, and reads again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::arrays::{BasisOf, read_basis, write_basis};
use prism_fuzz::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    let of = BasisOf {
        network: "vgg16".into(),
        layer: "features.30".into(),
        channels: 4,
        upsampling: "product".into(),
        colours: "every".into(),
    };
    let path = PLACE.file("a.safetensors", bytes);
    let Ok(basis) = read_basis(&path, &of) else {
        return;
    };
    assert_eq!(basis.axes.channels(), of.channels);
    let written = write_basis(&basis, &of).expect("what was read can be written");
    read_basis(&PLACE.file("b.safetensors", &written), &of).expect("what was written can be read");
});
