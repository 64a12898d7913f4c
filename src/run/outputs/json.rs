//! The summary as JSON.

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::options::JsonTarget;
use crate::output::{Outputs, folder_of};

/// The summary, in a file or on standard output.
pub struct Json<'a>(pub &'a JsonTarget);

impl Output for Json<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        match self.0 {
            JsonTarget::File(file) => files.prepare(folder_of(file)),
            JsonTarget::Stdout => Ok(()),
        }
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let mut clock = results.clock.clone();
        clock.lap("saving");
        let mut files = to.files.paths();
        if let JsonTarget::File(file) = self.0 {
            files.push(file.to_string_lossy().into_owned());
        }
        let json = results.summary(files, &clock)?.to_json()?;
        match self.0 {
            JsonTarget::File(file) => to.write(file, json.as_bytes()),
            JsonTarget::Stdout => {
                to.printed.extend(json.into_bytes());
                Ok(())
            }
        }
    }
}
