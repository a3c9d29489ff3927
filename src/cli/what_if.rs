//! The arguments that change a run, in the order given.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};

use crate::error::{Error, Result};
use crate::files;
use crate::interventions::{Change, Intervention, Interventions};

/// Parses the value of a flag into a change.
type Parse = fn(&str) -> Result<Change>;

/// Flags whose values are changes; clap's derive would lose the order across flags.
const FLAGS: [(&str, &str, Parse, &str); 7] = [
    (
        "ablate",
        "TARGET",
        Change::zero,
        "Set head:L.H, neuron:L.N, attn:L, mlp:L, layer:L, position:T or a tensor \
      (resid_pre.3) or a feature (feature:2.resid_pre/731) to 0; TARGET@T for one position only",
    ),
    (
        "knockout",
        "EDGE",
        knockout,
        "Stop a query of a head from reading a key: 'LAYER.HEAD:QUERY->KEY', in quotes; \
      the other keys share its attention",
    ),
    ("scale", "TARGET=X", Change::scale, "Multiply a target by X"),
    ("set", "TARGET=X", Change::set, "Set a target to X: clamp a feature, say"),
    (
        "add",
        "TARGET:A-B=X",
        Change::add,
        "Add X times the difference of two rows of the same tensor, A minus B; or X to a feature \
      (feature:2.resid_pre/731=X): X times its direction",
    ),
    (
        "splice",
        "TENSOR",
        Change::splice,
        "Replace a tensor by what its sparse dictionary makes of it: without the rest, that it misses",
    ),
    (
        "patch",
        "TARGET from IDS",
        Change::patch,
        "Replace a target by its value on another prompt, given as ids: 'resid_pre.3@7 from 464,2068,7586'; \
      position T comes from position T of IDS",
    ),
];

#[derive(Debug, Clone, Default)]
pub struct WhatIfArgs {
    file: Option<PathBuf>,
    changes: Vec<Change>,
    /// Whether `--mean` was given.
    mean: bool,
}

impl WhatIfArgs {
    /// Removes `--mean`; returns whether it was given.
    pub fn take_mean(&mut self) -> bool {
        std::mem::take(&mut self.mean)
    }

    /// The changes of the file, then those of the command line.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, [`Error::Usage`] for `--mean` without `--ablate`.
    pub fn read(self) -> Result<Interventions> {
        if self.mean && !self.changes.iter().any(|change| matches!(change, Change::Mean(_))) {
            return Err(Error::usage("--mean changes what --ablate does: use it with --ablate TARGET"));
        }
        let mut list = Interventions::default();
        if let Some(file) = self.file {
            let text = files::read_text(&file, files::INTERVENTIONS)?;
            list = Interventions::from_json(&text).map_err(|problem| Error::file(&file, problem))?;
        }
        list.0.extend(self.changes.into_iter().map(Intervention::from));
        Ok(list)
    }
}

fn knockout(text: &str) -> Result<Change> {
    Ok(Change::Knockout(text.parse()?))
}

impl FromArgMatches for WhatIfArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let of_flag = |(flag, ..): &(&'static str, _, _, _)| {
            let places = matches.indices_of(flag).into_iter().flatten();
            places.zip(matches.get_many::<Change>(flag).into_iter().flatten().cloned()).collect::<Vec<_>>()
        };
        let mut changes: Vec<_> = FLAGS.iter().flat_map(of_flag).collect();
        changes.sort_by_key(|(place, _)| *place);
        self.mean = matches.get_flag("mean");
        let meant = |change| match change {
            Change::Zero(place) if self.mean => Change::Mean(place),
            change => change,
        };
        self.changes = changes.into_iter().map(|(_, change)| meant(change)).collect();
        self.file = matches.get_one::<PathBuf>("interventions").cloned();
        Ok(())
    }
}

impl clap::Args for WhatIfArgs {
    fn augment_args(command: Command) -> Command {
        let heading = |arg: Arg| arg.help_heading("What if");
        let flags = FLAGS.map(|(flag, value, parse, help)| {
            let arg = Arg::new(flag).long(flag).value_name(value).help(help).action(ArgAction::Append);
            heading(arg.value_parser(parse).allow_hyphen_values(true))
        });
        let mean = Arg::new("mean").long("mean").action(ArgAction::SetTrue);
        let mean = mean.help("Ablate to the mean over the prompt's positions instead of 0");
        let file = Arg::new("interventions").long("interventions").value_name("FILE");
        let file = file
            .value_parser(value_parser!(PathBuf))
            .help("File of changes saved in the explorer; they apply first");
        command.args(flags).args([heading(mean), heading(file)])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn read(args: &[&str]) -> Result<WhatIfArgs, clap::Error> {
        let command = WhatIfArgs::augment_args(Command::new("test").no_binary_name(true));
        WhatIfArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn changes_keep_the_order_of_the_command_line() {
        let args =
            ["--scale", "mlp:1=2", "--ablate", "mlp:1", "--knockout", "1.2:3->0", "--scale", "mlp:1=-1"];
        let words = |args: &[&str]| read(args).unwrap().read().unwrap().to_string();
        assert_eq!(words(&args), "scale mlp:1=2, zero mlp:1, knockout 1.2:3->0, scale mlp:1=-1");
        assert_eq!(words(&["--ablate", "head:0.1", "--mean"]), "mean head:0.1");
    }

    #[test]
    fn a_file_comes_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, r#"[{"change": "mean attn:2", "name": "n"}]"#).unwrap();
        let list = read(&["--ablate", "mlp:1", "--interventions", path]).unwrap().read().unwrap();
        assert_eq!(list.to_string(), "n (mean attn:2), zero mlp:1");
        std::fs::write(path, "[1]").unwrap();
        let said = read(&["--interventions", path]).unwrap().read().unwrap_err().to_string();
        assert!(said.contains(path) && said.contains("line 1"), "{said}");
    }
}
