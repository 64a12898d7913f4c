//! PRISM: what a convolutional network has seen, as colours.
//!
//! A principal component analysis over the channels of a network's last convolutional
//! activation, of all images together, gives three numbers for each place of each image:
//! red, green and blue (T. Szandała and H. Maciejewski, "PRISM: Principal image sections
//! mapping", ICCS 2022). Earlier activations sharpen the picture (T. Szandała, "Enhancing
//! deep neural network saliency visualizations with gradual extrapolation", IEEE Access 9,
//! 2021).
//!
//! Data flows one way, through the modules in this order: [`images`] become a [`batch`];
//! [`hooks`] run it through a network of [`model`] and read activations and [`saliency`];
//! [`map`] makes colours of them; [`figure`] and [`report`] draw those, [`arrays`] and
//! [`summary`] write the numbers, and [`cluster`] orders images by them. [`run`] is all of
//! it, as [`options`] say. `examples/library.rs` does it step by step.
#![warn(missing_docs)]

pub mod arrays;
pub mod batch;
pub mod classes;
pub mod cli;
pub mod cluster;
pub mod error;
pub mod figure;
pub mod hooks;
pub mod images;
pub mod labels;
pub mod map;
pub mod model;
pub mod notices;
pub mod options;
pub mod output;
pub mod report;
pub mod run;
pub mod saliency;
pub mod spool;
pub mod summary;
pub mod temporary;
mod threads;
