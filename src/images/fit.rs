//! Bringing pictures to the input size of a network.

use std::fmt;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use fast_image_resize as fir;
use image::{Rgb, RgbImage, imageops};

use super::reduce::Source;
use crate::names::name_of;
use crate::size::Size;

/// How a picture is brought to the input size of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Resize {
    /// To the input size, whatever the aspect ratio
    #[default]
    Stretch,
    /// As torchvision's presets: the shorter side to 256/224 of the input size, then the
    /// centre
    Crop,
    /// The whole picture in its aspect ratio, centred, with grey bars beside it
    Pad,
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

/// The shorter side before the centre is cut out, and the side of the centre: torchvision's
/// presets for inputs of 224 pixels.
const CROPPED: (i64, i64) = (256, 224);

/// The colour of the bars, as of Ultralytics' letterbox; close to ImageNet's mean colour.
const BARS: Rgb<u8> = Rgb([114, 114, 114]);

/// A part of a picture: left, top, width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Resize {
    /// The picture as a network with inputs of `size` sees it.
    ///
    /// # Errors
    /// Returns an error if a side of either picture is 0.
    pub fn apply<'a>(self, image: impl Into<Source<'a>>, size: Size) -> Result<RgbImage> {
        self.enlarged(image, size, size)
    }

    /// How many pixels of a picture of the size `from` become one, across and down, if what a
    /// network with inputs of `size` sees of it is resized to `shown`: the smaller number.
    pub fn ratio(self, from: Size, size: Size, shown: Size) -> f64 {
        let ratio = |part: Part, shown: Size| {
            (part.width / shown.width as f64).min(part.height / shown.height as f64)
        };
        match self {
            Resize::Stretch => ratio(whole(from), shown),
            Resize::Crop => ratio(centre(from, size), shown),
            Resize::Pad => {
                let inner = within(from, size);
                let across = inner.width * shown.width as f64 / size.width as f64;
                (from.width as f64 / across).min(
                    from.height as f64 * size.height as f64 / (inner.height * shown.height as f64),
                )
            }
        }
    }

    /// A size of the shape in which nothing is distorted of what a network with inputs of `size`
    /// sees of a picture of the size `from`.
    pub fn undistorted(self, from: Size, size: Size) -> Size {
        match self {
            Resize::Stretch => from,
            Resize::Crop | Resize::Pad => size,
        }
    }

    /// What a network with inputs of `size` sees, at the resolution `shown`.
    ///
    /// # Errors
    /// Returns an error if a side of either picture is 0.
    pub fn enlarged<'a>(
        self,
        image: impl Into<Source<'a>>,
        size: Size,
        shown: Size,
    ) -> Result<RgbImage> {
        let image: Source<'_> = image.into();
        let from = image.full;
        ensure!(
            from.pixels() > 0 && size.pixels() > 0 && shown.pixels() > 0,
            "cannot resize {}x{} pixels to {}x{}",
            from.width,
            from.height,
            size.width,
            size.height
        );
        match self {
            Resize::Stretch => resized(image, whole(from), shown),
            Resize::Crop => resized(image, centre(from, size), shown),
            Resize::Pad => {
                let inner = within(from, size);
                let place = |start: f64, length: f64, shown: i64, size: i64| {
                    let scale = shown as f64 / size as f64;
                    let (start, end) =
                        ((start * scale).round(), ((start + length) * scale).round());
                    (start as i64, ((end - start) as i64).max(1))
                };
                let (left, width) = place(inner.left, inner.width, shown.width, size.width);
                let (top, height) = place(inner.top, inner.height, shown.height, size.height);
                let picture = resized(image, whole(from), Size::new(height, width))?;
                let (width, height) = (u32::try_from(shown.width)?, u32::try_from(shown.height)?);
                let mut padded = RgbImage::from_pixel(width, height, BARS);
                imageops::replace(&mut padded, &picture, left, top);
                Ok(padded)
            }
        }
    }
}

/// Resizes a picture, bilinearly with antialiasing: each pixel of a smaller picture is a
/// triangle-weighted mean of all pixels that it covers. Differs from Pillow's
/// `Image.BILINEAR` by at most 1/255.
///
/// # Errors
/// Returns an error if a side of either picture is 0.
pub fn resize<'a>(image: impl Into<Source<'a>>, size: Size) -> Result<RgbImage> {
    Resize::Stretch.apply(image, size)
}

fn whole(from: Size) -> Part {
    Part {
        left: 0.0,
        top: 0.0,
        width: from.width as f64,
        height: from.height as f64,
    }
}

/// The part of a picture that remains if it is scaled to cover 256/224 of `size` and the
/// centre is cut out, with the roundings of torchvision's `resize` and `center_crop`.
fn centre(from: Size, size: Size) -> Part {
    let (larger, smaller) = CROPPED;
    let covered = |side: i64| ((side * larger) as f64 / smaller as f64).round() as i64;
    let (height, width) = (covered(size.height), covered(size.width));
    let scaled = if from.width * height <= from.height * width {
        Size::new(width * from.height / from.width, width)
    } else {
        Size::new(height, height * from.width / from.height)
    };
    let offset = |scaled: i64, side: i64| ((scaled - side) as f64 / 2.0).round_ties_even();
    let across = from.width as f64 / scaled.width as f64;
    let down = from.height as f64 / scaled.height as f64;
    let (left, top) = (
        offset(scaled.width, size.width) * across,
        offset(scaled.height, size.height) * down,
    );
    // Never beyond the picture, by rounding.
    Part {
        left,
        top,
        width: (size.width as f64 * across).min(from.width as f64 - left),
        height: (size.height as f64 * down).min(from.height as f64 - top),
    }
}

/// The part of `size` that a whole picture fills in its aspect ratio.
fn within(from: Size, size: Size) -> Part {
    let scale = f64::min(
        size.height as f64 / from.height as f64,
        size.width as f64 / from.width as f64,
    );
    let side = |from: i64, most: i64| ((from as f64 * scale).round() as i64).clamp(1, most);
    let (height, width) = (side(from.height, size.height), side(from.width, size.width));
    Part {
        left: ((size.width - width) / 2) as f64,
        top: ((size.height - height) / 2) as f64,
        width: width as f64,
        height: height as f64,
    }
}

/// Resizes a part of a picture; the part is in pixels of the full picture.
fn resized(source: Source<'_>, part: Part, size: Size) -> Result<RgbImage> {
    let image = source.pixels;
    let reduced = |length: f64| length / f64::from(source.factor);
    let (width, height) = (u32::try_from(size.width)?, u32::try_from(size.height)?);
    let rgb = fir::PixelType::U8x3;
    let source = fir::images::ImageRef::new(image.width(), image.height(), image.as_raw(), rgb)?;
    let mut target = fir::images::Image::new(width, height, rgb);
    let bilinear = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
        .crop(
            reduced(part.left),
            reduced(part.top),
            reduced(part.width),
            reduced(part.height),
        );
    fir::Resizer::new().resize(&source, &mut target, &bilinear)?;
    RgbImage::from_raw(width, height, target.into_vec()).context("the resized picture has holes")
}
