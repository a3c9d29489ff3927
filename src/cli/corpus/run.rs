//! `actscope corpus run`: documents through the network.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar};

use crate::cli::args::ModelArgs;
use crate::cli::output::{print, say};
use crate::cli::what_if::WhatIfArgs;
use crate::corpus::documents::Per;
use crate::corpus::manifest::{Input, Manifest, OfDictionary, Origin, Reduce, Settings};
use crate::corpus::raw::RawDtype;
use crate::corpus::{Plan, Report, Shard, run as corpus};
use crate::error::{Error, Result};
use crate::text::{bytes, count, fixed, path};

/// Run documents through the network and keep what is asked for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope corpus run docs.txt -o atlas --hooks 'blocks.*.mlp.hook_post' --reduce top --top-k 5
  actscope corpus run data.parquet -o loss --reduce loss --field content --bos
  actscope corpus run ids.bin -o raw --reduce raw --hooks resid_post.6 --raw-dtype f16
  actscope corpus run *.jsonl -o shards --shard auto

Inputs are .txt (documents between blank lines, see --per), .jsonl and .json (--field), .parquet (--field
names the column), .npy, and .bin of llm.c or nanoGPT; - reads a text from standard input. Documents are counted
over all inputs, from 0, and positions within a document, from 0, without BOS. A run that was stopped goes
on where it ended.")]
pub struct Args {
    /// Files of documents, or - for a text on standard input
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,
    /// Folder of the results
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Hooks to look at, by name or glob; repeatable
    #[arg(long, value_name = "NAME", default_value = "blocks.*.mlp.hook_post", value_delimiter = ',')]
    hooks: Vec<String>,
    /// What to keep; several with commas
    #[arg(long, value_name = "WHAT", value_enum, default_value = "top,stats", value_delimiter = ',')]
    reduce: Vec<Reduce>,
    /// Strongest examples of each unit
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    top_k: u16,
    /// Tokens to keep before and after each example
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    around: u16,
    /// Also keep examples of each unit drawn by chance among its values above 0, shown in quarters
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(0..=1000))]
    drawn: u16,
    /// Number format of --reduce raw
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = RawDtype::F32)]
    raw_dtype: RawDtype,
    /// What a document of a .txt file is
    #[arg(long, value_enum, default_value_t = Per::BlankLine, value_name = "WHAT")]
    per: Per,
    /// Field of JSON objects, or column of a Parquet file: text, or a list of token ids [default: text, or else
    /// input_ids, token_ids, ids, tokens]
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Most tokens in the network at once, BOS included; longer documents are run in pieces [default: the
    /// model's context]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Distance between the beginnings of pieces: less than the context lets them overlap, and what they share
    /// counts once [default: the context]
    #[arg(long, value_name = "T")]
    stride: Option<usize>,
    /// Put the model's BOS token before each piece; it is not counted
    #[arg(long)]
    bos: bool,
    /// Only the first N documents
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only this share of the documents, drawn by their numbers, such as 0.1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sample: Option<f64>,
    /// Only every Nth document, beginning with the Ith: I/N, or auto to ask Slurm, Kubernetes, or RANK and
    /// WORLD_SIZE
    #[arg(long, value_name = "I/N")]
    shard: Option<ShardArg>,
    /// Tokens between two records of the progress
    #[arg(long, value_name = "TOKENS", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    chunk: u64,
    /// End at the first document that is empty, too long, or cannot be read
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    what_if: WhatIfArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy)]
enum ShardArg {
    Auto,
    Given(Shard),
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given) }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and up to 1, such as 0.1".into())
}

pub fn run(args: Args) -> Result<()> {
    let shard = match args.shard {
        None => Shard::WHOLE,
        Some(ShardArg::Given(shard)) => shard,
        Some(ShardArg::Auto) => {
            Shard::of_environment(|name| std::env::var(name).ok()).map_err(Error::usage)?
        }
    };
    let interventions = args.what_if.read()?;
    let model = args.model.load()?;
    let hooks = model.choose(&args.hooks)?;
    let own_bos =
        model.tokenizer.first_of_its_own().is_some_and(|id| Some(id) == model.config().bos_token_id);
    let bos = args.bos || own_bos;
    let context = args.context.unwrap_or(model.config().n_positions);
    let mut reduce = args.reduce;
    reduce.sort_unstable();
    reduce.dedup();
    let settings = Settings {
        origin: Origin::new(&model)?,
        bos,
        context,
        stride: args.stride.unwrap_or(context.saturating_sub(bos.into())),
        interventions,
        dictionaries: OfDictionary::of(&model, &hooks)?,
        hooks: hooks.iter().map(ToString::to_string).collect(),
        reduce,
        top_k: args.top_k.into(),
        around: args.around.into(),
        drawn: args.drawn.into(),
        raw_dtype: args.raw_dtype,
        inputs: args.inputs.iter().map(|path| Input::new(path)).collect(),
        per: args.per,
        field: args.field,
        limit: args.limit,
        sample: args.sample,
        chunk: args.chunk,
    };
    let plan = Plan { inputs: args.inputs, settings, shard, strict: args.strict, out: args.output };
    let (manifest, is_new) = corpus::run(&model, &plan, &mut progress())?;
    print(&summary(&plan, &manifest, is_new))
}

/// A bar on a terminal; otherwise a line now and then.
fn progress() -> impl FnMut(Report) -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(30);
    let bar = ProgressBar::new_spinner();
    let (start, mut said) = (Instant::now(), Instant::now());
    // What a run that goes on had read before is skipped at once.
    let mut skipped = None;
    move |report| {
        let Report::Ran { new_tokens, tokens, documents, read, size, recorded } = report else {
            if let Report::Needs(needed) = report {
                say(&format!("the raw tensors will take {}", bytes(needed)));
            }
            return Ok(());
        };
        let (since, before) = *skipped.get_or_insert((Instant::now(), read));
        let left = size.filter(|_| read > before).map(|size| {
            let to_read = size.saturating_sub(read) as f64 / (read - before) as f64;
            let left = HumanDuration(since.elapsed().mul_f64(to_read));
            format!(" · about {left} left")
        });
        let line = format!(
            "{} · {} · {} tokens per second{}",
            count(documents as usize, "document"),
            count(tokens as usize, "token"),
            fixed(new_tokens as f64 / start.elapsed().as_secs_f64(), 0),
            left.unwrap_or_default()
        );
        bar.set_message(line.clone());
        bar.tick();
        if bar.is_hidden() && recorded && said.elapsed() >= PAUSE {
            said = Instant::now();
            say(&line);
        }
        Ok(())
    }
}

fn summary(plan: &Plan, manifest: &Manifest, is_new: bool) -> String {
    let progress = &manifest.progress;
    let shard = if plan.shard == Shard::WHOLE { String::new() } else { format!("shard {}: ", plan.shard) };
    let was = if is_new { "" } else { ", finished before" };
    let mut text = format!(
        "{shard}{}, {}, in {}{was}\n",
        count(progress.documents as usize, "document"),
        count(progress.tokens as usize, "token"),
        path(&plan.folder())
    );
    for (fault, faulty) in &progress.faults {
        let first: Vec<_> = faulty.first.iter().map(ToString::to_string).collect();
        let more = if faulty.count > faulty.first.len() as u64 { ", …" } else { "" };
        let n = count(faulty.count as usize, "document");
        text += &format!("{}: {n}: {}{more}\n", fault.said(), first.join(", "));
    }
    if let Some(loss) = progress.loss.filter(|loss| loss.tokens > 0) {
        let per_byte = if loss.bytes > 0 {
            format!(", {} per byte", fixed(loss.bits_per_byte(), 4))
        } else {
            String::new()
        };
        text += &format!("loss: {} bits per token{per_byte}\n", fixed(loss.bits_per_token(), 4));
    }
    text
}
