//! Pictures, decoded and resized.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prism::images::{self, ImageFile};
use prism_fuzz::{MOST_PIXELS, Place};

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|bytes: &[u8]| {
    prism_fuzz::let_panics_be_caught();
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
    // The other decoder of JPEG.
    let factor = |full| images::factor_within(4.0, full);
    let reduced = ImageFile::from(path.as_path()).decode(MOST_PIXELS, None, &factor).expect("the picture is good");
    assert_eq!(i64::from(reduced.rgb.width()) * i64::from(reduced.factor), reduced.full.width);
});
