//! The softmax of a row of logits, in float64. The loops over a vocabulary are compiled for the vector
//! instructions of the machine.

#![allow(clippy::inline_always)] // code that is not inlined is compiled without those instructions

use pulp::{Arch, Simd, WithSimd};

/// The softmax of a row of logits, in float64.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    pub(super) max: f32,
    /// Σ exp(x − max)
    pub(super) sum: f64,
    /// Σ exp(x − max) (x − max)
    weighted: f64,
}

impl Softmax {
    pub fn new(logits: &[f32]) -> Self {
        Arch::new().dispatch(Sums { logits })
    }

    pub fn prob(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.max)).exp() / self.sum
    }

    /// The probability of each logit of a row.
    pub fn probs(&self, logits: &[f32]) -> Vec<f32> {
        Arch::new().dispatch(Probs { logits, max: self.max, per_sum: 1.0 / self.sum })
    }

    /// Natural logarithm of the probability.
    pub fn log_prob(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum()
    }

    pub fn entropy_bits(&self) -> f64 {
        (self.sum.ln() - self.weighted / self.sum) / std::f64::consts::LN_2
    }

    /// D(p ‖ q) in nats, for the logits `p` of this softmax and `q` of another.
    pub fn kl(&self, p: &[f32], q: &[f32], of_q: &Self) -> f64 {
        let mean_difference = Arch::new().dispatch(MeanDifference { p, q, max: self.max });
        mean_difference / self.sum + (of_q.log_sum() - self.log_sum())
    }

    /// ln Σ exp(x): log-probabilities are logits minus this.
    pub fn log_sum(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }
}

/// Σ p (p' − q'), the KL divergence without the two normalisers, for probabilities p, their logits p' and
/// others, q'.
pub fn mean_difference(probs: &[f32], of_probs: &[f32], logits: &[f32]) -> f64 {
    Arch::new().dispatch(Weighted { probs, of_probs, logits })
}

/// The number of partial sums: as many as vectors of float64 hold, and enough of them to hide their latency.
const LANES: usize = 32;

/// Σ f over the places of rows of equal length, in lanes.
#[inline(always)]
fn sum<const ROWS: usize, const N: usize>(
    rows: [&[f32]; ROWS],
    f: impl Fn([f32; ROWS]) -> [f64; N],
) -> [f64; N] {
    let mut lanes = [[0.0; LANES]; N];
    let pieces = rows.map(|row| row.as_chunks::<LANES>());
    for piece in 0..pieces[0].0.len() {
        let piece: [&[f32; LANES]; ROWS] = std::array::from_fn(|row| &pieces[row].0[piece]);
        for lane in 0..LANES {
            let terms = f(std::array::from_fn(|row| piece[row][lane]));
            for i in 0..N {
                lanes[i][lane] += terms[i];
            }
        }
    }
    for (lane, _) in pieces[0].1.iter().enumerate() {
        let terms = f(std::array::from_fn(|row| pieces[row].1[lane]));
        for i in 0..N {
            lanes[i][lane] += terms[i];
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}

struct Sums<'a> {
    logits: &'a [f32],
}

impl WithSimd for Sums<'_> {
    type Output = Softmax;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Softmax {
        let max = max(self.logits);
        let [sum, weighted] = sum([self.logits], |[x]| {
            let below = f64::from(x) - f64::from(max);
            let e = exp(below);
            // −inf does not count.
            [e, if e == 0.0 { 0.0 } else { e * below }]
        });
        Softmax { max, sum, weighted }
    }
}

struct Probs<'a> {
    logits: &'a [f32],
    max: f32,
    per_sum: f64,
}

impl WithSimd for Probs<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
        let mut out = vec![0.0; self.logits.len()];
        for (out, x) in out.iter_mut().zip(self.logits) {
            *out = (exp(f64::from(*x) - f64::from(self.max)) * self.per_sum) as f32;
        }
        out
    }
}

struct MeanDifference<'a> {
    p: &'a [f32],
    q: &'a [f32],
    max: f32,
}

impl WithSimd for MeanDifference<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let [sum] = sum([self.p, self.q], |[p, q]| {
            let e = exp(f64::from(p) - f64::from(self.max));
            [if e == 0.0 { 0.0 } else { e * (f64::from(p) - f64::from(q)) }]
        });
        sum
    }
}

struct Weighted<'a> {
    probs: &'a [f32],
    of_probs: &'a [f32],
    logits: &'a [f32],
}

impl WithSimd for Weighted<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let [sum] = sum([self.probs, self.of_probs, self.logits], |[p, own, other]| {
            [if p == 0.0 { 0.0 } else { f64::from(p) * (f64::from(own) - f64::from(other)) }]
        });
        sum
    }
}

/// The largest value; NaN is skipped.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// eˣ for x ≤ 0, to 2 ulp, and 0 below −708: 2ⁿ · eʳ with |r| ≤ ln 2 / 2, the second factor by its series;
/// branch-free, so that it is vectorized.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²: adding it leaves an integer in the low bits
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    /// 1/13!, 1/12!, …, 1/2!
    const SERIES: [f64; 12] = {
        let (mut series, mut factorial, mut i) = ([0.0; 12], 1.0, 2);
        while i <= 13 {
            factorial *= i as f64;
            series[13 - i] = 1.0 / factorial;
            i += 1;
        }
        series
    };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut p = SERIES[0];
    for term in &SERIES[1..] {
        p = p * r + term;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let y = (p * r * r + r + 1.0) * power;
    if x < -708.0 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exponentials_are_exact() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_5;
            assert!((exp(x) - x.exp()).abs() <= 4e-16 * x.exp(), "{x}: {} {}", exp(x), x.exp());
        }
        assert_eq!([exp(0.0), exp(-709.0), exp(f64::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert!(exp(f64::NAN).is_nan());
    }

    proptest! {
        #[test]
        fn the_loops_are_the_formulas(
            rows in proptest::collection::vec((-60f32..60.0, -60f32..60.0, any::<bool>()), 1..200)
        ) {
            let p: Vec<f32> = rows.iter().map(|row| if row.2 { row.0 } else { f32::NEG_INFINITY }).collect();
            let q: Vec<f32> = rows.iter().map(|row| row.1).collect();
            prop_assume!(p.iter().any(|x| x.is_finite()));
            let (of_p, of_q) = (Softmax::new(&p), Softmax::new(&q));
            let sum = |x: &[f32]| x.iter().map(|x| f64::from(*x).exp()).sum::<f64>();
            let probs = |x: &[f32]| x.iter().map(|y| f64::from(*y).exp() / sum(x)).collect::<Vec<_>>();
            let (ps, qs) = (probs(&p), probs(&q));
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
            prop_assert!(close(of_p.log_sum(), sum(&p).ln()));
            let entropy = -ps.iter().filter(|p| **p > 0.0).map(|p| p * p.log2()).sum::<f64>();
            prop_assert!(close(of_p.entropy_bits(), entropy), "{} {entropy}", of_p.entropy_bits());
            let divergence: f64 =
                ps.iter().zip(&qs).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum();
            prop_assert!(close(of_p.kl(&p, &q, &of_q), divergence));
            let floats = of_p.probs(&p);
            prop_assert!(floats.iter().zip(&ps).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-7 * b + 1e-44));
            let normalisers = of_q.log_sum() - of_p.log_sum();
            let rounded = mean_difference(&floats, &p, &q) + normalisers;
            prop_assert!((rounded - divergence).abs() <= 1e-5 * (1.0 + divergence));
        }
    }
}
