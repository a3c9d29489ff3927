//! Patching: sweeps, and taking one place from A.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Layout, NO_SECOND, row, rows, view};
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::engine::{Look, Request, Second, Seen, Slot};
use crate::hooks::Site;
use crate::interventions::{Change, Donor, Intervention, Place, Target};
use crate::picture::chart::Chart;
use crate::tui::app::{Activity, App, Screen};
use crate::tui::overlays::{EdgesPanel, Overlay};
use crate::tui::text::{fit, fixed, num, put, put_line, short, wrap};
use crate::tui::widgets::{chart, scatter};

/// A sweep is finished: the cursor goes to its strongest place.
pub fn swept(app: &mut App, swept: Swept) {
    app.screens.compare.sweeping = None;
    app.screens.compare.cell = strongest(&swept);
    app.screens.compare.swept.insert(swept.sweep, Arc::new(swept));
}

/// Row and column of the largest number.
pub(super) fn strongest(swept: &Swept) -> (usize, usize) {
    let cells = swept.values.iter().enumerate();
    let cells = cells
        .flat_map(|(row, values)| values.iter().enumerate().map(move |(column, x)| (x.abs(), row, column)));
    let most = cells.filter(|cell| cell.0.is_finite()).max_by(|a, b| a.0.total_cmp(&b.0));
    most.map_or((0, 0), |(_, row, column)| (row, column))
}

/// What is known of the sweep on screen.
pub(super) struct Known<'a> {
    /// All of it, or as far as it has come.
    measured: Option<&'a Swept>,
    /// By the gradient.
    predicted: Result<&'a Swept, Option<&'a str>>,
}

/// What is known of a sweep.
pub(super) fn known(app: &App, sweep: Sweep) -> Known<'_> {
    let coming = app.screens.compare.sweeping.as_deref().filter(|swept| swept.sweep == sweep);
    let coming = coming.filter(|_| matches!(app.activity, Some(Activity::Working(_))));
    let predicted = match app.seen.get(&Slot::Predicted).map(|seen| &**seen) {
        Some(Seen::Predicted(_, swept)) if swept.sweep == sweep => Ok(swept),
        Some(Seen::Nothing(_, why)) => Err(Some(&**why)),
        _ => Err(None),
    };
    Known { measured: app.screens.compare.swept.get(&sweep).map(|swept| &**swept).or(coming), predicted }
}

impl Known<'_> {
    /// What was measured, and where it was not, what is predicted.
    pub fn swept(&self) -> Option<Swept> {
        let (Some(measured), Ok(predicted)) = (self.measured, self.predicted) else {
            return self.measured.or(self.predicted.ok()).cloned();
        };
        let of_row = |(measured, predicted): (&Vec<f32>, &Vec<f32>)| {
            let either = |(x, y): (&f32, &f32)| if *x == f32::NEG_INFINITY { *y } else { *x };
            measured.iter().zip(predicted).map(either).collect()
        };
        let values = measured.values.iter().zip(&predicted.values).map(of_row).collect();
        Some(Swept { values, ..measured.clone() })
    }

    fn is_measured(&self, row: usize, column: usize) -> bool {
        let value = |swept: &Swept| swept.values.get(row)?.get(column).copied();
        self.measured.and_then(value).is_some_and(|x| x != f32::NEG_INFINITY)
    }

    fn is_all_measured(&self) -> bool {
        let all = |swept: &Swept| swept.values.iter().flatten().all(|x| *x != f32::NEG_INFINITY);
        self.measured.is_some_and(all)
    }

    /// The number of a cell, as measured and as predicted.
    pub fn cell(&self, (row, column): (usize, usize)) -> [Option<f32>; 2] {
        let value = |swept: &Swept| swept.values.get(row)?.get(column).copied();
        [
            self.measured.and_then(value).filter(|x| *x != f32::NEG_INFINITY),
            self.predicted.ok().and_then(value),
        ]
    }
}

/// Whether A is patched into B, rather than compared with it.
pub(super) fn is_patching(app: &App) -> bool {
    app.screens.compare.sweep.is_some() || matches!(app.overlay, Some(Overlay::Edges(_)))
}

/// What the gradient says of the sweep or of the edges, where it can be asked.
pub(super) fn wanted(app: &App, second: &Second) -> Vec<(Slot, Look)> {
    let Ok(patching) = &second.patching else { return Vec::new() };
    let (token, versus) = (patching.token, patching.versus);
    match (&app.overlay, app.screens.compare.sweep) {
        _ if second.file.is_some() => Vec::new(),
        (Some(Overlay::Edges(shown)), _) => {
            vec![(Slot::Edges, Look::Edges { token, versus, steps: shown.steps })]
        }
        (_, Some(sweep)) => vec![(Slot::Predicted, Look::Predicted { sweep, token, versus })],
        _ => Vec::new(),
    }
}

/// Shows the edges that tell A from B.
pub fn edges(app: &mut App) {
    let second = app.run.clone().and_then(|run| app.screens.compare.second(&run).cloned());
    match second.map(|second| (second.file.is_some(), second.patching)) {
        None => app.complain(NO_SECOND),
        Some((true, _)) => app.complain("B is a file: edges are those of two prompts"),
        Some((_, Err(why))) => app.complain(why),
        Some((_, Ok(_))) => app.overlay = Some(Overlay::Edges(EdgesPanel::default())),
    }
}

pub(super) fn draw_sweep(app: &App, second: &Second, sweep: Sweep, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let patching = match &second.patching {
        Ok(patching) => patching,
        Err(why) => {
            for (line, y) in wrap(why, layout.said.width.into()).iter().zip(layout.said.y + 1..) {
                put(buffer, layout.said.x, y, layout.said.width, line, theme.bad());
            }
            return;
        }
    };
    let known = known(app, sweep);
    let working = match &app.activity {
        Some(Activity::Working(steps)) => Some(format!("{steps}, Esc stops")),
        _ => None,
    };
    let said = match (&working, known.predicted) {
        (Some(steps), Ok(_)) if known.measured.is_some() => {
            format!("{steps} · ~: predicted by the gradient, still to be measured")
        }
        (Some(steps), _) if known.measured.is_some() => format!("{steps} · hatched: still to come"),
        (None, Ok(_)) if known.measured.is_none() && layout.chart.width < WITH_SCATTER => {
            format!("~: predicted by the gradient · Enter: patch all {} places", patching.n_places(sweep))
        }
        _ => about(patching),
    };
    put_line(buffer, layout.said, &[Span::styled(said, theme.text())]);
    let n = patching.n_places(sweep);
    let todo = match working {
        Some(steps) => steps,
        None if n == 1 => "Enter: patch the only place".into(),
        None => format!("Enter: patch {}: {n} places, each by itself", sweep.doc()),
    };
    let Some(swept) = known.swept() else {
        let Rect { x, y, width, .. } = layout.chart;
        put(buffer, x, y + 1, width, &todo, theme.strong());
        if let Err(Some(why)) = known.predicted {
            put(buffer, x, y + 3, width, &format!("not predicted: {why}"), theme.dim());
        }
        return;
    };
    let is_wide = layout.chart.width >= WITH_SCATTER;
    let area = Rect { width: layout.chart.width - if is_wide { SCATTER + 3 } else { 0 }, ..layout.chart };
    let (chart, place) = placed(app, patching, &swept, &known, area);
    chart::draw(buffer, &place, &chart, app.screens.compare.cell, app.range, theme);
    if !is_wide {
        return;
    }
    let x = place.plot.covered().right() + 4;
    let beside = Rect { x, width: SCATTER.max((layout.chart.right() - x).min(64)), ..layout.chart };
    if let (Some(measured), Ok(predicted)) = (known.measured, known.predicted) {
        let close = measured.correlation(predicted);
        let title = match close {
            Some((r, n)) => format!("predicted, measured: r = {} ({n})", fixed(r, 3)),
            None => "predicted, measured".into(),
        };
        let points: Vec<_> = measured.pairs(predicted).collect();
        scatter::draw(buffer, beside, &title, ("measured", "predicted"), &points, theme);
    } else if known.predicted.is_ok() {
        let said = "~: predicted by the gradient, (A − B) · ∂m/∂x in B, where m is the logit difference: one backward pass \
                    for all places of all sweeps. It is exact where the network is linear.";
        let lines = wrap(said, beside.width.into())
            .into_iter()
            .chain([String::new()])
            .chain(wrap(&todo, beside.width.into()));
        for (line, y) in lines.zip(beside.y + 1..beside.bottom()) {
            put(buffer, beside.x, y, beside.width, &line, theme.dim());
        }
    }
}

/// The width from which there is a picture beside the chart, and its own.
const WITH_SCATTER: u16 = 110;
const SCATTER: u16 = 40;

fn placed(
    app: &App,
    patching: &Patching,
    swept: &Swept,
    known: &Known<'_>,
    area: Rect,
) -> (Chart, chart::Layout) {
    let mut chart = swept.chart(patching);
    let dims = (chart.values.n_rows, chart.values.n_columns);
    let label = chart::label_width(&chart.rows, dims.0);
    let wide = if area.width < 120 { (5, 9) } else { (7, 24) };
    let layout = chart::Layout::new(area, dims, label, wide, app.screens.compare.cell);
    if !known.is_all_measured() {
        let room = usize::from(layout.plot.width()).saturating_sub(1);
        let number = |x: f32, room: usize| if room < 8 { short(x, room.min(4)) } else { num(x) };
        let text = |row: usize, column: usize, x: f32| match (known.is_measured(row, column), x) {
            (true, x) => number(x, room),
            (false, f32::NEG_INFINITY) => String::new(),
            (false, x) => format!("~{}", number(x, room.saturating_sub(1))),
        };
        let mut texts = Vec::new();
        for (row, values) in swept.values.iter().enumerate() {
            texts.extend(values.iter().enumerate().map(|(column, x)| text(row, column, *x)));
        }
        chart.texts = texts;
    }
    (chart, layout)
}

/// A description of the measure.
fn about(patching: &Patching) -> String {
    let show = |id: u32| patching.clean.model.tokenizer.show(id);
    let ends =
        if patching.only_last() { " · lengths differ: only the last position is patched" } else { "" };
    format!(
        "recovered logit of {} over {} (t, v: others) · A {} = 1, B {} = 0{ends}",
        show(patching.token),
        show(patching.versus),
        num(patching.clean_difference),
        num(patching.corrupt_difference)
    )
}

/// The place under the cursor in B and its source in A, or why there is none.
fn patchable(app: &App, second: &Second) -> Result<(Place, Donor), String> {
    if second.file.is_some() {
        return Err("B is a file: only the run of a prompt can be patched".into());
    }
    let from = |position| Donor { tokens: second.a.tokens.clone(), position };
    let Some(sweep) = app.screens.compare.sweep else {
        if app.selection.made.is_some() {
            return Err("what a dictionary makes cannot be patched: choose the tensor itself with /".into());
        }
        let (view, hook) = (view(app), app.selection.hook);
        let target =
            if view.has_heads() { Target::Head(hook, app.selection.head) } else { Target::Tensor(hook) };
        let pair = rows(app, second).get(row(app, second)).copied();
        let Some((Some(a), Some(b))) = pair else {
            return Err("this token is not aligned with one of the other prompt".into());
        };
        return Ok((target.at(b), from((a != b).then_some(a))));
    };
    let swept = known(app, sweep).swept().ok_or("press Enter to patch all places first")?;
    let (row, column) = app.screens.compare.cell;
    let place = swept.place(row, column).ok_or("no place of the sweep is selected")?;
    // If the lengths differ, the last positions are aligned.
    let (a, b) = (second.a.n_tokens(), second.b.n_tokens());
    Ok(if a == b { (place, from(None)) } else { (place.target.at(b - 1), from(Some(a - 1))) })
}

/// Makes B the prompt, with the place under the cursor taken from A.
pub fn patch(app: &mut App) -> Vec<Request> {
    let Some(second) = app.run.clone().and_then(|run| app.screens.compare.second(&run).cloned()) else {
        app.complain(NO_SECOND);
        return Vec::new();
    };
    let change = patchable(app, &second).and_then(|(place, donor)| {
        let change = Change::Patch(place, donor);
        change.check(second.b.config(), second.b.n_tokens()).map_err(|error| error.to_string())?;
        Ok((place, change))
    });
    let (place, change) = match change {
        Ok(change) => change,
        Err(why) => {
            app.complain(why);
            return Vec::new();
        }
    };
    app.screens.compare.patched = Some(change.clone());
    let mut one = Intervention::from(change);
    one.name = Some(format!("{place} from “{}”", fit(&second.a.prompt_text(), 24)));
    app.input.interventions.0.push(one);
    go_to(app, place);
    let requests = exchange(app);
    // The position is one of B.
    app.landing = place.position;
    app.note(format!("B is the prompt, with {place} from A · D: base, difference · i: list · 0 N: undo"));
    requests
}

/// Swaps the prompt and prompt B; after a patch, this takes it off.
pub fn swap(app: &mut App) -> Vec<Request> {
    if let Some(patched) = app.screens.compare.patched.take() {
        app.input.interventions.0.retain(|one| one.change != patched);
    }
    exchange(app)
}

fn exchange(app: &mut App) -> Vec<Request> {
    if app.screens.compare.file.is_some() {
        app.complain("B is a file: only prompts can be exchanged");
        return Vec::new();
    }
    let Some(b) = app.screens.compare.prompt.clone() else {
        app.complain(NO_SECOND);
        return Vec::new();
    };
    app.screens.compare.prompt = Some(std::mem::replace(&mut app.input.prompt, b));
    app.start_run()
}

/// Opens a place: a head's attention, or a tensor in Stages.
pub(super) fn go_to(app: &mut App, place: Place) {
    let last = app.run.as_ref().map_or(0, |run| run.n_tokens() - 1);
    if let Some(position) = place.position {
        app.selection.position = position.min(last);
    }
    match place.target {
        Target::Head(hook, head) => {
            (app.selection.layer, app.selection.head) = (hook.layer.unwrap_or(0), head);
            app.screen = Screen::Attention;
        }
        Target::Tensor(hook) => app.open_in_stages(hook),
        Target::Neuron { layer, neuron } => {
            app.open_in_stages(Site::MlpPost.at(layer));
            app.selection.column = neuron;
        }
        Target::Layer(_) | Target::Feature { .. } => {}
    }
}
