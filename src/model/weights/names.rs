//! The names of a checkpoint's tensors, which wrappers put prefixes before.

use std::collections::BTreeMap;

/// What `torch.compile`, `DataParallel`, Lightning, PEFT and Hugging Face put before a name.
const PREFIXES: [&str; 5] = ["_orig_mod.", "module.", "base_model.", "model.", "transformer."];

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stored {
    pub name: String,
    /// Which of the checkpoint's files.
    pub file: usize,
}

/// The tensors in the files, by their names without prefixes.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Vec<Stored>>);

impl Names {
    pub fn new(tensors: impl IntoIterator<Item = Stored>) -> Self {
        let mut names: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
        for stored in tensors {
            names.entry(bare(&stored.name).to_owned()).or_default().push(stored);
        }
        for stored in names.values_mut() {
            stored.sort();
        }
        Self(names)
    }

    /// Where the tensor `name` is, at least one place.
    pub fn of(&self, name: &str) -> Option<&[Stored]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// All names, without prefixes.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.0.values().flatten()
    }

    /// The number of blocks, by the highest.
    pub fn n_layer(&self) -> usize {
        self.all().filter_map(|name| block(name)).max().map_or(0, |l| l + 1)
    }

    /// What comes before the names of the blocks' tensors.
    pub fn prefix(&self) -> Option<&str> {
        let name = "h.0.ln_1.weight";
        self.of(name)?.first()?.name.strip_suffix(name)
    }
}

/// The block that a tensor belongs to.
pub(super) fn block(name: &str) -> Option<usize> {
    name.strip_prefix("h.")?.split('.').next()?.parse::<u32>().ok().map(|l| l as usize)
}

/// A name without prefixes.
pub(super) fn bare(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_off_in_any_order() {
        for prefix in ["", "transformer.", "_orig_mod.module.", "base_model.model.transformer."] {
            assert_eq!(bare(&format!("{prefix}h.0.attn.c_attn.weight")), "h.0.attn.c_attn.weight");
        }
        assert_eq!(bare("h.0.module.x"), "h.0.module.x");
    }
}
