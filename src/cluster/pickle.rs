//! `2cluster.bin`: a Python pickle of a list of `(path, class, [0 or 1 per feature])`. If the true
//! class of any image is known, each row has one more field: this class, or None.
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

/// The largest class id: a signed 32-bit integer in the file.
pub const LARGEST_CLASS: usize = i32::MAX as usize;

const EXPECTED_ROW: &str = "(path, class, [0 or 1 per feature])";
const EXPECTED: &str = "a list of (path, class, [0 or 1 per feature])";

/// Writes the rows as a pickle of protocol 3 without memoised values.
///
/// # Errors
/// Returns an error if [`read`] would refuse the rows, or if writing fails.
pub fn write(rows: &[Row], to: &mut impl Write) -> Result<()> {
    check(rows)?;
    to.write_all(b"\x80\x03](")?; // PROTO 3, EMPTY_LIST, MARK
    let has_truths = rows.iter().any(|row| row.truth.is_some());
    for row in rows {
        if has_truths {
            to.write_all(b"(")?; // MARK
        }
        to.write_all(b"X")?; // BINUNICODE
        to.write_all(&u32::try_from(row.path.len())?.to_le_bytes())?;
        to.write_all(row.path.as_bytes())?;
        to.write_all(b"J")?; // BININT
        to.write_all(&i32::try_from(row.class)?.to_le_bytes())?;
        to.write_all(b"](")?; // EMPTY_LIST, MARK
        for &feature in &row.features {
            to.write_all(&[b'K', u8::from(feature)])?; // BININT1
        }
        to.write_all(b"e")?; // APPENDS
        match (has_truths, row.truth) {
            (false, _) => to.write_all(b"\x87")?, // TUPLE3
            (true, None) => to.write_all(b"Nt")?, // NONE, TUPLE
            (true, Some(truth)) => {
                to.write_all(b"J")?; // BININT
                to.write_all(&i32::try_from(truth)?.to_le_bytes())?;
                to.write_all(b"t")?; // TUPLE
            }
        }
    }
    to.write_all(b"e.")?; // APPENDS, STOP
    Ok(())
}

/// Reads the rows of a pickle. Errors do not name the file.
///
/// # Errors
/// Returns an error if the file cannot be read, or holds anything other than a list of at least
/// one `(path, class, [0 or 1 per feature])`, with equally many features in each row and perhaps a
/// true class or None as a fourth field.
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
        PickleValue::Unsupported(name) => {
            bail!("holds the Python object {name:.60}, not {EXPECTED}")
        }
        other => bail!("holds {}, not {EXPECTED}", shown(&other)),
    };
    let rows = (1..).zip(&items).map(|(number, item)| {
        let refused = || format!("image {number} is {}, not {EXPECTED_ROW}", shown(item));
        row(item).with_context(refused)
    });
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    check(&rows)?;
    Ok(rows)
}

fn row(item: &PickleValue) -> Option<Row> {
    use PickleValue::{Int, List, None as Nothing, String};
    let List(fields) = item else { return None };
    let [String(path), Int(class), List(bits), rest @ ..] = &fields[..] else {
        return None;
    };
    let truth = match rest {
        [] | [Nothing] => None,
        [Int(truth)] => Some(usize::try_from(*truth).ok()?),
        _ => return None,
    };
    let bit = |value: &PickleValue| match value {
        Int(bit @ (0 | 1)) => Some(*bit == 1),
        _ => None,
    };
    Some(Row {
        path: path.clone(),
        class: usize::try_from(*class).ok()?,
        features: bits.iter().map(bit).collect::<Option<_>>()?,
        truth,
    })
}

/// The beginning of a value, for errors.
fn shown(value: &PickleValue) -> String {
    format!("{value:?}").chars().take(100).collect()
}

/// Whether a file may hold the rows.
fn check(rows: &[Row]) -> Result<()> {
    let count = rows
        .first()
        .context("the list of images is empty")?
        .features
        .len();
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
        let classes = [("class", Some(row.class)), ("true class", row.truth)];
        for (kind, class) in classes {
            let class = class.unwrap_or(0);
            ensure!(
                class <= LARGEST_CLASS,
                "image {number} has {kind} {class}, which is not from 0 to {LARGEST_CLASS}"
            );
        }
    }
    Ok(())
}
