//! What can go wrong, each as one sentence that names the place, the problem and the way out.

use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The question itself cannot be asked: an empty prompt, a token id outside the vocabulary, …
    #[error("{0}")]
    Usage(String),

    /// A hook pattern that names nothing in this model.
    #[error("no hook is called `{pattern}`{}; `actscope hooks` lists them all", named(.nearest))]
    UnknownHook { pattern: String, nearest: Vec<String> },

    /// A file that is not what it should be.
    #[error("{}: {problem}", .path.display())]
    File { path: PathBuf, problem: String },

    /// The model hub did not give what was asked.
    #[error("{0}")]
    Hub(String),

    /// The device or number format asked for is not to be had here.
    #[error("{0}")]
    Device(String),

    /// The system does not give what the program itself needs: a thread, its signals.
    #[error("{0}")]
    System(String),

    /// Stopped on request, between two layers.
    #[error("cancelled")]
    Cancelled,

    /// A worker thread panicked.
    #[error("a worker of actscope crashed: this is a bug in it, please report it with the lines above")]
    Crashed,

    /// An operation of the tensor library failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// A problem with the file at `path`; `problem` says what is wrong and what to do.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().into(), problem: problem.into() }
    }

    /// Refuses an index of which there are only `n`, naming those that there are.
    ///
    /// # Errors
    /// [`Error::Usage`] if `index` is not below `n`.
    pub fn check(noun: &str, index: usize, n: usize) -> Result<()> {
        if index < n {
            return Ok(());
        }
        Err(Self::usage(format!("there is no {noun} {index}: {noun}s are 0..={}", n.saturating_sub(1))))
    }

    /// The process exit code: 2 for a question that cannot be asked, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::UnknownHook { .. } => 2,
            _ => 1,
        }
    }
}

fn named(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (nearest: {})", names.join(", ")) }
}
