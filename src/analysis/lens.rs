//! The logit lens: what the network would predict if a residual stream left the last block.
//!
//! After nostalgebraist, "interpreting GPT: the logit lens" (2020). The weights are used as they
//! are: all of ln_f (mean, scale, weight and bias) is applied before the unembedding.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::View;
use super::base::WithBase;
use super::logits::{Candidate, rank, top};
use super::softmax::{Softmax, mean_difference};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Quantity, Site};
use crate::model::FittedLens;
use crate::model::fitted::lens::Kind;
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;

/// The number of logits held at a time: a few rows, whose memory is used again and again.
const AT_ONCE: usize = 1 << 22;

/// The residual streams that the lens reads, in data-flow order: the input of block 0, then after
/// each block's attention and after its MLP.
pub fn hooks(config: &Config) -> Vec<HookName> {
    let blocks = (0..config.n_layer).flat_map(|l| [Site::ResidMid.at(l), Site::ResidPost.at(l)]);
    std::iter::once(Site::ResidPre.at(0)).chain(blocks).collect()
}

/// The residual streams that a lens reads: the logit lens, or one that was fitted.
pub fn hooks_of(config: &Config, through: Option<&FittedLens>) -> Vec<HookName> {
    through.map_or_else(|| hooks(config), |lens| lens.hooks(config))
}

/// The name of a lens; `None` is the logit lens.
pub fn name_of(through: Option<Kind>) -> &'static str {
    through.map_or("logit lens", Kind::name)
}

/// A lens of a model: the logit lens, or one that was fitted to it, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    #[default]
    Logit,
    Fitted(usize),
}

impl Which {
    /// The fitted lens; `None` for the logit lens.
    pub fn of(self, run: &Run) -> Option<&FittedLens> {
        match self {
            Self::Logit => None,
            Self::Fitted(index) => run.model.lenses().get(index),
        }
    }
}

/// The short name of a residual stream, and its block; `embed` is `resid_pre` of block 0.
pub fn site(hook: HookName) -> (&'static str, Option<usize>) {
    match hook.site {
        Site::ResidPre if hook.layer == Some(0) => ("embed", None),
        _ => (hook.point().short, hook.layer),
    }
}

/// The label of a row: `embed`, `0 mid`, `0 post`.
pub fn label(hook: HookName) -> String {
    match site(hook) {
        (name, Some(layer)) => format!("{layer} {}", name.trim_start_matches("resid_")),
        (name, None) => name.to_owned(),
    }
}

/// A number of the lens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Show {
    /// The likeliest token, and its probability.
    #[default]
    Top,
    /// The probability of the chosen token, or of the final answer.
    Prob,
    /// Its rank.
    Rank,
    Entropy,
    Kl,
}

impl Show {
    pub const ALL: [Self; 5] = [Self::Top, Self::Prob, Self::Rank, Self::Entropy, Self::Kl];

    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Prob => "token_prob",
            Self::Rank => "token_rank",
            Self::Entropy => "entropy_bits",
            Self::Kl => "kl",
        }
    }

    /// A description of a cell; `token` is the chosen one, for display.
    pub fn doc(self, token: Option<&str>) -> String {
        let token = token.unwrap_or("the final answer");
        match self {
            Self::Top => "the likeliest next token, coloured by its probability".into(),
            Self::Prob => format!("probability of {token}"),
            Self::Rank => format!("rank of {token}, 1 is the likeliest"),
            Self::Entropy => "entropy of the next token, in bits".into(),
            Self::Kl => "D(final ‖ lens): distance from the final probabilities, in nats".into(),
        }
    }

    fn formula(self) -> &'static str {
        match self {
            Self::Top | Self::Prob | Self::Rank => "softmax(ln_f(resid) · W_U)",
            Self::Entropy => "−Σ p log₂ p, p = softmax(ln_f(resid) · W_U)",
            Self::Kl => "Σ p_final ln(p_final / p), p = softmax(ln_f(resid) · W_U)",
        }
    }
}

/// What one row of a residual stream predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub hook: HookName,
    pub position: usize,
    pub entropy_bits: f32,
    /// D(final ‖ lens) in nats, where final is the network's own prediction.
    pub kl: f32,
    /// The chosen token, or the final answer.
    pub token: Candidate,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Candidate>,
}

impl Reading {
    /// One of its numbers.
    pub fn get(&self, show: Show) -> f32 {
        match show {
            Show::Top => self.top.first().map_or(f32::NAN, |first| first.prob),
            Show::Prob => self.token.prob,
            Show::Rank => self.token.rank as f32,
            Show::Entropy => self.entropy_bits,
            Show::Kl => self.kl,
        }
    }
}

/// A residual stream at a position.
pub type Cell = (HookName, usize);

/// Readings at `hooks` × `positions`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lens {
    pub hooks: Vec<HookName>,
    pub positions: Range<usize>,
    /// The chosen token.
    pub token: Option<u32>,
    /// Hook by hook, in data-flow order; while incomplete, those that are ready.
    pub readings: Vec<Reading>,
    /// What the streams go through before ln_f; `None` for the logit lens.
    pub through: Option<Kind>,
}

impl Lens {
    /// Reads the residual streams of `hooks` at `positions`, with the `k` likeliest tokens of each,
    /// and follows `token`, or the final answer. Only these rows are unembedded, some at
    /// a time, so that at most 32 MB of logits are held besides the final ones.
    ///
    /// # Errors
    /// [`Error::Usage`] for positions out of range, a token outside the vocabulary, or if a
    /// residual stream or the logits were not kept.
    pub fn new(
        run: &Run,
        hooks: &[HookName],
        positions: Range<usize>,
        token: Option<u32>,
        k: usize,
    ) -> Result<Self> {
        Ok(Self::with_base(run, None, hooks, positions, token, k)?.of)
    }

    /// The same through a lens that was fitted to the model, if one is given, and of a base: all that it reads.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn through(
        run: &Run,
        base: Option<&Run>,
        lens: Option<&FittedLens>,
        positions: Range<usize>,
        token: Option<u32>,
        k: usize,
    ) -> Result<WithBase<Self>> {
        let WithBase { of, base } = Reader::with_base(run, base, positions.clone(), token, k)?;
        let reader = WithBase { of: of.through(lens), base: base.map(|base| base.through(lens)) };
        Self::read(reader, &hooks_of(run.config(), lens), positions, token)
    }

    /// The same through a lens, and as its base through another one: of all residual streams that the first reads, so
    /// that their difference is what the first changes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn between(
        run: &Run,
        (lens, other): (Option<&FittedLens>, Option<&FittedLens>),
        positions: Range<usize>,
        token: Option<u32>,
        k: usize,
    ) -> Result<WithBase<Self>> {
        let WithBase { of, base } = Reader::with_base(run, Some(run), positions.clone(), token, k)?;
        let reader = WithBase { of: of.through(lens), base: base.map(|base| base.through(other)) };
        Self::read(reader, &hooks_of(run.config(), lens), positions, token)
    }

    /// The same of this run and of its base, if there is one: where no token is chosen, both follow
    /// what is likeliest there in the end.
    pub fn with_base(
        run: &Run,
        base: Option<&Run>,
        hooks: &[HookName],
        positions: Range<usize>,
        token: Option<u32>,
        k: usize,
    ) -> Result<WithBase<Self>> {
        let reader = Reader::with_base(run, base, positions.clone(), token, k)?;
        Self::read(reader, hooks, positions, token)
    }

    fn read(
        mut reader: WithBase<Reader>,
        hooks: &[HookName],
        positions: Range<usize>,
        token: Option<u32>,
    ) -> Result<WithBase<Self>> {
        let kind = |reader: &Reader| reader.through.map(|lens| lens.kind);
        let (through, base) = (kind(&reader.of), reader.base.as_ref().map(kind));
        let mut by_hook = vec![Vec::with_capacity(positions.len()); hooks.len()];
        let at_once = (AT_ONCE / reader.of.run.config().vocab_size).max(1);
        let mut start = positions.start;
        while start < positions.end {
            let chunk = start..(start + at_once).min(positions.end);
            for (readings, &hook) in by_hook.iter_mut().zip(hooks) {
                let cells: Vec<_> = chunk.clone().map(|position| (hook, position)).collect();
                readings.extend(reader.read(&cells)?);
            }
            reader.forget();
            start = chunk.end;
        }
        let readings = by_hook.concat();
        let lens = |readings, through| Self {
            hooks: hooks.to_vec(),
            positions: positions.clone(),
            token,
            readings,
            through,
        };
        let before =
            |through| lens(readings.iter().filter_map(|reading| reading.base.clone()).collect(), through);
        Ok(WithBase {
            base: base.map(before),
            of: lens(readings.iter().map(|reading| reading.of.clone()).collect(), through),
        })
    }

    /// The readings known so far.
    pub fn known<'a>(
        hooks: &[HookName],
        positions: Range<usize>,
        token: Option<u32>,
        reading: impl Fn(Cell) -> Option<&'a Reading>,
    ) -> Self {
        let mut lens = Self { hooks: hooks.to_vec(), positions, token, readings: Vec::new(), through: None };
        lens.readings = lens.cells().filter_map(reading).cloned().collect();
        lens
    }

    /// All that it is about.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + use<'_> {
        self.hooks.iter().flat_map(|&hook| self.positions.clone().map(move |position| (hook, position)))
    }

    /// Whether all readings are ready.
    pub fn is_whole(&self) -> bool {
        self.readings.len() == self.hooks.len() * self.positions.len()
    }

    /// The reading of a hook at a position, if ready.
    pub fn get(&self, hook: HookName, position: usize) -> Option<&Reading> {
        let at = |reading: &Reading| (reading.hook, reading.position);
        let found = self.readings.binary_search_by_key(&(hook, position), at);
        found.ok().map(|i| &self.readings[i])
    }

    /// A row per residual stream, a column per position; −inf if the reading is not
    /// ready.
    pub fn chart(&self, run: &Run, show: Show) -> Chart {
        let tokenizer = &run.model.tokenizer;
        let chosen = self.token.map(|token| tokenizer.show(token));
        let readings: Vec<_> = self.cells().map(|(hook, position)| self.get(hook, position)).collect();
        let text = |reading: &Reading| match show {
            Show::Top => reading.top.first().map_or_else(String::new, |c| tokenizer.show(c.id)),
            _ => reading.token.rank.to_string(),
        };
        let texts = match show {
            Show::Top | Show::Rank => {
                readings.iter().map(|reading| reading.map(text).unwrap_or_default()).collect()
            }
            _ => Vec::new(),
        };
        let value = |reading: Option<&Reading>| reading.map_or(f32::NEG_INFINITY, |it| it.get(show));
        let values = readings.into_iter().map(value).collect();
        let (quantity, limit) = match show {
            Show::Top | Show::Prob => (Quantity::Probability, Some(1.0)),
            Show::Rank => (Quantity::Rank, Some(run.config().vocab_size as f32)),
            Show::Entropy => (Quantity::Positive, Some((run.config().vocab_size as f32).log2())),
            Show::Kl => (Quantity::Positive, None),
        };
        Chart {
            title: format!("{}: {}", name_of(self.through), show.name().replace('_', " ")),
            doc: format!("{}, at each layer (raw weights)", show.doc(chosen.as_deref())),
            formula: show.formula().into(),
            rows: Labels::named("after", self.hooks.iter().map(|&hook| label(hook)).collect()),
            columns: Labels::named("position", self.positions.clone().map(|p| run.token_text(p)).collect()),
            values: Matrix::new(values, self.hooks.len(), self.positions.len())
                .expect("one reading per cell"),
            quantity,
            limit,
            texts,
        }
    }
}

impl WithBase<Lens> {
    /// See [`Lens::chart`]; `between`: the base is read through another lens.
    pub fn chart(&self, run: &Run, show: Show, between: bool) -> Chart {
        let chart = self.shown(|lens| lens.chart(run, show));
        let Some(base) = self.base.as_ref().filter(|_| between) else { return chart };
        let names = [&self.of, base].map(|lens| name_of(lens.through));
        Chart { title: format!("{} − {}: {}", names[0], names[1], show.name().replace('_', " ")), ..chart }
    }
}

/// Reads residual streams of a run, some cells at a time.
pub struct Reader<'a> {
    run: &'a Run,
    token: Option<u32>,
    k: usize,
    /// The final predictions, by position.
    finals: HashMap<usize, Final>,
    /// What residual streams go through first.
    through: Option<&'a FittedLens>,
}

impl<'a> Reader<'a> {
    /// For cells at `positions`; see [`Lens::new`].
    ///
    /// # Errors
    /// [`Error::Usage`] for positions out of range, or a token outside the vocabulary.
    pub fn new(run: &'a Run, positions: Range<usize>, token: Option<u32>, k: usize) -> Result<Self> {
        Error::check_all("position", &positions, run.n_tokens())?;
        token.map_or(Ok(()), |token| run.model.net.check_ids(&[token]))?;
        Ok(Self { run, token, k, finals: HashMap::new(), through: None })
    }

    /// For this run and for its base, if there is one.
    pub fn with_base(
        run: &'a Run,
        base: Option<&'a Run>,
        positions: Range<usize>,
        token: Option<u32>,
        k: usize,
    ) -> Result<WithBase<Self>> {
        let of = |run| Self::new(run, positions.clone(), token, k);
        Ok(WithBase { of: of(run)?, base: base.map(of).transpose()? })
    }

    /// The same through a lens that was fitted to the model.
    #[must_use]
    pub fn through(self, lens: Option<&'a FittedLens>) -> Self {
        Self { through: lens, ..self }
    }

    /// The readings of some cells, in order; each follows its own token, if given,
    /// unless one was chosen for all.
    ///
    /// # Errors
    /// [`Error::Usage`] if a residual stream or the logits were not kept.
    pub fn read(&mut self, cells: &[Cell], tokens: Option<&[u32]>) -> Result<Vec<Reading>> {
        self.answer(cells)?;
        // The run itself has unembedded the output of the last block.
        let last = Site::ResidPost.at(self.run.config().n_layer - 1);
        let others: Vec<_> = cells.iter().copied().filter(|cell| cell.0 != last).collect();
        let logits = if others.is_empty() { None } else { Some(unembed(self.run, self.through, &others)?) };
        let mut rows = 0..;
        let places: Vec<_> =
            cells.iter().map(|&cell| (cell, if cell.0 == last { None } else { rows.next() })).collect();
        let read = |(i, &(cell, row)): (usize, &(Cell, Option<usize>))| {
            let answer = &self.finals[&cell.1];
            let own = tokens.map_or(answer.likeliest as u32, |tokens| tokens[i]);
            let token = self.token.unwrap_or(own);
            match (row, &logits) {
                (Some(row), Some(logits)) => {
                    logits.read(|logits| reading(cell, &logits.get(row), answer, token, self.k))
                }
                _ => reading(cell, &answer.logits, answer, token, self.k),
            }
        };
        Ok(places.par_iter().enumerate().map(read).collect())
    }

    /// Computes the final predictions at the positions of `cells`, if not yet known.
    fn answer(&mut self, cells: &[Cell]) -> Result<()> {
        let unknown = cells.iter().map(|cell| cell.1).filter(|at| !self.finals.contains_key(at));
        let Some((first, end)) = unknown.fold(None, |range: Option<(usize, usize)>, at| {
            Some(range.map_or((at, at + 1), |(first, end)| (first.min(at), end.max(at + 1))))
        }) else {
            return Ok(());
        };
        let logits = View::hook(Site::Logits.once(), 0).rows(self.run, first..end)?;
        let finals: Vec<_> = logits.read(|rows| {
            (first..end).into_par_iter().map(|at| (at, Final::new(&rows.get(at - first)))).collect()
        });
        self.finals.extend(finals);
        Ok(())
    }

    /// Drops the final predictions, each of which takes as much memory as two rows of logits.
    fn forget(&mut self) {
        self.finals.clear();
    }
}

impl WithBase<Reader<'_>> {
    /// Both readings of some cells, in order, following the same tokens.
    pub fn read(&mut self, cells: &[Cell]) -> Result<Vec<WithBase<Reading>>> {
        let Some(base) = &mut self.base else {
            let read = self.of.read(cells, None)?.into_iter();
            return Ok(read.map(|of| WithBase { of, base: None }).collect());
        };
        let before = base.read(cells, None)?;
        let tokens: Vec<_> = before.iter().map(|reading| reading.token.id).collect();
        let after = self.of.read(cells, Some(&tokens))?;
        Ok(after.into_iter().zip(before).map(|(of, base)| WithBase { of, base: Some(base) }).collect())
    }

    fn forget(&mut self) {
        self.of.forget();
        if let Some(base) = &mut self.base {
            base.forget();
        }
    }
}

/// The logits of some rows of residual streams, computed like those of the network itself.
fn unembed(run: &Run, through: Option<&FittedLens>, cells: &[Cell]) -> Result<Matrix> {
    let net = &run.model.net;
    let rows = |group: &[Cell]| {
        let positions = || group.iter().map(|cell| cell.1);
        let (first, end) = (positions().min().unwrap_or(0), positions().max().unwrap_or(0) + 1);
        let part = run.part(group[0].0, &Part::rows(first..end))?;
        let index: Vec<_> = positions().map(|at| (at - first) as u32).collect();
        let rows = part.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?;
        through.map_or(Ok(rows.clone()), |lens| lens.translate(group[0].0, &rows))
    };
    let resid = cells.chunk_by(|a, b| a.0 == b.0).map(rows).collect::<Result<Vec<_>>>()?;
    let resid = Tensor::cat(&resid, 0)?.to_device(net.device())?.to_dtype(net.dtype())?;
    Matrix::of(&net.unembed(&resid)?)
}

/// A final prediction, prepared for many comparisons.
struct Final {
    logits: Vec<f32>,
    softmax: Softmax,
    probs: Vec<f32>,
    likeliest: usize,
}

impl Final {
    fn new(logits: &[f32]) -> Self {
        let softmax = Softmax::new(logits);
        Self {
            logits: logits.to_vec(),
            probs: softmax.probs(logits),
            likeliest: top(logits, 1).first().copied().unwrap_or(0),
            softmax,
        }
    }

    /// Σ p_final (final − logits): the KL divergence without the two normalisers.
    fn mean_difference(&self, logits: &[f32]) -> f64 {
        mean_difference(&self.probs, &self.logits, logits)
    }
}

fn reading((hook, position): Cell, logits: &[f32], answer: &Final, token: u32, k: usize) -> Reading {
    let softmax = Softmax::new(logits);
    let candidate = |rank: usize, id: usize| Candidate {
        rank,
        id: id as u32,
        logit: logits[id],
        prob: softmax.prob(logits[id]) as f32,
    };
    let kl = answer.mean_difference(logits) + (softmax.log_sum() - answer.softmax.log_sum());
    Reading {
        hook,
        position,
        entropy_bits: softmax.entropy_bits() as f32,
        kl: kl as f32,
        token: candidate(rank(logits, token as usize), token as usize),
        top: top(logits, k).into_iter().enumerate().map(|(i, id)| candidate(i + 1, id)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Input, Model};

    fn run() -> Run {
        Run::all(&Arc::new(Model::demo()), Input::text("The old man and the sea, and the old")).unwrap()
    }

    #[test]
    fn some_positions_are_read_as_among_all() {
        let run = run();
        let n = run.n_tokens();
        let [all, some] = [0..n, n / 2..n]
            .map(|positions| Lens::new(&run, &hooks(run.config()), positions, None, 2).unwrap());
        for reading in &some.readings {
            let same = all.get(reading.hook, reading.position).unwrap();
            assert_eq!((same.top[0].id, same.token.id), (reading.top[0].id, reading.token.id));
            assert!((same.kl - reading.kl).abs() < 1e-4);
        }
    }

    #[test]
    fn after_the_last_block_it_is_the_logits_to_the_bit() {
        let run = run();
        let last = *hooks(run.config()).last().unwrap();
        let cells: Vec<_> = (0..run.n_tokens()).map(|position| (last, position)).collect();
        let seen = unembed(&run, None, &cells).unwrap();
        let logits = View::hook(Site::Logits.once(), 0).matrix(&run).unwrap();
        for position in 0..run.n_tokens() {
            assert_eq!(seen.row(position), logits.row(position));
        }
        let lens = Lens::new(&run, &[last], 0..run.n_tokens(), None, 3).unwrap();
        for reading in &lens.readings {
            assert_eq!((reading.kl, reading.token.rank), (0.0, 1));
            assert_eq!(reading.token.id, reading.top[0].id);
            let next = super::super::logits::Next::new(&run, reading.position, 3).unwrap();
            assert_eq!(reading.top, next.top);
            assert_eq!(reading.entropy_bits, next.entropy_bits as f32);
        }
    }

    #[test]
    fn a_part_is_part_of_the_whole() {
        let run = run();
        let hooks = hooks(run.config());
        let whole = Lens::new(&run, &hooks, 0..run.n_tokens(), Some(17), 2).unwrap();
        let part = Lens::new(&run, &hooks[2..4], 3..6, Some(17), 2).unwrap();
        for reading in &part.readings {
            let same = whole.get(reading.hook, reading.position).unwrap();
            assert!((reading.entropy_bits - same.entropy_bits).abs() < 1e-4);
            assert_eq!((reading.token.id, reading.token.rank), (17, same.token.rank));
        }
        assert!(part.get(hooks[2], 2).is_none() && part.get(hooks[4], 3).is_none());
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let run = run();
        let hooks = hooks(run.config());
        assert_eq!(
            hooks.iter().map(|&hook| label(hook)).collect::<Vec<_>>()[..3],
            ["embed", "0 mid", "0 post"]
        );
        let n = run.n_tokens();
        assert!(
            Lens::new(&run, &hooks, 0..n + 1, None, 1)
                .unwrap_err()
                .to_string()
                .contains("out of range (0 to ")
        );
        assert!(
            Lens::new(&run, &hooks, 0..n, Some(9999), 1).unwrap_err().to_string().contains("(0 to 2047)")
        );
        let bare = run.only(Site::Logits.once());
        assert!(Lens::new(&bare, &hooks, 0..n, None, 1).unwrap_err().to_string().contains("not captured"));
    }
}
