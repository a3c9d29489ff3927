//! The backward pass, written as the forward pass is: the chain rule, hook by hook, from the logits to the
//! embeddings.
//!
//! g(x) = ∂m/∂x is the gradient of the metric m with respect to the tensor x of a hook as it goes on: after the
//! changes of it, which is the value that the run holds. What a change passes on is the gradient before it: that
//! of what the formula of the hook computed. An absent gradient is 0: nothing that the metric reads follows from
//! the tensor.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{D, Tensor};

use super::Stop;
use super::metric::Metric;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks, Part, Site};
use crate::interventions::Changes;
use crate::model::LayerNorm;
use crate::run::Run;

/// A gradient; `None` is 0.
pub type Gradient = Option<Tensor>;

/// Gradients of a metric in a run, on the device of the network and in its format.
pub struct Backward<'a> {
    pub run: &'a Run,
    pub metric: &'a Metric,
    pub changes: &'a Changes,
    pub stop: Stop,
    /// Those that are known.
    known: RefCell<BTreeMap<HookName, Gradient>>,
    /// What attention of a block passes on to its q, k and v, computed together.
    of_qkv: RefCell<Option<(usize, [Tensor; 3])>>,
}

impl<'a> Backward<'a> {
    pub fn new(run: &'a Run, metric: &'a Metric, changes: &'a Changes, stop: Stop) -> Self {
        Self { run, metric, changes, stop, known: RefCell::default(), of_qkv: RefCell::default() }
    }

    /// The same, from where gradients of another pass are known.
    #[must_use]
    pub fn knowing(self, known: BTreeMap<HookName, Gradient>) -> Self {
        Self { known: RefCell::new(known), ..self }
    }

    /// The metric, whose gradient for the output of `ln_f` is then known where it follows from the same logits.
    pub fn of_metric(&self) -> Result<f64> {
        if !self.is_of_logits_alone() {
            return self.metric.value(self.run);
        }
        let Some((value, g)) = self.metric.of_unembedded(self.run)? else {
            return self.metric.value(self.run);
        };
        let out = Site::LnFinalOut.once();
        let g = self.sum(Some(g), self.metric.reads(out, self.run)?)?;
        self.known.borrow_mut().insert(out, g);
        Ok(value)
    }

    /// Forgets the gradients of other hooks.
    pub fn keep_only(&self, keep: impl Fn(HookName) -> bool) {
        self.known.borrow_mut().retain(|name, _| keep(*name));
        self.of_qkv.borrow_mut().take();
    }

    pub fn into_known(self) -> BTreeMap<HookName, Gradient> {
        self.known.into_inner()
    }

    /// g(x): what the metric itself reads of the tensor, and what all that follows from it passes on.
    pub fn of(&self, name: HookName) -> Result<Gradient> {
        if let Some(known) = self.known.borrow().get(&name) {
            return Ok(known.clone());
        }
        let of_metric = self.metric.reads(name, self.run)?.map(|g| self.here(&g)).transpose()?;
        // A transcoder whose features are changed reads it, too.
        let of_features = self.changes.back_to_read(name, &|writes| self.of(writes))?;
        let of_features = of_features.map(|g| self.here(&g)).transpose()?;
        let g = self.sum(self.sum(of_metric, of_features)?, self.passed_on(name)?)?;
        self.known.borrow_mut().insert(name, g.clone());
        Ok(g)
    }

    /// The gradient of what the formula of a hook computed: g(x) before the changes of x.
    fn before(&self, name: HookName) -> Result<Gradient> {
        let Some(g) = self.of(name)? else { return Ok(None) };
        if self.changes.wants(name) { self.changes.back(name, &g).map(Some) } else { Ok(Some(g)) }
    }

    /// One line per hook: what those that are computed from it pass on.
    fn passed_on(&self, name: HookName) -> Result<Gradient> {
        let (net, ops, config) = (&self.run.model.net, &self.run.model.net.ops, self.run.config());
        let last = config.n_layer - 1;
        let l = name.layer.unwrap_or(last);
        let (w, act) = (&net.blocks[l], config.activation_function);
        let g = |site: Site| self.before(site.near(l));
        let then = |site: Site, f: &dyn Fn(&Tensor) -> Result<Tensor>| g(site)?.as_ref().map(f).transpose();
        match name.site {
            Site::Probs => Ok(None),
            Site::Logits => then(Site::Probs, &|g| {
                ops.softmax_back(&ops.softmax(&self.value(name)?)?, g) // p ⊙ (g − Σ g ⊙ p): (T, V)
            }),
            Site::LnFinalOut => self.through_unembedding(), // g · W_Uᵀ: (T, C)
            Site::LnFinalNormalized => then(Site::LnFinalOut, &|g| weighed(g, &net.ln_f)), // g ⊙ w: (T, C)
            Site::LnFinalScale => self.through_division(LN_FINAL, l, &net.ln_f), // (T, 1)
            Site::ResidPost if l == last => self.through_layer_norm(LN_FINAL, l, &net.ln_f), // (T, C)

            Site::ResidPost => self.before(Site::ResidPre.at(l + 1)), // (T, C)
            Site::MlpOut => g(Site::ResidPost),                       // (T, C)
            Site::MlpPost => then(Site::MlpOut, &|g| ops.linear_back(g, &w.mlp_proj)), // g · W_outᵀ: (T, n_inner)
            Site::MlpPre => then(Site::MlpPost, &|g| {
                ops.activation_back(act, &self.value(name)?, g) // act′(pre) ⊙ g: (T, n_inner)
            }),
            Site::Ln2Out => then(Site::MlpPre, &|g| ops.linear_back(g, &w.c_fc)), // g · W_inᵀ: (T, C)
            Site::Ln2Normalized => then(Site::Ln2Out, &|g| weighed(g, &w.ln_2)),  // g ⊙ w: (T, C)
            Site::Ln2Scale => self.through_division(LN_2, l, &w.ln_2),            // (T, 1)
            Site::ResidMid => self.sum(g(Site::ResidPost)?, self.through_layer_norm(LN_2, l, &w.ln_2)?), // (T, C)

            Site::AttnOut => g(Site::ResidMid), // (T, C)
            Site::Result => then(Site::AttnOut, &|g| {
                Ok(g.unsqueeze(1)?.repeat((1, config.n_head, 1))?) // (T, H, C)
            }),
            Site::Z => self.through_projection(l), // g · W_Oᵀ: (T, H, d_head)
            Site::Pattern => then(Site::Z, &|g| {
                let (g, v) = (by_head(g)?, by_head(&self.value(Site::V.at(l))?)?);
                Ok(g.matmul(&v.t()?)?) // g · vᵀ: (H, T, T)
            }),
            Site::AttnScores if self.stop.pattern => Ok(None),
            Site::AttnScores => then(Site::Pattern, &|g| {
                ops.softmax_back(&self.value(Site::Pattern.at(l))?, g) // p ⊙ (g − Σ g ⊙ p): (H, T, T)
            }),
            Site::Q | Site::K | Site::V => self.through_attention(name.site, l), // (T, H, d_head)
            Site::Ln1Out => {
                let g = side_by_side(&[g(Site::Q)?, g(Site::K)?, g(Site::V)?])?; // (T, 3 C)
                g.map(|g| ops.linear_back(&g, &w.c_attn)).transpose() // g · W_QKVᵀ: (T, C)
            }
            Site::Ln1Normalized => then(Site::Ln1Out, &|g| weighed(g, &w.ln_1)), // g ⊙ w: (T, C)
            Site::Ln1Scale => self.through_division(LN_1, l, &w.ln_1),           // (T, 1)
            Site::ResidPre => self.sum(g(Site::ResidMid)?, self.through_layer_norm(LN_1, l, &w.ln_1)?), // (T, C)
            Site::Embed | Site::PosEmbed => self.before(Site::ResidPre.at(0)), // (T, C)
        }
    }

    /// Whether the metric reads the logits as the unembedding made them, so that their gradients need not be held.
    pub fn is_of_logits_alone(&self) -> bool {
        let [logits, probs] = [Site::Logits, Site::Probs].map(Site::once);
        !(self.changes.wants(logits) || self.metric.is_value_of(logits) || self.metric.is_value_of(probs))
    }

    /// What the metric passes to the output of `ln_f`, (T, C).
    fn through_unembedding(&self) -> Result<Gradient> {
        let net = &self.run.model.net;
        if self.is_of_logits_alone() {
            return Ok(self.metric.of_unembedded(self.run)?.map(|(_, g)| g));
        }
        let g = self.before(Site::Logits.once())?;
        g.map(|g| net.ops.logits_back(&g, &net.unembed)).transpose()
    }

    /// To the input x of a LayerNorm, through its division and its scale: (T, C).
    fn through_layer_norm(&self, names: [Site; 3], l: usize, ln: &LayerNorm) -> Result<Gradient> {
        let ops = &self.run.model.net.ops;
        let [scale, normalized, out] = names.map(|site| site.near(l));
        let x = || self.value(self.input_of(names, l));
        let steps = [scale, normalized].iter().any(|&name| self.is_touched(name)) || self.stop.scale;
        if !steps {
            let g = self.before(out)?;
            return g.map(|g| ops.layer_norm_back(&x()?, ln, &g)).transpose();
        }
        let of_normalized = self.before(normalized)?;
        let of_scale = if self.stop.scale { None } else { self.before(scale)? };
        if of_normalized.is_none() && of_scale.is_none() {
            return Ok(None);
        }
        let (centred, made) = ops.center(&x()?, ln)?; // (T, C), (T, 1)
        let by_division = of_normalized.map(|g| {
            let g = g.broadcast_div(&self.value(scale)?)?;
            Ok::<_, Error>(g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?) // (g − mean(g)) / scale
        });
        let by_scale = of_scale.map(|g| {
            let slope = centred.broadcast_div(&(made * ln.weight.dims()[0] as f64)?)?;
            Ok::<_, Error>(slope.broadcast_mul(&g)?) // g · (x − mean) / (C · scale)
        });
        self.sum(by_division.transpose()?, by_scale.transpose()?)
    }

    /// To the scale of a LayerNorm, which divides: −Σ g ⊙ (x − mean) / scale², (T, 1).
    fn through_division(&self, names: [Site; 3], l: usize, ln: &LayerNorm) -> Result<Gradient> {
        let [scale, normalized, _] = names.map(|site| site.near(l));
        let Some(g) = self.before(normalized)? else { return Ok(None) };
        let (centred, _) = self.run.model.net.ops.center(&self.value(self.input_of(names, l))?, ln)?;
        let sum = (g * centred)?.sum_keepdim(D::Minus1)?;
        Ok(Some((sum / self.value(scale)?.sqr()?)?.neg()?))
    }

    /// To what the heads gathered, (T, H, d_head).
    fn through_projection(&self, l: usize) -> Result<Gradient> {
        let (net, config, result) = (&self.run.model.net, self.run.config(), Site::Result.at(l));
        let (n_head, d_head, proj) = (config.n_head, config.d_head(), &net.blocks[l].attn_proj);
        if !self.is_touched(result) {
            let Some(g) = self.before(Site::AttnOut.at(l))? else { return Ok(None) };
            return Ok(Some(net.ops.linear_back(&g, proj)?.reshape(((), n_head, d_head))?));
        }
        let Some(g) = self.before(result)? else { return Ok(None) };
        let w_o = proj.weight()?.reshape((n_head, d_head, config.n_embd))?; // (H, d_head, C)
        Ok(Some(by_head(&g)?.matmul(&w_o.t()?)?.transpose(0, 1)?.contiguous()?))
    }

    /// To the queries, keys or values, (T, H, d_head): patternᵀ · g to v, and through the scores to q and k.
    fn through_attention(&self, site: Site, l: usize) -> Result<Gradient> {
        let (ops, scale) = (&self.run.model.net.ops, self.run.config().attn_scale(l));
        let (scores, pattern) = (Site::AttnScores.at(l), Site::Pattern.at(l));
        let value = |site: Site| self.value(site.at(l));
        let steps = self.is_touched(scores) || self.is_touched(pattern) || self.stop.pattern;
        if !steps {
            let Some(g) = self.before(Site::Z.at(l))? else { return Ok(None) };
            let mut known = self.of_qkv.borrow_mut();
            if known.as_ref().is_none_or(|(layer, _)| *layer != l) {
                let [q, k, v] = [Site::Q, Site::K, Site::V].map(value);
                *known = Some((l, ops.attention_back(&q?, &k?, &v?, &g, scale)?));
            }
            let of = known.as_ref().map(|(_, [q, k, v])| match site {
                Site::Q => q,
                Site::K => k,
                _ => v,
            });
            return Ok(of.cloned());
        }
        let of_pattern = if site == Site::V { self.before(Site::Z.at(l))? } else { self.before(scores)? };
        let Some(g) = of_pattern else { return Ok(None) };
        Ok(Some(match site {
            Site::V => ops.weigh(&value(Site::Pattern)?.t()?, &g.contiguous()?)?, // patternᵀ · g
            Site::K => (ops.weigh(&g.t()?, &value(Site::Q)?)? * scale)?,          // gᵀ · q · scale
            _ => (ops.weigh(&g, &value(Site::K)?)? * scale)?,                     // g · k · scale
        }))
    }

    /// Whether the gradient at a hook is not only what its formula passes on: it is changed, or the metric
    /// reads it.
    fn is_touched(&self, name: HookName) -> bool {
        self.changes.wants(name) || self.metric.is_value_of(name)
    }

    /// The tensor that a LayerNorm reads.
    fn input_of(&self, names: [Site; 3], l: usize) -> HookName {
        match names[0] {
            Site::Ln1Scale => Site::ResidPre.at(l),
            Site::Ln2Scale => Site::ResidMid.at(l),
            _ => Site::ResidPost.at(self.run.config().n_layer - 1),
        }
    }

    /// A tensor of the run as it went on.
    fn value(&self, name: HookName) -> Result<Tensor> {
        self.here(&self.run.cache.fetch(name, &Part::default())?)
    }

    fn here(&self, x: &Tensor) -> Result<Tensor> {
        let net = &self.run.model.net;
        Ok(x.to_device(net.device())?.to_dtype(net.dtype())?)
    }

    fn sum(&self, a: Gradient, b: Gradient) -> Result<Gradient> {
        match (a, b) {
            (Some(a), Some(b)) => self.run.model.net.ops.add(&a, &b).map(Some),
            (a, b) => Ok(a.or(b)),
        }
    }
}

/// The hooks of a LayerNorm: its scale, what it divides, and what it makes.
const LN_1: [Site; 3] = [Site::Ln1Scale, Site::Ln1Normalized, Site::Ln1Out];
const LN_2: [Site; 3] = [Site::Ln2Scale, Site::Ln2Normalized, Site::Ln2Out];
const LN_FINAL: [Site; 3] = [Site::LnFinalScale, Site::LnFinalNormalized, Site::LnFinalOut];

/// g ⊙ w: (T, C) → (T, C).
fn weighed(g: &Tensor, ln: &LayerNorm) -> Result<Tensor> {
    Ok(g.broadcast_mul(&ln.weight)?)
}

/// (T, H, n) → (H, T, n)
fn by_head(x: &Tensor) -> Result<Tensor> {
    Ok(x.transpose(0, 1)?.contiguous()?)
}

/// Gradients of q, k and v in the order of the columns of W_QKV: (T, H, d_head) each → (T, 3 C).
fn side_by_side(of_each: &[Gradient; 3]) -> Result<Gradient> {
    let Some(some) = of_each.iter().flatten().next() else { return Ok(None) };
    let flat = |g: &Gradient| match g {
        Some(g) => g.flatten_from(1),
        None => some.zeros_like()?.flatten_from(1),
    };
    let [q, k, v] = of_each.each_ref().map(flat);
    Ok(Some(Tensor::cat(&[q?, k?, v?], 1)?))
}
