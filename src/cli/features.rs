//! `actscope features`: the active features of a sparse dictionary.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print, print_json, say};
use crate::analysis::features::{self, Active, Asked, Effects, Listed, Splice};
use crate::analysis::gradients::{Gradients, Metric};
use crate::analysis::logits::Next;
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, Made, Part, TensorName};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, LoadOptions, Model};
use crate::run::Run;
use crate::text::{fixed, num, plain, signed_fixed};

/// Show the active features of a sparse dictionary
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope features \"The old man and the sea\"
  actscope features \"The cat sat\" --dictionary jbloom/GPT2-Small-SAEs-Reformatted:blocks.8.hook_resid_pre \\
      --model gpt2 --bos
  actscope features \"The cat sat\" --model gpt2 --dictionary mlp_out.8=v5_32k/8.pt --top 5 --json
  actscope features \"The cat sat\" --dictionary sae --labels explanations.jsonl --position 3
  actscope features \"The old man and the\" --token \" sea\" --versus \" land\"

Sparse autoencoders and transcoders in the layouts of SAELens, sparsify, OpenAI and Dunefsky. L0 is the number of
active features at a position; both it and the variance explained leave the first position out, whose activations
are far larger than all others. A feature promotes the tokens of its row of W_dec · W_U; its effect is what it adds to
the logit directly, with the scale of the final LayerNorm frozen. Its total effect is first-order: how much the logit would \
fall without it if everything after it were linear.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Only the strongest of each position [default: 10 in the table, all in JSON]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Position, counted from 0; default: the last in the table, all in JSON
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Token whose logit they have an effect on, as text or id; default: the likeliest at the position
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// Subtract the effect on the logit of this token
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    versus: Option<String>,
    /// Also show the total effect of each, by the gradient: through everything that reads it
    #[arg(long)]
    total: bool,
    /// What features are about: Neuronpedia's JSON lines, or lines of a feature and its label
    #[arg(long, value_name = "FILE", requires = "dictionaries")]
    labels: Option<PathBuf>,
    /// Write a JSON array of {hook, position, feature, value, share, label, effect}, by position, the strongest first;
    /// hook is what the dictionary writes, effect is there with --token or --versus, total with --total
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
    /// Its direct effect on the logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<f64>,
    /// Its total effect, first-order.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
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
    let token = args.token.as_deref().map(|named| model.token(named)).transpose()?;
    let versus = args.versus.as_deref().map(|named| model.token(named)).transpose()?;
    let hooks = dictionaries.iter().flat_map(|one| features::hooks(one));
    let run = if args.total {
        Run::all(&model, input)?
    } else {
        Run::new(&model, input, HookFilter::of(hooks), ())?
    };
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
    let chosen = (token, versus);
    if args.json {
        let top = args.top.map_or(usize::MAX, |top| top as usize);
        let mut rows = Vec::new();
        for position in positions {
            let gradients = gradients(&run, position, chosen, args.total)?;
            for of in &all {
                let slopes = of.slopes(gradients.as_ref(), position)?;
                let mut of_dictionary = of.rows(&run, position, top, chosen)?;
                for row in &mut of_dictionary {
                    row.total = slopes.as_ref().map(|slopes| total(slopes, row.feature, row.value));
                }
                rows.extend(of_dictionary);
            }
        }
        return print_json(&rows);
    }
    for of in &all {
        print(&of.about())?;
        if run.n_tokens() > 1 {
            print(&cost(features::splice(&run, of.dictionary, &of.features)?))?;
        }
        for position in positions.clone() {
            let top = args.top.unwrap_or(10) as usize;
            let asked = Asked { position: Some(position), around: (None, top), token, versus };
            let listed = Listed::new(&run, of.dictionary, &of.features, &asked)?;
            print(&format!("\nat {position}, {}\n", run.token_text(position)))?;
            let gradients = gradients(&run, position, chosen, args.total)?;
            let slopes = of.slopes(gradients.as_ref(), position)?;
            of.table(&listed, top, &model, slopes.as_deref()).print()?;
            if let Some(effects) = listed.effects {
                print(&together(effects, &model))?;
            }
        }
    }
    Ok(())
}

/// The gradients of the logit after a position, if total effects are wanted.
fn gradients(
    run: &Run,
    position: usize,
    (token, versus): (Option<u32>, Option<u32>),
    wanted: bool,
) -> Result<Option<Gradients>> {
    if !wanted {
        return Ok(None);
    }
    let token = match token {
        Some(token) => token,
        None => Next::new(run, position, 1)?.top[0].id,
    };
    run.gradients(&Metric::logit(token, versus, position)).map(Some)
}

/// The activation of a feature times its gradient.
fn total(slopes: &[f32], feature: u32, value: f32) -> f64 {
    f64::from(slopes[feature as usize]) * f64::from(value)
}

/// The direct effect of all features of a position together.
fn together(Effects { token, versus, features, error }: Effects, model: &Model) -> String {
    let show = |id: u32| model.tokenizer.show(id);
    let versus = versus.map_or_else(String::new, |id| format!(" minus that of {}", show(id)));
    let [features, error] = [features, error].map(|x| signed_fixed(x, 3));
    let token = show(token);
    format!("effect on the logit of {token}{versus}: all features {features}, what they leave out {error}\n")
}

/// What the reconstruction costs.
fn cost(Splice { bits, bits_spliced }: Splice) -> String {
    let [bits, spliced] = [bits, bits_spliced].map(|bits| fixed(bits, 3));
    format!("with the reconstruction in its place {spliced} bits per token, without {bits}\n")
}

impl Of<'_> {
    /// The strongest features at a position.
    fn rows(
        &self,
        run: &Run,
        position: usize,
        top: usize,
        (token, versus): (Option<u32>, Option<u32>),
    ) -> Result<Vec<Row<'_>>> {
        let row = |feature, value, share, effect| Row {
            hook: self.dictionary.writes.to_string(),
            position,
            feature,
            value,
            share,
            label: self.dictionary.labels.get(feature),
            effect,
            total: None,
        };
        if token.is_none() && versus.is_none() {
            let sum: f32 = self.features.rows[position].iter().map(|(_, value)| value).sum();
            let strongest = self.features.strongest(position).into_iter().take(top);
            return Ok(strongest.map(|(feature, value)| row(feature, value, value / sum, None)).collect());
        }
        let asked = Asked { position: Some(position), around: (None, 0), token, versus };
        let Listed { list, n_active, .. } = Listed::new(run, self.dictionary, &self.features, &asked)?;
        let of = |one: Active| row(one.feature, one.value, one.share, one.effect);
        Ok(list.into_iter().take(n_active.min(top)).map(of).collect())
    }

    /// The gradient of each feature at a position.
    fn slopes(&self, gradients: Option<&Gradients>, position: usize) -> Result<Option<Vec<f32>>> {
        let Some(gradients) = gradients else { return Ok(None) };
        let made = Some(Made::Features(self.dictionary.n as u32));
        let name = TensorName { hook: self.dictionary.writes, made };
        let g = gradients.part(name, &Part::rows(position..position + 1))?;
        Ok(Some(g.flatten_all()?.to_vec1()?))
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

    fn table(&self, listed: &Listed, top: usize, model: &Arc<Model>, slopes: Option<&[f32]>) -> Table {
        let numbers = ["feature", "value", "share", "effect"].into_iter().chain(slopes.map(|_| "total"));
        let words = [Column::Left("label"), Column::Left("promotes")];
        let mut table = Table::new(numbers.map(Column::Right).chain(words));
        for one in listed.list.iter().take(listed.n_active.min(top)) {
            let tokens: Vec<_> = one.promotes.iter().map(|id| model.tokenizer.show(*id)).collect();
            let label = self.dictionary.labels.get(one.feature);
            let total = slopes.map(|slopes| signed_fixed(total(slopes, one.feature, one.value), 3));
            let numbers = [
                one.feature.to_string(),
                num(one.value),
                format!("{} %", fixed(100.0 * one.share, 1)),
                one.effect.map_or_else(String::new, |effect| signed_fixed(effect, 3)),
            ];
            let label = label.map_or_else(String::new, |label| plain(label).into_owned());
            table.row(numbers.into_iter().chain(total).chain([label, tokens.join(" ")]));
        }
        table
    }
}
