//! Overlays, which cover a screen and take the keys: the prompt editor, the pickers, the forms.

mod about;
mod changes;
mod editor;
mod export;
mod field;
mod keys;
mod picker;
mod token;
mod welcome;

pub use about::AboutPanel;
pub use changes::{Changes, back, key as changes_key};
pub use editor::Editor;
pub use export::ExportForm;
pub use keys::hit as key_at;
pub use picker::{Choice, Picker};
pub use token::{Asked, TokenForm};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::app::App;
use super::text::{bytes, count, put, put_line};
use super::theme::Theme;
use super::widgets::bar::bar;
use crate::engine::{Look, Steps};

pub enum Overlay {
    Editor(Box<Editor>),
    Picker(Picker),
    Export(Box<ExportForm>),
    Token(TokenForm),
    Changes(Changes),
    /// Waits for the extremes of the run.
    Finding,
    About(AboutPanel),
    /// The keys of the screen.
    Keys,
    /// At the very first start.
    Welcome,
    /// Prompt B.
    Second(Box<Editor>),
}

/// Draws the overlay, if there is one; `area` is the whole screen.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    match &app.overlay {
        None => {}
        Some(Overlay::Editor(editor)) => editor::draw(editor, "Prompt", app, area, buffer),
        Some(Overlay::Second(editor)) => editor::draw(editor, "Prompt B", app, area, buffer),
        Some(Overlay::Picker(picker)) => picker::draw(picker, app, area, buffer),
        Some(Overlay::Export(form)) => export::draw(form, app, area, buffer),
        Some(Overlay::Token(form)) => token::draw(form, app, area, buffer),
        Some(Overlay::Changes(list)) => changes::draw(list, app, area, buffer),
        Some(Overlay::About(panel)) => about::draw(panel, app, area, buffer),
        Some(Overlay::Keys) => keys::draw(app, area, buffer),
        Some(Overlay::Welcome) => welcome::draw(app, area, buffer),
        Some(Overlay::Finding) => {
            let inside = panel(centred(area, 60, 4), picker::EXTREMES, "Esc stop", app.theme, buffer);
            let style = app.theme.panel();
            let size = app.run.as_ref().map_or(0, |run| run.bytes().0);
            let asked = || Look::Found.steps(app.run.as_ref()?);
            let Some(Steps { what, done, of }) = app.looking.or_else(asked) else { return };
            let share = done as f32 / of.max(1) as f32;
            let line =
                |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
            put_line(
                buffer,
                line(0),
                &[Span::styled(format!("{what} {done} of {}, {}", count(of, "tensor"), bytes(size)), style)],
            );
            let bar = bar(share, inside.width.into());
            put_line(buffer, line(1), &[Span::styled(bar, style.patch(app.theme.focus()))]);
        }
    }
}

/// A cleared panel with a frame and a title; returns the area inside.
fn panel(area: Rect, title: &str, keys: &str, theme: Theme, buffer: &mut Buffer) -> Rect {
    let area = area.intersection(buffer.area);
    if area.width < 4 || area.height < 3 {
        return Rect::ZERO;
    }
    let style = theme.panel();
    let across = "─".repeat(usize::from(area.width) - 2);
    let edge = style.patch(theme.focus());
    for y in area.top()..area.bottom() {
        let line = match y {
            y if y == area.top() => format!("╭{across}╮"),
            y if y + 1 == area.bottom() => format!("╰{across}╯"),
            _ => format!("│{}│", " ".repeat(usize::from(area.width) - 2)),
        };
        put(buffer, area.x, y, area.width, &line, edge);
    }
    let width = area.width.saturating_sub(4);
    put(buffer, area.x + 2, area.y, width, &format!(" {title} "), style.patch(theme.strong()));
    let foot = Rect { x: area.x + 2, y: area.bottom() - 1, width, height: 1 };
    put_line(buffer, foot, &[Span::styled(format!(" {keys} "), style.patch(theme.dim()))]);
    Rect { x: area.x + 2, y: area.y + 1, width, height: area.height - 2 }
}

/// A rectangle of at most this size in the middle of `area`.
fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}
