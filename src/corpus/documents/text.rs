//! Documents of a text.

use std::io::BufRead;
use std::path::PathBuf;

use super::{Content, Fault, Found, Per};
use crate::error::Result;
use crate::files::unreadable;

/// Documents with the number of their first line; nothing of the space around a document belongs to it, except at
/// the beginning of its first line.
pub fn documents(mut from: Box<dyn BufRead>, path: PathBuf, per: Per) -> Found {
    let mut line = 0u64;
    let mut ended = false;
    let mut next = move || -> Result<Option<(u64, Vec<u8>)>> {
        let (mut bytes, mut first) = (Vec::new(), 0);
        while !ended {
            let start = bytes.len();
            let n = from.read_until(b'\n', &mut bytes).map_err(|error| unreadable(&path, &error))?;
            ended = n == 0;
            line += u64::from(n > 0);
            let is_blank = bytes[start..].trim_ascii().is_empty();
            match per {
                Per::Line if n > 0 => return Ok(Some((line, bytes))),
                Per::BlankLine if is_blank && first > 0 => {
                    bytes.truncate(start);
                    break;
                }
                Per::BlankLine if is_blank => bytes.clear(),
                _ if first == 0 && n > 0 => first = line,
                _ => {}
            }
        }
        Ok((first > 0).then_some((first, bytes)))
    };
    let read = move || match next() {
        Ok(None) => None,
        Ok(Some((line, mut bytes))) => {
            if per != Per::File {
                bytes.truncate(bytes.trim_ascii_end().len());
            }
            let text = String::from_utf8(bytes).map(Content::Text).map_err(|_| Fault::NotUtf8);
            Some(Ok((line, text)))
        }
        Err(error) => Some(Err(error)),
    };
    Box::new(std::iter::from_fn(read))
}
