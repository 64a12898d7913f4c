//! The formats of state dicts: PyTorch's `.pth`, safetensors, and libtorch's `.ot`.

use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pytorch_reader::{DType, PytorchReader};
use safetensors::tensor::Dtype;
use tch::{Kind, Tensor};

use super::is_torchscript;
use crate::arrays::{bytes_of, safetensors::read_header};
use crate::error::{Hint, hinted};
use crate::hooks::tensor_of_floats;

/// The limit on the size of all tensors, in units of the file's length. Tensors may share
/// values, or repeat one along an axis (stride 0), which damage can make any length.
const MOST_SHARED: u64 = 8;

/// A tensor in a file.
pub enum Stored {
    Pytorch(pytorch_reader::Tensor),
    Safetensors {
        file: Arc<File>,
        /// The position of the first byte.
        offset: u64,
        shape: Vec<usize>,
        kind: Kind,
    },
    InMemory(Tensor),
}

/// The kind that corresponds to a type of pytorch-reader or safetensors, whose names differ in
/// that of booleans alone. (tch converts the types of an older safetensors.)
macro_rules! kind {
    ($dtype:expr, $Type:ident, $bool:ident) => {
        match $dtype {
            $Type::F64 => Kind::Double,
            $Type::F32 => Kind::Float,
            $Type::F16 => Kind::Half,
            $Type::BF16 => Kind::BFloat16,
            $Type::I64 => Kind::Int64,
            $Type::I32 => Kind::Int,
            $Type::I16 => Kind::Int16,
            $Type::I8 => Kind::Int8,
            $Type::U8 => Kind::Uint8,
            $Type::$bool => Kind::Bool,
            other => bail!("it has the unsupported type {other:?}"),
        }
    };
}

impl Stored {
    /// The extents of the tensor.
    pub fn shape(&self) -> Vec<i64> {
        let extents = match self {
            Stored::Pytorch(stored) => stored.shape(),
            Stored::Safetensors { shape, .. } => shape,
            Stored::InMemory(tensor) => return tensor.size(),
        };
        extents.iter().map(|&extent| extent as i64).collect()
    }

    /// Reads the tensor to the CPU; floating point values become float32.
    pub fn read(self) -> Result<Tensor> {
        match self {
            Stored::InMemory(tensor) => Ok(float32(tensor)),
            Stored::Pytorch(stored) => {
                let kind = kind!(stored.dtype(), DType, Bool);
                let bytes = stored
                    .read()
                    .map_err(|e| anyhow!("cannot be read to its end ({})", first_line(&e)))?;
                tensor_of(bytes, stored.shape(), kind)
            }
            Stored::Safetensors {
                file,
                offset,
                shape,
                kind,
            } => {
                let mut bytes = vec![0; length_of(&shape, kind)?];
                file.read_exact_at(&mut bytes, offset)?;
                tensor_of(bytes, &shape, kind)
            }
        }
    }
}

/// Opens a file of `torch.save` with `length` bytes.
pub fn open_pytorch(path: &Path, length: u64) -> Result<Vec<(String, Stored)>> {
    if is_torchscript(path) {
        let message = "is a TorchScript archive, not a state dict";
        return Err(hinted(message, Hint::ModelFile));
    }
    let reader = PytorchReader::new(path)
        .map_err(|e| anyhow!("is cut short or not a state dict ({})", first_line(&e)))?;
    let tensors = reader.into_tensors();
    let bytes = tensors
        .values()
        .map(|tensor| tensor.byte_len() as u64)
        .fold(0, u64::saturating_add);
    ensure!(
        bytes <= length.saturating_mul(MOST_SHARED),
        "is damaged: its tensors would take {bytes} bytes, far more than the file"
    );
    let stored = |(name, tensor)| (name, Stored::Pytorch(tensor));
    Ok(tensors.into_iter().map(stored).collect())
}

/// Opens a safetensors file.
pub fn open_safetensors(path: &Path) -> Result<Vec<(String, Stored)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let (start, metadata) = read_header(&mut file)
        .map_err(|e| anyhow!("is cut short or no safetensors file ({e:#})"))?;
    ensure!(
        start.checked_add(metadata.data_len() as u64) == Some(length),
        "is cut short or no safetensors file (its length is {length} bytes)"
    );
    let file = Arc::new(file);
    let stored = |name: &String| -> Result<Stored> {
        let info = metadata.info(name).context("it has no entry")?;
        let kind = kind!(info.dtype, Dtype, BOOL);
        let (from, to) = info.data_offsets;
        check_length(&info.shape, kind, to - from)?;
        Ok(Stored::Safetensors {
            file: file.clone(),
            offset: start + from as u64,
            shape: info.shape.clone(),
            kind,
        })
    };
    let named = |name: String| {
        let stored = stored(&name).with_context(|| name.clone())?;
        Ok((name, stored))
    };
    metadata.offset_keys().into_iter().map(named).collect()
}

/// Opens a file of libtorch's own format, which can only be read as a whole.
pub fn open_ot(path: &Path) -> Result<Vec<(String, Stored)>> {
    let loaded = Tensor::load_multi(path)
        .map_err(|_| anyhow!("is cut short or no file of libtorch's own format"))?;
    let stored = |(name, tensor): (String, Tensor)| (name, Stored::InMemory(tensor.detach()));
    Ok(loaded.into_iter().map(stored).collect())
}

/// The size of a tensor in bytes.
fn length_of(shape: &[usize], kind: Kind) -> Result<usize> {
    bytes_of(shape, kind.elt_size_in_bytes()).context("its shape overflows")
}

fn check_length(shape: &[usize], kind: Kind, bytes: usize) -> Result<()> {
    ensure!(
        length_of(shape, kind)? == bytes,
        "its shape {shape:?} does not fit its {bytes} bytes"
    );
    Ok(())
}

fn tensor_of(bytes: Vec<u8>, shape: &[usize], kind: Kind) -> Result<Tensor> {
    check_length(shape, kind, bytes.len())?;
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    match kind {
        Kind::Float => tensor_of_floats(bytes, &shape),
        _ => Ok(float32(Tensor::f_from_data_size(&bytes, &shape, kind)?)),
    }
}

/// Converts floating point values to float32; integers (counters) stay.
fn float32(tensor: Tensor) -> Tensor {
    match tensor.kind() {
        Kind::Half | Kind::BFloat16 | Kind::Double => tensor.to_kind(Kind::Float),
        _ => tensor,
    }
}

/// The first line of an error: libtorch appends a C++ backtrace.
pub fn first_line(error: &impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("").trim().to_owned()
}
