//! Arrays in files: what a run saves, and a preprocessed `input` of one's own.
//!
//! Two formats, both for any language: NumPy's `.npz` and `.safetensors`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use ndarray::{Array4, Ix4, ShapeBuilder};

use crate::error::usage;

mod basis;
mod npz;
pub(crate) mod safetensors;
mod writer;

pub use basis::{BasisOf, read_basis, write_basis};
pub use writer::{ArrayWriter, OpenArray};

/// The array that a run takes in place of images.
const INPUT: &str = "input";

/// The format of a file of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayFormat {
    /// NumPy's archive of `.npy` files.
    Npz,
    /// The format of the `safetensors` libraries.
    Safetensors,
}

impl ArrayFormat {
    /// The format that the file name's extension stands for, in whatever case.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Usage) for every other extension.
    pub fn from_path(path: &Path) -> Result<ArrayFormat> {
        let extension = path.extension().map(|found| found.to_ascii_lowercase());
        match extension.as_deref().and_then(|found| found.to_str()) {
            Some("npz") => Ok(ArrayFormat::Npz),
            Some("safetensors") => Ok(ArrayFormat::Safetensors),
            _ => Err(usage(format!(
                "{}: a file of arrays ends in .npz or .safetensors",
                path.display()
            ))),
        }
    }
}

/// Reads the array `input`, `[N, 3, H, W]`, of an `.npz` (also a compressed
/// one) or `.safetensors` file: preprocessed images, as the network takes them.
///
/// float32 is taken as it is; float64, NumPy's default, is rounded to it.
///
/// # Errors
/// One line that names the file: it is missing, damaged or of another format,
/// has no `input`, or one of another type or shape, or a value in it is not
/// finite. A wrong extension is a [`Usage`](crate::error::Usage) error.
pub fn read_input(path: &Path) -> Result<Array4<f32>> {
    let read = match ArrayFormat::from_path(path)? {
        ArrayFormat::Npz => npz::read(path, INPUT),
        ArrayFormat::Safetensors => safetensors::read(path, INPUT),
    };
    read.and_then(Stored::into_images)
        .map_err(|error| anyhow!("cannot read {}: {error:#}", path.display()))
}

/// An array as a file holds it.
struct Stored {
    shape: Vec<usize>,
    /// The first axis changes fastest.
    fortran_order: bool,
    values: Vec<f32>,
}

impl Stored {
    fn into_images(self) -> Result<Array4<f32>> {
        let axes = check_shape(&self.shape)?;
        let stored = Array4::from_shape_vec(
            Ix4(axes[0], axes[1], axes[2], axes[3]).set_f(self.fortran_order),
            self.values,
        )?;
        let images = if stored.is_standard_layout() {
            stored
        } else {
            stored.as_standard_layout().into_owned()
        };
        match images.indexed_iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(images),
            Some(((n, c, h, w), value)) => Err(anyhow!(
                "{INPUT}[{n}, {c}, {h}, {w}] is {value}; every value must be a finite float32"
            )),
        }
    }
}

fn check_shape(shape: &[usize]) -> Result<[usize; 4]> {
    let axes = <[usize; 4]>::try_from(shape)
        .ok()
        .filter(|axes| axes[1] == 3);
    let axes = axes.with_context(|| {
        let hint = match shape {
            [_, _, _, 3] => " (the channels come before height and width)",
            [3, _, _] => " (a single image needs a first axis of length 1)",
            _ => "",
        };
        format!("{INPUT} has the shape {shape:?}, not [N, 3, H, W]{hint}")
    })?;
    ensure!(
        axes.iter().all(|&axis| axis > 0),
        "{INPUT} has the shape {shape:?}: it holds no pixel"
    );
    Ok(axes)
}

/// The number types that `input` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32 { big_endian: bool },
    F64 { big_endian: bool },
}

impl Element {
    fn size(self) -> usize {
        match self {
            Element::F32 { .. } => 4,
            Element::F64 { .. } => 8,
        }
    }

    /// The bytes that an array of this shape takes; none if that is no number.
    fn bytes(self, shape: &[usize]) -> Option<usize> {
        shape
            .iter()
            .try_fold(self.size(), |product, &axis| product.checked_mul(axis))
    }

    /// Reads `count` numbers, in pieces, as float32.
    fn read(self, mut reader: impl std::io::Read, count: usize) -> Result<Vec<f32>> {
        const PIECE: usize = 1 << 13;
        let mut values = Vec::new();
        values
            .try_reserve_exact(count)
            .map_err(|_| anyhow!("{count} values do not fit into memory"))?;
        let mut bytes = vec![0; PIECE * self.size()];
        while values.len() < count {
            let piece = &mut bytes[..PIECE.min(count - values.len()) * self.size()];
            reader
                .read_exact(piece)
                .context("its data is damaged or ends too early")?;
            match self {
                Element::F32 { big_endian } => values.extend(
                    piece
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&b| if big_endian { f32::from_be_bytes(b) } else { f32::from_le_bytes(b) }),
                ),
                Element::F64 { big_endian } => values.extend(
                    piece
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&b| if big_endian { f64::from_be_bytes(b) } else { f64::from_le_bytes(b) } as f32),
                ),
            }
        }
        Ok(values)
    }
}

/// The paths as a JSON list; what is not Unicode in them is replaced.
fn json_list(files: &[PathBuf]) -> Result<String> {
    let paths: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
    Ok(serde_json::to_string(&paths)?)
}

fn list(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    match names.as_slice() {
        [] => "nothing".into(),
        names => names.join(", "),
    }
}

fn opened(path: &Path) -> Result<std::fs::File> {
    use std::io::ErrorKind;
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("no such file"),
        _ => anyhow!("{error}"),
    })?;
    ensure!(!file.metadata()?.is_dir(), "it is a folder");
    Ok(file)
}
