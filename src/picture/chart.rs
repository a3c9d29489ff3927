//! A matrix that was computed from runs, with the words that a reader of it needs.

use super::Matrix;
use super::range::{Range, RangeMode};
use crate::hooks::Quantity;

/// What the explorer and figures draw beside tensors: every result that is a table of numbers.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    /// One line: what a cell says.
    pub doc: String,
    /// How it is computed; may be empty.
    pub formula: String,
    pub rows: Labels,
    pub columns: Labels,
    /// What decides the colours.
    pub values: Matrix,
    pub quantity: Quantity,
    /// What the colours end at, where that is not the largest value: 1 for probabilities.
    pub limit: Option<f32>,
    /// Words for the cells, row by row; empty where their numbers are printed.
    pub texts: Vec<String>,
}

/// What stands along an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// What it counts.
    pub noun: &'static str,
    /// A name for each index; empty where the index itself is the name.
    pub names: Vec<String>,
    /// Whether figures write the index beside its name.
    pub indexed: bool,
}

impl Labels {
    pub fn numbered(noun: &'static str) -> Self {
        Self::named(noun, Vec::new())
    }

    pub fn named(noun: &'static str, names: Vec<String>) -> Self {
        Self { noun, names, indexed: false }
    }

    /// Tokens by their positions.
    pub fn tokens(noun: &'static str, names: Vec<String>) -> Self {
        Self { noun, names, indexed: true }
    }

    pub fn is_named(&self) -> bool {
        !self.names.is_empty()
    }

    pub fn get(&self, index: usize) -> String {
        self.names.get(index).cloned().unwrap_or_else(|| index.to_string())
    }
}

impl Chart {
    /// The range of its colours, in a mode of one's own choice or as suits the chart.
    pub fn range(&self, mode: Option<RangeMode>) -> Range {
        match (mode, self.limit) {
            (None, Some(limit)) => Range::up_to(&self.values, self.quantity, limit),
            (None, None) => Range::new(&self.values, self.quantity, RangeMode::Full),
            (Some(mode), _) => Range::new(&self.values, self.quantity, mode),
        }
    }

    /// The words of a cell, if it has any.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        self.texts.get(row * self.values.n_columns + column).map(String::as_str)
    }
}
