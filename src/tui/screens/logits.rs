//! The likeliest tokens after the selected one, and the sampling of the next.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Scene;
use crate::analysis::View;
use crate::analysis::logits::{Candidate, Next};
use crate::engine::{Look, Request, Slot};
use crate::hooks::{Axis, Site};
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Selection};
use crate::tui::command::{COLOURS, Command};
use crate::tui::layout::Frame;
use crate::tui::text::{fixed, num, pad, prob, put_line, put_right, signed_fixed};
use crate::tui::what_if::{self, signed};
use crate::tui::widgets::bar;
use crate::tui::widgets::heatmap::{Form, Plot, Sheet, Zoom};

struct Layout {
    title: Rect,
    heading: Rect,
    list: Rect,
    settings: Rect,
    map_title: Rect,
    sheet: Sheet,
}

fn layout(area: Rect) -> Layout {
    let settings_width = if area.width >= 110 { 44 } else { 26 };
    let list_width = area.width - settings_width - 2;
    let map_height = (area.height / 3).min(24);
    let upper = Rect { height: area.height - map_height, ..area };
    let lower = Rect { y: upper.bottom(), height: map_height, ..area };
    Layout {
        title: Rect { height: 1, ..area },
        heading: Rect { y: area.y + 1, width: list_width, height: 1, ..area },
        list: Rect { y: area.y + 2, width: list_width, height: upper.height.saturating_sub(3), ..area },
        settings: Rect {
            x: area.right() - settings_width,
            y: area.y + 1,
            width: settings_width,
            height: upper.height.saturating_sub(2),
        },
        map_title: Rect { height: 1.min(lower.height), ..lower },
        sheet: Sheet::new(lower, 2, 14),
    }
}

fn probs() -> View {
    View::hook(Site::Probs.once(), 0)
}

/// The maximum length of the list.
fn list_len(area: Rect) -> usize {
    layout(area).list.height.into()
}

fn plot(app: &App, run: &Run, area: Rect) -> Plot {
    Plot {
        numbers: false,
        ..Plot::new(area, probs().dims(run), Zoom::default(), Form::new(Axis::Vocab, app.theme))
    }
}

/// It has no state of its own.
pub type State = ();

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            COLOURS,
            &[
                Command::Parts,
                Command::Follow,
                Command::Cooler,
                Command::Warmer,
                Command::FewerK,
                Command::MoreK,
                Command::LessP,
                Command::MoreP,
                Command::Reseed,
            ],
        ]
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("↑↓", "candidate"), ("←→", "position"), ("Enter", "append")]
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let s = &mut app.selection;
        s.position = moved(s.position, right, run.n_tokens());
        let room = Frame::new(app.size).map_or(1, |frame| list_len(frame.body));
        s.candidate = moved(s.candidate, down, room.min(run.config().vocab_size));
    }

    /// Appends the selected candidate.
    fn open(&self, app: &mut App) -> Vec<Request> {
        let at_end = app.run.as_ref().is_some_and(|run| app.selection.position + 1 == run.n_tokens());
        let (Some(id), Some(run)) = (app.candidate(), app.made().cloned()) else { return Vec::new() };
        if !at_end {
            app.complain("tokens can only be appended at the end: select the last token first");
            return Vec::new();
        }
        app.input = run.input.followed_by(id, &run);
        app.selection.candidate = 0;
        app.start_run()
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let range = app.range_for(probs().quantity());
        vec![
            (Slot::Next, Look::Next { position: app.selection.position, k: list_len(area) }),
            (Slot::Main, plot(app, run, layout(area).sheet.plot).look(probs(), app.pooling, range)),
        ]
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let layout = layout(area);
        let theme = app.theme;
        let position = app.selection.position;
        let mut title = vec![
            Span::styled("after ", theme.dim()),
            Span::styled(format!("{} ({position})", run.token_text(position)), theme.accent()),
        ];
        let next = app.next().filter(|next| next.of.position == position);
        match next.map(|next| (next, next.of.actual)) {
            Some((next, Some(actual))) => {
                let token = run.model.tokenizer.show(actual.id);
                if next.differs() {
                    title.push(Span::styled(format!("   next {token}  p: "), theme.text()));
                    title
                        .extend(what_if::spans(next, theme, |next| next.actual.map_or(f32::NAN, |c| c.prob)));
                } else {
                    let bits = -actual.prob.log2();
                    let (rank, p, bits) = (actual.rank, prob(actual.prob), fixed(bits, 2));
                    let said = format!("   next in the prompt: {token}, rank {rank}, p {p}, {bits} bits");
                    title.push(Span::styled(said, theme.text()));
                }
            }
            Some((_, None)) => {
                title.push(Span::styled(
                    "   the end of the prompt: the network predicts what comes next",
                    theme.text(),
                ));
            }
            None => {}
        }
        put_line(buffer, layout.title, &title);
        if let Some(next) = next {
            match &next.base {
                Some(base) => draw_moved(app, run, (&next.of, base), &layout, buffer),
                None => draw_likeliest(app, run, &next.of, &layout, buffer),
            }
            let entropy = next.shown(|next| next.entropy_bits);
            draw_settings(app, entropy, layout.settings, buffer);
        }
        let what = [
            Span::styled(
                if app.differs() {
                    "every position × the vocabulary, changed − base"
                } else {
                    "every position × the vocabulary"
                },
                theme.strong(),
            ),
            Span::styled(
                format!("  probabilities, ({}, {})", run.n_tokens(), run.config().vocab_size),
                theme.dim(),
            ),
        ];
        put_line(buffer, layout.map_title, &what);
        if let Some(map) = app.map(Slot::Main).filter(|map| map.view == probs()) {
            let plot = plot(app, run, layout.sheet.plot);
            let chosen =
                next.and_then(|next| next.of.top.get(app.selection.candidate)).map_or(0, |c| c.id as usize);
            let label = |row: usize| super::position_label(run, row);
            layout.sheet.draw(buffer, &plot, map, &label, (position, chosen), theme);
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(next) = app.next() else { return Vec::new() };
        let Some(candidate) = next.of.top.get(app.selection.candidate) else { return Vec::new() };
        let mut first = vec![Span::styled(run.model.tokenizer.show(candidate.id), theme.accent())];
        if let Some(before) = next.base.as_ref().and_then(|base| base.top.get(app.selection.candidate)) {
            let at = app.selection.candidate;
            first.push(Span::styled("  p: ", theme.dim()));
            first.extend(what_if::spans(next, theme, |next| next.top[at].prob));
            first.push(Span::styled(" Δ log p ", theme.dim()));
            first.push(Span::styled(signed(log_ratio(candidate, before)), theme.accent()));
            let ranks = format!("   rank {} → {}   id {}", before.rank, candidate.rank, candidate.id);
            first.push(Span::styled(ranks, theme.text()));
        } else {
            first.push(Span::styled(
                format!(
                    "  id {}   rank {}   p {:.5}   logit {}   log p {}",
                    candidate.id,
                    candidate.rank,
                    candidate.prob,
                    num(candidate.logit),
                    fixed(candidate.prob.ln(), 4)
                ),
                theme.text(),
            ));
        }
        let second = vec![Span::styled(
            "probabilities are at temperature 1; the settings only affect sampling (g, G)",
            theme.dim(),
        )];
        vec![first, second]
    }

    fn hit(&self, app: &App, _run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let list = layout(area).list;
        let candidate = usize::from(y.checked_sub(list.y)?);
        let inside = list.contains((x, y).into()) && candidate < app.next()?.of.top.len();
        inside.then_some(Selection { candidate, ..app.selection })
    }
}

/// The mark and the colour of a line of the list.
fn ink(app: &App, next: &Next, i: usize) -> (&'static str, Style) {
    let theme = app.theme;
    let is_next = next.actual.is_some_and(|actual| actual.id == next.top[i].id);
    match (i == app.selection.candidate, is_next) {
        (true, _) => ("▸", theme.selected()),
        (false, true) => (" ", theme.good()),
        (false, false) => (" ", theme.text()),
    }
}

/// The likeliest tokens, likeliest first.
fn draw_likeliest(app: &App, run: &Run, next: &Next, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let heading = Span::styled(format!(" rank  {} prob", pad("token", 16)), theme.dim());
    put_line(buffer, layout.heading, &[heading]);
    put_right(buffer, layout.heading, &Line::from(Span::styled("logit", theme.dim())));
    let bar_width = usize::from(layout.list.width).saturating_sub(42);
    let most = next.top.first().map_or(1.0, |c| c.prob);
    for ((i, candidate), y) in next.top.iter().enumerate().zip(layout.list.top()..layout.list.bottom()) {
        let (mark, ink) = ink(app, next, i);
        let spans = [
            Span::styled(mark, theme.accent()),
            Span::styled(format!("{:>3}  ", candidate.rank), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(candidate.id), 16), ink),
            Span::styled(format!(" {}  ", prob(candidate.prob)), theme.text()),
            Span::styled(pad(&bar::bar(candidate.prob / most, bar_width), bar_width), theme.amount()),
            Span::styled(format!(" {:>8}", num(candidate.logit)), theme.dim()),
        ];
        put_line(buffer, Rect { y, height: 1, ..layout.list }, &spans);
    }
}

/// The tokens whose probability changed most: both probabilities, and the change of the logarithm.
fn draw_moved(app: &App, run: &Run, (next, base): (&Next, &Next), layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let heading = format!(" rank  {} p base  changed  Δ log p |Δp|", pad("token", 15));
    put_line(buffer, layout.heading, &[Span::styled(heading, theme.dim())]);
    let bar_width = usize::from(layout.list.width).saturating_sub(48);
    let moved: Vec<_> = next.top.iter().zip(&base.top).map(|(now, before)| now.prob - before.prob).collect();
    let most = moved.iter().map(|x| x.abs()).fold(0.0, f32::max);
    let lines = next.top.iter().zip(&base.top).enumerate();
    for ((i, (now, before)), y) in lines.zip(layout.list.top()..layout.list.bottom()) {
        let (mark, ink) = ink(app, next, i);
        let mut spans = vec![
            Span::styled(mark, theme.accent()),
            Span::styled(format!("{:>3}  ", now.rank), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(now.id), 16), ink),
            Span::styled(format!(" {}   {} ", prob(before.prob), prob(now.prob)), theme.text()),
            Span::styled(format!("{:>8} ", signed(log_ratio(now, before))), theme.accent()),
        ];
        spans.extend(bar::signed(bar::share(moved[i].into(), most.into()), bar_width, theme));
        put_line(buffer, Rect { y, height: 1, ..layout.list }, &spans);
    }
}

/// The change of the logarithm of a probability.
fn log_ratio(now: &Candidate, before: &Candidate) -> f64 {
    f64::from(now.prob).ln() - f64::from(before.prob).ln()
}

fn draw_settings(app: &App, entropy: f64, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let sampling = &app.sampling;
    let temperature = if sampling.temperature > 0.0 {
        format!("{:.1}", sampling.temperature)
    } else {
        "0: the likeliest".into()
    };
    let entropy = if app.differs() {
        ("Δ entropy", format!("{} bits", signed_fixed(entropy, 2)), "")
    } else {
        ("entropy", format!("{} bits", fixed(entropy, 2)), "")
    };
    let lines = [
        entropy,
        ("", String::new(), ""),
        ("temperature", temperature, "t T"),
        ("top-k", sampling.top_k.map_or("off".into(), |k| k.to_string()), "< >"),
        ("top-p", sampling.top_p.map_or("off".into(), |p| format!("{p:.2}")), "( )"),
        ("seed", sampling.seed.to_string(), "S"),
        ("", String::new(), ""),
        ("append", "sampled".into(), "g"),
        ("", "sixteen".into(), "G"),
        ("", "the selected".into(), "Enter"),
    ];
    for ((name, value, keys), y) in lines.iter().zip(area.top()..area.bottom()) {
        let spans = [
            Span::styled(pad(name, 12), theme.dim()),
            Span::styled(format!("{value} "), theme.text()),
            Span::styled((*keys).to_owned(), theme.focus()),
        ];
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}
