//! What a system does to a process: signals, limits, pipes, links. The real binary, and what is in
//! the folder afterwards.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const OLD: &[u8] = b"what was there before";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// `script` in a shell, with the program as `$1` and what follows as the rest. Without core files.
fn shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -c 0; {script}"), "sh", env!("CARGO_BIN_EXE_actscope")]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["ACTSCOPE_LOG", "ACTSCOPE_LOG_FILE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    command
}

/// The program itself.
fn actscope(arguments: &[&str]) -> Command {
    shell("exec \"$@\"", arguments)
}

/// An export that takes a while: 6 MB.
fn export(to: &Path) -> Command {
    let prompt = "the old man and the sea ".repeat(4);
    actscope(&["export", &prompt, "-o", to.to_str().unwrap()])
}

/// What is in a folder, by name; links are not followed, and folders in it have a slash.
fn listing(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.insert(format!("{name}/"), Vec::new());
            found.extend(listing(&entry.path()).into_iter().map(|(of, what)| (format!("{name}/{of}"), what)));
        } else {
            found.insert(name, if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() });
        }
    }
    found
}

/// Size of the temporary file in a folder, or how many files there are in the temporary folder.
fn temporary(folder: &Path) -> Option<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".actscope-"));
    let path = ours.next()?.path();
    let found = fs::symlink_metadata(&path).ok()?;
    let size = if found.is_dir() { fs::read_dir(&path).ok()?.count() as u64 } else { found.len() };
    Some((path, size))
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn ended(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "the program does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Starts `command`, and holds it still once its temporary in `folder` has this size. Starts it anew
/// when it was faster. Gives the temporary as well.
fn frozen(command: &mut Command, folder: &Path, at_least: u64) -> (Child, PathBuf) {
    for _ in 0..200 {
        let mut child = command.spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if temporary(folder).is_none_or(|(_, size)| size < at_least) {
                continue;
            }
            kill(pid(&child), Signal::SIGSTOP).unwrap();
            // It stops a moment later.
            thread::sleep(Duration::from_millis(5));
            if let Some((path, _)) = temporary(folder) {
                return (child, path);
            }
            kill(pid(&child), Signal::SIGCONT).unwrap();
            ended(&mut child);
        }
        // A walk works elsewhere where its folder is there already.
        let _ = fs::remove_dir_all(folder.join("new"));
    }
    panic!("it is always faster");
}

fn release(child: &mut Child, signal: Signal) -> ExitStatus {
    kill(pid(child), signal).unwrap();
    kill(pid(child), Signal::SIGCONT).unwrap();
    ended(child)
}

/// What a call says that fails with `code`: one line.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let line = said.strip_prefix("actscope: ").and_then(|said| said.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(!line.contains('\n'), "more than a line: {said}");
    line.to_owned()
}

fn made_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

// Signals.

#[test]
fn a_signal_at_any_moment_of_an_export_leaves_the_old_file_and_nothing_else() {
    let whole = {
        let folder = folder();
        let path = folder.path().join("run.json");
        assert!(export(&path).status().unwrap().success());
        fs::read(path).unwrap()
    };
    let size = whole.len() as u64;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        let mut interrupted = 0;
        for tenth in 0..10 {
            let folder = folder();
            let path = folder.path().join("run.json");
            fs::write(&path, OLD).unwrap();
            let (mut child, _) = frozen(&mut export(&path), folder.path(), size * tenth / 10);
            let status = release(&mut child, signal);
            let found = listing(folder.path());
            assert_eq!(found.keys().collect::<Vec<_>>(), ["run.json"], "{signal} at {tenth}0%");
            // What is nearly done may be faster than the signal.
            if found["run.json"] == OLD {
                assert_eq!(status.signal(), Some(signal as i32), "{signal} at {tenth}0%");
                interrupted += 1;
            } else {
                assert!(found["run.json"] == whole, "{signal} at {tenth}0%: a part");
            }
        }
        assert!(interrupted > 0, "{signal}");
    }
}

/// All that end a process by default, once each.
#[test]
fn every_signal_that_can_be_caught_removes_what_was_begun() {
    let kept = [
        Signal::SIGKILL, // not to be caught
        Signal::SIGILL,  // these four say that the program is broken
        Signal::SIGFPE,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGPIPE, // ignored, as writing says it too
        Signal::SIGXFSZ, // likewise
        Signal::SIGCHLD, // these are ignored by default
        Signal::SIGURG,
        Signal::SIGWINCH,
        Signal::SIGCONT,
        Signal::SIGSTOP, // these stop
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ];
    for signal in Signal::iterator().filter(|signal| !kept.contains(signal)) {
        let by = |status: ExitStatus| status.signal().or(status.code().map(|code| code - 128));
        // Now and then it is faster than the signal.
        let interrupted = (0..20).any(|_| {
            let folder = folder();
            let path = folder.path().join("run.json");
            let (mut child, _) = frozen(&mut export(&path), folder.path(), 1);
            let status = release(&mut child, signal);
            let names: Vec<_> = listing(folder.path()).into_keys().collect();
            assert!(names.is_empty() || names == ["run.json"], "{signal}: {names:?}");
            names.is_empty() && by(status) == Some(signal as i32)
        });
        assert!(interrupted, "{signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_to_be_ignored_is() {
    let folder = folder();
    let path = folder.path().join("run.json");
    let mut command =
        shell("trap '' HUP; exec \"$@\"", &["export", "the old man", "-o", path.to_str().unwrap()]);
    let (mut child, _) = frozen(&mut command, folder.path(), 0);
    assert!(release(&mut child, Signal::SIGHUP).success());
    assert_eq!(listing(folder.path()).len(), 1);
}

#[test]
fn a_limit_on_files_is_a_sentence() {
    let folder = folder();
    let path = folder.path().join("run.json");
    fs::write(&path, OLD).unwrap();
    for tenth in 0..10 {
        // Blocks of 512 bytes, or twice that.
        let script = format!("ulimit -f {}; exec \"$@\"", tenth * 500);
        let arguments = ["export", "the old man and the sea", "-o", path.to_str().unwrap()];
        let output = shell(&script, &arguments).output().unwrap();
        if output.status.success() {
            assert!(tenth > 0, "nothing may be written");
            break;
        }
        let said = refused(&output, 1);
        assert!(said.contains("run.json") && said.contains("File too large"), "{said}");
        assert_eq!(listing(folder.path()), [("run.json".to_owned(), OLD.to_vec())].into());
    }
}

// What is left by a crash.

#[test]
fn what_a_crash_left_goes_with_the_next_write() {
    let folder = folder();
    let path = folder.path().join("run.json");
    let (mut child, left) = frozen(&mut export(&path), folder.path(), 1000);
    release(&mut child, Signal::SIGKILL);
    assert!(left.exists());
    let write = || {
        let other = folder.path().join("other.csv");
        let arguments = ["export", "a", "-o", other.to_str().unwrap(), "--hooks", "resid_post.0"];
        assert!(actscope(&arguments).status().unwrap().success());
    };
    write();
    assert!(left.exists(), "for all that is known it is being written");
    age(&left);
    write();
    assert_eq!(listing(folder.path()).into_keys().collect::<Vec<_>>(), ["other.csv"]);
}

fn age(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_mins(10);
    File::open(path).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn what_another_process_is_writing_stays() {
    let folder = folder();
    let path = folder.path().join("run.json");
    let (mut child, live) = frozen(&mut export(&path), folder.path(), 1000);
    age(&live);
    let other = folder.path().join("other.csv");
    let arguments = ["export", "a", "-o", other.to_str().unwrap(), "--hooks", "resid_post.0"];
    assert!(actscope(&arguments).status().unwrap().success());
    assert!(live.exists());
    assert!(release(&mut child, Signal::SIGCONT).success());
    assert_eq!(listing(folder.path()).into_keys().collect::<Vec<_>>(), ["other.csv", "run.json"]);
}

// A walk is all there or not at all.

fn walk(to: &Path) -> [String; 4] {
    ["walk", "the old man", "-o", to.to_str().unwrap()].map(Into::into)
}

fn walked(to: &Path) -> BTreeMap<String, Vec<u8>> {
    assert!(actscope(&walk(to).each_ref().map(String::as_str)).status().unwrap().success());
    listing(to)
}

/// Every limit between nothing and enough for the largest file; in blocks of 512 bytes, or twice that.
#[test]
fn a_walk_that_cannot_be_written_whole_changes_nothing() {
    let folder = folder();
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    walked(&old);
    fs::write(old.join("mine"), OLD).unwrap();
    for (name, _) in listing(&old) {
        fs::write(old.join(name), OLD).unwrap();
    }
    let before = listing(folder.path());
    for blocks in [0, 10, 20, 30] {
        for to in [&new, &old] {
            let script = format!("ulimit -f {blocks}; exec \"$@\"");
            let output = shell(&script, &walk(to).each_ref().map(String::as_str)).output().unwrap();
            let said = refused(&output, 1);
            assert!(said.contains(to.to_str().unwrap()) && !said.contains(".actscope"), "{said}");
            assert!(said.contains("File too large"), "{said}");
            assert!(listing(folder.path()) == before, "{blocks} blocks, {}", to.display());
        }
    }
    let mut all = walked(&old);
    assert_eq!(all.remove("mine").unwrap(), OLD, "what is no file of a walk stays");
    assert!(all == walked(&new), "the same files either way");
}

#[test]
fn a_signal_in_a_walk_leaves_no_folder() {
    let folder = folder();
    let new = folder.path().join("new");
    let command = || actscope(&walk(&new).each_ref().map(String::as_str));
    walked(&new);
    let whole = listing(folder.path()).len();
    fs::remove_dir_all(&new).unwrap();
    for files in [0, 3, 10] {
        let (mut child, _) = frozen(&mut command(), folder.path(), files);
        release(&mut child, Signal::SIGTERM);
        let found = listing(folder.path());
        // It may have been faster; then all is there.
        assert!(found.is_empty() || found.len() == whole, "{:?}", found.keys());
        if new.exists() {
            fs::remove_dir_all(&new).unwrap();
        }
    }
}

#[test]
fn a_folder_that_a_crash_left_goes_with_the_next_walk() {
    let folder = folder();
    let new = folder.path().join("new");
    let (mut child, left) =
        frozen(&mut actscope(&walk(&new).each_ref().map(String::as_str)), folder.path(), 2);
    release(&mut child, Signal::SIGKILL);
    if left.is_dir() {
        age(&left);
    }
    walked(&new);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

// Links.

#[test]
fn a_link_to_nothing_is_followed_as_any_other() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    symlink("deep/second", at("first.csv")).unwrap();
    symlink("er/file.csv", at("deep/second")).unwrap();
    symlink(at("deep/note"), at("walk")).unwrap();
    symlink("nowhere/file.csv", at("lost.csv")).unwrap();
    symlink("round.csv", at("round.csv")).unwrap();
    let export = |name: &str| {
        let path = at(name);
        let arguments = ["export", "a", "--hooks", "resid_post.0", "-o", path.to_str().unwrap()];
        actscope(&arguments).output().unwrap()
    };
    for _ in 0..2 {
        assert!(export("first.csv").status.success());
        assert!(at("first.csv").is_symlink() && at("deep/second").is_symlink());
        assert!(fs::symlink_metadata(at("deep/er/file.csv")).unwrap().is_file());
        walked(&at("walk"));
        assert!(at("walk").is_symlink() && at("deep/note/walk.md").is_file());
    }
    let said = refused(&export("lost.csv"), 1);
    assert!(said.contains("lost.csv") && said.contains("nowhere; create it first"), "{said}");
    let said = refused(&export("round.csv"), 1);
    assert!(said.contains("round.csv") && said.contains("cannot be written"), "{said}");
    assert!(at("lost.csv").is_symlink() && at("round.csv").is_symlink());
    assert!(!listing(folder.path()).keys().any(|name| name.contains(".actscope")));
}

// Pipes and devices.

#[test]
fn a_pipe_that_nobody_reads_is_said_at_once() {
    let folder = folder();
    let pipe = folder.path().join("pipe.csv");
    made_fifo(&pipe);
    let arguments = ["export", "a", "--hooks", "resid_post.0", "-o", pipe.to_str().unwrap()];
    let said = refused(&actscope(&arguments).output().unwrap(), 1);
    assert!(
        said.contains("pipe.csv is a pipe without a reader") || said.contains("is a pipe without a reader")
    );
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

/// More than a pipe holds: writing waits for the reader.
#[test]
fn a_pipe_with_a_slow_reader_gets_all() {
    let folder = folder();
    let (pipe, file) = (folder.path().join("pipe.json"), folder.path().join("file.json"));
    made_fifo(&pipe);
    let command = |to: &Path| actscope(&["export", "the old man", "-o", to.to_str().unwrap()]);
    assert!(command(&file).status().unwrap().success());
    let mut reader = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
    let mut child = command(&pipe).spawn().unwrap();
    let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 14]);
    loop {
        let over = child.try_wait().unwrap();
        match reader.read(&mut buffer) {
            Ok(0) if over.is_some() => break,
            Ok(0) => thread::sleep(Duration::from_millis(1)),
            Ok(n) => read.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(e) => panic!("{e}"),
        }
    }
    assert!(ended(&mut child).success());
    assert!(read == fs::read(&file).unwrap(), "{} bytes", read.len());
}

#[test]
fn descriptors_and_devices_can_be_named() {
    let arguments = ["export", "a", "--hooks", "resid_post.0", "--format", "csv", "-o"];
    let plain = actscope(&[&arguments[..], &["-"]].concat()).output().unwrap().stdout;
    assert!(plain.len() > 100);
    for (script, name) in [
        ("exec \"$@\"", "/dev/stdout"),
        ("exec \"$@\"", "/dev/fd/1"),
        ("exec \"$@\" 3>&1 | cat", "/dev/fd/1"),
        ("{ \"$@\" 3>&1 >&2; } ", "/dev/fd/3"),
    ] {
        let output = shell(script, &[&arguments[..], &[name]].concat()).output().unwrap();
        assert!(output.stdout == plain, "{script} {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let folder = folder();
    let file = folder.path().join("file");
    let script = format!("exec \"$@\" > '{}'", file.display());
    assert!(shell(&script, &[&arguments[..], &["/dev/stdout"]].concat()).status().unwrap().success());
    assert!(fs::read(file).unwrap() == plain);
    assert!(actscope(&[&arguments[..], &["/dev/null"]].concat()).status().unwrap().success());
}

#[test]
fn a_log_goes_to_a_file() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    made_fifo(&pipe);
    let with = |log: &Path| {
        let mut command = actscope(&["tokens", "a"]);
        command.env("ACTSCOPE_LOG", "info").env("ACTSCOPE_LOG_FILE", log).output().unwrap()
    };
    for no_file in [&pipe, folder.path()] {
        let said = refused(&with(no_file), 1);
        assert!(said.contains("cannot write the log: not a regular file"), "{said}");
    }
    assert!(with(Path::new("/dev/null")).status.success());
    let log = folder.path().join("log");
    assert!(with(&log).status.success());
    assert!(fs::read_to_string(log).unwrap().contains("started"));
}

// Threads.

#[test]
fn a_number_of_threads_that_is_none_is_refused() {
    let with = |n: &str| actscope(&["top", "a"]).env("RAYON_NUM_THREADS", n).output().unwrap();
    for n in ["4096", "many", "-1"] {
        let said = refused(&with(n), 2);
        assert!(said.contains(&format!("RAYON_NUM_THREADS is `{n}`")), "{said}");
    }
    for n in ["", "0", "1", "3"] {
        assert!(with(n).status.success(), "{n}");
    }
}

/// As a user who may have so many processes and threads; root may have any number.
#[cfg(target_os = "linux")]
fn as_nobody(limit: u32, arguments: &[&str]) -> Option<Command> {
    let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !has("prlimit") || !has("setpriv") {
        eprintln!("skipped: needs root, prlimit and setpriv");
        return None;
    }
    // Nobody else's processes count.
    let user = 100_000 + std::process::id();
    let script = format!("exec prlimit --nproc={limit} setpriv --reuid={user} --clear-groups \"$@\"");
    Some(shell(&script, arguments))
}

#[cfg(target_os = "linux")]
#[test]
fn no_more_threads_is_a_sentence() {
    for limit in 1..8 {
        let Some(mut command) = as_nobody(limit, &["top", "a"]) else { return };
        let said = refused(&command.env("RAYON_NUM_THREADS", "20").output().unwrap(), 1);
        assert!(said.contains("the system has no more threads"), "{said}");
    }
}
