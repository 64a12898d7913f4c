//! The safetensors format: the length of a JSON header (u64), the header, and
//! the bare numbers, little-endian and in C order.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::{Element, Stored, list, opened};

/// The bytes of the header's length.
const LENGTH: usize = 8;
/// The limit that the format sets.
const LONGEST_HEADER: u64 = 100_000_000;

/// The start of a file of float32 arrays, up to their data, which begins at a
/// multiple of 8 bytes.
pub fn header(layout: &[(String, Vec<usize>)], files: String) -> Result<Vec<u8>> {
    let mut offset = 0;
    let mut tensors = Vec::new();
    for (name, shape) in layout {
        let bytes = Element::F32 { big_endian: false }.bytes(shape);
        let end = bytes
            .and_then(|bytes| bytes.checked_add(offset))
            .with_context(|| format!("the array {name} of shape {shape:?} is too large"))?;
        let info = TensorInfo {
            dtype: Dtype::F32,
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
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
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
        "it is damaged: its header speaks of {} bytes of data, and {} follow",
        metadata.data_len(),
        size.saturating_sub(start)
    );
    let Some(info) = metadata.info(name) else {
        bail!(
            "it holds no array {name}, but {}",
            list(metadata.offset_keys())
        );
    };
    let element = match info.dtype {
        Dtype::F32 => Element::F32 { big_endian: false },
        Dtype::F64 => Element::F64 { big_endian: false },
        other => bail!("its array {name} has the type {other:?}; save it as float32 (F32)"),
    };
    reader.seek(SeekFrom::Start(start + info.data_offsets.0 as u64))?;
    let count = info.shape.iter().product();
    Ok(Stored {
        shape: info.shape.clone(),
        fortran_order: false,
        values: element.read(reader, count)?,
    })
}

/// The position of the data, and the header, in itself consistent.
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
