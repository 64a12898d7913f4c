//! The safetensors format: the length of a JSON header (u64), the header, and the bare numbers,
//! little-endian and in C order.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::element::of_half;
use super::{ArrayLayout, ArrayType, Stored, list, opened, read_numbers};

/// The bytes of the header's length.
const LENGTH: usize = 8;
/// The longest header that the format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// The start of a file of arrays, up to their data, which begins at a multiple of 8 bytes.
pub(super) fn header(layout: &[ArrayLayout], files: String) -> Result<Vec<u8>> {
    let mut offset = 0;
    let mut tensors = Vec::new();
    for array in layout {
        let ArrayLayout { name, shape, kind } = array;
        let end = array
            .bytes()
            .and_then(|bytes| bytes.checked_add(offset))
            .with_context(|| format!("the array {name} of shape {shape:?} is too large"))?;
        let info = TensorInfo {
            dtype: dtype(*kind),
            shape: shape.clone(),
            data_offsets: (offset, end),
        };
        tensors.push((name.clone(), info));
        offset = end;
    }
    let metadata = HashMap::from([("files".to_string(), files)]);
    let mut json = serde_json::to_vec(&Metadata::new(Some(metadata), tensors)?)?;
    json.resize(json.len().next_multiple_of(LENGTH), b' ');
    ensure!(
        json.len() as u64 <= LONGEST_HEADER,
        "the list of files is too long for a .safetensors file; save an .npz file"
    );
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

fn dtype(kind: ArrayType) -> Dtype {
    match kind {
        ArrayType::F32 => Dtype::F32,
        ArrayType::F16 => Dtype::F16,
        ArrayType::U8 => Dtype::U8,
    }
}

/// The type of the numbers of a tensor, if it is one of those that are written.
pub(super) fn array_type(found: Dtype) -> Option<ArrayType> {
    let known = [ArrayType::F32, ArrayType::F16, ArrayType::U8];
    known.into_iter().find(|&kind| dtype(kind) == found)
}

/// Reads the array of that name, and nothing else of the file.
pub(super) fn read(path: &Path, name: &str) -> Result<Stored> {
    let file = opened(path)?;
    let size = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let (start, metadata) = read_header(&mut reader)
        .map_err(|error| anyhow!("it is no .safetensors file ({error:#})"))?;
    ensure!(
        start.checked_add(metadata.data_len() as u64) == Some(size),
        "it is damaged: its header claims {} bytes of data, but {} follow",
        metadata.data_len(),
        size.saturating_sub(start)
    );
    let Some(info) = metadata.info(name) else {
        bail!(
            "it holds no array {name}, but {}",
            list(metadata.offset_keys())
        );
    };
    reader.seek(SeekFrom::Start(start + info.data_offsets.0 as u64))?;
    let count = info.shape.iter().product();
    let values = match info.dtype {
        Dtype::F32 => read_numbers(reader, count, f32::from_le_bytes)?,
        Dtype::F16 => read_numbers(reader, count, of_half)?,
        Dtype::F64 => read_numbers(reader, count, |bytes| f64::from_le_bytes(bytes) as f32)?,
        other => bail!("its array {name} has the type {other:?}; save it as float32 (F32)"),
    };
    Ok(Stored {
        shape: info.shape.clone(),
        fortran_order: false,
        values,
    })
}

/// Reads the header; returns the position of the data as well.
///
/// Shapes, types and offsets of the tensors agree with each other. The caller compares
/// `Metadata::data_len` with the length of the file.
///
/// # Errors
/// Returns an error if the header is longer than the format allows, cut short or not valid.
pub(crate) fn read_header(mut reader: impl Read) -> Result<(u64, Metadata)> {
    let mut length = [0; LENGTH];
    reader.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    ensure!(
        length <= LONGEST_HEADER,
        "its header would be {length} bytes long"
    );
    let mut json = Vec::new();
    reader.take(length).read_to_end(&mut json)?;
    ensure!(json.len() as u64 == length, "it ends within its header");
    Ok((LENGTH as u64 + length, serde_json::from_slice(&json)?))
}
