//! Settings of the explorer: `config.toml`, read line by line of what it says, and explained.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::clipboard::Clipboard;
use super::command::{COMMANDS, Command};
use super::graphics;
use super::keymap::Key;
use super::theme::{Depth, line_of};
use crate::analysis::logits::Sampling;
use crate::picture::colormap::Palette;

/// What the file says; what it does not say is as by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A theme by name; `None`: dark or light, as the terminal.
    pub theme: Option<String>,
    pub palette: Palette,
    /// `None`: what the terminal can.
    pub color: Option<Depth>,
    pub model: Option<String>,
    pub bos: bool,
    pub graphics: graphics::Choice,
    pub mouse: bool,
    pub clipboard: Clipboard,
    pub sampling: Sampling,
    /// The keys of commands.
    pub keys: Vec<(Command, Vec<String>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: None,
            palette: Palette::default(),
            color: None,
            model: None,
            bos: false,
            graphics: graphics::Choice::default(),
            mouse: true,
            clipboard: Clipboard::default(),
            sampling: Sampling::default(),
            keys: Vec::new(),
        }
    }
}

/// One row of the table of settings.
pub struct Setting {
    pub name: &'static str,
    /// As in the file.
    pub default: &'static str,
    pub doc: &'static str,
    /// Takes the value, or says what was expected.
    take: fn(&mut Settings, &DeValue) -> Option<()>,
    expected: &'static str,
}

/// *The* table of settings, the source of the reader, of `actscope config` and of the README.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "theme",
        default: "\"auto\"",
        doc: "Colours of the screen: auto (as the terminal), dark, light, high-contrast, high-contrast-light, or a file in the folder themes",
        take: |settings, value| {
            settings.theme = Some(word(value)?).filter(|name| name != "auto");
            Some(())
        },
        expected: "the name of a theme",
    },
    Setting {
        name: "palette",
        default: "\"blue-red\"",
        doc: "Colours of maps: blue-red, orange-purple (safe for any kind of colour vision) or grey",
        take: |settings, value| {
            let name = word(value)?;
            settings.palette = Palette::ALL.into_iter().find(|palette| palette.key() == name)?;
            Some(())
        },
        expected: "blue-red, orange-purple or grey",
    },
    Setting {
        name: "color",
        default: "\"auto\"",
        doc: "Number of colours: auto, truecolor, 256, 16 or never",
        take: |settings, value| {
            settings.color = match word(value)?.as_str() {
                "auto" => None,
                "truecolor" => Some(Depth::True),
                "256" => Some(Depth::Indexed),
                "16" => Some(Depth::Sixteen),
                "never" => Some(Depth::Mono),
                _ => return None,
            };
            Some(())
        },
        expected: "auto, truecolor, 256, 16 or never",
    },
    Setting {
        name: "model",
        default: "\"demo\"",
        doc: "Model to explore: demo, a hub id, a directory, or a file of weights",
        take: |settings, value| {
            settings.model = Some(word(value)?);
            Some(())
        },
        expected: "the name of a model",
    },
    Setting {
        name: "bos",
        default: "false",
        doc: "Put the model's BOS token before the prompt",
        take: |settings, value| {
            settings.bos = value.as_bool()?;
            Some(())
        },
        expected: "true or false",
    },
    Setting {
        name: "graphics",
        default: "\"auto\"",
        doc: "How maps are drawn: auto (in pixels where the terminal is known to show them), kitty, sixel, iterm, or half (half characters)",
        take: |settings, value| {
            settings.graphics = graphics::Choice::named(&word(value)?)?;
            Some(())
        },
        expected: "auto, kitty, sixel, iterm or half",
    },
    Setting {
        name: "mouse",
        default: "true",
        doc: "Use the mouse; false leaves it to the terminal, for selecting text",
        take: |settings, value| {
            settings.mouse = value.as_bool()?;
            Some(())
        },
        expected: "true or false",
    },
    Setting {
        name: "clipboard",
        default: "\"auto\"",
        doc: "Where y copies to: auto (the system's clipboard, over SSH that of the terminal), osc52 or system",
        take: |settings, value| {
            settings.clipboard = Clipboard::named(&word(value)?)?;
            Some(())
        },
        expected: "auto, osc52 or system",
    },
    Setting {
        name: "temperature",
        default: "1.0",
        doc: "Temperature of sampling; 0 always picks the likeliest token",
        take: |settings, value| {
            settings.sampling.temperature = number(value).filter(|x| (0.0..=5.0).contains(x))?;
            Some(())
        },
        expected: "a number from 0 to 5",
    },
    Setting {
        name: "top_k",
        default: "0",
        doc: "Sample from the k likeliest tokens; 0: from all",
        take: |settings, value| {
            settings.sampling.top_k = Some(whole(value)?).filter(|k| *k > 0).map(|k| k as usize);
            Some(())
        },
        expected: "a whole number",
    },
    Setting {
        name: "top_p",
        default: "1.0",
        doc: "Sample from the likeliest tokens that together have this probability",
        take: |settings, value| {
            let p = number(value).filter(|p| *p > 0.0 && *p <= 1.0)?;
            settings.sampling.top_p = Some(p).filter(|p| *p < 1.0);
            Some(())
        },
        expected: "a number above 0, at most 1",
    },
    Setting {
        name: "seed",
        default: "0",
        doc: "Seed of sampling",
        take: |settings, value| {
            settings.sampling.seed = whole(value)?;
            Some(())
        },
        expected: "a whole number",
    },
];

fn word(value: &DeValue) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number(value: &DeValue) -> Option<f64> {
    match value {
        DeValue::Integer(x) => x.as_str().parse().ok(),
        DeValue::Float(x) => x.as_str().parse().ok().filter(|x: &f64| x.is_finite()),
        _ => None,
    }
}

fn whole(value: &DeValue) -> Option<u64> {
    match value {
        DeValue::Integer(x) if x.radix() == 10 => x.as_str().parse().ok(),
        _ => None,
    }
}

impl Settings {
    /// Reads a file; returns what it says, and a sentence with its line for each part that is wrong and left out.
    pub fn read(text: &str) -> (Self, Vec<String>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut settings = Self::default();
        let mut problems: Vec<(usize, String)> = errors
            .iter()
            .map(|error| (error.span().map_or(0, |span| span.start), error.message().trim_end().to_owned()))
            .collect();
        // What is left of a line that is no TOML says nothing.
        let broken: Vec<_> = problems.iter().map(|(at, _)| line_of(text, *at)).collect();
        for (name, value) in table.get_ref() {
            let at = name.span().start;
            if broken.contains(&line_of(text, at)) {
                continue;
            }
            let name: &str = name.get_ref();
            if let Err(problem) = settings.take(name, value) {
                problems.extend(problem.into_iter().map(|(inside, said)| (inside.unwrap_or(at), said)));
            }
        }
        problems.sort();
        let said = |(at, said): (usize, String)| format!("config.toml, line {}: {said}", line_of(text, at));
        (settings, problems.into_iter().map(said).collect())
    }

    fn take(&mut self, name: &str, value: &Spanned<DeValue>) -> Result<(), Vec<(Option<usize>, String)>> {
        if name == "keys" {
            let Some(table) = value.get_ref().as_table() else {
                return Err(vec![(None, "`keys` is not a table: write [keys]".into())]);
            };
            let problems: Vec<_> = table
                .iter()
                .filter_map(|(name, value)| {
                    let said = self.take_keys(name.get_ref(), value.get_ref()).err()?;
                    Some((Some(name.span().start), said))
                })
                .collect();
            return if problems.is_empty() { Ok(()) } else { Err(problems) };
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let names = SETTINGS.iter().map(|setting| setting.name).chain(["keys"]);
            return Err(vec![(None, format!("no setting `{name}`{}", nearest(name, names)))]);
        };
        (setting.take)(self, value.get_ref())
            .ok_or_else(|| vec![(None, format!("`{name}` should be {}", setting.expected))])
    }

    fn take_keys(&mut self, name: &str, value: &DeValue) -> Result<(), String> {
        let Some(entry) = COMMANDS.iter().find(|entry| entry.name == name) else {
            let names = COMMANDS.iter().map(|entry| entry.name);
            return Err(format!("no command `{name}`{}", nearest(name, names)));
        };
        let words = match value {
            DeValue::String(key) => vec![key.to_string()],
            DeValue::Array(keys) => {
                keys.iter().map(|key| word(key.get_ref())).collect::<Option<_>>().ok_or_else(|| {
                    format!("the keys of `{name}` should be a list such as [\"x\", \"ctrl-e\"]")
                })?
            }
            _ => return Err(format!("the keys of `{name}` should be a list such as [\"x\", \"ctrl-e\"]")),
        };
        if let Some(wrong) = words.iter().find(|word| Key::parse(word).is_none()) {
            return Err(format!("`{wrong}` is not a key: a character, ctrl-e, enter, tab, left, pageup …"));
        }
        self.keys.push((entry.command, words));
        Ok(())
    }
}

/// `: did you mean …?`, if something is near.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = names.map(|known| (distance(known), known)).min();
    match near {
        Some((distance, known)) if distance <= 3 => format!(": did you mean `{known}`?"),
        _ => String::new(),
    }
}

/// A file that says what is so by default, explained.
pub fn defaults() -> String {
    let mut out = String::from(
        "# Settings of the explorer. What the command line says comes first; a line that is wrong is named and left out.\n",
    );
    for Setting { name, default, doc, .. } in SETTINGS {
        out.push_str(&format!("\n# {doc}.\n{name} = {default}\n"));
    }
    out.push_str(
        "\n# Keys of commands. A key that is given to one command is taken from others on the same screens.\n[keys]\n",
    );
    for entry in COMMANDS.iter() {
        let keys: Vec<_> = entry.keys.iter().map(|key| format!("{key:?}")).collect();
        out.push_str(&format!("# {} = [{}] # {}\n", entry.name, keys.join(", "), entry.doc));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_defaults_are_the_defaults() {
        let (settings, problems) = Settings::read(&defaults());
        assert_eq!(problems, [""; 0]);
        let same = Settings { model: None, ..settings };
        assert_eq!(same, Settings::default());
        // Every line of keys is one when it is no comment.
        let all = defaults()
            .replace("\n# ", "\n")
            .lines()
            .filter(|line| line.contains("= ["))
            .fold("[keys]".to_owned(), |all, line| all + "\n" + line);
        let (settings, problems) = Settings::read(&all);
        assert_eq!(problems, [""; 0]);
        assert_eq!(settings.keys.len(), COMMANDS.len());
    }

    #[test]
    fn one_wrong_line_is_one_sentence_and_the_rest_counts() {
        let text = "theme = \"light\"\npalete = \"grey\"\ntemperature = \"hot\"\nbos = tru\ntop_k = 5\n\n[keys]\nexport = [\"ctrl-e\"]\nexprt = \"x\"\nedit = \"enterr\"\n";
        let (settings, problems) = Settings::read(text);
        assert_eq!(settings.theme.as_deref(), Some("light"));
        assert_eq!(settings.sampling.top_k, Some(5));
        assert_eq!(settings.keys, [(Command::Export, vec!["ctrl-e".to_owned()])]);
        assert_eq!(problems[0], "config.toml, line 2: no setting `palete`: did you mean `palette`?");
        assert_eq!(problems[1], "config.toml, line 3: `temperature` should be a number from 0 to 5");
        assert!(problems[2].starts_with("config.toml, line 4: "), "{problems:?}");
        assert_eq!(problems[3], "config.toml, line 9: no command `exprt`: did you mean `export`?");
        assert!(problems[4].starts_with("config.toml, line 10: `enterr` is not a key"));
        assert_eq!(problems.len(), 5);
    }

    proptest! {
        #[test]
        fn anything_is_read(text in "[a-z_ =\"\\[\\]0-9.\n#]{0,80}") {
            let (_, problems) = Settings::read(&text);
            prop_assert!(problems.iter().all(|said| said.starts_with("config.toml, line ")));
        }
    }
}
