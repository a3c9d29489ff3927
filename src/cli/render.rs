//! `actscope render`: a tensor or a chart as a picture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Color, DifferenceArgs, InputArgs, ModelArgs, Place};
use super::attribute::{AttributionArgs, run_for_attribution};
use super::heads::HeadArgs;
use super::lens::{LensArgs, Other, run_for_lens};
use super::neighbours::{is_table, no_prompt, of_run, of_table};
use super::output::{ending, print_colored, width};
use super::patch::CorruptArgs;
use crate::analysis::ViewSource;
use crate::analysis::attribution::Attribution;
use crate::analysis::base::WithBase;
use crate::analysis::effects::Measure;
use crate::analysis::heads::Metric;
use crate::analysis::lens::{Lens, Show};
use crate::analysis::patch::Sweep;
use crate::analysis::weights::{self, Circuit, NeuronTokens, neighbours_chart};
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::export::figure::{Figure, Options};
use crate::hooks::Quantity;
use crate::model::Model;
use crate::picture::chart::Chart;
use crate::picture::range::RangeMode;
use crate::run::{Input, Run};
use crate::text;

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
  actscope render ov -o circuits.png
  actscope render neighbours --row \" sea\" -o sea.svg
  actscope render neuron --neuron 2.117 -o neuron.svg
  actscope render effects \"The cat sat on the\" --show kl -o effects.svg
  actscope render patch \"The old man and the old\" --corrupt \"The young man and the old\" -o patch.png")]
pub struct Args {
    /// What to draw: a hook by name or short name (see `actscope hooks`), or a chart: heads, lens,
    /// attribution, effects, patch or neighbours; or, from the weights and without a prompt: ov or qk (the
    /// singular values of every head's circuits), neuron, neighbours, wte or wpe
    what: String,
    #[command(flatten)]
    input: InputArgs,
    /// Head to draw, counted from 0; default: all
    #[arg(long, value_name = "H")]
    head: Option<usize>,
    /// Number to draw in a chart: those in the JSON of heads, lens and effects, or a sweep of patch
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
    /// Row whose neighbours to draw: a token as text or id (for wte), or a position
    #[arg(long, value_name = "ROW", allow_hyphen_values = true)]
    row: Option<String>,
    /// Source of that row: wte, wpe, or a hook with rows of width C, such as resid_post.2
    #[arg(long, value_name = "wte|wpe|HOOK", default_value = "wte")]
    of: String,
    /// Neuron, as LAYER.NEURON
    #[arg(long, value_name = "L.N")]
    neuron: Option<Place>,
    #[command(flatten)]
    difference: DifferenceArgs,
    /// Output file, .png or .svg, or - for text on standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Use a dark background
    #[arg(long)]
    dark: bool,
    /// Width of the text in columns; default: that of the terminal
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Colours of the text
    #[arg(long, value_name = "COLORS", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    model: ModelArgs,
}

/// How a chart is made: from a run of the input, or from the weights alone.
enum Make {
    Run(OfRun),
    Weights(fn(&Args, &Model) -> Result<Chart>),
}

type OfRun = fn(&Args, &Arc<Model>, WithBase<Input>) -> Result<(Run, Chart)>;

/// The charts that can be drawn, besides tensors.
const CHARTS: &[(&str, Make)] = &[
    ("heads", Make::Run(heads)),
    ("lens", Make::Run(lens)),
    ("attribution", Make::Run(attribution)),
    ("effects", Make::Run(effects)),
    ("patch", Make::Run(patch)),
    ("neighbours", Make::Run(neighbours_in_run)),
    ("neighbours", Make::Weights(neighbours)),
    ("neuron", Make::Weights(neuron)),
    ("ov", Make::Weights(ov)),
    ("qk", Make::Weights(qk)),
    ("wte", Make::Weights(wte)),
    ("wpe", Make::Weights(wpe)),
];

/// The number of neighbours, and of tokens at each end.
const LISTED: usize = 20;

fn heads(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let metric = args.number(&Metric::ALL, Metric::name)?.unwrap_or(Metric::Induction);
    let (run, atlas) = args.heads.atlas(model, inputs)?;
    Ok((run, atlas.shown(|atlas| atlas.chart(metric))))
}

fn lens(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let show = args.number(&Show::ALL, Show::name)?.unwrap_or_default();
    let token = args.lens.token(model)?;
    let through = args.lens.through(&args.model, model)?;
    let minus = args.lens.minus(&args.model, model)?;
    if minus.is_some() && inputs.base.is_some() {
        return Err(Error::usage(
            "--minus is a difference of two lenses, --difference one of two runs: give one",
        ));
    }
    let WithBase { of: run, base } = inputs.runs(|input| run_for_lens(model, input, through.as_ref()))?;
    let positions = 0..run.n_tokens();
    let lens = match &minus {
        Some(Other(other)) => Lens::between(&run, (through.as_ref(), other.as_ref()), positions, token, 1)?,
        None => Lens::through(&run, base.as_ref(), through.as_ref(), positions, token, 1)?,
    };
    let chart = lens.chart(&run, show, minus.is_some());
    Ok((run, chart))
}

fn attribution(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let token = args.lens.token(model)?;
    let versus = args.attribution.versus(model)?;
    let WithBase { of: run, base } = inputs.runs(|input| run_for_attribution(model, input))?;
    let position = args.attribution.position(&run);
    let chart = Attribution::with_base(&run, base.as_ref(), position, token, versus)?.chart(&run);
    Ok((run, chart))
}

fn effects(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let measure = args.number(&Measure::ALL, Measure::name)?.unwrap_or_default();
    let mean = args.input.clone().take_mean();
    let question = (args.attribution.given(), args.lens.token(model)?, mean);
    let (run, effects) = super::effects::measure(model, inputs, question)?;
    let chart = effects.shown(|effects| effects.chart(&run, measure));
    Ok((run, chart))
}

fn patch(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let input = args.alone(inputs)?;
    let sweep = args.show.as_deref().unwrap_or("resid_pre").parse::<Sweep>();
    let sweep = sweep.map_err(|why| Error::usage(format!("--show of patch: {why}")))?;
    let tokens = (args.lens.token(model)?, args.attribution.versus(model)?);
    let (patching, swept) = args.corrupt.sweep(model, input, tokens, sweep)?;
    Ok(((*patching.corrupt).clone(), swept.chart(&patching)))
}

fn ov(_: &Args, model: &Model) -> Result<Chart> {
    weights::chart(&model.net, Circuit::Ov)
}

fn qk(_: &Args, model: &Model) -> Result<Chart> {
    weights::chart(&model.net, Circuit::Qk)
}

fn wte(_: &Args, model: &Model) -> Result<Chart> {
    weights::table(&model.net, false)
}

fn wpe(_: &Args, model: &Model) -> Result<Chart> {
    weights::table(&model.net, true)
}

fn neuron(args: &Args, model: &Model) -> Result<Chart> {
    let given = args.neuron.ok_or_else(|| Error::usage("no neuron given: use --neuron LAYER.NEURON"));
    let Place(layer, neuron) = given?;
    let tokens = NeuronTokens::new(&model.net, layer, neuron, LISTED)?;
    Ok(tokens.chart(|id| model.tokenizer.show(id)))
}

fn neighbours(args: &Args, model: &Model) -> Result<Chart> {
    let row = args.row()?;
    let found = of_table(model, &args.of, row, LISTED)?;
    let show = |id: u32| model.tokenizer.show(id);
    Ok(match args.of.as_str() {
        "wpe" => {
            neighbours_chart(&format!("position {row} of wpe"), "position", &found, |row| row.to_string())
        }
        _ => neighbours_chart(&show(model.token(row)?), "token", &found, |row| show(row as u32)),
    })
}

fn neighbours_in_run(args: &Args, model: &Arc<Model>, inputs: WithBase<Input>) -> Result<(Run, Chart)> {
    let row = args.row()?;
    let (found, run) = of_run(model, args.alone(inputs)?, (&args.of, None, row), LISTED)?;
    let of = format!("position {row} of {}", args.of);
    let chart = neighbours_chart(&of, "token", &found, |row| model.tokenizer.show(row as u32));
    Ok((run, chart))
}

impl Args {
    /// The input of a chart that has no difference.
    fn alone(&self, inputs: WithBase<Input>) -> Result<Input> {
        if inputs.base.is_none() {
            return Ok(inputs.of);
        }
        let why = if self.what == "patch" { "compares two prompts" } else { "shows one run" };
        Err(Error::usage(format!("{} {why}: leave --difference out", self.what)))
    }

    /// How the chart of this name is made, if there is one.
    fn chart(&self) -> Option<&'static Make> {
        let suits =
            |make: &Make| self.what != "neighbours" || matches!(make, Make::Weights(_)) == is_table(&self.of);
        CHARTS.iter().find(|(name, make)| *name == self.what && suits(make)).map(|(_, make)| make)
    }

    fn row(&self) -> Result<&str> {
        self.row.as_deref().ok_or_else(|| Error::usage("no row given: use --row ROW"))
    }

    /// The number of a chart that `--show` names.
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
        let ending = ending(path);
        match ending.as_deref() {
            _ if path == Path::new("-") => Ok(Self::Text),
            Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            _ => Err(Error::usage(format!(
                "{}: unknown picture format; use a name that ends in .png or .svg, or - for text",
                text::path(path)
            ))),
        }
    }
}

/// Draws the figure, once there is a model.
type Draw<'a> = Box<dyn FnOnce(&Arc<Model>, Options) -> Result<Figure> + 'a>;

/// Plans the figure; refuses conflicting arguments before the model is loaded.
fn plan(args: &Args) -> Result<Draw<'_>> {
    let chart = args.chart();
    if chart.is_some() && args.head.is_some() {
        return Err(Error::usage(format!("{} is a chart of the whole run: leave --head out", args.what)));
    }
    if let Some(Make::Weights(make)) = chart {
        no_prompt(&args.what, &args.input)?;
        if args.difference.is_given() {
            return Err(Error::usage(format!(
                "{} does not depend on the run: leave --difference out",
                args.what
            )));
        }
        let range = is_table(&args.what).then(|| RangeMode::suited(Quantity::Signed));
        return Ok(Box::new(move |model, options| {
            Figure::of_weights(model, &make(args, model)?, Options { range, ..options })
        }));
    }
    let mut input = args.input.clone();
    if args.what == "effects" {
        input.take_mean();
    }
    let asked = args.heads.asked(input)?;
    Ok(Box::new(move |model, options| {
        let inputs = args.difference.of(asked.input(model)?)?;
        if let Some(Make::Run(make)) = chart {
            let (run, chart) = make(args, model, inputs)?;
            return Figure::of_chart(&run, &chart, options);
        }
        let name = model.find(&args.what)?;
        let keep = model.needed_for(&[name]);
        let runs = inputs.runs(|input| Run::new(model, input, keep.clone(), ()))?;
        Figure::with_base(&runs.of, runs.named_base(), ViewSource::Tensor(name), args.head, options)
    }))
}

pub fn run(args: &Args) -> Result<()> {
    let form = Form::of_path(&args.output)?;
    let draw = plan(args)?;
    let to = Destination::new(&args.output).prepare()?;
    let figure = draw(&args.model.load()?, Options { dark: args.dark, ..Options::default() })?;
    let bytes = match form {
        Form::Png => figure.to_png()?,
        Form::Svg => figure.to_svg().into_bytes(),
        Form::Text => {
            let width = args.width.unwrap_or_else(width);
            return print_colored(&figure.to_ansi(width, args.color.of_stdout()));
        }
    };
    to.write(|out| out.write_all(&bytes))?;
    Ok(())
}
