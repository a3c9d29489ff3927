//! Widgets shared by the screens.

pub mod bar;
pub mod chart;
pub mod heatmap;
pub mod row_strip;
pub mod token_strip;
