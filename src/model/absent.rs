//! A model of which only a run is there: its sizes and names, without weights.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

use super::gpt2::{Block, Gpt2};
use super::ops::{Conv1D, LayerNorm, Ops, Table};
use super::{Fitted, Model, Provenance, Tokenizer, WeightBytes};
use crate::config::Config;
use crate::error::Result;

/// What is known of a model that is not here.
#[derive(Debug, Clone)]
pub struct Known {
    pub config: Config,
    pub model: String,
    pub revision: Option<String>,
    pub weights_sha256: String,
    /// The texts of some tokens, every byte visible.
    pub texts: BTreeMap<u32, String>,
}

impl Model {
    /// A model without weights, and what to say of it: each is NaN, so that nothing that is computed with them passes for a number.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`]
    pub fn absent(known: Known, notes: Vec<String>) -> Result<Self> {
        Ok(Self {
            net: Gpt2::absent(known.config)?,
            tokenizer: Tokenizer::of_texts(known.texts),
            provenance: Provenance {
                model: known.model,
                revision: known.revision,
                adapter: None,
                format: "a saved run".into(),
                stored_dtype: None,
                dtype: DType::F32,
                device: "saved".into(),
                notes,
                weights: WeightBytes::Absent,
                sha256: OnceLock::from(known.weights_sha256),
            },
            fitted: Fitted::default(),
        })
    }

    /// Whether its weights are not here.
    pub fn is_absent(&self) -> bool {
        matches!(self.provenance.weights, WeightBytes::Absent)
    }
}

impl Gpt2 {
    fn absent(config: Config) -> Result<Self> {
        let nothing = |shape: &[usize]| -> Result<Tensor> {
            let ones = vec![1; shape.len()];
            Ok(Tensor::full(f32::NAN, &*ones, &Device::Cpu)?.broadcast_as(shape)?)
        };
        let (v, c, m) = (config.vocab_size, config.n_embd, config.d_mlp());
        let eps = config.layer_norm_epsilon;
        let ln = || Ok::<_, crate::Error>(LayerNorm { weight: nothing(&[c])?, bias: nothing(&[c])?, eps });
        let conv =
            |n_in, n_out| Ok::<_, crate::Error>(Conv1D::plain(nothing(&[n_in, n_out])?, nothing(&[n_out])?));
        let block = Block {
            ln_1: ln()?,
            c_attn: conv(c, 3 * c)?,
            attn_proj: conv(c, c)?,
            ln_2: ln()?,
            c_fc: conv(c, m)?,
            mlp_proj: conv(m, c)?,
        };
        let wte = Table::plain(nothing(&[c, v])?);
        Ok(Self {
            wpe: nothing(&[config.n_positions, c])?,
            blocks: Arc::from(vec![block; config.n_layer]),
            ln_f: ln()?,
            unembed: wte.clone(),
            wte,
            config,
            ops: Ops::Plain,
        })
    }
}
