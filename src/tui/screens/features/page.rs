//! The page of a feature: what it does on the prompt, what it reads and writes, and what it does on a corpus.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use super::page as known;
use crate::analysis::features::Page;
use crate::analysis::weights::Neighbour;
use crate::hooks::{Made, Quantity, TensorName};
use crate::interventions::Target;
use crate::model::Dictionary;
use crate::picture::range::{Range, RangeMode};
use crate::run::Run;
use crate::text::{plain, signed_fixed};
use crate::tui::app::App;
use crate::tui::overlays::draw_unit;
use crate::tui::screens::draw_computing;
use crate::tui::text::{count, fixed, num, pad, put, put_line, wrap};
use crate::tui::widgets::row_strip;

/// The width from which the corpus is beside the rest.
const WIDE: u16 = 120;
/// The width of the words on the left.
const NAMES: usize = 12;

pub fn draw(app: &App, run: &Run, dictionary: &Dictionary, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let Some(page) = known(app, run) else {
        draw_computing(buffer, area, theme);
        return;
    };
    let label = dictionary.labels.get(page.of.feature).map_or_else(String::new, |label| plain(label).into());
    let target = Target::Feature { hook: dictionary.writes, feature: page.of.feature };
    let title = [Span::styled(format!("{target}   "), theme.accent()), Span::styled(label, theme.good())];
    put_line(buffer, Rect { height: 1, ..area }, &title);
    let below = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let (facts, corpus) = if area.width >= WIDE {
        let width = area.width * 2 / 5;
        let right = Rect { x: area.x + width + 2, width: area.width - width - 2, ..below };
        (Rect { width, ..below }, right)
    } else {
        let height = below.height.min(FACTS);
        let rest = Rect { y: below.y + height, height: below.height - height, ..below };
        (Rect { height, ..below }, rest)
    };
    draw_facts(app, run, (dictionary, page), facts, buffer);
    draw_corpus(app, (dictionary, page), corpus, buffer);
}

/// The lines of the facts where the corpus is below them.
const FACTS: u16 = 9;

fn draw_facts(
    app: &App,
    run: &Run,
    (dictionary, page): (&Dictionary, &Page),
    area: Rect,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    let of = &page.of;
    let n = of.along.iter().filter(|x| **x > 0.0).count();
    let along = format!("{} of {}", n, count(of.along.len(), "position"));
    let here = match of.value {
        0.0 => "not active here".into(),
        value => format!("{} here, {} % of what is active", num(value), fixed(100.0 * of.share, 1)),
    };
    let mut lines: Vec<(&str, String, Style)> =
        vec![("activation", format!("{here}; at {along}"), theme.text())];
    let tokens =
        |ids: &[u32]| ids.iter().map(|id| run.model.tokenizer.show(*id)).collect::<Vec<_>>().join(" ");
    lines.push(("", String::new(), theme.text())); // the strip
    if let (Some(effect), Some(effects)) = (of.effect, page.effects) {
        let token = run.model.tokenizer.show(effects.token);
        let said = format!("{} on the logit of {token} here, directly", signed_fixed(effect, 3));
        lines.push(("effect", said, theme.text()));
    }
    for (name, ids) in [("promotes", &of.promotes), ("suppresses", &page.suppresses), ("reads", &page.reads)]
    {
        if !ids.is_empty() {
            lines.push((name, tokens(ids), theme.text()));
        }
    }
    let near = |(one, _): &(Neighbour, Vec<u32>)| {
        let label = dictionary.labels.get(one.row as u32).map(plain).unwrap_or_default();
        format!("{:>6}  {}  {label}", one.row, fixed(one.cosine, 2))
    };
    if area.height > FACTS {
        for (i, one) in page.nearest.iter().enumerate() {
            let gap = if dictionary.labels.get(one.0.row as u32).is_some() { "  " } else { "" };
            let said = format!("{}{gap}{}", near(one), tokens(&one.1));
            lines.push((if i == 0 { "nearest" } else { "" }, said, theme.text()));
        }
    } else {
        let all: Vec<_> = page.nearest.iter().map(|one| near(one).trim().replace("  ", " ")).collect();
        lines.push(("nearest", all.join(" · "), theme.text()));
    }
    for ((name, said, style), y) in lines.into_iter().zip(area.y..area.bottom()) {
        let spans = [Span::styled(pad(name, NAMES), theme.dim()), Span::styled(said, style)];
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
    if area.height > 1 {
        let strip = Rect {
            x: area.x + NAMES as u16,
            y: area.y + 1,
            width: area.width.saturating_sub(NAMES as u16),
            height: 1,
        };
        let limit = of.along.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let range = Range { mode: RangeMode::Full, quantity: Quantity::Positive, limit, beyond: 0 };
        row_strip::draw(buffer, strip, &of.along, &range, app.pooling, theme);
        let (per_cell, _) = row_strip::fit(of.along.len(), strip.width);
        let prompt = if per_cell == 1 { "prompt".into() } else { format!("{per_cell} per cell") };
        put(buffer, area.x, area.y + 1, NAMES as u16, &prompt, theme.dim());
    }
}

fn draw_corpus(app: &App, (dictionary, page): (&Dictionary, &Page), area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let tensor = TensorName { hook: dictionary.writes, made: Some(Made::Features(dictionary.n as u32)) };
    let Some(group) = app.atlas.group(tensor) else {
        let why = match (&app.atlas.atlas, &app.model) {
            (Some(atlas), Some(model)) => atlas.check_tensor(model, tensor).err().map(|why| why.to_string()),
            _ => Some(WITHOUT.into()),
        };
        let why = why.unwrap_or_else(|| "reading …".into());
        for (line, y) in wrap(&why, area.width.into()).iter().zip(area.y..area.bottom()) {
            put(buffer, area.x, y, area.width, line, theme.dim());
        }
        return;
    };
    let unit = page.of.feature as usize;
    draw_unit(group, unit, (None, 0), (theme, theme.text()), area, buffer);
}

const WITHOUT: &str =
    "no examples: make an atlas with actscope corpus run --hooks '*.features', and start with --atlas DIR";
