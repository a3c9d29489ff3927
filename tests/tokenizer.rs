//! Token ids against Hugging Face tokenizers, in both layouts (see `fixtures/README.md`).

use std::path::Path;

use actscope::Model;
use actscope::model::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn assert_cases(tokenizer: &Tokenizer) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/cases.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
    assert!(cases.len() > 10);
    for Case { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id).unwrap()).collect();
        assert_eq!(bytes, text.as_bytes(), "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn vocab_and_merges() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
    let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| folder.join(name));
    assert_cases(&Tokenizer::from_vocab_and_merges(&vocab, &merges).unwrap());
}

#[test]
fn tokenizer_json() {
    assert_cases(&Model::demo().tokenizer);
}
