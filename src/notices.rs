//! What a run says on stderr beside errors: notes, warnings and progress.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes one line to stderr, after the program's name: a path may hold line
/// breaks and a terminal's commands, which are shown as `\n` and `\u{1b}`.
///
/// A stderr that cannot be written (`prism 2>&1 | head -1`) is no reason to stop.
pub fn say(text: &str) {
    let mut line = String::from("prism: ");
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says things on stderr, or nothing where it is quiet. Bars move on a
/// terminal only.
#[derive(Debug, Clone, Copy)]
pub struct Notices {
    /// Say nothing.
    pub quiet: bool,
}

impl Notices {
    /// Something that does not change the result.
    pub fn note(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Something that the user should look at.
    pub fn warn(self, text: &str) {
        if !self.quiet {
            say(&format!("warning: {text}"));
        }
    }

    /// A bar of `count` steps, gone when it is done.
    pub fn bar(self, count: usize, what: &'static str) -> ProgressBar {
        let target = if self.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target).with_message(what);
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
