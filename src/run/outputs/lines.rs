//! A line per image on standard output.

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::names::{escaped, escaped_bytes};

/// Path and top classes of each image, separated by tabs; names are escaped.
pub struct Lines;

impl Output for Lines {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        for (path, classes) in results.paths.iter().zip(&results.classes) {
            let path = path.as_os_str().as_encoded_bytes();
            to.printed.extend(escaped_bytes(path));
            for class in classes {
                to.printed.push(b'\t');
                to.printed.extend(escaped(&class.to_string()).into_bytes());
            }
            to.printed.push(b'\n');
        }
        Ok(())
    }
}
