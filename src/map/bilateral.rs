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
const LIMIT: f64 = i8::MAX as f64;
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
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
    if deviation <= f64::from(largest) * FLAT {
        return;
    }
    let gain = STEPS / deviation;
    for (step, &value) in steps.iter_mut().zip(values) {
        let steps = ((f64::from(value) - mean) * gain).round_ties_even();
        *step = steps.clamp(-LIMIT, LIMIT) as i8;
    }
}

/// Upsamples values `[n,k,h,w]` float32 of the cells with stored guides `[n,k_i,h_i,w_i]` int8 to
/// `[n,k,H,W]`, for each image separately. `[H,W]` is the size of the finest guide, at most half
/// of `size`. Guides that are not finer than the cells are not used.
///
/// The weight of cell c at pixel p is `exp(-d^2 / 2 NEAR^2 - |g(p) - g(c)|^2 / 2 ALIKE^2)`, with
/// the distance d in cells and the mean square difference of all components of the guides. `None`
/// without a finer guide.
///
/// # Errors
/// Returns an error if libtorch fails, for example because memory is not enough.
pub fn bilateral(values: &Tensor, guides: &[Tensor], size: Size) -> Result<Option<Tensor>> {
    let cells = Size::of(values);
    let is_finer = |guide: &&Tensor| {
        let size = Size::of(guide);
        size.height > cells.height || size.width > cells.width
    };
    let guides: Vec<&Tensor> = guides.iter().filter(is_finer).collect();
    let sizes = guides.iter().map(|guide| Size::of(guide));
    let Some(finest) = sizes.max_by_key(|size| size.pixels()) else {
        return Ok(None);
    };
    let side = |finest: i64, whole: i64, cells: i64| finest.min((whole + 1) / 2).max(cells);
    let working = Size::new(
        side(finest.height, size.height, cells.height),
        side(finest.width, size.width, cells.width),
    );
    let brought: Vec<Tensor> = guides
        .iter()
        .map(|guide| fitted(&(guide.to_kind(Kind::Float) / STEPS), working))
        .collect();
    let pixels = Tensor::f_cat(&brought, 1)?;
    let rows = Axis::new(working.height, cells.height);
    let columns = Axis::new(working.width, cells.width);
    let of_cells = rows.window().f_matmul(&pixels)?; // [n,D,h,W]
    let of_cells = of_cells.f_matmul(&columns.window().transpose(0, 1))?;

    let unlike = 1.0 / (2.0 * ALIKE * ALIKE * pixels.size()[1] as f64);
    let mut bands = Vec::new();
    for band in rows.bands() {
        bands.push(weighed(
            values, &pixels, &of_cells, &rows, &columns, &band, unlike,
        )?);
    }
    Ok(Some(Tensor::f_cat(&bands, 2)?))
}

/// The rows of pixels of a band, `[n,k,rows,W]`. `|g(p)|^2` is the same for all cells, so it is
/// left out.
fn weighed(
    values: &Tensor,
    pixels: &Tensor,
    of_cells: &Tensor,
    rows: &Axis,
    columns: &Axis,
    band: &Band,
    unlike: f64,
) -> Result<Tensor> {
    let run = |tensor: &Tensor, dim: i64, range: &Range<i64>| {
        tensor.narrow(dim, range.start, range.end - range.start)
    };
    let vectors = |tensor: Tensor| tensor.flatten(2, 3); // [n,D,places]
    let here = vectors(run(pixels, 2, &band.pixels)).transpose(1, 2);
    let there = vectors(run(of_cells, 2, &band.cells));
    let vertical = run(&run(&rows.distance(), 0, &band.pixels), 1, &band.cells);
    let far = vertical.unsqueeze(1).unsqueeze(3) + columns.distance().unsqueeze(0).unsqueeze(2);
    let (height, width) = (band.pixels.end - band.pixels.start, columns.pixels);
    let far = far.f_reshape([height * width, -1])?;
    let lengths = there
        .square()
        .sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    let likeness = here.f_bmm(&there)? * (2.0 * unlike) - lengths * unlike - far;
    let weights = likeness.softmax(-1, Kind::Float);
    let values = vectors(run(values, 2, &band.cells)).transpose(1, 2);
    let made = weights.f_bmm(&values)?.transpose(1, 2);
    Ok(made.f_reshape([values.size()[0], values.size()[2], height, width])?)
}

/// A guide at the working size: bilinear, or the mean over areas if it is larger.
fn fitted(guide: &Tensor, size: Size) -> Tensor {
    let own = Size::of(guide);
    match own.height > size.height || own.width > size.width {
        true => guide.adaptive_avg_pool2d([size.height, size.width]),
        false => resize(guide, size),
    }
}

/// Rows of pixels and the rows of cells that have weight there.
struct Band {
    pixels: Range<i64>,
    cells: Range<i64>,
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

    /// `d^2 / 2 NEAR^2`, infinite beyond FARTHEST, `[pixels,cells]` float32.
    fn distance(&self) -> Tensor {
        let squares = self.squares();
        let far = squares.gt(FARTHEST * FARTHEST * (1.0 + 1e-12)); // exactly as far is near enough
        (squares / (2.0 * NEAR * NEAR))
            .masked_fill(&far, f64::INFINITY)
            .to_kind(Kind::Float)
    }

    /// Weights of the mean over the window of each cell, `[cells,pixels]` float32.
    fn window(&self) -> Tensor {
        let weights = (self.squares() / (-2.0 * WINDOW * WINDOW)).exp();
        let sums = weights.sum_dim_intlist([0i64].as_slice(), true, Kind::Double);
        (weights / sums).transpose(0, 1).to_kind(Kind::Float)
    }

    /// The pixels over each cell, with the cells that have weight there.
    fn bands(&self) -> Vec<Band> {
        let cell_of = |pixel: i64| {
            self.place(pixel)
                .round()
                .clamp(0.0, (self.cells - 1) as f64)
        };
        let reach = FARTHEST.ceil() as i64;
        let mut bands: Vec<Band> = Vec::new();
        let mut start = 0;
        for pixel in 1..=self.pixels {
            if pixel == self.pixels || cell_of(pixel) != cell_of(start) {
                let cell = cell_of(start) as i64;
                bands.push(Band {
                    pixels: start..pixel,
                    cells: (cell - reach).max(0)..(cell + reach + 1).min(self.cells),
                });
                start = pixel;
            }
        }
        bands
    }
}
