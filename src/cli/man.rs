//! `actscope man`: the man pages, from the same definitions as the help.

use std::path::PathBuf;

use clap::{Command, CommandFactory};

use super::{Cli, output};
use crate::error::{Error, Result};
use crate::export::write_directory;

/// Print the man page of actscope or of a subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope man | man -l -
  actscope man export > actscope-export.1
  actscope man -o ~/.local/share/man/man1           # all pages")]
pub struct Args {
    /// Subcommand to print the page of
    subcommand: Option<String>,
    /// Directory to write the pages of all subcommands into
    #[arg(short, long, value_name = "DIR", conflicts_with = "subcommand")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let subcommands: Vec<_> = cli.get_subcommands().map(named).collect();
    if let Some(directory) = &args.output {
        let commands = [cli.clone()].into_iter().chain(subcommands);
        let pages: Vec<_> = commands
            .map(|command| (format!("{}.1", command.get_display_name().unwrap_or("actscope")), page(command)))
            .collect();
        write_directory(directory, &pages)?;
        return Ok(());
    }
    let command = match &args.subcommand {
        None => cli,
        Some(name) => subcommands
            .into_iter()
            .find(|command| command.get_name() == name)
            .ok_or_else(|| Error::usage(format!("no subcommand `{name}`; see --help")))?,
    };
    output::print(&page(command))
}

/// With the name of its page.
fn named(subcommand: &Command) -> Command {
    subcommand.clone().display_name(format!("actscope-{}", subcommand.get_name()))
}

fn page(command: Command) -> String {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).expect("writing to a vector does not fail");
    String::from_utf8_lossy(&page).into_owned()
}
