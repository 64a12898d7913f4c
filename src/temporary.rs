//! Temporary files: where they are made, and how they go however a run ends.
//!
//! The temporary files of one run in one folder are called `.prism-RUN-*.part`. Beside them
//! lies `.prism-RUN.lock`, locked for as long as the run lives. A signal that asks for an end
//! clears them; what a killed run has left behind has a lock that nobody holds any more, by
//! which the next run in that folder knows it and clears it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

const PREFIX: &str = ".prism-";
const PART: &str = ".part";
const LOCK: &str = ".lock";

/// Temporary files, and folders made for them, that exist right now, for a
/// signal to clear.
static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Held while files take their names.
static COMMITTING: Mutex<()> = Mutex::new(());

/// A temporary file or new folder that a signal should clear, for as long as this
/// lives.
#[derive(Debug)]
pub struct Pending(PathBuf);

impl Pending {
    /// Makes a file or folder and remembers it, with no moment in between for a signal.
    ///
    /// # Errors
    /// Those of making it.
    pub fn making<T>(
        make: impl FnOnce() -> io::Result<T>,
        path_of: impl FnOnce(&T) -> PathBuf,
    ) -> io::Result<(Pending, T)> {
        let mut all = pending();
        let made = make()?;
        let path = path_of(&made);
        all.push(path.clone());
        Ok((Pending(path), made))
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut all = pending();
        if let Some(at) = all.iter().position(|path| *path == self.0) {
            all.remove(at);
        }
    }
}

fn pending() -> MutexGuard<'static, Vec<PathBuf>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives a signal waits, so that of files that belong together it leaves all or none.
pub fn committing() -> MutexGuard<'static, ()> {
    COMMITTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes whatever is half-written; for the end by a signal. The files that are just taking
/// their names are waited for, and no other is made from now on: who tries waits for the end.
pub fn clear_pending() {
    std::mem::forget(committing());
    let mut all = pending();
    // Files first, then the folders that were made before them, if empty.
    for path in all.drain(..).rev() {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    std::mem::forget(all);
}

/// A folder in which this run has temporary files.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
    /// Part of the names of its files.
    run: String,
    /// Locked. Goes when this is dropped, before the memory of it does.
    _lock: NamedTempFile,
    _pending: Pending,
}

impl Workplace {
    /// Clears what killed runs have left in the folder, and says that this one is there.
    ///
    /// # Errors
    /// Where the folder is missing, or may not be written into.
    pub fn new(folder: &Path) -> io::Result<Workplace> {
        clear_abandoned(folder);
        loop {
            let (pending, lock) = ordinary(PREFIX, LOCK, folder)?;
            // Some network file systems know no locks; nobody can take theirs either.
            let _ = lock.as_file().lock();
            // Another run may have found it between its making and its locking.
            if lock.as_file().metadata()?.nlink() == 0 {
                continue;
            }
            let name = lock.path().file_name().and_then(|name| name.to_str());
            let run = name.and_then(run_of).map(str::to_owned);
            return Ok(Workplace {
                folder: folder.to_path_buf(),
                run: run.ok_or_else(|| io::Error::other("a temporary file has an odd name"))?,
                _lock: lock,
                _pending: pending,
            });
        }
    }

    /// A new file of an ordinary file's permissions, in the folder of the name that it will
    /// take, so that renaming it is one step; and the memory of it, which should live longer.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn file(&self) -> io::Result<(Pending, NamedTempFile)> {
        ordinary(&format!("{PREFIX}{}-", self.run), PART, &self.folder)
    }
}

fn ordinary(prefix: &str, suffix: &str, folder: &Path) -> io::Result<(Pending, NamedTempFile)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix);
    // umask takes its bits away from these.
    builder.permissions(Permissions::from_mode(0o666));
    Pending::making(
        || builder.tempfile_in(folder),
        |file| file.path().to_path_buf(),
    )
}

/// The run that a temporary file or a lock of this name belongs to.
fn run_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    match rest.strip_suffix(LOCK) {
        Some(run) => Some(run),
        None => Some(rest.strip_suffix(PART)?.split('-').next().unwrap_or(rest)),
    }
}

/// Removes the files of runs that have ended without doing so.
fn clear_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut runs: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(run) = name.to_str().and_then(run_of) else {
            continue;
        };
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            runs.entry(run.to_owned()).or_default().push(entry.path());
        }
    }
    for (run, files) in runs {
        // A run makes its lock first and removes it last, so files without one are nobody's.
        let lock = folder.join(format!("{PREFIX}{run}{LOCK}"));
        let held = match File::open(&lock) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Some(file),
                Err(_) => continue,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => continue,
        };
        for file in files.iter().filter(|file| **file != lock) {
            let _ = fs::remove_file(file);
        }
        if held.is_some() {
            let _ = fs::remove_file(&lock);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The names in a folder, sorted.
    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_a_live_one_has_stays() {
        let folder = tempfile::tempdir().unwrap();
        let alive = Workplace::new(folder.path()).unwrap();
        let (_pending, file) = alive.file().unwrap();
        for name in [
            ".prism-dead.lock",
            ".prism-dead-a.part",
            ".prism-dead-b.part",
            ".prism-lockless-c.part",
            // Not ours, whatever they are.
            ".prism-notes",
            "prism-dead-a.part",
            ".vgg16.part",
        ] {
            fs::write(folder.path().join(name), b"half").unwrap();
        }
        let next = Workplace::new(folder.path()).unwrap();
        assert!(file.path().exists());
        let left = names(folder.path());
        assert_eq!(left.len(), 3 + 3, "{left:?}");
        assert!(
            !left
                .iter()
                .any(|n| n.contains("dead") && n.starts_with('.'))
        );
        assert!(!left.iter().any(|n| n.contains("lockless")));
        drop((alive, next, file));
        let left = names(folder.path());
        assert_eq!(left, [".prism-notes", ".vgg16.part", "prism-dead-a.part"]);
    }

    #[test]
    fn many_runs_at_once_do_not_take_each_other_for_dead() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let place = Workplace::new(folder.path()).unwrap();
                        let (_pending, file) = place.file().unwrap();
                        std::thread::yield_now();
                        assert!(file.path().exists());
                    }
                });
            }
        });
        assert!(names(folder.path()).is_empty());
    }
}
