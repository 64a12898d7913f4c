//! Joint runs: several processes (ranks), on one or many machines, make one map of all their images.
//!
//! A [`Group`] of one process is the identity, so that there is one way through a run.

mod join;
mod watch;
mod world;

use std::ops::Range;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use crate::hooks::RawRanks;
use crate::notices::Notices;
use watch::Watch;
use world::World;

/// Whether several processes make one map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Joint {
    /// If a launcher (srun, torchrun) says so
    #[default]
    Auto,
    /// Never
    Off,
}

/// The ranks of a run.
#[derive(Debug)]
pub struct Group(Option<Ranks>);

#[derive(Debug)]
struct Ranks {
    rank: usize,
    size: usize,
    local_rank: usize,
    /// The number of ranks that share this one's processors, itself included.
    sharing: usize,
    raw: RawRanks,
    watch: Arc<Watch>,
}

/// Who says why the run ends.
static WATCH: OnceLock<Arc<Watch>> = OnceLock::new();

fn remember(watch: &Arc<Watch>) {
    let _ = WATCH.set(watch.clone());
}

/// Ends the run on all ranks because of an error of this one; one rank says it. False if there are no
/// other ranks, so that nobody has said it.
pub fn failed(line: &str) -> bool {
    let watch = WATCH.get();
    watch.is_some_and(|watch| watch.fail(line))
}

/// Time for the watch to find out why another rank cannot be reached, and to end this process.
const FINDING: Duration = Duration::from_secs(12);

/// The longest wait for the last ranks to end their watch.
const LEAVING: Duration = Duration::from_secs(10);

/// Waits for the watch to end this process.
fn leave_to_watch() {
    std::thread::sleep(FINDING);
}

impl Group {
    /// A single process.
    pub fn alone() -> Group {
        Group(None)
    }

    /// Joins the other ranks, if there are any and `choice` does not forbid it.
    ///
    /// # Errors
    /// Returns an error if the environment makes no sense, or if the ranks do not find each other.
    pub fn join(choice: Joint, notices: Notices) -> Result<Group> {
        let variable = |name: &str| std::env::var(name).ok();
        match choice {
            Joint::Off => Ok(Group::alone()),
            Joint::Auto => match World::of(variable)? {
                None => Ok(Group::alone()),
                Some(world) => join::join(&world, notices),
            },
        }
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ranks| ranks.rank)
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |ranks| ranks.size)
    }

    /// Whether there are other ranks.
    pub fn is_joint(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this rank writes what there is once.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The number of this process on its host, if there are other ranks.
    pub fn local_rank(&self) -> Option<usize> {
        self.0.as_ref().map(|ranks| ranks.local_rank)
    }

    /// The number of ranks that share the processors of this one, itself included.
    pub fn sharing(&self) -> usize {
        self.0.as_ref().map_or(1, |ranks| ranks.sharing)
    }

    /// A rank and its host, for messages.
    pub fn name_of(&self, rank: usize) -> String {
        let host = self.0.as_ref().map(|ranks| ranks.watch.host(rank));
        format!("rank {rank} ({})", host.unwrap_or("this process"))
    }

    /// This rank's part of `count` images: parts follow each other and differ by one image at most.
    pub fn part(&self, count: usize) -> Range<usize> {
        part(count, self.rank(), self.size())
    }

    /// The bytes of all ranks, in order, on rank 0; nothing on the others.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let Some(ranks) = &self.0 else {
            return Ok(vec![own]);
        };
        if ranks.rank > 0 {
            ranks.send(&own, 0)?;
            return Ok(Vec::new());
        }
        let mut all = vec![own];
        for rank in 1..ranks.size {
            all.push(ranks.receive(rank)?);
        }
        Ok(all)
    }

    /// The values of all ranks, in order, on rank 0; nothing on the others.
    ///
    /// # Errors
    /// Returns an error if a rank is lost, or if a value cannot be written as JSON.
    pub fn gather_values<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        if self.0.is_none() {
            return Ok(vec![own]);
        }
        let all = self.gather(serde_json::to_vec(&own)?)?;
        values(&all)
    }

    /// The values of all ranks, in order, on each of them.
    ///
    /// # Errors
    /// Returns an error if a rank is lost, or if a value cannot be written as JSON.
    pub fn share<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        let Some(ranks) = &self.0 else {
            return Ok(vec![own]);
        };
        let all = self.gather(serde_json::to_vec(&own)?)?;
        let all: Vec<T> = values(&all)?;
        let text = ranks.broadcast(serde_json::to_vec(&all)?)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// What rank 0 computes, on each rank.
    ///
    /// # Errors
    /// Returns an error if rank 0 fails or is lost.
    pub fn of_first<T: Serialize + DeserializeOwned>(
        &self,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(ranks) = &self.0 else {
            return compute();
        };
        let bytes = match ranks.rank {
            0 => serde_json::to_vec(&compute()?)?,
            _ => Vec::new(),
        };
        Ok(serde_json::from_slice(&ranks.broadcast(bytes)?)?)
    }

    /// The tensors of all ranks, in order, on rank 0; nothing on the others. They keep their bits.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn gather_tensors(&self, own: &Tensor) -> Result<Vec<Tensor>> {
        if self.0.is_none() {
            return Ok(vec![own.shallow_clone()]);
        }
        let all = self.gather(packed(own)?)?;
        all.iter().map(|bytes| unpacked(bytes)).collect()
    }

    /// The tensors that rank 0 computes, on each rank.
    ///
    /// # Errors
    /// Returns an error if rank 0 fails or is lost.
    pub fn tensors_of_first(
        &self,
        compute: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(ranks) = &self.0 else {
            return compute();
        };
        let mut packages: Vec<Vec<u8>> = Vec::new();
        if ranks.rank == 0 {
            packages = compute()?.iter().map(packed).collect::<Result<_>>()?;
        }
        let count = ranks.broadcast(vec![packages.len() as u8])?;
        let count = usize::from(*count.first().context("rank 0 sent nothing")?);
        packages.resize(count, Vec::new());
        let packages = packages.into_iter().map(|own| ranks.broadcast(own));
        packages.map(|bytes| unpacked(&bytes?)).collect()
    }

    /// Adds up the tensors of all ranks, of one shape and type, in that of rank 0; those of the others
    /// are undefined then.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn add_up(&self, tensor: &mut Tensor) -> Result<()> {
        let Some(ranks) = &self.0 else {
            return Ok(());
        };
        ranks.done(ranks.raw.add_up(tensor))
    }

    /// Sends bytes to another rank, which receives them.
    ///
    /// # Errors
    /// Returns an error if that rank is lost, or if there is none.
    pub fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        self.ranks()?.send(bytes, to)
    }

    /// Receives what another rank sends.
    ///
    /// # Errors
    /// Returns an error if that rank is lost, or if there is none.
    pub fn receive(&self, from: usize) -> Result<Vec<u8>> {
        self.ranks()?.receive(from)
    }

    fn ranks(&self) -> Result<&Ranks> {
        self.0.as_ref().context("there is one rank only")
    }

    /// Waits until all ranks have come here.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn barrier(&self) -> Result<()> {
        self.share(()).map(drop)
    }

    /// A progress bar over the images of all ranks, of which `all` are shown on rank 0.
    pub fn bar(&self, notices: Notices, all: usize, stage: &'static str) -> Progress {
        let bar = notices.bar(all, stage);
        let watch = self.0.as_ref().map(|ranks| ranks.watch.clone());
        if let Some(watch) = &watch {
            watch.show(stage, &bar);
        }
        Progress { bar, stage, watch }
    }

    /// Waits until all ranks have written all results, and ends the watch over the others: from then
    /// on it does not matter if one is lost, or takes long to print.
    ///
    /// # Errors
    /// Returns an error if a rank is lost before.
    pub fn complete(&self) -> Result<()> {
        self.barrier()?;
        if let Some(ranks) = &self.0 {
            ranks.watch.stop();
        }
        Ok(())
    }

    /// Leaves the other ranks after the run is complete. The store is gone with rank 0, which waits
    /// until the others have ended their watch.
    pub fn finish(self) {
        let Some(Ranks {
            rank, size, raw, ..
        }) = self.0
        else {
            return;
        };
        let (left, wait) = mpsc::channel();
        std::thread::spawn(move || {
            match rank {
                0 => (1..size).for_each(|rank| drop(raw.receive(rank))),
                _ => drop(raw.send(&[], 0)),
            }
            std::mem::forget(raw); // its threads end with the process
            let _ = left.send(());
        });
        let _ = wait.recv_timeout(LEAVING); // a host that lost its power never answers
    }
}

impl Ranks {
    fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        self.done(self.raw.send(bytes, to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        self.done(self.raw.receive(from))
    }

    /// The bytes of rank 0, on each rank.
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut length = Tensor::from_slice(&[bytes.len() as i64]);
        self.done(self.raw.broadcast(&mut length))?;
        let length = length.int64_value(&[0]);
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut values = match self.rank {
            0 => Tensor::from_slice(&bytes),
            _ => Tensor::f_zeros([length], (Kind::Uint8, Device::Cpu))?,
        };
        self.done(self.raw.broadcast(&mut values))?;
        Ok(Vec::try_from(values)?)
    }

    /// A message fails if the other rank is gone; the watch finds out why, and ends this process.
    fn done<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            leave_to_watch();
            anyhow!("a message to or from another rank was lost: {error:#}")
        })
    }
}

/// Counts the images of a stage.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    stage: &'static str,
    watch: Option<Arc<Watch>>,
}

impl Progress {
    /// Counts images of this rank.
    pub fn inc(&self, images: u64) {
        match &self.watch {
            None => self.bar.inc(images),
            Some(watch) => watch.count(self.stage, images),
        }
    }
}

fn part(count: usize, rank: usize, size: usize) -> Range<usize> {
    let begin = |rank: usize| (count as u128 * rank as u128 / size as u128) as usize;
    begin(rank)..begin(rank + 1)
}

fn values<T: DeserializeOwned>(all: &[Vec<u8>]) -> Result<Vec<T>> {
    let values = all.iter().map(|bytes| serde_json::from_slice(bytes));
    Ok(values.collect::<Result<_, _>>()?)
}

/// Types of the tensors that are sent.
const KINDS: [Kind; 4] = [Kind::Uint8, Kind::Float, Kind::Double, Kind::Int64];

/// A tensor as bytes: its type and shape as a line of JSON, and its values.
fn packed(tensor: &Tensor) -> Result<Vec<u8>> {
    let kind = KINDS.iter().position(|&kind| kind == tensor.kind());
    let kind = kind.context("tensors of that type are not sent")?;
    let mut bytes = serde_json::to_vec(&(kind, tensor.size()))?;
    bytes.push(b'\n');
    let head = bytes.len();
    bytes.resize(head + tensor.numel() * tensor.kind().elt_size_in_bytes(), 0);
    let tensor = tensor.f_contiguous()?;
    tensor.f_copy_data_u8(&mut bytes[head..], tensor.numel())?;
    Ok(bytes)
}

fn unpacked(bytes: &[u8]) -> Result<Tensor> {
    let head = bytes.iter().position(|&byte| byte == b'\n');
    let head = head.context("a message is no tensor")?;
    let (kind, size): (usize, Vec<i64>) = serde_json::from_slice(&bytes[..head])?;
    let kind = *KINDS.get(kind).context("a message is no tensor")?;
    let values = &bytes[head + 1..];
    let count: i64 = size.iter().product();
    ensure!(
        values.len() == count as usize * kind.elt_size_in_bytes(),
        "a message is incomplete"
    );
    Ok(Tensor::f_from_data_size(values, &size, kind)?)
}
