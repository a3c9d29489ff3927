//! GPT-2, with a name for everything it computes.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::ops::{Conv1D, LayerNorm, Ops};
use super::reuse::{Kept, Tap};
use super::weights::{self, Weights};
use crate::config::Config;
use crate::error::{Error, Result, out_of_range};
use crate::hooks::{HookName, Hooks, Site};

/// The network: its configuration and weights on one device, in one number format.
#[derive(Debug, Clone)]
pub struct Gpt2 {
    pub config: Config,
    /// Token embedding, (V, C).
    pub wte: Tensor,
    /// Positional embedding, (maxT, C).
    pub wpe: Tensor,
    pub blocks: Arc<[Block]>,
    pub ln_f: LayerNorm,
    /// Unembedding W_U, (C, V): wteᵀ where the head is tied.
    pub unembed: Tensor,
    /// How the operations are computed.
    pub ops: Ops,
}

/// The rows of the head, (V, C), as transformers chooses them: those of the file if they differ from
/// `wte`, whatever the configuration says, which then says what was chosen.
fn head(config: &mut Config, weights: &Weights, wte: &Tensor, notes: &mut Vec<String>) -> Result<Tensor> {
    const HEAD: &str = "lm_head.weight";
    let said_tied = config.tie_word_embeddings;
    config.tie_word_embeddings = true;
    if !weights.has(HEAD) {
        if !said_tied {
            notes.push(format!("tie_word_embeddings is false, but the file has no {HEAD}: the head is wte"));
        }
        return Ok(wte.clone());
    }
    let head = weights.get(HEAD, wte.dims())?;
    if weights::same(&head, wte)? {
        return Ok(wte.clone());
    }
    config.tie_word_embeddings = false;
    if said_tied {
        notes.push(format!(
            "{HEAD} differs from wte.weight: the logits are those of {HEAD}, as in transformers"
        ));
    }
    Ok(head)
}

/// The weights of a block, as in the checkpoint.
#[derive(Debug, Clone)]
pub struct Block {
    pub ln_1: LayerNorm,
    /// W_Q, W_K, W_V side by side: (C, 3 C).
    pub c_attn: Conv1D,
    /// W_O, (C, C): its rows are the heads, one after the other.
    pub attn_proj: Conv1D,
    pub ln_2: LayerNorm,
    /// W_in, (C, n_inner).
    pub c_fc: Conv1D,
    /// W_out, (n_inner, C).
    pub mlp_proj: Conv1D,
}

impl Gpt2 {
    /// Reads the network's tensors and checks each against the shape in `config`.
    ///
    /// # Errors
    /// [`Error::File`] that names a tensor that is missing or has the wrong shape.
    pub fn load(mut config: Config, weights: &Weights, notes: &mut Vec<String>) -> Result<Self> {
        let (v, c, m) = (config.vocab_size, config.n_embd, config.d_mlp());
        let (ops, eps) = (Ops::default(), config.layer_norm_epsilon);
        let ln = |name: &str| -> Result<LayerNorm> {
            Ok(LayerNorm {
                weight: weights.get(&format!("{name}.weight"), &[c])?,
                bias: weights.get(&format!("{name}.bias"), &[c])?,
                eps,
            })
        };
        let conv = |name: &str, n_in: usize, n_out: usize| -> Result<Conv1D> {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let bias = || weights.get(&bias, &[n_out]);
            if let Some(arch) = ops.packs(weights.device(), weights.dtype()) {
                let pack = |weight: &[f32]| Ok(Conv1D::pack(weight, bias()?, arch));
                return weights.floats(&weight, &[n_in, n_out], pack)?;
            }
            Conv1D::new(&weights.get(&weight, &[n_in, n_out])?, bias()?, ops)
        };
        let block = |l: usize| -> Result<Block> {
            Ok(Block {
                ln_1: ln(&format!("h.{l}.ln_1"))?,
                c_attn: conv(&format!("h.{l}.attn.c_attn"), c, 3 * c)?,
                attn_proj: conv(&format!("h.{l}.attn.c_proj"), c, c)?,
                ln_2: ln(&format!("h.{l}.ln_2"))?,
                c_fc: conv(&format!("h.{l}.mlp.c_fc"), c, m)?,
                mlp_proj: conv(&format!("h.{l}.mlp.c_proj"), m, c)?,
            })
        };
        // transformers ties a missing embedding to the head.
        let wte = if config.tie_word_embeddings && !weights.has("wte.weight") && weights.has("lm_head.weight")
        {
            notes.push("the file has no wte.weight: it is lm_head.weight, which is tied".into());
            "lm_head.weight"
        } else {
            "wte.weight"
        };
        let (wte, blocks) = rayon::join(
            || weights.get(wte, &[v, c]),
            || (0..config.n_layer).into_par_iter().map(block).collect::<Vec<_>>(),
        );
        // If several blocks are broken, report the first.
        let (wte, blocks) = (wte?, blocks.into_iter().collect::<Result<_>>()?);
        let unembed = head(&mut config, weights, &wte, notes)?.t()?;
        Ok(Self {
            wpe: weights.get("wpe.weight", &[config.n_positions, c])?,
            blocks,
            ln_f: ln("ln_f")?,
            wte,
            unembed,
            config,
            ops,
        })
    }

    /// The same network with other operations.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn with_ops(self, ops: Ops) -> Result<Self> {
        let block = |block: &Block| -> Result<Block> {
            Ok(Block {
                c_attn: block.c_attn.with_ops(ops)?,
                attn_proj: block.attn_proj.with_ops(ops)?,
                c_fc: block.c_fc.with_ops(ops)?,
                mlp_proj: block.mlp_proj.with_ops(ops)?,
                ..block.clone()
            })
        };
        Ok(Self { blocks: self.blocks.iter().map(block).collect::<Result<_>>()?, ops, ..self })
    }

    pub fn device(&self) -> &Device {
        self.wte.device()
    }

    /// The format the network computes in.
    pub fn dtype(&self) -> DType {
        self.wte.dtype()
    }

    /// One forward pass over T tokens; returns the logits, (T, V).
    ///
    /// Every tensor of [`crate::hooks::HOOKS`] that `hooks` want passes through them.
    ///
    /// # Errors
    /// [`Error::Usage`] for no tokens, more than the context holds, or an id outside the
    /// vocabulary; whatever `hooks` returns.
    pub fn run(&self, tokens: &[u32], hooks: &mut dyn Hooks) -> Result<Tensor> {
        self.check(tokens)?;
        let tap = &mut Tap::new(hooks);
        let x = self.body(tokens, tap)?; // (T, C)
        self.head(&x, tap) // (T, V)
    }

    /// The same, only as far as `hooks` need: unwanted logits are not computed.
    /// Rows and blocks `kept` from another run are reused, not computed again.
    pub fn watch(&self, tokens: &[u32], hooks: &mut dyn Hooks, kept: Option<Kept>) -> Result<()> {
        self.check(tokens)?;
        let tap = &mut Tap::new(hooks);
        let x = match kept {
            Some(kept) => self.body_after(kept, tokens, tap)?, // (S, C)
            None => self.body(tokens, tap)?,                   // (T, C)
        };
        if tap.hooks.wants(Site::Logits.once()) || tap.hooks.wants(Site::Probs.once()) {
            self.head(&x, tap)?;
        }
        Ok(())
    }

    /// What the unembedding reads: T tokens → (T, C).
    fn body(&self, tokens: &[u32], tap: &mut Tap) -> Result<Tensor> {
        let x = self.embed(tokens, 0, tap)?; // (T, C)
        let x = self.through(0..self.config.n_layer, x, tap)?; // (T, C)
        self.norm(&x, tap) // (T, C)
    }

    // S rows are computed: all T, or those after the rows kept from another run.

    /// Token embedding plus positional embedding, for tokens from position `first` on: (S, C).
    pub(super) fn embed(&self, tokens: &[u32], first: usize, tap: &mut Tap) -> Result<Tensor> {
        let ids = Tensor::new(tokens, self.device())?; // (S)
        let embed = tap.once(Site::Embed, self.wte.index_select(&ids, 0)?)?; // (S, C)
        let pos_embed = tap.once(Site::PosEmbed, self.wpe.narrow(0, first, tokens.len())?)?; // (S, C)
        self.ops.add(&embed, &pos_embed) // (S, C)
    }

    /// The residual stream through some of the blocks, (S, C) → (S, C).
    pub(super) fn through(&self, blocks: Range<usize>, mut x: Tensor, tap: &mut Tap) -> Result<Tensor> {
        for l in blocks {
            tap.hooks.before_block(l)?;
            x = self.block(l, &self.blocks[l], x, tap)?; // (S, C)
        }
        Ok(x)
    }

    /// ln_f, (S, C) → (S, C).
    pub(super) fn norm(&self, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let names = [Site::LnFinalScale, Site::LnFinalNormalized, Site::LnFinalOut].map(Site::once);
        self.layer_norm(&self.ln_f, x, names, tap) // (S, C)
    }

    /// Logits, (S, C) → (S, V), and probabilities if wanted.
    fn head(&self, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let logits = tap.once(Site::Logits, self.ops.product(x, &self.unembed)?)?; // (S, V)
        if tap.hooks.wants(Site::Probs.once()) {
            tap.once(Site::Probs, self.ops.softmax(&logits)?)?; // (S, V)
        }
        Ok(logits)
    }

    /// The logits of residual rows as if they left the last block, (n, C) → (n, V), by the same
    /// final operations as [`Gpt2::run`]; the rows are on this network's device, in its format.
    ///
    /// # Errors
    /// [`Error::Tensor`] for rows of the wrong shape, device or format.
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.ops.product(&self.ops.layer_norm(resid, &self.ln_f)?, &self.unembed)
    }

    /// Block `l`: attention and MLP, each added to the residual stream, (S, C) → (S, C).
    fn block(&self, l: usize, w: &Block, resid: Tensor, tap: &mut Tap) -> Result<Tensor> {
        let resid_pre = tap.at(l, Site::ResidPre, resid)?; // (S, C)

        let names = [Site::Ln1Scale, Site::Ln1Normalized, Site::Ln1Out].map(|site| site.at(l));
        let x = self.layer_norm(&w.ln_1, &resid_pre, names, tap)?; // (S, C)
        let attn_out = self.attention(l, w, &x, tap)?;
        let attn_out = tap.at(l, Site::AttnOut, attn_out)?; // (S, C)
        let resid_mid = tap.at(l, Site::ResidMid, self.ops.add(&resid_pre, &attn_out)?)?; // (S, C)

        let names = [Site::Ln2Scale, Site::Ln2Normalized, Site::Ln2Out].map(|site| site.at(l));
        let x = self.layer_norm(&w.ln_2, &resid_mid, names, tap)?; // (S, C)
        let pre = tap.at(l, Site::MlpPre, self.ops.linear(&x, &w.c_fc)?)?; // (S, n_inner)
        let post = self.ops.activation(self.config.activation_function, &pre)?; // (S, n_inner)
        let post = tap.at(l, Site::MlpPost, post)?;
        let mlp_out = tap.at(l, Site::MlpOut, self.ops.linear(&post, &w.mlp_proj)?)?; // (S, C)
        tap.at(l, Site::ResidPost, self.ops.add(&resid_mid, &mlp_out)?) // (S, C)
    }

    /// LayerNorm, in three steps if one of the first two is wanted, else at once: (S, C) → (S, C).
    fn layer_norm(&self, ln: &LayerNorm, x: &Tensor, names: [HookName; 3], tap: &mut Tap) -> Result<Tensor> {
        let [scale_of, normalized_of, out_of] = names;
        if !tap.hooks.wants(scale_of) && !tap.hooks.wants(normalized_of) {
            return tap.see(out_of, self.ops.layer_norm(x, ln)?);
        }
        let (centered, scale) = self.ops.center(x, ln)?; // (S, C), (S, 1)
        let scale = tap.see(scale_of, scale)?;
        let normalized = tap.see(normalized_of, centered.broadcast_div(&scale)?)?; // (S, C)
        tap.see(out_of, ln.affine(&normalized)?) // (S, C)
    }

    /// Multi-head attention of block `l`, (S, C) → (S, C).
    fn attention(&self, l: usize, w: &Block, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let (s, c) = x.dims2()?;
        let heads = (s, self.config.n_head, self.config.d_head());
        let scale = self.config.attn_scale(l);

        let part = |i: usize| self.ops.linear_part(x, &w.c_attn, i * c, heads);
        let q = tap.at(l, Site::Q, part(0)?)?; // (S, H, d_head)
        let k = tap.whole(l, Site::K, part(1)?)?; // (T, H, d_head)
        let v = tap.whole(l, Site::V, part(2)?)?; // (T, H, d_head)

        let z = if tap.hooks.wants(Site::AttnScores.at(l)) || tap.hooks.wants(Site::Pattern.at(l)) {
            let scores = self.ops.scores(&q, &k, tap.first(), scale)?; // (H, S, T)
            let scores = tap.at(l, Site::AttnScores, scores)?;
            let pattern = tap.at(l, Site::Pattern, self.ops.softmax(&scores)?)?; // (H, S, T)
            self.ops.weigh(&pattern, &v)? // (S, H, d_head)
        } else {
            self.ops.attention(&q, &k, &v, scale)? // (S, H, d_head)
        };
        let z = tap.at(l, Site::Z, z)?;

        if tap.hooks.wants(Site::Result.at(l)) {
            let result = self.results(w, &z)?; // (S, H, C)
            if let Some(result) = tap.replaced(Site::Result.at(l), &result)? {
                return Ok(result.sum(1)?.broadcast_add(&w.attn_proj.bias)?); // (S, C)
            }
        }
        self.ops.linear(&z.reshape((s, c))?, &w.attn_proj) // (S, C)
    }

    /// What each head writes to the residual stream: (S, H, d_head) → (S, H, C).
    pub(super) fn results(&self, w: &Block, z: &Tensor) -> Result<Tensor> {
        let (_, n_head, d_head) = z.dims3()?;
        let w_o = w.attn_proj.weight()?.reshape((n_head, d_head, self.config.n_embd))?; // (H, d_head, C)
        let by_head = z.transpose(0, 1)?.contiguous()?.matmul(&w_o)?; // (H, S, C)
        Ok(by_head.transpose(0, 1)?.contiguous()?) // (S, H, C)
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let longest = self.config.n_positions;
        if tokens.len() > longest {
            return Err(Error::usage(format!(
                "the prompt has {} tokens, but this model's context holds {longest}; shorten it",
                tokens.len()
            )));
        }
        self.check_ids(tokens)
    }

    /// Checks that there is at least one token and that all are in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Usage`] for no tokens, or with the id that is not in the vocabulary.
    pub fn check_ids(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::usage("the prompt is empty: give it at least one token"));
        }
        let v = self.config.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= v) {
            Some(id) => Err(Error::usage(out_of_range("token id", id, 0..v))),
            None => Ok(()),
        }
    }
}
