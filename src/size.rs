//! Height and width, in this order everywhere.

use std::fmt;

use tch::Tensor;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Number of rows.
    pub height: i64,
    /// Number of columns.
    pub width: i64,
}

impl Size {
    /// `height` rows of `width` pixels.
    pub const fn new(height: i64, width: i64) -> Size {
        Size { height, width }
    }

    /// The size of the planes of a tensor `[..,H,W]`.
    pub fn of(tensor: &Tensor) -> Size {
        match tensor.size().as_slice() {
            &[.., height, width] => Size::new(height, width),
            _ => Size::new(0, 0),
        }
    }

    /// The number of pixels.
    pub const fn pixels(self) -> i64 {
        self.height * self.width
    }
}

impl fmt::Display for Size {
    /// `HxW`, such as `240x320`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}
