//! The arrays of a run.

use std::path::Path;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::{Destination, Output, Results};
use crate::arrays::{ArrayFormat, ArrayWriter};
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
        let images = maps.len() as i64;
        let input = [&[images], results.input.shape()].concat();
        let mut layout = vec![
            ("maps", vec![images, maps.channels() as i64, height, width]),
            ("features", maps.features.size()),
            ("variance_ratio", vec![maps.variance_ratio.len() as i64]),
            ("logits", maps.logits.size()),
            ("probabilities", results.probabilities.size()),
            ("input", input),
        ];
        if let Some(components) = &maps.components {
            let [.., height, width] = maps.features.size()[..] else {
                bail!("the features have no places");
            };
            let count = components.count() as i64;
            layout.push(("components", vec![images, count, height, width]));
            layout.push(("lengths", vec![images, 1, height, width]));
        }
        layout.extend(maps.saliency.iter().map(|s| ("saliency", s.size())));
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
            writer.array("features")?.write(&values(&maps.features)?)?;
            writer.array("variance_ratio")?.write(&ratios)?;
            writer.array("logits")?.write(&values(&maps.logits)?)?;
            let shares = results.probabilities.to_kind(Kind::Float);
            writer.array("probabilities")?.write(&values(&shares)?)?;
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
            if let Some(saliency) = &maps.saliency {
                writer.array("saliency")?.write(&values(saliency)?)?;
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
