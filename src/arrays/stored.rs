//! A file of arrays that a run wrote, read in parts: a run may have more arrays than memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::{ArrayFormat, ArrayType, bytes_of, list, npz, opened, safetensors as st};

/// The longest list of images, in bytes.
const LONGEST_LIST: u64 = 1 << 28;

/// The arrays of a file of [`ArrayWriter`](super::ArrayWriter), and the names of its
/// images.
#[derive(Debug)]
pub struct ArrayFile {
    file: File,
    arrays: Vec<Part>,
    /// Names of the images.
    pub files: Vec<String>,
}

/// Where an array is.
#[derive(Debug)]
struct Part {
    name: String,
    shape: Vec<usize>,
    kind: ArrayType,
    start: u64,
}

impl ArrayFile {
    /// Opens a file and finds its arrays.
    ///
    /// # Errors
    /// Returns one line that names the file if it is missing, damaged or of another origin.
    pub fn open(path: &Path) -> Result<ArrayFile> {
        let open = match ArrayFormat::from_path(path)? {
            ArrayFormat::Npz => ArrayFile::open_npz(path),
            ArrayFormat::Safetensors => ArrayFile::open_safetensors(path),
        };
        open.with_context(|| format!("cannot read {}", path.display()))
    }

    fn open_npz(path: &Path) -> Result<ArrayFile> {
        let mut archive = ZipArchive::new(BufReader::new(opened(path)?))
            .map_err(|error| anyhow!("it is no .npz file, or cut short ({error})"))?;
        let (mut arrays, mut files) = (Vec::new(), None);
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let Some(name) = entry.name().strip_suffix(".npy").map(String::from) else {
                continue;
            };
            let (size, start) = (entry.size(), entry.data_start().unwrap_or_default());
            let is_stored = entry.compression() == CompressionMethod::Stored;
            let (header_length, header) = npz::read_header(&mut entry)
                .with_context(|| format!("its array {name} is no .npy file"))?;
            let Some(kind) = header.descr.as_str().and_then(ArrayType::of_descr) else {
                continue; // none of ours
            };
            let damaged = || format!("its array {name} is damaged");
            ensure!(
                is_stored,
                "its array {name} is compressed; prism reads back what it wrote itself"
            );
            ensure!(!header.fortran_order, damaged());
            let bytes = bytes_of(&header.shape, kind.size()).with_context(damaged)?;
            ensure!(bytes as u64 + header_length as u64 == size, damaged());
            if name == super::writer::FILES {
                ensure!(bytes as u64 <= LONGEST_LIST, damaged());
                let mut text = vec![0; bytes];
                entry.read_exact(&mut text).with_context(damaged)?;
                files = Some(text);
                continue;
            }
            arrays.push(Part {
                name,
                shape: header.shape,
                kind,
                start: start + header_length as u64,
            });
        }
        ArrayFile::new(opened(path)?, arrays, files)
    }

    fn open_safetensors(path: &Path) -> Result<ArrayFile> {
        let file = opened(path)?;
        let (start, metadata) = st::read_header(BufReader::new(&file))
            .map_err(|error| anyhow!("it is no .safetensors file ({error:#})"))?;
        let size = file.metadata()?.len();
        ensure!(
            start.checked_add(metadata.data_len() as u64) == Some(size),
            "it is cut short or damaged: its header claims {} bytes of data, but {} follow",
            metadata.data_len(),
            size.saturating_sub(start)
        );
        let arrays = metadata.tensors().into_iter();
        let arrays = arrays.filter_map(|(name, info)| {
            Some(Part {
                name,
                shape: info.shape.clone(),
                kind: st::array_type(info.dtype)?,
                start: start + info.data_offsets.0 as u64,
            })
        });
        let files = metadata.metadata().as_ref();
        let files = files.and_then(|about| about.get(super::writer::FILES));
        let files = files.map(|text| text.clone().into_bytes());
        ArrayFile::new(file, arrays.collect(), files)
    }

    fn new(file: File, arrays: Vec<Part>, files: Option<Vec<u8>>) -> Result<ArrayFile> {
        let files = files.and_then(|text| serde_json::from_slice(&text).ok());
        let files = files.context("it has no list of images, so no run saved it")?;
        Ok(ArrayFile {
            file,
            arrays,
            files,
        })
    }

    /// The shape of an array, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let part = self.arrays.iter().find(|part| part.name == name);
        part.map(|part| part.shape.as_slice())
    }

    /// The names of the arrays.
    pub fn names(&self) -> String {
        list(self.arrays.iter().map(|part| part.name.clone()).collect())
    }

    /// The values of an array for a range of its first axis.
    ///
    /// # Errors
    /// Returns an error if there is no such array or range, if it cannot be read, or if a value is
    /// not finite.
    pub fn read(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let part = self.arrays.iter().find(|part| part.name == name);
        let part = part.with_context(|| format!("there is no array {name}"))?;
        let count = part.shape.first().copied().unwrap_or(0);
        ensure!(
            range.start <= range.end && range.end <= count,
            "the array {name} has {count} images, not {}",
            range.end
        );
        let of_one = part.shape.iter().skip(1).product::<usize>() * part.kind.size();
        let mut bytes = vec![0; of_one * range.len()];
        self.file
            .read_exact_at(&mut bytes, part.start + (of_one * range.start) as u64)
            .with_context(|| format!("its array {name} ends too early"))?;
        let values = part.kind.values(&bytes);
        if values.iter().any(|value| !value.is_finite()) {
            bail!("its array {name} is damaged: it has values that are not finite");
        }
        Ok(values)
    }
}
