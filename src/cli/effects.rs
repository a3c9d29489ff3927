//! `actscope effects`: the prediction without each head and each MLP.

use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print_json};
use super::progress::count;
use crate::analysis::base::WithBase;
use crate::analysis::effects::{Effects, Question};
use crate::error::Result;
use crate::model::Model;
use crate::run::{Input, Run};
use crate::text::num;

/// Show how the prediction changes without each head and each MLP
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope effects \"The old man saw the young woman, and the old\"
  actscope effects --position 3 --token \" the\" --json \"The old man saw the young woman\"
  actscope effects --mean --ablate head:1.5 --prompt-file poem.txt

Each is ablated by itself, at all positions. delta_logprob is the change in the natural
log-probability of one token (the likeliest without ablation, or --token) after one
position: negative if the component helps it. kl is D(with ‖ without), in nats. first_order is what the
gradient of the log-probability predicts for delta_logprob. With --ablate,
--knockout and the like, everything is measured on top of those changes.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Token whose log-probability to measure, as text or id; default: the likeliest
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// Position after which to predict, counted from 0; default: the last
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Write a JSON array of {component, layer, head, delta_logprob, kl, first_order}; head is null for an MLP
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row {
    component: &'static str,
    layer: usize,
    head: Option<usize>,
    #[serde(serialize_with = "output::number")]
    delta_logprob: f32,
    #[serde(serialize_with = "output::number")]
    kl: f32,
    /// null where gradients do not pass the changes.
    first_order: Option<f64>,
}

/// The run and the effects of its components, with progress on standard error.
pub fn measure(
    model: &Arc<Model>,
    inputs: WithBase<Input>,
    (position, token, mean): (Option<usize>, Option<u32>, bool),
) -> Result<(Run, WithBase<Effects>)> {
    let runs = inputs.runs(|input| Run::all(model, input))?;
    let run = runs.of;
    let position = position.unwrap_or(run.n_tokens() - 1);
    let question = Question { position, token, mean };
    let effects = Effects::with_base(&run, runs.base.as_ref(), question, count("ablating"))?;
    Ok((run, effects))
}

pub fn run(mut args: Args) -> Result<()> {
    let mean = args.input.take_mean();
    let input = args.input.required()?;
    let model = args.model.load()?;
    let token = args.token.map(|named| model.token(&named)).transpose()?;
    let (_, effects) = measure(&model, WithBase::one(input), (args.position, token, mean))?;

    if args.json {
        let rows = effects.of.all.iter().map(|effect| Row {
            component: effect.component(),
            layer: effect.layer,
            head: effect.head,
            delta_logprob: effect.delta_logprob as f32,
            kl: effect.kl as f32,
            first_order: effect.first_order,
        });
        return print_json(&rows.collect::<Vec<_>>());
    }
    let names = ["delta_logprob", "kl", "first_order"].map(Column::Right);
    let mut table = Table::new([Column::Left("without")].into_iter().chain(names));
    for effect in &effects.of.all {
        let first_order = effect.first_order.map_or_else(|| "–".to_owned(), |x| num(x as f32));
        table.row([effect.name(), num(effect.delta_logprob as f32), num(effect.kl as f32), first_order]);
    }
    table.print()
}
