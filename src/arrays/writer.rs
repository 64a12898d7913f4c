//! Writes arrays in pieces, so that memory stays flat whatever their size.

use std::collections::HashSet;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::element::Losses;
use super::{ArrayFormat, ArrayType, PIECE, bytes_of, npz, safetensors};

/// Reserved for the paths of the images.
pub(super) const FILES: &str = "files";
/// Reserved by the safetensors format.
const METADATA: &str = "__metadata__";

/// An array of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayLayout {
    /// Its name.
    pub name: String,
    /// Its shape, in C order.
    pub shape: Vec<usize>,
    /// The type of its numbers.
    pub kind: ArrayType,
}

impl ArrayLayout {
    /// Its bytes, or `None` if they overflow.
    pub(super) fn bytes(&self) -> Option<usize> {
        bytes_of(&self.shape, self.kind.size())
    }
}

/// Writes arrays of known shapes one after the other, each in pieces.
///
/// ```
/// # use std::{io::Cursor, path::PathBuf};
/// # use prism::arrays::{ArrayFormat, ArrayWriter};
/// # fn main() -> anyhow::Result<()> {
/// let layout = [("maps".to_string(), vec![2, 3]), ("logits".to_string(), vec![1])];
/// let files = [PathBuf::from("cat.jpg")];
/// let mut writer = ArrayWriter::create(Cursor::new(vec![]), ArrayFormat::Npz, &layout, &files)?;
/// let maps = writer.array("maps")?;
/// maps.write(&[0.0, 1.0, 2.0])?;
/// maps.write(&[3.0, 4.0, 5.0])?;
/// writer.array("logits")?.write(&[6.0])?;
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct ArrayWriter<W: Write + Seek> {
    sink: Sink<W>,
    layout: Vec<ArrayLayout>,
    /// What was lost of the arrays that were begun.
    losses: Vec<Losses>,
    /// The number of arrays that were begun.
    begun: usize,
    /// Values that the last of them still lacks.
    missing: usize,
    bytes: Vec<u8>,
}

enum Sink<W: Write + Seek> {
    Npz(Box<ZipWriter<UntilFailure<W>>>),
    Safetensors(W),
}

impl<W: Write + Seek> ArrayWriter<W> {
    /// Begins a file of the float32 arrays of `layout` (name and shape, in C order) and the paths in
    /// `files`: in an npz file the uint8 array `files`, a JSON list in UTF-8; in a safetensors
    /// file the same list as the metadata `files`. Bytes that are not Unicode are replaced.
    ///
    /// # Errors
    /// Returns an error if two arrays have the same name or one has a reserved name (`files`,
    /// `__metadata__`), if a shape is too large, or if writing fails.
    pub fn create(
        writer: W,
        format: ArrayFormat,
        layout: &[(String, Vec<usize>)],
        files: &[PathBuf],
    ) -> Result<ArrayWriter<W>> {
        let layout = layout.iter().map(|(name, shape)| ArrayLayout {
            name: name.clone(),
            shape: shape.clone(),
            kind: ArrayType::F32,
        });
        ArrayWriter::create_typed(writer, format, layout.collect(), files)
    }

    /// Begins a file of arrays of these types, as [`create`](ArrayWriter::create) does. In a
    /// safetensors file the arrays of larger numbers should come first, so that each begins at a
    /// multiple of its numbers' size, as readers expect.
    ///
    /// # Errors
    /// As [`create`](ArrayWriter::create).
    pub fn create_typed(
        mut writer: W,
        format: ArrayFormat,
        layout: Vec<ArrayLayout>,
        files: &[PathBuf],
    ) -> Result<ArrayWriter<W>> {
        let mut names = HashSet::from([FILES, METADATA]);
        for array in &layout {
            let ArrayLayout { name, shape, .. } = array;
            ensure!(names.insert(name), "two arrays would have the name {name}");
            array
                .bytes()
                .with_context(|| format!("the array {name} of shape {shape:?} is too large"))?;
        }
        let paths: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
        let files = serde_json::to_string(&paths)?;
        let sink = match format {
            ArrayFormat::Npz => {
                let mut zip = ZipWriter::new(UntilFailure {
                    position: writer.stream_position()?,
                    inner: writer,
                    failed: false,
                });
                begin_npy(&mut zip, FILES, "|u1", &[files.len()], files.len())?;
                zip.write_all(files.as_bytes())?;
                Sink::Npz(Box::new(zip))
            }
            ArrayFormat::Safetensors => {
                writer.write_all(&safetensors::header(&layout, files)?)?;
                Sink::Safetensors(writer)
            }
        };
        Ok(ArrayWriter {
            sink,
            losses: vec![Losses::default(); layout.len()],
            layout,
            begun: 0,
            missing: 0,
            bytes: Vec::new(),
        })
    }

    /// Begins the next array of the layout, which [`write`](ArrayWriter::write) then fills.
    ///
    /// # Errors
    /// Returns an error if another array is next, if the array before lacks values, or if writing
    /// fails.
    pub fn array(&mut self, name: &str) -> Result<&mut Self> {
        self.check_complete()?;
        let array = match self.layout.get(self.begun) {
            Some(array) if array.name == name => array,
            Some(array) => bail!("the array {name} is written, but {} is due", array.name),
            None => bail!("the array {name} is written, but none is due"),
        };
        let ArrayLayout { shape, kind, .. } = array;
        self.missing = shape.iter().product();
        if let Sink::Npz(zip) = &mut self.sink {
            begin_npy(zip, name, kind.descr(), shape, self.missing * kind.size())?;
        }
        self.begun += 1;
        Ok(self)
    }

    /// The name of the array that was begun last.
    fn open(&self) -> &str {
        let last = self.begun.checked_sub(1);
        last.map_or("", |last| &self.layout[last].name)
    }

    fn check_complete(&self) -> Result<()> {
        let (open, missing) = (self.open(), self.missing);
        ensure!(missing == 0, "the array {open} lacks {missing} values");
        Ok(())
    }

    /// Writes the next values of the array that was begun last, rounded to the nearest number of
    /// its type. Values beyond the range of the type become its end.
    ///
    /// # Errors
    /// Returns an error if the array has fewer values left, if a value is NaN and its type has
    /// none, or if writing fails.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        let Some(missing) = self.missing.checked_sub(values.len()) else {
            bail!(
                "{} values for the array {}, which lacks {}",
                values.len(),
                self.open(),
                self.missing
            );
        };
        self.missing = missing;
        let Some(last) = self.begun.checked_sub(1) else {
            return Ok(()); // no values of no array
        };
        let ArrayLayout { name, kind, .. } = &self.layout[last];
        for piece in values.chunks(PIECE) {
            self.bytes.clear();
            kind.append(piece, &mut self.bytes, &mut self.losses[last])
                .with_context(|| format!("the array {name}"))?;
            match &mut self.sink {
                Sink::Npz(zip) => zip.write_all(&self.bytes)?,
                Sink::Safetensors(writer) => writer.write_all(&self.bytes)?,
            }
        }
        Ok(())
    }

    /// What was lost so far beside rounding, a line for each array.
    pub fn losses(&self) -> Vec<String> {
        let arrays = self.layout.iter().zip(&self.losses);
        let lines = arrays.filter_map(|(array, lost)| lost.in_words(&array.name, array.kind));
        lines.collect()
    }

    /// Ends the file and returns its writer, flushed.
    ///
    /// # Errors
    /// Returns an error if an array lacks values or was not begun, or if writing fails or failed
    /// before.
    pub fn finish(self) -> Result<W> {
        self.check_complete()?;
        if let Some(ArrayLayout { name, shape, .. }) = self.layout.get(self.begun) {
            bail!("the array {name} of shape {shape:?} was not written");
        }
        let mut writer = match self.sink {
            Sink::Npz(zip) => {
                let UntilFailure { inner, failed, .. } = zip.finish()?;
                ensure!(!failed, "an earlier write failed");
                inner
            }
            Sink::Safetensors(writer) => writer,
        };
        writer.flush()?;
        Ok(writer)
    }
}

/// Begins `name.npy` with `bytes` of data.
fn begin_npy<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    name: &str,
    descr: &str,
    shape: &[usize],
    bytes: usize,
) -> Result<()> {
    let header = npz::npy_header(descr, shape)?;
    let needs_zip64 = bytes as u64 + header.len() as u64 >= u64::from(u32::MAX);
    let stored = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(needs_zip64);
    zip.start_file(format!("{name}.npy"), stored)?;
    zip.write_all(&header)?;
    Ok(())
}

/// Writes to `inner` until that fails, and then only pretends to write.
///
/// A `ZipWriter` completes its archive when it is dropped. If that fails, it prints to stderr: on a
/// full disk a second message, after the run's own.
struct UntilFailure<W> {
    inner: W,
    position: u64,
    failed: bool,
}

impl<W> UntilFailure<W> {
    /// The first failure is returned.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let result = act(&mut self.inner).map(drop);
        self.failed = result.is_err();
        result
    }
}

impl<W: Write> Write for UntilFailure<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|inner| inner.write_all(bytes))?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(W::flush)
    }
}

impl<W: Seek> Seek for UntilFailure<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            // Of a finished archive, whose end was just written.
            SeekFrom::End(_) => self.position,
        };
        let position = SeekFrom::Start(self.position);
        self.attempt(|inner| inner.seek(position))?;
        Ok(self.position)
    }
}
