//! The threads that compute.

use std::num::NonZero;
use std::thread;

use crate::error::{Error, Result};
use crate::threads::none_left;

/// More than the cores of any machine. Each thread takes memory, even when idle.
const MAX: usize = 1024;

/// Starts the compute threads: `RAYON_NUM_THREADS`, or one per core.
/// Starting them on demand could only panic. The first call decides.
///
/// # Errors
/// [`Error::Usage`] if the variable is invalid, [`Error::System`] if no threads are available.
pub fn start() -> Result<()> {
    let asked = std::env::var_os("RAYON_NUM_THREADS").map(|value| value.to_string_lossy().into_owned());
    let n = match asked.as_deref().map_or(Ok(0), number)? {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n,
    };
    match rayon::ThreadPoolBuilder::new().num_threads(n).build_global() {
        Err(error) if std::error::Error::source(&error).is_some() => Err(none_left(&error)),
        // Already started.
        _ => Ok(()),
    }
}

/// Parses a number of threads; 0 or nothing means one per core.
fn number(value: &str) -> Result<usize> {
    let n = if value.is_empty() { Some(0) } else { value.parse().ok() };
    n.filter(|n| *n <= MAX).ok_or_else(|| {
        Error::usage(format!(
            "RAYON_NUM_THREADS is `{value}`: use a number of threads up to {MAX}, or 0 for one per core"
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
