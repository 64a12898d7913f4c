//! A whole run: images -> batch -> hooked model -> excitations -> map -> figures.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Tensor};

use crate::arrays::{self, ArrayFormat, ArrayWriter};
use crate::batch::{Normalisation, ramp_picture, stretched_picture, to_batch, to_picture};
use crate::classes::{Class, no_class, top_classes};
use crate::cluster::{Row, pickle, som};
use crate::error::usage;
use crate::figure::{
    self, ClusterFigure, Column, MOST_IMAGES, MapFigure, Panel, Picture, Placed, Scaling,
    draw_clusters, ramp,
};
use crate::hooks::{HookedModel, Layer};
use crate::images;
use crate::labels::Labels;
use crate::map::{Collector, ColourSet, MapOptions, Maps};
use crate::model::Network;
use crate::notices::{Notices, Stopwatch};
use crate::options::{ClusterOptions, DeviceChoice, ModelOptions, Options};
use crate::output::{Outputs, folder_of};
use crate::spool::{self, Sequence, Spool};
use crate::threads::joined;

/// Where `--cluster` writes, as TorchPRISM does: in the working folder.
const CLUSTER_FILE: &str = "2cluster.bin";

/// Shorter side of a picture in a figure, pixels.
const PICTURE_SIDE: u32 = 448;

/// What the network's largest tensor of the images that are forwarded at once may
/// take. Larger runs are no faster (docs/performance.md).
const CHUNK_BYTES: usize = 64 << 20;

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
        outputs.prepare(folder_of(file))?;
    }
    if options.output.clusters {
        outputs.prepare(Path::new("."))?;
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
    let chunk_size = options.batch_size.unwrap_or_else(|| chunk_size(&model));
    for choice in choices(&model, options, chunk_size) {
        notices.detail(|| choice);
    }
    let spool = Spool::new(
        options.memory.unwrap_or_else(spool::share_of_memory),
        &options.output.folder,
    );
    let seen = look(
        &source,
        &model,
        &network.normalisation,
        &spool,
        chunk_size,
        options,
    )?;
    clock.lap("seeing");
    let maps = seen.collector.finish(MapOptions {
        keep: options.keep,
        extrapolation: options.gradual_extrapolation.then(|| model.extrapolation()),
    })?;
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
        classes: &classes,
        row_names: row_names(options, saliency),
        network: &network.name,
    };
    draw(&shown, options, &mut outputs, notices)?;
    clock.lap("drawing");
    if let Some(file) = &options.output.arrays {
        outputs.write(file, |out| save(&maps, &seen.names, &seen.input, file, out))?;
    }
    if options.output.clusters {
        let rows = cluster_rows(&maps, &seen.names, &classes)?;
        outputs.write(Path::new(CLUSTER_FILE), |out| pickle::write(&rows, out))?;
    }
    say_written(outputs.commit()?, notices);
    clock.lap("writing");
    notices.detail(|| format!("times: {clock}"));
    print_classes(&seen.names, &classes, stdout)
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

/// Of each image its path, its top class and which of the colours that occur in
/// any image it has.
fn cluster_rows(maps: &Maps, names: &[PathBuf], classes: &[Vec<Class>]) -> Result<Vec<Row>> {
    let colours = maps.colours()?;
    let any = colours
        .iter()
        .fold(ColourSet::NONE, |any, &set| any.union(set));
    let rows = names.iter().zip(classes).zip(&colours);
    Ok(rows
        .map(|((name, classes), colours)| Row {
            path: name.to_string_lossy().into(),
            class: classes.first().map_or(0, |class| class.id),
            features: any.codes().map(|code| colours.contains(code)).collect(),
        })
        .collect())
}

/// Trains a self-organising map on a file that `--cluster` wrote, draws it and
/// prints its errors.
///
/// # Errors
/// With one line for a person; no file is written then.
pub fn som(options: &ClusterOptions, stdout: &mut impl Write) -> Result<()> {
    let notices = options.notices;
    let show = options.file.display();
    let mut outputs = Outputs::default();
    outputs.prepare(folder_of(&options.output))?;
    let labels = options.labels.as_deref().map(Labels::read).transpose()?;
    let file = File::open(&options.file).with_context(|| format!("{show}: cannot be opened"))?;
    let rows = pickle::read(BufReader::new(file)).with_context(|| format!("{show}"))?;
    let highest = rows.iter().map(|row| row.class).max().unwrap_or(0);
    let labels = match labels.zip(options.labels.as_ref()) {
        Some((labels, file)) if highest >= labels.len() => bail!(
            "{}: there are {} names in it, but {show} has class {highest}",
            file.display(),
            labels.len()
        ),
        Some((labels, _)) => Some(labels),
        None => Some(Labels::imagenet()).filter(|imagenet| highest < imagenet.len()),
    };
    if options.labels.is_none() && labels.is_some() {
        notices.note("the classes are named as ImageNet's; --labels FILE names others");
    }

    let trained = som::train(&rows, &options.som)?;
    let images: Vec<Placed> = trained
        .units
        .iter()
        .zip(&rows)
        .map(|(&unit, row)| Placed {
            unit,
            class: row.class,
        })
        .collect();
    let names: Vec<String> = labels.map_or_else(Vec::new, |labels| labels.titles());
    let drawn = draw_clusters(
        &ClusterFigure {
            u_matrix: trained.u_matrix.view(),
            images: &images,
            names: &names,
            quantisation_error: trained.quantisation_error,
            topographic_error: trained.topographic_error,
        },
        options.format,
    )?;
    outputs.write(&options.output, |out| Ok(out.write_all(&drawn)?))?;
    say_written(outputs.commit()?, notices);
    closed_pipe_is_fine(writeln!(
        stdout,
        "quantisation error: {:.4}\ntopographic error: {:.4}",
        trained.quantisation_error, trained.topographic_error
    ))
}

/// Prints the layers of the network that `options` name as a table.
///
/// # Errors
/// As [`run`].
pub fn print_layers(
    options: &ModelOptions,
    notices: Notices,
    stdout: &mut impl Write,
) -> Result<()> {
    let network = Network::load(options, notices)?;
    let layers = network.hook(network.input_size, options)?.layers();
    let rows: Vec<[String; 4]> = layers
        .into_iter()
        .map(|layer| {
            let (channels, height, width) = layer.shape;
            let shape = format!("{channels}x{height}x{width}");
            [
                layer.name,
                layer.operator,
                shape,
                layer.role.word().to_string(),
            ]
        })
        .collect();
    let heading = ["name", "operator", "shape", "role"].map(String::from);
    let width = |column: usize| {
        rows.iter()
            .chain([&heading])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut out = BufWriter::new(stdout);
    let printed = [&heading].into_iter().chain(&rows).try_for_each(|row| {
        let line = format!(
            "{:<a$}  {:<b$}  {:>c$}  {}",
            row[0],
            row[1],
            row[2],
            row[3],
            a = widths[0],
            b = widths[1],
            c = widths[2]
        );
        writeln!(out, "{}", line.trim_end())
    });
    closed_pipe_is_fine(printed.and_then(|()| out.flush()))
}

/// Where a run's images come from.
enum Source {
    Files(Vec<PathBuf>),
    Array(PathBuf, Tensor),
}

impl Source {
    fn find(options: &Options, notices: Notices) -> Result<Source> {
        if let [only] = options.input.as_slice()
            && ArrayFormat::from_path(only).is_ok()
        {
            let array = arrays::read_input(only)?;
            let tensor = Tensor::try_from(array).context("reading the array `input`")?;
            let size = (tensor.size()[2], tensor.size()[3]);
            let asked = &options.model;
            if options.skip_bad_images
                || asked.image_size.is_some_and(|asked| asked != size)
                || asked.mean.is_some()
                || asked.std.is_some()
            {
                return Err(usage(format!(
                    "{}: its images of {}x{} pixels are taken as they are; --image-size, --mean, --std and --skip-bad-images do not apply to them",
                    only.display(),
                    size.0,
                    size.1
                )));
            }
            return Ok(Source::Array(only.clone(), tensor));
        }
        if let Some(file) = options
            .input
            .iter()
            .find(|path| ArrayFormat::from_path(path).is_ok())
        {
            bail!(
                "{}: a file of arrays is taken alone, not beside other inputs",
                file.display()
            );
        }
        let mut good = Vec::new();
        for file in images::find_images(&options.input)? {
            match images::check_header(&file) {
                Ok(()) => good.push(file),
                Err(error) if options.skip_bad_images => notices.warn(&skipped(&error)),
                Err(error) => return Err(error),
            }
        }
        if good.is_empty() {
            bail!("none of the images can be read");
        }
        Ok(Source::Files(good))
    }

    /// The size of the images, where they are already those of a network.
    fn size(&self) -> Option<(i64, i64)> {
        match self {
            Source::Files(_) => None,
            Source::Array(_, tensor) => Some((tensor.size()[2], tensor.size()[3])),
        }
    }
}

fn skipped(error: &anyhow::Error) -> String {
    format!("left out: {error:#}")
}

/// What is known of the images when the network has seen all of them.
struct Seen {
    collector: Collector,
    /// Paths as given.
    names: Vec<PathBuf>,
    /// For the figures, `[N,h,w,3]` bytes.
    pictures: Sequence,
    /// `[N,3,H,W]`, kept only where they are to be saved.
    input: Sequence,
}

impl Seen {
    fn add(
        &mut self,
        (pictures, batch): (&[RgbImage], &Tensor),
        (model, spool): (&HookedModel, &Spool),
        keep: bool,
    ) -> Result<()> {
        for picture in pictures {
            let (width, height) = picture.dimensions();
            let bytes = Tensor::from_slice(picture.as_raw());
            let bytes = bytes.reshape([1, i64::from(height), i64::from(width), 3]);
            self.pictures.push(spool, &bytes)?;
        }
        self.collector.add(model.forward(batch)?)?;
        if keep {
            self.input.push(spool, batch)?;
        }
        Ok(())
    }
}

/// The picture of an image for a figure, where it is kept.
#[derive(Debug)]
struct Kept<'a> {
    pictures: &'a Sequence,
    image: usize,
}

impl Picture for Kept<'_> {
    fn size(&self) -> (u32, u32) {
        match self.pictures.shape() {
            &[height, width, _] => (width as u32, height as u32),
            _ => (0, 0),
        }
    }

    fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
        let bytes = self.pictures.get(self.image..self.image + 1)?;
        let bytes = Vec::<u8>::try_from(bytes.reshape([-1]))?;
        let (width, height) = self.size();
        let picture = RgbImage::from_raw(width, height, bytes);
        Ok(Cow::Owned(picture.context("a picture is incomplete")?))
    }
}

/// Images forwarded at once: so many that the network's largest tensor of all of
/// them takes [`CHUNK_BYTES`], but no more than help.
fn chunk_size(model: &HookedModel) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (CHUNK_BYTES / model.largest_tensor().max(1)).clamp(1, cores.max(8))
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
    let shape = |name: &str| {
        let layer = layers.iter().find(|layer| layer.name == name);
        layer.map_or(
            String::new(),
            |Layer {
                 shape: (c, h, w), ..
             }| { format!(" ({c}x{h}x{w})") },
        )
    };
    let named = |name: &str| format!("{name}{}", shape(name));
    let excitation = named(model.excitation_name());
    let guides: Vec<String> = model.guide_names().into_iter().map(named).collect();
    let why = match asked.hooks.layer {
        Some(_) => "as asked".to_string(),
        None => format!("the choice of the rule '{}'", asked.hooks.rule),
    };
    let largest = model.largest_tensor() as f64 / f64::from(1 << 20);
    let of_chunk = match options.batch_size {
        Some(_) => "as asked".to_string(),
        None => format!("the network's largest tensor takes {largest:.1} MiB of each"),
    };
    vec![
        format!("device: {device}; {} threads", tch::get_num_threads()),
        format!("images: {height}x{width} pixels, {chunk_size} images at once ({of_chunk})"),
        format!("excitation: {excitation}, {why}"),
        format!("guides: {}", guides.join(", ")),
    ]
}

/// Decodes the images, runs the network on them chunk by chunk, and keeps what
/// PRISM needs.
fn look(
    source: &Source,
    model: &HookedModel,
    normalisation: &Normalisation,
    spool: &Spool,
    chunk_size: usize,
    options: &Options,
) -> Result<Seen> {
    let notices = options.notices;
    let keep = options.output.arrays.is_some();
    let mut seen = Seen {
        collector: Collector::new(spool),
        names: Vec::new(),
        pictures: Sequence::default(),
        input: Sequence::default(),
    };
    match source {
        Source::Array(path, tensor) => {
            let count = tensor.size()[0] as usize;
            let bar = notices.bar(count, "seeing");
            for batch in tensor.split(chunk_size as i64, 0) {
                let pictures = (0..batch.size()[0])
                    .map(|image| stretched_picture(&batch.get(image)))
                    .collect::<Result<Vec<_>>>()?;
                seen.add((&pictures, &batch), (model, spool), keep)?;
                bar.inc(batch.size()[0] as u64);
            }
            let name = |index| {
                let mut name = path.clone().into_os_string();
                name.push(format!(":{index}"));
                PathBuf::from(name)
            };
            seen.names = (0..count).map(name).collect();
        }
        Source::Files(files) => {
            let bar = notices.bar(files.len(), "seeing");
            let (height, width) = model.input_size();
            let size = (height as u32, width as u32);
            read_ahead(files, chunk_size, size, |chunk, read| {
                let (mut inputs, mut pictures) = (Vec::new(), Vec::new());
                for (file, read) in chunk.iter().zip(read) {
                    match read {
                        Ok((input, picture)) => {
                            inputs.push(input);
                            pictures.push(picture);
                            seen.names.push(file.clone());
                        }
                        Err(error) if options.skip_bad_images => notices.warn(&skipped(&error)),
                        Err(error) => return Err(error),
                    }
                }
                if !inputs.is_empty() {
                    let batch = to_batch(&inputs, normalisation)?;
                    seen.add((&pictures, &batch), (model, spool), keep)?;
                }
                bar.inc(chunk.len() as u64);
                Ok(())
            })?;
            if seen.names.is_empty() {
                bail!("none of the images can be read");
            }
        }
    }
    Ok(seen)
}

/// An image at the network's size, and one for the figure.
type Read = (RgbImage, RgbImage);

/// Reads the files of each chunk in parallel, while `see` still has the one before.
fn read_ahead(
    files: &[PathBuf],
    chunk_size: usize,
    size: (u32, u32),
    mut see: impl FnMut(&[PathBuf], Vec<Result<Read>>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        scope.spawn(move || {
            for chunk in files.chunks(chunk_size) {
                let read: Vec<_> = chunk.par_iter().map(|file| read(file, size)).collect();
                if sender.send((chunk, read)).is_err() {
                    break; // an error has ended the run
                }
            }
        });
        receiver
            .into_iter()
            .try_for_each(|(chunk, read)| see(chunk, read))
    })
}

/// An image at the network's size (height, width), and one for the figure.
fn read(file: &Path, (height, width): (u32, u32)) -> Result<Read> {
    let image = images::decode(file)?;
    let scale = f64::from(PICTURE_SIDE) / f64::from(height.min(width));
    let enlarged = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    let picture = images::resize(&image, enlarged(height), enlarged(width))?;
    Ok((images::resize(&image, height, width)?, picture))
}

/// What the figures show.
struct Shown<'a> {
    maps: &'a Maps,
    pictures: &'a Sequence,
    classes: &'a [Vec<Class>],
    row_names: Vec<String>,
    network: &'a str,
}

/// Draws the maps, at most [`MOST_IMAGES`] to a figure, and the variances.
fn draw(
    shown: &Shown<'_>,
    options: &Options,
    outputs: &mut Outputs,
    notices: Notices,
) -> Result<()> {
    let (maps, stem) = (shown.maps, shown.network);
    let format = options.output.format;
    let file = |name: String| {
        options
            .output
            .folder
            .join(format!("{name}.{}", format.extension()))
    };
    let scaling = if options.gradual_extrapolation {
        Scaling::Smooth
    } else {
        Scaling::Blocks
    };
    let bar = notices.bar(maps.len(), "drawing");
    std::thread::scope(|scope| {
        let ratios = &maps.variance_ratio;
        let variances = scope.spawn(move || figure::draw_variance(ratios, format));
        for (index, start) in (0..maps.len()).step_by(MOST_IMAGES).enumerate() {
            let end = (start + MOST_IMAGES).min(maps.len());
            let mut columns = Vec::new();
            for image in start..end {
                let map = maps.map(image..image + 1)?.get(0);
                let kept = Kept {
                    pictures: shown.pictures,
                    image,
                };
                let mut panels = vec![
                    Panel::new(kept, Scaling::Smooth),
                    Panel::new(to_picture(&map)?, scaling),
                ];
                if options.output.split_rgb {
                    for (channel, ramp) in (0..).zip([ramp::reds, ramp::greens, ramp::blues]) {
                        let picture = ramp_picture(&map.get(channel), ramp)?;
                        panels.push(Panel::new(picture, scaling));
                    }
                }
                if let Some(saliency) = &maps.saliency {
                    let saliency = saliency.get(image as i64).get(0);
                    let picture = ramp_picture(&saliency, ramp::magma)?;
                    panels.push(Panel::new(picture, scaling));
                }
                columns.push(Column {
                    title: shown.classes[image].iter().map(Class::to_string).collect(),
                    panels,
                });
                bar.inc(1);
            }
            let name = if maps.len() > MOST_IMAGES {
                format!("PRISM_{stem}_{:04}", index + 1)
            } else {
                format!("PRISM_{stem}")
            };
            let drawn = figure::draw_maps(
                &MapFigure {
                    columns,
                    row_names: shown.row_names.clone(),
                },
                format,
            )?;
            outputs.write(&file(name), |out| Ok(out.write_all(&drawn)?))?;
        }
        let drawn = joined(variances)?;
        outputs.write(&file(format!("PRISM_var_{stem}")), |out| {
            Ok(out.write_all(&drawn)?)
        })
    })
}

/// The names of a figure's rows, where there are more than input and map.
fn row_names(options: &Options, saliency: Option<String>) -> Vec<String> {
    let mut names = Vec::new();
    if options.output.split_rgb {
        names.extend(["red", "green", "blue"].map(String::from));
    }
    names.extend(saliency);
    if !names.is_empty() {
        names.splice(0..0, ["input", "PRISM"].map(String::from));
    }
    names
}

/// Writes the arrays of a run, chunk by chunk.
fn save<W: Write + io::Seek>(
    maps: &Maps,
    names: &[PathBuf],
    input: &Sequence,
    file: &Path,
    out: &mut W,
) -> Result<()> {
    let shape = |tensor: &Tensor| {
        tensor
            .size()
            .iter()
            .map(|&n| n as usize)
            .collect::<Vec<_>>()
    };
    let count = maps.len();
    let (height, width) = maps.size();
    let of_input = input.shape().iter().map(|&side| side as usize);
    let input_shape = [count].into_iter().chain(of_input).collect();
    let mut layout = vec![
        (
            "maps",
            vec![count, maps.channels(), height as usize, width as usize],
        ),
        ("features", shape(&maps.features)),
        ("variance_ratio", vec![maps.variance_ratio.len()]),
        ("logits", shape(&maps.logits)),
        ("input", input_shape),
    ];
    layout.extend(maps.saliency.iter().map(|s| ("saliency", shape(s))));
    let layout: Vec<_> = layout
        .into_iter()
        .map(|(name, shape)| (name.to_string(), shape))
        .collect();
    let mut writer = ArrayWriter::create(out, ArrayFormat::from_path(file)?, &layout, names)?;
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1]));
    {
        let mut array = writer.array("maps")?;
        for images in maps.chunks() {
            array.write(&values(&maps.map(images)?)?)?;
        }
    }
    writer.array("features")?.write(&values(&maps.features)?)?;
    let ratios: Vec<f32> = maps
        .variance_ratio
        .iter()
        .map(|&ratio| ratio as f32)
        .collect();
    writer.array("variance_ratio")?.write(&ratios)?;
    writer.array("logits")?.write(&values(&maps.logits)?)?;
    {
        let mut array = writer.array("input")?;
        for images in maps.chunks() {
            array.write(&values(&input.get(images)?)?)?;
        }
    }
    if let Some(saliency) = &maps.saliency {
        writer.array("saliency")?.write(&values(saliency)?)?;
    }
    writer.finish()?;
    Ok(())
}

/// One line per image: path, then its classes, between tabs.
fn print_classes(names: &[PathBuf], classes: &[Vec<Class>], stdout: &mut impl Write) -> Result<()> {
    let mut out = BufWriter::new(stdout);
    let printed = names.iter().zip(classes).try_for_each(|(name, classes)| {
        out.write_all(name.as_os_str().as_encoded_bytes())?;
        for class in classes {
            write!(out, "\t{class}")?;
        }
        writeln!(out)
    });
    closed_pipe_is_fine(printed.and_then(|()| out.flush()))
}

/// A reader that has seen enough (`prism | head -1`) is no error.
fn closed_pipe_is_fine(printed: io::Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
