//! Activation patching: how much of one prompt's preference between two tokens is restored when another
//! prompt gets some of its activations.
//!
//! The measure is the logit difference of two tokens at the last position, logit(token) −
//! logit(versus): `recovered` = (patched − corrupt) / (clean − corrupt), 0 if the patch does
//! nothing and 1 if it restores the value of the clean prompt.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::gradients::{Gradients, Metric};
use super::logits::{Next, logits_after, order};
use super::softmax::Softmax;
use super::vary::{Variation, vary};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookFilter, HookName, Hooks, Part, Quantity, Site};
use crate::interventions::{Place, Target};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;
use crate::text::num;

/// What is patched by itself in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Each {
    Position,
    Head,
    Neuron,
}

/// A row of the table of sweeps.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Row {
    name: &'static str,
    site: Site,
    each: Each,
    /// What one cell patches.
    doc: &'static str,
}

const fn row(name: &'static str, site: Site, each: Each, doc: &'static str) -> Row {
    Row { name, site, each, doc }
}

/// *The* table of sweeps.
static SWEEPS: [Row; 10] = [
    row("resid_pre", Site::ResidPre, Each::Position, "the residual stream before one block"),
    row(
        "resid_mid",
        Site::ResidMid,
        Each::Position,
        "the residual stream between attention and MLP of one block",
    ),
    row("attn_out", Site::AttnOut, Each::Position, "what attention of one block adds"),
    row("mlp_out", Site::MlpOut, Each::Position, "what the MLP of one block adds"),
    row("heads", Site::Z, Each::Head, "what one head gathers"),
    row("q", Site::Q, Each::Head, "the queries of one head"),
    row("k", Site::K, Each::Head, "the keys of one head"),
    row("v", Site::V, Each::Head, "the values of one head"),
    row("pattern", Site::Pattern, Each::Head, "the attention pattern of one head"),
    row("neurons", Site::MlpPost, Each::Neuron, "one neuron"),
];

/// The activations to patch, one place at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sweep {
    row: &'static Row,
    /// In this block only; heads then position by position.
    block: Option<usize>,
}

impl Sweep {
    /// Those over all blocks.
    pub fn all() -> impl Iterator<Item = Self> {
        let over_blocks = SWEEPS.iter().filter(|row| row.each != Each::Neuron);
        over_blocks.map(|row| Self { row, block: None })
    }

    /// Those of one block only that are none of all blocks: its heads at each position, and its neurons.
    pub fn of_block(block: usize) -> impl Iterator<Item = Self> {
        let rows = SWEEPS.iter().filter(|row| matches!(row.name, "heads" | "neurons"));
        rows.map(move |row| Self { row, block: Some(block) })
    }

    /// What one cell patches.
    pub fn doc(self) -> String {
        let doc = self.row.doc;
        match (self.row.each, self.block) {
            (Each::Position, _) | (Each::Head, Some(_)) => format!("{doc}, at one position"),
            (Each::Head | Each::Neuron, _) => format!("{doc}, at all positions"),
        }
    }

    /// The only block it patches, if it is one of one block.
    pub fn block(self) -> Option<usize> {
        self.block
    }

    /// `heads`, or `heads.3` in one block.
    pub fn name(self) -> String {
        self.block.map_or_else(|| self.row.name.into(), |block| format!("{}.{block}", self.row.name))
    }

    /// The names, for messages.
    pub fn names() -> String {
        SWEEPS.each_ref().map(|row| row.name).join(", ")
    }

    /// What its rows and columns are called.
    pub fn nouns(self) -> (&'static str, &'static str) {
        match (self.row.each, self.block) {
            (Each::Position, _) => ("layer", "position"),
            (Each::Head, None) => ("layer", "head"),
            (Each::Head, Some(_)) => ("head", "position"),
            (Each::Neuron, _) => ("neuron", "neuron"),
        }
    }

    /// The numbers of its rows and columns, for `positions`. Neurons are in rows of as many as divide them, the row
    /// named by its first.
    fn grid(self, config: &Config, positions: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
        let layers = self.block.map_or_else(|| (0..config.n_layer).collect(), |block| vec![block]);
        match (self.row.each, self.block) {
            (Each::Position, _) => (layers, positions),
            (Each::Head, None) => (layers, (0..config.n_head).collect()),
            (Each::Head, Some(_)) => ((0..config.n_head).collect(), positions),
            (Each::Neuron, _) => {
                let n = config.d_mlp();
                let width = (1..=64).rev().find(|width| n.is_multiple_of(*width)).unwrap_or(1);
                ((0..n).step_by(width).collect(), (0..width).collect())
            }
        }
    }

    /// The place of a cell, by the numbers of its row and column.
    pub fn place(self, row: usize, column: usize) -> Place {
        let site = self.row.site;
        match (self.row.each, self.block) {
            (Each::Position, _) => Target::Tensor(site.at(row)).at(column),
            (Each::Head, None) => Target::Head(site.at(row), column).everywhere(),
            (Each::Head, Some(block)) => Target::Head(site.at(block), row).at(column),
            (Each::Neuron, block) => {
                Target::Neuron { layer: block.unwrap_or(0), neuron: row + column }.everywhere()
            }
        }
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "expected one of {}, or with the number of a block, as heads.3 and neurons.3",
                Self::names()
            )
        };
        let (name, block) = match text.split_once('.') {
            Some((name, block)) => (name, Some(block.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let row = SWEEPS.iter().find(|row| row.name == name).ok_or_else(unknown)?;
        match (row.each, block) {
            (Each::Neuron, None) => {
                Err("neurons are those of one block: give its number, as neurons.3".into())
            }
            _ => Ok(Self { row, block }),
        }
    }
}

/// The recovered logit difference of the places of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    pub sweep: Sweep,
    /// Blocks, or what [`Sweep::place`] takes.
    pub rows: Vec<usize>,
    /// Positions of the corrupt prompt, heads, or what [`Sweep::place`] takes.
    pub columns: Vec<usize>,
    /// Row by row; −inf where a place is still to come.
    pub values: Vec<Vec<f32>>,
}

impl Swept {
    /// The place of a cell.
    pub fn place(&self, row: usize, column: usize) -> Option<Place> {
        Some(self.sweep.place(*self.rows.get(row)?, *self.columns.get(column)?))
    }

    /// Measured and predicted values of the places that are measured.
    pub fn pairs<'a>(&'a self, predicted: &'a Self) -> impl Iterator<Item = (f32, f32)> + Clone + 'a {
        let both = self.values.iter().flatten().zip(predicted.values.iter().flatten());
        both.map(|(measured, predicted)| (*measured, *predicted)).filter(|(measured, _)| measured.is_finite())
    }

    /// Pearson's correlation of the two, with the number of places; `None` for fewer than three, or where
    /// one of the two is the same everywhere.
    pub fn correlation(&self, predicted: &Self) -> Option<(f64, usize)> {
        let pairs: Vec<_> = self.pairs(predicted).map(|(x, y)| (f64::from(x), f64::from(y))).collect();
        let n = pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let sum =
            |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
        let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
        (pairs.len() > 2 && xx > 0.0 && yy > 0.0).then(|| (xy / (xx * yy).sqrt(), pairs.len()))
    }

    pub fn chart(&self, patching: &Patching) -> Chart {
        let run = &patching.corrupt;
        let show = |id: u32| run.model.tokenizer.show(id);
        let (down, across) = self.sweep.nouns();
        let numbers = |all: &[usize]| all.iter().map(ToString::to_string).collect();
        let columns = match across {
            "position" => self.columns.iter().map(|&at| format!("{at} {}", run.token_text(at))).collect(),
            _ if down == across => self.columns.iter().map(|i| format!("+{i}")).collect(),
            _ => numbers(&self.columns),
        };
        let what = self.sweep.doc();
        let values = self.values.concat();
        Chart {
            title: format!(
                "patching {}: {} over {}",
                self.sweep.name(),
                show(patching.token),
                show(patching.versus)
            ),
            doc: format!("{what} from the clean prompt; 1: logit difference restored, 0: no effect"),
            formula: "(patched − corrupt) / (clean − corrupt)".into(),
            rows: Labels::named(down, numbers(&self.rows)),
            columns: Labels::named(across, columns),
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

    /// The rows and columns of a sweep, of the last position alone if `last`.
    fn grid(&self, sweep: Sweep, last: bool) -> (Vec<usize>, Vec<usize>) {
        let n = self.corrupt.n_tokens();
        sweep.grid(self.corrupt.config(), if last { vec![n - 1] } else { (0..n).collect() })
    }

    /// The number of places in a sweep.
    pub fn n_places(&self, sweep: Sweep) -> usize {
        let (rows, columns) = self.grid(sweep, self.only_last());
        rows.len() * columns.len()
    }

    /// The corrupt run with the clean run's activation at `place`; at the last position of both if
    /// `last`, whatever position the place names.
    ///
    /// # Errors
    /// [`Error::Usage`] for a place out of range, one that the clean run did not keep, or
    /// prompts of different length where positions must match.
    pub fn patched(&self, place: Place, last: bool, keep: HookFilter) -> Result<Run> {
        let mut transplant = self.transplant(place, last)?;
        self.corrupt.then(self.corrupt.input.clone(), keep, &mut transplant)
    }

    fn transplant(&self, place: Place, last: bool) -> Result<Transplant<'_>> {
        let config = self.corrupt.config();
        let n = self.corrupt.n_tokens();
        let place = if last { place.target.at(n - 1) } else { place };
        place.check(config, n)?;
        if !last && self.clean.n_tokens() != n {
            return Err(Error::usage(format!(
                "the prompts have {} and {n} tokens: the sweeps {} patch position by position and need equal \
                 length; at the last position alone (--last) each of them works with any",
                self.clean.n_tokens(),
                Sweep::names()
            )));
        }
        let shift = self.clean.n_tokens() as isize - n as isize;
        Ok(Transplant { from: &self.clean, place, shift })
    }

    /// A logit difference as a share of what there is to recover.
    fn share(&self, difference: f32) -> f32 {
        (difference - self.corrupt_difference) / (self.clean_difference - self.corrupt_difference)
    }

    /// How much of the logit difference the patch at `place` restores.
    ///
    /// # Errors
    /// As [`Self::patched`].
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
        Ok(self.share(logits[self.token as usize] - logits[self.versus as usize]))
    }

    /// Patches every place of a sweep by itself, many computed together; where both runs have the same values,
    /// nothing is computed. Before each block of a computation, `progress` receives the number of places that
    /// are done and of all; an error from it ends the sweep. `arrived` sees the sweep each time that it has
    /// more places.
    ///
    /// # Errors
    /// As [`Self::patched`], and the error of `progress`.
    pub fn sweep(
        &self,
        sweep: Sweep,
        last: bool,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
        mut arrived: impl FnMut(&Swept),
    ) -> Result<Swept> {
        let (rows, columns) = self.grid(sweep, last);
        let places = rows.iter().flat_map(|&row| columns.iter().map(move |&column| sweep.place(row, column)));
        let transplants = places.map(|place| self.transplant(place, last)).collect::<Result<Vec<_>>>()?;
        let (n, across) = (transplants.len(), columns.len());
        let mut values = vec![vec![f32::NEG_INFINITY; across]; rows.len()];
        let (mut variations, mut cells) = (Vec::new(), Vec::new());
        for (i, hooks) in transplants.into_iter().enumerate() {
            let cell = (i / across, i % across);
            if hooks.changes(&self.corrupt) {
                cells.push(cell);
                variations.push(Variation { first: hooks.first(), hooks, looks_ahead: false });
            } else {
                values[cell.0][cell.1] = 0.0;
            }
        }
        let same = n - cells.len();
        let mut swept = Swept { sweep, rows, columns, values };
        let net = &self.corrupt.model.net;
        let go_on = |done| progress(same + done, n);
        vary(&self.corrupt, self.corrupt.n_tokens() - 1, variations, go_on, |first, x| {
            let logits = net.logits_of(&x, &[self.token, self.versus])?; // (n, 2)
            let logits: Vec<Vec<f32>> = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2()?;
            for (&(row, column), pair) in cells[first..].iter().zip(logits) {
                swept.values[row][column] = self.share(pair[0] - pair[1]);
            }
            arrived(&swept);
            Ok(())
        })?;
        Ok(swept)
    }
}

impl Patching {
    /// The gradients of the logit difference in the corrupt run: what [`Self::first_order`] reads.
    ///
    /// # Errors
    /// As [`Run::gradients`].
    pub fn gradients(&self) -> Result<Gradients> {
        let at = self.corrupt.n_tokens() - 1;
        self.corrupt.gradients(&Metric::logit(self.token, Some(self.versus), at))
    }

    /// Attribution patching: what the gradients predict that each place of a sweep restores, (clean − corrupt) ·
    /// ∂(logit difference)/∂x in the corrupt run, as a share of what there is to recover.
    ///
    /// # Errors
    /// As [`Self::patched`].
    pub fn first_order(&self, sweep: Sweep, last: bool, gradients: &Gradients) -> Result<Swept> {
        let (rows, columns) = self.grid(sweep, last);
        let recoverable = self.clean_difference - self.corrupt_difference;
        // Of prompts of equal length, a place is a part of one product for its whole tensor.
        let mut whole: HashMap<HookName, Tensor> = HashMap::new();
        let mut value = |row: usize, column: usize| -> Result<f32> {
            let Transplant { place, shift, .. } = self.transplant(sweep.place(row, column), last)?;
            let product = |hook: HookName| -> Result<Tensor> {
                let [to, from] =
                    [&self.corrupt, &self.clean].map(|run| run.cache.fetch(hook, &Part::default()));
                let (to, from) = (to?, from?);
                let put = if shift == 0 { from } else { place.transplant(hook, &to, &from, shift)? };
                Ok(((put - to)? * gradients.part(hook, &Part::default())?)?)
            };
            let mut total = 0.0;
            for hook in place.target.hooks() {
                let mut part = match whole.get(&hook) {
                    Some(known) => known.clone(),
                    None => product(hook)?,
                };
                if shift == 0 {
                    whole.entry(hook).or_insert_with(|| part.clone());
                }
                for (axis, range) in place.ranges(hook, part.dims()).into_iter().enumerate() {
                    part = part.narrow(axis, range.start, range.len())?;
                }
                total += part.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).sum::<f64>();
            }
            Ok(total as f32 / recoverable)
        };
        let mut values = Vec::with_capacity(rows.len());
        for &row in &rows {
            values.push(columns.iter().map(|&column| value(row, column)).collect::<Result<Vec<_>>>()?);
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

impl Transplant<'_> {
    /// The first position that it changes.
    fn first(&self) -> usize {
        let by_rows = self.place.target.hooks().all(|hook| hook.point().axes[0] == Axis::Pos);
        self.place.position.filter(|_| by_rows).unwrap_or(0)
    }

    /// Whether it puts in other values than those of `to`; where that takes long to see, it may.
    fn changes(&self, to: &Run) -> bool {
        let (position, head) = match (self.place.position, self.place.target) {
            (Some(position), Target::Head(_, head)) => (position, Some(head)),
            (Some(position), Target::Tensor(_) | Target::Layer(_) | Target::Feature { .. }) => {
                (position, None)
            }
            _ => return true,
        };
        let bits = |run: &Run, hook: HookName, at: usize| -> Option<Vec<u32>> {
            let x = run.part(hook, &Part { rows: Some(at..at + 1), head }).ok()?;
            Some(x.flatten_all().ok()?.to_vec1::<f32>().ok()?.into_iter().map(f32::to_bits).collect())
        };
        self.place.target.hooks().any(|hook| {
            let by_rows = hook.point().axes[0] == Axis::Pos;
            let known = bits(to, hook, position).filter(|_| by_rows);
            known.is_none() || known != bits(self.from, hook, position.saturating_add_signed(self.shift))
        })
    }
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
