//! The explorer in a real terminal: setup, the event loop, and restoring it on every exit.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event,
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind,
};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, size,
};
use ratatui::crossterm::{cursor, execute, queue};

use super::app::App;
use super::atlas;
use super::clipboard::{self, Clipboard};
use super::graphics;
use super::keymap::Keymap;
use super::screens::compare;
use super::screens::walk::TICK;
use super::state;
use super::theme::{Depth, Theme, Themes};
use super::update::{Message, update};
use crate::analysis::logits::Sampling;
use crate::corpus::Atlas;
use crate::engine::{Beside, Engine, Request};
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Source};
use crate::picture::colormap::Palette;
use crate::run::{Input, Run};
use crate::signals::{self, Signal};
use crate::{temporary, threads};

/// Options of the explorer.
#[derive(Debug, Clone)]
pub struct Options {
    pub source: Source,
    pub load: LoadOptions,
    pub input: Input,
    /// `None`: ask the terminal.
    pub light: Option<bool>,
    /// `None`: ask the environment.
    pub depth: Option<Depth>,
    pub graphics: graphics::Choice,
    pub mouse: bool,
    pub clipboard: Clipboard,
    pub themes: Themes,
    pub palette: Palette,
    pub sampling: Sampling,
    pub keymap: Keymap,
    /// What to say at the start.
    pub problems: Vec<String>,
    /// Examples of units; `None`: those of the demo model, with the demo model.
    pub atlas: Option<Atlas>,
    /// A run that was saved, in place of a model.
    pub saved: Option<Run>,
    /// What another program computed, to compare with the run.
    pub beside: Option<Beside>,
    /// What was remembered, and the folder to remember in.
    pub found: state::Found,
    pub folder: Option<PathBuf>,
}

/// Runs the explorer until the user quits.
///
/// # Errors
/// [`Error::Usage`] if there is no terminal; any failure to load the model.
pub fn run(options: Options) -> Result<()> {
    let (sender, messages) = channel();
    let told = sender.clone();
    signals::tell(move |signal| {
        // The terminal has been restored, so nothing listens any more.
        if let (Err(_), Signal::End(number)) = (told.send(Message::Signal(signal)), signal) {
            signals::end(number);
        }
    })?;
    let theme = Theme {
        light: options.light.unwrap_or_else(light_background),
        depth: options.depth.unwrap_or_else(Depth::of_stdout),
        // Found out once the terminal is ours.
        graphics: None,
        // A light theme that was asked for may meet a dark terminal.
        paints: options.light == Some(true) || options.themes != Themes::default(),
        palette: options.palette,
        themes: options.themes,
    };
    let left = with_terminal(options.mouse, |terminal| explore(terminal, options, theme, sender, &messages));
    // Exports in progress are abandoned.
    temporary::close();
    match left?? {
        Some(signal) => signals::end(signal),
        None => Ok(()),
    }
}

/// Takes over the terminal while `body` runs, and restores it on every exit.
///
/// # Errors
/// [`Error::Usage`] if there is no terminal, or it goes away.
pub fn with_terminal<T>(mouse: bool, body: impl FnOnce(&mut Screen) -> io::Result<T>) -> Result<T> {
    crate::guard::on_panic(|_| leave());
    let done = enter(mouse).and_then(|mut terminal| body(&mut terminal));
    leave();
    done.map_err(|e| Error::usage(format!("cannot use the terminal ({e}); the subcommands work without one")))
}

/// The terminal to draw to.
pub type Screen = Terminal<CrosstermBackend<io::Stdout>>;

/// Set once the terminal is restored, so that nothing more is drawn.
static LEFT: AtomicBool = AtomicBool::new(true);

fn enter(mouse: bool) -> io::Result<Screen> {
    enable_raw_mode()?;
    LEFT.store(false, Ordering::SeqCst);
    let mut out = io::stdout();
    execute!(out, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    if mouse {
        execute!(out, EnableMouseCapture)?;
    }
    Terminal::new(CrosstermBackend::new(out))
}

/// What a terminal that is in raw mode, and answers questions, says to XTVERSION: its name and version.
///
/// # Errors
/// If it cannot be written to or read from.
pub fn version() -> io::Result<String> {
    // With a question that every terminal answers.
    io::stdout().write_all(b"\x1b[>q\x1b[5n")?;
    io::stdout().flush()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\x1b[0n") && answer.len() < 256 {
        io::stdin().read_exact(&mut byte)?;
        answer.extend(byte);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Restores the terminal; safe to call more than once, and from any thread.
fn leave() {
    if LEFT.swap(true, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(
        out,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = disable_raw_mode();
}

/// The explorer as it starts.
fn at_first(options: &mut Options, theme: Theme, size: (u16, u16)) -> App {
    let mut app = App::new(options.source.to_string(), options.input.clone(), theme, size);
    (app.keymap, app.sampling) = (std::mem::take(&mut options.keymap), options.sampling);
    app.atlas = atlas::State::new(options.atlas.take());
    if let Some(state) = &options.found.state {
        state.restore(&mut app);
    }
    if let Some(beside) = options.beside.take() {
        compare::beside(&mut app, beside);
    }
    if options.found.first {
        app.welcome();
    }
    let problems: Vec<_> = options.problems.drain(..).chain(options.found.problem.take()).collect();
    if !problems.is_empty() {
        app.complain(problems.join("; "));
    }
    app.remember_prompt();
    app
}

/// The event loop: draws, waits, updates; redraws only if something happened. Returns the signal to end by, if
/// a signal ended it.
fn explore(
    terminal: &mut Screen,
    mut options: Options,
    mut theme: Theme,
    sender: Sender<Message>,
    messages: &Receiver<Message>,
) -> io::Result<Result<Option<i32>>> {
    theme.graphics = options.graphics.graphics().unwrap_or_else(|why| {
        options.problems.push(why);
        None
    });
    if options.depth.is_none() && theme.graphics.is_some_and(|graphics| graphics.protocol.is_text()) {
        // Colours name the images that are letters, and terminals that have them show all colours.
        theme.depth = Depth::True;
    }
    let mut app = at_first(&mut options, theme, size()?);
    // Draw the first frame before anything is loaded.
    draw(terminal, &app)?;
    let events = sender.clone();
    let sink = Arc::new(move |event| drop(events.send(Message::Engine(event)))) as _;
    let started = match options.saved {
        Some(run) => Engine::open(run, sink),
        None => Engine::start(options.source, options.load, sink),
    };
    let engine = match started.and_then(|engine| read_terminal(sender).map(|()| engine)) {
        Ok(engine) => engine,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let first = match wait(&app, messages) {
            Some(message) => message,
            None => Message::Tick,
        };
        let mut looking = false;
        let mut handle = |app: &mut App, message: Message| {
            if let (Message::Terminal(Event::Resize(..)), Some(graphics)) =
                (&message, &mut app.theme.graphics)
            {
                graphics.font = graphics::font().unwrap_or(graphics.font);
            }
            for request in update(app, message) {
                looking |= matches!(request, Request::Look(_));
                engine.send(request);
            }
        };
        handle(&mut app, first);
        while let Ok(message) = messages.try_recv() {
            handle(&mut app, message);
        }
        // Results usually arrive at once: draw one frame rather than two.
        let until = Instant::now() + Duration::from_millis(6);
        while looking && app.quit.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(message) = messages.recv_timeout(left) else { break };
            looking = !matches!(message, Message::Engine(crate::engine::Event::Looked { .. }));
            for request in update(&mut app, message) {
                looking |= matches!(request, Request::Look(_));
                engine.send(request);
            }
        }
        let save = |app: &App| {
            if let Some(folder) = &options.folder {
                state::save(folder, app);
            }
        };
        if let Some(outcome) = app.quit.take() {
            save(&app);
            return Ok(outcome.map(|()| None));
        }
        match app.signal.take() {
            Some(Signal::End(number)) => {
                save(&app);
                return Ok(Ok(Some(number)));
            }
            Some(Signal::Stop) if !signals::has_shell() => {
                app.complain("no shell to go back to: q quits actscope");
            }
            Some(Signal::Stop) => {
                leave();
                if let Err(error) = signals::stop() {
                    app.complain(error.to_string());
                    *terminal = enter(options.mouse)?;
                }
            }
            Some(Signal::Continue) => {
                // After SIGSTOP the terminal was not restored, and the shell has changed its mode.
                leave();
                *terminal = enter(options.mouse)?;
                // Its images are gone.
                app.shown_id += 1;
                let (width, height) = size()?;
                for request in update(&mut app, Message::Terminal(Event::Resize(width, height))) {
                    engine.send(request);
                }
            }
            Some(Signal::Leave) | None => {}
        }
        if let Some((what, text)) = app.copied.take() {
            copy(&mut app, options.clipboard, what, text)?;
        }
        draw(terminal, &app)?;
    }
}

/// Copies text, by the terminal or by a program, for which nothing waits.
fn copy(app: &mut App, clipboard: Clipboard, what: &str, text: String) -> io::Result<()> {
    match clipboard.program() {
        Ok(None) => {
            let in_tmux = std::env::var_os("TMUX").is_some();
            let mut out = io::stdout();
            out.write_all(clipboard::osc52(&text, in_tmux).as_bytes())?;
            out.flush()?;
            app.note(format!("copied the {what}, through the terminal"));
        }
        Ok(Some(program)) => {
            app.note(format!("copied the {what}, with {}", program.0));
            if let Err(error) = threads::spawn("actscope-copy", move || drop(clipboard::run(program, &text)))
            {
                app.complain(error.to_string());
            }
        }
        Err(why) => app.complain(why),
    }
    Ok(())
}

/// The next message; `None` if it is time to turn the spinner.
fn wait(app: &App, messages: &Receiver<Message>) -> Option<Message> {
    if !app.needs_ticks() {
        return messages.recv().ok().or(Some(Message::Signal(Signal::Leave)));
    }
    match messages.recv_timeout(TICK) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Message::Signal(Signal::Leave)),
    }
}

fn draw(terminal: &mut Screen, app: &App) -> io::Result<()> {
    if LEFT.load(Ordering::SeqCst) {
        return Ok(());
    }
    queue!(io::stdout(), BeginSynchronizedUpdate)?;
    terminal.draw(|frame| super::draw::draw(app, frame.buffer_mut()))?;
    queue!(io::stdout(), EndSynchronizedUpdate)?;
    io::stdout().flush()
}

fn read_terminal(sender: Sender<Message>) -> Result<()> {
    threads::spawn("actscope-keys", move || {
        let mut late = LateAnswer::default();
        while let Ok(event) = event::read() {
            if let Event::Key(key) = &event
                && late.has(key)
            {
                continue;
            }
            // Mouse moves and key releases change nothing on the screen.
            let idle = match &event {
                Event::Mouse(mouse) => mouse.kind == MouseEventKind::Moved,
                Event::Key(key) => key.kind == KeyEventKind::Release,
                _ => false,
            };
            if !idle && sender.send(Message::Terminal(event)).is_err() {
                return;
            }
        }
        let _ = sender.send(Message::Signal(Signal::Leave));
    })
}

/// An answer of the terminal that comes after nobody waits for it any more, such as `ESC ] 11 ; rgb:… ESC \`: it
/// arrives as Alt-] and keys.
#[derive(Default)]
struct LateAnswer {
    since: Option<Instant>,
}

impl LateAnswer {
    /// The longest time that one takes to arrive.
    const TAKES: Duration = Duration::from_millis(300);

    /// Whether a key is part of one.
    fn has(&mut self, key: &KeyEvent) -> bool {
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.since.is_some_and(|since| since.elapsed() > Self::TAKES) {
            self.since = None;
        }
        match (key.code, self.since) {
            (KeyCode::Char(']'), None) if alt => self.since = Some(Instant::now()),
            (_, None) => return false,
            (KeyCode::Char('\\'), _) if alt => self.since = None,
            (KeyCode::Char('g'), _) if ctrl => self.since = None,
            (_, Some(_)) => {}
        }
        true
    }
}

/// Whether the terminal's background is light; dark if it does not say.
fn light_background() -> bool {
    use terminal_colorsaurus::{QueryOptions, ThemeMode, theme_mode};
    let mut options = QueryOptions::default();
    options.timeout = Duration::from_millis(100);
    theme_mode(options).is_ok_and(|mode| mode == ThemeMode::Light)
}
