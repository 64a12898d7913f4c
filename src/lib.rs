//! PRISM: what a convolutional network has seen, as colours.

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
