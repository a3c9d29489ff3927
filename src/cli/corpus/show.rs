//! `actscope corpus show`: what a unit does on a corpus.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::args::Color;
use crate::cli::output::{self, print_colored, print_object, say};
use crate::corpus::atlas::{Atlas, OfUnit};
use crate::corpus::top::Example;
use crate::corpus::{Shard, page, stats};
use crate::error::Result;
use crate::export::Destination;
use crate::export::figure::Pen;
use crate::hooks::Quantity;
use crate::picture::colormap::{Depth, Palette, is_light};
use crate::text::{fixed, num, pad, plain};

/// Show the strongest examples of a neuron, head, channel or feature, and its statistics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope corpus show neuron:2.117
  actscope corpus show neuron:2.117 --atlas atlas
  actscope corpus show feature:2.resid_pre/616
  actscope corpus show head:5.1 --atlas atlas --json
  actscope corpus show neuron:2.117 -o neuron.html
  actscope corpus show resid_post.2/17 --atlas atlas

A head's number is its largest weight on a token other than the first; the colours are then its weights. Below the
strongest examples are some drawn by chance among all values above 0, in quarters from the largest to the smallest.")]
pub struct Args {
    /// neuron:LAYER.INDEX, head:LAYER.INDEX, result:LAYER.INDEX, feature:LAYER.HOOK/INDEX, or a hook and an index,
    /// such as resid_post.2/17
    #[arg(value_name = "UNIT")]
    unit: String,
    /// Folder of the results of `actscope corpus run` [default: the atlas of the demo model]
    #[arg(long, value_name = "DIR")]
    atlas: Option<PathBuf>,
    /// Write a page for a browser
    #[arg(short, long, value_name = "FILE.html", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Write {unit, examples: [{value, document, position, first, token_ids, tokens, values}], drawn, stats},
    /// the largest first
    #[arg(long)]
    json: bool,
    /// Colours of the tokens
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
}

#[derive(Serialize)]
struct Answer<'a> {
    unit: &'a str,
    examples: Vec<Row<'a>>,
    /// Some of all values above 0, drawn by chance.
    drawn: Vec<Drawn<'a>>,
    stats: Option<StatsRow>,
}

#[derive(Serialize)]
struct Drawn<'a> {
    /// Of the values that were drawn, from 1.
    quarter: usize,
    #[serde(flatten)]
    row: Row<'a>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(serialize_with = "output::number")]
    value: f32,
    document: u64,
    position: u32,
    /// The position of the first of `token_ids`.
    first: u32,
    /// The position that a head attends to most.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<u32>,
    token_ids: &'a [u32],
    tokens: Vec<&'a str>,
    values: Vec<Number>,
}

struct Number(f32);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        output::number(&self.0, to)
    }
}

#[derive(Serialize)]
struct StatsRow {
    count: u64,
    not_finite: u64,
    mean: f64,
    variance: f64,
    #[serde(serialize_with = "output::number")]
    min: f32,
    #[serde(serialize_with = "output::number")]
    max: f32,
    positive_share: f64,
    histogram: Vec<u64>,
    histogram_edges: Vec<f64>,
}

impl<'a> Row<'a> {
    fn new(example: &'a Example, unit: &'a OfUnit) -> Self {
        Self {
            value: example.value,
            document: example.document,
            position: example.position,
            first: example.first,
            key: example.key,
            token_ids: &example.token_ids,
            tokens: tokens(example, unit),
            values: example.values.iter().map(|x| Number(*x)).collect(),
        }
    }
}

fn tokens<'a>(example: &'a Example, unit: &'a OfUnit) -> Vec<&'a str> {
    example.token_ids.iter().map(|id| unit.texts.get(id).map_or("", String::as_str)).collect()
}

impl StatsRow {
    fn new(of: &stats::OfUnit) -> Self {
        Self {
            count: of.count,
            not_finite: of.not_finite,
            mean: of.mean(),
            variance: of.variance(),
            min: of.min,
            max: of.max,
            positive_share: of.positive_share(),
            histogram: of.histogram.clone(),
            histogram_edges: stats::edges(),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let atlas = args.atlas.as_deref().map_or_else(|| Ok(Atlas::demo()), Atlas::open)?;
    let unit = atlas.unit(&args.unit)?;
    let shard = atlas.manifest.shard;
    if shard != Shard::WHOLE {
        say(&format!("note: this is shard {shard} alone; actscope corpus merge joins all"));
    }
    if let Some(path) = &args.output {
        let to = Destination::new(path).prepare()?;
        to.write(|out| out.write_all(page::page(&atlas, &unit).as_bytes()))?;
        return Ok(());
    }
    if args.json {
        return print_object(&Answer {
            unit: &unit.name,
            examples: unit.examples.best.iter().map(|example| Row::new(example, &unit)).collect(),
            drawn: unit
                .examples
                .drawn()
                .map(|(quarter, example)| Drawn { quarter, row: Row::new(example, &unit) })
                .collect(),
            stats: unit.stats.as_ref().map(StatsRow::new),
        });
    }
    print_colored(&text(&atlas, &unit, args.color.of_stdout()))
}

fn text(atlas: &Atlas, unit: &OfUnit, depth: Depth) -> String {
    let progress = &atlas.manifest.progress;
    let mut text = format!(
        "{} on {} documents, {} tokens · {}\n",
        unit.name,
        progress.documents,
        progress.tokens,
        plain(&atlas.manifest.settings.origin.model)
    );
    if let Some(stats) = unit.stats.as_ref().filter(|stats| stats.count > 0) {
        text += &format!(
            "mean {}  σ {}  min {}  max {}  above 0: {} %\n",
            num(stats.mean()),
            num(stats.variance().sqrt()),
            num(stats.min),
            num(stats.max),
            fixed(100.0 * stats.positive_share(), 2)
        );
    }
    let limit = unit.examples.limit();
    let map = Palette::default().map(Quantity::Signed, false);
    let mut line = |example: &Example, quarter: Option<usize>| {
        let place = format!("{}:{}", example.document, example.position);
        let quarter = quarter.map_or_else(String::new, |quarter| format!("quarter {quarter}"));
        text += &format!("{:>8}  {} {} ", num(example.value), pad(&place, 12), pad(&quarter, 9));
        let mut pen = Pen::new(&mut text, depth);
        for (i, (token, value)) in tokens(example, unit).iter().zip(&example.values).enumerate() {
            let paper =
                map.at(if limit > 0.0 { (value / limit).clamp(-1.0, 1.0).midpoint(1.0) } else { 0.5 });
            let ink = if is_light(paper) { [0; 3] } else { [255; 3] };
            let [open, close] = if i == example.at() { ["«", "»"] } else { [""; 2] };
            pen.put(Some(ink), Some(paper), &format!("{open}{}{close}", plain(token)));
        }
        pen.reset();
        text.push('\n');
    };
    unit.examples.best.iter().for_each(|example| line(example, None));
    unit.examples.drawn().for_each(|(quarter, example)| line(example, Some(quarter)));
    text
}
