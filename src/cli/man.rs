//! `actscope man`: the manual page, from the same tree as the help.

use clap::CommandFactory;

use super::{Cli, output};
use crate::error::{Error, Result};

/// Write the manual page, of actscope or of a subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope man | man -l -
  actscope man export > actscope-export.1")]
pub struct Args {
    /// The subcommand that the page is about
    subcommand: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.subcommand {
        None => cli,
        Some(name) => {
            let found = cli.find_subcommand(name).cloned();
            let found = found
                .ok_or_else(|| Error::usage(format!("there is no subcommand `{name}`; --help lists them")))?;
            found.display_name(format!("actscope-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).expect("a vector takes all that is written");
    output::print(&String::from_utf8_lossy(&page))
}
