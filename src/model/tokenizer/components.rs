//! The accepted components of a `tokenizer.json`, each with a bound on how much
//! longer it can make a text. Anything not listed here is refused by name.

use std::collections::{HashMap, HashSet};

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::pieces::char_of;

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
/// Bytes of all pieces of a Unigram model, which takes some hundred bytes for each.
const MOST_UNIGRAM: usize = 1 << 22;
/// Characters of a word that WordPiece cuts, which takes their square; BERT's has 100.
const LONGEST_WORD: u64 = 1000;

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
    let mut growth = 1usize;
    for step in steps(&json["decoder"], "decoders")? {
        growth = growth.saturating_mul(decoder(step)?);
    }
    if growth > MOST_GROWTH {
        return Err(format!("its decoder can make a token {growth} times as long"));
    }
    Ok(bounds)
}

/// A component, or those of a sequence one after the other.
pub fn steps<'a>(component: &'a Value, list: &str) -> Result<Vec<&'a Value>, String> {
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
        "Replace" => replace(step)?,
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

fn decoder(step: &Value) -> Result<usize, String> {
    Ok(match kind(step) {
        "ByteFallback" | "ByteLevel" | "Fuse" | "Strip" => 1,
        // A space for a piece, or for the end of a word.
        "BPEDecoder" | "CTC" | "Metaspace" | "WordPiece" => 2,
        "Replace" => replace(step)?,
        other => return Err(unknown("decoder", other)),
    })
}

/// The ids that a post-processor puts before and after those of a text. It is not run itself.
///
/// # Errors
/// What is unknown, in a few words.
pub fn around(post_processor: &Value) -> Result<[Vec<u32>; 2], String> {
    let [mut before, mut after] = [Vec::new(), Vec::new()];
    for step in steps(post_processor, "processors")? {
        let [outer_before, outer_after] = match kind(step) {
            "ByteLevel" => continue,
            "BertProcessing" | "RobertaProcessing" => {
                let id = |name: &str| token_id(&step[name][1]).map(|id| vec![id]);
                [id("cls")?, id("sep")?]
            }
            "TemplateProcessing" => template(step)?,
            other => return Err(unknown("post_processor", other)),
        };
        before.splice(0..0, outer_before);
        after.extend(outer_after);
    }
    if before.len().max(after.len()) > MOST_STEPS {
        return Err(format!("its post_processor adds more than {MOST_STEPS} tokens"));
    }
    Ok([before, after])
}

fn template(step: &Value) -> Result<[Vec<u32>; 2], String> {
    let pieces = step["single"].as_array().ok_or("its post_processor has no template")?;
    let mut sides = [Vec::new(), Vec::new()];
    let mut side = 0;
    for piece in pieces {
        if piece["Sequence"].is_object() {
            side += 1;
            continue;
        }
        let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
        let ids = step["special_tokens"][name]["ids"].as_array();
        let ids = ids.ok_or_else(|| format!("its post_processor has no ids for `{}`", short(name)))?;
        let side = sides.get_mut(side).ok_or("its post_processor repeats the text")?;
        for id in ids {
            side.push(token_id(id)?);
        }
    }
    if side == 1 { Ok(sides) } else { Err("its post_processor leaves out or repeats the text".into()) }
}

fn token_id(id: &Value) -> Result<u32, String> {
    let whole = id.as_u64().and_then(|id| u32::try_from(id).ok());
    whole.ok_or_else(|| format!("its post_processor has {} as an id", short(&id.to_string())))
}

/// Whether the bytes of the tokens, one after the other, are those of any text.
pub fn is_exact(json: &Value) -> bool {
    let cut = steps(&json["pre_tokenizer"], "pretokenizers").unwrap_or_default();
    let keeps = |step: &&Value| match kind(step) {
        "ByteLevel" => step["add_prefix_space"] != true,
        "Split" | "Punctuation" => step["behavior"] != "Removed",
        "Digits" | "FixedLength" => true,
        _ => false,
    };
    let stripped = |token: &Value| token["lstrip"] == true || token["rstrip"] == true;
    let model = &json["model"];
    let whole = match kind(model) {
        "BPE" => {
            let by_bytes = cut.iter().any(|step| kind(step) == "ByteLevel");
            by_bytes && kind(&json["decoder"]) == "ByteLevel" && unknown_bytes(&model["vocab"]) == 0
        }
        "WordLevel" => kind(&json["decoder"]) == "Fuse",
        _ => false,
    };
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    whole && json["normalizer"].is_null() && cut.iter().all(keeps) && !added.iter().any(stripped)
}

/// What the tokenizer loses without a trace, in a sentence.
pub fn lossy(json: &Value, byte_level: bool) -> Option<String> {
    let model = &json["model"];
    if kind(model) != "BPE" || model["unk_token"].is_string() || model["byte_fallback"] == true {
        return None;
    }
    let what = match unknown_bytes(&model["vocab"]) {
        0 if byte_level => return None,
        n if byte_level => format!("{n} of the 256 bytes are not in its vocabulary"),
        _ => "it has no token for what is unknown".to_owned(),
    };
    Some(format!("the tokenizer leaves out what it does not know, as transformers does: {what}"))
}

/// The bytes that are no piece of a byte-level vocabulary.
pub fn unknown_bytes(vocab: &Value) -> usize {
    (0..=255).filter(|&byte| vocab.get(char_of(byte).to_string()).is_none()).count()
}

/// Which model it is. Old files have no type.
pub fn model_kind(model: &Value) -> &str {
    match model["type"].as_str() {
        Some(named) => named,
        None if model["vocab"].is_array() => "Unigram",
        None if model["merges"].is_array() => "BPE",
        None if model["continuing_subword_prefix"].is_string() => "WordPiece",
        None => "WordLevel",
    }
}

/// Checks the model.
///
/// # Errors
/// What is unknown or impossible, in a few words.
pub fn model(model: &Value) -> Result<(), String> {
    for name in ["unk_token", "end_of_word_suffix", "continuing_subword_prefix"] {
        if model[name].as_str().is_some_and(|text| text.len() > LONGEST_NAME) {
            return Err(format!("model.{name} is longer than {LONGEST_NAME} bytes"));
        }
    }
    match model_kind(model) {
        "BPE" => {
            vocab(&model["vocab"])?;
            let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
            merges(&model["merges"], &model["vocab"], prefix)
        }
        "WordPiece" if model["max_input_chars_per_word"].as_u64().is_some_and(|n| n > LONGEST_WORD) => {
            Err(format!("model.max_input_chars_per_word is above {LONGEST_WORD}"))
        }
        "WordPiece" | "WordLevel" => vocab(&model["vocab"]),
        "Unigram" => unigram(&model["vocab"]),
        other => Err(format!("model.type is `{}`, which is not supported", short(other))),
    }
}

fn unigram(vocab: &Value) -> Result<(), String> {
    let pieces = vocab.as_array().ok_or("the vocabulary of a Unigram model is not a list")?;
    let bytes: usize = pieces.iter().filter_map(|piece| piece[0].as_str()).map(str::len).sum();
    if pieces.len() > MOST_PIECES || bytes > MOST_UNIGRAM {
        return Err(format!(
            "the vocabulary has {} pieces of {bytes} bytes, which is too many",
            pieces.len()
        ));
    }
    // Their ids are their places, so that one that comes twice would have two.
    let mut seen = HashSet::new();
    match pieces.iter().find(|piece| !piece[0].as_str().is_some_and(|text| seen.insert(text))) {
        Some(piece) => Err(format!("the vocabulary has {} twice, or as no piece", short(&piece.to_string()))),
        None => Ok(()),
    }
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

/// Checks that each merge, `"a b"` or `["a", "b"]`, joins two pieces of the vocabulary to a third; the second
/// loses the `prefix` of pieces within a word.
pub fn merges(merges: &Value, vocab: &Value, prefix: &str) -> Result<(), String> {
    let merges = merges.as_array().ok_or("the merges are not a list")?;
    let known = |piece: &str| vocab.get(piece).is_some();
    let joined = |(a, b): (&str, &str)| {
        let end = b.strip_prefix(prefix)?;
        (known(a) && known(b) && known(&format!("{a}{end}"))).then_some(())
    };
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) => line.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        if pair.and_then(joined).is_none() {
            let merge = short(&merge.to_string());
            return Err(format!("merge {} is {merge}, which does not join two tokens to a third", i + 1));
        }
    }
    Ok(())
}

pub fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("without a type")
}

fn text<'a>(step: &'a Value, field: &str) -> Result<&'a str, String> {
    step[field].as_str().ok_or_else(|| format!("the {field} of {} is not text", short(kind(step))))
}

fn unknown(component: &str, kind: &str) -> String {
    format!("its {component} is `{}`, which is not supported", short(kind))
}

fn replace(step: &Value) -> Result<usize, String> {
    let shortest = shortest_match(&step["pattern"])?;
    Ok(text(step, "content")?.len().div_ceil(shortest).max(1))
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
