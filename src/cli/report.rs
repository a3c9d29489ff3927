//! `actscope report`: a run as one page for someone without a terminal.

use std::path::{Path, PathBuf};

use super::args::{InputArgs, ModelArgs};
use super::output::{ending, say};
use crate::error::{Error, Result};
use crate::export::{Destination, report};
use crate::run::Run;
use crate::text;

/// Write a run as one self-contained web page: tokens, attention, lens, attribution
///
/// The page opens from disk and needs no network: the tokens with their surprise, the attention of every
/// head to look into, the logit lens, what contributes to the prediction, and the largest activations.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope report \"The cat sat on the mat\" -o cat.html
  actscope report --prompt-file poem.txt --model openai-community/gpt2 -o poem.html
  actscope report \"The cat sat on the\" --ablate head:1.5 -o changed.html")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Output file, .html, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: Args) -> Result<()> {
    let path = args.output;
    let is_page = matches!(ending(&path).as_deref(), Some("html" | "htm"));
    if !is_page && path != Path::new("-") {
        return Err(Error::usage(format!("{}: use a name that ends in .html, or -", text::path(&path))));
    }
    let input = args.input.required()?;
    // Find out now, not after a long run, whether it can be written.
    let to = Destination::new(&path).prepare()?;
    let run = Run::all(&args.model.load()?, input)?;
    let page = report::page(&run)?;
    let written = to.write(|out| out.write_all(page.as_bytes()))?;
    if path != Path::new("-") {
        say(&format!("{} ({})", text::path(&path), text::bytes(written)));
    }
    Ok(())
}
