use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::pieces::{byte_of, char_of};
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

/// What makes transformers read the file alone.
fn as_it_stands() -> Beside {
    Beside { class: Some("PreTrainedTokenizerFast".into()), ..Beside::default() }
}

fn read(json: &Value) -> Result<Tokenizer> {
    Tokenizer::from_json(json.to_string().as_bytes(), &as_it_stands(), Path::new("tokenizer.json"))
}

#[test]
fn a_prompt_is_not_truncated() {
    assert_eq!(read(&small()).unwrap().encode("abba").unwrap(), [2, 1, 0]);
}

#[test]
fn what_would_make_tokenizers_panic_is_refused() {
    for (at, value, word) in [
        ("/model", json!(null), "vocabulary"),
        ("/model/type", json!("Neural"), "Neural"),
        ("/model/vocab", json!({ "a": -1 }), "`a`"),
        ("/model/vocab", json!({ "a": 4_294_967_296_u64 }), "4294967296"),
        ("/model/merges", json!(["a b", "ab ab"]), "merge 2"),
        ("/model/merges", json!([["ab", "ab"]]), "merge 1"),
        ("/model/merges", json!(["ab"]), "merge 1"),
        ("/decoder", json!({ "type": "none" }), "decoder is `none`"),
        ("/normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "a" }), "precompiled"),
    ] {
        let mut json = small();
        *json.pointer_mut(at).unwrap() = value;
        let said = read(&json).unwrap_err().to_string();
        assert!(said.contains(word), "{at}: {said}");
    }
    let mut json = small();
    json["model"]["continuing_subword_prefix"] = json!("##");
    assert!(read(&json).unwrap_err().to_string().contains("merge 1"));
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
    let regex = |pattern: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": "" });
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
        (null.clone(), json!({ "type": "Sequence", "pretokenizers": vec![split("a"); 65] }), "more than 64"),
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
    assert!(parse(&[&b"["[..], &vec![b','; MOST_VALUES]].concat()).unwrap_err().contains("more than any"));
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
    let [.., last, word] = tokenizer.encode(&format!("{blanks}a")).unwrap()[..] else { panic!("two pieces") };
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
        (null.clone(), sequence(&[json!({ "type": "Digits", "individual_digits": true }), byte_level(true)])),
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
            let ids = oracle.encode_fast(text, true).unwrap().get_ids().to_vec();
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
    assert!(bytes.iter().all(|&byte| byte_of(char_of(byte)) == Some(byte)));
    assert_eq!(byte_of('Ġ'), Some(b' '));
    assert_eq!(byte_of('漢'), None);
}

/// llm.c's file lists tokens only: the merges that follow from them give GPT-2's ids.
#[test]
fn merges_follow_from_the_order_of_tokens() {
    let demo = Tokenizer::from_json(
        include_bytes!("../../../assets/demo/tokenizer.json"),
        &Beside::default(),
        Path::new("tokenizer.json"),
    )
    .unwrap();
    let n = demo.vocab_size() as u32;
    let bytes = llmc(&(0..n).map(|id| demo.bytes(id).unwrap()).collect::<Vec<_>>(), 0);
    let found = Tokenizer::from_llmc(&bytes, Path::new("gpt2_tokenizer.bin")).unwrap();
    assert!(found.is_exact() && found.notes(n as usize).is_empty(), "{:?}", found.notes(n as usize));
    assert_eq!(found.special_tokens(), demo.special_tokens());
    for text in ["The old man saw the sea.", " 12 é\u{301} 漢字\n\n\t 🙂", "a<|endoftext|>b", ""] {
        assert_eq!(found.encode(text).unwrap(), demo.encode(text).unwrap(), "{text:?}");
    }
}

/// A tokenizer of llm.c with these tokens.
fn llmc(tokens: &[Vec<u8>], eot: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..256 {
        let field = [20_240_328, 2, tokens.len() as u32, eot].get(i).copied().unwrap_or(0);
        bytes.extend(field.to_le_bytes());
    }
    for token in tokens {
        bytes.push(u8::try_from(token.len()).unwrap());
        bytes.extend(token);
    }
    bytes
}

#[test]
fn a_list_of_tokens_that_were_not_merged_only_decodes() {
    let bytes = llmc(&[b"a".to_vec(), b"b".to_vec(), b"abc".to_vec(), b"\xff".to_vec()], 9);
    let tokenizer = Tokenizer::from_llmc(&bytes, Path::new("gpt2_tokenizer.bin")).unwrap();
    assert_eq!(tokenizer.decode(&[2, 0]), "abca");
    assert_eq!(tokenizer.bytes(3), Some(vec![0xff]));
    let said = tokenizer.encode("a").unwrap_err().to_string();
    assert!(said.contains("ids into text") && said.contains("--token-ids"), "{said}");
    for (tokens, word) in [(vec![b"a".to_vec(); 2], "twice"), (vec![Vec::new()], "empty")] {
        let said = Tokenizer::from_llmc(&llmc(&tokens, 9), Path::new("t")).unwrap_err().to_string();
        assert!(said.contains(word), "{said}");
    }
    for cut in 1..bytes.len() {
        assert!(Tokenizer::from_llmc(&bytes[..cut], Path::new("t")).is_err(), "{cut}");
    }
}
