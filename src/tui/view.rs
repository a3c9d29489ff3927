//! A view as a small file: the model, the prompt, the changes, and what one looks at. `actscope view.toml` opens it.

use std::fmt::Write;

use serde::Deserialize;

use super::app::App;
use super::state::State;
use super::theme::line_of;
use crate::interventions::{Change, Intervention, Interventions};
use crate::run::{Input, Prompt};

/// The version of the format.
const VERSION: u32 = 1;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedView {
    #[serde(rename = "actscope-view")]
    version: u32,
    pub model: String,
    prompt: Option<String>,
    token_ids: Option<Vec<u32>>,
    #[serde(default)]
    bos: bool,
    #[serde(default)]
    changes: Vec<String>,
    /// What one looks at.
    pub look: State,
}

impl SavedView {
    /// The text of the file for what is on screen.
    pub fn text(app: &App) -> String {
        let mut out = format!(
            "# What actscope showed: open it with `actscope` and the name of this file.\nactscope-view = {VERSION}\n\
             model = {}\n",
            quoted(&app.asked_model)
        );
        let _ = match &app.input.prompt {
            Prompt::Text(text) => writeln!(out, "prompt = {}", quoted(text)),
            Prompt::Ids(ids) => writeln!(out, "token_ids = {ids:?}"),
        };
        let changes: Vec<_> =
            app.input.interventions.active().map(|one| quoted(&one.change.to_string())).collect();
        let _ = writeln!(out, "bos = {}\nchanges = [{}]\n\n[look]", app.input.bos, changes.join(", "));
        for (name, value) in State::of(app).fields() {
            let _ = writeln!(out, "{name} = {value}");
        }
        out
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// One sentence: what is wrong, in which line.
    pub fn read(text: &str) -> Result<Self, String> {
        let view: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            format!("is not a view of actscope: line {line}: {}", error.message().trim_end())
        })?;
        if view.version != VERSION {
            return Err(format!(
                "is a view of version {}; this actscope reads version {VERSION}",
                view.version
            ));
        }
        Ok(view)
    }

    /// What to run.
    ///
    /// # Errors
    /// One sentence, for a change that cannot be read, or no prompt.
    pub fn input(&self) -> Result<Input, String> {
        let prompt = match (&self.prompt, &self.token_ids) {
            (Some(text), None) => Prompt::Text(text.clone()),
            (None, Some(ids)) => Prompt::Ids(ids.clone()),
            _ => return Err("a view has either a prompt or token_ids".into()),
        };
        let change = |text: &String| {
            Ok(Intervention::from(text.parse::<Change>().map_err(|error| error.to_string())?))
        };
        let changes = self.changes.iter().map(change).collect::<Result<_, String>>()?;
        Ok(Input::new(prompt).with_bos(self.bos).with_interventions(Interventions(changes)))
    }
}

/// A string of TOML.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if crate::text::acts(c) => out.push_str(&format!("\\U{:08X}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let said = |text: &str| SavedView::read(text).unwrap_err();
        assert!(said("model = 3").starts_with("is not a view of actscope: line 1: "));
        assert!(said("actscope-view = 1\nmodel = \"demo\"\n[look]\nscren = \"x\"").contains("line"));
        let newer = "actscope-view = 7\nmodel = \"demo\"\n[look]\n";
        assert_eq!(said(newer), "is a view of version 7; this actscope reads version 1");
        let without = SavedView::read("actscope-view = 1\nmodel = \"demo\"\n[look]\n").unwrap();
        assert_eq!(without.input().unwrap_err(), "a view has either a prompt or token_ids");
    }

    proptest! {
        #[test]
        fn any_text_is_a_string_of_toml(text in any::<String>()) {
            let read: toml::de::DeTable = toml::de::DeTable::parse(Box::leak(format!("x = {}", quoted(&text)).into_boxed_str()))
                .unwrap()
                .into_inner();
            let (_, value) = read.iter().next().unwrap();
            prop_assert_eq!(value.get_ref().as_str().unwrap(), text);
        }
    }
}
