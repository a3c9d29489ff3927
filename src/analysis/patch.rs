//! Activation patching: how much of one prompt's preference between two tokens is restored when another
//! prompt gets some of its activations.
//!
//! The measure is the logit difference of two tokens at the last position, logit(token) −
//! logit(versus): `recovered` = (patched − corrupt) / (clean − corrupt), 0 if the patch does
//! nothing and 1 if it restores the value of the clean prompt.

use std::str::FromStr;
use std::sync::Arc;

use candle_core::Tensor;

use super::logits::{Next, Softmax, logits_after, order};
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, HookName, Hooks, Quantity, Site};
use crate::interventions::{Place, Target};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;
use crate::text::num;

/// The activations to patch, one place at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sweep {
    /// The residual stream before a block, at one position.
    ResidPre,
    /// What attention adds, at one position.
    AttnOut,
    /// What the MLP adds, at one position.
    MlpOut,
    /// What one head gathers (`attn.hook_z`), at all positions.
    Heads,
}

impl Sweep {
    pub const ALL: [Self; 4] = [Self::ResidPre, Self::AttnOut, Self::MlpOut, Self::Heads];

    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "resid_pre",
            Self::AttnOut => "attn_out",
            Self::MlpOut => "mlp_out",
            Self::Heads => "heads",
        }
    }

    /// The place of a cell: block `layer`, and the position or head of its column.
    pub fn place(self, layer: usize, column: usize) -> Place {
        match self {
            Self::ResidPre => Target::Tensor(Site::ResidPre.at(layer)).at(column),
            Self::AttnOut => Target::Tensor(Site::AttnOut.at(layer)).at(column),
            Self::MlpOut => Target::Tensor(Site::MlpOut.at(layer)).at(column),
            Self::Heads => Target::Head(Site::Z.at(layer), column).everywhere(),
        }
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|sweep| sweep.name() == name).ok_or(format!("expected one of {names}"))
    }
}

/// The recovered logit difference of every place of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    pub sweep: Sweep,
    /// Blocks.
    pub rows: Vec<usize>,
    /// Positions of the corrupt prompt, or heads.
    pub columns: Vec<usize>,
    pub values: Vec<Vec<f32>>,
}

impl Swept {
    /// Blocks down, positions or heads across.
    pub fn chart(&self, patching: &Patching) -> Chart {
        let run = &patching.corrupt;
        let show = |id: u32| run.model.tokenizer.show(id);
        let (doc, columns) = if self.sweep == Sweep::Heads {
            ("a head at all positions", Labels::numbered("head"))
        } else {
            let names = self.columns.iter().map(|&at| format!("{at} {}", run.token_text(at)));
            ("one position of one block", Labels::named("position", names.collect()))
        };
        let values = self.values.concat();
        Chart {
            title: format!(
                "patching {}: {} over {}",
                self.sweep.name(),
                show(patching.token),
                show(patching.versus)
            ),
            doc: format!("{doc} from the clean prompt; 1: logit difference restored, 0: no effect"),
            formula: "(patched − corrupt) / (clean − corrupt)".into(),
            rows: Labels::numbered("layer"),
            columns,
            values: Matrix::new(values, self.rows.len(), self.columns.len()).expect("one value per place"),
            quantity: Quantity::Signed,
            limit: None,
            texts: Vec::new(),
        }
    }
}

/// Two prompts, and the two tokens whose logits are compared.
#[derive(Debug, Clone)]
pub struct Patching {
    pub clean: Arc<Run>,
    pub corrupt: Arc<Run>,
    pub token: u32,
    pub versus: u32,
    /// logit(token) − logit(versus) after the last position of each.
    pub clean_difference: f32,
    pub corrupt_difference: f32,
}

impl Patching {
    /// Without `token` or `versus`: among the ten likeliest tokens of either prompt, those whose
    /// log-probability falls and rises most from the clean to the corrupt prompt.
    ///
    /// # Errors
    /// [`Error::Usage`] if the tokens are outside the vocabulary, the logits were not kept, or the
    /// prompts have the same logit difference, so that there is nothing to recover.
    pub fn new(clean: Arc<Run>, corrupt: Arc<Run>, token: Option<u32>, versus: Option<u32>) -> Result<Self> {
        let (a, b) = (last_logits(&clean)?, last_logits(&corrupt)?);
        for id in [token, versus].into_iter().flatten() {
            clean.model.net.check_ids(&[id])?;
        }
        let (p, q) = (Softmax::new(&a), Softmax::new(&b));
        let fall = |id: u32| p.log_prob(a[id as usize]) - q.log_prob(b[id as usize]);
        let mut likely = Vec::new();
        for run in [&clean, &corrupt] {
            likely.extend(Next::new(run, run.n_tokens() - 1, 10)?.top.iter().map(|candidate| candidate.id));
        }
        let falls = |x: &u32, y: &u32| order(fall(*x), fall(*y)).then(y.cmp(x));
        let ends = || Error::usage("the model's vocabulary is empty");
        let token = token.or_else(|| likely.iter().copied().max_by(falls)).ok_or_else(ends)?;
        let versus = versus.or_else(|| likely.iter().copied().min_by(falls)).ok_or_else(ends)?;
        let difference = |logits: &[f32]| logits[token as usize] - logits[versus as usize];
        let (clean_difference, corrupt_difference) = (difference(&a), difference(&b));
        if clean_difference == corrupt_difference {
            let show = |id: u32| clean.model.tokenizer.show(id);
            return Err(Error::usage(format!(
                "nothing to recover: after both prompts the logit of {} is {} above that of {}; choose \
                 other tokens or prompts",
                show(token),
                num(clean_difference),
                show(versus)
            )));
        }
        Ok(Self { clean, corrupt, token, versus, clean_difference, corrupt_difference })
    }

    /// Whether only the last positions can be patched: the prompts differ in length.
    pub fn only_last(&self) -> bool {
        self.clean.n_tokens() != self.corrupt.n_tokens()
    }

    /// The number of places in a sweep.
    pub fn n_places(&self, sweep: Sweep) -> usize {
        let config = self.corrupt.config();
        let across = match sweep {
            Sweep::Heads => config.n_head,
            _ if self.only_last() => 1,
            _ => self.corrupt.n_tokens(),
        };
        config.n_layer * across
    }

    /// The corrupt run with the clean run's activation at `place`; at the last position of both if
    /// `last`, whatever position the place names.
    ///
    /// # Errors
    /// [`Error::Usage`] for a place out of range, one that the clean run did not keep, or
    /// prompts of different length where positions must match.
    pub fn patched(&self, place: Place, last: bool, keep: HookFilter) -> Result<Run> {
        let config = self.corrupt.config();
        let n = self.corrupt.n_tokens();
        let place = if last { place.target.at(n - 1) } else { place };
        place.check(config, n)?;
        if !last && self.clean.n_tokens() != n {
            return Err(Error::usage(format!(
                "the prompts have {} and {n} tokens: the sweeps {} patch position by position and need equal \
                 length; at the last position alone (--last) each of them works with any",
                self.clean.n_tokens(),
                Sweep::ALL.map(Sweep::name).join(", ")
            )));
        }
        let shift = self.clean.n_tokens() as isize - n as isize;
        let mut transplant = Transplant { from: &self.clean, place, shift };
        self.corrupt.then(self.corrupt.input.clone(), keep, &mut transplant)
    }

    /// How much of the logit difference the patch at `place` restores.
    pub fn recovered(&self, place: Place, last: bool) -> Result<f32> {
        let logits = HookFilter::new(&["logits"], self.corrupt.config())?;
        self.recovery(&self.patched(place, last, logits)?)
    }

    /// The share of the logit difference in a run of the corrupt prompt.
    ///
    /// # Errors
    /// [`Error::Usage`] if its logits were not kept.
    pub fn recovery(&self, patched: &Run) -> Result<f32> {
        let logits = last_logits(patched)?;
        let difference = logits[self.token as usize] - logits[self.versus as usize];
        Ok((difference - self.corrupt_difference) / (self.clean_difference - self.corrupt_difference))
    }

    /// Patches every place of a sweep, one at a time. Before each one, `progress` receives the number
    /// done and the total; an error from it ends the sweep.
    pub fn sweep(
        &self,
        sweep: Sweep,
        last: bool,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Swept> {
        let config = self.corrupt.config();
        let n_tokens = self.corrupt.n_tokens();
        let columns: Vec<_> = match (sweep, last) {
            (Sweep::Heads, _) => (0..config.n_head).collect(),
            (_, true) => vec![n_tokens - 1],
            (_, false) => (0..n_tokens).collect(),
        };
        let rows: Vec<_> = (0..config.n_layer).collect();
        let mut values = Vec::with_capacity(rows.len());
        for &layer in &rows {
            let mut row = Vec::with_capacity(columns.len());
            for &column in &columns {
                progress(layer * columns.len() + row.len(), rows.len() * columns.len())?;
                row.push(self.recovered(sweep.place(layer, column), last)?);
            }
            values.push(row);
        }
        Ok(Swept { sweep, rows, columns, values })
    }
}

fn last_logits(run: &Run) -> Result<Vec<f32>> {
    logits_after(run, run.n_tokens() - 1)
}

/// Puts activations of one run into another.
struct Transplant<'a> {
    from: &'a Run,
    place: Place,
    /// The offset from a position to its source in `from`.
    shift: isize,
}

impl Hooks for Transplant<'_> {
    fn wants(&self, name: HookName) -> bool {
        self.place.target.hooks().any(|hook| hook == name)
    }

    fn first_change(&self) -> Option<HookName> {
        self.place.target.hooks().min()
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let from = self.from.only(name).tensor(name); // also tensors kept only on request
        let from = from.ok_or_else(|| Error::usage(format!("{name} was not captured in the clean run")))?;
        Ok(Some(self.place.transplant(name, x, &from, self.shift)?))
    }
}
