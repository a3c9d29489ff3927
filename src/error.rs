//! The errors. Each is one sentence that names the place, the problem and the remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::text::{self, brief, plain};

/// The maximum length of a message, since files, names and servers can be quoted at any length.
const LONGEST: usize = 500;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid request: an empty prompt, a token id outside the vocabulary, …
    Usage(String),

    /// A hook pattern that matches nothing in this model.
    UnknownHook { pattern: String, nearest: Vec<String> },

    /// A file that is missing, unreadable or malformed.
    File { path: PathBuf, problem: String },

    /// The model hub did not deliver what was requested.
    Hub(String),

    /// The requested device or number format is not available.
    Device(String),

    /// The system refuses what the program itself needs: a thread, its signals.
    System(String),

    /// Stopped on request, between two layers.
    Cancelled,

    /// A worker thread panicked.
    Crashed,

    /// An operation of the tensor library failed.
    Tensor(#[from] candle_core::Error),
}

/// One line without anything that a terminal would interpret; a long line loses its middle, so
/// that the place and the remedy remain.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(said) | Self::Hub(said) | Self::Device(said) | Self::System(said) => {
                f.write_str(&line(said, LONGEST))
            }
            Self::UnknownHook { pattern, nearest } => {
                let pattern = line(pattern, LONGEST / 3);
                let nearest = if nearest.is_empty() {
                    String::new()
                } else {
                    format!(" (nearest: {})", nearest.join(", "))
                };
                write!(f, "no hook named `{pattern}`{nearest}; `actscope hooks` lists them all")
            }
            Self::File { path, problem } => {
                write!(f, "{}: {}", text::path(path), line(problem, LONGEST - text::PATH))
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::Crashed => f.write_str(
                "a worker thread crashed: this is a bug in actscope; please report it with the lines above",
            ),
            Self::Tensor(cause) => {
                // A backtrace follows the first line if RUST_BACKTRACE asks for one.
                let said = cause.to_string();
                write!(
                    f,
                    "tensor operation failed: {}",
                    line(said.lines().next().unwrap_or_default(), LONGEST)
                )
            }
        }
    }
}

/// Text of any origin, as one line of at most `n` characters.
fn line(said: &str, n: usize) -> String {
    // Libraries report errors in several lines; join them into one.
    brief(&plain(&said.trim_end().replace('\n', " ")), n).into_owned()
}

impl Error {
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// A problem with the file at `path`; `problem` says what is wrong and what to do.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().into(), problem: problem.into() }
    }

    /// Refuses an index that is out of range, naming the range.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the number and the range.
    pub fn check(noun: &str, n: usize, range: Range<usize>) -> Result<()> {
        if range.contains(&n) { Ok(()) } else { Err(Self::usage(out_of_range(noun, n, range))) }
    }

    /// Refuses a range that is empty, or not all of which is in 0..`n`.
    ///
    /// # Errors
    /// [`Error::Usage`] that names what is not there.
    pub fn check_all(noun: &str, range: &Range<usize>, n: usize) -> Result<()> {
        let Range { start, end } = range;
        match (start < end, *end <= n) {
            (false, _) => Err(Self::usage(format!("there are no {noun}s in {start}..{end}"))),
            (_, false) => Err(Self::usage(format!("{noun}s {start}..{end} are {}", out_of(noun, 0..n)))),
            (true, true) => Ok(()),
        }
    }

    /// The process exit code: 2 for an invalid request, 1 for all other errors.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::UnknownHook { .. } => 2,
            _ => 1,
        }
    }
}

/// What is said of a number that is not in `range`: `position 9 is out of range (0 to 8)`.
pub(crate) fn out_of_range(noun: &str, n: impl fmt::Display, range: Range<usize>) -> String {
    format!("{noun} {n} is {}", out_of(noun, range))
}

fn out_of(noun: &str, range: Range<usize>) -> String {
    match (range.start, range.len()) {
        (_, 0) => format!("out of range (there are no {noun}s)"),
        (only, 1) => format!("out of range (only {only})"),
        (first, _) => format!("out of range ({first} to {})", range.end - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_range_is_named_with_the_range() {
        assert!(Error::check("position", 8, 0..9).is_ok());
        let said = |n, range| Error::check("position", n, range).unwrap_err().to_string();
        assert_eq!(said(9, 0..9), "position 9 is out of range (0 to 8)");
        assert_eq!(said(0, 1..5), "position 0 is out of range (1 to 4)");
        assert_eq!(said(1, 0..1), "position 1 is out of range (only 0)");
        for empty in [0..0, 1..1] {
            assert_eq!(said(1, empty), "position 1 is out of range (there are no positions)");
        }
        assert!(Error::check_all("position", &(2..9), 9).is_ok());
        let said = |range| Error::check_all("position", &range, 9).unwrap_err().to_string();
        assert_eq!(said(2..12), "positions 2..12 are out of range (0 to 8)");
        assert_eq!(said(2..2), "there are no positions in 2..2");
    }

    #[test]
    fn an_error_is_one_line_that_no_terminal_obeys() {
        assert_eq!(Error::usage("a\nb \u{1b}[2J\u{9b}\u{202e}\n").to_string(), "a b ⟨1b⟩[2J⟨9b⟩⟨u+202e⟩");
        let said = Error::file("a\nactscope: b", "is\tnone").to_string();
        assert_eq!(said, "a↵actscope: b: is⇥none");
        let pattern = "\u{1b}]52;c;\u{7}".into();
        let said = Error::UnknownHook { pattern, nearest: vec!["hook_z".into()] }.to_string();
        assert!(said.contains("`⟨1b⟩]52;c;⟨07⟩` (nearest: hook_z)"), "{said}");
    }

    #[test]
    fn a_tensor_error_has_no_backtrace() {
        let cause = candle_core::Error::WithBacktrace {
            inner: Box::new(candle_core::Error::Msg("no such thing".into())),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(Error::from(cause).to_string(), "tensor operation failed: no such thing");
    }

    #[test]
    fn a_long_error_keeps_its_ends() {
        let long = "\u{1b}\u{301}x".repeat(9_999);
        let both = Error::file(&long, format!("is no `{long}`; choose another"));
        assert!(both.to_string().contains(": is no `"), "{both}");
        for error in [
            both,
            Error::usage(format!("no `{long}`; choose another")),
            Error::Hub(format!("no `{long}`; choose another")),
            Error::file(&long, "is none; choose another"),
            Error::file("a", format!("no `{long}`; choose another")),
        ] {
            let said = error.to_string();
            assert!(said.chars().count() <= LONGEST + 2 && said.contains('…'), "{said}");
            assert!(said.ends_with("; choose another"), "{said}");
        }
        let said = Error::file(long, "is none").to_string();
        assert!(said.chars().count() < 160, "{said}");
    }
}
