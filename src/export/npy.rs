//! `.npy`: numpy's format for one array.

use std::io::{self, Write};

use candle_core::Tensor;
use npyz::{DType, WriteOptions, WriterBuilder};

use super::sparse::write_i64s;
use super::{Stored, write_f32s, write_floats};

pub(super) fn write(x: &Tensor, out: &mut dyn Write) -> io::Result<()> {
    header("<f4", x.dims(), out)?;
    write_f32s(x, out)
}

/// The only tensor of an export, which is whole in this format.
pub(super) fn write_one(stored: &Stored<'_>, out: &mut dyn Write) -> io::Result<()> {
    match stored {
        Stored::Dense(x) => write(x, out),
        Stored::Sparse(_) => unreachable!("a .npy file is one array"),
    }
}

/// (k)
pub(super) fn write_values(values: &[f32], out: &mut dyn Write) -> io::Result<()> {
    header("<f4", &[values.len()], out)?;
    write_floats(values, out)
}

/// (2, k)
pub(super) fn write_indices(indices: &[Vec<i64>; 2], out: &mut dyn Write) -> io::Result<()> {
    header("<i8", &[2, indices[0].len()], out)?;
    write_i64s(indices, out)
}

fn header(kind: &str, shape: &[usize], out: &mut dyn Write) -> io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let little_endian = kind.parse().expect("numpy's name of a number");
    let header = WriteOptions::new_header_only().dtype(DType::Plain(little_endian)).shape(&shape);
    header.writer(&mut *out).write_header_only()?;
    Ok(())
}
