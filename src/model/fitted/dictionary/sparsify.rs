//! EleutherAI's `sparsify`: `cfg.json` and `sae.safetensors` in a folder named after a module, `h.8.mlp`.

use std::path::Path;

use super::{Activation, Norm, Parts, Read, Sizes, check_sizes, conv, matrix, rows, top_k, vector};
use crate::error::Result;
use crate::hooks::Site;
use crate::model::TensorFile;
use crate::model::fitted::{Named, place};

pub fn read(cfg: &Path, file: &TensorFile, folder: &Path, named: &Named) -> Result<Read> {
    let config = place::json(cfg)?;
    let is = |name: &str| config[name].as_bool().unwrap_or(false);
    let (n, c) = matrix(file, "encoder.weight")?;
    let d_out = matrix(file, "W_dec")?.1;
    if config["activation"].as_str().is_some_and(|name| name != "topk") {
        return Err(file.refuse("has another activation than topk, which is not known"));
    }
    check_sizes(file, &config, &[("d_in", c)])?;
    let k = top_k(file, config["k"].as_u64(), n)?;
    let transcode = is("transcode");
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (reads, writes) = match (&named.hook, hooks(&name, transcode)) {
        (Some(hook), of_name) => (hook.clone(), of_name.and_then(|(_, writes)| writes)),
        (None, Some(hooks)) => hooks,
        (None, None) => {
            return Err(file.refuse(
                "is in a folder that names no module such as h.8 or h.8.mlp: put the hook before it, such as \
                 resid_post.8=FOLDER",
            ));
        }
    };
    let b_dec = vector(file, "b_dec", d_out)?;
    let skip = if file.shape("W_skip").is_some() {
        Some(conv(&file.get("W_skip", &[d_out, c])?.t()?, None)?)
    } else {
        None
    };
    Ok(Read {
        format: if transcode { "sparsify, transcoder" } else { "sparsify, top-k" }.into(),
        reads,
        writes,
        sizes: Sizes { d_in: c, d_out, n },
        expects_bos: None,
        notes: Vec::new(),
        parts: Parts {
            centred: false,
            norm: Norm::None,
            b_in: if transcode { None } else { Some(b_dec.clone()) },
            encoder: conv(
                &file.get("encoder.weight", &[n, c])?.t()?,
                Some(vector(file, "encoder.bias", n)?),
            )?,
            activation: Activation::TopK(k, None),
            decoder: rows(&file.get("W_dec", &[n, d_out])?)?,
            b_dec,
            skip,
        },
    })
}

/// What a module of transformers reads and writes, by its name.
fn hooks(module: &str, transcode: bool) -> Option<(String, Option<String>)> {
    let module = module.trim_start_matches("transformer.");
    let module = module.strip_prefix("h.").or_else(|| module.strip_prefix("layers."))?;
    let (layer, rest) = module.split_once('.').unwrap_or((module, ""));
    let layer = layer.parse().ok()?;
    let (input, output) = match rest {
        "" => (Site::ResidPre, Site::ResidPost),
        "mlp" => (Site::Ln2Out, Site::MlpOut),
        "attn" => (Site::Ln1Out, Site::AttnOut),
        _ => return None,
    };
    let output = output.at(layer).to_string();
    Some(if transcode { (input.at(layer).to_string(), Some(output)) } else { (output, None) })
}
