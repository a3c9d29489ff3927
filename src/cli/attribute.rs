//! `actscope attribute`: how much each component contributes to a logit.

use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print, print_object};
use crate::analysis::attribution::{Attribution, Contribution};
use crate::error::Result;
use crate::hooks::HookFilter;
use crate::model::Model;
use crate::run::{Input, Run};
use crate::text::{count, fixed, signed_fixed};
use crate::tui::widgets::bar::bar;

/// Show how much each component contributes to a logit
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope attribute \"The old man and the\"
  actscope attribute \"The old man and the\" --token \" sea\" --versus \" land\" --json
  actscope attribute \"The old man and the\" --position 2 --neurons 3
  actscope attribute \"The old man and the\" --total

The parts are what the embeddings, heads (without bias), MLPs (without bias) and biases write to the residual \
stream, seen through the final LayerNorm with its scale frozen and through the unembedding; weights are as \
in the checkpoint. They add up to the logit, except for the residue, which is rounding. The total of a part is first-order: \
how much the logit would fall if it were taken away and everything after it were linear; totals do not add up.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Token to score, as text or id; default: the likeliest
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    #[command(flatten)]
    of: AttributionArgs,
    /// Also list the neurons of this block's MLP
    #[arg(long, value_name = "L")]
    neurons: Option<usize>,
    /// Also show the total effect of each part, by the gradient: what it wrote at all positions, through everything
    /// that reads it
    #[arg(long)]
    total: bool,
    /// Number of neurons to list
    #[arg(short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Write {position, token, versus, logit, parts: [{component, layer, head, value}], residue}; with --total, also
    /// total
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Arguments shared with `render attribution`.
#[derive(Debug, Clone, clap::Args)]
pub struct AttributionArgs {
    /// Position whose logits to look at, counted from 0; default: the last
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Subtract the logit of this token
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    versus: Option<String>,
}

impl AttributionArgs {
    pub fn versus(&self, model: &Model) -> Result<Option<u32>> {
        self.versus.as_deref().map(|named| model.token(named)).transpose()
    }

    /// The position, if given.
    pub fn given(&self) -> Option<usize> {
        self.position
    }

    pub fn position(&self, run: &Run) -> usize {
        self.position.unwrap_or(run.n_tokens() - 1)
    }
}

/// A run that keeps what attribution reads.
pub fn run_for_attribution(model: &Arc<Model>, input: Input) -> Result<Run> {
    Run::new(model, input, HookFilter::new(&Attribution::HOOKS, model.config())?, ())
}

#[derive(Serialize)]
struct Answer {
    position: usize,
    token: u32,
    versus: Option<u32>,
    #[serde(serialize_with = "output::number")]
    logit: f32,
    parts: Vec<PartRow>,
    #[serde(serialize_with = "output::number")]
    residue: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    neurons: Option<Vec<NeuronRow>>,
}

#[derive(Serialize)]
struct PartRow {
    component: &'static str,
    layer: Option<usize>,
    head: Option<usize>,
    #[serde(serialize_with = "output::number")]
    value: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
}

#[derive(Serialize)]
struct NeuronRow {
    layer: usize,
    neuron: usize,
    #[serde(serialize_with = "output::number")]
    post: f32,
    #[serde(serialize_with = "output::number")]
    value: f32,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load()?;
    let token = args.token.map(|token| model.token(&token)).transpose()?;
    let versus = args.of.versus(&model)?;
    let run = if args.total { Run::all(&model, input)? } else { run_for_attribution(&model, input)? };
    let position = args.of.position(&run);
    let attribution = Attribution::new(&run, position, token, versus)?;
    let totals = if args.total { attribution.totals(&run)? } else { vec![None; attribution.parts.len()] };
    let of_layer = |layer| attribution.neurons(&run, layer, args.k as usize).map(|found| (layer, found));
    let neurons = args.neurons.map(of_layer).transpose()?;

    if args.json {
        let part = |(part, total): (&Contribution, &Option<f64>)| PartRow {
            total: *total,
            component: part.component.name(),
            layer: part.component.layer(),
            head: part.component.head(),
            value: part.value as f32,
        };
        let neuron = |layer, n: &crate::analysis::attribution::Neuron| NeuronRow {
            layer,
            neuron: n.neuron,
            post: n.post,
            value: n.value as f32,
        };
        return print_object(&Answer {
            position,
            token: attribution.token,
            versus,
            logit: attribution.logit as f32,
            parts: attribution.parts.iter().zip(&totals).map(part).collect(),
            residue: attribution.residue as f32,
            neurons: neurons.map(|(layer, neurons)| neurons.iter().map(|n| neuron(layer, n)).collect()),
        });
    }
    let show = |id| format!("{} ({id})", model.tokenizer.show(id));
    let versus = versus.map_or_else(String::new, |versus| format!(" minus {}", show(versus)));
    print(&format!(
        "{}{versus} after {} (position {position}): {}, the sum of {}, residue {:.1e}\n",
        show(attribution.token),
        run.token_text(position),
        fixed(attribution.logit, 4),
        count(attribution.parts.len(), "part"),
        attribution.residue
    ))?;
    let ranked = attribution.ranked();
    let bar_of = |value: f64, most: f64| bar((value / most).abs() as f32, 30);
    let most = ranked[0].value;
    let total_of = |part: &Contribution| {
        let found = attribution.parts.iter().position(|one| one.component == part.component);
        found.and_then(|i| totals[i]).map_or_else(|| "–".to_owned(), |total| signed_fixed(total, 4))
    };
    let mut columns = vec![Column::Left("component"), Column::Right("wrote")];
    columns.extend(args.total.then_some(Column::Right("total")));
    columns.push(Column::Left(""));
    let mut table = Table::new(columns);
    for part in &ranked {
        let mut row = vec![part.component.to_string(), signed_fixed(part.value, 4)];
        row.extend(args.total.then(|| total_of(part)));
        row.push(bar_of(part.value, most));
        table.row(row);
    }
    table.print()?;
    let Some((layer, neurons)) = neurons else { return Ok(()) };
    print(&format!("\nneurons of MLP {layer} with the largest contributions\n"))?;
    let mut table =
        Table::new([Column::Left("neuron"), Column::Right("post"), Column::Right("wrote"), Column::Left("")]);
    let most = neurons.first().map_or(1.0, |n| n.value);
    for n in &neurons {
        let name = format!("{layer}.{}", n.neuron);
        table.row([name, fixed(n.post, 4), signed_fixed(n.value, 4), bar_of(n.value, most)]);
    }
    table.print()
}
