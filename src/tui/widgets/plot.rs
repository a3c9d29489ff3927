//! How the cells of a matrix share an area of the screen.

use std::ops::Range;

use ratatui::layout::Rect;

use crate::analysis::View;
use crate::engine::Look;
use crate::engine::pixels::{Canvas, Paper};
use crate::hooks::Axis;
use crate::picture::grid::{Pooling, Window, share, shared};
use crate::picture::range::RangeMode;
use crate::tui::theme::{Depth, Theme};

/// The width of a printed number, and the minimum width of a cell that contains one.
const NUMBER: usize = 9;

/// The layout of a matrix in an area: which part is shown, how many values make a cell, and the size of a
/// cell. Drawing, requests to the engine and mouse positions all use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// Where cells are drawn.
    pub area: Rect,
    pub window: Window,
    /// Values per cell: rows, columns.
    pub per_cell: (usize, usize),
    /// The dots down and across that the cells share, as evenly as they can.
    pub extent: (usize, usize),
    /// Where a dot is a pixel; else it is half a line, one column wide.
    pub paper: Option<Paper>,
    /// Rows start on whole lines.
    pub whole_lines: bool,
    /// Whether each cell holds one value and its number.
    pub numbers: bool,
}

/// The visible part of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zoom {
    /// Each step halves the window.
    pub level: u8,
    /// The first row and column of the window.
    pub origin: (usize, usize),
}

/// The shape of the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// Roughly square.
    pub square: bool,
    /// One row per line: glyphs, unlike colours, cannot be split in halves.
    pub whole_lines: bool,
    /// Numbers are printed where there is room for all of them.
    pub numbers: bool,
    /// Drawn in pixels, unless numbers are printed.
    pub paper: Option<Paper>,
}

impl Form {
    /// For a matrix whose columns count `columns`, in the colours of `theme`.
    pub fn new(columns: Axis, theme: Theme) -> Self {
        Self {
            square: columns == Axis::Key,
            whole_lines: theme.depth == Depth::Mono,
            numbers: false,
            paper: theme.paper(),
        }
    }

    #[must_use]
    pub fn with_numbers(self) -> Self {
        Self { numbers: true, ..self }
    }
}

impl Plot {
    /// Lays out a matrix of `dims` rows and columns so that its cells fill `area`, or the largest square in it.
    pub fn new(area: Rect, dims: (usize, usize), zoom: Zoom, form: Form) -> Self {
        let (width, lines) = (usize::from(area.width), usize::from(area.height));
        let (n_rows, n_columns) = dims;
        if width == 0 || lines == 0 || n_rows == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let (down, across) = dots(form.paper);
        let side = (across * width).min(down * lines);
        let (wide, high) = if form.square { (side / across, side.div_ceil(down)) } else { (width, lines) };
        // Zooming ends when every value has room for its number.
        let level = u32::from(zoom.level.min(31));
        let visible = |n: usize, room: usize| n.div_ceil(1 << level).max(room.clamp(1, n));
        let rows = visible(n_rows, high);
        let columns = visible(n_columns, wide / NUMBER);
        let numbers = form.numbers && rows <= high && columns * NUMBER <= wide;
        let from = |origin: usize, len: usize, n: usize| {
            let start = origin.min(n - len);
            start..start + len
        };
        let window = Window {
            rows: from(zoom.origin.0, rows, n_rows),
            columns: from(zoom.origin.1, columns, n_columns),
        };
        let paper = form.paper.filter(|_| !numbers);
        let (down, across) = dots(paper);
        let side = (across * width).min(down * lines);
        let whole_lines = (form.whole_lines && paper.is_none()) || numbers;
        let most = if form.square && !numbers { (side, side) } else { (down * high, across * wide) };
        let most_rows = if whole_lines { most.0.div_ceil(down) } else { most.0 };
        let mut per_cell = (rows.div_ceil(most_rows), columns.div_ceil(most.1));
        let mut extent = (down * high, across * wide);
        if form.square && !numbers {
            let pooled = per_cell.0.max(per_cell.1);
            per_cell = (pooled, pooled);
            // As high as wide on the eye, whatever part of the map is shown.
            let (cells_down, cells_across) = (rows.div_ceil(pooled), columns.div_ceil(pooled));
            let most = cells_down.max(cells_across);
            // Cells of one size if they fill nearly as much.
            let side = if side / most * most * 4 >= side * 3 { side / most * most } else { side };
            extent = ((side * cells_down / most).max(1), (side * cells_across / most).max(1));
            if whole_lines {
                extent.0 = extent.0.next_multiple_of(down).max(down * cells_down).min(down * high);
            }
        }
        Self { area, window, per_cell, extent, paper, whole_lines, numbers }
    }

    fn nothing(area: Rect) -> Self {
        let window = Window { rows: 0..0, columns: 0..0 };
        Self {
            area,
            window,
            per_cell: (1, 1),
            extent: (0, 0),
            paper: None,
            whole_lines: false,
            numbers: false,
        }
    }

    /// Lays out whole rows, one per line, with the one at `row` in the middle.
    pub fn lines(area: Rect, (n_rows, n_columns): (usize, usize), row: usize) -> Self {
        let (width, lines) = (usize::from(area.width), usize::from(area.height).min(n_rows));
        if width == 0 || lines == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let first = row.saturating_sub(lines / 2).min(n_rows - lines);
        Self {
            area,
            window: Window { rows: first..first + lines, columns: 0..n_columns },
            per_cell: (1, n_columns.div_ceil(width)),
            extent: (2 * lines, width),
            paper: None,
            whole_lines: true,
            numbers: false,
        }
    }

    /// Lays out cells with words or numbers in `area`, each `wide` = (minimum, maximum) columns;
    /// if they do not fit, scrolls by half windows so that `selected` is visible.
    pub fn cells(area: Rect, dims: (usize, usize), wide: (u16, u16), selected: (usize, usize)) -> Self {
        let (n_rows, n_columns) = dims;
        let (lines, fits) = (usize::from(area.height), usize::from(area.width / wide.0.max(1)));
        if lines == 0 || fits == 0 || n_rows == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let visible = |n: usize, fits: usize, at: usize| {
            let (len, half) = (fits.min(n), (fits / 2).max(1));
            let start = (at.min(n - 1) / half * half).saturating_sub(half / 2).min(n - len);
            start..start + len
        };
        let window = Window {
            rows: visible(n_rows, lines, selected.0),
            columns: visible(n_columns, fits, selected.1),
        };
        let across = usize::from(area.width).min(window.columns.len() * usize::from(wide.1));
        let extent = (2 * lines, across);
        Self { area, window, per_cell: (1, 1), extent, paper: None, whole_lines: true, numbers: true }
    }

    /// The request to the engine for this plot.
    pub fn look(&self, view: View, pooling: Pooling, range: RangeMode) -> Look {
        let (window, canvas) = (self.window.clone(), self.canvas());
        Look::Map { view, window, per_cell: self.per_cell, pooling, range, canvas }
    }

    /// What its pixels are drawn on.
    pub fn canvas(&self) -> Option<Canvas> {
        self.paper.map(|paper| Canvas { paper, extent: self.extent })
    }

    /// Dots per line and per column.
    pub fn dots(&self) -> (usize, usize) {
        dots(self.paper)
    }

    /// The level beyond which zooming changes nothing.
    pub fn deepest(area: Rect, dims: (usize, usize), form: Form) -> u8 {
        let fits = |level: &u8| {
            Self::new(area, dims, Zoom { level: *level, origin: (0, 0) }, form.with_numbers()).numbers
        };
        (0..=31).find(fits).unwrap_or(31)
    }

    /// The columns and lines covered by cells.
    pub fn covered(&self) -> Rect {
        let (down, across) = self.dots();
        let height = self.extent.0.div_ceil(down).min(self.area.height.into());
        let width = self.extent.1.div_ceil(across).min(self.area.width.into());
        Rect { width: width as u16, height: height as u16, ..self.area }
    }

    /// The cells down and across.
    pub(super) fn n_cells(&self) -> (usize, usize) {
        let Window { rows, columns } = &self.window;
        (rows.len().div_ceil(self.per_cell.0), columns.len().div_ceil(self.per_cell.1))
    }

    /// The cell down that covers a dot.
    pub(super) fn down_at(&self, dot: usize) -> usize {
        let (n, per_line) = (self.n_cells().0, self.dots().0);
        if self.whole_lines {
            shared(dot / per_line, self.extent.0 / per_line, n)
        } else {
            shared(dot.min(self.extent.0.saturating_sub(1)), self.extent.0, n)
        }
    }

    /// The cell across that covers a dot.
    pub(super) fn across_at(&self, dot: usize) -> usize {
        shared(dot.min(self.extent.1.saturating_sub(1)), self.extent.1, self.n_cells().1)
    }

    /// The dots that a cell down covers.
    pub(super) fn dots_down(&self, cell: usize) -> Range<usize> {
        let (n, per_line) = (self.n_cells().0, self.dots().0);
        if self.whole_lines {
            let lines = share(cell, self.extent.0 / per_line, n);
            per_line * lines.start..per_line * lines.end
        } else {
            share(cell, self.extent.0, n)
        }
    }

    /// The row and column of the matrix at a position on the screen.
    pub fn hit(&self, x: u16, y: u16) -> Option<(usize, usize)> {
        if !self.covered().contains((x, y).into()) {
            return None;
        }
        // Of the dots of a place, the one in the middle.
        let (per_line, per_column) = self.dots();
        let dot = |at: u16, per: usize| usize::from(at) * per + (per - 1) / 2;
        let down = self.down_at(dot(y - self.area.y, per_line)).min(self.n_cells().0 - 1);
        let across = self.across_at(dot(x - self.area.x, per_column));
        let row = self.window.rows.start + down * self.per_cell.0;
        let column = self.window.columns.start + across * self.per_cell.1;
        Some((row.min(self.window.rows.end - 1), column.min(self.window.columns.end - 1)))
    }

    /// The lines that the cell of a row touches.
    pub fn lines_of(&self, row: usize) -> Option<Range<u16>> {
        let dots = self.dots_down(place(row, &self.window.rows, self.per_cell.0)?);
        let per_line = self.dots().0;
        let line = |line: usize| self.area.y + line as u16;
        let lines = line(dots.start / per_line)..line(dots.end.div_ceil(per_line));
        (lines.start < self.area.bottom()).then_some(lines)
    }

    /// The columns of the screen that the cell of a column covers.
    pub fn columns_of(&self, column: usize) -> Option<Range<u16>> {
        let dots =
            share(place(column, &self.window.columns, self.per_cell.1)?, self.extent.1, self.n_cells().1);
        let per_column = self.dots().1;
        let columns = dots.start / per_column..dots.end.div_ceil(per_column);
        let at = |x: usize| self.area.x + x as u16;
        (columns.start < self.area.width.into()).then(|| at(columns.start)..at(columns.end))
    }

    /// The line of the screen where a row of the matrix starts.
    pub fn line_of(&self, row: usize) -> Option<u16> {
        Some(self.lines_of(row)?.start)
    }

    /// The line in the middle of a row.
    pub fn middle_of(&self, row: usize) -> Option<u16> {
        let middle = self.area.y + (self.middle_dot(row)? / self.dots().0) as u16;
        (middle < self.area.bottom()).then_some(middle)
    }

    /// The dot down in the middle of a row.
    pub(super) fn middle_dot(&self, row: usize) -> Option<usize> {
        Some(middle(&self.dots_down(place(row, &self.window.rows, self.per_cell.0)?)))
    }

    /// The column of the screen where a column of the matrix starts.
    pub fn column_of(&self, column: usize) -> Option<u16> {
        Some(self.columns_of(column)?.start)
    }

    /// The column of the screen in the middle of a column.
    pub fn middle_column(&self, column: usize) -> Option<u16> {
        let Range { start, end } = self.columns_of(column)?;
        Some(start + (end - start).saturating_sub(1) / 2)
    }

    /// The least width of a cell.
    pub fn width(&self) -> u16 {
        (self.extent.1 / self.dots().1 / self.n_cells().1.max(1)) as u16
    }

    /// Where the words of a cell are: its middle line.
    pub fn words_of(&self, row: usize, column: usize) -> Option<Rect> {
        let (y, columns) = (self.middle_of(row)?, self.columns_of(column)?);
        Some(Rect { x: columns.start, y, width: columns.end - columns.start, height: 1 })
    }
}

/// Dots per line and per column: pixels, or half-lines.
fn dots(paper: Option<Paper>) -> (usize, usize) {
    paper.map_or((2, 1), |paper| (paper.font.1.into(), paper.font.0.into()))
}

pub(super) fn place(index: usize, window: &Range<usize>, per_cell: usize) -> Option<usize> {
    window.contains(&index).then(|| (index - window.start) / per_cell)
}

fn middle(range: &Range<usize>) -> usize {
    range.start + range.len().saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn papers() -> impl Strategy<Value = Paper> {
        (1u16..12, 1u16..24).prop_map(|font| Paper { font, ..Paper::default() })
    }

    proptest! {
        #[test]
        fn every_value_of_the_window_has_a_place_that_leads_back(
            (width, height) in (0u16..200, 0u16..60),
            dims in (0usize..300, 0usize..5000),
            level in 0u8..12,
            origin in (0usize..400, 0usize..6000),
            (square, whole_lines, numbers) in any::<(bool, bool, bool)>(),
            paper in proptest::option::of(papers()),
        ) {
            let area = Rect::new(3, 2, width, height);
            let plot = Plot::new(area, dims, Zoom { level, origin }, Form { square, whole_lines, numbers, paper });
            let covered = plot.covered();
            prop_assert!(area.contains(covered.as_position()) || covered.is_empty());
            prop_assert!(covered.right() <= area.right() && covered.bottom() <= area.bottom());
            prop_assert!(plot.window.rows.end <= dims.0 && plot.window.columns.end <= dims.1);
            for row in plot.window.rows.clone() {
                let lines = plot.lines_of(row).unwrap();
                prop_assert!(!lines.is_empty() && lines.end <= covered.bottom());
                let dots = plot.dots_down((row - plot.window.rows.start) / plot.per_cell.0);
                prop_assert!(!dots.is_empty());
                prop_assert!(dots.clone().all(|at| plot.down_at(at) == (row - plot.window.rows.start) / plot.per_cell.0));
                prop_assert!(!plot.whole_lines || dots.start.is_multiple_of(plot.dots().0) && dots.end.is_multiple_of(plot.dots().0));
            }
            if !covered.is_empty() && !square && plot.canvas().is_none() {
                prop_assert_eq!(covered, area);
            }
            for column in plot.window.columns.clone() {
                let x = plot.middle_column(column).unwrap();
                let (_, found) = plot.hit(x, covered.y).unwrap();
                let cell = |column: usize| (column - plot.window.columns.start) / plot.per_cell.1;
                // Several may share a column of the screen.
                prop_assert!(cell(found) == cell(column) || plot.paper.is_some() && plot.columns_of(found).unwrap().contains(&x));
            }
        }

        #[test]
        fn zooming_ends_at_numbers(dims in (1usize..2000, 1usize..60000), width in 9u16..200, height in 1u16..60) {
            let area = Rect::new(0, 0, width, height);
            let form = Form::default().with_numbers();
            let level = Plot::deepest(area, dims, form);
            let plot = Plot::new(area, dims, Zoom { level, origin: (0, 0) }, form);
            prop_assert!(plot.numbers);
            prop_assert_eq!(plot.per_cell, (1, 1));
        }
    }
}
