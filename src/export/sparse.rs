//! Tensors that are written as what is not 0 in them, where that is smaller.

use std::io::{self, Write};

use candle_core::Tensor;

use super::values;
use crate::error::{Error, Result};

/// The numbers of a matrix that are not 0, as `torch.sparse_coo_tensor(indices, values, shape)` takes them.
#[derive(Debug)]
pub(super) struct Sparse {
    /// (2, k): rows, then columns.
    pub indices: [Vec<i64>; 2],
    /// (k), in the order of rows, then columns.
    pub values: Vec<f32>,
}

impl Sparse {
    /// What follows the name of a tensor in the names of its parts.
    pub const PARTS: [&str; 2] = ["indices", "values"];

    /// Of a matrix (rows, columns); `None` if it is smaller as it is.
    pub fn of(x: &Tensor) -> Result<Option<Self>> {
        let (n_rows, n_columns) = x.dims2()?;
        let all = values(x).map_err(|error| Error::usage(error.to_string()))?;
        let filled = || all.iter().enumerate().filter(|(_, value)| **value != 0.0);
        if filled().count() * 20 >= n_rows * n_columns * 4 {
            return Ok(None);
        }
        let along =
            |place: fn(usize, usize) -> usize| filled().map(|(at, _)| place(at, n_columns) as i64).collect();
        let indices = [along(|at, n| at / n), along(|at, n| at % n)];
        Ok(Some(Self { indices, values: filled().map(|(_, value)| *value).collect() }))
    }
}

/// Writes indices as little-endian int64.
pub(super) fn write_i64s(indices: &[Vec<i64>; 2], out: &mut dyn Write) -> io::Result<()> {
    indices.iter().flatten().try_for_each(|index| out.write_all(&index.to_le_bytes()))
}
