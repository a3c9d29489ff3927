//! What others fitted to a model: sparse dictionaries of its activations, lenses on its layers.

pub mod dictionary;
mod labels;
pub mod lens;
mod place;

pub use dictionary::Dictionary;
pub use labels::Labels;
pub use lens::FittedLens;
pub use place::Named;
