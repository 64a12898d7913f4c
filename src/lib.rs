//! PRISM: what a convolutional network has seen, as colours.

pub mod error;
pub mod hooks;
pub mod map;
