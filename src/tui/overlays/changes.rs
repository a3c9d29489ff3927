//! The list of changes: switch, name, edit, save and load them.

use std::ops::Range;
use std::path::PathBuf;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::{Position, Rect};
use ratatui::text::Span;

use super::field::Field;
use super::{Overlay, Panel, centred};
use crate::engine::{Errand, Request};
use crate::interventions::{Change, Intervention};
use crate::tui::app::App;
use crate::tui::keymap::Key;
use crate::tui::text::{pad, put_line, wrap_to};
use crate::tui::what_if;

#[derive(Debug, Clone, Default)]
pub struct Changes {
    selected: usize,
    entry: Option<Entry>,
}

/// A line being typed.
#[derive(Debug, Clone)]
struct Entry {
    purpose: Purpose,
    typed: Field,
    /// Why it was rejected.
    wrong: Option<String>,
}

impl Entry {
    fn new(purpose: Purpose, text: String) -> Self {
        Self { purpose, typed: Field::new(text), wrong: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Add,
    Edit,
    Name,
    Save,
    Load,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Add => "new",
            Self::Edit => "edit",
            Self::Name => "name",
            Self::Save => "save to",
            Self::Load => "load from",
        }
    }
}

impl Changes {
    /// The list with a proposed new change.
    pub fn adding(text: String) -> Self {
        Self { selected: 0, entry: Some(Entry::new(Purpose::Add, text)) }
    }

    /// Which of so many changes are shown.
    fn lines(&self, n: usize, inside: Rect) -> Range<usize> {
        let room = usize::from(inside.height.saturating_sub(6)).min(n);
        let first = (self.selected + 1).saturating_sub(room);
        first..first + room
    }

    /// A click selects a change; a second one, or one on its dot, is as good as this key, which switches it.
    pub fn click(&mut self, n: usize, inside: Rect, at: Position, again: bool) -> Option<Key> {
        let line = usize::from(at.y.checked_sub(inside.y)?);
        self.selected =
            self.lines(n, inside).nth(line).filter(|_| inside.contains(at) && self.entry.is_none())?;
        if again || at.x < inside.x + 2 { Key::parse("space") } else { None }
    }

    pub fn paste(&mut self, text: &str) {
        if let Some(entry) = &mut self.entry {
            entry.typed.paste(text);
        }
    }
}

/// Handles a key while the list is open.
pub fn key(app: &mut App, event: KeyEvent) -> Vec<Request> {
    let Some(Overlay::Changes(mut changes)) = app.overlay.take() else { return Vec::new() };
    let requests = match changes.entry.take() {
        Some(entry) => typed(app, &mut changes, entry, event),
        None => pressed(app, &mut changes, event),
    };
    changes.selected = changes.selected.min(app.input.interventions.0.len().saturating_sub(1));
    if app.overlay.is_none() {
        app.overlay = Some(Overlay::Changes(changes));
    }
    requests
}

/// Esc: cancels the line being typed, otherwise closes the list.
pub fn back(app: &mut App) {
    match &mut app.overlay {
        Some(Overlay::Changes(changes)) if changes.entry.is_some() => changes.entry = None,
        Some(Overlay::Editor(_)) => {
            app.overlay = None;
            app.remember_prompt();
        }
        _ => app.overlay = None,
    }
}

fn pressed(app: &mut App, changes: &mut Changes, event: KeyEvent) -> Vec<Request> {
    let list = &mut app.input.interventions.0;
    let last = list.len().saturating_sub(1);
    let mut open = |purpose, text| changes.entry = Some(Entry::new(purpose, text));
    let selected = list.get_mut(changes.selected);
    match (event.code, selected) {
        (KeyCode::Up | KeyCode::Char('k'), _) => changes.selected = changes.selected.saturating_sub(1),
        (KeyCode::Down | KeyCode::Char('j'), _) => changes.selected = (changes.selected + 1).min(last),
        (KeyCode::Char('+' | 'a'), _) => open(Purpose::Add, String::new()),
        (KeyCode::Char('o'), _) => open(Purpose::Load, "changes.json".into()),
        (KeyCode::Char(' ') | KeyCode::Enter, Some(one)) => {
            one.on = !one.on;
            return app.start_run();
        }
        (KeyCode::Char('d') | KeyCode::Delete, Some(_)) => {
            list.remove(changes.selected);
            return app.start_run();
        }
        (KeyCode::Char('n'), Some(one)) => open(Purpose::Name, one.name.clone().unwrap_or_default()),
        (KeyCode::Char('e'), Some(one)) => open(Purpose::Edit, one.change.to_string()),
        (KeyCode::Char('w'), Some(_)) => open(Purpose::Save, "changes.json".into()),
        _ => {}
    }
    Vec::new()
}

fn typed(app: &mut App, changes: &mut Changes, mut entry: Entry, event: KeyEvent) -> Vec<Request> {
    entry.wrong = None;
    if !entry.typed.key(event) && event.code == KeyCode::Enter {
        return entered(app, changes, entry);
    }
    changes.entry = Some(entry);
    Vec::new()
}

/// Accepts a typed line, or keeps it open and says what is wrong with it.
fn entered(app: &mut App, changes: &mut Changes, mut entry: Entry) -> Vec<Request> {
    let text = entry.typed.text().trim().to_owned();
    let list = &mut app.input.interventions.0;
    match entry.purpose {
        Purpose::Name => {
            if let Some(one) = list.get_mut(changes.selected) {
                one.name = (!text.is_empty()).then_some(text);
            }
            Vec::new()
        }
        Purpose::Save | Purpose::Load if text.is_empty() => {
            entry.wrong = Some("type a file name".into());
            changes.entry = Some(entry);
            Vec::new()
        }
        Purpose::Save => {
            vec![Request::Errand(Errand::Save(PathBuf::from(text), app.input.interventions.clone()))]
        }
        Purpose::Load => vec![Request::Errand(Errand::Load(PathBuf::from(text)))],
        Purpose::Add | Purpose::Edit => {
            let change = text.parse::<Change>().and_then(|change| {
                let run = app.run.as_ref();
                run.map_or(Ok(()), |run| change.check(run.config(), run.n_tokens()))?;
                Ok(change)
            });
            match change {
                Err(error) => {
                    entry.wrong = Some(error.to_string());
                    changes.entry = Some(entry);
                    return Vec::new();
                }
                Ok(change) if entry.purpose == Purpose::Add => {
                    changes.selected = list.len();
                    list.push(Intervention::from(change));
                }
                Ok(change) => {
                    if let Some(one) = list.get_mut(changes.selected) {
                        one.change = change;
                    }
                }
            }
            app.start_run()
        }
    }
}

pub fn panel(changes: &Changes, app: &App, area: Rect) -> Panel {
    let keys = if changes.entry.is_some() {
        "Enter accept · Ctrl-U clear · Esc back to the list"
    } else {
        "Space on, off · + new · e edit · n name · d delete · w save · o load · Esc close"
    };
    let rows = app.input.interventions.0.len().clamp(1, 12) as u16;
    Panel::new(centred(area, 96, rows + 9), "What if", keys)
}

pub fn draw(changes: &Changes, app: &App, inside: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let list = &app.input.interventions.0;
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let lines = changes.lines(list.len(), inside);
    if list.is_empty() {
        let said = "no changes; + adds one, as do a A K * d on a head, token, feature or tensor";
        put_line(buffer, line(0), &[Span::styled(said, base.patch(theme.dim()))]);
    }
    for (y, i) in lines.clone().enumerate() {
        let one = &list[i];
        let selected = i == changes.selected;
        let style = |style| if selected { theme.selected() } else { base.patch(style) };
        if selected {
            buffer.set_style(line(y as u16), theme.selected());
        }
        let ink = if one.on { theme.strong() } else { theme.dim() };
        let spans = [
            Span::styled(
                if one.on { "● " } else { "○ " },
                style(if one.on { theme.accent() } else { theme.dim() }),
            ),
            Span::styled(pad(&one.change.to_string(), 40), style(ink)),
            Span::styled(format!(" {}", one.name.clone().unwrap_or_default()), style(theme.dim())),
        ];
        put_line(buffer, line(y as u16), &spans);
    }
    let mut y = lines.len().max(1) as u16 + 1;
    if let Some(entry) = &changes.entry {
        let label = Span::styled(format!("{} › ", entry.purpose.label()), base.patch(theme.focus()));
        let [before, caret, after] = entry.typed.spans(str::to_owned, theme);
        put_line(buffer, line(y), &[label, before, caret, after]);
        let hint = "zero, mean head:L.H neuron:L.N mlp:L attn:L layer:L position:T resid_mid.L, each @T · scale …=X · \
                    set …=X · add …:A-B=X · patch … from IDS · feature:L.NAME/N · splice TENSOR · \
                    knockout L.H:Q->K";
        let (said, ink) = match (&entry.wrong, entry.purpose) {
            (Some(wrong), _) => (wrong.as_str(), theme.bad()),
            (None, Purpose::Add | Purpose::Edit) => (hint, theme.dim()),
            (None, _) => ("", theme.dim()),
        };
        for text in wrap_to(said, inside.width.into(), 3) {
            y += 1;
            put_line(buffer, line(y), &[Span::styled(text, base.patch(ink))]);
        }
    } else if let Some(said) = what_if::summary(app) {
        let heading = format!(
            "after {} ({})",
            app.run.as_ref().map_or(String::new(), |run| run.token_text(app.selection.position)),
            app.selection.position
        );
        put_line(buffer, line(y), &[Span::styled(heading, base.patch(theme.dim()))]);
        for text in wrap_to(&said, inside.width.into(), 3) {
            y += 1;
            put_line(buffer, line(y), &[Span::styled(text, base.patch(theme.text()))]);
        }
    }
}
