//! The gradients of the run that is looked at.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::analysis::Shown;
use crate::analysis::gradients::{Gradients, Metric, Stop};
use crate::analysis::logits::Next;
use crate::analysis::patch::{Patching, Sweep, Swept};
use crate::error::Result;
use crate::run::Run;
use crate::text::num;

/// The gradients of a metric in one run, computed when they are first asked for.
#[derive(Default)]
pub struct RunGradients {
    /// As it was typed; `None`: the log-probability of the likeliest next token.
    metric: Option<String>,
    /// The token of that, where another run has settled it.
    token: Option<u32>,
    known: Option<Arc<Gradients>>,
    /// Runs that give them in place of values.
    through: HashMap<Shown, Arc<Run>>,
}

impl RunGradients {
    pub fn of(metric: Option<String>) -> Self {
        Self { metric, ..Self::default() }
    }

    pub fn is_of(&self, metric: Option<&str>) -> bool {
        self.metric.as_deref() == metric
    }

    /// Settles what is asked where no metric was chosen: the likeliest next token of another run.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if its logits were not captured.
    pub fn settle(&mut self, by: &Run) -> Result<()> {
        if self.metric.is_none() && self.token.is_none() {
            self.token = Some(Next::new(by, by.n_tokens() - 1, 1)?.top[0].id);
        }
        Ok(())
    }

    /// The metric, for a run.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a metric that this run has not.
    pub fn metric(&self, run: &Run) -> Result<Metric> {
        match (&self.metric, self.token) {
            (Some(text), _) => Metric::parse(text, &run.model, run.n_tokens()),
            (None, Some(token)) => Ok(Metric::log_prob(token, run.n_tokens() - 1)),
            (None, None) => Metric::of_prediction(run),
        }
    }

    /// The metric in words and its number, if it is known.
    pub fn words(&self) -> Option<Arc<str>> {
        let gradients = self.known.as_ref()?;
        let words = gradients.metric.words(&gradients.run.model);
        Some(format!("{words} = {}", num(gradients.value as f32)).into())
    }

    /// A run that gives gradients in place of values; before each block of the backward pass, `go_on` can end it.
    ///
    /// # Errors
    /// As [`Run::gradients`]; the error of `go_on`.
    pub fn through(
        &mut self,
        run: &Arc<Run>,
        shown: Shown,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Arc<Run>> {
        if let Some(known) = self.through.get(&shown) {
            return Ok(Arc::clone(known));
        }
        let gradients = if let Some(known) = &self.known {
            Arc::clone(known)
        } else {
            let go_on = RefCell::new(go_on);
            let made = run.gradients_with(&self.metric(run)?, Stop::default(), &|| go_on.borrow_mut()())?;
            Arc::clone(self.known.insert(Arc::new(made)))
        };
        let of = Arc::new(gradients.as_run(shown));
        self.through.insert(shown, Arc::clone(&of));
        Ok(of)
    }
}

/// What the gradient predicts for patches of one prompt into another, from one backward pass.
#[derive(Default)]
pub struct Patches(Option<((u32, u32), Patching, Gradients)>);

impl Patches {
    /// A sweep for the logit difference of two tokens.
    ///
    /// # Errors
    /// As [`Patching::first_order`].
    pub fn predict(
        &mut self,
        (clean, corrupt): (&Run, &Run),
        tokens: (u32, u32),
        sweep: Sweep,
    ) -> Result<Swept> {
        if self.0.as_ref().is_none_or(|(of, ..)| *of != tokens) {
            let [clean, corrupt] = [clean, corrupt].map(|run| Arc::new(run.clone()));
            let patching = Patching::new(clean, corrupt, Some(tokens.0), Some(tokens.1))?;
            let gradients = patching.gradients()?;
            self.0 = Some((tokens, patching, gradients));
        }
        let Some((_, patching, gradients)) = &self.0 else { unreachable!("it was just computed") };
        patching.first_order(sweep, patching.only_last(), gradients)
    }
}
