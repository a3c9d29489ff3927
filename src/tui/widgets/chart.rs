//! A chart: names above and to the left, a word or number in each coloured cell, the scale below.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::heatmap::{self, Plot, Sheet};
use crate::picture::Picture;
use crate::picture::chart::{Chart, Labels};
use crate::picture::range::RangeMode;
use crate::picture::stats::Stats;
use crate::tui::text::{fit, num, put, short};
use crate::tui::theme::Theme;

/// The layout of a chart.
#[derive(Debug, Clone)]
pub struct Layout {
    pub names: Rect,
    pub sheet: Sheet,
    pub plot: Plot,
}

impl Layout {
    /// Lays out a chart of `dims` rows and columns in `area`, scrolled to `selected` if it does not
    /// fit: `label` columns for the names of its rows, `wide` = (at least, at most) for each cell.
    pub fn new(
        area: Rect,
        dims: (usize, usize),
        label: usize,
        wide: (u16, u16),
        selected: (usize, usize),
    ) -> Self {
        let label = (label as u16).min(area.width / 4);
        let sheet = Sheet::new(area, 1, label);
        Self {
            names: Rect { y: area.y, height: 1.min(area.height), ..sheet.plot },
            sheet,
            plot: Plot::cells(sheet.plot, dims, wide, selected),
        }
    }

    /// The row and column of the chart at a position on the screen.
    pub fn hit(&self, x: u16, y: u16) -> Option<(usize, usize)> {
        self.plot.hit(x, y)
    }
}

/// The rows that have a line each in `area`.
pub fn lines(area: Rect) -> usize {
    Sheet::new(area, 1, 0).plot.height.into()
}

/// The width of the names of `n` rows, with a mark before and a space after, for
/// [`Layout::new`].
pub fn label_width(labels: &Labels, n: usize) -> usize {
    let longest = (0..n).map(|row| labels.get(row).width()).max().unwrap_or(0);
    longest.max(labels.noun.width()) + 2
}

/// Draws `chart` in `layout`, with the cell at `selected` marked.
pub fn draw(
    buffer: &mut Buffer,
    layout: &Layout,
    chart: &Chart,
    selected: (usize, usize),
    mode: Option<RangeMode>,
    theme: Theme,
) {
    let plot = &layout.plot;
    let mut picture = Picture::of_chart(chart, &plot.window, mode);
    if picture.texts.is_empty() {
        let room = usize::from(plot.width()).saturating_sub(1);
        let number = |x: &f32| if room < 8 { short(*x, room.min(4)) } else { num(*x) };
        picture.texts = picture.grid.cells.iter().map(number).collect();
    }
    let Sheet { labels, legend, .. } = layout.sheet;
    put(buffer, labels.x, layout.names.y, labels.width, &format!(" {}", chart.rows.noun), theme.dim());
    draw_names(buffer, layout, chart, selected.1, theme);
    heatmap::draw_labels(buffer, labels, plot, &|row| chart.rows.get(row), selected.0, theme);
    heatmap::draw(buffer, plot, &picture, theme, Some(selected));
    if let (Some(lines), Some(columns)) = (plot.lines_of(selected.0), plot.columns_of(selected.1)) {
        let (width, height) = (columns.end - columns.start, lines.end - lines.start);
        let cell = Rect { x: columns.start, y: lines.start, width, height };
        buffer.set_style(cell.intersection(buffer.area), theme.selected());
    }
    let broken = Stats::of_matrix(&chart.values).broken;
    heatmap::draw_legend(buffer, legend, plot, &picture, broken, theme);
}

/// The names of the columns, as many as fit, with the selected one marked.
fn draw_names(buffer: &mut Buffer, layout: &Layout, chart: &Chart, selected: usize, theme: Theme) {
    let (plot, y) = (&layout.plot, layout.names.y);
    for column in plot.window.columns.clone() {
        let Some(Range { start: x, end }) = plot.columns_of(column) else { continue };
        let width = (end - x).saturating_sub(1);
        let name = fit(&chart.columns.get(column), width.into());
        let before = (end - x).saturating_sub(name.width() as u16) / 2;
        let style = if column == selected { theme.accent() } else { theme.dim() };
        put(buffer, x + before, y, width, &name, style);
    }
}
