//! `actscope find`: the extremes of all tensors of a run.

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print, print_object};
use super::progress::count;
use crate::analysis::find::{Channel, Extreme, Found, OUTLIER};
use crate::error::Result;
use crate::run::Run;
use crate::text::{fixed, num};

/// Find the largest values, rows and channels of a run
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope find \"The old man and the sea\"
  actscope find \"The old man and the sea\" --json -k 50

Lists the largest |x| and the row with the largest norm of each captured tensor, largest first, and the channels of \
the residual stream that are outliers in most layers: their root mean square over positions in resid_post is at \
least 5 times the median channel's.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Number of each to list
    #[arg(short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Write {n_values, values: [{hook, index, value}], rows: [{hook, index, norm}], channels: [{channel, layers, ratio}]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Answer {
    n_values: u64,
    values: Vec<Cell>,
    rows: Vec<Row>,
    channels: Vec<Outlier>,
}

#[derive(Serialize)]
struct Cell {
    hook: String,
    /// The index in the tensor.
    index: Vec<usize>,
    #[serde(serialize_with = "output::number")]
    value: f32,
}

#[derive(Serialize)]
struct Row {
    hook: String,
    index: Vec<usize>,
    #[serde(serialize_with = "output::number")]
    norm: f32,
}

#[derive(Serialize)]
struct Outlier {
    channel: usize,
    layers: Vec<usize>,
    #[serde(serialize_with = "output::number")]
    ratio: f32,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load()?;
    let run = Run::all(&model, input)?;
    let mut found = Found::new(&run, count("searching"))?;
    let k = args.k as usize;
    found.values.truncate(k);
    found.rows.truncate(k);
    found.channels.truncate(k);
    if args.json {
        let cell = |x: &Extreme| Cell { hook: x.name.to_string(), index: x.cell(), value: x.value };
        let row = |x: &Extreme| Row { hook: x.name.to_string(), index: x.place(), norm: x.value };
        let channel =
            |c: &Channel| Outlier { channel: c.channel, layers: c.layers.clone(), ratio: c.ratio as f32 };
        return print_object(&Answer {
            n_values: found.n_values,
            values: found.values.iter().map(cell).collect(),
            rows: found.rows.iter().map(row).collect(),
            channels: found.channels.iter().map(channel).collect(),
        });
    }
    let index = |index: &[usize]| {
        let words: Vec<_> = index.iter().map(ToString::to_string).collect();
        format!("[{}]", words.join(", "))
    };
    print("the largest |x| of each tensor\n")?;
    let columns =
        [Column::Right("value"), Column::Left("hook"), Column::Left("index"), Column::Left("token")];
    let mut table = Table::new(columns);
    for x in &found.values {
        table.row([num(x.value), x.name.to_string(), index(&x.cell()), run.token_text(x.row)]);
    }
    table.print()?;
    print("\nthe row of each tensor with the largest norm\n")?;
    let columns = [Column::Right("norm"), Column::Left("hook"), Column::Left("index"), Column::Left("token")];
    let mut table = Table::new(columns);
    for x in &found.rows {
        table.row([num(x.value), x.name.to_string(), index(&x.place()), run.token_text(x.row)]);
    }
    table.print()?;
    print(&format!("\nchannels at least {OUTLIER} times as large as the median one, in most layers\n"))?;
    let mut table =
        Table::new([Column::Right("channel"), Column::Right("times"), Column::Left("in resid_post of")]);
    for c in &found.channels {
        let layers: Vec<_> = c.layers.iter().map(ToString::to_string).collect();
        table.row([c.channel.to_string(), fixed(c.ratio, 1), layers.join(" ")]);
    }
    if found.channels.is_empty() {
        return print("none\n");
    }
    table.print()
}
