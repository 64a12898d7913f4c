//! Resizing. The coordinates and weights are those of ONNX's definition; where libtorch has an
//! operator that computes the same, it is used.

use anyhow::{Context, Result, bail, ensure};

use super::super::node::NodeCall;
use super::super::writer::Number::{self, Known};
use super::super::writer::{Arg, Writer};
use crate::hooks::BuiltValue;

/// The most weights of an axis: a matrix of so many numbers is made for it.
const MOST_WEIGHTS: i64 = 1 << 24;

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    match call.operator() {
        "Resize" | "Upsample" => resize(writer, call).map(Some),
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
    scale: Option<f64>,
}

fn resize(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
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
    let axes = axes(writer, call, x, is_old)?;
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
        Some(super::super::proto::Value::Floats(scales)) => {
            Some(scales.iter().map(|&scale| f64::from(scale)).collect())
        }
        _ => match call.optional_tensor(writer, if is_old { 1 } else { 2 })? {
            Some(scales) if sizes.is_none() => {
                let known = writer.known_floats(scales)?;
                Some(known.context("has scales that depend on the images")?)
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
                let scales: &Vec<f64> = scales;
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
        if along.size != along.made {
            found.push(along);
        }
    }
    // What the run makes of the sizes of images and channels is those of the input.
    found.retain(|along| along.dim > 1 || matches!((along.size, along.made), (Known(_), Known(_))));
    Ok(found)
}

/// A size by its scale, rounded down.
fn scaled(writer: &mut Writer, size: Number, scale: f64) -> Result<Number> {
    if let Known(size) = size {
        let made = (size as f64 * scale + 1e-9).floor();
        ensure!((1.0..1e9).contains(&made), "makes a size of {made}");
        return Ok(Known(made as i64));
    }
    if scale.fract() == 0.0 {
        return writer.arithmetic("mul", size, Known(scale as i64));
    }
    let part = 1.0 / scale;
    if part.fract() == 0.0 {
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
            let scale = along.scale.unwrap_or(made as f64 / size as f64);
            let plain = (0..made).map(|at| ((at as f64 / scale).floor() as i64).min(size - 1));
            nearest(size, made, scale, how).is_ok_and(|places| places.into_iter().eq(plain))
        }
        (_, _, Mode::Nearest) => {
            let is_whole = along.scale.is_some_and(|scale| scale.fract() == 0.0);
            how.coordinates == "asymmetric"
                && matches!(how.rounding, "floor" | "simple")
                && (how.rounding == "floor" || is_whole)
                || is_whole
                    && how.coordinates.ends_with("half_pixel")
                    && how.rounding.starts_with("round")
        }
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
                scales.push(along.scale.map_or(Arg::None, Arg::Float));
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
        size > 0
            && made > 0
            && size
                .checked_mul(made)
                .is_some_and(|count| count <= MOST_WEIGHTS),
        "resizes {size} values to {made}"
    );
    let scale = along.scale.unwrap_or(made as f64 / size as f64);
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

/// Where a value lies among those of the input.
fn coordinate(size: i64, made: i64, scale: f64, to: i64, how: &How) -> Result<f64> {
    let (size, made, to) = (size as f64, made as f64, to as f64);
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

fn nearest(size: i64, made: i64, scale: f64, how: &How) -> Result<Vec<i64>> {
    let place = |to| {
        let at = coordinate(size, made, scale, to, how)?;
        let at = match how.rounding {
            "round_prefer_floor" => (at - 0.5).ceil(),
            "round_prefer_ceil" => (at + 0.5).floor(),
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
fn weights(size: i64, made: i64, scale: f64, to: i64, how: &How) -> Result<Vec<(i64, f64)>> {
    let at = coordinate(size, made, scale, to, how)?;
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
