//! JPEG, decoded by `zune-jpeg` directly: the `image` crate fills missing parts of a damaged file
//! with grey and reports no error.

use std::io::{BufRead, Read, Seek};

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::RgbImage;
use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::{ZByteReaderTrait, ZCursor};
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::pixels::Pixels;
use super::tags::Tags;
use super::{CUT_SHORT, scaled_jpeg};
use crate::size::Size;

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Width and height from the header; pixels are not read.
pub fn dimensions(file: impl BufRead + Seek) -> Result<(u32, u32)> {
    let (width, height) = header(file)?
        .dimensions()
        .context("the header has no size")?;
    Ok((u32::try_from(width)?, u32::try_from(height)?))
}

/// Decodes the picture as stored, in RGB, and its orientation. Four components are inverted
/// CMYK, as Adobe's programs write and Pillow reads them.
///
/// `factor` gives the factor by which the upright picture, of that size, may be reduced. The
/// pixels are reduced already if that was possible while they were decoded.
pub fn decode(mut file: impl Read, factor: &dyn Fn(Size) -> u32) -> Result<(Pixels, Orientation)> {
    let mut data = Vec::new();
    file.read_to_end(&mut data)?;
    // The decoder does not notice missing last rows.
    ensure!(
        is_complete(&data),
        "{CUT_SHORT} (no end-of-image marker follows the pixels)"
    );
    let mut decoder = header(ZCursor::new(data.as_slice()))?;
    let (width, height) = decoder.dimensions().context("the header has no size")?;
    let exif = decoder.exif().map_or(&[][..], Vec::as_slice);
    let orientation = Tags::of_exif(exif).orientation();
    let full = Size::new(height.try_into()?, width.try_into()?);
    let factor = factor(upright(full, orientation));
    // Whatever is odd about a file is left to the other decoder, which says what it is.
    if factor > 1
        && let Some(rgb) = scaled_jpeg::decode(&data, factor)
    {
        let reduced = Pixels {
            full,
            factor,
            ..Pixels::plain(rgb)
        };
        return Ok((reduced, orientation));
    }
    // Lenient up to here: stray bytes between the segments of the header are harmless. Missing
    // pixels are not.
    let strict = decoder
        .options()
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    decoder.set_options(strict);
    let rgb = decoder.decode().map_err(explained)?;
    let picture = RgbImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, rgb);
    let picture = picture.context("the decoder left pixels out")?;
    Ok((Pixels::plain(picture), orientation))
}

/// The size of a picture that is turned as its orientation says.
pub fn upright(stored: Size, orientation: Orientation) -> Size {
    use Orientation as O;
    match orientation {
        O::Rotate90 | O::Rotate270 | O::Rotate90FlipH | O::Rotate270FlipH => {
            Size::new(stored.width, stored.height)
        }
        O::NoTransforms | O::Rotate180 | O::FlipHorizontal | O::FlipVertical => stored,
    }
}

fn header<R: ZByteReaderTrait>(reader: R) -> Result<JpegDecoder<R>> {
    let any_size = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(reader, any_size);
    decoder.decode_headers().map_err(explained)?;
    match decoder.info().map(|info| info.components) {
        Some(1 | 3 | 4) => Ok(decoder),
        Some(count) => bail!("a JPEG with {count} colour components is not supported"),
        None => bail!("the header has no colour components"),
    }
}

fn explained(error: DecodeErrors) -> anyhow::Error {
    match error {
        DecodeErrors::IoErrors(_) | DecodeErrors::ExhaustedData => anyhow!(CUT_SHORT),
        // Some messages of the decoder are quoted.
        error => anyhow!("damaged JPEG: {}", error.to_string().replace('"', "")),
    }
}

/// Whether an end-of-image marker follows the start of the pixels; a marker in a segment of the
/// header belongs to a thumbnail. Segments consist of marker, length and content (ITU-T T.81,
/// annex B).
fn is_complete(data: &[u8]) -> bool {
    let mut rest = data.get(2..).unwrap_or_default();
    loop {
        let marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF);
        let Some(start) = rest.windows(2).position(marker) else {
            return false;
        };
        let &[_, kind, high, low, ..] = &rest[start..] else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(start + 2 + length..).unwrap_or_default();
        if kind == START_OF_SCAN {
            // 0xFF bytes are escaped in pixel data, so this pair is the marker.
            return rest.windows(2).any(|pair| pair == [0xFF, END_OF_IMAGE]);
        }
    }
}
