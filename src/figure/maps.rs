//! The map figure: a column per image, its name and classes above, the input, its map
//! and further rows beneath; below all images a colour bar, a key and a caption.

use std::iter;
use std::rc::Rc;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use image::RgbImage;

use super::colormap::{Rgb, hatch, magma};
use super::sheet::{JPEG_LONGEST_SIDE, MARGIN, Picture, Scaling, Sheet};
use super::text::{Align, Bounds, Lettering};
use super::{About, FigureFormat};
use crate::names::escaped;

/// The most images that one figure holds.
pub const MOST_IMAGES: usize = 64;

/// Images side by side where nothing else is said: more would leave titles too small
/// to read on a laptop's screen or across a landscape page.
pub const COLUMNS: usize = 8;

/// Side of a square panel, in pixels: twice the usual input's. Panels of other shapes have
/// the same area, so that no image looks more important than another.
const PANEL_SIDE: f64 = 448.0;

/// A panel is at most this wide and high: others would push it out of sight.
const WIDEST_PANEL: f64 = 896.0;
const HIGHEST_PANEL: f64 = 597.0;

/// Pictures of a larger aspect ratio are drawn at this one: they would be a line.
pub const LARGEST_RATIO: f64 = 16.0;

/// White between columns, between rows, and between blocks, in pixels.
const COLUMN_GAP: i32 = 32;
const ROW_GAP: i32 = 16;
const BLOCK_GAP: i32 = 56;

/// From the baseline of the last title line to the panel, and between title lines.
const TITLE_GAP: i32 = 16;
const TITLE_PITCH: f32 = 31.0;

/// Rows of lower panels are as high as their names need, but not higher.
const MOST_FOR_NAMES: i32 = 260;

/// From the baseline of a row's name (it reads upwards) to its panels.
const NAME_GAP: i32 = 18;

const TITLE_EM: f32 = 25.0;
const FURTHER_EM: f32 = 22.0;
const NAME_EM: f32 = 22.0;
const FILE_EM: f32 = 20.0;
const CAPTION_EM: f32 = 18.0;

/// From what is above to the colour bar, the key and the caption.
const PART_GAP: i32 = 36;
/// From the baseline of a part's title to the part, and between lines of the title.
const HEADING_GAP: i32 = 16;
const HEADING_PITCH: i32 = 29;
const CAPTION_PITCH: i32 = 27;
/// Room for the colour bar, the key and the caption, in the highest figure.
const ROOM_BELOW: i32 = 1600;

/// The colour bar: its length and height, and white beside its labels.
const BAR: (i32, i32) = (448, 20);
const LABEL_GAP: i32 = 12;

/// The key: side of a swatch, white beside it and between entries, and between lines.
const SWATCH: i32 = 46;
const SWATCH_GAP: i32 = 14;
const ENTRY_GAP: (i32, i32) = (44, 22);
const KEY_EM: f32 = 22.0;
const KEY_FURTHER_EM: f32 = 19.0;
const KEY_PITCH: i32 = 26;
/// From the top of an entry to the baseline of its name.
const NAME_DROP: i32 = 19;

/// A title too long for its cell is set smaller, down to this part, then cut.
const SMALLEST_TITLE: f32 = 0.78;

/// Part of the cell's width that a title may fill. The viewer of an SVG may
/// have none but a wider font.
const TITLE_ROOM: f32 = 1.0;
const TITLE_ROOM_SVG: f32 = 0.82;

/// A line around each panel, for panels that are white at their border.
const HAIRLINE: Rgb = [214, 216, 220];

static HATCHED: LazyLock<RgbImage> = LazyLock::new(|| {
    RgbImage::from_fn(SWATCH as u32, SWATCH as u32, |x, y| image::Rgb(hatch(x, y)))
});
static RAMP: LazyLock<RgbImage> =
    LazyLock::new(|| RgbImage::from_fn(256, 1, |x, _| image::Rgb(magma(x as f32 / 255.0))));

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
#[derive(Debug, Clone, Default)]
pub struct Column<'a> {
    /// The name of its file, in small letters on top; shortened in the middle. May be empty.
    pub name: String,
    /// Lines above the first panel, the first one set stronger: `timber_wolf: 0.91`.
    pub title: Vec<String>,
    /// A last line that is set as strong as the first: `target ram: 0.02`.
    pub target: Option<String>,
    /// Top to bottom. They show the same area, so all take the size of the first.
    pub panels: Vec<Panel<'a>>,
}

/// Colours of the maps in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swatch {
    /// That colour.
    Colour(Rgb),
    /// What is left out.
    Hatched,
    /// A range of colours.
    Ramp(RgbImage),
}

/// A part of the key: entries below a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    /// The line above; may be empty.
    pub title: String,
    /// The entries; without any there is no title.
    pub entries: Vec<KeyEntry>,
}

/// An entry of the key: a colour of the maps and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The colour.
    pub swatch: Swatch,
    /// The line beside it: `ox 0.92`.
    pub name: String,
    /// Softer lines beneath: `oxcart 0.04`.
    pub further: Vec<String>,
}

/// A bar of the colours of the saliency, from 0 to the largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColourBar {
    /// What has these colours.
    pub title: String,
    /// The largest value.
    pub largest: String,
}

/// A figure of one column per image, in the order of the images.
#[derive(Debug, Clone, Default)]
pub struct MapFigure<'a> {
    /// One per image, left to right, then wrapped.
    pub columns: Vec<Column<'a>>,
    /// Names of the panels' rows, left of them; none at all is allowed.
    pub row_names: Vec<String>,
    /// The scale of the saliency, if it is one for all images.
    pub bar: Option<ColourBar>,
    /// What the colours of the maps stand for.
    pub key: Vec<KeyPart>,
    /// Sentences in small letters below all; may be empty.
    pub caption: String,
    /// What the file says of its origin.
    pub about: About,
}

/// Draws the figure and encodes it, with at most `most_columns` images side by side.
///
/// Panels have the area of a square of 448 pixels and the shape of the column's first
/// picture. More columns than that wrap into further blocks, filled as evenly as they can be.
///
/// # Errors
/// If the figure has no column or more than [`MOST_IMAGES`], if columns differ in
/// their number of panels or have none, if a panel is empty, if there are row
/// names but not one per row, or if the page is larger than the format holds.
pub fn draw_maps(
    figure: &MapFigure<'_>,
    most_columns: usize,
    format: FigureFormat,
) -> Result<Vec<u8>> {
    compose(figure, most_columns, format)?.encode(format)
}

impl Column<'_> {
    /// The lines below the name, with their looks.
    fn titles(&self, scale: f32) -> impl Iterator<Item = (&str, Lettering)> {
        let strong = Lettering::strong(TITLE_EM * scale);
        let soft = Lettering::soft(FURTHER_EM * scale);
        let looks = move |rank| if rank == 0 { strong } else { soft };
        let classes = self.title.iter().enumerate();
        let classes = classes.map(move |(rank, text)| (text.as_str(), looks(rank)));
        let target = self.target.iter();
        classes.chain(target.map(move |text| (text.as_str(), strong)))
    }

    /// The number of lines above the panels.
    fn lines(&self) -> i32 {
        i32::from(!self.name.is_empty()) + self.titles(1.0).count() as i32
    }

    /// The length of its longest title at full size; names of files are shortened instead.
    fn longest_title(&self) -> f32 {
        let lengths = self.titles(1.0).map(|(text, style)| style.length(text));
        lengths.fold(0.0, f32::max)
    }

    /// Width and height at which its panels are drawn, in the first one's aspect ratio.
    fn panel_size(&self) -> (i32, i32) {
        let (width, height) = self
            .panels
            .first()
            .map_or((1, 1), |panel| panel.image.size());
        let (width, height) = drawn_size(width.into(), height.into());
        (width as i32, height as i32)
    }
}

/// Places all marks of the figure.
fn compose<'a>(
    figure: &'a MapFigure<'_>,
    most_columns: usize,
    format: FigureFormat,
) -> Result<Sheet<'a>> {
    check(figure)?;
    let room = match format {
        FigureFormat::Svg => TITLE_ROOM_SVG,
        FigureFormat::Jpg | FigureFormat::Png => TITLE_ROOM,
    };
    let blocks = blocks(&figure.columns, most_columns);
    let mut layout = Layout::of(&blocks, room);
    for block in &blocks {
        layout.block(block, &figure.row_names);
    }
    if let Some(bar) = &figure.bar {
        layout.colour_bar(bar);
    }
    for part in figure.key.iter().filter(|part| !part.entries.is_empty()) {
        layout.key(part);
    }
    layout.paragraph(&figure.caption, Lettering::soft(CAPTION_EM), CAPTION_PITCH);
    layout.sheet.about = figure.about.clone();
    Ok(layout.sheet)
}

/// The columns of each block: as even as can be, fuller ones first.
fn blocks<'f, 'a>(columns: &'f [Column<'a>], most: usize) -> Vec<&'f [Column<'a>]> {
    let count = columns.len().div_ceil(most.max(1));
    let start = |block: usize| (block * columns.len()).div_ceil(count);
    let blocks = (0..count).map(|block| &columns[start(block)..start(block + 1)]);
    blocks.collect()
}

/// A figure that grows downwards.
struct Layout<'a> {
    sheet: Sheet<'a>,
    /// Part of a width that text may fill.
    room: f32,
    /// Left side and width of each place in a block.
    places: Vec<(i32, i32)>,
    /// The part of their full size at which all titles are set, so that none looks more
    /// important than another.
    scale: f32,
    /// Of the figure.
    width: i32,
    /// Where the part before ends.
    below: i32,
}

impl<'a> Layout<'a> {
    /// An empty figure for these blocks, of which the first is the fullest.
    fn of(blocks: &[&[Column<'_>]], room: f32) -> Self {
        let width_of = |column: &Column<'_>| {
            let title = (column.longest_title() / room).ceil();
            column
                .panel_size()
                .0
                .max(title.min(PANEL_SIDE as f32) as i32)
        };
        let (mut places, mut left) = (Vec::new(), 0);
        for place in 0..blocks[0].len() {
            let columns = blocks.iter().filter_map(|block| block.get(place));
            let width = largest(columns.map(width_of), 0);
            places.push((left, width));
            left += width + COLUMN_GAP;
        }
        let titles = blocks.iter().flat_map(|block| block.iter().zip(&places));
        let scales = titles
            .map(|(column, (_, width))| room * *width as f32 / column.longest_title().max(1.0));
        Layout {
            sheet: Sheet::default(),
            room,
            scale: scales.fold(1.0, f32::min).max(SMALLEST_TITLE),
            places,
            width: (left - COLUMN_GAP).max(PANEL_SIDE as i32),
            below: -BLOCK_GAP,
        }
    }

    /// The pixels that text needs, in a viewer's own font, too.
    fn length(&self, text: &str, style: Lettering) -> i32 {
        (style.length(text) / self.room).ceil() as i32
    }

    /// Columns side by side, with the names of their rows on the left.
    fn block(&mut self, columns: &'a [Column<'_>], row_names: &[String]) {
        let title_pitch = (TITLE_PITCH * self.scale).round() as i32;
        let title_height = match largest(columns.iter().map(Column::lines), 0) {
            0 => 0,
            lines => (lines - 1) * title_pitch + TITLE_EM as i32 + TITLE_GAP,
        };
        let named = Lettering::soft(NAME_EM).aligned(Align::Middle).upwards();
        let names = row_names
            .iter()
            .map(|name| self.length(name, named).min(MOST_FOR_NAMES));
        let heights = columns.iter().map(|column| column.panel_size().1);
        let height = largest(names.chain(heights), 1);
        let top = self.below + BLOCK_GAP + title_height;
        let row_tops = iter::successors(Some(top), |top| Some(top + height + ROW_GAP));
        for (name, top) in row_names.iter().zip(row_tops.clone()) {
            let name = named.shortened(name, height as f32 * self.room);
            self.sheet.text(&name, (-NAME_GAP, top + height / 2), named);
        }
        for (column, &(left, width)) in columns.iter().zip(&self.places) {
            let room = width as f32 * self.room;
            let file = Lettering::soft(FILE_EM * self.scale);
            let name = file.shortened_in_the_middle(&escaped(&column.name), room);
            let titles = column.titles(self.scale);
            let titles = titles.map(|(text, style)| (style.shortened(text, room), style));
            let lines = iter::once((name, file)).chain(titles);
            let lines = lines.filter(|(text, _)| !text.is_empty());
            let mut baseline = top - TITLE_GAP - (column.lines() - 1) * title_pitch;
            for (text, style) in lines {
                self.sheet.text(&text, (left, baseline), style);
                baseline += title_pitch;
            }
            for (panel, top) in column.panels.iter().zip(row_tops.clone()) {
                let area = Bounds::sized((left, top), column.panel_size());
                self.sheet.fill(area.grown(1), HAIRLINE);
                self.sheet.picture(area, &*panel.image, panel.scaling);
            }
        }
        self.below = top + columns[0].panels.len() as i32 * (height + ROW_GAP) - ROW_GAP;
    }

    /// Text in as many lines as it needs, below the part before; returns the last baseline.
    fn paragraph(&mut self, text: &str, style: Lettering, pitch: i32) -> i32 {
        let mut baseline = self.below + PART_GAP + style.em as i32 - pitch;
        for line in style.lines(text, self.width as f32 * self.room) {
            baseline += pitch;
            self.sheet.text(&line, (0, baseline), style);
        }
        baseline
    }

    /// The title of a part; returns where the part begins.
    fn heading(&mut self, text: &str) -> i32 {
        match text.is_empty() {
            true => self.below + PART_GAP,
            false => self.paragraph(text, Lettering::soft(NAME_EM), HEADING_PITCH) + HEADING_GAP,
        }
    }

    /// The bar, with 0 and the largest value at its ends.
    fn colour_bar(&mut self, bar: &ColourBar) {
        let top = self.heading(&bar.title);
        let style = Lettering::soft(KEY_FURTHER_EM);
        let left = self.length("0", style) + LABEL_GAP;
        let most = self.width - left - LABEL_GAP - self.length(&bar.largest, style);
        let area = Bounds::sized((left, top), (BAR.0.min(most.max(1)), BAR.1));
        let baseline = area.bottom - 3;
        self.sheet.text("0", (0, baseline), style);
        self.sheet.picture(area, &*RAMP, Scaling::Smooth);
        let end = (area.right + LABEL_GAP, baseline);
        self.sheet.text(&bar.largest, end, style);
        self.below = area.bottom;
    }

    /// The entries of a part of the key, in rows as even as can be.
    fn key(&mut self, part: &'a KeyPart) {
        let top = self.heading(&part.title);
        let entries = &part.entries;
        let beside = SWATCH + SWATCH_GAP;
        let lines = entries.iter().flat_map(KeyEntry::lines);
        let longest = largest(lines.map(|(text, style)| self.length(text, style)), 1);
        let width = (beside + longest).min(self.width);
        let most = (self.width + ENTRY_GAP.0) / (width + ENTRY_GAP.0);
        let most = most.clamp(1, entries.len() as i32) as usize;
        let in_row = entries.len().div_ceil(entries.len().div_ceil(most));
        let lines = entries.iter().map(|entry| entry.lines().count() as i32);
        let height = SWATCH.max(largest(lines, 1) * KEY_PITCH);
        for (number, entry) in entries.iter().enumerate() {
            let (row, column) = ((number / in_row) as i32, (number % in_row) as i32);
            let left = column * (width + ENTRY_GAP.0);
            let top = top + row * (height + ENTRY_GAP.1);
            let area = Bounds::sized((left, top), (SWATCH, SWATCH));
            self.sheet.fill(area.grown(1), HAIRLINE);
            match &entry.swatch {
                Swatch::Colour(colour) => self.sheet.fill(area, *colour),
                Swatch::Hatched => self.sheet.picture(area, &*HATCHED, Scaling::Blocks),
                Swatch::Ramp(colours) => self.sheet.picture(area, colours, Scaling::Smooth),
            }
            let mut baseline = top + NAME_DROP;
            if entry.further.is_empty() {
                // A name alone stands beside the middle of its swatch.
                baseline += KEY_PITCH / 2;
            }
            for (text, style) in entry.lines() {
                let text = style.shortened(text, (width - beside) as f32 * self.room);
                self.sheet.text(&text, (left + beside, baseline), style);
                baseline += KEY_PITCH;
            }
            self.below = top + height;
        }
    }
}

impl KeyEntry {
    /// Its lines with their looks.
    fn lines(&self) -> impl Iterator<Item = (&str, Lettering)> {
        let further = self.further.iter();
        let further = further.map(|text| (text.as_str(), Lettering::soft(KEY_FURTHER_EM)));
        iter::once((self.name.as_str(), Lettering::strong(KEY_EM))).chain(further)
    }
}

/// Whether the figure can be drawn.
fn check(figure: &MapFigure<'_>) -> Result<()> {
    let count = figure.columns.len();
    ensure!(count > 0, "a map figure needs at least one image");
    ensure!(
        count <= MOST_IMAGES,
        "a map figure holds at most {MOST_IMAGES} images, not {count}: draw several"
    );
    let rows = figure.columns[0].panels.len();
    ensure!(rows > 0, "a map figure needs at least one panel per image");
    for (number, column) in (1..).zip(&figure.columns) {
        let own = column.panels.len();
        ensure!(
            own == rows,
            "image {number} of the map figure has {own} panels where the first has {rows}"
        );
        for (row, panel) in (1..).zip(&column.panels) {
            let (width, height) = panel.image.size();
            ensure!(
                width > 0 && height > 0,
                "panel {row} of image {number} in the map figure is empty"
            );
        }
    }
    let names = figure.row_names.len();
    ensure!(
        names == 0 || names == rows,
        "the map figure has {rows} rows but {names} row names"
    );
    Ok(())
}

/// The most images that one figure holds: [`MOST_IMAGES`], or fewer where so many rows of
/// `columns` panels of that height would be higher than a JPEG can be.
pub fn most_images(
    height: u32,
    rows: usize,
    title_lines: usize,
    columns: usize,
    format: FigureFormat,
) -> usize {
    if format != FigureFormat::Jpg {
        return MOST_IMAGES;
    }
    let title = title_lines as i32 * TITLE_PITCH as i32 + TITLE_EM as i32 + TITLE_GAP;
    let block = title + rows as i32 * (MOST_FOR_NAMES.max(height as i32) + ROW_GAP) + BLOCK_GAP;
    let blocks = (JPEG_LONGEST_SIDE as i32 - 2 * MARGIN - ROOM_BELOW) / block;
    (columns * blocks.max(1) as usize).clamp(1, MOST_IMAGES)
}

/// Width and height in pixels at which a picture of this width and height, in any unit, is
/// drawn. A picture that has such a size already keeps it.
pub fn drawn_size(width: f64, height: f64) -> (u32, u32) {
    let area = PANEL_SIDE * PANEL_SIDE;
    let ratio = (width / height).clamp(1.0 / LARGEST_RATIO, LARGEST_RATIO);
    let (across, down) = ((area * ratio).sqrt(), (area / ratio).sqrt());
    let scale = (WIDEST_PANEL / across).min(HIGHEST_PANEL / down).min(1.0);
    let drawn = [across * scale, down * scale];
    // Rounding to whole pixels moves each side by half a pixel at most.
    let is_drawn = [(width, 0), (height, 1)].into_iter().all(|(side, axis)| {
        let slack = 0.5 + 0.5 * drawn[axis] / drawn[1 - axis];
        side.fract() == 0.0 && (side - drawn[axis]).abs() <= slack
    });
    let [width, height] = if is_drawn { [width, height] } else { drawn };
    (width.round() as u32, height.round() as u32)
}

fn largest(lengths: impl Iterator<Item = i32>, least: i32) -> i32 {
    lengths.fold(least, i32::max)
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
            ..Column::default()
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
        compose(figure, COLUMNS, FigureFormat::Png)
            .unwrap()
            .pixels()
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
        let sheet = compose(&figure, COLUMNS, FigureFormat::Png).unwrap();
        let (bands, whole) = (sheet.pixels(), sheet.pixels_at_once());
        assert!(sheet.bands() > 4);
        assert_eq!(bands.dimensions(), whole.dimensions());
        assert!(bands == whole);
    }

    #[test]
    fn a_figure_holds_no_more_than_its_format() {
        let figure = |columns: usize, rows: usize| {
            let most = most_images(448, rows, 3, columns, FigureFormat::Jpg);
            let figure = figure(most, rows);
            let sheet = compose(&figure, columns, FigureFormat::Jpg).unwrap();
            (most, sheet.pixel_height())
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
        let file = draw_maps(&figure, COLUMNS, FigureFormat::Svg).unwrap();
        assert!(pixels(&figure).width() >= 448);
        let scale = Layout::of(&blocks(&figure.columns, COLUMNS), 1.0).scale;
        let style = Lettering::strong(TITLE_EM * scale);
        assert_eq!(style.shortened(title[0], PANEL_SIDE as f32), title[0]);
        assert!(String::from_utf8(file).unwrap().contains(": 0.91"));
    }

    /// sqrt(2) 448 = 633.6 and 448 / sqrt(2) = 316.8; no wider than 896 and no higher than 597.
    #[test]
    fn panels_have_the_shape_of_the_input_and_the_area_of_a_square() {
        for (size, drawn) in [
            ((64, 32), (634, 317)),
            ((34, 64), (317, 597)),
            ((600, 600), (448, 448)),
            ((1000, 100), (896, 90)),
            ((2000, 1), (896, 56)),
            ((1, 2000), (37, 597)),
        ] {
            let mut figure = figure(2, 2);
            for column in &mut figure.columns {
                let image = RgbImage::from_pixel(size.0, size.1, image::Rgb(PANEL));
                column.panels[0].image = Rc::new(image);
            }
            let pixels = pixels(&figure);
            let down = panels_down(&pixels, 60);
            // The map takes the size of the input, whatever its own.
            assert!(
                down.iter().all(|(from, to)| to - from == drawn.1),
                "{size:?} {down:?}"
            );
            let across = panels_across(&pixels, down[0].0 + 5);
            assert!(
                across.iter().all(|(from, to)| to - from == drawn.0),
                "{size:?} {across:?}"
            );
        }
    }

    #[test]
    fn a_picture_of_a_drawn_size_keeps_it() {
        for step in 0..=400 {
            let ratio = 16f64.powf(f64::from(step) / 200.0 - 1.0);
            let (width, height) = drawn_size(ratio, 1.0);
            assert_eq!(drawn_size(width.into(), height.into()), (width, height));
            let area = f64::from(width * height) / (448.0 * 448.0);
            let is_bounded = width == 896 || height == 597;
            assert!(is_bounded || (area - 1.0).abs() < 0.01, "{width}x{height}");
            let off = f64::from(width) / f64::from(height) / ratio - 1.0;
            let rounding = 0.5 / f64::from(width) + 0.5 / f64::from(height);
            assert!(off.abs() < 1.01 * rounding, "{ratio}: {off}");
        }
    }

    #[test]
    fn panels_of_a_row_begin_at_one_height_and_places_at_one_left() {
        let mut figure = figure(6, 2);
        for (column, size) in figure.columns.iter_mut().zip([
            (40, 30),
            (30, 40),
            (90, 30),
            (30, 30),
            (32, 18),
            (40, 30),
        ]) {
            let image = RgbImage::from_pixel(size.0, size.1, image::Rgb(PANEL));
            column.panels[0].image = Rc::new(image);
        }
        let pixels = compose(&figure, 3, FigureFormat::Png).unwrap().pixels();
        let rows = panels_down(&pixels, 60);
        // 4:3, and 1:1 below it.
        let heights: Vec<usize> = rows.iter().map(|(from, to)| to - from).collect();
        assert_eq!(heights, [388, 388, 448, 448]);
        let lefts = |row: usize| -> Vec<usize> {
            let across = panels_across(&pixels, rows[row].0);
            across.iter().map(|(from, _)| *from).collect()
        };
        assert_eq!(lefts(0).len(), 3);
        for row in 1..4 {
            assert_eq!(lefts(row), lefts(0), "row {row}");
        }
        let before = panels_across(&pixels, rows[0].0 - 3);
        assert!(before.is_empty(), "{before:?}");
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
            let result = draw_maps(figure, COLUMNS, FigureFormat::Svg);
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
            let svg = draw_maps(&figure, COLUMNS, FigureFormat::Svg).unwrap();
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
        let file = draw_maps(&figure, COLUMNS, FigureFormat::Svg).unwrap();
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

    /// The texts of a figure as SVG, with the places of their baselines or tops.
    fn texts(figure: &MapFigure<'_>) -> Vec<(String, i32, i32)> {
        let svg =
            String::from_utf8(draw_maps(figure, COLUMNS, FigureFormat::Svg).unwrap()).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let nodes = document.descendants();
        let place = |node: &roxmltree::Node<'_, '_>, axis| {
            node.attribute(axis).unwrap().parse::<f32>().unwrap() as i32
        };
        nodes
            .filter(|node| node.tag_name().name() == "text")
            .map(|node| {
                let text = node.text().unwrap_or_default().trim().to_owned();
                (text, place(&node, "x"), place(&node, "y"))
            })
            .collect()
    }

    fn key() -> Vec<KeyPart> {
        let names = [
            "ox",
            "tabby",
            "great grey owl",
            "hen",
            "ram",
            "goose",
            "hog",
            "malinois",
        ];
        let mut key: Vec<KeyEntry> = (0..)
            .zip(names)
            .map(|(number, name)| KeyEntry {
                swatch: Swatch::Colour([number * 30, 200, 250 - number * 30]),
                name: format!("{name} 0.92"),
                further: vec![
                    "oxcart 0.04".to_owned(),
                    format!("{number} % of all places"),
                ],
            })
            .collect();
        key.push(KeyEntry {
            swatch: Swatch::Hatched,
            name: "left out".to_owned(),
            further: Vec::new(),
        });
        let title = "Groups of similar places".to_owned();
        vec![KeyPart {
            title,
            entries: key,
        }]
    }

    #[test]
    fn a_key_shows_each_colour_once_within_the_figure() {
        for images in [1, 2, 9] {
            let figure = MapFigure {
                key: key(),
                caption: "A caption.".to_owned(),
                ..figure(images, 2)
            };
            let pixels = pixels(&figure);
            super::super::sheet::assert_equal_margins(&pixels);
            let plain = MapFigure {
                key: Vec::new(),
                ..figure.clone()
            };
            assert_eq!(pixels.width(), self::pixels(&plain).width());
            let count = |colour: Rgb| pixels.pixels().filter(|pixel| pixel.0 == colour).count();
            for entry in &figure.key[0].entries {
                match &entry.swatch {
                    Swatch::Colour(colour) => assert_eq!(count(*colour), 46 * 46),
                    Swatch::Ramp(_) => unreachable!("not in this key"),
                    Swatch::Hatched => {
                        let greys = [[96; 3], [160; 3]].map(count);
                        assert!(
                            greys.iter().all(|&grey| grey > 46 * 46 / 2 - 50),
                            "{greys:?}"
                        );
                    }
                }
            }
            // Images, then the title of the key, its entries, and the caption.
            let bottom = panels_down(&pixels, 60).last().unwrap().1 as i32;
            let texts = texts(&figure);
            let at = |wanted: &str| texts.iter().find(|(text, ..)| text == wanted).unwrap();
            let heights = [
                "Groups of similar places",
                "ox 0.92",
                "left out",
                "A caption.",
            ];
            let heights = heights.map(|wanted| at(wanted).2);
            assert!(bottom < heights[0], "{bottom} {heights:?}");
            assert!(
                heights[0] < heights[1] && heights[2] < heights[3],
                "{heights:?}"
            );
            assert!(at("ox 0.92").2 < at("oxcart 0.04").2);
        }
    }

    #[test]
    fn a_ramp_in_the_key_goes_from_top_to_bottom() {
        let (top, bottom) = ([250, 40, 40], [10, 90, 90]);
        let ramp = RgbImage::from_fn(1, 2, |_, y| image::Rgb([top, bottom][y as usize]));
        let part = |entries| KeyPart {
            title: "Ends".to_owned(),
            entries,
        };
        let ends = part(vec![KeyEntry {
            swatch: Swatch::Ramp(ramp),
            name: "much red: ox".to_owned(),
            further: vec!["little red: lynx".to_owned()],
        }]);
        let figure = MapFigure {
            key: vec![part(Vec::new()), ends],
            ..figure(1, 1)
        };
        let texts = texts(&figure);
        let heights = |wanted: &str| -> Vec<i32> {
            let found = texts.iter().filter(|(text, ..)| text == wanted);
            found.map(|text| text.2).collect()
        };
        // A part without entries has no title.
        assert_eq!(heights("Ends").len(), 1);
        assert!(heights("much red: ox")[0] < heights("little red: lynx")[0]);
        let pixels = pixels(&figure);
        let rows = |colour: Rgb| {
            let found = pixels.enumerate_pixels();
            let near = found.filter(move |(.., pixel)| {
                let mut apart = pixel.0.iter().zip(colour);
                apart.all(|(a, b)| a.abs_diff(b) < 4)
            });
            near.map(|(_, y, _)| y)
        };
        let (last_high, first_low) = (rows(top).max().unwrap(), rows(bottom).min().unwrap());
        assert!(last_high < first_low && first_low - last_high < 46);
    }

    #[test]
    fn a_long_name_in_the_key_is_cut_at_the_side_of_the_figure() {
        let mut key = key();
        key[0].entries[1].name = "antidisestablishmentarianism ".repeat(9);
        let figure = MapFigure {
            key,
            ..figure(1, 1)
        };
        assert_eq!(pixels(&figure).width(), 448 + 2 + 2 * MARGIN as u32);
    }

    #[test]
    fn a_bar_has_the_colours_of_the_saliency_and_its_ends() {
        let figure = MapFigure {
            bar: Some(ColourBar {
                title: "Grad-CAM: ram".to_owned(),
                largest: "0.620".to_owned(),
            }),
            ..figure(2, 2)
        };
        let texts = texts(&figure);
        let at = |wanted: &str| texts.iter().find(|(text, ..)| text == wanted).unwrap();
        assert!(at("0").1 < at("0.620").1 && at("0").2 == at("0.620").2);
        let pixels = pixels(&figure);
        let is_bar = |y: &u32| (0..pixels.width()).any(|x| pixels.get_pixel(x, *y).0 == magma(0.0));
        let rows: Vec<u32> = (0..pixels.height()).filter(is_bar).collect();
        assert_eq!(rows.len(), 20);
        let row = (0..pixels.width()).map(|x| pixels.get_pixel(x, rows[9]).0);
        let row: Vec<Rgb> = row.collect();
        let from = row.iter().position(|&pixel| pixel == magma(0.0)).unwrap();
        for (part, at) in [(0.25, 112), (0.5, 224), (0.75, 336)] {
            let off = row[from + at].iter().zip(magma(part));
            assert!(off.clone().all(|(a, b)| a.abs_diff(b) < 6), "{part}");
        }
    }

    #[test]
    fn the_name_of_a_file_is_cut_in_the_middle() {
        let style = Lettering::soft(FILE_EM);
        let short = |name: &str, room| style.shortened_in_the_middle(&escaped(name), room);
        assert_eq!(short("dog.jpg", 448.0), "dog.jpg");
        let long = format!("IMG_2023{}0042.jpeg", "_x".repeat(100));
        for room in [120.0, 200.0, 448.0] {
            let cut = short(&long, room);
            assert!(cut.starts_with("IMG") && cut.ends_with("2.jpeg"), "{cut}");
            assert!(cut.contains('…') && style.length(&cut) <= room, "{cut}");
            assert!(style.length(&cut) > room - 25.0, "{cut}");
        }
        assert!(
            short(&long, 10.0).ends_with(".jpeg"),
            "{}",
            short(&long, 10.0)
        );
        assert_eq!(short("a\tb\nc.png", 448.0), "a\\tb\\nc.png");
        let greek = "ψυχή".repeat(50);
        assert!(short(&greek, 200.0).contains('…'));
        assert!(short(&format!("a.{greek}"), 200.0).starts_with("a.ψ"));
    }

    #[test]
    fn the_name_of_the_file_is_on_top_and_the_target_at_the_end() {
        let mut figure = figure(3, 2);
        for column in &mut figure.columns {
            column.name = "dog.jpg".to_owned();
            column.target = Some("target ram: 0.02".to_owned());
        }
        let texts = texts(&figure);
        let first: Vec<&str> = texts[..5].iter().map(|(text, ..)| text.as_str()).collect();
        let lines = [
            "dog.jpg",
            "timber_wolf: 0.91",
            "white_wolf: 0.05",
            "malamute: 0.01",
        ];
        assert_eq!(first, [&lines[..], &["target ram: 0.02"]].concat());
        assert!(texts[..5].is_sorted_by_key(|&(_, _, y)| y));
    }
}
