//! Checkpoints as they occur in the wild: the numbers of Hugging Face transformers and a note of what
//! was unusual, or one sentence that says what was found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actscope::model::source::OnProgress;
use actscope::model::{Format, LoadOptions, Source};
use actscope::{Input, Model, Run};
use serde::Deserialize;

/// A checkpoint of `tests/fixtures/wild/models.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    #[serde(default)]
    token_ids: Vec<u32>,
    /// Of the last position.
    #[serde(default)]
    logits: Vec<f32>,
    #[serde(default)]
    says: Vec<String>,
    refused: Option<String>,
    /// The adapter to merge.
    adapter: Option<String>,
    /// What the tokenizer beside it gives.
    #[serde(default)]
    texts: Vec<Text>,
    /// The bytes of all its tokens, by id.
    #[serde(default)]
    pieces: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

fn wild() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild")
}

fn cases(read: &[&str]) -> Vec<Case> {
    let json = std::fs::read(wild().join("models.json")).unwrap();
    let all: Vec<Case> = serde_json::from_slice(&json).unwrap();
    let found: Vec<_> =
        all.into_iter().filter(|case| read.iter().any(|kind| case.name.starts_with(kind))).collect();
    assert!(read.iter().all(|kind| found.iter().any(|case| case.name.starts_with(kind))));
    found
}

/// What a note or a refusal must name.
fn words(tag: &str) -> Vec<&str> {
    match tag.split_once(':') {
        Some(("alias" | "default" | "prefix" | "conflict", what)) => vec![what],
        // Seen in the format, below.
        Some(("dtype", "complex64")) => vec!["complex64"],
        Some(("dtype", "float64" | "float16" | "bfloat16" | "float8_e4m3fn" | "float8_e5m2")) => vec![],
        Some(("dtype", "int8")) => vec!["int8 without scales"],
        Some(("dtype", "mixed")) => vec!["several formats: bf16, f32"],
        Some(("file" | "variant", what)) => vec!["read from", what],
        Some(("subfolder", what)) => vec!["its folder", what, "--model "],
        Some(("head", what)) => vec![what, "was not trained"],
        Some(("quantised", what)) => vec!["quantised", what],
        Some(("adapter_alone", base)) => vec!["LoRA adapter", "--adapter ", base],
        Some(("adapter_kind", "dora")) => vec!["DoRA", "merge_and_unload"],
        Some(("adapter_kind", what)) => vec![what, "merge_and_unload"],
        Some(("lfs", what)) => vec![what, "Git LFS pointer"],
        Some(("empty", what)) => vec![what, "is empty"],
        Some(("html", what)) => vec![what, "web page"],
        Some(("not_safetensors", what)) => vec![what, "PyTorch file"],
        Some(("truncated", what)) => vec![what, "cannot be read"],
        Some(("only", what)) => match what {
            "spiece" => vec!["spiece.model", "no weights"],
            "tokenizer_model" => vec!["tokenizer.model", "no weights"],
            "tf_h5" => vec!["tf_model.h5", "TensorFlow", "from_tf"],
            "gguf" => vec!["gguf", "GGUF"],
            "onnx" => vec!["model.onnx", "ONNX"],
            "onnx_folder" => vec!["onnx/decoder_model.onnx", "ONNX"],
            "flax" => vec!["flax_model.msgpack", "from_flax"],
            "rust_ot" => vec!["rust_model.ot"],
            "tf1" => vec!["TensorFlow 1", "model.ckpt.index"],
            "tflite" => vec!["64.tflite"],
            "coreml" => vec!["Core ML"],
            "training" => vec!["optimizer.pt", "training run"],
            "nothing" => vec!["no weights", "config.json"],
            "tokenizer_only" => vec!["no weights", "tokenizer.json"],
            _ => panic!("no words for {tag}"),
        },
        Some(("twice", what)) => vec![what, "different values"],
        Some(("config", "nan" | "big_numbers")) => vec!["NaN, Infinity"],
        Some(("config", "nulls")) => vec!["layer_norm_epsilon is null"],
        Some(("config", "bos_minus_one")) => vec!["bos_token_id is -1"],
        Some(("config", "bos_list")) => vec!["bos_token_id is [49,3], read as 49"],
        Some(("shape", what)) => vec![what, "shape"],
        Some(("nested", key)) => vec!["under `", key],
        Some(("llmc_version", "2")) => vec!["version 2", "3 (float32) and 5 (bfloat16)"],
        _ => match tag {
            "unused_tensors" => vec!["not used"],
            "transposed" => vec!["transposed"],
            "shard_missing" => vec!["lists the shard", "missing"],
            "index_missing" => vec!["model-00001-of-00002.safetensors", "no index"],
            "adapter" => vec!["adapter", "is merged"],
            "adapter_modules_to_save" => vec!["modules_to_save", "merge_and_unload"],
            "adapter_shape" => vec!["shape", "another model"],
            "no_weights" => vec!["no weights", "meta.pkl"],
            "head_differs" => vec!["lm_head.weight differs"],
            "tied_without_head" => vec!["no lm_head.weight"],
            "tied_without_wte" => vec!["no wte.weight"],
            "missing_tensor" => vec!["has no tensor"],
            "more_blocks" | "fewer_blocks" => vec!["blocks, but n_layer is"],
            "n_layer_missing" => vec!["gives no n_layer"],
            "n_head_missing" => vec!["has no n_head"],
            "bom" => vec!["byte-order mark"],
            "nanogpt" => vec!["nanoGPT", "exact (erf)"],
            "no_biases" => vec!["no biases"],
            "n_head" => vec!["n_embd", "n_head"],
            "llmc" => vec!["a model of llm.c"],
            "padded_vocab" => vec!["padded"],
            "tokenizer_broken" => vec!["the tokenizer cannot be used"],
            "tokenizer_lfs" => vec!["the tokenizer cannot be used", "Git LFS pointer"],
            "tokenizer_spiece" => vec!["spiece.model", "SentencePiece", "tokenizer.json"],
            "truncated" => vec!["cut short"],
            "trailing_bytes" => vec!["bytes follow"],
            "llmc_state" => vec!["debug state of llm.c"],
            "llmc_data" => vec!["token data of llm.c"],
            "llmc_tokenizer" => vec!["tokenizer of llm.c"],
            "llmc_llama3" => vec!["Llama 3"],
            "model_type" => vec!["model_type"],
            _ => panic!("no words for {tag}"),
        },
    }
}

fn check(case: &Case) {
    let Case { name, path, token_ids, logits, says, .. } = case;
    let source = Source::Path(wild().join(path));
    let adapter = case.adapter.as_ref().map(|adapter| wild().join(adapter));
    let options = LoadOptions { adapter, ..LoadOptions::default() };
    let loaded = Model::load(&source, &options, &(Arc::new(|_| {}) as OnProgress));
    if let Some(tag) = &case.refused {
        let said = loaded.map(|_| ()).unwrap_err().to_string();
        assert!(said.len() < 400 && !said.contains('\n'), "{name}: {said}");
        assert!(words(tag).iter().all(|word| said.contains(word)), "{name}: {tag}: {said}");
        return;
    }
    let model = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
    let notes = model.provenance.notes.join("; ");
    for word in says.iter().flat_map(|tag| words(tag)) {
        assert!(notes.contains(word), "{name}: `{word}` is not in: {notes}");
    }
    let formats =
        says.iter().filter_map(|tag| tag.strip_prefix("dtype:")).filter(|format| *format != "mixed");
    for format in formats {
        assert_eq!(model.provenance.stored_dtype, Format::of_torch(format), "{name}");
    }
    assert_eq!(notes.is_empty(), says.iter().all(|tag| words(tag).is_empty()), "{name}: {notes}");
    for Text { text, ids } in &case.texts {
        assert_eq!(model.tokenizer.encode(text).unwrap(), *ids, "{name}: {text:?}");
        assert_eq!(model.tokenizer.decode(ids), *text, "{name}");
    }
    for (id, piece) in case.pieces.iter().enumerate() {
        assert_eq!(model.tokenizer.bytes(id as u32).as_ref(), Some(piece), "{name}: {id}");
    }
    let run = Run::all(&Arc::new(model), Input::ids(token_ids.clone())).unwrap();
    let found: Vec<Vec<f32>> = run.cache.get("logits").unwrap().to_vec2().unwrap();
    let found = &found[token_ids.len() - 1];
    assert_eq!(found.len(), logits.len(), "{name}");
    let largest = logits.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(logits).enumerate() {
        assert!((a - b).abs() <= 2e-5 * largest, "{name}: logit {i} is {a}, not {b}");
    }
}

#[test]
fn sizes_and_heads_are_those_of_transformers() {
    let kinds = [
        "head_differs",
        "head_equal",
        "head_missing",
        "head_untied",
        "wte_",
        "alias_",
        "conflict_",
        "n_",
        "vocab_",
    ];
    cases(&kinds).iter().for_each(check);
}

#[test]
fn configurations_are_read_as_python_writes_them() {
    cases(&["config_"]).iter().for_each(check);
}

#[test]
fn prefixes_are_seen_through_and_two_values_refused() {
    cases(&["prefix_", "twice_", "buffers", "missing_tensor"]).iter().for_each(check);
}

#[test]
fn other_tensors_and_layouts_are_read_and_said() {
    cases(&["transposed", "extra_tensors", "head_"]).iter().for_each(check);
}

#[test]
fn weights_are_read_from_shards_variants_and_files_by_name() {
    cases(&["shards_", "variant", "file_", "dir_pt", "subfolder"]).iter().for_each(check);
}

#[test]
fn whatever_torch_save_wrote_is_read() {
    cases(&["bin_", "nest_", "integer_keys"]).iter().for_each(check);
}

#[test]
fn nanogpt_and_llmc_bring_their_configuration_along() {
    cases(&["nanogpt_", "llmc_"]).iter().for_each(check);
}

#[test]
fn number_formats_are_widened() {
    cases(&["dtype_"]).iter().for_each(check);
}

#[test]
fn adapters_are_merged_as_peft_merges_them() {
    cases(&["lora_"]).iter().for_each(check);
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let kinds = ["quantised_", "only_", "lfs_", "empty_", "html_", "swapped_", "zip_bin", "meta_only"];
    cases(&kinds).iter().for_each(check);
}

#[test]
fn a_model_with_a_tokenizer_that_is_not_read_runs_on_token_ids() {
    cases(&["tokenizer_"]).iter().for_each(check);
}

/// nanoGPT's checkpoints lie in a folder beside `data`, which has the characters of each data set.
#[test]
fn characters_are_found_in_nanogpts_data() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::create_dir_all(at("out")).unwrap();
    let checkpoint = wild().join("models/nanogpt_char");
    std::fs::copy(checkpoint.join("ckpt.pt"), at("out/ckpt.pt")).unwrap();
    let load = |path: &str| Model::open(at(path).to_str().unwrap()).unwrap();
    assert!(!load("out").tokenizer.is_some());
    std::fs::create_dir_all(at("data/shakespeare_char")).unwrap();
    std::fs::copy(checkpoint.join("meta.pkl"), at("data/shakespeare_char/meta.pkl")).unwrap();
    for path in ["out", "out/ckpt.pt"] {
        let tokenizer = load(path).tokenizer;
        assert_eq!(tokenizer.encode(";:").unwrap(), [9, 8]);
        assert_eq!(tokenizer.kind(), "characters, 50 tokens, from meta.pkl");
        let said = tokenizer.encode("z").unwrap_err().to_string();
        assert!(said.contains("`z`") && said.contains("--token-ids"), "{said}");
    }
}
