//! The places on screens that show something computed.

/// A place on a screen that shows something computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The large map of the screen.
    Main,
    /// The small map of a head.
    Head(usize),
    /// The miniatures of wte and wpe.
    Wte,
    Wpe,
    /// The map of two prompts, and its row under the cursor.
    Beside,
    BesideRow,
    /// The row under the cursor.
    Row,
    /// Adjacent rows on the screen Embedding.
    Strip(usize),
    /// The likeliest next tokens, after one position and after many.
    Next,
    Nexts,
    /// The norms of the residual stream.
    Flow,
    /// What a token reads, over all heads.
    Reads,
    /// The scores of every head.
    Heads,
    /// The map of a head on random tokens.
    OnRandom,
    /// The readings of the logit lens.
    Lens,
    /// The page of the walk, and the operands of its operation.
    Walk,
    Operand(usize),
    /// The contributions to a logit.
    Attribution,
    /// The neurons of an MLP with the largest contributions.
    Neurons,
    /// The active features of a dictionary.
    Features,
    /// The page of one of them.
    Feature,
    /// The nearest neighbours of a row.
    Neighbours,
    /// A circuit, or a neuron.
    Weights,
    /// The extremes of the run.
    Found,
    /// What the tokens account for.
    Inputs,
    /// What the gradient predicts for ablations.
    FirstOrder,
    /// The total effects of the parts of a logit.
    Totals,
    /// What the gradient predicts for a sweep.
    Predicted,
    /// The edges that tell two prompts apart.
    Edges,
}
