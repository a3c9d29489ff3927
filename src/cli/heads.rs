//! `actscope heads`: what each attention head does.

use std::sync::Arc;

use serde::Serialize;

use super::args::{InputArgs, ModelArgs};
use super::output::{self, Column, Table, print_json};
use super::progress::count;
use crate::analysis::base::WithBase;
use crate::analysis::heads::{Atlas, Exclude, Metric, repeated_random};
use crate::analysis::vary::ROWS_AT_ONCE;
use crate::error::Result;
use crate::hooks::HookFilter;
use crate::interventions::Interventions;
use crate::model::Model;
use crate::run::{Input, Run};
use crate::text::num;

/// Show what each attention head does, as numbers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope heads \"When Mary and John went out, John gave a ring to Mary\"
  actscope heads --repeat-random 50 --samples 8 --sort induction
  actscope heads --effects \"The old man and the sea, and the old\"
  actscope heads --json --prompt-file poem.txt | jq 'max_by(.prev_token)'

prev_token, duplicate and induction are the scores of TransformerLens's detect_head: shares of the
head's total attention, so the tokens of the prompt limit how high they can be. The weights are
used as they are: nothing is folded.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    how: HeadArgs,
    /// Sort by one of the numbers, largest first
    #[arg(long, value_name = "NUMBER", value_enum)]
    sort: Option<Metric>,
    /// Also show how the prediction after the last token changes without each head: delta_logprob and
    /// kl, as in `actscope effects`
    #[arg(long, conflicts_with = "samples")]
    effects: bool,
    /// Write a JSON array of {layer, head, prev_token, duplicate, induction, first_token, distance,
    /// entropy_bits, z_norm}; with --effects also {delta_logprob, kl}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// The tokens that the heads are measured on.
#[derive(Debug, Clone, clap::Args)]
pub struct HeadArgs {
    /// Use N random tokens, repeated once, instead of a prompt
    #[arg(long, value_name = "N", conflicts_with_all = ["prompt", "prompt_file", "token_ids"])]
    repeat_random: Option<usize>,
    /// Seed of the random tokens
    #[arg(long, value_name = "S", default_value_t = 0,
        conflicts_with_all = ["prompt", "prompt_file", "token_ids"])]
    seed: u64,
    /// Average over K samples of random tokens, with the seeds S, S+1, …
    #[arg(long, value_name = "K", default_value_t = 1,
        conflicts_with_all = ["prompt", "prompt_file", "token_ids"],
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Exclude attention to position 0 from the first three scores
    #[arg(long)]
    exclude_bos: bool,
    /// Exclude attention of a token to itself from the first three scores
    #[arg(long)]
    exclude_current_token: bool,
}

impl HeadArgs {
    /// What to run: the prompt, or random tokens, which need the model's vocabulary.
    pub fn asked(&self, prompt: InputArgs) -> Result<Asked> {
        Ok(match self.repeat_random {
            Some(n) => Asked::Random {
                n,
                seed: self.seed,
                bos: prompt.bos(),
                interventions: prompt.interventions()?,
            },
            None => Asked::Prompt(prompt.required()?),
        })
    }

    /// The run that the heads are measured on, the first of all samples, and their scores.
    pub fn atlas(&self, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, WithBase<Atlas>)> {
        let (run, of) = self.measured(model, &inputs.of)?;
        let base = inputs.base.map(|base| self.measured(model, &base)).transpose()?;
        Ok((run, WithBase { of, base: base.map(|(_, atlas)| atlas) }))
    }

    fn measured(&self, model: &Arc<Model>, input: &Input) -> Result<(Run, Atlas)> {
        let keep = HookFilter::new(&["pattern.*", "z.*"], model.config())?;
        let exclude = Exclude { bos: self.exclude_bos, current_token: self.exclude_current_token };
        let first = Run::new(model, input.clone(), keep.clone(), ())?;
        let mut atlases = vec![Atlas::new(&first, exclude)?];
        let seeds: Vec<_> = (1..u64::from(self.samples)).map(|i| self.seed.wrapping_add(i)).collect();
        let mut progress = count("samples");
        for seeds in seeds.chunks((ROWS_AT_ONCE / first.n_tokens()).max(1)) {
            let other = |&seed| {
                let random = repeated_random(model, self.repeat_random.unwrap_or(1), seed, input.bos)?;
                Ok(random.with_interventions(input.interventions.clone()))
            };
            let others = seeds.iter().map(other).collect::<Result<Vec<_>>>()?;
            progress(atlases.len(), self.samples as usize)?;
            for run in Run::several(model, others, &keep)? {
                atlases.push(Atlas::new(&run, exclude)?);
            }
        }
        Ok((first, Atlas::mean(&atlases).expect("there is at least the first")))
    }
}

pub enum Asked {
    Prompt(Input),
    Random { n: usize, seed: u64, bos: bool, interventions: Interventions },
}

impl Asked {
    pub fn input(self, model: &Model) -> Result<Input> {
        match self {
            Self::Prompt(input) => Ok(input),
            Self::Random { n, seed, bos, interventions } => {
                Ok(repeated_random(model, n, seed, bos)?.with_interventions(interventions))
            }
        }
    }
}

impl clap::ValueEnum for Metric {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(self.doc()))
    }
}

#[derive(Serialize)]
struct Row {
    layer: usize,
    head: usize,
    #[serde(serialize_with = "output::number")]
    prev_token: f32,
    #[serde(serialize_with = "output::number")]
    duplicate: f32,
    #[serde(serialize_with = "output::number")]
    induction: f32,
    #[serde(serialize_with = "output::number")]
    first_token: f32,
    #[serde(serialize_with = "output::number")]
    distance: f32,
    #[serde(serialize_with = "output::number")]
    entropy_bits: f32,
    #[serde(serialize_with = "output::number")]
    z_norm: f32,
    #[serde(flatten)]
    effect: Option<EffectRow>,
}

#[derive(Serialize)]
struct EffectRow {
    #[serde(serialize_with = "output::number")]
    delta_logprob: f32,
    #[serde(serialize_with = "output::number")]
    kl: f32,
}

pub fn run(args: Args) -> Result<()> {
    let asked = args.how.asked(args.input)?;
    let model = args.model.load()?;
    let input = asked.input(&model)?;
    let (_, atlas) = args.how.atlas(&model, WithBase::one(input.clone()))?;
    let effects = if args.effects {
        super::effects::measure(&model, WithBase::one(input), (None, None, false))?.1.of.all
    } else {
        Vec::new()
    };
    let effect = |layer, head| {
        let found = effects.iter().find(|effect| (effect.layer, effect.head) == (layer, Some(head)));
        found.map(|effect| EffectRow { delta_logprob: effect.delta_logprob as f32, kl: effect.kl as f32 })
    };
    let heads = match args.sort {
        Some(metric) => atlas.of.ranked(metric),
        None => atlas.of.heads.iter().collect(),
    };

    if args.json {
        let rows = heads.iter().map(|scores| Row {
            layer: scores.layer,
            head: scores.head,
            prev_token: scores.get(Metric::PrevToken),
            duplicate: scores.get(Metric::Duplicate),
            induction: scores.get(Metric::Induction),
            first_token: scores.get(Metric::FirstToken),
            distance: scores.get(Metric::Distance),
            entropy_bits: scores.get(Metric::Entropy),
            z_norm: scores.get(Metric::ZNorm),
            effect: effect(scores.layer, scores.head),
        });
        return print_json(&rows.collect::<Vec<_>>());
    }
    let names = Metric::ALL.map(Metric::name).into_iter();
    let more: &[&str] = if args.effects { &["delta_logprob", "kl"] } else { &[] };
    let numbers = names.chain(more.iter().copied()).map(Column::Right);
    let mut table = Table::new(std::iter::once(Column::Left("head")).chain(numbers));
    for scores in heads {
        let effect = effect(scores.layer, scores.head).map(|effect| [effect.delta_logprob, effect.kl]);
        let numbers =
            Metric::ALL.map(|metric| scores.get(metric)).into_iter().chain(effect.into_iter().flatten());
        table.row(std::iter::once(format!("{}.{}", scores.layer, scores.head)).chain(numbers.map(num)));
    }
    table.print()
}
