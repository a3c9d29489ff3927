//! The form for the metric of gradients.

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::field::Field;
use super::{Panel, centred};
use crate::analysis::gradients::Metric;
use crate::error::Result;
use crate::tui::app::App;
use crate::tui::text::{pad, put_line};

/// A metric being typed.
pub struct MetricForm {
    typed: Field,
}

impl MetricForm {
    pub fn new(text: &str) -> Self {
        Self { typed: Field::new(text) }
    }

    pub fn text(&self) -> &str {
        self.typed.text()
    }

    /// Handles a key; `true` to accept the metric.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        !self.typed.key(key) && key.code == KeyCode::Enter
    }

    pub fn paste(&mut self, text: &str) {
        self.typed.paste(text);
    }

    /// The metric that the text names.
    pub fn metric(&self, app: &App) -> Option<Result<Metric>> {
        app.run.as_ref().map(|run| Metric::parse(self.typed.text(), &run.model, run.n_tokens()))
    }
}

/// The forms of a metric, with what each is.
fn forms(app: &App) -> [(String, &'static str); 7] {
    let at = app.selection.position;
    let hook = app.selection.hook.short();
    [
        (format!("logit:TOKEN@{at}"), "a logit after a position; without @, the last"),
        ("logit_diff:A,B".into(), "the logit of A minus that of B"),
        ("logprob:TOKEN".into(), "its log-probability, in nats"),
        ("loss".into(), "the mean of all tokens, or of some: loss:2..5"),
        (format!("entropy@{at}"), "of the prediction, in nats"),
        (format!("value:{hook}[{at},0]"), "a number of a tensor, or a sum with *"),
        (String::new(), "nothing: log p of the likeliest next token"),
    ]
}

pub fn panel(area: Rect) -> Panel {
    let title = "The metric m: what gradients are of";
    Panel::new(centred(area, 100, 15), title, "Enter accept · Ctrl-U clear · Esc close")
}

pub fn draw(form: &MetricForm, app: &App, inside: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let dim = base.patch(theme.dim());
    let [before, caret, after] = form.typed.spans(|text| crate::model::visible(text.as_bytes()), theme);
    put_line(buffer, line(1), &[Span::styled("m = ", dim), before, caret, after]);
    let said = match form.metric(app) {
        _ if form.text().is_empty() => Span::styled("the log-probability of the likeliest next token", dim),
        Some(Ok(metric)) => {
            let words = app.model.as_ref().map_or_else(String::new, |model| metric.words(model));
            Span::styled(words, base.patch(theme.good()))
        }
        Some(Err(error)) => {
            let said = error.to_string();
            let said = said.strip_prefix(&format!("--metric {}: ", form.text())).unwrap_or(&said).to_owned();
            Span::styled(said, base.patch(theme.bad()))
        }
        None => Span::raw(""),
    };
    put_line(buffer, line(3), &[Span::styled("    ", dim), said]);
    for (i, (form, doc)) in forms(app).into_iter().enumerate() {
        let spans = [Span::styled(pad(&form, 30), base.patch(theme.focus())), Span::styled(doc, dim)];
        put_line(buffer, line(5 + i as u16), &spans);
    }
}
