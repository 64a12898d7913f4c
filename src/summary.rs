//! A run as JSON, for programs (docs/json.md).

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::classes::Class;
use crate::run::Key;
use crate::settings::Settings;
use crate::truth::TrueClass;

/// What a run did and found.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// The version of prism.
    pub prism: &'static str,
    /// The network and its layers; their keys lie beside the others.
    #[serde(flatten)]
    pub network: &'a NetworkSummary,
    /// What the network does not fix by itself, and where it came from.
    pub settings: &'a Settings,
    /// `product`, `bilateral`, `bilinear` or `none`.
    pub upsampling: &'a str,
    /// `every`; or `common`, `unique` or `all` of the quantised colours.
    pub colours: &'a str,
    /// `rgb` or `oklab`: how components become colours.
    pub palette: String,
    /// Method and class of the saliency, if there is one.
    pub saliency: Option<&'a str>,
    /// Share of the variance of each component.
    pub variance_ratio: &'a [f64],
    /// How well the colours keep the order of similarity of all channels, if that is known.
    pub colour_correlation: Option<f64>,
    /// What the colours stand for.
    pub key: Option<&'a Key>,
    /// What was assumed, and what limits the result, a line each.
    pub remarks: &'a [String],
    /// The images, in the order of the figures.
    pub images: Vec<ImageSummary<'a>>,
    /// Paths of the files written.
    pub files: Vec<String>,
    /// Time of each stage.
    #[serde(serialize_with = "as_seconds")]
    pub seconds: Vec<(&'static str, Duration)>,
}

/// The network of a run and its layers.
#[derive(Debug, Serialize)]
pub struct NetworkSummary {
    /// The network's name.
    pub network: String,
    /// Height and width of the images, pixels.
    pub input_size: [i64; 2],
    /// First and last row and column, exclusive, that the features cover of it.
    pub region: [[i64; 2]; 2],
    /// Number of classes.
    pub classes: usize,
    /// Where it ran: `cpu` or `cuda:N`.
    pub device: String,
    /// The rule that selected the layers.
    pub rule: String,
    /// The layer whose channels are analysed.
    pub excitation: LayerSummary,
    /// The guides (earlier activations), the shallowest first.
    pub guides: Vec<LayerSummary>,
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerSummary {
    /// The name that `prism layers` lists.
    pub name: String,
    /// Channels, height and width; none for the image itself.
    pub shape: Option<[i64; 3]>,
}

/// An image.
#[derive(Debug, Serialize)]
pub struct ImageSummary<'a> {
    /// As given; bytes that are not UTF-8 are replaced.
    pub path: Cow<'a, str>,
    /// Its top classes.
    pub classes: &'a [Class],
    /// The quantised colours that its features have, by number.
    pub colours: Vec<u32>,
    /// Its true class, if it is known.
    pub truth: Option<&'a TrueClass>,
}

impl Summary<'_> {
    /// The summary as indented JSON with a line break at the end.
    ///
    /// # Errors
    /// Returns an error if serialisation fails.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

fn as_seconds<S: Serializer>(
    stages: &[(&'static str, Duration)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(stages.len()))?;
    for (stage, took) in stages {
        // To the tenth of a millisecond.
        map.serialize_entry(stage, &((took.as_secs_f64() * 1e4).round() / 1e4))?;
    }
    map.end()
}
