//! State dicts: reading them from every container in which they are handed around, and loading
//! them into a network of the zoo.

use super::zoo::ZooEntry;
use anyhow::{Context, Result, anyhow, bail};
use pytorch_reader::{DType, PytorchReader};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use tch::nn::{self, ModuleT};
use tch::{Device, Kind, Tensor};
use zip::ZipArchive;

/// Keys under which training scripts nest the state dict of their checkpoints, and wrappers
/// the parameters of the network inside them (the last: `torch.nn.DataParallel`).
const CHECKPOINT_KEYS: [&str; 4] = ["state_dict.", "model_state_dict.", "model.", "module."];

/// Auxiliary classifiers of googlenet and inception_v3: used in training only.
const AUXILIARY: [&str; 3] = ["aux1.", "aux2.", "AuxLogits."];

/// The longest header that the safetensors format allows, in bytes.
const SAFETENSORS_HEADER: u64 = 100_000_000;

/// How many names an error lists before it only counts.
const NAMED: usize = 3;

/// The names and tensors in a file of weights, sorted by name, on the CPU: `.safetensors` by its
/// extension, `.ot` (libtorch's own container) likewise, everything else as what `torch.save`
/// has written, old or new, without running the pickle code in it. A dict nested in a checkpoint
/// and a `module.` prefix are unwrapped; floating point values become float32.
///
/// # Errors
/// A file that is missing, empty, cut short, no state dict, or a TorchScript archive.
pub fn read_state_dict(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|e| anyhow!("{shown}: cannot be read: {e}"))?;
    if about.is_dir() {
        bail!("{shown}: is a folder, not a file of weights");
    }
    if about.len() == 0 {
        bail!("{shown}: the file is empty");
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let tensors = match extension.to_ascii_lowercase().as_str() {
        "safetensors" => read_safetensors(path),
        "ot" => read_ot(path),
        _ => read_pytorch(path),
    }
    .map_err(|e| anyhow!("{shown}: {e:#}"))?;
    if tensors.is_empty() {
        bail!("{shown}: holds no tensors, so it is not a state dict");
    }
    let mut tensors = unwrap_checkpoint(tensors);
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tensors)
}

fn read_pytorch(path: &Path) -> Result<Vec<(String, Tensor)>> {
    if is_torchscript(path) {
        bail!("is a TorchScript archive, not a state dict; give it as --model FILE");
    }
    let reader = PytorchReader::new(path)
        .map_err(|e| anyhow!("is cut short or not a state dict ({})", first_line(&e)))?;
    // By name, so that one tensor at a time is read and the bytes are dropped again.
    let mut found: Vec<_> = reader.into_tensors().into_iter().collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut tensors = Vec::with_capacity(found.len());
    for (name, stored) in found {
        let kind = match stored.dtype() {
            DType::F64 => Kind::Double,
            DType::F32 => Kind::Float,
            DType::F16 => Kind::Half,
            DType::BF16 => Kind::BFloat16,
            DType::I64 => Kind::Int64,
            DType::I32 => Kind::Int,
            DType::I16 => Kind::Int16,
            DType::I8 => Kind::Int8,
            DType::U8 => Kind::Uint8,
            DType::Bool => Kind::Bool,
            other @ (DType::U64 | DType::U32 | DType::U16) => {
                bail!("tensor {name} has the unsupported type {other:?}")
            }
        };
        let bytes = stored
            .read()
            .map_err(|e| anyhow!("cannot be read to its end ({})", first_line(&e)))?;
        let tensor = tensor_of(&bytes, stored.shape(), kind).with_context(|| name.clone())?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// Whether the file is a TorchScript archive: a zip like a state dict's, but with code.
pub fn is_torchscript(path: &Path) -> bool {
    entries(path)
        .iter()
        .any(|name| name.ends_with("/constants.pkl") || name.contains("/code/"))
}

/// A file as a zip archive, where it is one.
pub(super) fn archive(path: &Path) -> Option<ZipArchive<BufReader<File>>> {
    // Where the archive begins is known of what torch writes; to find it out, the
    // whole file is read.
    let begins = zip::read::Config {
        archive_offset: zip::read::ArchiveOffset::Known(0),
    };
    let open = || Some(BufReader::new(File::open(path).ok()?));
    let known = ZipArchive::with_config(begins, open()?).ok();
    known.or_else(|| ZipArchive::new(open()?).ok())
}

/// The names of a zip archive's entries; none where the file is no such archive.
pub(super) fn entries(path: &Path) -> Vec<String> {
    let Some(archive) = archive(path) else {
        return Vec::new();
    };
    let names = archive.file_names().flatten();
    names.map(|name| name.to_string()).collect()
}

fn read_safetensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let damaged = || anyhow!("is cut short or no safetensors file");
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| damaged())?;
    let header_size = u64::from_le_bytes(size);
    if header_size > SAFETENSORS_HEADER || header_size > length - 8 {
        return Err(damaged());
    }
    let mut header = vec![0; header_size as usize];
    file.read_exact(&mut header).map_err(|_| damaged())?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| anyhow!("has a damaged safetensors header ({})", first_line(&e)))?;
    let start = 8 + header_size;
    if start + metadata.data_len() as u64 != length {
        return Err(damaged());
    }
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).with_context(|| name.clone())?;
        let kind = match info.dtype {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::I16 => Kind::Int16,
            Dtype::I8 => Kind::Int8,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => bail!("tensor {name} has the unsupported type {other:?}"),
        };
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        file.seek(SeekFrom::Start(start + from as u64))?;
        file.read_exact(&mut bytes)?;
        let tensor = tensor_of(&bytes, &info.shape, kind).with_context(|| name.clone())?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn read_ot(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let loaded = Tensor::load_multi(path)
        .map_err(|e| anyhow!("libtorch cannot read it ({})", first_line(&e)))?;
    Ok(loaded
        .into_iter()
        .map(|(name, tensor)| (name, float32(tensor.detach())))
        .collect())
}

fn tensor_of(bytes: &[u8], shape: &[usize], kind: Kind) -> Result<Tensor> {
    let mut count = kind.elt_size_in_bytes();
    for &extent in shape {
        count = count.checked_mul(extent).context("its shape overflows")?;
    }
    if count != bytes.len() {
        bail!("its shape {shape:?} does not fit its {} bytes", bytes.len());
    }
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    Ok(float32(Tensor::f_from_data_size(bytes, &shape, kind)?))
}

/// Floating point as float32; integers (counters) as they are.
fn float32(tensor: Tensor) -> Tensor {
    match tensor.kind() {
        Kind::Half | Kind::BFloat16 | Kind::Double => tensor.to_kind(Kind::Float),
        _ => tensor,
    }
}

/// The first line of an error: libtorch's go on with a C++ backtrace.
fn first_line(error: &impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("").trim().to_owned()
}

/// Where tensors lie under one of [`CHECKPOINT_KEYS`], those alone and without it: what lies
/// beside them is an optimiser's state. No network of the zoo has a module of such a name.
fn unwrap_checkpoint(mut tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    while let Some(key) = CHECKPOINT_KEYS
        .iter()
        .find(|key| tensors.iter().any(|(name, _)| name.starts_with(*key)))
    {
        tensors = tensors
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(key)?.to_owned(), tensor)))
            .collect();
    }
    tensors
}

/// The number of classes for which the state dict was trained: the rows of `entry`'s last layer.
/// `None` where it lacks that layer, so belongs to another network.
pub fn classes(entry: &ZooEntry, state: &[(String, Tensor)]) -> Option<i64> {
    let weight = format!("{}.weight", entry.last_layer);
    let (_, tensor) = state.iter().find(|(name, _)| *name == weight)?;
    let rows = tensor.size().first().copied()?;
    (rows > 0).then_some(rows)
}

/// Puts the tensors of `state`, read from `file`, in place of the variables of `entry`'s network in
/// `vs`, and freezes them. They are taken over, not copied (but onto `vs`'s device).
///
/// Auxiliary classifiers and `num_batches_tracked` are ignored, and the names that old densenet
/// files use (`denselayer1.norm.1`) are read as today's (`denselayer1.norm1`).
///
/// # Errors
/// Other missing or surplus tensors, and shapes that differ: the first few are named.
pub fn load(
    vs: &mut nn::VarStore,
    entry: &ZooEntry,
    state: Vec<(String, Tensor)>,
    file: &Path,
) -> Result<()> {
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let mut state: BTreeMap<String, Tensor> = state
        .into_iter()
        .filter(|(name, _)| !ignored(name))
        .map(|(name, tensor)| (current_name(name), tensor))
        .collect();

    let missing: Vec<&String> = variables
        .keys()
        .filter(|name| !state.contains_key(*name))
        .collect();
    let surplus: Vec<&String> = state
        .keys()
        .filter(|name| !variables.contains_key(*name))
        .collect();
    let differing: Vec<String> = variables
        .iter()
        .filter_map(|(name, variable)| {
            let (wanted, found) = (variable.size(), state.get(name)?.size());
            (wanted != found).then(|| format!("{name} is {found:?} instead of {wanted:?}"))
        })
        .collect();
    let mut complaints = Vec::new();
    if !missing.is_empty() {
        complaints.push(format!("missing {}", first_few(&missing)));
    }
    if !surplus.is_empty() {
        complaints.push(format!("surplus {}", first_few(&surplus)));
    }
    if !differing.is_empty() {
        complaints.push(first_few(&differing));
    }
    if !complaints.is_empty() {
        bail!(
            "{}: these are not weights of {}: {}",
            file.display(),
            entry.name,
            complaints.join("; ")
        );
    }

    let device = vs.device();
    tch::no_grad(|| -> Result<()> {
        for (name, mut variable) in variables {
            if let Some(tensor) = state.remove(&name) {
                let tensor = tensor.to_device(device).to_kind(Kind::Float).contiguous();
                variable
                    .f_set_data(&tensor)
                    .map_err(|e| anyhow!("{}: {name}: {}", file.display(), first_line(&e)))?;
            }
        }
        Ok(())
    })?;
    vs.freeze();
    Ok(())
}

/// The network of `entry` with the weights of `file`, ready to evaluate on `device`: the store
/// that owns its variables, and the module, `[N, 3, H, W]` to `[N, classes of the file]`.
///
/// # Errors
/// Those of [`read_state_dict`] and [`load`].
pub fn network(
    entry: &ZooEntry,
    file: &Path,
    device: Device,
) -> Result<(nn::VarStore, Box<dyn ModuleT>)> {
    let state = read_state_dict(file)?;
    let Some(classes) = classes(entry, &state) else {
        bail!(
            "{}: these are not weights of {}: missing {}.weight; it holds {}",
            file.display(),
            entry.name,
            entry.last_layer,
            first_few(&state.iter().map(|(name, _)| name).collect::<Vec<_>>())
        );
    };
    let mut vs = nn::VarStore::new(device);
    let module = entry.build(&vs.root(), classes);
    load(&mut vs, entry, state, file)?;
    Ok((vs, module))
}

fn ignored(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || AUXILIARY.iter().any(|head| name.starts_with(head))
}

/// Older torch allowed dots in module names: `denselayer1.norm.1.weight` is `norm1` today.
fn current_name(name: String) -> String {
    if !name.contains(".denselayer") {
        return name;
    }
    name.replace(".norm.1.", ".norm1.")
        .replace(".norm.2.", ".norm2.")
        .replace(".conv.1.", ".conv1.")
        .replace(".conv.2.", ".conv2.")
}

fn first_few<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let rest = names.len().saturating_sub(NAMED);
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}
