//! Causal attention, fused and in three steps.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::memory::in_pieces;
use super::packed::{Packed, ROWS, Rows};
use super::{FewRows, LANES, Mat, Softmax, SoftmaxBack, WIDEST, exp};

/// With fewer queries than this, packing keys and values does not pay.
const FEW_QUERIES: usize = 8;
/// The number of queries of a head in one unit of work.
const QUERIES: usize = 256;
/// The same in the backward pass, where each keeps two rows of as many keys as it sees.
const QUERIES_BACK: usize = 96;

/// (T, H, d_head) inside a slice: the matrix of a head is (T, d_head).
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub values: &'a [f32],
    pub n: usize,
    pub n_head: usize,
    pub d_head: usize,
    /// The strides from one position to the next, and from one head to the next.
    pub strides: (usize, usize),
}

impl<'a> Heads<'a> {
    fn head(&self, head: usize) -> Mat<'a> {
        let values = &self.values[head * self.strides.1..];
        Mat { values, rows: self.n, columns: self.d_head, strides: (self.strides.0, 1) }
    }
}

/// Causal attention for the last S of T positions: softmax(q · kᵀ · scale) · v for each head,
/// without the keys after a query: (S, H, d_head), in the order of arithmetic of at least `n_queries`.
pub fn attention(arch: Arch, q: Heads, k: Heads, v: Heads, scale: f32, n_queries: usize) -> Vec<f32> {
    let before = k.n - q.n;
    let mut out = vec![0.0; q.n * q.n_head * q.d_head];
    let mut heads: Vec<Vec<&mut [f32]>> = (0..q.n_head).map(|_| Vec::with_capacity(q.n)).collect();
    for (i, row) in out.chunks_exact_mut(q.d_head).enumerate() {
        heads[i % q.n_head].push(row);
    }
    heads.par_iter_mut().with_max_len(1).enumerate().for_each(|(head, out)| {
        let (q, k, v) = (q.head(head), k.head(head), v.head(head));
        if q.rows.max(n_queries) < FEW_QUERIES {
            return attention_of_few(arch, q, k, v, scale, out);
        }
        let (keys, values) = (Rows::new(k), Rows::new(v.t()));
        out.par_chunks_mut(QUERIES).enumerate().rev().for_each(|(i, out)| {
            let first = i * QUERIES;
            let (q, seen) = (q.rows(first..first + out.len()), before + first + 1);
            arch.dispatch(Attention { q, keys: &keys, values: &values, v, scale, seen, out });
        });
    });
    out
}

/// Attention of one head, query after query: (S, d_head).
fn attention_of_few(arch: Arch, q: Mat, k: Mat, v: Mat, scale: f32, out: &mut [&mut [f32]]) {
    for (i, z) in out.iter_mut().enumerate() {
        let seen = 0..k.rows - q.rows + i + 1;
        let mut pattern = vec![0.0; seen.len()];
        let few = FewRows {
            x: q.rows(i..i + 1),
            w: k.rows(seen.clone()).t(),
            out: &mut pattern,
            stride: seen.len(),
        };
        arch.dispatch(few);
        for score in &mut pattern {
            *score *= scale;
        }
        arch.dispatch(Softmax { rows: &mut pattern, n: seen.len() });
        let x = Mat::new(&pattern, seen.len());
        arch.dispatch(FewRows { x, w: v.rows(seen), out: z, stride: v.columns });
    }
}

/// Attention of one head for some queries. As many as a panel is wide are processed together, a column
/// each: their pattern, (keys, width), is the panel that the values are multiplied with.
struct Attention<'a, 'o> {
    q: Mat<'a>,
    /// (T, d_head)
    keys: &'a Rows,
    /// (d_head, T)
    values: &'a Rows,
    /// (T, d_head)
    v: Mat<'a>,
    scale: f32,
    /// The number of keys that the first query sees; each later query sees one more.
    seen: usize,
    out: &'a mut [&'o mut [f32]],
}

impl WithSimd for Attention<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, keys, values, v, scale, seen, out } = self;
        let (width, d_head) = (2 * S::F32_LANES, q.columns);
        let mut queries = vec![0.0; d_head * width];
        let mut pattern = vec![0.0; (seen + out.len()).next_multiple_of(ROWS) * width];
        let mut z = vec![0.0; d_head * width];
        for (i, out) in out.chunks_mut(width).enumerate() {
            let (first, seen) = (i * width, seen + i * width);
            for (lane, query) in (first..first + out.len()).enumerate() {
                let query = &q.values[query * q.strides.0..][..d_head];
                queries.iter_mut().skip(lane).step_by(width).zip(query).for_each(|(to, from)| *to = *from);
            }
            let all = seen + out.len() - 1;
            let groups = all.next_multiple_of(ROWS).min(v.rows);
            let pattern = &mut pattern[..groups * width];
            pattern.fill(0.0);
            keys.times(simd, 0, &(0..d_head), &queries, &[], pattern); // (T, width)
            let pattern = &mut pattern[..all * width];
            softmax_of_columns::<S>(pattern, scale, seen);
            // Later keys must not affect a query: 0 · NaN would be NaN.
            let together = if (seen..all).all(|key| v.is_finite(key)) { out.len() } else { 1 };
            for lanes in (0..out.len()).step_by(together).map(|lane| lane..lane + together) {
                let seen = seen + lanes.end - 1;
                z.fill(0.0);
                values.times(simd, 0, &(0..seen), &pattern[..seen * width], &[], &mut z); // (d_head, width)
                for lane in lanes {
                    let column = z.iter().skip(lane).step_by(width);
                    out[lane].iter_mut().zip(column).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

/// Replaces columns by the softmax of `scale` times them: of the first column, its first `seen` rows; of
/// each later column, one more. Equal to the bit to [`Softmax`] of rows.
#[inline(always)]
fn softmax_of_columns<S: Simd>(pattern: &mut [f32], scale: f32, seen: usize) {
    let width = 2 * S::F32_LANES;
    let mut max = [f32::NEG_INFINITY; WIDEST];
    let max = &mut max[..width];
    let (all_see, some_see) = pattern.split_at_mut(seen * width);
    for row in all_see.chunks_exact(width) {
        larger(max, row);
    }
    for (i, row) in some_see.chunks_exact_mut(width).enumerate() {
        row[..=i].fill(f32::NEG_INFINITY);
        larger(max, row);
    }
    for max in &mut *max {
        *max *= scale;
    }
    let mut lanes = [[0.0; WIDEST]; LANES];
    for (key, row) in pattern.chunks_exact_mut(width).enumerate() {
        let sums = &mut lanes[key % LANES][..width];
        for ((x, max), sum) in row.iter_mut().zip(&*max).zip(sums) {
            *x = exp(*x * scale - max);
            *sum += *x;
        }
    }
    let mut per_total = [0.0; WIDEST];
    let per_total = &mut per_total[..width];
    for sums in &lanes {
        per_total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    for total in &mut *per_total {
        *total = 1.0 / *total;
    }
    for row in pattern.chunks_exact_mut(width) {
        row.iter_mut().zip(&*per_total).for_each(|(x, per_total)| *x *= per_total);
    }
}

#[inline(always)]
fn larger(max: &mut [f32], row: &[f32]) {
    for (max, x) in max.iter_mut().zip(row) {
        *max = if *x > *max { *x } else { *max };
    }
}

/// A matrix that the rows of a head are multiplied with, packed if that pays.
enum Factor<'a> {
    Packed(Packed),
    Plain(Arch, Mat<'a>),
}

impl<'a> Factor<'a> {
    fn of_heads(
        arch: Arch,
        heads: Heads<'a>,
        n_queries: usize,
        of: impl Fn(Mat<'a>) -> Mat<'a> + Sync,
    ) -> Vec<Self> {
        let factor = |head| match of(heads.head(head)) {
            mat if n_queries < FEW_QUERIES => Self::Plain(arch, mat),
            mat => Self::Packed(Packed::new(arch, mat)),
        };
        (0..heads.n_head).into_par_iter().map(factor).collect()
    }

    /// x · w for as many rows of w as x has columns, and its first n columns: (S, K) → (S, n) with
    /// rows `stride` apart.
    fn product(&self, x: Mat, n: usize, out: &mut [f32], stride: usize) {
        match self {
            Self::Packed(w) => w.part(x, n, out, stride),
            &Self::Plain(arch, w) => {
                let w = w.rows(0..x.columns).columns(0..n);
                arch.dispatch(FewRows { x, w, out, stride });
            }
        }
    }
}

/// The number of queries processed together: enough to fill the vector units, few enough that every
/// thread has work.
fn block_of(n_queries: usize) -> usize {
    n_queries.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(12).clamp(12, 96)
}

/// mask(q · kᵀ · scale) for the queries at positions `first`.. and all T keys: (H, S, T).
pub fn scores(arch: Arch, q: Heads, k: Heads, first: usize, scale: f32) -> Vec<f32> {
    let n = k.n;
    let k = Factor::of_heads(arch, k, q.n, Mat::t); // (d_head, T)
    let block = block_of(q.n);
    let block_rows = || (0..q.n).step_by(block).map(|start| start..q.n.min(start + block));
    let blocks: Vec<_> = (0..q.n_head).flat_map(|head| block_rows().map(move |rows| (head, rows))).collect();
    in_pieces(blocks.iter().map(|(_, rows)| rows.len() * n), |i, out| {
        let (head, rows) = &blocks[i];
        let keys = n.min(first + rows.end);
        k[*head].product(q.head(*head).rows(rows.clone()), keys, out, n);
        for (query, row) in rows.clone().zip(out.chunks_exact_mut(n)) {
            let (seen, future) = row.split_at_mut(n.min(first + query + 1));
            for score in seen {
                *score *= scale;
            }
            future.fill(f32::NEG_INFINITY);
        }
    })
}

/// pattern · v for each head: (H, S, T), (T, H, d_head) → (S, H, d_head).
pub fn weigh(arch: Arch, pattern: &[f32], n_queries: usize, v: Heads) -> Vec<f32> {
    let (n, d_head, width) = (v.n, v.d_head, v.n_head * v.d_head);
    let finite: Vec<bool> = (0..v.n_head).map(|h| (0..n).all(|key| v.head(h).is_finite(key))).collect();
    let v = Factor::of_heads(arch, v, n_queries, |v| v); // (T, d_head)
    let mut out = vec![0.0; n_queries * width];
    let block = block_of(n_queries);
    out.par_chunks_mut(block * width).enumerate().for_each(|(i, out)| {
        let rows = i * block..n_queries.min((i + 1) * block);
        for (head, v) in v.iter().enumerate() {
            let of_head = Mat::new(&pattern[head * n_queries * n..][..n_queries * n], n).rows(rows.clone());
            let out = &mut out[head * d_head..];
            if finite[head] {
                v.product(of_head, d_head, out, width);
                continue;
            }
            // Keys without weight at the end of a row must not affect it: 0 · NaN would be NaN.
            for (i, z) in out.chunks_mut(width).enumerate().take(rows.len()) {
                let row = of_head.rows(i..i + 1);
                let seen = row.values[..n].iter().rposition(|p| *p != 0.0).map_or(0, |last| last + 1);
                v.product(row.columns(0..seen), d_head, z, width);
            }
        }
    });
    out
}

/// The gradients of queries, keys and values of causal attention, of that of what it gathers, g: (T, H, d_head) each.
/// With p = softmax(q · kᵀ · scale) and s = p ⊙ (g · vᵀ − Σ p ⊙ (g · vᵀ)) · scale, head by head: s · k, sᵀ · q
/// and pᵀ · g.
pub fn attention_back(arch: Arch, q: Heads, k: Heads, v: Heads, g: Heads, scale: f32) -> [Vec<f32>; 3] {
    let (n, d_head, width) = (q.n, q.d_head, q.n_head * q.d_head);
    // A column of blocks of d_head values for each head.
    let mut out = [(); 3].map(|()| vec![0.0; n * width]);
    let mut heads: Vec<[Vec<&mut [f32]>; 3]> =
        (0..q.n_head).map(|_| [(); 3].map(|()| Vec::with_capacity(n))).collect();
    for (which, out) in out.iter_mut().enumerate() {
        for (i, row) in out.chunks_exact_mut(d_head).enumerate() {
            heads[i % q.n_head][which].push(row);
        }
    }
    heads.par_iter_mut().with_max_len(1).enumerate().for_each(|(head, out)| {
        let [q, k, v, g] = [q, k, v, g].map(|heads| heads.head(head));
        attention_back_of_head(arch, [q, k, v, g], scale, out);
    });
    out
}

/// The same for one head, some queries at a time.
fn attention_back_of_head(arch: Arch, [q, k, v, g]: [Mat; 4], scale: f32, out: &mut [Vec<&mut [f32]>; 3]) {
    let (n, d_head) = (q.rows, q.columns);
    let keys = Packed::new(arch, k.t()); // (d_head, T)
    let values = Packed::new(arch, v.t()); // (d_head, T)
    let keys_by_row = Packed::new(arch, k); // (T, d_head)
    let mut part = vec![0.0; n.max(QUERIES_BACK) * d_head];
    for first in (0..n).step_by(QUERIES_BACK) {
        let rows = first..n.min(first + QUERIES_BACK);
        let (seen, queries) = (rows.end, rows.len());
        let (q, g) = (q.rows(rows.clone()), g.rows(rows.clone()));
        let mut p = vec![0.0; queries * seen];
        keys.part(q, seen, &mut p, seen);
        for (i, row) in p.chunks_exact_mut(seen).enumerate() {
            let (row, future) = row.split_at_mut(first + i + 1);
            for score in row.iter_mut() {
                *score *= scale;
            }
            arch.dispatch(Softmax { n: row.len(), rows: row });
            future.fill(0.0);
        }
        let mut s = vec![0.0; queries * seen];
        values.part(g, seen, &mut s, seen); // g · vᵀ
        for (i, (s, p)) in s.chunks_exact_mut(seen).zip(p.chunks_exact(seen)).enumerate() {
            let (s, future) = s.split_at_mut(first + i + 1);
            arch.dispatch(SoftmaxBack { p: &p[..s.len()], g: s });
            for s in s.iter_mut() {
                *s *= scale;
            }
            future.fill(0.0);
        }
        let (p, s) = (Mat::new(&p, seen), Mat::new(&s, seen));
        let part = &mut part[..queries * d_head];
        keys_by_row.part(s, d_head, part, d_head);
        for (to, from) in out[0][rows.clone()].iter_mut().zip(part.chunks_exact(d_head)) {
            to.copy_from_slice(from);
        }
        for (which, weights, of) in [(1, s, q), (2, p, g)] {
            let mut part = vec![0.0; seen * d_head];
            Packed::new(arch, of).part(weights.t(), d_head, &mut part, d_head); // weightsᵀ · of
            for (to, from) in out[which].iter_mut().zip(part.chunks_exact(d_head)) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }
}
