//! Temporary files, and their removal however a run ends: no half-written file gets a final name.
//!
//! A run names its temporary files in a folder `.prism-RUN-*.part` and holds a lock on
//! `.prism-RUN.lock`. It removes them itself, also after a signal; after a SIGKILL the next run in
//! that folder finds the lock free and removes them.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const PREFIX: &str = ".prism-";
const PART: &str = ".part";
const LOCK: &str = ".lock";

/// Temporary files and new folders that exist now, for a signal to remove.
static PENDING: Mutex<VecDeque<PathBuf>> = Mutex::new(VecDeque::new());

/// Held while files are renamed.
static COMMITTING: Mutex<()> = Mutex::new(());

/// A temporary file or new folder. A signal removes it, and so does dropping the guard; a folder
/// only if it is empty.
#[derive(Debug)]
pub struct TempGuard(PathBuf);

impl TempGuard {
    /// Creates a file or folder and registers its path. A signal waits until that is done.
    ///
    /// # Errors
    /// Returns the errors of `create`.
    pub fn create<T>(
        create: impl FnOnce() -> io::Result<(PathBuf, T)>,
    ) -> io::Result<(TempGuard, T)> {
        let mut pending = pending();
        let (path, created) = create()?;
        pending.push_back(path.clone());
        Ok((TempGuard(path), created))
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    /// Returns an error if it cannot be renamed; it is removed then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)
    }
}

impl Drop for TempGuard {
    fn drop(&mut self) {
        remove(&self.0); // first: a signal between the two removes it as well
        forget(&self.0);
    }
}

fn forget(path: &Path) {
    let mut pending = pending();
    // Files are renamed in the order of their creation, so it is one of the first.
    if let Some(at) = pending.iter().position(|other| other == path) {
        pending.remove(at);
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

fn pending() -> MutexGuard<'static, VecDeque<PathBuf>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delays signal handling while the guard is held, so that a set of files is renamed completely
/// or not at all.
pub fn committing() -> MutexGuard<'static, ()> {
    COMMITTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all temporary files, for the end by a signal. Waits for files that are being renamed;
/// from then on, no temporary file can be created.
pub fn clear_pending() {
    std::mem::forget(committing());
    let mut all = pending();
    // The folders were created before the files in them.
    all.drain(..).rev().for_each(|path| remove(&path));
    std::mem::forget(all);
}

/// A folder in which this run has temporary files.
#[derive(Debug)]
pub struct StagingDir {
    folder: PathBuf,
    /// Part of the names of the run's files.
    run: String,
    _lock: TempGuard,
    /// Locked. Closed after the lock's name is removed.
    _locked: File,
}

impl StagingDir {
    /// Registers this run in the folder, and removes the files of killed runs if it `clears`.
    ///
    /// # Errors
    /// Returns an error if the folder is missing or not writable.
    pub fn new(folder: &Path, clears: bool) -> io::Result<StagingDir> {
        if clears {
            clear_abandoned(folder);
        }
        loop {
            let (lock, locked) = temporary(PREFIX, LOCK, folder)?;
            // Some network file systems have no locks; no other run can take the lock there.
            let _ = locked.lock();
            // Another run may have removed the file before it was locked.
            if locked.metadata()?.nlink() > 0 {
                let name = lock.0.file_name().and_then(|name| name.to_str());
                let run = name.and_then(run_of).unwrap_or_default().to_string();
                return Ok(StagingDir {
                    folder: folder.to_path_buf(),
                    run,
                    _lock: lock,
                    _locked: locked,
                });
            }
        }
    }

    /// The name of the lock, which no other run has.
    pub fn lock_name(&self) -> String {
        format!("{PREFIX}{}{LOCK}", self.run)
    }

    /// Creates a file with the permissions of an ordinary file. It lies in the folder of its final
    /// name, so that renaming it is atomic.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn file(&self) -> io::Result<(TempGuard, File)> {
        temporary(&format!("{PREFIX}{}-", self.run), PART, &self.folder)
    }
}

fn temporary(prefix: &str, suffix: &str, folder: &Path) -> io::Result<(TempGuard, File)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix);
    // umask clears some of these bits.
    builder.permissions(Permissions::from_mode(0o666));
    TempGuard::create(|| {
        let (file, path) = builder.tempfile_in(folder)?.keep()?;
        Ok((path, file))
    })
}

/// The run that a temporary file or lock of this name belongs to.
fn run_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    let part = || rest.strip_suffix(PART)?.split('-').next();
    rest.strip_suffix(LOCK).or_else(part)
}

/// Removes the files of runs that no longer exist.
fn clear_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(run) = name.to_str().and_then(run_of) else {
            continue;
        };
        // A run creates its lock first and removes it last.
        let lock = File::open(folder.join(format!("{PREFIX}{run}{LOCK}")));
        let abandoned = match &lock {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if abandoned && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
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
    fn files_of_killed_runs_are_removed_and_those_of_live_runs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let alive = StagingDir::new(folder.path(), true).unwrap();
        let (file, _) = alive.file().unwrap();
        for name in [
            ".prism-dead.lock",
            ".prism-dead-a.part",
            ".prism-dead-b.part",
            ".prism-lockless-c.part",
            // Other names are left alone.
            ".prism-notes",
            "prism-dead-a.part",
            ".vgg16.part",
        ] {
            fs::write(folder.path().join(name), b"half").unwrap();
        }
        let next = StagingDir::new(folder.path(), true).unwrap();
        assert!(file.0.exists());
        let left = names(folder.path());
        assert_eq!(left.len(), 3 + 3, "{left:?}");
        assert!(
            !left
                .iter()
                .any(|n| n.contains("dead") && n.starts_with('.'))
        );
        assert!(!left.iter().any(|n| n.contains("lockless")));
        drop((file, alive, next));
        let left = names(folder.path());
        assert_eq!(left, [".prism-notes", ".vgg16.part", "prism-dead-a.part"]);
    }

    #[test]
    fn runs_at_once_do_not_remove_each_others_files() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let staging = StagingDir::new(folder.path(), true).unwrap();
                        let (file, _) = staging.file().unwrap();
                        std::thread::yield_now();
                        assert!(file.0.exists());
                    }
                });
            }
        });
        assert!(names(folder.path()).is_empty());
    }
}
