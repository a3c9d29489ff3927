//! The files that a tokenizer is read from.

use std::path::PathBuf;

use crate::error::Result;
use crate::files::{TOKENIZER, read};
use crate::model::Tokenizer;

#[derive(Debug, PartialEq)]
pub(super) enum TokenizerFiles {
    Json(PathBuf),
    VocabAndMerges(PathBuf, PathBuf),
    None,
}

impl TokenizerFiles {
    /// Chooses among the files of a checkpoint; `find` returns the path of a file by its name,
    /// `None` if there is no such file.
    pub(super) fn choose(mut find: impl FnMut(&str) -> Result<Option<PathBuf>>) -> Result<Self> {
        Ok(if let Some(file) = find("tokenizer.json")? {
            Self::Json(file)
        } else if let (Some(vocab), Some(merges)) = (find("vocab.json")?, find("merges.txt")?) {
            Self::VocabAndMerges(vocab, merges)
        } else {
            Self::None
        })
    }

    pub(super) fn open(&self) -> Result<Tokenizer> {
        match self {
            Self::Json(file) => Tokenizer::from_json(&read(file, TOKENIZER)?, file),
            Self::VocabAndMerges(vocab, merges) => Tokenizer::from_vocab_and_merges(vocab, merges),
            Self::None => Ok(Tokenizer::none()),
        }
    }
}
