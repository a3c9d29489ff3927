//! The way of one token through the network, step by step: what each step does in words, in a
//! formula, and in the run's own numbers.
//!
//! [`steps`] lists the steps of a model; [`Page::new`] gives everything that one of them shows, for
//! the explorer's Walk screen and for `actscope walk` alike. The words are in `assets/walk.toml`.

mod difference;
mod page;
mod words;

pub use words::{label, phrase};

use serde::Deserialize;

use super::View;
use super::logits::Sampling;
use crate::hooks::{HookName, Site};
use crate::model::{Activation, Config};
use crate::text::num;

/// What happens in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Tokens,
    Wte,
    Wpe,
    Sum,
    Encoder,
    Ln1,
    Qkv,
    Heads,
    Scores,
    Scale,
    Mask,
    Softmax,
    Z,
    AttnOut,
    ResidMid,
    Ln2,
    MlpPre,
    MlpPost,
    MlpOut,
    ResidPost,
    LnFinal,
    Logits,
    Probs,
    Next,
}

impl Kind {
    pub const BEFORE: [Self; 5] = [Self::Tokens, Self::Wte, Self::Wpe, Self::Sum, Self::Encoder];
    pub const BLOCK: [Self; 15] = [
        Self::Ln1,
        Self::Qkv,
        Self::Heads,
        Self::Scores,
        Self::Scale,
        Self::Mask,
        Self::Softmax,
        Self::Z,
        Self::AttnOut,
        Self::ResidMid,
        Self::Ln2,
        Self::MlpPre,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];
    pub const AFTER: [Self; 4] = [Self::LnFinal, Self::Logits, Self::Probs, Self::Next];

    /// One or two words for it.
    pub fn name(self) -> &'static str {
        &words::entry(self).name
    }

    /// The tensor that the step makes; none for the tokens themselves.
    pub fn site(self) -> Option<Site> {
        Some(match self {
            Self::Tokens | Self::Next => return None,
            Self::Wte => Site::Embed,
            Self::Wpe => Site::PosEmbed,
            Self::Sum | Self::Encoder => Site::ResidPre,
            Self::Ln1 => Site::Ln1Out,
            Self::Qkv | Self::Heads => Site::Q,
            Self::Scores | Self::Scale | Self::Mask => Site::AttnScores,
            Self::Softmax => Site::Pattern,
            Self::Z => Site::Z,
            Self::AttnOut => Site::AttnOut,
            Self::ResidMid => Site::ResidMid,
            Self::Ln2 => Site::Ln2Out,
            Self::MlpPre => Site::MlpPre,
            Self::MlpPost => Site::MlpPost,
            Self::MlpOut => Site::MlpOut,
            Self::ResidPost => Site::ResidPost,
            Self::LnFinal => Site::LnFinalOut,
            Self::Logits => Site::Logits,
            Self::Probs => Site::Probs,
        })
    }
}

/// A step of the walk through one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    pub kind: Kind,
    /// Its block, where it is in one.
    pub layer: Option<usize>,
}

impl Step {
    /// The first step, of every model.
    pub const FIRST: Self = Self { kind: Kind::Tokens, layer: None };

    /// Its place among [`steps`], from 0.
    pub fn index(self, config: &Config) -> usize {
        let at = |kinds: &[Kind]| kinds.iter().position(|kind| *kind == self.kind);
        let block = |layer: usize| Kind::BEFORE.len() + layer * Kind::BLOCK.len();
        at(&Kind::BEFORE)
            .or_else(|| Some(block(self.layer.unwrap_or(0)) + at(&Kind::BLOCK)?))
            .or_else(|| Some(block(config.n_layer) + at(&Kind::AFTER)?))
            .unwrap_or(0)
    }

    /// The tensor that the step makes.
    pub fn hook(self) -> Option<HookName> {
        Some(self.kind.site()?.near(self.layer.unwrap_or(0)))
    }
}

/// The steps of a model, from its input to the next token.
pub fn steps(config: &Config) -> Vec<Step> {
    let outside = |kind: &Kind| Step { kind: *kind, layer: None };
    let blocks = (0..config.n_layer).flat_map(|l| Kind::BLOCK.map(|kind| Step { kind, layer: Some(l) }));
    let before = Kind::BEFORE.iter().map(outside);
    before.chain(blocks).chain(Kind::AFTER.iter().map(outside)).collect()
}

/// Where one is on the walk, and what is selected there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    pub step: Step,
    /// The token that is followed.
    pub position: usize,
    pub head: usize,
    /// The key whose score is taken apart.
    pub key: usize,
    /// The column of a result that is taken apart.
    pub column: usize,
    /// How the next token is drawn.
    pub sampling: Sampling,
}

/// Everything that a step shows.
#[derive(Debug, Clone)]
pub struct Page {
    pub at: At,
    /// Place of the step among all of them, from 0.
    pub index: usize,
    pub n_steps: usize,
    pub name: String,
    pub title: String,
    /// What happens and why, in sentences.
    pub text: String,
    /// For the row of the token.
    pub formula: String,
    /// The formula in shapes, for all tokens.
    pub shapes: String,
    /// Where the result goes.
    pub next: String,
    /// What to press here in the explorer; often nothing.
    pub keys: String,
    /// The operation, from left to right.
    pub parts: Vec<Piece>,
    /// Rows of the matrix that is looked up in, where one is.
    pub magnifier: Vec<Line>,
    pub facts: Vec<Fact>,
    pub tables: Vec<Table>,
    pub curve: Option<Curve>,
    pub check: Check,
}

impl Page {
    /// The operands, from left to right.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.parts.iter().filter_map(|part| match part {
            Piece::Operand(operand) => Some(operand),
            Piece::Sign(_) => None,
        })
    }
}

/// A piece of an operation.
#[derive(Debug, Clone)]
pub enum Piece {
    /// `×`, `+`, `=`, `→`, …
    Sign(&'static str),
    Operand(Operand),
}

/// A matrix or vector of an operation.
#[derive(Debug, Clone)]
pub struct Operand {
    /// As the formula calls it.
    pub name: String,
    pub shape: Vec<usize>,
    /// The matrix to draw; `None` for a vector, which is all in `values`.
    pub view: Option<View>,
    /// The row that takes part in the marked result.
    pub row: Option<usize>,
    /// The column that does.
    pub column: Option<usize>,
    /// Columns that belong together: those of the selected head.
    pub band: Option<(usize, usize)>,
    /// The marked row; where only a column is marked, that; the vector.
    pub values: Vec<f32>,
}

/// A row of a matrix, written out.
#[derive(Debug, Clone)]
pub struct Line {
    pub index: usize,
    pub label: String,
    pub values: Vec<f32>,
    pub marked: bool,
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub name: String,
    pub value: Cell,
}

/// A value in a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Number(f32),
    Count(usize),
    Text(String),
}

/// Numbers beside each other.
#[derive(Debug, Clone)]
pub struct Table {
    pub title: String,
    /// Heads of the columns, the one of the labels first.
    pub columns: Vec<String>,
    pub rows: Vec<TableRow>,
    /// Which column of values is worth a bar.
    pub bar: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct TableRow {
    pub label: String,
    pub cells: Vec<Cell>,
    /// The one that is selected, or that sums the others up.
    pub marked: bool,
    /// The position in the prompt, or the token id, or the channel that the row is about.
    pub index: Option<usize>,
}

/// The graph of an activation function, and where the values of a row lie on it.
#[derive(Debug, Clone)]
pub struct Curve {
    pub activation: Activation,
    /// The function itself, from the left end to the right.
    pub line: Vec<(f32, f32)>,
    /// (before, after) of each neuron.
    pub points: Vec<(f32, f32)>,
}

/// Something computed twice and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub claim: String,
    /// The largest difference; NaN if there is one on one side only.
    pub difference: f32,
    /// The largest value that was compared, in size.
    pub largest: f32,
    /// The difference that rounding explains: a few units in the last place of the sums.
    pub allowed: f32,
}

impl Check {
    /// What is `held` against the same computed `anew`: rounding explains a difference of `allowed`.
    pub fn new(claim: &str, held: &[f32], anew: &[f32], allowed: f32) -> Self {
        let worst = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
        let apart = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() };
        Self {
            claim: claim.to_owned(),
            difference: held.iter().zip(anew).map(apart).fold(0.0, worst),
            largest: anew.iter().map(|x| x.abs()).fold(0.0, worst),
            allowed,
        }
    }

    /// Whether the difference is one of rounding.
    pub fn holds(&self) -> bool {
        self.difference <= self.allowed
    }

    /// A mark, the claim as far as it holds, and what was found.
    pub fn verdict(&self) -> [String; 3] {
        let (mark, claim) = if self.holds() {
            ("✓", self.claim.clone())
        } else {
            ("✗", phrase("fails", &[("claim", &self.claim)]))
        };
        let found = match self.difference {
            0.0 => label("exactly").to_owned(),
            d if self.allowed == 0.0 => phrase("differ", &[("n", &num(d))]),
            d if self.largest > 0.0 => {
                phrase("difference_of", &[("d", &num(d)), ("largest", &num(self.largest))])
            }
            d => phrase("difference", &[("d", &num(d))]),
        };
        [mark.to_owned(), claim, found]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_by_how_much() {
        let said = |held: f32, anew: f32, allowed| Check::new("a = b", &[held], &[anew], allowed).verdict();
        assert_eq!(said(2.0, 2.0, 0.0), ["✓", "a = b", "exactly"]);
        assert_eq!(said(2.0, 1.5, 1.0), ["✓", "a = b", "largest difference 0.500, values up to 1.500"]);
        assert_eq!(said(2.0, 0.0, 9.0), ["✓", "a = b", "largest difference 2.000"]);
        assert_eq!(said(2.0, 1.5, 0.1)[..2], ["✗", "does not hold: a = b"]);
        assert_eq!(said(f32::NAN, 1.0, 9.0)[0], "✗");
    }
}
