//! Parses the command line, runs it, and turns an error into one line and an exit status.

mod early;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use anyhow::anyhow;
use prism::internals::{self, Request, is_usage};

fn main() {
    end_cleanly_on_signals();
    std::panic::set_hook(Box::new(remember_panic));
    let result = std::panic::catch_unwind(respond).unwrap_or_else(|_| Err(panicked()));
    // Without libtorch's destructors, which take its operator tables apart: 0.1 s.
    signal_hook::low_level::exit(result.unwrap_or_else(|error| said(&error)))
}

/// Says the error in one line; returns the exit status.
fn said(error: &anyhow::Error) -> i32 {
    let line = internals::line(error);
    if !internals::failed(&line) {
        internals::say(&format!("error: {line}"));
    }
    if is_usage(error) { 2 } else { 1 }
}

/// The exit status of a comparison of which a condition holds.
const HOLDS: i32 = 3;

/// Does what the command line asks for; returns the exit status.
fn respond() -> anyhow::Result<i32> {
    let mut stdout = std::io::stdout();
    let request = match early::request() {
        Some(request) => request,
        None => internals::parse(std::env::args_os())?,
    };
    match request {
        Request::Compare(options) => {
            let holds = internals::compare(&options, &mut stdout)?;
            return Ok(if holds { HOLDS } else { 0 });
        }
        Request::Run(options) => internals::run(&options, &mut stdout),
        Request::Report(options) => internals::report(&options),
        Request::Som(options) => internals::som(&options, &mut stdout),
        Request::Models => internals::print_models(&mut stdout),
        Request::Text(text) => internals::print_text(&text, &mut stdout),
        Request::Help(help) => internals::print_help(&help),
        Request::Layers(options, notices) => {
            internals::print_layers(&options.0, &options.1, notices, &mut stdout)
        }
    }
    .map(|()| 0)
}

/// The reason and place of the last panic, and the calls that led to it. Most panics are
/// caught where they are expected (a decoder on a damaged file), so they are not printed.
static LAST_PANIC: Mutex<Option<(String, Backtrace)>> = Mutex::new(None);

fn remember_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let reason = text
        .and_then(|text| text.lines().next())
        .unwrap_or("no reason given");
    let place = panic
        .location()
        .map_or(String::new(), |place| format!(" at {place}"));
    if let Ok(mut last) = LAST_PANIC.lock() {
        *last = Some((format!("{reason}{place}"), Backtrace::capture()));
    }
}

/// The error for a panic that nothing expected; it prints the calls if `RUST_BACKTRACE` is set.
fn panicked() -> anyhow::Error {
    let last = LAST_PANIC.lock().ok().and_then(|mut last| last.take());
    let (reason, calls) = last.unzip();
    if let Some(calls) = calls.filter(|calls| calls.status() == BacktraceStatus::Captured) {
        eprintln!("{calls}");
    }
    let reason = reason.unwrap_or_default();
    anyhow!("internal error, please report this line and the command: {reason}")
}

/// Ends the process at once on Ctrl-C and similar signals, and removes temporary files.
fn end_cleanly_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    // Unhandled, SIGXFSZ kills; handled, a file beyond the caller's limit is an error.
    static REACHED: AtomicBool = AtomicBool::new(false);
    let _ = signal_hook::flag::register(SIGXFSZ, &REACHED);
    let handled = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|&signal| !is_ignored(signal));
    let Ok(mut signals) = signal_hook::iterator::Signals::new(handled) else {
        return; // a signal then still ends the process, but leaves its temporary files
    };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // First, because it may wait for another thread that ends the process and then clears.
            internals::failed(&format!("signal {signal} ended it"));
            internals::clear_pending();
            // Not process::exit, which runs libtorch's destructors under its own threads.
            signal_hook::low_level::exit(128 + signal);
        }
    });
}

/// Whether the caller has this process ignore the signal, as `nohup` and the `&` of a
/// script do.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
