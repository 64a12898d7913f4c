//! Contour lines: where a quantity reaches a level, drawn over a picture of any colours.

use image::RgbImage;

use super::colormap::{Rgb, mixed};

/// Widths of the dark line and of the light one beneath it, pixels. Together they are seen
/// on every colour.
const DARK: f32 = 2.5;
const LIGHT: f32 = 6.5;

const INK: Rgb = [0; 3];
const PAPER: Rgb = [255; 3];

/// Draws the line along which `values`, one for each pixel, are equal to `level`.
///
/// # Panics
/// If there are fewer values than pixels.
pub fn draw_contour(picture: &mut RgbImage, values: &[f32], level: f32) {
    let (width, height) = picture.dimensions();
    let at = |x: u32, y: u32| values[(y * width + x) as usize];
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let value = at(x, y);
        let slope = |after: f32, before: f32, apart: u32| (after - before) / apart.max(1) as f32;
        let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let (above, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
        let across = slope(at(right, y), at(left, y), right - left);
        let down = slope(at(x, below), at(x, above), below - above);
        let steepness = across.hypot(down);
        // The distance to the line, to first order. A plateau has none.
        let distance = (value - level).abs() / steepness;
        if !distance.is_finite() {
            continue;
        }
        for (line, ink) in [(LIGHT, PAPER), (DARK, INK)] {
            let cover = (0.5 + line / 2.0 - distance).clamp(0.0, 1.0);
            pixel.0 = mixed(pixel.0, ink, cover);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUND: [u8; 3] = [40, 160, 90];

    fn drawn(value: impl Fn(f32, f32) -> f32, level: f32) -> RgbImage {
        let mut picture = RgbImage::from_pixel(101, 81, image::Rgb(GROUND));
        let places = (0..81).flat_map(|y| (0..101).map(move |x| (x as f32, y as f32)));
        let values: Vec<f32> = places.map(|(x, y)| value(x, y)).collect();
        draw_contour(&mut picture, &values, level);
        picture
    }

    /// The level set of a cone is a circle: black on it, white beside it, nothing further off.
    #[test]
    fn a_circle_is_drawn_where_the_level_is_reached() {
        let radius = |x: f32, y: f32| (x - 50.0).hypot(y - 40.0);
        let picture = drawn(|x, y| 7.0 - 0.1 * radius(x, y), 4.0);
        for (x, y, pixel) in picture.enumerate_pixels() {
            match (radius(x as f32, y as f32) - 30.0).abs() {
                off if off < 0.6 => assert_eq!(pixel.0, [0; 3], "{x} {y}"),
                off if (1.9..2.6).contains(&off) => assert_eq!(pixel.0, [255; 3], "{x} {y}"),
                off if off > 4.0 => assert_eq!(pixel.0, GROUND, "{x} {y}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_plateau_or_a_level_that_is_not_reached_leaves_the_picture() {
        let plain = RgbImage::from_pixel(101, 81, image::Rgb(GROUND));
        assert_eq!(drawn(|_, _| 0.5, 0.5), plain);
        assert_eq!(drawn(|_, _| f32::NAN, 0.5), plain);
        assert_eq!(drawn(|x, _| x / 1000.0, 0.5), plain);
    }
}
