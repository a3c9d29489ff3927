//! A GPT-2: its source, weights and tokenizer, the forward pass, the tensors of a run, and what others
//! fitted to it.

mod about;
pub mod absent;
mod activation;
mod batch;
mod cache;
mod derive;
mod device;
pub mod fitted;
mod format;
mod gpt2;
mod kernels;
mod llmc;
mod ops;
mod pickle;
pub mod source;
mod tokenizer;
mod weights;

pub use about::{About, SpecialToken};

pub use batch::{Kept, Sequence};
pub use cache::ActivationCache;
pub use device::{DeviceSpec, DtypeSpec};
use fitted::Fitted;
pub use fitted::{Dictionary, FittedLens};
pub use format::Format;
pub use gpt2::{Block, Gpt2};
pub(crate) use llmc::{LlmC, Sizes as LlmCSizes};
pub(crate) use ops::causal_mask;
pub use ops::{Conv1D, LayerNorm, Ops, Table};
pub use source::{LoadOptions, Progress, Source};
pub use tokenizer::{Beside, Tokenizer, visible};
pub use weights::{Adapter, Weights};
pub(crate) use weights::{TensorFile, adapter_base};

pub use crate::config::{Activation, Config};

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use candle_core::DType;

use crate::error::{Error, Result, out_of_range};

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Model {
    pub net: Gpt2,
    pub tokenizer: Tokenizer,
    pub provenance: Provenance,
    pub fitted: Fitted,
}

impl Model {
    /// The sparse dictionaries of its activations: those that were named, or the demo model's own.
    pub fn dictionaries(&self) -> &[Arc<Dictionary>] {
        self.fitted.dictionaries(self.as_demo())
    }

    /// The lenses that were fitted to it: those that were named, or the demo model's own.
    pub fn lenses(&self) -> &[FittedLens] {
        self.fitted.lenses(self.as_demo())
    }

    /// The configuration of the demo model, if this is it.
    fn as_demo(&self) -> Option<&Config> {
        self.provenance.is_built_in().then_some(self.config())
    }

    pub fn config(&self) -> &Config {
        &self.net.config
    }

    /// The token that a user names: digits are a token id, anything else is text that must be a single
    /// token. Name a token that consists of digits by its id.
    ///
    /// # Errors
    /// [`Error::Usage`] for an id outside the vocabulary; see also [`Tokenizer::one`].
    pub fn token(&self, named: &str) -> Result<u32> {
        let digits = !named.is_empty() && named.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return self.tokenizer.one(named);
        }
        let v = self.config().vocab_size;
        let id = named.parse().ok().filter(|&id: &u32| (id as usize) < v);
        id.ok_or_else(|| Error::usage(out_of_range("token id", named, 0..v)))
    }
}

impl Model {
    /// SHA-256 of the bytes of all tokens, each after its length; `None` without a tokenizer.
    pub fn tokenizer_sha256(&self) -> Option<String> {
        let ids = 0..self.tokenizer.vocab_size() as u32;
        let bytes = ids.flat_map(|id| {
            let bytes = self.tokenizer.bytes(id).unwrap_or_default();
            (bytes.len() as u64).to_le_bytes().into_iter().chain(bytes)
        });
        self.tokenizer.is_some().then(|| weights::sha256_of_bytes(&bytes.collect::<Vec<_>>()))
    }
}

/// The provenance of a model, for the title line and every export.
#[derive(Debug)]
pub struct Provenance {
    /// `demo`, the hub id, or the directory.
    pub model: String,
    /// The hub's commit, if any.
    pub revision: Option<String>,
    /// The directory of the LoRA adapter that was merged into it, if any.
    pub adapter: Option<String>,
    /// What the weights were read from.
    pub format: String,
    /// Number format of the weights in the file.
    pub stored_dtype: Option<Format>,
    /// Number format that the network computes in.
    pub dtype: DType,
    pub device: String,
    /// What was unusual about the checkpoint and how it was read, a sentence each.
    pub notes: Vec<String>,
    pub(crate) weights: WeightBytes,
    pub(crate) sha256: OnceLock<String>,
}

/// The bytes that the weights were read from.
#[derive(Debug)]
pub(crate) enum WeightBytes {
    Embedded(&'static [u8]),
    Files(Vec<PathBuf>),
    /// They are not here: see [`absent`].
    Absent,
}

impl Provenance {
    /// Whether it is the demo model, as it is.
    fn is_built_in(&self) -> bool {
        matches!(self.weights, WeightBytes::Embedded(_)) && self.adapter.is_none()
    }

    /// The model, and the adapter merged into it.
    pub fn name(&self) -> String {
        match &self.adapter {
            Some(adapter) => format!("{} + {adapter}", self.model),
            None => self.model.clone(),
        }
    }

    /// The number format of the computation, and before it that of the file if it is another.
    pub fn number_format(&self) -> String {
        match self.stored_dtype.map(|stored| stored.to_string()) {
            Some(stored) if stored != self.dtype.as_str() => format!("{stored} → {}", self.dtype.as_str()),
            _ => self.dtype.as_str().to_owned(),
        }
    }

    /// SHA-256 of the weight files, one after the other; computed on the first call.
    ///
    /// # Errors
    /// [`crate::Error::File`] if a file can no longer be read.
    pub fn weights_sha256(&self) -> Result<&str> {
        if let Some(known) = self.sha256.get() {
            return Ok(known);
        }
        let computed = match &self.weights {
            WeightBytes::Embedded(bytes) => weights::sha256_of_bytes(bytes),
            WeightBytes::Files(files) => weights::sha256_of_files(files)?,
            WeightBytes::Absent => return Err(Error::usage("the weights are not here")),
        };
        Ok(self.sha256.get_or_init(|| computed))
    }

    /// The hash, if it has been computed already.
    pub fn known_sha256(&self) -> Option<&str> {
        self.sha256.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_id_or_by_text() {
        let model = Model::demo();
        let [the] = model.tokenizer.encode(" the").unwrap()[..] else { panic!("one token") };
        for named in [" the", "·the", &the.to_string()] {
            assert_eq!(model.token(named).unwrap(), the, "{named}");
        }
        assert_eq!(model.token("0").unwrap(), 0);
        let said = |named: &str| {
            let error = model.token(named).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        for named in ["2048", "99999999999999999999"] {
            assert!(said(named).contains(named) && said(named).contains("(0 to 2047)"), "{}", said(named));
        }
        let pieces = model.tokenizer.encode(" the the").unwrap();
        assert!(said(" the the").contains(&format!("2: ·the ({}), ·the", pieces[0])), "{}", said(" the the"));
        assert!(said("").contains("empty"));
        let none = Model { tokenizer: Tokenizer::none(), ..model };
        assert_eq!(none.token("7").unwrap(), 7);
        assert!(none.token("a").unwrap_err().to_string().contains("no tokenizer"));
    }
}
