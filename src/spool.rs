//! Tensors of all images, stored for later stages: in memory up to a limit, beyond it in a
//! temporary file.
//!
//! The file never has a name, so nothing of it remains however the process ends. Ordinary reads
//! copy it into memory that the reader frees; a mapping would leave that to the system.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use tch::{Device, Kind, Tensor};

use crate::error::{Hint, hinted};

/// Tensors of this many bytes or more get a mapping of their own. On the heap they fragmented the
/// space freed by activations (mobilenet_v2 with 64 images took 20 to 40 MB more).
const MAPPED: usize = 64 << 10;
/// The least size of a block of small tensors, bytes.
const BLOCK: usize = MAPPED;

/// The store of a run's tensors. Clones share one limit and one file.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Bytes that may still be stored in memory.
    room: usize,
    folder: PathBuf,
    file: Option<Arc<File>>,
    /// Length of the file.
    written: u64,
}

impl Default for Spool {
    /// A spool without a limit.
    fn default() -> Self {
        Spool::new(usize::MAX, &std::env::temp_dir())
    }
}

impl Spool {
    /// Stores at most `limit` bytes in memory and the rest in a file in `folder`, which is created
    /// when it is needed.
    pub fn new(limit: usize, folder: &Path) -> Spool {
        Spool(Arc::new(Mutex::new(State {
            room: limit,
            folder: folder.to_path_buf(),
            file: None,
            written: 0,
        })))
    }

    /// The same with a file that is opened at once, so that a folder that cannot be used is known
    /// before the work. The folder must be there.
    ///
    /// # Errors
    /// Returns an error if no file can be written in the folder.
    pub fn opened(limit: usize, folder: &Path) -> Result<Spool> {
        let spool = Spool::new(limit, folder);
        spool.state().open().map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::NotFound => "there is no such folder".to_string(),
                ErrorKind::NotADirectory => "it is not a folder".to_string(),
                ErrorKind::PermissionDenied => "permission denied".to_string(),
                _ => in_short(&error),
            };
            let folder = folder.display();
            let message = format!("cannot store intermediate results in {folder}: {reason}");
            hinted(message, Hint::Spool)
        })?;
        Ok(spool)
    }

    /// Bytes that were written to the file.
    pub fn written(&self) -> u64 {
        self.state().written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves part of the limit if enough is left.
    fn share(&self, bytes: usize) -> Option<Share> {
        let mut state = self.state();
        state.room = state.room.checked_sub(bytes)?;
        Some(Share(self.clone(), bytes))
    }

    fn store(&self, tensor: &Tensor) -> Result<Stored> {
        let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let copy = |bytes: &mut [u8]| Ok(tensor.f_copy_data_u8(bytes, tensor.numel())?);
        if let Some(share) = self.share(length) {
            // If no memory is left for a mapping, the file has room.
            if let Some(stored) = in_memory(length, share, copy)? {
                return Ok(stored);
            }
        }
        let mut bytes = vec![0; length];
        copy(&mut bytes)?;
        self.append(&bytes)
    }

    fn store_bytes(&self, bytes: Vec<u8>) -> Result<Stored> {
        if let Some(share) = self.share(bytes.len()) {
            let copy = |to: &mut [u8]| {
                to.copy_from_slice(&bytes);
                Ok(())
            };
            if let Some(stored) = in_memory(bytes.len(), share, copy)? {
                return Ok(stored);
            }
        }
        self.append(&bytes)
    }

    fn append(&self, bytes: &[u8]) -> Result<Stored> {
        let mut state = self.state();
        state.append(bytes).map_err(|error| {
            let folder = state.folder.display();
            let reason = in_short(&error);
            let message = format!("cannot store intermediate results in {folder}: {reason}");
            hinted(message, Hint::Memory)
        })
    }
}

/// Bytes that `copy` writes; none if there is no memory for a mapping.
fn in_memory(
    length: usize,
    share: Share,
    copy: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Option<Stored>> {
    if length < MAPPED {
        let mut bytes = vec![0; length];
        copy(&mut bytes)?;
        return Ok(Some(Stored::Heap {
            bytes,
            _share: share,
        }));
    }
    let Ok(mut bytes) = MmapMut::map_anon(length) else {
        return Ok(None);
    };
    copy(&mut bytes)?;
    Ok(Some(Stored::Mapped {
        bytes,
        _share: share,
    }))
}

/// The default limit: a share of the memory of the machine, or of the control group of the process.
/// It is small because the system caches the file while it has room.
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

/// An error without the path of the temporary file, which tempfile appends.
fn in_short(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" at path").next().unwrap_or(&text).to_string()
}

impl State {
    fn open(&mut self) -> std::io::Result<Arc<File>> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => Arc::new(tempfile::tempfile_in(&self.folder)?),
        };
        self.file = Some(file.clone());
        Ok(file)
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<Stored> {
        let file = self.open()?;
        let offset = self.written;
        file.write_all_at(bytes, offset)?;
        self.written += bytes.len() as u64;
        Ok(Stored::File { file, offset })
    }
}

/// The bytes of a tensor.
#[derive(Debug)]
enum Stored {
    Heap { bytes: Vec<u8>, _share: Share },
    Mapped { bytes: MmapMut, _share: Share },
    File { file: Arc<File>, offset: u64 },
}

/// Part of a spool's limit, in bytes. Dropping it frees them.
#[derive(Debug)]
struct Share(Spool, usize);

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.room = state.room.saturating_add(self.1);
    }
}

/// One tensor `[N,...]` of all images. Images are added in order and read in any order.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Shape of one image's part, and its type.
    layout: Option<(Vec<i64>, Kind)>,
    count: usize,
    /// The images of each stored part, in order.
    parts: Vec<(Range<usize>, Stored)>,
    /// Whether small tensors share parts.
    in_blocks: bool,
    /// The bytes of the last images, which are too few for a part of their own.
    last: Vec<u8>,
}

impl Sequence {
    /// The number of images that were added.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Shape of one image's part; empty before the first image.
    pub fn shape(&self) -> &[i64] {
        self.layout.as_ref().map_or(&[], |(shape, _)| shape)
    }

    /// Adds a tensor `[n,...]` of the next `n` images.
    ///
    /// # Errors
    /// Returns an error if its shape or type differs from those before, or if the spool's file
    /// cannot be written.
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
        if count == 0 {
            return Ok(());
        }
        self.count += count;
        let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
        if self.in_blocks && length < BLOCK {
            self.last
                .reserve_exact(BLOCK.saturating_sub(self.last.len()));
            let begin = self.last.len();
            self.last.resize(begin + length, 0);
            tensor.f_copy_data_u8(&mut self.last[begin..], tensor.numel())?;
            if self.last.len() >= BLOCK {
                let bytes = std::mem::take(&mut self.last);
                self.keep(spool.store_bytes(bytes)?);
            }
            return Ok(());
        }
        if !self.last.is_empty() {
            let bytes = std::mem::take(&mut self.last);
            let stored = spool.store_bytes(bytes)?;
            self.parts.push((self.stored()..self.count - count, stored));
        }
        self.keep(spool.store(&tensor)?);
        Ok(())
    }

    /// A sequence of many small tensors, which are stored in blocks of 64 KiB: small tensors between
    /// large temporary ones would fragment the heap, by two gigabytes for 5,000 images.
    pub fn in_blocks() -> Sequence {
        Sequence {
            in_blocks: true,
            ..Sequence::default()
        }
    }

    /// A sequence without images, whose images would have that shape and type.
    pub fn empty(shape: Vec<i64>, kind: Kind) -> Sequence {
        Sequence {
            layout: Some((shape, kind)),
            ..Sequence::default()
        }
    }

    /// The number of images in parts.
    fn stored(&self) -> usize {
        self.parts.last().map_or(0, |(images, _)| images.end)
    }

    /// Adds a part of all images that have none.
    fn keep(&mut self, stored: Stored) {
        self.parts.push((self.stored()..self.count, stored));
    }

    /// The tensor `[n,...]` of a range of images.
    ///
    /// # Errors
    /// Returns an error if the range is empty, goes beyond the last image or includes a freed one,
    /// or if the spool's file cannot be read.
    pub fn get(&self, images: Range<usize>) -> Result<Tensor> {
        ensure!(
            images.start < images.end && images.end <= self.len(),
            "there are {} images, not {}",
            self.len(),
            images.end
        );
        let first = self
            .parts
            .partition_point(|(part, _)| part.end <= images.start);
        let parts = &self.parts[first..];
        let parts = parts.iter().take_while(|(part, _)| part.start < images.end);
        let mut found = parts
            .map(|(part, stored)| {
                let (from, to) = (images.start.max(part.start), images.end.min(part.end));
                self.read(stored, from - part.start, to - from)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        let begin = images.start.max(self.stored());
        if begin < images.end {
            let offset = begin - self.stored();
            found.push(self.of_bytes(&self.last, offset, images.end - begin)?);
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            _ => Ok(Tensor::f_cat(&found, 0)?),
        }
    }

    fn read(&self, stored: &Stored, start: usize, count: usize) -> Result<Tensor> {
        match stored {
            Stored::Heap { bytes, .. } => self.of_bytes(bytes, start, count),
            Stored::Mapped { bytes, .. } => self.of_bytes(bytes, start, count),
            Stored::File { file, offset } => {
                let of_one = self.bytes_of_one()?;
                let mut read = vec![0; of_one * count];
                file.read_exact_at(&mut read, offset + (of_one * start) as u64)
                    .context("cannot read intermediate results back")?;
                self.of_bytes(&read, 0, count)
            }
        }
    }

    fn bytes_of_one(&self) -> Result<usize> {
        let (shape, kind) = self.layout.as_ref().context("nothing was stored")?;
        Ok(shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes())
    }

    /// The tensor of `count` images from the image `start` of those in `bytes`.
    fn of_bytes(&self, bytes: &[u8], start: usize, count: usize) -> Result<Tensor> {
        let (shape, kind) = self.layout.as_ref().context("nothing was stored")?;
        let of_one = self.bytes_of_one()?;
        let sizes = [&[count as i64], shape.as_slice()].concat();
        let range = of_one * start..of_one * (start + count);
        Ok(Tensor::f_from_data_size(&bytes[range], &sizes, *kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(count: i64) -> Tensor {
        Tensor::arange(count * 6, (Kind::Float, Device::Cpu)).reshape([count, 2, 3])
    }

    #[test]
    fn tensors_are_read_from_memory_and_from_the_file() {
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
    fn large_tensors_are_read_as_well() {
        let all = Tensor::arange(9 * 40_000, (Kind::Float, Device::Cpu)).reshape([9, 200, 200]);
        let spool = Spool::new(5 * 160_000, &std::env::temp_dir());
        let mut kept = Sequence::default();
        for run in all.split_with_sizes([4, 1, 3, 1], 0) {
            kept.push(&spool, &run).unwrap();
        }
        assert_eq!(spool.written(), 4 * 160_000);
        assert_eq!(kept.get(1..3).unwrap(), all.narrow(0, 1, 2));
        assert_eq!(kept.get(0..9).unwrap(), all);
    }

    #[test]
    fn small_tensors_share_blocks() {
        // 24 bytes an image: a block is full after 2,731 of them.
        let all = counting(6000);
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(0, folder.path());
        let mut kept = Sequence::in_blocks();
        for part in all.split(7, 0) {
            kept.push(&spool, &part).unwrap();
        }
        assert_eq!(kept.parts.len(), 2);
        assert_eq!(spool.written(), 2 * 24 * 2737); // 391 parts of 7
        for range in [0..6000, 2736..2738, 2737..5475, 5474..6000, 5999..6000] {
            let (start, count) = (range.start as i64, range.len() as i64);
            assert_eq!(kept.get(range).unwrap(), all.narrow(0, start, count));
        }
        // A large tensor ends a block.
        let large = Tensor::arange(3000 * 6, (Kind::Float, Device::Cpu)).reshape([3000, 2, 3]);
        kept.push(&spool, &large).unwrap();
        kept.push(&spool, &counting(1)).unwrap();
        assert_eq!(kept.get(6000..9000).unwrap(), large);
        assert_eq!(kept.get(5474..6000).unwrap(), all.narrow(0, 5474, 526));
        assert_eq!(kept.get(9000..9001).unwrap(), counting(1));
    }

    #[test]
    fn dropped_sequences_free_their_share() {
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

    #[test]
    fn a_folder_is_tried_before_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::opened(0, folder.path()).unwrap();
        let mut kept = Sequence::default();
        kept.push(&spool, &counting(2)).unwrap();
        assert_eq!(kept.get(0..2).unwrap(), counting(2));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for (path, reason) in [
            (file.as_path(), "it is not a folder"),
            (&folder.path().join("none"), "there is no such folder"),
        ] {
            let error = Spool::opened(0, path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
