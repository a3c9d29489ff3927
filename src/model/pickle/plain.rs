//! Plain data in pickles as JSON: settings beside the tensors, and files like nanoGPT's `meta.pkl`.

use candle_core::Result;
use serde_json::{Map, Value as Json};

use super::bad;
use super::machine::{Id, Pickle, Value};

/// What a value may take, since one value may be referred to any number of times: some bytes for each
/// reference, and its text.
const MOST_BYTES: usize = 1 << 26;
const BYTES_EACH: usize = 64;
const DEEPEST: usize = 32;

/// The plain data that a pickle holds. Keys become text; what is neither text, number, list or dict is
/// left out.
///
/// # Errors
/// If it is no pickle, or holds no plain data or too much.
pub fn plain(bytes: &[u8]) -> Result<Json> {
    let (pickle, _) = Pickle::read(bytes)?;
    pickle.plain(pickle.top())?.ok_or_else(|| bad("it holds no plain data"))
}

impl Pickle<'_> {
    /// The value as JSON; `None` if it is no plain data.
    ///
    /// # Errors
    /// If it is too large or too deep, as a list that contains itself is.
    pub fn plain(&self, id: Id) -> Result<Option<Json>> {
        self.json(id, 0, &mut MOST_BYTES.clone())
    }

    fn json(&self, id: Id, depth: usize, left: &mut usize) -> Result<Option<Json>> {
        let value = self.value(id);
        let length = if let Value::Text(text) = value { text.len() } else { 0 };
        *left = left.checked_sub(BYTES_EACH + length).ok_or_else(|| bad("its plain data is too large"))?;
        if depth > DEEPEST {
            return Err(bad("its plain data is nested too deeply"));
        }
        let mut inner = |id: Id| self.json(id, depth + 1, left);
        Ok(Some(match value {
            Value::None => Json::Null,
            Value::Bool(truth) => Json::from(*truth),
            Value::Int(n) => Json::from(*n),
            Value::Float(x) => Json::from(*x),
            Value::Text(text) => Json::from(text.as_ref()),
            Value::Tuple(items) | Value::List(items) => {
                let items = items.iter().filter_map(|&item| inner(item).transpose());
                Json::Array(items.collect::<Result<_>>()?)
            }
            Value::Dict(items) => {
                let mut map = Map::new();
                for &(key, value) in items {
                    let key = match inner(key)? {
                        Some(Json::String(key)) => key,
                        Some(Json::Number(key)) => key.to_string(),
                        _ => continue,
                    };
                    if let Some(value) = inner(value)? {
                        map.insert(key, value);
                    }
                }
                Json::Object(map)
            }
            _ => return Ok(None),
        }))
    }
}
