//! Pictures to batches, and tensors to pictures.

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::figure::Palette;

/// Preprocessing: each channel is scaled to [0, 1], then `(x - mean) / std`.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    /// Mean of each channel, in the network's order.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, in the network's order.
    pub std: Vec<f64>,
    /// Whether three channels are blue, green and red, in this order.
    pub bgr: bool,
}

impl Default for Normalisation {
    /// ImageNet's, with which the networks of the zoo were trained.
    fn default() -> Self {
        Normalisation {
            mean: IMAGENET_MEAN.into(),
            std: IMAGENET_STD.into(),
            bgr: false,
        }
    }
}

/// Mean of red, green and blue in ImageNet.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of red, green and blue in ImageNet.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// The weights of red, green and blue in a grey value (ITU-R BT.601), of 65536, as in Pillow's
/// mode L.
const GREY: [u32; 3] = [19595, 38470, 7471];

impl Normalisation {
    /// As the default, for a network that takes the channels in this order.
    pub fn imagenet(bgr: bool) -> Normalisation {
        let mut imagenet = Normalisation::default();
        if bgr {
            imagenet.mean.reverse();
            imagenet.std.reverse();
        }
        Normalisation { bgr, ..imagenet }
    }

    /// For a network of this number of channels: one value counts for all channels, and a network
    /// of one channel takes the mean of ImageNet's values. None if another number is given.
    pub fn for_channels(&self, channels: usize) -> Option<Normalisation> {
        let imagenet = Normalisation::imagenet(self.bgr);
        let fitted = |values: &[f64], of_imagenet: &[f64]| match values {
            &[value] => Some(vec![value; channels]),
            _ if values.len() == channels => Some(values.to_vec()),
            _ if channels == 1 && values == of_imagenet => {
                Some(vec![values.iter().sum::<f64>() / values.len() as f64])
            }
            _ => None,
        };
        Some(Normalisation {
            mean: fitted(&self.mean, &imagenet.mean)?,
            std: fitted(&self.std, &imagenet.std)?,
            bgr: self.bgr,
        })
    }
}

/// What to give instead if a mean or standard deviation is of pixels from 0 to 255: those
/// from 0 to 1 have none above 1. `sign` precedes the names. ImageNet's means from blue to red,
/// as Caffe's networks have them, are named as such.
pub fn rescaled(mean: Option<&[f64]>, std: Option<&[f64]>, sign: &str) -> Option<String> {
    let reaches = |values: Option<&[f64]>, least: fn(f64) -> bool| {
        values.is_some_and(|values| values.iter().any(|value| least(value.abs())))
    };
    let (of_mean, of_std) = (reaches(mean, |v| v > 1.0), reaches(std, |v| v > 1.0));
    if !of_mean && !of_std {
        return None;
    }
    // Beside a mean of bytes, a deviation of 1 leaves bytes as they are.
    let of_std = of_std || of_mean && reaches(std, |v| v >= 1.0);
    let given = [("mean", mean, of_mean), ("std", std, of_std)];
    let listed = |divided: bool| {
        let each = given.iter().filter_map(|&(name, values, is_of_bytes)| {
            let divisor = if divided && is_of_bytes { 255.0 } else { 1.0 };
            let values = values.filter(|_| divided || is_of_bytes)?.iter();
            let values: Vec<String> = values.map(|value| short(value / divisor)).collect();
            Some(format!("{sign}{name} {}", values.join(",")))
        });
        each.collect::<Vec<_>>().join(" ")
    };
    let is_bgr = mean.is_some_and(|mean| {
        let blue_first = Normalisation::imagenet(true).mean;
        let near = |(value, known): (&f64, f64)| (value / 255.0 - known).abs() < 0.01;
        mean.len() == blue_first.len() && mean.iter().zip(blue_first).all(near)
    });
    let order = match is_bgr {
        true => format!(" {sign}bgr, since these are blue, green and red"),
        false => String::new(),
    };
    Some(format!(
        "{}: this is for pixels from 0 to 255, but they are scaled to 0..1 before; use {}{order}",
        listed(false),
        listed(true)
    ))
}

/// A number with six digits, without zeros at its end.
fn short(value: f64) -> String {
    let magnitude = if value == 0.0 {
        0
    } else {
        value.abs().log10().floor() as i32
    };
    let digits = format!("{value:.*}", (5 - magnitude).clamp(0, 12) as usize);
    match digits.contains('.') {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string(),
        false => digits,
    }
}

/// The picture in grey, round(0.299 R + 0.587 G + 0.114 B), as Pillow's mode L; grey pictures
/// stay as they are.
pub fn grey(mut picture: RgbImage) -> RgbImage {
    for pixel in picture.pixels_mut() {
        let weighted = pixel
            .0
            .iter()
            .zip(GREY)
            .map(|(&v, weight)| u32::from(v) * weight);
        let grey = (weighted.sum::<u32>() + (1 << 15)) >> 16;
        pixel.0 = [grey as u8; 3];
    }
    picture
}

/// A batch `[N,C,H,W]` float32 of pictures of one size: channels scaled to [0, 1], then
/// `(x - mean) / std`. C is the number of means: 3, or 1 for grey.
///
/// # Errors
/// Returns an error if there is no picture, if the pictures differ in size, or if C is neither.
pub fn to_batch(pictures: &[RgbImage], normalisation: &Normalisation) -> Result<Tensor> {
    let Some(first) = pictures.first() else {
        bail!("a batch needs at least one picture");
    };
    ensure!(
        pictures
            .iter()
            .all(|picture| picture.dimensions() == first.dimensions()),
        "the pictures of one batch must have one size"
    );
    let channels = normalisation.mean.len();
    ensure!(
        matches!(channels, 1 | 3) && normalisation.std.len() == channels,
        "pictures have 1 or 3 channels, not {channels} means and {} deviations",
        normalisation.std.len()
    );
    let (width, height) = first.dimensions();
    let pixels: Vec<Tensor> = pictures
        .iter()
        .map(|picture| match channels {
            1 => Tensor::from_slice(grey(picture.clone()).as_raw()),
            _ => Tensor::from_slice(picture.as_raw()),
        })
        .collect();
    let colours = Tensor::stack(&pixels, 0)
        .reshape([
            pictures.len() as i64,
            i64::from(height),
            i64::from(width),
            3,
        ])
        .permute([0, 3, 1, 2]);
    let ordered = match channels {
        1 => colours.narrow(1, 0, 1),
        _ if normalisation.bgr => colours.flip([1]),
        _ => colours,
    };
    let scaled = ordered.to_kind(Kind::Float) / 255.0;
    let per_channel = |values: &[f64]| {
        Tensor::from_slice(values)
            .to_kind(Kind::Float)
            .reshape([1, -1, 1, 1])
    };
    Ok(
        ((scaled - per_channel(&normalisation.mean)) / per_channel(&normalisation.std))
            .contiguous(),
    )
}

/// The picture of an image `[3,H,W]` float32 in [0, 1]; an image `[4,H,W]`, whose last
/// channel is alpha, is blended over white.
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn to_picture(image: &Tensor) -> Result<RgbImage> {
    let size = image.size();
    let &[3 | 4, height, width] = size.as_slice() else {
        bail!("a picture is made of [3,H,W] or [4,H,W], not {size:?}");
    };
    let colours = image.narrow(0, 0, 3);
    let image = match size[0] {
        4 => (colours - 1.0) * image.narrow(0, 3, 1) + 1.0,
        _ => colours,
    };
    let bytes = (image * 255.0)
        .round()
        .clamp(0.0, 255.0)
        .permute([1, 2, 0])
        .to_kind(Kind::Uint8)
        .contiguous()
        .view([-1]);
    picture_of(width, height, Vec::try_from(bytes)?)
}

/// A map `[3,H,W]` or `[4,H,W]` of components in [0, 1] as colours `[3,H,W]`; NaN stays NaN.
///
/// # Errors
/// Returns an error if the tensor has fewer channels.
pub fn painted(map: &Tensor, palette: Palette) -> Result<Tensor> {
    let components = map.f_narrow(0, 0, 3)?;
    if palette == Palette::Rgb {
        return Ok(components);
    }
    let values = Vec::<f32>::try_from(components.contiguous().view([-1]))?;
    let plane = values.len() / 3;
    let mut colours = vec![0.0; values.len()];
    for place in 0..plane {
        let channels = [place, place + plane, place + 2 * plane];
        let colour = palette.colour(channels.map(|channel| values[channel]));
        for (channel, value) in channels.into_iter().zip(colour) {
            colours[channel] = value;
        }
    }
    Ok(Tensor::from_slice(&colours).reshape(components.size()))
}

/// The picture of a preprocessed image `[C,H,W]` of unknown mean and standard deviation: its
/// own range is stretched to [0, 1]. Unless C is 3, it shows the first channel in grey.
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn stretched_picture(image: &Tensor) -> Result<RgbImage> {
    let image = match image.size()[..] {
        [3, ..] => image.shallow_clone(),
        [_, height, width] => image.narrow(0, 0, 1).expand([3, height, width], false),
        _ => bail!("an image is [C,H,W], not {:?}", image.size()),
    };
    let (low, high) = (image.min().double_value(&[]), image.max().double_value(&[]));
    let range = if high > low { high - low } else { 1.0 };
    to_picture(&((image - low) / range))
}

/// The picture of a channel `[H,W]`: a range of values, or its own, is mapped to a colour map; a
/// constant channel gets the colour of 0.
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn ramp_picture(
    channel: &Tensor,
    range: Option<[f32; 2]>,
    ramp: impl Fn(f32) -> [u8; 3],
) -> Result<RgbImage> {
    let size = channel.size();
    let &[height, width] = size.as_slice() else {
        bail!("a channel is [H,W], not {size:?}");
    };
    let values = Vec::<f32>::try_from(channel.to_kind(Kind::Float).contiguous().view([-1]))?;
    let [low, high] = range.unwrap_or_else(|| {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        [
            low,
            values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        ]
    });
    let range = if high > low { high - low } else { 1.0 };
    let bytes = values
        .iter()
        .flat_map(|value| ramp((value - low) / range))
        .collect();
    picture_of(width, height, bytes)
}

fn picture_of(width: i64, height: i64, bytes: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .with_context(|| format!("a picture of {width}x{height} pixels is incomplete"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_batch_is_scaled_and_normalised_by_channel() {
        let picture = RgbImage::from_fn(2, 1, |x, _| {
            Rgb(if x == 0 { [255, 0, 51] } else { [0, 255, 102] })
        });
        let normalisation = Normalisation {
            mean: vec![0.5, 0.25, 0.2],
            std: vec![0.5, 0.25, 0.1],
            bgr: false,
        };
        let batch = to_batch(&[picture.clone(), picture], &normalisation).unwrap();
        assert_eq!(batch.size(), [2, 3, 1, 2]);
        let values = Vec::<f32>::try_from(batch.get(1).reshape([-1])).unwrap();
        // red (255, 0), green (0, 255), blue (51, 102) over 255, by hand
        let expected = [1.0, -1.0, -1.0, 3.0, 0.0, 2.0];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{values:?}");
        }
    }

    #[test]
    fn blue_comes_first_if_the_network_says_so() {
        let picture = RgbImage::from_pixel(1, 1, Rgb([255, 51, 0]));
        let normalisation = Normalisation {
            mean: vec![0.5, 0.2, 0.0],
            std: vec![0.5, 1.0, 0.25],
            bgr: true,
        };
        let batch = to_batch(&[picture], &normalisation).unwrap();
        let values = Vec::<f32>::try_from(batch.reshape([-1])).unwrap();
        // (0 - 0.5) / 0.5, (51 / 255 - 0.2) / 1, (1 - 0) / 0.25
        for (value, expected) in values.iter().zip([-1.0, 0.0, 4.0]) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
        let imagenet = Normalisation::imagenet(true);
        assert_eq!(imagenet.mean, [0.406, 0.456, 0.485]);
        assert_eq!(imagenet.std, [0.225, 0.224, 0.229]);
    }

    #[test]
    fn a_network_of_one_channel_takes_grey() {
        let picture = RgbImage::from_fn(4, 1, |x, _| {
            Rgb([[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]][x as usize])
        });
        let normalisation = Normalisation::default().for_channels(1).unwrap();
        let batch = to_batch(&[picture], &normalisation).unwrap();
        assert_eq!(batch.size(), [1, 1, 1, 4]);
        let values = Vec::<f32>::try_from(batch.reshape([-1])).unwrap();
        // round(0.299 * 255), round(0.587 * 255), round(0.114 * 255); the means of ImageNet's three
        for (value, grey) in values.iter().zip([76.0, 150.0, 29.0, 77.0]) {
            let expected = (grey / 255.0 - 0.449) / 0.226;
            assert!((value - expected).abs() < 1e-5, "{values:?}");
        }
    }

    #[test]
    fn a_mean_of_bytes_is_divided() {
        let torchvision = (&[123.675, 116.28, 103.53][..], &[58.395, 57.12, 57.375][..]);
        let line = rescaled(Some(torchvision.0), Some(torchvision.1), "").unwrap();
        assert!(
            line.ends_with("mean 0.485,0.456,0.406 std 0.229,0.224,0.225"),
            "{line}"
        );
        let line = rescaled(Some(torchvision.0), None, "--").unwrap();
        assert!(line.starts_with("--mean 123.675,116.28,103.53: "), "{line}");
        assert!(line.ends_with("use --mean 0.485,0.456,0.406"), "{line}");
        let line = rescaled(None, Some(&[127.5]), "").unwrap();
        assert!(line.ends_with("use std 0.5"), "{line}");
        // Caffe's: the pixels are not divided at all.
        let caffe = [103.939, 116.779, 123.68];
        let line = rescaled(Some(&caffe), Some(&[1.0; 3]), "").unwrap();
        let std = "std 0.00392157,0.00392157,0.00392157";
        assert!(
            line.ends_with(&format!(
                "mean 0.407604,0.457957,0.48502 {std} bgr, since these are blue, green and red"
            )),
            "{line}"
        );
        // Of the two, only the mean.
        let line = rescaled(Some(&caffe), Some(&[0.229]), "").unwrap();
        assert!(
            line.contains("mean 0.407604,0.457957,0.48502 std 0.229 bgr, "),
            "{line}"
        );
        assert_eq!(rescaled(Some(&[0.0, 1.0, -1.0]), Some(&[1.0]), ""), None);
        assert_eq!(rescaled(None, None, ""), None);
    }

    #[test]
    fn one_value_counts_for_all_channels_and_others_must_fit() {
        let of = |mean: &[f64]| Normalisation {
            mean: mean.to_vec(),
            std: vec![1.0],
            bgr: false,
        };
        let four = of(&[0.5]).for_channels(4).unwrap();
        assert_eq!((four.mean, four.std), (vec![0.5; 4], vec![1.0; 4]));
        assert!(of(&[0.1, 0.2, 0.3]).for_channels(1).is_none());
        assert!(of(&[0.1, 0.2]).for_channels(3).is_none());
        assert!(Normalisation::default().for_channels(4).is_none());
    }

    #[test]
    fn a_picture_is_rounded_not_cut() {
        let image = Tensor::from_slice(&[0.0f32, 0.5, 1.0, 0.002, 1.5, -1.0]).reshape([3, 1, 2]);
        let picture = to_picture(&image).unwrap();
        assert_eq!(picture.get_pixel(0, 0).0, [0, 255, 255]);
        assert_eq!(picture.get_pixel(1, 0).0, [128, 1, 0]);
        assert!(to_picture(&Tensor::zeros([2, 2], tch::kind::FLOAT_CPU)).is_err());
    }

    #[test]
    fn alpha_shows_white_through() {
        let image =
            Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.2]).reshape([4, 1, 2]);
        let picture = to_picture(&image).unwrap();
        // 255 (1 - a (1 - c)) by hand
        assert_eq!(picture.get_pixel(0, 0).0, [255, 0, 128]);
        assert_eq!(picture.get_pixel(1, 0).0, [255, 204, 230]);
    }

    #[test]
    fn a_channel_is_spread_over_its_own_range() {
        let channel = Tensor::from_slice(&[2.0f32, 4.0, 3.0, 2.0]).reshape([2, 2]);
        let picture = ramp_picture(&channel, None, |v| [(v * 200.0) as u8, 0, 7]).unwrap();
        let red = |x, y| picture.get_pixel(x, y).0;
        assert_eq!((red(0, 0), red(1, 0)), ([0, 0, 7], [200, 0, 7]));
        assert_eq!((red(0, 1), red(1, 1)), ([100, 0, 7], [0, 0, 7]));
        let ramp = |v: f32| [(v * 200.0) as u8, 0, 7];
        let picture = ramp_picture(&channel, Some([0.0, 8.0]), ramp).unwrap();
        assert_eq!(picture.get_pixel(1, 0).0, [100, 0, 7]);
    }

    #[test]
    fn a_constant_image_has_a_picture_too() {
        let picture =
            stretched_picture(&Tensor::full([3, 2, 2], 7.0, tch::kind::FLOAT_CPU)).unwrap();
        assert_eq!(picture.get_pixel(0, 0).0, [0, 0, 0]);
    }
}
