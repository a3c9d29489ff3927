//! `actscope corpus merge`: shards into one.

use std::path::PathBuf;

use crate::cli::output::print;
use crate::cli::progress;
use crate::corpus::merge;
use crate::error::Result;
use crate::text::{count, path};

/// Merge the shards of a corpus, as if one process had run it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope corpus merge shards -o atlas
  actscope corpus merge a b c -o atlas

A folder may be that of a shard, or have folders of shards in it. Shards that are missing, not finished, there
twice, or of other runs are refused, each by name.")]
pub struct Args {
    /// Folders of shards
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder of the result
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let manifest = merge::merge(&args.folders, &args.output, &mut progress::count("shards"))?;
    let progress = &manifest.progress;
    print(&format!(
        "{}, {}, in {}\n",
        count(progress.documents as usize, "document"),
        count(progress.tokens as usize, "token"),
        path(&args.output)
    ))
}
