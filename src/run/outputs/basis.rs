//! The basis, for the same colours in later runs.

use std::path::Path;

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::arrays::write_basis;
use crate::output::{Outputs, folder_of};

/// The basis in the file with that path.
pub struct SavedBasis<'a>(pub &'a Path);

impl Output for SavedBasis<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        if !results.group.is_first() {
            return Ok(());
        }
        let bytes = write_basis(&results.maps.basis, &results.basis_of)?;
        to.write(self.0, &bytes)
    }
}
