//! Input attribution: how much of a metric each token of the prompt accounts for.
//!
//! The input of a token is its row of `wte`, x; the baseline is 0 in its place, with the positions as they are.
//! `grad_x_input` is x · ∂m/∂x. Integrated gradients (Sundararajan et al., 2017) are x times the mean of ∂m/∂x on
//! the way from the baseline to x, here at the middles of equal steps; they add up to the metric minus its value at
//! the baseline, up to the error of the steps (completeness).

use std::str::FromStr;

use candle_core::Tensor;

use super::{Metric, Stop};
use crate::analysis::base::Minus;
use crate::error::{Error, Result};
use crate::hooks::{Part, Site};
use crate::interventions::{Change, Intervention, Interventions, Target};
use crate::picture::Matrix;
use crate::run::{Input, Run};

/// How inputs are attributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    #[default]
    GradTimesInput,
    /// With so many steps.
    Integrated(usize),
}

impl Method {
    /// Steps of `ig` without a number.
    pub const STEPS: usize = 32;

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::GradTimesInput => "grad_x_input",
            Self::Integrated(_) => "ig",
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected grad_x_input, ig, or ig:STEPS with 1 to 1000 steps".to_owned();
        match text.split_once(':') {
            None if text == "grad_x_input" => Ok(Self::GradTimesInput),
            None if text == "ig" => Ok(Self::Integrated(Self::STEPS)),
            Some(("ig", steps)) => match steps.parse() {
                Ok(steps @ 1..=1000) => Ok(Self::Integrated(steps)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// What the tokens account for.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    pub method: Method,
    /// One for each token.
    pub values: Vec<f64>,
    /// The metric of the run.
    pub value: f64,
    /// The metric where the token embeddings are 0.
    pub baseline: f64,
}

impl Inputs {
    /// Attributes a metric to the tokens of a run. Before each backward pass, `progress` receives the number that are
    /// done and of all; an error from it ends the computation.
    ///
    /// # Errors
    /// As [`Run::gradients`]; the error of `progress`.
    pub fn new(
        run: &Run,
        metric: &Metric,
        method: Method,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        if run.changed.is_some() {
            return Err(Error::usage("this run was not computed by the model alone: it has no gradients"));
        }
        let at = |share: f32| {
            run.then(with_embeddings(run, share), crate::hooks::HookFilter::all(run.config()), ())
        };
        let baseline = metric.value(&at(0.0)?)?;
        let x = run.cache.fetch(Site::Embed.once(), &Part::default())?; // (T, C)
        let steps = match method {
            Method::GradTimesInput => 1,
            Method::Integrated(steps) => steps,
        };
        let mut values = vec![0.0; run.n_tokens()];
        let mut value = 0.0;
        for step in 0..steps {
            progress(step, steps)?;
            let gradients = match method {
                Method::GradTimesInput => run.gradients_with(metric, Stop::default(), &|| Ok(()))?,
                Method::Integrated(_) => at((step as f32 + 0.5) / steps as f32)?.gradients(metric)?,
            };
            value = gradients.value;
            let g = gradients.part(Site::Embed.once(), &Part::default())?; // (T, C)
            for (of_token, product) in values.iter_mut().zip(products(&x, &g)?) {
                *of_token += product / steps as f64;
            }
        }
        if method != Method::GradTimesInput {
            value = metric.value(run)?;
        }
        Ok(Self { method, values, value, baseline })
    }

    /// What all tokens account for together.
    pub fn sum(&self) -> f64 {
        self.values.iter().sum()
    }

    /// What there is to account for: the metric minus that of the baseline.
    pub fn difference(&self) -> f64 {
        self.value - self.baseline
    }
}

/// Token by token, of runs of equal length.
impl Minus for Inputs {
    fn minus(&self, base: &Self) -> Self {
        let values = self.values.iter().zip(&base.values).map(|(of, base)| of - base).collect();
        let (value, baseline) = (self.value - base.value, self.baseline - base.baseline);
        Self { values, value, baseline, ..*self }
    }
}

/// The input of a run with its token embeddings times `share`, before any other change.
fn with_embeddings(run: &Run, share: f32) -> Input {
    let scaled = Change::Scale(Target::Tensor(Site::Embed.once()).everywhere(), share);
    let others = run.input.interventions.active().cloned();
    let all = std::iter::once(Intervention::from(scaled)).chain(others).collect();
    run.input.clone().with_interventions(Interventions(all))
}

/// The dot products of the rows of two tensors.
pub fn products(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let [a, b] = [a, b].map(|x| Matrix::of(&x.flatten_from(1)?));
    let (a, b) = (a?, b?);
    let of_row = |row: usize| {
        let pairs = a.row(row).into_iter().zip(b.row(row));
        pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
    };
    Ok((0..a.n_rows).map(of_row).collect())
}
