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
        let files = results.group.gather_values(to.files.paths())?;
        let mut files: Vec<String> = files.into_iter().flatten().collect();
        if let JsonTarget::File(file) = self.0 {
            files.push(file.to_string_lossy().into_owned());
        }
        let seconds = clock.stages().to_vec();
        let (summary, ending) = (results.summary(), Ending { files, seconds });
        let colours = results.maps.colours()?;
        let images = (0..results.paths.len()).map(|image| results.image_summary(image, &colours));
        let images = images.map(|image| match self.0.is_lines() {
            true => image.to_line(),
            false => image.to_entry(),
        });
        let images: Box<dyn Iterator<Item = Result<String>>> = match results.group.is_joint() {
            false => Box::new(images),
            true => {
                let all: Vec<Vec<String>> = results
                    .group
                    .gather_values(images.collect::<Result<_>>()?)?;
                Box::new(all.into_iter().flatten().map(Ok))
            }
        };
        if !results.group.is_first() {
            return Ok(());
        }
        let count = results.maps.numbers.all;
        let write = |out: &mut dyn Write| match self.0.is_lines() {
            true => summary.write_lines(&ending, count, images, out),
            false => summary.write(&ending, images, out),
        };
        match self.0 {
            JsonTarget::File(file) => to.files.write(file, |out| write(out)),
            JsonTarget::Stdout => write(&mut to.printed),
        }
    }
}
