//! A network of any source, ready to be hooked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Device, Tensor};

use super::locate::{self, Located};
use super::metadata::ModelMetadata;
use super::preprocessing::Preprocessing;
use super::search_path::SearchPath;
use super::zoo::{self, ZooEntry};
use super::{archive, exported, onnx, weights};
use crate::convert::{Normalisation, rescaled};
use crate::error::{Hint, hinted, usage_hinted};
use crate::hooks::{HookedModel, Hooks, NetworkGraph, Precision, Trace};
use crate::labels::Labels;
use crate::notices::Notices;
use crate::options::{ComputeOptions, ModelOptions};
use crate::remarks::Remark;
use crate::settings::{Source, Sourced};
use crate::size::Size;

/// How to make a file of a network.
const HOW_TO_EXPORT: &str = "export the network with python -m prism_cnn.export, models/export.py in a clone, torch.export.save or torch.jit.trace";

/// How to make a file of a network of another library.
const HOW_TO_WRITE_ONNX: &str = "export the network as ONNX (in Keras with model.export(\"model.onnx\", format=\"onnx\"), from TensorFlow with tf2onnx)";

/// Loads a file that holds no code, for images of the size that is asked for.
type Load = fn(&Path, Device, Option<Size>) -> Result<exported::Loaded>;

/// A network as a graph, with the input that it expects.
#[derive(Debug)]
pub struct Network {
    /// Its name, or the stem of its file.
    pub name: String,
    /// How images become its input.
    pub preprocessing: Preprocessing,
    /// The names of its classes, if its file has them or the zoo knows them.
    pub labels: Option<Sourced<Labels>>,
    /// What was assumed of its file.
    pub remarks: Vec<Remark>,
    /// Its operators and weights. A hooked model has its own copy.
    pub graph: NetworkGraph,
}

impl Network {
    /// Finds and loads the network that `options` select.
    ///
    /// # Errors
    /// Returns an error with the file or network and a remedy if it cannot be found or read.
    pub fn load(
        options: &ModelOptions,
        compute: &ComputeOptions,
        notices: Notices,
    ) -> Result<Network> {
        if let Some(threads) = compute.threads {
            tch::set_num_threads(threads as i32);
            // Fails if the pool runs already; its size then stays.
            let _ = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global();
        }
        let device = compute.device.device()?;
        if compute.precision == Precision::F16 && device == Device::Cpu {
            let text = "float16 arithmetic is for GPUs, but the network would run on the CPU";
            return Err(usage_hinted(text, Hint::CpuPrecision));
        }
        if !compute.precision.is_native(device) {
            notices.warn(
                "this processor has no bfloat16 arithmetic: precision bf16 is slower than f32 here",
            );
        }
        let mut remarks = Vec::new();
        let (name, graph, metadata, labels, remark) = match find(options, notices)? {
            Located::File(file) => {
                let load: Option<Load> = match () {
                    () if exported::holds_program(&file) => {
                        Some(|file, device, _| exported::load(file, device))
                    }
                    () if onnx::holds_network(&file) => Some(onnx::load),
                    () => None,
                };
                if load.is_none() {
                    check_file(&file)?;
                }
                let (mut metadata, remark) = ModelMetadata::read(&file)?;
                check_scale(&file, &metadata, options)?;
                let graph = if let Some(load) = load {
                    let size = options.image_size.or(metadata.image_size);
                    let loaded = load(&file, device, size)?;
                    metadata.image_size = metadata.image_size.or(loaded.size);
                    remarks = loaded.remarks;
                    loaded.graph
                } else {
                    load_torchscript(&file, device)?
                };
                let stem = file.file_stem().unwrap_or(OsStr::new("model"));
                let name = stem.to_string_lossy().into_owned();
                let labels = metadata.labels.clone().map(Labels::new);
                let labels = labels.map(|labels| Sourced::new(labels, Source::File));
                (
                    name,
                    graph,
                    Sourced::new(metadata, Source::File),
                    labels,
                    remark,
                )
            }
            Located::StateDict(entry, file) => {
                let (graph, remark) = trace(entry, &file, device)
                    .with_context(|| format!("the network {}", entry.name))?;
                let is_own = options.weights.is_none() || entry.is_official(&file);
                let labels = is_own.then(|| Sourced::new(Labels::imagenet(), Source::Zoo));
                let metadata = Sourced::new(entry.metadata(), Source::Zoo);
                (entry.name.to_string(), graph, metadata, labels, remark)
            }
        };
        Ok(Network {
            name,
            preprocessing: Preprocessing::new(options, &metadata),
            labels,
            remarks: remark.into_iter().chain(remarks).collect(),
            graph,
        })
    }

    /// Size of its images.
    pub fn input_size(&self) -> Size {
        self.preprocessing.size.value
    }

    /// Normalisation of its images.
    pub fn normalisation(&self) -> Normalisation {
        self.preprocessing.normalisation()
    }

    /// Hooks the network for images of `size`, with the rule and layer of `hooks`.
    ///
    /// # Errors
    /// Returns the errors of [`HookedModel::new`].
    pub fn hook(&self, size: Size, hooks: &Hooks) -> Result<HookedModel> {
        HookedModel::new(&self.graph, size, hooks)
    }
}

/// Refuses a mean or standard deviation of pixels from 0 to 255 in a file, if it is used.
fn check_scale(file: &Path, metadata: &ModelMetadata, options: &ModelOptions) -> Result<()> {
    let mean = metadata.mean.as_deref().filter(|_| options.mean.is_none());
    let std = metadata.std.as_deref().filter(|_| options.std.is_none());
    match rescaled(mean, std, "") {
        Some(advice) => {
            let message = format!("{}: the prism.json in it has {advice}", file.display());
            Err(hinted(message, Hint::Normalisation))
        }
        None => Ok(()),
    }
}

fn find(options: &ModelOptions, notices: Notices) -> Result<Located> {
    let model = &options.model;
    if is_path(model) {
        return match &options.weights {
            None => Ok(Located::File(model.clone())),
            Some(_) => {
                let message = format!("no weights can be given for the file {}", model.display());
                Err(usage_hinted(message, Hint::NameForWeights))
            }
        };
    }
    let name = model.to_string_lossy();
    if let Some(file) = &options.weights {
        let Some(entry) = zoo::find(&name) else {
            return Err(locate::unknown(&name));
        };
        return Ok(Located::StateDict(entry, file.clone()));
    }
    let mut search = SearchPath::from_env();
    search.offline |= options.offline;
    if options.is_assumed && locate::find(&name, &search).is_none() {
        return Err(locate::unchosen(&name, &search));
    }
    locate::locate(&name, &search, notices)
}

/// Whether a model is given as a file: with a path separator or a model's extension, or with another
/// extension if there is such a file.
fn is_path(model: &Path) -> bool {
    let extension = model.extension().and_then(OsStr::to_str);
    model.components().count() > 1
        || model.as_os_str().as_encoded_bytes().contains(&b'/')
        || matches!(
            extension,
            Some("pt" | "pt2" | "onnx" | "pth" | "torchscript")
        )
        || extension.is_some() && model.is_file()
}

fn trace(
    entry: &ZooEntry,
    file: &Path,
    device: tch::Device,
) -> Result<(NetworkGraph, Option<Remark>)> {
    let Size { height, width } = entry.traced();
    let example = Tensor::zeros([1, 3, height, width], (tch::Kind::Float, device));
    let (variables, trace, remark) = weights::network(entry, file, device, |module| {
        Trace::record(entry.name, &example, |images| {
            module.forward_t(images, false)
        })
    })?;
    Ok((trace?.into_graph(&variables.variables())?, remark))
}

fn load_torchscript(file: &Path, device: tch::Device) -> Result<NetworkGraph> {
    NetworkGraph::load(file, device).map_err(|error| {
        let reason = format!("{error:#}");
        // libtorch's own message is about its archive reader.
        let reason = match reason.contains("PytorchStreamReader") || reason.contains("archive") {
            true => "this TorchScript file is damaged or cut short; export it again, with python -m prism_cnn.export or torch.jit",
            false => &reason,
        };
        anyhow!("{}: {reason}", file.display())
    })
}

/// Checks that `file` is a TorchScript archive, and otherwise says what it is.
fn check_file(file: &Path) -> Result<()> {
    let show = file.display();
    let mut start = Vec::new();
    let read = File::open(file).and_then(|open| {
        if open.metadata()?.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        open.take(8).read_to_end(&mut start)
    });
    if let Err(error) = read {
        match error.kind() {
            ErrorKind::NotFound => bail!(
                "{show}: there is no such model file; give the path of a TorchScript, .pt2 or ONNX file, or a network's name"
            ),
            ErrorKind::IsADirectory => bail!("{show}: this is a folder, not a model file"),
            _ => return Err(error).with_context(|| format!("{show}: cannot read the model file")),
        }
    }
    ensure!(!start.is_empty(), "{show}: the model file is empty");
    if archive::is_torchscript(file) {
        return Ok(());
    }
    let is_zip = start.starts_with(b"PK");
    let is_keras = is_zip && archive::has_entry(file, |name| name == "model.weights.h5");
    let other = match start.as_slice() {
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file, as Keras writes networks and weights",
        _ if is_keras => "a network of Keras",
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "a network of TensorFlow Lite",
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => "a network in ONNX Runtime's own format",
        _ => "",
    };
    ensure!(
        other.is_empty(),
        "{show}: this is {other}; {HOW_TO_WRITE_ONNX}"
    );
    let is_pickle = matches!(start.as_slice(), [0x80, 1..=5, ..])
        || is_zip && archive::has_entry(file, |name| name.ends_with("data.pkl"));
    // Both are written by torch.save.
    if is_pickle {
        let message = format!(
            "{show}: this is a pickled state dict or module, which holds no code to run; {HOW_TO_EXPORT}"
        );
        return Err(match entry_named_like(file) {
            Some(entry) => hinted(
                format!("{message}, or load it as weights of {}", entry.name),
                Hint::FileIsWeights,
            ),
            None => anyhow!(message),
        });
    }
    ensure!(
        !is_zip,
        "{show}: this is no TorchScript, .pt2 or ONNX file, or one that is damaged or cut short; {HOW_TO_EXPORT}"
    );
    bail!("{show}: this is no TorchScript, .pt2 or ONNX file; {HOW_TO_EXPORT}")
}

/// The network of the zoo whose weights the name of a file suggests.
fn entry_named_like(file: &Path) -> Option<&'static ZooEntry> {
    let stem = file.file_stem()?.to_str()?;
    zoo::entries().iter().find(|entry| {
        let official = entry
            .file
            .is_some_and(|official| official.starts_with(stem));
        entry.name == stem || official
    })
}
