//! The arguments that subcommands share: which model, and what to run.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::output::say;
use super::progress::Bars;
use super::what_if::WhatIfArgs;
use crate::analysis::base::WithBase;
use crate::error::{Error, Result};
use crate::files;
use crate::interventions::Interventions;
use crate::model::fitted::lens::Kind;
use crate::model::{DeviceSpec, DtypeSpec, FittedLens, LoadOptions, Model, Source};
use crate::picture::colormap::Depth;
use crate::run::{Input, Prompt, Run};
use crate::text;
use crate::tui::view::SavedView;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// `demo` (built in), a hub id such as openai-community/gpt2, a directory, or a file of weights
    #[arg(short, long, value_name = "NAME", default_value = "demo")]
    model: String,

    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "REV")]
    revision: Option<String>,

    /// Directory of a LoRA adapter (PEFT) to merge into the model
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    /// Sparse dictionary of an activation: a folder or file, or ID:FOLDER on the hub; HOOK=… says which
    /// activation, where the files do not
    #[arg(long = "dictionary", value_name = "PATH|ID")]
    dictionaries: Vec<String>,

    /// Use only files that have already been downloaded
    #[arg(long)]
    offline: bool,

    /// Device to compute on: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceSpec,

    /// Number format for the computation: f32, f64, f16 or bf16
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: DtypeSpec,
}

impl ModelArgs {
    pub fn source(&self) -> Source {
        Source::parse(&self.model)
    }

    /// The same for a model that was named in another way.
    pub fn or_named(self, name: Option<String>) -> Self {
        Self { model: name.unwrap_or(self.model), ..self }
    }

    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            revision: self.revision.clone(),
            adapter: self.adapter.clone(),
            dictionaries: self.dictionaries.clone(),
            offline: self.offline,
            device: self.device,
            dtype: self.dtype,
            ..LoadOptions::default()
        }
    }

    /// Loads the model; shows downloads, and what was unusual, on standard error.
    pub fn load(&self) -> Result<Arc<Model>> {
        self.load_with(|options| options)
    }

    /// The same with more options.
    pub fn load_with(&self, more: impl FnOnce(LoadOptions) -> LoadOptions) -> Result<Arc<Model>> {
        let model = self.open(&more(self.options()))?;
        for note in &model.provenance.notes {
            say(&format!("note: {note}"));
        }
        for dictionary in model.dictionaries().iter().filter(|_| !self.dictionaries.is_empty()) {
            for note in &dictionary.notes {
                say(&format!("note: {}: {note}", text::plain(&dictionary.name)));
            }
        }
        Ok(model)
    }

    /// Opens a lens that was fitted to the model; shows downloads on standard error.
    pub fn lens(&self, name: &str, model: &Model) -> Result<FittedLens> {
        let of_demo = match name {
            "tuned" => model.lenses().iter().find(|lens| lens.kind == Kind::Tuned),
            "jacobian" => model.lenses().iter().find(|lens| lens.kind == Kind::Jacobian),
            _ => None,
        };
        if let Some(lens) = of_demo {
            return Ok(lens.clone());
        }
        let bars = Arc::new(Bars::default());
        let lens = FittedLens::open(name, model.config(), self.offline, &bars.on_progress());
        bars.clear();
        lens
    }

    /// Loads the model; shows downloads on standard error.
    pub fn load_quietly(&self) -> Result<Arc<Model>> {
        self.open(&self.options())
    }

    fn open(&self, options: &LoadOptions) -> Result<Arc<Model>> {
        let source = self.source();
        tracing::info!(source = %text::plain(&source.to_string()), "loading");
        let bars = Arc::new(Bars::default());
        let model = Model::load(&source, options, &bars.on_progress());
        bars.clear();
        model.map(Arc::new)
    }
}

#[derive(Debug, Clone, clap::Args)]
pub struct InputArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    what_if: WhatIfArgs,
}

impl InputArgs {
    /// The input to run, with its changes.
    ///
    /// # Errors
    /// [`Error::Usage`] without a prompt, [`Error::File`] for a file that cannot be read.
    pub fn required(self) -> Result<Input> {
        Ok(self.prompt.required()?.with_interventions(self.what_if.read()?))
    }

    /// The input to run; `sample` if none is given.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read.
    pub fn or(self, sample: &str) -> Result<Input> {
        let input = self.prompt.optional()?.unwrap_or_else(|| Input::text(sample));
        Ok(input.with_interventions(self.what_if.read()?))
    }

    /// Whether a prompt was given.
    pub fn has_prompt(&self) -> bool {
        let of = &self.prompt;
        of.prompt.is_some() || of.prompt_file.is_some() || of.token_ids.is_some()
    }

    /// Whether `--bos` was given.
    pub fn bos(&self) -> bool {
        self.prompt.bos
    }

    /// Removes `--mean`, for commands where it also means something without `--ablate`; returns
    /// whether it was given.
    pub fn take_mean(&mut self) -> bool {
        self.what_if.take_mean()
    }

    /// The changes to the run.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read.
    pub fn interventions(self) -> Result<Interventions> {
        self.what_if.read()
    }

    /// Whether a prompt or `--bos` was given.
    pub fn is_given(&self) -> bool {
        self.prompt.is_given()
    }

    /// The view that the prompt names, if it is a file that ends in .toml.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is no view.
    pub fn view(&self) -> Result<Option<SavedView>> {
        let Some(path) = self.prompt.prompt.as_deref().map(Path::new) else { return Ok(None) };
        if path.extension().is_none_or(|end| end != "toml") || !path.is_file() {
            return Ok(None);
        }
        let text = files::read_text(path, files::SETTINGS)?;
        SavedView::read(&text).map(Some).map_err(|problem| Error::file(path, problem))
    }

    /// Whether the prompt comes from standard input.
    pub fn reads_stdin(&self) -> bool {
        self.prompt.reads_stdin()
    }
}

/// `--difference`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct DifferenceArgs {
    /// Write changed − base: with the changes minus without
    #[arg(long, help_heading = "What if")]
    difference: bool,
}

impl DifferenceArgs {
    pub fn is_given(self) -> bool {
        self.difference
    }

    /// What to run, and its base.
    ///
    /// # Errors
    /// [`Error::Usage`] without changes.
    pub fn of(self, input: Input) -> Result<WithBase<Input>> {
        if self.difference && input.interventions.is_idle() {
            return Err(Error::usage(
                "--difference needs a change to show the effect of, such as --ablate head:1.5",
            ));
        }
        let base = self.difference.then(|| input.clone().with_interventions(Interventions::default()));
        Ok(WithBase { of: input, base })
    }
}

impl WithBase<Input> {
    /// The runs of both.
    ///
    /// # Errors
    /// The errors of `run`.
    pub fn runs(self, run: impl Fn(Input) -> Result<Run>) -> Result<WithBase<Run>> {
        Ok(WithBase { of: run(self.of)?, base: self.base.map(run).transpose()? })
    }
}

/// A prompt for commands that do not run the model.
#[derive(Debug, Clone, clap::Args)]
pub struct PromptArgs {
    /// Text to run, or - to read it from standard input
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,

    /// Read the prompt from a file; one newline at the end is dropped, as with standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,

    /// Token ids instead of text, such as 464,2068,7; needs no tokenizer
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "prompt_file"], allow_hyphen_values = true)]
    token_ids: Option<TokenIds>,

    /// Put the model's BOS token first
    #[arg(long)]
    bos: bool,
}

impl PromptArgs {
    /// The input to run.
    ///
    /// # Errors
    /// [`Error::Usage`] without a prompt, [`Error::File`] for a file that cannot be read.
    pub fn required(self) -> Result<Input> {
        self.optional()?.ok_or_else(|| {
            Error::usage(
                "no prompt given: pass one, or - for standard input, --prompt-file FILE or --token-ids 1,2,3",
            )
        })
    }

    /// The input to run, if one is given.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read.
    pub fn optional(self) -> Result<Option<Input>> {
        let prompt = match (self.token_ids, self.prompt_file, self.prompt) {
            (Some(TokenIds(ids)), _, _) => Prompt::Ids(ids),
            (None, Some(file), _) => Prompt::Text(read_prompt(&file)?),
            (None, None, Some(text)) if text == "-" => Prompt::Text(read_prompt(Path::new("-"))?),
            (None, None, Some(text)) => Prompt::Text(text),
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Input::new(prompt).with_bos(self.bos)))
    }

    /// Whether a prompt or `--bos` was given.
    fn is_given(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some() || self.token_ids.is_some() || self.bos
    }

    fn reads_stdin(&self) -> bool {
        self.prompt.as_deref() == Some("-") || self.prompt_file.as_deref() == Some(Path::new("-"))
    }
}

/// The text of a file (`-` is standard input) without the final newline that editors and `echo`
/// add.
fn read_prompt(path: &Path) -> Result<String> {
    let mut text = if path == Path::new("-") {
        files::read_stdin(files::PROMPT)?
    } else {
        files::read_text(path, files::PROMPT)?
    };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// From the environment (COLORTERM, TERM, NO_COLOR)
    Auto,
    Truecolor,
    #[value(name = "256")]
    Indexed,
    #[value(name = "16")]
    Sixteen,
    /// Glyphs and numbers only
    Never,
}

impl Color {
    /// The depth requested; `None` for `auto`.
    pub fn depth(self) -> Option<Depth> {
        match self {
            Self::Auto => None,
            Self::Truecolor => Some(Depth::True),
            Self::Indexed => Some(Depth::Indexed),
            Self::Sixteen => Some(Depth::Sixteen),
            Self::Never => Some(Depth::Mono),
        }
    }

    /// For text on standard output.
    pub fn of_stdout(self) -> Depth {
        self.depth().unwrap_or_else(Depth::of_stdout)
    }
}

/// A head or neuron, as `LAYER.INDEX`.
#[derive(Debug, Clone, Copy)]
pub struct Place(pub usize, pub usize);

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (layer, index) = s.split_once('.')?;
            Some(Self(layer.parse().ok()?, index.parse().ok()?))
        };
        read().ok_or("expected LAYER.INDEX, such as 1.5")
    }
}

#[derive(Debug, Clone)]
pub struct TokenIds(pub Vec<u32>);

impl FromStr for TokenIds {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let words = s.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let id = |word: &str| word.parse().map_err(|_| format!("`{word}` is not a token id"));
        words.map(id).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_are_numbers_with_commas_or_spaces() {
        assert_eq!("1, 2,3\n4,".parse::<TokenIds>().unwrap().0, [1, 2, 3, 4]);
        assert!("".parse::<TokenIds>().unwrap().0.is_empty());
        for bad in ["a", "1;2", "-1", "1.5", "4294967296"] {
            assert!(bad.parse::<TokenIds>().unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn one_final_newline_is_dropped_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, text) in
            [("a", "a"), (" a\n", " a"), ("a\n\n", "a\n"), ("a\r\n", "a"), ("\n", ""), ("a\r", "a\r")]
        {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(read_prompt(file.path()).unwrap(), text);
        }
        std::fs::write(file.path(), b"one\ntwo \xff").unwrap();
        let said = read_prompt(file.path()).unwrap_err().to_string();
        assert!(said.ends_with("is not UTF-8 text: see byte 8, on line 2"), "{said}");
    }
}
