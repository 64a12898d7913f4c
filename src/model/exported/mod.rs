//! Files of `torch.export.save`: the operators of a network and its weights, without code.

mod archive;
mod input;
mod outputs;
mod raise;
mod schema;
mod targets;
mod translate;
mod weights;

use std::path::Path;

use anyhow::{Context, Result};
use tch::Device;

use crate::hooks::{Builder, NetworkGraph};
use crate::names::within;
use crate::remarks::Remark;
use crate::size::Size;

pub use archive::holds_program;

/// The longest name that a message shows, in characters.
const LONGEST_NAME: usize = 60;

/// The network of a file.
pub struct Loaded {
    /// Its operators and weights.
    pub graph: NetworkGraph,
    /// The size of images that it has built in.
    pub size: Option<Size>,
    /// What is computed in another way than in PyTorch.
    pub remarks: Vec<Remark>,
}

/// Loads a file for which [`holds_program`] holds.
///
/// # Errors
/// Returns one line with the file and the reason if it is damaged, has an operator that prism does
/// not run, or takes something else than a batch of images.
pub fn load(file: &Path, device: Device) -> Result<Loaded> {
    let show = file.display().to_string();
    build(&show, file, device).context(show.clone())
}

fn build(origin: &str, file: &Path, device: Device) -> Result<Loaded> {
    let mut archive = archive::Archive::open(file)?;
    let program = archive.program()?;
    let mut builder = Builder::new(device)?;
    let translated = translate::translate(&program, &mut archive.weights()?, &mut builder)?;
    let (outputs, size) = (&translated.outputs, translated.size);
    Ok(Loaded {
        graph: NetworkGraph::built(origin.to_string(), builder, outputs, size)?,
        size,
        remarks: translated.remarks,
    })
}

/// A name in a file, for a message, whose line is escaped as a whole.
fn shown(name: &str) -> String {
    within(name, LONGEST_NAME)
}
