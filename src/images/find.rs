//! Finding image files by path, folder or glob.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::FORMATS;
use super::decode::reason;
use super::kinds::{self, Kind};

/// Files that systems leave in folders of pictures, beside hidden ones.
const LITTER: [&str; 3] = ["Thumbs.db", "ehthumbs.db", "desktop.ini"];

/// Extensions of files that lie beside images and are none. There may be as many of them as
/// images, so they are not opened.
const NOTES: [&str; 12] = [
    "csv",
    "json",
    "md",
    "npy",
    "npz",
    "pt",
    "pth",
    "safetensors",
    "txt",
    "xml",
    "yaml",
    "yml",
];

/// Files and folders in which images are looked for, to say that they are there.
const MOST_SEARCHED: usize = 10_000;

/// Formats that a line names.
const MOST_NAMED: usize = 5;

/// Image files, and what was left out in the search for them.
#[derive(Debug, Default)]
pub struct Found {
    /// The images, sorted by path.
    pub images: Vec<PathBuf>,
    /// What the values hold beside them, for each value that holds anything.
    pub left_out: Vec<LeftOut>,
}

/// What a folder or glob holds beside the images.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// The folder or glob.
    pub value: PathBuf,
    /// How many files of which format are not read.
    pub pictures: BTreeMap<&'static str, usize>,
    /// How many images are under another name than those of their format, and one of them.
    pub misnamed: (usize, PathBuf),
    /// How many sub-folders hold images.
    pub folders: usize,
    /// How many files match a glob in other letter case, and one of them.
    pub other_case: (usize, PathBuf),
    /// How many other files there are.
    pub others: usize,
}

impl LeftOut {
    fn is_empty(&self) -> bool {
        self.pictures.is_empty()
            && self.misnamed.0 + self.folders + self.other_case.0 + self.others == 0
    }

    /// What was left out that people may miss, a line each.
    pub fn lines(&self) -> Vec<String> {
        let shown = self.value.display();
        let mut lines = Vec::new();
        if !self.pictures.is_empty() {
            let count: usize = self.pictures.values().sum();
            lines.push(format!(
                "{shown}: {} not read and left out: {}; convert {} to JPEG or PNG",
                number_of(count, "file is", "files are"),
                listed(&self.pictures),
                if count == 1 { "it" } else { "them" },
            ));
        }
        if let (count @ 1.., example) = &self.misnamed {
            lines.push(format!(
                "{shown}: {} left out, because the name has no extension of an image: {}; rename it, or give it by name",
                number_of(*count, "image is", "images are"),
                example.display(),
            ));
        }
        if self.folders > 0 {
            lines.push(format!(
                "{shown}: {} not read; {} reads them, too",
                number_of(
                    self.folders,
                    "sub-folder with images is",
                    "sub-folders with images are"
                ),
                self.below()
            ));
        }
        if let (count @ 1.., example) = &self.other_case {
            lines.push(format!(
                "{shown}: {} left out that {} in other letter case: {}",
                number_of(*count, "file is", "files are"),
                if *count == 1 { "matches" } else { "match" },
                example.display(),
            ));
        }
        lines
    }

    /// The error if there is no image beside it.
    fn nothing_found(&self) -> anyhow::Error {
        let shown = self.value.display();
        let (searched, within) = match self.value.is_dir() {
            true => (format!("the folder {shown} holds"), "in it"),
            false => (format!("the glob {shown} matches"), "among them"),
        };
        if self.folders > 0 && self.pictures.is_empty() {
            let folders = number_of(self.folders, "sub-folder", "sub-folders");
            return anyhow!(
                "{searched} no image, but {folders} with images; {} reads them",
                self.below()
            );
        }
        if !self.pictures.is_empty() {
            let listed = listed(&self.pictures);
            return anyhow!(
                "{searched} no image that can be read, but {listed}; convert to JPEG or PNG"
            );
        }
        if let (1.., example) = &self.misnamed {
            let example = example.display();
            return anyhow!(
                "{searched} no image by its name, but {example} is one; rename it, or give it by name"
            );
        }
        anyhow!(
            "{searched} no image (no file {within} ends in .{})",
            extensions().join(", .")
        )
    }

    /// The glob that reads the sub-folders, quoted for a shell.
    fn below(&self) -> String {
        let folder = glob::Pattern::escape(&self.value.display().to_string());
        let glob = Path::new(&folder).join("**/*").display().to_string();
        crate::names::in_quotes(&glob)
    }
}

/// Finds the image files that `values` name, sorted by path.
///
/// Each value is a file, a folder or a glob. A folder gives the files in it with an extension
/// of [`FORMATS`], without those of its sub-folders; in a glob `**` descends into folders. A
/// glob that ends in `*` gives images by their extension, too; any other all that match. An
/// existing path is never read as a glob. As in a shell, globs and folders skip hidden files,
/// whose name starts with a dot. Paths are returned as given; paths that are equal once made
/// absolute are returned once.
///
/// # Errors
/// Returns an error if there are no values or a value yields no file.
pub fn find_images(values: &[PathBuf]) -> Result<Found> {
    ensure!(
        !values.is_empty(),
        "no input: name an image, a folder or a glob"
    );
    let mut seen = HashSet::new();
    let mut found = Found::default();
    for value in values {
        let (images, left_out) = images_of(value)?;
        for path in images {
            let absolute = std::path::absolute(&path)
                .with_context(|| format!("cannot make {} absolute", path.display()))?;
            if seen.insert(absolute) {
                found.images.push(path);
            }
        }
        found
            .left_out
            .extend(Some(left_out).filter(|left_out| !left_out.is_empty()));
    }
    found.images.sort();
    Ok(found)
}

fn images_of(value: &Path) -> Result<(Vec<PathBuf>, LeftOut)> {
    let name = value.as_os_str().as_encoded_bytes();
    ensure!(
        !name.is_empty(),
        "the input is empty: name an image, a folder or a glob"
    );
    match fs::metadata(value) {
        Ok(found) if found.is_dir() => images_in_folder(value),
        Ok(_) => Ok((vec![value.to_path_buf()], LeftOut::default())),
        Err(_) if name.iter().any(|byte| b"*?[".contains(byte)) => images_of_glob(value),
        Err(error) => Err(anyhow!("{}: {}", value.display(), reason(&error))),
    }
}

fn images_in_folder(folder: &Path) -> Result<(Vec<PathBuf>, LeftOut)> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut images = Vec::new();
    let mut others = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        match () {
            () if is_unseen(&path) => {}
            () if has_image_extension(&path) && !path.is_dir() => images.push(path),
            () => others.push(path),
        }
    }
    others.sort();
    let left_out = sorted_out(folder, others);
    match images.is_empty() {
        true => Err(left_out.nothing_found()),
        false => Ok((images, left_out)),
    }
}

/// What the entries of a folder or the matches of a glob are that were not taken.
fn sorted_out(value: &Path, others: Vec<PathBuf>) -> LeftOut {
    let mut left_out = LeftOut {
        value: value.to_path_buf(),
        ..LeftOut::default()
    };
    let mut searched = 0;
    for path in others {
        if path.is_dir() {
            left_out.folders += usize::from(holds_image(&path, &mut searched));
            continue;
        }
        if has_extension(&path, &NOTES) {
            left_out.others += 1;
            continue;
        }
        let start = start_of(&path);
        let by_content = kinds::by_content(&start);
        let kind = by_content.or_else(|| kinds::by_extension(&path));
        match kind.filter(|kind| kind.is_pictorial()) {
            Some(Kind { name, .. }) => *left_out.pictures.entry(name).or_default() += 1,
            None if by_content.is_none() && is_image(&start) => {
                left_out.misnamed.0 += 1;
                left_out.misnamed.1 = path;
            }
            None => left_out.others += 1,
        }
    }
    left_out
}

/// The first bytes of a regular file; none of anything else.
fn start_of(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    // A pipe would block.
    if path.is_file()
        && let Ok(file) = File::open(path)
    {
        let _ = file.take(kinds::SIGNATURE as u64).read_to_end(&mut start);
    }
    start
}

/// Whether a file begins as one of [`FORMATS`] that is known by more than two letters.
fn is_image(start: &[u8]) -> bool {
    image::guess_format(start).is_ok_and(|format| {
        use image::ImageFormat as F;
        matches!(
            format,
            F::Gif | F::Jpeg | F::Png | F::Qoi | F::Tiff | F::WebP
        )
    })
}

/// Whether a folder holds an image by its name, also in its sub-folders. Links to folders are
/// not followed.
fn holds_image(folder: &Path, searched: &mut usize) -> bool {
    let entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    *searched += entries.len();
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.path();
        match entry.file_type() {
            _ if is_unseen(&path) => {}
            Ok(kind) if kind.is_dir() => folders.push(path),
            Ok(_) if has_image_extension(&path) => return true,
            _ => {}
        }
    }
    folders
        .iter()
        .any(|folder| *searched < MOST_SEARCHED && holds_image(folder, searched))
}

/// Whether a file is hidden or left by the system.
fn is_unseen(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".") || is_litter(path)
}

fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    LITTER
        .iter()
        .any(|litter| name.eq_ignore_ascii_case(litter))
}

fn has_image_extension(path: &Path) -> bool {
    FORMATS.iter().any(|(_, known)| has_extension(path, known))
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let is_known = |found: &OsStr| known.iter().any(|known| found.eq_ignore_ascii_case(known));
    path.extension().is_some_and(is_known)
}

fn extensions() -> Vec<&'static str> {
    let all = FORMATS.iter().flat_map(|(_, found)| *found);
    let mut all: Vec<&str> = all.copied().collect();
    all.sort();
    all
}

fn images_of_glob(value: &Path) -> Result<(Vec<PathBuf>, LeftOut)> {
    let shown = value.display();
    let not_unicode = || format!("{shown}: no such file, and a glob must be valid UTF-8");
    let pattern = value.to_str().with_context(not_unicode)?;
    // As a folder, `*` asks for what is there, not for files of a certain name.
    let is_wanted = |path: &PathBuf| !value.ends_with("*") || has_image_extension(path);
    let matched = matches(pattern, true)?;
    let any_case = matches(pattern, false).unwrap_or_default();
    let known: HashSet<&PathBuf> = matched.iter().collect();
    let mut in_other_case = any_case
        .into_iter()
        .filter(|path| !known.contains(path) && is_wanted(path));
    let first = in_other_case.next();
    let other_case =
        first.map_or_else(Default::default, |first| (1 + in_other_case.count(), first));
    let is_matched = !matched.is_empty();
    let (images, others): (Vec<_>, Vec<_>) = matched.into_iter().partition(is_wanted);
    let left_out = LeftOut {
        other_case,
        ..sorted_out(value, others)
    };
    match (images.is_empty(), &left_out.other_case) {
        (false, _) => Ok((images, left_out)),
        (true, (1.., example)) => bail!(
            "{pattern}: no {} matches this glob, but {} does in other letter case",
            if is_matched { "image" } else { "file" },
            example.display()
        ),
        (true, _) if is_matched => Err(left_out.nothing_found()),
        (true, _) => bail!("{pattern}: no file matches this glob"),
    }
}

/// The files that match a glob, in order.
fn matches(pattern: &str, case_sensitive: bool) -> Result<Vec<PathBuf>> {
    let as_in_a_shell = glob::MatchOptions {
        case_sensitive,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let found = glob::glob_with(pattern, as_in_a_shell).map_err(|error| {
        anyhow!(
            "{pattern}: no such file, and no valid glob: {} (at character {})",
            error.msg,
            error.pos + 1
        )
    })?;
    // The crate panics if it meets such a name.
    let met = std::panic::catch_unwind(AssertUnwindSafe(|| found.collect::<Vec<_>>()));
    let Ok(met) = met else {
        bail!(
            "{pattern}: the glob meets a file name that is not valid UTF-8; name the folder instead"
        );
    };
    let mut files = Vec::new();
    for found in met {
        let path = found.map_err(|error| {
            let (path, reason) = (error.path().display(), reason(error.error()));
            anyhow!("{pattern}: cannot read {path}: {reason}")
        })?;
        if !path.is_dir() && !is_litter(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

/// `1 file is` or `3 files are`.
fn number_of(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `2 HEIC, 1 video (MP4 or QuickTime)`, the most frequent first.
fn listed(pictures: &BTreeMap<&'static str, usize>) -> String {
    let mut most: Vec<_> = pictures.iter().collect();
    most.sort_by_key(|&(_, &count)| Reverse(count));
    let (named, rest) = most.split_at(most.len().min(MOST_NAMED));
    let mut each: Vec<String> = named
        .iter()
        .map(|(name, count)| {
            let article = name.strip_prefix("a ").or_else(|| name.strip_prefix("an "));
            format!("{count} {}", article.unwrap_or(name))
        })
        .collect();
    if !rest.is_empty() {
        let count: usize = rest.iter().map(|(_, count)| **count).sum();
        each.push(format!("{count} of other formats"));
    }
    each.join(", ")
}
