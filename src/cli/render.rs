//! `actscope render`: a tensor or a chart as a picture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Color, DifferenceArgs, InputArgs, ModelArgs};
use super::attribute::{AttributionArgs, run_for_attribution};
use super::heads::HeadArgs;
use super::lens::{LensArgs, run_for_lens};
use super::output::width;
use super::patch::CorruptArgs;
use crate::analysis::Source;
use crate::analysis::answer::Answer;
use crate::analysis::attribution::Attribution;
use crate::analysis::chart::Chart;
use crate::analysis::effects::Measure;
use crate::analysis::heads::Metric;
use crate::analysis::lens::{Lens, Show, hooks};
use crate::analysis::patch::Sweep;
use crate::analysis::weights::{self, Circuit};
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::export::figure::{Figure, Options};
use crate::hooks::{HookFilter, HookName};
use crate::model::Model;
use crate::run::{Input, Run};

/// Draw one tensor or chart as a heatmap: PNG, SVG or text
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope render pattern.2 \"The cat sat on the mat\" --head 3 -o pattern.png
  actscope render resid_post.3 --prompt-file poem.txt -o residual.svg
  actscope render logits \"The cat sat\" --width 100
  actscope render heads --repeat-random 50 --show induction -o heads.svg
  actscope render lens \"The cat sat on the\" --show token_rank --token \" mat\" -o lens.png
  actscope render attribution \"The cat sat on the\" --token \" mat\" --versus \" dog\" -o parts.svg
  actscope render lens \"The cat sat on the\" --ablate mlp:2 --difference -o changed.svg
  actscope render ov \"any prompt\" -o circuits.png
  actscope render effects \"The cat sat on the\" --show kl -o effects.svg
  actscope render patch \"The old man and the old\" --corrupt \"The young man and the old\" -o patch.png")]
pub struct Args {
    /// Name or short name of a hook, as `actscope hooks` lists them, or a chart: heads, lens,
    /// attribution, ov or qk (the singular values of every head's circuit), effects, or patch; or wte or wpe
    what: String,
    #[command(flatten)]
    input: InputArgs,
    /// Only this head, counted from 0; without it, all of them
    #[arg(long, value_name = "H")]
    head: Option<usize>,
    /// Which number of a chart: heads, lens and effects have those of their JSON, patch its sweeps
    #[arg(long, value_name = "NUMBER")]
    show: Option<String>,
    #[command(flatten)]
    heads: HeadArgs,
    #[command(flatten)]
    lens: LensArgs,
    #[command(flatten)]
    attribution: AttributionArgs,
    #[command(flatten)]
    corrupt: CorruptArgs,
    #[command(flatten)]
    difference: DifferenceArgs,
    /// A .png or .svg file, or - for text on standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Light on dark
    #[arg(long)]
    dark: bool,
    /// Columns of the text; without it, as many as the terminal has
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Colours of the text
    #[arg(long, value_name = "COLORS", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    model: ModelArgs,
}

/// A chart's name, and how it is made.
type Make = fn(&Args, &Arc<Model>, Answer<Input>) -> Result<(Run, Chart)>;

/// What is drawn beside the tensors.
const CHARTS: &[(&str, Make)] = &[
    ("heads", heads),
    ("lens", lens),
    ("attribution", attribution),
    ("ov", ov),
    ("qk", qk),
    ("effects", effects),
    ("patch", patch),
];

fn heads(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    let metric = args.number(&Metric::ALL, Metric::name)?.unwrap_or(Metric::Induction);
    let (run, atlas) = args.heads.atlas(model, inputs)?;
    Ok((run, atlas.shown(|atlas| atlas.chart(metric))))
}

fn lens(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    let show = args.number(&Show::ALL, Show::name)?.unwrap_or_default();
    let token = args.lens.token(model)?;
    let Answer { of: run, minus } = inputs.runs(|input| run_for_lens(model, input))?;
    let (hooks, positions) = (hooks(run.config()), 0..run.n_tokens());
    let lens = Lens::beside(&run, minus.as_ref(), &hooks, positions, token, 1)?;
    let chart = lens.shown(|lens| lens.chart(&run, show));
    Ok((run, chart))
}

fn attribution(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    let token = args.lens.token(model)?;
    let versus = args.attribution.versus(model)?;
    let Answer { of: run, minus } = inputs.runs(|input| run_for_attribution(model, input))?;
    let position = args.attribution.position(&run);
    let chart = Attribution::beside(&run, minus.as_ref(), position, token, versus)?.chart(&run);
    Ok((run, chart))
}

fn effects(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    let measure = args.number(&Measure::ALL, Measure::name)?.unwrap_or_default();
    let mean = args.input.clone().take_mean();
    let question = (args.attribution.given(), args.lens.token(model)?, mean);
    let (run, effects) = super::effects::measure(model, inputs, question)?;
    let chart = effects.shown(|effects| effects.chart(&run, measure));
    Ok((run, chart))
}

fn patch(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    let input = args.alone(inputs)?;
    let sweep = args.number(&Sweep::ALL, Sweep::name)?.unwrap_or(Sweep::ResidPre);
    let tokens = (args.lens.token(model)?, args.attribution.versus(model)?);
    let (patching, swept) = args.corrupt.sweep(model, input, tokens, sweep)?;
    Ok(((*patching.corrupt).clone(), swept.chart(&patching)))
}

fn ov(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    circuits(model, args.alone(inputs)?, Circuit::Ov)
}

fn qk(args: &Args, model: &Arc<Model>, inputs: Answer<Input>) -> Result<(Run, Chart)> {
    circuits(model, args.alone(inputs)?, Circuit::Qk)
}

fn circuits(model: &Arc<Model>, input: Input, circuit: Circuit) -> Result<(Run, Chart)> {
    let run = Run::new(model, input, HookFilter::new(&["embed"], model.config())?, ())?;
    Ok((run, weights::chart(&model.net, circuit)?))
}

impl Args {
    /// What to run where nothing can be taken off it.
    fn alone(&self, inputs: Answer<Input>) -> Result<Input> {
        if inputs.minus.is_none() {
            return Ok(inputs.of);
        }
        let why = if self.what == "patch" { "compares two prompts" } else { "is the same in every run" };
        Err(Error::usage(format!("{} {why}: leave --difference out", self.what)))
    }

    /// What `--show` names among the numbers that a chart has.
    fn number<T: Copy>(&self, all: &[T], name: fn(T) -> &'static str) -> Result<Option<T>> {
        let Some(show) = &self.show else { return Ok(None) };
        let found = all.iter().copied().find(|&number| name(number) == show);
        found.map(Some).ok_or_else(|| {
            let names: Vec<_> = all.iter().copied().map(name).collect();
            Error::usage(format!("{} has no `{show}`; --show takes {}", self.what, names.join(", ")))
        })
    }
}

enum Form {
    Png,
    Svg,
    Text,
}

impl Form {
    fn of_path(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            _ if path == Path::new("-") => Ok(Self::Text),
            Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            _ => Err(Error::usage(format!(
                "{}: the name says no kind of picture; let it end in .png or .svg, or give - for text",
                path.display()
            ))),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let form = Form::of_path(&args.output)?;
    let mut input = args.input.clone();
    if args.what == "effects" {
        input.take_mean();
    }
    let asked = args.heads.asked(input)?;
    let to = Destination::new(&args.output).prepare()?;
    let model = args.model.load()?;
    let inputs = args.difference.of(asked.input(&model)?)?;
    let options = Options { dark: args.dark, ..Options::default() };
    let figure = match CHARTS.iter().find(|(name, _)| *name == args.what) {
        Some(_) if args.head.is_some() => {
            return Err(Error::usage(format!("{} is a chart, not one head's: leave --head out", args.what)));
        }
        Some((_, make)) => {
            let (run, chart) = make(args, &model, inputs)?;
            Figure::of_chart(&run, &chart, options)?
        }
        None if matches!(args.what.as_str(), "wte" | "wpe") => {
            let source = if args.what == "wte" { Source::Wte } else { Source::Wpe };
            let input = args.alone(inputs)?;
            let run = Run::new(&model, input, HookFilter::new(&["embed"], model.config())?, ())?;
            Figure::new(&run, source, args.head, options)?
        }
        None => {
            let hook = HookName::find(&args.what, model.config())?;
            let keep = HookFilter::new(&[hook.to_string()], model.config())?;
            let runs = inputs.runs(|input| Run::new(&model, input, keep.clone(), ()))?;
            Figure::beside(&runs.of, runs.minus.as_ref(), Source::Hook(hook), args.head, options)?
        }
    };
    let bytes = match form {
        Form::Png => figure.to_png()?,
        Form::Svg => figure.to_svg().into_bytes(),
        Form::Text => {
            let width = args.width.unwrap_or_else(width);
            figure.to_ansi(width, args.color.of_stdout()).into_bytes()
        }
    };
    to.write(|out| out.write_all(&bytes))?;
    Ok(())
}
