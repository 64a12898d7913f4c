//! From paths on the command line to RGB pictures of one size.
//!
//! Colours are used as stored. Colour profiles and gamma are ignored, as in Pillow and
//! torchvision, whose pictures the networks were trained on.

use anyhow::{Context, Result, ensure};
use fast_image_resize as fir;
use image::{ImageFormat, RgbImage};

mod decode;
mod find;
mod headers;
mod jpeg;

pub use crate::convert::{Normalisation, to_batch};
use crate::size::Size;
pub use decode::{check_header, decode};
pub use find::find_images;

/// The supported formats, each with the file name extensions (lower case) that select its
/// files in a folder. A new format is a row here and a feature of `image` in `Cargo.toml`.
pub const FORMATS: [(ImageFormat, &[&str]); 10] = [
    (ImageFormat::Bmp, &["bmp"]),
    (ImageFormat::Gif, &["gif"]),
    (ImageFormat::Ico, &["ico"]),
    (ImageFormat::Jpeg, &["jfif", "jpe", "jpeg", "jpg"]),
    (ImageFormat::Png, &["apng", "png"]),
    (ImageFormat::Pnm, &["pam", "pbm", "pgm", "pnm", "ppm"]),
    (ImageFormat::Qoi, &["qoi"]),
    (ImageFormat::Tga, &["tga"]),
    (ImageFormat::Tiff, &["tif", "tiff"]),
    (ImageFormat::WebP, &["webp"]),
];

/// Default limit on the pixels of an image: 268 million, above the 200 megapixels of today's
/// largest phone sensors. A file that claims more (a "decompression bomb") is rejected before
/// memory is allocated.
pub const MAX_PIXELS: u64 = 1 << 28;

const CUT_SHORT: &str = "the file is cut short";

/// Resizes a picture, bilinearly with antialiasing: each pixel of a smaller picture is a
/// triangle-weighted mean of all pixels that it covers. Differs from Pillow's
/// `Image.BILINEAR` by at most 1/255.
///
/// # Errors
/// Returns an error if a side of either picture is 0.
pub fn resize(image: &RgbImage, size: Size) -> Result<RgbImage> {
    let (from_width, from_height) = image.dimensions();
    ensure!(
        from_width > 0 && from_height > 0 && size.height > 0 && size.width > 0,
        "cannot resize {from_width}x{from_height} pixels to {}x{}",
        size.width,
        size.height
    );
    let (width, height) = (u32::try_from(size.width)?, u32::try_from(size.height)?);
    let rgb = fir::PixelType::U8x3;
    let source = fir::images::ImageRef::new(from_width, from_height, image.as_raw(), rgb)?;
    let mut target = fir::images::Image::new(width, height, rgb);
    let bilinear = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    fir::Resizer::new().resize(&source, &mut target, &bilinear)?;
    RgbImage::from_raw(width, height, target.into_vec()).context("the resized picture has holes")
}
