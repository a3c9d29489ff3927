//! A weight file that somebody cuts or writes to while it is loaded ends in a sentence, never in a
//! signal.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A checkpoint of 128 MB whose weights are all zeros, a hole in the file.
fn checkpoint(directory: &Path) {
    let (layers, c, v, t) = (4, 768, 4000, 64);
    let config = format!(
        r#"{{"model_type":"gpt2","n_layer":{layers},"n_head":12,"n_embd":{c},"vocab_size":{v},"n_positions":{t}}}"#
    );
    fs::write(directory.join("config.json"), config).unwrap();
    let mut shapes = vec![("wte.weight".to_owned(), vec![v, c]), ("wpe.weight".to_owned(), vec![t, c])];
    for l in 0..layers {
        for (name, n_in, n_out) in [
            ("attn.c_attn", c, 3 * c),
            ("attn.c_proj", c, c),
            ("mlp.c_fc", c, 4 * c),
            ("mlp.c_proj", 4 * c, c),
        ] {
            shapes.push((format!("h.{l}.{name}.weight"), vec![n_in, n_out]));
            shapes.push((format!("h.{l}.{name}.bias"), vec![n_out]));
        }
    }
    let lns = (0..layers).flat_map(|l| [format!("h.{l}.ln_1"), format!("h.{l}.ln_2")]);
    for name in lns.chain(["ln_f".to_owned()]) {
        shapes.extend(["weight", "bias"].map(|kind| (format!("{name}.{kind}"), vec![c])));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let tensor = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert(name, tensor);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(directory.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// Loads the checkpoint while `harm` is done to its weights after `pause`; what was said, if not done.
fn loaded_while(pause: u64, harm: impl Fn(&File)) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    checkpoint(directory.path());
    let child = Command::new(env!("CARGO_BIN_EXE_actscope"))
        .args(["top", "--token-ids", "1,2,3", "--model"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(pause));
    harm(&OpenOptions::new().write(true).open(directory.path().join("model.safetensors")).unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => None,
        Some(1) => {
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("model.safetensors"), "{said}");
            Some(said)
        }
        other => panic!("{other:?}, {}: {said}", output.status),
    }
}

#[test]
fn a_weight_file_that_is_cut_while_it_is_loaded() {
    let outcomes: Vec<_> =
        (0..16).map(|i| loaded_while(5 * i, |file| file.set_len(1 << 20).unwrap())).collect();
    assert!(outcomes.iter().any(Option::is_some), "none was cut in time");
}

#[test]
fn a_weight_file_that_is_written_to_while_it_is_loaded() {
    for i in 0..4 {
        loaded_while(10 * i, |mut file| file.write_all(&[0]).unwrap());
    }
}
