//! The commands of all screens; those of a single screen are in its file.

use super::app::{Activity, App};
use super::overlays::{Asked, ExportForm, Overlay, Picker, TokenForm};
use super::screens::{Screen, walk};
use crate::engine::{Request, Slot};
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;

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
        app.overlay = Some(Overlay::Picker(Picker::hooks(run.config(), run.n_tokens())));
    }
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
    let form = ExportForm::new(scene.subject(app), scene.chart(app, run), written, scene.difference());
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
