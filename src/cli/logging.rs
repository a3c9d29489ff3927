//! A log in a file, never on the terminal, and only when `ACTSCOPE_LOG` asks for it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directories::ProjectDirs;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// Begins to log what the filter in `ACTSCOPE_LOG` lets through.
///
/// # Errors
/// [`Error::Usage`] for a filter that is none, [`Error::File`] when the file cannot be written.
pub fn start() -> Result<()> {
    let Some(filter) = std::env::var_os("ACTSCOPE_LOG").filter(|filter| !filter.is_empty()) else {
        return Ok(());
    };
    let filter = filter.to_string_lossy();
    let filter = EnvFilter::try_new(&filter).map_err(|e| {
        Error::usage(format!("ACTSCOPE_LOG is `{filter}`, which is no filter ({e}); try debug"))
    })?;
    let path = path()?;
    let file = open(&path).map_err(|e| {
        Error::file(&path, format!("the log cannot be written: {e}; ACTSCOPE_LOG_FILE names another place"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second call in one process (as in tests) keeps the first log.
    let _ = log.with_writer(Arc::new(file)).try_init();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), args = ?std::env::args_os().collect::<Vec<_>>(), "started");
    Ok(())
}

/// Opens a file to append to; nothing that could make the program wait.
fn open(path: &Path) -> io::Result<File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !is_character_device(&there)) {
        return Err(io::Error::other("it is no regular file"));
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// As `/dev/null` is.
#[cfg(unix)]
fn is_character_device(found: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
}

#[cfg(not(unix))]
fn is_character_device(_: &fs::Metadata) -> bool {
    false
}

/// `ACTSCOPE_LOG_FILE`, else `actscope.log` where the system keeps such files of this user.
fn path() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("ACTSCOPE_LOG_FILE").filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let dirs = ProjectDirs::from("", "", "actscope");
    let dirs =
        dirs.ok_or_else(|| Error::usage("there is no home directory for a log: set ACTSCOPE_LOG_FILE"))?;
    Ok(dirs.state_dir().unwrap_or(dirs.cache_dir()).join("actscope.log"))
}
