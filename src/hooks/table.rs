//! The table of hook points.

use super::HookName;
use crate::config::Config;

/// What one axis of a hooked tensor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Position in the prompt, `T` (in an attention map, the query).
    Pos,
    /// Position that is attended to, `T`.
    Key,
    /// Attention head, `H`.
    Head,
    /// Channel within a head, `d_head`.
    HeadDim,
    /// Channel of the residual stream, `C`.
    Model,
    /// Neuron of the MLP, `n_inner`.
    Neuron,
    /// Token of the vocabulary, `V`.
    Vocab,
    /// Feature of a sparse dictionary that has so many.
    Feature(u32),
    /// A single number.
    One,
}

impl Axis {
    /// Size of this axis for `n_tokens` tokens.
    pub fn len(self, config: &Config, n_tokens: usize) -> usize {
        match self {
            Self::Pos | Self::Key => n_tokens,
            Self::Head => config.n_head,
            Self::HeadDim => config.d_head(),
            Self::Model => config.n_embd,
            Self::Neuron => config.d_mlp(),
            Self::Vocab => config.vocab_size,
            Self::Feature(n) => n as usize,
            Self::One => 1,
        }
    }

    /// The word for one step along this axis.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Pos => "position",
            Self::Key => "key",
            Self::Head => "head",
            Self::HeadDim | Self::Model => "channel",
            Self::Neuron => "neuron",
            Self::Vocab => "token id",
            Self::Feature(_) => "feature",
            Self::One => "value",
        }
    }
}

/// What the numbers of a hooked tensor are; decides their colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Any sign, 0 in the middle.
    Signed,
    /// Positive, 0 at the bottom: LayerNorm scales.
    Positive,
    /// In 0..=1 with rows that sum to 1.
    Probability,
    /// 1 is first and the brightest; logarithmic.
    Rank,
}

/// One row of the table of hook points.
#[derive(Debug)]
pub struct HookPoint {
    /// Full name, without the `blocks.{l}.` that per-layer points carry.
    pub name: &'static str,
    /// Short name, as in `resid_post.5`.
    pub short: &'static str,
    /// Whether there is one per block.
    pub per_layer: bool,
    pub axes: &'static [Axis],
    pub quantity: Quantity,
    /// The sites it is computed from, in the same block (after the blocks, in the last one). Empty
    /// if only a forward pass computes it, or if a hook's replacement may bypass it.
    pub from: &'static [Site],
    /// In every block except the first, it is computed from this site of the block before: `| …`.
    pub from_before: Option<Site>,
    /// How it is computed.
    pub formula: &'static str,
    /// A one-line description.
    pub doc: &'static str,
    /// Large and rarely wanted: captured only if a pattern names nothing else.
    pub on_request: bool,
}

macro_rules! hook_points {
    ($(
        $site:ident $scope:ident $name:literal $short:literal [$($axis:ident)*] $quantity:ident
        [$($from:ident)* $(| $before:ident)?] $formula:literal $doc:literal;
    )*) => {
        /// A hook point, one variant for each row of [`HOOKS`], in data-flow order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Site { $( $site, )* }

        /// The table of hook points, in data-flow order.
        pub const HOOKS: &[HookPoint] = &[ $( HookPoint {
            name: $name,
            short: $short,
            per_layer: hook_points!(@per_layer $scope),
            axes: &[ $( Axis::$axis, )* ],
            quantity: Quantity::$quantity,
            from: &[ $( Site::$from, )* ],
            from_before: hook_points!(@option $($before)?),
            formula: $formula,
            doc: $doc,
            on_request: hook_points!(@on_request $scope),
        }, )* ];

        const SITES: &[Site] = &[ $( Site::$site, )* ];
    };
    (@per_layer once) => { false };
    (@per_layer $other:ident) => { true };
    (@on_request request) => { true };
    (@on_request $other:ident) => { false };
    (@option) => { None };
    (@option $site:ident) => { Some(Site::$site) };
}

hook_points! {
    // site            scope    name                        short                  axes                quantity     from                          formula                        doc
    Embed              once     "hook_embed"                "embed"                [Pos Model]         Signed       []                            "wte[token]"                   "token embedding: each token's row of wte";
    PosEmbed           once     "hook_pos_embed"            "pos_embed"            [Pos Model]         Signed       []                            "wpe[position]"                "positional embedding: each position's row of wpe";
    ResidPre           layer    "hook_resid_pre"            "resid_pre"            [Pos Model]         Signed       [Embed PosEmbed | ResidPost]  "embed + pos_embed, or resid_post of the block before"  "residual stream entering the block";
    Ln1Scale           layer    "ln1.hook_scale"            "ln1_scale"            [Pos One]           Positive     [ResidPre]                    "√(var(resid_pre) + ε)"        "what LayerNorm 1 divides by";
    Ln1Normalized      layer    "ln1.hook_normalized"       "ln1_normalized"       [Pos Model]         Signed       [ResidPre Ln1Scale]           "(resid_pre − mean) / scale"   "LayerNorm 1 before its weight and bias";
    Ln1Out             layer    "ln1.hook_out"              "ln1_out"              [Pos Model]         Signed       [Ln1Normalized]               "normalized · w + b"           "LayerNorm 1: what attention reads";
    Q                  layer    "attn.hook_q"               "q"                    [Pos Head HeadDim]  Signed       []                            "ln1_out · W_Q + b_Q"          "queries, per head";
    K                  layer    "attn.hook_k"               "k"                    [Pos Head HeadDim]  Signed       []                            "ln1_out · W_K + b_K"          "keys, per head";
    V                  layer    "attn.hook_v"               "v"                    [Pos Head HeadDim]  Signed       []                            "ln1_out · W_V + b_V"          "values, per head";
    AttnScores         layer    "attn.hook_attn_scores"     "attn_scores"          [Head Pos Key]      Signed       [Q K]                         "mask(q · kᵀ · scale)"         "attention scores, scaled and masked (−inf in the future)";
    Pattern            layer    "attn.hook_pattern"         "pattern"              [Head Pos Key]      Probability  [AttnScores]                  "softmax(attn_scores)"         "attention pattern: how much each query reads from each key";
    Z                  layer    "attn.hook_z"               "z"                    [Pos Head HeadDim]  Signed       []                            "pattern · v"                  "what each head gathered, before it is projected";
    Result             request  "attn.hook_result"          "result"               [Pos Head Model]    Signed       [Z]                           "z · W_O, head by head"        "what each head writes to the residual stream (without b_O)";
    AttnOut            layer    "hook_attn_out"             "attn_out"             [Pos Model]         Signed       []                            "concat(z) · W_O + b_O"        "what attention adds to the residual stream";
    ResidMid           layer    "hook_resid_mid"            "resid_mid"            [Pos Model]         Signed       [ResidPre AttnOut]            "resid_pre + attn_out"         "residual stream between attention and MLP";
    Ln2Scale           layer    "ln2.hook_scale"            "ln2_scale"            [Pos One]           Positive     [ResidMid]                    "√(var(resid_mid) + ε)"        "what LayerNorm 2 divides by";
    Ln2Normalized      layer    "ln2.hook_normalized"       "ln2_normalized"       [Pos Model]         Signed       [ResidMid Ln2Scale]           "(resid_mid − mean) / scale"   "LayerNorm 2 before its weight and bias";
    Ln2Out             layer    "ln2.hook_out"              "ln2_out"              [Pos Model]         Signed       [Ln2Normalized]               "normalized · w + b"           "LayerNorm 2: what the MLP reads";
    MlpPre             layer    "mlp.hook_pre"              "pre"                  [Pos Neuron]        Signed       [Ln2Out]                      "ln2_out · W_in + b_in"        "neurons before the activation function";
    MlpPost            layer    "mlp.hook_post"             "post"                 [Pos Neuron]        Signed       [MlpPre]                      "act(pre)"                     "neurons after the activation function";
    MlpOut             layer    "hook_mlp_out"              "mlp_out"              [Pos Model]         Signed       [MlpPost]                     "post · W_out + b_out"         "what the MLP adds to the residual stream";
    ResidPost          layer    "hook_resid_post"           "resid_post"           [Pos Model]         Signed       []                            "resid_mid + mlp_out"          "residual stream leaving the block";
    LnFinalScale       once     "ln_final.hook_scale"       "ln_final_scale"       [Pos One]           Positive     [ResidPost]                   "√(var(resid_post) + ε)"       "what the final LayerNorm divides by";
    LnFinalNormalized  once     "ln_final.hook_normalized"  "ln_final_normalized"  [Pos Model]         Signed       [ResidPost LnFinalScale]      "(resid_post − mean) / scale"  "final LayerNorm before its weight and bias";
    LnFinalOut         once     "ln_final.hook_out"         "ln_final_out"         [Pos Model]         Signed       [LnFinalNormalized]           "normalized · w + b"           "final LayerNorm: what the unembedding reads";
    Logits             once     "unembed.hook_out"          "logits"               [Pos Vocab]         Signed       [LnFinalOut]                  "ln_final_out · W_U"           "logits: a score for each token to come next";
    Probs              once     "hook_probs"                "probs"                [Pos Vocab]         Probability  [Logits]                      "softmax(logits)"              "probability of each token to come next";
}

impl Site {
    pub fn all() -> &'static [Self] {
        SITES
    }

    /// This site's row of the table.
    pub fn point(self) -> &'static HookPoint {
        &HOOKS[self as usize]
    }

    /// The hook of this site in block `layer`.
    pub fn at(self, layer: usize) -> HookName {
        debug_assert!(self.point().per_layer);
        HookName { site: self, layer: Some(layer) }
    }

    /// The hook of a site that exists once.
    pub fn once(self) -> HookName {
        debug_assert!(!self.point().per_layer);
        HookName { site: self, layer: None }
    }

    /// The hook of this site, in block `layer` if it has one per block.
    pub fn near(self, layer: usize) -> HookName {
        HookName { site: self, layer: self.point().per_layer.then_some(layer) }
    }
}
