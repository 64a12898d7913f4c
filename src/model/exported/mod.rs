//! Files of `torch.export.save`: the operators of a network and its weights, without code.

mod archive;
mod raise;
mod schema;
mod translate;
mod weights;

use std::path::Path;

use anyhow::{Context, Result};
use tch::Device;

use crate::hooks::{Builder, NetworkGraph};
use crate::names::within;

pub use archive::holds_program;

/// The longest name that a message shows, in characters.
const LONGEST_NAME: usize = 60;

/// Loads a file for which [`holds_program`] holds.
///
/// # Errors
/// Returns one line with the file and the reason if it is damaged, has an operator that prism does
/// not run, or takes something else than a batch of images.
pub fn load(file: &Path, device: Device) -> Result<NetworkGraph> {
    let show = file.display().to_string();
    build(&show, file, device).context(show.clone())
}

fn build(origin: &str, file: &Path, device: Device) -> Result<NetworkGraph> {
    let mut archive = archive::Archive::open(file)?;
    let program = archive.program()?;
    let mut builder = Builder::new(device)?;
    let outputs = translate::translate(&program, &mut archive.weights()?, &mut builder)?;
    NetworkGraph::built(origin.to_string(), builder, &outputs)
}

/// A name in a file, for a message.
fn shown(name: &str) -> String {
    within(name, LONGEST_NAME)
}
