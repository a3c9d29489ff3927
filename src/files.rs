//! Small files from the user: read whole, with a size limit, without blocking on a dead pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::text;

/// What a file is, and the maximum size of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    noun: &'static str,
    at_most: u64,
}

#[cfg(feature = "cli")]
pub const PROMPT: Kind = Kind { noun: "prompt", at_most: 1 << 20 };
#[cfg(feature = "tui")]
pub const INTERVENTIONS: Kind = Kind { noun: "list of interventions", at_most: 1 << 20 };
#[cfg(feature = "tui")]
pub const STATE: Kind = Kind { noun: "state of the explorer", at_most: 1 << 24 };
#[cfg(feature = "cli")]
pub const REPORT: Kind = Kind { noun: "report of bench", at_most: 1 << 24 };
#[cfg(feature = "cli")]
pub const SETTINGS: Kind = Kind { noun: "file of settings", at_most: 1 << 20 };
pub const LABELS: Kind = Kind { noun: "list of labels", at_most: 1 << 28 };
pub const CONFIGURATION: Kind = Kind { noun: "configuration", at_most: 1 << 24 };
pub const INDEX: Kind = Kind { noun: "index of weight files", at_most: 1 << 25 };
pub const TOKENIZER: Kind = Kind { noun: "tokenizer", at_most: 1 << 26 };
pub const MAPPING: Kind = Kind { noun: "mapping of names", at_most: 1 << 20 };

/// The bytes of a file.
///
/// # Errors
/// [`Error::File`] if it is missing, unreadable or larger than its kind allows, and for a
/// FIFO without a writer.
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>> {
    let file = open(path).map_err(|e| unreadable(path, &e))?;
    let length = std::fs::metadata(path).map_or(0, |found| found.len());
    read_all(file, length, path, kind)
}

/// The text of a file.
///
/// # Errors
/// See [`read`]; also [`Error::File`], with the place, for bytes that are not UTF-8.
pub fn read_text(path: &Path, kind: Kind) -> Result<String> {
    utf8(read(path, kind)?, path)
}

/// The text on standard input.
#[cfg(feature = "cli")]
pub fn read_stdin(kind: Kind) -> Result<String> {
    let name = Path::new("standard input");
    utf8(read_all(io::stdin(), 0, name, kind)?, name)
}

/// `length` is the expected length, so that memory is allocated once.
fn read_all(file: impl Read, length: u64, name: &Path, kind: Kind) -> Result<Vec<u8>> {
    let Kind { noun, at_most } = kind;
    let mut bytes = Vec::with_capacity(length.min(at_most) as usize + 1);
    file.take(at_most + 1).read_to_end(&mut bytes).map_err(|e| unreadable(name, &e))?;
    if bytes.len() as u64 > at_most {
        let most = text::bytes(at_most);
        return Err(Error::file(name, format!("is larger than {most}, the limit for its kind ({noun})")));
    }
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>, name: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let place = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..place].split(|&byte| byte == b'\n').count();
        Error::file(name, format!("is not UTF-8 text: see byte {place}, on line {line}"))
    })
}

/// The error for a file that cannot be read, with the cause.
pub(crate) fn unreadable(name: &Path, error: &io::Error) -> Error {
    Error::file(name, format!("cannot be read: {error}"))
}

/// Opening a FIFO blocks until its other end is opened, which may never happen. Without blocking, its
/// first bytes tell whether there is a writer. From then on, reading waits for the writer, as it should.
#[cfg(unix)]
pub(crate) fn open(path: &Path) -> io::Result<impl Read + use<>> {
    use std::os::unix::fs::FileTypeExt;

    let mut file = open_at_once(OpenOptions::new().read(true), path)?;
    let mut first = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        let mut buffer = [0; 1 << 12];
        match file.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("nothing is writing to this pipe")),
            Ok(n) => first.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {} // a writer is there
            Err(e) => return Err(e),
        }
    }
    wait_again(&file)?;
    Ok(io::Cursor::new(first).chain(file))
}

#[cfg(not(unix))]
pub(crate) fn open(path: &Path) -> io::Result<impl Read + use<>> {
    File::open(path)
}

/// Opens a file; for a pipe, without waiting for its other end.
pub(crate) fn open_at_once(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, nix::fcntl::OFlag::O_NONBLOCK.bits());
    options.open(path)
}

/// From now on, reading from and writing to a pipe wait for its other end.
#[cfg(unix)]
pub(crate) fn wait_again(file: &File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn wait_again(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Kind = Kind { noun: "thing", at_most: 4 };

    fn said(path: &Path) -> String {
        read_text(path, SMALL).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_up_to_its_cap() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "abcd"] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read_text(file.path(), SMALL).unwrap(), text);
        }
        std::fs::write(file.path(), "abcde").unwrap();
        assert!(said(file.path()).ends_with("is larger than 4 B, the limit for its kind (thing)"));
        std::fs::write(file.path(), b"a\nb\xff").unwrap();
        assert!(said(file.path()).ends_with("is not UTF-8 text: see byte 3, on line 2"));
        assert!(said(&file.path().with_extension("no")).contains("cannot be read: No such file"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_plain_file_is_read_or_refused_at_once() {
        assert!(said(Path::new("/dev/zero")).contains("is larger than"));
        assert_eq!(read(Path::new("/dev/null"), SMALL).unwrap(), b"");
        assert!(said(std::env::temp_dir().as_path()).contains("directory"));
    }

    #[cfg(unix)]
    #[test]
    fn a_fifo_is_read_if_somebody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(said(&fifo).ends_with("cannot be read: nothing is writing to this pipe"));
        let writer = {
            let fifo = fifo.clone();
            // A reader that goes away again breaks the pipe.
            std::thread::spawn(move || while std::fs::write(&fifo, "é").is_err() {})
        };
        let text = loop {
            match read_text(&fifo, SMALL) {
                Err(error) if error.to_string().contains("nothing is writing") => std::thread::yield_now(),
                read => break read,
            }
        };
        writer.join().unwrap();
        assert_eq!(text.unwrap(), "é");
    }
}
