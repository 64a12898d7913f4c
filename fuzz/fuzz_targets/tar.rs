//! Tar archives, and the images in them.
#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::images::{ImageFile, find_images};
use prism_fuzz::Place;

/// prism itself takes a hundred times more, for which the fuzzer lacks the time.
const MOST_PIXELS: u64 = 1 << 21;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

// The fuzzer's hook ends the process at every panic, also at one of a decoder, which prism catches;
// what nobody catches ends it all the same.
static CAUGHT: LazyLock<()> = LazyLock::new(|| std::panic::set_hook(Box::new(|_| ())));

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&CAUGHT);
    let path = PLACE.file("a.tar", bytes);
    let Ok(found) = find_images(&[path]) else {
        return;
    };
    let paths: HashSet<_> = found.images.iter().map(ImageFile::path).collect();
    assert_eq!(paths.len(), found.images.len());
    // A header takes 512 bytes.
    assert!(found.images.len() <= bytes.len() / 512);
    for left_out in &found.left_out {
        left_out.lines();
    }
    for image in &found.images {
        let _ = image.class();
        let _ = image.decode(MOST_PIXELS, None);
    }
});
