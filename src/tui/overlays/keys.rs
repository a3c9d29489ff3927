//! The keys that work here, in columns: the screens, this screen's own, the rest.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Span;

use super::Panel;
use crate::tui::app::{App, Screen};
use crate::tui::command::{COMMANDS, Command, Entry};
use crate::tui::text::{fit, pad, put_line};

/// The width of a key with its name.
const COLUMN: u16 = 27;

/// The commands in this order, and where each is.
fn places(screen: Screen, area: Rect) -> (Rect, Vec<(&'static Entry, Rect)>) {
    let rank = |entry: &Entry| match entry.command {
        Command::Show(_) => 0,
        _ if !entry.everywhere => 1,
        _ => 2,
    };
    let mut entries: Vec<_> = COMMANDS.iter().filter(|entry| entry.works_on(screen)).collect();
    entries.sort_by_key(|entry| rank(entry));
    let width = area.width.saturating_sub(2).min(6 * COLUMN + 4);
    let columns = (width.saturating_sub(4) / COLUMN).max(1);
    let lines = (entries.len() as u16).div_ceil(columns).min(area.height.saturating_sub(6)).max(1);
    let height = lines + 2;
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.bottom().saturating_sub(height + 1),
        width,
        height,
    };
    let at = |i: usize| Rect {
        x: place.x + 2 + (i as u16 / lines) * COLUMN,
        y: place.y + 1 + i as u16 % lines,
        width: COLUMN - 1,
        height: 1,
    };
    let shown = usize::from(lines * columns);
    (place, entries.into_iter().take(shown).enumerate().map(|(i, entry)| (entry, at(i))).collect())
}

/// The command at a position on the screen.
pub fn hit(screen: Screen, area: Rect, at: Position) -> Option<Command> {
    let (_, entries) = places(screen, area);
    entries.into_iter().find(|(_, place)| place.contains(at)).map(|(entry, _)| entry.command)
}

pub fn panel(screen: Screen, area: Rect) -> Panel {
    let (place, _) = places(screen, area);
    let title = format!("Keys of {}", screen.name());
    Panel::new(place.intersection(area), title, "press one of them, or Esc · ? explains them all")
}

pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let (_, entries) = places(app.screen, area);
    for (entry, at) in entries {
        let ink = match entry.command {
            Command::Show(_) => theme.strong(),
            _ if entry.everywhere => theme.dim(),
            _ => theme.text(),
        };
        let name = if let Command::Show(screen) = entry.command { screen.name() } else { entry.name };
        let spans = [
            Span::styled(pad(&fit(&app.keymap.first(entry.command), 9), 10), base.patch(theme.focus())),
            Span::styled(name, base.patch(ink)),
        ];
        put_line(buffer, at, &spans);
    }
}
