//! Pure functions from a run to small results.

pub mod attribution;
pub mod base;
pub mod compare;
pub mod continuations;
pub mod effects;
pub mod features;
pub mod find;
pub mod gradients;
pub mod heads;
pub mod lens;
pub mod logits;
pub mod patch;
pub mod softmax;
pub mod vary;
mod view;
pub mod walk;
pub mod weights;

pub use view::{AttnStage, Shown, View, ViewSource, Weight};
