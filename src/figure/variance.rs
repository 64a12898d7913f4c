//! The variance figure: how much of the variance each principal component holds.

use anyhow::{Result, bail};

use super::FigureFormat;
use super::colormap::Rgb;
use super::sheet::Sheet;
use super::text::{Align, Bounds, CAP_HEIGHT, Lettering, Weight};

/// The plot, in pixels; with its labels and margins the figure is about 1600x1000.
const PLOT_WIDTH: i32 = 1400;
const PLOT_HEIGHT: i32 = 810;

/// Up to here every bar is as wide as the others. With more, equal bars would
/// become hairlines, the coloured three first of all: then the axis is logarithmic,
/// wide for the components that matter, and still shows all of them.
const MOST_EQUAL_BARS: usize = 60;

/// With more equal bars only every fifth carries its number.
const MOST_LABELLED_BARS: usize = 24;

const WIDEST_BAR: f64 = 150.0;

/// Bars narrower than this touch each other.
const NARROWEST_WITH_GAP: f64 = 6.0;

/// The first three components, as they colour the maps.
const COLOURS: [Rgb; 3] = [[205, 68, 72], [72, 158, 92], [62, 112, 182]];
const FURTHER: Rgb = [176, 181, 189];

const INK: Rgb = [26, 26, 28];
const SOFT_INK: Rgb = [92, 94, 100];
const GRID: Rgb = [228, 230, 233];
const BOX_LINE: Rgb = [200, 203, 208];
const WHITE: Rgb = [255, 255, 255];

const TICK_EM: f32 = 22.0;
const LABEL_EM: f32 = 25.0;
const BOX_EM: f32 = 25.0;

const AXIS_WIDTH: i32 = 2;
const TICK_LENGTH: i32 = 9;

/// The box and what is in it, in pixels.
const BOX_WIDTH: i32 = 396;
const BOX_PADDING: i32 = 24;
const BOX_PITCH: i32 = 42;
const SWATCH: i32 = 22;

/// White between the box and bars beneath it.
const BOX_CLEARANCE: i32 = 24;

/// About this many lines across the plot.
const GRID_LINES: f64 = 6.0;

/// A sum of squares over its total may come out a little below zero.
const ROUNDING: f64 = 1e-6;

/// Draws a bar per principal component, the first three in the colours they have
/// in the maps, and a box with the shares of these three, and encodes the figure.
///
/// `ratios` are the components' shares of the variance, as fractions of 1, in
/// descending order; each is drawn, up to 2048 and more.
///
/// # Errors
/// If there are no ratios, or one is negative, above 1 or not a finite number.
pub fn draw_variance(ratios: &[f64], format: FigureFormat) -> Result<Vec<u8>> {
    compose(ratios)?.encode(format)
}

fn compose(ratios: &[f64]) -> Result<Sheet<'static>> {
    if ratios.is_empty() {
        bail!("a variance figure needs at least one principal component");
    }
    for (index, ratio) in ratios.iter().enumerate() {
        if !(-ROUNDING..=1.0 + ROUNDING).contains(ratio) {
            bail!(
                "the variance ratio of principal component {} is {ratio}, not between 0 and 1",
                index + 1
            );
        }
    }
    let axis = ComponentAxis::new(ratios.len());
    let frame = Bounds {
        left: PLOT_WIDTH - BOX_WIDTH,
        top: 0,
        right: PLOT_WIDTH,
        bottom: box_height(ratios.len().min(3)),
    };
    let scale = ShareScale::new(ratios, &axis, frame);

    let mut sheet = Sheet::default();
    draw_grid(&mut sheet, &scale);
    for (index, &ratio) in ratios.iter().enumerate() {
        let (left, right) = axis.bar(index);
        let area = Bounds {
            left,
            top: scale.top_of(ratio),
            right,
            bottom: PLOT_HEIGHT,
        };
        if area.top < area.bottom {
            sheet.fill(area, COLOURS.get(index).copied().unwrap_or(FURTHER));
        }
    }
    draw_component_axis(&mut sheet, &axis);
    draw_box(&mut sheet, frame, ratios);
    Ok(sheet)
}

/// The horizontal axis: where each component's bar stands.
struct ComponentAxis {
    count: usize,
    logarithmic: bool,
}

impl ComponentAxis {
    fn new(count: usize) -> Self {
        Self {
            count,
            logarithmic: count > MOST_EQUAL_BARS,
        }
    }

    /// Left and right end of the space for the component, in pixels.
    fn slot(&self, index: usize) -> (f64, f64) {
        let at = |position: usize| {
            let part = if self.logarithmic {
                ((position + 1) as f64).ln() / ((self.count + 1) as f64).ln()
            } else {
                position as f64 / self.count as f64
            };
            part * f64::from(PLOT_WIDTH)
        };
        (at(index), at(index + 1))
    }

    /// Left and right end of the component's bar, at least one pixel apart.
    fn bar(&self, index: usize) -> (i32, i32) {
        let (left, right) = self.slot(index);
        let width = right - left;
        let (left, right) = if self.logarithmic {
            let gap = if width < NARROWEST_WITH_GAP { 0.0 } else { 1.0 };
            (left + gap, right)
        } else {
            let half = (0.8 * width).min(WIDEST_BAR) / 2.0;
            let middle = (left + right) / 2.0;
            (middle - half, middle + half)
        };
        let left = (left.round() as i32).min(PLOT_WIDTH - 1);
        (left, (right.round() as i32).max(left + 1))
    }

    fn middle(&self, index: usize) -> i32 {
        let (left, right) = self.bar(index);
        (left + right) / 2
    }

    /// Numbers of the components (from 1) that may be labelled, the most important first.
    fn candidates(&self) -> Vec<usize> {
        let mut numbers = vec![1, self.count];
        if self.logarithmic {
            let decades = || {
                (0..)
                    .map(|d| 10usize.pow(d))
                    .take_while(|d| *d <= self.count)
            };
            for lead in [1, 2, 5, 3] {
                numbers.extend(decades().map(|decade| lead * decade));
            }
        } else {
            let step = if self.count <= MOST_LABELLED_BARS {
                1
            } else {
                5
            };
            numbers.extend((step..).step_by(step).take_while(|n| *n <= self.count));
        }
        numbers.retain(|n| *n <= self.count);
        numbers
    }
}

/// The vertical axis: shares of the variance.
struct ShareScale {
    /// The share at the top of the plot.
    top: f64,
    /// Shares between two grid lines.
    step: f64,
}

impl ShareScale {
    /// A scale on which all bars fit, those beneath the box too.
    fn new(ratios: &[f64], axis: &ComponentAxis, frame: Bounds) -> Self {
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        let beneath = (0..ratios.len())
            .filter(|&index| axis.bar(index).1 > frame.left - BOX_CLEARANCE)
            .map(|index| ratios[index])
            .fold(0.0, f64::max);
        let free = PLOT_HEIGHT - frame.bottom - BOX_CLEARANCE;
        let needed = largest.max(beneath * f64::from(PLOT_HEIGHT) / f64::from(free));
        let needed = if needed > 0.0 { needed } else { 1.0 };
        let step = round_step(needed / GRID_LINES);
        // The last grid line is the top, except where that would be a share above 1.
        let top = (needed / step - 1e-9).ceil() * step;
        Self {
            top: if needed <= 1.0 { top.min(1.0) } else { needed },
            step,
        }
    }

    fn y(&self, share: f64) -> i32 {
        PLOT_HEIGHT - (share / self.top * f64::from(PLOT_HEIGHT)).round() as i32
    }

    /// Top of a bar; one that is not zero is at least a pixel high.
    fn top_of(&self, ratio: f64) -> i32 {
        let least = if ratio > 0.0 { 1 } else { 0 };
        self.y(ratio.max(0.0)).min(PLOT_HEIGHT - least)
    }

    /// The grid lines' shares; none above 1.
    fn ticks(&self) -> Vec<f64> {
        (0..)
            .map(|line| f64::from(line) * self.step)
            .take_while(|share| *share <= self.top.min(1.0) + 1e-9)
            .collect()
    }

    fn label(&self, share: f64) -> String {
        let decimals = (-(self.step * 100.0).log10() - 1e-9).ceil().max(0.0);
        // A step of 2.5 needs a decimal more than one of 2 or 5.
        let uneven = ((self.step * 100.0) * 10f64.powf(decimals)).fract();
        let decimals = decimals as usize + usize::from((0.1..0.9).contains(&uneven));
        format!("{:.decimals$} %", share * 100.0)
    }
}

/// The next number of the form 1, 2, 2.5 or 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .map(|lead| lead * power)
        .find(|rounded| *rounded >= step * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn draw_grid(sheet: &mut Sheet<'_>, scale: &ShareScale) {
    let style = Lettering::new(Weight::Regular, TICK_EM, SOFT_INK).aligned(Align::End);
    let half_cap = (CAP_HEIGHT * TICK_EM / 2.0).round() as i32;
    let mut widest: f32 = 0.0;
    for share in scale.ticks() {
        let y = scale.y(share);
        sheet.fill(line(0, y, PLOT_WIDTH, 1), GRID);
        let label = scale.label(share);
        widest = widest.max(style.length(&label));
        sheet.text(&label, (-16, y + half_cap), style);
    }
    let style = Lettering::new(Weight::Regular, LABEL_EM, INK)
        .aligned(Align::Middle)
        .upwards();
    let baseline = -16 - widest.ceil() as i32 - 28;
    sheet.text("share of variance", (baseline, PLOT_HEIGHT / 2), style);
}

fn draw_component_axis(sheet: &mut Sheet<'_>, axis: &ComponentAxis) {
    sheet.fill(line(0, PLOT_HEIGHT, PLOT_WIDTH, AXIS_WIDTH), SOFT_INK);
    let style = Lettering::new(Weight::Regular, TICK_EM, SOFT_INK).aligned(Align::Middle);
    let ticks_end = PLOT_HEIGHT + AXIS_WIDTH + TICK_LENGTH;
    let baseline = ticks_end + 8 + (CAP_HEIGHT * TICK_EM).round() as i32;
    let mut taken: Vec<(i32, i32)> = Vec::new();
    for number in axis.candidates() {
        let middle = axis.middle(number - 1);
        let label = number.to_string();
        let half = (style.length(&label) / 2.0).ceil() as i32 + 9;
        if taken
            .iter()
            .all(|(from, to)| middle + half < *from || middle - half > *to)
        {
            taken.push((middle - half, middle + half));
            let tick = Bounds {
                left: middle - 1,
                top: PLOT_HEIGHT + AXIS_WIDTH,
                right: middle + 1,
                bottom: ticks_end,
            };
            sheet.fill(tick, SOFT_INK);
            sheet.text(&label, (middle, baseline), style);
        }
    }
    let name = if axis.logarithmic {
        "principal component (logarithmic scale)"
    } else {
        "principal component"
    };
    let style = Lettering::new(Weight::Regular, LABEL_EM, INK).aligned(Align::Middle);
    sheet.text(name, (PLOT_WIDTH / 2, baseline + 48), style);
}

/// Height of the box with that many components and their sum.
fn box_height(components: usize) -> i32 {
    2 * BOX_PADDING + (components as i32 + 1) * BOX_PITCH
}

fn draw_box(sheet: &mut Sheet<'_>, frame: Bounds, ratios: &[f64]) {
    sheet.fill(frame, BOX_LINE);
    let inner = Bounds {
        left: frame.left + 1,
        top: frame.top + 1,
        right: frame.right - 1,
        bottom: frame.bottom - 1,
    };
    sheet.fill(inner, WHITE);
    let left = frame.left + BOX_PADDING;
    let right = frame.right - BOX_PADDING;
    let half_cap = (CAP_HEIGHT * BOX_EM / 2.0).round() as i32;
    let shown = ratios.len().min(COLOURS.len());
    let middle_of = |row: usize| frame.top + BOX_PADDING + row as i32 * BOX_PITCH + BOX_PITCH / 2;
    let style = Lettering::new(Weight::Regular, BOX_EM, INK);
    for (row, (ratio, colour)) in ratios.iter().zip(COLOURS).enumerate() {
        let middle = middle_of(row);
        let swatch = Bounds {
            left,
            top: middle - SWATCH / 2,
            right: left + SWATCH,
            bottom: middle + SWATCH / 2,
        };
        sheet.fill(swatch, colour);
        let name = format!("component {}", row + 1);
        let baseline = middle + half_cap;
        sheet.text(&name, (left + SWATCH + 14, baseline), style);
        sheet.text(
            &percent(*ratio),
            (right, baseline),
            style.aligned(Align::End),
        );
    }
    let middle = middle_of(shown) + 6;
    let rule = middle - BOX_PITCH / 2 - 3;
    sheet.fill(line(left, rule, right, 1), BOX_LINE);
    let strong = Lettering::new(Weight::Semibold, BOX_EM, INK);
    let sum: f64 = ratios.iter().take(shown).sum();
    let baseline = middle + half_cap;
    sheet.text("sum", (left + SWATCH + 14, baseline), strong);
    sheet.text(&percent(sum), (right, baseline), strong.aligned(Align::End));
}

/// A share as a percentage; what would round to nothing keeps a digit that says so.
fn percent(share: f64) -> String {
    let share = 100.0 * share.clamp(0.0, 1.0);
    if share > 0.0 && share < 0.05 {
        format!("{share:.2} %")
    } else {
        format!("{share:.1} %")
    }
}

/// A horizontal line from `left` to `right`, `width` pixels downwards from `y`.
fn line(left: i32, y: i32, right: i32, width: i32) -> Bounds {
    Bounds {
        left,
        top: y,
        right,
        bottom: y + width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios proportional to `k^-decay`.
    fn spectrum(count: usize, decay: f64) -> Vec<f64> {
        let powers: Vec<f64> = (1..=count).map(|k| (k as f64).powf(-decay)).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    const COUNTS: [usize; 8] = [1, 2, 3, 24, 49, 61, 512, 2048];

    struct Rect {
        x: i32,
        y: i32,
        width: i32,
        height: i32,
    }

    fn hex([r, g, b]: Rgb) -> String {
        format!("#{r:02X}{g:02X}{b:02X}")
    }

    /// The filled rectangles of a colour in an SVG, in the order of drawing.
    fn rects(svg: &str, colour: Rgb) -> Vec<Rect> {
        let document = roxmltree::Document::parse(svg).unwrap();
        document
            .descendants()
            .filter(|node| node.attribute("fill") == Some(&hex(colour)))
            .filter(|node| node.tag_name().name() == "rect")
            .map(|node| {
                let number = |name| node.attribute(name).unwrap().parse().unwrap();
                Rect {
                    x: number("x"),
                    y: number("y"),
                    width: number("width"),
                    height: number("height"),
                }
            })
            .collect()
    }

    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        document
            .descendants()
            .filter(|node| node.tag_name().name() == "text")
            .map(|node| node.text().unwrap().trim().to_owned())
            .collect()
    }

    fn svg(ratios: &[f64]) -> String {
        String::from_utf8(draw_variance(ratios, FigureFormat::Svg).unwrap()).unwrap()
    }

    #[test]
    fn every_component_has_its_bar_in_order() {
        for count in [4, 49, 512, 2048] {
            let svg = svg(&spectrum(count, 0.7));
            let further = rects(&svg, FURTHER);
            assert_eq!(further.len(), count - 3);
            assert!(further.windows(2).all(|pair| pair[0].x <= pair[1].x));
            assert!(further.iter().all(|bar| bar.width >= 1 && bar.height >= 1));
            for colour in COLOURS {
                // A bar and a square in the box.
                assert_eq!(rects(&svg, colour).len(), 2, "{count} {colour:?}");
            }
        }
    }

    #[test]
    fn heights_are_proportional_to_the_ratios() {
        for count in [3, 49, 512] {
            let ratios = spectrum(count, 0.5);
            let svg = svg(&ratios);
            let [red, green, blue] = COLOURS.map(|colour| rects(&svg, colour)[0].height);
            assert!((f64::from(green) / f64::from(red) - 0.5f64.sqrt()).abs() < 0.005);
            assert!((f64::from(blue) / f64::from(red) - (1.0 / 3.0f64).sqrt()).abs() < 0.005);
            assert!(red > PLOT_HEIGHT / 2, "the scale wastes the plot");
        }
    }

    #[test]
    fn the_box_names_three_shares_and_their_sum() {
        let texts = texts(&svg(&[0.5, 0.25, 0.125, 0.0625, 0.0625]));
        for expected in ["50.0 %", "25.0 %", "12.5 %", "87.5 %", "component 3", "sum"] {
            assert!(
                texts.iter().any(|text| text == expected),
                "{expected}: {texts:?}"
            );
        }
        let one = self::texts(&svg(&[1.0]));
        assert!(one.iter().any(|text| text == "100.0 %"));
        assert!(!one.iter().any(|text| text == "component 2"));
    }

    #[test]
    fn no_bar_reaches_the_box_and_no_text_another() {
        for count in COUNTS {
            for decay in [0.0, 0.5, 1.5] {
                let ratios = spectrum(count, decay);
                let svg = svg(&ratios);
                let frame = &rects(&svg, BOX_LINE)[0];
                let bars = COLOURS.iter().map(|c| rects(&svg, *c).remove(0));
                for bar in bars.take(count).chain(rects(&svg, FURTHER)) {
                    let beside = bar.x + bar.width < frame.x;
                    let below = bar.y > frame.y + frame.height;
                    assert!(beside || below, "{count} components, decay {decay}");
                }
                let sheet = compose(&ratios).unwrap();
                let inks = sheet.inks();
                for (index, a) in inks.iter().enumerate() {
                    for b in &inks[..index] {
                        let apart = a.right <= b.left
                            || b.right <= a.left
                            || a.bottom <= b.top
                            || b.bottom <= a.top;
                        assert!(apart, "{count} components, decay {decay}: {a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn margins_are_equal_and_the_size_is_that_of_a_screen() {
        for count in COUNTS {
            let pixels = compose(&spectrum(count, 1.0)).unwrap().pixels();
            let (width, height) = pixels.dimensions();
            assert!((1500..=1700).contains(&width), "{width}");
            assert!((940..=1040).contains(&height), "{height}");
            super::super::sheet::assert_equal_margins(&pixels);
        }
    }

    #[test]
    fn grid_labels_are_round_and_distinct() {
        for (largest, expected) in [
            (1.0, "80 %"),
            (0.108, "12 %"),
            (0.12, "8 %"),
            (0.14, "7.5 %"),
            (0.006, "0.4 %"),
            (0.0006, "0.06 %"),
        ] {
            let ratios = [largest, 0.0, 0.0];
            let frame = Bounds {
                left: PLOT_WIDTH,
                top: 0,
                right: PLOT_WIDTH,
                bottom: 0,
            };
            let scale = ShareScale::new(&ratios, &ComponentAxis::new(3), frame);
            let labels: Vec<String> = scale.ticks().iter().map(|t| scale.label(*t)).collect();
            assert!(labels.iter().any(|l| l == expected), "{labels:?}");
            assert!((4..=9).contains(&labels.len()), "{labels:?}");
        }
    }

    #[test]
    fn what_is_no_share_is_an_error() {
        assert!(draw_variance(&[], FigureFormat::Png).is_err());
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1, 1.1] {
            let error = draw_variance(&[0.5, wrong], FigureFormat::Png).unwrap_err();
            assert!(error.to_string().contains("component 2"), "{error}");
        }
        assert!(draw_variance(&[0.0, 0.0], FigureFormat::Svg).is_ok());
        assert!(draw_variance(&[1.0, -1e-17], FigureFormat::Svg).is_ok());
    }
}
