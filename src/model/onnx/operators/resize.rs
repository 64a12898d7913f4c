//! Resizing. The coordinates and weights are those of ONNX's definition, in 32-bit numbers, as ONNX
//! Runtime has them: rounding decides which values are nearest. If libtorch has an operator that
//! computes the same, it is used.

use anyhow::{Context, Result, bail, ensure};

use super::super::node::NodeCall;
use super::super::writer::Number::{self, Known, Made};
use super::super::writer::{Arg, Writer};
use super::Tracked;
use crate::hooks::BuiltValue;

/// The most weights of an axis: a matrix of so many numbers is made for it.
const MOST_WEIGHTS: i64 = 1 << 24;
/// The largest size that is made.
const LARGEST: i64 = 1 << 20;
/// The largest scale by which libtorch and ONNX Runtime find the same values for every size: the
/// one multiplies by the rounded inverse, the other divides.
const LARGEST_FREE_SCALE: f32 = 40.0;

pub fn add(writer: &mut Writer, tracked: &Tracked, call: &NodeCall) -> Result<Option<BuiltValue>> {
    match call.operator() {
        "Resize" | "Upsample" => resize(writer, tracked, call).map(Some),
        _ => Ok(None),
    }
}

/// How values between others are found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    /// With the coefficient of the kernel.
    Cubic(f64),
}

/// The words of the node.
struct How<'n> {
    mode: Mode,
    coordinates: &'n str,
    rounding: &'n str,
    excludes_outside: bool,
}

/// An axis that changes its size.
struct Along {
    dim: i64,
    size: Number,
    made: Number,
    /// Made by size, if it is given.
    scale: Option<f32>,
}

fn resize(writer: &mut Writer, tracked: &Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let is_old = call.operator() == "Upsample" || call.version < 11;
    let mode = match call.text("mode", "nearest")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic(call.float("cubic_coeff_a", -0.75)?),
        other => bail!(call.unknown("mode", other)),
    };
    let policy = call.text("keep_aspect_ratio_policy", "stretch")?;
    ensure!(
        !call.flag("antialias", false)?,
        "smooths before it makes an image smaller (antialias), which prism does not run"
    );
    ensure!(
        policy == "stretch",
        call.unknown("keep_aspect_ratio_policy", policy)
    );
    let how = How {
        mode,
        coordinates: match is_old {
            true => "asymmetric",
            false => call.text("coordinate_transformation_mode", "half_pixel")?,
        },
        rounding: match is_old {
            true => "simple",
            false => call.text("nearest_mode", "round_prefer_floor")?,
        },
        excludes_outside: call.flag("exclude_outside", false)?,
    };
    let mut axes = axes(writer, call, x, is_old)?;
    // What the run makes of the sizes of images and channels is those of the input.
    let is_permuted = tracked.permuted.contains_key(&x);
    axes.retain(|along| {
        let is_of_input = match along.dim {
            0 => !matches!((along.size, along.made), (Known(_), Known(_))),
            1 => matches!((along.size, along.made), (Known(_), Made(_))),
            _ => false,
        };
        is_permuted || along.scale.is_some() || !is_of_input
    });
    if let Some(made) = by_libtorch(writer, x, &axes, &how)? {
        return Ok(made);
    }
    let mut made = x;
    for along in &axes {
        made = resized(writer, made, along, &how)?;
    }
    Ok(made)
}

/// The axes that change. The scales are an attribute in opset 7, an input later; from 11 on there
/// may be sizes.
fn axes(writer: &mut Writer, call: &NodeCall, x: BuiltValue, is_old: bool) -> Result<Vec<Along>> {
    let rank = writer.rank(x)?;
    let dims = match call.ints("axes")? {
        Some(axes) => {
            let axes = axes.iter().map(|&axis| writer.axis(axis, rank));
            axes.collect::<Result<Vec<_>>>()?
        }
        None => (0..rank).collect(),
    };
    let sizes = match call.optional(3).filter(|_| !is_old) {
        Some(sizes) => Some(writer.numbers(sizes)?.items),
        None => None,
    }
    .filter(|sizes| !sizes.is_empty());
    let scales = match call.stored("scales") {
        Some(super::super::proto::Value::Floats(scales)) => Some(scales.clone()),
        _ => match call.optional_tensor(writer, if is_old { 1 } else { 2 })? {
            Some(scales) if sizes.is_none() => {
                let known = writer.known_floats(scales)?;
                let known = known.context("has scales that depend on the images")?;
                Some(known.into_iter().map(|scale| scale as f32).collect())
            }
            _ => None,
        },
    };
    let mut found = Vec::new();
    for (at, &dim) in dims.iter().enumerate() {
        let size = writer.size(x, dim)?;
        let along = match (&sizes, &scales) {
            (Some(sizes), _) => {
                let made = *sizes.get(at).context("has fewer sizes than dimensions")?;
                let scale = None;
                Along {
                    dim,
                    size,
                    made,
                    scale,
                }
            }
            (None, Some(scales)) => {
                let scales: &Vec<f32> = scales;
                let scale = *scales.get(at).context("has fewer scales than dimensions")?;
                ensure!(scale > 0.0 && scale.is_finite(), "has the scale {scale}");
                if scale == 1.0 {
                    continue;
                }
                let made = scaled(writer, size, scale)?;
                let scale = Some(scale);
                Along {
                    dim,
                    size,
                    made,
                    scale,
                }
            }
            (None, None) => bail!("lacks scales and sizes"),
        };
        if let (Known(size), Known(made)) = (along.size, along.made) {
            ensure!(
                size > 0 && (1..=LARGEST).contains(&made),
                "resizes {size} values to {made}"
            );
        }
        found.push(along);
    }
    // A scale may move values also if it changes no size, unless no other axis changes.
    let is_same = |along: &Along| along.size == along.made;
    if found.iter().all(is_same) {
        return Ok(Vec::new());
    }
    found.retain(|along| along.scale.is_some() || !is_same(along));
    Ok(found)
}

/// A size by its scale, rounded down.
fn scaled(writer: &mut Writer, size: Number, scale: f32) -> Result<Number> {
    if let Known(size) = size {
        return Ok(Known((size as f32 * scale) as i64));
    }
    if scale.fract() == 0.0 {
        return writer.arithmetic("mul", size, Known(scale as i64));
    }
    let part = 1.0 / scale;
    if part.fract() == 0.0 && part <= LARGEST_FREE_SCALE {
        return writer.arithmetic("floordiv", size, Known(part as i64));
    }
    bail!("has the scale {scale}, which needs images of a fixed size; export the network with one")
}

/// By an operator of libtorch, which reads planes `[N,C,h,w]`.
fn by_libtorch(
    writer: &mut Writer,
    x: BuiltValue,
    axes: &[Along],
    how: &How,
) -> Result<Option<BuiltValue>> {
    if writer.rank(x)? != 4 || axes.is_empty() {
        return Ok(None);
    }
    if axes.iter().any(|along| along.dim < 2) {
        return Ok(None);
    }
    let is_exact = |along: &Along| match (along.size, along.made, how.mode) {
        (Known(size), Known(made), Mode::Nearest) => {
            let step = match along.scale {
                Some(scale) => (1.0 / f64::from(scale)) as f32,
                None => size as f32 / made as f32,
            };
            let plain = (0..made).map(|at| ((at as f32 * step).floor() as i64).min(size - 1));
            let scale = scale_of(along.scale, size, made);
            nearest(size, made, scale, how).is_ok_and(|places| places.into_iter().eq(plain))
        }
        // By sizes, PyTorch writes the node for the operator that is used here.
        (_, _, Mode::Nearest) => match along.scale {
            None => how.coordinates == "asymmetric" && how.rounding == "floor",
            Some(scale) => {
                let rounds = how.rounding.starts_with("round");
                scale.fract() == 0.0
                    && scale <= LARGEST_FREE_SCALE
                    && match how.coordinates {
                        "asymmetric" => matches!(how.rounding, "floor" | "simple"),
                        "half_pixel" | "pytorch_half_pixel" => rounds,
                        _ => false,
                    }
            }
        },
        (_, made, _) => match how.coordinates {
            "half_pixel" => true,
            "pytorch_half_pixel" => made != Known(1),
            "align_corners" => true,
            _ => false,
        },
    };
    if !axes.iter().all(is_exact)
        || matches!(how.mode, Mode::Cubic(a) if a != -0.75 || how.excludes_outside)
    {
        return Ok(None);
    }
    let mut sizes = Vec::new();
    let mut scales = Vec::new();
    for dim in [2, 3] {
        match axes.iter().find(|along| along.dim == dim) {
            Some(along) => {
                sizes.push(along.made);
                let scale = along.scale.map(f64::from);
                scales.push(scale.map_or(Arg::None, Arg::Float));
            }
            None => {
                sizes.push(writer.size(x, dim)?);
                scales.push(Arg::None);
            }
        }
    }
    let mut arguments = vec![x.into(), Arg::Numbers(sizes)];
    let name = match how.mode {
        Mode::Nearest => "upsample_nearest2d",
        Mode::Linear => "upsample_bilinear2d",
        Mode::Cubic(_) => "upsample_bicubic2d",
    };
    if how.mode != Mode::Nearest {
        arguments.push(Arg::Bool(how.coordinates == "align_corners"));
    }
    arguments.extend(scales);
    writer.op(name, "", &arguments).map(Some)
}

/// One axis, by the places of its values or a matrix of weights.
fn resized(writer: &mut Writer, x: BuiltValue, along: &Along, how: &How) -> Result<BuiltValue> {
    let (Known(size), Known(made)) = (along.size, along.made) else {
        bail!(
            "resizes by '{}', which needs images of a fixed size; export the network with one",
            how.coordinates
        );
    };
    ensure!(
        how.mode == Mode::Nearest || size.saturating_mul(made) <= MOST_WEIGHTS,
        "resizes {size} values to {made}"
    );
    let scale = scale_of(along.scale, size, made);
    if how.mode == Mode::Nearest {
        let places = nearest(size, made, scale, how)?;
        let places = writer.integers(&places, false)?;
        return writer.op(
            "index_select",
            "",
            &[x.into(), Arg::Int(along.dim), places.into()],
        );
    }
    let mut matrix = vec![0.0; (size * made) as usize];
    for to in 0..made {
        for (from, weight) in weights(size, made, scale, to, how)? {
            matrix[(to * size + from) as usize] += weight;
        }
    }
    let matrix = writer.floats(&matrix, &[made, size])?;
    let last = writer.rank(x)? - 1;
    let swap = |writer: &mut Writer, x: BuiltValue| match along.dim == last {
        true => Ok(x),
        false => writer.op(
            "transpose",
            "int",
            &[x.into(), Arg::Int(along.dim), Arg::Int(last)],
        ),
    };
    let turned = swap(writer, x)?;
    let product = writer.op("linear", "", &[turned.into(), matrix.into(), Arg::None])?;
    swap(writer, product)
}

fn scale_of(given: Option<f32>, size: i64, made: i64) -> f32 {
    given.unwrap_or(made as f32 / size as f32)
}

/// Where a value lies among those of the input.
fn coordinate(size: i64, made: i64, scale: f32, to: i64, how: &How) -> Result<f32> {
    let (size, made, to) = (size as f32, made as f32, to as f32);
    let half = (to + 0.5) / scale - 0.5;
    Ok(match how.coordinates {
        "half_pixel" => half,
        "pytorch_half_pixel" => {
            if made > 1.0 {
                half
            } else {
                0.0
            }
        }
        "align_corners" => {
            if made > 1.0 {
                to * (size - 1.0) / (made - 1.0)
            } else {
                0.0
            }
        }
        "asymmetric" => to / scale,
        "half_pixel_symmetric" => {
            let adjusted = made / (scale * size);
            size / 2.0 * (1.0 - adjusted) + half
        }
        "tf_half_pixel_for_nn" => (to + 0.5) / scale,
        other => bail!("has coordinates '{other}', which prism does not run"),
    })
}

fn nearest(size: i64, made: i64, scale: f32, how: &How) -> Result<Vec<i64>> {
    let place = |to| {
        let at = coordinate(size, made, scale, to, how)?;
        let at = match how.rounding {
            "round_prefer_floor" if at.fract() == 0.5 => at.floor(),
            "round_prefer_floor" | "round_prefer_ceil" => at.round(),
            // Before opset 11 nothing says how; this is how ONNX Runtime does it.
            "simple" if scale >= 1.0 => at.floor(),
            "simple" | "ceil" => at.ceil(),
            "floor" => at.floor(),
            other => bail!("has nearest_mode '{other}', which prism does not run"),
        };
        Ok((at as i64).clamp(0, size - 1))
    };
    (0..made).map(place).collect()
}

/// The values that one is made of, with their weights. Outside the input are the values of its edge.
fn weights(size: i64, made: i64, scale: f32, to: i64, how: &How) -> Result<Vec<(i64, f64)>> {
    let at = f64::from(coordinate(size, made, scale, to, how)?);
    let reach = match how.mode {
        Mode::Cubic(_) => 2.0,
        _ => 1.0,
    };
    let kernel = |distance: f64| {
        let x = distance.abs();
        match how.mode {
            Mode::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Mode::Cubic(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Mode::Cubic(_) => 0.0,
            _ => (1.0 - x).max(0.0),
        }
    };
    let from = (at - reach).ceil() as i64;
    let end = (at + reach).floor() as i64;
    let is_cut = how.excludes_outside && matches!(how.mode, Mode::Cubic(_));
    let mut found = Vec::new();
    for place in from..=end {
        let is_inside = (0..size).contains(&place);
        if is_inside || !is_cut {
            found.push((place.clamp(0, size - 1), kernel(place as f64 - at)));
        }
    }
    let sum: f64 = found.iter().map(|(_, weight)| weight).sum();
    if sum != 0.0 {
        found.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    Ok(found)
}
