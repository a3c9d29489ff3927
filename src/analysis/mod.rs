//! Pure functions from a run to small results.

pub mod grid;
pub mod logits;
mod matrix;
pub mod range;
pub mod stats;

pub use matrix::{AttnStage, Matrix, Source, View};
