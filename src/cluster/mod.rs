//! Clustering: which of the quantised colours each image holds, as a file and on
//! a self-organising map.

use std::sync::Arc;

use crate::map::COLOURS;

pub mod pickle;
pub mod som;

/// Every quantised colour.
pub const MOST_FEATURES: usize = COLOURS as usize;

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
