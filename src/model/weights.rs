//! State dicts: reading them from every container in which they are handed around, and loading
//! them into a network of the zoo.

use super::zoo::ZooEntry;
use crate::hooks::{skip_init, tensor_of_floats};
use crate::threads::joined;
use anyhow::{Context, Result, anyhow, bail};
use pytorch_reader::{DType, PytorchReader};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// How many times its own length the tensors of a file may take together: some share their
/// numbers, or repeat one along a whole axis, which damage can make any length.
const MOST_SHARED: u64 = 8;

/// How many names an error lists before it only counts.
const NAMED: usize = 3;

/// The tensors of a file of weights, sorted by name, which are read only when they are asked for.
pub struct StateDict {
    file: PathBuf,
    /// Of the file, bytes.
    length: u64,
    tensors: Vec<(String, Stored)>,
}

impl StateDict {
    /// Opens `path`: `.safetensors` by its extension, `.ot` (libtorch's own container) likewise,
    /// everything else as what `torch.save` has written, old or new, without running the pickle
    /// code in it. A dict nested in a checkpoint and a `module.` prefix are unwrapped.
    ///
    /// # Errors
    /// A file that is missing, empty, no state dict, or a TorchScript archive.
    pub fn open(path: &Path) -> Result<StateDict> {
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
            "safetensors" => open_safetensors(path),
            "ot" => open_ot(path),
            _ => open_pytorch(path, about.len()),
        }
        .map_err(|e| anyhow!("{shown}: {e:#}"))?;
        if tensors.is_empty() {
            bail!("{shown}: holds no tensors, so it is not a state dict");
        }
        let mut tensors = unwrap_checkpoint(tensors);
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let file = path.to_path_buf();
        Ok(StateDict {
            file,
            length: about.len(),
            tensors,
        })
    }

    /// The number of classes for which the state dict was trained: the rows of `entry`'s last
    /// layer. `None` where it lacks that layer, so belongs to another network.
    pub fn classes(&self, entry: &ZooEntry) -> Option<i64> {
        let rows = self.last_weight(entry)?.shape().first().copied()?;
        (rows > 0).then_some(rows)
    }

    fn last_weight(&self, entry: &ZooEntry) -> Option<&Stored> {
        let weight = format!("{}.weight", entry.last_layer);
        let found = self.tensors.iter().find(|(name, _)| *name == weight)?;
        Some(&found.1)
    }

    /// All names and tensors, on the CPU, read in parallel; floating point values become
    /// float32.
    ///
    /// # Errors
    /// Where the file is cut short or damaged.
    pub fn read(self) -> Result<Vec<(String, Tensor)>> {
        let read = |(name, stored): (String, Stored)| match stored.read() {
            Ok(tensor) => Ok((name, tensor)),
            Err(reason) => bail!("{}: {name}: {reason:#}", self.file.display()),
        };
        self.tensors.into_par_iter().map(read).collect()
    }
}

/// One tensor of a file.
enum Stored {
    Pytorch(pytorch_reader::Tensor),
    Safetensors {
        file: Arc<File>,
        /// Of its first byte in the file.
        offset: u64,
        shape: Vec<usize>,
        kind: Kind,
    },
    InMemory(Tensor),
}

impl Stored {
    fn shape(&self) -> Vec<i64> {
        let extents = match self {
            Stored::Pytorch(stored) => stored.shape(),
            Stored::Safetensors { shape, .. } => shape,
            Stored::InMemory(tensor) => return tensor.size(),
        };
        extents.iter().map(|&extent| extent as i64).collect()
    }

    /// On the CPU; floating point as float32.
    fn read(self) -> Result<Tensor> {
        match self {
            Stored::InMemory(tensor) => Ok(float32(tensor)),
            Stored::Pytorch(stored) => {
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
                        bail!("it has the unsupported type {other:?}")
                    }
                };
                let bytes = stored
                    .read()
                    .map_err(|e| anyhow!("cannot be read to its end ({})", first_line(&e)))?;
                tensor_of(bytes, stored.shape(), kind)
            }
            Stored::Safetensors {
                file,
                offset,
                shape,
                kind,
            } => {
                let mut bytes = vec![0; length_of(&shape, kind)?];
                file.read_exact_at(&mut bytes, offset)?;
                tensor_of(bytes, &shape, kind)
            }
        }
    }
}

fn open_pytorch(path: &Path, length: u64) -> Result<Vec<(String, Stored)>> {
    if is_torchscript(path) {
        bail!("is a TorchScript archive, not a state dict; give it as --model FILE");
    }
    let reader = PytorchReader::new(path)
        .map_err(|e| anyhow!("is cut short or not a state dict ({})", first_line(&e)))?;
    let tensors = reader.into_tensors();
    let bytes = tensors
        .values()
        .map(|tensor| tensor.byte_len() as u64)
        .fold(0, u64::saturating_add);
    if bytes > length.saturating_mul(MOST_SHARED) {
        bail!("is damaged: its tensors would take {bytes} bytes, far more than the file");
    }
    let stored = |(name, tensor)| (name, Stored::Pytorch(tensor));
    Ok(tensors.into_iter().map(stored).collect())
}

/// Whether the file is a TorchScript archive: a zip like a state dict's, but with code.
pub fn is_torchscript(path: &Path) -> bool {
    entries(path)
        .iter()
        .any(|name| name.ends_with("/constants.pkl") || name.contains("/code/"))
}

/// A file as a zip archive, where it is one.
pub(super) fn archive(path: &Path) -> Option<ZipArchive<BufReader<File>>> {
    let mut file = File::open(path).ok()?;
    let mut start = [0; 2];
    file.read_exact(&mut start).ok()?;
    // An archive may begin with anything; for that, the whole file would be searched.
    if start != *b"PK" {
        return None;
    }
    ZipArchive::new(BufReader::new(file)).ok()
}

/// The names of a zip archive's entries; none where the file is no such archive.
pub(super) fn entries(path: &Path) -> Vec<String> {
    let Some(archive) = archive(path) else {
        return Vec::new();
    };
    let names = archive.file_names();
    names.map(str::to_string).collect()
}

fn open_safetensors(path: &Path) -> Result<Vec<(String, Stored)>> {
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
    let file = Arc::new(file);
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
        if length_of(&info.shape, kind)? != to - from {
            bail!("{name}: {}", does_not_fit(&info.shape, to - from));
        }
        let stored = Stored::Safetensors {
            file: file.clone(),
            offset: start + from as u64,
            shape: info.shape.clone(),
            kind,
        };
        tensors.push((name, stored));
    }
    Ok(tensors)
}

fn open_ot(path: &Path) -> Result<Vec<(String, Stored)>> {
    let loaded = Tensor::load_multi(path)
        .map_err(|e| anyhow!("libtorch cannot read it ({})", first_line(&e)))?;
    let stored = |(name, tensor): (String, Tensor)| (name, Stored::InMemory(tensor.detach()));
    Ok(loaded.into_iter().map(stored).collect())
}

/// The bytes that such a tensor takes.
fn length_of(shape: &[usize], kind: Kind) -> Result<usize> {
    let mut count = kind.elt_size_in_bytes();
    for &extent in shape {
        count = count.checked_mul(extent).context("its shape overflows")?;
    }
    Ok(count)
}

fn does_not_fit(shape: &[usize], bytes: usize) -> String {
    format!("its shape {shape:?} does not fit its {bytes} bytes")
}

fn tensor_of(bytes: Vec<u8>, shape: &[usize], kind: Kind) -> Result<Tensor> {
    if length_of(shape, kind)? != bytes.len() {
        bail!(does_not_fit(shape, bytes.len()));
    }
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    match kind {
        Kind::Float => tensor_of_floats(bytes, &shape),
        _ => Ok(float32(Tensor::f_from_data_size(&bytes, &shape, kind)?)),
    }
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
fn unwrap_checkpoint(mut tensors: Vec<(String, Stored)>) -> Vec<(String, Stored)> {
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

/// Puts the tensors of `state`, read from `file`, in place of the variables of `entry`'s network in
/// `vs`. They are taken over, not copied (but onto `vs`'s device).
///
/// Auxiliary classifiers and `num_batches_tracked` are ignored, and the names that old densenet
/// files use (`denselayer1.norm.1`) are read as today's (`denselayer1.norm1`).
///
/// # Errors
/// Other missing or surplus tensors, and shapes that differ: the first few are named.
pub fn load(
    vs: &nn::VarStore,
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
    })
}

/// The variables of `entry`'s network on `device` with the weights of `file`, and what `meanwhile`
/// makes of the module, `[N, 3, H, W]` to `[N, classes of the file]`, while the weights are read:
/// its variables are frozen and have no values yet.
///
/// # Errors
/// Those of [`StateDict::open`] and [`load`].
pub fn network<T>(
    entry: &ZooEntry,
    file: &Path,
    device: Device,
    meanwhile: impl FnOnce(Box<dyn ModuleT>) -> T,
) -> Result<(nn::VarStore, T)> {
    let state = StateDict::open(file)?;
    let Some(classes) = state.classes(entry) else {
        let names: Vec<&String> = state.tensors.iter().map(|(name, _)| name).collect();
        bail!(
            "{}: these are not weights of {}: missing {}.weight; it holds {}",
            file.display(),
            entry.name,
            entry.last_layer,
            first_few(&names)
        );
    };
    // Before the module is built for so many classes.
    let numbers = |stored: &Stored| stored.shape().iter().map(|&n| n as u64).product::<u64>();
    if state
        .last_weight(entry)
        .is_some_and(|stored| numbers(stored) > state.length)
    {
        bail!(
            "{}: is cut short or damaged: its tensor {}.weight would be larger than the file",
            file.display(),
            entry.last_layer
        );
    }
    let mut vs = nn::VarStore::new(device);
    let (made, state) = std::thread::scope(|scope| {
        let read = scope.spawn(|| state.read());
        let module = skip_init(|| entry.build(&vs.root(), classes));
        vs.freeze();
        (meanwhile(module), joined(read))
    });
    load(&vs, entry, state?, file)?;
    Ok((vs, made))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// `new.pth`, its `fc.bias` as one number that is repeated so often.
    fn repeated(times: u32) -> tempfile::NamedTempFile {
        let mut given = archive(Path::new("tests/data/state_dicts/new.pth")).unwrap();
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
    fn a_small_file_takes_little_memory() {
        let many = repeated(1 << 30);
        let error = StateDict::open(many.path()).err().unwrap().to_string();
        assert!(error.contains("far more than the file"), "{error}");
        let few = repeated(100);
        let tensors = StateDict::open(few.path()).unwrap().read().unwrap();
        let bias = tensors.iter().find(|(name, _)| name == "fc.bias").unwrap();
        assert_eq!(bias.1.size(), [100]);
    }
}
