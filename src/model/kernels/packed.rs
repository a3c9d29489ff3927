//! Products with a matrix that is stored in the order in which they read it.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Mat;
use super::memory::{Buffer, in_stripes};

/// Rows of x that are processed together: with two vectors each, the sums fill the registers.
pub const ROWS: usize = 6;
/// The number of such groups that stay in the cache while the panels stream by.
const GROUPS: usize = 11;
/// Rows of a panel that stay in the cache while the rows of x stream by.
const DEPTH: usize = 1024;

/// A matrix (K, N) cut into panels of a few columns, each stored row by row: a product reads it
/// once, from front to back. The last panel is padded with zeros.
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

    /// The matrix row by row.
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

    /// A column: K values.
    pub fn column(&self, j: usize, out: &mut [f32]) {
        assert!(j < self.columns, "column {j} of {}", self.columns);
        let panel = self.panel(j / self.width, 0..self.rows);
        out.iter_mut()
            .zip(panel[j % self.width..].iter().step_by(self.width))
            .for_each(|(to, from)| *to = *from);
    }

    /// Columns `columns` of x · w + bias, on all threads: (S, K) · (K, N) → (S, …).
    pub fn linear(&self, x: Mat, columns: Range<usize>, bias: Option<&[f32]>) -> Vec<f32> {
        let panels = self.panels(&columns);
        let per_stripe = panels.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        let stripes = panels
            .step_by(per_stripe)
            .map(|p| columns.start.max(p * self.width)..columns.end.min((p + per_stripe) * self.width));
        let rows = Rows::new(x);
        in_stripes(x.rows, stripes, |stripe, out| {
            let start = stripe.start;
            let bias = bias.map(|bias| &bias[start - columns.start..][..stripe.len()]);
            self.product(&rows, stripe, bias, |row, column, sums| out.put(row, column - start, sums));
        })
    }

    /// The first n columns of x · w on this thread, for as many rows of w as x has columns; the rows
    /// of `out` are `stride` apart.
    pub fn part(&self, x: Mat, n: usize, out: &mut [f32], stride: usize) {
        self.product(&Rows::new(x), 0..n, None, |row, column, sums| {
            out[row * stride + column..][..sums.len()].copy_from_slice(sums);
        });
    }

    /// Calls `put` with a row, a column and the sums from there on, until all are done.
    fn product(
        &self,
        x: &Rows,
        columns: Range<usize>,
        bias: Option<&[f32]>,
        put: impl FnMut(usize, usize, &[f32]),
    ) {
        assert!(x.columns <= self.rows && columns.end <= self.columns);
        self.arch.dispatch(Product { x, w: self, columns, bias, put });
    }

    /// The panels that contain the columns.
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
    match n {
        8 if width == 8 => interleave::<8>(columns.t(), panel),
        16 if width == 16 => interleave::<16>(columns.t(), panel),
        32 if width == 32 => interleave::<32>(columns.t(), panel),
        _ => {
            for j in 0..n {
                let column = columns.values[j * w.strides.1..].iter().step_by(w.strides.0.max(1));
                panel.iter_mut().skip(j).step_by(width).zip(column).for_each(|(to, from)| *to = *from);
            }
        }
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

/// (S, K), the rows in groups, each group column by column: the order in which a product
/// reads them.
pub struct Rows {
    n: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Rows {
    /// A matrix whose rows or columns are contiguous.
    pub fn new(x: Mat) -> Self {
        let mut values = vec![0.0; x.rows * x.columns];
        let groups = values.par_chunks_mut((ROWS * x.columns).max(1)).with_min_len(GROUPS);
        groups.enumerate().for_each(|(i, group)| {
            let n = group.len() / x.columns;
            let rows = x.rows(i * ROWS..i * ROWS + n);
            if x.strides.0 == 1 {
                for (j, to) in group.chunks_exact_mut(n).enumerate() {
                    to.copy_from_slice(&rows.values[j * x.strides.1..][..n]);
                }
                return;
            }
            match n {
                1 => interleave::<1>(rows, group),
                2 => interleave::<2>(rows, group),
                3 => interleave::<3>(rows, group),
                4 => interleave::<4>(rows, group),
                5 => interleave::<5>(rows, group),
                _ => interleave::<ROWS>(rows, group),
            }
        });
        Self { n: x.rows, columns: x.columns, values }
    }

    /// The columns `ks` of a group of `n` rows.
    fn group(&self, i: usize, n: usize, ks: &Range<usize>) -> &[f32] {
        &self.values[i * ROWS * self.columns..][ks.start * n..ks.end * n]
    }

    /// Adds columns `ks` of rows · panel, (n, ks) · (ks, width), to the (n, width) sums of whole groups
    /// of rows, from row `first` on, which starts a group; meanwhile prefetches `next`.
    #[inline(always)]
    pub fn times<S: Simd>(
        &self,
        simd: S,
        first: usize,
        ks: &Range<usize>,
        panel: &[f32],
        next: &[f32],
        sums: &mut [f32],
    ) {
        let width = 2 * S::F32_LANES;
        let groups = sums.chunks_mut(ROWS * width);
        let mut next = next.chunks(next.len().div_ceil(groups.len().max(1)).max(1));
        for (i, sums) in groups.enumerate() {
            let n = sums.len() / width;
            let x = self.group(first / ROWS + i, n, ks);
            let next = next.next().unwrap_or(&[]);
            match n {
                1 => tile::<S, 1>(simd, x, panel, sums, next),
                2 => tile::<S, 2>(simd, x, panel, sums, next),
                3 => tile::<S, 3>(simd, x, panel, sums, next),
                4 => tile::<S, 4>(simd, x, panel, sums, next),
                5 => tile::<S, 5>(simd, x, panel, sums, next),
                _ => tile::<S, ROWS>(simd, x, panel, sums, next),
            }
        }
    }
}

/// R rows, column by column.
fn interleave<const R: usize>(x: Mat, out: &mut [f32]) {
    assert!(x.strides.1 == 1);
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x.values[r * x.strides.0..][..x.columns]);
    for (j, column) in out.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        for r in 0..R {
            column[r] = rows[r][j];
        }
    }
}

/// Columns of x · w + bias on this thread, (S, K) · (K, N); passes the sums of a row in a panel to `put`.
struct Product<'a, P> {
    x: &'a Rows,
    w: &'a Packed,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
    put: P,
}

impl<P: FnMut(usize, usize, &[f32])> WithSimd for Product<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, columns, bias, mut put } = self;
        let width = 2 * S::F32_LANES;
        let panels = w.panels(&columns);
        let mut start = vec![0.0; panels.len() * width];
        if let Some(bias) = bias {
            start[columns.start - panels.start * width..][..bias.len()].copy_from_slice(bias);
        }
        let passes = x.columns.div_ceil(DEPTH).max(1);
        let depth = x.columns.div_ceil(passes);
        let block = x.n.min(GROUPS * ROWS);
        // The sums of more than one panel are only kept between two passes.
        let kept = if passes > 1 { panels.len() } else { 1 };
        let mut sums = vec![0.0; kept * block * width];
        for first in (0..x.n).step_by(block.max(1)) {
            let n = block.min(x.n - first);
            for pass in 0..passes {
                let ks = pass * depth..x.columns.min((pass + 1) * depth);
                for (i, start) in start.chunks_exact(width).enumerate() {
                    let panel = w.panel(panels.start + i, ks.clone());
                    let last = i + 1 == panels.len();
                    let next = if last { &[] } else { w.panel(panels.start + i + 1, ks.clone()) };
                    let sums = &mut sums[i % kept * block * width..][..n * width];
                    if pass == 0 {
                        sums.chunks_exact_mut(width).for_each(|sums| sums.copy_from_slice(start));
                    }
                    x.times(simd, first, &ks, panel, next, sums);
                    if pass + 1 < passes {
                        continue;
                    }
                    let column = (panels.start + i) * width;
                    let wanted = columns.start.max(column)..columns.end.min(column + width);
                    for (r, sums) in sums.chunks_exact(width).enumerate() {
                        // Separate cases, so that the length of the copy is known at compile time.
                        let whole = wanted.len() == width;
                        let inside = wanted.start - column..wanted.end - column;
                        put(first + r, wanted.start, if whole { sums } else { &sums[inside] });
                    }
                }
            }
        }
    }
}

/// Adds x · panel, (R, K) · (K, width), to R rows of sums, and prefetches `next`
/// meanwhile.
#[inline(always)]
fn tile<S: Simd, const R: usize>(simd: S, x: &[f32], panel: &[f32], sums: &mut [f32], next: &[f32]) {
    let held = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<2>().0;
    let mut sums: [[S::f32s; 2]; R] = std::array::from_fn(|r| held[r]);
    let (twice, last) = S::as_simd_f32s(panel).0.as_chunks::<2>().0.as_chunks::<2>();
    let (x_twice, x_last) = x.as_chunks::<R>().0.as_chunks::<2>();
    let mut next = next.chunks(next.len().div_ceil(twice.len().max(1)).max(1));
    for (rows, x) in twice.iter().zip(x_twice) {
        if let Some(next) = next.next() {
            prefetch(next);
        }
        step(simd, x[0], rows[0], &mut sums);
        step(simd, x[1], rows[1], &mut sums);
    }
    for (&row, &x) in last.iter().zip(x_last) {
        step(simd, x, row, &mut sums);
    }
    held.copy_from_slice(&sums);
}

/// Adds x times a row of a panel.
#[inline(always)]
fn step<S: Simd, const R: usize>(
    simd: S,
    x: [f32; R],
    [left, right]: [S::f32s; 2],
    sums: &mut [[S::f32s; 2]; R],
) {
    for r in 0..R {
        let x = simd.splat_f32s(x[r]);
        sums[r][0] = simd.mul_add_e_f32s(x, left, sums[r][0]);
        sums[r][1] = simd.mul_add_e_f32s(x, right, sums[r][1]);
    }
}

/// Prefetches data that is read soon.
#[inline(always)]
fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, so any address is allowed.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
