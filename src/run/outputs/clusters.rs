//! The colours of each image, for `prism som`.

use std::path::PathBuf;

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::cluster::{Row, pickle};
use crate::map::ColourSet;
use crate::output::{Outputs, folder_of};

/// What `prism som` knows of each image.
///
/// # Errors
/// Returns an error if libtorch fails.
fn rows(results: &Results) -> Result<Vec<Row>> {
    let colours = results.maps.colours()?;
    let any = ColourSet::any(&colours);
    let images = results.paths.iter().zip(&results.classes).zip(&colours);
    let rows = images.map(|((path, classes), colours)| Row {
        path: path.to_string_lossy().into(),
        class: classes.first().map_or(0, |class| class.id),
        features: any.codes().map(|code| colours.contains(code)).collect(),
    });
    Ok(rows.collect())
}

/// The rows of the cluster file with that path.
pub struct Clusters(pub PathBuf);

impl Output for Clusters {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(&self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let rows = rows(results)?;
        to.files.write(&self.0, |out| pickle::write(&rows, out))
    }
}
