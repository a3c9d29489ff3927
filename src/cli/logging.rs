//! A log in a file, never on the terminal, and only when `ACTSCOPE_LOG` asks for it.

use std::fs::OpenOptions;
use std::path::PathBuf;

use directories::ProjectDirs;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// Begins to log what the filter in `ACTSCOPE_LOG` lets through; writing ends with the guard.
///
/// # Errors
/// [`Error::Usage`] for a filter that is none, [`Error::File`] when the file cannot be written.
pub fn start() -> Result<Option<WorkerGuard>> {
    let Some(filter) = std::env::var_os("ACTSCOPE_LOG").filter(|filter| !filter.is_empty()) else {
        return Ok(None);
    };
    let filter = filter.to_string_lossy();
    let filter = EnvFilter::try_new(&filter).map_err(|e| {
        Error::usage(format!("ACTSCOPE_LOG is `{filter}`, which is no filter ({e}); try debug"))
    })?;
    let path = file()?;
    let open = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        OpenOptions::new().create(true).append(true).open(&path)
    };
    let file = open().map_err(|e| {
        Error::file(&path, format!("the log cannot be written: {e}; ACTSCOPE_LOG_FILE names another place"))
    })?;
    let (writer, guard) = tracing_appender::non_blocking(file);
    // A second call in one process (as in tests) keeps the first log.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).try_init();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), args = ?std::env::args_os().collect::<Vec<_>>(), "started");
    Ok(Some(guard))
}

/// `ACTSCOPE_LOG_FILE`, else `actscope.log` where the system keeps such files of this user.
fn file() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("ACTSCOPE_LOG_FILE").filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let dirs = ProjectDirs::from("", "", "actscope");
    let dirs =
        dirs.ok_or_else(|| Error::usage("there is no home directory for a log: set ACTSCOPE_LOG_FILE"))?;
    Ok(dirs.state_dir().unwrap_or(dirs.cache_dir()).join("actscope.log"))
}
