//! The gradients of the weights: the products of what each reads and the gradient of what it makes.

use candle_core::{DType, Device, Tensor};

use super::Gradients;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Site};

/// The weights of a checkpoint by name, as `h.3.mlp.c_fc.weight`, with their shapes; a head of its own is
/// `lm_head.weight`.
pub fn names(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (v, c, m) = (config.vocab_size, config.n_embd, config.d_mlp());
    let mut all = vec![("wte.weight".into(), vec![v, c]), ("wpe.weight".into(), vec![config.n_positions, c])];
    for l in 0..config.n_layer {
        for (name, n_in, n_out) in
            [("attn.c_attn", c, 3 * c), ("attn.c_proj", c, c), ("mlp.c_fc", c, m), ("mlp.c_proj", m, c)]
        {
            all.push((format!("h.{l}.{name}.weight"), vec![n_in, n_out]));
            all.push((format!("h.{l}.{name}.bias"), vec![n_out]));
        }
        for name in ["ln_1", "ln_2"] {
            all.extend(["weight", "bias"].map(|part| (format!("h.{l}.{name}.{part}"), vec![c])));
        }
    }
    all.extend(["weight", "bias"].map(|part| (format!("ln_f.{part}"), vec![c])));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".into(), vec![v, c]));
    }
    all
}

impl Gradients {
    /// ∂m/∂W of a weight of the checkpoint, in its shape there: (in, out) for matrices.
    ///
    /// # Errors
    /// [`Error::Usage`] for a weight that there is not.
    pub fn of_weight(&self, name: &str) -> Result<Tensor> {
        let config = self.run.config();
        let unknown = || Error::usage(format!("this model has no weight `{}`", crate::text::plain(name)));
        let value = |hook: HookName| -> Result<Tensor> {
            let x = self.run.cache.fetch(hook, &Part::default())?;
            Ok(x.flatten_from(1)?.contiguous()?)
        };
        let g = |hook: HookName| -> Result<Tensor> { Ok(self.before_changes(hook)?.flatten_from(1)?) };
        let rest = match name {
            "wte.weight" => return self.of_wte(),
            "lm_head.weight" if !config.tie_word_embeddings => return self.of_unembedding(),
            "wpe.weight" => {
                let whole = Tensor::zeros((config.n_positions, config.n_embd), DType::F32, &Device::Cpu)?;
                whole.slice_set(&g(Site::PosEmbed.once())?.contiguous()?, 0, 0)?; // a row for each position
                return Ok(whole);
            }
            name => name,
        };
        let (layer, rest) = match rest.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
            Some((layer, rest)) => (layer.parse().map_err(|_| unknown())?, rest),
            None => (0, rest),
        };
        Error::check("layer", layer, 0..config.n_layer)?;
        let (module, part) = rest.rsplit_once('.').ok_or_else(unknown)?;
        let of_linear = |x: Tensor, g: Tensor| match part {
            "weight" => Ok(x.t()?.matmul(&g)?), // xᵀ · g: (in, out)
            "bias" => Ok(g.sum(0)?),
            _ => Err(unknown()),
        };
        let of_layer_norm = |normalized: HookName, out: HookName| match part {
            "weight" => Ok((g(out)? * value(normalized)?)?.sum(0)?),
            "bias" => Ok(g(out)?.sum(0)?),
            _ => Err(unknown()),
        };
        let at = |site: Site| site.at(layer);
        match module {
            "ln_1" => of_layer_norm(at(Site::Ln1Normalized), at(Site::Ln1Out)),
            "ln_2" => of_layer_norm(at(Site::Ln2Normalized), at(Site::Ln2Out)),
            "ln_f" => of_layer_norm(Site::LnFinalNormalized.once(), Site::LnFinalOut.once()),
            "attn.c_attn" => {
                let [q, k, v] = [Site::Q, Site::K, Site::V].map(|site| g(at(site)));
                of_linear(value(at(Site::Ln1Out))?, Tensor::cat(&[q?, k?, v?], 1)?)
            }
            "attn.c_proj" => of_linear(value(at(Site::Z))?, g(at(Site::AttnOut))?),
            "mlp.c_fc" => of_linear(value(at(Site::Ln2Out))?, g(at(Site::MlpPre))?),
            "mlp.c_proj" => of_linear(value(at(Site::MlpPost))?, g(at(Site::MlpOut))?),
            _ => Err(unknown()),
        }
    }

    /// gᵀ · x of the logits: (V, C).
    fn of_unembedding(&self) -> Result<Tensor> {
        let g = self.before_changes(Site::Logits.once())?; // (T, V)
        let x = self.run.cache.fetch(Site::LnFinalOut.once(), &Part::default())?; // (T, C)
        Ok(g.t()?.contiguous()?.matmul(&x.contiguous()?)?)
    }

    /// A row for each token of the prompt, and where the head is tied, those of the unembedding: (V, C).
    fn of_wte(&self) -> Result<Tensor> {
        let config = self.run.config();
        let of_head = if config.tie_word_embeddings {
            self.of_unembedding()?
        } else {
            Tensor::zeros((config.vocab_size, config.n_embd), DType::F32, &Device::Cpu)?
        };
        let g = self.before_changes(Site::Embed.once())?.contiguous()?; // (T, C)
        Ok(of_head.index_add(&Tensor::new(&self.run.tokens[..], &Device::Cpu)?, &g, 0)?)
    }
}
