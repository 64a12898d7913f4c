//! All integration tests: one binary, so that prism is linked once. A module is one subject;
//! `cargo test --test it cli::` runs one module.

mod common;

mod arrays;
mod bad_input;
mod cli;
mod cli_classes;
mod cli_outputs;
mod cluster;
mod compare;
mod exported;
mod faults;
mod heads;
mod hostile;
mod hosts;
mod images;
mod joint;
mod key;
mod loading;
mod many;
mod networks;
mod onnx;
mod parity;
mod preprocessing;
mod properties;
mod report;
mod saliency;
mod scores;
mod tars;
mod terminal;
mod units;
mod weights;
mod zoo;
