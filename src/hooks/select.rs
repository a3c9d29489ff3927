//! Choosing hooks by name, short name or glob.

use std::collections::HashSet;

use globset::GlobBuilder;

use super::{HookName, TensorName};
use crate::config::Config;
use crate::error::{Error, Result};

/// The hooks of a model that match a set of patterns.
#[derive(Debug, Clone)]
pub struct HookFilter {
    chosen: HashSet<HookName>,
}

impl HookFilter {
    /// Every hook except those kept only on request (`attn.hook_result`).
    pub fn all(config: &Config) -> Self {
        let names = HookName::all(config).into_iter();
        Self { chosen: names.filter(|name| !name.point().on_request).collect() }
    }

    /// The hooks that `patterns` match: full names, short names (`q.3`) or globs over either
    /// (`blocks.*.attn.hook_pattern`, `resid_*.0`). On-request hooks need a pattern of their own.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a pattern that matches nothing in this model, with the nearest names.
    pub fn new<S: AsRef<str>>(patterns: &[S], config: &Config) -> Result<Self> {
        Ok(Self::of(TensorName::choose(patterns, config, &[])?.into_iter().map(|name| name.hook)))
    }

    /// These hooks and no others.
    pub fn of(names: impl IntoIterator<Item = HookName>) -> Self {
        Self { chosen: names.into_iter().collect() }
    }

    pub fn contains(&self, name: HookName) -> bool {
        self.chosen.contains(&name)
    }

    /// Bytes of the chosen tensors for `n_tokens`, in float32.
    pub fn bytes(&self, config: &Config, n_tokens: usize) -> u64 {
        self.chosen.iter().map(|name| name.bytes(config, n_tokens)).sum()
    }

    /// The chosen hooks in data-flow order.
    pub fn names(&self, config: &Config) -> Vec<HookName> {
        let mut names = HookName::all(config);
        names.retain(|name| self.contains(*name));
        names
    }
}

impl TensorName {
    /// The tensors that `patterns` match, as for [`HookFilter::new`], in data-flow order; the model has dictionaries of
    /// these hooks and sizes. What they make needs a pattern of its own.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] for a pattern that matches nothing, with the nearest names.
    pub fn choose<S: AsRef<str>>(
        patterns: &[S],
        config: &Config,
        dictionaries: &[(HookName, u32)],
    ) -> Result<Vec<Self>> {
        let all = Self::all(config, dictionaries);
        let mut chosen = HashSet::new();
        for pattern in patterns {
            chosen.extend(matching(pattern.as_ref(), &all)?);
        }
        Ok(all.into_iter().filter(|name| chosen.contains(name)).collect())
    }
}

impl TensorName {
    /// The tensor with this full or short name, in a model with dictionaries of these hooks and sizes.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] with the nearest names.
    pub fn find(name: &str, config: &Config, dictionaries: &[(HookName, u32)]) -> Result<Self> {
        let all = Self::all(config, dictionaries);
        let found = all.iter().find(|one| one.to_string() == name || one.short() == name);
        found.copied().ok_or_else(|| unknown(name, &all))
    }
}

impl HookName {
    /// The hook of this model with this full or short name.
    ///
    /// # Errors
    /// [`Error::UnknownHook`] with the nearest names.
    pub fn find(name: &str, config: &Config) -> Result<Self> {
        match name.parse::<Self>() {
            Ok(hook) if hook.layer.is_none_or(|layer| layer < config.n_layer) => Ok(hook),
            _ => Err(unknown(name, &TensorName::all(config, &[]))),
        }
    }
}

fn matching(pattern: &str, all: &[TensorName]) -> Result<Vec<TensorName>> {
    let glob = GlobBuilder::new(pattern)
        .build()
        .map_err(|error| Error::usage(format!("`{pattern}` is not a pattern: {}", error.kind())))?
        .compile_matcher();
    let hits = all.iter().copied();
    let hits: Vec<_> =
        hits.filter(|name| glob.is_match(name.to_string()) || glob.is_match(name.short())).collect();
    if hits.is_empty() {
        return Err(unknown(pattern, all));
    }
    let only_on_request = hits.iter().all(|name| name.on_request());
    Ok(hits.into_iter().filter(|name| only_on_request || !name.on_request()).collect())
}

/// The error for an unknown name, with the three nearest ones.
fn unknown(pattern: &str, all: &[TensorName]) -> Error {
    let likeness = |name: &TensorName| {
        let full = strsim::jaro_winkler(pattern, &name.to_string());
        full.max(strsim::jaro_winkler(pattern, &name.short()))
    };
    let mut ranked: Vec<_> = all.iter().map(|name| (likeness(name), name)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Error::UnknownHook {
        pattern: pattern.to_owned(),
        nearest: ranked.iter().take(3).map(|(_, n)| n.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(patterns: &[&str]) -> usize {
        let config = Config::gpt2();
        let filter = HookFilter::new(patterns, &config).unwrap();
        filter.names(&config).len()
    }

    #[test]
    fn globs_span_dots_and_both_forms() {
        assert_eq!(count(&["blocks.*.attn.hook_pattern"]), 12);
        assert_eq!(count(&["pattern.*", "q.3", "hook_embed"]), 14);
        assert_eq!(count(&["blocks.{0,11}.hook_resid_*"]), 6);
    }

    #[test]
    fn results_are_kept_only_when_asked_for_alone() {
        assert_eq!(count(&["*"]), 19 * 12 + 7);
        assert_eq!(count(&["result.*"]), 12);
        assert_eq!(count(&["*", "blocks.2.attn.hook_result"]), 19 * 12 + 8);
    }

    #[test]
    fn a_pattern_that_names_nothing_is_an_error_with_the_nearest() {
        let error = HookFilter::new(&["blocks.1.attn.hook_patern"], &Config::gpt2()).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("hook_patern") && said.contains("blocks.1.attn.hook_pattern"), "{said}");
        assert_eq!(error.exit_code(), 2);
        assert!(HookFilter::new(&["blocks.12.hook_resid_pre"], &Config::gpt2()).is_err());
        assert!(HookFilter::new(&["[", "{"], &Config::gpt2()).is_err());
    }
}
