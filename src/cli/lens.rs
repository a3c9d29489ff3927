//! `actscope lens`: what each layer would predict.

use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print_json};
use crate::analysis::lens::{Lens, Reading, hooks_of, label, site};
use crate::analysis::logits::Candidate;
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, Site};
use crate::model::{FittedLens, Model};
use crate::run::{Input, Run};
use crate::text::num;

/// Show what each layer would predict: the logit lens, a tuned or a Jacobian lens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope lens \"The cat sat on the\"
  actscope lens \"The old man and the\" --token \" sea\" --position 4
  actscope lens --json -k 3 --prompt-file poem.txt
  actscope lens \"Once upon a\" --token 640 --model openai-community/gpt2
  actscope lens \"The cat sat on the\" --with tuned
  actscope lens \"The cat sat on the\" --with tuned --minus logit
  actscope lens \"Once upon a\" --model gpt2 --with lens/gpt2

Each residual stream goes through ln_f and the unembedding as if it were the final one: embed
(wte + wpe), then resid_mid and resid_post of every block. kl is D(final ‖ lens), in nats. The
weights are used as they are: nothing is folded.

A tuned lens (--with) reads resid_pre of every block, h + h · Wᵀ + b, a Jacobian lens resid_post, h · Jᵀ; then
follow ln_f and the unembedding. What leaves the last block is read as it is.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    how: LensArgs,
    /// Number of likeliest tokens to list
    #[arg(short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Position, counted from 0; default: the last in the table, all in JSON
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Write a JSON array of {layer, site, position, entropy_bits, kl, token_rank, token_prob, top},
    /// where top is an array of {id, text, prob}; with --minus the numbers are differences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub struct LensArgs {
    /// Token for token_rank and token_prob, as text or id (digits are an id); default: the final
    /// answer
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// A tuned or Jacobian lens: its folder or file, or ID:FOLDER on the hub; tuned and jacobian are those of the demo
    /// model
    #[arg(long, value_name = "PATH|ID")]
    with: Option<String>,
    /// Subtract what another lens reads: logit for the logit lens, or as for --with
    #[arg(long, value_name = "logit|PATH|ID")]
    minus: Option<String>,
}

/// The lens that is subtracted; `None` for the logit lens.
pub struct Other(pub Option<FittedLens>);

impl LensArgs {
    /// The lens that `--with` names.
    pub fn through(&self, args: &ModelArgs, model: &Model) -> Result<Option<FittedLens>> {
        self.with.as_deref().map(|name| args.lens(name, model)).transpose()
    }

    /// The lens that `--minus` names.
    pub fn minus(&self, args: &ModelArgs, model: &Model) -> Result<Option<Other>> {
        let lens = |name: &str| match name {
            "logit" => Ok(Other(None)),
            _ => Ok(Other(Some(args.lens(name, model)?))),
        };
        self.minus.as_deref().map(lens).transpose()
    }

    /// The chosen token.
    pub fn token(&self, model: &Model) -> Result<Option<u32>> {
        self.token.as_deref().map(|named| model.token(named)).transpose()
    }
}

/// A run that keeps what the lens reads.
pub fn run_for_lens(model: &Arc<Model>, input: Input, through: Option<&FittedLens>) -> Result<Run> {
    let keep = hooks_of(model.config(), through);
    Run::new(model, input, HookFilter::of(keep.into_iter().chain([Site::Logits.once()])), ())
}

#[derive(Serialize)]
struct Row {
    layer: Option<usize>,
    site: &'static str,
    position: usize,
    #[serde(serialize_with = "output::number")]
    entropy_bits: f32,
    #[serde(serialize_with = "output::number")]
    kl: f32,
    token_rank: i64,
    #[serde(serialize_with = "output::number")]
    token_prob: f32,
    top: Vec<Top>,
}

#[derive(Serialize)]
struct Top {
    id: u32,
    /// See `actscope tokens`.
    text: Option<String>,
    #[serde(serialize_with = "output::number")]
    prob: f32,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load()?;
    let token = args.how.token(&model)?;
    let through = args.how.through(&args.model, &model)?;
    let run = run_for_lens(&model, input, through.as_ref())?;
    let n = run.n_tokens();
    let positions = match args.position {
        Some(position) => {
            Error::check("position", position, 0..n)?;
            position..position + 1
        }
        None if args.json => 0..n,
        None => n - 1..n,
    };
    let k = args.k as usize;
    let lens = match args.how.minus(&args.model, &model)? {
        Some(Other(other)) => Lens::between(&run, (through.as_ref(), other.as_ref()), positions, token, k)?,
        None => Lens::through(&run, None, through.as_ref(), positions, token, k)?,
    };
    let base = lens.base.iter().flat_map(|base| &base.readings);
    let readings = lens.of.readings.iter().zip(base.map(Some).chain(std::iter::repeat(None)));

    if args.json {
        let rows: Vec<_> = readings.map(|(reading, base)| row(&model, reading, base)).collect();
        return print_json(&rows);
    }
    let mut table = Table::new([
        Column::Left("after"),
        Column::Right("entropy_bits"),
        Column::Right("kl"),
        Column::Right("token_rank"),
        Column::Right("token_prob"),
        Column::Left("top"),
    ]);
    for (reading, base) in readings {
        let row = row(&model, reading, base);
        let top = |c: &Candidate| format!("{} {:.3}", model.tokenizer.show(c.id), c.prob);
        table.row([
            label(reading.hook),
            num(row.entropy_bits),
            num(row.kl),
            row.token_rank.to_string(),
            format!("{:.4}", row.token_prob),
            reading.top.iter().map(top).collect::<Vec<_>>().join("  "),
        ]);
    }
    table.print()
}

/// A reading, less that of another lens if there is one.
fn row(model: &Model, reading: &Reading, base: Option<&Reading>) -> Row {
    let (site, layer) = site(reading.hook);
    let top = |c: &Candidate| Top {
        id: c.id,
        text: model.tokenizer.bytes(c.id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        prob: c.prob,
    };
    Row {
        layer,
        site,
        position: reading.position,
        entropy_bits: reading.entropy_bits - base.map_or(0.0, |base| base.entropy_bits),
        kl: reading.kl - base.map_or(0.0, |base| base.kl),
        token_rank: reading.token.rank as i64 - base.map_or(0, |base| base.token.rank as i64),
        token_prob: reading.token.prob - base.map_or(0.0, |base| base.token.prob),
        top: reading.top.iter().map(top).collect(),
    }
}
