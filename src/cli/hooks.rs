//! `actscope hooks`: the table of hook points, for one model.

use serde::Serialize;

use super::args::ModelArgs;
use super::output::{Column, Table, print_json};
use crate::error::{Error, Result};
use crate::hooks::TensorName;
use crate::text;

/// List every tensor that can be captured, with its shape
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope hooks
  actscope hooks --model openai-community/gpt2 --tokens 12
  actscope hooks --json | jq -r '.[].name'")]
pub struct Args {
    /// Prompt length for shapes and bytes; default: the whole context
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Write a JSON array of {name, short, shape, bytes, formula, doc, on_request}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row {
    name: String,
    short: String,
    shape: Vec<usize>,
    bytes: u64,
    formula: &'static str,
    doc: &'static str,
    /// Kept only if a pattern names nothing else.
    on_request: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let config = model.config();
    let longest = config.n_positions;
    let n_tokens = args.tokens.unwrap_or(longest);
    Error::check("--tokens", n_tokens, 1..longest + 1)?;
    let row = |name: TensorName| {
        let shape = name.shape(config, n_tokens);
        Row {
            name: name.to_string(),
            short: name.short(),
            bytes: shape.iter().product::<usize>() as u64 * 4,
            shape,
            formula: name.formula(),
            doc: name.doc(),
            on_request: name.on_request(),
        }
    };
    let rows: Vec<_> = model.tensors().into_iter().map(row).collect();

    if args.json {
        return print_json(&rows);
    }
    let mut table = Table::new([
        Column::Left("name"),
        Column::Left("short"),
        Column::Left("shape"),
        Column::Right("bytes"),
        Column::Left("formula"),
        Column::Left("doc"),
    ]);
    for row in rows {
        let shape: Vec<_> = row.shape.iter().map(ToString::to_string).collect();
        let on_request = if row.on_request { " (only on request)" } else { "" };
        table.row([
            row.name,
            row.short,
            format!("({})", shape.join(", ")),
            text::bytes(row.bytes),
            row.formula.to_owned(),
            format!("{}{on_request}", row.doc),
        ]);
    }
    table.print()
}
