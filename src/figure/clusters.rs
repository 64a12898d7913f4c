//! The cluster figure: where on a self-organising map the images are.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use ndarray::ArrayView2;

use super::FigureFormat;
use super::colormap::Rgb;
use super::sheet::Sheet;
use super::text::{Align, Bounds, CAP_HEIGHT, Lettering, Weight};

/// About the side of the map, in pixels; a cell is a whole number of them.
const MAP_SIDE: i32 = 1120;
const SMALLEST_CELL: i32 = 9;

/// Cells of at least this width are told apart by a line of the page's white.
const NARROWEST_WITH_GAP: i32 = 16;

/// Colours of the classes, the most frequent first. They are our own: the first is
/// given, each further one is the farthest from those before in OKLab (B. Ottosson,
/// 2020), where what dichromats see of it (G. M. Machado et al., 2009) counts as
/// well; out of the vivid colours that stand out from the greys of the map. Nobody
/// tells twenty apart with ease, and a dichromat fewer; the first eight are safest.
const COLOURS: [Rgb; 20] = [
    [0, 96, 180],
    [204, 36, 0],
    [72, 180, 12],
    [192, 108, 240],
    [108, 12, 84],
    [0, 120, 72],
    [252, 120, 132],
    [0, 180, 192],
    [180, 24, 132],
    [72, 12, 168],
    [120, 48, 0],
    [120, 84, 228],
    [156, 132, 48],
    [180, 96, 120],
    [96, 132, 204],
    [0, 60, 120],
    [240, 132, 0],
    [156, 156, 240],
    [228, 72, 156],
    [156, 0, 60],
];
const OTHER: Rgb = [112, 114, 120];

/// The U-matrix: units near to their neighbours, and borders between clusters.
const NEAR: Rgb = [249, 249, 250];
const FAR: Rgb = [176, 179, 185];

const INK: Rgb = [26, 26, 28];
const SOFT_INK: Rgb = [92, 94, 100];
const RULE: Rgb = [200, 203, 208];
const WHITE: Rgb = [255, 255, 255];

const CAPTION_EM: f32 = 25.0;
const LEGEND_EM: f32 = 25.0;
const HEAD_EM: f32 = 22.0;

/// The largest cross takes this much of its cell.
const WIDEST_CROSS: f64 = 0.6;
/// Distance of crosses that are only just told apart, in pixels.
const LEAST_PITCH: i32 = 5;
/// Crosses this far apart have room for a white rim.
const NARROWEST_WITH_RIM: i32 = 9;

/// The legend, in pixels.
const LEGEND_GAP: i32 = 56;
const LEGEND_PITCH: i32 = 40;
const LEGEND_CROSS: i32 = 22;
const LEGEND_INDENT: i32 = LEGEND_CROSS + 16;
const LONGEST_NAME: f32 = 480.0;
const NARROWEST_LEGEND: i32 = 300;

/// The scale of greys.
const SCALE_HEIGHT: i32 = 16;
const SCALE_STEPS: i32 = 60;

/// One image on the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Row and column of its unit.
    pub unit: (usize, usize),
    /// The id of its class.
    pub class: usize,
}

/// What the figure shows.
#[derive(Debug, Clone)]
pub struct ClusterFigure<'a> {
    /// Mean distance of each unit of the map to those around it, `[rows,columns]`.
    pub u_matrix: ArrayView2<'a, f64>,
    /// The images.
    pub images: &'a [Placed],
    /// Names of the classes by id; where there is none, the id stands for it.
    pub names: &'a [String],
    /// Mean distance of an image to its unit.
    pub quantisation_error: f64,
    /// Share of the images whose two nearest units lie apart.
    pub topographic_error: f64,
}

/// Draws a cross per image in the cell of its unit, coloured by class, on the
/// U-matrix in greys, with a legend on the right, and encodes the figure.
///
/// The twenty most frequent classes have colours of their own, all others are grey.
/// A cell of more crosses than can be told apart (81 on a grid of 20x20)
/// shows an even choice of them, and the caption says so.
///
/// # Errors
/// If there are no images, one lies outside of the map, or the U-matrix has
/// negative or infinite distances.
pub fn draw_clusters(figure: &ClusterFigure<'_>, format: FigureFormat) -> Result<Vec<u8>> {
    compose(figure)?.encode(format)
}

fn compose(figure: &ClusterFigure<'_>) -> Result<Sheet<'static>> {
    check(figure)?;
    let (rows, columns) = figure.u_matrix.dim();
    let cell = (MAP_SIDE / rows.max(columns) as i32).max(SMALLEST_CELL);
    let map = Bounds {
        left: 0,
        top: 0,
        right: cell * columns as i32,
        bottom: cell * rows as i32,
    };
    let ranking = Ranking::new(figure.images);

    let mut sheet = Sheet::default();
    draw_u_matrix(&mut sheet, figure.u_matrix, cell, map);
    let crowded = draw_crosses(&mut sheet, figure.images, &ranking, cell);
    draw_legend(&mut sheet, figure, &ranking, map);
    draw_caption(&mut sheet, figure, crowded, map);
    Ok(sheet)
}

fn check(figure: &ClusterFigure<'_>) -> Result<()> {
    let (rows, columns) = figure.u_matrix.dim();
    if figure.images.is_empty() {
        bail!("a cluster figure needs at least one image");
    }
    if let Some(number) = figure
        .images
        .iter()
        .position(|image| image.unit.0 >= rows || image.unit.1 >= columns)
    {
        bail!(
            "image {} lies outside of the {rows}x{columns} map",
            number + 1
        );
    }
    if figure.u_matrix.iter().any(|d| !d.is_finite() || *d < 0.0) {
        bail!("the U-matrix holds a value that is no distance");
    }
    Ok(())
}

/// The classes, the most frequent first, and of equally frequent ones the lowest id.
struct Ranking {
    /// Class and number of its images.
    classes: Vec<(usize, usize)>,
    ranks: BTreeMap<usize, usize>,
}

impl Ranking {
    fn new(images: &[Placed]) -> Self {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for image in images {
            *counts.entry(image.class).or_default() += 1;
        }
        let mut classes: Vec<(usize, usize)> = counts.into_iter().collect();
        classes.sort_by_key(|(class, count)| (std::cmp::Reverse(*count), *class));
        let ranks = classes.iter().map(|(class, _)| *class).zip(0..).collect();
        Self { classes, ranks }
    }

    /// How frequent the class is among the others; 0 is the most frequent.
    fn rank(&self, class: usize) -> usize {
        self.ranks.get(&class).copied().unwrap_or(usize::MAX)
    }

    fn colour(&self, class: usize) -> Rgb {
        COLOURS.get(self.rank(class)).copied().unwrap_or(OTHER)
    }
}

/// The grey of a distance between the least and the largest on the map.
fn grey(distance: f64, (least, largest): (f64, f64)) -> Rgb {
    let part = if largest > least {
        (distance - least) / (largest - least)
    } else {
        0.0
    };
    std::array::from_fn(|channel| {
        let (near, far) = (f64::from(NEAR[channel]), f64::from(FAR[channel]));
        (near + part * (far - near)).round() as u8
    })
}

fn range(u_matrix: ArrayView2<'_, f64>) -> (f64, f64) {
    let fold = |(least, largest): (f64, f64), d: &f64| (least.min(*d), largest.max(*d));
    u_matrix.iter().fold((f64::INFINITY, 0.0), fold)
}

fn draw_u_matrix(sheet: &mut Sheet<'_>, u_matrix: ArrayView2<'_, f64>, cell: i32, map: Bounds) {
    let frame = |by: i32| Bounds {
        left: map.left - by,
        top: map.top - by,
        right: map.right + by,
        bottom: map.bottom + by,
    };
    let gap = if cell < NARROWEST_WITH_GAP { 0 } else { 1 };
    sheet.fill(frame(2), RULE);
    sheet.fill(frame(1), WHITE);
    let range = range(u_matrix);
    for ((row, column), distance) in u_matrix.indexed_iter() {
        let area = Bounds {
            left: column as i32 * cell + gap,
            top: row as i32 * cell + gap,
            right: (column as i32 + 1) * cell,
            bottom: (row as i32 + 1) * cell,
        };
        sheet.fill(area, grey(*distance, range));
    }
}

/// The part of a cell's side that crosses may take.
fn room(cell: i32) -> i32 {
    cell - if cell < NARROWEST_WITH_GAP { 2 } else { 8 }
}

/// The most crosses that are drawn in a cell.
fn capacity(cell: i32) -> usize {
    let across = (room(cell) / LEAST_PITCH).max(1) as usize;
    across * across
}

/// Draws the crosses; whether some cells hold more than are drawn.
fn draw_crosses(sheet: &mut Sheet<'_>, images: &[Placed], ranking: &Ranking, cell: i32) -> bool {
    let mut cells: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for image in images {
        cells.entry(image.unit).or_default().push(image.class);
    }
    let most = capacity(cell);
    let mut crowded = false;
    for ((row, column), mut classes) in cells {
        classes.sort_by_key(|class| ranking.rank(*class));
        crowded |= classes.len() > most;
        let drawn = classes.len().min(most);
        let corner = (column as i32 * cell, row as i32 * cell);
        for (place, area) in places(drawn, cell).into_iter().enumerate() {
            let class = classes[place * classes.len() / drawn];
            let area = area.shifted(corner.0, corner.1);
            draw_cross(sheet, area, ranking.colour(class));
        }
    }
    crowded
}

/// Squares for so many crosses side by side in a cell at the origin.
fn places(count: usize, cell: i32) -> Vec<Bounds> {
    let across = (1..).find(|n| n * n >= count).unwrap_or(1);
    let down = count.div_ceil(across);
    let pitch = room(cell) / across as i32;
    let widest = (f64::from(cell) * WIDEST_CROSS) as i32;
    let rim = if pitch < NARROWEST_WITH_RIM { 1 } else { 3 };
    let side = (pitch - rim).min(widest).max(1);
    // Few crosses stay together in the middle.
    let pitch = pitch.min(side + side / 3 + 2);
    let start = |in_line: usize| {
        let length = (in_line as i32 - 1) * pitch + side;
        // The line between cells is on the left and above.
        (cell + 1 - length) / 2
    };
    let area = |place: usize| {
        let (row, column) = (place / across, place % across);
        let in_row = if row + 1 == down {
            count - row * across
        } else {
            across
        };
        let left = start(in_row) + column as i32 * pitch;
        let top = start(down) + row as i32 * pitch;
        Bounds {
            left,
            top,
            right: left + side,
            bottom: top + side,
        }
    };
    (0..count).map(area).collect()
}

/// A cross, with a white rim where it is large enough.
fn draw_cross(sheet: &mut Sheet<'_>, area: Bounds, colour: Rgb) {
    let side = area.right - area.left;
    let width = (side as f32 * 0.17).max(1.3);
    if side >= NARROWEST_WITH_RIM - 3 {
        let around = Bounds {
            left: area.left - 1,
            top: area.top - 1,
            right: area.right + 1,
            bottom: area.bottom + 1,
        };
        sheet.cross(around, width + 2.0, WHITE);
    }
    sheet.cross(area, width, colour);
}

/// A line of the legend.
struct Entry {
    name: String,
    count: usize,
    colour: Rgb,
}

fn entries(ranking: &Ranking, names: &[String]) -> Vec<Entry> {
    let own = ranking.classes.iter().zip(COLOURS);
    let mut entries: Vec<Entry> = own
        .map(|(&(class, count), colour)| Entry {
            name: match names.get(class) {
                Some(name) if !name.trim().is_empty() => name.clone(),
                _ => class.to_string(),
            },
            count,
            colour,
        })
        .collect();
    let others = ranking.classes.get(COLOURS.len()..).unwrap_or_default();
    if !others.is_empty() {
        entries.push(Entry {
            name: format!("other classes ({})", others.len()),
            count: others.iter().map(|(_, count)| count).sum(),
            colour: OTHER,
        });
    }
    entries
}

fn draw_legend(sheet: &mut Sheet<'_>, figure: &ClusterFigure<'_>, ranking: &Ranking, map: Bounds) {
    let style = Lettering::new(Weight::Regular, LEGEND_EM, INK);
    let head = Lettering::new(Weight::Regular, HEAD_EM, SOFT_INK);
    let half_cap = (CAP_HEIGHT * LEGEND_EM / 2.0).round() as i32;
    let entries: Vec<Entry> = entries(ranking, figure.names)
        .into_iter()
        .map(|entry| Entry {
            name: style.shortened(&super::text::one_line(&entry.name), LONGEST_NAME),
            ..entry
        })
        .collect();
    let longest = |texts: &mut dyn Iterator<Item = f32>| texts.fold(0.0, f32::max).ceil() as i32;
    let name_width = longest(&mut entries.iter().map(|e| style.length(&e.name)));
    let counts = entries.iter().map(|e| style.length(&e.count.to_string()));
    let count_width = longest(&mut counts.chain([head.length("images")]));
    let width = (LEGEND_INDENT + name_width + 36 + count_width).max(NARROWEST_LEGEND);
    let left = map.right + LEGEND_GAP;
    let right = left + width;

    let baseline = map.top + (CAP_HEIGHT * HEAD_EM).round() as i32;
    sheet.text("class", (left + LEGEND_INDENT, baseline), head);
    sheet.text("images", (right, baseline), head.aligned(Align::End));
    let first = baseline + 34;
    for (line, entry) in (0..).zip(&entries) {
        let middle = first + line * LEGEND_PITCH;
        let mark = Bounds {
            left,
            top: middle - LEGEND_CROSS / 2,
            right: left + LEGEND_CROSS,
            bottom: middle + LEGEND_CROSS / 2,
        };
        let width = LEGEND_CROSS as f32 * 0.17;
        sheet.cross(mark, width, entry.colour);
        let baseline = middle + half_cap;
        sheet.text(&entry.name, (left + LEGEND_INDENT, baseline), style);
        let count = entry.count.to_string();
        sheet.text(&count, (right, baseline), style.aligned(Align::End));
    }
    draw_scale(sheet, range(figure.u_matrix), (left, right), map.bottom);
}

/// What the greys mean, down to `bottom`; nothing if there is only one.
fn draw_scale(sheet: &mut Sheet<'_>, range: (f64, f64), (left, right): (i32, i32), bottom: i32) {
    let (least, largest) = range;
    if largest - least < 1e-9 {
        return;
    }
    let style = Lettering::new(Weight::Regular, HEAD_EM, SOFT_INK);
    let baseline = bottom;
    let bar = Bounds {
        left,
        top: baseline - 28 - SCALE_HEIGHT,
        right: right.min(left + NARROWEST_LEGEND),
        bottom: baseline - 28,
    };
    let outline = Bounds {
        left: bar.left - 1,
        top: bar.top - 1,
        right: bar.right + 1,
        bottom: bar.bottom + 1,
    };
    sheet.fill(outline, RULE);
    let at = |step: i32| bar.left + (bar.right - bar.left) * step / SCALE_STEPS;
    for step in 0..SCALE_STEPS {
        let part = f64::from(step) / f64::from(SCALE_STEPS - 1);
        let area = Bounds {
            left: at(step),
            right: at(step + 1),
            ..bar
        };
        sheet.fill(area, grey(least + part * (largest - least), range));
    }
    let name = "mean distance to neighbours";
    sheet.text(name, (bar.left, bar.top - 14), style);
    sheet.text(&format!("{least:.2}"), (bar.left, baseline), style);
    let end = (bar.right, baseline);
    sheet.text(&format!("{largest:.2}"), end, style.aligned(Align::End));
}

fn draw_caption(sheet: &mut Sheet<'_>, figure: &ClusterFigure<'_>, crowded: bool, map: Bounds) {
    let style = Lettering::new(Weight::Regular, CAPTION_EM, INK);
    let images = match figure.images.len() {
        1 => "1 image".to_owned(),
        count => format!("{count} images"),
    };
    let caption = format!(
        "{images} · quantisation error {:.3} · topographic error {:.3}",
        figure.quantisation_error, figure.topographic_error
    );
    let baseline = map.bottom + 28 + (CAP_HEIGHT * CAPTION_EM).round() as i32;
    sheet.text(&caption, (map.left, baseline), style);
    if crowded {
        let cell = map.right / figure.u_matrix.ncols() as i32;
        let most = capacity(cell);
        let note = format!("Units with more than {most} images show {most} of them.");
        let style = Lettering::new(Weight::Regular, HEAD_EM, SOFT_INK);
        sheet.text(&note, (map.left, baseline + 36), style);
    }
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
        };
        (0..count).map(image).collect()
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
            quantisation_error: 0.8125,
            topographic_error: 0.25,
        }
    }

    fn texts(figure: &ClusterFigure<'_>) -> Vec<String> {
        let svg = draw_clusters(figure, FigureFormat::Svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        document
            .descendants()
            .filter(|node| node.tag_name().name() == "text")
            .map(|node| node.text().unwrap().trim().to_owned())
            .collect()
    }

    #[test]
    fn crosses_in_a_cell_neither_overlap_nor_leave_it() {
        for cell in [SMALLEST_CELL, 11, 16, 56, 112, 1120] {
            for count in 1..=capacity(cell).min(300) {
                let places = places(count, cell);
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
    fn every_image_has_its_cross_in_its_cell_and_colour() {
        let images =
            [((0, 0), 7), ((3, 1), 7), ((3, 1), 2)].map(|(unit, class)| Placed { unit, class });
        let u_matrix = u_matrix(20);
        let sheet = compose(&figure(&u_matrix, &images, &[])).unwrap();
        let cells = |colour| -> Vec<(i32, i32)> {
            let crosses = sheet.crosses_of(colour);
            crosses.iter().map(|c| (c.top / 56, c.left / 56)).collect()
        };
        // The last one of each colour is in the legend, right of the 20 columns.
        let first = cells(COLOURS[0]);
        assert_eq!(first[..2], [(0, 0), (3, 1)]);
        assert!(first.len() == 3 && first[2].1 >= 20);
        let second = cells(COLOURS[1]);
        assert_eq!(second[0], (3, 1));
        assert!(second.len() == 2 && second[1].1 >= 20);
    }

    #[test]
    fn the_most_frequent_classes_have_colours_and_the_others_one_grey() {
        // Class c has 30 - c images.
        let images: Vec<Placed> = (0..30)
            .flat_map(|class| {
                let unit = (class % 20, 3);
                std::iter::repeat_n(Placed { unit, class }, 30 - class)
            })
            .collect();
        let names = ["first".to_owned(), " ".to_owned(), "third: x".to_owned()];
        let u_matrix = u_matrix(20);
        let figure = figure(&u_matrix, &images, &names);
        let texts = texts(&figure);
        let legend = &texts[2..44];
        let expected = ["first", "30", "1", "29", "third: x", "28", "3", "27"];
        assert_eq!(legend[..8], expected);
        // 10 + 9 + ... + 1 images of ten classes.
        assert_eq!(legend[38..42], ["19", "11", "other classes (10)", "55"]);
        let sheet = compose(&figure).unwrap();
        assert_eq!(sheet.crosses_of(OTHER).len(), 56);
        for (rank, colour) in COLOURS.into_iter().enumerate() {
            assert_eq!(sheet.crosses_of(colour).len(), 30 - rank + 1);
        }
    }

    #[test]
    fn a_crowded_unit_shows_all_its_classes_in_proportion_and_says_so() {
        let images: Vec<Placed> = (0..810)
            .map(|number| Placed {
                unit: (2, 2),
                class: usize::from(number % 3 == 0),
            })
            .collect();
        let u_matrix = u_matrix(20);
        let figure = figure(&u_matrix, &images, &[]);
        let sheet = compose(&figure).unwrap();
        assert_eq!(sheet.crosses_of(COLOURS[0]).len(), 54 + 1);
        assert_eq!(sheet.crosses_of(COLOURS[1]).len(), 27 + 1);
        let note = "Units with more than 81 images show 81 of them.";
        assert!(texts(&figure).iter().any(|text| text == note));
        let few = ClusterFigure {
            images: &images[..81],
            ..figure
        };
        assert!(!texts(&few).iter().any(|text| text == note));
    }

    #[test]
    fn the_caption_counts_images_and_tells_the_errors() {
        let u_matrix = u_matrix(20);
        let images = placed(12, 2, 20);
        let texts = texts(&figure(&u_matrix, &images, &[]));
        let caption = "12 images · quantisation error 0.812 · topographic error 0.250";
        assert_eq!(texts.last().unwrap(), caption);
    }

    #[test]
    fn margins_are_equal_and_no_text_runs_into_another_or_the_map() {
        let names: Vec<String> = (0..150)
            .map(|class| "name_".repeat(class % 40) + &class.to_string())
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
            assert!((1400..=2000).contains(&width), "{width}");
            assert!((1200..=1300).contains(&height), "{height}");
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
        let images = [Placed {
            unit: (2, 2),
            class: 0,
        }];
        let draw = |u_matrix: &Array2<f64>, images: &[Placed]| {
            draw_clusters(&figure(u_matrix, images, &[]), FigureFormat::Png)
        };
        assert!(draw(&good, &images).is_ok());
        assert!(draw(&good, &[]).is_err());
        for unit in [(3, 0), (0, 3)] {
            let error = draw(&good, &[images[0], Placed { unit, class: 0 }]).unwrap_err();
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
