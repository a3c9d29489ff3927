//! What a sparse dictionary makes of a run.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::attribution::Direction;
use super::logits::{Next, surprises, top};
use super::weights::{Neighbour, nearest};
use crate::error::{Error, Result};
use crate::hooks::{Axis, Edit, HookFilter, HookName, Made, Part, Site, TensorName};
use crate::interventions::{Intervention, Target};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, Gpt2};
use crate::picture::Matrix;
use crate::picture::matrix::dot;
use crate::run::Run;

/// The hooks that a run must keep for [`read`] and [`Listed`].
pub fn hooks(dictionary: &Dictionary) -> [HookName; 4] {
    [dictionary.reads, dictionary.writes, Site::LnFinalScale.once(), Site::Logits.once()]
}

/// The active features of a run, and how well they stand for the activation.
///
/// # Errors
/// [`Error::Usage`] if the activation was not kept.
pub fn read(run: &Run, dictionary: &Dictionary) -> Result<(Features, Fit)> {
    let kept = |hook: HookName| {
        run.tensor(hook)
            .ok_or_else(|| Error::usage(format!("{hook} was not kept, which the dictionary reads")))
    };
    let features = dictionary.encode(&kept(dictionary.reads)?)?;
    let fit = dictionary.fit(&features, &kept(dictionary.writes)?)?;
    Ok((features, fit))
}

/// The mean surprise of a prompt's tokens in bits: as it is, and with the reconstruction in place of the activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Splice {
    pub bits: f64,
    pub bits_spliced: f64,
}

/// Runs the prompt again with the reconstruction in place of the activation, at all positions but the first, whose
/// activation is unlike all others'. The run must have kept its logits.
///
/// # Errors
/// As [`Run::new`].
pub fn splice(run: &Run, dictionary: &Dictionary, features: &Features) -> Result<Splice> {
    let decoded = dictionary.decode(features)?;
    let edit = |x: &Tensor| -> Result<Tensor> {
        let n = x.dims()[0];
        let decoded = decoded.to_device(x.device())?.to_dtype(x.dtype())?.reshape(x.dims())?;
        Ok(Tensor::cat(&[x.narrow(0, 0, 1)?, decoded.narrow(0, 1, n - 1)?], 0)?)
    };
    let keep = HookFilter::of([Site::Logits.once()]);
    let spliced = run.then(run.input.clone(), keep, Edit(dictionary.writes, edit))?;
    let mean = |run: &Run| {
        let bits: Vec<_> = surprises(run).into_iter().flatten().map(|one| f64::from(one.bits)).collect();
        bits.iter().sum::<f64>() / bits.len() as f64
    };
    Ok(Splice { bits: mean(run), bits_spliced: mean(&spliced) })
}

/// The tokens that each feature's direction promotes most, its row of W_dec · W_U (of heads, through W_O), without
/// ln_f; none if it is not written to the residual stream.
///
/// # Errors
/// [`Error::Usage`] for a feature that there is not.
pub fn promotes(net: &Gpt2, dictionary: &Dictionary, features: &[u32], k: usize) -> Result<Vec<Vec<u32>>> {
    let Some(logits) = through_unembedding(net, dictionary, features)? else {
        return Ok(vec![Vec::new(); features.len()]);
    };
    Ok((0..features.len()).map(|i| first(&logits.row(i), k)).collect())
}

/// The rows of W_dec · W_U, (n, V); `None` if they are not written to the residual stream.
fn through_unembedding(net: &Gpt2, dictionary: &Dictionary, features: &[u32]) -> Result<Option<Matrix>> {
    if features.is_empty() || !writes_to_stream(dictionary) {
        return Ok(None);
    }
    let rows = features.iter().map(|feature| dictionary.direction(*feature)).collect::<Result<Vec<_>>>()?;
    let rows = Tensor::from_vec(rows.concat(), (features.len(), ()), &Device::Cpu)?;
    let rows = rows.to_device(net.device())?.to_dtype(net.dtype())?; // (n, C)
    let rows = match (dictionary.writes.site, dictionary.writes.layer) {
        (Site::Z, Some(layer)) => rows.matmul(&net.blocks[layer].attn_proj.weight()?)?,
        _ => rows,
    };
    Matrix::of(&net.ops.logits(&rows, &net.unembed)?).map(Some) // (n, V)
}

/// Whether what it writes is added to the residual stream, or is the stream itself; of heads, through W_O.
fn writes_to_stream(dictionary: &Dictionary) -> bool {
    use Site::{AttnOut, Embed, MlpOut, PosEmbed, ResidMid, ResidPost, ResidPre, Z};
    matches!(
        dictionary.writes.site,
        Z | Embed | PosEmbed | ResidPre | ResidMid | ResidPost | AttnOut | MlpOut
    )
}

/// The `k` largest, as token ids.
fn first(row: &[f32], k: usize) -> Vec<u32> {
    top(row, k).into_iter().map(|id| id as u32).collect()
}

/// The direct effect on the logit of a token at a position, by what is written to the residual stream: as in
/// [`Attribution`](super::attribution::Attribution), with the scale of ln_f frozen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effects {
    pub token: u32,
    /// The token whose logit is subtracted.
    pub versus: Option<u32>,
    /// Of all features together.
    pub features: f64,
    /// Of what they leave out.
    pub error: f64,
}

/// A logit as seen from what a dictionary writes.
struct Logit<'a> {
    dictionary: &'a Dictionary,
    features: &'a Features,
    position: usize,
    token: u32,
    versus: Option<u32>,
    /// (C)
    d: Vec<f64>,
}

impl<'a> Logit<'a> {
    /// `None` if the dictionary does not write to the residual stream. The token is the likeliest unless chosen.
    fn new(
        run: &Run,
        (dictionary, features): (&'a Dictionary, &'a Features),
        position: usize,
        (token, versus): (Option<u32>, Option<u32>),
    ) -> Result<Option<Self>> {
        if !writes_to_stream(dictionary) {
            return Ok(None);
        }
        let token = token.map_or_else(|| Ok(Next::new(run, position, 1)?.top[0].id), Ok::<_, Error>)?;
        let direction = Direction::new(run, position, token, versus)?;
        let d = match (dictionary.writes.site, dictionary.writes.layer) {
            (Site::Z, Some(layer)) => direction.through(&run.model.net.blocks[layer].attn_proj.weight()?)?,
            _ => direction.d,
        };
        Ok(Some(Self { dictionary, features, position, token, versus, d }))
    }

    /// Of a feature with this activation.
    fn of(&self, feature: u32, value: f32) -> Result<f64> {
        let written = self.dictionary.written(self.features, self.position, feature, value);
        Ok(f64::from(written) * dot(&self.dictionary.direction(feature)?, &self.d))
    }

    /// Of all, and of what they leave out.
    fn all(&self, run: &Run) -> Result<Effects> {
        let row = self.features.rows[self.position].iter();
        let features = row.map(|(feature, value)| self.of(*feature, *value)).sum::<Result<f64>>()?;
        let error = TensorName { hook: self.dictionary.writes, made: Some(Made::Error) };
        let error = run.part(error, &Part::rows(self.position..self.position + 1))?;
        let error = dot(&error.flatten_all()?.to_vec1()?, &self.d);
        Ok(Effects { token: self.token, versus: self.versus, features, error })
    }
}

/// Which features to list, and what to say of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Those active at this position, or with `None` those active anywhere on the prompt.
    pub position: Option<usize>,
    /// The lines of the list of which the promoted tokens are wanted: so many, around this feature or the first.
    pub around: (Option<u32>, usize),
    /// The token whose logit they have an effect on, by default the likeliest, and the one whose logit is subtracted.
    pub token: Option<u32>,
    pub versus: Option<u32>,
}

/// The active features of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub position: Option<usize>,
    /// How many are active.
    pub n_active: usize,
    /// The strongest first; those that are changed and not active come last.
    pub list: Vec<Active>,
    /// At one position, and of what is written to the residual stream.
    pub effects: Option<Effects>,
}

/// A feature that is active.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    pub feature: u32,
    /// Its activation: at the position, or the largest.
    pub value: f32,
    /// The position of that.
    pub at: usize,
    /// Of the sum of all at one position.
    pub share: f32,
    /// Its activation at each position.
    pub along: Vec<f32>,
    /// The tokens that it promotes most, if they were wanted.
    pub promotes: Vec<u32>,
    /// Its direct effect on a logit.
    pub effect: Option<f64>,
}

impl Active {
    fn new(feature: u32, at: usize, along: Vec<f32>) -> Self {
        Self { feature, value: along[at], at, share: 0.0, along, promotes: Vec::new(), effect: None }
    }
}

impl Listed {
    /// The features that are asked for, and those that the run changes, active or not.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position or a token out of range, or tensors that were not kept.
    pub fn new(run: &Run, dictionary: &Dictionary, features: &Features, asked: &Asked) -> Result<Self> {
        let mut list = match asked.position {
            Some(position) => {
                Error::check("position", position, 0..features.rows.len())?;
                let sum: f32 = features.rows[position].iter().map(|(_, value)| value).sum();
                let of = |(feature, _): (u32, f32)| {
                    let one = Active::new(feature, position, features.of(feature));
                    Active { share: one.value / sum, ..one }
                };
                features.strongest(position).into_iter().map(of).collect()
            }
            None => anywhere(features),
        };
        let n_active = list.len();
        for feature in changed(run, dictionary) {
            if !list.iter().any(|one| one.feature == feature) {
                list.push(Active::new(feature, asked.position.unwrap_or(0), features.of(feature)));
            }
        }
        let window = window(&list, asked.around);
        let ids: Vec<_> = list[window.clone()].iter().map(|one| one.feature).collect();
        let promoted = promotes(&run.model.net, dictionary, &ids, PROMOTED)?;
        for (one, promotes) in list[window].iter_mut().zip(promoted) {
            one.promotes = promotes;
        }
        let chosen = (asked.token, asked.versus);
        let logit =
            asked.position.map(|at| Logit::new(run, (dictionary, features), at, chosen)).transpose()?;
        let effects = match logit.flatten() {
            Some(logit) => {
                for one in &mut list {
                    one.effect = Some(logit.of(one.feature, one.value)?);
                }
                Some(logit.all(run)?)
            }
            None => None,
        };
        Ok(Self { position: asked.position, n_active, list, effects })
    }
}

/// All features that are active anywhere, that with the largest activation first.
fn anywhere(features: &Features) -> Vec<Active> {
    let mut along: Vec<Vec<f32>> = vec![Vec::new(); features.n];
    for (position, row) in features.rows.iter().enumerate() {
        for (feature, value) in row {
            let along = &mut along[*feature as usize];
            along.resize(features.rows.len(), 0.0);
            along[position] = *value;
        }
    }
    let largest = |along: &[f32]| (0..along.len()).rev().max_by(|a, b| along[*a].total_cmp(&along[*b]));
    let of = |(feature, along): (u32, Vec<f32>)| Active::new(feature, largest(&along).unwrap_or(0), along);
    let alive = (0u32..).zip(along).filter(|(_, along)| !along.is_empty());
    let mut list: Vec<_> = alive.map(of).collect();
    list.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.feature.cmp(&b.feature)));
    list
}

/// The lines of a list around a feature, or from the first on.
fn window(list: &[Active], (around, n): (Option<u32>, usize)) -> Range<usize> {
    let at = list.iter().position(|one| Some(one.feature) == around).unwrap_or(0);
    let first = at.saturating_sub(n / 2).min(list.len().saturating_sub(n));
    first..list.len().min(first + n)
}

/// What there is to say of one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub of: Active,
    /// The tokens that it makes less likely.
    pub suppresses: Vec<u32>,
    /// The tokens whose rows of wte it reads most, by its column of W_enc; none unless it reads the residual stream or
    /// a LayerNorm of it.
    pub reads: Vec<u32>,
    /// The features that write the most similar directions, and what each promotes.
    pub nearest: Vec<(Neighbour, Vec<u32>)>,
    pub effects: Option<Effects>,
}

impl Page {
    /// The page of a feature, seen from a position.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position, token or feature out of range, or tensors that were not kept.
    pub fn new(
        run: &Run,
        (dictionary, features): (&Dictionary, &Features),
        (feature, position): (u32, usize),
        chosen: (Option<u32>, Option<u32>),
    ) -> Result<Self> {
        const TOKENS: usize = 24;
        const NEAREST: usize = 40;
        Error::check("feature", feature as usize, 0..dictionary.n)?;
        Error::check("position", position, 0..features.rows.len())?;
        let net = &run.model.net;
        let mut of = Active::new(feature, position, features.of(feature));
        let sum: f32 = features.rows[position].iter().map(|(_, value)| value).sum();
        of.share = if sum > 0.0 { of.value / sum } else { 0.0 };
        let mut suppresses = Vec::new();
        if let Some(logits) = through_unembedding(net, dictionary, &[feature])? {
            of.promotes = first(&logits.row(0), TOKENS);
            suppresses = first(&logits.row(0).into_iter().map(|x| -x).collect::<Vec<_>>(), TOKENS);
        }
        let reads = match dictionary.reads.point().axes {
            [Axis::Pos, Axis::Model] if dictionary.reads.site != Site::PosEmbed => {
                let column: Vec<f64> = dictionary.column(feature)?.into_iter().map(f64::from).collect();
                let scores = super::weights::embedding(net)?.times(&column); // (V)
                first(&scores.into_iter().map(|x| x as f32).collect::<Vec<_>>(), TOKENS)
            }
            _ => Vec::new(),
        };
        let (own, all) = (dictionary.direction(feature)?, dictionary.directions());
        let read =
            move |row: usize, out: &mut [f32]| out.copy_from_slice(&all[row * out.len()..][..out.len()]);
        let directions = Matrix::reading(dictionary.n, own.len(), read); // (n, C)
        let nearest = nearest(&own, &directions, NEAREST, Some(feature as usize));
        let rows: Vec<_> = nearest.iter().map(|one| one.row as u32).collect();
        let nearest = nearest.into_iter().zip(promotes(net, dictionary, &rows, PROMOTED)?).collect();
        let logit = Logit::new(run, (dictionary, features), position, chosen)?;
        of.effect = logit.as_ref().map(|logit| logit.of(feature, of.value)).transpose()?;
        let effects = logit.map(|logit| logit.all(run)).transpose()?;
        Ok(Self { of, suppresses, reads, nearest, effects })
    }
}

/// The features of a dictionary that a run changes.
fn changed(run: &Run, dictionary: &Dictionary) -> Vec<u32> {
    let of_this = |one: &Intervention| match one.change.place()?.target {
        Target::Feature { hook, feature } if hook == dictionary.writes => Some(feature),
        _ => None,
    };
    let mut all: Vec<_> = run.input.interventions.active().filter_map(of_this).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The tokens listed of each feature.
const PROMOTED: usize = 5;
