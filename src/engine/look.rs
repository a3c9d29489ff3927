//! What the screens show of a run, computed outside the drawing thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::ops::{self, Deref};
use std::sync::Arc;

use super::Event;
use super::gradients::{Patches, RunGradients};
use super::pixels::{Canvas, Pixels};
use super::slot::Slot;
use crate::analysis::attribution::{Attribution, Component, Neuron};
use crate::analysis::base::{Minus as _, WithBase};
use crate::analysis::compare::{Alignment, difference};
use crate::analysis::effects::{FirstOrder, Question};
use crate::analysis::features;
use crate::analysis::find::Found;
use crate::analysis::gradients::edges::{Edges, Ready};
use crate::analysis::gradients::{Inputs, Method};
use crate::analysis::heads::{Atlas, Exclude};
use crate::analysis::lens::{self, Lens, Reader, Reading};
use crate::analysis::logits::Next;
use crate::analysis::patch::{Sweep, Swept};
use crate::analysis::walk::{At, Page};
use crate::analysis::weights::{Circuit, Ends, Neighbour, NeuronTokens, Spectrum, embedding, nearest};
use crate::analysis::{Shown, View, ViewSource};
use crate::error::{Error, Result};
use crate::hooks::{Quantity, Site};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, FittedLens};
use crate::picture::Matrix;
use crate::picture::Picture;
use crate::picture::grid::{Pooling, Window};
use crate::picture::range::{Range, RangeMode};
use crate::picture::stats::{Stats, histogram, largest};
use crate::run::Run;

/// Something to compute.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Map {
        view: View,
        window: Window,
        per_cell: (usize, usize),
        pooling: Pooling,
        range: RangeMode,
        /// Also in pixels.
        canvas: Option<Canvas>,
    },
    Row {
        view: View,
        row: usize,
    },
    Next {
        position: usize,
        k: usize,
    },
    Nexts {
        positions: ops::Range<usize>,
        k: usize,
    },
    /// The norms of the residual stream at a position, in the order of [`lens::hooks`].
    Flow {
        position: usize,
    },
    /// The mean over all heads of all blocks of what the token at `position` reads.
    Reads {
        position: usize,
    },
    Heads,
    /// Residual streams by their index in [`lens::hooks_of`], through the logit lens or one of the model's.
    Lens {
        lens: lens::Which,
        /// The lens whose readings are subtracted.
        versus: Option<lens::Which>,
        rows: ops::Range<usize>,
        positions: ops::Range<usize>,
        token: Option<u32>,
        k: usize,
    },
    Walk(At),
    /// The contributions to the logit of a token, by default the likeliest.
    Attribution {
        position: usize,
        token: Option<u32>,
        versus: Option<u32>,
    },
    /// The total effect of each contribution, first-order.
    Totals {
        position: usize,
        token: Option<u32>,
        versus: Option<u32>,
    },
    /// The neurons of block `layer` with the largest contributions to it.
    Neurons {
        position: usize,
        token: Option<u32>,
        versus: Option<u32>,
        layer: usize,
        k: usize,
    },
    /// The active features of a dictionary of the model, by its index.
    Features {
        dictionary: usize,
        asked: features::Asked,
    },
    /// One of them, seen from a position.
    Feature {
        dictionary: usize,
        feature: u32,
        position: usize,
        token: Option<u32>,
    },
    /// The rows of wte nearest to a row; for a row of wpe, those of wpe.
    Neighbours {
        view: View,
        row: usize,
        k: usize,
    },
    /// A circuit of a head, with the tokens of one of its singular directions.
    Circuit {
        circuit: Circuit,
        layer: usize,
        head: usize,
        direction: usize,
        k: usize,
    },
    /// The tokens of a neuron's directions, and its values in the run.
    Neuron {
        layer: usize,
        neuron: usize,
        k: usize,
    },
    Found,
    /// What each token accounts for of the metric.
    Inputs(Method),
    /// A sweep of the run patched into its base, by the gradient.
    Predicted {
        sweep: Sweep,
        token: u32,
        versus: u32,
    },
    /// The edges that tell the run from its base, by integrated gradients if there are steps.
    Edges {
        token: u32,
        versus: u32,
        steps: Option<usize>,
    },
    /// The first-order effect of each head and MLP on the likeliest token after a position.
    FirstOrder {
        position: usize,
    },
}

impl Look {
    /// The progress it reports, if it is slow.
    pub fn steps(&self, run: &Run) -> Option<Steps> {
        let (what, of) = match self {
            Self::Found => ("searching", run.cache.names().len()),
            Self::Inputs(Method::Integrated(steps)) => ("integrating", *steps),
            Self::Edges { steps, .. } => ("scoring edges", steps.unwrap_or(1)),
            Self::Lens { lens, rows, positions, .. } => {
                let n = lens::hooks_of(run.config(), lens.of(run)).len();
                let rows = rows.end.min(n).saturating_sub(rows.start);
                ("reading", rows * positions.len())
            }
            _ => return None,
        };
        Some(Steps { what, done: 0, of })
    }
}

/// A result, together with its request.
#[derive(Debug, Clone)]
pub enum Seen {
    Map(Map),
    Row(RowLook),
    Next(Look, WithBase<Next>),
    Nexts(Look, Vec<WithBase<Next>>),
    Flow(Look, Vec<f32>),
    Reads(Look, Vec<f32>),
    Heads(Look, WithBase<Atlas>),
    Lens(Look, WithBase<Lens>),
    Walk(Look, Box<Page>),
    Attribution(Look, WithBase<Attribution>),
    Neurons(Look, Vec<WithBase<Neuron>>),
    Totals(Look, Vec<(Component, f64)>),
    Features(Look, Fit, features::Listed),
    Feature(Look, features::Page),
    Neighbours(Look, Vec<Neighbour>),
    Circuit(Look, Spectrum, [Ends; 2]),
    Neuron(Look, NeuronTokens, Vec<f32>),
    Found(Look, Found),
    /// With the metric in words.
    Inputs(Look, Inputs, String),
    FirstOrder(Look, WithBase<FirstOrder>),
    Predicted(Look, Swept),
    Edges(Look, Edges),
    /// Nothing to show, with the reason.
    Nothing(Look, String),
}

impl Look {
    /// Whether it is made of a run's tensors alone, without weights.
    fn needs_only_tensors(&self) -> bool {
        match self {
            Self::Map { view, .. } | Self::Row { view, .. } if view.shown != Shown::Value => false,
            Self::Map { view, .. } | Self::Row { view, .. } => match view.source {
                ViewSource::Tensor(name) => name.made.is_none(),
                ViewSource::Stage(..) | ViewSource::Merged(_) | ViewSource::KeysT(_) | ViewSource::Mask => {
                    true
                }
                ViewSource::Wte | ViewSource::Wpe | ViewSource::Weight(..) | ViewSource::Unembed => false,
            },
            Self::Next { .. } | Self::Nexts { .. } | Self::Flow { .. } | Self::Found => true,
            _ => false,
        }
    }
}

impl Seen {
    /// The request that this answers.
    pub fn look(&self) -> &Look {
        match self {
            Self::Map(map) => &map.look,
            Self::Row(row) => &row.look,
            Self::Next(look, _)
            | Self::Nexts(look, _)
            | Self::Flow(look, _)
            | Self::Reads(look, _)
            | Self::Heads(look, _)
            | Self::Lens(look, _)
            | Self::Walk(look, _)
            | Self::Attribution(look, _)
            | Self::Neurons(look, _)
            | Self::Totals(look, _)
            | Self::Neighbours(look, _)
            | Self::Circuit(look, ..)
            | Self::Features(look, ..)
            | Self::Feature(look, _)
            | Self::Neuron(look, ..)
            | Self::Found(look, _)
            | Self::Inputs(look, ..)
            | Self::FirstOrder(look, _)
            | Self::Predicted(look, _)
            | Self::Edges(look, _)
            | Self::Nothing(look, _) => look,
        }
    }

    /// Whether it is complete.
    pub fn is_whole(&self) -> bool {
        if let Self::Lens(_, lens) = self { lens.of.is_whole() } else { true }
    }
}

/// The picture of a view.
#[derive(Debug, Clone)]
pub struct Map {
    pub look: Look,
    pub view: View,
    pub picture: Picture,
    /// Statistics of the whole matrix.
    pub stats: Stats,
    /// Whether it is a difference of two runs.
    pub differs: bool,
    /// What it is a gradient of, and its number in the run; `None` for values.
    pub metric: Option<Arc<str>>,
    pub pixels: Option<Pixels>,
}

impl Deref for Map {
    type Target = Picture;

    fn deref(&self) -> &Picture {
        &self.picture
    }
}

/// A row of a matrix, described.
#[derive(Debug, Clone)]
pub struct RowLook {
    pub look: Look,
    pub view: View,
    pub row: usize,
    pub values: Vec<f32>,
    pub stats: Stats,
    pub histogram: Vec<usize>,
    /// (column, value), largest first.
    pub largest: Vec<(usize, f32)>,
}

/// Everything that the screen needs of one run.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub run: Arc<Run>,
    /// A run whose tensors are subtracted from those of `run`.
    pub base: Option<Arc<Run>>,
    pub shown_id: u64,
    /// The number of this request.
    pub id: u64,
    /// What gradients are of; `None`: the log-probability of the likeliest next token.
    pub metric: Option<String>,
    pub looks: Vec<(Slot, Look)>,
}

/// The progress of something slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub what: &'static str,
    pub done: usize,
    pub of: usize,
}

/// `reading, 3 of 9`
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, done, of } = self;
        write!(f, "{what}, {done} of {of}")
    }
}

/// The largest values of a row that are listed: a tall terminal full.
const LARGEST: usize = 160;

/// Cells of the lens that are computed together: as many rows as the small product handles.
const PIECE: usize = 24;

/// The readings of the lens, by the token that is followed.
type Readings = HashMap<(lens::Cell, Option<u32>), WithBase<Reading>>;

/// How a map is cut into cells.
type Cells = ((usize, usize), Pooling);

/// Computes looks; caches ranges and statistics, which need the whole matrix, and the lens's
/// readings.
#[derive(Default)]
pub struct Looker {
    /// The id, the run and its base that this is known of.
    of: (u64, Option<Arc<Run>>, Option<Arc<Run>>),
    known: HashMap<(View, RangeMode, Option<Cells>), (Range, Stats)>,
    readings: Readings,
    /// What lens they are of.
    lens: (lens::Which, Option<lens::Which>),
    /// The features of each dictionary.
    features: HashMap<usize, (Features, Fit)>,
    /// Of the run and of its base.
    gradients: [RunGradients; 2],
    patches: Patches,
}

impl Looker {
    /// A dictionary of the model, and what it makes of the run.
    fn features<'a>(
        &'a mut self,
        run: &'a Run,
        dictionary: usize,
    ) -> Result<(&'a Dictionary, &'a (Features, Fit))> {
        let of = run.model.dictionaries().get(dictionary);
        let of = of.ok_or_else(|| Error::usage("this model has no sparse dictionary: see --dictionary"))?;
        let read = match self.features.entry(dictionary) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(features::read(run, of)?),
        };
        Ok((of, read))
    }

    /// Reports results: all at once, but slow ones piece by piece with their progress,
    /// until `goes_on` returns false.
    pub fn look(&mut self, wanted: Wanted, goes_on: &dyn Fn() -> bool, emit: &mut dyn FnMut(Event)) {
        let same = |a: Option<&Arc<Run>>, b: Option<&Arc<Run>>| a.map(Arc::as_ptr) == b.map(Arc::as_ptr);
        let (id, run, base) = &self.of;
        let runs = same(run.as_ref(), Some(&wanted.run)) && same(base.as_ref(), wanted.base.as_ref());
        if wanted.shown_id != *id || !runs || !self.gradients[0].is_of(wanted.metric.as_deref()) {
            self.of = (wanted.shown_id, Some(Arc::clone(&wanted.run)), wanted.base.clone());
            self.known.retain(|(view, ..), _| view.source.is_weight());
        }
        if !runs {
            self.readings.clear();
            self.features.clear();
            self.patches = Patches::default();
        }
        if !runs || !self.gradients[0].is_of(wanted.metric.as_deref()) {
            self.gradients = [(); 2].map(|()| RunGradients::of(wanted.metric.clone()));
        }
        let Wanted { run, base, shown_id, id, metric: _, looks } = wanted;
        let mut seen = Vec::with_capacity(looks.len());
        for (slot, look) in looks {
            let steps = look.steps(&run);
            let mut step = |part: Option<Seen>, done: usize| {
                if let Some(part) = part {
                    emit(Event::Looked { shown_id, seen: vec![(slot, Arc::new(part))] });
                }
                emit(Event::Looking { id, steps: steps.map(|steps| Steps { done, ..steps }) });
                if goes_on() { Ok(()) } else { Err(Error::Cancelled) }
            };
            let known = if run.model.is_absent() && !look.needs_only_tensors() {
                Err(super::saved::needs_model(&run.model))
            } else {
                self.see_shown((&run, base.as_ref()), &look, &mut step)
            };
            match known {
                Err(Error::Cancelled) => return,
                Err(error) => seen.push((slot, Arc::new(Seen::Nothing(look, error.to_string())))),
                Ok(whole) => seen.push((slot, Arc::new(whole))),
            }
        }
        emit(Event::Looked { shown_id, seen });
        emit(Event::Looking { id, steps: None });
    }

    /// Before each piece of a slow result, `step` receives the result so far and the number of
    /// steps done; an error from it ends the computation.
    fn see_shown(
        &mut self,
        (run, base): (&Arc<Run>, Option<&Arc<Run>>),
        look: &Look,
        step: &mut dyn FnMut(Option<Seen>, usize) -> Result<()>,
    ) -> Result<Seen> {
        let shown = match look {
            Look::Map { view, .. } | Look::Row { view, .. } => view.shown,
            _ => Shown::Value,
        };
        if shown == Shown::Value {
            return self.see(run, base.map(AsRef::as_ref), look, step);
        }
        let mut go_on = || step(None, 0);
        self.settle(base.map(AsRef::as_ref))?;
        let [of_run, of_base] = &mut self.gradients;
        let of = of_run.through(run, shown, &mut go_on)?;
        let base = base.map(|base| of_base.through(base, shown, &mut go_on)).transpose()?;
        let words = of_run.words();
        let mut seen = self.see(&of, base.as_deref(), look, step)?;
        if let Seen::Map(map) = &mut seen {
            map.metric = words;
        }
        Ok(seen)
    }

    /// A difference is of one metric: where none was chosen, that of the base.
    fn settle(&mut self, base: Option<&Run>) -> Result<()> {
        let Some(base) = base else { return Ok(()) };
        self.gradients.iter_mut().try_for_each(|of| of.settle(base))
    }

    /// The same of values.
    #[allow(clippy::too_many_lines)] // one arm per kind
    fn see(
        &mut self,
        run: &Run,
        base: Option<&Run>,
        look: &Look,
        step: &mut dyn FnMut(Option<Seen>, usize) -> Result<()>,
    ) -> Result<Seen> {
        Ok(match look {
            Look::Map { view, window, per_cell, pooling, range, canvas } => {
                let base = base.filter(|_| !view.source.is_same());
                let matrix = match base {
                    Some(base) => apart(*view, run, base)?,
                    None => view.stored(run)?,
                };
                let grid = view.grid(&matrix, window, *per_cell, *pooling);
                let quantity = if base.is_some() { Quantity::Signed } else { view.quantity() };
                let drawn = (*range == RangeMode::Robust).then_some((*per_cell, *pooling));
                let known = self.known.entry((*view, *range, drawn));
                let (whole, stats) = match known {
                    Entry::Occupied(known) => known.get().clone(),
                    Entry::Vacant(unknown) => {
                        let range = match drawn {
                            // The largest of many is beyond the range of all: the cells set it.
                            Some((per_cell, pooling)) if per_cell != (1, 1) => {
                                let (n_rows, n_columns) = view.dims(run);
                                let all =
                                    view.grid(&matrix, &Window::whole(n_rows, n_columns), per_cell, pooling);
                                let cells = Matrix::new(all.cells, all.n_rows, all.n_columns)?;
                                Range::new(&cells, quantity, *range)
                            }
                            _ => Range::new(&matrix, quantity, *range),
                        };
                        unknown.insert((range, Stats::of_matrix(&matrix))).clone()
                    }
                };
                let range = if *range == RangeMode::Shown { Range::shown(&grid, quantity) } else { whole };
                let first_query = (view.source.is_causal() && hides_nothing(&matrix, run, base)).then_some(0);
                let picture = Picture { first_query, ..Picture::new(&matrix, grid, range) };
                let (look, pixels) = (look.clone(), canvas.and_then(|canvas| canvas.draw(&picture)));
                let differs = base.is_some();
                Seen::Map(Map { look, view: *view, picture, stats, differs, metric: None, pixels })
            }
            Look::Row { view, row } => {
                let (row, values) = if let Some(base) = base.filter(|_| !view.source.is_same()) {
                    let matrix = apart(*view, run, base)?;
                    let row = (*row).min(matrix.n_rows.saturating_sub(1));
                    (row, matrix.row(row))
                } else {
                    let row = (*row).min(view.dims(run).0.saturating_sub(1));
                    (row, view.rows(run, row..row + 1)?.row(0))
                };
                Seen::Row(RowLook {
                    look: look.clone(),
                    view: *view,
                    row,
                    stats: Stats::of(&values),
                    histogram: histogram(&values, 24),
                    largest: largest(&values, LARGEST),
                    values,
                })
            }
            Look::Heads => Seen::Heads(look.clone(), Atlas::with_base(run, base, Exclude::default())?),
            Look::Attribution { position, token, versus } => {
                let of = Attribution::with_base(run, base, *position, *token, *versus)?;
                Seen::Attribution(look.clone(), of)
            }
            Look::Totals { position, token, versus } => {
                let of = Attribution::with_base(run, base, *position, *token, *versus)?.of;
                let each = of.parts.iter().zip(of.totals(run)?);
                Seen::Totals(look.clone(), each.filter_map(|(part, x)| Some((part.component, x?))).collect())
            }
            Look::Neurons { position, token, versus, layer, k } => {
                let of = Attribution::with_base(run, base, *position, *token, *versus)?;
                Seen::Neurons(look.clone(), of.neurons((run, base), *layer, *k)?)
            }
            Look::Features { dictionary, asked } => {
                let (of, (features, fit)) = self.features(run, *dictionary)?;
                Seen::Features(look.clone(), *fit, features::Listed::new(run, of, features, asked)?)
            }
            Look::Feature { dictionary, feature, position, token } => {
                let (of, (features, _)) = self.features(run, *dictionary)?;
                let place = (*feature, *position);
                let page = features::Page::new(run, (of, features), place, (*token, None))?;
                Seen::Feature(look.clone(), page)
            }
            Look::Neighbours { view, row, k } => {
                let matrix = match base.filter(|_| !view.source.is_same()) {
                    Some(base) => apart(*view, run, base)?,
                    None => view.matrix(run)?,
                };
                let x = matrix.row(*row);
                let found = match view.source {
                    ViewSource::Wte | ViewSource::Wpe => nearest(&x, &matrix, *k, Some(*row)),
                    _ => nearest(&x, &embedding(&run.model.net)?, *k, None),
                };
                Seen::Neighbours(look.clone(), found)
            }
            Look::Circuit { circuit, layer, head, direction, k } => {
                let net = &run.model.net;
                let spectrum = Spectrum::new(net, *layer, *head, *circuit)?;
                let direction = (*direction).min(spectrum.values.len() - 1);
                let ends = spectrum.tokens(net, direction, *k)?;
                Seen::Circuit(look.clone(), spectrum, ends)
            }
            Look::Neuron { layer, neuron, k } => {
                let tokens = NeuronTokens::new(&run.model.net, *layer, *neuron, *k)?;
                let posts = |run: &Run, _: Option<&Vec<f32>>| {
                    let post = View::hook(Site::MlpPost.at(*layer), 0).matrix(run)?;
                    Ok(post.read(|rows| (0..post.n_rows).map(|row| rows.get(row)[*neuron]).collect()))
                };
                let posts = WithBase::ask(run, base, posts)?.shown(Vec::clone);
                Seen::Neuron(look.clone(), tokens, posts)
            }
            Look::Predicted { sweep, token, versus } => {
                let base = base.ok_or_else(|| Error::usage("there is no second prompt"))?;
                Seen::Predicted(look.clone(), self.patches.predict((run, base), (*token, *versus), *sweep)?)
            }
            Look::Edges { token, versus, steps } => {
                let base = base.ok_or_else(|| Error::usage("there is no second prompt"))?;
                let pair = Ready::of(run.clone(), base.clone(), (*token, Some(*versus)))?;
                Seen::Edges(look.clone(), Edges::new(&[pair], *steps, |done, _| step(None, done))?)
            }
            Look::FirstOrder { position } => {
                let question = Question { position: *position, token: None, mean: false };
                let of = |run: &Run, base: Option<&FirstOrder>| {
                    FirstOrder::new(run, Question { token: base.map(|base| base.token), ..question })
                };
                Seen::FirstOrder(look.clone(), WithBase::ask(run, base, of)?)
            }
            Look::Inputs(method) => {
                self.settle(base)?;
                let mut of = |run: &Run| {
                    let metric = self.gradients[0].metric(run)?;
                    let inputs = Inputs::new(run, &metric, *method, |done, _| step(None, done))?;
                    Ok::<_, Error>((inputs, metric.words(&run.model)))
                };
                let (mut inputs, words) = of(run)?;
                if let Some(base) = base {
                    inputs = inputs.minus(&of(base)?.0);
                }
                Seen::Inputs(look.clone(), inputs, words)
            }
            Look::Found => Seen::Found(look.clone(), Found::new(run, |done, _| step(None, done))?),
            Look::Lens { lens, versus, rows, positions, token, k } => {
                if self.lens != (*lens, *versus) {
                    self.readings.clear();
                    self.lens = (*lens, *versus);
                }
                let through = lens.of(run);
                // Another lens on the same run, or the same lens on the base.
                let (base, before) = match versus {
                    Some(other) => (Some(run), other.of(run)),
                    None => (base, through),
                };
                let hooks = lens::hooks_of(run.config(), through);
                let hooks = &hooks[rows.start.min(hooks.len())..rows.end.min(hooks.len())];
                let mut reader = Reader::with_base(run, base, positions.clone(), *token, *k)?;
                reader.of = reader.of.through(through);
                reader.base = reader.base.map(|base| base.through(before));
                loop {
                    let reading = |cell| self.readings.get(&(cell, *token));
                    let known = |side: fn(&WithBase<Reading>) -> Option<&Reading>,
                                 through: Option<&FittedLens>| {
                        let known = |cell| side(reading(cell)?);
                        let lens = Lens::known(hooks, positions.clone(), *token, known);
                        Lens { through: through.map(|lens| lens.kind), ..lens }
                    };
                    let lens = WithBase {
                        of: known(|answer| Some(&answer.of), through),
                        base: base.map(|_| known(|answer| answer.base.as_ref(), before)),
                    };
                    // From the answer back to the embedding.
                    let missing = lens.of.cells().filter(|cell| reading(*cell).is_none()).collect::<Vec<_>>();
                    let piece = &missing[missing.len().saturating_sub(PIECE)..];
                    if piece.is_empty() {
                        break Seen::Lens(look.clone(), lens);
                    }
                    let done = lens.of.readings.len();
                    step(Some(Seen::Lens(look.clone(), lens)), done)?;
                    let read = reader.read(piece)?;
                    self.readings.extend(piece.iter().map(|&cell| (cell, *token)).zip(read));
                }
            }
            Look::Next { position, k } => {
                Seen::Next(look.clone(), Next::with_base(run, base, *position, *k)?)
            }
            Look::Nexts { positions, k } => {
                Seen::Nexts(look.clone(), Next::after_each(run, base, positions.clone(), *k)?)
            }
            Look::Flow { position } => {
                let norm = |hook| {
                    let x = View::hook(hook, 0).rows(run, *position..*position + 1)?;
                    Ok(Stats::of(&x.row(0)).norm as f32)
                };
                let norms = lens::hooks(run.config()).into_iter().map(norm).collect::<Result<_>>()?;
                Seen::Flow(look.clone(), norms)
            }
            Look::Reads { position } => {
                let config = run.config();
                let mut mean = vec![0.0; run.n_tokens()];
                let share = 1.0 / (config.n_layer * config.n_head) as f32;
                for (layer, head) in (0..config.n_layer).flat_map(|l| (0..config.n_head).map(move |h| (l, h)))
                {
                    let view = View::hook(Site::Pattern.at(layer), head);
                    let row = view.rows(run, *position..*position + 1)?.row(0);
                    mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x * share);
                }
                Seen::Reads(look.clone(), mean)
            }
            Look::Walk(at) => Seen::Walk(look.clone(), Box::new(Page::with_base(run, base, *at)?)),
        })
    }
}

/// Whether the future of an attention map is masked, as it is in whatever the network computes; another program may
/// have forgotten it.
fn hides_nothing(map: &Matrix, run: &Run, base: Option<&Run>) -> bool {
    let is_ours = |run: &Run| run.changed.is_none() && !run.model.is_absent();
    if is_ours(run) && base.is_none_or(is_ours) {
        return true;
    }
    let is_masked = |row: &[f32]| row.iter().all(|x| *x == 0.0 || *x == f32::NEG_INFINITY);
    map.read(|rows| (0..map.n_rows).all(|at| rows.get(at).get(at + 1..).is_none_or(is_masked)))
}

/// A view of a run less that of its base, token by token.
fn apart(view: View, run: &Run, base: &Run) -> Result<Matrix> {
    difference(view, (run, base), &Alignment::new(&run.tokens, &base.tokens))
}
