//! Pure functions from a run to small results.

pub mod answer;
pub mod attribution;
pub mod chart;
pub mod compare;
pub mod effects;
pub mod find;
pub mod grid;
pub mod heads;
pub mod lens;
pub mod logits;
mod matrix;
pub mod patch;
pub mod picture;
pub mod range;
pub mod stats;
pub mod walk;
pub mod weights;

pub use matrix::{AttnStage, Matrix, Source, View, Weight};
