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
        let path = self.path;
        let shown = plain(name).into_owned();
        let member = guard(|| {
            let member = self.zip.by_name(&format!("{name}.npy")).map_err(|error| error.to_string())?;
            let length = member.size();
            if length > MOST {
                return Err("it is too large".to_owned());
            }
            let mut bytes = Vec::new();
            member.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            Ok(bytes)
        });
        let bytes = member.and_then(|read| read);
        let bytes =
            bytes.map_err(|why| Error::file(path, format!("array `{shown}` cannot be read: {why}")))?;
        let length = bytes.len() as u64;
        array(Cursor::new(bytes), length, &shown, path)
    }

    /// A member that is no array, as text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let mut text = String::new();
        guard(|| self.zip.by_name(name).ok()?.take(1 << 26).read_to_string(&mut text).ok()).ok()??;
        Some(text)
    }
}

/// The array that is `length` bytes long with its header.
fn array(mut from: impl Read, length: u64, name: &str, path: &Path) -> Result<Array> {
    let which = if name.is_empty() { String::new() } else { format!("array `{name}` ") };
    let failed = |why: String| Error::file(path, format!("{which}{why}"));
    let read = guard(|| NpyHeader::from_reader(&mut from).map_err(|error| error.to_string()));
    let header = read.and_then(|read| read).map_err(|why| failed(format!("is no array of numpy: {why}")))?;
    let (npyz::DType::Plain(kind), shape) = (header.dtype(), header.shape().to_vec()) else {
        return Err(failed("holds records, not numbers".into()));
    };
    let Some((format, size)) = format_of(&kind) else {
        return Err(failed(format!("holds {kind}, which are no numbers that can be compared")));
    };
    let n = shape.iter().try_fold(1u64, |n, axis| n.checked_mul(*axis)).filter(|n| *n <= MOST / size);
    let n = n.ok_or_else(|| failed(format!("claims the shape {shape:?}, which is too large")))?;
    if n * size > length {
        return Err(failed(format!("claims the shape {shape:?}, but has {length} bytes")));
    }
    let mut bytes = Vec::new();
    from.take(n * size)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 != n * size {
        return Err(failed(format!("claims the shape {shape:?}, but ends early")));
    }
    let mut shape: Vec<usize> = shape.iter().map(|axis| *axis as usize).collect();
    // Fortran's order is that of the transpose.
    let turned = header.order() == Order::Fortran;
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

/// The format of little-endian numbers, and their size.
fn format_of(kind: &TypeStr) -> Option<(Format, u64)> {
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
    let format = Format::of_safetensors(name)?;
    Some((format, format.size() as u64))
}
