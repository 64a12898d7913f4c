//! Pictures that are reduced by a whole factor before they are resized: the pixels of a large
//! photograph are then read once, not for each size that is made of it.

use image::RgbImage;

use crate::size::Size;

/// The factors by which libjpeg's scaled inverse cosine transform reduces.
const FACTORS: [u32; 3] = [8, 4, 2];

/// A picture, or a reduced one with the size that it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The pixels.
    pub pixels: &'a RgbImage,
    /// The size before it was reduced.
    pub full: Size,
    /// Pixels of the full picture, along a side, for each pixel.
    pub factor: u32,
}

impl<'a> From<&'a RgbImage> for Source<'a> {
    fn from(pixels: &'a RgbImage) -> Self {
        Source {
            pixels,
            full: size_of(pixels),
            factor: 1,
        }
    }
}

/// Height and width of a picture.
pub fn size_of(picture: &RgbImage) -> Size {
    Size::new(picture.height().into(), picture.width().into())
}

/// The largest factor up to `most` that divides both sides, or 1. Pixels at an edge that stand
/// for fewer than the others would be resized as if they did not: the edge would be up to 7 of 255
/// off.
pub fn factor_within(most: f64, full: Size) -> u32 {
    let fits = |factor: &u32| {
        let divides = |side: i64| side % i64::from(*factor) == 0;
        f64::from(*factor) <= most && divides(full.height) && divides(full.width)
    };
    FACTORS.into_iter().find(fits).unwrap_or(1)
}

/// Each pixel is the mean of `factor` x `factor` pixels, which divides both sides.
pub fn by_means(picture: &RgbImage, factor: u32) -> RgbImage {
    let (columns, rows) = (picture.width() / factor, picture.height() / factor);
    let step = factor as usize;
    let row_bytes = 3 * picture.width() as usize;
    let count = factor * factor;
    let mut reduced = Vec::with_capacity(3 * columns as usize * rows as usize);
    let mut sums = vec![[0u32; 3]; columns as usize];
    for rows in picture.as_raw().chunks_exact(row_bytes * step) {
        sums.fill([0; 3]);
        for row in rows.chunks_exact(row_bytes) {
            for (sum, pixels) in sums.iter_mut().zip(row.chunks_exact(3 * step)) {
                for pixel in pixels.chunks_exact(3) {
                    (0..3).for_each(|channel| sum[channel] += u32::from(pixel[channel]));
                }
            }
        }
        let means = sums
            .iter()
            .flatten()
            .map(|sum| ((sum + count / 2) / count) as u8);
        reduced.extend(means);
    }
    RgbImage::from_raw(columns, rows, reduced).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn means_are_those_of_blocks() {
        let picture = RgbImage::from_fn(6, 4, |x, y| Rgb([(10 * y + x) as u8, 255, 7]));
        let reduced = by_means(&picture, 2);
        assert_eq!(reduced.dimensions(), (3, 2));
        // 0, 1, 10, 11 and so on; halves are rounded up.
        let red: Vec<u8> = reduced.pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(red, [6, 8, 10, 26, 28, 30]);
        assert!(reduced.pixels().all(|pixel| pixel.0[1..] == [255, 7]));
    }

    #[test]
    fn factors_are_those_of_the_transform_that_divide_the_sides() {
        let camera = Size::new(3024, 4032);
        let factors = [0.1, 1.9, 2.0, 3.9, 4.0, 7.99, 8.0, 1e9];
        let factors = factors.map(|most| factor_within(most, camera));
        assert_eq!(factors, [1, 1, 2, 2, 4, 4, 8, 8]);
        let of_sides = |height, width| factor_within(8.0, Size::new(height, width));
        assert_eq!(
            [of_sides(12, 8), of_sides(6, 16), of_sides(7, 8)],
            [4, 2, 1]
        );
    }
}
