//! `actscope features`: the active features of a sparse dictionary.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print, print_json, say};
use crate::analysis::features::{self, Splice, promotes};
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, Site};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, LoadOptions, Model};
use crate::run::Run;
use crate::text::{fixed, num, plain};

/// Show the active features of a sparse dictionary
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope features \"The old man and the sea\"
  actscope features \"The cat sat\" --dictionary jbloom/GPT2-Small-SAEs-Reformatted:blocks.8.hook_resid_pre \\
      --model gpt2 --bos
  actscope features \"The cat sat\" --model gpt2 --dictionary mlp_out.8=v5_32k/8.pt --top 5 --json
  actscope features \"The cat sat\" --dictionary sae --labels explanations.jsonl --position 3

Sparse autoencoders and transcoders in the layouts of SAELens, sparsify, OpenAI and Dunefsky. L0 is the number of
active features at a position; both it and the variance explained leave the first position out, whose activations
are far larger than all others. A feature promotes the tokens of its row of W_dec · W_U.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Only the strongest of each position [default: 10 in the table, all in JSON]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Position, counted from 0; default: the last in the table, all in JSON
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// What features are about: Neuronpedia's JSON lines, or lines of a feature and its label
    #[arg(long, value_name = "FILE", requires = "dictionaries")]
    labels: Option<PathBuf>,
    /// Write a JSON array of {hook, position, feature, value, share, label}, by position, the strongest first; hook is
    /// what the dictionary writes
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row<'a> {
    hook: String,
    position: usize,
    feature: u32,
    #[serde(serialize_with = "output::number")]
    value: f32,
    /// Of the sum at this position.
    share: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

/// A dictionary on the run.
struct Of<'a> {
    dictionary: &'a Dictionary,
    features: Features,
    fit: Fit,
}

pub fn run(args: Args) -> Result<()> {
    let input = args.input.required()?;
    let model = args.model.load_with(|options| LoadOptions { labels: args.labels, ..options })?;
    let dictionaries = model.dictionaries();
    if dictionaries.is_empty() {
        return Err(Error::usage(
            "no dictionary given: pass --dictionary with a folder, a file, or ID:FOLDER on the hub",
        ));
    }
    let hooks = dictionaries.iter().flat_map(|one| features::hooks(one)).chain([Site::Logits.once()]);
    let run = Run::new(&model, input, HookFilter::of(hooks), ())?;
    let all = dictionaries.iter().map(|dictionary| {
        let (features, fit) = features::read(&run, dictionary)?;
        Ok(Of { dictionary, features, fit })
    });
    let all: Vec<_> = all.collect::<Result<_>>()?;
    for of in &all {
        let named = plain(&of.dictionary.name);
        if of.fit.explained < 0.0 {
            say(&format!(
                "warning: {named} explains less than nothing of {} here: it is of another model, or expects \
                 another input",
                of.dictionary.writes
            ));
        }
        if of.dictionary.expects_bos == Some(true) && !run.input.bos {
            say(&format!("note: {named} was fitted to prompts that begin with BOS: add --bos"));
        }
    }
    let positions = match args.position {
        Some(position) => {
            Error::check("position", position, 0..run.n_tokens())?;
            position..position + 1
        }
        None if args.json => 0..run.n_tokens(),
        None => run.n_tokens() - 1..run.n_tokens(),
    };
    if args.json {
        let top = args.top.map_or(usize::MAX, |top| top as usize);
        let rows = positions.flat_map(|position| all.iter().flat_map(move |of| of.rows(position, top)));
        return print_json(&rows.collect::<Vec<_>>());
    }
    for of in &all {
        print(&of.about())?;
        if run.n_tokens() > 1 {
            print(&cost(features::splice(&run, of.dictionary, &of.features)?))?;
        }
        for position in positions.clone() {
            print(&format!("\nat {position}, {}\n", run.token_text(position)))?;
            of.table(position, args.top.unwrap_or(10) as usize, &model)?.print()?;
        }
    }
    Ok(())
}

/// What the reconstruction costs.
fn cost(Splice { bits, bits_spliced }: Splice) -> String {
    let [bits, spliced] = [bits, bits_spliced].map(|bits| fixed(bits, 3));
    format!("with the reconstruction in its place {spliced} bits per token, without {bits}\n")
}

impl Of<'_> {
    /// The strongest features at a position.
    fn rows(&self, position: usize, top: usize) -> impl Iterator<Item = Row<'_>> {
        let sum: f32 = self.features.rows[position].iter().map(|(_, value)| value).sum();
        self.features.strongest(position).into_iter().take(top).map(move |(feature, value)| Row {
            hook: self.dictionary.writes.to_string(),
            position,
            feature,
            value,
            share: value / sum,
            label: self.dictionary.labels.get(feature),
        })
    }

    fn about(&self) -> String {
        let Self { dictionary, fit, .. } = self;
        let to =
            if dictionary.is_transcoder() { format!(" → {}", dictionary.writes) } else { String::new() };
        format!(
            "{}{to}: {} features, {} ({})\n{fit}\n",
            dictionary.reads,
            dictionary.n,
            plain(&dictionary.name),
            dictionary.format,
        )
    }

    fn table(&self, position: usize, top: usize, model: &Arc<Model>) -> Result<Table> {
        let mut table = Table::new([
            Column::Right("feature"),
            Column::Right("value"),
            Column::Right("share"),
            Column::Left("label"),
            Column::Left("promotes"),
        ]);
        let rows: Vec<_> = self.rows(position, top).collect();
        let ids: Vec<_> = rows.iter().map(|row| row.feature).collect();
        let promoted = promotes(&model.net, self.dictionary, &ids, 5)?;
        for (row, tokens) in rows.into_iter().zip(promoted) {
            let tokens: Vec<_> = tokens.into_iter().map(|id| model.tokenizer.show(id)).collect();
            table.row([
                row.feature.to_string(),
                num(row.value),
                format!("{} %", fixed(100.0 * row.share, 1)),
                row.label.map_or_else(String::new, |label| plain(label).into_owned()),
                tokens.join(" "),
            ]);
        }
        Ok(table)
    }
}
