//! Making runs: one request at a time, each abandoned between two layers when a newer one arrives.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use super::{Errand, Seen, Sink, Slot, Steps, Wanted, Writing};
use crate::analysis::base::WithBase;
use crate::analysis::compare::{Alignment, Comparison};
use crate::analysis::continuations::Continuation;
use crate::analysis::effects::{Effects, Question};
use crate::analysis::heads::{Atlas, Exclude, repeated_random};
use crate::analysis::logits::{Sampling, Surprise, surprises, surprises_after};
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::corpus::atlas::OfGroup;
use crate::error::{Error, Result};
use crate::foreign::{Check, Foreign, Mapping, check};
use crate::hooks::{HookFilter, HookName, Hooks, Site, TensorName};
use crate::interventions::Interventions;
use crate::model::{LoadOptions, Model, Progress, Source};
use crate::run::{Input, Run};

/// A request to the engine.
#[derive(Debug)]
pub enum Request {
    /// Makes runs; cancels the job before it.
    Job(Job),
    /// Abandons every job older than this id.
    Cancel(u64),
    /// Computes what the screen shows; ends the previous such request.
    Look(Wanted),
    Export(Box<Writing>),
    Errand(Errand),
}

/// Work for the run worker, numbered in order of request.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: u64,
    pub work: Work,
}

/// Runs to make.
#[derive(Debug, Clone)]
pub enum Work {
    Run {
        input: Input,
        /// The run of the same prompt without changes, if there are changes and it is known.
        base: Option<Made>,
    },
    /// Samples `n` tokens one after the other, each shown as it arrives.
    Generate { from: Arc<Run>, n: usize, sampling: Sampling },
    /// Samples that many continuations of that many tokens, side by side.
    Continue { from: Arc<Run>, size: (usize, usize), sampling: Sampling },
    /// Runs a second prompt to compare with `a`; `tokens` are those that patching compares, if chosen.
    Second { a: Arc<Run>, input: Input, tokens: [Option<u32>; 2] },
    /// Compares `a` with what another program computed for the same tokens.
    Beside { a: Arc<Run>, beside: Arc<Beside> },
    /// Patches every place of a sweep.
    Sweep { patching: Arc<Patching>, sweep: Sweep },
    /// Measures every head on `n` random tokens, repeated once; if `differs`, also without the
    /// interventions.
    Repeat { n: usize, seed: u64, interventions: Interventions, differs: bool },
    /// Ablate every head and every MLP of a run, and of its base.
    Effects { run: Arc<Run>, base: Option<Arc<Run>>, question: Question },
}

impl Work {
    /// Its description and number of runs, if it reports progress run by run.
    pub fn steps(&self) -> Option<Steps> {
        let (what, of) = match self {
            Self::Run { .. }
            | Self::Generate { .. }
            | Self::Second { .. }
            | Self::Beside { .. }
            | Self::Repeat { .. } => {
                return None;
            }
            Self::Continue { size: (_, n_tokens), .. } => ("sampling", *n_tokens),
            Self::Sweep { patching, sweep } => ("patching", patching.n_places(*sweep)),
            Self::Effects { run, base, .. } => {
                let config = run.config();
                ("ablating", (1 + usize::from(base.is_some())) * config.n_layer * (config.n_head + 1))
            }
        };
        Some(Steps { what, done: 0, of })
    }

    /// The number of tokens that it samples.
    pub fn tokens(&self) -> usize {
        if let Self::Generate { n, .. } = self { *n } else { 0 }
    }
}

/// A report from the engine.
#[derive(Debug)]
pub enum Event {
    /// The model is loading.
    Loading(Progress),
    Loaded(Arc<Model>),
    /// The model cannot be loaded.
    LoadFailed(Error),
    /// The hash of the weights is known.
    Hashed,
    /// A report on job `id`.
    Job {
        id: u64,
        said: Said,
    },
    /// The examples of a tensor's units were read, or why not.
    Examples {
        tensor: TensorName,
        found: Result<Arc<OfGroup>, String>,
    },
    /// A list of changes was read, or the error.
    Listed(Result<Interventions, String>),
    Looked {
        shown_id: u64,
        seen: Vec<(Slot, Arc<Seen>)>,
    },
    /// Progress of the slow look `id`; `None` when it is done.
    Looking {
        id: u64,
        steps: Option<Steps>,
    },
    /// An export ended: what was written, or the error.
    Exported(Result<String, String>),
    /// A worker thread panicked.
    Crashed,
}

/// A report on a job.
#[derive(Debug)]
pub enum Said {
    /// A run is about to enter block `layer` of `n_layer`.
    Layer {
        layer: usize,
        n_layer: usize,
    },
    /// The number of its runs that are done.
    Step(Steps),
    Ran {
        run: Arc<Run>,
        summary: Arc<Summary>,
        /// The number of tokens still to be sampled.
        left: usize,
    },
    /// Continuations of this run, the likeliest first.
    Continued(Arc<Run>, Vec<Continuation>),
    /// More about a run that is already shown.
    Summed(Arc<Summary>),
    /// Every head was measured on repeated random tokens.
    Repeated {
        atlas: Arc<WithBase<Atlas>>,
        /// The run of the random tokens, with the scores of the heads.
        runs: WithBase<Arc<Run>>,
    },
    Effects(Arc<WithBase<Effects>>),
    /// The last run without its changes, and their effect.
    Base {
        base: Made,
        comparison: Arc<Comparison>,
    },
    /// A second prompt was run.
    Second(Box<Second>),
    /// A sweep as far as it is.
    Sweeping(Swept),
    Swept(Swept),
    /// A run failed; the last one remains.
    Refused(String),
    Cancelled,
}

/// What every screen needs to know about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The surprise of each token; `None` for the first, and shorter while being computed.
    pub surprises: Vec<Option<Surprise>>,
}

/// A run with what every screen needs to know about it.
#[derive(Debug, Clone)]
pub struct Made {
    pub run: Arc<Run>,
    pub summary: Arc<Summary>,
}

/// Two prompts side by side.
#[derive(Debug, Clone)]
pub struct Second {
    pub a: Arc<Run>,
    pub b: Arc<Run>,
    pub alignment: Alignment,
    /// From A to B.
    pub comparison: Comparison,
    /// A is the clean prompt, B the corrupt one; or why they cannot be patched.
    pub patching: Result<Arc<Patching>, String>,
    /// B is of this file, and not of a prompt.
    pub file: Option<Arc<FromFile>>,
}

/// A file of what another program computed, and how to read it.
#[derive(Debug, Clone)]
pub struct Beside {
    pub path: PathBuf,
    /// The name of the only tensor of a file without names.
    pub hook: Option<String>,
    pub mapping: Mapping,
    pub options: check::Options,
}

/// What a file holds of a run.
#[derive(Debug, Clone)]
pub struct FromFile {
    pub name: String,
    /// The tensors that can be shown, in data-flow order.
    pub hooks: Vec<HookName>,
    pub check: Check,
}

/// Loads the model and makes runs with it.
pub struct Worker {
    model: Option<Arc<Model>>,
    /// The id of the newest requested job.
    newest: Arc<AtomicU64>,
    /// The previous run, which the next one reuses where possible.
    last: Option<(Arc<Run>, Arc<Summary>)>,
    /// The only run that there is, without its model.
    saved: Option<Arc<Run>>,
}

impl Worker {
    pub fn new(newest: Arc<AtomicU64>) -> Self {
        Self { model: None, newest, last: None, saved: None }
    }

    /// The same worker with a model that is already loaded.
    #[must_use]
    pub fn holding(self, model: Arc<Model>) -> Self {
        Self { model: Some(model), ..self }
    }

    /// Takes a run that was saved, in place of its model.
    pub fn open(&mut self, run: Run, sink: &Sink) -> Arc<Model> {
        let run = Arc::new(run);
        let model = Arc::clone(&run.model);
        (self.model, self.saved) = (Some(Arc::clone(&model)), Some(run));
        sink(Event::Loaded(Arc::clone(&model)));
        model
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

    /// Runs a job to its end, or until a newer one is requested.
    pub fn execute(&mut self, job: Job, emit: &dyn Fn(Event)) {
        let Job { id, work } = job;
        let say = |said| emit(Event::Job { id, said });
        let steps = work.steps();
        let done = match work {
            work if self.saved.is_some() => self.show_saved(&work, &say),
            Work::Run { input, base } => {
                self.run(id, input, 0, &say).and_then(|run| self.compare(id, &run, base, &say))
            }
            Work::Repeat { n, seed, interventions, differs } => {
                self.repeat(id, (n, seed), &interventions, differs, &say)
            }
            Work::Effects { run, base, question } => {
                Effects::with_base(&run, base.as_deref(), question, self.step(id, steps, &say))
                    .map(|effects| say(Said::Effects(Arc::new(effects))))
            }
            Work::Second { a, input, tokens } => self.second(id, a, input, tokens, &say),
            Work::Beside { a, beside } => {
                second_of_file(a, &beside).map(|second| say(Said::Second(Box::new(second))))
            }
            Work::Sweep { patching, sweep } => patching
                .sweep(sweep, patching.only_last(), self.step(id, steps, &say), |swept| {
                    say(Said::Sweeping(swept.clone()));
                })
                .map(|swept| say(Said::Swept(swept))),
            Work::Generate { from, n, sampling } => self.generate(id, from, n, &sampling, &say),
            Work::Continue { from, size, sampling } => {
                Continuation::several(&from, size, &sampling, self.step(id, steps, &say))
                    .map(|found| say(Said::Continued(from, found)))
            }
        };
        match done {
            Ok(()) => {}
            Err(Error::Cancelled) => say(Said::Cancelled),
            Err(error) => say(Said::Refused(error.to_string())),
        }
    }

    /// Of a saved run there is only this run.
    fn show_saved(&self, work: &Work, say: &dyn Fn(Said)) -> Result<()> {
        let Some(run) = &self.saved else { return Ok(()) };
        match work {
            Work::Run { input, .. } if *input == run.input => {
                let has_logits = run.cache.has(Site::Logits.once());
                let surprises = if has_logits { surprises(run) } else { vec![None; run.n_tokens()] };
                let summary = Arc::new(Summary { surprises });
                say(Said::Ran { run: Arc::clone(run), summary: Arc::clone(&summary), left: 0 });
                say(Said::Summed(summary));
                Ok(())
            }
            _ => Err(super::saved::needs_model(&run.model)),
        }
    }

    fn run(&mut self, id: u64, input: Input, left: usize, say: &dyn Fn(Said)) -> Result<Arc<Run>> {
        let model = self.model.as_ref().ok_or(Error::Cancelled)?;
        let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, say };
        let keep = HookFilter::all(model.config());
        let run = Arc::new(match &self.last {
            Some((last, _)) => last.then(input, keep, watch)?,
            None => Run::new(model, input, keep, watch)?,
        });
        let known = self.last.as_ref().map_or_else(Vec::new, |(last, summary)| {
            let n = last.rows_shared_with(&run).min(summary.surprises.len());
            summary.surprises[..n].to_vec()
        });
        // The first view does not need the logits of every position.
        let first = Arc::new(Summary { surprises: known.clone() });
        self.last = Some((Arc::clone(&run), Arc::clone(&first)));
        say(Said::Ran { run: Arc::clone(&run), summary: first, left });
        let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, say };
        let surprises = surprises_after(&run, known, || watch.goes_on())?;
        let summary = Arc::new(Summary { surprises });
        self.last = Some((Arc::clone(&run), Arc::clone(&summary)));
        say(Said::Summed(summary));
        Ok(run)
    }

    fn repeat(
        &self,
        id: u64,
        (n, seed): (usize, u64),
        interventions: &Interventions,
        differs: bool,
        say: &dyn Fn(Said),
    ) -> Result<()> {
        let model = self.model.as_ref().ok_or(Error::Cancelled)?;
        let run = |interventions: Interventions| {
            let watch = Watch { id, newest: &self.newest, n_layer: model.config().n_layer, say };
            let keep = HookFilter::new(&["pattern.*", "z.*"], model.config())?;
            let input = repeated_random(model, n, seed, false)?.with_interventions(interventions);
            Run::new(model, input, keep, watch).map(Arc::new)
        };
        let base = if differs { Some(run(Interventions::default())?) } else { None };
        let runs = WithBase { of: run(interventions.clone())?, base };
        let atlas = Arc::new(Atlas::with_base(&runs.of, runs.base.as_deref(), Exclude::default())?);
        say(Said::Repeated { atlas, runs });
        Ok(())
    }

    /// Reports the progress of a job, and ends it if a newer one was requested.
    fn step(&self, id: u64, steps: Option<Steps>, say: &dyn Fn(Said)) -> impl Fn(usize, usize) -> Result<()> {
        move |done, _| {
            self.go_on(id)?;
            if let Some(steps) = steps {
                say(Said::Step(Steps { done, ..steps }));
            }
            Ok(())
        }
    }

    /// An error if a newer job was requested.
    fn go_on(&self, id: u64) -> Result<()> {
        if self.newest.load(Ordering::Acquire) > id { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn generate(
        &mut self,
        id: u64,
        from: Arc<Run>,
        n: usize,
        sampling: &Sampling,
        say: &dyn Fn(Said),
    ) -> Result<()> {
        let mut run = from;
        for left in (0..n).rev() {
            let next = sampling.draw(&run)?;
            run = self.run(id, run.input.followed_by([next], &run), left, say)?;
        }
        self.compare(id, &run, None, say)
    }

    fn second(
        &self,
        id: u64,
        a: Arc<Run>,
        input: Input,
        [token, versus]: [Option<u32>; 2],
        say: &dyn Fn(Said),
    ) -> Result<()> {
        let watch = Watch { id, newest: &self.newest, n_layer: a.config().n_layer, say };
        let b = Arc::new(a.then(input, HookFilter::all(a.config()), watch)?);
        let alignment = Alignment::new(&a.tokens, &b.tokens);
        let comparison = Comparison::new(&a, &b, &alignment)?;
        let patching = Patching::new(Arc::clone(&a), Arc::clone(&b), token, versus);
        let patching = patching.map(Arc::new).map_err(|error| error.to_string());
        say(Said::Second(Box::new(Second { a, b, alignment, comparison, patching, file: None })));
        Ok(())
    }

    /// Compares a run with its base, the run without changes.
    fn compare(&self, id: u64, run: &Arc<Run>, base: Option<Made>, say: &dyn Fn(Said)) -> Result<()> {
        if run.input.interventions.is_idle() {
            return Ok(());
        }
        let base = if let Some(base) = base {
            base
        } else {
            let watch = Watch { id, newest: &self.newest, n_layer: run.config().n_layer, say };
            let plain = run.input.clone().with_interventions(Interventions::default());
            let run = Arc::new(run.then(plain, HookFilter::all(run.config()), watch)?);
            Made { summary: Arc::new(Summary { surprises: surprises(&run) }), run }
        };
        let alignment = Alignment::new(&base.run.tokens, &run.tokens);
        let comparison = Arc::new(Comparison::new(&base.run, run, &alignment)?);
        say(Said::Base { base, comparison });
        Ok(())
    }
}

/// Reports each layer, and ends the run if it is no longer the newest.
struct Watch<'a> {
    id: u64,
    newest: &'a AtomicU64,
    n_layer: usize,
    say: &'a dyn Fn(Said),
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
        (self.say)(Said::Layer { layer, n_layer: self.n_layer });
        Ok(())
    }
}

/// What another program computed for the tokens of `a`, as B.
fn second_of_file(a: Arc<Run>, beside: &Beside) -> Result<Second> {
    let Beside { path, hook, mapping, options } = beside;
    let foreign = Foreign::open(path, hook.as_deref(), mapping, a.config())?;
    let tokens = vec![a.tokens.clone()];
    if foreign.tokens.as_ref().is_some_and(|own| *own != tokens) {
        return Err(Error::file(
            path,
            "is of another prompt: run its own again (e, then Up), or press n for a prompt B",
        ));
    }
    let (check, tensors) = Check::with_tensors(&a.model, &foreign, &tokens, *options)?;
    if tensors.is_empty() {
        return Err(Error::file(path, "has no tensor of all positions, which could be shown"));
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let file = FromFile { name, hooks: tensors.keys().copied().collect(), check };
    let b = Arc::new(a.with_tensors(tensors));
    let alignment = Alignment::new(&a.tokens, &b.tokens);
    let comparison =
        Comparison::new(&a, &b, &alignment).unwrap_or_else(|_| Comparison::unknown(b.n_tokens()));
    let patching = Err(format!("{} is a file: only the run of a prompt can be patched", file.name));
    Ok(Second { a, b, alignment, comparison, patching, file: Some(Arc::new(file)) })
}
