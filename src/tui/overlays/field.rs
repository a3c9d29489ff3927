//! A line of text that is typed into a form or a list.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::Span;

use crate::tui::theme::Theme;

/// What was typed so far; the cursor is at its end.
#[derive(Debug, Clone, Default)]
pub struct Field {
    pub text: String,
}

impl Field {
    /// A field that starts with `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// Handles a key; says whether it was one that edits.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Backspace => drop(self.text.pop()),
            KeyCode::Char('u') if ctrl => self.text.clear(),
            KeyCode::Char(c) if !ctrl => self.text.push(c),
            _ => return false,
        }
        true
    }

    /// Adds text; line ends and the like are left out.
    pub fn paste(&mut self, text: &str) {
        self.text.extend(text.chars().filter(|c| !c.is_control()));
    }

    /// The text, as `show` writes it, and the cursor.
    pub fn spans<'a>(&self, show: impl Fn(&str) -> String, theme: Theme) -> [Span<'a>; 2] {
        let style = |style| theme.panel().patch(style);
        [Span::styled(show(&self.text), style(theme.strong())), Span::styled("▏", style(theme.accent()))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_typed_deleted_and_cleared() {
        let mut field = Field::new("ab");
        let press = |field: &mut Field, code, modifiers| field.key(KeyEvent::new(code, modifiers));
        assert!(press(&mut field, KeyCode::Char('é'), KeyModifiers::NONE));
        assert!(press(&mut field, KeyCode::Char('U'), KeyModifiers::SHIFT));
        assert_eq!(field.text, "abéU");
        assert!(press(&mut field, KeyCode::Backspace, KeyModifiers::NONE));
        field.paste("c\r\nd\u{1b}");
        assert_eq!(field.text, "abécd");
        for (code, modifiers) in [
            (KeyCode::Char('x'), KeyModifiers::CONTROL),
            (KeyCode::Enter, KeyModifiers::NONE),
            (KeyCode::Up, KeyModifiers::NONE),
        ] {
            assert!(!press(&mut field, code, modifiers));
        }
        assert_eq!(field.text, "abécd");
        assert!(press(&mut field, KeyCode::Char('u'), KeyModifiers::CONTROL) && field.text.is_empty());
        assert!(press(&mut field, KeyCode::Backspace, KeyModifiers::NONE) && field.text.is_empty());
    }
}
