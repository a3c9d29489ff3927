//! `config.json`: the sizes and switches of a GPT-2.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, out_of_range};

/// The fields of Hugging Face's `GPT2Config` that affect the computation, with the same defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// V, the number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// maxT, the longest prompt.
    pub n_positions: usize,
    /// C, the width of the residual stream.
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Neurons of the MLP; `None` means 4 C.
    pub n_inner: Option<usize>,
    pub activation_function: Activation,
    /// ε of LayerNorm, inside the square root.
    pub layer_norm_epsilon: f64,
    /// Divide scores by √d_head.
    pub scale_attn_weights: bool,
    /// Also divide scores by layer + 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The unembedding is wteᵀ.
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self::gpt2()
    }
}

/// The functions that Hugging Face's GPT-2 accepts as `activation_function`, each with all its
/// names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// 0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))
    #[serde(
        alias = "gelu_pytorch_tanh",
        alias = "gelu_python_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate"
    )]
    GeluNew,
    /// 0.5x(1 + erf(x/√2))
    #[serde(alias = "gelu_python")]
    Gelu,
    /// gelu clipped to −10..=10
    #[serde(rename = "gelu_10")]
    Gelu10,
    /// x · sigmoid(1.702x)
    QuickGelu,
    Relu,
    /// relu(x)²
    Relu2,
    /// min(relu(x), 6)
    Relu6,
    /// x, or 0.01 · x below 0
    LeakyRelu,
    /// x · sigmoid(x)
    #[serde(alias = "swish")]
    Silu,
    Tanh,
    Sigmoid,
    /// x · tanh(ln(1 + eˣ))
    Mish,
    Linear,
}

impl Config {
    /// The 124M-parameter GPT-2.
    pub fn gpt2() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluNew,
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
        }
    }

    /// Width of one attention head, C / n_head.
    pub fn d_head(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Neurons of the MLP.
    pub fn d_mlp(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// The factor that the scores of block `layer` are multiplied by.
    pub fn attn_scale(&self, layer: usize) -> f64 {
        let by_width = if self.scale_attn_weights { (self.d_head() as f64).sqrt().recip() } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { by_width / (layer + 1) as f64 } else { by_width }
    }

    /// Parses the text of a `config.json`; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] if it is not JSON, not a GPT-2, or has impossible sizes.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let fail = |problem: String| Err(Error::file(path, problem));
        let value: serde_json::Value = match serde_json::from_slice(json) {
            Ok(value) => value,
            Err(error) => return fail(format!("is not JSON ({error}); download it again")),
        };
        if !value.is_object() {
            return fail("is not a model configuration: it is not a JSON object".into());
        }
        match value.get("model_type").and_then(|v| v.as_str()) {
            Some("gpt2") => {}
            Some(other) => {
                return fail(format!(
                    "model_type is `{other}`, but actscope only reads `gpt2`; choose a GPT-2 checkpoint"
                ));
            }
            None => {
                return fail(
                    "has no model_type, so it may not be a GPT-2; \
                     add \"model_type\": \"gpt2\" if it is one"
                        .into(),
                );
            }
        }
        if value.get("add_cross_attention") == Some(&true.into()) {
            return fail("add_cross_attention is true, but actscope only reads decoders".into());
        }
        match serde_json::from_value::<Self>(value) {
            Ok(config) => config.checked(path),
            Err(error) => fail(format!("cannot be used: {error}")),
        }
    }

    fn checked(self, path: &Path) -> Result<Self> {
        const MOST: usize = 1 << 24;
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.d_mlp()),
        ];
        if let Some((field, n)) = sizes.into_iter().find(|(_, n)| !(1..=MOST).contains(n)) {
            return Err(Error::file(path, out_of_range(field, n, 1..MOST + 1)));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let problem = format!("n_embd {} is not a multiple of n_head {}", self.n_embd, self.n_head);
            return Err(Error::file(path, problem));
        }
        if !(self.layer_norm_epsilon >= 0.0 && self.layer_norm_epsilon.is_finite()) {
            let problem = format!("layer_norm_epsilon {} is not a number ≥ 0", self.layer_norm_epsilon);
            return Err(Error::file(path, problem));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config> {
        Config::from_json(json.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn defaults_are_those_of_the_124m_model() {
        assert_eq!(read(r#"{"model_type":"gpt2"}"#).unwrap(), Config::gpt2());
    }

    #[test]
    fn each_refusal_names_the_field() {
        for (json, word) in [
            ("", "not JSON"),
            ("[]", "object"),
            ("{}", "model_type"),
            (r#"{"model_type":"llama"}"#, "llama"),
            (r#"{"model_type":"gpt2","n_embd":100,"n_head":3}"#, "n_head 3"),
            (r#"{"model_type":"gpt2","n_layer":0}"#, "n_layer"),
            (r#"{"model_type":"gpt2","n_layer":-1}"#, "-1"),
            (r#"{"model_type":"gpt2","activation_function":"swiglu"}"#, "swiglu"),
            (r#"{"model_type":"gpt2","n_head":0}"#, "n_head"),
            (r#"{"model_type":"gpt2","n_embd":18446744073709551615}"#, "n_embd"),
        ] {
            let said = read(json).unwrap_err().to_string();
            assert!(said.starts_with("config.json: ") && said.contains(word), "{json}: {said}");
        }
    }

    #[test]
    fn scale_follows_both_switches() {
        let config = Config { scale_attn_by_inverse_layer_idx: true, ..Config::gpt2() };
        assert!((config.attn_scale(3) - 0.125 / 4.0).abs() < 1e-12);
        let config = Config { scale_attn_weights: false, ..Config::gpt2() };
        assert!((config.attn_scale(3) - 1.0).abs() < 1e-12);
    }
}
