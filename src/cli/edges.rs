//! `actscope edges`: which connections between components carry what tells two prompts apart.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::args::{ModelArgs, TokenIds};
use super::output::{self, Column, Table, ending, print, print_object, say};
use super::progress::count;
use crate::analysis::gradients::edges::{Edges, Kept, Pair, Ready};
use crate::analysis::patch::Patching;
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::export::figure::graph;
use crate::files;
use crate::model::Model;
use crate::run::{Input, Prompt, Run};
use crate::text::{self, fixed, num, signed_fixed};

/// Score every connection between heads, MLPs and the ends of the residual stream
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope edges --clean \"The old man saw the young woman, and the old\" \\
    --corrupt \"The young man saw the old woman, and the old\" --token \" man\" --versus \" woman\" --keep 10,50,200
  actscope edges --pairs pairs.jsonl --ig 5 --json
  actscope edges --clean \"One two three\" --corrupt \"Two one three\" -o edges.svg -k 60

An edge goes from what a component writes to what a later one reads: the queries, keys or values of a head, an MLP or the \
logits. Its score (EAP) estimates how the logit difference of --token over --versus after the last position changes if \
the edge alone carries what the corrupt prompt has: (corrupt − clean) · gradient, over all positions. With --ig M \
(EAP-IG), the gradient is the mean of M steps from the corrupt embeddings to the clean ones.
--keep N measures: every edge but the N with the largest scores carries what the corrupt prompt has; faithfulness is \
(kept − corrupt) / (clean − corrupt).
Each line of a file of pairs is {\"clean\": TEXT, \"corrupt\": TEXT, \"token\": TOKEN, \"versus\": TOKEN}; clean_ids and corrupt_ids \
take token ids, and --token and --versus are used where a line has none. Scores are means over the pairs.")]
pub struct Args {
    /// Prompt whose prediction is explained
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["clean_ids", "pairs"])]
    clean: Option<String>,
    /// The same, as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "clean")]
    clean_ids: Option<TokenIds>,
    /// Prompt that it is told apart from, of equal length
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["corrupt_ids", "pairs"])]
    corrupt: Option<String>,
    /// The same, as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "corrupt")]
    corrupt_ids: Option<TokenIds>,
    /// File of pairs of prompts, one JSON object per line
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["clean", "clean_ids", "corrupt", "corrupt_ids"])]
    pairs: Option<PathBuf>,
    /// Put the model's BOS token first in all prompts
    #[arg(long)]
    bos: bool,
    /// Token that the clean prompt favours, as text or id; default: as for `actscope patch`
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// Token that the corrupt prompt favours
    #[arg(long, value_name = "TEXT|ID", allow_hyphen_values = true)]
    versus: Option<String>,
    /// Integrated gradients with so many steps
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    ig: Option<u32>,
    /// Number of edges to list and draw, the largest by magnitude first
    #[arg(short, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Measure the logit difference with only the N largest edges; several with commas
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    keep: Vec<usize>,
    /// Draw the listed edges: an .svg file
    #[arg(short, long, value_name = "FILE.svg")]
    output: Option<PathBuf>,
    /// Write {clean, corrupt, pairs, ig, n_edges, edges: [{from, to, score}], keep: [{edges, value, faithfulness}]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// A line of a file of pairs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    clean: Option<String>,
    clean_ids: Option<Vec<u32>>,
    corrupt: Option<String>,
    corrupt_ids: Option<Vec<u32>>,
    token: Option<Named>,
    versus: Option<Named>,
}

/// A token as text or id.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Named {
    Id(u32),
    Text(String),
}

impl Named {
    fn of(&self, model: &Model) -> Result<u32> {
        match self {
            Self::Id(id) => model.token(&id.to_string()),
            Self::Text(text) => model.token(text),
        }
    }
}

#[derive(Serialize)]
struct Answer {
    clean: f64,
    corrupt: f64,
    pairs: usize,
    ig: Option<u32>,
    n_edges: usize,
    edges: Vec<Row>,
    keep: Vec<KeptRow>,
}

#[derive(Serialize)]
struct Row {
    from: String,
    to: String,
    #[serde(serialize_with = "output::number")]
    score: f32,
}

#[derive(Serialize)]
struct KeptRow {
    edges: usize,
    value: f64,
    #[serde(serialize_with = "output::number")]
    faithfulness: f32,
}

pub fn run(args: &Args) -> Result<()> {
    let to = match &args.output {
        Some(path) if ending(path).as_deref() != Some("svg") => {
            let problem =
                format!("{}: edges are drawn as .svg: use a name that ends in it", text::path(path));
            return Err(Error::usage(problem));
        }
        Some(path) => Some(Destination::new(path).prepare()?),
        None => None,
    };
    let lines = match &args.pairs {
        Some(path) => Some(read_lines(path)?),
        None => None,
    };
    let model = args.model.load()?;
    let named = |text: &Option<String>| text.as_deref().map(|text| model.token(text)).transpose();
    let (token, versus) = (named(&args.token)?, named(&args.versus)?);
    let pairs = match lines {
        Some(lines) => of_lines(&model, &lines, (token, versus), args)?,
        None => vec![of_args(&model, args, (token, versus))?],
    };
    let steps = args.ig.map(|steps| steps as usize);
    let edges = Edges::new(&pairs, steps, count("backward pass"))?;
    let keep = args.keep.iter().map(|&n| edges.keep(&pairs, n)).collect::<Result<Vec<_>>>()?;
    let shown = &edges.all[..edges.all.len().min(args.k as usize)];
    if let (Some(to), Some(path)) = (to, &args.output) {
        let svg = graph::svg(shown, model.config(), &title(&edges, shown.len()));
        to.write(|out| out.write_all(svg.as_bytes()))?;
        say(&format!("{} in {}", text::count(shown.len(), "edge"), text::path(path)));
    }
    if args.json {
        let edge = |edge: &crate::analysis::gradients::edges::Edge| Row {
            from: edge.from.to_string(),
            to: edge.to.to_string(),
            score: edge.score as f32,
        };
        let row = |kept: &Kept| KeptRow {
            edges: kept.edges,
            value: kept.value,
            faithfulness: kept.faithfulness as f32,
        };
        return print_object(&Answer {
            clean: edges.clean,
            corrupt: edges.corrupt,
            pairs: edges.n_pairs,
            ig: args.ig,
            n_edges: edges.all.len(),
            edges: shown.iter().map(edge).collect(),
            keep: keep.iter().map(row).collect(),
        });
    }
    print(&format!("{}\n", title(&edges, shown.len())))?;
    let mut table = Table::new([Column::Left("from"), Column::Left("to"), Column::Right("score")]);
    for edge in shown {
        table.row([edge.from.to_string(), edge.to.to_string(), signed_fixed(edge.score, 4)]);
    }
    table.print()?;
    if keep.is_empty() {
        return Ok(());
    }
    print("\n")?;
    let names =
        [Column::Right("kept edges"), Column::Right("logit difference"), Column::Right("faithfulness")];
    let mut table = Table::new(names);
    for kept in &keep {
        table.row([kept.edges.to_string(), fixed(kept.value, 4), fixed(kept.faithfulness, 3)]);
    }
    table.print()
}

fn title(edges: &Edges, shown: usize) -> String {
    let pairs =
        if edges.n_pairs == 1 { String::new() } else { format!(", means of {} pairs", edges.n_pairs) };
    format!(
        "logit difference: clean {}, corrupt {}{pairs}; the {shown} largest of {} edges",
        num(edges.clean as f32),
        num(edges.corrupt as f32),
        edges.all.len()
    )
}

/// The pair of the command line; without tokens, those that `actscope patch` chooses.
fn of_args(model: &Arc<Model>, args: &Args, (token, versus): (Option<u32>, Option<u32>)) -> Result<Ready> {
    let prompt = |text: &Option<String>, ids: &Option<TokenIds>| {
        let ids = ids.as_ref().map(|TokenIds(ids)| Prompt::Ids(ids.clone()));
        let prompt = ids.or_else(|| text.clone().map(Prompt::Text));
        Input::new(prompt.unwrap_or(Prompt::Ids(Vec::new()))).with_bos(args.bos)
    };
    let clean = prompt(&args.clean, &args.clean_ids);
    let corrupt = prompt(&args.corrupt, &args.corrupt_ids);
    let (token, versus) = match (token, versus) {
        (Some(token), versus) => (token, versus),
        (None, versus) => {
            let [a, b] = [&clean, &corrupt].map(|input| Run::all(model, input.clone()).map(Arc::new));
            let patching = Patching::new(a?, b?, None, versus)?;
            (patching.token, Some(patching.versus))
        }
    };
    Ready::new(model, Pair { clean, corrupt, token, versus })
}

fn read_lines(path: &std::path::Path) -> Result<Vec<(usize, Line)>> {
    let text = files::read_text(path, files::PROMPT)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let line = |(i, line): (usize, &str)| {
        let read = serde_json::from_str::<Line>(line);
        let read = read.map_err(|why| Error::file(path, format!("line {}: {why}", i + 1)))?;
        Ok((i + 1, read))
    };
    let lines = lines.map(line).collect::<Result<Vec<_>>>()?;
    if lines.is_empty() { Err(Error::file(path, "has no pairs")) } else { Ok(lines) }
}

/// The pairs of a file.
fn of_lines(
    model: &Arc<Model>,
    lines: &[(usize, Line)],
    (token, versus): (Option<u32>, Option<u32>),
    args: &Args,
) -> Result<Vec<Ready>> {
    let path = args.pairs.clone().unwrap_or_default();
    let pair = |(number, line): &(usize, Line)| {
        let of = |text: &Option<String>, ids: &Option<Vec<u32>>, name: &str| {
            let prompt = match (text, ids) {
                (Some(text), None) => Ok(Prompt::Text(text.clone())),
                (None, Some(ids)) => Ok(Prompt::Ids(ids.clone())),
                _ => Err(Error::usage(format!("needs {name} or {name}_ids, and one of them only"))),
            };
            Ok::<_, Error>(Input::new(prompt?).with_bos(args.bos))
        };
        let read = || -> Result<Ready> {
            let named = |named: &Option<Named>, other: Option<u32>| match named {
                Some(named) => named.of(model).map(Some),
                None => Ok(other),
            };
            let token = named(&line.token, token)?
                .ok_or_else(|| Error::usage("has no token: give one, or --token for all lines"))?;
            Ready::new(
                model,
                Pair {
                    clean: of(&line.clean, &line.clean_ids, "clean")?,
                    corrupt: of(&line.corrupt, &line.corrupt_ids, "corrupt")?,
                    token,
                    versus: named(&line.versus, versus)?,
                },
            )
        };
        read().map_err(|why| Error::file(&path, format!("line {number}: {why}")))
    };
    lines.iter().map(pair).collect()
}
