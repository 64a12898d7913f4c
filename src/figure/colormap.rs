//! Colour maps: a value in `[0, 1]` becomes a colour.
//!
//! Reds, Greens and Blues are the nine-class sequential schemes of ColorBrewer (Cynthia Brewer,
//! Mark Harrower and The Pennsylvania State University, colorbrewer2.org, Apache-2.0), light to
//! dark. Saliency is drawn in magma (Nathaniel Smith and Stéfan van der Walt, matplotlib, CC0),
//! which is uniform in perceived lightness, dark to light. A colour map is linear between its
//! anchors, as matplotlib's are. (The splines of d3 and `colorous` differ by up to 6/255.)

/// An 8-bit RGB colour.
pub type Rgb = [u8; 3];

const REDS: [u32; 9] = [
    0xfff5f0, 0xfee0d2, 0xfcbba1, 0xfc9272, 0xfb6a4a, 0xef3b2c, 0xcb181d, 0xa50f15, 0x67000d,
];
const GREENS: [u32; 9] = [
    0xf7fcf5, 0xe5f5e0, 0xc7e9c0, 0xa1d99b, 0x74c476, 0x41ab5d, 0x238b45, 0x006d2c, 0x00441b,
];
/// Light to dark without a hue, for components that are no colour.
const GREYS: [u32; 2] = [0xf7f7f7, 0x101010];
const BLUES: [u32; 9] = [
    0xf7fbff, 0xdeebf7, 0xc6dbef, 0x9ecae1, 0x6baed6, 0x4292c6, 0x2171b5, 0x08519c, 0x08306b,
];
/// Every sixteenth of magma's 256 colours; all 256 lie within 3/255 of the lines between them.
const MAGMA: [u32; 17] = [
    0x000004, 0x0a0822, 0x1d1146, 0x36106a, 0x50127c, 0x691c81, 0x822681, 0x9c2e7f, 0xb63779,
    0xcf4170, 0xe65163, 0xf5695c, 0xfb8761, 0xfea571, 0xfec387, 0xfde0a2, 0xfcfdbf,
];

/// ColorBrewer's Reds at `v` in `[0, 1]`, light to dark. Values outside are clipped; NaN has the
/// colour of 0.
pub fn reds(v: f32) -> Rgb {
    interpolate(&REDS, v)
}

/// ColorBrewer's Greens at `v` in `[0, 1]`, as [`reds`].
pub fn greens(v: f32) -> Rgb {
    interpolate(&GREENS, v)
}

/// ColorBrewer's Blues at `v` in `[0, 1]`, as [`reds`].
pub fn blues(v: f32) -> Rgb {
    interpolate(&BLUES, v)
}

/// Grey at `v` in `[0, 1]`, as [`reds`].
pub fn greys(v: f32) -> Rgb {
    interpolate(&GREYS, v)
}

/// Magma at `v` in `[0, 1]`, dark to light, for saliency; otherwise as [`reds`].
pub fn magma(v: f32) -> Rgb {
    interpolate(&MAGMA, v)
}

/// Side of the stripes for pixels that are left out, along rows and columns; a picture has
/// some hundred pixels.
const STRIPE: u32 = 6;
/// Their greys. None of the 27 quantised colours is one of them.
pub const STRIPES: [u8; 2] = [96, 160];

/// The colour of a pixel that is left out.
pub fn hatch(x: u32, y: u32) -> Rgb {
    [STRIPES[((x + y) / STRIPE % 2) as usize]; 3]
}

/// The colour at `v` on the line through equally spaced `anchors`, `0xRRGGBB`.
fn interpolate(anchors: &[u32], v: f32) -> Rgb {
    let steps = anchors.len() - 1;
    let v = if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) };
    let position = v * steps as f32;
    let below = (position as usize).min(steps - 1);
    let fraction = position - below as f32;
    let [from, to] = [below, below + 1].map(|anchor| {
        let [_, r, g, b] = anchors[anchor].to_be_bytes();
        [r, g, b]
    });
    mixed(from, to, fraction)
}

/// The colour so far on the way from one to another, `share` being from 0 to 1.
pub fn mixed(from: Rgb, to: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|channel| {
        let (from, to) = (f32::from(from[channel]), f32::from(to[channel]));
        (from * (1.0 - share) + to * share).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(colour: Rgb, expected: Rgb, tolerance: u8) {
        for (a, b) in colour.iter().zip(expected) {
            assert!(a.abs_diff(b) <= tolerance, "{colour:?}, not {expected:?}");
        }
    }

    /// matplotlib 3's Reds, Greens and Blues at the same values; its tables have
    /// 256 steps, so a colour may be a step away.
    #[test]
    fn brewer_maps_are_matplotlibs() {
        type Colormap = fn(f32) -> Rgb;
        let at = [0.0, 0.1, 0.3, 0.5, 0.77, 1.0];
        let expected: [(Colormap, [Rgb; 6]); 3] = [
            (
                reds,
                [
                    [255, 245, 240],
                    [254, 229, 216],
                    [252, 171, 143],
                    [251, 105, 74],
                    [196, 22, 28],
                    [103, 0, 13],
                ],
            ),
            (
                greens,
                [
                    [247, 252, 245],
                    [233, 247, 229],
                    [184, 227, 178],
                    [115, 196, 118],
                    [29, 134, 64],
                    [0, 68, 27],
                ],
            ),
            (
                blues,
                [
                    [247, 251, 255],
                    [227, 238, 249],
                    [183, 212, 234],
                    [106, 174, 214],
                    [28, 107, 176],
                    [8, 48, 107],
                ],
            ),
        ];
        for (colormap, colours) in expected {
            for (v, colour) in at.into_iter().zip(colours) {
                assert_near(colormap(v), colour, 2);
            }
        }
    }

    /// Entries 0, 40, 100, 128, 200 and 255 of matplotlib's magma.
    #[test]
    fn magma_is_matplotlibs() {
        for (entry, colour) in [
            (0, [0, 0, 4]),
            (40, [41, 17, 90]),
            (100, [137, 40, 129]),
            (128, [183, 55, 121]),
            (200, [253, 152, 105]),
            (255, [252, 253, 191]),
        ] {
            assert_near(magma(entry as f32 / 255.0), colour, 3);
        }
    }

    #[test]
    fn values_outside_are_clipped() {
        assert_eq!(reds(-3.0), reds(0.0));
        assert_eq!(reds(f32::INFINITY), reds(1.0));
        assert_eq!(magma(f32::NAN), magma(0.0));
    }
}
