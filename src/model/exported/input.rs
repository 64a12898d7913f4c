//! What an exported program says about the images that it takes.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::schema::{Layout, integer};
use super::shown;
use crate::size::Size;

/// The kinds of numbers in images, as the file numbers them: half, float, double, bfloat16.
const FLOATING: [i64; 4] = [6, 7, 8, 13];

/// The size of the images whose tensor has the layout `stated`; `None` if it is not fixed, or not
/// stated.
///
/// # Errors
/// Returns one line if the tensor is no batch of images `[N,C,H,W]` of floating-point numbers.
pub fn size_of_images(stated: Option<&Layout>) -> Result<Option<Size>> {
    let Some(Layout { dtype, sizes, .. }) = stated else {
        return Ok(None);
    };
    let known: Vec<Option<i64>> = sizes.iter().map(integer).collect();
    let [_, channels, height, width] = known[..] else {
        bail!(
            "its input is {}; prism gives it a batch of images [N,C,H,W]",
            written(sizes)
        );
    };
    ensure!(
        FLOATING.contains(dtype),
        "it takes images as integers; prism gives it normalised images [N,C,H,W] of floating-point numbers: export the network without its conversion of images"
    );
    let is_few = |axis: Option<i64>| matches!(axis, Some(1 | 3 | 4));
    ensure!(
        !is_few(width) || is_few(channels) || channels.is_some_and(|channels| channels < 16),
        "it takes images [N,H,W,C] (its input is {}); prism gives it [N,C,H,W]: export the network without its change of axes",
        written(sizes)
    );
    Ok(height
        .zip(width)
        .map(|(height, width)| Size::new(height, width)))
}

/// The sizes of a tensor as text, `[N,3,224,224]`: those that are free are N.
fn written(sizes: &[Value]) -> String {
    let sizes = sizes.iter().map(|size| match integer(size) {
        Some(size) => size.to_string(),
        None => "N".to_string(),
    });
    shown(&format!("[{}]", sizes.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(dtype: i64, sizes: &[i64]) -> Result<Option<Size>> {
        let size = |&size: &i64| match size {
            0 => serde_json::json!({"as_expr": {"expr_str": "s0", "hint": {"as_int": 2}}}),
            size => serde_json::json!({"as_int": size}),
        };
        size_of_images(Some(&Layout {
            dtype,
            sizes: sizes.iter().map(size).collect(),
            strides: Vec::new(),
            storage_offset: Value::Null,
        }))
    }

    #[test]
    fn fixed_sizes_are_known_and_free_ones_are_not() {
        let found = |sizes: &[i64]| input(7, sizes).unwrap();
        let size = Some(Size::new(224, 192));
        assert_eq!(found(&[0, 3, 224, 192]), size);
        assert_eq!(found(&[4, 3, 224, 192]), size);
        assert_eq!(found(&[0, 3, 0, 0]), None);
        assert_eq!(found(&[0, 3, 224, 0]), None);
        // Few channels and narrow images are no other order.
        found(&[0, 12, 8, 4]);
        assert_eq!(size_of_images(None).unwrap(), None);
    }

    #[test]
    fn other_inputs_are_refused() {
        for (dtype, sizes, reason) in [
            (1, &[0, 3, 224, 224][..], "integers"),
            (7, &[0, 224, 224, 3], "its input is [N,224,224,3]"),
            (7, &[0, 0, 0, 3], "[N,H,W,C]"),
            (7, &[0, 3, 224], "its input is [N,3,224]"),
            (7, &[], "its input is []"),
        ] {
            let error = input(dtype, sizes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
