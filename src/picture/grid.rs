//! A window of a matrix, pooled to fit the space where it is drawn.

use std::ops::Range;

use super::Matrix;

/// What the `i`th of `n` has of `extent` when they share it evenly.
pub fn share(i: usize, extent: usize, n: usize) -> Range<usize> {
    i * extent / n..(i + 1) * extent / n
}

/// Which of `n` has the place `at` of `extent`.
pub fn shared(at: usize, extent: usize, n: usize) -> usize {
    ((at + 1) * n).saturating_sub(1) / extent.max(1)
}

/// How several values become one cell: pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// The value of largest magnitude, with its sign.
    #[default]
    Extreme,
    Mean,
}

impl Pooling {
    pub fn name(self) -> &'static str {
        match self {
            Self::Extreme => "largest |x|",
            Self::Mean => "mean",
        }
    }

    /// One value for many: NaN if any is, else ±inf as it pools, and −inf (a masked cell)
    /// only where all are.
    pub fn pool(self, values: impl IntoIterator<Item = f32>) -> f32 {
        let mut pool = Pool::new();
        for x in values {
            pool.add(x);
        }
        pool.value(self)
    }
}

/// The state of pooling for one cell.
#[derive(Clone, Copy)]
struct Pool {
    extreme: f32,
    sum: f64,
    n: u32,
}

impl Pool {
    fn new() -> Self {
        Self { extreme: f32::NEG_INFINITY, sum: 0.0, n: 0 }
    }

    fn add(&mut self, x: f32) {
        if x == f32::NEG_INFINITY {
            return; // masked: remains only if nothing else follows
        }
        if self.n == 0 || x.is_nan() || (!self.extreme.is_nan() && x.abs() > self.extreme.abs()) {
            self.extreme = x;
        }
        self.sum += f64::from(x);
        self.n += 1;
    }

    fn value(self, pooling: Pooling) -> f32 {
        match pooling {
            Pooling::Mean if self.n > 0 => (self.sum / f64::from(self.n)) as f32,
            _ => self.extreme,
        }
    }
}

/// Rows and columns of a matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Window {
    pub fn whole(n_rows: usize, n_columns: usize) -> Self {
        Self { rows: 0..n_rows, columns: 0..n_columns }
    }
}

/// A pooled window: `n_rows · n_columns` cells, each of `per_cell` = (rows, columns) values; the
/// last row and column may hold fewer.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Rows and columns of the whole matrix.
    pub dims: (usize, usize),
    pub window: Window,
    pub per_cell: (usize, usize),
    pub pooling: Pooling,
    pub n_rows: usize,
    pub n_columns: usize,
    pub cells: Vec<f32>,
}

impl Grid {
    /// Pools `window` of `matrix` (clipped to the matrix) by `per_cell` rows and columns.
    pub fn new(matrix: &Matrix, window: &Window, per_cell: (usize, usize), pooling: Pooling) -> Self {
        let cut =
            |range: &Range<usize>, n: usize| range.start.min(n)..range.end.min(n).max(range.start.min(n));
        let window = Window {
            rows: cut(&window.rows, matrix.n_rows),
            columns: cut(&window.columns, matrix.n_columns),
        };
        let per_cell = (per_cell.0.max(1), per_cell.1.max(1));
        let n_rows = window.rows.len().div_ceil(per_cell.0);
        let n_columns = window.columns.len().div_ceil(per_cell.1);
        let cells = matrix.read(|rows| {
            let mut cells = Vec::with_capacity(n_rows * n_columns);
            let mut pools = vec![Pool::new(); n_columns];
            for first in window.rows.clone().step_by(per_cell.0) {
                pools.fill(Pool::new());
                for r in first..(first + per_cell.0).min(window.rows.end) {
                    let values = &rows.get(r)[window.columns.clone()];
                    for (pool, chunk) in pools.iter_mut().zip(values.chunks(per_cell.1)) {
                        for &x in chunk {
                            pool.add(x);
                        }
                    }
                }
                cells.extend(pools.iter().map(|pool| pool.value(pooling)));
            }
            cells
        });
        let dims = (matrix.n_rows, matrix.n_columns);
        Self { dims, window, per_cell, pooling, n_rows, n_columns, cells }
    }

    /// Swaps rows and columns.
    #[must_use]
    pub fn transposed(self) -> Self {
        let cells = (0..self.n_columns)
            .flat_map(|column| (0..self.n_rows).map(move |row| row * self.n_columns + column))
            .map(|i| self.cells[i])
            .collect();
        Self {
            dims: (self.dims.1, self.dims.0),
            window: Window { rows: self.window.columns, columns: self.window.rows },
            per_cell: (self.per_cell.1, self.per_cell.0),
            pooling: self.pooling,
            n_rows: self.n_columns,
            n_columns: self.n_rows,
            cells,
        }
    }

    /// The cell at a row and column of the grid.
    pub fn cell(&self, row: usize, column: usize) -> Option<f32> {
        (row < self.n_rows && column < self.n_columns).then(|| self.cells[row * self.n_columns + column])
    }

    /// The row and column of the grid that hold a row and column of the matrix.
    pub fn place(&self, row: usize, column: usize) -> Option<(usize, usize)> {
        let inside = self.window.rows.contains(&row) && self.window.columns.contains(&column);
        inside.then(|| {
            let row = (row - self.window.rows.start) / self.per_cell.0;
            (row, (column - self.window.columns.start) / self.per_cell.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_and_nans_pool_as_said() {
        let inf = f32::INFINITY;
        assert_eq!(Pooling::Extreme.pool([1.0, -3.0, 2.0]), -3.0);
        assert_eq!(Pooling::Mean.pool([1.0, -3.0, -inf]), -1.0);
        for pooling in [Pooling::Extreme, Pooling::Mean] {
            assert_eq!(pooling.pool([-inf, -inf]), -inf);
            assert!(pooling.pool([1.0, f32::NAN, 9.0]).is_nan());
            assert_eq!(pooling.pool([1.0, inf, -inf]), inf);
        }
    }

    proptest! {
        #[test]
        fn the_extreme_of_every_cell_survives(
            (n_rows, n_columns) in (1usize..12, 1usize..40),
            seed in proptest::collection::vec(-1e6f32..1e6, 12 * 40),
            (a, b, c, d) in (0usize..14, 0usize..14, 0usize..44, 0usize..44),
            per_cell in (0usize..5, 0usize..9),
        ) {
            let values = seed[..n_rows * n_columns].to_vec();
            let matrix = Matrix::new(values.clone(), n_rows, n_columns).unwrap();
            let window = Window { rows: a.min(b)..a.max(b), columns: c.min(d)..c.max(d) };
            let grid = Grid::new(&matrix, &window, per_cell, Pooling::Extreme);
            prop_assert_eq!(grid.cells.len(), grid.n_rows * grid.n_columns);
            for row in grid.window.rows.clone() {
                for column in grid.window.columns.clone() {
                    let (r, c) = grid.place(row, column).unwrap();
                    let value = values[row * n_columns + column];
                    prop_assert!(grid.cell(r, c).unwrap().abs() >= value.abs());
                }
            }
            for cell in &grid.cells {
                prop_assert!(values.contains(cell), "a cell shows a value that is there");
            }
        }
    }
}
