//! Palettes: the three components of a map become a colour.

use std::fmt;

use clap::ValueEnum;
use image::RgbImage;

use crate::names::name_of;

/// Steps of a ramp.
const STEPS: u32 = 32;

/// How the three components of a map, each from 0 to 1, become a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Palette {
    /// As red, green and blue
    #[default]
    Rgb,
    /// As lightness, blue to yellow, and green to red, in even steps that people with
    /// colour blindness see, too
    Oklab,
}

impl fmt::Display for Palette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

impl Palette {
    /// What the ends of each component look like, from 0 to 1.
    pub fn ends(self) -> [[&'static str; 2]; 3] {
        match self {
            Palette::Rgb => [
                ["little red", "much red"],
                ["little green", "much green"],
                ["little blue", "much blue"],
            ],
            Palette::Oklab => [["dark", "light"], ["blue", "yellow"], ["green", "red"]],
        }
    }

    /// The colours of a component from 1 on top to 0 below, with the others in the middle.
    pub fn ramp(self, component: usize) -> RgbImage {
        RgbImage::from_fn(1, STEPS + 1, |_, row| {
            let mut components = [0.5; 3];
            components[component] = 1.0 - row as f32 / STEPS as f32;
            image::Rgb(self.painted(components))
        })
    }

    /// The colour of three components as bytes.
    pub fn painted(self, components: [f32; 3]) -> [u8; 3] {
        let colour = self.colour(components);
        colour.map(|share| (255.0 * share).round() as u8)
    }

    /// The colour of three components, as sRGB from 0 to 1. NaN gives NaN.
    pub fn colour(self, components: [f32; 3]) -> [f32; 3] {
        match self {
            Palette::Rgb => components,
            Palette::Oklab => srgb(oklab(components)),
        }
    }
}

/// Lightness, green to red, and blue to yellow (OKLab) of three components.
///
/// The third component also makes the colour lighter, because red and green look alike with
/// the commonest colour blindness. Towards dark and light, sRGB has less room for hues. The
/// constants were chosen by simulation (docs/decisions.md); all colours lie inside sRGB.
fn oklab([first, second, third]: [f32; 3]) -> [f32; 3] {
    let lightness = (3.0 * first + third) / 4.0;
    let from_middle = 2.0 * lightness - 1.0;
    let chroma = 1.0 - 0.35 * from_middle.abs();
    [
        0.38 + 0.52 * lightness,
        -0.02 + 0.06 * (third - 0.5) * chroma,
        0.01 + 0.24 * (second - 0.5) * chroma + 0.02 * from_middle,
    ]
}

/// OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020) to sRGB.
fn srgb([lightness, a, b]: [f32; 3]) -> [f32; 3] {
    let cones = [
        lightness + 0.396_337_78 * a + 0.215_803_76 * b,
        lightness - 0.105_561_346 * a - 0.063_854_17 * b,
        lightness - 0.089_484_18 * a - 1.291_485_5 * b,
    ];
    let [l, m, s] = cones.map(|cone| cone * cone * cone);
    [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_93 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ]
    .map(encoded)
}

/// Linear light as sRGB (IEC 61966-2-1).
fn encoded(linear: f32) -> f32 {
    match linear {
        linear if linear <= 0.003_130_8 => 12.92 * linear,
        linear => 1.055 * linear.powf(1.0 / 2.4) - 0.055,
    }
    .clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grid of the 27 quantised colours.
    fn grid() -> impl Iterator<Item = [f32; 3]> {
        (0..27).map(|code| [code / 9, code / 3 % 3, code % 3].map(|step| step as f32 / 2.0))
    }

    fn bytes(colour: [f32; 3]) -> [u8; 3] {
        colour.map(|value| (value * 255.0).round() as u8)
    }

    /// From the same definitions in NumPy, float64.
    #[test]
    fn colours_are_those_of_oklab() {
        let expected = [
            ([0.0, 0.0, 0.0], [1, 69, 114]),
            ([1.0, 0.0, 0.0], [126, 188, 233]),
            ([0.0, 1.0, 0.0], [61, 72, 16]),
            ([0.0, 0.0, 1.0], [83, 97, 159]),
            ([1.0, 1.0, 1.0], [250, 219, 136]),
            ([0.5, 0.5, 0.5], [130, 144, 134]),
            ([1.0, 1.0, 0.0], [184, 187, 84]),
            ([0.0, 1.0, 1.0], [126, 98, 15]),
            ([1.0, 0.0, 1.0], [209, 221, 255]),
            ([0.25, 0.8, 0.6], [123, 117, 68]),
        ];
        for (components, colour) in expected {
            assert_eq!(
                bytes(Palette::Oklab.colour(components)),
                colour,
                "{components:?}"
            );
        }
    }

    /// Ottosson's own pairs: white, and the primaries of sRGB to three digits.
    #[test]
    fn oklab_is_ottossons() {
        for (lab, colour) in [
            ([1.0, 0.0, 0.0], [255, 255, 255]),
            ([0.628, 0.225, 0.126], [255, 0, 0]),
            ([0.866, -0.234, 0.179], [0, 255, 0]),
            ([0.452, -0.032, -0.312], [0, 0, 255]),
        ] {
            for (found, wanted) in bytes(srgb(lab)).into_iter().zip(colour) {
                assert!(found.abs_diff(wanted) <= 6, "{lab:?}");
            }
        }
    }

    #[test]
    fn components_are_colours_themselves_with_rgb() {
        assert_eq!(Palette::Rgb.colour([0.25, 1.0, 0.0]), [0.25, 1.0, 0.0]);
    }

    #[test]
    fn a_ramp_goes_from_much_of_a_component_to_little() {
        let ends = |palette: Palette, component| {
            let ramp = palette.ramp(component);
            [0, ramp.height() - 1].map(|row| ramp.get_pixel(0, row).0)
        };
        let (half, none) = (128, 0);
        assert_eq!(
            ends(Palette::Rgb, 0),
            [[255, half, half], [none, half, half]]
        );
        assert_eq!(
            ends(Palette::Rgb, 2),
            [[half, half, 255], [half, half, none]]
        );
        // Light over dark; yellow, which has less blue than red, over blue.
        let [light, dark] = ends(Palette::Oklab, 0);
        assert!((0..3).all(|channel| light[channel] > dark[channel] + 60));
        let [yellow, blue] = ends(Palette::Oklab, 1);
        assert!(yellow[2] + 30 < yellow[0] && blue[0] + 30 < blue[2]);
        let [red, green] = ends(Palette::Oklab, 2);
        assert!(i16::from(red[0]) - i16::from(red[1]) > i16::from(green[0]) - i16::from(green[1]));
    }

    #[test]
    fn what_is_left_out_has_no_colour() {
        let colour = Palette::Oklab.colour([f32::NAN; 3]);
        assert!(colour.iter().all(|value| value.is_nan()), "{colour:?}");
    }

    #[test]
    fn the_quantised_colours_are_distinct_and_inside_srgb() {
        let mut seen = std::collections::HashSet::new();
        for components in grid() {
            assert!(seen.insert(bytes(Palette::Oklab.colour(components))));
        }
        for code in 0..1331 {
            let step = [code / 121, code / 11 % 11, code % 11];
            let [l, a, b] = oklab(step.map(|step| step as f32 / 10.0));
            let colour = srgb([l, a, b]);
            // A clipped channel would be exactly 0 or 1.
            assert!(
                colour.iter().all(|&v| v > 0.0 && v < 1.0),
                "{step:?} {colour:?}"
            );
        }
    }

    /// Relative luminance of the colours as they are shown, from the bytes.
    #[test]
    fn more_of_the_first_component_is_lighter() {
        let luminance = |components| {
            let light = bytes(Palette::Oklab.colour(components)).map(|byte| {
                let value = f64::from(byte) / 255.0;
                match value <= 0.04045 {
                    true => value / 12.92,
                    false => ((value + 0.055) / 1.055).powf(2.4),
                }
            });
            0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
        };
        for components in grid() {
            let [_, second, third] = components;
            let steps = (0..=20).map(|step| luminance([step as f32 / 20.0, second, third]));
            let steps: Vec<f64> = steps.collect();
            assert!(steps.is_sorted(), "{second} {third}: {steps:?}");
        }
    }
}
