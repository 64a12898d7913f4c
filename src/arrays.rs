//! Arrays in files: the results that a run saves, and preprocessed images as its input.
//!
//! Two formats: NumPy's `.npz` and `.safetensors`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ndarray::{Array4, ShapeBuilder};

use crate::error::usage;

mod basis;
mod element;
mod npz;
pub(crate) mod safetensors;
mod stored;
mod writer;

pub use basis::{BasisOf, read_basis, write_basis};
pub use element::ArrayType;
pub use stored::ArrayFile;
pub use writer::{ArrayLayout, ArrayWriter};

/// The name of the array of preprocessed images.
const INPUT: &str = "input";

/// Numbers that are converted at a time.
const PIECE: usize = 1 << 13;

/// The format of a file of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayFormat {
    /// NumPy's archive of `.npy` files.
    Npz,
    /// The format of the `safetensors` libraries.
    Safetensors,
}

impl ArrayFormat {
    /// The format of a file name's extension, in upper or lower case.
    ///
    /// # Errors
    /// Returns a [`Usage`](crate::error::Usage) error for every other extension.
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

/// Reads the array `input`, `[N, C, H, W]`, of an `.npz` (also compressed) or `.safetensors`
/// file: images that are preprocessed for the network.
///
/// Takes float32 and float16 as they are and rounds float64, NumPy's default, to float32.
///
/// # Errors
/// Returns one line that names the file if it is missing, damaged or of another format, if it has
/// no `input` of such a type and shape, or if a value is not finite. Returns a
/// [`Usage`](crate::error::Usage) error for another extension.
pub fn read_input(path: &Path) -> Result<Array4<f32>> {
    let read = match ArrayFormat::from_path(path)? {
        ArrayFormat::Npz => npz::read(path, INPUT),
        ArrayFormat::Safetensors => safetensors::read(path, INPUT),
    };
    read.and_then(Stored::into_images)
        .with_context(|| format!("cannot read {}", path.display()))
}

/// An array of a file.
struct Stored {
    shape: Vec<usize>,
    /// Whether the first axis changes fastest.
    fortran_order: bool,
    values: Vec<f32>,
}

impl Stored {
    fn into_images(self) -> Result<Array4<f32>> {
        let shape = self.shape;
        let (n, c, h, w) = match shape[..] {
            [n, 3, h, w] => (n, 3, h, w),
            // No image is 3 pixels wide.
            [_, _, _, 3] => bail!(
                "{INPUT} has the shape {shape:?}, not [N, C, H, W] (the channels come before height and width)"
            ),
            [n, c, h, w] => (n, c, h, w),
            [1 | 3 | 4, _, _] => bail!(
                "{INPUT} has the shape {shape:?}, not [N, C, H, W] (a single image needs a first axis of length 1)"
            ),
            _ => bail!("{INPUT} has the shape {shape:?}, not [N, C, H, W]"),
        };
        ensure!(
            n > 0 && c > 0 && h > 0 && w > 0,
            "{INPUT} has the shape {shape:?}, so it holds no pixel"
        );
        let order = (n, c, h, w).set_f(self.fortran_order);
        let stored = Array4::from_shape_vec(order, self.values)?;
        let images = match stored.is_standard_layout() {
            true => stored,
            false => stored.as_standard_layout().into_owned(),
        };
        match images.indexed_iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(images),
            Some(((n, c, h, w), value)) => Err(anyhow!(
                "{INPUT}[{n}, {c}, {h}, {w}] is {value}; every value must be a finite float32"
            )),
        }
    }
}

/// The number of bytes of an array, or `None` if it overflows.
pub(crate) fn bytes_of(shape: &[usize], element: usize) -> Option<usize> {
    let mut axes = shape.iter();
    axes.try_fold(element, |product, &axis| product.checked_mul(axis))
}

/// Reads `count` numbers of `N` bytes in pieces.
fn read_numbers<const N: usize>(
    mut reader: impl Read,
    count: usize,
    number: fn([u8; N]) -> f32,
) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| anyhow!("{count} values do not fit into memory"))?;
    let mut bytes = vec![0; N * PIECE];
    while values.len() < count {
        let piece = &mut bytes[..N * PIECE.min(count - values.len())];
        reader
            .read_exact(piece)
            .context("its data is damaged or ends too early")?;
        values.extend(piece.as_chunks().0.iter().map(|&bytes| number(bytes)));
    }
    Ok(values)
}

fn list(mut names: Vec<String>) -> String {
    names.sort();
    match names.is_empty() {
        true => "nothing".into(),
        false => names.join(", "),
    }
}

fn opened(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("no such file"),
        _ => anyhow!("{error}"),
    })?;
    ensure!(!file.metadata()?.is_dir(), "it is a folder");
    Ok(file)
}
