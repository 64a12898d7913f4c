//! Names of the classes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

pub use crate::classes::{Class, top_classes};
use crate::error::usage;
use crate::names::{first_few, most_similar};

/// The largest file of names, in bytes; ImageNet's have 30 kB.
const LARGEST_FILE: u64 = 16 << 20;

/// The number of classes listed for an ambiguous name.
const MOST_NAMED: usize = 10;

/// The number of names listed that contain a word.
const MOST_CONTAINING: usize = 6;

/// The names of a network's classes in the order of its scores. A name may have synonyms,
/// separated by commas: `timber wolf, grey wolf, gray wolf, Canis lupus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// Makes labels of names in the order of the scores.
    pub fn new(names: Vec<String>) -> Labels {
        Labels(names)
    }

    /// The 1000 classes of ImageNet with WordNet's names.
    pub fn imagenet() -> Labels {
        let labels = tch::vision::imagenet::CLASSES.iter();
        Labels(labels.map(|label| label.to_string()).collect())
    }

    /// The names of the two classes of a network with one score: these two, or the one that the
    /// score is for, after its opposite.
    pub fn of_two(self) -> Labels {
        match self.0.as_slice() {
            [only] => {
                let first = synonyms(only).next().unwrap_or(only);
                Labels(vec![format!("not {first}"), only.clone()])
            }
            _ => self,
        }
    }

    /// Reads a file of names, one per line. A file whose name ends in `.json` is a list of
    /// names (torchvision's `categories`), an object from indices to names or to
    /// `[id, name]` (Keras's `imagenet_class_index.json`), or an object from names to indices
    /// (torchvision's `class_to_idx`).
    ///
    /// # Errors
    /// Returns an error with the place in the file if it cannot be read or has another form.
    pub fn read(file: &Path) -> Result<Labels> {
        let at = || format!("{}: the labels cannot be read", file.display());
        let mut bytes = Vec::new();
        File::open(file)
            .and_then(|open| open.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
            .with_context(at)?;
        let is_json = file
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        Labels::from_bytes(&bytes, is_json).with_context(at)
    }

    fn from_bytes(bytes: &[u8], is_json: bool) -> Result<Labels> {
        ensure!(
            bytes.len() as u64 <= LARGEST_FILE,
            "the file is larger than {} MiB",
            LARGEST_FILE >> 20
        );
        let text = std::str::from_utf8(bytes).map_err(|_| anyhow!("it is not text in UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}');
        let names = if is_json {
            from_json(serde_json::from_str(text).context("it is not JSON")?)?
        } else {
            let lines = text.trim_end().lines();
            lines.map(|line| line.trim().to_string()).collect()
        };
        ensure!(!names.is_empty() && names != [""], "there is no name in it");
        if let Some(empty) = names.iter().position(String::is_empty) {
            bail!("class {empty} has an empty name (one name per line is expected)");
        }
        Ok(Labels(names))
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The title of a class in figures and text: its first synonym with `_` for spaces, or its
    /// number if it has no name.
    pub fn title(&self, class: usize) -> String {
        match self.0.get(class) {
            Some(label) => title(label),
            None => class.to_string(),
        }
    }

    /// The titles of all classes.
    pub fn titles(&self) -> Vec<String> {
        self.0.iter().map(|label| title(label)).collect()
    }

    /// One name of each class that contains `wanted`: first those with all of its words, as they
    /// are or in the plural, then those with its letters inside a word. `plain` drops differences
    /// that do not matter.
    fn containing(&self, wanted: &str, plain: impl Fn(&str) -> String) -> Vec<&str> {
        let mut found: [Vec<&str>; 2] = Default::default();
        let words: Vec<&str> = words(wanted).collect();
        if words.is_empty() {
            return Vec::new();
        }
        for label in &self.0 {
            let has_words = |name: &&str| {
                let name = plain(name);
                words.iter().all(|word| {
                    let is_it = |other: &str| other.strip_suffix('s').unwrap_or(other) == *word;
                    self::words(&name).any(|other| other == *word || is_it(other))
                })
            };
            // Two letters are inside of too many words.
            let has_letters = |name: &&str| wanted.len() > 2 && plain(name).contains(wanted);
            if let Some(name) = synonyms(label).find(has_words) {
                found[0].push(name);
            } else if let Some(name) = synonyms(label).find(has_letters) {
                found[1].push(name);
            }
        }
        found.concat()
    }

    /// The class with that name or synonym, ignoring case; `_` counts as a space.
    ///
    /// # Errors
    /// Returns a usage error if no class has the name (with names that contain it, or the most
    /// similar ones) or several classes have it (with their numbers).
    pub fn find(&self, name: &str) -> Result<usize> {
        let plain = |name: &str| name.trim().replace('_', " ").to_lowercase();
        let wanted = plain(name);
        let has_name = |label: &str| {
            plain(label) == wanted || synonyms(label).any(|synonym| plain(synonym) == wanted)
        };
        let found: Vec<usize> = (0..self.len())
            .filter(|&id| has_name(&self.0[id]))
            .collect();
        match found.as_slice() {
            &[id] => Ok(id),
            [] => {
                let found = self.containing(&wanted, plain);
                if !found.is_empty() {
                    let names = first_few(&found, MOST_CONTAINING);
                    return Err(usage(format!(
                        "there is no class '{name}'; these contain it: {names}"
                    )));
                }
                let names = self.0.iter().flat_map(|label| synonyms(label));
                Err(usage(format!(
                    "there is no class '{name}'; the nearest are {}",
                    most_similar(name, names, plain, 0.0, 3).join(", ")
                )))
            }
            several => {
                let numbered = |&id: &usize| format!("{id} ({})", self.0[id]);
                let classes: Vec<String> = several.iter().map(numbered).collect();
                Err(usage(format!(
                    "several classes are called '{name}': {}; give the number",
                    first_few(&classes, MOST_NAMED)
                )))
            }
        }
    }
}

fn synonyms(label: &str) -> impl Iterator<Item = &str> {
    label.split(',').map(str::trim)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    let words = name.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty())
}

/// The first synonym, with `_` for spaces and for characters that would break a line or a
/// column of text.
fn title(label: &str) -> String {
    let first = synonyms(label).next().unwrap_or(label);
    first.replace(|c: char| c.is_whitespace() || is_invisible(c), "_")
}

/// Control characters, zero-width characters and direction marks. Characters that only vary
/// the one before (which `figure::text` skips as well) stay in a title.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The names in a JSON value of any of the forms that [`Labels::read`] takes.
pub(crate) fn from_json(value: Value) -> Result<Vec<String>> {
    match value {
        Value::Array(names) => names
            .into_iter()
            .enumerate()
            .map(|(id, name)| {
                name_of(&name).with_context(|| format!("entry {id} of the list is not a name"))
            })
            .collect(),
        Value::Object(entries) => {
            let mut names = vec![None; entries.len()];
            for (key, value) in entries {
                let by_index = key.parse().ok().zip(name_of(&value));
                let by_name = || Some((usize::try_from(value.as_u64()?).ok()?, key.clone()));
                let (id, name) = by_index
                    .or_else(by_name)
                    .with_context(|| format!("the entry '{key}' is not a class with its number"))?;
                match names.get_mut(id) {
                    Some(free @ None) => *free = Some(name),
                    Some(_) => bail!("two names have the number {id}"),
                    None => bail!(
                        "'{key}' has the number {id}, but {} classes go from 0 to {}",
                        names.len(),
                        names.len() - 1
                    ),
                }
            }
            Ok(names.into_iter().flatten().collect())
        }
        _ => bail!("a list of names, or an object of classes with their numbers, is expected"),
    }
}

/// `"tench"`, or Keras's `["n01440764", "tench"]`.
fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(_), Value::String(name)] => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, is_json: bool) -> Result<Vec<String>> {
        Labels::from_bytes(text.as_bytes(), is_json).map(|labels| labels.0)
    }

    #[test]
    fn a_title_is_the_first_synonym_with_underscores() {
        assert_eq!(
            title("timber wolf, grey wolf, gray wolf, Canis lupus"),
            "timber_wolf"
        );
        assert_eq!(title("tench"), "tench");
        assert_eq!(title("a\tb\u{1b}[2J\u{202e}c"), "a_b_[2J_c");
    }

    #[test]
    fn imagenet_has_its_thousand_classes_in_order() {
        let labels = Labels::imagenet();
        assert_eq!(labels.len(), 1000);
        for (id, title) in [
            (0, "tench"),
            (269, "timber_wolf"),
            (348, "ram"),
            (999, "toilet_tissue"),
        ] {
            assert_eq!(labels.title(id), title);
        }
        assert_eq!(labels.title(1000), "1000");
    }

    #[test]
    fn every_common_form_of_labels_is_read() {
        let expected = ["tench", "goldfish", "great white shark"];
        for (text, is_json) in [
            ("tench\ngoldfish\ngreat white shark\n", false),
            (
                "\u{feff}tench\r\n goldfish \r\ngreat white shark\r\n\r\n",
                false,
            ),
            (r#"["tench", "goldfish", "great white shark"]"#, true),
            (
                r#"{"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"],
                    "2": ["n01484850", "great white shark"]}"#,
                true,
            ),
            (
                r#"{"2": "great white shark", "0": "tench", "1": "goldfish"}"#,
                true,
            ),
            (
                r#"{"goldfish": 1, "great white shark": 2, "tench": 0}"#,
                true,
            ),
        ] {
            assert_eq!(read(text, is_json).unwrap(), expected, "{text}");
        }
        // ImageFolder's classes may be digits
        assert_eq!(read(r#"{"7": 0, "3": 1}"#, true).unwrap(), ["7", "3"]);
    }

    #[test]
    fn files_without_labels_are_refused() {
        for (text, is_json) in [
            ("", false),
            ("\n\n", false),
            ("cat\n\ndog", false),
            ("", true),
            ("cat\ndog", true),
            ("[]", true),
            ("{}", true),
            ("3", true),
            (r#"["cat", 3]"#, true),
            (r#"["cat", ""]"#, true),
            (r#"{"cat": 0, "dog": 0}"#, true),
            (r#"{"cat": 0, "dog": 2}"#, true),
            (r#"{"cat": -1}"#, true),
            (r#"{"cat": "dog"}"#, true),
        ] {
            assert!(read(text, is_json).is_err(), "{text}");
        }
        assert!(Labels::from_bytes(b"caf\xe9", false).is_err());
    }

    #[test]
    fn the_opposite_of_a_class_is_named_after_it() {
        let of = |names: &[&str]| Labels(names.iter().map(|name| name.to_string()).collect());
        let two = of(&["great white shark, Carcharodon"]).of_two();
        assert_eq!(two.titles(), ["not_great_white_shark", "great_white_shark"]);
        assert_eq!(of(&["a", "b"]).of_two(), of(&["a", "b"]));
        assert_eq!(of(&["a", "b", "c"]).of_two(), of(&["a", "b", "c"]));
    }

    #[test]
    fn a_class_is_found_by_any_of_its_names() {
        let labels = Labels::imagenet();
        for name in [
            "timber_wolf",
            "timber wolf",
            "Grey Wolf",
            "canis lupus",
            "timber wolf, grey wolf, gray wolf, Canis lupus",
        ] {
            assert_eq!(labels.find(name).unwrap(), 269, "{name}");
        }
        let error = labels.find("crane").unwrap_err().to_string();
        assert!(error.contains("134") && error.contains("517"), "{error}");
        let error = labels.find("maillot").unwrap_err().to_string();
        assert!(error.contains("638") && error.contains("639"), "{error}");
        // Whole words come before letters: no class is called cattle.
        let error = labels.find("cat").unwrap_err().to_string();
        for name in ["tabby cat", "tiger cat", "Persian cat", "Egyptian cat"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("catamaran"), "{error}");
        assert!(error.len() < 250, "{error}");
        let error = labels.find("dogs").unwrap_err().to_string();
        assert!(error.contains("dog"), "{error}");
        let error = labels.find("catam").unwrap_err().to_string();
        assert!(error.contains("catamaran"), "{error}");
        let error = labels.find("german shepard").unwrap_err().to_string();
        assert!(error.contains("German shepherd"), "{error}");
    }
}
