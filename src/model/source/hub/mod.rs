//! The model hub, through hf-hub: its environment variables, its tokens, its downloads.
//!
//! hf-hub reads `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_ENDPOINT`. The
//! Python client also knows `HF_HUB_OFFLINE` and `HF_HUB_DOWNLOAD_TIMEOUT`, which are read here.
//!
//! hf-hub 1.0 turns the hub's answers into paths, unchecked. So it is only used to download bytes:
//! [`ask`] requests the name of a file, and [`cache`] accepts only plain words.

mod ask;
mod cache;
mod trouble;

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, thread};

use futures_util::StreamExt as _;
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFError, HFRepository};
use tokio::runtime::Runtime;

use self::ask::{Announced, Asker};
use self::cache::{Cache, Commit};
use self::trouble::{Trouble, one_line};
use super::files::{ModelFiles, Place};
use super::tokenizer::TokenizerFiles;
use super::{OnProgress, Progress};
use crate::error::{Error, Result};
use crate::text::bytes;

/// The file that every model has; if it is available, so is the model.
const CONFIG: &str = "config.json";
/// How long the hub may be silent.
const PATIENCE: Duration = Duration::from_secs(15);
/// Progress is reported at most this often.
const TICK: Duration = Duration::from_millis(50);
/// The maximum size of a configuration, index or tokenizer.
const LONGEST_TEXT: u64 = 64 << 20;

/// How a model is downloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub id: &'a str,
    pub revision: Option<&'a str>,
    /// Use only the cache.
    pub offline: bool,
    /// Ask the hub for the length of each cached file, and download those that are shorter again.
    pub check: bool,
}

/// Downloads the files of a model into the hub's cache; returns them and their commit.
///
/// # Errors
/// [`Error::Hub`] if the hub or its cache fails, [`Error::File`] for files that are not
/// a model's.
pub(super) fn fetch(wanted: Wanted, on_progress: &OnProgress) -> Result<(ModelFiles, Option<String>)> {
    apart(|| Hub::open(wanted, on_progress)?.fetch())
}

/// Downloads some files of a repository into the hub's cache; `None` for each that it does not have.
///
/// # Errors
/// [`Error::Hub`] if the hub or its cache fails.
pub(super) fn files(
    id: &str,
    names: &[String],
    offline: bool,
    on_progress: &OnProgress,
) -> Result<Vec<Option<PathBuf>>> {
    let wanted = Wanted { id, revision: None, offline, check: false };
    apart(|| Hub::open(wanted, on_progress)?.files(names))
}

/// In a separate thread: the caller may be inside a runtime, which must not be blocked.
fn apart<T: Send>(fetch: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("actscope-hub".into()).spawn_scoped(scope, fetch);
        let started =
            started.map_err(|e| Error::Hub(format!("cannot start a thread for the download ({e})")))?;
        started.join().map_err(|_| Error::Crashed)?
    })
}

/// Whether the hub may be asked at all.
pub(super) fn is_offline() -> bool {
    is_set("HF_HUB_OFFLINE")
}

/// One model of the hub, while its files are being downloaded.
struct Hub<'a> {
    repository: HFRepository<RepoTypeModel>,
    runtime: Runtime,
    asker: Asker,
    cache: Cache,
    id: &'a str,
    revision: Option<&'a str>,
    /// For messages: without a password.
    endpoint: String,
    cache_dir: PathBuf,
    patience: Duration,
    on_progress: &'a OnProgress,
    /// Known from the first file on; all other files are requested at it, so that they belong together.
    commit: Option<Commit>,
    check: bool,
    /// Ask the cache only.
    offline: bool,
    /// A file was looked for only in the cache, and is not there.
    missed: bool,
    /// Why only the cache is used, if the user did not ask for that.
    unreachable: Option<Error>,
}

impl<'a> Hub<'a> {
    fn open(wanted: Wanted<'a>, on_progress: &'a OnProgress) -> Result<Self> {
        let Wanted { id, revision, .. } = wanted;
        let words = id.split_once('/').filter(|(owner, name)| is_word(owner) && is_word(name));
        let Some((owner, name)) = words else {
            return Err(Error::Hub(format!(
                "`{id}` is neither a directory nor a hub id, which has the form owner/name, \
                 such as openai-community/gpt2"
            )));
        };
        if let Some(revision) = revision.filter(|revision| !is_revision(revision)) {
            return Err(Error::Hub(format!(
                "`{revision}` is not a valid revision of `{id}`; --revision takes a branch, tag or commit"
            )));
        }
        let failed = |e: &dyn std::error::Error, advice: &str| {
            Error::Hub(format!("cannot download `{id}`: {}; {advice}", one_line(e)))
        };
        // Few retries: better an error now than after a long back-off.
        let client = HFClient::builder().retry_max_attempts(2).build().map_err(|e| match e {
            HFError::Url(e) => Error::Hub(format!(
                "cannot download `{id}`: HF_ENDPOINT is not a URL ({e}); correct it, or unset it for \
                 https://huggingface.co"
            )),
            e => failed(&e, "check your network settings"),
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let seconds = env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|text| text.parse().ok());
        Ok(Self {
            repository: client.model(owner, name),
            runtime: runtime.map_err(|e| failed(&e, "try again"))?,
            asker: Asker::new(client.endpoint(), id)
                .map_err(|e| failed(&*e, "check your network settings"))?,
            cache: Cache::new(client.cache_dir(), owner, name),
            id,
            revision,
            endpoint: ask::without_password(client.endpoint()),
            cache_dir: client.cache_dir().to_owned(),
            patience: seconds.filter(|&s| s > 0).map_or(PATIENCE, Duration::from_secs),
            on_progress,
            commit: revision.and_then(Commit::new),
            check: wanted.check,
            offline: wanted.offline || is_offline(),
            missed: false,
            unreachable: None,
        })
    }

    fn fetch(mut self) -> Result<(ModelFiles, Option<String>)> {
        let files = ModelFiles::choose(&mut self);
        // Requests in flight are dropped with the runtime, not waited for.
        self.runtime.shutdown_background();
        // A file that was not found may only have been out of reach.
        match (files, self.unreachable.take()) {
            (Err(_), reason) if self.missed => {
                Err(reason.unwrap_or_else(|| not_cached(&place(self.id, self.revision), &self.cache_dir)))
            }
            (Ok(files), Some(reason)) if self.missed && files.tokenizer == TokenizerFiles::None => {
                Err(reason)
            }
            (files, _) => Ok((files?, self.commit.map(|commit| commit.to_string()))),
        }
    }

    fn files(mut self, names: &[String]) -> Result<Vec<Option<PathBuf>>> {
        // They become paths in the cache.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+:".contains(c);
        let is_word = |word: &str| !word.is_empty() && !word.starts_with('.') && word.chars().all(is_plain);
        let is_plain = |name: &String| name.split('/').all(is_word);
        if let Some(name) = names.iter().find(|name| !is_plain(name)) {
            return Err(Error::usage(format!("`{name}` is no name of a file on the hub")));
        }
        let files: Result<Vec<_>> = names.iter().map(|name| self.find(name)).collect();
        self.runtime.shutdown_background();
        let files = files?;
        match self.unreachable.take() {
            reason if self.missed && files.iter().all(Option::is_none) => {
                Err(reason.unwrap_or_else(|| not_cached(&place(self.id, self.revision), &self.cache_dir)))
            }
            _ => Ok(files),
        }
    }

    fn get(&mut self, name: &str) -> Result<PathBuf, Trouble> {
        let revision = self.revision.unwrap_or("main");
        if self.offline {
            self.commit = self.commit.take().or_else(|| self.cache.commit_of(revision));
        }
        // A commit never changes: what the cache knows about it, even that a file is missing, is final.
        if let Some(commit) = self.commit.as_ref().filter(|_| self.offline || !self.check) {
            if let Some(path) = self.cache.file(commit, name)? {
                return Ok(path);
            }
            if self.cache.is_absent(commit, name) {
                return Err(Trouble::Absent);
            }
        }
        if self.offline {
            return Err(Trouble::NotCached);
        }
        let asked = self.commit.as_ref().map_or(revision, Commit::as_str);
        let announced = match (self.wait(self.asker.ask(asked, name)), &self.commit) {
            // Every model has a configuration: is it the model that is missing?
            (Err(Trouble::Absent), _) if name == CONFIG => return Err(self.why_absent()),
            (Err(Trouble::Absent), Some(commit)) => {
                self.cache.set_absent(commit, name)?;
                return Err(Trouble::Absent);
            }
            (announced, _) => announced?,
        };
        let commit = self.commit.get_or_insert_with(|| announced.commit.clone()).clone();
        if self.cache.blob(&announced.etag, announced.length).is_none() {
            self.download(name, &commit, &announced)?;
        }
        let path = self.cache.link(&commit, name, &announced.etag)?;
        if Commit::new(revision).is_none() {
            self.cache.set_commit(revision, &commit)?;
        }
        Ok(path)
    }

    /// Downloads a file into the cache, not a byte longer than announced.
    fn download(&self, name: &str, commit: &Commit, announced: &Announced) -> Result<(), Trouble> {
        let is_text = [".json", ".txt"].iter().any(|ending| name.ends_with(ending));
        let longest = match announced.length {
            Some(length) if is_text && length > LONGEST_TEXT => {
                let [announced, longest] = [length, LONGEST_TEXT].map(bytes);
                let problem = format!("it announces {announced}, but the limit for such a file is {longest}");
                return Err(Trouble::Malformed(problem));
            }
            Some(length) => length,
            None if is_text => LONGEST_TEXT,
            None => return Err(Trouble::Malformed("it does not give the length of the file".into())),
        };
        let mut blob = self.cache.begin(&announced.etag)?;
        if self.cache.blob(&announced.etag, announced.length).is_some() {
            return Ok(()); // by another program, in the meantime
        }
        let mut meter = Meter { file: name, done: 0, start: Instant::now(), told: None };
        let mut tell = |done| {
            if let Some(progress) = meter.advance(done, announced.length.unwrap_or(0)) {
                (self.on_progress)(progress);
            }
        };
        tell(0);
        let file = self.repository.download_file_stream().filename(name).revision(commit.as_str());
        let (_, mut stream) = self.wait(async { Ok(file.send().await?) })?;
        let mut done = 0;
        while let Some(chunk) = self.wait(async { Ok(stream.next().await.transpose()?) })? {
            done += chunk.len() as u64;
            if done > longest {
                return Err(Trouble::Malformed(format!("it sends more than {}", bytes(longest))));
            }
            blob.write_all(&chunk)?;
            tell(done);
        }
        if announced.length.is_some_and(|length| length != done) {
            return Err(Trouble::BrokeOff(format!("{done} of {longest} bytes received")));
        }
        Ok(blob.finish()?)
    }

    /// Waits for the hub until the timeout.
    fn wait<T>(&self, future: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let done = self.runtime.block_on(async { tokio::time::timeout(self.patience, future).await });
        done.unwrap_or(Err(Trouble::Silent))
    }

    /// A hub answers 404 for anything missing: finds out whether it is the model, the revision or the file.
    fn why_absent(&self) -> Trouble {
        match self.wait(async { Ok(self.repository.exists().send().await?) }) {
            Ok(false) => return Trouble::NoModel,
            Err(e @ Trouble::Status(401 | 403)) => return e,
            _ => {}
        }
        let Some(revision) = self.revision else { return Trouble::Absent };
        match self.wait(async { Ok(self.repository.revision_exists().revision(revision).send().await?) }) {
            Ok(false) => Trouble::NoRevision,
            _ => Trouble::Absent,
        }
    }

    /// The model for a message: its id, and the revision if one was requested.
    fn place(&self) -> String {
        place(self.id, self.revision)
    }

    /// One sentence: the model, the problem, the remedy.
    fn explain(&self, name: &str, trouble: &Trouble) -> Error {
        let (id, place, endpoint) = (self.id, self.place(), &self.endpoint);
        Error::Hub(match trouble {
            Trouble::Status(status @ (401 | 403)) => format!(
                "{endpoint} refuses `{place}` ({status}): it is private, gated, or does not exist; \
                 check the id, set HF_TOKEN to a token with access, and accept the model's terms on \
                 its page if it has any"
            ),
            Trouble::NoModel => format!(
                "{endpoint} has no model `{id}` (404), and there is no directory of that name; check the id, \
                 or set HF_TOKEN if the model is private"
            ),
            Trouble::NoRevision => format!(
                "`{id}` has no revision `{}` (404); use one of its branches, tags or commits",
                self.revision.unwrap_or("main")
            ),
            Trouble::Status(429) => format!(
                "{endpoint} refuses `{name}` of `{place}`: too many requests (429); wait a minute, or set \
                 HF_TOKEN for a higher limit"
            ),
            Trouble::Status(status) => format!(
                "{endpoint} answers {status} for `{name}` of `{place}`; try again later, or use --offline for \
                 what is in the cache"
            ),
            Trouble::NoConnection(cause) => format!(
                "cannot connect to {endpoint} for `{place}` ({cause}); check the network and HF_ENDPOINT and \
                 try again, or use --offline for what is in the cache"
            ),
            Trouble::Silent => format!(
                "{endpoint} has sent no data of `{name}` of `{place}` for {} s; check HF_ENDPOINT and try \
                 again, or use --offline for what is in the cache",
                self.patience.as_secs()
            ),
            Trouble::BrokeOff(cause) => format!(
                "the download of `{name}` of `{place}` from {endpoint} was interrupted ({cause}); try again"
            ),
            Trouble::Cache(e) => format!(
                "cannot write `{name}` of `{place}` to the cache {} ({e}); free some space there, or set \
                 HF_HOME to another directory",
                self.cache_dir.display()
            ),
            Trouble::Locked => format!(
                "another program is downloading `{name}` of `{place}`; wait until it finishes, then try again"
            ),
            Trouble::Malformed(what) => format!(
                "{endpoint} does not answer like a model hub for `{name}` of `{place}` ({what}); check \
                 HF_ENDPOINT"
            ),
            Trouble::Absent | Trouble::NotCached => format!("{endpoint} has no `{name}` of `{place}`"),
            Trouble::Other(what) => {
                format!("cannot download `{name}` of `{place}` from {endpoint} ({what}); try again")
            }
        })
    }
}

fn place(id: &str, revision: Option<&str>) -> String {
    let mut place = id.to_owned();
    if let Some(revision) = revision {
        let _ = write!(place, " at {revision}");
    }
    place
}

fn not_cached(place: &str, cache: &std::path::Path) -> Error {
    Error::Hub(format!(
        "`{place}` is not in the cache {}, or only in part; run once without --offline and HF_HUB_OFFLINE to \
         fetch it",
        cache.display()
    ))
}

impl Place for Hub<'_> {
    fn name(&self) -> String {
        self.place()
    }

    /// In the cache, downloaded if necessary.
    fn find(&mut self, name: &str) -> Result<Option<PathBuf>> {
        match self.get(name) {
            Ok(path) => Ok(Some(path)),
            Err(Trouble::Absent) => Ok(None),
            Err(Trouble::NotCached) => {
                self.missed = true;
                Ok(None)
            }
            // Without the hub, continue with the cache, which may be all that is needed.
            Err(e) if e.is_out_of_reach() => {
                self.unreachable = Some(self.explain(name, &e));
                self.offline = true;
                self.find(name)
            }
            Err(e) => Err(self.explain(name, &e)),
        }
    }

    fn list(&mut self) -> Vec<String> {
        if self.offline {
            return Vec::new();
        }
        let revision = self.commit.as_ref().map(|commit| commit.as_str().to_owned());
        let info = async { Ok(self.repository.info().maybe_revision(revision).send().await?) };
        let siblings = self.wait(info).ok().and_then(|info| info.siblings);
        siblings.into_iter().flatten().map(|file| file.rfilename).collect()
    }
}

/// Turns counts of bytes into progress, reported at intervals.
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
        #[expect(clippy::cast_precision_loss, reason = "a rate needs three digits")]
        let rate = (seconds > 0.0).then(|| self.done as f64 / seconds);
        let total = (total > 0).then_some(total);
        Some(Progress::Download { file: self.file.to_owned(), done: self.done, total, rate })
    }
}

/// Whether an environment variable is set to a value that the Python client takes as true.
fn is_set(name: &str) -> bool {
    env::var(name).is_ok_and(|value| matches!(&*value.to_lowercase(), "1" | "true" | "yes" | "on"))
}

/// Whether the hub allows this as an owner or name.
fn is_word(word: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric() || c == '_';
    word.starts_with(is_end)
        && word.ends_with(is_end)
        && word.chars().all(|c| is_end(c) || c == '-' || c == '.')
        && !word.contains("..")
        && !word.contains("--")
}

/// Whether this is a valid git revision, which also becomes a path in the cache.
fn is_revision(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\\:?*[~^".contains(c);
    !name.is_empty() && !name.starts_with('/') && !name.contains("..") && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

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
