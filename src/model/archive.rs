//! Zip archives: TorchScript files, and state dicts of today's `torch.save`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

/// Opens a file as a zip archive; `None` if it is not one.
pub(super) fn open(path: &Path) -> Option<ZipArchive<BufReader<File>>> {
    let mut file = File::open(path).ok()?;
    let mut start = [0; 2];
    file.read_exact(&mut start).ok()?;
    // An archive may have any prefix, for which `zip` would search the whole file.
    if start != *b"PK" {
        return None;
    }
    ZipArchive::new(BufReader::new(file)).ok()
}

/// Whether the file is a zip archive with an entry that passes `test`.
pub(super) fn has_entry(path: &Path, test: impl Fn(&str) -> bool) -> bool {
    open(path).is_some_and(|archive| archive.file_names().any(test))
}

/// Whether the file is a TorchScript archive: a zip archive like that of a state dict, but with
/// code.
pub fn is_torchscript(path: &Path) -> bool {
    has_entry(path, |name| {
        name.ends_with("/constants.pkl") || name.contains("/code/")
    })
}
