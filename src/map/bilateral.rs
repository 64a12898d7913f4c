//! Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) with the network's own guides: each
//! pixel is a weighted mean of the features of cells that are near, and alike in the guides. So
//! no pixel has a colour that no cell nearby has.
//!
//! The constants were chosen on one half of the composites of docs/quality.md and are reported on
//! the other half.

use std::ops::Range;

use anyhow::Result;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::product::resize;
use crate::size::Size;

/// Deviation of the weight over distance, in cells.
const NEAR: f64 = 2.0;
/// Cells that are further away, in rows or columns, have no weight: exp(-9 / 2) is 0.01.
const FARTHEST: f64 = 3.0 * NEAR;
/// Deviation of the weight over the root mean square difference of the standardised guides.
const ALIKE: f64 = 0.2;
/// Deviation of the window, in cells, over which the guides of a cell are averaged: its features
/// see more than the cell itself.
const WINDOW: f64 = 0.6;
/// Stored guides count steps of 1 / 25 deviation, so a byte reaches 5 deviations.
const STEPS: f64 = 25.0;
/// The largest step that is stored.
const LIMIT: f32 = i8::MAX as f32;
/// Beyond it a float32 has no fraction.
const ROUND: f32 = 12_582_912.0;
/// A component is constant except for rounding if its deviation is at most this share of its
/// largest magnitude.
const FLAT: f64 = 1e-6;

/// A guide as it is stored: `[n,k,h,w]` float32 to int8. Each component of each image is
/// standardised over its pixels; a constant one becomes zeros.
///
/// # Errors
/// Returns an error if libtorch fails, for example because memory is not enough.
pub fn stored(guide: &Tensor) -> Result<Tensor> {
    let pixels = Size::of(guide).pixels().max(1) as usize;
    let values = guide.f_to_kind(Kind::Float)?.f_contiguous()?;
    let values = Vec::<f32>::try_from(values.f_view([-1])?)?;
    let mut steps = vec![0i8; values.len()];
    let components = steps.par_chunks_mut(pixels).zip(values.par_chunks(pixels));
    components.for_each(|(steps, values)| standardise(values, steps));
    Ok(Tensor::f_from_slice(&steps)?.f_view(guide.size().as_slice())?)
}

/// A component in steps of its deviation; zeros if it is constant.
fn standardise(values: &[f32], steps: &mut [i8]) {
    let count = values.len() as f64;
    let mean = total(values, f64::from) / count;
    let squares = total(values, |value| (f64::from(value) - mean).powi(2));
    let deviation = (squares / count).sqrt();
    let largest = values
        .iter()
        .fold(0f32, |most, v| if v.abs() > most { v.abs() } else { most });
    if deviation <= f64::from(largest) * FLAT {
        return;
    }
    let (mean, gain) = (mean as f32, (STEPS / deviation) as f32);
    for (step, &value) in steps.iter_mut().zip(values) {
        let steps = ((value - mean) * gain).clamp(-LIMIT, LIMIT);
        // Rounds to even, as `round_ties_even`, which is a call without SSE 4.1: 5 instead of 1 ms an image.
        *step = ((steps + ROUND) - ROUND) as i8;
    }
}

/// The sum of `of` every value, in eight parts: one alone would wait for each addition.
fn total(values: &[f32], of: impl Fn(f32) -> f64) -> f64 {
    let (parts, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for part in parts {
        for (sum, &value) in sums.iter_mut().zip(part) {
            *sum += of(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| of(value)).sum::<f64>()
}

/// The upsampling of cells of one size by guides of certain sizes.
#[derive(Debug)]
pub struct Bilateral {
    cells: Size,
    /// The size of the weighted means: that of the finest guide, at most half of the image.
    working: Size,
    /// Weights of the window of each row and each column of cells, `[h,H]` and `[w,W]`.
    windows: [Tensor; 2],
    /// Minus `d^2 / 2 NEAR^2` along rows and columns, `[h,H]` and `[w,W]`.
    near: [Tensor; 2],
    /// Rows of pixels, and the rows of cells that have weight there.
    bands: Vec<(Range<i64>, Range<i64>)>,
}

impl Bilateral {
    /// For cells and guides of these sizes, and an image of `size`. `None` if no guide is finer
    /// than the cells.
    pub fn new(cells: Size, guides: impl Iterator<Item = Size>, size: Size) -> Option<Bilateral> {
        let finest = guides
            .filter(|&guide| is_finer(guide, cells))
            .max_by_key(|guide| guide.pixels())?;
        let side = |finest: i64, whole: i64, cells: i64| finest.min((whole + 1) / 2).max(cells);
        let working = Size::new(
            side(finest.height, size.height, cells.height),
            side(finest.width, size.width, cells.width),
        );
        let rows = Axis::new(working.height, cells.height);
        let columns = Axis::new(working.width, cells.width);
        Some(Bilateral {
            cells,
            working,
            windows: [rows.window(), columns.window()],
            near: [rows.near(), columns.near()],
            bands: rows.bands(),
        })
    }

    /// Upsamples values `[n,k,h,w]` float32 of the cells with stored guides `[n,k_i,h_i,w_i]` int8
    /// to `[n,k,H,W]`, for each image separately. Guides that are not finer than the cells are not
    /// used.
    ///
    /// The weight of cell c at pixel p is `exp(-d^2 / 2 NEAR^2 - |g(p) - g(c)|^2 / 2 ALIKE^2)`, with
    /// the distance d in cells and the mean square difference of all components of the guides.
    ///
    /// # Errors
    /// Returns an error if libtorch fails, for example because memory is not enough.
    pub fn upsample(&self, values: &Tensor, guides: &[Tensor]) -> Result<Tensor> {
        let guides = guides.iter().filter(|g| is_finer(Size::of(g), self.cells));
        let guides: Vec<&Tensor> = guides.collect();
        // One by one, because the guides of an image take some megabytes at this size.
        let images = (0..values.size()[0]).map(|image| {
            let own = |tensor: &Tensor| tensor.narrow(0, image, 1);
            let guides = guides
                .iter()
                .map(|guide| own(guide).to_kind(Kind::Float) / STEPS);
            let guides: Vec<Tensor> = guides.map(|guide| fitted(&guide, self.working)).collect();
            self.weighed(&own(values), &Tensor::f_cat(&guides, 1)?)
        });
        Ok(Tensor::f_cat(&images.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The weighted means of an image, `[1,k,H,W]`, by its guides `[1,D,H,W]`.
    fn weighed(&self, values: &Tensor, pixels: &Tensor) -> Result<Tensor> {
        let [rows, columns] = &self.windows;
        let of_cells = rows.f_matmul(pixels)?; // [1,D,h,W]
        let of_cells = of_cells.f_matmul(&columns.transpose(0, 1))?;
        let unlike = 1.0 / (2.0 * ALIKE * ALIKE * pixels.size()[1] as f64);
        let [vertical, sideways] = &self.near;
        let bands = self.bands.iter().map(|(band, cells)| {
            let there = run(&of_cells, 2, cells).flatten(2, 3).transpose(1, 2);
            let here = run(pixels, 2, band).flatten(2, 3);
            // [rows of cells, columns of cells, rows of pixels, columns of pixels]
            let vertical = run(&run(vertical, 1, band), 0, cells);
            let near = vertical.unsqueeze(1).unsqueeze(3) + sideways.unsqueeze(0).unsqueeze(2);
            let near = near.flatten(2, 3).flatten(0, 1).unsqueeze(0);
            // |g(p)|^2 is the same for all cells, so it is left out.
            let lengths = there
                .square()
                .sum_dim_intlist([2i64].as_slice(), true, Kind::Float);
            let bias = near - lengths * unlike;
            let likeness = bias.f_baddbmm(&there, &here, 1.0, 2.0 * unlike)?;
            let weights = likeness.f_softmax(1, Kind::Float)?;
            let made = run(values, 2, cells).flatten(2, 3).f_bmm(&weights)?;
            let height = band.end - band.start;
            Ok(made.f_view([1, values.size()[1], height, self.working.width])?)
        });
        Ok(Tensor::f_cat(&bands.collect::<Result<Vec<_>>>()?, 2)?)
    }
}

fn is_finer(guide: Size, cells: Size) -> bool {
    guide.height > cells.height || guide.width > cells.width
}

fn run(tensor: &Tensor, dim: i64, range: &Range<i64>) -> Tensor {
    tensor.narrow(dim, range.start, range.end - range.start)
}

/// A guide at the working size: bilinear, or the mean over areas if it is larger.
fn fitted(guide: &Tensor, size: Size) -> Tensor {
    let own = Size::of(guide);
    match own.height > size.height || own.width > size.width {
        true => guide.adaptive_avg_pool2d([size.height, size.width]),
        false => resize(guide, size),
    }
}

/// Height or width: some pixels lie over some cells.
struct Axis {
    pixels: i64,
    cells: i64,
}

impl Axis {
    fn new(pixels: i64, cells: i64) -> Axis {
        Axis { pixels, cells }
    }

    /// The place of a pixel, in cells; the first cell's centre is 0.
    fn place(&self, pixel: i64) -> f64 {
        (pixel as f64 + 0.5) * self.cells as f64 / self.pixels as f64 - 0.5
    }

    /// Squared distances in cells, `[pixels,cells]`.
    fn squares(&self) -> Tensor {
        let double = (Kind::Double, Device::Cpu);
        let places: Vec<f64> = (0..self.pixels).map(|pixel| self.place(pixel)).collect();
        let cells = Tensor::arange(self.cells, double);
        (Tensor::from_slice(&places).unsqueeze(1) - cells.unsqueeze(0)).square()
    }

    /// Minus `d^2 / 2 NEAR^2`, infinite beyond FARTHEST, `[cells,pixels]` float32.
    fn near(&self) -> Tensor {
        let squares = self.squares();
        let far = squares.gt(FARTHEST * FARTHEST * (1.0 + 1e-12)); // exactly as far is near enough
        let near = (squares / (-2.0 * NEAR * NEAR)).masked_fill(&far, f64::NEG_INFINITY);
        near.transpose(0, 1).to_kind(Kind::Float).contiguous()
    }

    /// Weights of the mean over the window of each cell, `[cells,pixels]` float32.
    fn window(&self) -> Tensor {
        let weights = (self.squares() / (-2.0 * WINDOW * WINDOW)).exp();
        let sums = weights.sum_dim_intlist([0i64].as_slice(), true, Kind::Double);
        (weights / sums).transpose(0, 1).to_kind(Kind::Float)
    }

    /// The pixels over each cell, with the cells that have weight there.
    fn bands(&self) -> Vec<(Range<i64>, Range<i64>)> {
        let last = self.cells - 1;
        let cell_of = |pixel: i64| (self.place(pixel).round() as i64).clamp(0, last);
        let reach = FARTHEST.ceil() as i64;
        let pixels: Vec<i64> = (0..self.pixels).collect();
        let of_one_cell = pixels.chunk_by(|&a, &b| cell_of(a) == cell_of(b));
        let band = |pixels: &[i64]| {
            let cell = cell_of(pixels[0]);
            let cells = (cell - reach).max(0)..(cell + reach + 1).min(self.cells);
            (pixels[0]..pixels[0] + pixels.len() as i64, cells)
        };
        of_one_cell.map(band).collect()
    }
}
