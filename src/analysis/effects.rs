//! The effect of ablating each head and each MLP on the prediction.

use rayon::prelude::*;

use super::base::WithBase;
use super::compare::Shift;
use super::gradients::Metric;
use super::logits::{logits, logits_after};
use super::softmax::Softmax;
use super::vary::{Variation, vary};
use crate::error::Result;
use crate::hooks::{Part, Quantity, Site};
use crate::interventions::{Change, Donors, Interventions, Place, Target};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;

/// What to measure for every component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The position whose prediction to measure.
    pub position: usize,
    /// The token whose log-probability to measure; `None`: the run's own top prediction there.
    pub token: Option<u32>,
    /// Ablate to the mean over the prompt instead of 0.
    pub mean: bool,
}

/// The effect of ablating one component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    pub layer: usize,
    /// A head; `None` for the MLP of the block.
    pub head: Option<usize>,
    /// log p(token) without it − log p(token) with it, natural: negative if it helps the token.
    pub delta_logprob: f64,
    /// KL(with ‖ without) of the prediction, in nats.
    pub kl: f64,
    /// What the gradient predicts for `delta_logprob`: ∂ log p / ∂x · (ablated − x). `None` if the run has none.
    pub first_order: Option<f64>,
}

impl Effect {
    /// As in JSON.
    pub fn component(&self) -> &'static str {
        if self.head.is_some() { "head" } else { "mlp" }
    }

    /// The component that was ablated.
    pub fn place(&self) -> Place {
        component(self.layer, self.head)
    }

    pub fn name(&self) -> String {
        self.place().to_string()
    }

    pub fn get(&self, measure: Measure) -> f64 {
        match measure {
            Measure::DeltaLogprob => self.delta_logprob,
            Measure::Kl => self.kl,
            Measure::FirstOrder => self.first_order.unwrap_or(f64::NAN),
        }
    }
}

/// What the gradient predicts for each ablation: ∂ log p / ∂x · (ablated − x), in the order of [`Effects::all`].
#[derive(Debug, Clone, PartialEq)]
pub struct FirstOrder {
    pub question: Question,
    /// The token whose log-probability it is.
    pub token: u32,
    pub values: Vec<f64>,
}

impl FirstOrder {
    /// One backward pass.
    ///
    /// # Errors
    /// As [`Run::gradients`].
    pub fn new(run: &Run, question: Question) -> Result<Self> {
        let before = logits_after(run, question.position)?;
        let token = question.token.unwrap_or_else(|| Shift::new(&before, &before, None).predicted.0);
        run.model.net.check_ids(&[token])?;
        let gradients = run.gradients(&Metric::log_prob(token, question.position))?;
        let mut values = Vec::new();
        for l in 0..run.config().n_layer {
            for site in [Site::Z, Site::MlpOut] {
                let x = run.cache.fetch(site.at(l), &Part::default())?; // (T, H, d_head) or (T, C)
                let ablated =
                    if question.mean { x.mean_keepdim(0)?.broadcast_as(x.shape())? } else { x.zeros_like()? };
                let g = gradients.part(site.at(l), &Part::default())?;
                let n_parts = if site == Site::Z { x.dim(1)? } else { 1 };
                let effect = (g * (ablated - &x)?)?.reshape((run.n_tokens(), n_parts, ()))?;
                values.extend(effect.sum(2)?.sum(0)?.to_vec1::<f32>()?.into_iter().map(f64::from));
            }
        }
        Ok(Self { question, token, values })
    }

    /// Blocks down, heads across.
    pub fn chart_of_heads(&self, run: &Run) -> Chart {
        let effect = |(i, &first): (usize, &f64)| {
            let (layer, part) = (i / (run.config().n_head + 1), i % (run.config().n_head + 1));
            let head = (part < run.config().n_head).then_some(part);
            Effect { layer, head, delta_logprob: f64::NAN, kl: f64::NAN, first_order: Some(first) }
        };
        let all = self.values.iter().enumerate().map(effect).collect();
        Effects { question: self.question, token: self.token, all }.heads_by(run, Measure::FirstOrder)
    }
}

fn component(layer: usize, head: Option<usize>) -> Place {
    match head {
        Some(head) => Target::Head(Site::Z.at(layer), head).everywhere(),
        None => Target::Tensor(Site::MlpOut.at(layer)).everywhere(),
    }
}

/// The number that a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Measure {
    #[default]
    DeltaLogprob,
    Kl,
    FirstOrder,
}

impl Measure {
    pub const ALL: [Self; 3] = [Self::DeltaLogprob, Self::Kl, Self::FirstOrder];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeltaLogprob => "delta_logprob",
            Self::Kl => "kl",
            Self::FirstOrder => "first_order",
        }
    }
}

/// The effects of all components of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    pub question: Question,
    /// The token whose log-probability is measured.
    pub token: u32,
    /// Block by block: the heads, then the MLP.
    pub all: Vec<Effect>,
}

impl Effects {
    /// Ablates every head and every MLP of `run`, each at all positions and by itself, on top of
    /// the interventions of the run. Before each one, `progress` receives the number done and the
    /// total; an error from it ends the computation.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] for a position or token out of range, or logits that were not kept.
    pub fn new(
        run: &Run,
        question: Question,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let config = run.config();
        let before = logits_after(run, question.position)?;
        let token = question.token.unwrap_or_else(|| Shift::new(&before, &before, None).predicted.0);
        run.model.net.check_ids(&[token])?;
        let log_prob = |logits: &[f32]| Softmax::new(logits).log_prob(logits[token as usize]);
        let of_layer =
            |layer: usize| (0..config.n_head).map(Some).chain([None]).map(move |head| (layer, head));
        let components: Vec<_> = (0..config.n_layer).flat_map(of_layer).collect();
        let n = components.len();
        // Not of runs that did not keep what gradients need, or with changes that they do not pass.
        let first_order = FirstOrder::new(run, Question { token: Some(token), ..question }).ok();
        let variation = |&(layer, head): &(usize, Option<usize>)| {
            let place = component(layer, head);
            let change = if question.mean { Change::Mean(place) } else { Change::Zero(place) };
            let hooks = Interventions::from_iter([change]).hooks(&run.model, &mut Donors::default())?;
            Ok(Variation { hooks, first: 0, looks_ahead: question.mean })
        };
        let variations = components.iter().map(variation).collect::<Result<Vec<_>>>()?;
        let mut all = Vec::with_capacity(n);
        let go_on = |done| progress(done, n);
        vary(run, question.position, variations, go_on, |first, x| {
            let effect = |(i, after): (usize, Vec<f32>)| {
                let (layer, head) = components[first + i];
                let delta_logprob = log_prob(&after) - log_prob(&before);
                let first_order = first_order.as_ref().map(|of_each| of_each.values[first + i]);
                Effect { layer, head, delta_logprob, kl: Shift::new(&before, &after, None).kl, first_order }
            };
            all.par_extend(logits(run, &x)?.into_par_iter().enumerate().map(effect));
            Ok(())
        })?;
        Ok(Self { question, token, all })
    }

    /// The same of this run and of its base, if there is one: of the same token.
    pub fn with_base(
        run: &Run,
        base: Option<&Run>,
        question: Question,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<WithBase<Self>> {
        let rounds = 1 + usize::from(base.is_some());
        WithBase::ask(run, base, |run, base| {
            let token = question.token.or(base.map(|base: &Self| base.token));
            let round = usize::from(base.is_some());
            Self::new(run, Question { token, ..question }, |i, n| progress(round * n + i, rounds * n))
        })
    }

    /// Blocks down, heads across: the change of log p without each.
    pub fn chart_of_heads(&self, run: &Run) -> Chart {
        self.heads_by(run, Measure::DeltaLogprob)
    }

    fn heads_by(&self, run: &Run, measure: Measure) -> Chart {
        let heads = self.all.iter().filter(|effect| effect.head.is_some());
        let values = heads.map(|effect| effect.get(measure) as f32).collect();
        let values = Matrix::new(values, run.config().n_layer, run.config().n_head);
        let values = values.expect("one value per head");
        let chart = self.chart(run, measure);
        Chart { columns: Labels::numbered("head"), values, ..chart }
    }

    /// Blocks down, heads and the MLP across.
    pub fn chart(&self, run: &Run, measure: Measure) -> Chart {
        let (n_layer, n_head) = (run.config().n_layer, run.config().n_head);
        let values = self.all.iter().map(|effect| effect.get(measure) as f32).collect();
        let token = run.model.tokenizer.show(self.token);
        let at = run.token_text(self.question.position);
        let how = if self.question.mean { "at its mean over the prompt" } else { "at 0" };
        let (title, formula, quantity) = match measure {
            Measure::DeltaLogprob => ("Δ log p", "log p without − log p with it, nats", Quantity::Signed),
            Measure::Kl => ("KL", "D(with ‖ without), nats", Quantity::Positive),
            Measure::FirstOrder => {
                ("first-order Δ log p", "∂ log p / ∂x · (ablated − x), nats", Quantity::Signed)
            }
        };
        let title = match measure {
            Measure::DeltaLogprob | Measure::FirstOrder => format!("ablation: {title} of {token}"),
            Measure::Kl => format!("ablation: {title}"),
        };
        Chart {
            title,
            doc: format!("after {at} ({}), with one head or MLP {how}", self.question.position),
            formula: formula.into(),
            rows: Labels::numbered("layer"),
            columns: Labels::named(
                "head",
                (0..n_head).map(|head| head.to_string()).chain(["mlp".into()]).collect(),
            ),
            values: Matrix::new(values, n_layer, n_head + 1).expect("one value per component"),
            quantity,
            limit: None,
            texts: Vec::new(),
        }
    }
}
