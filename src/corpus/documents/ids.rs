//! Documents of token ids: numpy's `.npy`, and the `.bin` of llm.c and nanoGPT. Read as they are run, so that files
//! may be larger than the memory.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::{Content, Found};
use crate::error::{Error, Result};
use crate::files::unreadable;

/// How the ids of a stream are stored.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// Bytes of an id: 1, 2, 4 or 8.
    width: usize,
    is_signed: bool,
    is_big_endian: bool,
}

impl Stored {
    const U16: Self = Self { width: 2, is_signed: false, is_big_endian: false };
    const U32: Self = Self { width: 4, ..Self::U16 };

    /// The id that `bytes` are; `None` for what is negative or too large.
    fn id(self, bytes: &[u8]) -> Option<u32> {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let value =
            if self.is_big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) };
        let is_negative = self.is_signed && value >> (8 * self.width - 1) == 1;
        u32::try_from(value).ok().filter(|_| !is_negative)
    }
}

/// A stream of ids.
struct Ids {
    from: Box<dyn BufRead>,
    path: PathBuf,
    stored: Stored,
}

impl Ids {
    /// The next id; a value that is none becomes one that no vocabulary has.
    fn next(&mut self) -> Result<Option<u32>> {
        let bytes = &mut [0; 8][..self.stored.width];
        match self.from.read_exact(bytes) {
            Ok(()) => Ok(Some(self.stored.id(bytes).unwrap_or(u32::MAX))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }

    /// The runs of ids between separators.
    fn split(mut self, separator: Option<u32>) -> Found {
        let mut line = 0;
        let mut next = move || {
            let mut ids = Vec::new();
            while let Some(id) = self.next()? {
                if Some(id) != separator {
                    ids.push(id);
                } else if !ids.is_empty() {
                    break;
                }
            }
            line += 1;
            Ok((!ids.is_empty()).then_some((line, Ok(Content::Ids(ids)))))
        };
        Box::new(std::iter::from_fn(move || next().transpose()))
    }

    /// Rows of `width` ids each.
    fn rows(mut self, n: u64, width: u64) -> Found {
        let row = move |line| {
            let mut ids = Vec::new();
            for _ in 0..width {
                let id = self.next()?;
                ids.push(id.ok_or_else(|| Error::file(&self.path, "ends before its last row"))?);
            }
            Ok((line, Ok(Content::Ids(ids))))
        };
        Box::new((1..=n).map(row))
    }
}

/// Rows of an array (n, T), or the documents of a stream (T).
pub fn npy(mut from: Box<dyn BufRead>, path: PathBuf, separator: Option<u32>) -> Result<Found> {
    let wrong = |problem: String| Error::file(&path, problem);
    let header =
        NpyHeader::from_reader(&mut from).map_err(|error| wrong(format!("is no .npy file: {error}")))?;
    let stored = match header.dtype() {
        DType::Plain(kind) if matches!(kind.type_char(), TypeChar::Int | TypeChar::Uint) => Stored {
            width: kind.size_field() as usize,
            is_signed: kind.type_char() == TypeChar::Int,
            is_big_endian: kind.endianness() == Endianness::Big,
        },
        _ => return Err(wrong("holds no integers: token ids are".into())),
    };
    let (shape, order) = (header.shape().to_vec(), header.order());
    if order == Order::Fortran && shape.len() > 1 {
        return Err(wrong("is in Fortran order: save it with numpy.ascontiguousarray".into()));
    }
    match shape[..] {
        [_] => Ok(Ids { from, path, stored }.split(separator)),
        [n, width] => Ok(Ids { from, path, stored }.rows(n, width)),
        _ => Err(wrong("has neither one axis nor two: (tokens) or (documents, tokens) is needed".into())),
    }
}

/// llm.c's data file, or nanoGPT's, which has no header: ids of 16 bits.
pub fn bin(mut from: Box<dyn BufRead>, path: PathBuf, separator: Option<u32>) -> Result<Found> {
    /// int32: magic, version, count, then zeros.
    const HEADER: u64 = 1024;
    const GPT2: [u8; 4] = 20_240_520u32.to_le_bytes();
    const LLAMA3: [u8; 4] = 20_240_801u32.to_le_bytes();
    let size = size(&path)?;
    let start = from.fill_buf().map_err(|error| unreadable(&path, &error))?;
    let stored = if start.starts_with(&LLAMA3) { Stored::U32 } else { Stored::U16 };
    let mut bytes = size;
    let mut said = None;
    if size >= HEADER && (start.starts_with(&GPT2) || start.starts_with(&LLAMA3)) {
        let mut header = [0; HEADER as usize];
        from.read_exact(&mut header).map_err(|error| unreadable(&path, &error))?;
        said = Some(u64::from(u32::from_le_bytes([header[8], header[9], header[10], header[11]])));
        bytes -= HEADER;
    }
    let n = bytes / stored.width as u64;
    if bytes % stored.width as u64 != 0 || said.is_some_and(|said| said != n) {
        return Err(Error::file(
            &path,
            "is no file of token ids: neither llm.c's, with as many ids as its header says, nor nanoGPT's, of 16 bits each",
        ));
    }
    Ok(Ids { from, path, stored }.split(separator))
}

fn size(path: &Path) -> Result<u64> {
    std::fs::metadata(path).map(|found| found.len()).map_err(|error| unreadable(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_whatever_its_width_sign_and_order() {
        let id = |width, is_signed, is_big_endian, bytes: &[u8]| {
            Stored { width, is_signed, is_big_endian }.id(bytes)
        };
        assert_eq!(id(1, false, false, &[200]), Some(200));
        assert_eq!(id(1, true, false, &[200]), None);
        assert_eq!(id(2, false, false, &[1, 2]), Some(513));
        assert_eq!(id(2, false, true, &[1, 2]), Some(258));
        assert_eq!(id(4, true, false, &[1, 2, 0, 0]), Some(513));
        assert_eq!(id(4, true, false, &[255; 4]), None);
        assert_eq!(id(8, true, false, &[7, 0, 0, 0, 0, 0, 0, 0]), Some(7));
        assert_eq!(id(8, true, true, &[255; 8]), None);
        assert_eq!(id(8, false, false, &[0, 0, 0, 0, 1, 0, 0, 0]), None);
    }
}
