//! The real hf-hub client against a hub on the loopback interface that serves, refuses, breaks off,
//! sends rubbish or is silent.
//!
//! hf-hub is configured by environment variables, so every load runs in a process of its own: this
//! test program again, with only the test [`child`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use actscope::model::source::OnProgress;
use actscope::model::{LoadOptions, Progress, Source};
use actscope::{Input, Model, Run};
use serde::{Deserialize, Serialize};

const ID: &str = "someone/tiny-gpt2";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Nothing listens on port 1.
const NOBODY: &str = "http://127.0.0.1:1";

// --- the child ---------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct Question {
    model: String,
    revision: Option<String>,
    offline: bool,
    answer: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Loaded {
    revision: Option<String>,
    /// The bits of the logits of [`logits`].
    logits: Vec<u32>,
    has_tokenizer: bool,
    /// The name of each dictionary, and the number of its features.
    dictionaries: Vec<(String, usize)>,
    /// File, bytes so far, bytes in all.
    progress: Vec<(String, u64, Option<u64>)>,
}

fn logits(model: Model) -> Vec<u32> {
    let run = Run::all(&Arc::new(model), Input::ids([5, 17, 96, 0])).unwrap();
    let logits = run.cache.get("logits").unwrap().flatten_all().unwrap();
    logits.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
#[ignore = "the process that the other tests start"]
fn child() {
    let question = env::var("ACTSCOPE_TEST_QUESTION").expect("this is for the other tests to start");
    let Question { model, revision, offline, answer } = serde_json::from_str(&question).unwrap();
    let progress = Arc::new(Mutex::new(Vec::new()));
    let seen = progress.clone();
    let on_progress: OnProgress = Arc::new(move |event| {
        if let Progress::Download { file, done, total, rate } = event {
            assert!(rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            seen.lock().unwrap().push((file, done, total));
        }
    });
    let dictionaries = env::var("ACTSCOPE_TEST_DICTIONARY").into_iter().collect();
    let options = LoadOptions { revision, offline, dictionaries, ..LoadOptions::default() };
    let outcome = Model::load(&Source::parse(&model), &options, &on_progress);
    let outcome = outcome.map_err(|e| e.to_string()).map(|model| Loaded {
        revision: model.provenance.revision.clone(),
        has_tokenizer: model.tokenizer.is_some(),
        dictionaries: model.dictionaries().iter().map(|one| (one.reads.to_string(), one.n)).collect(),
        logits: logits(model),
        progress: progress.lock().unwrap().clone(),
    });
    fs::write(answer, serde_json::to_vec(&outcome).unwrap()).unwrap();
}

/// A hub cache of its own, and how to load a model through it.
struct Load {
    home: tempfile::TempDir,
    revision: Option<String>,
    offline: bool,
    env: Vec<(&'static str, String)>,
}

impl Load {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), revision: None, offline: false, env: Vec::new() }
    }

    fn revision(self, revision: &str) -> Self {
        Self { revision: Some(revision.into()), ..self }
    }

    fn offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// Sets a variable; the last setting counts.
    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn answer(&self) -> PathBuf {
        self.home.path().join("answer.json")
    }

    fn start(&self, endpoint: &str, model: &str) -> Child {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["child", "--exact", "--ignored"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().to_uppercase();
            if name.starts_with("HF_") || name.starts_with("HUGGINGFACE_") || name.ends_with("_PROXY") {
                child.env_remove(name);
            }
        }
        let question = Question {
            model: model.into(),
            revision: self.revision.clone(),
            offline: self.offline,
            answer: self.answer(),
        };
        child.env("ACTSCOPE_TEST_QUESTION", serde_json::to_string(&question).unwrap());
        child.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", endpoint).env("NO_PROXY", "*");
        child.envs(self.env.iter().cloned()).spawn().unwrap()
    }

    fn load(&self, endpoint: &str, model: &str) -> Result<Loaded, String> {
        let output = self.start(endpoint, model).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the child failed: {said}");
        serde_json::from_slice(&fs::read(self.answer()).unwrap()).unwrap()
    }

    fn ok(&self, endpoint: &str) -> Loaded {
        self.load(endpoint, ID).unwrap()
    }

    /// The error, which must be one sentence that holds all of `parts`.
    fn error(&self, endpoint: &str, model: &str, parts: &[&str]) {
        let error = self.load(endpoint, model).unwrap_err();
        assert!(!error.contains('\n'), "more than a line: {error}");
        for part in parts.iter().chain([&model]) {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }

    /// The names in the cache under which a file could be taken for whole.
    fn cached(&self) -> Vec<String> {
        let snapshot = format!("hub/models--someone--tiny-gpt2/snapshots/{COMMIT}");
        let files = fs::read_dir(self.home.path().join(snapshot)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

// --- the hub -----------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    /// Lower case, so that names of headers can be looked for.
    headers: Vec<String>,
}

impl Request {
    fn is(&self, method: &str, file: &str) -> bool {
        self.method == method && self.path.ends_with(file)
    }
}

enum Reply {
    Status(u16),
    /// A page of a server that is no hub.
    Page,
    /// A 404 of a repository that exists, with its commit.
    NoFile,
    File(Vec<u8>),
    /// The announced length, and the first bytes of it; then the connection is closed, or hangs.
    Part {
        body: Vec<u8>,
        hangs: bool,
    },
    /// The first bytes, and no length announced.
    Unmeasured(Vec<u8>),
    /// A file under headers of the test's choice, in place of the hub's.
    Headed(Vec<(&'static str, String)>, Vec<u8>),
    /// The file is elsewhere; these headers say where, and what it is.
    Elsewhere(Vec<(&'static str, String)>),
    /// Bytes without end, after an announced length or none.
    Endless(Option<usize>),
    Silence,
}

/// A hub that answers as `reply` says, until the test ends.
struct Hub {
    url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    fn new(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (log.clone(), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, reply) = (seen.clone(), reply.clone());
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    if let Some(request) = read_request(&stream) {
                        seen.lock().unwrap().push(request.clone());
                        let _ = answer(&stream, &request, reply(&request)); // the client may be gone
                    }
                });
            }
        });
        Self { url, log }
    }

    /// The files of a directory, as [`ID`].
    fn of(directory: &str) -> Self {
        Self::new(repository(directory))
    }

    /// The same, but for requests that `trouble` answers.
    fn with(directory: &str, trouble: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let files = repository(directory);
        Self::new(move |request| trouble(request).unwrap_or_else(|| files(request)))
    }

    fn paths(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }
}

fn path(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)
}

fn repository(directory: &str) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let directory = path(directory);
    move |request| {
        if let Some(rest) = request.path.strip_prefix(&format!("/api/models/{ID}")) {
            let known = ["", "/revision/main", &format!("/revision/{COMMIT}")].contains(&rest);
            return if known { Reply::File(b"{}".into()) } else { Reply::Status(404) };
        }
        let file = request.path.strip_prefix(&format!("/{ID}/resolve/"));
        let Some((revision, name)) = file.and_then(|file| file.split_once('/')) else {
            return Reply::Status(404);
        };
        if revision != "main" && revision != COMMIT {
            return Reply::Status(404);
        }
        fs::read(directory.join(name)).map_or(Reply::NoFile, Reply::File)
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let (method, rest) = first.split_once(' ')?;
    let (path, _) = rest.split_once(' ')?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    Some(Request {
        method: method.into(),
        path: path.into(),
        headers: headers.map(|line| line.to_lowercase()).collect(),
    })
}

fn answer(mut stream: &TcpStream, request: &Request, reply: Reply) -> std::io::Result<()> {
    let name = request.path.rsplit('/').next().unwrap();
    let etag = format!("\"etag-of-{name}\"");
    let known = request.headers.contains(&format!("if-none-match: {}", etag.to_lowercase()));
    let is_hub = !matches!(reply, Reply::Page | Reply::Status(_));
    let mut hub_headers = vec![("ETag", etag), ("X-Repo-Commit", COMMIT.to_owned())];
    let endless = matches!(reply, Reply::Endless(_));
    let (status, length, body, hangs) = match reply {
        Reply::Silence => {
            hang();
            return Ok(());
        }
        Reply::Page => (200, Some(5), b"hello".to_vec(), false),
        Reply::Status(status) => (status, Some(8), b"rubbish\n".to_vec(), false),
        Reply::NoFile => (404, Some(0), vec![], false),
        Reply::File(_) if known => (304, None, vec![], false),
        Reply::File(body) => (200, Some(body.len()), body, false),
        Reply::Part { mut body, hangs } => {
            let length = body.len();
            body.truncate(length / 2);
            (200, Some(length), body, hangs)
        }
        Reply::Unmeasured(mut body) => {
            body.truncate(body.len() / 2);
            (200, None, body, false)
        }
        Reply::Headed(headers, body) => {
            hub_headers = headers;
            (200, Some(body.len()), body, false)
        }
        Reply::Elsewhere(headers) => {
            hub_headers = headers;
            (302, Some(0), vec![], false)
        }
        Reply::Endless(length) => (200, length, vec![b' '; 1 << 16], false),
    };
    write!(stream, "HTTP/1.1 {status} Whatever\r\nConnection: close\r\n")?;
    if let Some(length) = length {
        write!(stream, "Content-Length: {length}\r\n")?;
    }
    if is_hub {
        for (name, value) in hub_headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
    }
    write!(stream, "\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(&body)?;
        if endless {
            loop {
                stream.write_all(&body)?; // until the client has had enough
            }
        }
    }
    if hangs && request.method != "HEAD" {
        hang();
    }
    Ok(())
}

/// Longer than any test lasts.
fn hang() {
    thread::sleep(Duration::from_mins(1));
}

// --- the tests ---------------------------------------------------------------------------------

const DEMO: &str = "assets/demo";
const PLAIN: &str = "tests/fixtures/tiny/plain";
const PICKLE: &str = "tests/fixtures/tiny/pickle";
const SHARDED: &str = "tests/fixtures/tiny/sharded";

fn local(directory: &str) -> Vec<u32> {
    let source = Source::Path(path(directory));
    logits(Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as _)).unwrap())
}

#[test]
fn downloads_with_progress_then_loads_from_the_cache() {
    let hub = Hub::of(DEMO);
    let load = Load::new();
    let loaded = load.ok(&hub.url);
    assert_eq!(loaded.logits, logits(Model::demo()));
    assert_eq!(loaded.revision.as_deref(), Some(COMMIT));
    assert!(loaded.has_tokenizer);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let size = fs::metadata(path(DEMO).join(name)).unwrap().len();
        let events: Vec<_> = loaded.progress.iter().filter(|(file, ..)| file == name).collect();
        assert!(events.is_sorted_by_key(|(_, done, _)| done), "{name} goes back: {events:?}");
        assert!(events.iter().all(|(.., total)| *total == Some(size)), "{name}: {events:?}");
        assert_eq!(events.first().unwrap().1, 0, "{name}");
        assert_eq!(events.last().unwrap().1, size, "{name}");
    }
    assert_eq!(load.cached(), ["config.json", "model.safetensors", "tokenizer.json"]);

    // All files after the first are asked for at its commit.
    let others: Vec<_> = hub.paths().into_iter().filter(|path| !path.contains("config.json")).collect();
    assert!(!others.is_empty() && others.iter().all(|path| path.contains(COMMIT)), "{others:?}");

    // A second time only whether `main` has moved is asked, and nothing is downloaded.
    let before = hub.paths().len();
    let again = load.ok(&hub.url);
    assert_eq!(hub.paths()[before..], [format!("HEAD /{ID}/resolve/main/config.json")]);
    assert_eq!(again.progress, []);

    // With the hub gone, or silent, or not wanted, the cache will do.
    let silent = Hub::new(|_| Reply::Silence);
    let load = load.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    for url in [NOBODY, &silent.url] {
        let gone = load.ok(url);
        assert_eq!((&gone.logits, &gone.revision), (&loaded.logits, &loaded.revision));
        assert_eq!(gone.progress, []);
    }
    let offline = load.offline(true).ok(&hub.url);
    assert_eq!((offline.logits, offline.revision), (loaded.logits, loaded.revision));
    assert_eq!(hub.paths().len(), before + 1, "--offline asked the hub");
}

/// A folder of a repository, downloaded once; the model is a directory.
#[test]
fn a_dictionary_comes_from_a_folder_of_the_hub() {
    let hub = Hub::of("tests/fixtures/dictionaries");
    let dictionary = |name: &str| Load::new().env("ACTSCOPE_TEST_DICTIONARY", name);
    let model = path(PLAIN).display().to_string();
    let load = dictionary(&format!("{ID}:topk"));
    let loaded = load.load(&hub.url, &model).unwrap();
    assert_eq!(loaded.dictionaries, [("blocks.1.hook_resid_pre".to_owned(), 40)]);
    let announced = |name: &str| loaded.progress.iter().any(|(file, ..)| file == name);
    assert!(announced("topk/cfg.json") && announced("topk/sae_weights.safetensors"), "{:?}", loaded.progress);
    // From the cache alone, and not at all.
    assert_eq!(load.offline(true).load(NOBODY, &model).unwrap().dictionaries, loaded.dictionaries);
    let said = dictionary(&format!("{ID}:topk")).offline(true).load(&hub.url, &model).unwrap_err();
    assert!(said.contains("not in the cache"), "{said}");
    // A file by itself, and what is not there.
    let file = dictionary(&format!("resid_post.1={ID}:openai.pt"));
    assert_eq!(file.load(&hub.url, &model).unwrap().dictionaries[0].0, "blocks.1.hook_resid_post");
    let said = dictionary(&format!("{ID}:nothing")).load(&hub.url, &model).unwrap_err();
    assert!(said.contains("has none of nothing/cfg.json"), "{said}");
}

#[test]
fn a_commit_in_the_cache_needs_no_hub() {
    let hub = Hub::of(PLAIN);
    let load = Load::new().revision(COMMIT);
    assert_eq!(load.ok(&hub.url).revision.as_deref(), Some(COMMIT));
    let asked = hub.paths().len();
    assert_eq!(load.ok(&hub.url).logits, local(PLAIN));
    assert_eq!(hub.paths().len(), asked);
}

#[test]
fn an_empty_cache_offline() {
    let hub = Hub::of(PLAIN);
    let parts = ["not in the cache", "run once without --offline"];
    Load::new().offline(true).error(&hub.url, ID, &parts);
    for yes in ["1", "true", "YES", "on"] {
        Load::new().env("HF_HUB_OFFLINE", yes).error(&hub.url, ID, &parts);
    }
    assert_eq!(hub.paths(), [""; 0]);
    assert_eq!(Load::new().env("HF_HUB_OFFLINE", "0").ok(&hub.url).logits, local(PLAIN));
}

#[test]
fn pickled_weights_and_no_tokenizer() {
    let hub = Hub::of(PICKLE);
    let load = Load::new();
    let loaded = load.ok(&hub.url);
    assert_eq!(loaded.logits, local(PICKLE));
    assert!(!loaded.has_tokenizer);
    // That the other files do not exist is in the cache too.
    assert_eq!(load.ok(NOBODY).logits, loaded.logits);
    assert_eq!(load.offline(true).ok(NOBODY).logits, loaded.logits);
}

#[test]
fn shards() {
    let hub = Hub::of(SHARDED);
    let load = Load::new();
    let loaded = load.ok(&hub.url);
    assert_eq!(loaded.logits, local(SHARDED));
    assert_eq!(
        loaded.progress.iter().filter(|(file, done, _)| file.contains("-of-") && *done == 0).count(),
        4
    );
    assert_eq!(load.ok(NOBODY).logits, loaded.logits);
}

#[test]
fn the_token_is_sent_and_never_shown() {
    let hub = Hub::of(PLAIN);
    Load::new().env("HF_TOKEN", "hf_secret").ok(&hub.url);
    let log = hub.log.lock().unwrap();
    assert!(log.iter().all(|r| r.headers.contains(&"authorization: bearer hf_secret".into())), "{log:?}");

    let hub = Hub::new(|_| Reply::Status(403));
    let load = Load::new().env("HF_TOKEN", "hf_secret");
    load.error(&hub.url, ID, &["(403)", "HF_TOKEN"]);
    assert!(!load.load(&hub.url, ID).unwrap_err().contains("hf_secret"));
}

#[test]
fn refusals_say_what_to_do() {
    for (status, parts) in [
        (401, ["(401)", "private, gated", "HF_TOKEN"]),
        (429, ["(429)", "wait a minute", "HF_TOKEN"]),
        (500, ["answers 500", "try again later", "--offline"]),
        (503, ["answers 503", "try again later", "--offline"]),
        (404, ["no model", "(404)", "check the id"]),
    ] {
        let hub = Hub::new(move |_| Reply::Status(status));
        Load::new().error(&hub.url, ID, &parts);
        Load::new().error(&hub.url, ID, &[&hub.url]);
    }
    let hub = Hub::of(PLAIN);
    Load::new().revision("v9").error(&hub.url, ID, &["no revision `v9`", "(404)"]);
    Load::new().revision("../x").error(&hub.url, ID, &["`../x` is not a valid revision"]);
    for id in ["tiny-gpt2", "someone/..", "someone/a b"] {
        Load::new().error(&hub.url, id, &["owner/name"]);
    }
    let hub = Hub::of("tests/fixtures/tokenizer");
    Load::new().error(&hub.url, ID, &["has no config.json"]);
}

#[test]
fn a_hub_that_is_not_there() {
    Load::new().error(NOBODY, ID, &["cannot connect to http://127.0.0.1:1", "HF_ENDPOINT", "--offline"]);
    Load::new().error("localhost", ID, &["HF_ENDPOINT is not a URL"]);
    let silent = Hub::new(|_| Reply::Silence);
    let load = Load::new().env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    load.error(&silent.url, ID, &["has sent no data", "for 1 s", "HF_ENDPOINT"]);
    let web = Hub::new(|_| Reply::Page);
    Load::new().error(&web.url, ID, &[&web.url, "does not answer like a model hub", "HF_ENDPOINT"]);
}

/// Whatever happens to the weights on their way, nothing is left that a second try takes for whole.
#[test]
fn weights_that_break_off_are_never_taken_for_whole() {
    let weights = || fs::read(path(PLAIN).join("model.safetensors")).unwrap();
    let troubles: [fn(Vec<u8>) -> Reply; 4] = [
        |body| Reply::Part { body, hangs: false },
        |body| Reply::Part { body, hangs: true },
        Reply::Unmeasured,      // nothing in the answer tells that it is cut
        |_| Reply::Status(500), // hf-hub would keep the text of the error as the weights
    ];
    for trouble in troubles {
        let bad = Hub::with(PLAIN, move |r| r.is("GET", "model.safetensors").then(|| trouble(weights())));
        let load = Load::new().env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        load.error(&bad.url, ID, &["`model.safetensors`", &bad.url, "try again"]);
        assert_eq!(load.cached(), ["config.json"]);
        load.error(NOBODY, ID, &["cannot connect"]);
        assert_eq!(load.ok(&Hub::of(PLAIN).url).logits, local(PLAIN));
    }
}

#[test]
fn a_killed_download_is_never_taken_for_whole() {
    let (sender, half_way) = std::sync::mpsc::channel();
    let bad = Hub::with(PLAIN, move |request| {
        request.is("GET", "model.safetensors").then(|| {
            sender.send(()).unwrap();
            Reply::Part { body: fs::read(path(PLAIN).join("model.safetensors")).unwrap(), hangs: true }
        })
    });
    let load = Load::new();
    let mut child = load.start(&bad.url, ID);
    half_way.recv_timeout(Duration::from_secs(20)).unwrap();
    thread::sleep(Duration::from_millis(200)); // some of it is on disk now
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(load.cached(), ["config.json"]);
    assert_eq!(load.ok(&Hub::of(PLAIN).url).logits, local(PLAIN));
}

/// A hub that goes away half-way must not pass for one whose model has no tokenizer.
#[test]
fn a_tokenizer_out_of_reach_is_not_a_missing_one() {
    let bad = Hub::with(DEMO, |r| r.path.ends_with("tokenizer.json").then_some(Reply::Status(500)));
    Load::new().error(&bad.url, ID, &["`tokenizer.json`", "answers 500"]);
}

#[test]
fn a_cache_that_cannot_be_written() {
    let hub = Hub::of(PLAIN);
    let load = Load::new();
    let file = load.home.path().join("file");
    fs::write(&file, "").unwrap();
    let load = load.env("HF_HUB_CACHE", file.to_string_lossy());
    load.error(&hub.url, ID, &["cannot write `config.json`", "HF_HOME"]);
}

#[test]
fn another_architecture_is_refused_before_its_weights_are_fetched() {
    let hub = Hub::with(PLAIN, |r| {
        r.path.ends_with("config.json").then(|| Reply::File(br#"{"model_type":"llama"}"#.into()))
    });
    assert!(Load::new().load(&hub.url, ID).unwrap_err().contains("llama"));
    assert!(hub.paths().iter().all(|path| path.contains("config.json")), "{:?}", hub.paths());
}

/// The real hub sends small files from another path of its own, large ones from another server, which
/// knows nothing of commits.
#[test]
fn files_that_lie_elsewhere() {
    let store = Hub::new(|r| {
        let body = fs::read(path(PLAIN).join("model.safetensors")).unwrap();
        assert!(
            !r.headers.iter().any(|header| header.starts_with("authorization")),
            "the token went elsewhere"
        );
        Reply::Headed(vec![("ETag", "\"of-the-store\"".into())], body)
    });
    let place = format!("{}/signed?key=1", store.url);
    let hub = Hub::with(PLAIN, move |r| {
        if r.path.contains("/resolve/") && r.path.ends_with("config.json") {
            return Some(Reply::Elsewhere(vec![("Location", "/api/cache/config.json".into())]));
        }
        if r.path == "/api/cache/config.json" {
            return Some(Reply::File(fs::read(path(PLAIN).join("config.json")).unwrap()));
        }
        r.path.ends_with("model.safetensors").then(|| {
            let size = fs::metadata(path(PLAIN).join("model.safetensors")).unwrap().len();
            Reply::Elsewhere(vec![
                ("Location", place.clone()),
                ("X-Repo-Commit", COMMIT.into()),
                ("X-Linked-Etag", format!("\"{}\"", "a".repeat(64))),
                ("X-Linked-Size", size.to_string()),
            ])
        })
    });
    let load = Load::new().env("HF_TOKEN", "hf_secret");
    assert_eq!(load.ok(&hub.url).logits, local(PLAIN));
    let blob = format!("hub/models--someone--tiny-gpt2/blobs/{}", "a".repeat(64));
    assert!(load.home.path().join(blob).is_file());
    assert_eq!(load.ok(NOBODY).logits, local(PLAIN));
    let circle = Hub::with(PLAIN, |r| {
        r.path.ends_with("config.json").then(|| Reply::Elsewhere(vec![("Location", r.path.clone())]))
    });
    Load::new().error(&circle.url, ID, &["too many redirects"]);
}

// --- hostile hubs ------------------------------------------------------------------------------

/// Every file, link and directory below a directory, with all that is in it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let what = fs::symlink_metadata(&path).unwrap().file_type();
        let seen = if what.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if what.is_dir() {
            all.extend(contents(&path));
            "directory".into()
        } else {
            format!("{:?}", fs::read(&path).unwrap())
        };
        all.insert(path, seen);
    }
    all
}

/// A folder beside the cache, with what a hub might want to reach in it.
fn victims(load: &Load) -> PathBuf {
    let victims = load.home.path().join("victims");
    fs::create_dir_all(victims.join("folder")).unwrap();
    fs::write(victims.join("config.json"), "mine").unwrap();
    fs::write(victims.join("file"), "precious").unwrap();
    fs::write(victims.join("file.lock"), "locked").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("file", victims.join("link")).unwrap();
    victims
}

/// Headers that hold a value.
type Evil<'a> = &'a dyn Fn(String) -> Vec<(&'static str, String)>;

/// Nothing that a hub says is a path: not an etag, not a commit, whatever the request.
#[test]
fn what_a_hub_says_reaches_nothing_outside_the_cache() {
    const UP: &str = "../../../../victims";
    let etag = |value: String| vec![("ETag", format!("\"{value}\"")), ("X-Repo-Commit", COMMIT.into())];
    let linked = |value: String| {
        vec![("X-Linked-Etag", value), ("ETag", "\"e\"".into()), ("X-Repo-Commit", COMMIT.into())]
    };
    let commit = |value: String| vec![("ETag", "\"e\"".into()), ("X-Repo-Commit", value)];
    let kinds: [Evil; 3] = [&etag, &linked, &commit];
    for (kind, evil) in kinds.into_iter().enumerate() {
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let load = Load::new();
            let victims = victims(&load);
            let before = contents(&victims);
            let absolute = victims.display().to_string();
            for value in [
                format!("{absolute}/file"),
                format!("{absolute}/new"),
                absolute.clone(),
                format!("{UP}/file"),
                format!("{UP}/new"),
                format!("../{UP}/folder/new"),
                "..".into(),
                ".".into(),
                "a/b".into(),
                "a\\b".into(),
                "%2e%2e%2ffile".into(),
            ] {
                // The file has another length than is announced for some: it must not be "cleaned up".
                let headers = evil(value.clone());
                let hub = Hub::with(DEMO, move |r| {
                    r.path.ends_with(file).then(|| {
                        let body = fs::read(path(DEMO).join(file)).unwrap();
                        Reply::Headed(headers.clone(), body)
                    })
                });
                let loaded = load.load(&hub.url, ID);
                // The commit of later files is that of the first.
                if kind < 2 || file == "config.json" {
                    let said = loaded.unwrap_err();
                    assert!(said.contains("does not answer like a model hub"), "{value}: {said}");
                }
                assert_eq!(contents(&victims), before, "{value} as header {kind} of {file}");
            }
            let names: Vec<_> = contents(load.home.path()).into_keys().collect();
            let known = |path: &PathBuf| {
                let path = path.strip_prefix(load.home.path()).unwrap();
                ["hub", "victims", "answer.json", "xet"].iter().any(|known| path.starts_with(known))
            };
            assert!(names.iter().all(known), "{names:?}");
        }
    }
}

/// A cache that a hostile hub, or anybody, has filled with links before.
#[cfg(unix)]
#[test]
fn links_in_the_cache_lead_nowhere_else() {
    use std::os::unix::fs::symlink;
    for place in [
        "",
        "/blobs",
        "/snapshots",
        "/refs",
        "/snapshots/COMMIT",
        "/snapshots/COMMIT/config.json",
        "/blobs/etag-of-config.json",
        "/refs/main",
    ] {
        let load = Load::new();
        let victims = victims(&load);
        let before = contents(&victims);
        let model = load.home.path().join("hub/models--someone--tiny-gpt2");
        let link = PathBuf::from(format!("{}{}", model.display(), place.replace("COMMIT", COMMIT)));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let is_file = place.ends_with("config.json") || place.ends_with("/main");
        symlink(if is_file { victims.join("config.json") } else { victims.clone() }, &link).unwrap();
        let hub = Hub::of(PLAIN);
        let _ = load.load(&hub.url, ID);
        let _ = load.load(NOBODY, ID);
        assert_eq!(contents(&victims), before, "{place}");
    }
}

#[test]
fn a_body_is_never_longer_than_it_may_be() {
    // Announced with more than any configuration has, with less than comes, and not at all.
    let announced =
        Hub::with(PLAIN, |r| r.path.ends_with("config.json").then_some(Reply::Endless(Some(1 << 40))));
    Load::new().error(&announced.url, ID, &["`config.json`", "the limit for such a file is"]);
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let hub = Hub::with(DEMO, move |r| r.is("GET", file).then_some(Reply::Endless(None)));
        let load = Load::new();
        load.error(&hub.url, ID, &[&format!("`{file}`"), "sends more than"]);
        let blobs = load.home.path().join("hub/models--someone--tiny-gpt2/blobs");
        assert!(contents(&blobs).keys().all(|path| !path.to_string_lossy().contains("incomplete")));
        assert_eq!(load.ok(&Hub::of(DEMO).url).logits, local(DEMO));
    }
    let unmeasured = Hub::with(PLAIN, |r| r.path.ends_with(".safetensors").then_some(Reply::Endless(None)));
    Load::new().error(&unmeasured.url, ID, &["`model.safetensors`", "does not give the length"]);
}

#[test]
fn a_password_in_the_endpoint_is_not_shown() {
    let secret = |url: &str| url.replace("http://", "http://me:pass9word@");
    let hub = Hub::of(PLAIN);
    assert_eq!(Load::new().ok(&secret(&hub.url)).logits, local(PLAIN));
    for status in [401, 404, 429, 500] {
        let hub = Hub::new(move |_| Reply::Status(status));
        let said = Load::new().load(&secret(&hub.url), ID).unwrap_err();
        assert!(!said.contains("pass9word") && !said.contains("me:"), "{said}");
    }
    for url in [secret(NOBODY), "http://me:pass9word@[".into(), "me:pass9word@127.0.0.1".into()] {
        let said = Load::new().load(&url, ID).unwrap_err();
        assert!(!said.contains("pass9word"), "{said}");
    }
}

/// What the cache holds is cut short, by a full disk or a killed copy.
#[test]
fn an_empty_or_short_file_in_the_cache_is_fetched_again() {
    for directory in [DEMO, SHARDED] {
        let hub = Hub::of(directory);
        let load = Load::new();
        load.ok(&hub.url);
        let snapshot = load.home.path().join("hub/models--someone--tiny-gpt2/snapshots").join(COMMIT);
        for name in load.cached() {
            for rest in [0, 100] {
                let blob = fs::canonicalize(snapshot.join(&name)).unwrap();
                let whole = fs::read(&blob).unwrap();
                fs::write(&blob, &whole[..rest]).unwrap();
                assert_eq!(load.ok(&hub.url).logits, local(directory), "{name} cut to {rest} bytes");
                assert_eq!(fs::read(&blob).unwrap(), whole, "{name} cut to {rest} bytes");
            }
        }
        // Without the hub it is named.
        let blob = fs::canonicalize(snapshot.join("config.json")).unwrap();
        fs::write(&blob, "{").unwrap();
        assert!(load.load(NOBODY, ID).unwrap_err().contains("config.json"));
    }
}
