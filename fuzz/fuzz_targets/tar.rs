//! Tar archives, and the images in them.
#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::images::{ImageFile, find_images};
use prism_fuzz::{MOST_PIXELS, Place};

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    prism_fuzz::let_panics_be_caught();
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
        let _ = image.decode(MOST_PIXELS, None, &|_| 1);
    }
});
