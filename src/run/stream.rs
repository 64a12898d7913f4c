//! Batches, one after another, through the network. While a GPU computes one batch, the processor
//! stores what it made of the batch before and prepares the next one.

use std::time::{Duration, Instant};

use anyhow::Result;
use tch::{Device, Tensor};

use crate::error::{Hint, hinted};
use crate::hooks::{HookedModel, Precision, is_lack_of_memory, without_prose};
use crate::map::{Collector, NOT_FINITE, Reduced};
use crate::remarks::Remark;

/// A network and what it makes of all images.
pub struct Stream<'a> {
    model: &'a HookedModel,
    collector: Collector,
    /// What a GPU may still compute.
    underway: Option<Reduced>,
    halving: Halving,
    /// Time of the network, and time of storing and adding up its excitations.
    times: [Duration; 2],
}

impl<'a> Stream<'a> {
    /// Before the first image.
    pub fn new(model: &'a HookedModel, collector: Collector) -> Self {
        Stream {
            model,
            collector,
            underway: None,
            halving: Halving::default(),
            times: [Duration::ZERO; 2],
        }
    }

    /// Says of the next images whether their maps will be asked for.
    pub fn expect(&mut self, maps: impl Iterator<Item = bool>) {
        self.collector.expect(maps);
    }

    /// Runs the network on the next images, `[N,C,H,W]`.
    ///
    /// # Errors
    /// Returns an error if the network fails, or its excitations of these or of the images before
    /// cannot be stored.
    pub fn add(&mut self, batch: &Tensor) -> Result<()> {
        let mut halving = std::mem::take(&mut self.halving);
        let added = halving.run(batch, |part| self.pass(part));
        self.halving = halving;
        added
    }

    fn pass(&mut self, batch: &Tensor) -> Result<()> {
        let begun = Instant::now();
        let batch = self.model.staged(batch);
        let before = self.underway.take();
        before.as_ref().map_or(Ok(()), |before| self.wait(before))?;
        let excitations = self.model.forward(&batch);
        self.times[0] += begun.elapsed();

        let begun = Instant::now();
        let reduced = excitations.and_then(|made| self.collector.reduce(made));
        if let Some(before) = before {
            self.collector.store(before)?;
        }
        self.underway = Some(reduced.map_err(without_prose)?);
        if self.model.device() == Device::Cpu {
            self.store()?;
        }
        self.times[1] += begun.elapsed();
        Ok(())
    }

    /// Waits for the GPU, if it computes, and stores what it made.
    fn store(&mut self) -> Result<()> {
        let Some(reduced) = self.underway.take() else {
            return Ok(());
        };
        self.wait(&reduced)?;
        self.collector.store(reduced)
    }

    fn wait(&self, reduced: &Reduced) -> Result<()> {
        reduced.wait().map_err(|error| {
            let overflows = self.model.precision() == Precision::F16;
            match overflows && error.to_string() == NOT_FINITE {
                true => hinted(
                    "the network's activations are not finite: float16 has no number above 65504",
                    Hint::Precision,
                ),
                false => without_prose(error),
            }
        })
    }

    /// The excitations of all images, remarks, and the times of the network and of collecting.
    ///
    /// # Errors
    /// Returns an error if the excitations of the last images cannot be stored.
    pub fn finish(mut self) -> Result<(Collector, Option<Remark>, [Duration; 2])> {
        let begun = Instant::now();
        self.store()?;
        self.times[0] += begun.elapsed();
        Ok((self.collector, self.halving.remark(), self.times))
    }
}

/// Halves batches that do not fit in memory.
#[derive(Debug, Default)]
struct Halving {
    /// The first batch that did not fit, and the images of later ones.
    found: Option<(i64, i64)>,
}

impl Halving {
    /// Runs `pass` on all images, as many at once as fit in memory.
    fn run(&mut self, images: &Tensor, mut pass: impl FnMut(&Tensor) -> Result<()>) -> Result<()> {
        let (count, mut done) = (images.size()[0], 0);
        while done < count {
            let most = self.found.map_or(count, |(_, most)| most);
            let part = most.min(count - done);
            match pass(&images.narrow(0, done, part)) {
                Ok(()) => done += part,
                Err(error) if part > 1 && is_lack_of_memory(&error) => {
                    let first = self.found.map_or(part, |(first, _)| first);
                    self.found = Some((first, part / 2));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remark(&self) -> Option<Remark> {
        self.found.map(|(first, most)| {
            let those = match most {
                1 => "images go one at a time".to_string(),
                most => format!("{most} images go at once"),
            };
            Remark::note(format!(
                "the memory is not enough for {first} images at once: {those}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    /// Passes that fail with `message` on more than `fitting` images, and the images of those that
    /// did not fail.
    fn passes(
        batches: &[i64],
        fitting: i64,
        message: &str,
    ) -> (Result<()>, Vec<Vec<i64>>, Option<String>) {
        let (mut halving, mut seen, mut first) = (Halving::default(), Vec::new(), 0);
        let mut run = |count: i64| {
            let images = Tensor::arange_start(first, first + count, tch::kind::INT64_CPU);
            first += count;
            halving.run(&images, |part| {
                if part.size()[0] > fitting {
                    return Err(anyhow!(message.to_string()).context("a.pt: running the network"));
                }
                seen.push(Vec::try_from(part)?);
                Ok(())
            })
        };
        let ended = batches.iter().try_for_each(|&count| run(count));
        (ended, seen, halving.remark().map(|remark| remark.text))
    }

    const FULL: &str = "the memory is not enough on the GPU: it asks for 2.00 GiB more";

    #[test]
    fn batches_are_halved_until_they_fit() {
        let (ended, seen, remark) = passes(&[10, 10], 3, FULL);
        ended.unwrap();
        let wanted: &[&[i64]] = &[
            &[0, 1],
            &[2, 3],
            &[4, 5],
            &[6, 7],
            &[8, 9],
            &[10, 11],
            &[12, 13],
            &[14, 15],
            &[16, 17],
            &[18, 19],
        ];
        assert_eq!(seen, wanted);
        let said = "the memory is not enough for 10 images at once: 2 images go at once";
        assert_eq!(remark.as_deref(), Some(said));

        let (ended, seen, remark) = passes(&[2, 3], 1, FULL);
        ended.unwrap();
        assert_eq!(seen, [[0], [1], [2], [3], [4]]);
        let said = "the memory is not enough for 2 images at once: images go one at a time";
        assert_eq!(remark.as_deref(), Some(said));
    }

    #[test]
    fn nothing_is_halved_without_need_or_use() {
        let (ended, seen, remark) = passes(&[4], 4, FULL);
        assert_eq!(
            (ended.is_ok(), seen, remark),
            (true, vec![vec![0, 1, 2, 3]], None)
        );
        let (ended, seen, _) = passes(&[4], 0, FULL); // not even one image fits
        assert_eq!(ended.unwrap_err().root_cause().to_string(), FULL);
        assert_eq!(seen, Vec::<Vec<i64>>::new());
        let (ended, seen, remark) = passes(&[4], 3, "another failure");
        assert_eq!(
            ended.unwrap_err().root_cause().to_string(),
            "another failure"
        );
        assert_eq!((seen, remark), (Vec::new(), None));
    }
}
