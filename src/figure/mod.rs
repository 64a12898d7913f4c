//! Figures: pictures with titles, bars, and crosses on a grid, encoded as JPEG, PNG or SVG.
//!
//! Knows nothing of networks or tensors: pictures and numbers come in, the bytes
//! of a file come out. Text is drawn with an embedded font, so that a figure
//! looks the same on every machine (in an SVG, with the viewer's nearest font).

mod clusters;
pub mod colormap;
mod contour;
mod maps;
mod palette;
mod sheet;
mod text;
mod variance;

pub use clusters::{ClusterFigure, Placed, draw_clusters};
pub use contour::draw_contour;
pub use maps::{
    COLUMNS, ColourBar, Column, KeyEntry, LARGEST_RATIO, MOST_IMAGES, MapFigure, Panel, Swatch,
    draw_maps, drawn_size, most_images,
};
pub use palette::Palette;
pub use sheet::{DENSITY, MARGIN, Picture, Scaling, encode_jpeg};
pub use text::has_glyphs;
pub use variance::draw_variance;

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
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Svg => "svg",
        }
    }
}
