//! The files of one checkpoint, chosen among those of a directory or a repository of the hub.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::absent;
use super::tokenizer::TokenizerFiles;
use crate::config::{Config, ReadConfig};
use crate::error::{Error, Result};
use crate::files::{CONFIGURATION, INDEX, read};
use crate::model::Weights;
use crate::sniff::Looks;

/// Where the files of a checkpoint are.
pub(super) trait Place {
    /// For errors.
    fn name(&self) -> String;

    /// The path of a file by its name; `None` if there is no such file.
    fn find(&mut self, name: &str) -> Result<Option<PathBuf>>;

    /// The names of all files, those in folders with `/`, as far as they can be listed.
    fn list(&mut self) -> Vec<String>;
}

/// The files of one checkpoint.
#[derive(Debug, PartialEq)]
pub(super) struct ModelFiles {
    /// `None` for a checkpoint that brings its configuration along.
    config: Option<PathBuf>,
    /// One file, or the shards that an index lists.
    pub weights: Vec<PathBuf>,
    pub tokenizer: TokenizerFiles,
    /// What was unusual about their names.
    notes: Vec<String>,
}

/// The names of weights and of the indices of their shards, in Hugging Face's order.
const USUAL: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

impl ModelFiles {
    /// Chooses the files of a checkpoint in Hugging Face's layout, or one that brings its configuration
    /// along.
    ///
    /// # Errors
    /// [`Error::File`] if there is none, with what is there instead.
    pub fn choose(place: &mut dyn Place) -> Result<Self> {
        let config = place.find("config.json")?;
        let mut notes = Vec::new();
        let (weights, tokenizer) = if let Some(config) = &config {
            // Refuse another architecture before its weights are fetched.
            Config::from_json(&read(config, CONFIGURATION)?, config)?;
            let weights = usual(place)?.map_or_else(|| unusual(place, &mut notes), Ok)?;
            (weights, TokenizerFiles::choose(place)?)
        } else {
            let weights = own(place)?;
            let tokenizer = TokenizerFiles::beside(&weights, place)?;
            (vec![weights], tokenizer)
        };
        Ok(Self { config, weights, tokenizer, notes })
    }

    /// A weight file that was named, and the files beside it.
    pub fn beside(file: &Path, place: &mut dyn Place) -> Result<Self> {
        let weights = if file.to_string_lossy().ends_with(".index.json") {
            shards(file, place)?
        } else {
            vec![file.to_owned()]
        };
        Ok(Self {
            config: place.find("config.json")?,
            weights,
            tokenizer: TokenizerFiles::beside(file, place)?,
            notes: Vec::new(),
        })
    }

    pub fn open(&self, device: &Device, dtype: DType) -> Result<(ReadConfig, Weights)> {
        let weights = Weights::open(&self.weights, device, dtype)?;
        let mut config = match (weights.own_config()?, &self.config) {
            (Some(config), _) => config,
            (None, Some(file)) => Config::from_json(&read(file, CONFIGURATION)?, file)?,
            (None, None) => {
                return Err(weights.refuse(
                    "has no config.json beside it, and holds no configuration as nanoGPT's ckpt.pt does; put the \
                     model's config.json into the same directory",
                ));
            }
        };
        config.notes.extend(self.notes.clone());
        Ok((config, weights))
    }
}

/// Weights under their usual names.
fn usual(place: &mut dyn Place) -> Result<Option<Vec<PathBuf>>> {
    for name in USUAL {
        if let Some(file) = place.find(name)? {
            return named(&file, place).map(Some);
        }
    }
    Ok(None)
}

/// A file of weights, or the shards that it lists.
fn named(file: &Path, place: &mut dyn Place) -> Result<Vec<PathBuf>> {
    let is_index = file.extension().is_some_and(|ending| ending == "json");
    if is_index { shards(file, place) } else { Ok(vec![file.to_owned()]) }
}

/// Weights under another name: a variant such as `model.fp16.safetensors`, or the only file of weights.
fn unusual(place: &mut dyn Place, notes: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    let names = place.list();
    let variants: Vec<&String> = names.iter().filter(|name| is_variant(name)).collect();
    let mut found = variants.clone();
    if found.is_empty() {
        found = names.iter().filter(|name| is_weights(name)).collect();
    }
    match found[..] {
        [] => Err(absent::error(place, &names)),
        [name] => {
            let what = if variants.is_empty() { "weights" } else { "variant of the weights" };
            notes.push(format!("read from {name}, the only {what} there"));
            match place.find(name)? {
                Some(file) => named(&file, place),
                None => Err(absent::error(place, &names)),
            }
        }
        _ => Err(absent::several(place, &found)),
    }
}

/// The checkpoint in a directory without `config.json`: of nanoGPT or llm.c.
fn own(place: &mut dyn Place) -> Result<PathBuf> {
    let names = place.list();
    let mut found = Vec::new();
    for name in names.iter().filter(|name| is_weights(name)) {
        let looks = place.find(name)?.and_then(|file| Some((Looks::of_file(&file)?, file)));
        if let Some((Looks::PyTorch | Looks::LlmC, file)) = looks {
            found.push((name, file));
        }
    }
    // nanoGPT's own name, beside whatever else was saved.
    if let Some(at) = found.iter().position(|(name, _)| *name == "ckpt.pt") {
        return Ok(found.swap_remove(at).1);
    }
    match found.len() {
        0 => Err(absent::error(place, &names)),
        1 => Ok(found.remove(0).1),
        _ => Err(absent::several(place, &found.iter().map(|(name, _)| *name).collect::<Vec<_>>())),
    }
}

/// Whether a file is named like the variant of the usual weights, or its index.
fn is_variant(name: &str) -> bool {
    let middle = |start, end| name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    let variant = middle("model.", ".safetensors")
        .or_else(|| middle("pytorch_model.", ".bin"))
        .or_else(|| middle("model.safetensors.index.", ".json"))
        .or_else(|| middle("pytorch_model.bin.index.", ".json"));
    variant.is_some_and(|variant| {
        !variant.is_empty() && variant.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Whether a file is named like weights: not the state of a training run, not a shard, not an adapter.
pub(super) fn is_weights(name: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "optimizer",
        "scheduler",
        "rng_state",
        "training_args",
        "scaler",
        "adapter_model",
        "tokenizer",
        "trainer_state",
    ];
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    ["safetensors", "bin", "pt", "pth", "ckpt"].contains(&ending)
        && !name.contains('/')
        && !OTHERS.iter().any(|other| name.starts_with(other))
        && !absent::is_shard(name)
}

/// The files that an index lists, each once, in order of name.
fn shards(index: &Path, place: &mut dyn Place) -> Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for name in shard_names(index)? {
        let Some(shard) = place.find(&name)? else {
            let problem = format!("lists the shard `{name}`, which is missing; download it too");
            return Err(Error::file(index, problem));
        };
        shards.push(shard);
    }
    Ok(shards)
}

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
