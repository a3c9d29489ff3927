//! `actscope open`: another program's activations, or a saved run, in the explorer.

use std::path::PathBuf;

use super::explore::{self, Given};
use crate::engine::Beside;
use crate::error::Result;
use crate::foreign::Mapping;
use crate::foreign::check::Options;
use crate::foreign::names::Dialect;

/// Explore another program's activations, or a saved run, beside the live run
#[derive(Debug, clap::Args)]
#[group(id = "open")]
#[command(after_help = "\
Examples:
  actscope open run.safetensors
  actscope open mine.npz --model openai-community/gpt2
  actscope open mine.safetensors \"The cat sat\" --map names.txt
  actscope open z.npy --hook z.3 --token-ids 464,3797,3332

A run that `actscope export` wrote (.safetensors or .npz, with all positions) is opened alone: what needs only tensors
works without the model, and what needs weights asks for it. With --model, and for what `actscope check` reads, the
screen Compare shows every tensor of the file as mine, as reference (the live run) or as the difference, and starts at
the first that is off; all other screens show the live run.")]
pub struct Args {
    /// File of the activations
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The most that a value may be off
    #[arg(long, value_name = "X", default_value_t = 1e-4, help_heading = "File")]
    tolerance: f32,
    /// What the only array of a .npy file is
    #[arg(long, value_name = "NAME", help_heading = "File")]
    hook: Option<String>,
    /// Names of theirs and ours: lines of two, or a JSON object
    #[arg(long, value_name = "FILE", help_heading = "File")]
    map: Option<PathBuf>,
    /// Whose names they are, where two programs mean different things by one
    #[arg(long, value_enum, value_name = "PROGRAM", help_heading = "File")]
    names: Option<Dialect>,
    #[command(flatten)]
    explore: explore::Args,
}

pub fn run(args: Args, given: Given) -> Result<()> {
    let mapping = args.map.as_deref().map(Mapping::read).transpose()?.unwrap_or_default();
    let options = Options { tolerance: args.tolerance, dialect: args.names };
    let beside = Beside { path: args.file, hook: args.hook, mapping, options };
    explore::run(args.explore, given, Some(beside))
}
