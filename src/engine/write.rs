//! Writing and reading files for the explorer, each in its own thread.

use std::path::PathBuf;
use std::sync::Arc;

use super::Event;
use super::gradients::RunGradients;
use crate::analysis::compare::Alignment;
use crate::analysis::{Shown, View};
use crate::corpus::Atlas;
use crate::error::{Error, Result};
use crate::export::{self, Destination, Format, figure};
use crate::files;
use crate::hooks::TensorName;
use crate::interventions::Interventions;
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::text;

/// What to write where.
#[derive(Debug, Clone)]
pub struct Writing {
    pub run: Arc<Run>,
    /// The run whose tensors are subtracted.
    pub base: Option<Arc<Run>>,
    /// The name of that difference.
    pub difference: &'static str,
    /// The tensor to write; `None` for all captured ones.
    pub name: Option<TensorName>,
    /// The head to draw, for figures of tensors with heads.
    pub head: Option<usize>,
    /// The chart to draw instead.
    pub chart: Option<Chart>,
    /// The extension sets the format.
    pub path: PathBuf,
    /// What was on screen, as the text of a view.
    pub view: String,
    /// What was shown of tensors, and what gradients are of.
    pub shown: Shown,
    pub metric: Option<String>,
    /// Options of figures.
    pub figure: figure::Options,
}

impl Writing {
    pub fn write(&self) -> Event {
        let written =
            self.check().and_then(|()| match self.path.extension().and_then(|ending| ending.to_str()) {
                Some(ending @ ("png" | "svg")) => self.write_figure(ending == "png"),
                Some("html" | "htm") => self.write_report(),
                Some("toml") => self.write_view(),
                _ => self.write_tensors(),
            });
        Event::Exported(written.map_err(|error| error.to_string()))
    }

    /// Differences are written row by row, between tokens as aligned on the screen.
    fn check(&self) -> Result<()> {
        let alignment = self.base.as_ref().map(|base| Alignment::new(&self.run.tokens, &base.tokens));
        let alike = |(i, pair): (usize, &(Option<usize>, Option<usize>))| *pair == (Some(i), Some(i));
        if self.chart.is_some() || alignment.is_none_or(|a| a.pairs.iter().enumerate().all(alike)) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "cannot write {}: the tokens of the prompts are not at the same positions; write one of the runs instead",
            self.difference
        )))
    }

    /// The base, and what the difference is called.
    fn base(&self) -> Option<(&Run, &str)> {
        self.base.as_deref().map(|base| (base, self.difference))
    }

    fn write_figure(&self, png: bool) -> Result<String> {
        if self.chart.is_none() && self.shown != Shown::Value {
            return Err(Error::usage(
                "a picture shows values: gradients are written as .safetensors, .npz, .npy, .json or .csv",
            ));
        }
        let (what, drawn) = match (&self.chart, self.name) {
            (Some(chart), _) => {
                let options = figure::Options { range: None, ..self.figure };
                (chart.title.clone(), figure::Figure::of_chart(&self.run, chart, options)?)
            }
            (None, Some(name)) => {
                let source = View::hook(name, 0).source;
                let drawn =
                    figure::Figure::with_base(&self.run, self.base(), source, self.head, self.figure)?;
                let head = self.head.map_or_else(String::new, |head| format!(", head {head}"));
                (format!("{name}{head}"), drawn)
            }
            (None, None) => {
                return Err(Error::usage(
                    "a figure shows one tensor: choose it with Tab, or use .safetensors",
                ));
            }
        };
        let to = Destination::new(&self.path).prepare()?;
        let bytes = if png { drawn.to_png()? } else { drawn.to_svg().into_bytes() };
        let written = to.write(|out| out.write_all(&bytes))?;
        Ok(format!("wrote {} ({}): {what}", text::path(&self.path), text::bytes(written)))
    }

    fn write_view(&self) -> Result<String> {
        let to = Destination::new(&self.path).prepare()?;
        to.write(|out| out.write_all(self.view.as_bytes()))?;
        Ok(format!("wrote {0}: actscope {0} shows the same", text::path(&self.path)))
    }

    fn write_report(&self) -> Result<String> {
        if self.name.is_some() || self.base.is_some() {
            return Err(Error::usage(
                "a page shows the whole run: choose every tensor with Tab, without a difference",
            ));
        }
        let to = Destination::new(&self.path).prepare()?;
        let page = export::report::page(&self.run)?;
        let written = to.write(|out| out.write_all(page.as_bytes()))?;
        Ok(format!("wrote {} ({}): the run as a page", text::path(&self.path), text::bytes(written)))
    }

    fn write_tensors(&self) -> Result<String> {
        let format = Format::of_path(&self.path)?;
        if self.chart.is_some() {
            return Err(Error::usage("a chart is a picture: use a name that ends in .png or .svg"));
        }
        let to = Destination::new(&self.path).prepare()?;
        let names = match self.name {
            Some(name) => vec![name],
            None => self.run.cache.names().into_iter().map(TensorName::from).collect(),
        };
        let export = match (self.shown, self.base()) {
            (Shown::Value, base) => {
                export::Export::of(&self.run, &names, export::Words::default(), None, format)?
                    .with_base(base)?
            }
            (Shown::Gradient, None) => {
                let gradients =
                    self.run.gradients(&RunGradients::of(self.metric.clone()).metric(&self.run)?)?;
                export::Export::of_gradients(&gradients, &names, None, format)?
            }
            (Shown::Gradient, Some(_)) => {
                return Err(Error::usage("differences of gradients are not written: D shows one run alone"));
            }
            (Shown::Times, _) => {
                return Err(Error::usage("gradient × value is not written: R shows gradients, or values"));
            }
        };
        let written = export.write(to)?;
        let (path, bytes) = (text::path(&self.path), text::bytes(written.bytes));
        let tensors = text::count(written.tensors, "tensor");
        let their = if written.tensors == 1 { "its" } else { "their" };
        Ok(format!("wrote {path} ({bytes}): {tensors} with {their} manifest"))
    }
}

/// A list of changes to write or read.
#[derive(Debug, Clone)]
pub enum Errand {
    Save(PathBuf, Interventions),
    Load(PathBuf),
    /// The examples of a tensor's units.
    Examples(Arc<Atlas>, TensorName),
}

impl Errand {
    pub fn run(self) -> Event {
        match self {
            Self::Save(path, list) => {
                let written = Destination::new(&path)
                    .prepare()
                    .and_then(|to| to.write(|out| out.write_all(list.to_json().as_bytes())));
                let said = written
                    .map(|_| format!("wrote {}: {}", text::path(&path), text::count(list.0.len(), "change")));
                Event::Exported(said.map_err(|error| error.to_string()))
            }
            Self::Examples(atlas, tensor) => {
                let found = atlas.group(tensor).map(Arc::new).map_err(|error| error.to_string());
                Event::Examples { tensor, found }
            }
            Self::Load(path) => {
                let list = files::read_text(&path, files::INTERVENTIONS).and_then(|text| {
                    Interventions::from_json(&text).map_err(|problem| Error::file(&path, problem))
                });
                Event::Listed(list.map_err(|error| error.to_string()))
            }
        }
    }
}
