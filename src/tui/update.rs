//! The only place that changes the state: what happened, in; what the engine has to do, out.

use std::path::PathBuf;
use std::sync::Arc;

use ratatui::crossterm::event::{
    Event as TerminalEvent, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Rect;

use super::app::{Activity, App, Focus, Screen};
use super::command::Command;
use super::keymap::{self, Key};
use super::layout::Frame;
use super::overlays::{Asked, Choice, Editor, ExportForm, Overlay, Picker, TokenForm};
use super::screens;
use super::widgets::heatmap::Plot;
use super::{draw, overlays, theme, what_if};
use crate::analysis::AttnStage;
use crate::engine::{Event, Export, Job, Look, Request, Seen, Slot, Summary, Wanted};
use crate::error::Error;
use crate::export::figure;
use crate::hooks::{HookName, Site};
use crate::picture::colormap::Palette;
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;
use crate::run::{Prompt, Run};
use crate::signals::Signal;

/// How many tokens `G` appends.
const MANY: usize = 16;

/// What can happen.
#[derive(Debug)]
pub enum Message {
    Terminal(TerminalEvent),
    Engine(Event),
    /// Time has passed while something is going on.
    Tick,
    /// The system asks for something.
    Signal(Signal),
}

/// Changes the state; returns what the engine is to do.
pub fn update(app: &mut App, message: Message) -> Vec<Request> {
    let mut requests = match message {
        Message::Terminal(event) => on_terminal(app, event),
        Message::Engine(event) => on_engine(app, event),
        Message::Tick => {
            app.tick += 1;
            screens::walk::tick(app);
            Vec::new()
        }
        Message::Signal(signal) => {
            on_signal(app, signal);
            Vec::new()
        }
    };
    screens::walk::forget(app);
    requests.extend(screens::heads::measure(app));
    requests.extend(screens::compare::refresh(app));
    requests.extend(look(app));
    requests
}

fn on_signal(app: &mut App, signal: Signal) {
    match signal {
        Signal::Leave => app.quit = Some(Ok(())),
        // The kernel continues what it ends.
        _ if matches!(app.signal, Some(Signal::End(_))) => {}
        // Stopped and continued before either was seen to.
        signal => app.signal = Some(signal),
    }
}

/// Asks for what the screen shows and has not got yet.
fn look(app: &mut App) -> Option<Request> {
    if app.paused {
        return None;
    }
    let run = screens::shown(app)?;
    let against = what_if::against(app);
    let looks = screens::wanted(app);
    let asked = (app.run_id, looks);
    if app.asked.as_ref() == Some(&asked) {
        return None;
    }
    let fresh = app.asked.as_ref().is_some_and(|(run_id, _)| *run_id == app.run_id);
    let known = |slot: &Slot, look: &Look| {
        app.seen.get(slot).is_some_and(|seen| seen.look() == look && seen.is_whole())
    };
    let missing = |(slot, look): &&(Slot, Look)| !fresh || !known(slot, look);
    let looks = asked.1.iter().filter(missing).cloned().collect();
    app.asked = Some(asked);
    // Nothing is a request too: it ends the one before.
    Some(request(app, run, against, looks))
}

fn request(app: &mut App, run: Arc<Run>, against: Option<Arc<Run>>, looks: Vec<(Slot, Look)>) -> Request {
    app.look_id += 1;
    app.looking = None;
    Request::Look(Wanted { run, against, run_id: app.run_id, id: app.look_id, looks })
}

fn on_terminal(app: &mut App, event: TerminalEvent) -> Vec<Request> {
    match event {
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => on_key(app, key),
        TerminalEvent::Paste(text) => on_paste(app, &text),
        TerminalEvent::Mouse(mouse) => on_mouse(app, mouse),
        TerminalEvent::Resize(width, height) => {
            app.size = (width, height);
            keep_in_view(app);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn on_key(app: &mut App, event: KeyEvent) -> Vec<Request> {
    let key = Key::from(event);
    let escape = Key::parse("esc") == Some(key);
    // In an editor it is undo, and text can go on being typed.
    let undo = matches!(app.overlay, Some(Overlay::Editor(_) | Overlay::Second(_)));
    if key.ctrl {
        match keymap::command(key, app.screen) {
            Some(Command::Quit) => return run(app, Command::Quit),
            Some(Command::Suspend) if !undo => return run(app, Command::Suspend),
            _ => {}
        }
    }
    if escape && app.overlay.is_some() {
        overlays::back(app);
        return Vec::new();
    }
    match &mut app.overlay {
        Some(Overlay::Editor(editor)) => {
            if editor.key(event) {
                edited(app)
            } else {
                Vec::new()
            }
        }
        Some(Overlay::Picker(picker)) => match picker.key(event) {
            Some(choice) => choose(app, choice),
            None => Vec::new(),
        },
        Some(Overlay::Changes(_)) => overlays::changes_key(app, event),
        Some(Overlay::Second(editor)) => {
            if editor.key(event) {
                second_edited(app);
            }
            Vec::new()
        }
        Some(Overlay::Token(form)) => {
            if form.key(event) {
                take_token(app);
            }
            Vec::new()
        }
        Some(Overlay::Finding) => Vec::new(),
        Some(Overlay::Export(form)) => {
            if form.key(event) {
                export(app)
            } else {
                Vec::new()
            }
        }
        None => {
            app.notice = None;
            app.paused = false;
            keymap::command(key, app.screen).map_or_else(Vec::new, |command| run(app, command))
        }
    }
}

#[allow(clippy::collapsible_match)] // a guard cannot paste
fn on_paste(app: &mut App, text: &str) -> Vec<Request> {
    match &mut app.overlay {
        Some(Overlay::Editor(editor)) => {
            if editor.paste(text) {
                return edited(app);
            }
        }
        Some(Overlay::Picker(picker)) => picker.paste(text),
        Some(Overlay::Export(form)) => form.paste(text),
        Some(Overlay::Token(form)) => form.paste(text),
        Some(Overlay::Changes(list)) => list.paste(text),
        Some(Overlay::Second(editor)) => {
            if editor.paste(text) {
                second_edited(app);
            }
        }
        Some(Overlay::Finding) | None => {}
    }
    Vec::new()
}

fn on_mouse(app: &mut App, mouse: MouseEvent) -> Vec<Request> {
    let (x, y) = (mouse.column, mouse.row);
    let wheel = match mouse.kind {
        MouseEventKind::ScrollUp => -1,
        MouseEventKind::ScrollDown => 1,
        MouseEventKind::Down(MouseButton::Left) | MouseEventKind::Drag(MouseButton::Left) => 0,
        _ => return Vec::new(),
    };
    match &app.overlay {
        Some(Overlay::Picker(picker)) => {
            let area = Rect::new(0, 0, app.size.0, app.size.1);
            if let (MouseEventKind::Down(_), Some(choice)) = (mouse.kind, picker.hit(area, x, y)) {
                return choose(app, choice);
            }
            return Vec::new();
        }
        Some(_) => return Vec::new(),
        None => {}
    }
    let (Some(frame), Some(run_now)) = (Frame::new(app.size), app.run.clone()) else { return Vec::new() };
    let hit = screens::hit(app, &run_now, frame.body, x, y);
    if wheel != 0 {
        let over_map = hit.is_some_and(|hit| hit.map) && app.screen == Screen::Stages;
        if let (true, Some(hit)) = (over_map, hit) {
            app.selection = hit.selection;
            return run(app, if wheel < 0 { Command::ZoomIn } else { Command::ZoomOut });
        }
        let step = if y == frame.strip.y {
            if wheel < 0 { Command::PreviousToken } else { Command::NextToken }
        } else if wheel < 0 {
            Command::Up
        } else {
            Command::Down
        };
        return run(app, step);
    }
    if let Some(screen) = draw::tab_at(&frame, app.screen, x, y) {
        app.screen = screen;
    } else if y == frame.strip.y
        && let Some(position) = draw::strip(app, frame.strip).hit(x)
    {
        app.selection.position = position;
    } else if app.screen == Screen::Walk
        && let Some(step) = screens::walk::step_at(app, run_now.config(), frame.body, x, y)
    {
        screens::walk::go_to(app, step);
    } else if let Some(hit) = hit {
        app.selection = hit.selection;
        if app.screen == Screen::Stages {
            app.focus = if hit.map { Focus::Map } else { Focus::Tree };
        }
    }
    app.notice = None;
    keep_in_view(app);
    Vec::new()
}

fn on_engine(app: &mut App, event: Event) -> Vec<Request> {
    match event {
        Event::Loading(progress) => app.activity = Some(Activity::Loading(progress)),
        Event::Loaded(model) => {
            app.model = Some(model);
            app.activity = None;
            return start_run(app);
        }
        Event::LoadFailed(error) => app.quit = Some(Err(error)),
        Event::Crashed => app.quit = Some(Err(Error::Crashed)),
        Event::Hashed => {}
        Event::Layer { id, layer, n_layer } if id == app.job_id => {
            let left = match app.activity {
                Some(Activity::Running { left, .. }) => left,
                _ => 0,
            };
            app.activity = Some(Activity::Running { id, layer, n_layer, left });
        }
        Event::Ran { id, run, summary, left } if id == app.job_id => ran(app, id, run, summary, left),
        Event::Summed { id, summary } if id == app.job_id => app.summary = Some(summary),
        Event::Refused { id, why } if id == app.job_id => {
            app.activity = None;
            app.tick = 0;
            screens::heads::give_up(app);
            let kept = if app.run.is_some() { "; the last run stays" } else { "" };
            app.complain(format!("{why}{kept}"));
        }
        Event::Cancelled { id } if id == app.job_id => app.activity = None,
        Event::Base { id, base, comparison } if id == app.job_id => {
            (app.activity, app.tick) = (None, 0);
            what_if::pair(app, base, comparison);
        }
        Event::Second { id, second } if id == app.job_id => screens::compare::ran(app, *second),
        Event::Swept { id, swept } if id == app.job_id => screens::compare::swept(app, swept),
        Event::Listed(Ok(list)) => {
            app.input.interventions = list;
            return start_run(app);
        }
        Event::Listed(Err(why)) => app.complain(why),
        Event::Step { id, what, done, of } if id == app.job_id => {
            app.activity = Some(Activity::Working { id, what, done, of });
        }
        Event::Repeated { id, atlas, runs } if id == app.job_id => {
            (app.activity, app.tick) = (None, 0);
            screens::heads::measured(app, atlas, runs);
        }
        Event::Effects { id, effects } if id == app.job_id => {
            (app.activity, app.tick) = (None, 0);
            app.heads.effects = app.run.as_ref().map(|run| (Arc::downgrade(run), effects));
        }
        Event::Layer { .. }
        | Event::Ran { .. }
        | Event::Step { .. }
        | Event::Summed { .. }
        | Event::Repeated { .. }
        | Event::Base { .. }
        | Event::Effects { .. }
        | Event::Second { .. }
        | Event::Swept { .. }
        | Event::Refused { .. }
        | Event::Cancelled { .. } => {}
        Event::Looked { run_id, seen } => {
            if run_id == app.run_id {
                app.seen.extend(seen);
                find_extremes(app);
            }
        }
        Event::Looking { id, steps } => {
            if id == app.look_id {
                app.looking = steps;
                if steps.is_none() && !app.is_busy() {
                    app.tick = 0;
                }
            }
        }
        Event::Exported(result) => {
            app.activity = None;
            match result {
                Ok(what) => app.note(what),
                Err(why) => app.complain(why),
            }
        }
    }
    Vec::new()
}

/// A run is there: it takes the place of the one before it.
fn ran(app: &mut App, id: u64, run: Arc<Run>, summary: Arc<Summary>, left: usize) {
    let followed = app.run.as_ref().is_some_and(|old| app.selection.position + 1 == old.n_tokens());
    let grew = app.run.as_ref().is_some_and(|old| run.tokens.starts_with(&old.tokens));
    let last = run.n_tokens() - 1;
    // At the end of the prompt the selection follows what is appended.
    let follow = followed && grew && matches!(run.input.prompt, Prompt::Ids(_));
    app.selection.position = if follow { last } else { app.selection.position.min(last) };
    app.selection.key = app.selection.key.min(last);
    app.input = run.input.clone();
    app.what_if.pair = None;
    if run.input.interventions.is_idle() {
        app.what_if.side = what_if::Side::default();
    }
    app.run_id += 1;
    app.run = Some(run);
    app.summary = Some(summary);
    let n_layer = app.model.as_ref().map_or(0, |model| model.config().n_layer);
    app.activity = (left > 0).then_some(Activity::Running { id, layer: 0, n_layer, left });
    if left == 0 {
        app.tick = 0;
    }
    keep_in_view(app);
}

/// The prompt was edited: run what it says now.
fn edited(app: &mut App) -> Vec<Request> {
    let Some(Overlay::Editor(editor)) = &app.overlay else { return Vec::new() };
    app.notice = None;
    match editor.prompt() {
        Ok(prompt) => {
            app.input.prompt = prompt;
            start_run(app)
        }
        Err(error) => {
            app.complain(error.to_string());
            Vec::new()
        }
    }
}

/// Opens prompt B, at first as a copy of A.
fn edit_second(app: &mut App) {
    let Some(model) = &app.model else { return };
    let ids = !model.tokenizer.is_some();
    let text = match app.compare.prompt.as_ref().unwrap_or(&app.input.prompt) {
        Prompt::Text(text) => text.clone(),
        Prompt::Ids(list) if ids => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Prompt::Ids(list) => model.tokenizer.decode(list),
    };
    app.overlay = Some(Overlay::Second(Box::new(Editor::new(&text, ids, app.theme))));
}

/// Prompt B was edited.
fn second_edited(app: &mut App) {
    let Some(Overlay::Second(editor)) = &app.overlay else { return };
    match editor.prompt() {
        Ok(prompt) => app.compare.prompt = Some(prompt),
        Err(error) => app.complain(error.to_string()),
    }
}

/// A token was named: the screen takes it, or the form says why not.
fn take_token(app: &mut App) {
    let Some(Overlay::Token(form)) = &app.overlay else { return };
    let asked = form.asked;
    if let Some(Ok(id)) = form.token(app) {
        app.overlay = None;
        match (asked, app.screen) {
            (Asked::Versus, Screen::Compare) => app.compare.versus = Some(id),
            (Asked::Token, Screen::Compare) => app.compare.token = Some(id),
            (Asked::Versus, _) => app.attribution.versus = Some(id),
            (Asked::Token, Screen::Lens) => app.lens.token = Some(id),
            (Asked::Token, Screen::Weights) => screens::weights::show_token(app, id),
            (Asked::Token, _) => app.attribution.token = Some(id),
        }
    }
}

/// Asks for a run of the input as it is now.
pub(super) fn start_run(app: &mut App) -> Vec<Request> {
    let Some(model) = &app.model else { return Vec::new() };
    app.job_id += 1;
    let id = app.job_id;
    if app.input.is_empty() {
        app.activity = None;
        if app.run.is_some() {
            app.complain("the prompt is empty: type something; the last run stays");
        }
        return vec![Request::Cancel(id)];
    }
    app.activity = Some(Activity::Running { id, layer: 0, n_layer: model.config().n_layer, left: 0 });
    let base = app.base_of(&app.input);
    vec![Request::Job(Job::Run { id, input: app.input.clone(), base })]
}

pub(super) fn generate(app: &mut App, n: usize) -> Vec<Request> {
    let (Some(run), Some(model)) = (app.made().cloned(), &app.model) else { return Vec::new() };
    app.job_id += 1;
    let id = app.job_id;
    app.selection.position = run.n_tokens() - 1;
    app.activity = Some(Activity::Running { id, layer: 0, n_layer: model.config().n_layer, left: n });
    vec![Request::Job(Job::Generate { id, from: run, n, sampling: app.sampling })]
}

fn choose(app: &mut App, choice: Choice) -> Vec<Request> {
    app.overlay = None;
    match choice {
        Choice::Run(command) if command.entry().works_on(app.screen) => run(app, command),
        Choice::Run(command) => {
            // A command of another screen takes one there.
            if let Some(&screen) = command.entry().screens.first() {
                app.screen = screen;
            }
            run(app, command)
        }
        Choice::Go(hook) if app.screen == Screen::Compare => {
            app.selection.hook = hook;
            app.selection.layer = hook.layer.unwrap_or(app.selection.layer);
            app.compare.sweep = None;
            Vec::new()
        }
        Choice::Go(hook) => {
            open_in_stages(app, hook);
            Vec::new()
        }
        Choice::Step(step) => {
            screens::walk::go_to(app, step);
            Vec::new()
        }
        Choice::Cell { hook, head, row, column } => {
            let s = &mut app.selection;
            (s.head, s.position) = (head, row);
            if hook.point().axes.last() == Some(&crate::hooks::Axis::Key) {
                s.key = column;
            } else {
                s.column = column;
            }
            app.focus = Focus::Map;
            open_in_stages(app, hook);
            Vec::new()
        }
    }
}

/// Turns the waiting panel into the list of what stands out, once that is known.
fn find_extremes(app: &mut App) {
    let (Some(Overlay::Finding), Some(run)) = (&app.overlay, &app.run) else { return };
    if let Some(Seen::Found(_, found)) = app.seen.get(&Slot::Found).map(|seen| &**seen) {
        app.overlay = Some(Overlay::Picker(Picker::extremes(found, run)));
    }
}

pub(super) fn open_in_stages(app: &mut App, hook: HookName) {
    app.screen = Screen::Stages;
    app.selection.hook = hook;
    if let Some(layer) = hook.layer {
        app.selection.layer = layer;
    }
    keep_in_view(app);
}

fn export(app: &mut App) -> Vec<Request> {
    let Some(Overlay::Export(form)) = app.overlay.take() else { return Vec::new() };
    let Some(run) = app.run.clone() else { return Vec::new() };
    let path = PathBuf::from(form.path.trim());
    app.activity = Some(Activity::Exporting(path.clone()));
    app.tick = 1;
    let hook = (!form.everything).then_some(form.hook);
    let chart = form.chart.filter(|_| !form.everything);
    let figure = figure::Options {
        palette: app.theme.palette,
        dark: !app.theme.light,
        range: app.range,
        pooling: app.pooling,
    };
    let (minus, head) = (form.minus, form.head);
    vec![Request::Export(Box::new(Export { run, minus, hook, head, chart, path, figure }))]
}

/// Carries a command out.
#[allow(clippy::too_many_lines)] // an arm for each
fn run(app: &mut App, command: Command) -> Vec<Request> {
    match command {
        Command::Quit => app.quit = Some(Ok(())),
        Command::Suspend => on_signal(app, Signal::Stop),
        Command::Help => app.overlay = Some(Overlay::Picker(Picker::help(app.screen))),
        Command::Palette => app.overlay = Some(Overlay::Picker(Picker::commands(app.screen))),
        Command::Find => {
            if let Some(run) = &app.run {
                app.overlay = Some(Overlay::Picker(Picker::hooks(run.config(), run.n_tokens())));
            }
        }
        Command::Edit => {
            if let Some(model) = &app.model {
                let ids = !model.tokenizer.is_some();
                let text = match &app.input.prompt {
                    Prompt::Text(text) => text.clone(),
                    Prompt::Ids(list) if ids => {
                        let words: Vec<_> = list.iter().map(ToString::to_string).collect();
                        words.join(", ")
                    }
                    Prompt::Ids(list) => model.tokenizer.decode(list),
                };
                app.overlay = Some(Overlay::Editor(Box::new(Editor::new(&text, ids, app.theme))));
            }
        }
        Command::FindExtremes => {
            if app.run.is_some() {
                // What is known may be of the run before.
                app.seen.remove(&Slot::Found);
                app.overlay = Some(Overlay::Finding);
            }
        }
        Command::Export => {
            if let Some(run) = &app.run {
                let (hook, head) = on_screen(app);
                let minus = what_if::base_shown(app);
                let form = match screens::chart(app, run) {
                    Some((name, chart)) => ExportForm::of_chart(&name, chart, hook, minus),
                    None => ExportForm::new(hook, head, minus),
                };
                app.overlay = Some(Overlay::Export(Box::new(form)));
            }
        }
        Command::Generate => return generate(app, 1),
        Command::GenerateMany => return generate(app, MANY),
        Command::ToggleBos => {
            app.input.bos = !app.input.bos;
            return start_run(app);
        }
        Command::Back => return back(app),
        Command::NextScreen => app.screen = app.screen.step(1),
        Command::PreviousScreen => app.screen = app.screen.step(-1),
        Command::Tokens => app.screen = Screen::Tokens,
        Command::Embedding => app.screen = Screen::Embedding,
        Command::Stages => app.screen = Screen::Stages,
        Command::Attention => app.screen = Screen::Attention,
        Command::Logits => app.screen = Screen::Logits,
        Command::Walk => app.screen = Screen::Walk,
        Command::Heads => app.screen = Screen::Heads,
        Command::Lens => app.screen = Screen::Lens,
        Command::Attribution => app.screen = Screen::Attribution,
        Command::Compare => app.screen = Screen::Compare,
        Command::Weights => app.screen = Screen::Weights,
        Command::Left => go(app, -1, 0),
        Command::Right => go(app, 1, 0),
        Command::Up => go(app, 0, -1),
        Command::Down => go(app, 0, 1),
        Command::PageUp => go(app, 0, -10),
        Command::PageDown => go(app, 0, 10),
        Command::First => go(app, -MOST, 0),
        Command::Last => go(app, MOST, 0),
        Command::PreviousToken => move_token(app, -1),
        Command::NextToken => move_token(app, 1),
        Command::PreviousLayer => move_layer(app, -1),
        Command::NextLayer => move_layer(app, 1),
        Command::PreviousHead => move_head(app, -1),
        Command::NextHead => move_head(app, 1),
        Command::Open => return open(app),
        Command::ZoomIn => zoom(app, 1),
        Command::ZoomOut => zoom(app, -1),
        Command::ZoomReset => (app.zoom, app.origin) = (0, (0, 0)),
        Command::Pooling => {
            app.pooling = if app.pooling == Pooling::Extreme { Pooling::Mean } else { Pooling::Extreme };
            app.note(format!("cells pool by {}", app.pooling.name()));
        }
        Command::Range => {
            app.range = match app.range {
                None => Some(RangeMode::ALL[0]),
                Some(mode) => RangeMode::ALL.iter().copied().skip_while(|m| *m != mode).nth(1),
            };
            let said = app.range.map_or("what suits each quantity", RangeMode::name);
            app.note(format!("colour range: {said}"));
        }
        Command::ChooseToken => app.overlay = Some(Overlay::Token(TokenForm::new(Asked::Token))),
        Command::FinalAnswer if app.screen == Screen::Lens => app.lens.token = None,
        Command::FinalAnswer => (app.attribution.token, app.attribution.versus) = (None, None),
        Command::Versus => app.overlay = Some(Overlay::Token(TokenForm::new(Asked::Versus))),
        Command::Parts => {
            app.attribution.token = candidate(app);
            app.screen = Screen::Attribution;
        }
        Command::Follow => screens::lens::follow(app, candidate(app)),
        Command::WeightsMode => screens::weights::next_mode(app),
        Command::AttentionStage => app.stage = next_of(&AttnStage::ALL, app.stage),
        Command::Jump => {
            if let Some(run) = &app.run {
                app.overlay = Some(Overlay::Picker(Picker::steps(run.config())));
            }
        }
        Command::Play => screens::walk::play(app),
        Command::Slower => screens::walk::pace(app, -1),
        Command::Faster => screens::walk::pace(app, 1),
        Command::Palettes => {
            app.theme.palette = next_of(&Palette::ALL, app.theme.palette);
            app.note(format!("colours: {}", app.theme.palette.name()));
        }
        Command::Background => app.theme = theme::Theme { light: !app.theme.light, ..app.theme },
        Command::NextNumber
        | Command::PreviousNumber
        | Command::RandomTokens
        | Command::ReseedRandom
        | Command::FilterHeads
        | Command::AblateHeads => match app.screen {
            Screen::Lens => screens::lens::command(app, command),
            _ => return screens::heads::command(app, command),
        },
        Command::PromptB => edit_second(app),
        Command::CompareMode => screens::compare::next_mode(app),
        Command::CompareShown => screens::compare::next_shown(app),
        Command::Patch => return screens::compare::patch(app),
        Command::Swap => return screens::compare::swap(app),
        Command::Zero
        | Command::Mean
        | Command::Scale
        | Command::Knockout
        | Command::Direction
        | Command::Changes
        | Command::ShownSide => return what_if::run(app, command),
        Command::Cooler => warm(app, -0.1),
        Command::Warmer => warm(app, 0.1),
        Command::FewerK => app.sampling.top_k = Some(step_k(app.sampling.top_k, false).unwrap_or(1)),
        Command::MoreK => app.sampling.top_k = step_k(app.sampling.top_k, true),
        Command::LessP => app.sampling.top_p = Some((app.sampling.top_p.unwrap_or(1.0) - 0.05).max(0.05)),
        Command::MoreP => {
            app.sampling.top_p = app.sampling.top_p.map(|p| p + 0.05).filter(|p| *p < 0.999);
        }
        Command::Reseed => app.sampling.seed += 1,
    }
    keep_in_view(app);
    Vec::new()
}

pub(super) fn next_of<T: Copy + PartialEq>(all: &[T], now: T) -> T {
    all.iter().copied().cycle().skip_while(|x| *x != now).nth(1).unwrap_or(now)
}

fn warm(app: &mut App, by: f64) {
    let tenths = ((app.sampling.temperature + by) * 10.0).round().clamp(0.0, 50.0);
    app.sampling.temperature = tenths / 10.0;
}

/// The next size of top-k: `None` stands for all.
fn step_k(k: Option<usize>, up: bool) -> Option<usize> {
    const STEPS: [usize; 10] = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500];
    match (k, up) {
        (None, true) => None,
        (None, false) => STEPS.last().copied(),
        (Some(k), true) => STEPS.iter().copied().find(|step| *step > k),
        (Some(k), false) => STEPS.iter().copied().rev().find(|step| *step < k),
    }
}

/// The tensor that the screen is about, and the head where there is one.
fn on_screen(app: &App) -> (HookName, Option<usize>) {
    let s = &app.selection;
    match app.screen {
        Screen::Tokens | Screen::Logits => (Site::Probs.once(), None),
        Screen::Walk => screens::walk::on_screen(app),
        Screen::Heads | Screen::Lens => (Site::Probs.once(), None),
        Screen::Attribution | Screen::Compare | Screen::Weights => (Site::Probs.once(), None),
        Screen::Embedding => (Site::ResidPre.at(0), None),
        Screen::Stages => (s.hook, app.stages_view().has_heads().then_some(s.head)),
        Screen::Attention if app.stage == AttnStage::Pattern => (Site::Pattern.at(s.layer), Some(s.head)),
        Screen::Attention => (Site::AttnScores.at(s.layer), Some(s.head)),
    }
}

/// Esc without an overlay: stop what is running, else leave the map.
fn back(app: &mut App) -> Vec<Request> {
    if let Some(Activity::Running { .. } | Activity::Working { .. }) = app.activity {
        app.job_id += 1;
        app.activity = None;
        app.tick = 0;
        screens::heads::give_up(app);
        app.note("cancelled; the last run stays");
        return vec![Request::Cancel(app.job_id)];
    }
    if let (Some(_), Some(run)) = (app.looking, app.run.clone()) {
        (app.asked, app.paused, app.tick) = (None, true, 0);
        app.note("stopped; the next key goes on");
        return vec![request(app, run, None, Vec::new())];
    }
    if screens::walk::back(app) {
        return Vec::new();
    }
    match app.screen {
        Screen::Attribution => app.attribution.neuron = None,
        Screen::Weights => screens::weights::back(app),
        _ => app.focus = Focus::Tree,
    }
    Vec::new()
}

fn open(app: &mut App) -> Vec<Request> {
    match app.screen {
        Screen::Tokens => app.screen = Screen::Embedding,
        Screen::Embedding | Screen::Attention => {
            let (hook, _) = on_screen(app);
            app.focus = Focus::Map;
            open_in_stages(app, hook);
        }
        Screen::Stages => app.focus = if app.focus == Focus::Tree { Focus::Map } else { Focus::Tree },
        Screen::Walk => return screens::walk::open(app),
        Screen::Heads => return screens::heads::open(app),
        Screen::Lens => return screens::lens::open(app),
        Screen::Attribution => return screens::attribution::open(app),
        Screen::Compare => return screens::compare::open(app),
        Screen::Weights => return screens::weights::open(app),
        Screen::Logits => {
            let chosen = candidate(app);
            let at_end = app.run.as_ref().is_some_and(|run| app.selection.position + 1 == run.n_tokens());
            if let (Some(id), Some(run)) = (chosen, app.made().cloned()) {
                if !at_end {
                    app.complain("a token can be appended only at the end: select the last token first");
                    return Vec::new();
                }
                app.input = run.input.followed_by(id, &run);
                app.selection.candidate = 0;
                return start_run(app);
            }
        }
    }
    Vec::new()
}

/// The token under the cursor of the Logits screen.
fn candidate(app: &App) -> Option<u32> {
    app.next()?.top.get(app.selection.candidate).map(|candidate| candidate.id)
}

/// More steps than anything has.
const MOST: isize = 1 << 40;

pub(super) fn moved(index: usize, by: isize, n: usize) -> usize {
    index.saturating_add_signed(by).min(n.saturating_sub(1))
}

/// Arrow keys: what they move depends on the screen.
fn go(app: &mut App, right: isize, down: isize) {
    let Some(run) = app.run.clone() else { return };
    let n = run.n_tokens();
    let s = &mut app.selection;
    match (app.screen, app.focus) {
        (Screen::Tokens, _) => s.position = moved(s.position, right.saturating_add(down), n),
        (Screen::Embedding, _) => {
            s.position = moved(s.position, right, n);
            s.column = moved(s.column.min(run.config().n_embd - 1), down, run.config().n_embd);
        }
        (Screen::Stages, Focus::Tree) => {
            s.position = moved(s.position, right, n);
            if down != 0 {
                let mut hooks = HookName::all(run.config());
                hooks.retain(|hook| !hook.point().on_request);
                let at = hooks.iter().position(|hook| *hook == s.hook).unwrap_or(0);
                s.hook = hooks[moved(at, down, hooks.len())];
                s.layer = s.hook.layer.unwrap_or(s.layer);
            }
        }
        (Screen::Stages, Focus::Map) => {
            let view = app.stages_view();
            let (_, column) = app.cell_in(view);
            let column = moved(column, right, view.dims(&run).1);
            let s = &mut app.selection;
            s.position = moved(s.position, down, n);
            match view.axes().1 {
                crate::hooks::Axis::Key => s.key = column,
                crate::hooks::Axis::One => {}
                _ => s.column = column,
            }
        }
        (Screen::Attention, _) => {
            s.position = moved(s.position, down, n);
            s.key = moved(s.key, right, n);
        }
        (Screen::Logits, _) => {
            s.position = moved(s.position, right, n);
            let room = Frame::new(app.size).map_or(1, |frame| screens::candidates(frame.body));
            s.candidate = moved(s.candidate, down, room.min(run.config().vocab_size));
        }
        (Screen::Walk, _) => screens::walk::go(app, &run, right, down),
        (Screen::Heads, _) => screens::heads::go(app, &run, right, down),
        (Screen::Lens, _) => screens::lens::go(app, &run, right, down),
        (Screen::Attribution, _) => screens::attribution::go(app, &run, right, down),
        (Screen::Compare, _) => screens::compare::go(app, &run, right, down),
        (Screen::Weights, _) => screens::weights::go(app, &run, right, down),
    }
}

fn move_token(app: &mut App, by: isize) {
    if let Some(run) = &app.run {
        app.selection.position = moved(app.selection.position, by, run.n_tokens());
    }
}

pub(super) fn move_layer(app: &mut App, by: isize) {
    let Some(run) = app.run.clone() else { return };
    if app.screen == Screen::Walk {
        return screens::walk::move_layer(app, run.config(), by);
    }
    let s = &mut app.selection;
    s.layer = moved(s.layer, by, run.config().n_layer);
    if s.hook.layer.is_some() {
        s.hook = s.hook.site.at(s.layer);
    }
}

pub(super) fn move_head(app: &mut App, by: isize) {
    if let Some(run) = &app.run {
        app.selection.head = moved(app.selection.head, by, run.config().n_head);
    }
}

fn zoom(app: &mut App, by: i8) {
    let Some(run) = app.run.clone() else { return };
    let Some(before) = screens::stages_plot(app, &run) else { return };
    let view = app.stages_view();
    let deepest = Plot::deepest(before.area, view.dims(&run));
    app.zoom = app.zoom.min(deepest).saturating_add_signed(by).min(deepest);
    // The selection goes to the middle of the new window.
    if let Some(plot) = screens::stages_plot(app, &run) {
        let (row, column) = app.cell_in(view);
        let middle = |at: usize, len: usize| at.saturating_sub(len / 2);
        app.origin = (middle(row, plot.window.rows.len()), middle(column, plot.window.columns.len()));
    }
}

/// Moves the window of the Stages map so that the selection is in it, and no further than the edge.
fn keep_in_view(app: &mut App) {
    if app.screen != Screen::Stages {
        return;
    }
    let Some(run) = app.run.clone() else { return };
    let Some(plot) = screens::stages_plot(app, &run) else { return };
    let view = app.stages_view();
    let (n_rows, n_columns) = view.dims(&run);
    let (row, column) = app.cell_in(view);
    let (row, column) = (row.min(n_rows.saturating_sub(1)), column.min(n_columns.saturating_sub(1)));
    let shift = |at: usize, window: &std::ops::Range<usize>| {
        if at < window.start {
            at
        } else if at >= window.end {
            at + 1 - window.len().min(at + 1)
        } else {
            window.start
        }
    };
    app.origin = (shift(row, &plot.window.rows), shift(column, &plot.window.columns));
}
