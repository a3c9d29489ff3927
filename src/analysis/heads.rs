//! What each attention head does on a run, as numbers.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use super::View;
use super::base::WithBase;
use crate::error::{Error, Result};
use crate::hooks::{Quantity, Site};
use crate::model::Model;
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::run::{Input, Run};
use crate::text::count;

/// A number about a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    PrevToken,
    Duplicate,
    Induction,
    FirstToken,
    Distance,
    Entropy,
    ZNorm,
}

impl Metric {
    pub const ALL: [Self; 7] = [
        Self::PrevToken,
        Self::Duplicate,
        Self::Induction,
        Self::FirstToken,
        Self::Distance,
        Self::Entropy,
        Self::ZNorm,
    ];

    /// As on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrevToken => "prev_token",
            Self::Duplicate => "duplicate",
            Self::Induction => "induction",
            Self::FirstToken => "first_token",
            Self::Distance => "distance",
            Self::Entropy => "entropy_bits",
            Self::ZNorm => "z_norm",
        }
    }

    /// The name in text.
    pub fn title(self) -> &'static str {
        match self {
            Self::PrevToken => "previous token",
            Self::Duplicate => "duplicate token",
            Self::Induction => "induction",
            Self::FirstToken => "first token",
            Self::Distance => "distance",
            Self::Entropy => "entropy",
            Self::ZNorm => "‖z‖",
        }
    }

    /// The same as one word.
    pub fn word(self) -> &'static str {
        self.title().trim_end_matches(" token")
    }

    /// The same in a few letters.
    pub fn short(self) -> &'static str {
        match self {
            Self::PrevToken => "prev",
            Self::Duplicate => "dup",
            Self::Induction => "ind",
            Self::FirstToken => "first",
            other => other.word(),
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Distance => "tokens",
            Self::Entropy => "bits",
            _ => "",
        }
    }

    pub fn doc(self) -> &'static str {
        match self {
            Self::PrevToken => "share of attention on the previous token",
            Self::Duplicate => "share of attention on earlier copies of the same token",
            Self::Induction => "share of attention on the tokens after earlier copies of the token",
            Self::FirstToken => "share of attention on the first token",
            Self::Distance => "mean distance of attention, in tokens",
            Self::Entropy => "mean entropy of attention, over queries",
            Self::ZNorm => "mean norm of z, over positions",
        }
    }

    pub fn formula(self) -> &'static str {
        match self {
            Self::PrevToken => "Σ pattern[q, q−1] / Σ pattern",
            Self::Duplicate => "Σ pattern[q, k] / Σ pattern, over k < q with the token of q",
            Self::Induction => "Σ pattern[q, k+1] / Σ pattern, over k < q with the token of q",
            Self::FirstToken => "mean over q of pattern[q, 0]",
            Self::Distance => "mean over q of Σ pattern[q, k] (q − k)",
            Self::Entropy => "mean over q of −Σ pattern[q, k] log₂ pattern[q, k]",
            Self::ZNorm => "mean over positions of ‖hook_z‖₂",
        }
    }

    fn quantity(self) -> Quantity {
        match self {
            Self::Distance | Self::Entropy | Self::ZNorm => Quantity::Positive,
            _ => Quantity::Probability,
        }
    }
}

/// The numbers of one head, in the order of [`Metric::ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    pub layer: usize,
    pub head: usize,
    values: [f32; Metric::ALL.len()],
}

impl Scores {
    pub fn get(&self, metric: Metric) -> f32 {
        self.values[metric as usize]
    }
}

/// What the first three scores exclude, as in TransformerLens's `detect_head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exclude {
    /// Attention to position 0.
    pub bos: bool,
    /// Attention of a token to itself.
    pub current_token: bool,
}

/// Every head of a model on one run, layer by layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Atlas {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_tokens: usize,
    /// The number of runs whose numbers are averaged.
    pub n_samples: usize,
    pub heads: Vec<Scores>,
    pub exclude: Exclude,
    /// Shares of queries that have a previous token, an earlier copy, and a token after that.
    most: [f32; 3],
}

/// The share of attention from which a score says what a head does.
const MOST_OF_IT: f32 = 0.4;

impl Atlas {
    /// What a head does, if most of its attention is on one kind of token: the largest of the first four scores.
    pub fn job(&self, layer: usize, head: usize) -> Option<(Metric, f32)> {
        let scores = self.heads.get(layer * self.n_head + head)?;
        let jobs = [Metric::PrevToken, Metric::Duplicate, Metric::Induction, Metric::FirstToken];
        let of = |metric| (metric, scores.get(metric));
        let most = jobs.map(of).into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(most).filter(|(_, share)| *share >= MOST_OF_IT)
    }

    /// Measures the heads of `run`, whose patterns and `z` must have been kept.
    ///
    /// `prev_token`, `duplicate` and `induction` are those of TransformerLens's `detect_head` with
    /// its error measure "mul": the share of all attention of the head, over all queries, that is
    /// on the cells of the detection pattern. The weights are used as they are: nothing is folded.
    ///
    /// # Errors
    /// [`Error::Usage`] if a tensor was not kept.
    pub fn new(run: &Run, exclude: Exclude) -> Result<Self> {
        let (n_layer, n_head) = (run.config().n_layer, run.config().n_head);
        let copies = earlier_copies(&run.tokens);
        let scores = |i: usize| -> Result<Scores> {
            let (layer, head) = (i / n_head, i % n_head);
            let pattern = View::hook(Site::Pattern.at(layer), head).matrix(run)?;
            let z = View::hook(Site::Z.at(layer), head).matrix(run)?;
            let [previous, duplicate, induction, first, distance, entropy] =
                of_pattern(&pattern, &copies, exclude);
            let values = [previous, duplicate, induction, first, distance, entropy, mean_norm(&z)];
            Ok(Scores { layer, head, values: values.map(|x| x as f32) })
        };
        let share = |n: usize| n as f32 / run.n_tokens() as f32;
        let repeats = share(copies.iter().filter(|earlier| !earlier.is_empty()).count());
        Ok(Self {
            n_layer,
            n_head,
            n_tokens: run.n_tokens(),
            n_samples: 1,
            heads: (0..n_layer * n_head).into_par_iter().map(scores).collect::<Result<_>>()?,
            exclude,
            most: [share(run.n_tokens() - 1), repeats, repeats],
        })
    }

    /// The mean over samples of as many tokens each; `None` if there are none.
    pub fn mean(samples: &[Self]) -> Option<Self> {
        let n = samples.len();
        let mean = |values: &dyn Fn(&Self) -> f32| {
            (samples.iter().map(|sample| f64::from(values(sample))).sum::<f64>() / n as f64) as f32
        };
        let first = samples.first()?;
        let scores = |(i, scores): (usize, &Scores)| Scores {
            values: std::array::from_fn(|metric| mean(&|sample| sample.heads[i].values[metric])),
            ..*scores
        };
        Some(Self {
            n_samples: n,
            heads: first.heads.iter().enumerate().map(scores).collect(),
            most: std::array::from_fn(|i| mean(&|sample| sample.most[i])),
            ..first.clone()
        })
    }

    /// The same of this run and of its base, if there is one.
    pub fn with_base(run: &Run, base: Option<&Run>, exclude: Exclude) -> Result<WithBase<Self>> {
        WithBase::ask(run, base, |run, _| Self::new(run, exclude))
    }

    pub fn get(&self, layer: usize, head: usize) -> &Scores {
        &self.heads[layer * self.n_head + head]
    }

    /// The largest score that the prompt allows: a token without an earlier copy cannot
    /// count as one. `None` if there is no such bound.
    pub fn most(&self, metric: Metric) -> Option<f32> {
        match metric {
            Metric::PrevToken | Metric::Duplicate | Metric::Induction => {
                let nothing_excluded = self.exclude == Exclude::default();
                Some(if nothing_excluded { self.most[metric as usize] } else { 1.0 })
            }
            Metric::FirstToken => Some(1.0),
            Metric::Distance | Metric::Entropy | Metric::ZNorm => None,
        }
    }

    /// The heads by a metric, largest first; NaN last.
    pub fn ranked(&self, metric: Metric) -> Vec<&Scores> {
        let mut heads: Vec<_> = self.heads.iter().collect();
        let key = |scores: &Scores| {
            let x = scores.get(metric);
            if x.is_nan() { f32::NEG_INFINITY } else { x }
        };
        heads.sort_by(|a, b| key(b).total_cmp(&key(a)));
        heads
    }

    /// The atlas for one metric: a row per layer, a column per head.
    pub fn chart(&self, metric: Metric) -> Chart {
        let values = self.heads.iter().map(|scores| scores.get(metric)).collect();
        let unit = if metric.unit().is_empty() { String::new() } else { format!(", {}", metric.unit()) };
        let samples =
            if self.n_samples == 1 { String::new() } else { format!("{} samples of ", self.n_samples) };
        Chart {
            title: format!("heads: {}{unit}", metric.title()),
            doc: format!("{}, over {}{} (raw weights)", metric.doc(), samples, count(self.n_tokens, "token")),
            formula: metric.formula().into(),
            rows: Labels::numbered("layer"),
            columns: Labels::numbered("head"),
            values: Matrix::new(values, self.n_layer, self.n_head).expect("one value per head"),
            quantity: metric.quantity(),
            limit: self.most(metric).filter(|most| *most > 0.0),
            texts: Vec::new(),
        }
    }
}

/// For each position, the earlier positions with the same token.
pub(crate) fn earlier_copies(tokens: &[u32]) -> Vec<Vec<usize>> {
    let before =
        |(query, token): (usize, &u32)| (0..query).filter(|&key| tokens[key] == *token).collect::<Vec<_>>();
    tokens.iter().enumerate().map(before).collect()
}

/// Previous token, duplicate, induction, first token, distance, entropy.
pub(crate) fn of_pattern(pattern: &Matrix, copies: &[Vec<usize>], exclude: Exclude) -> [f64; 6] {
    pattern.read(|rows| {
        let mut on = [0.0; 3];
        let (mut counted, mut first, mut distance, mut entropy) = (0.0, 0.0, 0.0, 0.0);
        for (query, earlier) in copies.iter().enumerate() {
            let row = &rows.get(query)[..=query];
            let kept = |key: usize| {
                let out = (exclude.bos && key == 0) || (exclude.current_token && key == query);
                if out { 0.0 } else { f64::from(row[key]) }
            };
            for (key, &p) in row.iter().enumerate() {
                let p = f64::from(p);
                counted += kept(key);
                distance += p * (query - key) as f64;
                entropy -= if p == 0.0 { 0.0 } else { p * p.log2() };
            }
            first += f64::from(row[0]);
            on[0] += query.checked_sub(1).map_or(0.0, kept);
            on[1] += earlier.iter().map(|&key| kept(key)).sum::<f64>();
            on[2] += earlier.iter().map(|&key| kept(key + 1)).sum::<f64>();
        }
        let n = copies.len() as f64;
        [on[0] / counted, on[1] / counted, on[2] / counted, first / n, distance / n, entropy / n]
    })
}

fn mean_norm(z: &Matrix) -> f64 {
    let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    z.read(|rows| (0..z.n_rows).map(|r| norm(&rows.get(r))).sum::<f64>()) / z.n_rows as f64
}

/// `n` tokens drawn at random from the whole vocabulary of `model`, repeated once. This
/// shows induction heads independently of what they know about text. The same on every machine.
///
/// # Errors
/// [`Error::Usage`] for `n` = 0, or more than fit the context twice.
pub fn repeated_random(model: &Model, n: usize, seed: u64, bos: bool) -> Result<Input> {
    let config = model.config();
    let most = (config.n_positions - usize::from(bos)) / 2;
    let holds =
        format!("they are run twice, and this model's context holds {}", count(config.n_positions, "token"));
    if most == 0 {
        return Err(Error::usage(format!("there is no room for random tokens: {holds}")));
    }
    Error::check("random token count", n, 1..most + 1)
        .map_err(|why| Error::usage(format!("{why}: {holds}")))?;
    let mut random = StdRng::seed_from_u64(seed);
    let vocab = config.vocab_size as u32;
    let half: Vec<u32> = (0..n).map(|_| random.random_range(0..vocab)).collect();
    Ok(Input::ids(half.repeat(2)).with_bos(bos))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn copies_are_those_before() {
        assert_eq!(earlier_copies(&[7, 8, 7, 7]), [vec![], vec![], vec![0], vec![0, 2]]);
    }

    #[test]
    fn scores_are_shares_of_attention() {
        // Each query reads its earlier copies, or itself.
        let pattern =
            [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.75, 0.25, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]];
        let pattern = Matrix::new(pattern.concat(), 4, 4).unwrap();
        let copies = earlier_copies(&[7, 8, 7, 7]);
        let all = of_pattern(&pattern, &copies, Exclude::default());
        let entropy_of_two = -(0.75f64 * 0.75f64.log2() + 0.25 * 0.25f64.log2());
        let expected = [0.75, 1.75, 0.25 + 0.0, 2.25, 1.75 + 2.0, entropy_of_two + 1.0].map(|sum| sum / 4.0);
        for (got, want) in all.iter().zip(expected) {
            assert!((got - want).abs() < 1e-12, "{all:?} for {expected:?}");
        }
        let exclude = Exclude { bos: true, current_token: true };
        let [previous, duplicate, ..] = of_pattern(&pattern, &copies, exclude);
        assert_eq!([previous, duplicate], [0.75 / 0.75, 0.5 / 0.75]);
    }

    #[test]
    fn random_tokens_are_the_same_everywhere() {
        let model = Model::demo();
        let ids = |n, seed| repeated_random(&model, n, seed, false).unwrap().tokens(&model).unwrap();
        assert_eq!(ids(4, 0), PINNED);
        assert_ne!(ids(4, 1), ids(4, 0));
        for n in [0, 129] {
            let said = repeated_random(&model, n, 0, false).unwrap_err().to_string();
            assert!(said.contains("(1 to 128)"), "{said}");
        }
        assert!(repeated_random(&model, 128, 0, true).is_err());
    }

    /// Drawn once; the generator must not change under us.
    const PINNED: [u32; 8] = [1641, 1497, 1137, 1584, 1641, 1497, 1137, 1584];

    #[test]
    fn no_head_exceeds_what_the_prompt_allows() {
        let model = Arc::new(Model::demo());
        let run = Run::all(&model, repeated_random(&model, 20, 3, false).unwrap()).unwrap();
        let atlas = Atlas::new(&run, Exclude::default()).unwrap();
        for metric in Metric::ALL {
            let ranked = atlas.ranked(metric);
            assert!(ranked.is_sorted_by(|a, b| a.get(metric) >= b.get(metric)));
            if let Some(most) = atlas.most(metric) {
                assert!(ranked[0].get(metric) <= most + 1e-5, "{metric:?}");
            }
            let chart = atlas.chart(metric);
            assert_eq!(chart.values.row(3)[2], atlas.get(3, 2).get(metric));
        }
    }
}
