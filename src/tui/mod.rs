//! The explorer.
//!
//! State is one plain struct ([`app::App`]); [`update::update`] is the only place that changes it,
//! and returns requests to the engine; [`draw::draw`] only reads it. Both work without a terminal.

mod actions;
pub mod app;
pub mod atlas;
pub mod clipboard;
pub mod command;
pub mod draw;
pub mod gradient;
pub mod graphics;
pub mod headless;
mod jobs;
pub mod keymap;
mod layout;
mod overlays;
mod places;
pub mod screens;
pub mod settings;
pub mod state;
mod terminal;
pub mod text;
pub mod theme;
pub mod update;
pub mod view;
pub mod what_if;
pub(crate) mod widgets;

pub use terminal::{Options, run, with_terminal};
