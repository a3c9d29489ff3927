//! Where output goes. A file is written completely or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{open_at_once, wait_again};
use crate::temporary::{self, Temporary, TemporaryDirectory};

/// A longer chain of links is a cycle.
const MAX_LINKS: usize = 40;

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    File(PathBuf),
    Stdout,
}

impl Destination {
    /// The destination of `-o PATH`: `-` is standard output.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path == Path::new("-") { Self::Stdout } else { Self::File(path) }
    }

    /// Checks that it can be written to, without changing anything, before a long run.
    ///
    /// # Errors
    /// [`Error::File`]: no such directory, permission denied, is a directory, …
    pub fn prepare(self) -> Result<Prepared> {
        let place = match &self {
            Self::Stdout => Place::Stdout,
            Self::File(path) => place_of(path).map_err(|cause| self.error(&cause))?,
        };
        Ok(Prepared { destination: self, place })
    }

    fn error(&self, cause: &io::Error) -> Error {
        let Self::File(path) = self else {
            return Error::file("standard output", format!("cannot be written: {cause}"));
        };
        let problem = match cause.kind() {
            ErrorKind::IsADirectory => "is a directory: choose a file in it".into(),
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                let place = target(path).unwrap_or_else(|_| path.clone());
                let parent = directory_of(&place).display();
                format!("cannot be written: no directory {parent}; create it first")
            }
            _ if is_pipe_without_reader(path, cause) => {
                "is a pipe without a reader: start its reader first".into()
            }
            ErrorKind::FileTooLarge => {
                format!("cannot be written ({cause}): raise the file limit, or choose another path with -o")
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                format!("cannot be written ({cause}): choose another path with -o")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("cannot be written ({cause}): free some space, or choose another path with -o")
            }
            _ => format!("cannot be written: {cause}"),
        };
        Error::file(path, problem)
    }
}

/// A destination that has been checked.
#[derive(Debug)]
#[must_use = "nothing is written yet"]
pub struct Prepared {
    destination: Destination,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// A device or pipe: there is no old content to keep, and it must not be replaced.
    Special(File),
    /// A new file under this name, with the permissions of the file that it replaces.
    Replace(PathBuf, Option<Permissions>),
}

impl Prepared {
    /// Calls `fill` to write; returns the number of bytes. A file appears whole or not at all: it is
    /// written under a temporary name and then renamed. A closed pipe on standard output
    /// (`| head`) is not an error.
    ///
    /// # Errors
    /// [`Error::File`] with the cause: no space, permission denied, …
    pub fn write(self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<u64> {
        let destination = self.destination.clone();
        if let Place::Replace(path, _) = &self.place {
            temporary::sweep(directory_of(path));
        }
        let (bytes, staged) = self.stage(fill)?;
        Temporary::put(staged.into_iter().collect()).map_err(|(_, cause)| destination.error(&cause))?;
        Ok(bytes)
    }

    /// Calls `fill` to write: to a temporary file that is renamed later, or directly if the destination
    /// cannot be replaced. Also returns the number of bytes.
    fn stage(
        self,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(u64, Option<(Temporary, PathBuf)>)> {
        let Self { destination, place } = self;
        let staged = match place {
            Place::Stdout => match counted(io::stdout().lock(), fill) {
                Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok((0, None)),
                result => result.map(|bytes| (bytes, None)),
            },
            Place::Special(file) => counted(file, fill).map(|bytes| (bytes, None)),
            Place::Replace(path, permissions) => {
                stage(&path, permissions, fill).map(|(bytes, file)| (bytes, Some((file, path))))
            }
        };
        staged.map_err(|cause| destination.error(&cause))
    }
}

/// Writes files, given by name and text, into a directory: all or none. Creates the directory if it
/// does not exist; otherwise replaces files with the same names.
///
/// # Errors
/// [`Error::File`] with the cause.
pub fn write_directory(directory: &Path, files: &[(String, String)]) -> Result<()> {
    let file = |name: &str| Destination::File(directory.join(name));
    if !directory.is_dir() {
        return new_directory(directory, files);
    }
    temporary::sweep(directory);
    let mut staged = Vec::new();
    for (name, text) in files {
        let (_, file) = file(name).prepare()?.stage(|out| out.write_all(text.as_bytes()))?;
        staged.extend(file);
    }
    Temporary::put(staged).map_err(|(path, cause)| Destination::File(path).error(&cause))
}

fn new_directory(directory: &Path, files: &[(String, String)]) -> Result<()> {
    let whole = |cause: io::Error| Destination::File(directory.into()).error(&cause);
    let place = target(directory).map_err(whole)?;
    temporary::sweep(directory_of(&place));
    let new = TemporaryDirectory::new(directory_of(&place)).map_err(whole)?;
    for (name, text) in files {
        let write = || {
            let mut file = new.file(name)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|cause| Destination::File(directory.join(name)).error(&cause))?;
    }
    new.put(&place).map_err(whole)
}

fn place_of(path: &Path) -> io::Result<Place> {
    // Opened but not truncated: this checks the permission, and follows links.
    let (path, permissions) = match open_at_once(OpenOptions::new().write(true), path) {
        Ok(file) => {
            let old = file.metadata()?;
            if !old.is_file() {
                wait_again(&file)?;
                return Ok(Place::Special(file));
            }
            (fs::canonicalize(path)?, Some(old.permissions()))
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
            (target(path)?, None)
        }
        Err(cause) => return Err(cause),
    };
    // Created and removed at once, so that an interrupted run leaves nothing behind.
    Temporary::new(directory_of(&path))?;
    Ok(Place::Replace(path, permissions))
}

#[cfg(unix)]
fn is_pipe_without_reader(path: &Path, cause: &io::Error) -> bool {
    use std::os::unix::fs::FileTypeExt;
    cause.raw_os_error() == Some(nix::libc::ENXIO)
        && fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_pipe_without_reader(_: &Path, _: &io::Error) -> bool {
    false
}

/// The target of a file name: follows links, even to files that do not exist yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    // Without a trailing slash, which would hide a link.
    let mut path: PathBuf = path.components().collect();
    for _ in 0..MAX_LINKS {
        if !path.is_symlink() {
            return Ok(path);
        }
        path = directory_of(&path).join(fs::read_link(&path)?);
    }
    Err(io::Error::other("its links form a cycle"))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Writes a new file in the directory of `path`, so that a rename can put it there.
fn stage(
    path: &Path,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(u64, Temporary)> {
    let new = Temporary::new(directory_of(path))?;
    let bytes = counted(new.file(), fill)?;
    if let Some(permissions) = permissions {
        new.file().set_permissions(permissions)?;
    }
    // Some file systems report a lack of space only now.
    new.file().sync_all()?;
    Ok((bytes, new))
}

fn counted(out: impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
    let mut out = Counting { out: BufWriter::with_capacity(1 << 16, out), bytes: 0 };
    fill(&mut out)?;
    out.flush()?;
    Ok(out.bytes)
}

struct Counting<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
