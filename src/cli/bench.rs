//! `actscope bench`: measures how long the user waits.

#![allow(clippy::inline_always)] // code that is not inlined is compiled without vector instructions

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use pulp::{Arch, Simd, WithSimd};
use ratatui::crossterm::event::KeyCode;
use serde::Serialize;
use serde_json::Value;

use super::args::ModelArgs;
use super::output::{Column, Table, print, print_object, say};
use crate::analysis::effects::{Effects, Question};
use crate::analysis::gradients::Metric;
use crate::analysis::logits::ROWS_AT_ONCE;
use crate::analysis::patch::{Patching, Sweep};
use crate::error::{Error, Result};
use crate::files;
use crate::hooks::{HookFilter, Part, Site};
use crate::model::{Conv1D, Model};
use crate::run::{Input, Run};
use crate::text;
use crate::tui::app::Screen;
use crate::tui::headless::Headless;

const LENGTHS: [usize; 4] = [16, 64, 256, 1024];
/// The size of the terminal that frames are drawn for.
const SIZE: (u16, u16) = (240, 70);

/// Measure runs that capture every hook, edits, and the explorer's frames
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope bench
  actscope bench --model openai-community/gpt2 --tokens 16,1024 --runs 3 --json
  actscope bench --tokens 64 --compare-threads
  actscope bench --json > before.json    # then, after a change:
  actscope bench --against before.json

Columns, in milliseconds:
  run     forward pass that captures every hook; tensors that follow from others are computed later
  logits  the same, with the logits of every position
  all     forward pass that computes and holds every tensor
  floor   only the matrix products of the pass, with the `gemm` crate, logits included
  edit    another run with a different last token, and its logits there
  append  another run with one token more, and its logits there
  back    backward pass for a log-probability at the last position: the gradients of every hook
  loss    the same for the mean loss of all positions
  peak    GFLOP/s of these threads at the same time with nothing but multiply-adds

Sweeps and effects are those of a prompt of 19 tokens: each place or component is a run of its own. A \
batch is 16 prompts of 16 tokens in one pass.")]
pub struct Args {
    /// Prompt lengths; default: those of 16,64,256,1024 that fit the model's context
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    tokens: Option<Vec<usize>>,
    /// Number of measured runs of each length, after one that is not measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure with one thread, then with all threads
    #[arg(long)]
    compare_threads: bool,
    /// Write a JSON object: {load_ms, first_frame_ms, first_activations_ms, runs, sweeps, effects, batches, frames}
    #[arg(long)]
    json: bool,
    /// Compare with a report that --json wrote, and say what became slower
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Report {
    /// From the files to a network that is ready to run.
    load_ms: f64,
    /// From the initial state to a drawn frame, before anything is loaded.
    first_frame_ms: f64,
    /// Loading, a run of 16 tokens, what the first screen shows, and a frame.
    first_activations_ms: f64,
    runs: Vec<Row>,
    sweeps: Vec<SweepRow>,
    effects: Vec<EffectsRow>,
    batches: Vec<BatchRow>,
    frames: Vec<Frames>,
}

#[derive(Serialize)]
struct Row {
    tokens: usize,
    threads: usize,
    median_ms: f64,
    min_ms: f64,
    logits_ms: f64,
    all_ms: f64,
    floor_ms: f64,
    /// null for a prompt of one token.
    edit_ms: Option<f64>,
    /// null if the context is full.
    append_ms: Option<f64>,
    /// The backward pass of a run, for a log-probability at the last position.
    back_ms: f64,
    /// The same for the mean loss; null for a prompt of one token.
    loss_ms: Option<f64>,
    /// The speed of these threads with nothing but multiply-adds, just after the runs.
    peak_gflops: f64,
    /// Peak memory of the process during the runs of this length; null if the system does not report it.
    peak_rss_bytes: Option<u64>,
}

/// A patch sweep.
#[derive(Serialize)]
struct SweepRow {
    sweep: String,
    tokens: usize,
    places: usize,
    ms: f64,
}

/// The effects of all heads and MLPs.
#[derive(Serialize)]
struct EffectsRow {
    tokens: usize,
    runs: usize,
    ms: f64,
}

/// Prompts of equal length in one pass.
#[derive(Serialize)]
struct BatchRow {
    sequences: usize,
    tokens: usize,
    ms: f64,
}

/// One screen: the times of 50 cursor keys.
#[derive(Serialize)]
struct Frames {
    tokens: usize,
    screen: &'static str,
    /// The 99th percentile of the time from key to drawn frame.
    frame_ms: f64,
    /// The same, including everything that the screen requests.
    looked_ms: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let before = args.against.as_deref().map(saved).transpose()?;
    let mut first = Headless::new("bench", Input::ids(ids(16, 1)), SIZE);
    let first_frame_ms = time(|| _ = first.frame());
    let start = Instant::now();
    let model = args.model.load()?;
    let load_ms = ms(start);
    let n = 16.min(model.config().n_positions);
    first.app.input = Input::ids(ids(n, model.config().vocab_size));
    first.loaded(&model);
    first.frame();
    let first_activations_ms = ms(start);
    drop(first);

    let lengths = lengths(args.tokens.as_deref(), model.config().n_positions)?;
    let all = rayon::current_num_threads();
    let threads = if args.compare_threads && all > 1 { vec![1, all] } else { vec![all] };
    let mut runs = Vec::new();
    for &threads in &threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::usage(format!("cannot start {threads} threads: {e}")))?;
        for &n in &lengths {
            runs.push(pool.install(|| measure(&model, n, args.runs))?);
        }
    }
    let longest = lengths.into_iter().max().unwrap_or(1);
    let n = PATCHED.min(model.config().n_positions);
    let sweeps = ["resid_pre", "heads"].map(|sweep| sweeping(&model, sweep, n, args.runs));
    let sweeps = sweeps.into_iter().collect::<Result<_>>()?;
    let effects = vec![effects(&model, n, args.runs)?];
    let batches = vec![batch(&model, args.runs)?];
    let frames = frames(&model, longest);
    let report =
        Report { load_ms, first_frame_ms, first_activations_ms, runs, sweeps, effects, batches, frames };
    if args.json {
        print_object(&report)?;
    } else {
        show(&report)?;
    }
    before.map_or(Ok(()), |before| {
        let now = serde_json::to_value(&report).map_err(|e| Error::System(format!("no report: {e}")))?;
        say(&against(&before, &now));
        Ok(())
    })
}

/// A saved report.
fn saved(path: &Path) -> Result<Value> {
    let text = files::read_text(path, files::REPORT)?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("is no report of `bench --json`: {e}")))
}

/// The kinds of rows in a report that have times, and what tells the rows of a kind apart.
const KINDS: [(&str, &[&str]); 4] = [
    ("runs", &["tokens", "threads"]),
    ("sweeps", &["sweep", "tokens"]),
    ("effects", &["tokens"]),
    ("batches", &["sequences", "tokens"]),
];

/// How many times as long something must take before it counts as slower.
const SLOWER: f64 = 1.1;

/// What takes longer than it did, among what both reports have.
fn against(before: &Value, now: &Value) -> String {
    let (mut compared, mut slower) = (0, Vec::new());
    for (kind, keys) in KINDS {
        let rows = |of: &Value| of[kind].as_array().cloned().unwrap_or_default();
        for row in rows(now) {
            let same = |other: &Value| keys.iter().all(|key| other[*key] == row[*key]);
            let Some(then) = rows(before).into_iter().find(same) else { continue };
            for (name, ms) in row.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("ms")) {
                let Some((ms, then)) = ms.as_f64().zip(then[name].as_f64()) else { continue };
                compared += 1;
                if ms > SLOWER * then {
                    let which =
                        keys.iter().map(|key| format!("{key} {}", row[*key])).collect::<Vec<_>>().join(", ");
                    slower.push(format!(
                        "{kind}, {which}: {name} {ms:.1}, before {then:.1} ({:.2} times)",
                        ms / then
                    ));
                }
            }
        }
    }
    match (compared, &slower[..]) {
        (0, _) => "the reports have nothing in common: measure the same lengths".into(),
        (_, []) => format!("none of {compared} times is more than {SLOWER} times what it was"),
        _ => format!("slower than before, {} of {compared}:\n  {}", slower.len(), slower.join("\n  ")),
    }
}

/// The tokens of a prompt in which places are patched.
const PATCHED: usize = 19;

/// A sweep of one prompt patched into another.
fn sweeping(model: &Arc<Model>, sweep: &str, n: usize, runs: u32) -> Result<SweepRow> {
    let ids = ids(n + 1, model.config().vocab_size);
    let [clean, corrupt] = [&ids[..n], &ids[1..]].map(|ids| Run::all(model, Input::ids(ids)).map(Arc::new));
    let patching = Patching::new(clean?, corrupt?, None, None)?;
    let sweep: Sweep = sweep.parse().map_err(Error::Usage)?;
    let (ms, _) = times(runs, || patching.sweep(sweep, false, |_, _| Ok(()), |_| {}).map(drop))?;
    Ok(SweepRow { sweep: sweep.name(), tokens: n, places: patching.n_places(sweep), ms })
}

fn effects(model: &Arc<Model>, n: usize, runs: u32) -> Result<EffectsRow> {
    let run = Run::all(model, Input::ids(ids(n, model.config().vocab_size)))?;
    let question = Question { position: n - 1, token: None, mean: false };
    let measure = || Effects::new(&run, question, |_, _| Ok(()));
    let n_runs = measure()?.all.len();
    let (ms, _) = times(runs, || measure().map(drop))?;
    Ok(EffectsRow { tokens: n, runs: n_runs, ms })
}

fn batch(model: &Arc<Model>, runs: u32) -> Result<BatchRow> {
    let (config, sequences) = (model.config(), 16);
    let n = sequences.min(config.n_positions);
    let (ids, keep) = (ids(n + sequences, config.vocab_size), HookFilter::all(config));
    let inputs = || (0..sequences).map(|first| Input::ids(&ids[first..first + n]));
    let (ms, _) = times(runs, || Run::several(model, inputs(), &keep).map(drop))?;
    Ok(BatchRow { sequences, tokens: n, ms })
}

fn show(report: &Report) -> Result<()> {
    let f = |ms: f64| format!("{ms:.1}");
    let or = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), f);
    let names = [
        "tokens",
        "threads",
        "run",
        "fastest",
        "logits",
        "all",
        "floor",
        "edit",
        "append",
        "back",
        "loss",
        "peak",
        "peak memory",
    ];
    let mut table = Table::new(names.map(Column::Right));
    for row in &report.runs {
        table.row([
            row.tokens.to_string(),
            row.threads.to_string(),
            f(row.median_ms),
            f(row.min_ms),
            f(row.logits_ms),
            f(row.all_ms),
            f(row.floor_ms),
            or(row.edit_ms),
            or(row.append_ms),
            f(row.back_ms),
            or(row.loss_ms),
            f(row.peak_gflops),
            row.peak_rss_bytes.map_or_else(|| "?".to_owned(), text::bytes),
        ]);
    }
    table.print()?;
    let names =
        [Column::Left("many runs"), Column::Right("tokens"), Column::Right("runs"), Column::Right("ms")];
    let mut table = Table::new(names);
    for sweep in &report.sweeps {
        table.row([
            format!("sweep {}", sweep.sweep),
            sweep.tokens.to_string(),
            sweep.places.to_string(),
            f(sweep.ms),
        ]);
    }
    for effects in &report.effects {
        table.row(["effects".into(), effects.tokens.to_string(), effects.runs.to_string(), f(effects.ms)]);
    }
    for batch in &report.batches {
        table.row(["batch".into(), batch.tokens.to_string(), batch.sequences.to_string(), f(batch.ms)]);
    }
    print("\n")?;
    table.print()?;
    let names =
        [Column::Left("screen"), Column::Right("tokens"), Column::Right("frame"), Column::Right("looked")];
    let mut table = Table::new(names);
    for frames in &report.frames {
        let cells =
            [frames.screen.to_owned(), frames.tokens.to_string(), f(frames.frame_ms), f(frames.looked_ms)];
        table.row(cells);
    }
    print("\n")?;
    table.print()?;
    print(&format!(
        "\nload {} ms, first frame {} ms, first activations {} ms\n",
        f(report.load_ms),
        f(report.first_frame_ms),
        f(report.first_activations_ms)
    ))
}

/// The lengths given, each of which must fit the context; else those of [`LENGTHS`] that fit.
fn lengths(asked: Option<&[usize]>, longest: usize) -> Result<Vec<usize>> {
    if let Some(asked) = asked {
        asked.iter().try_for_each(|&n| Error::check("--tokens", n, 1..longest + 1))?;
        return Ok(asked.to_vec());
    }
    let (mut fitting, too_long): (Vec<_>, Vec<_>) = LENGTHS.into_iter().partition(|&n| n <= longest);
    if !too_long.is_empty() {
        let too_long: Vec<_> = too_long.iter().map(ToString::to_string).collect();
        say(&format!("skipping {} tokens: the context holds {longest}", too_long.join(", ")));
    }
    if fitting.is_empty() {
        fitting.push(longest);
    }
    Ok(fitting)
}

fn measure(model: &Arc<Model>, n_tokens: usize, runs: u32) -> Result<Row> {
    reset_peak();
    let config = model.config();
    let ids = ids(n_tokens + 1, config.vocab_size);
    let keep = HookFilter::all(config);
    let prompt = Input::ids(&ids[..n_tokens]);
    let run = || Run::all(model, prompt.clone());
    let before = run()?; // the first run touches memory for the others
    let logits = |run: &Run, first: usize| {
        let n = run.n_tokens();
        (first..n).step_by(ROWS_AT_ONCE).try_for_each(|first| {
            run.part(Site::Logits.once(), &Part::rows(first..n.min(first + ROWS_AT_ONCE))).map(drop)
        })
    };
    let (median_ms, min_ms) = times(runs, || run().map(drop))?;
    let (logits_ms, _) = times(runs, || logits(&run()?, 0))?;
    let (all_ms, _) = times(runs, || Run::made(model, prompt.clone(), keep.clone()).map(drop))?;
    let then = |input: Input| {
        let (ms, _) = times(runs, || {
            let run = before.then(input.clone(), keep.clone(), ())?;
            logits(&run, run.n_tokens() - 1)
        })?;
        Ok::<_, Error>(ms)
    };
    let edited = [&ids[..n_tokens - 1], &[(ids[n_tokens - 1] + 1) % config.vocab_size as u32]].concat();
    let edit_ms = if n_tokens > 1 { Some(then(Input::ids(edited))?) } else { None };
    let append_ms = if n_tokens < config.n_positions { Some(then(Input::ids(ids))?) } else { None };
    let back = |metric: &str| {
        let metric = Metric::parse(metric, model, n_tokens)?;
        times(runs, || before.gradients(&metric).map(drop)).map(|(ms, _)| ms)
    };
    let back_ms = back("logprob:0")?;
    let loss_ms = if n_tokens > 1 { Some(back("loss")?) } else { None };
    let peak_rss_bytes = peak_rss();
    let peak_gflops = peak_gflops();
    let (floor_ms, _) = times(runs, floor(model, n_tokens)?)?;
    Ok(Row {
        tokens: n_tokens,
        threads: rayon::current_num_threads(),
        peak_gflops,
        median_ms,
        min_ms,
        logits_ms,
        all_ms,
        floor_ms,
        edit_ms,
        append_ms,
        back_ms,
        loss_ms,
        peak_rss_bytes,
    })
}

/// Only the matrix products of a forward pass, for attention only the lower half.
fn floor(model: &Model, n: usize) -> Result<impl Fn() -> Result<()>> {
    let (config, net) = (model.config(), &model.net);
    let rows = |width: usize| -> Result<Tensor> {
        let ones = Tensor::ones((n, width), DType::F32, &Device::Cpu)?;
        Ok(ones.to_device(net.device())?.to_dtype(net.dtype())?)
    };
    let (x, post) = (rows(config.n_embd)?, rows(config.d_mlp())?);
    let half = (n / 2).max(1);
    let q = x.reshape((n, config.n_head, config.d_head()))?.transpose(0, 1)?.contiguous()?; // (H, T, d_head)
    let k = q.narrow(1, 0, half)?.contiguous()?; // (H, T/2, d_head)
    let block = &net.blocks[0];
    let [c_attn, attn_proj, c_fc] = [&block.c_attn, &block.attn_proj, &block.c_fc].map(Conv1D::weight);
    let (c_attn, attn_proj, c_fc, mlp_proj) = (c_attn?, attn_proj?, c_fc?, block.mlp_proj.weight()?);
    let (n_layer, unembed) = (config.n_layer, net.unembed.all()?.t()?);
    Ok(move || {
        for _ in 0..n_layer {
            x.matmul(&c_attn)?;
            q.matmul(&k.t()?)?.matmul(&k)?;
            x.matmul(&attn_proj)?;
            x.matmul(&c_fc)?;
            post.matmul(&mlp_proj)?;
        }
        x.matmul(&unembed)?;
        Ok(())
    })
}

/// The peak speed of the vector units: 10⁹ additions and multiplications a
/// second, all threads together.
fn peak_gflops() -> f64 {
    let start = Instant::now();
    let made: usize = rayon::broadcast(|_| Arch::new().dispatch(MultiplyAdds)).into_iter().sum();
    2.0 * made as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Multiplies and adds for about 20 ms; returns how often.
struct MultiplyAdds;

impl WithSimd for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        const ROUNDS: usize = 8_000_000;
        // This many independent sums hide the latency of each step.
        let mut sums = [simd.splat_f32s(1.0); 12];
        let (factor, term) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.002)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        ROUNDS * sums.len() * S::F32_LANES
    }
}

/// Moves the cursor back and forth on every screen.
fn frames(model: &Arc<Model>, n_tokens: usize) -> Vec<Frames> {
    let input = Input::ids(ids(n_tokens, model.config().vocab_size));
    let mut explorer = Headless::new("bench", input, SIZE);
    explorer.loaded(model);
    let measure = |screen: Screen| {
        explorer.app.screen = screen;
        explorer.key(KeyCode::Down); // requests what the screen shows
        let keys = [KeyCode::Right, KeyCode::Right, KeyCode::Down, KeyCode::Left, KeyCode::Up];
        let (mut frame, mut looked) = (Vec::new(), Vec::new());
        for key in keys.into_iter().cycle().take(50) {
            let start = Instant::now();
            let requests = explorer.press(key);
            explorer.frame();
            frame.push(ms(start));
            explorer.answer(requests);
            explorer.frame();
            looked.push(ms(start));
        }
        let last = |mut ms: Vec<f64>| {
            ms.sort_by(f64::total_cmp);
            ms[ms.len() - 1]
        };
        Frames { tokens: n_tokens, screen: screen.name(), frame_ms: last(frame), looked_ms: last(looked) }
    };
    Screen::ALL.into_iter().map(measure).collect()
}

/// Milliseconds since `start`, to the microsecond.
fn ms(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn time(body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    ms(start)
}

/// The median and minimum of `n` times.
fn times(n: u32, mut body: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    let mut all = Vec::new();
    for _ in 0..n {
        let start = Instant::now();
        body()?;
        all.push(ms(start));
    }
    all.sort_by(f64::total_cmp);
    Ok((f64::midpoint(all[all.len() / 2], all[(all.len() - 1) / 2]), all[0]))
}

/// Token ids without a pattern, the same every time.
fn ids(n: usize, vocab_size: usize) -> Vec<u32> {
    let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = std::iter::successors(step(&42), step);
    states.map(|state| ((state >> 33) % vocab_size as u64) as u32).take(n).collect()
}

/// Resets the peak memory count, if Linux allows it.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident set so far, as reported by Linux.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_context_are_left_out_or_refused() {
        assert_eq!(lengths(None, 1024).unwrap(), LENGTHS);
        assert_eq!(lengths(None, 256).unwrap(), [16, 64, 256]);
        assert_eq!(lengths(None, 10).unwrap(), [10]);
        assert_eq!(lengths(Some(&[8, 3]), 10).unwrap(), [8, 3]);
        let said = lengths(Some(&[8, 11]), 10).unwrap_err().to_string();
        assert!(said.contains("11") && said.contains("10"), "{said}");
        assert!(lengths(Some(&[0]), 10).is_err());
    }

    #[test]
    fn what_became_slower_is_named() {
        let report = |ms: f64| {
            serde_json::json!({ "runs": [{ "tokens": 16, "threads": 2, "median_ms": 5.0, "edit_ms": null }],
            "sweeps": [{ "sweep": "heads", "tokens": 19, "places": 144, "ms": ms }], "effects": [] })
        };
        assert_eq!(
            against(&report(100.0), &report(105.0)),
            "none of 2 times is more than 1.1 times what it was"
        );
        let said = against(&report(100.0), &report(150.0));
        assert!(said.contains("1 of 2") && said.contains("heads") && said.contains("1.50 times"), "{said}");
        assert!(against(&report(100.0), &serde_json::json!({})).contains("nothing in common"));
    }

    #[test]
    fn ids_are_varied_and_fixed() {
        let some = ids(100, 97);
        assert_eq!(some, ids(100, 97));
        assert!(some.iter().all(|&id| id < 97));
        assert!(some.iter().collect::<std::collections::HashSet<_>>().len() > 30);
    }
}
