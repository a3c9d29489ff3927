//! Documents of token ids: numpy's `.npy`, and the `.bin` of llm.c and nanoGPT.

use std::io::BufRead;
use std::path::Path;

use npyz::{NpyFile, Order};

use super::{Content, Fault, Found, unreadable};
use crate::error::{Error, Result};

/// Rows of an array (n, T), or the documents of a stream.
pub fn npy(from: &mut dyn BufRead, path: &Path, separator: Option<u32>) -> Result<Found> {
    let bytes = all(from, path)?;
    let wrong = |problem: &str| Error::file(path, problem.to_owned());
    let file = NpyFile::new(&bytes[..]).map_err(|error| wrong(&format!("is no .npy file: {error}")))?;
    let shape = file.shape().to_vec();
    if file.order() == Order::Fortran && shape.len() > 1 {
        return Err(wrong("is in Fortran order: save it with numpy.ascontiguousarray"));
    }
    macro_rules! read {
        ($($kind:ty),*) => {
            None $( .or_else(|| {
                let values = NpyFile::new(&bytes[..]).ok()?.data::<$kind>().ok()?;
                Some(values.map(|x| x.ok().and_then(|x| u32::try_from(x).ok())).collect::<Vec<Option<u32>>>())
            }) )*
        };
    }
    let ids = read!(u16, u32, i32, i64, u64, i16, u8, i8);
    let ids = ids.ok_or_else(|| wrong("holds no integers: token ids are"))?;
    let row = |row: &[Option<u32>]| {
        let ids = row.iter().copied().collect::<Option<Vec<_>>>();
        ids.map(Content::Ids).ok_or(Fault::NotInVocabulary)
    };
    match shape[..] {
        [_] => {
            let ids = ids.into_iter().map(|id| id.unwrap_or(u32::MAX)).collect();
            Ok(Box::new(split(ids, separator)))
        }
        [_, width] => {
            let rows: Vec<_> = ids.chunks(width.max(1) as usize).map(row).collect();
            Ok(Box::new((1..).zip(rows).map(Ok)))
        }
        _ => Err(wrong("has neither one axis nor two: (tokens) or (documents, tokens) is needed")),
    }
}

/// llm.c's data file, or nanoGPT's, which has no header: ids of 16 bits.
pub fn bin(from: &mut dyn BufRead, path: &Path, separator: Option<u32>) -> Result<Found> {
    /// int32: magic, version, count, then zeros.
    const HEADER: usize = 1024;
    const GPT2: u32 = 20_240_520;
    const LLAMA3: u32 = 20_240_801;
    let bytes = all(from, path)?;
    let word = |i: usize| {
        let word = bytes.get(4 * i..4 * i + 4)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    let (ids, width) = match word(0) {
        Some(GPT2) if bytes.len() >= HEADER => (&bytes[HEADER..], 2),
        Some(LLAMA3) if bytes.len() >= HEADER => (&bytes[HEADER..], 4),
        _ => (&bytes[..], 2),
    };
    let whole = ids.len() % width == 0;
    let said = (ids.len() < bytes.len()).then(|| word(2).unwrap_or(0) as usize);
    if !whole || said.is_some_and(|n| n != ids.len() / width) {
        return Err(Error::file(
            path,
            "is no file of token ids: neither llm.c's, with as many ids as its header says, nor nanoGPT's, of 16 bits each",
        ));
    }
    let id = |id: &[u8]| id.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    Ok(Box::new(split(ids.chunks(width).map(id).collect(), separator)))
}

fn all(from: &mut dyn BufRead, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// The runs of ids between separators.
fn split(
    ids: Vec<u32>,
    separator: Option<u32>,
) -> impl Iterator<Item = Result<(u64, Result<Content, Fault>)>> {
    let (mut at, mut line) = (0, 0u64);
    std::iter::from_fn(move || {
        let is_end = |id: &u32| Some(*id) == separator;
        at += ids[at..].iter().take_while(|id| is_end(id)).count();
        let n = ids[at..].iter().take_while(|id| !is_end(id)).count();
        let found = ids[at..at + n].to_vec();
        (at, line) = (at + n, line + 1);
        (n > 0).then_some(Ok((line, Ok(Content::Ids(found)))))
    })
}
