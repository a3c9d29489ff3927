//! The loops behind [`super::ops`] for float32 on the CPU, over slices. Each is compiled for every
//! level of vector instructions; the level is chosen at run time.

#![allow(clippy::inline_always)] // code that is not inlined is compiled without those instructions

mod attention;
mod memory;
mod packed;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

pub use attention::{Heads, attention, attention_back, scores, weigh};
use memory::in_pieces;
pub use packed::Packed;

/// Less work than this (in multiplications) is not worth a second thread.
const WORTH_SHARING: usize = 1 << 15;

/// The widest panel: two vectors of AVX-512.
const WIDEST: usize = 32;

/// A matrix inside a slice: element (i, j) is at `i · strides.0 + j · strides.1`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub strides: (usize, usize),
}

impl<'a> Mat<'a> {
    /// A row-major matrix of `columns` columns.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        Self { values, rows: values.len() / columns, columns, strides: (columns, 1) }
    }

    pub fn rows(self, range: Range<usize>) -> Self {
        Self { values: &self.values[range.start * self.strides.0..], rows: range.len(), ..self }
    }

    pub fn columns(self, range: Range<usize>) -> Self {
        Self { values: &self.values[range.start * self.strides.1..], columns: range.len(), ..self }
    }

    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, strides: (self.strides.1, self.strides.0), ..self }
    }

    /// Whether a row is free of NaN and infinities.
    fn is_finite(&self, row: usize) -> bool {
        let row = &self.values[row * self.strides.0..];
        row.iter().step_by(self.strides.1).take(self.columns).all(|x| x.is_finite())
    }
}

/// x · w for few rows, (S, K) · (K, N) → (S, N) with rows `stride` apart: w is read once, in memory
/// order.
struct FewRows<'a> {
    x: Mat<'a>,
    w: Mat<'a>,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, out, stride } = self;
        if w.strides.0 == 1 {
            return products_of_rows(simd, x, w.t(), out, stride);
        }
        // A row is a sum of rows of w.
        for (i, out) in out.chunks_mut(stride).enumerate().take(x.rows) {
            let out = &mut out[..w.columns];
            out.fill(0.0);
            for (k, x) in x.values[i * x.strides.0..][..x.columns].iter().enumerate() {
                let row = &w.values[k * w.strides.0..][..w.columns];
                out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
            }
        }
    }
}

/// x · wᵀ, (S, K) · (N, K)ᵀ → (S, N).
#[inline(always)]
fn products_of_rows<S: Simd>(simd: S, x: Mat, w: Mat, out: &mut [f32], stride: usize) {
    let n = w.rows;
    let mut j = 0;
    while j < n {
        let four = j + 4 <= n;
        let mut s = 0;
        while s < x.rows {
            let three = s + 3 <= x.rows;
            match (four, three) {
                (true, true) => dots::<S, 3, 4>(simd, x, s, w, j, out, stride),
                (true, false) => dots::<S, 1, 4>(simd, x, s, w, j, out, stride),
                (false, true) => dots::<S, 3, 1>(simd, x, s, w, j, out, stride),
                (false, false) => dots::<S, 1, 1>(simd, x, s, w, j, out, stride),
            }
            s += if three { 3 } else { 1 };
        }
        j += if four { 4 } else { 1 };
    }
}

/// `out[s + t][j + r] = x[s + t] · w[j + r]` for T × R pairs of rows.
#[inline(always)]
fn dots<S: Simd, const T: usize, const R: usize>(
    simd: S,
    x: Mat,
    s: usize,
    w: Mat,
    j: usize,
    out: &mut [f32],
    stride: usize,
) {
    let k = x.columns;
    let xs: [_; T] = std::array::from_fn(|t| S::as_simd_f32s(&x.values[(s + t) * x.strides.0..][..k]));
    let ws: [_; R] = std::array::from_fn(|r| S::as_simd_f32s(&w.values[(j + r) * w.strides.0..][..k]));
    let mut sums = [[simd.splat_f32s(0.0); R]; T];
    for i in 0..xs[0].0.len() {
        let xi: [S::f32s; T] = std::array::from_fn(|t| xs[t].0[i]);
        for r in 0..R {
            let wi = ws[r].0[i];
            for t in 0..T {
                sums[t][r] = simd.mul_add_e_f32s(xi[t], wi, sums[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            let tail: f32 = xs[t].1.iter().zip(ws[r].1).map(|(a, b)| a * b).sum();
            out[(s + t) * stride + j + r] = simd.reduce_sum_f32s(sums[t][r]) + tail;
        }
    }
}

/// Rows of `width` values, filled by `each` from the number of the first, on several threads where
/// `work` is worth it.
fn by_rows(rows: usize, width: usize, work: usize, each: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    /// Values that stay in the cache while they are filled.
    const PIECE: usize = 1 << 14;
    let shared = rows.div_ceil(4 * rayon::current_num_threads()).min(PIECE.div_ceil(width.max(1)));
    let per_piece = if work < WORTH_SHARING { rows } else { shared }.max(1);
    let lengths = (0..rows).step_by(per_piece).map(|first| per_piece.min(rows - first) * width);
    in_pieces(lengths, |i, out| each(i * per_piece, out))
}

/// a + b, elementwise.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    by_rows(a.len(), 1, a.len(), |first, out| {
        let both = a[first..].iter().zip(&b[first..]);
        out.iter_mut().zip(both).for_each(|(out, (a, b))| *out = a + b);
    })
}

/// Each row of c values by a value of its own: (T, C), (T) → (T, C).
pub fn divide(x: &[f32], by: &[f32], c: usize) -> Vec<f32> {
    by_rows(by.len(), c, x.len(), |first, out| {
        for ((out, x), by) in out.chunks_exact_mut(c).zip(x[first * c..].chunks_exact(c)).zip(&by[first..]) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x / by);
        }
    })
}

/// x · weight + bias, elementwise for each row: (T, C) → (T, C).
pub fn affine(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let c = weight.len();
    by_rows(x.len() / c, c, x.len(), |first, out| {
        for (out, x) in out.chunks_exact_mut(c).zip(x[first * c..].chunks_exact(c)) {
            let affine = weight.iter().zip(bias);
            out.iter_mut().zip(x).zip(affine).for_each(|((out, x), (w, b))| *out = x * w + b);
        }
    })
}

/// LayerNorm with weight and bias, each row by itself: (T, C) → (T, C).
pub fn layer_norm(arch: Arch, x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    by_rows(x.len() / c, c, x.len(), |first, out| {
        let x = &x[first * c..][..out.len()];
        arch.dispatch(Normalize { x, weight, bias, eps, out });
    })
}

struct Normalize<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.weight.len();
        for (x, out) in self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c)) {
            let (mean, scale) = mean_and_scale(x, self.eps);
            let affine = self.weight.iter().zip(self.bias);
            for ((out, x), (w, b)) in out.iter_mut().zip(x).zip(affine) {
                *out = (x - mean) / scale * w + b;
            }
        }
    }
}

/// The gradient of what a LayerNorm reads, of that of what it makes, each row by itself: with n = (x − mean) / scale
/// and h = g ⊙ weight, (h − mean(h) − n · mean(h ⊙ n)) / scale, (T, C) → (T, C).
pub fn layer_norm_back(arch: Arch, x: &[f32], weight: &[f32], g: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    by_rows(x.len() / c, c, 2 * x.len(), |first, out| {
        let (x, g) = (&x[first * c..][..out.len()], &g[first * c..][..out.len()]);
        arch.dispatch(NormalizeBack { x, weight, g, eps, out });
    })
}

struct NormalizeBack<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    g: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl WithSimd for NormalizeBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, weight, g, eps, out } = self;
        let c = weight.len();
        let mut products = vec![0.0; c];
        for ((x, g), out) in x.chunks_exact(c).zip(g.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
            let (mean, scale) = mean_and_scale(x, eps);
            out.iter_mut().zip(g).zip(weight).for_each(|((h, g), w)| *h = g * w);
            products
                .iter_mut()
                .zip(&*out)
                .zip(x)
                .for_each(|((product, h), x)| *product = h * ((x - mean) / scale));
            let n = c as f32;
            let (of_h, of_products) = (sum(out, |h| h) / n, sum(&products, |p| p) / n);
            out.iter_mut()
                .zip(x)
                .for_each(|(h, x)| *h = (*h - of_h - (x - mean) / scale * of_products) / scale);
        }
    }
}

/// x minus its mean, and √(var + ε), each row by itself: (T, C) → (T, C), (T).
pub fn center(arch: Arch, x: &[f32], c: usize, eps: f32) -> (Vec<f32>, Vec<f32>) {
    let rows = x.len() / c;
    let row = |row: usize| &x[row * c..][..c];
    let scales = by_rows(rows, 1, x.len(), |first, out| {
        for (i, scale) in out.iter_mut().enumerate() {
            *scale = arch.dispatch(MeanAndScale { row: row(first + i), eps }).1;
        }
    });
    let centered = by_rows(rows, c, x.len(), |first, out| {
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            let x = row(first + i);
            let (mean, _) = arch.dispatch(MeanAndScale { row: x, eps });
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x - mean);
        }
    });
    (centered, scales)
}

struct MeanAndScale<'a> {
    row: &'a [f32],
    eps: f32,
}

impl WithSimd for MeanAndScale<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        mean_and_scale(self.row, self.eps)
    }
}

/// The mean and √(var + ε): biased variance, in two passes.
#[inline(always)]
fn mean_and_scale(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    (mean, (variance + eps).sqrt())
}

/// The number of partial sums of a sum: x[i] goes to number i modulo this. Zeros do not change the
/// result, wherever they are and however many.
const LANES: usize = 32;

/// Σ f(x), in lanes.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    lanes.iter().sum()
}

/// The largest value; NaN is skipped.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 32];
    let chunks = x.chunks_exact(32);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, &b| larger(a, b));
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().fold(rest, |a, &b| larger(a, b))
}

/// eˣ to 2 ulp for x ≤ 88, 0 below −87; branch-free, so that it vectorizes.
/// 2ⁿ · eʳ with |r| ≤ ln 2 / 2, the second factor by the polynomial of Cephes' `expf`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves an integer in the low bits
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = (p * r * r + r + 1.0) * power;
    if x < -87.0 { 0.0 } else { y }
}

const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;

/// gelu_new, elementwise: 0.5x(1 + tanh(u)) is x / (1 + e⁻²ᵘ), u = √(2/π)(x + 0.044715x³).
pub fn gelu_new(arch: Arch, x: &[f32]) -> Vec<f32> {
    by_rows(x.len(), 1, x.len() * 4, |first, out| {
        let x = &x[first..][..out.len()];
        arch.dispatch(Gelu { x, out });
    })
}

struct Gelu<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            let minus_2u = -TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
            *out = x / (1.0 + exp(if minus_2u > 88.0 { 88.0 } else { minus_2u }));
        }
    }
}

/// The derivative of gelu_new times g, elementwise: s + x · s(1 − s) · 2u′ with s = 1 / (1 + e⁻²ᵘ).
pub fn gelu_new_back(arch: Arch, x: &[f32], g: &[f32]) -> Vec<f32> {
    by_rows(x.len(), 1, x.len() * 4, |first, out| {
        let (x, g) = (&x[first..][..out.len()], &g[first..][..out.len()]);
        arch.dispatch(GeluBack { x, g, out });
    })
}

struct GeluBack<'a> {
    x: &'a [f32],
    g: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for GeluBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, &x), &g) in self.out.iter_mut().zip(self.x).zip(self.g) {
            let minus_2u = -TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
            let e = exp(if minus_2u > 40.0 { 40.0 } else { minus_2u });
            let s = 1.0 / (1.0 + e);
            // s(1 − s) as e · s², which does not round to 0 too soon.
            let slope = e * s * s * TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
            *out = g * (s + x * slope);
        }
    }
}

/// p ⊙ (g − Σ g ⊙ p), each row of n values by itself: the gradient of what softmax reads, of that of what it makes, p.
pub fn softmax_back(arch: Arch, p: &[f32], g: &[f32], n: usize) -> Vec<f32> {
    by_rows(p.len() / n.max(1), n, p.len() * 2, |first, rows| {
        rows.copy_from_slice(&g[first * n..][..rows.len()]);
        let p = p[first * n..].chunks_exact(n);
        rows.chunks_exact_mut(n).zip(p).for_each(|(g, p)| arch.dispatch(SoftmaxBack { p, g }));
    })
}

/// Replaces a row of gradients.
struct SoftmaxBack<'a> {
    p: &'a [f32],
    g: &'a mut [f32],
}

impl WithSimd for SoftmaxBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { p, g } = self;
        let mut lanes = [0f32; LANES];
        let ((chunks, rest), (of_chunks, of_rest)) = (p.as_chunks::<LANES>(), g.as_chunks::<LANES>());
        for (p, g) in chunks.iter().zip(of_chunks) {
            lanes.iter_mut().zip(p).zip(g).for_each(|((lane, p), g)| *lane += p * g);
        }
        lanes.iter_mut().zip(rest).zip(of_rest).for_each(|((lane, p), g)| *lane += p * g);
        let mean: f32 = lanes.iter().sum();
        g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
    }
}

/// Softmax of each row of n values; a row of only −inf becomes NaN.
pub fn softmax(arch: Arch, x: &[f32], n: usize) -> Vec<f32> {
    by_rows(x.len() / n.max(1), n, x.len() * 4, |first, rows| {
        rows.copy_from_slice(&x[first * n..][..rows.len()]);
        arch.dispatch(Softmax { rows, n });
    })
}

/// Replaces rows of n values by their softmax.
struct Softmax<'a> {
    rows: &'a mut [f32],
    n: usize,
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact_mut(self.n) {
            let max = max(row);
            for x in &mut *row {
                *x = exp(*x - max);
            }
            let per_total = 1.0 / sum(row, |x| x);
            for x in row {
                *x *= per_total;
            }
        }
    }
}
