//! The words of the walk: `assets/walk.toml`, read once.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde::Deserialize;

use super::Kind;
use crate::model::Activation;

/// When a [`Variant`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Condition {
    /// The model has no tokenizer.
    Ids,
    /// BOS stands before the prompt.
    Bos,
    /// Both.
    BosIds,
    /// The tokenizer changes a text before it cuts it, or adds to it.
    Inexact,
    /// The prompt is token ids, though there is a tokenizer: tokens were appended.
    Appended,
    /// The token is the first.
    First,
    /// A block after the first.
    Later,
    LastBlock,
    OneHead,
    /// Scores are not divided at all.
    Unscaled,
    /// Scores are divided by √d_head and the block's number.
    Inverse,
    /// Scores are divided by the block's number alone.
    InverseUnscaled,
    /// The unembedding is not wteᵀ.
    Untied,
    /// The activation function is not of the gelu family.
    OtherCurve,
    Linear,
    /// Temperature 0.
    Greedy,
    /// The token is not the last one.
    Inside,
    /// The prompt is as long as the context.
    Full,
}

/// The words of a step.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    pub title: String,
    pub text: String,
    pub formula: String,
    pub shapes: String,
    pub next: String,
    pub check: String,
    #[serde(default)]
    pub keys: String,
    #[serde(default)]
    when: Vec<Variant>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    is: Condition,
    title: Option<String>,
    text: Option<String>,
    formula: Option<String>,
    shapes: Option<String>,
    next: Option<String>,
    check: Option<String>,
    keys: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    step: HashMap<Kind, Entry>,
    labels: HashMap<String, String>,
}

fn words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| {
        toml::from_str(include_str!("../../../assets/walk.toml")).expect("a test reads assets/walk.toml")
    })
}

/// The words of a step as they stand in the file.
pub(super) fn entry(kind: Kind) -> &'static Entry {
    &words().step[&kind]
}

/// A word for the heads of tables and the names of values; the key itself if the file has none.
pub fn label(key: &'static str) -> &'static str {
    words().labels.get(key).map_or(key, String::as_str)
}

/// A sentence of the note that `actscope walk` writes, its placeholders filled.
pub fn phrase(key: &'static str, values: &[(&'static str, &dyn std::fmt::Display)]) -> String {
    let mut filled = Values::default();
    for (name, value) in values {
        filled.set(name, value);
    }
    filled.fill(label(key))
}

impl Entry {
    /// The entry with what replaces parts of it where `holds`, its placeholders filled.
    pub fn for_case(&self, holds: impl Fn(Condition) -> bool, values: &Values) -> Self {
        let mut entry = self.clone();
        for variant in self.when.iter().filter(|variant| holds(variant.is)) {
            for (place, other) in [
                (&mut entry.title, &variant.title),
                (&mut entry.text, &variant.text),
                (&mut entry.formula, &variant.formula),
                (&mut entry.shapes, &variant.shapes),
                (&mut entry.next, &variant.next),
                (&mut entry.check, &variant.check),
                (&mut entry.keys, &variant.keys),
            ] {
                if let Some(other) = other {
                    place.clone_from(other);
                }
            }
        }
        for place in [
            &mut entry.title,
            &mut entry.text,
            &mut entry.formula,
            &mut entry.shapes,
            &mut entry.next,
            &mut entry.check,
            &mut entry.keys,
        ] {
            *place = values.fill(place);
        }
        entry
    }
}

/// What stands for `{name}` in the words.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, String>);

impl Values {
    #[allow(clippy::needless_pass_by_value)] // numbers and texts alike
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.0.insert(name, value.to_string());
    }

    /// `text` with each known `{name}` replaced; what is put in is not looked at again.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            rest = &rest[open..];
            let known = rest.find('}').and_then(|close| Some((self.0.get(&rest[1..close])?, close)));
            if let Some((value, close)) = known {
                filled.push_str(value);
                rest = &rest[close + 1..];
            } else {
                filled.push('{');
                rest = &rest[1..];
            }
        }
        filled + rest
    }
}

/// The name of an activation function in `config.json`, and its formula for x = pre\[t\].
pub(super) fn curve(activation: Activation) -> (&'static str, &'static str) {
    match activation {
        Activation::GeluNew => {
            ("gelu_new", "0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))),  x = pre[t]")
        }
        Activation::Gelu => ("gelu", "0.5 · x · (1 + erf(x / √2)),  x = pre[t]"),
        Activation::Gelu10 => ("gelu_10", "gelu(pre[t]), clipped to −10 … 10"),
        Activation::QuickGelu => ("quick_gelu", "x · sigmoid(1.702 · x),  x = pre[t]"),
        Activation::Relu => ("relu", "max(0, pre[t])"),
        Activation::Relu2 => ("relu2", "max(0, pre[t])²"),
        Activation::Relu6 => ("relu6", "min(max(0, pre[t]), 6)"),
        Activation::LeakyRelu => ("leaky_relu", "x if x ≥ 0, 0.01 · x if x < 0,  x = pre[t]"),
        Activation::Silu => ("silu", "x · sigmoid(x),  x = pre[t]"),
        Activation::Tanh => ("tanh", "tanh(pre[t])"),
        Activation::Sigmoid => ("sigmoid", "1 / (1 + e^−pre[t])"),
        Activation::Mish => ("mish", "x · tanh(ln(1 + eˣ)),  x = pre[t]"),
        Activation::Linear => ("linear", "pre[t]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_words() {
        let all = Kind::BEFORE.into_iter().chain(Kind::BLOCK).chain(Kind::AFTER);
        for kind in all.clone() {
            let Entry { name, title, text, formula, shapes, next, check, .. } = entry(kind);
            for words in [name, title, text, formula, shapes, next, check] {
                assert!(!words.trim().is_empty(), "{kind:?}");
            }
        }
        assert_eq!(words().step.len(), all.count());
    }

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        let mut values = Values::default();
        values.set("token", "{t}");
        values.set("t", 3);
        assert_eq!(values.fill("{token} at {t}, {x} {"), "{t} at 3, {x} {");
    }
}
