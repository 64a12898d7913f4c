//! Text: the embedded font, measured and drawn the same way.
//!
//! plotters draws and measures text through [`BackendTextStyle`]. Its own
//! implementation on `ab_glyph` puts every glyph on a whole pixel and drops the
//! bearing on its left, which shows at small sizes; [`Lettering`] is one that
//! keeps both, and knows where the ink of a text will be.

use std::convert::Infallible;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, OutlinedGlyph, PxScale, ScaleFont, point};
use plotters_backend::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, FontFamily, FontStyle, FontTransform,
};

use super::colormap::Rgb;

/// What a viewer of an SVG may use in place of the embedded font, in the order of likeness.
const FAMILIES: &str = "Open Sans, Noto Sans, Segoe UI, Helvetica, Arial, sans-serif";

/// plotters' SVG backend takes the top of a text to be this far above the baseline, in em.
const TOP_TO_BASELINE: f32 = 0.76;

/// plotters' SVG backend divides the size of a font by this to get the em.
const SVG_SIZE_OF_EM: f64 = 1.24;

/// Height of a capital, in em (the font's own).
pub const CAP_HEIGHT: f32 = 1462.0 / 2048.0;

const ELLIPSIS: char = '…';

static REGULAR: LazyLock<FontRef<'static>> =
    LazyLock::new(|| embedded(include_bytes!("../../assets/fonts/OpenSans-Regular.ttf")));
static SEMIBOLD: LazyLock<FontRef<'static>> =
    LazyLock::new(|| embedded(include_bytes!("../../assets/fonts/OpenSans-Semibold.ttf")));

fn embedded(bytes: &'static [u8]) -> FontRef<'static> {
    FontRef::try_from_slice(bytes).expect("the embedded font is a TrueType file")
}

/// Weight of the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Regular,
    Semibold,
}

/// Which point of a line of text lies at the given place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Start,
    Middle,
    End,
}

/// A rectangle of pixels, right and bottom excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub left: i32,
    pub top: i32,
    pub right: i32,
    pub bottom: i32,
}

impl Bounds {
    /// The smallest rectangle around both.
    pub fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// The rectangle moved by `(x, y)`.
    pub fn shifted(self, x: i32, y: i32) -> Self {
        Self {
            left: self.left + x,
            top: self.top + y,
            right: self.right + x,
            bottom: self.bottom + y,
        }
    }
}

/// How a line of text looks.
#[derive(Debug, Clone, Copy)]
pub struct Lettering {
    pub weight: Weight,
    /// Size of the em in pixels.
    pub em: f32,
    pub colour: Rgb,
    pub align: Align,
    /// Reads from bottom to top instead of left to right.
    pub upwards: bool,
}

impl Lettering {
    /// Text that reads left to right from the given place.
    pub fn new(weight: Weight, em: f32, colour: Rgb) -> Self {
        Self {
            weight,
            em,
            colour,
            align: Align::Start,
            upwards: false,
        }
    }

    pub fn aligned(self, align: Align) -> Self {
        Self { align, ..self }
    }

    pub fn upwards(self) -> Self {
        Self {
            upwards: true,
            ..self
        }
    }

    /// Length of the text in pixels, of its advance widths.
    pub fn length(&self, text: &str) -> f32 {
        self.walk(text, |_| {})
    }

    /// Where `text` leaves ink when its baseline passes through `(x, y)`; `None`
    /// for text without ink.
    pub fn ink(&self, text: &str, (x, y): BackendCoord) -> Option<Bounds> {
        let mut ink: Option<Bounds> = None;
        let length = self.walk(text, |glyph| {
            let area = pixels(&glyph);
            ink = Some(ink.map_or(area, |sum| sum.union(area)));
        });
        let ink = ink?.shifted(-self.start(length.ceil() as i32), 0);
        let ink = if self.upwards {
            Bounds {
                left: ink.top,
                top: 1 - ink.right,
                right: ink.bottom,
                bottom: 1 - ink.left,
            }
        } else {
            ink
        };
        Some(ink.shifted(x, y))
    }

    /// `text` if it is no longer than `room` pixels; else its beginning, an
    /// ellipsis, and the score at its end (`: 0.91`), which is never cut.
    pub fn shortened(&self, text: &str, room: f32) -> String {
        if self.length(text) <= room {
            return text.to_owned();
        }
        let (name, score) = match text.rfind(": ") {
            Some(at) if text.len() - at <= ": 100.00 %".len() => text.split_at(at),
            _ => (text, ""),
        };
        let tail = format!("{ELLIPSIS}{score}");
        let room = room - self.length(&tail);
        let font = self.font();
        let mut used = 0.0;
        let mut kept = 0;
        for (at, letter) in name.char_indices() {
            used += font.h_advance(font.glyph_id(letter));
            if used > room {
                break;
            }
            kept = at + letter.len_utf8();
        }
        let head = name[..kept].trim_end_matches([' ', '_', '-', ',', '.']);
        format!("{head}{tail}")
    }

    fn font(&self) -> ab_glyph::PxScaleFont<&'static FontRef<'static>> {
        let font: &FontRef<'static> = match self.weight {
            Weight::Regular => &REGULAR,
            Weight::Semibold => &SEMIBOLD,
        };
        // ab_glyph's scale is the height from ascent to descent.
        let per_em = font.height_unscaled() / font.units_per_em().unwrap_or(1000.0);
        font.into_scaled(PxScale::from(self.em * per_em))
    }

    /// Calls `visit` with the outline of every glyph, its baseline at y = 0, and
    /// returns the length of the text.
    fn walk(&self, text: &str, mut visit: impl FnMut(OutlinedGlyph)) -> f32 {
        let font = self.font();
        let mut x = 0.0;
        let mut previous = None;
        for letter in text.chars().filter(|&c| !leaves_no_mark(c)) {
            let id = font.glyph_id(letter);
            if let Some(previous) = previous {
                x += font.kern(previous, id);
            }
            previous = Some(id);
            let glyph = id.with_scale_and_position(font.scale(), point(x, 0.0));
            if let Some(outlined) = font.outline_glyph(glyph) {
                visit(outlined);
            }
            x += font.h_advance(id);
        }
        x
    }

    /// How far the start of a text of this length lies before the given place.
    fn start(&self, length: i32) -> i32 {
        match self.align {
            Align::Start => 0,
            Align::Middle => length / 2,
            Align::End => length,
        }
    }

    /// Distance from what plotters takes for the top of the text to its baseline.
    fn drop(&self) -> i32 {
        (TOP_TO_BASELINE * self.em).round() as i32
    }

    /// The position to give to a backend so that the baseline passes through `(x, y)`.
    pub fn position(&self, (x, y): BackendCoord) -> BackendCoord {
        if self.upwards {
            (x - self.drop(), y)
        } else {
            (x, y - self.drop())
        }
    }
}

impl BackendTextStyle for Lettering {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        let [r, g, b] = self.colour;
        BackendColor {
            alpha: 1.0,
            rgb: (r, g, b),
        }
    }

    fn size(&self) -> f64 {
        // Rounded: f32 to f64 leaves a tail of digits in the SVG.
        (f64::from(self.em) * 100.0).round() / 100.0 * SVG_SIZE_OF_EM
    }

    fn transform(&self) -> FontTransform {
        if self.upwards {
            FontTransform::Rotate270
        } else {
            FontTransform::None
        }
    }

    fn style(&self) -> FontStyle {
        match self.weight {
            Weight::Regular => FontStyle::Normal,
            Weight::Semibold => FontStyle::Bold,
        }
    }

    fn anchor(&self) -> Pos {
        let horizontal = match self.align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        Pos::new(horizontal, VPos::Top)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::Name(FAMILIES)
    }

    fn layout_box(&self, text: &str) -> Result<(BackendCoord, BackendCoord), Infallible> {
        let length = self.length(text).ceil() as i32;
        Ok(((0, 0), (length, self.em.ceil() as i32)))
    }

    fn draw<E, DrawFunc: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        text: &str,
        (x, y): BackendCoord,
        mut draw: DrawFunc,
    ) -> Result<Result<(), E>, Infallible> {
        let baseline = y + self.drop();
        let mut drawn = Ok(());
        self.walk(text, |glyph| {
            let corner = pixels(&glyph);
            glyph.draw(|gx, gy, coverage| {
                if drawn.is_ok() && coverage > 0.0 {
                    drawn = draw(
                        x + corner.left + gx as i32,
                        baseline + corner.top + gy as i32,
                        self.color().mix(f64::from(coverage.min(1.0))),
                    );
                }
            });
        });
        Ok(drawn)
    }
}

/// The pixels that a glyph touches.
fn pixels(glyph: &OutlinedGlyph) -> Bounds {
    let bounds = glyph.px_bounds();
    Bounds {
        left: bounds.min.x as i32,
        top: bounds.min.y as i32,
        right: bounds.max.x as i32,
        bottom: bounds.max.y as i32,
    }
}

/// Characters that join, direct or vary others. A font without them would show
/// its box for a missing glyph.
fn leaves_no_mark(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether the font has all letters of a text.
pub fn has_glyphs(text: &str) -> bool {
    let mut marks = text
        .chars()
        .filter(|&c| !c.is_control() && !leaves_no_mark(c));
    marks.all(|c| REGULAR.glyph_id(c).0 != 0)
}

/// `text` as one line that XML can hold: control characters, line breaks and
/// non-characters become spaces.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => ' ',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lettering() -> Lettering {
        Lettering::new(Weight::Regular, 20.0, [0, 0, 0])
    }

    /// Advance widths and kerning pairs as the font file's tables hold them.
    #[test]
    fn length_is_the_fonts_own() {
        // H: 1511, space: 532 of 2048 units per em.
        let expected = 20.0 * (1511.0 + 532.0) / 2048.0;
        assert!((lettering().length("H ") - expected).abs() < 1e-3);
        let apart = lettering().length("A") + lettering().length("V");
        assert!(lettering().length("AV") < apart, "no kerning");
    }

    #[test]
    fn ink_bounds_hold_the_ink() {
        for align in [Align::Start, Align::Middle, Align::End] {
            for upwards in [false, true] {
                let style = Lettering {
                    upwards,
                    ..lettering().aligned(align)
                };
                let text = "jÅg_ψЖ: 0.91";
                let expected = style.ink(text, (100, 100)).unwrap();
                let mut seen: Option<Bounds> = None;
                let (x, y) = style.position((100, 100));
                let length = style.length(text).ceil() as i32;
                let transform = style.transform();
                style
                    .draw(text, (0, 0), |px, py, colour| {
                        let (px, py) = transform.transform(px - style.start(length), py);
                        let (px, py) = (px + x, py + y);
                        let pixel = Bounds {
                            left: px,
                            top: py,
                            right: px + 1,
                            bottom: py + 1,
                        };
                        if colour.alpha > 0.0 {
                            seen = Some(seen.map_or(pixel, |sum| sum.union(pixel)));
                        }
                        Ok::<(), ()>(())
                    })
                    .unwrap()
                    .unwrap();
                let seen = seen.unwrap();
                assert_eq!(seen.union(expected), expected, "{align:?} {upwards}");
                assert!((seen.left - expected.left).abs() <= 1);
                assert!((seen.bottom - expected.bottom).abs() <= 1);
            }
        }
    }

    #[test]
    fn shortening_keeps_the_score() {
        let style = lettering();
        let text = "a_label_that_is_much_longer_than_any_cell_could_be: 0.91";
        let short = style.shortened(text, 200.0);
        assert!(style.length(&short) <= 200.0, "{short}");
        assert!(style.length(&short) > 150.0, "{short}");
        assert!(short.starts_with("a_label_"), "{short}");
        assert!(short.ends_with("…: 0.91"), "{short}");
        assert_eq!(style.shortened("cat: 0.91", 200.0), "cat: 0.91");
        let greek = "ψ".repeat(5000);
        assert!(style.shortened(&greek, 200.0).ends_with("ψ…"));
    }

    #[test]
    fn missing_glyphs_are_drawn_as_a_box_and_joiners_leave_no_mark() {
        let box_length = lettering().length("狼");
        for text in ["🐺", "\u{10ffff}", "ذ"] {
            assert_eq!(lettering().length(text), box_length, "{text:?}");
            assert!(lettering().ink(text, (0, 0)).is_some(), "{text:?}");
        }
        assert_eq!(lettering().length("\u{200d}"), 0.0);
        assert!(lettering().ink("\u{200d}", (0, 0)).is_none());
        assert_eq!(lettering().shortened("狼: 0.91", 1.0), "…: 0.91");
    }

    #[test]
    fn letters_without_glyphs_are_known() {
        assert!(has_glyphs("Größe ψυχή Жираф\u{200d}\t.jpg"));
        assert!(!has_glyphs("狼.jpg") && !has_glyphs("a🐺"));
    }

    #[test]
    fn a_title_is_one_line() {
        assert_eq!(one_line("a\tb\nc\u{0}d\u{ffff}"), "a b c d ");
    }
}
