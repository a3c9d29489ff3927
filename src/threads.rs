//! Threads. If the system has no more of them, that is an error, not a panic.

use std::thread;

use crate::error::{Error, Result};

/// Starts a detached thread.
///
/// # Errors
/// [`Error::System`] if no thread is available.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.into()).spawn(body);
    started.map(drop).map_err(|cause| none_left(&cause))
}

/// The error if no more threads are available.
pub fn none_left(cause: &dyn std::error::Error) -> Error {
    Error::System(format!(
        "the system has no more threads ({cause}): close other programs, or set RAYON_NUM_THREADS lower"
    ))
}
