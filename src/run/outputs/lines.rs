//! A line per image on standard output.

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::names::{escaped, escaped_bytes};
use crate::truth::TrueClass;

/// Path and top classes of each image, and last its true class as `truth: NAME` if it is known,
/// separated by tabs; names are escaped.
pub struct Lines;

impl Output for Lines {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let mut own = Vec::new();
        let images = results.paths.iter().zip(&results.classes);
        for ((path, classes), truth) in images.zip(&results.truths) {
            let path = path.as_os_str().as_encoded_bytes();
            own.extend(escaped_bytes(path));
            for class in classes {
                own.push(b'\t');
                own.extend(escaped(&class.to_string()).into_bytes());
            }
            if let Some(TrueClass { name, .. }) = truth {
                let column = format!("\ttruth: {}", escaped(name));
                own.extend(column.into_bytes());
            }
            own.push(b'\n');
        }
        to.printed.extend(results.group.gather(own)?.concat());
        Ok(())
    }
}
