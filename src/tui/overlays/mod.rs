//! Overlays, which cover a screen and take the keys: the prompt editor, the pickers, the forms.

mod about;
mod changes;
mod edges;
mod editor;
mod examples;
mod export;
mod field;
mod keys;
mod metric;
mod picker;
mod token;
mod welcome;

pub use about::AboutPanel;
pub use changes::{Changes, back, key as changes_key};
pub use edges::EdgesPanel;
pub use editor::Editor;
pub use examples::{Asked as ExamplesAsked, Examples, draw_unit};
pub use export::ExportForm;
pub use metric::MetricForm;
pub use picker::{Choice, Picker};
pub use token::{Asked, TokenForm};

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::app::App;
use super::command::Command;
use super::keymap::Key;
use super::text::{bytes, count, put, put_line};
use super::theme::Theme;
use super::widgets::bar::bar;
use crate::engine::{Look, Steps};

pub enum Overlay {
    Editor(Box<Editor>),
    Picker(Picker),
    Export(Box<ExportForm>),
    Token(TokenForm),
    /// What gradients are of.
    Metric(MetricForm),
    /// The edges that tell two prompts apart.
    Edges(EdgesPanel),
    Changes(Changes),
    /// Waits for the extremes of the run.
    Finding,
    About(AboutPanel),
    /// Of a unit, from a corpus.
    Examples(Examples),
    /// The keys of the screen.
    Keys,
    /// At the very first start.
    Welcome,
    /// Prompt B.
    Second(Box<Editor>),
}

/// Draws the overlay, if there is one; `area` is the whole screen.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let (Some(overlay), Some(panel)) = (&app.overlay, panel(app, area)) else { return };
    let inside = panel.draw(app.theme, buffer);
    match overlay {
        Overlay::Editor(editor) | Overlay::Second(editor) => editor::draw(editor, inside, buffer),
        Overlay::Picker(picker) => picker::draw(picker, app.theme, inside, buffer),
        Overlay::Export(form) => export::draw(form, app.theme, inside, buffer),
        Overlay::Token(form) => token::draw(form, app, inside, buffer),
        Overlay::Metric(form) => metric::draw(form, app, inside, buffer),
        Overlay::Edges(shown) => edges::draw(shown, app, inside, buffer),
        Overlay::Changes(list) => changes::draw(list, app, inside, buffer),
        Overlay::About(about) => about::draw(about, app, inside, buffer),
        Overlay::Examples(shown) => examples::draw(shown, app, inside, buffer),
        Overlay::Keys => keys::draw(app, area, buffer),
        Overlay::Welcome => welcome::draw(app, inside, buffer),
        Overlay::Finding => draw_finding(app, inside, buffer),
    }
}

/// The frame of the overlay.
fn panel(app: &App, area: Rect) -> Option<Panel> {
    Some(match app.overlay.as_ref()? {
        Overlay::Editor(editor) => editor::panel(editor, "Prompt", area),
        Overlay::Second(editor) => editor::panel(editor, "Prompt B", area),
        Overlay::Picker(picker) => picker::panel(picker, area),
        Overlay::Export(_) => export::panel(area),
        Overlay::Token(form) => token::panel(form, area),
        Overlay::Metric(_) => metric::panel(area),
        Overlay::Edges(shown) => edges::panel(shown, area),
        Overlay::Changes(list) => changes::panel(list, app, area),
        Overlay::About(about) => about::panel(about, app, area),
        Overlay::Examples(shown) => examples::panel(shown, app, area),
        Overlay::Keys => keys::panel(app.screen, area),
        Overlay::Welcome => welcome::panel(area),
        Overlay::Finding => Panel::new(centred(area, 60, 4), picker::EXTREMES, "Esc stop"),
    })
}

fn draw_finding(app: &App, inside: Rect, buffer: &mut Buffer) {
    let style = app.theme.panel();
    let size = app.run.as_ref().map_or(0, |run| run.bytes().0);
    let asked = || Look::Found.steps(app.run.as_ref()?);
    let Some(Steps { what, done, of }) = app.looking.or_else(asked) else { return };
    let share = done as f32 / of.max(1) as f32;
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let said = format!("{what} {done} of {}, {}", count(of, "tensor"), bytes(size));
    put_line(buffer, line(0), &[Span::styled(said, style)]);
    let bar = bar(share, inside.width.into());
    put_line(buffer, line(1), &[Span::styled(bar, style.patch(app.theme.focus()))]);
}

/// What a click on the overlay does.
pub enum Clicked {
    /// What this key does.
    Key(Key),
    Choice(Choice),
    Command(Command),
    /// It closes it.
    Close,
    Nothing,
}

/// A click; `again` if it is the second one at this place.
pub fn click(app: &mut App, at: Position, again: bool) -> Clicked {
    let area = Rect::new(0, 0, app.size.0, app.size.1);
    let Some(panel) = panel(app, area) else { return Clicked::Nothing };
    if let Some(key) = panel.key_at(at) {
        return Clicked::Key(key);
    }
    let inside = panel.inside();
    match &mut app.overlay {
        Some(Overlay::Picker(picker)) => picker.hit(inside, at).map_or(Clicked::Nothing, Clicked::Choice),
        Some(Overlay::Keys) => keys::hit(app.screen, area, at).map_or(Clicked::Close, Clicked::Command),
        Some(Overlay::Welcome) => Clicked::Close,
        Some(Overlay::Export(form)) => {
            form.click(inside, at);
            Clicked::Nothing
        }
        Some(Overlay::Changes(list)) => list
            .click(app.input.interventions.0.len(), inside, at, again)
            .map_or(Clicked::Nothing, Clicked::Key),
        _ => Clicked::Nothing,
    }
}

/// The frame of an overlay, with a title, and at its foot the keys and what they do: `Enter accept · Esc close`.
struct Panel {
    area: Rect,
    title: String,
    keys: &'static str,
}

impl Panel {
    fn new(area: Rect, title: impl Into<String>, keys: &'static str) -> Self {
        Self { area, title: title.into(), keys }
    }

    /// The area inside; empty if it is too small.
    fn inside(&self) -> Rect {
        let Rect { x, y, width, height } = self.area;
        if width < 4 || height < 3 {
            return Rect::ZERO;
        }
        Rect { x: x + 2, y: y + 1, width: width - 4, height: height - 2 }
    }

    fn foot(&self) -> Rect {
        Rect { y: self.area.bottom().saturating_sub(1), height: 1, ..self.inside() }
    }

    /// Clears the area and draws the frame; returns the area inside.
    fn draw(&self, theme: Theme, buffer: &mut Buffer) -> Rect {
        let (area, inside) = (self.area, self.inside());
        if inside == Rect::ZERO {
            return inside;
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
        put(
            buffer,
            inside.x,
            area.y,
            inside.width,
            &format!(" {} ", self.title),
            style.patch(theme.strong()),
        );
        put_line(buffer, self.foot(), &[Span::styled(format!(" {} ", self.keys), style.patch(theme.dim()))]);
        inside
    }

    /// The key that the foot names at a position, with what it does.
    fn key_at(&self, at: Position) -> Option<Key> {
        let foot = self.foot();
        let mut x = foot.x + 1;
        for said in self.keys.split(SEPARATOR) {
            let end = x + said.width() as u16;
            if foot.contains(at) && (x..end).contains(&at.x) {
                return Key::read(said.split(' ').next()?);
            }
            x = end + SEPARATOR.width() as u16;
        }
        None
    }
}

/// Between the keys at the foot.
const SEPARATOR: &str = " · ";

/// A rectangle of at most this size in the middle of `area`.
fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}
