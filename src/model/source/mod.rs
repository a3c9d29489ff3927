//! Where a model comes from: built in, the model hub, or a directory.

mod directory;
mod embedded;
#[cfg(feature = "hub")]
mod hub;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device};

use super::{Config, DeviceSpec, DtypeSpec, Gpt2, Model, Provenance, Tokenizer, WeightBytes, Weights};
use crate::error::{Error, Result};
use crate::files::{CONFIGURATION, INDEX, TOKENIZER, read};

/// A model named by `--model`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// The small built-in model.
    #[default]
    Demo,
    /// A repository of the model hub, `owner/name`.
    Hub(String),
    Directory(PathBuf),
}

impl Source {
    /// Parses `demo`, a path, or a hub id. Existing directories, and anything that looks like a path, are paths.
    pub fn parse(name: &str) -> Self {
        let looks_like_path = name.starts_with(['.', '/', '~', '\\']) || name.matches('/').count() > 1;
        if name == "demo" {
            Self::Demo
        } else if looks_like_path || Path::new(name).is_dir() {
            Self::Directory(name.into())
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
            Self::Directory(path) => write!(f, "{}", path.display()),
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
            Self::assemble(source, files, revision, options.device, (&device, dtype), on_progress)
        };
        match source {
            Source::Demo => assemble(None, None),
            Source::Directory(path) => assemble(Some(directory::find(path)?), None),
            #[cfg(feature = "hub")]
            Source::Hub(id) => {
                let fetch = |check| {
                    let revision = options.revision.as_deref();
                    let wanted = hub::Wanted { id, revision, offline: options.offline, check };
                    let (files, commit) = hub::fetch(wanted, on_progress)?;
                    assemble(Some(files), commit)
                };
                match fetch(false) {
                    // Files in the cache may be truncated.
                    Err(Error::File { .. }) if !options.offline && !hub::is_offline() => fetch(true),
                    done => done,
                }
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
        spec: DeviceSpec,
        (device, dtype): (&Device, DType),
        on_progress: &OnProgress,
    ) -> Result<Self> {
        let network = || -> Result<_> {
            let (config, weights) = match &files {
                None => embedded::open(device, dtype)?,
                Some(files) => files.open(device, dtype)?,
            };
            let net = Gpt2::load(config, &weights)?;
            weights.check_unchanged()?;
            Ok((net, weights.stored_dtype()))
        };
        if files.is_some() {
            on_progress(Progress::Reading);
        }
        // They are independent, and for GPT-2's vocabulary both take equally long.
        let (network, tokenizer) =
            rayon::join(network, || files.as_ref().map_or_else(embedded::tokenizer, ModelFiles::tokenizer));
        let (net, stored_dtype) = network?;
        let provenance = Provenance {
            model: source.to_string(),
            revision,
            stored_dtype,
            dtype,
            device: spec.to_string(),
            weights: files.map_or(WeightBytes::Embedded(embedded::WEIGHTS), |files| {
                WeightBytes::Files(files.weights.paths())
            }),
            sha256: OnceLock::new(),
        };
        Ok(Self { net, tokenizer: tokenizer?, provenance })
    }
}

/// The files of one checkpoint in Hugging Face's layout.
#[derive(Debug, PartialEq)]
struct ModelFiles {
    config: PathBuf,
    weights: WeightFiles,
    tokenizer: TokenizerFiles,
}

#[derive(Debug, PartialEq)]
enum WeightFiles {
    /// One file, or the shards that an index lists.
    Safetensors(Vec<PathBuf>),
    Pickle(PathBuf),
}

#[derive(Debug, PartialEq)]
enum TokenizerFiles {
    Json(PathBuf),
    VocabAndMerges(PathBuf, PathBuf),
    None,
}

impl WeightFiles {
    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Safetensors(files) => files.clone(),
            Self::Pickle(file) => vec![file.clone()],
        }
    }
}

impl ModelFiles {
    /// Chooses the files of a checkpoint; `find` returns the path of a file by its name, `None` if
    /// there is no such file. `place` is for errors.
    fn choose(place: &str, mut find: impl FnMut(&str) -> Result<Option<PathBuf>>) -> Result<Self> {
        let Some(config) = find("config.json")? else {
            return Err(Error::file(
                place,
                "has no config.json, so it is not a model in Hugging Face's layout",
            ));
        };
        Config::from_json(&read(&config, CONFIGURATION)?, &config)?; // refuse another architecture before its weights are fetched
        let weights = if let Some(file) = find("model.safetensors")? {
            WeightFiles::Safetensors(vec![file])
        } else if let Some(index) = find("model.safetensors.index.json")? {
            let mut shards = Vec::new();
            for name in shard_names(&index)? {
                match find(&name)? {
                    Some(shard) => shards.push(shard),
                    None => {
                        return Err(Error::file(
                            &index,
                            format!("lists the shard `{name}`, which is missing"),
                        ));
                    }
                }
            }
            WeightFiles::Safetensors(shards)
        } else if let Some(file) = find("pytorch_model.bin")? {
            WeightFiles::Pickle(file)
        } else {
            return Err(Error::file(
                place,
                "has no weights: none of model.safetensors, model.safetensors.index.json, pytorch_model.bin",
            ));
        };
        let tokenizer = if let Some(file) = find("tokenizer.json")? {
            TokenizerFiles::Json(file)
        } else if let (Some(vocab), Some(merges)) = (find("vocab.json")?, find("merges.txt")?) {
            TokenizerFiles::VocabAndMerges(vocab, merges)
        } else {
            TokenizerFiles::None
        };
        Ok(Self { config, weights, tokenizer })
    }

    fn open(&self, device: &Device, dtype: DType) -> Result<(Config, Weights)> {
        let config = Config::from_json(&read(&self.config, CONFIGURATION)?, &self.config)?;
        let weights = match &self.weights {
            WeightFiles::Safetensors(files) => Weights::open_safetensors(files, device, dtype)?,
            WeightFiles::Pickle(file) => Weights::open_pickle(file, device, dtype)?,
        };
        Ok((config, weights))
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.tokenizer {
            TokenizerFiles::Json(file) => Tokenizer::from_json(&read(file, TOKENIZER)?, file),
            TokenizerFiles::VocabAndMerges(vocab, merges) => Tokenizer::from_vocab_and_merges(vocab, merges),
            TokenizerFiles::None => Ok(Tokenizer::none()),
        }
    }
}

/// The shards that a `model.safetensors.index.json` lists, each once, in order of name.
fn shard_names(index: &Path) -> Result<Vec<String>> {
    let bad = |what: &str| Error::file(index, format!("{what}; download it again"));
    let json: serde_json::Value =
        serde_json::from_slice(&read(index, INDEX)?).map_err(|e| bad(&format!("is not JSON ({e})")))?;
    let map = json.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| bad("has no `weight_map`"))?;
    let mut names = Vec::new();
    for name in map.values() {
        match name.as_str() {
            Some(name) if is_file_name(name) => names.push(name.to_owned()),
            _ => return Err(bad(&format!("names {name} as a shard"))),
        }
    }
    if names.is_empty() {
        return Err(bad("lists no shards"));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether a name from a file or a hub is that of a plain file in the same directory.
fn is_file_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "._- +@=,()".contains(c);
    !name.starts_with('.') && (1..=255).contains(&name.len()) && name.chars().all(is_plain)
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
