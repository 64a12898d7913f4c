//! Writes arrays in pieces, so that memory stays flat whatever their size.

use std::collections::HashSet;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{ArrayFormat, PIECE, bytes_of, npz, safetensors};

/// Reserved for the paths of the images.
pub(super) const FILES: &str = "files";
/// Reserved by the safetensors format.
const METADATA: &str = "__metadata__";

/// Writes float32 arrays of known shapes one after the other, each in pieces.
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
    layout: Vec<(String, Vec<usize>)>,
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
    /// Begins a file of the arrays of `layout` (name and shape, in C order) and the paths in
    /// `files`: in an npz file the uint8 array `files`, a JSON list in UTF-8; in a safetensors
    /// file the same list as the metadata `files`. Bytes that are not Unicode are replaced.
    ///
    /// # Errors
    /// Returns an error if two arrays have the same name or one has a reserved name (`files`,
    /// `__metadata__`), if a shape is too large, or if writing fails.
    pub fn create(
        mut writer: W,
        format: ArrayFormat,
        layout: &[(String, Vec<usize>)],
        files: &[PathBuf],
    ) -> Result<ArrayWriter<W>> {
        let mut names = HashSet::from([FILES, METADATA]);
        for (name, shape) in layout {
            ensure!(names.insert(name), "two arrays would have the name {name}");
            bytes_of(shape, size_of::<f32>())
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
                writer.write_all(&safetensors::header(layout, files)?)?;
                Sink::Safetensors(writer)
            }
        };
        Ok(ArrayWriter {
            sink,
            layout: layout.to_vec(),
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
        let (expected, shape) = match self.layout.get(self.begun) {
            Some((expected, shape)) if expected == name => (expected, shape),
            Some((expected, _)) => bail!("the array {name} is written, but {expected} is due"),
            None => bail!("the array {name} is written, but none is due"),
        };
        self.missing = shape.iter().product();
        if let Sink::Npz(zip) = &mut self.sink {
            begin_npy(zip, expected, "<f4", shape, self.missing * size_of::<f32>())?;
        }
        self.begun += 1;
        Ok(self)
    }

    /// The name of the array that was begun last.
    fn open(&self) -> &str {
        let last = self.begun.checked_sub(1);
        last.map_or("", |last| &self.layout[last].0)
    }

    fn check_complete(&self) -> Result<()> {
        let (open, missing) = (self.open(), self.missing);
        ensure!(missing == 0, "the array {open} lacks {missing} values");
        Ok(())
    }

    /// Writes the next values of the array that was begun last.
    ///
    /// # Errors
    /// Returns an error if the array has fewer values left, or if writing fails.
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
        for piece in values.chunks(PIECE) {
            self.bytes.clear();
            self.bytes
                .extend(piece.iter().flat_map(|value| value.to_le_bytes()));
            match &mut self.sink {
                Sink::Npz(zip) => zip.write_all(&self.bytes)?,
                Sink::Safetensors(writer) => writer.write_all(&self.bytes)?,
            }
        }
        Ok(())
    }

    /// Ends the file and returns its writer, flushed.
    ///
    /// # Errors
    /// Returns an error if an array lacks values or was not begun, or if writing fails or failed
    /// before.
    pub fn finish(self) -> Result<W> {
        self.check_complete()?;
        if let Some((name, shape)) = self.layout.get(self.begun) {
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
