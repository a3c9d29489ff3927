//! Where a file goes: all of it under its name, or nothing.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    File(PathBuf),
    Stdout,
}

impl Destination {
    /// The place that `-o PATH` names: `-` is standard output.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path == Path::new("-") { Self::Stdout } else { Self::File(path) }
    }

    /// Finds out whether it can be written to, and changes nothing there: for before a long run.
    ///
    /// # Errors
    /// [`Error::File`]: no such directory, no right to write, a directory in the file's place, …
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
        let parent = directory_of(path);
        let problem = match cause.kind() {
            ErrorKind::IsADirectory => "is a directory: name a file in it".into(),
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                format!("cannot be written: there is no directory {}; make it first", parent.display())
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                format!("cannot be written ({cause}): choose another place with -o")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("cannot be written ({cause}): make room, or choose another place with -o")
            }
            _ => format!("cannot be written: {cause}"),
        };
        Error::file(path, problem)
    }
}

/// A destination that could be written to a moment ago.
#[derive(Debug)]
#[must_use = "nothing is written yet"]
pub struct Prepared {
    destination: Destination,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// A device or pipe: there is no old content to keep, and nothing may take its place.
    Special(File),
    /// A new file under this name, with the permissions of the one that it replaces.
    Replace(PathBuf, Option<Permissions>),
}

impl Prepared {
    /// Lets `fill` write, and gives the number of bytes. A file appears whole or not at all: it is
    /// written beside its place and then renamed. A reader of standard output that has had enough
    /// (`| head`) is no error.
    ///
    /// # Errors
    /// [`Error::File`] with the cause: no space, no right to write, …
    pub fn write(self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<u64> {
        let Self { destination, place } = self;
        let written = match place {
            Place::Stdout => match counted(io::stdout().lock(), fill) {
                Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(0),
                result => result,
            },
            Place::Special(file) => counted(file, fill),
            Place::Replace(path, permissions) => replace(&path, permissions, fill),
        };
        written.map_err(|cause| destination.error(&cause))
    }
}

fn place_of(path: &Path) -> io::Result<Place> {
    // Opened but not emptied: this asks for the right to write, and follows links.
    let (path, permissions) = match OpenOptions::new().write(true).open(path) {
        Ok(file) => {
            let old = file.metadata()?;
            if !old.is_file() {
                return Ok(Place::Special(file));
            }
            (fs::canonicalize(path)?, Some(old.permissions()))
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
            (path.into(), None)
        }
        Err(cause) => return Err(cause),
    };
    // Made and removed at once, so that nothing is left behind when the run is interrupted.
    beside(&path)?;
    Ok(Place::Replace(path, permissions))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A temporary file in the same directory as `path`, so that a rename can put it there.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".actscope-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file has them: the umask takes away what it should.
        builder.permissions(Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory_of(path)).map_err(|error| io::Error::new(error.kind(), root_cause(&error)))
}

/// What the system said, without the name of the temporary file, which means nothing to anybody.
fn root_cause(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || {
            let inner = error.get_ref().and_then(|inner| inner.source());
            inner.map_or_else(|| error.kind().to_string(), ToString::to_string)
        },
        |code| io::Error::from_raw_os_error(code).to_string(),
    )
}

fn replace(
    path: &Path,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let file = beside(path)?;
    let bytes = counted(file.as_file(), fill)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    // Some file systems say only now that there is no space.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(bytes)
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
