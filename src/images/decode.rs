//! Decoding image files to 8-bit RGB.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Seek};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits, Primitive, RgbImage, Rgba,
};

use super::headers::{check_webp, gif_frame};
use super::{CUT_SHORT, FORMATS, jpeg};
use crate::error::{Hint, Hinted, hinted};

/// The largest decoded pixel: four channels of 16 bits.
const MAX_PIXEL_BYTES: u64 = 8;

/// Checks that `path` is a regular file that starts as an image of one of
/// [`FORMATS`], whatever its name, with at least one pixel and at most `max_pixels`.
/// Pixels are not decoded.
///
/// # Errors
/// Returns one line with the path and the reason.
pub fn check_header(path: &Path, max_pixels: u64) -> Result<()> {
    of_file(path, || open(path, max_pixels).map(drop))
}

/// Decodes a file to 8-bit RGB, rotated as its EXIF orientation says. Of an animation the first
/// frame is decoded.
///
/// Grey is repeated, 16-bit samples v become round(v / 257), and transparent pixels are
/// blended with white. 16-bit samples are blended in 16 bits and rounded once, at the end.
///
/// # Errors
/// Returns the errors of [`check_header`], and an error if the file is damaged or cut short:
/// half-decoded pictures are never returned.
pub fn decode(path: &Path, max_pixels: u64) -> Result<RgbImage> {
    let (picture, orientation) = of_file(path, || match open(path, max_pixels)? {
        Opened::Jpeg(file) => jpeg::decode(file),
        Opened::Other(mut decoder) => {
            let orientation = decoder.orientation()?;
            Ok((to_rgb(DynamicImage::from_decoder(decoder)?)?, orientation))
        }
    })?;
    Ok(rotated(picture, orientation))
}

/// Runs `read` and prefixes its error with the path. Decoders may panic on damaged files,
/// which becomes an error as well.
fn of_file<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(anyhow!("the file is damaged")))
        .map_err(|error| unreadable(path, &error))
}

/// An image file with a valid header.
enum Opened {
    Jpeg(BufReader<File>),
    Other(Box<dyn ImageDecoder>),
}

fn open(path: &Path, max_pixels: u64) -> Result<Opened> {
    let found = fs::metadata(path).map_err(|error| anyhow!(reason(&error)))?;
    ensure!(!found.is_dir(), "it is a folder");
    ensure!(found.is_file(), "it is not a regular file");
    ensure!(found.len() > 0, "the file is empty");
    let file = File::open(path).map_err(|error| anyhow!(reason(&error)))?;
    let guess = ImageReader::new(BufReader::new(file)).with_guessed_format()?;
    // TGA is the only format without a signature.
    let named = ImageFormat::from_path(path).ok();
    let format = guess
        .format()
        .or(named.filter(|&named| named == ImageFormat::Tga))
        .context("its content is of no known image format")?;
    ensure!(
        FORMATS.iter().any(|&(known, _)| known == format),
        "{format:?} images are not supported; convert it to JPEG or PNG"
    );
    let mut file = guess.into_inner();
    match format {
        ImageFormat::Jpeg => {
            check_dimensions(jpeg::dimensions(&mut file)?, max_pixels)?;
            file.rewind()?;
            return Ok(Opened::Jpeg(file));
        }
        ImageFormat::WebP => check_webp(&mut file, found.len())?,
        ImageFormat::Gif => {
            if let Some(frame) = gif_frame(&mut file)? {
                check_dimensions(frame, max_pixels)?;
            }
        }
        _ => {}
    }
    file.rewind()?;
    let mut reader = ImageReader::with_format(file, format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(MAX_PIXEL_BYTES));
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    check_dimensions(decoder.dimensions(), max_pixels)?;
    Ok(Opened::Other(Box::new(decoder)))
}

fn check_dimensions((width, height): (u32, u32), max_pixels: u64) -> Result<()> {
    ensure!(
        width > 0 && height > 0,
        "the image has no pixels ({width}x{height})"
    );
    if u64::from(width) * u64::from(height) > max_pixels {
        let limit = match max_pixels {
            few @ ..1_000_000 => few.to_string(),
            many => format!("{} million", many / 1_000_000),
        };
        let message =
            format!("the image is too large ({width}x{height}, more than {limit} pixels)");
        return Err(hinted(message, Hint::MaxPixels));
    }
    Ok(())
}

/// The error of a file, on one line: a decoder's own message may have several.
fn unreadable(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let message = match error.downcast_ref() {
        Some(ImageError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            CUT_SHORT.into()
        }
        _ => error.to_string(),
    };
    let line: Vec<&str> = message.split_whitespace().collect();
    let line = format!(
        "cannot read the image {}: {}",
        path.display(),
        line.join(" ")
    );
    match error.downcast_ref::<Hinted>() {
        Some(error) => hinted(line, error.hint),
        None => anyhow!(line),
    }
}

/// The reason of an I/O error, without the number of the operating system if it is common.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or folder".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Any picture as 8-bit RGB over white.
fn to_rgb(picture: DynamicImage) -> Result<RgbImage> {
    use ColorType as C;
    match picture.color() {
        C::L8 | C::Rgb8 => Ok(picture.into_rgb8()),
        C::La8 | C::Rgba8 => over_white::<u8, 255>(&picture.into_rgba8()),
        C::L16 | C::La16 | C::Rgb16 | C::Rgba16 => over_white::<u16, 65535>(&picture.into_rgba16()),
        other => bail!("its samples are of type {other:?}; convert it to 8 or 16 bits"),
    }
}

/// round(c * a + 1 * (1 - a)) in 8 bits, for samples in 0..=TOP that represent 0..1.
fn over_white<S, const TOP: u64>(picture: &ImageBuffer<Rgba<S>, Vec<S>>) -> Result<RgbImage>
where
    S: Primitive + Into<u64>,
    Rgba<S>: image::Pixel<Subpixel = S>,
{
    let step = TOP * TOP / 255;
    let over = |colour: S, alpha: u64| {
        let mixed = colour.into() * alpha + TOP * (TOP - alpha);
        ((mixed + step / 2) / step) as u8
    };
    let (width, height) = picture.dimensions();
    let rgb = picture
        .pixels()
        .flat_map(|&Rgba([r, g, b, a])| [r, g, b].map(|colour| over(colour, a.into())))
        .collect();
    RgbImage::from_raw(width, height, rgb).context("the decoder left pixels out")
}

fn rotated(picture: RgbImage, orientation: Orientation) -> RgbImage {
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}
