//! The real program in a pseudo-terminal: it starts, draws, and gives the terminal back on every
//! way out.
#![cfg(unix)]

use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Session {
    /// All that the program wrote.
    output: Arc<Mutex<Vec<u8>>>,
    input: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    // Held open: a closed master would end the program.
    master: Box<dyn portable_pty::MasterPty + Send>,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
        command.args(arguments);
        Self::spawn(command)
    }

    fn spawn(mut command: CommandBuilder) -> Self {
        let size = PtySize { rows: 30, cols: 100, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        command.env("TERM", "xterm-256color");
        command.env("COLORTERM", "truecolor");
        command.cwd(env!("CARGO_MANIFEST_DIR"));
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut reader = pair.master.try_clone_reader().unwrap();
        let sink = Arc::clone(&output);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Self { output, input: pair.master.take_writer().unwrap(), child, master: pair.master }
    }

    fn send(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// What the terminal shows.
    fn screen(&self) -> String {
        let lines = |n| NonZero::new(n).unwrap();
        let mut parser = vt100::Parser::new(lines(30), lines(100), 0);
        parser.process(&self.output.lock().unwrap());
        parser.screen().contents()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "`{text}` did not come; the screen is\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end; checks that the terminal is as it was. Returns the exit code and all that
    /// was written.
    fn ended(mut self) -> (u32, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        };
        thread::sleep(Duration::from_millis(100)); // the reader takes what is left
        let written = String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned();
        let last = |code: &str| written.rfind(code);
        for (on, off) in
            [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?2004h", "\x1b[?2004l"), ("\x1b[?25l", "\x1b[?25h")]
        {
            assert!(last(on).is_some(), "{on:?} was never sent");
            assert!(last(off) > last(on), "{off:?} was not sent at the end");
        }
        if last("\x1b[?1000h").is_some() {
            assert!(last("\x1b[?1000l") > last("\x1b[?1000h"), "the mouse is still captured");
        }
        let termios = self.master.get_termios().unwrap();
        assert!(termios.local_flags.bits() != 0, "the terminal is still raw");
        (status.exit_code(), written)
    }
}

#[test]
fn starts_draws_and_quits() {
    let mut session = Session::start(&["The old man and the sea."]);
    session.wait_for("The·old·man·and·the·sea.");
    session.wait_for("surprise");
    session.send("3");
    session.wait_for("blocks.0.hook_resid_pre");
    session.send("4");
    session.wait_for("softmax");
    session.send("\x1b[200~pasted\x1b[201~"); // without an editor, pasting does nothing
    session.send("e");
    session.wait_for("Prompt");
    session.send(" He fished.");
    session.wait_for("fished");
    session.send("\x1b");
    thread::sleep(Duration::from_millis(100)); // Esc alone is told from a sequence by time
    session.send("q");
    let (code, _) = session.ended();
    assert_eq!(code, 0);
}

#[test]
fn resizes_live() {
    let mut session = Session::start(&["Resize me"]);
    session.wait_for("1 Tokens");
    session.master.resize(PtySize { rows: 10, cols: 40, pixel_width: 0, pixel_height: 0 }).unwrap();
    session.wait_for("this is 40×10");
    session.send("q");
    assert_eq!(session.ended().0, 0);
}

#[test]
fn a_model_that_is_not_there_leaves_the_terminal_and_a_sentence() {
    let (code, shown) = Session::start(&["--model", "./no/such/model", "hello"]).ended();
    assert_eq!(code, 1);
    assert!(shown.contains("actscope: ./no/such/model"), "{shown}");
}

#[test]
fn sigterm_leaves_the_terminal() {
    let session = Session::start(&["Stop me"]);
    session.wait_for("1 Tokens");
    let pid = session.child.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(session.ended().0, 0);
}

#[test]
fn ctrl_c_leaves_the_terminal() {
    let mut session = Session::start(&["Stop me"]);
    session.wait_for("1 Tokens");
    session.send("\x03");
    assert_eq!(session.ended().0, 0);
}

#[test]
fn a_panic_leaves_the_terminal_and_is_said() {
    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_that_panics", "--ignored", "--nocapture"]);
    command.env("ACTSCOPE_TEST_CHILD", "1");
    let (code, shown) = Session::spawn(command).ended();
    assert_ne!(code, 0);
    assert!(shown.contains("this went wrong"), "{shown}");
}

/// Not a test: what the test above runs in a pseudo-terminal.
#[test]
#[ignore = "run by a_panic_leaves_the_terminal_and_is_said"]
fn child_that_panics() {
    assert!(std::env::var_os("ACTSCOPE_TEST_CHILD").is_some(), "this is not a test of its own");
    let _ = actscope::tui::with_terminal(true, |_| -> std::io::Result<()> { panic!("this went wrong") });
}
