//! The checks: what a run holds, against the same computed anew in float64.

use super::Draft;
use crate::analysis::walk::Check;
use crate::analysis::{View, ViewSource, Weight};
use crate::error::Result;
use crate::hooks::Site;
use crate::model::LayerNorm;
use crate::picture::Matrix;
use candle_core::{DType, Device, Tensor};

impl Draft<'_> {
    /// How finely the network's numbers are rounded.
    pub(super) fn epsilon(&self) -> f32 {
        match self.run.model.net.dtype() {
            DType::F16 => 9.8e-4,
            DType::BF16 => 7.8e-3,
            _ => f32::EPSILON,
        }
    }

    /// x · W + b once more, from column `first` on, against what the run holds.
    pub(super) fn recompute(&self, x: &[f32], weight: Weight, first: usize, result: &[f32]) -> Result<Check> {
        let view = View::of(ViewSource::Weight(self.l, weight), 0);
        let bias = floats(&self.conv(weight).bias)?;
        let columns = first..first + result.len();
        let (sums, sizes) = times(x, &view.matrix(self.run)?, columns.clone());
        let bias = &bias[columns];
        let anew: Vec<f32> = sums.iter().zip(bias).map(|(sum, b)| (sum + f64::from(*b)) as f32).collect();
        let sizes: Vec<f32> = sizes.iter().zip(bias).map(|(size, b)| *size as f32 + b.abs()).collect();
        Ok(self.compare_sums(result, &anew, &sizes, x.len()))
    }

    /// Whether the scores, scaled, are what the run holds.
    pub(super) fn check_scores(&self, raw: &[f32], held: &[f32]) -> Result<Check> {
        let scale = self.c.attn_scale(self.l);
        let seen = self.t + 1;
        let anew: Vec<f32> = raw[..seen].iter().map(|s| (f64::from(*s) * scale) as f32).collect();
        let q = self.row(self.hook(Site::Q))?;
        let k = self.hook(Site::K).matrix(self.run)?;
        let size = |j: usize| q.iter().zip(&k.row(j)).map(|(q, k)| (q * k).abs()).sum::<f32>() * scale as f32;
        let sizes: Vec<f32> = (0..seen).map(size).collect();
        Ok(self.compare_sums(&held[..seen], &anew, &sizes, q.len()))
    }

    /// What the run holds against the same computed anew in one operation on `from`.
    pub(super) fn compare(&self, held: &[f32], anew: &[f32], from: &[&[f32]]) -> Check {
        let size = |i: usize| from.iter().map(|values| values[i].abs()).fold(anew[i].abs(), f32::max);
        let sizes: Vec<f32> = (0..anew.len()).map(size).collect();
        self.compare_sums(held, anew, &sizes, 1)
    }

    /// What the run holds against the same computed anew as sums of `n_terms` terms whose sizes add
    /// up to `sizes`: rounding grows with the root of their number.
    pub(super) fn compare_sums(&self, held: &[f32], anew: &[f32], sizes: &[f32], n_terms: usize) -> Check {
        const UNITS: f32 = 4.0;
        let allowed = UNITS * self.epsilon() * (n_terms as f32).sqrt();
        Check::new("", held, anew, allowed * sizes.iter().copied().fold(0.0, f32::max))
    }
}

/// A check that allows no difference, and how many there are.
pub(super) fn exactly(wrong: usize) -> Check {
    Check { claim: String::new(), difference: wrong as f32, largest: 0.0, allowed: 0.0 }
}

/// The check that holds less.
pub(super) fn worse(a: Check, b: Check) -> Check {
    let rank = |check: &Check| (!check.holds(), check.difference.is_nan());
    let b_is = match rank(&b).cmp(&rank(&a)) {
        std::cmp::Ordering::Equal => b.difference - b.allowed > a.difference - a.allowed || a.largest == 0.0,
        order => order.is_gt(),
    };
    if b_is { b } else { a }
}

/// x · W for some columns of W, and Σ |x·w| of each, in float64.
pub(super) fn times(x: &[f32], w: &Matrix, columns: std::ops::Range<usize>) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut sizes) = (vec![0.0; columns.len()], vec![0.0; columns.len()]);
    w.read(|rows| {
        for (i, &x) in x.iter().enumerate() {
            let row = &rows.get(i)[columns.clone()];
            for ((sum, size), &w) in sums.iter_mut().zip(&mut sizes).zip(row) {
                let product = f64::from(x) * f64::from(w);
                *sum += product;
                *size += f64::abs(product);
            }
        }
    });
    (sums, sizes)
}

/// LayerNorm of one row, in float64.
pub(super) fn normalize(ln: &LayerNorm, x: &[f32]) -> Result<Vec<f64>> {
    let (w, b) = (floats(&ln.weight)?, floats(&ln.bias)?);
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let scale = (x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n + ln.eps).sqrt();
    let affine = w.iter().zip(&b);
    Ok(x.iter()
        .zip(affine)
        .map(|(&x, (&w, &b))| (f64::from(x) - mean) / scale * f64::from(w) + f64::from(b))
        .collect())
}

/// softmax(logits / temperature) in float64; at 0 the largest logit gets all.
pub(super) fn tempered(logits: &[f32], temperature: f64) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if temperature <= 0.0 {
        let first = logits.iter().position(|x| *x == max);
        return (0..logits.len()).map(|i| if Some(i) == first { 1.0 } else { 0.0 }).collect();
    }
    let powers: Vec<f64> = logits.iter().map(|&x| (f64::from(x - max) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// A vector of the model as float32.
pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec1()?)
}
