//! The operations that candle does not have under one name, as plain candle expressions.

use candle_core::{D, DType, Device, Tensor};

use super::config::Activation;
use crate::error::Result;

/// `x · w + b` with `w` stored [in, out], as GPT-2's `Conv1D` does: (T, in) → (T, out).
#[derive(Debug, Clone)]
pub struct Conv1D {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Conv1D {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// The weight and bias of a LayerNorm, both (C).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl LayerNorm {
    /// x minus its mean, and √(var + ε): (T, C) → (T, C), (T, 1). Biased variance, in two passes.
    pub fn center(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + self.eps)?.sqrt()?;
        Ok((centered, scale))
    }

    /// The elementwise end of it: normalized · w + b.
    pub fn affine(&self, normalized: &Tensor) -> Result<Tensor> {
        let scaled = normalized.broadcast_mul(&self.weight)?;
        Ok(scaled.broadcast_add(&self.bias)?)
    }
}

impl Activation {
    /// Applied elementwise.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let sigmoid = candle_nn::ops::sigmoid;
        Ok(match self {
            // candle's `gelu` is the tanh approximation, its `gelu_erf` the exact one.
            Self::GeluNew => x.gelu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::Gelu10 => x.gelu_erf()?.clamp(-10.0, 10.0)?,
            Self::QuickGelu => (x * sigmoid(&(x * 1.702)?)?)?,
            Self::Relu => x.relu()?,
            Self::Relu2 => x.relu()?.sqr()?,
            Self::Relu6 => x.clamp(0.0, 6.0)?,
            Self::LeakyRelu => candle_nn::ops::leaky_relu(x, 0.01)?,
            Self::Silu => x.silu()?,
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => sigmoid(x)?,
            // tanh(ln(1 + e^x)) with the softplus written so that e^x cannot overflow.
            Self::Mish => {
                let softplus = (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
                (x * softplus.tanh()?)?
            }
            Self::Linear => x.clone(),
        })
    }
}

/// What is added to scores so that no query sees the future: (T, T), 0 or −inf.
pub fn causal_mask(n_tokens: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let cells = (0..n_tokens)
        .flat_map(|query| (0..n_tokens).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 }));
    let mask = Tensor::from_iter(cells, device)?.reshape((n_tokens, n_tokens))?;
    Ok(mask.to_dtype(dtype)?)
}
