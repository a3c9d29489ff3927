//! One row of values as a line of coloured cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::heatmap::draw_cell;
use crate::picture::grid::Pooling;
use crate::picture::range::Range;
use crate::tui::theme::Theme;

/// The layout of `n` values in `width` columns: values per cell, columns per cell.
pub fn fit(n: usize, width: u16) -> (usize, usize) {
    let per_cell = n.div_ceil(usize::from(width).max(1)).max(1);
    let cells = n.div_ceil(per_cell).max(1);
    (per_cell, (usize::from(width) / cells).max(1))
}

/// Draws signed `values` in `area` (all lines alike), with ±`limit` at the ends of the colours.
pub fn draw(buffer: &mut Buffer, area: Rect, values: &[f32], range: &Range, pooling: Pooling, theme: Theme) {
    let area = area.intersection(buffer.area);
    let (per_cell, wide) = fit(values.len(), area.width);
    for (chunk, first) in values.chunks(per_cell).zip((0..area.width).step_by(wide)) {
        let paint = range.paint(pooling.pool(chunk.iter().copied()), range.limit);
        let cell = Rect { x: area.x + first, width: wide as u16, ..area }.intersection(area);
        for at in cell.positions() {
            draw_cell(&mut buffer[at], [paint; 2], range.quantity, theme);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Matrix;
    use crate::picture::Picture;
    use crate::picture::grid::{Grid, Window};
    use crate::tui::theme::Depth;
    use crate::tui::widgets::heatmap::{self, Form, Plot, Zoom};

    #[test]
    fn a_strip_looks_as_the_same_row_in_a_map() {
        let values = vec![-2.0, 0.0, 1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let matrix = Matrix::new(values.clone(), 1, 6).unwrap();
        let grid = Grid::new(&matrix, &Window::whole(1, 6), (1, 1), Pooling::Extreme);
        let picture = Picture::new(&matrix, grid, Range::of(&values));
        for depth in [Depth::True, Depth::Mono] {
            let theme = Theme { depth, ..Theme::default() };
            let area = Rect::new(0, 0, 6, 1);
            let [mut strip, mut map] = [Buffer::empty(area), Buffer::empty(area)];
            draw(&mut strip, area, &values, &picture.range, Pooling::Extreme, theme);
            let form = Form { whole_lines: true, ..Form::default() };
            let plot = Plot::new(area, (1, 6), Zoom::default(), form);
            heatmap::draw(&mut map, &plot, &picture, theme, None);
            assert_eq!(strip, map);
            let symbols: Vec<_> = strip.content().iter().map(ratatui::buffer::Cell::symbol).collect();
            let at_ends = if depth == Depth::Mono { ["O", "?", "╱"] } else { [" ", " ", "╱"] };
            assert_eq!([symbols[0], symbols[3], symbols[5]], at_ends);
            assert_ne!(strip[(0, 0)], strip[(3, 0)]);
            assert_eq!(strip[(3, 0)], strip[(4, 0)]);
        }
    }
}
