//! The map figure: a column per image, its classes above, the input, its map
//! and further rows beneath.

use std::rc::Rc;

use anyhow::{Result, bail};

use super::colormap::Rgb;
use super::sheet::{JPEG_LONGEST_SIDE, MARGIN, Picture, Scaling, Sheet};
use super::text::{Align, Bounds, Lettering, Weight, one_line};
use super::{About, FigureFormat, INK, SOFT_INK};

/// The most images that one figure holds.
pub const MOST_IMAGES: usize = 64;

/// Images side by side where nothing else is said: more would leave titles too small
/// to read on a laptop's screen or across a landscape page.
pub const COLUMNS: usize = 8;

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
const TITLE_PITCH: f32 = 31.0;

/// From the baseline of a row's name (it reads upwards) to its panels.
const NAME_GAP: i32 = 18;

const TITLE_EM: f32 = 25.0;
const FURTHER_EM: f32 = 22.0;
const NAME_EM: f32 = 22.0;
const CAPTION_EM: f32 = 16.0;

/// From the last panels to the caption, and between its lines.
const CAPTION_GAP: i32 = 10;
const CAPTION_PITCH: i32 = 24;
/// Room for a caption of some lines, in the highest figure.
const CAPTION_ROOM: i32 = 200;

/// A title too long for its cell is set smaller, down to this part, then cut.
const SMALLEST_TITLE: f32 = 0.78;

/// Part of the cell's width that a title may fill. The viewer of an SVG may
/// have none but a wider font.
const TITLE_ROOM: f32 = 1.0;
const TITLE_ROOM_SVG: f32 = 0.82;

/// A line around each panel, for panels that are white at their border.
const HAIRLINE: Rgb = [214, 216, 220];

/// A picture of a column.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// What is drawn, RGB bytes row by row.
    pub image: Rc<dyn Picture + 'a>,
    /// How it is brought to the size of its cell.
    pub scaling: Scaling,
}

impl<'a> Panel<'a> {
    /// A panel of that picture.
    pub fn new(image: impl Picture + 'a, scaling: Scaling) -> Panel<'a> {
        Panel {
            image: Rc::new(image),
            scaling,
        }
    }
}

/// What a figure shows of one image.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    /// Lines above the first panel, the first one set stronger: `timber_wolf: 0.91`.
    pub title: Vec<String>,
    /// Top to bottom. They show the same area, so all take the size of the first.
    pub panels: Vec<Panel<'a>>,
}

/// A figure of one column per image, in the order of the images.
#[derive(Debug, Clone)]
pub struct MapFigure<'a> {
    /// One per image, left to right, then wrapped.
    pub columns: Vec<Column<'a>>,
    /// Names of the panels' rows, left of them; none at all is allowed.
    pub row_names: Vec<String>,
    /// A sentence in small letters below all images; may be empty.
    pub caption: String,
    /// Images side by side at most; the rest wraps.
    pub most_columns: usize,
    /// What the file says of its origin.
    pub about: About,
}

impl Default for MapFigure<'_> {
    fn default() -> Self {
        MapFigure {
            columns: Vec::new(),
            row_names: Vec::new(),
            caption: String::new(),
            most_columns: COLUMNS,
            about: About::default(),
        }
    }
}

/// Draws the figure and encodes it.
///
/// A column is at least 448 pixels wide. More columns than fit a readable row
/// ([`COLUMNS`]) wrap into further blocks, filled as evenly as they can be.
///
/// # Errors
/// If the figure has no column or more than [`MOST_IMAGES`], if columns differ in
/// their number of panels or have none, if a panel is empty, if there are row
/// names but not one per row, or if the page is larger than the format holds.
pub fn draw_maps(figure: &MapFigure<'_>, format: FigureFormat) -> Result<Vec<u8>> {
    let mut sheet = compose(figure, format)?;
    sheet.about = figure.about.clone();
    sheet.encode(format)
}

/// Places all marks of the figure.
fn compose<'a>(figure: &'a MapFigure<'_>, format: FigureFormat) -> Result<Sheet<'a>> {
    let rows = check(figure)?;
    let sizes: Vec<(i32, i32)> = figure.columns.iter().map(panel_size).collect();
    let cell_width = largest(sizes.iter().map(|size| size.0), PANEL_SIDE as i32);
    let cell_height = largest(sizes.iter().map(|size| size.1), 1);
    let lines = largest(figure.columns.iter().map(|c| c.title.len() as i32), 0);
    let room = cell_width as f32
        * match format {
            FigureFormat::Svg => TITLE_ROOM_SVG,
            FigureFormat::Jpg | FigureFormat::Png => TITLE_ROOM,
        };
    let scale = title_scale(figure, room);
    let title_pitch = (TITLE_PITCH * scale).round() as i32;
    let title_height = match lines {
        0 => 0,
        _ => (lines - 1) * title_pitch + TITLE_EM as i32 + TITLE_GAP,
    };
    let row_pitch = cell_height + ROW_GAP;
    let block_pitch = title_height + rows as i32 * row_pitch - ROW_GAP + BLOCK_GAP;

    let mut sheet = Sheet::default();
    let blocks = blocks(figure.columns.len(), figure.most_columns);
    let bottom = blocks.len() as i32 * block_pitch - BLOCK_GAP;
    let side_by_side = blocks.iter().copied().max().unwrap_or(1) as i32;
    let width = side_by_side * (cell_width + COLUMN_GAP) - COLUMN_GAP;
    let style = Lettering::new(Weight::Regular, CAPTION_EM, SOFT_INK);
    let room_of_caption = room * width as f32 / cell_width as f32;
    for (line, text) in (1..).zip(lines_of(&one_line(&figure.caption), style, room_of_caption)) {
        sheet.text(
            &text,
            (0, bottom + CAPTION_GAP + line * CAPTION_PITCH),
            style,
        );
    }
    let mut columns = figure.columns.iter().zip(&sizes);
    for (block, filled) in blocks.into_iter().enumerate() {
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
            for (line, text) in column.title.iter().enumerate() {
                let style = title_style(line, scale);
                let text = style.shortened(&one_line(text), room);
                let above = (column.title.len() - 1 - line) as i32 * title_pitch;
                sheet.text(&text, (left, top - TITLE_GAP - above), style);
            }
            for (row, panel) in column.panels.iter().enumerate() {
                let top = top + row as i32 * row_pitch;
                let area = Bounds {
                    left,
                    top,
                    right: left + width,
                    bottom: top + height,
                };
                sheet.fill(outline(area), HAIRLINE);
                sheet.picture(area, &*panel.image, panel.scaling);
            }
        }
    }
    Ok(sheet)
}

/// Words as lines, as many in each as there is room for.
fn lines_of(text: &str, style: Lettering, room: f32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match (longer, lines.last_mut()) {
            (Some(longer), Some(line)) if style.length(&longer) <= room => *line = longer,
            _ => lines.push(style.shortened(word, room)),
        }
    }
    lines
}

/// The part of their full size at which the titles of the figure are set: one for
/// all, so that none looks more important than another.
fn title_scale(figure: &MapFigure<'_>, room: f32) -> f32 {
    let longest = figure
        .columns
        .iter()
        .flat_map(|column| column.title.iter().enumerate())
        .map(|(line, text)| title_style(line, 1.0).length(&one_line(text)))
        .fold(room, f32::max);
    (room / longest).max(SMALLEST_TITLE)
}

fn title_style(line: usize, scale: f32) -> Lettering {
    let (weight, em, colour) = match line {
        0 => (Weight::Semibold, TITLE_EM, INK),
        _ => (Weight::Regular, FURTHER_EM, SOFT_INK),
    };
    Lettering::new(weight, em * scale, colour)
}

/// The number of panels in each column, if the figure can be drawn.
fn check(figure: &MapFigure<'_>) -> Result<usize> {
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
        if let Some(row) = column.panels.iter().position(|panel| is_empty(panel)) {
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

fn is_empty(panel: &Panel<'_>) -> bool {
    let (width, height) = panel.image.size();
    width == 0 || height == 0
}

/// The number of columns in each block: as even as can be, fuller ones first.
fn blocks(columns: usize, most: usize) -> Vec<usize> {
    let count = columns.div_ceil(most.max(1));
    (0..count)
        .map(|block| columns / count + usize::from(block < columns % count))
        .collect()
}

/// The most images that one figure holds: [`MOST_IMAGES`], or fewer where so many rows of
/// `columns` pictures of that size (width, height) would be higher than a JPEG can be.
pub fn most_images(
    picture: (u32, u32),
    rows: usize,
    title_lines: usize,
    columns: usize,
    format: FigureFormat,
) -> usize {
    if format != FigureFormat::Jpg {
        return MOST_IMAGES;
    }
    let title = title_lines as i32 * TITLE_PITCH as i32 + TITLE_EM as i32 + TITLE_GAP;
    let block = title + rows as i32 * (drawn_size(picture).1 + ROW_GAP) + BLOCK_GAP;
    let blocks = (JPEG_LONGEST_SIDE as i32 - 2 * MARGIN - CAPTION_ROOM) / block;
    (columns * blocks.max(1) as usize).clamp(1, MOST_IMAGES)
}

/// Width and height at which the panels of a column are drawn, in the first one's aspect ratio.
fn panel_size(column: &Column<'_>) -> (i32, i32) {
    let first = column.panels.first();
    first.map_or((0, 0), |panel| drawn_size(panel.image.size()))
}

/// Width and height at which a picture is drawn.
fn drawn_size((width, height): (u32, u32)) -> (i32, i32) {
    let (width, height) = (f64::from(width), f64::from(height));
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    const PANEL: [u8; 3] = [40, 60, 90];

    fn column(title: &[&str], rows: usize) -> Column<'static> {
        let image = RgbImage::from_pixel(2, 2, image::Rgb(PANEL));
        let panel = Panel::new(image, Scaling::Blocks);
        Column {
            title: title.iter().map(|line| (*line).to_owned()).collect(),
            panels: vec![panel; rows],
        }
    }

    fn figure(images: usize, rows: usize) -> MapFigure<'static> {
        let title = ["timber_wolf: 0.91", "white_wolf: 0.05", "malamute: 0.01"];
        MapFigure {
            columns: vec![column(&title, rows); images],
            ..MapFigure::default()
        }
    }

    fn pixels(figure: &MapFigure<'_>) -> RgbImage {
        compose(figure, FigureFormat::Png).unwrap().pixels()
    }

    /// Start and end of the runs of panel pixels on a line through the picture.
    fn runs(line: impl Iterator<Item = image::Rgb<u8>>) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (at, pixel) in line.enumerate() {
            if pixel.0 == PANEL {
                match runs.last_mut() {
                    Some(run) if run.1 == at => run.1 = at + 1,
                    _ => runs.push((at, at + 1)),
                }
            }
        }
        runs
    }

    fn panels_across(pixels: &RgbImage, y: usize) -> Vec<(usize, usize)> {
        runs((0..pixels.width()).map(|x| *pixels.get_pixel(x, y as u32)))
    }

    fn panels_down(pixels: &RgbImage, x: usize) -> Vec<(usize, usize)> {
        runs((0..pixels.height()).map(|y| *pixels.get_pixel(x as u32, y)))
    }

    #[test]
    fn a_page_drawn_in_bands_is_the_page_drawn_at_once() {
        let figure = figure(17, 2);
        let sheet = compose(&figure, FigureFormat::Png).unwrap();
        let (bands, whole) = (sheet.pixels(), sheet.pixels_at_once());
        assert!(sheet.bands() > 4);
        assert_eq!(bands.dimensions(), whole.dimensions());
        assert!(bands == whole);
    }

    #[test]
    fn a_figure_holds_no_more_than_its_format() {
        let figure = |columns: usize, rows: usize| {
            let most = most_images((448, 448), rows, 3, columns, FigureFormat::Jpg);
            let figure = MapFigure {
                most_columns: columns,
                ..figure(most, rows)
            };
            (
                most,
                compose(&figure, FigureFormat::Jpg).unwrap().pixel_height(),
            )
        };
        assert_eq!(figure(8, 2).0, 64);
        for (columns, rows) in [(1, 2), (1, 7), (2, 5)] {
            let (most, height) = figure(columns, rows);
            assert!(
                most < 64 && height <= 65_535,
                "{columns} {rows}: {most}, {height}"
            );
            assert!(height > 60_000, "{columns} {rows}: {most}, {height}");
        }
    }

    #[test]
    fn images_wrap_into_even_blocks() {
        for (images, expected) in [
            (1, vec![1]),
            (4, vec![4]),
            (8, vec![8]),
            (9, vec![5, 4]),
            (17, vec![6, 6, 5]),
            (40, vec![8; 5]),
            (64, vec![8; 8]),
        ] {
            let pixels = pixels(&figure(images, 2));
            let down = panels_down(&pixels, 100);
            assert_eq!(down.len(), 2 * expected.len(), "{images} images");
            assert!(down.iter().all(|(from, to)| to - from == 448));
            for (row, (top, _)) in down.iter().enumerate() {
                let across = panels_across(&pixels, top + 9);
                assert_eq!(across.len(), expected[row / 2], "{images} images");
                assert!(across.iter().all(|(from, to)| to - from == 448));
                let gaps: Vec<usize> = across.windows(2).map(|p| p[1].0 - p[0].1).collect();
                assert!(gaps.iter().all(|gap| *gap == COLUMN_GAP as usize));
            }
        }
    }

    #[test]
    fn margins_are_equal_on_all_sides() {
        for (images, rows, names) in [(1, 2, 0), (9, 2, 0), (4, 6, 6)] {
            let mut figure = figure(images, rows);
            figure.row_names = (0..names).map(|row| format!("gradient {row}")).collect();
            super::super::sheet::assert_equal_margins(&pixels(&figure));
        }
        let mut low = figure(2, 2);
        low.columns
            .iter_mut()
            .for_each(|c| c.title = vec!["son: …".to_owned()]);
        super::super::sheet::assert_equal_margins(&pixels(&low));
        low.columns.iter_mut().for_each(|c| c.title.clear());
        super::super::sheet::assert_equal_margins(&pixels(&low));
    }

    #[test]
    fn titles_stay_above_their_own_column() {
        let titles = [
            "black-and-tan_coonhound: 0.05",
            "a_custom_label_of_exactly_forty_letters_: 0.91",
            "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW: 0.01",
            "Größe <&> \"ψυχή\" Жираф 狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼狼: 1.00",
        ];
        let figure = MapFigure {
            columns: vec![column(&titles, 2); 3],
            row_names: Vec::new(),
            ..MapFigure::default()
        };
        let pixels = pixels(&figure);
        let first = panels_down(&pixels, 100)[0];
        let across = panels_across(&pixels, first.0 + 9);
        for pair in across.windows(2) {
            // The letters' rims and the panels' hairlines take a pixel or two.
            for x in pair[0].1 + 2..pair[1].0 - 2 {
                for y in 0..pixels.height() {
                    let pixel = pixels.get_pixel(x as u32, y).0;
                    assert_eq!(pixel, [255; 3], "ink in the gutter at {x} {y}");
                }
            }
        }
        for (from, to) in across {
            let dark = |y: usize| {
                (from..to).any(|x| {
                    pixels
                        .get_pixel(x as u32, y as u32)
                        .0
                        .iter()
                        .all(|v| *v < 130)
                })
            };
            let above = (0..first.0 - 2).filter(|y| dark(*y)).count();
            assert!(above > 40, "only {above} rows of title ink");
        }
    }

    #[test]
    fn a_label_of_forty_letters_is_not_cut() {
        let title = ["a_custom_label_of_exactly_forty_letters_: 0.91"];
        let figure = MapFigure {
            columns: vec![column(&title, 1)],
            row_names: Vec::new(),
            ..MapFigure::default()
        };
        let file = draw_maps(&figure, FigureFormat::Svg).unwrap();
        assert!(pixels(&figure).width() >= 448);
        let room = PANEL_SIDE as f32;
        let style = title_style(0, title_scale(&figure, room));
        assert_eq!(style.shortened(title[0], room), title[0]);
        assert!(String::from_utf8(file).unwrap().contains(": 0.91"));
    }

    #[test]
    fn other_aspect_ratios_are_kept() {
        for (size, drawn) in [
            ((64, 32), (896, 448)),
            ((32, 64), (448, 896)),
            ((600, 600), (448, 448)),
            ((1000, 10), (1344, 13)),
        ] {
            let mut figure = figure(2, 2);
            for column in &mut figure.columns {
                let image = RgbImage::from_pixel(size.0, size.1, image::Rgb(PANEL));
                column.panels[0].image = Rc::new(image);
            }
            let pixels = pixels(&figure);
            let down = panels_down(&pixels, 100);
            // The map takes the size of the input, whatever its own.
            assert!(
                down.iter().all(|(from, to)| to - from == drawn.1),
                "{down:?}"
            );
            let across = panels_across(&pixels, down[0].0 + 5);
            assert!(
                across.iter().all(|(from, to)| to - from == drawn.0),
                "{across:?}"
            );
        }
    }

    #[test]
    fn the_top_class_is_the_strongest() {
        let title = ["nnnnnn: 0.91", "nnnnnn: 0.91"];
        let figure = MapFigure {
            columns: vec![column(&title, 1)],
            row_names: Vec::new(),
            ..MapFigure::default()
        };
        let pixels = pixels(&figure);
        let panel = panels_down(&pixels, 100)[0].0;
        let ink = |rows: std::ops::Range<usize>| -> u64 {
            rows.flat_map(|y| (0..pixels.width()).map(move |x| (x, y as u32)))
                .map(|(x, y)| u64::from(255 - pixels.get_pixel(x, y).0[0]))
                .sum()
        };
        let between = panel - TITLE_GAP as usize - 24;
        assert!(ink(0..between) > 3 * ink(between..panel - 2) / 2);
    }

    #[test]
    fn figures_that_cannot_be_are_errors() {
        let error = |figure: &MapFigure<'_>| {
            let result = draw_maps(figure, FigureFormat::Svg);
            result.unwrap_err().to_string()
        };
        assert!(error(&MapFigure::default()).contains("at least one image"));
        assert!(error(&figure(65, 2)).contains("at most 64"));
        assert!(error(&figure(2, 0)).contains("at least one panel"));
        let mut uneven = figure(3, 2);
        uneven.columns[1].panels.pop();
        assert!(error(&uneven).contains("image 2"));
        let mut empty = figure(3, 2);
        empty.columns[2].panels[1].image = Rc::new(RgbImage::new(0, 5));
        assert!(error(&empty).contains("panel 2 of image 3"));
        let mut names = figure(3, 2);
        names.row_names = vec!["input".to_owned()];
        assert!(error(&names).contains("row names"));
    }

    #[test]
    fn a_caption_takes_as_many_lines_as_it_needs() {
        let caption = "224×224 pixels, mean 0.485,0.456,0.406, std 0.229,0.224,0.225 (the zoo); stretched, softmax scores (assumed)";
        let lines = |images: usize| {
            let figure = MapFigure {
                caption: caption.to_owned(),
                ..figure(images, 2)
            };
            super::super::sheet::assert_equal_margins(&pixels(&figure));
            let plain = MapFigure {
                caption: String::new(),
                ..figure.clone()
            };
            assert_eq!(pixels(&figure).width(), pixels(&plain).width());
            let svg = draw_maps(&figure, FigureFormat::Svg).unwrap();
            let svg = String::from_utf8(svg).unwrap();
            let document = roxmltree::Document::parse(&svg).unwrap();
            let texts = document
                .descendants()
                .filter(|node| node.tag_name().name() == "text");
            let texts: Vec<String> = texts
                .filter_map(|node| node.text())
                .map(|text| text.trim().to_owned())
                .collect();
            let lines = texts.iter().filter(|text| caption.contains(text.as_str()));
            let lines: Vec<String> = lines.cloned().collect();
            assert_eq!(lines.join(" "), caption);
            lines.len()
        };
        assert_eq!(lines(8), 1);
        assert!((2..=4).contains(&lines(1)));
    }

    #[test]
    fn an_svg_holds_each_title_and_panel() {
        let mut figure = figure(9, 2);
        figure.row_names = vec!["input".to_owned(), "PRISM <map>".to_owned()];
        let file = draw_maps(&figure, FigureFormat::Svg).unwrap();
        let svg = String::from_utf8(file).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let count = |name: &str| {
            let nodes = document.descendants();
            nodes.filter(|node| node.tag_name().name() == name).count()
        };
        assert_eq!(count("image"), 18);
        // Three lines above each image; the row names beside both blocks.
        assert_eq!(count("text"), 27 + 4);
    }
}
