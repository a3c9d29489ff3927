//! The examples of a unit in a corpus: its statistics, its histogram, the strongest and weaker ones.

use std::cell::Cell;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::{Panel, centred};
use crate::corpus::atlas::OfGroup;
use crate::corpus::stats;
use crate::corpus::top::Example;
use crate::corpus::units::Measure;
use crate::hooks::{Quantity, TensorName};
use crate::text::{count, fixed, num, pad};
use crate::tui::app::App;
use crate::tui::text::put_line;
use crate::tui::theme::{Depth, Theme};
use crate::tui::widgets::bar;

const WIDTH: u16 = 132;

/// The panel of a unit.
#[derive(Debug, Clone)]
pub struct Examples {
    pub tensor: TensorName,
    pub unit: usize,
    /// The selected example: the strongest, then the weaker ones.
    selected: usize,
    /// The first line shown.
    top: Cell<usize>,
}

/// What a key asks for.
pub enum Asked {
    Nothing,
    /// This example as the prompt.
    Take(usize),
    Search,
    /// The next or previous unit.
    Step(isize),
}

impl Examples {
    pub fn new(tensor: TensorName, unit: usize) -> Self {
        Self { tensor, unit, selected: 0, top: Cell::new(0) }
    }

    pub fn key(&mut self, key: KeyEvent, group: Option<&OfGroup>) -> Asked {
        let n = group.map_or(0, |group| group.examples[self.unit].all().count());
        let last = n.saturating_sub(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Left | KeyCode::Char('h') => return Asked::Step(-1),
            KeyCode::Right | KeyCode::Char('l') => return Asked::Step(1),
            KeyCode::Enter if n > 0 => return Asked::Take(self.selected),
            KeyCode::Char('/') => return Asked::Search,
            _ => {}
        }
        Asked::Nothing
    }
}

/// A line of the panel.
enum Line<'a> {
    Text(String, Style),
    /// An example, with its number, and its quarter of those that were drawn.
    Example(usize, &'a Example, Option<usize>),
}

fn lines(unit: usize, group: &OfGroup, theme: Theme) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    if let Some(stats) = group.stats.get(unit).filter(|stats| stats.count > 0) {
        lines.push(Line::Text(
            format!(
                "mean {}   σ {}   min {}   max {}   above 0: {} % of {}",
                num(stats.mean()),
                num(stats.variance().sqrt()),
                num(stats.min),
                num(stats.max),
                fixed(100.0 * stats.positive_share(), 2),
                count(stats.count as usize, "position")
            ),
            theme.text(),
        ));
        lines.push(Line::Text(histogram(stats), theme.focus()));
        lines.push(Line::Text(String::new(), theme.text()));
    }
    let of = &group.examples[unit];
    if group.group.measure == Measure::Attention {
        let what =
            "of a head: its largest weight on a token other than the first; the colours are its weights";
        lines.push(Line::Text(what.into(), theme.dim()));
    }
    lines.push(Line::Text("strongest".into(), theme.strong()));
    lines.extend(of.best.iter().enumerate().map(|(i, example)| Line::Example(i, example, None)));
    if of.drawn().next().is_some() {
        lines.push(Line::Text("drawn by chance among all values above 0".into(), theme.strong()));
        let drawn = of.drawn().zip(of.best.len()..);
        lines.extend(drawn.map(|((quarter, example), i)| Line::Example(i, example, Some(quarter))));
    }
    lines
}

/// How often each size of activation occurs, from the smallest to the largest bin that is not empty; heights are
/// logarithms.
fn histogram(stats: &stats::OfUnit) -> String {
    let is_filled = |n: &u64| *n > 0;
    let first = stats.histogram.iter().position(is_filled).unwrap_or(0);
    let last = stats.histogram.iter().rposition(is_filled).unwrap_or(0);
    let height = |n: &u64| ((*n as f64).ln_1p() * 1000.0) as usize;
    let bars = bar::histogram(&stats.histogram[first..=last].iter().map(height).collect::<Vec<_>>());
    format!("{} {bars} {}   half octaves, heights are logarithms", num(stats.min), num(stats.max))
}

pub fn panel(shown: &Examples, app: &App, area: Rect) -> Panel {
    let group = app.atlas.group(shown.tensor);
    let lines = group.map_or_else(Vec::new, |group| lines(shown.unit, group, app.theme));
    let n = lines.len().max(1);
    let width = WIDTH.min(area.width.saturating_sub(2));
    let height = u16::try_from(n + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let of = app.atlas.atlas.as_ref().map_or_else(String::new, |atlas| {
        let progress = &atlas.manifest.progress;
        let inputs = &atlas.manifest.settings.inputs;
        let of = inputs
            .first()
            .map_or_else(String::new, |input| format!(" of {}", crate::text::plain(&input.name)));
        let more = if inputs.len() > 1 { " and others" } else { "" };
        format!(" · {}{of}{more}", count(progress.tokens as usize, "token"))
    });
    let name = group.map_or_else(|| shown.tensor.to_string(), |group| group.group.name(shown.unit));
    let room = usize::from(height.saturating_sub(2)).max(1);
    // The selected example is on screen.
    let at = lines.iter().position(|line| matches!(line, Line::Example(i, ..) if *i == shown.selected));
    let at = at.unwrap_or(0);
    let top = shown.top.get().max((at + 1).saturating_sub(room)).min(if at < room { 0 } else { at });
    shown.top.set(top);
    // Above and below what fits.
    let keys = match (top > 0, top + room < n) {
        (false, false) => "↑ ↓ choose · Enter run it · ← → unit · / search by tokens · Esc close",
        (false, true) => "▾ ↑ ↓ choose · Enter run it · ← → unit · / search by tokens · Esc close",
        (true, true) => "▴▾ ↑ ↓ choose · Enter run it · ← → unit · / search by tokens · Esc close",
        (true, false) => "▴ ↑ ↓ choose · Enter run it · ← → unit · / search by tokens · Esc close",
    };
    Panel::new(centred(area, width, height), format!("{name}{of}"), keys)
}

pub fn draw(shown: &Examples, app: &App, inside: Rect, buffer: &mut Buffer) {
    let base = app.theme.panel();
    let Some(group) = app.atlas.group(shown.tensor) else {
        put_line(buffer, inside, &[Span::styled("reading …", base.patch(app.theme.dim()))]);
        return;
    };
    draw_unit(group, shown.unit, (Some(shown.selected), shown.top.get()), (app.theme, base), inside, buffer);
}

/// Draws what a corpus shows of a unit, from its line `top` on.
pub fn draw_unit(
    group: &OfGroup,
    unit: usize,
    (selected, top): (Option<usize>, usize),
    (theme, base): (Theme, Style),
    inside: Rect,
    buffer: &mut Buffer,
) {
    let limit = group.examples[unit].limit();
    for (line, y) in lines(unit, group, theme).iter().skip(top).zip(inside.y..inside.bottom()) {
        let place = Rect { y, height: 1, ..inside };
        match line {
            Line::Text(text, style) => {
                put_line(buffer, place, &[Span::styled(text.clone(), base.patch(*style))]);
            }
            Line::Example(i, example, quarter) => {
                let marked = (limit, Some(*i) == selected);
                let spans = spans((example, *quarter), group, marked, (theme, base), place.width.into());
                put_line(buffer, place, &spans);
            }
        }
    }
}

/// The value, the place, and the tokens, around the one that fires: as many as there is room for.
fn spans<'a>(
    (example, quarter): (&Example, Option<usize>),
    group: &'a OfGroup,
    (limit, is_selected): (f32, bool),
    (theme, base): (Theme, Style),
    width: usize,
) -> Vec<Span<'a>> {
    let style = if is_selected { theme.selected() } else { base };
    let mut spans = vec![
        Span::styled(if is_selected { "▸" } else { " " }, base.patch(theme.accent())),
        Span::styled(format!("{:>8} ", num(example.value)), style),
        Span::styled(
            pad(&format!(" {}:{}", example.document, example.position), 13),
            base.patch(theme.dim()),
        ),
        Span::styled(
            pad(&quarter.map_or_else(String::new, |quarter| format!("quarter {quarter}")), 10),
            base.patch(theme.dim()),
        ),
    ];
    let at = example.at();
    let mut room = width.saturating_sub(33);
    let texts: Vec<_> = example.token_ids.iter().map(|id| group.text(*id)).collect();
    // The token itself, then its neighbours in turn.
    let (mut first, mut last) = (at, at);
    room = room.saturating_sub(texts[at].width());
    loop {
        let before = first.checked_sub(1).filter(|i| texts[*i].width() <= room);
        if let Some(i) = before {
            (first, room) = (i, room - texts[i].width());
        }
        let after = Some(last + 1).filter(|i| texts.get(*i).is_some_and(|text| text.width() <= room));
        if let Some(i) = after {
            (last, room) = (i, room - texts[i].width());
        }
        if before.is_none() && after.is_none() {
            break;
        }
    }
    for (i, text) in texts.into_iter().enumerate().take(last + 1).skip(first) {
        let style = painted(example.values[i], limit, theme);
        let style = if i == at { style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED) } else { style };
        spans.push(Span::styled(text, base.patch(style)));
    }
    spans
}

/// The style of a token with this value.
fn painted(value: f32, limit: f32, theme: Theme) -> Style {
    if theme.depth == Depth::Mono || limit <= 0.0 || !value.is_finite() {
        return theme.text();
    }
    let paper = theme.shade(Quantity::Signed, (value / limit).clamp(-1.0, 1.0).midpoint(1.0));
    Style::new().bg(paper).fg(Theme::on(paper))
}
