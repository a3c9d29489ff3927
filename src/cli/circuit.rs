//! `actscope circuit`: singular values and directions of a head's OV or QK circuit.

use serde::Serialize;

use super::args::{ModelArgs, Place};
use super::output::{EndsRow, print, print_object, token_columns};
use crate::analysis::weights::{Circuit, Spectrum};
use crate::error::Result;
use crate::text::fixed;
use crate::tui::widgets::bar::bar;

/// Show a head's OV or QK circuit: singular values, and the tokens they read and write
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope circuit 1.5
  actscope circuit 0.0 --kind qk --directions 5
  actscope circuit 1.5 --json -k 20

OV is W_V · W_O: what the head writes for what it reads. QK is W_Q · W_Kᵀ: which keys a query looks for. \
Both are (C, C) of rank d_head. Tokens are scored through the raw embeddings: reads, queries and keys by \
wte · u, writes by v · W_U. LayerNorms and biases are not folded in. The sign of a direction is \
arbitrary, so both ends are listed.")]
pub struct Args {
    /// Head, as LAYER.HEAD
    #[arg(value_name = "L.H")]
    head: Place,
    /// Circuit to show
    #[arg(long, value_name = "KIND", default_value = "ov")]
    kind: Kind,
    /// Number of singular directions to show as tokens
    #[arg(long, value_name = "N", default_value_t = 3)]
    directions: usize,
    /// Number of tokens to list at each end
    #[arg(short, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Write {layer, head, kind, singular_values, directions: [{index, value, reads, writes}]}; queries, keys for qk
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Ov,
    Qk,
}

#[derive(Serialize)]
struct Answer {
    layer: usize,
    head: usize,
    kind: String,
    singular_values: Vec<f64>,
    directions: Vec<Direction>,
}

#[derive(Serialize)]
struct Direction {
    index: usize,
    value: f64,
    #[serde(flatten)]
    sides: Sides,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Sides {
    Ov { reads: EndsRow, writes: EndsRow },
    Qk { queries: EndsRow, keys: EndsRow },
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let circuit = match args.kind {
        Kind::Ov => Circuit::Ov,
        Kind::Qk => Circuit::Qk,
    };
    let Place(layer, head) = args.head;
    let spectrum = Spectrum::new(&model.net, layer, head, circuit)?;
    let n = args.directions.min(spectrum.values.len());
    let tokens = |index| spectrum.tokens(&model.net, index, args.k as usize);

    if args.json {
        let direction = |index: usize| {
            let [from, to] = tokens(index)?.map(|ends| EndsRow::new(&model, &ends));
            let sides = match circuit {
                Circuit::Ov => Sides::Ov { reads: from, writes: to },
                Circuit::Qk => Sides::Qk { queries: from, keys: to },
            };
            Ok(Direction { index, value: spectrum.values[index], sides })
        };
        let directions = (0..n).map(direction).collect::<Result<_>>()?;
        return print_object(&Answer {
            layer,
            head,
            kind: circuit.name().to_lowercase(),
            singular_values: spectrum.values,
            directions,
        });
    }
    let mut text = format!(
        "{} circuit of head {layer}.{head}: {}, ({c}, {c}), rank {}\n",
        circuit.name(),
        circuit.formula(),
        spectrum.values.len(),
        c = model.config().n_embd
    );
    for (i, s) in spectrum.values.iter().enumerate() {
        let bar = bar((s / spectrum.values[0]) as f32, 40);
        text.push_str(&format!("{i:>5}  {:>9}  {:>5.1} %  {bar}\n", fixed(*s, 4), 100.0 * spectrum.share(i)));
    }
    for index in 0..n {
        let [from, to] = tokens(index)?;
        text.push_str(&format!("\ndirection {index}, singular value {}\n", fixed(spectrum.values[index], 4)));
        let [reads, writes] = circuit.sides();
        text.push_str(&token_columns(
            &model,
            &[
                (format!("{reads} +"), &from.top),
                (format!("{writes} +"), &to.top),
                (format!("{reads} −"), &from.bottom),
                (format!("{writes} −"), &to.bottom),
            ],
        ));
    }
    print(&text)
}
