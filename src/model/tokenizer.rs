//! Text to token ids and back, with every byte of a token at hand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar;

use crate::error::{Error, Result};
use crate::text;

/// A byte-level BPE tokenizer, or none: a model without one runs on token ids.
#[derive(Debug, Clone, Default)]
pub struct Tokenizer {
    inner: Option<Box<tokenizers::Tokenizer>>,
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
        let bad = |problem: String| not_a_tokenizer(path, &problem);
        let mut json: Value = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        check(&json).map_err(bad)?;
        // A prompt is run whole and alone, whatever the tokenizer was saved with.
        for setting in ["truncation", "padding"] {
            json[setting] = Value::Null;
        }
        Self::from_value(json).map_err(bad)
    }

    /// Reads GPT-2's original pair of files.
    ///
    /// # Errors
    /// [`Error::File`] when either cannot be read.
    pub fn from_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        let read = |path| {
            let unreadable = |e| Error::file(path, format!("cannot be read: {e}"));
            std::fs::read_to_string(path).map_err(unreadable)
        };
        let pieces: Value =
            serde_json::from_str(&read(vocab)?).map_err(|e| not_a_tokenizer(vocab, &e.to_string()))?;
        check_vocab(&pieces).map_err(|problem| not_a_tokenizer(vocab, &problem))?;
        let text = read(merges)?;
        let pairs: Value = text.lines().filter(|line| !line.starts_with("#version")).collect();
        check_merges(&pairs, &pieces).map_err(|problem| not_a_tokenizer(merges, &problem))?;
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let json = json!({
            "version": "1.0",
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
            "model": { "type": "BPE", "vocab": pieces, "merges": pairs },
        });
        Self::from_value(json).map_err(|problem| not_a_tokenizer(vocab, &problem))
    }

    fn from_value(json: Value) -> Result<Self, String> {
        let inner = serde_json::from_value(json).map_err(|e| e.to_string())?;
        Ok(Self { inner: Some(Box::new(inner)) })
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
        let encoding = inner
            .encode_fast(text, false)
            .map_err(|e| Error::usage(format!("the prompt cannot be tokenized: {e}")))?;
        Ok(encoding.get_ids().to_vec())
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
        let piece = inner.id_to_token(id)?;
        if inner.get_added_tokens_decoder().contains_key(&id) {
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

fn not_a_tokenizer(path: &Path, problem: &str) -> Error {
    Error::file(
        path,
        format!("is not a byte-level BPE tokenizer ({problem}); fetch it anew or remove it to use token ids"),
    )
}

/// Refuses a `tokenizer.json` that is none, above all where the `tokenizers` crate would panic.
fn check(json: &Value) -> Result<(), String> {
    let model = &json["model"];
    match model["type"].as_str() {
        Some("BPE") | None => {}
        Some(other) => return Err(format!("model.type is `{other}`")),
    }
    if model["continuing_subword_prefix"].as_str().is_some_and(|prefix| !prefix.is_empty()) {
        return Err("model.continuing_subword_prefix is set".into());
    }
    if json["normalizer"].to_string().contains("Precompiled") {
        return Err("normalizer is precompiled".into());
    }
    check_vocab(&model["vocab"])?;
    check_merges(&model["merges"], &model["vocab"])
}

fn check_vocab(vocab: &Value) -> Result<(), String> {
    let vocab = vocab.as_object().ok_or("the vocabulary is no JSON object")?;
    match vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| u32::try_from(id).is_err())) {
        Some((piece, id)) => Err(format!("the vocabulary has {id} as the id of `{piece}`")),
        None => Ok(()),
    }
}

/// Each merge, `"a b"` or `["a", "b"]`, takes two pieces of the vocabulary to a third.
fn check_merges(merges: &Value, vocab: &Value) -> Result<(), String> {
    let merges = merges.as_array().ok_or("the merges are no list")?;
    let known = |piece: &str| vocab.get(piece).is_some();
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) => line.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        if !pair.is_some_and(|(a, b)| known(a) && known(b) && known(&format!("{a}{b}"))) {
            return Err(format!("merge {} is {merge}, which does not join two tokens to a third", i + 1));
        }
    }
    Ok(())
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
