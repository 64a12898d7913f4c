//! The files of a run: all of them get their names when the last one is complete, or none does.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use crate::temporary::{StagingDir, TempGuard, committing};

/// The files of one run. Dropping it removes those that were not committed.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Complete files and their final names.
    staged: Vec<(TempGuard, PathBuf)>,
    /// The absolute paths of the final names.
    places: HashSet<PathBuf>,
    staging: HashMap<PathBuf, StagingDir>,
    /// Whether what killed runs left in the folders stays there.
    keeps_abandoned: bool,
    /// Folders whose temporary files lie in another one.
    staged_above: HashMap<PathBuf, PathBuf>,
    /// Folders created for this run, innermost first: dropped in this order.
    created: Vec<TempGuard>,
}

impl Outputs {
    /// Leaves what killed runs left in further folders. The locks of some network file systems hold on
    /// one machine only, so that files of a living rank on another machine could be taken for those
    /// of a killed run.
    pub fn keep_abandoned(&mut self) {
        self.keeps_abandoned = true;
    }

    /// Checks that files can be written into `folder`, and creates it if it is missing.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or written into.
    pub fn prepare(&mut self, folder: &Path) -> Result<()> {
        self.create(folder)?;
        self.staging(folder).map(drop)
    }

    /// Checks that files can be written into `folder`, one of many in `above`, and creates it if it
    /// is missing. Its temporary files lie in `above`: a lock in each of thousands of folders would
    /// be too many open files.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or written into.
    pub fn prepare_below(&mut self, above: &Path, folder: &Path) -> Result<()> {
        if self.staged_above.contains_key(folder) || self.staging.contains_key(folder) {
            return Ok(());
        }
        self.create(folder)?;
        let disk = |path: &Path| fs::metadata(path).map(|about| about.dev());
        let disks = disk(above).and_then(|above| Ok((above, disk(folder)?)));
        match disks.map_err(|error| unwritable(folder, &error))? {
            (above, below) if above != below => return self.prepare(folder), // no rename between
            _ => {}
        }
        let written = tempfile::tempfile_in(folder);
        written.map_err(|error| unwritable(folder, &error))?;
        let above = above.to_path_buf();
        self.staged_above.insert(folder.to_path_buf(), above);
        Ok(())
    }

    /// Creates a folder, and those that it lies in, if they are missing.
    fn create(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err())
            .collect();
        for path in missing.into_iter().rev() {
            match TempGuard::create(|| Ok((path.to_path_buf(), fs::create_dir(path)?))) {
                Ok((created, ())) => self.created.insert(0, created),
                // Another run has just created it, or it is the `new/..` of `new/../other`.
                Err(_) if path.is_dir() => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make the folder {}", path.display()));
                }
            }
        }
        Ok(())
    }

    fn staging(&mut self, folder: &Path) -> Result<&StagingDir> {
        if !self.staging.contains_key(folder) {
            let staging = StagingDir::new(folder, !self.keeps_abandoned)
                .map_err(|error| unwritable(folder, &error))?;
            self.staging.insert(folder.to_path_buf(), staging);
        }
        Ok(&self.staging[folder])
    }

    /// The names of the locks of this run.
    pub fn locks(&self) -> Vec<String> {
        self.staging.values().map(StagingDir::lock_name).collect()
    }

    /// A folder of this run without any of these locks: the process that has them, with the same
    /// options, writes into another one.
    pub fn folder_without(&self, locks: &[String]) -> Option<&Path> {
        let is_there = |folder: &Path| locks.iter().any(|lock| folder.join(lock).exists());
        let mut folders = self.staging.keys().map(PathBuf::as_path);
        folders.find(|folder| !is_there(folder))
    }

    /// Writes a file with the final name `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or has the name of another one of this run.
    pub fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        self.check(path).with_context(failed)?;
        let folder = folder_of(path).to_path_buf();
        let staging = self.staged_above.get(&folder).cloned();
        let staging = staging.unwrap_or_else(|| folder.clone());
        let created = self.staging(&staging)?.file();
        let (staged, file) = created.map_err(|error| unwritable(&staging, &error))?;
        self.staged.push((staged, path.to_path_buf()));
        let mut file = BufWriter::new(file);
        write(&mut file).with_context(failed)?;
        file.flush().with_context(failed)
    }

    /// Whether a file can get that name. Found out here, before any file is renamed.
    fn check(&mut self, path: &Path) -> Result<()> {
        let names_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        ensure!(!path.is_dir() && !names_folder, "it is a folder");
        match fs::metadata(path) {
            Ok(found) => ensure!(found.is_file(), "it is no ordinary file"),
            Err(_) => match fs::symlink_metadata(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()), // too long, say
                _ => {} // a new file, or it replaces a link
            },
        }
        let is_new = self.places.insert(place(path));
        ensure!(is_new, "another file of this run has that name");
        Ok(())
    }

    /// The final names of the files.
    pub fn paths(&self) -> Vec<String> {
        let paths = self.staged.iter().map(|(_, path)| path.to_string_lossy());
        paths.map(String::from).collect()
    }

    /// Notes that another rank of this run writes a file with that final name.
    pub fn know(&mut self, path: &Path) {
        self.places.insert(place(path));
    }

    /// Whether this run writes a file with that final name.
    pub fn has(&self, path: &Path) -> bool {
        self.places.contains(&place(path))
    }

    /// Renames all files; returns their names. Folders created for the run that are still empty
    /// are removed.
    ///
    /// # Errors
    /// Returns an error if one cannot be renamed.
    pub fn commit(self) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        let _complete = committing();
        for (staged, path) in self.staged {
            let renamed = staged.persist(&path);
            renamed.with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
        drop(self.staging);
        // Innermost first; a folder that holds something stays.
        drop(self.created);
        Ok(written)
    }
}

/// Whether two paths name the same file, without looking at the file system.
pub fn same_place(one: &Path, other: &Path) -> bool {
    place(one) == place(other)
}

fn place(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// The folder that a path lies in; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn unwritable(folder: &Path, error: &io::Error) -> anyhow::Error {
    let text = error.to_string();
    let reason = match error.kind() {
        ErrorKind::NotFound => "there is no such folder",
        ErrorKind::NotADirectory => "it is not a folder",
        ErrorKind::PermissionDenied => "permission denied",
        // tempfile appends the path of the temporary file.
        _ => text.split(" at path").next().unwrap_or(&text),
    };
    anyhow!("cannot write into {}: {reason}", folder.display())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::temporary::tests::names;

    #[test]
    fn all_files_appear_or_none() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let mut outputs = Outputs::default();
        outputs.prepare(&folder).unwrap();
        outputs
            .write(&folder.join("one"), |f| Ok(f.write_all(b"1")?))
            .unwrap();
        assert!(outputs.write(&folder.join("two"), |_| bail!("no")).is_err());
        assert_eq!(
            names(&folder)
                .iter()
                .filter(|n| !n.starts_with('.'))
                .count(),
            0
        );
        drop(outputs);
        assert!(
            names(root.path()).is_empty(),
            "the folders created for it are gone"
        );

        let mut outputs = Outputs::default();
        outputs.prepare(&folder).unwrap();
        outputs
            .write(&folder.join("one"), |f| Ok(f.write_all(b"1")?))
            .unwrap();
        outputs.commit().unwrap();
        assert_eq!(names(&folder), ["one"]);
    }

    #[test]
    fn a_new_file_has_the_permissions_that_umask_gives() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let plain = root.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let mut outputs = Outputs::default();
        outputs
            .write(&root.path().join("ours"), |_| Ok(()))
            .unwrap();
        outputs.commit().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&root.path().join("ours")), mode(&plain));
    }

    #[test]
    fn a_file_in_place_of_a_folder_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        let mut outputs = Outputs::default();
        let error = outputs.prepare(&file).unwrap_err();
        assert!(format!("{error:#}").contains("not a folder"), "{error:#}");
        assert!(outputs.prepare(&file.join("below")).is_err());
    }
}
