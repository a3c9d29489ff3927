//! Keys, as written in the table of commands and as sent by the terminal.

use std::collections::HashMap;
use std::fmt;

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

impl Key {
    /// Parses what [`pretty`] writes.
    pub fn read(text: &str) -> Option<Self> {
        let named = NAMED.iter().find(|(name, _)| pretty(name) == text);
        match (named, text.strip_prefix("Ctrl-")) {
            (Some((name, _)), _) => Self::parse(name),
            (None, Some(c)) => Self::parse(&format!("ctrl-{}", c.to_lowercase())),
            (None, None) => Self::parse(text),
        }
    }
}

impl From<Key> for KeyEvent {
    fn from(key: Key) -> Self {
        Self::new(key.code, if key.ctrl { KeyModifiers::CONTROL } else { KeyModifiers::NONE })
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
pub struct Keys<'a, T>(pub &'a [T]);

impl<T: AsRef<str>> fmt::Display for Keys<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.0.iter().map(|key| pretty(key.as_ref())).collect();
        f.pad(&keys.join(" "))
    }
}

/// Which key does what.
#[derive(Debug, Clone)]
pub struct Keymap {
    /// The keys of each command, in the order of the table.
    keys: HashMap<Command, Vec<String>>,
    commands: HashMap<Key, Vec<Command>>,
}

impl Default for Keymap {
    fn default() -> Self {
        let keys = COMMANDS
            .iter()
            .map(|entry| (entry.command, entry.keys.iter().map(|&key| key.to_owned()).collect()));
        Self::of(keys.collect())
    }
}

impl Keymap {
    fn of(keys: HashMap<Command, Vec<String>>) -> Self {
        let mut commands: HashMap<Key, Vec<Command>> = HashMap::new();
        for entry in COMMANDS.iter() {
            for key in keys[&entry.command].iter().filter_map(|key| Key::parse(key)) {
                commands.entry(key).or_default().push(entry.command);
            }
        }
        Self { keys, commands }
    }

    /// Gives commands other keys, which are taken from the commands that have them on the same screens. Returns what
    /// became of commands that have none left.
    pub fn change(&mut self, changes: Vec<(Command, Vec<String>)>) -> Vec<String> {
        let changed: Vec<_> = changes.iter().map(|(command, _)| *command).collect();
        let mut said = Vec::new();
        for (command, keys) in changes {
            for other in COMMANDS.iter().filter(|other| !changed.contains(&other.command)) {
                let meets = Screen::ALL.iter().any(|&on| command.entry().works_on(on) && other.works_on(on));
                let theirs = self.keys.get_mut(&other.command).expect("every command is there");
                let before = theirs.len();
                theirs.retain(|key| !meets || !keys.iter().any(|taken| Key::parse(taken) == Key::parse(key)));
                if theirs.is_empty() && before > 0 {
                    said.push(format!("`{}` has no key any more: give it one", other.name));
                }
            }
            self.keys.insert(command, keys);
        }
        *self = Self::of(std::mem::take(&mut self.keys));
        said
    }

    /// The command of a key on a screen.
    pub fn command(&self, key: Key, screen: Screen) -> Option<Command> {
        self.commands.get(&key)?.iter().copied().find(|command| command.entry().works_on(screen))
    }

    /// The keys of a command, as they are written.
    pub fn keys(&self, command: Command) -> &[String] {
        &self.keys[&command]
    }

    /// The first of them, for display; empty if there is none.
    pub fn first(&self, command: Command) -> String {
        self.keys(command).first().map_or_else(String::new, |key| pretty(key))
    }

    /// Why a key does nothing on a screen: it belongs to others, or to no command.
    pub fn elsewhere(&self, key: Key, screen: Screen) -> Option<String> {
        let is_it = |text: &&String| Key::parse(text) == Some(key);
        let found =
            COMMANDS.iter().find_map(|entry| Some((entry, self.keys(entry.command).iter().find(is_it)?)));
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
                    assert_eq!(Keymap::default().command(key, screen), Some(entry.command));
                }
            }
        }
    }

    #[test]
    fn keys_are_changed_and_taken() {
        let mut keymap = Keymap::default();
        let key = |text| Key::parse(text).unwrap();
        let said = keymap.change(vec![(Command::Export, vec!["e".into(), "ctrl-e".into()])]);
        assert_eq!(keymap.command(key("e"), Screen::Tokens), Some(Command::Export));
        assert_eq!(keymap.command(key("ctrl-e"), Screen::Lens), Some(Command::Export));
        assert_eq!(keymap.command(key("x"), Screen::Tokens), None);
        assert_eq!(said, ["`edit` has no key any more: give it one"]);
        // They swap.
        let mut keymap = Keymap::default();
        let said =
            keymap.change(vec![(Command::Export, vec!["e".into()]), (Command::Edit, vec!["x".into()])]);
        assert_eq!(keymap.command(key("x"), Screen::Tokens), Some(Command::Edit));
        assert!(said.is_empty());
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
