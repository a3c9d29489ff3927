//! The command line: the tree of subcommands, one file for each, each a thin call into the library.

mod args;
mod attribute;
mod bench;
mod check;
mod circuit;
mod completions;
mod config;
mod corpus;
mod edges;
mod effects;
mod explore;
mod export;
mod features;
mod find;
mod gradients;
mod heads;
mod hooks;
mod info;
mod inputs;
mod lens;
mod logging;
mod man;
mod neighbours;
mod neuron;
mod open;
mod output;
mod patch;
mod pool;
mod progress;
mod render;
mod report;
mod tokens;
mod top;
mod walk;
mod what_if;

pub use output::{report, say};

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::signals;

#[derive(Debug, Parser)]
#[command(
    name = "actscope",
    bin_name = "actscope", // whatever name it was run as
    version,
    long_version = long_version(),
    about = "Explore every activation of a GPT-2 in the terminal",
    long_about = "Explore every activation of a GPT-2 in the terminal.\n\n\
        Without a subcommand, the explorer opens with PROMPT or a sample prompt. The subcommands print \
        the same numbers for scripts: results go to standard output, messages to standard error.",
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    explore: explore::Args,
}

/// The version with the commit and what is built in.
fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let built = [
            ("hub", cfg!(feature = "hub")),
            ("cuda", cfg!(feature = "cuda")),
            ("metal", cfg!(feature = "metal")),
            ("accelerate", cfg!(feature = "accelerate")),
            ("mkl", cfg!(feature = "mkl")),
        ];
        let features: Vec<_> = built.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
        format!("{}\n{}\nfeatures: {features}", env!("CARGO_PKG_VERSION"), env!("ACTSCOPE_COMMIT"))
    })
}

const EXAMPLES: &str = "\
Examples:
  actscope                                          a sample prompt, the demo model
  actscope \"The cat sat on the\"                     your own prompt
  actscope --model openai-community/gpt2 -          GPT-2 from the hub, prompt from a pipe
  actscope found.toml                               what x saved as a view
  actscope -- tokens                                a prompt that is a subcommand's name

A first word that names a subcommand is taken as the subcommand, unless -- or an option precedes it.
Settings are in config.toml: see actscope config.
Set ACTSCOPE_LOG (to debug, say) to write a log file, and ACTSCOPE_LOG_FILE to choose its path.
Set RAYON_NUM_THREADS to choose the number of threads (up to 1024; default: one per core).";

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
enum Command {
    Tokens(tokens::Args),
    Info(info::Args),
    Hooks(hooks::Args),
    Top(top::Args),
    Heads(heads::Args),
    Lens(lens::Args),
    Features(features::Args),
    Effects(effects::Args),
    Patch(patch::Args),
    Attribute(attribute::Args),
    Gradients(gradients::Args),
    Inputs(inputs::Args),
    Edges(edges::Args),
    Find(find::Args),
    Neighbours(neighbours::Args),
    Circuit(circuit::Args),
    Neuron(neuron::Args),
    Walk(walk::Args),
    Export(export::Args),
    Check(check::Args),
    Open(open::Args),
    Render(render::Args),
    Report(report::Args),
    Corpus(corpus::Args),
    Bench(bench::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command line `args`, whose first item is the program's name.
///
/// # Errors
/// Any failure, as one sentence.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let parsed = Cli::command().try_get_matches_from(args).and_then(|matches| {
        // Of the explorer itself, or of `open`.
        let asked = matches.subcommand_matches("open").unwrap_or(&matches);
        let model = asked.value_source("model") == Some(ValueSource::CommandLine);
        Ok((Cli::from_arg_matches(&matches)?, explore::Given { model }))
    });
    let (cli, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => return Err(Error::usage(sentence(&error))),
        Err(help) => {
            // A closed pipe is not an error.
            let _ = help.print();
            return Ok(());
        }
    };
    logging::start()?;
    signals::start()?;
    if !matches!(cli.command, Some(Command::Completions(_) | Command::Config(_) | Command::Man(_))) {
        pool::start()?;
    }
    match cli.command {
        None => explore::run(cli.explore, given, None),
        Some(Command::Tokens(args)) => tokens::run(args),
        Some(Command::Info(args)) => info::run(args),
        Some(Command::Hooks(args)) => hooks::run(&args),
        Some(Command::Top(args)) => top::run(args),
        Some(Command::Heads(args)) => heads::run(args),
        Some(Command::Lens(args)) => lens::run(args),
        Some(Command::Features(args)) => features::run(args),
        Some(Command::Effects(args)) => effects::run(args),
        Some(Command::Patch(args)) => patch::run(args),
        Some(Command::Attribute(args)) => attribute::run(args),
        Some(Command::Gradients(args)) => gradients::run(args),
        Some(Command::Inputs(args)) => inputs::run(args),
        Some(Command::Edges(args)) => edges::run(&args),
        Some(Command::Find(args)) => find::run(args),
        Some(Command::Neighbours(args)) => neighbours::run(args),
        Some(Command::Circuit(args)) => circuit::run(&args),
        Some(Command::Neuron(args)) => neuron::run(&args),
        Some(Command::Walk(args)) => walk::run(args),
        Some(Command::Export(args)) => export::run(args),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Open(args)) => open::run(args, given),
        Some(Command::Render(args)) => render::run(&args),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Corpus(args)) => corpus::run(args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Config(args)) => config::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
    }
}

/// clap's message in one line, without its usage section.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text
        .split("\n\n")
        .take_while(|paragraph| !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more"))
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let said: Vec<_> = said.filter(|paragraph| !paragraph.is_empty()).collect();
    let said = said.join("; ").replace("; tip: ", "; ");
    format!("{}; try --help", said.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound_and_every_subcommand_shows_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("actscope {}", command.get_name())), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn what_clap_says_becomes_one_sentence() {
        let said = |args: &[&str]| {
            let args = args.iter().map(|&arg| OsString::from(arg));
            report(&run(std::iter::once("actscope".into()).chain(args)).unwrap_err())
        };
        assert_eq!(
            said(&["tokens", "a", "--prompt-fil", "b"]),
            "actscope: unexpected argument '--prompt-fil' found; a similar argument exists: '--prompt-file'; \
             try --help"
        );
        assert_eq!(
            said(&["top", "a", "--device", "gpu"]),
            "actscope: invalid value 'gpu' for '--device <DEVICE>': expected cpu, cuda, cuda:N or metal; \
             try --help"
        );
    }
}
