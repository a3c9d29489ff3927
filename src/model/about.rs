//! What a model is, and how its files were read.

use serde::Serialize;

use super::{Dictionary, Model};
use crate::config::{Activation, Config};
use crate::text::count;

/// A description of a model, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct About {
    /// `demo`, the hub id, or the path.
    pub model: String,
    /// The hub's commit, if any.
    pub revision: Option<String>,
    /// The directory of the LoRA adapter that was merged into it, if any.
    pub adapter: Option<String>,
    /// What the weights were read from.
    pub format: String,
    /// SHA-256 of the weight files, if it has been computed.
    pub weights_sha256: Option<String>,
    /// Number format of the weights in their file, and that of the computation.
    pub stored_dtype: Option<String>,
    pub dtype: String,
    pub device: String,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_embd: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub vocab_size: usize,
    pub n_positions: usize,
    /// Numbers in all weights; a tied head counts once.
    pub n_params: u64,
    /// Whether the unembedding is wteᵀ.
    pub tied: bool,
    pub activation_function: Activation,
    pub layer_norm_epsilon: f64,
    pub scale_attn_weights: bool,
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The token that `--bos` puts before a prompt.
    pub bos_token_id: Option<u32>,
    /// Kind and size.
    pub tokenizer: String,
    pub tokenizer_vocab_size: usize,
    pub special_tokens: Vec<SpecialToken>,
    /// What was unusual and how it was read, a sentence each.
    pub notes: Vec<String>,
    /// The sparse dictionaries of its activations.
    pub dictionaries: Vec<AboutDictionary>,
}

/// A description of a sparse dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AboutDictionary {
    pub name: String,
    /// The layout of its files, and its architecture.
    pub format: String,
    pub reads: String,
    pub writes: String,
    pub n_features: usize,
    /// Whether it was fitted to prompts that begin with BOS, if that is known.
    pub expects_bos: Option<bool>,
    pub notes: Vec<String>,
}

impl AboutDictionary {
    fn new(of: &Dictionary) -> Self {
        Self {
            name: of.name.clone(),
            format: of.format.clone(),
            reads: of.reads.to_string(),
            writes: of.writes.to_string(),
            n_features: of.n,
            expects_bos: of.expects_bos,
            notes: of.notes.clone(),
        }
    }

    fn line(&self) -> String {
        let bos = if self.expects_bos == Some(true) { " · expects BOS" } else { "" };
        let to = if self.reads == self.writes { String::new() } else { format!(" → {}", self.writes) };
        let notes = self.notes.iter().fold(String::new(), |notes, note| notes + " · " + note);
        let features = count(self.n_features, "feature");
        format!("{} · {}{to} · {features} · {}{bos}{notes}", self.name, self.reads, self.format)
    }
}

/// A token that no text stands for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpecialToken {
    pub id: u32,
    pub text: String,
}

impl About {
    pub fn new(model: &Model) -> Self {
        let (config, from) = (model.config(), &model.provenance);
        Self {
            model: from.model.clone(),
            revision: from.revision.clone(),
            adapter: from.adapter.clone(),
            format: from.format.clone(),
            weights_sha256: from.known_sha256().map(str::to_owned),
            stored_dtype: from.stored_dtype.map(|format| format.to_string()),
            dtype: from.dtype.as_str().to_owned(),
            device: from.device.clone(),
            n_layer: config.n_layer,
            n_head: config.n_head,
            n_embd: config.n_embd,
            d_head: config.d_head(),
            d_mlp: config.d_mlp(),
            vocab_size: config.vocab_size,
            n_positions: config.n_positions,
            n_params: n_params(config),
            tied: config.tie_word_embeddings,
            activation_function: config.activation_function,
            layer_norm_epsilon: config.layer_norm_epsilon,
            scale_attn_weights: config.scale_attn_weights,
            scale_attn_by_inverse_layer_idx: config.scale_attn_by_inverse_layer_idx,
            bos_token_id: config.bos_token_id,
            tokenizer: model.tokenizer.kind(),
            tokenizer_vocab_size: model.tokenizer.vocab_size(),
            special_tokens: (model.tokenizer.special_tokens().into_iter())
                .map(|(id, text)| SpecialToken { id, text })
                .collect(),
            notes: from.notes.clone(),
            dictionaries: model.dictionaries().iter().map(|of| AboutDictionary::new(of)).collect(),
        }
    }

    /// The same in words: names, and what to say of each.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let activation = serde_json::to_value(self.activation_function).unwrap_or_default();
        let number_format = match &self.stored_dtype {
            Some(stored) if *stored != self.dtype => {
                format!("{stored} in the file, computed in {} on {}", self.dtype, self.device)
            }
            _ => format!("{} on {}", self.dtype, self.device),
        };
        let scale = match (self.scale_attn_weights, self.scale_attn_by_inverse_layer_idx) {
            (true, false) => "1/√d_head",
            (true, true) => "1/(√d_head (layer + 1))",
            (false, true) => "1/(layer + 1)",
            (false, false) => "none",
        };
        let bos = match self.bos_token_id {
            Some(id) if (id as usize) < self.vocab_size => format!("token {id}"),
            Some(id) => format!("none: token {id} is outside the vocabulary"),
            None => "none".into(),
        };
        let head = if self.tied { "tied: wteᵀ" } else { "its own: lm_head.weight" };
        let special: Vec<_> =
            self.special_tokens.iter().map(|token| format!("{} ({})", token.text, token.id)).collect();
        let mut lines = vec![("model", self.model.clone())];
        lines.extend(self.revision.clone().map(|revision| ("revision", revision)));
        lines.extend(self.adapter.clone().map(|adapter| ("adapter", adapter)));
        lines.extend([
            ("files", self.format.clone()),
            ("weights sha256", self.weights_sha256.clone().unwrap_or_else(|| "not computed yet".into())),
            ("number format", number_format),
            (
                "sizes",
                format!(
                    "{} · {} · C {} · d_head {} · d_mlp {} · V {} · maxT {}",
                    count(self.n_layer, "layer"),
                    count(self.n_head, "head"),
                    self.n_embd,
                    self.d_head,
                    self.d_mlp,
                    self.vocab_size,
                    self.n_positions
                ),
            ),
            ("parameters", thousands(self.n_params)),
            ("head", head.into()),
            (
                "functions",
                format!(
                    "{} · LayerNorm ε {:e} · score scale {scale}",
                    activation.as_str().unwrap_or_default(),
                    self.layer_norm_epsilon
                ),
            ),
            ("tokenizer", self.tokenizer.clone()),
            ("special tokens", if special.is_empty() { "none".into() } else { special.join(", ") }),
            ("BOS", bos),
        ]);
        lines.extend(self.dictionaries.iter().map(|of| ("dictionary", of.line())));
        lines.extend(self.notes.iter().map(|note| ("note", note.clone())));
        lines
    }
}

/// The numbers in all weights.
fn n_params(config: &Config) -> u64 {
    let [v, t, c, m, l] =
        [config.vocab_size, config.n_positions, config.n_embd, config.d_mlp(), config.n_layer]
            .map(|n| n as u64);
    let head = if config.tie_word_embeddings { 0 } else { v * c };
    let attention = 3 * c * c + 3 * c + c * c + c;
    let block = 4 * c + attention + c * m + m + m * c + c;
    v * c + t * c + l * block + 2 * c + head
}

/// A whole number with commas.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_124m_model_has_as_many_parameters_as_it_is_known_for() {
        assert_eq!(thousands(n_params(&Config::gpt2())), "124,439,808");
        assert_eq!(thousands(12), "12");
    }
}
