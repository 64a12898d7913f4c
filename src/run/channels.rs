//! The channels of the images and of the network.

use anyhow::{Result, bail};

use super::input::Input;
use crate::error::{Hint, usage, usage_hinted};
use crate::hooks::channels_in_words;
use crate::model::Preprocessing;
use crate::remarks::{Remark, Remarks};

/// The preprocessing for a network of this number of channels; remarks on what is assumed.
///
/// # Errors
/// Returns an error if photographs have other channels, and a usage error if the normalisation
/// is for another number of channels.
pub fn fitted(
    input: &Input,
    preprocessing: Preprocessing,
    channels: i64,
    remarks: &mut Remarks,
) -> Result<Preprocessing> {
    let normalisation = preprocessing.normalisation();
    let count = channels_in_words(channels);
    if let Input::Array { .. } = input {
        let text = format!("the images have {count}; the pictures show the first one in grey");
        if channels != 1 && channels != 3 {
            remarks.add(&Remark::note(text));
        }
        return Ok(preprocessing);
    }
    if channels != 1 && channels != 3 {
        bail!(
            "the network takes {count}, but photographs have 3; give a stored array `input` [N,{channels},H,W] (.npz or .safetensors)"
        );
    }
    if normalisation.bgr && channels != 3 {
        return Err(usage(format!(
            "the network takes {count}, which has no order of colours"
        )));
    }
    let Some(fitted) = normalisation.for_channels(channels as usize) else {
        let (means, stds) = (normalisation.mean.len(), normalisation.std.len());
        let message =
            format!("the network takes {count}, but mean has {means} values and std {stds}");
        return Err(usage_hinted(message, Hint::Normalisation));
    };
    if channels == 1 {
        let text = "the network takes 1 channel: photographs are taken in grey, 0.299 R + 0.587 G + 0.114 B";
        remarks.add(&Remark::note(text));
        if normalisation.mean.len() != 1 || normalisation.std.len() != 1 {
            let text = format!(
                "mean {} and std {} are assumed, from ImageNet's three channels",
                shown(&fitted.mean),
                shown(&fitted.std)
            );
            remarks.add(&Remark::note(text).with_hint(Hint::Normalisation));
        }
    }
    Ok(preprocessing.with_values(&fitted))
}

fn shown(values: &[f64]) -> String {
    let each: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    each.join(",")
}
