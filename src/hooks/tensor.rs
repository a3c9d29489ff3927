//! The name of a tensor of a run: of a hook, or of what a sparse dictionary makes of it.

use std::fmt;

use super::{Axis, HookName, Quantity};
use crate::config::Config;

/// What a sparse dictionary makes of the tensor of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Made {
    /// The activations of its features, which are so many.
    Features(u32),
    Reconstruction,
    Error,
}

impl Made {
    /// All of a dictionary of `n` features.
    pub fn all(n: u32) -> [Self; 3] {
        [Self::Features(n), Self::Reconstruction, Self::Error]
    }

    /// What follows the name of the hook, after a dot.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// How it is computed.
    pub fn formula(self) -> &'static str {
        self.row().1
    }

    /// A one-line description.
    pub fn doc(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Features(_) => {
                ("features", "encode(x)", "which features of the dictionary are active, and how strongly")
            }
            Self::Reconstruction => ("reconstruction", "decode(features)", "what the features stand for"),
            Self::Error => ("error", "x − reconstruction", "what the features leave out"),
        }
    }
}

/// The name of a tensor of a run, such as `blocks.3.attn.hook_pattern` or `blocks.2.hook_resid_pre.features`; ordered
/// by data flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorName {
    pub hook: HookName,
    /// `None`: the tensor of the hook itself.
    pub made: Option<Made>,
}

impl TensorName {
    /// All names of a model with dictionaries of some hooks and sizes, in data-flow order.
    pub fn all(config: &Config, dictionaries: &[(HookName, u32)]) -> Vec<Self> {
        let of = |hook: HookName| {
            let made = dictionaries.iter().filter(move |(written, _)| *written == hook);
            let made = made.flat_map(|(_, n)| Made::all(*n)).map(Some);
            std::iter::once(None).chain(made).map(move |made| Self { hook, made })
        };
        HookName::all(config).into_iter().flat_map(of).collect()
    }

    /// What its axes count.
    pub fn axes(self) -> Vec<Axis> {
        match self.made {
            Some(Made::Features(n)) => vec![Axis::Pos, Axis::Feature(n)],
            _ => self.hook.point().axes.to_vec(),
        }
    }

    /// Shape for `n_tokens` tokens, without a batch dimension.
    pub fn shape(self, config: &Config, n_tokens: usize) -> Vec<usize> {
        self.axes().iter().map(|axis| axis.len(config, n_tokens)).collect()
    }

    pub fn has_heads(self) -> bool {
        self.axes().contains(&Axis::Head)
    }

    pub fn quantity(self) -> Quantity {
        match self.made {
            Some(Made::Features(_)) => Quantity::Positive,
            Some(_) => Quantity::Signed,
            None => self.hook.point().quantity,
        }
    }

    pub fn formula(self) -> &'static str {
        self.made.map_or(self.hook.point().formula, Made::formula)
    }

    pub fn doc(self) -> &'static str {
        self.made.map_or(self.hook.point().doc, Made::doc)
    }

    /// Large or rarely wanted: a pattern must name nothing else.
    pub fn on_request(self) -> bool {
        self.made.is_some() || self.hook.point().on_request
    }

    /// The short form, as in `resid_pre.2.features`.
    pub fn short(self) -> String {
        match self.made {
            Some(made) => format!("{}.{}", self.hook.short(), made.name()),
            None => self.hook.short(),
        }
    }
}

impl From<HookName> for TensorName {
    fn from(hook: HookName) -> Self {
        Self { hook, made: None }
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hook.fmt(f)?;
        self.made.map_or(Ok(()), |made| write!(f, ".{}", made.name()))
    }
}
