//! What the model is, and how its files were read.

use std::cell::Cell;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Panel, centred};
use crate::model::About;
use crate::text::{pad, plain, wrap};
use crate::tui::app::App;
use crate::tui::text::put_line;

/// The widest that sentences are still easy to read, and the column of names.
const WIDTH: u16 = 100;
const NAMES: usize = 16;

/// The panel, scrolled down by some lines.
#[derive(Debug, Default)]
pub struct AboutPanel {
    top: Cell<usize>,
}

impl AboutPanel {
    pub fn key(&self, key: KeyEvent) {
        let by: isize = match key.code {
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -10,
            KeyCode::PageDown => 10,
            _ => 0,
        };
        self.scroll(by);
    }

    pub fn scroll(&self, by: isize) {
        self.top.set(self.top.get().saturating_add_signed(by));
    }
}

/// The lines of the panel at a width: a name, or nothing, and words.
fn lines(app: &App, width: usize) -> Vec<(&'static str, String)> {
    let Some(model) = &app.model else { return vec![("", "the model is being loaded".into())] };
    let mut lines = Vec::new();
    for (name, what) in About::new(model).lines() {
        let pieces = wrap(&plain(&what), width.saturating_sub(NAMES).max(1));
        lines
            .extend(pieces.into_iter().enumerate().map(|(i, piece)| (if i == 0 { name } else { "" }, piece)));
    }
    lines
}

pub fn panel(about: &AboutPanel, app: &App, area: Rect) -> Panel {
    let width = WIDTH.min(area.width);
    let lines = lines(app, usize::from(width).saturating_sub(4));
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let room = usize::from(height.saturating_sub(2));
    let top = about.top.get().min(lines.len().saturating_sub(room));
    // The end is known only here.
    about.top.set(top);
    let keys = match (top > 0, top + room < lines.len()) {
        (false, false) => "Esc back",
        (false, true) => "▾ ↓ more · Esc back",
        (true, true) => "▴▾ ↑ ↓ more · Esc back",
        (true, false) => "▴ ↑ more · Esc back",
    };
    Panel::new(centred(area, width, height), "The model", keys)
}

pub fn draw(about: &AboutPanel, app: &App, inside: Rect, buffer: &mut Buffer) {
    let style = app.theme.panel();
    let lines = lines(app, inside.width.into());
    for (y, (name, words)) in (inside.y..inside.bottom()).zip(lines.iter().skip(about.top.get())) {
        let line = Rect { y, height: 1, ..inside };
        let name = Span::styled(pad(name, NAMES), style.patch(app.theme.dim()));
        put_line(buffer, line, &[name, Span::styled(words.clone(), style)]);
    }
}
