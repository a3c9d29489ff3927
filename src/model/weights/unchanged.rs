//! Whether a file was modified while it was read.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, Result};

/// A file's length and modification time when it was opened.
#[derive(Debug, PartialEq)]
pub(super) struct Opened(u64, Option<SystemTime>);

impl Opened {
    pub fn new(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.modified().ok())
    }

    /// Refuses a file that is not as it was.
    pub fn check(&self, path: &Path, now: &io::Result<Metadata>) -> Result<()> {
        match now {
            Ok(now) if Self::new(now) == *self => Ok(()),
            _ => Err(Error::file(path, "was modified while being read; load it again once it is complete")),
        }
    }
}
