//! What the network expects next, and how surprised it was.

use candle_transformers::generation::{LogitsProcessor, Sampling as Candle};

use super::{View, stats::largest};
use crate::error::{Error, Result};
use crate::hooks::Site;
use crate::run::Run;

/// One token that may come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// 1 for the likeliest.
    pub rank: usize,
    pub id: u32,
    pub logit: f32,
    pub prob: f32,
}

/// What the logits at one position say.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    pub position: usize,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Candidate>,
    /// The token that does come next in the prompt, if there is one.
    pub actual: Option<Candidate>,
    pub entropy_bits: f64,
}

impl Next {
    /// The `k` likeliest tokens after `position`; needs the logits in the run's cache.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position that there is not, or logits that were not kept.
    pub fn new(run: &Run, position: usize, k: usize) -> Result<Self> {
        if position >= run.n_tokens() {
            return Err(Error::usage(format!(
                "there is no position {position}: positions are 0..={}",
                run.n_tokens() - 1
            )));
        }
        let logits = View::hook(Site::Logits.once(), 0).matrix(run)?.row(position);
        let softmax = Softmax::new(&logits);
        let candidate = |rank: usize, id: usize| Candidate {
            rank,
            id: id as u32,
            logit: logits[id],
            prob: softmax.prob(logits[id]) as f32,
        };
        // Shifted so that the largest logit is the largest in size.
        let heights: Vec<f32> = logits.iter().map(|x| (x - softmax.max).exp()).collect();
        let top = largest(&heights, k.min(logits.len()));
        let top = top.iter().enumerate().map(|(i, &(id, _))| candidate(i + 1, id)).collect();
        let actual =
            run.tokens.get(position + 1).map(|&id| candidate(rank(&logits, id as usize), id as usize));
        Ok(Self { position, top, actual, entropy_bits: softmax.entropy_bits(&logits) })
    }
}

/// How a token was expected from the tokens before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surprise {
    /// −log₂ of its probability.
    pub bits: f32,
    pub rank: usize,
}

/// The surprise of each token; `None` for the first, which nothing comes before, and for all if
/// the logits were not kept.
pub fn surprises(run: &Run) -> Vec<Option<Surprise>> {
    let none = vec![None; run.n_tokens()];
    let Ok(logits) = View::hook(Site::Logits.once(), 0).matrix(run) else { return none };
    logits.read(|rows| {
        let of = |(position, &id): (usize, &u32)| {
            let row = rows.get(position.checked_sub(1)?);
            let bits = -Softmax::new(row).prob(row[id as usize]).log2();
            Some(Surprise { bits: bits as f32, rank: rank(row, id as usize) })
        };
        run.tokens.iter().enumerate().map(of).collect()
    })
}

/// 1 + how many logits are larger.
fn rank(logits: &[f32], id: usize) -> usize {
    1 + logits.iter().filter(|&&x| x > logits[id]).count()
}

/// exp(x − max) / sum, in float64.
struct Softmax {
    max: f32,
    sum: f64,
}

impl Softmax {
    fn new(logits: &[f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
        Self { max, sum }
    }

    fn prob(&self, logit: f32) -> f64 {
        f64::from(logit - self.max).exp() / self.sum
    }

    fn entropy_bits(&self, logits: &[f32]) -> f64 {
        let terms = logits.iter().map(|&x| self.prob(x)).filter(|&p| p > 0.0);
        terms.map(|p| -p * p.log2()).sum()
    }
}

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest.
    pub temperature: f64,
    /// Only the k likeliest.
    pub top_k: Option<usize>,
    /// Only the likeliest that together reach this probability.
    pub top_p: Option<f64>,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl Sampling {
    /// A token to follow the last of `run`; the same run and settings give the same token.
    ///
    /// # Errors
    /// [`Error::Usage`] when the logits were not kept, [`Error::Tensor`] when none can be drawn.
    pub fn draw(&self, run: &Run) -> Result<u32> {
        let logits = run.tensor(Site::Logits.once());
        let logits = logits.ok_or_else(|| Error::usage("the logits were not captured in this run"))?;
        let temperature = self.temperature;
        let how = match (self.top_k, self.top_p) {
            _ if temperature <= 0.0 => Candle::ArgMax,
            (None, None) => Candle::All { temperature },
            (Some(k), None) => Candle::TopK { k, temperature },
            (None, Some(p)) => Candle::TopP { p, temperature },
            (Some(k), Some(p)) => Candle::TopKThenTopP { k, p, temperature },
        };
        let last = logits.get(run.n_tokens() - 1)?;
        // Each length has its own seed, so that drawing several tokens does not repeat one draw.
        let seed = self.seed.wrapping_add(run.n_tokens() as u64);
        Ok(LogitsProcessor::from_sampling(seed, how).sample(&last)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
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
