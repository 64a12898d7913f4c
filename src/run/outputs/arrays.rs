//! The arrays of a run.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use tch::{Kind, Tensor};

use super::{Destination, Output, Results};
use crate::arrays::{ArrayFormat, ArrayLayout, ArrayType, ArrayWriter};
use crate::joint::Group;
use crate::map::COMPONENTS;
use crate::options::{ArrayName, OutputOptions};
use crate::output::{Outputs, folder_of};
use crate::remarks::Remark;
use crate::size::Size;

/// The arrays in the file with that path, as the options choose them.
pub struct Arrays<'a>(pub &'a Path, pub &'a OutputOptions);

impl Arrays<'_> {
    /// The chosen arrays that the run has. Those of larger numbers come first.
    fn layout(&self, results: &Results) -> Result<Vec<(ArrayName, ArrayLayout)>> {
        let mut layout = Vec::new();
        for &array in ArrayName::value_variants() {
            if !self.1.saves(array) {
                continue;
            }
            let Some(shape) = shape(array, results)? else {
                continue;
            };
            let about = ArrayLayout {
                name: array.name().to_string(),
                shape: shape.iter().map(|&side| side as usize).collect(),
                kind: stored_as(array, self.1.array_type),
            };
            layout.push((array, about));
        }
        layout.sort_by_key(|(_, about)| std::cmp::Reverse(about.kind.size()));
        Ok(layout)
    }
}

impl Output for Arrays<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        ArrayFormat::from_path(self.0)?;
        files.prepare(folder_of(self.0))
    }

    fn remarks(&self, results: &Results) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let (file, is_chosen) = (self.0.display(), |array| self.1.saves(array));
        for &array in self.1.arrays.iter().flatten() {
            if matches!(shape(array, results), Ok(None)) {
                let (name, why) = (array.name(), lacks(array));
                remarks.push(Remark::note(format!(
                    "{file} lacks the array {name}: {why}"
                )));
            }
        }
        let hides = results.maps.leaves_out() && is_chosen(ArrayName::Maps);
        if hides && !is_chosen(ArrayName::LeftOut) {
            remarks.push(Remark::warning(format!(
                "{file} has maps that are 0 where a pixel is left out, but not the array left_out, which tells those pixels from black ones"
            )));
        }
        remarks
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let layout = self.layout(results)?;
        let format = ArrayFormat::from_path(self.0)?;
        let mut lost = Vec::new();
        let file = file_of_rank(self.0, results.group);
        to.files.write(&file, |out| {
            let about = layout.iter().map(|(_, about)| about.clone()).collect();
            let mut writer = ArrayWriter::create_typed(out, format, about, &results.paths)?;
            for (array, about) in &layout {
                let open = writer.array(&about.name)?;
                if *array == ArrayName::VarianceRatio {
                    let ratios = results.maps.variance_ratio.iter();
                    let ratios: Vec<f32> = ratios.map(|&ratio| ratio as f32).collect();
                    open.write(&ratios)?;
                    continue;
                }
                for images in results.maps.chunks() {
                    let values = values(*array, results, images)?.to_kind(Kind::Float);
                    let values = Vec::<f32>::try_from(values.contiguous().view([-1]))?;
                    open.write(&values)?;
                }
            }
            lost = writer.losses();
            writer.finish()?;
            Ok(())
        })?;
        let lost = results.group.gather_values(lost)?;
        for line in lost.iter().flatten() {
            results.notices.warn(line);
        }
        Ok(())
    }
}

/// The file of one of several ranks: `a.0003.npz` in place of `a.npz`.
fn file_of_rank(file: &Path, group: &Group) -> PathBuf {
    let extension = file.extension().unwrap_or_default().to_string_lossy();
    match group.is_joint() {
        true => file.with_extension(format!("{:04}.{extension}", group.rank())),
        false => file.to_path_buf(),
    }
}

/// The type in which an array is stored if that one is asked for: class scores and shares of
/// variance keep all digits, and bytes are for numbers from 0 to 1.
fn stored_as(array: ArrayName, asked: ArrayType) -> ArrayType {
    match (array, asked) {
        (ArrayName::Logits | ArrayName::Probabilities | ArrayName::VarianceRatio, _) => {
            ArrayType::F32
        }
        (ArrayName::Maps | ArrayName::LeftOut, _) => asked,
        (_, ArrayType::U8) => ArrayType::F32,
        _ => asked,
    }
}

/// The shape of an array of the run, if it has that one.
fn shape(array: ArrayName, results: &Results) -> Result<Option<Vec<i64>>> {
    let maps = &results.maps;
    let Size { height, width } = maps.size();
    let (images, classes) = (maps.len() as i64, maps.classes() as i64);
    let cells = maps.feature_size();
    let in_cells = |channels| vec![images, channels, cells.height, cells.width];
    Ok(match array {
        ArrayName::Maps => Some(vec![images, maps.channels() as i64, height, width]),
        ArrayName::Features => Some(in_cells(COMPONENTS)),
        ArrayName::VarianceRatio => Some(vec![maps.variance_ratio.len() as i64]),
        ArrayName::Logits => Some(vec![images, classes]),
        ArrayName::Probabilities => Some(vec![images, classes]),
        ArrayName::Input => Some([&[images], &results.input_shape[..]].concat()),
        ArrayName::Components => {
            (maps.components.as_ref()).map(|components| in_cells(components.count() as i64))
        }
        ArrayName::Lengths => maps.components.as_ref().map(|_| in_cells(1)),
        ArrayName::Saliency => {
            (maps.saliency_size()).map(|size| vec![images, 1, size.height, size.width])
        }
        ArrayName::LeftOut => maps.leaves_out().then(|| vec![images, height, width]),
    })
}

/// Why a run can lack an array.
fn lacks(array: ArrayName) -> &'static str {
    match array {
        ArrayName::Components | ArrayName::Lengths => "all places are equal",
        ArrayName::LeftOut => "no pixel of the maps is left out",
        _ => "the run has none",
    }
}

/// The values of an array for some images.
fn values(array: ArrayName, results: &Results, images: Range<usize>) -> Result<Tensor> {
    let maps = &results.maps;
    let missing = || anyhow::anyhow!("the run has no array {}", array.name());
    match array {
        ArrayName::Maps => Ok(maps.map(images)?.nan_to_num(0.0, None, None)),
        ArrayName::LeftOut => Ok(maps.map(images)?.select(1, 0).isnan()),
        ArrayName::Features => maps.features(images),
        ArrayName::Logits => maps.logits(images),
        ArrayName::Probabilities => results.probabilities(images),
        ArrayName::Input => results.input.get(images),
        ArrayName::Saliency => maps.saliency(images)?.ok_or_else(missing),
        ArrayName::Components => maps.components.as_ref().ok_or_else(missing)?.of(images),
        ArrayName::Lengths => maps
            .components
            .as_ref()
            .ok_or_else(missing)?
            .lengths(images),
        ArrayName::VarianceRatio => Err(missing()), // it is not of images
    }
}
