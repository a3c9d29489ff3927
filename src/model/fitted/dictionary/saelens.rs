//! SAELens: `cfg.json` and `sae_weights.safetensors`, as version 6 writes them and as earlier ones did.

use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;

use super::{Activation, Norm, Parts, Read, Sizes, check_sizes, conv, matrix, rows, top_k, vector};
use crate::error::{Error, Result};
use crate::model::TensorFile;
use crate::model::fitted::Named;

/// Repositories whose dictionaries were fitted to weights that were centred first, which their files do not say.
const CENTRED: [&str; 3] =
    ["GPT2-Small-SAEs-Reformatted", "GPT2-Small-Feature-Splitting-Experiment", "gpt2-small-mlp-out-saes"];

/// A repository whose dictionaries take activations times a number for each block, which is in SAELens's registry.
const SCALED: &str = "gpt2-small-mlp-out-saes";
const SCALES: [f64; 12] = [
    1.049_317_3,
    2.369_398_4,
    1.641_193_5,
    1.895_852_2,
    1.816_734_8,
    1.550_234_5,
    1.323_774_3,
    1.104_290_5,
    0.912_376_3,
    0.695_533_6,
    0.361_972_9,
    0.285_154_9,
];

/// A `cfg.json`.
struct Cfg<'a> {
    path: &'a Path,
    config: Value,
}

/// `path` is that of `config`, for errors.
pub fn read(path: &Path, config: Value, file: &TensorFile, named: &Named) -> Result<Read> {
    let cfg = Cfg { path, config };
    let (architecture, is_transcoder) = cfg.architecture()?;
    let (reads, writes) = cfg.hooks(named, is_transcoder)?;
    let (c, n) = matrix(file, "W_enc")?;
    let d_out = matrix(file, "W_dec")?.1;
    check_sizes(file, &cfg.config, &[("d_in", c), ("d_sae", n), ("d_out", d_out)])?;
    let mut w_enc = file.get("W_enc", &[c, n])?;
    let mut w_dec = file.get("W_dec", &[n, d_out])?;
    let mut b_dec = vector(file, "b_dec", d_out)?;
    if file.shape("scaling_factor").is_some() && vector(file, "scaling_factor", n)?.iter().any(|x| *x != 1.0)
    {
        return Err(file.refuse("has a scaling_factor that is not 1, which is not known"));
    }

    let mut notes = Vec::new();
    let norm = if let Some(norm) = cfg.norm()? {
        norm
    } else {
        let scale = cfg.scale(named, &reads)?;
        notes.push(format!("activations are multiplied by {scale:.4}, which is in SAELens's registry"));
        (w_enc, w_dec) = ((w_enc * scale)?, (w_dec / scale)?);
        for b in &mut b_dec {
            *b = (f64::from(*b) / scale) as f32;
        }
        Norm::None
    };
    match norm {
        Norm::None => {}
        Norm::Standard => notes.push("each position is normalised first, (x − μ) / σ".into()),
        Norm::Constant => notes.push("each position is scaled to the norm √C first".into()),
    }
    let centred = cfg.is_centred(named);
    if centred {
        notes.push(
            "it was fitted to centred weights: the mean over channels is taken off, and put back".into(),
        );
    }
    let b_in = (!is_transcoder && cfg.is("apply_b_dec_to_input", true)).then(|| b_dec.clone());
    let (activation, bias) = cfg.activation(architecture, file, &w_dec)?;
    let skip = match file.shape("W_skip") {
        Some(_) => Some(conv(&file.get("W_skip", &[d_out, c])?.t()?, None)?),
        None => None,
    };
    Ok(Read {
        format: format!("SAELens, {}", if is_transcoder { cfg.named_architecture() } else { architecture }),
        reads,
        writes,
        sizes: Sizes { d_in: c, d_out, n },
        expects_bos: cfg.get("prepend_bos").as_bool().or(cfg.is_old().then_some(true)),
        notes,
        parts: Parts {
            centred,
            norm,
            b_in,
            encoder: conv(&w_enc, bias)?,
            activation,
            decoder: rows(&w_dec)?,
            b_dec,
            skip,
        },
    })
}

impl Cfg<'_> {
    /// A setting; version 6 puts what is about the model into `metadata`.
    fn get(&self, name: &str) -> &Value {
        let about = &self.config["metadata"][name];
        if about.is_null() { &self.config[name] } else { about }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).as_str()
    }

    fn is(&self, name: &str, default: bool) -> bool {
        self.get(name).as_bool().unwrap_or(default)
    }

    /// Whether a version before 6 wrote it.
    fn is_old(&self) -> bool {
        self.config["metadata"].is_null()
    }

    fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    fn named_architecture(&self) -> &str {
        self.config["architecture"].as_str().unwrap_or("standard")
    }

    /// How features become active, and whether it is a transcoder.
    fn architecture(&self) -> Result<(&'static str, bool)> {
        let activation = self.text("activation_fn").or_else(|| self.text("activation_fn_str"));
        match (self.named_architecture(), activation.unwrap_or("relu")) {
            ("topk", _) | ("standard", "topk") => Ok(("topk", false)),
            (_, other) if other != "relu" => {
                Err(self.refuse(format!("has the activation `{other}`; relu and topk are known")))
            }
            ("standard", _) => Ok(("standard", false)),
            ("jumprelu", _) => Ok(("jumprelu", false)),
            ("gated", _) => Ok(("gated", false)),
            ("transcoder" | "skip_transcoder", _) => Ok(("standard", true)),
            ("jumprelu_transcoder" | "jumprelu_skip_transcoder", _) => Ok(("jumprelu", true)),
            (other, _) => Err(self.refuse(format!(
                "has the architecture `{other}`; standard, topk, jumprelu, gated and transcoders are known"
            ))),
        }
    }

    fn hooks(&self, named: &Named, is_transcoder: bool) -> Result<(String, Option<String>)> {
        if ["hook_head_index", "hook_point_head_index"].iter().any(|name| !self.get(name).is_null()) {
            return Err(self.refuse("is for one head alone, which is not known"));
        }
        let own = named.hook.as_deref().or_else(|| self.text("hook_name"));
        let reads = own.or_else(|| self.text("hook_point"));
        let reads =
            reads.ok_or_else(|| self.refuse("names no hook: put it first, such as resid_pre.8=FOLDER"))?;
        let writes = self.text("hook_name_out").filter(|_| is_transcoder).map(Into::into);
        if is_transcoder && writes.is_none() {
            return Err(self.refuse("is a transcoder, but has no hook_name_out"));
        }
        Ok((reads.into(), writes))
    }

    /// `None`: by a number that is not in the file.
    fn norm(&self) -> Result<Option<Norm>> {
        match self.get("normalize_activations") {
            Value::Null | Value::Bool(false) => Ok(Some(Norm::None)),
            Value::Bool(true) => Ok(None),
            Value::String(name) if name == "none" => Ok(Some(Norm::None)),
            Value::String(name) if name == "layer_norm" => Ok(Some(Norm::Standard)),
            Value::String(name) if name == "constant_norm_rescale" => Ok(Some(Norm::Constant)),
            Value::String(name) if name == "expected_average_only_in" => Ok(None),
            other => Err(self.refuse(format!("has normalize_activations {other}, which is not known"))),
        }
    }

    /// The number that activations are multiplied by, where it is known.
    fn scale(&self, named: &Named, reads: &str) -> Result<f64> {
        let layer = reads.split('.').nth(1).and_then(|layer| layer.parse::<usize>().ok());
        let scale = layer.and_then(|layer| SCALES.get(layer)).filter(|_| named.of.contains(SCALED));
        scale.copied().ok_or_else(|| {
            self.refuse(
                "takes activations divided by their average norm, a number that is not in the file: call \
                 fold_activation_norm_scaling_factor in SAELens and save it again",
            )
        })
    }

    fn is_centred(&self, named: &Named) -> bool {
        let of = ["model_from_pretrained_kwargs", "from_pretrained_kwargs"].map(|name| self.get(name));
        of.iter().any(|of| of["center_writing_weights"].as_bool() == Some(true))
            || CENTRED.iter().any(|name| named.of.contains(name))
    }

    /// The activation function and b_enc, which a gated encoder has in two forms of its own.
    fn activation(
        &self,
        architecture: &str,
        file: &TensorFile,
        w_dec: &Tensor,
    ) -> Result<(Activation, Option<Vec<f32>>)> {
        let n = w_dec.dims2()?.0;
        let vector = |name| vector(file, name, n);
        let activation = match architecture {
            "gated" => {
                let scale = vector("r_mag")?.into_iter().map(f32::exp).collect();
                let (gate, magnitude) = (vector("b_gate")?, vector("b_mag")?);
                return Ok((Activation::Gated { gate, scale, magnitude }, None));
            }
            "jumprelu" => Activation::Jump(vector("threshold")?),
            "topk" => {
                let k = self.config["k"].as_u64().or_else(|| self.get("activation_fn_kwargs")["k"].as_u64());
                let k = top_k(file, k, n)?;
                let norms = || -> Result<Vec<f32>> { Ok(w_dec.sqr()?.sum(1)?.sqrt()?.to_vec1()?) };
                let rescales = self.is("rescale_acts_by_decoder_norm", false);
                Activation::TopK(k, if rescales { Some(norms()?) } else { None })
            }
            _ => Activation::Relu,
        };
        Ok((activation, Some(vector("b_enc")?)))
    }
}
