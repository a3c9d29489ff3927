//! The screens: for each one a layout, what it wants computed, how it is drawn, what a click means.

mod attention;
pub mod attribution;
pub mod compare;
mod embedding;
pub mod heads;
pub mod lens;
mod logits;
mod stages;
mod tokens;
pub mod walk;
pub mod weights;

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Span;

use super::app::{App, Focus, Screen, Selection};
use super::layout::Frame;
use super::overlays::Overlay;
use super::text::num;
use crate::analysis::View;
use crate::engine::{Look, Slot};
use crate::hooks::Quantity;
use crate::picture::chart::Chart;
use crate::run::Run;

pub use logits::list_len as candidates;
pub use stages::plot as stages_plot;

/// What the current screen wants to show of the run; nothing without a run or room.
pub fn wanted(app: &App) -> Vec<(Slot, Look)> {
    let (Some(run), Some(frame)) = (&app.run, Frame::new(app.size)) else { return Vec::new() };
    if matches!(app.overlay, Some(Overlay::Finding)) {
        return vec![(Slot::Found, Look::Found)];
    }
    match app.screen {
        Screen::Tokens => Vec::new(),
        Screen::Embedding => embedding::wanted(app, run, frame.body),
        Screen::Stages => stages::wanted(app, run, frame.body),
        Screen::Attention => attention::wanted(app, run, frame.body),
        Screen::Logits => logits::wanted(app, run, frame.body),
        Screen::Walk => walk::wanted(app, run, frame.body),
        Screen::Heads => heads::wanted(app, run, frame.body),
        Screen::Lens => lens::wanted(app, run, frame.body),
        Screen::Attribution => attribution::wanted(app, run, frame.body),
        Screen::Compare => compare::wanted(app, run, frame.body),
        Screen::Weights => weights::wanted(app, run, frame.body),
    }
}

/// The run that it is of.
pub fn shown(app: &App) -> Option<Arc<Run>> {
    match app.screen {
        Screen::Compare => compare::shown(app),
        Screen::Heads => heads::measured_on(app),
        _ => app.run.clone(),
    }
}

/// Draws the body of the current screen.
pub fn draw(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    match app.screen {
        Screen::Tokens => tokens::draw(app, run, area, buffer),
        Screen::Embedding => embedding::draw(app, run, area, buffer),
        Screen::Stages => stages::draw(app, run, area, buffer),
        Screen::Attention => attention::draw(app, run, area, buffer),
        Screen::Logits => logits::draw(app, run, area, buffer),
        Screen::Walk => walk::draw(app, run, area, buffer),
        Screen::Heads => heads::draw(app, run, area, buffer),
        Screen::Lens => lens::draw(app, run, area, buffer),
        Screen::Attribution => attribution::draw(app, run, area, buffer),
        Screen::Compare => compare::draw(app, run, area, buffer),
        Screen::Weights => weights::draw(app, run, area, buffer),
    }
}

/// The lines of the inspector.
pub fn inspect<'a>(app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
    match app.screen {
        Screen::Tokens => tokens::inspect(app, run),
        Screen::Embedding => embedding::inspect(app, run),
        Screen::Stages => stages::inspect(app, run),
        Screen::Attention => attention::inspect(app, run),
        Screen::Logits => logits::inspect(app, run),
        Screen::Walk => walk::inspect(app, run),
        Screen::Heads => heads::inspect(app, run),
        Screen::Lens => lens::inspect(app, run),
        Screen::Attribution => attribution::inspect(app, run),
        Screen::Compare => compare::inspect(app, run),
        Screen::Weights => weights::inspect(app, run),
    }
}

/// What the arrow keys and Enter do here: keys and a word each.
pub fn arrows(app: &App) -> &'static [(&'static str, &'static str)] {
    match (app.screen, app.focus) {
        (Screen::Tokens, _) => &[("↑↓", "token"), ("Enter", "its embedding")],
        (Screen::Embedding, _) => &[("←→", "token"), ("↑↓", "channel"), ("Enter", "in Stages")],
        (Screen::Stages, Focus::Tree) => &[("↑↓", "tensor"), ("←→", "token"), ("Enter", "into the map")],
        (Screen::Stages, Focus::Map) => &[("←↑↓→", "cell"), ("Esc", "tensor list")],
        (Screen::Attention, _) => &[("↑↓", "query"), ("←→", "key"), ("Enter", "in Stages")],
        (Screen::Logits, _) => &[("↑↓", "candidate"), ("←→", "position"), ("Enter", "append")],
        (Screen::Walk, _) => walk::arrows(app),
        (Screen::Heads, _) => &[("←↑↓→", "head"), ("Enter", "its map")],
        (Screen::Lens, _) => &[("←→", "position"), ("↑↓", "layer"), ("Enter", "in Stages")],
        (Screen::Attribution, _) => attribution::arrows(app),
        (Screen::Compare, _) => &[("←↑↓→", "cell"), ("Enter", "sweep, or open")],
        (Screen::Weights, _) => weights::arrows(app),
    }
}

/// The chart of the current screen, if it shows one, and a name for its file.
pub fn chart(app: &App, run: &Run) -> Option<(String, Chart)> {
    match app.screen {
        Screen::Heads => heads::chart(app, run),
        Screen::Lens => lens::chart(app, run),
        Screen::Attribution => attribution::chart(app, run),
        Screen::Compare => compare::chart(app, run),
        Screen::Weights => weights::chart(app, run),
        _ => None,
    }
}

/// What a click selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub selection: Selection,
    /// Whether the click was into a map that can be walked in.
    pub map: bool,
}

pub fn hit(app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Hit> {
    match app.screen {
        Screen::Tokens => tokens::hit(app, run, area, x, y),
        Screen::Embedding => embedding::hit(app, run, area, x, y),
        Screen::Stages => stages::hit(app, run, area, x, y),
        Screen::Attention => attention::hit(app, run, area, x, y),
        Screen::Logits => logits::hit(app, area, x, y),
        Screen::Walk => walk::hit(app, run, area, x, y),
        Screen::Heads => heads::hit(app, run, area, x, y),
        Screen::Lens => lens::hit(app, run, area, x, y),
        Screen::Attribution => attribution::hit(app, run, area, x, y),
        Screen::Compare => compare::hit(app, run, area, x, y),
        Screen::Weights => weights::hit(app, run, area, x, y),
    }
}

/// The colour of a token in the token strip: what the screen is about.
pub fn token_shade(app: &App, position: usize) -> Option<Color> {
    let share = match app.screen {
        Screen::Attention => return attention::token_shade(app, position),
        _ if app.differs() => return Some(surprise_shade(app, app.surprise(position)?)),
        _ => app.surprise(position)? / SURPRISED,
    };
    Some(app.theme.shade(Quantity::Probability, share.clamp(0.0, 1.0)))
}

/// The colour of a surprise, or of its difference.
fn surprise_shade(app: &App, bits: f32) -> Color {
    let share = (bits / SURPRISED).clamp(-1.0, 1.0);
    if app.differs() {
        return app.theme.shade(Quantity::Signed, share.midpoint(1.0));
    }
    app.theme.shade(Quantity::Probability, share.max(0.0))
}

/// Bits of surprise at which the colour ends: one in 65,536.
pub const SURPRISED: f32 = 16.0;

/// `7 ·lazy`, as rows that are positions are labelled.
fn position_label(run: &Run, position: usize) -> String {
    let digits = run.n_tokens().saturating_sub(1).max(1).to_string().len();
    format!("{position:>digits$} {}", run.token_text(position))
}

/// The label of a row of `view`.
fn row_label(run: &Run, view: View, row: usize) -> String {
    use crate::hooks::Axis;
    match view.axes().0 {
        Axis::Pos => position_label(run, row),
        _ => row.to_string(),
    }
}

/// `[7, 75] = -1.284`
fn cell_text(row: usize, column: usize, value: Option<f32>) -> String {
    format!("[{row}, {column}] = {}", value.map_or_else(|| "…".into(), num))
}

/// `(12, 192)`
fn shape(dims: &[usize]) -> String {
    let sizes: Vec<_> = dims.iter().map(ToString::to_string).collect();
    format!("({})", sizes.join(", "))
}
