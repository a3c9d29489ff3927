//! `actscope gradients`: how a number of the run changes with every other.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::export::Positions;
use super::output::{self, Column, Table, print, print_object, say};
use crate::analysis::gradients::{Gradients, Metric, Stop};
use crate::error::{Error, Result};
use crate::export::{Destination, Export, Format};
use crate::hooks::{Part, TensorName};
use crate::picture::matrix::index;
use crate::run::Run;
use crate::text::{self, num};

/// Compute the gradient of a logit, loss or activation for every tensor
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope gradients \"The old man and the\" --metric 'logit_diff: sea, land'
  actscope gradients \"The old man and the\" --metric loss --hooks 'resid_post.*' --json
  actscope gradients \"The old man and the\" --metric 'value:post.2[4,117]' -o neuron.safetensors
  actscope gradients \"The old man and the\" --ablate head:1.5 --stop scale --stop pattern

Metrics: logit:TOKEN, logit_diff:A,B, logprob:TOKEN and entropy, each with @POSITION for another than the last; loss, or \
loss:A..B for the tokens A to B − 1, each predicted from those before it; value:HOOK[i,j,…] for an element of a tensor, or the sum \
where an index is * or missing. Logarithms are natural.
A gradient is ∂metric/∂x of the tensor x as it goes on, after changes. Changes are part of what is differentiated: what \
is put in place of values passes nothing on. A file holds NAME.grad for each hook; `actscope check --metric` compares \
such files.
Columns: mean |g| and the largest |g| of all elements, where it is, and Σ g · x, the change if x went to 0 and all were linear.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    metric: MetricArgs,
    /// Tensors: names, short names or globs (see `actscope hooks`); default: all
    #[arg(long, value_name = "GLOB")]
    hooks: Vec<String>,
    /// Write the gradients to a file, - for standard output: .safetensors, .npz, .json, .csv or .npy
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Positions to write to the file: A..B, A.. or ..B, where B is excluded
    #[arg(long, value_name = "A..B", requires = "output")]
    positions: Option<Positions>,
    /// Write {metric, value, stop, tensors: [{name, shape, mean_abs, largest, at, times_value}]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// What is differentiated.
#[derive(Debug, Clone, clap::Args)]
pub struct MetricArgs {
    /// Number to differentiate, such as logit:TOKEN, logit_diff:A,B@POS, loss or value:HOOK[i,j]; default: the
    /// log-probability of the likeliest next token
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// Take these as constants, so that gradients do not pass through them: the scales of LayerNorms, attention patterns
    #[arg(long, value_enum, value_name = "WHAT")]
    stop: Vec<StopAt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StopAt {
    Scale,
    Pattern,
}

impl MetricArgs {
    /// The metric for a run.
    pub fn of(&self, run: &Run) -> Result<Metric> {
        match &self.metric {
            Some(text) => Metric::parse(text, &run.model, run.n_tokens()),
            None => Metric::of_prediction(run),
        }
    }

    /// Whether one was named.
    pub fn is_given(&self) -> bool {
        self.metric.is_some()
    }

    pub fn stop(&self) -> Stop {
        let has = |what| self.stop.contains(&what);
        Stop { scale: has(StopAt::Scale), pattern: has(StopAt::Pattern) }
    }
}

#[derive(Serialize)]
struct Answer {
    metric: String,
    value: f64,
    stop: Vec<&'static str>,
    tensors: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    shape: Vec<usize>,
    #[serde(serialize_with = "output::number")]
    mean_abs: f32,
    /// The one of the largest magnitude.
    #[serde(serialize_with = "output::number")]
    largest: f32,
    at: Vec<usize>,
    #[serde(serialize_with = "output::number")]
    times_value: f32,
}

pub fn run(args: Args) -> Result<()> {
    let to = match &args.output {
        Some(path) => Some((Format::of_path(path)?, destination(path)?)),
        None => None,
    };
    let input = args.input.required()?;
    let model = args.model.load()?;
    let names = match args.hooks.as_slice() {
        [] => model.choose(&["*"])?,
        globs => model.choose(globs)?,
    };
    let run = Run::all(&model, input)?;
    let gradients = run.gradients_with(&args.metric.of(&run)?, args.metric.stop(), &|| Ok(()))?;
    if let Some((format, to)) = to {
        let positions = args.positions.map(|positions| positions.of(run.n_tokens()));
        let export = Export::of_gradients(&gradients, &names, positions, format)?;
        let written = export.write(to)?;
        let path = args.output.unwrap_or_default();
        if path.as_os_str() != "-" {
            let (tensors, bytes) = (text::count(written.tensors, "gradient"), text::bytes(written.bytes));
            say(&format!("{tensors}, {bytes}, in {}", text::path(&path)));
        }
        return Ok(());
    }
    let rows = names.into_iter().map(|name| row(&gradients, name)).collect::<Result<Vec<_>>>()?;
    if args.json {
        let (metric, value) = (gradients.metric.to_string(), gradients.value);
        return print_object(&Answer { metric, value, stop: gradients.stop.names(), tensors: rows });
    }
    print(&format!("{}: {}\n", gradients.metric.words(&model), num(gradients.value as f32)))?;
    let mut table = Table::new([
        Column::Left("gradient of"),
        Column::Right("mean |g|"),
        Column::Right("largest"),
        Column::Left("at"),
        Column::Right("Σ g · x"),
    ]);
    for row in rows {
        let at: Vec<_> = row.at.iter().map(ToString::to_string).collect();
        let at = format!("[{}]", at.join(","));
        table.row([row.name, num(row.mean_abs), num(row.largest), at, num(row.times_value)]);
    }
    table.print()
}

fn destination(path: &std::path::Path) -> Result<crate::export::Prepared> {
    let (to, format) = (Destination::new(path), Format::of_path(path)?);
    if to == Destination::Stdout && !format.is_text() && std::io::stdout().is_terminal() {
        return Err(Error::usage(format!("{format} is binary: write it to a file or a pipe")));
    }
    to.prepare()
}

fn row(gradients: &Gradients, name: TensorName) -> Result<Row> {
    let g = gradients.part(name, &Part::default())?;
    let shape = g.dims().to_vec();
    let x = gradients.run.fetch(name, &Part::default())?;
    let [g, x] = [g, x].map(|x| x.flatten_all()?.to_vec1::<f32>());
    let (g, x) = (g?, x?);
    // What is masked has no gradient, and −inf · 0 would be NaN.
    let product = |(&g, &x): (&f32, &f32)| if g == 0.0 { 0.0 } else { f64::from(g) * f64::from(x) };
    let times_value = g.iter().zip(&x).map(product).sum::<f64>() as f32;
    let mean_abs = (g.iter().map(|g| f64::from(g.abs())).sum::<f64>() / g.len().max(1) as f64) as f32;
    let largest = (0..g.len()).reduce(|a, b| if g[b].abs().total_cmp(&g[a].abs()).is_gt() { b } else { a });
    let largest = largest.unwrap_or(0);
    let (at, value) = (index(largest, &shape), g.get(largest).copied().unwrap_or(0.0));
    Ok(Row { name: name.to_string(), shape, mean_abs, largest: value, at, times_value })
}
