//! What a folder of results holds, and how far it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::documents::{Fault, Per};
use super::loss::Sum;
use super::raw::RawDtype;
use super::shard::Shard;
use super::top::Size;
use super::units::Group;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::unreadable;
use crate::hooks::{HookName, Made, TensorName};
use crate::interventions::Interventions;
use crate::model::{Dictionary, Model};

pub const FILE: &str = "manifest.json";

/// Of the layout of a folder of results: another is refused.
pub const FORMAT: u32 = 1;

/// What is kept of the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Reduce {
    /// The strongest examples of each unit, and some drawn by chance
    Top,
    /// Count, mean, variance, extremes, share above 0 and histogram of each unit; scores of heads
    Stats,
    /// Loss by document and by position, in bits per token and per byte
    Loss,
    /// The tensors themselves, as safetensors
    Raw,
}

/// Everything that decides the results. Shards that differ in it cannot be merged, and a run that was stopped
/// cannot go on with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    #[serde(flatten)]
    pub origin: Origin,
    /// Whether BOS comes first in each piece, put there by the run or by the tokenizer itself.
    pub bos: bool,
    pub context: usize,
    pub stride: usize,
    pub interventions: Interventions,
    pub hooks: Vec<String>,
    /// Those whose features are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dictionaries: Vec<OfDictionary>,
    pub reduce: Vec<Reduce>,
    /// Examples of each unit.
    pub top_k: usize,
    /// Tokens before and after each.
    pub around: usize,
    /// Examples drawn of each unit.
    pub drawn: usize,
    pub raw_dtype: RawDtype,
    pub inputs: Vec<Input>,
    pub per: Per,
    pub field: Option<String>,
    /// Only documents below this number.
    pub limit: Option<u64>,
    /// Only this share of the documents, drawn by their numbers.
    pub sample: Option<f64>,
    /// Tokens between two records of the progress.
    pub chunk: u64,
}

/// The program and the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub format: u32,
    pub actscope_version: String,
    pub model: String,
    pub revision: Option<String>,
    pub adapter: Option<String>,
    pub weights_sha256: String,
    /// Of the bytes of all tokens; `None` without a tokenizer.
    pub tokenizer_sha256: Option<String>,
    pub config: Config,
    pub dtype: String,
}

impl Origin {
    /// # Errors
    /// [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(model: &Model) -> Result<Self> {
        let made_by = &model.provenance;
        Ok(Self {
            format: FORMAT,
            actscope_version: env!("CARGO_PKG_VERSION").into(),
            model: made_by.model.clone(),
            revision: made_by.revision.clone(),
            adapter: made_by.adapter.clone(),
            weights_sha256: made_by.weights_sha256()?.into(),
            tokenizer_sha256: model.tokenizer_sha256(),
            config: model.config().clone(),
            dtype: made_by.dtype.as_str().into(),
        })
    }
}

/// A sparse dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfDictionary {
    pub name: String,
    pub reads: String,
    pub writes: String,
    pub n: u32,
    /// Of what its features write.
    pub sha256: String,
}

impl OfDictionary {
    /// Those of a model that make some of `names`.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is made of two tensors of a run, of which a corpus sees one after the other.
    pub fn of(model: &Model, names: &[TensorName]) -> Result<Vec<Self>> {
        for TensorName { hook, made } in names {
            let is_transcoder = model.dictionary_of(*hook).is_some_and(Dictionary::is_transcoder);
            if is_transcoder && matches!(made, Some(Made::Reconstruction | Made::Error)) {
                return Err(Error::usage(format!(
                    "what a transcoder makes of {hook} is of two tensors: a corpus has only its features, {hook}.features"
                )));
            }
        }
        let makes =
            |of: &&Arc<Dictionary>| names.iter().any(|name| name.made.is_some() && name.hook == of.writes);
        let of = |one: &Arc<Dictionary>| Self {
            name: one.name.clone(),
            reads: one.reads.to_string(),
            writes: one.writes.to_string(),
            n: one.n as u32,
            sha256: one.sha256().to_owned(),
        };
        Ok(model.dictionaries().iter().filter(makes).map(of).collect())
    }
}

/// A file of documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub name: String,
    /// `None` for standard input.
    pub bytes: Option<u64>,
}

impl Input {
    pub fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let found = (path != Path::new("-")).then(|| std::fs::metadata(path));
        Self { name: name.to_string_lossy().into_owned(), bytes: found.and_then(|of| Some(of.ok()?.len())) }
    }
}

/// Documents with a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faulty {
    pub count: u64,
    /// The numbers of the first of them.
    pub first: Vec<u64>,
}

impl Faulty {
    const NAMED: usize = 10;

    pub fn add(&mut self, document: u64) {
        self.count += 1;
        if self.first.len() < Self::NAMED {
            self.first.push(document);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.first.extend(&other.first);
        self.first.sort_unstable();
        self.first.truncate(Self::NAMED);
    }
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether it is at the end.
    pub complete: bool,
    /// The number of times that the progress was recorded.
    pub chunks: usize,
    /// The documents below this number are done: those of the shard were run, the others are of other shards.
    pub next_document: u64,
    /// The documents that were run.
    pub documents: u64,
    /// Their tokens, BOS not counted.
    pub tokens: u64,
    pub faults: BTreeMap<Fault, Faulty>,
    /// Over all documents, with `--reduce loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Sum>,
}

/// The file that says what the others of its folder are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(flatten)]
    pub settings: Settings,
    pub shard: Shard,
    #[serde(flatten)]
    pub progress: Progress,
    /// The lower ends of the bins of the histograms; the first has none.
    pub histogram_edges: Vec<f64>,
}

impl Manifest {
    /// The manifest of a folder; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::File`] for one that cannot be read, or of another version.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_json(&text, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// The manifest that `text` is; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] for one that cannot be read, or of another version.
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::file(path, problem);
        let value: Value =
            serde_json::from_str(text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                let version = value.get("actscope_version").and_then(Value::as_str).unwrap_or("another");
                return Err(wrong(format!(
                    "is of format {format}, written by actscope {version}; this version reads format {FORMAT}"
                )));
            }
            None => return Err(wrong("is no manifest of a corpus: it has no `format`".into())),
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|error| wrong(format!("is no manifest of a corpus: {error}")))?;
        manifest.settings.origin.config.clone().checked(&[], path)?;
        Ok(manifest)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields are JSON") + "\n"
    }

    /// The units, hook by hook.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] or [`Error::Usage`] for hooks that the model does not have.
    pub fn groups(&self) -> Result<Vec<Group>> {
        self.settings.groups()
    }

    /// Joins the progress of another shard.
    pub fn merge(&mut self, other: &Self) {
        let (progress, other) = (&mut self.progress, &other.progress);
        progress.chunks += other.chunks;
        progress.documents += other.documents;
        progress.tokens += other.tokens;
        for (fault, faulty) in &other.faults {
            progress.faults.entry(*fault).or_default().merge(faulty);
        }
    }
}

impl Settings {
    /// The tensors, in data-flow order.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a name that the model does not have.
    pub fn tensors(&self) -> Result<Vec<TensorName>> {
        let written = self.written()?;
        self.hooks.iter().map(|name| TensorName::find(name, &self.origin.config, &written)).collect()
    }

    /// The hooks and sizes of the dictionaries.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a hook that the model does not have.
    pub fn written(&self) -> Result<Vec<(HookName, u32)>> {
        let of = |one: &OfDictionary| Ok((HookName::find(&one.writes, &self.origin.config)?, one.n));
        self.dictionaries.iter().map(of).collect()
    }

    /// The hook that a tensor is computed from: its own, or what the dictionary reads that makes it.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a hook that the model does not have.
    pub fn source(&self, name: TensorName) -> Result<HookName> {
        let makes = |one: &&OfDictionary| name.made.is_some() && one.writes == name.hook.to_string();
        let reads = self.dictionaries.iter().find(makes).map(|one| &one.reads);
        reads.map_or(Ok(name.hook), |reads| HookName::find(reads, &self.origin.config))
    }

    /// The units of the hooks, where units are asked for.
    ///
    /// # Errors
    /// [`Error::Usage`] for a hook without units.
    pub fn groups(&self) -> Result<Vec<Group>> {
        if !self.has(Reduce::Top) && !self.has(Reduce::Stats) {
            return Ok(Vec::new());
        }
        self.tensors()?.into_iter().map(|name| Group::new(name, &self.origin.config)).collect()
    }

    pub fn size(&self) -> Size {
        Size { k: self.top_k, around: self.around, drawn: self.drawn }
    }

    pub fn has(&self, reduce: Reduce) -> bool {
        self.reduce.contains(&reduce)
    }

    /// What differs from others: the names of the settings.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |settings: &Self| match serde_json::to_value(settings) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (a, b) = (fields(self), fields(other));
        a.iter().filter(|(name, value)| b.get(*name) != Some(value)).map(|(name, _)| name.clone()).collect()
    }
}
