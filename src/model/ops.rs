//! The operations of the forward pass: plain candle expressions, each with a fused loop of
//! [`super::kernels`] that replaces it for float32 on the CPU.

use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::{CpuStorage, D, DType, Device, Layout, Shape, Storage, Tensor};
use candle_nn::ops::softmax_last_dim;
use pulp::Arch;
use rayon::prelude::*;

use super::kernels::{self, Heads, Mat, Packed};
use crate::config::Activation;
use crate::error::{Error, Result, out_of_range};

/// A weight (in, out) and bias (out), stored [in, out] as GPT-2's `Conv1D` does.
#[derive(Debug, Clone)]
pub struct Conv1D {
    weight: Weight,
    pub bias: Tensor,
}

/// A matrix, stored for multiplication.
#[derive(Debug, Clone)]
enum Weight {
    Plain(Tensor),
    Packed(Arc<Packed>),
}

impl Conv1D {
    /// A weight (in, out) and a bias (out), stored as `ops` needs them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the weight is not a matrix.
    pub fn new(weight: &Tensor, bias: Tensor, ops: Ops) -> Result<Self> {
        let weight = weight.contiguous()?;
        if let Some((arch, [w])) = ops.fused([&weight]) {
            let packed = Packed::new(arch, w.matrix());
            return Ok(Self { weight: Weight::Packed(Arc::new(packed)), bias });
        }
        Ok(Self { weight: Weight::Plain(weight), bias })
    }

    /// The same as it is, for a weight that takes no memory.
    pub(super) fn plain(weight: Tensor, bias: Tensor) -> Self {
        Self { weight: Weight::Plain(weight), bias }
    }

    /// The same from a slice of weights, row by row.
    pub(super) fn pack(weight: &[f32], bias: Tensor, arch: Arch) -> Self {
        let packed = Packed::new(arch, Mat::new(weight, bias.elem_count()));
        Self { weight: Weight::Packed(Arc::new(packed)), bias }
    }

    /// The weight row by row, (in, out); this may be a copy.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn weight(&self) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Plain(weight) => weight.clone(),
            Weight::Packed(packed) => Tensor::from_vec(packed.unpack(), packed.shape(), &Device::Cpu)?,
        })
    }

    /// The same, stored as `ops` needs it.
    pub(super) fn with_ops(&self, ops: Ops) -> Result<Self> {
        Self::new(&self.weight()?, self.bias.clone(), ops)
    }
}

/// A table (V, C): a row for each token, and the matrix (C, V) that gives a logit for each. Stored for
/// multiplication, as the weights of the blocks are; rows are gathered from it.
#[derive(Debug, Clone)]
pub struct Table {
    /// (C, V)
    weight: Weight,
}

impl Table {
    /// From its rows, (V, C), stored as `ops` needs them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if they are not a matrix.
    pub fn new(rows: &Tensor, ops: Ops) -> Result<Self> {
        let rows = rows.contiguous()?;
        if let Some((arch, [w])) = ops.fused([&rows]) {
            return Ok(Self { weight: Weight::Packed(Arc::new(Packed::new(arch, w.matrix().t()))) });
        }
        Ok(Self { weight: Weight::Plain(rows.t()?) })
    }

    /// The same from (C, V) as it is, for a weight that takes no memory.
    pub(super) fn plain(weight: Tensor) -> Self {
        Self { weight: Weight::Plain(weight) }
    }

    /// The same from a slice of rows of `c` values.
    pub(super) fn pack(rows: &[f32], c: usize, arch: Arch) -> Self {
        Self { weight: Weight::Packed(Arc::new(Packed::new(arch, Mat::new(rows, c).t()))) }
    }

    /// (V, C)
    pub fn dims(&self) -> (usize, usize) {
        match &self.weight {
            Weight::Plain(weight) => (weight.dims()[1], weight.dims()[0]),
            Weight::Packed(packed) => (packed.shape().1, packed.shape().0),
        }
    }

    /// Some rows: (n, C).
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Tensor`] for a row that there is not.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let packed = match &self.weight {
            Weight::Plain(weight) => {
                return Ok(weight.t()?.index_select(&Tensor::new(ids, weight.device())?, 0)?);
            }
            Weight::Packed(packed) => packed,
        };
        let (v, c) = self.dims();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= v) {
            return Err(Error::usage(out_of_range("row", id, 0..v)));
        }
        let mut rows = vec![0.0; ids.len() * c];
        let pairs = rows.par_chunks_mut(c.max(1)).with_min_len(16).zip(ids);
        pairs.for_each(|(row, &id)| packed.column(id as usize, row));
        Ok(Tensor::from_vec(rows, (ids.len(), c), &Device::Cpu)?)
    }

    /// All rows, (V, C); this may be a copy.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn all(&self) -> Result<Tensor> {
        match &self.weight {
            Weight::Plain(weight) => Ok(weight.t()?),
            Weight::Packed(_) => self.rows(&(0..self.dims().0 as u32).collect::<Vec<_>>()),
        }
    }

    /// Reads a row into a slice of C values, where [`Self::all`] would be a copy.
    pub fn reader(&self) -> Option<impl Fn(usize, &mut [f32]) + Send + Sync + use<>> {
        let Weight::Packed(packed) = &self.weight else { return None };
        let packed = Arc::clone(packed);
        Some(move |row: usize, out: &mut [f32]| packed.column(row, out))
    }

    /// The same, stored as `ops` needs it.
    pub(super) fn with_ops(&self, ops: Ops) -> Result<Self> {
        Self::new(&self.all()?, ops)
    }
}

/// The weight and bias of a LayerNorm, both (C).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

/// How the operations are computed; all ways agree up to rounding.
#[derive(Debug, Clone, Copy)]
pub enum Ops {
    /// As candle expressions, on any device and in any format.
    Plain,
    /// Fused loops with these vector instructions if everything is float32 on the CPU, else plain.
    Fused(Arch),
}

impl Default for Ops {
    /// The fastest way on this machine.
    fn default() -> Self {
        Self::Fused(Arch::new())
    }
}

impl Ops {
    /// All ways on this machine, the plain one first.
    #[allow(clippy::vec_init_then_push)]
    pub fn available() -> Vec<Self> {
        let mut ways = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            ways.push(Self::Fused(Arch::Scalar));
            ways.extend(pulp::x86::V3::try_new().map(|v3| Self::Fused(Arch::V3(v3))));
        }
        ways.push(Self::default());
        ways
    }

    /// The instructions that weights on `device` in `dtype` are packed for; `None` if they are not packed.
    pub(super) fn packs(self, device: &Device, dtype: DType) -> Option<Arch> {
        match self {
            Self::Fused(arch) if device.is_cpu() && dtype == DType::F32 => Some(arch),
            _ => None,
        }
    }

    /// x · w + b: (S, in) → (S, out).
    pub fn linear(self, x: &Tensor, w: &Conv1D) -> Result<Tensor> {
        self.linear_part(x, w, 0, (x.dims()[0], w.bias.elem_count()))
    }

    /// The same for the outputs from `start` on, as many as fit `shape`: (S, in) → (S, …).
    pub fn linear_part(
        self,
        x: &Tensor,
        w: &Conv1D,
        start: usize,
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let n = shape.elem_count() / x.dims()[0];
        let x = x.contiguous()?;
        if let (Weight::Packed(weight), Some((_, [x, bias]))) = (&w.weight, self.fused([&x, &w.bias])) {
            let bias = &bias.values()[start..start + n];
            let out = weight.linear(x.matrix(), start..start + n, Some(bias));
            return Ok(Tensor::from_vec(out, shape, &Device::Cpu)?);
        }
        let weight = w.weight()?.narrow(1, start, n)?.contiguous()?;
        Ok(x.matmul(&weight)?.broadcast_add(&w.bias.narrow(0, start, n)?)?.reshape(shape)?)
    }

    /// x · wteᵀ, or of another table: (S, C) → (S, V).
    pub fn logits(self, x: &Tensor, table: &Table) -> Result<Tensor> {
        self.logits_of(x, table, 0..table.dims().0)
    }

    /// The logits of neighbouring tokens, equal to the bit: (S, C) → (S, tokens).
    pub fn logits_of(self, x: &Tensor, table: &Table, tokens: Range<usize>) -> Result<Tensor> {
        let (x, n) = (x.contiguous()?, tokens.len());
        match (&table.weight, self.fused([&x])) {
            (Weight::Packed(weight), Some((_, [rows]))) => {
                let out = weight.linear(rows.matrix(), tokens, None);
                Ok(Tensor::from_vec(out, (x.dims()[0], n), &Device::Cpu)?)
            }
            (Weight::Plain(weight), _) => Ok(x.matmul(&weight.narrow(1, tokens.start, n)?)?),
            (Weight::Packed(_), None) => Ok(x.matmul(&table.all()?.narrow(0, tokens.start, n)?.t()?)?),
        }
    }

    /// g · wᵀ, the gradient of what [`Self::linear`] reads of that of what it makes: (S, out) → (S, in).
    pub fn linear_back(self, g: &Tensor, w: &Conv1D) -> Result<Tensor> {
        self.back(g, &w.weight)
    }

    /// g · wte, or another table: the gradient of what [`Self::logits`] reads, (S, V) → (S, C).
    pub fn logits_back(self, g: &Tensor, table: &Table) -> Result<Tensor> {
        self.back(g, &table.weight)
    }

    fn back(self, g: &Tensor, weight: &Weight) -> Result<Tensor> {
        let g = g.contiguous()?;
        match (weight, self.fused([&g])) {
            (Weight::Packed(weight), Some((_, [rows]))) => {
                let out = weight.linear_t(rows.matrix());
                Ok(Tensor::from_vec(out, (g.dims()[0], weight.shape().0), &Device::Cpu)?)
            }
            (Weight::Plain(weight), _) => Ok(g.matmul(&weight.t()?)?),
            (Weight::Packed(weight), None) => {
                let weight = Tensor::from_vec(weight.unpack(), weight.shape(), &Device::Cpu)?;
                Ok(g.matmul(&weight.t()?)?)
            }
        }
    }

    /// act′(x) ⊙ g: the gradient of what the activation function reads.
    pub fn activation_back(self, act: Activation, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (x, g) = (x.contiguous()?, g.contiguous()?);
        if act == Activation::GeluNew
            && let Some((arch, [x, g])) = self.fused([&x, &g])
        {
            let out = kernels::gelu_new_back(arch, x.values(), g.values());
            return Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?);
        }
        let values = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let slopes: Vec<f64> = values.par_iter().map(|&x| act.derivative(x)).collect();
        let slopes = Tensor::from_vec(slopes, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?;
        Ok((g * slopes.to_device(x.device())?)?)
    }

    /// p ⊙ (g − Σ g ⊙ p) along the last axis: the gradient of what softmax reads where it made p.
    pub fn softmax_back(self, p: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (p, g) = (p.contiguous()?, g.contiguous()?);
        if let Some((arch, [values, of])) = self.fused([&p, &g])
            && let Some(&n) = p.dims().last()
        {
            let out = kernels::softmax_back(arch, values.values(), of.values(), n);
            return Ok(Tensor::from_vec(out, p.dims(), &Device::Cpu)?);
        }
        let sum = (&g * &p)?.sum_keepdim(D::Minus1)?;
        Ok((&p * g.broadcast_sub(&sum)?)?)
    }

    /// The gradient of what [`Self::layer_norm`] reads: (T, C) → (T, C).
    pub fn layer_norm_back(self, x: &Tensor, ln: &LayerNorm, g: &Tensor) -> Result<Tensor> {
        let (x, g) = (x.contiguous()?, g.contiguous()?);
        if let Some((arch, [values, w, of])) = self.fused([&x, &ln.weight, &g]) {
            let out = kernels::layer_norm_back(arch, values.values(), w.values(), of.values(), ln.eps as f32);
            return Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?);
        }
        let (centered, scale) = ln.center(&x)?;
        let normalized = centered.broadcast_div(&scale)?;
        let h = g.broadcast_mul(&ln.weight)?;
        let along = normalized.broadcast_mul(&(&h * &normalized)?.mean_keepdim(D::Minus1)?)?;
        Ok((h.broadcast_sub(&h.mean_keepdim(D::Minus1)?)? - along)?.broadcast_div(&scale)?)
    }

    /// The gradients of q, k and v of all T positions, of that of what [`Self::attention`] gathers: (T, H, d_head)
    /// each.
    pub fn attention_back(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        g: &Tensor,
        scale: f64,
    ) -> Result<[Tensor; 3]> {
        if let Some((arch, [qs, ks, vs, gs])) = self.fused([q, k, v, g]) {
            let out =
                kernels::attention_back(arch, qs.heads(), ks.heads(), vs.heads(), gs.heads(), scale as f32);
            let [q, k, v] = out.map(|out| Tensor::from_vec(out, q.dims(), &Device::Cpu));
            return Ok([q?, k?, v?]);
        }
        let by_head = |x: &Tensor| x.transpose(0, 1)?.contiguous();
        let pattern = self.softmax(&self.scores(q, k, 0, scale)?)?; // (H, T, T)
        let of_pattern = by_head(g)?.matmul(&by_head(v)?.t()?)?; // (H, T, T)
        let of_scores = (self.softmax_back(&pattern, &of_pattern)? * scale)?; // (H, T, T)
        Ok([
            self.weigh(&of_scores, k)?,
            self.weigh(&of_scores.t()?, q)?,
            self.weigh(&pattern.t()?, &g.contiguous()?)?,
        ])
    }

    /// a + b of equal shapes, elementwise.
    pub fn add(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (a, b) = (a.contiguous()?, b.contiguous()?);
        if let Some((_, [x, y])) = self.fused([&a, &b]) {
            return Ok(Tensor::from_vec(kernels::add(x.values(), y.values()), a.shape(), &Device::Cpu)?);
        }
        Ok((a + b)?)
    }

    /// (x − mean) / √(var + ε) · w + b: (T, C) → (T, C).
    pub fn layer_norm(self, x: &Tensor, ln: &LayerNorm) -> Result<Tensor> {
        let x = x.contiguous()?;
        if let Some((arch, [x, w, b])) = self.fused([&x, &ln.weight, &ln.bias]) {
            let out = kernels::layer_norm(arch, x.values(), w.values(), b.values(), ln.eps as f32);
            return Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?);
        }
        let (centered, scale) = ln.center(&x)?;
        self.affine(&self.divide(&centered, &scale)?, ln)
    }

    /// The first steps of LayerNorm, equal to the bit: x − mean and √(var + ε), (T, C) → (T, C), (T, 1).
    pub fn center(self, x: &Tensor, ln: &LayerNorm) -> Result<(Tensor, Tensor)> {
        let x = x.contiguous()?;
        if let Some((arch, [floats])) = self.fused([&x]) {
            let (n, c) = x.dims2()?;
            let (centered, scale) = kernels::center(arch, floats.values(), c, ln.eps as f32);
            let centered = Tensor::from_vec(centered, (n, c), &Device::Cpu)?;
            return Ok((centered, Tensor::from_vec(scale, (n, 1), &Device::Cpu)?));
        }
        ln.center(&x)
    }

    /// The next step: each row by its scale, (T, C), (T, 1) → (T, C).
    pub fn divide(self, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let (x, scale) = (x.contiguous()?, scale.contiguous()?);
        if let Some((_, [floats, scales])) = self.fused([&x, &scale]) {
            let out = kernels::divide(floats.values(), scales.values(), x.dims()[1]);
            return Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?);
        }
        Ok(x.broadcast_div(&scale)?)
    }

    /// The last step of LayerNorm, elementwise: normalized · w + b.
    pub fn affine(self, normalized: &Tensor, ln: &LayerNorm) -> Result<Tensor> {
        let x = normalized.contiguous()?;
        if let Some((_, [floats, w, b])) = self.fused([&x, &ln.weight, &ln.bias]) {
            let out = kernels::affine(floats.values(), w.values(), b.values());
            return Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?);
        }
        Ok(x.broadcast_mul(&ln.weight)?.broadcast_add(&ln.bias)?)
    }

    /// The activation function, elementwise.
    pub fn activation(self, act: Activation, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if act == Activation::GeluNew
            && let Some((arch, [x])) = self.fused([&x])
        {
            return Ok(Tensor::from_vec(kernels::gelu_new(arch, x.values()), x.dims(), &Device::Cpu)?);
        }
        act.forward(&x)
    }

    /// mask(q · kᵀ · scale) for queries at positions `first`..`first + S` and keys at 0..T:
    /// (S, H, d_head), (T, H, d_head) → (H, S, T), −inf in the future.
    pub fn scores(self, q: &Tensor, k: &Tensor, first: usize, scale: f64) -> Result<Tensor> {
        let (s, h, _) = q.dims3()?;
        let n = k.dims()[0];
        if let Some((arch, [q, k])) = self.fused([q, k]) {
            let out = kernels::scores(arch, q.heads(), k.heads(), first, scale as f32);
            return Ok(Tensor::from_vec(out, (h, s, n), &Device::Cpu)?);
        }
        let q = q.transpose(0, 1)?.contiguous()?; // (H, S, d_head)
        let k = k.transpose(0, 1)?.contiguous()?; // (H, T, d_head)
        let scores = (q.matmul(&k.t()?)? * scale)?; // (H, S, T)
        Ok(scores.broadcast_add(&causal_mask(first, s, n, q.dtype(), q.device())?)?)
    }

    /// softmax over the last axis.
    pub fn softmax(self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if let Some((arch, [x])) = self.fused([&x])
            && let Some(&n) = x.dims().last()
        {
            return Ok(Tensor::from_vec(kernels::softmax(arch, x.values(), n), x.dims(), &Device::Cpu)?);
        }
        Ok(softmax_last_dim(&x)?)
    }

    /// pattern · v for each head: (H, S, T), (T, H, d_head) → (S, H, d_head).
    pub fn weigh(self, pattern: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (h, s, _) = pattern.dims3()?;
        let d_head = v.dims()[2];
        let pattern = pattern.contiguous()?;
        if let Some((arch, [pattern, v])) = self.fused([&pattern, v]) {
            let out = kernels::weigh(arch, pattern.values(), s, v.heads());
            return Ok(Tensor::from_vec(out, (s, h, d_head), &Device::Cpu)?);
        }
        let v = v.transpose(0, 1)?.contiguous()?; // (H, T, d_head)
        Ok(pattern.matmul(&v)?.transpose(0, 1)?.contiguous()?)
    }

    /// Scores, softmax and weighing at once, if the steps are not wanted: (S, H, d_head) for the last S
    /// positions, in the order of arithmetic of at least `n_queries`.
    pub fn attention(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        scale: f64,
        n_queries: usize,
    ) -> Result<Tensor> {
        if let Some((arch, [q, k, v])) = self.fused([q, k, v]) {
            let out = kernels::attention(arch, q.heads(), k.heads(), v.heads(), scale as f32, n_queries);
            return Ok(Tensor::from_vec(out, q.dims(), &Device::Cpu)?);
        }
        let first = k.dims()[0] - q.dims()[0];
        self.weigh(&self.softmax(&self.scores(q, k, first, scale)?)?, v)
    }

    /// The tensors as slices, if a fused loop can handle them.
    fn fused<const N: usize>(
        self,
        tensors: [&Tensor; N],
    ) -> Option<(Arch, [Floats<'_, impl Deref<Target = Storage>>; N])> {
        let Self::Fused(arch) = self else { return None };
        let mut floats = Vec::with_capacity(N);
        for x in tensors {
            floats.push(Floats::of(x)?);
        }
        Some((arch, floats.try_into().ok()?))
    }
}

impl LayerNorm {
    /// Biased variance, in two passes.
    fn center(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + self.eps)?.sqrt()?;
        Ok((centered, scale))
    }
}

/// The causal mask that is added to scores: (S, T), 0 or −inf, for queries at
/// positions `first`..`first + S`.
pub fn causal_mask(first: usize, s: usize, n: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let cell = |query: usize, key: usize| if key > first + query { f32::NEG_INFINITY } else { 0.0 };
    let cells = (0..s).flat_map(|query| (0..n).map(move |key| cell(query, key)));
    Ok(Tensor::from_iter(cells, device)?.reshape((s, n))?.to_dtype(dtype)?)
}

/// The values of a float32 tensor on the CPU whose last axis is contiguous, or that is a transposed
/// matrix.
struct Floats<'a, S> {
    storage: S,
    layout: &'a Layout,
}

impl Floats<'_, ()> {
    fn of(x: &Tensor) -> Option<Floats<'_, impl Deref<Target = Storage>>> {
        let (storage, layout) = x.storage_and_layout();
        let fits = matches!(layout.stride(), [.., 1] | [1, _]);
        let is_f32 = matches!(&*storage, Storage::Cpu(CpuStorage::F32(_)));
        (fits && is_f32).then_some(Floats { storage, layout })
    }
}

impl<S: Deref<Target = Storage>> Floats<'_, S> {
    fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    fn after_offset(&self) -> &[f32] {
        let Storage::Cpu(CpuStorage::F32(values)) = &*self.storage else {
            unreachable!("`of` checked this");
        };
        &values[self.layout.start_offset()..]
    }

    /// All values, last axis fastest.
    fn values(&self) -> &[f32] {
        debug_assert!(self.layout.is_contiguous());
        &self.after_offset()[..self.layout.shape().elem_count()]
    }

    /// (n, m)
    fn matrix(&self) -> Mat<'_> {
        let ([rows, columns], [down, right]) = (self.dims(), self.layout.stride()) else {
            unreachable!("products take matrices");
        };
        Mat { values: self.after_offset(), rows: *rows, columns: *columns, strides: (*down, *right) }
    }

    /// (n, H, d_head)
    fn heads(&self) -> Heads<'_> {
        let ([n, n_head, d_head], [position, head, _]) = (self.dims(), self.layout.stride()) else {
            unreachable!("tensors with heads have three axes");
        };
        let strides = (*position, *head);
        Heads { values: self.after_offset(), n: *n, n_head: *n_head, d_head: *d_head, strides }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Every way gives what the plain one gives, to 1e-5 of the largest value; −inf and NaN alike.
    fn agree(name: &str, of: impl Fn(Ops) -> Result<Tensor>) {
        agree_to(1e-8, name, of);
    }

    /// The same, or to `least`.
    fn agree_to(least: f32, name: &str, of: impl Fn(Ops) -> Result<Tensor>) {
        let plain = of(Ops::Plain).unwrap();
        let want = values(&plain);
        let largest = want.iter().filter(|x| x.is_finite()).fold(0f32, |a, x| a.max(x.abs()));
        let most = least.max(1e-5 * largest);
        for ops in Ops::available() {
            let got = of(ops).unwrap();
            assert_eq!(got.dims(), plain.dims(), "{name}, {ops:?}");
            for (i, (g, w)) in values(&got).into_iter().zip(&want).enumerate() {
                let same = if w.is_finite() {
                    (g - w).abs() <= most
                } else {
                    g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan())
                };
                assert!(same, "{name}[{i}], {ops:?}: {g}, plainly {w}");
            }
        }
    }

    fn random(shape: &[usize], scale: f64) -> Tensor {
        let n: usize = shape.iter().product();
        let value = |i: usize| ((i as f64 * 12.9898 + n as f64).sin() * 43758.5453).fract() * scale;
        let values: Vec<f32> = (0..n).map(|i| value(i) as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_way_agrees_with_the_plain_one(
            s in prop_oneof![1usize..8, 20usize..90],
            before in 0usize..70,
            (h, d_head) in (1usize..4, 1usize..20),
            (n_in, n_out) in (prop_oneof![1usize..80, 1000usize..1100], 1usize..300),
            scale in 0.1f64..20.0,
        ) {
            let w = |ops| Conv1D::new(&random(&[n_in, n_out], 1.0), random(&[n_out], 1.0), ops).unwrap();
            let x = random(&[s, n_in], scale);
            agree("linear", |ops| ops.linear(&x, &w(ops)));
            for ops in Ops::available() {
                prop_assert_eq!(values(&w(ops).weight().unwrap()), values(&w(Ops::Plain).weight().unwrap()));
            }
            agree("linear_part", |ops| ops.linear_part(&x, &w(ops), n_out / 3, (s, n_out - n_out / 3)));
            let rows = random(&[n_out, n_in], 1.0);
            let table = |ops| Table::new(&rows, ops).unwrap();
            agree("logits", |ops| ops.logits(&x, &table(ops)));
            let g = random(&[s, n_out], scale);
            agree("linear_back", |ops| ops.linear_back(&g, &w(ops)));
            agree("logits_back", |ops| ops.logits_back(&g, &table(ops)));
            let some: Vec<u32> = (0..n_out as u32).rev().step_by(2).collect();
            for ops in Ops::available() {
                prop_assert_eq!(table(ops).dims(), (n_out, n_in));
                prop_assert_eq!(values(&table(ops).all().unwrap()), values(&rows));
                let gathered = values(&table(ops).rows(&some).unwrap());
                prop_assert_eq!(gathered, values(&table(Ops::Plain).rows(&some).unwrap()));
                let all = ops.logits(&x, &table(ops)).unwrap();
                let some = ops.logits_of(&x, &table(ops), n_out / 3..n_out).unwrap();
                if !matches!(ops, Ops::Plain) {
                    let part = all.narrow(1, n_out / 3, n_out - n_out / 3).unwrap();
                    prop_assert_eq!(values(&some), values(&part));
                }
            }
            let ln = LayerNorm { weight: random(&[n_in], 1.0), bias: random(&[n_in], 1.0), eps: 1e-5 };
            agree("add", |ops| ops.add(&x, &x));
            agree("layer_norm", |ops| ops.layer_norm(&x, &ln));
            agree("center", |ops| Ok(ops.center(&x, &ln)?.0));
            agree("scale", |ops| Ok(ops.center(&x, &ln)?.1));
            agree_to(1e-4, "layer_norm_back", |ops| ops.layer_norm_back(&x, &ln, &x));
            for ops in Ops::available() {
                let (centered, scale) = ops.center(&x, &ln).unwrap();
                let steps = ops.affine(&ops.divide(&centered, &scale).unwrap(), &ln).unwrap();
                prop_assert_eq!(values(&steps), values(&ops.layer_norm(&x, &ln).unwrap()));
            }
            // Plainly, 1 + tanh(u) is rounded to 6e-8 where it is nearly 0.
            let least = values(&x).iter().fold(1e-3, |most: f32, x| most.max(x.abs())) * 1e-7;
            agree_to(least, "gelu_new", |ops| ops.activation(Activation::GeluNew, &x));
            agree("gelu_new_back", |ops| ops.activation_back(Activation::GeluNew, &x, &x));

            let n = before + s;
            let (q, k, v) = (random(&[n, h, d_head], scale), random(&[n, h, d_head], 1.0), random(&[n, h, d_head], 1.0));
            let q = q.narrow(0, before, s).unwrap();
            agree("scores", |ops| ops.scores(&q, &k, before, 0.3));
            let last = h - 1;
            let head = |x: &Tensor| x.narrow(1, last, 1).unwrap();
            agree("scores of a head", |ops| ops.scores(&head(&q), &head(&k), before, 0.3));
            let scores = Ops::Plain.scores(&q, &k, before, 0.3).unwrap();
            agree("softmax", |ops| ops.softmax(&scores));
            agree("softmax_back", |ops| ops.softmax_back(&ops.softmax(&scores)?, &random(&[h, s, n], 1.0)));
            agree("weigh", |ops| ops.weigh(&ops.softmax(&scores)?, &v));
            agree("attention", |ops| ops.attention(&q, &k, &v, 0.3, 0));
            let all = random(&[n, h, d_head], scale);
            let g = random(&[n, h, d_head], 2.0);
            for which in 0..3 {
                agree_to(1e-4, "attention_back", |ops| Ok(ops.attention_back(&all, &k, &v, &g, 0.3)?[which].clone()));
            }
            agree("attention as of many", |ops| ops.attention(&q, &k, &v, 0.3, 100));
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trouble() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = vec![0.0, -0.0, 1e-30, -5.0, 5.0, -12.0, 12.0, -1e4, 1e4, -200.0, 200.0, nan];
        let x = Tensor::new(x, &Device::Cpu).unwrap();
        agree("gelu_new", |ops| ops.activation(Activation::GeluNew, &x));
        let rows =
            [[-inf, 0.0, 3.0], [-200.0, 0.0, -88.0], [-inf, -inf, -inf], [nan, 1.0, 2.0], [1e4, 1e4, -1e4]];
        let rows = Tensor::new(&rows, &Device::Cpu).unwrap();
        agree("softmax", |ops| ops.softmax(&rows));
    }
}
