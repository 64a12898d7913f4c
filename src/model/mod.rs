//! Networks: the zoo, where its weights are found, and how they are read.

mod about;
pub mod alexnet;
pub mod densenet;
pub mod download;
pub mod efficientnet_lite;
pub mod googlenet;
mod layers;
pub mod locate;
mod network;
pub mod search_path;
mod transform_input;
pub mod vgg;
pub mod weights;
pub mod zoo;

pub use crate::notices::Notices;
pub use crate::options::{ComputeOptions, DeviceChoice, ModelOptions};
pub use about::About;
pub use network::Network;
