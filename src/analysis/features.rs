//! What a sparse dictionary makes of a run.

use candle_core::{DType, Device, Tensor};

use super::logits::surprises;
use super::weights::{Ends, unembedding};
use crate::error::{Error, Result};
use crate::hooks::{Edit, HookFilter, HookName, Site};
use crate::model::fitted::dictionary::{Features, Fit};
use crate::model::{Dictionary, Gpt2};
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

/// The tokens that a feature's direction promotes, its row of W_dec · W_U (of heads, through W_O), without ln_f;
/// `None` if it is not written to the residual stream.
///
/// # Errors
/// [`Error::Usage`] for a feature that there is not.
pub fn promotes(net: &Gpt2, dictionary: &Dictionary, feature: u32, k: usize) -> Result<Option<Ends>> {
    let direction = dictionary.direction(feature)?;
    let direction: Vec<f64> = match (dictionary.writes.site, dictionary.writes.layer) {
        (Site::Z, Some(layer)) => {
            let row = Tensor::from_vec(direction, (1, ()), &Device::Cpu)?.to_dtype(DType::F64)?;
            let w_o = net.blocks[layer].attn_proj.weight()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            row.matmul(&w_o)?.flatten_all()?.to_vec1()?
        }
        (
            Site::Embed
            | Site::PosEmbed
            | Site::ResidPre
            | Site::ResidMid
            | Site::ResidPost
            | Site::AttnOut
            | Site::MlpOut,
            _,
        ) => direction.into_iter().map(f64::from).collect(),
        _ => return Ok(None),
    };
    Ok(Some(Ends::new(&unembedding(net)?.times(&direction), k)))
}
