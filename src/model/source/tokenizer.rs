//! The files that a tokenizer is read from.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::Place;
use crate::error::{Error, Result};
use crate::files::{CONFIGURATION, TOKENIZER, read};
use crate::model::Tokenizer;
use crate::model::pickle::Checkpoint;
use crate::model::tokenizer::Beside;

#[derive(Debug, PartialEq)]
pub(super) enum TokenizerFiles {
    Json(PathBuf, BesideFiles),
    VocabAndMerges(PathBuf, PathBuf, BesideFiles),
    VocabTxt(PathBuf, BesideFiles),
    /// llm.c's list of tokens.
    LlmC(PathBuf),
    /// nanoGPT's `meta.pkl`.
    Characters(PathBuf),
    /// A checkpoint of nanoGPT, which names its data set.
    OfDataSet(PathBuf),
    /// One that is not read, and why.
    Unread(PathBuf, &'static str),
    None,
}

/// The settings that lie beside a tokenizer, in the order of [`SETTINGS`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct BesideFiles([Option<PathBuf>; 4]);

const SETTINGS: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"];

/// What is there of tokenizers that are not read.
const UNREAD: [(&str, &str); 4] = [
    ("vocab.json", "is half of a tokenizer: merges.txt is missing; download it too"),
    ("spiece.model", SENTENCEPIECE),
    ("tokenizer.model", SENTENCEPIECE),
    ("sentencepiece.bpe.model", SENTENCEPIECE),
];
const SENTENCEPIECE: &str = "is a SentencePiece model, which actscope does not read; make a tokenizer.json of it \
                             with transformers (AutoTokenizer.from_pretrained, save_pretrained)";

impl TokenizerFiles {
    /// Chooses among the files of a checkpoint in Hugging Face's layout.
    pub(super) fn choose(place: &mut dyn Place) -> Result<Self> {
        if let Some(file) = place.find("tokenizer.json")? {
            return Ok(Self::Json(file, BesideFiles::find(place)?));
        }
        if let (Some(vocab), Some(merges)) = (place.find("vocab.json")?, place.find("merges.txt")?) {
            return Ok(Self::VocabAndMerges(vocab, merges, BesideFiles::find(place)?));
        }
        if let Some(file) = place.find("vocab.txt")? {
            return Ok(Self::VocabTxt(file, BesideFiles::find(place)?));
        }
        for (name, why) in UNREAD {
            if let Some(file) = place.find(name)? {
                return Ok(Self::Unread(file, why));
            }
        }
        Ok(Self::None)
    }

    /// The same, or else what lies beside a checkpoint of nanoGPT or llm.c.
    pub(super) fn beside(weights: &Path, place: &mut dyn Place) -> Result<Self> {
        let found = Self::choose(place)?;
        if found != Self::None {
            return Ok(found);
        }
        if let Some(file) = place.find("meta.pkl")? {
            return Ok(Self::Characters(file));
        }
        if weights.extension().is_some_and(|ending| ending != "bin") {
            return Ok(Self::OfDataSet(weights.into()));
        }
        let names = place.list();
        let name = names.iter().find(|name| name.ends_with("tokenizer.bin") && !name.contains('/'));
        Ok(name.map(|name| place.find(name)).transpose()?.flatten().map_or(Self::None, Self::LlmC))
    }

    /// The tokenizer; one that cannot be used does not keep the model from running on token ids.
    pub(super) fn open(&self) -> Tokenizer {
        self.read().unwrap_or_else(|error| match error {
            Error::File { path, problem } => Tokenizer::broken(&path, problem),
            other => Tokenizer::broken(Path::new("the tokenizer"), other.to_string()),
        })
    }

    fn read(&self) -> Result<Tokenizer> {
        let bytes = |file: &Path| read(file, TOKENIZER);
        match self {
            Self::Json(file, beside) => Tokenizer::from_json(&bytes(file)?, &beside.read()?, file),
            Self::VocabAndMerges(vocab, merges, beside) => {
                Tokenizer::from_vocab_and_merges(&bytes(vocab)?, &bytes(merges)?, &beside.read()?, vocab)
            }
            Self::VocabTxt(file, beside) => Tokenizer::from_vocab_txt(&bytes(file)?, &beside.read()?, file),
            Self::LlmC(file) => Tokenizer::from_llmc(&bytes(file)?, file),
            Self::Characters(file) => Tokenizer::from_characters(&bytes(file)?, file),
            Self::OfDataSet(checkpoint) => match data_set(checkpoint) {
                Some(file) => Tokenizer::from_characters(&bytes(&file)?, &file),
                None => Ok(Tokenizer::none()),
            },
            Self::Unread(file, why) => Ok(Tokenizer::broken(file, *why)),
            Self::None => Ok(Tokenizer::none()),
        }
    }
}

impl BesideFiles {
    fn find(place: &mut dyn Place) -> Result<Self> {
        let mut found = Self::default();
        for (file, name) in found.0.iter_mut().zip(SETTINGS) {
            *file = place.find(name)?;
        }
        Ok(found)
    }

    fn read(&self) -> Result<Beside> {
        let [settings, special_tokens, added_tokens, config] = &self.0;
        let config = json(config.as_deref())?;
        Ok(Beside {
            class: config["tokenizer_class"].as_str().map(str::to_owned),
            settings: json(settings.as_deref())?,
            special_tokens: json(special_tokens.as_deref())?,
            added_tokens: json(added_tokens.as_deref())?,
        })
    }
}

/// A file of settings; null if there is none.
fn json(file: Option<&Path>) -> Result<Value> {
    let Some(file) = file else { return Ok(Value::Null) };
    let bytes = read(file, CONFIGURATION)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(bytes)
        .map_err(|e| Error::file(file, format!("is not JSON ({e}); download it again")))
}

/// Where nanoGPT keeps the characters of the data set that a checkpoint was trained on: its checkpoints lie in
/// a folder beside `data`.
fn data_set(checkpoint: &Path) -> Option<PathBuf> {
    let config = Checkpoint::open(checkpoint).ok()?.value("config")?;
    let name = config["dataset"].as_str().filter(|name| !name.contains(['/', '\\', '.']))?;
    let folder = std::path::absolute(checkpoint.parent()?).ok()?;
    let file = folder.parent()?.join("data").join(name).join("meta.pkl");
    file.is_file().then_some(file)
}
