//! How well a dictionary fits the activations of a prompt.

use std::fmt;

use candle_core::Tensor;

use super::{Dictionary, Features};
use crate::error::Result;
use crate::text::fixed;

/// How well a dictionary fits a prompt, without its first position, whose activations are far larger than the
/// others' in GPT-2 and would stand for all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Active features at a position, on average.
    pub l0: f64,
    /// 1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²; NaN for a prompt of fewer than three positions.
    pub explained: f64,
    /// Features that are active nowhere on the prompt.
    pub n_silent: usize,
}

/// `L0 18.8 · variance explained 84.8 % · 512 features silent here · position 0 left out`
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { l0, explained, n_silent } = self;
        if explained.is_nan() {
            return write!(f, "{n_silent} features silent here · too few tokens to say how well it fits");
        }
        let (l0, explained) = (fixed(*l0, 1), fixed(100.0 * explained, 1));
        write!(
            f,
            "L0 {l0} · variance explained {explained} % · {n_silent} features silent here · position 0 left out"
        )
    }
}

impl Dictionary {
    /// How well `features` stand for `target`, the activation that this writes.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`]
    pub fn fit(&self, features: &Features, target: &Tensor) -> Result<Fit> {
        let flat = |x: &Tensor| -> Result<Vec<Vec<f32>>> { Ok(x.flatten_from(1)?.to_vec2()?) };
        let (x, decoded) = (flat(target)?, flat(&self.decode(features)?)?);
        let rows = 1..x.len().max(1);
        let n = rows.len() as f64;
        let mean = |channel: usize| rows.clone().map(|row| f64::from(x[row][channel])).sum::<f64>() / n;
        let means: Vec<f64> = (0..x.first().map_or(0, Vec::len)).map(mean).collect();
        let (mut missed, mut all) = (0.0, 0.0);
        for row in rows.clone() {
            for ((x, y), mean) in x[row].iter().zip(&decoded[row]).zip(&means) {
                missed += (f64::from(*x) - f64::from(*y)).powi(2);
                all += (f64::from(*x) - mean).powi(2);
            }
        }
        let active: usize = features.rows.iter().skip(1).map(Vec::len).sum();
        Ok(Fit {
            l0: active as f64 / n,
            explained: if rows.len() < 2 { f64::NAN } else { 1.0 - missed / all },
            n_silent: features.n - features.n_alive(),
        })
    }
}
