//! The matrices and rows of a walk as pictures, in a few colours.

use crate::analysis::walk::{Operand, Page, Piece};
use crate::analysis::{View, ViewSource};
use crate::error::Result;
use crate::picture::grid::{Grid, Pooling, Window};
use crate::picture::range::{Range, RangeMode};
use crate::picture::{Matrix, Picture};
use crate::run::Run;

/// Colours of a colour map, its two ends among them; odd, so that 0 has one.
pub(super) const LEVELS: u8 = 33;

/// The nearest of them to a place in the colour map, 0..=1.
pub(super) fn level(x: f32) -> u8 {
    (x * f32::from(LEVELS - 1)).round() as u8
}

/// The place of one of them.
pub(super) fn place(level: u8) -> f32 {
    f32::from(level) / f32::from(LEVELS - 1)
}

/// The matrix of an operand, `per_cell` rows and columns to a cell. So many weights make a cell
/// that only their mean tells cells apart; of the rest the largest is shown.
pub(super) fn tile(run: &Run, view: View, range: &Range, per_cell: (usize, usize)) -> Result<Picture> {
    let (n_rows, n_columns) = view.dims(run);
    let weight = view.source.is_weight();
    let pooling = if weight { Pooling::Mean } else { Pooling::Extreme };
    let matrix = view.stored(run)?;
    let grid = view.grid(&matrix, &Window::whole(n_rows, n_columns), per_cell, pooling);
    let range = if weight { Range::shown(&grid, view.quantity()) } else { range.clone() };
    let first_query = view.source.is_causal().then_some(0);
    Ok(Picture { first_query, ..Picture::new(&matrix, grid, range) })
}

/// How the row or vector of an operand is drawn: its range, of weights their own, and its query where
/// keys after it cannot be read.
pub(super) fn of_row(operand: &Operand, range: &Range) -> (Range, Option<usize>) {
    let is = |what: fn(ViewSource) -> bool| operand.view.is_some_and(|view| what(view.source));
    let range = if is(ViewSource::is_weight) { Range::of(&operand.values) } else { range.clone() };
    (range, operand.row.filter(|_| is(ViewSource::is_causal)))
}

/// Values in a row, `per_cell` to a cell; where keys after their query cannot be read, `first_query`
/// is its query.
pub(super) fn strip(
    values: &[f32],
    range: Range,
    per_cell: usize,
    first_query: Option<usize>,
) -> Result<Picture> {
    let matrix = Matrix::new(values.to_vec(), 1, values.len())?;
    let grid = Grid::new(&matrix, &Window::whole(1, values.len()), (1, per_cell), Pooling::Extreme);
    Ok(Picture { first_query, ..Picture::new(&matrix, grid, range) })
}

/// The ranges of a page's operands. Where they are only added up, all have that of the largest, so
/// that the colours add up too.
pub(super) fn ranges(run: &Run, page: &Page) -> Result<Vec<Range>> {
    let added =
        page.parts.iter().all(|part| !matches!(part, Piece::Sign(sign) if !["+", "="].contains(sign)));
    let own: Vec<Range> = page
        .operands()
        .map(|operand| match operand.view {
            Some(view) if !view.source.is_weight() => {
                let quantity = view.quantity();
                Ok(Range::new(&view.matrix(run)?, quantity, RangeMode::suited(quantity)))
            }
            _ => Ok(Range::of(&operand.values)),
        })
        .collect::<Result<_>>()?;
    if !added {
        return Ok(own);
    }
    let limit = own.iter().map(|range| range.limit).fold(0.0, f32::max);
    page.operands()
        .zip(own)
        .map(|(operand, range)| match operand.view {
            Some(view) if view.source != ViewSource::Mask => {
                let shared = Range::up_to(&view.matrix(run)?, range.quantity, limit);
                Ok(Range { mode: range.mode, ..shared })
            }
            _ => Ok(Range { limit, ..range }),
        })
        .collect()
}
