//! The activations of other programs: their names and layouts, and a file of them against a run.

pub mod check;
mod diagnose;
mod file;
pub mod gradients;
pub(crate) mod layout;
pub mod names;
mod npy;

pub use check::{Check, Compared};
pub use file::{Foreign, Mapping};
