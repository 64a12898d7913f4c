//! A self-organising map: a grid of units with weights, in which units side by side stand for
//! similar rows (T. Kohonen, "Self-organized formation of topologically correct feature maps",
//! 1982).
//!
//! It is trained by the batch algorithm (Kohonen, "Essentials of the self-organizing map", 2013,
//! section 4.2): each unit becomes the mean of all rows, weighted by the distance on the grid
//! between the unit and their best units. It needs no learning rate.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use ndarray::{Array2, Array3, ArrayView1, ArrayViewMut1};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Row;

/// The largest grid: a unit of it is 11 pixels wide in the figure.
pub const LARGEST_GRID: usize = 100;

/// Standard deviation of the last neighbourhoods, in units. With 1 the quantisation error is a
/// fifth larger. With 0.5, the best two units of up to one row in eight are not adjacent, instead of
/// one in thirty.
const LAST_RADIUS: f64 = 0.7;

/// A unit with less influence of rows keeps its weights, which would otherwise be quotients of
/// denormal numbers.
const LEAST_INFLUENCE: f64 = 1e-200;

/// Options of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SomOptions {
    /// Units on each side of the square grid.
    pub grid: usize,
    /// Seed of the weights before the first epoch.
    pub seed: u64,
    /// Number of passes over all rows. More than 50 do not improve the map.
    pub epochs: usize,
}

impl Default for SomOptions {
    fn default() -> Self {
        Self {
            grid: 20,
            seed: 0,
            epochs: 50,
        }
    }
}

/// Units along each side of a map of that many images: 5 sqrt(N) units as a square (J. Vesanto's
/// rule for the SOM toolbox, 2000), at least 2 and at most [`LARGEST_GRID`] on a side.
pub fn grid_for(images: usize) -> usize {
    let units = 5.0 * (images as f64).sqrt();
    (units.sqrt().round() as usize).clamp(2, LARGEST_GRID)
}

/// A trained map.
#[derive(Debug, Clone, PartialEq)]
pub struct Som {
    /// `[grid,grid,F]`, in [0, 1].
    pub weights: Array3<f64>,
    /// Row and column of each image's best unit: the nearest by Euclidean distance, the first if
    /// several are equally near.
    pub units: Vec<(usize, usize)>,
    /// Mean distance of an image to its best unit.
    pub quantisation_error: f64,
    /// Share of the images whose second-best unit is not adjacent to the best one.
    pub topographic_error: f64,
    /// `[grid,grid]`: mean distance of each unit to the up to eight around it
    /// (A. Ultsch and H. P. Siemon, 1990). High values are borders between clusters.
    pub u_matrix: Array2<f64>,
}

/// Trains a map on the rows. It depends on the options and the rows, but not on their order. Equal
/// rows share a unit.
///
/// # Errors
/// Returns an error if there are no rows, if they have no or unequally many features, or if the
/// options are out of range.
pub fn train(rows: &[Row], options: &SomOptions) -> Result<Som> {
    let SomOptions { grid, seed, epochs } = *options;
    if !(1..=LARGEST_GRID).contains(&grid) {
        bail!("a grid of {grid}x{grid} units: it may have 1 to {LARGEST_GRID} on a side");
    }
    if epochs == 0 {
        bail!("a self-organising map needs at least one epoch");
    }
    let width = rows.first().map_or(0, |row| row.features.len());
    if width == 0 || rows.iter().any(|row| row.features.len() != width) {
        bail!("a self-organising map needs at least one image, and equally many features of each");
    }
    let patterns = Patterns::of(rows);

    let mut random = Uniform::new(seed);
    let mut weights = Array3::from_shape_simple_fn((grid, grid, width), || random.next());
    for epoch in 0..epochs {
        let radius = radius(grid, epoch, epochs);
        update(&mut weights, &patterns, radius);
    }

    let nearest: Vec<Nearest> = patterns.all.iter().map(|p| nearest(&weights, p)).collect();
    let mean = |of: &dyn Fn(&Nearest) -> f64| {
        let sum: f64 = nearest
            .iter()
            .zip(&patterns.counts)
            .map(|(n, count)| of(n) * count)
            .sum();
        sum / rows.len() as f64
    };
    Ok(Som {
        quantisation_error: mean(&|nearest| nearest.distance),
        topographic_error: mean(&|nearest| f64::from(u8::from(!nearest.second_is_beside()))),
        u_matrix: u_matrix(&weights),
        units: patterns.of_row.iter().map(|p| nearest[*p].best).collect(),
        weights,
    })
}

/// The distinct rows, sorted.
struct Patterns {
    /// Features as 0 and 1.
    all: Vec<Vec<f64>>,
    /// The number of rows equal to each.
    counts: Vec<f64>,
    /// The pattern of each row.
    of_row: Vec<usize>,
}

impl Patterns {
    fn of(rows: &[Row]) -> Self {
        let mut counts: BTreeMap<&[bool], f64> = BTreeMap::new();
        for row in rows {
            *counts.entry(&row.features).or_default() += 1.0;
        }
        let places: BTreeMap<&[bool], usize> = counts.keys().copied().zip(0..).collect();
        let numbers = |bits: &&[bool]| bits.iter().map(|bit| f64::from(u8::from(*bit))).collect();
        Self {
            all: counts.keys().map(numbers).collect(),
            of_row: rows
                .iter()
                .map(|row| places[row.features.as_slice()])
                .collect(),
            counts: counts.into_values().collect(),
        }
    }
}

/// Random numbers in [0, 1), equal on every machine and in every release.
struct Uniform(ChaCha8Rng);

impl Uniform {
    fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    fn next(&mut self) -> f64 {
        // The 53 bits that a double holds.
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Standard deviation of the neighbourhood: from half the grid down to
/// [`LAST_RADIUS`], by the same factor in every epoch.
fn radius(grid: usize, epoch: usize, epochs: usize) -> f64 {
    let first = (grid as f64 / 2.0).max(LAST_RADIUS);
    let part = if epochs > 1 {
        epoch as f64 / (epochs - 1) as f64
    } else {
        1.0
    };
    first * (LAST_RADIUS / first).powf(part)
}

/// One epoch: `w_i = sum_j n_j h_ij mean_j / sum_j n_j h_ij` (Kohonen 2013, eq. 8),
/// where unit j is the best one of `n_j` rows and `h` is a Gaussian on the grid.
fn update(weights: &mut Array3<f64>, patterns: &Patterns, radius: f64) {
    let (grid, _, width) = weights.dim();
    // The sums of the rows, and their number as the last value.
    let mut sums = Array3::<f64>::zeros((grid, grid, width + 1));
    for (pattern, count) in patterns.all.iter().zip(&patterns.counts) {
        let (row, column) = nearest(weights, pattern).best;
        for feature in 0..width {
            sums[(row, column, feature)] += count * pattern[feature];
        }
        sums[(row, column, width)] += count;
    }
    // The Gaussian is separable: rows and columns of the grid one after the other.
    let kernel = Array2::from_shape_fn((grid, grid), |(a, b)| {
        let apart = a.abs_diff(b) as f64 / radius;
        (-0.5 * apart * apart).exp()
    });
    let mut down = Array3::<f64>::zeros(sums.raw_dim());
    let mut across = Array3::<f64>::zeros(sums.raw_dim());
    for (to, from, column) in triples(grid) {
        add(
            down.slice_mut(ndarray::s![to, column, ..]),
            kernel[(to, from)],
            sums.slice(ndarray::s![from, column, ..]),
        );
    }
    for (to, from, row) in triples(grid) {
        add(
            across.slice_mut(ndarray::s![row, to, ..]),
            kernel[(to, from)],
            down.slice(ndarray::s![row, from, ..]),
        );
    }
    for ((row, column, feature), weight) in weights.indexed_iter_mut() {
        let influence = across[(row, column, width)];
        if influence > LEAST_INFLUENCE {
            *weight = across[(row, column, feature)] / influence;
        }
    }
}

fn triples(grid: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..grid).flat_map(move |a| (0..grid).flat_map(move |b| (0..grid).map(move |c| (a, b, c))))
}

fn add(mut to: ArrayViewMut1<f64>, factor: f64, from: ArrayView1<f64>) {
    to.zip_mut_with(&from, |to, from| *to += factor * from);
}

/// The units nearest to a row.
struct Nearest {
    best: (usize, usize),
    /// `None` if the grid has one unit.
    second: Option<(usize, usize)>,
    /// Distance from the row to the best unit.
    distance: f64,
}

impl Nearest {
    fn second_is_beside(&self) -> bool {
        self.second.is_none_or(|(row, column)| {
            self.best.0.abs_diff(row) <= 1 && self.best.1.abs_diff(column) <= 1
        })
    }
}

fn nearest(weights: &Array3<f64>, pattern: &[f64]) -> Nearest {
    let (_, columns, _) = weights.dim();
    let (mut best, mut second) = ((f64::INFINITY, 0), (f64::INFINITY, None));
    for (unit, weights) in weights.lanes(ndarray::Axis(2)).into_iter().enumerate() {
        let square = |(a, b): (&f64, &f64)| (a - b) * (a - b);
        let distance: f64 = weights.iter().zip(pattern).map(square).sum();
        if distance < best.0 {
            second = (best.0, best.0.is_finite().then_some(best.1));
            best = (distance, unit);
        } else if distance < second.0 {
            second = (distance, Some(unit));
        }
    }
    let place = |unit| (unit / columns, unit % columns);
    Nearest {
        best: place(best.1),
        second: second.1.map(place),
        distance: best.0.sqrt(),
    }
}

/// Mean distance of each unit's weights to those of the units around it.
fn u_matrix(weights: &Array3<f64>) -> Array2<f64> {
    let (rows, columns, _) = weights.dim();
    let of = |row: usize, column: usize| weights.slice(ndarray::s![row, column, ..]);
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        let (mut sum, mut count) = (0.0, 0.0);
        for other_row in row.saturating_sub(1)..=(row + 1).min(rows - 1) {
            for other_column in column.saturating_sub(1)..=(column + 1).min(columns - 1) {
                if (other_row, other_column) != (row, column) {
                    let difference = &of(row, column) - &of(other_row, other_column);
                    sum += difference.mapv(|d| d * d).sum().sqrt();
                    count += 1.0;
                }
            }
        }
        if count > 0.0 { sum / count } else { 0.0 }
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn rows(patterns: &[&[u8]]) -> Vec<Row> {
        let row = |bits: &&[u8]| Row {
            path: "image.jpg".into(),
            class: 0,
            features: bits.iter().map(|bit| *bit == 1).collect(),
            truth: None,
        };
        patterns.iter().map(row).collect()
    }

    /// `clusters` patterns of 24 features, with one bit in 20 the other way round.
    fn clustered(count: usize, clusters: usize) -> Vec<Row> {
        let mut random = Uniform::new(7);
        let centres: Vec<Vec<bool>> = (0..clusters)
            .map(|_| (0..24).map(|_| random.next() < 0.5).collect())
            .collect();
        let mut row = |number: usize| Row {
            path: "image.jpg".into(),
            class: number % clusters,
            features: centres[number % clusters]
                .iter()
                .map(|bit| bit ^ (random.next() < 0.05))
                .collect(),
            truth: None,
        };
        (0..count).map(&mut row).collect()
    }

    fn apart(a: (usize, usize), b: (usize, usize)) -> usize {
        a.0.abs_diff(b.0).max(a.1.abs_diff(b.1))
    }

    /// ChaCha with 8 rounds and a key of zeros begins with the bytes
    /// 3e 00 ef 2f 89 5f 40 d6 (J. Strombergson's test vectors, TC1).
    #[test]
    fn random_numbers_are_chachas() {
        let expected = (0xd640_5f89_2fef_003e_u64 >> 11) as f64 / 2f64.powi(53);
        assert_eq!(Uniform::new(0).next(), expected);
        assert_ne!(Uniform::new(1).next(), expected);
    }

    /// 5 sqrt(N) is 5, 15, 70.7, 223.6 and 5e6.
    #[test]
    fn the_grid_follows_the_number_of_images() {
        let images = [1, 9, 200, 2000, 1_000_000_000_000];
        assert_eq!(images.map(grid_for), [2, 4, 8, 15, 100]);
    }

    #[test]
    fn an_epoch_is_the_mean_weighted_by_the_neighbourhood() {
        // Two equal rows have their best unit at (0, 0), the third has it at (1, 1).
        let patterns = Patterns::of(&rows(&[&[0], &[1], &[0]]));
        let mut weights = array![[[0.1], [0.4]], [[0.5], [0.9]]];
        update(&mut weights, &patterns, 1.0);
        // Neighbours: exp(-1/2); diagonally: exp(-1).
        let diagonal = (-1f64).exp();
        let expected = [
            diagonal / (2.0 + diagonal),
            1.0 / 3.0,
            1.0 / 3.0,
            1.0 / (1.0 + 2.0 * diagonal),
        ];
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((weight - expected).abs() < 1e-12, "{weights}");
        }
    }

    #[test]
    fn best_and_second_best_unit() {
        let weights = array![
            [[0.0, 0.0], [0.9, 0.0], [0.0, 0.0]],
            [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
            [[0.0, 0.0], [0.0, 0.0], [1.0, 0.5]],
        ];
        let found = nearest(&weights, &[1.0, 0.0]);
        assert_eq!((found.best, found.second), ((0, 1), Some((2, 2))));
        assert!((found.distance - 0.1).abs() < 1e-12);
        assert!(!found.second_is_beside());
        // Of equally near ones the first; (0, 0) and (0, 2) are not beside each other.
        let found = nearest(&weights, &[0.0, 0.0]);
        assert_eq!((found.best, found.second), ((0, 0), Some((0, 2))));
        assert!(!found.second_is_beside());
        let diagonal = Nearest {
            best: (1, 1),
            second: Some((2, 0)),
            distance: 0.0,
        };
        assert!(diagonal.second_is_beside());
    }

    #[test]
    fn u_matrix_is_the_mean_distance_to_the_units_around() {
        let weights = array![[[0.0, 0.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]]];
        let expected = [
            // 5, 1 and 0
            2.0,
            // 5, sqrt(18) and 5
            (10.0 + 18f64.sqrt()) / 3.0,
            (1.0 + 18f64.sqrt() + 1.0) / 3.0,
            2.0,
        ];
        for (distance, expected) in u_matrix(&weights).iter().zip(expected) {
            assert!((distance - expected).abs() < 1e-12);
        }
        assert_eq!(u_matrix(&array![[[1.0]]]), array![[0.0]]);
    }

    #[test]
    fn neighbourhoods_shrink_from_half_the_grid() {
        assert_eq!(radius(20, 0, 50), 10.0);
        assert!((radius(20, 49, 50) - LAST_RADIUS).abs() < 1e-12);
        assert!(radius(20, 24, 50) < radius(20, 23, 50));
        assert_eq!(radius(1, 0, 1), LAST_RADIUS);
    }

    #[test]
    fn two_clusters_lie_apart_with_a_border_between() {
        let a: &[u8] = &[1, 1, 1, 0, 0, 0];
        let b: &[u8] = &[0, 0, 0, 1, 1, 1];
        let som = train(&rows(&[a, b, a, b, b]), &SomOptions::default()).unwrap();
        assert_eq!(som.units[0], som.units[2]);
        assert_eq!(som.units[1], som.units[3]);
        assert_eq!(som.units[1], som.units[4]);
        assert!(apart(som.units[0], som.units[1]) >= 10, "{:?}", som.units);
        assert!(som.quantisation_error < 1e-6, "{}", som.quantisation_error);
        assert_eq!(som.topographic_error, 0.0);
        // Somewhere between them neighbours differ as a and b do, by sqrt(6), and
        // at the clusters hardly at all.
        let border = som.u_matrix.iter().copied().fold(0.0, f64::max);
        assert!(
            border > 6f64.sqrt() / 3.0 && border <= 6f64.sqrt(),
            "{border}"
        );
        for unit in &som.units {
            assert!(som.u_matrix[*unit] < 1e-3, "{}", som.u_matrix[*unit]);
        }
    }

    #[test]
    fn the_errors_are_those_of_the_weights() {
        let rows = clustered(200, 6);
        let som = train(&rows, &SomOptions::default()).unwrap();
        let (mut sum, mut broken) = (0.0, 0.0);
        for (row, unit) in rows.iter().zip(&som.units) {
            let mut distances: Vec<(f64, (usize, usize))> = Vec::new();
            for place in (0..20).flat_map(|r| (0..20).map(move |c| (r, c))) {
                let weights = som.weights.slice(ndarray::s![place.0, place.1, ..]);
                let square = weights.iter().zip(&row.features).map(|(w, bit)| {
                    let value = if *bit { 1.0 } else { 0.0 };
                    (w - value) * (w - value)
                });
                distances.push((square.sum::<f64>().sqrt(), place));
            }
            distances.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(distances[0].1, *unit);
            sum += distances[0].0;
            broken += f64::from(u8::from(apart(distances[0].1, distances[1].1) > 1));
        }
        assert!((som.quantisation_error - sum / 200.0).abs() < 1e-9);
        assert!((som.topographic_error - broken / 200.0).abs() < 1e-9);
    }

    #[test]
    fn clusters_keep_to_themselves_and_the_map_is_not_torn() {
        let rows = clustered(300, 6);
        for seed in 0..3 {
            let options = SomOptions {
                seed,
                ..SomOptions::default()
            };
            let som = train(&rows, &options).unwrap();
            let mut holder = BTreeMap::new();
            for (row, unit) in rows.iter().zip(&som.units) {
                assert_eq!(*holder.entry(unit).or_insert(row.class), row.class);
            }
            // A single mean for each of the six clusters leaves 1.03.
            assert!(som.quantisation_error < 0.6, "{}", som.quantisation_error);
            assert!(som.topographic_error < 0.05, "{}", som.topographic_error);
            assert!(som.weights.iter().all(|w| (-1e-9..=1.0 + 1e-9).contains(w)));
        }
    }

    #[test]
    fn a_seed_gives_one_map_whatever_the_order() {
        let rows = clustered(100, 4);
        let options = SomOptions::default();
        let som = train(&rows, &options).unwrap();
        assert_eq!(som, train(&rows, &options).unwrap());
        let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
        let other = train(&reversed, &options).unwrap();
        assert_eq!(som.weights, other.weights);
        assert!(som.units.iter().eq(other.units.iter().rev()));
        let seeded = train(&rows, &SomOptions { seed: 1, ..options }).unwrap();
        assert_ne!(som.weights, seeded.weights);
    }

    #[test]
    fn the_smallest_sets_work() {
        for rows in [
            rows(&[&[1]]),
            rows(&[&[0], &[0]]),
            rows(&[&[0], &[1]]),
            rows(&[[1, 0, 1].as_slice(); 9]),
        ] {
            for grid in [1, 2, 20] {
                let options = SomOptions {
                    grid,
                    ..SomOptions::default()
                };
                let som = train(&rows, &options).unwrap();
                assert_eq!(som.weights.dim(), (grid, grid, rows[0].features.len()));
                assert_eq!(som.u_matrix.dim(), (grid, grid));
                assert_eq!(som.units.len(), rows.len());
                assert!(
                    som.weights
                        .iter()
                        .chain(&som.u_matrix)
                        .all(|v| v.is_finite())
                );
                // Where the rows differ, one unit is the mean of 0 and 1, and four keep
                // a part of it, for the last neighbourhoods reach beyond a unit.
                let most = match grid {
                    _ if rows.iter().all(|row| *row == rows[0]) => 1e-9,
                    1 => 0.5,
                    2 => 0.2,
                    _ => 1e-3,
                };
                assert!(som.quantisation_error <= most, "{}", som.quantisation_error);
            }
        }
    }

    #[test]
    fn what_cannot_be_trained_is_an_error() {
        let good = rows(&[&[1, 0], &[0, 1]]);
        let options = SomOptions::default();
        assert!(train(&[], &options).is_err());
        assert!(train(&rows(&[&[]]), &options).is_err());
        assert!(train(&rows(&[&[1], &[0, 1]]), &options).is_err());
        for grid in [0, LARGEST_GRID + 1] {
            assert!(train(&good, &SomOptions { grid, ..options }).is_err());
        }
        let epochs = 0;
        assert!(train(&good, &SomOptions { epochs, ..options }).is_err());
    }
}
