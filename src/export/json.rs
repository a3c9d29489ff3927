//! `.json`: the manifest, then every tensor as nested arrays, one line per innermost row.

use std::io::{self, Write};

use super::sparse::Sparse;
use super::{Export, Shortest, Stored, TensorInfo, values};

pub(super) fn write(export: &Export, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"manifest\": {},\n\"tensors\": {{", export.manifest.to_json())?;
    for (i, tensor) in export.tensors().enumerate() {
        let (TensorInfo { name, .. }, tensor) = tensor?;
        let comma = if i == 0 { "" } else { "," };
        match tensor {
            Stored::Dense(x) => {
                write!(out, "{comma}\n\"{name}\":\n")?;
                write_array(x.dims(), &values(&x)?, out)?;
            }
            Stored::Sparse(sparse) => {
                let [indices, values] = Sparse::PARTS;
                write!(out, "{comma}\n\"{name}.{indices}\":\n{:?},", sparse.indices)?;
                write!(out, "\n\"{name}.{values}\":\n")?;
                write_array(&[sparse.values.len()], &sparse.values, out)?;
            }
        }
    }
    out.write_all(b"\n}}\n")
}

fn write_array(shape: &[usize], values: &[f32], out: &mut dyn Write) -> io::Result<()> {
    let [n, inner @ ..] = shape else { return write_number(values[0], out) };
    let separator = if inner.is_empty() { "," } else { ",\n" };
    out.write_all(b"[")?;
    for (i, part) in values.chunks((values.len() / n.max(&1)).max(1)).enumerate() {
        if i > 0 {
            out.write_all(separator.as_bytes())?;
        }
        write_array(inner, part, out)?;
    }
    out.write_all(b"]")
}

fn write_number(value: f32, out: &mut dyn Write) -> io::Result<()> {
    // JSON has no numbers for -inf, inf and NaN.
    let quote = if value.is_finite() { "" } else { "\"" };
    write!(out, "{quote}{}{quote}", Shortest(value))
}
