//! Pictures to batches, and tensors to pictures.

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use tch::{Kind, Tensor};

/// Preprocessing: each channel is scaled to [0, 1], then `(x - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Mean of red, green and blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f64; 3],
}

impl Default for Normalisation {
    /// ImageNet's, with which the networks of the zoo were trained.
    fn default() -> Self {
        Normalisation {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

/// A batch `[N,3,H,W]` float32 of pictures of one size: channels scaled to
/// [0, 1], then `(x - mean) / std`.
///
/// # Errors
/// Returns an error if there is no picture, or if the pictures differ in size.
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
    let (width, height) = first.dimensions();
    let pixels: Vec<Tensor> = pictures
        .iter()
        .map(|picture| Tensor::from_slice(picture.as_raw()))
        .collect();
    let scaled = Tensor::stack(&pixels, 0)
        .reshape([
            pictures.len() as i64,
            i64::from(height),
            i64::from(width),
            3,
        ])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        / 255.0;
    let per_channel = |values: [f64; 3]| {
        Tensor::from_slice(&values)
            .to_kind(Kind::Float)
            .reshape([1, 3, 1, 1])
    };
    Ok(((scaled - per_channel(normalisation.mean)) / per_channel(normalisation.std)).contiguous())
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

/// The picture of a preprocessed image `[3,H,W]` of unknown mean and standard deviation: its
/// own range is stretched to [0, 1].
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn stretched_picture(image: &Tensor) -> Result<RgbImage> {
    let (low, high) = (image.min().double_value(&[]), image.max().double_value(&[]));
    let range = if high > low { high - low } else { 1.0 };
    to_picture(&((image - low) / range))
}

/// The picture of a channel `[H,W]`: its own range is mapped to a colour map; a constant
/// channel gets the colour of 0.
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn ramp_picture(channel: &Tensor, ramp: impl Fn(f32) -> [u8; 3]) -> Result<RgbImage> {
    let size = channel.size();
    let &[height, width] = size.as_slice() else {
        bail!("a channel is [H,W], not {size:?}");
    };
    let values = Vec::<f32>::try_from(channel.to_kind(Kind::Float).contiguous().view([-1]))?;
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
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
            mean: [0.5, 0.25, 0.2],
            std: [0.5, 0.25, 0.1],
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
        let picture = ramp_picture(&channel, |v| [(v * 200.0) as u8, 0, 7]).unwrap();
        let red = |x, y| picture.get_pixel(x, y).0;
        assert_eq!((red(0, 0), red(1, 0)), ([0, 0, 7], [200, 0, 7]));
        assert_eq!((red(0, 1), red(1, 1)), ([100, 0, 7], [0, 0, 7]));
    }

    #[test]
    fn a_constant_image_has_a_picture_too() {
        let picture =
            stretched_picture(&Tensor::full([3, 2, 2], 7.0, tch::kind::FLOAT_CPU)).unwrap();
        assert_eq!(picture.get_pixel(0, 0).0, [0, 0, 0]);
    }
}
