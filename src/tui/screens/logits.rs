//! The likeliest tokens after the selected one, and the sampling of the next.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Scene;
use crate::analysis::logits::{Candidate, Next};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{HookName, Site};
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Selection};
use crate::tui::command::Command;
use crate::tui::layout::Frame;
use crate::tui::text::{fixed, num, pad, prob, put_line, put_right, signed_fixed};
use crate::tui::what_if::{self, signed};
use crate::tui::widgets::{bar, chart};

struct Layout {
    title: Rect,
    heading: Rect,
    list: Rect,
    settings: Rect,
    ranks_title: Rect,
    ranks: Rect,
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
        ranks_title: Rect { height: 1.min(lower.height), ..lower },
        ranks: Rect { y: lower.y + 1, height: lower.height.saturating_sub(1), ..lower },
    }
}

impl Layout {
    /// The columns of the list, and their width.
    fn columns(&self) -> (u16, u16) {
        let n = (self.list.width / COLUMN).max(1);
        (n, self.list.width / n - if n > 1 { 3 } else { 0 })
    }

    /// The maximum length of the list.
    fn len(&self) -> usize {
        usize::from(self.list.height * self.columns().0)
    }

    /// The lines of the list, column by column.
    fn lines(&self) -> impl Iterator<Item = Rect> {
        let (n, width) = self.columns();
        let (list, apart) = (self.list, self.list.width / n);
        (0..n).flat_map(move |i| list.rows().map(move |row| Rect { x: list.x + i * apart, width, ..row }))
    }

    /// The heading of each column.
    fn headings(&self) -> impl Iterator<Item = Rect> {
        let (n, width) = self.columns();
        let (heading, apart) = (self.heading, self.list.width / n);
        (0..n).map(move |i| Rect { x: heading.x + i * apart, width, ..heading })
    }
}

/// The least width of a column of the list.
const COLUMN: u16 = 60;

/// The likeliest tokens after every position: ranks down, positions across.
fn cells(app: &App, run: &Run, area: Rect) -> chart::Layout {
    let n_ranks = chart::lines(area).min(run.config().vocab_size);
    let wide = if area.width < 120 { (7, 16) } else { (9, 20) };
    let selected = (app.selection.candidate, app.selection.position);
    chart::Layout::new(area, (n_ranks, run.n_tokens()), 6, wide, selected)
}

/// It has no state of its own.
pub type State = ();

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[&[
            Command::Range,
            Command::Parts,
            Command::Follow,
            Command::Cooler,
            Command::Warmer,
            Command::FewerK,
            Command::MoreK,
            Command::LessP,
            Command::MoreP,
            Command::Reseed,
        ]]
    }

    fn place_in_flow(&self, _app: &App) -> HookName {
        Site::Logits.once()
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("↑↓", "candidate"), ("←→", "position"), ("Enter", "append")]
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let s = &mut app.selection;
        s.position = moved(s.position, right, run.n_tokens());
        let room = Frame::new(app.size).map_or(1, |frame| layout(frame.body).len());
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
        app.input = run.input.followed_by([id], &run);
        app.selection.candidate = 0;
        app.start_run()
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let layout = layout(area);
        let plot = cells(app, run, layout.ranks).plot;
        let mut looks = vec![(Slot::Next, Look::Next { position: app.selection.position, k: layout.len() })];
        if !plot.window.columns.is_empty() {
            let k = plot.window.rows.end;
            looks.push((Slot::Nexts, Look::Nexts { positions: plot.window.columns, k }));
        }
        looks
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
        draw_ranks(app, run, &layout, buffer);
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
            "probabilities are at temperature 1; the settings only affect sampling (g, G, Ctrl-G)",
            theme.dim(),
        )];
        vec![first, second]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let layout = layout(area);
        if let Some((candidate, position)) = cells(app, run, layout.ranks).hit(x, y) {
            return Some(Selection { position, candidate, ..app.selection });
        }
        let candidate = layout.lines().position(|line| line.contains((x, y).into()))?;
        (candidate < app.next()?.of.top.len()).then_some(Selection { candidate, ..app.selection })
    }
}

/// The likeliest tokens after each position, next to each other.
fn draw_ranks(app: &App, run: &Run, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let what = [
        Span::styled("after every position", theme.strong()),
        Span::styled(
            if app.differs() {
                "  the tokens whose probability changed most, coloured by Δp"
            } else {
                "  the likeliest tokens, likeliest first, coloured by probability"
            },
            theme.dim(),
        ),
    ];
    put_line(buffer, layout.ranks_title, &what);
    let Some(Seen::Nexts(Look::Nexts { positions, .. }, nexts)) =
        app.seen.get(&Slot::Nexts).map(|seen| &**seen)
    else {
        return;
    };
    let mut cells = cells(app, run, layout.ranks);
    // The last answer may be of other positions: it stays until the new one arrives.
    let chart = Next::chart(nexts, cells.plot.window.rows.end, run);
    let (n_rows, n_columns) =
        (chart.values.n_rows, chart.values.n_columns.min(cells.plot.window.columns.len()));
    if n_rows == 0 || n_columns == 0 {
        return;
    }
    (cells.plot.window.rows, cells.plot.window.columns) = (0..n_rows, 0..n_columns);
    let local = app.selection.position.checked_sub(positions.start).unwrap_or(usize::MAX);
    chart::draw(buffer, &cells, &chart, (app.selection.candidate, local), app.range, theme);
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
    for heading in layout.headings() {
        let words = format!(" rank  {} prob", pad("token", 16));
        put_line(buffer, heading, &[Span::styled(words, theme.dim())]);
        put_right(buffer, heading, &Line::from(Span::styled("logit", theme.dim())));
    }
    let bar_width = usize::from(layout.columns().1).saturating_sub(42);
    let most = next.top.first().map_or(1.0, |c| c.prob);
    for ((i, candidate), line) in next.top.iter().enumerate().zip(layout.lines()) {
        let (mark, ink) = ink(app, next, i);
        let spans = [
            Span::styled(mark, theme.accent()),
            Span::styled(format!("{:>3}  ", candidate.rank), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(candidate.id), 16), ink),
            Span::styled(format!(" {}  ", prob(candidate.prob)), theme.text()),
            Span::styled(pad(&bar::bar(candidate.prob / most, bar_width), bar_width), theme.amount()),
            Span::styled(format!(" {:>8}", num(candidate.logit)), theme.dim()),
        ];
        put_line(buffer, line, &spans);
    }
}

/// The tokens whose probability changed most: both probabilities, and the change of the logarithm.
fn draw_moved(app: &App, run: &Run, (next, base): (&Next, &Next), layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    for heading in layout.headings() {
        let words = format!(" rank  {} p base  changed  Δ log p |Δp|", pad("token", 15));
        put_line(buffer, heading, &[Span::styled(words, theme.dim())]);
    }
    let bar_width = usize::from(layout.columns().1).saturating_sub(48);
    let moved: Vec<_> = next.top.iter().zip(&base.top).map(|(now, before)| now.prob - before.prob).collect();
    let most = moved.iter().map(|x| x.abs()).fold(0.0, f32::max);
    let lines = next.top.iter().zip(&base.top).enumerate();
    for ((i, (now, before)), line) in lines.zip(layout.lines()) {
        let (mark, ink) = ink(app, next, i);
        let mut spans = vec![
            Span::styled(mark, theme.accent()),
            Span::styled(format!("{:>3}  ", now.rank), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(now.id), 16), ink),
            Span::styled(format!(" {}   {} ", prob(before.prob), prob(now.prob)), theme.text()),
            Span::styled(format!("{:>8} ", signed(log_ratio(now, before))), theme.accent()),
        ];
        spans.extend(bar::signed(bar::share(moved[i].into(), most.into()), bar_width, theme));
        put_line(buffer, line, &spans);
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
        ("", "one of twelve".into(), "Ctrl-G"),
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
