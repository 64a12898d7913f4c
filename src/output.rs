//! Results on disk: written under a temporary name beside their own, and
//! renamed when all of them are whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempPath;

use crate::temporary::{Pending, Workplace, committing};

/// A whole file that has not got its name yet. Dropping it removes it.
#[derive(Debug)]
struct Staged {
    temporary: TempPath,
    path: PathBuf,
    /// After the file in the order of dropping.
    _pending: Pending,
}

/// The files of one run: all of them appear, or none.
#[derive(Debug, Default)]
pub struct Outputs {
    staged: Vec<Staged>,
    /// Where they will lie.
    places: HashSet<PathBuf>,
    /// The folders that files are written into.
    workplaces: HashMap<PathBuf, Workplace>,
    /// Folders made for this run, outermost first.
    made: Vec<Pending>,
}

impl Outputs {
    /// Checks that files can be written into `folder`, making it where it is
    /// missing (and taking it away again if the run comes to nothing).
    ///
    /// # Errors
    /// Where they cannot.
    pub fn prepare(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err())
            .collect();
        for path in missing.into_iter().rev() {
            match Pending::making(|| fs::create_dir(path), |()| path.to_path_buf()) {
                Ok((pending, ())) => self.made.push(pending),
                // by another run at this moment, or it is the `new/..` of `new/../other`
                Err(_) if path.is_dir() => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make the folder {}", path.display()));
                }
            }
        }
        self.workplace(folder).map(drop)
    }

    fn workplace(&mut self, folder: &Path) -> Result<&Workplace> {
        if !self.workplaces.contains_key(folder) {
            let workplace = Workplace::new(folder).map_err(|error| unwritable(folder, &error))?;
            self.workplaces.insert(folder.to_path_buf(), workplace);
        }
        Ok(&self.workplaces[folder])
    }

    /// Writes a file that will be called `path`.
    ///
    /// # Errors
    /// Where it cannot be written; nothing of it is left then.
    pub fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            bail!("cannot write {}: it is a folder", path.display());
        }
        if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            bail!("cannot write {}: it is no ordinary file", path.display());
        }
        if !self.places.insert(place(path)) {
            bail!(
                "cannot write {}: another file of this run has that name",
                path.display()
            );
        }
        let failed = || format!("cannot write {}", path.display());
        // A name that cannot be (too long, say) is found out before any file has its own.
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => {}
        }
        let folder = folder_of(path);
        let made = self.workplace(folder)?.file();
        let (pending, file) = made.map_err(|error| unwritable(folder, &error))?;
        let (file, temporary) = file.into_parts();
        self.staged.push(Staged {
            temporary,
            path: path.to_path_buf(),
            _pending: pending,
        });
        let mut file = BufWriter::new(file);
        write(&mut file).with_context(failed)?;
        file.flush().with_context(failed)
    }

    /// The names that the files will take.
    pub fn paths(&self) -> Vec<String> {
        let name = |staged: &Staged| staged.path.to_string_lossy().into_owned();
        self.staged.iter().map(name).collect()
    }

    /// Gives every file its name; returns the names.
    ///
    /// # Errors
    /// Where one cannot be renamed.
    pub fn commit(mut self) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        let _whole = committing();
        for Staged {
            temporary, path, ..
        } in self.staged.drain(..)
        {
            temporary
                .persist(&path)
                .map_err(|failed| failed.error)
                .with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
        self.made.clear();
        Ok(written)
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.staged.clear();
        self.workplaces.clear();
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder.path()); // stays if somebody else uses it
        }
    }
}

/// Whether two paths name one file, as far as their words say.
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
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such folder".to_string(),
        io::ErrorKind::NotADirectory => "it is not a folder".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        // The library appends the temporary file's path.
        _ => {
            let text = error.to_string();
            text.split(" at path").next().unwrap_or(&text).to_string()
        }
    };
    anyhow::anyhow!("cannot write into {}: {reason}", folder.display())
}

#[cfg(test)]
mod tests {
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
            "the folders made for it are gone"
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
    fn a_file_where_a_folder_belongs_is_said() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        let mut outputs = Outputs::default();
        let error = outputs.prepare(&file).unwrap_err();
        assert!(format!("{error:#}").contains("not a folder"), "{error:#}");
        assert!(outputs.prepare(&file.join("below")).is_err());
    }
}
