//! `actscope neighbours`: the rows of the embeddings that are nearest to a row.

use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print_json, text_of};
use crate::analysis::View;
use crate::analysis::weights::{Neighbour, embedding, nearest};
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookFilter, HookName};
use crate::model::Model;
use crate::picture::Matrix;
use crate::run::{Input, Run};

/// Show the nearest neighbours of a row, by cosine similarity
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope neighbours \" sea\"                              a token, among all tokens
  actscope neighbours 7 --of wpe                          a position, among all positions
  actscope neighbours 3 \"The old man sat\" --of resid_post.2   a row of a tensor, among all tokens

Rows are compared as they are: nothing is centred or folded.")]
pub struct Args {
    /// Row to compare: a token as text or id (for wte), or a position
    #[arg(value_name = "ROW", allow_hyphen_values = true)]
    row: String,
    #[command(flatten)]
    input: InputArgs,
    /// Source of the row: wte, wpe, or a hook with rows of width C, such as resid_post.2
    #[arg(long, value_name = "wte|wpe|HOOK", default_value = "wte")]
    of: String,
    /// Head, if the hook has heads
    #[arg(long, value_name = "H")]
    head: Option<usize>,
    /// Number of neighbours to list
    #[arg(short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Write a JSON array of {rank, id, text, cosine}; for wpe, {rank, position, cosine}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct TokenRow {
    rank: usize,
    id: u32,
    /// See `actscope tokens`.
    text: Option<String>,
    #[serde(serialize_with = "output::number")]
    cosine: f32,
}

#[derive(Serialize)]
struct PositionRow {
    rank: usize,
    position: usize,
    #[serde(serialize_with = "output::number")]
    cosine: f32,
}

pub fn run(args: Args) -> Result<()> {
    let input = if is_table(&args.of) {
        no_prompt(&args.of, &args.input)?;
        None
    } else {
        Some(args.input.required()?)
    };
    let model = args.model.load()?;
    let k = args.k as usize;
    let found = match input {
        None => of_table(&model, &args.of, &args.row, k)?,
        Some(input) => of_run(&model, input, (&args.of, args.head, &args.row), k)?.0,
    };
    if args.of == "wpe" {
        if args.json {
            let row = |(i, n): (usize, &Neighbour)| PositionRow {
                rank: i + 1,
                position: n.row,
                cosine: n.cosine as f32,
            };
            return print_json(&found.iter().enumerate().map(row).collect::<Vec<_>>());
        }
        let mut table =
            Table::new([Column::Right("rank"), Column::Right("position"), Column::Right("cosine")]);
        for (i, n) in found.iter().enumerate() {
            table.row([(i + 1).to_string(), n.row.to_string(), format!("{:.4}", n.cosine)]);
        }
        return table.print();
    }
    if args.json {
        let row = |(i, n): (usize, &Neighbour)| TokenRow {
            rank: i + 1,
            id: n.row as u32,
            text: text_of(&model, n.row as u32),
            cosine: n.cosine as f32,
        };
        return print_json(&found.iter().enumerate().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new([
        Column::Right("rank"),
        Column::Right("id"),
        Column::Left("text"),
        Column::Right("cosine"),
    ]);
    for (i, n) in found.iter().enumerate() {
        let text = model.tokenizer.show(n.row as u32);
        table.row([(i + 1).to_string(), n.row.to_string(), text, format!("{:.4}", n.cosine)]);
    }
    table.print()
}

/// Whether `of` is a table of the weights.
pub fn is_table(of: &str) -> bool {
    matches!(of, "wte" | "wpe")
}

/// Refuses a prompt if `what` depends on the weights alone.
pub fn no_prompt(what: &str, prompt: &InputArgs) -> Result<()> {
    if prompt.is_given() {
        return Err(Error::usage(format!("{what} does not depend on the prompt: leave the prompt out")));
    }
    Ok(())
}

fn position(row: &str) -> Result<usize> {
    row.parse().map_err(|_| Error::usage(format!("`{row}` is not a position: positions count from 0")))
}

/// The `k` nearest neighbours of a row of wte, or of wpe.
pub fn of_table(model: &Model, of: &str, row: &str, k: usize) -> Result<Vec<Neighbour>> {
    let (table, row) = match of {
        "wpe" => (Matrix::of(&model.net.wpe)?, position(row)?),
        _ => (embedding(&model.net)?, model.token(row)? as usize),
    };
    Error::check("position", row, 0..table.n_rows)?;
    Ok(nearest(&table.row(row), &table, k, Some(row)))
}

/// The `k` rows of wte nearest to a row of a hook, and the run of that row.
pub fn of_run(
    model: &Arc<Model>,
    input: Input,
    (of, head, row): (&str, Option<usize>, &str),
    k: usize,
) -> Result<(Vec<Neighbour>, Run)> {
    let hook = HookName::find(of, model.config())?;
    let view = View::hook(hook, head.unwrap_or(0));
    if view.axes() != (Axis::Pos, Axis::Model) {
        return Err(Error::usage(format!(
            "the rows of {hook} are not in the residual stream, as those of wte are: choose a hook \
             whose shape ends in C, such as resid_post.0"
        )));
    }
    let position = position(row)?;
    let run = Run::new(model, input, HookFilter::new(&[hook.to_string()], model.config())?, ())?;
    Error::check("position", position, 0..run.n_tokens())?;
    Ok((nearest(&view.matrix(&run)?.row(position), &embedding(&model.net)?, k, None), run))
}
