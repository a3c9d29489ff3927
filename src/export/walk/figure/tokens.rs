//! What has no operation: tokens in boxes.

use super::{Drawing, INNER, LINE, MARGIN, WIDTH};
use crate::analysis::walk::{Cell, label};
use crate::export::walk::canvas::{Anchor, Face};
use crate::export::walk::excerpt;

/// So many tokens are drawn.
const TOKENS: usize = 60;
const TOKENS_BEFORE_NEXT: usize = 6;

impl Drawing<'_> {
    /// The text, and the tokens that it is cut into.
    pub(super) fn tokens(&mut self) {
        let text = crate::model::visible(self.run.prompt_text().as_bytes());
        if !text.is_empty() {
            let quoted = Face::NAME.fit(&format!("“{text}”"), INNER);
            self.canvas.text((WIDTH / 2.0, self.y + 16.0), Face::NAME, Anchor::Middle, &quoted);
            self.canvas.text((WIDTH / 2.0, self.y + 44.0), Face::SIGN, Anchor::Middle, "↓");
            self.y += 62.0;
        }
        let n = self.run.n_tokens();
        self.chips(excerpt(n, self.page.at.position, TOKENS), None);
    }

    /// The last tokens, and the one after them.
    pub(super) fn next(&mut self) {
        let position = self.page.at.position;
        let end = position + 1;
        let first = end.saturating_sub(TOKENS_BEFORE_NEXT);
        let next = self.page.facts.iter().find_map(|fact| match &fact.value {
            Cell::Text(text) if fact.name == label("token") => Some(text.clone()),
            _ => None,
        });
        self.chips(first..end, next);
    }

    /// Tokens in boxes with their ids and positions; `next` follows them.
    fn chips(&mut self, shown: std::ops::Range<usize>, next: Option<String>) {
        const HEIGHT: f32 = 26.0;
        const PITCH: f32 = HEIGHT + 2.0 * LINE + 14.0;
        let run = self.run;
        let before = (shown.start > 0).then(|| format!("… {} before", shown.start));
        let hidden = run.n_tokens() - shown.end;
        let after = (hidden > 0 && next.is_none()).then(|| format!("{hidden} more …"));
        let mut chips: Vec<(String, String, String, Face, &str)> = Vec::new();
        let note = |text: String| (text, String::new(), String::new(), Face::DIM, "");
        chips.extend(before.map(note));
        let ids = run.model.tokenizer.is_some();
        for position in shown {
            let marked = position == self.page.at.position;
            let (face, class) = if marked { (Face::MARKED_TOKEN, "f") } else { (Face::TOKEN, "l") };
            let id = if ids { format!("id {}", run.tokens[position]) } else { String::new() };
            let text = Face::NAME.fit(&run.token_text(position), INNER / 2.0);
            chips.push((text, id, format!("[{position}]"), face, class));
        }
        chips.extend(after.map(note));
        if let Some(next) = next {
            chips.push(("→".into(), String::new(), String::new(), Face::SIGN, ""));
            let text = Face::NAME.fit(&next, INNER / 2.0);
            chips.push((text, label("next").into(), String::new(), Face::MARKED_TOKEN, "f"));
        }
        // Lines of chips about as long as each other, each in the middle.
        let width = |(text, id, index, face, _): &(String, String, String, Face, &str)| {
            (face.width(text) + 18.0).max(Face::DIM.width(id) + 6.0).max(Face::DIM.width(index) + 6.0)
        };
        let chips: Vec<_> = chips.into_iter().map(|chip| (width(&chip), chip)).collect();
        let whole: f32 = chips.iter().map(|(wide, _)| wide + 8.0).sum();
        let share = whole / (whole / INNER).ceil();
        let mut lines: Vec<(f32, Vec<_>)> = vec![(0.0, Vec::new())];
        for (wide, chip) in chips {
            let (used, line) = lines.last_mut().expect("there is a first line");
            if (*used + wide > INNER || *used + wide / 2.0 > share) && !line.is_empty() {
                lines.push((wide + 8.0, vec![(chip, wide)]));
            } else {
                *used += wide + 8.0;
                line.push((chip, wide));
            }
        }
        for (used, line) in lines {
            let mut x = MARGIN + (INNER - used + 8.0).max(0.0) / 2.0;
            for ((text, id, index, face, class), wide) in line {
                let middle = x + wide / 2.0;
                if !class.is_empty() {
                    let stroke = if class == "f" { "1.5" } else { "1" };
                    self.canvas.rect(
                        (x, self.y),
                        (wide, HEIGHT),
                        class,
                        &format!(r#"rx="5" stroke-width="{stroke}""#),
                    );
                }
                self.canvas.text((middle, self.y + 18.0), face, Anchor::Middle, &text);
                for (i, words) in [id, index].iter().filter(|words| !words.is_empty()).enumerate() {
                    let y = self.y + HEIGHT + 1.0 + (i + 1) as f32 * (LINE - 2.0);
                    self.canvas.text((middle, y), Face::DIM, Anchor::Middle, words);
                }
                x += wide + 8.0;
            }
            self.y += PITCH;
        }
        self.y -= 14.0;
    }
}
