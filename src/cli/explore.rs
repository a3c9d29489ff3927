//! `actscope [PROMPT]`: the explorer.

use std::io::IsTerminal;

use clap::CommandFactory;

use super::args::{Color, InputArgs, ModelArgs};
use crate::error::{Error, Result};
use crate::tui;
use crate::tui::clipboard::Clipboard;

/// A sample that repeats itself, so that induction heads have something to do.
const SAMPLE: &str =
    "Alice said to the White Rabbit that the Red Queen was late. The White Rabbit said to Alice that the Red";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    screen: ScreenArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Screen")]
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
    /// Leave the mouse to the terminal, for selecting text
    #[arg(long)]
    no_mouse: bool,
    /// Where y copies to: auto takes the system's clipboard, over SSH that of the terminal
    #[arg(long, value_name = "WHERE", default_value = "auto", value_parser = ["auto", "osc52", "system"])]
    clipboard: String,
}

pub fn run(args: Args) -> Result<()> {
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
    let screen = args.screen;
    tui::run(tui::Options {
        source: args.model.source(),
        load: args.model.options(),
        input: args.input.or(SAMPLE)?,
        light: (screen.light || screen.dark).then_some(screen.light),
        depth: screen.color.depth(),
        mouse: !screen.no_mouse,
        clipboard: match screen.clipboard.as_str() {
            "osc52" => Clipboard::Osc52,
            "system" => Clipboard::System,
            _ => Clipboard::Auto,
        },
    })
}

/// The subcommands that compute something.
fn for_scripts() -> Vec<String> {
    let cli = super::Cli::command();
    let names = cli.get_subcommands().map(|command| command.get_name().to_owned());
    names.filter(|name| !["completions", "man", "help"].contains(&name.as_str())).collect()
}
