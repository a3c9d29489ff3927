//! The first minute: what one looks at, and what to press.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Panel, centred};
use crate::tui::app::App;
use crate::tui::command::Command;
use crate::tui::text::put_line;

pub fn panel(area: Rect) -> Panel {
    Panel::new(centred(area, 74, 7), "Welcome to actscope", "any key goes on")
}

pub fn draw(app: &App, inside: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let key = |command| Span::styled(app.keymap.first(command), base.patch(theme.focus()));
    let word = |text: &'static str| Span::styled(text, base.patch(theme.text()));
    let lines = [
        vec![word("The prompt is cut into tokens. Each screen shows a part of what the")],
        vec![word("network computed for every token, down to the single number.")],
        vec![
            key(Command::NextScreen),
            word(" shows the next screen   "),
            key(Command::Edit),
            word(" edits the prompt   "),
            key(Command::Help),
            word(" lists all keys"),
        ],
    ];
    for (line, y) in lines.iter().zip(inside.y + 1..inside.bottom()) {
        put_line(buffer, Rect { y, height: 1, ..inside }, line);
    }
}
