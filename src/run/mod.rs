//! A whole run: images -> batch -> hooked model -> excitations -> map -> figures.

mod commands;
mod drawing;
mod saving;
mod seeing;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tch::Device;

use crate::arrays::{ArrayFormat, BasisOf, read_basis, write_basis};
use crate::classes::{no_class, top_classes};
use crate::cluster::pickle;
use crate::error::usage;
use crate::heap::with_retained_heap;
use crate::hooks::{Extrapolation, HookedModel, Layer};
use crate::labels::Labels;
use crate::map::{Keep, MapOptions, Maps};
use crate::model::Network;
use crate::notices::{Notices, Stopwatch};
use crate::options::{DeviceChoice, JsonTarget, Options};
use crate::output::{Outputs, folder_of, same_place};
use crate::spool::{self, Spool};
use crate::summary::{ImageSummary, LayerSummary, Summary};

pub use commands::{print_layers, print_models, print_text, som};
use drawing::{Shown, draw, row_names};
use saving::{closed_pipe_is_fine, cluster_rows, print_classes, save};
use seeing::{Source, chunk_size, look};

/// Where `--cluster` writes, as TorchPRISM does: in the working folder.
const CLUSTER_FILE: &str = "2cluster.bin";

/// Makes the maps that `options` ask for, writes every file and prints a line
/// per image to `stdout`.
///
/// # Errors
/// With one line for a person; no file is written then (but where only `stdout`
/// fails, which comes last).
pub fn run(options: &Options, stdout: &mut impl Write) -> Result<()> {
    let notices = options.notices;
    let mut clock = Stopwatch::start();
    let source = Source::find(options, notices)?;
    let mut outputs = Outputs::default();
    outputs.prepare(&options.output.folder)?;
    if let Some(file) = &options.output.arrays {
        ArrayFormat::from_path(file)?;
    }
    if options.output.clusters {
        outputs.prepare(Path::new("."))?;
    }
    let files = options.output.files();
    for (index, (option, file)) in files.iter().enumerate() {
        let twin = files[..index]
            .iter()
            .find(|(_, earlier)| same_place(earlier, file));
        if let Some((earlier, _)) = twin {
            return Err(usage(format!(
                "{earlier} and {option} name the same file, {}",
                file.display()
            )));
        }
        outputs.prepare(folder_of(file))?;
    }
    let labels = options.labels.as_deref().map(Labels::read).transpose()?;

    let network = Network::load(&options.model, notices)?;
    clock.lap("loading");
    let size = source.size().unwrap_or(network.input_size);
    let mut model = network.hook(size, &options.model)?;
    let labels = labels_of(&model, &network, labels, options)?;
    let saliency = choose_saliency(&mut model, labels.as_ref(), options, notices)?;
    drop(network.graph);
    clock.lap("hooking");
    let map_options = MapOptions {
        keep: options.keep,
        extrapolation: options.gradual_extrapolation.then(|| model.extrapolation()),
    };
    let of = basis_of(&network.name, &model, map_options);
    let basis = match &options.basis {
        Some(file) => Some(read_basis(file, &of)?),
        None => None,
    };
    let chunk_size = options.batch_size.unwrap_or_else(|| chunk_size(&model));
    if notices == Notices::Verbose {
        for choice in choices(&model, options, chunk_size) {
            notices.note(&choice);
        }
    }
    let spool = Spool::new(
        options.memory.unwrap_or_else(spool::share_of_memory),
        &options.output.folder,
    );
    let seen = with_retained_heap(|| {
        look(
            &source,
            &model,
            &network.normalisation,
            &spool,
            chunk_size,
            options,
        )
    })?;
    clock.laps(
        &[
            ("forwarding", seen.forwarding),
            ("collecting", seen.collecting),
        ],
        "decoding",
    );
    let spinner = notices.spinner("analysing");
    let maps = seen.collector.finish_with(map_options, basis)?;
    spinner.finish_and_clear();
    if let Some(note) = maps.note() {
        notices.note(note);
    } else if maps.is_constant() {
        notices.warn("all features are the same in all images, so the map is black");
    }

    warn_of_white_maps(&maps, notices);

    clock.lap("analysing");
    let classes = top_classes(&maps.logits, labels.as_ref(), options.top as i64)?;
    let shown = Shown {
        maps: &maps,
        pictures: &seen.pictures,
        names: &seen.names,
        classes: &classes,
        row_names: row_names(options, saliency.as_deref()),
        network: &network.name,
    };
    let gallery = draw(&shown, options, &mut outputs)?;
    clock.lap("drawing");
    if let Some(file) = &options.output.arrays {
        outputs.write(file, |out| save(&maps, &seen.names, &seen.input, file, out))?;
    }
    if options.output.clusters {
        let rows = cluster_rows(&maps, &seen.names, &classes)?;
        outputs.write(Path::new(CLUSTER_FILE), |out| pickle::write(&rows, out))?;
    }
    if let Some(file) = &options.output.save_basis {
        let bytes = write_basis(&maps.basis(), &of)?;
        outputs.write(file, |out| Ok(out.write_all(&bytes)?))?;
    }
    let layers = model.layers();
    let mut summary = Summary {
        prism: env!("CARGO_PKG_VERSION"),
        network: &network.name,
        input_size: size.into(),
        classes: model.classes(),
        device: device_name(model.device()),
        rule: options.model.hooks.rule.to_string(),
        excitation: layer_summary(&layers, model.excitation_name()),
        guides: model
            .guide_names()
            .into_iter()
            .map(|name| layer_summary(&layers, name))
            .collect(),
        extrapolation: of.extrapolation.clone(),
        colours: of.colours.clone(),
        saliency: saliency.as_deref(),
        variance_ratio: &maps.variance_ratio,
        images: seen
            .names
            .iter()
            .zip(&classes)
            .map(|(path, classes)| ImageSummary {
                path: path.to_string_lossy(),
                classes,
            })
            .collect(),
        files: Vec::new(),
        seconds: Vec::new(),
    };
    if let (Some(file), Some(gallery)) = (&options.output.report, gallery) {
        let page = gallery.page(&summary)?;
        outputs.write(file, |out| Ok(out.write_all(page.as_bytes())?))?;
    }
    summary.files = outputs.paths();
    if let Some(JsonTarget::File(file)) = &options.output.json {
        summary.files.push(file.to_string_lossy().into_owned());
    }
    clock.lap("saving");
    summary.seconds = clock.stages().to_vec();
    let json = match &options.output.json {
        Some(_) => Some(summary.to_json()?),
        None => None,
    };
    if let (Some(JsonTarget::File(file)), Some(json)) = (&options.output.json, &json) {
        outputs.write(file, |out| Ok(out.write_all(json.as_bytes())?))?;
    }
    say_written(outputs.commit()?, notices);
    notices.detail(|| format!("times: {clock}"));
    match (&options.output.json, json) {
        (Some(JsonTarget::Stdout), Some(json)) => closed_pipe_is_fine(
            stdout
                .write_all(json.as_bytes())
                .and_then(|()| stdout.flush()),
        ),
        _ => print_classes(&seen.names, &classes, stdout),
    }
}

/// What the basis of this run belongs to.
fn basis_of(network: &str, model: &HookedModel, options: MapOptions) -> BasisOf {
    let extrapolation = match options.extrapolation {
        None => "none",
        Some(Extrapolation::Product) => "product",
        Some(Extrapolation::Regression { .. }) => "regression",
    };
    let colours = match options.keep {
        None => "every",
        Some(Keep::Common) => "common",
        Some(Keep::Unique) => "unique",
        Some(Keep::All) => "all",
    };
    BasisOf {
        network: network.to_string(),
        layer: model.excitation_name().to_string(),
        channels: layer_summary(&model.layers(), model.excitation_name())
            .shape
            .map_or(0, |shape| shape[0]),
        extrapolation: extrapolation.to_string(),
        colours: colours.to_string(),
    }
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}

fn layer_summary<'a>(layers: &[Layer], name: &'a str) -> LayerSummary<'a> {
    let shape = layers.iter().find(|layer| layer.name == name);
    LayerSummary {
        name,
        shape: shape.map(|layer| layer.shape.into()),
    }
}

/// The labels of the network's classes: those given, else its file's, else
/// ImageNet's where they fit.
///
/// # Errors
/// Where there are not as many as classes.
fn labels_of(
    model: &HookedModel,
    network: &Network,
    given: Option<Labels>,
    options: &Options,
) -> Result<Option<Labels>> {
    let known = given
        .zip(options.labels.as_ref())
        .or_else(|| network.labels.clone().zip(Some(&options.model.model)));
    let Some((labels, file)) = known else {
        return Ok(Labels::for_classes(model.classes()));
    };
    if labels.len() != model.classes() {
        bail!(
            "{}: there are {} names in it, where the network has {} classes",
            file.display(),
            labels.len(),
            model.classes()
        );
    }
    Ok(Some(labels))
}

/// Sets the class that saliency looks for, says what is not as usual about it,
/// and gives it a name for the figure.
fn choose_saliency(
    model: &mut HookedModel,
    labels: Option<&Labels>,
    options: &Options,
    notices: Notices,
) -> Result<Option<String>> {
    let Some(hook) = &options.model.hooks.saliency else {
        return Ok(None);
    };
    if let Some(layer) = model.saliency_name()
        && hook.layer.is_none()
        && layer != model.excitation_name()
    {
        notices.note(&format!(
            "saliency is read at '{layer}': at '{}' the contrast is zero for any image",
            model.excitation_name()
        ));
    }
    let title = hook.method.title();
    let Some(target) = &options.target else {
        return Ok(Some(title.to_string()));
    };
    let class = find_class(target, labels, model.classes())?;
    model.set_target(class)?;
    let name = labels.map_or_else(|| class.to_string(), |labels| labels.title(class));
    if labels.is_some() {
        notices.note(&format!("target: class {class}, {name}"));
    }
    Ok(Some(format!("{title}: {name}")))
}

/// The class that `--target` means: a number, or a name.
fn find_class(target: &str, labels: Option<&Labels>, classes: usize) -> Result<usize> {
    let digits = target.strip_prefix('-').unwrap_or(target);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match (target.parse(), labels) {
        (Ok(class), _) => Ok(class),
        _ if is_number => Err(no_class(target, classes)),
        (_, Some(labels)) => labels.find(target),
        (_, None) => Err(usage(format!(
            "--target {target}: the names of this network's classes are not known; give a number from 0 to {}, or --labels FILE",
            classes - 1
        ))),
    }
}

fn warn_of_white_maps(maps: &Maps, notices: Notices) {
    let white = maps.not_salient();
    if white > 0 {
        notices.warn(&format!(
            "nothing speaks for the class in {white} of {} images: no saliency there, so the maps are white",
            maps.len()
        ));
    }
}

fn say_written(written: Vec<PathBuf>, notices: Notices) {
    for path in written {
        notices.note(&format!("wrote {}", path.display()));
    }
}

/// What was chosen for this run, and why.
fn choices(model: &HookedModel, options: &Options, chunk_size: usize) -> Vec<String> {
    let asked = &options.model;
    let device = match (model.device(), asked.device) {
        (Device::Cpu, DeviceChoice::Auto) => "the CPU, as there is no CUDA device".to_string(),
        (Device::Cpu, _) => "the CPU".to_string(),
        (device, _) => format!("{device:?}"),
    };
    let (height, width) = model.input_size();
    let layers = model.layers();
    let named = |name: &str| match layer_summary(&layers, name).shape {
        Some([c, h, w]) => format!("{name} ({c}x{h}x{w})"),
        None => name.to_string(),
    };
    let excitation = named(model.excitation_name());
    let guides: Vec<String> = model.guide_names().into_iter().map(named).collect();
    let why = match asked.hooks.layer {
        Some(_) => "as asked".to_string(),
        None => format!("the choice of the rule '{}'", asked.hooks.rule),
    };
    let largest = model.largest_tensor() as f64 / f64::from(1 << 20);
    let of_chunk = match options.batch_size {
        Some(_) => "as asked".to_string(),
        None => format!("more are no faster; its largest tensor takes {largest:.1} MiB of each"),
    };
    vec![
        format!("device: {device}; {} threads", tch::get_num_threads()),
        format!("images: {height}x{width} pixels, {chunk_size} images at once ({of_chunk})"),
        format!("excitation: {excitation}, {why}"),
        match options.gradual_extrapolation {
            true => format!("guides: {}", guides.join(", ")),
            false => "guides: none, as asked".to_string(),
        },
    ]
}
