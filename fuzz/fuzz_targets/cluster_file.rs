//! `2cluster.bin`: rows that are read can be written, and read the same again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::internals::pickle;
use prism_fuzz::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    let Ok(rows) = pickle::read(&PLACE.file("a.bin", bytes)) else {
        return;
    };
    let mut written = Vec::new();
    pickle::write(&rows, &mut written).expect("rows that were read can be written");
    let again = pickle::read(&PLACE.file("b.bin", &written)).expect("written rows can be read");
    assert!(rows == again, "{rows:?} became {again:?}");
});
