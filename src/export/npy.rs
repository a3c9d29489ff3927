//! `.npy`: numpy's format for one array.

use std::io::{self, Write};

use candle_core::Tensor;
use npyz::{DType, WriteOptions, WriterBuilder};

use super::write_f32s;

pub(super) fn write(x: &Tensor, out: &mut dyn Write) -> io::Result<()> {
    let shape: Vec<u64> = x.dims().iter().map(|&n| n as u64).collect();
    let little_endian = "<f4".parse().expect("numpy's name of float32");
    WriteOptions::new_header_only()
        .dtype(DType::Plain(little_endian))
        .shape(&shape)
        .writer(&mut *out)
        .write_header_only()?;
    write_f32s(x, out)
}
