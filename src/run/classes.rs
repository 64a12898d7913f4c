//! The class names of a run, and the class whose saliency it shows.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::classes::{Class, class_name, find_class, top_classes};
use crate::error::Hint;
use crate::hooks::HookedModel;
use crate::joint::Group;
use crate::labels::Labels;
use crate::map::Maps;
use crate::model::Network;
use crate::options::{ClassOptions, Options, SaliencyOptions};
use crate::remarks::{Remark, Remarks};
use crate::scores::{Meaning, ScoreKind, ScoreRange, ScoresForm};
use crate::settings::{Setting, Source};
use crate::truth::{Known, Truth, TruthSource, Truths, no_archives, no_folders};

use super::input::Input;

/// The word that stands for ImageNet's names in place of a file.
const IMAGENET: &str = "imagenet";

/// The names of a network's classes, if they are known, and where they are from.
pub struct ClassNames {
    /// The names.
    pub labels: Option<Labels>,
    /// As it is stated.
    pub setting: Setting,
    /// The file with all of them, or the word that stands for ImageNet's.
    pub named_by: Option<PathBuf>,
}

/// Reads class names from a file, or takes ImageNet's if the word is given in place of a file.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn read_labels(file: &Path) -> Result<Labels> {
    match file.to_str() {
        Some(IMAGENET) => Ok(Labels::imagenet()),
        _ => Labels::read(file),
    }
}

/// Reads the class names that the user gives.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn given_labels(options: &ClassOptions) -> Result<Option<Labels>> {
    options.labels.as_deref().map(read_labels).transpose()
}

/// How many class names there are, if the user or the network's file gives them.
pub fn count_of(given: Option<&Labels>, network: &Network) -> Option<usize> {
    let own = network.labels.as_ref();
    let own = own
        .filter(|own| own.from == Source::File)
        .map(|own| &own.value);
    given.or(own).map(Labels::len)
}

/// The class names of the network: those given, else those in its file or of its outputs, else
/// ImageNet's if it is a network of the zoo with their number of classes. A remark tells how to
/// name 1000 classes otherwise.
///
/// # Errors
/// Returns an error if there are more or fewer names than classes.
pub fn class_names(
    model: &HookedModel,
    network: &Network,
    given: Option<Labels>,
    options: &Options,
    remarks: &mut Remarks,
) -> Result<ClassNames> {
    let classes = model.classes();
    let fitting = |labels: Labels, place: &str| match model.evidence().form {
        _ if labels.len() == classes => Ok(labels),
        ScoresForm::Binary if labels.len() == 1 => Ok(labels.of_two()),
        _ => bail!(
            "{place}: it holds {} names, but the network has {classes} classes",
            labels.len()
        ),
    };
    let known = |labels: Labels, value: &str, text: &str, from| ClassNames {
        labels: Some(labels),
        setting: Setting::new("labels", value, text, from),
        named_by: (value == IMAGENET).then(|| value.into()),
    };
    if let (Some(labels), Some(file)) = (given, &options.classes.labels) {
        let file = file.display().to_string();
        let text = match file.as_str() {
            IMAGENET => "ImageNet's labels".to_string(),
            file => format!("labels of {file}"),
        };
        let count = labels.len();
        let names = known(fitting(labels, &file)?, &file, &text, Source::Given);
        let has_all = count == classes;
        return Ok(ClassNames {
            named_by: options.classes.labels.clone().filter(|_| has_all),
            ..names
        });
    }
    match &network.labels {
        Some(own) if own.from == Source::File => {
            let labels = fitting(
                own.value.clone(),
                &options.model.model.display().to_string(),
            )?;
            return Ok(known(labels, "own", "own labels", Source::File));
        }
        // A network of the zoo can be trained for other classes.
        Some(own) if own.value.len() == classes => {
            let labels = own.value.clone();
            return Ok(known(labels, IMAGENET, "ImageNet's labels", own.from));
        }
        _ => {}
    }
    if let Some(names) = model.class_names() {
        let labels = Labels::new(names.to_vec());
        return Ok(known(labels, "own", "the outputs' names", Source::Network));
    }
    if classes == Labels::imagenet().len() {
        let text = "nothing says that the 1000 classes are ImageNet's, so they are numbered";
        remarks.add(&Remark::note(text).with_hint(Hint::ImageNetLabels));
    }
    Ok(ClassNames {
        labels: None,
        setting: Setting::new("labels", "numbers", "classes numbered", Source::Assumed),
        named_by: None,
    })
}

/// Reads what says the true classes of the images, if they are asked for.
///
/// # Errors
/// Returns an error if it cannot be read, or if the images lie in no folders or archives.
pub fn given_truth(options: &ClassOptions, input: &Input) -> Result<Option<Truth>> {
    match (&options.truth, input) {
        (Some(TruthSource::Folder), Input::Array { file, .. }) => Err(no_folders(file)),
        (Some(TruthSource::Shards), Input::Array { file, .. }) => Err(no_archives(file)),
        (Some(source), _) => Truth::open(source, &input.files()).map(Some),
        (None, _) => Ok(None),
    }
}

/// The true classes of the images, if they are asked for.
///
/// # Errors
/// Returns an error if the network lacks a class, or if no image has one.
pub fn truths(
    truth: Option<Truth>,
    input: &Input,
    model: &HookedModel,
    labels: Option<&Labels>,
) -> Result<Truths> {
    let known = Known {
        labels,
        count: model.classes(),
    };
    let truths = truth.map(|truth| truth.of(&input.paths(), known));
    Ok(truths.transpose()?.unwrap_or_default())
}

/// The range of the scores of all images.
///
/// # Errors
/// Returns an error if they cannot be read back.
pub fn range_of(maps: &Maps, group: &Group) -> Result<ScoreRange> {
    let mut range = ScoreRange::default();
    for images in maps.chunks() {
        range = range.union(ScoreRange::of(&maps.logits(images)?));
    }
    let parts = group.share(range)?.into_iter();
    Ok(parts.fold(ScoreRange::default(), ScoreRange::union))
}

/// The `top` most likely classes of every image, the likeliest first.
///
/// # Errors
/// Returns an error if the scores cannot be read back.
pub fn top(
    maps: &Maps,
    kind: ScoreKind,
    labels: Option<&Labels>,
    top: i64,
) -> Result<Vec<Vec<Class>>> {
    let mut all = Vec::with_capacity(maps.len());
    for images in maps.chunks() {
        all.extend(top_classes(&maps.logits(images)?, kind, labels, top)?);
    }
    Ok(all)
}

/// What the scores mean, as it is stated.
pub fn scores_setting(meaning: &Meaning, model: &HookedModel) -> Setting {
    let text = match (meaning.kind, model.evidence().form) {
        (ScoreKind::None, _) => "scores as they are".to_string(),
        (kind, ScoresForm::Classes) => format!("{kind} scores"),
        (kind, ScoresForm::Heads) => format!("{kind} scores of single outputs"),
        (kind, ScoresForm::Binary) => format!("{kind} of one score"),
    };
    Setting::new("scores", meaning.kind.to_string(), text, meaning.from)
}

/// The saliency that a run shows.
pub struct Shown {
    /// Its method, and its class if it is the same for all images.
    pub title: String,
    /// That class and its name.
    pub target: Option<(usize, String)>,
}

/// Sets the class whose saliency is shown, notes what is unusual about the saliency, and
/// returns what is shown.
///
/// # Errors
/// Returns a usage error if the network has no such class.
pub fn choose_target(
    model: &mut HookedModel,
    labels: Option<&Labels>,
    saliency: &SaliencyOptions,
    remarks: &mut Remarks,
) -> Result<Option<Shown>> {
    let Some(method) = saliency.method() else {
        return Ok(None);
    };
    if let Some(layer) = model.saliency_name()
        && saliency.saliency_layer.is_none()
        && layer != model.excitation_name()
    {
        remarks.add(&Remark::note(format!(
            "the saliency is computed at '{layer}': at '{}' the contrast is zero for any image",
            model.excitation_name()
        )));
    }
    let title = method.title();
    let Some(target) = &saliency.target else {
        return Ok(Some(Shown {
            title: title.to_string(),
            target: None,
        }));
    };
    let class = find_class(target, labels, model.classes())?;
    model.set_target(class)?;
    let name = class_name(class, labels);
    if labels.is_some() {
        remarks.add(&Remark::note(format!("target: class {class}, {name}")));
    }
    Ok(Some(Shown {
        title: format!("{title}: {name}"),
        target: Some((class, name)),
    }))
}
