//! Two prompts: their tokens aligned, any tensor of either or their difference, and patching.

mod file;
mod patching;

use std::collections::HashMap;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

pub use self::file::beside;
use self::file::{lacking, opened};
use self::patching::{draw_sweep, go_to, known, strongest};
pub use self::patching::{edges, patch, swap, swept};
use super::{Scene, cell_text, draw_computing, shape};
use crate::analysis::View;
use crate::analysis::patch::{Sweep, Swept};
use crate::engine::{Beside, Look, Map, Request, RowLook, Second, Seen, Slot, Work};
use crate::hooks::{Axis, HookName, TensorName};
use crate::interventions::{Change, Interventions};
use crate::picture::chart::Chart;
use crate::run::{Input, Prompt, Run};
use crate::tui::actions::{moved, turned};
use crate::tui::app::{App, Screen, Selection};
use crate::tui::command::{BLOCKS, COLOURS, Command, GRADIENTS};
use crate::tui::gradient;
use crate::tui::overlays::{Asked, Overlay};
use crate::tui::text::{count, num, put, put_line, signed_fixed, wrap};
use crate::tui::what_if::Side;
use crate::tui::widgets::heatmap::{Form, Plot, Sheet, Zoom};

const NO_SECOND: &str = "no prompt B yet: press n";

/// Which prompt's tensor is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    A,
    B,
    #[default]
    Difference,
}

impl Shown {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Difference];

    fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Difference => "A − B",
        }
    }

    /// The same where B is of a file.
    fn name_in(self, app: &App) -> &'static str {
        match self {
            _ if app.screens.compare.file.is_none() => self.name(),
            Self::A => "reference",
            Self::B => "mine",
            Self::Difference => "reference − mine",
        }
    }
}

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The input of prompt B.
    pub prompt: Option<Prompt>,
    /// What another program computed, in place of prompt B.
    pub file: Option<Arc<Beside>>,
    /// The tokens whose logits patching compares, if chosen.
    pub token: Option<u32>,
    pub versus: Option<u32>,
    pub shown: Shown,
    /// A sweep, instead of a tensor.
    pub sweep: Option<Sweep>,
    /// Row and column of the sweep.
    pub cell: (usize, usize),
    /// The run of prompt B, compared with prompt A.
    pub second: Option<Arc<Second>>,
    /// The finished sweeps of `second`.
    pub swept: HashMap<Sweep, Arc<Swept>>,
    /// The one that is being made.
    pub sweeping: Option<Arc<Swept>>,
    /// What they are of; those of other pairs of prompts, for when these come back.
    swept_of: Option<Pair>,
    shelf: Vec<(Pair, HashMap<Sweep, Arc<Swept>>)>,
    /// The patch that was made here last: swapping the prompts back takes it off.
    patched: Option<Change>,
    /// The last request, to avoid repeating it.
    asked: Option<Question>,
}

#[derive(Debug, Clone)]
struct Question {
    a: Arc<Run>,
    /// `None` for a file.
    prompt: Option<Prompt>,
    tokens: [Option<u32>; 2],
}

/// Two prompts, as far as a sweep depends on them.
#[derive(Debug, Clone, PartialEq)]
struct Pair {
    tokens: [Vec<u32>; 2],
    interventions: Interventions,
    asked: [Option<u32>; 2],
}

impl State {
    /// Both prompts on this screen now.
    fn second(&self, a: &Run) -> Option<&Second> {
        self.second.as_deref().filter(|second| std::ptr::eq(&raw const *second.a, &raw const *a))
    }
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            BLOCKS,
            COLOURS,
            GRADIENTS,
            &[
                Command::Versus,
                Command::ChooseToken,
                Command::PromptB,
                Command::CompareMode,
                Command::CompareShown,
                Command::Patch,
                Command::Edges,
                Command::Swap,
            ],
        ]
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("←↑↓→", "cell"), ("Enter", "sweep, or open")]
    }

    fn find(&self, app: &mut App, name: TensorName) {
        app.select_tensor(name);
        app.screens.compare.sweep = None;
    }

    fn take_token(&self, app: &mut App, asked: Asked, token: Option<u32>) {
        let state = &mut app.screens.compare;
        match asked {
            Asked::Token => state.token = token,
            Asked::Versus => state.versus = token,
        }
    }

    /// The next thing to show: the tensor, then each sweep.
    fn turn(&self, app: &mut App, by: isize) {
        let modes = modes(app);
        let state = &mut app.screens.compare;
        state.sweep = turned(&modes, state.sweep, by);
        state.cell =
            state.sweep.and_then(|sweep| state.swept.get(&sweep)).map_or((0, 0), |swept| strongest(swept));
    }

    fn difference(&self) -> &'static str {
        Shown::Difference.name()
    }

    fn without_difference(&self, _app: &App) -> Option<&'static str> {
        Some(Side::Changed.name())
    }

    fn shown_as(&self, app: &App) -> crate::analysis::Shown {
        app.gradient.shown
    }

    fn tensor(&self, app: &App) -> TensorName {
        app.selection.tensor()
    }

    fn subject(&self, app: &App) -> (HookName, Option<usize>) {
        (app.selection.hook, view(app).has_heads().then_some(app.selection.head))
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let Some(second) = app.screens.compare.second(run) else { return Vec::new() };
        if patching::is_patching(app) {
            return patching::wanted(app, second);
        }
        if lacking(app, second).is_some() {
            return Vec::new();
        }
        let range = app.range_for(view(app).quantity());
        let plot = plot(app, run, second, layout(area).sheet.plot);
        vec![
            (Slot::Beside, plot.look(view(app), app.pooling, range)),
            (Slot::BesideRow, Look::Row { view: view(app), row: row(app, second) }),
        ]
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let Some(second) = app.screens.compare.second(run) else {
            let state = &app.screens.compare;
            let is_there = state.prompt.as_ref().map(|_| ()).or(state.file.as_ref().map(|_| ()));
            let said = match (is_there, &app.activity) {
                (Some(()), None) if state.file.is_some() => "the file could not be compared with this prompt",
                (Some(()), Some(_)) => "B is being read or run",
                (Some(()), None) => "prompt B could not be run: press n to change it",
                (None, _) => "press n to type a second prompt, B, to compare with this one, A",
            };
            put(buffer, area.x, area.y + 1, area.width, said, theme.strong());
            let then = "then: any tensor of A, of B, or A − B; and activations of A patched into B, place by place, to see \
                        which of them carry the difference";
            for (line, y) in wrap(then, area.width.min(90).into()).iter().zip(area.y + 3..area.bottom()) {
                put(buffer, area.x, y, area.width, line, theme.dim());
            }
            return;
        };
        let layout = layout(area);
        draw_tokens(app, second, layout.tokens, buffer);
        draw_modes(app, layout.title, buffer);
        match app.screens.compare.sweep {
            None => draw_map(app, run, second, &layout, buffer),
            Some(sweep) => draw_sweep(app, second, sweep, &layout, buffer),
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(second) = app.screens.compare.second(run) else { return Vec::new() };
        if let Some(sweep) = app.screens.compare.sweep {
            let known = known(app, sweep);
            let Some((swept, patching)) = known.swept().zip(second.patching.as_ref().ok()) else {
                return Vec::new();
            };
            let (row, column) = app.screens.compare.cell;
            let Some(place) = swept.place(row, column) else { return Vec::new() };
            let (value, predicted) = match known.cell((row, column)) {
                [Some(measured), Some(predicted)] => {
                    (measured, format!(", {} was predicted", num(predicted)))
                }
                [Some(measured), None] => (measured, String::new()),
                [None, predicted] => (predicted.unwrap_or(f32::NAN), " (predicted)".into()),
            };
            let token = match place.position {
                Some(position) => format!(" {}", patching.corrupt.token_text(position)),
                None => String::new(),
            };
            let first = vec![
                Span::styled(format!("{place}{token} from A: "), theme.text()),
                Span::styled(num(value), theme.strong()),
                Span::styled(format!(" of the logit difference is restored{predicted}"), theme.text()),
            ];
            let where_to = match place.target {
                crate::interventions::Target::Head(..) => "its attention",
                _ => "this tensor in Stages",
            };
            let enter = if app.screens.compare.swept.contains_key(&sweep) {
                format!("Enter shows {where_to}")
            } else {
                "Enter patches all places of the sweep".into()
            };
            let keys = format!("a: B with this from A · {enter}");
            return vec![first, vec![Span::styled(keys, theme.dim())]];
        }
        let pairs = rows(app, second);
        let (row, column) = (row(app, second), column(app, second));
        let value = row_look(app).and_then(|look| look.values.get(column).copied());
        let mut first = vec![
            Span::styled(pair_label(second, pairs.get(row).copied()), theme.accent()),
            Span::styled(format!("   {} ", app.screens.compare.shown.name_in(app)), theme.dim()),
            Span::styled(cell_text(row, column, value), theme.strong()),
        ];
        if let Some(look) = row_look(app) {
            let said =
                format!("   row: ‖x‖ {} σ {}", num(look.stats.norm as f32), num(look.stats.std as f32));
            first.push(Span::styled(said, theme.text()));
        }
        let at = pairs.get(row).and_then(|pair| pair.1);
        let shift = at.and_then(|at| second.comparison.shifts.get(at).copied().flatten());
        let mut second_line = Vec::new();
        if let Some(shift) = shift {
            let show = |id: u32| run.model.tokenizer.show(id);
            let (id, delta) = shift.predicted;
            let said = format!(
                "from A to B: log p of {} {} · KL {}",
                show(id),
                signed_fixed(delta, 3),
                num(shift.kl as f32)
            );
            second_line.push(Span::styled(said, theme.text()));
        }
        if let Some(file) = &second.file {
            let said = format!("B is {}", crate::text::plain(&file.name));
            second_line
                .push(Span::styled(if shift.is_some() { format!(" · {said}") } else { said }, theme.dim()));
        }
        if let Some((_, at)) = second.comparison.first {
            second_line
                .push(Span::styled(format!(" · the prompts differ from position {at} of B on"), theme.dim()));
        }
        vec![first, second_line]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let second = app.screens.compare.second(run)?;
        if app.screens.compare.sweep.is_some() {
            return None;
        }
        let (row, column) = plot(app, run, second, layout(area).sheet.plot).hit(x, y)?;
        let pairs = rows(app, second);
        let position = pairs.get(row)?.0?;
        let mut selection = Selection { position, ..app.selection };
        match view(app).axes().1 {
            Axis::Key => selection.key = pairs.get(column)?.0?,
            Axis::One => {}
            _ => selection.column = column,
        }
        Some(selection)
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let Some(second) = app.screens.compare.second(run) else { return };
        if let Some(swept) = app.screens.compare.sweep.and_then(|sweep| known(app, sweep).swept()) {
            let (n_rows, n_columns) = (swept.rows.len(), swept.columns.len());
            let (row, column) = app.screens.compare.cell;
            app.screens.compare.cell = (moved(row, down, n_rows), moved(column, right, n_columns));
            return;
        }
        let pairs = rows(app, second);
        let next = moved(row(app, second), down, pairs.len());
        let across = column(app, second);
        let n = match view(app).axes().1 {
            Axis::Key => pairs.len(),
            axis => axis.len(run.config(), run.n_tokens()),
        };
        let across = moved(across, right, n);
        if let Some(position) = pairs.get(next).and_then(|pair| pair.0) {
            app.selection.position = position;
        }
        match (view(app).axes().1, pairs.get(across)) {
            (Axis::Key, Some((Some(key), _))) => app.selection.key = *key,
            (Axis::Key | Axis::One, _) => {}
            _ => app.selection.column = across,
        }
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        let Some(second) = app.run.clone().and_then(|run| app.screens.compare.second(&run).cloned()) else {
            return Vec::new();
        };
        let (Some(sweep), Ok(patching)) = (app.screens.compare.sweep, second.patching) else {
            app.open_in_stages(app.selection.tensor());
            return Vec::new();
        };
        let (row, column) = app.screens.compare.cell;
        match app.screens.compare.swept.get(&sweep) {
            None => {
                return vec![app.start(Work::Sweep { patching, sweep })];
            }
            Some(swept) => {
                if let Some(place) = swept.place(row, column) {
                    go_to(app, place);
                }
            }
        }
        Vec::new()
    }

    /// In a sweep, A is patched into B.
    fn shown(&self, app: &App) -> Option<Arc<Run>> {
        if patching::is_patching(app) { app.run.clone() } else { Some(sides(app)?.0) }
    }

    fn base(&self, app: &App) -> Option<Arc<Run>> {
        let second = app.screens.compare.second(app.run.as_ref()?)?;
        if patching::is_patching(app) { Some(Arc::clone(&second.b)) } else { sides(app)?.1 }
    }

    fn written(&self, app: &App) -> Option<(Arc<Run>, Option<Arc<Run>>)> {
        sides(app)
    }

    fn chart(&self, app: &App, run: &Run) -> Option<(String, Chart)> {
        let sweep = app.screens.compare.sweep?;
        let patching = app.screens.compare.second(run)?.patching.as_ref().ok()?;
        Some((format!("patch.{}", sweep.name()), app.screens.compare.swept.get(&sweep)?.chart(patching)))
    }

    fn refresh(&self, app: &mut App) -> Option<Request> {
        let a = app.run.clone().filter(|_| app.screen == Screen::Compare && app.activity.is_none())?;
        // The changed run is still being compared with its base.
        if app.what_if.pair.is_none() && !a.input.interventions.is_idle() {
            return None;
        }
        let file = app.screens.compare.file.clone();
        let prompt = app.screens.compare.prompt.clone().filter(|_| file.is_none());
        if prompt.clone().map_or(file.is_none(), |prompt| Input::new(prompt).is_empty()) {
            return None;
        }
        let tokens = [app.screens.compare.token, app.screens.compare.versus];
        let same =
            |asked: &Question| Arc::ptr_eq(&asked.a, &a) && asked.prompt == prompt && asked.tokens == tokens;
        if app.screens.compare.asked.as_ref().is_some_and(same) {
            return None;
        }
        app.screens.compare.asked = Some(Question { a: Arc::clone(&a), prompt: prompt.clone(), tokens });
        Some(app.start(match (file, prompt) {
            (Some(beside), _) => Work::Beside { a, beside },
            (None, Some(prompt)) => {
                let input = Input { prompt, ..a.input.clone() };
                Work::Second { a, input, tokens }
            }
            (None, None) => return None,
        }))
    }
}

/// The run whose tensor is shown, and the one that is subtracted.
fn sides(app: &App) -> Option<(Arc<Run>, Option<Arc<Run>>)> {
    let a = app.run.clone()?;
    Some(match (app.screens.compare.shown, app.screens.compare.second(&a)) {
        (Shown::B, Some(second)) => (Arc::clone(&second.b), None),
        (Shown::Difference, Some(second)) => (Arc::clone(&a), Some(Arc::clone(&second.b))),
        _ => (a, None),
    })
}

/// Opens the editor of prompt B, at first a copy of A.
pub fn edit(app: &mut App) {
    let known = app.screens.compare.prompt.as_ref();
    let mut editor = app.editor(known.unwrap_or(&app.input.prompt));
    // What is typed replaces the copy.
    if let (None, Some(editor)) = (known, &mut editor) {
        editor.select_all();
    }
    app.overlay = editor.map(Overlay::Second);
}

/// Prompt B was edited.
pub fn edited(app: &mut App) {
    let Some(Overlay::Second(editor)) = &app.overlay else { return };
    match editor.prompt() {
        Ok(prompt) => {
            (app.screens.compare.prompt, app.screens.compare.file) = (Some(prompt), None);
        }
        Err(error) => app.complain(error.to_string()),
    }
}

/// Prompt B was run.
pub fn ran(app: &mut App, second: Second) {
    let state = &mut app.screens.compare;
    let pair = Pair {
        tokens: [second.a.tokens.clone(), second.b.tokens.clone()],
        interventions: second.a.input.interventions.clone(),
        asked: [state.token, state.versus],
    };
    if state.swept_of.as_ref() != Some(&pair) {
        let old = std::mem::take(&mut state.swept);
        state.shelf.extend(state.swept_of.take().filter(|_| !old.is_empty()).map(|of| (of, old)));
        if let Some(at) = state.shelf.iter().position(|(of, _)| *of == pair) {
            state.swept = state.shelf.swap_remove(at).1;
        }
        state.swept_of = Some(pair);
    }
    let file = second.file.clone();
    state.second = Some(Arc::new(second));
    app.shown_id += 1;
    if let Some(file) = file {
        opened(app, &file);
    }
}

struct Layout {
    /// The two prompts.
    tokens: Rect,
    title: Rect,
    said: Rect,
    sheet: Sheet,
    /// The chart of a sweep.
    chart: Rect,
}

fn layout(area: Rect) -> Layout {
    let label = if area.width >= 110 { 20 } else { 13 };
    let top = 6.min(area.height);
    Layout {
        tokens: Rect { height: 2.min(area.height), ..area },
        title: Rect { y: area.y + 3.min(area.height), height: 1, ..area },
        said: Rect { y: area.y + 4.min(area.height), height: 1, ..area },
        sheet: Sheet::new(area, top, label),
        chart: Rect { y: area.y + top, height: area.height.saturating_sub(top), ..area },
    }
}

fn view(app: &App) -> View {
    app.stages_view()
}

/// The pairs that are rows: all of one prompt, or those that both prompts have.
fn rows(app: &App, second: &Second) -> Vec<(Option<usize>, Option<usize>)> {
    let pairs = second.alignment.pairs.iter().copied();
    match app.screens.compare.shown {
        Shown::A => pairs.filter(|pair| pair.0.is_some()).collect(),
        Shown::B => pairs.filter(|pair| pair.1.is_some()).collect(),
        Shown::Difference => pairs.filter(|pair| pair.0.is_some() && pair.1.is_some()).collect(),
    }
}

/// The row of the selected token.
fn row(app: &App, second: &Second) -> usize {
    let at = app.selection.position;
    rows(app, second).iter().position(|pair| pair.0.is_some_and(|a| a >= at)).unwrap_or(0)
}

fn plot(app: &App, run: &Run, second: &Second, area: Rect) -> Plot {
    let n = rows(app, second).len();
    let size = |axis: Axis| match axis {
        Axis::Pos | Axis::Key => n,
        axis => axis.len(run.config(), n),
    };
    let (down, across) = view(app).axes();
    Plot::new(area, (size(down), size(across)), Zoom::default(), Form::new(across, app.theme))
}

fn map(app: &App) -> Option<&Map> {
    match &**app.seen.get(&Slot::Beside)? {
        Seen::Map(map) if map.view == view(app) => Some(map),
        _ => None,
    }
}

fn row_look(app: &App) -> Option<&RowLook> {
    match &**app.seen.get(&Slot::BesideRow)? {
        Seen::Row(row) if row.view == view(app) => Some(row),
        _ => None,
    }
}

/// Both prompts, token above token, with differences highlighted.
fn draw_tokens(app: &App, second: &Second, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let pairs = &second.alignment.pairs;
    let text = |run: &Run, at: Option<usize>| at.map_or_else(|| "–".to_owned(), |at| run.token_text(at));
    let cells: Vec<_> = pairs.iter().map(|&(a, b)| [text(&second.a, a), text(&second.b, b)]).collect();
    let widths: Vec<_> = cells.iter().map(|[a, b]| a.width().max(b.width()) + 1).collect();
    let selected = pairs.iter().position(|pair| pair.0 == Some(app.selection.position)).unwrap_or(0);
    let room = usize::from(area.width).saturating_sub(4);
    // As many before the selected one as keep it visible.
    let mut first = selected;
    let mut used = widths.get(selected).copied().unwrap_or(0);
    while first > 0 && used + widths[first - 1] <= room * 2 / 3 {
        first -= 1;
        used += widths[first];
    }
    for (line, name) in ["A", "B"].iter().enumerate().take(area.height.into()) {
        let y = area.y + line as u16;
        put(buffer, area.x, y, 1, name, theme.strong());
        let mut x = area.x + 2;
        if first > 0 {
            x = put(buffer, x, y, 1, "‹", theme.dim());
        }
        for (i, cell) in cells.iter().enumerate().skip(first) {
            if x + widths[i] as u16 > area.right() {
                put(buffer, area.right() - 1, y, 1, "›", theme.dim());
                break;
            }
            let (a, b) = pairs[i];
            let same = a.zip(b).is_some_and(|(a, b)| second.a.tokens[a] == second.b.tokens[b]);
            let style = match (i == selected, same) {
                (true, _) => theme.selected(),
                (false, true) => theme.dim(),
                (false, false) => theme.accent(),
            };
            put(buffer, x, y, widths[i] as u16, &cell[line], style);
            x += widths[i] as u16;
        }
    }
}

/// What this screen can show: a tensor, each sweep over all blocks, and those of one block.
fn modes(app: &App) -> Vec<Option<Sweep>> {
    if app.screens.compare.file.is_some() {
        return vec![None];
    }
    let block = app.screens.compare.sweep.and_then(Sweep::block).unwrap_or(app.selection.layer);
    std::iter::once(None).chain(Sweep::all().chain(Sweep::of_block(block)).map(Some)).collect()
}

/// What this screen can show, and the current choice.
fn draw_modes(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let mut spans = Vec::new();
    let modes = modes(app);
    let chosen = modes.iter().position(|mode| *mode == app.screens.compare.sweep).unwrap_or(0);
    // All of them need this much; where there is less, those before the chosen one go first.
    let skipped = if area.width < 130 { chosen.saturating_sub(2) } else { 0 };
    if skipped > 0 {
        spans.push(Span::styled("‹ ", theme.dim()));
    }
    for mode in modes.into_iter().skip(skipped) {
        let name =
            mode.map_or_else(|| format!("tensor {}", app.screens.compare.shown.name_in(app)), Sweep::name);
        let on = mode == app.screens.compare.sweep;
        spans.push(Span::styled(
            if on { format!("[{name}]") } else { format!(" {name} ") },
            if on { theme.accent() } else { theme.dim() },
        ));
        if mode.is_none() && app.screens.compare.file.is_none() {
            spans.push(Span::styled("  patching A into B:", theme.dim()));
        }
    }
    let keys = match app.screens.compare.sweep {
        _ if app.screens.compare.file.is_some() => "   s: A reference, B mine, A − B",
        None => "   m: next · s: A, B, A − B",
        Some(_) => "   m: next",
    };
    spans.push(Span::styled(keys, theme.dim()));
    put_line(buffer, area, &spans);
}

fn draw_map(app: &App, run: &Run, second: &Second, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let name = app.selection.tensor();
    let mut title = vec![
        Span::styled(format!("{} of {name}", app.screens.compare.shown.name_in(app)), theme.strong()),
        Span::styled(format!("  {}", shape(&name.shape(run.config(), run.n_tokens()))), theme.dim()),
    ];
    if view(app).has_heads() {
        title.push(Span::styled(format!("  head {}", app.selection.head), theme.accent()));
    }
    let without = second.alignment.pairs.len() - second.alignment.both().count();
    if app.screens.compare.shown == Shown::Difference && without > 0 {
        let said = format!("  {} left out", count(without, "unaligned token"));
        title.push(Span::styled(said, theme.dim()));
    }
    title.push(Span::styled("  / another tensor  ", theme.dim()));
    title.extend(gradient::title(app, Slot::Beside));
    put_line(buffer, layout.said, &title);
    if let Some(file) = lacking(app, second) {
        let has: Vec<_> = file.hooks.iter().map(HookName::short).collect();
        let said = format!("{} has no {name}: / finds another; it has {}", file.name, has.join(", "));
        for (line, y) in
            wrap(&said, layout.sheet.plot.width.into()).iter().zip(layout.chart.y..layout.chart.bottom())
        {
            put(buffer, layout.chart.x, y, layout.chart.width, line, theme.dim());
        }
        return;
    }
    let Some(map) = map(app) else {
        draw_computing(buffer, layout.sheet.plot, theme);
        return;
    };
    let plot = plot(app, run, second, layout.sheet.plot);
    let pairs = rows(app, second);
    let selected = (row(app, second), column(app, second));
    let label = |row: usize| pair_label(second, pairs.get(row).copied());
    layout.sheet.draw(buffer, &plot, map, &label, selected, theme);
}

/// `7 ·old`, or `7 ·old|·young` if the prompts differ.
fn pair_label(second: &Second, pair: Option<(Option<usize>, Option<usize>)>) -> String {
    match pair {
        Some((Some(a), Some(b))) if second.a.tokens[a] != second.b.tokens[b] => {
            format!("{a} {}|{}", second.a.token_text(a), second.b.token_text(b))
        }
        Some((Some(a), _)) => format!("{a} {}", second.a.token_text(a)),
        Some((None, Some(b))) => format!("{b} {}", second.b.token_text(b)),
        _ => String::new(),
    }
}

/// The selected column; for keys, the row of the key's token.
fn column(app: &App, second: &Second) -> usize {
    match view(app).axes().1 {
        Axis::Key => {
            let at = app.selection.key;
            rows(app, second).iter().position(|pair| pair.0.is_some_and(|a| a >= at)).unwrap_or(0)
        }
        Axis::One => 0,
        _ => app.selection.column,
    }
}

/// A, B, or their difference.
pub fn next_shown(app: &mut App) {
    app.screens.compare.sweep = None;
    app.screens.compare.shown = turned(&Shown::ALL, app.screens.compare.shown, 1);
    app.shown_id += 1;
}
