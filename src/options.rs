//! The options of prism, each declared once: its flag, its help, its type and its default.
//! Each stage of a run takes the group that it needs.

mod values;

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use tch::Device;

use crate::arrays::ArrayType;
use crate::cluster::som::{LARGEST_GRID, SomOptions, grid_for};
use crate::compare::Condition;
use crate::error::{Hint, hinted, usage};
use crate::figure::{COLUMNS, FigureFormat, MOST_IMAGES, Palette};
use crate::hooks::{
    self, Hooks, OutputChoice, Precision, Rule, SaliencyHook, ScoreHook, Upsampling,
};
use crate::images::{MAX_PIXELS, Resize};
use crate::joint::{Group, Joint};
use crate::map::FeatureFilter;
use crate::notices::Notices;
use crate::saliency::Method;
use crate::scores::ScoreKind;
use crate::size::Size;
use crate::truth::TruthSource;
use values::{PerChannel, whole};

/// The longest side of an input, pixels. A longer one is a typing error rather than the
/// input of a network.
pub const LARGEST_SIDE: i64 = 8192;

/// Name of the cluster file. It lies in the working folder, as TorchPRISM's does, unless the user
/// chooses a folder.
pub const CLUSTER_FILE: &str = "2cluster.bin";

/// Images that figures show unless more are asked for.
pub const SHOWN: usize = 4096;

/// A run of `prism`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The images.
    #[command(flatten)]
    pub input: InputOptions,
    /// The network, and which of its layers are read.
    #[command(flatten)]
    pub model: ModelOptions,
    /// The classes.
    #[command(flatten)]
    pub classes: ClassOptions,
    /// The map.
    #[command(flatten)]
    pub map: MapChoices,
    /// The saliency.
    #[command(flatten)]
    pub saliency: SaliencyOptions,
    /// The results.
    #[command(flatten)]
    pub output: OutputOptions,
    /// How it is computed.
    #[command(flatten)]
    pub compute: ComputeOptions,
    /// How much is written to standard error.
    #[command(flatten)]
    pub notices: NoticeOptions,
}

/// The images.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Input")]
pub struct InputOptions {
    /// Images, as those after --input
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,

    /// Files, folders, tar archives or quoted globs
    ///
    /// In a glob, `**` recurses. Of a tar archive the images in it are read, without unpacking it;
    /// 'x/{0000..0127}.tar' names 128 of them. @FILE names a file with paths, one a line, and - reads such a
    /// list from standard input. Or one .npz or .safetensors file with a preprocessed array
    /// `input` [N,C,H,W].
    #[arg(short = 'i', long = "input", value_name = "PATH", num_args = 1.., default_value = "./samples/*.jpg", default_value_if("images", ArgPredicate::IsPresent, None))]
    pub paths: Vec<PathBuf>,

    /// Paths in lists end with a zero byte, as find -print0 writes them
    #[arg(short = '0', long = "null", hide_short_help = true)]
    pub null: bool,

    /// Name images that cannot be read, and leave them out
    #[arg(long, hide_short_help = true)]
    pub skip_bad_images: bool,

    /// Refuse images with more pixels before they are decoded; an M stands for millions
    /// (50M). A decoded pixel takes up to 8 bytes [default: 268M]
    #[arg(long, value_name = "N", hide_short_help = true, default_value_t = MAX_PIXELS, hide_default_value = true, value_parser = values::text(values::pixels))]
    pub max_pixels: u64,

    /// Sample of 16-bit images that becomes white, such as 4095 for 12 bits; higher ones
    /// become white, too. Images of 8 bits do not change [default: 65535]
    #[arg(long, value_name = "LEVEL", hide_short_help = true, value_parser = values::text(values::white))]
    pub white: Option<u16>,

    /// Decode all pixels of large images
    ///
    /// Otherwise an image with at least six times as many pixels along each side as the network
    /// sees is reduced by 2, 4 or 8 while it is decoded, if that divides its sides. --hooks
    /// torchprism always decodes all pixels.
    #[arg(long, hide_short_help = true)]
    pub exact_decode: bool,

    /// How images are brought to the input size [default: stretch]
    #[arg(long, value_name = "HOW", hide_short_help = true, value_enum)]
    pub resize: Option<Resize>,
}

/// The network, and which of its layers are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct ModelOptions {
    /// Network by name, or its file
    ///
    /// prism models lists the names. A file is one of torch.export (.pt2), TorchScript or ONNX; its
    /// path has a separator, or the extension .pt2, .pt, .onnx, .pth or .torchscript. Unless the option is
    /// given, weights that are not here are not downloaded.
    #[arg(short, long, value_name = "NAME|FILE", default_value = "vgg16")]
    pub model: PathBuf,

    /// Whether the user did not choose the network.
    #[arg(skip)]
    pub is_assumed: bool,

    /// State dict for the network of that name
    ///
    /// A .pth, .safetensors or .ot file.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,

    /// Never download weights (also PRISM_OFFLINE=1)
    #[arg(long, hide_short_help = true)]
    pub offline: bool,

    /// Input size of the network in pixels
    ///
    /// [default: the network's own, else 224]
    #[arg(long, value_name = "N|HxW", value_parser = values::text(values::image_size))]
    pub image_size: Option<Size>,

    /// Mean of the channels in the network's order, of pixels from 0 to 1; one value counts
    /// for all channels [default: the network's own, else 0.485,0.456,0.406, and 0.449 of grey]
    #[arg(long, value_name = "R,G,B", hide_short_help = true, value_parser = values::text(values::mean), allow_hyphen_values = true)]
    pub mean: Option<PerChannel>,

    /// Standard deviation of the channels, as the mean [default: the network's own, else
    /// 0.229,0.224,0.225, and 0.226 of grey]
    #[arg(long, value_name = "R,G,B", hide_short_help = true, value_parser = values::text(values::std), allow_hyphen_values = true)]
    pub std: Option<PerChannel>,

    /// The network takes blue, green and red, in this order (as Caffe's and OpenCV's do);
    /// --mean and --std are in this order, too
    #[arg(long, hide_short_help = true)]
    pub bgr: bool,

    /// Rule that selects the activations: for any CNN, or TorchPRISM's own
    #[arg(
        long = "hooks",
        value_name = "RULE",
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub rule: Rule,

    /// Output with the class scores, if the network returns several tensors: its name (the
    /// key of a dictionary), or its number, counted from 0 [default: the one that looks most
    /// like class scores]
    #[arg(long, value_name = "N|NAME", hide_short_help = true, value_parser = values::text(values::output))]
    pub output: Option<OutputChoice>,

    /// What the class scores are: logits of exclusive classes (softmax), a logit for each
    /// class by itself (sigmoid), percentages, or shown as they are (none) [default: what the
    /// network shows, else softmax; sigmoid for one score]
    #[arg(long, value_name = "KIND", hide_short_help = true, value_enum)]
    pub scores: Option<ScoreKind>,

    /// Layer whose channels are analysed
    ///
    /// In place of the choice of --hooks; prism layers lists the layers.
    #[arg(long, value_name = "NAME")]
    pub layer: Option<String>,
}

/// The classes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Classes")]
pub struct ClassOptions {
    /// Class names
    ///
    /// One per line, or a .json file in the format of torchvision or Keras; or the word imagenet
    /// [default: the network's own, ImageNet's for the networks of prism models, else numbers].
    #[arg(long, value_name = "FILE|imagenet")]
    pub labels: Option<PathBuf>,

    /// True classes of the images
    ///
    /// The word folder, if each image lies in a folder with the name of its class; the word shards,
    /// if a .cls or .json beside each image in a tar archive says it; or a CSV file with the path or
    /// file name of each image and its class. A class is given by its name or number. The run then
    /// says how many top classes are right.
    #[arg(long, value_name = "folder|shards|FILE.csv", hide_short_help = true, value_parser = values::truth())]
    pub truth: Option<TruthSource>,

    /// Number of classes named for each image
    #[arg(long, value_name = "K", default_value = "3", value_parser = whole(1, 4096))]
    pub top: usize,
}

/// The saliency.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Saliency")]
pub struct SaliencyOptions {
    /// Show where the class was seen
    ///
    /// A row below the map shows the saliency, and a line on the map surrounds the places of at
    /// least half of the largest: by Grad-CAM or contrastive excitation backpropagation.
    #[arg(long = "saliency", value_name = "METHOD", value_enum, default_value_t)]
    pub method: SaliencyChoice,

    /// Class whose saliency is shown
    ///
    /// For all images [default: each image's top class].
    #[arg(long, value_name = "ID|NAME", allow_negative_numbers = true)]
    pub target: Option<String>,

    /// Layer at which the saliency is computed [default: the layer whose channels are
    /// analysed]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub saliency_layer: Option<String>,
}

/// A saliency method, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SaliencyChoice {
    #[default]
    None,
    Gradcam,
    ExctBackp,
}

/// The map.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Map")]
pub struct MapChoices {
    /// Show only the features that all images share
    ///
    /// They are quantised to 27 colours.
    #[arg(long)]
    pub inclusive: bool,

    /// Show only the features that some images lack
    ///
    /// They are quantised to 27 colours. With --inclusive: all features, quantised.
    #[arg(long)]
    pub exclusive: bool,

    /// How the three components become colours
    ///
    /// In figures and pages; arrays have the components themselves.
    #[arg(long, value_name = "PALETTE", value_enum, default_value_t)]
    pub palette: Palette,

    /// How the features are upsampled, instead of the way of --hooks
    #[arg(long, value_name = "WAY", hide_short_help = true)]
    pub upsampling: Option<Upsampling>,

    /// Leave the map at the resolution of the analysed activation: --upsampling none
    #[arg(long, hide_short_help = true, conflicts_with = "upsampling")]
    pub no_gradual_extrapolation: bool,

    /// Do not name the colours
    ///
    /// Places of all images are not grouped, and figure, page and summary have no key.
    #[arg(long, hide_short_help = true)]
    pub no_legend: bool,

    /// Use the colours of an earlier run
    ///
    /// It must be of the same network; its --save-basis wrote the file.
    #[arg(long, value_name = "FILE", value_parser = values::path(&["safetensors"]), conflicts_with = "save_basis")]
    pub basis: Option<PathBuf>,
}

/// The results.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Folder for the figures
    #[arg(
        short = 'o',
        long = "output-dir",
        value_name = "FOLDER",
        default_value = "results"
    )]
    pub folder: PathBuf,

    /// Whether the user chose the folder.
    #[arg(skip)]
    pub has_folder: bool,

    /// Draw the three components one by one below the map
    #[arg(long, hide_short_help = true, help_heading = "Map")]
    pub split_rgb: bool,

    /// Also draw the map over the input
    ///
    /// At this opacity, from 0 to 1.
    #[arg(long, value_name = "ALPHA", help_heading = "Map", value_parser = values::text(values::opacity))]
    pub overlay: Option<f64>,

    /// Show images in the shape of the network's input, instead of their own
    #[arg(long, hide_short_help = true)]
    pub square: bool,

    /// File format of the figures
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: FigureFormat,

    /// Save the numbers
    ///
    /// Maps, features, leading components, variance ratios, class scores, input and saliency, as .npz
    /// or .safetensors. With --json the run can be compared (prism compare).
    #[arg(long, value_name = "FILE")]
    pub save_arrays: Option<PathBuf>,

    /// Arrays that --save-arrays saves, by name: maps,features [default: all]
    #[arg(
        long,
        value_name = "NAME,...",
        hide_short_help = true,
        value_enum,
        value_delimiter = ','
    )]
    pub arrays: Option<Vec<ArrayName>>,

    /// Type of the saved numbers: u8 stores maps and left_out as bytes, 255 being 1; f16
    /// stores all but logits, probabilities and variance_ratio in 16 bits; other arrays are f32
    #[arg(
        long,
        value_name = "TYPE",
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub array_type: ArrayType,

    /// Images that figures and the files of --per-image show, evenly taken from all: a number,
    /// all or none
    #[arg(long, value_name = "N|all|none", hide_short_help = true, default_value_t = SHOWN, value_parser = values::text(values::shown))]
    pub figures: usize,

    /// Images side by side in a figure; further images start a new block
    #[arg(long, value_name = "N", hide_short_help = true, default_value_t = COLUMNS, value_parser = whole(1, MOST_IMAGES))]
    pub figure_columns: usize,

    /// Also write two PNG files for each image
    ///
    /// Its map and the map over the input, in the folder PRISM_<model>.
    #[arg(long)]
    pub per_image: bool,

    /// Also write a page for a browser
    ///
    /// One HTML file, with a folder of pictures beside it if there are many images.
    #[arg(long, value_name = "FILE", value_parser = values::path(&["html", "htm"]))]
    pub report: Option<PathBuf>,

    /// Also write a summary as JSON
    ///
    /// The file - is standard output, in place of the lines. A file FILE.jsonl has a line for the run
    /// and one for each image.
    #[arg(long, value_name = "FILE", value_parser = values::json_target())]
    pub json: Option<JsonTarget>,

    /// Save the colours for --basis
    ///
    /// The components and ranges that define the colours, as .safetensors.
    #[arg(long, value_name = "FILE", value_parser = values::path(&["safetensors"]))]
    pub save_basis: Option<PathBuf>,

    /// Also write a file for prism som
    ///
    /// It has the colours of each image. --cluster=FILE names it; otherwise it is 2cluster.bin, in
    /// the folder of --output-dir if that is given, else in the working folder.
    #[arg(long, value_name = "FILE", require_equals = true)]
    pub cluster: Option<Option<PathBuf>>,

    /// The whole command line, which the figures' files hold.
    #[arg(skip)]
    pub command: String,
}

/// An array that a run saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ArrayName {
    Maps,
    Features,
    VarianceRatio,
    Logits,
    Probabilities,
    Input,
    Components,
    Lengths,
    Saliency,
    LeftOut,
}

impl ArrayName {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            ArrayName::Maps => "maps",
            ArrayName::Features => "features",
            ArrayName::VarianceRatio => "variance_ratio",
            ArrayName::Logits => "logits",
            ArrayName::Probabilities => "probabilities",
            ArrayName::Input => "input",
            ArrayName::Components => "components",
            ArrayName::Lengths => "lengths",
            ArrayName::Saliency => "saliency",
            ArrayName::LeftOut => "left_out",
        }
    }
}

/// Where the summary goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonTarget {
    /// To standard output, in place of the lines there.
    Stdout,
    /// To a file.
    File(PathBuf),
}

/// Where and how much at once the network computes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeOptions {
    /// Where the network runs: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", hide_short_help = true, default_value = "auto", value_parser = values::text(values::device))]
    pub device: DeviceChoice,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = whole(1, 4096))]
    pub threads: Option<usize>,

    /// Images forwarded at once; does not change the map [default: chosen from the
    /// network's size and the device]
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = whole(1, 4096))]
    pub batch_size: Option<usize>,

    /// Arithmetic of the network: bf16 rounds to 8 bits, and is faster on GPUs and on processors
    /// that support it; f16 rounds to 11 bits, on GPUs alone
    #[arg(
        long,
        value_name = "TYPE",
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub precision: Precision,

    /// Seed of the random numbers of a network that draws any
    #[arg(long, value_name = "N", hide_short_help = true, default_value_t, value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: i64,

    /// Whether several processes, which srun or torchrun started, make one map of all their images
    ///
    /// Each takes a part of the images (docs/clusters.md).
    #[arg(
        long,
        value_name = "WHEN",
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub joint: Joint,

    /// Intermediate results that stay in memory, such as 512M or 2G; the rest goes
    /// to a temporary file (--spool) [default: a share of the memory]
    #[arg(long, value_name = "SIZE", hide_short_help = true, value_parser = values::text(values::bytes))]
    pub memory: Option<usize>,

    /// Folder of the temporary file for intermediate results that do not fit in memory, which
    /// never has a name there [default: the output folder, in a joint run that of TMPDIR]
    #[arg(long, value_name = "FOLDER", hide_short_help = true)]
    pub spool: Option<PathBuf>,
}

/// Messages on standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Messages")]
pub struct NoticeOptions {
    /// Print nothing but errors on standard error
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also print choices, reasons and times
    #[arg(short, long)]
    pub verbose: bool,
}

/// A run of `prism som`.
#[derive(Debug, Clone, Args)]
pub struct ClusterOptions {
    /// File that --cluster wrote
    #[arg(value_name = "FILE", default_value = CLUSTER_FILE)]
    pub file: PathBuf,

    /// Figure to draw: .png, .jpg or .svg
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "results/clustering.png"
    )]
    pub output: PathBuf,

    /// Class names: one per line, or a .json file in the format of torchvision or Keras; or
    /// the word imagenet [default: numbers]
    #[arg(long, value_name = "FILE|imagenet")]
    pub labels: Option<PathBuf>,

    /// Units along each side of the map [default: by the number N of images, so that the map has
    /// about 5 sqrt(N) units]
    #[arg(long, value_name = "N", value_parser = whole(2, LARGEST_GRID))]
    pub grid: Option<usize>,

    /// Draw the photographs, in place of marks; the file has their paths as that run was given
    /// them
    #[arg(long)]
    pub thumbnails: bool,

    /// Seed of the training; the same seed makes the same map
    #[arg(long, value_name = "N", default_value_t = SomOptions::default().seed, allow_negative_numbers = true)]
    pub seed: u64,

    /// Number of passes over all images in training
    #[arg(long, value_name = "N", default_value_t = SomOptions::default().epochs, value_parser = whole(1, 100_000))]
    pub epochs: usize,

    /// Print nothing but errors on standard error
    #[arg(short, long)]
    pub quiet: bool,

    /// The whole command line, which the figure's file holds.
    #[arg(skip)]
    pub command: String,
}

/// A run of `prism compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareOptions {
    /// Summary of a run, which --json wrote beside --save-arrays
    #[arg(value_name = "A.json")]
    pub a: PathBuf,

    /// Summary of the run to compare with it
    #[arg(value_name = "B.json")]
    pub b: PathBuf,

    /// Arrays of A, if they are not where its summary says
    #[arg(long, value_name = "FILE")]
    pub arrays_a: Option<PathBuf>,

    /// Arrays of B, likewise
    #[arg(long, value_name = "FILE")]
    pub arrays_b: Option<PathBuf>,

    /// End with status 3 if this holds; may be given several times
    ///
    /// A number, <, <=, > or >=, and a limit: 'top1_changed > 0.02' or 'cka_debiased < 0.9'. The
    /// numbers are top1_changed, probability_change, accuracy_a, accuracy_b, accuracy_change, cka,
    /// cka_debiased, images, only_a and only_b. A condition on a number that is not known is an
    /// error.
    #[arg(long, value_name = "CONDITION", value_parser = values::text(values::condition), allow_hyphen_values = true)]
    pub fail_if: Vec<Condition>,

    /// Also write the comparison as JSON
    ///
    /// The file - is standard output, in place of the table.
    #[arg(long, value_name = "FILE", value_parser = values::json_target())]
    pub json: Option<JsonTarget>,

    /// Also write a page with the maps of both runs side by side
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Print nothing but errors on standard error
    #[arg(short, long)]
    pub quiet: bool,
}

/// A run of `prism report`.
#[derive(Debug, Clone, Args)]
pub struct ReportOptions {
    /// Summary of a run, which --json wrote beside --save-arrays
    #[arg(value_name = "RUN.json")]
    pub run: PathBuf,

    /// Arrays of the run, if they are not where its summary says
    #[arg(long, value_name = "FILE")]
    pub arrays: Option<PathBuf>,

    /// The page
    #[arg(short, long, value_name = "FILE.html", default_value = "page.html")]
    pub output: PathBuf,

    /// Print nothing but errors on standard error
    #[arg(short, long)]
    pub quiet: bool,
}

impl Options {
    /// What is read of the network.
    pub fn hooks(&self) -> Hooks {
        Hooks {
            saliency: self.saliency.method().map(|method| SaliencyHook {
                method,
                layer: self.saliency.saliency_layer.clone(),
            }),
            upsampling: self.map.upsampling(),
            scores_of_features: !self.map.no_legend,
            ..self.model.hooks(&self.compute)
        }
    }
}

impl MapChoices {
    /// Another upsampling than the rule's.
    fn upsampling(&self) -> Option<Upsampling> {
        match self.no_gradual_extrapolation {
            true => Some(Upsampling::None),
            false => self.upsampling,
        }
    }
}

impl InputOptions {
    /// The images, however they are given.
    pub fn all(&self) -> Vec<PathBuf> {
        [self.images.as_slice(), &self.paths].concat()
    }
}

impl OutputOptions {
    /// The cluster file, if one is to be written.
    pub fn cluster_file(&self) -> Option<PathBuf> {
        let given = self.cluster.as_ref()?;
        Some(match given {
            Some(file) => file.clone(),
            None if self.has_folder => self.folder.join(CLUSTER_FILE),
            None => PathBuf::from(CLUSTER_FILE),
        })
    }

    /// Whether an array is to be saved.
    pub fn saves(&self, array: ArrayName) -> bool {
        let is_chosen = |chosen: &Vec<ArrayName>| chosen.contains(&array);
        self.save_arrays.is_some() && self.arrays.as_ref().is_none_or(is_chosen)
    }
}

impl JsonTarget {
    /// Whether it is a stream of lines: a file whose name ends in .jsonl.
    pub fn is_lines(&self) -> bool {
        match self {
            JsonTarget::Stdout => false,
            JsonTarget::File(file) => file
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl")),
        }
    }
}

impl SaliencyOptions {
    /// The method, if there is to be a saliency.
    pub fn method(&self) -> Option<Method> {
        match self.method {
            SaliencyChoice::None => None,
            SaliencyChoice::Gradcam => Some(Method::GradCam),
            SaliencyChoice::ExctBackp => Some(Method::ContrastiveExcitationBackprop),
        }
    }
}

impl ModelOptions {
    /// What is read of the network, without saliency.
    pub fn hooks(&self, compute: &ComputeOptions) -> Hooks {
        Hooks {
            scores_of_features: false,
            rule: self.rule,
            layer: self.layer.clone(),
            scores: ScoreHook {
                output: self.output.clone(),
                kind: self.scores,
                names: None,
            },
            saliency: None,
            upsampling: None,
            precision: compute.precision,
            seed: compute.seed,
            channels: None,
        }
    }
}

impl Default for ModelOptions {
    fn default() -> Self {
        ModelOptions {
            model: PathBuf::from("vgg16"),
            is_assumed: false,
            weights: None,
            offline: false,
            image_size: None,
            mean: None,
            std: None,
            bgr: false,
            rule: Rule::default(),
            output: None,
            scores: None,
            layer: None,
        }
    }
}

impl MapChoices {
    /// Which quantised colours are shown; none if all features are shown unquantised.
    pub fn filter(&self) -> Option<FeatureFilter> {
        match (self.inclusive, self.exclusive) {
            (true, true) => Some(FeatureFilter::All),
            (true, false) => Some(FeatureFilter::Shared),
            (false, true) => Some(FeatureFilter::Unique),
            (false, false) => None,
        }
    }
}

impl NoticeOptions {
    /// How much is written to standard error.
    pub fn level(&self) -> Notices {
        Notices::from_flags(self.quiet, self.verbose)
    }
}

impl ClusterOptions {
    /// The format of the figure, from the extension of its file.
    ///
    /// # Errors
    /// Returns a usage error for an unknown extension.
    pub fn format(&self) -> Result<FigureFormat> {
        let extension = self.output.extension().and_then(OsStr::to_str);
        let extension = extension.unwrap_or_default().to_ascii_lowercase();
        FigureFormat::from_str(&extension.replace("jpeg", "jpg"), false).map_err(|_| {
            let shown = self.output.display();
            usage(format!(
                "{shown}: the name of a figure must end in .jpg, .png or .svg"
            ))
        })
    }

    /// How the self-organising map of that many images is trained.
    pub fn training(&self, images: usize) -> SomOptions {
        SomOptions {
            grid: self.grid.unwrap_or_else(|| grid_for(images)),
            seed: self.seed,
            epochs: self.epochs,
        }
    }
}

/// Where the network runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with that index.
    Cuda(usize),
}

impl ComputeOptions {
    /// For one of several ranks on a host: a GPU of its own, and its share of the processors.
    pub fn for_rank(&self, group: &Group) -> ComputeOptions {
        let Some(local) = group.local_rank() else {
            return self.clone();
        };
        let gpus = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ComputeOptions {
            device: match self.device {
                DeviceChoice::Auto if gpus > 0 => DeviceChoice::Cuda(local % gpus),
                device => device,
            },
            threads: Some(self.threads.unwrap_or((cores / group.sharing()).max(1))),
            ..self.clone()
        }
    }
}

impl DeviceChoice {
    /// The device, ready for use.
    ///
    /// # Errors
    /// Returns an error if this machine does not have it, or if it does not compute.
    pub fn device(self) -> Result<Device> {
        let device = self.find()?;
        hooks::prepare(device).map_err(|error| match device {
            Device::Cuda(index) => hinted(format!("cuda:{index}: {error:#}"), Hint::Cpu),
            _ => error,
        })?;
        Ok(device)
    }

    fn find(self) -> Result<Device> {
        let count = || usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto if count() > 0 => Ok(Device::Cuda(0)),
            DeviceChoice::Auto => Ok(Device::Cpu),
            DeviceChoice::Cuda(index) if index < count() => Ok(Device::Cuda(index)),
            DeviceChoice::Cuda(index) => Err(hinted(
                match count() {
                    0 => format!(
                        "cuda:{index}: no CUDA device can be used here: there is no GPU or driver, or libtorch lacks CUDA; see `make build CUDA=1`"
                    ),
                    1 => format!("cuda:{index}: the only CUDA device is cuda:0"),
                    count => {
                        format!("cuda:{index}: there are only {count} CUDA devices, from cuda:0")
                    }
                },
                Hint::Cpu,
            )),
        }
    }
}
