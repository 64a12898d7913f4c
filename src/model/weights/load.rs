//! Loading a state dict into the variables of a network.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor, nn};

use super::LISTED;
use crate::hooks::plain;
use crate::model::zoo::ZooEntry;
use crate::names::first_few;

/// Auxiliary classifiers of googlenet and inception_v3, which only training uses.
const AUXILIARY: [&str; 3] = ["aux1.", "aux2.", "AuxLogits."];

/// Replaces the variables of `entry`'s network in `vs` by the tensors of `state`, read from `file`.
/// Tensors are moved to `vs`'s device and not copied if they are there already.
///
/// Auxiliary classifiers and `num_batches_tracked` are ignored. Names of old densenet files
/// (`denselayer1.norm.1`) are read as today's (`denselayer1.norm1`).
///
/// # Errors
/// Returns an error with the first few names if other tensors are missing or surplus, or if
/// shapes differ.
pub fn load(
    vs: &nn::VarStore,
    entry: &ZooEntry,
    state: Vec<(String, Tensor)>,
    file: &Path,
) -> Result<()> {
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let mut state: BTreeMap<String, Tensor> = state
        .into_iter()
        .filter(|(name, _)| !is_ignored(name))
        .map(|(name, tensor)| (current_name(&name), tensor))
        .collect();

    let not_in = |names: &BTreeMap<String, Tensor>, others: &BTreeMap<String, Tensor>| {
        let missing = names.keys().filter(|name| !others.contains_key(*name));
        missing.cloned().collect::<Vec<String>>()
    };
    let differing = variables.iter().filter_map(|(name, variable)| {
        let (wanted, found) = (variable.size(), state.get(name)?.size());
        (wanted != found).then(|| format!("{name} is {found:?} instead of {wanted:?}"))
    });
    let differences: Vec<String> = [
        ("missing ", not_in(&variables, &state)),
        ("surplus ", not_in(&state, &variables)),
        ("", differing.collect()),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(difference, names)| format!("{difference}{}", first_few(&names, LISTED)))
    .collect();
    ensure!(
        differences.is_empty(),
        "{}: these are not weights of {}: {}",
        file.display(),
        entry.name,
        differences.join("; ")
    );

    let device = vs.device();
    tch::no_grad(|| -> Result<()> {
        for (name, mut variable) in variables {
            if let Some(tensor) = state.remove(&name) {
                let mut set = || {
                    let tensor = tensor.f_to_kind(Kind::Float)?.f_contiguous()?;
                    variable.f_set_data(&tensor.f_to_device(device)?)
                };
                set()
                    .map_err(plain)
                    .with_context(|| format!("{}: {name}", file.display()))?;
            }
        }
        Ok(())
    })
}

fn is_ignored(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || AUXILIARY.iter().any(|head| name.starts_with(head))
}

/// Today's name of a tensor. Older PyTorch allowed dots in module names: `norm1` was
/// `denselayer1.norm.1.weight`.
pub fn current_name(name: &str) -> String {
    if !name.contains(".denselayer") {
        return name.to_owned();
    }
    name.replace(".norm.1.", ".norm1.")
        .replace(".norm.2.", ".norm2.")
        .replace(".conv.1.", ".conv1.")
        .replace(".conv.2.", ".conv2.")
}
