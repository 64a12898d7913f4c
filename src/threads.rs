//! Threads: joining them, and those of libtorch.

use std::panic::resume_unwind;

/// The result of a joined thread. A panic of the thread continues in the caller.
pub fn or_resume<T>(joined: std::thread::Result<T>) -> T {
    joined.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `work` with libtorch on one thread, so that the other cores are free for threads of our own.
/// libtorch's threads keep a core for a while after each operator, in case another one comes.
pub fn with_one_thread<T>(work: impl FnOnce() -> T) -> T {
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let result = work();
    tch::set_num_threads(threads);
    result
}
