//! Clustering: which of the quantised colours each image holds, as a file and on
//! a self-organising map.

use std::sync::Arc;

pub mod pickle;
pub mod som;

/// A component takes three quantised values, so there are 3^3 colours.
pub const MOST_FEATURES: usize = 27;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its path as it was given. Shared, for a pickle may name one text many times.
    pub path: Arc<str>,
    /// The id of its top class.
    pub class: usize,
    /// Which of the colours that occur in any image occur in this one.
    pub features: Vec<bool>,
}
