//! The transcoders of Dunefsky, Chlenski and Nanda (2024): from what the MLP reads to what it writes.

use std::path::Path;

use super::{Activation, Norm, Parts, Read, Sizes, conv, matrix, rows, vector};
use crate::error::Result;
use crate::hooks::{HookName, Site};
use crate::model::TensorFile;
use crate::model::fitted::Named;

pub fn read(file: &TensorFile, path: &Path, named: &Named) -> Result<Read> {
    let (c, n) = matrix(file, "W_enc")?;
    let d_out = matrix(file, "W_dec")?.1;
    // The hook is in a class that is pickled beside the weights, and in the usual names of the files.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let layer = name.split("blocks.").nth(1).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let reads = match (&named.hook, layer) {
        (Some(hook), _) => hook.clone(),
        (None, Some(layer)) => Site::Ln2Normalized.at(layer).to_string(),
        (None, None) => {
            return Err(file.refuse(
                "does not say in its name which block it is of: put the hook before it, such as ln2_normalized.8=FILE",
            ));
        }
    };
    let layer = reads.parse::<HookName>().ok().and_then(|hook| hook.layer).unwrap_or(0);
    let decoder = file.get("W_dec", &[n, d_out])?;
    Ok(Read {
        format: "Dunefsky, transcoder".into(),
        reads,
        writes: Some(Site::MlpOut.at(layer).to_string()),
        sizes: Sizes { d_in: c, d_out, n },
        expects_bos: None,
        notes: vec![
            "the mean of mlp_out over its channels is not in it: it was fitted to centred weights".into(),
        ],
        parts: Parts {
            centred: false,
            norm: Norm::None,
            b_in: Some(vector(file, "b_dec", c)?),
            encoder: conv(&file.get("W_enc", &[c, n])?, Some(vector(file, "b_enc", n)?))?,
            activation: Activation::Relu,
            decoder: rows(&decoder)?,
            b_dec: vector(file, "b_dec_out", d_out)?,
            skip: None,
        },
    })
}
