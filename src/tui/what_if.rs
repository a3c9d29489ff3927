//! What if: the changes to the pass, and which of the two runs is on screen.

use std::sync::Arc;

use ratatui::text::Span;

use super::actions::turned;
use super::app::App;
use super::overlays::{Changes, Overlay};
use super::theme::Theme;
use crate::analysis::base::{DIFFERENCE, WithBase};
use crate::analysis::compare::{Comparison, Spot};
use crate::engine::{Made, Request};
use crate::interventions::{Change, Intervention, Place, Target};
use crate::run::{Input, Run};
use crate::text::num;

/// Which run is on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// With the changes.
    #[default]
    Changed,
    /// Without them.
    Base,
    /// Changed − base.
    Difference,
}

impl Side {
    pub const ALL: [Self; 3] = [Self::Changed, Self::Base, Self::Difference];

    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Base => "base",
            Self::Difference => DIFFERENCE,
        }
    }
}

/// A run with changes, the one without, and their differences.
#[derive(Debug, Clone)]
pub struct Pair {
    pub base: Made,
    pub changed: Made,
    pub comparison: Arc<Comparison>,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub side: Side,
    /// Once both runs are made.
    pub pair: Option<Pair>,
    /// A row to take a difference from.
    pub mark: Option<(Target, usize)>,
}

impl App {
    /// The run of the input, whichever is on screen.
    pub fn made(&self) -> Option<&Arc<Run>> {
        self.what_if.pair.as_ref().map(|pair| &pair.changed.run).or(self.run.as_ref())
    }

    /// Whether differences are on screen.
    pub fn differs(&self) -> bool {
        let shown = self.screen.scene().without_difference(self).is_none();
        self.what_if.side == Side::Difference && self.what_if.pair.is_some() && shown
    }

    /// The prefix of the name of a difference, if differences are shown.
    pub fn delta(&self) -> &'static str {
        if self.differs() { "Δ " } else { "" }
    }

    /// The run of `input` without changes, if known.
    pub fn base_of(&self, input: &Input) -> Option<Made> {
        let same = |made: &Made| {
            let of = &made.run.input;
            of.interventions.is_idle() && of.prompt == input.prompt && of.bos == input.bos
        };
        let whole = |made: &Made| made.summary.surprises.len() == made.run.n_tokens();
        let shown = || Some(Made { run: self.run.clone()?, summary: self.summary.clone()? }).filter(whole);
        let known = self.what_if.pair.as_ref().map(|pair| pair.base.clone());
        known.or_else(shown).filter(same)
    }
}

/// The base of the last run arrived.
pub fn pair(app: &mut App, base: Made, comparison: Arc<Comparison>) {
    let (Some(run), Some(summary)) = (app.run.clone(), app.summary.clone()) else { return };
    app.what_if.pair = Some(Pair { base, changed: Made { run, summary }, comparison });
    show(app);
}

/// Shows the run for the chosen side.
fn show(app: &mut App) {
    let Some(pair) = &app.what_if.pair else { return };
    let made = if app.what_if.side == Side::Base { &pair.base } else { &pair.changed };
    (app.run, app.summary) = (Some(Arc::clone(&made.run)), Some(Arc::clone(&made.summary)));
    app.shown_id += 1;
}

/// Shows the next of: changed run, base, difference.
pub fn next_side(app: &mut App) {
    if app.what_if.pair.is_none() {
        app.complain("no changes yet: change something first, or press i");
        return;
    }
    app.what_if.side = turned(&Side::ALL, app.what_if.side, 1);
    show(app);
    app.note(format!("showing: {}", app.what_if.side.name()));
}

/// The place under the cursor; if it cannot be changed, says why.
fn place(app: &mut App) -> Option<Place> {
    app.screen.scene().place(app).map_err(|why| app.complain(why)).ok()
}

/// Changes the place under the cursor.
pub fn change_place(app: &mut App, how: fn(Place) -> Change) -> Vec<Request> {
    place(app).map_or_else(Vec::new, |place| change(app, how(place)))
}

/// Proposes to scale the place under the cursor.
pub fn scale(app: &mut App) {
    if let Some(place) = place(app) {
        app.overlay = Some(Overlay::Changes(Changes::adding(format!("scale {place}=2"))));
    }
}

/// Cuts the edge under the cursor.
pub fn knock_out(app: &mut App) -> Vec<Request> {
    match app.screen.scene().edge(app) {
        Err(why) => app.complain(why),
        Ok(edge) => match edge.check_order() {
            Err(why) => app.complain(why.to_string()),
            Ok(()) => return change(app, Change::Knockout(edge)),
        },
    }
    Vec::new()
}

/// Makes a change, or undoes it if it was there already.
fn change(app: &mut App, change: Change) -> Vec<Request> {
    let list = &mut app.input.interventions.0;
    let before = list.len();
    list.retain(|intervention| intervention.change != change);
    if list.len() < before {
        app.note(format!("undone: {change}"));
    } else {
        let said = format!("{change}   D: base, difference · i: list · the same key again: undo");
        list.push(Intervention::from(change));
        app.note(said);
    }
    app.start_run()
}

/// The difference of two rows: the first is marked, the second proposes the change.
pub fn direction(app: &mut App) {
    let Some(Place { target, .. }) = place(app) else { return };
    let row = app.selection.position;
    match app.what_if.mark.take() {
        Some((marked, first)) if marked == target && first != row => {
            app.overlay = Some(Overlay::Changes(Changes::adding(format!("add {target}:{row}-{first}=1"))));
        }
        Some((marked, first)) if marked == target => app.note(format!("row {first} is no longer marked")),
        _ => {
            app.what_if.mark = Some((target, row));
            app.note(format!("row {row} of {target} is marked: d on another row adds that row − this one"));
        }
    }
}

/// The effect of the changes on the prediction after the selected token, in one line; the least
/// important comes last.
pub fn summary(app: &App) -> Option<String> {
    let Pair { comparison, changed, .. } = app.what_if.pair.as_ref()?;
    let show = |id: u32| changed.run.model.tokenizer.show(id);
    let mut said = Vec::new();
    if let Some((hook, position)) = comparison.nan {
        said.push(format!("NaN from {} on, at {position}", hook.short()));
    }
    let shift = comparison.shifts.get(app.selection.position).copied().flatten()?;
    let moved = |(id, delta): (u32, f64)| format!("{} {}", show(id), signed(delta));
    if let Some(actual) = shift.actual {
        said.push(format!("Δ log p next {}", moved(actual)));
    }
    said.push(format!(
        "{} {}",
        if shift.actual.is_some() { "likeliest" } else { "Δ log p likeliest" },
        moved(shift.predicted)
    ));
    said.push(format!("KL {}", num(shift.kl as f32)));
    said.push(comparison.first.map_or("no effect".into(), |first| from(first, comparison.earliest)));
    Some(said.join(" · "))
}

fn from((hook, position): Spot, earliest: Option<usize>) -> String {
    let earlier =
        earliest.filter(|at| *at < position).map_or(String::new(), |at| format!(", later from {at}"));
    format!("first change {} at position {position}{earlier}", hook.short())
}

/// A number with its sign, even if positive.
pub fn signed(x: f64) -> String {
    let text = num(x as f32);
    if x > 0.0 { format!("+{text}") } else { text }
}

/// A number of the run on screen; if differences are shown, of the base, of the changed run, and
/// of the difference.
pub fn spans<'a, T>(answer: &WithBase<T>, theme: Theme, of: impl Fn(&T) -> f32) -> Vec<Span<'a>> {
    let Some(base) = &answer.base else {
        return vec![Span::styled(format!("{}  ", num(of(&answer.of))), theme.text())];
    };
    vec![
        Span::styled("base ", theme.dim()),
        Span::styled(num(of(base)), theme.text()),
        Span::styled("  changed ", theme.dim()),
        Span::styled(num(of(&answer.of)), theme.text()),
        Span::styled("  Δ ", theme.dim()),
        Span::styled(format!("{}  ", signed(f64::from(answer.shown(of)))), theme.accent()),
    ]
}

/// The active changes for the title line, and which run is on screen.
pub fn title(app: &App) -> Option<String> {
    let interventions = &app.input.interventions;
    let mut active = interventions.active();
    let first = active.next()?;
    let more = active.count();
    let more = if more > 0 { format!(" +{more}") } else { String::new() };
    let side = match app.what_if.side {
        _ if app.what_if.pair.is_none() => "what if",
        Side::Difference if app.differs() => Side::Difference.name(),
        Side::Difference => app.screen.scene().without_difference(app).unwrap_or(Side::Changed.name()),
        side => side.name(),
    };
    Some(format!("{side}: {}{more}", first.name.clone().unwrap_or_else(|| first.change.to_string())))
}

/// The run without changes, if the difference from it is on screen.
pub fn base_shown(app: &App) -> Option<Arc<Run>> {
    let pair = app.what_if.pair.as_ref()?;
    app.differs().then(|| Arc::clone(&pair.base.run))
}
