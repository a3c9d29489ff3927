//! The explorer without a terminal: keys in, a buffer out, the engine's work done on the spot.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actscope::engine::{Errand, Event, Looker, Request, Said, Worker};
use actscope::model::{Model, Source};
use actscope::tui::app::App;
use actscope::tui::draw::draw;
use actscope::tui::theme::Theme;
use actscope::tui::update::{Message, update};
use actscope::{Input, Run};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{
    Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

pub const PROMPT: &str = "The old man said to the young man that the sea was calm.";

pub fn demo() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| {
        let model = Model::demo();
        model.provenance.weights_sha256().unwrap();
        Arc::new(model)
    }))
}

pub struct Explorer {
    pub app: App,
    worker: Worker,
    looker: Looker,
}

impl Explorer {
    /// The explorer on the demo model, its first run done.
    pub fn new(prompt: &str, size: (u16, u16), theme: Theme) -> Self {
        Self::with_model(demo(), Input::text(prompt), size, theme)
    }

    pub fn with_model(model: Arc<Model>, input: Input, size: (u16, u16), theme: Theme) -> Self {
        let app = App::new(Source::Demo.to_string(), input, theme, size);
        let worker = Worker::new(Arc::default()).holding(Arc::clone(&model));
        let mut explorer = Self { app, worker, looker: Looker::default() };
        explorer.send(Message::Engine(Event::Loaded(model)));
        // Most tests count from the first token; a user starts on the last.
        explorer.app.selection.position = 0;
        explorer.send(Message::Terminal(TerminalEvent::FocusGained));
        explorer
    }

    /// The explorer on a run that was saved, without its model.
    pub fn of_saved(run: Run, size: (u16, u16)) -> Self {
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let events = Arc::clone(&heard);
        let app = App::new("saved".into(), run.input.clone(), Theme::default(), size);
        let mut worker = Worker::new(Arc::default());
        worker.open(run, &(Arc::new(move |event| events.lock().unwrap().push(event)) as _));
        let mut explorer = Self { app, worker, looker: Looker::default() };
        let events: Vec<_> = heard.lock().unwrap().drain(..).collect();
        for event in events {
            explorer.send(Message::Engine(event));
        }
        explorer
    }

    /// The explorer in a state of its own, without a model.
    pub fn before_loading(app: App) -> Self {
        Self { app, worker: Worker::new(Arc::default()), looker: Looker::default() }
    }

    /// A message, and all that the engine says to it.
    pub fn send(&mut self, message: Message) {
        let mut requests = update(&mut self.app, message);
        while !requests.is_empty() {
            let mut events = Vec::new();
            for request in requests.drain(..) {
                match request {
                    Request::Job(job) => {
                        let heard = std::sync::Mutex::new(Vec::new());
                        self.worker.execute(job, &|event| heard.lock().unwrap().push(event));
                        events.extend(heard.into_inner().unwrap().into_iter().map(timeless));
                    }
                    Request::Look(wanted) => {
                        self.looker.look(wanted, &|| true, &mut |event| events.push(event));
                    }
                    // Keys at random must leave nothing beside the sources.
                    Request::Export(export) if export.path.is_relative() => {
                        events.push(Event::Exported(Err("tests write to absolute paths".into())));
                    }
                    Request::Export(export) => events.push(export.write()),
                    Request::Errand(Errand::Save(path, _)) if path.is_relative() => {
                        events.push(Event::Exported(Err("tests write to absolute paths".into())));
                    }
                    Request::Errand(errand) => events.push(errand.run()),
                    Request::Cancel(_) => {}
                }
            }
            for event in events {
                requests.extend(update(&mut self.app, Message::Engine(event)));
            }
        }
    }

    /// Keys as in the table of commands, separated by blanks: `3 enter z ctrl-d`.
    pub fn keys(&mut self, keys: &str) -> &mut Self {
        for key in keys.split_whitespace() {
            let (modifiers, name) = match key.strip_prefix("ctrl-") {
                Some(rest) => (KeyModifiers::CONTROL, rest),
                None => (KeyModifiers::NONE, key),
            };
            let code = match name {
                "enter" => KeyCode::Enter,
                "esc" => KeyCode::Esc,
                "tab" => KeyCode::Tab,
                "shift-tab" => KeyCode::BackTab,
                "left" => KeyCode::Left,
                "right" => KeyCode::Right,
                "up" => KeyCode::Up,
                "down" => KeyCode::Down,
                "home" => KeyCode::Home,
                "end" => KeyCode::End,
                "pageup" => KeyCode::PageUp,
                "pagedown" => KeyCode::PageDown,
                "backspace" => KeyCode::Backspace,
                "space" => KeyCode::Char(' '),
                name => KeyCode::Char(name.chars().next().unwrap()),
            };
            self.send(Message::Terminal(TerminalEvent::Key(KeyEvent::new(code, modifiers))));
        }
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
            self.send(Message::Terminal(TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))));
        }
        self
    }

    pub fn paste(&mut self, text: &str) {
        self.send(Message::Terminal(TerminalEvent::Paste(text.into())));
    }

    pub fn mouse(&mut self, kind: MouseEventKind, column: u16, row: u16) {
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        self.send(Message::Terminal(TerminalEvent::Mouse(event)));
    }

    pub fn click(&mut self, x: u16, y: u16) {
        self.mouse(MouseEventKind::Down(MouseButton::Left), x, y);
    }

    pub fn resize(&mut self, width: u16, height: u16) {
        self.send(Message::Terminal(TerminalEvent::Resize(width, height)));
    }

    pub fn draw(&self) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, self.app.size.0, self.app.size.1));
        draw(&self.app, &mut buffer);
        buffer
    }

    /// The lines of the screen.
    pub fn lines(&self) -> Vec<String> {
        let buffer = self.draw();
        let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..buffer.area.height).map(row).collect()
    }

    /// Where a text stands on the screen.
    pub fn find(&self, text: &str) -> (u16, u16) {
        for (y, line) in self.lines().iter().enumerate() {
            if let Some(at) = line.find(text) {
                return (line[..at].chars().count() as u16, y as u16);
            }
        }
        panic!("`{text}` is not on the screen:\n{}", self.lines().join("\n"));
    }

    pub fn shows(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    pub fn run(&self) -> &Run {
        self.app.run.as_ref().unwrap()
    }
}

/// A run takes another time each time; the tests' one takes none.
fn timeless(event: Event) -> Event {
    match event {
        Event::Job { id, said: Said::Ran { run, summary, left } } => {
            let run = Arc::new(Run { took: Duration::ZERO, ..(*run).clone() });
            Event::Job { id, said: Said::Ran { run, summary, left } }
        }
        event => event,
    }
}

/// The buffer as text with escape codes: `cat` shows the picture.
pub fn ansi(buffer: &Buffer) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut style = None;
        let mut skip = 0;
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
            let now = (cell.fg, cell.bg, cell.modifier);
            if style != Some(now) {
                style = Some(now);
                text.push_str("\x1b[0");
                for (modifier, code) in [(Modifier::BOLD, 1), (Modifier::REVERSED, 7)] {
                    if cell.modifier.contains(modifier) {
                        let _ = write!(text, ";{code}");
                    }
                }
                for (color, ground) in [(cell.fg, 38), (cell.bg, 48)] {
                    match color {
                        Color::Rgb(r, g, b) => drop(write!(text, ";{ground};2;{r};{g};{b}")),
                        Color::Indexed(i) => drop(write!(text, ";{ground};5;{i}")),
                        Color::Reset => {}
                        other => panic!("{other:?} is in no theme"),
                    }
                }
                text.push('m');
            }
            text.push_str(cell.symbol());
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

/// Compares the screen with `tests/snapshots/NAME.ansi`; `ACTSCOPE_UPDATE=1` writes it anew.
///
/// Processors round differently in the last bit: a colour may differ by a step of its table, a
/// digit by one.
pub fn assert_snapshot(name: &str, explorer: &Explorer) {
    let buffer = explorer.draw();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.ansi"));
    let now = ansi(&buffer);
    if std::env::var_os("ACTSCOPE_UPDATE").is_some() {
        std::fs::write(&path, now).unwrap();
        return;
    }
    let then = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let size = (buffer.area.height, buffer.area.width);
    let [then, now] = [then, now].map(|text| {
        let lines = |n| NonZero::new(n).unwrap();
        let mut screen = vt100::Parser::new(lines(size.0), lines(size.1), 0);
        screen.process(text.trim_end_matches('\n').replace('\n', "\r\n").as_bytes());
        screen
    });
    for y in 0..size.0 {
        let rows = [&then, &now].map(|parser| parser.screen().rows(0, size.1).nth(y.into()).unwrap());
        if rows.iter().any(|row| shows_rounding(row)) {
            let [a, b] = [0, 1].map(|i| without_rounding(&rows[i]));
            let cut = rows.iter().any(|row| row.trim_end().ends_with('…'));
            let alike = (cut || a.len() == b.len())
                && a.iter().zip(&b).all(|(a, b)| {
                    a.chars().count() == b.chars().count()
                        && a.chars().zip(b.chars()).all(|(a, b)| alike(&a.to_string(), &b.to_string()))
                });
            assert!(alike, "{name}: line {y} is {b:?}, the snapshot has {a:?}");
            continue;
        }
        for x in 0..size.1 {
            let [a, b] = [&then, &now].map(|parser| parser.screen().cell(y, x).unwrap());
            let alike = alike(a.contents(), b.contents())
                && near(a.fgcolor(), b.fgcolor())
                && near(a.bgcolor(), b.bgcolor())
                && (a.bold(), a.inverse()) == (b.bold(), b.inverse());
            assert!(
                alike,
                "{name}: ({x}, {y}) is {b:?}, the snapshot has {a:?}; the screen is\n{}",
                explorer.lines().join("\n")
            );
        }
    }
}

/// Whether a word is a number so small that it is rounding, such as 4.8e-7, or begins to be one.
fn is_rounding(word: &str) -> bool {
    let exponent =
        word.split_once("e-").map(|(_, digits)| digits.trim_end_matches(|c: char| !c.is_numeric()));
    let small = exponent.is_some_and(|digits| digits.is_empty() || digits.parse().is_ok_and(|n: u32| n > 5));
    word.contains(|c: char| c.is_numeric()) && (small || word.ends_with("e…"))
}

fn shows_rounding(row: &str) -> bool {
    row.trim_start().starts_with(['✓', '✗']) || row.split_whitespace().any(is_rounding)
}

/// The words of a line but for those, for how far a check is off, and for what is cut at its end.
fn without_rounding(row: &str) -> Vec<&str> {
    let off = |word: &&str| !["difference", "exactly"].contains(word);
    let mut words: Vec<_> = row.split_whitespace().take_while(off).collect();
    if row.trim_end().ends_with('…') {
        words.pop();
    }
    words.retain(|word| !is_rounding(word));
    words
}

fn alike(a: &str, b: &str) -> bool {
    let digit = |s: &str| s.chars().next().and_then(|c| c.to_digit(10));
    a == b || matches!((digit(a), digit(b)), (Some(a), Some(b)) if a.abs_diff(b) <= 1)
}

fn near(a: vt100::Color, b: vt100::Color) -> bool {
    match (a, b) {
        (vt100::Color::Rgb(r, g, b), vt100::Color::Rgb(x, y, z)) => {
            r.abs_diff(x) <= 6 && g.abs_diff(y) <= 6 && b.abs_diff(z) <= 6
        }
        (a, b) => a == b,
    }
}
