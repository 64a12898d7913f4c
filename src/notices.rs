//! Messages on standard error: notes, warnings and progress.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::names::escaped_within;

/// The longest line on standard error, in characters.
const LONGEST_LINE: usize = 300;

/// The bars and spinners on the terminal, if standard error is one.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Writes one line to standard error, after the program's name and above bars. A failure to write
/// (`prism 2>&1 | head -1`) is ignored.
pub fn say(text: &str) {
    let line = escaped_within(&format!("prism: {text}"), LONGEST_LINE);
    BARS.suspend(|| {
        let _ = writeln!(std::io::stderr(), "{line}");
    });
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

    /// A progress bar for `count` images, removed at the end.
    pub fn bar(self, count: usize, what: &'static str) -> ProgressBar {
        let line = "{msg} {wide_bar} {pos}/{len}{pace}";
        self.line(Some(count as u64), what, line, pace)
    }

    /// A spinner for work whose steps are not counted, removed at the end.
    pub fn spinner(self, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        self.line(None, what, "{msg} {spinner} {elapsed}", pace)
    }

    /// Does `work`, with a spinner meanwhile.
    pub fn during<T>(self, what: impl Into<Cow<'static, str>>, work: impl FnOnce() -> T) -> T {
        let spinner = self.spinner(what);
        let done = work();
        spinner.finish_and_clear();
        done
    }

    /// A progress bar for a transfer of `bytes`, if their number is known; removed at the end.
    pub fn transfer(self, bytes: Option<u64>) -> ProgressBar {
        let line = match bytes {
            Some(_) => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}{pace}",
            None => "{msg} {spinner} {decimal_bytes}{pace}",
        };
        self.line(bytes, "downloading", line, transfer_pace)
    }

    fn line(
        self,
        count: Option<u64>,
        what: impl Into<Cow<'static, str>>,
        template: &str,
        pace: fn(u64, Option<u64>, Duration) -> String,
    ) -> ProgressBar {
        let line = match count {
            Some(count) => ProgressBar::new(count),
            None => ProgressBar::new_spinner(),
        };
        let line = match self {
            Notices::Quiet => {
                line.set_draw_target(ProgressDrawTarget::hidden());
                line
            }
            Notices::Normal | Notices::Verbose => BARS.add(line),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            // The rate is that of the last step, so that it does not fall until the next one.
            let last = Arc::new(Mutex::new((0, Duration::ZERO)));
            let shown = move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.0 != state.pos() {
                    *last = (state.pos(), state.elapsed());
                }
                let _ = out.write_str(&pace(last.0, state.len(), last.1));
            };
            line.set_style(style.with_key("pace", shown));
        }
        line.set_message(what);
        line.enable_steady_tick(Duration::from_millis(200));
        line
    }
}

/// Before this time nothing is known of a rate.
const FIRST_RATE: Duration = Duration::from_millis(500);

/// `, 12 images/s, 40 s left` of `done` images; nothing before a rate is known.
fn pace(done: u64, all: Option<u64>, elapsed: Duration) -> String {
    if done == 0 || elapsed < FIRST_RATE {
        return String::new();
    }
    let each = elapsed.as_secs_f64() / done as f64;
    let rate = match each {
        10.0.. => format!("{each:.0} s/image"),
        1.0.. => format!("{each:.1} s/image"),
        0.1.. => format!("{:.1} images/s", 1.0 / each),
        _ => format!("{:.0} images/s", 1.0 / each),
    };
    format!(", {rate}{}", left(done, all, each))
}

/// `, 12.3 MB/s, 40 s left` of `done` bytes; nothing before a rate is known.
fn transfer_pace(done: u64, all: Option<u64>, elapsed: Duration) -> String {
    if done == 0 || elapsed < FIRST_RATE {
        return String::new();
    }
    let each = elapsed.as_secs_f64() / done as f64;
    format!(", {:.1} MB/s{}", 1e-6 / each, left(done, all, each))
}

/// `, 40 s left` at that many seconds for each of those to do, if any is.
fn left(done: u64, all: Option<u64>, each: f64) -> String {
    let seconds = (all.unwrap_or(done).saturating_sub(done) as f64 * each).ceil() as u64;
    match seconds {
        0 => String::new(),
        1..120 => format!(", {seconds} s left"),
        120..7200 => format!(", {} min left", seconds.div_ceil(60)),
        _ => format!(", {} h {} min left", seconds / 3600, seconds / 60 % 60),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_told_when_it_is_known() {
        let of = |done, all, seconds| pace(done, all, Duration::from_secs_f64(seconds));
        assert_eq!(of(0, Some(9), 30.0), "");
        assert_eq!(of(4, Some(9), 0.001), "");
        // 80 images in 4 s: 20 in a second; 120 more take 6 s.
        assert_eq!(of(80, Some(200), 4.0), ", 20 images/s, 6 s left");
        assert_eq!(of(5, Some(10), 4.0), ", 1.2 images/s, 4 s left");
        assert_eq!(of(1, Some(4), 81.0), ", 81 s/image, 5 min left");
        assert_eq!(of(2, Some(2), 5.0), ", 2.5 s/image");
        assert_eq!(of(1, Some(1001), 10.0), ", 10 s/image, 2 h 46 min left");
        assert_eq!(of(3, None, 1.0), ", 3.0 images/s");
        let of = |done, all, seconds| transfer_pace(done, all, Duration::from_secs_f64(seconds));
        assert_eq!(of(0, Some(553_000_000), 2.0), "");
        let text = ", 26.5 MB/s, 19 s left";
        assert_eq!(of(53_000_000, Some(553_000_000), 2.0), text);
        assert_eq!(of(1_000, None, 10.0), ", 0.0 MB/s");
    }
}
