//! The variance figure: how much of the variance the components hold.

use std::cell::Cell;

use anyhow::{Result, ensure};
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::element::Rectangle;
use plotters::series::LineSeries;
use plotters::style::{Color, TRANSPARENT};

use super::colormap::Rgb;
use super::paper::{Entry, draw_legend, font, ink, on_paper, px};
use super::sheet::Sheet;
use super::text::Lettering;
use super::{About, FigureFormat, INK, Palette, SOFT_INK};

/// Size of the plot with its labels, and of the space for these, in pixels.
const PLOT: (i32, i32) = (1260, 900);
const LABELS: (i32, i32) = (140, 96);

/// From the plot to the legend on its right.
const LEGEND_GAP: i32 = 28;

/// The first three components with the palette of red, green and blue; the green is lighter than
/// the red, which colour-blind readers see.
const COLOURS: [Rgb; 3] = [[178, 34, 44], [110, 190, 120], [50, 100, 190]];
const FURTHER: Rgb = [112, 114, 120];

const GRID: Rgb = [228, 230, 233];

const TITLE_EM: f32 = 30.0;
const LABEL_EM: f32 = 25.0;
const TICK_EM: f32 = 22.0;

/// The number of points of the curve.
const POINTS: u32 = 120;

/// A sum of squares over its total may come out a little below zero.
const ROUNDING: f64 = 1e-6;

/// Draws the share of variance that the first components hold together, as a curve over their
/// number, with the first three as steps in the colours they have in the maps, and encodes the
/// figure. All steps have the same width, so areas are proportional to shares.
///
/// `ratios` are the components' shares of the variance, as fractions of 1, in descending order.
///
/// # Errors
/// If there are no ratios, or one is negative, above 1 or not a finite number.
pub fn draw_variance(
    ratios: &[f64],
    palette: Palette,
    about: &About,
    format: FigureFormat,
) -> Result<Vec<u8>> {
    let mut sheet = compose(ratios, palette)?;
    sheet.about = about.clone();
    sheet.encode(format)
}

fn compose(ratios: &[f64], palette: Palette) -> Result<Sheet<'static>> {
    ensure!(
        !ratios.is_empty(),
        "a variance figure needs at least one principal component"
    );
    for (number, ratio) in (1..).zip(ratios) {
        ensure!(
            (-ROUNDING..=1.0 + ROUNDING).contains(ratio),
            "the variance ratio of principal component {number} is {ratio}, not between 0 and 1"
        );
    }
    let sums = running_sums(ratios);
    let mut sheet = Sheet::default();
    let (title, further) = (Lettering::strong(TITLE_EM), Lettering::soft(LABEL_EM));
    sheet.text(&heading(&sums), (LABELS.0, -84), title);
    sheet.text(&subheading(&sums), (LABELS.0, -42), further);
    draw_chart(&mut sheet, ratios, &sums, palette)?;
    Ok(sheet)
}

/// The shares of the first 0, 1, 2, ... components together.
fn running_sums(ratios: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    let mut sum = 0.0f64;
    for ratio in ratios {
        sum = (sum + ratio.max(0.0)).min(1.0);
        sums.push(sum);
    }
    sums
}

fn heading(sums: &[f64]) -> String {
    let count = (sums.len() - 1).min(3);
    let components = match count {
        1 => "only component holds",
        2 => "two components hold",
        _ => "three components hold",
    };
    let share = percent(sums[count]);
    format!("The map's {components} {share} of the variance")
}

/// How much is left, and how many components hold most of the variance.
fn subheading(sums: &[f64]) -> String {
    let count = sums.len() - 1;
    if count <= 3 {
        // A basis holds the components that it was saved with.
        let is_all = sums[count] == 0.0 || sums[count] > 0.999;
        let further = if is_all { "There are" } else { "The basis has" };
        return format!("{further} no further components");
    }
    let needed = sums.iter().position(|sum| *sum >= 0.9);
    let most = match needed {
        Some(needed) => format!("; {needed} of {count} hold 90 %"),
        None => String::new(),
    };
    let rest = percent(sums[count] - sums[3]);
    match count {
        4 => format!("One further component holds {rest}{most}"),
        _ => format!("{} further components hold {rest}{most}", count - 3),
    }
}

fn draw_chart(sheet: &mut Sheet<'_>, ratios: &[f64], sums: &[f64], palette: Palette) -> Result<()> {
    let (count, shown) = (ratios.len(), components(palette));
    let colours = shown.each_ref().map(|(_, colour)| *colour);
    let (first, last) = (0.72, (count as f64 * 1.08).max(1.4));
    let labelled = Cell::new(0);
    // On a logarithmic axis equal factors are equally wide; the steps of 2 and 3 stay apart.
    let half_step = (last / first).powf(0.022).min(1.18);
    on_paper(sheet, (0, 0), PLOT, |area| {
        let mut chart = ChartBuilder::on(area)
            .y_label_area_size(px(LABELS.0))
            .x_label_area_size(px(LABELS.1))
            .build_cartesian_2d((first..last).log_scale(), 0.0..1.0)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(ink(GRID).stroke_width(px(1) as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(ink(SOFT_INK).stroke_width(px(2) as u32))
            .set_all_tick_mark_size(px(8))
            .x_labels(60)
            .x_label_formatter(&|number| tick(*number, &labelled))
            .y_labels(6)
            .y_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
            .label_style(font(TICK_EM, SOFT_INK))
            .axis_desc_style(font(LABEL_EM, INK))
            .x_desc("number of components (logarithmic scale)")
            .y_desc("share of variance that they hold together")
            .draw()?;
        let curve = numbers(count).map(|number| (number as f64, sums[number]));
        let line = ink(FURTHER).stroke_width(px(3) as u32);
        if count > 1 {
            chart.draw_series(LineSeries::new(curve, line))?;
        }
        for (index, colour) in colours.into_iter().enumerate().take(count) {
            let number = (index + 1) as f64;
            let corners = [
                (number / half_step, sums[index]),
                (number * half_step, sums[index + 1]),
            ];
            chart.draw_series([Rectangle::new(corners, ink(colour).filled())])?;
        }
        Ok(())
    })?;
    let entries = ratios.iter().zip(shown);
    let entries = entries.map(|(ratio, (name, colour))| Entry {
        name: format!("{name}: {}", percent(*ratio)),
        mark: [(-11.0, -11.0), (11.0, -11.0), (11.0, 11.0), (-11.0, 11.0)].into(),
        colour,
    });
    let origin = (PLOT.0 + LEGEND_GAP, 0);
    draw_legend(sheet, origin, (LABEL_EM, 36), entries.collect())
}

/// The names and colours of the first three components. Those that are no colour of their own have
/// that of their upper end.
fn components(palette: Palette) -> [(String, Rgb); 3] {
    std::array::from_fn(|index| {
        let number = index + 1;
        match palette {
            Palette::Rgb => (format!("component {number}"), COLOURS[index]),
            Palette::Oklab => {
                let [low, high] = palette.ends()[index];
                let colour = palette.ramp(index).get_pixel(0, 0).0;
                (format!("component {number}, {low} to {high}"), colour)
            }
        }
    })
}

/// Numbers of components from 1 to `count`, evenly spread on a logarithmic axis.
fn numbers(count: usize) -> impl Iterator<Item = usize> {
    let part = |point: u32| f64::from(point) / f64::from(POINTS);
    let mut last = 0;
    (0..=POINTS)
        .map(move |point| (count as f64).powf(part(point)).round() as usize)
        .filter(move |number| std::mem::replace(&mut last, *number) != *number)
}

/// The label of a tick; only 1, 2, 3 and 5 times a power of ten have room for one. plotters asks
/// twice for the powers.
fn tick(number: f64, last: &Cell<usize>) -> String {
    let number = number.round() as usize;
    match number.to_string().trim_end_matches('0') {
        "1" | "2" | "5" if last.replace(number) != number => number.to_string(),
        "3" if number == 3 => number.to_string(),
        _ => String::new(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios proportional to `k^-decay`.
    fn spectrum(count: usize, decay: f64) -> Vec<f64> {
        let powers: Vec<f64> = (1..=count).map(|k| (k as f64).powf(-decay)).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    const COUNTS: [usize; 9] = [1, 2, 3, 4, 32, 61, 512, 1280, 4096];

    #[test]
    fn the_steps_are_equally_wide_and_as_high_as_the_ratios() {
        for count in COUNTS {
            let ratios = spectrum(count, 0.5);
            let sheet = compose(&ratios, Palette::Rgb).unwrap();
            let plot = f64::from(PLOT.1 - LABELS.1);
            let mut below = plot;
            for (ratio, colour) in ratios.iter().zip(COLOURS) {
                let [step] = sheet.fills_of(colour)[..] else {
                    panic!("{count}: a step");
                };
                let first = sheet.fills_of(COLOURS[0])[0];
                let (width, first) = (step.right - step.left, first.right - first.left);
                assert!(width.abs_diff(first) <= 1 && width > 20, "{count} {width}");
                let height = f64::from(step.bottom - step.top);
                assert!((height - (ratio * plot).max(1.0)).abs() < 1.5);
                assert!(
                    (f64::from(step.bottom) - below).abs() < 1.5,
                    "stands on the one before"
                );
                below = f64::from(step.top);
                let swatch = sheet.shapes_of(colour);
                assert!(swatch.len() == 1 && swatch[0].left > PLOT.0);
            }
        }
    }

    #[test]
    fn the_title_and_the_legend_say_the_shares() {
        let texts = compose(&[0.5, 0.25, 0.125, 0.0625, 0.0625], Palette::Rgb)
            .unwrap()
            .texts();
        for expected in [
            "The map's three components hold 87.5 % of the variance",
            "2 further components hold 12.5 %; 4 of 5 hold 90 %",
            "component 1: 50.0 %",
            "component 2: 25.0 %",
            "component 3: 12.5 %",
        ] {
            assert!(
                texts.iter().any(|text| text == expected),
                "{expected}: {texts:?}"
            );
        }
        let one = compose(&[1.0], Palette::Rgb).unwrap().texts();
        assert_eq!(
            one[0],
            "The map's only component holds 100.0 % of the variance"
        );
        assert_eq!(one[1], "There are no further components");
        assert!(
            one.iter().all(|text| !text.starts_with("component 2")),
            "{one:?}"
        );
        // A basis of another run may hold less than all: 90 % is never reached.
        let foreign = compose(&[0.2, 0.1, 0.1, 0.1], Palette::Rgb)
            .unwrap()
            .texts();
        assert_eq!(foreign[1], "One further component holds 10.0 %");
        let three = compose(&[0.2, 0.1, 0.1], Palette::Rgb).unwrap().texts();
        assert_eq!(three[1], "The basis has no further components");
    }

    #[test]
    fn the_curve_ends_at_all_components_and_no_text_meets_another() {
        for count in COUNTS {
            for decay in [0.0, 0.5, 1.5] {
                let sheet = compose(&spectrum(count, decay), Palette::Rgb).unwrap();
                if count > 1 {
                    let curve = sheet.shapes_of(FURTHER);
                    assert!(curve.len() == 1 && curve[0].top.abs() <= 3, "{curve:?}");
                }
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
            let pixels = compose(&spectrum(count, 1.0), Palette::Rgb)
                .unwrap()
                .pixels();
            let (width, height) = pixels.dimensions();
            assert!((1500..=1700).contains(&width), "{width}");
            assert!((940..=1140).contains(&height), "{height}");
            super::super::sheet::assert_equal_margins(&pixels);
        }
    }

    #[test]
    fn the_curve_has_each_number_once() {
        assert_eq!(numbers(1).collect::<Vec<_>>(), [1]);
        assert_eq!(numbers(4).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let many: Vec<usize> = numbers(4096).collect();
        assert!(many.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((many[0], many[many.len() - 1]), (1, 4096));
    }

    #[test]
    fn what_is_no_share_is_an_error() {
        let draw = |ratios: &[f64]| {
            draw_variance(ratios, Palette::Rgb, &About::default(), FigureFormat::Svg)
        };
        assert!(draw(&[]).is_err());
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1, 1.1] {
            let error = draw(&[0.5, wrong]).unwrap_err();
            assert!(error.to_string().contains("component 2"), "{error}");
        }
        assert!(draw(&[0.0, 0.0]).is_ok());
        assert!(draw(&[1.0, -1e-17]).is_ok());
    }

    #[test]
    fn components_have_the_colours_and_names_of_the_palette() {
        let sheet = compose(&[0.5, 0.25, 0.125, 0.125], Palette::Oklab).unwrap();
        for colour in COLOURS {
            assert!(sheet.fills_of(colour).is_empty() && sheet.shapes_of(colour).is_empty());
        }
        for (number, ends) in [
            (1, "dark to light: 50.0 %"),
            (2, "blue to yellow: 25.0 %"),
            (3, "green to red: 12.5 %"),
        ] {
            let mut components = [0.5; 3];
            components[number - 1] = 1.0;
            let colour = Palette::Oklab.painted(components);
            assert_eq!(sheet.fills_of(colour).len(), 1);
            assert_eq!(sheet.shapes_of(colour).len(), 1);
            let name = format!("component {number}, {ends}");
            assert!(sheet.texts().contains(&name), "{name}: {:?}", sheet.texts());
        }
    }
}
