//! Direct logit attribution: how much each component contributes to a logit.
//!
//! The input of the final LayerNorm is the sum of what the components wrote, x = Σ xᵢ. With its scale
//! σ frozen, LayerNorm is linear except for its bias, so the logit of token A is a sum
//! too: Σ (xᵢ − mean(xᵢ)) / σ · (w ⊙ W_U\[A\]) + b · W_U\[A\], with w and b those of ln_f.
//! Centring is moved to the other side: every part is xᵢ · d with one direction d,
//! (w ⊙ W_U\[A\] − its mean) / σ. For the difference of two tokens, W_U\[A\] − W_U\[B\] replaces
//! W_U\[A\]. The weights are as in the checkpoint: nothing is folded.

use std::fmt;

use candle_core::Tensor;
use rayon::prelude::*;

use super::View;
use super::base::{DIFFERENCE, Minus, WithBase};
use super::gradients::{Metric, products};
use super::logits::{Next, logits_after};
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Quantity, Site};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::picture::matrix::dot;
use crate::run::Run;
use crate::text::num;

/// A component that writes to the residual stream; biases are separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// The token's row of wte.
    Embed,
    /// The position's row of wpe.
    PosEmbed,
    /// z · W_O of a head, without b_O.
    Head(usize, usize),
    /// b_O of a block.
    AttnBias(usize),
    /// post · W_out of a block, without b_out.
    Mlp(usize),
    /// b_out of a block.
    MlpBias(usize),
    /// The effect of interventions on the residual stream of a block: what the stream
    /// gained there beyond the outputs of the components.
    Change(usize),
    /// The effect of interventions after the last block: on the final LayerNorm or on the logits.
    FinalChange,
    /// The bias of ln_f, which adds to the logit without being in the residual stream.
    LnFinalBias,
}

impl Component {
    /// Every component of an unchanged model, in data-flow order.
    pub fn all(n_layer: usize, n_head: usize) -> Vec<Self> {
        let of_block = |l| {
            let heads = (0..n_head).map(move |h| Self::Head(l, h));
            heads.chain([Self::AttnBias(l), Self::Mlp(l), Self::MlpBias(l)])
        };
        let blocks = (0..n_layer).flat_map(of_block);
        [Self::Embed, Self::PosEmbed].into_iter().chain(blocks).chain([Self::LnFinalBias]).collect()
    }

    /// As in JSON: `embed`, `pos_embed`, `head`, `attn_bias`, `mlp`, `mlp_bias`, `intervention` (without
    /// a layer: after the last block), `ln_final_bias`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::PosEmbed => "pos_embed",
            Self::Head(..) => "head",
            Self::AttnBias(_) => "attn_bias",
            Self::Mlp(_) => "mlp",
            Self::MlpBias(_) => "mlp_bias",
            Self::Change(_) | Self::FinalChange => "intervention",
            Self::LnFinalBias => "ln_final_bias",
        }
    }

    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Head(layer, _)
            | Self::AttnBias(layer)
            | Self::Mlp(layer)
            | Self::MlpBias(layer)
            | Self::Change(layer) => Some(layer),
            _ => None,
        }
    }

    pub fn head(self) -> Option<usize> {
        match self {
            Self::Head(_, head) => Some(head),
            _ => None,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Embed => "embed".to_owned(),
            Self::PosEmbed => "pos embed".to_owned(),
            Self::Head(layer, head) => format!("head {layer}.{head}"),
            Self::AttnBias(layer) => format!("b_O {layer}"),
            Self::Mlp(layer) => format!("MLP {layer}"),
            Self::MlpBias(layer) => format!("b_out {layer}"),
            Self::Change(layer) => format!("what if {layer}"),
            Self::FinalChange => "what if end".to_owned(),
            Self::LnFinalBias => "ln_f bias".to_owned(),
        };
        f.pad(&text)
    }
}

/// The contribution of one component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contribution {
    pub component: Component,
    pub value: f64,
}

/// A logit, or the difference of two, as the sum of the components' contributions.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    pub position: usize,
    pub token: u32,
    /// The token whose logit is subtracted, if any.
    pub versus: Option<u32>,
    /// The logit of `token` in the run, minus that of `versus`.
    pub logit: f64,
    /// In data-flow order.
    pub parts: Vec<Contribution>,
    /// logit − Σ parts: rounding; 0 if interventions act after the last block, whose part takes the rest.
    pub residue: f64,
}

/// The contribution of one neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neuron {
    pub neuron: usize,
    /// Its value after the activation function.
    pub post: f32,
    /// post · W_out\[neuron\], into the direction of the logit.
    pub value: f64,
}

/// Part by part; parts that only the changed run has, its interventions, count in full.
impl Minus for Attribution {
    fn minus(&self, base: &Self) -> Self {
        let part = |part: &Contribution| Contribution {
            value: part.value - base.value(part.component).unwrap_or(0.0),
            ..*part
        };
        Self {
            logit: self.logit - base.logit,
            parts: self.parts.iter().map(part).collect(),
            residue: self.residue - base.residue,
            ..self.clone()
        }
    }
}

impl Minus for Neuron {
    fn minus(&self, base: &Self) -> Self {
        Self { post: self.post - base.post, value: self.value - base.value, ..*self }
    }
}

impl Attribution {
    /// The hooks that a run must have kept.
    pub const HOOKS: [&'static str; 7] =
        ["embed", "pos_embed", "z.*", "post.*", "resid_post.*", "ln_final_scale", "logits"];

    /// The contributions to the logit of `token` at `position`, by default the likeliest token.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position or token out of range, or tensors that were not kept.
    pub fn new(run: &Run, position: usize, token: Option<u32>, versus: Option<u32>) -> Result<Self> {
        let likeliest = Next::new(run, position, 1)?.top[0].id;
        let token = token.unwrap_or(likeliest);
        let direction = Direction::new(run, position, token, versus)?;
        let logits = logits_after(run, position)?;
        let of = |id: u32| f64::from(logits[id as usize]);
        let logit = of(token) - versus.map_or(0.0, of);

        let row = |site: Site| -> Result<_> {
            Ok(View::hook(site.once(), 0).rows(run, position..position + 1)?.row(0))
        };
        let part = |component, value| Contribution { component, value };
        let mut parts = vec![
            part(Component::Embed, dot(&row(Site::Embed)?, &direction.d)),
            part(Component::PosEmbed, dot(&row(Site::PosEmbed)?, &direction.d)),
        ];
        let layers = (0..run.config().n_layer).into_par_iter().map(|l| direction.block(run, l));
        let changed = !run.input.interventions.is_idle();
        let mut before: f64 = parts.iter().map(|part| part.value).sum();
        for (l, of_block) in layers.collect::<Result<Vec<_>>>()?.into_iter().enumerate() {
            let written: f64 = of_block.iter().map(|part| part.value).sum();
            parts.extend(of_block);
            if changed {
                let resid = View::hook(Site::ResidPost.at(l), 0).rows(run, position..position + 1)?.row(0);
                let after = dot(&resid, &direction.d);
                parts.push(part(Component::Change(l), after - before - written));
                before = after;
            }
        }
        parts.push(part(Component::LnFinalBias, direction.ln_bias));
        let mut residue = logit - parts.iter().map(|part| part.value).sum::<f64>();
        if run.input.interventions.act_in(Site::LnFinalScale.once()..=Site::Logits.once()) {
            parts.push(part(Component::FinalChange, std::mem::take(&mut residue)));
        }
        Ok(Self { position, token, versus, logit, parts, residue })
    }

    /// What wrote a logit of `run`, and of its base, if there is one: where no token is chosen, the one
    /// that is likeliest there in the base.
    pub fn with_base(
        run: &Run,
        base: Option<&Run>,
        position: usize,
        token: Option<u32>,
        versus: Option<u32>,
    ) -> Result<WithBase<Self>> {
        WithBase::ask(run, base, |run, base| {
            Self::new(run, position, token.or(base.map(|base: &Self| base.token)), versus)
        })
    }

    /// The metric whose parts these are.
    pub fn metric(&self) -> Metric {
        Metric::logit(self.token, self.versus, self.position)
    }

    /// The first-order total effect of each part, in their order: what it wrote at all positions times the gradient
    /// there, so through everything that reads it and not only the final LayerNorm and the unembedding. It is how much
    /// the logit would fall if the part were taken away and everything were linear. `None` for interventions.
    ///
    /// # Errors
    /// As [`Run::gradients`].
    pub fn totals(&self, run: &Run) -> Result<Vec<Option<f64>>> {
        let gradients = run.gradients(&self.metric())?;
        let block = |l: usize| &run.model.net.blocks[l];
        let product = |hook: HookName| -> Result<Vec<f64>> {
            let x = run.cache.fetch(hook, &Part::default())?;
            products(&x, &gradients.part(hook, &Part::default())?)
        };
        // A bias is written at every position, before the changes of its tensor.
        let of_bias = |hook: HookName, bias: &Tensor| -> Result<f64> {
            let g = Matrix::of(&gradients.before_changes(hook)?.sum_keepdim(0)?)?.row(0);
            Ok(dot(&values(bias)?, &g.into_iter().map(f64::from).collect::<Vec<_>>()))
        };
        let total = |part: &Contribution| -> Result<Option<f64>> {
            Ok(Some(match part.component {
                Component::Embed => product(Site::Embed.once())?.iter().sum(),
                Component::PosEmbed => product(Site::PosEmbed.once())?.iter().sum(),
                Component::Head(l, h) => {
                    let head = Part::head(h);
                    let x = run.cache.fetch(Site::Z.at(l), &head)?;
                    products(&x, &gradients.part(Site::Z.at(l), &head)?)?.iter().sum()
                }
                Component::AttnBias(l) => of_bias(Site::AttnOut.at(l), &block(l).attn_proj.bias)?,
                Component::Mlp(l) => product(Site::MlpPost.at(l))?.iter().sum(),
                Component::MlpBias(l) => of_bias(Site::MlpOut.at(l), &block(l).mlp_proj.bias)?,
                Component::LnFinalBias => of_bias(Site::LnFinalOut.once(), &run.model.net.ln_f.bias)?,
                Component::Change(_) | Component::FinalChange => return Ok(None),
            }))
        };
        self.parts.iter().map(total).collect()
    }

    /// The parts by magnitude, largest first; NaN before all others.
    pub fn ranked(&self) -> Vec<Contribution> {
        let mut parts = self.parts.clone();
        parts.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        parts
    }

    /// Whether interventions acted on the run.
    pub fn is_changed(&self) -> bool {
        self.value(Component::Change(0)).is_some()
    }

    pub fn value(&self, component: Component) -> Option<f64> {
        self.parts.iter().find(|part| part.component == component).map(|part| part.value)
    }

    /// Blocks × components, as a picture with labels; `run` is the run of this result.
    pub fn chart(&self, run: &Run) -> Chart {
        let (n_layer, n_head) = (run.config().n_layer, run.config().n_head);
        // MLPs write most, so they come first.
        let mut names = vec!["MLP".to_owned()];
        names.extend((0..n_head).map(|h| format!("h{h}")));
        names.extend(["b_O", "b_out"].map(String::from));
        if self.is_changed() {
            names.push("what if".into());
        }
        let n_columns = names.len();
        let of_block = |part: &&Contribution| part.component.layer().is_some();
        let blocks: Vec<f32> = self.parts.iter().filter(of_block).map(|part| part.value as f32).collect();
        let mut values = Vec::with_capacity(blocks.len());
        for block in blocks.chunks(n_columns) {
            // Of heads, b_O, MLP and the rest.
            values.extend(block[n_head + 1..].iter().take(1));
            values.extend(&block[..=n_head]);
            values.extend(&block[n_head + 2..]);
        }
        let show = |id: u32| run.model.tokenizer.show(id);
        let versus = self.versus.map_or_else(String::new, |id| format!(" minus that of {}", show(id)));
        let outside = self.parts.iter().filter(|part| !of_block(part));
        let outside: Vec<_> =
            outside.map(|part| format!("{} {}", part.component, num(part.value as f32))).collect();
        Chart {
            title: format!(
                "contributions to the logit of {}{versus} after {} (position {})",
                show(self.token),
                run.token_text(self.position),
                self.position
            ),
            doc: format!(
                "logit {} = sum of the cells + {} + residue {}",
                num(self.logit as f32),
                outside.join(" + "),
                num(self.residue as f32)
            ),
            formula: "(x − mean(x)) / ln_f scale · (ln_f weight ⊙ W_U[token]), x: the output of a component"
                .into(),
            rows: Labels::numbered("block"),
            columns: Labels::named("component", names),
            values: Matrix::new(values, n_layer, n_columns)
                .expect("every block has the same number of parts"),
            quantity: Quantity::Signed,
            limit: None,
            texts: Vec::new(),
        }
    }

    /// The contribution of each neuron of block `layer`.
    fn all_neurons(&self, run: &Run, layer: usize) -> Result<Vec<Neuron>> {
        Error::check("layer", layer, 0..run.config().n_layer)?;
        let direction = Direction::new(run, self.position, self.token, self.versus)?;
        let post = View::hook(Site::MlpPost.at(layer), 0).rows(run, self.position..self.position + 1)?.row(0);
        let written = direction.through(&run.model.net.blocks[layer].mlp_proj.weight()?)?;
        let neuron =
            |(neuron, (post, w)): (usize, (f32, f64))| Neuron { neuron, post, value: f64::from(post) * w };
        Ok(post.into_iter().zip(written).enumerate().map(neuron).collect())
    }

    /// The `k` neurons of block `layer` with the largest contributions, by magnitude, largest first.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer out of range, or tensors that were not kept.
    pub fn neurons(&self, run: &Run, layer: usize, k: usize) -> Result<Vec<Neuron>> {
        Ok(largest(self.all_neurons(run, layer)?, k, |n| *n))
    }
}

impl WithBase<Attribution> {
    /// See [`Attribution::chart`]; a difference has the interventions as a separate part.
    pub fn chart(&self, run: &Run) -> Chart {
        let chart = self.shown(Attribution::clone).chart(run);
        let difference = if self.differs() { format!(", {DIFFERENCE}") } else { String::new() };
        Chart { title: format!("{}{difference}", chart.title), ..chart }
    }

    /// The same of this and of the base: those whose share differs most.
    pub fn neurons(
        &self,
        (run, base): (&Run, Option<&Run>),
        layer: usize,
        k: usize,
    ) -> Result<Vec<WithBase<Neuron>>> {
        let all = self.of.all_neurons(run, layer)?;
        let mut base = match (&self.base, base) {
            (Some(of), Some(run)) => of.all_neurons(run, layer)?.into_iter(),
            _ => Vec::new().into_iter(),
        };
        let all = all.into_iter().map(|of| WithBase { of, base: base.next() }).collect();
        Ok(largest(all, k, |n| n.shown(|n| *n)))
    }
}

/// The `k` largest contributions by magnitude, largest first.
fn largest<T>(mut all: Vec<T>, k: usize, wrote: impl Fn(&T) -> Neuron) -> Vec<T> {
    let key = |of: &T| (wrote(of).value.abs(), wrote(of).neuron);
    all.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
    });
    all.truncate(k);
    all
}

/// The direction that gives the logit from the residual stream at one position.
pub(super) struct Direction {
    position: usize,
    /// (C)
    pub d: Vec<f64>,
    /// The contribution of the bias of ln_f.
    ln_bias: f64,
}

impl Direction {
    pub fn new(run: &Run, position: usize, token: u32, versus: Option<u32>) -> Result<Self> {
        let net = &run.model.net;
        for id in [Some(token), versus].into_iter().flatten() {
            net.check_ids(&[id])?;
        }
        let column = |id: u32| Ok::<_, Error>(Matrix::of(&net.unembed.rows(&[id])?)?.row(0)); // (C)
        let mut u: Vec<f64> = column(token)?.into_iter().map(f64::from).collect();
        if let Some(versus) = versus {
            u.iter_mut().zip(column(versus)?).for_each(|(u, v)| *u -= f64::from(v));
        }
        let ln_bias = dot(&values(&net.ln_f.bias)?, &u);
        let scale = View::hook(Site::LnFinalScale.once(), 0).rows(run, position..position + 1)?.row(0)[0];
        let weight = values(&net.ln_f.weight)?;
        let mut d: Vec<f64> =
            u.iter().zip(weight).map(|(u, w)| u * f64::from(w) / f64::from(scale)).collect();
        let mean = d.iter().sum::<f64>() / d.len() as f64;
        for d in &mut d {
            *d -= mean;
        }
        Ok(Self { position, d, ln_bias })
    }

    /// The direction seen through the rows of a matrix: (n, C) → (n).
    pub fn through(&self, weight: &candle_core::Tensor) -> Result<Vec<f64>> {
        Ok(Matrix::of(weight)?.times(&self.d))
    }

    /// The contributions of the components of a block.
    fn block(&self, run: &Run, l: usize) -> Result<Vec<Contribution>> {
        let block = &run.model.net.blocks[l];
        let n_head = run.config().n_head;
        let d_head = run.config().d_head();
        let row = |site: Site, head| -> Result<_> {
            Ok(View::hook(site.at(l), head).rows(run, self.position..self.position + 1)?.row(0))
        };
        let part = |component, value| Contribution { component, value };

        let w_o = self.through(&block.attn_proj.weight()?)?; // (C): heads one after the other
        let head = |h: usize| {
            let z = row(Site::Z, h)?; // (d_head)
            Ok(part(Component::Head(l, h), dot(&z, &w_o[h * d_head..][..d_head])))
        };
        let mut parts: Vec<_> = (0..n_head).map(head).collect::<Result<_>>()?;
        parts.push(part(Component::AttnBias(l), dot(&values(&block.attn_proj.bias)?, &self.d)));
        let w_out = self.through(&block.mlp_proj.weight()?)?; // (n_inner)
        parts.push(part(Component::Mlp(l), dot(&row(Site::MlpPost, 0)?, &w_out)));
        parts.push(part(Component::MlpBias(l), dot(&values(&block.mlp_proj.bias)?, &self.d)));
        Ok(parts)
    }
}

/// The values of a weight with one axis.
fn values(weight: &candle_core::Tensor) -> Result<Vec<f32>> {
    Ok(Matrix::of(&weight.unsqueeze(0)?)?.row(0))
}
