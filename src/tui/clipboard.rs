//! Copying: through the terminal (OSC 52), which also works over SSH, or by the system's own program.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where copied text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clipboard {
    /// The system's clipboard if this is no remote session and it has a program for it, else the terminal's.
    #[default]
    Auto,
    Osc52,
    System,
}

/// A program that copies its input: its name, its arguments, and the variable of the environment without which it is
/// of no use.
pub type Program = (&'static str, &'static [&'static str], Option<&'static str>);

const PROGRAMS: [Program; 5] = [
    ("pbcopy", &[], None),
    ("clip.exe", &[], None),
    ("wl-copy", &[], Some("WAYLAND_DISPLAY")),
    ("xclip", &["-selection", "clipboard"], Some("DISPLAY")),
    ("xsel", &["--clipboard", "--input"], Some("DISPLAY")),
];

impl Clipboard {
    /// In settings and on the command line.
    pub const NAMES: [&str; 3] = ["auto", "osc52", "system"];

    /// By one of [`Self::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some([Self::Auto, Self::Osc52, Self::System][at])
    }

    /// The system's program to use; `None`: the terminal.
    ///
    /// # Errors
    /// One sentence, if the system's clipboard is wanted and there is no program for it.
    pub fn program(self) -> Result<Option<Program>, String> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let remote = set("SSH_CONNECTION") || set("SSH_TTY");
        let there = |(program, _, needs): &&Program| needs.is_none_or(set) && is_installed(program);
        match self {
            Self::Osc52 => Ok(None),
            Self::Auto if remote => Ok(None),
            Self::Auto => Ok(PROGRAMS.iter().find(there).copied()),
            Self::System => PROGRAMS.iter().find(there).copied().map(Some).ok_or_else(|| {
                "no clipboard program was found (wl-copy, xclip, xsel, pbcopy): try --clipboard osc52".into()
            }),
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The sequence that asks the terminal to copy; inside tmux also for the terminal around it.
pub fn osc52(text: &str, tmux: bool) -> String {
    let copy = format!("\x1b]52;c;{}\x07", STANDARD.encode(text));
    if !tmux {
        return copy;
    }
    // What tmux passes through unchanged has its escapes doubled.
    format!("{copy}\x1bPtmux;{}\x1b\\", copy.replace('\x1b', "\x1b\x1b"))
}

/// Copies `text` by a program; waits for it.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run((program, args, _): Program, text: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    if child.wait()?.success() { Ok(()) } else { Err(io::Error::other("it failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_asked_inside_tmux_and_around_it() {
        assert_eq!(osc52("hé", false), "\x1b]52;c;aMOp\x07");
        assert_eq!(osc52("a", true), "\x1b]52;c;YQ==\x07\x1bPtmux;\x1b\x1b]52;c;YQ==\x07\x1b\\");
        assert_eq!(Clipboard::Osc52.program(), Ok(None));
    }
}
