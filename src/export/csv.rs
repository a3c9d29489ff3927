//! `.csv`: one tensor, one value per row, after the index along each of its axes.

use std::io::{self, Write};

use super::manifest::column;
use super::sparse::Sparse;
use super::{Export, Shortest, Stored, TensorInfo, values};
use crate::hooks::Axis;

// Numbers and plain words need no quotes, so lines are written as they are.
pub(super) fn write(export: &Export, out: &mut dyn Write) -> io::Result<()> {
    let (TensorInfo { axes, .. }, tensor) = export.tensor()?;
    let kept: Vec<usize> = (0..axes.len()).filter(|&i| axes[i] != column(Axis::One)).collect();
    for &axis in &kept {
        write!(out, "{},", axes[axis])?;
    }
    out.write_all(b"value\n")?;

    let mut row = |index: &[usize], value: f32| {
        for &axis in &kept {
            let first = if axes[axis] == column(Axis::Pos) { export.positions.start } else { 0 };
            write!(out, "{},", first + index[axis])?;
        }
        writeln!(out, "{}", Shortest(value))
    };
    match tensor {
        Stored::Dense(x) => {
            let mut index = vec![0; axes.len()];
            for value in values(&x)? {
                row(&index, value)?;
                advance(&mut index, x.dims());
            }
        }
        Stored::Sparse(Sparse { indices: [rows, columns], values }) => {
            for ((&r, &c), &value) in rows.iter().zip(columns).zip(values) {
                row(&[r as usize, c as usize], value)?;
            }
        }
    }
    Ok(())
}

/// The next index in the order of the values: last axis fastest.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < n {
            return;
        }
        *i = 0;
    }
}
