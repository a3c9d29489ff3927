//! Corpora: the same numbers as Hugging Face's, whatever the format, the shards and the interruptions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actscope::corpus::table::{Column, Reader, Table, write};
use actscope::corpus::units::Group;
use actscope::corpus::{Atlas, Manifest};
use actscope::hooks::Part;
use actscope::model::{LoadOptions, Source};
use actscope::{Input, Model, Run};
use serde_json::Value;
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn command(place: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actscope"));
    command.current_dir(place).stdin(Stdio::null()).args(args);
    for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK", "WORLD_SIZE", "ACTSCOPE_LOG"] {
        command.env_remove(name);
    }
    command
}

fn call(place: &Path, args: &[&str]) -> Output {
    command(place, args).output().unwrap()
}

/// What a call prints.
#[track_caller]
fn said(place: &Path, args: &[&str]) -> String {
    let done = call(place, args);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {error}");
    String::from_utf8(done.stdout).unwrap()
}

/// The sentence of a call that fails.
#[track_caller]
fn refused(place: &Path, args: &[&str]) -> String {
    let done = call(place, args);
    assert!(!done.status.success(), "{args:?} is accepted");
    let error = String::from_utf8(done.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// A folder with the documents of the fixtures.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("corpus.jsonl"), place.path().join("docs.jsonl")).unwrap();
    place
}

fn documents() -> Vec<String> {
    let lines = fs::read_to_string(fixtures().join("corpus.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    lines.lines().map(text).collect()
}

const ALL: &str = "blocks.*.mlp.hook_post,pattern.*,resid_post.*";

/// The tables of a folder, by name.
fn tables(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".parquet") {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[track_caller]
fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= 2e-5 * want.abs().max(1.0), "{what}: {got}, {want} expected");
}

#[test]
fn units_and_losses_are_those_of_transformers() {
    let place = place();
    let fixture: Value = serde_json::from_slice(&fs::read(fixtures().join("corpus.json")).unwrap()).unwrap();
    for (i, scenario) in fixture["scenarios"].as_array().unwrap().iter().enumerate() {
        let number = |name: &str| scenario[name].to_string();
        let (out, context, stride) = (format!("out{i}"), number("context"), number("stride"));
        let mut args = vec!["corpus", "run", "docs.jsonl", "-o", &out, "--hooks", ALL];
        args.extend([
            "--reduce",
            "top,stats,loss",
            "--top-k",
            "4",
            "--context",
            &context,
            "--stride",
            &stride,
        ]);
        if scenario["bos"].as_bool().unwrap() {
            args.push("--bos");
        }
        said(place.path(), &args);
        let atlas = Atlas::open(&place.path().join(&out)).unwrap();
        assert_eq!(atlas.manifest.progress.tokens, scenario["tokens"].as_u64().unwrap());
        for (kind, name) in [("neuron", "neuron:1."), ("head", "head:1."), ("resid", "resid_post.1/")] {
            let of = &scenario["units"][kind];
            let every = of["every"].as_u64().unwrap();
            for (j, top) in of["top"].as_array().unwrap().iter().enumerate() {
                let name = format!("{name}{}", j as u64 * every);
                let unit = atlas.unit(&name).unwrap();
                let top = top.as_array().unwrap();
                assert_eq!(unit.examples.best.len(), top.len());
                let values: Vec<_> = top.iter().map(|one| one[0].as_f64().unwrap()).collect();
                for (rank, (got, want)) in unit.examples.best.iter().zip(top).enumerate() {
                    near(f64::from(got.value), values[rank], &name);
                    // Where two are as large, either may come first.
                    let is_alone = values.iter().filter(|x| (**x - values[rank]).abs() < 1e-4).count() == 1;
                    if is_alone && rank + 1 < values.len() {
                        assert_eq!(got.document, want[1].as_u64().unwrap(), "{name}");
                        assert_eq!(u64::from(got.position), want[2].as_u64().unwrap(), "{name}");
                    }
                    let at = (got.position - got.first) as usize;
                    if kind != "head" {
                        assert_eq!(got.values[at], got.value);
                    }
                }
                let stats = unit.stats.unwrap();
                let want = |name: &str| of[name][j].as_f64().unwrap();
                near(stats.mean(), want("mean"), &name);
                near(stats.variance(), want("variance"), &name);
                near(f64::from(stats.min), want("min"), &name);
                near(f64::from(stats.max), want("max"), &name);
                near(stats.positive_share(), want("positive_share"), &name);
                assert_eq!(stats.histogram.iter().sum::<u64>(), stats.count);
            }
        }
        let loss = Reader::open(&place.path().join(&out).join("loss.parquet")).unwrap();
        let rows = loss.all::<i64>(0, "document").unwrap();
        let (tokens, bytes) = (loss.all::<i64>(0, "tokens").unwrap(), loss.all::<i64>(0, "bytes").unwrap());
        let nats = loss.all::<f64>(0, "nats").unwrap();
        let want = scenario["losses"].as_object().unwrap();
        assert_eq!(rows.len(), want.len());
        for (row, document) in rows.iter().enumerate() {
            let want = &want[&document.to_string()];
            assert_eq!(tokens[row], want[0].as_i64().unwrap());
            assert_eq!(bytes[row], want[1].as_i64().unwrap(), "document {document}");
            near(nats[row], want[2].as_f64().unwrap(), &format!("loss of document {document}"));
        }
    }
}

#[test]
fn shards_give_what_one_process_gives() {
    let place = place();
    let at = place.path();
    let run = |out: &str, more: &[&str]| {
        let first = ["corpus", "run", "docs.jsonl", "-o", out, "--hooks", ALL, "--reduce", "top,stats,loss"];
        said(at, &[&first[..], &["--top-k", "3", "--around", "4"], more].concat())
    };
    run("whole", &[]);
    for shard in ["1/3", "3/3", "2/3"] {
        run("shards", &["--shard", shard]);
    }
    assert!(run("shards", &["--shard", "2/3"]).contains("finished before"));
    said(at, &["corpus", "merge", "shards", "-o", "merged"]);
    let (whole, merged) = (tables(&at.join("whole")), tables(&at.join("merged")));
    assert_eq!(whole["top.parquet"], merged["top.parquet"], "to the bit");
    assert_eq!(whole["loss.parquet"], merged["loss.parquet"]);
    let stats = |folder: &str, column: &str| {
        let reader = Reader::open(&at.join(folder).join("stats.parquet")).unwrap();
        (0..reader.n_groups()).flat_map(|i| reader.all::<f64>(i, column).unwrap()).collect::<Vec<_>>()
    };
    for column in ["mean", "variance"] {
        for (a, b) in stats("whole", column).iter().zip(stats("merged", column)) {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{column}: {a} {b}");
        }
    }
    let manifest = |folder: &str| Manifest::read(&at.join(folder)).unwrap().unwrap();
    let (a, b) = (manifest("whole"), manifest("merged"));
    assert_eq!(
        (a.settings, a.progress.faults, a.progress.tokens),
        (b.settings, b.progress.faults, b.progress.tokens)
    );
    // Into the folder of the shards, and by the folder of each.
    said(at, &["corpus", "merge", "shards", "-o", "shards"]);
    assert_eq!(tables(&at.join("shards")), merged);
    let each = ["shards/shard-3-of-3", "shards/shard-1-of-3", "shards/shard-2-of-3"];
    said(at, &[&["corpus", "merge"], &each[..], &["-o", "again"]].concat());
    assert_eq!(tables(&at.join("again")), merged);

    let said = refused(at, &["corpus", "merge", each[0], each[1], "-o", "m"]);
    assert!(said.contains("shards are missing: 2/3"), "{said}");
    let said = refused(at, &["corpus", "merge", each[0], each[1], each[1], each[2], "-o", "m"]);
    assert!(said.contains("is shard 1/3, and so is"), "{said}");
    run("other", &["--shard", "2/3", "--bos", "--context", "100"]);
    let said = refused(at, &["corpus", "merge", each[0], each[1], "other", "-o", "m"]);
    assert!(said.contains("differ in bos, context, stride"), "{said}");
    let said = refused(at, &["corpus", "merge", "shards", "-o", "merged"]);
    assert!(said.contains("already holds results"), "{said}");
    let said = refused(at, &["corpus", "show", "neuron:0.0", "--atlas", "other/shard-2-of-3/x"]);
    assert!(said.contains("cannot be read"), "{said}");
}

fn to_be_killed(out: &str) -> [&str; 12] {
    let hooks = "post.1,resid_post.1"; // attention maps cannot be joined
    let what = "top,stats,loss,raw";
    [
        "corpus",
        "run",
        "docs.jsonl",
        "-o",
        out,
        "--hooks",
        hooks,
        "--reduce",
        what,
        "--chunk",
        "150",
        "--top-k=3",
    ]
}

#[test]
fn a_run_that_is_killed_goes_on_and_gives_the_same() {
    let place = place();
    let at = place.path();
    said(at, &to_be_killed("whole"));
    let mut kills = 0;
    for round in 0..10u64 {
        let out = format!("killed{round}");
        // From the first moments to the last.
        for moment in 0u64.. {
            let mut child =
                command(at, &to_be_killed(&out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(40 + 30 * ((round * 7 + moment * 5) % 11)));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if moment == 3 {
                break;
            }
        }
        said(at, &to_be_killed(&out));
        assert_eq!(tables(&at.join(&out)), tables(&at.join("whole")), "round {round}");
        let raw = |out: &str| {
            let files = fs::read_dir(at.join(out).join("raw")).unwrap().flatten();
            files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(raw(&out), raw("whole"));
        let left: Vec<_> =
            fs::read_dir(at.join(&out)).unwrap().flatten().map(|one| one.file_name()).collect();
        let is_result = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name == "raw" || name == "manifest.json" || name.ends_with(".parquet")
        };
        assert!(left.iter().all(is_result), "{left:?}");
        let manifest = |out: &str| fs::read_to_string(at.join(out).join("manifest.json")).unwrap();
        assert_eq!(manifest(&out), manifest("whole"));
    }
    assert!(kills >= 10, "{kills} runs were killed");
}

#[test]
fn threads_and_neighbours_change_nothing() {
    let place = place();
    let at = place.path();
    let run = |out: &str, threads: &str| {
        let mut command =
            command(at, &["corpus", "run", "docs.jsonl", "-o", out, "--hooks", ALL, "--reduce", "top"]);
        assert!(command.env("RAYON_NUM_THREADS", threads).output().unwrap().status.success());
        tables(&at.join(out))
    };
    assert_eq!(run("one", "1"), run("two", "2"));
}

#[test]
fn every_format_holds_the_same_documents() {
    let place = place();
    let at = place.path();
    let model = Model::demo();
    let eot = model.config().bos_token_id.unwrap();
    // Short ones, without the empty one.
    let texts: Vec<_> = documents().into_iter().filter(|text| !text.is_empty() && text.len() < 600).collect();
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| model.tokenizer.encode(text).unwrap()).collect();
    let json = |values: &mut dyn Iterator<Item = Value>| {
        values.fold(String::new(), |text, x| text + &x.to_string() + "\n")
    };
    let file = |name: &str, bytes: &[u8]| fs::write(at.join(name), bytes).unwrap();
    file("a.jsonl", json(&mut texts.iter().map(|text| serde_json::json!({ "text": text }))).as_bytes());
    file("b.jsonl", json(&mut ids.iter().map(|ids| serde_json::json!({ "input_ids": ids }))).as_bytes());
    file("c.txt", (texts.join("\n\n \n") + "\n\n").as_bytes());
    file("d.txt", texts.join("\n").as_bytes());
    let list: Vec<_> = texts.iter().map(|text| serde_json::json!({ "story": text, "text": 5 })).collect();
    file("e.json", serde_json::to_string(&list).unwrap().as_bytes());
    let parquet = |name: &str, column: Column| {
        let mut bytes = Vec::new();
        write(&mut bytes, [Table(vec![("content", column)])]).unwrap();
        file(name, &bytes);
    };
    parquet("f.parquet", Column::Text(texts.clone()));
    let wide = |ids: &Vec<u32>| ids.iter().map(|id| i64::from(*id)).collect();
    parquet("g.parquet", Column::I64s(ids.iter().map(wide).collect()));
    let stream: Vec<u16> =
        ids.iter().flat_map(|ids| [&[eot][..], ids].concat()).map(|id| id as u16).collect();
    let shorts: Vec<u8> = stream.iter().flat_map(|id| id.to_le_bytes()).collect();
    file("h.bin", &shorts);
    let mut header = [0u32; 256];
    header[..3].copy_from_slice(&[20_240_520, 1, stream.len() as u32]);
    file("i.bin", &[header.iter().flat_map(|word| word.to_le_bytes()).collect(), shorts.clone()].concat());
    let npy = |shape: String, bytes: &[u8]| {
        let mut head = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}");
        head += &" ".repeat(64 - (10 + head.len() + 1) % 64);
        head.push('\n');
        [b"\x93NUMPY\x01\0", &(head.len() as u16).to_le_bytes()[..], head.as_bytes(), bytes].concat()
    };
    file("j.npy", &npy(format!("({},)", stream.len()), &shorts));
    let n = ids.iter().map(Vec::len).min().unwrap();
    let rows: Vec<u8> =
        ids.iter().flat_map(|ids| &ids[..n]).flat_map(|id| (*id as u16).to_le_bytes()).collect();
    file("k.npy", &npy(format!("({}, {n})", ids.len()), &rows));
    for (i, text) in texts.iter().enumerate() {
        file(&format!("one{i:02}.txt"), text.as_bytes());
    }
    let singles: Vec<_> = (0..texts.len()).map(|i| format!("one{i:02}.txt")).collect();
    let run = |out: &str, inputs: &[&str], more: &[&str]| {
        let first = ["-o", out, "--hooks", "post.2", "--reduce", "top,loss"];
        said(at, &[&["corpus", "run"], inputs, &first[..], more].concat());
        tables(&at.join(out))
    };
    let whole = run("a", &["a.jsonl"], &[]);
    let loss = Reader::open(&at.join("a/loss.parquet")).unwrap();
    assert_eq!(loss.all::<i64>(0, "document").unwrap(), (0..texts.len() as i64).collect::<Vec<_>>());
    for (out, input, more) in [
        ("b", "b.jsonl", &[][..]),
        ("c", "c.txt", &[]),
        ("d", "d.txt", &["--per", "line"]),
        ("e", "e.json", &["--field", "story"]),
        ("f", "f.parquet", &["--field", "content"]),
        ("g", "g.parquet", &["--field", "content"]),
        ("h", "h.bin", &[]),
        ("i", "i.bin", &[]),
        ("j", "j.npy", &[]),
    ] {
        assert_eq!(run(out, &[input], more), whole, "{input}");
    }
    let singles: Vec<_> = singles.iter().map(String::as_str).collect();
    assert_eq!(run("l", &singles, &["--per", "file"]), whole);
    let mut piped =
        command(at, &["corpus", "run", "-", "-o", "m", "--hooks", "post.2", "--reduce", "top,loss"]);
    piped.stdin(fs::File::open(at.join("c.txt")).unwrap());
    assert!(piped.output().unwrap().status.success());
    assert_eq!(tables(&at.join("m")), whole);
    run("k", &["k.npy"], &[]);
    let manifest = Manifest::read(&at.join("k")).unwrap().unwrap();
    assert_eq!(manifest.progress.tokens, (n * ids.len()) as u64);
}

#[test]
fn faulty_documents_are_counted_named_or_refused() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let long = "word ".repeat(600);
    let lines = [
        r#"{"text": "fine"}"#.to_owned(),
        r#"{"text": ""}"#.into(),
        "no json".into(),
        r#"{"other": "x"}"#.into(),
        r#"{"text": 7}"#.into(),
        format!(r#"{{"text": "{long}"}}"#),
        r#"{"ids": [1, 2, 999999]}"#.into(),
        r#"{"ids": [1, -2]}"#.into(),
        r#"{"text": "also fine"}"#.into(),
    ];
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend(b"\n{\"text\": \"\xff\"}\n");
    fs::write(at.join("docs.jsonl"), bytes).unwrap();
    let args = ["corpus", "run", "docs.jsonl", "-o", "out", "--hooks", "post.0", "--reduce", "loss"];
    let text = said(at, &args);
    assert!(text.starts_with("3 documents, "), "{text}");
    assert!(text.contains("neither text nor a list of token ids: 2 documents: 4, 7"), "{text}");
    let faults = Manifest::read(&at.join("out")).unwrap().unwrap().progress.faults;
    let found: Vec<_> = faults.iter().map(|(fault, of)| (format!("{fault:?}"), of.first.clone())).collect();
    let one = |name: &str, at: &[u64]| (name.to_owned(), at.to_vec());
    assert_eq!(
        found,
        [
            one("Empty", &[1]),
            one("TooLong", &[5]),
            one("NotUtf8", &[9]),
            one("NotJson", &[2]),
            one("NoField", &[3]),
            one("WrongType", &[4, 7]),
            one("NotInVocabulary", &[6]),
        ]
    );
    let strict = [&args[..3], &["-o", "strict"], &args[5..], &["--strict"]].concat();
    let said = refused(at, &strict);
    assert!(said.contains("docs.jsonl: 2: document 1: no tokens"), "{said}");
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let place = place();
    let at = place.path();
    let run = |more: &[&str]| refused(at, &[&["corpus", "run", "docs.jsonl", "-o", "out"], more].concat());
    for (more, sentence) in [
        (&["--hooks", "logits"][..], "has a value for each token of the vocabulary"),
        (&["--hooks", "attn_scores.0"], "has no units"),
        (&["--hooks", "pattern.0", "--reduce", "raw"], "has no row for each position"),
        (&["--hooks", "post.9"], "no hook named"),
        (&["--context", "300"], "context"),
        (&["--context", "8", "--stride", "9"], "stride"),
        (&["--shard", "auto"], "give --shard I/N"),
        (&["--shard", "3/2"], "is no shard"),
        (&["--sample", "0"], "expected a share"),
        (&["--ablate", "head:9.0"], "layer 9"),
    ] {
        let said = run(more);
        assert!(said.contains(sentence), "{more:?}: {said}");
    }
    fs::write(at.join("x.csv"), "a").unwrap();
    fs::write(at.join("bad.parquet"), "PAR1 and no more").unwrap();
    fs::write(at.join("odd.bin"), "abc").unwrap();
    for (input, sentence) in [
        ("x.csv", "is of no kind that a corpus is read from"),
        ("no.txt", "cannot be read"),
        ("bad.parquet", "is not a Parquet file"),
        ("odd.bin", "is no file of token ids"),
    ] {
        let said = refused(at, &["corpus", "run", input, "-o", "o", "--hooks", "post.0"]);
        assert!(said.contains(sentence) && said.contains(input), "{said}");
    }
    said(at, &["corpus", "run", "docs.jsonl", "-o", "done", "--hooks", "post.0", "--reduce", "top"]);
    let other =
        refused(at, &["corpus", "run", "docs.jsonl", "-o", "done", "--hooks", "post.1", "--reduce", "top"]);
    assert!(other.contains("holds the results of another run, which differs in hooks"), "{other}");
    for (unit, sentence) in [
        ("neuron:1.0", "the atlas has nothing of blocks.1.mlp.hook_post: it has blocks.0.mlp.hook_post"),
        ("neuron:0.768", "no unit named"),
        ("neuron:9.0", "no unit named"),
        ("cell:0.0", "no unit named"),
        ("neuron", "no unit named"),
    ] {
        let said = refused(at, &["corpus", "show", unit, "--atlas", "done"]);
        assert!(said.contains(sentence), "{said}");
    }
    let manifest = at.join("done/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (text, sentence) in [
        (text.replace("\"format\": 1", "\"format\": 9"), "is of format 9"),
        (text.replace("\"format\": 1,", ""), "is no manifest of a corpus"),
        (text.replace("\"n_head\": 6", "\"n_head\": 0"), "n_head"),
        (text[..text.len() / 2].to_owned(), "is not JSON"),
    ] {
        fs::write(&manifest, text).unwrap();
        let said = refused(at, &["corpus", "show", "neuron:0.1", "--atlas", "done"]);
        assert!(said.contains(sentence), "{said}");
    }
    fs::write(&manifest, &text).unwrap();
    let top = fs::read(at.join("done/top.parquet")).unwrap();
    for cut in [0, 5, top.len() / 2, top.len() - 1] {
        fs::write(at.join("done/top.parquet"), &top[..cut]).unwrap();
        refused(at, &["corpus", "show", "neuron:0.1", "--atlas", "done"]);
    }
}

#[test]
fn raw_tensors_are_those_of_single_runs() {
    let place = place();
    let at = place.path();
    let hooks = ["--hooks", "resid_post.1,z.0", "--reduce", "raw"];
    for (out, more) in [
        ("f32", &["--raw-dtype", "f32"]),
        ("f16", &["--raw-dtype", "f16"]),
        ("bf16", &["--raw-dtype", "bf16"]),
    ] {
        let done = call(
            at,
            &[&["corpus", "run", "docs.jsonl", "-o", out, "--limit", "4"], &hooks[..], more].concat(),
        );
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success() && said.contains("the raw tensors will take"), "{said}");
    }
    let model = std::sync::Arc::new(Model::demo());
    let files = |out: &str| {
        candle_core::safetensors::load(at.join(out).join("raw/00001.safetensors"), &candle_core::Device::Cpu)
            .unwrap()
    };
    let [whole, half, brain] = ["f32", "f16", "bf16"].map(files);
    let mut row = 0;
    for (number, text) in documents().iter().take(4).enumerate() {
        let run = Run::all(&model, Input::text(text.as_str())).unwrap();
        let n = run.n_tokens();
        for name in ["blocks.1.hook_resid_post", "blocks.0.attn.hook_z"] {
            let want = run.cache.get(name).unwrap();
            let part = |of: &std::collections::HashMap<String, candle_core::Tensor>| {
                let x = of[name].narrow(0, row, n).unwrap().to_dtype(candle_core::DType::F32).unwrap();
                assert_eq!(x.dims(), want.dims());
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let want = want.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (of, share) in [(&whole, 2e-6), (&half, 1e-3), (&brain, 8e-3)] {
                for (a, b) in part(of).iter().zip(&want) {
                    assert!((a - b).abs() <= share * b.abs().max(1.0), "{name}: {a} {b}");
                }
            }
        }
        let documents: Vec<i64> = whole["document"].to_vec1().unwrap();
        assert!(documents[row..row + n].iter().all(|document| *document == number as i64));
        row += n;
    }
}

#[test]
fn status_says_how_far_each_shard_is() {
    let place = place();
    let at = place.path();
    let run = |shard: &str| {
        said(
            at,
            &[
                "corpus",
                "run",
                "docs.jsonl",
                "-o",
                "s",
                "--hooks",
                "post.0",
                "--reduce",
                "loss",
                "--shard",
                shard,
            ],
        )
    };
    run("1/3");
    run("3/3");
    let rows: Value = serde_json::from_str(&said(at, &["corpus", "status", "s", "--json"])).unwrap();
    let states: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["complete"].as_bool().unwrap()).collect();
    assert_eq!(states, [true, true, false]);
    assert!(said(at, &["corpus", "status", "s"]).contains("not begun"));
}

#[test]
fn changes_are_part_of_the_run() {
    let place = place();
    let at = place.path();
    let run = |out: &str, more: &[&str]| {
        let first = ["corpus", "run", "docs.jsonl", "-o", out, "--hooks", "post.1", "--reduce", "stats"];
        said(at, &[&first[..], more].concat());
        Atlas::open(&at.join(out)).unwrap()
    };
    let (plain, changed) = (run("plain", &[]), run("changed", &["--ablate", "neuron:1.5"]));
    assert!(plain.unit("neuron:1.5").unwrap().stats.unwrap().max > 0.0);
    let stats = changed.unit("neuron:1.5").unwrap().stats.unwrap();
    assert_eq!((stats.min, stats.max), (0.0, 0.0));
    assert_eq!(changed.manifest.settings.interventions.to_string(), "zero neuron:1.5");
}

/// Runs the queries of the documentation, with the Python that has DuckDB in `ACTSCOPE_DUCKDB`.
#[test]
fn the_queries_of_the_documentation_run() {
    let Ok(python) = std::env::var("ACTSCOPE_DUCKDB") else {
        eprintln!("skipped: ACTSCOPE_DUCKDB names no Python with DuckDB");
        return;
    };
    let place = place();
    let at = place.path();
    said(at, &["corpus", "run", "docs.jsonl", "-o", "atlas", "--reduce", "top,stats,loss", "--top-k", "3"]);
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/corpus.md")).unwrap();
    let queries: Vec<_> =
        text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(queries.len() > 3);
    for query in queries {
        let code = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))";
        let done = Command::new(&python).current_dir(at).args(["-c", code, query]).output().unwrap();
        assert!(done.status.success(), "{query}: {}", String::from_utf8_lossy(&done.stderr));
        let rows: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(!rows.as_array().unwrap().is_empty(), "{query}");
        if query.contains("largest values") {
            let shown =
                said(at, &["corpus", "show", rows[0][0].as_str().unwrap(), "--atlas", "atlas", "--json"]);
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let value = shown["examples"][0]["value"].as_f64().unwrap();
            assert!((value - rows[0][1].as_f64().unwrap()).abs() < 1e-5);
            assert_eq!(shown["examples"][0]["document"], rows[0][2]);
        }
    }
}

#[test]
fn a_page_shows_a_unit_and_obeys_no_document() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let hostile = "<script>alert(1)</script><img src=x onerror=y> \u{1b}]52;c;aGk=\u{7}";
    fs::write(at.join("docs.txt"), format!("{hostile}\n\nThe old man said <b>no</b>.")).unwrap();
    said(at, &["corpus", "run", "docs.txt", "-o", "atlas", "--hooks", "post.1", "--top-k", "3"]);
    assert_eq!(said(at, &["corpus", "show", "neuron:1.7", "--atlas", "atlas", "-o", "page.html"]), "");
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<h1>neuron:1.7 of demo</h1>"));
    assert!(
        !page.contains("<script")
            && !page.contains("<img")
            && !page.contains('\u{1b}')
            && !page.contains("<b>")
    );
    let shown: Value =
        serde_json::from_str(&said(at, &["corpus", "show", "neuron:1.7", "--atlas", "atlas", "--json"]))
            .unwrap();
    assert_eq!(page.matches("aria-pressed=\"true\"").count(), {
        let n = |name: &str| shown[name].as_array().unwrap().len();
        n("examples") + n("drawn")
    });
}

#[test]
fn a_corpus_without_documents_has_tables_and_no_numbers() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::write(at.join("docs.txt"), "\n \n").unwrap();
    let text = said(at, &["corpus", "run", "docs.txt", "-o", "out", "--reduce", "top,stats,loss"]);
    assert!(text.starts_with("0 documents, 0 tokens, in out"), "{text}");
    let text = text + &said(at, &["corpus", "show", "neuron:0.1", "--atlas", "out"]);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    said(at, &["corpus", "show", "neuron:0.1", "--atlas", "out", "-o", "page.html"]);
    assert!(!fs::read_to_string(at.join("page.html")).unwrap().contains("NaN"));
}

/// Raw tensors are written before they fill the memory.
#[test]
fn raw_tensors_are_in_files_of_a_bounded_size() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::write(at.join("docs.txt"), vec!["word"; 240].join(" ") + "\n\n").unwrap();
    let documents = fs::read_to_string(at.join("docs.txt")).unwrap().repeat(60);
    fs::write(at.join("docs.txt"), documents).unwrap();
    said(at, &["corpus", "run", "docs.txt", "-o", "out", "--hooks", "post.*,pre.*", "--reduce", "raw"]);
    let sizes: Vec<_> = fs::read_dir(at.join("out/raw"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 140 << 20), "{sizes:?}");
}

/// A limit on the size of files stands for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_one_sentence_and_nothing_is_lost() {
    let place = place();
    let at = place.path();
    let args = "corpus run docs.jsonl -o out --hooks post.1 --reduce top,stats --chunk 300";
    let run = |limit: &str| {
        let program = env!("CARGO_BIN_EXE_actscope");
        let line = format!("ulimit -f {limit}; exec '{program}' {args}");
        Command::new("sh").current_dir(at).args(["-c", &line]).output().unwrap()
    };
    let full = run("600");
    let said_of_it = String::from_utf8(full.stderr).unwrap();
    assert!(!full.status.success());
    assert_eq!(said_of_it.lines().count(), 1, "{said_of_it}");
    assert!(said_of_it.contains("make room, and run the same again"), "{said_of_it}");
    assert!(run("unlimited").status.success());
    let whole = args.replace("-o out", "-o whole");
    said(at, &whole.split(' ').collect::<Vec<_>>());
    assert_eq!(tables(&at.join("out")), tables(&at.join("whole")));
}

/// If more are asked for than there are, all values above 0 are drawn; else some of them, the same in every run.
#[test]
fn drawn_examples_are_some_of_all_values_above_0() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let text = "The old man and the sea were not alone. It was the best of times, it was the worst of times.";
    fs::write(at.join("docs.txt"), text).unwrap();
    let model = std::sync::Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(text)).unwrap();
    let post = run.cache.get("blocks.1.mlp.hook_post").unwrap().to_vec2::<f32>().unwrap();
    let mut positive: Vec<_> = post.iter().map(|row| row[7]).zip(0u64..).filter(|(x, _)| *x > 0.0).collect();
    positive.sort_by(|a, b| b.0.total_cmp(&a.0));
    let drawn = |n: &str| -> Vec<(f32, u64, u64)> {
        let args = ["corpus", "run", "docs.txt", "--hooks", "post.1", "--top-k", "1", "--drawn", n, "-o", n];
        said(at, &args);
        let shown: Value =
            serde_json::from_str(&said(at, &["corpus", "show", "neuron:1.7", "--atlas", n, "--json"]))
                .unwrap();
        let of = |one: &Value| {
            let value = one["value"].as_f64().unwrap() as f32;
            (value, one["position"].as_u64().unwrap(), one["quarter"].as_u64().unwrap())
        };
        shown["drawn"].as_array().unwrap().iter().map(of).collect()
    };
    let all = drawn("1000");
    assert_eq!(
        all.iter().map(|(_, position, _)| *position).collect::<Vec<_>>(),
        positive.iter().map(|(_, at)| *at).collect::<Vec<_>>()
    );
    for (i, ((value, _, quarter), (want, _))) in all.iter().zip(&positive).enumerate() {
        assert!((value - want).abs() < 1e-5);
        assert_eq!(*quarter as usize, 1 + i * 4 / all.len());
    }
    let some = drawn("4");
    assert_eq!(some.iter().map(|(.., quarter)| *quarter).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(all.len() > 4, "{all:?}");
    for (value, at, _) in &some {
        assert!(all.iter().any(|(x, of, _)| (value, at) == (x, of)), "{value} at {at}: {all:?}");
    }
    assert_eq!(drawn("0"), []);
}

/// Of a sparse autoencoder and of what it leaves out, as one process and as two shards.
#[test]
fn features_are_units() {
    let (place, model) = (place(), Arc::new(Model::demo()));
    let fits = |text: &String| (1..=256).contains(&model.tokenizer.encode(text).unwrap().len());
    let texts: Vec<_> = documents().into_iter().filter(fits).collect();
    assert!(texts.len() > 5);
    let lines: Vec<_> = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
    fs::write(place.path().join("docs.jsonl"), lines.join("\n")).unwrap();
    let run = |out: &str, shard: &str| {
        let hooks = ["--hooks", "*.features", "--hooks", "resid_pre.3.error", "--hooks", "post.3"];
        let mut args = vec!["corpus", "run", "docs.jsonl", "-o", out, "--top-k", "3", "--shard", shard];
        args.extend(hooks);
        said(place.path(), &args);
    };
    run("whole", "1/1");
    (1..=2).for_each(|index| run("shards", &format!("{index}/2")));
    said(place.path(), &["corpus", "merge", "shards", "-o", "merged"]);
    let top = |folder: &str| tables(&place.path().join(folder)).remove("top.parquet").unwrap();
    assert!(top("whole") == top("merged"));

    let atlas = Atlas::open(&place.path().join("whole")).unwrap();
    atlas.check(&model).unwrap();
    let runs: Vec<_> = texts.into_iter().map(|text| Run::all(&model, Input::text(text)).unwrap()).collect();
    for (name, unit) in [
        ("feature:2.resid_pre/616", 616),
        ("feature:3.resid_pre/17", 17),
        ("resid_pre.2.features/0", 0),
        ("resid_pre.3.error/5", 5),
    ] {
        let of = atlas.unit(name).unwrap();
        assert!(name.contains(".features/") || of.name == name);
        let (group, column) =
            Group::find(name, model.config(), &atlas.manifest.settings.written().unwrap()).unwrap();
        assert_eq!(column, unit);
        let mut values: Vec<f32> = Vec::new();
        for run in &runs {
            let x = run.part(group.tensor, &Part::default()).unwrap().to_vec2::<f32>().unwrap();
            values.extend(x.iter().map(|row| row[unit]));
        }
        let n = values.len() as u64;
        let above = values.iter().filter(|x| **x > 0.0).count() as f64 / n as f64;
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        for (got, want) in of.examples.best.iter().zip(&values) {
            near(f64::from(got.value), f64::from(*want), name);
        }
        let stats = of.stats.unwrap();
        assert_eq!(stats.count, n);
        assert!((stats.positive_share() - above).abs() < 2.0 / n as f64, "{name}");
        assert!(said(place.path(), &["corpus", "show", name, "--atlas", "whole"]).starts_with(&of.name));
    }
    let none = refused(place.path(), &["corpus", "show", "feature:1.resid_pre/3", "--atlas", "whole"]);
    assert!(none.contains("there are no features of blocks.1.hook_resid_pre"), "{none}");
    let out = refused(place.path(), &["corpus", "show", "feature:2.resid_pre/896", "--atlas", "whole"]);
    assert!(out.contains("no unit named"), "{out}");

    // Of another dictionary in the same place.
    let other = format!(
        "resid_pre.2={}",
        Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fitted/resid_pre.3").display()
    );
    let options = LoadOptions { dictionaries: vec![other.clone()], ..LoadOptions::default() };
    let model = Model::load(&Source::Demo, &options, &(Arc::new(|_| {}) as _)).unwrap();
    let tensor = atlas.manifest.settings.tensors().unwrap()[0];
    let why = atlas.check_tensor(&model, tensor).unwrap_err().to_string();
    assert!(why.contains("are others than those of"), "{why}");
    let args = ["corpus", "run", "docs.jsonl", "-o", "whole", "--hooks", "resid_pre.2.features"];
    let why = refused(place.path(), &[&args[..], &["--dictionary", &other]].concat());
    assert!(why.contains("differs in") && why.contains("dictionaries"), "{why}");
}
