//! The only place that changes the state: events in, requests to the engine out.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{
    Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;

use super::actions::moved;
use super::app::{Activity, App, Focus};
use super::atlas;
use super::command::Command;
use super::gradient;
use super::keymap::Key;
use super::layout::Frame;
use super::overlays::{Choice, Clicked, ExamplesAsked, Overlay, Picker};
use super::places::{self, Place};
use super::screens::{self, compare, walk};
use super::{draw, overlays};
use crate::engine::{Event, Look, Request, Seen, Slot};
use crate::error::Error;
use crate::export::figure;
use crate::hooks::Axis;
use crate::signals::Signal;

/// The longest time between the clicks of a double click.
const DOUBLE: Duration = Duration::from_millis(400);

/// An event.
#[derive(Debug)]
pub enum Message {
    Terminal(TerminalEvent),
    Engine(Event),
    /// Time has passed while something is running.
    Tick,
    /// A signal arrived.
    Signal(Signal),
}

/// Changes the state; returns requests to the engine.
pub fn update(app: &mut App, message: Message) -> Vec<Request> {
    let here = Place::of(app);
    let mut requests = match message {
        Message::Terminal(event) => on_terminal(app, event),
        Message::Engine(event) => on_engine(app, event),
        Message::Tick => {
            app.tick += 1;
            walk::tick(app);
            Vec::new()
        }
        Message::Signal(signal) => {
            app.signalled(signal);
            Vec::new()
        }
    };
    app.places.follow(here, Place::of(app));
    walk::forget(app);
    if let Some(graphics) = &mut app.theme.graphics {
        graphics.covered = app.overlay.is_some();
    }
    requests.extend(app.screen.scene().refresh(app));
    requests.extend(look(app));
    requests
}

/// Requests what the screen shows and does not have yet.
fn look(app: &mut App) -> Option<Request> {
    if app.paused {
        return None;
    }
    let scene = app.screen.scene();
    let run = scene.shown(app)?;
    let base = scene.base(app);
    let looks = screens::wanted(app);
    let asked = (app.shown_id, looks);
    if app.asked.as_ref() == Some(&asked) {
        return None;
    }
    let fresh = app.asked.as_ref().is_some_and(|(shown_id, _)| *shown_id == app.shown_id);
    let known = |slot: &Slot, look: &Look| {
        app.seen.get(slot).is_some_and(|seen| seen.look() == look && seen.is_whole())
    };
    let missing = |(slot, look): &&(Slot, Look)| !fresh || !known(slot, look);
    let looks = asked.1.iter().filter(missing).cloned().collect();
    app.asked = Some(asked);
    // An empty request counts too: it ends the one before.
    Some(app.look(run, base, looks))
}

fn on_terminal(app: &mut App, event: TerminalEvent) -> Vec<Request> {
    match event {
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => on_key(app, key),
        TerminalEvent::Paste(text) => on_paste(app, &text),
        TerminalEvent::Mouse(mouse) => on_mouse(app, mouse),
        TerminalEvent::Resize(width, height) => {
            app.size = (width, height);
            app.screen.scene().settle(app);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn on_key(app: &mut App, event: KeyEvent) -> Vec<Request> {
    let key = Key::from(event);
    let escape = Key::parse("esc") == Some(key);
    // In an editor, this is undo.
    let undo = matches!(app.overlay, Some(Overlay::Editor(_) | Overlay::Second(_)));
    if key.ctrl {
        match app.keymap.command(key, app.screen) {
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
                compare::edited(app);
            }
            Vec::new()
        }
        Some(Overlay::Token(form)) => {
            if form.key(event) {
                take_token(app);
            }
            Vec::new()
        }
        Some(Overlay::Metric(form)) => {
            if form.key(event) {
                gradient::take(app);
            }
            Vec::new()
        }
        Some(Overlay::Edges(shown)) => {
            shown.key(event);
            Vec::new()
        }
        Some(Overlay::Finding) => Vec::new(),
        Some(Overlay::About(panel)) => {
            panel.key(event);
            Vec::new()
        }
        Some(Overlay::Examples(_)) => examples_key(app, event),
        Some(Overlay::Export(form)) => {
            if form.key(event) {
                export(app)
            } else {
                Vec::new()
            }
        }
        Some(Overlay::Keys | Overlay::Welcome) => {
            app.overlay = None;
            pressed(app, key)
        }
        None => pressed(app, key),
    }
}

/// A key while examples are shown.
fn examples_key(app: &mut App, event: KeyEvent) -> Vec<Request> {
    let Some(Overlay::Examples(shown)) = &mut app.overlay else { return Vec::new() };
    let group = app.atlas.group(shown.tensor).cloned();
    let (hook, unit) = (shown.tensor, shown.unit);
    match shown.key(event, group.as_deref()) {
        ExamplesAsked::Nothing => Vec::new(),
        ExamplesAsked::Take(at) => atlas::take(app, hook, unit, at),
        ExamplesAsked::Search => {
            atlas::search(app, hook);
            Vec::new()
        }
        ExamplesAsked::Step(by) => {
            let n = group.map_or(1, |group| group.group.n);
            atlas::open(app, hook, moved(unit, by, n))
        }
    }
}

/// A key without an overlay.
fn pressed(app: &mut App, key: Key) -> Vec<Request> {
    app.notice = None;
    app.paused = false;
    if let Some(command) = app.keymap.command(key, app.screen) {
        return run(app, command);
    }
    if let Some(why) = app.keymap.elsewhere(key, app.screen) {
        app.note(why);
    }
    Vec::new()
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
        Some(Overlay::Metric(form)) => form.paste(text),
        Some(Overlay::Changes(list)) => list.paste(text),
        Some(Overlay::Second(editor)) => {
            if editor.paste(text) {
                compare::edited(app);
            }
        }
        Some(
            Overlay::Finding
            | Overlay::Edges(_)
            | Overlay::About(_)
            | Overlay::Examples(_)
            | Overlay::Keys
            | Overlay::Welcome,
        )
        | None => {}
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
    let pressed = matches!(mouse.kind, MouseEventKind::Down(_));
    let again =
        app.clicked.is_some_and(|(at_x, at_y, then)| (at_x, at_y) == (x, y) && then.elapsed() < DOUBLE);
    if pressed {
        app.clicked = Some((x, y, Instant::now())).filter(|_| !again);
    }
    if app.overlay.is_some() {
        return if wheel != 0 {
            scroll_overlay(app, wheel)
        } else if pressed {
            click_overlay(app, (x, y).into(), again)
        } else {
            Vec::new()
        };
    }
    let (Some(frame), Some(shown)) = (Frame::new(app.size), app.run.clone()) else { return Vec::new() };
    let scene = app.screen.scene();
    if wheel != 0 {
        if scene.scroll(app, &shown, frame.body, (x, y), wheel < 0) {
            return Vec::new();
        }
        let (before, after) = if y == frame.strip.y {
            (Command::PreviousToken, Command::NextToken)
        } else {
            (Command::Up, Command::Down)
        };
        return run(app, if wheel < 0 { before } else { after });
    }
    if pressed && let Some(command) = draw::hint_at(app, &frame, x, y) {
        app.notice = None;
        return run(app, command);
    }
    if pressed && again && frame.body.contains((x, y).into()) {
        app.notice = None;
        return run(app, Command::Open);
    }
    if let Some(screen) = draw::tab_at(&frame, app.screen, x, y) {
        app.screen = screen;
    } else if let Some(hook) = draw::flow_at(app, frame.top_rule, x, y).filter(|_| pressed) {
        app.select_hook(hook);
    } else if y == frame.strip.y
        && let Some(position) = draw::strip(app, frame.strip).hit(x)
    {
        app.selection.position = position;
    } else {
        scene.click(app, &shown, frame.body, x, y);
    }
    app.notice = None;
    app.screen.scene().settle(app);
    Vec::new()
}

fn click_overlay(app: &mut App, at: Position, again: bool) -> Vec<Request> {
    match overlays::click(app, at, again) {
        Clicked::Key(key) => return on_key(app, key.into()),
        Clicked::Choice(choice) => return choose(app, choice),
        Clicked::Command(command) => {
            app.overlay = None;
            return run(app, command);
        }
        Clicked::Close => app.overlay = None,
        Clicked::Nothing => {}
    }
    Vec::new()
}

/// The wheel goes through what an overlay lists.
fn scroll_overlay(app: &mut App, wheel: isize) -> Vec<Request> {
    let code = if wheel < 0 { KeyCode::Up } else { KeyCode::Down };
    match &mut app.overlay {
        Some(Overlay::About(panel)) => panel.scroll(3 * wheel),
        Some(Overlay::Picker(_) | Overlay::Changes(_)) => return on_key(app, code.into()),
        _ => {}
    }
    Vec::new()
}

fn on_engine(app: &mut App, event: Event) -> Vec<Request> {
    match event {
        Event::Loading(progress) => app.activity = Some(Activity::Loading(progress)),
        Event::Loaded(model) => {
            let notes = model.provenance.notes.join("; ");
            app.atlas.settle(&model);
            app.model = Some(model);
            app.activity = None;
            let requests = app.start_run();
            if !notes.is_empty() {
                let before = app.notice.take().map_or_else(String::new, |notice| notice.text + "; ");
                app.note(format!("{before}note: {notes}"));
            }
            return requests;
        }
        Event::LoadFailed(error) => app.quit = Some(Err(error)),
        Event::Crashed => app.quit = Some(Err(Error::Crashed)),
        Event::Hashed => atlas::check(app),
        // Reports on older jobs are too late.
        Event::Job { id, said } if id == app.job_id => app.hear(said),
        Event::Job { .. } => {}
        Event::Listed(Ok(list)) => {
            app.input.interventions = list;
            return app.start_run();
        }
        Event::Listed(Err(why)) => app.complain(why),
        Event::Examples { tensor, found } => atlas::arrived(app, tensor, found),
        Event::Looked { shown_id, seen } => {
            if shown_id == app.shown_id {
                app.seen.extend(seen);
                find_extremes(app);
            }
        }
        Event::Looking { id, steps } => {
            if id == app.look_id {
                app.looking = steps;
                if steps.is_none() {
                    app.waits = false;
                    if !app.is_busy() {
                        app.tick = 0;
                    }
                }
            }
        }
        Event::Exported(result) => {
            app.activity = None;
            match (result, &mut app.overlay) {
                (Err(why), Some(Overlay::Export(form))) if form.is_writing() => form.fail(why),
                (Err(why), _) => app.complain(why),
                (Ok(what), overlay) => {
                    if matches!(overlay, Some(Overlay::Export(form)) if form.is_writing()) {
                        app.overlay = None;
                    }
                    app.note(what);
                }
            }
        }
    }
    Vec::new()
}

/// The prompt was edited: run it.
fn edited(app: &mut App) -> Vec<Request> {
    let Some(Overlay::Editor(editor)) = &app.overlay else { return Vec::new() };
    app.notice = None;
    match editor.prompt() {
        Ok(prompt) => {
            app.input.prompt = prompt;
            app.start_run()
        }
        Err(error) => {
            app.complain(error.to_string());
            Vec::new()
        }
    }
}

/// A token was typed: the screen takes it, or the form says why not.
fn take_token(app: &mut App) {
    let Some(Overlay::Token(form)) = &app.overlay else { return };
    let asked = form.asked;
    if let Some(Ok(id)) = form.token(app) {
        app.overlay = None;
        app.screen.scene().take_token(app, asked, Some(id));
    }
}

fn choose(app: &mut App, choice: Choice) -> Vec<Request> {
    app.overlay = None;
    match choice {
        Choice::Run(command) => {
            // A command of other screens switches to the first of them.
            let entry = command.entry();
            if !entry.works_on(app.screen) {
                app.screen = entry.screens().next().unwrap_or(app.screen);
            }
            run(app, command)
        }
        Choice::Go(goal) => {
            places::go_to(app, goal);
            app.screen.scene().settle(app);
            Vec::new()
        }
        Choice::Unit(hook, unit) => atlas::open(app, hook, unit),
        Choice::Take(input) => {
            app.selection.position = app.run.as_ref().map_or(0, |run| run.n_tokens() - 1);
            app.input = *input;
            app.start_run()
        }
        Choice::Copy(what, text) => {
            app.copied = Some((what, text));
            Vec::new()
        }
        Choice::Find(name) => {
            app.places.left(Place::of(app));
            app.screen.scene().find(app, name);
            Vec::new()
        }
        Choice::Step(step) => {
            walk::go_to(app, step);
            Vec::new()
        }
        Choice::Cell { name, head, row, column } => {
            let s = &mut app.selection;
            (s.head, s.position) = (head, row);
            if name.axes().last() == Some(&Axis::Key) {
                s.key = column;
            } else {
                s.column = column;
            }
            app.focus = Focus::Map;
            app.open_in_stages(name);
            Vec::new()
        }
    }
}

/// Turns the waiting panel into the list of extremes, once they are known.
fn find_extremes(app: &mut App) {
    let (Some(Overlay::Finding), Some(run)) = (&app.overlay, &app.run) else { return };
    if let Some(Seen::Found(_, found)) = app.seen.get(&Slot::Found).map(|seen| &**seen) {
        app.overlay = Some(Overlay::Picker(Picker::extremes(found, run)));
    }
}

/// Starts the export of the form.
fn export(app: &mut App) -> Vec<Request> {
    let figure = figure::Options {
        palette: app.theme.palette,
        dark: !app.theme.light,
        range: app.range,
        pooling: app.pooling,
    };
    let shown_as = (app.screen.scene().shown_as(app), app.gradient.metric.clone());
    let Some(Overlay::Export(form)) = &mut app.overlay else { return Vec::new() };
    let export = form.export(figure, shown_as);
    app.tick = 1;
    app.activity = Some(Activity::Exporting(export.path.clone()));
    vec![Request::Export(Box::new(export))]
}

/// Runs a command.
fn run(app: &mut App, command: Command) -> Vec<Request> {
    let requests = (command.entry().run)(app);
    app.screen.scene().settle(app);
    requests
}
