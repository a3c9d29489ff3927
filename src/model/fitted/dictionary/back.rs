//! Gradients through a dictionary.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Activation, Dictionary, Features, Norm};
use crate::error::{Error, Result};
use crate::model::Ops;

/// A number for some features of each position.
pub type OfFeatures = Vec<BTreeMap<u32, f32>>;

impl Dictionary {
    /// Checks that gradients pass through it.
    ///
    /// # Errors
    /// [`Error::Usage`] if it normalises what it reads.
    pub fn check_back(&self) -> Result<()> {
        if self.parts.norm == Norm::None {
            return Ok(());
        }
        let name = crate::text::plain(&self.name).into_owned();
        Err(Error::usage(format!("gradients do not pass through {name}, which normalises what it reads")))
    }

    /// ∂/∂(activation of a feature) of what it writes at a position, of the gradient g of that: g · W_dec\[f\].
    pub fn decode_back(&self, features: &Features, position: usize, feature: u32, g: &[f32]) -> f32 {
        let row = &self.parts.decoder[feature as usize * g.len()..][..g.len()];
        let product: f32 = g.iter().zip(row).map(|(g, w)| g * w).sum();
        product * self.written(features, position, feature, 1.0)
    }

    /// The gradient of what it reads, of that of the activations of some features; those that are not active pass
    /// nothing on, and which are active is constant: (T, C).
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn encode_back(&self, features: &Features, of_each: &OfFeatures) -> Result<Tensor> {
        let w = self.parts.encoder.weight()?; // (C, n)
        let c = w.dims()[0];
        let mut out = vec![0f32; of_each.len() * c];
        for ((row, of_row), out) in features.rows.iter().zip(of_each).zip(out.chunks_exact_mut(c.max(1))) {
            for (&feature, &g) in of_row {
                if g == 0.0 || row.binary_search_by_key(&feature, |one| one.0).is_err() {
                    continue;
                }
                let slope = match &self.parts.activation {
                    Activation::TopK(_, Some(norms)) => norms[feature as usize],
                    Activation::Gated { scale, .. } => scale[feature as usize],
                    Activation::Relu | Activation::Jump(_) | Activation::TopK(_, None) => 1.0,
                };
                let column = w.narrow(1, feature as usize, 1)?.flatten_all()?.to_vec1::<f32>()?;
                out.iter_mut().zip(column).for_each(|(out, w)| *out += g * slope * w);
            }
            if self.parts.centred {
                let mean = out.iter().sum::<f32>() / c as f32;
                for x in out.iter_mut() {
                    *x -= mean;
                }
            }
        }
        Ok(Tensor::from_vec(out, (of_each.len(), c), &Device::Cpu)?)
    }

    /// What a skip connection passes on of the gradient of what is written, (T, C); `None` without one.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn skip_back(&self, g: &Tensor) -> Result<Option<Tensor>> {
        self.parts.skip.as_ref().map(|skip| Ops::default().linear_back(g, skip)).transpose()
    }
}
