//! A line of text that is typed into a form or a list.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::Span;

use crate::tui::theme::Theme;

/// What was typed so far, and where the caret is.
#[derive(Debug, Clone, Default)]
pub struct Field {
    text: String,
    /// In bytes, between two characters.
    caret: usize,
}

impl Field {
    /// A field that starts with `text`.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { caret: text.len(), text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Handles a key; says whether it was one that edits.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let (before, after) = self.text.split_at(self.caret);
        let left = before.char_indices().next_back().map_or(0, |(at, _)| at);
        let right = self.caret + after.chars().next().map_or(0, char::len_utf8);
        let word = before.trim_end_matches(WORDS).rfind(WORDS).map_or(0, |at| at + 1);
        match key.code {
            KeyCode::Backspace => self.delete(left),
            KeyCode::Delete => drop(self.text.drain(self.caret..right)),
            KeyCode::Left => self.caret = left,
            KeyCode::Right => self.caret = right,
            KeyCode::Home => self.caret = 0,
            KeyCode::End => self.caret = self.text.len(),
            KeyCode::Char('a') if ctrl => self.caret = 0,
            KeyCode::Char('e') if ctrl => self.caret = self.text.len(),
            KeyCode::Char('w') if ctrl => self.delete(word),
            KeyCode::Char('u') if ctrl => *self = Self::default(),
            KeyCode::Char(c) if !ctrl => self.insert(&c.to_string()),
            _ => return false,
        }
        true
    }

    /// Adds text; line ends and the like are left out.
    pub fn paste(&mut self, text: &str) {
        self.insert(&text.replace(char::is_control, ""));
    }

    /// Adds all of a text.
    pub fn insert(&mut self, text: &str) {
        self.text.insert_str(self.caret, text);
        self.caret += text.len();
    }

    /// Deletes what is between `from` and the caret.
    fn delete(&mut self, from: usize) {
        self.text.drain(from..self.caret);
        self.caret = from;
    }

    /// The text, as `show` writes it, with the caret.
    pub fn spans<'a>(&self, show: impl Fn(&str) -> String, theme: Theme) -> [Span<'a>; 3] {
        let style = |style| theme.panel().patch(style);
        let (before, after) = self.text.split_at(self.caret);
        let text = |text| Span::styled(show(text), style(theme.strong()));
        [text(before), Span::styled("▏", style(theme.accent())), text(after)]
    }
}

/// Between words.
const WORDS: [char; 3] = [' ', '/', '.'];

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
    #[test]
    fn the_caret_moves_by_characters_and_words() {
        let mut field = Field::new("out/hé.png");
        let mut press = |code| {
            field.key(KeyEvent::new(code, KeyModifiers::NONE));
            (field.text.clone(), field.caret)
        };
        for _ in 0..4 {
            press(KeyCode::Left);
        }
        assert_eq!(press(KeyCode::Backspace), ("out/h.png".into(), 5));
        assert_eq!(press(KeyCode::Delete), ("out/hpng".into(), 5));
        assert_eq!(press(KeyCode::Char('é')), ("out/hépng".into(), 7));
        assert_eq!(press(KeyCode::Home).1, 0);
        assert_eq!(press(KeyCode::Left).1, 0);
        assert_eq!(press(KeyCode::Backspace).0, "out/hépng");
        assert_eq!(press(KeyCode::End).1, 10);
        assert_eq!(press(KeyCode::Right).1, 10);
        assert_eq!(press(KeyCode::Delete).0, "out/hépng");
        let mut words = Field::new("a dir/one.two");
        let mut texts = Vec::new();
        for _ in 0..5 {
            words.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
            texts.push(words.text.clone());
        }
        assert_eq!(texts, ["a dir/one.", "a dir/", "a ", "", ""]);
    }
}
