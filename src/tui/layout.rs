//! The layout: pure functions of the size of the terminal.

use ratatui::layout::{Constraint, Layout, Rect};

/// Below this size, only a message is shown.
pub const SMALLEST: (u16, u16) = (60, 16);

/// The areas of every screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub title: Rect,
    pub tabs: Rect,
    pub strip: Rect,
    pub top_rule: Rect,
    pub body: Rect,
    pub bottom_rule: Rect,
    pub inspector: Rect,
    pub keys: Rect,
}

impl Frame {
    /// `None` if the terminal is too small.
    pub fn new((width, height): (u16, u16)) -> Option<Self> {
        if width < SMALLEST.0 || height < SMALLEST.1 {
            return None;
        }
        let area = Rect::new(0, 0, width, height);
        let inspector = if height >= 36 { 4 } else { 2 };
        let [title, tabs, strip, top_rule, body, bottom_rule, inspector, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(inspector),
            Constraint::Length(1),
        ])
        .areas(area);
        let inset = |r: Rect| Rect { x: r.x + 1, width: r.width.saturating_sub(2), ..r };
        Some(Self {
            title: inset(title),
            tabs: inset(tabs),
            strip: inset(strip),
            top_rule,
            body: inset(body),
            bottom_rule,
            inspector: inset(inspector),
            keys: inset(keys),
        })
    }
}
