//! NumPy's formats: a zip archive of `.npy` files, each of which is a header in
//! Python's notation and the bare numbers.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use zip::ZipArchive;

use super::{Element, Stored, list, opened};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The data starts at a multiple of this.
const ALIGNMENT: usize = 64;
/// NumPy's own limit is 10 000 bytes.
const LONGEST_HEADER: usize = 1 << 16;

/// The start of a `.npy` file, version 1.0, up to its data in C order.
pub fn npy_header(descr: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let axes = match shape {
        [_] => axes.trim_end(),
        _ => axes.trim_end_matches(", "),
    };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let start = MAGIC.len() + 4;
    let total = (start + dict.len() + 1).next_multiple_of(ALIGNMENT);
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend(u16::try_from(total - start)?.to_le_bytes());
    header.extend(dict.bytes());
    header.resize(total - 1, b' ');
    header.push(b'\n');
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
        bail!("it holds no array {name}, but {}", list(arrays));
    };
    let mut entry = archive.by_index(entry)?;
    let size = usize::try_from(entry.size())?;
    let Header {
        length,
        descr,
        fortran_order,
        shape,
    } = Header::read(&mut entry).with_context(|| format!("its array {name} is no .npy file"))?;
    let element = match descr.as_str() {
        "<f4" | "=f4" | "|f4" => Element::F32 { big_endian: false },
        ">f4" => Element::F32 { big_endian: true },
        "<f8" | "=f8" | "|f8" => Element::F64 { big_endian: false },
        ">f8" => Element::F64 { big_endian: true },
        other => bail!("its array {name} has the type {other}; save it as float32 ('<f4')"),
    };
    ensure!(
        element.bytes(&shape) == size.checked_sub(length),
        "its array {name} is damaged: {size} bytes do not hold the shape {shape:?} and its header"
    );
    let count = shape.iter().product();
    let values = element.read(&mut entry, count)?;
    // The end of the entry is where its checksum is compared.
    ensure!(
        std::io::copy(&mut entry, &mut std::io::sink()).context("its data is damaged")? == 0,
        "its array {name} is damaged: bytes follow the data"
    );
    Ok(Stored {
        shape,
        fortran_order,
        values,
    })
}

/// What the start of a `.npy` file says.
struct Header {
    /// The bytes before the data.
    length: usize,
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn read(mut reader: impl Read) -> Result<Header> {
        let mut start = [0; 8];
        reader.read_exact(&mut start)?;
        ensure!(start.starts_with(MAGIC), "it has another signature");
        let (start, dict) = match start[6] {
            1 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                (10, usize::from(u16::from_le_bytes(length)))
            }
            2 | 3 => {
                let mut length = [0; 4];
                reader.read_exact(&mut length)?;
                (12, usize::try_from(u32::from_le_bytes(length))?)
            }
            version => bail!("it has the version {version}, not 1 to 3"),
        };
        ensure!(dict <= LONGEST_HEADER, "its header is {dict} bytes long");
        let mut text = vec![0; dict];
        reader.read_exact(&mut text)?;
        let text = std::str::from_utf8(&text)?;
        Header::parse(start + dict, text)
            .with_context(|| format!("its header is not understood: {}", text.trim()))
    }

    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }`, the keys
    /// in any order.
    fn parse(length: usize, dict: &str) -> Option<Header> {
        let value = |key: &str| {
            let (_, after) = dict.split_once(&format!("'{key}':"))?;
            Some(after.trim_start())
        };
        let descr = value("descr")?;
        let descr = match descr.strip_prefix('\'') {
            Some(rest) => rest.split_once('\'')?.0,
            // A list: named fields.
            None => descr.split_inclusive(']').next()?,
        };
        let fortran_order = match value("fortran_order")? {
            text if text.starts_with("True") => true,
            text if text.starts_with("False") => false,
            _ => return None,
        };
        let (axes, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let axes = axes
            .split(',')
            .map(str::trim)
            .filter(|axis| !axis.is_empty());
        Some(Header {
            length,
            descr: descr.into(),
            fortran_order,
            shape: axes.map(|axis| axis.parse().ok()).collect::<Option<_>>()?,
        })
    }
}
