//! A run, or what was computed from it, and the base that it is compared with.

use crate::error::Result;
use crate::hooks::Quantity;
use crate::picture::Matrix;
use crate::picture::chart::Chart;
use crate::run::Run;

/// The name of a difference.
pub const DIFFERENCE: &str = "changed − base";

/// Something that can be subtracted from another of its kind.
pub trait Minus {
    #[must_use]
    fn minus(&self, base: &Self) -> Self;
}

/// −inf if both are: a masked cell stays masked.
impl Minus for f32 {
    fn minus(&self, base: &Self) -> Self {
        if *self == Self::NEG_INFINITY && base == self { *self } else { self - base }
    }
}

impl Minus for f64 {
    fn minus(&self, base: &Self) -> Self {
        self - base
    }
}

/// Value by value, for lists of equal length.
impl Minus for Vec<f32> {
    fn minus(&self, base: &Self) -> Self {
        self.iter().zip(base).map(|(a, b)| a.minus(b)).collect()
    }
}

/// Value by value, for matrices of equal shape.
impl Minus for Matrix {
    fn minus(&self, base: &Self) -> Self {
        let rows: Vec<_> = (0..self.n_rows).map(|r| self.row(r).minus(&base.row(r))).collect();
        Self::new(rows.concat(), self.n_rows, self.n_columns).expect("the number of values is the same")
    }
}

/// In signed colours; words are kept, with a → before those that differ.
impl Minus for Chart {
    fn minus(&self, base: &Self) -> Self {
        let values = self.values.minus(&base.values);
        let texts = if self.quantity == Quantity::Rank {
            // They spell out the values.
            let all = (0..values.n_rows).flat_map(|r| values.row(r));
            all.map(|x| if x == 0.0 { "0".into() } else { format!("{x:+}") }).collect()
        } else {
            let pairs = self.texts.iter().zip(&base.texts);
            pairs.map(|(a, b)| if a == b { a.clone() } else { format!("→{a}") }).collect()
        };
        Self {
            title: format!("{}, {DIFFERENCE}", self.title),
            values,
            quantity: Quantity::Signed,
            limit: None,
            texts,
            ..self.clone()
        }
    }
}

/// Of a run and, where a difference is shown, of its base. Neither side stands for both: name one, or
/// take what is [`Self::shown`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WithBase<T> {
    pub of: T,
    pub base: Option<T>,
}

impl<T> WithBase<T> {
    /// The base, and what the difference is called.
    pub fn named_base(&self) -> Option<(&T, &'static str)> {
        self.base.as_ref().map(|base| (base, DIFFERENCE))
    }

    /// Of a run without a base.
    pub fn one(of: T) -> Self {
        Self { of, base: None }
    }

    /// Asks the base first: its answer may settle what both are asked.
    ///
    /// # Errors
    /// The errors of `ask`.
    pub fn ask(
        of: &Run,
        base: Option<&Run>,
        mut ask: impl FnMut(&Run, Option<&T>) -> Result<T>,
    ) -> Result<Self> {
        let base = base.map(|run| ask(run, None)).transpose()?;
        Ok(Self { of: ask(of, base.as_ref())?, base })
    }

    /// `get` of the run, less `get` of the base if there is one.
    pub fn shown<U: Minus>(&self, get: impl Fn(&T) -> U) -> U {
        let of = get(&self.of);
        match &self.base {
            Some(base) => of.minus(&get(base)),
            None => of,
        }
    }

    /// Whether differences are shown.
    pub fn differs(&self) -> bool {
        self.base.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::chart::Labels;
    use proptest::prelude::*;

    fn chart(quantity: Quantity, values: Vec<f32>, texts: Vec<String>) -> Chart {
        let n = values.len();
        Chart {
            title: "what".into(),
            doc: String::new(),
            formula: String::new(),
            rows: Labels::numbered("row"),
            columns: Labels::numbered("column"),
            values: Matrix::new(values, 1, n).unwrap(),
            quantity,
            limit: Some(1.0),
            texts,
        }
    }

    #[test]
    fn words_that_changed_are_marked_and_ranks_are_signed() {
        let words = |words: [&str; 2]| words.map(String::from).to_vec();
        let of = chart(Quantity::Probability, vec![0.5, 0.25], words(["a", "b"]));
        let base = chart(Quantity::Probability, vec![0.25, 0.25], words(["a", "c"]));
        let apart = of.minus(&base);
        assert_eq!((apart.values.row(0), apart.texts), (vec![0.25, 0.0], words(["a", "→b"])));
        assert_eq!((apart.quantity, apart.limit), (Quantity::Signed, None));
        assert_eq!(apart.title, "what, changed − base");
        let rank = |values| chart(Quantity::Rank, values, words(["?", "?"]));
        assert_eq!(rank(vec![7.0, 3.0]).minus(&rank(vec![9.0, 3.0])).texts, words(["-2", "0"]));
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(values in proptest::collection::vec(-1e30f32..1e30, 6)) {
            let matrix = Matrix::new(values, 2, 3).unwrap();
            let apart = matrix.minus(&matrix);
            prop_assert!((0..2).flat_map(|r| apart.row(r)).all(|x| x.to_bits() == 0));
        }
    }
}
