//! The commands beside the maps: the cluster map, and the tables of layers and networks.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::RgbImage;
use rayon::prelude::*;

use crate::cluster::{Row, pickle, som};
use crate::error::{Hint, hinted};
use crate::figure::{About, ClusterFigure, Placed, draw_clusters, thumbnail_side};
use crate::images::{MAX_PIXELS, decode, resize};
use crate::model::locate::{self, Located};
use crate::model::search_path::SearchPath;
use crate::model::{Network, zoo};
use crate::notices::{Notices, printable};
use crate::options::{ClusterOptions, ComputeOptions, ModelOptions};
use crate::output::{Outputs, folder_of};
use crate::remarks::{Remark, Remarks};
use crate::size::Size;

use super::classes::{count_of, read_labels};

/// Trains a self-organising map on a cluster file, draws it and prints its quantisation and
/// topographic errors.
///
/// # Errors
/// Returns a message of one line; no file is written then.
pub fn som(options: &ClusterOptions, stdout: &mut dyn Write) -> Result<()> {
    let notices = Notices::from_flags(options.quiet, false);
    let format = options.format()?;
    let show = options.file.display();
    let mut outputs = Outputs::default();
    outputs.prepare(folder_of(&options.output))?;
    let labels = options.labels.as_deref().map(read_labels).transpose()?;
    let rows = pickle::read(&options.file).with_context(|| format!("{show}"))?;
    let highest = rows.iter().map(|row| row.class).max().unwrap_or(0);
    let mut remarks = Remarks::new(notices);
    match labels.as_ref().zip(options.labels.as_ref()) {
        Some((labels, file)) if highest >= labels.len() => bail!(
            "{}: it holds {} names, but {show} has class {highest}",
            file.display(),
            labels.len()
        ),
        Some(_) => {}
        None => {
            let text = "the file does not name the classes, so they are numbered";
            remarks.add(&Remark::note(text).with_hint(Hint::LabelsOrImageNet));
        }
    }

    let training = options.training(rows.len());
    let trained = som::train(&rows, &training)?;
    let thumbnails = match options.thumbnails {
        true => thumbnails(&rows, thumbnail_side(training.grid), notices, &mut remarks)?,
        false => Vec::new(),
    };
    let images: Vec<Placed> = trained
        .units
        .iter()
        .zip(&rows)
        .map(|(&unit, row)| Placed {
            unit,
            class: row.class,
        })
        .collect();
    let names: Vec<String> = labels.map_or_else(Vec::new, |labels| labels.titles());
    let drawn = draw_clusters(
        &ClusterFigure {
            u_matrix: trained.u_matrix.view(),
            images: &images,
            thumbnails: &thumbnails,
            names: &names,
            quantisation_error: trained.quantisation_error,
            topographic_error: trained.topographic_error,
            about: About::new(format!("cluster map of {show}"), &options.command),
        },
        format,
    )?;
    outputs.write(&options.output, |out| Ok(out.write_all(&drawn)?))?;
    report_written(&outputs.commit()?, notices);
    let errors = format!(
        "quantisation error: {:.4}\ntopographic error: {:.4}\n",
        trained.quantisation_error, trained.topographic_error
    );
    print_text(errors.as_bytes(), stdout)
}

/// The photographs of the rows, their longer side at most `side` pixels; those that cannot be read
/// are none.
///
/// # Errors
/// Returns an error if none can be read.
fn thumbnails(
    rows: &[Row],
    side: u32,
    notices: Notices,
    remarks: &mut Remarks,
) -> Result<Vec<Option<RgbImage>>> {
    let bar = notices.bar(rows.len(), "reading");
    let read = |row: &Row| {
        let photograph = decode(Path::new(&row.path), MAX_PIXELS)?;
        let size = Size::new(photograph.height().into(), photograph.width().into());
        let longer = size.height.max(size.width).max(1);
        let scaled = |length: i64| (length * i64::from(side) / longer).clamp(1, length.max(1));
        bar.inc(1);
        resize(
            &photograph,
            Size::new(scaled(size.height), scaled(size.width)),
        )
    };
    let read: Vec<Result<RgbImage>> = rows.par_iter().map(read).collect();
    let (count, errors) = (
        rows.len(),
        read.iter().filter_map(|read| read.as_ref().err()),
    );
    let (missing, first) = (errors.clone().count(), errors.clone().next());
    if let Some(first) = first {
        if missing == count {
            let text = format!("none of {count} photographs can be read: {first:#}");
            return Err(hinted(text, Hint::ClusterFolder));
        }
        let text = format!(
            "{missing} of {count} photographs cannot be read and have marks instead, the first: {first:#}"
        );
        remarks.add(&Remark::warning(text).with_hint(Hint::ClusterFolder));
    }
    Ok(read.into_iter().map(Result::ok).collect())
}

/// Prints a table of the network's layers.
///
/// # Errors
/// Returns an error if the network cannot be loaded or hooked.
pub fn print_layers(
    options: &ModelOptions,
    compute: &ComputeOptions,
    notices: Notices,
    stdout: &mut dyn Write,
) -> Result<()> {
    let network = Network::load(options, compute, notices)?;
    let mut hooks = options.hooks(compute);
    hooks.scores.names = count_of(None, &network);
    let model = network.hook(network.input_size(), &hooks)?;
    let mut remarks = Remarks::new(notices);
    remarks.add_all(&network.remarks);
    remarks.add_all(&network.preprocessing.remarks(None));
    remarks.add_all(&model.remarks());
    let layers = model.layers();
    let rows: Vec<[String; 4]> = layers
        .into_iter()
        .map(|layer| {
            let (channels, height, width) = layer.shape;
            let shape = format!("{channels}x{height}x{width}");
            [
                layer.name,
                layer.operator,
                shape,
                layer.role.word().to_string(),
            ]
        })
        .collect();
    let heading = ["name", "operator", "shape", "role"];
    let table = table(heading, [false, false, true, false], &rows);
    print_text(table.as_bytes(), stdout)
}

/// Prints a table of the networks known by name, with the places of their weights.
///
/// # Errors
/// Returns an error if `stdout` cannot be written.
pub fn print_models(stdout: &mut dyn Write) -> Result<()> {
    let search = SearchPath::from_env();
    let rows: Vec<[String; 4]> = zoo::entries()
        .iter()
        .map(|entry| {
            let millions = format!("{:.1} M", entry.parameters as f64 / 1e6);
            let (there, place) = match locate::find(entry.name, &search) {
                Some(Located::TorchScript(file) | Located::StateDict(_, file)) => {
                    ("yes", file.display().to_string())
                }
                None => match entry.file {
                    Some(file) => ("no", search.checkpoints.join(file).display().to_string()),
                    None => ("no", format!("models/{}.pth (make weights)", entry.name)),
                },
            };
            [
                entry.name.to_string(),
                millions,
                there.to_string(),
                printable(&place),
            ]
        })
        .collect();
    let heading = ["name", "parameters", "weights", "where"];
    print_text(
        table(heading, [false, true, false, false], &rows).as_bytes(),
        stdout,
    )
}

/// Prints a text as it is. A reader that stops early (`prism | head -1`) is not an error.
///
/// # Errors
/// Returns an error if `stdout` cannot be written.
pub fn print_text(text: &[u8], stdout: &mut dyn Write) -> Result<()> {
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Notes the files that were written.
pub(super) fn report_written(paths: &[PathBuf], notices: Notices) {
    for path in paths {
        notices.note(&format!("wrote {}", path.display()));
    }
}

/// A table with a heading and aligned columns; `right` marks those aligned to the right.
fn table<const N: usize>(heading: [&str; N], right: [bool; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(String::from);
    let lines = || [&heading].into_iter().chain(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let lengths = lines().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in lines() {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            line += &match right {
                true => format!("{cell:>width$}  "),
                false => format!("{cell:<width$}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
