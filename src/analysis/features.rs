//! What a sparse dictionary makes of a run.

use candle_core::{Device, Tensor};

use super::logits::{surprises, top};
use crate::error::{Error, Result};
use crate::hooks::{Edit, HookFilter, HookName, Site};
use crate::interventions::{Intervention, Target};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, Gpt2};
use crate::picture::Matrix;
use crate::run::Run;

/// The hooks that a run must keep for [`read`].
pub fn hooks(dictionary: &Dictionary) -> [HookName; 2] {
    [dictionary.reads, dictionary.writes]
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
    let none = vec![Vec::new(); features.len()];
    if features.is_empty() {
        return Ok(none);
    }
    let rows = features.iter().map(|feature| dictionary.direction(*feature)).collect::<Result<Vec<_>>>()?;
    let rows = Tensor::from_vec(rows.concat(), (features.len(), ()), &Device::Cpu)?;
    let rows = rows.to_device(net.device())?.to_dtype(net.dtype())?; // (n, C)
    let rows = match (dictionary.writes.site, dictionary.writes.layer) {
        (Site::Z, Some(layer)) => rows.matmul(&net.blocks[layer].attn_proj.weight()?)?,
        (
            Site::Embed
            | Site::PosEmbed
            | Site::ResidPre
            | Site::ResidMid
            | Site::ResidPost
            | Site::AttnOut
            | Site::MlpOut,
            _,
        ) => rows,
        _ => return Ok(none),
    };
    let logits = Matrix::of(&net.ops.logits(&rows, &net.unembed)?)?; // (n, V)
    let most = |row: Vec<f32>| top(&row, k).into_iter().map(|id| id as u32).collect();
    Ok((0..features.len()).map(|i| most(logits.row(i))).collect())
}

/// The strongest features at a position.
#[derive(Debug, Clone, PartialEq)]
pub struct At {
    pub position: usize,
    /// How many are active there.
    pub n_active: usize,
    /// The strongest first; those that are changed and not among them come last.
    pub list: Vec<Active>,
}

/// A feature that is active.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    pub feature: u32,
    pub value: f32,
    /// Of the sum of all at this position.
    pub share: f32,
    /// Its activation at each position.
    pub along: Vec<f32>,
    /// The tokens that it promotes most.
    pub promotes: Vec<u32>,
}

/// The `k` strongest features at a position, and those that the run changes, active or not.
///
/// # Errors
/// [`Error::Usage`] for a position out of range.
pub fn at(run: &Run, dictionary: &Dictionary, features: &Features, position: usize, k: usize) -> Result<At> {
    Error::check("position", position, 0..features.rows.len())?;
    let mut all = features.strongest(position);
    let (n_active, sum) = (all.len(), all.iter().map(|(_, value)| value).sum::<f32>());
    all.truncate(k);
    for feature in changed(run, dictionary) {
        if !all.iter().any(|(listed, _)| *listed == feature) {
            all.push((feature, features.of(feature)[position]));
        }
    }
    let ids: Vec<_> = all.iter().map(|(feature, _)| *feature).collect();
    let promoted = promotes(&run.model.net, dictionary, &ids, PROMOTED)?;
    let list = all.into_iter().zip(promoted).map(|((feature, value), promotes)| Active {
        feature,
        value,
        share: if sum > 0.0 { value / sum } else { 0.0 },
        along: features.of(feature),
        promotes,
    });
    Ok(At { position, n_active, list: list.collect() })
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
