//! The safe face of the C++ shim (`cpp/shim.h`).
//!
//! Tensors are passed as pointers to `at::Tensor`, which tch calls `C_tensor`.

mod builder;
mod ranks;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::{self, NonNull};

use anyhow::{Result, anyhow, ensure};
use tch::{Device, Kind, Tensor};

use super::messages::{of_panic, one_line};
pub use builder::{Builder, BuiltValue, Call, Constant, OF_NUMBERS, Shape};
pub use ranks::{RawRanks, RawStore};

/// The form in which a program returns a value `[N,C,h,w]`: `enum prism_reading`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Reading {
    /// The tensor itself.
    Whole = 0,
    /// Its mean over the channels, `[N,1,h,w]`.
    ChannelMean = 1,
    /// Sums of its channels with random signs, `[N,min(16,C),h,w]`: distances between pixels over
    /// all channels are kept.
    SignedSums = 2,
}

/// How a program computes: `enum prism_execution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Execution {
    /// The graph's operators one by one, in float32: to compare with.
    Plain = 0,
    /// In float32 with batch-norms folded into convolutions and, on the CPU, oneDNN's
    /// memory layouts.
    Optimised = 1,
    /// The same in bfloat16 (8 bits of mantissa).
    Bfloat16 = 2,
    /// The same in float16 (11 bits of mantissa, numbers up to 65504).
    Float16 = 3,
}

/// How a value is laid out: `prism_layout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RawLayout {
    /// Whether `order` is used.
    pub permuted: i32,
    /// The dimension that holds height and width at once, or -1.
    pub space: i32,
    /// Height that `space` holds.
    pub height: i64,
    /// Width that `space` holds.
    pub width: i64,
    /// The dimensions of N, C, h and w, after `space` is divided.
    pub order: [i64; 4],
    /// Whether rows and columns run against those of the image.
    pub mirrored: [i32; 2],
}

/// A value that a program returns: `prism_output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Output {
    /// The number of the value in the graph.
    pub value: i64,
    /// The form in which it is returned.
    pub reading: Reading,
    /// How it is laid out.
    pub layout: RawLayout,
}

/// How excitation backpropagation takes the winning probability back through an operator:
/// `enum prism_backprop_rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum BackpropRule {
    /// The z-plus rule: layers with weights, average pooling.
    ZPlus = 0,
    /// The z-plus rule, minus the same with negated weights.
    ZPlusContrastive = 1,
    /// Unchanged, to one input.
    Pass = 2,
    /// To the first two inputs, in proportion to their positive parts.
    SplitPositive = 3,
}

/// The rule of one operator: `prism_node_rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct NodeRule {
    /// The number of the operator's output.
    pub value: i64,
    /// The rule.
    pub flow: BackpropRule,
    /// The position of the input that receives the probability.
    pub input: i32,
    /// The number of the output of the batch-norm that is folded into its weights, or -1.
    pub batch_norm: i64,
}

/// The point at which gradients begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradientTap {
    /// The number of the value.
    pub value: i64,
    /// The rules of operators behind it, in execution order.
    pub rules: Vec<NodeRule>,
}

/// `prism_graph`.
enum GraphHandle {}
/// `prism_program`.
enum ProgramHandle {}
/// Null, or the reason of a failure.
type Message = *mut c_char;

unsafe extern "C" {
    fn prism_device_prepare(device: c_int) -> Message;
    fn prism_graph_load(path: *const c_char, device: c_int, out: *mut *mut GraphHandle) -> Message;
    fn prism_trace_begin(example: *const c_void, input: *mut *mut c_void) -> Message;
    fn prism_trace_end(output: *const c_void, cpu: c_int, out: *mut *mut GraphHandle) -> Message;
    fn prism_trace_finish(trace: *mut GraphHandle) -> Message;
    fn prism_graph_describe(
        graph: *mut GraphHandle,
        shape: *const i64,
        device: c_int,
        json: *mut *mut c_char,
    ) -> Message;
    fn prism_graph_sizes(
        graph: *mut GraphHandle,
        shape: *const i64,
        device: c_int,
        json: *mut *mut c_char,
    ) -> Message;
    fn prism_graph_batches(graph: *mut GraphHandle, json: *mut *mut c_char) -> Message;
    fn prism_program_new(
        graph: *mut GraphHandle,
        outputs: *const Output,
        count: usize,
        tap: i64,
        rules: *const NodeRule,
        rule_count: usize,
        execution: Execution,
        out: *mut *mut ProgramHandle,
    ) -> Message;
    fn prism_program_unoptimised(program: *const ProgramHandle) -> Message;
    fn prism_head_new(
        graph: *mut GraphHandle,
        outputs: *const Output,
        count: usize,
        value: i64,
        layout: *const RawLayout,
        out: *mut *mut ProgramHandle,
    ) -> Message;
    fn prism_program_run(
        program: *mut ProgramHandle,
        input: *const c_void,
        results: *mut *mut c_void,
    ) -> Message;
    fn prism_tensor_of_floats(
        values: *mut u8,
        shape: *const i64,
        dimensions: usize,
        drop: extern "C" fn(*mut c_void),
        owner: *mut c_void,
        out: *mut *mut c_void,
    ) -> Message;
    fn prism_pinned(values: *const c_void, out: *mut *mut c_void) -> Message;
    fn prism_skip_init(on: c_int);
    fn prism_graph_free(graph: *mut GraphHandle);
    fn prism_program_free(program: *mut ProgramHandle);
    fn prism_message_free(message: *mut c_char);
}

/// A frozen, inlined TorchScript graph.
#[derive(Debug)]
pub struct RawGraph(NonNull<GraphHandle>);

/// A graph compiled to return selected values.
#[derive(Debug)]
pub struct RawProgram {
    handle: NonNull<ProgramHandle>,
    count: usize,
}

impl Drop for RawGraph {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is released once.
        unsafe { prism_graph_free(self.0.as_ptr()) }
    }
}

impl Drop for RawProgram {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { prism_program_free(self.handle.as_ptr()) }
    }
}

impl RawGraph {
    /// Loads a TorchScript file onto `device`.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the file cannot be loaded, or if its forward
    /// does not take one batch of images.
    pub fn load(path: &Path, device: Device) -> Result<RawGraph> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut graph = ptr::null_mut();
        // SAFETY: the path is a C string and `graph` outlives the call.
        check(unsafe { prism_graph_load(path.as_ptr(), device_index(device), &mut graph) })?;
        not_null(graph).map(RawGraph)
    }

    /// The graph as JSON, with the sizes of its values for an input of `shape` `[N,C,H,W]`, if
    /// one is given.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the network cannot take such an input.
    pub fn describe(&self, shape: Option<[i64; 4]>, device: Device) -> Result<String> {
        let (graph, device) = (self.0.as_ptr(), device_index(device));
        let shape = shape.as_ref().map_or(ptr::null(), |shape| shape.as_ptr());
        let mut json = ptr::null_mut();
        // SAFETY: four numbers are read from `shape` unless it is null; `json` outlives the call.
        check(unsafe { prism_graph_describe(graph, shape, device, &mut json) })?;
        take_string(json).ok_or_else(|| anyhow!("the shim returned no description"))
    }

    /// The sizes alone, as in [`describe`](RawGraph::describe).
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the network cannot take such an input.
    pub fn sizes(&self, shape: [i64; 4], device: Device) -> Result<String> {
        let (graph, device) = (self.0.as_ptr(), device_index(device));
        let mut json = ptr::null_mut();
        // SAFETY: four numbers are read from `shape`; `json` outlives the call.
        check(unsafe { prism_graph_sizes(graph, shape.as_ptr(), device, &mut json) })?;
        take_string(json).ok_or_else(|| anyhow!("the shim returned no sizes"))
    }

    /// Constants above 1 of the graph that may be the size of a batch, as a JSON list.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn batches(&self) -> Result<String> {
        let mut json = ptr::null_mut();
        // SAFETY: the handle came from the shim; `json` outlives the call.
        check(unsafe { prism_graph_batches(self.0.as_ptr(), &mut json) })?;
        take_string(json).ok_or_else(|| anyhow!("the shim returned no sizes"))
    }

    /// Compiles the graph to return `outputs`, in that order, and after them the value of
    /// `tap` as a leaf of autograd. With a tap the program computes plainly, whatever
    /// `execution` is.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn program(
        &self,
        outputs: &[Output],
        tap: Option<&GradientTap>,
        execution: Execution,
    ) -> Result<RawProgram> {
        let mut program = ptr::null_mut();
        let rules = tap.map_or(&[][..], |tap| &tap.rules);
        // SAFETY: both slices have the lengths given, and their entries are laid out as in C.
        check(unsafe {
            prism_program_new(
                self.0.as_ptr(),
                outputs.as_ptr(),
                outputs.len(),
                tap.map_or(-1, |tap| tap.value),
                rules.as_ptr(),
                rules.len(),
                execution,
                &mut program,
            )
        })?;
        Ok(RawProgram {
            handle: not_null(program)?,
            count: outputs.len() + usize::from(tap.is_some()),
        })
    }

    /// Compiles what follows an activation, as a program that takes it as `[N,C,h,w]` in place of
    /// the images and returns `outputs`.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line, or an error if the outputs depend on the images in
    /// another way.
    pub fn head(&self, activation: &Output, outputs: &[Output]) -> Result<RawProgram> {
        let mut program = ptr::null_mut();
        // SAFETY: the slice has the length given, its entries and the layout are laid out as in C.
        check(unsafe {
            prism_head_new(
                self.0.as_ptr(),
                outputs.as_ptr(),
                outputs.len(),
                activation.value,
                &activation.layout,
                &mut program,
            )
        })?;
        Ok(RawProgram {
            handle: not_null(program)?,
            count: outputs.len(),
        })
    }

    /// Records the operators of `forward`, as `torch.jit.trace` does. `forward` gets a tensor of
    /// the shape of `example` `[N,C,H,W]` without values, so it neither computes nor reads
    /// weights. The result is a graph after [`finish_trace`](RawGraph::finish_trace).
    ///
    /// # Errors
    /// Returns the reason on one line if `forward` panics, as tch does, or if its output does
    /// not depend on its input.
    pub fn record(example: &Tensor, forward: impl FnOnce(&Tensor) -> Tensor) -> Result<RawGraph> {
        let mut input = ptr::null_mut();
        // SAFETY: tch's pointer is to a live at::Tensor; `input` outlives the call.
        check(unsafe { prism_trace_begin(example.as_ptr().cast(), &mut input) })?;
        // SAFETY: the shim made a new at::Tensor, which tch owns from here on.
        let input = unsafe { Tensor::from_ptr(input.cast()) };
        let output = catch_unwind(AssertUnwindSafe(|| forward(&input)));
        let pointer = output
            .as_ref()
            .map_or(ptr::null(), |output| output.as_ptr().cast());
        let on_cpu = c_int::from(example.device() == Device::Cpu);
        let mut graph = ptr::null_mut();
        // SAFETY: the pointer is null or to a live at::Tensor; `graph` outlives the call.
        let ended = check(unsafe { prism_trace_end(pointer, on_cpu, &mut graph) });
        output.map_err(|panic| of_panic(&*panic)).and(ended)?;
        not_null(graph).map(RawGraph)
    }

    /// Makes a trace a graph. The weights must have their final values.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn finish_trace(&mut self) -> Result<()> {
        // SAFETY: the handle came from the shim, and nothing else has it.
        check(unsafe { prism_trace_finish(self.0.as_ptr()) })
    }
}

impl RawProgram {
    /// Why libtorch could not make the program faster, on one line; `None` if it could, or was
    /// not asked.
    pub fn unoptimised(&self) -> Option<String> {
        // SAFETY: the handle came from the shim; the message is the caller's.
        take_string(unsafe { prism_program_unoptimised(self.handle.as_ptr()) })
            .map(|reason| one_line(&reason))
    }

    /// Runs the graph on a batch. Gradients are recorded behind the tap, if there is one.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn run(&self, input: &Tensor) -> Result<Vec<Tensor>> {
        let mut results = vec![ptr::null_mut(); self.count];
        let (program, input) = (self.handle.as_ptr(), input.as_ptr().cast());
        // SAFETY: the shim writes `count` pointers on success, else none.
        check(unsafe { prism_program_run(program, input, results.as_mut_ptr()) })?;
        ensure!(
            results.iter().all(|tensor| !tensor.is_null()),
            "the shim returned fewer tensors than requested"
        );
        // SAFETY: each pointer is to a new at::Tensor, which tch owns from here on.
        let own = |tensor: *mut c_void| unsafe { Tensor::from_ptr(tensor.cast()) };
        Ok(results.into_iter().map(own).collect())
    }
}

/// A float32 tensor of `shape` on the CPU that takes over `bytes` (native-endian, row-major).
/// They are copied only if they are not aligned.
/// A copy would cost half a second of a core per GB of weights.
///
/// # Errors
/// Returns an error if `bytes` has another length than the shape needs.
pub fn tensor_of_floats(mut bytes: Vec<u8>, shape: &[i64]) -> Result<Tensor> {
    let length = shape
        .iter()
        .try_fold(4i64, |length, &n| length.checked_mul(n));
    ensure!(
        length.and_then(|length| usize::try_from(length).ok()) == Some(bytes.len()),
        "its shape {shape:?} does not fit its {} bytes",
        bytes.len()
    );
    let values = bytes.as_mut_ptr();
    if values.align_offset(align_of::<f32>()) != 0 {
        return Ok(Tensor::f_from_data_size(&bytes, shape, Kind::Float)?);
    }
    extern "C" fn drop_bytes(owner: *mut c_void) {
        // SAFETY: `owner` is the box made below, which is released once.
        drop(unsafe { Box::from_raw(owner.cast::<Vec<u8>>()) });
    }
    let owner = Box::into_raw(Box::new(bytes)).cast();
    let (sizes, dimensions) = (shape.as_ptr(), shape.len());
    let mut tensor = ptr::null_mut();
    // SAFETY: the bytes are aligned, as many as the shape needs, used by nobody else, and stay
    // in place as long as their vector lives.
    check(unsafe {
        prism_tensor_of_floats(values, sizes, dimensions, drop_bytes, owner, &mut tensor)
    })
    .inspect_err(|_| drop_bytes(owner))?;
    // SAFETY: the shim made a new at::Tensor, which tch owns from here on.
    Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
}

/// A copy of a tensor of the CPU in memory that a GPU reads by itself. tch names the device, for
/// which libtorch warns on standard error.
///
/// # Errors
/// Returns libtorch's reason on one line if there is no such memory.
pub fn pinned(tensor: &Tensor) -> Result<Tensor> {
    let mut copy = ptr::null_mut();
    // SAFETY: tch's pointer is to a live at::Tensor; `copy` outlives the call.
    check(unsafe { prism_pinned(tensor.as_ptr().cast(), &mut copy) })?;
    // SAFETY: the shim made a new at::Tensor, which tch owns from here on.
    Ok(unsafe { Tensor::from_ptr(copy.cast()) })
}

/// Runs `build` with parameter initialisation skipped: tensors of zeros, ones, uniform or
/// normal values that this thread makes have a shape but no memory of their own.
/// libtorch refuses other values meanwhile.
pub fn skip_init<T>(build: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            // SAFETY: clears a flag of this thread.
            unsafe { prism_skip_init(0) }
        }
    }
    let _off = Off; // also after a panic
    // SAFETY: sets a flag of this thread.
    unsafe { prism_skip_init(1) };
    build()
}

/// Readies a device: float32 stays what it is there.
///
/// # Errors
/// Returns libtorch's reason on one line if the device does not compute.
pub fn prepare(device: Device) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { prism_device_prepare(device_index(device)) })
}

fn device_index(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => index as c_int,
        _ => -1,
    }
}

fn not_null<T>(handle: *mut T) -> Result<NonNull<T>> {
    NonNull::new(handle).ok_or_else(|| anyhow!("the shim returned nothing"))
}

fn check(message: Message) -> Result<()> {
    take_string(message).map_or(Ok(()), |message| Err(anyhow!(one_line(&message))))
}

fn take_string(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returns C strings of its own, which are released here once.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        prism_message_free(text);
        Some(owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_skipped_init_a_layer_takes_no_memory() {
        // 4 TB, were they there.
        let side = 1 << 20;
        let vs = tch::nn::VarStore::new(Device::Cpu);
        let layer =
            skip_init(|| tch::nn::linear(vs.root(), side, side, tch::nn::LinearConfig::default()));
        assert_eq!(layer.ws.size(), [side, side]);
        assert_eq!(layer.ws.stride(), [0, 0]);
        // What would be written into them is refused.
        assert!(skip_init(|| Tensor::f_from_data_size(&[1; 16], &[4], Kind::Float)).is_err());
        let mut values = Tensor::f_zeros([4, 4], (Kind::Float, Device::Cpu)).unwrap();
        assert_eq!(values.stride(), [4, 1]);
        let _ = values.f_uniform_(2.0, 3.0).unwrap();
        assert!(values.f_min().unwrap().double_value(&[]) >= 2.0);
    }

    #[test]
    fn bytes_become_a_tensor_where_they_are() {
        let bytes: Vec<u8> = [1.0f32, -2.0, 0.5, 3.0, 0.25, -8.0]
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect();
        let at = bytes.as_ptr();
        let tensor = tensor_of_floats(bytes, &[2, 3]).unwrap();
        assert_eq!(tensor.data_ptr() as *const u8, at);
        let kept = tensor.get(1);
        drop(tensor);
        assert_eq!(Vec::<f32>::try_from(kept).unwrap(), [3.0, 0.25, -8.0]);
        assert!(tensor_of_floats(vec![0; 8], &[3]).is_err());
        assert_eq!(
            tensor_of_floats(Vec::new(), &[0, 4]).unwrap().size(),
            [0, 4]
        );
    }
}
