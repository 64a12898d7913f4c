//! The safe face of the C++ shim: the only unsafe code of the crate.
//!
//! Tensors cross the border as pointers to `at::Tensor`, which is what tch
//! calls `C_tensor`. A failure comes back as a message that libtorch worded
//! for programmers over many lines; [`one_line`] keeps the line that says why.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Once;

use anyhow::{Result, anyhow, ensure};
use tch::{Device, Kind, Tensor};

/// What a program returns of a value: `enum prism_reading` of the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Reading {
    /// The tensor itself.
    Whole = 0,
    /// Its mean over the channels, `[N,1,h,w]`.
    ChannelMean = 1,
    /// The means of the positive parts of four runs of its channels,
    /// `[N,min(4,C),h,w]`: channel c belongs to run floor(4c / C).
    GroupMeans = 2,
}

/// How a program computes: `enum prism_execution` of the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Execution {
    /// The graph's operators one by one, in float32: to compare with.
    Plain = 0,
    /// With batch-norms folded into convolutions and, on the CPU, oneDNN's
    /// layouts from one operator to the next; float32.
    #[default]
    Optimised = 1,
    /// That, in bfloat16 (8 bits of mantissa).
    Bfloat16 = 2,
}

/// `prism_output` of the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Output {
    /// The number of the value in the graph.
    pub value: i64,
    /// What of it.
    pub reading: Reading,
}

/// How winning probability goes back through an operator: `enum prism_flow` of
/// the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum BackpropRule {
    /// As through a layer with weights, or average pooling.
    ZPlus = 0,
    /// As that, less what the negated weights would send.
    ZPlusContrastive = 1,
    /// Unchanged, to one input.
    Pass = 2,
    /// To the first two inputs in proportion to their positive parts.
    SplitPositive = 3,
}

/// `prism_rule` of the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct NodeRule {
    /// The number of what the operator makes.
    pub value: i64,
    /// What it does with what comes back.
    pub flow: BackpropRule,
    /// Which of its inputs takes it.
    pub input: i32,
    /// The number of what the batch-norm makes that is folded into its weights;
    /// -1 where there is none.
    pub batch_norm: i64,
}

/// What gradients are wanted of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradientTap {
    /// The number of the value at which gradients begin.
    pub value: i64,
    /// Operators behind it with a flow of their own, in execution order.
    pub rules: Vec<NodeRule>,
}

#[repr(C)]
struct RawGraphHandle {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawProgramHandle {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn prism_graph_load(
        path: *const c_char,
        device: c_int,
        out: *mut *mut RawGraphHandle,
    ) -> *mut c_char;
    fn prism_trace_begin(input: *const c_void) -> *mut c_char;
    fn prism_trace_end(output: *const c_void, out: *mut *mut RawGraphHandle) -> *mut c_char;
    fn prism_trace_abandon();
    fn prism_trace_finish(trace: *mut RawGraphHandle) -> *mut c_char;
    fn prism_graph_describe(
        graph: *mut RawGraphHandle,
        shape: *const i64,
        device: c_int,
        json: *mut *mut c_char,
    ) -> *mut c_char;
    fn prism_program_new(
        graph: *mut RawGraphHandle,
        outputs: *const Output,
        count: usize,
        watched: i64,
        rules: *const NodeRule,
        rule_count: usize,
        execution: Execution,
        out: *mut *mut RawProgramHandle,
    ) -> *mut c_char;
    fn prism_defer_values(on: c_int);
    fn prism_reuse_freed_memory(on: c_int);
    fn prism_program_run(
        program: *mut RawProgramHandle,
        input: *const c_void,
        results: *mut *mut c_void,
    ) -> *mut c_char;
    fn prism_tensor_of_floats(
        values: *mut u8,
        shape: *const i64,
        dimensions: usize,
        drop: extern "C" fn(*mut c_void),
        owner: *mut c_void,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn prism_graph_free(graph: *mut RawGraphHandle);
    fn prism_program_free(program: *mut RawProgramHandle);
    fn prism_message_free(message: *mut c_char);
}

/// A float32 tensor of `shape` on the CPU that takes over `bytes` (native-endian,
/// row-major) and does not copy them, but where they lie askew in memory.
///
/// # Errors
/// Where there are not as many.
pub fn tensor_of_floats(mut bytes: Vec<u8>, shape: &[i64]) -> Result<Tensor> {
    let count = shape
        .iter()
        .try_fold(4i64, |count, &n| count.checked_mul(n));
    ensure!(
        count.and_then(|count| usize::try_from(count).ok()) == Some(bytes.len()),
        "its shape {shape:?} does not fit its {} bytes",
        bytes.len()
    );
    let values = bytes.as_mut_ptr();
    if values.align_offset(align_of::<f32>()) != 0 {
        return Ok(Tensor::f_from_data_size(&bytes, shape, Kind::Float)?);
    }
    extern "C" fn drop_bytes(owner: *mut c_void) {
        // SAFETY: `owner` is the box made below, and the shim lets it go once.
        drop(unsafe { Box::from_raw(owner.cast::<Vec<u8>>()) });
    }
    let owner = Box::into_raw(Box::new(bytes)).cast();
    let mut tensor = ptr::null_mut();
    // SAFETY: the bytes stay where they are while the vector lives that owns them,
    // which nobody else touches; they are aligned and as many as the shape takes.
    let made = check(unsafe {
        prism_tensor_of_floats(
            values,
            shape.as_ptr(),
            shape.len(),
            drop_bytes,
            owner,
            &mut tensor,
        )
    });
    if made.is_err() {
        drop_bytes(owner);
    }
    made?;
    // SAFETY: the shim has made a new at::Tensor, which tch's now owns.
    Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
}

/// A frozen, inlined TorchScript graph.
#[derive(Debug)]
pub struct RawGraph(NonNull<RawGraphHandle>);

/// What was recorded of a forward pass, before it is a graph.
#[derive(Debug)]
pub struct RawTrace(RawGraph);

/// A graph compiled to return chosen values.
#[derive(Debug)]
pub struct RawProgram {
    handle: NonNull<RawProgramHandle>,
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
    /// With libtorch's reason, on one line, where the file cannot be loaded or
    /// its forward does not take one batch of images.
    pub fn load(path: &Path, device: Device) -> Result<RawGraph> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut graph = ptr::null_mut();
        // SAFETY: the path is a C string and `graph` outlives the call.
        check(unsafe { prism_graph_load(path.as_ptr(), device_index(device), &mut graph) })?;
        from_shim(graph).map(RawGraph)
    }

    /// The graph as JSON, with the sizes of its values for an input of
    /// `shape` `[N,C,H,W]`.
    ///
    /// # Errors
    /// With libtorch's reason, on one line, where the network cannot take such
    /// an input.
    pub fn describe(&self, shape: [i64; 4], device: Device) -> Result<String> {
        let mut json = ptr::null_mut();
        // SAFETY: four numbers are read from `shape`; `json` outlives the call.
        check(unsafe {
            prism_graph_describe(
                self.0.as_ptr(),
                shape.as_ptr(),
                device_index(device),
                &mut json,
            )
        })?;
        take_string(json).ok_or_else(|| anyhow!("the shim returned no description"))
    }

    /// Compiles the graph so that it returns `outputs`, in that order, and
    /// after them what `watch` names, as a leaf of autograd (it then computes
    /// plainly, whatever `execution` says).
    ///
    /// # Errors
    /// With libtorch's reason on one line.
    pub fn program(
        &self,
        outputs: &[Output],
        watch: Option<&GradientTap>,
        execution: Execution,
    ) -> Result<RawProgram> {
        let mut program = ptr::null_mut();
        let rules = watch.map_or(&[][..], |watch| &watch.rules);
        // SAFETY: both slices hold as many entries as is said, laid out as in C.
        check(unsafe {
            prism_program_new(
                self.0.as_ptr(),
                outputs.as_ptr(),
                outputs.len(),
                watch.map_or(-1, |watch| watch.value),
                rules.as_ptr(),
                rules.len(),
                execution,
                &mut program,
            )
        })?;
        Ok(RawProgram {
            handle: from_shim(program)?,
            count: outputs.len() + usize::from(watch.is_some()),
        })
    }
}

impl RawTrace {
    /// Records `forward` on `example`, as `torch.jit.trace` does, but for the arithmetic:
    /// the values of weights are not read.
    ///
    /// # Errors
    /// With the reason where `forward` fails (tch panics there) or computes
    /// something that does not depend on its input.
    pub fn record(example: &Tensor, forward: impl FnOnce(&Tensor) -> Tensor) -> Result<RawTrace> {
        // SAFETY: tch's pointer is to a live at::Tensor, which the shim copies.
        check(unsafe { prism_trace_begin(example.as_ptr().cast()) })?;
        let output = silent_panics(|| forward(example)).inspect_err(|_| {
            // SAFETY: no arguments; ends the trace begun above.
            unsafe { prism_trace_abandon() }
        })?;
        let mut graph = ptr::null_mut();
        // SAFETY: as for prism_trace_begin; the shim ends the trace in any case.
        check(unsafe { prism_trace_end(output.as_ptr().cast(), &mut graph) })?;
        from_shim(graph).map(RawGraph).map(RawTrace)
    }

    /// The graph, once its weights have the values that they will keep.
    ///
    /// # Errors
    /// With libtorch's reason, on one line.
    pub fn into_graph(self) -> Result<RawGraph> {
        // SAFETY: the handle came from the shim, and nothing else has it.
        check(unsafe { prism_trace_finish(self.0.0.as_ptr()) })?;
        Ok(self.0)
    }
}

impl RawProgram {
    /// Runs the graph on a batch, without gradients but behind a watched value.
    ///
    /// # Errors
    /// With libtorch's reason on one line.
    pub fn run(&self, input: &Tensor) -> Result<Vec<Tensor>> {
        let mut results = vec![ptr::null_mut(); self.count];
        // SAFETY: the shim writes `count` pointers on success and none before.
        check(unsafe {
            prism_program_run(
                self.handle.as_ptr(),
                input.as_ptr().cast(),
                results.as_mut_ptr(),
            )
        })?;
        ensure!(
            results.iter().all(|tensor| !tensor.is_null()),
            "the shim returned fewer tensors than it was asked for"
        );
        // SAFETY: each pointer is a new at::Tensor that tch now owns.
        Ok(results
            .into_iter()
            .map(|tensor| unsafe { Tensor::from_ptr(tensor.cast()) })
            .collect())
    }
}

/// What `build` returns, where the tensors that it makes on this thread have their size but
/// neither memory nor values of their own: a module whose variables are to be replaced.
/// It may only make zeros, ones, and uniform or normal values; libtorch refuses all else.
pub fn without_values<T>(build: impl FnOnce() -> T) -> T {
    // SAFETY: sets a flag of this thread.
    while_on(|on| unsafe { prism_defer_values(on) }, build)
}

/// What `work` returns. Meanwhile the allocator keeps what is freed for the tensors to come:
/// a network makes the same ones for every chunk of images, and memory fresh from the system
/// costs a tenth of its time (a page fault every 4 KiB). What was free before or is
/// afterwards goes back to the system, which takes milliseconds.
pub fn reusing_freed_memory<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: sets two numbers of the allocator, and touches no memory that is in use.
    while_on(|on| unsafe { prism_reuse_freed_memory(on) }, work)
}

/// What `work` returns while a switch is on; it is off again even after a panic.
fn while_on<T>(switch: impl Fn(c_int), work: impl FnOnce() -> T) -> T {
    struct Off<F: Fn(c_int)>(F);
    impl<F: Fn(c_int)> Drop for Off<F> {
        fn drop(&mut self) {
            (self.0)(0);
        }
    }
    switch(1);
    let _off = Off(switch);
    work()
}

fn device_index(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => index as c_int,
        _ => -1,
    }
}

fn from_shim<T>(handle: *mut T) -> Result<NonNull<T>> {
    NonNull::new(handle).ok_or_else(|| anyhow!("the shim returned nothing"))
}

fn check(message: *mut c_char) -> Result<()> {
    match take_string(message) {
        None => Ok(()),
        Some(message) => Err(anyhow!(one_line(&message))),
    }
}

fn take_string(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returns C strings of its own, released here once.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        prism_message_free(text);
        Some(owned)
    }
}

const NO_MEMORY: &str = "the memory is not enough";

/// Whether libtorch was refused memory.
pub fn is_lack_of_memory(error: &anyhow::Error) -> bool {
    error.to_string().starts_with(NO_MEMORY)
}

/// The line of a libtorch message that says why.
///
/// TorchScript's interpreter puts a traceback before the reason, the loader
/// puts one after it; both end up as one line without either.
pub fn one_line(message: &str) -> String {
    const RAISED: &str = "builtins.";
    // What libtorch says before it is the place in its code, and the name of its allocator.
    const ALLOCATOR: &str = "can't allocate memory: you tried to allocate ";
    if let Some((_, rest)) = message.split_once(ALLOCATOR) {
        let bytes = rest.split(' ').next().unwrap_or_default();
        return format!("{NO_MEMORY}: it asks for {bytes} bytes more");
    }
    const UNKNOWN: &str = "Unknown builtin op: ";
    if let Some((_, rest)) = message.split_once(UNKNOWN) {
        let name = rest.split_whitespace().next().unwrap_or_default();
        let name = name.trim_end_matches('.');
        return format!("it uses the operator {name}, which this libtorch does not have");
    }
    let lines = || message.lines().map(str::trim).filter(|l| !l.is_empty());
    let is_reason = |line: &&str| line.starts_with("RuntimeError: ") || line.starts_with(RAISED);
    let line = if message.contains("Traceback of TorchScript") {
        lines().rfind(is_reason).or_else(|| lines().next_back())
    } else {
        lines().next()
    };
    let line = line.unwrap_or("libtorch gave no reason");
    // A line that only announces the reason.
    let next = lines().skip_while(|l| *l != line).nth(1);
    let announced = next.filter(|_| line.ends_with(':'));
    let line = &announced.map_or(line.to_string(), |next| format!("{line} {next}"));
    let line = ["RuntimeError: ", "Error: ", RAISED]
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .unwrap_or(line);
    line.trim_end_matches('.').to_string()
}

/// An error of tch as a line without libtorch's stack.
pub fn plain(error: tch::TchError) -> anyhow::Error {
    let text = error.to_string();
    let text = text.strip_prefix("Internal torch error: ").unwrap_or(&text);
    anyhow!(one_line(&text.replace("\\n", "\n")))
}

thread_local! {
    /// Whether a panic of this thread is expected, and caught.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, turning a panic of tch (an operator that libtorch refused) into
/// an error, without the panic's own print.
fn silent_panics<T>(body: impl FnOnce() -> T) -> Result<T> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let otherwise = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTED.get() {
                otherwise(panic);
            }
        }));
    });
    EXPECTED.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    EXPECTED.set(false);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("libtorch gave no reason");
        anyhow!(one_line(&text.replace("\\n", "\n")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_values_a_layer_takes_no_memory() {
        // 4 TB, were they there.
        let side = 1 << 20;
        let vs = tch::nn::VarStore::new(Device::Cpu);
        let layer = without_values(|| {
            tch::nn::linear(vs.root(), side, side, tch::nn::LinearConfig::default())
        });
        assert_eq!(layer.ws.size(), [side, side]);
        assert_eq!(layer.ws.stride(), [0, 0]);
        // What would be written into them is refused.
        assert!(without_values(|| Tensor::f_from_data_size(&[1; 16], &[4], Kind::Float)).is_err());
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

    #[test]
    fn a_traceback_is_left_out_of_a_message() {
        let message = "The following operation failed in the TorchScript interpreter.\n\
            Traceback of TorchScript (most recent call last):\n  File \"x.py\", line 3, in forward\n\
            return torch.conv2d(x)\n           ~~~~~~~ <--- HERE\n\
            RuntimeError: expected 3 channels, but got 1 channels instead\n";
        assert_eq!(
            one_line(message),
            "expected 3 channels, but got 1 channels instead"
        );
        let raised = "Traceback of TorchScript\nbuiltins.ValueError: too small\nand more\n";
        assert_eq!(one_line(raised), "ValueError: too small");
        assert_eq!(one_line("first\nsecond"), "first");
        assert_eq!(one_line("it failed:\n\n  why\nwhere"), "it failed: why");
        assert_eq!(one_line(""), "libtorch gave no reason");
    }
}
