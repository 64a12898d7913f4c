//! The commands beside the maps: the cluster map, and the tables of layers and networks.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::RgbImage;
use rayon::prelude::*;

use crate::cluster::{Row, pickle, som};
use crate::error::{Hint, hinted};
use crate::figure::{About, ClusterFigure, Placed, draw_clusters, thumbnail_side};
use crate::images::{ImageFile, Lookup, MAX_PIXELS, factor_within, resize};
use crate::model::locate::{self, Located};
use crate::model::search_path::SearchPath;
use crate::model::{Network, zoo};
use crate::names::{escaped, escaped_within, first_few};
use crate::notices::Notices;
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
    let trained = notices.during("training the map", || som::train(&rows, &training))?;
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
            is_right: row.truth.map(|truth| truth == row.class),
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
    let lookup = Lookup::default();
    let read = |row: &Row| {
        let path = Path::new(&row.path);
        let image = lookup.find(path).unwrap_or_else(|| ImageFile::from(path));
        let longer = |size: Size| size.height.max(size.width).max(1);
        let factor = |full| factor_within(longer(full) as f64 / f64::from(side), full);
        let photograph = image.decode(MAX_PIXELS, None, &factor)?;
        let size = photograph.full;
        let scaled =
            |length: i64| (length * i64::from(side) / longer(size)).clamp(1, length.max(1));
        bar.inc(1);
        resize(
            photograph.source(),
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
    let network = load(options, compute, notices)?;
    let mut hooks = options.hooks(compute);
    hooks.scores.names = count_of(None, &network);
    let size = network.input_size();
    let model = notices.during("hooking", || network.hook(size, &hooks))?;
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
                escaped(&layer.name),
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
                Some(Located::File(file) | Located::StateDict(_, file)) => {
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
                escaped(&place),
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

/// Prints help or the version, in colours on a terminal.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn print_help(help: &clap::Error) -> Result<()> {
    match help.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Loads the network that `options` select, and shows that it does.
///
/// # Errors
/// Returns the errors of [`Network::load`].
pub(super) fn load(
    options: &ModelOptions,
    compute: &ComputeOptions,
    notices: Notices,
) -> Result<Network> {
    let name = options.model.file_name().unwrap_or_default();
    let name = escaped_within(&name.to_string_lossy(), LONGEST_NAME);
    notices.during(format!("loading {name}"), || {
        Network::load(options, compute, notices)
    })
}

/// Characters of a network's name beside a spinner.
const LONGEST_NAME: usize = 40;

/// So many files are noted one by one; more are summed up.
const FEW_FILES: usize = 8;

/// Names of files in a summary.
const NAMED_FILES: usize = 3;

/// Notes the files that were written.
pub(super) fn report_written(paths: &[PathBuf], notices: Notices) {
    for line in written_lines(paths) {
        notices.note(&line);
    }
}

/// `wrote out/a.png` for each of a few files, else `wrote 42 files in out/: a.png, b.png,
/// c.png and 1 more, maps/ (38)` for each folder that lies in no other.
fn written_lines(paths: &[PathBuf]) -> Vec<String> {
    let wrote = |path: &PathBuf| format!("wrote {}", path.display());
    if paths.len() <= FEW_FILES {
        return paths.iter().map(wrote).collect();
    }
    let mut folders: Vec<&Path> = Vec::new();
    for folder in paths.iter().filter_map(|path| path.parent()) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let is_below = |folder: &Path, other: &Path| {
        folder != other && other != Path::new("") && folder.starts_with(other)
    };
    let outer = folders.iter().copied();
    let outer = outer.filter(|folder| !folders.iter().any(|other| is_below(folder, other)));
    outer
        .map(|folder| {
            let belongs = |path: &&PathBuf| {
                let parent = path.parent().unwrap_or(Path::new(""));
                parent == folder || is_below(parent, folder)
            };
            let here: Vec<&PathBuf> = paths.iter().filter(belongs).collect();
            match here.as_slice() {
                [only] => wrote(only),
                _ => summed_up(folder, &here),
            }
        })
        .collect()
}

/// `wrote 42 files in out/: a.png, b.png, c.png and 1 more, maps/ (38)`.
fn summed_up(folder: &Path, paths: &[&PathBuf]) -> String {
    let mut files = Vec::new();
    let mut below: Vec<(String, usize)> = Vec::new();
    for path in paths {
        let inner = path.strip_prefix(folder).unwrap_or(path);
        let mut parts = inner.components();
        let first = parts
            .next()
            .map_or(Cow::default(), |part| part.as_os_str().to_string_lossy());
        if parts.next().is_none() {
            files.push(first);
        } else if let Some((_, count)) = below.iter_mut().find(|(name, _)| *name == first) {
            *count += 1;
        } else {
            below.push((first.into_owned(), 1));
        }
    }
    let below: Vec<String> = below
        .into_iter()
        .map(|(name, count)| format!("{name}/ ({count})"))
        .collect();
    let listed = [files.is_empty(), below.is_empty()];
    let listed = match listed {
        [true, _] => first_few(&below, NAMED_FILES),
        [_, true] => first_few(&files, NAMED_FILES),
        _ => format!(
            "{}, {}",
            first_few(&files, NAMED_FILES),
            first_few(&below, NAMED_FILES)
        ),
    };
    let place = match folder.as_os_str().is_empty() {
        true => "the working folder".to_string(),
        false => format!("{}/", folder.display()),
    };
    let place = place.replace("//", "/");
    format!("wrote {} files in {place}: {listed}", paths.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(paths: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        written_lines(&paths)
    }

    #[test]
    fn a_few_files_are_named_and_many_are_summed_up() {
        let few = ["out/a.png", "out/maps/1.png", "b.npz"];
        assert_eq!(
            lines(&few),
            ["wrote out/a.png", "wrote out/maps/1.png", "wrote b.npz"]
        );
        assert!(lines(&[]).is_empty());

        let maps: Vec<String> = (0..40).map(|n| format!("out/maps/{n}.png")).collect();
        let maps = maps.iter().map(String::as_str);
        let many: Vec<&str> = ["out/a", "out/b"].into_iter().chain(maps.clone()).collect();
        assert_eq!(lines(&many), ["wrote 42 files in out/: a, b, maps/ (40)"]);
        let more = ["out/a", "out/b", "out/c", "out/d", "x.npz", "/y/z.html"];
        let more: Vec<&str> = more.into_iter().chain(maps.clone()).collect();
        assert_eq!(
            lines(&more),
            [
                "wrote 44 files in out/: a, b, c and 1 more, maps/ (40)",
                "wrote x.npz",
                "wrote /y/z.html"
            ]
        );
        let only: Vec<&str> = maps.collect();
        assert_eq!(
            lines(&only),
            ["wrote 40 files in out/maps/: 0.png, 1.png, 2.png and 37 more"]
        );
        let here = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
        assert_eq!(
            lines(&here),
            ["wrote 9 files in the working folder: 1, 2, 3 and 6 more"]
        );
    }
}
