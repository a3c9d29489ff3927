//! No file of a checkpoint, whatever its bytes, makes the loader panic or say more than a line.

use std::path::Path;
use std::sync::Arc;

use actscope::Model;
use actscope::hooks::HookFilter;
use actscope::model::{Beside, LoadOptions, Source, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
}

/// A checkpoint of the given files.
fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn load(files: &[(&str, Vec<u8>)]) -> Result<Model, String> {
    open(directory(files).path(), &LoadOptions::default())
}

fn open(directory: &Path, options: &LoadOptions) -> Result<Model, String> {
    let loaded = Model::load(&Source::Path(directory.into()), options, &(Arc::new(|_| {}) as _));
    loaded.map_err(|error| {
        let said = actscope::cli::report(&error);
        assert!(said.len() < 600, "{said}");
        said
    })
}

/// A NaN in one row of wpe.
#[test]
fn what_is_not_a_number_stays_where_it_is_read() {
    use actscope::hooks::{Axis, Site};
    use actscope::{Input, Run};
    let mut weights = fixture("tiny/plain/model.safetensors");
    let place = {
        let file = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let wpe = file.tensor("transformer.wpe.weight").unwrap();
        assert_eq!(wpe.dtype(), safetensors::Dtype::F32);
        wpe.data().as_ptr() as usize - weights.as_ptr() as usize + 4 * (3 * wpe.shape()[1] + 5)
    };
    weights[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let config = fixture("tiny/plain/config.json");
    let model = Arc::new(load(&[("config.json", config), ("model.safetensors", weights)]).unwrap());
    let short = Run::all(&model, Input::ids([7, 1, 4])).unwrap();
    let whole = Run::all(&model, Input::ids([7, 1, 4, 9, 2, 30])).unwrap();
    let longer = short.then(whole.input.clone(), HookFilter::all(model.config()), ()).unwrap();
    let many = Input::ids([7, 1, 4, 9, 2, 30, 8, 3, 11, 5, 6, 12]);
    let whole_of_many = Run::all(&model, many.clone()).unwrap();
    // Its pattern is made as a tensor.
    let knockout: actscope::interventions::Change = "knockout 0.0:11->2".parse().unwrap();
    let changed = Run::all(&model, many.with_interventions([knockout].into_iter().collect())).unwrap();
    for run in [&whole, &longer, &whole_of_many, &changed] {
        for hook in run.cache.names() {
            let axes = hook.point().axes;
            let position = axes.iter().position(|axis| *axis == Axis::Pos).unwrap();
            let tensor = run.tensor(hook).unwrap();
            let nan = |from: usize, n: usize| {
                let rows: Vec<f32> =
                    tensor.narrow(position, from, n).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                rows.iter().any(|x| x.is_nan())
            };
            assert!(!nan(0, 3), "{hook}: rows before the one with NaN");
            assert_eq!(nan(3, 1), hook.site != Site::Embed, "{hook}: the row itself");
        }
    }
    let logits = |run: &Run| {
        run.tensor(Site::Logits.once()).unwrap().narrow(0, 0, 3).unwrap().to_vec2::<f32>().unwrap()
    };
    for (a, b) in logits(&whole).concat().into_iter().zip(logits(&longer).concat()) {
        assert!((a - b).abs() < 1e-4, "{a}, {b}");
    }
}

/// What happens to a file: other bytes, a cut, or a few changes.
#[derive(Debug, Clone)]
enum Damage {
    Other(Vec<u8>),
    Cut(usize),
    Change(Vec<(usize, u8)>),
}

impl Damage {
    fn to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let len = bytes.len();
        match self {
            Self::Other(other) => return other.clone(),
            Self::Cut(at) => bytes.truncate(at % len),
            Self::Change(changes) => changes.iter().for_each(|(at, byte)| bytes[at % len] = *byte),
        }
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // Mostly in front, where headers are.
    let place = || prop_oneof![3 => 0usize..6000, 1 => any::<usize>()];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..400).prop_map(Damage::Other),
        1 => place().prop_map(Damage::Cut),
        3 => prop::collection::vec((place(), any::<u8>()), 1..6).prop_map(Damage::Change),
    ]
}

/// Files of `tests/fixtures/wild`, one of each kind that is read.
const WILD: [(&str, &str); 9] = [
    ("models/bin_old", "pytorch_model.bin"),
    ("models/bin_protocol5", "pytorch_model.bin"),
    ("models/bin_steps", "pytorch_model.bin"),
    ("models/shards_bin", "pytorch_model.bin.index.json"),
    ("models/dtype_float8_e5m2_safetensors", "model.safetensors"),
    ("models/nanogpt_char", "ckpt.pt"),
    ("models/nanogpt_char", "meta.pkl"),
    ("models/llmc_v3", "gpt2_124M.bin"),
    ("models/llmc_v3", "gpt2_tokenizer.bin"),
];

/// The files of a folder of `tests/fixtures/wild`, one of them damaged.
fn damaged(folder: &str, name: &str, damage: &Damage) -> tempfile::TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild").join(folder);
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if entry.file_name() == name {
            bytes = damage.to(bytes);
        }
        std::fs::write(dir.path().join(entry.file_name()), bytes).unwrap();
    }
    dir
}

/// A tokenizer whose components are drawn from all that there are, with anything in them.
fn tokenizer() -> impl Strategy<Value = (Value, String)> {
    let text = || {
        const ODD: [&str; 14] =
            ["", " ", "a", "ab", "▁", "é", "e\u{301}", "\u{fdfa}", "İ", "\u{0}", "中", "🙂", "</w>", "\n"];
        prop_oneof![4 => prop::sample::select(&ODD[..]).prop_map(str::to_owned), 1 => "\\PC{0,12}"]
    };
    let regex = prop::sample::select(vec![
        ".",
        "",
        "a*",
        "a+",
        r"\s+",
        r"\s+(?!\S)",
        r"\p{L}+| ",
        r"\b",
        "(?=a)",
        "(?<=a)b",
        "^",
        "$",
        "(a|b)*c",
        "(",
        r"(a)\1",
        "(?i:A)",
        r"\X",
        "[^a]?+b",
        r"\K",
    ]);
    let pattern = || {
        prop_oneof![
            text().prop_map(|text| json!({ "String": text })),
            regex.clone().prop_map(|regex| json!({ "Regex": regex })),
        ]
    };
    let plain =
        |kinds: &'static [&'static str]| prop::sample::select(kinds).prop_map(|kind| json!({ "type": kind }));
    let normalizer = prop_oneof![
        3 => plain(&["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "None"]),
        1 => any::<[bool; 2]>().prop_map(|[left, right]| json!({ "type": "Strip", "strip_left": left, "strip_right": right })),
        1 => any::<[bool; 4]>().prop_map(|[clean, chinese, accents, lower]| json!({
            "type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese,
            "strip_accents": accents, "lowercase": lower,
        })),
        2 => text().prop_map(|text| json!({ "type": "Prepend", "prepend": text })),
        3 => (pattern(), text()).prop_map(|(pattern, text)| json!({ "type": "Replace", "pattern": pattern, "content": text })),
    ];
    let behavior = prop::sample::select(
        &["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"][..],
    );
    let pre_tokenizer = prop_oneof![
        2 => plain(&["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts", "None"]),
        1 => any::<[bool; 2]>().prop_map(|[space, regex]| json!({
            "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": regex,
        })),
        1 => (text(), prop::sample::select(&["always", "never", "first"][..]), any::<bool>()).prop_map(
            |(text, scheme, split)| json!({
                "type": "Metaspace", "replacement": text, "prepend_scheme": scheme, "split": split,
            })
        ),
        1 => any::<bool>().prop_map(|each| json!({ "type": "Digits", "individual_digits": each })),
        1 => (0u32..4).prop_map(|length| json!({ "type": "FixedLength", "length": length })),
        1 => text().prop_map(|text| json!({ "type": "CharDelimiterSplit", "delimiter": text })),
        1 => behavior.clone().prop_map(|behavior| json!({ "type": "Punctuation", "behavior": behavior })),
        3 => (pattern(), behavior, any::<bool>()).prop_map(|(pattern, behavior, invert)| json!({
            "type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert,
        })),
    ];
    let added =
        (text(), any::<[bool; 5]>()).prop_map(|(content, [word, left, right, normalized, special])| {
            json!({
                "id": 9, "content": content, "single_word": word, "lstrip": left, "rstrip": right,
                "normalized": normalized, "special": special,
            })
        });
    let unk = prop_oneof![Just(Value::Null), text().prop_map(Value::from)];
    (
        prop::collection::vec(normalizer, 0..6),
        prop::collection::vec(pre_tokenizer, 0..4),
        prop::collection::vec(added, 0..3),
        (unk.clone(), unk),
        prop::collection::vec(text(), 0..8).prop_map(|texts| texts.concat()),
    )
        .prop_map(|(normalizers, pre_tokenizers, added, (unk, suffix), text)| {
            let json = json!({
                "version": "1.0",
                "added_tokens": added,
                "normalizer": { "type": "Sequence", "normalizers": normalizers },
                "pre_tokenizer": { "type": "Sequence", "pretokenizers": pre_tokenizers },
                "post_processor": null,
                "decoder": null,
                "model": {
                    "type": "BPE", "unk_token": unk, "end_of_word_suffix": suffix,
                    "vocab": { "a": 0, "b": 1, "ab": 2, " ": 3, "▁": 4, "é": 5 }, "merges": ["a b"],
                },
            });
            (json, text)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokenizer_components((json, text) in tokenizer()) {
        let loaded = Tokenizer::from_json(json.to_string().as_bytes(), &Beside::default(), Path::new("tokenizer.json"));
        let said = match loaded {
            Ok(tokenizer) => tokenizer.encode(&text).err(),
            Err(error) => Some(error),
        };
        if let Some(error) = said {
            let said = actscope::cli::report(&error);
            prop_assert!(said.len() < 600 && said.contains("tokenizer.json"), "{said}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn config(damage in damage()) {
        let config = damage.to(fixture("tiny/plain/config.json"));
        let _ = load(&[("config.json", config), ("model.safetensors", fixture("tiny/plain/model.safetensors"))]);
    }

    #[test]
    fn safetensors(damage in damage()) {
        let weights = damage.to(fixture("tiny/plain/model.safetensors"));
        let _ = load(&[("config.json", fixture("tiny/plain/config.json")), ("model.safetensors", weights)]);
    }

    #[test]
    fn index(damage in damage()) {
        let index = damage.to(fixture("tiny/sharded/model.safetensors.index.json"));
        let _ = load(&[("config.json", fixture("tiny/sharded/config.json")), ("model.safetensors.index.json", index)]);
    }

    #[test]
    fn pickle(damage in damage()) {
        let weights = damage.to(fixture("tiny/pickle/pytorch_model.bin"));
        let _ = load(&[("config.json", fixture("tiny/pickle/config.json")), ("pytorch_model.bin", weights)]);
    }

    #[test]
    fn adapters(damage in damage(), of_config in any::<bool>()) {
        let name = if of_config { "adapter_config.json" } else { "adapter_model.safetensors" };
        let adapter = damaged("models/lora/patterns", name, &damage);
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild/models/lora/base");
        let _ = open(&base, &LoadOptions { adapter: Some(adapter.path().into()), ..LoadOptions::default() });
    }

    #[test]
    fn tokenizer_json(damage in damage()) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/tokenizer.json");
        let tokenizer = damage.to(std::fs::read(demo).unwrap());
        let loaded = load(&[
            ("config.json", fixture("tiny/plain/config.json")),
            ("model.safetensors", fixture("tiny/plain/model.safetensors")),
            ("tokenizer.json", tokenizer),
        ]);
        if let Ok(model) = loaded {
            let _ = model.tokenizer.encode("The cat é\n\u{1F600} 12 ''s");
        }
    }

    #[test]
    fn vocab_and_merges(vocab in prop::option::of(damage()), merges in prop::option::of(damage())) {
        let damaged = |name: &str, damage: &Option<Damage>| {
            let whole = fixture(&format!("tokenizer/{name}"));
            damage.as_ref().map_or(whole.clone(), |damage| damage.to(whole))
        };
        let loaded = load(&[
            ("config.json", fixture("tiny/plain/config.json")),
            ("model.safetensors", fixture("tiny/plain/model.safetensors")),
            ("vocab.json", damaged("vocab.json", &vocab)),
            ("merges.txt", damaged("merges.txt", &merges)),
        ]);
        if let Ok(model) = loaded {
            let _ = model.tokenizer.encode("The cat é\n\u{1F600} 12 ''s");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_of_every_kind((folder, name) in prop::sample::select(&WILD), damage in damage()) {
        let dir = damaged(folder, name, &damage);
        if let Ok(model) = open(dir.path(), &LoadOptions::default()) {
            let _ = model.tokenizer.encode("The cat é\n\u{1F600} 12 ''s");
        }
    }
}
