//! Numpy's files: one array, or a zip archive of them.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use candle_core::{DType, Tensor};
use npyz::{NpyHeader, Order, TypeStr};
use zip::ZipArchive;

use crate::error::{Error, Result};
use crate::guard::guard;
use crate::model::Format;
use crate::text::plain;

/// More than any header has.
const LONGEST_HEADER: u64 = 1 << 16;
/// The most bytes of an array that are read.
const MOST: u64 = 1 << 34;

/// An array.
#[derive(Debug)]
pub enum Array {
    /// As float32, and what it is in the file.
    Floats(Tensor, Format),
    Integers(Vec<i64>, Vec<usize>),
}

/// The array of a `.npy` file.
///
/// # Errors
/// [`Error::File`] for a file that is none.
pub fn read(path: &Path) -> Result<Array> {
    let failed = |error: std::io::Error| Error::file(path, format!("cannot be read: {error}"));
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    array(BufReader::new(file), length, "", path)
}

/// The arrays of a `.npz` file.
pub struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<File>>,
}

impl<'a> Archive<'a> {
    /// # Errors
    /// [`Error::File`] for a file that is no zip archive.
    pub fn open(path: &'a Path) -> Result<Self> {
        let failed = |why: String| Error::file(path, format!("is no .npz file: {why}"));
        let file = File::open(path).map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
        let zip = guard(|| ZipArchive::new(BufReader::new(file))).map_err(failed)?;
        Ok(Self { path, zip: zip.map_err(|error| failed(error.to_string()))? })
    }

    /// The names of its arrays, without `.npy`.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names().filter_map(|name| {
            let name = name.ok()?;
            name.strip_suffix(".npy").map(ToOwned::to_owned)
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// An array.
    ///
    /// # Errors
    /// [`Error::File`] for one that is missing or cannot be read.
    pub fn array(&mut self, name: &str) -> Result<Array> {
        let (length, bytes) = self.start(name, MOST)?;
        array(Cursor::new(bytes), length, &plain(name), self.path)
    }

    /// The format and shape of an array, of which only the header is read; `None` if it holds no numbers.
    ///
    /// # Errors
    /// [`Error::File`] for one that is missing, no array, or shorter than its shape takes.
    pub fn info(&mut self, name: &str) -> Result<Option<(Format, Vec<usize>)>> {
        let (length, bytes) = self.start(name, LONGEST_HEADER)?;
        let header = header(&mut Cursor::new(bytes), length, &plain(name), self.path)?;
        Ok(header.map(|header| (header.format, header.shape)))
    }

    /// The length of a member, and at most so many of its first bytes.
    fn start(&mut self, name: &str, most: u64) -> Result<(u64, Vec<u8>)> {
        let (path, shown) = (self.path, plain(name).into_owned());
        let member = guard(|| {
            let member = self.zip.by_name(&format!("{name}.npy")).map_err(|error| error.to_string())?;
            let length = member.size();
            if length > MOST {
                return Err("it is too large".to_owned());
            }
            let mut bytes = Vec::new();
            member.take(length.min(most)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            Ok((length, bytes))
        });
        let read = member.and_then(|read| read);
        read.map_err(|why| Error::file(path, format!("array `{shown}` cannot be read: {why}")))
    }

    /// A member that is no array, as text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let mut text = String::new();
        guard(|| self.zip.by_name(name).ok()?.take(1 << 26).read_to_string(&mut text).ok()).ok()??;
        Some(text)
    }
}

/// What an array says of itself.
struct Header {
    format: Format,
    shape: Vec<usize>,
    /// Whether it is in Fortran's order.
    turned: bool,
}

/// Which array an error is about.
fn which(name: &str, path: &Path, why: &str) -> Error {
    let which = if name.is_empty() { String::new() } else { format!("array `{name}` ") };
    Error::file(path, format!("{which}{why}"))
}

/// The header of an array that is `length` bytes long with it; `None` if it holds no numbers that can be compared.
fn header(from: &mut impl Read, length: u64, name: &str, path: &Path) -> Result<Option<Header>> {
    let failed = |why: String| which(name, path, &why);
    let read = guard(|| NpyHeader::from_reader(from).map_err(|error| error.to_string()));
    let header = read.and_then(|read| read).map_err(|why| failed(format!("is no array of numpy: {why}")))?;
    let (npyz::DType::Plain(kind), shape) = (header.dtype(), header.shape().to_vec()) else {
        return Ok(None);
    };
    let Some(format) = format_of(&kind) else { return Ok(None) };
    let size = format.size() as u64;
    let n = shape.iter().try_fold(1u64, |n, axis| n.checked_mul(*axis)).filter(|n| *n <= MOST / size);
    let n = n.ok_or_else(|| failed(format!("claims the shape {shape:?}, which is too large")))?;
    if n * size > length {
        return Err(failed(format!("claims the shape {shape:?}, but has {length} bytes")));
    }
    let shape = shape.iter().map(|axis| *axis as usize).collect();
    Ok(Some(Header { format, shape, turned: header.order() == Order::Fortran }))
}

/// The array that is `length` bytes long with its header.
fn array(mut from: impl Read, length: u64, name: &str, path: &Path) -> Result<Array> {
    let failed = |why: String| which(name, path, &why);
    let Some(Header { format, mut shape, turned }) = header(&mut from, length, name, path)? else {
        return Err(failed("holds no numbers that can be compared".into()));
    };
    let n_bytes = (shape.iter().product::<usize>() * format.size()) as u64;
    let mut bytes = Vec::new();
    from.take(n_bytes).read_to_end(&mut bytes).map_err(|error| failed(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 != n_bytes {
        return Err(failed(format!("claims the shape {shape:?}, but ends early")));
    }
    // Fortran's order is that of the transpose.
    if turned {
        shape.reverse();
    }
    if let Some(all) = format.integers(&bytes) {
        if turned {
            return Err(failed("holds whole numbers in Fortran's order".into()));
        }
        return Ok(Array::Integers(all, shape));
    }
    let x = format.tensor(&bytes, &shape)?.to_dtype(DType::F32)?;
    let axes: Vec<usize> = (0..shape.len()).rev().collect();
    let x = if turned { x.permute(axes)?.contiguous()? } else { x };
    Ok(Array::Floats(x, format))
}

/// The format of little-endian numbers.
fn format_of(kind: &TypeStr) -> Option<Format> {
    let text = kind.to_string();
    let name = match text.trim_start_matches(['\'', '"']).trim_end_matches(['\'', '"']) {
        "<f2" => "F16",
        "<f4" => "F32",
        "<f8" => "F64",
        "<i8" => "I64",
        "<i4" => "I32",
        "<i2" => "I16",
        "|u1" => "U8",
        "<u4" => "U32",
        _ => return None,
    };
    Format::of_safetensors(name)
}
