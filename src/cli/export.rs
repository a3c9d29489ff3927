//! `actscope export`: the tensors of a run as a file.

use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use super::args::{DifferenceArgs, InputArgs, ModelArgs};
use super::output::say;
use crate::error::{Error, Result};
use crate::export::{Destination, Export, Format, Words};
use crate::foreign::names::Dialect;
use crate::run::Run;
use crate::text;

/// Write the tensors of a run to a file
///
/// The file name determines the format: .safetensors, .npz and .json hold any number of tensors, .csv
/// and .npy one. All hold float32; all but .csv and .npy also hold the prompt, the token ids and
/// the model's source. If writing fails, an existing file is left unchanged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope export \"The cat sat\" -o cat.safetensors
  actscope export \"The cat sat\" -o cat.npz --hooks 'pattern.*' --hooks logits
  actscope export \"The cat sat\" -o changed.npz --ablate head:1.5 --difference
  actscope export \"The cat sat\" -o - --hooks resid_post.3 --positions 1.. | jq .manifest
  actscope export \"The cat sat\" -o reference.safetensors --names llmc
  actscope export \"The cat sat\" -o features.npz --hooks resid_pre.2.features --hooks '*.error'

A dictionary makes NAME.features, NAME.reconstruction and NAME.error; features are written as what is not 0 in them, \
NAME.indices and NAME.values, where that is smaller.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Output file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Hooks to write: names, short names or globs (see `actscope hooks`); default: all
    #[arg(long, value_name = "GLOB")]
    hooks: Vec<String>,
    /// Positions to write: A..B, A.. or ..B, where B is excluded
    #[arg(long, value_name = "A..B")]
    positions: Option<Positions>,
    /// The names and layout of another program: what it has no name for is left out
    #[arg(long, value_enum, value_name = "PROGRAM")]
    names: Option<Dialect>,
    /// Put a first axis of length 1, as a batch has it
    #[arg(long)]
    batch: bool,
    /// Format, if the file name does not determine it; default on standard output: json
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    #[command(flatten)]
    difference: DifferenceArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// The bytes of tensors that are made in the forward pass and held until they are written; of more, each is
/// derived when it is written. Half of the memory that is free, or 1 GiB where the system does not say.
fn room() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    free.map_or(1 << 30, |free| free / 2)
}

/// Bytes that Linux's `/proc/meminfo` calls available.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(|kilobytes: u64| kilobytes << 10)
}

pub fn run(args: Args) -> Result<()> {
    let format = args.format.map_or_else(|| Format::of_path(&args.output), Ok)?;
    let inputs = args.difference.of(args.input.required()?)?;
    let to = Destination::new(&args.output);
    if to == Destination::Stdout && !format.is_text() && std::io::stdout().is_terminal() {
        return Err(Error::usage(format!("{format} is binary: write it to a file or a pipe")));
    }
    let to = to.prepare()?;
    let model = args.model.load()?;
    let names = match args.hooks.as_slice() {
        [] => model.choose(&["*"])?,
        globs => model.choose(globs)?,
    };
    let keep = model.needed_for(&names);
    let runs = inputs.runs(|input| {
        let bytes = keep.bytes(model.config(), input.tokens(&model)?.len());
        if bytes <= room() {
            Run::made(&model, input, keep.clone())
        } else {
            Run::new(&model, input, keep.clone(), ())
        }
    })?;
    let words = Words { dialect: args.names, batch: args.batch };
    let positions = args.positions.map(|positions| positions.of(runs.of.n_tokens()));
    let export = Export::of(&runs.of, &names, words, positions, format)?.with_base(runs.named_base())?;
    if export.unnamed > 0 {
        let left = text::count(export.unnamed, "tensor");
        say(&format!("note: {left} left out, for which that program has no name"));
    }
    let written = export.write(to)?;
    if args.output.as_os_str() != "-" {
        let (tensors, bytes) = (text::count(written.tensors, "tensor"), text::bytes(written.bytes));
        say(&format!("{tensors}, {bytes}, in {}", text::path(&args.output)));
    }
    Ok(())
}

/// A range with open ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Positions {
    from: usize,
    to: Option<usize>,
}

impl Positions {
    pub fn of(&self, n_tokens: usize) -> Range<usize> {
        self.from..self.to.unwrap_or(n_tokens)
    }
}

impl FromStr for Positions {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (from, to) = s.split_once("..")?;
            let from = if from.is_empty() { 0 } else { from.parse().ok()? };
            let to = if to.is_empty() { None } else { Some(to.parse().ok()?) };
            Some(Self { from, to })
        };
        read().ok_or("expected A..B, A.. or ..B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_is_free_is_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        assert_eq!(available("MemAvailable: much"), None);
        assert!(room() > 0);
    }

    #[test]
    fn positions_may_leave_an_end_open() {
        let of = |s: &str| s.parse::<Positions>().map(|positions| positions.of(9));
        assert_eq!(of("2..5"), Ok(2..5));
        assert_eq!(of("2.."), Ok(2..9));
        assert_eq!(of("..5"), Ok(0..5));
        assert_eq!(of(".."), Ok(0..9));
        for bad in ["", "2", "a..b", "2..=5", "-1..2", "2...5"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
