//! Networks: the zoo, and finding and reading their files.

mod alexnet;
mod archive;
mod densenet;
pub mod download;
mod efficientnet_lite;
pub mod exported;
mod googlenet;
mod layers;
pub mod locate;
mod metadata;
mod network;
pub mod onnx;
mod preprocessing;
pub mod search_path;
mod transform_input;
mod vgg;
pub mod weights;
pub mod zoo;

pub use crate::notices::Notices;
pub use crate::options::{ComputeOptions, DeviceChoice, ModelOptions};
pub use metadata::ModelMetadata;
pub use network::Network;
pub use preprocessing::Preprocessing;
