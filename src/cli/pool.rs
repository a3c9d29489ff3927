//! The threads that compute.

use std::num::NonZero;
use std::thread;

use crate::error::{Error, Result};
use crate::threads::none_left;

/// More than any machine has cores. Each thread takes memory, whether it has work or not.
const MAX: usize = 1024;

/// Starts the threads that compute, as many as `RAYON_NUM_THREADS` says or the machine has cores:
/// before they are needed, where it could only panic. The first call decides.
///
/// # Errors
/// [`Error::Usage`] when the variable says nothing sensible, [`Error::System`] when there are no
/// threads to be had.
pub fn start() -> Result<()> {
    let asked = std::env::var_os("RAYON_NUM_THREADS").map(|value| value.to_string_lossy().into_owned());
    let n = match asked.as_deref().map_or(Ok(0), number)? {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n,
    };
    match rayon::ThreadPoolBuilder::new().num_threads(n).build_global() {
        Err(error) if std::error::Error::source(&error).is_some() => Err(none_left(&error)),
        // It was started before.
        _ => Ok(()),
    }
}

/// Reads a number of threads; 0, or nothing, is as many as there are cores.
fn number(value: &str) -> Result<usize> {
    let n = if value.is_empty() { Some(0) } else { value.parse().ok() };
    n.filter(|n| *n <= MAX).ok_or_else(|| {
        Error::usage(format!(
            "RAYON_NUM_THREADS is `{value}`: give a number of threads up to {MAX}, or 0 for one on each core"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_is_one() {
        let read = |value| number(value).ok();
        assert_eq!(["", "0", "1", "1024"].map(read), [Some(0), Some(0), Some(1), Some(1024)]);
        assert_eq!(["-1", "two", "1025", "4096", "1e3", "99999999999999999999"].map(read), [None; 6]);
        let said = number("4096").unwrap_err().to_string();
        assert!(said.starts_with("RAYON_NUM_THREADS is `4096`"), "{said}");
    }
}
