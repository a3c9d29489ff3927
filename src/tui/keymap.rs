//! Keys, as written in the table of commands and as sent by the terminal.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::Screen;
use super::command::{COMMANDS, Command};

/// A key with its modifiers; Shift is part of a character (`G`, not shift-g).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub code: KeyCode,
    pub ctrl: bool,
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        let code = match event.code {
            // Some terminals send shift-g as g with Shift.
            KeyCode::Char(c) if event.modifiers.contains(KeyModifiers::SHIFT) => {
                KeyCode::Char(c.to_uppercase().next().unwrap_or(c))
            }
            KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => KeyCode::BackTab,
            code => code,
        };
        Self { code, ctrl: event.modifiers.contains(KeyModifiers::CONTROL) }
    }
}

const NAMED: &[(&str, KeyCode)] = &[
    ("esc", KeyCode::Esc),
    ("enter", KeyCode::Enter),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
    ("f1", KeyCode::F(1)),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
];

impl Key {
    /// Parses `q`, `ctrl-c`, `shift-tab`, `left`, …
    pub fn parse(text: &str) -> Option<Self> {
        let (ctrl, name) = match text.strip_prefix("ctrl-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let named = NAMED.iter().find(|(n, _)| *n == name).map(|(_, code)| *code);
        let mut chars = name.chars();
        let single = chars.next().filter(|_| chars.next().is_none()).map(KeyCode::Char);
        Some(Self { code: named.or(single)?, ctrl })
    }
}

/// The key for display: `←` rather than `left`.
pub fn pretty(key: &str) -> String {
    match key {
        "left" => "←".into(),
        "right" => "→".into(),
        "up" => "↑".into(),
        "down" => "↓".into(),
        "esc" => "Esc".into(),
        "enter" => "Enter".into(),
        "tab" => "Tab".into(),
        "shift-tab" => "Shift-Tab".into(),
        "home" => "Home".into(),
        "end" => "End".into(),
        "pageup" => "PgUp".into(),
        "pagedown" => "PgDn".into(),
        "f1" => "F1".into(),
        "space" => "Space".into(),
        "backspace" => "Backspace".into(),
        key => match key.strip_prefix("ctrl-") {
            Some(c) => format!("Ctrl-{}", c.to_uppercase()),
            None => key.into(),
        },
    }
}

/// A command's keys for display, as in `← h`.
pub struct Keys(pub &'static [&'static str]);

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.0.iter().map(|key| pretty(key)).collect();
        f.pad(&keys.join(" "))
    }
}

/// The command of a key on a screen.
pub fn command(key: Key, screen: Screen) -> Option<Command> {
    static MAP: OnceLock<HashMap<Key, Vec<Command>>> = OnceLock::new();
    let map = MAP.get_or_init(|| {
        let mut map: HashMap<Key, Vec<Command>> = HashMap::new();
        for entry in COMMANDS.iter() {
            for key in entry.keys.iter().filter_map(|key| Key::parse(key)) {
                map.entry(key).or_default().push(entry.command);
            }
        }
        map
    });
    map.get(&key)?.iter().copied().find(|command| command.entry().works_on(screen))
}

/// Why a key does nothing on a screen: it belongs to others, or to no command.
pub fn elsewhere(key: Key, screen: Screen) -> Option<String> {
    let is_it = |text: &&&str| Key::parse(text) == Some(key);
    let found = COMMANDS.iter().find_map(|entry| Some((entry, entry.keys.iter().find(is_it)?)));
    if let Some((entry, text)) = found {
        let screens: Vec<_> = entry.screens().map(Screen::name).collect();
        return Some(format!(
            "{} is `{}` on {}, not on {}",
            pretty(text),
            entry.name,
            listed(&screens),
            screen.name()
        ));
    }
    match key.code {
        KeyCode::Char(c) if !key.ctrl && !c.is_control() => {
            Some(format!("{c} does nothing: ? lists the keys"))
        }
        _ => None,
    }
}

/// `Stages`, `Stages and Walk`, `Stages, Walk and Lens`
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).into(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_is_one_and_leads_to_one_command() {
        for screen in Screen::ALL {
            let mut taken = HashMap::new();
            for entry in COMMANDS.iter().filter(|entry| entry.works_on(screen)) {
                for text in entry.keys {
                    let key = Key::parse(text).unwrap_or_else(|| panic!("{text} is no key"));
                    let other = taken.insert(key, entry.command);
                    assert_eq!(other, None, "{text} on {screen:?}");
                    assert_eq!(command(key, screen), Some(entry.command));
                }
            }
        }
    }

    #[test]
    fn shift_is_part_of_the_character() {
        let with = |code, modifiers| Key::from(KeyEvent::new(code, modifiers));
        assert_eq!(with(KeyCode::Char('g'), KeyModifiers::SHIFT), Key::parse("G").unwrap());
        assert_eq!(with(KeyCode::Char('G'), KeyModifiers::SHIFT), Key::parse("G").unwrap());
        assert_eq!(with(KeyCode::Tab, KeyModifiers::SHIFT), Key::parse("shift-tab").unwrap());
        assert_eq!(with(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::parse("ctrl-c").unwrap());
    }
}
