//! A checkpoint in a directory.

use std::path::Path;

use super::ModelFiles;
use crate::error::{Error, Result};

pub(super) fn find(directory: &Path) -> Result<ModelFiles> {
    if !directory.is_dir() {
        let what = if directory.exists() { "is not a directory" } else { "does not exist" };
        let problem =
            format!("this model {what}; use `demo`, a hub id such as openai-community/gpt2, or a directory");
        return Err(Error::file(directory, problem));
    }
    ModelFiles::choose(&directory.display().to_string(), |name| {
        let path = directory.join(name);
        Ok(path.is_file().then_some(path))
    })
}
