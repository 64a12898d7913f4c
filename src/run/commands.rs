//! The commands beside the maps: the map of clusters, and tables of layers and networks.

use std::io::{BufWriter, Write};

use anyhow::{Context, Result, bail};

use super::{saving::closed_pipe_is_fine, say_written};
use crate::cluster::{pickle, som};
use crate::figure::{ClusterFigure, Placed, draw_clusters};
use crate::labels::Labels;
use crate::model::locate::{self, Located};
use crate::model::search_path::SearchPath;
use crate::model::{Network, zoo};
use crate::notices::{Notices, printable};
use crate::options::{ClusterOptions, ModelOptions};
use crate::output::{Outputs, folder_of};

/// Trains a self-organising map on a file that `--cluster` wrote, draws it and
/// prints its errors.
///
/// # Errors
/// With one line for a person; no file is written then.
pub fn som(options: &ClusterOptions, stdout: &mut impl Write) -> Result<()> {
    let notices = options.notices;
    let show = options.file.display();
    let mut outputs = Outputs::default();
    outputs.prepare(folder_of(&options.output))?;
    let labels = options.labels.as_deref().map(Labels::read).transpose()?;
    let rows = pickle::read(&options.file).with_context(|| format!("{show}"))?;
    let highest = rows.iter().map(|row| row.class).max().unwrap_or(0);
    let labels = match labels.zip(options.labels.as_ref()) {
        Some((labels, file)) if highest >= labels.len() => bail!(
            "{}: there are {} names in it, but {show} has class {highest}",
            file.display(),
            labels.len()
        ),
        Some((labels, _)) => Some(labels),
        None => Some(Labels::imagenet()).filter(|imagenet| highest < imagenet.len()),
    };
    if options.labels.is_none() && labels.is_some() {
        notices.note("the classes are named as ImageNet's; --labels FILE names others");
    }

    let trained = som::train(&rows, &options.som)?;
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
        options.format,
    )?;
    outputs.write(&options.output, |out| Ok(out.write_all(&drawn)?))?;
    say_written(outputs.commit()?, notices);
    closed_pipe_is_fine(writeln!(
        stdout,
        "quantisation error: {:.4}\ntopographic error: {:.4}",
        trained.quantisation_error, trained.topographic_error
    ))
}

/// Prints the layers of the network that `options` name as a table.
///
/// # Errors
/// As [`super::run`].
pub fn print_layers(
    options: &ModelOptions,
    notices: Notices,
    stdout: &mut impl Write,
) -> Result<()> {
    let network = Network::load(options, notices)?;
    let layers = network.hook(network.input_size, options)?.layers();
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
    print_table(heading, [false, false, true, false], &rows, stdout)
}

/// Prints the networks that are known by name, and where their weights are, as a table.
///
/// # Errors
/// Where `stdout` cannot be written.
pub fn print_models(stdout: &mut impl Write) -> Result<()> {
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
    print_table(heading, [false, true, false, false], &rows, stdout)
}

/// Prints a text as it is.
///
/// # Errors
/// Where `stdout` cannot be written.
pub fn print_text(text: &[u8], stdout: &mut impl Write) -> Result<()> {
    closed_pipe_is_fine(stdout.write_all(text).and_then(|()| stdout.flush()))
}

/// Prints rows below a heading, columns aligned, the marked ones to the right.
fn print_table<const N: usize>(
    heading: [&str; N],
    right: [bool; N],
    rows: &[[String; N]],
    stdout: &mut impl Write,
) -> Result<()> {
    let heading = heading.map(String::from);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let lengths = rows.iter().chain([&heading]);
        lengths
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    let mut out = BufWriter::new(stdout);
    let printed = [&heading].into_iter().chain(rows).try_for_each(|row| {
        let mut line = String::new();
        for ((text, width), right) in row.iter().zip(widths).zip(right) {
            let cell = match right {
                true => format!("{text:>width$}  "),
                false => format!("{text:<width$}  "),
            };
            line.push_str(&cell);
        }
        writeln!(out, "{}", line.trim_end())
    });
    closed_pipe_is_fine(printed.and_then(|()| out.flush()))
}
