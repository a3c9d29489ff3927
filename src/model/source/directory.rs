//! A checkpoint in a directory, or one file of it.

use std::path::{Path, PathBuf};

use super::files::{ModelFiles, Place};
use crate::error::{Error, Result};

/// More files than a model's directory has.
const MOST_FILES: usize = 1000;

struct Directory<'a>(&'a Path);

impl Place for Directory<'_> {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn find(&mut self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.0.join(name);
        Ok(path.is_file().then_some(path))
    }

    fn list(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        list(self.0, "", 2, &mut names);
        names.sort();
        names
    }
}

/// Adds the names of the files in a directory and in its folders, `depth` deep.
fn list(directory: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        if names.len() == MOST_FILES {
            return;
        } else if path.is_dir() && depth > 0 {
            list(&path, &format!("{name}/"), depth - 1, names);
        } else if path.is_file() {
            names.push(name);
        }
    }
}

/// The files of the checkpoint that a path names.
pub(super) fn find(path: &Path) -> Result<ModelFiles> {
    if path.is_dir() {
        return ModelFiles::choose(&mut Directory(path));
    }
    if path.is_file() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        return ModelFiles::beside(path, &mut Directory(parent.unwrap_or(Path::new("."))));
    }
    let what = if path.exists() { "is neither a directory nor a file" } else { "does not exist" };
    let problem =
        format!("this model {what}; use `demo`, a hub id such as openai-community/gpt2, or a directory");
    Err(Error::file(path, problem))
}
