//! PRISM: what a convolutional network has seen, as colours.
//!
//! A principal component analysis over the channels of a network's last convolutional
//! activation, of all images together, gives three numbers for each place of each image:
//! red, green and blue (T. Szandała and H. Maciejewski, "PRISM: Principal image sections
//! mapping", ICCS 2022). Earlier activations sharpen the picture (T. Szandała, "Enhancing
//! deep neural network saliency visualizations with gradual extrapolation", IEEE Access 9,
//! 2021).
//!
//! Data flows one way: [`images`] become a batch, [`hooks`] run it through a network of
//! [`model`] and read activations and [`saliency`], [`map`] turns those into colours,
//! [`figure`] draws them, and [`arrays`] writes the numbers. `examples/library.rs` shows each
//! step.
#![warn(missing_docs)]

pub mod arrays;
pub mod figure;
pub mod hooks;
pub mod images;
pub mod labels;
pub mod map;
pub mod model;
pub mod saliency;
pub mod saved;
pub mod scores;
mod size;

pub(crate) mod classes;
pub(crate) mod cli;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod error;
mod heap;
pub(crate) mod joint;
mod names;
pub(crate) mod notices;
pub(crate) mod numbered;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod remarks;
mod report;
pub(crate) mod run;
pub(crate) mod sample;
pub(crate) mod settings;
pub(crate) mod spool;
pub(crate) mod summary;
pub(crate) mod temporary;
mod threads;
pub(crate) mod truth;

pub use size::Size;

/// What the program itself, tests, benches and fuzz targets use beside the public modules.
/// It may change in any version.
#[doc(hidden)]
pub mod internals {
    pub use crate::cli::{Request, line, parse};
    pub use crate::cluster::{MOST_FEATURES, Row, pickle};
    pub use crate::error::{Usage, is_usage};
    pub use crate::heap::with_retained_heap;
    pub use crate::joint::failed;
    pub use crate::notices::say;
    pub use crate::run::{
        compare, print_help, print_layers, print_models, print_text, report, run, som,
    };
    pub use crate::spool::Spool;
    pub use crate::temporary::clear_pending;
}
