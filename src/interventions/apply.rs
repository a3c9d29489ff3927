//! Interventions as hooks.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{DType, Tensor};

use super::features::OnFeatures;
use super::{Change, Direction, Edge, Interventions, Place, Target};
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookFilter, HookName, Hooks};
use crate::model::{ActivationCache, Model, Sequence};

/// Applies the active changes of a list.
#[derive(Debug)]
pub struct Changes {
    pub(super) all: Vec<(Change, Option<ActivationCache>)>,
    pub(super) features: OnFeatures,
}

/// The tensors of other prompts that are patched in, by the changes up to then.
#[derive(Debug, Clone, Default)]
pub struct Donors(HashMap<String, ActivationCache>);

impl Interventions {
    /// The hook that applies them. Runs the prompts that they take activations from, except
    /// those already `known`; afterwards all are.
    ///
    /// # Errors
    /// See [`crate::model::Gpt2::run`] and [`Self::check`], for those prompts.
    pub fn hooks(&self, model: &Model, known: &mut Donors) -> Result<Changes> {
        let net = &model.net;
        let all: Self = self.active().map(|intervention| intervention.change.clone()).collect();
        let with_donor = |(i, one): (usize, &super::Intervention)| {
            let Change::Patch(place, donor) = &one.change else { return Ok((one.change.clone(), None)) };
            let key = Self(all.0[..=i].to_vec()).to_string();
            if let Some(cache) = known.0.get(&key) {
                return Ok((one.change.clone(), Some(cache.clone())));
            }
            let before = Self(all.0[..i].to_vec());
            before.check(&net.config, donor.tokens.len())?;
            let names: Vec<_> = place.target.hooks().map(|hook| hook.to_string()).collect();
            let cache = ActivationCache::with_filter(HookFilter::new(&names, &net.config)?, net);
            let mut chain = (before.hooks(model, known)?, cache);
            net.watch([Sequence::new(&donor.tokens, &mut chain, None)])?;
            known.0.insert(key, chain.1.clone());
            Ok((one.change.clone(), Some(chain.1)))
        };
        let features = OnFeatures::new(all.active().map(|one| &one.change), model)?;
        Ok(Changes { all: all.0.iter().enumerate().map(with_donor).collect::<Result<_>>()?, features })
    }
}

impl Hooks for Changes {
    fn wants(&self, name: HookName) -> bool {
        self.features.reads(name)
            || self.all.iter().any(|(change, _)| change.hooks().any(|hook| hook == name))
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let mut changed = None;
        let of_this = self.all.iter().filter(|(change, _)| change.hooks().any(|hook| hook == name));
        // Those of features that follow each other act on the same features.
        let mut groups = of_this.collect::<Vec<_>>();
        for group in groups.chunk_by_mut(|a, b| a.0.is_of_features() && b.0.is_of_features()) {
            let now = changed.as_ref().unwrap_or(x);
            let (first, donor) = group[0];
            changed = Some(if first.is_of_features() {
                self.features.apply(name, now, group.iter().map(|(change, _)| change))?
            } else {
                let from = donor.as_ref().and_then(|cache| cache.tensor(name));
                first.apply(name, now, from.as_ref())?
            });
        }
        self.features.see(name, changed.as_ref().unwrap_or(x))?;
        Ok(changed)
    }

    fn first_change(&self) -> Option<HookName> {
        self.all.iter().flat_map(|(change, _)| change.hooks()).min()
    }
}

impl Change {
    /// The tensor `x` of `hook` after this change; everything outside its place
    /// stays the same, to the bit.
    fn apply(&self, hook: HookName, x: &Tensor, from: Option<&Tensor>) -> Result<Tensor> {
        if let (Self::Patch(place, donor), Some(from)) = (self, from) {
            let at = place.position.unwrap_or(0);
            return place.transplant(hook, x, from, donor.position(at) as isize - at as isize);
        }
        let place = self.ranges(hook, x.dims());
        let mut part = x.clone();
        for (axis, range) in place.iter().enumerate() {
            part = part.narrow(axis, range.start, range.len())?;
        }
        // The same heads or neurons at other positions.
        let rows = |from: usize, n: usize| -> Result<Tensor> {
            let mut rows = x.narrow(0, from, n)?;
            for (axis, range) in place.iter().enumerate().skip(1) {
                rows = rows.narrow(axis, range.start, range.len())?;
            }
            Ok(rows)
        };
        let new = match *self {
            Self::Steer(..) | Self::Splice(_) | Self::Patch(..) => {
                return Err(Error::usage(format!("{hook} was not computed for `{self}`")));
            }
            Self::Zero(_) => part.zeros_like()?,
            Self::Scale(_, factor) => (part * f64::from(factor))?,
            Self::Set(_, value) => Tensor::full(value, part.shape(), x.device())?.to_dtype(x.dtype())?,
            Self::Mean(_) => {
                // Half precision would round or overflow in between.
                let wide = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
                let mean = rows(0, x.dim(0)?)?.to_dtype(wide)?.mean_keepdim(0)?;
                mean.to_dtype(x.dtype())?.broadcast_as(part.shape())?.contiguous()?
            }
            Self::Add(_, Direction { plus, minus, factor }) => {
                let direction = ((rows(plus, 1)? - rows(minus, 1)?)? * f64::from(factor))?;
                part.broadcast_add(&direction)?
            }
            Self::Knockout(_) => {
                Tensor::full(f32::NEG_INFINITY, part.shape(), x.device())?.to_dtype(x.dtype())?
            }
        };
        Ok(x.slice_assign(&place, &new)?)
    }

    /// The ranges it changes in a tensor of these dimensions, axis by axis.
    pub(super) fn ranges(&self, hook: HookName, dims: &[usize]) -> Vec<Range<usize>> {
        match *self {
            Self::Knockout(Edge { head, query, key, .. }) => [head, query, key].map(|i| i..i + 1).into(),
            _ => self.place().map_or_else(Vec::new, |place| place.ranges(hook, dims)),
        }
    }
}

impl Place {
    /// `x` with the values of `from`, the same tensor of another prompt, in this place; if this is one
    /// position, from `shift` later. Positions that only one of them has stay unchanged.
    pub(crate) fn transplant(
        self,
        hook: HookName,
        x: &Tensor,
        from: &Tensor,
        shift: isize,
    ) -> Result<Tensor> {
        let mut ranges = self.ranges(hook, x.dims());
        let mut part = from.clone();
        for (i, range) in ranges.iter_mut().enumerate() {
            let shifts = hook.point().axes[i] == Axis::Pos && self.position.is_some();
            let start = if shifts { range.start.saturating_add_signed(shift) } else { range.start };
            range.end = range.end.min(range.start + from.dim(i)?.saturating_sub(start));
            part = part.narrow(i, start, range.len())?;
        }
        let part = part.to_device(x.device())?.to_dtype(x.dtype())?;
        Ok(x.slice_assign(&ranges, &part)?)
    }

    /// Its ranges in the tensor of `hook`, axis by axis.
    pub(crate) fn ranges(self, hook: HookName, dims: &[usize]) -> Vec<Range<usize>> {
        let along = |(axis, &n): (&Axis, &usize)| match (axis, self.target) {
            (Axis::Pos, _) => self.position.map_or(0..n, |position| position..position + 1),
            (Axis::Head, Target::Head(_, head)) => head..head + 1,
            (Axis::Neuron, Target::Neuron { neuron, .. }) => neuron..neuron + 1,
            _ => 0..n,
        };
        hook.point().axes.iter().zip(dims).map(along).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hooks::Site;
    use crate::{Input, Model, Run};

    const PROMPT: &str = "The quick brown fox jumps over the lazy";

    fn run(changes: &[&str]) -> Run {
        let changes = changes.iter().map(|text| text.parse::<Change>().unwrap());
        let input = Input::text(PROMPT).with_interventions(changes.collect());
        Run::all(&Arc::new(Model::demo()), input).unwrap()
    }

    fn values(run: &Run, hook: HookName) -> Vec<f32> {
        run.tensor(hook).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn row(run: &Run, hook: HookName, position: usize) -> Vec<f32> {
        run.tensor(hook).unwrap().get(position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn interventions_that_are_off_change_nothing_to_the_bit() {
        let model = Arc::new(Model::demo());
        let plain = Run::all(&model, Input::text(PROMPT)).unwrap();
        let mut off: Interventions =
            ["zero layer:0", "knockout 1.5:3->1"].iter().map(|s| s.parse::<Change>().unwrap()).collect();
        off.0.iter_mut().for_each(|one| one.on = false);
        assert!(off.is_idle() && off.first().is_none());
        let same = Run::all(&model, Input::text(PROMPT).with_interventions(off)).unwrap();
        for (hook, _) in plain.cache.iter() {
            let bits = |run: &Run| values(run, hook).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&plain) == bits(&same), "{hook}");
        }
    }

    #[test]
    fn each_change_does_to_its_tensor_what_it_says_and_nothing_before_it() {
        let plain = run(&[]);
        let (z, n_head, d_head) = (Site::Z.at(1), plain.config().n_head, plain.config().d_head());
        let before = |changed: &Run, first: HookName| {
            for (hook, _) in plain.cache.iter().filter(|(hook, _)| *hook < first) {
                assert_eq!(values(&plain, hook), values(changed, hook), "{hook}");
            }
        };

        let zeroed = run(&["zero head:1.5"]);
        before(&zeroed, z);
        let heads: Vec<_> = values(&zeroed, z).chunks(d_head).map(<[f32]>::to_vec).collect();
        for (i, (head, was)) in heads.iter().zip(values(&plain, z).chunks(d_head)).enumerate() {
            let want = if i % n_head == 5 { vec![0.0; d_head] } else { was.to_vec() };
            assert_eq!(*head, want);
        }
        assert_ne!(values(&zeroed, Site::AttnOut.at(1)), values(&plain, Site::AttnOut.at(1)));

        let mlp = Site::MlpOut.at(2);
        let scaled = run(&["scale mlp:2@3=-0.5"]);
        before(&scaled, mlp);
        for position in 0..plain.n_tokens() {
            let factor = if position == 3 { -0.5 } else { 1.0 };
            let want: Vec<_> = row(&plain, mlp, position).iter().map(|x| x * factor).collect();
            assert_eq!(row(&scaled, mlp, position), want);
        }

        let post = Site::MlpPost.at(0);
        let meant = run(&["mean neuron:0.7"]);
        let column: Vec<_> = (0..plain.n_tokens()).map(|t| row(&plain, post, t)[7]).collect();
        let mean = column.iter().sum::<f32>() / column.len() as f32;
        for position in 0..plain.n_tokens() {
            assert!((row(&meant, post, position)[7] - mean).abs() < 1e-6);
            assert_eq!(row(&meant, post, position)[8..], row(&plain, post, position)[8..]);
        }

        let resid = Site::ResidMid.at(1);
        let steered = run(&["add resid_mid.1@6:2-4=3"]);
        before(&steered, resid);
        let (a, b, was) = (row(&plain, resid, 2), row(&plain, resid, 4), row(&plain, resid, 6));
        for (c, new) in row(&steered, resid, 6).iter().enumerate() {
            assert!((new - (was[c] + 3.0 * (a[c] - b[c]))).abs() < 1e-4);
        }
        assert_eq!(row(&steered, resid, 5), row(&plain, resid, 5));
    }

    #[test]
    fn a_block_without_what_it_adds_hands_on_what_it_got() {
        let skipped = run(&["zero layer:2"]);
        assert_eq!(values(&skipped, Site::ResidPost.at(2)), values(&skipped, Site::ResidPre.at(2)));
        let halved = run(&["zero layer:2@4"]);
        assert_eq!(row(&halved, Site::ResidPost.at(2), 4), row(&halved, Site::ResidPre.at(2), 4));
        assert_ne!(row(&halved, Site::ResidPost.at(2), 3), row(&halved, Site::ResidPre.at(2), 3));
    }

    #[test]
    fn a_key_that_is_knocked_out_leaves_its_share_to_the_others() {
        let (plain, cut) = (run(&[]), run(&["knockout 1.5:4->2"]));
        let n = plain.n_tokens();
        let query = |run: &Run| values(run, Site::Pattern.at(1))[(5 * n + 4) * n..][..n].to_vec();
        let (was, is) = (query(&plain), query(&cut));
        assert_eq!(is[2], 0.0);
        assert!((is.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        for key in [0, 1, 3, 4] {
            assert!((is[key] - was[key] / (1.0 - was[2])).abs() < 1e-6);
        }
        assert_eq!(
            values(&cut, Site::Pattern.at(1))[..5 * n * n],
            values(&plain, Site::Pattern.at(1))[..5 * n * n]
        );
    }

    #[test]
    fn a_query_without_any_key_is_nan_from_its_pattern_on() {
        let cut = run(&["knockout 1.5:0->0"]);
        let nan = |hook: HookName| values(&cut, hook).iter().any(|x| x.is_nan());
        assert!(!nan(Site::AttnScores.at(1)) && nan(Site::Pattern.at(1)) && nan(Site::Logits.once()));
    }

    #[test]
    fn those_on_one_tensor_act_in_the_order_of_the_list() {
        let post = Site::ResidPost.at(3);
        let last = run(&["add resid_post.3@5:1-2", "zero resid_post.3@5"]);
        assert!(row(&last, post, 5).iter().all(|x| *x == 0.0));
        let first = run(&["zero resid_post.3@5", "add resid_post.3@5:1-2"]);
        assert!(row(&first, post, 5).iter().any(|x| *x != 0.0));
    }

    #[test]
    fn every_tensor_of_positions_can_be_changed() {
        let model = Arc::new(Model::demo());
        for hook in HookName::all(model.config()) {
            let place = Target::Tensor(hook).at(2);
            let input =
                Input::text(PROMPT).with_interventions([Change::Scale(place, 2.0)].into_iter().collect());
            let filter = crate::hooks::HookFilter::new(&[hook.to_string()], model.config()).unwrap();
            let run = Run::new(&model, input, filter, ());
            if matches!(hook.site, Site::AttnScores | Site::Pattern) {
                assert!(run.unwrap_err().to_string().contains("knockout L.H:Q->K"));
            } else {
                assert!(run.is_ok(), "{hook}");
            }
        }
    }
}
