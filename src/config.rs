//! `config.json`: the sizes and switches of a GPT-2.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result, out_of_range};
use crate::sniff::Looks;
use crate::text;

/// The fields of Hugging Face's `GPT2Config` that affect the computation, with the same defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// A `config.json` that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadConfig {
    pub config: Config,
    /// The sizes that it does not give.
    pub defaults: Vec<&'static str>,
    /// What was unusual, a sentence each, and how it was read.
    pub notes: Vec<String>,
}

/// The other names of sizes. transformers reads all but `n_ctx`, which older versions wrote.
const ALIASES: [(&str, &str); 5] = [
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("max_position_embeddings", "n_positions"),
    ("n_ctx", "n_positions"),
];

/// The fields of [`Config`].
const FIELDS: [&str; 12] = [
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
    "bos_token_id",
];

/// Those that may be null.
const OPTIONAL: [&str; 2] = ["n_inner", "bos_token_id"];

/// The sizes that every configuration should give.
const SIZES: [&str; 5] = ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head"];

/// The fields of [`Config`] among `fields`, by their own names and each of the right type; and the
/// sizes that are missing.
fn known_fields(
    fields: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(Map<String, Value>, Vec<&'static str>), String> {
    let mut known = Map::new();
    for name in FIELDS {
        match fields.get(name) {
            Some(Value::Null) if !OPTIONAL.contains(&name) => {
                notes.push(format!("{name} is null, read as the default"));
            }
            Some(value) => {
                known.insert(name.into(), value.clone());
            }
            None => {}
        }
    }
    for (alias, name) in ALIASES {
        match (fields.get(alias), known.get(name)) {
            (None | Some(Value::Null), _) => {}
            (Some(value), None) => {
                notes.push(format!("{name} is given as {alias}"));
                known.insert(name.into(), value.clone());
            }
            (Some(value), Some(other)) if value != other && alias != "n_ctx" => {
                return Err(format!(
                    "{name} is {other}, but {alias}, its other name, is {value}; remove one"
                ));
            }
            _ => {}
        }
    }
    let bos = match known.get("bos_token_id") {
        Some(Value::Array(ids)) => Some(ids.first().cloned().unwrap_or_default()),
        Some(Value::Number(id)) if id.as_i64() == Some(-1) => Some(Value::Null),
        _ => None,
    };
    if let Some(bos) = bos {
        notes.push(format!("bos_token_id is {}, read as {bos}", fields["bos_token_id"]));
        known.insert("bos_token_id".into(), bos);
    }
    for (name, value) in &known {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<Config>(Value::Object(alone)) {
            return Err(format!("{name} is {value}, which cannot be used ({error})"));
        }
    }
    let defaults: Vec<_> = SIZES.into_iter().filter(|&name| !known.contains_key(name)).collect();
    let default = serde_json::json!({
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12
    });
    notes.extend(
        defaults.iter().map(|name| format!("{name} is not given, read as {}, the default", default[name])),
    );
    Ok((known, defaults))
}

/// JSON as Python writes it: NaN, Infinity and numbers beyond float64 become strings. Returns how many.
fn finite(json: &[u8]) -> (Vec<u8>, usize) {
    let (mut out, mut n, mut at) = (Vec::with_capacity(json.len()), 0, 0);
    while at < json.len() {
        let rest = &json[at..];
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = match rest[0] {
            b'"' => {
                let mut end = 1;
                while end < rest.len() && rest[end] != b'"' {
                    end += 1 + usize::from(rest[end] == b'\\');
                }
                (end + 1).min(rest.len())
            }
            byte if is_word(&byte) => rest.iter().take_while(|byte| is_word(byte)).count(),
            _ => 1,
        };
        let word = &rest[..length];
        let number = std::str::from_utf8(word).ok().filter(|_| is_word(&word[0]));
        if number.and_then(|word| word.parse::<f64>().ok()).is_some_and(|x| !x.is_finite()) {
            n += 1;
            out.extend([b"\"", word, b"\""].concat());
        } else {
            out.extend(word);
        }
        at += length;
    }
    (out, n)
}

/// The functions that Hugging Face's GPT-2 accepts as `activation_function`, each with all its
/// names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// The problem with quantised weights, and the way out.
pub fn quantised(method: &str) -> String {
    let method = text::brief(method, 40);
    format!(
        "the weights are quantised ({method}), which actscope does not read; use the checkpoint they were made \
         from, or dequantise them with transformers and save the model"
    )
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

    /// Parses the text of a `config.json`, as transformers reads it; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] if it is not JSON, not a GPT-2, has impossible sizes, or gives two values for
    /// the same size.
    pub fn from_json(json: &[u8], path: &Path) -> Result<ReadConfig> {
        let fail = |problem: String| Err(Error::file(path, problem));
        let mut notes = Vec::new();
        let json = json.strip_prefix(b"\xef\xbb\xbf").map_or(json, |rest| {
            notes.push("config.json begins with a byte-order mark".into());
            rest
        });
        let (json, n_not_finite) = finite(json);
        if n_not_finite > 0 {
            notes.push(
                "config.json holds NaN, Infinity or numbers too large, in fields that are not used".into(),
            );
        }
        let value: Value = match serde_json::from_slice(&json) {
            Ok(value) => value,
            Err(error) => {
                let looks = Looks::of(&json).map(|looks| looks.sentence().to_owned());
                return fail(looks.unwrap_or_else(|| format!("is not JSON ({error}); download it again")));
            }
        };
        let Value::Object(fields) = value else {
            return fail("is not a model configuration: it is not a JSON object".into());
        };
        match fields.get("model_type").and_then(Value::as_str) {
            Some("gpt2") => {}
            Some(other) if other.eq_ignore_ascii_case("gpt2") => {
                notes.push(format!("model_type is `{other}`, read as `gpt2`"));
            }
            Some(other) => {
                return fail(format!(
                    "model_type is `{other}`, but actscope only reads `gpt2`; choose a GPT-2 checkpoint"
                ));
            }
            None => notes.push("config.json has no model_type, read as `gpt2`".into()),
        }
        if fields.get("add_cross_attention") == Some(&true.into()) {
            return fail("add_cross_attention is true, but actscope only reads decoders".into());
        }
        if let Some(settings) = fields.get("quantization_config").filter(|settings| !settings.is_null()) {
            let by_bits = ["load_in_8bit", "load_in_4bit"].iter().any(|name| settings[name] == true);
            let method = settings["quant_method"].as_str();
            let method = method.unwrap_or(if by_bits { "bitsandbytes" } else { "by an unknown method" });
            return fail(quantised(method));
        }
        let (known, defaults) = match known_fields(&fields, &mut notes) {
            Ok(read) => read,
            Err(problem) => return fail(problem),
        };
        match serde_json::from_value::<Self>(Value::Object(known)) {
            Ok(config) => Ok(ReadConfig { config: config.checked(&defaults, path)?, defaults, notes }),
            Err(error) => fail(format!("cannot be used: {error}")),
        }
    }

    /// Refuses impossible sizes; `path` is for errors.
    pub(crate) fn checked(self, defaults: &[&str], path: &Path) -> Result<Self> {
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
            let default =
                if defaults.contains(&"n_head") { ", the default, as it has no n_head" } else { "" };
            let problem =
                format!("n_embd {} is not a multiple of n_head {}{default}", self.n_embd, self.n_head);
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
        Config::from_json(json.as_bytes(), Path::new("config.json")).map(|read| read.config)
    }

    #[test]
    fn defaults_are_those_of_the_124m_model() {
        assert_eq!(read(r#"{"model_type":"gpt2"}"#).unwrap(), Config::gpt2());
    }

    #[test]
    fn each_refusal_names_the_field() {
        for (json, word) in [
            ("", "is empty"),
            ("{", "not JSON"),
            ("[]", "object"),
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
