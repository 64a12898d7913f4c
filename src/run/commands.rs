//! The commands beside the maps: the cluster map, and the tables of layers and networks.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cluster::{pickle, som};
use crate::error::Hint;
use crate::figure::{ClusterFigure, Placed, draw_clusters};
use crate::model::locate::{self, Located};
use crate::model::search_path::SearchPath;
use crate::model::{Network, zoo};
use crate::notices::{Notices, printable};
use crate::options::{ClusterOptions, ComputeOptions, ModelOptions};
use crate::output::{Outputs, folder_of};
use crate::remarks::{Remark, Remarks};

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
    match labels.as_ref().zip(options.labels.as_ref()) {
        Some((labels, file)) if highest >= labels.len() => bail!(
            "{}: it holds {} names, but {show} has class {highest}",
            file.display(),
            labels.len()
        ),
        Some(_) => {}
        None => {
            let text = "the file does not name the classes, so they are numbered";
            notices.note(&Remark::note(text).with_hint(Hint::LabelsOrImageNet).line());
        }
    }

    let trained = som::train(&rows, &options.training())?;
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
            names: &names,
            quantisation_error: trained.quantisation_error,
            topographic_error: trained.topographic_error,
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
