//! The extra file `prism.json` that `models/export.py` writes into a TorchScript file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};

use super::archive;
use crate::options::LARGEST_SIDE;
use crate::size::Size;

/// The largest `prism.json`, in bytes.
const LARGEST: u64 = 16 << 20;

/// The place of the extra file in a TorchScript archive, below its own folder.
const ENTRY: &str = "/extra/prism.json";

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
    /// Reads the metadata of a TorchScript file; all fields are `None` if it has no metadata.
    ///
    /// # Errors
    /// Returns an error if the metadata are damaged or a value is out of range.
    pub fn read(file: &Path) -> Result<ModelMetadata> {
        let Some(text) = extra(file) else {
            return Ok(ModelMetadata::default());
        };
        ModelMetadata::parse(&text)
            .with_context(|| format!("{}: the prism.json in it cannot be used", file.display()))
    }

    fn parse(text: &[u8]) -> Result<ModelMetadata> {
        ensure!(text.len() as u64 <= LARGEST, "it is too long");
        let metadata: ModelMetadata = serde_json::from_slice(text)?;
        if let Some(size) = metadata.image_size {
            let sides = 1..=LARGEST_SIDE;
            ensure!(
                sides.contains(&size.height) && sides.contains(&size.width),
                "image_size is {size}, but each side must be from 1 to {LARGEST_SIDE}"
            );
        }
        let positive = |std: &Vec<f64>| std.iter().all(|&value| value > 0.0);
        ensure!(
            metadata.std.as_ref().is_none_or(positive),
            "std is not positive"
        );
        let is_empty = |values: &Option<Vec<f64>>| values.as_ref().is_some_and(Vec::is_empty);
        ensure!(
            !is_empty(&metadata.mean) && !is_empty(&metadata.std),
            "mean or std has no value"
        );
        Ok(metadata)
    }
}

fn size<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Size>, D::Error> {
    let sides = Option::<(i64, i64)>::deserialize(json)?;
    Ok(sides.map(|(height, width)| Size::new(height, width)))
}

/// The bytes of the extra file, if the archive has one.
fn extra(file: &Path) -> Option<Vec<u8>> {
    let mut archive = archive::open(file)?;
    let name = archive
        .file_names()
        .find(|name| name.ends_with(ENTRY))?
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
