//! The values of options that clap has no parser for. Each error says what is expected.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};

use super::{DeviceChoice, JsonTarget, LARGEST_SIDE};
use crate::compare::{Condition, NUMBERS};
use crate::error::Usage;
use crate::hooks::OutputChoice;
use crate::size::Size;
use crate::truth::TruthSource;

type Parsed<T> = Result<T, Usage>;

/// A clap parser of text.
pub fn text<T>(parse: fn(&str) -> Parsed<T>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(move |text| parse(&text))
}

/// A clap parser of paths, which need not be UTF-8, with one of these extensions.
pub fn path(extensions: &'static [&'static str]) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let known = extensions
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known));
        known.then_some(path).ok_or_else(|| {
            Usage(format!(
                "the file name must end in .{}",
                extensions.join(" or .")
            ))
        })
    })
}

/// A clap parser of whole numbers from `least` to `most`.
pub fn whole(least: usize, most: usize) -> impl TypedValueParser<Value = usize> {
    StringValueParser::new().try_map(move |text| {
        let number = text.parse().ok();
        expected(
            number.filter(|number| (least..=most).contains(number)),
            &format!("a whole number from {least} to {most}"),
        )
    })
}

/// A clap parser of a file, or of `-` for standard output.
pub fn json_target() -> impl TypedValueParser<Value = JsonTarget> {
    PathBufValueParser::new().map(|file| match file.to_str() {
        Some("-") => JsonTarget::Stdout,
        _ => JsonTarget::File(file),
    })
}

/// A clap parser of the words `folder` and `shards`, or of a CSV file.
pub fn truth() -> impl TypedValueParser<Value = TruthSource> {
    PathBufValueParser::new().try_map(|file| {
        let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default();
        let known = ["csv", "tsv", "txt"];
        match file.to_str() {
            Some("folder") => Ok(TruthSource::Folder),
            Some("shards") => Ok(TruthSource::Shards),
            _ if known
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known)) =>
            {
                Ok(TruthSource::Csv(file))
            }
            _ => Err(Usage(
                "the word folder or shards, or a file whose name ends in .csv, .tsv or .txt, is expected"
                    .into(),
            )),
        }
    })
}

/// A comparison of a number of two runs with a limit.
pub fn condition(text: &str) -> Parsed<Condition> {
    Condition::parse(text, &NUMBERS)
}

fn expected<T>(value: Option<T>, what: &str) -> Parsed<T> {
    value.ok_or_else(|| Usage(format!("{what} is expected")))
}

/// An opacity from 0 to 1.
pub fn opacity(text: &str) -> Parsed<f64> {
    let opacity = text.trim().parse().ok();
    expected(
        opacity.filter(|opacity| (0.0..=1.0).contains(opacity)),
        "a number from 0 to 1",
    )
}

/// An output by its name or number.
pub fn output(text: &str) -> Parsed<OutputChoice> {
    expected(
        (!text.is_empty()).then(|| OutputChoice(text.to_string())),
        "the name or number of an output",
    )
}

/// `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn device(text: &str) -> Parsed<DeviceChoice> {
    let device = match text {
        "auto" => Some(DeviceChoice::Auto),
        "cpu" => Some(DeviceChoice::Cpu),
        "cuda" => Some(DeviceChoice::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(DeviceChoice::Cuda),
    };
    expected(device, "auto, cpu, cuda or cuda:N")
}

/// Height and width from `N` or `HxW`, in pixels.
pub fn image_size(text: &str) -> Parsed<Size> {
    let side = |text: &str| {
        let side = text.parse().ok();
        side.filter(|side| (1..=LARGEST_SIDE).contains(side))
    };
    let sides = match text.split_once(['x', 'X']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    expected(
        sides.map(|(height, width)| Size::new(height, width)),
        &format!("N or HxW in pixels, each from 1 to {LARGEST_SIDE},"),
    )
}

/// Bytes from a number with a unit: `512M`, `2G`, `65536K` (powers of 1024).
pub fn bytes(text: &str) -> Parsed<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        _ => None,
    };
    let bytes = digits.parse::<usize>().ok().zip(shift);
    expected(
        bytes.and_then(|(number, shift)| number.checked_mul(1 << shift)),
        "a size with its unit, such as 512M or 2G,",
    )
}

/// A positive number of pixels, in millions if an M follows.
pub fn pixels(text: &str) -> Parsed<u64> {
    let (digits, unit) = match text.strip_suffix(['m', 'M']) {
        Some(digits) => (digits, 1_000_000),
        None => (text, 1),
    };
    let pixels = digits.parse::<u64>().ok();
    expected(
        pixels
            .and_then(|number| number.checked_mul(unit))
            .filter(|&pixels| pixels > 0),
        "a number of pixels, such as 50M or 400000,",
    )
}

/// How many images figures show, `all` or `none`.
pub fn shown(text: &str) -> Parsed<usize> {
    let count = match text {
        "all" => Some(usize::MAX),
        "none" => Some(0),
        _ => text.parse().ok().filter(|&count| count > 0),
    };
    expected(count, "a number of images, all or none")
}

/// A sample value of 16 bits that can be white.
pub fn white(text: &str) -> Parsed<u16> {
    let level = text.trim().parse().ok();
    expected(
        level.filter(|&level| level > 0),
        "a whole number from 1 to 65535",
    )
}

/// A value for each channel, or one for all.
pub type PerChannel = Vec<f64>;

/// Numbers from `R,G,B` or for other channels, each finite as the float32 in which it is used.
pub fn mean(text: &str) -> Parsed<PerChannel> {
    let finite = |number: &f64| (*number as f32).is_finite();
    let numbers: Option<Vec<f64>> = text
        .split(',')
        .map(|number| number.trim().parse().ok().filter(finite))
        .collect();
    expected(
        numbers,
        "R,G,B, numbers such as 0.485,0.456,0.406 or one for all channels,",
    )
}

/// Positive numbers from `R,G,B`, each large enough for a division in float32.
pub fn std(text: &str) -> Parsed<PerChannel> {
    let numbers = mean(text)?;
    match numbers.iter().all(|&n| (n as f32) >= f32::MIN_POSITIVE) {
        true => Ok(numbers),
        false => Err(Usage("a standard deviation must be greater than 0".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_size_is_one_number_or_two() {
        assert_eq!(image_size("224").unwrap(), Size::new(224, 224));
        assert_eq!(image_size("240x320").unwrap(), Size::new(240, 320));
        for bad in [
            "", "0", "-3", "224x", "x224", "axb", "224x0", "9000", "1x2x3",
        ] {
            assert!(image_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mean_is_finite_numbers_and_a_std_positive_ones() {
        assert_eq!(mean("0, 0.5,-1").unwrap(), [0.0, 0.5, -1.0]);
        assert_eq!(mean("0.5").unwrap(), [0.5]);
        assert_eq!(std("0.1,0.2,0.3,0.4").unwrap(), [0.1, 0.2, 0.3, 0.4]);
        for bad in ["", "1,", "1,,2", "a,b,c", "1,2,NaN", "1e39,0,0"] {
            assert!(mean(bad).is_err(), "{bad}");
        }
        assert_eq!(std("1,2,1").unwrap(), [1.0, 2.0, 1.0]);
        for bad in ["1,0,1", "1,1e-300,1", "1,-1,1", "1,2,inf"] {
            assert!(std(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn white_is_a_sample_of_16_bits() {
        assert_eq!(white("4095").unwrap(), 4095);
        for bad in ["", "0", "-1", "65536", "0xfff", "4095.5"] {
            assert!(white(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pixels_are_counted_in_ones_or_millions() {
        assert_eq!(pixels("400000").unwrap(), 400_000);
        assert_eq!(pixels("50M").unwrap(), 50_000_000);
        for bad in ["", "M", "0", "0M", "-3", "1.5M", "2G", "99999999999999M"] {
            assert!(pixels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_show_a_number_of_images_all_or_none() {
        assert_eq!(shown("4096").unwrap(), 4096);
        assert_eq!(shown("all").unwrap(), usize::MAX);
        assert_eq!(shown("none").unwrap(), 0);
        for bad in ["", "0", "-1", "1.5", "some", "All"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_in_memory_has_a_unit() {
        assert_eq!(bytes("512M").unwrap(), 512 << 20);
        assert_eq!(bytes("2GiB").unwrap(), 2 << 30);
        assert_eq!(bytes("0k").unwrap(), 0);
        for bad in ["", "512", "M", "-1M", "1.5G", "1T", "99999999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_named_as_torch_names_it() {
        assert_eq!(device("cuda:3").unwrap(), DeviceChoice::Cuda(3));
        assert_eq!(device("cuda").unwrap(), DeviceChoice::Cuda(0));
        for bad in ["gpu", "cuda:", "cuda:x", "CPU ", "cuda:-1"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
