//! Edge attribution patching: which connection between components carries what tells two prompts apart.
//!
//! Every component reads the sum of what all before it wrote, so that each pair of them has an edge. EAP (Syed et al.,
//! 2023) estimates in one backward pass how the metric changes if the edge alone carries what the sender writes in the
//! corrupt prompt: (corrupt − clean) of the sender · ∂m/∂(input of the receiver) in the clean run, over all positions
//! and channels. EAP-IG (Hanna et al., 2024) takes the mean of these gradients where the embeddings are corrupt +
//! k / m · (clean − corrupt), k = 1..m.
//!
//! Heads receive through their queries, keys and values separately, each through its own LayerNorm; the metric is the
//! logit difference of two tokens after the last position.

use std::fmt;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Gradients, Metric, Stop};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Edit, HookFilter, HookName, Hooks, Part, Site};
use crate::model::{Gpt2, LayerNorm};
use crate::run::{Input, Run};

/// A component that writes to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The sum of the embeddings.
    Input,
    Head(usize, usize),
    Mlp(usize),
}

/// What reads the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// The queries, keys or values of a head: [`Site::Q`], [`Site::K`] or [`Site::V`].
    Head(usize, usize, Site),
    Mlp(usize),
    Logits,
}

impl Sender {
    /// All, in the order in which they write.
    pub fn all(config: &Config) -> Vec<Self> {
        let of_block = |l| (0..config.n_head).map(move |h| Self::Head(l, h)).chain([Self::Mlp(l)]);
        std::iter::once(Self::Input).chain((0..config.n_layer).flat_map(of_block)).collect()
    }

    /// The number of those that write before what `to` reads.
    fn before(to: Receiver, config: &Config) -> usize {
        let per_block = config.n_head + 1;
        match to {
            Receiver::Head(l, ..) => 1 + l * per_block,
            Receiver::Mlp(l) => 1 + l * per_block + config.n_head,
            Receiver::Logits => 1 + config.n_layer * per_block,
        }
    }
}

impl Receiver {
    /// All, in the order in which they read.
    pub fn all(config: &Config) -> Vec<Self> {
        (0..config.n_layer).flat_map(|l| Self::of_block(l, config)).chain([Self::Logits]).collect()
    }

    fn of_block(l: usize, config: &Config) -> impl Iterator<Item = Self> + use<> {
        let n_head = config.n_head;
        let heads =
            (0..n_head).flat_map(move |h| [Site::Q, Site::K, Site::V].map(|site| Self::Head(l, h, site)));
        heads.chain([Self::Mlp(l)])
    }
}

/// As the targets of interventions: `head:1.5`, `mlp:3`, `input`.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input => f.pad("input"),
            Self::Head(l, h) => f.pad(&format!("head:{l}.{h}")),
            Self::Mlp(l) => f.pad(&format!("mlp:{l}")),
        }
    }
}

/// The same, with what a head reads through: `head:1.5.q`.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(l, h, site) => f.pad(&format!("head:{l}.{h}.{}", site.point().short)),
            Self::Mlp(l) => f.pad(&format!("mlp:{l}")),
            Self::Logits => f.pad("logits"),
        }
    }
}

/// An edge and how the metric changes if it carries what the corrupt prompt has: the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    pub from: Sender,
    pub to: Receiver,
    pub score: f64,
}

/// Two prompts of equal length, and the tokens whose logits are compared after the last position.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub clean: Input,
    pub corrupt: Input,
    pub token: u32,
    pub versus: Option<u32>,
}

/// The scores of all edges, means over the pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Edges {
    /// The largest by magnitude first.
    pub all: Vec<Edge>,
    /// The mean metric of the clean prompts, and of the corrupt ones.
    pub clean: f64,
    pub corrupt: f64,
    pub n_pairs: usize,
}

/// The metric where only some edges carry what the clean prompt has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept {
    /// The number of edges that do.
    pub edges: usize,
    pub value: f64,
    /// (value − corrupt) / (clean − corrupt): 1 if these edges are all that the clean prompt needs.
    pub faithfulness: f64,
}

/// A pair whose prompts have run.
pub struct Ready {
    clean: Run,
    corrupt: Run,
    metric: Metric,
}

impl Ready {
    /// Runs both prompts of a pair.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn new(model: &std::sync::Arc<crate::Model>, pair: Pair) -> Result<Self> {
        let [clean, corrupt] = [pair.clean, pair.corrupt].map(|input| Run::all(model, input));
        Self::of(clean?, corrupt?, (pair.token, pair.versus))
    }

    /// Of two runs, which kept everything.
    ///
    /// # Errors
    /// [`Error::Usage`] for prompts of different length, for tokens out of range, and for changes: the edges are those
    /// of the model as it is.
    pub fn of(clean: Run, corrupt: Run, (token, versus): (u32, Option<u32>)) -> Result<Self> {
        if !(clean.input.interventions.is_idle() && corrupt.input.interventions.is_idle()) {
            return Err(Error::usage("edges are those of the model without changes: leave the changes out"));
        }
        let (n, n_corrupt) = (clean.n_tokens(), corrupt.n_tokens());
        if n != n_corrupt {
            return Err(Error::usage(format!(
                "the prompts have {n} and {n_corrupt} tokens: edges are compared position by position and need equal \
                 length"
            )));
        }
        let metric = Metric::logit(token, versus, n - 1);
        metric.check(clean.config(), n)?;
        Ok(Self { clean, corrupt, metric })
    }
}

impl Edges {
    /// Scores every edge; with `steps`, by integrated gradients. Before each backward pass, `progress` receives the
    /// number that are done and of all; an error from it ends the computation.
    ///
    /// # Errors
    /// [`Error::Usage`] without pairs; the error of `progress`.
    pub fn new(
        pairs: &[Ready],
        steps: Option<usize>,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let Some(first) = pairs.first() else { return Err(Error::usage("there is no pair of prompts")) };
        let config = first.clean.config();
        let (senders, receivers) = (Sender::all(config), Receiver::all(config));
        let per_pair = steps.unwrap_or(1);
        let mut scores = vec![0f64; senders.len() * receivers.len()];
        let (mut of_clean, mut of_corrupt) = (0.0, 0.0);
        for (i, pair) in pairs.iter().enumerate() {
            of_clean += pair.metric.value(&pair.clean)?;
            of_corrupt += pair.metric.value(&pair.corrupt)?;
            for step in 0..per_pair {
                progress(i * per_pair + step, pairs.len() * per_pair)?;
                let run = match steps {
                    None => pair.clean.clone(),
                    Some(steps) => between(pair, (step + 1) as f64 / steps as f64)?,
                };
                // Where the embeddings were replaced, only gradients after them are asked.
                let gradients = run.pass_back(&pair.metric, Stop::default(), &|| Ok(()))?;
                add_scores(pair, &gradients, &mut scores)?;
            }
        }
        let runs = (pairs.len() * per_pair) as f64;
        let mut all = Vec::new();
        for (to, scores) in receivers.iter().zip(scores.chunks_exact(senders.len())) {
            let before = Sender::before(*to, config);
            let edge = |(from, score): (&Sender, &f64)| Edge { from: *from, to: *to, score: score / runs };
            all.extend(senders.iter().zip(scores).take(before).map(edge));
        }
        all.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
        let n = pairs.len() as f64;
        Ok(Self { all, clean: of_clean / n, corrupt: of_corrupt / n, n_pairs: pairs.len() })
    }

    /// The mean metric where only the `n` largest edges carry what the clean prompt has, and all others what the
    /// corrupt one has.
    ///
    /// # Errors
    /// Those of a run.
    pub fn keep(&self, pairs: &[Ready], n: usize) -> Result<Kept> {
        let mut value = 0.0;
        for pair in pairs {
            let circuit = Circuit::new(pair, &self.all[..n.min(self.all.len())]);
            let config = pair.clean.config();
            let filter = HookFilter::new(&["ln_final_out", "logits"], config)?;
            let run = Run::new(&pair.clean.model, pair.clean.input.clone(), filter, circuit)?;
            value += pair.metric.value(&run)?;
        }
        let value = value / pairs.len().max(1) as f64;
        let faithfulness = (value - self.corrupt) / (self.clean - self.corrupt);
        Ok(Kept { edges: n.min(self.all.len()), value, faithfulness })
    }
}

/// The clean prompt with embeddings between those of the corrupt one (0) and its own (1).
fn between(pair: &Ready, share: f64) -> Result<Run> {
    let resid = Site::ResidPre.at(0);
    let [clean, corrupt] = [&pair.clean, &pair.corrupt].map(|run| run.cache.fetch(resid, &Part::default()));
    let (clean, corrupt) = (clean?, corrupt?);
    let mixed = (&corrupt + ((clean - &corrupt)? * share)?)?;
    let put = move |x: &Tensor| Ok(mixed.to_device(x.device())?.to_dtype(x.dtype())?);
    let keep = HookFilter::all(pair.clean.config());
    Run::new(&pair.clean.model, pair.clean.input.clone(), keep, Edit(resid, put))
}

/// The bytes of what all components wrote that are held at once.
const AT_ONCE: usize = 256 << 20;

/// Adds the scores of one backward pass, receiver by receiver: (receivers, senders).
fn add_scores(pair: &Ready, gradients: &Gradients, scores: &mut [f64]) -> Result<()> {
    let run = &gradients.run;
    let config = run.config();
    let n_senders = Sender::all(config).len();
    let per_row = n_senders * config.n_embd * 4;
    let at_once = (AT_ONCE / per_row.max(1)).clamp(1, run.n_tokens());
    for first in (0..run.n_tokens()).step_by(at_once) {
        let rows = first..run.n_tokens().min(first + at_once);
        let written = [&pair.corrupt, &pair.clean].map(|run| written(run, &rows));
        let [corrupt, clean] = written;
        let difference = (corrupt? - clean?)?; // (senders, S · C)
        let mut done = 0;
        for l in 0..=config.n_layer {
            let of_block = if l == config.n_layer {
                vec![Receiver::Logits]
            } else {
                Receiver::of_block(l, config).collect()
            };
            let g = of_receivers(gradients, l, &rows)?; // (receivers, S · C)
            let products = g.matmul(&difference.t()?)?.to_vec2::<f32>()?; // (receivers, senders)
            let into = scores[done * n_senders..].chunks_exact_mut(n_senders);
            for (into, products) in into.zip(&products) {
                into.iter_mut().zip(products).for_each(|(score, product)| *score += f64::from(*product));
            }
            done += of_block.len();
        }
    }
    Ok(())
}

/// What each component wrote, without biases, which all prompts share: (senders, S · C).
fn written(run: &Run, rows: &Range<usize>) -> Result<Tensor> {
    let (net, config) = (&run.model.net, run.config());
    let part = |site: Site, l: usize| run.cache.fetch(site.near(l), &Part::rows(rows.clone()));
    let flat = (rows.len() * config.n_embd,);
    let mut all = vec![part(Site::ResidPre, 0)?.reshape(flat)?.unsqueeze(0)?];
    for l in 0..config.n_layer {
        let z = part(Site::Z, l)?.to_device(net.device())?.to_dtype(net.dtype())?;
        all.push(by_head(&net.results(&net.blocks[l], &z)?)?); // (H, S · C)
        all.push(part(Site::MlpOut, l)?.reshape(flat)?.unsqueeze(0)?);
    }
    Ok(Tensor::cat(&all, 0)?)
}

/// (S, H, C) → (H, S · C), float32 on the CPU.
fn by_head(x: &Tensor) -> Result<Tensor> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(x.transpose(0, 1)?.contiguous()?.flatten_from(1)?)
}

/// ∂m/∂(input) of each receiver of a block, or of the logits after the last: (receivers, S · C).
fn of_receivers(gradients: &Gradients, l: usize, rows: &Range<usize>) -> Result<Tensor> {
    let (run, net) = (&gradients.run, &gradients.run.model.net);
    let config = run.config();
    let here = |x: Tensor| Ok::<_, Error>(x.to_device(net.device())?.to_dtype(net.dtype())?);
    let part = |hook: HookName| here(gradients.part(hook, &Part::rows(rows.clone()))?);
    let value = |hook: HookName| here(run.cache.fetch(hook, &Part::rows(rows.clone()))?);
    let through = |x: &Tensor, ln: &LayerNorm, g: &Tensor| -> Result<Tensor> {
        let g = net.ops.layer_norm_back(x, ln, g)?;
        Ok(g.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.unsqueeze(0)?)
    };
    if l == config.n_layer {
        let x = value(Site::ResidPost.at(l - 1))?;
        return through(&x, &net.ln_f, &part(Site::LnFinalOut.once())?);
    }
    let block = &net.blocks[l];
    let w = block.c_attn.weight()?; // (C, 3 C)
    let (c, d_head) = (config.n_embd, config.d_head());
    let x = value(Site::ResidPre.at(l))?;
    let of_each = [Site::Q, Site::K, Site::V].map(|site| part(site.at(l)));
    let mut all = Vec::new();
    for h in 0..config.n_head {
        for (i, g) in of_each.iter().enumerate() {
            let g = g.as_ref().map_err(|why| Error::usage(why.to_string()))?;
            let g = g.narrow(1, h, 1)?.squeeze(1)?.contiguous()?; // (S, d_head)
            let w = w.narrow(1, i * c + h * d_head, d_head)?; // (C, d_head)
            all.push(through(&x, &block.ln_1, &g.matmul(&w.t()?.contiguous()?)?)?);
        }
    }
    all.push(through(&value(Site::ResidMid.at(l))?, &block.ln_2, &part(Site::Ln2Out.at(l))?)?);
    Ok(Tensor::cat(&all, 0)?)
}

/// A forward pass in which only some edges carry what the pass computes, and all others what the corrupt prompt has:
/// every receiver reads its own sum.
struct Circuit<'a> {
    net: &'a Gpt2,
    corrupt: &'a Run,
    /// For each receiver, 1 for senders whose edge is cut: (receivers, senders).
    cut: Vec<Vec<f32>>,
    /// What each sender so far wrote in the corrupt prompt minus what it writes in this pass: (1, T · C) each.
    changed: Vec<Tensor>,
    resid: Option<Tensor>,
}

impl<'a> Circuit<'a> {
    fn new(pair: &'a Ready, kept: &[Edge]) -> Self {
        let config = pair.clean.config();
        let (senders, receivers) = (Sender::all(config), Receiver::all(config));
        let index_of = |all: &[Sender], from: Sender| all.iter().position(|one| *one == from);
        let mut cut = vec![vec![1f32; senders.len()]; receivers.len()];
        for edge in kept {
            let to = receivers.iter().position(|to| *to == edge.to);
            if let Some((to, from)) = to.zip(index_of(&senders, edge.from)) {
                cut[to][from] = 0.0;
            }
        }
        Self { net: &pair.clean.model.net, corrupt: &pair.corrupt, cut, changed: Vec::new(), resid: None }
    }

    fn here(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.to_device(self.net.device())?.to_dtype(self.net.dtype())?)
    }

    fn corrupt(&self, site: Site, l: usize) -> Result<Tensor> {
        self.here(&self.corrupt.cache.fetch(site.near(l), &Part::default())?)
    }

    /// What the receivers from number `first` on read: (n, T, C).
    fn read(&self, first: usize, n: usize) -> Result<Tensor> {
        let resid = self.resid.as_ref().ok_or_else(|| Error::usage("nothing was written yet"))?;
        let (t, c) = resid.dims2()?;
        let senders = self.changed.len();
        let cut: Vec<f32> =
            self.cut[first..first + n].iter().flat_map(|row| &row[..senders]).copied().collect();
        let cut = self.here(&Tensor::from_vec(cut, (n, senders), &Device::Cpu)?)?;
        let added = cut.matmul(&Tensor::cat(&self.changed, 0)?)?.reshape((n, t, c))?;
        Ok(added.broadcast_add(resid)?)
    }

    /// What is written here in place of what the corrupt prompt wrote; the stream goes on with it.
    fn wrote(&mut self, x: &Tensor, in_corrupt: &Tensor) -> Result<()> {
        self.changed.push((in_corrupt - x)?.flatten_all()?.unsqueeze(0)?);
        Ok(())
    }

    /// The number of the first receiver of a block.
    fn first_of(&self, l: usize) -> usize {
        l * (3 * self.net.config.n_head + 1)
    }
}

impl Hooks for Circuit<'_> {
    fn wants(&self, name: HookName) -> bool {
        matches!(
            name.site,
            Site::ResidPre
                | Site::Q
                | Site::K
                | Site::V
                | Site::Z
                | Site::ResidMid
                | Site::Ln2Out
                | Site::MlpOut
                | Site::ResidPost
                | Site::LnFinalOut
        )
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let (config, net) = (&self.net.config, self.net);
        let (n_head, d_head, c) = (config.n_head, config.d_head(), config.n_embd);
        let l = name.layer.unwrap_or(config.n_layer);
        match name.site {
            Site::ResidPre => {
                if l == 0 {
                    let in_corrupt = self.corrupt(Site::ResidPre, 0)?;
                    self.wrote(x, &in_corrupt)?;
                }
                self.resid = Some(x.clone());
                Ok(None)
            }
            Site::Q | Site::K | Site::V => {
                let which =
                    [Site::Q, Site::K, Site::V].iter().position(|site| *site == name.site).unwrap_or(0);
                let block = &net.blocks[l];
                let mut heads = Vec::with_capacity(n_head);
                for h in 0..n_head {
                    let x = self.read(self.first_of(l) + 3 * h + which, 1)?.squeeze(0)?; // (T, C)
                    let x = net.ops.layer_norm(&x, &block.ln_1)?;
                    let start = which * c + h * d_head;
                    heads.push(net.ops.linear_part(&x, &block.c_attn, start, (x.dims()[0], 1, d_head))?);
                }
                Ok(Some(Tensor::cat(&heads, 1)?.contiguous()?)) // (T, H, d_head)
            }
            Site::Z => {
                let block = &net.blocks[l];
                let [of_corrupt, here] =
                    [self.corrupt(Site::Z, l)?, x.clone()].map(|z| net.results(block, &z));
                let (of_corrupt, here) = (of_corrupt?, here?); // (T, H, C)
                for h in 0..n_head {
                    let of = |x: &Tensor| x.narrow(1, h, 1)?.contiguous();
                    self.wrote(&of(&here)?, &of(&of_corrupt)?)?;
                }
                Ok(None)
            }
            Site::ResidMid | Site::ResidPost => {
                self.resid = Some(x.clone());
                Ok(None)
            }
            Site::Ln2Out => {
                let x = self.read(self.first_of(l) + 3 * n_head, 1)?.squeeze(0)?;
                net.ops.layer_norm(&x, &net.blocks[l].ln_2).map(Some)
            }
            Site::MlpOut => {
                let in_corrupt = self.corrupt(Site::MlpOut, l)?;
                self.wrote(x, &in_corrupt)?;
                Ok(None)
            }
            _ => {
                let x = self.read(self.first_of(l), 1)?.squeeze(0)?;
                net.ops.layer_norm(&x, &net.ln_f).map(Some)
            }
        }
    }
}
