//! `actscope tokens`: a prompt as the network sees it.

use serde::Serialize;

use super::args::{ModelArgs, PromptArgs};
use super::output::{Column, Table, print_json};
use crate::error::Result;

/// Show the tokens of a prompt
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope tokens \"The cat sat on the mat\"
  actscope tokens --json --prompt-file poem.txt
  actscope tokens --model openai-community/gpt2 --token-ids 464,3797")]
pub struct Args {
    #[command(flatten)]
    input: PromptArgs,
    /// Write a JSON array of {position, id, text, bytes}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row {
    position: usize,
    id: u32,
    /// Bytes that are not UTF-8 by themselves become U+FFFD; null without a tokenizer.
    text: Option<String>,
    bytes: Option<Vec<u8>>,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load()?;
    let ids = input.tokens(&model)?;
    model.net.check_ids(&ids)?;

    if args.json {
        let row = |(position, id): (usize, u32)| {
            let bytes = model.tokenizer.bytes(id);
            let text = bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            Row { position, id, text, bytes }
        };
        return print_json(&ids.into_iter().enumerate().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new([
        Column::Right("position"),
        Column::Right("id"),
        Column::Left("text"),
        Column::Left("bytes"),
    ]);
    for (position, id) in ids.into_iter().enumerate() {
        let bytes = model.tokenizer.bytes(id).unwrap_or_default();
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        table.row([position.to_string(), id.to_string(), model.tokenizer.show(id), bytes.join(" ")]);
    }
    table.print()
}
