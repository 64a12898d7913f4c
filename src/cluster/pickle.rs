//! `2cluster.bin`: a Python pickle of a list of `(path, class, [0 or 1 per feature])`.
//!
//! `pytorch-reader` decodes protocols 0 to 5. It imports and calls nothing that a file names. It
//! limits nesting to 1000 levels and copies of memoised values to 1,000,000 values and 64 MiB of
//! text, and takes up to 90 bytes of memory for each byte of the file. Its limits are those of
//! this reader:
//! - Python memoises every row, which is a copy: files of `pickle.dump` may have about 30,000 rows
//!   of 27 features. Files of [`write`] and of `pickletools.optimize` memoise nothing.
//! - A list that several rows share is empty from its second use on, so the file is refused.
//! - Bytes after the end of the pickle are ignored.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pytorch_reader::{PickleValue, PytorchReader};

use super::{MOST_FEATURES, Row};
use crate::error::{Hint, hinted};

/// The largest number of images in a file.
const MOST_ROWS: usize = 1 << 21;

/// The largest class id: a signed 32-bit integer in the file.
pub const LARGEST_CLASS: usize = i32::MAX as usize;

/// The longest path, in bytes. Operating systems allow 4 to 100 KB.
const LONGEST_PATH: usize = 1 << 20;

const EXPECTED: &str = "a list of (path, class, [0 or 1 per feature])";

/// Writes the rows as a pickle of protocol 3 without memoised values.
///
/// # Errors
/// Returns an error if [`read`] would refuse the rows, or if writing fails.
pub fn write(rows: &[Row], to: &mut impl Write) -> Result<()> {
    check(rows)?;
    to.write_all(b"\x80\x03](")?; // PROTO 3, EMPTY_LIST, MARK
    for row in rows {
        to.write_all(b"X")?; // BINUNICODE
        to.write_all(&u32::try_from(row.path.len())?.to_le_bytes())?;
        to.write_all(row.path.as_bytes())?;
        to.write_all(b"J")?; // BININT
        to.write_all(&i32::try_from(row.class)?.to_le_bytes())?;
        to.write_all(b"](")?; // EMPTY_LIST, MARK
        for &feature in &row.features {
            to.write_all(&[b'K', u8::from(feature)])?; // BININT1
        }
        to.write_all(b"e\x87")?; // APPENDS, TUPLE3
    }
    to.write_all(b"e.")?; // APPENDS, STOP
    Ok(())
}

/// Reads the rows of a pickle. Errors do not name the file.
///
/// # Errors
/// Returns an error if the file cannot be read, or holds anything other than a list of at least
/// one `(path, class, [0 or 1 per feature])`, with equally many features in each row.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let unopened = |error| hinted(format!("cannot be opened: {error}"), Hint::ClusterFile);
    let file = File::open(path).map_err(unopened)?;
    ensure!(file.metadata()?.is_file(), "is not an ordinary file");
    let mut start = Vec::new();
    file.take(1)
        .read_to_end(&mut start)
        .context("cannot be read")?;
    match start.first() {
        None => bail!("the file is empty"),
        // PROTO, or the MARK or EMPTY_LIST with which protocols 0 and 1 begin a list.
        // pytorch-reader would also unpack archives.
        Some(0x80 | b'(' | b']') => {}
        Some(_) => bail!("is not a pickle of {EXPECTED}"),
    }
    let value = PytorchReader::read_pickle_data(path, None).map_err(|error| {
        let reason = error.to_string();
        if reason.contains("memo bomb") {
            return anyhow!(
                "repeats too many memoised values; write pickletools.optimize(pickle.dumps(rows))"
            );
        }
        anyhow!("cannot be read as {EXPECTED} ({:.100})", reason)
    })?;
    let items = match value {
        PickleValue::List(items) => items,
        other => bail!("holds {}, not {EXPECTED}", kind(&other)),
    };
    let rows = (1..)
        .zip(items)
        .map(|(number, item)| row(item).map_err(|reason| anyhow!("image {number} {reason}")));
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    check(&rows)?;
    Ok(rows)
}

fn row(item: PickleValue) -> Result<Row> {
    let PickleValue::List(fields) = item else {
        bail!("is {}, not (path, class, features)", kind(&item));
    };
    let count = fields.len();
    let Ok([path, class, features]) = <[PickleValue; 3]>::try_from(fields) else {
        bail!("has {count} values, not (path, class, features)");
    };
    let (path, features) = match (path, features) {
        (PickleValue::String(path), PickleValue::List(features)) => (path, features),
        (PickleValue::String(_), other) => bail!("has {} for its features", kind(&other)),
        (other, _) => bail!("has {} for its path", kind(&other)),
    };
    let class = match class {
        PickleValue::Int(class) => usize::try_from(class)
            .map_err(|_| anyhow!("has class {class}, which is not from 0 to {LARGEST_CLASS}"))?,
        other => bail!("has {} for its class", kind(&other)),
    };
    let bit = |(place, value): (usize, &PickleValue)| match value {
        PickleValue::Int(bit @ (0 | 1)) => Ok(*bit == 1),
        PickleValue::Int(other) => bail!("has {other} for feature {place}, not 0 or 1"),
        other => bail!("has {} for feature {place}, not 0 or 1", kind(other)),
    };
    let features = (1..).zip(&features).map(bit).collect::<Result<_>>()?;
    Ok(Row {
        path,
        class,
        features,
    })
}

/// Whether a file may hold the rows.
fn check(rows: &[Row]) -> Result<()> {
    let count = rows
        .first()
        .context("the list of images is empty")?
        .features
        .len();
    ensure!(
        rows.len() <= MOST_ROWS,
        "{} images are more than the {MOST_ROWS} that a cluster file holds",
        rows.len()
    );
    for (number, row) in (1..).zip(rows) {
        let found = row.features.len();
        ensure!(
            (1..=MOST_FEATURES).contains(&found),
            "image {number} has {found} features, not 1 to {MOST_FEATURES}"
        );
        ensure!(
            found == count,
            "image {number} has {found} features, but the first has {count}"
        );
        ensure!(
            row.class <= LARGEST_CLASS,
            "image {number} has class {}, which is not from 0 to {LARGEST_CLASS}",
            row.class
        );
        ensure!(
            row.path.len() <= LONGEST_PATH,
            "image {number} has a path of {} bytes",
            row.path.len()
        );
    }
    Ok(())
}

/// The Python type of a value, with its article.
fn kind(value: &PickleValue) -> String {
    match value {
        PickleValue::None => "None".into(),
        PickleValue::Bool(_) => "a truth value".into(),
        PickleValue::Int(_) => "a number".into(),
        PickleValue::Float(_) => "a floating-point number".into(),
        PickleValue::String(_) => "a text".into(),
        PickleValue::List(_) => "a list".into(),
        PickleValue::Dict(_) => "a dictionary".into(),
        PickleValue::Bytes(_) => "bytes".into(),
        PickleValue::Unsupported(name) => {
            format!("the Python object {name:.60}")
        }
    }
}
