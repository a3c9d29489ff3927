//! Temporary files that never outlive their use: an error removes them, every signal that can be
//! caught does ([`close`]), and the next write into the same directory removes what a crash left
//! ([`sweep`]).
//!
//! Each is locked while in use, which tells abandoned files from files being written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::{NamedTempFile, TempDir};

const PREFIX: &str = ".actscope-";
const SUFFIX: &str = ".tmp";
/// The number of letters and digits between them.
const LETTERS: usize = 6;

/// A younger file may not be locked yet.
const STALE: Duration = Duration::from_mins(1);

/// The temporary files of this process. While this is held, none is created or renamed.
static LIVE: Mutex<Live> = Mutex::new(Live { paths: Vec::new(), closed: false });

struct Live {
    paths: Vec<PathBuf>,
    closed: bool,
}

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all temporary files of this process and prevents new ones, before the process ends.
#[cfg(feature = "tui")]
pub fn close() {
    let mut live = live();
    live.closed = true;
    for path in live.paths.drain(..) {
        remove(&path);
    }
}

/// Never follows a link.
fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

/// Removes what an earlier process of this user left in `directory`; if in doubt, leaves it.
pub fn sweep(directory: &Path) {
    sweep_older(directory, STALE);
}

/// The same in a directory where no other process is at work, however young the files are.
#[cfg(feature = "corpus")]
pub fn sweep_own(directory: &Path) {
    sweep_older(directory, Duration::ZERO);
}

fn sweep_older(directory: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_temporary)) {
        if let Some(_lock) = stale(&entry.path(), age) {
            remove(&entry.path());
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let letters = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    letters.is_some_and(|l| l.len() == LETTERS && l.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The lock of a file or directory that is no longer in use.
fn stale(path: &Path, age: Duration) -> Option<File> {
    let file = open_itself(path).ok()?;
    let found = file.metadata().ok()?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(&found) != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let old = found.modified().ok()?.elapsed().unwrap_or_default() >= age;
    // On a file system without locks, nothing can be known.
    (old && (found.is_file() || found.is_dir()) && file.try_lock().is_ok()).then_some(file)
}

/// Opens a path without following links and without blocking.
fn open_itself(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use nix::fcntl::OFlag;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    }
    #[cfg(not(unix))]
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    options.read(true).open(path)
}

/// Keeps a temporary file registered until dropped.
#[derive(Debug)]
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        live().paths.retain(|path| *path != self.0);
    }
}

/// Creates a temporary file or directory with ordinary permissions.
fn make<T>(
    mode: u32,
    make: impl FnOnce(&tempfile::Builder) -> io::Result<T>,
    path: impl FnOnce(&T) -> &Path,
) -> io::Result<(T, Listed)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(LETTERS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask applies.
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    let mut live = live();
    if live.closed {
        return Err(io::Error::other("actscope is exiting"));
    }
    let made = make(&builder).map_err(|error| io::Error::new(error.kind(), root_cause(&error)))?;
    let path = path(&made);
    live.paths.push(path.into());
    let listed = Listed(path.into());
    Ok((made, listed))
}

/// The system's error without the name of the temporary file, which means nothing to the user.
fn root_cause(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || {
            let inner = error.get_ref().and_then(|inner| inner.source());
            inner.map_or_else(|| error.kind().to_string(), ToString::to_string)
        },
        |code| io::Error::from_raw_os_error(code).to_string(),
    )
}

/// A new file.
#[derive(Debug)]
pub struct Temporary {
    file: NamedTempFile,
    // After the file, so that it is dropped when the file is gone.
    listed: Listed,
}

impl Temporary {
    /// # Errors
    /// The system's error: no such directory, permission denied, …
    pub fn new(directory: &Path) -> io::Result<Self> {
        let (file, listed) = make(0o666, |new| new.tempfile_in(directory), NamedTempFile::path)?;
        // Not locking is acceptable if locks are not supported.
        let _ = file.as_file().try_lock();
        Ok(Self { file, listed })
    }

    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Renames each file to its name, replacing what is there: all of them, whatever signal arrives.
    ///
    /// # Errors
    /// The name that the system refuses, and why. That file and those after it are not renamed.
    pub fn put(files: Vec<(Self, PathBuf)>) -> Result<(), (PathBuf, io::Error)> {
        let mut files = files.into_iter();
        let mut put = Vec::new();
        // Released before the values above are dropped, which need it.
        let _live = live();
        files.try_for_each(|(Self { file, listed }, path)| {
            put.push(listed);
            file.persist(&path).map(drop).map_err(|refused| (path, refused.error))
        })
    }
}

/// A new directory, to be filled and then renamed into place as a whole.
#[derive(Debug)]
pub struct TemporaryDirectory {
    directory: TempDir,
    _lock: Option<File>,
    _listed: Listed,
}

impl TemporaryDirectory {
    /// # Errors
    /// See [`Temporary::new`].
    pub fn new(parent: &Path) -> io::Result<Self> {
        let (directory, listed) = make(0o777, |new| new.tempdir_in(parent), TempDir::path)?;
        let lock = File::open(directory.path()).ok().filter(|lock| lock.try_lock().is_ok());
        Ok(Self { directory, _lock: lock, _listed: listed })
    }

    /// A new file in the directory.
    ///
    /// # Errors
    /// The system's error.
    pub fn file(&self, name: &str) -> io::Result<File> {
        // Nothing is added while everything is being removed.
        let _live = live();
        File::create_new(self.directory.path().join(name))
    }

    /// Renames it to `path`, which must not exist or be an empty directory.
    ///
    /// # Errors
    /// The system's error; the directory is then removed.
    pub fn put(self, path: &Path) -> io::Result<()> {
        {
            let _live = live();
            fs::rename(self.directory.path(), path)?;
        }
        let _ = self.directory.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn one_that_is_dropped_is_gone_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = Temporary::new(directory.path()).unwrap();
        let new = TemporaryDirectory::new(directory.path()).unwrap();
        new.file("a").unwrap();
        assert_eq!(names(directory.path()).len(), 2);
        let known = [file.file.path().to_owned(), new.directory.path().to_owned()];
        assert!(known.iter().all(|path| live().paths.contains(path)));
        drop((file, new));
        assert!(names(directory.path()).is_empty());
        assert!(!known.iter().any(|path| live().paths.contains(path)));
    }

    #[test]
    fn what_is_put_stays_and_what_is_refused_goes() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        fs::create_dir_all(of("b/full")).unwrap();
        let file = || Temporary::new(directory.path()).unwrap();
        let refused = Temporary::put(vec![(file(), of("a")), (file(), of("b")), (file(), of("c"))]);
        assert_eq!(refused.unwrap_err().0, of("b"));
        assert_eq!(names(directory.path()), ["a", "b"]);
        TemporaryDirectory::new(directory.path()).unwrap().put(&of("d")).unwrap();
        assert!(TemporaryDirectory::new(directory.path()).unwrap().put(&of("b")).is_err());
        assert_eq!(names(directory.path()), ["a", "b", "d"]);
    }

    /// Old, ours by name, and in nobody's use: only then does it go.
    #[cfg(unix)]
    #[test]
    fn only_what_was_left_behind_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let long_ago = std::time::SystemTime::now() - 2 * STALE;
        let age = |path: &Path| File::open(path).unwrap().set_modified(long_ago).unwrap();
        for name in [".actscope-left01.tmp", ".actscope-young1.tmp", ".actscope-notes", ".actscope-a.tmp"] {
            fs::write(of(name), name).unwrap();
        }
        fs::create_dir_all(of(".actscope-leftD1.tmp")).unwrap();
        fs::create_dir_all(of("other")).unwrap();
        fs::write(of("other/file"), "kept").unwrap();
        std::os::unix::fs::symlink("../other", of(".actscope-leftD1.tmp/link")).unwrap();
        std::os::unix::fs::symlink("other", of(".actscope-link01.tmp")).unwrap();
        let live = Temporary::new(directory.path()).unwrap();
        let live_name = live.file.path().file_name().unwrap().to_str().unwrap().to_owned();
        for name in names(directory.path()).iter().filter(|name| !name.contains("young")) {
            age(&of(name));
        }
        sweep(directory.path());
        let mut kept = vec![
            ".actscope-a.tmp",
            ".actscope-link01.tmp",
            ".actscope-notes",
            ".actscope-young1.tmp",
            "other",
        ];
        kept.push(&live_name);
        kept.sort_unstable();
        assert_eq!(names(directory.path()), kept);
        assert_eq!(fs::read(of("other/file")).unwrap(), b"kept");
    }
}
