//! Logging to a file, never to the terminal, and only if `ACTSCOPE_LOG` is set.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directories::ProjectDirs;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// Starts logging with the filter in `ACTSCOPE_LOG`.
///
/// # Errors
/// [`Error::Usage`] for an invalid filter, [`Error::File`] if the file cannot be written.
pub fn start() -> Result<()> {
    let Some(filter) = std::env::var_os("ACTSCOPE_LOG").filter(|filter| !filter.is_empty()) else {
        return Ok(());
    };
    let filter = filter.to_string_lossy();
    let filter = EnvFilter::try_new(&filter).map_err(|e| {
        Error::usage(format!("ACTSCOPE_LOG is `{filter}`, which is not a valid filter ({e}); try debug"))
    })?;
    let path = path()?;
    let file = open(&path).map_err(|e| {
        Error::file(&path, format!("cannot write the log: {e}; set ACTSCOPE_LOG_FILE to another path"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second call in one process (as in tests) keeps the first log.
    let _ = log.with_writer(Arc::new(file)).try_init();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), args = ?std::env::args_os().collect::<Vec<_>>(), "started");
    Ok(())
}

/// Opens a file for appending; refuses anything that could block.
fn open(path: &Path) -> io::Result<File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !is_character_device(&there)) {
        return Err(io::Error::other("not a regular file"));
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Such as `/dev/null`.
#[cfg(unix)]
fn is_character_device(found: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
}

#[cfg(not(unix))]
fn is_character_device(_: &fs::Metadata) -> bool {
    false
}

/// `ACTSCOPE_LOG_FILE`, else `actscope.log` in the user's state or data directory.
fn path() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("ACTSCOPE_LOG_FILE").filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let dirs = ProjectDirs::from("", "", "actscope");
    let dirs = dirs.ok_or_else(|| Error::usage("no home directory for the log: set ACTSCOPE_LOG_FILE"))?;
    Ok(dirs.state_dir().unwrap_or(dirs.cache_dir()).join("actscope.log"))
}
