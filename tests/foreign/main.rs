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
        assert!(found.0 == kind && found.1.contains(words), "{fault:?}: {found:?} {}", answer["first_off"]);
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

fn array(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Array {
    (shape.to_vec(), values.into_iter().collect())
}

/// (a, b, c) as (b, a, c).
fn turned((shape, values): &Array) -> Array {
    let [a, b, c] = shape[..] else { panic!("three axes") };
    let at = |i: usize| values[(i / c % a * b + i / c / a) * c + i % c];
    array(&[b, a, c], (0..values.len()).map(at))
}

#[test]
fn names_and_layouts_of_all_programs_are_read() {
    let net = gpt2();
    let all = net.forward(&IDS, Fault::None);
    let with = |shape: &[usize], name: &str| array(shape, all[name].1.iter().copied());
    let (t, c, h, v) = (12, net.c, net.n_head, net.v);
    let padded = |name: &str| {
        let rows = all[name].1.chunks_exact(v).flat_map(|row| row.iter().copied().chain([7.0; 48]));
        array(&[1, t, v + 48], rows)
    };
    let transposed = |name: &str| {
        let values = &all[name].1;
        array(&[c, t], (0..c * t).map(|i| values[i % t * c + i / t]))
    };
    let mine: BTreeMap<String, Array> = [
        ("hidden_states.0", with(&[1, t, c], "encoded")),
        ("hidden_states.2", with(&[t, c], "residual3.1")),
        ("hidden_states.4", with(&[1, t, c], "lnf")),
        ("attentions.3", with(&[1, h, t, t], "att.3")),
        ("transformer.h.2.attn.c_attn", with(&[1, t, 3 * c], "qkv.2")),
        ("h.1.mlp.act", with(&[t, 4 * c], "fch_gelu.1")),
        ("module.transformer.h.1.ln_2", with(&[t, c], "ln2.1")),
        ("lm_head", padded("logits")),
        ("blocks.1.attn.hook_q", turned(&with(&[t, h, c / h], "q.1"))),
        ("v.1", with(&[1, 1, t, h, c / h], "v.1")),
        ("blocks.0.attn.o.hook_in", with(&[t, c], "atty.0")),
        ("blocks.2.ln1.hook_normalized", with(&[t, c], "ln1.2")),
        ("resid_mid.3", transposed("residual2.3")),
        ("ln2_rstd_1", with(&[1, t, 1], "ln2_rstd.1")),
        ("something else", array(&[2], [1.0, 2.0])),
    ]
    .map(|(name, array)| (name.to_owned(), array))
    .into();
    let (code, answer) = check(&mine, &[]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(names(&answer).len(), mine.len() - 1);
    let note = |theirs: &str| {
        let all = answer["tensors"].as_array().unwrap();
        all.iter().find(|one| one["theirs"] == theirs).unwrap()["note"].as_str().unwrap_or("").to_owned()
    };
    assert_eq!(note("lm_head"), "a padded vocabulary is cut");
    assert_eq!(note("blocks.1.attn.hook_q"), "heads come first");
    assert_eq!(note("resid_mid.3"), "positions are columns");
    assert!(note("blocks.2.ln1.hook_normalized").contains("TransformerLens 2"));
    // By a mapping, in both forms.
    let place = tempfile::tempdir().unwrap();
    let one = [("act17".to_owned(), with(&[t, c], "residual3.1"))].into();
    fs::write(place.path().join("mine.safetensors"), file(&one)).unwrap();
    for map in
        ["# theirs  ours\nact17  resid_post.1\n", "{\"act17\": \"residual3.1\"}", "act17 = hidden_states.2"]
    {
        fs::write(place.path().join("map"), map).unwrap();
        let (code, answer) = check_file(&place, "mine.safetensors", &["--map", "map"]);
        assert_eq!((code, names(&answer).len()), (0, 1), "{map}: {answer}");
    }
}

/// Numpy's files, whole and as an archive, in several number formats and orders.
#[test]
fn numpys_files_are_read() {
    let net = gpt2();
    let all = net.forward(&IDS, Fault::None);
    let place = tempfile::tempdir().unwrap();
    let npy = |kind: &str, fortran: bool, shape: &[usize], bytes: &[u8]| {
        let axes: Vec<_> = shape.iter().map(|n| format!("{n},")).collect();
        let order = if fortran { "True" } else { "False" };
        let mut header =
            format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({}), }}", axes.concat());
        let pad = 63 - (10 + header.len()) % 64;
        header.push_str(&" ".repeat(pad));
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(bytes);
        file
    };
    let values = &all["residual3.1"].1;
    let f4: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let f8: Vec<u8> = values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let columns: Vec<u8> =
        (0..values.len()).flat_map(|i| values[i % 12 * net.c + i / 12].to_le_bytes()).collect();
    let shape = [1, 12, net.c];
    for (name, bytes) in [
        ("f4", npy("<f4", false, &shape, &f4)),
        ("f8", npy("<f8", false, &shape, &f8)),
        ("fortran", npy("<f4", true, &shape[1..], &columns)),
    ] {
        fs::write(place.path().join("x.npy"), &bytes).unwrap();
        let (code, answer) = check_file(&place, "x.npy", &["--hook", "resid_post.1"]);
        assert_eq!((code, names(&answer)), (0, vec!["blocks.1.hook_resid_post"]), "{name}: {answer}");
    }
    // An archive brings its tokens.
    let ids: Vec<u8> = IDS.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    let mut zip = zip::ZipWriter::new(fs::File::create(place.path().join("all.npz")).unwrap());
    for (name, bytes) in [
        ("mask", npy("|b1", false, &[12], &[1; 12])), // left aside
        ("input_ids", npy("<i8", false, &[1, 12], &ids)),
        ("resid_post.1", npy("<f4", false, &shape, &f4)),
    ] {
        zip.start_file(
            format!("{name}.npy"),
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
        std::io::Write::write_all(&mut zip, &bytes).unwrap();
    }
    zip.finish().unwrap();
    let (code, out, err) = actscope(place.path(), &["check", "all.npz"]);
    assert!(code == 0 && out.contains("all within 1e-4 of ours"), "{out}{err}");
    let (code, _, err) = actscope(place.path(), &["check", "all.npz", "--token-ids", "1,2,3"]);
    assert!(code == 1 && err.contains("token ids of its own"), "{err}");
    for (bytes, says) in [
        (npy(">f4", false, &shape, &f4), "no numbers that can be compared"),
        (npy("<f4", false, &[1 << 40, 2], &f4), "too large"),
        (npy("<f4", false, &[13, net.c], &f4), "claims the shape"),
        (b"\x93NUMPY".to_vec(), "is no array of numpy"),
        (Vec::new(), "is no array of numpy"),
    ] {
        fs::write(place.path().join("x.npy"), &bytes).unwrap();
        let (code, out, err) =
            actscope(place.path(), &["check", "x.npy", "--hook", "logits", "--token-ids", "1"]);
        assert!(code == 1 && out.is_empty() && err.contains(says), "{err}");
    }
}

/// Two rows of tokens with their targets, the logits and the loss; gradients follow.
#[test]
fn the_debug_state_of_llm_c_is_read() {
    let net = gpt2();
    let rows: [&[u32]; 2] = [&IDS[..8], &IDS[4..]];
    let targets: Vec<u32> = IDS[1..9].iter().chain(&IDS[5..]).chain(&[77]).copied().collect();
    let (mut logits, mut losses) = (Vec::new(), Vec::new());
    for row in rows {
        logits.extend(net.forward(row, Fault::None).remove("logits").unwrap().1);
    }
    for (row, target) in logits.chunks_exact(net.v).zip(&targets) {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        losses.push(sum.ln() - f64::from(row[*target as usize]));
    }
    let loss = (losses.iter().sum::<f64>() / losses.len() as f64) as f32;
    let state = |loss: f32, logits: &[f32], rest: usize| {
        let mut header = vec![0i32; 256];
        header[..4].copy_from_slice(&[20_240_327, 2, 2, 8]);
        let mut bytes: Vec<u8> = header.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.extend(rows.concat().iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(targets.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(loss.to_le_bytes());
        bytes.extend(vec![0; rest]);
        bytes
    };
    let place = tempfile::tempdir().unwrap();
    let run = |bytes: &[u8]| {
        fs::write(place.path().join("state.bin"), bytes).unwrap();
        actscope(place.path(), &["check", "state.bin", "--json"])
    };
    let (code, out, err) = run(&state(loss, &logits, 4000));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["loss"]["ok"]), (0, &Value::Bool(true)), "{answer}");
    assert_eq!(answer["tensors"][0]["shape"], serde_json::json!([2, 8, net.v]));
    assert!(err.contains("gradients are of another size"), "{err}");
    let (code, out, err) = run(&state(loss + 0.01, &logits, 0));
    assert!(code == 1 && out.contains("\"first_off\":null") && err.contains("the loss is off"), "{out}{err}");
    // Of the second row one value is off.
    let mut off = logits.clone();
    off[8 * net.v + 3 * net.v + 17] += 0.5;
    let (code, out, _) = run(&state(loss, &off, 0));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["tensors"][0]["at"]), (1, &serde_json::json!([1, 3, 17])));
    for (bytes, says) in [
        (state(loss, &logits[..100], 0), "cut short, or of another vocabulary"),
        (vec![0; 2000], "no debug state of llm.c"),
        (vec![0; 3], "cut short"),
    ] {
        let (code, out, err) = run(&bytes);
        assert!(code == 1 && out.is_empty() && err.contains(says), "{err}");
    }
}

/// llm.c's layout by another's reading: all blocks, a batch, heads side by side.
#[test]
fn exports_in_llm_cs_words_are_what_llm_c_has() {
    let net = gpt2();
    let want = net.stacked(&net.forward(&IDS, Fault::None));
    let place = tempfile::tempdir().unwrap();
    let args = ["export", "--token-ids", &ids(), "-o", "x.safetensors", "--names", "llmc"];
    assert_eq!(actscope(place.path(), &args).0, 0);
    let bytes = fs::read(place.path().join("x.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names().len(), want.len() - 1); // all but the losses
    for (name, view) in file.iter() {
        let (shape, values) = &want[name];
        assert_eq!(view.shape(), shape, "{name}");
        let got = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        for (got, want) in got.zip(values).filter(|(got, _)| got.is_finite()) {
            assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{name}: {got} {want}");
        }
    }
}

#[test]
fn our_own_exports_check() {
    let place = tempfile::tempdir().unwrap();
    for (name, more) in [
        ("all.safetensors", &[][..]),
        ("some.npz", &["--hooks", "resid_*.2", "--hooks", "pattern.1"]),
        ("cut.safetensors", &["--positions", "2..5"]),
    ] {
        let args = [&["export", "The old man and the sea", "-o", name, "--bos"], more].concat();
        let (code, _, err) = actscope(place.path(), &args);
        assert_eq!(code, 0, "{err}");
        let (code, out, err) = actscope(place.path(), &["check", name, "--json"]);
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 0, "{answer} {err}");
        assert!(
            answer["tensors"].as_array().unwrap().iter().all(|one| one["max_diff"].as_f64() < Some(1e-5))
        );
    }
    // In the words of others, all of which are read back.
    for (name, n) in [("hf", 4 + 12 * 4), ("llmc", 7 - 1 + 16), ("transformerlens2", 4 + 17 * 4)] {
        for more in [&[][..], &["--batch"], &["--positions", "1..4"]] {
            let export = ["export", "The old man and the sea", "-o", "words.npz", "--names", name];
            let (code, _, err) = actscope(place.path(), &[&export[..], more].concat());
            assert!(code == 0 && err.contains("left out"), "{err}");
            let mut check = vec!["check", "words.npz", "--json"];
            check.extend((name == "transformerlens2").then_some(["--names", name]).into_iter().flatten());
            let (code, out, err) = actscope(place.path(), &check);
            let answer: Value = serde_json::from_str(&out).unwrap_or_default();
            assert_eq!(code, 0, "{name}: {err}");
            let theirs: std::collections::BTreeSet<_> = answer["tensors"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["theirs"].as_str().unwrap())
                .collect();
            assert_eq!(theirs.len(), n, "{name}: {theirs:?}");
        }
    }
    let (code, _, err) =
        actscope(place.path(), &["export", "a", "-o", "x.npy", "--hooks", "result.1", "--names", "hf"]);
    assert!(code == 2 && err.contains("no names for these tensors"), "{err}");
    // Of other weights.
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/plain");
    let (code, _, err) =
        actscope(place.path(), &["check", "all.safetensors", "--model", tiny.to_str().unwrap()]);
    assert!(code == 1 && err.contains("other weights than"), "{err}");
    // A changed run is off where it was changed.
    let changed = ["export", "The old man", "-o", "changed.safetensors", "--scale", "mlp:1=0.5"];
    assert_eq!(actscope(place.path(), &changed).0, 0);
    let (code, out, _) = actscope(place.path(), &["check", "changed.safetensors", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["first_off"].as_str()), (1, Some("blocks.1.hook_mlp_out")), "{answer}");
    assert!(
        answer["diagnoses"][0]["says"].as_str().unwrap().contains("times 0.5"),
        "{}",
        answer["diagnoses"]
    );
}

/// Hugging Face's own, of every kind of checkpoint.
#[test]
fn fixtures_of_hugging_face_check() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    for name in ["plain", "gelu", "eps", "inverse", "unscaled", "untied", "inner", "relu"] {
        let path = |ending: &str| fixtures.join(format!("{name}{ending}")).display().to_string();
        let (code, out, err) =
            actscope(&fixtures, &["check", &path(".safetensors"), "--model", &path(""), "--json"]);
        let answer: Value = serde_json::from_str(&out).unwrap_or_default();
        assert!(code == 0 && names(&answer).len() > 30, "{name}: {err}");
    }
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let place = tempfile::tempdir().unwrap();
    let write = |all: &[(&str, Array)]| {
        let all = all.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
        fs::write(place.path().join("x.safetensors"), file(&all)).unwrap();
    };
    let refused = |args: &[&str], says: &str| {
        let (code, out, err) = actscope(place.path(), &[&["check"], args].concat());
        assert!(code > 0 && out.is_empty() && err.contains(says), "{args:?}: {err}");
        assert_eq!(err.lines().filter(|line| !line.contains("note: ")).count(), 1, "{err}");
    };
    write(&[("weird", array(&[2], [1.0, 2.0]))]);
    refused(&["x.safetensors", "--token-ids", "1"], "no tensor with a name that is known: it has `weird`");
    write(&[("resid_post.1", array(&[2, 5], [0.0; 10]))]);
    refused(&["x.safetensors", "--token-ids", "1,2"], "has shape [2, 5] where [2, 192] is expected");
    refused(&["x.safetensors"], "no prompt given");
    refused(&["x.safetensors", "--token-ids", "1", "--tolerance", "0"], "a number above 0");
    refused(&["x.safetensors", "--token-ids", "1", "--hook", "q.0"], "other files have names");
    fs::write(place.path().join("x.npy"), "").unwrap();
    refused(&["x.npy", "--token-ids", "1"], "say with --hook");
    refused(&["no.npz", "--token-ids", "1"], "cannot be read");
    refused(&[".", "--token-ids", "1"], "is no regular file");
    fs::write(place.path().join("run.json"), "{}").unwrap();
    refused(&["run.json", "--token-ids", "1"], "is of no kind that activations are read from");
    #[cfg(unix)]
    for pipe in ["pipe.npz", "pipe.safetensors"] {
        // Nobody writes to it: it is not waited for.
        assert!(Command::new("mkfifo").current_dir(place.path()).arg(pipe).status().unwrap().success());
        refused(&[pipe, "--token-ids", "1"], "is no regular file");
    }
    write(&[("resid_post.1", array(&[3, 192], [0.0; 576]))]);
    refused(&["x.safetensors", "--token-ids", "1,2"], "is BOS the difference?");
    write(&[("ln1", array(&[3, 2, 192], [0.0; 1152]))]);
    refused(&["x.safetensors", "--token-ids", "1,2"], "all 4 come one after the other");
    fs::write(place.path().join("map"), "a b c").unwrap();
    refused(&["x.safetensors", "--token-ids", "1", "--map", "map"], "line 1: expected THEIR_NAME OUR_NAME");
    // NaN is off, and is shown as such.
    write(&[("resid_post.1", array(&[1, 192], [f32::NAN; 192]))]);
    let (code, out, _) = actscope(place.path(), &["check", "x.safetensors", "--token-ids", "1", "--json"]);
    assert!(code == 1 && out.contains("\"max_diff\":\"nan\""), "{out}");
}

/// Files that are cut, changed or made up: an error or an answer, never a panic.
mod lies {
    use actscope::Model;
    use actscope::foreign::check::Options;
    use actscope::foreign::{Check, Foreign, Mapping};
    use proptest::prelude::*;

    use super::*;

    fn files() -> &'static [(&'static str, Vec<u8>)] {
        static FILES: std::sync::OnceLock<Vec<(&str, Vec<u8>)>> = std::sync::OnceLock::new();
        FILES.get_or_init(|| {
            let place = tempfile::tempdir().unwrap();
            let mut files = Vec::new();
            for (name, hooks) in [("x.npz", "resid_pre.1"), ("x.npy", "z.1"), ("x.safetensors", "pattern.1")]
            {
                let args = ["export", "a b", "-o", name, "--hooks", hooks];
                assert_eq!(actscope(place.path(), &args).0, 0);
                files.push((name, fs::read(place.path().join(name)).unwrap()));
            }
            let mut state = vec![0; 1024 + 4 * (2 * 3 + 3 * 2048 + 1)];
            for (i, x) in [20_240_327i32, 2, 1, 3].iter().enumerate() {
                state[4 * i..4 * i + 4].copy_from_slice(&x.to_le_bytes());
            }
            files.push(("x.bin", state));
            files
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        #[test]
        fn files_that_lie_are_refused_or_compared(
            which in 0usize..4,
            cut in proptest::option::of(0.0f64..1.0),
            changes in proptest::collection::vec((0.0f64..1.0, any::<u8>()), 0..6),
            early in any::<bool>(),
        ) {
            let (name, bytes) = &files()[which];
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                // Headers are at the start and, of archives, at the end.
                let n = if early { bytes.len().min(200) } else { bytes.len() };
                bytes[(at * n as f64) as usize] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate((cut * bytes.len() as f64) as usize);
            }
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join(name);
            fs::write(&path, &bytes).unwrap();
            let model = Model::demo();
            let hook = (*name == "x.npy").then_some("z.1");
            if let Ok(foreign) = Foreign::open(&path, hook, &Mapping::default(), model.config()) {
                let tokens = foreign.tokens.clone().unwrap_or_else(|| vec![vec![5, 6]]);
                if tokens.len() < 4 && tokens.iter().all(|row| row.len() < 64) {
                    let _ = Check::new(&model, &foreign, &tokens, Options::default());
                }
            }
        }
    }
}

/// The numpy of `docs/porting.md`, as it is and broken as it says.
#[test]
fn the_example_of_the_documentation_passes() {
    let Ok(python) = std::env::var("ACTSCOPE_PYTHON") else {
        eprintln!("skipped: ACTSCOPE_PYTHON names no Python with numpy");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/porting.md")).unwrap();
    let code = text.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.lines().filter(|line| !line.trim().is_empty()).count() <= 60);
    let place = tempfile::tempdir().unwrap();
    let run = |code: &str, model: &Path, n_head: &str| {
        fs::write(place.path().join("gpt2.py"), code).unwrap();
        let weights = model.join("model.safetensors").display().to_string();
        let done = Command::new(&python)
            .current_dir(place.path())
            .args(["gpt2.py", &weights, n_head, "5,7,96,3,42,17", "mine.npz"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        actscope(place.path(), &["check", "mine.npz", "--model", &model.display().to_string()])
    };
    for (model, n_head) in [("assets/demo", "6"), ("tests/fixtures/tiny/plain", "4")] {
        let (code, out, err) = run(code, &root.join(model), n_head);
        assert!(code == 0 && out.contains("all within 1e-4"), "{out}{err}");
    }
    let broken = code.replace(" / np.sqrt(c // n_head)", "");
    assert_ne!(broken, code);
    let (_, out, _) = run(&broken, &root.join("assets/demo"), "6");
    let said = text.split("run both again:\n\n").nth(1).unwrap();
    for line in said.lines().filter(|line| !line.is_empty()) {
        assert!(out.contains(line.trim()), "{line}: {out}");
    }
}

/// A file of ours says what its gradients are of; of any other, --metric does.
#[test]
fn gradients_are_compared_like_activations() {
    let place = tempfile::tempdir().unwrap();
    let prompt = "The old man and the sea";
    let export = |metric: &str, to: &str| {
        let hooks = ["--hooks=resid_post.*", "--hooks=pattern.1", "--hooks=post.2"];
        let (code, _, err) = actscope(
            place.path(),
            &[&["gradients", prompt, "--metric", metric, "-o", to][..], &hooks].concat(),
        );
        assert_eq!(code, 0, "{err}");
    };
    export("logit_diff: man, sea", "ours.safetensors");
    let (code, out, err) = actscope(place.path(), &["check", "ours.safetensors", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0, "{err}");
    let names: Vec<_> = answer["tensors"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names.len(), 6);
    assert!(names.contains(&"blocks.1.attn.hook_pattern.grad".into()), "{names:?}");
    // Of another metric, they are off.
    let (code, out, _) = actscope(place.path(), &["check", "ours.safetensors", "--metric", "loss"]);
    assert!(code == 1 && out.contains("OFF"), "{out}");
    // Without a manifest, nobody knows what they are of.
    let bytes = fs::read(place.path().join("ours.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<_> = file.tensors();
    safetensors::serialize_to_file(views, None, &place.path().join("theirs.safetensors")).unwrap();
    let theirs = ["check", "theirs.safetensors", prompt];
    let (code, _, err) = actscope(place.path(), &theirs);
    assert!(code == 2 && err.contains("6 gradients not compared") && err.contains("--metric"), "{err}");
    let of = [&theirs[..], &["--metric", "logit_diff: man, sea"]].concat();
    let (code, _, err) = actscope(place.path(), &of);
    assert_eq!(code, 0, "{err}");
}

/// Of weights, as torch writes them, and as a debug state of llm.c ends.
#[test]
fn gradients_of_weights_are_compared() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let model = format!("--model={}", fixtures.join("tiny/plain").display());
    let place = tempfile::tempdir().unwrap();
    let file = fixtures.join("gradients/weights-plain.safetensors");
    let ids = "--token-ids=3,14,15,92,65";
    let (code, out, err) =
        actscope(place.path(), &["check", file.to_str().unwrap(), ids, &model, "--metric=loss", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(answer["tensors"].as_array().unwrap().len(), 40);

    // llm.c: linear layers turned, the vocabulary padded to a multiple of 128, all blocks of a kind one after the other.
    let all = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let of = |name: String| all[&format!("transformer.{name}.grad")].clone();
    let mut tail = Vec::new();
    let mut put = |x: candle_core::Tensor| tail.extend(x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    put(of("wte.weight".into()).pad_with_zeros(0, 0, 128 - 97).unwrap());
    put(of("wpe.weight".into()));
    for (module, turned) in [
        ("ln_1", false),
        ("attn.c_attn", true),
        ("attn.c_proj", true),
        ("ln_2", false),
        ("mlp.c_fc", true),
        ("mlp.c_proj", true),
    ] {
        for part in ["weight", "bias"] {
            for l in 0..3 {
                let x = of(format!("h.{l}.{module}.{part}"));
                put(if turned && part == "weight" { x.t().unwrap().contiguous().unwrap() } else { x });
            }
        }
    }
    put(of("ln_f.weight".into()));
    put(of("ln_f.bias".into()));
    let model_of = actscope::Model::load(
        &actscope::model::Source::Path(fixtures.join("tiny/plain")),
        &actscope::model::LoadOptions::default(),
        &(std::sync::Arc::new(|_| {}) as _),
    );
    let net = model_of.unwrap().net;
    // The loss is of four tokens, each predicted from those before it.
    let (x, y) = ([3u32, 14, 15, 92], [14u32, 15, 92, 65]);
    let logits = net.run(&x, &mut ()).unwrap().to_vec2::<f32>().unwrap();
    let loss = |(row, target): (&Vec<f32>, &u32)| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        sum.ln() - f64::from(row[*target as usize])
    };
    let loss = (logits.iter().zip(&y).map(loss).sum::<f64>() / 4.0) as f32;
    let mut header = vec![0i32; 256];
    header[..4].copy_from_slice(&[20_240_327, 2, 1, 4]);
    let ints = header.into_iter().chain(x.iter().chain(&y).map(|id| *id as i32));
    let mut bytes: Vec<u8> = ints.flat_map(i32::to_le_bytes).collect();
    let floats = logits.concat().into_iter().chain([loss]);
    bytes.extend(floats.chain(tail.iter().copied()).flat_map(f32::to_le_bytes));
    fs::write(place.path().join("state.bin"), &bytes).unwrap();
    let (code, out, err) = actscope(place.path(), &["check", "state.bin", &model]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("h.2.mlp.c_proj.weight.grad") && out.contains("41 tensors: all within"), "{out}");
    let at = bytes.len() - 4 * 300;
    bytes[at + 3] ^= 0x40;
    fs::write(place.path().join("state.bin"), &bytes).unwrap();
    let (code, out, _) = actscope(place.path(), &["check", "state.bin", &model]);
    assert!(code == 1 && out.contains("the first that is off: h.2.mlp.c_proj"), "{out}");
    bytes.truncate(bytes.len() - 4);
    fs::write(place.path().join("state.bin"), &bytes).unwrap();
    let (_, _, err) = actscope(place.path(), &["check", "state.bin", &model]);
    assert!(err.contains("gradients are of another size"), "{err}");
}
