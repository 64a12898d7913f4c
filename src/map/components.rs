//! The leading components of all places: what similarity is measured by.

use std::ops::Range;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::pca::Axes;
use crate::spool::{Sequence, Spool};

/// Scores of the first components, 32 at most, of every place, and its length in all channels.
/// Products of scores over both lengths follow the cosine similarity in all channels
/// (docs/method.md, "Similar places").
#[derive(Debug)]
pub struct Components {
    /// The components; the first three have the signs of the features.
    pub axes: Axes,
    /// The sign of each component in `scores`, `[1,d,1,1]` float32.
    signs: Tensor,
    /// `[N,d,h,w]` float32, with the signs of the decomposition.
    scores: Sequence,
    /// Distance of each excitation from the mean, `[N,1,h,w]` float32.
    lengths: Sequence,
}

impl Components {
    /// Of the scores along `axes`; the first components get `signs` `[k]`.
    pub(super) fn new(mut axes: Axes, of_places: Stored, signs: Option<&Tensor>) -> Components {
        let Stored { scores, lengths } = of_places;
        let count = axes.components.size()[0];
        let all = Tensor::ones([count], (Kind::Float, axes.components.device()));
        if let Some(signs) = signs {
            let known = count.min(signs.size()[0]);
            all.narrow(0, 0, known).copy_(&signs.narrow(0, 0, known));
        }
        axes.flip_signs(&all);
        Components {
            axes,
            signs: all.reshape([1, -1, 1, 1]),
            scores,
            lengths,
        }
    }

    /// The number of components.
    pub fn count(&self) -> usize {
        self.axes.components.size()[0] as usize
    }

    /// The scores of these images, `[n,d,h,w]` float32.
    ///
    /// # Errors
    /// Returns an error if they cannot be read back.
    pub fn of(&self, images: Range<usize>) -> Result<Tensor> {
        Ok(self.scores.get(images)? * &self.signs)
    }

    /// The distances of the excitations of these images from the mean, `[n,1,h,w]` float32.
    ///
    /// # Errors
    /// Returns an error if they cannot be read back.
    pub fn lengths(&self, images: Range<usize>) -> Result<Tensor> {
        self.lengths.get(images)
    }

    /// The scores `[n,d]` float32 of excitations `[n,C]` float64, and their distances from the mean,
    /// `[n,1]`.
    pub fn of_excitations(&self, excitations: &Tensor) -> (Tensor, Tensor) {
        let rows = excitations - &self.axes.mean;
        let scores = rows.matmul(&self.axes.components.tr());
        let lengths = rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        (scores.to_kind(Kind::Float), lengths.to_kind(Kind::Float))
    }
}

/// The scores and lengths of all places so far.
#[derive(Debug, Default)]
pub(super) struct Stored {
    scores: Sequence,
    lengths: Sequence,
}

impl Stored {
    /// Adds the scores `[n,d,h,w]` of the next images along `axes`, and the lengths of their
    /// excitation `[n,C,h,w]`.
    ///
    /// # Errors
    /// Returns an error if the spool's file cannot be written.
    pub(super) fn add(
        &mut self,
        spool: &Spool,
        axes: &Axes,
        scores: &Tensor,
        excitation: &Tensor,
    ) -> Result<()> {
        self.scores.push(spool, scores)?;
        let mean = axes.mean.reshape([1, -1, 1, 1]);
        let rows = excitation.to_kind(Kind::Double) - mean;
        let lengths = rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        self.lengths.push(spool, &lengths.to_kind(Kind::Float))
    }
}
