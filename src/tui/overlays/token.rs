//! The form for a token, as text or id.

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::field::Field;
use super::{Panel, centred};
use crate::error::Result;
use crate::tui::app::App;
use crate::tui::text::put_line;

/// The purpose of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Token,
    /// The token whose logit is subtracted.
    Versus,
}

/// A token being typed, for the screen below.
pub struct TokenForm {
    typed: Field,
    pub asked: Asked,
}

impl TokenForm {
    pub fn new(asked: Asked) -> Self {
        Self { typed: Field::default(), asked }
    }

    /// Handles a key; `true` to accept the token.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        !self.typed.key(key) && key.code == KeyCode::Enter
    }

    /// All of it: a token may be a line end.
    pub fn paste(&mut self, text: &str) {
        self.typed.insert(text);
    }

    /// The same word after a blank, which is another token.
    fn within_a_text(&self, app: &App) -> Option<(u32, String)> {
        let typed = self.typed.text();
        let word = typed.starts_with(char::is_alphabetic);
        let model = app.model.as_ref().filter(|_| word)?;
        let id = model.token(&format!(" {typed}")).ok()?;
        Some((id, model.tokenizer.show(id)))
    }

    /// The token that the text names.
    pub fn token(&self, app: &App) -> Option<Result<u32>> {
        app.model.as_ref().map(|model| model.token(self.typed.text()))
    }
}

pub fn panel(form: &TokenForm, area: Rect) -> Panel {
    let title = if form.asked == Asked::Token { "Token" } else { "Subtract the logit of" };
    Panel::new(centred(area, 84, 7), title, "Enter accept · Ctrl-U clear · Esc close")
}

pub fn draw(form: &TokenForm, app: &App, inside: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let dim = base.patch(theme.dim());
    let [before, caret, after] = form.typed.spans(|text| crate::model::visible(text.as_bytes()), theme);
    put_line(buffer, line(1), &[Span::styled("token  ", dim), before, caret, after]);
    let said = match form.token(app) {
        _ if form.typed.text().is_empty() => Span::styled("text, with its spaces, or an id in digits", dim),
        Some(Ok(id)) => {
            let shown = app.model.as_ref().map_or_else(String::new, |model| model.tokenizer.show(id));
            Span::styled(format!("{shown}  id {id}"), base.patch(theme.good()))
        }
        Some(Err(error)) => Span::styled(error.to_string(), base.patch(theme.bad())),
        None => Span::raw(""),
    };
    put_line(buffer, line(3), &[Span::styled("       ", dim), said]);
    if let Some((id, shown)) = form.within_a_text(app) {
        let said = format!("       within a text it has a blank before it: {shown}  id {id}");
        put_line(buffer, line(4), &[Span::styled(said, dim)]);
    }
}
