//! The real program in a pseudo-terminal: it starts, draws, and gives the terminal back on every
//! way out.
#![cfg(unix)]

use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{Child, CommandBuilder, ExitStatus, PtySize, native_pty_system};

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
        // What the tests are run in shows no images here.
        for name in [
            "KITTY_WINDOW_ID",
            "KONSOLE_VERSION",
            "LC_TERMINAL",
            "TERM_PROGRAM",
            "WT_SESSION",
            "XTERM_VERSION",
        ] {
            command.env_remove(name);
        }
        // The user's files stay out of it.
        for (name, value) in [("ACTSCOPE_STATE", ""), ("ACTSCOPE_CONFIG", "/nowhere/config.toml")] {
            if command.get_env(name).is_none() {
                command.env(name, value);
            }
        }
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

    fn signal(&self, signal: Signal) {
        let id = self.child.process_id().unwrap();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    /// What the terminal shows.
    fn screen(&self) -> String {
        self.terminal().screen().contents()
    }

    fn terminal(&self) -> vt100::Parser {
        let lines = |n| NonZero::new(n).unwrap();
        let mut parser = vt100::Parser::new(lines(30), lines(100), 0);
        parser.process(&self.output.lock().unwrap());
        parser
    }

    fn wait_for(&self, text: &str) {
        self.wait_until(text, |screen| screen.contents().contains(text));
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) {
        let start = Instant::now();
        while !is_so(self.terminal().screen()) {
            assert!(start.elapsed() < PATIENCE, "`{what}` did not come; the screen is\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end; checks that the terminal is as it was. Returns the exit code and all that
    /// was written.
    fn ended(self) -> (u32, String) {
        let (status, written) = self.left();
        (status.exit_code(), written)
    }

    fn left(mut self) -> (ExitStatus, String) {
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
        (status, written)
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
    session.signal(Signal::SIGTERM);
    assert_eq!(session.ended().0, 0);
}

#[test]
fn a_signal_that_ends_leaves_the_terminal_first() {
    for (signal, name) in [(Signal::SIGQUIT, "Quit"), (Signal::SIGUSR1, "User defined signal 1")] {
        let session = Session::start(&["Stop me"]);
        session.wait_for("1 Tokens");
        session.signal(signal);
        let (status, _) = session.left();
        assert!(status.signal().is_some_and(|by| by.contains(name)), "{status:?}");
    }
}

#[test]
fn ctrl_c_leaves_the_terminal() {
    let mut session = Session::start(&["Stop me"]);
    session.wait_for("1 Tokens");
    session.send("\x03");
    assert_eq!(session.ended().0, 0);
}

/// A shell with job control, in which the explorer runs; none where there is no bash.
struct Shell {
    session: Session,
    /// Process of the explorer.
    explorer: Pid,
    _folder: tempfile::TempDir,
}

impl Shell {
    /// Where it is not `alone`, another process waits for it, as cargo does.
    fn start(alone: bool) -> Option<Self> {
        if std::process::Command::new("bash").arg("--version").output().is_err() {
            eprintln!("skipped: there is no bash");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("inputrc"), "set enable-bracketed-paste off\n").unwrap();
        let program = env!("CARGO_BIN_EXE_actscope");
        let run = format!("echo $$ > '{}'; exec '{program}' 'Stop me'", at("pid").display());
        let run = if alone { run } else { format!("sh -c \"{}\"; echo it ended", run.replace('$', "\\$")) };
        std::fs::write(at("run"), run).unwrap();
        let mut command = CommandBuilder::new("bash");
        command.args(["--norc", "--noprofile", "-i"]);
        command.env("INPUTRC", at("inputrc"));
        command.env("PS1", "ready> ");
        let mut session = Session::spawn(command);
        session.wait_for("ready>");
        session.send(&format!("sh '{}'\n", at("run").display()));
        session.wait_for("1 Tokens");
        session.wait_for("surprise");
        let pid = std::fs::read_to_string(at("pid")).unwrap().trim().parse().unwrap();
        Some(Self { session, explorer: Pid::from_raw(pid), _folder: folder })
    }

    /// The shell has the terminal, in the state in which it was.
    fn has_the_terminal(&mut self) {
        self.session.wait_until("the shell's screen", |screen| {
            !screen.alternate_screen()
                && !screen.bracketed_paste()
                && !screen.hide_cursor()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
                && screen.contents().contains("Stopped")
                && screen.contents().trim_end().ends_with("ready>")
        });
        // What a program finds that is started now.
        self.session.send("stty -a\n");
        self.session.wait_until("lines and Ctrl-C", |screen| {
            let said = screen.contents();
            ["icanon", "isig"].iter().all(|mode| said.split_whitespace().any(|word| word == *mode))
        });
        self.session.wait_until("a prompt", |screen| screen.contents().trim_end().ends_with("ready>"));
    }

    /// The explorer has it again, and keys act at once.
    fn goes_on(mut self) {
        self.session.send("fg\n");
        self.works();
        self.session.send("q");
        self.session.wait_until("the shell", |screen| {
            !screen.alternate_screen() && screen.contents().trim_end().ends_with("ready>")
        });
        self.session.send("exit\n");
        self.session.ended();
    }

    fn works(&mut self) {
        self.session.wait_until("the explorer", |screen| {
            screen.alternate_screen()
                && screen.bracketed_paste()
                && screen.hide_cursor()
                && screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None
                && screen.contents().contains("1 Tokens")
                && screen.contents().contains("surprise")
        });
        self.session.send("3");
        self.session.wait_for("blocks.0.hook_resid_pre");
        self.session.send("1");
        self.session.wait_for("surprise");
    }

    fn signal(&self, signal: Signal) {
        kill(self.explorer, signal).unwrap();
    }
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again() {
    for alone in [true, false] {
        let Some(mut shell) = Shell::start(alone) else { return };
        for _ in 0..2 {
            shell.session.send("\x1a");
            shell.has_the_terminal();
            shell.session.send("clear; fg\n");
            shell.works();
        }
        shell.session.send("\x1a");
        shell.has_the_terminal();
        shell.goes_on();
    }
}

#[test]
fn sigtstp_is_as_ctrl_z() {
    let Some(mut shell) = Shell::start(true) else { return };
    shell.signal(Signal::SIGTSTP);
    shell.has_the_terminal();
    shell.goes_on();
}

/// It cannot be caught: the shell writes into the explorer's screen. Afterwards all is well.
#[test]
fn after_sigstop_the_terminal_is_taken_again() {
    let Some(shell) = Shell::start(true) else { return };
    shell.signal(Signal::SIGSTOP);
    shell.session.wait_for("Stopped");
    shell.session.wait_until("a prompt", |screen| screen.contents().contains("ready>"));
    shell.goes_on();
}

/// In the background it waits, as the system makes it.
#[test]
fn continued_in_the_background_it_leaves_the_terminal_alone() {
    let Some(mut shell) = Shell::start(true) else { return };
    shell.session.send("\x1a");
    shell.has_the_terminal();
    shell.session.send("clear; bg; sleep 1; jobs\n");
    shell.has_the_terminal();
    shell.goes_on();
}

#[test]
fn the_size_may_change_while_it_is_stopped() {
    let Some(mut shell) = Shell::start(true) else { return };
    shell.session.send("\x1a");
    shell.has_the_terminal();
    shell.session.master.resize(PtySize { rows: 10, cols: 40, pixel_width: 0, pixel_height: 0 }).unwrap();
    shell.session.send("fg\n");
    shell.session.wait_for("this is 40×10");
    shell.session.send("q");
    shell.session.wait_until("the shell", |screen| !screen.alternate_screen());
    shell.session.send("exit\n");
    shell.session.ended();
}

#[test]
fn without_a_shell_it_does_not_stop() {
    let mut session = Session::start(&["Stop me"]);
    session.wait_for("1 Tokens");
    session.send("\x1a");
    session.wait_for("no shell to go back to");
    session.signal(Signal::SIGTSTP);
    session.send("3");
    session.wait_for("blocks.0.hook_resid_pre");
    session.send("q");
    assert_eq!(session.ended().0, 0);
}

/// The explorer starts with main, signals, pool, run, look and keys, in this order.
#[cfg(target_os = "linux")]
#[test]
fn no_more_threads_leaves_the_terminal_and_a_sentence() {
    let has = |name: &str| std::process::Command::new(name).arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !has("prlimit") || !has("setpriv") {
        eprintln!("skipped: needs root, prlimit and setpriv");
        return;
    }
    // Nobody else's processes count.
    let user = format!("--reuid={}", 100_000 + std::process::id());
    let start = |limit: u32| {
        let mut command = CommandBuilder::new("prlimit");
        command.args([&format!("--nproc={limit}"), "setpriv", &user, "--clear-groups"]);
        command.args([env!("CARGO_BIN_EXE_actscope"), "Stop me"]);
        command.env("RAYON_NUM_THREADS", "1");
        Session::spawn(command)
    };
    for limit in 3..6 {
        let (code, shown) = start(limit).ended();
        assert_eq!(code, 1);
        assert!(shown.contains("actscope: the system has no more threads"), "{limit}: {shown}");
    }
    let mut session = start(6);
    session.wait_for("surprise");
    session.send("x\r");
    session.wait_for("the system has no more threads");
    session.send("\x03"); // the dialog is still open
    assert_eq!(session.ended().0, 0);
}

/// It is held still in the middle of an export, and then ends in one way or another.
#[test]
fn what_the_explorer_is_writing_goes_with_it() {
    let prompt = "the old man and the sea ".repeat(20);
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGQUIT)] {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let is_writing = || names().iter().any(|name| name.starts_with(".actscope-"));
        let mut session = Session::start(&[&prompt]);
        session.wait_for("surprise");
        let start = Instant::now();
        'held: loop {
            session.send("x");
            session.wait_for("Ctrl-U clear");
            session.send(&format!("\t\x15{}\r", folder.path().join("run.json").display()));
            while !names().iter().any(|name| name == "run.json") {
                assert!(start.elapsed() < PATIENCE, "nothing is written\n{}", session.screen());
                if is_writing() {
                    session.signal(Signal::SIGSTOP);
                    thread::sleep(Duration::from_millis(5)); // it stops a moment later
                    if is_writing() {
                        break 'held;
                    }
                    session.signal(Signal::SIGCONT);
                }
            }
            session.wait_for("wrote");
            std::fs::remove_file(folder.path().join("run.json")).unwrap();
        }
        match signal {
            None => session.send("\x03"), // the dialog is open until the file stands
            Some(signal) => session.signal(signal),
        }
        session.signal(Signal::SIGCONT);
        session.left();
        assert!(!is_writing(), "{signal:?}: {:?}", names());
    }
}

/// The bytes that ask the terminal to copy; the command that is copied runs.
#[test]
fn what_is_copied_goes_through_the_terminal() {
    let mut session = Session::start(&["Stop me", "--clipboard", "osc52"]);
    session.wait_for("surprise");
    session.send("4y");
    session.wait_for("actscope render");
    session.send("command\r");
    session.wait_for("copied the command, through the terminal");
    session.send("q");
    let (code, written) = session.ended();
    assert_eq!(code, 0);
    let (_, copied) = written.split_once("\x1b]52;c;").unwrap();
    let (copied, _) = copied.split_once('\x07').unwrap();
    let command = String::from_utf8(STANDARD.decode(copied).unwrap()).unwrap();
    let arguments = command.strip_prefix("actscope ").unwrap();
    let program = env!("CARGO_BIN_EXE_actscope");
    let ran =
        std::process::Command::new("sh").args(["-c", &format!("{program} {arguments}")]).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("blocks.0.attn.hook_pattern"));
}

/// At the very first start there is a welcome; the second one knows the first.
#[test]
fn what_was_looked_at_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let start = |arguments: &[&str]| {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
        command.args(arguments);
        command.env("ACTSCOPE_STATE", &state);
        Session::spawn(command)
    };
    let mut session = start(&["Remember me"]);
    session.wait_for("Welcome to actscope");
    session.wait_for("1 Tok");
    session.send("3");
    session.wait_until("no welcome", |screen| !screen.contents().contains("Welcome"));
    session.wait_for("blocks.0.hook_resid_pre");
    session.send("jjc");
    session.wait_for("orange-purple");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.ended().0, 0);
    let mut session = start(&[]);
    session.wait_for("blocks.0.ln1.hook_normalized");
    session.wait_for("Remember·me");
    assert!(!session.screen().contains("Welcome"));
    session.send("e");
    session.wait_for("earlier prompts");
    session.send("!\x1b");
    session.wait_for("me!");
    session.send("q");
    assert_eq!(session.ended().0, 0);
    // Another prompt wins; the earlier ones are above it.
    let mut session = start(&["Another"]);
    session.wait_for("hook_normalized");
    session.send("e");
    session.wait_for("earlier prompts");
    session.send("\x1b[A");
    session.wait_for("Remember·me!");
    session.send("\x03");
    assert_eq!(session.ended().0, 0);
    let mut session = start(&["--fresh"]);
    session.wait_for("surprise");
    session.wait_for("Alice");
    session.send("q");
    assert_eq!(session.ended().0, 0);
    // What cannot be read is left out, and said.
    let file = std::fs::read_dir(&state).unwrap().next().unwrap().unwrap().path();
    let left_out = || {
        let mut session = start(&["Hello"]);
        session.wait_for("what was remembered is left out");
        session.send("q");
        assert_eq!(session.ended().0, 0);
    };
    for contents in ["{", "[1]", "\u{1b}[2J", "{\"prompts\": 3}"] {
        std::fs::write(&file, contents).unwrap();
        left_out();
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    left_out();
    std::fs::remove_dir(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    left_out();
}

#[test]
fn a_view_opens_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("found.toml");
    let look = "[look]\nscreen = \"attention\"\nhook = \"blocks.2.attn.hook_pattern\"\nlayer = 2\nhead = 3\n";
    let view =
        "actscope-view = 1\nmodel = \"demo\"\nprompt = \"One two three\"\nchanges = [\"zero head:1.1\"]\n";
    std::fs::write(&file, format!("{view}{look}")).unwrap();
    let mut session = Session::start(&[file.to_str().unwrap()]);
    session.wait_for("head 2.3");
    session.wait_for("changed: zero head:1.1");
    session.send("q");
    assert_eq!(session.ended().0, 0);
    std::fs::write(&file, format!("{view}{look}layers = 3\n")).unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
    command.args([&file]);
    command.env("ACTSCOPE_STATE", "");
    let pair = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut child = pair.slave.spawn_command(command).unwrap();
    assert_ne!(child.wait().unwrap().exit_code(), 0, "a wrong view is no prompt");
}

/// The background colour, told after two seconds: its characters are no keys.
#[test]
fn a_late_answer_of_the_terminal_is_no_key_press() {
    let mut session = Session::start(&["Hello"]);
    session.wait_for("surprise");
    session.send("3");
    session.wait_for("blocks.0.hook_resid_pre");
    for end in ["\x1b\\", "\x07"] {
        session.send(&format!("\x1b]11;rgb:1111/2222/qqqq{end}"));
    }
    session.send("j");
    session.wait_for("blocks.0.ln1.hook_scale");
    session.send("q");
    assert_eq!(session.ended().0, 0);
}

#[test]
fn a_terminal_that_cannot_draw_is_refused() {
    let pair = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
    command.args(["Hello"]);
    command.env("TERM", "dumb");
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut said = String::new();
    let mut reader = pair.master.try_clone_reader().unwrap();
    assert_eq!(child.wait().unwrap().exit_code(), 2);
    // The end of the terminal is an error here.
    let _ = reader.read_to_string(&mut said);
    assert!(said.starts_with("actscope: the terminal cannot draw (TERM=dumb)"), "{said}");
}

/// A wrong line is said, and all others count.
#[test]
fn settings_and_keys_are_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "theme = \"high-contrast\"\npalete = \"grey\"\n[keys]\nlens = [\"L\"]\n").unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
    command.args(["Hello there"]);
    command.env("ACTSCOPE_CONFIG", &file);
    let mut session = Session::spawn(command);
    session.wait_for("config.toml, line 2: no setting `palete`: did you mean `palette`?");
    session.send("L");
    session.wait_for("logit lens");
    session.send("q");
    let (code, written) = session.ended();
    assert_eq!(code, 0);
    assert!(written.contains("48;2;0;0;0"), "the background of the theme");
}

#[test]
fn in_an_editor_ctrl_z_is_undo() {
    let mut session = Session::start(&["Stop me"]);
    session.wait_for("surprise");
    session.send("e");
    session.wait_for("Ctrl-Z undo");
    session.send("!!");
    session.wait_for("Stop me!!");
    session.send("\x1a\x1a");
    session.wait_until("undo", |screen| !screen.contents().contains('!'));
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

#[test]
fn a_file_is_opened_beside_the_live_run() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("mine.npz");
    let path = path.to_str().unwrap();
    let mut export = std::process::Command::new(env!("CARGO_BIN_EXE_actscope"));
    export.args(["export", "The old man", "-o", path, "--scale", "mlp:1=0.5"]);
    assert!(export.output().unwrap().status.success());
    // The file says which tokens; a difference is found.
    let mut session = Session::start(&["open", path, "--model", "demo"]);
    session.wait_for("reference − mine of blocks.1.hook_mlp_out");
    session.wait_for("it looks like a factor");
    session.send("q");
    assert_eq!(session.ended().0, 0);
}

#[test]
fn a_saved_run_is_opened_without_its_model() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("run.safetensors");
    let path = path.to_str().unwrap();
    let mut export = std::process::Command::new(env!("CARGO_BIN_EXE_actscope"));
    export.args(["export", "The old man", "-o", path, "--ablate", "mlp:1"]);
    assert!(export.output().unwrap().status.success());
    let mut session = Session::start(&["open", path]);
    session.wait_for("this run was saved with changes: zero mlp:1");
    session.send("3");
    session.wait_for("blocks.0.hook_resid_pre");
    session.send("8");
    session.wait_for("this needs the model");
    session.send("q");
    assert_eq!(session.ended().0, 0);
}
