//! Names, prompts and files that mean harm: whatever they hold, nothing that a terminal, a browser
//! or a shell would obey gets through, and nothing that only informs fails the work.
#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actscope::interventions::{Change, Intervention};
use actscope::tui::app::Screen;
use actscope::tui::headless::Headless;
use actscope::tui::update::{Message, update};
use actscope::{Input, Interventions, Model};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode};
use serde_json::Value;
use tempfile::TempDir;

/// What a file may be called, and a terminal, a page and a shell would obey: the clipboard, C1, a
/// forged line, the other direction, an element, code, a command.
const HOSTILE: &str = "\u{1b}]52;c;aGk=\u{7}\u{9b}2J\u{9d}0;t\u{9c}\r\nactscope: forged\u{202e}\u{2066}\u{2028}\u{7f}\t\
                       <script>alert(1)<img src=x onerror=y>`` | **b** [l](x) '\"$(touch forged)\\";
const TAME: &str = "tame";
const PROMPT: &str = "The old man";

/// Whether a terminal, or what lays out lines, obeys it.
fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder to work in, with the demo model under two names.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in [HOSTILE, TAME] {
        // Folders of its own, since options that name a folder write into it.
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::os::unix::fs::symlink(root().join("assets/demo").join(file), folder.join(file)).unwrap();
        }
    }
    // A corpus, and what was made of it.
    fs::write(place.path().join("docs.txt"), HOSTILE).unwrap();
    let corpus = ["corpus run", "docs.txt", "--output=done", "--hooks=post.0"];
    assert!(actscope(place.path(), corpus).status().unwrap().success());
    // A run of its own.
    let export = ["export", PROMPT, "--output=mine.safetensors", "--hooks=resid_post.3"];
    assert!(actscope(place.path(), export).status().unwrap().success());
    place
}

/// The binary in an environment of its own, in `place`.
fn actscope<A: AsRef<OsStr>>(place: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actscope"));
    for name in ["ACTSCOPE_LOG", "ACTSCOPE_LOG_FILE", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", place.join("no-cache")).env("HF_HUB_OFFLINE", "1");
    command.current_dir(place).stdin(Stdio::null());
    for arg in args {
        match arg.as_ref().to_str().and_then(|name| name.strip_prefix("corpus ")) {
            Some(subcommand) => command.args(["corpus", subcommand]),
            None => command.arg(arg),
        };
    }
    command
}

/// What a call writes, and that nothing in it is obeyed.
#[track_caller]
fn harmless(mut command: Command) -> Output {
    let done = command.output().unwrap();
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let what = format!("{words:?}");
    assert_harmless(&what, &done.stdout);
    assert_harmless(&what, &done.stderr);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.lines().all(|line| line.starts_with("actscope: ")), "{what}: {said}");
    assert!(said.lines().all(|line| line.chars().count() < 600), "{what}: {said}");
    assert!(matches!(done.status.code(), Some(0..=2)), "{what}: {} {said}", done.status);
    done
}

#[track_caller]
fn assert_harmless(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
    let at = text.find(|c| obeyed(c) && c != '\n' && c != '\t');
    if let Some(at) = at {
        let start = text[..at].char_indices().nth_back(80).map_or(0, |(start, _)| start);
        panic!("{what}: {:?}", text[start..].chars().take(120).collect::<String>());
    }
    assert!(
        !text.lines().any(|line| line.starts_with("actscope: forged")),
        "{what}: a forged line in {text}"
    );
}

/// Without the codes for colours.
fn without_colors(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').strip_prefix('m') {
            Some(rest) => out += rest,
            None => out.extend(["\u{1b}[", part]),
        }
    }
    out
}

/// What each subcommand needs to get to its work; options are tied to their values.
const CALLS: [(&str, &[&str]); 30] = [
    ("tokens", &[PROMPT]),
    ("info", &[]),
    ("hooks", &[]),
    ("top", &[PROMPT]),
    ("heads", &[PROMPT]),
    ("lens", &[PROMPT]),
    ("features", &[PROMPT]),
    ("effects", &[PROMPT]),
    ("patch", &["--clean=A cat", "--corrupt=A dog", "--sweep=heads"]),
    ("attribute", &[PROMPT]),
    ("gradients", &[PROMPT]),
    ("inputs", &[PROMPT]),
    ("edges", &["--clean=A cat", "--corrupt=A dog", "--token= the"]),
    ("find", &[PROMPT]),
    ("neighbours", &[" the"]),
    ("circuit", &["1.5"]),
    ("neuron", &["1.5"]),
    ("walk", &[PROMPT]),
    ("export", &[PROMPT, "--output=-", "--hooks=resid_post.3"]),
    ("check", &["mine.safetensors"]),
    ("render", &["resid_post.3", PROMPT]),
    ("report", &[PROMPT, "--output=-"]),
    ("corpus run", &["docs.txt", "--output=run", "--hooks=post.0"]),
    ("corpus merge", &["done", "--output=merged"]),
    ("corpus status", &["done"]),
    ("corpus show", &["neuron:0.1", "--atlas=done"]),
    ("bench", &["--tokens=4", "--runs=1"]),
    ("config", &[]),
    ("completions", &["bash"]),
    ("man", &[]),
];

fn help(place: &Path, subcommand: &str) -> String {
    let done = harmless(actscope(place, [subcommand, "--help"]));
    String::from_utf8(done.stdout).unwrap()
}

/// The options of a subcommand that take a value, `--name`, as its help lists them.
fn options(help: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let mut words = line.trim_start().strip_prefix('-').map(|_| line.split_whitespace())?;
        let option = words.find(|word| word.starts_with("--"))?;
        words.next().filter(|value| value.starts_with('<')).map(|_| option.to_owned())
    };
    help.lines().filter_map(of_line).collect()
}

#[test]
fn the_calls_are_those_of_every_subcommand() {
    let place = place();
    let done = harmless(actscope(place.path(), ["--help"]));
    let help = String::from_utf8(done.stdout).unwrap();
    let listed = help.split_once("Commands:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
    let listed = listed.map(|line| line.split_whitespace().next().unwrap());
    // One needs a terminal.
    let listed: Vec<_> = listed.filter(|name| *name != "open").collect();
    let mut called: Vec<_> = CALLS.iter().filter_map(|(name, _)| name.split(' ').next()).collect();
    called.dedup();
    called.push("help");
    assert_eq!(called, listed, "a new subcommand needs a call here");
    for (name, args) in CALLS {
        let done = harmless(actscope(place.path(), [&[name], args].concat()));
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn no_subcommand_passes_on_what_the_name_of_its_model_holds() {
    let place = place();
    for (name, args) in CALLS {
        let json = help(place.path(), name).contains(" --json");
        let model = format!("--model=./{HOSTILE}");
        let call = [&[name], args, &[&model]].concat();
        let done = harmless(actscope(place.path(), &call));
        let models =
            !["features", "config", "completions", "man", "corpus merge", "corpus status", "corpus show"]
                .contains(&name);
        assert_eq!(done.status.success(), models, "{name}: {}", String::from_utf8_lossy(&done.stderr));
        if json {
            let call = if models { call } else { [&[name], args].concat() };
            let done = harmless(actscope(place.path(), [&call[..], &["--json"]].concat()));
            serde_json::from_slice::<Value>(&done.stdout).unwrap();
        }
        for missing in [HOSTILE, &format!("{HOSTILE}/model"), &format!("./no/{HOSTILE}"), &HOSTILE.repeat(20)]
        {
            let model = format!("--model={missing}");
            if missing != HOSTILE {
                let done = harmless(actscope(place.path(), [&[name], args, &[&model]].concat()));
                assert!(!done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
            }
        }
    }
}

#[test]
fn no_subcommand_passes_on_what_its_options_hold() {
    let place = place();
    let mut tried = 0;
    for (name, args) in CALLS {
        for option in options(&help(place.path(), name)) {
            let tied = format!("{option}=");
            let args: Vec<_> = args.iter().copied().filter(|arg| !arg.starts_with(&tied)).collect();
            for value in [HOSTILE, &format!(" {}\n\nUsage: forged", HOSTILE.repeat(20))] {
                harmless(actscope(place.path(), [&[name], &args[..], &[&format!("{tied}{value}")]].concat()));
                tried += 1;
            }
        }
        // As what is run, as an option, and as one more.
        for more in [HOSTILE, &format!("--{HOSTILE}"), &format!("-{HOSTILE}")] {
            harmless(actscope(place.path(), [&[name], args, &[more]].concat()));
            harmless(actscope(place.path(), [name, more]));
        }
    }
    assert!(tried > 300, "{tried} options were found");
    for args in
        [&[HOSTILE][..], &["--prompt-file", HOSTILE], &["--interventions", HOSTILE], &["help", HOSTILE]]
    {
        assert!(!harmless(actscope(place.path(), args)).status.success());
    }
}

#[test]
fn prompts_are_seen_and_not_obeyed() {
    let place = place();
    fs::write(place.path().join("prompt"), HOSTILE).unwrap();
    for (name, args) in CALLS {
        for arg in [PROMPT, "--clean=A cat"] {
            if !args.contains(&arg) {
                continue;
            }
            let with = |prompt: &str| {
                let put = |old: &&str| match old.split_once('=') {
                    // Of equal length.
                    Some(("--corrupt", _)) if name == "edges" => format!("--corrupt={prompt}"),
                    _ if *old != arg => (*old).to_owned(),
                    Some((option, _)) => format!("{option}={prompt}"),
                    None => prompt.to_owned(),
                };
                let args: Vec<_> = args.iter().map(put).collect();
                let last = (name == "patch").then(|| "--last".to_owned());
                std::iter::once(name.to_owned()).chain(args).chain(last).collect::<Vec<_>>()
            };
            let done = harmless(actscope(place.path(), with(HOSTILE)));
            assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
            if arg == PROMPT {
                harmless(actscope(place.path(), with("--prompt-file=prompt")));
            }
            if help(place.path(), name).contains(" --json") {
                let done = harmless(actscope(place.path(), [with(HOSTILE), vec!["--json".into()]].concat()));
                serde_json::from_slice::<Value>(&done.stdout).unwrap();
            }
        }
    }
}

/// A list of changes, one of them under such a name.
fn changes() -> Interventions {
    let change: Change = "mean head:1.5".parse().unwrap();
    Interventions(vec![Intervention { change, on: true, name: Some(HOSTILE.into()) }])
}

#[test]
fn files_of_changes_and_what_is_wrong_with_them() {
    let place = place();
    let file = place.path().join(HOSTILE.replace("]52", "") + ".json");
    let file = file.to_str().unwrap();
    let call = |file: &str, subcommand: &str, more: &[&str]| {
        let option = format!("--interventions={file}");
        harmless(actscope(place.path(), [&[subcommand, PROMPT, &option][..], more].concat()))
    };
    fs::write(file, changes().to_json()).unwrap();
    assert_harmless("changes", &fs::read(file).unwrap());
    assert_eq!(Interventions::from_json(&fs::read_to_string(file).unwrap()).unwrap(), changes());
    for (subcommand, more) in [
        ("walk", &[][..]),
        ("attribute", &[]),
        ("attribute", &["--json"]),
        ("export", &["--output=-", "--hooks=resid_post.3"]),
    ] {
        assert!(call(file, subcommand, more).status.success(), "{subcommand}");
    }
    let done = harmless(actscope(
        place.path(),
        ["render", "resid_post.3", PROMPT, &format!("--interventions={file}"), "--width=300"],
    ));
    assert!(String::from_utf8_lossy(&done.stdout).contains("⟨1b⟩]52"));
    for (wrong, said) in [
        (HOSTILE.to_owned(), "not a list"),
        (serde_json::json!([{ "change": HOSTILE }]).to_string(), "⟨1b⟩]52"),
        (serde_json::json!([{ "change": format!("zero {HOSTILE}") }]).to_string(), "⟨1b⟩]52"),
        (serde_json::json!([{ HOSTILE: 1 }]).to_string(), "not a list"),
    ] {
        fs::write(file, &wrong).unwrap();
        fs::write(place.path().join("wrong"), wrong).unwrap();
        call(file, "top", &[]);
        let said_of_it = String::from_utf8(call("wrong", "top", &[]).stderr).unwrap();
        assert!(said_of_it.contains(said), "{said_of_it}");
    }
}

#[test]
fn checkpoints_whose_files_say_such_things() {
    let place = place();
    let tiny = root().join("tests/fixtures/tiny/plain");
    let model = place.path().join("checkpoint");
    fs::create_dir(&model).unwrap();
    let mut said = Vec::new();
    let mut load_for = |prompt: &str, code: i32| {
        let done = harmless(actscope(place.path(), ["top", prompt, "--model=./checkpoint"]));
        assert_eq!(done.status.code(), Some(code));
        said.push(String::from_utf8(done.stderr).unwrap());
    };
    let config = fs::read_to_string(tiny.join("config.json")).unwrap();
    let with = |field: &str, value: Value| {
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config[field] = value;
        config.to_string()
    };
    // The configuration.
    let put = |name: &str, text: &[u8]| fs::write(model.join(name), text).unwrap();
    put("config.json", HOSTILE.as_bytes());
    load_for("--token-ids=1", 1);
    for (field, value) in [("model_type", HOSTILE.into()), ("activation_function", HOSTILE.repeat(50).into())]
    {
        put("config.json", with(field, value).as_bytes());
        load_for("--token-ids=1", 1);
    }
    put("config.json", config.as_bytes());
    // Shards: none, no safetensors, tensors of such names.
    let index = |shard: &str| serde_json::json!({ "weight_map": { HOSTILE: shard } }).to_string();
    for shard in [HOSTILE.to_owned(), HOSTILE.repeat(20), format!("../{HOSTILE}"), String::new()] {
        put("model.safetensors.index.json", index(&shard).as_bytes());
        load_for("--token-ids=1", 1);
    }
    put("model.safetensors.index.json", index(HOSTILE).as_bytes());
    put(HOSTILE, HOSTILE.as_bytes());
    load_for("--token-ids=1", 1);
    let header = serde_json::json!({ HOSTILE: { "dtype": "F32", "shape": [1], "data_offsets": [0, 4] } });
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    put(HOSTILE, &bytes);
    load_for("--token-ids=1", 1);
    fs::remove_file(model.join("model.safetensors.index.json")).unwrap();
    put("pytorch_model.bin", HOSTILE.as_bytes());
    load_for("--token-ids=1", 1);
    fs::copy(tiny.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    for tokenizer in [
        HOSTILE.to_owned(),
        serde_json::json!({ "model": { "type": HOSTILE } }).to_string(),
        serde_json::json!({ "model": { "type": "BPE", "vocab": { HOSTILE: -1 }, "merges": [] } }).to_string(),
        serde_json::json!({ "model": { "type": "BPE", "vocab": {}, "merges": [HOSTILE] } }).to_string(),
    ] {
        put("tokenizer.json", tokenizer.as_bytes());
        load_for("--token-ids=1", 0);
        load_for("text", 1);
    }
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    put("vocab.txt", format!("{HOSTILE}\nb\n").as_bytes());
    put("added_tokens.json", serde_json::json!({ HOSTILE: 2 }).to_string().as_bytes());
    load_for(HOSTILE, 0);
    put("tokenizer_config.json", HOSTILE.as_bytes());
    load_for("b", 1);
    assert!(said.iter().any(|said| said.contains("⟨1b⟩")), "{said:#?}");
}

#[test]
fn files_under_such_names_hold_nothing_that_is_obeyed() {
    let place = place();
    let model = format!("--model=./{HOSTILE}");
    let changed = place.path().join("changes");
    fs::write(&changed, changes().to_json()).unwrap();
    let call = |args: &[&str]| {
        let done = harmless(actscope(place.path(), [args, &["--interventions=changes", &model]].concat()));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stderr).unwrap()
    };
    let read = |name: &str| fs::read(place.path().join(name)).unwrap();
    for ending in ["json", "csv", "safetensors", "npz", "npy"] {
        let name = format!("{HOSTILE}.{ending}");
        let said = call(&["export", HOSTILE, "--hooks=resid_post.3", "-o", &name]);
        assert!(
            said.starts_with("actscope: 1 tensor, ") && said.ends_with(&format!(".{ending}\n")),
            "{said}"
        );
        if ["json", "csv"].contains(&ending) {
            assert_harmless(ending, &read(&name));
        }
    }
    let written: Value = serde_json::from_slice(&read(&format!("{HOSTILE}.json"))).unwrap();
    assert_eq!(written["manifest"]["model"], format!("./{HOSTILE}"));
    assert_eq!(written["manifest"]["prompt"], HOSTILE);
    assert_eq!(written["manifest"]["interventions"][0]["name"], HOSTILE);
    let header = read(&format!("{HOSTILE}.safetensors"));
    let n = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
    assert_harmless("the header of .safetensors", &header[8..8 + n]);

    let name = format!("{HOSTILE}.svg");
    call(&["render", "resid_post.3", HOSTILE, "-o", &name]);
    assert_harmless("svg", &read(&name));
    assert_elements(std::str::from_utf8(&read(&name)).unwrap());
    call(&["render", "resid_post.3", HOSTILE, "-o", &format!("{HOSTILE}.png")]);

    // No UTF-8 either.
    let name = OsStr::from_bytes(b"\x9b2J\xff.json");
    let done = harmless(actscope(
        place.path(),
        [OsStr::new("export"), OsStr::new("a"), OsStr::new("--hooks=resid_post.3"), OsStr::new("-o"), name],
    ));
    assert!(done.status.success());
}

/// The elements of an XML document, and that none of them does anything.
fn assert_elements(xml: &str) -> Vec<String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(xml, options).unwrap();
    let elements = document.descendants().filter(roxmltree::Node::is_element);
    let names: Vec<_> = elements.map(|node| node.tag_name().name().to_owned()).collect();
    assert!(!names.iter().any(|name| ["script", "iframe", "object"].contains(&name.as_str())));
    names
}

#[test]
fn a_walk_under_such_a_name_is_what_it_is_under_a_tame_one() {
    let place = place();
    fs::write(place.path().join("changes"), changes().to_json()).unwrap();
    let [hostile, tame] = [HOSTILE, TAME].map(|name| {
        let walk = |output: &str| {
            let model = format!("--model=./{name}");
            let args = ["walk", HOSTILE, "--bos", "--interventions=changes", &model, "-o", output];
            let done = harmless(actscope(place.path(), args));
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let (page, note) = (format!("{name}.html"), format!("{name} note"));
        walk(&page);
        walk(&note);
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            assert_harmless(&path.to_string_lossy(), text.as_bytes());
            text
        };
        let mut files: Vec<_> =
            fs::read_dir(place.path().join(&note)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let mut figures = Vec::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "svg")) {
            figures.push(assert_elements(&read(file.clone())));
        }
        let markdown = read(place.path().join(&note).join("walk.md"));
        (assert_elements(&read(place.path().join(page))), figures, markdown)
    });
    assert_eq!(hostile.0, tame.0, "elements of the page");
    assert_eq!(hostile.1.len(), tame.1.len());
    let (hostile, tame): (Vec<_>, Vec<_>) = (hostile.2.lines().collect(), tame.2.lines().collect());
    assert_eq!(hostile.len(), tame.len(), "lines of the note");
    let differ: Vec<_> = hostile.iter().zip(&tame).filter(|(a, b)| a != b).map(|(a, _)| *a).collect();
    let [title, model, again] = differ[..] else { panic!("{differ:#?}") };
    assert!(
        title.starts_with("# ") && !title.replace("\\<", "").replace("\\[", "").contains(['<', '[']),
        "{title}"
    );
    assert!(model.starts_with("| model | ```./⟨1b⟩]52") && model.ends_with("``` |"), "{model}");
    let command = again.strip_prefix("    ").unwrap();
    let shown = words_of_a_shell(place.path(), command);
    assert_eq!(shown[..2], ["walk".to_owned(), format!("--model=./{HOSTILE}")]);
    assert!(!place.path().join("forged").exists());
}

/// What a shell that knows `$'…'` makes of a command.
fn words_of_a_shell(place: &Path, command: &str) -> Vec<String> {
    let script = "actscope() { printf '%s\\0' \"$@\"; }; eval \"$1\"";
    let done = Command::new("bash").args(["-c", script, "-", command]).current_dir(place).output().unwrap();
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    let words = String::from_utf8(done.stdout).unwrap();
    words.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn colours_pass_and_nothing_else() {
    let place = place();
    let model = format!("--model=./{HOSTILE}");
    for args in [&["walk", HOSTILE][..], &["render", "resid_post.3", HOSTILE], &["render", "lens", HOSTILE]] {
        for color in ["truecolor", "256"] {
            let color = format!("--color={color}");
            let done = actscope(place.path(), [args, &[&model, &color]].concat()).output().unwrap();
            let text = String::from_utf8(done.stdout).unwrap();
            let plain = without_colors(&text);
            assert!(done.status.success() && plain.len() < text.len());
            assert_harmless("colours", plain.as_bytes());
        }
    }
}

#[test]
fn what_the_environment_says_is_not_obeyed() {
    let place = place();
    let no = format!("no/{HOSTILE}");
    for (name, value) in [
        ("ACTSCOPE_LOG", HOSTILE),
        ("ACTSCOPE_LOG", "debug"),
        ("HF_HOME", HOSTILE),
        ("HF_ENDPOINT", HOSTILE),
        ("HF_TOKEN", HOSTILE),
    ] {
        let mut command = actscope(place.path(), ["top", "a", "--model=owner/name"]);
        command.env("ACTSCOPE_LOG_FILE", &no).env(name, value);
        assert!(!harmless(command).status.success(), "{name}");
    }
    let mut command = actscope(place.path(), ["--help"]);
    std::os::unix::process::CommandExt::arg0(&mut command, HOSTILE);
    assert!(harmless(command).status.success());
}

#[test]
fn a_log_has_a_line_for_each_event() {
    let place = place();
    let mut command = actscope(place.path(), ["top", HOSTILE, &format!("--model=./{HOSTILE}")]);
    command.env("ACTSCOPE_LOG", "info").env("ACTSCOPE_LOG_FILE", "log");
    assert!(harmless(command).status.success());
    let log = fs::read(place.path().join("log")).unwrap();
    assert_harmless("log", &log);
    assert_eq!(String::from_utf8(log).unwrap().lines().filter(|line| line.contains(" INFO ")).count(), 2);
}

// What only informs.

/// Ways for standard error to be of no use.
fn unheard(command: &Command) -> Vec<(&'static str, Command)> {
    let again = |shell: &str| {
        let mut unheard = Command::new("sh");
        unheard.args(["-c", shell, "sh"]).arg(command.get_program()).args(command.get_args());
        unheard.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
        unheard
    };
    let mut all = vec![("closed", again("exec \"$@\" 2>&-")), ("nobody reads", again("exec \"$@\""))];
    if Path::new("/dev/full").exists() {
        all.push(("full", again("exec \"$@\" 2>/dev/full")));
    }
    all
}

#[test]
fn work_is_done_whether_or_not_anybody_is_told() {
    let place = place();
    let tiny = format!("--model={}", root().join("tests/fixtures/tiny/plain").display());
    let args: [(&[&str], &str); 4] = [
        (&["export", PROMPT, "--hooks=resid_post.3", "-o", "run.json"], "run.json"),
        (&["walk", PROMPT, "-o", "note"], "note/walk.md"),
        (&["bench", "--runs=1", "--json", &tiny], ""),
        (&["tokens"], "no"),
    ];
    for (args, file) in args {
        let command = actscope(place.path(), args);
        for (how, mut command) in unheard(&command) {
            if !file.is_empty() {
                let _ = fs::remove_file(place.path().join(file));
            }
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stderr.take());
            let done = child.wait_with_output().unwrap();
            if file == "no" {
                assert_eq!(done.status.code(), Some(2), "{args:?}, {how}");
                continue;
            }
            assert!(done.status.success(), "{args:?}, {how}: {}", done.status);
            if file.is_empty() {
                serde_json::from_slice::<Value>(&done.stdout).unwrap();
            } else {
                assert!(fs::metadata(place.path().join(file)).unwrap().len() > 1000, "{args:?}, {how}");
            }
        }
    }
}

/// A hub on the loopback interface that has the files of `repository`.
fn hub(repository: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            // The file `%` stands for all whose names have to be escaped.
            let found = repository.iter().find(|(file, _)| name.contains(file));
            let api = path.starts_with("/api/").then_some(&b"{}"[..]);
            let body = api.or(found.map(|(_, body)| &body[..]));
            let (status, body) = body.map_or(("404 Not Found", &b""[..]), |body| ("200 OK", body));
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\nETag: \"{}\"\r\n\
                 X-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\n\r\n",
                body.len(),
                name.replace(|c: char| !c.is_ascii_alphanumeric(), "")
            );
            // The client may have enough.
            let _ = (&stream).write_all(head.as_bytes());
            if !first.starts_with("HEAD") {
                let _ = (&stream).write_all(body);
            }
        }
    });
    url
}

/// A file of a small checkpoint.
fn of_tiny(name: &str) -> (String, Vec<u8>) {
    (name.to_owned(), fs::read(root().join("tests/fixtures/tiny/plain").join(name)).unwrap())
}

#[test]
fn downloads_are_made_whether_or_not_anybody_is_told() {
    let place = place();
    let url = hub(vec![of_tiny("config.json"), of_tiny("model.safetensors")]);
    let command = actscope(place.path(), ["top", "--token-ids=1", "--model=someone/tiny"]);
    for (how, mut command) in unheard(&command) {
        online(&mut command, place.path().join(how), &url);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success() && !done.stdout.is_empty(), "{how}: {}", done.status);
    }
}

/// With a hub, and nothing downloaded before.
fn online(command: &mut Command, cache: PathBuf, url: &str) {
    command.env("HF_HOME", cache).env("HF_ENDPOINT", url).env("NO_PROXY", "*").env_remove("HF_HUB_OFFLINE");
}

#[test]
fn downloads_of_such_names_are_told_plainly() {
    let place = place();
    let shard = HOSTILE.replace('\\', "");
    let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
    let url = hub(vec![
        ("model.safetensors.index.json".into(), index.into()),
        of_tiny("config.json"),
        ("%".into(), vec![0; 1 << 20]),
    ]);
    let call = ["top", "--token-ids=1", "--model=someone/tiny"];
    let mut command = actscope(place.path(), call);
    online(&mut command, place.path().join("cache"), &url);
    assert!(!harmless(command).status.success());
    // With bars, on a terminal.
    let mut command = in_terminal(place.path(), &call);
    command.env("HF_HOME", place.path().join("another"));
    command.env("HF_ENDPOINT", url);
    command.env("NO_PROXY", "*");
    Terminal::start(command).ended(1);
}

// The explorer.

#[test]
fn no_screen_shows_what_a_terminal_would_obey() {
    let mut model = Model::demo();
    model.provenance.model = HOSTILE.into();
    let model = Arc::new(model);
    let mut explorer = Headless::new(HOSTILE, Input::text(HOSTILE).with_interventions(changes()), (160, 48));
    let check = |explorer: &mut Headless, what: &str| {
        for cell in &explorer.frame().content {
            assert!(!cell.symbol().contains(obeyed), "{what}: {:?}", cell.symbol());
        }
    };
    let paste = |explorer: &mut Headless| {
        let pasted = Message::Terminal(TerminalEvent::Paste(HOSTILE.into()));
        let requests = update(&mut explorer.app, pasted);
        explorer.answer(requests);
    };
    check(&mut explorer, "before");
    explorer.loaded(&model);
    for screen in Screen::ALL {
        explorer.app.screen = screen;
        explorer.key(KeyCode::Down);
        explorer.app.complain(HOSTILE);
        check(&mut explorer, screen.name());
        // Its overlays: the editor, the export, the changes and a name, commands, tensors, help, tokens.
        for keys in ["e", "x", "i", "in", "iw", "io", "i+", ":", "/", "?", "n", "t", "F"] {
            keys.chars().for_each(|key| explorer.key(KeyCode::Char(key)));
            paste(&mut explorer);
            check(&mut explorer, &format!("{}, {keys}", screen.name()));
            explorer.key(KeyCode::Enter);
            check(&mut explorer, &format!("{}, {keys}, Enter", screen.name()));
            explorer.key(KeyCode::Esc);
            explorer.key(KeyCode::Esc);
        }
    }
}

#[test]
fn the_explorer_sends_nothing_of_it_to_the_terminal() {
    let place = place();
    fs::write(place.path().join("changes"), changes().to_json()).unwrap();
    let model = format!("--model=./{HOSTILE}");
    let call = [HOSTILE, "--dark", "--interventions=changes", &model];
    let mut terminal = Terminal::start(in_terminal(place.path(), &call));
    terminal.wait_for("⟨1b⟩]52");
    terminal.wait_for("surprise");
    for (key, text) in [("x", "Export"), ("i", "What if"), ("e", "Prompt")] {
        terminal.send(key);
        terminal.wait_for(text);
        terminal.send(&format!("\x1b[200~{}\x1b[201~", HOSTILE.replace('\u{1b}', "")));
        terminal.escape();
        terminal.escape();
    }
    terminal.send("\x03");
    terminal.ended(0);
}

/// The binary for a pseudo-terminal.
fn in_terminal(place: &Path, args: &[&str]) -> CommandBuilder {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_actscope"));
    command.args(args);
    command.env("TERM", "xterm-256color");
    command.env("COLORTERM", "truecolor");
    command.cwd(place);
    command
}

struct Terminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    master: Box<dyn portable_pty::MasterPty + Send>,
    /// All that was written to it.
    output: Arc<Mutex<Vec<u8>>>,
    reading: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn start(command: CommandBuilder) -> Self {
        let size = PtySize { rows: 40, cols: 180, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&output));
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Self { child, keys: pair.master.take_writer().unwrap(), master: pair.master, output, reading }
    }

    fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Esc alone is told from a sequence by time.
    fn escape(&mut self) {
        std::thread::sleep(Duration::from_millis(200));
        self.send("\x1b");
        std::thread::sleep(Duration::from_millis(200));
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.output.lock().unwrap()).contains(text) {
            assert!(start.elapsed() < Duration::from_mins(1), "`{text}` did not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end; what was written without movements of the cursor, modes and colours is
    /// drawn, and nothing else.
    fn ended(mut self, code: u32) {
        assert_eq!(self.child.wait().unwrap().exit_code(), code);
        drop((self.master, self.keys));
        let _ = self.reading.join();
        let bytes = self.output.lock().unwrap();
        let mut parts = std::str::from_utf8(&bytes).unwrap().split("\u{1b}[");
        let mut drawn = parts.next().unwrap().to_owned();
        for part in parts {
            let code = part.trim_start_matches(|c: char| c.is_ascii_digit() || "?;>".contains(c));
            assert!(code.starts_with(|c: char| c.is_ascii_alphabetic()), "{:?}", &part[..part.len().min(9)]);
            drawn += &code[1..];
        }
        assert!(drawn.len() > 60, "{drawn}");
        assert_harmless("the terminal", drawn.replace('\r', "").as_bytes());
    }
}

// The house.

/// Where text leaves the program: the writers, and the terminal of the explorer.
const WRITERS: [&str; 4] = ["cli/output.rs", "export/destination.rs", "tui/terminal.rs", "src/build.rs"];

#[test]
fn nothing_prints_past_the_writers() {
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if WRITERS.iter().any(|writer| path.ends_with(writer)) {
                continue;
            }
            for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap();
                let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
                let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout", "stderr"];
                let prints = prints.iter().any(|print| {
                    code.match_indices(print).any(|(at, _)| !code[..at].ends_with(part_of_a_name))
                });
                let prints = prints && !code.contains("is_terminal()") && !code.contains("Stdio::null()");
                assert!(!prints, "{}:{}: use cli/output.rs: {line}", path.display(), i + 1);
                // The explorer's text goes through `put`.
                let draws = code.contains(".set_string") && !path.ends_with("tui/text.rs");
                assert!(!draws, "{}:{}: use tui/text.rs: {line}", path.display(), i + 1);
            }
        }
    }
}
