//! Statistics of each unit over all positions.

use std::path::Path;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::piece::Piece;
use super::table::{Column, Reader, Table};
use super::top::STRIPE;
use super::units::{Group, Measure, Values};
use crate::analysis::heads;
use crate::error::{Error, Result};
use crate::hooks::TensorName;
use crate::picture::Matrix;

pub const FILE: &str = "stats.parquet";
pub const HEADS: &str = "heads.parquet";

/// Bins of the histogram: for each sign, two for each octave from 2^−8 to 2^8, and one between for what is smaller.
pub const BINS: usize = 65;
const HALF: usize = BINS / 2;

/// The statistics of one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct OfUnit {
    /// The number of values that are finite.
    pub count: u64,
    /// Those that are not.
    pub not_finite: u64,
    pub positive: u64,
    pub sum: f64,
    pub sum_squares: f64,
    pub min: f32,
    pub max: f32,
    pub histogram: Vec<u64>,
}

impl Default for OfUnit {
    fn default() -> Self {
        Self {
            count: 0,
            not_finite: 0,
            positive: 0,
            sum: 0.0,
            sum_squares: 0.0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            histogram: vec![0; BINS],
        }
    }
}

impl OfUnit {
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Of the population: Σ(x − mean)² / count.
    pub fn variance(&self) -> f64 {
        (self.sum_squares / self.count as f64 - self.mean().powi(2)).max(0.0)
    }

    /// The share of values above 0.
    pub fn positive_share(&self) -> f64 {
        self.positive as f64 / self.count as f64
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.not_finite += other.not_finite;
        self.positive += other.positive;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.histogram.iter_mut().zip(&other.histogram).for_each(|(a, b)| *a += b);
    }
}

/// Up to [`STRIPE`] units of a hook.
pub struct Stripe<'a> {
    units: &'a mut [OfUnit],
    /// The number of the first.
    first: usize,
}

impl Stripe<'_> {
    /// Takes in a piece, with the vector instructions of the machine.
    pub fn see(&mut self, values: &Values, piece: &Piece) {
        Arch::new().dispatch(See { units: self.units, first: self.first, values, piece });
    }
}

/// The values of a stripe in a piece.
struct See<'a> {
    units: &'a mut [OfUnit],
    first: usize,
    values: &'a Values<'a>,
    piece: &'a Piece,
}

impl WithSimd for See<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::inline_always)] // code that is not inlined is compiled without those instructions
    fn with_simd<S: Simd>(self, _: S) {
        let Self { units, first, values, piece } = self;
        let n = units.len();
        // Beside each other, so that vectors hold them.
        let [mut sum, mut squares] = [[0.0f64; STRIPE]; 2];
        let [mut min, mut max] = [[0.0f32; STRIPE]; 2];
        let [mut positive, mut broken, mut bin_of] = [[0u32; STRIPE]; 3];
        let mut bins = vec![[0u32; BINS]; n];
        for (i, unit) in units.iter().enumerate() {
            (sum[i], squares[i], min[i], max[i]) = (unit.sum, unit.sum_squares, unit.min, unit.max);
        }
        for row in piece.counted.clone() {
            let row = &values.row(row)[first..first + n];
            for (i, x) in row.iter().enumerate() {
                // What is not finite counts as 0, and is taken out of the counts again below.
                let is_finite = x.abs() < f32::INFINITY;
                let [x, low, high] =
                    if is_finite { [*x; 3] } else { [0.0, f32::INFINITY, f32::NEG_INFINITY] };
                let wide = f64::from(x);
                sum[i] += wide;
                squares[i] += wide * wide;
                min[i] = if low < min[i] { low } else { min[i] };
                max[i] = if high > max[i] { high } else { max[i] };
                positive[i] += u32::from(x > 0.0);
                broken[i] += u32::from(!is_finite);
                bin_of[i] = bin(x) as u32;
            }
            for (bins, bin) in bins.iter_mut().zip(&bin_of) {
                bins[*bin as usize] += 1;
            }
        }
        for (i, unit) in units.iter_mut().enumerate() {
            (unit.sum, unit.sum_squares, unit.min, unit.max) = (sum[i], squares[i], min[i], max[i]);
            bins[i][bin(0.0)] -= broken[i];
            unit.positive += u64::from(positive[i]);
            unit.not_finite += u64::from(broken[i]);
            unit.count += piece.counted.len() as u64 - u64::from(broken[i]);
            unit.histogram.iter_mut().zip(bins[i]).for_each(|(sum, n)| *sum += u64::from(n));
        }
    }
}

/// The bin of a finite value.
fn bin(x: f32) -> usize {
    /// The first half octave that has a bin of its own, in the bits of a float32: 2^−8.
    const FIRST: i32 = (127 - 8) << 1;
    let half_octave = (x.to_bits() >> 22 & 0x1ff) as i32 - FIRST;
    let size = (half_octave + 1).clamp(0, HALF as i32) as usize;
    if x < 0.0 { HALF - size } else { HALF + size }
}

/// The lower ends of the bins; the first has none.
pub fn edges() -> Vec<f64> {
    let size = |i: usize| {
        let (octave, half) = ((i - 1) / 2, (i - 1) % 2);
        f64::exp2(octave as f64 - 8.0) * (1.0 + 0.5 * half as f64)
    };
    (1..BINS).map(|i| if i <= HALF { -size(HALF + 1 - i) } else { size(i - HALF) }).collect()
}

/// The scores of a head, summed over pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OfHead {
    pub n_pieces: u64,
    /// Previous token, duplicate, induction, first token, distance, entropy: as on the Heads screen.
    pub sums: [f64; 6],
}

const SCORES: [&str; 6] = ["prev_token", "duplicate", "induction", "first_token", "distance", "entropy_bits"];

#[derive(Debug)]
struct OfGroup {
    group: Group,
    units: Vec<OfUnit>,
    heads: Vec<OfHead>,
}

/// The statistics of the units of some hooks.
#[derive(Debug)]
pub struct Stats {
    of: Vec<OfGroup>,
}

impl Stats {
    pub fn new(groups: &[Group]) -> Self {
        let of = |group: &Group| OfGroup {
            group: *group,
            units: vec![OfUnit::default(); group.n],
            heads: vec![OfHead::default(); if group.measure == Measure::Attention { group.n } else { 0 }],
        };
        Self { of: groups.iter().map(of).collect() }
    }

    /// The units of a hook, [`STRIPE`] at a time.
    pub fn stripes(&mut self, tensor: TensorName) -> impl Iterator<Item = Stripe<'_>> {
        let of = self.of.iter_mut().find(|of| of.group.tensor == tensor);
        let stripes = of.into_iter().flat_map(|of| of.units.chunks_mut(STRIPE));
        stripes.enumerate().map(|(i, units)| Stripe { units, first: i * STRIPE })
    }

    /// The scores of the heads, if the hook has any.
    pub fn see_heads(&mut self, tensor: TensorName, values: &Values, piece: &Piece) {
        let Some(of) = self.of.iter_mut().find(|of| of.group.tensor == tensor) else { return };
        let copies = if of.heads.is_empty() { Vec::new() } else { heads::earlier_copies(&piece.tokens) };
        let n = piece.tokens.len();
        let pattern = |head| Matrix::new(values.pattern(head)?.to_vec(), n, n).ok();
        of.heads.par_iter_mut().enumerate().for_each(|(head, of)| {
            if let Some(pattern) = pattern(head) {
                let scores = heads::of_pattern(&pattern, &copies, heads::Exclude::default());
                of.n_pieces += 1;
                of.sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
            }
        });
    }

    /// Adds the statistics of other documents.
    pub fn merge(&mut self, other: &Self) {
        for (of, other) in self.of.iter_mut().zip(&other.of) {
            of.units.iter_mut().zip(&other.units).for_each(|(unit, other)| unit.merge(other));
            for (head, other) in of.heads.iter_mut().zip(&other.heads) {
                head.n_pieces += other.n_pieces;
                head.sums.iter_mut().zip(other.sums).for_each(|(sum, other)| *sum += other);
            }
        }
    }

    /// A row group for each hook, a row for each unit.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        self.of.iter().map(OfGroup::table)
    }

    /// Whether there are heads.
    pub fn has_heads(&self) -> bool {
        self.of.iter().any(|of| !of.heads.is_empty())
    }

    /// The scores of the heads, a row for each.
    pub fn heads_table(&self) -> Table {
        let all = || {
            self.of.iter().flat_map(|of| {
                of.heads
                    .iter()
                    .enumerate()
                    .map(|(i, head)| (of.group.tensor.hook.layer.unwrap_or(0), i, head))
            })
        };
        let mut columns = vec![
            ("layer", Column::I32(all().map(|(layer, ..)| layer as i32).collect())),
            ("head", Column::I32(all().map(|(_, head, _)| head as i32).collect())),
            ("pieces", Column::I64(all().map(|(.., of)| of.n_pieces as i64).collect())),
        ];
        for (i, name) in SCORES.into_iter().enumerate() {
            let mean = |of: &OfHead| of.sums[i] / of.n_pieces as f64;
            columns.push((name, Column::F64(all().map(|(.., of)| mean(of)).collect())));
        }
        let sums = all().map(|(.., of)| of.sums).collect::<Vec<_>>();
        for (i, name) in SUMS.into_iter().enumerate() {
            columns.push((name, Column::F64(sums.iter().map(|sums| sums[i]).collect())));
        }
        Table(columns)
    }

    /// The statistics of a file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that holds something else.
    pub fn read(folder: &Path, groups: &[Group]) -> Result<Self> {
        let mut stats = Self::new(groups);
        let path = folder.join(FILE);
        let reader = Reader::open(&path)?;
        if reader.n_groups() != groups.len() {
            return Err(Error::file(&path, "does not hold the hooks that its manifest names"));
        }
        for (at, of) in stats.of.iter_mut().enumerate() {
            of.units = units(&reader, at, of.group)?;
        }
        if stats.has_heads() {
            let reader = Reader::open(&folder.join(HEADS))?;
            let pieces = reader.all::<i64>(0, "pieces")?;
            let sums = SUMS.iter().map(|name| reader.all::<f64>(0, name)).collect::<Result<Vec<_>>>()?;
            let heads = stats.of.iter_mut().flat_map(|of| &mut of.heads).collect::<Vec<_>>();
            if pieces.len() != heads.len() || sums.iter().any(|sums| sums.len() != heads.len()) {
                return Err(reader.wrong("pieces", "has not a row for each head"));
            }
            for (i, head) in heads.into_iter().enumerate() {
                head.n_pieces = pieces[i] as u64;
                head.sums = std::array::from_fn(|score| sums[score][i]);
            }
        }
        Ok(stats)
    }
}

/// The columns of what the means are made of, so that parts can be added.
const SUMS: [&str; 6] = [
    "sum_prev_token",
    "sum_duplicate",
    "sum_induction",
    "sum_first_token",
    "sum_distance",
    "sum_entropy_bits",
];

/// The statistics of the units of one hook.
///
/// # Errors
/// [`Error::File`] for a file that holds something else.
pub(super) fn units(reader: &Reader, at: usize, group: Group) -> Result<Vec<OfUnit>> {
    let counts = |name| reader.all::<i64>(at, name);
    let (count, not_finite, positive) = (counts("count")?, counts("not_finite")?, counts("positive")?);
    let (sum, squares) = (reader.all::<f64>(at, "sum")?, reader.all::<f64>(at, "sum_squares")?);
    let (min, max) = (reader.all::<f32>(at, "min")?, reader.all::<f32>(at, "max")?);
    let histogram = reader.all_lists::<i64>(at, "histogram")?;
    let lengths =
        [count.len(), not_finite.len(), positive.len(), sum.len(), squares.len(), min.len(), max.len()];
    if lengths.iter().any(|n| *n != group.n) || histogram.len() != group.n {
        return Err(reader.wrong("count", "has not a row for each unit"));
    }
    let unit = |(i, histogram): (usize, Vec<i64>)| OfUnit {
        count: count[i] as u64,
        not_finite: not_finite[i] as u64,
        positive: positive[i] as u64,
        sum: sum[i],
        sum_squares: squares[i],
        min: min[i],
        max: max[i],
        histogram: histogram.into_iter().map(|n| n as u64).chain(std::iter::repeat(0)).take(BINS).collect(),
    };
    Ok(histogram.into_iter().enumerate().map(unit).collect())
}

impl OfGroup {
    fn table(&self) -> Table {
        let units = || self.units.iter();
        let hook = self.group.tensor.hook;
        let layer = hook.layer.map_or(-1, |layer| layer as i32);
        let counts = |of: fn(&OfUnit) -> u64| Column::I64(units().map(|unit| of(unit) as i64).collect());
        let wide = |of: fn(&OfUnit) -> f64| Column::F64(units().map(of).collect());
        let histogram = |unit: &OfUnit| unit.histogram.iter().map(|n| *n as i64).collect();
        Table(vec![
            ("unit", Column::Text((0..self.group.n).map(|unit| self.group.name(unit)).collect())),
            ("hook", Column::Text(units().map(|_| self.group.tensor.to_string()).collect())),
            ("layer", Column::I32(units().map(|_| layer).collect())),
            ("index", Column::I32((0..self.group.n).map(|unit| unit as i32).collect())),
            ("count", counts(|unit| unit.count)),
            ("not_finite", counts(|unit| unit.not_finite)),
            ("mean", wide(OfUnit::mean)),
            ("variance", wide(OfUnit::variance)),
            ("min", Column::F32(units().map(|unit| unit.min).collect())),
            ("max", Column::F32(units().map(|unit| unit.max).collect())),
            ("positive_share", wide(OfUnit::positive_share)),
            ("positive", counts(|unit| unit.positive)),
            ("sum", wide(|unit| unit.sum)),
            ("sum_squares", wide(|unit| unit.sum_squares)),
            ("histogram", Column::I64s(units().map(histogram).collect())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::hooks::Site;

    proptest! {
        #[test]
        fn statistics_are_those_of_one_value_after_the_other(
            values in proptest::collection::vec(
                prop_oneof![8 => -300f32..300.0, 1 => Just(0.0), 1 => prop_oneof![
                    Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(1e-12),
                ]],
                70 * 3,
            ),
        ) {
            let config = Config::gpt2();
            let group = Group::new(Site::MlpPost.at(0), &Config { n_inner: Some(70), ..config }).unwrap();
            let x = Tensor::from_vec(values.clone(), (3, 70), &Device::Cpu).unwrap();
            let piece = Piece { document: 0, tokens: vec![1, 2, 3], first: 0, n_bos: 1, counted: 1..3 };
            let mut stats = Stats::new(&[group]);
            group.with_values(&x, |values| {
                stats.stripes(group.tensor).for_each(|mut stripe| stripe.see(values, &piece));
            }).unwrap();
            for (i, unit) in stats.of[0].units.iter().enumerate() {
                let all = [values[70 + i], values[140 + i]];
                let finite: Vec<_> = all.into_iter().filter(|x| x.is_finite()).collect();
                let mut want = OfUnit { not_finite: 2 - finite.len() as u64, ..OfUnit::default() };
                for x in finite {
                    want.count += 1;
                    want.positive += u64::from(x > 0.0);
                    want.sum += f64::from(x);
                    want.sum_squares += f64::from(x).powi(2);
                    (want.min, want.max) = (want.min.min(x), want.max.max(x));
                    want.histogram[bin(x)] += 1;
                }
                prop_assert_eq!(unit, &want);
            }
        }
    }

    #[test]
    fn each_value_is_in_the_bin_between_its_edges() {
        let edges = edges();
        assert_eq!(edges.len(), BINS - 1);
        assert!(edges.is_sorted());
        for x in [0.0, -0.0, 1e-9, 0.003, 0.0039_f32, 0.0040, 0.5, 0.75, 1.0, 1.49, 1.5, 200.0, 255.0, 1e9] {
            for x in [x, -x] {
                let bin = bin(x);
                let wide = f64::from(x);
                // A negative value that is an edge belongs to the bin below it.
                let below = bin == 0 || wide >= edges[bin - 1];
                let above = bin == BINS - 1 || wide <= edges[bin];
                assert!(below && above, "{x} in {bin}");
            }
        }
    }
}
