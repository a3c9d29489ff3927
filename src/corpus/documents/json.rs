//! Documents of JSON: a value on each line, or one list.

use std::io::BufRead;
use std::path::PathBuf;

use serde_json::Value;

use super::{Content, FIELDS, Fault, Found};
use crate::error::{Error, Result};
use crate::files::unreadable;

/// A document on each line that is not blank.
pub fn lines(mut from: Box<dyn BufRead>, path: PathBuf, field: Option<String>) -> Found {
    let mut line = 0u64;
    let read = move || loop {
        let mut bytes = Vec::new();
        match from.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => line += 1,
            Err(error) => return Some(Err(unreadable(&path, &error))),
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let content = match std::str::from_utf8(&bytes) {
            Err(_) => Err(Fault::NotUtf8),
            Ok(text) => serde_json::from_str(text)
                .map_err(|_| Fault::NotJson)
                .and_then(|value| content(value, field.as_deref())),
        };
        return Some(Ok((line, content)));
    };
    Box::new(std::iter::from_fn(read))
}

/// The items of a list; values one after the other otherwise.
pub fn whole(from: &mut dyn BufRead, path: PathBuf, field: Option<String>) -> Result<Found> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map_err(|error| unreadable(&path, &error))?;
    if !bytes.trim_ascii_start().starts_with(b"[") {
        return Ok(lines(Box::new(std::io::Cursor::new(bytes)), path, field));
    }
    let items: Vec<Value> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::file(&path, format!("is not a JSON list: {error}")))?;
    let read = move |(i, value)| Ok((i as u64 + 1, content(value, field.as_deref())));
    Ok(Box::new(items.into_iter().enumerate().map(read)))
}

fn content(value: Value, field: Option<&str>) -> Result<Content, Fault> {
    let value = match value {
        Value::Object(mut fields) => match field {
            Some(field) => fields.remove(field),
            None => FIELDS.into_iter().find_map(|field| fields.remove(field)),
        }
        .ok_or(Fault::NoField)?,
        other if field.is_none() => other,
        _ => return Err(Fault::NoField),
    };
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(ids) => {
            ids.iter().map(id).collect::<Option<_>>().map(Content::Ids).ok_or(Fault::WrongType)
        }
        _ => Err(Fault::WrongType),
    }
}
