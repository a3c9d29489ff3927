//! The frame around every screen. Only reads the state.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::app::{Activity, App, Screen};
use super::command::{COMMANDS, Command, Entry};
use super::layout::{Frame, SMALLEST};
use super::overlays;
use super::text::{self, bytes, count, fit, milliseconds, put, put_line, put_right, wrap, wrap_to};
use super::what_if;
use super::widgets::bar::level;
use super::widgets::token_strip::{self, Strip};
use crate::analysis::lens;
use crate::engine::{Seen, Slot};
use crate::hooks::HookName;
use crate::model::{Model, Progress};
use crate::run::Run;

/// Draws everything.
pub fn draw(app: &App, buffer: &mut Buffer) {
    let area = buffer.area;
    match Frame::new((area.width, area.height)) {
        None => draw_too_small(app, area, buffer),
        Some(frame) => {
            buffer.set_style(area, app.theme.page());
            draw_title(app, frame.title, buffer);
            draw_tabs(app, frame.tabs, buffer);
            draw_strip(app, frame.strip, buffer);
            for rule in [frame.top_rule, frame.bottom_rule] {
                put(buffer, rule.x, rule.y, rule.width, &"─".repeat(rule.width.into()), app.theme.faint());
            }
            draw_flow(app, frame.top_rule, buffer);
            if let Some(said) = what_if::summary(app) {
                let rule = frame.top_rule;
                let width = rule.width.saturating_sub(2);
                put(buffer, rule.x + 1, rule.y, width, &format!(" {said} "), app.theme.accent());
            }
            match &app.run {
                Some(run) => {
                    draw_body(app, run, frame.body, buffer);
                    draw_inspector(app, frame.inspector, app.screen.scene().inspect(app, run), buffer);
                }
                None => draw_waiting(app, frame.body, buffer),
            }
            draw_keys(app, frame.keys, buffer);
            overlays::draw(app, area, buffer);
        }
    }
    app.theme.degrade(buffer);
}

/// The screen, or why there is nothing to see.
fn draw_body(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let scene = app.screen.scene();
    scene.draw(app, run, area, buffer);
    if !run.model.is_absent() {
        return;
    }
    let seen = scene
        .wanted(app, run, area)
        .into_iter()
        .find_map(|(slot, look)| app.seen.get(&slot).filter(|seen| *seen.look() == look).cloned());
    if let Some(Seen::Nothing(_, why)) = seen.as_deref() {
        buffer.set_style(area, Style::reset());
        for y in area.top()..area.bottom() {
            put(buffer, area.x, y, area.width, &" ".repeat(area.width.into()), app.theme.page());
        }
        for (line, y) in wrap(why, area.width.min(90).into()).iter().zip(area.y + 1..area.bottom()) {
            put(buffer, area.x, y, area.width, line, app.theme.strong());
        }
    }
}

fn draw_too_small(app: &App, area: Rect, buffer: &mut Buffer) {
    let sentence =
        format!("actscope needs {}×{}; this is {}×{}", SMALLEST.0, SMALLEST.1, area.width, area.height);
    for (line, y) in wrap(&sentence, area.width.into()).iter().zip(area.top()..area.bottom()) {
        put(buffer, area.x, y, area.width, line, app.theme.text());
    }
}

fn draw_title(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let mut left = vec![Span::styled("actscope", theme.accent()), Span::raw("  ")];
    match &app.model {
        Some(model) => left.extend(model_words(model, app)),
        None => left.push(Span::styled(app.asked_model.clone(), theme.strong())),
    }
    let left_width: usize = left.iter().map(Span::width).sum();
    let room = usize::from(area.width).saturating_sub(left_width + 2);
    let right = Line::from(right_words(app, room));
    let right_width = (right.width() as u16).min(area.width);
    let room = area.width.saturating_sub(right_width + 2);
    put_line(buffer, Rect { width: room, ..area }, &left);
    put_right(buffer, area, &right);
}

fn model_words<'a>(model: &Model, app: &App) -> Vec<Span<'a>> {
    let theme = app.theme;
    let c = model.config();
    let p = &model.provenance;
    let mut words = format!(
        " · {} · {} · C {} · V {} · {} · {}",
        count(c.n_layer, "layer"),
        count(c.n_head, "head"),
        c.n_embd,
        c.vocab_size,
        p.number_format().replace(' ', ""),
        p.device
    );
    if let Some(hash) = p.known_sha256() {
        words.push_str(&format!(" · sha256 {}", &hash[..8]));
    }
    vec![Span::styled(p.name(), theme.strong()), Span::styled(words, theme.dim())]
}

/// What was computed at what cost, or what is running; how much of it is kept, only if
/// there is room.
fn right_words<'a>(app: &App, room: usize) -> Vec<Span<'a>> {
    const SPINNER: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠿"];
    let theme = app.theme;
    let spin = SPINNER[app.tick % SPINNER.len()];
    let busy = |what: String| {
        vec![Span::styled(format!("{spin} {what}"), theme.focus()), Span::styled("  Esc cancel", theme.dim())]
    };
    match &app.activity {
        Some(Activity::Loading(_)) => return vec![Span::styled(format!("{spin} loading"), theme.focus())],
        // A run that finishes before one could read the message is not announced.
        Some(Activity::Running { layer, n_layer, left, .. }) if app.tick > 0 => {
            let more = if *left > 0 { format!(", {} to go", count(*left, "token")) } else { String::new() };
            return busy(format!("block {layer} of {n_layer}{more}"));
        }
        Some(Activity::Working(steps)) => return busy(steps.to_string()),
        Some(Activity::Exporting(path)) => {
            return vec![Span::styled(format!("{spin} writing {}", text::path(path)), theme.focus())];
        }
        _ => {}
    }
    if let Some(steps) = app.looking.filter(|_| app.tick > 0) {
        return busy(steps.to_string());
    }
    if app.waits && app.tick > 0 {
        return busy("computing".into());
    }
    let Some(run) = &app.run else { return Vec::new() };
    let tokens = count(run.n_tokens(), "token");
    let bos = if run.input.has_bos(&run.model) { "BOS" } else { "no BOS" };
    let ms = milliseconds(run.took.as_secs_f64() * 1e3);
    let (all, kept) = run.bytes();
    let what = format!("{tokens} · {bos} · {ms} · ");
    let whole = format!("{what}{}, {} kept", bytes(all), bytes(kept));
    let changed = what_if::title(app);
    let taken = changed.as_ref().map_or(0, |changed| changed.width() + 3);
    // What it cost matters less than what it is.
    let choices = [whole, format!("{what}{}", bytes(all)), format!("{tokens} · {bos} · {ms}")];
    let [.., least] = choices.clone();
    let words = choices.into_iter().find(|words| words.width() + taken <= room).unwrap_or(least);
    let mut spans = Vec::new();
    if let Some(changed) = changed {
        let room = usize::from(app.size.0).saturating_sub(words.width() + 16);
        spans.push(Span::styled(fit(&changed, room), theme.accent()));
        spans.push(Span::styled(" · ", theme.dim()));
    }
    spans.push(Span::styled(words, theme.text()));
    spans
}

/// A screen's tab: its key and, if there is room, its name.
struct Tab {
    screen: Screen,
    x: u16,
    width: u16,
    name: &'static str,
}

/// The tabs, with names as long as all of them fit, if need be closer together; if not even the short ones do, only
/// those nearest to the current screen have one.
fn tabs(area: Rect, current: Screen) -> Vec<Tab> {
    const KEY: u16 = 3;
    let all = Screen::ALL;
    // What marks the current one needs a column of its own.
    let width = |name: &str, screen: Screen, gap: u16| {
        let gap = if screen == current { 1 } else { gap };
        KEY + if name.is_empty() { 0 } else { name.width() as u16 + gap }
    };
    let short_but_one = |screen: Screen| if screen == current { screen.name() } else { screen.short() };
    let choices: [(&dyn Fn(Screen) -> &'static str, u16); 4] =
        [(&Screen::name, 1), (&short_but_one, 1), (&Screen::short, 1), (&Screen::short, 0)];
    let fits = |(name, gap): &(&dyn Fn(Screen) -> &'static str, u16)| {
        all.map(|screen| width(name(screen), screen, *gap)).iter().sum::<u16>() <= area.width
    };
    let (names, gap) = choices.into_iter().find(fits).map_or_else(
        || {
            let mut names = [""; Screen::ALL.len()];
            let mut left = area.width.saturating_sub(KEY * all.len() as u16);
            let mut nearest: Vec<_> = (0..all.len()).collect();
            nearest.sort_by_key(|&i| i.abs_diff(current as usize));
            for i in nearest {
                let name = all[i].short();
                let Some(rest) = left.checked_sub(name.width() as u16 + 1) else { break };
                (names[i], left) = (name, rest);
            }
            (names, 1)
        },
        |(name, gap)| (all.map(name), gap),
    );
    let mut x = area.x;
    let place = |(screen, name): (Screen, &'static str)| {
        let width = width(name, screen, gap);
        x += width;
        Tab { screen, x: x - width, width, name }
    };
    all.into_iter().zip(names).map(place).collect()
}

/// The screen whose tab is at a position.
pub fn tab_at(frame: &Frame, current: Screen, x: u16, y: u16) -> Option<Screen> {
    let tabs = tabs(frame.tabs, current);
    let found = tabs.into_iter().find(|tab| (tab.x..tab.x + tab.width).contains(&x));
    found.filter(|_| y == frame.tabs.y).map(|tab| tab.screen)
}

fn draw_tabs(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let tabs = tabs(area, app.screen);
    for tab in &tabs {
        let key = app.keymap.first(tab.screen.command());
        let name = if tab.name.is_empty() { key } else { format!("{key} {}", tab.name) };
        let (text, style) = if tab.screen == app.screen {
            (format!("▸{name}◂"), theme.accent())
        } else {
            (format!(" {name}"), theme.dim())
        };
        put(buffer, tab.x, area.y, tab.width, &text, style);
    }
    if let Some(run) = &app.run {
        let position = app.selection.position;
        let words = format!("token {} of {} · id {}", position + 1, run.n_tokens(), run.tokens[position]);
        let used = tabs.last().map_or(area.x, |tab| tab.x + tab.width + 2);
        let rest = Rect { x: used, width: area.right().saturating_sub(used), ..area };
        put_right(buffer, rest, &Line::from(Span::styled(words, theme.dim())));
    }
}

/// The token strip of a run.
pub fn strip(app: &App, area: Rect) -> Strip {
    let Some(run) = &app.run else { return Strip::default() };
    let widths: Vec<_> = run.token_texts().iter().map(|text| token_strip::width(text)).collect();
    Strip::new(area, &widths, app.selection.position)
}

fn draw_strip(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some(run) = &app.run else { return };
    let strip = strip(app, area);
    let shade = |position| app.screen.scene().token_shade(app, position);
    let texts = run.token_texts();
    let text = |position: usize| texts.get(position).cloned().unwrap_or_default();
    token_strip::draw(
        buffer,
        area,
        &strip,
        &text,
        &shade,
        (app.selection.position, run.n_tokens()),
        app.theme,
    );
}

/// The data-flow strip: the shown residual streams, by their index in [`lens::hooks`], and where it is.
struct Flow<'a> {
    norms: &'a [f32],
    shown: Vec<usize>,
    area: Rect,
}

const BEFORE_FLOW: &str = " ‖resid‖ embed ";
const AFTER_FLOW: &str = " logits ";

/// `None` without room for it.
fn flow(app: &App, rule: Rect) -> Option<Flow<'_>> {
    let run = app.run.as_ref()?;
    let Seen::Flow(_, norms) = &**app.seen.get(&Slot::Flow)? else { return None };
    let n = lens::hooks(run.config()).len();
    let taken = what_if::summary(app).map_or(0, |said| said.width() as u16 + 5);
    let words = (BEFORE_FLOW.width() + AFTER_FLOW.width()) as u16;
    let room = rule.width.saturating_sub(taken + words + 4);
    // Where there is no room for both halves of each block, only their ends.
    let step = if n <= room.into() { 1 } else { 2 };
    let shown: Vec<_> = (0..n).step_by(step).collect();
    let width = words + shown.len() as u16;
    let fits = shown.len() <= room.into() && norms.len() == n;
    let area = Rect { x: rule.right().saturating_sub(width + 2), width, height: 1, ..rule };
    fits.then_some(Flow { norms, shown, area })
}

/// The norm of the residual stream at the selected token, from the embedding to the logits, with the place that one
/// looks at.
fn draw_flow(app: &App, rule: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let (Some(run), Some(Flow { norms, shown, area })) = (&app.run, flow(app, rule)) else { return };
    let here = app.screen.scene().place_in_flow(app);
    let hooks = lens::hooks(run.config());
    let here = hooks.iter().position(|&hook| hook >= here);
    let marked = here.and_then(|here| shown.iter().copied().find(|&at| at >= here));
    let most = norms.iter().copied().fold(0.0, f32::max);
    let ink = |on: bool| if on { theme.accent() } else { theme.dim() };
    let (norm, embed) = BEFORE_FLOW.split_at(BEFORE_FLOW.len() - "embed ".len());
    let mut spans = vec![Span::styled(norm, theme.dim()), Span::styled(embed, ink(here == Some(0)))];
    spans.extend(shown.iter().map(|&at| Span::styled(level(norms[at], most), ink(marked == Some(at)))));
    spans.push(Span::styled(AFTER_FLOW, ink(here.is_none())));
    put_line(buffer, area, &spans);
}

/// The residual stream at a position of the strip.
pub fn flow_at(app: &App, rule: Rect, x: u16, y: u16) -> Option<HookName> {
    let Flow { shown, area, .. } = flow(app, rule).filter(|_| y == rule.y)?;
    let at = x.checked_sub(area.x + BEFORE_FLOW.width() as u16)?;
    let hooks = lens::hooks(app.run.as_ref()?.config());
    Some(hooks[*shown.get(usize::from(at))?])
}

fn draw_inspector(app: &App, area: Rect, mut lines: Vec<Vec<Span>>, buffer: &mut Buffer) {
    if let Some(notice) = &app.notice {
        let style = if notice.bad { app.theme.bad() } else { app.theme.good() };
        let said = wrap_to(&notice.text, area.width.into(), area.height.into());
        let room = usize::from(area.height).saturating_sub(said.len());
        lines.truncate(room);
        lines.resize_with(room, Vec::new);
        lines.extend(said.into_iter().map(|line| vec![Span::styled(line, style)]));
    }
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        put_line(buffer, Rect { y, height: 1, ..area }, line);
    }
}

/// Before the first run: what is loading, or what to do.
fn draw_waiting(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let line = |y: u16| Rect { y: area.y + y, height: 1.min(area.height.saturating_sub(y)), ..area };
    match &app.activity {
        Some(Activity::Loading(Progress::Download { file, done, total, rate })) => {
            let speed = rate.map_or_else(String::new, |rate| format!(", {}/s", bytes(rate as u64)));
            let of = total.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
            put_line(buffer, line(1), &[Span::styled(format!("downloading {file}"), theme.strong())]);
            put_line(buffer, line(2), &[Span::styled(format!("{}{of}{speed}", bytes(*done)), theme.text())]);
            if let Some(total) = total.filter(|total| *total > 0) {
                let width = usize::from(area.width.min(60));
                let bar = super::widgets::bar::bar(*done as f32 / total as f32, width);
                put_line(buffer, line(3), &[Span::styled(bar, theme.focus())]);
            }
            put_line(
                buffer,
                line(5),
                &[Span::styled("q quits; complete files stay in the cache", theme.dim())],
            );
        }
        Some(Activity::Loading(Progress::Reading)) => {
            put_line(
                buffer,
                line(1),
                &[Span::styled(format!("loading {}", app.asked_model), theme.strong())],
            );
        }
        Some(_) => {
            put_line(buffer, line(1), &[Span::styled("the first run is in progress", theme.strong())]);
        }
        None => {
            let (what, then) = if app.input.is_empty() {
                ("nothing to run: the prompt is empty", "press e to type one")
            } else {
                ("nothing to show: the prompt could not be run", "press e to change it")
            };
            put_line(buffer, line(1), &[Span::styled(what, theme.strong())]);
            put_line(buffer, line(2), &[Span::styled(then, theme.text())]);
            if let Some(notice) = &app.notice {
                let style = if notice.bad { theme.bad() } else { theme.good() };
                put_line(buffer, line(4), &[Span::styled(notice.text.clone(), style)]);
            }
        }
    }
}

/// A key of the bottom line with its word, and the command that a click on it runs.
struct Hint {
    x: u16,
    keys: String,
    word: &'static str,
    command: Option<Command>,
}

/// The keys that matter here: help, the arrows, this screen's keys, the general ones; `quit` at the right. If not all
/// fit, the help is last but one, with a mark: it lists the others.
fn hints(app: &App, area: Rect) -> Vec<Hint> {
    let (own, general): (Vec<_>, Vec<_>) = COMMANDS
        .iter()
        .filter(|entry| !entry.hint.is_empty() && entry.works_on(app.screen))
        .partition(|entry| !entry.everywhere);
    let (help, rest) = general.split_first().expect("help comes first in the table");
    let (quit, rest) = rest.split_last().expect("the table ends its general part with quit");
    let of = |entry: &&Entry| (app.keymap.first(entry.command), entry.hint, Some(entry.command));
    let arrows = app
        .screen
        .scene()
        .arrows(app)
        .iter()
        .map(|&(keys, hint)| (keys.to_owned(), hint, Some(Command::Open).filter(|_| keys == "Enter")));
    let mut words: Vec<(String, &str, Option<Command>)> = Vec::new();
    for (key, hint, command) in
        [of(help)].into_iter().chain(arrows).chain(own.iter().map(of)).chain(rest.iter().map(of))
    {
        match words.last_mut() {
            // Keys for two directions of the same thing are shown together.
            Some((keys, last, _)) if *last == hint => keys.push_str(&format!(" {key}")),
            _ => words.push((key, hint, command)),
        }
    }
    let (key, word, command) = of(quit);
    let right = area.right().saturating_sub((key.width() + 1 + word.width()) as u16);
    let mut x = area.x;
    let mut hints = Vec::new();
    for (keys, word, command) in words {
        let width = (keys.width() + word.width() + 3) as u16;
        if x + width > right {
            // The rest is not lost.
            if x + 1 < right {
                hints.push(Hint { x, keys: "…".into(), word: "", command: Some(Command::Keys) });
            }
            break;
        }
        hints.push(Hint { x, keys, word, command });
        x += width;
    }
    hints.push(Hint { x: right, keys: key, word, command });
    hints
}

fn draw_keys(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    for Hint { x, keys, word, .. } in hints(app, area) {
        let after = put(buffer, x, area.y, area.right().saturating_sub(x), &keys, theme.focus());
        put(buffer, after + 1, area.y, area.right().saturating_sub(after + 1), word, theme.dim());
    }
}

/// The command of the hint at a position.
pub fn hint_at(app: &App, frame: &Frame, x: u16, y: u16) -> Option<Command> {
    let end = |hint: &Hint| hint.x + (hint.keys.width() + 1 + hint.word.width()) as u16;
    let hints = hints(app, frame.keys);
    let found = hints.into_iter().find(|hint| (hint.x..end(hint)).contains(&x));
    found.filter(|_| y == frame.keys.y)?.command
}
