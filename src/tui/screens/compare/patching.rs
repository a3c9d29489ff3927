//! Patching: sweeps, and taking one place from A.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Layout, NO_SECOND, row, rows, view};
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::engine::{Request, Second};
use crate::hooks::Site;
use crate::interventions::{Change, Donor, Intervention, Place, Target};
use crate::picture::chart::Chart;
use crate::tui::app::{Activity, App, Screen};
use crate::tui::text::{fit, num, put, put_line, wrap};
use crate::tui::widgets::chart;

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
    let coming = app.screens.compare.sweeping.as_ref().filter(|swept| swept.sweep == sweep);
    let coming = coming.filter(|_| matches!(app.activity, Some(Activity::Working(_))));
    let said = match &app.activity {
        Some(Activity::Working(steps)) if coming.is_some() => {
            format!("{steps}, Esc stops · hatched: still to come")
        }
        _ => about(patching),
    };
    put_line(buffer, layout.said, &[Span::styled(said, theme.text())]);
    let Some(swept) = app.screens.compare.swept.get(&sweep).or(coming) else {
        let n = patching.n_places(sweep);
        let said = match &app.activity {
            Some(Activity::Working(steps)) => format!("{steps}, Esc stops"),
            _ if n == 1 => "Enter: patch the only place".into(),
            _ => format!("Enter: patch {}: {n} places, each by itself", sweep.doc()),
        };
        put(buffer, layout.chart.x, layout.chart.y + 1, layout.chart.width, &said, theme.strong());
        return;
    };
    let (chart, place) = placed(app, patching, swept, layout.chart);
    chart::draw(buffer, &place, &chart, app.screens.compare.cell, app.range, theme);
}

fn placed(app: &App, patching: &Patching, swept: &Swept, area: Rect) -> (Chart, chart::Layout) {
    let mut chart = swept.chart(patching);
    let to_come = |x: &f32| *x == f32::NEG_INFINITY;
    let values = swept.values.iter().flatten();
    if values.clone().any(to_come) {
        chart.texts = values.map(|x| if to_come(x) { String::new() } else { num(*x) }).collect();
    }
    let dims = (chart.values.n_rows, chart.values.n_columns);
    let label = chart::label_width(&chart.rows, dims.0);
    let wide = if area.width < 120 { (5, 9) } else { (7, 24) };
    let layout = chart::Layout::new(area, dims, label, wide, app.screens.compare.cell);
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
    let swept = app.screens.compare.swept.get(&sweep).ok_or("press Enter to patch all places first")?;
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
