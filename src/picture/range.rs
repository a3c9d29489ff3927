//! The values at the ends of a colour map.

use super::grid::Grid;
use super::{Matrix, Paint};
use crate::hooks::Quantity;

/// How the range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeMode {
    /// The 99.5th percentile of |x|: a few huge channels do not flatten the rest.
    Robust,
    /// The whole matrix.
    Full,
    /// Each row by itself.
    Row,
    /// The cells on the screen.
    Shown,
}

impl RangeMode {
    pub const ALL: [Self; 4] = [Self::Robust, Self::Full, Self::Row, Self::Shown];

    /// The mode that suits a quantity: robust if a few values would outshine the rest.
    pub fn suited(quantity: Quantity) -> Self {
        match quantity {
            Quantity::Signed | Quantity::Probability => Self::Robust,
            Quantity::Positive | Quantity::Rank => Self::Full,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Robust => "robust 99.5 %",
            Self::Full => "full range",
            Self::Row => "each row by itself",
            Self::Shown => "range of what is shown",
        }
    }
}

/// The range of a colour map: −limit..=limit for signed quantities, limit down to 1 for ranks,
/// 0..=limit for the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    pub mode: RangeMode,
    pub quantity: Quantity,
    pub limit: f32,
    /// The number of finite values beyond the limit.
    pub beyond: usize,
}

impl Range {
    /// The range of signed `values` that are no matrix: up to the largest.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a f32>) -> Self {
        Self { mode: RangeMode::Full, quantity: Quantity::Signed, limit: limit_of(values), beyond: 0 }
    }

    /// The range 0..=`limit` or −`limit`..=`limit`, whatever `matrix` holds.
    pub fn up_to(matrix: &Matrix, quantity: Quantity, limit: f32) -> Self {
        let beyond = matrix.read(|rows| {
            let of_row = |r| rows.get(r).iter().filter(|x| x.is_finite() && x.abs() > limit).count();
            (0..matrix.n_rows).map(of_row).sum()
        });
        Self { mode: RangeMode::Full, quantity, limit, beyond }
    }

    /// The range of the cells of a grid.
    pub fn shown(grid: &Grid, quantity: Quantity) -> Self {
        Self { mode: RangeMode::Shown, quantity, limit: limit_of(&grid.cells), beyond: 0 }
    }

    /// The range of `matrix`; in [`RangeMode::Row`] the limit is that of all rows.
    pub fn new(matrix: &Matrix, quantity: Quantity, mode: RangeMode) -> Self {
        const QUANTILE: f64 = 0.995;
        let mut counts = vec![0usize; if mode == RangeMode::Robust { 1 << 16 } else { 0 }];
        let (largest, n) = matrix.read(|rows| {
            let (mut largest, mut n) = (0f32, 0usize);
            for r in 0..matrix.n_rows {
                for size in rows.get(r).iter().map(|x| x.abs()).filter(|x| x.is_finite()) {
                    largest = largest.max(size);
                    n += 1;
                    if let Some(count) = counts.get_mut(bin(size)) {
                        *count += 1;
                    }
                }
            }
            (largest, n)
        });
        let mut range = Self { mode, quantity, limit: largest, beyond: 0 };
        if mode == RangeMode::Robust {
            let mut seen = 0;
            let enough = (n as f64 * QUANTILE).ceil() as usize;
            let last = counts.iter().position(|&count| {
                seen += count;
                seen >= enough
            });
            let upper = f32::from_bits(((last.unwrap_or(0) as u32) << 16) | 0xffff);
            range.limit = upper.min(largest);
            range.beyond = n - seen.min(n);
        }
        range
    }

    /// The place of a finite value in the colour map, 0..=1; `limit` is the row's own in
    /// [`RangeMode::Row`].
    pub fn at(&self, value: f32, limit: f32) -> f32 {
        if self.quantity == Quantity::Rank {
            return if limit > 1.0 { (1.0 - value.ln() / limit.ln()).clamp(0.0, 1.0) } else { 1.0 };
        }
        let x = if limit > 0.0 { (value / limit).clamp(-1.0, 1.0) } else { 0.0 };
        if self.signed() { x.midpoint(1.0) } else { x.max(0.0) }
    }

    /// What a value looks like; `limit` as in [`Self::at`].
    pub fn paint(&self, value: f32, limit: f32) -> Paint {
        match value {
            f32::NEG_INFINITY => Paint::Masked,
            x if x.is_finite() => Paint::Level(self.at(x, limit)),
            _ => Paint::Broken,
        }
    }

    pub fn signed(&self) -> bool {
        self.quantity == Quantity::Signed
    }

    /// The values at the lower and the upper end of the colours.
    pub fn ends(&self) -> [f32; 2] {
        match self.quantity {
            Quantity::Signed => [-self.limit, self.limit],
            Quantity::Rank => [self.limit, 1.0],
            Quantity::Positive | Quantity::Probability => [0.0, self.limit],
        }
    }
}

/// The largest finite |x|; 0 if there is none.
pub(super) fn limit_of<'a>(values: impl IntoIterator<Item = &'a f32>) -> f32 {
    values.into_iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max)
}

/// Magnitudes in bins of relative width 1/128: the upper 16 bits of a positive float keep its order.
fn bin(size: f32) -> usize {
    (size.to_bits() >> 16) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robust_ignores_the_few_and_counts_them() {
        let mut values: Vec<f32> = (0..1000).map(|i| (i % 100) as f32 / 100.0).collect();
        values[3] = -500.0;
        values[4] = f32::NEG_INFINITY;
        values[5] = f32::NAN;
        let matrix = Matrix::new(values, 10, 100).unwrap();
        let robust = Range::new(&matrix, Quantity::Signed, RangeMode::Robust);
        assert!(robust.limit > 0.97 && robust.limit < 1.01, "{robust:?}");
        assert_eq!(robust.beyond, 1);
        let full = Range::new(&matrix, Quantity::Signed, RangeMode::Full);
        assert_eq!((full.limit, full.beyond), (500.0, 0));
    }

    #[test]
    fn zero_is_in_the_middle_of_signed_and_at_the_bottom_of_the_rest() {
        let matrix = Matrix::new(vec![0.0, 0.5], 1, 2).unwrap();
        let signed = Range::new(&matrix, Quantity::Signed, RangeMode::Full);
        let positive = Range::new(&matrix, Quantity::Probability, RangeMode::Full);
        assert_eq!([-9.0, 0.0, 0.5].map(|x| signed.at(x, signed.limit)), [0.0, 0.5, 1.0]);
        assert_eq!([-9.0, 0.0, 0.25].map(|x| positive.at(x, positive.limit)), [0.0, 0.0, 0.5]);
        let rank = Range::up_to(&matrix, Quantity::Rank, 100.0);
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(|x| rank.at(x, rank.limit)), [1.0, 0.5, 0.0, 0.0]);
        let nothing = Matrix::new(vec![0.0], 1, 1).unwrap();
        let flat = Range::new(&nothing, Quantity::Signed, RangeMode::Robust);
        assert_eq!(flat.at(0.0, flat.limit), 0.5);
    }
}
