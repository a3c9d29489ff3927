//! The model hub, through hf-hub: its cache, its environment variables, its tokens.
//!
//! hf-hub reads `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_ENDPOINT`; what the
//! Python client knows beyond these, `HF_HUB_OFFLINE` and `HF_HUB_DOWNLOAD_TIMEOUT`, is read here.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, HFResult};

use super::{ModelFiles, OnProgress, Progress, TokenizerFiles};
use crate::error::{Error, Result};

/// The file that every model has: whether it can be had says whether the model can.
const CONFIG: &str = "config.json";
/// How long the hub may be silent; longer than hf-hub waits for a lock on its cache.
const PATIENCE: Duration = Duration::from_secs(15);
/// Progress is told at most this often.
const TICK: Duration = Duration::from_millis(50);

/// `gpt2` and its like went by one word before the hub had owners.
pub fn full_id(id: &str) -> String {
    match id {
        "gpt2" | "gpt2-medium" | "gpt2-large" | "gpt2-xl" => format!("openai-community/{id}"),
        "distilgpt2" => format!("distilbert/{id}"),
        _ => id.to_owned(),
    }
}

/// Brings the files of a model into the hub's cache; returns them and the commit they are of.
///
/// # Errors
/// [`Error::Hub`] for what the hub or its cache does not give, [`Error::File`] for files that are not
/// a model's.
pub(super) fn fetch(
    id: &str,
    revision: Option<&str>,
    offline: bool,
    on_progress: &OnProgress,
) -> Result<(ModelFiles, Option<String>)> {
    let mut hub = Hub::open(id, revision, offline || is_set("HF_HUB_OFFLINE"), on_progress)?;
    let files = ModelFiles::choose(&hub.place(), |name| hub.find(name));
    // What was looked for in vain may only have been out of reach.
    match (files, hub.unreachable.take()) {
        (Err(_), reason) if hub.missed => Err(reason.unwrap_or_else(|| hub.not_cached())),
        (Ok(files), Some(reason)) if hub.missed && files.tokenizer == TokenizerFiles::None => Err(reason),
        (files, _) => Ok((files?, hub.commit)),
    }
}

/// One model of the hub, while its files are being fetched.
struct Hub<'a> {
    repository: HFRepositorySync<RepoTypeModel>,
    id: &'a str,
    revision: Option<&'a str>,
    endpoint: String,
    cache: PathBuf,
    patience: Duration,
    on_progress: &'a OnProgress,
    /// Known from the first file on; all others are asked for at it, so that they belong together.
    commit: Option<String>,
    /// Ask the cache only.
    offline: bool,
    /// A file was looked for in the cache only, and is not there.
    missed: bool,
    /// Why the cache alone is asked, if that was not wished.
    unreachable: Option<Error>,
}

impl<'a> Hub<'a> {
    fn open(
        id: &'a str,
        revision: Option<&'a str>,
        offline: bool,
        on_progress: &'a OnProgress,
    ) -> Result<Self> {
        let words = id.split_once('/').filter(|(owner, name)| is_word(owner) && is_word(name));
        let Some((owner, name)) = words else {
            return Err(Error::Hub(format!(
                "`{id}` is neither a directory nor an id of the model hub, which has the form owner/name, \
                 as openai-community/gpt2"
            )));
        };
        if let Some(revision) = revision.filter(|revision| !is_revision(revision)) {
            return Err(Error::Hub(format!(
                "`{revision}` cannot be a revision of `{id}`; --revision takes a branch, a tag or a commit"
            )));
        }
        // Few retries: an error is better seen at once than after a long back-off.
        let client = HFClient::builder().retry_max_attempts(2).build().map_err(|e| match e {
            HFError::Url(e) => Error::Hub(format!(
                "`{id}` cannot be fetched: HF_ENDPOINT is not a URL ({e}); correct it, or unset it for \
                 https://huggingface.co"
            )),
            e => {
                Error::Hub(format!("`{id}` cannot be fetched: {}; check your network settings", one_line(&e)))
            }
        })?;
        let (endpoint, cache) = (client.endpoint().to_owned(), client.cache_dir().to_owned());
        let client = HFClientSync::from_inner(client)
            .map_err(|e| Error::Hub(format!("`{id}` cannot be fetched: {}; try again", one_line(&e))))?;
        let seconds = env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|text| text.parse().ok());
        Ok(Self {
            repository: client.model(owner, name),
            id,
            revision,
            endpoint,
            cache,
            patience: seconds.filter(|&s| s > 0).map_or(PATIENCE, Duration::from_secs),
            on_progress,
            commit: revision.filter(|revision| is_commit(revision)).map(str::to_owned),
            offline,
            missed: false,
            unreachable: None,
        })
    }

    /// The path of a file in the cache, fetched into it where need be; `None` if there is no such file.
    fn find(&mut self, name: &str) -> Result<Option<PathBuf>> {
        match self.get(name) {
            Ok(path) => {
                // …/snapshots/<commit>/<name>
                let commit =
                    path.parent().and_then(Path::file_name).map(|c| c.to_string_lossy().into_owned());
                self.commit = self.commit.take().or(commit);
                Ok(Some(path))
            }
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            Err(HFError::LocalEntryNotFound { .. }) => {
                self.missed = true;
                Ok(None)
            }
            // Without the hub go on with what the cache has, which may be all that is needed.
            Err(e) if is_out_of_reach(&e) => {
                self.unreachable = Some(self.explain(name, &e));
                self.offline = true;
                self.find(name)
            }
            Err(e) => Err(self.explain(name, &e)),
        }
    }

    fn get(&self, name: &str) -> HFResult<PathBuf> {
        // A commit never changes: what the cache knows of it, even that it lacks a file, is final.
        if self.offline || self.commit.is_some() {
            let revision = self.commit.as_deref().or(self.revision);
            let file = self.repository.download_file().filename(name).maybe_revision(revision);
            match file.local_files_only(true).send() {
                Err(HFError::LocalEntryNotFound { .. }) if !self.offline => {}
                known => return known,
            }
        }
        self.download(name)
    }

    /// Downloads in a thread of its own, because hf-hub waits for a silent server for ever.
    fn download(&self, name: &str) -> HFResult<PathBuf> {
        let (sender, receiver) = mpsc::channel();
        let relay = Arc::new(Relay { sender: sender.clone(), total: AtomicU64::new(0) });
        let (repository, file) = (self.repository.clone(), name.to_owned());
        let revision = self.commit.as_deref().or(self.revision).map(str::to_owned);
        thread::spawn(move || {
            let request = repository.download_file().filename(&*file).maybe_revision(revision.as_deref());
            let result = match request.progress(relay.clone()).send() {
                Ok(path) => whole(path, relay.total.load(Ordering::Relaxed)),
                Err(e @ HFError::EntryNotFound { .. }) if file == CONFIG => {
                    Err(why_absent(&repository, revision, e))
                }
                failed => failed,
            };
            let _ = sender.send(Message::Done(result)); // nobody waits any more after a timeout
        });

        let mut meter = Meter { file: name, done: 0, start: Instant::now(), told: None };
        loop {
            match receiver.recv_timeout(self.patience) {
                Ok(Message::Bytes(done, total)) => {
                    if let Some(progress) = meter.advance(done, total) {
                        (self.on_progress)(progress);
                    }
                }
                Ok(Message::Alive) => {}
                Ok(Message::Done(result)) => return result,
                Err(RecvTimeoutError::Timeout) => return Err(HFError::Io(ErrorKind::TimedOut.into())),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(HFError::Other("the thread that downloads has died".into()));
                }
            }
        }
    }

    /// The model for a sentence: its id, and the revision if one was asked for.
    fn place(&self) -> String {
        self.revision.map_or_else(|| self.id.to_owned(), |revision| format!("{} at {revision}", self.id))
    }

    fn not_cached(&self) -> Error {
        Error::Hub(format!(
            "`{}` is not in the cache {}, or not wholly; run once without --offline and HF_HUB_OFFLINE to \
             fetch it",
            self.place(),
            self.cache.display()
        ))
    }

    /// One sentence: the model, the problem, the way out.
    fn explain(&self, name: &str, error: &HFError) -> Error {
        let (id, place, endpoint) = (self.id, self.place(), &self.endpoint);
        Error::Hub(match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => format!(
                "{endpoint} refuses `{place}` ({}): it is private or gated, or there is no such model; \
                 check the id, set HF_TOKEN to a token that may read it, and accept the model's terms on \
                 its page if it has any",
                context.status.as_u16()
            ),
            HFError::RepoNotFound { .. } => format!(
                "{endpoint} has no model `{id}` (404), nor is there a directory of that name; check the id, \
                 or set HF_TOKEN if the model is private"
            ),
            HFError::RevisionNotFound { revision, .. } => {
                format!(
                    "`{id}` has no revision `{revision}` (404); give a branch, a tag or a commit that it has"
                )
            }
            HFError::RateLimited { .. } => format!(
                "{endpoint} gives no `{name}` of `{place}` to so many requests (429); wait a minute, or set \
                 HF_TOKEN for a higher limit"
            ),
            HFError::Http { context } => format!(
                "{endpoint} answers {} for `{name}` of `{place}`; try again later, or use --offline for \
                 what is in the cache",
                context.status.as_u16()
            ),
            HFError::Request { source, .. } if source.is_connect() => format!(
                "no connection to {endpoint} for `{place}` ({}); check the network and HF_ENDPOINT and try \
                 again, or use --offline for what is in the cache",
                root(source)
            ),
            HFError::Io(e) if e.kind() == ErrorKind::TimedOut => format!(
                "{endpoint} has sent nothing of `{name}` of `{place}` for {} s; check HF_ENDPOINT and try \
                 again, or use --offline for what is in the cache",
                self.patience.as_secs()
            ),
            HFError::Request { source, .. } => self.broke_off(name, &root(source)),
            HFError::Xet { source, .. } => self.broke_off(name, &root(source.as_ref())),
            HFError::Io(e) if e.kind() == ErrorKind::UnexpectedEof => self.broke_off(name, &e.to_string()),
            HFError::Io(e) => format!(
                "`{name}` of `{place}` cannot be written to the cache {} ({e}); make room there, or set \
                 HF_HOME to another directory",
                self.cache.display()
            ),
            HFError::CacheLockTimeout { .. } => format!(
                "another program is downloading `{name}` of `{place}`; wait until it is done, then try again"
            ),
            HFError::MalformedResponse { what, .. } => format!(
                "{endpoint} does not answer like a model hub for `{name}` of `{place}` ({what}); check \
                 HF_ENDPOINT"
            ),
            other => {
                format!(
                    "`{name}` of `{place}` cannot be fetched from {endpoint} ({}); try again",
                    one_line(other)
                )
            }
        })
    }

    fn broke_off(&self, name: &str, detail: &str) -> String {
        let (place, endpoint) = (self.place(), &self.endpoint);
        format!("the download of `{name}` of `{place}` from {endpoint} broke off ({detail}); try again")
    }
}

/// What the downloading thread says.
enum Message {
    /// Bytes so far, and in all (0 if unknown).
    Bytes(u64, u64),
    Alive,
    Done(HFResult<PathBuf>),
}

/// Hands hf-hub's events on; never blocks, as hf-hub demands.
struct Relay {
    sender: Sender<Message>,
    /// Length of the file, as the hub has announced it.
    total: AtomicU64,
}

impl ProgressHandler for Relay {
    fn on_progress(&self, event: &ProgressEvent) {
        let message = match event {
            ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) => {
                self.total.store(*total_bytes, Ordering::Relaxed);
                Message::Bytes(0, *total_bytes)
            }
            ProgressEvent::Download(DownloadEvent::Progress { files }) if !files.is_empty() => {
                Message::Bytes(files[0].bytes_completed, files[0].total_bytes)
            }
            _ => Message::Alive,
        };
        let _ = self.sender.send(message);
    }
}

/// Turns counts of bytes into progress, told now and then.
struct Meter<'a> {
    file: &'a str,
    done: u64,
    start: Instant,
    told: Option<(Instant, u64)>,
}

impl Meter<'_> {
    fn advance(&mut self, done: u64, total: u64) -> Option<Progress> {
        self.done = self.done.max(done);
        let now = Instant::now();
        if let Some((then, told)) = self.told {
            let due = self.done == total || now - then >= TICK;
            if !due || told == self.done {
                return None;
            }
        } else {
            self.start = now;
        }
        self.told = Some((now, self.done));
        let seconds = (now - self.start).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is read to three digits")]
        let rate = (seconds > 0.0).then(|| self.done as f64 / seconds);
        let total = (total > 0).then_some(total);
        Some(Progress::Download { file: self.file.to_owned(), done: self.done, total, rate })
    }
}

/// `path`, if the file is as long as the hub announced (0: it did not); else removes it.
///
/// hf-hub looks neither at the length nor at the status of the answer that it writes to the cache.
fn whole(path: PathBuf, announced: u64) -> HFResult<PathBuf> {
    let length = fs::metadata(&path)?.len();
    if announced == 0 || length == announced {
        return Ok(path);
    }
    if let Ok(blob) = fs::canonicalize(&path) {
        fs::remove_file(blob)?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let problem = format!("{length} bytes came of {announced}");
    Err(io::Error::new(ErrorKind::UnexpectedEof, problem).into())
}

/// hf-hub takes every 404 for a missing file: asks what is missing, the model, the revision or the file.
fn why_absent(
    repository: &HFRepositorySync<RepoTypeModel>,
    revision: Option<String>,
    absent: HFError,
) -> HFError {
    let repo_id = repository.repo_path();
    match repository.exists().send() {
        Ok(false) => return HFError::RepoNotFound { repo_id, context: None },
        Err(e @ (HFError::AuthRequired { .. } | HFError::Forbidden { .. })) => return e,
        _ => {}
    }
    let Some(revision) = revision else { return absent };
    match repository.revision_exists().revision(&revision).send() {
        Ok(false) => HFError::RevisionNotFound { revision, repo_id, context: None },
        _ => absent,
    }
}

/// Whether the hub could not be reached or did not keep up, so that the cache may have to do.
fn is_out_of_reach(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::RateLimited { .. } | HFError::Xet { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        HFError::Io(e) => matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::UnexpectedEof),
        _ => false,
    }
}

/// Whether an environment variable is set to what the Python client takes for true.
fn is_set(name: &str) -> bool {
    env::var(name).is_ok_and(|value| matches!(&*value.to_lowercase(), "1" | "true" | "yes" | "on"))
}

/// An owner or a name as the hub allows it.
fn is_word(word: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric() || c == '_';
    word.starts_with(is_end)
        && word.ends_with(is_end)
        && word.chars().all(|c| is_end(c) || c == '-' || c == '.')
        && !word.contains("..")
        && !word.contains("--")
}

/// Whether git could know a revision by this name, which also becomes a path in the cache.
fn is_revision(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\\:?*[~^".contains(c);
    !name.is_empty() && !name.starts_with('/') && !name.contains("..") && !name.contains(bad)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// The first cause of an error, which says most.
fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    one_line(error)
}

fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_get_their_owners() {
        assert_eq!(full_id("gpt2"), "openai-community/gpt2");
        assert_eq!(full_id("gpt2-xl"), "openai-community/gpt2-xl");
        assert_eq!(full_id("distilgpt2"), "distilbert/distilgpt2");
        assert_eq!(full_id("stanford-crfm/alias-gpt2-small-x21"), "stanford-crfm/alias-gpt2-small-x21");
        assert_eq!(full_id("gpt3"), "gpt3");
    }

    #[test]
    fn ids_and_revisions_are_checked() {
        for good in ["gpt2", "openai-community", "_x", "a.b-c_d"] {
            assert!(is_word(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a-", "a--b", "a..b", "a b", "é", "a/b", "a%2f"] {
            assert!(!is_word(bad), "{bad}");
        }
        for good in ["main", "refs/pr/1", "v1.0", "607a30d783dfa663caf39e06633721c8d4cfcd7e"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "/etc", "../x", "a b", "a\\b", "a\nb"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn a_file_of_another_length_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(whole(path.clone(), 5).unwrap(), path);
        assert_eq!(whole(path.clone(), 0).unwrap(), path);
        assert!(whole(path.clone(), 6).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn progress_is_told_at_the_start_and_the_end_and_never_goes_back() {
        let mut meter = Meter { file: "f", done: 0, start: Instant::now(), told: None };
        let mut advance = |done| match meter.advance(done, 9) {
            Some(Progress::Download { done, total, .. }) => Some((done, total)),
            _ => None,
        };
        assert_eq!(advance(0), Some((0, Some(9))));
        assert_eq!(advance(0), None);
        assert_eq!(advance(9), Some((9, Some(9))));
        assert_eq!(advance(9), None);
        assert_eq!(advance(3), None);
    }
}
