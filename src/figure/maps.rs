//! The map figure: a column per image, its classes above, the input, its map
//! and further rows beneath.

use anyhow::{Result, bail};
use image::RgbImage;

use super::FigureFormat;
use super::ramp::Rgb;
use super::sheet::{Scaling, Sheet};
use super::text::{Align, Bounds, Lettering, Weight, one_line};

/// The most images that one figure holds.
pub const MOST_IMAGES: usize = 64;

/// More columns would leave titles too small to read on a laptop's screen or
/// across a landscape page.
const COLUMNS_PER_BLOCK: usize = 8;

/// Length of a panel's shorter side, in pixels: twice the usual input's.
const PANEL_SIDE: f64 = 448.0;

/// A panel's longer side is at most this many times [`PANEL_SIDE`].
const LONGEST_PANEL: f64 = 3.0;

/// White between columns, between rows, and between blocks, in pixels.
const COLUMN_GAP: i32 = 32;
const ROW_GAP: i32 = 16;
const BLOCK_GAP: i32 = 56;

/// From the baseline of the last title line to the panel, and between title lines.
const TITLE_GAP: i32 = 16;
const TITLE_PITCH: i32 = 31;

/// From the baseline of a row's name (it reads upwards) to its panels.
const NAME_GAP: i32 = 18;

const TITLE_EM: f32 = 25.0;
const FURTHER_EM: f32 = 22.0;
const NAME_EM: f32 = 22.0;

/// A title too long for its cell is set smaller, down to this part, then cut.
const SMALLEST_TITLE: f32 = 0.78;

/// Part of the cell's width that a title may fill. The viewer of an SVG may
/// have none but a wider font.
const TITLE_ROOM: f32 = 1.0;
const TITLE_ROOM_SVG: f32 = 0.86;

const INK: Rgb = [26, 26, 28];
const SOFT_INK: Rgb = [92, 94, 100];
/// A line around each panel, for panels that are white at their border.
const HAIRLINE: Rgb = [214, 216, 220];

/// A picture of a column.
#[derive(Debug, Clone)]
pub struct Panel {
    pub image: RgbImage,
    /// How it is brought to the size of its cell.
    pub scaling: Scaling,
}

/// What a figure shows of one image.
#[derive(Debug, Clone)]
pub struct Column {
    /// Lines above the first panel, the first one set stronger: `timber_wolf: 0.91`.
    pub title: Vec<String>,
    /// Top to bottom. They show the same area, so all take the size of the first.
    pub panels: Vec<Panel>,
}

/// A figure of one column per image, in the order of the images.
#[derive(Debug, Clone, Default)]
pub struct MapFigure {
    pub columns: Vec<Column>,
    /// Names of the panels' rows, left of them; none at all is allowed.
    pub row_names: Vec<String>,
}

/// Draws the figure and encodes it.
///
/// A column is at least 448 pixels wide. More columns than fit a readable row
/// (8) wrap into further blocks, filled as evenly as they can be.
///
/// # Errors
/// If the figure has no column or more than [`MOST_IMAGES`], if columns differ in
/// their number of panels or have none, if a panel is empty, if there are row
/// names but not one per row, or if the page is larger than the format holds.
pub fn draw_maps(figure: &MapFigure, format: FigureFormat) -> Result<Vec<u8>> {
    compose(figure, format)?.encode(format)
}

/// Places all marks of the figure.
fn compose(figure: &MapFigure, format: FigureFormat) -> Result<Sheet<'_>> {
    let rows = check(figure)?;
    let sizes: Vec<(i32, i32)> = figure.columns.iter().map(panel_size).collect();
    let cell_width = largest(sizes.iter().map(|size| size.0), PANEL_SIDE as i32);
    let cell_height = largest(sizes.iter().map(|size| size.1), 1);
    let lines = largest(figure.columns.iter().map(|c| c.title.len() as i32), 0);
    let title_height = match lines {
        0 => 0,
        _ => (lines - 1) * TITLE_PITCH + TITLE_EM as i32 + TITLE_GAP,
    };
    let row_pitch = cell_height + ROW_GAP;
    let block_pitch = title_height + rows as i32 * row_pitch - ROW_GAP + BLOCK_GAP;
    let room = cell_width as f32
        * match format {
            FigureFormat::Svg => TITLE_ROOM_SVG,
            FigureFormat::Jpg | FigureFormat::Png => TITLE_ROOM,
        };

    let mut sheet = Sheet::default();
    let mut columns = figure.columns.iter().zip(&sizes);
    for (block, filled) in blocks(figure.columns.len()).into_iter().enumerate() {
        let top = block as i32 * block_pitch + title_height;
        for (row, name) in figure.row_names.iter().enumerate() {
            let style = Lettering::new(Weight::Regular, NAME_EM, SOFT_INK)
                .aligned(Align::Middle)
                .upwards();
            let name = style.shortened(&one_line(name), cell_height as f32);
            let middle = top + row as i32 * row_pitch + cell_height / 2;
            sheet.text(&name, (-NAME_GAP, middle), style);
        }
        for (place, (column, &(width, height))) in columns.by_ref().take(filled).enumerate() {
            let left = place as i32 * (cell_width + COLUMN_GAP);
            place_title(&mut sheet, &column.title, (left, top - TITLE_GAP), room);
            for (row, panel) in column.panels.iter().enumerate() {
                let top = top + row as i32 * row_pitch;
                let area = Bounds {
                    left,
                    top,
                    right: left + width,
                    bottom: top + height,
                };
                sheet.fill(outline(area), HAIRLINE);
                sheet.picture(area, &panel.image, panel.scaling);
            }
        }
    }
    Ok(sheet)
}

/// Sets the lines of a title, the last one with its baseline through `at`.
fn place_title(sheet: &mut Sheet<'_>, title: &[String], (left, base): (i32, i32), room: f32) {
    let title: Vec<String> = title.iter().map(|line| one_line(line)).collect();
    let styles: Vec<Lettering> = (0..title.len())
        .map(|line| match line {
            0 => Lettering::new(Weight::Semibold, TITLE_EM, INK),
            _ => Lettering::new(Weight::Regular, FURTHER_EM, SOFT_INK),
        })
        .collect();
    // All lines of a title shrink together, or their order of size would turn.
    let longest = title
        .iter()
        .zip(&styles)
        .map(|(text, style)| style.length(text))
        .fold(0.0, f32::max);
    let scale = (room / longest).clamp(SMALLEST_TITLE, 1.0);
    for (line, (text, style)) in title.iter().zip(styles).enumerate() {
        let style = Lettering {
            em: style.em * scale,
            ..style
        };
        let above = (title.len() - 1 - line) as i32 * TITLE_PITCH;
        sheet.text(&style.shortened(text, room), (left, base - above), style);
    }
}

/// The number of panels in each column, if the figure can be drawn.
fn check(figure: &MapFigure) -> Result<usize> {
    let count = figure.columns.len();
    let Some(first) = figure.columns.first() else {
        bail!("a map figure needs at least one image");
    };
    if count > MOST_IMAGES {
        bail!("a map figure holds at most {MOST_IMAGES} images, not {count}: draw several");
    }
    let rows = first.panels.len();
    if rows == 0 {
        bail!("a map figure needs at least one panel per image");
    }
    for (number, column) in figure.columns.iter().enumerate() {
        if column.panels.len() != rows {
            bail!(
                "image {} of the map figure has {} panels where the first has {rows}",
                number + 1,
                column.panels.len()
            );
        }
        if let Some(row) = column.panels.iter().position(|p| p.image.is_empty()) {
            bail!(
                "panel {} of image {} in the map figure is empty",
                row + 1,
                number + 1
            );
        }
    }
    if !figure.row_names.is_empty() && figure.row_names.len() != rows {
        bail!(
            "the map figure has {rows} rows but {} row names",
            figure.row_names.len()
        );
    }
    Ok(rows)
}

/// The number of columns in each block: as even as can be, fuller ones first.
fn blocks(columns: usize) -> Vec<usize> {
    let count = columns.div_ceil(COLUMNS_PER_BLOCK);
    (0..count)
        .map(|block| columns / count + usize::from(block < columns % count))
        .collect()
}

/// Width and height at which the panels of a column are drawn, in the first one's aspect ratio.
fn panel_size(column: &Column) -> (i32, i32) {
    let Some(panel) = column.panels.first() else {
        return (0, 0);
    };
    let (width, height) = (
        f64::from(panel.image.width()),
        f64::from(panel.image.height()),
    );
    let (shorter, longer) = (width.min(height), width.max(height));
    let scale = (PANEL_SIDE / shorter).min(LONGEST_PANEL * PANEL_SIDE / longer);
    let drawn = |side: f64| ((side * scale).round() as i32).max(1);
    (drawn(width), drawn(height))
}

fn largest(lengths: impl Iterator<Item = i32>, least: i32) -> i32 {
    lengths.fold(least, i32::max)
}

/// The area and one pixel around it.
fn outline(area: Bounds) -> Bounds {
    Bounds {
        left: area.left - 1,
        top: area.top - 1,
        right: area.right + 1,
        bottom: area.bottom + 1,
    }
}
