//! How much each component contributes to a logit.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Scene, draw_computing, head_place};
use crate::analysis::attribution::{Attribution, Component, Contribution, Neuron};
use crate::analysis::base::WithBase;
use crate::corpus::top::Example;
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{Site, TensorName};
use crate::interventions::{Place, Target};
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Screen, Selection, Writer};
use crate::tui::command::{BLOCKS, CHANGES, Command};
use crate::tui::gradient;
use crate::tui::overlays::Asked;
use crate::tui::text::{fit, num, pad, put, put_line, put_right, short};
use crate::tui::theme::Theme;
use crate::tui::what_if;
use crate::tui::widgets::{bar, chart};

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The token whose logit is shown; the likeliest, if none was chosen.
    pub token: Option<u32>,
    /// The token whose logit is subtracted.
    pub versus: Option<u32>,
    /// The selected line of the list of neurons of the selected block's MLP, if it is shown.
    pub neuron: Option<usize>,
}

struct Layout {
    title: Rect,
    sum: Rect,
    chart: Rect,
    rule: u16,
    list_title: Rect,
    list: Rect,
}

fn layout(area: Rect) -> Layout {
    let gap = u16::from(area.height >= 24);
    let list_width = (area.width / 4).clamp(27, 64);
    let below = Rect { y: area.y + 2 + gap, height: area.height.saturating_sub(2 + gap), ..area };
    let right = Rect { x: area.right() - list_width, width: list_width, ..below };
    Layout {
        title: Rect { height: 1, ..area },
        sum: Rect { y: area.y + 1, height: 1, ..area },
        chart: Rect { width: area.width - list_width - 3, ..below },
        rule: right.x - 2,
        list_title: Rect { height: 1.min(right.height), ..right },
        list: Rect { y: right.y + 1, height: right.height.saturating_sub(1), ..right },
    }
}

/// Row and column of the selected component in the chart.
fn cell(app: &App, run: &Run) -> (usize, usize) {
    (app.selection.layer, column(writer(app), app.selection.head, run.config().n_head))
}

/// The column of a component: the MLP comes first.
fn column(writer: Writer, head: usize, n_head: usize) -> usize {
    match writer {
        Writer::Mlp => 0,
        Writer::Head => 1 + head,
        Writer::AttnBias => n_head + 1,
        Writer::MlpBias => n_head + 2,
        Writer::Change => n_head + 3,
    }
}

/// The selection with the component at a cell of the chart.
fn at_cell(selection: Selection, run: &Run, (layer, column): (usize, usize)) -> Selection {
    let n_head = run.config().n_head;
    let writer = match column.checked_sub(n_head + 1) {
        None if column == 0 => Writer::Mlp,
        None => Writer::Head,
        Some(0) => Writer::AttnBias,
        Some(1) => Writer::MlpBias,
        Some(_) => Writer::Change,
    };
    let head = if writer == Writer::Head { column - 1 } else { selection.head };
    Selection { layer, head, writer, ..selection }
}

/// What is selected, if this run has it.
fn writer(app: &App) -> Writer {
    match app.selection.writer {
        Writer::Change if !attribution(app).is_some_and(|of| of.of.is_changed()) => Writer::Head,
        writer => writer,
    }
}

fn component(app: &App) -> Component {
    let Selection { layer, head, .. } = app.selection;
    match writer(app) {
        Writer::Head => Component::Head(layer, head),
        Writer::AttnBias => Component::AttnBias(layer),
        Writer::Mlp => Component::Mlp(layer),
        Writer::MlpBias => Component::MlpBias(layer),
        Writer::Change => Component::Change(layer),
    }
}

/// The total effect of a component, or why there is none.
fn total(app: &App, component: Component) -> Result<f64, &str> {
    match app.seen.get(&Slot::Totals).map(|seen| &**seen) {
        Some(Seen::Totals(_, all)) => {
            let found = all.iter().find(|(one, _)| *one == component);
            found.map(|(_, total)| *total).ok_or("no total effect: it is a change")
        }
        Some(Seen::Nothing(_, why)) => Err(why),
        _ => Err("computing …"),
    }
}

/// The selected line of the list of neurons, if it is shown.
fn line(app: &App) -> Option<usize> {
    app.screens.attribution.neuron.filter(|_| app.selection.writer == Writer::Mlp)
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            BLOCKS,
            CHANGES,
            &[Command::Range, Command::Gradient, Command::Versus, Command::ChooseToken, Command::FinalAnswer],
        ]
    }

    fn place(&self, app: &App) -> Result<Place, &'static str> {
        let whole = |target| Ok(Place { target, position: None });
        let layer = app.selection.layer;
        match (component(app), neurons(app).zip(line(app))) {
            (Component::Mlp(_), Some((neurons, at))) if at < neurons.len() => {
                whole(Target::Neuron { layer, neuron: neurons[at].of.neuron })
            }
            (Component::Head(..), _) => Ok(head_place(app)),
            (Component::Mlp(_), _) => whole(Target::Tensor(Site::MlpOut.at(layer))),
            (Component::Change(_), _) => Err("this is what a change adds: i lists the changes"),
            _ => Err("a bias is a weight: change the head or the MLP beside it"),
        }
    }

    fn unit(&self, app: &App, _run: &Run) -> Result<(TensorName, usize), &'static str> {
        let layer = app.selection.layer;
        match (component(app), neurons(app).zip(line(app))) {
            (Component::Mlp(_), Some((neurons, at))) if at < neurons.len() => {
                Ok((Site::MlpPost.at(layer).into(), neurons[at].of.neuron))
            }
            (Component::Head(layer, head), _) => Ok((Site::Pattern.at(layer).into(), head)),
            (Component::Mlp(_), _) => Err("an MLP has many neurons: Enter lists them, choose one"),
            _ => Err("a bias is the same everywhere: choose a head or an MLP"),
        }
    }

    fn refresh(&self, app: &mut App) -> Option<Request> {
        line(app)?;
        app.atlas.need(Site::MlpPost.at(app.selection.layer).into())
    }

    /// The final answer is not compared with another token.
    fn take_token(&self, app: &mut App, asked: Asked, token: Option<u32>) {
        let state = &mut app.screens.attribution;
        match (asked, token) {
            (_, None) => (state.token, state.versus) = (None, None),
            (Asked::Token, token) => state.token = token,
            (Asked::Versus, versus) => state.versus = versus,
        }
    }

    fn turn_gradient(&self, app: &mut App) {
        gradient::next_totals(app);
    }

    fn back(&self, app: &mut App) {
        app.screens.attribution.neuron = None;
    }

    fn rendered(&self, app: &App, _run: &Run) -> Vec<String> {
        let State { token, versus, .. } = app.screens.attribution;
        let flag = |name: &str, id: Option<u32>| id.map(|id| format!("--{name}={id}"));
        let position = format!("--position={}", app.selection.position);
        ["attribution".to_owned(), position]
            .into_iter()
            .chain(flag("token", token))
            .chain(flag("versus", versus))
            .collect()
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        match (line(app), app.selection.writer) {
            (Some(_), _) => &[("↑↓", "neuron"), ("Enter", "its tokens"), ("Esc", "all parts")],
            (None, Writer::Head) => &[("↑↓", "block"), ("←→", "component"), ("Enter", "its map")],
            (None, Writer::Mlp) => &[("↑↓", "block"), ("←→", "component"), ("Enter", "its neurons")],
            (None, _) => &[("↑↓", "block"), ("←→", "component")],
        }
    }

    fn wanted(&self, app: &App, _run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let State { token, versus, .. } = app.screens.attribution;
        let position = app.selection.position;
        let mut looks = vec![(Slot::Attribution, Look::Attribution { position, token, versus })];
        if app.gradient.totals {
            looks.push((Slot::Totals, Look::Totals { position, token, versus }));
        }
        if line(app).is_some() {
            let (layer, k) = (app.selection.layer, layout(area).list.height.into());
            looks.push((Slot::Neurons, Look::Neurons { position, token, versus, layer, k }));
        }
        looks
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let layout = layout(area);
        let Some(found) = attribution(app) else {
            draw_computing(buffer, area, theme);
            return;
        };
        let title = title(app, run, found);
        put_line(buffer, layout.title, &title);
        let used = title.iter().map(Span::width).sum::<usize>() as u16 + 3;
        let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..layout.title };
        let keys = [("t", " token  "), ("v", " versus")]
            .into_iter()
            .flat_map(|(key, word)| [Span::styled(key, theme.focus()), Span::styled(word, theme.dim())]);
        put_right(buffer, rest, &keys.collect::<Line>());
        let shown = found.shown(Attribution::clone);
        put_line(buffer, layout.sum, &sum(app, &shown, area.width));
        let chart = shown.chart(run);
        let cells = cells(app, run, &chart, layout.chart);
        chart::draw(buffer, &cells, &chart, cell(app, run), app.range, theme);
        let end = cells.plot.covered().right();
        let blocks = Rect { x: end, width: layout.chart.right().saturating_sub(end), ..layout.chart };
        draw_blocks(app, run, &shown, &cells, blocks, buffer);
        for y in layout.list_title.top()..area.bottom() {
            put(buffer, layout.rule, y, 1, "│", theme.faint());
        }
        match (line(app), neurons(app)) {
            (Some(selected), Some(neurons)) => draw_neurons(app, neurons, selected, &layout, buffer),
            _ => draw_parts(app, found, &layout, buffer),
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(found) = attribution(app) else { return Vec::new() };
        if let (Some(at), Some(neurons)) = (line(app), neurons(app)) {
            let Some(n) = neurons.get(at) else { return Vec::new() };
            let mut first =
                vec![Span::styled(format!("neuron {}.{}", app.selection.layer, n.of.neuron), theme.accent())];
            first.extend(wrote(n, theme, |n| n.value));
            first.push(Span::styled("at post = ", theme.text()));
            first.extend(what_if::spans(n, theme, |n| n.post));
            let second = "post · W_out[n], seen like the MLP; Enter: its tokens; Esc: all parts";
            let mut lines = vec![first, vec![Span::styled(second, theme.dim())]];
            if let Some(examples) = fires_on(app, n.of.neuron) {
                lines.push(vec![
                    Span::styled("fires most on ", theme.dim()),
                    Span::styled(examples, theme.text()),
                    Span::styled("   E: examples from a corpus", theme.dim()),
                ]);
            }
            return lines;
        }
        let component = component(app);
        let ranked = found.shown(Attribution::clone).ranked();
        let rank = ranked.iter().position(|part| part.component == component).map_or(0, |at| at + 1);
        let mut first = vec![Span::styled(component.to_string(), theme.accent())];
        first.extend(wrote(found, theme, |of| of.value(component).unwrap_or_default()));
        let all = num(found.shown(|of| of.logit) as f32);
        let said = format!("of {}{all}   rank {rank} of {}", app.delta(), ranked.len());
        first.push(Span::styled(said, theme.text()));
        if app.gradient.totals {
            let total = match total(app, component) {
                Ok(total) => Span::styled(format!("   total effect {}", num(total as f32)), theme.accent()),
                Err(why) => Span::styled(format!("   {why}"), theme.dim()),
            };
            first.push(total);
        }
        let what = match component {
            Component::Head(..) => "x = z · W_O of this head, without b_O; Enter: its map",
            Component::Mlp(_) => "x = post · W_out, without b_out; Enter: its neurons",
            Component::Change(_) => "x is what the interventions added to the stream here",
            _ => "x is a bias of the checkpoint",
        };
        let token = run.model.tokenizer.show(found.of.token);
        let less = found
            .of
            .versus
            .map_or_else(String::new, |id| format!(" − W_U[{}]", run.model.tokenizer.show(id)));
        let second = vec![
            Span::styled(what, theme.text()),
            Span::styled(
                format!("   (x − its mean) / ln_f scale · ln_f weight · (W_U[{token}]{less}), raw weights"),
                theme.dim(),
            ),
        ];
        vec![first, second]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let found = attribution(app)?;
        let layout = layout(area);
        if layout.list.contains((x, y).into()) {
            if line(app).is_some() {
                return None;
            }
            let ranked = found.shown(Attribution::clone).ranked();
            let at = ranked.iter().position(|part| part.component == component(app)).unwrap_or(0);
            let places = places(layout.list, ranked.len(), found.differs());
            let line = places.iter().position(|place| place.contains((x, y).into()))?;
            let (layer, writer, head) =
                match ranked.get(shown(Some(at), places.len(), ranked.len()).nth(line)??)?.component {
                    Component::Head(layer, head) => (layer, Writer::Head, head),
                    Component::AttnBias(layer) => (layer, Writer::AttnBias, app.selection.head),
                    Component::Mlp(layer) => (layer, Writer::Mlp, app.selection.head),
                    Component::MlpBias(layer) => (layer, Writer::MlpBias, app.selection.head),
                    Component::Change(layer) => (layer, Writer::Change, app.selection.head),
                    _ => return None,
                };
            return Some(Selection { layer, head, writer, ..app.selection });
        }
        let chart = found.chart(run);
        let cell = cells(app, run, &chart, layout.chart).hit(x, y)?;
        Some(at_cell(app.selection, run, cell))
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        if let Some(at) = line(app) {
            let n = neurons(app).map_or(1, <[_]>::len);
            app.screens.attribution.neuron = Some(moved(at, down, n));
            return;
        }
        let (layer, column) = cell(app, run);
        let config = run.config();
        let n_columns =
            config.n_head + if attribution(app).is_some_and(|of| of.of.is_changed()) { 4 } else { 3 };
        let cell = (moved(layer, down, config.n_layer), moved(column, right, n_columns));
        app.selection = at_cell(app.selection, run, cell);
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        match (app.selection.writer, line(app)) {
            (Writer::Head, _) => app.screen = Screen::Attention,
            (Writer::Mlp, None) => app.screens.attribution.neuron = Some(0),
            (Writer::Mlp, Some(at)) => {
                if let Some(neuron) = neurons(app).and_then(|neurons| neurons.get(at)).map(|n| n.of.neuron) {
                    app.selection.column = neuron;
                    super::weights::show_neuron(app);
                }
            }
            (Writer::Change, _) => {}
            (Writer::AttnBias | Writer::MlpBias, _) => {
                app.note("a bias is the same at every position of every prompt: nothing more to show");
            }
        }
        Vec::new()
    }

    fn chart(&self, app: &App, run: &Run) -> Option<(String, Chart)> {
        Some(("attribution".into(), attribution(app)?.chart(run)))
    }
}

/// The last result, if it is for the selected position.
fn attribution(app: &App) -> Option<&WithBase<Attribution>> {
    match &**app.seen.get(&Slot::Attribution)? {
        Seen::Attribution(_, found) if found.of.position == app.selection.position => Some(found),
        _ => None,
    }
}

/// The listed neurons, if they are shown.
fn neurons(app: &App) -> Option<&[WithBase<Neuron>]> {
    line(app)?;
    match &**app.seen.get(&Slot::Neurons)? {
        Seen::Neurons(Look::Neurons { layer, .. }, neurons) if *layer == app.selection.layer => Some(neurons),
        _ => None,
    }
}

fn cells(app: &App, run: &Run, chart: &Chart, area: Rect) -> chart::Layout {
    let dims = (chart.values.n_rows, chart.values.n_columns);
    let (wide, sums) = match area.width {
        ..90 => ((4, 7), 9),
        90..130 => ((5, 7), SUMS),
        _ => ((6, 11), SUMS),
    };
    let label = chart::label_width(&chart.rows, dims.0);
    // The bars of the blocks, unless they would make the columns too narrow.
    let bars = SUMS + 1 + BAR as u16;
    let column = usize::from(area.width.saturating_sub(bars)).saturating_sub(label) / dims.1.max(1);
    let beside = if sums == SUMS && column >= usize::from(wide.0) { bars } else { sums };
    let area = Rect { width: area.width.saturating_sub(beside), ..area };
    chart::Layout::new(area, dims, label, wide, cell(app, run))
}

fn title<'a>(app: &App, run: &Run, found: &WithBase<Attribution>) -> Vec<Span<'a>> {
    let theme = app.theme;
    let show = |id: u32| run.model.tokenizer.show(id);
    let mut title = vec![
        Span::styled(
            if found.differs() { "change of the logit of " } else { "contributions to the logit of " },
            theme.dim(),
        ),
        Span::styled(show(found.of.token), theme.accent()),
    ];
    if app.screens.attribution.token.is_none() {
        let where_ = if found.differs() { ", likeliest in base," } else { ", the likeliest," };
        title.push(Span::styled(where_, theme.dim()));
    }
    if let Some(versus) = found.of.versus {
        title.push(Span::styled(" minus that of ", theme.dim()));
        title.push(Span::styled(show(versus), theme.accent()));
    }
    let after = run.token_text(found.of.position);
    title.push(Span::styled(format!(" after {after} ({})", found.of.position), theme.text()));
    title
}

/// The logit as a sum, with the chart as one term.
fn sum<'a>(app: &App, found: &Attribution, width: u16) -> Vec<Span<'a>> {
    let theme = app.theme;
    let of = |component| found.value(component).unwrap_or_default();
    let [embed, pos, bias] = [Component::Embed, Component::PosEmbed, Component::LnFinalBias].map(of);
    let all: f64 = found.parts.iter().map(|part| part.value).sum();
    let end = found.value(Component::FinalChange);
    let blocks = ("blocks", all - embed - pos - bias - end.unwrap_or_default());
    let mut terms = if width < 90 {
        vec![("embed + pos", embed + pos), blocks, ("ln_f", bias)]
    } else {
        vec![("embed", embed), ("pos", pos), blocks, ("ln_f bias", bias)]
    };
    terms.push(end.map_or(("residue", found.residue), |end| ("what if end", end)));
    let mut spans = vec![Span::styled(format!("{}{}", app.delta(), num(found.logit as f32)), theme.strong())];
    for (i, (name, value)) in terms.into_iter().enumerate() {
        spans.push(Span::styled(format!(" {} {name} ", if i == 0 { '=' } else { '+' }), theme.dim()));
        spans.push(Span::styled(num(value as f32), theme.text()));
    }
    spans
}

/// A line of a list: a name, a number, and a bar for its magnitude.
struct Entry {
    name: String,
    /// If differences are shown, the values in base and in the changed run.
    sides: Option<[f64; 2]>,
    value: f64,
    selected: bool,
    /// The total effect.
    total: Option<f64>,
    /// What is shown in place of the bar.
    instead: Option<String>,
}

impl Entry {
    fn new<T>(name: String, of: &WithBase<T>, value: impl Fn(&T) -> f64, selected: bool) -> Self {
        let sides = of.base.as_ref().map(|base| [value(base), value(&of.of)]);
        Self { name, sides, value: of.shown(value), selected, total: None, instead: None }
    }

    fn draw(&self, area: Rect, most: f64, theme: Theme, buffer: &mut Buffer) {
        const NAME: usize = 11;
        let sides = self.sides.filter(|_| area.width >= WITH_SIDES);
        let numbers = if sides.is_some() { 18 } else { 0 } + if self.total.is_some() { 9 } else { 0 };
        let width = usize::from(area.width).saturating_sub(NAME + 11 + numbers);
        let style = if self.selected { theme.selected() } else { theme.text() };
        let sides = sides.map_or_else(String::new, |[base, changed]| {
            format!("{:>8} {:>8} ", num(base as f32), num(changed as f32))
        });
        let mut spans = vec![
            Span::styled(if self.selected { "▸" } else { " " }, theme.accent()),
            Span::styled(pad(&self.name, NAME), style),
            Span::styled(sides, if self.selected { style } else { theme.dim() }),
        ];
        let (value, ink) = (self.value as f32, |x: f64| theme.signed(x as f32));
        match self.total {
            Some(total) if area.width < WITH_TOTALS => {
                spans.push(Span::styled(format!("{:>6} ", short(value, 6)), style));
                spans.push(Span::styled(format!("{:>7}", short(total as f32, 6)), ink(total)));
            }
            Some(total) => {
                spans.push(Span::styled(format!("{:>8} ", num(value)), style));
                spans.push(Span::styled(format!("{:>8} ", num(total as f32)), ink(total)));
            }
            None => spans.push(Span::styled(format!("{:>8} ", num(value)), style)),
        }
        match &self.instead {
            Some(text) => spans.push(Span::styled(fit(text, width), theme.dim())),
            None => spans.extend(bar::signed(bar::share(self.value, most), width, theme)),
        }
        put_line(buffer, area, &spans);
    }
}

/// The width from which a list of differences also shows both values.
const WITH_SIDES: u16 = 46;

/// The width from which a list also has room for total effects in full.
const WITH_TOTALS: u16 = 34;

/// The contents and order of the list, and its column headings if there are several.
fn draw_heading(text: &str, differs: bool, area: Rect, theme: Theme, buffer: &mut Buffer) {
    let what = match differs {
        false => format!("{text}, largest first"),
        true if area.width < WITH_SIDES => format!("{text}, largest |Δ| first"),
        true => format!("{}{:>8} {:>8} {:>8}   |Δ|", pad(&format!(" {text}"), 12), "base", "changed", "Δ"),
    };
    put_line(buffer, area, &[Span::styled(what, theme.strong())]);
}

fn draw_parts(app: &App, found: &WithBase<Attribution>, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let ranked = found.shown(Attribution::clone).ranked();
    let component = component(app);
    let at = ranked.iter().position(|part| part.component == component);
    let places = places(layout.list, ranked.len(), found.differs());
    let text = if places.len() < ranked.len() {
        format!("{} of {}", places.len(), ranked.len())
    } else {
        format!("{} parts", ranked.len())
    };
    let has_totals = app.gradient.totals && !found.differs();
    if has_totals {
        let name = pad(&format!(" {text}"), 12);
        let heading = if layout.list.width < WITH_TOTALS {
            format!("{name}{:>6} {:>7}", "direct", "total")
        } else {
            format!("{name}{:>8} {:>8}", "direct", "total")
        };
        put_line(buffer, layout.list_title, &[Span::styled(heading, theme.strong())]);
    } else {
        draw_heading(&text, found.differs(), layout.list_title, theme, buffer);
    }
    let most = ranked.first().map_or(0.0, |part| part.value.abs());
    for (line, row) in shown(at, places.len(), ranked.len()).zip(places) {
        match line.and_then(|i| Some((i, ranked.get(i)?))) {
            Some((i, Contribution { component, .. })) => {
                let value = |of: &Attribution| of.value(*component).unwrap_or(0.0);
                let entry = Entry::new(component.to_string(), found, value, Some(i) == at);
                let total = if has_totals { total(app, *component).ok() } else { None };
                let entry = Entry { total, ..entry };
                entry.draw(row, most, theme, buffer);
            }
            None => put_line(buffer, row, &[Span::styled("  …", theme.dim())]),
        }
    }
}

fn draw_neurons(
    app: &App,
    neurons: &[WithBase<Neuron>],
    selected: usize,
    layout: &Layout,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    let differs = neurons.first().is_some_and(WithBase::differs);
    // Three column headings leave less room.
    let short = differs && layout.list_title.width >= WITH_SIDES;
    let text = format!("{}of MLP {}", if short { "" } else { "neurons " }, app.selection.layer);
    draw_heading(&text, differs, layout.list_title, theme, buffer);
    let most = neurons.first().map_or(0.0, |n| n.shown(|n| n.value).abs());
    for ((i, n), y) in neurons.iter().enumerate().zip(layout.list.top()..layout.list.bottom()) {
        let row = Rect { y, height: 1, ..layout.list };
        let name = format!("{}.{}", app.selection.layer, n.of.neuron);
        let instead = fires_on(app, n.of.neuron).filter(|_| !differs && row.width >= WITH_EXAMPLES);
        Entry { instead, ..Entry::new(name, n, |n| n.value, i == selected) }.draw(row, most, theme, buffer);
    }
}

/// The width from which neurons show what they fire on.
const WITH_EXAMPLES: u16 = 36;

/// What a neuron of the selected block fires on most in the atlas: its two strongest examples, each with the token
/// before.
fn fires_on(app: &App, neuron: usize) -> Option<String> {
    let group = app.atlas.group(Site::MlpPost.at(app.selection.layer).into())?;
    let example = |one: &Example| {
        let at = one.at();
        let before = at.checked_sub(1).map_or("", |before| group.text(one.token_ids[before]));
        format!("{before}«{}»", group.text(one.token_ids[at]))
    };
    let found: Vec<_> = group.examples.get(neuron)?.best.iter().take(2).map(example).collect();
    Some(found.join("  "))
}

/// The lines of a list of `n` items, in columns where one has no room for all.
fn places(list: Rect, n: usize, differs: bool) -> Vec<Rect> {
    /// Of a name, a value and a short bar.
    const WIDTH: u16 = 30;
    const GAP: u16 = 2;
    let room = if differs { 1 } else { ((list.width + GAP) / (WIDTH + GAP)).max(1) };
    let needed = n.div_ceil(usize::from(list.height).max(1)).max(1) as u16;
    let columns = room.min(needed);
    let width = (list.width + GAP) / columns - GAP;
    let line = |column: u16, y| Rect { x: list.x + column * (width + GAP), y, width, height: 1 };
    (0..columns).flat_map(|column| (list.top()..list.bottom()).map(move |y| line(column, y))).collect()
}

/// The items in the lines of a list of `n`: the first ones and, below a gap, `at` if it is not
/// among them.
fn shown(at: Option<usize>, height: usize, n: usize) -> impl Iterator<Item = Option<usize>> {
    let below = at.filter(|at| *at >= height && height > 2);
    let first = if below.is_some() { height - 2 } else { height.min(n) };
    (0..first).map(Some).chain(below.into_iter().flat_map(|at| [None, Some(at)]))
}

/// What each block contributes, beside its row of the chart: its sum, the logit so far, and its parts as one bar.
fn draw_blocks(
    app: &App,
    run: &Run,
    found: &Attribution,
    cells: &chart::Layout,
    area: Rect,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    let of = |wanted: &dyn Fn(Component) -> bool| -> f64 {
        found.parts.iter().filter(|part| wanted(part.component)).map(|part| part.value).sum()
    };
    let parts = |layer: usize| -> Vec<f64> {
        let of_block = found.parts.iter().filter(|part| part.component.layer() == Some(layer));
        // The MLP first, as in the chart.
        let (mlp, others): (Vec<&Contribution>, Vec<_>) =
            of_block.partition(|part| matches!(part.component, Component::Mlp(_)));
        mlp.into_iter().chain(others).map(|part| part.value).collect()
    };
    let blocks: Vec<_> = (0..run.config().n_layer).map(parts).collect();
    let side = |parts: &[f64], sign: f64| parts.iter().map(|x| (x * sign).max(0.0)).sum::<f64>();
    let most = blocks.iter().flat_map(|parts| [side(parts, 1.0), side(parts, -1.0)]).fold(0.0, f64::max);
    let with_sums = area.width >= SUMS;
    let width = usize::from(area.width).saturating_sub(usize::from(SUMS) + 1);
    let mut head = format!("{:>9}", "block");
    if with_sums {
        head.push_str(&format!("{:>10}", "so far"));
    }
    if width >= BAR {
        head.push_str(if width >= 19 { "  MLP, heads, biases" } else { "  its parts" });
    }
    put(buffer, area.x, cells.names.y, area.width, &head, theme.dim());
    let mut sum = of(&|c| matches!(c, Component::Embed | Component::PosEmbed));
    for (layer, parts) in blocks.iter().enumerate() {
        let block: f64 = parts.iter().sum();
        sum += block;
        let (Some(y), Some(lines)) = (cells.plot.middle_of(layer), cells.plot.lines_of(layer)) else {
            continue;
        };
        let style = if layer == app.selection.layer { theme.accent() } else { theme.text() };
        let mut said = format!("{:>9}", num(block as f32));
        if with_sums {
            said.push_str(&format!("{:>10}", num(sum as f32)));
        }
        put(buffer, area.x, y, area.width, &said, style);
        if width >= BAR {
            // A gap between tall bars.
            let end = if lines.len() > 2 { lines.end - 1 } else { lines.end };
            for y in lines.start..end {
                let row = Rect { x: area.x + SUMS + 1, y, width: width as u16, height: 1 };
                put_line(buffer, row, &bar::stacked(parts, most, width, theme));
            }
        }
    }
}

/// The columns of the sums beside the chart, and the least for the bar beside them.
const SUMS: u16 = 19;
const BAR: usize = 14;

/// A contribution.
fn wrote<'a, T>(of: &WithBase<T>, theme: Theme, value: impl Fn(&T) -> f64) -> Vec<Span<'a>> {
    if of.differs() {
        let mut spans = vec![Span::styled(" wrote: ", theme.dim())];
        spans.extend(what_if::spans(of, theme, |of| value(of) as f32));
        return spans;
    }
    let wrote = Span::styled(format!(" wrote {}", num(value(&of.of) as f32)), theme.strong());
    vec![wrote, Span::styled(" ", theme.text())]
}
