//! A run that was saved: its summary as JSON and its arrays, read back.

mod photographs;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use crate::arrays::{ArrayFile, ArrayFormat};
use crate::classes::Class;
use crate::error::{Hint, hinted};
use crate::figure::Palette;
use crate::names::escaped_within;
use crate::run::Key;
use crate::scores::ScoreKind;
use crate::truth::TrueClass;

pub use photographs::SavedImages;

/// The largest summary, in bytes; that of 10,000 images has 5 MB. Of one in lines, the longest line.
const LARGEST_SUMMARY: u64 = 256 << 20;

/// How much a float32 may differ from the float64 that it was rounded from.
const ROUNDING: f64 = 1e-5;

/// The summary of a run, as its JSON has it (docs/json.md).
#[derive(Debug, Clone, Deserialize)]
pub struct SavedSummary {
    /// The version of prism.
    pub prism: String,
    /// The network's name.
    pub network: String,
    /// Height and width of the network's input.
    pub input_size: [i64; 2],
    /// First and last row and column, exclusive, that the features cover of it; none in the
    /// summary of an earlier version.
    pub region: Option<[[i64; 2]; 2]>,
    /// Number of classes.
    pub classes: usize,
    /// The rule that selected the layers.
    pub rule: String,
    /// The layer whose channels were analysed.
    pub excitation: SavedLayer,
    /// The guides.
    pub guides: Vec<SavedLayer>,
    /// What the network does not fix by itself.
    pub settings: BTreeMap<String, SavedSetting>,
    /// `product`, `bilateral`, `bilinear` or `none`.
    pub upsampling: String,
    /// Which colours were selected.
    pub colours: String,
    /// Method and class of the saliency.
    pub saliency: Option<String>,
    /// How components become colours; none in the summary of an earlier version.
    pub palette: Option<String>,
    /// Share of the variance of each component.
    pub variance_ratio: Vec<f64>,
    /// How well the colours keep the order of similarity of all channels.
    pub colour_correlation: Option<f64>,
    /// What the colours stand for.
    pub key: Option<Key>,
    /// What was assumed, and what limits the result.
    pub remarks: Vec<String>,
    /// The images, in the order of the arrays.
    pub images: Vec<SavedEntry>,
    /// The files that were written.
    pub files: Vec<String>,
}

impl SavedSummary {
    /// The summary in JSON.
    ///
    /// # Errors
    /// Returns an error if it is no summary.
    pub fn of_json(value: Value) -> Result<SavedSummary> {
        let mut summary: SavedSummary = serde_json::from_value(value)?;
        let kind = summary.scores();
        if let Some(key) = &mut summary.key {
            key.kind = kind;
        }
        Ok(summary)
    }

    /// What the probabilities are.
    pub fn scores(&self) -> ScoreKind {
        let scores = self.settings.get("scores");
        let scores = scores.and_then(|setting| setting.value.as_str());
        let kind = scores.and_then(|word| ScoreKind::from_str(word, false).ok());
        kind.unwrap_or(ScoreKind::Softmax)
    }

    /// How components become colours.
    pub fn palette(&self) -> Palette {
        let word = self.palette.as_deref().unwrap_or_default();
        Palette::from_str(word, false).unwrap_or_default()
    }

    /// Whether the maps are normalised last, as in TorchPRISM.
    fn normalises_last(&self) -> bool {
        let is_torchprism = self.rule == "torchprism" && self.upsampling == "none";
        self.upsampling == "product" || is_torchprism
    }

    /// Whether pixels can be left out.
    pub fn leaves_out(&self) -> bool {
        matches!(self.colours.as_str(), "common" | "unique") && !self.normalises_last()
    }

    /// Whether the maps have blocks of one colour, which must not be smoothed.
    pub fn is_in_blocks(&self) -> bool {
        let is_quantised = self.colours != "every" && !self.normalises_last();
        self.upsampling == "none" || is_quantised
    }
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SavedLayer {
    /// Its name.
    pub name: String,
    /// Channels, height and width; none of the image itself.
    pub shape: Option<[i64; 3]>,
}

/// A setting, and where it came from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SavedSetting {
    /// Its value.
    pub value: Value,
    /// Where it came from.
    pub from: String,
}

/// An image of the summary.
#[derive(Debug, Clone, Deserialize)]
pub struct SavedEntry {
    /// Its path, as the run was given it.
    pub path: String,
    /// Its top classes, one at least.
    pub classes: Vec<Class>,
    /// Its true class, if it is known.
    #[serde(default)]
    pub truth: Option<TrueClass>,
    /// The quantised colours that its features have; none in the summary of an earlier version.
    #[serde(default)]
    pub colours: Vec<u32>,
}

impl SavedEntry {
    /// Whether its top class is the true one, if that is known.
    pub fn is_right(&self) -> Option<bool> {
        let truth = self.truth.as_ref()?;
        Some(self.classes.first()?.id == truth.id)
    }
}

/// A run that was saved.
#[derive(Debug)]
pub struct SavedRun {
    /// The file of the summary.
    pub file: PathBuf,
    /// The summary.
    pub summary: SavedSummary,
    arrays: ArrayFile,
    /// Height and width of the features.
    pub grid: [usize; 2],
}

impl SavedRun {
    /// Reads the summary `file`, and finds its arrays: `arrays` if that is given, else the file
    /// that the summary names, as it lies from the summary, or from the working folder.
    ///
    /// # Errors
    /// Returns one line if a file is missing, damaged or of another origin, or if the two are not
    /// of one run.
    pub fn open(file: &Path, arrays: Option<&Path>) -> Result<SavedRun> {
        let summary = read_summary(file)
            .with_context(|| format!("{}: it cannot be read as a run", file.display()))?;
        let found = match arrays {
            Some(arrays) => arrays.to_path_buf(),
            None => arrays_of(file, &summary.files)?,
        };
        let arrays = ArrayFile::open(&found)?;
        let of = || format!("{}: not of the run {}", found.display(), file.display());
        let grid = check(&summary, &arrays).with_context(of)?;
        Ok(SavedRun {
            file: file.to_path_buf(),
            summary,
            arrays,
            grid,
        })
    }

    /// Checks that the run has saved all arrays that its pictures are made of.
    ///
    /// # Errors
    /// Returns one line that names what it lacks.
    pub fn require_pictures(&self) -> Result<()> {
        let lacks = |name: &&str| self.arrays.shape(name).is_none();
        let has_saliency = self.summary.saliency.is_some();
        let names = [
            Some("maps"),
            Some("input"),
            self.summary.leaves_out().then_some("left_out"),
            has_saliency.then_some("saliency"),
        ];
        let missing: Vec<&str> = names.into_iter().flatten().filter(lacks).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(hinted(
                format!(
                    "{}: its arrays lack {}, so there are no pictures; save them, too",
                    self.file.display(),
                    missing.join(", ")
                ),
                Hint::AllArrays,
            )),
        }
    }

    /// The number of images.
    pub fn count(&self) -> usize {
        self.summary.images.len()
    }

    /// The size of the maps: height and width.
    pub fn map_size(&self) -> [usize; 2] {
        match self.arrays.shape("maps") {
            Some(&[_, _, height, width]) => [height, width],
            _ => [0, 0],
        }
    }

    /// The number of channels of the network's input.
    pub fn channels(&self) -> usize {
        self.arrays.shape("input").map_or(0, |shape| shape[1])
    }

    /// The number of leading components that were saved; 0 if all places are equal.
    pub fn component_count(&self) -> usize {
        self.arrays.shape("components").map_or(0, |shape| shape[1])
    }

    /// The scores of the leading components of these images, `[n,d,h,w]` float32.
    ///
    /// # Errors
    /// Returns an error if they cannot be read, or there are none.
    pub fn components(&self, images: Range<usize>) -> Result<Tensor> {
        self.array("components", images)
    }

    /// The distances of these images' excitations from their mean, `[n,1,h,w]` float32.
    ///
    /// # Errors
    /// Returns an error if they cannot be read, or there are none.
    pub fn lengths(&self, images: Range<usize>) -> Result<Tensor> {
        self.array("lengths", images)
    }

    /// The map of an image, `[3,H,W]`, or `[4,H,W]` with saliency; NaN where pixels are left out.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn map(&self, image: usize) -> Result<Tensor> {
        let map = self.array("maps", image..image + 1)?.get(0);
        if !self.leaves_out() {
            return Ok(map);
        }
        let left_out = self.array("left_out", image..image + 1)?.gt(0.5);
        Ok(map.masked_fill(&left_out, f64::NAN))
    }

    /// Whether pixels are left out.
    pub fn leaves_out(&self) -> bool {
        self.arrays.shape("left_out").is_some()
    }

    /// The saliency of an image, `[h',w']`, if the run had one.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn saliency(&self, image: usize) -> Result<Option<Tensor>> {
        if self.arrays.shape("saliency").is_none() {
            return Ok(None);
        }
        let saliency = self.array("saliency", image..image + 1)?;
        Ok(Some(saliency.get(0).get(0)))
    }

    /// The probabilities of all classes of an image.
    ///
    /// # Errors
    /// Returns an error if they cannot be read.
    pub fn probabilities(&self, image: usize) -> Result<Vec<f32>> {
        self.read("probabilities", image..image + 1)
    }

    /// The input of the network of an image, `[C,H,W]`.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn input(&self, image: usize) -> Result<Tensor> {
        Ok(self.array("input", image..image + 1)?.get(0))
    }

    fn read(&self, name: &str, images: Range<usize>) -> Result<Vec<f32>> {
        let read = self.arrays.read(name, images);
        read.with_context(|| format!("{}: its arrays cannot be read", self.file.display()))
    }

    fn array(&self, name: &str, images: Range<usize>) -> Result<Tensor> {
        let shape = self.arrays.shape(name).unwrap_or_default();
        let axes = [&[images.len()], shape.get(1..).unwrap_or_default()].concat();
        let axes: Vec<i64> = axes.into_iter().map(|length| length as i64).collect();
        let values = self.read(name, images)?;
        Ok(Tensor::from_slice(&values).reshape(axes))
    }
}

/// Reads a line with its end, or all bytes; an error if there are more than
/// [`LARGEST_SUMMARY`].
fn bounded(reader: &mut impl BufRead, line: bool) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = reader.take(LARGEST_SUMMARY + 1);
    match line {
        true => reader.read_until(b'\n', &mut bytes)?,
        false => reader.read_to_end(&mut bytes)?,
    };
    ensure!(
        bytes.len() as u64 <= LARGEST_SUMMARY,
        "{} is larger than {} MiB",
        if line { "a line" } else { "it" },
        LARGEST_SUMMARY >> 20
    );
    Ok(bytes)
}

/// Reads a summary of one object, or of a line for the run and one for each image.
fn read_parts(file: &Path) -> Result<SavedSummary> {
    let mut reader = BufReader::new(File::open(file)?);
    let mut bytes = bounded(&mut reader, true)?;
    if bytes.starts_with(b"PK\x03\x04") {
        bail!("it is an archive; the file that --json wrote is expected");
    }
    if let Ok(mut first) = serde_json::from_slice::<Value>(&bytes)
        && let Some(count) = first.get("image_count").and_then(Value::as_u64)
    {
        first["images"] = Value::Array(Vec::new());
        let mut summary = of_value(first)?;
        summary.images = read_lines(&mut reader, count)?;
        return Ok(summary);
    }
    bytes.extend(bounded(&mut reader, false)?);
    of_value(serde_json::from_slice(&bytes).map_err(|error| {
        hinted(
            format!("it is no JSON, or cut short ({error})"),
            Hint::SavedRun,
        )
    })?)
}

fn of_value(value: Value) -> Result<SavedSummary> {
    let is_run = value.get("prism").is_some() && value.get("images").is_some();
    if !is_run {
        return Err(hinted("it is no summary of a run", Hint::SavedRun));
    }
    SavedSummary::of_json(value).map_err(|error| of_another_version(&error))
}

fn of_another_version(error: &dyn Display) -> anyhow::Error {
    anyhow!("another version of prism wrote it, or it was changed: {error}; run again")
}

/// The images of a summary in lines, `count` of them.
fn read_lines(reader: &mut impl BufRead, count: u64) -> Result<Vec<SavedEntry>> {
    let mut images = Vec::new();
    loop {
        let line = bounded(reader, true)?;
        if line.is_empty() {
            break;
        }
        let number = images.len() as u64 + 1;
        ensure!(
            number <= count,
            "it has more than the {count} images of its first line"
        );
        images.push(
            serde_json::from_slice(&line).map_err(|error| match error.is_data() {
                true => of_another_version(&format!("image {number}: {error}")),
                false => {
                    anyhow!("it is damaged or cut short at image {number} of {count} ({error})")
                }
            })?,
        );
    }
    let found = images.len();
    ensure!(
        found as u64 == count,
        "it is cut short: it has {found} of {count} images"
    );
    Ok(images)
}

fn read_summary(file: &Path) -> Result<SavedSummary> {
    let summary = read_parts(file)?;
    ensure!(!summary.images.is_empty(), "it has no images");
    if let Some(word) = &summary.palette {
        let known = Palette::from_str(word, false).is_ok();
        ensure!(known, "its palette is {}", escaped_within(word, 40));
    }
    for (side, range) in summary
        .input_size
        .iter()
        .zip(summary.region.iter().flatten())
    {
        ensure!(
            0 <= range[0] && range[0] < range[1] && range[1] <= *side,
            "its region goes from {} to {} of {side} pixels",
            range[0],
            range[1]
        );
    }
    let classless = summary.images.iter().find(|image| {
        let known = |class: &Class| class.id < summary.classes;
        image.classes.is_empty() || !image.classes.iter().all(known)
    });
    if let Some(image) = classless {
        bail!(
            "its image {} has no class of the network",
            escaped_within(&image.path, 80)
        );
    }
    Ok(summary)
}

/// The file of arrays that the summary `file` lists.
fn arrays_of(file: &Path, files: &[String]) -> Result<PathBuf> {
    let shown = file.display();
    let is_arrays = |path: &&Path| ArrayFormat::from_path(path).is_ok();
    let listed: Vec<&Path> = files.iter().map(Path::new).filter(is_arrays).collect();
    if listed.is_empty() {
        let text = format!("{shown}: the run saved no arrays");
        return Err(hinted(text, Hint::SavedRun));
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    // Where the summary was when it was written, if it was a file.
    let name = file.file_name();
    let written = files.iter().map(Path::new);
    let written = written.rev().find(|path| path.file_name() == name);
    let was_in = written.and_then(Path::parent);
    let found = listed.iter().flat_map(|arrays| {
        let beside = was_in.and_then(|was_in| arrays.strip_prefix(was_in).ok());
        let places = [
            beside.map(|beside| folder.join(beside)),
            arrays.file_name().map(|name| folder.join(name)),
            Some(arrays.to_path_buf()),
        ];
        places.into_iter().flatten().find(|place| place.is_file())
    });
    let found: Vec<PathBuf> = found.collect();
    // A basis may have the same extension.
    let mut arrays = found.iter().filter(|path| ArrayFile::open(path).is_ok());
    match (arrays.next(), arrays.next()) {
        (Some(_), Some(_)) => bail!(
            "{shown}: its arrays are in several files, one for each rank of a joint run, which are not read together"
        ),
        (Some(one), None) => Ok(one.clone()),
        // One that is damaged is found out when it is read.
        (None, _) => found.into_iter().next().ok_or_else(|| {
            let text = format!(
                "{shown}: its file of arrays, {}, is neither beside it nor there",
                listed[0].display()
            );
            hinted(text, Hint::SavedArrays)
        }),
    }
}

/// Checks that the arrays are those of the summary; returns height and width of the features.
fn check(summary: &SavedSummary, arrays: &ArrayFile) -> Result<[usize; 2]> {
    let (images, classes) = (summary.images.len(), summary.classes);
    let count = arrays.files.len();
    ensure!(
        count == images,
        "they are of {count} images, but the summary has {images}"
    );
    let differs = |(array, image): &(&String, &SavedEntry)| **array != image.path;
    let mut pairs = arrays.files.iter().zip(&summary.images);
    if let Some((array, image)) = pairs.find(differs) {
        bail!(
            "they have {} where the summary has {}",
            escaped_within(array, 60),
            escaped_within(&image.path, 60)
        );
    }
    let shape = |name: &str| {
        let shape = arrays.shape(name);
        shape.with_context(|| {
            format!(
                "they lack {name}, but have {}; save them again",
                arrays.names()
            )
        })
    };
    let grid = match shape("features")? {
        &[n, 3, h, w] if n == images => [h, w],
        other => bail!("their features have the shape {other:?}"),
    };
    let expect = |name: &str, fits: &dyn Fn(&[usize]) -> bool| {
        let found = shape(name)?;
        ensure!(fits(found), "their {name} have the shape {found:?}");
        Ok(())
    };
    expect("probabilities", &|found| found == [images, classes])?;
    let expect_if_saved = |name: &str, fits: &dyn Fn(&[usize]) -> bool| match arrays.shape(name) {
        Some(_) => expect(name, fits),
        None => Ok(()),
    };
    expect_if_saved(
        "maps",
        &|found| matches!(found, &[n, 3 | 4, h, w] if n == images && h * w > 0),
    )?;
    expect_if_saved("input", &|found| {
        let [height, width] = summary.input_size;
        matches!(found, &[n, _, h, w] if n == images && h as i64 == height && w as i64 == width)
    })?;
    if let Some(&[_, h, w]) = summary
        .excitation
        .shape
        .as_ref()
        .map(|shape| shape.as_slice())
    {
        ensure!(
            grid == [h as usize, w as usize],
            "their features are {}x{} places, but those of the summary {h}x{w}",
            grid[0],
            grid[1]
        );
    }
    for (index, image) in summary.images.iter().enumerate() {
        let values = arrays.read("probabilities", index..index + 1)?;
        for class in &image.classes {
            let (stored, wanted) = (f64::from(values[class.id]), class.probability);
            ensure!(
                (stored - wanted).abs() <= ROUNDING * wanted.abs().max(1.0),
                "they have the probability {stored:.4} of {} in {}, but the summary has {wanted:.4}",
                escaped_within(&class.name, 40),
                escaped_within(&image.path, 60)
            );
        }
    }
    let ratios = shape("variance_ratio")?.first().copied().unwrap_or(0);
    let ratios = arrays.read("variance_ratio", 0..ratios)?;
    let are_equal = ratios.len() == summary.variance_ratio.len()
        && ratios
            .iter()
            .zip(&summary.variance_ratio)
            .all(|(&stored, wanted)| (f64::from(stored) - wanted).abs() <= ROUNDING);
    ensure!(
        are_equal,
        "they have other variance ratios than the summary"
    );
    let groups = summary.key.iter().flat_map(|key| &key.groups);
    let mut lengths = groups.filter_map(|group| Some(group.feature.as_ref()?.len()));
    let count = arrays.shape("components").map(|shape| shape[1]);
    let other = count.and_then(|count| Some((lengths.find(|&length| length != count)?, count)));
    if let Some((length, count)) = other {
        bail!("a group of the key has {length} components, but the places {count}");
    }
    match arrays.shape("components") {
        Some(&[n, d, h, w]) => {
            ensure!(
                n == images && d > 0 && [h, w] == grid,
                "their components have the shape [{n}, {d}, {h}, {w}]"
            );
            expect("lengths", &|found| found == [images, 1, h, w])?;
        }
        Some(other) => bail!("their components have the shape {other:?}"),
        None => {
            let all_equal = (0..images).try_fold(true, |equal, image| -> Result<bool> {
                let values = arrays.read("features", image..image + 1)?;
                Ok(equal && values.iter().all(|&value| value == 0.0))
            })?;
            ensure!(
                all_equal,
                "they lack components; run again and save them, too"
            );
        }
    }
    Ok(grid)
}
