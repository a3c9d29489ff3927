//! Interventions in the backward pass: what a change passes on of a gradient.

use std::ops::Range;

use candle_core::Tensor;

use super::{Change, Changes, Direction, Interventions};
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName};

impl Interventions {
    /// Whether any acts on features: their gradients need a forward pass of the changes themselves.
    pub fn has_features(&self) -> bool {
        self.active().any(|one| one.change.is_of_features())
    }
}

impl Changes {
    /// The gradient of the tensor of a hook before its changes, of that after them: the chain rule, from the last
    /// change to the first. What is put in place of values passes none on to them.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a gradient of another shape; [`Error::Usage`] for a dictionary that gradients do not pass.
    pub fn back(&self, hook: HookName, g: &Tensor) -> Result<Tensor> {
        Ok(self.both_back(hook, g)?.0)
    }

    /// What changes of features pass on to a tensor that transcoders read, where `of` gives the gradient after the
    /// changes of what these write.
    ///
    /// # Errors
    /// See [`Self::back`], and the errors of `of`.
    pub fn back_to_read(
        &self,
        hook: HookName,
        of: &dyn Fn(HookName) -> Result<Option<Tensor>>,
    ) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        for writes in self.features.written_from(hook) {
            let Some(g) = of(writes)? else { continue };
            if let (_, Some(read)) = self.both_back(writes, &g)? {
                total = Some(match total {
                    Some(total) => (total + read)?,
                    None => read,
                });
            }
        }
        Ok(total)
    }

    /// To the tensor before its changes, and to what a transcoder read for them.
    fn both_back(&self, hook: HookName, g: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let of_this = self.all.iter().filter(|(change, _)| change.hooks().any(|changed| changed == hook));
        let of_this: Vec<_> = of_this.map(|(change, _)| change).collect();
        let groups: Vec<_> = of_this.chunk_by(|a, b| a.is_of_features() && b.is_of_features()).collect();
        if groups.iter().filter(|group| group[0].is_of_features()).count() > 1 {
            return Err(Error::usage(format!(
                "gradients do not pass through changes of {hook} between changes of its features: put those of features \
                 together"
            )));
        }
        let (mut g, mut read) = (g.clone(), None);
        for group in groups.into_iter().rev() {
            if group[0].is_of_features() {
                (g, read) = self.features.back(hook, &g, group.iter().copied())?;
            } else {
                g = group[0].back(hook, &g)?;
            }
        }
        Ok((g, read))
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
                Err(Error::usage(format!("`{self}` is a change of features")))
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
