//! Widgets shared by the screens.

pub mod bar;
pub mod chart;
pub mod heatmap;
mod pixels;
pub mod plot;
pub mod row_strip;
pub mod scatter;
pub mod token_strip;
