//! The colours of each image, for `prism som`.

use std::path::PathBuf;

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::cluster::{pickle, rows_of};
use crate::output::{Outputs, folder_of};

/// The rows of the cluster file with that path.
pub struct Clusters(pub PathBuf);

impl Output for Clusters {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(&self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let colours = results.maps.colours()?;
        let images = results.paths.iter().zip(&results.classes).zip(&colours);
        let images = images.map(|((path, classes), colours)| {
            let class = classes.first().map_or(0, |class| class.id);
            let colours: Vec<u32> = colours.codes().collect();
            (String::from(path.to_string_lossy()), class, colours)
        });
        let truths = results
            .truths
            .iter()
            .map(|truth| truth.as_ref().map(|truth| truth.id));
        let own = (images.collect::<Vec<_>>(), truths.collect::<Vec<_>>());
        let all = results.group.gather_values(own)?;
        if !results.group.is_first() {
            return Ok(());
        }
        let (images, truths): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let mut rows = rows_of(images.into_iter().flatten().collect());
        for (row, truth) in rows.iter_mut().zip(truths.into_iter().flatten()) {
            row.truth = truth;
        }
        to.files.write(&self.0, |out| pickle::write(&rows, out))
    }
}
