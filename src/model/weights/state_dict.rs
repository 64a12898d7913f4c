//! The tensors of a file of weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use super::LISTED;
use super::formats::{self, Stored};
use super::load::current_name;
use crate::hooks::skip_init;
use crate::model::zoo::ZooEntry;
use crate::names::first_few;
use crate::remarks::Remark;

/// Keys under which training scripts store the state dict. They need no remark.
const CHECKPOINT_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Wrappers around a network or a part of it: `torch.nn.DataParallel`, `torch.compile`. No
/// module in the zoo has such a name.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// The tensors of a file of weights, sorted by name. Their values are read on demand.
pub struct StateDict {
    file: PathBuf,
    /// The length of the file, bytes.
    length: u64,
    tensors: Vec<(String, Stored)>,
    /// The full names of those whose wrappers were left out.
    full_names: BTreeMap<String, String>,
}

impl StateDict {
    /// Opens `path`: `.safetensors` and `.ot` (libtorch's own format) by extension, any other
    /// file as written by `torch.save`, old or new, without running its pickle code. Wrappers
    /// (`module.`) are left out of the names.
    ///
    /// # Errors
    /// Returns an error if the file is missing, empty, not a state dict, or a TorchScript
    /// archive.
    pub fn open(path: &Path) -> Result<StateDict> {
        let shown = path.display();
        let about = std::fs::metadata(path).map_err(|e| anyhow!("{shown}: cannot be read: {e}"))?;
        ensure!(
            !about.is_dir(),
            "{shown}: is a folder, not a file of weights"
        );
        ensure!(about.len() > 0, "{shown}: the file is empty");
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let tensors = match extension.to_ascii_lowercase().as_str() {
            "safetensors" => formats::open_safetensors(path),
            "ot" => formats::open_ot(path),
            _ => formats::open_pytorch(path, about.len()),
        };
        let (mut tensors, full_names) = unwrapped(tensors.with_context(|| shown.to_string())?);
        ensure!(
            !tensors.is_empty(),
            "{shown}: holds no tensors, so it is not a state dict"
        );
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(StateDict {
            file: path.to_path_buf(),
            length: about.len(),
            tensors,
            full_names,
        })
    }

    /// Selects the tensors of `entry`'s network, which may have a common prefix (`backbone.`)
    /// beside others: an optimiser's state, or a loss. Removes the prefix, and says so unless it
    /// is a usual one of checkpoints. A wrapper of the network (`module.`) is such a prefix. If no prefix has all tensors, the one with the most stays.
    ///
    /// # Errors
    /// Returns an error that names the prefixes if several have all tensors.
    pub fn select(&mut self, entry: &ZooEntry) -> Result<Option<Remark>> {
        self.select_names(entry.name, &names_of(entry), entry.last_layer)
    }

    /// As [`StateDict::select`], for a network whose tensors have the names `wanted`, among them
    /// the weight of `last_layer`.
    ///
    /// # Errors
    /// Returns those of [`StateDict::select`].
    pub fn select_names(
        &mut self,
        network: &str,
        wanted: &[String],
        last_layer: &str,
    ) -> Result<Option<Remark>> {
        let shown = self.file.display();
        let last = format!("{last_layer}.weight");
        let held: BTreeSet<String> = self
            .tensors
            .iter()
            .map(|(name, _)| current_name(name))
            .collect();
        let count = |prefix: &str| {
            let held = |name: &&String| held.contains(&format!("{prefix}{name}"));
            wanted.iter().filter(held).count()
        };
        let prefixes = held.iter().filter_map(|name| name.strip_suffix(&last));
        let prefixes: Vec<&str> = prefixes
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        let complete: Vec<&str> = prefixes
            .iter()
            .copied()
            .filter(|prefix| count(prefix) == wanted.len())
            .collect();
        let (averages, own): (Vec<&str>, Vec<&str>) =
            complete.iter().partition(|prefix| is_average(prefix));
        let chosen = match (own.as_slice(), averages.as_slice()) {
            ([one], _) | ([], [one]) => *one,
            ([], []) => match prefixes.iter().max_by_key(|prefix| count(prefix)) {
                Some(best) => best,
                None => return Ok(None),
            },
            _ => {
                let named: Vec<String> =
                    complete.iter().map(|prefix| shown_prefix(prefix)).collect();
                bail!(
                    "{shown}: it holds several sets of weights of {network}: {}; save one of them alone",
                    first_few(&named, LISTED)
                )
            }
        };
        let left_out = averages.first().filter(|average| **average != chosen);
        let mut usual = chosen.split_terminator('.');
        let text = match (usual.all(|part| CHECKPOINT_KEYS.contains(&part)), left_out) {
            (true, None) => None,
            (_, Some(average)) => Some(format!(
                "{shown}: the weights {} are taken, not the averaged ones {}",
                shown_prefix(chosen),
                shown_prefix(average)
            )),
            (false, None) => Some(format!(
                "{shown}: the weights {} are taken",
                shown_prefix(chosen)
            )),
        };
        let chosen = chosen.to_string();
        let of_network: BTreeSet<String> = wanted
            .iter()
            .map(|name| format!("{chosen}{name}"))
            .collect();
        let wrapper = self.wrapper(&of_network, &format!("{chosen}{last}"), &last);
        let mut tensors: Vec<(String, Stored)> = std::mem::take(&mut self.tensors)
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&chosen)?.to_owned(), tensor)))
            .collect();
        let found = tensors.len();
        if wrapper.is_some() {
            let is_wrapped = |name: &str| self.full_names.contains_key(&format!("{chosen}{name}"));
            tensors.retain(|(name, _)| is_wrapped(name));
        }
        let has_others = tensors.len() < found;
        self.tensors = tensors;
        let text = text.or_else(|| {
            let wrapper = wrapper.filter(|_| has_others)?;
            Some(format!(
                "{shown}: the weights {} are taken",
                shown_prefix(&wrapper)
            ))
        });
        Ok(text.map(Remark::note))
    }

    /// The prefix of a network all of whose tensors `of_network` were wrapped, from the full name
    /// of its tensor `one`, which ends in `last`.
    fn wrapper(&self, of_network: &BTreeSet<String>, one: &str, last: &str) -> Option<String> {
        let wrapped: BTreeSet<String> = self
            .full_names
            .keys()
            .map(|name| current_name(name))
            .collect();
        let full = self.full_names.get(one)?;
        let prefix = full.strip_suffix(last).unwrap_or(full);
        of_network.is_subset(&wrapped).then(|| prefix.to_string())
    }

    /// The number of classes, from the rows of `entry`'s last layer. `None` if that layer is
    /// missing: the state dict belongs to another network.
    pub fn classes(&self, entry: &ZooEntry) -> Option<i64> {
        let rows = self.last_weight(entry)?.shape().first().copied()?;
        (rows > 0).then_some(rows)
    }

    /// Whether the weight of `entry`'s last layer has at most as many values as the file has
    /// bytes.
    pub(super) fn fits_its_file(&self, entry: &ZooEntry) -> bool {
        let values = |stored: &Stored| stored.shape().iter().map(|&n| n as u64).product::<u64>();
        self.last_weight(entry).map_or(0, values) <= self.length
    }

    fn last_weight(&self, entry: &ZooEntry) -> Option<&Stored> {
        let weight = format!("{}.weight", entry.last_layer);
        let found = self.tensors.iter().find(|(name, _)| *name == weight)?;
        Some(&found.1)
    }

    pub(super) fn names(&self) -> Vec<&String> {
        self.tensors.iter().map(|(name, _)| name).collect()
    }

    /// Reads all tensors in parallel, to the CPU; floating point values become float32.
    ///
    /// # Errors
    /// Returns an error if the file is cut short or damaged.
    pub fn read(self) -> Result<Vec<(String, Tensor)>> {
        let read = |(name, stored): (String, Stored)| {
            let tensor = stored.read();
            let tensor = tensor.with_context(|| format!("{}: {name}", self.file.display()))?;
            Ok((name, tensor))
        };
        self.tensors.into_par_iter().map(read).collect()
    }
}

/// The names without [`WRAPPERS`], unless two would then be equal, and the full names of those
/// that had one.
fn unwrapped(tensors: Vec<(String, Stored)>) -> (Vec<(String, Stored)>, BTreeMap<String, String>) {
    let bare = |name: &String| -> String {
        let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
        parts.collect::<Vec<_>>().join(".")
    };
    let names: BTreeSet<String> = tensors.iter().map(|(name, _)| bare(name)).collect();
    if names.len() < tensors.len() {
        return (tensors, BTreeMap::new());
    }
    let mut full_names = BTreeMap::new();
    let mut renamed = Vec::new();
    for (name, tensor) in tensors {
        let short = bare(&name);
        if short != name {
            full_names.insert(short.clone(), name);
        }
        renamed.push((short, tensor));
    }
    (renamed, full_names)
}

/// The names of the tensors of `entry`'s network.
fn names_of(entry: &ZooEntry) -> Vec<String> {
    let vs = VarStore::new(Device::Cpu);
    let _network = skip_init(|| entry.build(&vs.root(), 1));
    vs.variables().into_keys().collect()
}

fn shown_prefix(prefix: &str) -> String {
    match prefix {
        "" => "without a prefix".to_string(),
        _ => format!("under '{prefix}'"),
    }
}

/// Whether the prefix is of a moving average of the weights, which training keeps beside them.
fn is_average(prefix: &str) -> bool {
    let words = prefix.split(['.', '_']);
    words.into_iter().any(|word| matches!(word, "ema" | "swa"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// `new.pth` with one number, repeated `times` times (stride 0), as `fc.bias`.
    fn repeated(times: u32) -> tempfile::NamedTempFile {
        let mut given =
            crate::model::archive::open(Path::new("tests/data/state_dicts/new.pth")).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut made = zip::ZipWriter::new(&mut file);
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        for index in 0..given.len() {
            let mut entry = given.by_index(index).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if entry.name().ends_with("/data.pkl") {
                // The shape (2,), its place in the memo, and the stride (1,).
                let old = b"K\x02\x85q\x11K\x01\x85";
                let at = bytes.windows(old.len()).position(|found| found == old);
                let [a, b, c, d] = times.to_le_bytes();
                let new = [b'J', a, b, c, d, 0x85, b'q', 0x11, b'K', 0, 0x85];
                bytes.splice(at.unwrap()..at.unwrap() + old.len(), new);
            }
            made.start_file(entry.name(), stored).unwrap();
            made.write_all(&bytes).unwrap();
        }
        made.finish().unwrap();
        file
    }

    #[test]
    fn tensors_far_larger_than_their_file_are_refused() {
        let many = repeated(1 << 30);
        let error = format!("{:#}", StateDict::open(many.path()).err().unwrap());
        assert!(error.contains("far more than the file"), "{error}");
        let few = repeated(100);
        let tensors = StateDict::open(few.path()).unwrap().read().unwrap();
        let bias = tensors.iter().find(|(name, _)| name == "fc.bias").unwrap();
        assert_eq!(bias.1.size(), [100]);
    }
}
