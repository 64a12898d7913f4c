//! The safe face of the builder: a graph, operator by operator.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};
use tch::{Device, Tensor};

use super::{GraphHandle, Message, RawGraph, check, device_index, not_null};

/// `prism_builder`.
enum BuilderHandle {}

/// `prism_constant`.
#[repr(C)]
struct RawConstant {
    kind: i32,
    integer: i64,
    number: f64,
    text: *const c_char,
    tensor: *const c_void,
}

/// `prism_argument`.
#[repr(C)]
struct RawArgument {
    name: *const c_char,
    value: i64,
}

/// `prism_result`.
#[repr(C)]
struct RawResult {
    name: *const c_char,
    value: i64,
}

/// The most dimensions of which a shape is known.
const MOST_DIMENSIONS: usize = 16;

/// `prism_shape`.
#[repr(C)]
struct RawShape {
    kind: i32,
    dimensions: i32,
    sizes: [i64; MOST_DIMENSIONS],
}

unsafe extern "C" {
    fn prism_builder_new(device: c_int, out: *mut *mut BuilderHandle) -> Message;
    fn prism_builder_input(builder: *mut BuilderHandle, value: *mut i64) -> Message;
    fn prism_builder_constant(
        builder: *mut BuilderHandle,
        constant: *const RawConstant,
        value: *mut i64,
    ) -> Message;
    fn prism_builder_list(
        builder: *mut BuilderHandle,
        items: *const i64,
        count: usize,
        value: *mut i64,
    ) -> Message;
    fn prism_builder_call(
        builder: *mut BuilderHandle,
        name: *const c_char,
        overload: *const c_char,
        path: *const c_char,
        arguments: *const RawArgument,
        count: usize,
        results: *mut i64,
        result_count: usize,
    ) -> Message;
    fn prism_builder_examples(
        builder: *mut BuilderHandle,
        shapes: *const i64,
        most: i64,
    ) -> Message;
    fn prism_builder_shape(
        builder: *mut BuilderHandle,
        value: i64,
        example: usize,
        shape: *mut RawShape,
    ) -> Message;
    fn prism_builder_known(
        builder: *const BuilderHandle,
        value: i64,
        tensor: *mut *mut c_void,
    ) -> Message;
    fn prism_builder_failure(builder: *const BuilderHandle) -> Message;
    fn prism_builder_finish(
        builder: *mut BuilderHandle,
        outputs: *const RawResult,
        count: usize,
        out: *mut *mut GraphHandle,
    ) -> Message;
    fn prism_builder_free(builder: *mut BuilderHandle);
}

/// A value of a graph that is being built. It belongs to one builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuiltValue(i64);

/// In place of an overload: the one for the kinds of the numbers that are given (sizes).
pub const OF_NUMBERS: &str = "number";

/// A constant of a graph.
#[derive(Debug)]
pub enum Constant<'a> {
    /// `None`.
    None,
    /// A flag.
    Bool(bool),
    /// An integer; also a number format, as libtorch numbers them.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// A word.
    Text(&'a str),
    /// The device of the graph.
    Device,
    /// A tensor, which is moved to the device of the graph.
    Tensor(&'a Tensor),
}

/// An operator of libtorch's namespace `aten`, as it is called.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its name, such as `add`.
    pub operator: &'a str,
    /// The name of its overload, such as `Tensor`; empty for the one without a name.
    pub overload: &'a str,
    /// The path of the module whose code calls it, such as `features.0`.
    pub path: &'a str,
    /// Its arguments, by name or by position. The others have their defaults.
    pub arguments: &'a [(Option<&'a str>, BuiltValue)],
    /// The number of values that are taken of it. A list is taken item by item.
    pub results: usize,
}

/// The shape of a tensor for an example batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// libtorch's number of the type of its values.
    pub kind: i64,
    /// Its sizes.
    pub sizes: Vec<i64>,
}

/// A graph that is being built.
#[derive(Debug)]
pub struct Builder {
    handle: NonNull<BuilderHandle>,
    count: i64, // of values
    device: Device,
}

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is released once.
        unsafe { prism_builder_free(self.handle.as_ptr()) }
    }
}

impl Builder {
    /// An empty graph on `device`.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the device does not compute.
    pub fn new(device: Device) -> Result<Builder> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` outlives the call.
        check(unsafe { prism_builder_new(device_index(device), &mut handle) })?;
        let (handle, count) = (not_null(handle)?, 0);
        Ok(Builder {
            handle,
            count,
            device,
        })
    }

    /// The device of the graph.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Adds the batch of images.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn input(&mut self) -> Result<BuiltValue> {
        let mut value = 0;
        // SAFETY: `value` outlives the call.
        check(unsafe { prism_builder_input(self.handle.as_ptr(), &mut value) })?;
        Ok(self.made(value))
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn constant(&mut self, constant: &Constant) -> Result<BuiltValue> {
        let (mut integer, mut number, mut text) = (0, 0.0, CString::default());
        let mut tensor = ptr::null();
        let kind = match constant {
            Constant::None => 0,
            Constant::Bool(flag) => {
                integer = i64::from(*flag);
                1
            }
            Constant::Integer(value) => {
                integer = *value;
                2
            }
            Constant::Float(value) => {
                number = *value;
                3
            }
            Constant::Text(word) => {
                text = CString::new(*word).context("a word holds a zero byte")?;
                4
            }
            Constant::Device => 5,
            Constant::Tensor(values) => {
                tensor = values.as_ptr().cast();
                6
            }
        };
        let raw = RawConstant {
            kind,
            integer,
            number,
            text: text.as_ptr(),
            tensor,
        };
        let mut value = 0;
        // SAFETY: what `raw` points to and `value` outlive the call.
        check(unsafe { prism_builder_constant(self.handle.as_ptr(), &raw, &mut value) })?;
        Ok(self.made(value))
    }

    /// Adds a list. The operator that takes it decides the type of its items.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn list(&mut self, items: &[BuiltValue]) -> Result<BuiltValue> {
        let items = self.numbers(items)?;
        let (builder, mut value) = (self.handle.as_ptr(), 0);
        // SAFETY: the items are as many as stated; `value` outlives the call.
        check(unsafe { prism_builder_list(builder, items.as_ptr(), items.len(), &mut value) })?;
        Ok(self.made(value))
    }

    /// Adds an operator and returns its results.
    ///
    /// # Errors
    /// Returns one line if libtorch has no such operator, prism does not run it, or an argument
    /// does not fit.
    pub fn call(&mut self, call: &Call) -> Result<Vec<BuiltValue>> {
        let word = |text: &str| CString::new(text).context("a name holds a zero byte");
        let (operator, overload) = (word(call.operator)?, word(call.overload)?);
        let path = word(call.path)?;
        let names = call.arguments.iter().map(|(name, _)| name.map(word));
        let names: Vec<Option<CString>> = names.map(Option::transpose).collect::<Result<_>>()?;
        let values: Vec<BuiltValue> = call.arguments.iter().map(|&(_, value)| value).collect();
        let values = self.numbers(&values)?;
        let argument = |(name, value): (&Option<CString>, i64)| RawArgument {
            name: name.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
            value,
        };
        let arguments: Vec<RawArgument> = names.iter().zip(values).map(argument).collect();
        let mut results = vec![0; call.results];
        // SAFETY: the strings and slices outlive the call and have the lengths given.
        check(unsafe {
            prism_builder_call(
                self.handle.as_ptr(),
                operator.as_ptr(),
                overload.as_ptr(),
                path.as_ptr(),
                arguments.as_ptr(),
                arguments.len(),
                results.as_mut_ptr(),
                results.len(),
            )
        })?;
        Ok(results.into_iter().map(|value| self.made(value)).collect())
    }

    /// Gives two example batches `[N,C,H,W]` for the input, which was added before. From now on
    /// shapes are known, and operators on constants are computed at once; they may make `most`
    /// numbers in all.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn set_examples(&mut self, examples: [[i64; 4]; 2], most: i64) -> Result<()> {
        let shapes = examples.concat();
        // SAFETY: the shim reads two times four numbers.
        check(unsafe { prism_builder_examples(self.handle.as_ptr(), shapes.as_ptr(), most) })
    }

    /// The shape of a tensor for example 0 or 1; `None` if it is not known.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn shape(&self, value: BuiltValue, example: usize) -> Result<Option<Shape>> {
        let value = self.numbers(&[value])?[0];
        let mut raw = RawShape {
            kind: 0,
            dimensions: -1,
            sizes: [0; MOST_DIMENSIONS],
        };
        // SAFETY: `raw` outlives the call and has room for the most sizes.
        check(unsafe {
            prism_builder_shape(self.handle.as_ptr(), value, example.min(1), &mut raw)
        })?;
        let Ok(dimensions) = usize::try_from(raw.dimensions) else {
            return Ok(None);
        };
        let sizes = raw.sizes.iter().take(dimensions).copied().collect();
        let kind = i64::from(raw.kind);
        Ok(Some(Shape { kind, sizes }))
    }

    /// The values of a constant tensor, on the CPU; `None` if it depends on the images.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn known(&self, value: BuiltValue) -> Result<Option<Tensor>> {
        let value = self.numbers(&[value])?[0];
        let mut tensor = ptr::null_mut();
        // SAFETY: `tensor` outlives the call.
        check(unsafe { prism_builder_known(self.handle.as_ptr(), value, &mut tensor) })?;
        // SAFETY: the shim made a new at::Tensor, which tch owns from here on.
        Ok(NonNull::new(tensor).map(|tensor| unsafe { Tensor::from_ptr(tensor.as_ptr().cast()) }))
    }

    /// Why the first operator that cannot run on example 0 cannot, in a line; `None` if all can.
    pub fn failure(&self) -> Option<String> {
        // SAFETY: the builder outlives the call.
        let failure = check(unsafe { prism_builder_failure(self.handle.as_ptr()) });
        failure.err().map(|reason| reason.to_string())
    }

    /// The graph that returns `outputs`, each with its name, which may be empty.
    ///
    /// # Errors
    /// Returns one line if the graph cannot be run as that of a network.
    pub fn finish(self, outputs: &[(String, BuiltValue)]) -> Result<RawGraph> {
        let names = outputs.iter().map(|(name, _)| CString::new(name.as_str()));
        let names: Vec<CString> = names
            .collect::<Result<_, _>>()
            .context("the name of an output holds a zero byte")?;
        let values: Vec<BuiltValue> = outputs.iter().map(|&(_, value)| value).collect();
        let values = self.numbers(&values)?;
        let result = |(name, value): (&CString, i64)| RawResult {
            name: name.as_ptr(),
            value,
        };
        let results: Vec<RawResult> = names.iter().zip(values).map(result).collect();
        let (builder, mut graph) = (self.handle.as_ptr(), ptr::null_mut());
        // SAFETY: the results are as many as stated; they, their names and `graph` outlive the call.
        check(unsafe {
            prism_builder_finish(builder, results.as_ptr(), results.len(), &mut graph)
        })?;
        not_null(graph).map(RawGraph)
    }

    fn made(&mut self, value: i64) -> BuiltValue {
        self.count = self.count.max(value + 1);
        BuiltValue(value)
    }

    /// The numbers of values of this builder.
    fn numbers(&self, values: &[BuiltValue]) -> Result<Vec<i64>> {
        let known = values.iter().all(|value| value.0 < self.count);
        ensure!(known, "a value of another graph");
        Ok(values.iter().map(|value| value.0).collect())
    }
}
