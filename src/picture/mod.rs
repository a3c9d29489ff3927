//! From values to cells that can be drawn: matrices are pooled and ranged, then each cell is painted.
//!
//! The explorer's heatmaps, the figures and the walk's tiles all draw a [`Picture`].

pub mod chart;
pub mod colormap;
pub mod grid;
pub(crate) mod matrix;
pub mod range;
pub mod stats;

pub use matrix::{Matrix, Rows};

use chart::Chart;
use colormap::{MASKED, glyph};
use grid::{Grid, Pooling, Window};
use range::{Range, RangeMode, limit_of};

/// A window of a matrix as cells, with the range of their colours.
#[derive(Debug, Clone)]
pub struct Picture {
    pub grid: Grid,
    pub range: Range,
    /// The limit of each row of the grid, if each row has its own.
    pub row_limits: Vec<f32>,
    /// The query in the first row of the matrix, if keys after their query cannot be read.
    pub first_query: Option<usize>,
    /// Words for the cells, row by row; empty if their numbers are printed.
    pub texts: Vec<String>,
}

/// What a cell shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Paint {
    /// A finite value, by its place in the colour map, 0..=1.
    Level(f32),
    /// −inf, or only keys after their query.
    Masked,
    /// NaN or +inf.
    Broken,
    /// There is no such cell.
    Outside,
}

impl Paint {
    /// The cell without colours.
    pub fn glyph(self, signed: bool) -> &'static str {
        match self {
            Self::Level(x) => glyph(x, signed),
            Self::Masked => MASKED,
            Self::Broken => "?",
            Self::Outside => " ",
        }
    }
}

impl Picture {
    /// The cells of `grid`, which is made from `matrix`, in the colours of `range`; no key is hidden.
    pub fn new(matrix: &Matrix, grid: Grid, range: Range) -> Self {
        let mut row_limits = Vec::new();
        if range.mode == RangeMode::Row {
            matrix.read(|rows| {
                for first in grid.window.rows.clone().step_by(grid.per_cell.0) {
                    let cell = first..(first + grid.per_cell.0).min(grid.window.rows.end);
                    row_limits.push(cell.map(|row| limit_of(&*rows.get(row))).fold(0.0, f32::max));
                }
            });
        }
        Self { grid, range, row_limits, first_query: None, texts: Vec::new() }
    }

    /// A window of a chart, one value per cell.
    pub fn of_chart(chart: &Chart, window: &Window, mode: Option<RangeMode>) -> Self {
        let grid = Grid::new(&chart.values, window, (1, 1), Pooling::default());
        let mut texts = Vec::new();
        for row in grid.window.rows.clone().filter(|_| !chart.texts.is_empty()) {
            let word = |column| chart.text(row, column).unwrap_or_default().to_owned();
            texts.extend(grid.window.columns.clone().map(word));
        }
        Self { texts, ..Self::new(&chart.values, grid, chart.range(mode)) }
    }

    /// What a cell shows.
    pub fn paint(&self, row: usize, column: usize) -> Paint {
        match self.grid.cell(row, column) {
            None => Paint::Outside,
            Some(_) if self.is_future(row, column) => Paint::Masked,
            Some(x) => self.range.paint(x, self.row_limits.get(row).copied().unwrap_or(self.range.limit)),
        }
    }

    /// What each cell shows, row by row.
    pub fn paints(&self) -> impl Iterator<Item = Paint> {
        let n = self.grid.n_columns;
        (0..self.grid.cells.len()).map(move |i| self.paint(i / n, i % n))
    }

    /// Whether a cell holds only keys after its queries, which attention cannot read.
    pub fn is_future(&self, row: usize, column: usize) -> bool {
        let Grid { window, per_cell, .. } = &self.grid;
        let end = (window.rows.start + (row + 1) * per_cell.0).min(window.rows.end);
        let key = window.columns.start + column * per_cell.1;
        self.first_query.is_some_and(|first| key >= first + end)
    }

    /// The words in a cell, if it has any.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        self.texts.get(row * self.grid.n_columns + column).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Quantity;
    use proptest::prelude::*;

    /// Numbers, and what is none.
    fn values() -> impl Strategy<Value = Vec<f32>> {
        let any = prop_oneof![
            6 => -9f32..9.0,
            1 => Just(f32::NEG_INFINITY),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NAN),
        ];
        proptest::collection::vec(any, 10 * 12)
    }

    proptest! {
        #[test]
        fn a_cell_is_painted_as_its_values_say(
            values in values(),
            (n_rows, n_columns) in (1usize..10, 1usize..12),
            (a, b, c, d) in (0usize..11, 0usize..11, 0usize..13, 0usize..13),
            per_cell in (1usize..4, 1usize..4),
            first_query in proptest::option::of(0usize..4),
            signed in any::<bool>(),
            mode in proptest::sample::select(RangeMode::ALL.to_vec()),
        ) {
            let values = values[..n_rows * n_columns].to_vec();
            let matrix = Matrix::new(values.clone(), n_rows, n_columns).unwrap();
            let window = Window { rows: a.min(b)..a.max(b), columns: c.min(d)..c.max(d) };
            let grid = Grid::new(&matrix, &window, per_cell, Pooling::Extreme);
            let quantity = if signed { Quantity::Signed } else { Quantity::Positive };
            let range = match mode {
                RangeMode::Shown => Range::shown(&grid, quantity),
                _ => Range::new(&matrix, quantity, mode),
            };
            let picture = Picture { first_query, ..Picture::new(&matrix, grid, range) };
            let grid = &picture.grid;
            prop_assert_eq!(picture.paints().count(), grid.n_rows * grid.n_columns);
            prop_assert_eq!(picture.paint(grid.n_rows, 0), Paint::Outside);
            prop_assert_eq!(picture.paint(0, grid.n_columns), Paint::Outside);
            for (i, paint) in picture.paints().enumerate() {
                let (row, column) = (i / grid.n_columns, i % grid.n_columns);
                prop_assert_eq!(paint, picture.paint(row, column));
                let inside = |(r, c): (usize, usize)| grid.place(r, c) == Some((row, column));
                let all = (0..n_rows).flat_map(|r| (0..n_columns).map(move |c| (r, c)));
                let all: Vec<_> = all.filter(|&at| inside(at)).collect();
                let of = |(r, c): (usize, usize)| values[r * n_columns + c];
                let hidden = |(r, c): (usize, usize)| first_query.is_some_and(|first| c > first + r);
                if all.iter().all(|&at| hidden(at)) || all.iter().all(|&at| of(at) == f32::NEG_INFINITY) {
                    prop_assert_eq!(paint, Paint::Masked);
                } else if all.iter().any(|&at| of(at).is_nan() || of(at) == f32::INFINITY) {
                    prop_assert_eq!(paint, Paint::Broken);
                } else {
                    let Paint::Level(x) = paint else { panic!("{paint:?} of {all:?}") };
                    prop_assert!((0.0..=1.0).contains(&x));
                    // What is largest in a range of its own is at an end of the colours.
                    let largest = limit_of(&all.iter().map(|&at| of(at)).collect::<Vec<_>>());
                    let ends = mode == RangeMode::Row && largest > 0.0 && largest == picture.row_limits[row];
                    prop_assert!(!ends || x == 0.0 || x == 1.0, "{}", x);
                }
            }
        }
    }
}
