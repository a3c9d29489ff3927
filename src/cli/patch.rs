//! `actscope patch`: activations of one prompt patched into the run of another.

use std::sync::Arc;

use serde::Serialize;

use super::args::{ModelArgs, TokenIds};
use super::output::{self, print, print_object};
use super::progress::count;
use super::what_if::WhatIfArgs;
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::error::{Error, Result};
use crate::interventions::{Interventions, Place};
use crate::model::Model;
use crate::run::{Input, Prompt, Run};
use crate::text::num;

/// Patch activations from a clean prompt into a corrupt one, one at a time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope patch --clean \"The old man saw the young woman, and the old\" \\
    --corrupt \"The young man saw the old woman, and the old\" \\
    --token \" man\" --versus \" woman\" --sweep resid_pre --json
  actscope patch --clean \"A boy and a girl\" --corrupt \"A cat and a dog\" --sweep heads
  actscope patch --clean \"One two\" --corrupt \"One three\" --at head:1.5 --at resid_mid.2@1
  actscope patch --clean \"A boy and a girl\" --corrupt \"A cat and a dog\" --sweep neurons.2 --first-order

Each value is the recovered logit difference of --token over --versus at the last position:
(patched − corrupt) / (clean − corrupt): 1 if fully restored, 0 if nothing changes.
Sweeps of resid_pre, resid_mid, attn_out and mlp_out patch one position of one block; those of heads, q,
k, v and pattern one head at all positions. NAME.3 is a sweep of block 3 alone: heads.3 patches its heads
position by position, neurons.3 its neurons at all positions.
Prompts must have equal length, except with --last, which patches the last position only.
By default, --token and --versus are, among both prompts' ten likeliest tokens, those whose
log-probability falls and rises most from the clean prompt to the corrupt one.")]
pub struct Args {
    /// Prompt to take activations from
    #[arg(long, value_name = "TEXT", required_unless_present = "clean_ids")]
    clean: Option<String>,
    /// The same, as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "clean")]
    clean_ids: Option<TokenIds>,
    #[command(flatten)]
    corrupt: CorruptArgs,
    /// Put the model's BOS token first in both prompts
    #[arg(long)]
    bos: bool,
    /// Token that the clean prompt favours, as text or id
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// Token that the corrupt prompt favours
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    versus: Option<String>,
    #[arg(long, value_name = "SWEEP", required_unless_present = "at", conflicts_with = "at", help = help())]
    sweep: Option<Sweep>,
    /// Patch these places instead of a sweep, each by itself: targets as for --ablate, and the
    /// tensors of attention
    #[arg(long, value_name = "TARGET")]
    at: Vec<Place>,
    /// Predict a sweep from one backward pass instead: attribution patching, (clean − corrupt) · gradient in the
    /// corrupt run
    #[arg(long, conflicts_with = "at")]
    first_order: bool,
    /// Write a JSON object of {sweep, rows, columns, values, first_order} and the two tokens and differences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    what_if: WhatIfArgs,
    #[command(flatten)]
    model: ModelArgs,
}

fn help() -> String {
    format!("Activations to patch, one place at a time: {}", Sweep::names())
}

/// The corrupt prompt.
#[derive(Debug, Clone, clap::Args)]
pub struct CorruptArgs {
    /// Prompt to patch
    #[arg(long, value_name = "TEXT")]
    corrupt: Option<String>,
    /// The same, as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "corrupt")]
    corrupt_ids: Option<TokenIds>,
    /// Patch the last position only, for prompts of any length
    #[arg(long)]
    last: bool,
}

impl CorruptArgs {
    /// Patches a sweep of activations from `input` into this prompt.
    pub fn sweep(
        &self,
        model: &Arc<Model>,
        input: Input,
        (token, versus): (Option<u32>, Option<u32>),
        sweep: Sweep,
    ) -> Result<(Patching, Swept)> {
        let other =
            Input { prompt: prompt(self.corrupt.clone(), self.corrupt_ids.clone())?, ..input.clone() };
        let [clean, corrupt] = [input, other].map(|input| Run::all(model, input).map(Arc::new));
        let patching = Patching::new(clean?, corrupt?, token, versus)?;
        let swept = patching.sweep(sweep, self.last, count("patching"), |_| {})?;
        Ok((patching, swept))
    }
}

fn prompt(text: Option<String>, ids: Option<TokenIds>) -> Result<Prompt> {
    let given = ids.map(|TokenIds(ids)| Prompt::Ids(ids)).or(text.map(Prompt::Text));
    given.ok_or_else(|| Error::usage("no second prompt given: use --corrupt TEXT or --corrupt-ids IDS"))
}

pub fn run(args: Args) -> Result<()> {
    let interventions = args.what_if.read()?;
    let last = args.corrupt.last;
    let prompts =
        [prompt(args.clean, args.clean_ids)?, prompt(args.corrupt.corrupt, args.corrupt.corrupt_ids)?];
    let model = args.model.load()?;
    let token = |named: Option<String>| named.map(|named| model.token(&named)).transpose();
    let (token, versus) = (token(args.token)?, token(args.versus)?);
    let [clean, corrupt] = prompts.map(|prompt| ready(&model, prompt, args.bos, &interventions));
    let patching = Patching::new(clean?, corrupt?, token, versus)?;

    let Some(sweep) = args.sweep else {
        return at(&patching, &args.at, last, args.json);
    };
    let swept = if args.first_order {
        patching.first_order(sweep, last, &patching.gradients()?)?
    } else {
        patching.sweep(sweep, last, count("patching"), |_| {})?
    };
    if args.json {
        let values = swept.values.iter().map(|row| row.iter().map(|&x| Number(x)).collect()).collect();
        let of = About::new(&patching);
        return print_object(&Grid {
            sweep: sweep.name(),
            rows: swept.rows,
            columns: swept.columns,
            values,
            first_order: args.first_order,
            of,
        });
    }
    let predicted = if args.first_order { "; predicted by the gradient" } else { "" };
    let mut text = format!("{}{predicted}\n{:>6}", words(&patching), sweep.nouns().0);
    for column in &swept.columns {
        text.push_str(&format!("{column:>9}"));
    }
    for (layer, row) in swept.rows.iter().zip(&swept.values) {
        text.push_str(&format!("\n{layer:>6}"));
        for value in row {
            text.push_str(&format!(" {:>8}", num(*value)));
        }
    }
    text.push('\n');
    print(&text)
}

fn at(patching: &Patching, places: &[Place], last: bool, json: bool) -> Result<()> {
    let patch = |&place: &Place| Ok((place.to_string(), patching.recovered(place, last)?));
    let patches = places.iter().map(patch).collect::<Result<Vec<_>>>()?;
    if json {
        let patches = patches.into_iter().map(|(at, x)| Patch { at, recovered: Number(x) }).collect();
        return print_object(&Patches { patches, of: About::new(patching) });
    }
    let lines = patches.iter().map(|(at, recovered)| format!("\n{:>8}  {at}", num(*recovered)));
    print(&format!("{}{}\n", words(patching), lines.collect::<String>()))
}

/// The run of one of the two prompts, with everything that can be patched.
fn ready(model: &Arc<Model>, prompt: Prompt, bos: bool, interventions: &Interventions) -> Result<Arc<Run>> {
    let input = Input::new(prompt).with_bos(bos).with_interventions(interventions.clone());
    Ok(Arc::new(Run::all(model, input)?))
}

/// A line that explains the values.
fn words(patching: &Patching) -> String {
    let show = |id: u32| patching.clean.model.tokenizer.show(id);
    format!(
        "logit of {} over {}: clean {}, corrupt {}",
        show(patching.token),
        show(patching.versus),
        num(patching.clean_difference),
        num(patching.corrupt_difference)
    )
}

/// A number in JSON.
#[derive(Serialize)]
struct Number(#[serde(serialize_with = "output::number")] f32);

#[derive(Serialize)]
struct Grid {
    sweep: String,
    rows: Vec<usize>,
    columns: Vec<usize>,
    values: Vec<Vec<Number>>,
    /// Whether the values are predicted.
    first_order: bool,
    #[serde(flatten)]
    of: About,
}

#[derive(Serialize)]
struct Patches {
    patches: Vec<Patch>,
    #[serde(flatten)]
    of: About,
}

#[derive(Serialize)]
struct Patch {
    at: String,
    recovered: Number,
}

/// The two tokens, and the logit difference in each prompt.
#[derive(Serialize)]
struct About {
    token: u32,
    versus: u32,
    clean: Number,
    corrupt: Number,
}

impl About {
    fn new(of: &Patching) -> Self {
        let (clean, corrupt) = (Number(of.clean_difference), Number(of.corrupt_difference));
        Self { token: of.token, versus: of.versus, clean, corrupt }
    }
}
