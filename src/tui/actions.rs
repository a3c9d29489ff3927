//! The commands of all screens; those of a single screen are in its file.

use ratatui::text::Span;

use super::app::{Activity, App};
use super::overlays::{Asked, ExportForm, Overlay, Picker, TokenForm};
use super::screens::{Screen, walk};
use super::view::SavedView;
use crate::engine::{Request, Slot};
use crate::hooks::Axis;
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;
use crate::run::Run;
use crate::text::{exact, shell_word};

/// More steps than any list has.
pub const MOST: isize = 1 << 40;

/// An index moved by a number of steps, within 0..n.
pub fn moved(index: usize, by: isize, n: usize) -> usize {
    index.saturating_add_signed(by).min(n.saturating_sub(1))
}

/// The item `by` steps after `now`, cyclically.
pub fn turned<T: Copy + PartialEq>(all: &[T], now: T, by: isize) -> T {
    let at = all.iter().position(|x| *x == now).unwrap_or(0) as isize;
    all[(at + by).rem_euclid(all.len() as isize) as usize]
}

pub fn find(app: &mut App) {
    if let Some(run) = &app.run {
        app.overlay = Some(Overlay::Picker(app.screen.scene().finder(run)));
    }
}

/// Opens the list of what can be copied.
pub fn copy(app: &mut App) {
    if let Some(run) = &app.run {
        app.overlay = Some(Overlay::Picker(Picker::copies(copies(app, run))));
    }
}

/// What is under the cursor, as texts: what each is, and the text.
fn copies(app: &App, run: &Run) -> Vec<(&'static str, String)> {
    let scene = app.screen.scene();
    let mut texts = Vec::new();
    if let Some(row) = app.row(Slot::Row) {
        let column = if row.view.axes().1 == Axis::Key { app.selection.key } else { app.selection.column };
        texts.extend(row.values.get(column).map(|x| ("value", exact(*x))));
        let row: Vec<_> = row.values.iter().map(|x| exact(*x)).collect();
        texts.push(("row", row.join(", ")));
    }
    let line = |spans: Vec<Span>| spans.iter().map(|span| span.content.as_ref()).collect::<String>();
    let said: Vec<_> =
        scene.inspect(app, run).into_iter().map(line).filter(|line| !line.is_empty()).collect();
    texts.push(("summary", said.join("\n")));
    let position = app.selection.position;
    texts.push(("token", run.model.tokenizer.decode(&run.tokens[position..=position])));
    texts.push(("token id", run.tokens[position].to_string()));
    texts.push(("hook", scene.tensor(app).to_string()));
    texts.push(("command", command_line(app, run)));
    texts.push(("prompt", run.prompt_text()));
    texts
}

/// The command that shows the same outside the explorer.
fn command_line(app: &App, run: &Run) -> String {
    let p = &run.model.provenance;
    let mut words = vec!["actscope".to_owned()];
    words.extend(app.screen.scene().command_line(app, run).iter().map(|word| match word.split_once('=') {
        Some((flag, value)) => format!("{flag}={}", shell_word(value)),
        None => shell_word(word),
    }));
    words.push(format!("--model={}", shell_word(&app.asked_model)));
    words.extend(p.revision.as_ref().map(|revision| format!("--revision={}", shell_word(revision))));
    let named = run.model.fitted.named().iter();
    words.extend(named.map(|one| format!("--dictionary={}", shell_word(&one.name))));
    let ids: Vec<_> = run.prompt_tokens().iter().map(ToString::to_string).collect();
    words.push(format!("--token-ids={}", ids.join(",")));
    words.extend(run.input.bos.then(|| "--bos".to_owned()));
    for change in run.input.interventions.active() {
        let said = change.to_string();
        let (action, rest) = said.split_once(' ').unwrap_or((&said, ""));
        words.push(match action {
            "zero" => format!("--ablate={}", shell_word(rest)),
            "mean" => format!("--mean --ablate={}", shell_word(rest)),
            action => format!("--{action}={}", shell_word(rest)),
        });
    }
    words.extend(app.differs().then(|| "--difference".to_owned()));
    words.join(" ")
}

pub fn find_extremes(app: &mut App) {
    if app.run.is_some() {
        // The known result may be of the previous run.
        app.seen.remove(&Slot::Found);
        app.overlay = Some(Overlay::Finding);
    }
}

/// Opens the export form.
pub fn export(app: &mut App) {
    let scene = app.screen.scene();
    let (Some(run), Some(written)) = (&app.run, scene.written(app)) else { return };
    let (subject, chart) = ((scene.tensor(app), scene.subject(app).1), scene.chart(app, run));
    let form = ExportForm::new(subject, chart, written, scene.difference(), SavedView::text(app));
    app.overlay = Some(Overlay::Export(Box::new(form)));
}

/// Opens the form for a token.
pub fn ask_token(app: &mut App, asked: Asked) {
    app.overlay = Some(Overlay::Token(TokenForm::new(asked)));
}

/// Esc without an overlay: stops what is running, otherwise goes back.
pub fn back(app: &mut App) -> Vec<Request> {
    if let Some(Activity::Running { .. } | Activity::Working(_)) = app.activity {
        let cancel = app.cancel();
        for screen in Screen::ALL {
            screen.scene().give_up(app);
        }
        app.note("cancelled; showing the last run");
        return vec![cancel];
    }
    if let (Some(_), Some(run)) = (app.looking, app.run.clone()) {
        (app.asked, app.paused, app.tick) = (None, true, 0);
        app.note("stopped; the next key continues");
        return vec![app.look(run, None, Vec::new())];
    }
    if !walk::back(app) {
        app.screen.scene().back(app);
    }
    Vec::new()
}

/// Arrow keys; what they move depends on the screen.
pub fn go(app: &mut App, right: isize, down: isize) {
    if let Some(run) = app.run.clone() {
        app.screen.scene().go(app, &run, right, down);
    }
}

pub fn go_token(app: &mut App, by: isize) {
    if let Some(run) = &app.run {
        app.selection.position = moved(app.selection.position, by, run.n_tokens());
    }
}

pub fn go_layer(app: &mut App, by: isize) {
    if let Some(run) = app.run.clone() {
        app.screen.scene().go_layer(app, &run, by);
    }
}

pub fn next_pooling(app: &mut App) {
    app.pooling = if app.pooling == Pooling::Extreme { Pooling::Mean } else { Pooling::Extreme };
    app.note(format!("pooling: {}", app.pooling.name()));
}

pub fn next_range(app: &mut App) {
    app.range = match app.range {
        None => Some(RangeMode::ALL[0]),
        Some(mode) => RangeMode::ALL.iter().copied().skip_while(|m| *m != mode).nth(1),
    };
    let said = app.range.map_or("automatic", RangeMode::name);
    app.note(format!("colour range: {said}"));
}

/// Opens Attribution for the selected candidate.
pub fn parts(app: &mut App) {
    app.screens.attribution.token = app.candidate();
    app.screen = Screen::Attribution;
}

pub fn warm(app: &mut App, by: f64) {
    let tenths = ((app.sampling.temperature + by) * 10.0).round().clamp(0.0, 50.0);
    app.sampling.temperature = tenths / 10.0;
}

/// The next size of top-k: `None` stands for all.
pub fn step_k(k: Option<usize>, up: bool) -> Option<usize> {
    const STEPS: [usize; 10] = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500];
    match (k, up) {
        (None, true) => None,
        (None, false) => STEPS.last().copied(),
        (Some(k), true) => STEPS.iter().copied().find(|step| *step > k),
        (Some(k), false) => STEPS.iter().copied().rev().find(|step| *step < k),
    }
}
