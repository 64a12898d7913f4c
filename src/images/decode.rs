//! Decoding image files to 8-bit RGB.

use std::io::{BufReader, ErrorKind, Read, Seek};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::codecs::pnm::PnmDecoder;
use image::error::ImageFormatHint;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::file::{ImageFile, Section};
use super::headers::{check_webp, gif_frame, is_premultiplied_tga};
use super::kinds::{self, Kind};
use super::pixels::{Pixels, Storage, to_rgb};
use super::tags::Tags;
use super::{CUT_SHORT, FORMATS, jpeg};
use crate::error::{Hint, Hinted, hinted};
use crate::size::Size;

/// The largest decoded pixel: four channels of 16 bits.
const MAX_PIXEL_BYTES: u64 = 8;

/// Checks that `path` is a regular file that starts as an image of one of
/// [`FORMATS`], whatever its name, with at least one pixel and at most `max_pixels`.
/// Pixels are not decoded.
///
/// # Errors
/// Returns one line with the path and the reason.
pub fn check_header(path: &Path, max_pixels: u64) -> Result<()> {
    ImageFile::from(path).check_header(max_pixels)
}

/// Decodes a file to 8-bit RGB, rotated as its EXIF orientation says. Of an animation the first
/// frame is decoded.
///
/// Grey is repeated, 16-bit samples v become round(v / 257), and transparent pixels are
/// blended with white. 16-bit samples are blended in 16 bits and rounded once, at the end. If
/// every pixel is transparent, the colours are taken as if none were.
///
/// # Errors
/// Returns the errors of [`check_header`], and an error if the file is damaged or cut short:
/// half-decoded pictures are never returned.
pub fn decode(path: &Path, max_pixels: u64) -> Result<RgbImage> {
    decode_with_white(path, max_pixels, None).map(|pixels| pixels.rgb)
}

/// As [`decode`], with what is odd about the pixels. If `white` is given, it is the 16-bit
/// sample, as the file stores it, that becomes white; samples above it are white, too. Images of
/// 8 bits do not change.
///
/// # Errors
/// Returns the errors of [`decode`].
pub fn decode_with_white(path: &Path, max_pixels: u64, white: Option<u16>) -> Result<Pixels> {
    ImageFile::from(path).decode(max_pixels, white, &|_| 1)
}

impl ImageFile {
    /// As the function [`check_header`].
    ///
    /// # Errors
    /// Returns the errors of that function.
    pub fn check_header(&self, max_pixels: u64) -> Result<()> {
        self.try_read(|| open(self, max_pixels).map(drop))
    }

    /// As the function [`decode_with_white`], then reduced by the factor (1, 2, 4 or 8, which
    /// divides both sides) that `factor` gives for the size of the picture. Each pixel of a
    /// reduced picture is the mean of those that it covers; JPEG is reduced while it is decoded,
    /// by a scaled inverse cosine transform.
    ///
    /// # Errors
    /// Returns the errors of that function.
    pub fn decode(
        &self,
        max_pixels: u64,
        white: Option<u16>,
        factor: &dyn Fn(Size) -> u32,
    ) -> Result<Pixels> {
        self.try_read(|| match open(self, max_pixels)? {
            Opened::Jpeg(file) => {
                let (pixels, orientation) = jpeg::decode(file, factor)?;
                Ok(rotated(pixels, orientation).reduced(factor))
            }
            Opened::Other {
                mut decoder,
                tags,
                storage,
            } => {
                let exif = || {
                    decoder
                        .exif_metadata()
                        .map(|exif| Tags::of_exif(&exif.unwrap_or_default()))
                };
                let orientation = tags.map_or_else(exif, Ok)?.orientation();
                let pixels = to_rgb(DynamicImage::from_decoder(decoder)?, storage, white)?;
                Ok(rotated(pixels, orientation).reduced(factor))
            }
        })
    }

    /// Runs `read` and prefixes its error with the path. Decoders may panic on damaged files,
    /// which becomes an error as well.
    fn try_read<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        panic::catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(anyhow!("the file is damaged")))
            .map_err(|error| unreadable(self.path(), &error))
    }
}

/// An image file with a valid header.
enum Opened {
    Jpeg(BufReader<Section>),
    Other {
        decoder: Box<dyn ImageDecoder>,
        /// Of a TIFF file. Other formats have EXIF data.
        tags: Option<Tags>,
        storage: Storage,
    },
}

fn open(image: &ImageFile, max_pixels: u64) -> Result<Opened> {
    let section = image.open()?;
    let length = section.length;
    let (mut file, format) = with_format(image.path(), BufReader::new(section))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(MAX_PIXEL_BYTES));
    let mut storage = Storage::default();
    let mut tags = None;
    let decoder: Box<dyn ImageDecoder> = match format {
        ImageFormat::Jpeg => {
            check_dimensions(jpeg::dimensions(&mut file)?, max_pixels)?;
            file.rewind()?;
            return Ok(Opened::Jpeg(file));
        }
        ImageFormat::Pnm => {
            let mut decoder = PnmDecoder::new(file)?;
            let full = decoder.header().maximal_sample();
            storage.full = u16::try_from(full).unwrap_or(u16::MAX).max(1);
            decoder.set_limits(limits)?;
            Box::new(decoder)
        }
        _ => {
            match format {
                ImageFormat::WebP => check_webp(&mut file, length)?,
                ImageFormat::Gif => {
                    if let Some(frame) = gif_frame(&mut file)? {
                        check_dimensions(frame, max_pixels)?;
                    }
                }
                ImageFormat::Tga => storage.premultiplied = is_premultiplied_tga(&mut file),
                ImageFormat::Tiff => {
                    let found = Tags::of_file(&mut file);
                    refuse(Some(kinds::CAMERA_TIFF).filter(|_| found.is_raw()))?;
                    storage.premultiplied = found.is_premultiplied();
                    storage.inverted = found.is_inverted();
                    tags = Some(found);
                }
                _ => {}
            }
            file.rewind()?;
            let mut reader = ImageReader::with_format(file, format);
            reader.limits(limits);
            Box::new(reader.into_decoder()?)
        }
    };
    check_dimensions(decoder.dimensions(), max_pixels)?;
    Ok(Opened::Other {
        decoder,
        tags,
        storage,
    })
}

/// The file from its start, and its format.
fn with_format(
    path: &Path,
    mut file: BufReader<Section>,
) -> Result<(BufReader<Section>, ImageFormat)> {
    let mut start = Vec::new();
    file.by_ref()
        .take(kinds::SIGNATURE as u64)
        .read_to_end(&mut start)?;
    refuse(kinds::by_content(&start))?;
    file.rewind()?;
    let guess = ImageReader::new(file).with_guessed_format()?;
    // TGA is the only format without a signature.
    let named = ImageFormat::from_path(path).ok();
    let format = guess
        .format()
        .or(named.filter(|&named| named == ImageFormat::Tga))
        .context("its content is of no known image format")?;
    if format == ImageFormat::Tiff {
        refuse(kinds::raw_by_extension(path))?;
    }
    ensure!(
        FORMATS.iter().any(|&(known, _)| known == format),
        "{format:?} images are not supported; convert it to JPEG or PNG"
    );
    let mut file = guess.into_inner();
    file.rewind()?;
    Ok((file, format))
}

/// Refuses a file of a format that is not read.
fn refuse(kind: Option<Kind>) -> Result<()> {
    match kind {
        Some(kind) => bail!("this is {}; {}", kind.name, kind.remedy()),
        None => Ok(()),
    }
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
        Some(ImageError::Unsupported(error)) => match error.format_hint() {
            ImageFormatHint::Exact(format) => {
                format!(
                    "this variety of {format:?} is not supported; convert it to PNG with 8 or 16 bits"
                )
            }
            _ => error.to_string(),
        },
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

fn rotated(pixels: Pixels, orientation: Orientation) -> Pixels {
    let mut picture = DynamicImage::ImageRgb8(pixels.rgb);
    picture.apply_orientation(orientation);
    Pixels {
        rgb: picture.into_rgb8(),
        full: jpeg::upright(pixels.full, orientation),
        ..pixels
    }
}
