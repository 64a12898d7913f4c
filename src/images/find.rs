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
use super::archive::{self, is_archive};
use super::decode::reason;
use super::file::ImageFile;
use super::kinds;
use super::tar::End;

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
pub(super) const MOST_SEARCHED: usize = 10_000;

/// Formats that a line names.
const MOST_NAMED: usize = 5;

/// Image files, and what was left out in the search for them.
#[derive(Debug, Default)]
pub struct Found {
    /// The images, sorted by path; members of an archive as they lie in it.
    pub images: Vec<ImageFile>,
    /// What the values and archives hold beside them, for each that holds anything.
    pub left_out: Vec<LeftOut>,
    /// What is wrong with archives that could not be listed to their end.
    pub damaged: Vec<anyhow::Error>,
    /// What archives hold in which there is no image.
    pub without_images: Vec<anyhow::Error>,
}

/// How many files there are of a kind, and the first of them.
#[derive(Debug, Default)]
pub struct Counted {
    count: usize,
    first: PathBuf,
}

impl Counted {
    pub(super) fn add(&mut self, path: PathBuf) {
        if self.count == 0 {
            self.first = path;
        }
        self.count += 1;
    }
}

/// What a folder, glob or archive holds beside the images.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// The folder, glob or archive.
    pub value: PathBuf,
    /// How many files of which format are not read.
    pub pictures: BTreeMap<&'static str, usize>,
    /// How many images are under another name than those of their format, and one of them.
    pub misnamed: (usize, PathBuf),
    /// How many sub-folders hold images.
    pub folders: usize,
    /// How many files match a glob in other letter case, and one of them.
    pub other_case: (usize, PathBuf),
    /// The tar archives in a folder or of a glob of any files.
    pub archives: usize,
    /// Images in an archive that are links to others.
    pub links: Counted,
    /// Images in an archive that are stored without their holes.
    pub sparse: Counted,
    /// Images in an archive that a later one of the same name replaces.
    pub replaced: Counted,
    /// Files in an archive that may say a class, likewise.
    pub classes_replaced: Counted,
    /// How an archive ends, if it does not end as it should.
    pub end: Option<End>,
    /// How many other files there are.
    pub others: usize,
}

impl LeftOut {
    /// Nothing so far.
    pub(super) fn of(value: &Path) -> LeftOut {
        LeftOut {
            value: value.to_path_buf(),
            ..LeftOut::default()
        }
    }

    fn is_empty(&self) -> bool {
        let replaced = self.replaced.count + self.classes_replaced.count;
        let in_archive = self.links.count + self.sparse.count + replaced;
        let in_folder = self.misnamed.0 + self.folders + self.other_case.0 + self.archives;
        self.pictures.is_empty() && self.end.is_none() && in_archive + in_folder + self.others == 0
    }

    /// Adds a file that is not taken for an image. Files that lie beside images are not opened.
    pub(super) fn sort_in(&mut self, path: PathBuf, start: impl FnOnce(&Path) -> Vec<u8>) {
        if has_extension(&path, &NOTES) {
            self.others += 1;
            return;
        }
        let start = start(&path);
        let by_content = kinds::by_content(&start);
        let kind = by_content.or_else(|| kinds::by_extension(&path));
        match kind {
            Some(kind) if kind.is_pictorial() => {
                *self.pictures.entry(kind.name).or_default() += 1;
            }
            Some(kind) if kind.is_tar() => self.archives += 1,
            None if is_image(&start) => {
                self.misnamed.0 += 1;
                self.misnamed.1 = path;
            }
            _ => self.others += 1,
        }
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
        if self.archives > 0 {
            lines.push(format!(
                "{shown}: {} not read; {} reads them, too",
                number_of(self.archives, "tar archive is", "tar archives are"),
                self.shards()
            ));
        }
        self.archive_lines(&mut lines);
        lines
    }

    /// What is unusual about an archive.
    fn archive_lines(&self, lines: &mut Vec<String>) {
        let shown = self.value.display();
        let mut tell = |Counted { count, first }: &Counted, one, many, advice| {
            if *count > 0 {
                let (number, first) = (number_of(*count, one, many), first.display());
                lines.push(format!("{shown}: {number} {advice}, the first: {first}"));
            }
        };
        tell(
            &self.links,
            "image is a link, which is",
            "images are links, which are",
            "left out (pack the files themselves: tar --dereference --hard-dereference)",
        );
        tell(
            &self.sparse,
            "image is stored without its holes and is",
            "images are stored without their holes and are",
            "left out (pack without --sparse)",
        );
        tell(
            &self.replaced,
            "image is left out, because a later one has its name,",
            "images are left out, because later ones have their names,",
            "as when the archive is unpacked",
        );
        tell(
            &self.classes_replaced,
            "file with a class is left out, because a later one has its name,",
            "files with classes are left out, because later ones have their names,",
            "as when the archive is unpacked",
        );
        match self.end {
            Some(End::Unmarked) => lines.push(format!(
                "{shown}: the archive has no mark of its end; it may be cut short after a whole member"
            )),
            Some(End::Continued) => lines.push(format!(
                "{shown}: bytes after the end of the archive are not read; archives that were put together by cat must be unpacked and packed again"
            )),
            _ => {}
        }
    }

    /// The error if there is no image beside it.
    fn nothing_found(&self) -> anyhow::Error {
        let shown = self.value.display();
        let (searched, within) = match &self.value {
            value if value.is_dir() => (format!("the folder {shown} holds"), "in it"),
            value if value.is_file() => (format!("the archive {shown} holds"), "in it"),
            _ => (format!("the glob {shown} matches"), "among them"),
        };
        if self.links.count > 0 {
            return anyhow!(
                "{searched} no image, but links to images; pack the files themselves: tar --dereference --hard-dereference"
            );
        }
        if self.sparse.count > 0 {
            return anyhow!(
                "{searched} no image that can be read, but images without their holes; pack without --sparse"
            );
        }
        if self.archives > 0 && self.pictures.is_empty() && self.folders == 0 {
            let archives = number_of(self.archives, "tar archive", "tar archives");
            return anyhow!(
                "{searched} no image, but {archives}; {} reads them",
                self.shards()
            );
        }
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
        self.glob("**/*")
    }

    /// The glob that reads the archives, quoted for a shell.
    fn shards(&self) -> String {
        match self.value.is_dir() {
            true => self.glob("*.tar"),
            false => crate::names::in_quotes(&format!("{}.tar", self.value.display())),
        }
    }

    fn glob(&self, end: &str) -> String {
        let folder = glob::Pattern::escape(&self.value.display().to_string());
        let glob = Path::new(&folder).join(end).display().to_string();
        crate::names::in_quotes(&glob)
    }
}

/// Finds the images that `values` name, sorted by path; those of an archive as they lie in it.
///
/// Each value is a file, a folder or a glob. A folder gives the files in it with an extension
/// of [`FORMATS`], without those of its sub-folders; in a glob `**` descends into folders. A
/// glob that ends in `*` gives images by their extension, too; any other all that match. An
/// existing path is never read as a glob. As in a shell, globs and folders skip hidden files,
/// whose name starts with a dot. Paths are returned as given; paths that are equal once made
/// absolute are returned once. A tar archive gives its members with such an extension, of which
/// only the headers are read; it is one by its name, or by its content if its name is not that of
/// an image.
///
/// # Errors
/// Returns an error if there are no values, a value yields no file, an archive is compressed, or
/// archives hold no image and nothing else does.
pub fn find_images(values: &[PathBuf]) -> Result<Found> {
    ensure!(
        !values.is_empty(),
        "no input: name an image, a folder or a glob"
    );
    let mut seen = HashSet::new();
    let mut found = Found::default();
    let mut archives = Vec::new();
    for value in values {
        let (images, left_out) = images_of(value)?;
        for path in images {
            let absolute = std::path::absolute(&path)
                .with_context(|| format!("cannot make {} absolute", path.display()))?;
            if !seen.insert(absolute) {
                continue;
            }
            match is_archive(&path)? {
                true => archives.push(path),
                false => found.images.push(path.into()),
            }
        }
        found
            .left_out
            .extend(Some(left_out).filter(|left_out| !left_out.is_empty()));
    }
    archives.sort();
    add_archives(&mut found, &archives)?;
    found.images.sort_by(ImageFile::order);
    Ok(found)
}

/// Adds the images in archives.
fn add_archives(found: &mut Found, archives: &[PathBuf]) -> Result<()> {
    let mut empty = Vec::new();
    for listed in archive::listed(archives) {
        if listed.images.is_empty() && listed.damage.is_none() {
            empty.push(listed.left_out);
            continue;
        }
        found.images.extend(listed.images);
        found.damaged.extend(listed.damage);
        found
            .left_out
            .extend(Some(listed.left_out).filter(|left_out| !left_out.is_empty()));
    }
    let has_none = found.images.is_empty() && found.damaged.is_empty();
    match empty.first() {
        Some(first) if has_none => Err(first.nothing_found()),
        _ => {
            found.without_images = empty.iter().map(LeftOut::nothing_found).collect();
            Ok(())
        }
    }
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
    let mut left_out = LeftOut::of(value);
    let mut searched = 0;
    for path in others {
        match path.is_dir() {
            true => left_out.folders += usize::from(holds_image(&path, &mut searched)),
            false => left_out.sort_in(path, start_of),
        }
    }
    left_out
}

/// The first bytes of a regular file; none of anything else.
pub(super) fn start_of(path: &Path) -> Vec<u8> {
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
pub(super) fn is_unseen(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".") || is_litter(path)
}

fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    LITTER
        .iter()
        .any(|litter| name.eq_ignore_ascii_case(litter))
}

pub(super) fn has_image_extension(path: &Path) -> bool {
    FORMATS.iter().any(|(_, known)| has_extension(path, known))
}

pub(super) fn has_extension(path: &Path, known: &[&str]) -> bool {
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
