//! A run as JSON, for programs (docs/json.md): as one object, or as a line for the run and one for
//! each image. Images become text one by one, so that memory does not grow with their number.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::classes::Class;
use crate::run::Key;
use crate::settings::Settings;
use crate::truth::TrueClass;

/// What a run did and found, without its images.
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
}

/// The end of a summary, after the images.
#[derive(Debug, Serialize)]
pub struct Ending {
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

/// The first line of a summary in lines.
#[derive(Debug, Serialize)]
struct FirstLine<'a> {
    #[serde(flatten)]
    summary: &'a Summary<'a>,
    image_count: usize,
    #[serde(flatten)]
    ending: &'a Ending,
}

impl ImageSummary<'_> {
    /// The image as an entry of the list of [`Summary::write`].
    ///
    /// # Errors
    /// Returns an error if serialisation fails.
    pub fn to_entry(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?.replace('\n', "\n    "))
    }

    /// The image as one line.
    ///
    /// # Errors
    /// Returns an error if serialisation fails.
    pub fn to_line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

impl Summary<'_> {
    /// Writes one indented object with a line break at its end; `entries` are the images, one at
    /// least.
    ///
    /// # Errors
    /// Returns an error if serialisation or writing fails, or an entry is an error.
    pub fn write(
        &self,
        ending: &Ending,
        entries: impl Iterator<Item = Result<String>>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let begin = serde_json::to_string_pretty(self)?;
        let begin = begin.strip_suffix("\n}").unwrap_or(&begin);
        let end = serde_json::to_string_pretty(ending)?;
        let end = end.strip_prefix('{').unwrap_or(&end);
        write!(out, "{begin},\n  \"images\": [")?;
        for (number, entry) in entries.enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(out, "{comma}\n    {}", entry?)?;
        }
        writeln!(out, "\n  ],{end}")?;
        Ok(())
    }

    /// Writes a line for the run, with the number of images, and `lines`, one for each image.
    ///
    /// # Errors
    /// Returns an error if serialisation or writing fails, or a line is an error.
    pub fn write_lines(
        &self,
        ending: &Ending,
        image_count: usize,
        lines: impl Iterator<Item = Result<String>>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let first = FirstLine {
            summary: self,
            image_count,
            ending,
        };
        writeln!(out, "{}", serde_json::to_string(&first)?)?;
        for line in lines {
            out.write_all(line?.as_bytes())?;
        }
        Ok(())
    }

    /// The summary of these images as JSON, without files and times.
    ///
    /// # Errors
    /// Returns an error if serialisation fails.
    pub fn of_images(&self, images: Vec<Value>) -> Result<Value> {
        let mut value = serde_json::to_value(self)?;
        value["images"] = Value::Array(images);
        value["files"] = Value::Array(Vec::new());
        Ok(value)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> LayerSummary {
        LayerSummary {
            name: name.into(),
            shape: Some([4, 2, 2]),
        }
    }

    /// The text is what `serde_json` makes of the whole value.
    #[test]
    fn images_are_written_one_by_one_as_if_at_once() {
        let network = NetworkSummary {
            network: "net\n  \"images\": [".into(),
            input_size: [8, 8],
            region: [[0, 8], [0, 8]],
            classes: 2,
            device: "cpu".into(),
            rule: "auto".into(),
            excitation: layer("a"),
            guides: Vec::new(),
        };
        let (settings, remarks) = (Settings(Vec::new()), ["one".to_string()]);
        let summary = Summary {
            prism: "0",
            network: &network,
            settings: &settings,
            upsampling: "none",
            colours: "every",
            palette: "rgb".into(),
            saliency: None,
            variance_ratio: &[0.5, 0.25],
            colour_correlation: None,
            key: None,
            remarks: &remarks,
        };
        let ending = Ending {
            files: vec!["results/x.jpg".into()],
            seconds: vec![("loading", Duration::from_millis(1500))],
        };
        let classes = [Class {
            id: 1,
            name: "a \n b".into(),
            probability: 0.5,
        }];
        let image = |path: &'static str| ImageSummary {
            path: path.into(),
            classes: &classes,
            colours: vec![3, 26],
            truth: None,
        };
        let images = ["a.png", "b \"\n.png"].map(image);

        let mut written = Vec::new();
        let entries = images.iter().map(ImageSummary::to_entry);
        summary.write(&ending, entries, &mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        let whole: Value = serde_json::from_str(&written).unwrap();
        let pretty = serde_json::to_string_pretty(&whole).unwrap() + "\n";
        assert_eq!(written, pretty);
        let of_images = summary
            .of_images(
                images
                    .iter()
                    .map(|image| serde_json::to_value(image).unwrap())
                    .collect(),
            )
            .unwrap();
        for key in ["network", "remarks", "images"] {
            assert_eq!(whole[key], of_images[key], "{key}");
        }
        let keys: Vec<&String> = whole.as_object().unwrap().keys().collect();
        assert_eq!(
            keys[keys.len() - 4..],
            ["remarks", "images", "files", "seconds"]
        );

        let mut lines = Vec::new();
        let each = images.iter().map(ImageSummary::to_line);
        summary.write_lines(&ending, 2, each, &mut lines).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["image_count"], 2);
        assert_eq!(lines[0]["files"], whole["files"]);
        assert_eq!(lines[0]["network"], whole["network"]);
        assert!(lines[0].get("images").is_none());
        assert_eq!(&lines[1..], whole["images"].as_array().unwrap().as_slice());
    }
}
