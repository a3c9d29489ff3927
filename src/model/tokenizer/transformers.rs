//! `tokenizer.json`, `vocab.json` with `merges.txt`, and `vocab.txt`, with the settings beside them, as
//! transformers 5 reads them: its class `GPT2Tokenizer` makes the tokenizer anew from pieces and merges, and
//! `RobertaTokenizer` and `BertTokenizer` do likewise; others take `tokenizer.json` as it stands.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::Recipe;
use super::components::{kind, model_kind, steps};

/// The files beside a tokenizer's own, as far as they are there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beside {
    /// `tokenizer_class` of `config.json`.
    pub class: Option<String>,
    /// `tokenizer_config.json`.
    pub settings: Value,
    /// `special_tokens_map.json`.
    pub special_tokens: Value,
    /// `added_tokens.json`.
    pub added_tokens: Value,
}

impl Beside {
    /// The tokenizer's class, by transformers's name.
    fn class(&self) -> Option<&str> {
        let named = self.settings["tokenizer_class"].as_str().or(self.class.as_deref())?;
        Some(named.strip_suffix("Fast").unwrap_or(named))
    }

    fn says(&self, setting: &str) -> bool {
        self.settings[setting] == true
    }
}

/// The named special tokens, in the order in which they are added.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// What they are where nothing names them.
type Defaults = &'static [(&'static str, &'static str)];
const GPT2: Defaults =
    &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")];
const ROBERTA: Defaults = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];
const BERT: Defaults = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// A `tokenizer.json` and what lies beside it.
pub fn from_json(json: Value, beside: &Beside) -> Recipe {
    let model = model_kind(&json["model"]).to_owned();
    match (beside.class(), &*model) {
        (Some("RobertaTokenizer"), "BPE") => roberta(json, beside),
        (Some("BertTokenizer"), "WordPiece") => bert(json, beside),
        (Some("GPT2Tokenizer"), "BPE") => {
            let lost = lost(&json, beside);
            let (mut recipe, _) = gpt2(json, beside);
            if !lost.is_empty() {
                recipe.notes.push(format!(
                    "of tokenizer.json, {} is left out, as transformers's GPT2Tokenizer does",
                    lost.join(" and ")
                ));
            }
            recipe
        }
        (None, "BPE") if lost(&json, beside).is_empty() => gpt2(json, beside).0,
        (class, _) => {
            let mut notes = Vec::new();
            if class.is_none() && model == "BPE" {
                notes.push(format!(
                    "tokenizer.json is read as it stands; transformers, where no file names a tokenizer_class, would \
                     leave out its {}",
                    lost(&json, beside).join(" and its ")
                ));
            }
            let mut recipe = Recipe { json, notes, ..Recipe::default() };
            let own: Vec<_> = listed(&recipe.json).into_iter().map(|(_, token)| token).collect();
            let more = tokens(beside, &recipe.json, &[], &own);
            recipe.json["added_tokens"] = own.iter().chain(&more.all).map(to_json).collect();
            recipe
        }
    }
}

/// GPT-2's original pair of files: pieces, and lines of merges.
pub fn from_pair(pieces: &Value, merges: &str, beside: &Beside) -> Recipe {
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merges: Value = lines.map(str::to_owned).collect();
    let json = json!({ "version": "1.0", "model": { "type": "BPE", "vocab": pieces, "merges": merges } });
    if beside.class() == Some("RobertaTokenizer") {
        return roberta(json, beside);
    }
    let (mut recipe, tokens) = gpt2(json, beside);
    let names = |setting, name| tokens.named.get(name).filter(|_| beside.says(setting)).cloned();
    recipe.around = [("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")]
        .map(|(setting, name)| names(setting, name).into_iter().collect());
    recipe
}

/// BERT's list of pieces, one a line.
pub fn from_vocab_txt(text: &str, beside: &Beside) -> Recipe {
    let pieces = text.lines().map(|line| line.trim_end().to_owned());
    let pieces: Map<String, Value> = pieces.enumerate().map(|(id, piece)| (piece, id.into())).collect();
    let json = json!({ "version": "1.0", "model": { "type": "WordPiece", "vocab": pieces } });
    let mut recipe = bert(json, beside);
    if beside.class() != Some("BertTokenizer") {
        recipe.notes.push("vocab.txt is read as BERT's: nothing beside it says what it is".into());
    }
    recipe
}

fn gpt2(mut json: Value, beside: &Beside) -> (Recipe, Tokens) {
    let post_processor = json["post_processor"].take();
    let tokens = tokens(beside, &json, GPT2, &[]);
    let mut recipe = byte_level(json, beside, &tokens);
    recipe.json["post_processor"] = post_processor;
    (recipe, tokens)
}

fn roberta(json: Value, beside: &Beside) -> Recipe {
    let tokens = tokens(beside, &json, ROBERTA, &[]);
    Recipe { around: tokens.cls_and_sep(), ..byte_level(json, beside, &tokens) }
}

/// A byte-level BPE of the same pieces and merges, and nothing else of `json`.
fn byte_level(mut json: Value, beside: &Beside, tokens: &Tokens) -> Recipe {
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": beside.says("add_prefix_space"), "trim_offsets": true, "use_regex": true
    });
    let model = &mut json["model"];
    let json = json!({
        "version": "1.0",
        "added_tokens": tokens.to_json(),
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": model["vocab"].take(), "merges": model["merges"].take() },
    });
    Recipe { json, ..Recipe::default() }
}

fn bert(mut json: Value, beside: &Beside) -> Recipe {
    let tokens = tokens(beside, &json, BERT, &[]);
    let setting = |name: &str, default: Value| beside.settings.get(name).cloned().unwrap_or(default);
    let json = json!({
        "version": "1.0",
        "added_tokens": tokens.to_json(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": setting("tokenize_chinese_chars", true.into()),
            "strip_accents": setting("strip_accents", Value::Null),
            "lowercase": setting("do_lower_case", true.into()),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "vocab": json["model"]["vocab"].take(),
            "unk_token": tokens.named.get("unk_token"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    });
    Recipe { json, around: tokens.cls_and_sep(), ..Recipe::default() }
}

/// What `GPT2Tokenizer` would leave out of a `tokenizer.json`.
fn lost(json: &Value, beside: &Beside) -> Vec<&'static str> {
    let one = |component: &str| match &steps(&json[component], "").unwrap_or_default()[..] {
        [step] => (kind(step) == "ByteLevel").then_some((*step).clone()),
        _ => None,
    };
    let same = |step: Value| {
        step["use_regex"] != false && (step["add_prefix_space"] != true || beside.says("add_prefix_space"))
    };
    let model = &json["model"];
    let set = |name: &str| model[name].as_str().is_some_and(|text| !text.is_empty());
    let settings = set("continuing_subword_prefix") || set("end_of_word_suffix");
    let mut lost = Vec::new();
    for (is_lost, name) in [
        (!json["normalizer"].is_null(), "normalizer"),
        (!one("pre_tokenizer").is_some_and(same), "pre-tokenizer"),
        (one("decoder").is_none(), "decoder"),
        (settings || model["byte_fallback"] == true || model["ignore_merges"] == true, "way of merging"),
    ] {
        lost.extend(is_lost.then_some(name));
    }
    lost
}

/// From text, or an object as Python writes it.
fn added(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(content) = value.as_str() {
        return Some(AddedToken::from(content, special));
    }
    let flag = |name: &str| value[name].as_bool();
    let special = special || flag("special").unwrap_or(false);
    let token = AddedToken::from(value["content"].as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}

/// For `added_tokens` of a `tokenizer.json`. An id is required, and not looked at: see `tokenizers`'
/// `add_tokens`.
fn to_json(token: &AddedToken) -> Value {
    let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
    json!({
        "id": 0, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
        "normalized": normalized, "special": special
    })
}

/// The tokens to add, and the named ones among them.
struct Tokens {
    all: Vec<AddedToken>,
    named: HashMap<String, String>,
}

impl Tokens {
    fn to_json(&self) -> Value {
        self.all.iter().map(to_json).collect()
    }

    fn cls_and_sep(&self) -> [Vec<String>; 2] {
        ["cls_token", "sep_token"].map(|name| self.named.get(name).cloned().into_iter().collect())
    }
}

/// The added tokens of a `tokenizer.json`, and the ids that they say they have.
fn listed(json: &Value) -> Vec<(u64, AddedToken)> {
    let tokens = json["added_tokens"].as_array().into_iter().flatten();
    tokens.filter_map(|token| Some((token["id"].as_u64().unwrap_or(0), added(token, false)?))).collect()
}

/// All added tokens, in transformers's order: those with ids, by id; then the named ones; then the rest.
/// `known` are those that the tokenizer has anyway.
fn tokens(beside: &Beside, json: &Value, defaults: Defaults, known: &[AddedToken]) -> Tokens {
    let mut settings = beside.settings.as_object().cloned().unwrap_or_default();
    if let Some(pad) = json["padding"].get("pad_token").filter(|_| defaults.is_empty()) {
        settings.entry("pad_token").or_insert_with(|| pad.clone());
    }
    let mut by_id = BTreeMap::new();
    if let Some(decoder) = settings.get("added_tokens_decoder").and_then(Value::as_object) {
        let tokens = decoder.iter().filter_map(|(id, token)| Some((id.parse().ok()?, added(token, false)?)));
        by_id.extend(tokens);
    } else {
        // Written by transformers 4 and older.
        let map = beside.special_tokens.as_object().cloned().unwrap_or_default();
        settings.extend(map.into_iter().map(|(name, mut token)| {
            if token.is_object() && name != "extra_special_tokens" {
                token["special"] = true.into();
            }
            (name, token)
        }));
        let special = NAMED.iter().filter_map(|&name| settings.get(name)).chain(extra(&settings));
        let special: HashSet<_> = special.filter_map(|token| added(token, true)).map(|t| t.content).collect();
        for (content, id) in beside.added_tokens.as_object().into_iter().flatten() {
            by_id.extend(id.as_u64().map(|id| (id, AddedToken::from(&**content, special.contains(content)))));
        }
        by_id.extend(listed(json));
    }
    let flags: HashMap<&str, &AddedToken> = by_id.values().map(|token| (&*token.content, token)).collect();
    let mut named = Vec::new();
    for name in NAMED {
        let default = defaults.iter().find(|(default, _)| *default == name);
        let default = default.map(|(_, content)| AddedToken::from(&**content, true));
        let token = match settings.get(name) {
            Some(value) => added(value, true),
            None => default,
        };
        named.extend(token.map(|token| (name.to_owned(), token)));
    }
    // Names that only some models have: `image_token`.
    let others = settings.iter().filter(|(name, _)| name.ends_with("_token") && !NAMED.contains(&&***name));
    named.extend(others.filter_map(|(name, token)| Some((name.clone(), added(token, true)?))));
    for (_, token) in &mut named {
        if let Some(&same) = flags.get(&*token.content) {
            *token = same.clone();
        }
    }
    let mut all: Vec<AddedToken> = by_id.values().cloned().collect();
    let mut known: HashSet<String> = all.iter().chain(known).map(|token| token.content.clone()).collect();
    let rest = extra(&settings).filter_map(|token| added(token, true));
    let more = named.iter().map(|(_, token)| token.clone()).chain(rest);
    all.extend(more.filter(|token| known.insert(token.content.clone())));
    for token in &mut all {
        token.special |= named.iter().any(|(_, named)| named.content == token.content);
    }
    Tokens { all, named: named.into_iter().map(|(name, token)| (name, token.content)).collect() }
}

/// Special tokens without a name.
fn extra(settings: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let list = |name: &str| settings.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
    list("extra_special_tokens").or_else(|| list("additional_special_tokens")).into_iter().flatten()
}
