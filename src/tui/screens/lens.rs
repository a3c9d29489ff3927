//! The logit lens: what each layer would predict, at every position.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::Scene;
use crate::analysis::base::WithBase;
use crate::analysis::lens::{self, Lens, Reading, Show, Which};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{HookName, Site};
use crate::model::FittedLens;
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::text::plain;
use crate::tui::actions::{moved, turned};
use crate::tui::app::{App, Screen, Selection};
use crate::tui::command::Command;
use crate::tui::overlays::Asked;
use crate::tui::text::{fixed, num, pad, prob, put, put_line, short};
use crate::tui::theme::Theme;
use crate::tui::what_if::{self, signed};
use crate::tui::widgets::bar::bar;
use crate::tui::widgets::chart as grid;
use crate::tui::widgets::heatmap::Plot;

/// The number of likeliest tokens in the list.
const LISTED: usize = 16;
/// The minimum width of the screen for a list next to the grid.
const LIST: u16 = 38;
const WIDE: u16 = 118;

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub show: Show,
    /// The token to follow; `None` for the final answer.
    pub token: Option<u32>,
    /// Which lens of the model.
    lens: Which,
    /// The lens whose readings are subtracted.
    versus: Option<Which>,
    /// A row was chosen here.
    chosen: bool,
}

/// The lens that is shown, if it is not the logit lens.
fn through<'a>(app: &App, run: &'a Run) -> Option<&'a FittedLens> {
    app.screens.lens.lens.of(run)
}

/// The name of a lens of the model.
fn name(run: &Run, lens: Which) -> &'static str {
    lens::name_of(lens.of(run).map(|lens| lens.kind))
}

/// What is subtracted and what it is subtracted from, if differences are shown.
fn sides(app: &App, run: &Run) -> Option<(&'static str, &'static str)> {
    match app.screens.lens.versus {
        Some(other) => Some((name(run, other), name(run, app.screens.lens.lens))),
        None => app.differs().then_some(("base", "changed")),
    }
}

/// The residual streams that it reads.
fn hooks(app: &App, run: &Run) -> Vec<HookName> {
    lens::hooks_of(run.config(), through(app, run))
}

fn n_rows(app: &App, run: &Run) -> usize {
    hooks(app, run).len()
}

/// The selected residual stream, counted from `embed`: the first that is not before the selected
/// tensor; the answer, before anything was selected.
fn row(app: &App, run: &Run) -> usize {
    let hooks = hooks(app, run);
    if app.selection.hook == hooks[0] && !app.screens.lens.chosen {
        return hooks.len() - 1;
    }
    hooks.iter().position(|&hook| hook >= app.selection.hook).unwrap_or(hooks.len() - 1)
}

fn select(app: &App, run: &Run, row: usize, position: usize) -> Selection {
    let (selection, hook) = (app.selection, hooks(app, run)[row]);
    Selection { hook, layer: hook.layer.unwrap_or(selection.layer), position, ..selection }
}

struct Layout {
    title: Rect,
    following: Rect,
    chart: grid::Layout,
    list: Rect,
}

fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let list = if area.width >= WIDE { LIST } else { 0 };
    let body = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
    let left = Rect { width: area.width - if list > 0 { list + 2 } else { 0 }, ..body };
    let wide = if app.screens.lens.show == Show::Top { (7, 24) } else { (6, 14) };
    let label = format!("{} post", run.config().n_layer - 1).len().max("embed".len()) + 2;
    let selected = (row(app, run), app.selection.position);
    let chart = grid::Layout::new(left, (n_rows(app, run), run.n_tokens()), label, wide, selected);
    let x = chart.plot.covered().right().max(left.x + left.width.min(60)) + 3;
    Layout {
        title: Rect { height: 1, ..area },
        following: Rect { y: area.y + 1, height: 1, ..area },
        list: Rect {
            x,
            width: if list > 0 { area.right().saturating_sub(x).min(LIST + 20) } else { 0 },
            ..body
        },
        chart,
    }
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[&[
            Command::NextNumber,
            Command::PreviousNumber,
            Command::NextLens,
            Command::VersusLens,
            Command::ChooseToken,
            Command::FinalAnswer,
        ]]
    }

    fn rendered(&self, app: &App, _run: &Run) -> Vec<String> {
        let State { show, token, .. } = app.screens.lens;
        let token = token.map(|token| format!("--token={token}"));
        let named = |flag: &str, lens: Which| {
            let of = lens.of(app.run.as_ref()?)?;
            Some(format!("--{flag}={}", of.name))
        };
        let through = named("with", app.screens.lens.lens);
        let minus =
            app.screens.lens.versus.map(|other| named("minus", other).unwrap_or("--minus=logit".into()));
        ["lens".to_owned(), format!("--show={}", show.name())]
            .into_iter()
            .chain(token)
            .chain(through)
            .chain(minus)
            .collect()
    }

    fn place_in_flow(&self, app: &App) -> HookName {
        app.run.as_ref().map_or(Site::ResidPre.at(0), |run| hooks(app, run)[row(app, run)])
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("←→", "position"), ("↑↓", "layer"), ("Enter", "in Stages")]
    }

    fn take_token(&self, app: &mut App, _asked: Asked, token: Option<u32>) {
        app.screens.lens.token = token;
    }

    fn turn(&self, app: &mut App, by: isize) {
        app.screens.lens.show = turned(&Show::ALL, app.screens.lens.show, by);
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let window = layout(app, run, area).chart.plot.window;
        if window.rows.is_empty() || window.columns.is_empty() {
            return Vec::new();
        }
        let token = app.screens.lens.token;
        vec![(
            Slot::Lens,
            Look::Lens {
                lens: app.screens.lens.lens,
                versus: app.screens.lens.versus,
                rows: window.rows,
                positions: window.columns,
                token,
                k: LISTED,
            },
        )]
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let layout = layout(app, run, area);
        let token = app.screens.lens.token.map(|token| run.model.tokenizer.show(token));
        let sides = sides(app, run);
        let doc = match app.screens.lens.show {
            Show::Top if sides.is_some() => {
                let (other, _) = sides.unwrap_or_default();
                format!("the likeliest token, → if {other} has another, and Δ of its p")
            }
            show => show.doc(token.as_deref()),
        };
        let title = [
            Span::styled(
                match app.screens.lens.versus {
                    Some(other) => format!("{} − {}   ", name(run, app.screens.lens.lens), name(run, other)),
                    None => format!("{}{}   ", app.delta(), name(run, app.screens.lens.lens)),
                },
                theme.strong(),
            ),
            Span::styled(doc, theme.text()),
        ];
        put_line(buffer, layout.title, &title);
        draw_following(app, run, &layout, buffer);
        let Some(lens) = seen(app, run) else { return };
        let hooks = hooks(app, run);
        let Some(first) = lens.of.hooks.first().and_then(|first| hooks.iter().position(|hook| hook == first))
        else {
            return;
        };
        // The last result may be another part than requested now: keep it until the new one arrives.
        let chart = lens.chart(run, app.screens.lens.show, app.screens.lens.versus.is_some());
        let local = |at: usize, from: usize| at.checked_sub(from).unwrap_or(usize::MAX);
        let selected = (local(row(app, run), first), local(app.selection.position, lens.of.positions.start));
        let mut part = layout.chart.clone();
        let n_rows = lens.of.hooks.len().min(part.plot.window.rows.len());
        let n_columns = lens.of.positions.len().min(part.plot.window.columns.len());
        (part.plot.window.rows, part.plot.window.columns) = (0..n_rows, 0..n_columns);
        grid::draw(buffer, &part, &chart, selected, None, theme);
        draw_pending(&lens.of, &part.plot, buffer, theme);
        let (list, curve) = halves(layout.list, n_rows);
        draw_list(app, run, list, buffer);
        draw_curve(app, run, lens, curve, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(reading) = reading(app, run) else { return Vec::new() };
        let show = |id: u32| run.model.tokenizer.show(id);
        let place = format!(
            "{} at {} ({})   ",
            lens::label(reading.of.hook),
            run.token_text(reading.of.position),
            reading.of.position
        );
        let mut first = vec![Span::styled(place, theme.accent())];
        let rank = |reading: &Reading| reading.token.rank;
        match &reading.base {
            // The contents of the cell, in both runs.
            Some(base) => {
                let likeliest =
                    |reading: &Reading| reading.top.first().map(|c| show(c.id)).unwrap_or_default();
                let (before, now) = (likeliest(base), likeliest(reading.of));
                let said = if before == now { now } else { format!("{before} → {now}") };
                first.push(Span::styled(format!("{said}   "), theme.text()));
                if app.screens.lens.show == Show::Rank {
                    let (before, now) = (rank(base), rank(reading.of));
                    let (base, changed) = sides(app, run).unwrap_or_default();
                    let delta = now as isize - before as isize;
                    let said = format!("rank: {base} {before}  {changed} {now}  Δ {delta:+}");
                    first.push(Span::styled(said, theme.accent()));
                } else {
                    let name = app.screens.lens.show.name().replace('_', " ");
                    first.push(Span::styled(format!("{name}: "), theme.dim()));
                    first.extend(what_if::spans(&reading, theme, |reading| {
                        reading.get(app.screens.lens.show)
                    }));
                }
            }
            None => {
                for candidate in &reading.of.top {
                    first.push(Span::styled(show(candidate.id), theme.text()));
                    first.push(Span::styled(format!(" {}  ", short(candidate.prob, 4)), theme.dim()));
                }
            }
        }
        let role = match &reading.base {
            _ if app.screens.lens.token.is_some() => "followed",
            Some(_) if app.screens.lens.versus.is_none() => "the final answer in base",
            Some(_) => "the final answer",
            None => "the final answer",
        };
        let mut second = vec![
            Span::styled(show(reading.of.token.id), theme.good()),
            Span::styled(format!(" ({role}) "), theme.dim()),
        ];
        match &reading.base {
            Some(base) => {
                second.push(Span::styled(
                    format!("rank {} → {}  p: ", rank(base), rank(reading.of)),
                    theme.text(),
                ));
                second.extend(what_if::spans(&reading, theme, |reading| reading.token.prob));
                let delta = |of: fn(&Reading) -> f32| signed(f64::from(reading.shown(|reading| of(reading))));
                let said = format!(
                    " Δ entropy {} bits   Δ D(final ‖ lens) {} nats",
                    delta(|reading| reading.entropy_bits),
                    delta(|reading| reading.kl)
                );
                second.push(Span::styled(said, theme.text()));
            }
            None => second.extend([
                Span::styled(
                    format!(
                        "rank {}  p {}  logit {}",
                        reading.of.token.rank,
                        num(reading.of.token.prob),
                        num(reading.of.token.logit)
                    ),
                    theme.text(),
                ),
                Span::styled("   entropy ", theme.dim()),
                Span::styled(format!("{} bits", fixed(reading.of.entropy_bits, 2)), theme.text()),
                Span::styled("   D(final ‖ lens) ", theme.dim()),
                Span::styled(format!("{} nats", num(reading.of.kl)), theme.text()),
            ]),
        }
        let third = vec![
            Span::styled(reading.of.hook.to_string(), theme.focus()),
            Span::styled(format!("   {} · Enter: in Stages", reading.of.hook.point().doc), theme.dim()),
        ];
        vec![first, second, third]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let (row, position) = layout(app, run, area).chart.hit(x, y)?;
        Some(select(app, run, row, position))
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let position = moved(app.selection.position, right, run.n_tokens());
        let row = if down == 0 { None } else { Some(moved(row(app, run), down, n_rows(app, run))) };
        app.screens.lens.chosen |= down != 0;
        app.selection = match row {
            Some(row) => select(app, run, row, position),
            None => Selection { position, ..app.selection },
        };
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        if let Some(run) = app.run.clone() {
            let hook = hooks(app, &run)[row(app, &run)];
            app.open_in_stages(hook);
        }
        Vec::new()
    }

    fn chart(&self, app: &App, run: &Run) -> Option<(String, Chart)> {
        let lens = seen(app, run).filter(|lens| lens.of.is_whole())?;
        Some((
            format!("lens.{}", app.screens.lens.show.name()),
            lens.chart(run, app.screens.lens.show, app.screens.lens.versus.is_some()),
        ))
    }
}

fn seen<'a>(app: &'a App, run: &Run) -> Option<&'a WithBase<Lens>> {
    match &**app.seen.get(&Slot::Lens)? {
        Seen::Lens(Look::Lens { lens: of, versus, .. }, lens)
            if lens.of.positions.end <= run.n_tokens()
                && (*of, *versus) == (app.screens.lens.lens, app.screens.lens.versus) =>
        {
            Some(lens)
        }
        _ => None,
    }
}

/// The reading under the cursor.
fn reading<'a>(app: &'a App, run: &Run) -> Option<WithBase<&'a Reading>> {
    let (lens, hook) = (seen(app, run)?, hooks(app, run)[row(app, run)]);
    let of = |lens: &'a Lens| lens.get(hook, app.selection.position);
    Some(WithBase { of: of(&lens.of)?, base: lens.base.as_ref().and_then(of) })
}

/// Marks the cells that are not yet computed.
fn draw_pending(lens: &Lens, plot: &Plot, buffer: &mut Buffer, theme: Theme) {
    for (row, hook) in lens.hooks.iter().enumerate().filter(|_| !lens.is_whole()) {
        for (column, position) in lens.positions.clone().enumerate() {
            let Some(at) = plot.words_of(row, column) else { continue };
            if lens.get(*hook, position).is_none() {
                let width = usize::from(at.width);
                put(buffer, at.x, at.y, at.width, &format!("{:^width$}", "…"), theme.faint());
            }
        }
    }
}

/// What the colours show, and which part of the grid is visible.
fn draw_following(app: &App, run: &Run, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let window = &layout.chart.plot.window;
    let mut spans = match app.screens.lens.token {
        Some(token) => vec![
            Span::styled("following ", theme.dim()),
            Span::styled(run.model.tokenizer.show(token), theme.accent()),
            Span::styled("  t: another  T: the final answer", theme.dim()),
        ],
        None => vec![
            Span::styled("following ", theme.dim()),
            Span::styled(
                match sides(app, run) {
                    Some(("base", _)) => "the final answer in base",
                    _ => "the final answer",
                },
                theme.good(),
            ),
            Span::styled("  t: a token", theme.dim()),
        ],
    };
    let part = |shown: &Range<usize>, n: usize, what: &str| {
        if shown.len() < n {
            format!("   {what} {}–{} of {n}", shown.start, shown.end - 1)
        } else {
            String::new()
        }
    };
    let scrolled =
        [part(&window.columns, run.n_tokens(), "positions"), part(&window.rows, n_rows(app, run), "rows")];
    spans.push(Span::styled(scrolled.concat(), theme.text()));
    let said = match through(app, run) {
        Some(lens) => format!("   p = softmax(ln_f({}) · W_U), {}", lens.kind.formula(), plain(&lens.name)),
        None => "   p = softmax(ln_f(resid) · W_U), raw weights".into(),
    };
    spans.push(Span::styled(said, theme.focus()));
    put_line(buffer, layout.following, &spans);
}

/// The likeliest tokens under the cursor.
fn draw_list(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let Some(reading) = reading(app, run).filter(|_| area.width > 20 && area.height > 2) else { return };
    let heading = format!("{} at {}", lens::label(reading.of.hook), run.token_text(reading.of.position));
    put(buffer, area.x, area.y, area.width, &heading, theme.accent());
    if let Some(base) = reading.base {
        let sides = sides(app, run).unwrap_or_default();
        return draw_both(run, (reading.of, base), sides, (area, theme), buffer);
    }
    let bar_width = usize::from(area.width).saturating_sub(28);
    let most = reading.of.top.first().map_or(1.0, |first| first.prob);
    for (candidate, y) in reading.of.top.iter().zip(area.y + 1..area.bottom()) {
        let followed = candidate.id == reading.of.token.id;
        let ink = if followed { theme.good() } else { theme.text() };
        let spans = [
            Span::styled(format!("{:>3}  ", candidate.rank), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(candidate.id), 14), ink),
            Span::styled(format!(" {}  ", prob(candidate.prob)), theme.text()),
            Span::styled(bar(candidate.prob / most, bar_width), theme.amount()),
        ];
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}

/// The list of tokens above, and the curve of `n_rows` lines below it if there is room for both.
fn halves(area: Rect, n_rows: usize) -> (Rect, Rect) {
    let curve = n_rows as u16 + 2;
    let list = area.height.saturating_sub(curve).min(LISTED as u16 + 2);
    if list < 6 {
        return (area, Rect { height: 0, ..area });
    }
    let below = Rect { y: area.y + list, height: area.height - list, ..area };
    (Rect { height: list - 1, ..area }, below)
}

/// The rank and probability of the followed token, layer by layer.
fn draw_curve(app: &App, run: &Run, lens: &WithBase<Lens>, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    if area.width <= 20 || area.height < 4 {
        return;
    }
    let position = app.selection.position;
    let readings: Vec<_> = lens.of.hooks.iter().map(|&hook| (hook, lens.of.get(hook, position))).collect();
    let Some(last) = readings.iter().rev().find_map(|(_, reading)| *reading) else { return };
    let heading = format!("{} by layer", run.model.tokenizer.show(last.token.id));
    let used = put(buffer, area.x, area.y, area.width, &heading, theme.good());
    put(buffer, used, area.y, area.right().saturating_sub(used), "   rank, probability", theme.dim());
    let digits = run.config().vocab_size.to_string().len();
    let label = readings.iter().map(|(hook, _)| lens::label(*hook).len()).max().unwrap_or(0);
    let bar_width = usize::from(area.width).saturating_sub(label + digits + 12);
    for ((hook, reading), y) in readings.iter().zip(area.y + 1..area.bottom()) {
        let selected = hooks(app, run)[row(app, run)] == *hook;
        let ink = if selected { theme.accent() } else { theme.dim() };
        let mut spans = vec![
            Span::styled(if selected { "▸" } else { " " }, theme.accent()),
            Span::styled(pad(&lens::label(*hook), label), ink),
        ];
        match reading {
            Some(reading) => spans.extend([
                Span::styled(format!(" #{:<digits$} ", reading.token.rank), theme.text()),
                Span::styled(format!("{}  ", prob(reading.token.prob)), theme.dim()),
                Span::styled(bar(reading.token.prob, bar_width), theme.amount()),
            ]),
            None => spans.push(Span::styled("  …", theme.faint())),
        }
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}

/// The likeliest tokens in base and now, or of two lenses, side by side.
fn draw_both(
    run: &Run,
    (now, base): (&Reading, &Reading),
    (before, after): (&str, &str),
    (area, theme): (Rect, Theme),
    buffer: &mut Buffer,
) {
    let width = (usize::from(area.width).saturating_sub(5 + 2 * 9) / 2).min(16);
    let heads = format!("     {}  {}", pad(before, width + 7), pad(after, width + 7));
    let line = |y: u16| Rect { y, height: 1, ..area };
    put_line(buffer, line(area.y + 1), &[Span::styled(heads, theme.dim())]);
    for ((before, after), y) in base.top.iter().zip(&now.top).zip(area.y + 2..area.bottom()) {
        let mut spans = vec![Span::styled(format!("{:>3}  ", after.rank), theme.dim())];
        for candidate in [before, after] {
            let ink = if candidate.id == now.token.id { theme.good() } else { theme.text() };
            spans.push(Span::styled(pad(&run.model.tokenizer.show(candidate.id), width), ink));
            spans.push(Span::styled(format!(" {}  ", pad(&short(candidate.prob, 5), 6)), theme.dim()));
        }
        put_line(buffer, line(y), &spans);
    }
}

/// Subtracts the readings of the next other lens, or of none after the last.
pub fn versus_lens(app: &mut App) {
    let Some(run) = app.run.clone() else { return };
    let n = run.model.lenses().len();
    if n == 0 {
        app.note("no other lens was given: start with --lens PATH");
        return;
    }
    let state = &mut app.screens.lens;
    let all = std::iter::once(Which::Logit).chain((0..n).map(Which::Fitted));
    let others = all.filter(|other| *other != state.lens);
    let others: Vec<_> = others.collect();
    let at = state.versus.and_then(|versus| others.iter().position(|other| *other == versus));
    state.versus = others.get(at.map_or(0, |at| at + 1)).copied();
}

/// The logit lens, then each that was fitted to the model, in turn.
pub fn next_lens(app: &mut App) {
    let Some(run) = app.run.clone() else { return };
    let n = run.model.lenses().len();
    if n == 0 {
        app.note("no other lens was given: start with --lens PATH");
    }
    let state = &mut app.screens.lens;
    state.lens = match state.lens {
        Which::Logit if n > 0 => Which::Fitted(0),
        Which::Fitted(lens) if lens + 1 < n => Which::Fitted(lens + 1),
        _ => Which::Logit,
    };
    state.versus = None;
}

/// Opens this screen with a token to follow; shows its rank unless another number for it is shown.
pub fn follow(app: &mut App, token: Option<u32>) {
    (app.screen, app.screens.lens.token) = (Screen::Lens, token);
    if app.screens.lens.show != Show::Prob {
        app.screens.lens.show = Show::Rank;
    }
}
