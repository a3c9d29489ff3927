//! Editing the prompt in place: several lines, paste, undo.

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use ratatui_textarea::{CursorMove, TextArea, WrapMode};

use super::Panel;
use crate::error::{Error, Result};
use crate::run::Prompt;
use crate::text::acts;
use crate::tui::theme::Theme;

pub struct Editor {
    area: TextArea<'static>,
    /// The prompt is typed as token ids, because there is no tokenizer, or no text for some of them.
    ids: bool,
    /// Earlier prompts, the newest last, and which of them is shown; the number of all: what was typed.
    history: Vec<String>,
    at: usize,
    /// What was typed, while an earlier prompt is shown.
    draft: String,
}

impl Editor {
    /// An editor that starts with `text`, with the cursor at the end.
    pub fn new(text: &str, ids: bool, theme: Theme) -> Self {
        let mut area = TextArea::new(text.split('\n').map(str::to_owned).collect());
        area.set_style(theme.panel());
        area.set_cursor_line_style(theme.panel());
        area.set_cursor_style(theme.selected());
        area.set_selection_style(theme.selected());
        area.set_wrap_mode(WrapMode::WordOrGlyph);
        area.set_placeholder_text(if ids { "token ids, such as 5, 17, 96" } else { "type a prompt" });
        area.set_placeholder_style(theme.panel().patch(theme.dim()));
        area.move_cursor(CursorMove::Bottom);
        area.move_cursor(CursorMove::End);
        Self { area, ids, history: Vec::new(), at: 0, draft: String::new() }
    }

    /// With earlier prompts, for Up and Down beyond the first and last line.
    #[must_use]
    pub fn with_history(self, history: &[String]) -> Self {
        let now = self.text();
        let history: Vec<_> = history.iter().filter(|text| **text != now && !self.ids).cloned().collect();
        Self { at: history.len(), history, ..self }
    }

    /// Shows an earlier or later prompt; returns whether there is one.
    fn turn(&mut self, by: isize) -> bool {
        let Some(at) = self.at.checked_add_signed(by).filter(|at| *at <= self.history.len()) else {
            return false;
        };
        if self.at == self.history.len() {
            self.draft = self.text();
        }
        self.at = at;
        let text = self.history.get(at).unwrap_or(&self.draft).clone();
        self.area.select_all();
        self.area.cut();
        self.area.insert_str(text);
        true
    }

    /// Puts the caret after the first characters of the text.
    pub fn put_caret(&mut self, before: &str) {
        let line = before.rsplit('\n').next().unwrap_or_default();
        let place = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        self.area
            .move_cursor(CursorMove::Jump(place(before.matches('\n').count()), place(line.chars().count())));
    }

    /// Handles a key; returns whether the text changed.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('z') if ctrl => self.area.undo(),
            KeyCode::Char('y') if ctrl => self.area.redo(),
            KeyCode::Char('a') if ctrl => {
                self.area.select_all();
                false
            }
            KeyCode::Char('u') if ctrl => self.area.delete_line_by_head(),
            KeyCode::Up if self.area.cursor().0 == 0 => self.turn(-1),
            KeyCode::Down if self.area.cursor().0 + 1 == self.area.lines().len() => self.turn(1),
            _ => self.area.input(key),
        }
    }

    pub fn paste(&mut self, text: &str) -> bool {
        self.area.insert_str(text.replace("\r\n", "\n").replace('\r', "\n"))
    }

    pub fn select_all(&mut self) {
        self.area.select_all();
    }

    pub fn text(&self) -> String {
        self.area.lines().join("\n")
    }

    /// The prompt that the text stands for.
    ///
    /// # Errors
    /// [`Error::Usage`] for invalid ids.
    pub fn prompt(&self) -> Result<Prompt> {
        let text = self.text();
        if !self.ids {
            return Ok(Prompt::Text(text));
        }
        let words = text.split([',', ' ', '\n']).filter(|word| !word.is_empty());
        let ids: Result<Vec<u32>> = words
            .map(|word| word.parse().map_err(|_| Error::usage(format!("`{word}` is not a token id"))))
            .collect();
        Ok(Prompt::Ids(ids?))
    }
}

/// It covers the top of the body, so that the picture below updates as one types.
pub fn panel(editor: &Editor, title: &str, area: Rect) -> Panel {
    let height = (area.height / 3).clamp(5, 14);
    let place = Rect { x: area.x + 1, y: area.y + 3, width: area.width.saturating_sub(2), height };
    let title = if editor.ids { format!("{title}, token ids") } else { title.to_owned() };
    let keys = "runs as you type · ↑↓ earlier prompts · Ctrl-Z undo · Esc done";
    Panel::new(place.intersection(area), title, keys)
}

pub fn draw(editor: &Editor, inside: Rect, buffer: &mut Buffer) {
    (&editor.area).render(inside, buffer);
    // It skips zero-width characters and draws all others, line separators included.
    for position in inside.positions() {
        if buffer[position].symbol().starts_with(acts) {
            buffer[position].set_symbol("\u{fffd}");
        }
    }
}
