//! The true classes of images: from the names of their folders, from what lies beside them in tar
//! archives, or from a CSV file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::classes::{Class, class_name, find_class};
use crate::error::{Hint, usage_hinted};
use crate::images::ImageFile;
use crate::joint::Group;
use crate::labels::Labels;
use crate::remarks::Remark;

/// The largest CSV file, in bytes: half a million long rows.
const LARGEST_FILE: u64 = 64 << 20;

/// Names of the column with the images, as data sets have them.
const PATH_COLUMNS: [&str; 13] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "images",
    "image_id",
    "image_name",
    "image_path",
    "id",
    "name",
];

/// Names of the column with the classes.
const CLASS_COLUMNS: [&str; 14] = [
    "class",
    "class_id",
    "class_name",
    "label",
    "labels",
    "label_id",
    "label_name",
    "truth",
    "true_class",
    "target",
    "category",
    "category_id",
    "breed",
    "species",
];

/// Where the true classes of images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TruthSource {
    /// The name of the folder that an image lies in is its class.
    Folder,
    /// The `.cls` or `.json` beside an image in its tar archive says its class.
    Shards,
    /// A CSV file with paths and classes.
    Csv(PathBuf),
}

/// The true class of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrueClass {
    /// Index among the scores.
    pub id: usize,
    /// As in [`Class`].
    pub name: String,
}

/// What says the true classes, before the classes of the network are known.
#[derive(Debug)]
pub enum Truth {
    /// The names of folders.
    Folder,
    /// What lies beside images in archives says, by their paths; none if nothing is there.
    Shards(HashMap<PathBuf, String>),
    /// The rows of a file.
    Csv(PathBuf, Vec<Row>),
}

/// A row of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    line: u64,
    path: String,
    class: String,
}

/// The classes of the network by name and number.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Their names.
    pub labels: Option<&'a Labels>,
    /// How many there are.
    pub count: usize,
}

/// The true classes of the images of a run, by path.
#[derive(Debug, Default)]
pub struct Truths {
    of: HashMap<PathBuf, TrueClass>,
    /// What was assumed.
    pub remarks: Vec<Remark>,
}

impl Truth {
    /// Reads what says the true classes of these images.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read or is no CSV file of images and
    /// classes, or the image if what lies beside it says no class; a usage error if classes are
    /// asked of archives and no image lies in one.
    pub fn open(source: &TruthSource, images: &[&ImageFile]) -> Result<Truth> {
        Ok(match source {
            TruthSource::Folder => Truth::Folder,
            TruthSource::Shards => Truth::Shards(words_in_archives(images)?),
            TruthSource::Csv(file) => {
                let at = || format!("{}: the true classes cannot be read", file.display());
                let mut bytes = Vec::new();
                File::open(file)
                    .and_then(|open| open.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
                    .with_context(at)?;
                Truth::Csv(file.clone(), rows_of(&bytes).with_context(at)?)
            }
        })
    }

    /// The true class of each image.
    ///
    /// # Errors
    /// Returns an error if the network lacks a class, if the file gives an image two classes, or
    /// if it has no image.
    pub fn of(&self, images: &[PathBuf], known: Known<'_>) -> Result<Truths> {
        let mut truths = Truths::default();
        match self {
            Truth::Folder => truths.by_folder(images, known)?,
            Truth::Shards(words) => truths.by_words(images, words, known)?,
            Truth::Csv(file, rows) => {
                let at = || file.display().to_string();
                truths.by_rows(images, rows, known).with_context(at)?;
            }
        }
        Ok(truths)
    }
}

impl Truths {
    /// The true class of each of these images, if it is known.
    pub fn in_order(&self, images: &[PathBuf]) -> Vec<Option<TrueClass>> {
        images
            .iter()
            .map(|path| self.of.get(path).cloned())
            .collect()
    }

    fn by_folder(&mut self, images: &[PathBuf], known: Known<'_>) -> Result<()> {
        let mut classes: HashMap<String, TrueClass> = HashMap::new();
        for path in images {
            let shown = path.display();
            let folder = folder_name(path).with_context(|| {
                format!("{shown}: it lies in no folder whose name could be its true class")
            })?;
            let class = match classes.get(&folder) {
                Some(class) => class.clone(),
                None => {
                    let of = || format!("{shown}: its folder has no name of a class");
                    let class = self.class(&folder, known).with_context(of)?;
                    classes.entry(folder).or_insert(class).clone()
                }
            };
            self.of.insert(path.clone(), class);
        }
        Ok(())
    }

    fn by_words(
        &mut self,
        images: &[PathBuf],
        words: &HashMap<PathBuf, String>,
        known: Known<'_>,
    ) -> Result<()> {
        let mut classes: HashMap<&str, TrueClass> = HashMap::new();
        for path in images {
            let Some(word) = words.get(path) else {
                continue;
            };
            let class = match classes.get(word.as_str()) {
                Some(class) => class.clone(),
                None => {
                    let at = || format!("{}: the class beside it", path.display());
                    let class = self.class(word, known).with_context(at)?;
                    classes.entry(word).or_insert(class).clone()
                }
            };
            self.of.insert(path.clone(), class);
        }
        if let Some((_, first)) = self.missing(images) {
            ensure!(
                !self.of.is_empty(),
                "{}: neither it nor any other image has a class beside it (a .cls with a number, or a .json with a field label, cls or class_id)",
                first.display()
            );
            self.warn_of_missing(images);
        }
        Ok(())
    }

    /// How many images have no class, and the first of them.
    fn missing<'a>(&self, images: &'a [PathBuf]) -> Option<(usize, &'a Path)> {
        let mut missing = images.iter().filter(|path| !self.of.contains_key(*path));
        let first = missing.next()?;
        Some((missing.count() + 1, first))
    }

    fn warn_of_missing(&mut self, images: &[PathBuf]) {
        if let Some((missing, first)) = self.missing(images) {
            self.remarks.push(Remark::warning(format!(
                "there is no true class of {missing} of {} images, the first: {}",
                images.len(),
                first.display()
            )));
        }
    }

    fn by_rows(&mut self, images: &[PathBuf], rows: &[Row], known: Known<'_>) -> Result<()> {
        let index = Index::of(images);
        let mut classes: HashMap<&str, TrueClass> = HashMap::new();
        let mut lines: HashMap<&Path, u64> = HashMap::new();
        for row in rows {
            let found = index.find(&row.path);
            let path = match found.as_slice() {
                [] => continue,
                [path] => *path,
                [first, second, ..] => bail!(
                    "line {}: {} names {} images ({}, {}, ...); give more of their paths",
                    row.line,
                    row.path,
                    found.len(),
                    first.display(),
                    second.display()
                ),
            };
            if row.class.is_empty() {
                continue;
            }
            let at = || format!("line {}", row.line);
            let class = match classes.get(row.class.as_str()) {
                Some(class) => class.clone(),
                None => {
                    let class = self.class(&row.class, known).with_context(at)?;
                    classes.entry(&row.class).or_insert(class).clone()
                }
            };
            let line = *lines.entry(path).or_insert(row.line);
            let earlier = self.of.entry(path.to_path_buf()).or_insert(class.clone());
            ensure!(
                *earlier == class,
                "{} has the class {} in line {line} and {} in line {}",
                path.display(),
                earlier.name,
                class.name,
                row.line
            );
        }
        let Some((missing, first)) = self.missing(images) else {
            return Ok(());
        };
        let count = images.len();
        if missing == count {
            let row = rows.first().map_or("", |row| row.path.as_str());
            bail!(
                "it has no class for any of the {count} images: the first is {}, but the file's first row is '{row}' (a row has the path or name of an image, and its class)",
                first.display()
            );
        }
        self.warn_of_missing(images);
        Ok(())
    }

    /// The class of that name, else of that number. Classes may be called by numbers that are not
    /// their own.
    fn class(&mut self, word: &str, known: Known<'_>) -> Result<TrueClass> {
        let named = known.labels.and_then(|labels| labels.find(word).ok());
        let id = match named {
            Some(id) => {
                if word
                    .parse()
                    .is_ok_and(|number: usize| number != id && number < known.count)
                {
                    self.remark(format!(
                        "a class is called '{word}', so the true class '{word}' is that one, number {id}"
                    ));
                }
                id
            }
            None => {
                let id = find_class(word, known.labels, known.count)?;
                match id < known.count {
                    true => id,
                    false => return Err(crate::classes::no_class(word, known.count)),
                }
            }
        };
        let name = class_name(id, known.labels);
        Ok(TrueClass { id, name })
    }

    fn remark(&mut self, text: String) {
        let remark = Remark::note(text);
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }
}

/// How many images whose true class is known are right, as a remark: their top class is that one.
pub fn right(
    classes: &[Vec<Class>],
    truths: &[Option<TrueClass>],
    group: &Group,
) -> Result<Option<Remark>> {
    let known = classes.iter().zip(truths);
    let known = known.filter_map(|(classes, truth)| Some((classes.first()?, truth.as_ref()?)));
    let (right, count) = known.fold((0, 0), |(right, count), (top, truth)| {
        (right + usize::from(top.id == truth.id), count + 1)
    });
    let counts: Vec<(usize, usize)> = group.share((right, count))?;
    let right: usize = counts.iter().map(|(right, _)| right).sum();
    let count: usize = counts.iter().map(|(_, count)| count).sum();
    let images = if count == 1 { "image" } else { "images" };
    Ok((count > 0).then(|| {
        Remark::note(format!(
            "top class equals the truth in {right} of {count} {images}"
        ))
    }))
}

/// What lies beside images in their archives and says their classes, by the images' paths.
fn words_in_archives(images: &[&ImageFile]) -> Result<HashMap<PathBuf, String>> {
    if !images.is_empty() && !images.iter().any(|image| image.is_member()) {
        let text = "no image lies in a tar archive, in which its class would be beside it";
        return Err(usage_hinted(text, Hint::TruthFile));
    }
    // In order, so that of several errors the first is returned.
    let words: Vec<Result<Option<String>>> = images.par_iter().map(|image| image.class()).collect();
    let mut known = HashMap::new();
    for (image, word) in images.iter().zip(words) {
        if let Some(word) = word? {
            known.insert(image.path().to_path_buf(), word);
        }
    }
    Ok(known)
}

/// The name of the folder that a file lies in.
fn folder_name(path: &Path) -> Option<String> {
    let parent = path.parent()?;
    let name = match parent.file_name() {
        Some(name) => name.to_os_string(),
        // In the working folder, or in one that is named by dots alone.
        None => {
            let parent = if parent == Path::new("") {
                Path::new(".")
            } else {
                parent
            };
            parent.canonicalize().ok()?.file_name()?.to_os_string()
        }
    };
    Some(name.to_string_lossy().into_owned())
}

/// The images of a run by their paths and by the names of their files.
struct Index<'a> {
    /// The working folder.
    here: PathBuf,
    by_path: HashMap<&'a Path, Vec<&'a Path>>,
    by_name: HashMap<&'a OsStr, Vec<&'a Path>>,
    by_stem: HashMap<&'a OsStr, Vec<&'a Path>>,
}

impl<'a> Index<'a> {
    fn of(images: &'a [PathBuf]) -> Index<'a> {
        let mut index = Index {
            here: std::env::current_dir().unwrap_or_default(),
            by_path: HashMap::new(),
            by_name: HashMap::new(),
            by_stem: HashMap::new(),
        };
        for path in images.iter().map(PathBuf::as_path) {
            let name = path.file_name().unwrap_or_default();
            let stem = path.file_stem().unwrap_or_default();
            index.by_path.entry(plain(path)).or_default().push(path);
            index.by_name.entry(name).or_default().push(path);
            index.by_stem.entry(stem).or_default().push(path);
        }
        index
    }

    /// The images that a word names: by a whole path, by the end of one, or by the name of the file
    /// without its extension.
    fn find(&self, word: &str) -> Vec<&'a Path> {
        let forward = word.replace('\\', "/");
        for word in [Path::new(word), Path::new(&forward)] {
            let word = plain(word);
            let Some(name) = word.file_name() else {
                continue;
            };
            let from_here = word.strip_prefix(&self.here).ok();
            let whole = [Some(word), from_here].into_iter().flatten();
            let whole: Vec<&Path> = whole
                .filter_map(|path| self.by_path.get(path))
                .flatten()
                .copied()
                .collect();
            if !whole.is_empty() {
                return whole;
            }
            let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
            let ending = all.iter().filter(|path| self.ends(path, word));
            let ending: Vec<&Path> = ending.copied().collect();
            if !ending.is_empty() {
                return ending;
            }
            let all = self.by_stem.get(name).map_or(&[][..], Vec::as_slice);
            let without = |path: &&&Path| self.ends(&path.with_extension(""), word);
            let stems: Vec<&Path> = all.iter().filter(without).copied().collect();
            if !stems.is_empty() {
                return stems;
            }
        }
        Vec::new()
    }

    /// Whether a path from the root ends in a word.
    fn ends(&self, path: &Path, word: &Path) -> bool {
        path.ends_with(word) || self.here.join(plain(path)).ends_with(word)
    }
}

/// A path without `./` before it.
fn plain(path: &Path) -> &Path {
    path.strip_prefix("./").unwrap_or(path)
}

/// The rows of a CSV file.
fn rows_of(bytes: &[u8]) -> Result<Vec<Row>> {
    ensure!(
        bytes.len() as u64 <= LARGEST_FILE,
        "the file is larger than {} MiB",
        LARGEST_FILE >> 20
    );
    let Ok(text) = std::str::from_utf8(bytes) else {
        bail!("it is not text in UTF-8");
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(text))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut columns = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let (path, class) = match columns {
            Some(columns) => columns,
            None => match header(&record) {
                Some(named) => {
                    columns = Some(named);
                    continue;
                }
                None => *columns.insert((0, 1)),
            },
        };
        let [Some(path), Some(class)] = [path, class].map(|column| record.get(column)) else {
            bail!("line {line} has no path and class with a comma between");
        };
        rows.push(Row {
            line,
            path: path.to_string(),
            class: class.to_string(),
        });
    }
    ensure!(!rows.is_empty(), "there is no row with an image in it");
    Ok(rows)
}

/// The columns of path and class, if the record is a header.
fn header(record: &csv::StringRecord) -> Option<(usize, usize)> {
    let plain = |cell: &str| cell.to_lowercase().replace([' ', '-'], "_");
    let column = |names: &[&str]| {
        let is_named = |cell: &str| names.contains(&plain(cell).as_str());
        record.iter().position(is_named)
    };
    column(&PATH_COLUMNS).zip(column(&CLASS_COLUMNS))
}

/// What separates the columns: the first comma, semicolon or tab of the first line outside quotes.
fn delimiter(text: &str) -> u8 {
    let mut is_quoted = false;
    let line = text.lines().find(|line| !line.trim().is_empty());
    let found = line.unwrap_or_default().bytes().find(|&byte| {
        is_quoted ^= byte == b'"';
        !is_quoted && b",;\t".contains(&byte)
    });
    found.unwrap_or(b',')
}

/// The usage error for images that lie in no folder of their own.
pub fn no_folders(file: &Path) -> anyhow::Error {
    let text = format!(
        "{}: stored images lie in no folder of their class",
        file.display()
    );
    usage_hinted(text, Hint::TruthFile)
}

/// The usage error for images that lie in no archive.
pub fn no_archives(file: &Path) -> anyhow::Error {
    let text = format!(
        "{}: stored images have no class beside them",
        file.display()
    );
    usage_hinted(text, Hint::TruthFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(String, String)> {
        let rows = rows_of(text.as_bytes()).unwrap();
        rows.into_iter().map(|row| (row.path, row.class)).collect()
    }

    fn labels(names: &[&str]) -> Labels {
        Labels::new(names.iter().map(|name| name.to_string()).collect())
    }

    fn truths(text: &str, images: &[&str], names: &[&str]) -> Result<(Vec<Option<usize>>, usize)> {
        let labels = labels(names);
        let known = Known {
            labels: Some(&labels),
            count: names.len(),
        };
        let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
        let truth = Truth::Csv("t.csv".into(), rows_of(text.as_bytes())?);
        let truths = truth.of(&images, known)?;
        let ids = truths.in_order(&images);
        let ids = ids.into_iter().map(|class| class.map(|class| class.id));
        Ok((ids.collect(), truths.remarks.len()))
    }

    #[test]
    fn rows_are_read_in_every_common_form() {
        let expected = [("a/1.jpg", "cat"), ("b.jpg", "timber wolf")];
        let expected = expected.map(|(path, class)| (path.to_string(), class.to_string()));
        for text in [
            "a/1.jpg,cat\nb.jpg,timber wolf\n",
            "\u{feff}path,class\r\na/1.jpg,cat\r\nb.jpg,timber wolf\r\n",
            "Label;split;File Name\ncat;train;a/1.jpg\ntimber wolf;test;b.jpg",
            "\"a/1.jpg\"\t\"cat\"\nb.jpg\ttimber wolf",
            "\n\n a/1.jpg , cat \n\nb.jpg , timber wolf, extra\n",
        ] {
            assert_eq!(rows(text), expected, "{text}");
        }
        assert_eq!(
            rows("\"a,b.jpg\",\"wolf, grey wolf\""),
            [("a,b.jpg".to_string(), "wolf, grey wolf".to_string())]
        );
        for bad in [
            "",
            "\n\n",
            "path,class\n",
            "just text\n",
            "a.jpg,cat\nb.jpg\n",
        ] {
            assert!(rows_of(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(rows_of(b"a.jpg,caf\xe9").is_err());
    }

    #[test]
    fn an_image_is_found_by_its_path_the_end_of_it_or_its_name() {
        let images = ["x/cat/1.jpg", "x/dog/1.jpg", "./x/dog/2.png", "/y/3.png"];
        let names = ["cat", "dog", "emu"];
        let text = "cat/1.jpg,cat\nx/dog/1.jpg,dog\n2.png,2\n/y/3.png,EMU\nnot/here.jpg,fish\n";
        let found = truths(text, &images, &names).unwrap();
        assert_eq!(found, (vec![Some(0), Some(1), Some(2), Some(2)], 0));
        // By stems, with backslashes, and with a row and a class missing.
        let found = truths("id,breed\n2,dog\ncat\\1.jpg,cat\n3,\n", &images, &names).unwrap();
        assert_eq!(found, (vec![Some(0), None, Some(1), None], 1));
        // A whole path comes before the end of another one.
        let found = truths("1.jpg,cat\n", &["1.jpg", "b/1.jpg"], &names).unwrap();
        assert_eq!(found, (vec![Some(0), None], 1));
        for (text, part) in [
            ("1.jpg,cat\n", "line 1: 1.jpg names 2 images"),
            (
                "2.png,cat\nx/dog/2.png,dog\n",
                "class cat in line 1 and dog in line 2",
            ),
            ("p,c\n2.png,wolf\n", "line 2"),
            ("2.png,3\n", "classes are 0 to 2"),
            ("2.png,-1\n", "classes are 0 to 2"),
            ("8.png,cat\n", "for any of the 4 images"),
        ] {
            let error = format!("{:#}", truths(text, &images, &names).unwrap_err());
            assert!(error.contains(part) && error.contains("t.csv"), "{error}");
        }
    }

    #[test]
    fn paths_from_the_root_name_images_of_the_working_folder() {
        let here = std::env::current_dir().unwrap();
        let last = here.file_name().unwrap().to_str().unwrap();
        let (images, names) = (["x/1.jpg", "y/1.jpg", "./2.jpg"], ["cat", "dog"]);
        let text = format!(
            "{0}/x/1.jpg,cat\n{0}/./y//1.jpg,dog\n{last}/2.jpg,dog\n",
            here.display()
        );
        let found = truths(&text, &images, &names).unwrap();
        assert_eq!(found, (vec![Some(0), Some(1), Some(1)], 0));
    }

    #[test]
    fn images_of_one_name_in_many_folders_are_found_at_once() {
        let images: Vec<String> = (0..20_000).map(|at| format!("q/{at}/image.jpg")).collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let text: String = images.iter().map(|path| format!("{path},cat\n")).collect();
        let begun = std::time::Instant::now();
        let found = truths(&text, &images, &["cat"]).unwrap();
        assert!(found.0.iter().all(|class| *class == Some(0)));
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_class_called_by_a_number_comes_before_the_class_of_that_number() {
        let found = truths(
            "a.png,10\nb.png,3\n",
            &["a.png", "b.png"],
            &["0", "1", "10", "2", "4", "5", "6", "7", "8", "9", "11"],
        );
        // The second is by its place: no class is called 3.
        assert_eq!(found.unwrap(), (vec![Some(2), Some(3)], 1));
    }

    #[test]
    fn a_folder_is_named_as_the_path_names_it() {
        assert_eq!(folder_name(Path::new("x/cat/1.jpg")).unwrap(), "cat");
        let here = std::env::current_dir().unwrap();
        let here = here.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(folder_name(Path::new("1.jpg")).unwrap(), here);
        assert_eq!(folder_name(Path::new("src/../1.jpg")).unwrap(), here);
    }
}
