//! Threads, of which a system may have no more to give: that is an error, and nothing panics.

use std::thread;

use crate::error::{Error, Result};

/// Starts a thread that runs on its own.
///
/// # Errors
/// [`Error::System`] when there is none to be had.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.into()).spawn(body);
    started.map(drop).map_err(|cause| none_left(&cause))
}

/// The error for a thread that there is not.
pub fn none_left(cause: &dyn std::error::Error) -> Error {
    Error::System(format!(
        "the system gives no more threads ({cause}): end other programs, or set RAYON_NUM_THREADS to fewer"
    ))
}
