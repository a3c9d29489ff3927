//! Making runs: one request at a time, each abandoned between two layers when a newer one comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use super::{Seen, Sink, Slot, Steps, Wanted};
use crate::analysis::View;
use crate::analysis::answer::Answer;
use crate::analysis::compare::{Alignment, Comparison};
use crate::analysis::effects::{Effects, Question};
use crate::analysis::heads::{Atlas, Exclude, repeated_random};
use crate::analysis::logits::{Sampling, Surprise, surprises, surprises_after};
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::error::{Error, Result};
use crate::export::{self, Destination, Format, figure};
use crate::files;
use crate::hooks::{HookFilter, HookName, Hooks};
use crate::interventions::Interventions;
use crate::model::{LoadOptions, Model, Progress, Source};
use crate::picture::chart::Chart;
use crate::run::{Input, Run};
use crate::text;

/// What can be asked of the engine.
#[derive(Debug)]
pub enum Request {
    /// Make runs; cancels the job before it.
    Job(Job),
    /// Abandon every job older than this id.
    Cancel(u64),
    /// Compute what the screen shows; ends what was computed for it before.
    Look(Wanted),
    Export(Box<Export>),
    Errand(Errand),
}

/// Work for the run worker, numbered in the order of asking.
#[derive(Debug, Clone)]
pub enum Job {
    Run {
        id: u64,
        input: Input,
        /// The run of the same prompt without changes, if there are any and it is known.
        base: Option<Made>,
    },
    /// Draw `n` tokens one after the other, each shown as it comes.
    Generate { id: u64, from: Arc<Run>, n: usize, sampling: Sampling },
    /// Run a second prompt beside `a`; `tokens` are those that patching compares, where chosen.
    Second { id: u64, a: Arc<Run>, input: Input, tokens: [Option<u32>; 2] },
    /// Patch every place of a sweep.
    Sweep { id: u64, patching: Arc<Patching>, sweep: Sweep, last: bool },
    /// Measure every head on `n` random tokens, twice; where it `differs`, without the
    /// interventions as well.
    Repeat { id: u64, n: usize, seed: u64, interventions: Interventions, differs: bool },
    /// Ablate every head and every MLP of a run, and of the one that is taken off.
    Effects { id: u64, run: Arc<Run>, minus: Option<Arc<Run>>, question: Question },
}

impl Job {
    pub fn id(&self) -> u64 {
        match self {
            Self::Run { id, .. }
            | Self::Generate { id, .. }
            | Self::Repeat { id, .. }
            | Self::Second { id, .. }
            | Self::Sweep { id, .. }
            | Self::Effects { id, .. } => *id,
        }
    }
}

/// What the engine says.
#[derive(Debug)]
pub enum Event {
    /// The model is on its way.
    Loading(Progress),
    Loaded(Arc<Model>),
    /// The model cannot be had.
    LoadFailed(Error),
    /// The hash of the weights is known.
    Hashed,
    /// A run is about to enter block `layer` of `n_layer`.
    Layer {
        id: u64,
        layer: usize,
        n_layer: usize,
    },
    /// `done` runs of a job that makes `of`; `what` they are for.
    Step {
        id: u64,
        what: &'static str,
        done: usize,
        of: usize,
    },
    Ran {
        id: u64,
        run: Arc<Run>,
        summary: Arc<Summary>,
        /// Tokens of this job still to be drawn.
        left: usize,
    },
    /// What could be said of a run that is shown already.
    Summed {
        id: u64,
        summary: Arc<Summary>,
    },
    /// Every head was measured on random tokens, twice.
    Repeated {
        id: u64,
        atlas: Arc<Answer<Atlas>>,
        /// The random tokens with what the heads did on them.
        runs: Answer<Arc<Run>>,
    },
    Effects {
        id: u64,
        effects: Arc<Answer<Effects>>,
    },
    /// The run that was made last without its changes, and what they changed.
    Base {
        id: u64,
        base: Made,
        comparison: Arc<Comparison>,
    },
    /// A second prompt was run.
    Second {
        id: u64,
        second: Box<Second>,
    },
    Swept {
        id: u64,
        swept: Swept,
    },
    /// A list of changes was read, or why not.
    Listed(Result<Interventions, String>),
    /// A run could not be made; the last one stands.
    Refused {
        id: u64,
        why: String,
    },
    Cancelled {
        id: u64,
    },
    Looked {
        run_id: u64,
        seen: Vec<(Slot, Arc<Seen>)>,
    },
    /// How far the look `id` is that takes long; nothing when it is done.
    Looking {
        id: u64,
        steps: Option<Steps>,
    },
    /// An export ended: what was written, or why not.
    Exported(Result<String, String>),
    /// A worker thread panicked.
    Crashed,
}

/// What every screen wants to know of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The surprise of each token; none for the first, and shorter while it is being computed.
    pub surprises: Vec<Option<Surprise>>,
}

/// A run and what every screen wants to know of it.
#[derive(Debug, Clone)]
pub struct Made {
    pub run: Arc<Run>,
    pub summary: Arc<Summary>,
}

/// Two prompts beside each other.
#[derive(Debug, Clone)]
pub struct Second {
    pub a: Arc<Run>,
    pub b: Arc<Run>,
    pub alignment: Alignment,
    /// From A to B.
    pub comparison: Comparison,
    /// A is the clean prompt, B the corrupt one; or why nothing can be patched.
    pub patching: Result<Arc<Patching>, String>,
}

/// Loads the model and makes runs with it.
pub struct Worker {
    model: Option<Arc<Model>>,
    /// Id of the newest job that was asked for.
    newest: Arc<AtomicU64>,
    /// The run before, of which the next one takes what is the same.
    last: Option<(Arc<Run>, Arc<Summary>)>,
}

impl Worker {
    pub fn new(newest: Arc<AtomicU64>) -> Self {
        Self { model: None, newest, last: None }
    }

    /// The same worker with a model that is loaded already.
    #[must_use]
    pub fn holding(self, model: Arc<Model>) -> Self {
        Self { model: Some(model), ..self }
    }

    pub fn load(&mut self, source: &Source, options: &LoadOptions, sink: &Sink) -> Option<Arc<Model>> {
        let events = Arc::clone(sink);
        let on_progress = Arc::new(move |progress| events(Event::Loading(progress))) as _;
        match Model::load(source, options, &on_progress) {
            Ok(model) => {
                let model = Arc::new(model);
                self.model = Some(Arc::clone(&model));
                sink(Event::Loaded(Arc::clone(&model)));
                Some(model)
            }
            Err(error) => {
                sink(Event::LoadFailed(error));
                None
            }
        }
    }

    /// Does a job to its end, or until a newer one is asked for.
    pub fn execute(&mut self, job: Job, emit: &dyn Fn(Event)) {
        let id = job.id();
        let done = match job {
            Job::Run { input, base, .. } => {
                self.run(id, input, 0, emit).and_then(|run| self.compare(id, &run, base, emit))
            }
            Job::Repeat { n, seed, interventions, differs, .. } => {
                self.repeat(id, (n, seed), &interventions, differs, emit)
            }
            Job::Effects { run, minus, question, .. } => {
                self.effects(id, (&run, minus.as_deref()), question, emit)
            }
            Job::Second { a, input, tokens, .. } => self.second(id, a, input, tokens, emit),
            Job::Sweep { patching, sweep, last, .. } => self.sweep(id, &patching, sweep, last, emit),
            Job::Generate { from, n, sampling, .. } => self.generate(id, from, n, &sampling, emit),
        };
        match done {
            Ok(()) => {}
            Err(Error::Cancelled) => emit(Event::Cancelled { id }),
            Err(error) => emit(Event::Refused { id, why: error.to_string() }),
        }
    }

    fn run(&mut self, id: u64, input: Input, left: usize, emit: &dyn Fn(Event)) -> Result<Arc<Run>> {
        let model = self.model.as_ref().ok_or(Error::Cancelled)?;
        let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, emit };
        let keep = HookFilter::all(model.config());
        let run = Arc::new(match &self.last {
            Some((last, _)) => last.then(input, keep, watch)?,
            None => Run::new(model, input, keep, watch)?,
        });
        let known = self.last.as_ref().map_or_else(Vec::new, |(last, summary)| {
            let n = last.rows_shared_with(&run).min(summary.surprises.len());
            summary.surprises[..n].to_vec()
        });
        // What is shown first does not wait for the logits of every position.
        let first = Arc::new(Summary { surprises: known.clone() });
        self.last = Some((Arc::clone(&run), Arc::clone(&first)));
        emit(Event::Ran { id, run: Arc::clone(&run), summary: first, left });
        let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, emit };
        let surprises = surprises_after(&run, known, || watch.goes_on())?;
        let summary = Arc::new(Summary { surprises });
        self.last = Some((Arc::clone(&run), Arc::clone(&summary)));
        emit(Event::Summed { id, summary });
        Ok(run)
    }

    fn repeat(
        &self,
        id: u64,
        (n, seed): (usize, u64),
        interventions: &Interventions,
        differs: bool,
        emit: &dyn Fn(Event),
    ) -> Result<()> {
        let model = self.model.as_ref().ok_or(Error::Cancelled)?;
        let run = |interventions: Interventions| {
            let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, emit };
            let keep = HookFilter::new(&["pattern.*", "z.*"], model.config())?;
            let input = repeated_random(model, n, seed, false)?.with_interventions(interventions);
            Run::new(model, input, keep, watch).map(Arc::new)
        };
        let minus = if differs { Some(run(Interventions::default())?) } else { None };
        let runs = Answer { of: run(interventions.clone())?, minus };
        let atlas = Arc::new(Atlas::beside(&runs.of, runs.minus.as_deref(), Exclude::default())?);
        emit(Event::Repeated { id, atlas, runs });
        Ok(())
    }

    fn effects(
        &self,
        id: u64,
        (run, minus): (&Run, Option<&Run>),
        question: Question,
        emit: &dyn Fn(Event),
    ) -> Result<()> {
        let step = self.steps(id, "ablating", emit);
        let effects = Arc::new(Effects::beside(run, minus, question, step)?);
        emit(Event::Effects { id, effects });
        Ok(())
    }

    /// Says how far a job is, and ends it when a newer one was asked for.
    fn steps(
        &self,
        id: u64,
        what: &'static str,
        emit: &dyn Fn(Event),
    ) -> impl Fn(usize, usize) -> Result<()> {
        move |done, of| {
            self.go_on(id)?;
            emit(Event::Step { id, what, done, of });
            Ok(())
        }
    }

    /// An error when a newer job was asked for.
    fn go_on(&self, id: u64) -> Result<()> {
        if self.newest.load(Ordering::Acquire) > id { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn generate(
        &mut self,
        id: u64,
        from: Arc<Run>,
        n: usize,
        sampling: &Sampling,
        emit: &dyn Fn(Event),
    ) -> Result<()> {
        let mut run = from;
        for left in (0..n).rev() {
            let next = sampling.draw(&run)?;
            run = self.run(id, run.input.followed_by(next, &run), left, emit)?;
        }
        self.compare(id, &run, None, emit)
    }

    fn second(
        &self,
        id: u64,
        a: Arc<Run>,
        input: Input,
        [token, versus]: [Option<u32>; 2],
        emit: &dyn Fn(Event),
    ) -> Result<()> {
        let watch = Watch { id, newest: &self.newest, n_layer: a.config().n_layer, emit };
        let b = Arc::new(a.then(input, HookFilter::all(a.config()), watch)?);
        let alignment = Alignment::new(&a.tokens, &b.tokens);
        let comparison = Comparison::new(&a, &b, &alignment)?;
        let patching = Patching::new(Arc::clone(&a), Arc::clone(&b), token, versus);
        let patching = patching.map(Arc::new).map_err(|error| error.to_string());
        emit(Event::Second { id, second: Box::new(Second { a, b, alignment, comparison, patching }) });
        Ok(())
    }

    fn sweep(
        &self,
        id: u64,
        patching: &Patching,
        sweep: Sweep,
        last: bool,
        emit: &dyn Fn(Event),
    ) -> Result<()> {
        let step = self.steps(id, "patching", emit);
        emit(Event::Swept { id, swept: patching.sweep(sweep, last, step)? });
        Ok(())
    }

    /// Compares a run with what it is without its changes.
    fn compare(&self, id: u64, run: &Arc<Run>, base: Option<Made>, emit: &dyn Fn(Event)) -> Result<()> {
        if run.input.interventions.is_idle() {
            return Ok(());
        }
        let base = if let Some(base) = base {
            base
        } else {
            let watch = Watch { id, newest: &self.newest, n_layer: run.config().n_layer, emit };
            let plain = run.input.clone().with_interventions(Interventions::default());
            let run = Arc::new(run.then(plain, HookFilter::all(run.config()), watch)?);
            Made { summary: Arc::new(Summary { surprises: surprises(&run) }), run }
        };
        let alignment = Alignment::new(&base.run.tokens, &run.tokens);
        let comparison = Arc::new(Comparison::new(&base.run, run, &alignment)?);
        emit(Event::Base { id, base, comparison });
        Ok(())
    }
}

/// Reports each layer, and ends the run when it is no longer the newest.
struct Watch<'a> {
    id: u64,
    newest: &'a AtomicU64,
    n_layer: usize,
    emit: &'a dyn Fn(Event),
}

impl Watch<'_> {
    fn goes_on(&self) -> Result<()> {
        if self.newest.load(Ordering::Acquire) > self.id { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl Hooks for Watch<'_> {
    fn wants(&self, _: HookName) -> bool {
        false
    }

    fn hook(&mut self, _: HookName, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn first_change(&self) -> Option<HookName> {
        None
    }

    fn before_block(&mut self, layer: usize) -> Result<()> {
        self.goes_on()?;
        (self.emit)(Event::Layer { id: self.id, layer, n_layer: self.n_layer });
        Ok(())
    }
}

/// What to write where.
#[derive(Debug, Clone)]
pub struct Export {
    pub run: Arc<Run>,
    /// The run whose tensors are taken off.
    pub minus: Option<Arc<Run>>,
    /// The tensor to write; `None` for all that were kept.
    pub hook: Option<HookName>,
    /// The head to draw, for figures of tensors that have heads.
    pub head: Option<usize>,
    /// The chart to draw in its place.
    pub chart: Option<Chart>,
    /// Its ending decides the format.
    pub path: PathBuf,
    /// How figures are drawn.
    pub figure: figure::Options,
}

impl Export {
    pub fn write(&self) -> Event {
        let written = match self.path.extension().and_then(|ending| ending.to_str()) {
            Some(ending @ ("png" | "svg")) => self.write_figure(ending == "png"),
            _ => self.write_tensors(),
        };
        Event::Exported(written.map_err(|error| error.to_string()))
    }

    fn write_figure(&self, png: bool) -> Result<String> {
        let (what, drawn) = match (&self.chart, self.hook) {
            (Some(chart), _) => {
                let options = figure::Options { range: None, ..self.figure };
                (chart.title.clone(), figure::Figure::of_chart(&self.run, chart, options)?)
            }
            (None, Some(hook)) => {
                let source = View::hook(hook, 0).source;
                let minus = self.minus.as_deref();
                let drawn = figure::Figure::beside(&self.run, minus, source, self.head, self.figure)?;
                (hook.to_string(), drawn)
            }
            (None, None) => {
                return Err(Error::usage(
                    "a figure shows one tensor: choose it with Tab, or write .safetensors",
                ));
            }
        };
        let to = Destination::new(&self.path).prepare()?;
        let bytes = if png { drawn.to_png()? } else { drawn.to_svg().into_bytes() };
        let written = to.write(|out| out.write_all(&bytes))?;
        Ok(format!("wrote {} ({written} bytes): {what}", text::path(&self.path)))
    }

    fn write_tensors(&self) -> Result<String> {
        let format = Format::of_path(&self.path)?;
        if self.chart.is_some() {
            return Err(Error::usage("a chart is a picture: let the name end in .png or .svg"));
        }
        let to = Destination::new(&self.path).prepare()?;
        let run = self.hook.map_or_else(|| (*self.run).clone(), |hook| self.run.only(hook));
        let written = export::Export::new(&run, None, format)?.minus(self.minus.as_deref()).write(to)?;
        let tensors = if written.tensors == 1 { "tensor" } else { "tensors" };
        let (path, n, bytes) = (text::path(&self.path), written.tensors, written.bytes);
        Ok(format!("wrote {path} ({bytes} bytes): {n} {tensors} with their manifest"))
    }
}

/// A list of changes to write or to read.
#[derive(Debug, Clone)]
pub enum Errand {
    Save(PathBuf, Interventions),
    Load(PathBuf),
}

impl Errand {
    pub fn run(self) -> Event {
        match self {
            Self::Save(path, list) => {
                let written = Destination::new(&path)
                    .prepare()
                    .and_then(|to| to.write(|out| out.write_all(list.to_json().as_bytes())));
                let said = written.map(|_| format!("wrote {}: {} changes", text::path(&path), list.0.len()));
                Event::Exported(said.map_err(|error| error.to_string()))
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
