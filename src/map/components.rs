//! The leading components of all places: what similarity is measured by.

use std::ops::Range;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::pca::Axes;
use crate::spool::Sequence;

/// Scores of the first components, 32 at most, of every place. Cosine similarity in them follows
/// that in all channels (docs/method.md, "Similar places").
#[derive(Debug)]
pub struct Components {
    /// The components; the first three have the signs of the features.
    pub axes: Axes,
    /// The sign of each component in `scores`, `[1,d,1,1]` float32.
    signs: Tensor,
    /// `[N,d,h,w]` float32, with the signs of the decomposition.
    scores: Sequence,
}

impl Components {
    /// Of the scores `[N,d,h,w]` along `axes`; the first components get `signs` `[k]`.
    pub(super) fn new(mut axes: Axes, scores: Sequence, signs: Option<&Tensor>) -> Components {
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

    /// The scores `[n,d]` float32 of excitations `[n,C]` float64.
    pub fn of_excitations(&self, excitations: &Tensor) -> Tensor {
        let scores = (excitations - &self.axes.mean).matmul(&self.axes.components.tr());
        scores.to_kind(Kind::Float)
    }
}
