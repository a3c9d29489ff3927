//! `actscope bench`: how long a run takes that captures every hook.

use std::sync::Arc;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::args::ModelArgs;
use super::output::{Column, Table, print_json};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::run::{Input, Run};

const LENGTHS: [usize; 4] = [16, 64, 256, 1024];

/// Measure runs that capture every hook
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope bench
  actscope bench --model openai-community/gpt2 --tokens 16,1024 --runs 3 --json")]
pub struct Args {
    /// Lengths of the prompts; without it, those of 16,64,256,1024 that the model's context holds
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    tokens: Option<Vec<usize>>,
    /// Measured runs of each length; one more goes before them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Write a JSON array of {tokens, median_ms, min_ms, peak_rss_bytes}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Row {
    tokens: usize,
    median_ms: f64,
    min_ms: f64,
    /// Most memory that the process had while it ran this length; null where the system does not say.
    peak_rss_bytes: Option<u64>,
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let lengths = lengths(args.tokens.as_deref(), model.config().n_positions)?;
    let rows = lengths.into_iter().map(|n| measure(&model, n, args.runs)).collect::<Result<Vec<_>>>()?;

    if args.json {
        return print_json(&rows);
    }
    let mut table = Table::new([
        Column::Right("tokens"),
        Column::Right("median ms"),
        Column::Right("min ms"),
        Column::Right("peak memory"),
    ]);
    for row in rows {
        let memory =
            row.peak_rss_bytes.map_or_else(|| "?".to_owned(), |bytes| BinaryBytes(bytes).to_string());
        table.row([
            row.tokens.to_string(),
            format!("{:.1}", row.median_ms),
            format!("{:.1}", row.min_ms),
            memory,
        ]);
    }
    table.print()
}

/// The lengths asked for, each within the context; else those of [`LENGTHS`] that are.
fn lengths(asked: Option<&[usize]>, longest: usize) -> Result<Vec<usize>> {
    if let Some(asked) = asked {
        return match asked.iter().find(|n| !(1..=longest).contains(*n)) {
            Some(n) => {
                Err(Error::usage(format!("--tokens has {n}, but this model's context holds 1..={longest}")))
            }
            None => Ok(asked.to_vec()),
        };
    }
    let (mut fitting, too_long): (Vec<_>, Vec<_>) = LENGTHS.into_iter().partition(|&n| n <= longest);
    if !too_long.is_empty() {
        let too_long: Vec<_> = too_long.iter().map(ToString::to_string).collect();
        eprintln!("actscope: leaving out {} tokens: the context holds {longest}", too_long.join(", "));
    }
    if fitting.is_empty() {
        fitting.push(longest);
    }
    Ok(fitting)
}

fn measure(model: &Arc<Model>, n_tokens: usize, runs: u32) -> Result<Row> {
    reset_peak();
    let ids = ids(n_tokens, model.config().vocab_size);
    let run = || Ok(Run::all(model, Input::ids(ids.clone()))?.took.as_secs_f64() * 1e3);
    run()?; // the first touches memory that the others find ready
    let mut ms = (0..runs).map(|_| run()).collect::<Result<Vec<_>>>()?;
    ms.sort_by(f64::total_cmp);
    let middle = ms.len() / 2;
    let median = if ms.len() % 2 == 1 { ms[middle] } else { f64::midpoint(ms[middle - 1], ms[middle]) };
    let microseconds = |ms: f64| (ms * 1e3).round() / 1e3;
    Ok(Row {
        tokens: n_tokens,
        median_ms: microseconds(median),
        min_ms: microseconds(ms[0]),
        peak_rss_bytes: peak_rss(),
    })
}

/// Token ids without pattern, the same every time.
fn ids(n: usize, vocab_size: usize) -> Vec<u32> {
    let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = std::iter::successors(step(&42), step);
    states.map(|state| ((state >> 33) % vocab_size as u64) as u32).take(n).collect()
}

/// Lets the peak be counted anew, where Linux allows it.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident set so far, as Linux tells it.
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
    fn ids_are_varied_and_fixed() {
        let some = ids(100, 97);
        assert_eq!(some, ids(100, 97));
        assert!(some.iter().all(|&id| id < 97));
        assert!(some.iter().collect::<std::collections::HashSet<_>>().len() > 30);
    }
}
