//! What other programs call the tensors of a forward pass.
//!
//! | program | names |
//! |---|---|
//! | TransformerLens | ours; of its bridge also `blocks.3.attn.q.hook_out`, `blocks.3.hook_in` and the like |
//! | Hugging Face | `hidden_states.3`, `attentions.3`, `logits`, and modules, `transformer.h.3.mlp.c_fc` |
//! | llm.c | `encoded`, `ln1`, `qkv`, `preatt`, `att`, … with all blocks one after the other, or `ln1.3` |

use crate::config::Config;
use crate::hooks::{HookName, Site};

/// A tensor that another program has, as what we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ours {
    /// The hook that it is, or is made of; for the order of the data flow.
    pub hook: HookName,
    pub kind: Kind,
}

/// What it is of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Whole,
    /// q, k and v side by side, (T, 3 C); the hook is q.
    Qkv,
    /// The mean over channels, (T), which a LayerNorm takes off.
    Mean,
    /// 1 / scale of a LayerNorm, (T).
    Rstd,
    /// −ln p of the target of each position, (T); the hook is the logits.
    Losses,
}

impl Ours {
    /// A hook as it is.
    pub fn whole(hook: HookName) -> Self {
        Self { hook, kind: Kind::Whole }
    }
}

/// A program's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Dialect {
    /// Hugging Face: `hidden_states.3`, and modules where it returns nothing
    Hf,
    /// llm.c: all blocks of a kind one after the other, (L, B, T, …)
    Llmc,
    /// TransformerLens 2: `hook_normalized` is after weight and bias
    Transformerlens2,
}

/// Of a name, the row of [`NAMES`] that it is in: `*` stands for the block.
type Row = (Dialect, &'static str, Site, Kind);

use Dialect::{Hf, Llmc};
use Kind::{Losses, Mean, Qkv, Rstd, Whole};

/// Names that differ from ours. Of several for one tensor in a dialect the first is written.
const NAMES: &[Row] = &[
    (Hf, "transformer.wte", Site::Embed, Whole),
    (Hf, "transformer.wpe", Site::PosEmbed, Whole),
    (Hf, "hidden_states.*", Site::ResidPre, Whole),
    (Hf, "transformer.h.*.ln_1", Site::Ln1Out, Whole),
    (Hf, "transformer.h.*.attn.c_attn", Site::Q, Qkv),
    (Hf, "attentions.*", Site::Pattern, Whole),
    (Hf, "transformer.h.*.attn", Site::AttnOut, Whole),
    (Hf, "transformer.h.*.attn.c_proj", Site::AttnOut, Whole),
    (Hf, "transformer.h.*.attn.resid_dropout", Site::AttnOut, Whole),
    (Hf, "transformer.h.*.ln_2", Site::Ln2Out, Whole),
    (Hf, "transformer.h.*.mlp.c_fc", Site::MlpPre, Whole),
    (Hf, "transformer.h.*.mlp.act", Site::MlpPost, Whole),
    (Hf, "transformer.h.*.mlp", Site::MlpOut, Whole),
    (Hf, "transformer.h.*.mlp.c_proj", Site::MlpOut, Whole),
    (Hf, "transformer.h.*.mlp.dropout", Site::MlpOut, Whole),
    (Hf, "transformer.h.*", Site::ResidPost, Whole),
    (Hf, "past_key_values.*.key", Site::K, Whole),
    (Hf, "past_key_values.*.value", Site::V, Whole),
    (Hf, "transformer.ln_f", Site::LnFinalOut, Whole),
    (Hf, "last_hidden_state", Site::LnFinalOut, Whole),
    (Hf, "logits", Site::Logits, Whole),
    (Hf, "lm_head", Site::Logits, Whole),
    (Llmc, "encoded", Site::ResidPre, Whole),
    (Llmc, "ln1", Site::Ln1Out, Whole),
    (Llmc, "ln1_mean", Site::ResidPre, Mean),
    (Llmc, "ln1_rstd", Site::Ln1Scale, Rstd),
    (Llmc, "qkv", Site::Q, Qkv),
    (Llmc, "atty", Site::Z, Whole),
    (Llmc, "preatt", Site::AttnScores, Whole),
    (Llmc, "att", Site::Pattern, Whole),
    (Llmc, "attproj", Site::AttnOut, Whole),
    (Llmc, "residual2", Site::ResidMid, Whole),
    (Llmc, "ln2", Site::Ln2Out, Whole),
    (Llmc, "ln2_mean", Site::ResidMid, Mean),
    (Llmc, "ln2_rstd", Site::Ln2Scale, Rstd),
    (Llmc, "fch", Site::MlpPre, Whole),
    (Llmc, "fch_gelu", Site::MlpPost, Whole),
    (Llmc, "fcproj", Site::MlpOut, Whole),
    (Llmc, "residual3", Site::ResidPost, Whole),
    (Llmc, "lnf", Site::LnFinalOut, Whole),
    (Llmc, "lnf_mean", Site::ResidPost, Mean),
    (Llmc, "lnf_rstd", Site::LnFinalScale, Rstd),
    (Llmc, "logits", Site::Logits, Whole),
    (Llmc, "probs", Site::Probs, Whole),
    (Llmc, "losses", Site::Logits, Losses),
];

/// The names of TransformerLens's bridge that are not ours as well.
const BRIDGE: &[(&str, Site)] = &[
    ("embed.hook_out", Site::Embed),
    ("pos_embed.hook_out", Site::PosEmbed),
    ("blocks.*.hook_in", Site::ResidPre),
    ("blocks.*.ln1.hook_in", Site::ResidPre),
    ("blocks.*.attn.hook_in", Site::Ln1Out),
    ("blocks.*.attn.q.hook_out", Site::Q),
    ("blocks.*.attn.k.hook_out", Site::K),
    ("blocks.*.attn.v.hook_out", Site::V),
    ("blocks.*.attn.o.hook_in", Site::Z),
    ("blocks.*.attn.o.hook_out", Site::AttnOut),
    ("blocks.*.attn.hook_out", Site::AttnOut),
    ("blocks.*.ln2.hook_in", Site::ResidMid),
    ("blocks.*.mlp.hook_in", Site::Ln2Out),
    ("blocks.*.mlp.in.hook_out", Site::MlpPre),
    ("blocks.*.mlp.out.hook_in", Site::MlpPost),
    ("blocks.*.mlp.out.hook_out", Site::MlpOut),
    ("blocks.*.mlp.hook_out", Site::MlpOut),
    ("blocks.*.hook_out", Site::ResidPost),
    ("ln_final.hook_in", Site::ResidPost),
    ("unembed.hook_in", Site::LnFinalOut),
];

/// What a name stands for: one tensor, or those of all blocks one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    One(Ours),
    Stacked(Vec<Ours>),
}

/// What another program's name, or ours, stands for in a model.
pub fn find(name: &str, config: &Config) -> Option<Named> {
    let n_layer = config.n_layer;
    if let Ok(hook) = HookName::find(name, config) {
        return Some(Named::One(Ours::whole(hook)));
    }
    // All but the last of Hugging Face's hidden states enter a block.
    let entering = |layer| if layer == n_layer { Site::LnFinalOut.once() } else { Site::ResidPre.at(layer) };
    if let Some(layer) = name.strip_prefix("hidden_states.").and_then(number) {
        return (layer <= n_layer).then(|| Named::One(Ours::whole(entering(layer))));
    }
    let all = |hook: &dyn Fn(usize) -> HookName, n| {
        Some(Named::Stacked((0..n).map(|layer| Ours::whole(hook(layer))).collect()))
    };
    match name {
        "hidden_states" => return all(&entering, n_layer + 1),
        "attentions" => return all(&|layer| Site::Pattern.at(layer), n_layer),
        _ => {}
    }
    let bare = name.strip_prefix("module.").unwrap_or(name);
    let with = if bare.starts_with("h.") || ["wte", "wpe", "ln_f"].contains(&bare) {
        format!("transformer.{bare}")
    } else {
        bare.to_owned()
    };
    for (pattern, site, kind) in NAMES
        .iter()
        .map(|(_, pattern, site, kind)| (*pattern, *site, *kind))
        .chain(BRIDGE.iter().map(|(pattern, site)| (*pattern, *site, Whole)))
    {
        if let Some(layer) = matched(pattern, &with) {
            let layer = match layer {
                Block::Number(layer) => layer,
                Block::None if site == Site::ResidPost => n_layer - 1,
                Block::None => 0,
            };
            return (layer < n_layer).then(|| Named::One(Ours { hook: site.near(layer), kind }));
        }
    }
    llmc(name, n_layer)
}

/// llm.c's names of what each block has: all of them, or with a number one.
fn llmc(name: &str, n_layer: usize) -> Option<Named> {
    let row = |name: &str| {
        NAMES.iter().find(|(dialect, own, ..)| *dialect == Llmc && *own == name && is_stacked(own))
    };
    if let Some((_, _, site, kind)) = row(name) {
        let part = |layer| Ours { hook: site.at(layer), kind: *kind };
        return Some(Named::Stacked((0..n_layer).map(part).collect()));
    }
    let (name, layer) = name.rsplit_once(['.', '_'])?;
    let (_, _, site, kind) = row(name)?;
    let layer = number(layer).filter(|layer| *layer < n_layer)?;
    Some(Named::One(Ours { hook: site.at(layer), kind: *kind }))
}

/// Whether llm.c has all blocks of it one after the other.
fn is_stacked(name: &str) -> bool {
    !matches!(name, "encoded" | "lnf" | "lnf_mean" | "lnf_rstd" | "logits" | "probs" | "losses")
}

/// The block of a name.
enum Block {
    None,
    Number(usize),
}

/// Whether a name is of this pattern, with the block if the pattern has one. What llm.c has of every block is of no
/// pattern.
fn matched(pattern: &str, name: &str) -> Option<Block> {
    match pattern.split_once('*') {
        None if NAMES.iter().any(|row| row.0 == Llmc && row.1 == pattern && is_stacked(pattern)) => None,
        None => (pattern == name).then_some(Block::None),
        Some((before, after)) => {
            let layer = name.strip_prefix(before)?.strip_suffix(after)?;
            number(layer).map(Block::Number)
        }
    }
}

/// A number as it is written, so that each tensor has one name.
fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n: &usize| n.to_string() == text)
}

impl Dialect {
    /// The names of what a hook is called, with the parts that each holds; in data-flow order, each once. What the
    /// program has no name for is left out.
    pub fn all(self, config: &Config) -> Vec<(String, Vec<Ours>)> {
        let mut all: Vec<(String, Vec<Ours>)> = Vec::new();
        if self == Self::Transformerlens2 {
            for hook in HookName::all(config).into_iter().filter(|hook| !hook.point().on_request) {
                all.extend(transformerlens2(hook).map(|name| (name, vec![Ours::whole(hook)])));
            }
            return all;
        }
        for (dialect, pattern, site, kind) in NAMES.iter().filter(|row| row.0 == self) {
            let part = |layer: usize| Ours { hook: site.near(layer), kind: *kind };
            let of = |layer: usize| (pattern.replace('*', &layer.to_string()), vec![part(layer)]);
            let last = config.n_layer - 1;
            match dialect {
                Llmc if is_stacked(pattern) => {
                    all.push(((*pattern).to_owned(), (0..=last).map(part).collect()));
                }
                _ if pattern.contains('*') => all.extend((0..=last).map(of)),
                _ => all.push(of(if *site == Site::ResidPost { last } else { 0 })),
            }
        }
        if self == Hf {
            let name = format!("hidden_states.{}", config.n_layer);
            all.insert(0, (name, vec![Ours::whole(Site::LnFinalOut.once())]));
        }
        all.sort_by_key(|(_, parts)| parts[0]);
        all.dedup_by(|b, a| self == Hf && a.1 == b.1);
        all
    }
}

/// TransformerLens 2's name of a hook: what it calls normalized is our `hook_out`, and it has no other name for it.
fn transformerlens2(hook: HookName) -> Option<String> {
    let name = hook.to_string();
    match hook.site {
        Site::Ln1Normalized | Site::Ln2Normalized | Site::LnFinalNormalized | Site::Logits | Site::Probs => {
            None
        }
        Site::Ln1Out | Site::Ln2Out | Site::LnFinalOut => Some(name.replace("hook_out", "hook_normalized")),
        _ => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> String {
        match find(name, &Config::gpt2()) {
            Some(Named::One(Ours { hook, kind })) => format!("{hook} {kind:?}"),
            Some(Named::Stacked(parts)) => {
                format!("{} × {} {:?}", parts[0].hook, parts.len(), parts[0].kind)
            }
            None => "none".into(),
        }
    }

    #[test]
    fn names_of_other_programs_are_found() {
        for (name, want) in [
            ("blocks.3.attn.hook_pattern", "blocks.3.attn.hook_pattern Whole"),
            ("pattern.3", "blocks.3.attn.hook_pattern Whole"),
            ("hidden_states.3", "blocks.3.hook_resid_pre Whole"),
            ("hidden_states.12", "ln_final.hook_out Whole"),
            ("hidden_states.13", "none"),
            ("hidden_states.03", "none"),
            ("hidden_states", "blocks.0.hook_resid_pre × 13 Whole"),
            ("attentions.11", "blocks.11.attn.hook_pattern Whole"),
            ("attentions", "blocks.0.attn.hook_pattern × 12 Whole"),
            ("transformer.h.5.mlp.c_fc", "blocks.5.mlp.hook_pre Whole"),
            ("h.5.attn.c_attn", "blocks.5.attn.hook_q Qkv"),
            ("module.transformer.h.5", "blocks.5.hook_resid_post Whole"),
            ("transformer.h.12", "none"),
            ("encoded", "blocks.0.hook_resid_pre Whole"),
            ("ln1", "blocks.0.ln1.hook_out × 12 Whole"),
            ("ln1.3", "blocks.3.ln1.hook_out Whole"),
            ("ln1_rstd", "blocks.0.ln1.hook_scale × 12 Rstd"),
            ("residual3", "blocks.0.hook_resid_post × 12 Whole"),
            ("lnf_mean", "blocks.11.hook_resid_post Mean"),
            ("losses", "unembed.hook_out Losses"),
            ("blocks.4.attn.o.hook_in", "blocks.4.attn.hook_z Whole"),
            ("blocks.4.hook_out", "blocks.4.hook_resid_post Whole"),
            ("ln_final.hook_in", "blocks.11.hook_resid_post Whole"),
            ("weights", "none"),
            ("ln1.12", "none"),
        ] {
            assert_eq!(one(name), want, "{name}");
        }
    }

    /// What is written in a program's words is read back as what it was.
    #[test]
    fn every_dialect_reads_back() {
        let config = Config::gpt2();
        for dialect in [Dialect::Hf, Dialect::Llmc] {
            let all = dialect.all(&config);
            assert!(all.len() > 20, "{dialect:?}");
            for (name, parts) in all {
                match find(&name, &config) {
                    Some(Named::One(part)) => assert_eq!(vec![part], parts, "{name}"),
                    Some(Named::Stacked(found)) => assert_eq!(found, parts, "{name}"),
                    None => panic!("{name}"),
                }
            }
        }
        let names: Vec<_> =
            Dialect::Transformerlens2.all(&config).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"blocks.0.ln1.hook_normalized".to_owned()) && names.len() == 12 * 17 + 4);
    }
}
