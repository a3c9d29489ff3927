//! `.safetensors`: a JSON header, then the values of all tensors one after the other.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Export, TensorInfo, write_f32s};
use crate::text;

// Not written by the crate, which would hold the whole file in memory, and whose hash maps would
// produce different bytes for the same run each time.
pub(super) fn write(export: &Export, out: &mut dyn Write) -> io::Result<()> {
    // `__metadata__` holds only strings: those stay as they are, everything else becomes JSON.
    let mut metadata = export.manifest.fields();
    for value in metadata.values_mut().filter(|value| !value.is_string()) {
        *value = Value::String(text::json(value));
    }
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(metadata))]);
    let mut end = 0;
    for TensorInfo { name, shape, .. } in &export.manifest.hooks {
        let begin = end;
        end += shape.iter().product::<usize>() * 4;
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}));
    }
    let mut header = text::json(&header).into_bytes();
    // The values start at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    export.tensors().try_for_each(|tensor| write_f32s(&tensor?.1, out))
}
