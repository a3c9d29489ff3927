//! `actscope top`: the likeliest next tokens.

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print_json};
use crate::analysis::logits::Next;
use crate::error::Result;
use crate::hooks::HookFilter;
use crate::run::Run;
use crate::text::fixed;

/// Show the likeliest next tokens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope top \"Once upon a\" -k 5
  actscope top --position 2 --json \"The cat sat on the mat\"
  echo \"Call me\" | actscope top --model openai-community/gpt2 -")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Number of tokens to list
    #[arg(short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Position after which to predict, counted from 0; default: the last
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Write a JSON array of {rank, id, text, logit, prob}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row {
    rank: usize,
    id: u32,
    /// See `actscope tokens`.
    text: Option<String>,
    #[serde(serialize_with = "output::number")]
    logit: f32,
    #[serde(serialize_with = "output::number")]
    prob: f32,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load()?;
    let run = Run::new(&model, input, HookFilter::new(&["logits"], model.config())?, ())?;
    let next = Next::new(&run, args.position.unwrap_or(run.n_tokens() - 1), args.k as usize)?;

    if args.json {
        let row = |c: &crate::analysis::logits::Candidate| Row {
            rank: c.rank,
            id: c.id,
            text: model.tokenizer.bytes(c.id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            logit: c.logit,
            prob: c.prob,
        };
        return print_json(&next.top.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new([
        Column::Right("rank"),
        Column::Right("id"),
        Column::Left("text"),
        Column::Right("logit"),
        Column::Right("prob"),
    ]);
    for c in &next.top {
        table.row([
            c.rank.to_string(),
            c.id.to_string(),
            model.tokenizer.show(c.id),
            fixed(c.logit, 3),
            format!("{:.4}", c.prob),
        ]);
    }
    table.print()
}
