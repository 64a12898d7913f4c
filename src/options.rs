//! What a run was asked for, as types: made once from the command line, and all
//! that anything below it knows of the flags.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use tch::Device;

use crate::cluster::som::SomOptions;
use crate::error::usage;
use crate::figure::FigureFormat;
use crate::hooks::Hooks;
use crate::map::FeatureFilter;
use crate::notices::Notices;

/// A side of an image beyond this, in pixels, is a slip of the finger, not a
/// network's input.
pub const LARGEST_SIDE: i64 = 8192;

/// Everything that one run of `prism` needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files, folders, globs, or one file of arrays.
    pub input: Vec<PathBuf>,
    /// Leave out images that cannot be read.
    pub skip_bad_images: bool,
    /// Pixels of the largest image that is decoded.
    pub max_pixels: u64,
    /// Which network, and what is read from it.
    pub model: ModelOptions,
    /// Class whose saliency is shown, by number or name; each image's own top
    /// class where none.
    pub target: Option<String>,
    /// File of the names of the classes.
    pub labels: Option<PathBuf>,
    /// Classes named for an image.
    pub top: usize,
    /// Which quantised colours are shown; all unquantised ones where none.
    pub keep: Option<FeatureFilter>,
    /// Whether the features are brought up through the guides.
    pub gradual_extrapolation: bool,
    /// Images forwarded at once, where not chosen from memory and cores; never
    /// changes the map.
    pub batch_size: Option<usize>,
    /// Bytes of intermediate results that stay in memory, where not a share of it.
    pub memory: Option<usize>,
    /// Where results go.
    pub output: OutputOptions,
    /// File of the basis of an earlier run, whose colours are taken.
    pub basis: Option<PathBuf>,
    /// How much is said on stderr.
    pub notices: Notices,
}

/// Which network, and what is read from it.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// A name, or the path of a TorchScript file.
    pub model: PathBuf,
    /// State dict for the zoo network of that name.
    pub weights: Option<PathBuf>,
    /// Never download.
    pub offline: bool,
    /// What is read of it.
    pub hooks: Hooks,
    /// Height and width, where not the network's own.
    pub image_size: Option<(i64, i64)>,
    /// Mean of the channels, where not the network's own.
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of the channels, where not the network's own.
    pub std: Option<[f64; 3]>,
    /// Where it runs.
    pub device: DeviceChoice,
    /// Threads of libtorch, where not one per core.
    pub threads: Option<usize>,
}

/// Where results go.
#[derive(Debug, Clone)]
pub struct OutputOptions {
    /// Folder of the figures.
    pub folder: PathBuf,
    /// Kind of the figures.
    pub format: FigureFormat,
    /// Whether each channel of the map has a row of its own.
    pub split_rgb: bool,
    /// File for the arrays.
    pub arrays: Option<PathBuf>,
    /// Whether the colours of each image are written for clustering.
    pub clusters: bool,
    /// Images side by side in a figure.
    pub figure_columns: usize,
    /// Opacity of a map laid over its picture in a row of its own, where there is one.
    pub overlay: Option<f64>,
    /// Whether each image has files of its own.
    pub per_image: bool,
    /// The page.
    pub report: Option<PathBuf>,
    /// Where the summary goes.
    pub json: Option<JsonTarget>,
    /// File for the basis.
    pub save_basis: Option<PathBuf>,
}

/// Where the summary goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonTarget {
    /// To standard output, in place of the lines there.
    Stdout,
    /// To a file.
    File(PathBuf),
}

impl OutputOptions {
    /// The files that are named one by one, each after its option.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let json = match &self.json {
            Some(JsonTarget::File(file)) => Some(file),
            _ => None,
        };
        [
            ("--save-arrays", self.arrays.as_ref()),
            ("--report", self.report.as_ref()),
            ("--save-basis", self.save_basis.as_ref()),
            ("--json", json),
        ]
        .into_iter()
        .filter_map(|(option, file)| Some((option, file?.as_path())))
        .collect()
    }
}

/// An opacity from 0 to 1.
///
/// # Errors
/// Where the text is none.
pub fn parse_opacity(text: &str) -> Result<f64> {
    let opacity: Option<f64> = text.trim().parse().ok();
    opacity
        .filter(|opacity| (0.0..=1.0).contains(opacity))
        .ok_or_else(|| usage("a number from 0 to 1 is expected"))
}

/// Everything that `prism som` needs to know.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// What `--cluster` wrote.
    pub file: PathBuf,
    /// The figure.
    pub output: PathBuf,
    /// Its kind.
    pub format: FigureFormat,
    /// File of the names of the classes.
    pub labels: Option<PathBuf>,
    /// How the map is trained.
    pub som: SomOptions,
    /// How much is said on stderr.
    pub notices: Notices,
}

impl Default for ModelOptions {
    fn default() -> Self {
        ModelOptions {
            model: PathBuf::from("vgg16"),
            weights: None,
            offline: false,
            hooks: Hooks::default(),
            image_size: None,
            mean: None,
            std: None,
            device: DeviceChoice::Auto,
            threads: None,
        }
    }
}

/// Where the network is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where there is a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that index.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device, where this machine has it.
    ///
    /// # Errors
    /// Where it has not.
    pub fn device(self) -> Result<Device> {
        let count = || usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto if count() > 0 => Ok(Device::Cuda(0)),
            DeviceChoice::Auto => Ok(Device::Cpu),
            DeviceChoice::Cuda(index) if index < count() => Ok(Device::Cuda(index)),
            DeviceChoice::Cuda(index) => match count() {
                0 => bail!(
                    "--device cuda:{index}: no CUDA device can be used here (no GPU or driver, or a libtorch without CUDA: `make build CUDA=1`); use --device cpu"
                ),
                count => {
                    bail!("--device cuda:{index}: there are only {count} CUDA devices, from cuda:0")
                }
            },
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<DeviceChoice> {
        let index = |text: &str| {
            text.strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => index(text)
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| usage("auto, cpu, cuda or cuda:N is expected")),
        }
    }
}

/// Height and width from `N` or `HxW`.
///
/// # Errors
/// A usage error for anything else.
pub fn parse_image_size(text: &str) -> Result<(i64, i64)> {
    let side = |text: &str| {
        text.parse::<i64>()
            .ok()
            .filter(|side| (1..=LARGEST_SIDE).contains(side))
    };
    let sides = match text.split_once(['x', 'X']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    sides.ok_or_else(|| {
        usage(format!(
            "N or HxW in pixels is expected, each from 1 to {LARGEST_SIDE}"
        ))
    })
}

/// Bytes from a number with a unit: `512M`, `2G`, `65536K` (powers of 1024).
///
/// # Errors
/// A usage error for anything else.
pub fn parse_bytes(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        _ => None,
    };
    let bytes = digits.parse::<usize>().ok().zip(shift);
    bytes
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| usage("a size with its unit is expected, such as 512M or 2G"))
}

/// A number of pixels, in millions where an M follows.
///
/// # Errors
/// A usage error for anything else, and for none at all.
pub fn parse_pixels(text: &str) -> Result<u64> {
    let (digits, unit) = match text.strip_suffix(['m', 'M']) {
        Some(digits) => (digits, 1_000_000),
        None => (text, 1),
    };
    let pixels = digits.parse::<u64>().ok();
    pixels
        .and_then(|number| number.checked_mul(unit))
        .filter(|&pixels| pixels > 0)
        .ok_or_else(|| usage("a number of pixels is expected, such as 50M or 400000"))
}

/// Three numbers from `R,G,B`, each a finite float32, in which it is used.
///
/// # Errors
/// A usage error for anything else.
pub fn parse_mean(text: &str) -> Result<[f64; 3]> {
    let finite = |number: &f64| (*number as f32).is_finite();
    let numbers: Option<Vec<f64>> = text
        .split(',')
        .map(|number| number.trim().parse().ok().filter(finite))
        .collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| usage("three numbers R,G,B are expected, such as 0.485,0.456,0.406"))
}

/// Three positive numbers from `R,G,B`, each large enough to divide by in float32.
///
/// # Errors
/// A usage error for anything else.
pub fn parse_std(text: &str) -> Result<[f64; 3]> {
    let numbers = parse_mean(text)?;
    if numbers
        .iter()
        .any(|&number| (number as f32) < f32::MIN_POSITIVE)
    {
        return Err(usage("a standard deviation must be greater than 0"));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_size_is_one_number_or_two() {
        assert_eq!(parse_image_size("224").unwrap(), (224, 224));
        assert_eq!(parse_image_size("240x320").unwrap(), (240, 320));
        for bad in [
            "", "0", "-3", "224x", "x224", "axb", "224x0", "9000", "1x2x3",
        ] {
            assert!(parse_image_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mean_is_three_finite_numbers_and_a_std_three_positive_ones() {
        assert_eq!(parse_mean("0, 0.5,-1").unwrap(), [0.0, 0.5, -1.0]);
        for bad in ["", "1", "1,2", "1,2,3,4", "a,b,c", "1,2,NaN", "1,2,inf"] {
            assert!(parse_mean(bad).is_err(), "{bad}");
        }
        assert!(parse_mean("1e39,0,0").is_err());
        assert!(parse_std("1,0,1").is_err());
        assert!(parse_std("1,1e-300,1").is_err());
        assert!(parse_std("1,-1,1").is_err());
        assert!(parse_std("1,2,1").is_ok());
    }

    #[test]
    fn pixels_are_counted_in_ones_or_millions() {
        assert_eq!(parse_pixels("400000").unwrap(), 400_000);
        assert_eq!(parse_pixels("50M").unwrap(), 50_000_000);
        for bad in ["", "M", "0", "0M", "-3", "1.5M", "2G", "99999999999999M"] {
            assert!(parse_pixels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_in_memory_has_a_unit() {
        assert_eq!(parse_bytes("512M").unwrap(), 512 << 20);
        assert_eq!(parse_bytes("2GiB").unwrap(), 2 << 30);
        assert_eq!(parse_bytes("0k").unwrap(), 0);
        for bad in ["", "512", "M", "-1M", "1.5G", "1T", "99999999999999G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_named_as_torch_names_it() {
        assert_eq!(
            "cuda:3".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(3)
        );
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        for bad in ["gpu", "cuda:", "cuda:x", "CPU ", "cuda:-1"] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
