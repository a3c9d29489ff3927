//! `gradients`, `inputs`, `edges`, and what other commands say of gradients.

use std::path::Path;
use std::sync::Arc;

use actscope::analysis::gradients::Metric;
use actscope::hooks::{Part, Site};
use actscope::{Input, Model, Run};
use safetensors::SafeTensors;
use serde_json::Value;

use super::{assert_refused, stdout};

const PROMPT: &str = "The old man saw the young woman, and the old";
const OTHER: &str = "The young man saw the old woman, and the old";
const PAIR: [&str; 8] = ["--clean", PROMPT, "--corrupt", OTHER, "--token", " man", "--versus", " woman"];

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[args, &["--json"]].concat())).unwrap()
}

/// Standard output of a call that says on standard error what file it wrote.
fn said(args: &[&str]) -> String {
    let done = super::actscope().args(args).assert().success();
    let (out, err) = (&done.get_output().stdout, &done.get_output().stderr);
    assert!(String::from_utf8_lossy(err).contains(" in "), "{}", String::from_utf8_lossy(err));
    String::from_utf8(out.clone()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn gradients_are_summed_up_and_written() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let metric = Metric::parse("logit_diff: man, woman@10", &model, run.n_tokens()).unwrap();
    let want = run.gradients(&metric).unwrap();
    let hooks = ["--hooks", "resid_post.*", "--hooks", "pattern.2"];
    let of = [&["gradients", PROMPT, "--metric", "logit_diff: man, woman"][..], &hooks].concat();
    let found = json(&of);
    assert_eq!(keys(&found), ["metric", "value", "stop", "tensors"]);
    assert_eq!(found["metric"], metric.to_string());
    assert!((found["value"].as_f64().unwrap() - want.value).abs() < 1e-9);
    let tensors = found["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 5);
    for row in tensors {
        assert_eq!(keys(row), ["name", "shape", "mean_abs", "largest", "at", "times_value"]);
        let name = model.find(row["name"].as_str().unwrap()).unwrap();
        let g = want.part(name, &Part::default()).unwrap();
        let at: Vec<usize> = serde_json::from_value(row["at"].clone()).unwrap();
        let mut cell = g.clone();
        for i in at {
            cell = cell.get(i).unwrap();
        }
        let all: Vec<f32> = g.flatten_all().unwrap().to_vec1().unwrap();
        let largest = all.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert_eq!(cell.to_scalar::<f32>().unwrap().abs(), largest, "{name}");
        assert!((row["largest"].as_f64().unwrap().abs() - f64::from(largest)).abs() < 1e-6);
    }
    let table = stdout(&of);
    assert!(table.starts_with("logit of ·man over ·woman after position 10: 0.437\n"), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("mean |g|") && table.lines().count() == 2 + 5, "{table}");

    // To a file: of the hooks of the globs, at some positions.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.safetensors");
    let file = path.to_str().unwrap();
    said(&[&of[..], &["-o", file, "--positions", "3..6"]].concat());
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names().len(), 5);
    let view = file.tensor("blocks.2.attn.hook_pattern.grad").unwrap();
    assert_eq!(view.shape(), [6, 3, 11]);
    let part = want.part(Site::ResidPost.at(1), &Part::rows(3..6)).unwrap();
    let bits: Vec<u8> = part
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    assert_eq!(file.tensor("blocks.1.hook_resid_post.grad").unwrap().data(), bits);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let said = metadata.metadata().as_ref().unwrap();
    assert!(said.values().any(|value| value.contains("logit_diff:437,981@10")), "{said:?}");
}

#[test]
fn changes_and_constants_are_part_of_what_is_differentiated() {
    let of = |more: &[&str]| json(&[&["gradients", PROMPT, "--hooks", "embed"], more].concat());
    let plain = of(&[]);
    assert!(plain["metric"].as_str().unwrap().starts_with("logprob:"), "{plain}");
    assert_eq!(
        of(&["--stop", "scale", "--stop", "pattern"])["stop"],
        serde_json::json!(["scale", "pattern"])
    );
    for more in
        [&["--stop", "scale"][..], &["--stop", "pattern"], &["--ablate", "head:1.5"], &["--metric", "loss"]]
    {
        assert_ne!(of(more)["tensors"], plain["tensors"], "{more:?}");
    }
    // What is put in place of a value passes nothing on to it: the last embedding no longer matters.
    let all = of(&["--ablate", "resid_pre.0"]);
    assert_eq!(all["tensors"][0]["mean_abs"], 0.0);
}

#[test]
fn inputs_add_up() {
    let of =
        |method: &str| json(&["inputs", PROMPT, "--metric", "logit_diff: man, woman", "--method", method]);
    let ig = of("ig:64");
    assert_eq!(keys(&ig), ["metric", "method", "steps", "value", "baseline", "sum", "tokens"]);
    let number = |of: &Value| of.as_f64().unwrap();
    let sum: f64 = ig["tokens"].as_array().unwrap().iter().map(|row| number(&row["value"])).sum();
    assert!((sum - number(&ig["sum"])).abs() < 1e-5);
    assert!((sum - (number(&ig["value"]) - number(&ig["baseline"]))).abs() < 0.01);
    assert_eq!((&ig["method"], &ig["steps"]), (&"ig".into(), &64.into()));
    assert_eq!(keys(&ig["tokens"][2]), ["position", "id", "text", "value"]);
    assert_eq!(ig["tokens"][2]["text"], " man");
    assert_eq!(of("grad_x_input")["steps"], Value::Null);
    let table = stdout(&["inputs", PROMPT, "--metric", "loss"]);
    assert!(table.starts_with("mean loss of tokens 1..11: ") && table.contains("\nsum "), "{table}");
    assert_refused(&["inputs", PROMPT, "--method", "shap"], 2, &["shap", "grad_x_input, ig, or ig:STEPS"]);
    assert_refused(&["inputs", PROMPT, "--method", "ig:0"], 2, &["1 to 1000"]);
    assert_refused(&["inputs", PROMPT, "--stop", "scale"], 2, &["--stop is not for inputs"]);
}

#[test]
fn edges_are_listed_kept_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("edges.svg");
    let of =
        [&["edges"][..], &PAIR, &["-k", "7", "--keep", "0,20,927", "-o", svg.to_str().unwrap()]].concat();
    let found: Value = serde_json::from_str(&said(&[&of[..], &["--json"]].concat())).unwrap();
    assert_eq!(keys(&found), ["clean", "corrupt", "pairs", "ig", "n_edges", "edges", "keep"]);
    assert_eq!((&found["pairs"], &found["n_edges"]), (&1.into(), &927.into()));
    let edges = found["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 7);
    assert_eq!((&edges[0]["from"], &edges[0]["to"]), (&"head:0.0".into(), &"mlp:0".into()));
    let kept: Vec<f64> =
        found["keep"].as_array().unwrap().iter().map(|row| row["faithfulness"].as_f64().unwrap()).collect();
    assert!(kept[0].abs() < 1e-3 && kept[1] > 0.5 && (kept[2] - 1.0).abs() < 1e-3, "{kept:?}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.matches("<path").count() == 7);

    // Pairs from a file: text or ids, tokens of each line or of all.
    let pairs = dir.path().join("pairs.jsonl");
    let line = |clean: &str, corrupt: &str| {
        serde_json::json!({"clean": clean, "corrupt": corrupt, "token": " man", "versus": " woman"})
            .to_string()
    };
    std::fs::write(&pairs, format!("{}\n\n{}\n", line(PROMPT, OTHER), line(OTHER, PROMPT))).unwrap();
    let file = pairs.to_str().unwrap();
    let both = json(&["edges", "--pairs", file, "--ig", "2"]);
    assert_eq!((&both["pairs"], &both["ig"]), (&2.into(), &2.into()));
    std::fs::write(&pairs, "{\"clean_ids\": [5, 6], \"corrupt_ids\": [7, 8], \"token\": 9}\n").unwrap();
    assert_eq!(json(&["edges", "--pairs", file])["pairs"], 1);
    for (text, words) in [
        ("", "has no pairs"),
        ("{\"clean\": 5}\n", "line 1: invalid type"),
        ("{\"clean\": \"a\", \"corrupt\": \"b\", \"tokn\": 1}\n", "unknown field `tokn`"),
        ("{\"clean\": \"a\", \"corrupt\": \"b\"}\n", "line 1: has no token"),
        ("{\"clean\": \"a\", \"token\": 1}\n", "line 1: needs corrupt or corrupt_ids"),
        ("\n{\"clean\": \"a b\", \"corrupt\": \"b\", \"token\": 1}\n", "line 2: the prompts have"),
        ("{\"clean\": \"a\", \"corrupt\": \"b\", \"token\": 4000}\n", "line 1: token id 4000"),
    ] {
        std::fs::write(&pairs, text).unwrap();
        assert_refused(&["edges", "--pairs", file], 1, &["pairs.jsonl", words]);
    }
    assert_refused(&["edges", "--clean", "a"], 2, &["--corrupt"]);
    assert_refused(&[&["edges"][..], &PAIR, &["-o", "edges.png"]].concat(), 2, &["edges.png", ".svg"]);
    assert!(!Path::new("edges.png").exists());
}

#[test]
fn totals_and_predicted_patches() {
    let of = json(&["attribute", PROMPT, "--total"]);
    let parts = of["parts"].as_array().unwrap();
    assert!(parts.iter().all(|part| part["total"].is_f64()), "{of}");
    assert!(json(&["attribute", PROMPT])["parts"][0].get("total").is_none());
    assert!(stdout(&["attribute", PROMPT, "--total"]).lines().nth(1).unwrap().contains("total"));
    let of = |more: &[&str]| json(&[&["patch", "--sweep", "heads"][..], &PAIR, more].concat());
    let (measured, predicted) = (of(&[]), of(&["--first-order"]));
    assert_eq!((&measured["first_order"], &predicted["first_order"]), (&false.into(), &true.into()));
    let values = |of: &Value| serde_json::from_value::<Vec<Vec<f64>>>(of["values"].clone()).unwrap().concat();
    for (measured, predicted) in values(&measured).into_iter().zip(values(&predicted)).skip(1) {
        assert!((measured - predicted).abs() < 0.02, "{measured} {predicted}");
    }
    assert_refused(
        &[&["patch", "--at", "head:1.5", "--first-order"][..], &PAIR].concat(),
        2,
        &["cannot be used with"],
    );
}

#[test]
fn metrics_that_cannot_be_are_refused() {
    for (metric, words) in [
        ("accuracy", "--metric accuracy: is none of logit:TOKEN"),
        ("logit:nonsense", "not one token"),
        ("value:resid_post.9", "resid_post.9"),
        ("loss:3..3", "A before B"),
    ] {
        assert_refused(&["gradients", PROMPT, "--metric", metric], 2, &[words]);
    }
    assert_refused(&["gradients", PROMPT, "--stop", "heads"], 2, &["heads", "scale", "pattern"]);
    assert_refused(&["gradients", PROMPT, "-o", "g.txt"], 2, &["g.txt", ".safetensors"]);
}

#[test]
fn features_have_total_effects() {
    let of = ["features", "In the year 1848", "--bos", "--token", " of", "--position", "4"];
    let with = json(&[&of[..], &["--total"]].concat());
    let without = json(&of);
    let (with, without) = (with.as_array().unwrap(), without.as_array().unwrap());
    assert_eq!(with.len(), without.len());
    assert!(without[0].get("total").is_none());
    let first = &with[0];
    let hook = first["hook"].as_str().unwrap();
    let (layer, site) = (&hook[7..8], "resid_pre");
    // What a little more and a little less of it do, as a share of the whole.
    let (value, feature) = (first["value"].as_f64().unwrap(), &first["feature"]);
    let logit = |more: &[&str]| {
        let of = ["gradients", "In the year 1848", "--bos", "--hooks", "embed", "--metric", "logit: of@4"];
        json(&[&of[..], more].concat())["value"].as_f64().unwrap()
    };
    let step = 0.002;
    let with =
        |share: f64| logit(&["--add", &format!("feature:{layer}.{site}/{feature}@4={}", share * value)]);
    let measured = (with(step) - with(-step)) / (2.0 * step);
    let total = first["total"].as_f64().unwrap();
    assert!((total - measured).abs() < 0.05 * total.abs().max(0.05), "{total}, measured {measured}");
    let table = stdout(&["features", "In the year 1848", "--bos", "--total"]);
    assert!(table.contains("effect") && table.contains("total"), "{table}");
}
