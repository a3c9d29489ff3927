//! `actscope neuron`: the tokens that a neuron reads and writes.

use serde::Serialize;

use super::args::{ModelArgs, Place};
use super::output::{EndsRow, print, print_object, token_columns};
use crate::analysis::weights::NeuronTokens;
use crate::error::Result;
use crate::text::fixed;

/// Show the tokens that activate a neuron and the tokens it promotes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope neuron 2.117
  actscope neuron 0.5 --json -k 20 --model openai-community/gpt2

Activation is scored by wte · W_in[:, n], promotion by W_out[n] · W_U. LayerNorms are not folded in.")]
pub struct Args {
    /// Neuron, as LAYER.NEURON
    #[arg(value_name = "L.N")]
    neuron: Place,
    /// Number of tokens to list at each end
    #[arg(short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Write {layer, neuron, bias, norm_in, norm_out, reads: {top, bottom}, writes: {top, bottom}}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Answer {
    layer: usize,
    neuron: usize,
    bias: f32,
    norm_in: f32,
    norm_out: f32,
    reads: EndsRow,
    writes: EndsRow,
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let Place(layer, neuron) = args.neuron;
    let found = NeuronTokens::new(&model.net, layer, neuron, args.k as usize)?;
    let [norm_in, norm_out] = found.norms;
    if args.json {
        return print_object(&Answer {
            layer,
            neuron,
            bias: found.bias as f32,
            norm_in: norm_in as f32,
            norm_out: norm_out as f32,
            reads: EndsRow::new(&model, &found.reads),
            writes: EndsRow::new(&model, &found.writes),
        });
    }
    let [bias, norm_in, norm_out] = [found.bias, norm_in, norm_out].map(|x| fixed(x, 4));
    let mut text = format!("neuron {layer}.{neuron}: bias {bias}, ‖in‖ {norm_in}, ‖out‖ {norm_out}\n");
    text.push_str(&token_columns(
        &model,
        &[
            ("activated by".into(), &found.reads.top),
            ("inhibited by".into(), &found.reads.bottom),
            ("promotes".into(), &found.writes.top),
            ("suppresses".into(), &found.writes.bottom),
        ],
    ));
    print(&text)
}
