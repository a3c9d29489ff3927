//! Text to token ids and back, with access to every byte of a token.

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

/// The maximum bytes of a text, assuming that each step makes it as long as possible. The regex of byte-level BPE
/// gives up on a million spaces in a row, and the pieces of a text take about 400 bytes per byte of text.
const LONGEST_TEXT: usize = 2_000_000;
/// The maximum bytes of all added tokens, counted likewise.
const MOST_ADDED: usize = 1 << 22;
/// Entries, pairs and settings; the largest vocabularies have two million.
const MOST_VALUES: usize = 1 << 22;

/// A byte-level BPE tokenizer, or none: without one, a model runs on token ids.
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
    /// No tokenizer: [`Tokenizer::encode`] fails, and ids are shown as `#464`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses the text of a `tokenizer.json`; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] if it is not a byte-level BPE tokenizer.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let read = || {
            let json = parse(json)?;
            components::model(&json["model"])?;
            Self::from_value(json, path)
        };
        read().map_err(|problem| not_a_tokenizer(path, &problem))
    }

    /// Reads GPT-2's original pair of files.
    ///
    /// # Errors
    /// [`Error::File`] if either cannot be read.
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

    /// The model has been checked before.
    fn from_value(mut json: Value, file: &Path) -> Result<Self, String> {
        let bounds = components::check(&json)?;
        check_added(&json["added_tokens"], bounds.growth)?;
        // No truncation, padding or dropout, whatever the tokenizer was saved with.
        for setting in ["truncation", "padding", "post_processor", "decoder"] {
            json[setting] = Value::Null;
        }
        json["model"]["dropout"] = Value::Null;
        let tokenizer = guard(|| serde_json::from_value(json))?.map_err(|e| e.to_string())?;
        Ok(Self { inner: Some(Box::new(Inner { tokenizer, bounds, file: file.into() })) })
    }

    pub fn kind(&self) -> String {
        "TODO".into()
    }

    pub fn vocab_size(&self) -> usize {
        0
    }

    pub fn special_tokens(&self) -> Vec<(u32, String)> {
        Vec::new()
    }

    pub fn is_some(&self) -> bool {
        self.inner.is_some()
    }

    /// The token ids of `text`; no special tokens are added.
    ///
    /// # Errors
    /// [`Error::Usage`] if the model has no tokenizer, or the text may become too long;
    /// [`Error::File`] if the tokenizer fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let Some(inner) = &self.inner else {
            return Err(Error::usage(
                "this model has no tokenizer: use token ids (--token-ids 1,2,3) instead of text",
            ));
        };
        if text.len().saturating_mul(inner.bounds.growth) > LONGEST_TEXT {
            return Err(Error::usage(format!(
                "the prompt is too long to tokenize: {} bytes, which can become {} times as many in the process; \
                 shorten it or use token ids (--token-ids)",
                text.len(),
                inner.bounds.growth
            )));
        }
        guard(|| inner.encode(text).map_err(|e| e.to_string())).flatten().map_err(|problem| {
            let problem = short(&problem);
            let problem = format!("cannot tokenize this prompt ({problem}); use token ids (--token-ids)");
            Error::file(&inner.file, problem)
        })
    }

    /// The single token that `text` is; spaces may be written as [`visible`] shows them (`·dog`).
    ///
    /// # Errors
    /// [`Error::Usage`] for text that is not one token, with its pieces, and if the model has no
    /// tokenizer.
    pub fn one(&self, text: &str) -> Result<u32> {
        if !self.is_some() {
            return Err(Error::usage(format!(
                "this model has no tokenizer: use a token id instead of `{text}`"
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
            return Err(Error::usage("the token is empty: use text or a token id"));
        }
        let pieces: Vec<_> = ids.iter().map(|&id| format!("{} ({id})", self.show(id))).collect();
        Err(Error::usage(format!(
            "`{text}` is not one token but {}: {}; use one of them",
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

    /// The text that a sequence of tokens stands for; bytes that are not UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A token for display: see [`visible`]; `#464` for an id without text.
    pub fn show(&self, id: u32) -> String {
        match self.bytes(id) {
            Some(bytes) => visible(&bytes),
            None => format!("#{id}"),
        }
    }
}

impl Inner {
    /// Like `tokenizers`, but if a regex gives up, so does this. There, the rest of
    /// the text would silently become one piece.
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
                    pieces.split(|_, piece| {
                        if split.invert {
                            piece.split(Invert(regex), split.behavior)
                        } else {
                            piece.split(regex, split.behavior)
                        }
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
    let way_out = "download it again, or remove it and use token ids (--token-ids)";
    Error::file(path, format!("is not a byte-level BPE tokenizer ({problem}); {way_out}"))
}

fn parse(json: &[u8]) -> Result<Value, String> {
    // A value can take many times more bytes in memory than in the file.
    refuse_many(json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count())?;
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

fn refuse_many(n: usize) -> Result<(), String> {
    if n > MOST_VALUES { Err(format!("it has {n} values, more than any tokenizer")) } else { Ok(()) }
}

/// Added tokens are normalized when they are read.
fn check_added(tokens: &Value, growth: usize) -> Result<(), String> {
    let contents = tokens.as_array().into_iter().flatten().filter_map(|token| token["content"].as_str());
    let bytes = contents.map(|content| content.len().saturating_mul(growth)).fold(0, usize::saturating_add);
    if bytes > MOST_ADDED { Err("its added tokens are too long".into()) } else { Ok(()) }
}

/// Bytes with everything made visible: space `·`; bytes that are not a whole UTF-8 character
/// `⟨xx⟩`; invisible and combining characters as in [`text::plain`].
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

    /// `small` with other components; pieces of one letter, and anything else.
    fn with(normalizer: &Value, pre_tokenizer: &Value) -> Value {
        let mut json = small();
        json["normalizer"] = normalizer.clone();
        json["pre_tokenizer"] = pre_tokenizer.clone();
        let pieces = "abcdefghijklmnopqrstuvwxyz0123456789.,!' ▁Ġ中\n";
        let pieces = pieces.chars().map(String::from).chain(["<unk>".into(), "ab".into()]);
        json["model"]["vocab"] = pieces.enumerate().map(|(id, piece)| (piece, json!(id))).collect();
        json["model"]["unk_token"] = json!("<unk>");
        json
    }

    fn replace(pattern: &str, content: &str) -> Value {
        json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content })
    }

    fn split(regex: &str) -> Value {
        json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false })
    }

    fn normalizers(steps: &[Value]) -> Value {
        json!({ "type": "Sequence", "normalizers": steps })
    }

    #[test]
    fn what_is_not_known_or_has_no_bound_is_refused_by_name() {
        let null = Value::Null;
        let regex =
            |pattern: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": "" });
        let mut nested = replace("a", "aa");
        for _ in 0..12 {
            nested = normalizers(&[nested, replace("a", "aa")]);
        }
        for (normalizer, pre_tokenizer, word) in [
            (json!({ "type": "New" }), null.clone(), "normalizer is `New`"),
            (json!({}), null.clone(), "without a type"),
            (normalizers(&[json!({ "type": "New" })]), null.clone(), "normalizer is `New`"),
            (null.clone(), json!({ "type": "Neu" }), "pre_tokenizer is `Neu`"),
            (null.clone(), json!({ "type": "FixedLength", "length": 0 }), "empty pieces"),
            (null.clone(), split(&"a|".repeat(513)), "1026 bytes"),
            (null.clone(), split("(?:a{1000}){1000}"), "too large"),
            (null.clone(), split("("), "invalid"),
            (
                null.clone(),
                json!({ "type": "Sequence", "pretokenizers": vec![split("a"); 65] }),
                "more than 64",
            ),
            (replace("", "a"), null.clone(), "empty matches"),
            (regex("a*"), null.clone(), "empty matches"),
            (regex(r"\b"), null.clone(), "empty matches"),
            (regex("a(?=b)"), null.clone(), "look-around"),
            (replace("a", &"b".repeat(1 << 20)), null.clone(), "1048576 times"),
            (nested, null.clone(), "8192 times"),
            (json!({ "type": "Prepend", "prepend": "b".repeat(1 << 20) }), null.clone(), "1048577 times"),
            (normalizers(&vec![json!({ "type": "Strip" }); 65]), null.clone(), "more than 64"),
        ] {
            let said = read(&with(&normalizer, &pre_tokenizer)).unwrap_err().to_string();
            assert!(said.contains(word) && said.contains("--token-ids"), "{word}: {said}");
            assert!(said.len() < 300, "{said}");
        }
        let said = |at: &str, value: Value| {
            let mut json = with(&null, &null);
            *json.pointer_mut(at).unwrap() = value;
            let said = read(&json).unwrap_err().to_string();
            assert!(said.len() < 400, "{said}");
            said
        };
        assert!(said("/post_processor", json!({ "type": "New" })).contains("post_processor is `New`"));
        assert!(said("/decoder", json!({ "type": "X".repeat(5000) })).contains("decoder is `XXXX"));
        assert!(said("/model/type", json!("X".repeat(5000))).contains('…'));
        assert!(said("/model/unk_token", json!("X".repeat(5000))).contains("unk_token"));
        assert!(said("/model/vocab", json!({ "a": 1, "b": 1 })).contains("two pieces with the id 1"));
        assert!(said("/model/vocab", json!({ "X".repeat(5000): "Y".repeat(5000) })).contains("XXX"));
        assert!(said("/version", json!("X".repeat(5000))).contains("version"));
        let token = json!({ "id": 60, "content": "X".repeat(MOST_ADDED + 1), "special": true });
        assert!(said("/added_tokens", json!([token])).contains("added tokens are too long"));
        assert!(
            parse(&[&b"["[..], &vec![b','; MOST_VALUES]].concat()).unwrap_err().contains("more than any")
        );
    }

    #[test]
    fn a_text_that_would_grow_too_long_is_refused() {
        let tokenizer = read(&with(&replace("a", &"b".repeat(1000)), &Value::Null)).unwrap();
        assert_eq!(tokenizer.encode("aa").unwrap().len(), 2000);
        let said = tokenizer.encode(&"a".repeat(2001)).unwrap_err().to_string();
        assert!(said.contains("2001 bytes") && said.contains("1000 times"), "{said}");
    }

    #[test]
    fn the_same_text_gives_the_same_tokens() {
        let mut json = small();
        json["model"]["dropout"] = json!(0.5);
        let tokenizer = read(&json).unwrap();
        for _ in 0..50 {
            assert_eq!(tokenizer.encode("abab").unwrap(), [2, 2]);
        }
    }

    /// A regex that goes back too often is given up: `tokenizers` takes the rest for one piece then.
    #[test]
    fn a_regex_that_gives_up_is_an_error() {
        let tokenizer = read(&with(&Value::Null, &split(r"(?:a(?=a)|a(?=a)a?)+b|a"))).unwrap();
        assert!(tokenizer.encode("aab").is_ok());
        let said = tokenizer.encode(&"a".repeat(100)).unwrap_err().to_string();
        assert!(said.starts_with("tokenizer.json: cannot tokenize this prompt"), "{said}");
        assert!(said.contains("limit") && said.contains("--token-ids"), "{said}");
        // That of byte-level BPE is not ours, but never comes there.
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
        let tokenizer = read(&with(&Value::Null, &byte_level)).unwrap();
        let blanks = " ".repeat(LONGEST_TEXT / 2 - 1);
        let [.., last, word] = tokenizer.encode(&format!("{blanks}a")).unwrap()[..] else {
            panic!("two pieces")
        };
        assert_eq!([last, word].map(|id| tokenizer.show(id)), ["·", "a"]);
        assert!(tokenizer.encode(&format!("{blanks}aa")).is_err());
    }

    /// As the files of real models have them.
    #[test]
    fn known_tokenizers_give_what_tokenizers_gives() {
        let byte_level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
        let sequence = |steps: &[Value]| json!({ "type": "Sequence", "pretokenizers": steps });
        let gpt4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let possessive = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
        let o200k = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let null = Value::Null;
        let known = [
            (null.clone(), byte_level(true)),
            (normalizers(&[json!({ "type": "Prepend", "prepend": "▁" }), replace(" ", "▁")]), null.clone()),
            (json!({ "type": "NFC" }), byte_level(true)),
            (null.clone(), sequence(&[split(gpt4), byte_level(false)])),
            (null.clone(), sequence(&[split(possessive), byte_level(false)])),
            (null.clone(), sequence(&[split(o200k), byte_level(false)])),
            (
                null.clone(),
                sequence(&[split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(gpt4), byte_level(false)]),
            ),
            (null.clone(), sequence(&[split(r"\d{1,3}(?=(?:\d{3})*\b)"), byte_level(true)])),
            (
                null.clone(),
                sequence(&[json!({ "type": "Digits", "individual_digits": true }), byte_level(true)]),
            ),
            (
                null.clone(),
                json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false }),
            ),
            (
                null.clone(),
                json!({ "type": "Split", "pattern": { "Regex": "[a-z]+" }, "behavior": "Removed", "invert": true }),
            ),
            (
                null.clone(),
                json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false }),
            ),
            (
                null.clone(),
                sequence(&[
                    json!({ "type": "WhitespaceSplit" }),
                    json!({ "type": "Punctuation", "behavior": "Isolated" }),
                ]),
            ),
            (
                json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true }),
                json!({ "type": "BertPreTokenizer" }),
            ),
            (
                normalizers(&[
                    json!({ "type": "NFKC" }),
                    json!({ "type": "Lowercase" }),
                    json!({ "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " }),
                    json!({ "type": "StripAccents" }),
                    json!({ "type": "Strip", "strip_left": true, "strip_right": true }),
                    json!({ "type": "Nmt" }),
                ]),
                json!({ "type": "Whitespace" }),
            ),
            (null.clone(), json!({ "type": "CharDelimiterSplit", "delimiter": " " })),
        ];
        let texts = ["it's  12345 é\u{301}中文 a. Ab\n\n ½!", "", " ", "a\u{301}bc <s>d</s>", "İ ﬁ\t'll   "];
        let post_processors = [
            byte_level(true),
            json!({ "type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0] }),
            json!({ "type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true }),
            json!({ "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "a", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }], "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }], "special_tokens": { "a": { "id": "a", "ids": [0], "tokens": ["a"] } } }),
            Value::Null,
        ];
        let decoders = json!([
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ]);
        for (i, (normalizer, pre_tokenizer)) in known.into_iter().enumerate() {
            let mut json = with(&normalizer, &pre_tokenizer);
            json["post_processor"] = post_processors[i % post_processors.len()].clone();
            json["decoder"] = json!({ "type": "Sequence", "decoders": decoders });
            let token = |id: u32, content: &str, normalized: bool| json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": normalized, "normalized": normalized, "special": true });
            json["added_tokens"] = json!([token(100, "<s>", false), token(101, "</s>", true)]);
            let mut oracle: tokenizers::Tokenizer = serde_json::from_value(json.clone()).unwrap();
            oracle.with_truncation(None).unwrap();
            let tokenizer = read(&json).unwrap();
            for text in texts {
                let ids = oracle.encode_fast(text, false).unwrap().get_ids().to_vec();
                assert_eq!(tokenizer.encode(text).unwrap(), ids, "{normalizer} {pre_tokenizer} {text:?}");
            }
        }
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
