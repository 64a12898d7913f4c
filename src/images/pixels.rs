//! Samples of any kind to 8-bit RGB over white.

use super::reduce::{Source, by_means, size_of};
use crate::size::Size;
use anyhow::{Context, Result, bail};
use image::{ColorType, DynamicImage, ImageBuffer, Primitive, RgbImage, Rgba};

/// A 16-bit image whose samples span less than this part of the range was hardly meant to
/// be read as 16 bits.
const LEAST_PART: u16 = 8;

/// One sample of so many may lie outside of the range: a hot pixel says nothing of the picture.
const STRAY_PART: u64 = 1000;

/// How a file stores its samples.
#[derive(Debug, Clone, Copy)]
pub struct Storage {
    /// Whether the colours have been multiplied by alpha.
    pub premultiplied: bool,
    /// Whether 0 was white; the decoder has inverted the samples.
    pub inverted: bool,
    /// The sample that the decoder has scaled to the full range, 65535 if it has not.
    pub full: u16,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            premultiplied: false,
            inverted: false,
            full: u16::MAX,
        }
    }
}

/// What suggests that an image means something else than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// Of 1000 16-bit samples 999 lie far below white, up to this value as it is stored.
    LowSamples(u16),
    /// Of 1000 16-bit samples 998 lie close together, between these values.
    NarrowSamples(u16, u16),
    /// Every pixel is transparent. The colours are taken as if none were.
    EmptyAlpha,
}

/// An image in 8-bit RGB.
#[derive(Debug)]
pub struct Pixels {
    /// The colours over white.
    pub rgb: RgbImage,
    /// Height and width before the picture was reduced.
    pub full: Size,
    /// The factor by which it was reduced, or 1.
    pub factor: u32,
    /// What is odd about the image.
    pub oddities: Vec<Oddity>,
    /// Whether it has 16 bits per sample.
    pub is_16_bit: bool,
}

impl Pixels {
    /// An image that was 8-bit RGB before.
    pub fn plain(rgb: RgbImage) -> Pixels {
        Pixels {
            full: size_of(&rgb),
            factor: 1,
            rgb,
            oddities: Vec::new(),
            is_16_bit: false,
        }
    }

    /// The picture, for resizing.
    pub fn source(&self) -> Source<'_> {
        Source {
            pixels: &self.rgb,
            full: self.full,
            factor: self.factor,
        }
    }

    /// Reduced by the factor that `factor` gives for its size, unless it is reduced already.
    pub(super) fn reduced(self, factor: impl Fn(Size) -> u32) -> Pixels {
        match factor(self.full) {
            _ if self.factor > 1 => self,
            1 => self,
            factor => Pixels {
                rgb: by_means(&self.rgb, factor),
                factor,
                ..self
            },
        }
    }
}

/// Any picture as 8-bit RGB over white. `white` is the 16-bit sample, as stored, that becomes
/// white; samples above it are white as well.
///
/// # Errors
/// Returns an error if the samples are no whole numbers of 8 or 16 bits.
pub fn to_rgb(picture: DynamicImage, storage: Storage, white: Option<u16>) -> Result<Pixels> {
    use ColorType as C;
    match picture.color() {
        C::L8 | C::Rgb8 => Ok(Pixels::plain(picture.into_rgb8())),
        C::La8 | C::Rgba8 => over_white(&picture.into_rgba8(), storage, u8::MAX.into()),
        C::L16 | C::La16 | C::Rgb16 | C::Rgba16 => {
            let picture = picture.into_rgba16();
            let full = u64::from(storage.full);
            let scaled = |level: u16| (u64::from(level) * 65535 + full / 2) / full;
            let white = white.map_or(u16::MAX.into(), scaled);
            let found = odd_samples(&picture, storage, white);
            let mut pixels = over_white(&picture, storage, white)?;
            pixels.oddities.extend(found);
            pixels.is_16_bit = true;
            Ok(pixels)
        }
        other => bail!("its samples are of type {other:?}; convert it to 8 or 16 bits"),
    }
}

/// What is odd about the colours.
fn odd_samples(
    picture: &ImageBuffer<Rgba<u16>, Vec<u16>>,
    storage: Storage,
    white: u64,
) -> Option<Oddity> {
    let mut counts = vec![0u64; 1 << 16];
    let colours = picture.pixels().flat_map(|pixel| &pixel.0[..3]);
    colours.for_each(|&sample| counts[usize::from(sample)] += 1);
    let stray = counts.iter().sum::<u64>() / STRAY_PART;
    let mut left = [stray; 2];
    let passes = |left: &mut u64, level: u16| {
        let next = left.checked_sub(counts[usize::from(level)]);
        *left = next.unwrap_or(0);
        next.is_none()
    };
    let range = (
        (0..=u16::MAX).find(|&level| passes(&mut left[0], level))?,
        (0..=u16::MAX)
            .rev()
            .find(|&level| passes(&mut left[1], level))?,
    );
    let (low, high) = match storage.inverted {
        true => (u16::MAX - range.1, u16::MAX - range.0),
        false => range,
    };
    let full = u64::from(storage.full);
    let stored = |sample: u16| ((u64::from(sample) * full + 32767) / 65535) as u16;
    let least = white / u64::from(LEAST_PART);
    if high > 0 && u64::from(high) < least {
        Some(Oddity::LowSamples(stored(high)))
    } else if high > low && u64::from(high - low) < least {
        Some(Oddity::NarrowSamples(stored(low), stored(high)))
    } else {
        None
    }
}

/// round(255 * (c * a + 1 * (1 - a))) with c = colour / white, at most 1, and a = alpha / top;
/// premultiplied colours are c * a already.
fn over_white<S>(
    picture: &ImageBuffer<Rgba<S>, Vec<S>>,
    storage: Storage,
    white: u64,
) -> Result<Pixels>
where
    S: Primitive + Into<u64>,
    Rgba<S>: image::Pixel<Subpixel = S>,
{
    let top: u64 = S::DEFAULT_MAX_VALUE.into();
    let is_empty = picture.pixels().all(|pixel| pixel.0[3].into() == 0);
    // Most images have this level; a division by a constant is faster.
    let is_plain = white == top && !storage.inverted;
    let (step, unit) = (top * top / 255, white * top);
    let level = |colour: u64| match storage.inverted {
        true => white - (top - colour).min(white),
        false => colour.min(white),
    };
    let over = |colour: S, alpha: u64| {
        let share = if storage.premultiplied { top } else { alpha };
        let mixed = |colour: u64| colour * share + white * (top - alpha);
        let rounded = match is_plain {
            true => (mixed(colour.into()) + step / 2) / step,
            false => (255 * mixed(level(colour.into())) + unit / 2) / unit,
        };
        rounded.min(255) as u8
    };
    let (width, height) = picture.dimensions();
    let rgb = picture
        .pixels()
        .flat_map(|&Rgba([r, g, b, a])| {
            let alpha = if is_empty { top } else { a.into() };
            [r, g, b].map(|colour| over(colour, alpha))
        })
        .collect();
    let rgb = RgbImage::from_raw(width, height, rgb).context("the decoder left pixels out")?;
    Ok(Pixels {
        oddities: is_empty.then_some(Oddity::EmptyAlpha).into_iter().collect(),
        ..Pixels::plain(rgb)
    })
}
