//! Writing arrays as they are made: memory stays flat, however large they are.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{ArrayFormat, Element, json_list, npz, safetensors};

/// Numbers that are turned into bytes at a time.
const PIECE: usize = 1 << 14;
/// Reserved: the paths of the images.
const FILES: &str = "files";
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
/// writer.array("maps")?.write(&[0.0, 1.0, 2.0])?;
/// writer.array("maps")?.write(&[3.0, 4.0, 5.0])?;
/// writer.array("logits")?.write(&[6.0])?;
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct ArrayWriter<W: Write + Seek> {
    sink: Sink<W>,
    layout: Vec<(String, Vec<usize>)>,
    /// The array in `layout` that is next to be begun.
    next: usize,
    /// Values that the array before that still lacks.
    missing: usize,
    bytes: Vec<u8>,
}

/// The array that is being written; see [`ArrayWriter::array`].
pub struct OpenArray<'a, W: Write + Seek>(&'a mut ArrayWriter<W>);

enum Sink<W: Write + Seek> {
    Npz(Box<ZipWriter<UntilFailure<W>>>),
    Safetensors(W),
}

impl<W: Write + Seek> ArrayWriter<W> {
    /// Begins a file that will hold the arrays of `layout` (name and shape, in
    /// C order) and the paths in `files`: in an npz file as the uint8 array
    /// `files`, a JSON list in UTF-8; in a safetensors file as that list in the
    /// metadata under `files`.
    ///
    /// # Errors
    /// Two arrays of one name or a reserved one (`files`, `__metadata__`), a
    /// shape too large to count, and any failure to write.
    pub fn create(
        writer: W,
        format: ArrayFormat,
        layout: &[(String, Vec<usize>)],
        files: &[PathBuf],
    ) -> Result<ArrayWriter<W>> {
        let mut names = HashSet::from([FILES, METADATA]);
        for (name, shape) in layout {
            ensure!(names.insert(name), "two arrays would have the name {name}");
            let bytes = Element::F32 { big_endian: false }.bytes(shape);
            bytes.with_context(|| format!("the array {name} of shape {shape:?} is too large"))?;
        }
        let files = json_list(files)?;
        let sink = match format {
            ArrayFormat::Npz => {
                let mut zip = ZipWriter::new(UntilFailure::new(writer));
                begin_npy(&mut zip, FILES, "|u1", &[files.len()], files.len())?;
                zip.write_all(files.as_bytes())?;
                Sink::Npz(Box::new(zip))
            }
            ArrayFormat::Safetensors => {
                let mut writer = writer;
                writer.write_all(&safetensors::header(layout, files)?)?;
                Sink::Safetensors(writer)
            }
        };
        Ok(ArrayWriter {
            sink,
            layout: layout.to_vec(),
            next: 0,
            missing: 0,
            bytes: Vec::new(),
        })
    }

    /// The array of that name: the one that is being written, or the next of
    /// the layout when that one has all its values.
    ///
    /// # Errors
    /// Any other name, and an array before it that lacks values.
    pub fn array(&mut self, name: &str) -> Result<OpenArray<'_, W>> {
        let open = self.next.checked_sub(1).map(|open| &self.layout[open].0);
        if open.is_some_and(|open| open == name) {
            return Ok(OpenArray(self));
        }
        self.check_complete()?;
        let (expected, shape) = match self.layout.get(self.next) {
            Some((expected, shape)) if expected == name => (expected, shape),
            Some((expected, _)) => bail!("the array {name} is written where {expected} is due"),
            None => bail!("the array {name} is written where none is due"),
        };
        let count = shape.iter().product();
        if let Sink::Npz(zip) = &mut self.sink {
            begin_npy(zip, expected, "<f4", shape, count * size_of::<f32>())?;
        }
        self.missing = count;
        self.next += 1;
        Ok(OpenArray(self))
    }

    fn check_complete(&self) -> Result<()> {
        match self.next.checked_sub(1).map(|open| &self.layout[open].0) {
            Some(open) if self.missing > 0 => {
                bail!("the array {open} lacks {} values", self.missing)
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, values: &[f32]) -> Result<()> {
        self.missing = match self.missing.checked_sub(values.len()) {
            Some(missing) => missing,
            None => bail!(
                "{} values for the array {}, which lacks {}",
                values.len(),
                self.layout[self.next - 1].0,
                self.missing
            ),
        };
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

    /// Ends the file, and gives back what it was written to, flushed.
    ///
    /// # Errors
    /// An array that lacks values or was not begun, and any failure to write,
    /// also an earlier one.
    pub fn finish(self) -> Result<W> {
        self.check_complete()?;
        if let Some((name, shape)) = self.layout.get(self.next) {
            bail!("the array {name} of shape {shape:?} was not written");
        }
        let mut writer = match self.sink {
            Sink::Npz(zip) => zip.finish()?.into_inner()?,
            Sink::Safetensors(writer) => writer,
        };
        writer.flush()?;
        Ok(writer)
    }
}

impl<W: Write + Seek> OpenArray<'_, W> {
    /// Writes the next values of the array.
    ///
    /// # Errors
    /// More values than its shape has room for, and any failure to write.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        self.0.write(values)
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

/// Passes everything on until a write fails; what comes then is dropped, and
/// called written.
///
/// A `ZipWriter` completes its archive when it is dropped and prints to stderr
/// what then fails: on a full disk a second message, after that of the run.
struct UntilFailure<W> {
    inner: W,
    position: u64,
    failure: Option<ErrorKind>,
}

impl<W: Write + Seek> UntilFailure<W> {
    fn new(inner: W) -> UntilFailure<W> {
        UntilFailure {
            inner,
            position: 0,
            failure: None,
        }
    }

    fn into_inner(self) -> io::Result<W> {
        match self.failure {
            None => Ok(self.inner),
            Some(kind) => Err(kind.into()),
        }
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != ErrorKind::Interrupted
        {
            self.failure = Some(error.kind());
        }
        result
    }
}

impl<W: Write + Seek> Write for UntilFailure<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.failure {
            Some(_) => bytes.len(),
            None => {
                let result = self.inner.write(bytes);
                self.noted(result)?
            }
        };
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.failure {
            Some(_) => Ok(()),
            None => {
                let result = self.inner.flush();
                self.noted(result)
            }
        }
    }
}

impl<W: Write + Seek> Seek for UntilFailure<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match (self.failure, to) {
            (None, _) => {
                let result = self.inner.seek(to);
                self.noted(result)?
            }
            (Some(_), SeekFrom::Start(position)) => position,
            (Some(_), SeekFrom::Current(by)) => self.position.saturating_add_signed(by),
            (Some(_), SeekFrom::End(_)) => self.position,
        };
        Ok(self.position)
    }
}
