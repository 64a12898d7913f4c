//! What a run says on stderr beside errors: notes, warnings and progress.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes one line to stderr, after the program's name: a path may hold line
/// breaks and a terminal's commands, which are shown as `\n` and `\u{1b}`.
///
/// A stderr that cannot be written (`prism 2>&1 | head -1`) is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "prism: {}", printable(text));
}

/// Text whose control characters do nothing to a terminal.
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

/// How much a run says on stderr beside errors. Bars move on a terminal only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notices {
    /// Nothing.
    Quiet,
    /// Notes, warnings and bars.
    #[default]
    Normal,
    /// Also what was chosen and why, and how long each stage took.
    Verbose,
}

impl Notices {
    /// What `--quiet` and `--verbose` mean.
    pub fn from_flags(quiet: bool, verbose: bool) -> Notices {
        match (quiet, verbose) {
            (true, _) => Notices::Quiet,
            (false, true) => Notices::Verbose,
            (false, false) => Notices::Normal,
        }
    }

    /// Something that does not change the result.
    pub fn note(self, text: &str) {
        if self != Notices::Quiet {
            say(text);
        }
    }

    /// Something that the user should look at.
    pub fn warn(self, text: &str) {
        if self != Notices::Quiet {
            say(&format!("warning: {text}"));
        }
    }

    /// Something for those who want to know exactly.
    pub fn detail(self, text: impl FnOnce() -> String) {
        if self == Notices::Verbose {
            say(&text());
        }
    }

    /// A bar of `count` steps, gone when it is done.
    pub fn bar(self, count: usize, what: &'static str) -> ProgressBar {
        let line = "{msg} {wide_bar} {pos}/{len} {per_sec} {eta} left";
        self.line(Some(count as u64), what, line)
    }

    /// A sign of life for work whose steps are not counted, gone when it is done.
    pub fn spinner(self, what: &'static str) -> ProgressBar {
        self.line(None, what, "{msg} {spinner} {elapsed}")
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

/// How long the stages of a run took.
#[derive(Debug)]
pub struct Stopwatch {
    begun: Instant,
    stages: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Stopwatch {
        Stopwatch {
            begun: Instant::now(),
            stages: Vec::new(),
        }
    }

    /// Ends a stage, which began where the one before ended.
    pub fn lap(&mut self, stage: &'static str) {
        let so_far: Duration = self.stages.iter().map(|(_, took)| *took).sum();
        let took = self.begun.elapsed().saturating_sub(so_far);
        self.stages.push((stage, took));
    }

    /// Ends stages that took turns since the one before; what none of them took is
    /// `rest`'s.
    pub fn laps(&mut self, turns: &[(&'static str, Duration)], rest: &'static str) {
        self.stages.extend_from_slice(turns);
        self.lap(rest);
    }

    /// The stages in their order.
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
