//! A place without a checkpoint: what is there instead, and the way out.

use super::files::{Place, is_weights};
use crate::error::Error;
use crate::model::adapter_base;
use crate::text::brief;

/// Files of other programs: the ending of a name, what it is, and the way out.
const OTHERS: [(&str, &str, &str); 12] = [
    ("tf_model.h5", "a TensorFlow model", FROM_TF),
    (".h5", "a TensorFlow or Keras model", FROM_TF),
    (
        "flax_model.msgpack",
        "a Flax model",
        "convert it with transformers 4 (from_flax=True, save_pretrained)",
    ),
    (".gguf", "a GGUF model", "use the safetensors that it was made from"),
    (".onnx", "an ONNX model", "use the safetensors that it was made from"),
    ("rust_model.ot", "a model of rust-bert", "use the safetensors that it was made from"),
    (".tflite", "a TensorFlow Lite model", "use the safetensors that it was made from"),
    (".mlpackage/Manifest.json", "a Core ML model", "use the safetensors that it was made from"),
    (".mlmodel", "a Core ML model", "use the safetensors that it was made from"),
    (
        ".ckpt.index",
        "a TensorFlow 1 checkpoint",
        "convert it with transformers 4 (convert_gpt2_original_tf_checkpoint_to_pytorch.py)",
    ),
    ("optimizer.pt", "the state of a training run", "save the weights too (model.save_pretrained)"),
    ("training_args.bin", "the settings of a training run", "save the weights too (model.save_pretrained)"),
];
const FROM_TF: &str = "convert it with transformers 4 (from_tf=True, save_pretrained)";

/// The error for a place without a checkpoint that holds the files `names`.
pub(super) fn error(place: &mut dyn Place, names: &[String]) -> Error {
    let problem = problem(place, names);
    Error::file(place.name(), problem)
}

fn problem(place: &mut dyn Place, names: &[String]) -> String {
    let with = |ending: &str| names.iter().find(|name| name.ends_with(ending) || *name == ending);
    let here = place.name();
    if names.iter().any(|name| name == "adapter_config.json") {
        let config = place.find("adapter_config.json").ok().flatten();
        let base = config.and_then(|file| adapter_base(&file));
        let base = base.map_or("MODEL".into(), |base| brief(&base, 80).into_owned());
        return format!(
            "is a LoRA adapter, not a model; open the model that it changes: --model {base} --adapter {here}"
        );
    }
    if let Some(name) = names.iter().find(|name| is_shard(name)) {
        return format!(
            "has shards such as `{}`, but no index that lists them (model.safetensors.index.json); download it too",
            brief(name, 80)
        );
    }
    if let Some(name) = names.iter().find(|name| is_weights(name)) {
        let name = brief(name, 80);
        return format!("has weights, `{name}`, but no config.json; put the model's config.json there too");
    }
    let weights = |name: &str| {
        ["model.safetensors", "pytorch_model.bin", "ckpt.pt"].contains(&name) || name.ends_with(".index.json")
    };
    let folder = names.iter().filter_map(|name| name.split_once('/')).find(|(_, name)| weights(name));
    if let Some((folder, _)) = folder {
        let folder = brief(folder, 80);
        return format!("has no weights, but its folder `{folder}` has; use --model {here}/{folder}");
    }
    for (ending, what, way_out) in OTHERS {
        if let Some(name) = with(ending) {
            return format!(
                "has no weights that actscope reads, only `{}`, {what}; {way_out}",
                brief(name, 80)
            );
        }
    }
    if names.is_empty() {
        return "has no config.json, so it is not a model in Hugging Face's layout".into();
    }
    let has_config = names.iter().any(|name| name == "config.json");
    let no = if has_config { "no weights" } else { "no config.json and no weights" };
    let there: Vec<_> = names.iter().take(3).map(|name| brief(name, 40)).collect();
    let more = if names.len() > 3 { " and others" } else { "" };
    format!(
        "has {no}, only {}{more}; a model's directory has config.json and model.safetensors or pytorch_model.bin, \
         or a checkpoint of nanoGPT or llm.c",
        there.join(", ")
    )
}

/// The error for a place with several checkpoints, none of which has a usual name.
pub(super) fn several(place: &dyn Place, names: &[&String]) -> Error {
    let here = place.name();
    let first = brief(names[0], 80);
    let all: Vec<_> = names.iter().take(4).map(|name| brief(name, 40)).collect();
    let more = if names.len() > 4 { " and others" } else { "" };
    Error::file(
        &here,
        format!(
            "holds several files of weights ({}{more}); name one: --model {here}/{first}",
            all.join(", ")
        ),
    )
}

/// Whether a file is named like one of several shards: `model-00001-of-00002.safetensors`.
pub(super) fn is_shard(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".bin"));
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = stem.and_then(|stem| stem.rsplit_once("-of-"));
    parts.is_some_and(|(start, n)| number(n) && start.rsplit_once('-').is_some_and(|(_, i)| number(i)))
}
