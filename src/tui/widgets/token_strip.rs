//! The prompt as one line of tokens, scrolled to the selected one.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use unicode_width::UnicodeWidthStr;

use crate::tui::text::{fit, put};
use crate::tui::theme::{Depth, Theme};

/// The maximum width of a token.
const WIDEST: usize = 24;

/// The visible tokens and their places: (position, x, width).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strip {
    pub shown: Range<usize>,
    pub places: Vec<(usize, u16, u16)>,
}

impl Strip {
    /// Lays the tokens out around the selected one; `widths` are those of their texts.
    pub fn new(area: Rect, widths: &[usize], selected: usize) -> Self {
        if widths.is_empty() || area.width < 12 {
            return Self::default();
        }
        let selected = selected.min(widths.len() - 1);
        let width = |i: usize| widths[i].clamp(1, WIDEST);
        // Room for "‹ 123 " and " 123 ›" at the ends.
        let room = usize::from(area.width) - 12;
        let (mut start, mut end, mut used) = (selected, selected + 1, width(selected));
        loop {
            let right = end < widths.len() && used + width(end) <= room;
            if right {
                used += width(end);
                end += 1;
            }
            let left = start > 0 && used + width(start - 1) <= room;
            if left {
                start -= 1;
                used += width(start);
            }
            if !left && !right {
                break;
            }
        }
        let mut x = area.x + if start > 0 { 6 } else { 0 };
        let mut places = Vec::new();
        for i in start..end {
            let wide = (width(i) as u16).min(area.right().saturating_sub(x));
            places.push((i, x, wide));
            x += wide;
        }
        Self { shown: start..end, places }
    }

    pub fn hit(&self, x: u16) -> Option<usize> {
        self.places.iter().find(|(_, start, width)| (*start..start + width).contains(&x)).map(|(i, ..)| *i)
    }
}

/// Draws the tokens, each on the colour from `shade`.
pub fn draw(
    buffer: &mut Buffer,
    area: Rect,
    strip: &Strip,
    texts: &dyn Fn(usize) -> String,
    shade: &dyn Fn(usize) -> Option<Color>,
    (selected, n): (usize, usize),
    theme: Theme,
) {
    if strip.shown.start > 0 {
        put(buffer, area.x, area.y, 6, &format!("‹{}", strip.shown.start), theme.dim());
    }
    for &(i, x, width) in &strip.places {
        let style = match shade(i) {
            _ if i == selected => theme.selected(),
            Some(color) if theme.depth != Depth::Mono => Style::new().bg(color).fg(Theme::on(color)),
            _ => theme.text(),
        };
        put(buffer, x, area.y, width, &fit(&texts(i), width.into()), style);
    }
    let after = strip.places.last().map_or(area.x, |(_, x, width)| x + width);
    if strip.shown.end < n {
        let text = format!(" {}›", n - strip.shown.end);
        put(buffer, after, area.y, 6.min(area.right().saturating_sub(after)), &text, theme.dim());
    }
}

/// Width of a token's text on the screen.
pub fn width(text: &str) -> usize {
    text.width()
}
