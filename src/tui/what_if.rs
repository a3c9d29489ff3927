//! What if: what is changed of the pass, and which of the two runs is on screen.

use std::sync::Arc;

use ratatui::text::Span;

use super::app::{App, Focus, Screen};
use super::command::Command;
use super::overlays::{Changes, Overlay};
use super::screens;
use super::theme::Theme;
use super::update::start_run;
use crate::analysis::answer::{Answer, DIFFERENCE};
use crate::analysis::compare::{Comparison, Spot};
use crate::engine::{Made, Request};
use crate::hooks::{Axis, HookName, Site};
use crate::interventions::{Change, Edge, Intervention, Place, Target};
use crate::run::{Input, Run};
use crate::text::num;

/// Which run is on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// With what is changed.
    #[default]
    Changed,
    /// Without.
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

/// A run with changes, the one without, and what they differ in.
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

    /// Whether what is on screen are differences.
    pub fn differs(&self) -> bool {
        let shown = match self.screen {
            Screen::Compare => false,
            Screen::Weights => screens::weights::differs(self),
            Screen::Walk => screens::walk::differs(self),
            _ => true,
        };
        self.what_if.side == Side::Difference && self.what_if.pair.is_some() && shown
    }

    /// What stands before the name of a difference, where differences are shown.
    pub fn delta(&self) -> &'static str {
        if self.differs() { "Δ " } else { "" }
    }

    /// The run without changes, if that of `input` is known.
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

/// The base of the run that was made last is there.
pub fn pair(app: &mut App, base: Made, comparison: Arc<Comparison>) {
    let (Some(run), Some(summary)) = (app.run.clone(), app.summary.clone()) else { return };
    app.what_if.pair = Some(Pair { base, changed: Made { run, summary }, comparison });
    show(app);
}

/// Puts the run on screen that is to be there.
fn show(app: &mut App) {
    let Some(pair) = &app.what_if.pair else { return };
    let made = if app.what_if.side == Side::Base { &pair.base } else { &pair.changed };
    (app.run, app.summary) = (Some(Arc::clone(&made.run)), Some(Arc::clone(&made.summary)));
    app.run_id += 1;
}

/// Carries out one of the commands about changes.
pub fn run(app: &mut App, command: Command) -> Vec<Request> {
    match command {
        Command::Changes => app.overlay = Some(Overlay::Changes(Changes::default())),
        Command::ShownSide => {
            let next = Side::ALL.iter().copied().cycle().skip_while(|side| *side != app.what_if.side).nth(1);
            if app.what_if.pair.is_none() {
                app.complain("nothing is changed: choose what to change, or press i");
            } else {
                app.what_if.side = next.unwrap_or_default();
                show(app);
                app.note(format!("on screen: {}", app.what_if.side.name()));
            }
        }
        Command::Zero | Command::Mean | Command::Scale => {
            let Some(place) = place(app) else { return Vec::new() };
            match command {
                Command::Zero => return change(app, Change::Zero(place)),
                Command::Mean => return change(app, Change::Mean(place)),
                _ => app.overlay = Some(Overlay::Changes(Changes::adding(format!("scale {place}=2")))),
            }
        }
        Command::Knockout => {
            let s = &app.selection;
            let layer = if app.screen == Screen::Stages { s.hook.layer } else { Some(s.layer) };
            let maps = matches!(s.hook.site, Site::AttnScores | Site::Pattern) && app.focus == Focus::Map;
            match layer {
                _ if app.screen == Screen::Stages && !maps => {
                    app.complain("an edge is cut in an attention map: go to one, and into it with Enter");
                }
                _ if s.key > s.position => {
                    app.complain(format!("query {} never reads key {}: it comes later", s.position, s.key));
                }
                Some(layer) => {
                    let edge = Edge { layer, head: s.head, query: s.position, key: s.key };
                    return change(app, Change::Knockout(edge));
                }
                None => {}
            }
        }
        Command::Direction => direction(app),
        _ => {}
    }
    Vec::new()
}

/// Makes a change, or takes it back if it was the same.
fn change(app: &mut App, change: Change) -> Vec<Request> {
    let list = &mut app.input.interventions.0;
    let before = list.len();
    list.retain(|intervention| intervention.change != change);
    if list.len() < before {
        app.note(format!("no more: {change}"));
    } else {
        let said = format!("{change}   D: base, difference · i: list · the same key again: undo");
        list.push(Intervention::from(change));
        app.note(said);
    }
    start_run(app)
}

/// The difference of two rows: the first is marked, the second proposes the change.
fn direction(app: &mut App) {
    let Some(target) = target(app) else { return };
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

/// What the cursor is on, without a position; or says why that cannot be changed.
fn target(app: &mut App) -> Option<Target> {
    let s = app.selection;
    match app.screen {
        Screen::Attention | Screen::Heads => Some(Target::Head(Site::Z.at(s.layer), s.head)),
        Screen::Stages => of_tensor(app),
        _ => Some(Target::Tensor(Site::ResidPre.at(0))),
    }
}

fn of_tensor(app: &mut App) -> Option<Target> {
    let (s, focus) = (app.selection, app.focus);
    let HookName { site, layer } = s.hook;
    match (site, layer) {
        (Site::AttnScores | Site::Pattern, Some(layer)) => Some(Target::Head(Site::Z.at(layer), s.head)),
        (Site::MlpPost, Some(layer)) if focus == Focus::Map => {
            Some(Target::Neuron { layer, neuron: s.column })
        }
        (Site::ResidPost, Some(layer)) if focus == Focus::Tree => Some(Target::Layer(layer)),
        (Site::Probs, _) => {
            app.complain("nothing comes after the probabilities: change something before them");
            None
        }
        _ if s.hook.point().axes.contains(&Axis::Head) => Some(Target::Head(s.hook, s.head)),
        _ => Some(Target::Tensor(s.hook)),
    }
}

/// What the cursor is on: in a map its row or neuron, in the list of tensors all of one.
fn place(app: &mut App) -> Option<Place> {
    let target = target(app)?;
    let row = match (app.screen, app.focus) {
        (Screen::Tokens | Screen::Embedding, _) => true,
        (Screen::Stages, Focus::Map) => {
            !matches!(app.selection.hook.site, Site::MlpPost | Site::AttnScores | Site::Pattern)
        }
        _ => false,
    };
    Some(Place { target, position: row.then_some(app.selection.position) })
}

/// What the changes do to the prediction after the selected token, in one line; what is least
/// needed comes last.
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
    said.push(comparison.first.map_or("nothing changes".into(), |first| from(first, comparison.earliest)));
    Some(said.join(" · "))
}

fn from((hook, position): Spot, earliest: Option<usize>) -> String {
    let earlier =
        earliest.filter(|at| *at < position).map_or(String::new(), |at| format!(", later from {at}"));
    format!("first change {} at position {position}{earlier}", hook.short())
}

/// With its sign, whichever it is.
pub fn signed(x: f64) -> String {
    let text = num(x as f32);
    if x > 0.0 { format!("+{text}") } else { text }
}

/// A number of the run on screen; where differences are shown, of the base, of the changed run, and
/// the difference.
pub fn spans<'a, T>(answer: &Answer<T>, theme: Theme, of: impl Fn(&T) -> f32) -> Vec<Span<'a>> {
    let Some(minus) = &answer.minus else {
        return vec![Span::styled(format!("{}  ", num(of(&answer.of))), theme.text())];
    };
    vec![
        Span::styled("base ", theme.dim()),
        Span::styled(num(of(minus)), theme.text()),
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
        Side::Difference if app.screen == Screen::Walk => "changed, the tokens are the same",
        Side::Difference => Side::Changed.name(),
        side => side.name(),
    };
    Some(format!("{side}: {}{more}", first.name.clone().unwrap_or_else(|| first.change.to_string())))
}

/// The run whose tensors are taken off those on screen.
pub fn against(app: &App) -> Option<Arc<Run>> {
    match app.screen {
        Screen::Compare => screens::compare::against(app),
        Screen::Heads if app.heads.random => screens::heads::against(app),
        _ => base_shown(app),
    }
}

/// The run without changes, where what is on screen is the difference from it.
pub fn base_shown(app: &App) -> Option<Arc<Run>> {
    let pair = app.what_if.pair.as_ref()?;
    app.differs().then(|| Arc::clone(&pair.base.run))
}
