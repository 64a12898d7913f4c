//! libtorch's error messages, worded for programmers over many lines, as one line.

use std::any::Any;

use anyhow::anyhow;

const NO_MEMORY: &str = "the memory is not enough";

/// Whether libtorch could not allocate memory.
pub fn is_lack_of_memory(error: &anyhow::Error) -> bool {
    error.to_string().starts_with(NO_MEMORY)
}

/// The line of a libtorch message that gives the reason.
///
/// TorchScript's interpreter puts a traceback before the reason, the loader puts one after
/// it. Both are left out.
pub fn one_line(message: &str) -> String {
    const RAISED: &str = "builtins.";
    // The place in libtorch's code and the name of its allocator come before this.
    const ALLOCATOR: &str = "can't allocate memory: you tried to allocate ";
    const UNKNOWN: &str = "Unknown builtin op: ";
    let word_after = |text| {
        let (_, rest) = message.split_once(text)?;
        Some(rest.split_whitespace().next().unwrap_or_default())
    };
    if let Some(bytes) = word_after(ALLOCATOR) {
        return format!("{NO_MEMORY}: it asks for {bytes} bytes more");
    }
    if let Some(name) = word_after(UNKNOWN) {
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
