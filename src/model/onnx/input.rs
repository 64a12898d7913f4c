//! What a file says about the images that it takes.

use anyhow::{Result, bail, ensure};

use super::proto::{Dimension, ValueInfo};
use super::shown;
use super::weights::{kind_name, kind_of};
use crate::size::Size;

/// The number of images that an example batch has if the file leaves it free.
const EXAMPLE_IMAGES: i64 = 2;
/// The size of an example image if the file leaves it free, and no other is wanted.
const EXAMPLE_SIZE: Size = Size::new(224, 224);

/// The images that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// Their number, if it is fixed.
    pub count: Dimension,
    /// The number of channels, if it is fixed.
    pub channels: Dimension,
    /// Their size, if it is fixed.
    pub size: Option<Size>,
    /// Whether they are `[N,H,W,C]`.
    pub channels_last: bool,
}

impl Images {
    /// Of the input that a file describes. `is_turned`: the network makes `[N,C,H,W]` of it;
    /// `convolved`: the channels that its first convolution reads.
    ///
    /// # Errors
    /// Returns one line if it is no batch of images of floating-point numbers.
    pub fn of(input: &ValueInfo, is_turned: bool, convolved: Dimension) -> Result<Images> {
        ensure!(
            !input.is_other,
            "it takes an input that is no tensor; prism gives it one batch of images [N,C,H,W]"
        );
        ensure!(
            matches!(input.kind, 0 | 1 | 10 | 11 | 16),
            "it takes images as {}; prism gives it normalised images [N,C,H,W] of floating-point numbers: export the network without its conversion of images",
            match kind_of(input.kind) {
                Some(_) => "integers",
                None => kind_name(input.kind),
            }
        );
        let Some(sizes) = &input.sizes else {
            return Ok(Images {
                count: None,
                channels: None,
                size: None,
                channels_last: false,
            });
        };
        let &[count, second, third, fourth] = sizes.as_slice() else {
            bail!(
                "its input is {}; prism gives it a batch of images [N,C,H,W]",
                written(sizes)
            );
        };
        let is_few = |size: Dimension| matches!(size, Some(1 | 3 | 4));
        let is_convolved = |size: Dimension| size.is_some() && size == convolved;
        let channels_last = match (is_convolved(second), is_convolved(fourth)) {
            _ if is_turned => true,
            (false, true) => true,
            (true, false) => false,
            _ => {
                is_few(fourth)
                    && !is_few(second)
                    && second.is_none_or(|size| size >= 16 || Some(size) == third)
            }
        };
        let (channels, height, width) = match channels_last {
            true => (fourth, second, third),
            false => (second, third, fourth),
        };
        Ok(Images {
            count,
            channels,
            size: height
                .zip(width)
                .map(|(height, width)| Size::new(height, width)),
            channels_last,
        })
    }

    /// Two batches `[N,C,H,W]` that differ in what is free, and in the number of images. `channels`
    /// and the size `wanted` if the file leaves them free.
    pub fn examples(&self, channels: i64, wanted: Option<Size>) -> [[i64; 4]; 2] {
        let count = self.count.unwrap_or(EXAMPLE_IMAGES);
        let channels = self.channels.unwrap_or(channels);
        [0_i64, 1].map(|example| {
            let free = wanted.unwrap_or(EXAMPLE_SIZE);
            let other = Size::new(free.height + 32 * example, free.width + 64 * example);
            let size = self.size.unwrap_or(other);
            [count + example, channels, size.height, size.width]
        })
    }
}

/// The sizes of a tensor as text, `[N,3,224,224]`: those that are free are N.
fn written(sizes: &[Dimension]) -> String {
    let sizes = sizes.iter().map(|size| match size {
        Some(size) => size.to_string(),
        None => "N".to_string(),
    });
    shown(&format!("[{}]", sizes.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(kind: i64, sizes: &[i64]) -> Result<Images> {
        images_that(kind, sizes, false, None)
    }

    fn images_that(
        kind: i64,
        sizes: &[i64],
        is_turned: bool,
        convolved: Dimension,
    ) -> Result<Images> {
        let sizes = sizes
            .iter()
            .map(|&size| Some(size).filter(|&size| size > 0));
        let input = ValueInfo {
            kind,
            sizes: Some(sizes.collect()),
            ..ValueInfo::default()
        };
        Images::of(&input, is_turned, convolved)
    }

    #[test]
    fn the_order_of_the_axes_is_found() {
        for (sizes, channels_last, size) in [
            (&[1, 3, 224, 192][..], false, Some((224, 192))),
            (&[0, 224, 192, 3], true, Some((224, 192))),
            (&[0, 0, 0, 3], true, None),
            (&[0, 3, 0, 0], false, None),
            (&[0, 0, 0, 0], false, None),
            (&[0, 12, 8, 4], false, Some((8, 4))),
            (&[4, 8, 8, 1], true, Some((8, 8))),
        ] {
            let found = images(1, sizes).unwrap();
            assert_eq!(found.channels_last, channels_last, "{sizes:?}");
            let size = size.map(|(height, width)| Size::new(height, width));
            assert_eq!(found.size, size, "{sizes:?}");
        }
    }

    #[test]
    fn the_first_operators_say_the_order_of_the_axes() {
        for (sizes, is_turned, convolved, channels_last) in [
            (&[1, 12, 14, 3][..], false, None, false),
            (&[1, 12, 14, 3], true, None, true),
            (&[1, 12, 14, 3], false, Some(3), true),
            (&[1, 12, 14, 3], false, Some(12), false),
            (&[1, 64, 4, 4], false, Some(64), false),
            (&[0, 0, 0, 0], true, None, true),
            (&[1, 3, 9, 3], false, Some(3), false),
        ] {
            let found = images_that(1, sizes, is_turned, convolved).unwrap();
            let case = format!("{sizes:?} {is_turned} {convolved:?}");
            assert_eq!(found.channels_last, channels_last, "{case}");
        }
    }

    #[test]
    fn other_inputs_are_refused() {
        for (kind, sizes, reason) in [
            (2, &[0, 3, 224, 224][..], "integers"),
            (8, &[0, 3, 224, 224], "texts"),
            (1, &[0, 3, 224], "its input is [N,3,224]"),
            (1, &[], "its input is []"),
        ] {
            let error = images(kind, sizes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
