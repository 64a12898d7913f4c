//! How images become the input of a network, and where each part of that is known from.

use super::metadata::ModelMetadata;
use crate::convert::Normalisation;
use crate::error::Hint;
use crate::hooks::Entry;
use crate::images::Resize;
use crate::options::ModelOptions;
use crate::remarks::Remark;
use crate::settings::{Setting, Source, Sourced};
use crate::size::Size;

/// Size of the images if neither the options nor the network set one.
const DEFAULT_SIZE: Size = Size::new(224, 224);

/// The largest magnitude that normalised colours usually have.
const USUAL_MAGNITUDE: f64 = 3.0;

/// How images become the input of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// Size of the images.
    pub size: Sourced<Size>,
    /// How they come to that size; none if the input was stored.
    pub resize: Option<Sourced<Resize>>,
    /// The sample of 16-bit images that is white, if it is given.
    pub white: Option<u16>,
    /// Whether all pixels of large images were asked for.
    pub exact: bool,
    /// Mean of the channels; none if the input is not normalised because it was stored.
    pub mean: Option<Sourced<Vec<f64>>>,
    /// Standard deviation of the channels, likewise.
    pub std: Option<Sourced<Vec<f64>>>,
    /// Whether the channels are blue, green and red.
    pub bgr: bool,
}

impl Preprocessing {
    /// The choices of `options`, else what the network's file or the zoo states, else ImageNet's.
    pub fn new(options: &ModelOptions, stated: &Sourced<ModelMetadata>) -> Preprocessing {
        let Sourced {
            value: stated,
            from,
        } = stated;
        let default = Normalisation::imagenet(options.bgr);
        let channels = |given: &Option<Vec<f64>>, own: &Option<Vec<f64>>, default: Vec<f64>| {
            let own = own.clone().map(|values| Sourced::new(values, *from));
            Some(Sourced::first(given.clone(), own, default))
        };
        let size = stated.image_size.map(|size| Sourced::new(size, *from));
        Preprocessing {
            size: Sourced::first(options.image_size, size, DEFAULT_SIZE),
            resize: Some(Sourced::new(Resize::default(), Source::Assumed)),
            white: None,
            exact: false,
            mean: channels(&options.mean, &stated.mean, default.mean),
            std: channels(&options.std, &stated.std, default.std),
            bgr: options.bgr,
        }
    }

    /// With the choices for image files.
    pub fn for_files(
        self,
        resize: Option<Resize>,
        white: Option<u16>,
        exact: bool,
    ) -> Preprocessing {
        let resize = Some(Sourced::first(resize, None, Resize::default()));
        Preprocessing {
            resize,
            white,
            exact,
            ..self
        }
    }

    /// That of a stored input, which is used as it is.
    pub fn stored(size: Size) -> Preprocessing {
        Preprocessing {
            size: Sourced::new(size, Source::Given),
            resize: None,
            white: None,
            exact: false,
            mean: None,
            std: None,
            bgr: false,
        }
    }

    /// With other values for mean and standard deviation, from where they were.
    pub fn with_values(self, normalisation: &Normalisation) -> Preprocessing {
        let replaced = |old: Option<Sourced<Vec<f64>>>, value: &[f64]| {
            old.map(|old| Sourced::new(value.to_vec(), old.from))
        };
        Preprocessing {
            mean: replaced(self.mean, &normalisation.mean),
            std: replaced(self.std, &normalisation.std),
            ..self
        }
    }

    /// Mean, standard deviation and order of the channels.
    pub fn normalisation(&self) -> Normalisation {
        let values = |values: &Option<Sourced<Vec<f64>>>, none: f64| match values {
            Some(values) => values.value.clone(),
            None => vec![none; 3],
        };
        Normalisation {
            mean: values(&self.mean, 0.0),
            std: values(&self.std, 1.0),
            bgr: self.bgr,
        }
    }

    /// The settings in the order in which they are stated. A new step of the preprocessing is a
    /// line here.
    pub fn settings(&self) -> Vec<Setting> {
        let Size { height, width } = self.size.value;
        let mut settings = vec![Setting::new(
            "size",
            vec![height, width],
            format!("{height}×{width} pixels"),
            self.size.from,
        )];
        if let Some(Sourced { value, from }) = self.resize {
            let text = match value {
                Resize::Stretch => "stretched",
                Resize::Crop => "cropped",
                Resize::Pad => "padded",
            };
            settings.push(Setting::new("resize", value.to_string(), text, from));
        }
        if let Some(white) = self.white {
            let text = format!("white {white}");
            settings.push(Setting::new("white", white, text, Source::Given));
        }
        if self.exact {
            let text = "all pixels decoded";
            settings.push(Setting::new("decoding", "exact", text, Source::Given));
        }
        if self.bgr {
            let text = "blue, green, red";
            settings.push(Setting::new("channels", "bgr", text, Source::Given));
        }
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if let Some(Sourced { value, from }) = values {
                let rounded = value.iter().map(|value| (value * 1e4).round() / 1e4);
                let rounded: Vec<String> = rounded.map(|value| value.to_string()).collect();
                let text = format!("{name} {}", rounded.join(","));
                settings.push(Setting::new(name, value.clone(), text, *from));
            }
        }
        settings
    }

    /// What is only assumed about the input, as far as the user should know.
    pub fn remarks(&self, entry: Option<&Entry>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if self.size.from == Source::Assumed {
            let text = format!(
                "nothing states the input size of the network; {} pixels are assumed",
                self.size.value
            );
            remarks.push(Remark::note(text).with_hint(Hint::ImageSize));
        }
        let is_assumed = |values: &Option<Sourced<Vec<f64>>>| {
            let values = values.as_ref();
            values.is_some_and(|values| values.from == Source::Assumed)
        };
        if is_assumed(&self.mean) && is_assumed(&self.std) {
            let own = self.normalisation();
            remarks.extend(entry.and_then(|entry| normalised_twice(entry, &own)));
        }
        remarks
    }
}

/// The warning for a network that normalises its input itself, on top of the assumed
/// normalisation, which is ImageNet's. torchvision's `transform_input` is no such case: it expects ImageNet's
/// normalisation and undoes it.
fn normalised_twice(entry: &Entry, assumed: &Normalisation) -> Option<Remark> {
    let Entry { scale, shift } = entry;
    let Normalisation { mean, std, bgr } = assumed;
    let channels = scale.len();
    if [mean, std].iter().any(|values| values.len() != channels) {
        return None;
    }
    // The largest magnitude for pixels from 0 to `white`, if it is not tiny either.
    let is_usual = |white: f64| {
        (0..channels).all(|channel| {
            let (low, high) = (shift[channel], white * scale[channel] + shift[channel]);
            low.abs().max(high.abs()) <= USUAL_MAGNITUDE && (high - low).abs() >= 0.75
        })
    };
    let on_top = |channel: usize, pixel: f64| {
        (pixel - mean[channel]) / std[channel] * scale[channel] + shift[channel]
    };
    let is_undone = (0..channels).all(|channel| {
        on_top(channel, 0.0).abs().max(on_top(channel, 1.0).abs()) <= USUAL_MAGNITUDE
    });
    let nothing = (0..channels).all(|c| (scale[c] - 1.0).abs() < 0.1 && shift[c].abs() < 0.1);
    let hint = match (is_usual(1.0), is_usual(255.0)) {
        _ if nothing => return None,
        (true, _) => Hint::NoNormalisation,
        (false, true) => Hint::BytesAsPixels,
        (false, false) if is_undone => return None,
        (false, false) => Hint::NoNormalisation,
    };
    let first = match (channels, bgr) {
        (1, _) => "",
        (_, true) => " for blue",
        (_, false) => " for red",
    };
    let text = format!(
        "the network normalises its input itself ({:.4} x {} {:.4}{first}); ImageNet's mean and std, which are assumed, come on top",
        scale[0],
        if shift[0] < 0.0 { '-' } else { '+' },
        shift[0].abs()
    );
    Some(Remark::warning(text).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_normalisation_is_told_from_one_that_is_undone() {
        let entry = |scale: [f64; 3], shift: [f64; 3]| Entry {
            scale: scale.into(),
            shift: shift.into(),
        };
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let inside = |factor: f64| {
            let scale = std.map(|std| 1.0 / std / factor);
            entry(scale, std::array::from_fn(|c| -mean[c] / std[c]))
        };
        // torchvision's: from ImageNet's normalisation to 2 x - 1
        let undone = entry(
            std.map(|std| std / 0.5),
            mean.map(|mean| (mean - 0.5) / 0.5),
        );
        for (entry, hint) in [
            (inside(1.0), Some(Hint::NoNormalisation)),
            (inside(255.0), Some(Hint::BytesAsPixels)),
            (entry([2.0; 3], [-1.0; 3]), Some(Hint::NoNormalisation)),
            (
                entry([1.0; 3], mean.map(|m| -m)),
                Some(Hint::NoNormalisation),
            ),
            (entry([1.0 / 255.0; 3], [0.0; 3]), Some(Hint::BytesAsPixels)),
            (undone, None),
            (entry([1.0; 3], [0.0; 3]), None),
        ] {
            let rgb = Normalisation::imagenet(false);
            let found = normalised_twice(&entry, &rgb).map(|remark| remark.hint);
            assert_eq!(found, hint.map(Some), "{entry:?}");
            // The same with the channels in the other order.
            let turned = |mut values: Vec<f64>| {
                values.reverse();
                values
            };
            let turned = Entry {
                scale: turned(entry.scale),
                shift: turned(entry.shift),
            };
            let bgr = Normalisation::imagenet(true);
            let found = normalised_twice(&turned, &bgr).map(|remark| remark.hint);
            assert_eq!(found, hint.map(Some), "{turned:?}");
        }
        // Of one channel, with the means of ImageNet's values.
        let grey = Normalisation::imagenet(false).for_channels(1).unwrap();
        let entry = |scale: f64, shift: f64| Entry {
            scale: vec![scale],
            shift: vec![shift],
        };
        for (entry, hint) in [
            (entry(2.0, -1.0), Some(Hint::NoNormalisation)),
            (entry(2.0 / 255.0, -1.0), Some(Hint::BytesAsPixels)),
            (entry(0.226 / 0.5, (0.449 - 0.5) / 0.5), None), // undone
            (entry(1.0, 0.0), None),
        ] {
            let found = normalised_twice(&entry, &grey).map(|remark| remark.hint);
            assert_eq!(found, hint.map(Some), "{entry:?}");
        }
    }
}
