//! `actscope completions`: shell completions.

use clap::CommandFactory;

use super::{Cli, output};
use crate::error::Result;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope completions bash > ~/.local/share/bash-completion/completions/actscope
  actscope completions fish > ~/.config/fish/completions/actscope.fish")]
pub struct Args {
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "actscope", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
