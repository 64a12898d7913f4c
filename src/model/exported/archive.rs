//! The zip archive of an exported program: its description and its weights.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::schema::{Layout, Program, Stored, Tensors, integer};
use super::shown;
use crate::hooks::tensor_of_floats;
use crate::model::archive;

/// The description of a network, below the archive's own folder.
const PROGRAM: &str = "/models/model.json";
/// That of torch 2.5 to 2.7.
const OLD_PROGRAM: &str = "serialized_exported_program.json";
/// Machine code, which torch's AOTInductor writes.
const MACHINE_CODE: &str = "/data/aotinductor/";

/// The largest description, in bytes.
const LARGEST_JSON: u64 = 64 << 20;
/// The limit on the size of all tensors, in units of the file's length: they may share values, or
/// repeat one (stride 0), which damage can make any length.
const MOST_SHARED: u64 = 8;

/// Whether the file is one of torch.export, or a package of AOTInductor.
pub fn holds_program(file: &Path) -> bool {
    archive::has_entry(file, |name| {
        name.ends_with(PROGRAM) || name == OLD_PROGRAM || name.contains(MACHINE_CODE)
    })
}

/// An open file of torch.export.
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    root: String,
    /// The length of the file.
    length: u64,
    /// The bytes that entries may still take: an archive has no more than its file.
    left: u64,
}

/// The tensors of an archive.
pub struct Weights<'a> {
    archive: &'a mut Archive,
    tables: [(&'static str, Tensors); 2],
    read: HashMap<String, Tensor>,
    /// The bytes that tensors may still take.
    left: u64,
}

impl Archive {
    /// Opens a file for which [`holds_program`] holds.
    ///
    /// # Errors
    /// Returns an error if it has another layout than that of torch 2.9 and later.
    pub fn open(file: &Path) -> Result<Archive> {
        let zip = archive::open(file).ok_or_else(|| anyhow!("its archive is damaged"))?;
        let length = std::fs::metadata(file)?.len();
        let ending = |name: &str| name.strip_suffix(PROGRAM).map(String::from);
        let Some(root) = zip.file_names().find_map(ending) else {
            ensure!(
                !zip.file_names().any(|name| name.contains(MACHINE_CODE)),
                "this is a package of AOTInductor, which holds machine code and no network that can be looked into; save the network with torch.export.save"
            );
            bail!(
                "this file of torch.export is of torch 2.7 or before, which prism does not read; export the network with torch 2.9 or later"
            );
        };
        let left = length;
        let archive = Archive {
            zip,
            root,
            length,
            left,
        };
        ensure!(
            archive.has("/data/weights/model_weights_config.json"),
            "this file of torch.export is of torch 2.8, or cut short; export the network with torch 2.9 or later"
        );
        Ok(archive)
    }

    fn has(&self, place: &str) -> bool {
        let name = format!("{}{place}", self.root);
        self.zip.index_for_name(&name).is_some()
    }

    /// The description of the network.
    ///
    /// # Errors
    /// Returns an error if it is damaged.
    pub fn program(&mut self) -> Result<Program> {
        self.json(PROGRAM)
    }

    /// The tensors.
    ///
    /// # Errors
    /// Returns an error if the lists of them are damaged.
    pub fn weights(&mut self) -> Result<Weights<'_>> {
        self.require_little_endian()?;
        let weights = self.json("/data/weights/model_weights_config.json")?;
        let constants = match "/data/constants/model_constants_config.json" {
            place if self.has(place) => self.json(place)?,
            _ => Tensors::default(),
        };
        Ok(Weights {
            left: self.length.saturating_mul(MOST_SHARED),
            archive: self,
            tables: [("weights", weights), ("constants", constants)],
            read: HashMap::new(),
        })
    }

    fn require_little_endian(&mut self) -> Result<()> {
        let is_big = self.has("/byteorder") && self.bytes("/byteorder", 16)?.starts_with(b"big");
        ensure!(!is_big, "its weights are stored in big-endian order");
        Ok(())
    }

    fn json<T: DeserializeOwned>(&mut self, place: &str) -> Result<T> {
        let bytes = self.bytes(place, LARGEST_JSON)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let name = place.rsplit('/').next().unwrap_or(place);
            anyhow!("its {name} is damaged: {}", shown(&error.to_string()))
        })
    }

    /// An entry, which PyTorch stores as it is.
    fn bytes(&mut self, place: &str, largest: u64) -> Result<Vec<u8>> {
        let name = format!("{}{place}", self.root);
        let entry = self.zip.by_name(&name);
        let entry = entry.map_err(|_| anyhow!("it lacks {}", shown(place)))?;
        ensure!(
            entry.compression() == CompressionMethod::Stored,
            "its {} is compressed, which PyTorch does not do",
            shown(place)
        );
        let size = entry.size();
        ensure!(size <= largest, "its {} is too large", shown(place));
        ensure!(size <= self.left, "its archive is damaged: entries overlap");
        self.left -= size;
        let mut bytes = Vec::with_capacity(usize::try_from(size)?);
        let read = entry.take(size).read_to_end(&mut bytes);
        read.with_context(|| format!("its {} is damaged or cut short", shown(place)))?;
        ensure!(
            bytes.len() as u64 == size,
            "its {} is cut short",
            shown(place)
        );
        Ok(bytes)
    }
}

impl Weights<'_> {
    /// The tensor of a parameter, buffer or constant.
    ///
    /// # Errors
    /// Returns an error if it is missing, or does not fit its bytes.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let mut tables = self.tables.iter();
        let found = tables.find_map(|(folder, table)| Some((*folder, table.config.get(name)?)));
        let Some((folder, stored)) = found else {
            bail!("it lacks the weights of '{}'", shown(name));
        };
        let what = || format!("its weights '{}'", shown(name));
        let layout = plain_layout(stored).with_context(what)?;
        self.left = layout
            .bytes()
            .and_then(|bytes| self.left.checked_sub(bytes))
            .with_context(|| format!("{} take far more memory than the file", what()))?;
        let place = format!("/data/{folder}/{}", stored.path_name);
        if let Some(tensor) = self.read.get(&place) {
            return layout.of(tensor).with_context(what);
        }
        let bytes = self.archive.bytes(&place, u64::MAX).with_context(what)?;
        let row = layout.row(bytes).with_context(what)?;
        let tensor = layout.of(&row).with_context(what)?;
        self.read.insert(place, row);
        Ok(tensor)
    }
}

/// A layout whose sizes are known.
struct Plain {
    kind: Kind,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

fn plain_layout(stored: &Stored) -> Result<Plain> {
    ensure!(
        !stored.use_pickle,
        "are a pickled Python object; save a network of plain tensors"
    );
    let Some(Layout {
        dtype,
        sizes,
        strides,
        storage_offset,
    }) = &stored.tensor_meta
    else {
        bail!("have no size");
    };
    let kind = match dtype {
        1 => Kind::Uint8,
        2 => Kind::Int8,
        3 => Kind::Int16,
        4 => Kind::Int,
        5 => Kind::Int64,
        6 => Kind::Half,
        7 => Kind::Float,
        8 => Kind::Double,
        12 => Kind::Bool,
        13 => Kind::BFloat16,
        _ => bail!("are of a number format that prism does not read"),
    };
    let known = |numbers: &[serde_json::Value]| -> Option<Vec<i64>> {
        let numbers: Option<Vec<i64>> = numbers.iter().map(integer).collect();
        numbers.filter(|numbers| numbers.iter().all(|&number| number >= 0))
    };
    let (Some(sizes), Some(strides)) = (known(sizes), known(strides)) else {
        bail!("have sizes or strides that are no numbers, or negative");
    };
    let offset = integer(storage_offset).filter(|&offset| offset >= 0);
    let Some(offset) = offset else {
        bail!("begin at a place that is no number, or negative");
    };
    ensure!(
        sizes.len() == strides.len(),
        "have {} sizes but {} strides",
        sizes.len(),
        strides.len()
    );
    Ok(Plain {
        kind,
        sizes,
        strides,
        offset,
    })
}

impl Plain {
    /// The bytes of the tensor by itself; `None` if they are more than can be counted.
    fn bytes(&self) -> Option<u64> {
        let size = self.kind.elt_size_in_bytes() as i64;
        let sizes = self.sizes.iter();
        let bytes = sizes.copied().try_fold(size, i64::checked_mul)?;
        u64::try_from(bytes).ok()
    }

    /// The stored numbers in a row.
    fn row(&self, bytes: Vec<u8>) -> Result<Tensor> {
        let size = self.kind.elt_size_in_bytes();
        ensure!(
            bytes.len().is_multiple_of(size),
            "do not fit their {} bytes",
            bytes.len()
        );
        let shape = [i64::try_from(bytes.len() / size)?];
        match self.kind {
            Kind::Float => tensor_of_floats(bytes, &shape),
            kind => Ok(Tensor::f_from_data_size(&bytes, &shape, kind)?),
        }
    }

    /// The tensor, which lies in `row`.
    fn of(&self, row: &Tensor) -> Result<Tensor> {
        ensure!(row.kind() == self.kind, "share bytes with another format");
        let stored = row.size().first().copied().unwrap_or(0);
        let count = (self.sizes.iter()).try_fold(1i64, |count, &size| count.checked_mul(size));
        let reached = (self.sizes.iter().zip(&self.strides))
            .try_fold(self.offset, |at, (&n, &by)| {
                at.checked_add((n - 1).max(0).checked_mul(by)?)
            });
        let fits = match (count, reached) {
            (Some(0), _) => true,
            (Some(_), Some(last)) => last < stored,
            _ => false,
        };
        ensure!(
            fits,
            "have the sizes {:?}, which their bytes do not hold",
            &self.sizes[..self.sizes.len().min(8)]
        );
        if count == Some(0) {
            return Ok(Tensor::f_zeros(&self.sizes, (self.kind, row.device()))?);
        }
        Ok(row.f_as_strided(&self.sizes, &self.strides, self.offset)?)
    }
}
