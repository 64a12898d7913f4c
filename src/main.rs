use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use prism::internals::{self as library, Hinted, Request, is_usage};

fn main() -> ExitCode {
    end_cleanly_on_signals();
    // A panic is a bug, or libtorch out of memory; either way a line is enough.
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(respond).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        let reason = text.lines().next().unwrap_or_default();
        Err(anyhow::anyhow!("prism has failed within itself: {reason}"))
    });
    match result {
        // libtorch would take its tables of operators apart first, for nobody.
        Ok(()) => signal_hook::low_level::exit(0),
        Err(error) => {
            let hint = error.downcast_ref::<Hinted>().map(|hinted| hinted.hint);
            let hint = hint.map_or(String::new(), |hint| format!(" ({})", library::hint(hint)));
            library::say(&format!("error: {error:#}{hint}"));
            if is_usage(&error) {
                ExitCode::from(2)
            } else {
                ExitCode::from(1)
            }
        }
    }
}

/// Does what the command line asks for.
fn respond() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    match library::parse(std::env::args_os()).map_err(anyhow::Error::new)? {
        Request::Run(options) => library::run(&options, &mut stdout),
        Request::Som(options) => library::som(&options, &mut stdout),
        Request::Models => library::print_models(&mut stdout),
        Request::Text(text) => library::print_text(&text, &mut stdout),
        Request::Layers(options, notices) => library::print_layers(&options, notices, &mut stdout),
    }
}

/// Ctrl-C and its like end the process at once, with nothing half-written left.
fn end_cleanly_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    // A file beyond the caller's limit then cannot be written, which is an error
    // like any other; unhandled the signal kills.
    static REACHED: AtomicBool = AtomicBool::new(false);
    let _ = signal_hook::flag::register(SIGXFSZ, &REACHED);
    let heeded = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|&signal| !is_ignored(signal));
    let Ok(mut signals) = signal_hook::iterator::Signals::new(heeded) else {
        return; // without it a signal still ends the process, less cleanly
    };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            library::clear_pending();
            // Not process::exit: libtorch's threads are at work, and its
            // destructors must not run under them.
            signal_hook::low_level::exit(128 + signal);
        }
    });
}

/// Whether the caller has this process ignore the signal, as `nohup` does, and
/// a shell's `&` in a script.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
