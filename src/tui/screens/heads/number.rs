//! The numbers about heads that the screen shows, and which heads it ranks.

use crate::analysis::heads::Metric;

/// The number that the grid shows for a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Score(Metric),
    /// The change of the prediction without it.
    Effect,
    /// What the gradient predicts for that.
    FirstOrder,
}

impl Number {
    pub(super) fn all() -> Vec<Self> {
        Metric::ALL.into_iter().map(Self::Score).chain([Self::Effect, Self::FirstOrder]).collect()
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Score(metric) => metric.title(),
            Self::Effect => "ablation effect",
            Self::FirstOrder => "first-order effect",
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Score(metric) => metric.word(),
            Self::Effect => "effect",
            Self::FirstOrder => "first-order",
        }
    }

    pub(super) fn formula(self) -> &'static str {
        match self {
            Self::Score(metric) => metric.formula(),
            Self::Effect => "log p with the head at 0 − log p, nats",
            Self::FirstOrder => "−Σ z · ∂ log p / ∂z over all positions, nats",
        }
    }

    /// A name for a file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Score(metric) => metric.name(),
            Self::Effect => "effect",
            Self::FirstOrder => "first_order",
        }
    }

    /// Whether it is of what the network does with the prompt, of any sign.
    pub(super) fn is_effect(self) -> bool {
        matches!(self, Self::Effect | Self::FirstOrder)
    }
}

/// The heads in the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    All,
    /// The heads of the selected layer.
    Layer,
    /// Those with at least half of the largest number.
    Strong,
}

impl Filter {
    pub(super) const ALL: [Self; 3] = [Self::All, Self::Layer, Self::Strong];

    pub(super) fn words(self, layer: usize) -> String {
        match self {
            Self::All => "all heads".into(),
            Self::Layer => format!("layer {layer}"),
            Self::Strong => "at least half of the first".into(),
        }
    }
}
