//! Which commit a release is built from, for `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let mut commit = None;
    // While working, every commit would compile everything anew.
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
        commit = of_package().or_else(of_git);
    }
    println!("cargo::rustc-env=ACTSCOPE_COMMIT={}", commit.unwrap_or_else(|| "a working copy".into()));
}

fn of_git() -> Option<String> {
    // Git would look into the folders above as well.
    if !Path::new(".git").exists() {
        return None;
    }
    let said = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?.trim().to_owned();
    (said.status.success() && !commit.is_empty()).then(|| format!("commit {commit}"))
}

/// What cargo writes into a package.
fn of_package() -> Option<String> {
    let info = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = info.split_once("\"sha1\": \"")?;
    Some(format!("commit {}", rest.get(..10)?))
}
