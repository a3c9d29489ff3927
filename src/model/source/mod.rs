//! Where a model comes from: built in, the model hub, or a directory.

mod absent;
mod directory;
mod embedded;
mod files;
#[cfg(feature = "hub")]
mod hub;
mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device};

use self::files::ModelFiles;
use super::fitted::Fitted;
use super::{Adapter, DeviceSpec, DtypeSpec, Gpt2, Model, Provenance, WeightBytes};
use crate::config::ReadConfig;
use crate::error::{Error, Result};

/// A model named by `--model`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// The small built-in model.
    #[default]
    Demo,
    /// A repository of the model hub, `owner/name`.
    Hub(String),
    /// A directory, or a file of weights.
    Path(PathBuf),
}

impl Source {
    /// Parses `demo`, a path, or a hub id. What exists, is in a directory that exists, or looks like a
    /// path, is a path.
    pub fn parse(name: &str) -> Self {
        const FILES: [&str; 8] = [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".json", ".gguf", ".h5"];
        let looks_like_path = name.starts_with(['.', '/', '~', '\\'])
            || name.matches('/').count() > 1
            || FILES.iter().any(|ending| name.ends_with(ending));
        let in_a_directory = name.split_once('/').is_some_and(|(folder, _)| Path::new(folder).is_dir());
        if name == "demo" {
            Self::Demo
        } else if looks_like_path || in_a_directory || Path::new(name).exists() {
            Self::Path(name.into())
        } else {
            Self::Hub(full_id(name))
        }
    }
}

/// `gpt2` and the like have one-word names from before the hub had owners.
fn full_id(id: &str) -> String {
    match id {
        "gpt2" | "gpt2-medium" | "gpt2-large" | "gpt2-xl" => format!("openai-community/{id}"),
        "distilgpt2" => format!("distilbert/{id}"),
        _ => id.to_owned(),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("demo"),
            Self::Hub(id) => f.write_str(id),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Branch, tag or commit on the hub.
    pub revision: Option<String>,
    /// Use only the hub's cache.
    pub offline: bool,
    pub device: DeviceSpec,
    pub dtype: DtypeSpec,
    /// The directory of a LoRA adapter that is merged into the model.
    pub adapter: Option<PathBuf>,
    /// Sparse dictionaries of its activations: see [`Dictionary::open`](crate::model::Dictionary::open).
    pub dictionaries: Vec<String>,
    /// What their features are about: see [`Labels::parse`](crate::model::fitted::Labels::parse).
    pub labels: Option<PathBuf>,
    /// Lenses on its layers: see [`FittedLens::open`](crate::model::FittedLens::open).
    pub lenses: Vec<String>,
}

/// Progress of loading.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A file is being downloaded.
    Download {
        file: String,
        /// Bytes so far.
        done: u64,
        /// Total bytes, once known.
        total: Option<u64>,
        /// Bytes per second, once known.
        rate: Option<f64>,
    },
    /// The weights are being read from disk.
    Reading,
}

/// Receives the progress of loading, from any thread; must not block.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Downloads some files of a repository of the hub, unless they are in its cache; `None` for each that it does not
/// have.
///
/// # Errors
/// [`Error::Hub`] if the hub or its cache fails.
#[cfg(feature = "hub")]
pub(crate) fn fetch(
    id: &str,
    names: &[String],
    offline: bool,
    on_progress: &OnProgress,
) -> Result<Vec<Option<PathBuf>>> {
    hub::files(id, names, offline, on_progress)
}

#[cfg(not(feature = "hub"))]
pub(crate) fn fetch(id: &str, _: &[String], _: bool, _: &OnProgress) -> Result<Vec<Option<PathBuf>>> {
    Err(Error::Hub(format!("`{id}` does not exist, and this program was built without the feature `hub`")))
}

impl Model {
    /// The built-in model.
    ///
    /// # Panics
    /// Never in a released program: the tests load it.
    pub fn demo() -> Self {
        Self::open("demo").expect("the built-in model is valid")
    }

    /// Loads a model by name: `demo`, a directory, or an id of the model hub, whose files are
    /// downloaded unless they are in the cache.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// use actscope::{Input, Model, Run};
    ///
    /// let model = Arc::new(Model::open("openai-community/gpt2")?);
    /// let run = Run::all(&model, Input::text("The quick brown fox"))?;
    /// assert_eq!(run.cache.get("blocks.11.hook_resid_post")?.dims(), [run.n_tokens(), 768]);
    /// # Ok::<(), actscope::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::File`] for files that are missing or malformed, [`Error::Hub`] for what the hub did
    /// not give.
    pub fn open(name: &str) -> Result<Self> {
        Self::load(&Source::parse(name), &LoadOptions::default(), &(Arc::new(|_| {}) as OnProgress))
    }

    /// Loads a model with options, and reports progress.
    ///
    /// # Errors
    /// [`Error::File`] for files that are missing or malformed, [`Error::Hub`] if the hub
    /// fails, [`Error::Device`] for a device that is not available.
    pub fn load(source: &Source, options: &LoadOptions, on_progress: &OnProgress) -> Result<Self> {
        if options.revision.is_some() && !matches!(source, Source::Hub(_)) {
            return Err(Error::usage(format!(
                "--revision only applies to models on the hub, but the model is `{source}`"
            )));
        }
        let dtype = options.dtype.on(options.device)?;
        let device = options.device.open()?;
        let assemble = |files: Option<ModelFiles>, revision| {
            Self::assemble(source, files, revision, options, (&device, dtype), on_progress)
        };
        match source {
            Source::Demo => assemble(None, None),
            Source::Path(path) => assemble(Some(directory::find(path)?), None),
            #[cfg(feature = "hub")]
            Source::Hub(id) => {
                let fetch = |check| {
                    let revision = options.revision.as_deref();
                    let wanted = hub::Wanted { id, revision, offline: options.offline, check };
                    let (files, commit) = hub::fetch(wanted, on_progress)?;
                    assemble(Some(files), commit)
                };
                let first = fetch(false);
                // Files in the cache may be truncated.
                let damaged = match &first {
                    Ok(model) => model.tokenizer.problem().is_some(),
                    Err(error) => matches!(error, Error::File { .. }),
                };
                if damaged && !options.offline && !hub::is_offline() { fetch(true) } else { first }
            }
            #[cfg(not(feature = "hub"))]
            Source::Hub(id) => Err(Error::Hub(format!(
                "`{id}` is not a directory, and this program was built without the feature `hub`"
            ))),
        }
    }

    /// Loads the files of a model; those of the demo model are built in.
    fn assemble(
        source: &Source,
        files: Option<ModelFiles>,
        revision: Option<String>,
        options: &LoadOptions,
        (device, dtype): (&Device, DType),
        on_progress: &OnProgress,
    ) -> Result<Self> {
        let network = || -> Result<_> {
            let (config, mut weights) = match &files {
                None => embedded::open(device, dtype)?,
                Some(files) => files.open(device, dtype)?,
            };
            let ReadConfig { config, defaults, mut notes } = config;
            let (n, found) = (config.n_layer, weights.n_layer());
            if found < n && defaults.contains(&"n_layer") {
                return Err(
                    weights.refuse(format!("has {found} blocks, but config.json gives no n_layer; add it"))
                );
            } else if 0 < found && found < n {
                return Err(weights.refuse(format!("has {found} blocks, but n_layer is {n}")));
            } else if found > n {
                notes.push(format!("the file has {found} blocks, but n_layer is {n}: the rest is not used"));
            }
            let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
            let adapter_file = adapter.as_ref().map(|adapter| adapter.file().to_owned());
            if let Some(adapter) = adapter {
                weights.adapt(adapter)?;
            }
            let net = Gpt2::load(config, &weights, &mut notes)?;
            weights.check_unchanged()?;
            notes.extend(weights.notes(n));
            Ok((net, weights.described(), weights.stored_format(), notes, adapter_file))
        };
        if files.is_some() {
            on_progress(Progress::Reading);
        }
        // They are independent, and for GPT-2's vocabulary both take equally long.
        let (network, tokenizer) = rayon::join(network, || {
            files.as_ref().map_or_else(embedded::tokenizer, |files| files.tokenizer.open())
        });
        let (net, format, stored_dtype, mut notes, adapter_file) = network?;
        notes.extend(tokenizer.notes(net.config.vocab_size));
        let adapter = options.adapter.as_ref().map(|adapter| adapter.display().to_string());
        if let Some(adapter) = &adapter {
            notes.push(format!("the LoRA adapter {adapter} is merged into the weights"));
        }
        let weights = match files {
            None => WeightBytes::Embedded(embedded::WEIGHTS),
            Some(files) => WeightBytes::Files(files.weights.into_iter().chain(adapter_file).collect()),
        };
        let provenance = Provenance {
            model: source.to_string(),
            revision,
            adapter,
            format,
            stored_dtype,
            dtype,
            notes,
            device: options.device.to_string(),
            weights,
            sha256: OnceLock::new(),
        };
        let fitted = Fitted::open(options, &net.config, on_progress)?;
        Ok(Self { net, tokenizer, provenance, fitted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_get_their_owners() {
        for (name, id) in [
            ("gpt2", "openai-community/gpt2"),
            ("gpt2-xl", "openai-community/gpt2-xl"),
            ("distilgpt2", "distilbert/distilgpt2"),
            ("stanford-crfm/alias-gpt2-small-x21", "stanford-crfm/alias-gpt2-small-x21"),
            ("gpt3", "gpt3"),
        ] {
            assert_eq!(Source::parse(name), Source::Hub(id.into()));
        }
    }
}
