//! libtorch's error messages, worded for programmers over many lines, as one line.

use std::any::Any;

use anyhow::anyhow;

const NO_MEMORY: &str = "the memory is not enough";
const QUANTISED: &str = "this is a quantised network, whose activations are not floating-point numbers; export the network before quantisation";

/// Whether libtorch could not allocate memory.
pub fn is_lack_of_memory(error: &anyhow::Error) -> bool {
    error.to_string().starts_with(NO_MEMORY)
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
    if has(&["out of memory", "CUDNN_STATUS_ALLOC_FAILED"]) {
        let asked = between(message, "Tried to allocate ", &[". "]).unwrap_or("memory");
        return Some(format!("{NO_MEMORY} on the GPU: it asks for {asked} more"));
    }

    // What this libtorch does not have.
    if has(&["NoQEngine", "quantized engine"]) || has(&["'QuantizedCPU' backend"]) {
        return Some(QUANTISED.to_string());
    }
    if let Some(name) = after("Unknown builtin op: ") {
        let name = name.trim_end_matches('.');
        return Some(format!(
            "it uses the operator {name}, which this libtorch does not have"
        ));
    }
    if let Some(name) = between(message, "__torch__.torch.classes.", &["'", " ", "\n", ";", ")"])
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
        return Some("a device is built in, so that tensors of two devices meet; export it on the CPU".to_string());
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
    if let Some(channels) = between(message, " to have ", &[" channels"])
        .filter(|_| message.contains("expected input"))
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
        let what = rest.split_once("report a bug to PyTorch").map(|(_, rest)| rest);
        let what = what.unwrap_or_default().trim_start_matches(['.', ' ']);
        let why = match what {
            "" => "it gives no reason".to_string(),
            what => without_internals(what),
        };
        return Some(format!("libtorch fails at an operator: {}", shortened(&why)));
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

/// At most [`LONGEST`] characters: whole sentences if the first one fits, else words.
fn shortened(text: &str) -> String {
    let mut kept = String::new();
    for sentence in text.split_inclusive(". ") {
        if kept.len() + sentence.len() > LONGEST {
            break;
        }
        kept.push_str(sentence);
    }
    if kept.is_empty() {
        for word in text.split_inclusive(' ') {
            if kept.chars().count() + word.chars().count() > LONGEST {
                kept.push_str("...");
                break;
            }
            kept.push_str(word);
        }
    }
    kept.trim_end_matches(['.', ' ']).to_string() + if kept.ends_with("...") { "..." } else { "" }
}

/// An error of tch as one line, without libtorch's stack.
pub fn plain(error: tch::TchError) -> anyhow::Error {
    let text = error.to_string();
    of_tch(text.strip_prefix("Internal torch error: ").unwrap_or(&text))
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
}
