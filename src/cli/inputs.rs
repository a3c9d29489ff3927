//! `actscope inputs`: which tokens of the prompt account for a number of the run.

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::gradients::MetricArgs;
use super::output::{self, Column, Table, print, print_object, text_of};
use super::progress::count;
use crate::analysis::gradients::{Inputs, Method, Stop};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::text::{fixed, num, signed_fixed};
use crate::tui::widgets::bar::bar;

/// Show which tokens of the prompt account for a prediction
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope inputs \"The old man saw the young woman, and the old\"
  actscope inputs \"The old man saw the young woman, and the old\" --metric 'logit_diff: man, woman' --method ig
  actscope inputs \"The old man and the\" --metric loss --method ig:100 --json

The input of a token is its row of wte, the baseline 0 in its place; positions stay. grad_x_input is x · ∂metric/∂x. \
ig, integrated gradients, takes the mean gradient on the way from the baseline: its values add up to the metric minus \
that of the baseline, up to the error of the steps, which is shown. Metrics are those of `actscope gradients`.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    metric: MetricArgs,
    /// How: `grad_x_input`, or ig with 32 steps, ig:STEPS with another number
    #[arg(long, value_name = "METHOD", default_value = "grad_x_input")]
    method: Method,
    /// Write {metric, method, steps, value, baseline, sum, tokens: [{position, id, text, value}]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Answer {
    metric: String,
    method: &'static str,
    steps: Option<usize>,
    value: f64,
    baseline: f64,
    sum: f64,
    tokens: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    position: usize,
    id: u32,
    text: Option<String>,
    #[serde(serialize_with = "output::number")]
    value: f32,
}

pub fn run(args: Args) -> Result<()> {
    if args.metric.stop() != Stop::default() {
        return Err(Error::usage("--stop is not for inputs: what is held constant would not add up"));
    }
    let input = args.input.required()?;
    let model = args.model.load()?;
    let run = Run::all(&model, input)?;
    let metric = args.metric.of(&run)?;
    let inputs = Inputs::new(&run, &metric, args.method, count("gradient"))?;
    if args.json {
        let token = |(position, value): (usize, &f64)| {
            let id = run.tokens[position];
            Row { position, id, text: text_of(&model, id), value: *value as f32 }
        };
        return print_object(&Answer {
            metric: metric.to_string(),
            method: args.method.name(),
            steps: match args.method {
                Method::Integrated(steps) => Some(steps),
                Method::GradTimesInput => None,
            },
            value: inputs.value,
            baseline: inputs.baseline,
            sum: inputs.sum(),
            tokens: inputs.values.iter().enumerate().map(token).collect(),
        });
    }
    print(&format!("{}: {}\n", metric.words(&model), num(inputs.value as f32)))?;
    let most = inputs.values.iter().fold(0f64, |most, x| most.max(x.abs()));
    let mut table = Table::new([
        Column::Right("position"),
        Column::Left("token"),
        Column::Right("value"),
        Column::Left(""),
    ]);
    for (position, value) in inputs.values.iter().enumerate() {
        let share = if most > 0.0 { (value / most).abs() as f32 } else { 0.0 };
        table.row([position.to_string(), run.token_text(position), signed_fixed(*value, 4), bar(share, 30)]);
    }
    table.print()?;
    print(&format!(
        "\nsum {}; the metric minus that of the baseline: {} − {} = {}\n",
        fixed(inputs.sum(), 4),
        fixed(inputs.value, 4),
        fixed(inputs.baseline, 4),
        fixed(inputs.difference(), 4)
    ))
}
