//! What the explorer remembers of a model: the last screen, selection and colours, and the prompts.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::app::{App, Screen};
use super::view::quoted;
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::files;
use crate::picture::colormap::Palette;
use crate::run::Prompt;

/// The prompts that are kept, and the longest of them in bytes.
const PROMPTS: usize = 100;
const LONGEST: usize = 1 << 14;

/// A file of the folder of states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Of which model.
    model: String,
    screen: String,
    hook: String,
    layer: usize,
    head: usize,
    position: usize,
    key: usize,
    column: usize,
    palette: String,
    /// The newest last.
    pub prompts: Vec<String>,
}

/// What was found for a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub state: Option<State>,
    /// There is nothing of any model: the program is new to its user.
    pub first: bool,
    /// Why the file was left out.
    pub problem: Option<String>,
}

fn path(folder: &Path, model: &str) -> PathBuf {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(model));
    folder.join(format!("{:016x}.json", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
}

/// Reads what is remembered of a model.
pub fn load(folder: &Path, model: &str) -> Found {
    let first = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    let path = path(folder, model);
    let read = || -> Result<Option<State>> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path, files::STATE)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::file(&path, error.to_string()))
    };
    match read() {
        Ok(state) => Found { state: state.filter(|state| state.model == model), first, problem: None },
        Err(error) => {
            Found { state: None, first, problem: Some(format!("what was remembered is left out: {error}")) }
        }
    }
}

/// Writes what is to be remembered; a folder that cannot be written to remembers nothing.
pub fn save(folder: &Path, app: &App) {
    if app.run.is_none() {
        return;
    }
    let written = fs::create_dir_all(folder)
        .and_then(|()| serde_json::to_vec_pretty(&State::of(app)).map_err(Into::into));
    let path = path(folder, &app.asked_model);
    let saved = written.map(|bytes| {
        Destination::new(path).prepare().and_then(|file| file.write(|out| out.write_all(&bytes)))
    });
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "the state was not saved");
    }
}

impl State {
    pub fn of(app: &App) -> Self {
        let s = &app.selection;
        Self {
            model: app.asked_model.clone(),
            screen: app.screen.name().to_lowercase(),
            hook: s.hook.to_string(),
            layer: s.layer,
            head: s.head,
            position: s.position,
            key: s.key,
            column: s.column,
            palette: app.theme.palette.key().into(),
            prompts: app.history.clone(),
        }
    }

    #[must_use]
    pub fn with_prompts(self, prompts: Vec<String>) -> Self {
        Self { prompts, ..self }
    }

    /// What a view says of it: names, and values as in TOML.
    pub fn fields(&self) -> [(&'static str, String); 8] {
        [
            ("screen", quoted(&self.screen)),
            ("hook", quoted(&self.hook)),
            ("layer", self.layer.to_string()),
            ("head", self.head.to_string()),
            ("position", self.position.to_string()),
            ("key", self.key.to_string()),
            ("column", self.column.to_string()),
            ("palette", quoted(&self.palette)),
        ]
    }

    /// Puts it back, as far as the model has it; the selection counts from the first run on.
    pub fn restore(&self, app: &mut App) {
        let screen = Screen::ALL.into_iter().find(|screen| screen.name().to_lowercase() == self.screen);
        app.screen = screen.unwrap_or(app.screen);
        app.theme.palette = Palette::ALL
            .into_iter()
            .find(|palette| palette.key() == self.palette)
            .unwrap_or(app.theme.palette);
        if !self.prompts.is_empty() {
            app.history.clone_from(&self.prompts);
        }
        app.restored = Some(Box::new(self.clone()));
    }

    /// The selection, once there is a run.
    pub fn select(&self, app: &mut App) {
        let Some(run) = app.run.clone() else { return };
        let (config, last) = (run.config(), run.n_tokens() - 1);
        let s = &mut app.selection;
        s.layer = self.layer.min(config.n_layer - 1);
        s.head = self.head.min(config.n_head - 1);
        s.position = self.position.min(last);
        s.key = self.key.min(last);
        s.column = self.column.min(config.n_embd - 1);
        let hook = self.hook.parse().ok().filter(|hook| run.cache.names().contains(hook));
        s.hook = hook.unwrap_or(s.hook);
    }
}

impl App {
    /// Keeps the present prompt as the newest.
    pub fn remember_prompt(&mut self) {
        let Prompt::Text(text) = &self.input.prompt else { return };
        if text.trim().is_empty() || text.len() > LONGEST {
            return;
        }
        self.history.retain(|known| known != text);
        self.history.push(text.clone());
        let too_many = self.history.len().saturating_sub(PROMPTS);
        self.history.drain(..too_many);
    }
}
