//! A part of a tensor.

use std::ops::Range;

use candle_core::Tensor;

use super::{Axis, HookName};
use crate::error::Result;

/// A part of a tensor; `Part::default()` is all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Rows: positions, or queries in an attention map.
    pub rows: Option<Range<usize>>,
    /// One head, for tensors with heads; the head axis stays, with length 1.
    pub head: Option<usize>,
}

impl Part {
    pub fn rows(rows: Range<usize>) -> Self {
        Self { rows: Some(rows), head: None }
    }

    pub fn head(head: usize) -> Self {
        Self { rows: None, head: Some(head) }
    }

    /// This part of a whole tensor, without copying.
    pub(crate) fn of(&self, name: HookName, whole: &Tensor) -> Result<Tensor> {
        let mut x = whole.clone();
        for (i, axis) in name.point().axes.iter().enumerate() {
            x = match (axis, &self.rows, self.head) {
                (Axis::Pos, Some(rows), _) => x.narrow(i, rows.start, rows.len())?,
                (Axis::Head, _, Some(head)) => x.narrow(i, head, 1)?,
                _ => x,
            };
        }
        Ok(x)
    }
}
