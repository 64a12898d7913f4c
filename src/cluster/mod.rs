//! Clustering: which of the quantised colours each image holds, as a file and on a
//! self-organising map.

use crate::map::COLOURS;

pub mod pickle;
pub mod som;

/// The number of quantised colours.
pub const MOST_FEATURES: usize = COLOURS as usize;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its path, as given.
    pub path: String,
    /// The id of its top class.
    pub class: usize,
    /// For each colour that occurs in any image: whether it occurs in this one.
    pub features: Vec<bool>,
}
