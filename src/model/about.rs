//! What a TorchScript file says of itself: the extra file `prism.json` that
//! `models/export.py` writes into it.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::weights;
use crate::options::LARGEST_SIDE;

/// A longer description is something else.
const LARGEST: u64 = 16 << 20;

/// Where TorchScript keeps the extra file, below the archive's own folder.
const ENTRY: &str = "/extra/prism.json";

/// The input that a network wants, and its classes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct About {
    /// Height and width.
    pub image_size: Option<(i64, i64)>,
    /// Mean of the channels.
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of the channels.
    pub std: Option<[f64; 3]>,
    /// Names of the classes in the order of the scores.
    pub labels: Option<Vec<String>>,
}

impl About {
    /// Reads it from a file; nothing is known where the file says nothing.
    ///
    /// # Errors
    /// Where it says what cannot be.
    pub fn read(file: &Path) -> Result<About> {
        let Some(text) = extra(file) else {
            return Ok(About::default());
        };
        About::parse(&text)
            .with_context(|| format!("{}: the prism.json in it is of no use", file.display()))
    }

    fn parse(text: &[u8]) -> Result<About> {
        ensure!(text.len() as u64 <= LARGEST, "it is too long");
        let about: About = serde_json::from_slice(text)?;
        if let Some((height, width)) = about.image_size {
            let sides = 1..=LARGEST_SIDE;
            ensure!(
                sides.contains(&height) && sides.contains(&width),
                "image_size is {height}x{width}, where each side is from 1 to {LARGEST_SIDE}"
            );
        }
        let positive = |std: [f64; 3]| std.iter().all(|&value| value > 0.0);
        ensure!(about.std.is_none_or(positive), "std is not positive");
        Ok(about)
    }
}

/// The bytes of the extra file, where the archive has one.
fn extra(file: &Path) -> Option<Vec<u8>> {
    let mut archive = weights::archive(file)?;
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
    fn what_is_said_is_read_and_the_rest_left_open() {
        let about = About::parse(br#"{"image_size": [240, 320], "labels": ["ant", "bee"]}"#);
        let about = about.unwrap();
        assert_eq!(about.image_size, Some((240, 320)));
        assert_eq!(about.labels.unwrap(), ["ant", "bee"]);
        assert_eq!((about.mean, about.std), (None, None));
        assert_eq!(About::parse(b"{}").unwrap(), About::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            &b""[..],
            b"[]",
            b"{\"image_size\": [0, 3]}",
            b"{\"image_size\": 224}",
            b"{\"mean\": [1, 2]}",
            b"{\"std\": [1, 0, 1]}",
            b"{\"labels\": [1]}",
        ] {
            assert!(About::parse(text).is_err(), "{text:?}");
        }
    }
}
