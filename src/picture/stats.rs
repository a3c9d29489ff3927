//! Statistics of values.

use super::Matrix;

/// Statistics of the finite values, and the number of values that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    pub n: usize,
    pub mean: f64,
    /// Standard deviation (biased, as in LayerNorm).
    pub std: f64,
    /// Euclidean norm.
    pub norm: f64,
    pub min: f32,
    pub max: f32,
    /// The number of −inf values: masked.
    pub masked: usize,
    /// The number of NaN and +inf values.
    pub broken: usize,
}

impl Stats {
    pub fn of(values: &[f32]) -> Self {
        let mut stats = Sums::default();
        stats.add(values);
        stats.finish()
    }

    pub fn of_matrix(matrix: &Matrix) -> Self {
        matrix.read(|rows| {
            let mut sums = Sums::default();
            (0..matrix.n_rows).for_each(|r| sums.add(&rows.get(r)));
            sums.finish()
        })
    }
}

#[derive(Default)]
struct Sums {
    sum: f64,
    squares: f64,
    stats: Stats,
}

impl Sums {
    fn add(&mut self, values: &[f32]) {
        let s = &mut self.stats;
        for &x in values {
            if !x.is_finite() {
                if x == f32::NEG_INFINITY {
                    s.masked += 1;
                } else {
                    s.broken += 1;
                }
                continue;
            }
            (s.min, s.max) = if s.n == 0 { (x, x) } else { (s.min.min(x), s.max.max(x)) };
            s.n += 1;
            self.sum += f64::from(x);
            self.squares += f64::from(x) * f64::from(x);
        }
    }

    fn finish(self) -> Stats {
        let n = self.stats.n.max(1) as f64;
        let mean = self.sum / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        Stats { mean, std: variance.sqrt(), norm: self.squares.sqrt(), ..self.stats }
    }
}

/// The `k` entries of largest magnitude, largest first: (index, value). NaN comes before all others.
pub fn largest(values: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut entries: Vec<_> =
        values.iter().copied().enumerate().filter(|(_, x)| *x != f32::NEG_INFINITY).collect();
    let by_size = |a: &(usize, f32), b: &(usize, f32)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
    if k < entries.len() {
        entries.select_nth_unstable_by(k, by_size);
        entries.truncate(k);
    }
    entries.sort_unstable_by(by_size);
    entries
}

/// The number of finite values in each of `n_bins` equal bins from the smallest to the largest.
pub fn histogram(values: &[f32], n_bins: usize) -> Vec<usize> {
    let stats = Stats::of(values);
    let mut bins = vec![0; n_bins];
    let width = (f64::from(stats.max) - f64::from(stats.min)) / n_bins.max(1) as f64;
    for &x in values.iter().filter(|x| x.is_finite()) {
        let bin = if width > 0.0 { ((f64::from(x) - f64::from(stats.min)) / width) as usize } else { 0 };
        if let Some(last) = n_bins.checked_sub(1) {
            bins[bin.min(last)] += 1;
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let stats = Stats::of(&[1.0, f32::NEG_INFINITY, 3.0, f32::NAN, f32::INFINITY]);
        assert_eq!((stats.n, stats.masked, stats.broken), (2, 1, 2));
        assert_eq!((stats.mean, stats.std, stats.min, stats.max), (2.0, 1.0, 1.0, 3.0));
        assert_eq!(Stats::of(&[]), Stats::default());
    }

    proptest! {
        #[test]
        fn largest_is_sorting_cut_short(values in proptest::collection::vec(-9f32..9.0, 0..50), k in 0usize..60) {
            let mut sorted: Vec<_> = values.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            sorted.truncate(k);
            prop_assert_eq!(largest(&values, k), sorted);
        }

        #[test]
        fn every_finite_value_is_in_one_bin(values in proptest::collection::vec(proptest::num::f32::ANY, 0..50), n in 1usize..20) {
            let finite = values.iter().filter(|x| x.is_finite()).count();
            prop_assert_eq!(histogram(&values, n).iter().sum::<usize>(), finite);
        }
    }
}
