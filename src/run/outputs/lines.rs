//! A line per image on standard output.

use std::io::Write;

use anyhow::Result;

use super::{Destination, Output, Results};

/// Path and top classes of each image, separated by tabs.
pub struct Lines;

impl Output for Lines {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        for (path, classes) in results.paths.iter().zip(&results.classes) {
            to.printed.extend(path.as_os_str().as_encoded_bytes());
            for class in classes {
                write!(to.printed, "\t{class}")?;
            }
            to.printed.push(b'\n');
        }
        Ok(())
    }
}
