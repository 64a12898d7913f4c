//! The cluster figure: where on a self-organising map the images are.

use std::collections::BTreeMap;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

use anyhow::{Result, ensure};
use image::RgbImage;
use ndarray::ArrayView2;

use super::colormap::{Rgb, mixed};
use super::paper::{Entry, draw_legend};
use super::sheet::{Scaling, Sheet};
use super::text::{Bounds, Lettering, legible};
use super::{About, FigureFormat};

/// About the side of the map, in pixels; a cell is a whole number of them.
const MAP_SIDE: i32 = 1120;
const SMALLEST_CELL: i32 = 9;
/// A cell with photographs has at least this side, and a photograph at least that.
const SMALLEST_CELL_OF_PHOTOGRAPHS: i32 = 96;
const LEAST_PHOTOGRAPH: i32 = 32;

/// Cells of at least this width are told apart by a line of the page's white.
const NARROWEST_WITH_GAP: i32 = 16;

/// After M. Okabe and K. Ito (2008), whose colours are for colour-blind readers: without the yellow,
/// which is too light for the greys of the map, and with a darker green, for deuteranopes.
const COLOURS: [Rgb; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 100, 70],
    [204, 121, 167],
    [26, 26, 28],
    [230, 159, 0],
    [86, 180, 233],
];
const OTHER: Rgb = [112, 114, 120];

/// Shapes of the marks: corners of a star, the radius between them, and its turn in degrees. There
/// is one more than colours, so that 56 classes have a pair of their own.
const SHAPES: [(usize, f64, f64); 8] = [
    (16, 1.0, 0.0),           // circle
    (4, FRAC_1_SQRT_2, 45.0), // square
    (3, 0.5, 0.0),            // triangle
    (4, 0.34, 0.0),           // plus
    (4, FRAC_1_SQRT_2, 0.0),  // diamond
    (3, 0.5, 180.0),          // triangle, its tip below
    (4, 0.34, 45.0),          // cross
    (5, 0.42, 0.0),           // star
];

/// The number of classes with marks of their own; all others are small grey circles.
const MARKED: usize = 20;

/// The U-matrix: units near to their neighbours, and borders between clusters.
const NEAR: Rgb = [249, 249, 250];
const FAR: Rgb = [176, 179, 185];

const RULE: Rgb = [200, 203, 208];
const WHITE: Rgb = [255, 255, 255];

const CAPTION_EM: f32 = 25.0;
const CAPTION_PITCH: i32 = 36;

/// The largest mark, in pixels, and as a part of its cell.
const LARGEST_MARK: i32 = 44;
const WIDEST_MARK: f64 = 0.6;
/// Distance of marks that are only just told apart, in pixels.
const LEAST_PITCH: i32 = 5;
/// Marks this far apart have room for a white rim.
const NARROWEST_WITH_RIM: i32 = 9;
/// The white inside of the mark of an image whose class is not its true one, as a part of the mark.
const HOLLOW: f64 = 0.55;

/// A photograph's frame and mark.
const FRAME: i32 = 3;
const LARGEST_BADGE: i32 = 22;

/// The legend, in pixels.
const LEGEND_GAP: i32 = 56;
const LEGEND_MARK: f64 = 24.0;
const LONGEST_NAME: f32 = 480.0;

/// One image on the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Row and column of its unit.
    pub unit: (usize, usize),
    /// The id of its class.
    pub class: usize,
    /// Whether that is its true class, if this is known.
    pub is_right: Option<bool>,
}

/// What the figure shows.
#[derive(Debug, Clone)]
pub struct ClusterFigure<'a> {
    /// Mean distance of each unit of the map to those around it, `[rows,columns]`.
    pub u_matrix: ArrayView2<'a, f64>,
    /// The images.
    pub images: &'a [Placed],
    /// Their photographs, to be drawn in place of marks where there are any; may be empty.
    pub thumbnails: &'a [Option<RgbImage>],
    /// Names of the classes by id; where there is none, the id stands for it.
    pub names: &'a [String],
    /// Mean distance of an image to its unit.
    pub quantisation_error: f64,
    /// Share of the images whose two nearest units lie apart.
    pub topographic_error: f64,
    /// What the file says of its origin.
    pub about: About,
}

/// Longest side of a photograph on a map of that many units on a side, in pixels.
pub fn thumbnail_side(grid: usize) -> u32 {
    Cell::of((grid, grid), true).room().unsigned_abs()
}

/// Draws a mark per image in the cell of its unit, its colour and shape by class, on the
/// U-matrix in greys, with a legend on the right, and encodes the figure.
///
/// The twenty most frequent classes have marks of their own, all others are grey. The mark of an
/// image whose class is not its true one is hollow.
/// A cell of more marks than can be told apart shows an even choice of them, and the caption
/// says so.
///
/// # Errors
/// If there are no images, one lies outside of the map, or the U-matrix has
/// negative or infinite distances.
pub fn draw_clusters(figure: &ClusterFigure<'_>, format: FigureFormat) -> Result<Vec<u8>> {
    compose(figure)?.encode(format)
}

fn compose<'a>(figure: &ClusterFigure<'a>) -> Result<Sheet<'a>> {
    check(figure)?;
    let (rows, columns) = figure.u_matrix.dim();
    let cell = Cell::of((rows, columns), !figure.thumbnails.is_empty());
    let ranking = Ranking::new(figure.images);
    let mut sheet = Sheet {
        about: figure.about.clone(),
        ..Sheet::default()
    };
    draw_map(&mut sheet, figure.u_matrix, cell);
    let legend = ranking.entries(figure.names).into_iter();
    let legend = legend.map(|(rank, name)| Entry {
        name,
        mark: mark(rank, (0.0, 0.0), LEGEND_MARK / 2.0),
        colour: colour_of(rank),
    });
    let (right, bottom) = cell.corner((rows, columns));
    let origin = (right + LEGEND_GAP, 0);
    draw_legend(&mut sheet, origin, (CAPTION_EM, 40), legend.collect())?;
    let crowded = draw_images(&mut sheet, figure, &ranking, cell);
    for (line, text) in (1..).zip(captions(figure, crowded, cell)) {
        let at = (0, bottom + 10 + line * CAPTION_PITCH);
        sheet.text(&text, at, Lettering::soft(CAPTION_EM));
    }
    Ok(sheet)
}

fn check(figure: &ClusterFigure<'_>) -> Result<()> {
    let (rows, columns) = figure.u_matrix.dim();
    ensure!(
        !figure.images.is_empty(),
        "a cluster figure needs at least one image"
    );
    for (number, image) in (1..).zip(figure.images) {
        ensure!(
            image.unit.0 < rows && image.unit.1 < columns,
            "image {number} lies outside of the {rows}x{columns} map"
        );
    }
    let are_distances = figure.u_matrix.iter().all(|d| d.is_finite() && *d >= 0.0);
    ensure!(
        are_distances,
        "the U-matrix holds a value that is no distance"
    );
    Ok(())
}

/// The images of a class.
#[derive(Clone, Copy, Default)]
struct Count {
    images: usize,
    /// Those whose true class is known, and of these those whose true class this is.
    known: usize,
    right: usize,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.images += other.images;
        self.known += other.known;
        self.right += other.right;
    }

    fn of(image: &Placed) -> Count {
        Count {
            images: 1,
            known: usize::from(image.is_right.is_some()),
            right: usize::from(image.is_right == Some(true)),
        }
    }

    fn of_all(images: &[Placed]) -> Count {
        let mut all = Count::default();
        images.iter().for_each(|image| all.add(Count::of(image)));
        all
    }

    /// `(12)`, or `(12, 9 right)` if true classes are known.
    fn shown(self) -> String {
        let Count {
            images,
            known,
            right,
        } = self;
        match known {
            0 => format!("({images})"),
            _ if known == images => format!("({images}, {right} right)"),
            _ => format!("({images}, {right} of {known} right)"),
        }
    }
}

/// The classes with their numbers of images, the most frequent first, and of equally frequent ones
/// the lowest id.
struct Ranking(Vec<(usize, Count)>);

impl Ranking {
    fn new(images: &[Placed]) -> Self {
        let mut counts: BTreeMap<usize, Count> = BTreeMap::new();
        for image in images {
            counts.entry(image.class).or_default().add(Count::of(image));
        }
        let mut classes: Vec<(usize, Count)> = counts.into_iter().collect();
        classes.sort_by_key(|(class, count)| (std::cmp::Reverse(count.images), *class));
        Self(classes)
    }

    /// The ranks of all classes; 0 is the most frequent.
    fn ranks(&self) -> BTreeMap<usize, usize> {
        self.0.iter().map(|(class, _)| *class).zip(0..).collect()
    }

    /// The marks of the legend, with the names of the classes and their numbers of images.
    fn entries(&self, names: &[String]) -> Vec<(usize, String)> {
        let style = Lettering::soft(CAPTION_EM);
        let (own, others) = self.0.split_at(self.0.len().min(MARKED));
        let named = own.iter().map(|&(class, count)| {
            let name = match names.get(class) {
                Some(name) if legible(name).contains(char::is_alphanumeric) => legible(name),
                _ => format!("class {class}"),
            };
            let name = style.shortened(&name, LONGEST_NAME);
            format!("{name} {}", count.shown())
        });
        let mut entries: Vec<(usize, String)> = (0..).zip(named).collect();
        if !others.is_empty() {
            let mut all = Count::default();
            others.iter().for_each(|(_, count)| all.add(*count));
            let classes = match others.len() {
                1 => "1 other class".to_owned(),
                count => format!("{count} other classes"),
            };
            entries.push((MARKED, format!("{classes} {}", all.shown())));
        }
        entries
    }
}

/// The colour of the classes of a rank.
fn colour_of(rank: usize) -> Rgb {
    match rank < MARKED {
        true => COLOURS[rank % COLOURS.len()],
        false => OTHER,
    }
}

/// The corners of the mark of a rank around a place, in units of `radius`.
fn mark(rank: usize, (x, y): (f64, f64), radius: f64) -> Vec<(f64, f64)> {
    let (shape, size) = match rank < MARKED {
        true => (SHAPES[rank % SHAPES.len()], 1.0),
        false => (SHAPES[0], 0.6),
    };
    let (points, inner, turn) = shape;
    // A shape that fills less of its circle is no smaller for that.
    let size = size * if points == 16 { 0.85 } else { 1.0 };
    let corner = |number: usize| {
        let angle = (turn - 90.0).to_radians() + number as f64 * PI / points as f64;
        let radius = radius * size * if number.is_multiple_of(2) { 1.0 } else { inner };
        (x + radius * angle.cos(), y + radius * angle.sin())
    };
    (0..2 * points).map(corner).collect()
}

/// The grey of a distance between the least and the largest on the map.
fn grey(distance: f64, (least, largest): (f64, f64)) -> Rgb {
    let part = (distance - least) / (largest - least); // NaN if all are equal
    mixed(NEAR, FAR, part.max(0.0) as f32)
}

fn range(u_matrix: ArrayView2<'_, f64>) -> (f64, f64) {
    let fold = |(least, largest): (f64, f64), d: &f64| (least.min(*d), largest.max(*d));
    u_matrix.iter().fold((f64::INFINITY, 0.0), fold)
}

/// Draws the U-matrix.
fn draw_map(sheet: &mut Sheet<'_>, u_matrix: ArrayView2<'_, f64>, cell: Cell) {
    let map = Bounds::sized((0, 0), cell.corner(u_matrix.dim()));
    sheet.fill(map.grown(2), RULE);
    sheet.fill(map.grown(1), WHITE);
    let range = range(u_matrix);
    let gap = i32::from(cell.side >= NARROWEST_WITH_GAP);
    let side = cell.side - gap;
    for (unit, distance) in u_matrix.indexed_iter() {
        let area = Bounds::sized(cell.corner(unit), (side, side));
        sheet.fill(area.shifted(gap, gap), grey(*distance, range));
    }
}

/// A unit of the map.
#[derive(Clone, Copy)]
struct Cell {
    /// Its side, pixels.
    side: i32,
    has_photographs: bool,
}

impl Cell {
    /// The cells of a map of so many rows and columns.
    fn of((rows, columns): (usize, usize), has_photographs: bool) -> Self {
        let least = match has_photographs {
            true => SMALLEST_CELL_OF_PHOTOGRAPHS,
            false => SMALLEST_CELL,
        };
        Self {
            side: (MAP_SIDE / rows.max(columns).max(1) as i32).max(least),
            has_photographs,
        }
    }

    /// The left upper corner of a unit, `(x, y)`.
    fn corner(self, (row, column): (usize, usize)) -> (i32, i32) {
        (column as i32 * self.side, row as i32 * self.side)
    }

    /// The part of its side that images may take.
    fn room(self) -> i32 {
        self.side - if self.side < NARROWEST_WITH_GAP { 2 } else { 8 }
    }

    /// The most images that are drawn.
    fn capacity(self) -> usize {
        let pitch = match self.has_photographs {
            true => LEAST_PHOTOGRAPH,
            false => LEAST_PITCH,
        };
        let across = (self.room() / pitch).max(1) as usize;
        across * across
    }

    /// Squares for so many images side by side, in a cell at the origin.
    fn places(self, count: usize) -> Vec<Bounds> {
        let across = (1..).find(|n| n * n >= count).unwrap_or(1);
        let down = count.div_ceil(across);
        let pitch = self.room() / across as i32;
        let rim = if pitch < NARROWEST_WITH_RIM { 1 } else { 3 };
        let widest = match self.has_photographs {
            true => pitch,
            false => ((f64::from(self.side) * WIDEST_MARK) as i32).min(LARGEST_MARK),
        };
        let side = (pitch - rim).min(widest).max(1);
        // Few marks stay together in the middle.
        let pitch = pitch.min(side + side / 3 + 2);
        let start = |in_line: usize| {
            let length = (in_line as i32 - 1) * pitch + side;
            // The line between cells is on the left and above.
            (self.side + 1 - length) / 2
        };
        let area = |place: usize| {
            let (row, column) = (place / across, place % across);
            let in_row = (count - row * across).min(across);
            let left = start(in_row) + column as i32 * pitch;
            let top = start(down) + row as i32 * pitch;
            Bounds::sized((left, top), (side, side))
        };
        (0..count).map(area).collect()
    }
}

/// Draws the images; whether some cells hold more than are drawn.
fn draw_images<'a>(
    sheet: &mut Sheet<'a>,
    figure: &ClusterFigure<'a>,
    ranking: &Ranking,
    cell: Cell,
) -> bool {
    let ranks = ranking.ranks();
    let mut cells: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
    for (index, image) in figure.images.iter().enumerate() {
        let ranked = (ranks[&image.class], index);
        cells.entry(image.unit).or_default().push(ranked);
    }
    let most = cell.capacity();
    let mut crowded = false;
    for (unit, mut images) in cells {
        images.sort_unstable();
        crowded |= images.len() > most;
        let drawn = images.len().min(most);
        let (x, y) = cell.corner(unit);
        for (place, area) in cell.places(drawn).into_iter().enumerate() {
            let (rank, index) = images[place * images.len() / drawn];
            let area = area.shifted(x, y);
            let style = Style {
                rank,
                is_hollow: figure.images[index].is_right == Some(false),
            };
            match figure.thumbnails.get(index) {
                Some(Some(photograph)) => draw_photograph(sheet, photograph, style, area),
                _ => draw_mark(sheet, style, area),
            }
        }
    }
    crowded
}

/// How an image is marked.
#[derive(Clone, Copy)]
struct Style {
    rank: usize,
    is_hollow: bool,
}

/// A mark, with a white rim if it is large enough.
fn draw_mark(sheet: &mut Sheet<'_>, Style { rank, is_hollow }: Style, area: Bounds) {
    let side = f64::from(area.size().0.min(LARGEST_MARK));
    let middle = |from: i32, to: i32| f64::from(from + to) / 2.0;
    let at = (middle(area.left, area.right), middle(area.top, area.bottom));
    let mut shape = |radius: f64, colour: Rgb| {
        let corners = mark(rank, at, radius).into_iter();
        sheet.shape(corners.map(|(x, y)| (x as f32, y as f32)).collect(), colour);
    };
    if side >= f64::from(NARROWEST_WITH_RIM - 3) {
        shape(side / 2.0 + 1.5, WHITE);
    }
    shape(side / 2.0, colour_of(rank));
    if is_hollow {
        shape(side / 2.0 * HOLLOW, WHITE);
    }
}

/// A photograph in its aspect ratio, with a frame in the colour of its class, thinner if its mark is
/// hollow, and its mark in a corner.
fn draw_photograph<'a>(
    sheet: &mut Sheet<'a>,
    photograph: &'a RgbImage,
    style: Style,
    area: Bounds,
) {
    let room = f64::from(area.size().0 - 2 * FRAME).max(1.0);
    let (width, height) = photograph.dimensions();
    let scale = room / f64::from(width.max(height).max(1));
    let drawn = |side: u32| ((f64::from(side) * scale).round() as i32).max(1);
    let (width, height) = (drawn(width), drawn(height));
    let left = (area.left + area.right - width) / 2;
    let top = (area.top + area.bottom - height) / 2;
    let area = Bounds::sized((left, top), (width, height));
    sheet.fill(area.grown(FRAME), colour_of(style.rank));
    sheet.fill(
        area.grown(if style.is_hollow { FRAME - 1 } else { 1 }),
        WHITE,
    );
    sheet.picture(area, photograph, Scaling::Smooth);
    let badge = (width.min(height) / 3).min(LARGEST_BADGE);
    let corner = (area.right - badge - 2, area.bottom - badge - 2);
    let badge = Bounds::sized(corner, (badge, badge));
    sheet.fill(badge.grown(2), WHITE);
    draw_mark(sheet, style, badge);
}

/// What the map shows, a line each.
fn captions(figure: &ClusterFigure<'_>, crowded: bool, cell: Cell) -> Vec<String> {
    let (rows, columns) = figure.u_matrix.dim();
    let images = match figure.images.len() {
        1 => "1 image".to_owned(),
        count => format!("{count} images"),
    };
    let (least, largest) = range(figure.u_matrix);
    let mut lines = vec![
        format!(
            "{images} on {rows}×{columns} units · quantisation error {:.3} · topographic error {:.3}",
            figure.quantisation_error, figure.topographic_error
        ),
        match largest - least < 1e-9 {
            true => "all units are equally far from their neighbours".to_owned(),
            false => format!(
                "grey: mean distance of a unit to its neighbours, {least:.2} (light) to {largest:.2} (dark)"
            ),
        },
    ];
    let Count {
        images,
        known,
        right,
    } = Count::of_all(figure.images);
    if known > 0 {
        let unknown = match images - known {
            0 => String::new(),
            count => format!("; of {count} the true class is not known"),
        };
        lines.push(format!(
            "hollow: the class is not the true one, which it is in {right} of {known} images{unknown}"
        ));
    }
    if crowded {
        let most = cell.capacity();
        lines.push(format!(
            "units with more than {most} images show {most} of them"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn apart(a: &Bounds, b: &Bounds) -> bool {
        a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top
    }

    fn u_matrix(grid: usize) -> Array2<f64> {
        Array2::from_shape_fn((grid, grid), |(row, column)| (row * column) as f64 / 100.0)
    }

    fn placed(count: usize, classes: usize, grid: usize) -> Vec<Placed> {
        let image = |number: usize| Placed {
            unit: (number * 7 % grid, number * number % grid),
            // Class 0 is the most frequent, and so on.
            class: number % classes % (1 + number / 3),
            is_right: None,
        };
        (0..count).map(image).collect()
    }

    fn placed_at(unit: (usize, usize), class: usize) -> Placed {
        Placed {
            unit,
            class,
            is_right: None,
        }
    }

    fn figure<'a>(
        u_matrix: &'a Array2<f64>,
        images: &'a [Placed],
        names: &'a [String],
    ) -> ClusterFigure<'a> {
        ClusterFigure {
            u_matrix: u_matrix.view(),
            images,
            names,
            thumbnails: &[],
            about: About::default(),
            quantisation_error: 0.8125,
            topographic_error: 0.25,
        }
    }

    fn texts(figure: &ClusterFigure<'_>) -> Vec<String> {
        compose(figure).unwrap().texts()
    }

    /// The marks of a rank on the map, left of the legend, without their white rims.
    fn marks(sheet: &Sheet<'_>, rank: usize) -> Vec<Bounds> {
        let side = |area: &Bounds| f64::from(area.right - area.left);
        let alone = mark(rank, (0.0, 0.0), 100.0);
        let wide = alone.iter().map(|at| at.0).fold(0.0, f64::max);
        let high = alone.iter().map(|at| -at.1).fold(0.0, f64::max);
        let shapes = sheet.shapes_of(colour_of(rank)).into_iter();
        let on_map = shapes.filter(|area| area.right <= MAP_SIDE);
        // Marks of one colour differ in their proportions.
        let likeness = |area: &Bounds| {
            let depth = f64::from(area.bottom - area.top);
            let low = alone.iter().map(|at| at.1).fold(0.0, f64::max);
            (depth / side(area) - (high + low) / (2.0 * wide)).abs()
        };
        on_map.filter(|area| likeness(area) < 0.2).collect()
    }

    #[test]
    fn marks_in_a_cell_neither_overlap_nor_leave_it() {
        for (side, has_photographs) in [
            (SMALLEST_CELL, false),
            (11, false),
            (16, false),
            (56, false),
            (112, true),
            (1120, true),
        ] {
            let cell = Cell {
                side,
                has_photographs,
            };
            for count in 1..=cell.capacity().min(300) {
                let places = cell.places(count);
                let cell = side;
                assert_eq!(places.len(), count);
                for (index, a) in places.iter().enumerate() {
                    assert!(a.left >= 1 && a.top >= 1, "{cell} {count} {a:?}");
                    assert!(a.right <= cell && a.bottom <= cell, "{cell} {count} {a:?}");
                    assert!(a.right > a.left && a.right - a.left == a.bottom - a.top);
                    for b in &places[..index] {
                        assert!(apart(a, b), "{count} in {cell}: {a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_image_has_its_mark_in_its_cell_and_colour() {
        let images =
            [((0, 0), 7), ((3, 1), 7), ((3, 1), 2)].map(|(unit, class)| placed_at(unit, class));
        let u_matrix = u_matrix(20);
        let sheet = compose(&figure(&u_matrix, &images, &[])).unwrap();
        let cells = |rank| -> Vec<(i32, i32)> {
            let marks = marks(&sheet, rank);
            marks.iter().map(|c| (c.top / 56, c.left / 56)).collect()
        };
        assert_eq!(cells(0), [(0, 0), (3, 1)]);
        assert_eq!(cells(1), [(3, 1)]);
        // And once in the legend.
        assert_eq!(sheet.shapes_of(COLOURS[0]).len(), 3);
        assert_eq!(sheet.shapes_of(COLOURS[1]).len(), 2);
    }

    #[test]
    fn the_most_frequent_classes_have_marks_and_the_others_one_grey() {
        // Class c has 30 - c images.
        let images: Vec<Placed> = (0..30)
            .flat_map(|class| {
                let unit = (class % 20, 3);
                std::iter::repeat_n(placed_at(unit, class), 30 - class)
            })
            .collect();
        let names = ["first".to_owned(), " ".to_owned(), "third: x".to_owned()];
        let u_matrix = u_matrix(20);
        let figure = figure(&u_matrix, &images, &names);
        let texts = texts(&figure);
        let expected = [
            "first (30)",
            "class 1 (29)",
            "third: x (28)",
            "class 3 (27)",
        ];
        assert_eq!(texts[..4], expected);
        // 10 + 9 + ... + 1 images of ten classes.
        assert_eq!(texts[19..21], ["class 19 (11)", "10 other classes (55)"]);
        let sheet = compose(&figure).unwrap();
        assert_eq!(sheet.shapes_of(OTHER).len(), 56);
        for (number, colour) in COLOURS.into_iter().enumerate() {
            let ranks = (number..MARKED).step_by(COLOURS.len());
            let images: usize = ranks.map(|rank| 30 - rank + 1).sum();
            assert_eq!(sheet.shapes_of(colour).len(), images);
        }
    }

    #[test]
    fn each_class_has_its_own_pair_of_colour_and_shape() {
        let pair = |rank: usize| (rank % COLOURS.len(), rank % SHAPES.len());
        for a in 0..MARKED {
            assert!((0..a).all(|b| pair(a) != pair(b)), "{a}");
        }
        // The most frequent eight share no shape, the first seven no colour.
        for rank in 0..MARKED {
            for (x, y) in mark(rank, (5.0, 6.0), 2.0) {
                assert!((x - 5.0).hypot(y - 6.0) <= 2.0 + 1e-9, "{rank}");
            }
        }
    }

    #[test]
    fn photographs_keep_their_proportions_and_missing_ones_have_marks() {
        let images = [(0, 0), (0, 1), (1, 1)].map(|unit| placed_at(unit, 3));
        let photographs = [
            Some(RgbImage::new(200, 50)),
            None,
            Some(RgbImage::new(1, 300)),
        ];
        let u_matrix = u_matrix(2);
        let figure = ClusterFigure {
            thumbnails: &photographs,
            ..figure(&u_matrix, &images, &[])
        };
        let sheet = compose(&figure).unwrap();
        let pictures = sheet.pictures();
        let sizes: Vec<(i32, i32)> = pictures
            .iter()
            .map(|area| (area.right - area.left, area.bottom - area.top))
            .collect();
        // A cell of 560 pixels has room for 552, less a gap of 3 and two frames of 3.
        assert_eq!(sizes, [(543, 136), (2, 543)]);
        assert!(pictures[0].bottom < 560 && pictures[1].left > 560);
        // Three marks and that of the legend.
        assert_eq!(sheet.shapes_of(COLOURS[0]).len(), 4);
    }

    #[test]
    fn the_mark_of_a_wrong_class_is_hollow_and_the_figure_counts_them() {
        let right = [Some(true), Some(false), None, Some(true), Some(false)];
        let images: Vec<Placed> = (0..5)
            .map(|number| Placed {
                is_right: right[number],
                ..placed_at((number, number), usize::from(number > 2))
            })
            .collect();
        let u_matrix = u_matrix(20);
        let hollow_cells = |thumbnails: &[Option<RgbImage>]| {
            let figure = ClusterFigure {
                thumbnails,
                ..figure(&u_matrix, &images, &[])
            };
            let sheet = compose(&figure).unwrap();
            let side = Cell::of((20, 20), !thumbnails.is_empty()).side;
            let whites = sheet.shapes_of(WHITE).into_iter();
            // White rims are larger than marks, and hollows smaller.
            let colours = [0, 1].map(|rank| sheet.shapes_of(colour_of(rank))).concat();
            let is_within = |white: &Bounds, mark: &Bounds| {
                white.left > mark.left && white.right < mark.right && white.top > mark.top
            };
            let hollows = whites.filter(|white| colours.iter().any(|mark| is_within(white, mark)));
            let cells: Vec<i32> = hollows.map(|area| area.top / side).collect();
            (cells, texts(&figure))
        };
        let (cells, texts) = hollow_cells(&[]);
        assert_eq!(cells, [1, 4]);
        let legend = ["class 0 (3, 1 of 2 right)", "class 1 (2, 1 right)"];
        assert_eq!(texts[..2], legend);
        let caption = "hollow: the class is not the true one, which it is in 2 of 4 images; of 1 the true class is not known";
        assert_eq!(texts.last().unwrap(), caption);
        let photographs = vec![Some(RgbImage::new(60, 60)); 5];
        assert_eq!(hollow_cells(&photographs).0, [1, 4]);
    }

    #[test]
    fn a_crowded_unit_shows_all_its_classes_in_proportion_and_says_so() {
        let images: Vec<Placed> = (0..810)
            .map(|number| placed_at((2, 2), usize::from(number % 3 == 0)))
            .collect();
        let u_matrix = u_matrix(20);
        let figure = figure(&u_matrix, &images, &[]);
        let sheet = compose(&figure).unwrap();
        assert_eq!(sheet.shapes_of(COLOURS[0]).len(), 54 + 1);
        assert_eq!(sheet.shapes_of(COLOURS[1]).len(), 27 + 1);
        let note = "units with more than 81 images show 81 of them";
        assert_eq!(texts(&figure).last().unwrap(), note);
        let few = ClusterFigure {
            images: &images[..81],
            ..figure
        };
        assert!(!texts(&few).iter().any(|text| text == note));
    }

    #[test]
    fn the_captions_count_images_and_tell_the_errors() {
        let grid = u_matrix(20);
        let images = placed(12, 2, 20);
        let texts = texts(&figure(&grid, &images, &[]));
        let captions = [
            "12 images on 20×20 units · quantisation error 0.812 · topographic error 0.250",
            "grey: mean distance of a unit to its neighbours, 0.00 (light) to 3.61 (dark)",
        ];
        assert_eq!(texts[texts.len() - 2..], captions);
        let even = Array2::zeros((2, 2));
        let one = [placed_at((0, 0), 5)];
        let texts = self::texts(&figure(&even, &one, &[]));
        assert!(texts[1].starts_with("1 image on 2×2 units"), "{texts:?}");
        assert_eq!(texts[2], "all units are equally far from their neighbours");
    }

    #[test]
    fn margins_are_equal_and_no_text_runs_into_another_or_the_map() {
        let names: Vec<String> = (0..150)
            .map(|class| "name\t\n🐺_".repeat(class % 40) + &class.to_string())
            .collect();
        for (grid, count, classes) in [
            (1, 1, 1),
            (2, 4, 2),
            (20, 60, 12),
            (20, 500, 120),
            (100, 50, 3),
        ] {
            let u_matrix = u_matrix(grid);
            let images = placed(count, classes, grid);
            let sheet = compose(&figure(&u_matrix, &images, &names)).unwrap();
            let pixels = sheet.pixels();
            super::super::sheet::assert_equal_margins(&pixels);
            let (width, height) = pixels.dimensions();
            assert!((1300..=2000).contains(&width), "{width}");
            assert!((1200..=1320).contains(&height), "{height}");
            let inks = sheet.inks();
            for (index, a) in inks.iter().enumerate() {
                assert!(a.left >= MAP_SIDE || a.top >= 1100, "{a:?}");
                for b in &inks[..index] {
                    assert!(apart(a, b), "{grid} {count}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn near_units_are_light_and_borders_dark() {
        assert_eq!(grey(0.5, (0.5, 2.0)), NEAR);
        assert_eq!(grey(2.0, (0.5, 2.0)), FAR);
        assert_eq!(grey(1.0, (1.0, 1.0)), NEAR);
        assert!(grey(1.25, (0.5, 2.0))[0] < NEAR[0] && grey(1.25, (0.5, 2.0))[0] > FAR[0]);
    }

    #[test]
    fn what_cannot_be_placed_is_an_error() {
        let good = u_matrix(3);
        let images = [placed_at((2, 2), 0)];
        let draw = |u_matrix: &Array2<f64>, images: &[Placed]| {
            draw_clusters(&figure(u_matrix, images, &[]), FigureFormat::Png)
        };
        assert!(draw(&good, &images).is_ok());
        assert!(draw(&good, &[]).is_err());
        for unit in [(3, 0), (0, 3)] {
            let error = draw(&good, &[images[0], placed_at(unit, 0)]).unwrap_err();
            assert!(error.to_string().contains("image 2"), "{error}");
        }
        assert!(draw(&Array2::zeros((0, 0)), &images).is_err());
        for wrong in [f64::NAN, f64::INFINITY, -1.0] {
            let mut bad = good.clone();
            bad[(1, 1)] = wrong;
            assert!(draw(&bad, &images).is_err());
        }
    }
}
