//! Threads that end within the function that began them.

use std::thread::ScopedJoinHandle;

/// What a thread has made; its panic goes on in this one.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
