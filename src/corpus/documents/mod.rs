//! Documents: what the inputs of a corpus hold, one after the other.

mod ids;
mod json;
mod rows;
mod text;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, unreadable};

/// What a document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    Ids(Vec<u32>),
}

/// Why a document cannot be used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It has no tokens.
    Empty,
    /// It has more tokens than the context: it is run in pieces.
    TooLong,
    NotUtf8,
    NotJson,
    /// A JSON object without the field.
    NoField,
    /// A value that is neither text nor a list of token ids.
    WrongType,
    /// A token id that the model does not have.
    NotInVocabulary,
    /// The tokenizer fails on it.
    NotTokenized,
}

impl Fault {
    /// What is wrong with a document.
    pub fn said(self) -> &'static str {
        match self {
            Self::Empty => "no tokens",
            Self::TooLong => "longer than the context, so run in pieces",
            Self::NotUtf8 => "not UTF-8 text",
            Self::NotJson => "not JSON",
            Self::NoField => "no such field (see --field)",
            Self::WrongType => "neither text nor a list of token ids",
            Self::NotInVocabulary => "a token id that the model does not have",
            Self::NotTokenized => "cannot be tokenized",
        }
    }
}

/// One document of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Which input it is from.
    pub input: usize,
    /// Its number in that input, from 1: the line of a `.jsonl`, say.
    pub line: u64,
    pub content: Result<Content, Fault>,
}

/// What separates the documents of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Per {
    /// Blank lines separate documents
    BlankLine,
    /// Each line is a document
    Line,
    /// Each file is a document
    File,
}

/// How the inputs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub per: Per,
    /// The field of JSON objects, or the column of a Parquet file; `None`: `text`, or a usual name of ids.
    pub field: Option<String>,
    /// The token that separates the documents of a stream of ids.
    pub separator: Option<u32>,
}

/// Where a document's text or ids are, by default: fields of JSON objects, columns of Parquet files.
const FIELDS: [&str; 5] = ["text", "input_ids", "token_ids", "ids", "tokens"];

/// The documents of one input, each with its number there.
type Found = Box<dyn Iterator<Item = Result<(u64, Result<Content, Fault>)>>>;

/// The documents of several inputs, in order.
pub struct Documents {
    inputs: std::iter::Enumerate<std::vec::IntoIter<PathBuf>>,
    reading: Reading,
    current: Option<(usize, Found)>,
    read: Rc<Cell<u64>>,
    /// The size of all inputs in bytes, if it is known.
    pub size: Option<u64>,
}

impl Documents {
    /// Checks that all inputs are there and of a known kind; `-` is standard input, a text.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, or of no known kind.
    pub fn open(inputs: &[PathBuf], reading: Reading) -> Result<Self> {
        let mut size = Some(0);
        for path in inputs {
            kind(path)?;
            let bytes = if path == Path::new("-") {
                None
            } else {
                let found = std::fs::metadata(path);
                Some(found.map_err(|error| unreadable(path, &error))?.len())
            };
            size = size.zip(bytes).map(|(a, b)| a + b);
        }
        let inputs = Vec::from(inputs).into_iter().enumerate();
        Ok(Self { inputs, reading, current: None, read: Rc::default(), size })
    }

    /// How many bytes of the inputs have been read.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    fn begin(&self, path: &Path) -> Result<Found> {
        let file = || -> Result<Box<dyn BufRead>> {
            if path == Path::new("-") {
                return Ok(Box::new(stdin().lock()));
            }
            let file = files::open(path).map_err(|error| unreadable(path, &error))?;
            Ok(Box::new(BufReader::with_capacity(1 << 16, Counted { file, read: Rc::clone(&self.read) })))
        };
        let (path, reading) = (path.to_owned(), &self.reading);
        Ok(match kind(&path)? {
            Kind::Text => text::documents(file()?, path, reading.per),
            Kind::JsonLines => json::lines(file()?, path, reading.field.clone()),
            Kind::Json => json::whole(&mut file()?, path, reading.field.clone())?,
            Kind::Parquet => rows::documents(&path, reading.field.as_deref(), Rc::clone(&self.read))?,
            Kind::Npy => ids::npy(file()?, path, reading.separator)?,
            Kind::Bin => ids::bin(file()?, path, reading.separator)?,
        })
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((input, found)) = &mut self.current {
                if let Some(next) = found.next() {
                    let input = *input;
                    return Some(next.map(|(line, content)| Document { input, line, content }));
                }
                self.current = None;
            }
            let (input, path) = self.inputs.next()?;
            match self.begin(&path) {
                Ok(found) => self.current = Some((input, found)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

enum Kind {
    Text,
    JsonLines,
    Json,
    Parquet,
    Npy,
    Bin,
}

fn kind(path: &Path) -> Result<Kind> {
    if path == Path::new("-") {
        return Ok(Kind::Text);
    }
    let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
    Ok(match end.as_deref() {
        Some("txt" | "text" | "md") => Kind::Text,
        Some("jsonl" | "ndjson") => Kind::JsonLines,
        Some("json") => Kind::Json,
        Some("parquet") => Kind::Parquet,
        Some("npy") => Kind::Npy,
        Some("bin") => Kind::Bin,
        _ => {
            return Err(Error::file(
                path,
                "is of no kind that a corpus is read from: .txt, .jsonl, .json, .parquet, .npy or .bin",
            ));
        }
    })
}

/// A file that counts the bytes that are read.
struct Counted<R> {
    file: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(into)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}
