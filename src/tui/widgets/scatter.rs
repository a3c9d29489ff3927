//! Points on two axes of the same scale, in Braille dots, with the diagonal.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Line, Points};

use crate::tui::text::{num, put};
use crate::tui::theme::Theme;

/// The least lines of a useful picture.
const LEAST: u16 = 6;

/// Draws (x, y) pairs, and where both are equal; `names` are those of the axes.
pub fn draw(
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    (across, up): (&str, &str),
    points: &[(f32, f32)],
    theme: Theme,
) {
    put(buffer, area.x, area.y, area.width, title, theme.strong());
    let known: Vec<_> = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    // A terminal cell is twice as tall as wide.
    let height = (area.height.saturating_sub(3)).min(area.width / 2).min(18);
    if height < LEAST || known.is_empty() {
        return;
    }
    let ends = known
        .iter()
        .fold((0f32, 0f32), |(least, most), (x, y)| (least.min(*x).min(*y), most.max(*x).max(*y)));
    let margin = ((ends.1 - ends.0) * 0.05).max(1e-6);
    let bounds = [f64::from(ends.0 - margin), f64::from(ends.1 + margin)];
    let place = Rect { y: area.y + 2, height, width: (2 * height).min(area.width), ..area };
    put(buffer, area.x, area.y + 1, area.width, &format!("↑ {up}, up to {}", num(ends.1)), theme.dim());
    let coordinates: Vec<_> = known.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
    let color = |style: Style| style.fg.unwrap_or_default();
    Canvas::default()
        .marker(Marker::Braille)
        .background_color(theme.page().bg.unwrap_or_default())
        .x_bounds(bounds)
        .y_bounds(bounds)
        .paint(|canvas| {
            let [low, high] = bounds;
            canvas.draw(&Line { x1: low, y1: low, x2: high, y2: high, color: color(theme.faint()) });
            canvas.layer();
            canvas.draw(&Points { coords: &coordinates, color: color(theme.accent()) });
        })
        .render(place, buffer);
    let below = format!("→ {across}, {} to {}; line: equal", num(ends.0), num(ends.1));
    put(buffer, area.x, place.bottom(), area.width, &below, theme.dim());
}
