//! What a run saves beside its figures: arrays, clusters, a basis, lines and JSON.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tch::Tensor;

use crate::arrays::{ArrayFormat, ArrayWriter};
use crate::classes::Class;
use crate::cluster::Row;
use crate::map::{ColourSet, Maps};
use crate::spool::Sequence;

/// Of each image its path, its top class and which of the colours that occur in
/// any image it has.
pub fn cluster_rows(maps: &Maps, names: &[PathBuf], classes: &[Vec<Class>]) -> Result<Vec<Row>> {
    let colours = maps.colours()?;
    let any = colours
        .iter()
        .fold(ColourSet::NONE, |any, &set| any.union(set));
    let rows = names.iter().zip(classes).zip(&colours);
    Ok(rows
        .map(|((name, classes), colours)| Row {
            path: name.to_string_lossy().into(),
            class: classes.first().map_or(0, |class| class.id),
            features: any.codes().map(|code| colours.contains(code)).collect(),
        })
        .collect())
}

/// Writes the arrays of a run, chunk by chunk.
pub fn save<W: Write + io::Seek>(
    maps: &Maps,
    names: &[PathBuf],
    input: &Sequence,
    file: &Path,
    out: &mut W,
) -> Result<()> {
    let shape = |tensor: &Tensor| {
        tensor
            .size()
            .iter()
            .map(|&n| n as usize)
            .collect::<Vec<_>>()
    };
    let count = maps.len();
    let crate::size::Size { height, width } = maps.size();
    let of_input = input.shape().iter().map(|&side| side as usize);
    let input_shape = [count].into_iter().chain(of_input).collect();
    let mut layout = vec![
        (
            "maps",
            vec![count, maps.channels(), height as usize, width as usize],
        ),
        ("features", shape(&maps.features)),
        ("variance_ratio", vec![maps.variance_ratio.len()]),
        ("logits", shape(&maps.logits)),
        ("input", input_shape),
    ];
    layout.extend(maps.saliency.iter().map(|s| ("saliency", shape(s))));
    let layout: Vec<_> = layout
        .into_iter()
        .map(|(name, shape)| (name.to_string(), shape))
        .collect();
    let mut writer = ArrayWriter::create(out, ArrayFormat::from_path(file)?, &layout, names)?;
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1]));
    {
        let mut array = writer.array("maps")?;
        for images in maps.chunks() {
            array.write(&values(&maps.map(images)?)?)?;
        }
    }
    writer.array("features")?.write(&values(&maps.features)?)?;
    let ratios: Vec<f32> = maps
        .variance_ratio
        .iter()
        .map(|&ratio| ratio as f32)
        .collect();
    writer.array("variance_ratio")?.write(&ratios)?;
    writer.array("logits")?.write(&values(&maps.logits)?)?;
    {
        let mut array = writer.array("input")?;
        for images in maps.chunks() {
            array.write(&values(&input.get(images)?)?)?;
        }
    }
    if let Some(saliency) = &maps.saliency {
        writer.array("saliency")?.write(&values(saliency)?)?;
    }
    writer.finish()?;
    Ok(())
}

/// One line per image: path, then its classes, between tabs.
pub fn print_classes(
    names: &[PathBuf],
    classes: &[Vec<Class>],
    stdout: &mut impl Write,
) -> Result<()> {
    let mut out = BufWriter::new(stdout);
    let printed = names.iter().zip(classes).try_for_each(|(name, classes)| {
        out.write_all(name.as_os_str().as_encoded_bytes())?;
        for class in classes {
            write!(out, "\t{class}")?;
        }
        writeln!(out)
    });
    closed_pipe_is_fine(printed.and_then(|()| out.flush()))
}

/// A reader that has seen enough (`prism | head -1`) is no error.
pub fn closed_pipe_is_fine(printed: io::Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
