//! Figures: pictures with titles, charts, and marks on a grid, encoded as JPEG, PNG or SVG.
//!
//! Knows nothing of networks or tensors: pictures and numbers come in, the bytes
//! of a file come out. Text is drawn with an embedded font, so that a figure
//! looks the same on every machine (in an SVG, with the viewer's nearest font).

mod about;
mod clusters;
pub mod colormap;
mod contour;
mod encode;
mod maps;
mod palette;
mod paper;
mod sheet;
mod text;
mod variance;

pub use about::About;
pub use clusters::{ClusterFigure, Placed, draw_clusters, thumbnail_side};
pub use contour::draw_contour;
pub use encode::{DENSITY, encode_jpeg, encode_png};
pub use maps::{
    COLUMNS, ColourBar, Column, KeyEntry, KeyPart, LARGEST_RATIO, MOST_IMAGES, MapFigure, Panel,
    Swatch, draw_maps, drawn_size, most_images,
};
pub use palette::Palette;
pub use sheet::{MARGIN, Picture, Scaling};
pub use text::{has_glyphs, legible};
pub use variance::draw_variance;

use crate::names::name_of;

/// Colours of text.
const INK: colormap::Rgb = [26, 26, 28];
const SOFT_INK: colormap::Rgb = [92, 94, 100];

/// Kind of file that a figure becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FigureFormat {
    #[default]
    /// JPEG, quality 95, without chroma subsampling
    Jpg,
    /// PNG
    Png,
    /// SVG, its text as text and its pictures inside
    Svg,
}

impl FigureFormat {
    /// Extension of the file's name, without the dot.
    pub fn extension(self) -> String {
        name_of(&self)
    }
}
