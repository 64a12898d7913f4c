//! Writes operators of libtorch into the graph, with arguments of all kinds, and answers what is
//! known of their results.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

use crate::hooks::{Builder, BuiltValue, Call, Constant, OF_NUMBERS, Shape, plain};

/// libtorch's numbers of types.
pub const FLOAT: i64 = 6;
pub const INT64: i64 = 4;
pub const BOOL: i64 = 11;

/// The most numbers that a list of sizes may have.
pub const MOST_NUMBERS: usize = 64;

/// The most operators and results of them. A node may take thousands of inputs, one after the other.
const MOST_CALLS: usize = 100_000;

/// An integer: a constant, or one that depends on the shape of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Known(i64),
    Made(BuiltValue),
}

use Number::{Known, Made};

/// Integers that depend on the shape of the images: a list, or a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    pub items: Vec<Number>,
    pub is_single: bool,
}

impl Numbers {
    /// A list of constants.
    pub fn known(items: &[i64]) -> Numbers {
        Numbers {
            items: items.iter().copied().map(Known).collect(),
            is_single: false,
        }
    }

    /// All of them, if they are constants.
    pub fn constants(&self) -> Option<Vec<i64>> {
        let items = self.items.iter();
        items
            .map(|item| match item {
                Known(number) => Some(*number),
                Made(_) => None,
            })
            .collect()
    }
}

/// What a name in the file stands for.
#[derive(Debug, Clone)]
pub enum Value {
    /// A tensor, which may be a constant.
    Tensor(BuiltValue),
    /// Integers of which one is no constant.
    Numbers(Numbers),
}

/// An argument of an operator.
#[derive(Debug, Clone)]
pub enum Arg<'a> {
    Value(BuiltValue),
    Int(i64),
    Float(f64),
    Bool(bool),
    None,
    Text(&'a str),
    Ints(Vec<i64>),
    Numbers(Vec<Number>),
    Values(Vec<BuiltValue>),
    /// The device of the graph.
    Device,
}

impl From<BuiltValue> for Arg<'_> {
    fn from(value: BuiltValue) -> Self {
        Arg::Value(value)
    }
}

impl From<Number> for Arg<'_> {
    fn from(number: Number) -> Self {
        match number {
            Known(number) => Arg::Int(number),
            Made(value) => Arg::Value(value),
        }
    }
}

impl From<Option<BuiltValue>> for Arg<'_> {
    fn from(value: Option<BuiltValue>) -> Self {
        value.map_or(Arg::None, Arg::Value)
    }
}

/// The shape of an input is not known, as an operator before cannot run on the example.
#[derive(Debug)]
pub struct NotKnown;

impl std::fmt::Display for NotKnown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("has an input whose number of dimensions is not known")
    }
}

impl std::error::Error for NotKnown {}

/// Writes the operators of one node after the other.
pub struct Writer<'b> {
    pub builder: &'b mut Builder,
    /// The path of the module whose operators are written.
    pub path: String,
    /// The sizes of tensors among the values: they are not negative.
    pub sizes: HashSet<BuiltValue>,
    /// The operators and their results so far.
    count: usize,
}

impl<'b> Writer<'b> {
    pub fn new(builder: &'b mut Builder) -> Writer<'b> {
        Writer {
            builder,
            path: String::new(),
            sizes: HashSet::new(),
            count: 0,
        }
    }

    /// Adds an operator of one result.
    pub fn op(&mut self, operator: &str, overload: &str, arguments: &[Arg]) -> Result<BuiltValue> {
        let made = self.ops(operator, overload, arguments, 1)?;
        made.first().copied().context("it makes nothing")
    }

    /// Adds an operator of several results.
    pub fn ops(
        &mut self,
        operator: &str,
        overload: &str,
        arguments: &[Arg],
        results: usize,
    ) -> Result<Vec<BuiltValue>> {
        self.count = self.count.saturating_add(results + 1);
        ensure!(
            self.count <= MOST_CALLS,
            "makes more than {MOST_CALLS} operators and results with the nodes before it"
        );
        let mut given = Vec::with_capacity(arguments.len());
        for argument in arguments {
            given.push((None, self.argument(argument)?));
        }
        let path = std::mem::take(&mut self.path);
        let made = self.builder.call(&Call {
            operator,
            overload,
            path: &path,
            arguments: &given,
            results,
        });
        self.path = path;
        made
    }

    fn argument(&mut self, argument: &Arg) -> Result<BuiltValue> {
        let mut list = |values: Vec<Constant>| -> Result<BuiltValue> {
            let items = values.iter().map(|value| self.builder.constant(value));
            let items: Vec<BuiltValue> = items.collect::<Result<_>>()?;
            self.builder.list(&items)
        };
        match argument {
            Arg::Value(value) => Ok(*value),
            Arg::Int(number) => self.builder.constant(&Constant::Integer(*number)),
            Arg::Float(number) => self.builder.constant(&Constant::Float(*number)),
            Arg::Bool(flag) => self.builder.constant(&Constant::Bool(*flag)),
            Arg::None => self.builder.constant(&Constant::None),
            Arg::Text(word) => self.builder.constant(&Constant::Text(word)),
            Arg::Device => self.builder.constant(&Constant::Device),
            Arg::Ints(items) => list(items.iter().copied().map(Constant::Integer).collect()),
            Arg::Values(items) => self.builder.list(items),
            Arg::Numbers(items) => {
                let mut values = Vec::with_capacity(items.len());
                for &item in items {
                    values.push(self.number(item)?);
                }
                self.builder.list(&values)
            }
        }
    }

    /// A constant tensor.
    pub fn constant(&mut self, tensor: &Tensor) -> Result<BuiltValue> {
        self.builder.constant(&Constant::Tensor(tensor))
    }

    /// A constant tensor of integers; one without dimensions if `is_single`.
    pub fn integers(&mut self, numbers: &[i64], is_single: bool) -> Result<BuiltValue> {
        let row = Tensor::f_from_slice(numbers).map_err(plain)?;
        let row = if is_single {
            row.f_squeeze().map_err(plain)?
        } else {
            row
        };
        self.constant(&row)
    }

    /// A constant tensor of floating-point numbers.
    pub fn floats(&mut self, numbers: &[f64], shape: &[i64]) -> Result<BuiltValue> {
        let row = Tensor::f_from_slice(numbers)
            .and_then(|row| row.f_to_kind(Kind::Float))
            .and_then(|row| row.f_view(shape));
        self.constant(&row.map_err(plain)?)
    }

    /// The shape of a tensor for an example batch.
    pub fn shape(&self, value: BuiltValue) -> Result<Option<Shape>> {
        self.builder.shape(value, 0)
    }

    /// The number of dimensions.
    pub fn rank(&self, value: BuiltValue) -> Result<i64> {
        let shape = self.shape(value)?;
        Ok(shape.ok_or(NotKnown)?.sizes.len() as i64)
    }

    /// A dimension, counted from the front.
    pub fn axis(&self, axis: i64, rank: i64) -> Result<i64> {
        let found = if axis < 0 { axis + rank } else { axis };
        ensure!(
            (0..rank.max(1)).contains(&found),
            "has the axis {axis}, but its input has {rank} dimensions"
        );
        Ok(found)
    }

    /// Whether a tensor holds integers or flags; not if that is not known.
    pub fn is_whole(&self, value: BuiltValue) -> Result<bool> {
        let shape = self.shape(value)?;
        Ok(shape.is_some_and(|shape| shape.kind < 5 || shape.kind == BOOL))
    }

    /// The sizes that do not depend on the images.
    pub fn fixed_sizes(&self, value: BuiltValue) -> Result<Option<Vec<Option<i64>>>> {
        let examples = [self.builder.shape(value, 0)?, self.builder.shape(value, 1)?];
        let [Some(first), second] = examples else {
            return Ok(None);
        };
        let second = second.filter(|second| second.sizes.len() == first.sizes.len());
        let sizes = first.sizes.iter().enumerate().map(|(dim, &size)| {
            let is_same = second
                .as_ref()
                .is_some_and(|other| other.sizes[dim] == size);
            is_same.then_some(size)
        });
        Ok(Some(sizes.collect()))
    }

    /// A size of a tensor.
    pub fn size(&mut self, value: BuiltValue, dim: i64) -> Result<Number> {
        let fixed = self.fixed_sizes(value)?;
        let known =
            fixed.and_then(|sizes| sizes.get(usize::try_from(dim).ok()?).copied().flatten());
        match known {
            Some(size) => Ok(Known(size)),
            None => {
                let size = self.op("size", "int", &[value.into(), Arg::Int(dim)])?;
                self.sizes.insert(size);
                Ok(Made(size))
            }
        }
    }

    /// The values of a constant tensor, on the CPU.
    pub fn known(&self, value: BuiltValue) -> Result<Option<Tensor>> {
        self.builder.known(value)
    }

    /// The only number of a constant tensor.
    pub fn known_number(&self, value: BuiltValue) -> Result<Option<f64>> {
        let known = self.known(value)?;
        let known = known.filter(|tensor| tensor.numel() == 1);
        Ok(known.map(|tensor| tensor.to_kind(Kind::Double).reshape([1]).double_value(&[0])))
    }

    /// The numbers of a constant tensor of one dimension, or none.
    pub fn known_floats(&self, value: BuiltValue) -> Result<Option<Vec<f64>>> {
        let known = self.known(value)?;
        let row = known.map(|tensor| tensor.f_to_kind(Kind::Double)?.f_reshape([-1]));
        let row = row.transpose().map_err(plain)?;
        row.map(|row| Vec::<f64>::try_from(&row).map_err(plain))
            .transpose()
    }

    /// A value as a tensor.
    pub fn tensor(&mut self, value: &Value) -> Result<BuiltValue> {
        let numbers = match value {
            Value::Tensor(tensor) => return Ok(*tensor),
            Value::Numbers(numbers) => numbers,
        };
        if let Some(known) = numbers.constants() {
            return self.integers(&known, numbers.is_single);
        }
        let mut items = Vec::new();
        for &item in &numbers.items {
            let (kind, none) = (Arg::Int(INT64), Arg::None);
            items.push(self.op(
                "scalar_tensor",
                "",
                &[item.into(), kind, none.clone(), Arg::Device, none],
            )?);
        }
        match items.as_slice() {
            &[only] if numbers.is_single => Ok(only),
            _ => self.op("stack", "", &[Arg::Values(items), Arg::Int(0)]),
        }
    }

    /// A value as integers.
    pub fn numbers(&mut self, value: &Value) -> Result<Numbers> {
        let tensor = match value {
            Value::Numbers(numbers) => return Ok(numbers.clone()),
            Value::Tensor(tensor) => *tensor,
        };
        if let Some(known) = self.known(tensor)? {
            let is_few = known.dim() <= 1 && known.numel() <= MOST_NUMBERS;
            ensure!(is_few, "has sizes of the shape {:?}", known.size());
            let row = known
                .f_to_kind(Kind::Int64)
                .and_then(|row| row.f_reshape([-1]));
            return Ok(Numbers {
                items: Vec::<i64>::try_from(&row.map_err(plain)?)
                    .map_err(plain)?
                    .into_iter()
                    .map(Known)
                    .collect(),
                is_single: known.dim() == 0,
            });
        }
        let shape = self.shape(tensor)?;
        let shape = shape.ok_or(NotKnown)?;
        match shape.sizes.as_slice() {
            [] => {
                let only = self.op("Int", "Tensor", &[tensor.into()])?;
                Ok(Numbers {
                    items: vec![Made(only)],
                    is_single: true,
                })
            }
            &[count] if (0..=MOST_NUMBERS as i64).contains(&count) => {
                let mut items = Vec::new();
                for at in 0..count {
                    let one =
                        self.op("select", "int", &[tensor.into(), Arg::Int(0), Arg::Int(at)])?;
                    items.push(Made(self.op("Int", "Tensor", &[one.into()])?));
                }
                Ok(Numbers {
                    items,
                    is_single: false,
                })
            }
            sizes => bail!("has sizes of the shape {sizes:?}"),
        }
    }

    /// Integers as a value: a constant tensor if all are known.
    pub fn value_of(&mut self, numbers: Numbers) -> Result<Value> {
        match numbers.constants() {
            Some(known) => Ok(Value::Tensor(self.integers(&known, numbers.is_single)?)),
            None => Ok(Value::Numbers(numbers)),
        }
    }

    /// The integers of a value if they are sizes, or a few constants.
    pub fn as_numbers(&mut self, value: &Value) -> Result<Option<Numbers>> {
        match value {
            Value::Numbers(numbers) => Ok(Some(numbers.clone())),
            Value::Tensor(tensor) => {
                let shape = self.shape(*tensor)?;
                let is_list = shape.is_some_and(|shape| {
                    shape.kind < 5
                        && shape.sizes.len() <= 1
                        && shape.sizes.iter().all(|&size| size <= MOST_NUMBERS as i64)
                });
                match is_list && self.known(*tensor)?.is_some() {
                    true => self.numbers(value).map(Some),
                    false => Ok(None),
                }
            }
        }
    }

    /// An integer as a value of the graph.
    pub fn number(&mut self, number: Number) -> Result<BuiltValue> {
        match number {
            Known(number) => self.builder.constant(&Constant::Integer(number)),
            Made(value) => Ok(value),
        }
    }

    /// Arithmetic of sizes: `add`, `sub`, `mul`, `max`, `min`, `floordiv` by what is positive,
    /// `remainder` with the sign of the divisor; `div` and `fmod` towards zero.
    pub fn arithmetic(&mut self, operator: &str, a: Number, b: Number) -> Result<Number> {
        if let (Known(a), Known(b)) = (a, b) {
            let made = match operator {
                "add" => a.checked_add(b),
                "sub" => a.checked_sub(b),
                "mul" => a.checked_mul(b),
                "floordiv" => a.checked_div_euclid(b),
                "div" => a.checked_div(b),
                "fmod" => a.checked_rem(b),
                "remainder" => a.checked_rem(b).map(|rest| match rest != 0 {
                    true if (rest < 0) != (b < 0) => rest + b,
                    _ => rest,
                }),
                "max" => Some(a.max(b)),
                _ => Some(a.min(b)),
            };
            return made.map(Known).context("has sizes that are no numbers");
        }
        let (a, b) = (self.number(a)?, self.number(b)?);
        let made = self.op(operator, OF_NUMBERS, &[a.into(), b.into()])?;
        // These two make floating-point numbers, which are exact for sizes.
        Ok(Made(match operator {
            "div" | "fmod" => self.op("Int", OF_NUMBERS, &[made.into()])?,
            _ => made,
        }))
    }
}
