//! From paths on the command line to RGB pictures of one size.
//!
//! Colours are taken as stored: colour profiles and gamma are ignored, as
//! Pillow and torchvision do, whose pictures the networks were trained on.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fast_image_resize as fir;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

mod jpeg;

pub use crate::convert::{Normalisation, to_batch};

/// The file name extensions, in lower case, by which a picture in a folder is
/// known.
pub const EXTENSIONS: [&str; 19] = [
    "apng", "bmp", "gif", "ico", "jfif", "jpe", "jpeg", "jpg", "pam", "pbm", "pgm", "png", "pnm",
    "ppm", "qoi", "tga", "tif", "tiff", "webp",
];

/// The largest number of pixels that is decoded where nothing else is asked for: 268 million.
/// It leaves room for the 200 megapixels of today's largest telephone sensors, and a file that
/// claims more (a "decompression bomb") is refused before memory is taken.
pub const MAX_PIXELS: u64 = 1 << 28;

/// Bytes of one decoded pixel at most: four channels of 16 bits.
const MAX_PIXEL_BYTES: u64 = 8;

const CUT_SHORT: &str = "the file is cut short";

/// The image files that `values` name, sorted by path.
///
/// Each value is a file, a folder (the pictures in it by [extension](EXTENSIONS),
/// not those of its sub-folders) or a glob, in which `**` descends into folders;
/// what exists under the very name is no glob. Like a shell, globs and folders
/// pass over hidden files, whose name starts with a dot. Paths stay as given;
/// those that are equal once made absolute count once.
///
/// # Errors
/// No values, and any value that yields no file.
pub fn find_images(values: &[PathBuf]) -> Result<Vec<PathBuf>> {
    ensure!(
        !values.is_empty(),
        "no input: name an image, a folder or a glob"
    );
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    for value in values {
        for path in images_of(value)? {
            let absolute = std::path::absolute(&path)
                .with_context(|| format!("cannot make {} absolute", path.display()))?;
            if seen.insert(absolute) {
                images.push(path);
            }
        }
    }
    images.sort();
    Ok(images)
}

fn images_of(value: &Path) -> Result<Vec<PathBuf>> {
    ensure!(
        !value.as_os_str().is_empty(),
        "the input is empty: name an image, a folder or a glob"
    );
    match fs::metadata(value) {
        Ok(found) if found.is_dir() => images_in_folder(value),
        Ok(_) => Ok(vec![value.to_path_buf()]),
        Err(_) if is_glob(value) => images_of_glob(value),
        Err(error) => Err(anyhow!("{}: {}", value.display(), reason(&error))),
    }
}

fn is_glob(value: &Path) -> bool {
    value
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|byte| b"*?[".contains(byte))
}

fn images_in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut images = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if !hidden && has_image_extension(&path) && !path.is_dir() {
            images.push(path);
        }
    }
    ensure!(
        !images.is_empty(),
        "the folder {} holds no image (no file in it ends in .{})",
        folder.display(),
        EXTENSIONS.join(", .")
    );
    Ok(images)
}

fn has_image_extension(path: &Path) -> bool {
    path.extension().is_some_and(|found| {
        EXTENSIONS
            .iter()
            .any(|known| found.eq_ignore_ascii_case(known))
    })
}

fn images_of_glob(value: &Path) -> Result<Vec<PathBuf>> {
    let pattern = value.to_str().ok_or_else(|| {
        anyhow!(
            "{}: no such file, and a glob must be valid UTF-8",
            value.display()
        )
    })?;
    let as_a_shell = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let matches = glob::glob_with(pattern, as_a_shell).map_err(|error| {
        anyhow!(
            "{pattern}: no such file, and no valid glob: {} (at character {})",
            error.msg,
            error.pos + 1
        )
    })?;
    let mut images = Vec::new();
    for found in matches {
        let path = found.map_err(|error| {
            anyhow!(
                "{pattern}: cannot read {}: {}",
                error.path().display(),
                reason(error.error())
            )
        })?;
        if !path.is_dir() {
            images.push(path);
        }
    }
    ensure!(!images.is_empty(), "{pattern}: no file matches this glob");
    Ok(images)
}

/// Checks that `path` is a file that starts as an image of a known format,
/// whatever its name, and is neither empty nor of more pixels than `max_pixels`.
/// Pixels are not decoded.
///
/// # Errors
/// One line that names the path and what is wrong.
pub fn check_header(path: &Path, max_pixels: u64) -> Result<()> {
    of_file(path, || open(path, max_pixels).map(drop))
}

/// The picture in the file, as the viewer sees it: 8-bit RGB, turned as its
/// EXIF orientation says, of an animation the first frame.
///
/// Grey is repeated, 16-bit samples v become round(v / 257), and what is
/// transparent lies over white; of 16-bit samples that is computed in 16 bits
/// and rounded once, at the end.
///
/// # Errors
/// As [`check_header`], and a file that is damaged or ends too early: no
/// half-decoded picture is returned.
pub fn decode(path: &Path, max_pixels: u64) -> Result<RgbImage> {
    let (picture, orientation) = of_file(path, || match open(path, max_pixels)? {
        Opened::Jpeg(file) => jpeg::decode(file),
        Opened::Other(decoder) => decode_other(decoder),
    })?;
    Ok(turned(picture, orientation))
}

/// What `read` makes of the file, or the line that says why it cannot be read. Decoders are
/// not free of panics over damaged files, which are one more reason.
fn of_file<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(anyhow!("the file is damaged")))
        .map_err(|error| unreadable(path, &error))
}

/// An image file whose header has been read and found good.
enum Opened {
    Jpeg(BufReader<File>),
    Other(Box<dyn ImageDecoder>),
}

fn open(path: &Path, max_pixels: u64) -> Result<Opened> {
    let found = fs::metadata(path).map_err(|error| anyhow!("{}", reason(&error)))?;
    ensure!(!found.is_dir(), "it is a folder");
    ensure!(found.is_file(), "it is no regular file");
    ensure!(found.len() > 0, "the file is empty");
    let file = File::open(path).map_err(|error| anyhow!("{}", reason(&error)))?;
    let guess = ImageReader::new(BufReader::new(file)).with_guessed_format()?;
    // TGA alone has no signature.
    let named = ImageFormat::from_path(path).ok();
    let format = guess
        .format()
        .or(named.filter(|&named| named == ImageFormat::Tga))
        .context("its content is of no known image format")?;
    ensure!(
        format.reading_enabled(),
        "{format:?} images are not supported; convert it to JPEG or PNG"
    );
    let mut file = guess.into_inner();
    if format == ImageFormat::Jpeg {
        check_dimensions(jpeg::dimensions(&mut file)?, max_pixels)?;
        file.rewind()?;
        return Ok(Opened::Jpeg(file));
    }
    if format == ImageFormat::WebP {
        check_webp(&mut file, found.len())?;
        file.rewind()?;
    }
    if format == ImageFormat::Gif {
        if let Some(frame) = gif_frame(&mut file)? {
            check_dimensions(frame, max_pixels)?;
        }
        file.rewind()?;
    }
    let mut reader = ImageReader::with_format(file, format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(MAX_PIXEL_BYTES));
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    check_dimensions(decoder.dimensions(), max_pixels)?;
    Ok(Opened::Other(Box::new(decoder)))
}

/// Refuses what the decoder of WebP would not: it takes the bits that a file
/// lacks for zeros, and for EXIF data all the memory that their length claims.
fn check_webp<R: Read + Seek>(file: &mut BufReader<R>, length: u64) -> Result<()> {
    // Four letters and the number of bytes that follow; in the outer one of them
    // lie four letters more, then those within.
    let mut tag = [0; 4];
    let mut size = [0; 4];
    let mut at = 0;
    while file.read_exact(&mut tag).is_ok() && file.read_exact(&mut size).is_ok() {
        at += (tag.len() + size.len()) as u64;
        let size = u64::from(u32::from_le_bytes(size));
        let is_read = [*b"RIFF", *b"EXIF"].contains(&tag);
        ensure!(!is_read || size <= length.saturating_sub(at), CUT_SHORT);
        let next = match at {
            8 => 4,
            _ => size.next_multiple_of(2),
        };
        file.seek_relative(next as i64)?;
        at += next;
    }
    Ok(())
}

/// Width and height of the first frame of a GIF, for which the decoder takes memory however
/// small the picture is that it belongs to. None where the file ends before.
fn gif_frame(file: &mut (impl BufRead + Seek)) -> Result<Option<(u32, u32)>> {
    const EXTENSION: u8 = 0x21;
    const FRAME: u8 = 0x2c;
    // Signature, size, flags, background, aspect; a table of colours where the flags say so.
    let mut header = [0; 13];
    if file.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    if header[10] & 0x80 != 0 {
        file.seek_relative(3 << ((header[10] & 7) + 1))?;
    }
    let mut byte = [0];
    while file.read_exact(&mut byte).is_ok() {
        match byte[0] {
            FRAME => {
                let mut place = [0; 8]; // left, top, width, height
                let whole = file.read_exact(&mut place).is_ok();
                let side = |at| u32::from(u16::from_le_bytes([place[at], place[at + 1]]));
                return Ok(whole.then(|| (side(4), side(6))));
            }
            EXTENSION => {
                file.seek_relative(1)?; // what kind
                // Runs of bytes, each after its length; the last is empty.
                while file.read_exact(&mut byte).is_ok() && byte[0] > 0 {
                    file.seek_relative(i64::from(byte[0]))?;
                }
            }
            // The end, or nothing that the decoder takes either.
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn check_dimensions((width, height): (u32, u32), max_pixels: u64) -> Result<()> {
    ensure!(
        width > 0 && height > 0,
        "the image has no pixels ({width}x{height})"
    );
    ensure!(
        u64::from(width) * u64::from(height) <= max_pixels,
        "the image is too large ({width}x{height}, more than {} pixels); scale it down or raise --max-pixels",
        match max_pixels {
            few @ ..1_000_000 => few.to_string(),
            many => format!("{} million", many / 1_000_000),
        }
    );
    Ok(())
}

fn unreadable(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let message = match error.downcast_ref() {
        Some(ImageError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            CUT_SHORT.into()
        }
        _ => error.to_string(),
    };
    // A decoder's own message may run over several lines.
    let line: Vec<&str> = message.split_whitespace().collect();
    anyhow!(
        "cannot read the image {}: {}",
        path.display(),
        line.join(" ")
    )
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or folder".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn decode_other(mut decoder: Box<dyn ImageDecoder>) -> Result<(RgbImage, Orientation)> {
    let orientation = decoder.orientation()?;
    let picture = to_rgb(DynamicImage::from_decoder(decoder)?)?;
    Ok((picture, orientation))
}

/// Any picture as 8-bit RGB over white.
fn to_rgb(picture: DynamicImage) -> Result<RgbImage> {
    use DynamicImage as D;
    let (width, height) = (picture.width(), picture.height());
    let rgb: Vec<u8> = match picture {
        D::ImageRgb8(picture) => return Ok(picture),
        D::ImageLuma8(picture) => picture.iter().flat_map(|&v| [v; 3]).collect(),
        D::ImageLumaA8(picture) => {
            let pixels = picture.pixels();
            pixels.flat_map(|p| [over_white8(p[0], p[1]); 3]).collect()
        }
        D::ImageRgba8(picture) => {
            let pixels = picture.pixels();
            pixels
                .flat_map(|p| [0, 1, 2].map(|c| over_white8(p[c], p[3])))
                .collect()
        }
        D::ImageLuma16(picture) => picture.iter().flat_map(|&v| [to_8_bits(v); 3]).collect(),
        D::ImageRgb16(picture) => picture.iter().map(|&v| to_8_bits(v)).collect(),
        D::ImageLumaA16(picture) => {
            let pixels = picture.pixels();
            pixels.flat_map(|p| [over_white16(p[0], p[1]); 3]).collect()
        }
        D::ImageRgba16(picture) => {
            let pixels = picture.pixels();
            pixels
                .flat_map(|p| [0, 1, 2].map(|c| over_white16(p[c], p[3])))
                .collect()
        }
        other => bail!(
            "its samples are of type {:?}; convert it to 8 or 16 bits",
            other.color()
        ),
    };
    RgbImage::from_raw(width, height, rgb).context("the decoder left pixels out")
}

/// round(v / 257): 65535 = 257 * 255.
fn to_8_bits(sample: u16) -> u8 {
    ((u32::from(sample) + 128) / 257) as u8
}

/// round(c * a + 1 * (1 - a)) for samples that stand for 0..1.
fn over_white8(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn over_white16(colour: u16, alpha: u16) -> u8 {
    const TOP: u64 = 65535;
    let (colour, alpha) = (u64::from(colour), u64::from(alpha));
    let mixed = colour * alpha + TOP * (TOP - alpha);
    ((mixed + TOP * 257 / 2) / (TOP * 257)) as u8
}

fn turned(picture: RgbImage, orientation: Orientation) -> RgbImage {
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

/// The picture at `height` x `width`, bilinear with antialiasing: when it
/// shrinks, each new pixel is a triangle-weighted mean of all the old pixels
/// that it covers. At most 1/255 from Pillow's `Image.BILINEAR`.
///
/// # Errors
/// A side of 0 on either picture.
pub fn resize(image: &RgbImage, height: u32, width: u32) -> Result<RgbImage> {
    let (from_width, from_height) = image.dimensions();
    ensure!(
        from_width > 0 && from_height > 0 && height > 0 && width > 0,
        "cannot resize {from_width}x{from_height} pixels to {width}x{height}"
    );
    let source = fir::images::ImageRef::new(
        from_width,
        from_height,
        image.as_raw(),
        fir::PixelType::U8x3,
    )?;
    let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
    let bilinear = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    fir::Resizer::new().resize(&source, &mut target, &bilinear)?;
    RgbImage::from_raw(width, height, target.into_vec()).context("the resized picture has holes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn no_length_in_a_webp_file_is_beyond_its_end() {
        let check = |riff: u32, exif: u32| {
            let mut bytes = b"RIFF????WEBPVP8X\x01\0\0\0..EXIF????1234".to_vec();
            bytes[4..8].copy_from_slice(&riff.to_le_bytes());
            bytes[26..30].copy_from_slice(&exif.to_le_bytes());
            let length = bytes.len() as u64;
            check_webp(&mut BufReader::new(Cursor::new(bytes)), length)
        };
        assert!(check(26, 4).is_ok());
        assert!(check(27, 4).is_err());
        assert!(check(26, 5).is_err());
        assert!(check(26, u32::MAX).is_err());
    }
}
