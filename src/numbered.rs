//! Numbered sub-folders for files too many for one folder.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::output::Outputs;

/// The most files in a folder. More slow down file browsers, `ls` and network file systems.
pub const MOST_FILES: usize = 1000;

/// A folder of files, or numbered sub-folders of it if they are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    folder: PathBuf,
    is_split: bool,
}

impl Numbered {
    /// For `count` files in `folder`.
    pub fn new(folder: &Path, count: usize) -> Numbered {
        Numbered {
            folder: folder.to_path_buf(),
            is_split: count > MOST_FILES,
        }
    }

    /// The sub-folder of the file with this number, counted from 0, if there are any: `0012`.
    pub fn part(&self, number: usize) -> Option<String> {
        self.is_split.then(|| format!("{:04}", number / MOST_FILES))
    }

    /// The folder of the file with this number, made if it is missing.
    ///
    /// # Errors
    /// Returns an error if it cannot be made or written into.
    pub fn prepared(&self, number: usize, outputs: &mut Outputs) -> Result<PathBuf> {
        match self.part(number) {
            None => Ok(self.folder.clone()),
            Some(part) => {
                let folder = self.folder.join(part);
                outputs.prepare_below(&self.folder, &folder)?;
                Ok(folder)
            }
        }
    }
}

/// Whether a folder has the name of a numbered one.
pub fn is_numbered(name: &str) -> bool {
    name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_thousand_files_lie_in_numbered_folders() {
        let few = Numbered::new(Path::new("out"), 1000);
        assert_eq!(few.part(0), None);
        assert_eq!(few.part(999), None);
        let many = Numbered::new(Path::new("out"), 1001);
        let parts = [0, 999, 1000, 1999, 12_345_678].map(|number| many.part(number));
        let wanted = ["0000", "0000", "0001", "0001", "12345"].map(|part| Some(part.to_string()));
        assert_eq!(parts, wanted);
        assert!(["0000", "12345"].into_iter().all(is_numbered));
        assert!(!["000", "", "00a0", "1.00"].into_iter().any(is_numbered));
    }

    #[test]
    fn numbered_folders_are_made_and_vanish_with_a_failed_run() {
        let root = tempfile::tempdir().unwrap();
        let numbered = Numbered::new(root.path(), 2000);
        let mut outputs = Outputs::default();
        outputs.prepare(root.path()).unwrap();
        for number in [0, 1, 1999] {
            let folder = numbered.prepared(number, &mut outputs).unwrap();
            let file = folder.join(number.to_string());
            outputs.write(&file, |_| Ok(())).unwrap();
        }
        drop(outputs);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);

        std::fs::write(root.path().join("0001"), b"").unwrap();
        let mut outputs = Outputs::default();
        let error = numbered.prepared(1999, &mut outputs).unwrap_err();
        assert!(
            format!("{error:#}").contains("it is not a folder"),
            "{error:#}"
        );
    }
}
