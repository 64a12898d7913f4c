//! The class names of a run, and the class whose saliency it shows.

use anyhow::{Result, bail};

use crate::classes::no_class;
use crate::error::{Hint, usage_hinted};
use crate::hooks::HookedModel;
use crate::labels::Labels;
use crate::model::Network;
use crate::options::{ClassOptions, ModelOptions, SaliencyOptions};
use crate::remarks::{Remark, Remarks};

/// The class names that the user gave, with their file.
pub type GivenLabels = Option<(Labels, std::path::PathBuf)>;

/// Reads the file of class names if one is given.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn read_labels(options: &ClassOptions) -> Result<GivenLabels> {
    let file = options.labels.clone();
    file.map(|file| Ok((Labels::read(&file)?, file)))
        .transpose()
}

/// The class names of the network: those given, else those in its file, else ImageNet's if
/// the network has as many classes.
///
/// # Errors
/// Returns an error if there are more or fewer names than classes.
pub fn labels_of(
    model: &HookedModel,
    network: &Network,
    given: GivenLabels,
    options: &ModelOptions,
) -> Result<Option<Labels>> {
    let own = || Some((network.labels.clone()?, options.model.clone()));
    match given.or_else(own) {
        None => Ok(Labels::for_classes(model.classes())),
        Some((labels, _)) if labels.len() == model.classes() => Ok(Some(labels)),
        Some((labels, file)) => bail!(
            "{}: it holds {} names, but the network has {} classes",
            file.display(),
            labels.len(),
            model.classes()
        ),
    }
}

/// Sets the class whose saliency is shown, notes what is unusual about the saliency, and
/// returns its title for the figure.
///
/// # Errors
/// Returns a usage error if the network has no such class.
pub fn choose_target(
    model: &mut HookedModel,
    labels: Option<&Labels>,
    saliency: &SaliencyOptions,
    remarks: &mut Remarks,
) -> Result<Option<String>> {
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
        return Ok(Some(title.to_string()));
    };
    let class = find_class(target, labels, model.classes())?;
    model.set_target(class)?;
    let name = labels.map_or_else(|| class.to_string(), |labels| labels.title(class));
    if labels.is_some() {
        remarks.add(&Remark::note(format!("target: class {class}, {name}")));
    }
    Ok(Some(format!("{title}: {name}")))
}

/// The class with that number or name.
fn find_class(target: &str, labels: Option<&Labels>, classes: usize) -> Result<usize> {
    let digits = target.strip_prefix('-').unwrap_or(target);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match (target.parse(), labels) {
        (Ok(class), _) => Ok(class),
        _ if is_number => Err(no_class(target, classes)),
        (_, Some(labels)) => labels.find(target),
        (_, None) => Err(usage_hinted(
            format!(
                "target {target}: the class names of this network are not known; give a number from 0 to {}",
                classes - 1
            ),
            Hint::Labels,
        )),
    }
}
