//! A tokenizer in any of its formats; for `tokenizer.json`, after a NUL a text to encode, and after another
//! the `tokenizer_config.json` beside it.
#![no_main]

use std::path::Path;

use actscope::model::{Beside, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("file");
    let mut text = "The café\n sat 漢字 🙂".into();
    let tokenizer = match data {
        [b'{', ..] => {
            let mut parts = data.splitn(3, |byte| *byte == 0);
            let [json, typed, settings] = [(); 3].map(|()| parts.next().unwrap_or_default());
            if !typed.is_empty() {
                text = String::from_utf8_lossy(typed);
            }
            let settings = serde_json::from_slice(settings).unwrap_or_default();
            Tokenizer::from_json(json, &Beside { settings, ..Beside::default() }, path)
        }
        [0x80, ..] => Tokenizer::from_characters(data, path),
        _ if data.starts_with(&20_240_328u32.to_le_bytes()) => Tokenizer::from_llmc(data, path),
        _ => Tokenizer::from_vocab_txt(data, &Beside::default(), path),
    };
    let Ok(tokenizer) = tokenizer else { return };
    let ids = tokenizer.encode(&text).unwrap_or_default();
    for id in ids.iter().copied().chain([0, 1, u32::MAX]) {
        let _ = (tokenizer.show(id), tokenizer.bytes(id));
    }
    let _ = (tokenizer.decode(&ids), tokenizer.one(&text), tokenizer.kind(), tokenizer.notes(50));
});
