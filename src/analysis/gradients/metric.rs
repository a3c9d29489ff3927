//! Metrics: the numbers of a run whose gradients can be asked.

use std::f64::consts::LN_2;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::analysis::softmax::Softmax;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Made, Part, Site, TensorName};
use crate::model::Model;
use crate::model::fitted::dictionary::OfFeatures;
use crate::run::Run;

/// A number that follows from a run. Logarithms are natural, so that losses are in nats.
///
/// | text | number |
/// |---|---|
/// | `logit:TOKEN[@POS]` | the logit of a token after a position |
/// | `logit_diff:A,B[@POS]` | logit of A − logit of B |
/// | `logprob:TOKEN[@POS]` | ln p(TOKEN) |
/// | `loss[:A..B]` | the mean of −ln p over the tokens A..B of the prompt, each predicted from those before it; by default all but the first |
/// | `entropy[@POS]` | −Σ p ln p |
/// | `value:HOOK[i,j,…]` | an element of a tensor, or the sum of those that `*` or missing indices leave open |
///
/// TOKEN is text or an id, POS the last position by default.
#[derive(Debug, Clone)]
pub struct Metric {
    of: Of,
}

#[derive(Debug, Clone)]
enum Of {
    /// Σ factor · logit, of some tokens.
    Logits {
        tokens: Vec<(u32, f64)>,
        at: usize,
    },
    LogProb {
        token: u32,
        at: usize,
    },
    /// Of the tokens in this range.
    Loss {
        tokens: Range<usize>,
    },
    /// Of these tokens, one after each position.
    Targets {
        targets: Arc<Vec<u32>>,
    },
    Entropy {
        at: usize,
    },
    /// D(p ‖ q), for the log-probabilities of another run's p.
    Kl {
        log_p: Arc<Vec<f32>>,
        at: usize,
    },
    /// `reads` is the tensor that it follows from: itself, or what its dictionary reads.
    Value {
        name: TensorName,
        reads: HookName,
        index: Vec<Option<usize>>,
    },
}

impl Metric {
    /// The logit of a token after a position, minus that of another, if one is given.
    pub fn logit(token: u32, versus: Option<u32>, at: usize) -> Self {
        let minus = versus.map(|versus| (versus, -1.0));
        Self { of: Of::Logits { tokens: std::iter::once((token, 1.0)).chain(minus).collect(), at } }
    }

    /// ln p of a token after a position.
    pub fn log_prob(token: u32, at: usize) -> Self {
        Self { of: Of::LogProb { token, at } }
    }

    /// The mean of −ln p of a token after each position, whether or not it is the next of the prompt.
    pub fn loss_of(targets: Vec<u32>) -> Self {
        Self { of: Of::Targets { targets: Arc::new(targets) } }
    }

    /// D(p ‖ q) in nats after a position: how far the predictions q of the run whose gradients are asked are from
    /// those of `run`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position out of range, or logits that were not captured.
    pub fn kl_from(run: &Run, at: usize) -> Result<Self> {
        Error::check("position", at, 0..run.n_tokens())?;
        let logits = logits(run, at..at + 1)?.remove(0);
        let log_sum = Softmax::new(&logits).log_sum();
        let log_p = logits.into_iter().map(|x| (f64::from(x) - log_sum) as f32).collect();
        Ok(Self { of: Of::Kl { log_p: Arc::new(log_p), at } })
    }

    /// The sum of a part of a tensor, as in `value:HOOK[i,j,…]`.
    pub fn value_of(hook: HookName, index: impl IntoIterator<Item = Option<usize>>) -> Self {
        Self { of: Of::Value { name: hook.into(), reads: hook, index: index.into_iter().collect() } }
    }

    /// Parses a metric of runs of `n_tokens` tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] that names what is wrong: an unknown metric, token, hook, position or index.
    pub fn parse(text: &str, model: &Model, n_tokens: usize) -> Result<Self> {
        let named = |why: Error| Error::usage(format!("--metric {text}: {why}"));
        let of = parse(text, model, n_tokens).map_err(named)?;
        let metric = Self { of };
        metric.check(model.config(), n_tokens).map_err(named)?;
        Ok(metric)
    }

    /// The position whose predictions it reads, if it is one.
    pub fn position(&self) -> Option<usize> {
        match self.of {
            Of::Logits { at, .. } | Of::LogProb { at, .. } | Of::Entropy { at } | Of::Kl { at, .. } => {
                Some(at)
            }
            Of::Loss { .. } | Of::Targets { .. } | Of::Value { .. } => None,
        }
    }

    /// Checks it against the size of a run.
    pub(super) fn check(&self, config: &Config, n_tokens: usize) -> Result<()> {
        if let Some(at) = self.position() {
            Error::check("position", at, 0..n_tokens)?;
        }
        match &self.of {
            Of::Logits { tokens, .. } => tokens
                .iter()
                .try_for_each(|(id, _)| Error::check("token id", *id as usize, 0..config.vocab_size)),
            Of::LogProb { token, .. } => Error::check("token id", *token as usize, 0..config.vocab_size),
            Of::Loss { tokens } if tokens.is_empty() || tokens.start == 0 || tokens.end > n_tokens => {
                Err(Error::usage(match n_tokens {
                    0 | 1 => "a loss needs two tokens: nothing predicts the first".to_owned(),
                    n => format!("tokens A..B from 1 to {n}, A before B: nothing predicts token 0"),
                }))
            }
            Of::Value { name, index, .. } => {
                let axes = name.axes();
                if index.len() > axes.len() {
                    let problem = format!("{name} has {} axes, not {}", axes.len(), index.len());
                    return Err(Error::usage(problem));
                }
                let mut each = axes.iter().zip(index);
                each.try_for_each(|(axis, i)| {
                    i.map_or(Ok(()), |i| Error::check(axis.noun(), i, 0..axis.len(config, n_tokens)))
                })
            }
            Of::Targets { targets } if targets.len() != n_tokens => {
                Err(Error::usage(format!("there are {} targets for {n_tokens} tokens", targets.len())))
            }
            Of::Targets { targets } => {
                targets.iter().try_for_each(|id| Error::check("token id", *id as usize, 0..config.vocab_size))
            }
            Of::Loss { .. } | Of::Entropy { .. } | Of::Kl { .. } => Ok(()),
        }
    }

    /// The number itself.
    ///
    /// # Errors
    /// [`Error::Usage`] if what it reads was not captured.
    pub fn value(&self, run: &Run) -> Result<f64> {
        if let Of::Value { name, index, .. } = &self.of {
            let whole = run.fetch(*name, &Part::default())?;
            let values = part(&whole, index)?.flatten_all()?.to_vec1::<f32>()?;
            return Ok(values.into_iter().map(f64::from).sum());
        }
        let mut total = 0.0;
        for rows in self.pieces() {
            total += self.of_rows(&logits(run, rows.clone())?, rows, run);
        }
        Ok(total)
    }

    /// The number, and its gradient for what `ln_f` makes, (T, C), where only the unembedding follows from it:
    /// logits are computed once. `None` for a metric of another tensor.
    pub(super) fn of_unembedded(&self, run: &Run) -> Result<Option<(f64, Tensor)>> {
        let net = &run.model.net;
        let whole = Tensor::zeros((run.n_tokens(), net.config.n_embd), net.dtype(), net.device())?;
        let mut total = 0.0;
        for rows in self.pieces() {
            let logits = logits(run, rows.clone())?;
            total += self.of_rows(&logits, rows.clone(), run);
            // Few of their gradients are not 0.
            let g = if let Of::Logits { tokens, .. } = &self.of {
                let (ids, factors): (Vec<_>, Vec<_>) = tokens.iter().map(|&(id, by)| (id, by as f32)).unzip();
                let factors = Tensor::new(&factors[..], net.device())?.to_dtype(net.dtype())?.unsqueeze(0)?;
                factors.matmul(&net.unembed.rows(&ids)?.contiguous()?)? // (1, C)
            } else {
                let g = self.slopes(&logits, rows.clone(), run)?.to_device(net.device())?;
                net.ops.logits_back(&g.to_dtype(net.dtype())?, &net.unembed)? // (n, V) · W_Uᵀ: (n, C)
            };
            whole.slice_set(&g, 0, rows.start)?;
        }
        Ok(if self.rows().is_empty() { None } else { Some((total, whole)) })
    }

    /// What it reads of a tensor itself: its gradient where nothing else follows from the tensor; `None` is 0.
    pub(super) fn reads(&self, name: HookName, run: &Run) -> Result<Option<Tensor>> {
        match &self.of {
            Of::Value { name: of, reads, index } if *reads == name => {
                let zeros = Tensor::zeros(of.shape(run.config(), run.n_tokens()), DType::F32, &Device::Cpu)?;
                let ranges = ranges(zeros.dims(), index);
                let Some(dictionary) = of.made.and_then(|_| run.model.dictionary_of(of.hook)) else {
                    let ones = part(&zeros, index)?.ones_like()?;
                    return Ok(Some(zeros.slice_assign(&ranges, &ones)?));
                };
                dictionary.check_back()?;
                let x = run.cache.fetch(name, &Part::default())?;
                let features = dictionary.encode(&x)?;
                let of_row = |(t, row): (usize, &Vec<(u32, f32)>)| {
                    let read = row.iter().map(|one| one.0).filter(|f| ranges[1].contains(&(*f as usize)));
                    read.filter(|_| ranges[0].contains(&t)).map(|feature| (feature, 1.0)).collect()
                };
                let of_each: OfFeatures = features.rows.iter().enumerate().map(of_row).collect();
                Ok(Some(dictionary.encode_back(&features, &of_each)?.reshape(x.dims())?))
            }
            Of::Value { .. } => Ok(None),
            _ if name == Site::Logits.once() => {
                let whole = (run.n_tokens(), run.config().vocab_size);
                let zeros = Tensor::zeros(whole, DType::F32, &Device::Cpu)?;
                for rows in self.pieces() {
                    zeros.slice_set(
                        &self.slopes(&logits(run, rows.clone())?, rows.clone(), run)?,
                        0,
                        rows.start,
                    )?;
                }
                Ok(Some(zeros))
            }
            _ => Ok(None),
        }
    }

    /// The rows of the logits that it reads; none if it reads another tensor.
    fn rows(&self) -> Range<usize> {
        match &self.of {
            Of::Loss { tokens } => tokens.start - 1..tokens.end - 1,
            Of::Targets { targets } => 0..targets.len(),
            _ => self.position().map_or(0..0, |at| at..at + 1),
        }
    }

    /// The same, a few at a time: rows of logits are long.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        const AT_ONCE: usize = 128;
        let rows = self.rows();
        rows.clone().step_by(AT_ONCE).map(move |first| first..rows.end.min(first + AT_ONCE))
    }

    /// What some rows of the logits add to the number.
    fn of_rows(&self, logits: &[Vec<f32>], rows: Range<usize>, run: &Run) -> f64 {
        let values = logits.par_iter().zip(rows).map(|(logits, row)| self.of_row(logits, row, run));
        values.collect::<Vec<_>>().into_iter().sum::<f64>() / self.rows().len() as f64
    }

    /// The gradient of some rows of the logits, (n, V).
    fn slopes(&self, logits: &[Vec<f32>], rows: Range<usize>, run: &Run) -> Result<Tensor> {
        let (n, v) = (rows.len(), run.config().vocab_size);
        let mut out = vec![0f32; n * v];
        let each = out.par_chunks_mut(v.max(1)).zip(logits).zip(rows);
        each.for_each(|((out, logits), row)| self.slope(logits, row, run, out));
        Ok(Tensor::from_vec(out, (n, v), &Device::Cpu)?)
    }

    /// The metric of the logits of one row.
    fn of_row(&self, logits: &[f32], row: usize, run: &Run) -> f64 {
        let softmax = || Softmax::new(logits);
        match &self.of {
            Of::Logits { tokens, .. } => {
                tokens.iter().map(|&(id, factor)| factor * f64::from(logits[id as usize])).sum()
            }
            Of::LogProb { token, .. } => softmax().log_prob(logits[*token as usize]),
            Of::Loss { .. } => -softmax().log_prob(logits[run.tokens[row + 1] as usize]),
            Of::Targets { targets } => -softmax().log_prob(logits[targets[row] as usize]),
            Of::Entropy { .. } => softmax().entropy_bits() * LN_2,
            Of::Kl { log_p, .. } => {
                let softmax = softmax();
                let known = log_p.iter().zip(logits).filter(|(log_p, _)| **log_p != f32::NEG_INFINITY);
                let each = known.map(|(&log_p, &logit)| {
                    let log_p = f64::from(log_p);
                    log_p.exp() * (log_p - softmax.log_prob(logit))
                });
                each.sum()
            }
            Of::Value { .. } => 0.0,
        }
    }

    /// Its gradient for the logits of one row.
    fn slope(&self, logits: &[f32], row: usize, run: &Run, out: &mut [f32]) {
        let softmax = Softmax::new(logits);
        // p − 1[token], without the rounding of the difference to 1.
        let minus_one = |out: &mut [f32], token: usize| {
            out.copy_from_slice(&softmax.probs(logits));
            let others = softmax.log_prob(logits[token]).exp_m1();
            out[token] = others as f32;
        };
        let times = |out: &mut [f32], factor: f32| out.iter_mut().for_each(|x| *x *= factor);
        match &self.of {
            Of::Logits { tokens, .. } => {
                for &(id, by) in tokens {
                    out[id as usize] += by as f32;
                }
            }
            // ∂ ln p(a) = 1[a] − p
            Of::LogProb { token, .. } => {
                minus_one(out, *token as usize);
                times(out, -1.0);
            }
            // ∂(−ln p(a)) = p − 1[a], of each of the tokens
            Of::Loss { .. } | Of::Targets { .. } => {
                let next =
                    if let Of::Targets { targets } = &self.of { targets[row] } else { run.tokens[row + 1] };
                minus_one(out, next as usize);
                times(out, 1.0 / self.rows().len() as f32);
            }
            // ∂H = −p · (ln p + H)
            Of::Entropy { .. } => {
                let (entropy, log_sum) = (softmax.entropy_bits() * LN_2, softmax.log_sum());
                out.copy_from_slice(&softmax.probs(logits));
                let known = out.iter_mut().zip(logits).filter(|(p, _)| **p != 0.0);
                known.for_each(|(p, &x)| *p *= -(f64::from(x) - log_sum + entropy) as f32);
            }
            // ∂D(p ‖ q) = q − p
            Of::Kl { log_p, .. } => {
                out.copy_from_slice(&softmax.probs(logits));
                out.iter_mut().zip(&**log_p).for_each(|(q, log_p)| *q -= log_p.exp());
            }
            Of::Value { .. } => {}
        }
    }

    /// As it is written, with the names of the model's tokens.
    pub fn words(&self, model: &Model) -> String {
        let show = |id: u32| model.tokenizer.show(id);
        match &self.of {
            Of::Logits { tokens, at } => match tokens[..] {
                [(a, _), (b, _)] => format!("logit of {} over {} after position {at}", show(a), show(b)),
                _ => format!("logit of {} after position {at}", show(tokens[0].0)),
            },
            Of::LogProb { token, at } => format!("log p of {} after position {at}", show(*token)),
            Of::Targets { .. } => "mean loss of the targets".into(),
            Of::Loss { tokens } => format!("mean loss of tokens {}..{}", tokens.start, tokens.end),
            Of::Entropy { at } => format!("entropy after position {at}"),
            Of::Kl { at, .. } => format!("KL divergence from the other run after position {at}"),
            Of::Value { .. } => self.to_string(),
        }
    }
}

/// As [`Metric::parse`] reads it, with token ids and positions.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Of::Logits { tokens, at } => match tokens[..] {
                [(a, _), (b, _)] => write!(f, "logit_diff:{a},{b}@{at}"),
                _ => write!(f, "logit:{}@{at}", tokens[0].0),
            },
            Of::LogProb { token, at } => write!(f, "logprob:{token}@{at}"),
            Of::Targets { .. } => f.write_str("loss of targets"),
            Of::Loss { tokens } => write!(f, "loss:{}..{}", tokens.start, tokens.end),
            Of::Entropy { at } => write!(f, "entropy@{at}"),
            Of::Kl { at, .. } => write!(f, "kl@{at}"),
            Of::Value { name, index, .. } => {
                let index: Vec<_> =
                    index.iter().map(|i| i.map_or_else(|| "*".into(), |i| i.to_string())).collect();
                write!(f, "value:{name}")?;
                if index.is_empty() { Ok(()) } else { write!(f, "[{}]", index.join(",")) }
            }
        }
    }
}

fn logits(run: &Run, rows: Range<usize>) -> Result<Vec<Vec<f32>>> {
    Ok(run.cache.fetch(Site::Logits.once(), &Part::rows(rows))?.to_vec2()?)
}

/// The ranges of a tensor that an index leaves, axis by axis.
fn ranges(dims: &[usize], index: &[Option<usize>]) -> Vec<Range<usize>> {
    let along = |(axis, &n): (usize, &usize)| index.get(axis).copied().flatten().map_or(0..n, |i| i..i + 1);
    dims.iter().enumerate().map(along).collect()
}

fn part(x: &Tensor, index: &[Option<usize>]) -> Result<Tensor> {
    let mut part = x.clone();
    for (axis, range) in ranges(x.dims(), index).into_iter().enumerate() {
        part = part.narrow(axis, range.start, range.len())?;
    }
    Ok(part)
}

/// The forms of [`Metric`].
const FORMS: &str = "logit:TOKEN, logit_diff:A,B, logprob:TOKEN, loss, loss:A..B, entropy or value:HOOK[i,j], most with @POSITION";

fn parse(text: &str, model: &Model, n_tokens: usize) -> Result<Of> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let unknown = || Error::usage(format!("is none of {FORMS}"));
    let (kind, rest) = match kind.split_once('@') {
        Some((kind, at)) if rest.is_empty() => (kind, format!("@{at}")),
        _ => (kind, rest.to_owned()),
    };
    // A position follows the last @; any other is part of a token.
    let (rest, at) = match rest.rsplit_once('@').map(|(rest, at)| (rest, at.parse::<usize>())) {
        Some((before, Ok(at))) => (before, at),
        _ => (&*rest, n_tokens.saturating_sub(1)),
    };
    let token = |named: &str| model.token(named);
    match kind {
        "logit" if !rest.is_empty() => Ok(Of::Logits { tokens: vec![(token(rest)?, 1.0)], at }),
        "logit_diff" => {
            // A token may have a comma in it.
            let pairs = rest.match_indices(',').map(|(i, _)| (&rest[..i], &rest[i + 1..]));
            let pair = |(a, b): (&str, &str)| Ok::<_, Error>([token(a)?, token(b)?]);
            let mut tried =
                pairs.filter(|(a, b)| !a.is_empty() && !b.is_empty()).map(pair).collect::<Vec<_>>();
            let found = tried.iter().position(Result::is_ok).unwrap_or(0);
            if tried.is_empty() {
                return Err(Error::usage("takes two tokens, as in logit_diff: man, woman"));
            }
            let [a, b] = tried.swap_remove(found)?;
            Ok(Of::Logits { tokens: vec![(a, 1.0), (b, -1.0)], at })
        }
        "logprob" if !rest.is_empty() => Ok(Of::LogProb { token: token(rest)?, at }),
        "loss" if rest.is_empty() => Ok(Of::Loss { tokens: 1..n_tokens }),
        "loss" => {
            let ends = rest.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let (a, b) = ends.ok_or_else(|| Error::usage("takes a range of tokens, as in loss:1..5"))?;
            Ok(Of::Loss { tokens: a..b })
        }
        "entropy" if rest.is_empty() => Ok(Of::Entropy { at }),
        "value" => {
            let (name, index) = rest.split_once('[').unwrap_or((rest, "]"));
            let index =
                index.strip_suffix(']').ok_or_else(|| Error::usage("the index has no `]` at its end"))?;
            let one = |word: &str| match word.trim() {
                "*" | ":" => Ok(None),
                word => word.parse().map(Some).map_err(|_| {
                    Error::usage(format!("`{word}` is no index: give numbers from 0, or * for all"))
                }),
            };
            let words = index.split(',').filter(|_| !index.is_empty());
            let name = model.find(name)?;
            let reads = match (name.made, model.dictionary_of(name.hook)) {
                (None, _) => name.hook,
                (Some(Made::Features(_)), Some(dictionary)) => dictionary.reads,
                _ => {
                    return Err(Error::usage(format!(
                        "{name} has no gradients: a feature or {} has",
                        name.hook
                    )));
                }
            };
            Ok(Of::Value { name, reads, index: words.map(one).collect::<Result<_>>()? })
        }
        _ => Err(unknown()),
    }
}

impl Metric {
    /// Whether it reads elements of this tensor itself.
    pub(super) fn is_value_of(&self, name: HookName) -> bool {
        matches!(&self.of, Of::Value { reads, .. } if *reads == name)
    }
}
