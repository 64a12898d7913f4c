//! Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) with the network's own guides: each
//! pixel is a weighted mean of the colours of cells that are near, and alike in the guides. So
//! each colour is a mix of colours nearby.
//!
//! The constants were chosen on one half of the composites of docs/quality.md and are reported on
//! the other half.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::Result;
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
/// Smaller magnitudes count as zero.
const TINY: f64 = f32::MIN_POSITIVE as f64;
/// A component is constant except for rounding if its deviation is at most this share of its
/// largest magnitude.
const FLAT: f64 = 1e-6;

/// A guide as it is stored: `[n,k,h,w]` float32 to int8. Each component of each image is
/// standardised over its pixels; a constant one becomes zeros.
///
/// # Errors
/// Returns an error if libtorch fails, for example because memory is not enough.
pub fn stored(guide: &Tensor) -> Result<Tensor> {
    let over = [2i64, 3];
    let values = guide.f_to_kind(Kind::Float)?;
    let largest = values.f_abs()?.f_amax(over, true)?.clamp_min(TINY);
    let mean = values.f_mean_dim(over.as_slice(), true, Kind::Float)?;
    // Relative to the largest magnitude, so that no square overflows or vanishes.
    let mut values = values.f_sub(&mean)?.f_div_(&largest)?;
    let variance = values.f_square()?;
    let deviation = variance
        .f_mean_dim(over.as_slice(), true, Kind::Float)?
        .sqrt();
    let is_constant = deviation.le(FLAT);
    let gain = (STEPS / deviation).masked_fill(&is_constant, 0.0);
    let mut steps = values.f_mul_(&gain)?.f_clamp_(-LIMIT, LIMIT)?;
    Ok(steps.f_round_()?.f_to_kind(Kind::Int8)?)
}

/// The upsampling of cells of one size by guides of certain sizes.
#[derive(Debug)]
pub struct Bilateral {
    /// Whether rows and columns are exchanged: bands run along the longer side, so that their
    /// memory grows with the shorter one.
    is_turned: bool,
    cells: Size,
    /// The size of the weighted means: that of the finest guide, at most half of the image.
    working: Size,
    /// Weights of the window of each row and each column of cells, `[h,h_i]` and `[w,w_i]`, over
    /// guides of each size up to the working size.
    windows: HashMap<Size, [Tensor; 2]>,
    /// Minus `d^2 / 2 NEAR^2` along rows and columns, `[h,H]` and `[w,W]`.
    near: [Tensor; 2],
    /// Rows of pixels, and the rows of cells that have weight there.
    bands: Vec<(Range<i64>, Range<i64>)>,
}

impl Bilateral {
    /// For cells and guides of these sizes, and an image of `size`. `None` if no guide is finer
    /// than the cells.
    pub fn new(cells: Size, guides: impl Iterator<Item = Size>, size: Size) -> Option<Bilateral> {
        let is_turned = size.width > size.height;
        let turned = |size: Size| match is_turned {
            true => Size::new(size.width, size.height),
            false => size,
        };
        let (cells, size) = (turned(cells), turned(size));
        let guides: Vec<Size> = guides
            .map(turned)
            .filter(|&guide| is_finer(guide, cells))
            .collect();
        let finest = guides.iter().max_by_key(|guide| guide.pixels())?;
        let side = |finest: i64, whole: i64, cells: i64| finest.min((whole + 1) / 2).max(cells);
        let working = Size::new(
            side(finest.height, size.height, cells.height),
            side(finest.width, size.width, cells.width),
        );
        let rows = Axis::new(working.height, cells.height);
        let columns = Axis::new(working.width, cells.width);
        let sizes = guides.iter().map(|&guide| within(guide, working));
        let windows = sizes.map(|size| {
            let windows = [rows.window(size.height), columns.window(size.width)];
            (size, windows)
        });
        Some(Bilateral {
            is_turned,
            cells,
            working,
            windows: windows.collect(),
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
        let turned = |tensor: &Tensor| match self.is_turned {
            true => tensor.transpose(2, 3),
            false => tensor.shallow_clone(),
        };
        let (values, guides) = (turned(values), guides.iter().map(turned));
        let guides: Vec<Tensor> =
            (guides.filter(|guide| is_finer(Size::of(guide), self.cells))).collect();
        // One by one, because the guides of an image take some megabytes at this size.
        let images = (0..values.size()[0]).map(|image| {
            let own = |tensor: &Tensor| tensor.narrow(0, image, 1);
            let levels = self.levels(guides.iter().map(own))?;
            self.weighed(&own(&values), &levels)
        });
        Ok(turned(&Tensor::f_cat(
            &images.collect::<Result<Vec<_>>>()?,
            0,
        )?))
    }

    /// The guides of an image as the weights need them: those of one size together, `[1,k,h,w]`
    /// float32, none finer than the working size.
    ///
    /// Resizing is linear, so the products of guides and cells can be resized instead of the
    /// guides. With few cells that is less: 2.4 instead of 3.4 ms for an image of 224 pixels.
    fn levels(&self, guides: impl Iterator<Item = Tensor>) -> Result<Vec<Tensor>> {
        let mut levels: Vec<(Size, Vec<Tensor>)> = Vec::new();
        for guide in guides {
            let own = Size::of(&guide);
            let size = within(own, self.working);
            let guide = guide.to_kind(Kind::Float);
            let guide = match own == size {
                true => guide,
                false => guide.adaptive_avg_pool2d([size.height, size.width]),
            };
            match levels.iter_mut().find(|level| level.0 == size) {
                Some((_, guides)) => guides.push(guide),
                None => levels.push((size, vec![guide])),
            }
        }
        let levels = levels.iter().map(|(_, guides)| Tensor::f_cat(guides, 1));
        let levels = levels.collect::<Result<Vec<_>, _>>()?;
        let components: i64 = levels.iter().map(|level| level.size()[1]).sum();
        if self.bands.len() == 1 && self.cells.pixels() <= components {
            return Ok(levels);
        }
        let resized = levels.iter().map(|level| resize(level, self.working));
        Ok(vec![Tensor::f_cat(&resized.collect::<Vec<_>>(), 1)?])
    }

    /// The weighted means of an image, `[1,k,H,W]`, by its guides. If a guide does not have the
    /// working size, there must be one band.
    fn weighed(&self, values: &Tensor, levels: &[Tensor]) -> Result<Tensor> {
        let components: i64 = levels.iter().map(|level| level.size()[1]).sum();
        let unlike = 0.5 / ((ALIKE * STEPS).powi(2) * components as f64);
        let of_cells = levels.iter().map(|level| {
            let [rows, columns] = &self.windows[&Size::of(level)];
            let of_cells = rows.f_matmul(level)?; // [1,k,h,w_i]
            Ok(of_cells.f_matmul(&columns.transpose(0, 1))?)
        });
        let of_cells = of_cells.collect::<Result<Vec<_>>>()?;
        let [vertical, sideways] = &self.near;
        let bands = self.bands.iter().map(|(band, cells)| {
            // [rows of cells, columns of cells, rows of pixels, columns of pixels]
            let vertical = run(&run(vertical, 1, band), 0, cells);
            let near = vertical.unsqueeze(1).unsqueeze(3) + sideways.unsqueeze(0).unsqueeze(2);
            let near = near.flatten(2, 3).flatten(0, 1).unsqueeze(0);
            let there = of_cells.iter().map(|level| {
                let there = run(level, 2, cells).flatten(2, 3).transpose(1, 2);
                there * (2.0 * unlike)
            });
            let there: Vec<Tensor> = there.collect();
            // |g(p)|^2 is the same for all cells, so it is left out.
            let lengths = there.iter().map(|level| {
                let squares = level.square();
                squares.sum_dim_intlist([2i64].as_slice(), true, Kind::Float)
            });
            let lengths: Tensor = lengths.sum();
            let mut likeness = near - lengths / (4.0 * unlike);
            for (level, there) in levels.iter().zip(&there) {
                let size = Size::of(level);
                likeness = match size == self.working {
                    true => {
                        likeness.f_baddbmm(there, &run(level, 2, band).flatten(2, 3), 1.0, 1.0)?
                    }
                    false => {
                        let alike = there.f_bmm(&level.flatten(2, 3))?;
                        let alike = alike.f_view([1, -1, size.height, size.width])?;
                        likeness.f_add_(&resize(&alike, self.working).flatten(2, 3))?
                    }
                };
            }
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

/// The size of a guide, or the working size if the guide is larger.
fn within(guide: Size, working: Size) -> Size {
    match guide.height > working.height || guide.width > working.width {
        true => working,
        false => guide,
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

    /// Weights of the mean over the window of each cell, `[cells,places]` float32, of a guide that
    /// is resized to the pixels.
    fn window(&self, places: i64) -> Tensor {
        let weights = (self.squares() / (-2.0 * WINDOW * WINDOW)).exp();
        let sums = weights.sum_dim_intlist([0i64].as_slice(), true, Kind::Double);
        let weights = (weights / sums).transpose(0, 1); // [cells,pixels]
        let unit = Tensor::eye(places, (Kind::Double, Device::Cpu)).unsqueeze(0);
        let resizing = unit.upsample_linear1d(self.pixels, false, None); // [1,places,pixels]
        let weights = weights.matmul(&resizing.squeeze_dim(0).transpose(0, 1));
        weights.to_kind(Kind::Float)
    }

    /// Runs of pixels with the cells that have weight there: those near the cell below a pixel.
    fn bands(&self) -> Vec<(Range<i64>, Range<i64>)> {
        let last = self.cells - 1;
        let reach = FARTHEST.ceil() as i64;
        let cells_of = |pixel: i64| {
            let cell = (self.place(pixel).round() as i64).clamp(0, last);
            (cell - reach).max(0)..(cell + reach + 1).min(self.cells)
        };
        let pixels: Vec<i64> = (0..self.pixels).collect();
        let alike = pixels.chunk_by(|&a, &b| cells_of(a) == cells_of(b));
        let band = |pixels: &[i64]| {
            let end = pixels[0] + pixels.len() as i64;
            (pixels[0]..end, cells_of(pixels[0]))
        };
        alike.map(band).collect()
    }
}
