//! Some places of all images, for what need not see all of them.

use std::ops::Range;

use anyhow::Result;
use tch::Tensor;

/// Places of all images.
#[derive(Debug)]
pub struct Sample {
    /// Numbers of the places among all cells `[N,h,w]`, ascending.
    pub places: Vec<i64>,
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
        Sample { places }
    }

    /// The channels at the places that lie in `values` `[n,C,h,w]`, of the images that begin at number
    /// `first`: `[places,C]`; none if no place lies there.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn of(&self, first: usize, values: &Tensor) -> Result<Option<Tensor>> {
        let (count, _, h, w) = values.size4()?;
        let offset = first as i64 * h * w;
        let range: Range<i64> = offset..offset + count * h * w;
        let begin = self.places.partition_point(|&place| place < range.start);
        let end = self.places.partition_point(|&place| place < range.end);
        let own: Vec<i64> = (self.places[begin..end].iter())
            .map(|place| place - offset)
            .collect();
        if own.is_empty() {
            return Ok(None);
        }
        let image = Tensor::from_slice(&own);
        let cell = image.remainder(h * w);
        let image = image.f_floor_divide_scalar(h * w)?;
        let cells = values.f_flatten(2, 3)?;
        Ok(Some(cells.f_index(&[Some(image), None, Some(cell)])?))
    }
}
