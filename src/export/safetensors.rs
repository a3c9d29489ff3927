//! `.safetensors`: a JSON header, then the values of all tensors one after the other.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::sparse::{Sparse, write_i64s};
use super::{Export, Stored, TensorInfo, write_f32s, write_floats};
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
    let mut entry = |name: &str, (dtype, size): (&str, usize), shape: &[usize]| {
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(name.to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    };
    // The widest numbers come first, so that all lie at multiples of their size.
    let [indices, values] = Sparse::PARTS;
    let infos = &export.manifest.hooks;
    for (i, sparse) in &export.sparse {
        entry(&format!("{}.{indices}", infos[*i].name), ("I64", 8), &[2, sparse.values.len()]);
    }
    for (i, TensorInfo { name, shape, .. }) in infos.iter().enumerate() {
        match export.sparse.get(&i) {
            Some(sparse) => entry(&format!("{name}.{values}"), ("F32", 4), &[sparse.values.len()]),
            None => entry(name, ("F32", 4), shape),
        }
    }
    let mut header = text::json(&header).into_bytes();
    // The values start at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for sparse in export.sparse.values() {
        write_i64s(&sparse.indices, out)?;
    }
    export.tensors().try_for_each(|tensor| match tensor?.1 {
        Stored::Dense(x) => write_f32s(&x, out),
        Stored::Sparse(sparse) => write_floats(&sparse.values, out),
    })
}
