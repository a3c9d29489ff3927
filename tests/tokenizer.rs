//! Token ids and texts against Hugging Face: the demo's tokenizer in both layouts, and tokenizers as they lie
//! beside checkpoints in the wild (see `fixtures/README.md`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use actscope::model::source::OnProgress;
use actscope::model::{Beside, LoadOptions, Source, Tokenizer};
use actscope::{Input, Model, Run};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
}

fn assert_cases(tokenizer: &Tokenizer) {
    let cases = std::fs::read(fixtures().join("tokenizer/cases.json")).unwrap();
    let cases: Vec<Encoded> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 10 && tokenizer.is_exact());
    for Encoded { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id).unwrap()).collect();
        assert_eq!(bytes, text.as_bytes(), "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn vocab_and_merges() {
    let [vocab, merges] = ["vocab.json", "merges.txt"]
        .map(|name| std::fs::read(fixtures().join("tokenizer").join(name)).unwrap());
    let path = Path::new("vocab.json");
    assert_cases(&Tokenizer::from_vocab_and_merges(&vocab, &merges, &Beside::default(), path).unwrap());
}

#[test]
fn tokenizer_json() {
    assert_cases(&Model::demo().tokenizer);
}

/// A tokenizer of `tests/fixtures/wild/tokenizers.json`, and what transformers makes of it.
#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    #[serde(default)]
    vocab_size: usize,
    model_vocab_size: Option<usize>,
    #[serde(default)]
    special: BTreeMap<u32, String>,
    #[serde(default)]
    added: BTreeMap<u32, String>,
    #[serde(default)]
    holes: Vec<u32>,
    #[serde(default)]
    texts: Vec<Expected>,
    #[serde(default)]
    json: BTreeMap<String, Vec<u32>>,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<u32>,
    /// Without the tokens that are put around them, where there are any.
    plain: Option<Vec<u32>>,
    each: Vec<String>,
    whole: String,
}

fn cases() -> Vec<Case> {
    let cases = std::fs::read(fixtures().join("wild/tokenizers.json")).unwrap();
    serde_json::from_slice(&cases).unwrap()
}

/// The smallest model that a tokenizer can lie beside: all weights are 0.
fn load(case: &Case) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Value::Null;
    for file in std::fs::read_dir(fixtures().join("wild").join(&case.path)).unwrap() {
        let file = file.unwrap();
        if file.file_name() == "config.json" {
            config = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        } else {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    let v = config["vocab_size"].as_u64().unwrap() as usize;
    for (name, size) in [("n_embd", 2), ("n_layer", 1), ("n_head", 1), ("n_positions", 64)] {
        config[name] = json!(size);
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let shapes: [(&str, &[usize]); 16] = [
        ("wte.weight", &[v, 2]),
        ("wpe.weight", &[64, 2]),
        ("h.0.ln_1.weight", &[2]),
        ("h.0.ln_1.bias", &[2]),
        ("h.0.attn.c_attn.weight", &[2, 6]),
        ("h.0.attn.c_attn.bias", &[6]),
        ("h.0.attn.c_proj.weight", &[2, 2]),
        ("h.0.attn.c_proj.bias", &[2]),
        ("h.0.ln_2.weight", &[2]),
        ("h.0.ln_2.bias", &[2]),
        ("h.0.mlp.c_fc.weight", &[2, 8]),
        ("h.0.mlp.c_fc.bias", &[8]),
        ("h.0.mlp.c_proj.weight", &[8, 2]),
        ("h.0.mlp.c_proj.bias", &[2]),
        ("ln_f.weight", &[2]),
        ("ln_f.bias", &[2]),
    ];
    let zeros = |(name, shape): (&str, &[usize])| {
        (name.to_owned(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap())
    };
    let weights = shapes.into_iter().map(zeros).collect();
    candle_core::safetensors::save(&weights, folder.path().join("model.safetensors")).unwrap();
    let source = Source::Path(folder.path().into());
    Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as OnProgress)).unwrap()
}

#[test]
fn tokenizers_give_the_ids_of_transformers() {
    let mut n = 0;
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        let name = &case.name;
        let model = load(case);
        let tokenizer = &model.tokenizer;
        let notes = model.provenance.notes.join("; ");
        assert!(tokenizer.is_some(), "{name}: {notes}");
        // Read as they stand, and said.
        let as_it_stands = name.starts_with("json_no_config");
        assert_eq!(as_it_stands, notes.contains("read as it stands"), "{name}: {notes}");
        if !as_it_stands {
            assert_eq!(tokenizer.vocab_size(), case.vocab_size, "{name}");
            assert_eq!(
                tokenizer.special_tokens().into_iter().collect::<BTreeMap<_, _>>(),
                case.special,
                "{name}"
            );
            assert!(case.added.keys().all(|&id| tokenizer.bytes(id).is_some()), "{name}");
        }
        for &id in &case.holes {
            assert_eq!((tokenizer.bytes(id), tokenizer.show(id)), (None, format!("#{id}")), "{name}");
        }
        let as_many = case.holes.is_empty() && case.model_vocab_size.is_none();
        assert_eq!(as_many || as_it_stands, !notes.contains(" knows") || as_it_stands, "{name}: {notes}");
        for Expected { text, ids, plain, each, whole } in &case.texts {
            let at = format!("{name}: {text:?}");
            let found = tokenizer.encode(text).unwrap_or_else(|error| panic!("{at}: {error}"));
            n += 1;
            if as_it_stands {
                assert_eq!(&found, case.json.get(text).unwrap_or(ids), "{at}");
                continue;
            }
            assert_eq!(&found, ids, "{at}");
            assert_eq!(tokenizer.inside(&found), plain.as_ref().unwrap_or(ids), "{at}");
            assert_eq!(&tokenizer.decode(ids), whole, "{at}");
            for (&id, text) in ids.iter().zip(each) {
                let bytes = tokenizer.bytes(id).unwrap();
                if let Some(special) = case.special.get(&id) {
                    // Some decoders leave them out; here they are seen.
                    assert_eq!(bytes, special.as_bytes(), "{at}");
                    continue;
                }
                let shown = String::from_utf8_lossy(&bytes);
                // Blanks that are left out at the start of a text belong to the token none the less.
                let trimmed = |text: &str| text.trim_start_matches(' ').to_owned();
                assert!(
                    shown == *text || trimmed(&shown) == trimmed(text),
                    "{at}: {id} is {shown:?}, not {text:?}"
                );
            }
            if tokenizer.is_exact() {
                let inside = tokenizer.inside(&found).iter();
                let bytes: Vec<u8> = inside.flat_map(|&id| tokenizer.bytes(id).unwrap()).collect();
                assert_eq!(String::from_utf8(bytes).unwrap(), *text, "{at}");
            }
        }
    }
    assert!(n > 500, "{n}");
}

#[test]
fn models_with_a_broken_tokenizer_run_on_token_ids() {
    let mut n = 0;
    for case in cases() {
        let Some(tag) = &case.refused else { continue };
        if tag == "vocab_bom" {
            // It does not read a byte-order mark; without it, this is `pair`.
            let pair = cases().into_iter().find(|case| case.name == "pair").unwrap();
            let [marked, plain] = [&case, &pair].map(|case| load(case).tokenizer.encode("the old").unwrap());
            assert_eq!(marked, plain);
            continue;
        }
        let words: &[&str] = match &**tag {
            "broken:cut" => &["tokenizer.json", "EOF"],
            "broken:empty" => &["tokenizer.json", "is empty"],
            "broken:array" => &["tokenizer.json", "not a JSON object"],
            "broken:no_model" | "broken:no_vocab" => &["tokenizer.json", "vocabulary"],
            "broken:bad_merge" => &["tokenizer.json", "merge 1"],
            "broken:new_component" => &["tokenizer.json", "`Quantum`"],
            "broken:new_model" => &["tokenizer.json", "`Neural`"],
            "broken:version" => &["tokenizer.json", "version"],
            "broken:lfs" => &["tokenizer.json", "Git LFS pointer"],
            "broken:vocab" => &["vocab.json"],
            "broken:merges" => &["merge 1 ", "only-one-part"],
            "no_merges" => &["vocab.json", "merges.txt is missing"],
            other => panic!("no words for {other}"),
        };
        let model = Arc::new(load(&case));
        let [note] = &model.provenance.notes[..] else { panic!("{}: one note", case.name) };
        let said = model.tokenizer.encode("a").unwrap_err().to_string();
        for said in [note, &said] {
            assert!(words.iter().all(|word| said.contains(word)), "{}: {said}", case.name);
            assert!(said.len() < 400 && !said.contains('\n'), "{said}");
        }
        assert!(note.contains("cannot be used") && model.tokenizer.problem().is_some(), "{note}");
        assert!(Run::all(&model, Input::ids([0, 1])).unwrap().n_tokens() == 2);
        n += 1;
    }
    assert!(n > 10, "{n}");
}

#[test]
fn bos_is_not_put_twice() {
    let cases = cases();
    let load = |name: &str| Arc::new(load(cases.iter().find(|case| case.name == name).unwrap()));
    let own = load("pair_bos");
    let bos = own.tokenizer.special_tokens()[0].0;
    let tokens = |model: &Arc<Model>, bos: bool| {
        let input = Input::text("the").with_bos(bos);
        (input.tokens(model), input.has_bos(model))
    };
    let [_, the] = own.tokenizer.encode("the").unwrap()[..] else { panic!("BOS and a token") };
    let mut named = Arc::into_inner(own).unwrap();
    named.net.config.bos_token_id = Some(bos);
    let own = Arc::new(named);
    for asked in [false, true] {
        let (ids, has) = tokens(&own, asked);
        assert_eq!((ids.unwrap(), has), (vec![bos, the], true));
    }
    let run = Run::all(&own, Input::text("the").with_bos(true)).unwrap();
    assert_eq!(run.prompt_tokens(), [the]);
    assert_eq!(run.input.followed_by([5], &run).tokens(&own).unwrap(), [bos, the, 5]);
    assert_eq!(run.input.followed_by([5], &run).prompt.to_text(&own.tokenizer), "the&");
    let (ids, has) = tokens(&load("pair"), false);
    assert_eq!((ids.unwrap(), has), (vec![the], false));
}

/// The walk claims that bytes are kept only of a tokenizer that keeps them.
#[test]
fn the_walk_says_when_a_text_is_changed() {
    use actscope::analysis::logits::Sampling;
    use actscope::analysis::walk::{At, Page, steps};

    let page = |name: &str, text: &str| {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let run = Run::all(&Arc::new(load(&case)), Input::text(text)).unwrap();
        let step = steps(run.config())[0];
        let at = At { step, position: 0, head: 0, key: 0, column: 0, sampling: Sampling::default() };
        Page::new(&run, at).unwrap()
    };
    let exact = page("pair", "the old man");
    assert!(exact.check.holds() && exact.check.claim.contains("bytes"), "{:?}", exact.check);
    let changed = page("wordpiece", "THE old man");
    assert!(changed.check.holds() && changed.check.claim.contains("each id"), "{:?}", changed.check);
    assert!(changed.text.contains("does not keep the text"), "{}", changed.text);
}

/// A file with some bytes changed, taken away or put in.
fn damaged(whole: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<prop::sample::Index>();
    prop::collection::vec((place, any::<u8>(), 0..3u8), 0..8).prop_map(move |changes| {
        let mut bytes = whole.clone();
        for (place, byte, kind) in changes {
            let at = place.index(bytes.len().max(1)).min(bytes.len());
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// What each reader accepts, encodes and decodes; what it refuses, it says in one line.
fn assert_handled(read: actscope::Result<Tokenizer>) {
    match read {
        Ok(tokenizer) => {
            let ids = tokenizer.encode("The café\n 漢 12").unwrap_or_default();
            let _ =
                (tokenizer.decode(&ids), tokenizer.kind(), tokenizer.notes(50), tokenizer.special_tokens());
            for id in ids.into_iter().chain([0, 1, u32::MAX]) {
                let _ = (tokenizer.show(id), tokenizer.bytes(id));
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("file: ") || said.starts_with("file "), "{said}");
            assert!(said.len() < 600 && !said.contains('\n'), "{said}");
        }
    }
}

fn file(path: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("wild").join(path)).unwrap()
}

proptest! {
    #[test]
    fn damaged_lists_of_pieces(bytes in damaged(file("tokenizers/vocab_txt/vocab.txt"))) {
        assert_handled(Tokenizer::from_vocab_txt(&bytes, &Beside::default(), Path::new("file")));
    }

    #[test]
    fn damaged_pairs(
        vocab in damaged(file("tokenizers/pair/vocab.json")),
        merges in damaged(file("tokenizers/pair/merges.txt")),
    ) {
        assert_handled(Tokenizer::from_vocab_and_merges(&vocab, &merges, &Beside::default(), Path::new("file")));
    }

    #[test]
    fn damaged_tokenizers_of_llmc(bytes in damaged(file("models/llmc_v3/gpt2_tokenizer.bin"))) {
        assert_handled(Tokenizer::from_llmc(&bytes, Path::new("file")));
    }

    #[test]
    fn damaged_characters(bytes in damaged(file("models/nanogpt_char/meta.pkl"))) {
        assert_handled(Tokenizer::from_characters(&bytes, Path::new("file")));
    }

    #[test]
    fn damaged_settings(
        settings in damaged(file("tokenizers/pair_decoder/tokenizer_config.json")),
        special in damaged(file("tokenizers/pair_special_map/special_tokens_map.json")),
        added in damaged(file("tokenizers/pair_added/added_tokens.json")),
        legacy in any::<bool>(),
    ) {
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let settings = if legacy { Value::Null } else { json(&settings) };
        let beside = Beside { class: None, settings, special_tokens: json(&special), added_tokens: json(&added) };
        let whole = file("tokenizers/json_added/tokenizer.json");
        assert_handled(Tokenizer::from_json(&whole, &beside, Path::new("file")));
    }

    #[test]
    fn anything_at_all(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let (beside, path) = (Beside::default(), Path::new("file"));
        assert_handled(Tokenizer::from_json(&bytes, &beside, path));
        assert_handled(Tokenizer::from_vocab_txt(&bytes, &beside, path));
        assert_handled(Tokenizer::from_llmc(&bytes, path));
        assert_handled(Tokenizer::from_characters(&bytes, path));
    }
}
