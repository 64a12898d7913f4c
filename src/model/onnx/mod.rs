//! ONNX files: the operators of a network and its weights, without code.

mod input;
mod names;
mod node;
mod operators;
mod proto;
mod sorted;
mod translate;
mod weights;
mod wire;
mod writer;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Device;

use super::exported::Loaded;
use crate::hooks::{Builder, NetworkGraph};
use crate::names::within;
use crate::size::Size;

/// The longest name that a message shows, in characters.
const LONGEST_NAME: usize = 60;
/// The largest file, in bytes: that of protocol buffers.
const LARGEST: u64 = (1 << 31) + (1 << 20);
/// The most fields of a file that are looked at to see what it is.
const MOST_FIELDS: usize = 10_000;

/// The longest text of a file that is read, in bytes.
const LARGEST_TEXT: u64 = 16 << 20;

/// Whether the file is one of ONNX, also if it is cut short. The format has no mark at its
/// beginning, so the fields of the whole file are looked at.
pub fn holds_network(file: &Path) -> bool {
    has_fields(file).unwrap_or(false)
}

/// Loads a file for which [`holds_network`] holds. Some networks that take images of any size
/// say nothing of the one that they need; `size` is the one that they will get, if it is known.
///
/// # Errors
/// Returns one line with the file and the reason if it is damaged, has an operator that prism does
/// not run, or takes something else than a batch of images.
pub fn load(file: &Path, device: Device, size: Option<Size>) -> Result<Loaded> {
    let show = file.display().to_string();
    build(&show, file, device, size).context(show.clone())
}

/// The text that a file has under a name of its own.
pub fn metadata(file: &Path, name: &str) -> Option<String> {
    let mut reader = BufReader::new(File::open(file).ok()?);
    let entries = fields(&mut reader).ok()?.found.into_iter();
    let entries = entries.filter(|field| field.number == 14 && field.length <= LARGEST_TEXT);
    for Place { begin, length, .. } in entries {
        let mut bytes = Vec::new();
        reader.seek(SeekFrom::Start(begin)).ok()?;
        reader.by_ref().take(length).read_to_end(&mut bytes).ok()?;
        let (key, value) = proto::entry(&bytes).ok()?;
        if key == name {
            return Some(value);
        }
    }
    None
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let open = File::open(file)?;
    let length = open.metadata()?.len();
    ensure!(
        length <= LARGEST,
        "it has {length} bytes; a file of ONNX has 2 GiB at most, and larger weights beside it"
    );
    let mut bytes = Vec::with_capacity(usize::try_from(length)?);
    open.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn build(origin: &str, file: &Path, device: Device, wanted: Option<Size>) -> Result<Loaded> {
    let bytes = read(file)?;
    let model = proto::Model::read(&bytes)?;
    let length = bytes.len() as u64;
    let weights = weights::Weights::of(file, length);
    let mut builder = Builder::new(device)?;
    let translated = translate::translate(&model, weights, length, wanted, &mut builder)?;
    let (outputs, size) = (&translated.outputs, translated.size);
    Ok(Loaded {
        graph: NetworkGraph::built(origin.to_string(), builder, outputs, size)?,
        size,
        remarks: translated.remarks,
    })
}

/// Where a field of a file is.
struct Place {
    number: u64,
    begin: u64,
    length: u64,
}

/// The fields of a file.
struct Outline {
    found: Vec<Place>,
    /// Whether the file ends behind the last one.
    is_whole: bool,
}

/// The fields of an ONNX file, as far as they have the numbers and types of such a file.
fn fields(reader: &mut BufReader<File>) -> std::io::Result<Outline> {
    let length = reader.get_ref().metadata()?.len();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < length && found.len() < MOST_FIELDS {
        let mut head = Vec::new();
        reader.seek(SeekFrom::Start(at))?;
        reader.by_ref().take(20).read_to_end(&mut head)?;
        let mut rest = head.as_slice();
        let numbers = wire::varint(&mut rest).and_then(|key| Ok((key, wire::varint(&mut rest)?)));
        let Ok((key, value)) = numbers else { break };
        let begin = at + (head.len() - rest.len()) as u64;
        let length = match (key >> 3, key & 7) {
            (1, 0) if (1..=100).contains(&value) => 0,
            (5, 0) => 0,
            (2 | 3 | 4 | 6 | 7 | 8 | 14 | 20 | 25 | 26, 2) => value,
            _ => break,
        };
        found.push(Place {
            number: key >> 3,
            begin,
            length,
        });
        at = begin.saturating_add(length);
    }
    let is_whole = at == length;
    Ok(Outline { found, is_whole })
}

/// Whether a file has the fields of ONNX: a graph and a version, or a version and then a graph that
/// is cut short.
fn has_fields(file: &Path) -> std::io::Result<bool> {
    let open = File::open(file)?;
    if !open.metadata()?.is_file() {
        return Ok(false);
    }
    let Outline { found, is_whole } = fields(&mut BufReader::new(open))?;
    let has = |number| found.iter().any(|field| field.number == number);
    let begins = found.first().is_some_and(|field| field.number == 1);
    Ok(has(7) && (is_whole && (has(1) || has(8)) || begins))
}

/// A name in a file, for a message, whose line is escaped as a whole.
fn shown(name: &str) -> String {
    within(name, LONGEST_NAME)
}
