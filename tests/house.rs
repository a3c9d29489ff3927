//! What the source has to keep to, so that one idea stays in one place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer: what is, is two things.
const LONGEST: usize = 700;

/// Every source file, its path from `src` on, and its text.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<(String, String)> = Vec::new();
    let mut folders: Vec<PathBuf> = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 100, "the sources are there");
    files
}

#[test]
fn no_file_is_too_long() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{name} has {lines} lines, more than {LONGEST}");
    }
}

/// Tests write into folders of their own.
#[test]
fn the_demo_model_is_all_that_is_in_its_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["MODEL_CARD.md", "config.json", "model.safetensors", "tokenizer.json"]);
}

#[test]
fn hooks_and_pictures_know_no_model() {
    for (name, text) in sources() {
        for (floor, above) in [
            ("config.rs", &["crate::model", "crate::hooks"][..]),
            ("hooks/", &["crate::model", "crate::run", "crate::analysis"]),
            ("picture/", &["crate::model", "crate::run", "crate::analysis"]),
        ] {
            for above in above.iter().filter(|_| name.starts_with(floor)) {
                assert!(!text.contains(above), "{name} names {above}");
            }
        }
    }
}

/// What differs from screen to screen is the screen's own.
#[test]
fn only_the_table_of_screens_tells_screens_apart() {
    for (name, text) in sources().iter().filter(|(name, _)| !name.starts_with("tui/screens/")) {
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let arm = code.split_once("=>").is_some_and(|(pattern, _)| pattern.contains("Screen::"));
            let compared =
                ["== Screen::", "!= Screen::", "matches!(app.screen"].iter().any(|test| code.contains(test));
            assert!(!arm && !compared, "{name}:{}: {line}", i + 1);
        }
    }
}

/// Whoever uses the library alone gets no command line, terminal, renderer or network.
#[test]
fn without_features_the_library_is_small() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--no-default-features", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{said}");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"candle-core"), "{tree}");
    for unwanted in ["clap", "ratatui", "crossterm", "resvg", "hf-hub", "reqwest", "tokio"] {
        assert!(!crates.contains(&unwanted), "{unwanted} is there without a feature");
    }
}
