//! Several sequences in one forward pass: their rows are packed one after the other, and attention stays
//! within each. A sequence may continue an earlier run. A single run is a batch of one.

use std::ops::Range;

use candle_core::Tensor;

use super::cache::ActivationCache;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks, Part, Site};

/// What a sequence need not compute because another run has it: the first `rows` rows of every tensor of
/// the blocks below `blocks`, and the first `above` rows of all others. `blocks` is `n_layer` if all
/// blocks are kept but not what follows them, and more if that is kept too.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    pub(crate) cache: &'a ActivationCache,
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
    pub(crate) above: usize,
}

impl Kept<'_> {
    /// The first row that is computed in block `l`, or after the blocks.
    fn first(&self, l: usize) -> usize {
        if l < self.blocks { self.rows } else { self.above }
    }

    /// Kept rows of a tensor, on the network's device and in its format.
    fn get(&self, name: HookName, rows: Range<usize>) -> Result<Tensor> {
        let net = &self.cache.net;
        let x = self.cache.fetch(name, &Part::rows(rows))?;
        Ok(x.to_device(net.device())?.to_dtype(net.dtype())?)
    }
}

/// One of the sequences of a batch.
pub struct Sequence<'a> {
    /// The T tokens.
    pub tokens: &'a [u32],
    pub hooks: &'a mut dyn Hooks,
    pub kept: Option<Kept<'a>>,
    /// The positions whose output is wanted: the last block computes no others, unless the hooks want them.
    pub wanted: Range<usize>,
    /// The number of queries of a run whose arithmetic is repeated to the bit; few are otherwise computed in
    /// another order than many.
    pub like: usize,
}

impl<'a> Sequence<'a> {
    /// A whole sequence.
    pub fn new(tokens: &'a [u32], hooks: &'a mut dyn Hooks, kept: Option<Kept<'a>>) -> Self {
        Self { tokens, hooks, kept, wanted: 0..tokens.len(), like: 0 }
    }
}

/// A sequence, and its rows among those that are computed.
struct Member<'a> {
    of: Sequence<'a>,
    /// The positions that are computed.
    positions: Range<usize>,
    /// The first of their rows.
    start: usize,
}

impl Member<'_> {
    fn rows(&self) -> Range<usize> {
        self.start..self.start + self.positions.len()
    }

    /// The rows of a tensor that are computed, after those that are kept.
    fn whole(&self, name: HookName, new: Tensor) -> Result<Tensor> {
        match &self.of.kept {
            Some(kept) if self.positions.start > 0 => {
                let before = kept.get(name, 0..self.positions.start)?;
                Ok(Tensor::cat(&[&before, &new], 0)?)
            }
            _ => Ok(new),
        }
    }

    /// Its rows of a tensor of all.
    fn part(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(0, self.start, self.positions.len())?)
    }

    /// What the hooks put in place of a whole tensor, if anything.
    fn asked(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        match self.of.hooks.hook(name, x)? {
            Some(new) if new.dims() != x.dims() => Err(Error::usage(format!(
                "the hook on {name} returned shape {:?} instead of {:?}",
                new.dims(),
                x.dims()
            ))),
            new => Ok(new),
        }
    }

    /// What the hooks put in place of the rows of a tensor that are computed, if anything.
    fn replaced(&mut self, name: HookName, new: Tensor) -> Result<Option<Tensor>> {
        let x = self.whole(name, new)?;
        let new = self.asked(name, &x)?;
        let rows = |x: Tensor| x.narrow(0, self.positions.start, self.positions.len());
        Ok(if self.positions.start > 0 { new.map(rows).transpose()? } else { new })
    }

    /// The tensor to continue with.
    fn see(&mut self, name: HookName, x: Tensor) -> Result<Tensor> {
        if !self.of.hooks.wants(name) {
            return Ok(x);
        }
        Ok(self.replaced(name, x.clone())?.unwrap_or(x))
    }
}

/// Sequences that are computed together. Hands their tensors to the hooks of each, and takes back
/// the results. R is the number of rows of all sequences that are computed at that point.
pub(super) struct Batch<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Batch<'a> {
    pub fn new(sequences: impl IntoIterator<Item = Sequence<'a>>) -> Self {
        let member = |of: Sequence<'a>| {
            let first = of.kept.map_or(0, |kept| kept.first(0));
            Member { positions: first..of.tokens.len(), start: 0, of }
        };
        let mut batch = Self { members: sequences.into_iter().map(member).collect() };
        batch.pack();
        batch
    }

    /// Puts the rows of each member after those of the one before.
    fn pack(&mut self) {
        let mut start = 0;
        for member in &mut self.members {
            member.start = start;
            start += member.positions.len();
        }
    }

    /// R
    pub fn n_rows(&self) -> usize {
        self.members.iter().map(|member| member.positions.len()).sum()
    }

    /// The token and the position of each row: (R), (R).
    pub fn tokens(&self) -> (Vec<u32>, Vec<u32>) {
        let rows = || self.members.iter().flat_map(|one| one.positions.clone().map(move |at| (one, at)));
        (rows().map(|(one, at)| one.of.tokens[at]).collect(), rows().map(|(_, at)| at as u32).collect())
    }

    pub fn wants(&self, name: HookName) -> bool {
        self.computed().any(|member| member.of.hooks.wants(name))
    }

    /// The sequences of which rows are computed.
    fn computed(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| !member.positions.is_empty())
    }

    fn computed_mut(&mut self) -> impl Iterator<Item = &mut Member<'a>> {
        self.members.iter_mut().filter(|member| !member.positions.is_empty())
    }

    pub fn before_block(&mut self, l: usize) -> Result<()> {
        self.computed_mut().try_for_each(|member| member.of.hooks.before_block(l))
    }

    /// The residual stream with the rows that were kept up to block `l` and are computed from there on.
    pub fn join(&mut self, l: usize, x: Tensor) -> Result<Tensor> {
        fn joins<'a>(member: &Member<'a>, l: usize) -> Option<Kept<'a>> {
            member.of.kept.filter(|kept| kept.blocks == l && l > 0 && kept.above < member.positions.start)
        }
        if self.members.iter().all(|member| joins(member, l).is_none()) {
            return Ok(x);
        }
        let mut pieces = Vec::new();
        for member in &mut self.members {
            let rows = member.rows();
            if let Some(kept) = joins(member, l) {
                // Not resid_pre of this block, which may have been replaced.
                pieces.push(kept.get(Site::ResidPost.at(l - 1), kept.above..kept.rows)?);
                member.positions.start = kept.above;
            }
            if !rows.is_empty() {
                pieces.push(x.narrow(0, rows.start, rows.len())?);
            }
        }
        self.pack();
        Ok(Tensor::cat(&pieces, 0)?)
    }

    /// The rows whose output is wanted, of tensors (R, C): from the queries of the last block on, no hook
    /// and no other row needs the rest.
    pub fn only_wanted(&mut self, config: &Config, tensors: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let last = config.n_layer - 1;
        let mut queries = HookName::all(config);
        queries.retain(|name| *name > Site::Ln1Out.at(last) && !matches!(name.site, Site::K | Site::V));
        let rest = |member: &Member| {
            let (computed, wanted) = (&member.positions, &member.of.wanted);
            let wanted = computed.start.max(wanted.start)..wanted.end;
            let watched = || queries.iter().any(|name| member.of.hooks.wants(*name));
            // Where rows are still to join, the order must stay.
            let joined = member.of.kept.is_none_or(|kept| kept.blocks <= last);
            (joined && wanted != *computed && !watched()).then_some(wanted)
        };
        let wanted: Vec<_> = self.members.iter().map(rest).collect();
        if wanted.iter().all(Option::is_none) {
            return Ok(tensors);
        }
        let mut rows: Vec<u32> = Vec::new();
        for (member, wanted) in self.members.iter_mut().zip(wanted) {
            let Some(wanted) = wanted else {
                rows.extend(member.rows().map(|row| row as u32));
                continue;
            };
            let first = member.start + wanted.start - member.positions.start;
            rows.extend((first..first + wanted.len()).map(|row| row as u32));
            member.positions = wanted;
        }
        self.pack();
        let rows = Tensor::new(rows, tensors[0].device())?;
        let [a, b] = tensors.map(|x| x.index_select(&rows, 0));
        Ok([a?, b?])
    }

    /// The output rows that are wanted, sequence by sequence: (R, C) → (Σ wanted, C).
    pub fn output(&self, x: &Tensor) -> Result<Tensor> {
        let rows = |member: &Member| {
            let first = member.start + member.of.wanted.start - member.positions.start;
            first as u32..(first + member.of.wanted.len()) as u32
        };
        let rows: Vec<u32> = self.members.iter().flat_map(rows).collect();
        Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
    }

    pub fn once(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.see(site.once(), x)
    }

    pub fn at(&mut self, layer: usize, site: Site, x: Tensor) -> Result<Tensor> {
        self.see(site.at(layer), x)
    }

    /// The tensor to continue with, (R, …).
    pub fn see(&mut self, name: HookName, x: Tensor) -> Result<Tensor> {
        let replaced = self.replaced(name, &x)?;
        put(x, replaced)
    }

    /// What the hooks put in place of rows of `x`, and from which row on.
    pub fn replaced(&mut self, name: HookName, x: &Tensor) -> Result<Vec<(usize, Tensor)>> {
        let mut replaced = Vec::new();
        for member in self.computed_mut().filter(|member| member.of.hooks.wants(name)) {
            if let Some(new) = member.replaced(name, member.part(x)?)? {
                replaced.push((member.start, new));
            }
        }
        Ok(replaced)
    }

    /// The same for what is as long as a sequence: each by itself.
    pub fn see_each(&mut self, name: HookName, xs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let see = |(member, x): (&mut Member, Tensor)| member.see(name, x);
        self.computed_mut().zip(xs).map(see).collect()
    }

    /// The rows of each sequence, the first position that is computed, and of how many queries the
    /// arithmetic is.
    pub fn split(&self, x: &Tensor) -> Result<Vec<(Tensor, usize, usize)>> {
        let part = |member: &Member<'_>| {
            let n_queries = member.of.like.max(member.positions.len());
            Ok((member.part(x)?, member.positions.start, n_queries))
        };
        self.computed().map(part).collect()
    }

    /// Keys or values of each sequence, those that are kept first: (R, H, d_head) → (T, H, d_head) each.
    pub fn whole(&mut self, layer: usize, site: Site, new: &Tensor) -> Result<Vec<Tensor>> {
        let name = site.at(layer);
        let whole = |member: &mut Member| {
            let x = member.whole(name, member.part(new)?)?;
            if member.of.hooks.wants(name) { Ok(member.asked(name, &x)?.unwrap_or(x)) } else { Ok(x) }
        };
        self.computed_mut().map(whole).collect()
    }
}

/// `x` with rows replaced: each tensor from the row it names on.
pub(super) fn put(x: Tensor, mut replaced: Vec<(usize, Tensor)>) -> Result<Tensor> {
    match &replaced[..] {
        [] => return Ok(x),
        [(_, new)] if new.dims() == x.dims() => return Ok(replaced.remove(0).1),
        _ => {}
    }
    let x = x.force_contiguous()?;
    for (start, new) in replaced {
        x.slice_set(&new.contiguous()?, 0, start)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;

    use super::*;
    use crate::hooks::HookFilter;
    use crate::interventions::{Change, Donors, Interventions};
    use crate::{Input, Model, Run};

    static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| Arc::new(Model::demo()));
    static BASE: LazyLock<Run> = LazyLock::new(|| {
        Run::all(&MODEL, Input::ids((0..24).map(|i| i * 31 % 2048).collect::<Vec<_>>())).unwrap()
    });

    /// A sequence: how many of its first tokens are those of the base, how many follow, whether it continues the
    /// base, a change, and what is wanted.
    #[derive(Debug, Clone)]
    struct One {
        shared: usize,
        own: Vec<u32>,
        continues: bool,
        change: Option<(usize, usize, usize)>,
        watched: bool,
        wanted: (usize, usize),
    }

    const CHANGES: [&str; 7] = [
        "zero head:L.1@T",
        "zero mlp:L@T",
        "scale resid_pre.L@T=2",
        "zero q.L.2@T",
        "zero v.L@T",
        "zero layer:L@T",
        "knockout L.3:T->0",
    ];

    impl One {
        fn tokens(&self) -> Vec<u32> {
            BASE.tokens[..self.shared].iter().chain(&self.own).copied().collect()
        }

        /// The change, and the block and the position where it begins.
        fn interventions(&self) -> (Interventions, usize, usize) {
            let (n, n_layer) = (self.tokens().len(), MODEL.config().n_layer);
            let Some((what, layer, position)) = self.change else {
                return (Interventions::default(), n_layer, n);
            };
            let (layer, position) = (layer % n_layer, position % n);
            let text = CHANGES[what].replace('L', &layer.to_string()).replace('T', &position.to_string());
            let first = if what == 6 { 0 } else { position };
            ([text.parse::<Change>().unwrap()].into_iter().collect(), layer, first)
        }

        /// All that the base has of it.
        fn kept(&self) -> Option<Kept<'static>> {
            let (_, blocks, first) = self.interventions();
            let rows = self.shared.min(self.tokens().len());
            let above = first.min(rows).min(self.tokens().len() - 1);
            let kept = Kept { cache: &BASE.cache, rows, blocks, above };
            (self.continues && rows > 0 && blocks + above > 0).then_some(kept)
        }

        fn wanted(&self) -> Range<usize> {
            let n = self.tokens().len();
            let start =
                (self.wanted.0 % n).max(self.kept().map_or(0, |kept| kept.first(MODEL.config().n_layer)));
            start..(start + 1 + self.wanted.1).min(n)
        }
    }

    fn one() -> impl Strategy<Value = One> {
        let own = proptest::collection::vec(0u32..2048, 0..12);
        let change = proptest::option::of((0..CHANGES.len(), 0usize..4, 0usize..30));
        (0usize..24, own, any::<bool>(), change, any::<bool>(), (0usize..30, 0usize..4))
            .prop_filter("no tokens", |(shared, own, ..)| shared + own.len() > 0)
            .prop_map(|(shared, own, continues, change, watched, wanted)| One {
                shared,
                own,
                continues,
                change,
                watched,
                wanted,
            })
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// To 1e-5 of the largest value: few queries are summed in another order than many.
    fn close(got: &Tensor, want: &Tensor) -> Result<(), TestCaseError> {
        prop_assert_eq!(got.dims(), want.dims());
        let (got, want) = (values(got), values(want));
        let largest = want.iter().filter(|x| x.is_finite()).fold(1.0f32, |most, x| most.max(x.abs()));
        for (got, want) in got.iter().zip(&want) {
            let same = got.to_bits() == want.to_bits() || (got - want).abs() <= 1e-5 * largest;
            prop_assert!(same, "{got} in the batch, {want} alone");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_sequence_in_a_batch_is_the_same_as_alone(all in proptest::collection::vec(one(), 1..7)) {
            let net = &MODEL.net;
            let tokens: Vec<_> = all.iter().map(One::tokens).collect();
            let mut hooks: Vec<_> = all.iter().map(|one| {
                let changes = one.interventions().0.hooks(&MODEL, &mut Donors::default()).unwrap();
                let of_last = ["ln2_out.3", "pattern.3", "ln_final_out"];
                let keep = if !one.watched {
                    HookFilter::of([])
                } else if one.continues {
                    HookFilter::new(&["q.*", "z.*", "resid_post.3"], &net.config).unwrap()
                } else {
                    HookFilter::new(&of_last, &net.config).unwrap()
                };
                (changes, ActivationCache::with_filter(keep, net))
            }).collect();
            let sequences = all.iter().zip(&tokens).zip(&mut hooks).map(|((one, tokens), hooks)| {
                Sequence { tokens, hooks, kept: one.kept(), wanted: one.wanted(), like: tokens.len() }
            });
            let out = net.outputs(sequences).unwrap();
            // Otherwise the steps of attention are taken one by one.
            let exact = !all.iter().any(|one| one.watched || one.change.is_some_and(|change| change.0 == 6));
            let mut row = 0;
            for ((one, tokens), (_, cache)) in all.iter().zip(&tokens).zip(&hooks) {
                let input = Input::ids(tokens.clone()).with_interventions(one.interventions().0);
                let alone = Run::all(&MODEL, input).unwrap();
                let wanted = one.wanted();
                let want = alone.part(Site::LnFinalOut.once(), &Part::rows(wanted.clone())).unwrap();
                let got = out.narrow(0, row, wanted.len()).unwrap();
                close(&got, &want)?;
                // The base has many queries, which are computed in another order than few.
                if exact && (tokens.len() >= 8 || one.kept().is_none()) {
                    prop_assert_eq!(values(&got), values(&want));
                }
                row += wanted.len();
                for (name, x) in cache.iter() {
                    close(&x, &alone.tensor(name).unwrap())?;
                }
            }
            prop_assert_eq!(row, out.dims()[0]);
        }
    }
}
