//! Figures: pictures with titles, bars, and crosses on a grid, encoded as JPEG, PNG or SVG.
//!
//! Knows nothing of networks or tensors: pictures and numbers come in, the bytes
//! of a file come out. Text is drawn with an embedded font, so that a figure
//! looks the same on every machine (in an SVG, with the viewer's nearest font).

use std::str::FromStr;

use anyhow::Result;

use crate::error::usage;

mod clusters;
pub mod colormap;
mod maps;
mod sheet;
mod text;
mod variance;

pub use clusters::{ClusterFigure, Placed, draw_clusters};
pub use maps::{COLUMNS, Column, MOST_IMAGES, MapFigure, Panel, draw_maps, most_images};
pub use sheet::{DENSITY, MARGIN, Picture, Scaling, encode_jpeg};
pub use variance::draw_variance;

/// Kind of file that a figure becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureFormat {
    /// JPEG, quality 95, without chroma subsampling
    Jpg,
    /// PNG
    Png,
    /// SVG, its text as text and its pictures inside
    Svg,
}

impl FigureFormat {
    /// The names that [`FigureFormat::from_str`] knows.
    pub const NAMES: [&'static str; 3] = ["jpg", "png", "svg"];

    /// Extension of the file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Svg => "svg",
        }
    }
}

impl FromStr for FigureFormat {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<FigureFormat> {
        match name {
            "jpg" => Ok(Self::Jpg),
            "png" => Ok(Self::Png),
            "svg" => Ok(Self::Svg),
            _ => Err(usage(format!(
                "there is no format '{name}'; there are {}",
                Self::NAMES.join(", ")
            ))),
        }
    }
}
