//! The command line: flags in, [`Options`] out. Nothing else knows clap.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::cluster::som::{LARGEST_GRID, SomOptions};
use crate::error::{Hint, Usage, usage};
use crate::figure::{COLUMNS, FigureFormat, MOST_IMAGES};
use crate::hooks::{Execution, Hooks, Rule, SaliencyHook};
use crate::images::MAX_PIXELS;
use crate::map::FeatureFilter;
use crate::notices::Notices;
use crate::options::{
    ClusterOptions, DeviceChoice, JsonTarget, ModelOptions, Options, OutputOptions, parse_bytes,
    parse_image_size, parse_mean, parse_opacity, parse_pixels, parse_std,
};
use crate::saliency::Method;

const EXAMPLES: &str = "\
Examples:
  prism --input './photos/*.jpg' --model efficientnet_lite0
  prism --input wolf.jpg coyote.jpg --model vgg16 --output-dir out
  prism --input photos/ --model ./my_network.pt --image-size 256
  prism --input photos/ --model resnet50 --saliency gradcam --target tabby
  prism layers --model resnet50
  prism --input photos/ --model resnet50 --cluster && prism som 2cluster.bin";

/// Sections of the manual page that clap does not write, as roff.
const MANUAL_ENDS: &str = r"
.SH EXIT STATUS
.TP
0
Everything was written.
.TP
1
Something failed: one line on standard error says what and where.
.TP
2
A flag, value, layer or class that is not known.
.TP
128+N
Ended by signal N (130: Ctrl\-C); nothing half\-written is left.
.SH ENVIRONMENT
.TP
PRISM_MODELS
Folders, between colons, in which networks and weights are looked for after ./models.
.TP
TORCH_HOME
Where torchvision keeps its weights (else XDG_CACHE_HOME/torch, else ~/.cache/torch).
.TP
PRISM_OFFLINE
Set, and not 0: weights are never downloaded.
.TP
PRISM_WEIGHTS_URL
Address to download weights from, in place of torchvision's.
.TP
NO_COLOR
Set: no colours on the terminal.
";

/// Shows what a convolutional network has seen in images: equal colours mean
/// equal features.
#[derive(Debug, Parser)]
#[command(
    name = "prism",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,

    #[command(subcommand)]
    command: Option<CommandArgs>,
}

#[derive(Debug, Subcommand)]
enum CommandArgs {
    /// List a network's layers: name, operator, shape and role
    Layers(LayersArgs),
    /// Draw the map of clusters of a file that --cluster wrote
    Som(SomArgs),
    /// List the networks that are known by name, and where their weights are
    Models,
    /// Print what a shell needs to complete this program's options
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page (prism man | man -l -)
    Man,
}

#[derive(Debug, Args)]
struct LayersArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct SomArgs {
    /// File that --cluster wrote
    #[arg(value_name = "FILE", default_value = "2cluster.bin")]
    file: PathBuf,

    /// Figure to draw: .png, .jpg or .svg
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "results/clustering.png"
    )]
    output: PathBuf,

    /// Names of the classes: one per line, or a .json as torchvision and Keras
    /// ship it [default: ImageNet's where they fit, else numbers]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Units along each side of the map
    #[arg(long, value_name = "N", default_value_t = SomOptions::default().grid, value_parser = parsed(parse_grid))]
    grid: usize,

    /// Seed of the training; the same seed makes the same map
    #[arg(long, value_name = "N", default_value_t = SomOptions::default().seed, allow_negative_numbers = true)]
    seed: u64,

    /// Times that the training goes through all images
    #[arg(long, value_name = "N", default_value_t = SomOptions::default().epochs, value_parser = parsed(parse_epochs))]
    epochs: usize,

    /// Nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    classes: ClassArgs,
    #[command(flatten)]
    map: MapArgs,
    #[command(flatten)]
    saliency: SaliencyArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    notices: NoticeArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
struct InputArgs {
    /// Images: files, folders or quoted globs (`**` recurses); or one .npz or
    /// .safetensors file with a preprocessed array `input` [N,3,H,W]
    #[arg(short, long, value_name = "PATH", num_args = 1.., default_value = "./samples/*.jpg")]
    input: Vec<PathBuf>,

    /// Name images that cannot be read and leave them out
    #[arg(long)]
    skip_bad_images: bool,

    /// Refuse larger images before they are decoded: pixels, in millions with an M
    /// (50M). A decoded pixel takes up to 8 bytes [default: 268M]
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, hide_default_value = true, value_parser = parsed(parse_pixels))]
    max_pixels: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct ModelArgs {
    /// A network's name (prism models lists them), or the path of a
    /// TorchScript file (scripted or traced)
    #[arg(short, long, value_name = "NAME|FILE", default_value = "vgg16")]
    model: PathBuf,

    /// State dict for the network of that name (.pth, .safetensors or .ot)
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// Never download weights (also PRISM_OFFLINE=1)
    #[arg(long)]
    offline: bool,

    /// Input size of the network [default: the network's own, else 224]
    #[arg(long, value_name = "N|HxW", value_parser = parsed(parse_image_size))]
    image_size: Option<(i64, i64)>,

    /// Mean of the channels [default: the network's own, else 0.485,0.456,0.406]
    #[arg(long, value_name = "R,G,B", value_parser = parsed(parse_mean), allow_hyphen_values = true)]
    mean: Option<[f64; 3]>,

    /// Standard deviation of the channels [default: the network's own, else
    /// 0.229,0.224,0.225]
    #[arg(long, value_name = "R,G,B", value_parser = parsed(parse_std), allow_hyphen_values = true)]
    std: Option<[f64; 3]>,

    /// Rule that chooses the activations: TorchPRISM's own, or the one that
    /// suits every CNN
    #[arg(long, value_name = "RULE", default_value = "auto", value_parser = named::<Rule>(&Rule::NAMES))]
    hooks: Rule,

    /// Layer whose channels are analysed, in place of the rule's choice (see
    /// `prism layers`)
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Classes")]
struct ClassArgs {
    /// Names of the classes: one per line, or a .json as torchvision and Keras
    /// ship it [default: ImageNet's for 1000 classes, else numbers]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Classes named for each image
    #[arg(long, value_name = "K", default_value = "3", value_parser = parsed(parse_count))]
    top: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Saliency")]
struct SaliencyArgs {
    /// Fade the map where a class is not seen, and show where it is: Grad-CAM or
    /// contrastive excitation backpropagation
    #[arg(long, value_name = "METHOD", default_value = NO_SALIENCY, value_parser = named::<SaliencyChoice>(&SALIENCY_NAMES))]
    saliency: SaliencyChoice,

    /// Class to look for in all images [default: each image's own top class]
    #[arg(long, value_name = "ID|NAME", allow_negative_numbers = true)]
    target: Option<String>,

    /// Layer at which the class is looked for [default: the one whose channels
    /// are analysed]
    #[arg(long, value_name = "NAME")]
    saliency_layer: Option<String>,
}

const NO_SALIENCY: &str = "none";
const SALIENCY_NAMES: [&str; 3] = [NO_SALIENCY, Method::NAMES[0], Method::NAMES[1]];

/// A saliency method, or none.
#[derive(Debug, Clone, Copy)]
struct SaliencyChoice(Option<Method>);

impl FromStr for SaliencyChoice {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<SaliencyChoice> {
        match name {
            NO_SALIENCY => Ok(SaliencyChoice(None)),
            name => name.parse().map(Some).map(SaliencyChoice),
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Map")]
struct MapArgs {
    /// Show only the features that all images have (quantised to 27 colours)
    #[arg(long)]
    inclusive: bool,

    /// Show only the features that not all images have; with --inclusive: all of
    /// them, quantised
    #[arg(long)]
    exclusive: bool,

    /// Keep the map at the resolution of the last activation
    #[arg(long)]
    no_gradual_extrapolation: bool,

    /// Draw the red, green and blue channel below the map
    #[arg(long)]
    split_rgb: bool,

    /// Draw the map over the input too, at this opacity (0 to 1)
    #[arg(long, value_name = "ALPHA", value_parser = parsed(parse_opacity))]
    overlay: Option<f64>,

    /// Colours of an earlier run of the same network: the file that its --save-basis
    /// wrote
    #[arg(long, value_name = "FILE", value_parser = path(parse_basis), conflicts_with = "save_basis")]
    basis: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Folder for the figures
    #[arg(short, long, value_name = "FOLDER", default_value = "results")]
    output_dir: PathBuf,

    /// Kind of the figures
    #[arg(long, value_name = "FORMAT", default_value = "jpg", value_parser = named::<FigureFormat>(&FigureFormat::NAMES))]
    format: FigureFormat,

    /// Save maps, features, variance ratios, class scores, input and saliency
    /// (.npz or .safetensors)
    #[arg(long, value_name = "FILE")]
    save_arrays: Option<PathBuf>,

    /// Images side by side in a figure; the rest wraps
    #[arg(long, value_name = "N", default_value_t = COLUMNS, value_parser = parsed(parse_columns))]
    figure_columns: usize,

    /// Also two PNG files of each image, its map and the map over the input, in the
    /// folder PRISM_<model>
    #[arg(long)]
    per_image: bool,

    /// Also a page to look through: one HTML file, with a folder of pictures beside it
    /// where there are many images
    #[arg(long, value_name = "FILE", value_parser = path(parse_page))]
    report: Option<PathBuf>,

    /// Also a summary for programs as JSON; - for standard output, in
    /// place of the lines there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the components and ranges that make the colours (.safetensors), for
    /// --basis in later runs
    #[arg(long, value_name = "FILE", value_parser = path(parse_basis))]
    save_basis: Option<PathBuf>,

    /// Write the colours that each image has to 2cluster.bin, for `prism som`
    #[arg(long)]
    cluster: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Computing")]
struct ComputeArgs {
    /// Where the network runs: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parsed(DeviceChoice::from_str))]
    device: DeviceChoice,

    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = parsed(parse_count))]
    threads: Option<usize>,

    /// Images forwarded at once; the map is the same for any [default: by the
    /// network's size and the cores]
    #[arg(long, value_name = "N", value_parser = parsed(parse_count))]
    batch_size: Option<usize>,

    /// Arithmetic of the network: f32, or bf16, which is faster on processors
    /// that have it and rounds to 8 bits
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = named::<Execution>(&Execution::NAMES))]
    precision: Execution,

    /// Intermediate results that stay in memory, such as 512M or 2G; the rest goes
    /// to a temporary file in the output folder [default: a share of the memory]
    #[arg(long, value_name = "SIZE", value_parser = parsed(parse_bytes))]
    memory: Option<usize>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
struct NoticeArgs {
    /// Nothing on stderr but errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Also what was chosen and why, and how long each stage took
    #[arg(short, long)]
    verbose: bool,
}

impl From<NoticeArgs> for Notices {
    fn from(args: NoticeArgs) -> Notices {
        Notices::from_flags(args.quiet, args.verbose)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Maps of images.
    Run(Box<Options>),
    /// The table of a network's layers.
    Layers(Box<ModelOptions>, Notices),
    /// The map of clusters.
    Som(Box<ClusterOptions>),
    /// The table of known networks.
    Models,
    /// This text.
    Text(Vec<u8>),
}

/// Which option helps in a situation, for the end of an error's line.
pub fn hint(hint: Hint) -> &'static str {
    match hint {
        Hint::ImageSize => "--image-size sets another size",
        Hint::LargerImageSize => "a larger --image-size makes larger activations",
        Hint::Layer => "--layer chooses a layer by name",
        Hint::AutoRule => "--hooks auto suits every CNN",
        Hint::SaliencyLayer => "--saliency-layer chooses another layer",
        Hint::EarlierSaliencyLayer => "--saliency-layer chooses an earlier layer",
        Hint::GradCam => "--saliency gradcam works here",
        Hint::GradCamOrLaterLayer => {
            "--saliency gradcam works here, or --saliency-layer with a later layer"
        }
        Hint::Memory => "--memory sets how much stays in memory",
        Hint::MaxPixels => "scale it down, or raise --max-pixels",
        Hint::ModelFile => "give it as --model FILE",
        Hint::Labels => "give the number of a class, or --labels FILE",
        Hint::WeightsFile => "or give it with --weights FILE",
        Hint::OtherWeights => {
            "or use --model efficientnet_lite0, --weights FILE, or --model FILE.pt for TorchScript"
        }
        Hint::WeightsOffline => {
            "--offline or PRISM_OFFLINE forbids the download; or use --model efficientnet_lite0, --weights FILE, or --model FILE.pt for TorchScript"
        }
        Hint::NameForWeights => "--weights goes with the name of a network",
        Hint::FileIsWeights => "or give it with --model NAME --weights FILE",
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "prism", &mut text);
    text
}

/// The page of `prism`, and below it those of its commands.
fn manual() -> Vec<u8> {
    let mut text = Vec::new();
    let add = |command: &clap::Command, text: &mut Vec<u8>| {
        let page = clap_mangen::Man::new(command.clone().disable_help_subcommand(true));
        // Into memory nothing fails to be written.
        let _ = page.render(text);
    };
    let mut command = Cli::command();
    command.build();
    add(&command, &mut text);
    text.extend_from_slice(MANUAL_ENDS.as_bytes());
    let commands = command.get_subcommands().filter(|c| c.get_name() != "help");
    commands.for_each(|command| add(command, &mut text));
    text
}

/// Reads the command line, program name first.
///
/// # Errors
/// A [`Usage`] error, on one line, for anything that it cannot mean. `--help`
/// and `--version` print and end the process.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Usage> {
    let words: Vec<OsString> = words.into_iter().collect();
    let cli = Cli::command()
        .try_get_matches_from(&words)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => Usage(one_line(&error, command_of(&words))),
        })?;
    if let Some(command) = &cli.command
        && command_of(&words).is_none()
    {
        return Err(Usage(format!(
            "a command comes first, before its options: prism {} ...",
            match command {
                CommandArgs::Layers(_) => "layers",
                CommandArgs::Som(_) => "som",
                CommandArgs::Models => "models",
                CommandArgs::Completions { .. } => "completions",
                CommandArgs::Man => "man",
            }
        )));
    }
    Ok(match cli.command {
        Some(CommandArgs::Layers(layers)) => Request::Layers(
            Box::new(layers.model.into_options(&layers.compute)),
            Notices::from_flags(layers.quiet, false),
        ),
        Some(CommandArgs::Som(som)) => Request::Som(Box::new(som.into_options()?)),
        Some(CommandArgs::Models) => Request::Models,
        Some(CommandArgs::Completions { shell }) => Request::Text(completions(shell)),
        Some(CommandArgs::Man) => Request::Text(manual()),
        None => Request::Run(Box::new(cli.run.into_options()?)),
    })
}

impl ModelArgs {
    fn into_options(self, compute: &ComputeArgs) -> ModelOptions {
        ModelOptions {
            model: self.model,
            weights: self.weights,
            offline: self.offline,
            hooks: Hooks {
                rule: self.hooks,
                layer: self.layer,
                saliency: None,
                execution: compute.precision,
            },
            image_size: self.image_size,
            mean: self.mean,
            std: self.std,
            device: compute.device,
            threads: compute.threads,
        }
    }
}

impl SomArgs {
    fn into_options(self) -> Result<ClusterOptions, Usage> {
        let extension = self.output.extension().and_then(OsStr::to_str);
        let format = extension
            .map(|extension| extension.to_ascii_lowercase().replace("jpeg", "jpg"))
            .and_then(|extension| extension.parse().ok())
            .ok_or_else(|| {
                Usage(format!(
                    "--output {}: a figure's name ends in .{}",
                    self.output.display(),
                    FigureFormat::NAMES.join(", .")
                ))
            })?;
        Ok(ClusterOptions {
            file: self.file,
            output: self.output,
            format,
            labels: self.labels,
            som: SomOptions {
                grid: self.grid,
                seed: self.seed,
                epochs: self.epochs,
            },
            notices: Notices::from_flags(self.quiet, false),
        })
    }
}

impl RunArgs {
    fn into_options(self) -> Result<Options, Usage> {
        let asked = self.saliency;
        let saliency = asked.saliency.0.map(|method| SaliencyHook {
            method,
            layer: asked.saliency_layer.clone(),
        });
        if saliency.is_none() && (asked.target.is_some() || asked.saliency_layer.is_some()) {
            return Err(Usage(format!(
                "--target and --saliency-layer choose what --saliency shows; add --saliency {}",
                Method::NAMES.join(" or --saliency ")
            )));
        }
        if saliency.is_some() && self.compute.precision == Execution::Bfloat16 {
            return Err(Usage(
                "--precision bf16 does not go with --saliency, whose gradients are computed in f32"
                    .into(),
            ));
        }
        let mut model = self.model.into_options(&self.compute);
        model.hooks.saliency = saliency;
        Ok(Options {
            input: self.input.input,
            skip_bad_images: self.input.skip_bad_images,
            max_pixels: self.input.max_pixels,
            target: asked.target,
            labels: self.classes.labels,
            top: self.classes.top,
            keep: match (self.map.inclusive, self.map.exclusive) {
                (true, true) => Some(FeatureFilter::All),
                (true, false) => Some(FeatureFilter::Shared),
                (false, true) => Some(FeatureFilter::Unique),
                (false, false) => None,
            },
            gradual_extrapolation: !self.map.no_gradual_extrapolation,
            batch_size: self.compute.batch_size,
            memory: self.compute.memory,
            output: OutputOptions {
                folder: self.output.output_dir,
                format: self.output.format,
                split_rgb: self.map.split_rgb,
                arrays: self.output.save_arrays,
                clusters: self.output.cluster,
                figure_columns: self.output.figure_columns,
                overlay: self.map.overlay,
                per_image: self.output.per_image,
                report: self.output.report,
                json: self.output.json.map(|file| match file.to_str() {
                    Some("-") => JsonTarget::Stdout,
                    _ => JsonTarget::File(file),
                }),
                save_basis: self.output.save_basis,
            },
            basis: self.map.basis,
            notices: self.notices.into(),
            model,
        })
    }
}

/// The command that the words begin with, where they do.
fn command_of(words: &[OsString]) -> Option<&str> {
    let word = words.get(1)?;
    let known = Cli::command();
    let command = known
        .get_subcommands()
        .any(|command| command.get_name() == word);
    word.to_str().filter(|_| command)
}

fn parse_count(text: &str) -> anyhow::Result<usize> {
    parse_whole(text, 1..=4096)
}

fn parse_columns(text: &str) -> anyhow::Result<usize> {
    parse_whole(text, 1..=MOST_IMAGES)
}

fn parse_basis(path: PathBuf) -> anyhow::Result<PathBuf> {
    with_extension(path, &["safetensors"], "a basis")
}

fn parse_page(path: PathBuf) -> anyhow::Result<PathBuf> {
    with_extension(path, &["html", "htm"], "a page")
}

fn with_extension(path: PathBuf, known: &[&str], what: &str) -> anyhow::Result<PathBuf> {
    let extension = path.extension().and_then(OsStr::to_str);
    let extension = extension.map(str::to_ascii_lowercase);
    if extension.is_some_and(|extension| known.contains(&extension.as_str())) {
        return Ok(path);
    }
    Err(usage(format!(
        "the name of {what} ends in .{}",
        known.join(" or .")
    )))
}

fn parse_grid(text: &str) -> anyhow::Result<usize> {
    parse_whole(text, 2..=LARGEST_GRID)
}

fn parse_epochs(text: &str) -> anyhow::Result<usize> {
    parse_whole(text, 1..=100_000)
}

fn parse_whole(text: &str, within: RangeInclusive<usize>) -> anyhow::Result<usize> {
    let number = text.parse().ok().filter(|number| within.contains(number));
    number.ok_or_else(|| {
        usage(format!(
            "a whole number from {} to {} is expected",
            within.start(),
            within.end()
        ))
    })
}

/// A parser of clap's from one of ours.
fn parsed<T>(parse: fn(&str) -> anyhow::Result<T>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    clap::builder::StringValueParser::new().try_map(move |text| parse(&text).map_err(plain))
}

/// A parser of paths, which need not be UTF-8.
fn path(check: fn(PathBuf) -> anyhow::Result<PathBuf>) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| check(path).map_err(plain))
}

/// A parser of one of some names, which `--help` lists.
fn named<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = anyhow::Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>().map_err(plain))
}

fn plain(error: anyhow::Error) -> Usage {
    Usage(format!("{error:#}"))
}

/// clap's message of several paragraphs as one line: what is wrong, what to do.
fn one_line(error: &clap::Error, command: Option<&str>) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand
        || (error.kind() == ErrorKind::UnknownArgument
            && context(ContextKind::InvalidArg).is_some_and(|word| !word.starts_with('-')))
    {
        let word = context(ContextKind::InvalidSubcommand)
            .or_else(|| context(ContextKind::InvalidArg))
            .unwrap_or_default();
        if let Some(command) = command {
            return format!("prism {command} does not take '{word}' (prism {command} --help)");
        }
        return format!(
            "there is no command '{word}'; images go after --input: prism --input {word}"
        );
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the command line cannot be read");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let mut line = first.to_string();
    for more in
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
    {
        if let Some(tip) = more.strip_prefix("tip: ") {
            line = format!("{line}; {tip}");
        } else if more.starts_with('[') || line.ends_with(':') {
            line = format!("{line} {more}");
        }
    }
    let prism = command.map_or("prism".to_string(), |command| format!("prism {command}"));
    format!("{line} ({prism} --help lists all options)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Request, Usage> {
        parse(
            std::iter::once("prism")
                .chain(words.iter().copied())
                .map(OsString::from),
        )
    }

    fn run(words: &[&str]) -> Options {
        match parse_words(words) {
            Ok(Request::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let line = parse_words(&["completions"]).unwrap_err().0;
        assert!(line.contains("not provided: <SHELL>"), "{line}");
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_said_means_vgg16_on_the_samples() {
        let options = run(&[]);
        assert_eq!(options.input, [PathBuf::from("./samples/*.jpg")]);
        assert_eq!(options.model.model, PathBuf::from("vgg16"));
        assert!(options.gradual_extrapolation);
    }

    #[test]
    fn words_after_input_are_inputs_even_names_of_commands() {
        let options = run(&["--input", "a.jpg", "layers", "b.jpg", "--model", "vgg11"]);
        assert_eq!(
            options.input,
            ["a.jpg", "layers", "b.jpg"].map(PathBuf::from)
        );
        let options = run(&["--input", "a", "--input", "b"]);
        assert_eq!(options.input, ["a", "b"].map(PathBuf::from));
    }

    #[test]
    fn a_stray_word_gets_a_hint_at_input() {
        for words in [&["dog.jpg"][..], &["--model", "vgg16", "dog.jpg"]] {
            let Err(Usage(line)) = parse_words(words) else {
                panic!("{words:?}")
            };
            assert!(line.contains("--input dog.jpg"), "{line}");
        }
    }

    #[test]
    fn a_bad_flag_or_value_is_one_line() {
        for words in [
            &["--modle", "x"][..],
            &["--hooks", "best"],
            &["--format", "bmp"],
            &["--image-size", "0"],
            &["--std", "1,0,1"],
            &["--device", "tpu"],
            &["--threads", "0"],
            &["--batch-size", "-1"],
            &["--model"],
            &["--model", "vgg16", "layers"],
            &["layers", "--input", "x"],
        ] {
            let Err(Usage(line)) = parse_words(words) else {
                panic!("{words:?}")
            };
            assert!(!line.contains('\n') && line.len() > 20, "{words:?}: {line}");
        }
    }

    #[test]
    fn a_wrong_value_names_the_ones_there_are() {
        let Err(Usage(line)) = parse_words(&["--hooks", "best"]) else {
            panic!()
        };
        assert!(
            line.contains("auto") && line.contains("torchprism"),
            "{line}"
        );
    }
}
