//! The tensors of an exported program. PyTorch stores each storage as an entry of its own, with a
//! list of what lies in it; up to torch 2.8, all of them in a file of `torch.save`.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pytorch_reader::{DType, PickleError, PytorchError, PytorchReader};
use tch::{Kind, Tensor};

use super::archive::Archive;
use super::schema::{Layout, Stored, Tensors, integer};
use super::shown;
use crate::hooks::{plain, tensor_of_floats};

/// Where tensors are found by name.
pub enum Source {
    /// The list of a folder below `data`.
    List(&'static str, Tensors),
    /// A file of `torch.save`.
    Saved(HashMap<String, pytorch_reader::Tensor>),
}

/// The tensors of an archive.
pub struct Weights<'a> {
    archive: &'a mut Archive,
    sources: Vec<Source>,
    /// The numbers of an entry, in a row.
    rows: HashMap<(String, Kind), Tensor>,
    /// The bytes that tensors may still take.
    left: u64,
}

impl Source {
    /// Opens the bytes of a file of `torch.save`, whose name is `place`, without running its code.
    ///
    /// # Errors
    /// Returns an error if it is damaged, holds tensors of an unusual kind, or cannot be copied.
    pub fn saved(place: &str, bytes: &[u8]) -> Result<Source> {
        // PyTorch writes nothing for nothing.
        if bytes.is_empty() {
            return Ok(Source::Saved(HashMap::new()));
        }
        let copied = tempfile::tempfile().and_then(|mut file| {
            file.write_all(bytes)?;
            Ok(file)
        });
        let copy = copied.map_err(|error| {
            let folder = std::env::temp_dir();
            anyhow!(
                "its weights cannot be copied to {}: {error}",
                folder.display()
            )
        })?;
        // The copy has no name, so that nothing of it remains however the process ends.
        let reader = PytorchReader::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
        let reader = reader.map_err(|error| match error {
            PytorchError::Pickle(PickleError::UnsupportedType(kind)) => anyhow!(
                "its {} holds tensors of the kind {}, which prism does not read; export the network in float32",
                shown(place),
                shown(&kind)
            ),
            _ => anyhow!("its {} is damaged or cut short", shown(place)),
        })?;
        Ok(Source::Saved(reader.into_tensors()))
    }
}

/// A tensor that was found.
enum Place<'a> {
    Listed(&'static str, &'a Stored),
    Saved(&'a pytorch_reader::Tensor),
}

impl<'a> Weights<'a> {
    /// The tensors of `sources`, of which the first goes first. They take at most `left` bytes.
    pub fn new(archive: &'a mut Archive, sources: Vec<Source>, left: u64) -> Weights<'a> {
        Weights {
            archive,
            sources,
            rows: HashMap::new(),
            left,
        }
    }

    /// The tensor of a parameter, buffer or constant.
    ///
    /// # Errors
    /// Returns an error if it is missing, or does not fit its bytes.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let found = self.sources.iter().find_map(|source| match source {
            Source::List(folder, list) => Some(Place::Listed(folder, list.config.get(name)?)),
            Source::Saved(tensors) => tensors.get(name).map(Place::Saved),
        });
        match found {
            None => bail!("it lacks the weights of '{}'", shown(name)),
            Some(Place::Saved(saved)) => {
                self.left = left_of(self.left, name, u64::try_from(saved.byte_len()).ok())?;
                of_saved(saved).map_err(|error| about(name, &error))
            }
            Some(Place::Listed(folder, stored)) => {
                let layout = plain_layout(stored).map_err(|error| about(name, &error))?;
                let place = format!("data/{folder}/{}", stored.path_name);
                self.left = left_of(self.left, name, layout.bytes())?;
                let key = (place, layout.kind);
                if !self.rows.contains_key(&key) {
                    let bytes = self.archive.bytes(&key.0, u64::MAX)?;
                    let row = row(layout.kind, bytes).map_err(|error| about(name, &error))?;
                    self.rows.insert(key.clone(), row);
                }
                let row = self.rows.get(&key).context("its weights are lost")?;
                layout.of(row).map_err(|error| about(name, &error))
            }
        }
    }
}

/// What is wrong with weights, as a whole line.
fn about(name: &str, error: &anyhow::Error) -> anyhow::Error {
    anyhow!("its weights '{}' {error:#}", shown(name))
}

/// What is left of `left` bytes behind the weights `name`.
fn left_of(left: u64, name: &str, bytes: Option<u64>) -> Result<u64> {
    bytes
        .and_then(|bytes| left.checked_sub(bytes))
        .ok_or_else(|| about(name, &anyhow!("take far more memory than the file")))
}

fn of_saved(saved: &pytorch_reader::Tensor) -> Result<Tensor> {
    let kind = match saved.dtype() {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        DType::U64 => return Err(unread("uint64")),
        DType::U32 => return Err(unread("uint32")),
        DType::U16 => return Err(unread("uint16")),
    };
    let sizes: Result<Vec<i64>, _> = saved.shape().iter().map(|&n| i64::try_from(n)).collect();
    let bytes = saved.read();
    let bytes = bytes.map_err(|_| anyhow!("are damaged or cut short"))?;
    row(kind, bytes)?.f_view(&sizes?[..]).map_err(plain)
}

/// Numbers in a row.
fn row(kind: Kind, bytes: Vec<u8>) -> Result<Tensor> {
    let size = kind.elt_size_in_bytes();
    ensure!(
        bytes.len().is_multiple_of(size),
        "do not fit their {} bytes",
        bytes.len()
    );
    let shape = [i64::try_from(bytes.len() / size)?];
    match kind {
        Kind::Float => tensor_of_floats(bytes, &shape),
        kind => Tensor::f_from_data_size(&bytes, &shape, kind).map_err(plain),
    }
}

fn unread(format: &str) -> anyhow::Error {
    anyhow!("are {format} numbers, which prism does not read; export the network in float32")
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
        "are a pickled Python object, whose code prism does not run; export a network of plain tensors"
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
        9..=11 => {
            bail!("are complex numbers, which prism does not read; save the network as TorchScript")
        }
        12 => Kind::Bool,
        13 => Kind::BFloat16,
        28 => return Err(unread("uint16")),
        29..=33 => return Err(unread("float8")),
        34 => return Err(unread("uint32")),
        35 => return Err(unread("uint64")),
        _ => bail!("are of a number format that prism does not know"),
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

    /// The tensor, which lies in `row`.
    fn of(&self, row: &Tensor) -> Result<Tensor> {
        let stored = row.size().first().copied().unwrap_or(0);
        let count = (self.sizes.iter()).try_fold(1i64, |count, &size| count.checked_mul(size));
        let reached = (self.sizes.iter().zip(&self.strides))
            .try_fold(self.offset, |at, (&n, &by)| {
                at.checked_add((n - 1).max(0).checked_mul(by)?)
            });
        let others = self.sizes.iter().filter(|&&size| size != 0);
        let is_small = others.copied().try_fold(1i64, i64::checked_mul).is_some();
        let fits = match (count, reached) {
            (Some(0), _) => is_small,
            (Some(_), Some(last)) => last < stored,
            _ => false,
        };
        ensure!(
            fits,
            "have the sizes {:?}, which their bytes do not hold",
            &self.sizes[..self.sizes.len().min(8)]
        );
        if count == Some(0) {
            return Tensor::f_zeros(&self.sizes, (self.kind, row.device())).map_err(plain);
        }
        row.f_as_strided(&self.sizes, &self.strides, self.offset)
            .map_err(plain)
    }
}
