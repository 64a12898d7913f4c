//! Colour ramps: a value in `[0, 1]` becomes a colour.
//!
//! Reds, Greens and Blues are the nine-class sequential schemes of ColorBrewer
//! (Cynthia Brewer, Mark Harrower and The Pennsylvania State University,
//! colorbrewer2.org, Apache-2.0), light to dark. Saliency is drawn in magma
//! (Nathaniel Smith and Stéfan van der Walt, matplotlib, CC0), which is uniform
//! in perceived lightness, dark to light. Between the anchors a ramp is linear.

/// An 8-bit RGB colour.
pub type Rgb = [u8; 3];

const REDS: [Rgb; 9] = [
    [0xff, 0xf5, 0xf0],
    [0xfe, 0xe0, 0xd2],
    [0xfc, 0xbb, 0xa1],
    [0xfc, 0x92, 0x72],
    [0xfb, 0x6a, 0x4a],
    [0xef, 0x3b, 0x2c],
    [0xcb, 0x18, 0x1d],
    [0xa5, 0x0f, 0x15],
    [0x67, 0x00, 0x0d],
];

const GREENS: [Rgb; 9] = [
    [0xf7, 0xfc, 0xf5],
    [0xe5, 0xf5, 0xe0],
    [0xc7, 0xe9, 0xc0],
    [0xa1, 0xd9, 0x9b],
    [0x74, 0xc4, 0x76],
    [0x41, 0xab, 0x5d],
    [0x23, 0x8b, 0x45],
    [0x00, 0x6d, 0x2c],
    [0x00, 0x44, 0x1b],
];

const BLUES: [Rgb; 9] = [
    [0xf7, 0xfb, 0xff],
    [0xde, 0xeb, 0xf7],
    [0xc6, 0xdb, 0xef],
    [0x9e, 0xca, 0xe1],
    [0x6b, 0xae, 0xd6],
    [0x42, 0x92, 0xc6],
    [0x21, 0x71, 0xb5],
    [0x08, 0x51, 0x9c],
    [0x08, 0x30, 0x6b],
];

/// Every sixteenth of magma's 256 colours: within 3/255 of all of them.
const MAGMA: [Rgb; 17] = [
    [0, 0, 4],
    [10, 8, 34],
    [29, 17, 70],
    [54, 16, 106],
    [80, 18, 124],
    [105, 28, 129],
    [130, 38, 129],
    [156, 46, 127],
    [182, 55, 121],
    [207, 65, 112],
    [230, 81, 99],
    [245, 105, 92],
    [251, 135, 97],
    [254, 165, 113],
    [254, 195, 135],
    [253, 224, 162],
    [252, 253, 191],
];

/// ColorBrewer's Reds at `v` in `[0, 1]`, light to dark. Values outside are
/// clipped; NaN takes the colour of 0.
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

/// Magma at `v` in `[0, 1]`, dark to light, for saliency. Values outside are
/// clipped; NaN takes the colour of 0.
pub fn magma(v: f32) -> Rgb {
    interpolate(&MAGMA, v)
}

/// The colour at `v` on the line through equally spaced `anchors`.
fn interpolate(anchors: &[Rgb], v: f32) -> Rgb {
    let steps = anchors.len() - 1;
    let v = if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) };
    let position = v * steps as f32;
    let below = (position as usize).min(steps - 1);
    let fraction = position - below as f32;
    std::array::from_fn(|channel| {
        let (a, b) = (
            f32::from(anchors[below][channel]),
            f32::from(anchors[below + 1][channel]),
        );
        (a + (b - a) * fraction).round() as u8
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
    fn brewer_ramps_are_matplotlibs() {
        type Ramp = fn(f32) -> Rgb;
        let at = [0.0, 0.1, 0.3, 0.5, 0.77, 1.0];
        let expected: [(Ramp, [Rgb; 6]); 3] = [
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
        for (ramp, colours) in expected {
            for (v, colour) in at.into_iter().zip(colours) {
                assert_near(ramp(v), colour, 2);
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
