//! What every head does: a grid of heads by one number, and a ranking.

mod number;

use std::sync::{Arc, Weak};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

pub use number::{Filter, Number};

use super::{Scene, head_place, longest_label, position_label};
use crate::analysis::View;
use crate::analysis::base::WithBase;
use crate::analysis::effects::{Effect, Effects, FirstOrder, Question};
use crate::analysis::heads::{Atlas, Metric};
use crate::engine::{Look, Request, Seen, Slot, Work};
use crate::hooks::{Axis, Site, TensorName};
use crate::interventions::{Interventions, Place};
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;
use crate::tui::actions::turned;
use crate::tui::app::{App, Screen, Selection};
use crate::tui::command::{CHANGES, Command};
use crate::tui::text::{count, num, pad, put_line, short};
use crate::tui::what_if;
use crate::tui::widgets::bar;
use crate::tui::widgets::chart as grid;
use crate::tui::widgets::heatmap::{self, Form, Plot, Zoom};

/// The maximum number of random tokens to repeat.
const RANDOM: usize = 50;
/// The minimum and maximum width of the ranking next to the grid.
const LIST: (u16, u16) = (20, 44);
/// The minimum lines of a map.
const MAP: u16 = 12;

/// The state of this screen.
#[derive(Debug, Clone)]
pub struct State {
    pub number: Number,
    /// Whether heads are measured on repeated random tokens, not on the prompt.
    pub random: bool,
    pub seed: u64,
    /// The scores on random tokens.
    pub repeated: Option<Repeated>,
    /// The measurement in progress.
    asked: Option<Repeat>,
    /// The effect of ablating each head, and the run.
    pub effects: Option<(Weak<Run>, Arc<WithBase<Effects>>)>,
    pub filter: Filter,
    /// Whether the heads have been ranked before.
    seen: bool,
}

/// The random tokens, and the interventions.
#[derive(Debug, Clone, PartialEq)]
pub struct Repeat {
    pub n: usize,
    pub seed: u64,
    pub interventions: Interventions,
    /// Whether the difference that they make is measured.
    pub differs: bool,
}

/// The scores, and what they were measured on.
#[derive(Debug, Clone)]
pub struct Repeated {
    pub of: Repeat,
    pub atlas: Arc<WithBase<Atlas>>,
    pub runs: WithBase<Arc<Run>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            number: Number::Score(Metric::PrevToken),
            random: false,
            seed: 0,
            repeated: None,
            asked: None,
            effects: None,
            filter: Filter::All,
            seen: false,
        }
    }
}

/// The current measurement on random tokens.
fn repeat(app: &App, run: &Run) -> Repeat {
    let n = RANDOM.min(run.config().n_positions / 2);
    Repeat {
        n,
        seed: app.screens.heads.seed,
        interventions: run.input.interventions.clone(),
        differs: app.differs(),
    }
}

/// Whether what is shown was measured on random tokens; effects always are of the prompt.
fn on_random(app: &App) -> bool {
    app.screens.heads.random && !app.screens.heads.number.is_effect()
}

/// The scores on random tokens, if still current.
fn repeated<'a>(app: &'a App, run: &Run) -> Option<&'a Repeated> {
    app.screens.heads.repeated.as_ref().filter(|known| known.of == repeat(app, run))
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            CHANGES,
            &[
                Command::NextNumber,
                Command::PreviousNumber,
                Command::RandomTokens,
                Command::ReseedRandom,
                Command::FilterHeads,
                Command::AblateHeads,
            ],
        ]
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("←↑↓→", "head"), ("Enter", "its map")]
    }

    fn turn(&self, app: &mut App, by: isize) {
        app.screens.heads.number = turned(&Number::all(), app.screens.heads.number, by);
    }

    fn place(&self, app: &App) -> Result<Place, &'static str> {
        Ok(head_place(app))
    }

    fn unit(&self, app: &App, _run: &Run) -> Result<(TensorName, usize), &'static str> {
        Ok((Site::Pattern.at(app.selection.layer).into(), app.selection.head))
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let mut looks = Vec::new();
        if !on_random(app) {
            looks.push((Slot::Heads, Look::Heads));
        }
        if app.screens.heads.number == Number::FirstOrder {
            looks.push((Slot::FirstOrder, Look::FirstOrder { position: app.selection.position }));
        }
        let Some((slot, of)) = mapped(app, run) else { return looks };
        if let Some(map) = layout(app, run, area).map {
            let view = pattern(app);
            let (_, plot) = map_plot(app, of, map);
            looks.push((slot, plot.look(view, app.pooling, app.range_for(view.quantity()))));
        }
        looks
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let layout = layout(app, run, area);
        let number = app.screens.heads.number;
        let doc = match (number, effects(app)) {
            (Number::Score(metric), _) => metric.doc().into(),
            (Number::Effect, Some(effects)) => without(run, effects.of.token, effects.of.question.position),
            (Number::Effect, None) => "change of the prediction without the head".into(),
            (Number::FirstOrder, _) => first_order(app).map_or_else(String::new, |first| {
                format!("predicted {}", without(run, first.of.token, first.of.question.position))
            }),
        };
        let delta = app.delta();
        let title = [
            Span::styled(format!("{delta}{}   ", number.title()), theme.strong()),
            Span::styled(doc, theme.text()),
        ];
        put_line(buffer, layout.title, &title);
        draw_source(app, run, layout.on, buffer);
        if let Some(area) = layout.map {
            draw_map(app, run, area, buffer);
        }
        let Some((chart, ranked)) = shown(app, run) else {
            let place = Rect { y: layout.chart.plot.area.y, height: 1, ..area };
            let todo = match app.seen.get(&Slot::FirstOrder).map(|seen| &**seen) {
                Some(Seen::Nothing(_, why)) if number == Number::FirstOrder => why,
                _ if app.is_busy() || number == Number::FirstOrder => "measuring…",
                _ => "not measured yet",
            };
            put_line(buffer, place, &[Span::styled(todo.to_owned(), theme.dim())]);
            return;
        };
        let selected = (app.selection.layer, app.selection.head);
        grid::draw(buffer, &layout.chart, &chart, selected, None, theme);
        draw_list(app, ranked, layout.list, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(atlas) = atlas(app, run) else { return Vec::new() };
        let (layer, head) = (app.selection.layer, app.selection.head);
        let number = app.screens.heads.number;
        let of_metric = |metric: Metric| atlas.shown(|atlas| atlas.get(layer, head).get(metric));
        let delta = if atlas.differs() { "Δ " } else { "" };
        let part = |metric: Metric| {
            let unit = if metric.unit().is_empty() { String::new() } else { format!(" {}", metric.unit()) };
            let style = if Number::Score(metric) == number { theme.accent() } else { theme.text() };
            [
                Span::styled(format!("{delta}{} ", metric.word()), theme.dim()),
                Span::styled(format!("{}{unit}  ", num(of_metric(metric))), style),
            ]
        };
        let of_head = |effects: &Effects| {
            let of_head = |effect: &&Effect| (effect.layer, effect.head) == (layer, Some(head));
            effects.all.iter().find(of_head).map_or(f32::NAN, |effect| effect.delta_logprob as f32)
        };
        let predicted = |effects: &Effects| {
            let of_head = |effect: &&Effect| (effect.layer, effect.head) == (layer, Some(head));
            effects.all.iter().find(of_head).and_then(|effect| effect.first_order).unwrap_or(f64::NAN) as f32
        };
        let mut first = vec![Span::styled(format!("head {layer}.{head}  "), theme.accent())];
        let mut second = Vec::new();
        // The chosen number in all three, if there are three; then the others.
        let effects = effects(app);
        let mut others: Vec<_> = Metric::ALL.to_vec();
        match (number, effects) {
            (Number::Score(metric), _) if atlas.differs() => {
                others.retain(|other| *other != metric);
                first.push(Span::styled(format!("{} ", metric.word()), theme.dim()));
                first.extend(what_if::spans(atlas, theme, |atlas| atlas.get(layer, head).get(metric)));
            }
            (Number::Effect, Some(effects)) if effects.differs() => {
                first.push(Span::styled("effect ", theme.dim()));
                first.extend(what_if::spans(effects, theme, of_head));
            }
            _ => first.extend(others.drain(..4).flat_map(part)),
        }
        second.extend(others.into_iter().flat_map(part));
        if let Some(effects) = effects.filter(|effects| !(effects.differs() && number == Number::Effect)) {
            let style = if number == Number::Effect { theme.accent() } else { theme.text() };
            let delta = if effects.differs() { "Δ " } else { "" };
            second.push(Span::styled(format!("{delta}effect "), theme.dim()));
            second.push(Span::styled(format!("{} nats  ", num(effects.shown(of_head))), style));
            second.push(Span::styled("first-order ", theme.dim()));
            second.push(Span::styled(format!("{}  ", num(effects.shown(predicted))), theme.text()));
        }
        if let Some((_, ranked)) = shown(app, run) {
            let rank = ranked.iter().find(|ranked| is_selected(app, ranked)).map_or(0, |ranked| ranked.rank);
            let size = if atlas.differs() { format!("|Δ {}|", number.word()) } else { number.word().into() };
            second.push(Span::styled(format!("{rank} of {} by {size}", ranked.len()), theme.text()));
        }
        let third = vec![
            Span::styled(format!("= {}", number.formula()), theme.focus()),
            Span::styled("   ", theme.dim()),
            Span::styled("the first three as TransformerLens's detect_head", theme.dim()),
        ];
        let fourth = vec![Span::styled(
            "over all queries, raw weights, nothing folded · Enter: its attention map",
            theme.dim(),
        )];
        vec![first, second, third, fourth]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let layout = layout(app, run, area);
        if layout.list.contains((x, y).into()) && y > layout.list.y {
            let list = listed(app, shown(app, run)?.1);
            let first = first_line(app, &list, usize::from(layout.list.height - 1));
            let ranked = list.get(first + usize::from(y - layout.list.y - 1))?;
            let selection = Selection { layer: ranked.layer, head: ranked.head, ..app.selection };
            return Some(selection);
        }
        let (layer, head) = layout.chart.hit(x, y)?;
        Some(Selection { layer, head, ..app.selection })
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        app.go_head(right);
        app.go_layer(run, down);
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        app.screen = Screen::Attention;
        Vec::new()
    }

    fn shown(&self, app: &App) -> Option<Arc<Run>> {
        let run = app.run.as_ref()?;
        let random = repeated(app, run).filter(|_| on_random(app));
        Some(Arc::clone(random.map_or(run, |known| &known.runs.of)))
    }

    fn base(&self, app: &App) -> Option<Arc<Run>> {
        if on_random(app) {
            repeated(app, app.run.as_ref()?)?.runs.base.clone()
        } else {
            what_if::base_shown(app)
        }
    }

    fn written(&self, app: &App) -> Option<(Arc<Run>, Option<Arc<Run>>)> {
        match app.screens.heads.number {
            Number::Score(_) => Some((self.shown(app)?, self.base(app))),
            // They belong to the prompt.
            Number::Effect | Number::FirstOrder => Some((app.run.clone()?, what_if::base_shown(app))),
        }
    }

    fn chart(&self, app: &App, run: &Run) -> Option<(String, Chart)> {
        Some((format!("heads.{}", app.screens.heads.number.name()), shown(app, run)?.0))
    }

    fn refresh(&self, app: &mut App) -> Option<Request> {
        let run = app.run.clone().filter(|_| app.screen == Screen::Heads)?;
        start_on_the_strongest(app, &run);
        if !on_random(app) {
            return None;
        }
        let repeat = repeat(app, &run);
        // The base of a changed run comes first.
        let base = repeat.interventions.is_idle() || app.what_if.pair.is_some();
        if app.is_busy() || !base || repeated(app, &run).is_some() {
            return None;
        }
        let Repeat { n, seed, interventions, differs } = repeat.clone();
        app.screens.heads.asked = Some(repeat);
        Some(app.start(Work::Repeat { n, seed, interventions, differs }))
    }

    fn give_up(&self, app: &mut App) {
        let known = app.run.as_ref().is_some_and(|run| repeated(app, run).is_some());
        app.screens.heads.random &= known;
    }
}

/// The first time that the heads are ranked, the first of them is selected, unless one was chosen before.
fn start_on_the_strongest(app: &mut App, run: &Run) {
    if app.screens.heads.seen {
        return;
    }
    let Some((_, ranked)) = shown(app, run) else { return };
    app.screens.heads.seen = true;
    if let Some(first) = ranked.first().filter(|_| (app.selection.layer, app.selection.head) == (0, 0)) {
        (app.selection.layer, app.selection.head) = (first.layer, first.head);
    }
}

/// The current scores of the heads.
fn atlas<'a>(app: &'a App, run: &Run) -> Option<&'a WithBase<Atlas>> {
    let atlas = if on_random(app) {
        &repeated(app, run)?.atlas
    } else {
        match &**app.seen.get(&Slot::Heads)? {
            Seen::Heads(_, atlas) => atlas,
            _ => return None,
        }
    };
    let dims = (run.config().n_layer, run.config().n_head);
    ((atlas.of.n_layer, atlas.of.n_head) == dims).then_some(atlas)
}

fn effects(app: &App) -> Option<&WithBase<Effects>> {
    let (of, effects) = app.screens.heads.effects.as_ref()?;
    (of.as_ptr() == Arc::as_ptr(app.run.as_ref()?)).then_some(effects)
}

/// What the gradient predicts, of the current request.
fn first_order(app: &App) -> Option<&WithBase<FirstOrder>> {
    match &**app.seen.get(&Slot::FirstOrder)? {
        Seen::FirstOrder(_, first) => Some(first),
        _ => None,
    }
}

fn without(run: &Run, token: u32, position: usize) -> String {
    let (token, after) = (run.model.tokenizer.show(token), run.token_text(position));
    format!("change of log p of {token} after {after} ({position}) without the head, nats")
}

/// A head and its number.
struct Ranked {
    rank: usize,
    layer: usize,
    head: usize,
    value: f32,
}

/// The chosen number of every head: as a chart, and sorted by importance; for
/// differences, by magnitude.
fn shown(app: &App, run: &Run) -> Option<(Chart, Vec<Ranked>)> {
    let number = app.screens.heads.number;
    let (chart, differs) = match number {
        Number::Score(metric) => {
            let atlas = atlas(app, run)?;
            (atlas.shown(|atlas| atlas.chart(metric)), atlas.differs())
        }
        Number::Effect => {
            let effects = effects(app)?;
            (effects.shown(|effects| effects.chart_of_heads(run)), effects.differs())
        }
        Number::FirstOrder => {
            let first = first_order(app)?;
            (first.shown(|first| first.chart_of_heads(run)), first.differs())
        }
    };
    let n_head = chart.values.n_columns;
    let values = (0..chart.values.n_rows).flat_map(|layer| chart.values.row(layer));
    let mut heads: Vec<_> = values.enumerate().map(|(i, value)| (i / n_head, i % n_head, value)).collect();
    let matters = |value: f32| match number {
        _ if value.is_nan() => f32::NEG_INFINITY,
        _ if differs => value.abs(),
        Number::Score(_) => value,
        Number::Effect | Number::FirstOrder => -value,
    };
    heads.sort_by(|a, b| matters(b.2).total_cmp(&matters(a.2)));
    let ranked = |(i, (layer, head, value))| Ranked { rank: i + 1, layer, head, value };
    Some((chart, heads.into_iter().enumerate().map(ranked).collect()))
}

fn listed(app: &App, ranked: Vec<Ranked>) -> Vec<Ranked> {
    let most = ranked.first().map_or(0.0, |first| first.value.abs());
    let kept = |ranked: &Ranked| match app.screens.heads.filter {
        Filter::All => true,
        Filter::Layer => ranked.layer == app.selection.layer,
        Filter::Strong => ranked.value.abs() >= most / 2.0,
    };
    ranked.into_iter().filter(kept).collect()
}

struct Layout {
    title: Rect,
    on: Rect,
    chart: grid::Layout,
    list: Rect,
    /// The attention of the selected head, if there is room.
    map: Option<Rect>,
}

/// The map is below the grid or beside it, whichever makes it larger.
fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let dims = (run.config().n_layer, run.config().n_head);
    let body = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
    // The grid gets what its heads need, the list the rest, if that is enough.
    let label = grid::label_width(&Labels::numbered("layer"), dims.0);
    let wide = match area.width {
        ..120 => (4, 7),
        width => (7, (width * 3 / 5 / dims.1.max(1) as u16).clamp(10, 32)),
    };
    let least = label as u16 + dims.1 as u16 * wide.0;
    let list = area.width.saturating_sub(least + 3);
    let list = if list < LIST.0 { 0 } else { list.min(LIST.1) };
    let left = Rect { width: area.width - if list > 0 { list + 3 } else { 0 }, ..body };
    let selected = (app.selection.layer, app.selection.head);
    let at = |grid: Rect, map: Option<Rect>, list: Rect| Layout {
        title: Rect { height: 1, ..area },
        on: Rect { y: area.y + 1, height: 1, ..area },
        chart: grid::Layout::new(grid, dims, label, wide, selected),
        map,
        list,
    };
    // If there is plenty of room, half of it is for the map.
    let many = dims.0 as u16 + 2 + MAP <= left.height;
    let share = if many { (left.height / 2).max(dims.0 as u16 + 2) } else { left.height };
    let below = at(Rect { height: share, ..left }, None, Rect::ZERO);
    let grid = below.chart.plot.covered();
    let x = grid.right().max(left.x + left.width.min(40)) + 3;
    let map = many.then(|| Rect {
        y: grid.bottom() + 2,
        width: x.saturating_sub(left.x + 3).min(left.width),
        height: left.bottom().saturating_sub(grid.bottom() + 2),
        ..left
    });
    let width = if list > 0 { area.right().saturating_sub(x) } else { 0 };
    let below = Layout { map, list: Rect { x, width, ..body }, ..below };

    let of = mapped(app, run).map_or(run, |(_, of)| of);
    let cells = |map: Rect| map_plot(app, of, map).1.covered();
    let room = Rect { x: left.x + least + 3, width: left.width.saturating_sub(least + 3), ..left };
    let covered = cells(room);
    if list == 0 || covered.area() <= below.map.map_or(0, |map| cells(map).area()) {
        return below;
    }
    // What the map does not need is for the grid.
    let width = covered.right() - room.x;
    let x = left.right() - width;
    let grid = Rect { width: x.saturating_sub(left.x + 3), ..left };
    let list = Rect { x: left.right() + 3, width: list, ..body };
    at(grid, Some(Rect { x, width, ..left }), list)
}

fn pattern(app: &App) -> View {
    View::hook(Site::Pattern.at(app.selection.layer), app.selection.head)
}

/// The map of the selected head: labels, and cells.
fn map_plot(app: &App, run: &Run, area: Rect) -> (Rect, Plot) {
    let label = (longest_label(run) + 3).min(14);
    let labels = Rect { y: area.y + 1, width: label, height: area.height.saturating_sub(1), ..area };
    let cells = Rect { x: area.x + label, width: area.width.saturating_sub(label), ..labels };
    let n = run.n_tokens();
    let plot = Plot::new(cells, (n, n), Zoom::default(), Form::new(Axis::Key, app.theme));
    (labels, plot)
}

/// The run of the map, and its slot.
fn mapped<'a>(app: &'a App, run: &'a Run) -> Option<(Slot, &'a Run)> {
    if on_random(app) {
        Some((Slot::OnRandom, &*repeated(app, run)?.runs.of))
    } else {
        Some((Slot::Main, run))
    }
}

/// The attention map of the selected head.
fn draw_map(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let Some((slot, run)) = mapped(app, run) else { return };
    let Some(map) = app.map(slot).filter(|map| map.view == pattern(app)) else { return };
    let delta = app.delta();
    let said = format!("{delta}attention of {}.{}", app.selection.layer, app.selection.head);
    let title = [
        Span::styled(said, theme.accent()),
        Span::styled(
            "  down: query, the token that reads · across: key, the token that is read",
            theme.dim(),
        ),
    ];
    put_line(buffer, area, &title);
    let (labels, plot) = map_plot(app, run, area);
    let label = |row: usize| position_label(run, row);
    // The selected token belongs to the prompt.
    let selected = if on_random(app) { usize::MAX } else { app.selection.position };
    heatmap::draw_labels(buffer, labels, &plot, &label, selected, theme);
    heatmap::draw_map(buffer, &plot, map, theme, None);
}

/// What the heads are measured on, and the keys to change that.
fn draw_source(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let Repeat { n, seed, .. } = repeat(app, run);
    let the_prompt = format!("the prompt, {}", count(run.n_tokens(), "token"));
    let random = format!("{}, twice", count(n, "random token"));
    let (on, keys) = match app.screens.heads.number {
        Number::Effect => {
            let position = app.selection.position;
            let at = format!("{} ({position})", run.token_text(position));
            let runs = count(run.config().n_layer * (run.config().n_head + 1), "run");
            (the_prompt, format!("  u: after {at}, {runs}"))
        }
        Number::FirstOrder => (the_prompt, "  one backward pass  u: measure it".into()),
        Number::Score(_) if on_random(app) => {
            (format!("{random} (seed {seed})"), "  s: the prompt  S: others".into())
        }
        // A context of one token has no room for them.
        Number::Score(_) if n == 0 => (the_prompt, String::new()),
        Number::Score(_) => (the_prompt, format!("  s: {random}")),
    };
    let mut spans = vec![
        Span::styled("on ", theme.dim()),
        Span::styled(on, theme.accent()),
        Span::styled(keys, theme.dim()),
    ];
    let most = match app.screens.heads.number {
        Number::Score(metric) => {
            atlas(app, run).and_then(|atlas| Some(atlas).filter(|atlas| !atlas.differs())?.of.most(metric))
        }
        Number::Effect | Number::FirstOrder => None,
    };
    if let Some(most) = most.filter(|most| *most < 1.0) {
        let said = if most > 0.0 {
            format!("   at most {}", short(most, 4))
        } else {
            "   no repeated tokens".into()
        };
        spans.push(Span::styled(said, theme.text()));
    }
    put_line(buffer, area, &spans);
}

/// The first line of the list, so that the selected head is visible.
fn first_line(app: &App, list: &[Ranked], lines: usize) -> usize {
    let at = list.iter().position(|ranked| is_selected(app, ranked)).unwrap_or(0);
    at.saturating_sub(lines / 2).min(list.len().saturating_sub(lines))
}

/// The ranking by the chosen number.
fn draw_list(app: &App, ranked: Vec<Ranked>, area: Rect, buffer: &mut Buffer) {
    if area.width < LIST.0 || area.height < 2 {
        return;
    }
    let theme = app.theme;
    let filter = app.screens.heads.filter.words(app.selection.layer);
    let most = ranked.iter().map(|ranked| ranked.value.abs()).fold(0.0, f32::max);
    let list = listed(app, ranked);
    let lines = usize::from(area.height - 1);
    let first = first_line(app, &list, lines);
    let part = if list.len() > lines {
        format!("  {}–{} of {}", first + 1, first + lines, list.len())
    } else {
        String::new()
    };
    let head = [
        Span::styled("rank  head", theme.dim()),
        Span::styled(format!("  {filter}"), theme.text()),
        Span::styled("  f", theme.dim()),
        Span::styled(part, theme.dim()),
    ];
    put_line(buffer, area, &head);
    let bar_width = usize::from(area.width).saturating_sub(19);
    // Of signed numbers, both sides of 0 are seen.
    let is_signed = app.differs() || app.screens.heads.number.is_effect();
    for (ranked, y) in list.iter().skip(first).zip(area.y + 1..area.bottom()) {
        let selected = is_selected(app, ranked);
        let ink = if selected { theme.accent() } else { theme.text() };
        let share = bar::share(ranked.value.into(), most.into());
        let mut spans = vec![
            Span::styled(format!("{}{:>3}  ", if selected { '▸' } else { ' ' }, ranked.rank), theme.dim()),
            Span::styled(pad(&format!("{}.{}", ranked.layer, ranked.head), 6), ink),
            Span::styled(format!("{:>5}  ", short(ranked.value, 5)), ink),
        ];
        if is_signed {
            spans.extend(bar::signed(share, bar_width, theme));
        } else {
            spans.push(Span::styled(bar::bar(share, bar_width), theme.amount()));
        }
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}

fn is_selected(app: &App, ranked: &Ranked) -> bool {
    (ranked.layer, ranked.head) == (app.selection.layer, app.selection.head)
}

/// Switches the heads in the ranking.
pub fn next_filter(app: &mut App) {
    app.screens.heads.filter = turned(&Filter::ALL, app.screens.heads.filter, 1);
}

/// Measures the heads on other random tokens.
pub fn reseed(app: &mut App) {
    app.screens.heads.random = true;
    app.screens.heads.seed += 1;
}

/// The scores on random tokens arrived.
pub fn measured(app: &mut App, atlas: Arc<WithBase<Atlas>>, runs: WithBase<Arc<Run>>) {
    app.screens.heads.repeated = app.screens.heads.asked.take().map(|of| Repeated { of, atlas, runs });
    // Discards results for other seeds.
    app.shown_id += 1;
}

/// Ablates each head, for the prediction after the selected token.
pub fn ablate(app: &mut App) -> Vec<Request> {
    let Some(run) = app.run.clone() else { return Vec::new() };
    app.screens.heads.number = Number::Effect;
    let base = what_if::base_shown(app);
    let question = Question { position: app.selection.position, token: None, mean: false };
    vec![app.start(Work::Effects { run, base, question })]
}
