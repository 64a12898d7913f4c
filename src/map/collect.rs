//! Collects the excitations of a batch.

use std::collections::VecDeque;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::analyse::analyse;
use super::{Basis, MapOptions, Maps, PcaAccumulator, ensure_finite_sums, stored};
use crate::hooks::{Excitations, Upsampling};
use crate::joint::Group;
use crate::size::Size;
use crate::spool::{Sequence, Spool};

/// What is stored of a batch. If a GPU makes it, it is on its way to the CPU's memory.
#[derive(Debug)]
pub struct Reduced {
    logits: Tensor,
    excitation: Tensor,
    guides: Vec<Tensor>,
    saliency: Option<Tensor>,
    /// The sums of all of them, on the device of the network, copied last.
    sums: Tensor,
}

impl Reduced {
    /// Waits until a GPU has made it.
    ///
    /// # Errors
    /// Returns an error if a value is not finite, or the GPU failed.
    pub fn wait(&self) -> Result<()> {
        ensure_finite_sums(&self.sums)
    }
}

/// Guides with those of one size as one, whose channels follow each other. They upsample alike,
/// and a GPU has less to do for a few images than to take its orders.
fn grouped(guides: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let mut groups: Vec<Vec<Tensor>> = Vec::new();
    for guide in guides {
        let size = Size::of(&guide);
        match (groups.iter_mut()).find(|group| Size::of(&group[0]) == size) {
            Some(group) => group.push(guide),
            None => groups.push(vec![guide]),
        }
    }
    let groups = groups.iter().map(|group| Tensor::f_cat(group, 1));
    Ok(groups.collect::<Result<_, _>>()?)
}

/// A copy in the CPU's memory, which a GPU makes when it has computed the tensor; a tensor of the
/// CPU as it is.
fn sent(tensor: &Tensor) -> Result<Tensor> {
    match tensor.device() {
        Device::Cpu => Ok(tensor.shallow_clone()),
        _ => Ok((tensor.f_contiguous()?).f_to_device_(Device::Cpu, tensor.kind(), true, false)?),
    }
}

/// Collects the excitations of a batch, in order.
#[derive(Debug)]
pub struct Collector {
    pub(super) options: MapOptions,
    pub(super) spool: Spool,
    pub(super) pca: Option<PcaAccumulator>,
    pub(super) excitation: Sequence,
    /// The guides of the images in `guided`.
    pub(super) guides: Vec<Sequence>,
    /// The numbers of the images whose guides are stored, ascending.
    pub(super) guided: Vec<usize>,
    /// Whether the next images will have maps; all have if nothing is known of them.
    expected: VecDeque<bool>,
    pub(super) logits: Sequence,
    pub(super) saliency: Option<Sequence>,
}

impl Collector {
    /// A collector for these maps that stores tensors in memory.
    pub fn new(options: MapOptions) -> Collector {
        Collector::with_spool(options, &Spool::default())
    }

    /// A collector for these maps that stores tensors in `spool`.
    pub fn with_spool(options: MapOptions, spool: &Spool) -> Collector {
        Collector {
            options,
            spool: spool.clone(),
            pca: None,
            excitation: Sequence::default(),
            guides: Vec::new(),
            guided: Vec::new(),
            expected: VecDeque::new(),
            logits: Sequence::in_blocks(),
            saliency: None,
        }
    }

    /// Says of the next images whether their maps will be asked for. The guides of others, most of what
    /// is stored, are left out, unless the norm of the maps needs those of all.
    pub fn expect(&mut self, maps: impl Iterator<Item = bool>) {
        if !self.options.normalises_last() {
            self.expected.extend(maps);
        }
    }

    /// Adds the excitations of the next images.
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, a value is not finite, or
    /// they cannot be stored.
    pub fn add(&mut self, excitations: Excitations) -> Result<()> {
        let reduced = self.reduce(excitations)?;
        reduced.wait()?;
        self.store(reduced)
    }

    /// Reduces excitations to what is stored, and adds up what depends on all images, on the
    /// device of the network. A GPU may still compute when this returns. If memory is not enough,
    /// nothing is added.
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, or libtorch fails.
    pub fn reduce(&mut self, excitations: Excitations) -> Result<Reduced> {
        let Excitations {
            logits,
            excitation,
            mut guides,
            saliency,
        } = excitations;
        if self.options.upsampling == Upsampling::Bilateral && excitation.device() != Device::Cpu {
            guides = grouped(guides)?;
        }
        let every = [&logits, &excitation].into_iter();
        let sums = (every.chain(&guides).chain(&saliency)).map(|tensor| tensor.f_sum(Kind::Double));
        let sums = Tensor::f_stack(&sums.collect::<Result<Vec<_>, _>>()?, 0)?;
        if self.options.upsampling == Upsampling::Bilateral {
            for guide in &mut guides {
                *guide = stored(guide)?;
            }
        }
        let reduced = Reduced {
            logits: sent(&logits)?,
            excitation: sent(&excitation)?,
            guides: guides.iter().map(sent).collect::<Result<_>>()?,
            saliency: saliency.as_ref().map(sent).transpose()?,
            sums,
        };
        self.pca
            .get_or_insert_with(|| PcaAccumulator::new(excitation.size()[1]))
            .add_finite(&excitation)?;
        Ok(reduced)
    }

    /// Stores what [`reduce`](Collector::reduce) made of the next images, after
    /// [`wait`](Reduced::wait).
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, or they cannot be stored.
    pub fn store(&mut self, reduced: Reduced) -> Result<()> {
        let first = self.excitation.len();
        self.excitation.push(&self.spool, &reduced.excitation)?;
        let count = self.excitation.len() - first;
        let known = self.expected.len().min(count);
        let maps: Vec<bool> = self.expected.drain(..known).collect();
        let has_map = |image: &usize| maps.get(*image).copied().unwrap_or(true);
        let own: Vec<i64> = (0..count)
            .filter(has_map)
            .map(|image| image as i64)
            .collect();
        self.guides
            .resize_with(reduced.guides.len(), Sequence::default);
        for (sequence, guide) in self.guides.iter_mut().zip(&reduced.guides) {
            match own.len() == count {
                true => sequence.push(&self.spool, guide)?,
                false => {
                    let own = guide.f_index_select(0, &Tensor::from_slice(&own))?;
                    sequence.push(&self.spool, &own)?;
                }
            }
        }
        let own = own.iter().map(|&image| first + image as usize);
        self.guided.extend(own);
        self.logits.push(&self.spool, &reduced.logits)?;
        if let Some(saliency) = &reduced.saliency {
            let all = self.saliency.get_or_insert_with(Sequence::in_blocks);
            all.push(&self.spool, saliency)?;
        }
        Ok(())
    }

    /// Fits the components to all images and computes the features.
    ///
    /// # Errors
    /// Returns an error if there is no image or the decomposition fails.
    pub fn finish(self) -> Result<Maps> {
        self.finish_with(None)
    }

    /// Computes the features with the components and ranges of `basis`, if given, so that a
    /// colour has the same meaning as in the run of the basis.
    ///
    /// # Errors
    /// Returns an error if there is no image, the decomposition fails, or the basis has other
    /// channels.
    pub fn finish_with(self, basis: Option<Basis>) -> Result<Maps> {
        self.finish_in(&Group::alone(), basis)
    }

    /// The same for the images of all ranks, each of which has collected a part of them.
    ///
    /// # Errors
    /// Returns the same errors, and one if a rank is lost.
    pub(crate) fn finish_in(self, group: &Group, basis: Option<Basis>) -> Result<Maps> {
        analyse(self, group, basis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Bilateral;

    /// What libtorch makes of the channels of a guide does not depend on the channels beside them.
    #[test]
    fn grouped_guides_upsample_like_single_ones() {
        tch::manual_seed(8);
        let random = |channels: i64, side: i64| {
            Tensor::randn([2, channels, side, side], tch::kind::FLOAT_CPU) * 3.0 + 1.0
        };
        let guides = vec![random(2, 16), random(3, 8), random(1, 16), random(4, 8)];
        let (cells, image) = (Size::new(4, 4), Size::new(32, 32));
        let values = random(3, 4);
        let upsampled = |guides: &[Tensor]| {
            let stored: Vec<Tensor> = guides.iter().map(|guide| stored(guide).unwrap()).collect();
            let way = Bilateral::new(cells, stored.iter().map(Size::of), image).unwrap();
            way.upsample(&values, &stored).unwrap()
        };
        let single = upsampled(&guides);
        let groups = grouped(guides).unwrap();
        let sizes: Vec<Vec<i64>> = groups.iter().map(Tensor::size).collect();
        assert_eq!(sizes, [[2, 3, 16, 16], [2, 7, 8, 8]]);
        let off = (upsampled(&groups) - &single).abs().max();
        assert!(off.double_value(&[]) < 1e-5, "{off:?}");
        assert!(single.std(false).double_value(&[]) > 0.1);
    }
}
