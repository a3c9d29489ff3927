//! What a hostile file may take: the program in little memory, and inputs that never end or never come.
#![cfg(unix)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Runs the program with so many MB of address space; `None` where `prlimit` is missing.
fn limited(megabytes: usize, args: &[&str]) -> Option<Output> {
    let mut command = Command::new("prlimit");
    // Each of glibc's arenas takes 64 MB of address space at once.
    command.env("MALLOC_ARENA_MAX", "1");
    command.arg(format!("--as={}", megabytes << 20)).arg(env!("CARGO_BIN_EXE_actscope")).args(args);
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: prlimit, of util-linux, cannot be run ({error})");
            None
        }
    }
}

/// A checkpoint like the fixture `tiny/{fixture}`, with one file in place of the fixture's.
fn model(fixture: &str, name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(fixture);
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join(name), bytes).unwrap();
    folder
}

/// In so many MB, the model is refused in one sentence with `word`.
fn assert_refused(megabytes: usize, model: &tempfile::TempDir, prompt: &[&str], word: &str) {
    let args = [&["tokens", "--model", model.path().to_str().unwrap()], prompt].concat();
    let Some(output) = limited(megabytes, &args) else { return };
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().filter(|line| !line.starts_with("actscope: note: ")).collect::<Vec<_>>();
    let [refusal] = last[..] else { panic!("{said}") };
    assert!(refusal.contains(word) && refusal.len() < 600, "{word}: {said}");
    assert_eq!(output.status.code(), Some(if word.contains("too long") { 2 } else { 1 }), "{said}");
}

fn checkpoint(pickle: &[u8]) -> tempfile::TempDir {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut zip = ZipWriter::new(&mut bytes);
    zip.start_file("m/data.pkl", SimpleFileOptions::default()).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap();
    model("pickle", "pytorch_model.bin", bytes.get_ref())
}

#[test]
fn a_pickle_takes_little_memory() {
    let slots = |n: u32| (0..n).flat_map(|slot| [&b"r"[..], &slot.to_le_bytes()].concat());
    for pickle in [
        b"]".repeat(16_000_000),
        b"(".repeat(16_000_000),
        b"(]".repeat(8_000_000),
        b"c\n\n".repeat(5_000_000),
        [b"]q\0".to_vec(), b"h\0".repeat(8_000_000)].concat(),
        b"]".iter().copied().chain(slots(3_000_000)).collect(),
        [b"}".to_vec(), b"(NNNNu".repeat(2_500_000)].concat(),
    ] {
        assert_refused(600, &checkpoint(&pickle), &["--token-ids", "1"], "more than any checkpoint");
    }
    let long = checkpoint(&vec![b']'; 60_000_000]);
    assert_refused(400, &long, &["--token-ids", "1"], "longer than any checkpoint's");
}

fn tokenizer(normalizer: &Value) -> tempfile::TempDir {
    let json = json!({
        "version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] },
    });
    model("plain", "tokenizer.json", json.to_string().as_bytes())
}

#[test]
fn a_tokenizer_takes_little_memory() {
    let replace =
        |n: usize| json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "a".repeat(n) });
    let chain = |n: usize| json!({ "type": "Sequence", "normalizers": vec![replace(2); n] });
    let prepend = json!({ "type": "Prepend", "prepend": "a".repeat(60_000_000) });
    assert_refused(600, &tokenizer(&prepend), &["a"], "60000001 times as long");
    assert_refused(400, &tokenizer(&chain(60)), &["a"], "times as long");
    assert_refused(400, &tokenizer(&replace(4000)), &[&"a".repeat(1000)], "too long to tokenize");
    let values = [&b"{\"x\":["[..], &b"0,".repeat(30_000_000), b"0]}"].concat();
    assert_refused(400, &model("plain", "tokenizer.json", &values), &["a"], "more than any");
    // At most what is let through.
    let Some(output) = limited(
        1500,
        &["tokens", "--model", tokenizer(&replace(2000)).path().to_str().unwrap(), &"a".repeat(1000)],
    ) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fifo(folder: &Path) -> PathBuf {
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fifo
}

fn actscope(args: &[&str], stdin: Stdio) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actscope"));
    let output = command.args(args).stdin(stdin).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), out, err)
}

#[test]
fn nothing_waits_for_a_fifo_that_nobody_writes_to() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = fifo(folder.path());
    let fifo = fifo.to_str().unwrap();
    for args in [&["tokens", "--prompt-file", fifo][..], &["top", "a", "--interventions", fifo]] {
        let (code, out, err) = actscope(args, Stdio::null());
        assert_eq!((code, out), (Some(1), String::new()), "{err}");
        assert_eq!(err, format!("actscope: {fifo}: cannot be read: nothing is writing to this pipe\n"));
    }
}

#[test]
fn what_never_ends_is_refused() {
    for args in [
        &["tokens", "--prompt-file", "/dev/zero"][..],
        &["tokens", "-"],
        &["top", "a", "--interventions", "/dev/zero"],
    ] {
        let (code, _, err) = actscope(args, Stdio::from(std::fs::File::open("/dev/zero").unwrap()));
        assert!(err.contains("is larger than 1.0 MB, the limit for its kind "), "{err}");
        assert_eq!((code, err.lines().count()), (Some(1), 1));
    }
}

#[test]
fn pipes_that_somebody_writes_to_are_read() {
    let program = env!("CARGO_BIN_EXE_actscope");
    let whole = actscope(&["tokens", "The old man", "--json"], Stdio::null()).1;
    for script in [
        "echo 'The old man' | \"$1\" tokens --json -",
        "(sleep 0.1; echo 'The old man') | \"$1\" tokens --json --prompt-file /dev/stdin",
        "\"$1\" tokens --json --prompt-file <(echo 'The old man')",
        "\"$1\" tokens --json --prompt-file <(sleep 0.1; echo 'The old man')",
    ] {
        let output = match Command::new("bash").args(["-c", script, "bash", program]).output() {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: bash cannot be run ({error})"),
        };
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), whole, "{script}: {err}");
    }
}
