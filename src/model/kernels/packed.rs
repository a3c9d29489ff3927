//! Products with a matrix that is stored in the order in which they read it.

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Mat;
use super::memory::{Buffer, in_pieces, in_stripes};

/// Rows of x that are processed together: with two vectors each, the sums fill the registers.
pub const ROWS: usize = 6;
/// The number of such groups that stay in the cache while the panels stream by.
const GROUPS: usize = 11;
/// Rows of a panel that stay in the cache while the rows of x stream by.
const DEPTH: usize = 1024;
/// With fewer rows than this, turning panels does not pay.
const FEW: usize = 6;

thread_local! {
    /// A panel of a transposed matrix, while a product reads it.
    static TURNED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

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

    /// x · wᵀ on all threads: (S, N) · (K, N)ᵀ → (S, K). The panels of wᵀ are made from those of w while they
    /// are read, a piece per thread, so that there is no second copy of w.
    pub fn linear_t(&self, x: Mat) -> Vec<f32> {
        assert!(x.columns == self.columns);
        if x.rows < FEW {
            return (0..x.rows).flat_map(|i| self.row_t(x.rows(i..i + 1))).collect();
        }
        let rows = Rows::new(x);
        let panels = (0..self.rows).step_by(self.width);
        let stripes = panels.map(|first| first..self.rows.min(first + self.width));
        in_stripes(x.rows, stripes, |ks, out| {
            TURNED.with_borrow_mut(|panel| {
                let mut sums = vec![0.0; x.rows * self.width];
                let n = ks.len();
                self.arch.dispatch(Turned { x: &rows, w: self, ks, panel, sums: &mut sums });
                for (row, sums) in sums.chunks_exact(self.width).enumerate() {
                    out.put(row, 0, &sums[..n]);
                }
            });
        })
    }

    /// Rows `ks` of the columns `js` of w as a panel: (js, ks).
    fn turn(&self, ks: &Range<usize>, js: &Range<usize>, panel: &mut Vec<f32>) {
        let width = self.width;
        panel.resize(js.len() * width, 0.0);
        for (panel, i) in panel.chunks_mut(width * width).zip(js.start / width..) {
            let columns = panel.len() / width;
            let from = Mat::new(self.panel(i, ks.clone()), width).columns(0..columns); // (ks, columns)
            pack(panel, from.t(), 0, width);
        }
    }

    /// The same product for one row: each panel is read once, in memory order.
    fn row_t(&self, x: Mat) -> Vec<f32> {
        let x: Vec<f32> = x.values.iter().step_by(x.strides.1).take(x.columns).copied().collect();
        let n_panels = self.columns.div_ceil(self.width);
        let per_piece = n_panels.div_ceil(4 * rayon::current_num_threads()).max(1);
        let firsts: Vec<_> = (0..n_panels).step_by(per_piece).collect();
        // A sum of each piece for each row of w.
        let sums = in_pieces(firsts.iter().map(|_| self.rows), |i, out| {
            let panels = firsts[i]..n_panels.min(firsts[i] + per_piece);
            self.arch.dispatch(Dots { x: &x, w: self.all(), panels, out });
        });
        let mut out = vec![0.0; self.rows];
        for piece in sums.chunks_exact(self.rows.max(1)) {
            out.iter_mut().zip(piece).for_each(|(out, sum)| *out += sum);
        }
        out
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
        self.arch.dispatch(Product { x, w: self.all(), columns, bias, put });
    }

    fn all(&self) -> Panels<'_> {
        Panels { rows: self.rows, width: self.width, values: &self.values }
    }

    /// The panels that contain the columns.
    fn panels(&self, columns: &Range<usize>) -> Range<usize> {
        self.all().of(columns)
    }

    /// Some rows of a panel.
    fn panel(&self, i: usize, rows: Range<usize>) -> &[f32] {
        self.all().panel(i, rows)
    }
}

/// Panels of `width` columns, one after the other, each row by row.
#[derive(Clone, Copy)]
struct Panels<'a> {
    rows: usize,
    width: usize,
    values: &'a [f32],
}

impl<'a> Panels<'a> {
    /// Those that contain the columns.
    fn of(self, columns: &Range<usize>) -> Range<usize> {
        columns.start / self.width..columns.end.div_ceil(self.width)
    }

    /// Some rows of one.
    fn panel(self, i: usize, rows: Range<usize>) -> &'a [f32] {
        &self.values[i * self.rows * self.width..][rows.start * self.width..rows.end * self.width]
    }
}

/// Adds x · wᵀ for some rows of w, (S, N) · (ks, N)ᵀ, to the (S, width) sums: as many columns of w at a time as stay in
/// the cache when they are turned.
struct Turned<'a> {
    x: &'a Rows,
    w: &'a Packed,
    ks: Range<usize>,
    panel: &'a mut Vec<f32>,
    sums: &'a mut [f32],
}

impl WithSimd for Turned<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, ks, panel, sums } = self;
        let width = 2 * S::F32_LANES;
        for first in (0..w.columns).step_by(DEPTH) {
            let js = first..w.columns.min(first + DEPTH);
            w.turn(&ks, &js, panel);
            for (block, sums) in sums.chunks_mut(GROUPS * ROWS * width).enumerate() {
                x.times(simd, block * GROUPS * ROWS, &js, panel, &[], sums);
            }
        }
    }
}

/// Adds x · panelᵀ of some panels to a value for each of their rows: (N) · (K, N)ᵀ → (K).
struct Dots<'a> {
    x: &'a [f32],
    w: Panels<'a>,
    panels: Range<usize>,
    out: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, panels, out } = self;
        // Sums of each lane, added up at the end.
        let mut sums = vec![[simd.splat_f32s(0.0); 2]; w.rows];
        let mut padded = vec![0.0; w.width];
        for i in panels {
            let of_panel = &x[i * w.width..x.len().min((i + 1) * w.width)];
            padded[..of_panel.len()].copy_from_slice(of_panel);
            padded[of_panel.len()..].fill(0.0);
            let [left, right] = S::as_simd_f32s(&padded).0.as_chunks::<2>().0[0];
            let rows = S::as_simd_f32s(w.panel(i, 0..w.rows)).0.as_chunks::<2>().0;
            for (sums, &[a, b]) in sums.iter_mut().zip(rows) {
                sums[0] = simd.mul_add_e_f32s(left, a, sums[0]);
                sums[1] = simd.mul_add_e_f32s(right, b, sums[1]);
            }
        }
        for (out, [a, b]) in out.iter_mut().zip(sums) {
            *out += simd.reduce_sum_f32s(simd.add_f32s(a, b));
        }
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
    w: Panels<'a>,
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
        let panels = w.of(&columns);
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
