//! The accepted components of a `tokenizer.json`, each with a bound on how much
//! longer it can make a text. Anything not listed here is refused by name.

use std::collections::HashMap;

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

/// The regexes of a real tokenizer have a few hundred bytes.
const LONGEST_REGEX: usize = 1024;
/// The compiled size, for each part that needs no backtracking.
const LARGEST_REGEX: usize = 1 << 18;
const MOST_STEPS: usize = 64;
/// The largest vocabularies have 900 000.
const MOST_PIECES: usize = 1 << 20;
/// Far more than any step of real tokenizers, or all of them together.
const MOST_GROWTH: usize = 1 << 12;
/// The length of names such as `<unk>` and `</w>`.
const LONGEST_NAME: usize = 64;

/// What running a tokenizer needs besides itself.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The factor by which a text can grow on the way to its tokens.
    pub growth: usize,
    /// The regexes that it splits by.
    pub regexes: HashMap<String, Regex>,
}

/// Checks all components except the model.
///
/// # Errors
/// What is unknown or unbounded, in a few words.
pub fn check(json: &Value) -> Result<Bounds, String> {
    let mut bounds = Bounds { growth: 1, regexes: HashMap::new() };
    for step in steps(&json["normalizer"], "normalizers")? {
        bounds.growth = bounds.growth.saturating_mul(normalizer(step)?);
    }
    for step in steps(&json["pre_tokenizer"], "pretokenizers")? {
        bounds.growth = bounds.growth.saturating_mul(pre_tokenizer(step, &mut bounds.regexes)?);
    }
    if bounds.growth > MOST_GROWTH {
        return Err(format!("it can make a text {} times as long", bounds.growth));
    }
    for step in steps(&json["post_processor"], "processors")? {
        post_processor(step)?;
    }
    for step in steps(&json["decoder"], "decoders")? {
        decoder(step)?;
    }
    Ok(bounds)
}

/// A component, or those of a sequence one after the other.
fn steps<'a>(component: &'a Value, list: &str) -> Result<Vec<&'a Value>, String> {
    if component.is_null() {
        return Ok(Vec::new());
    }
    if component["type"] != "Sequence" {
        return Ok(vec![component]);
    }
    let parts = component[list].as_array().ok_or_else(|| format!("a Sequence has no list of {list}"))?;
    let mut all = Vec::new();
    for part in parts {
        all.extend(steps(part, list)?);
        if all.len() > MOST_STEPS {
            return Err(format!("it has more than {MOST_STEPS} {list}"));
        }
    }
    Ok(all)
}

// Bytes, at worst: the growth of Unicode's forms is in UAX #15, of lowercase from two bytes to three.
fn normalizer(step: &Value) -> Result<usize, String> {
    Ok(match kind(step) {
        "Nmt" | "Strip" | "StripAccents" => 1,
        "ByteLevel" | "Lowercase" => 2,
        "NFC" | "NFD" => 3,
        "NFKC" | "NFKD" => 11,
        // Spaces around each Chinese character, NFD, lowercase.
        "BertNormalizer" => 2 * 3 * 2,
        "Prepend" => 1 + text(step, "prepend")?.len(),
        "Replace" => {
            let shortest = shortest_match(&step["pattern"])?;
            text(step, "content")?.len().div_ceil(shortest).max(1)
        }
        "Precompiled" => return Err("its normalizer is precompiled, which is not supported".into()),
        other => return Err(unknown("normalizer", other)),
    })
}

fn pre_tokenizer(step: &Value, regexes: &mut HashMap<String, Regex>) -> Result<usize, String> {
    Ok(match kind(step) {
        "BertPreTokenizer" | "CharDelimiterSplit" | "Digits" | "Punctuation" | "UnicodeScripts"
        | "Whitespace" | "WhitespaceSplit" => 1,
        "FixedLength" => {
            if step["length"] == 0 {
                return Err("its pre_tokenizer cuts text into empty pieces".into());
            }
            1
        }
        "Split" => {
            if let Some(pattern) = step["pattern"]["Regex"].as_str() {
                regexes.insert(pattern.to_owned(), regex(pattern)?);
                if regexes.keys().map(String::len).sum::<usize>() > LONGEST_REGEX {
                    return Err("its regexes are too long".into());
                }
            }
            1
        }
        // A space before each piece, then two bytes for each byte.
        "ByteLevel" => 2 * if step["add_prefix_space"] == true { 2 } else { 1 },
        // Instead of each space, and before each piece.
        "Metaspace" => 2 * text(step, "replacement")?.len().max(1),
        other => return Err(unknown("pre_tokenizer", other)),
    })
}

// These two are not run: a prompt gets no special tokens, and tokens are shown byte by byte.

fn post_processor(step: &Value) -> Result<(), String> {
    match kind(step) {
        "BertProcessing" | "ByteLevel" | "RobertaProcessing" | "TemplateProcessing" => Ok(()),
        other => Err(unknown("post_processor", other)),
    }
}

fn decoder(step: &Value) -> Result<(), String> {
    match kind(step) {
        "BPEDecoder" | "ByteFallback" | "ByteLevel" | "CTC" | "Fuse" | "Metaspace" | "Replace" | "Strip"
        | "WordPiece" => Ok(()),
        other => Err(unknown("decoder", other)),
    }
}

/// Checks the model.
pub fn model(model: &Value) -> Result<(), String> {
    // Old files, from before there were other types, have no type.
    match model["type"].as_str() {
        Some("BPE") | None => bpe(model),
        Some(other) => Err(format!("model.type is `{}`", short(other))),
    }
}

fn bpe(model: &Value) -> Result<(), String> {
    if model["continuing_subword_prefix"].as_str().is_some_and(|prefix| !prefix.is_empty()) {
        return Err("model.continuing_subword_prefix is set".into());
    }
    for name in ["unk_token", "end_of_word_suffix"] {
        if model[name].as_str().is_some_and(|text| text.len() > LONGEST_NAME) {
            return Err(format!("model.{name} is longer than {LONGEST_NAME} bytes"));
        }
    }
    vocab(&model["vocab"])?;
    merges(&model["merges"], &model["vocab"])
}

/// Checks that each piece has its own id.
pub fn vocab(vocab: &Value) -> Result<(), String> {
    let vocab = vocab.as_object().ok_or("the vocabulary is not a JSON object")?;
    if vocab.len() > MOST_PIECES {
        return Err(format!("the vocabulary has {} pieces, which is too many", vocab.len()));
    }
    let mut ids = Vec::with_capacity(vocab.len());
    for (piece, id) in vocab {
        let whole = id.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.push(whole.ok_or_else(|| {
            format!("the vocabulary has {} as the id of `{}`", short(&id.to_string()), short(piece))
        })?);
    }
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("the vocabulary has two pieces with the id {}", pair[0])),
        None => Ok(()),
    }
}

/// Checks that each merge, `"a b"` or `["a", "b"]`, joins two pieces of the vocabulary to a third.
pub fn merges(merges: &Value, vocab: &Value) -> Result<(), String> {
    let merges = merges.as_array().ok_or("the merges are not a list")?;
    let known = |piece: &str| vocab.get(piece).is_some();
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) => line.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        if !pair.is_some_and(|(a, b)| known(a) && known(b) && known(&format!("{a}{b}"))) {
            let merge = short(&merge.to_string());
            return Err(format!("merge {} is {merge}, which does not join two tokens to a third", i + 1));
        }
    }
    Ok(())
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("without a type")
}

fn text<'a>(step: &'a Value, field: &str) -> Result<&'a str, String> {
    step[field].as_str().ok_or_else(|| format!("the {field} of {} is not text", short(kind(step))))
}

fn unknown(component: &str, kind: &str) -> String {
    format!("its {component} is `{}`, which is not supported", short(kind))
}

/// The minimum bytes that a pattern matches: not zero, or it would match between all characters.
fn shortest_match(pattern: &Value) -> Result<usize, String> {
    let shortest = match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
        (Some(text), _) => Some(text.len()),
        (None, Some(pattern)) => {
            regex(pattern)?;
            // Others can backtrack so much that matching is given up, and the rest is not replaced.
            let parsed = regex_syntax::parse(pattern);
            let parsed = parsed.map_err(|_| {
                format!("it replaces with a regex that uses look-around, `{}`", short(pattern))
            })?;
            parsed.properties().minimum_len()
        }
        (None, None) => None,
    };
    shortest.filter(|&bytes| bytes > 0).ok_or_else(|| "it replaces empty matches".into())
}

fn regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LONGEST_REGEX {
        return Err(format!("it has a regex of {} bytes, `{}`", pattern.len(), short(pattern)));
    }
    let regex = RegexBuilder::new(pattern).delegate_size_limit(LARGEST_REGEX).build();
    regex.map_err(|_| format!("it has a regex that is invalid or too large, `{}`", short(pattern)))
}

/// The start of a text that may be very long.
pub fn short(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
