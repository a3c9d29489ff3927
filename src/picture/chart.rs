//! A matrix computed from runs, with its title and labels.

use super::Matrix;
use super::range::{Range, RangeMode};
use crate::hooks::Quantity;

/// A table of numbers that the explorer and figures draw, other than a tensor.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    /// One line: what a cell shows.
    pub doc: String,
    /// How it is computed; may be empty.
    pub formula: String,
    pub rows: Labels,
    pub columns: Labels,
    /// The kind of numbers, which decides the colours.
    pub values: Matrix,
    pub quantity: Quantity,
    /// The end of the colour range, if not the largest value: 1 for probabilities.
    pub limit: Option<f32>,
    /// Words for the cells, row by row; empty if their numbers are printed.
    pub texts: Vec<String>,
}

/// The labels of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// What the axis counts.
    pub noun: &'static str,
    /// A name for each index; empty if the index itself is the name.
    pub names: Vec<String>,
    /// Whether figures show the index next to its name.
    pub indexed: bool,
}

impl Labels {
    pub fn numbered(noun: &'static str) -> Self {
        Self::named(noun, Vec::new())
    }

    pub fn named(noun: &'static str, names: Vec<String>) -> Self {
        Self { noun, names, indexed: false }
    }

    /// Tokens by position.
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
    /// The range of its colours, in the given mode or as suits the chart.
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
