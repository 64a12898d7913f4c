//! A run as JSON, for programs (docs/json.md).

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::classes::Class;

/// What was done, and what came of it.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// The version of prism.
    pub prism: &'static str,
    /// The network's name.
    pub network: &'a str,
    /// Height and width of its images, pixels.
    pub input_size: [i64; 2],
    /// Number of its classes.
    pub classes: usize,
    /// Where it ran: `cpu` or `cuda:N`.
    pub device: String,
    /// The rule that chose the layers.
    pub rule: String,
    /// The layer whose channels are analysed.
    pub excitation: LayerSummary<'a>,
    /// The layers that bring its colours up, the shallowest first.
    pub guides: Vec<LayerSummary<'a>>,
    /// `none`, `product` or `regression`.
    pub extrapolation: String,
    /// `every`, or of the quantised ones `common`, `unique` or `all`.
    pub colours: String,
    /// Method and class of the saliency, where there is one.
    pub saliency: Option<&'a str>,
    /// Share of the variance of each component.
    pub variance_ratio: &'a [f64],
    /// The images, in the order of the figures.
    pub images: Vec<ImageSummary<'a>>,
    /// Paths of the files written.
    pub files: Vec<String>,
    /// How long each stage took.
    #[serde(serialize_with = "as_seconds")]
    pub seconds: Vec<(&'static str, Duration)>,
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerSummary<'a> {
    /// As `prism layers` lists it.
    pub name: &'a str,
    /// Channels, height and width; none of the image itself.
    pub shape: Option<[i64; 3]>,
}

/// An image.
#[derive(Debug, Serialize)]
pub struct ImageSummary<'a> {
    /// As given; what is not UTF-8 in it is replaced.
    pub path: Cow<'a, str>,
    /// Its top classes.
    pub classes: &'a [Class],
}

impl Summary<'_> {
    /// As JSON, indented, with a line break at the end.
    ///
    /// # Errors
    /// None that is known.
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
