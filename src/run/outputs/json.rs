//! The summary as JSON.

use std::io::Write;

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::options::JsonTarget;
use crate::output::{Outputs, folder_of};
use crate::summary::Ending;

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
        let seconds = clock.stages().to_vec();
        let (summary, ending) = (results.summary(), Ending { files, seconds });
        let colours = results.maps.colours()?;
        let images = (0..results.paths.len()).map(|image| results.image_summary(image, &colours));
        let write = |out: &mut dyn Write| match self.0.is_lines() {
            true => {
                let lines = images.map(|image| image.to_line());
                summary.write_lines(&ending, results.paths.len(), lines, out)
            }
            false => summary.write(&ending, images.map(|image| image.to_entry()), out),
        };
        match self.0 {
            JsonTarget::File(file) => to.files.write(file, |out| write(out)),
            JsonTarget::Stdout => write(&mut to.printed),
        }
    }
}
