//! Pictures, decoded and resized.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::images;
use prism_fuzz::Place;

/// prism itself takes a hundred times more, for which the fuzzer lacks the time.
const MOST_PIXELS: u64 = 1 << 21;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

// The fuzzer's hook ends the process at every panic, also at one of a decoder, which prism catches;
// what nobody catches ends it all the same.
static CAUGHT: LazyLock<()> = LazyLock::new(|| std::panic::set_hook(Box::new(|_| ())));

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&CAUGHT);
    // TGA alone has no signature, so its extension counts.
    let path = PLACE.file("a.tga", bytes);
    let good = images::check_header(&path, images::MAX_PIXELS).is_ok();
    if !good {
        return;
    }
    let Ok(picture) = images::decode(&path, MOST_PIXELS) else {
        return;
    };
    assert!(picture.width() > 0 && picture.height() > 0);
    let small = images::resize(&picture, prism::Size::new(24, 32)).expect("a picture can be resized");
    assert_eq!(small.dimensions(), (32, 24));
});
