//! `.safetensors`: a JSON header, then the values of all tensors one after the other.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Export, write_f32s};

// Written here, not by the crate: it would hold the whole file in memory, and its hash maps would
// give the same run other bytes each time.
pub(super) fn write(export: &Export, out: &mut dyn Write) -> io::Result<()> {
    // `__metadata__` holds nothing but strings: those stay as they are, all else becomes JSON.
    let mut metadata = export.manifest.fields();
    for value in metadata.values_mut().filter(|value| !value.is_string()) {
        *value = Value::String(value.to_string());
    }
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(metadata))]);
    let mut end = 0;
    for (hook, x) in &export.tensors {
        let begin = end;
        end += x.elem_count() * 4;
        header.insert(
            hook.to_string(),
            json!({"dtype": "F32", "shape": x.dims(), "data_offsets": [begin, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header)?;
    // The values begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    export.tensors.iter().try_for_each(|(_, x)| write_f32s(x, out))
}
