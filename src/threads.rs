//! Joining threads.

use std::panic::resume_unwind;

/// The result of a joined thread. A panic of the thread continues in the caller.
pub fn or_resume<T>(joined: std::thread::Result<T>) -> T {
    joined.unwrap_or_else(|panic| resume_unwind(panic))
}
