//! The tensors of an ONNX file: in the file itself, or in files beside it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Kind, Tensor};

use super::proto;
use super::shown;
use crate::hooks::{plain, tensor_of_floats};

/// What tensors may take, in units of the length of the files that hold them: several may show the
/// same bytes.
const MOST_SHARED: u64 = 8;
/// What they may take of small files, in bytes.
const LEAST: u64 = 64 << 20;

/// The tensors of a file.
pub struct Weights {
    /// The folder of the file, in which its further files are.
    folder: PathBuf,
    /// The bytes that its tensors may still take.
    left: u64,
    /// The lengths of its further files.
    others: HashMap<PathBuf, u64>,
}

/// The type of numbers in a file, as libtorch has it; wider and narrower floating-point numbers
/// become 32-bit ones. `None` if prism has none for it.
pub fn kind_of(kind: i64) -> Option<Kind> {
    Some(match kind {
        1 | 10 | 11 | 16 => Kind::Float,
        2 => Kind::Uint8,
        3 => Kind::Int8,
        5 => Kind::Int16,
        4 | 6 => Kind::Int,
        7 => Kind::Int64,
        9 => Kind::Bool,
        _ => return None,
    })
}

/// What a type of numbers is called in messages.
pub fn kind_name(kind: i64) -> &'static str {
    match kind {
        4 => "unsigned 16-bit integers",
        12 => "unsigned 32-bit integers",
        13 => "unsigned 64-bit integers",
        8 => "texts",
        14 | 15 => "complex numbers",
        17..=20 | 24 => "float8 numbers",
        21 | 22 => "4-bit integers",
        23 => "float4 numbers",
        25 | 26 => "2-bit integers",
        _ => "numbers of an unknown type",
    }
}

/// The bytes of a number in a file.
fn width(kind: i64) -> u64 {
    match kind {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        7 | 11 | 13 => 8,
        _ => 4,
    }
}

impl Weights {
    /// Of a file of `length` bytes.
    pub fn of(file: &Path, length: u64) -> Weights {
        let folder = file.parent().unwrap_or(Path::new("."));
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        Weights {
            folder: folder.to_path_buf(),
            left: length.saturating_mul(MOST_SHARED).max(LEAST),
            others: HashMap::new(),
        }
    }

    /// The tensor, on the CPU.
    ///
    /// # Errors
    /// Returns one line if its bytes are missing or do not fit its shape, or prism has no such
    /// numbers.
    pub fn tensor(&mut self, stored: &proto::Tensor) -> Result<Tensor> {
        let made = self.read(stored);
        made.map_err(|error| match stored.name.as_str() {
            "" => anyhow!("its constant {error:#}"),
            name => anyhow!("its weights '{}' {error:#}", shown(name)),
        })
    }

    fn read(&mut self, stored: &proto::Tensor) -> Result<Tensor> {
        let wanted = kind_of(stored.kind);
        let wanted = wanted.with_context(|| {
            format!(
                "are {}, which prism does not read; export the network in float32",
                kind_name(stored.kind)
            )
        })?;
        let sizes = stored.sizes.iter();
        let count = sizes
            .copied()
            .try_fold(1_u64, |count, size| {
                count.checked_mul(u64::try_from(size).ok()?)
            })
            .filter(|&count| i64::try_from(count).is_ok());
        let sizes = &stored.sizes[..stored.sizes.len().min(8)];
        let misfit = || format!("have the sizes {sizes:?}, which their bytes do not hold");
        let length = count.and_then(|count| count.checked_mul(width(stored.kind)));
        let (count, length) = count.zip(length).with_context(misfit)?;
        self.left = (self.left.checked_sub(length))
            .context("take far more memory than the file")
            .or_else(|error| self.with_others(stored, length).ok_or(error))?;
        let row = if let Some(places) = &stored.external {
            self.external(places, length)?
        } else if let Some(raw) = stored.raw {
            ensure!(raw.len() as u64 == length, misfit());
            raw.to_vec()
        } else {
            let held = [
                stored.floats.len(),
                stored.integers.len(),
                stored.doubles.len(),
            ];
            let is_whole = held.iter().any(|&held| held as u64 == count);
            ensure!(is_whole || count == 0, misfit());
            return of_numbers(stored, wanted)?
                .f_view(&stored.sizes[..])
                .map_err(plain);
        };
        let row = of_bytes(stored.kind, row)?;
        row.f_to_kind(wanted)
            .and_then(|row| row.f_view(&stored.sizes[..]))
            .map_err(plain)
    }

    /// What is left if the file that holds `stored` counts, too; each counts once.
    fn with_others(&mut self, stored: &proto::Tensor, length: u64) -> Option<u64> {
        let place = self.place(stored.external.as_ref()?).ok()?;
        let held = std::fs::metadata(&place).ok()?.len();
        if self.others.insert(place, held).is_some() {
            return None;
        }
        self.left
            .saturating_add(held.saturating_mul(MOST_SHARED))
            .checked_sub(length)
    }

    /// The file that holds a tensor: a plain path below the folder.
    fn place(&self, places: &[(String, String)]) -> Result<PathBuf> {
        let location = entry(places, "location").context("lie in a file that is not named")?;
        let path = Path::new(location);
        let is_plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        ensure!(
            !location.is_empty() && path.components().all(is_plain) && !location.contains('\0'),
            "lie in '{}'; prism reads files in the folder of the network alone",
            shown(location)
        );
        Ok(self.folder.join(path))
    }

    fn external(&self, places: &[(String, String)], length: u64) -> Result<Vec<u8>> {
        let place = self.place(places)?;
        let name = || shown(&place.display().to_string());
        let number = |key| match entry(places, key) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| anyhow!("have a place in {} that is no number", name())),
        };
        let offset = number("offset")?.unwrap_or(0);
        let held = match std::fs::metadata(&place) {
            Ok(about) if about.is_file() => about.len(),
            Ok(_) => bail!("lie in {}, which is no plain file", name()),
            Err(_) => bail!(
                "lie in {}, which cannot be read; it belongs beside the network's file",
                name()
            ),
        };
        let rest = held.saturating_sub(offset);
        let stated = number("length")?.unwrap_or(rest);
        ensure!(
            stated <= rest && offset <= held && stated >= length,
            "do not fit {}, which may be cut short",
            name()
        );
        let mut bytes = vec![0; usize::try_from(length)?];
        let read = File::open(&place).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(|error| anyhow!("cannot be read from {}: {error}", name()))?;
        Ok(bytes)
    }
}

fn entry<'p>(places: &'p [(String, String)], key: &str) -> Option<&'p str> {
    let mut found = places.iter().filter(|(name, _)| name == key);
    found.next().map(|(_, value)| value.as_str())
}

/// Numbers in a row, as they are stored.
fn of_bytes(kind: i64, bytes: Vec<u8>) -> Result<Tensor> {
    let shape = [i64::try_from(bytes.len() as u64 / width(kind))?];
    let as_stored = match kind {
        1 => return tensor_of_floats(bytes, &shape),
        2 => Kind::Uint8,
        3 => Kind::Int8,
        5 => Kind::Int16,
        6 => Kind::Int,
        7 => Kind::Int64,
        9 => Kind::Bool,
        10 => Kind::Half,
        11 => Kind::Double,
        16 => Kind::BFloat16,
        // Unsigned 16-bit integers, which libtorch hardly computes with.
        _ => {
            let (pairs, _) = bytes.as_chunks::<2>();
            let wide = pairs
                .iter()
                .map(|&pair| i32::from(u16::from_le_bytes(pair)));
            return Tensor::f_from_slice(&wide.collect::<Vec<_>>()).map_err(plain);
        }
    };
    // A flag may be any byte but zero.
    let bytes = match as_stored {
        Kind::Bool => bytes.into_iter().map(|byte| u8::from(byte != 0)).collect(),
        _ => bytes,
    };
    Tensor::f_from_data_size(&bytes, &shape, as_stored).map_err(plain)
}

/// Numbers in a row that are fields of their own.
fn of_numbers(stored: &proto::Tensor, wanted: Kind) -> Result<Tensor> {
    let row = match stored.kind {
        1 => Tensor::f_from_slice(&stored.floats),
        11 => Tensor::f_from_slice(&stored.doubles),
        // Narrow floating-point numbers are stored as their bits.
        10 | 16 => {
            let bits = stored
                .integers
                .iter()
                .map(|&bits| (bits as u16).to_le_bytes());
            let bytes: Vec<u8> = bits.flatten().collect();
            return of_bytes(stored.kind, bytes)?
                .f_to_kind(wanted)
                .map_err(plain);
        }
        _ => Tensor::f_from_slice(&stored.integers),
    };
    row.and_then(|row| row.f_to_kind(wanted)).map_err(plain)
}
