//! What a run says on stderr beside errors: notes, warnings and progress.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
            eprintln!("prism: {text}");
        }
    }

    /// Something that the user should look at.
    pub fn warn(self, text: &str) {
        if !self.quiet {
            eprintln!("prism: warning: {text}");
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
