//! Products with a matrix that is kept in the order in which they read it.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Mat;
use super::memory::Buffer;

/// Rows of x that are taken together: with two vectors for each, the sums fill the registers.
const ROWS: usize = 6;
/// So many such groups stay in the cache while the panels go by.
const GROUPS: usize = 8;
/// Rows of a panel that stay in the cache while the rows of x go by.
const DEPTH: usize = 1024;
/// The widest panel: two vectors of AVX-512.
const WIDEST: usize = 32;

/// A matrix (K, N) cut into panels of a few columns, each panel row after row: a product reads it
/// once, from front to back. A last panel that is not full ends in zeros.
#[derive(Debug)]
pub struct Packed {
    arch: Arch,
    rows: usize,
    columns: usize,
    /// Columns in a panel: two vectors.
    width: usize,
    values: Buffer,
}

impl Packed {
    /// Packs `w` for `arch`.
    pub fn new(arch: Arch, w: Mat) -> Self {
        let width = arch.dispatch(PanelWidth);
        let mut values = Buffer::zeros(w.columns.div_ceil(width) * w.rows * width);
        let panels = values.par_chunks_mut((w.rows * width).max(1));
        panels.enumerate().for_each(|(i, panel)| pack(panel, w, i * width, width));
        Self { arch, rows: w.rows, columns: w.columns, width, values }
    }

    /// (K, N)
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The matrix row after row.
    pub fn unpack(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.columns];
        let rows = out.par_chunks_mut(self.columns.max(1)).with_min_len(16);
        rows.enumerate().for_each(|(i, row)| {
            for (p, piece) in row.chunks_mut(self.width).enumerate() {
                piece.copy_from_slice(&self.panel(p, i..i + 1)[..piece.len()]);
            }
        });
        out
    }

    /// Columns `columns` of x · w + bias, on all threads: (S, K) · (K, N) → (S, …).
    pub fn linear(&self, x: Mat, columns: Range<usize>, bias: Option<&[f32]>) -> Vec<f32> {
        let n = columns.len();
        let mut out = vec![0.0; x.rows * n];
        let panels = self.panels(&columns);
        let per_stripe = panels.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        let mut stripes: Vec<(Range<usize>, Vec<&mut [f32]>)> = panels
            .step_by(per_stripe)
            .map(|p| columns.start.max(p * self.width)..columns.end.min((p + per_stripe) * self.width))
            .map(|columns| (columns, Vec::with_capacity(x.rows)))
            .collect();
        for mut row in out.chunks_exact_mut(n.max(1)) {
            for (columns, rows) in &mut stripes {
                let (piece, rest) = row.split_at_mut(columns.len());
                rows.push(piece);
                row = rest;
            }
        }
        let x = Rows::new(x);
        stripes.into_par_iter().with_max_len(1).for_each(|(stripe, out)| {
            let bias = bias.map(|bias| &bias[stripe.start - columns.start..][..stripe.len()]);
            self.product(&x, stripe, bias, out);
        });
        out
    }

    /// The first n columns of x · w on this thread, of as many rows of w as x has columns; the rows
    /// of `out` are `stride` apart.
    pub fn part(&self, x: Mat, n: usize, out: &mut [f32], stride: usize) {
        let out = out.chunks_mut(stride).take(x.rows).map(|row| &mut row[..n]).collect();
        self.product(&Rows::new(x), 0..n, None, out);
    }

    fn product(&self, x: &Rows, columns: Range<usize>, bias: Option<&[f32]>, out: Vec<&mut [f32]>) {
        assert!(x.columns <= self.rows && columns.end <= self.columns);
        assert!(out.len() == x.n && out.iter().all(|row| row.len() == columns.len()));
        self.arch.dispatch(Product { x, w: self, columns, bias, out });
    }

    /// The panels in which columns lie.
    fn panels(&self, columns: &Range<usize>) -> Range<usize> {
        columns.start / self.width..columns.end.div_ceil(self.width)
    }

    /// Some rows of a panel.
    fn panel(&self, i: usize, rows: Range<usize>) -> &[f32] {
        &self.values[i * self.rows * self.width..][rows.start * self.width..rows.end * self.width]
    }
}

/// Copies the columns of `w` from `first` on.
fn pack(panel: &mut [f32], w: Mat, first: usize, width: usize) {
    let n = width.min(w.columns - first);
    let columns = w.columns(first..first + n);
    if w.strides.1 == 1 {
        for (i, row) in panel.chunks_exact_mut(width).enumerate() {
            row[..n].copy_from_slice(&columns.values[i * w.strides.0..][..n]);
        }
        return;
    }
    for j in 0..n {
        let column = columns.values[j * w.strides.1..].iter().step_by(w.strides.0.max(1));
        panel.iter_mut().skip(j).step_by(width).zip(column).for_each(|(to, from)| *to = *from);
    }
}

/// Two vectors.
struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// The rows of x in groups, of each group column after column: in the order in which a product
/// reads them.
struct Rows {
    n: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Rows {
    fn new(x: Mat) -> Self {
        assert!(x.strides.1 == 1);
        let mut values = vec![0.0; x.rows * x.columns];
        let groups = values.par_chunks_mut((ROWS * x.columns).max(1)).with_min_len(GROUPS);
        groups.enumerate().for_each(|(i, group)| {
            let n = group.len() / x.columns;
            for r in 0..n {
                let row = &x.values[(i * ROWS + r) * x.strides.0..][..x.columns];
                group.iter_mut().skip(r).step_by(n).zip(row).for_each(|(to, from)| *to = *from);
            }
        });
        Self { n: x.rows, columns: x.columns, values }
    }

    /// The columns `ks` of a group of `n` rows.
    fn group(&self, i: usize, n: usize, ks: &Range<usize>) -> &[f32] {
        &self.values[i * ROWS * self.columns..][ks.start * n..ks.end * n]
    }
}

struct Product<'a, 'o> {
    x: &'a Rows,
    w: &'a Packed,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
    out: Vec<&'o mut [f32]>,
}

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, columns, bias, mut out } = self;
        let passes = x.columns.div_ceil(DEPTH).max(1);
        let depth = x.columns.div_ceil(passes).max(1);
        for (b, out) in out.chunks_mut(GROUPS * ROWS).enumerate() {
            for row in &mut *out {
                match bias {
                    Some(bias) => row.copy_from_slice(bias),
                    None => row.fill(0.0),
                }
            }
            for k in (0..x.columns).step_by(depth) {
                let ks = k..x.columns.min(k + depth);
                for p in w.panels(&columns) {
                    let start = p * w.width;
                    let wanted = columns.start.max(start)..columns.end.min(start + w.width);
                    let at = wanted.start - columns.start;
                    let inside = wanted.start - start..wanted.end - start;
                    let panel = w.panel(p, ks.clone());
                    for (g, rows) in out.chunks_mut(ROWS).enumerate() {
                        let x = x.group(b * GROUPS + g, rows.len(), &ks);
                        match rows.len() {
                            1 => tile::<S, 1>(simd, x, panel, rows, at, &inside),
                            2 => tile::<S, 2>(simd, x, panel, rows, at, &inside),
                            3 => tile::<S, 3>(simd, x, panel, rows, at, &inside),
                            4 => tile::<S, 4>(simd, x, panel, rows, at, &inside),
                            5 => tile::<S, 5>(simd, x, panel, rows, at, &inside),
                            _ => tile::<S, ROWS>(simd, x, panel, rows, at, &inside),
                        }
                    }
                }
            }
        }
    }
}

/// Adds to R rows of `out`, from column `at` on, those columns of x · panel that lie `inside`.
#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    x: &[f32],
    panel: &[f32],
    out: &mut [&mut [f32]],
    at: usize,
    inside: &Range<usize>,
) {
    let mut part = [0.0; WIDEST];
    let mut sums: [[S::f32s; 2]; R] = std::array::from_fn(|r| {
        let held = &out[r][at..at + inside.len()];
        if let &[a, b] = S::as_simd_f32s(held).0 {
            return [a, b];
        }
        part[inside.clone()].copy_from_slice(held);
        let part = S::as_simd_f32s(&part).0;
        [part[0], part[1]]
    });
    let panel = S::as_simd_f32s(panel).0.as_chunks::<2>().0;
    for (&[left, right], x) in panel.iter().zip(x.as_chunks::<R>().0) {
        for r in 0..R {
            let x = simd.splat_f32s(x[r]);
            sums[r][0] = simd.mul_add_e_f32s(x, left, sums[r][0]);
            sums[r][1] = simd.mul_add_e_f32s(x, right, sums[r][1]);
        }
    }
    for r in 0..R {
        let held = &mut out[r][at..at + inside.len()];
        if let [a, b] = S::as_mut_simd_f32s(held).0 {
            [*a, *b] = sums[r];
        } else {
            S::as_mut_simd_f32s(&mut part).0[..2].copy_from_slice(&sums[r]);
            held.copy_from_slice(&part[inside.clone()]);
        }
    }
}
