//! GPT-2, with a name for everything it computes.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::batch::{self, Batch, Sequence};
use super::ops::{Conv1D, LayerNorm, Ops, Table};
use super::weights::{self, Weights};
use crate::config::Config;
use crate::error::{Error, Result, out_of_range};
use crate::hooks::{HookName, Hooks, Site};

/// The network: its configuration and weights on one device, in one number format.
#[derive(Debug, Clone)]
pub struct Gpt2 {
    pub config: Config,
    /// Token embedding, (V, C).
    pub wte: Table,
    /// Positional embedding, (maxT, C).
    pub wpe: Tensor,
    pub blocks: Arc<[Block]>,
    pub ln_f: LayerNorm,
    /// Unembedding W_Uᵀ, (V, C): wte itself where the head is tied.
    pub unembed: Table,
    /// How the operations are computed.
    pub ops: Ops,
}

const HEAD: &str = "lm_head.weight";

/// Whether the head has rows of its own, as transformers chooses them: those of the file if they differ
/// from `wte`, whatever the configuration says, which then says what was chosen.
fn has_own_head(config: &mut Config, weights: &Weights, wte: &str, notes: &mut Vec<String>) -> Result<bool> {
    let said_tied = config.tie_word_embeddings;
    config.tie_word_embeddings = true;
    if !weights.has(HEAD) {
        if !said_tied {
            notes.push(format!("tie_word_embeddings is false, but the file has no {HEAD}: the head is wte"));
        }
        return Ok(false);
    }
    let shape = [config.vocab_size, config.n_embd];
    if wte == HEAD || weights::same(&weights.get(HEAD, &shape)?, &weights.get(wte, &shape)?)? {
        return Ok(false);
    }
    config.tie_word_embeddings = false;
    if said_tied {
        notes.push(format!(
            "{HEAD} differs from wte.weight: the logits are those of {HEAD}, as in transformers"
        ));
    }
    Ok(true)
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
        let table = |name: &str| -> Result<Table> {
            match ops.packs(weights.device(), weights.dtype()) {
                Some(arch) => weights.floats(name, &[v, c], |rows| Table::pack(rows, c, arch)),
                None => Table::new(&weights.get(name, &[v, c])?, ops),
            }
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
        let name = if config.tie_word_embeddings && !weights.has("wte.weight") && weights.has(HEAD) {
            notes.push(format!("the file has no wte.weight: it is {HEAD}, which is tied"));
            HEAD
        } else {
            "wte.weight"
        };
        let (wte, blocks) = rayon::join(
            || table(name),
            || (0..config.n_layer).into_par_iter().map(block).collect::<Vec<_>>(),
        );
        // If several blocks are broken, report the first.
        let (wte, blocks) = (wte?, blocks.into_iter().collect::<Result<_>>()?);
        let unembed =
            if has_own_head(&mut config, weights, name, notes)? { table(HEAD)? } else { wte.clone() };
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
        let wte = self.wte.with_ops(ops)?;
        let unembed =
            if self.config.tie_word_embeddings { wte.clone() } else { self.unembed.with_ops(ops)? };
        Ok(Self { blocks: self.blocks.iter().map(block).collect::<Result<_>>()?, wte, unembed, ops, ..self })
    }

    pub fn device(&self) -> &Device {
        self.wpe.device()
    }

    /// The format the network computes in.
    pub fn dtype(&self) -> DType {
        self.wpe.dtype()
    }

    /// One forward pass over T tokens; returns the logits, (T, V).
    ///
    /// Every tensor of [`crate::hooks::HOOKS`] that `hooks` want passes through them.
    ///
    /// # Errors
    /// [`Error::Usage`] for no tokens, more than the context holds, or an id outside the
    /// vocabulary; whatever `hooks` returns.
    pub fn run(&self, tokens: &[u32], hooks: &mut dyn Hooks) -> Result<Tensor> {
        let batch = &mut self.batch([Sequence::new(tokens, hooks, None)])?;
        let x = self.body(batch)?; // (T, C)
        self.head(&x, batch) // (T, V)
    }

    /// One forward pass over several sequences, each as if alone, and only as far as their hooks need:
    /// unwanted logits are not computed, nor what a sequence keeps from another run.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn watch<'a>(&self, sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<()> {
        let batch = &mut self.batch(sequences)?;
        let x = self.body(batch)?; // (R, C)
        if batch.wants(Site::Logits.once()) || batch.wants(Site::Probs.once()) {
            self.head(&x, batch)?;
        }
        Ok(())
    }

    /// What the unembedding reads at the wanted positions of several sequences, one after the other:
    /// (Σ wanted, C). Each is computed as if alone; hooks see its tensors, but no logits.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn outputs<'a>(&self, sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<Tensor> {
        let batch = &mut self.batch(sequences)?;
        let x = self.body(batch)?; // (R, C)
        batch.output(&x)
    }

    fn batch<'a>(&self, sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<Batch<'a>> {
        let checked = |sequence: Sequence<'a>| self.check(sequence.tokens).map(|()| sequence);
        Ok(Batch::new(sequences.into_iter().map(checked).collect::<Result<Vec<_>>>()?))
    }

    // R rows are computed at once: those of all sequences of the batch that no earlier run has.

    /// What the unembedding reads: (R, C).
    fn body(&self, batch: &mut Batch) -> Result<Tensor> {
        let n_layer = self.config.n_layer;
        let mut x = self.embed(batch)?; // (R, C)
        for l in 0..n_layer {
            x = batch.join(l, x)?; // (R, C)
            if batch.n_rows() > 0 {
                batch.before_block(l)?;
                x = self.block(l, &self.blocks[l], x, batch)?; // (R, C)
            }
        }
        let x = batch.join(n_layer, x)?; // (R, C)
        let names = [Site::LnFinalScale, Site::LnFinalNormalized, Site::LnFinalOut].map(Site::once);
        self.layer_norm(&self.ln_f, &x, names, batch) // (R, C)
    }

    /// Token embedding plus positional embedding: (R, C).
    fn embed(&self, batch: &mut Batch) -> Result<Tensor> {
        let (tokens, positions) = batch.tokens(); // (R), (R)
        if tokens.is_empty() {
            return Ok(self.wpe.narrow(0, 0, 0)?); // all is kept
        }
        let embed = batch.once(Site::Embed, self.wte.rows(&tokens)?)?; // (R, C)
        let pos_embed = self.wpe.index_select(&Tensor::new(positions, self.device())?, 0)?; // (R, C)
        let pos_embed = batch.once(Site::PosEmbed, pos_embed)?; // (R, C)
        self.ops.add(&embed, &pos_embed) // (R, C)
    }

    /// Logits, (R, C) → (R, V), and probabilities if wanted.
    fn head(&self, x: &Tensor, batch: &mut Batch) -> Result<Tensor> {
        let logits = batch.once(Site::Logits, self.ops.logits(x, &self.unembed)?)?; // (R, V)
        if batch.wants(Site::Probs.once()) {
            batch.once(Site::Probs, self.ops.softmax(&logits)?)?; // (R, V)
        }
        Ok(logits)
    }

    /// The logits of residual rows as if they left the last block, (n, C) → (n, V), by the same
    /// final operations as [`Gpt2::run`]; the rows are on this network's device, in its format.
    ///
    /// # Errors
    /// [`Error::Tensor`] for rows of the wrong shape, device or format.
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.ops.logits(&self.ops.layer_norm(resid, &self.ln_f)?, &self.unembed)
    }

    /// The logits of some tokens for rows that left `ln_f`, (n, C) → (n, tokens).
    ///
    /// # Errors
    /// [`Error::Tensor`] for rows of the wrong shape, device or format; as [`Self::check_ids`].
    pub fn logits_of(&self, x: &Tensor, tokens: &[u32]) -> Result<Tensor> {
        self.check_ids(tokens)?;
        let of = |&id: &u32| self.ops.logits_of(x, &self.unembed, id as usize..id as usize + 1); // (n, 1)
        Ok(Tensor::cat(&tokens.iter().map(of).collect::<Result<Vec<_>>>()?, 1)?)
    }

    /// Block `l`: attention and MLP, each added to the residual stream, (R, C) → (R, C).
    fn block(&self, l: usize, w: &Block, resid: Tensor, batch: &mut Batch) -> Result<Tensor> {
        let resid_pre = batch.at(l, Site::ResidPre, resid)?; // (R, C)

        let names = [Site::Ln1Scale, Site::Ln1Normalized, Site::Ln1Out].map(|site| site.at(l));
        let x = self.layer_norm(&w.ln_1, &resid_pre, names, batch)?; // (R, C)
        let (attn_out, resid_pre) = self.attention(l, w, x, resid_pre, batch)?;
        let attn_out = batch.at(l, Site::AttnOut, attn_out)?; // (R, C)
        let resid_mid = batch.at(l, Site::ResidMid, self.ops.add(&resid_pre, &attn_out)?)?; // (R, C)

        let names = [Site::Ln2Scale, Site::Ln2Normalized, Site::Ln2Out].map(|site| site.at(l));
        let x = self.layer_norm(&w.ln_2, &resid_mid, names, batch)?; // (R, C)
        let pre = batch.at(l, Site::MlpPre, self.ops.linear(&x, &w.c_fc)?)?; // (R, n_inner)
        let post = self.ops.activation(self.config.activation_function, &pre)?; // (R, n_inner)
        let post = batch.at(l, Site::MlpPost, post)?;
        let mlp_out = batch.at(l, Site::MlpOut, self.ops.linear(&post, &w.mlp_proj)?)?; // (R, C)
        batch.at(l, Site::ResidPost, self.ops.add(&resid_mid, &mlp_out)?) // (R, C)
    }

    /// LayerNorm, in three steps if one of the first two is wanted, else at once: (R, C) → (R, C).
    fn layer_norm(
        &self,
        ln: &LayerNorm,
        x: &Tensor,
        names: [HookName; 3],
        batch: &mut Batch,
    ) -> Result<Tensor> {
        let [scale_of, normalized_of, out_of] = names;
        if !batch.wants(scale_of) && !batch.wants(normalized_of) {
            return batch.see(out_of, self.ops.layer_norm(x, ln)?);
        }
        let (centered, scale) = self.ops.center(x, ln)?; // (R, C), (R, 1)
        let scale = batch.see(scale_of, scale)?;
        let normalized = batch.see(normalized_of, self.ops.divide(&centered, &scale)?)?; // (R, C)
        batch.see(out_of, self.ops.affine(&normalized, ln)?) // (R, C)
    }

    /// Multi-head attention of block `l`, and the residual stream of the rows that go on:
    /// (R, C), (R, C) → (R, C), (R, C).
    fn attention(
        &self,
        l: usize,
        w: &Block,
        x: Tensor,
        resid: Tensor,
        batch: &mut Batch,
    ) -> Result<(Tensor, Tensor)> {
        let (c, h, d_head) = (self.config.n_embd, self.config.n_head, self.config.d_head());
        let part = |x: &Tensor, i: usize| {
            self.ops.linear_part(x, &w.c_attn, i * c, (x.dims()[0], h, d_head)) // (R, H, d_head)
        };
        let k = batch.whole(l, Site::K, &part(&x, 1)?)?; // (T, H, d_head) of each sequence
        let v = batch.whole(l, Site::V, &part(&x, 2)?)?; // (T, H, d_head) of each sequence
        let [x, resid] = if l + 1 == self.config.n_layer {
            batch.only_wanted(&self.config, [x, resid])?
        } else {
            [x, resid]
        };
        let q = batch.at(l, Site::Q, part(&x, 0)?)?; // (R, H, d_head)

        let z = self.gather(l, &q, &k, &v, batch)?; // (R, H, d_head)
        let z = batch.at(l, Site::Z, z)?;

        let out = self.ops.linear(&z.reshape(((), c))?, &w.attn_proj)?; // (R, C)
        if !batch.wants(Site::Result.at(l)) {
            return Ok((out, resid));
        }
        let result = self.results(w, &z)?; // (R, H, C)
        let sum = |(row, result): (usize, Tensor)| {
            Ok((row, result.sum(1)?.broadcast_add(&w.attn_proj.bias)?)) // (S, C)
        };
        let replaced = batch.replaced(Site::Result.at(l), &result)?.into_iter();
        Ok((batch::put(out, replaced.map(sum).collect::<Result<_>>()?)?, resid))
    }

    /// What each head gathers, within each sequence: (R, H, d_head), (T, H, d_head) each → (R, H, d_head).
    fn gather(&self, l: usize, q: &Tensor, k: &[Tensor], v: &[Tensor], batch: &mut Batch) -> Result<Tensor> {
        let scale = self.config.attn_scale(l);
        let of_each = batch.split(q)?; // (S, H, d_head)
        let all = of_each.par_iter().zip(k).zip(v);
        let z: Vec<_> = if batch.wants(Site::AttnScores.at(l)) || batch.wants(Site::Pattern.at(l)) {
            let scores = all.map(|(((q, first, _), k), _)| self.ops.scores(q, k, *first, scale));
            let scores: Result<_> = scores.collect::<Vec<_>>().into_iter().collect();
            let scores = batch.see_each(Site::AttnScores.at(l), scores?)?; // (H, S, T)
            let pattern: Result<_> = scores.iter().map(|scores| self.ops.softmax(scores)).collect();
            let pattern = batch.see_each(Site::Pattern.at(l), pattern?)?; // (H, S, T)
            pattern.iter().zip(v).map(|(pattern, v)| self.ops.weigh(pattern, v)).collect() // (S, H, d_head)
        } else {
            all.map(|(((q, first, n_queries), k), v)| {
                let n = first + q.dims()[0];
                let (k, v) = (k.narrow(0, 0, n)?, v.narrow(0, 0, n)?);
                self.ops.attention(q, &k, &v, scale, *n_queries) // (S, H, d_head)
            })
            .collect()
        };
        let z = z.into_iter().collect::<Result<Vec<_>>>()?;
        if let [z] = &z[..] { Ok(z.clone()) } else { Ok(Tensor::cat(&z, 0)?) }
    }

    /// What each head writes to the residual stream: (S, H, d_head) → (S, H, C).
    pub(crate) fn results(&self, w: &Block, z: &Tensor) -> Result<Tensor> {
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
