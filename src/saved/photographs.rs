//! The pictures of a saved run: its photographs, read again and fitted as the run fitted them, or
//! the stored input of the network if they are gone or have changed.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use image::{RgbImage, imageops};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::SavedRun;
use crate::convert::{Normalisation, stretched_picture, to_batch, to_picture};
use crate::hooks::Region;
use crate::images::{ImageFile, Lookup, MAX_PIXELS, Resize};
use crate::remarks::Remark;
use crate::report::photograph;
use crate::run::{Decoded, Decoding, Jpeg, Seen, Shown, seen_part};
use crate::size::Size;

/// The mean difference of normalised pixels above which a photograph is another one: 2 to 3 of 255
/// grey levels, more than decoders differ by.
const SAME: f64 = 0.05;

/// The images of a saved run, read one by one.
#[derive(Debug)]
pub struct SavedImages<'a> {
    run: &'a SavedRun,
    size: Size,
    region: Region,
    /// None if the input was an array.
    resize: Option<Resize>,
    decoding: Decoding,
    normalisation: Normalisation,
    /// The most pixels of a photograph on a page.
    area: f64,
    /// The photographs that are in archives.
    lookup: Lookup,
    /// How many photographs are gone, how many are others now, and the first of both.
    gone: usize,
    changed: usize,
    first: Option<String>,
}

impl<'a> SavedImages<'a> {
    /// The images of a run, with at most `area` pixels each.
    pub fn of(run: &'a SavedRun, area: f64) -> SavedImages<'a> {
        let summary = &run.summary;
        let value = |name: &str| summary.settings.get(name).map(|setting| &setting.value);
        let numbers = |name: &str, default: f64| {
            let values = value(name).and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(Value::as_f64);
            let values: Vec<f64> = values.collect();
            if values.is_empty() {
                vec![default]
            } else {
                values
            }
        };
        let [height, width] = summary.input_size;
        let size = Size::new(height, width);
        let region = summary.region.map(|[rows, columns]| Region {
            of: size,
            rows: rows[0]..rows[1],
            columns: columns[0]..columns[1],
        });
        let channels = run.channels();
        let normalisation = Normalisation {
            mean: numbers("mean", 0.0),
            std: numbers("std", 1.0),
            bgr: value("channels").is_some_and(|channels| channels == "bgr"),
        };
        SavedImages {
            run,
            size,
            region: region.unwrap_or_else(|| Region::whole(size)),
            resize: value("resize")
                .and_then(Value::as_str)
                .and_then(|word| Resize::from_str(word, false).ok()),
            decoding: Decoding {
                max_pixels: MAX_PIXELS,
                white: value("white")
                    .and_then(Value::as_u64)
                    .and_then(|white| white.try_into().ok()),
                exact: value("decoding").is_some_and(|decoding| decoding == "exact"),
            },
            normalisation: normalisation
                .for_channels(channels)
                .unwrap_or(normalisation),
            area,
            lookup: Lookup::default(),
            gone: 0,
            changed: 0,
            first: None,
        }
    }

    /// What to say of the pictures of the images that were read.
    pub fn remarks(&self) -> Vec<Remark> {
        let Some(first) = &self.first else {
            return Vec::new();
        };
        let count = self.run.count();
        let words = [(self.gone, "gone"), (self.changed, "others now")];
        let words = words.into_iter().filter(|(number, _)| *number > 0);
        let words: Vec<String> = words
            .map(|(number, word)| format!("{number} {word}"))
            .collect();
        vec![Remark::warning(format!(
            "of {count} photographs {}, the first: {first}; their pictures are the network's input, in its shape",
            words.join(" and ")
        ))]
    }

    /// The photograph of an image as JPEG, and its width and height; if it is gone or another one
    /// now, the stored input of the network.
    ///
    /// # Errors
    /// Returns an error if the arrays cannot be read.
    pub fn photograph(&mut self, image: usize) -> Result<(Vec<u8>, (u32, u32))> {
        let input = self.run.input(image)?;
        let Some(resize) = self.resize else {
            // The run had no photographs.
            return photograph(&seen_part(&stretched_picture(&input)?, &self.region));
        };
        let path = &self.run.summary.images[image].path;
        let Some(file) = self.find(path) else {
            self.gone += 1;
            self.first.get_or_insert_with(|| path.clone());
            return photograph(&self.input_picture(&input)?);
        };
        let seen = Seen {
            size: self.size,
            resize,
            region: &self.region,
            square: false,
            is_grey: self.run.channels() == 1,
            photographs: Some(self.area),
            decoding: self.decoding,
        };
        let wanted = Shown {
            picture: false,
            photograph: true,
        };
        let decoded = seen.decoded(&file, wanted);
        let same = decoded.ok().filter(|decoded| self.is_same(decoded, &input));
        match same.and_then(|decoded| decoded.photograph) {
            Some(Jpeg { bytes, size }) => Ok((bytes, size)),
            None => {
                self.changed += 1;
                self.first.get_or_insert_with(|| path.clone());
                photograph(&self.input_picture(&input)?)
            }
        }
    }

    /// Where a photograph is: as the run was given it, or from the folder of the summary.
    fn find(&self, path: &str) -> Option<ImageFile> {
        let folder = self.run.file.parent().unwrap_or(Path::new(""));
        let places = [PathBuf::from(path), folder.join(path)];
        places.iter().find_map(|place| self.lookup.find(place))
    }

    fn is_same(&self, decoded: &Decoded, input: &Tensor) -> bool {
        let batch = to_batch(std::slice::from_ref(&decoded.input), &self.normalisation);
        batch.is_ok_and(|batch| {
            let difference = (batch.get(0) - input).abs().mean(Kind::Double);
            difference.double_value(&[]) <= SAME
        })
    }

    /// The picture of a stored input.
    fn input_picture(&self, input: &Tensor) -> Result<RgbImage> {
        let Normalisation { mean, std, bgr } = &self.normalisation;
        let channels = input.size()[0];
        ensure!(
            mean.len() as i64 == channels && std.len() as i64 == channels,
            "there are {channels} channels, but {} means",
            mean.len()
        );
        let of_channels = |values: &[f64]| Tensor::from_slice(values).reshape([-1, 1, 1]);
        let colours = input * of_channels(std) + of_channels(mean);
        let colours = match (channels, bgr) {
            (1, _) => colours.expand([3, -1, -1], false),
            (_, true) => colours.flip([0]),
            _ => colours,
        };
        let picture = to_picture(&colours.clamp(0.0, 1.0).to_kind(Kind::Float))?;
        // At the size at which a photograph of its shape would be shown.
        let shown = Seen {
            size: self.size,
            resize: Resize::Stretch,
            region: &self.region,
            square: true,
            is_grey: false,
            photographs: None,
            decoding: self.decoding,
        }
        .shown(self.size);
        let (width, height) = (shown.width as u32, shown.height as u32);
        let picture = imageops::resize(&picture, width, height, imageops::FilterType::CatmullRom);
        Ok(seen_part(&picture, &self.region))
    }
}
