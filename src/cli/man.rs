//! `actscope man`: the man page, from the same definitions as the help.

use clap::CommandFactory;

use super::{Cli, output};
use crate::error::{Error, Result};

/// Print the man page of actscope or of a subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope man | man -l -
  actscope man export > actscope-export.1")]
pub struct Args {
    /// Subcommand to print the page of
    subcommand: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.subcommand {
        None => cli,
        Some(name) => {
            let found = cli.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| Error::usage(format!("no subcommand `{name}`; see --help")))?;
            found.display_name(format!("actscope-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).expect("writing to a vector does not fail");
    output::print(&String::from_utf8_lossy(&page))
}
