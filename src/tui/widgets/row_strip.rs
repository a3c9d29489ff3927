//! One row of values as a line of coloured cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::hooks::Quantity;
use crate::picture::grid::Pooling;
use crate::tui::theme::{Depth, Theme};

/// The layout of `n` values in `width` columns: values per cell, columns per cell.
pub fn fit(n: usize, width: u16) -> (usize, usize) {
    let per_cell = n.div_ceil(usize::from(width).max(1)).max(1);
    let cells = n.div_ceil(per_cell).max(1);
    (per_cell, (usize::from(width) / cells).max(1))
}

/// Draws signed `values` in `area` (all lines alike), with ±`limit` at the ends of the colours.
pub fn draw(buffer: &mut Buffer, area: Rect, values: &[f32], limit: f32, pooling: Pooling, theme: Theme) {
    let area = area.intersection(buffer.area);
    let (per_cell, wide) = fit(values.len(), area.width);
    for (i, chunk) in values.chunks(per_cell).enumerate() {
        let value = pooling.pool(chunk.iter().copied());
        let x = if limit > 0.0 { (value / limit).clamp(-1.0, 1.0).midpoint(1.0) } else { 0.5 };
        let symbol = match theme.depth {
            Depth::Mono => ["O", "o", " ", "▒", "█"][((x * 5.0) as usize).min(4)],
            _ => " ",
        };
        let style = Style::new().bg(theme.shade(Quantity::Signed, x));
        for dx in 0..wide {
            let at = area.x + (i * wide + dx) as u16;
            for y in area.top()..area.bottom() {
                if at < area.right() {
                    buffer[(at, y)].set_symbol(symbol).set_style(style);
                }
            }
        }
    }
}
