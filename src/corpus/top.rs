//! The strongest examples of each unit, and some that are drawn by chance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::piece::Piece;
use super::table::{Column, Reader, Table};
use super::units::{Group, Values};
use crate::error::{Error, Result};
use crate::hooks::TensorName;

pub const FILE: &str = "top.parquet";

/// Into how many quantiles the drawn examples are divided.
pub const QUARTERS: usize = 4;

/// A place in the corpus where a unit has a value, with the tokens around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub value: f32,
    /// Counted over all inputs, from 0.
    pub document: u64,
    /// Within the document, from 0.
    pub position: u32,
    /// The position of the first of `token_ids`.
    pub first: u32,
    pub token_ids: Arc<[u32]>,
    /// The value at each of them; of a head, the weight on each.
    pub values: Box<[f32]>,
    /// The position of the token that a head attends to most.
    pub key: Option<u32>,
}

impl Example {
    /// Which of `token_ids` the value is at.
    pub fn at(&self) -> usize {
        (self.position - self.first) as usize
    }

    /// The number that is drawn for its place.
    fn number(&self) -> u64 {
        draw(self.document, self.position)
    }

    /// Whether it comes before another in the list of the strongest: the larger value, then the earlier place.
    fn is_before(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.document, one.position);
        self.value > other.value || (self.value == other.value && place(self) < place(other))
    }
}

/// The examples of one unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfUnit {
    /// The strongest first.
    pub best: Vec<Example>,
    /// Those with the smallest numbers among all values above 0, so that each place has the same chance; the
    /// largest value first.
    drawn: Vec<Example>,
}

impl OfUnit {
    /// Those that were drawn among all values above 0, the largest first, each with its quarter of them, from 1.
    pub fn drawn(&self) -> impl Iterator<Item = (usize, &Example)> {
        let n = self.drawn.len();
        self.drawn.iter().enumerate().map(move |(i, example)| (1 + i * QUARTERS / n, example))
    }

    /// The strongest, then those that were drawn.
    pub fn all(&self) -> impl Iterator<Item = &Example> {
        self.best.iter().chain(self.drawn().map(|(_, example)| example))
    }

    /// The largest |value| at any token of the examples.
    pub fn limit(&self) -> f32 {
        let values = self.all().flat_map(|example| example.values.iter());
        values.filter(|x| x.is_finite()).fold(0.0, |most, x| most.max(x.abs()))
    }

    fn put(&mut self, example: Example, k: usize) {
        let at = self.best.partition_point(|one| one.is_before(&example));
        if at < k {
            self.best.insert(at, example);
            self.best.truncate(k);
        }
    }

    /// Keeps one more of those drawn, or, if there are `n`, the `n` with the smallest numbers.
    fn draw(&mut self, example: Example, n: usize) {
        let at = self.drawn.partition_point(|one| one.is_before(&example));
        self.drawn.insert(at, example);
        if self.drawn.len() > n {
            let last = (0..self.drawn.len()).max_by_key(|i| self.drawn[*i].number());
            last.map(|last| self.drawn.remove(last));
        }
    }

    /// What the value of a place must exceed to be among the best of `k`.
    fn floor(&self, k: usize) -> f32 {
        self.best.get(k - 1).map_or(f32::NEG_INFINITY, |last| last.value)
    }

    /// What the number of a place must be below to be among the `n` drawn.
    fn ceiling(&self, n: usize) -> u64 {
        let is_full = self.drawn.len() >= n;
        if is_full { self.drawn.iter().map(Example::number).max().unwrap_or(0) } else { u64::MAX }
    }
}

/// The examples of the units of one hook.
#[derive(Debug)]
struct OfGroup {
    group: Group,
    units: Vec<OfUnit>,
    /// [`OfUnit::floor`] of each.
    floors: Vec<f32>,
    /// [`OfUnit::ceiling`] of each.
    ceilings: Vec<u64>,
}

/// How many examples of each unit, and how much around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The strongest of each unit.
    pub k: usize,
    /// Tokens before and after.
    pub around: usize,
    /// Those drawn of each unit.
    pub drawn: usize,
}

/// The strongest examples of each unit of some hooks.
#[derive(Debug)]
pub struct Top {
    size: Size,
    of: Vec<OfGroup>,
}

impl Top {
    pub fn new(groups: &[Group], size: Size) -> Self {
        let of = |group: &Group| OfGroup {
            group: *group,
            units: vec![OfUnit::default(); group.n],
            floors: vec![f32::NEG_INFINITY; group.n],
            ceilings: vec![if size.drawn == 0 { 0 } else { u64::MAX }; group.n],
        };
        Self { size, of: groups.iter().map(of).collect() }
    }

    /// The units of a hook, [`STRIPE`] at a time.
    pub fn stripes(&mut self, tensor: TensorName) -> impl Iterator<Item = Stripe<'_>> {
        let size = self.size;
        let of = self.of.iter_mut().find(|of| of.group.tensor == tensor);
        of.into_iter().flat_map(move |of| {
            let rest = of.floors.chunks_mut(STRIPE).zip(of.ceilings.chunks_mut(STRIPE));
            let stripes = of.units.chunks_mut(STRIPE).zip(rest).enumerate();
            stripes.map(move |(i, (units, (floors, ceilings)))| Stripe {
                size,
                first: i * STRIPE,
                units,
                floors,
                ceilings,
            })
        })
    }

    /// The tokens around each place of a piece that counts.
    pub fn windows(&self, piece: &Piece) -> Vec<Window> {
        piece.counted.clone().map(|row| Window::new(piece, row, self.size.around)).collect()
    }

    /// Adds the examples of other documents.
    pub fn merge(&mut self, other: Self) {
        for (of, other) in self.of.iter_mut().zip(other.of) {
            for (unit, other) in of.units.iter_mut().zip(other.units) {
                other.best.into_iter().for_each(|example| unit.put(example, self.size.k));
                other.drawn.into_iter().for_each(|drawn| unit.draw(drawn, self.size.drawn));
            }
        }
        self.settle();
    }

    /// What new values are compared with, from the examples.
    fn settle(&mut self) {
        for of in &mut self.of {
            of.floors = of.units.iter().map(|unit| unit.floor(self.size.k)).collect();
            of.ceilings = of.units.iter().map(|unit| unit.ceiling(self.size.drawn)).collect();
        }
    }

    /// A row group for each hook, a row for each example.
    pub fn tables(&self, text: &(dyn Fn(u32) -> String + Sync)) -> impl Iterator<Item = Table> {
        // Some at a time, so that the threads have work and the memory is that of few.
        self.of
            .chunks(rayon::current_num_threads())
            .flat_map(move |some| some.par_iter().map(|of| of.table(text)).collect::<Vec<_>>())
    }

    /// The examples of a file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that holds something else.
    pub fn read(
        folder: &Path,
        groups: &[Group],
        size: Size,
        texts: &mut BTreeMap<u32, String>,
    ) -> Result<Self> {
        let mut top = Self::new(groups, size);
        let path = folder.join(FILE);
        let reader = Reader::open(&path)?;
        if reader.n_groups() != groups.len() {
            return Err(Error::file(&path, "does not hold the hooks that its manifest names"));
        }
        for (i, of) in top.of.iter_mut().enumerate() {
            of.units = units(&reader, i, of.group, texts)?;
        }
        top.settle();
        Ok(top)
    }
}

/// The examples of the units of one hook.
///
/// # Errors
/// [`Error::File`] for a file that holds something else.
pub(super) fn units(
    reader: &Reader,
    at: usize,
    group: Group,
    texts: &mut BTreeMap<u32, String>,
) -> Result<Vec<OfUnit>> {
    let mut units = vec![OfUnit::default(); group.n];
    let whole = |name| reader.all::<i32>(at, name);
    let (index, rank, position, first, key) =
        (whole("index")?, whole("rank")?, whole("position")?, whole("first")?, whole("key")?);
    let document = reader.all::<i64>(at, "document")?;
    let value = reader.all::<f32>(at, "value")?;
    let (ids, tokens) =
        (reader.all_lists::<i32>(at, "token_ids")?, reader.all_lists::<String>(at, "tokens")?);
    let values = reader.all_lists::<f32>(at, "values")?;
    let n = value.len();
    let lengths = [index.len(), rank.len(), position.len(), first.len(), key.len(), document.len()];
    if lengths.iter().chain(&[ids.len(), tokens.len(), values.len()]).any(|length| *length != n) {
        return Err(reader.wrong("value", "has more or fewer rows than others"));
    }
    for (i, (((ids, tokens), values), value)) in
        ids.into_iter().zip(tokens).zip(values).zip(value).enumerate()
    {
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        for (id, text) in ids.iter().zip(tokens) {
            texts.entry(*id).or_insert(text);
        }
        let unit = usize::try_from(index[i]).ok().and_then(|unit| units.get_mut(unit));
        let unit = unit.ok_or_else(|| reader.wrong("index", "names a unit that the hook does not have"))?;
        let example = Example {
            value,
            document: document[i] as u64,
            position: position[i] as u32,
            first: first[i] as u32,
            token_ids: ids.into(),
            values: values.into(),
            key: u32::try_from(key[i]).ok(),
        };
        let n = example.token_ids.len();
        if example.position < example.first || example.at() >= n || example.values.len() != n {
            return Err(reader.wrong("position", "is of no token around it"));
        }
        if rank[i] == 0 {
            unit.drawn.push(example);
        } else {
            unit.best.push(example);
        }
    }
    Ok(units)
}

/// Unit, rank, quarter.
type Row<'a> = (usize, i32, i32, &'a Example);

impl OfGroup {
    fn table(&self, text: &(dyn Fn(u32) -> String + Sync)) -> Table {
        let all = || {
            self.units.iter().enumerate().flat_map(|(unit, of)| {
                let best = of.best.iter().zip(1..).map(move |(example, rank)| (unit, rank, 0, example));
                best.chain(of.drawn().map(move |(quarter, example)| (unit, 0, quarter as i32, example)))
            })
        };
        let ints = |of: fn(Row) -> i32| Column::I32(all().map(of).collect());
        let hook = self.group.tensor.hook;
        let layer = hook.layer.map_or(-1, |layer| layer as i32);
        let texts = |example: &Example| example.token_ids.iter().map(|id| text(*id)).collect();
        Table(vec![
            ("unit", Column::Text(all().map(|(unit, ..)| self.group.name(unit)).collect())),
            ("hook", Column::Text(all().map(|_| self.group.tensor.to_string()).collect())),
            ("layer", Column::I32(all().map(|_| layer).collect())),
            ("index", ints(|(unit, ..)| unit as i32)),
            ("rank", ints(|(_, rank, ..)| rank)),
            ("quarter", ints(|(_, _, quarter, ..)| quarter)),
            ("value", Column::F32(all().map(|(.., example)| example.value).collect())),
            ("document", Column::I64(all().map(|(.., example)| example.document as i64).collect())),
            ("position", ints(|(.., example)| example.position as i32)),
            ("first", ints(|(.., example)| example.first as i32)),
            ("key", ints(|(.., example)| example.key.map_or(-1, |key| key as i32))),
            (
                "token_ids",
                Column::I32s(
                    all().map(|(.., one)| one.token_ids.iter().map(|id| *id as i32).collect()).collect(),
                ),
            ),
            ("tokens", Column::Texts(all().map(|(.., example)| texts(example)).collect())),
            ("values", Column::F32s(all().map(|(.., example)| example.values.to_vec()).collect())),
        ])
    }
}

/// The number of units that a thread takes at a time.
pub const STRIPE: usize = 64;

/// Up to [`STRIPE`] units of a hook.
pub struct Stripe<'a> {
    size: Size,
    /// The number of the first.
    first: usize,
    units: &'a mut [OfUnit],
    floors: &'a mut [f32],
    ceilings: &'a mut [u64],
}

impl Stripe<'_> {
    pub fn see(&mut self, values: &Values, windows: &[Window], piece: &Piece) {
        let Self { size, first, units, floors, ceilings } = self;
        for window in windows {
            let row = &values.row(window.row)[*first..*first + units.len()];
            let example = |i: usize| window.example(row[i], *first + i, values, piece);
            // Without a branch for each, so that vectors are compared.
            let over = row.iter().zip(&**floors).fold(0, |over, (x, floor)| over | u32::from(x > floor));
            if over > 0 {
                for i in 0..row.len() {
                    if row[i] > floors[i] {
                        units[i].put(example(i), size.k);
                        floors[i] = units[i].floor(size.k);
                    }
                }
            }
            let below = ceilings.iter().fold(0, |below, ceiling| below | u32::from(window.number < *ceiling));
            if below > 0 {
                for i in 0..row.len() {
                    if window.number < ceilings[i] && row[i] > 0.0 {
                        units[i].draw(example(i), size.drawn);
                        ceilings[i] = units[i].ceiling(size.drawn);
                    }
                }
            }
        }
    }
}

/// The tokens around a row of a piece.
pub struct Window {
    row: usize,
    rows: std::ops::Range<usize>,
    first: u32,
    token_ids: Arc<[u32]>,
    position: u32,
    /// Drawn for the place, the same in every run.
    number: u64,
}

impl Window {
    fn new(piece: &Piece, row: usize, around: usize) -> Self {
        let rows = row.saturating_sub(around).max(piece.n_bos)..(row + around + 1).min(piece.tokens.len());
        Self {
            row,
            first: piece.position(rows.start),
            token_ids: piece.tokens[rows.clone()].into(),
            position: piece.position(row),
            number: draw(piece.document, piece.position(row)),
            rows,
        }
    }

    fn example(&self, value: f32, unit: usize, values: &Values, piece: &Piece) -> Example {
        Example {
            value,
            document: piece.document,
            position: self.position,
            first: self.first,
            token_ids: Arc::clone(&self.token_ids),
            values: self.rows.clone().map(|other| values.around(unit, self.row, other)).collect(),
            key: values.key(unit, self.row, piece),
        }
    }
}

/// A number for a place in the corpus: splitmix64.
pub fn draw(document: u64, position: u32) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(document.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(u64::from(position)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hooks::Site;

    fn group() -> Group {
        let config = crate::Model::demo().config().clone();
        Group::new(Site::MlpPost.at(0), &Config { n_inner: Some(2), ..config }).unwrap()
    }

    use crate::config::Config;

    fn example(document: u64, value: f32) -> Example {
        Example {
            value,
            document,
            position: (document % 7) as u32,
            first: 0,
            token_ids: [1, 2].into(),
            values: [value, 0.0].into(),
            key: None,
        }
    }

    /// The examples of some documents.
    fn of(documents: &[(u64, f32)]) -> Top {
        let mut top = Top::new(&[group()], Size { k: 3, around: 1, drawn: 4 });
        for &(document, value) in documents {
            let unit = &mut top.of[0].units[(document % 2) as usize];
            unit.put(example(document, value), 3);
            if value > 0.0 {
                unit.draw(example(document, value), 4);
            }
        }
        top.settle();
        top
    }

    proptest! {
        #[test]
        fn shards_merge_in_any_order(
            values in proptest::collection::vec(prop_oneof![-1f32..20.0, Just(1.0), Just(0.5)], 1..60),
            shards in 1u64..6,
            first in 0u64..6,
        ) {
            let all: Vec<_> = (0..).zip(values).collect();
            let whole = of(&all);
            let shard = |index: u64| {
                of(&all.iter().copied().filter(|(document, _)| document % shards == index).collect::<Vec<_>>())
            };
            let mut merged = shard(first % shards);
            (1..shards).for_each(|by| merged.merge(shard((first + by) % shards)));
            prop_assert_eq!(&merged.of[0].units, &whole.of[0].units);
            prop_assert_eq!(&merged.of[0].floors, &whole.of[0].floors);
            prop_assert_eq!(&merged.of[0].ceilings, &whole.of[0].ceilings);
        }
    }
}
