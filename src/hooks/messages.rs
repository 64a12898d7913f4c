//! libtorch's error messages, worded for programmers over many lines, as one line.

use std::any::Any;

use anyhow::anyhow;

const NO_MEMORY: &str = "the memory is not enough";
const CPU_ALONE: &str =
    "its layers with 8-bit weights compute on the CPU alone; the device must be the CPU";
const QUANTISED: &str = "this is a quantised network, whose activations are not floating-point numbers; export the network before quantisation";

/// Whether libtorch could not allocate memory.
pub fn is_lack_of_memory(error: &anyhow::Error) -> bool {
    error.root_cause().to_string().starts_with(NO_MEMORY)
}

/// The longest reason in libtorch's words, in characters.
const LONGEST: usize = 160;

/// A libtorch message as one line: in our words if it is of a usual kind, else the line that
/// gives the reason.
pub fn one_line(message: &str) -> String {
    let reason = reason(message);
    in_our_words(message, &reason).unwrap_or_else(|| shortened(&without_internals(&reason)))
}

/// The line of a libtorch message that gives the reason.
///
/// TorchScript's interpreter puts a traceback before the reason, the loader puts one after
/// it. Both are left out.
fn reason(message: &str) -> String {
    const RAISED: &str = "builtins.";
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

/// The text after `start` and before the first of `ends`.
fn between<'a>(text: &'a str, start: &str, ends: &[&str]) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    let end = ends.iter().filter_map(|end| rest.find(end)).min();
    Some(rest[..end.unwrap_or(rest.len())].trim())
}

/// What the usual messages mean for someone who runs a network.
fn in_our_words(message: &str, reason: &str) -> Option<String> {
    let after = |start: &str| between(message, start, &[" ", "\n"]);
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));

    // Memory. The place in libtorch's code and the name of its allocator come before this.
    if let Some(bytes) = after("can't allocate memory: you tried to allocate ") {
        return Some(format!("{NO_MEMORY}: it asks for {bytes} bytes more"));
    }
    let full = [
        "out of memory",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ];
    if has(&full) {
        return Some(match between(message, "Tried to allocate ", &[". "]) {
            Some(asked) => format!("{NO_MEMORY} on the GPU: it asks for {asked} more"),
            None => format!("{NO_MEMORY} on the GPU"),
        });
    }

    // What this libtorch does not have.
    if has(&["NoQEngine", "quantized engine", "'QuantizedCPU' backend"])
        || has(&["quantised operator"])
    {
        return Some(QUANTISED.to_string());
    }
    if has(&["8-bit weights on a GPU"]) {
        return Some(CPU_ALONE.to_string());
    }
    if let Some(name) = after("Unknown builtin op: ") {
        let name = name.trim_end_matches('.');
        return Some(format!(
            "it uses the operator {name}, which this libtorch does not have"
        ));
    }
    if let Some(name) = between(
        message,
        "__torch__.torch.classes.",
        &["'", " ", "\n", ";", ")"],
    )
    .filter(|_| has(&["Unknown type name", "class instance"]))
    {
        return Some(format!(
            "it uses the class {name}, which this libtorch does not have"
        ));
    }
    if let Some(version) = between(message, "file with version ", &[","]) {
        return Some(format!(
            "it was written by a newer release of libtorch (format {version}); export it with an older one"
        ));
    }
    if let Some(operator) = between(message, "Could not run '", &["'"]) {
        let backend = between(message, "arguments from the '", &["'"]).unwrap_or("requested");
        return Some(format!(
            "its operator {operator} does not run on the {backend} backend of this libtorch; export the network on the CPU, in float32"
        ));
    }

    // A traceback has the network's code, whose words mean nothing here.
    let message = reason;
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));

    // Devices and number formats.
    if has(&[
        "not linked with support for cuda",
        "compiled with CUDA",
        "No CUDA GPUs",
        "NVIDIA driver",
        "deserialize object on",
    ]) {
        return Some("it needs a CUDA device, which this machine or this libtorch does not have; export it on the CPU".to_string());
    }
    if has(&["same device", "is on cpu", "two devices"]) {
        return Some(
            "a device is built in, so that tensors of two devices meet; export it on the CPU"
                .to_string(),
        );
    }
    if message.contains("CUDA error: ") || message.contains("cuDNN error: ") {
        let what = between(message, "error: ", &["\n", ". "]).unwrap_or("unknown");
        return Some(format!("the GPU failed ({what})"));
    }
    if has(&[
        "same dtype",
        "expected scalar type",
        "should be the same",
        "not implemented for 'Half'",
        "not implemented for 'BFloat16'",
        "must match the dtype",
    ]) && !message.contains("size")
    {
        return Some(
            "it mixes number formats (float32 and another one); export it in float32".to_string(),
        );
    }

    // Sizes.
    if let (Some(size), Some(values)) = (
        between(message, "shape '", &["'"]),
        between(message, "is invalid for input of size ", &[" ", "\n"]),
    ) {
        return Some(format!(
            "the sizes {size} are built in, which {values} values do not fit"
        ));
    }
    if let Some(shapes) = between(message, "shapes cannot be multiplied (", &[")"]) {
        let [found, wanted] = shapes.split_once(" and ").map(|(a, b)| [a, b])?;
        let found = found.split('x').nth(1)?;
        let wanted = wanted.split('x').next()?;
        return Some(format!(
            "a fully connected layer takes {wanted} values, and gets {found}"
        ));
    }
    if let Some(channels) =
        between(message, " to have ", &[" channels"]).filter(|_| message.contains("expected input"))
    {
        let found = between(message, "but got ", &[" channels"]).unwrap_or("others");
        return Some(format!(
            "a convolution takes {channels} channels, and gets {found}"
        ));
    }
    if has(&[
        "Kernel size can't be greater",
        "Output size is too small",
        "Padding size should be less",
        "padding size is expected to be",
        "non-zero size for input",
        "non-zero dimensions",
    ]) {
        return Some("the image is too small for its strides and windows".to_string());
    }
    if let Some(sizes) = between(message, "The size of tensor a (", &[")"]) {
        let other = between(message, "tensor b (", &[")"]).unwrap_or("another");
        return Some(format!(
            "activations of the sizes {sizes} and {other} do not fit each other"
        ));
    }
    if let Some(sizes) = between(message, "Expected size ", &[" for", "\n", "."])
        .filter(|_| message.contains("Sizes of tensors must match"))
    {
        let sizes = sizes.replace(" but got size ", " and ");
        return Some(format!(
            "activations of the sizes {sizes} do not fit each other"
        ));
    }
    if message.contains("more than 1 value per channel when training") {
        return Some("a batch-norm uses the statistics of the batch, but an image gives it one value per channel; export the network in inference mode, with running statistics".to_string());
    }
    if let Some((_, rest)) = reason.split_once("INTERNAL ASSERT FAILED") {
        let what = rest
            .split_once("report a bug to PyTorch")
            .map(|(_, rest)| rest);
        let what = what.unwrap_or_default().trim_start_matches(['.', ' ']);
        let why = match what {
            "" => "it gives no reason".to_string(),
            what => without_internals(what),
        };
        return Some(format!(
            "libtorch fails at an operator: {}",
            shortened(&why)
        ));
    }
    None
}

/// Without the words that mean something to the authors of libtorch only.
fn without_internals(reason: &str) -> String {
    let mut text = reason.to_string();
    for internal in ["c10::", "at::", "std::", "torch::jit::"] {
        text = text.replace(internal, "");
    }
    text.replace("PyTorch", "libtorch")
}

/// At most [`LONGEST`] characters: whole sentences, or the beginning of the first one.
fn shortened(text: &str) -> String {
    let mut kept = String::new();
    let fits = |kept: &str, part: &str| kept.chars().count() + part.chars().count() <= LONGEST;
    for sentence in text.split_inclusive(". ") {
        if !fits(&kept, sentence) {
            break;
        }
        kept.push_str(sentence);
    }
    if !kept.is_empty() {
        return kept.trim_end_matches(['.', ' ']).to_string();
    }
    for word in text.split_inclusive(' ') {
        if !fits(&kept, word) {
            break;
        }
        kept.push_str(word);
    }
    format!("{}...", kept.trim_end())
}

/// An error of tch as one line, without libtorch's stack.
pub fn plain(error: tch::TchError) -> anyhow::Error {
    let text = error.to_string();
    of_tch(text.strip_prefix("Internal torch error: ").unwrap_or(&text))
}

/// An error of which the cause may be one of tch, as one line.
pub fn without_prose(error: anyhow::Error) -> anyhow::Error {
    error.downcast().map_or_else(|error| error, plain)
}

/// A panic of tch (an operator that libtorch refused) as an error of one line.
pub fn of_panic(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    of_tch(text.unwrap_or_default())
}

/// tch writes line ends as `\n`.
fn of_tch(text: &str) -> anyhow::Error {
    anyhow!(one_line(&text.replace("\\n", "\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// What libtorch says, and the part that our words must have.
    #[test]
    fn usual_messages_are_in_our_words() {
        for (message, part) in [
            (
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)",
                "asks for 4000000000 bytes more",
            ),
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 GiB is free. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF",
                "memory is not enough on the GPU: it asks for 2.00 GiB more",
            ),
            (
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "memory is not enough on the GPU",
            ),
            (
                "Could not run 'aten::empty.memory_format' with arguments from the 'CUDA' backend. This could be because the operator doesn't exist for this backend, or was omitted during the selective/custom build process (if using custom build). If you are a Facebook employee using PyTorch on mobile, please visit https://fburl.com/ptmfixes for possible resolutions. 'aten::empty.memory_format' is only available for these backends: [CPU, Meta]",
                "operator aten::empty.memory_format does not run on the CUDA backend",
            ),
            ("8-bit weights on a GPU", "compute on the CPU alone"),
            (
                "Could not run 'quantized::conv2d.new' with arguments from the 'QuantizedCPU' backend. This could be because",
                "quantised network",
            ),
            (
                "Didn't find engine for operation quantized::conv2d_prepack NoQEngine",
                "quantised network",
            ),
            ("quantised operator quantized::add", "quantised network"),
            (
                "PyTorch is not linked with support for cuda devices",
                "needs a CUDA device",
            ),
            (
                "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.",
                "needs a CUDA device",
            ),
            (
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
                "a device is built in",
            ),
            (
                "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
                "the GPU failed (an illegal memory access was encountered)",
            ),
            (
                "mat1 and mat2 must have the same dtype, but got Half and Float",
                "number formats",
            ),
            (
                "Input type (float) and bias type (c10::Half) should be the same",
                "number formats",
            ),
            (
                "expected scalar type Double but found Float",
                "number formats",
            ),
            (
                "Unknown builtin op: torchvision::nms.\nCould not find any similar ops to torchvision::nms.",
                "the operator torchvision::nms, which this libtorch does not have",
            ),
            (
                "Unknown type name '__torch__.torch.classes.vision.Video':\n  File \"code/x.py\", line 3",
                "the class vision.Video, which",
            ),
            (
                "Attempted to read a PyTorch file with version 30, but the maximum supported version for reading is 10. The version of your PyTorch installation may be too old, please upgrade PyTorch to latest version to mitigate this issue.",
                "newer release of libtorch (format 30)",
            ),
            (
                "shape '[8, 48]' is invalid for input of size 48",
                "the sizes [8, 48] are built in, which 48 values do not fit",
            ),
            (
                "mat1 and mat2 shapes cannot be multiplied (1x800 and 256x10)",
                "takes 256 values, and gets 800",
            ),
            (
                "Given groups=1, weight of size [16, 1, 3, 3], expected input[1, 3, 96, 96] to have 1 channels, but got 3 channels instead",
                "a convolution takes 1 channels, and gets 3",
            ),
            (
                "Calculated padded input size per channel: (3 x 3). Kernel size: (5 x 5). Kernel size can't be greater than actual input size",
                "too small",
            ),
            (
                "Given input size: (24x1x1). Calculated output size: (24x0x0). Output size is too small",
                "too small",
            ),
            (
                "The size of tensor a (8) must match the size of tensor b (7) at non-singleton dimension 3",
                "sizes 8 and 7 do not fit",
            ),
            (
                "Sizes of tensors must match except in dimension 1. Expected size 7 but got size 8 for tensor number 1 in the list.",
                "sizes 7 and 8 do not fit",
            ),
            (
                "Expected more than 1 value per channel when training, got input size [1, 12]",
                "inference mode",
            ),
            (
                "t.is_cpu() INTERNAL ASSERT FAILED at \"/pytorch/aten/src/ATen/x.cpp\":123, please report a bug to PyTorch. Expected a CPU tensor",
                "libtorch fails at an operator: Expected a CPU tensor",
            ),
        ] {
            let line = one_line(message);
            assert!(line.contains(part), "{message}\n{line}");
            for internal in ["PyTorch", "Facebook", ".cpp", "c10::", "https://"] {
                assert!(!line.contains(internal), "{line}");
            }
            assert!(line.chars().count() < 200, "{line}");
        }
    }

    #[test]
    fn other_messages_are_cut_to_whole_sentences() {
        let sentence = "An operator failed for a reason that is told at length";
        let line = one_line(&format!("{sentence}. {sentence}. {sentence}. {sentence}."));
        assert_eq!(line, format!("{sentence}. {sentence}"));
        let line = one_line(&"word ".repeat(100));
        assert!(line.ends_with("word...") && line.len() < 170, "{line}");
    }
}
