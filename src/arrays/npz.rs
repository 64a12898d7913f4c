//! NumPy's formats: a zip archive of `.npy` files. Each is a header, which is a Python
//! literal, and the bare numbers.
//!
//! `ndarray-npy` reads them as well; it would add 16 crates and 31 s of unit time to the build.

use std::io::{BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use zip::ZipArchive;

use super::element::of_half;
use super::{Stored, bytes_of, list, opened, read_numbers};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The data starts at a multiple of this many bytes.
const ALIGNMENT: usize = 64;
/// The longest header, in bytes. NumPy's own limit is 10,000.
const LONGEST_HEADER: usize = 1 << 16;

/// The start of a `.npy` file, version 1.0, up to its data in C order.
pub fn npy_header(descr: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let end = if shape.len() == 1 { ",)" } else { ")" };
    let axes = format!("{shape:?}").replace('[', "(").replace(']', end);
    let mut header = [MAGIC.as_slice(), &[1, 0, 0, 0]].concat();
    let start = header.len();
    write!(
        header,
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': {axes}, }}"
    )?;
    let total = (header.len() + 1).next_multiple_of(ALIGNMENT);
    header.resize(total - 1, b' ');
    header.push(b'\n');
    header[start - 2..start].copy_from_slice(&u16::try_from(total - start)?.to_le_bytes());
    Ok(header)
}

/// Reads the array of that name.
pub fn read(path: &Path, name: &str) -> Result<Stored> {
    let mut archive = ZipArchive::new(BufReader::new(opened(path)?))
        .map_err(|error| anyhow!("it is no .npz file ({error})"))?;
    let entry = archive
        .index_for_name(&format!("{name}.npy"))
        .or_else(|| archive.index_for_name(name));
    let Some(entry) = entry else {
        let names = archive.file_names();
        let arrays = names.map(|name| name.trim_end_matches(".npy").to_string());
        bail!("it holds no array {name}, but {}", list(arrays.collect()));
    };
    let mut entry = archive.by_index(entry)?;
    let size = usize::try_from(entry.size())?;
    let (length, header) =
        read_header(&mut entry).with_context(|| format!("its array {name} is no .npy file"))?;
    let shape = header.shape;
    let descr = header.descr.as_str().unwrap_or("of several fields");
    let element = match descr {
        "<f2" | "=f2" | "|f2" | ">f2" => 2,
        "<f4" | "=f4" | "|f4" | ">f4" => 4,
        "<f8" | "=f8" | "|f8" | ">f8" => 8,
        _ => bail!("its array {name} has the type {descr}; save it as float32 ('<f4')"),
    };
    ensure!(
        bytes_of(&shape, element) == size.checked_sub(length),
        "its array {name} is damaged: {size} bytes do not hold the shape {shape:?} and its header"
    );
    let count = shape.iter().product();
    let values = match descr {
        ">f2" => read_numbers(&mut entry, count, |[high, low]| of_half([low, high])),
        ">f4" => read_numbers(&mut entry, count, f32::from_be_bytes),
        ">f8" => read_numbers(&mut entry, count, |bytes| f64::from_be_bytes(bytes) as f32),
        _ if element == 2 => read_numbers(&mut entry, count, of_half),
        _ if element == 4 => read_numbers(&mut entry, count, f32::from_le_bytes),
        _ => read_numbers(&mut entry, count, |bytes| f64::from_le_bytes(bytes) as f32),
    }?;
    // The zip reader compares the checksum at the end of the entry.
    ensure!(
        std::io::copy(&mut entry, &mut std::io::sink()).context("its data is damaged")? == 0,
        "its array {name} is damaged: bytes follow the data"
    );
    Ok(Stored {
        shape,
        fortran_order: header.fortran_order,
        values,
    })
}

/// The header of a `.npy` file.
#[derive(Deserialize)]
pub struct Header {
    /// The type: a text, or a list of named fields.
    pub descr: serde_json::Value,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
}

/// Reads the header and its length in bytes.
pub fn read_header(mut reader: impl Read) -> Result<(usize, Header)> {
    let mut start = [0; 8];
    reader.read_exact(&mut start)?;
    ensure!(start.starts_with(MAGIC), "it has another signature");
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => bail!("it has the version {version}, not 1 to 3"),
    };
    let mut length = [0; 4];
    reader.read_exact(&mut length[..width])?;
    let length = u32::from_le_bytes(length) as usize;
    ensure!(
        length <= LONGEST_HEADER,
        "its header is {length} bytes long"
    );
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    let text = std::str::from_utf8(&text)?;
    let header = serde_json::from_str(&json_of(text))
        .map_err(|_| anyhow!("its header is not understood: {}", text.trim()))?;
    Ok((start.len() + width + length, header))
}

/// A Python literal of dicts, tuples, texts, truth values and numbers as JSON.
fn json_of(literal: &str) -> String {
    let json: String = literal.split_whitespace().collect();
    let json = json.replace('\'', "\"").replace("True", "true");
    let json = json.replace("False", "false").replace('(', "[");
    json.replace(')', "]").replace(",]", "]").replace(",}", "}")
}
