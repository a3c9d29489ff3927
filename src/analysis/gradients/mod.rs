//! Gradients: how a metric changes with every number of a run, for all at once.
//!
//! One backward pass computes ∂m/∂x of the metric m for the tensor x of every hook; interventions are
//! part of what is differentiated.
//!
//! ```
//! use std::sync::Arc;
//! use actscope::analysis::gradients::Metric;
//! use actscope::hooks::{Part, Site};
//! use actscope::{Input, Model, Run};
//!
//! let model = Arc::new(Model::demo());
//! let run = Run::all(&model, Input::text("The old man saw the young woman"))?;
//! let metric = Metric::parse("logit_diff: man, woman", &model, run.n_tokens())?;
//! let gradients = run.gradients(&metric)?;
//! let of_pattern = gradients.part(Site::Pattern.at(3), &Part::default())?;
//! assert_eq!(of_pattern.dims(), [model.config().n_head, run.n_tokens(), run.n_tokens()]);
//! # Ok::<(), actscope::Error>(())
//! ```

mod backward;
pub mod edges;
mod inputs;
mod metric;
pub mod weights;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use backward::{Backward, Gradient};
pub use inputs::{Inputs, Method, products};
pub use metric::Metric;

use crate::analysis::Shown;
use crate::analysis::logits::Next;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks, Made, Part, Site, TensorName};
use crate::interventions::Changes;
use crate::model::Sequence;
use crate::run::{Reader, Run};

impl Metric {
    /// The log-probability of the likeliest token after the last position: the metric where none is chosen.
    ///
    /// # Errors
    /// [`Error::Usage`] if the logits were not captured.
    pub fn of_prediction(run: &Run) -> Result<Self> {
        let last = run.n_tokens() - 1;
        Ok(Self::log_prob(Next::new(run, last, 1)?.top[0].id, last))
    }
}

/// Where gradients do not pass, by choice: practice differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stop {
    /// Not through the scales of LayerNorms to what they are computed from: the scales are constants, as in
    /// direct attribution.
    pub scale: bool,
    /// Not through attention patterns to scores, queries and keys.
    pub pattern: bool,
}

impl Stop {
    /// As in JSON.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.scale, "scale"), (self.pattern, "pattern")];
        all.into_iter().filter_map(|(stops, name)| stops.then_some(name)).collect()
    }
}

/// ∂m/∂x of a metric for the tensors of a run: float32, on the CPU, of the shapes of the tensors.
///
/// As in a run, only those are held from which the others soon follow.
#[derive(Debug, Clone)]
pub struct Gradients {
    pub run: Run,
    pub metric: Metric,
    /// The metric in the run.
    pub value: f64,
    pub stop: Stop,
    /// Duration of the backward pass.
    pub took: Duration,
    changes: Arc<Changes>,
    kept: BTreeMap<HookName, Gradient>,
    /// Those of the block that was asked for last, on the way to which the others of the block are.
    recent: Arc<Mutex<(usize, BTreeMap<HookName, Gradient>)>>,
}

impl Run {
    /// The gradients of a metric: one backward pass.
    ///
    /// # Errors
    /// [`Error::Usage`] for a metric that this run has not, for tensors that were not captured, and for changes
    /// that gradients do not pass.
    pub fn gradients(&self, metric: &Metric) -> Result<Gradients> {
        self.gradients_with(metric, Stop::default(), &|| Ok(()))
    }

    /// The same with choices; before each block, `go_on` can end it.
    ///
    /// # Errors
    /// See there; the error of `go_on`.
    pub fn gradients_with(
        &self,
        metric: &Metric,
        stop: Stop,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Gradients> {
        if self.changed.is_some() {
            return Err(Error::usage("this run was not computed by the model alone: it has no gradients"));
        }
        self.pass_back(metric, stop, go_on)
    }

    /// The same for a run that hooks changed: only gradients after what they changed are right.
    fn pass_back(&self, metric: &Metric, stop: Stop, go_on: &dyn Fn() -> Result<()>) -> Result<Gradients> {
        let start = Instant::now();
        let interventions = &self.input.interventions;
        metric.check(self.config(), self.n_tokens())?;
        // What was taken from other prompts is known: nothing is run again.
        let mut changes = interventions.hooks(&self.model, &mut self.donors.clone())?;
        if interventions.has_features() {
            // Which features were active, only the changes themselves have seen.
            self.model.net.watch([Sequence::new(&self.tokens, &mut changes, None)])?;
        }
        let pass = Backward::new(self, metric, &changes, stop);
        let value = pass.of_metric()?;
        for l in (0..self.config().n_layer).rev() {
            go_on()?;
            for site in KEPT {
                pass.of(site.at(l))?;
            }
            pass.keep_only(|name| KEPT.contains(&name.site));
        }
        let kept = pass.into_known();
        let (run, metric) = (self.clone(), metric.clone());
        let (took, changes, recent) = (start.elapsed(), Arc::new(changes), Arc::default());
        Ok(Gradients { run, metric, value, stop, took, changes, kept, recent })
    }
}

/// What a pass computes and holds, in its order; everything else of a block follows from these.
const KEPT: [Site; 6] = [Site::ResidPost, Site::ResidMid, Site::V, Site::K, Site::Q, Site::ResidPre];

impl Gradients {
    /// The gradient of a tensor or a part of it; 0 where nothing that the metric reads follows from it. That of
    /// features is of their directions: how the metric changes with what is added of each.
    ///
    /// # Errors
    /// [`Error::Usage`] for a tensor, rows or a head that there is not.
    pub fn part(&self, name: impl Into<TensorName>, part: &Part) -> Result<Tensor> {
        let TensorName { hook, made } = name.into();
        let whole = self.of(hook)?;
        let Some(Made::Features(_)) = made else { return Ok(part.of(hook, &whole)?.contiguous()?) };
        let none = || Error::usage(format!("there is no sparse dictionary of {hook}: see --dictionary"));
        let dictionary = self.run.model.dictionary_of(hook).ok_or_else(none)?;
        let read = self.run.cache.fetch(dictionary.reads, &Part::default())?;
        let features = dictionary.encode(&read)?;
        let rows = part.rows.clone().unwrap_or(0..self.run.n_tokens());
        let whole: Vec<Vec<f32>> = whole.flatten_from(1)?.to_vec2()?; // (T, C)
        let all: Vec<f32> = rows
            .clone()
            .into_par_iter()
            .flat_map_iter(|t| {
                let (features, g) = (&features, &whole[t]);
                (0..dictionary.n as u32).map(move |feature| dictionary.decode_back(features, t, feature, g))
            })
            .collect();
        Ok(Tensor::from_vec(all, (rows.len(), dictionary.n), &Device::Cpu)?) // (S, n)
    }

    /// The run with its gradients in place of its tensors, or with both multiplied: what [`Run::part`] gives.
    #[must_use]
    pub fn as_run(self: &Arc<Self>, shown: Shown) -> Run {
        let of = Arc::clone(self);
        // Views read a tensor head by head, or row by row.
        let last: Mutex<Option<(HookName, Tensor)>> = Mutex::new(None);
        self.run.read_through(Reader::new(move |name, part| {
            if name.made.is_some() {
                let g = of.part(name, part)?;
                return if shown == Shown::Times { times(&of.run.part(name, part)?, &g) } else { Ok(g) };
            }
            // Not held while computing: a thread that waits for others may come here again.
            let last = || last.lock().unwrap_or_else(PoisonError::into_inner);
            let known = last().as_ref().filter(|(hook, _)| *hook == name.hook).map(|(_, x)| x.clone());
            let whole = if let Some(whole) = known {
                whole
            } else {
                let g = of.of(name.hook)?;
                if shown == Shown::Times { times(&of.run.fetch(name, &Part::default())?, &g)? } else { g }
            };
            *last() = Some((name.hook, whole.clone()));
            Ok(part.of(name.hook, &whole)?.contiguous()?)
        }))
    }

    /// The gradient of what the formula of a hook computed, before its changes: what its sources are given.
    ///
    /// # Errors
    /// [`Error::Usage`] for a tensor that there is not.
    pub(crate) fn before_changes(&self, hook: HookName) -> Result<Tensor> {
        let g = self.of(hook)?;
        if self.changes.wants(hook) { self.changes.back(hook, &g) } else { Ok(g) }
    }

    fn of(&self, hook: HookName) -> Result<Tensor> {
        let run = &self.run;
        if hook.layer.is_some_and(|layer| layer >= run.config().n_layer) {
            return Err(Error::usage(format!("this model has no {hook}")));
        }
        let stage = hook.stage(run.config());
        // Not held while computing: a thread that waits for others may come here again.
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            Some(recent().clone()).filter(|(of, _)| *of == stage).map_or_else(BTreeMap::new, |known| known.1);
        let known = self.kept.iter().map(|(name, g)| (*name, g.clone())).chain(known).collect();
        let pass = Backward::new(run, &self.metric, &self.changes, self.stop).knowing(known);
        let found = pass.of(hook)?;
        let is_large = |name: HookName| matches!(name.site, Site::Logits | Site::Probs);
        pass.keep_only(|name| name.stage(run.config()) == stage && !is_large(name));
        *recent() = (stage, pass.into_known());
        Ok(match found {
            Some(g) => g.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?,
            None => Tensor::zeros(hook.shape(run.config(), run.n_tokens()), DType::F32, &Device::Cpu)?,
        })
    }
}

/// x ⊙ g, elementwise; what is masked has no gradient, where −inf · 0 would be NaN.
fn times(x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let [values, of] = [x, g].map(|x| x.flatten_all()?.to_vec1::<f32>());
    let product = |(x, g): (f32, f32)| if g == 0.0 { 0.0 } else { x * g };
    let products: Vec<f32> = values?.into_iter().zip(of?).map(product).collect();
    Ok(Tensor::from_vec(products, x.shape(), &Device::Cpu)?)
}
