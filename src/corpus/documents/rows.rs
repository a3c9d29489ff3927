//! Documents of a Parquet file: its rows.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use parquet::basic::Type;

use super::{Content, FIELDS, Fault, Found};
use crate::corpus::table::Reader;
use crate::error::{Error, Result};

pub fn documents(path: &Path, field: Option<&str>, read: Rc<Cell<u64>>) -> Result<Found> {
    let reader = Reader::open(path)?;
    let names = reader.columns();
    let has = |name: &str| names.iter().any(|column| column.split('.').next() == Some(name));
    let column = match field {
        Some(field) => field.to_owned(),
        None => FIELDS
            .into_iter()
            .find(|name| has(name))
            .ok_or_else(|| {
                let there = names.join(", ");
                Error::file(path, format!("has no column `text`: name one with --field, of {there}"))
            })?
            .to_owned(),
    };
    reader.physical(&column)?;
    let size = std::fs::metadata(path).map_or(0, |found| found.len());
    let n_groups = reader.n_groups();
    let n_rows = (0..n_groups).map(|group| reader.n_rows(group)).sum::<Result<usize>>()?;
    let (before, mut line) = (read.get(), 0u64);
    let rows = (0..n_groups).flat_map(move |group| match rows(&reader, group, &column) {
        Ok(rows) => Box::new(rows.map(Ok)) as Box<dyn Iterator<Item = Result<_>>>,
        Err(error) => Box::new(std::iter::once(Err(error))),
    });
    Ok(Box::new(rows.map(move |content| {
        line += 1;
        read.set(before + (size as f64 * line as f64 / n_rows as f64) as u64);
        content.map(|content| (line, content))
    })))
}

/// The documents of a row group.
fn rows(
    reader: &Reader,
    group: usize,
    column: &str,
) -> Result<Box<dyn Iterator<Item = Result<Content, Fault>>>> {
    let ids = |ids: Option<Vec<i64>>| {
        let ids = ids.ok_or(Fault::Empty)?;
        let ids = ids.into_iter().map(|id| u32::try_from(id).ok()).collect::<Option<_>>();
        ids.map(Content::Ids).ok_or(Fault::NotInVocabulary)
    };
    Ok(match (reader.is_list(column)?, reader.physical(column)?) {
        (false, Type::BYTE_ARRAY) => {
            let text = |bytes: Option<Vec<u8>>| {
                let text = String::from_utf8(bytes.ok_or(Fault::Empty)?);
                text.map(Content::Text).map_err(|_| Fault::NotUtf8)
            };
            Box::new(reader.read::<Vec<u8>>(group, column)?.into_iter().map(text))
        }
        (true, Type::INT64) => Box::new(reader.read_lists::<i64>(group, column)?.into_iter().map(ids)),
        (true, Type::INT32) => {
            let wide = |list: Vec<i32>| list.into_iter().map(i64::from).collect();
            Box::new(
                reader.read_lists::<i32>(group, column)?.into_iter().map(move |list| ids(list.map(wide))),
            )
        }
        _ => Box::new(std::iter::repeat_n(Err(Fault::WrongType), reader.n_rows(group)?)),
    })
}
