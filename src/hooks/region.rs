//! The part of the image that the features cover.

use std::ops::Range;

use super::axes::Extent;
use super::graph::{Graph, ValueId};
use crate::remarks::Remark;
use crate::size::Size;

/// Rows and columns of the network's input that the features cover: all, unless the network
/// crops its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Size of the network's input.
    pub of: Size,
    /// From the top.
    pub rows: Range<i64>,
    /// From the left.
    pub columns: Range<i64>,
}

/// Borders below this share of a side are not looked at: "same" padding adds a pixel or two.
const SMALLEST_BORDER: f64 = 0.02;

impl Region {
    /// All of an image.
    pub fn whole(of: Size) -> Region {
        Region {
            of,
            rows: 0..of.height,
            columns: 0..of.width,
        }
    }

    /// The part that an activation covers. Remarks say if it is not all of the image, or not
    /// known.
    pub(super) fn of(graph: &Graph, activation: ValueId, remarks: &mut Vec<Remark>) -> Region {
        let sizes = graph.sizes(graph.input).unwrap_or_default();
        let of = match sizes {
            &[.., height, width] => Size::new(height, width),
            _ => Size::new(1, 1),
        };
        let whole = Region::whole(of);
        let Some(place) = graph.place(activation) else {
            return whole;
        };
        if let Some(node) = place.lost {
            let node = &graph.nodes[node];
            let what = match node.name.as_str() {
                "" => node.short_name(),
                name => name,
            };
            remarks.push(Remark::warning(format!(
                "'{what}' moves or mixes pixels of the image, so the map may not lie on the picture"
            )));
        }
        let region = Region {
            of,
            rows: pixels(place.height, of.height),
            columns: pixels(place.width, of.width),
        };
        let beyond = |extent: Extent| {
            let (low, high) = (extent.from.min(extent.to), extent.from.max(extent.to));
            low < -SMALLEST_BORDER || high > 1.0 + SMALLEST_BORDER
        };
        if beyond(place.height) || beyond(place.width) {
            remarks.push(Remark::warning(
                "the network adds a border to the image, which the map covers as well, so it does not lie exactly on the picture",
            ));
            return whole;
        }
        if region != whole {
            remarks.push(Remark::warning(format!(
                "the network looks at a part of its input: rows {} to {} and columns {} to {} of {of} pixels; maps and pictures show this part",
                region.rows.start, region.rows.end, region.columns.start, region.columns.end
            )));
        }
        region
    }

    /// Its height and width, pixels.
    pub fn size(&self) -> Size {
        Size::new(
            self.rows.end - self.rows.start,
            self.columns.end - self.columns.start,
        )
    }

    /// Whether it is all of the image.
    pub fn is_whole(&self) -> bool {
        self.size() == self.of
    }
}

/// The pixels of an axis that an extent covers.
fn pixels(extent: Extent, size: i64) -> Range<i64> {
    let (low, high) = (extent.from.min(extent.to), extent.from.max(extent.to));
    let border = |share: f64| if share < SMALLEST_BORDER { 0.0 } else { share };
    let at = |share: f64| ((share * size as f64).round() as i64).clamp(0, size);
    let (start, end) = (at(border(low)), size - at(border(1.0 - high)));
    if start < end { start..end } else { 0..size }
}
