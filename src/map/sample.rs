//! Some places of all images, for what need not see all of them.

use std::ops::Range;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::pca::Axes;

/// Places of all images, and what is read there.
#[derive(Debug)]
pub struct Sample {
    /// Numbers of the places among all cells `[N,h,w]`, ascending.
    pub places: Vec<i64>,
    /// Channels of the places so far, `[places,C]` float64 each.
    rows: Vec<Tensor>,
}

impl Sample {
    /// Of `cells` places: all of them, or evenly spread ones that keep no step with rows and columns.
    pub fn new(cells: usize, most: usize) -> Sample {
        // Multiples of the golden ratio modulo 1 are spread evenly.
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let mut places: Vec<i64> = match cells <= most {
            true => (0..cells as i64).collect(),
            false => (0..most)
                .map(|i| ((i as f64 * golden).fract() * cells as f64) as i64)
                .collect(),
        };
        places.sort_unstable();
        places.dedup();
        Sample {
            places,
            rows: Vec::new(),
        }
    }

    /// Adds what `of` makes of the channels, less the mean, `[places,C]` float64, in the
    /// excitation `[n,C,h,w]` of the images that begin at number `first`.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn add(
        &mut self,
        first: usize,
        excitation: &Tensor,
        axes: &Axes,
        of: impl Fn(Tensor) -> Tensor,
    ) -> Result<()> {
        let (count, channels, h, w) = excitation.size4()?;
        let offset = first as i64 * h * w;
        let range: Range<i64> = offset..offset + count * h * w;
        let own = self.places.iter().filter(|place| range.contains(place));
        let own: Vec<i64> = own.map(|place| place - offset).collect();
        if own.is_empty() {
            return Ok(());
        }
        let image = Tensor::from_slice(&own);
        let cell = image.remainder(h * w);
        let image = image.f_floor_divide_scalar(h * w)?;
        let cells = excitation.f_flatten(2, 3)?;
        let rows = cells.f_index(&[Some(image), None, Some(cell)])?;
        debug_assert_eq!(rows.size(), [own.len() as i64, channels]);
        self.rows.push(of(rows.to_kind(Kind::Double) - &axes.mean));
        Ok(())
    }

    /// What was read, `[places,C]` float64.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn rows(&self) -> Result<Tensor> {
        Ok(Tensor::f_cat(&self.rows, 0)?)
    }
}
