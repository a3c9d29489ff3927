//! The name of a hook point in a model.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::{HookPoint, Site};
use crate::config::Config;
use crate::error::{Error, Result};

/// The name of one hook point of a model, such as `blocks.3.attn.hook_pattern`, short `pattern.3`;
/// ordered by data flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HookName {
    pub site: Site,
    /// Block, counted from 0; `None` if the site exists once.
    pub layer: Option<usize>,
}

impl HookName {
    /// Every hook of a model, in data-flow order.
    pub fn all(config: &Config) -> Vec<Self> {
        let of_site = |&site: &Site| {
            let layers = if site.point().per_layer { config.n_layer } else { 1 };
            (0..layers).map(move |layer| site.near(layer))
        };
        let mut names: Vec<_> = Site::all().iter().flat_map(of_site).collect();
        names.sort_unstable();
        names
    }

    pub fn point(&self) -> &'static HookPoint {
        self.site.point()
    }

    /// The tensors of the same run that this one is computed from: the row's `from` and `from_before`
    /// in this model. Empty if only a forward pass computes it.
    pub fn sources(&self, config: &Config) -> Vec<Self> {
        let point = self.point();
        match (self.layer, point.from_before) {
            (Some(layer @ 1..), Some(site)) => vec![site.at(layer - 1)],
            (layer, _) => {
                let layer = layer.unwrap_or(config.n_layer - 1);
                point.from.iter().map(|site| site.near(layer)).collect()
            }
        }
    }

    /// The block it belongs to: hooks before the blocks belong to the first, and for those
    /// after them this is `n_layer`.
    pub fn stage(&self, config: &Config) -> usize {
        match self.layer {
            Some(layer) => layer,
            None if self.site < Site::ResidPre => 0,
            None => config.n_layer,
        }
    }

    /// Shape of the tensor for `n_tokens` tokens, without a batch dimension.
    pub fn shape(&self, config: &Config, n_tokens: usize) -> Vec<usize> {
        let axes = self.point().axes.iter();
        axes.map(|axis| axis.len(config, n_tokens)).collect()
    }

    /// Size of the captured tensor (float32) in bytes.
    pub fn bytes(&self, config: &Config, n_tokens: usize) -> u64 {
        let shape = self.shape(config, n_tokens);
        shape.iter().map(|&n| n as u64).product::<u64>() * 4
    }

    /// The short form, as in `resid_post.5` or `logits`.
    pub fn short(&self) -> String {
        match self.layer {
            Some(layer) => format!("{}.{layer}", self.point().short),
            None => self.point().short.to_owned(),
        }
    }
}

impl Ord for HookName {
    fn cmp(&self, other: &Self) -> Ordering {
        // Before the blocks, in block l, after the blocks; then by site.
        let place = |name: &Self| match name.layer {
            None if name.site < Site::ResidPre => (0, 0),
            Some(layer) => (1, layer),
            None => (2, 0),
        };
        place(self).cmp(&place(other)).then(self.site.cmp(&other.site))
    }
}

impl PartialOrd for HookName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "blocks.{layer}.{}", self.point().name),
            None => f.write_str(self.point().name),
        }
    }
}

impl FromStr for HookName {
    type Err = Error;

    /// Parses a full or short name; does not check that the model has that many blocks.
    fn from_str(name: &str) -> Result<Self> {
        let full = |site: &Site| {
            let point = site.point();
            if !point.per_layer {
                return (name == point.name || name == point.short).then(|| site.once());
            }
            let layer = match name.strip_prefix("blocks.") {
                Some(rest) => rest.strip_suffix(point.name)?.strip_suffix('.')?,
                None => name.strip_prefix(point.short)?.strip_prefix('.')?,
            };
            Some(site.at(layer.parse().ok()?))
        };
        Site::all()
            .iter()
            .find_map(full)
            .ok_or_else(|| Error::UnknownHook { pattern: name.to_owned(), nearest: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_in_both_forms() {
        let config = Config::gpt2();
        let all = HookName::all(&config);
        assert_eq!(all.len(), 20 * 12 + 7);
        let flow = |name: &str| all.iter().position(|hook| hook.to_string() == name).unwrap();
        assert!(flow("hook_pos_embed") < flow("blocks.0.hook_resid_pre"));
        assert!(flow("blocks.0.hook_resid_post") < flow("blocks.1.hook_resid_pre"));
        assert!(flow("blocks.11.hook_resid_post") < flow("ln_final.hook_scale"));
        for name in all {
            assert_eq!(name.to_string().parse::<HookName>().unwrap(), name);
            assert_eq!(name.short().parse::<HookName>().unwrap(), name);
        }
    }

    #[test]
    fn names_that_are_no_hooks_are_refused() {
        for name in ["", "q", "q.", "q.x", "blocks.1.", "blocks.attn.hook_q", "logits.0", "q.1.2"] {
            assert!(name.parse::<HookName>().is_err(), "{name:?}");
        }
    }

    /// So that nothing is looked for in a circle, and a run that is cut off after a block holds all
    /// that the tensors of that block follow from.
    #[test]
    fn a_tensor_follows_from_earlier_ones() {
        let config = Config::gpt2();
        for name in HookName::all(&config) {
            for source in name.sources(&config) {
                assert!(source < name && source.stage(&config) <= name.stage(&config), "{name}: {source}");
            }
        }
        let sources = |name: &str| HookName::find(name, &config).unwrap().sources(&config);
        assert_eq!(sources("resid_pre.0"), [Site::Embed.once(), Site::PosEmbed.once()]);
        assert_eq!(sources("resid_pre.3"), [Site::ResidPost.at(2)]);
        assert_eq!(sources("ln_final_normalized"), [Site::ResidPost.at(11), Site::LnFinalScale.once()]);
        assert_eq!(sources("pattern.3"), [Site::AttnScores.at(3)]);
        assert_eq!(sources("resid_post.3"), []);
    }
}
