//! The arrays of a run.

use std::path::Path;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Destination, Output, Results};
use crate::arrays::{ArrayFormat, ArrayWriter};
use crate::map::COMPONENTS;
use crate::output::{Outputs, folder_of};
use crate::size::Size;

/// The arrays in the file with that path.
pub struct Arrays<'a>(pub &'a Path);

impl Output for Arrays<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        ArrayFormat::from_path(self.0)?;
        files.prepare(folder_of(self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let maps = &results.maps;
        let Size { height, width } = maps.size();
        let (images, classes) = (maps.len() as i64, maps.classes() as i64);
        let cells = maps.feature_size();
        let input = [&[images], results.input.shape()].concat();
        let mut layout = vec![
            ("maps", vec![images, maps.channels() as i64, height, width]),
            (
                "features",
                vec![images, COMPONENTS, cells.height, cells.width],
            ),
            ("variance_ratio", vec![maps.variance_ratio.len() as i64]),
            ("logits", vec![images, classes]),
            ("probabilities", vec![images, classes]),
            ("input", input),
        ];
        if let Some(components) = &maps.components {
            let count = components.count() as i64;
            let size = |channels| vec![images, channels, cells.height, cells.width];
            layout.extend([("components", size(count)), ("lengths", size(1))]);
        }
        let of_saliency = |size: Size| vec![images, 1, size.height, size.width];
        layout.extend((maps.saliency_size()).map(|size| ("saliency", of_saliency(size))));
        if maps.leaves_out() {
            layout.push(("left_out", vec![images, height, width]));
        }
        let layout: Vec<(String, Vec<usize>)> = layout
            .into_iter()
            .map(|(name, shape)| (name.into(), shape.iter().map(|&n| n as usize).collect()))
            .collect();
        let format = ArrayFormat::from_path(self.0)?;
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1]));
        let ratios: Vec<f32> = maps.variance_ratio.iter().map(|&r| r as f32).collect();

        to.files.write(self.0, |out| {
            let mut writer = ArrayWriter::create(out, format, &layout, &results.paths)?;
            let array = writer.array("maps")?;
            let mut left_out = Vec::new();
            for images in maps.chunks() {
                let map = maps.map(images)?;
                if maps.leaves_out() {
                    left_out.push(map.select(1, 0).isnan());
                }
                array.write(&values(&map.nan_to_num(0.0, None, None))?)?;
            }
            let array = writer.array("features")?;
            for images in maps.chunks() {
                array.write(&values(&maps.features(images)?)?)?;
            }
            writer.array("variance_ratio")?.write(&ratios)?;
            let array = writer.array("logits")?;
            for images in maps.chunks() {
                array.write(&values(&maps.logits(images)?)?)?;
            }
            let array = writer.array("probabilities")?;
            for images in maps.chunks() {
                let shares = results.probabilities(images)?.to_kind(Kind::Float);
                array.write(&values(&shares)?)?;
            }
            let array = writer.array("input")?;
            for images in maps.chunks() {
                array.write(&values(&results.input.get(images)?)?)?;
            }
            if let Some(components) = &maps.components {
                let array = writer.array("components")?;
                for images in maps.chunks() {
                    array.write(&values(&components.of(images)?)?)?;
                }
                let array = writer.array("lengths")?;
                for images in maps.chunks() {
                    array.write(&values(&components.lengths(images)?)?)?;
                }
            }
            if maps.saliency_size().is_some() {
                let array = writer.array("saliency")?;
                for images in maps.chunks() {
                    let saliency = maps.saliency(images)?;
                    array.write(&values(&saliency.context("there is no saliency")?)?)?;
                }
            }
            if maps.leaves_out() {
                let array = writer.array("left_out")?;
                for left_out in left_out {
                    array.write(&values(&left_out.to_kind(Kind::Float))?)?;
                }
            }
            writer.finish()?;
            Ok(())
        })
    }
}
