//! The images in tar archives, as WebDataset stores them: a sample is the members whose paths are
//! equal up to the first dot of their last part, its key.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;
use serde_json::Value;

use super::decode::reason;
use super::file::{Archive, ImageFile, Member, Note, Recent, Section};
use super::find::{
    LeftOut, MOST_SEARCHED, has_extension, has_image_extension, is_unseen, start_of,
};
use super::kinds::{self, Kind};
use super::tar::{End, Entries, Entry, EntryKind};

/// The largest member that says a class, in bytes.
const LARGEST_NOTE: u64 = 1 << 20;

/// The extension of archives.
const EXTENSION: &str = "tar";

/// Extensions of compressed archives, and what decompresses them.
const COMPRESSED: [(&str, &str); 8] = [
    (".tar.gz", "gunzip"),
    (".tgz", "gunzip"),
    (".tar.bz2", "bunzip2"),
    (".tbz2", "bunzip2"),
    (".tar.xz", "unxz"),
    (".txz", "unxz"),
    (".tar.zst", "unzstd"),
    (".tar.lz4", "unlz4"),
];

/// Fields of a `.json` that may say the class; earlier ones count first.
const CLASS_FIELDS: [&str; 3] = ["label", "cls", "class_id"];

/// Members beside images in WebDataset's samples that are not opened.
const NOTES: [&str; 12] = [
    "cls",
    "cls2",
    "id",
    "index",
    "inx",
    "pickle",
    "pkl",
    "pyd",
    "tb",
    "ten",
    "text",
    "transcript",
];

/// What an archive holds.
pub struct Listed {
    /// The images, as they lie in it.
    pub images: Vec<ImageFile>,
    /// What it holds beside them.
    pub left_out: LeftOut,
    /// Why it was not listed to its end.
    pub damage: Option<anyhow::Error>,
}

/// Whether a file is a tar archive by its name, or by its content if its name is not that of an
/// image.
///
/// # Errors
/// Returns an error if the name is that of a compressed archive.
pub fn is_archive(path: &Path) -> Result<bool> {
    if has_image_extension(path) {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_ascii_lowercase();
    let ends = |(end, _): &&(&str, &str)| name.as_bytes().ends_with(end.as_bytes());
    if let Some((_, tool)) = COMPRESSED.iter().find(ends) {
        bail!(
            "{}: a compressed archive is not read, because images are read from their places in archives; decompress it, such as with {tool}",
            path.display()
        );
    }
    let has_name = has_extension(path, &[EXTENSION]);
    Ok(has_name || kinds::by_content(&start_of(path)).is_some_and(Kind::is_tar))
}

/// Lists archives, several at once.
pub fn listed(archives: &[PathBuf]) -> Vec<Listed> {
    let recent = Arc::default();
    archives
        .par_iter()
        .map(|path| listed_one(path, &recent))
        .collect()
}

fn listed_one(path: &Path, recent: &Arc<Recent>) -> Listed {
    let mut listing = Listing {
        archive: Arc::new(Archive {
            path: path.to_path_buf(),
            recent: recent.clone(),
        }),
        members: HashMap::new(),
        images: Vec::new(),
        notes: HashMap::new(),
        left_out: LeftOut::of(path),
        searched: 0,
    };
    let read = listing.read();
    let left_out = listing.left_out;
    let mut images: Vec<ImageFile> = listing.images.into_iter().flatten().collect();
    for image in &mut images {
        let name = image.name_in_archive().as_os_str().as_bytes();
        let note = listing.notes.get(key_of(name).0).copied();
        image.set_note(note);
    }
    Listed {
        images,
        left_out,
        damage: read
            .err()
            .map(|error| anyhow!("{}: {error:#}", path.display())),
    }
}

/// An archive that is being listed.
struct Listing {
    archive: Arc<Archive>,
    /// The places of images in `images` by name.
    members: HashMap<PathBuf, usize>,
    /// None if a later member has the same name.
    images: Vec<Option<ImageFile>>,
    /// By key.
    notes: HashMap<Vec<u8>, Note>,
    left_out: LeftOut,
    searched: usize,
}

impl Listing {
    fn read(&mut self) -> Result<()> {
        let path = self.archive.path.clone();
        let unreadable = |error| anyhow!(reason(&error));
        let found = std::fs::metadata(&path).map_err(unreadable)?;
        ensure!(found.is_file(), "it is not a regular file");
        ensure!(found.len() > 0, "the file is empty");
        let file = File::open(&path).map_err(unreadable)?;
        let start = start_of(&path);
        if let Some(kind) = kinds::by_content(&start).filter(|kind| !kind.is_tar()) {
            bail!("this is {}, no tar archive; {}", kind.name, kind.remedy());
        }
        let mut entries = Entries::of(&file, found.len());
        for entry in entries.by_ref() {
            self.add(&file, entry?);
        }
        self.left_out.end = entries.end.filter(|end| *end != End::Marked);
        Ok(())
    }

    fn add(&mut self, file: &File, entry: Entry) {
        let name = relative(&entry.name);
        let path = PathBuf::from(OsString::from_vec(name.to_vec()));
        if is_unseen(&path) || entry.kind == EntryKind::Other {
            return;
        }
        let shown = self.archive.path.join(&path);
        match entry.kind {
            _ if !has_image_extension(&path) => self.pass(file, &entry, shown),
            EntryKind::File => {
                let member = Member {
                    archive: self.archive.clone(),
                    start: entry.start,
                    length: entry.length,
                    note: None,
                };
                let image = ImageFile::within(member, &path);
                if let Some(earlier) = self.members.insert(path, self.images.len()) {
                    self.images[earlier] = None;
                    self.left_out.replaced.add(shown);
                }
                self.images.push(Some(image));
            }
            EntryKind::Link => self.left_out.links.add(shown),
            _ => self.left_out.sparse.add(shown),
        }
    }

    /// A member that is no image by its name.
    fn pass(&mut self, file: &File, entry: &Entry, shown: PathBuf) {
        if entry.kind != EntryKind::File {
            return;
        }
        let (key, extension) = key_of(relative(&entry.name));
        let is_json = extension == b"json";
        if is_json || extension == b"cls" {
            let note = Note {
                start: entry.start,
                length: entry.length,
                is_json,
            };
            let earlier = self.notes.get(key);
            if earlier.is_some_and(|earlier| earlier.is_json == is_json) {
                self.left_out.classes_replaced.add(shown.clone());
            }
            if !is_json || earlier.is_none_or(|earlier| earlier.is_json) {
                self.notes.insert(key.to_vec(), note);
            }
        }
        let mut start = Vec::new();
        if !has_extension(&shown, &NOTES) && self.searched < MOST_SEARCHED {
            self.searched += 1;
            start.resize(entry.length.min(kinds::SIGNATURE as u64) as usize, 0);
            if file.read_exact_at(&mut start, entry.start).is_err() {
                start.clear();
            }
        }
        self.left_out.sort_in(shown, |_| start);
    }
}

/// A name within an archive, from its root.
fn relative(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./").or_else(|| name.strip_prefix(b"/")) {
        name = rest;
    }
    name
}

/// The key of a sample, and the rest of the name of its member without the dot between.
fn key_of(name: &[u8]) -> (&[u8], &[u8]) {
    let last = name.iter().rposition(|byte| *byte == b'/');
    let last = last.map_or(0, |slash| slash + 1);
    match name[last..].iter().position(|byte| *byte == b'.') {
        Some(dot) => (&name[..last + dot], &name[last + dot + 1..]),
        None => (name, b""),
    }
}

impl ImageFile {
    /// The class that the `.cls` beside it in its archive says, else the `.json`, as a word.
    /// None if neither is there, or the `.json` says none.
    ///
    /// # Errors
    /// Returns an error with the path of the image if they cannot be read.
    pub fn class(&self) -> Result<Option<String>> {
        let Some((member, note)) = self.note() else {
            return Ok(None);
        };
        let kind = if note.is_json { ".json" } else { ".cls" };
        let at = || format!("{}: the {kind} beside it", self.path().display());
        let read = || {
            ensure!(
                note.length <= LARGEST_NOTE,
                "it is larger than {} MiB",
                LARGEST_NOTE >> 20
            );
            let mut bytes = Vec::new();
            Section::of(member, note.start, note.length)?.read_to_end(&mut bytes)?;
            match note.is_json {
                true => class_in_json(&bytes),
                false => class_in_text(&bytes).map(Some),
            }
        };
        read().with_context(at)
    }
}

/// The class in a `.cls`.
fn class_in_text(bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).context("it is not text in UTF-8")?;
    let text = text.trim_start_matches('\u{feff}').trim();
    ensure!(!text.is_empty(), "it is empty");
    ensure!(text.lines().count() == 1, "it has more than one line");
    Ok(text.to_string())
}

/// The class in a `.json`: the first field with a number, else the first with a text.
fn class_in_json(bytes: &[u8]) -> Result<Option<String>> {
    let value: Value = serde_json::from_slice(bytes).context("it is damaged")?;
    let found = CLASS_FIELDS
        .iter()
        .filter_map(|name| Some((name, value.get(name)?)));
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for (name, field) in found {
        match field {
            Value::Null => {}
            Value::String(text) => texts.push(text.clone()),
            Value::Number(number) => {
                let whole = number.as_f64().filter(|number| number.fract() == 0.0);
                let number = whole.with_context(|| format!("its {name} {number} is no class"))?;
                numbers.push((name, number));
            }
            _ => bail!("its {name} is neither a number nor a text"),
        }
    }
    match numbers.as_slice() {
        [] => Ok(texts.into_iter().next()),
        [(name, number), rest @ ..] => {
            if let Some((other, different)) = rest.iter().find(|(_, other)| other != number) {
                bail!("its {name} is {number}, but its {other} is {different}");
            }
            Ok(Some(number.to_string()))
        }
    }
}

/// Images by their paths, also of members of archives, each of which is listed once.
#[derive(Debug, Default)]
pub struct Lookup(Mutex<HashMap<PathBuf, HashMap<PathBuf, ImageFile>>>);

impl Lookup {
    /// The image with that path, if it is there.
    pub fn find(&self, path: &Path) -> Option<ImageFile> {
        if path.is_file() {
            return Some(path.into());
        }
        let mut above = path.ancestors().skip(1);
        let archive = above.find(|above| above.is_file())?;
        if !is_archive(archive).unwrap_or(false) {
            return None;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let members = known.entry(archive.to_path_buf()).or_insert_with(|| {
            let images = listed_one(archive, &Arc::default()).images.into_iter();
            images
                .map(|image| (image.path().to_path_buf(), image))
                .collect()
        });
        members.get(path).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_last_part() {
        for (name, key, rest) in [
            ("0001.jpg", "0001", "jpg"),
            ("a.b/c.seg.png", "a.b/c", "seg.png"),
            ("a.b/c", "a.b/c", ""),
            (".jpg", "", "jpg"),
        ] {
            assert_eq!(key_of(name.as_bytes()), (key.as_bytes(), rest.as_bytes()));
        }
        for name in ["a/b.jpg", "./a/b.jpg", "/a/b.jpg", "././/a/b.jpg"] {
            assert_eq!(relative(name.as_bytes()), b"a/b.jpg");
        }
    }

    #[test]
    fn a_class_is_a_number_or_a_name() {
        let text = |text: &str| class_in_text(text.as_bytes()).ok();
        assert_eq!(text("12\n").as_deref(), Some("12"));
        assert_eq!(
            text("\u{feff} tabby cat \r\n").as_deref(),
            Some("tabby cat")
        );
        assert_eq!(text(" \n"), None);
        assert_eq!(text("1\n2\n"), None);
        assert!(class_in_text(b"\xff").is_err());
        let json = |text: &str| class_in_json(text.as_bytes()).map_err(|_| ());
        for (text, class) in [
            (r#"{"label": 3}"#, Some("3")),
            (r#"{"class_id": 4.0, "x": 1}"#, Some("4")),
            (
                r#"{"label": "tabby", "cls": 281, "class_id": 281}"#,
                Some("281"),
            ),
            (r#"{"label": "tabby", "cls": null}"#, Some("tabby")),
            (r#"{"caption": "a cat"}"#, None),
            ("[1]", None),
        ] {
            assert_eq!(json(text), Ok(class.map(String::from)), "{text}");
        }
        for text in [
            r#"{"label": 3, "cls": 4}"#,
            r#"{"label": 3.5}"#,
            r#"{"label": [3]}"#,
            r#"{"label": true}"#,
            r#"{"label": 3"#,
        ] {
            assert_eq!(json(text), Err(()), "{text}");
        }
    }
}
