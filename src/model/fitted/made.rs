//! The tensors of a run that dictionaries make, by name.

use candle_core::Tensor;

use super::Dictionary;
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, HookName, Made, Part, TensorName};
use crate::model::Model;

impl Model {
    /// The tensors of a run that `patterns` match: as [`HookFilter::new`], and what dictionaries make.
    ///
    /// # Errors
    /// See [`TensorName::choose`].
    pub fn choose<S: AsRef<str>>(&self, patterns: &[S]) -> Result<Vec<TensorName>> {
        TensorName::choose(patterns, self.config(), &self.written())
    }

    /// The tensor of a run with this full or short name.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] with the nearest names.
    pub fn find(&self, name: &str) -> Result<TensorName> {
        TensorName::find(name, self.config(), &self.written())
    }

    /// All tensors of a run, and what dictionaries make of them, in data-flow order.
    pub fn tensors(&self) -> Vec<TensorName> {
        TensorName::all(self.config(), &self.written())
    }

    /// The hooks that a run must keep for these tensors.
    pub fn needed_for(&self, names: &[TensorName]) -> HookFilter {
        HookFilter::of(names.iter().flat_map(|name| self.sources(*name)))
    }

    /// The hooks whose tensors this one is, or is made of.
    pub fn sources(&self, name: TensorName) -> Vec<HookName> {
        match self.dictionary_of(name.hook) {
            Some(dictionary) if name.made.is_some() => vec![dictionary.reads, dictionary.writes],
            _ => vec![name.hook],
        }
    }

    /// A part of what the dictionary of a hook makes; `get` returns parts of the tensors of a run.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such dictionary; the errors of `get`.
    pub(crate) fn make(
        &self,
        (hook, made): (HookName, Made),
        part: &Part,
        get: &dyn Fn(HookName, &Part) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let none = || Error::usage(format!("there is no sparse dictionary of {hook}: see --dictionary"));
        let dictionary = self.dictionary_of(hook).ok_or_else(none)?;
        // A feature reads all heads.
        let rows = Part { head: None, ..part.clone() };
        let features = dictionary.encode(&get(dictionary.reads, &rows)?)?;
        if let Made::Features(_) = made {
            return features.to_dense(); // (S, n)
        }
        let x = get(dictionary.writes, &rows)?; // (S, C), or (S, H, d_head)
        let reconstruction = dictionary.decode(&features)?.reshape(x.dims())?;
        let whole = if made == Made::Error { (x - reconstruction)? } else { reconstruction };
        part.head.map_or(Ok(whole.clone()), |head| Ok(whole.narrow(1, head, 1)?))
    }

    /// The hooks and sizes of its dictionaries.
    fn written(&self) -> Vec<(HookName, u32)> {
        self.dictionaries().iter().map(|one| (one.writes, one.n as u32)).collect()
    }

    /// The dictionary that writes a hook.
    pub fn dictionary_of(&self, hook: HookName) -> Option<&Dictionary> {
        self.dictionaries().iter().map(AsRef::as_ref).find(|one| one.writes == hook)
    }
}
