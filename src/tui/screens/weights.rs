//! The weights by themselves: rows of the embeddings and their neighbours, circuits of
//! heads, directions of neurons.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Scene, cell_text, position_label, shape};
use crate::analysis::weights::{
    Circuit, Ends, Neighbour, NeuronTokens, Scored, Spectrum, ends_chart, neighbours_chart,
};
use crate::analysis::{View, ViewSource};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{Axis, HookName, Site, TensorName};
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::tui::actions::{moved, turned};
use crate::tui::app::{App, Focus, Screen, Selection};
use crate::tui::atlas::unit_at;
use crate::tui::command::{BLOCKS, COLOURS, Command};
use crate::tui::overlays::Asked;
use crate::tui::text::{num, pad, put, put_line};
use crate::tui::what_if::Side;
use crate::tui::widgets::bar::{self, histogram};
use crate::tui::widgets::heatmap::{Plot, Sheet};

/// The current view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Wte,
    Wpe,
    /// The residual stream of the run.
    Residual,
    Ov,
    Qk,
    Neuron,
}

impl Mode {
    const ALL: [Self; 6] = [Self::Wte, Self::Wpe, Self::Residual, Self::Ov, Self::Qk, Self::Neuron];

    fn name(self) -> &'static str {
        match self {
            Self::Wte => "wte",
            Self::Wpe => "wpe",
            Self::Residual => "residual",
            Self::Ov => "OV",
            Self::Qk => "QK",
            Self::Neuron => "neuron",
        }
    }

    fn circuit(self) -> Option<Circuit> {
        match self {
            Self::Ov => Some(Circuit::Ov),
            Self::Qk => Some(Circuit::Qk),
            _ => None,
        }
    }
}

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub mode: Mode,
    /// The row of wte; `None`: that of the selected token.
    pub token: Option<usize>,
    /// The row of wpe; `None`: that of the selected position.
    pub position: Option<usize>,
    /// The singular direction of circuits.
    pub direction: usize,
}

/// Columns of a list of tokens.
const LIST: u16 = 28;

/// Maximum columns of a bar.
const BAR: u16 = 24;

struct Layout {
    modes: Rect,
    title: Rect,
    /// The matrix, the singular values, or the neuron's activations on the prompt.
    left: Rect,
    rule: u16,
    right: Rect,
}

fn layout(mode: Mode, area: Rect) -> Layout {
    let right_width = match mode {
        Mode::Wte | Mode::Wpe | Mode::Residual => (area.width / 4).clamp(LIST, 60),
        Mode::Ov | Mode::Qk | Mode::Neuron => {
            (area.width * 3 / 5).clamp(2 * LIST - 6, 2 * (LIST + BAR)).min(area.width - 24)
        }
    };
    let gap = u16::from(area.height >= 24);
    let below = Rect { y: area.y + 2 + gap, height: area.height.saturating_sub(2 + gap), ..area };
    let right = Rect { x: area.right() - right_width, width: right_width, ..below };
    Layout {
        modes: Rect { height: 1, ..area },
        title: Rect { y: area.y + 1, height: 1, ..area },
        left: Rect { width: area.width - right_width - 3, ..below },
        rule: right.x - 2,
        right,
    }
}

/// The matrix that the keys move in, and its selected row.
fn matrix(app: &App, run: &Run) -> Option<(View, usize)> {
    let position = app.selection.position;
    Some(match app.screens.weights.mode {
        Mode::Wte => {
            let row = app.screens.weights.token.unwrap_or(run.tokens[position] as usize);
            (View::of(ViewSource::Wte, 0), row.min(run.config().vocab_size - 1))
        }
        Mode::Wpe => {
            let row = app.screens.weights.position.unwrap_or(position);
            (View::of(ViewSource::Wpe, 0), row.min(run.config().n_positions - 1))
        }
        Mode::Residual => (View::hook(residual(app), 0), position),
        _ => return None,
    })
}

/// The selected tensor if its rows are in the residual stream, else the stream after the selected block.
fn residual(app: &App) -> HookName {
    let hook = app.selection.hook;
    let like = hook.point().axes == [Axis::Pos, Axis::Model];
    if like { hook } else { Site::ResidPost.at(app.selection.layer) }
}

/// Whole rows, one per line, the selected one in the middle.
fn walk(run: &Run, view: View, row: usize, area: Rect) -> (Sheet, Plot) {
    let sheet = Sheet::new(area, 1, if area.width >= 80 { 20 } else { 14 });
    (sheet, Plot::lines(sheet.plot, view.dims(run), row))
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[BLOCKS, COLOURS, &[Command::WeightsMode, Command::ChooseToken]]
    }

    fn take_token(&self, app: &mut App, _asked: Asked, token: Option<u32>) {
        app.screens.weights.mode = Mode::Wte;
        app.screens.weights.token = token.map(|id| id as usize);
    }

    fn turn(&self, app: &mut App, by: isize) {
        app.screens.weights.mode = turned(&Mode::ALL, app.screens.weights.mode, by);
    }

    /// Weights are the same in every run.
    fn without_difference(&self, app: &App) -> Option<&'static str> {
        let of_run = matches!(app.screens.weights.mode, Mode::Residual | Mode::Neuron);
        (!of_run).then_some(Side::Changed.name())
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        match app.screens.weights.mode {
            Mode::Wte | Mode::Wpe => {
                &[("↑↓", "row"), ("←→", "channel"), ("Enter", "Embedding"), ("Esc", "own row")]
            }
            Mode::Residual => &[("↑↓", "token"), ("←→", "channel"), ("Enter", "in Stages")],
            Mode::Ov | Mode::Qk => &[("↑↓", "direction"), ("←→", "head"), ("Enter", "its map")],
            Mode::Neuron => &[("↑↓", "neuron"), ("←→", "token"), ("Enter", "in Stages")],
        }
    }

    fn unit(&self, app: &App, run: &Run) -> Result<(TensorName, usize), &'static str> {
        let Selection { layer, head, column, .. } = app.selection;
        match app.screens.weights.mode {
            Mode::Ov | Mode::Qk => Ok((Site::Pattern.at(layer).into(), head)),
            Mode::Neuron => Ok((Site::MlpPost.at(layer).into(), column.min(run.config().d_mlp() - 1))),
            Mode::Residual => unit_at(self.subject(app), column, run.config()),
            Mode::Wte | Mode::Wpe => Err("a row of weights is no unit: m goes on to heads and neurons"),
        }
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let layout = layout(app.screens.weights.mode, area);
        let Selection { layer, head, column, .. } = app.selection;
        if let Some((view, row)) = matrix(app, run) {
            let (_, plot) = walk(run, view, row, layout.left);
            let range = app.range_for(view.quantity());
            let k = usize::from(layout.right.height.saturating_sub(1));
            return vec![
                (Slot::Main, plot.look(view, app.pooling, range)),
                (Slot::Row, Look::Row { view, row }),
                (Slot::Neighbours, Look::Neighbours { view, row, k }),
            ];
        }
        let k = lists(layout.right)[0].height.saturating_sub(1).into();
        let look = match app.screens.weights.mode.circuit() {
            Some(circuit) => {
                Look::Circuit { circuit, layer, head, direction: app.screens.weights.direction, k }
            }
            None => Look::Neuron { layer, neuron: column.min(run.config().d_mlp() - 1), k },
        };
        vec![(Slot::Weights, look)]
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let layout = layout(app.screens.weights.mode, area);
        draw_modes(app, layout.modes, buffer);
        for y in layout.right.top()..layout.right.bottom() {
            put(buffer, layout.rule, y, 1, "│", app.theme.faint());
        }
        if let Some((view, row)) = matrix(app, run) {
            draw_matrix(app, run, view, row, &layout, buffer);
            return;
        }
        match app.seen.get(&Slot::Weights).map(|seen| &**seen) {
            Some(Seen::Circuit(look, spectrum, ends)) if fits(app, look) => {
                draw_circuit(app, run, spectrum, ends, &layout, buffer);
            }
            Some(Seen::Neuron(look, neuron, posts)) if fits(app, look) => {
                draw_neuron(app, run, neuron, posts, &layout, buffer);
            }
            Some(Seen::Nothing(look, why)) if fits(app, look) => {
                put(buffer, layout.title.x, layout.title.y, layout.title.width, why, app.theme.bad());
            }
            _ => {
                put(buffer, layout.title.x, layout.title.y, layout.title.width, "…", app.theme.dim());
            }
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        if let Some((view, row)) = matrix(app, run) {
            let Some(look) = app.row(Slot::Row).filter(|look| look.view == view && look.row == row) else {
                return Vec::new();
            };
            let column = app.selection.column.min(look.values.len() - 1);
            let first = vec![
                Span::styled(cell_text(row, column, look.values.get(column).copied()), theme.accent()),
                Span::styled(
                    format!("  {} × channel {column}", row_name(run, view, row).trim()),
                    theme.text(),
                ),
                Span::styled(format!("   ‖row‖ {}", num(look.stats.norm as f32)), theme.text()),
            ];
            let against = if view.source == ViewSource::Wpe { "wpe" } else { "wte" };
            let top: Vec<_> = look.largest.iter().take(12).map(|(i, x)| format!("{i}:{}", num(*x))).collect();
            let second = vec![
                Span::styled(format!("cosine = row · {against}[i] / (‖row‖ ‖{against}[i]‖)   "), theme.dim()),
                Span::styled(histogram(&look.histogram), theme.focus()),
                Span::styled("  largest ", theme.dim()),
                Span::styled(top.join("  "), theme.text()),
            ];
            return vec![first, second];
        }
        match app.seen.get(&Slot::Weights).map(|seen| &**seen) {
            Some(Seen::Circuit(look, spectrum, _)) if fits(app, look) => {
                let direction = app.screens.weights.direction.min(spectrum.values.len() - 1);
                let first = vec![
                    Span::styled(format!("direction {direction}"), theme.accent()),
                    Span::styled(
                        format!(
                            ": singular value {}, {:.1} % of Σ s²",
                            num(spectrum.values[direction]),
                            100.0 * spectrum.share(direction)
                        ),
                        theme.text(),
                    ),
                ];
                let how = match spectrum.circuit {
                    Circuit::Ov => "reads by wte · u, writes by v · W_U",
                    Circuit::Qk => "queries by wte · u, keys by wte · v, scores before the scale",
                };
                let second = vec![
                    Span::styled(how, theme.text()),
                    Span::styled("   no LayerNorm, no bias; + and − ends go together", theme.dim()),
                ];
                vec![first, second]
            }
            Some(Seen::Neuron(look, neuron, posts)) if fits(app, look) => {
                let post = posts.get(app.selection.position).copied().unwrap_or(f32::NAN);
                let token = run.token_text(app.selection.position);
                let first = vec![
                    Span::styled(format!("neuron {}.{}", neuron.layer, neuron.neuron), theme.accent()),
                    Span::styled(
                        format!(": post {} at {token} ({})", num(post), app.selection.position),
                        theme.text(),
                    ),
                ];
                let second = vec![
                    Span::styled("activated by wte · W_in[:, n], promotes W_out[n] · W_U", theme.text()),
                    Span::styled("   no LayerNorm", theme.dim()),
                ];
                vec![first, second]
            }
            _ => Vec::new(),
        }
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let layout = layout(app.screens.weights.mode, area);
        let (view, row) = matrix(app, run)?;
        let (row, column) = walk(run, view, row, layout.left).1.hit(x, y)?;
        let position = if app.screens.weights.mode == Mode::Residual { row } else { app.selection.position };
        Some(Selection { position, column, ..app.selection })
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let config = run.config();
        if let Some((view, row)) = matrix(app, run) {
            let (n_rows, n_columns) = view.dims(run);
            app.selection.column = moved(app.selection.column.min(n_columns - 1), right, n_columns);
            let row = moved(row, down, n_rows);
            match app.screens.weights.mode {
                Mode::Wte if down != 0 => app.screens.weights.token = Some(row),
                Mode::Wpe if down != 0 => app.screens.weights.position = Some(row),
                Mode::Residual => app.selection.position = row,
                _ => {}
            }
            return;
        }
        if app.screens.weights.mode == Mode::Neuron {
            let n = config.d_mlp();
            app.selection.column = moved(app.selection.column.min(n - 1), down, n);
            app.selection.position = moved(app.selection.position, right, run.n_tokens());
        } else {
            app.screens.weights.direction =
                moved(app.screens.weights.direction.min(config.d_head() - 1), down, config.d_head());
            app.selection.head = moved(app.selection.head, right, config.n_head);
        }
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        match app.screens.weights.mode {
            Mode::Wte | Mode::Wpe => app.screen = Screen::Embedding,
            Mode::Residual => {
                app.focus = Focus::Map;
                app.open_in_stages(residual(app));
            }
            Mode::Ov | Mode::Qk => app.screen = Screen::Attention,
            Mode::Neuron => {
                app.focus = Focus::Map;
                app.open_in_stages(Site::MlpPost.at(app.selection.layer));
            }
        }
        Vec::new()
    }

    fn back(&self, app: &mut App) {
        (app.screens.weights.token, app.screens.weights.position) = (None, None);
    }

    fn chart(&self, app: &App, run: &Run) -> Option<(String, Chart)> {
        let show = |id: u32| run.model.tokenizer.show(id);
        if let Some((view, row)) = matrix(app, run) {
            let found = neighbours(app, view, row)?;
            let name = row_name(run, view, row).trim().to_owned();
            let chart = match view.source {
                ViewSource::Wpe => neighbours_chart(&name, "position", found, |row| row.to_string()),
                _ => neighbours_chart(&name, "token", found, |row| show(row as u32)),
            };
            return Some((format!("neighbours.{row}"), chart));
        }
        match &**app.seen.get(&Slot::Weights)? {
            Seen::Circuit(look, spectrum, ends) if fits(app, look) => {
                let Spectrum { circuit, layer, head, values, .. } = spectrum;
                let direction = app.screens.weights.direction.min(values.len() - 1);
                let title = format!("{} of head {layer}.{head}, direction {direction}", circuit.name());
                let chart = ends_chart((title, circuit.formula()), circuit_lists(*circuit, ends), show);
                Some((format!("{}.{layer}.{head}.{direction}", circuit.name().to_lowercase()), chart))
            }
            Seen::Neuron(look, neuron, _) if fits(app, look) => {
                Some((format!("neuron.{}.{}", neuron.layer, neuron.neuron), neuron.chart(show)))
            }
            _ => None,
        }
    }
}

/// Whether a result is for the selection, but perhaps for another direction or size.
fn fits(app: &App, look: &Look) -> bool {
    let s = &app.selection;
    match look {
        Look::Circuit { circuit, layer, head, .. } => {
            (app.screens.weights.mode.circuit(), s.layer, s.head) == (Some(*circuit), *layer, *head)
        }
        Look::Neuron { layer, .. } => app.screens.weights.mode == Mode::Neuron && *layer == s.layer,
        _ => false,
    }
}

fn draw_modes(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let mut spans = Vec::new();
    for mode in Mode::ALL {
        let (text, style) = if mode == app.screens.weights.mode {
            (format!("[{}] ", mode.name()), theme.accent())
        } else {
            (format!(" {}  ", mode.name()), theme.dim())
        };
        spans.push(Span::styled(text, style));
    }
    spans.push(Span::styled("  m: next", theme.focus()));
    spans.push(Span::styled("   raw weights: nothing folded or centred", theme.dim()));
    put_line(buffer, area, &spans);
}

fn row_name(run: &Run, view: View, row: usize) -> String {
    match view.source {
        ViewSource::Wte => format!("{row} {}", run.model.tokenizer.show(row as u32)),
        ViewSource::Wpe => format!("position {row}"),
        _ => position_label(run, row),
    }
}

fn draw_matrix(app: &App, run: &Run, view: View, row: usize, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let name = match view.source {
        ViewSource::Wte => "wte".to_owned(),
        ViewSource::Wpe => "wpe".to_owned(),
        _ => format!("{}{}", app.delta(), residual(app)),
    };
    let (n_rows, n_columns) = view.dims(run);
    let what = match view.source {
        ViewSource::Wte => "one row per token",
        ViewSource::Wpe => "one row per position",
        _ => residual(app).point().doc,
    };
    let title = [
        Span::styled(name, theme.strong()),
        Span::styled(format!(" {} row ", shape(&[n_rows, n_columns])), theme.dim()),
        Span::styled(row_name(run, view, row).trim().to_owned(), theme.accent()),
        Span::styled(format!("   {what}"), theme.dim()),
    ];
    put_line(buffer, layout.title, &title);
    if let Some(map) = app.map(Slot::Main).filter(|map| map.view == view) {
        let (sheet, plot) = walk(run, view, row, layout.left);
        let column = app.selection.column.min(n_columns - 1);
        let label = |row: usize| row_name(run, view, row);
        sheet.draw(buffer, &plot, map, &label, (row, column), theme);
    }
    let against = if view.source == ViewSource::Wpe { "positions" } else { "tokens" };
    let heading = format!("nearest {against} by cosine");
    let head = Rect { height: 1.min(layout.right.height), ..layout.right };
    put_line(buffer, head, &[Span::styled(heading, theme.strong())]);
    let Some(neighbours) = neighbours(app, view, row) else { return };
    if neighbours.iter().all(|neighbour| neighbour.cosine.is_nan()) {
        let below = Rect { y: head.bottom(), height: 1.min(layout.right.height.saturating_sub(1)), ..head };
        put_line(buffer, below, &[Span::styled("this row is 0: it has no direction", theme.dim())]);
        return;
    }
    let width = layout.right.width.saturating_sub(26).min(BAR).into();
    for (neighbour, y) in neighbours.iter().zip(layout.right.top() + 1..layout.right.bottom()) {
        let name = match view.source {
            ViewSource::Wpe => format!("position {}", neighbour.row),
            _ => run.model.tokenizer.show(neighbour.row as u32),
        };
        let spans = [
            Span::styled(format!("{:>6.3} ", neighbour.cosine), theme.dim()),
            Span::styled(pad(&name, 18), theme.text()),
            Span::styled(bar::bar(neighbour.cosine as f32, width), theme.amount()),
        ];
        put_line(buffer, Rect { y, height: 1, ..layout.right }, &spans);
    }
}

fn neighbours(app: &App, view: View, row: usize) -> Option<&[Neighbour]> {
    match &**app.seen.get(&Slot::Neighbours)? {
        Seen::Neighbours(Look::Neighbours { view: v, row: r, .. }, found) if (*v, *r) == (view, row) => {
            Some(found)
        }
        _ => None,
    }
}

/// The tokens at both ends of both directions.
fn circuit_lists(circuit: Circuit, [from, to]: &[Ends; 2]) -> [(&'static str, &[Scored]); 4] {
    let [a, b] = match circuit {
        Circuit::Ov => [["reads +", "reads −"], ["writes +", "writes −"]],
        Circuit::Qk => [["queries +", "queries −"], ["keys +", "keys −"]],
    };
    [(a[0], &from.top), (b[0], &to.top), (a[1], &from.bottom), (b[1], &to.bottom)]
}

/// Four lists: two side by side, two below.
fn lists(area: Rect) -> [Rect; 4] {
    let (wide, high) = (area.width / 2, area.height / 2);
    let place =
        |i: u16| Rect { x: area.x + i % 2 * wide, y: area.y + i / 2 * high, width: wide, height: high };
    [place(0), place(1), place(2), place(3)]
}

fn draw_list(app: &App, run: &Run, area: Rect, name: &str, tokens: &[Scored], buffer: &mut Buffer) {
    let theme = app.theme;
    put_line(
        buffer,
        Rect { height: 1.min(area.height), ..area },
        &[Span::styled(name.to_owned(), theme.strong())],
    );
    let most = tokens.iter().fold(0.0, |most: f64, s| most.max(s.score.abs()));
    let width = area.width.saturating_sub(26).min(BAR).into();
    for (scored, y) in tokens.iter().zip(area.top() + 1..area.bottom().saturating_sub(1).max(area.top() + 1))
    {
        let mut spans = vec![
            Span::styled(format!("{:>7} ", num(scored.score)), theme.dim()),
            Span::styled(pad(&run.model.tokenizer.show(scored.id), 16), theme.text()),
        ];
        spans.extend(bar::signed(bar::share(scored.score, most), width, theme));
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}

fn draw_circuit(
    app: &App,
    run: &Run,
    spectrum: &Spectrum,
    ends: &[Ends; 2],
    layout: &Layout,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    let Spectrum { circuit, layer, head, values, .. } = spectrum;
    let direction = app.screens.weights.direction.min(values.len() - 1);
    let title = [
        Span::styled(format!("{} of head {layer}.{head}", circuit.name()), theme.accent()),
        Span::styled(format!(" = {}", circuit.formula()), theme.focus()),
        Span::styled(
            format!("   {} of rank {}", shape(&[run.config().n_embd; 2]), values.len()),
            theme.dim(),
        ),
        Span::styled("   [ ] head  { } layer", theme.dim()),
    ];
    put_line(buffer, layout.title, &title);
    let left = layout.left;
    put_line(buffer, Rect { height: 1, ..left }, &[Span::styled("singular values", theme.strong())]);
    let height = usize::from(left.height.saturating_sub(1));
    let first = direction.saturating_sub(height / 2).min(values.len().saturating_sub(height));
    let width = left.width.saturating_sub(15).min(2 * BAR).into();
    for ((i, value), y) in values.iter().enumerate().skip(first).zip(left.top() + 1..left.bottom()) {
        let selected = i == direction;
        let style = if selected { theme.selected() } else { theme.text() };
        let share = if values[0] > 0.0 { (value / values[0]) as f32 } else { 0.0 };
        let spans = [
            Span::styled(if selected { "▸" } else { " " }, theme.accent()),
            Span::styled(format!("{i:>3} {:>8} ", num(*value)), style),
            Span::styled(bar::bar(share, width), theme.amount()),
        ];
        put_line(buffer, Rect { y, height: 1, ..left }, &spans);
    }
    for (area, (name, tokens)) in lists(layout.right).into_iter().zip(circuit_lists(*circuit, ends)) {
        draw_list(app, run, area, name, tokens, buffer);
    }
}

fn draw_neuron(
    app: &App,
    run: &Run,
    neuron: &NeuronTokens,
    posts: &[f32],
    layout: &Layout,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    let NeuronTokens { layer, neuron: n, bias, norms: [norm_in, norm_out], .. } = neuron;
    let title = [
        Span::styled(format!("neuron {layer}.{n}"), theme.accent()),
        Span::styled(format!(" of {}", run.config().d_mlp()), theme.dim()),
        Span::styled(
            format!("   b_in {}  ‖W_in‖ {}  ‖W_out‖ {}", num(*bias), num(*norm_in), num(*norm_out)),
            theme.text(),
        ),
        Span::styled("   { } layer", theme.dim()),
    ];
    put_line(buffer, layout.title, &title);
    let left = layout.left;
    put_line(
        buffer,
        Rect { height: 1, ..left },
        &[Span::styled(format!("{}post on this prompt", app.delta()), theme.strong())],
    );
    let position = app.selection.position;
    let height = usize::from(left.height.saturating_sub(1));
    let first = position.saturating_sub(height / 2).min(posts.len().saturating_sub(height));
    let most = posts.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let width = left.width.saturating_sub(24).min(2 * BAR).into();
    for ((i, post), y) in posts.iter().enumerate().skip(first).zip(left.top() + 1..left.bottom()) {
        let selected = i == position;
        let style = if selected { theme.selected() } else { theme.text() };
        let mut spans = vec![
            Span::styled(if selected { "▸" } else { " " }, theme.accent()),
            Span::styled(pad(&position_label(run, i), 13), style),
            Span::styled(format!("{:>8} ", num(*post)), style),
        ];
        spans.extend(bar::signed(bar::share((*post).into(), most.into()), width, theme));
        put_line(buffer, Rect { y, height: 1, ..left }, &spans);
    }
    for (area, (name, tokens)) in lists(layout.right).into_iter().zip(neuron.lists()) {
        draw_list(app, run, area, name, tokens, buffer);
    }
}

/// Shows the selected neuron.
pub fn show_neuron(app: &mut App) {
    app.screen = Screen::Weights;
    app.screens.weights.mode = Mode::Neuron;
}
