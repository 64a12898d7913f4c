//! A sheet as a backend of plotters, which draws axes, meshes and legends on it.
//!
//! plotters counts in whole units. A pixel has [`UNITS`] of them, so that curves keep their
//! slopes and letters their places.

use std::convert::Infallible;
use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{EmptyElement, Polygon};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{FontDesc, RGBColor, TextStyle, register_font};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle, FontTransform, rasterizer,
};

use super::INK;
use super::colormap::Rgb;
use super::sheet::Sheet;
use super::text::{
    Align, Bounds, CAP_HEIGHT, FAMILIES, LINE_HEIGHT, Lettering, REGULAR, SEMIBOLD, Weight,
};

/// Units of plotters in a pixel.
pub const UNITS: i32 = 16;

/// A legend may be this long and wide, in pixels.
const ROOM: i32 = 10_000;

/// plotters takes a line of text to be the size of its font divided by this.
const LINES_OF_SIZE: f32 = 1.24;

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// A part of a sheet.
pub struct Paper<'s, 'a> {
    sheet: &'s mut Sheet<'a>,
    /// Its left upper corner on the sheet, pixels.
    origin: (i32, i32),
    /// In units.
    size: (u32, u32),
}

/// Pixels in units of plotters.
pub fn px(pixels: i32) -> i32 {
    pixels * UNITS
}

/// Draws with plotters on a part of a sheet, given by its left upper corner and size in pixels.
///
/// # Errors
/// Returns the error of plotters.
pub fn on_paper<'s, 'a: 's>(
    sheet: &'s mut Sheet<'a>,
    origin: (i32, i32),
    (width, height): (i32, i32),
    draw: impl FnOnce(
        &DrawingArea<Paper<'s, 'a>, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<Infallible>>,
) -> Result<()> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        let fonts = [(FontStyle::Normal, REGULAR), (FontStyle::Bold, SEMIBOLD)];
        for (style, file) in fonts {
            // A font that is missing is an error of the first text.
            let _ = register_font(FAMILIES, style, file);
        }
    });
    let size = (px(width).unsigned_abs(), px(height).unsigned_abs());
    let paper = Paper {
        sheet,
        origin,
        size,
    };
    draw(&paper.into_drawing_area()).map_err(|error| anyhow!("cannot draw the figure: {error}"))
}

/// A line of a legend: the corners of its mark around its middle, in pixels, and its colour.
pub struct Entry {
    pub name: String,
    pub mark: Vec<(f64, f64)>,
    pub colour: Rgb,
}

/// Draws a legend whose left upper corner is at `origin`, its marks in a column of that width.
///
/// # Errors
/// Returns the error of plotters.
pub fn draw_legend(
    sheet: &mut Sheet<'_>,
    origin: (i32, i32),
    (em, column): (f32, i32),
    entries: Vec<Entry>,
) -> Result<()> {
    on_paper(sheet, origin, (ROOM, ROOM), |area| {
        let mut chart = ChartBuilder::on(area).build_cartesian_2d(0..1, 0..1)?;
        for entry in entries {
            let units = |origin: i32, pixels: f64| origin + (pixels * f64::from(UNITS)) as i32;
            let nothing = std::iter::empty::<EmptyElement<(i32, i32), _>>();
            let series = chart.draw_series(nothing)?.label(entry.name);
            series.legend(move |(x, y)| {
                let x = x + px(column / 3);
                let corners = entry.mark.iter().map(|at| (units(x, at.0), units(y, at.1)));
                Polygon::new(corners.collect::<Vec<_>>(), ink(entry.colour))
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::Coordinate(0, 0))
            .margin(0)
            .legend_area_size(px(column))
            .label_font(font(em, INK))
            .draw()
    })
}

/// A colour for plotters.
pub fn ink([r, g, b]: Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

/// The embedded font for plotters.
pub fn font(em: f32, colour: Rgb) -> TextStyle<'static> {
    let size = f64::from(em * LINE_HEIGHT) * f64::from(UNITS);
    FontDesc::from((FAMILIES, size)).color(&ink(colour))
}

fn rgb(colour: BackendColor) -> Rgb {
    let (r, g, b) = colour.rgb;
    [r, g, b]
}

/// The whole pixel nearest to a place in units.
fn pixel(units: i32) -> i32 {
    (units as f32 / UNITS as f32).round() as i32
}

impl DrawingBackend for Paper<'_, '_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, colour: BackendColor) -> Drawn {
        self.fill_polygon([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)], &colour)
    }

    /// Axes, ticks and meshes are whole pixels; plotters' outlines are as wide as the line.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        let path: Vec<BackendCoord> = path.into_iter().collect();
        let width = style.stroke_width() as i32;
        match path[..] {
            [(x0, y0), (x1, y1)] if x0 == x1 || y0 == y1 => {
                let (x, y) = (x0.min(x1) - width / 2, y0.min(y1) - width / 2);
                let (along, down) = ((x1 - x0).abs() + width, (y1 - y0).abs() + width);
                self.draw_rect((x, y), (x + along, y + down), style, true)
            }
            _ => {
                let outline = rasterizer::polygonize(&path, style.stroke_width());
                self.fill_polygon(outline, &style.color())
            }
        }
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn {
        if style.color().alpha == 0.0 {
            return Ok(());
        }
        if !fill {
            return rasterizer::draw_rect(self, (left, top), (right, bottom), style, fill);
        }
        let (left, top) = (pixel(left), pixel(top));
        let size = ((pixel(right) - left).max(1), (pixel(bottom) - top).max(1));
        let area = Bounds::sized((left, top), size);
        let area = area.shifted(self.origin.0, self.origin.1);
        self.sheet.fill(area, rgb(style.color()));
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Drawn {
        if style.color().alpha > 0.0 {
            let pixels = |origin: i32, units: i32| origin as f32 + units as f32 / UNITS as f32;
            let (left, top) = self.origin;
            let corners = corners
                .into_iter()
                .map(|(x, y)| (pixels(left, x), pixels(top, y)));
            self.sheet.shape(corners.collect(), rgb(style.color()));
        }
        Ok(())
    }

    /// A capital's middle is the middle of what plotters takes for the line.
    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Drawn {
        let line = style.size() as f32 / UNITS as f32;
        let em = line / LINE_HEIGHT;
        let half = line / LINES_OF_SIZE / 2.0;
        let drop = CAP_HEIGHT * em / 2.0
            + match style.anchor().v_pos {
                VPos::Top => half,
                VPos::Center => 0.0,
                VPos::Bottom => -half,
            };
        let weight = match style.style() {
            FontStyle::Bold => Weight::Semibold,
            _ => Weight::Regular,
        };
        let align = match style.anchor().h_pos {
            HPos::Left => Align::Start,
            HPos::Center => Align::Middle,
            HPos::Right => Align::End,
        };
        let lettering = Lettering::new(weight, em, rgb(style.color())).aligned(align);
        let (x, y) = (self.origin.0 + pixel(x), self.origin.1 + pixel(y));
        let drop = drop.round() as i32;
        match style.transform() {
            FontTransform::None => self.sheet.text(text, (x, y + drop), lettering),
            _ => self.sheet.text(text, (x + drop, y), lettering.upwards()),
        }
        Ok(())
    }
}
