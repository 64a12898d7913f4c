//! JPEG, decoded at a half, a quarter or an eighth of its size by a scaled inverse cosine
//! transform (libjpeg-turbo, in MozJPEG): most of the work of a large photograph is left out.
//!
//! Of 12 million pixels a full decoding takes 35 ms and a quarter 20 ms of a core (baseline,
//! 2 MB); each further pass over all pixels, to resize them, takes 5 ms.

use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use image::RgbImage;
use mozjpeg::decompress::DecompressBuilder;
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr};

/// The sides of the blocks that are transformed.
const BLOCK: u32 = 8;

/// Decodes a picture in grey or YCbCr, each side divided by `factor`: 2, 4 or 8, which divides both. Returns none
/// if its colours are others, or if anything is wrong with the file, be it a warning.
pub fn decode(data: &[u8], factor: u32) -> Option<RgbImage> {
    // The handlers of errors unwind.
    panic::catch_unwind(AssertUnwindSafe(|| scaled(data, factor))).unwrap_or_default()
}

fn scaled(data: &[u8], factor: u32) -> Option<RgbImage> {
    use mozjpeg::ColorSpace as C;
    let builder = DecompressBuilder::new().with_err(without_patience());
    let mut decoder = builder.from_mem(data).ok()?;
    if !matches!(decoder.color_space(), C::JCS_YCbCr | C::JCS_GRAYSCALE) {
        return None;
    }
    decoder.scale(u8::try_from(BLOCK / factor).ok()?);
    let mut started = decoder.rgb().ok()?;
    let (width, height) = (started.width(), started.height());
    let mut rgb = vec![0; 3 * width * height];
    started.read_scanlines_into::<u8>(&mut rgb).ok()?;
    started.finish().ok()?;
    RgbImage::from_raw(width.try_into().ok()?, height.try_into().ok()?, rgb)
}

/// Ends the decoding at any error, and at any warning: libjpeg fills missing parts with grey.
fn without_patience() -> jpeg_error_mgr {
    jpeg_error_mgr {
        error_exit: Some(end),
        emit_message: Some(end_at_warnings),
        output_message: Some(ignore),
        format_message: None,
        reset_error_mgr: Some(ignore),
        msg_code: 0,
        msg_parm: Default::default(),
        trace_level: 0,
        num_warnings: 0,
        jpeg_message_table: ptr::null(),
        last_jpeg_message: 0,
        addon_message_table: ptr::null(),
        first_addon_message: 0,
        last_addon_message: 0,
    }
}

extern "C-unwind" fn end(_: &mut jpeg_common_struct) {
    panic::resume_unwind(Box::new(()));
}

extern "C-unwind" fn end_at_warnings(_: &mut jpeg_common_struct, level: i32) {
    if level < 0 {
        panic::resume_unwind(Box::new(()));
    }
}

extern "C-unwind" fn ignore(_: &mut jpeg_common_struct) {}
