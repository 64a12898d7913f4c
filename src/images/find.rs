//! Finding image files by path, folder or glob.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use super::FORMATS;
use super::decode::reason;

/// Finds the image files that `values` name, sorted by path.
///
/// Each value is a file, a folder or a glob. A folder gives the files in it with an extension
/// of [`FORMATS`], without those of its sub-folders; in a glob `**` descends into folders. An
/// existing path is never read as a glob. As in a shell, globs and folders skip hidden files,
/// whose name starts with a dot. Paths are returned as given; paths that are equal once made
/// absolute are returned once.
///
/// # Errors
/// Returns an error if there are no values or a value yields no file.
pub fn find_images(values: &[PathBuf]) -> Result<Vec<PathBuf>> {
    ensure!(
        !values.is_empty(),
        "no input: name an image, a folder or a glob"
    );
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    for value in values {
        for path in images_of(value)? {
            let absolute = std::path::absolute(&path)
                .with_context(|| format!("cannot make {} absolute", path.display()))?;
            if seen.insert(absolute) {
                images.push(path);
            }
        }
    }
    images.sort();
    Ok(images)
}

fn images_of(value: &Path) -> Result<Vec<PathBuf>> {
    let name = value.as_os_str().as_encoded_bytes();
    ensure!(
        !name.is_empty(),
        "the input is empty: name an image, a folder or a glob"
    );
    match fs::metadata(value) {
        Ok(found) if found.is_dir() => images_in_folder(value),
        Ok(_) => Ok(vec![value.to_path_buf()]),
        Err(_) if name.iter().any(|byte| b"*?[".contains(byte)) => images_of_glob(value),
        Err(error) => Err(anyhow!("{}: {}", value.display(), reason(&error))),
    }
}

fn images_in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut extensions: Vec<&str> = FORMATS
        .iter()
        .flat_map(|(_, found)| *found)
        .copied()
        .collect();
    extensions.sort();
    let mut images = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        let is_image = path.extension().is_some_and(|found| {
            extensions
                .iter()
                .any(|known| found.eq_ignore_ascii_case(known))
        });
        if !hidden && is_image && !path.is_dir() {
            images.push(path);
        }
    }
    ensure!(
        !images.is_empty(),
        "the folder {} holds no image (no file in it ends in .{})",
        folder.display(),
        extensions.join(", .")
    );
    Ok(images)
}

fn images_of_glob(value: &Path) -> Result<Vec<PathBuf>> {
    let shown = value.display();
    let not_unicode = || format!("{shown}: no such file, and a glob must be valid UTF-8");
    let pattern = value.to_str().with_context(not_unicode)?;
    let as_in_a_shell = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let matches = glob::glob_with(pattern, as_in_a_shell).map_err(|error| {
        anyhow!(
            "{pattern}: no such file, and no valid glob: {} (at character {})",
            error.msg,
            error.pos + 1
        )
    })?;
    let mut images = Vec::new();
    for found in matches {
        let path = found.map_err(|error| {
            let (path, reason) = (error.path().display(), reason(error.error()));
            anyhow!("{pattern}: cannot read {path}: {reason}")
        })?;
        if !path.is_dir() {
            images.push(path);
        }
    }
    ensure!(!images.is_empty(), "{pattern}: no file matches this glob");
    Ok(images)
}
