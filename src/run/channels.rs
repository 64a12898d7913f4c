//! The channels of the images and of the network.

use anyhow::{Result, bail};

use super::input::Input;
use crate::convert::Normalisation;
use crate::error::{Hint, usage, usage_hinted};
use crate::hooks::counted_channels;
use crate::remarks::Remark;

/// The normalisation for a network of this number of channels, and what was assumed.
///
/// # Errors
/// Returns an error if photographs have other channels, and a usage error if the normalisation
/// is for another number of channels.
pub fn fitted(
    input: &Input,
    normalisation: &Normalisation,
    channels: i64,
) -> Result<(Normalisation, Vec<Remark>)> {
    let count = counted_channels(channels);
    if let Input::Array(..) = input {
        let text = format!("the images have {count}; the pictures show the first one in grey");
        let remark = (channels != 1 && channels != 3).then(|| Remark::note(text));
        return Ok((normalisation.clone(), remark.into_iter().collect()));
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
    let mut remarks = Vec::new();
    if channels == 1 {
        let text = "the network takes 1 channel: photographs are taken in grey, 0.299 R + 0.587 G + 0.114 B";
        remarks.push(Remark::note(text));
        if normalisation.mean.len() != 1 || normalisation.std.len() != 1 {
            let text = format!(
                "mean {} and std {} are assumed, from ImageNet's three channels",
                shown(&fitted.mean),
                shown(&fitted.std)
            );
            remarks.push(Remark::note(text).with_hint(Hint::Normalisation));
        }
    }
    Ok((fitted, remarks))
}

fn shown(values: &[f64]) -> String {
    let each: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    each.join(",")
}
