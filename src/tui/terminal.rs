//! The explorer in a real terminal: enter, the loop, and back out on every exit.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event,
    KeyEventKind, MouseEventKind,
};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, size,
};
use ratatui::crossterm::{cursor, execute, queue};

use super::app::App;
use super::screens::walk::TICK;
use super::theme::{Depth, Theme};
use super::update::{Message, update};
use crate::engine::{Engine, Request};
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Source};
use crate::run::Input;
use crate::signals::{self, Signal};
use crate::{temporary, threads};

/// How the explorer starts.
#[derive(Debug, Clone)]
pub struct Options {
    pub source: Source,
    pub load: LoadOptions,
    pub input: Input,
    /// `None`: ask the terminal.
    pub light: Option<bool>,
    /// `None`: ask the environment.
    pub depth: Option<Depth>,
    pub mouse: bool,
}

/// Runs the explorer until the user leaves it.
///
/// # Errors
/// [`Error::Usage`] when there is no terminal; whatever kept the model from being loaded.
pub fn run(options: Options) -> Result<()> {
    let (sender, messages) = channel();
    let told = sender.clone();
    signals::tell(move |signal| {
        // Nobody listens any more: the terminal was given back.
        if let (Err(_), Signal::End(number)) = (told.send(Message::Signal(signal)), signal) {
            signals::end(number);
        }
    })?;
    let theme = Theme {
        light: options.light.unwrap_or_else(light_background),
        depth: options.depth.unwrap_or_else(Depth::of_stdout),
        ..Theme::default()
    };
    let left = with_terminal(options.mouse, |terminal| explore(terminal, options, theme, sender, &messages));
    // What is still being written is given up.
    temporary::close();
    match left?? {
        Some(signal) => signals::end(signal),
        None => Ok(()),
    }
}

/// Takes the terminal over for the time of `body`, and gives it back on every way out of it.
///
/// # Errors
/// [`Error::Usage`] when there is no terminal to take, or it goes away.
pub fn with_terminal<T>(mouse: bool, body: impl FnOnce(&mut Screen) -> io::Result<T>) -> Result<T> {
    crate::guard::on_panic(|_| leave());
    let done = enter(mouse).and_then(|mut terminal| body(&mut terminal));
    leave();
    done.map_err(|e| {
        Error::usage(format!("the terminal cannot be used ({e}); the subcommands work without one"))
    })
}

/// The terminal that is drawn to.
pub type Screen = Terminal<CrosstermBackend<io::Stdout>>;

/// Set once the terminal is given back, so that nothing is drawn any more.
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

/// Gives the terminal back as it was; safe to call more than once, and from any thread.
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

/// Draws, waits, updates: redraws only when something happened. Gives the signal to end by, if it
/// was one that ended it.
fn explore(
    terminal: &mut Screen,
    options: Options,
    theme: Theme,
    sender: Sender<Message>,
    messages: &Receiver<Message>,
) -> io::Result<Result<Option<i32>>> {
    let mut app = App::new(options.source.to_string(), options.input, theme, size()?);
    // The first frame goes out before anything is loaded.
    draw(terminal, &app)?;
    let events = sender.clone();
    let sink = Arc::new(move |event| drop(events.send(Message::Engine(event)))) as _;
    let started = Engine::start(options.source, options.load, sink);
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
            for request in update(app, message) {
                looking |= matches!(request, Request::Look(_));
                engine.send(request);
            }
        };
        handle(&mut app, first);
        while let Ok(message) = messages.try_recv() {
            handle(&mut app, message);
        }
        // What the screen asked for is mostly there at once: one frame rather than two.
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
        if let Some(outcome) = app.quit {
            return Ok(outcome.map(|()| None));
        }
        match app.signal.take() {
            Some(Signal::End(number)) => return Ok(Ok(Some(number))),
            Some(Signal::Stop) if !signals::has_shell() => {
                app.complain("there is no shell to go back to here: q leaves actscope");
            }
            Some(Signal::Stop) => {
                leave();
                if let Err(error) = signals::stop() {
                    app.complain(error.to_string());
                    *terminal = enter(options.mouse)?;
                }
            }
            Some(Signal::Continue) => {
                // After SIGSTOP it was never left, and the shell has made it its own.
                leave();
                *terminal = enter(options.mouse)?;
                let (width, height) = size()?;
                for request in update(&mut app, Message::Terminal(Event::Resize(width, height))) {
                    engine.send(request);
                }
            }
            Some(Signal::Leave) | None => {}
        }
        draw(terminal, &app)?;
    }
}

/// The next message; `None` when it is time for the spinner to turn.
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
        while let Ok(event) = event::read() {
            // A mouse that only moves and a key that is let go change nothing on the screen.
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

/// Whether the terminal's background is light; dark where it does not say.
fn light_background() -> bool {
    use terminal_colorsaurus::{QueryOptions, ThemeMode, theme_mode};
    let mut options = QueryOptions::default();
    options.timeout = Duration::from_millis(100);
    theme_mode(options).is_ok_and(|mode| mode == ThemeMode::Light)
}
