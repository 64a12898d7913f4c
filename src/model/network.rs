//! A network, wherever it comes from, ready to be hooked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::Tensor;

use super::about::About;
use super::download::{Bar, Progress, Silent};
use super::locate::{self, Located};
use super::search_path::SearchPath;
use super::weights;
use super::zoo::{self, ZooEntry};
use crate::convert::Normalisation;
use crate::error::usage;
use crate::hooks::{HookedModel, NetworkGraph, Trace};
use crate::labels::Labels;
use crate::notices::Notices;
use crate::options::ModelOptions;

/// Input size where nothing else is said, pixels.
const DEFAULT_SIZE: (i64, i64) = (224, 224);

/// How a network becomes a file that prism takes.
const HOW_TO_EXPORT: &str = "export the network with models/export.py (or in Python with torch.jit.script(model.eval()).save(\"model.pt\"), or torch.jit.trace)";

/// A network as a graph, with what it wants as input.
#[derive(Debug)]
pub struct Network {
    /// Its name, or the stem of its file.
    pub name: String,
    /// Height and width of the images it wants.
    pub input_size: (i64, i64),
    /// How the images are to be normalised.
    pub normalisation: Normalisation,
    /// The names of its classes, where its file has them.
    pub labels: Option<Labels>,
    /// Its operators and weights. What is hooked of it has its own copy.
    pub graph: NetworkGraph,
}

impl Network {
    /// Finds and loads the network that `options` name.
    ///
    /// # Errors
    /// With one line that names the file or network and what to do.
    pub fn load(options: &ModelOptions, notices: Notices) -> Result<Network> {
        if let Some(threads) = options.threads {
            tch::set_num_threads(threads as i32);
            // Where the pool is at work already, it stays as it is.
            let _ = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global();
        }
        let device = options.device.device()?;
        if !options.hooks.precision.is_native(device) {
            notices.warn(
                "this processor has no bfloat16 arithmetic: --precision bf16 is slower than f32 here",
            );
        }
        let (name, graph, about) = match find(options, notices)? {
            Located::TorchScript(file) => {
                check_file(&file)?;
                let about = About::read(&file)?;
                let graph = load_torchscript(&file, device)?;
                let stem = file.file_stem().unwrap_or(OsStr::new("model"));
                (stem.to_string_lossy().into_owned(), graph, about)
            }
            Located::StateDict(entry, file) => {
                let graph = trace(entry, &file, device)
                    .with_context(|| format!("the network {}", entry.name))?;
                let about = About {
                    image_size: Some(entry.input),
                    ..About::default()
                };
                (entry.name.to_string(), graph, about)
            }
        };
        let default = Normalisation::default();
        Ok(Network {
            name,
            input_size: options
                .image_size
                .or(about.image_size)
                .unwrap_or(DEFAULT_SIZE),
            normalisation: Normalisation {
                mean: options.mean.or(about.mean).unwrap_or(default.mean),
                std: options.std.or(about.std).unwrap_or(default.std),
            },
            labels: about.labels.map(Labels::new),
            graph,
        })
    }

    /// Hooks it for images of `size` (height, width), by the rule and layer that
    /// `options` name.
    ///
    /// # Errors
    /// As [`HookedModel::new`], with the network's name.
    pub fn hook(&self, size: (i64, i64), options: &ModelOptions) -> Result<HookedModel> {
        HookedModel::new(&self.graph, size, &options.hooks)
    }
}

fn find(options: &ModelOptions, notices: Notices) -> Result<Located> {
    let model = &options.model;
    if is_path(model) {
        return match &options.weights {
            None => Ok(Located::TorchScript(model.clone())),
            Some(_) => Err(usage(format!(
                "--weights goes with the name of a network, not with the file {}",
                model.display()
            ))),
        };
    }
    let name = model.to_string_lossy();
    if let Some(file) = &options.weights {
        let Some(entry) = zoo::find(&name) else {
            bail!("{}", locate::unknown(&name));
        };
        return Ok(Located::StateDict(entry, file.clone()));
    }
    let mut search = SearchPath::from_env();
    search.offline |= options.offline;
    let mut bar: Box<dyn Progress> = if notices == Notices::Quiet {
        Box::new(Silent)
    } else {
        Box::new(Bar::new())
    };
    locate::locate(&name, &search, bar.as_mut())
}

/// Whether `--model` means a file: it has a separator, or a model's extension.
fn is_path(model: &Path) -> bool {
    let extension = model.extension().and_then(OsStr::to_str);
    model.components().count() > 1
        || model.as_os_str().as_encoded_bytes().contains(&b'/')
        || matches!(extension, Some("pt" | "pth" | "torchscript"))
}

fn trace(entry: &ZooEntry, file: &Path, device: tch::Device) -> Result<NetworkGraph> {
    let (height, width) = entry.traced();
    let example = Tensor::zeros([1, 3, height, width], (tch::Kind::Float, device));
    let (variables, trace) = weights::network(entry, file, device, |module| {
        Trace::record(entry.name, &example, |images| {
            module.forward_t(images, false)
        })
    })?;
    trace?.into_graph(&variables.variables())
}

fn load_torchscript(file: &Path, device: tch::Device) -> Result<NetworkGraph> {
    NetworkGraph::load(file, device).map_err(|error| {
        // libtorch's words are about its own archive reader.
        let reason = format!("{error:#}");
        match reason.contains("PytorchStreamReader") || reason.contains("archive") {
            true => anyhow::anyhow!(
                "{}: this TorchScript file is damaged or cut short; export it again, with models/export.py or from Python",
                file.display()
            ),
            false => anyhow::anyhow!("{}: {reason}", file.display()),
        }
    })
}

/// Says what a file is that is no TorchScript archive.
fn check_file(file: &Path) -> Result<()> {
    let show = file.display();
    let mut start = Vec::new();
    let read = File::open(file).and_then(|open| {
        if open.metadata()?.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        open.take(4).read_to_end(&mut start)
    });
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{show}: there is no such model file; give the path of a TorchScript file, or a network's name"
        ),
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
            bail!("{show}: this is a folder, not a model file")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{show}: cannot read the model file"));
        }
    }
    if start.is_empty() {
        bail!("{show}: the model file is empty");
    }
    if weights::is_torchscript(file) {
        return Ok(());
    }
    let named = zoo::entries().iter().find(|entry| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        entry.name == stem
            || entry
                .file
                .is_some_and(|official| official.starts_with(&*stem))
    });
    let with_weights = named.map_or(String::new(), |entry| {
        format!(", or use --model {} --weights {show}", entry.name)
    });
    // a zip archive or a pickle stream: what torch.save writes
    let is_zip = start.starts_with(b"PK");
    let has_pickle = || {
        weights::entries(file)
            .iter()
            .any(|name| name.ends_with("data.pkl"))
    };
    if matches!(start.as_slice(), [0x80, 1..=5, ..]) || is_zip && has_pickle() {
        bail!(
            "{show}: this is a pickled state dict or module, which holds no code to run; {HOW_TO_EXPORT}{with_weights}"
        );
    }
    if is_zip {
        bail!(
            "{show}: this is no TorchScript file, or one that is damaged or cut short; {HOW_TO_EXPORT}"
        );
    }
    bail!("{show}: this is not a TorchScript file; {HOW_TO_EXPORT}")
}
