//! What a run keeps of its images for later: in memory up to a bound, beyond it in
//! a temporary file.
//!
//! The file has no name from the moment it is made, so nothing of it is left
//! however the process ends. It is read with ordinary reads into memory that the
//! reader frees, which a mapping of the file would leave to the system.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use tch::{Device, Kind, Tensor};

/// From so many bytes on, what is kept lies apart from the allocator's memory, in which it
/// would break up the room that the next chunk's activations need.
const APART: usize = 64 << 10;

/// Where kept tensors go. Clones share one bound and one file.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Bytes that may still stay in memory.
    room: usize,
    folder: PathBuf,
    file: Option<Arc<File>>,
    /// Length of the file.
    written: u64,
}

impl Default for Spool {
    /// Everything stays in memory.
    fn default() -> Self {
        Spool::new(usize::MAX, &std::env::temp_dir())
    }
}

impl Spool {
    /// At most `limit` bytes stay in memory; the rest goes to a file in `folder`,
    /// which is made when it is needed.
    pub fn new(limit: usize, folder: &Path) -> Spool {
        Spool(Arc::new(Mutex::new(State {
            room: limit,
            folder: folder.to_path_buf(),
            file: None,
            written: 0,
        })))
    }

    /// Bytes that went to the file.
    pub fn written(&self) -> u64 {
        self.state().written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Part of the bound for so many bytes, where there is room.
    fn share(&self, bytes: usize) -> Option<Share> {
        let mut state = self.state();
        state.room = state.room.checked_sub(bytes)?;
        Some(Share {
            spool: self.clone(),
            bytes,
        })
    }

    fn keep(&self, tensor: &Tensor) -> Result<Place> {
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        if let Some(_share) = self.share(bytes) {
            if bytes < APART {
                let tensor = tensor.shallow_clone();
                return Ok(Place::Memory { tensor, _share });
            }
            // Where no memory is left, there is the file.
            if let Ok(mut mapped) = MmapMut::map_anon(bytes) {
                tensor.f_copy_data_u8(&mut mapped, tensor.numel())?;
                return Ok(Place::Apart { mapped, _share });
            }
        }
        let mut state = self.state();
        state.append(&bytes_of(tensor)?).with_context(|| {
            format!(
                "cannot keep intermediate results in {} (--memory sets how much stays in memory)",
                state.folder.display()
            )
        })
    }
}

/// How much may stay in memory where nothing else is said: a share of what the
/// machine, or the control group that the process runs in, has. Little, as what goes to
/// the file stays in memory while the system has room for it.
pub fn share_of_memory() -> usize {
    const PARTS: usize = 1024;
    const LEAST: usize = 32 << 20;
    const MOST: usize = 512 << 20;
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let machine = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok())
        .map(|kibibytes| kibibytes << 10);
    let group = read("/sys/fs/cgroup/memory.max").trim().parse().ok();
    let memory = machine.into_iter().chain(group).min();
    memory.map_or(LEAST, |bytes| (bytes / PARTS).clamp(LEAST, MOST))
}

impl State {
    fn append(&mut self, bytes: &[u8]) -> Result<Place> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self
                .file
                .insert(Arc::new(tempfile::tempfile_in(&self.folder)?))
                .clone(),
        };
        let offset = self.written;
        file.write_all_at(bytes, offset)?;
        self.written += bytes.len() as u64;
        Ok(Place::File { file, offset })
    }
}

#[derive(Debug)]
enum Place {
    Memory { tensor: Tensor, _share: Share },
    Apart { mapped: MmapMut, _share: Share },
    File { file: Arc<File>, offset: u64 },
}

/// Part of the bound, given back when what it stands for is gone.
#[derive(Debug)]
struct Share {
    spool: Spool,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.spool.state();
        state.room = state.room.saturating_add(self.bytes);
    }
}

/// Something of every image, `[N,...]`, added in runs of images and read in any.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Sizes of one image's, and their type.
    layout: Option<(Vec<i64>, Kind)>,
    count: usize,
    /// What is still kept, in order.
    parts: Vec<(Range<usize>, Place)>,
}

impl Sequence {
    /// The number of images that were added.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Sizes of what is kept of one image; empty before the first.
    pub fn shape(&self) -> &[i64] {
        self.layout.as_ref().map_or(&[], |(shape, _)| shape)
    }

    /// Adds a tensor `[n,...]` of the next images.
    ///
    /// # Errors
    /// Where its sizes or type differ from those before, or the spool's file cannot
    /// be written.
    pub fn push(&mut self, spool: &Spool, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.detach().f_to_device(Device::Cpu)?.contiguous();
        let (count, shape) = (tensor.size()[0] as usize, tensor.size()[1..].to_vec());
        let layout = (shape, tensor.kind());
        let known = self.layout.get_or_insert_with(|| layout.clone());
        ensure!(
            *known == layout,
            "the network made tensors {:?} of some images and {:?} of others",
            known.0,
            layout.0
        );
        let images = self.count..self.count + count;
        self.parts.push((images, spool.keep(&tensor)?));
        self.count += count;
        Ok(())
    }

    /// Lets go of the images before that one, but for those that came in one run with it.
    pub fn forget_before(&mut self, image: usize) {
        let gone = self.parts.partition_point(|(part, _)| part.end <= image);
        self.parts.drain(..gone);
    }

    /// What is kept of some images, `[n,...]`.
    ///
    /// # Errors
    /// Where there are not as many, they were let go, or the spool's file cannot be read.
    pub fn get(&self, images: Range<usize>) -> Result<Tensor> {
        ensure!(
            images.start < images.end && images.end <= self.len(),
            "there are {} images, not {}",
            self.len(),
            images.end
        );
        let begin = self
            .parts
            .partition_point(|(part, _)| part.end <= images.start);
        let is_kept = |(part, _): &(Range<usize>, Place)| part.start <= images.start;
        ensure!(
            self.parts.get(begin).is_some_and(is_kept),
            "image {} was let go",
            images.start
        );
        let mut found = Vec::new();
        for (part, place) in &self.parts[begin..] {
            let (from, to) = (images.start.max(part.start), images.end.min(part.end));
            if from >= to {
                break;
            }
            found.push(self.part(place, from - part.start, to - from)?);
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            _ => Ok(Tensor::f_cat(&found, 0)?),
        }
    }

    fn part(&self, place: &Place, start: usize, count: usize) -> Result<Tensor> {
        let (shape, kind) = self.layout.as_ref().context("nothing was kept")?;
        let of_one = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let sizes: Vec<i64> = [count as i64].iter().chain(shape).copied().collect();
        let (from, length) = (of_one * start, of_one * count);
        match place {
            Place::Memory { tensor, .. } => Ok(tensor.f_narrow(0, start as i64, count as i64)?),
            Place::Apart { mapped, .. } => {
                let bytes = &mapped[from..from + length];
                Ok(Tensor::f_from_data_size(bytes, &sizes, *kind)?)
            }
            Place::File { file, offset } => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset + from as u64)
                    .context("cannot read intermediate results back")?;
                Ok(Tensor::f_from_data_size(&bytes, &sizes, *kind)?)
            }
        }
    }
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(count: i64) -> Tensor {
        Tensor::arange(count * 6, (Kind::Float, Device::Cpu)).reshape([count, 2, 3])
    }

    #[test]
    fn what_is_kept_comes_back_from_memory_and_from_the_file() {
        let all = counting(9);
        for limit in [usize::MAX, 0, 4 * 24, 7 * 24] {
            let folder = tempfile::tempdir().unwrap();
            let spool = Spool::new(limit, folder.path());
            let mut kept = Sequence::default();
            for run in all.split_with_sizes([4, 1, 3, 1], 0) {
                kept.push(&spool, &run).unwrap();
            }
            assert_eq!((kept.len(), kept.shape()), (9, [2, 3].as_slice()));
            assert_eq!(spool.written() == 0, limit == usize::MAX);
            for start in 0..9 {
                for end in start + 1..=9 {
                    let found = kept.get(start..end).unwrap();
                    let wanted = all.narrow(0, start as i64, (end - start) as i64);
                    assert_eq!(found, wanted, "{start}..{end} with {limit} bytes");
                }
            }
            assert!(kept.get(3..10).is_err() && kept.get(2..2).is_err());
            // The file has no name.
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_is_large_comes_back_too() {
        let all = Tensor::arange(9 * 40_000, (Kind::Float, Device::Cpu)).reshape([9, 200, 200]);
        let spool = Spool::new(5 * 160_000, &std::env::temp_dir());
        let mut kept = Sequence::default();
        for run in all.split_with_sizes([4, 1, 3, 1], 0) {
            kept.push(&spool, &run).unwrap();
        }
        assert_eq!(spool.written(), 4 * 160_000);
        assert_eq!(kept.get(1..3).unwrap(), all.narrow(0, 1, 2));
        assert_eq!(kept.get(0..9).unwrap(), all);
        kept.forget_before(4);
        kept.push(&spool, &all.narrow(0, 0, 4)).unwrap();
        assert_eq!(spool.written(), 4 * 160_000, "no room was given back");
    }

    #[test]
    fn what_is_forgotten_gives_its_room_back_and_leaves_the_rest() {
        let all = counting(9);
        let spool = Spool::new(9 * 24, &std::env::temp_dir());
        let mut kept = Sequence::default();
        for run in all.split_with_sizes([4, 1, 3, 1], 0) {
            kept.push(&spool, &run).unwrap();
        }
        kept.forget_before(7); // the third run, images 5 to 7, is still needed
        assert_eq!(kept.len(), 9);
        assert!(kept.get(4..6).is_err());
        assert_eq!(kept.get(5..9).unwrap(), all.narrow(0, 5, 4));
        kept.push(&spool, &counting(5)).unwrap();
        assert_eq!(spool.written(), 0);
        assert_eq!(kept.get(9..14).unwrap(), counting(5));
        kept.forget_before(14);
        assert_eq!((kept.len(), kept.get(13..14).is_err()), (14, true));
    }

    #[test]
    fn what_is_dropped_gives_its_room_back() {
        let spool = Spool::new(2 * 24, &std::env::temp_dir());
        for _ in 0..3 {
            let mut kept = Sequence::default();
            kept.push(&spool, &counting(2)).unwrap();
            assert_eq!(spool.written(), 0);
        }
        let mut bytes = Sequence::default();
        bytes
            .push(&spool, &Tensor::from_slice(&[1u8, 2, 3]).reshape([1, 3]))
            .unwrap();
        assert_eq!(bytes.get(0..1).unwrap().kind(), Kind::Uint8);
        assert!(bytes.push(&spool, &counting(1)).is_err(), "another layout");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let spool = Spool::new(0, Path::new("/no/such/folder"));
        let error = Sequence::default().push(&spool, &counting(1)).unwrap_err();
        assert!(
            format!("{error:#}").contains("/no/such/folder"),
            "{error:#}"
        );
    }
}
