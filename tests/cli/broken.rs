//! Models whose numbers are huge, zero or none.

use candle_core::{Device, Tensor};
use tempfile::TempDir;

use super::{actscope, checkpoint, fixtures};

/// The plain checkpoint with these of its weights multiplied.
fn times(wanted: &str, factor: f64) -> TempDir {
    let dir = checkpoint(&[]);
    let weights =
        candle_core::safetensors::load(fixtures().join("tiny/plain/model.safetensors"), &Device::Cpu);
    let times = |(name, tensor): (String, Tensor)| {
        let tensor = if name.contains(wanted) { (tensor * factor).unwrap() } else { tensor };
        (name, tensor)
    };
    let weights = weights.unwrap().into_iter().map(times).collect();
    candle_core::safetensors::save(&weights, dir.path().join("model.safetensors")).unwrap();
    dir
}

const IDS: &str = "--token-ids=5,17,96,0,42,17,5";

const CALLS: [&[&str]; 15] = [
    &["top", IDS],
    &["heads", IDS],
    &["lens", IDS],
    &["effects", IDS],
    &["patch", "--clean-ids=5,17,96", "--corrupt-ids=5,17,9", "--sweep=heads"],
    &["attribute", IDS, "--neurons=1"],
    &["attribute", IDS, "--ablate=head:0.1"],
    &["find", IDS],
    &["neighbours", "5"],
    &["neighbours", "3", "--of=wpe"],
    &["circuit", "0.1", "--directions=2"],
    &["circuit", "0.1", "--kind=qk"],
    &["neuron", "1.5"],
    &["walk", IDS],
    &["render", "resid_post.2", IDS, "--color=256"],
];

#[test]
fn numbers_are_short_in_what_every_subcommand_writes() {
    for (wanted, factor) in
        [("", 1e30), ("", 1e12), ("", 0.0), ("ln_f.weight", 1e30), ("ln_f.bias", f64::NAN)]
    {
        let dir = times(wanted, factor);
        let model = format!("--model={}", dir.path().display());
        for call in CALLS {
            let done = actscope().args(call).arg(&model).env("RUST_BACKTRACE", "1").output().unwrap();
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).replace(&*dir.path().to_string_lossy(), "");
            assert!(matches!(done.status.code(), Some(0..=2)), "{call:?}: {said}");
            assert!(!said.contains("panicked") && !said.contains("try --help"), "{call:?}: {said}");
            // Hashes have letters.
            let long = |word: &&str| word.len() > 14 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
            let words = said.split(|c: char| !c.is_alphanumeric() && c != '.');
            assert_eq!(words.into_iter().find(long), None, "{call:?} on {wanted}×{factor}:\n{said}");
            assert!(
                !said.contains("NaN %") && !said.contains(" -0.0000"),
                "{call:?} on {wanted}×{factor}:\n{said}"
            );
        }
    }
}
