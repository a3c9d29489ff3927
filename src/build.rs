//! Which commit a release is built from, for `--version`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let mut commit = None;
    // While working, every commit would compile everything anew.
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
        commit = of_git().or_else(of_package);
    }
    println!("cargo::rustc-env=ACTSCOPE_COMMIT={}", commit.unwrap_or_else(|| "a working copy".into()));
}

fn of_git() -> Option<String> {
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
