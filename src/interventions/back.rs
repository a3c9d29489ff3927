//! Interventions in the backward pass: what a change passes on of a gradient.

use std::ops::Range;

use candle_core::Tensor;

use super::{Change, Changes, Direction, Interventions};
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName};

impl Interventions {
    /// Checks that gradients pass through all active changes.
    ///
    /// # Errors
    /// [`Error::Usage`] with one that they do not pass.
    pub fn check_back(&self) -> Result<()> {
        match self.active().find(|one| one.change.is_of_features()) {
            Some(one) => Err(Error::usage(format!(
                "`{}`: gradients do not pass through changes of features: turn it off",
                one.change
            ))),
            None => Ok(()),
        }
    }
}

impl Changes {
    /// The gradient of the tensor of a hook before its changes, of that after them: the chain rule, from the last
    /// change to the first. What is put in place of values passes none on to them.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a gradient of another shape.
    pub fn back(&self, hook: HookName, g: &Tensor) -> Result<Tensor> {
        let of_this = self.all.iter().filter(|(change, _)| change.hooks().any(|changed| changed == hook));
        of_this.rev().try_fold(g.clone(), |g, (change, _)| change.back(hook, &g))
    }
}

impl Change {
    fn back(&self, hook: HookName, g: &Tensor) -> Result<Tensor> {
        let place = match self {
            Self::Patch(place, donor) => place.taken_from(hook, g.dims(), donor.tokens.len(), {
                let at = place.position.unwrap_or(0);
                donor.position(at) as isize - at as isize
            }),
            _ => self.ranges(hook, g.dims()),
        };
        if place.iter().any(Range::is_empty) {
            return Ok(g.clone());
        }
        let mut part = g.clone();
        for (axis, range) in place.iter().enumerate() {
            part = part.narrow(axis, range.start, range.len())?;
        }
        let without = || -> Result<Tensor> { Ok(g.slice_assign(&place, &part.zeros_like()?)?) };
        match *self {
            Self::Zero(_) | Self::Set(..) | Self::Patch(..) | Self::Knockout(_) => without(),
            Self::Scale(_, factor) => Ok(g.slice_assign(&place, &(part * f64::from(factor))?)?),
            // Each of the T rows is 1 / T of every mean.
            Self::Mean(_) => {
                let of_means = (part.sum_keepdim(0)? / g.dim(0)? as f64)?;
                (0..g.dim(0)?).try_fold(without()?, |g, row| add(&g, &place, row, &of_means))
            }
            Self::Add(_, Direction { plus, minus, factor }) => {
                let of_direction = (part.sum_keepdim(0)? * f64::from(factor))?;
                add(&add(g, &place, plus, &of_direction)?, &place, minus, &of_direction.neg()?)
            }
            Self::Steer(..) | Self::Splice(_) => {
                Err(Error::usage(format!("`{self}`: gradients do not pass through changes of features")))
            }
        }
    }
}

/// Adds to the columns of a place in one row.
fn add(g: &Tensor, place: &[Range<usize>], row: usize, what: &Tensor) -> Result<Tensor> {
    let mut place = place.to_vec();
    place[0] = row..row + 1;
    let mut part = g.clone();
    for (axis, range) in place.iter().enumerate() {
        part = part.narrow(axis, range.start, range.len())?;
    }
    Ok(g.slice_assign(&place, &(part + what)?)?)
}

impl super::Place {
    /// The ranges that [`Self::transplant`] replaces in a tensor of these dimensions, where the other prompt has
    /// `n_other` tokens.
    fn taken_from(self, hook: HookName, dims: &[usize], n_other: usize, shift: isize) -> Vec<Range<usize>> {
        let mut ranges = self.ranges(hook, dims);
        for (range, axis) in ranges.iter_mut().zip(hook.point().axes) {
            if matches!(axis, Axis::Pos | Axis::Key) {
                let shifts = *axis == Axis::Pos && self.position.is_some();
                let start = if shifts { range.start.saturating_add_signed(shift) } else { range.start };
                range.end = range.end.min(range.start + n_other.saturating_sub(start));
            }
        }
        ranges
    }
}
