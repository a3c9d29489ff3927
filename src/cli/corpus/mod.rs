//! `actscope corpus`: what units do on many documents.

mod merge;
mod run;
mod show;
mod status;

use crate::error::Result;

/// Run a corpus, and show what neurons, heads, channels and features do on it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope corpus run docs.jsonl -o atlas --hooks 'blocks.*.mlp.hook_post' --reduce top,stats
  actscope corpus show neuron:2.117 --atlas atlas
  actscope corpus run *.parquet -o shards --shard 1/4
  actscope corpus merge shards -o atlas

A run that is stopped goes on where it ended: give the same command again.")]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
enum Command {
    Run(run::Args),
    Merge(merge::Args),
    Status(status::Args),
    Show(show::Args),
}

pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Merge(args) => merge::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Show(args) => show::run(&args),
    }
}
