//! Writing text into a buffer, cut with a mark if it does not fit. All text of the explorer
//! goes through here, so that a terminal interprets none of it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::text::{acts, plain};
pub use crate::text::{
    bytes, count, fit, fixed, milliseconds, num, pad, path, prob, short, signed_fixed, wrap, wrap_to,
    write_num,
};

/// Writes text at (x, y), cut with a mark at `width` columns; returns the column after it.
pub fn put(buffer: &mut Buffer, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
    if !buffer.area.contains((x, y).into()) {
        return x;
    }
    let width = width.min(buffer.area.right() - x);
    let text = &plain(text);
    let cut = (text.width() > width.into()).then(|| fit(text, width.into()));
    buffer.set_stringn(x, y, cut.as_deref().unwrap_or(text), width.into(), style).0
}

/// Writes a line of several styles into `area`'s first row, cut with a mark.
pub fn put_line(buffer: &mut Buffer, area: Rect, spans: &[Span]) {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    let seen = |span: &Span| Span::styled(plain(&span.content).into_owned(), span.style);
    if spans.iter().any(|span| span.content.contains(acts)) {
        return put_line(buffer, area, &spans.iter().map(seen).collect::<Vec<_>>());
    }
    let mut x = area.x;
    for (i, span) in spans.iter().enumerate() {
        let left = area.right() - x;
        let rest: usize = spans[i..].iter().map(Span::width).sum();
        // The mark is in the last span that fits in part.
        if rest > left.into() && span.width() >= usize::from(left) {
            put(buffer, x, area.y, left, &format!("{}…", span.content), span.style);
            return;
        }
        x = buffer.set_stringn(x, area.y, &span.content, left.into(), span.style).0;
    }
}

/// The same, right-aligned; nothing if it does not fit.
pub fn put_right(buffer: &mut Buffer, area: Rect, line: &Line) {
    let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
    if width <= area.width {
        put_line(buffer, Rect { x: area.right() - width, width, ..area }, &line.spans);
    }
}
