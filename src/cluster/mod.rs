//! Clustering: which of the quantised colours each image holds, as a file and on a
//! self-organising map.

use std::collections::BTreeSet;

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
    /// The id of its true class, if it is known.
    pub truth: Option<usize>,
}

/// The rows of images, of which each has a path, a top class, and quantised colours by number: a
/// feature for each colour that occurs in any of them, and no true class.
pub fn rows_of(images: Vec<(String, usize, Vec<u32>)>) -> Vec<Row> {
    let any: BTreeSet<u32> = images
        .iter()
        .flat_map(|(_, _, colours)| colours)
        .copied()
        .collect();
    let rows = images.into_iter().map(|(path, class, colours)| Row {
        path,
        class,
        features: any.iter().map(|code| colours.contains(code)).collect(),
        truth: None,
    });
    rows.collect()
}
