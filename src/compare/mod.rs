//! Two saved runs side by side: which images changed their class, and how similar the features are.

mod cka;
mod condition;
mod matching;
mod text;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};
use serde::Serialize;
use tch::{Kind, Tensor};

pub use cka::{Cka, CkaAccumulator};
pub use condition::Condition;
pub use matching::{Matched, matched};
pub use text::in_words;

use crate::classes::{Class, class_name};
use crate::remarks::Remark;
use crate::saved::{SavedEntry, SavedRun};
use crate::truth::TrueClass;

/// Places for each component below which the bias of plain CKA is pointed out.
const FEW_PLACES: i64 = 20;

/// The numbers of a comparison by the names that conditions use.
pub const NUMBERS: [&str; 10] = [
    "top1_changed",
    "probability_change",
    "accuracy_a",
    "accuracy_b",
    "accuracy_change",
    "cka",
    "cka_debiased",
    "images",
    "only_a",
    "only_b",
];

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// The file of its summary.
    pub file: String,
    /// The network's name.
    pub network: String,
    /// The layer whose channels were analysed.
    pub layer: String,
    /// Channels, height and width of that layer, if they are known.
    pub shape: Option<[i64; 3]>,
    /// Height and width of the network's input.
    pub input_size: [i64; 2],
    /// How many images only this run has.
    pub only_here: usize,
    /// How many components of each place were saved.
    pub components: usize,
    /// How many images with a known true class are right.
    pub accuracy: Option<Accuracy>,
}

/// How many images are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Accuracy {
    /// Images whose top class is the true one.
    pub right: usize,
    /// Images whose true class is known.
    pub of: usize,
}

/// An image whose top class changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// The image's path in the first run.
    pub path: String,
    /// Its top class in the first run.
    pub a: Class,
    /// Its top class in the second run.
    pub b: Class,
    /// Its true class, if it is known.
    pub truth: Option<TrueClass>,
}

/// What two runs have in common and what not.
#[derive(Debug)]
pub struct Comparison {
    /// The first run and the second run.
    pub sides: [Side; 2],
    /// For each image of both runs its index in the first and in the second run.
    pub pairs: Vec<(usize, usize)>,
    /// The images whose top class changed; none if classes cannot be compared.
    pub changed: Option<Vec<Changed>>,
    /// Mean absolute change of the probability of the first run's top class.
    pub probability_change: Option<f64>,
    /// How similar the features are.
    pub cka: Cka,
    /// Rows and columns of places of each image that are compared.
    pub grid: [i64; 2],
    /// What was assumed, and what limits the result.
    pub remarks: Vec<Remark>,
}

impl Comparison {
    /// Compares the images that both runs have.
    ///
    /// # Errors
    /// Returns an error if no image is in both runs, or if arrays cannot be read.
    pub fn of(a: &SavedRun, b: &SavedRun) -> Result<Comparison> {
        let Matched { pairs, remark } = matched(a, b)?;
        let mut remarks: Vec<Remark> = remark.into_iter().collect();
        let classes = Correspondence::of(a, b, &mut remarks);
        let changed = changed(a, b, &pairs, &classes);
        let probability_change = probability_change(a, b, &pairs, &classes, &mut remarks)?;
        let accuracies = accuracies(a, b, &pairs, &classes);
        remarks.extend(other_inputs(a, b));
        let grid = [0, 1].map(|axis| a.grid[axis].min(b.grid[axis]) as i64);
        let cka = similarity(a, b, &pairs, grid)?;
        remarks.extend(limits(a, b, &cka));
        let side = |run: &SavedRun, accuracy| Side {
            file: run.file.to_string_lossy().into_owned(),
            network: run.summary.network.clone(),
            layer: run.summary.excitation.name.clone(),
            shape: run.summary.excitation.shape,
            input_size: run.summary.input_size,
            only_here: run.count() - pairs.len(),
            components: run.component_count(),
            accuracy,
        };
        Ok(Comparison {
            sides: [side(a, accuracies[0]), side(b, accuracies[1])],
            pairs,
            changed,
            probability_change,
            cka,
            grid,
            remarks,
        })
    }

    /// The share of images whose top class changed.
    pub fn top1_changed(&self) -> Option<f64> {
        let changed = self.changed.as_ref()?;
        Some(changed.len() as f64 / self.pairs.len() as f64)
    }

    /// The number of that name of [`NUMBERS`], if it is known.
    pub fn number(&self, name: &str) -> Option<f64> {
        let accuracy = |side: usize| {
            let accuracy = self.sides[side].accuracy?;
            Some(accuracy.right as f64 / accuracy.of as f64)
        };
        match name {
            "top1_changed" => self.top1_changed(),
            "probability_change" => self.probability_change,
            "accuracy_a" => accuracy(0),
            "accuracy_b" => accuracy(1),
            "accuracy_change" => Some(accuracy(1)? - accuracy(0)?),
            "cka" => self.cka.plain,
            "cka_debiased" => self.cka.debiased,
            "images" => Some(self.pairs.len() as f64),
            "only_a" => Some(self.sides[0].only_here as f64),
            "only_b" => Some(self.sides[1].only_here as f64),
            _ => None,
        }
    }

    /// The conditions that hold, each with its number.
    ///
    /// # Errors
    /// Returns an error if a number is not known: a condition that cannot be checked must not pass.
    pub fn fulfilled<'a>(&self, conditions: &'a [Condition]) -> Result<Vec<(&'a Condition, f64)>> {
        let mut holding = Vec::new();
        for condition in conditions {
            let Some(value) = self.number(condition.name) else {
                bail!(
                    "'{}' cannot be checked: {}",
                    condition.text,
                    match condition.name {
                        "top1_changed" | "probability_change" =>
                            "the classes of the two runs cannot be compared",
                        "cka" | "cka_debiased" =>
                            "the features of a run do not vary, or there are too few places",
                        _ => "no true class is known of an image in both runs",
                    }
                );
            };
            if condition.holds(value) {
                holding.push((condition, value));
            }
        }
        Ok(holding)
    }

    /// The comparison for programs (docs/json.md); `holding` are the conditions that hold.
    ///
    /// # Errors
    /// Returns an error if serialisation fails.
    pub fn to_json(&self, holding: &[(&Condition, f64)], remarks: &[String]) -> Result<String> {
        let mut json = serde_json::Map::new();
        json.insert("prism".into(), env!("CARGO_PKG_VERSION").into());
        for (name, side) in ["a", "b"].into_iter().zip(&self.sides) {
            json.insert(name.into(), serde_json::to_value(side)?);
        }
        for name in NUMBERS {
            let value = match (name, self.number(name)) {
                ("images" | "only_a" | "only_b", Some(count)) => (count as u64).into(),
                (_, value) => serde_json::to_value(value)?,
            };
            json.insert(name.into(), value);
        }
        json.insert("places".into(), self.cka.places.into());
        json.insert("grid".into(), serde_json::to_value(self.grid)?);
        json.insert("changed".into(), serde_json::to_value(&self.changed)?);
        let failed: Vec<&str> = holding
            .iter()
            .map(|(condition, _)| condition.text.as_str())
            .collect();
        json.insert("failed".into(), serde_json::to_value(failed)?);
        json.insert("remarks".into(), serde_json::to_value(remarks)?);
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }
}

/// How the classes of two runs belong together.
#[derive(Debug)]
enum Correspondence {
    /// By their numbers.
    Numbers,
    /// By their names. The numbers that the second run's names have, as far as its summary has
    /// them.
    Names(HashMap<String, Option<usize>>),
    /// Not at all.
    None,
}

impl Correspondence {
    fn of(a: &SavedRun, b: &SavedRun, remarks: &mut Vec<Remark>) -> Correspondence {
        let [names_a, names_b] = [a, b].map(names);
        let is_numbered = |names: &BTreeMap<usize, String>| {
            names
                .iter()
                .all(|(id, name)| *name == class_name(*id, None))
        };
        let numbered = [is_numbered(&names_a), is_numbered(&names_b)];
        let (count_a, count_b) = (a.summary.classes, b.summary.classes);
        let agree = names_a.iter().all(|(id, name)| {
            numbered[0] || numbered[1] || names_b.get(id).is_none_or(|other| other == name)
        });
        if count_a == count_b && agree {
            if numbered[0] != numbered[1] {
                remarks.push(Remark::note(
                    "only one of the runs has class names, so classes of one number are taken to be the same",
                ));
            }
            return Correspondence::Numbers;
        }
        if numbered[0] || numbered[1] {
            remarks.push(Remark::warning(format!(
                "the networks have {count_a} and {count_b} classes, and not all have names, so classes are not compared"
            )));
            return Correspondence::None;
        }
        remarks.push(Remark::warning(format!(
            "the networks have other classes ({count_a} and {count_b}), which are compared by their names"
        )));
        let mut by_name: HashMap<String, Option<usize>> = HashMap::new();
        for (id, name) in names_b {
            let known = by_name.entry(name).or_insert(Some(id));
            if *known != Some(id) {
                *known = None; // two classes have the name
            }
        }
        Correspondence::Names(by_name)
    }

    fn is_same(&self, (a, name_a): (usize, &str), (b, name_b): (usize, &str)) -> Option<bool> {
        match self {
            Correspondence::Numbers => Some(a == b),
            Correspondence::Names(_) => Some(name_a == name_b),
            Correspondence::None => None,
        }
    }

    /// The number in the second run of a class of the first run.
    fn in_second(&self, class: &Class) -> Option<usize> {
        match self {
            Correspondence::Numbers => Some(class.id),
            Correspondence::Names(by_name) => by_name.get(&class.name).copied().flatten(),
            Correspondence::None => None,
        }
    }
}

/// The class names that a summary has.
fn names(run: &SavedRun) -> BTreeMap<usize, String> {
    let images = run.summary.images.iter();
    let classes = images.flat_map(|image| &image.classes);
    let mut names: BTreeMap<usize, String> = classes
        .map(|class| (class.id, class.name.clone()))
        .collect();
    let truths = run
        .summary
        .images
        .iter()
        .filter_map(|image| image.truth.as_ref());
    names.extend(truths.map(|truth| (truth.id, truth.name.clone())));
    names
}

fn top(image: &SavedEntry) -> &Class {
    &image.classes[0] // one at least, as the summary was checked
}

fn changed(
    a: &SavedRun,
    b: &SavedRun,
    pairs: &[(usize, usize)],
    classes: &Correspondence,
) -> Option<Vec<Changed>> {
    let mut changed = Vec::new();
    for &(in_a, in_b) in pairs {
        let (a, b) = (&a.summary.images[in_a], &b.summary.images[in_b]);
        let (from, to) = (top(a), top(b));
        if !classes.is_same((from.id, &from.name), (to.id, &to.name))? {
            changed.push(Changed {
                path: a.path.clone(),
                a: from.clone(),
                b: to.clone(),
                truth: a.truth.clone().or_else(|| b.truth.clone()),
            });
        }
    }
    Some(changed)
}

fn probability_change(
    a: &SavedRun,
    b: &SavedRun,
    pairs: &[(usize, usize)],
    classes: &Correspondence,
    remarks: &mut Vec<Remark>,
) -> Result<Option<f64>> {
    if matches!(classes, Correspondence::None) {
        return Ok(None);
    }
    let [kind_a, kind_b] = [a, b].map(|run| run.summary.settings.get("scores"));
    if kind_a.map(|kind| &kind.value) != kind_b.map(|kind| &kind.value) {
        remarks.push(Remark::warning(
            "the scores of the two networks are read in different ways, so their probabilities may not be comparable",
        ));
    }
    let (mut sum, mut count) = (0.0, 0);
    for &(in_a, in_b) in pairs {
        let class = top(&a.summary.images[in_a]);
        if let Some(other) = classes.in_second(class) {
            let (before, after) = (a.probabilities(in_a)?, b.probabilities(in_b)?);
            sum += f64::from((before[class.id] - after[other]).abs());
            count += 1;
        }
    }
    if count < pairs.len() {
        remarks.push(Remark::note(format!(
            "the change of probability is the mean of {count} of {} images: of the others the summary of the second run does not name the class",
            pairs.len()
        )));
    }
    Ok((count > 0).then(|| sum / f64::from(count as u32)))
}

/// How many images are right in each run. A run without true classes takes those of the other.
fn accuracies(
    a: &SavedRun,
    b: &SavedRun,
    pairs: &[(usize, usize)],
    classes: &Correspondence,
) -> [Option<Accuracy>; 2] {
    let mut all = [Accuracy { right: 0, of: 0 }; 2];
    for &(in_a, in_b) in pairs {
        let images = [&a.summary.images[in_a], &b.summary.images[in_b]];
        for side in [0, 1] {
            let class = top(images[side]);
            let is_right = match (&images[side].truth, &images[1 - side].truth) {
                (Some(truth), _) => Some(truth.id == class.id),
                (None, Some(truth)) => {
                    classes.is_same((truth.id, &truth.name), (class.id, &class.name))
                }
                (None, None) => None,
            };
            if let Some(is_right) = is_right {
                all[side].right += usize::from(is_right);
                all[side].of += 1;
            }
        }
    }
    all.map(|accuracy| (accuracy.of > 0).then_some(accuracy))
}

/// What is different about the inputs, so that places correspond only roughly.
fn other_inputs(a: &SavedRun, b: &SavedRun) -> Option<Remark> {
    let [one, other] = [a, b].map(|run| &run.summary);
    let resize = |run: &SavedRun| {
        let setting = run.summary.settings.get("resize");
        setting
            .map_or("none", |setting| setting.value.as_str().unwrap_or("none"))
            .to_string()
    };
    let size = |[height, width]: [i64; 2]| format!("{height}x{width}");
    let mut differences = Vec::new();
    if one.input_size != other.input_size {
        differences.push(format!(
            "inputs of {} and {} pixels",
            size(one.input_size),
            size(other.input_size)
        ));
    }
    if resize(a) != resize(b) {
        differences.push(format!("images fitted by {} and {}", resize(a), resize(b)));
    }
    let part = |run: &SavedRun| {
        let [height, width] = run.summary.input_size;
        let region = run.summary.region.unwrap_or([[0, height], [0, width]]);
        let share = |[start, end]: [i64; 2], of: i64| [start, end].map(|at| at * 1000 / of.max(1));
        [share(region[0], height), share(region[1], width)]
    };
    if part(a) != part(b) {
        differences.push("features of other parts of the images".to_string());
    }
    if a.grid != b.grid {
        let grid = |run: &SavedRun| format!("{}x{}", run.grid[0], run.grid[1]);
        differences.push(format!("{} and {} places", grid(a), grid(b)));
    }
    (!differences.is_empty()).then(|| {
        Remark::note(format!(
            "the runs have {}, so places of the two correspond only roughly",
            differences.join(", ")
        ))
    })
}

/// The similarity of the features at all places of the images in both runs, averaged to `grid`.
fn similarity(a: &SavedRun, b: &SavedRun, pairs: &[(usize, usize)], grid: [i64; 2]) -> Result<Cka> {
    let counts = [a, b].map(|run| run.component_count() as i64);
    let mut accumulator = CkaAccumulator::new(counts[0], counts[1]);
    if counts.contains(&0) {
        return Ok(accumulator.finish());
    }
    let rows = |run: &SavedRun, image: usize| -> Result<Tensor> {
        let scores = run.components(image..image + 1)?.to_kind(Kind::Double);
        let scores = scores.f_adaptive_avg_pool2d(grid)?;
        Ok(scores.flatten(2, 3).squeeze_dim(0).tr())
    };
    for &(in_a, in_b) in pairs {
        accumulator.add(&rows(a, in_a)?, &rows(b, in_b)?)?;
    }
    Ok(accumulator.finish())
}

/// What limits the similarity.
fn limits(a: &SavedRun, b: &SavedRun, cka: &Cka) -> Option<Remark> {
    let counts = [a, b].map(|run| run.component_count() as i64);
    let most = counts.into_iter().max().unwrap_or(0);
    if counts.contains(&0) {
        return Some(Remark::warning(
            "all features of a run are equal, so there is no CKA",
        ));
    }
    if cka.plain.is_none() {
        return Some(Remark::warning(
            "the features of a run are equal in all images in both, so there is no CKA",
        ));
    }
    (cka.places < FEW_PLACES * most).then(|| {
        Remark::note(format!(
            "plain CKA is too high with few places, here {} for {most} components: the debiased one is not",
            cka.places
        ))
    })
}
