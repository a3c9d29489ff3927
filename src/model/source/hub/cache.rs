//! The hub's cache on disk, with the layout of the Python client, so that each finds what the
//! other downloaded:
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION           the commit that a branch or tag was at
//!                     blobs/ETAG              the bytes of a file
//!                     snapshots/COMMIT/FILE   a link to them
//!                     .no_exist/COMMIT/FILE   empty: this commit has no such file
//! .locks/models--OWNER--NAME/ETAG.lock        held while a blob is written
//! ```
//!
//! COMMIT and ETAG come from the server. They become paths only as [`Commit`] and [`Etag`], which
//! hold only a plain word, and nothing outside the cache is read, written or removed, whatever
//! links it contains.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// How long to wait for another program that is writing a blob we need.
const PATIENCE: Duration = Duration::from_secs(10);

/// 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// `None` for anything else.
    pub fn new(text: &str) -> Option<Self> {
        let is_commit = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_commit.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A server's name for the contents of a file: letters, digits, `.`, `_` and `-`, not only dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Parses the header `ETag` or `X-Linked-Etag`, with or without quotes; `None` if it cannot name
    /// a file.
    pub fn new(header: &str) -> Option<Self> {
        let text = header.strip_prefix("W/").unwrap_or(header).trim_matches('"');
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=128).contains(&text.len())
            && text.bytes().all(is_word)
            && !text.starts_with('.')
            // Names that the cache itself uses.
            && !text.ends_with(".incomplete");
        is_name.then(|| Self(text.to_owned()))
    }
}

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    folder: String,
}

impl Cache {
    /// `owner` and `name` are the parts of a checked id.
    pub fn new(root: &Path, owner: &str, name: &str) -> Self {
        Self { root: root.into(), folder: format!("models--{owner}--{name}") }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.root.join(&self.folder).join(kind)
    }

    /// The commit that `revision` was at when the hub was last asked.
    pub fn commit_of(&self, revision: &str) -> Option<Commit> {
        let path = self.path("refs").join(revision);
        let path = self.inside(&path).ok()?;
        Commit::new(fs::read_to_string(path).ok()?.trim())
    }

    /// A file of a commit; `None` if it is missing or empty, which no file of a model is.
    ///
    /// # Errors
    /// A link that leads out of the cache.
    pub fn file(&self, commit: &Commit, name: &str) -> io::Result<Option<PathBuf>> {
        let path = self.path("snapshots").join(&commit.0).join(name);
        match fs::metadata(&path) {
            Ok(file) if file.is_file() && file.len() > 0 => self.inside(&path).map(|_| Some(path)),
            _ => Ok(None),
        }
    }

    /// Whether the hub has said that a commit does not have a file.
    pub fn is_absent(&self, commit: &Commit, name: &str) -> bool {
        self.path(".no_exist").join(&commit.0).join(name).is_file()
    }

    /// Records that a commit does not have a file.
    ///
    /// # Errors
    /// The system's errors.
    pub fn set_absent(&self, commit: &Commit, name: &str) -> io::Result<()> {
        let path = self.path(".no_exist").join(&commit.0).join(name);
        self.directory(path.parent().unwrap_or(&path))?;
        match File::create_new(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// The blob of an etag, if it exists and has the right length.
    pub fn blob(&self, etag: &Etag, length: Option<u64>) -> Option<PathBuf> {
        let path = self.path("blobs").join(&etag.0);
        let found = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        let whole = length.map_or(found > 0, |length| found == length);
        (whole && self.inside(&path).is_ok()).then_some(path)
    }

    /// Starts a blob; other programs that want to write it wait until it is finished or dropped.
    ///
    /// # Errors
    /// `TimedOut` while another program writes it, and the system's errors.
    pub fn begin(&self, etag: &Etag) -> io::Result<Unfinished> {
        let locks = self.directory(&self.root.join(".locks").join(&self.folder))?;
        let lock =
            OpenOptions::new().create(true).append(true).open(locks.join(format!("{}.lock", etag.0)))?;
        let start = Instant::now();
        while lock.try_lock().is_err() {
            if start.elapsed() > PATIENCE {
                return Err(ErrorKind::ResourceBusy.into());
            }
            sleep(Duration::from_millis(50));
        }
        let blob = self.directory(&self.path("blobs"))?.join(&etag.0);
        let path = blob.with_file_name(format!("{}.incomplete", etag.0));
        // Left by a killed download; created anew, so that no link is followed.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Unfinished { file, path, blob, _lock: lock })
    }

    /// Links a blob to its file name in a commit.
    ///
    /// # Errors
    /// The system's errors.
    pub fn link(&self, commit: &Commit, name: &str, etag: &Etag) -> io::Result<PathBuf> {
        let path = self.path("snapshots").join(&commit.0).join(name);
        self.directory(path.parent().unwrap_or(&path))?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        #[cfg(unix)]
        let up = "../".repeat(2 + name.matches('/').count());
        #[cfg(unix)]
        std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(&etag.0), &path)?;
        #[cfg(not(unix))] // where links need a privilege
        fs::copy(self.path("blobs").join(&etag.0), &path)?;
        self.inside(&path).map(|_| path)
    }

    /// Records the commit that a branch or tag is at.
    ///
    /// # Errors
    /// The system's errors.
    pub fn set_commit(&self, revision: &str, commit: &Commit) -> io::Result<()> {
        let path = self.path("refs").join(revision);
        let directory = self.directory(path.parent().unwrap_or(&path))?;
        let file = NamedTempFile::new_in(&directory)?;
        fs::write(file.path(), &commit.0)?;
        file.persist(path).map(drop).map_err(|e| e.error)
    }

    /// Creates a directory in the cache.
    fn directory(&self, path: &Path) -> io::Result<PathBuf> {
        // Component by component, so that none is created behind a link that leads out.
        let mut made = self.root.clone();
        fs::create_dir_all(&made)?;
        for part in path.strip_prefix(&self.root).map_err(io::Error::other)?.components() {
            made.push(part);
            match fs::create_dir(&made) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => self.inside(&made)?,
            };
        }
        Ok(made)
    }

    /// The target of a path, if it is in the cache.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let resolved = fs::canonicalize(path)?;
        if resolved.starts_with(fs::canonicalize(&self.root)?) {
            return Ok(resolved);
        }
        let problem = format!("{} leads out of the cache, to {}", path.display(), resolved.display());
        Err(io::Error::new(ErrorKind::PermissionDenied, problem))
    }
}

/// A blob that is being written; if dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    path: PathBuf,
    blob: PathBuf,
    _lock: File,
}

impl Unfinished {
    /// Moves it into place.
    ///
    /// # Errors
    /// The system's errors.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.blob)
    }
}

impl io::Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing to remove once it is finished.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn what_a_server_says_is_a_word_or_nothing() {
        let etag = |text: &str| Etag::new(text).map(|etag| etag.0);
        assert_eq!(etag("\"a.b-c_9\"").as_deref(), Some("a.b-c_9"));
        assert_eq!(etag("W/\"a\"").as_deref(), Some("a"));
        let long = "a".repeat(129);
        for bad in [
            "",
            "\"\"",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a b",
            "é",
            "a\n",
            ".x",
            &long,
            "a.incomplete",
        ] {
            assert_eq!(etag(bad), None, "{bad}");
        }
        assert!(Commit::new(COMMIT).is_some());
        for bad in
            ["", "main", "/etc", "../../x", &COMMIT[1..], &format!("{COMMIT}0"), &COMMIT.replace('0', "/")]
        {
            assert_eq!(Commit::new(bad), None, "{bad}");
        }
    }

    fn stored(cache: &Cache, bytes: &[u8]) -> (Commit, Etag) {
        let (commit, etag) = (Commit::new(COMMIT).unwrap(), Etag::new("e").unwrap());
        let mut blob = cache.begin(&etag).unwrap();
        blob.write_all(bytes).unwrap();
        blob.finish().unwrap();
        (commit, etag)
    }

    #[test]
    fn what_is_stored_is_found_and_what_is_short_is_not() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), "o", "n");
        let (commit, etag) = stored(&cache, b"12345");
        assert_eq!(cache.file(&commit, "f").unwrap(), None);
        let path = cache.link(&commit, "f", &etag).unwrap();
        assert_eq!(cache.file(&commit, "f").unwrap(), Some(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"12345");
        assert!(cache.blob(&etag, Some(5)).is_some() && cache.blob(&etag, None).is_some());
        assert_eq!(cache.blob(&etag, Some(6)), None);
        fs::write(&path, "").unwrap();
        assert_eq!((cache.blob(&etag, None), cache.file(&commit, "f").unwrap()), (None, None));
        cache.set_commit("refs/pr/1", &commit).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1"), Some(commit.clone()));
        assert!(!cache.is_absent(&commit, "g"));
        cache.set_absent(&commit, "g").unwrap();
        assert!(cache.is_absent(&commit, "g"));
    }

    #[test]
    fn a_blob_that_is_not_finished_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), "o", "n");
        let etag = Etag::new("e").unwrap();
        cache.begin(&etag).unwrap().write_all(b"1").unwrap();
        assert_eq!(fs::read_dir(root.path().join("models--o--n/blobs")).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn no_link_leads_out_of_the_cache() {
        use std::os::unix::fs::symlink;
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "whole").unwrap();
        let cache = Cache::new(root.path(), "o", "n");
        let (commit, etag) = stored(&cache, b"12345");
        let snapshot = root.path().join("models--o--n/snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        // A file that leads out is refused, not read.
        symlink(&victim, snapshot.join("f")).unwrap();
        assert!(cache.file(&commit, "f").unwrap_err().to_string().contains("out of the cache"));
        // A new link takes the place of one that leads out, and leaves alone what that led to.
        cache.link(&commit, "f", &etag).unwrap();
        // A part of a download that leads out is replaced as well.
        symlink(&victim, root.path().join("models--o--n/blobs/x.incomplete")).unwrap();
        cache.begin(&Etag::new("x").unwrap()).unwrap().write_all(b"evil").unwrap();
        // A blob that leads out is none.
        symlink(&victim, root.path().join("models--o--n/blobs/y")).unwrap();
        assert_eq!(cache.blob(&Etag::new("y").unwrap(), None), None);
        // A branch that leads out is not followed either way.
        fs::create_dir_all(root.path().join("models--o--n/refs")).unwrap();
        symlink(&victim, root.path().join("models--o--n/refs/main")).unwrap();
        assert_eq!(cache.commit_of("main"), None);
        cache.set_commit("main", &commit).unwrap();
        // No directory is made behind a link that leads out.
        symlink(outside.path(), root.path().join("models--o--n/.no_exist")).unwrap();
        assert!(cache.set_absent(&commit, "g").is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "whole");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
