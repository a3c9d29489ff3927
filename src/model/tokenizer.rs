//! Text to token ids and back, with every byte of a token at hand.

mod components;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokenizers::pattern::Invert;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{Model, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};
use unicode_width::UnicodeWidthChar;

use self::components::{Bounds, short};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::guard;
use crate::text;

/// The bytes of a text, counted as if each step made it as long as it can. The regex of byte-level BPE
/// gives up on a million blanks in a row, and the pieces of a text take some 400 bytes for each of its.
const LONGEST_TEXT: usize = 2_000_000;
/// The bytes of all added tokens, counted likewise.
const MOST_ADDED: usize = 1 << 23;
/// Entries, pairs and settings; the largest vocabularies come to two million.
const MOST_VALUES: usize = 1 << 22;

/// A byte-level BPE tokenizer, or none: a model without one runs on token ids.
#[derive(Debug, Clone, Default)]
pub struct Tokenizer {
    inner: Option<Box<Inner>>,
}

#[derive(Debug, Clone)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    bounds: Bounds,
    /// For errors.
    file: PathBuf,
}

impl Tokenizer {
    /// No tokenizer: [`Tokenizer::encode`] refuses, ids show as `#464`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the text of a `tokenizer.json`; `path` is for the error.
    ///
    /// # Errors
    /// [`Error::File`] when it is no byte-level BPE tokenizer.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        parse(json)
            .and_then(|json| Self::from_value(json, path))
            .map_err(|problem| not_a_tokenizer(path, &problem))
    }

    /// Reads GPT-2's original pair of files.
    ///
    /// # Errors
    /// [`Error::File`] when either cannot be read.
    pub fn from_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        let bad = |path| move |problem: String| not_a_tokenizer(path, &problem);
        let pieces = parse(&files::read(vocab, files::TOKENIZER)?).map_err(bad(vocab))?;
        components::vocab(&pieces).map_err(bad(vocab))?;
        let text = files::read_text(merges, files::TOKENIZER)?;
        refuse_many(text.lines().count()).map_err(bad(merges))?;
        let pairs: Value = text.lines().filter(|line| !line.starts_with("#version")).collect();
        components::merges(&pairs, &pieces).map_err(bad(merges))?;
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let json = json!({
            "version": "1.0",
            "pre_tokenizer": byte_level,
            "model": { "type": "BPE", "vocab": pieces, "merges": pairs },
        });
        Self::from_value(json, vocab).map_err(bad(vocab))
    }

    fn from_value(mut json: Value, file: &Path) -> Result<Self, String> {
        let bounds = components::check(&json)?;
        check_added(&json["added_tokens"], bounds.growth)?;
        // A prompt is run whole, alone and each time alike, whatever the tokenizer was saved with.
        for setting in ["truncation", "padding", "post_processor", "decoder"] {
            json[setting] = Value::Null;
        }
        json["model"]["dropout"] = Value::Null;
        let tokenizer = guard(|| serde_json::from_value(json))?.map_err(|e| e.to_string())?;
        Ok(Self { inner: Some(Box::new(Inner { tokenizer, bounds, file: file.into() })) })
    }

    pub fn is_some(&self) -> bool {
        self.inner.is_some()
    }

    /// The token ids of `text`; no special tokens are added.
    ///
    /// # Errors
    /// [`Error::Usage`] when the model has no tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let Some(inner) = &self.inner else {
            return Err(Error::usage(
                "this model has no tokenizer: give token ids (--token-ids 1,2,3) in place of text",
            ));
        };
        if text.len().saturating_mul(inner.bounds.growth) > LONGEST_TEXT {
            return Err(Error::usage(format!(
                "the prompt is too long to be tokenized: {} bytes, which can become {} times as many on the way; \
                 give less text or token ids (--token-ids)",
                text.len(),
                inner.bounds.growth
            )));
        }
        guard(|| inner.encode(text).map_err(|e| e.to_string())).flatten().map_err(|problem| {
            let problem = short(&problem);
            let problem = format!("cannot tokenize this prompt ({problem}); give token ids (--token-ids)");
            Error::file(&inner.file, problem)
        })
    }

    /// The one token that `text` is; blanks may be written as [`visible`] shows them (`·dog`).
    ///
    /// # Errors
    /// [`Error::Usage`] for text that is not one token, with its pieces, and when the model has no
    /// tokenizer.
    pub fn one(&self, text: &str) -> Result<u32> {
        if !self.is_some() {
            return Err(Error::usage(format!(
                "this model has no tokenizer: give a token id in place of `{text}`"
            )));
        }
        let typed = text.replace('·', " ").replace('↵', "\n").replace('⇥', "\t");
        for text in [text, &typed] {
            if let [id] = self.encode(text)?[..] {
                return Ok(id);
            }
        }
        let ids = self.encode(&typed)?;
        if ids.is_empty() {
            return Err(Error::usage("the token is empty: give text or a token id"));
        }
        let pieces: Vec<_> = ids.iter().map(|&id| format!("{} ({id})", self.show(id))).collect();
        Err(Error::usage(format!(
            "`{text}` is not one token but {}: {}; give one of them",
            ids.len(),
            pieces.join(", ")
        )))
    }

    /// The bytes that a token stands for; `None` for an id the tokenizer does not know.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let inner = self.inner.as_ref()?;
        let piece = inner.tokenizer.id_to_token(id)?;
        if inner.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return Some(piece.into_bytes());
        }
        let mut bytes = Vec::with_capacity(piece.len());
        for c in piece.chars() {
            match byte_of(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Some(bytes)
    }

    /// The text that a sequence of tokens stands for; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A token as it is shown: see [`visible`]; `#464` for an id without text.
    pub fn show(&self, id: u32) -> String {
        match self.bytes(id) {
            Some(bytes) => visible(&bytes),
            None => format!("#{id}"),
        }
    }
}

impl Inner {
    /// What `tokenizers` does, but for the regexes: where one gives up, so does this. There the rest of
    /// the text would become one piece, and nobody would know.
    fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let tokenizer = &self.tokenizer;
        let mut pieces =
            tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
        if let Some(step) = tokenizer.get_pre_tokenizer() {
            self.pre_tokenize(step, &mut pieces)?;
        }
        pieces.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    fn pre_tokenize(
        &self,
        step: &PreTokenizerWrapper,
        pieces: &mut PreTokenizedString,
    ) -> tokenizers::Result<()> {
        match step {
            PreTokenizerWrapper::Sequence(steps) => {
                steps.as_ref().iter().try_for_each(|step| self.pre_tokenize(step, pieces))
            }
            PreTokenizerWrapper::Split(split) => match &split.pattern {
                SplitPattern::Regex(pattern) => {
                    let regex = &self.bounds.regexes[pattern];
                    pieces.split(|_, piece| match split.invert {
                        false => piece.split(regex, split.behavior),
                        true => piece.split(Invert(regex), split.behavior),
                    })
                }
                SplitPattern::String(_) => split.pre_tokenize(pieces),
            },
            other => other.pre_tokenize(pieces),
        }
    }
}

fn not_a_tokenizer(path: &Path, problem: &str) -> Error {
    let problem: String = problem.chars().take(200).collect();
    let way_out = "fetch it anew, or remove it and give token ids (--token-ids)";
    Error::file(path, format!("is not a byte-level BPE tokenizer ({problem}); {way_out}"))
}

fn parse(json: &[u8]) -> Result<Value, String> {
    // Each value in memory takes many times the bytes that it may take here.
    refuse_many(json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count())?;
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

fn refuse_many(n: usize) -> Result<(), String> {
    if n > MOST_VALUES { Err(format!("it holds {n} values, more than any")) } else { Ok(()) }
}

/// These are normalized when they are read.
fn check_added(tokens: &Value, growth: usize) -> Result<(), String> {
    let contents = tokens.as_array().into_iter().flatten().filter_map(|token| token["content"].as_str());
    let bytes = contents.map(|content| content.len().saturating_mul(growth)).fold(0, usize::saturating_add);
    if bytes > MOST_ADDED { Err("its added tokens are longer than any".into()) } else { Ok(()) }
}

/// Bytes with nothing invisible left in them: space `·`; bytes that are no whole UTF-8 character
/// `⟨xx⟩`; what is not drawn, or not by itself, as in [`text::plain`].
pub fn visible(bytes: &[u8]) -> String {
    let mut seen = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                ' ' => seen.push('·'),
                c if text::acts(c) || c.width().unwrap_or(0) == 0 => text::push_visible(&mut seen, c),
                c => seen.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| text::push_visible(&mut seen, byte.into()));
    }
    seen
}

/// The byte that a character of a byte-level BPE piece stands for (GPT-2's `bytes_to_unicode`,
/// inverted): printable Latin-1 stands for itself, the rest are moved to U+0100 and up, in order.
fn byte_of(c: char) -> Option<u8> {
    static TABLE: OnceLock<HashMap<char, u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut moved = (0x100u32..).filter_map(char::from_u32);
        let mut char_of = |byte: u8| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => moved.next().expect("there are more characters than bytes"),
        };
        (0..=255).map(|byte| (char_of(byte), byte)).collect()
    });
    table.get(&c).copied()
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    fn small() -> Value {
        json!({
            "version": "1.0",
            "truncation": { "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 },
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": null,
            "post_processor": null,
            "decoder": null,
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] },
        })
    }

    fn read(json: &Value) -> Result<Tokenizer> {
        Tokenizer::from_json(json.to_string().as_bytes(), Path::new("tokenizer.json"))
    }

    #[test]
    fn a_prompt_is_not_truncated() {
        assert_eq!(read(&small()).unwrap().encode("abba").unwrap(), [2, 1, 0]);
    }

    #[test]
    fn what_would_make_tokenizers_panic_is_refused() {
        for (at, value, word) in [
            ("/model", json!(null), "vocabulary"),
            ("/model/type", json!("WordPiece"), "WordPiece"),
            ("/model/vocab", json!({ "a": -1 }), "`a`"),
            ("/model/vocab", json!({ "a": 4_294_967_296_u64 }), "4294967296"),
            ("/model/merges", json!(["a b", "ab ab"]), "merge 2"),
            ("/model/merges", json!([["ab", "ab"]]), "merge 1"),
            ("/model/merges", json!(["ab"]), "merge 1"),
            ("/decoder", json!({ "type": "none" }), "not a byte-level"),
            ("/normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "a" }), "precompiled"),
        ] {
            let mut json = small();
            *json.pointer_mut(at).unwrap() = value;
            let said = read(&json).unwrap_err().to_string();
            assert!(said.contains(word), "{at}: {said}");
        }
        let mut json = small();
        json["model"]["continuing_subword_prefix"] = json!("##");
        assert!(read(&json).is_err());
    }

    #[test]
    fn nothing_invisible_is_left() {
        assert_eq!(visible(b" the\n\tend\x07"), "·the↵⇥end⟨07⟩");
        assert_eq!(visible("é 漢 e\u{301}".as_bytes()), "é·漢·e⟨u+0301⟩");
        assert_eq!(visible(&"🙂".as_bytes()[..2]), "⟨f0⟩⟨9f⟩");
        assert_eq!(visible(b""), "");
    }

    #[test]
    fn the_byte_alphabet_is_the_tokenizers_one() {
        let alphabet = ByteLevel::alphabet();
        assert_eq!(alphabet.len(), 256);
        let mut bytes: Vec<u8> = alphabet.iter().map(|&c| byte_of(c).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('漢'), None);
    }
}
