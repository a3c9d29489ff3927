//! OpenAI's `sparse_autoencoder`: a state dict of its `Autoencoder`, in a `.pt` file that names no hook.

use serde_json::Value;

use super::{Activation, Norm, Parts, Read, Sizes, conv, matrix, rows, top_k, vector};
use crate::error::Result;
use crate::model::TensorFile;
use crate::model::fitted::Named;

pub fn read(file: &TensorFile, named: &Named) -> Result<Read> {
    let (n, c) = matrix(file, "encoder.weight")?;
    let weight = file.get("encoder.weight", &[n, c])?.t()?; // (C, n)
    let bias = vector(file, "latent_bias", n)?;
    let b = vector(file, "pre_bias", c)?;
    let decoder = file.get("decoder.weight", &[c, n])?.t()?.contiguous()?; // (n, C)
    let activation = file.value("activation");
    let activation = activation.as_ref().and_then(Value::as_str).unwrap_or("ReLU");
    let (activation, norm, kind) = match activation {
        "ReLU" => (Activation::Relu, Norm::None, "standard"),
        "TopK" => {
            let state = file.value("activation_state_dict").unwrap_or_default();
            let k = top_k(file, state["k"].as_u64(), n)?;
            if state["postact_fn"].as_str().is_some_and(|name| name != "ReLU") {
                return Err(file.refuse("applies another function than ReLU after top-k, which is not known"));
            }
            (Activation::TopK(k, None), Norm::Standard, "top-k, layer_norm")
        }
        other => return Err(file.refuse(format!("has the activation `{other}`; ReLU and TopK are known"))),
    };
    let Some(reads) = named.hook.clone() else {
        return Err(file.refuse(
            "does not say which activation it is of: put the hook before it, such as mlp_out.8=FILE",
        ));
    };
    Ok(Read {
        format: format!("OpenAI, {kind}"),
        reads,
        writes: None,
        sizes: Sizes { d_in: c, d_out: c, n },
        expects_bos: None,
        notes: Vec::new(),
        parts: Parts {
            centred: false,
            norm,
            b_in: Some(b.clone()),
            encoder: conv(&weight, Some(bias))?,
            activation,
            decoder: rows(&decoder)?,
            b_dec: b,
            skip: None,
        },
    })
}
