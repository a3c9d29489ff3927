//! The predictions of the next token, and the surprise of each.

use std::cmp::Ordering;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling as Candle};
use rayon::prelude::*;

use super::View;
use super::base::WithBase;
use super::softmax::Softmax;
use crate::error::{Error, Result};
use crate::hooks::{Quantity, Site};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::Run;

/// Rows of logits that are computed together if all are wanted: as many as a product takes while it reads W_U
/// once, 13 MB for GPT-2's vocabulary.
pub const ROWS_AT_ONCE: usize = 66;

/// A candidate for the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// 1 for the likeliest.
    pub rank: usize,
    pub id: u32,
    pub logit: f32,
    pub prob: f32,
}

/// The prediction at one position.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    pub position: usize,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Candidate>,
    /// The actual next token in the prompt, if any.
    pub actual: Option<Candidate>,
    pub entropy_bits: f64,
}

impl Next {
    /// The `k` likeliest tokens after `position`; needs the logits in the run's cache.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position out of range, or logits that were not kept.
    pub fn new(run: &Run, position: usize, k: usize) -> Result<Self> {
        Ok(Self::with_base(run, None, position, k)?.of)
    }

    /// The same of this run and of its base, if there is one: then of the tokens whose probability
    /// moved most, in that order.
    pub fn with_base(run: &Run, base: Option<&Run>, position: usize, k: usize) -> Result<WithBase<Self>> {
        let after = logits_after(run, position)?;
        let before = base.map(|base| Ok::<_, Error>((base, logits_after(base, position)?))).transpose()?;
        let before = before.as_ref().map(|(base, logits)| (*base, &logits[..]));
        Ok(Self::from_logits((run, &after), before, position, k))
    }

    /// The same after each of `positions`, whose logits are computed together.
    ///
    /// # Errors
    /// [`Error::Usage`] for positions out of range, or logits that were not kept.
    pub fn after_each(
        run: &Run,
        base: Option<&Run>,
        positions: Range<usize>,
        k: usize,
    ) -> Result<Vec<WithBase<Self>>> {
        let logits = |run: &Run| {
            Error::check_all("position", &positions, run.n_tokens())?;
            View::hook(Site::Logits.once(), 0).rows(run, positions.clone())
        };
        let (after, before) =
            (logits(run)?, base.map(|base| Ok::<_, Error>((base, logits(base)?))).transpose()?);
        let next = |(row, position)| {
            let before = before.as_ref().map(|(base, logits)| (*base, logits.row(row)));
            let before = before.as_ref().map(|(base, logits)| (*base, &logits[..]));
            Self::from_logits((run, &after.row(row)), before, position, k)
        };
        Ok(positions.clone().enumerate().collect::<Vec<_>>().into_par_iter().map(next).collect())
    }

    fn from_logits(
        (run, after): (&Run, &[f32]),
        base: Option<(&Run, &[f32])>,
        position: usize,
        k: usize,
    ) -> WithBase<Self> {
        let Some((base, before)) = base else {
            let ids: Vec<_> = top(after, k).into_iter().enumerate().map(|(i, id)| (i + 1, id)).collect();
            return WithBase { of: Self::of(run, position, after, &ids), base: None };
        };
        let [p, q] = [Softmax::new(before), Softmax::new(after)];
        let moved = |(a, b): (&f32, &f32)| (q.prob(*b) - p.prob(*a)).abs() as f32;
        let moved: Vec<f32> = before.iter().zip(after).map(moved).collect();
        // If nothing changed, the likeliest.
        let still = moved.iter().all(|x| *x == 0.0);
        let ids = top(if still { after } else { &moved }, k);
        let of = |run, logits: &[f32]| {
            let ids: Vec<_> = ids.iter().map(|&id| (rank(logits, id), id)).collect();
            Self::of(run, position, logits, &ids)
        };
        WithBase { of: of(run, after), base: Some(of(base, before)) }
    }

    /// Predictions after each of some positions as a chart: a line for each of the first `n_ranks`, a column per
    /// position, the tokens in the cells.
    pub fn chart(nexts: &[WithBase<Self>], n_ranks: usize, run: &Run) -> Chart {
        let n_ranks = nexts.iter().map(|next| next.of.top.len()).min().unwrap_or(0).min(n_ranks);
        let differs = nexts.iter().any(WithBase::differs);
        let cells = || (0..n_ranks).flat_map(|rank| nexts.iter().map(move |next| (next, rank)));
        let values: Vec<_> = cells().map(|(next, rank)| next.shown(|next| next.top[rank].prob)).collect();
        // Where no token is likely, colours up to 1 would hide that some are likelier than others.
        let is_flat = values.iter().all(|prob| *prob < 0.1);
        let names = nexts.iter().map(|next| run.token_text(next.of.position)).collect();
        Chart {
            title: "predictions".into(),
            doc: "the likeliest tokens after each position".into(),
            formula: "softmax(logits)".into(),
            rows: Labels::named("rank", (1..=n_ranks).map(|rank| rank.to_string()).collect()),
            columns: Labels::named("after", names),
            values: Matrix::new(values, n_ranks, nexts.len()).expect("a value per cell"),
            quantity: if differs { Quantity::Signed } else { Quantity::Probability },
            limit: Some(1.0).filter(|_| !differs && !is_flat),
            texts: cells().map(|(next, rank)| run.model.tokenizer.show(next.of.top[rank].id)).collect(),
        }
    }

    /// Candidates for some tokens, given by rank and id.
    fn of(run: &Run, position: usize, logits: &[f32], ids: &[(usize, usize)]) -> Self {
        let softmax = Softmax::new(logits);
        let candidate = |(rank, id): (usize, usize)| Candidate {
            rank,
            id: id as u32,
            logit: logits[id],
            prob: softmax.prob(logits[id]) as f32,
        };
        let next = run.tokens.get(position + 1).map(|&id| id as usize);
        let actual = next.map(|id| candidate((rank(logits, id), id)));
        let top = ids.iter().copied().map(candidate).collect();
        Self { position, top, actual, entropy_bits: softmax.entropy_bits() }
    }
}

/// What `run` answers after the token at `position`: (V).
///
/// # Errors
/// [`Error::Usage`] for a position that there is not, or logits that were not kept.
pub(super) fn logits_after(run: &Run, position: usize) -> Result<Vec<f32>> {
    Error::check("position", position, 0..run.n_tokens())?;
    Ok(View::hook(Site::Logits.once(), 0).rows(run, position..position + 1)?.row(0))
}

/// The logits of rows that left `ln_f`, (n, C).
pub(super) fn logits(run: &Run, x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let net = &run.model.net;
    let logits = net.ops.logits(x, &net.unembed)?; // (n, V)
    Ok(logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2()?)
}

/// How well the earlier tokens predicted a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surprise {
    /// −log₂ of its probability.
    pub bits: f32,
    pub rank: usize,
    /// The likeliest token in its place, and the probability of that one.
    pub expected: (u32, f32),
}

/// The surprise of each token; `None` for the first, which nothing predicts, and for all if
/// the logits were not captured.
pub fn surprises(run: &Run) -> Vec<Option<Surprise>> {
    surprises_after(run, Vec::new(), || Ok(())).unwrap_or_else(|_| vec![None; run.n_tokens()])
}

/// The same if those of the first tokens are `known`. Logits are held for some rows at a time;
/// before each group, `go_on` can end the computation.
///
/// # Errors
/// The error of `go_on`, and [`Error::Usage`] if the logits were not captured.
pub fn surprises_after(
    run: &Run,
    known: Vec<Option<Surprise>>,
    go_on: impl Fn() -> Result<()>,
) -> Result<Vec<Option<Surprise>>> {
    let mut surprises = known;
    surprises.resize(surprises.len().max(1), None);
    while surprises.len() < run.n_tokens() {
        let first = surprises.len() - 1;
        let rows = first..(first + ROWS_AT_ONCE).min(run.n_tokens() - 1);
        let next = &run.tokens[rows.start + 1..=rows.end];
        go_on()?;
        let logits = View::hook(Site::Logits.once(), 0).rows(run, rows)?;
        logits.read(|rows| {
            let of = |(i, &id): (usize, &u32)| {
                let row = &*rows.get(i);
                let softmax = Softmax::new(row);
                let bits = -softmax.prob(row[id as usize]).log2();
                let likeliest = top(row, 1).first().copied().unwrap_or_default();
                let expected = (likeliest as u32, softmax.prob(row[likeliest]) as f32);
                Some(Surprise { bits: bits as f32, rank: rank(row, id as usize), expected })
            };
            surprises.par_extend(next.par_iter().enumerate().map(of));
        });
    }
    surprises.truncate(run.n_tokens());
    Ok(surprises)
}

/// Ascending, with NaN as the greatest number whatever its sign, as in `torch.topk`: what is
/// broken is seen first.
pub fn order(a: impl Into<f64>, b: impl Into<f64>) -> Ordering {
    let (a, b) = (a.into(), b.into());
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The `k` largest logits, largest first, by index; see [`order`].
pub fn top(logits: &[f32], k: usize) -> Vec<usize> {
    /// Most pieces of this length have nothing that is larger, which is quick to see.
    const PIECE: usize = 64;
    let mut best: Vec<usize> = Vec::new();
    for (piece, values) in logits.chunks(PIECE).enumerate() {
        let last = best.last().map_or(f32::NEG_INFINITY, |&last| logits[last]);
        let larger = |x: &f32| u32::from(*x > last || x.is_nan());
        if best.len() >= k && values.iter().map(larger).sum::<u32>() == 0 {
            continue;
        }
        for (i, x) in (piece * PIECE..).zip(values) {
            if best.len() < k || best.last().is_some_and(|&last| order(*x, logits[last]).is_gt()) {
                let at = best.partition_point(|&better| order(logits[better], *x).is_ge());
                best.insert(at, i);
                best.truncate(k);
            }
        }
    }
    best
}

/// 1 + the number of larger logits; see [`order`].
pub fn rank(logits: &[f32], id: usize) -> usize {
    let own = logits[id];
    if own.is_nan() {
        return 1;
    }
    let larger = |x: &f32| u32::from(*x > own || x.is_nan());
    1 + logits.iter().map(larger).sum::<u32>() as usize
}

/// How the next token is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Temperature; 0: always the likeliest.
    pub temperature: f64,
    /// Only the k likeliest.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability.
    pub top_p: Option<f64>,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl Sampling {
    /// Samples a token to append to `run`; the same run and settings give the same token.
    ///
    /// # Errors
    /// [`Error::Usage`] if the logits were not kept, or give no probabilities.
    pub fn draw(&self, run: &Run) -> Result<u32> {
        self.drawn(run).map(|(id, _)| id)
    }

    /// The same, with the token's log-probability in nats, at temperature 1 and among all tokens.
    ///
    /// # Errors
    /// Those of [`Self::draw`].
    pub fn drawn(&self, run: &Run) -> Result<(u32, f64)> {
        let n = run.n_tokens();
        let mut logits = logits_after(run, n - 1)?;
        let softmax = Softmax::new(&logits);
        if !softmax.sum.is_finite() {
            return Err(Error::usage(
                "no token can be drawn: after the last one the logits are NaN or infinite, which gives no \
                 probabilities",
            ));
        }
        // So that none overflows when divided by the temperature.
        for logit in &mut logits {
            *logit -= softmax.max;
        }
        let shifted = Tensor::new(&logits[..], &Device::Cpu)?;
        let temperature = self.temperature;
        let how = match (self.top_k, self.top_p) {
            _ if temperature <= 0.0 => Candle::ArgMax,
            (None, None) => Candle::All { temperature },
            (Some(k), None) => Candle::TopK { k, temperature },
            (None, Some(p)) => Candle::TopP { p, temperature },
            (Some(k), Some(p)) => Candle::TopKThenTopP { k, p, temperature },
        };
        // Each length has its own seed, so that sampling several tokens does not repeat a draw.
        let seed = self.seed.wrapping_add(n as u64);
        let id = LogitsProcessor::from_sampling(seed, how).sample(&shifted)?;
        Ok((id, softmax.log_prob(logits[id as usize] + softmax.max)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::interventions::{Change, Target};
    use crate::{Input, Model};

    fn run() -> Run {
        Run::all(&Arc::new(Model::demo()), Input::text("The man said to the")).unwrap()
    }

    #[test]
    fn top_agrees_with_the_probabilities_of_the_run() {
        let run = run();
        let probs = View::hook(Site::Probs.once(), 0).matrix(&run).unwrap();
        for position in 0..run.n_tokens() {
            let next = Next::new(&run, position, 10).unwrap();
            let probs = probs.row(position);
            assert_eq!(next.top.len(), 10);
            for pair in next.top.windows(2) {
                assert!(pair[0].prob >= pair[1].prob && pair[0].rank + 1 == pair[1].rank);
            }
            for c in &next.top {
                assert!((c.prob - probs[c.id as usize]).abs() < 1e-5);
                assert_eq!(c.rank, 1 + probs.iter().filter(|&&p| p > probs[c.id as usize]).count());
            }
        }
        assert!(Next::new(&run, run.n_tokens(), 1).is_err());
    }

    #[test]
    fn surprise_is_the_actual_tokens_of_the_position_before() {
        let run = run();
        let surprises = surprises(&run);
        assert_eq!(surprises[0], None);
        for (position, surprise) in surprises.iter().enumerate().skip(1) {
            let actual = Next::new(&run, position - 1, 1).unwrap().actual.unwrap();
            let surprise = surprise.unwrap();
            assert_eq!(surprise.rank, actual.rank);
            assert!((surprise.bits + actual.prob.log2()).abs() < 1e-4);
        }
    }

    #[test]
    fn divergence_and_entropy_are_those_of_the_probabilities() {
        let (p, q) = ([1.0f32, -2.0, 0.5, f32::NEG_INFINITY], [0.0f32, 3.0, -1.0, 0.25]);
        let probs = |x: &[f32]| {
            let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            x.iter().map(|&x| f64::from(x).exp() / sum).collect::<Vec<_>>()
        };
        let (of_p, of_q) = (probs(&p), probs(&q));
        let terms = of_p.iter().zip(&of_q).filter(|(p, _)| **p > 0.0);
        let want: f64 = terms.map(|(p, q)| p * (p / q).ln()).sum();
        let kl = |p: &[f32], q: &[f32]| Softmax::new(p).kl(p, q, &Softmax::new(q));
        assert!((kl(&p, &q) - want).abs() < 1e-12);
        assert_eq!(kl(&p, &p), 0.0);
        assert_eq!(kl(&q, &p), f64::INFINITY);
        let entropy: f64 = of_q.iter().map(|p| -p * p.log2()).sum();
        assert!((Softmax::new(&q).entropy_bits() - entropy).abs() < 1e-12);
        assert!((Softmax::new(&q).log_prob(3.0) - of_q[1].ln()).abs() < 1e-12);
        assert_eq!([top(&p, 2), top(&p, 9), top(&p, 0)], [vec![0, 2], vec![0, 2, 1, 3], vec![]]);
    }

    #[test]
    fn nan_is_ranked_like_the_greatest_number() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let logits = [1.0, inf, nan, -inf, -nan, 2.0];
        assert_eq!(top(&logits, 9), [2, 4, 1, 5, 0, 3]);
        assert_eq!(top(&logits, 1), [2]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|id| rank(&logits, id)), [5, 3, 1, 6, 1, 4]);
    }

    /// The demo model with its logits times these factors, one after the other.
    fn scaled(factors: &[f32]) -> Run {
        let scale = |factor| Change::Scale(Target::Tensor(Site::Logits.once()).everywhere(), factor);
        let changes = factors.iter().copied().map(scale).collect();
        let input = Input::text("The man said to the").with_interventions(changes);
        Run::all(&Arc::new(Model::demo()), input).unwrap()
    }

    #[test]
    fn nothing_is_drawn_from_what_is_no_distribution() {
        // ±inf, and NaN for 0 times those.
        for broken in [scaled(&[1e38, 1e38]), scaled(&[1e38, 1e38, 0.0])] {
            for temperature in [0.0, 1.0] {
                let sampling = Sampling { temperature, top_k: Some(3), ..Sampling::default() };
                let said = sampling.draw(&broken).unwrap_err().to_string();
                assert!(said.starts_with("no token can be drawn: "), "{said}");
            }
        }
        let huge = scaled(&[1e36]);
        let likeliest = Next::new(&huge, huge.n_tokens() - 1, 1).unwrap().top[0].id;
        for temperature in [0.0, 1e-9, 1.0] {
            let sampling = Sampling { temperature, ..Sampling::default() };
            assert_eq!(sampling.draw(&huge).unwrap(), likeliest);
        }
    }

    #[test]
    fn drawing_keeps_to_its_settings() {
        let run = run();
        let next = Next::new(&run, run.n_tokens() - 1, 3).unwrap();
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(greedy.draw(&run).unwrap(), next.top[0].id);
        for seed in 0..20 {
            let drawn = Sampling { top_k: Some(3), seed, ..Sampling::default() }.draw(&run).unwrap();
            assert!(next.top.iter().any(|c| c.id == drawn));
            assert_eq!(drawn, Sampling { top_k: Some(3), seed, ..Sampling::default() }.draw(&run).unwrap());
        }
    }
}
