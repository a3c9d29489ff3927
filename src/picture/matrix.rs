//! A matrix of float32, row by row.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// A matrix: a contiguous float32 tensor on the CPU, or rows that are read one by one.
#[derive(Debug, Clone)]
pub struct Matrix {
    values: Values,
    pub n_rows: usize,
    pub n_columns: usize,
}

#[derive(Clone)]
enum Values {
    Tensor(Tensor),
    /// Reads a row into a slice.
    Rows(Arc<ReadRow>),
}

type ReadRow = dyn Fn(usize, &mut [f32]) + Send + Sync;

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(tensor) => tensor.fmt(f),
            Self::Rows(_) => f.write_str("rows"),
        }
    }
}

impl Matrix {
    /// A matrix from values, row by row.
    ///
    /// # Errors
    /// If the number of `values` is not `n_rows · n_columns`.
    pub fn new(values: Vec<f32>, n_rows: usize, n_columns: usize) -> Result<Self> {
        let tensor = Tensor::from_vec(values, (n_rows, n_columns), &Device::Cpu)?;
        Ok(Self { values: Values::Tensor(tensor), n_rows, n_columns })
    }

    /// The last axis of a tensor as columns, all others flattened as rows.
    ///
    /// # Errors
    /// If it cannot be copied to the CPU.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let n_columns = tensor.dims().last().copied().unwrap_or(1);
        let n_rows = tensor.elem_count() / n_columns.max(1);
        Ok(Self { values: Values::Tensor(tensor), n_rows, n_columns })
    }

    /// A matrix whose rows `read` writes, one at a time, for what is stored in another order; it panics for
    /// a row that there is not.
    pub fn reading(
        n_rows: usize,
        n_columns: usize,
        read: impl Fn(usize, &mut [f32]) + Send + Sync + 'static,
    ) -> Self {
        Self { values: Values::Rows(Arc::new(read)), n_rows, n_columns }
    }

    /// Each row's dot product with `direction`, summed in float64.
    pub fn times(&self, direction: &[f64]) -> Vec<f64> {
        self.map_rows(|row| dot(row, direction))
    }

    /// The result of `f` for each row, on all cores.
    pub fn map_rows<T: Send>(&self, f: impl Fn(&[f32]) -> T + Sync) -> Vec<T> {
        self.read(|rows| (0..self.n_rows).into_par_iter().with_min_len(64).map(|r| f(&rows.get(r))).collect())
    }

    /// Calls `f` with the rows.
    pub fn read<T>(&self, f: impl FnOnce(&Rows<'_>) -> T) -> T {
        let n_columns = self.n_columns;
        let tensor = match &self.values {
            Values::Tensor(tensor) => tensor,
            Values::Rows(read) => return f(&Rows { values: Err(&**read), n_columns }),
        };
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
            unreachable!("a matrix is float32 on the CPU");
        };
        f(&Rows { values: Ok(&values[layout.start_offset()..]), n_columns })
    }

    /// The values of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> Vec<f32> {
        self.read(|rows| rows.get(index).to_vec())
    }
}

/// x · d, summed in float64, in eight lanes that the compiler vectorizes.
pub(crate) fn dot(x: &[f32], d: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (xs, ds) = (x.chunks_exact(LANES), d.chunks_exact(LANES));
    let rest: f64 = xs.remainder().iter().zip(ds.remainder()).map(|(x, d)| f64::from(*x) * d).sum();
    for (x, d) in xs.zip(ds) {
        for i in 0..LANES {
            sums[i] += f64::from(x[i]) * d[i];
        }
    }
    rest + sums.iter().sum::<f64>()
}

/// The rows of a matrix while it is being read.
pub struct Rows<'a> {
    values: std::result::Result<&'a [f32], &'a ReadRow>,
    n_columns: usize,
}

impl Rows<'_> {
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, index: usize) -> Cow<'_, [f32]> {
        match self.values {
            Ok(values) => Cow::Borrowed(&values[index * self.n_columns..][..self.n_columns]),
            Err(read) => {
                let mut row = vec![0.0; self.n_columns];
                read(index, &mut row);
                Cow::Owned(row)
            }
        }
    }
}

/// The index of the `i`th value of a tensor of these sizes, the last axis fastest.
pub fn index(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &n) in index.iter_mut().zip(shape).rev() {
        (*at, i) = (i % n.max(1), i / n.max(1));
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_index_is_the_fastest() {
        assert_eq!(index(0, &[2, 3, 4]), [0, 0, 0]);
        assert_eq!(index(17, &[2, 3, 4]), [1, 1, 1]);
        assert_eq!(index(23, &[2, 3, 4]), [1, 2, 3]);
    }
}
