//! Shapes: what changes them, and arithmetic with sizes. Sizes that depend on the images are
//! integers of the graph, not tensors, as libtorch's operators want them.

use anyhow::{Context, Result, ensure};

use super::super::node::NodeCall;
use super::super::writer::Number::{self, Known, Made};
use super::super::writer::{Arg, BOOL, MOST_NUMBERS, Numbers, Value, Writer};
use super::{Tracked, cast, libtorch_kind, normalisation};
use crate::hooks::BuiltValue;

pub fn add(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Option<Vec<Value>>> {
    let is_size = |value: &Option<Value>| matches!(value, Some(Value::Numbers(_)));
    if call.inputs.iter().any(is_size) {
        if let Some(flags) = compared(writer, call)? {
            return Ok(Some(vec![Value::Tensor(flags)]));
        }
        if let Some(made) = of_sizes(writer, call)? {
            return Ok(Some(vec![writer.value_of(made)?]));
        }
    }
    let tensor = match call.operator() {
        "Shape" => return shape(writer, call).map(|value| Some(vec![value])),
        "Size" => return count(writer, call).map(|value| Some(vec![value])),
        "Reshape" => reshape(writer, tracked, call)?,
        "Flatten" => flatten(writer, call)?,
        "Squeeze" => squeeze(writer, tracked, call)?,
        "Unsqueeze" => unsqueeze(writer, call)?,
        "Transpose" => transpose(writer, tracked, call)?,
        "Concat" => {
            let axis = Arg::Int(call.int("axis", 1)?);
            let tensors = (0..call.inputs.len()).map(|at| call.tensor(writer, at));
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            writer.op("cat", "", &[Arg::Values(tensors), axis])?
        }
        "Expand" => expand(writer, call)?,
        "Tile" => {
            let x = call.tensor(writer, 0)?;
            let times = call.numbers(writer, 1)?.items;
            writer.op("repeat", "", &[x.into(), Arg::Numbers(times)])?
        }
        "Range" => range(writer, call)?,
        _ => return Ok(None),
    };
    Ok(Some(vec![Value::Tensor(tensor)]))
}

fn shape(writer: &mut Writer, call: &NodeCall) -> Result<Value> {
    let Value::Tensor(x) = call.input(0)? else {
        let numbers = call.numbers(writer, 0)?;
        let count = [numbers.items.len() as i64];
        let sizes = if numbers.is_single { &[][..] } else { &count };
        return Ok(Value::Tensor(writer.integers(sizes, false)?));
    };
    let rank = writer.rank(*x)?;
    let from = |at: i64| if at < 0 { at + rank } else { at }.clamp(0, rank);
    let (start, end) = (from(call.int("start", 0)?), from(call.int("end", rank)?));
    let mut items = Vec::new();
    for dim in start..end {
        items.push(writer.size(*x, dim)?);
    }
    writer.value_of(Numbers {
        items,
        is_single: false,
    })
}

fn count(writer: &mut Writer, call: &NodeCall) -> Result<Value> {
    let x = call.tensor(writer, 0)?;
    let mut product = Known(1);
    for dim in 0..writer.rank(x)? {
        let size = writer.size(x, dim)?;
        product = writer.arithmetic("mul", product, size)?;
    }
    writer.value_of(Numbers {
        items: vec![product],
        is_single: true,
    })
}

/// An operator on sizes, if its result is sizes, too.
fn of_sizes(writer: &mut Writer, call: &NodeCall) -> Result<Option<Numbers>> {
    let mut given = Vec::new();
    for input in &call.inputs {
        let Some(input) = input else {
            given.push(None);
            continue;
        };
        given.push(writer.as_numbers(input)?);
    }
    let first = given.first().cloned().flatten();
    let operator = call.operator();
    let arithmetic = match operator {
        "Add" => "add",
        "Sub" => "sub",
        "Mul" => "mul",
        "Div" => "div",
        "Mod" if call.flag("fmod", false)? => "fmod",
        "Mod" => "remainder",
        "Max" => "max",
        "Min" => "min",
        _ => "",
    };
    if !arithmetic.is_empty() && given.len() == 2 {
        let [Some(a), Some(b)] = &given[..] else {
            return Ok(None);
        };
        return paired(a, b, |a, b| writer.arithmetic(arithmetic, a, b)).transpose();
    }
    let is_list = |numbers: &Numbers| Numbers {
        is_single: false,
        ..numbers.clone()
    };
    Ok(match (operator, first) {
        ("Identity", first) => first,
        ("Cast", first) if libtorch_kind(call.int("to", 0)?)? < 5 => first,
        ("Concat", _) => {
            let all: Option<Vec<Numbers>> = given.into_iter().collect();
            let items = all.map(|all| all.into_iter().flat_map(|numbers| numbers.items));
            let items = items.map(Iterator::collect::<Vec<_>>);
            ensure!(
                items
                    .as_ref()
                    .is_none_or(|items| items.len() <= MOST_NUMBERS),
                "makes a list of more than {MOST_NUMBERS} sizes"
            );
            items.map(|items| Numbers {
                items,
                is_single: false,
            })
        }
        ("Unsqueeze", Some(first)) if first.is_single => Some(is_list(&first)),
        ("Squeeze", Some(first)) if first.items.len() == 1 => Some(Numbers {
            is_single: true,
            ..first
        }),
        ("Reshape" | "Flatten", Some(first)) => {
            let target = given.get(1).cloned().flatten();
            let target = target.and_then(|target| target.constants());
            match target.as_deref() {
                Some([]) if first.items.len() == 1 => Some(Numbers {
                    is_single: true,
                    ..first
                }),
                Some([size]) if *size == -1 || *size == first.items.len() as i64 => {
                    Some(is_list(&first))
                }
                _ => None,
            }
        }
        ("Gather", Some(first)) if !first.is_single => {
            let places = given.get(1).cloned().flatten();
            let Some((places, known)) = places.and_then(|places| {
                let known = places.constants()?;
                Some((places, known))
            }) else {
                return Ok(None);
            };
            let count = first.items.len() as i64;
            let items = known.iter().map(|&at| {
                let at = usize::try_from(if at < 0 { at + count } else { at }).ok()?;
                first.items.get(at).copied()
            });
            let items: Option<Vec<Number>> = items.collect();
            Some(Numbers {
                items: items.context("takes sizes that are not there")?,
                is_single: places.is_single,
            })
        }
        ("Slice", Some(first)) if !first.is_single => sliced(writer, call, &first)?,
        ("ReduceProd", Some(first)) => {
            let mut product = Known(1);
            for item in first.items {
                product = writer.arithmetic("mul", product, item)?;
            }
            Some(Numbers {
                items: vec![product],
                is_single: !call.flag("keepdims", true)?,
            })
        }
        ("Where", _) => return selected(writer, call),
        _ => None,
    })
}

/// Whether sizes are equal, if that is known: exporters compare them with -1.
fn compared(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    if call.operator() != "Equal" {
        return Ok(None);
    }
    let [a, b] = [0, 1].map(|at| call.input(at).and_then(|value| writer.as_numbers(value)));
    let (Some(a), Some(b)) = (a?, b?) else {
        return Ok(None);
    };
    // What stands for a flag that is not known is one of the sizes.
    let equal = |a, b| match (a, b) {
        (Known(a), Known(b)) => Ok(Known(i64::from(a == b))),
        (Known(known), Made(size)) | (Made(size), Known(known))
            if known < 0 && writer.sizes.contains(&size) =>
        {
            Ok(Known(0))
        }
        (size, Known(_)) | (_, size) => Ok(size),
    };
    let made = paired(&a, &b, equal).transpose()?;
    let Some((known, made)) = made.and_then(|made| Some((made.constants()?, made))) else {
        return Ok(None);
    };
    let row = writer.integers(&known, made.is_single)?;
    cast(writer, row, BOOL).map(Some)
}

/// Values by flags that are constants.
fn selected(writer: &mut Writer, call: &NodeCall) -> Result<Option<Numbers>> {
    let Value::Tensor(flags) = call.input(0)? else {
        return Ok(None);
    };
    let Some(flags) = writer.known_floats(*flags)? else {
        return Ok(None);
    };
    let [a, b] = [1, 2].map(|at| call.input(at).and_then(|value| writer.as_numbers(value)));
    let (Some(a), Some(b)) = (a?, b?) else {
        return Ok(None);
    };
    let count = flags.len().max(a.items.len()).max(b.items.len());
    let at = |numbers: &Numbers, at: usize| match numbers.items.as_slice() {
        [only] => Some(*only),
        items => items.get(at).copied(),
    };
    let items = (0..count).map(|place| {
        let flag = if flags.len() == 1 {
            flags.first()
        } else {
            flags.get(place)
        };
        at(if *flag? == 0.0 { &b } else { &a }, place)
    });
    let items: Option<Vec<Number>> = items.collect();
    Ok(items.map(|items| Numbers {
        items,
        is_single: a.is_single && b.is_single,
    }))
}

/// An operator on the items of two lists, of which one may have a single item.
fn paired(
    a: &Numbers,
    b: &Numbers,
    mut operator: impl FnMut(Number, Number) -> Result<Number>,
) -> Option<Result<Numbers>> {
    let count = a.items.len().max(b.items.len());
    let fits = |numbers: &Numbers| numbers.items.len() == count || numbers.items.len() == 1;
    if !fits(a) || !fits(b) {
        return None;
    }
    let at = |numbers: &Numbers, at: usize| numbers.items[at.min(numbers.items.len() - 1)];
    let items = (0..count).map(|place| operator(at(a, place), at(b, place)));
    let items: Result<Vec<Number>> = items.collect();
    Some(items.map(|items| Numbers {
        items,
        is_single: a.is_single && b.is_single,
    }))
}

/// The start, end, axes and steps of a slice: attributes up to opset 9, inputs from 10 on.
pub fn slices(writer: &mut Writer, call: &NodeCall) -> Result<Vec<[Option<Number>; 4]>> {
    let lists = if call.version < 10 {
        ["starts", "ends", "axes", "steps"]
            .map(|name| Ok(call.ints(name)?.map(|items| Numbers::known(&items))))
    } else {
        [1, 2, 3, 4].map(|at| {
            let value = call.optional(at);
            value.map(|value| writer.numbers(value)).transpose()
        })
    };
    let [starts, ends, axes, steps] = lists;
    let starts = starts?.context("lacks its starts")?.items;
    let others = [ends?, axes?, steps?].map(|list| list.map(|list| list.items));
    ensure!(
        others
            .iter()
            .flatten()
            .all(|list| list.len() == starts.len()),
        "has starts, ends, axes and steps of different lengths"
    );
    let item = |at: usize, place: usize| others[at].as_ref().map(|list| list[place]);
    let of = |(place, start)| [Some(start), item(0, place), item(1, place), item(2, place)];
    Ok(starts.into_iter().enumerate().map(of).collect())
}

fn sliced(writer: &mut Writer, call: &NodeCall, list: &Numbers) -> Result<Option<Numbers>> {
    let slices = slices(writer, call)?;
    let [[Some(Known(start)), Some(Known(end)), axis, step]] = slices.as_slice() else {
        return Ok(None);
    };
    let is_plain =
        matches!(axis, None | Some(Known(0 | -1))) && matches!(step, None | Some(Known(1)));
    if !is_plain {
        return Ok(None);
    }
    let count = list.items.len() as i64;
    let from =
        |at: i64| if at < 0 { at.saturating_add(count) } else { at }.clamp(0, count) as usize;
    let (start, end) = (from(*start), from(*end));
    let items = list.items.get(start..end.max(start)).unwrap_or_default();
    Ok(Some(Numbers {
        items: items.to_vec(),
        is_single: false,
    }))
}

/// A shape that has the number of images for which the network was exported has that of the
/// images that it gets instead.
fn reshape(writer: &mut Writer, tracked: &mut Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let mut target = call.numbers(writer, 1)?.items;
    let keeps_zero = call.flag("allowzero", false)?;
    for (dim, size) in target.iter_mut().enumerate() {
        if *size == Known(0) && !keeps_zero {
            *size = writer.size(x, dim as i64)?;
        }
    }
    if let Some((images, Some(count))) = tracked.images
        && target.first() == Some(&Known(count))
        && grows_with_the_batch(writer, x, count)?
    {
        target[0] = writer.size(images, 0)?;
    }
    let made = writer.op("reshape", "", &[x.into(), Arg::Numbers(target)])?;
    if let Some(raised) = normalisation::raised(writer, tracked, x, made)? {
        return Ok(raised);
    }
    tracked.reshaped.insert(made, x);
    Ok(made)
}

/// Whether a tensor has values for each image, of which an example has `count` and the other one
/// more.
fn grows_with_the_batch(writer: &Writer, x: BuiltValue, count: i64) -> Result<bool> {
    let examples = [0, 1].map(|example| writer.builder.shape(x, example));
    let [Some(one), Some(other)] = [&examples[0], &examples[1]].map(|shape| {
        let shape = shape.as_ref().ok()?.as_ref()?;
        let sizes = shape.sizes.iter().copied();
        sizes.map(i128::from).reduce(i128::saturating_mul)
    }) else {
        return Ok(false);
    };
    let count = i128::from(count);
    Ok(one > 0 && one.checked_mul(count + 1) == other.checked_mul(count))
}

fn flatten(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let mut x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let axis = call.int("axis", 1)?;
    let axis = if axis < 0 { axis + rank } else { axis };
    ensure!(
        (0..=rank).contains(&axis),
        "has the axis {axis}, but its input has {rank} dimensions"
    );
    if axis == 0 {
        return writer.op("reshape", "", &[x.into(), Arg::Ints(vec![1, -1])]);
    }
    if axis == rank {
        return writer.op("reshape", "", &[x.into(), Arg::Ints(vec![-1, 1])]);
    }
    if axis > 1 {
        x = writer.op(
            "flatten",
            "using_ints",
            &[x.into(), Arg::Int(0), Arg::Int(axis - 1)],
        )?;
    }
    writer.op(
        "flatten",
        "using_ints",
        &[x.into(), Arg::Int(1), Arg::Int(-1)],
    )
}

/// The axes are attributes up to opset 12, and inputs from 13 on. Without axes, those of size 1 are
/// taken away, and that of the images if the file has a single one.
fn squeeze(writer: &mut Writer, tracked: &Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let mut x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let axes = match call.ints_or_input(writer, "axes", 1)? {
        Some(axes) => axes,
        None => {
            let is_single = matches!(tracked.images, Some((_, Some(1))));
            let first = writer.shape(x)?.map(|shape| shape.sizes);
            let fixed = writer.fixed_sizes(x)?.unwrap_or_default();
            let sizes = fixed.iter().zip(first.unwrap_or_default()).enumerate();
            let ones =
                sizes.filter(|(_, (fixed, first))| *first == 1 && (fixed.is_some() || is_single));
            ones.map(|(dim, _)| dim as i64).collect()
        }
    };
    let axes = axes.iter().map(|&axis| writer.axis(axis, rank));
    let mut axes = axes.collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    for &axis in axes.iter().rev() {
        x = writer.op("squeeze", "dim", &[x.into(), Arg::Int(axis)])?;
    }
    Ok(x)
}

fn unsqueeze(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let mut x = call.tensor(writer, 0)?;
    let axes = call.ints_or_input(writer, "axes", 1)?;
    let axes = axes.context("lacks its axes")?;
    let rank = writer.rank(x)? + axes.len() as i64;
    let axes = axes.iter().map(|&axis| writer.axis(axis, rank));
    let mut axes = axes.collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    for axis in axes {
        x = writer.op("unsqueeze", "", &[x.into(), Arg::Int(axis)])?;
    }
    Ok(x)
}

fn transpose(writer: &mut Writer, tracked: &mut Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let order = call.ints("perm")?;
    let order = order.unwrap_or_else(|| (0..rank).rev().collect());
    let order = order.iter().map(|&axis| writer.axis(axis, rank));
    let order = order.collect::<Result<Vec<_>>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    ensure!(
        sorted == (0..rank).collect::<Vec<_>>(),
        "has perm {order:?}, but its input has {rank} dimensions"
    );
    tracked.permuted(writer, x, &order)
}

/// A size of 1 keeps that of the input.
fn expand(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let mut target = call.numbers(writer, 1)?.items;
    while (target.len() as i64) < rank {
        target.insert(0, Known(1));
    }
    let new = target.len() as i64 - rank;
    for (dim, size) in target.iter_mut().enumerate() {
        if *size == Known(1) && dim as i64 >= new {
            *size = Known(-1);
        }
    }
    writer.op("expand", "", &[x.into(), Arg::Numbers(target)])
}

fn range(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let mut arguments: Vec<Arg> = Vec::new();
    let mut is_whole = true;
    for at in 0..3 {
        match call.input(at)? {
            Value::Numbers(numbers) => {
                let item = numbers.items.first().context("lacks a bound")?;
                arguments.push((*item).into());
            }
            Value::Tensor(tensor) => {
                let known = writer.known_number(*tensor)?;
                let known = known.context("has bounds that depend on the images")?;
                let is_integer = writer.is_whole(*tensor)?;
                is_whole &= is_integer;
                arguments.push(match is_integer {
                    true => Arg::Int(known as i64),
                    false => Arg::Float(known),
                });
            }
        }
    }
    let kind = if is_whole {
        super::super::writer::INT64
    } else {
        super::super::writer::FLOAT
    };
    arguments.extend([Arg::Int(kind), Arg::None, Arg::Device, Arg::None]);
    writer.op("arange", "start_step", &arguments)
}
