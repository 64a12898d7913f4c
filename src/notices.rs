//! Messages on standard error: notes, warnings and progress.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes one line to standard error, after the program's name. Control characters, which
/// a path may hold, are escaped. A failure to write (`prism 2>&1 | head -1`) is ignored.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "prism: {}", printable(text));
}

/// The text with control characters escaped, as `\n` and `\u{1b}`.
pub fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => printable.extend(c.escape_default()),
            false => printable.push(c),
        }
    }
    printable
}

/// How much is written to standard error beside errors. Bars are drawn on a terminal only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notices {
    /// No messages.
    Quiet,
    /// Notes, warnings and bars.
    #[default]
    Normal,
    /// Also the choices of a run and the time of each stage.
    Verbose,
}

impl Notices {
    /// From the two options of the command line.
    pub fn from_flags(quiet: bool, verbose: bool) -> Notices {
        match (quiet, verbose) {
            (true, _) => Notices::Quiet,
            (false, true) => Notices::Verbose,
            (false, false) => Notices::Normal,
        }
    }

    /// Writes a note.
    pub fn note(self, text: &str) {
        if self != Notices::Quiet {
            say(text);
        }
    }

    /// Writes a warning: the result may not be what the user expects.
    pub fn warn(self, text: &str) {
        if self != Notices::Quiet {
            say(&format!("warning: {text}"));
        }
    }

    /// Writes a detail, in verbose mode only.
    pub fn detail(self, text: impl FnOnce() -> String) {
        if self == Notices::Verbose {
            say(&text());
        }
    }

    /// A progress bar with `count` steps, removed at the end.
    pub fn bar(self, count: usize, what: &'static str) -> ProgressBar {
        let line = "{msg} {wide_bar} {pos}/{len} {per_sec} {eta} left";
        self.line(Some(count as u64), what, line)
    }

    /// A spinner for work whose steps are not counted, removed at the end.
    pub fn spinner(self, what: &'static str) -> ProgressBar {
        self.line(None, what, "{msg} {spinner} {elapsed}")
    }

    /// A progress bar for a transfer of `bytes`, if their number is known; removed at the end.
    pub fn transfer(self, bytes: Option<u64>) -> ProgressBar {
        let line = "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        self.line(bytes, "", line)
    }

    fn line(self, count: Option<u64>, what: &'static str, template: &str) -> ProgressBar {
        let target = if self == Notices::Quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let line = ProgressBar::with_draw_target(count, target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            line.set_style(style);
        }
        line.enable_steady_tick(Duration::from_millis(200));
        line
    }
}

/// The time of each stage of a run.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    begun: Instant,
    stages: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    /// A stopwatch that starts now.
    pub fn start() -> Stopwatch {
        Stopwatch {
            begun: Instant::now(),
            stages: Vec::new(),
        }
    }

    /// Ends a stage, which began at the end of the stage before.
    pub fn lap(&mut self, stage: &'static str) {
        let so_far: Duration = self.stages.iter().map(|(_, took)| *took).sum();
        let took = self.begun.elapsed().saturating_sub(so_far);
        self.stages.push((stage, took));
    }

    /// Ends stages that took turns since the stage before; the remaining time belongs to
    /// `rest`.
    pub fn laps(&mut self, turns: &[(&'static str, Duration)], rest: &'static str) {
        self.stages.extend_from_slice(turns);
        self.lap(rest);
    }

    /// The stages in order.
    pub fn stages(&self) -> &[(&'static str, Duration)] {
        &self.stages
    }
}

impl fmt::Display for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (stage, took) in &self.stages {
            write!(f, "{between}{stage} {:.2} s", took.as_secs_f64())?;
            between = ", ";
        }
        Ok(())
    }
}
