//! `actscope [PROMPT]`: the explorer.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::CommandFactory;

use super::args::{Color, InputArgs, ModelArgs};
use super::config;
use crate::corpus::Atlas;
use crate::engine::{Beside, saved};
use crate::error::{Error, Result};
use crate::foreign::Foreign;
use crate::model::{LoadOptions, Source};
use crate::run::Input;
use crate::tui;
use crate::tui::clipboard::Clipboard;
use crate::tui::graphics;
use crate::tui::keymap::Keymap;
use crate::tui::settings::Settings;
use crate::tui::state;
use crate::tui::theme::Themes;

/// A sample that repeats itself, so that induction heads have something to do.
const SAMPLE: &str =
    "Alice said to the White Rabbit that the Red Queen was late. The White Rabbit said to Alice that the Red";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Tuned or Jacobian lens for the screen Lens: its folder or file, or ID:FOLDER on the hub
    #[arg(long = "lens", value_name = "PATH|ID", help_heading = "Model")]
    lenses: Vec<String>,
    /// What the features of --dictionary are about: Neuronpedia's JSON lines, or lines of a feature and its label
    #[arg(long, value_name = "FILE", help_heading = "Model", requires = "dictionaries")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    screen: ScreenArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Screen")]
#[allow(clippy::struct_excessive_bools)] // flags
struct ScreenArgs {
    /// Number of colours
    #[arg(long, value_name = "COLORS", default_value = "auto")]
    color: Color,
    /// Use colours for a light background; without --light or --dark, the terminal is asked
    #[arg(long, conflicts_with = "dark")]
    light: bool,
    /// Use colours for a dark background
    #[arg(long)]
    dark: bool,
    /// How maps are drawn: in pixels (kitty, sixel, iterm), in half characters, or as the terminal can
    #[arg(long, value_name = "HOW", value_parser = graphics::Choice::NAMES)]
    graphics: Option<String>,
    /// Leave the mouse to the terminal, for selecting text
    #[arg(long)]
    no_mouse: bool,
    /// Where y copies to: auto takes the system's clipboard, over SSH that of the terminal
    #[arg(long, value_name = "WHERE", value_parser = Clipboard::NAMES)]
    clipboard: Option<String>,
    /// Theme: dark, light, high-contrast, high-contrast-light, or a file
    #[arg(long, value_name = "NAME", conflicts_with_all = ["light", "dark"])]
    theme: Option<String>,
    /// Start clean: without the last screen, selection and prompts of this model
    #[arg(long)]
    fresh: bool,

    /// Folder of the results of `actscope corpus run`: E shows what a unit does there
    #[arg(long, value_name = "DIR")]
    atlas: Option<PathBuf>,
}

/// Runs the explorer, perhaps with what another program computed beside the run.
pub fn run(args: Args, given: Given, mut beside: Option<Beside>) -> Result<()> {
    // With the prompt on standard input, keys are read from the terminal itself.
    let keys = args.input.reads_stdin() || std::io::stdin().is_terminal();
    if !keys || !std::io::stdout().is_terminal() {
        let which = if keys { "output" } else { "input" };
        return Err(Error::usage(format!(
            "the explorer needs a terminal, but standard {which} is not one; in scripts use the \
             subcommands {}",
            for_scripts().join(", ")
        )));
    }
    if let Some(term) = std::env::var_os("TERM").filter(|term| term == "dumb") {
        return Err(Error::usage(format!(
            "the terminal cannot draw (TERM={}); in scripts use the subcommands {}",
            term.to_string_lossy(),
            for_scripts().join(", ")
        )));
    }
    let (settings, mut problems) =
        config::read().unwrap_or_else(|error| (Settings::default(), vec![error.to_string()]));
    let screen = args.screen;
    // A run of ours needs no model to be looked at.
    let alone = |beside: &&Beside| !given.model && !args.input.has_prompt() && beside.mapping.is_empty();
    let saved = beside.as_ref().filter(alone).map(|beside| saved::open(&beside.path)).transpose()?.flatten();
    if let Some(run) = &saved {
        beside = None;
        problems.extend(run.model.provenance.notes.iter().cloned());
    }
    let foreign = beside.as_ref().map(|beside| Foreign::about(&beside.path)).transpose()?;
    let view = if foreign.is_some() { None } else { args.input.view()? };
    let of_file = foreign.as_ref().and_then(|foreign| foreign.model.clone());
    let named = view.as_ref().map(|view| view.model.clone()).or(of_file).or(settings.model);
    let source = match named {
        Some(model) if !given.model => Source::parse(&model),
        _ => args.model.source(),
    };
    let atlas = screen.atlas.as_deref().map(Atlas::open).transpose()?;
    let folder = config::state();
    let mut found = match &folder {
        Some(folder) if !screen.fresh && foreign.is_none() && saved.is_none() => {
            state::load(folder, &source.to_string())
        }
        _ => state::Found::default(),
    };
    let last = found.state.as_ref().and_then(|state| state.prompts.last()).map_or(SAMPLE, String::as_str);
    let has_bos = args.input.bos();
    let own = foreign.as_ref().and_then(|foreign| foreign.tokens.as_ref()?.first().cloned());
    let mut input = match (&view, own) {
        _ if saved.is_some() => saved.as_ref().map_or_else(|| Input::ids([]), |run| run.input.clone()),
        (Some(view), _) => view.input().map_err(Error::usage)?,
        (None, Some(ids)) if !args.input.has_prompt() => Input::ids(ids),
        (None, None) if foreign.is_some() && !args.input.has_prompt() => {
            return Err(Error::usage(
                "no prompt given, and the file has no token ids: pass the prompt that it was run on, or --token-ids 1,2,3",
            ));
        }
        (None, _) => args.input.or(last)?,
    };
    if let Some(view) = view {
        let prompts = found.state.map(|state| state.prompts).unwrap_or_default();
        found.state = Some(view.look.with_prompts(prompts));
    }
    input.bos |= has_bos || (settings.bos && foreign.is_none() && saved.is_none());
    // A theme on the command line is wrong or right; one in the settings is said to be wrong.
    let mut themes = None;
    if let Some(name) = &screen.theme {
        themes = Some(Themes::named(name, &config::theme).map_err(Error::usage)?);
    } else if let Some(name) = settings.theme.as_ref().filter(|_| !screen.light && !screen.dark) {
        match Themes::named(name, &config::theme) {
            Ok(found) => themes = Some(found),
            Err(problem) => problems.push(problem),
        }
    }
    let mut keymap = Keymap::default();
    problems.extend(keymap.change(settings.keys));
    let graphics = screen.graphics.as_deref().and_then(graphics::Choice::named);
    let clipboard = screen.clipboard.as_deref().and_then(Clipboard::named);
    tui::run(tui::Options {
        source,
        load: LoadOptions { lenses: args.lenses, labels: args.labels, ..args.model.options() },
        input,
        light: themes.map(|(_, light)| light).or((screen.light || screen.dark).then_some(screen.light)),
        depth: screen.color.depth().or(settings.color),
        graphics: graphics.unwrap_or(settings.graphics),
        mouse: settings.mouse && !screen.no_mouse,
        clipboard: clipboard.unwrap_or(settings.clipboard),
        themes: themes.map_or_else(Themes::default, |(themes, _)| themes),
        palette: settings.palette,
        sampling: settings.sampling,
        keymap,
        problems,
        atlas,
        beside,
        saved,
        found,
        folder,
    })
}

/// What the command line says itself, rather than by default.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    pub model: bool,
}

/// The subcommands that compute something.
fn for_scripts() -> Vec<String> {
    let cli = super::Cli::command();
    let names = cli.get_subcommands().map(|command| command.get_name().to_owned());
    names.filter(|name| !["completions", "config", "man", "open", "help"].contains(&name.as_str())).collect()
}
