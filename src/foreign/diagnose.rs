//! What a difference looks like: the network is broken in the usual ways, one after the other, until it gives what the
//! other program gives.

use candle_core::{DType, Tensor};

use super::check::{Compared, Held, Side, difference, name_of, run, values};
use super::names::{Kind, Ours};
use crate::config::Activation;
use crate::error::Result;
use crate::hooks::{HookFilter, HookName, Hooks, Site};
use crate::model::{Block, Conv1D, Format, Gpt2, LayerNorm, Ops};

/// What a difference looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// In one word, such as `gelu`.
    pub kind: &'static str,
    /// In a sentence.
    pub says: String,
}

impl Diagnosis {
    fn new(kind: &'static str, says: impl Into<String>) -> Self {
        Self { kind, says: says.into() }
    }
}

/// The most that may be left of a difference that a fault explains.
const LEFT: f32 = 0.05;

/// The most steps of a half format that rounding adds up to.
const STEPS: f32 = 64.0;

/// A comparison that does not hold.
pub struct Case<'a> {
    pub net: &'a Gpt2,
    pub tokens: &'a [Vec<u32>],
    /// The hooks that are compared.
    pub keep: &'a HookFilter,
    /// What there is of theirs, and how far it is off, in data-flow order.
    pub held: &'a [Held],
    pub tensors: &'a [Compared],
    /// The first that is off.
    pub first: usize,
    pub side: &'a Side,
}

impl Case<'_> {
    /// What the first difference looks like, the likeliest first; none if it is nothing known.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`]
    pub fn diagnose(&self) -> Result<Vec<Diagnosis>> {
        let mut found = Vec::new();
        let caches = run(self.net, self.tokens, self.keep, &mut || ())?;
        let (held, side) = (&self.held[self.first], self.side);
        let ours = values(held.ours, &caches, side)?;
        found.extend(rounding(held, &ours)?);
        found.extend(heads(held, &ours, side)?);
        if found.is_empty() {
            found.extend(swapped(self.held, &caches, side)?);
        }
        if found.is_empty() {
            found.extend(self.fault()?);
        }
        if found.is_empty() {
            found.extend(factor(held, &ours, side)?);
        }
        Ok(found)
    }

    /// The fault that gives what the other program gives, if one does.
    fn fault(&self) -> Result<Option<Diagnosis>> {
        let mut best: Option<(usize, f32, Fault)> = None;
        for fault in Fault::all(self.net) {
            let broken = fault.network(self.net)?;
            let hooks = || Wrong { net: &broken, fault, q: None, k: None, resid: None };
            let caches = run(&broken, self.tokens, self.keep, &mut { hooks })?;
            let of = |one: &Held| {
                difference(one.ours, &values(one.ours, &caches, self.side)?, &one.rows, self.side.tolerance)
            };
            let at_first = of(&self.held[self.first])?.excess;
            if at_first > (LEFT * self.tensors[self.first].difference.excess).max(1.0) {
                continue;
            }
            // What was right stays right.
            let mut holds = 0;
            let mut left = at_first;
            for (one, known) in self.held.iter().zip(self.tensors) {
                let found = of(one)?;
                // q, k and v side by side are not yet dealt to heads.
                let is_dealt = !(matches!(fault, Fault::Heads(_)) && one.ours.kind == Kind::Qkv);
                if known.difference.is_ok() && found.excess > 2.0 && is_dealt {
                    holds = 0;
                    break;
                }
                holds += usize::from(found.excess <= 1.0f32.max(LEFT * known.difference.excess));
                left = left.max(found.excess);
            }
            if holds > 0 && best.is_none_or(|(most, least, _)| (holds, -left) > (most, -least)) {
                best = Some((holds, left, fault));
            }
        }
        Ok(best.map(|(.., fault)| fault.says(self.net)))
    }
}

/// Whether all values are those of a half format, and ours but for its rounding.
fn rounding(held: &Held, ours: &[Tensor]) -> Result<Option<Diagnosis>> {
    for (format, dtype, name, step) in [
        (Format::F16, DType::F16, "float16", 1.0 / 2048.0),
        (Format::Bf16, DType::BF16, "bfloat16", 1.0 / 256.0),
    ] {
        let mut exact = true;
        for row in &held.rows {
            let back = row.to_dtype(dtype)?.to_dtype(DType::F32)?;
            let [a, b] = [row, &back].map(|x| x.flatten_all()?.to_vec1::<f32>());
            exact &= a?.iter().zip(&b?).all(|(a, b)| a == b || a.is_nan());
        }
        // Computed in it, errors add up from block to block.
        let near = difference(held.ours, ours, &held.rows, STEPS * step)?;
        if exact && near.is_ok() {
            let how = if held.format == format { "is stored in" } else { "was rounded to" };
            return Ok(Some(Diagnosis::new("float16", format!("{name} rounding: every value {how} {name}"))));
        }
    }
    Ok(None)
}

/// Whether heads are in another order.
fn heads(held: &Held, ours: &[Tensor], side: &Side) -> Result<Option<Diagnosis>> {
    let axis = match held.ours.hook.site {
        Site::Q | Site::K | Site::V | Site::Z | Site::Result => 1,
        Site::AttnScores | Site::Pattern => 0,
        _ => return Ok(None),
    };
    if held.ours.kind != Kind::Whole {
        return Ok(None);
    }
    let n_head = ours[0].dims()[axis];
    let one = |all: &[Tensor], head| -> Result<Vec<Tensor>> {
        all.iter().map(|x| Ok(x.narrow(axis, head, 1)?.contiguous()?)).collect()
    };
    let mut order = Vec::new();
    for head in 0..n_head {
        let theirs = one(&held.rows, head)?;
        let mut matches = None;
        for other in 0..n_head {
            if difference(held.ours, &one(ours, other)?, &theirs, side.tolerance)?.is_ok() {
                matches = Some(other);
                break;
            }
        }
        let Some(other) = matches else { return Ok(None) };
        order.push(other);
    }
    let is_other = order.iter().enumerate().any(|(i, head)| i != *head);
    let words: Vec<_> = order.iter().map(ToString::to_string).collect();
    Ok(is_other.then(|| {
        Diagnosis::new(
            "heads",
            format!("heads permuted: their heads are ours in the order {}", words.join(", ")),
        )
    }))
}

/// Whether q is k and k is q, where the file has both.
fn swapped(
    held: &[Held],
    caches: &[crate::model::ActivationCache],
    side: &Side,
) -> Result<Option<Diagnosis>> {
    let find =
        |site: Site| held.iter().find(|one| one.ours.hook.site == site && one.ours.kind == Kind::Whole);
    let (Some(q), Some(k)) = (find(Site::Q), find(Site::K)) else { return Ok(None) };
    if q.ours.hook.layer != k.ours.hook.layer {
        return Ok(None);
    }
    let is = |ours: Ours, theirs: &Held| -> Result<bool> {
        Ok(difference(ours, &values(ours, caches, side)?, &theirs.rows, side.tolerance)?.is_ok())
    };
    let are = is(q.ours, k)? && is(k.ours, q)?;
    Ok(are.then(|| Diagnosis::new("qk_swapped", "q and k swapped: their q is our k, and their k our q")))
}

/// Whether all values are ours times one number.
fn factor(held: &Held, ours: &[Tensor], side: &Side) -> Result<Option<Diagnosis>> {
    let (mut dot, mut own) = (0.0f64, 0.0f64);
    for (a, b) in ours.iter().zip(&held.rows) {
        let [a, b] = [a, b].map(|x| x.flatten_all()?.to_vec1::<f32>());
        for (a, b) in a?.into_iter().zip(b?).filter(|(a, b)| a.is_finite() && b.is_finite()) {
            (dot, own) = (dot + f64::from(a) * f64::from(b), own + f64::from(a) * f64::from(a));
        }
    }
    let factor = dot / own;
    if !factor.is_finite() || factor == 0.0 {
        return Ok(None);
    }
    let scaled: Vec<_> = held.rows.iter().map(|x| Ok((x / factor)?)).collect::<Result<_>>()?;
    let is_it = difference(held.ours, ours, &scaled, side.tolerance)?.is_ok();
    Ok(is_it.then(|| {
        let name = name_of(held.ours);
        Diagnosis::new("factor", format!("a factor: their {name} is ours times {factor:.6}"))
    }))
}

/// A fault that a network can have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A matrix read as (out, in) where it is (in, out), or the other way round.
    Transposed(Matrix),
    Activation(Activation),
    Epsilon(f64),
    /// Scores times this.
    Scores(f64),
    NoMask,
    /// By one: +1 begins at 1.
    Positions(isize),
    NoPositions,
    SwappedQk,
    /// How channels are dealt to heads.
    Heads(Deal),
    PostNorm,
    NoBiases,
    NoAffine,
    NoFinalNorm,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Matrix {
    Attn,
    AttnProj,
    Fc,
    MlpProj,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Deal {
    /// Channel i · H + h in place of h · d_head + i.
    Interleaved,
    /// (T, C) taken for (H, T, d_head) as it lies in memory.
    Raw,
    /// (H, T, d_head) taken for (T, C) as it lies in memory, when heads are put together.
    MergedRaw,
}

impl Fault {
    fn all(net: &Gpt2) -> Vec<Self> {
        let config = &net.config;
        let (d, c) = (config.d_head() as f64, config.n_embd as f64);
        let mut all =
            vec![Self::Positions(1), Self::Positions(-1), Self::NoPositions, Self::PostNorm, Self::NoAffine];
        all.extend([0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3].map(Self::Epsilon));
        all.extend([Matrix::Attn, Matrix::AttnProj, Matrix::Fc, Matrix::MlpProj].map(Self::Transposed));
        all.extend([Self::SwappedQk, Self::NoMask, Self::Scores(d.sqrt()), Self::Scores(d.sqrt().recip())]);
        all.push(Self::Scores((d / c).sqrt()));
        all.extend([Deal::Interleaved, Deal::Raw, Deal::MergedRaw].map(Self::Heads));
        let functions = [
            Activation::Gelu,
            Activation::GeluNew,
            Activation::Relu,
            Activation::QuickGelu,
            Activation::Silu,
        ];
        all.extend(functions.map(Self::Activation));
        all.extend([Self::NoBiases, Self::NoFinalNorm]);
        all.retain(|fault| match fault {
            Self::Activation(function) => *function != config.activation_function,
            Self::Epsilon(eps) => (eps - config.layer_norm_epsilon).abs() > 1e-15,
            _ => true,
        });
        all
    }

    /// What it looks like.
    fn says(self, net: &Gpt2) -> Diagnosis {
        let own = |matrix: &str| {
            Diagnosis::new(
                "transposed",
                format!(
                    "transposed weight: {matrix} is read as (out, in) where the checkpoint has (in, out)"
                ),
            )
        };
        match self {
            Self::Transposed(Matrix::Attn) => own("attn.c_attn"),
            Self::Transposed(Matrix::AttnProj) => own("attn.c_proj"),
            Self::Transposed(Matrix::Fc) => own("mlp.c_fc"),
            Self::Transposed(Matrix::MlpProj) => own("mlp.c_proj"),
            Self::Activation(function) => {
                let [theirs, ours] = [function, net.config.activation_function].map(said);
                Diagnosis::new("gelu", format!("activation function: {theirs} in place of {ours}"))
            }
            Self::Epsilon(eps) => {
                let ours = net.config.layer_norm_epsilon;
                Diagnosis::new(
                    "epsilon",
                    format!("epsilon of the LayerNorms: about {eps:e} in place of {ours:e}"),
                )
            }
            Self::Scores(factor) if factor > 1.0 => {
                Diagnosis::new("scale", "missing scale: scores are not divided by √d_head")
            }
            Self::Scores(factor) if (factor * factor * net.config.d_head() as f64 - 1.0).abs() < 1e-9 => {
                Diagnosis::new("scale", "scale: scores are divided by d_head in place of √d_head")
            }
            Self::Scores(_) => {
                Diagnosis::new("scale", "scale: scores are divided by √n_embd in place of √d_head")
            }
            Self::NoMask => Diagnosis::new("mask", "missing mask: queries see the tokens after them"),
            Self::Positions(by) if by > 0 => {
                Diagnosis::new("positions", "positions shifted by one: the first token has position 1")
            }
            Self::Positions(_) => {
                Diagnosis::new("positions", "positions shifted by one: the second token has position 0")
            }
            Self::NoPositions => Diagnosis::new("positions", "missing positions: wpe is not added"),
            Self::SwappedQk => Diagnosis::new("qk_swapped", "q and k swapped: c_attn is split as k, q, v"),
            Self::Heads(Deal::Interleaved) => Diagnosis::new(
                "heads",
                "heads permuted: channels are dealt to heads in turn, (T, d_head, H), where each head has d_head in a row",
            ),
            Self::Heads(Deal::Raw) => Diagnosis::new(
                "heads",
                "heads permuted: (T, C) is taken for (H, T, d_head) without a transpose when q, k and v are split",
            ),
            Self::Heads(Deal::MergedRaw) => Diagnosis::new(
                "heads",
                "heads permuted: (H, T, d_head) is taken for (T, C) without a transpose when heads are put together",
            ),
            Self::PostNorm => Diagnosis::new(
                "post_norm",
                "post-LayerNorm: LayerNorms come after the sums, where GPT-2 has them before attention and MLP",
            ),
            Self::NoBiases => {
                Diagnosis::new("bias", "missing biases: those of the linear layers are not added")
            }
            Self::NoAffine => {
                Diagnosis::new("affine", "missing weight and bias of the LayerNorms: only normalized")
            }
            Self::NoFinalNorm => Diagnosis::new("final_norm", "missing final LayerNorm: ln_f is not applied"),
        }
    }

    /// The network with the fault, as far as it is one of weights or settings.
    fn network(self, net: &Gpt2) -> Result<Gpt2> {
        let mut net = net.clone();
        match self {
            Self::Transposed(matrix) => {
                return with_blocks(net, |block, ops| {
                    let of = match matrix {
                        Matrix::Attn => &mut block.c_attn,
                        Matrix::AttnProj => &mut block.attn_proj,
                        Matrix::Fc => &mut block.c_fc,
                        Matrix::MlpProj => &mut block.mlp_proj,
                    };
                    let w = of.weight()?;
                    let (n_in, n_out) = w.dims2()?;
                    let turned = w.reshape((n_out, n_in))?.t()?.contiguous()?;
                    *of = Conv1D::new(&turned, of.bias.clone(), ops)?;
                    Ok(())
                });
            }
            Self::Activation(function) => net.config.activation_function = function,
            Self::Epsilon(eps) => {
                net.ln_f.eps = eps;
                return with_blocks(net, |block, _| {
                    (block.ln_1.eps, block.ln_2.eps) = (eps, eps);
                    Ok(())
                });
            }
            Self::Positions(by) => {
                let n = net.wpe.dims()[0];
                let rows = (0..n as isize).map(|row| (row + by).clamp(0, n as isize - 1) as u32);
                let rows = Tensor::new(rows.collect::<Vec<_>>(), net.device())?;
                net.wpe = net.wpe.index_select(&rows, 0)?;
            }
            Self::NoPositions => net.wpe = net.wpe.zeros_like()?,
            Self::SwappedQk => {
                let c = net.config.n_embd;
                let swap = move |x: &Tensor| {
                    let axis = x.dims().len() - 1;
                    let part = |i: usize| x.narrow(axis, i * c, c);
                    Tensor::cat(&[part(1)?, part(0)?, part(2)?], axis)
                };
                return with_blocks(net, |block, ops| {
                    let w = swap(&block.c_attn.weight()?)?;
                    block.c_attn = Conv1D::new(&w, swap(&block.c_attn.bias)?, ops)?;
                    Ok(())
                });
            }
            Self::NoBiases => {
                return with_blocks(net, |block, ops| {
                    for of in [&mut block.c_attn, &mut block.attn_proj, &mut block.c_fc, &mut block.mlp_proj]
                    {
                        *of = Conv1D::new(&of.weight()?, of.bias.zeros_like()?, ops)?;
                    }
                    Ok(())
                });
            }
            Self::NoAffine => {
                let bare = |ln: &LayerNorm| -> Result<LayerNorm> {
                    Ok(LayerNorm {
                        weight: ln.weight.ones_like()?,
                        bias: ln.bias.zeros_like()?,
                        ..ln.clone()
                    })
                };
                net.ln_f = bare(&net.ln_f)?;
                return with_blocks(net, |block, _| {
                    (block.ln_1, block.ln_2) = (bare(&block.ln_1)?, bare(&block.ln_2)?);
                    Ok(())
                });
            }
            Self::Scores(_) | Self::NoMask | Self::Heads(_) | Self::PostNorm | Self::NoFinalNorm => {}
        }
        Ok(net)
    }
}

/// The name of an activation function.
fn said(function: Activation) -> &'static str {
    match function {
        Activation::GeluNew => "tanh GELU",
        Activation::Gelu => "erf GELU",
        Activation::Relu => "ReLU",
        Activation::QuickGelu => "x · sigmoid(1.702x)",
        Activation::Silu => "SiLU",
        _ => "another one",
    }
}

/// The network with changed blocks.
fn with_blocks(net: Gpt2, change: impl Fn(&mut Block, Ops) -> Result<()>) -> Result<Gpt2> {
    let ops = net.ops;
    let changed = |block: &Block| {
        let mut block = block.clone();
        change(&mut block, ops)?;
        Ok(block)
    };
    let blocks = net.blocks.iter().map(changed).collect::<Result<_>>()?;
    Ok(Gpt2 { blocks, ..net })
}

/// A fault in what is computed.
struct Wrong<'a> {
    net: &'a Gpt2,
    fault: Fault,
    /// The last q, k and residual stream that passed.
    q: Option<Tensor>,
    k: Option<Tensor>,
    resid: Option<Tensor>,
}

impl Hooks for Wrong<'_> {
    fn wants(&self, name: HookName) -> bool {
        use Site::{AttnScores, K, Ln1Out, Ln2Out, LnFinalOut, Q, ResidMid, ResidPost, ResidPre, V, Z};
        match self.fault {
            Fault::Scores(_) => name.site == AttnScores,
            Fault::NoMask => matches!(name.site, Q | K | AttnScores),
            Fault::Heads(Deal::Interleaved) => matches!(name.site, Q | K | V | Z),
            Fault::Heads(Deal::Raw) => matches!(name.site, Q | K | V),
            Fault::Heads(Deal::MergedRaw) => name.site == Z,
            Fault::PostNorm => matches!(name.site, ResidPre | Ln1Out | ResidMid | Ln2Out | ResidPost),
            Fault::NoFinalNorm => matches!(name.site, ResidPost | LnFinalOut),
            _ => false,
        }
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let block = name.layer.map(|layer| &self.net.blocks[layer]);
        Ok(match (self.fault, name.site) {
            (Fault::Scores(factor), _) => Some((x * factor)?),
            (Fault::NoMask, Site::Q) => {
                self.q = Some(x.clone());
                None
            }
            (Fault::NoMask, Site::K) => {
                self.k = Some(x.clone());
                None
            }
            (Fault::NoMask, Site::AttnScores) => {
                let (Some(q), Some(k)) = (&self.q, &self.k) else { return Ok(None) };
                let by_head = |x: &Tensor| x.transpose(0, 1)?.contiguous(); // (H, T, d_head)
                let scores = by_head(q)?.matmul(&by_head(k)?.transpose(1, 2)?.contiguous()?)?;
                Some((scores * self.net.config.attn_scale(name.layer.unwrap_or(0)))?)
            }
            (Fault::Heads(Deal::Interleaved), Site::Z) => {
                // Heads are put together as they were split.
                Some(x.transpose(1, 2)?.contiguous()?.reshape(x.dims())?)
            }
            (Fault::Heads(Deal::Interleaved), _) => {
                let (t, h, d) = x.dims3()?;
                Some(x.reshape((t, d, h))?.transpose(1, 2)?.contiguous()?)
            }
            (Fault::Heads(Deal::Raw), _) => {
                let (t, h, d) = x.dims3()?;
                Some(x.reshape((h, t, d))?.transpose(0, 1)?.contiguous()?)
            }
            (Fault::Heads(Deal::MergedRaw), _) => Some(x.transpose(0, 1)?.contiguous()?.reshape(x.dims())?),
            (Fault::PostNorm | Fault::NoFinalNorm, Site::ResidPre) => {
                self.resid = Some(x.clone());
                None
            }
            (Fault::PostNorm, Site::Ln1Out | Site::Ln2Out) | (Fault::NoFinalNorm, Site::LnFinalOut) => {
                self.resid.clone()
            }
            (Fault::PostNorm, Site::ResidMid) => {
                let out = block.map(|block| self.net.ops.layer_norm(x, &block.ln_1)).transpose()?;
                self.resid.clone_from(&out);
                out
            }
            (Fault::PostNorm, Site::ResidPost) => {
                block.map(|block| self.net.ops.layer_norm(x, &block.ln_2)).transpose()?
            }
            (Fault::NoFinalNorm, Site::ResidPost) => {
                self.resid = Some(x.clone());
                None
            }
            _ => None,
        })
    }
}
