//! What an earlier run left beside the figures, pictures and arrays of this one, which is no part of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Results;
use crate::numbered::is_numbered;
use crate::options::OutputOptions;
use crate::output::{Outputs, folder_of};
use crate::remarks::Remark;

/// Warnings of figures and pictures that have names as those of this run, but are of an earlier one:
/// more of them, or in numbered sub-folders where this run has none, or without; also of arrays of more
/// ranks. `written` are the files of this run.
pub fn left_over(results: &Results, options: &OutputOptions, written: &Outputs) -> Vec<Remark> {
    let start = format!("PRISM_{}", results.network.network);
    let pictures = options.folder.join(&start);
    let end = format!(".{}", options.format.extension());
    let is_figure = |name: &str| is_figure(name, &start, &end);
    let mut remarks = Vec::new();
    if options.figures > 0 {
        remarks.extend(remark("figures", &options.folder, is_figure, written));
    }
    if options.per_image {
        remarks.extend(remark("pictures", &pictures, is_picture, written));
    }
    if let Some(file) = options.save_arrays.as_deref()
        && results.group.is_joint()
    {
        let ranks = results.group.size();
        let is_left = |name: &str| rank_of(name, file).is_some_and(|rank| rank >= ranks);
        remarks.extend(remark("arrays", folder_of(file), is_left, written));
    }
    remarks
}

fn remark(
    what: &str,
    folder: &Path,
    is_one: impl Fn(&str) -> bool,
    written: &Outputs,
) -> Option<Remark> {
    let mut left: Vec<PathBuf> = candidates(folder, is_one);
    left.retain(|path| !written.has(path));
    let first = left.iter().min()?;
    let (count, folder) = (left.len(), folder.display());
    let first = first.display();
    Some(Remark::warning(format!(
        "{folder} also has {what} of an earlier run, {count} in number, such as {first}"
    )))
}

/// The files in a folder, and in its numbered sub-folders, whose names are such.
fn candidates(folder: &Path, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(open) = folders.pop() {
        for entry in fs::read_dir(&open).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_one(&name) {
                found.push(entry.path());
            } else if open == folder && is_numbered(&name) {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// `PRISM_vgg16.jpg` or `PRISM_vgg16_0012.jpg`.
fn is_figure(name: &str, start: &str, end: &str) -> bool {
    let middle = name
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(end));
    middle.is_some_and(|middle| {
        middle.is_empty() || middle.strip_prefix('_').is_some_and(is_numbered)
    })
}

/// `0012_cat_map.png` or `0012_cat_overlay.png`.
fn is_picture(name: &str) -> bool {
    let kinds = ["_map.png", "_overlay.png"];
    let number = name.split_once('_').map(|(number, _)| number);
    number.is_some_and(is_numbered) && kinds.iter().any(|kind| name.ends_with(kind))
}

/// The rank 12 of `a.0012.npz`, if `a.npz` is the file that the ranks have parts of.
fn rank_of(name: &str, file: &Path) -> Option<usize> {
    let stem = file.file_stem()?.to_string_lossy();
    let extension = file.extension()?.to_string_lossy();
    let name = name.strip_prefix(&*stem)?.strip_prefix('.')?;
    let number = name.strip_suffix(&*extension)?.strip_suffix('.')?;
    number.parse().ok().filter(|_| is_numbered(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_ranks_are_known_by_their_numbers() {
        let file = Path::new("out/a.b.npz");
        assert_eq!(rank_of("a.b.0012.npz", file), Some(12));
        assert_eq!(rank_of("a.b.10000.npz", file), Some(10_000));
        for name in [
            "a.b.npz",
            "a.0012.npz",
            "a.b.12.npz",
            "a.b.0012.safetensors",
            "a.b.+012.npz",
        ] {
            assert_eq!(rank_of(name, file), None, "{name}");
        }
    }

    #[test]
    fn figures_and_pictures_are_known_by_their_names() {
        let names = ["PRISM_net.jpg", "PRISM_net_0001.jpg", "PRISM_net_12345.jpg"];
        assert!(
            names
                .iter()
                .all(|name| is_figure(name, "PRISM_net", ".jpg"))
        );
        for name in [
            "PRISM_net.png",
            "PRISM_net2.jpg",
            "PRISM_net_2.jpg",
            "PRISM_net_old_0001.jpg",
            "PRISM_var_net.jpg",
            "net.jpg",
        ] {
            assert!(!is_figure(name, "PRISM_net", ".jpg"), "{name}");
        }
        assert!(is_picture("0001_a_b_map.png") && is_picture("10000_x_overlay.png"));
        assert!(!is_picture("cat_map.png") && !is_picture("0001_cat.png"));
    }

    #[test]
    fn what_this_run_writes_is_not_left_over() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["0000", "0001", "other"] {
            fs::create_dir(path(folder)).unwrap();
        }
        let mut written = Outputs::default();
        written
            .write(&path("0000/0001_a_map.png"), |_| Ok(()))
            .unwrap();
        let warned = |written: &Outputs| remark("pictures", root.path(), is_picture, written);
        fs::write(path("0000/0001_a_map.png"), "").unwrap();
        fs::write(path("other/0009_a_map.png"), "").unwrap();
        assert_eq!(warned(&written), None);
        fs::write(path("0001/0001_b_map.png"), "").unwrap();
        fs::write(path("0001_a_map.png"), "").unwrap();
        let text = warned(&written).unwrap().text;
        assert!(
            text.contains("pictures of an earlier run, 2 in number"),
            "{text}"
        );
        assert!(text.ends_with("0001/0001_b_map.png"), "{text}");
    }
}
