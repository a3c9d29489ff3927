//! `actscope corpus status`: how far a run is.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::output::{Column, Table, print_json};
use crate::corpus::merge::{Status, status};
use crate::error::Result;

/// Show how far the runs in a folder are
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope corpus status shards
  actscope corpus status shards --json | jq 'map(select(.complete | not))'

What is shown is what was recorded last: a run that goes on is further.")]
pub struct Args {
    /// Folder of a run, or of its shards
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Write a JSON array of {folder, shard, complete, documents, tokens, next_document}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    folder: String,
    shard: Option<String>,
    complete: bool,
    documents: u64,
    tokens: u64,
    next_document: u64,
}

impl Row {
    fn new(status: &Status) -> Self {
        let progress = status.manifest.as_ref().map(|manifest| &manifest.progress);
        Self {
            folder: status.folder.display().to_string(),
            shard: status.manifest.as_ref().map(|manifest| manifest.shard.to_string()),
            complete: progress.is_some_and(|progress| progress.complete),
            documents: progress.map_or(0, |progress| progress.documents),
            tokens: progress.map_or(0, |progress| progress.tokens),
            next_document: progress.map_or(0, |progress| progress.next_document),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for folder in &args.folders {
        rows.extend(status(folder)?.iter().map(Row::new));
    }
    if args.json {
        return print_json(&rows);
    }
    let mut table = Table::new([
        Column::Left("folder"),
        Column::Left("shard"),
        Column::Left("state"),
        Column::Right("documents"),
        Column::Right("tokens"),
    ]);
    for row in rows {
        let state = match (&row.shard, row.complete) {
            (None, _) => "not begun",
            (_, true) => "finished",
            (_, false) => "not finished",
        };
        let shard = row.shard.unwrap_or_else(|| "–".into());
        table.row([row.folder, shard, state.into(), row.documents.to_string(), row.tokens.to_string()]);
    }
    table.print()
}
