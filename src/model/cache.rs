//! The tensors of a run, by name.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::batch::Kept;
use super::gpt2::Gpt2;
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, HookName, Hooks, Part, Site};

/// The tensors of a run: float32, contiguous, on the CPU, whatever the model runs on, so that
/// display, comparison and export all use the same numbers.
///
/// Only tensors that cannot be derived are kept in memory, those that hooks replaced, and, within a
/// budget, what an MLP computes. Everything else (LayerNorms, attention scores and patterns, logits: six
/// times as much for a long prompt) is derived by [`Gpt2::derive`] on request, unless the cache is
/// [made](Self::made).
#[derive(Debug, Clone)]
pub struct ActivationCache {
    pub(super) net: Gpt2,
    filter: HookFilter,
    /// The tensors of the filter, and those that they follow from.
    needed: HashSet<HookName>,
    /// Whether there is room for tensors that take long to derive.
    roomy: bool,
    /// Whether all tensors of the filter are held.
    made: bool,
    kept: BTreeMap<HookName, Tensor>,
    recent: Arc<Mutex<Recent>>,
}

impl ActivationCache {
    /// Maximum bytes of a run's tensors with those that take long to derive.
    pub const ROOM: u64 = 256 << 20;
    /// Maximum bytes of recently derived tensors that are held.
    pub const RECENT_BYTES: u64 = 64 << 20;
    /// Rows of probabilities that are computed at once: their logits are as large.
    const ROWS_AT_ONCE: usize = 128;

    /// A cache for every hook, except those kept only on request.
    pub fn all(net: &Gpt2) -> Self {
        Self::with_filter(HookFilter::all(&net.config), net)
    }

    /// A cache for the hooks that `patterns` name.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a pattern that matches nothing.
    pub fn matching<S: AsRef<str>>(patterns: &[S], net: &Gpt2) -> Result<Self> {
        Ok(Self::with_filter(HookFilter::new(patterns, &net.config)?, net))
    }

    /// These tensors and no others, as another program computed them: nothing is derived of them.
    pub fn holding(tensors: BTreeMap<HookName, Tensor>, net: &Gpt2) -> Self {
        let filter = HookFilter::of(tensors.keys().copied());
        Self { made: true, kept: tensors, ..Self::with_filter(filter, net) }
    }

    pub fn with_filter(filter: HookFilter, net: &Gpt2) -> Self {
        let mut needed = HashSet::new();
        let mut names = filter.names(&net.config);
        while let Some(name) = names.pop() {
            if needed.insert(name) {
                names.extend(name.sources(&net.config));
            }
        }
        let net = net.clone();
        Self { net, filter, needed, roomy: true, made: false, kept: BTreeMap::new(), recent: Arc::default() }
    }

    /// The same, but holds every tensor of the filter, as the pass makes it.
    #[must_use]
    pub fn made(self) -> Self {
        Self { made: true, ..self }
    }

    /// The same for a run of `n_tokens`, within the budget of [`Self::ROOM`].
    #[must_use]
    pub fn for_tokens(self, n_tokens: usize) -> Self {
        let config = &self.net.config;
        let kept = self.needed.iter().filter(|&&name| self.wants(name));
        let all: u64 = kept.map(|name| name.bytes(config, n_tokens)).sum();
        Self { roomy: all <= Self::ROOM, ..self }
    }

    /// The tensor of a hook, by full or short name: float32, contiguous, on the CPU, without a
    /// batch dimension.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] if the model has no such hook, [`Error::Usage`] if it was not captured.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let hook = HookName::find(name, &self.net.config)?;
        self.part(hook, &Part::default())
    }

    /// The tensor of a hook, if it was captured.
    pub fn tensor(&self, name: HookName) -> Option<Tensor> {
        self.part(name, &Part::default()).ok()
    }

    /// A part of a tensor; if it is not in memory, only this part is computed.
    ///
    /// # Errors
    /// [`Error::Usage`] if it was not captured, or has no such rows or head.
    pub fn part(&self, name: HookName, part: &Part) -> Result<Tensor> {
        if !self.filter.contains(name) || !self.has(name) {
            return Err(Error::usage(format!("{name} was not captured in this run")));
        }
        let x = self.fetch(name, part)?.contiguous()?;
        if *part == Part::default() && !self.kept.contains_key(&name) {
            self.recent().put(name, &x);
        }
        Ok(x)
    }

    /// The hooks that were captured, in data-flow order.
    pub fn names(&self) -> Vec<HookName> {
        let mut names = self.filter.names(&self.net.config);
        names.retain(|name| self.has(*name));
        names
    }

    /// The tensors of [`Self::names`], each computed when reached.
    pub fn iter(&self) -> impl Iterator<Item = (HookName, Tensor)> {
        let tensor = |name| self.fetch(name, &Part::default()).and_then(|x| Ok(x.contiguous()?)).ok();
        self.names().into_iter().filter_map(move |name| Some((name, tensor(name)?)))
    }

    /// One of the tensors, in a cache of its own.
    #[must_use]
    pub fn only(&self, hook: HookName) -> Self {
        Self { filter: HookFilter::of([hook]), ..self.clone() }
    }

    /// Bytes kept in memory, not counting at most [`Self::RECENT_BYTES`] of derived tensors.
    pub fn bytes(&self) -> u64 {
        self.kept.values().map(bytes).sum()
    }

    /// Whether a tensor is in memory.
    pub(crate) fn holds(&self, name: HookName) -> bool {
        self.kept.contains_key(&name)
    }

    /// Whether a tensor is in memory or can be derived from tensors that are.
    pub(crate) fn has(&self, name: HookName) -> bool {
        let sources = || name.sources(&self.net.config);
        self.kept.contains_key(&name)
            || (!sources().is_empty() && sources().into_iter().all(|source| self.has(source)))
    }

    /// A part of a tensor that is in memory or can be derived, wanted or not.
    pub(crate) fn fetch(&self, name: HookName, part: &Part) -> Result<Tensor> {
        let known = self.kept.get(&name).cloned().or_else(|| self.recent().get(name));
        if let Some(x) = known {
            return part.of(name, &x);
        }
        if name.sources(&self.net.config).is_empty() {
            return Err(Error::usage(format!("{name} was not captured in this run")));
        }
        if name.site == Site::Probs && part.rows.is_none() {
            return self.in_pieces(name, Self::ROWS_AT_ONCE);
        }
        let get = |name: HookName, part: &Part| {
            Ok(self.fetch(name, part)?.to_device(self.net.device())?.to_dtype(self.net.dtype())?)
        };
        plain(&self.net.derive(name, part, &get)?)
    }

    /// A whole tensor, computed a few rows at a time, so that its sources are never held whole.
    fn in_pieces(&self, name: HookName, rows_at_once: usize) -> Result<Tensor> {
        let n = self.fetch(Site::LnFinalScale.once(), &Part::default())?.dims()[0];
        let first = self.fetch(name, &Part::rows(0..n.min(rows_at_once)))?;
        if first.dims()[0] == n {
            return Ok(first);
        }
        let whole = Tensor::zeros((n, first.dims()[1]), first.dtype(), first.device())?;
        whole.slice_set(&first, 0, 0)?;
        for start in (rows_at_once..n).step_by(rows_at_once) {
            let rows = start..n.min(start + rows_at_once);
            whole.slice_set(&self.fetch(name, &Part::rows(rows))?.contiguous()?, 0, start)?;
        }
        Ok(whole)
    }

    /// Takes over whole tensors of the kept blocks.
    pub(crate) fn adopt(&mut self, kept: Kept) -> Result<()> {
        for name in HookName::all(&self.net.config) {
            let replaced = self.needed.contains(&name) && kept.cache.kept.contains_key(&name);
            if name.stage(&self.net.config) < kept.blocks && (self.wants(name) || replaced) {
                self.keep(name, &kept.cache.fetch(name, &Part::rows(0..kept.rows))?)?;
            }
        }
        Ok(())
    }

    pub(crate) fn keep(&mut self, name: HookName, x: &Tensor) -> Result<()> {
        self.kept.insert(name, plain(x)?);
        Ok(())
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plain(x: &Tensor) -> Result<Tensor> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    // What is a part of a batch would keep the memory of all.
    let is_part = match &*x.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F32(held)) => held.len() > x.elem_count(),
        _ => false,
    };
    Ok(if is_part { x.force_contiguous()? } else { x })
}

fn bytes(x: &Tensor) -> u64 {
    x.elem_count() as u64 * 4
}

impl Hooks for ActivationCache {
    fn wants(&self, name: HookName) -> bool {
        let costly = matches!(name.site, Site::MlpPre | Site::MlpOut);
        let kept = name.sources(&self.net.config).is_empty() || (costly && self.roomy);
        (self.made && self.filter.contains(name)) || (kept && self.needed.contains(&name))
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        self.keep(name, x)?;
        Ok(None)
    }

    fn replaced(&mut self, name: HookName, x: &Tensor) -> Result<()> {
        if self.needed.contains(&name) { self.keep(name, x) } else { Ok(()) }
    }

    fn first_change(&self) -> Option<HookName> {
        None
    }
}

/// Derived tensors, most recent last.
#[derive(Debug, Default)]
struct Recent {
    tensors: Vec<(HookName, Tensor)>,
}

impl Recent {
    fn get(&mut self, name: HookName) -> Option<Tensor> {
        let place = self.tensors.iter().position(|(held, _)| *held == name)?;
        let entry = self.tensors.remove(place);
        let x = entry.1.clone();
        self.tensors.push(entry);
        Some(x)
    }

    fn put(&mut self, name: HookName, x: &Tensor) {
        self.tensors.retain(|(held, _)| *held != name);
        self.tensors.push((name, x.clone()));
        while self.bytes() > ActivationCache::RECENT_BYTES {
            self.tensors.remove(0);
        }
    }

    fn bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, x)| bytes(x)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interventions::Change;
    use crate::{Input, Model, Run};

    #[test]
    fn what_is_made_in_the_pass_is_what_is_derived() {
        let model = Arc::new(Model::demo());
        let keep = HookFilter::of(HookName::all(model.config()));
        for changes in ["", "zero head:1.2@3", "knockout 2.1:5->0", "scale resid_pre.3=0.5"] {
            let changes = changes.lines().map(|change| change.parse::<Change>().unwrap());
            let input = Input::ids([5, 6, 7, 8, 9, 10, 11, 12]).with_interventions(changes.collect());
            let derived = Run::new(&model, input.clone(), keep.clone(), ()).unwrap();
            let made = Run::made(&model, input, keep.clone()).unwrap();
            assert!(keep.names(model.config()).into_iter().all(|name| made.cache.holds(name)));
            assert_eq!(made.bytes().0, made.bytes().1);
            assert_eq!(derived.cache.names(), made.cache.names());
            for ((name, a), (_, b)) in derived.cache.iter().zip(made.cache.iter()) {
                let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                let largest = a.iter().filter(|x| x.is_finite()).fold(1.0, |most: f32, x| most.max(x.abs()));
                let same =
                    |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= 1e-5 * largest;
                assert!(a.iter().zip(&b).all(same), "{name}");
            }
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let run = Run::all(&Arc::new(Model::demo()), Input::ids([5, 6, 7, 8, 9, 10, 11, 12])).unwrap();
        let probs = Site::Probs.once();
        let values = |x: Tensor| x.to_vec2::<f32>().unwrap();
        let whole = values(run.cache.in_pieces(probs, 8).unwrap());
        assert_eq!(whole.len(), 8);
        assert_eq!(values(run.cache.in_pieces(probs, 3).unwrap()), whole);
        assert_eq!(values(run.cache.part(probs, &Part::default()).unwrap()), whole);
    }
}
