//! The summary as JSON, and a line per image on standard output.

use std::io::Write;

use anyhow::Result;

use super::{Destination, Results};
use crate::options::JsonTarget;

/// Writes the summary to a file or to standard output. It lists the files written so far.
pub fn json(target: &JsonTarget, results: &Results, to: &mut Destination) -> Result<()> {
    let mut clock = results.clock.clone();
    clock.lap("saving");
    let mut files = to.files.paths();
    if let JsonTarget::File(file) = target {
        files.push(file.to_string_lossy().into_owned());
    }
    let json = results.summary(files, &clock).to_json()?;
    match target {
        JsonTarget::File(file) => to.write(file, json.as_bytes())?,
        JsonTarget::Stdout => to.printed.extend(json.into_bytes()),
    }
    Ok(())
}

/// Prints path and top classes of each image, separated by tabs.
pub fn lines(results: &Results, to: &mut Destination) -> Result<()> {
    for (path, classes) in results.paths.iter().zip(&results.classes) {
        to.printed.extend(path.as_os_str().as_encoded_bytes());
        for class in classes {
            write!(to.printed, "\t{class}")?;
        }
        to.printed.push(b'\n');
    }
    Ok(())
}
