//! `tokenizer.json`, and after a NUL a text to encode.
#![no_main]

use std::path::Path;

use actscope::model::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let [json, text] = [(); 2].map(|()| parts.next().unwrap_or_default());
    let Ok(tokenizer) = Tokenizer::from_json(json, Path::new("tokenizer.json")) else { return };
    let text =
        if text.is_empty() { "The café\n sat 漢字 🙂".into() } else { String::from_utf8_lossy(text) };
    let ids = tokenizer.encode(&text).unwrap_or_default();
    for id in ids.iter().copied().chain([0, 1, u32::MAX]) {
        let _ = (tokenizer.show(id), tokenizer.bytes(id));
    }
    let _ = (tokenizer.decode(&ids), tokenizer.one(&text));
});
