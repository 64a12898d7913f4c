//! Weights: reading state dicts of every common format, and loading them into a network of the
//! zoo.

mod formats;
mod load;
mod state_dict;

use std::path::Path;
use std::thread;

use anyhow::{Result, bail, ensure};
use tch::Device;
use tch::nn::{self, ModuleT};

use super::zoo::ZooEntry;
use crate::hooks::skip_init;
use crate::names::first_few;
use crate::remarks::Remark;
use crate::threads::or_resume;

pub use super::archive::is_torchscript;
pub use load::load;
pub use state_dict::StateDict;

/// The number of names that an error lists.
const LISTED: usize = 3;

/// Builds the network of `entry` on `device` and loads the weights of `file`. Returns its variables,
/// what was assumed of the file, and the result of `meanwhile`, which gets the module (`[N, 3, H, W]` to
/// `[N, classes of the file]`) while the weights are read: its variables are frozen and have no
/// values yet.
///
/// # Errors
/// Returns the errors of [`StateDict::open`], [`StateDict::select`] and [`load`].
pub fn network<T>(
    entry: &ZooEntry,
    file: &Path,
    device: Device,
    meanwhile: impl FnOnce(Box<dyn ModuleT>) -> T,
) -> Result<(nn::VarStore, T, Option<Remark>)> {
    let shown = file.display();
    let mut state = StateDict::open(file)?;
    let remark = state.select(entry)?;
    let Some(classes) = state.classes(entry) else {
        bail!(
            "{shown}: these are not weights of {}: missing {}.weight; it holds {}",
            entry.name,
            entry.last_layer,
            first_few(&state.names(), LISTED)
        );
    };
    // Checked before the module is built for so many classes.
    ensure!(
        state.fits_its_file(entry),
        "{shown}: is cut short or damaged: its tensor {}.weight would be larger than the file",
        entry.last_layer
    );
    let mut vs = nn::VarStore::new(device);
    let (made, state) = thread::scope(|scope| {
        let read = scope.spawn(|| state.read());
        let module = skip_init(|| entry.build(&vs.root(), classes));
        vs.freeze();
        (meanwhile(module), or_resume(read.join()))
    });
    load(&vs, entry, state?, file)?;
    Ok((vs, made, remark))
}
