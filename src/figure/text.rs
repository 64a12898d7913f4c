//! Text: the embedded font, measured and drawn the same way.
//!
//! plotters puts every glyph on a whole pixel and drops the bearing on its left, which shows
//! at small sizes. [`Lettering`] keeps both, and knows where the ink of a text will be.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, OutlinedGlyph, PxScale, ScaleFont, point};

use super::colormap::Rgb;
use super::{INK, SOFT_INK};

/// What a viewer of an SVG may use in place of the embedded font, in the order of likeness.
pub const FAMILIES: &str = "Open Sans, Noto Sans, Segoe UI, Helvetica, Arial, sans-serif";

/// The files of the embedded font.
pub const REGULAR: &[u8] = include_bytes!("../../assets/fonts/OpenSans-Regular.ttf");
pub const SEMIBOLD: &[u8] = include_bytes!("../../assets/fonts/OpenSans-Semibold.ttf");

/// From ascent to descent, in em (the font's own): the size that ab_glyph and plotters go by.
pub const LINE_HEIGHT: f32 = 2789.0 / 2048.0;

/// Height of a capital, in em (the font's own).
pub const CAP_HEIGHT: f32 = 1462.0 / 2048.0;

const ELLIPSIS: char = '…';

/// Longer extensions are part of a name: `.jpeg`, `.safetensors:12`.
const LONGEST_EXTENSION: usize = 16;

static FONTS: LazyLock<[FontRef<'static>; 2]> = LazyLock::new(|| [REGULAR, SEMIBOLD].map(embedded));

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
    /// The rectangle of a size whose left upper corner is at `(left, top)`.
    pub fn sized((left, top): (i32, i32), (width, height): (i32, i32)) -> Self {
        Self {
            left,
            top,
            right: left + width,
            bottom: top + height,
        }
    }

    /// Width and height.
    pub fn size(self) -> (i32, i32) {
        (self.right - self.left, self.bottom - self.top)
    }

    /// The rectangle with `by` more pixels on each side.
    pub fn grown(self, by: i32) -> Self {
        let (width, height) = self.size();
        let corner = (self.left - by, self.top - by);
        Self::sized(corner, (width + 2 * by, height + 2 * by))
    }

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
        Self::sized((self.left + x, self.top + y), self.size())
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

    /// Soft text, for what stands beside or beneath something.
    pub fn soft(em: f32) -> Self {
        Self::new(Weight::Regular, em, SOFT_INK)
    }

    /// Strong text, for what is read first.
    pub fn strong(em: f32) -> Self {
        Self::new(Weight::Semibold, em, INK)
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
    pub fn ink(&self, text: &str, (x, y): (i32, i32)) -> Option<Bounds> {
        let mut ink: Option<Bounds> = None;
        let length = self.walk(text, |glyph| {
            let area = pixels(&glyph);
            ink = Some(ink.map_or(area, |sum| sum.union(area)));
        });
        let ink = ink?.shifted(-self.start(length.ceil() as i32), 0);
        let (width, height) = ink.size();
        let ink = match self.upwards {
            true => Bounds::sized((ink.top, 1 - ink.right), (height, width)),
            false => ink,
        };
        Some(ink.shifted(x, y))
    }

    /// `text` if it is no longer than `room` pixels; else its beginning, an
    /// ellipsis, and the score at its end (`: 0.91`), which is never cut.
    pub fn shortened(&self, text: &str, room: f32) -> String {
        let score = text.rfind(": ").map_or("", |at| &text[at..]);
        let score = match score.len() <= ": 100.00 %".len() {
            true => score.chars().count(),
            false => 0,
        };
        self.cut(text, room, |_| score)
    }

    /// `IMG_2023…0042.jpg`: the text, without its middle if it is longer than `room`
    /// pixels. The extension is never cut.
    pub fn shortened_in_the_middle(&self, text: &str, room: f32) -> String {
        let extension = text.rfind('.').map_or(0, |dot| text[dot..].chars().count());
        let extension = if extension <= LONGEST_EXTENSION {
            extension
        } else {
            0
        };
        // More of the end than of the beginning: it has the number and the extension.
        self.cut(text, room, |kept| (3 * kept).div_ceil(5).max(extension))
    }

    /// As many letters of `text` as fit, an ellipsis before the last of them: `tail` says how
    /// many of the kept ones stand behind it.
    fn cut(&self, text: &str, room: f32, tail: impl Fn(usize) -> usize) -> String {
        if self.length(text) <= room {
            return text.to_owned();
        }
        let letters: Vec<char> = text.chars().collect();
        let joined = |kept: usize| {
            let tail = tail(kept).min(letters.len());
            let head: String = letters[..kept.saturating_sub(tail)].iter().collect();
            let tail: String = letters[letters.len() - tail..].iter().collect();
            let head = head.trim_end_matches([' ', '_', '-', ',', '.']);
            format!("{head}{ELLIPSIS}{tail}")
        };
        let counts: Vec<usize> = (1..letters.len()).collect();
        let fits = |&kept: &usize| self.length(&joined(kept)) <= room;
        joined(counts.partition_point(fits))
    }

    /// The words of `text` as lines, as many in each as fit into `room` pixels.
    pub fn lines(&self, text: &str, room: f32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let longer = lines.last().map(|line| format!("{line} {word}"));
            match (longer, lines.last_mut()) {
                (Some(longer), Some(line)) if self.length(&longer) <= room => *line = longer,
                _ => lines.push(self.shortened(word, room)),
            }
        }
        lines
    }

    fn font(&self) -> ab_glyph::PxScaleFont<&'static FontRef<'static>> {
        let font: &FontRef<'static> = &FONTS[self.weight as usize];
        font.into_scaled(PxScale::from(self.em * LINE_HEIGHT))
    }

    /// Calls `visit` with the outline of every glyph, its baseline at y = 0, and
    /// returns the length of the text.
    fn walk(&self, text: &str, mut visit: impl FnMut(OutlinedGlyph)) -> f32 {
        let font = self.font();
        let mut x = 0.0;
        let mut previous = None;
        for letter in text.chars().map(printable).filter(|&c| !leaves_no_mark(c)) {
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

    /// Calls `mark` with each pixel that `text` touches and how much of it, when its baseline
    /// passes through `(x, y)`.
    pub fn draw(&self, text: &str, (x, y): (i32, i32), mut mark: impl FnMut((i32, i32), f32)) {
        let start = self.start(self.length(text).ceil() as i32);
        self.walk(text, |glyph| {
            let corner = pixels(&glyph);
            glyph.draw(|right, down, cover| {
                let (along, below) = (corner.left + right as i32 - start, corner.top + down as i32);
                let place = match self.upwards {
                    true => (x + below, y - along),
                    false => (x + along, y + below),
                };
                mark(place, cover);
            });
        });
    }
}

/// The pixels that a glyph touches.
fn pixels(glyph: &OutlinedGlyph) -> Bounds {
    let bounds = glyph.px_bounds();
    let corner = (bounds.min.x as i32, bounds.min.y as i32);
    Bounds::sized(corner, (bounds.width() as i32, bounds.height() as i32))
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
    marks.all(|c| FONTS[0].glyph_id(c).0 != 0)
}

/// `text` with an ellipsis in place of letters that the font lacks.
pub fn legible(text: &str) -> String {
    let mut legible = String::new();
    for letter in text.chars() {
        match has_glyphs(letter.encode_utf8(&mut [0; 4])) {
            true => legible.push(letter),
            false if legible.ends_with(ELLIPSIS) => {}
            false => legible.push(ELLIPSIS),
        }
    }
    legible
}

/// `text` as one line that XML can hold: control characters, line breaks and
/// non-characters become spaces.
pub fn one_line(text: &str) -> String {
    text.chars().map(printable).collect()
}

fn printable(c: char) -> char {
    match c {
        '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
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
                style.draw(text, (100, 100), |(px, py), cover| {
                    let pixel = Bounds {
                        left: px,
                        top: py,
                        right: px + 1,
                        bottom: py + 1,
                    };
                    if cover > 0.0 {
                        seen = Some(seen.map_or(pixel, |sum| sum.union(pixel)));
                    }
                });
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
    fn letters_without_glyphs_become_an_ellipsis() {
        assert_eq!(legible("Größe ψ.jpg"), "Größe ψ.jpg");
        assert_eq!(legible("狼の写真.jpg"), "….jpg");
        assert_eq!(legible("a 狼狼 b🐺"), "a … b…");
    }

    #[test]
    fn a_title_is_one_line() {
        assert_eq!(one_line("a\tb\nc\u{0}d\u{ffff}"), "a b c d ");
    }
}
