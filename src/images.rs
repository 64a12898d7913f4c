//! From paths on the command line to RGB pictures of one size.
//!
//! Colours are used as stored. Colour profiles and gamma are ignored, as in Pillow and
//! torchvision, whose pictures the networks were trained on.

use image::ImageFormat;

mod archive;
mod braces;
mod decode;
mod file;
mod find;
mod fit;
mod headers;
mod jpeg;
mod kinds;
mod lists;
mod pixels;
mod reduce;
mod scaled_jpeg;
mod tags;
mod tar;

pub use crate::convert::{Normalisation, grey, to_batch};
pub use archive::Lookup;
pub use decode::{check_header, decode, decode_with_white};
pub use file::ImageFile;
pub use find::{Counted, Found, LeftOut, find_images};
pub use fit::{Resize, resize};
pub use lists::{Separator, expanded};
pub use pixels::{Oddity, Pixels};
pub use reduce::{Source, factor_within, size_of};

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
