//! Where fitted things are: a file or folder, or a folder of a repository of the hub.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::{CONFIGURATION, read};
use crate::model::Source;
use crate::model::source::{OnProgress, fetch};

/// What `--dictionary` and `--lens` name: `[HOOK=]PATH` or `[HOOK=]HUB_ID[:SUBFOLDER]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it reads, for files that do not say.
    pub hook: Option<String>,
    /// The path, or the id and folder on the hub.
    pub of: String,
}

impl Named {
    pub fn parse(name: &str) -> Self {
        let is_hook = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
        };
        match name.split_once('=') {
            Some((hook, of)) if is_hook(hook) && !Path::new(name).exists() => {
                Self { hook: Some(hook.into()), of: of.into() }
            }
            _ => Self { hook: None, of: name.into() },
        }
    }

    /// The file or folder, with what it holds of `names`; downloaded into the hub's cache unless it is there.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Hub`] if it holds none of them.
    pub(super) fn folder(&self, names: &[&str], offline: bool, on_progress: &OnProgress) -> Result<PathBuf> {
        let path = Path::new(&self.of);
        if path.exists() {
            return Ok(path.into());
        }
        let (id, folder) = self.of.split_once(':').unwrap_or((&self.of, ""));
        let Source::Hub(id) = Source::parse(id) else {
            return Err(Error::file(path, "does not exist; name a file, a folder, or ID:FOLDER on the hub"));
        };
        // A file by itself, or the files of a folder.
        let is_file = folder.rsplit('.').next().is_some_and(|end| matches!(end, "pt" | "pth" | "bin"));
        let wanted: Vec<String> = match (is_file, folder.trim_matches('/')) {
            (true, file) => vec![file.into()],
            (false, "") => names.iter().map(|name| (*name).into()).collect(),
            (false, folder) => names.iter().map(|name| format!("{folder}/{name}")).collect(),
        };
        let found = fetch(&id, &wanted, offline, on_progress)?;
        let first = found.into_iter().flatten().next();
        let first = first.ok_or_else(|| {
            Error::Hub(format!(
                "`{id}` has none of {}; name its folder, as in {id}:FOLDER",
                wanted.join(", ")
            ))
        })?;
        Ok(if is_file { first } else { first.parent().unwrap_or(Path::new(".")).into() })
    }
}

/// The settings beside the numbers.
pub(super) fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read(path, CONFIGURATION)?)
        .map_err(|why| Error::file(path, format!("is not JSON: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_may_come_first() {
        let parse = |name: &str| {
            let Named { hook, of } = Named::parse(name);
            (hook, of)
        };
        assert_eq!(parse("a/b"), (None, "a/b".into()));
        assert_eq!(parse("mlp_out.8=a/b.pt"), (Some("mlp_out.8".into()), "a/b.pt".into()));
        assert_eq!(parse("./a=b/c"), (None, "./a=b/c".into()));
        assert_eq!(parse("=c"), (None, "=c".into()));
    }
}
