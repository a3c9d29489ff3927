//! The real binary: what each subcommand writes, and what bad input gets.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use actscope::hooks::HookName;
use actscope::{Input, Model, Run};
use serde_json::Value;
use tempfile::TempDir;

#[path = "cli/broken.rs"]
mod broken;
#[path = "cli/gradients.rs"]
mod gradients;
#[path = "cli/parts.rs"]
mod parts;

const PROMPT: &str = "The old man and the café";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn tiny(name: &str) -> String {
    fixtures().join("tiny").join(name).display().to_string()
}

/// The binary in an environment of its own.
fn actscope() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_actscope"));
    for name in ["ACTSCOPE_LOG", "ACTSCOPE_LOG_FILE", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", std::env::temp_dir().join("actscope-no-such-cache"));
    command
}

/// Standard output of a call that succeeds and has nothing else to say.
fn output(command: &mut assert_cmd::Command) -> String {
    let done = command.assert().success().stderr("");
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

fn stdout(args: &[&str]) -> String {
    output(actscope().args(args))
}

/// The rows of a JSON array, each with exactly these keys in this order.
fn rows(json: &str, keys: &[&str]) -> Vec<Value> {
    let rows: Vec<Value> = serde_json::from_str(json).unwrap();
    assert!(!rows.is_empty());
    for row in &rows {
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    }
    rows
}

/// What a call says that fails with `code`: one line on standard error, nothing on standard output.
fn refusal(command: &mut assert_cmd::Command, code: i32) -> String {
    let done = command.assert().code(code).stdout("");
    let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    let line = said.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "more than a line: {said}");
    line.strip_prefix("actscope: ").unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[track_caller]
fn assert_refused(args: &[&str], code: i32, words: &[&str]) {
    let said = refusal(actscope().args(args), code);
    for word in words {
        assert!(said.contains(word), "{args:?}: `{word}` is not in: {said}");
    }
}

// What each subcommand writes.

#[test]
fn tokens() {
    let model = Model::demo();
    let ids = model.tokenizer.encode(PROMPT).unwrap();
    let rows = rows(&stdout(&["tokens", PROMPT, "--json"]), &["position", "id", "text", "bytes"]);
    assert_eq!(rows.len(), ids.len());
    let mut bytes = Vec::new();
    for (position, (row, id)) in rows.iter().zip(&ids).enumerate() {
        assert_eq!(row["position"], position);
        assert_eq!(row["id"], *id);
        let of_token: Vec<u8> = serde_json::from_value(row["bytes"].clone()).unwrap();
        assert_eq!(row["text"], String::from_utf8_lossy(&of_token).as_ref());
        bytes.extend(of_token);
    }
    assert_eq!(bytes, PROMPT.as_bytes());

    let table = stdout(&["tokens", PROMPT]);
    assert_eq!(table.lines().count(), 1 + ids.len());
    let words: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["1", &ids[1].to_string(), &model.tokenizer.show(ids[1])]);
}

#[test]
fn a_prompt_comes_from_an_argument_a_file_or_standard_input() {
    let text = "  two\r\nlines\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{text}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let expected = stdout(&["tokens", text, "--json"]);
    assert_eq!(stdout(&["tokens", "--prompt-file", path, "--json"]), expected);
    assert_eq!(
        output(actscope().args(["tokens", "-", "--json"]).write_stdin(format!("{text}\r\n"))),
        expected
    );

    let ids: Vec<_> = Model::demo().tokenizer.encode(text).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(stdout(&["tokens", "--token-ids", &ids.join(","), "--json"]), expected);
}

#[test]
fn bos_goes_first_when_asked_for() {
    let bos = Model::demo().config().bos_token_id.unwrap();
    let rows = rows(&stdout(&["tokens", "a", "--bos", "--json"]), &["position", "id", "text", "bytes"]);
    assert_eq!(rows[0]["id"], bos);
    assert_eq!(rows.len(), 2);
}

#[test]
fn token_ids_need_no_tokenizer() {
    let args = ["tokens", "--model", &tiny("plain"), "--token-ids", "5, 17", "--json"];
    let rows = rows(&stdout(&args), &["position", "id", "text", "bytes"]);
    assert_eq!(rows[1].to_string(), r#"{"position":1,"id":17,"text":null,"bytes":null}"#);
    assert!(stdout(&args[..5]).contains("#17"));
}

#[test]
fn info() {
    let text = stdout(&["info"]);
    for line in [
        "model           demo",
        "files           built in, safetensors",
        "number format   f16 in the file, computed in f32 on cpu",
        "head            tied: wteᵀ",
    ] {
        assert!(text.lines().any(|there| there == line), "no `{line}` in {text}");
    }
    let about: Value = serde_json::from_str(&stdout(&["info", "--json"])).unwrap();
    let sizes = ["n_layer", "n_head", "n_embd", "vocab_size"].map(|name| about[name].as_u64().unwrap());
    assert_eq!(sizes, [4, 6, 192, 2048]);
    assert_eq!(about["weights_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(about["notes"], serde_json::json!([]));
    let own = &about["dictionaries"][0];
    assert_eq!([&own["reads"], &own["n_features"]], [&Value::from("blocks.2.hook_resid_pre"), &896.into()]);

    let odd = fixtures().join("wild/models/head_score").display().to_string();
    let about: Value = serde_json::from_str(&stdout(&["info", "--json", "--model", &odd])).unwrap();
    assert_eq!(about, serde_json::from_str::<Value>(&stdout(&["info", &odd, "--json"])).unwrap());
    assert!(about["notes"][0].as_str().unwrap().contains("GPT2ForSequenceClassification"), "{about}");
    let adapter = fixtures().join("wild/models/lora/c_attn").display().to_string();
    let base = fixtures().join("wild/models/lora/base").display().to_string();
    let text = stdout(&["info", "--model", &base, "--adapter", &adapter]);
    assert!(text.contains(&format!("adapter         {adapter}")), "{text}");
}

#[test]
fn adapters_and_paths_that_cannot_be() {
    let base = fixtures().join("wild/models/lora/base").display().to_string();
    let refused = |args: &[&str], words: &[&str]| assert_refused(args, 1, words);
    refused(&["info", "--adapter", &base], &["adapter_config.json", "--adapter takes"]);
    let other = fixtures().join("wild/models/lora/c_attn").display().to_string();
    refused(&["info", "--adapter", &other], &["another model"]);
    // A path, not the id of a model on the hub.
    refused(&["info", "--model", "tests/no-such-model"], &["tests/no-such-model", "does not exist"]);
    refused(&["info", "--model", "gpt2/ckpt.pt"], &["gpt2/ckpt.pt", "does not exist"]);
}

#[test]
fn hooks() {
    let model = Model::demo();
    let (config, all) = (model.config(), model.tensors());
    let keys = ["name", "short", "shape", "bytes", "formula", "doc", "on_request"];
    let rows = rows(&stdout(&["hooks", "--tokens", "12", "--json"]), &keys);
    assert_eq!(rows.len(), HookName::all(config).len() + 6); // what its two dictionaries make
    for (row, name) in rows.iter().zip(all) {
        assert_eq!(row["name"], name.to_string());
        assert_eq!(row["short"], name.short());
        assert_eq!(row["shape"], serde_json::json!(name.shape(config, 12)));
        assert_eq!(row["bytes"], 4 * name.shape(config, 12).iter().product::<usize>());
        assert_eq!(row["formula"], name.formula());
        assert_eq!(row["doc"], name.doc());
        assert_eq!(row["on_request"], name.on_request());
    }
    let table = stdout(&["hooks"]);
    assert!(table.contains(" kB ") && !table.contains("iB "), "one unit for bytes: {table}");
    assert_eq!(table.lines().count(), 1 + rows.len());
    assert!(table.contains(&format!("({}, {})", config.n_positions, config.n_embd)));
    assert_eq!(table.lines().filter(|line| line.ends_with("(only on request)")).count(), config.n_layer + 6);
}

#[test]
fn top() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let logits: Vec<Vec<f32>> = run.cache.get("logits").unwrap().to_vec2().unwrap();
    let probs: Vec<Vec<f32>> = run.cache.get("hook_probs").unwrap().to_vec2().unwrap();
    let keys = ["rank", "id", "text", "logit", "prob"];
    for (args, position) in [(&[][..], run.n_tokens() - 1), (&["--position", "2"], 2)] {
        let args = [&["top", PROMPT, "-k", "5", "--json"], args].concat();
        let rows = rows(&stdout(&args), &keys);
        assert_eq!(rows.len(), 5);
        let close = |value: &Value, want: f32| (value.as_f64().unwrap() - f64::from(want)).abs() < 1e-4;
        for (i, row) in rows.iter().enumerate() {
            let id = row["id"].as_u64().unwrap() as usize;
            assert_eq!(row["rank"], i + 1);
            assert_eq!(probs[position].iter().filter(|&&p| p > probs[position][id]).count(), i);
            assert!(close(&row["logit"], logits[position][id]));
            assert!(close(&row["prob"], probs[position][id]));
            assert_eq!(row["text"], model.tokenizer.decode(&[id as u32]));
        }
    }
    assert_eq!(stdout(&["top", PROMPT]).lines().count(), 11);
    assert_eq!(
        stdout(&["top", "--model", &tiny("plain"), "--token-ids", "1", "-k", "999"]).lines().count(),
        98
    );
}

const HEAD_KEYS: [&str; 9] = [
    "layer",
    "head",
    "prev_token",
    "duplicate",
    "induction",
    "first_token",
    "distance",
    "entropy_bits",
    "z_norm",
];

#[test]
fn heads() {
    use actscope::analysis::heads::{Atlas, Exclude, Metric};
    let run = Run::all(&Arc::new(Model::demo()), Input::text(PROMPT)).unwrap();
    let atlas = Atlas::new(&run, Exclude::default()).unwrap();
    let found = rows(&stdout(&["heads", PROMPT, "--json"]), &HEAD_KEYS);
    assert_eq!(found.len(), atlas.heads.len());
    for (row, scores) in found.iter().zip(&atlas.heads) {
        assert_eq!([&row["layer"], &row["head"]], [scores.layer, scores.head]);
        for metric in Metric::ALL {
            let error = row[metric.name()].as_f64().unwrap() - f64::from(scores.get(metric));
            assert!(error.abs() < 1e-5, "{}", metric.name());
        }
    }
    let sorted = ["heads", "--repeat-random", "50", "--sort", "induction", "--json"];
    let sorted = rows(&stdout(&sorted), &HEAD_KEYS);
    let first: Vec<_> = sorted[..4].iter().map(|row| format!("{}.{}", row["layer"], row["head"])).collect();
    assert_eq!(first, ["1.5", "1.2", "1.0", "1.1"]);
    let other = ["heads", "--repeat-random", "50", "--seed", "7", "--sort", "induction", "--json"];
    assert_ne!(rows(&stdout(&other), &HEAD_KEYS), sorted);
    // The mean of three samples is that of the three seeds.
    let of = |more: &[&str]| {
        rows(&stdout(&[&["heads", "--repeat-random", "50", "--json"][..], more].concat()), &HEAD_KEYS)
    };
    let each = ["7", "8", "9"].map(|seed| of(&["--seed", seed]));
    for (i, row) in of(&["--seed", "7", "--samples", "3"]).iter().enumerate() {
        for metric in Metric::ALL {
            let value = |row: &Value| row[metric.name()].as_f64().unwrap();
            let mean = each.iter().map(|rows| value(&rows[i])).sum::<f64>() / 3.0;
            assert!((value(row) - mean).abs() <= 1e-5 * (1.0 + mean), "{}: {row}, {mean}", metric.name());
        }
    }
    assert_refused(&["heads", "a", "--samples", "2"], 2, &["cannot be used with"]);
    // Without itself and the first token, the previous-token head has little else to read.
    let excluded = ["heads", PROMPT, "--exclude-bos", "--exclude-current-token", "--json"];
    let excluded = rows(&stdout(&excluded), &HEAD_KEYS);
    assert!(excluded[0]["prev_token"].as_f64() > found[0]["prev_token"].as_f64());
    let table = stdout(&["heads", PROMPT]);
    assert_eq!(table.lines().count(), 1 + atlas.heads.len());
    assert!(table.lines().nth(1).unwrap().starts_with("0.0 "));
    // What the prediction is without them, on request.
    let effects = rows(
        &stdout(&["effects", PROMPT, "--json"]),
        &["component", "layer", "head", "delta_logprob", "kl", "first_order"],
    );
    let with: Vec<Value> = serde_json::from_str(&stdout(&["heads", PROMPT, "--effects", "--json"])).unwrap();
    let of_heads: Vec<_> = effects.iter().filter(|row| row["component"] == "head").collect();
    assert_eq!(with.len(), of_heads.len());
    for (row, effect) in with.iter().zip(of_heads) {
        for key in ["layer", "head", "delta_logprob", "kl"] {
            assert_eq!(row[key], effect[key], "{key}");
        }
    }
    let table = stdout(&["heads", PROMPT, "--effects"]);
    assert!(table.lines().next().unwrap().contains("delta_logprob"), "{table}");
    // A single token may leave nothing to have a share of.
    let one = ["heads", "a", "--exclude-current-token", "--json"];
    assert_eq!(rows(&stdout(&one), &HEAD_KEYS)[0]["prev_token"], "nan");
}

#[test]
fn lens() {
    use actscope::analysis::lens::{Lens, hooks};
    let keys = ["layer", "site", "position", "entropy_bits", "kl", "token_rank", "token_prob", "top"];
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let hooks = hooks(model.config());
    let lens = Lens::new(&run, &hooks, 0..run.n_tokens(), None, 2).unwrap();
    let found = rows(&stdout(&["lens", PROMPT, "-k", "2", "--json"]), &keys);
    assert_eq!(found.len(), hooks.len() * run.n_tokens());
    for (row, reading) in found.iter().zip(&lens.readings) {
        let close = |value: &Value, want: f32| (value.as_f64().unwrap() - f64::from(want)).abs() < 1e-4;
        assert_eq!(row["position"], reading.position);
        assert!(close(&row["entropy_bits"], reading.entropy_bits) && close(&row["kl"], reading.kl));
        assert_eq!(row["token_rank"], reading.token.rank);
        assert!(close(&row["token_prob"], reading.token.prob));
        assert_eq!(row["top"].as_array().unwrap().len(), 2);
        assert_eq!(row["top"][1]["id"], reading.top[1].id);
        assert_eq!(row["top"][1]["text"], model.tokenizer.decode(&[reading.top[1].id]));
    }
    assert_eq!((&found[0]["site"], &found[0]["layer"]), (&"embed".into(), &Value::Null));
    let last = found.last().unwrap();
    assert_eq!((&last["site"], &last["layer"], &last["kl"]), (&"resid_post".into(), &3.into(), &0.0.into()));

    let [text, id] = [" the", &model.token(" the").unwrap().to_string()]
        .map(|token| stdout(&["lens", PROMPT, "--token", token, "--position", "1", "--json"]));
    assert_eq!(text, id);
    assert_eq!(rows(&text, &keys).len(), hooks.len());
    let table = stdout(&["lens", PROMPT]);
    assert_eq!(table.lines().count(), 1 + hooks.len());
    assert!(table.lines().last().unwrap().starts_with("3 post"));
}

#[test]
fn heads_and_lens_that_cannot_be() {
    assert_refused(&["heads"], 2, &["no prompt"]);
    assert_refused(&["heads", "a", "--repeat-random", "9"], 2, &["cannot be used with"]);
    assert_refused(&["heads", "a", "--seed", "9"], 2, &["--seed"]);
    assert_refused(&["heads", "--repeat-random", "129"], 2, &["129", "256", "(1 to 128)"]);
    assert_refused(&["heads", "--repeat-random", "0"], 2, &["(1 to 128)"]);
    assert_refused(&["heads", "a", "--sort", "size"], 2, &["size", "induction"]);
    assert_refused(&["lens", PROMPT, "--position", "99"], 2, &["position 99 is out of range (0 to "]);
    assert_refused(&["lens", PROMPT, "--token", "2048"], 2, &["2048", "(0 to 2047)"]);
    assert_refused(&["lens", PROMPT, "--token", " the the"], 2, &["not one token but 2: ·the", "·the"]);
    assert_refused(&["lens", PROMPT, "--token", ""], 2, &["empty"]);
    assert_refused(
        &["lens", "--model", &tiny("plain"), "--token-ids", "1,2", "--token", "a"],
        2,
        &["no tokenizer"],
    );
}

#[test]
fn charts_are_rendered() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    stdout(&["render", "heads", "--repeat-random", "20", "--show", "induction", "-o", &path("heads.svg")]);
    let svg = std::fs::read_to_string(path("heads.svg")).unwrap();
    assert!(!svg.contains("samples"));
    let averaged = ["render", "heads", "--repeat-random", "20", "--samples", "2", "-o", &path("mean.svg")];
    stdout(&averaged);
    assert!(std::fs::read_to_string(path("mean.svg")).unwrap().contains("2 samples of 40 tokens"));
    assert!(svg.contains("heads: induction") && svg.contains("layer") && svg.contains("weights sha256"));
    stdout(&["render", "lens", PROMPT, "--dark", "-o", &path("lens.svg")]);
    let svg = std::fs::read_to_string(path("lens.svg")).unwrap();
    assert!(svg.contains("·old") && svg.contains("2 mid") && svg.contains("ln_f(resid)"));
    stdout(&["render", "lens", PROMPT, "--show", "token_rank", "--token", " sea", "-o", &path("lens.png")]);
    assert!(std::fs::read(path("lens.png")).unwrap().starts_with(b"\x89PNG\r\n"));
    let text = stdout(&["render", "lens", PROMPT, "--width", "120"]);
    assert!(text.contains("3 post") && text.lines().all(|line| line.chars().count() <= 120), "{text}");
    assert_refused(&["render", "lens", "a", "--show", "size"], 2, &["size", "token_rank", "kl"]);
    assert_refused(&["render", "heads", "a", "--head", "1"], 2, &["--head"]);
    assert_refused(&["render", "heds", "a"], 2, &["heds"]);
}

#[test]
fn export() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.safetensors");
    let path = file.to_str().unwrap();
    let done = actscope().args(["export", PROMPT, "-o", path]).assert().success().stdout("");
    let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert!(said.contains(path) && said.lines().count() == 1, "{said}");
    let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    assert_eq!(tensors.len(), run.cache.iter().count());
    for (hook, x) in run.cache.iter() {
        let read = &tensors[&hook.to_string()];
        assert_eq!(read.dims(), x.dims(), "{hook}");
        let [read, x] = [read, &x].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(read, x, "{hook}");
    }

    let some = ["--hooks", "resid_*.0", "--hooks", "logits", "--positions", "1.."];
    let json = stdout(&[&["export", PROMPT, "-o", "-"], &some[..]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"]["prompt"], PROMPT);
    let names: Vec<_> = json["tensors"].as_object().unwrap().keys().cloned().collect();
    let residual = ["pre", "mid", "post"].map(|part| format!("blocks.0.hook_resid_{part}"));
    assert_eq!(names, [&residual[..], &["unembed.hook_out".to_owned()]].concat());
    for rows in json["tensors"].as_object().unwrap().values() {
        assert_eq!(rows.as_array().unwrap().len(), run.n_tokens() - 1);
    }
    let csv = stdout(&["export", "a", "-o", "-", "--format", "csv", "--hooks", "attn_scores.1"]);
    assert!(csv.starts_with("head,position,key,value\n0,0,0,"), "{csv}");
}

#[test]
fn exports_that_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let old = path("old.npz");
    std::fs::write(&old, "old").unwrap();
    assert_refused(&["export", "a", "-o", &path("file.txt")], 2, &["file.txt", ".safetensors", ".npz"]);
    assert_refused(&["export", "a", "-o", &path("no/such.npz")], 1, &["no/such.npz", "no directory"]);
    assert_refused(&["export", "a", "-o", &old, "--hooks", "logitz"], 2, &["logitz", "unembed.hook_out"]);
    assert_refused(
        &["export", "a", "-o", &old, "--positions", "1..9"],
        2,
        &["positions 1..9 are out of range (only 0)"],
    );
    assert_refused(&["export", "a", "-o", &old, "--positions", "1-9"], 2, &["1-9", "A..B"]);
    assert_refused(&["export", "a", "-o", &path("all.csv")], 2, &["one tensor"]);
    assert_refused(&["export", "", "-o", &old], 2, &["prompt is empty"]);
    assert_refused(&["export", "a"], 2, &["--output <FILE>"]);
    if Path::new("/dev/full").exists() {
        assert_refused(&["export", "a", "-o", "/dev/full", "--format", "npz"], 1, &["/dev/full", "space"]);
    }
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn render() {
    let dir = tempfile::tempdir().unwrap();
    let [svg, png] = ["a.svg", "a.png"].map(|name| dir.path().join(name));
    for file in [&svg, &png] {
        let path = file.to_str().unwrap();
        stdout(&["render", "pattern.1", "The quick fox", "--head", "3", "-o", path]);
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("blocks.1.attn.hook_pattern, head 3") && drawn.contains("·quick"));
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG\r\n"));

    let text = stdout(&["render", "resid_post.0", "The quick fox", "--width", "70"]);
    assert!(text.contains("·quick") && !text.contains('\u{1b}'));
    let colored = ["render", "resid_post.0", "The quick fox", "--color", "truecolor", "-o", "-"];
    assert!(stdout(&colored).contains("8;2;"));
}

#[test]
fn walk() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let path = note.to_str().unwrap();
    let args = ["walk", PROMPT, "--position", "2", "--layer", "1", "--head", "3"];
    let written = |args: &[&str]| {
        let done = actscope().args(args).assert().success().stdout("");
        String::from_utf8(done.get_output().stderr.clone()).unwrap()
    };
    let said = written(&[&args[..], &["-o", path]].concat());
    assert!(said.contains("walk.md") && said.lines().count() == 1, "{said}");
    let markdown = std::fs::read_to_string(note.join("walk.md")).unwrap();
    assert!(markdown.contains("block 1, head 3") && markdown.contains("·man"));
    // The command that it names makes the same again, over what is there.
    let files = |dir: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let first = files(&note);
    std::fs::write(note.join("mine.txt"), "mine").unwrap();
    let command = markdown.lines().last().unwrap().trim();
    let again: Vec<_> = command.split_whitespace().skip(1).chain(["-o", path]).collect();
    written(&again);
    std::fs::remove_file(note.join("mine.txt")).unwrap();
    let second = files(&note);
    assert!(first.len() > 40 && first.iter().map(|(path, _)| path).eq(second.iter().map(|(path, _)| path)));
    for ((path, first), (_, second)) in first.iter().zip(&second).skip(2) {
        assert!(first == second || path.ends_with("walk.md"), "{}", path.display());
    }

    let page = dir.path().join("note.html");
    stdout(&[&args[..], &["-o", page.to_str().unwrap()]].concat());
    assert!(std::fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE html>"));
    let text = stdout(&[&args[..], &["--width", "90"]].concat());
    assert!(text.contains("✓") && !text.contains('\u{1b}'));
    assert!(stdout(&["walk", PROMPT, "--color", "truecolor", "-o", "-"]).contains("48;2;"));
}

#[test]
fn walks_that_cannot_be_made() {
    assert_refused(&["walk", "a b", "--position", "9"], 2, &["position 9", "(0 to 1)"]);
    assert_refused(&["walk", "a", "--layer", "99"], 2, &["block 99 is out of range (0 to "]);
    assert_refused(&["walk", "a", "--head", "6"], 2, &["head 6", "(0 to 5)"]);
    assert_refused(&["walk", "a", "--position", "x"], 2, &["--position"]);
    assert_refused(&["walk", ""], 2, &["prompt is empty"]);
    assert_refused(&["walk"], 2, &["no prompt"]);
    assert_refused(&["walk", "a", "-o", "a.md"], 2, &["a.md", "directory", ".html"]);
    assert_refused(&["walk", "a", "-o", "no/such"], 1, &["no/such", "no directory"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert_refused(&["walk", "a", "-o", file.to_str().unwrap()], 1, &["file", "not a directory"]);
    let new = dir.path().join("new");
    assert_refused(&["walk", "a", "--position", "7", "-o", new.to_str().unwrap()], 2, &["position 7"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn figures_that_cannot_be_drawn() {
    assert_refused(&["render", "pattern.9", "a"], 2, &["pattern.9", "blocks.1.attn.hook_pattern"]);
    assert_refused(&["render", "pattern.1", "a", "--head", "6"], 2, &["6"]);
    assert_refused(&["render", "logits", "a", "--head", "0"], 2, &["no heads"]);
    assert_refused(&["render", "logits", "a", "-o", "a.jpg"], 2, &["a.jpg", ".png", ".svg"]);
    assert_refused(&["render", "logits", "a", "-o", "no/such.png"], 1, &["no/such.png"]);
    assert_refused(&["render", "logits"], 2, &["no prompt"]);
    assert_refused(&["render"], 2, &["<WHAT>"]);
}

#[test]
fn bench() {
    let json = stdout(&["bench", "--tokens", "9,4", "--runs", "2", "--compare-threads", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert!(
        ["load_ms", "first_frame_ms", "first_activations_ms"]
            .iter()
            .all(|key| report[key].as_f64().unwrap() > 0.0)
    );
    assert!(report["frames"].as_array().unwrap().len() > 4);
    let rows = report["runs"].as_array().unwrap();
    assert_eq!([&rows[0]["tokens"], &rows[1]["tokens"]], [9, 4]);
    for row in rows {
        for key in ["logits_ms", "all_ms", "floor_ms", "edit_ms", "append_ms", "peak_gflops"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}");
        }
        let [median, min] = ["median_ms", "min_ms"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median);
        let memory = row["peak_rss_bytes"].as_u64();
        assert!(if cfg!(target_os = "linux") { memory.unwrap() > 1 << 20 } else { memory.is_none() });
    }

    let kinds = [
        ("sweeps", ["tokens", "places", "ms"]),
        ("effects", ["tokens", "runs", "ms"]),
        ("batches", ["sequences", "tokens", "ms"]),
    ];
    for (kind, keys) in kinds {
        let row = &report[kind][0];
        assert!(keys.iter().all(|key| row[key].as_f64().unwrap() > 0.0), "{row}");
    }
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.json");
    let mut slow = report.clone();
    for kind in ["runs", "sweeps", "effects", "batches"] {
        for row in slow[kind].as_array_mut().unwrap() {
            for (name, ms) in row.as_object_mut().unwrap() {
                if name.ends_with("ms") && ms.is_number() {
                    *ms = 1e9.into();
                }
            }
        }
    }
    std::fs::write(&before, slow.to_string()).unwrap();
    let again = ["bench", "--tokens", "4", "--runs", "1", "--against", before.to_str().unwrap()];
    let done = actscope().args(again).assert().success();
    let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert!(
        said.starts_with("actscope: none of ") && said.ends_with("more than 1.1 times what it was\n"),
        "{said}"
    );
    std::fs::write(&before, "{").unwrap();
    assert_refused(&again, 1, &["before.json", "bench --json"]);

    let done = actscope().args(["bench", "--model", &tiny("plain"), "--runs", "1"]).assert().success();
    let note = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert_eq!(note, "actscope: skipping 64, 256, 1024 tokens: the context holds 32\n");
    let table = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(table.contains("first activations") && table.contains("Attention"), "{table}");
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(stdout(&["completions", shell]).contains("prompt-file"), "{shell}");
    }
    assert!(stdout(&["man"]).contains(".TH actscope 1"));
    assert!(stdout(&["man", "top"]).contains(".TH actscope-top 1"));
    assert_refused(&["man", "bottom"], 2, &["bottom"]);
    let pages = tempfile::tempdir().unwrap();
    let folder = pages.path().join("man1");
    stdout(&["man", "-o", folder.to_str().unwrap()]);
    for name in ["actscope", "actscope-top", "actscope-report"] {
        let page = std::fs::read_to_string(folder.join(name).with_extension("1")).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{name}");
    }
    assert_refused(&["man", "top", "-o", "pages"], 2, &["--output"]);
}

#[test]
fn settings_are_explained_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = |arguments: &[&str]| {
        let mut command = actscope();
        command.arg("config").args(arguments).env("ACTSCOPE_CONFIG", &file);
        command.output().unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(text(config(&["--path"]).stdout), format!("{}\n", file.display()));
    let defaults = text(config(&[]).stdout);
    assert!(defaults.starts_with(&format!("# {}, which is not there yet\n", file.display())));
    assert!(defaults.contains("\npalette = \"blue-red\"\n") && defaults.contains("\n# export = [\"x\"]"));
    // They are settings themselves.
    std::fs::write(&file, &defaults).unwrap();
    let done = config(&[]);
    assert!(done.status.success() && done.stderr.is_empty(), "{}", text(done.stderr));
    std::fs::write(&file, "mouse = 3\n").unwrap();
    assert_eq!(text(config(&[]).stderr), "actscope: config.toml, line 1: `mouse` should be true or false\n");
}

#[test]
fn help_and_version_are_results() {
    let version = stdout(&["--version"]);
    assert!(version.starts_with(&format!("actscope {}\n", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("commit") || version.contains("a working copy"), "{version}");
    assert!(version.contains("\nfeatures: "), "{version}");
    assert_eq!(stdout(&["-V"]), format!("actscope {}\n", env!("CARGO_PKG_VERSION")));
    for args in [&["-h"][..], &["--help"], &["help", "top"], &["bench", "-h"]] {
        assert!(stdout(args).contains("Examples:"), "{args:?}");
    }
}

// What is not a result stays out of the way.

#[test]
fn a_closed_standard_output_ends_it_quietly() {
    for args in [&["hooks"][..], &["hooks", "--json"], &["--help"], &["completions", "zsh"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_actscope"));
        let mut child = child.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{args:?}");
        assert!(done.status.success(), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_an_error() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_actscope")).arg("hooks").stdout(full).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(said.starts_with("actscope: standard output: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_log_goes_to_a_file_and_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logs/here.log");
    let mut command = actscope();
    command.args(["tokens", "a"]).env("ACTSCOPE_LOG_FILE", &file);
    output(&mut command);
    assert!(!file.exists());
    output(command.env("ACTSCOPE_LOG", "info"));
    assert!(std::fs::read_to_string(&file).unwrap().contains("loading"));
    assert!(refusal(command.env("ACTSCOPE_LOG", "a=b=c"), 2).contains("ACTSCOPE_LOG"));
    let state = dir.path().join("state");
    command.env("ACTSCOPE_LOG", "info").env_remove("ACTSCOPE_LOG_FILE").env("XDG_STATE_HOME", &state);
    if cfg!(target_os = "linux") {
        output(&mut command);
        assert!(state.join("actscope/actscope.log").is_file());
    }
}

// What bad input gets.

#[test]
fn the_explorer_wants_a_terminal() {
    for args in [&[][..], &["a prompt"], &["-"], &["--", "tokens"], &["--model", "demo"]] {
        let names = ["terminal", "tokens", "hooks", "top", "export", "render", "bench"];
        assert_refused(args, 2, &names);
    }
}

#[test]
fn calls_that_cannot_be_meant() {
    assert_refused(&["tokens"], 2, &["no prompt", "--token-ids"]);
    assert_refused(&["tokens", "a", "--prompt-file", "b"], 2, &["--prompt-file", "cannot be used"]);
    assert_refused(&["top", "a", "--token-ids", "1"], 2, &["--token-ids", "cannot be used"]);
    assert_refused(&["top", "a", "--token-ids=1,x"], 2, &["`x` is not a token id"]);
    assert_refused(&["top", "a", "-k", "0"], 2, &["0", "-k"]);
    assert_refused(&["top", "a", "b"], 2, &["unexpected argument 'b'"]);
    assert_refused(&["top", "a", "--position", "1"], 2, &["position 1"]);
    assert_refused(&["hooks", "--tokens", "0"], 2, &["--tokens", "256"]);
    assert_refused(&["hooks", "--tokens", "257"], 2, &["257", "256"]);
    assert_refused(&["bench", "--tokens", "16,257"], 2, &["257", "256"]);
    assert_refused(&["hooks", "--device", "gpu"], 2, &["gpu", "cuda:N"]);
    assert_refused(&["hooks", "--dtype", "f8"], 2, &["f8", "bf16"]);
    assert_refused(&["hooks", "--dtype", "bf16"], 1, &["bf16", "f32"]);
    assert_refused(&["hooks", "--revision", "main"], 2, &["--revision", "demo"]);
    assert_refused(&["completions", "tcsh"], 2, &["tcsh", "zsh"]);
}

#[test]
fn prompts_that_cannot_be_run() {
    for args in [["tokens", ""], ["top", ""], ["tokens", "--token-ids="], ["top", "--token-ids=,"]] {
        assert_refused(&args, 2, &["prompt is empty"]);
    }
    assert!(refusal(actscope().args(["top", "-"]).write_stdin("\n"), 2).contains("prompt is empty"));
    let long = "a ".repeat(300);
    let n = Model::demo().tokenizer.encode(&long).unwrap().len().to_string();
    assert_refused(&["top", &long], 2, &[&n, "256"]);
    assert_refused(&["tokens", "--token-ids", "4096"], 2, &["token id 4096 is out of range (0 to 2047)"]);
    assert_refused(
        &["top", "--model", &tiny("plain"), "--token-ids", "5,97"],
        2,
        &["token id 97 is out of range (0 to 96)"],
    );
    assert_refused(&["top", "--model", &tiny("plain"), "text"], 2, &["no tokenizer", "--token-ids"]);
}

#[test]
fn prompt_files_that_cannot_be_read() {
    assert_refused(&["top", "--prompt-file", "no/such.txt"], 1, &["no/such.txt", "cannot be read"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, b"one\ntwo\xff").unwrap();
    let path = file.path().to_str().unwrap();
    assert_refused(&["top", "--prompt-file", path], 1, &[path, "UTF-8", "byte 7", "line 2"]);
    let said = refusal(actscope().args(["top", "-"]).write_stdin(b"\xc3".as_slice()), 1);
    assert!(said.contains("standard input") && said.contains("UTF-8"), "{said}");
}

#[test]
fn models_that_there_are_not() {
    assert_refused(&["hooks", "--model", "./no/such"], 1, &["./no/such", "does not exist"]);
    let readme = fixtures().join("README.md").display().to_string();
    assert_refused(&["hooks", "--model", &readme], 1, &[&readme, "not a file of weights"]);
    assert_refused(&["hooks", "--model", "no-one/nothing", "--offline"], 1, &["no-one/nothing"]);
}

/// A copy of the plain checkpoint with some files replaced, or removed.
fn checkpoint(changes: &[(&str, Option<&[u8]>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join("tiny/plain").join(name), dir.path().join(name)).unwrap();
    }
    for (name, bytes) in changes {
        let path = dir.path().join(name);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }
    dir
}

/// The plain configuration with one field changed.
fn config(field: &str, value: Value) -> Vec<u8> {
    let json = std::fs::read(fixtures().join("tiny/plain/config.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    json[field] = value;
    json.to_string().into_bytes()
}

#[track_caller]
fn assert_broken(changes: &[(&str, Option<&[u8]>)], words: &[&str]) {
    let dir = checkpoint(changes);
    let path = dir.path().to_str().unwrap();
    let words = [&[path], words].concat();
    assert_refused(&["top", "--model", path, "--token-ids", "1"], 1, &words);
}

#[test]
fn the_unchanged_copy_is_a_model() {
    let dir = checkpoint(&[]);
    stdout(&["top", "--model", dir.path().to_str().unwrap(), "--token-ids", "1"]);
}

#[test]
fn directories_that_lack_a_file() {
    assert_broken(&[("config.json", None)], &["no config.json"]);
    assert_broken(&[("model.safetensors", None)], &["no weights", "pytorch_model.bin"]);
    let index = br#"{"weight_map": {"wte.weight": "shard-1.safetensors"}}"#;
    let changes = [("model.safetensors", None), ("model.safetensors.index.json", Some(&index[..]))];
    assert_broken(&changes, &["index.json", "shard-1.safetensors", "missing"]);
}

#[test]
fn configurations_of_something_else() {
    let broken = |json: &[u8], words: &[&str]| {
        assert_broken(&[("config.json", Some(json))], &[&["config.json"], words].concat());
    };
    broken(b"{", &["not JSON"]);
    broken(b"\xff\xfe", &["not JSON"]);
    broken(b"[1]", &["not a JSON object"]);
    broken(&config("model_type", "llama".into()), &["model_type", "llama", "gpt2"]);
    broken(&config("n_head", 5.into()), &["n_embd 48", "n_head 5"]);
    broken(&config("n_layer", "three".into()), &["three"]);
    broken(&config("activation_function", "swiglu".into()), &["swiglu"]);
}

#[test]
fn weights_that_are_not_what_they_say() {
    let whole = std::fs::read(fixtures().join("tiny/plain/model.safetensors")).unwrap();
    let broken = |bytes: &[u8], words: &[&str]| {
        assert_broken(&[("model.safetensors", Some(bytes))], &[&["model.safetensors"], words].concat());
    };
    broken(&whole[..whole.len() - 1], &["again"]);
    broken(&whole[..1000], &["again"]);
    broken(&whole[..3], &["again"]);
    broken(b"", &["again"]);
    let mut header = whole.clone();
    header[..8].copy_from_slice(&(whole.len() as u64).to_le_bytes());
    broken(&header, &["again"]);
    header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    broken(&header, &["again"]);
    let mut not_json = whole.clone();
    not_json[8..12].copy_from_slice(b"\x1b[2J");
    broken(&not_json, &["again"]);

    let differs = |json: &[u8], words: &[&str]| assert_broken(&[("config.json", Some(json))], words);
    differs(&config("vocab_size", 98.into()), &["model.safetensors", "wte.weight", "[97, 48]", "[98, 48]"]);
    differs(&config("n_inner", 100.into()), &["h.0.mlp.c_fc.weight", "[48, 192]", "[48, 100]"]);
    differs(&config("n_layer", 4.into()), &["model.safetensors", "has 3 blocks, but n_layer is 4"]);

    let pickle = [("model.safetensors", None), ("pytorch_model.bin", Some(&b"PK\x03\x04 no zip"[..]))];
    assert_broken(&pickle, &["pytorch_model.bin", "again"]);
}

#[test]
fn tokenizers_that_are_none() {
    let mended = |files: &[(&str, Option<&[u8]>)], words: &[&str]| {
        let model = checkpoint(files);
        let model = model.path().to_str().unwrap();
        let said = |args: &[&str], succeeds: bool| {
            let done = actscope().args(["top", "--model", model]).args(args).output().unwrap();
            assert_eq!(done.status.success(), succeeds, "{args:?}");
            String::from_utf8(done.stderr).unwrap()
        };
        let (runs, fails) = (said(&["--token-ids", "1"], true), said(&["text"], false));
        assert!(
            runs.starts_with("actscope: note: the tokenizer cannot be used: ") && runs.lines().count() == 1
        );
        for said in [runs, fails] {
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    };
    mended(&[("tokenizer.json", Some(b"{}"))], &["tokenizer.json", "the vocabulary is not a JSON object"]);
    mended(&[("tokenizer.json", Some(b""))], &["tokenizer.json is empty"]);
    mended(&[("vocab.json", Some(b"[")), ("merges.txt", Some(b""))], &["vocab.json"]);
    mended(&[("vocab.json", Some(b"{}")), ("merges.txt", Some(b"one two three"))], &["merge 1 "]);
    mended(&[("vocab.json", Some(b"{}"))], &["vocab.json", "merges.txt is missing"]);
}
