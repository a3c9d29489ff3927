//! `actscope check`: another program's activations against ours.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::args::{ModelArgs, PromptArgs};
use super::gradients::MetricArgs;
use super::output::{self, Column, Table, print, print_object, say};
use crate::analysis::gradients::Metric;
use crate::error::{Error, Result};
use crate::export::OfMetric;
use crate::foreign::check::Options;
use crate::foreign::names::Dialect;
use crate::foreign::{Check, Compared, Foreign, Mapping};
use crate::model::Model;
use crate::run::Run;
use crate::text::{count, exact, plain};

/// Find the first tensor of another program that is off, and what it looks like
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope check mine.safetensors \"The cat sat\" --model openai-community/gpt2
  actscope check mine.npz --token-ids 464,3797,3332 --model gpt2-124m
  actscope check logits.npy --hook logits \"The cat sat\"
  actscope check gpt2_124M_debug_state.bin --model gpt2_124M.bin
  actscope check mine.safetensors \"The cat sat\" --map names.txt --tolerance 1e-3 --json
  actscope check grads.pt \"The cat sat\" --metric loss

FILE is .safetensors, .npz, .pt, .npy with --hook, or a debug state of llm.c. Tensors have the names of TransformerLens
(see actscope hooks), of Hugging Face (hidden_states.3, attentions.3, transformer.h.3.mlp.c_fc) or of llm.c (encoded,
ln1, qkv, preatt, att, …, all blocks one after the other, or ln1.3), or --map says which is which. A batch of one,
heads before positions or side by side, and a padded vocabulary are understood. A value is off by more than the
tolerance if |theirs − ours| > tolerance · max(1, |ours|), a tensor also if ‖theirs − ours‖ > 10 · tolerance · ‖ours‖.
NAME.grad is the gradient of --metric (see actscope gradients) for a tensor or a weight, as transformer.h.3.mlp.c_fc.weight.grad; \
files of ours say what theirs are of, and those of a debug state are of its mean loss.
The exit code is 0 only if all hold.")]
pub struct Args {
    /// File of the activations
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    prompt: PromptArgs,
    /// The most that a value may be off
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    tolerance: f32,
    /// What the only array of a .npy file is
    #[arg(long, value_name = "NAME")]
    hook: Option<String>,
    /// Names of theirs and ours: lines of two, or a JSON object
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    #[command(flatten)]
    metric: MetricArgs,
    /// Whose names they are, where two programs mean different things by one
    #[arg(long, value_enum, value_name = "PROGRAM")]
    names: Option<Dialect>,
    /// Write {ok, first_off, tolerance, tensors: [{name, theirs, shape, max_diff, mean_diff, cosine, at, ok, note}], loss,
    /// diagnoses: [{kind, says}]}, in data-flow order
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    /// The first tensor that is off, by our name.
    first_off: Option<&'a str>,
    tolerance: f32,
    tensors: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<Loss>,
    diagnoses: Vec<Says<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    theirs: &'a str,
    shape: &'a [usize],
    #[serde(serialize_with = "output::number")]
    max_diff: f32,
    #[serde(serialize_with = "output::number")]
    mean_diff: f32,
    #[serde(serialize_with = "output::number")]
    cosine: f32,
    /// Where the worst value is, and what it is in both.
    at: &'a [usize],
    #[serde(serialize_with = "output::number")]
    value: f32,
    #[serde(serialize_with = "output::number")]
    expected: f32,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

#[derive(Serialize)]
struct Loss {
    #[serde(serialize_with = "output::number")]
    theirs: f32,
    #[serde(serialize_with = "output::number")]
    ours: f32,
    ok: bool,
}

#[derive(Serialize)]
struct Says<'a> {
    kind: &'a str,
    says: &'a str,
}

pub fn run(args: Args) -> Result<()> {
    if !(args.tolerance > 0.0 && args.tolerance.is_finite()) {
        return Err(Error::usage("--tolerance is a number above 0, such as 1e-4"));
    }
    let mapping = args.map.as_deref().map(Mapping::read).transpose()?.unwrap_or_default();
    let input = args.prompt.optional()?;
    let model = args.model.load()?;
    let foreign = Foreign::open(&args.file, args.hook.as_deref(), &mapping, model.config())?;
    let given = input.map(|input| input.tokens(&model)).transpose()?.map(|ids| vec![ids]);
    let tokens = match (given, &foreign.tokens) {
        (Some(given), Some(own)) if given != *own && args.hook.is_none() => {
            return Err(Error::file(
                &args.file,
                "has token ids of its own, which are others than those of the prompt: leave the prompt out",
            ));
        }
        (Some(given), _) => given,
        (None, Some(own)) => own.clone(),
        (None, None) => {
            return Err(Error::usage(
                "no prompt given, and the file has no token ids: pass the prompt that it was run on, or --token-ids 1,2,3",
            ));
        }
    };
    for note in &foreign.notes {
        say(&format!("note: {note}"));
    }
    if let Some(first) = foreign.unknown.first() {
        let others = foreign.unknown.len() - 1;
        let more = if others > 0 { format!(" and {}", count(others, "other")) } else { String::new() };
        say(&format!("note: not compared, since no tensor here has the name: {}{more}", plain(first)));
    }
    let options = Options { tolerance: args.tolerance, dialect: args.names };
    let mut check = Check::new(&model, &foreign, &tokens, options)?;
    add_gradients(&mut check, &model, (&foreign, &tokens), &args.metric, options)?;
    if args.json {
        print_object(&answer(&check))?;
    } else {
        table(&check)?;
    }
    if check.is_ok() {
        return Ok(());
    }
    let off = check.tensors.iter().filter(|one| !one.difference.is_ok()).count();
    Err(Error::file(
        &args.file,
        match check.first_off {
            Some(first) => {
                let n = count(check.tensors.len(), "tensor");
                format!("{off} of {n} off, the first is {}", check.tensors[first].name)
            }
            None => "the loss is off".into(),
        },
    ))
}

/// Also compares the gradients of a file, if it is known what they are of.
fn add_gradients(
    check: &mut Check,
    model: &Arc<Model>,
    (foreign, tokens): (&Foreign, &[Vec<u32>]),
    args: &MetricArgs,
    options: Options,
) -> Result<()> {
    let n = foreign.gradients.len() + foreign.of_weights.len();
    if n == 0 {
        return Ok(());
    }
    // A file of ours says what they are of.
    let own = foreign.manifest.as_ref().and_then(|manifest| manifest.get("gradient"));
    let own = own.and_then(|own| serde_json::from_value::<OfMetric>(own.clone()).ok());
    let own = own.filter(|_| !args.is_given());
    let targets = foreign.targets.as_ref().filter(|_| foreign.is_debug_state() && !args.is_given());
    if own.is_none() && targets.is_none() && !args.is_given() {
        let n = count(n, "gradient");
        say(&format!("note: {n} not compared: name what they are of with --metric, such as --metric loss"));
        return if check.tensors.is_empty() && check.loss.is_none() {
            Err(Error::usage("there is nothing else in the file: use --metric"))
        } else {
            Ok(())
        };
    }
    let metric = |run: &Run, i: usize| match (&own, targets.and_then(|all| all.get(i))) {
        (Some(own), _) => Metric::parse(&own.metric, &run.model, run.n_tokens()),
        (None, Some(targets)) => Ok(Metric::loss_of(targets.clone())),
        (None, None) => args.of(run),
    };
    let stop = own.as_ref().map_or_else(|| args.stop(), OfMetric::stop);
    let more = Check::of_gradients(model, foreign, tokens, (&metric, stop), options)?;
    check.first_off = check.first_off.or(more.first_off.map(|first| check.tensors.len() + first));
    check.tensors.extend(more.tensors);
    Ok(())
}

fn answer(check: &Check) -> Answer<'_> {
    Answer {
        ok: check.is_ok(),
        first_off: check.first_off.map(|first| check.tensors[first].name.as_str()),
        tolerance: check.tolerance,
        tensors: check.tensors.iter().map(row).collect(),
        loss: check.loss.map(|(theirs, ours)| Loss { theirs, ours, ok: check.loss_is_ok() }),
        diagnoses: check.diagnoses.iter().map(|one| Says { kind: one.kind, says: &one.says }).collect(),
    }
}

fn row(one: &Compared) -> Row<'_> {
    let found = &one.difference;
    Row {
        name: &one.name,
        theirs: &one.theirs,
        shape: &one.shape,
        max_diff: found.max,
        mean_diff: found.mean,
        cosine: found.cosine,
        at: &found.at,
        value: found.theirs,
        expected: found.ours,
        ok: found.is_ok(),
        note: one.note,
    }
}

fn table(check: &Check) -> Result<()> {
    let mut table = Table::new([
        Column::Left(""),
        Column::Left("tensor"),
        Column::Left("theirs"),
        Column::Left("shape"),
        Column::Right("max diff"),
        Column::Right("mean diff"),
        Column::Right("cosine"),
        Column::Left("where"),
    ]);
    for (i, one) in check.tensors.iter().enumerate() {
        let found = &one.difference;
        let shape: Vec<_> = one.shape.iter().map(ToString::to_string).collect();
        let at: Vec<_> = found.at.iter().map(ToString::to_string).collect();
        let place = if found.max == 0.0 {
            String::new()
        } else {
            format!("[{}] {} for {}", at.join(", "), exact(found.theirs), exact(found.ours))
        };
        let note = one.note.map_or_else(String::new, |note| format!("  ({note})"));
        let mark = match found.is_ok() {
            true => "ok",
            false if check.first_off == Some(i) => "OFF",
            false => "off",
        };
        let theirs = if one.theirs == one.name { String::new() } else { plain(&one.theirs).into_owned() };
        table.row([
            mark.into(),
            one.name.clone(),
            theirs,
            format!("({})", shape.join(", ")),
            format!("{:.2e}", found.max),
            format!("{:.2e}", found.mean),
            format!("{:.6}", found.cosine),
            format!("{place}{note}"),
        ]);
    }
    table.print()?;
    if let Some((theirs, ours)) = check.loss {
        let mark = if check.loss_is_ok() { "ok " } else { "off" };
        print(&format!("{mark}  loss {} for {}\n", exact(theirs), exact(ours)))?;
    }
    let Some(first) = check.first_off.map(|first| &check.tensors[first]) else {
        let n = count(check.tensors.len(), "tensor");
        return print(&format!("\n{n}: all within {:e} of ours\n", check.tolerance));
    };
    print(&format!("\nthe first that is off: {}\n", first.name))?;
    match &check.diagnoses[..] {
        [] => print("it looks like nothing that is known\n"),
        all => all.iter().try_for_each(|one| print(&format!("it looks like {}\n", one.says))),
    }
}
