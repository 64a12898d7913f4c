//! The arrays of a run.

use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use super::{Destination, Results};
use crate::arrays::{ArrayFormat, ArrayWriter};
use crate::size::Size;

/// Writes the arrays to `file`.
pub fn write(file: &Path, results: &Results, to: &mut Destination) -> Result<()> {
    let maps = &results.maps;
    let Size { height, width } = maps.size();
    let images = maps.len() as i64;
    let input = [&[images], results.input.shape()].concat();
    let mut layout = vec![
        ("maps", vec![images, maps.channels() as i64, height, width]),
        ("features", maps.features.size()),
        ("variance_ratio", vec![maps.variance_ratio.len() as i64]),
        ("logits", maps.logits.size()),
        ("input", input),
    ];
    layout.extend(maps.saliency.iter().map(|s| ("saliency", s.size())));
    let layout: Vec<(String, Vec<usize>)> = layout
        .into_iter()
        .map(|(name, shape)| (name.into(), shape.iter().map(|&n| n as usize).collect()))
        .collect();
    let format = ArrayFormat::from_path(file)?;
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1]));
    let ratios: Vec<f32> = maps.variance_ratio.iter().map(|&r| r as f32).collect();

    to.files.write(file, |out| {
        let mut writer = ArrayWriter::create(out, format, &layout, &results.paths)?;
        let array = writer.array("maps")?;
        for images in maps.chunks() {
            array.write(&values(&maps.map(images)?)?)?;
        }
        writer.array("features")?.write(&values(&maps.features)?)?;
        writer.array("variance_ratio")?.write(&ratios)?;
        writer.array("logits")?.write(&values(&maps.logits)?)?;
        let array = writer.array("input")?;
        for images in maps.chunks() {
            array.write(&values(&results.input.get(images)?)?)?;
        }
        if let Some(saliency) = &maps.saliency {
            writer.array("saliency")?.write(&values(saliency)?)?;
        }
        writer.finish()?;
        Ok(())
    })
}
