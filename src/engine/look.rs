//! What the screens show of a run, computed away from the thread that draws.

use std::collections::HashMap;
use std::sync::Arc;

use super::Event;
use crate::analysis::grid::{Grid, Pooling, Window};
use crate::analysis::logits::Next;
use crate::analysis::range::{Range, RangeMode};
use crate::analysis::stats::{Stats, histogram, largest};
use crate::analysis::{AttnStage, Matrix, Source, View};
use crate::error::Result;
use crate::hooks::Site;
use crate::run::Run;

/// A place on a screen that shows something computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The large map of the screen.
    Main,
    /// The small map of a head.
    Head(usize),
    /// The miniatures of wte and wpe.
    Wte,
    Wpe,
    /// The row under the cursor.
    Row,
    /// Rows beside each other on the embedding screen.
    Strip(usize),
    /// The tokens that may come next.
    Next,
}

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Map { view: View, window: Window, per_cell: (usize, usize), pooling: Pooling, range: RangeMode },
    Row { view: View, row: usize },
    Next { position: usize, k: usize },
}

/// What was computed, together with what was asked.
#[derive(Debug, Clone)]
pub enum Seen {
    Map(Map),
    Row(RowLook),
    Next(Look, Next),
    /// There is nothing to see, and why.
    Nothing(Look, String),
}

impl Seen {
    /// The question that this answers.
    pub fn look(&self) -> &Look {
        match self {
            Self::Map(map) => &map.look,
            Self::Row(row) => &row.look,
            Self::Next(look, _) | Self::Nothing(look, _) => look,
        }
    }
}

/// A pooled matrix with what is needed to colour and caption it.
#[derive(Debug, Clone)]
pub struct Map {
    pub look: Look,
    pub view: View,
    /// Rows and columns of the whole matrix.
    pub dims: (usize, usize),
    pub grid: Grid,
    pub range: Range,
    pub pooling: Pooling,
    /// The limit of each row of the grid, where each row has its own.
    pub row_limits: Vec<f32>,
    /// Statistics of the whole matrix.
    pub stats: Stats,
}

impl Map {
    /// Whether a cell holds only keys after its queries, which attention cannot read.
    pub fn is_future(&self, row: usize, column: usize) -> bool {
        let causal = match self.view.source {
            Source::Hook(hook) => matches!(hook.site, Site::AttnScores | Site::Pattern),
            Source::Stage(_, stage) => matches!(stage, AttnStage::Masked | AttnStage::Pattern),
            Source::Wte | Source::Wpe => false,
        };
        let (window, per_cell) = (&self.grid.window, self.grid.per_cell);
        let last_query = (window.rows.start + (row + 1) * per_cell.0).min(window.rows.end) - 1;
        causal && window.columns.start + column * per_cell.1 > last_query
    }

    /// Where a cell lies in the colour map, 0..=1; `None` where it is not finite.
    pub fn shade(&self, row: usize, column: usize) -> Option<f32> {
        let value = self.grid.cell(row, column)?;
        let limit = self.row_limits.get(row).copied().unwrap_or(self.range.limit);
        value.is_finite().then(|| self.range.at(value, limit))
    }
}

/// A row of a matrix, described.
#[derive(Debug, Clone)]
pub struct RowLook {
    pub look: Look,
    pub view: View,
    pub row: usize,
    pub values: Vec<f32>,
    pub stats: Stats,
    pub histogram: Vec<usize>,
    /// (column, value), largest first.
    pub largest: Vec<(usize, f32)>,
}

/// Everything that the screen wants to see of one run.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub run: Arc<Run>,
    pub run_id: u64,
    pub looks: Vec<(Slot, Look)>,
}

/// Computes looks; remembers ranges and statistics, which need the whole matrix.
#[derive(Default)]
pub struct Looker {
    run_id: u64,
    known: HashMap<(View, RangeMode), (Range, Stats)>,
}

impl Looker {
    pub fn look(&mut self, wanted: Wanted) -> Event {
        if wanted.run_id != self.run_id {
            self.run_id = wanted.run_id;
            self.known.retain(|(view, _), _| matches!(view.source, Source::Wte | Source::Wpe));
        }
        let Wanted { run, run_id, looks } = wanted;
        let see = |(slot, look): (Slot, Look)| {
            let seen = self.see(&run, &look);
            (slot, Arc::new(seen.unwrap_or_else(|error| Seen::Nothing(look, error.to_string()))))
        };
        Event::Looked { run_id, seen: looks.into_iter().map(see).collect() }
    }

    fn see(&mut self, run: &Run, look: &Look) -> Result<Seen> {
        Ok(match look {
            Look::Map { view, window, per_cell, pooling, range } => {
                let matrix = view.matrix(run)?;
                let grid = Grid::new(&matrix, window, *per_cell, *pooling);
                let known = self.known.entry((*view, *range)).or_insert_with(|| {
                    (Range::new(&matrix, view.quantity(), *range), Stats::of_matrix(&matrix))
                });
                let (range, stats) = known.clone();
                let range = match range.mode {
                    RangeMode::Shown => Range::new(&grid.as_matrix()?, view.quantity(), RangeMode::Shown),
                    _ => range,
                };
                Seen::Map(Map {
                    look: look.clone(),
                    view: *view,
                    dims: (matrix.n_rows, matrix.n_columns),
                    row_limits: if range.mode == RangeMode::Row {
                        row_limits(&matrix, &grid)
                    } else {
                        Vec::new()
                    },
                    grid,
                    range,
                    pooling: *pooling,
                    stats,
                })
            }
            Look::Row { view, row } => {
                let matrix = view.matrix(run)?;
                let row = (*row).min(matrix.n_rows.saturating_sub(1));
                let values = matrix.row(row);
                Seen::Row(RowLook {
                    look: look.clone(),
                    view: *view,
                    row,
                    stats: Stats::of(&values),
                    histogram: histogram(&values, 24),
                    largest: largest(&values, 12),
                    values,
                })
            }
            Look::Next { position, k } => Seen::Next(look.clone(), Next::new(run, *position, *k)?),
        })
    }
}

/// The largest finite |x| of the matrix rows in each row of the grid.
fn row_limits(matrix: &Matrix, grid: &Grid) -> Vec<f32> {
    matrix.read(|rows| {
        let limit =
            |row: usize| rows.get(row).iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max);
        let firsts = grid.window.rows.clone().step_by(grid.per_cell.0);
        firsts
            .map(|first| {
                (first..(first + grid.per_cell.0).min(grid.window.rows.end)).map(limit).fold(0.0, f32::max)
            })
            .collect()
    })
}
