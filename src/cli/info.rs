//! `actscope info`: what a model is.

use super::args::ModelArgs;
use super::output::{print, print_object};
use crate::error::Result;
use crate::model::About;
use crate::text::{pad, plain};

/// Say what a model is and how its files were read
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope info
  actscope info openai-community/gpt2
  actscope info out/ckpt.pt --json | jq .n_params")]
pub struct Args {
    /// The model; the same as --model
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    named: Option<String>,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: Args) -> Result<()> {
    let model = args.model.or_named(args.named).load_quietly()?;
    model.provenance.weights_sha256()?;
    let about = About::new(&model);
    if args.json {
        return print_object(&about);
    }
    let lines = about.lines();
    let margin = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, what) in lines {
        text += &format!("{}{}\n", pad(name, margin), plain(&what));
    }
    print(&text)
}
