//! The extra file in the file of a network that says what the network expects: `prism.json`, which
//! `models/export.py` writes, or `config.txt`, which YOLOv5 and Ultralytics write. Of `net.onnx` it is
//! `net.prism.json` beside it, or its own entry `prism.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{archive, onnx};
use crate::labels::from_json;
use crate::options::LARGEST_SIDE;
use crate::remarks::Remark;
use crate::size::Size;

/// The largest extra file, in bytes.
const LARGEST: u64 = 16 << 20;

/// The folders of extra files: torch.export wrote the second one up to torch 2.7.
const FOLDERS: [&str; 2] = ["extra", "extra_files"];
const ENTRY: &str = "prism.json";
const ULTRALYTICS: &str = "config.txt";

/// The input that a network expects, and its classes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ModelMetadata {
    /// Size of the images, in JSON `[height, width]`.
    #[serde(default, deserialize_with = "size")]
    pub image_size: Option<Size>,
    /// Mean of the channels.
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of the channels.
    pub std: Option<Vec<f64>>,
    /// Names of the classes in the order of the scores.
    pub labels: Option<Vec<String>>,
}

impl ModelMetadata {
    /// Reads the metadata of a network's file, or those beside it; all fields are `None` if it has no metadata. The
    /// remark says so if there is a file that is not read.
    ///
    /// # Errors
    /// Returns an error if the metadata are damaged or a value is out of range.
    pub fn read(file: &Path) -> Result<(ModelMetadata, Option<Remark>)> {
        let cannot = |name| move || format!("{}: the {name} in it cannot be used", file.display());
        if let Some(text) = extra(file, ENTRY) {
            let metadata = ModelMetadata::parse(&text).with_context(cannot("prism.json"))?;
            return Ok((metadata, None));
        }
        let beside = file.with_extension(ENTRY);
        if onnx::holds_network(file) && (beside.is_file() || beside.is_dir()) {
            let cannot = || format!("{}: this file cannot be used", beside.display());
            let text = text_of(&beside).with_context(cannot)?;
            let metadata = ModelMetadata::parse(&text).with_context(cannot)?;
            return Ok((metadata, None));
        }
        if let Some(text) = onnx::metadata(file, ENTRY) {
            let metadata =
                ModelMetadata::parse(text.as_bytes()).with_context(cannot("prism.json"))?;
            return Ok((metadata, None));
        }
        if let Some(text) = extra(file, ULTRALYTICS) {
            let found =
                ModelMetadata::from_ultralytics(&text).with_context(cannot("config.txt"))?;
            let remark = found.is_none().then(|| {
                Remark::warning(format!(
                    "{}: the config.txt in it is no description of YOLOv5 or Ultralytics, and is not read",
                    file.display()
                ))
            });
            return Ok((found.unwrap_or_default(), remark));
        }
        Ok((ModelMetadata::default(), None))
    }

    /// The description of a network by YOLOv5, which states no task, or by Ultralytics. `None` if
    /// the file is another one.
    fn from_ultralytics(text: &[u8]) -> Result<Option<ModelMetadata>> {
        let Ok(Value::Object(config)) = serde_json::from_slice(text) else {
            return Ok(None);
        };
        let known = ["task", "imgsz", "shape", "names"];
        if !known.iter().any(|&name| config.contains_key(name)) {
            return Ok(None);
        }
        let task = config.get("task").and_then(Value::as_str);
        if let Some(task) = task {
            ensure!(
                task == "classify",
                "its task is '{task}'; prism explains classifiers, whose task is 'classify'"
            );
        }
        let sides = |size: &Value| match size {
            Value::Array(sides) => Some((sides.first()?.as_i64()?, sides.get(1)?.as_i64()?)),
            size => size.as_i64().map(|side| (side, side)),
        };
        let of_batch = |shape: &Value| match shape.as_array()?.as_slice() {
            [_, _, height, width] => Some((height.as_i64()?, width.as_i64()?)),
            _ => None,
        };
        let size = match (config.get("imgsz"), config.get("shape")) {
            (Some(size), _) => Some(sides(size).context("imgsz is no size")?),
            (None, Some(shape)) => Some(of_batch(shape).context("shape is not [N,C,H,W]")?),
            (None, None) => None,
        };
        // Ultralytics' classifiers take values from 0 to 1, YOLOv5's are normalised.
        let stated = |value: f64| task.map(|_| vec![value]);
        let names = config
            .get("names")
            .filter(|names| !names.is_null())
            .cloned();
        let metadata = ModelMetadata {
            image_size: size.map(|(height, width)| Size::new(height, width)),
            mean: stated(0.0),
            std: stated(1.0),
            labels: names.map(from_json).transpose().context("names")?,
        };
        metadata.checked().map(Some)
    }

    fn parse(text: &[u8]) -> Result<ModelMetadata> {
        ensure!(text.len() as u64 <= LARGEST, "it is too long");
        let metadata: ModelMetadata = serde_json::from_slice(text)?;
        metadata.checked()
    }

    fn checked(self) -> Result<ModelMetadata> {
        if let Some(size) = self.image_size {
            let sides = 1..=LARGEST_SIDE;
            ensure!(
                sides.contains(&size.height) && sides.contains(&size.width),
                "image_size is {size}, but each side must be from 1 to {LARGEST_SIDE}"
            );
        }
        let positive = |std: &Vec<f64>| std.iter().all(|&value| value > 0.0);
        ensure!(
            self.std.as_ref().is_none_or(positive),
            "std is not positive"
        );
        let is_empty = |values: &Option<Vec<f64>>| values.as_ref().is_some_and(Vec::is_empty);
        ensure!(
            !is_empty(&self.mean) && !is_empty(&self.std),
            "mean or std has no value"
        );
        Ok(self)
    }
}

fn size<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Size>, D::Error> {
    let sides = Option::<(i64, i64)>::deserialize(json)?;
    Ok(sides.map(|(height, width)| Size::new(height, width)))
}

/// The bytes of a file beside a network.
fn text_of(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an entry of an archive is the extra file `name`. Most archives have a folder of their
/// own in front.
fn is_extra(entry: &str, name: &str) -> bool {
    let is_here = |entry: &str| {
        let place = entry.split_once('/');
        place.is_some_and(|(folder, rest)| FOLDERS.contains(&folder) && rest == name)
    };
    let below = entry.split_once('/');
    is_here(entry) || below.is_some_and(|(_, rest)| is_here(rest))
}

/// The bytes of the extra file `name`, if the archive has one.
fn extra(file: &Path, name: &str) -> Option<Vec<u8>> {
    let mut archive = archive::open(file)?;
    let name = archive
        .file_names()
        .find(|entry| is_extra(entry, name))?
        .to_string();
    let mut bytes = Vec::new();
    let entry = archive.by_name(&name).ok()?;
    entry.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_files_are_found_with_a_folder_in_front_or_without() {
        for entry in [
            "net/extra/prism.json",
            "extra/prism.json",
            "extra_files/prism.json",
            "net/extra_files/prism.json",
            "extra/extra/prism.json",
        ] {
            assert!(is_extra(entry, "prism.json"), "{entry}");
        }
        for entry in [
            "prism.json",
            "net/prism.json",
            "net/data/extra/prism.json",
            "net/extra/other_prism.json",
            "net/myextra/prism.json",
        ] {
            assert!(!is_extra(entry, "prism.json"), "{entry}");
        }
    }

    #[test]
    fn fields_are_read_and_missing_ones_are_none() {
        let json = br#"{"image_size": [240, 320], "labels": ["ant", "bee"]}"#;
        let metadata = ModelMetadata::parse(json).unwrap();
        assert_eq!(metadata.image_size, Some(Size::new(240, 320)));
        assert_eq!(metadata.labels.unwrap(), ["ant", "bee"]);
        assert_eq!((metadata.mean, metadata.std), (None, None));
        let empty = ModelMetadata::parse(b"{}").unwrap();
        assert_eq!(empty, ModelMetadata::default());
    }

    #[test]
    fn the_description_of_ultralytics_is_read() {
        let config =
            br#"{"description": "Ultralytics YOLO11n-cls model", "stride": 1, "task": "classify",
            "batch": 1, "imgsz": [64, 96], "names": {"0": "ant", "1": "bee"}, "channels": 3}"#;
        let metadata = ModelMetadata::from_ultralytics(config).unwrap().unwrap();
        assert_eq!(metadata.image_size, Some(Size::new(64, 96)));
        assert_eq!(metadata.labels.unwrap(), ["ant", "bee"]);
        assert_eq!(metadata.mean, Some(vec![0.0]));
        assert_eq!(metadata.std, Some(vec![1.0]));
        let yolov5 = br#"{"shape": [1, 3, 64, 96], "stride": 32, "names": ["ant", "bee"]}"#;
        let metadata = ModelMetadata::from_ultralytics(yolov5).unwrap().unwrap();
        assert_eq!(metadata.image_size, Some(Size::new(64, 96)));
        assert_eq!(metadata.labels.unwrap(), ["ant", "bee"]);
        assert_eq!((metadata.mean, metadata.std), (None, None));
        for other in [&b"lr: 0.1"[..], b"{}", b"[1]", b"{\"lr\": 3}"] {
            assert_eq!(ModelMetadata::from_ultralytics(other).unwrap(), None);
        }
        for bad in [
            &br#"{"task": "detect", "names": {"0": "ant"}}"#[..],
            br#"{"task": "classify", "imgsz": [0, 64]}"#,
            br#"{"task": "classify", "imgsz": "large"}"#,
            br#"{"shape": [64, 64]}"#,
            br#"{"names": 3}"#,
            br#"{"task": "classify", "names": {"0": "ant", "7": "bee"}}"#,
        ] {
            assert!(ModelMetadata::from_ultralytics(bad).is_err());
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        for text in [
            &b""[..],
            b"[]",
            b"{\"image_size\": [0, 3]}",
            b"{\"image_size\": 224}",
            b"{\"mean\": []}",
            b"{\"mean\": 0.5}",
            b"{\"std\": [1, 0, 1]}",
            b"{\"labels\": [1]}",
        ] {
            assert!(ModelMetadata::parse(text).is_err(), "{text:?}");
        }
    }
}
