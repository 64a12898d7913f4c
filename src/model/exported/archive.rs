//! The zip archive of an exported program: its description and the entries of its weights.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use zip::{ZipArchive, ZipReadOptions};

use super::schema::{Head, Program};
use super::shown;
use super::weights::{Source, Weights};
use crate::model::archive;
use crate::names::{first_few, within};

/// The description of a network in files of torch 2.5 to 2.7.
const OLD_PROGRAM: &str = "serialized_exported_program.json";
/// The folder of descriptions in files of torch 2.8 and later.
const PROGRAMS: &str = "models/";
/// Machine code, which torch's AOTInductor writes.
const MACHINE_CODE: &str = "data/aotinductor/";

/// The versions of the schema that prism reads.
const VERSIONS: [u64; 2] = [7, 8];

/// The longest reason for damage that a message shows, in characters.
const LONGEST_REASON: usize = 120;
/// The largest description, in bytes. What is parsed takes up to 25 times as much memory.
const LARGEST_JSON: u64 = 32 << 20;
/// The most that a description is compressed, in units of the file's length; 40 times are usual.
const MOST_COMPRESSED: u64 = 64;
/// The largest description of a small file, in bytes.
const LEAST_JSON: u64 = 1 << 20;
/// What tensors and unpacked entries may take, in units of the file's length: tensors may share
/// values or repeat one (stride 0), and entries may be compressed. Damage can make any length.
const MOST_SHARED: u64 = 8;
/// What they may take of a small file, in bytes.
const LEAST: u64 = 64 << 20;

/// Where a network is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    /// At the top, as torch 2.5 to 2.7 write it.
    Old,
    /// Under a name, which torch.export.save makes `model`.
    Named(String),
}

/// The folder in front of an entry with the description of a network, and where the network is.
/// PyTorch puts a folder in front from 2.8 on; archives that somebody packed again may lack it, or
/// have one.
fn described(entry: &str) -> Option<(&str, Home)> {
    let (root, home) = match entry.strip_suffix(OLD_PROGRAM) {
        Some(root) => (root, Home::Old),
        None => {
            let (root, name) = entry.strip_suffix(".json")?.rsplit_once(PROGRAMS)?;
            (root, Home::Named(name.to_string()))
        }
    };
    let is_folder = root.is_empty() || root.find('/') == Some(root.len() - 1);
    let is_named = !matches!(&home, Home::Named(name) if name.is_empty() || name.contains('/'));
    (is_folder && is_named).then_some((root, home))
}

fn is_machine_code(entry: &str) -> bool {
    let below = entry.split_once('/').map(|(_, place)| place);
    entry.starts_with(MACHINE_CODE) || below.is_some_and(|place| place.starts_with(MACHINE_CODE))
}

/// Whether the file is one of torch.export, or a package of AOTInductor.
pub fn holds_program(file: &Path) -> bool {
    archive::has_entry(file, |name| {
        described(name).is_some() || is_machine_code(name)
    })
}

/// An open file of torch.export.
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder in front of all entries, with its slash; may be empty.
    root: String,
    home: Home,
    /// The most bytes that a description may take.
    largest_json: u64,
    /// The most bytes that its tensors may take.
    largest: u64,
    /// The bytes that may still be unpacked.
    left: u64,
}

impl Archive {
    /// Opens a file for which [`holds_program`] holds.
    ///
    /// # Errors
    /// Returns an error if it holds no network, or several.
    pub fn open(file: &Path) -> Result<Archive> {
        let zip = archive::open(file).ok_or_else(|| anyhow!("its archive is damaged"))?;
        let mut networks = zip.file_names().filter_map(described);
        let Some((root, home)) = networks.next() else {
            ensure!(
                !zip.file_names().any(is_machine_code),
                "this is a package of AOTInductor, which holds machine code and no network that can be looked into; save the network with torch.export.save"
            );
            bail!("it holds no network of torch.export");
        };
        let others: Vec<String> = networks.map(|(_, home)| home.to_string()).collect();
        if !others.is_empty() {
            let mut names = vec![home.to_string()];
            names.extend(others);
            names.sort();
            bail!(
                "it holds {} networks ({}); save the one to look into by itself, with torch.export.save",
                names.len(),
                first_few(&names, 3)
            );
        }
        let root = root.to_string();
        let length = std::fs::metadata(file)?.len();
        let largest = length.saturating_mul(MOST_SHARED).max(LEAST);
        let largest_json = length.saturating_mul(MOST_COMPRESSED).max(LEAST_JSON);
        let largest_json = largest_json.min(LARGEST_JSON);
        let left = largest;
        Ok(Archive {
            zip,
            root,
            home,
            largest_json,
            largest,
            left,
        })
    }

    /// The description of the network.
    ///
    /// # Errors
    /// Returns an error if it is damaged, or has another version.
    pub fn program(&mut self) -> Result<Program> {
        let place = match &self.home {
            Home::Old => OLD_PROGRAM.to_string(),
            Home::Named(name) => format!("{PROGRAMS}{name}.json"),
        };
        let bytes = with_quoted_words(&self.bytes(&place, self.largest_json)?);
        let program: Result<Program> = parsed(&place, &bytes);
        let head: Result<Head> = parsed(&place, &bytes);
        if let Ok(head) = head {
            let version = head.schema_version.major;
            ensure!(
                VERSIONS.contains(&version),
                "it has version {version} of the format of torch.export, written by torch {}; prism reads versions 7 and 8, which torch 2.5 to 2.15 write",
                shown(
                    head.torch_version
                        .as_deref()
                        .unwrap_or("of an unknown version")
                )
            );
        }
        program
    }

    /// The tensors.
    ///
    /// # Errors
    /// Returns an error if the lists of them are damaged or missing.
    pub fn weights(&mut self) -> Result<Weights<'_>> {
        let is_big = self.has("byteorder") && self.bytes("byteorder", 16)?.starts_with(b"big");
        ensure!(!is_big, "its weights are stored in big-endian order");
        let (old, named) = match &self.home {
            Home::Old => (true, ""),
            Home::Named(name) => (false, name.as_str()),
        };
        // Torch 2.8 and before save all tensors of a kind in one file of torch.save.
        let saved = |kind: &str, file: &str| match old {
            true => file.to_string(),
            false => format!("data/{kind}/{named}.pt"),
        };
        let places = [
            ("weights", saved("weights", "serialized_state_dict.pt")),
            ("constants", saved("constants", "serialized_constants.pt")),
        ];
        let lists =
            ["weights", "constants"].map(|kind| format!("data/{kind}/{named}_{kind}_config.json"));
        let mut sources = Vec::new();
        for ((kind, saved), list) in places.into_iter().zip(lists) {
            if self.has(&saved) {
                sources.push(Source::saved(&saved, &self.bytes(&saved, u64::MAX)?)?);
            } else if !old && self.has(&list) {
                let tensors = parsed(&list, &self.bytes(&list, self.largest_json)?)?;
                sources.push(Source::List(kind, tensors));
            } else {
                let missing = if old { saved } else { list };
                // There may be no constants.
                ensure!(
                    kind == "constants",
                    "it lacks its {}; it is damaged or cut short",
                    shown(&missing)
                );
            }
        }
        Ok(Weights::new(self, sources, self.largest))
    }

    fn has(&self, place: &str) -> bool {
        let name = format!("{}{place}", self.root);
        self.zip.index_for_name(&name).is_some()
    }

    /// An entry, which may be compressed: archives that somebody packed again are.
    ///
    /// # Errors
    /// Returns an error if it is missing, damaged, or longer than `largest`.
    pub(super) fn bytes(&mut self, place: &str, largest: u64) -> Result<Vec<u8>> {
        let name = format!("{}{place}", self.root);
        let index = self.zip.index_for_name(&name);
        let index = index.with_context(|| format!("it lacks its {}", shown(place)))?;
        let unread = |_| {
            anyhow!(
                "its {} is stored in a way that prism does not read",
                shown(place)
            )
        };
        let checksum = self.zip.by_index_raw(index).map_err(unread)?.crc32();
        // PyTorch can leave checksums out.
        let options = ZipReadOptions::new().ignore_crc32(checksum == 0);
        let entry = self.zip.by_index_with_options(index, options);
        let entry = entry.map_err(unread)?;
        let size = entry.size();
        ensure!(
            size <= largest.min(self.left),
            "its {} is too large, or far larger than the file",
            shown(place)
        );
        self.left -= size;
        let mut bytes = Vec::with_capacity(usize::try_from(size)?);
        // The byte behind the end is asked for: the checksum is checked there.
        let read = entry.take(size + 1).read_to_end(&mut bytes);
        ensure!(
            read.is_ok_and(|read| read as u64 == size),
            "its {} is damaged or cut short",
            shown(place)
        );
        Ok(bytes)
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Home::Old => f.write_str(OLD_PROGRAM),
            Home::Named(name) => f.write_str(&shown(name)),
        }
    }
}

fn parsed<T: DeserializeOwned>(place: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        let name = place.rsplit('/').next().unwrap_or(place);
        anyhow!(
            "its {} is damaged: {}",
            shown(name),
            within(&error.to_string(), LONGEST_REASON)
        )
    })
}

/// JSON whose bare words `Infinity`, `-Infinity` and `NaN`, which Python writes, are strings.
fn with_quoted_words(json: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"Infinity", b"-Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(json.len());
    let (mut rest, mut in_string) = (json, false);
    while let [first, after @ ..] = rest {
        let word = WORDS
            .iter()
            .find(|&&word| !in_string && rest.starts_with(word));
        if let Some(&word) = word {
            quoted.push(b'"');
            quoted.extend(word);
            quoted.push(b'"');
            rest = &rest[word.len()..];
            continue;
        }
        quoted.push(*first);
        rest = after;
        match (first, rest) {
            (b'"', _) => in_string = !in_string,
            (b'\\', [escaped, after @ ..]) if in_string => {
                quoted.push(*escaped);
                rest = after;
            }
            _ => {}
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_found_with_a_folder_in_front_or_without() {
        let named = |name: &str| Home::Named(name.to_string());
        for (entry, expected) in [
            ("net/models/model.json", Some(("net/", named("model")))),
            ("models/model.json", Some(("", named("model")))),
            (
                "models/models/model.json",
                Some(("models/", named("model"))),
            ),
            ("net/models/a b.json", Some(("net/", named("a b")))),
            ("serialized_exported_program.json", Some(("", Home::Old))),
            (
                "net/serialized_exported_program.json",
                Some(("net/", Home::Old)),
            ),
            ("net/extra/models/model.json", None),
            ("net/models/.json", None),
            ("net/models/a/b.json", None),
            ("net/mymodels/model.json", None),
            ("old_serialized_exported_program.json", None),
            ("net/models/model.txt", None),
        ] {
            assert_eq!(described(entry), expected, "{entry}");
        }
        assert!(is_machine_code("net/data/aotinductor/model/model.so"));
        assert!(is_machine_code("data/aotinductor/model/model.so"));
        assert!(!is_machine_code("net/extra/data/aotinductor/model.so"));
    }

    #[test]
    fn bare_words_are_strings_outside_of_strings_alone() {
        let quoted = |json: &str| String::from_utf8(with_quoted_words(json.as_bytes())).unwrap();
        for (json, expected) in [
            (
                r#"[Infinity,-Infinity, NaN]"#,
                r#"["Infinity","-Infinity", "NaN"]"#,
            ),
            (
                r#"{"NaN":"a Infinity","b":NaN}"#,
                r#"{"NaN":"a Infinity","b":"NaN"}"#,
            ),
            (
                r#"["\"NaN", NaN, "\\", NaN]"#,
                r#"["\"NaN", "NaN", "\\", "NaN"]"#,
            ),
            (r#"["Infinity"#, r#"["Infinity"#),
            (r#"["\"#, r#"["\"#),
            ("[1, -1.5e3]", "[1, -1.5e3]"),
            ("", ""),
        ] {
            assert_eq!(quoted(json), expected);
        }
    }
}
