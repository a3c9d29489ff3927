//! The configurations that checkpoints of nanoGPT and llm.c bring along.

use std::path::Path;

use serde_json::Value;

use crate::config::{Activation, Config, ReadConfig};
use crate::error::{Error, Result};
use crate::model::llmc::Sizes;

/// The tokens of GPT-2; both programs pad the vocabulary to a multiple of 128.
const GPT2_VOCAB: usize = 50257;

/// nanoGPT's `model_args`. What they do not say is in its `model.py`.
pub(super) fn nanogpt(args: &Value, path: &Path) -> Result<ReadConfig> {
    let size = |name: &str| {
        let n = args[name].as_u64().and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| Error::file(path, format!("its model_args have no {name}; it is not nanoGPT's")))
    };
    let config = Config {
        vocab_size: size("vocab_size")?,
        n_positions: size("block_size")?,
        n_embd: size("n_embd")?,
        n_layer: size("n_layer")?,
        n_head: size("n_head")?,
        activation_function: Activation::Gelu,
        ..Config::gpt2()
    };
    own(config, "a checkpoint of nanoGPT: its sizes are its model_args, the GELU is exact (erf)", path)
}

/// The header of llm.c's model.
pub(super) fn llmc(sizes: Sizes, path: &Path) -> Result<ReadConfig> {
    let Sizes { n_positions, vocab_size, n_layer, n_head, n_embd, padded_vocab_size } = sizes;
    let config = Config { vocab_size, n_positions, n_embd, n_layer, n_head, ..Config::gpt2() };
    let mut read = own(config, "a model of llm.c: its sizes are in its header", path)?;
    if padded_vocab_size > vocab_size {
        read.notes.push(format!(
            "wte is padded to {padded_vocab_size} rows in the file: those from {vocab_size} on, which belong to no \
             token, are left out"
        ));
    }
    Ok(read)
}

fn own(mut config: Config, note: &str, path: &Path) -> Result<ReadConfig> {
    if !(GPT2_VOCAB..=GPT2_VOCAB.next_multiple_of(128)).contains(&config.vocab_size) {
        config.bos_token_id = None;
    }
    let config = config.checked(&[], path)?;
    Ok(ReadConfig { config, defaults: Vec::new(), notes: vec![note.into()] })
}
