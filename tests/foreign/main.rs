//! Activations of other programs: all layouts and names are read, and what is wrong is found and named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

mod reference;

use reference::{Array, Fault, Gpt2, file};

const IDS: [u32; 12] = [5, 700, 96, 1500, 42, 17, 5, 88, 230, 999, 1024, 3];

fn gpt2() -> Gpt2 {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/model.safetensors");
    Gpt2::new(&fs::read(weights).unwrap(), 6)
}

fn ids() -> String {
    IDS.map(|id| id.to_string()).join(",")
}

/// The exit code, what is printed, and what is said on standard error.
fn actscope(place: &Path, args: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_actscope")).current_dir(place).args(args).output().unwrap();
    let [out, err] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (done.status.code().unwrap(), out, err)
}

/// The answer of a check in JSON.
fn check(all: &BTreeMap<String, Array>, more: &[&str]) -> (i32, Value) {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("mine.safetensors"), file(all)).unwrap();
    check_file(&place, "mine.safetensors", more)
}

fn check_file(place: &TempDir, name: &str, more: &[&str]) -> (i32, Value) {
    let ids = ids();
    let args = [&["check", name, "--token-ids", &ids, "--json"], more].concat();
    let (code, out, err) = actscope(place.path(), &args);
    assert!(!out.is_empty(), "{err}");
    (code, serde_json::from_str(&out).unwrap())
}

fn names(answer: &Value) -> Vec<&str> {
    answer["tensors"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn a_right_implementation_passes_in_llm_cs_layout() {
    let net = gpt2();
    let all = net.forward(&IDS, Fault::None);
    let (code, answer) = check(&net.stacked(&all), &[]);
    assert_eq!(
        (code, &answer["ok"], &answer["first_off"]),
        (0, &Value::Bool(true), &Value::Null),
        "{answer}"
    );
    // Every block of every kind, in the order of the data flow.
    let names = names(&answer);
    assert_eq!(names.len(), 7 + 16 * 4);
    assert_eq!(names[0], "blocks.0.hook_resid_pre");
    assert_eq!(names[names.len() - 1], "hook_probs");
    let at = |name: &str| names.iter().position(|one| *one == name).unwrap();
    assert!(at("blocks.2.attn.hook_pattern") < at("blocks.2.mlp.hook_post"));
    for one in answer["tensors"].as_array().unwrap() {
        assert!(
            one["max_diff"].as_f64().unwrap() < 1e-3 && one["cosine"].as_f64().unwrap() > 0.99999,
            "{one}"
        );
    }
    // Block by block as well.
    let (code, answer) = check(&all, &[]);
    assert_eq!((code, answer["tensors"].as_array().unwrap().len()), (0, 7 + 19 * 4));
}

/// With all tensors, with few, and with one.
#[test]
fn each_mistake_is_found_and_named() {
    let net = gpt2();
    for (fault, first, kind, words) in [
        (Fault::Transposed("attn"), "blocks.0.attn.hook_q", "transposed", "attn.c_attn"),
        (Fault::Transposed("attn_proj"), "blocks.0.hook_attn_out", "transposed", "attn.c_proj"),
        (Fault::Transposed("fc"), "blocks.0.mlp.hook_pre", "transposed", "mlp.c_fc"),
        (Fault::Transposed("fc_proj"), "blocks.0.hook_mlp_out", "transposed", "mlp.c_proj"),
        (Fault::Erf, "blocks.0.mlp.hook_post", "gelu", "erf GELU in place of tanh GELU"),
        (Fault::Epsilon(1e-3), "1 / blocks.0.ln1.hook_scale", "epsilon", "1e-3 in place of 1e-5"),
        (Fault::NoScale, "blocks.0.attn.hook_attn_scores", "scale", "missing scale"),
        (Fault::NoMask, "blocks.0.attn.hook_pattern", "mask", "missing mask"),
        (Fault::Shifted, "blocks.0.hook_resid_pre", "positions", "shifted by one"),
        (Fault::Reversed, "blocks.0.attn.hook_q", "heads", "in the order 5, 4, 3, 2, 1, 0"),
        (Fault::Interleaved, "blocks.0.attn.hook_q", "heads", "heads permuted"),
        (Fault::MergedRaw, "blocks.0.attn.hook_z", "heads", "heads permuted"),
        (Fault::SwappedQk, "blocks.0.attn.hook_q", "qk_swapped", "q and k swapped"),
        (Fault::PostNorm, "blocks.0.ln1.hook_out", "post_norm", "post-LayerNorm"),
        (Fault::Half, "blocks.0.hook_resid_pre", "float16", "float16"),
    ] {
        let all = net.forward(&IDS, fault);
        let (code, answer) = check(&all, &[]);
        assert_eq!((code, &answer["ok"]), (1, &Value::Bool(false)), "{fault:?}");
        let off = answer["first_off"].as_str().unwrap();
        assert!(off == first || off.starts_with(first), "{fault:?}: {off} is first, not {first}");
        let said = |answer: &Value| {
            let one = &answer["diagnoses"][0];
            (one["kind"].as_str().unwrap_or("").to_owned(), one["says"].as_str().unwrap_or("").to_owned())
        };
        let found = said(&answer);
        assert!(found.0 == kind && found.1.contains(words), "{fault:?}: {found:?}");
        // The residual stream alone, and the logits alone.
        for few in [&["residual3."][..], &["logits"]] {
            let some = all.iter().filter(|(name, _)| few.iter().any(|of| name.starts_with(of)));
            let some: BTreeMap<_, _> = some.map(|(name, array)| (name.clone(), array.clone())).collect();
            let (code, answer) = check(&some, &[]);
            let found = said(&answer);
            // Another order of the heads is none once they are added up.
            if fault == Fault::Reversed {
                assert_eq!(code, 0, "{fault:?}: {answer}");
                continue;
            }
            assert_eq!((code, found.0.as_str()), (1, kind), "{fault:?} in {few:?}: {answer}");
        }
    }
}
