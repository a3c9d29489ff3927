//! The edges between components that tell A from B: the strongest as a list and as a graph.

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Span;
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Context, Line};

use super::{Panel, centred};
use crate::analysis::gradients::edges::{Edge, Edges, Receiver, Sender};
use crate::config::Config;
use crate::engine::{Seen, Slot};
use crate::tui::app::App;
use crate::tui::text::{num, pad, put, put_line, short};
use crate::tui::theme::Theme;
use crate::tui::widgets::bar;

/// What is shown of the edges.
pub struct EdgesPanel {
    /// The number of edges in the graph.
    n: usize,
    /// The one that is marked.
    selected: usize,
    /// Steps of integrated gradients; `None`: EAP.
    pub steps: Option<usize>,
}

/// Steps of EAP-IG.
const STEPS: usize = 5;
/// Edges in the graph, at first and at most.
const SHOWN: usize = 20;
const MOST: usize = 400;

impl Default for EdgesPanel {
    fn default() -> Self {
        Self { n: SHOWN, selected: 0, steps: None }
    }
}

impl EdgesPanel {
    /// Handles a key.
    pub fn key(&mut self, key: KeyEvent) {
        let last = self.n.saturating_sub(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::Char('+') => self.n = (self.n * 3 / 2).min(MOST),
            KeyCode::Char('-') => {
                self.n = (self.n * 2 / 3).max(1);
                self.selected = self.selected.min(self.n - 1);
            }
            KeyCode::Char('i') => self.steps = if self.steps.is_some() { None } else { Some(STEPS) },
            _ => {}
        }
    }
}

pub fn panel(shown: &EdgesPanel, area: Rect) -> Panel {
    let how = match shown.steps {
        None => "EAP".to_owned(),
        Some(steps) => format!("EAP-IG, {steps} steps"),
    };
    let title = format!("Edges that tell A from B · {how}");
    let keys = "↑ ↓ edge · + more · - fewer · i integrated gradients · Esc close";
    Panel::new(centred(area, area.width.saturating_sub(4), area.height.saturating_sub(4)), title, keys)
}

pub fn draw(shown: &EdgesPanel, app: &App, inside: Rect, buffer: &mut Buffer) {
    let (theme, base) = (app.theme, app.theme.panel());
    let edges = match app.seen.get(&Slot::Edges).map(|seen| &**seen) {
        Some(Seen::Edges(_, edges)) => edges,
        Some(Seen::Nothing(_, why)) => {
            put_line(buffer, inside, &[Span::styled(why.clone(), base.patch(theme.bad()))]);
            return;
        }
        _ => {
            put_line(buffer, inside, &[Span::styled("computing …", base.patch(theme.dim()))]);
            return;
        }
    };
    let Some(config) = app.run.as_ref().map(|run| run.config()) else { return };
    let said = format!(
        "logit difference: A {}, B {} · score: how it changes if the edge alone carries what B has · {} of {} edges",
        num(edges.clean as f32),
        num(edges.corrupt as f32),
        shown.n.min(edges.all.len()),
        edges.all.len()
    );
    put_line(buffer, inside, &[Span::styled(said, base.patch(theme.dim()))]);
    let body = Rect { y: inside.y + 2, height: inside.height.saturating_sub(2), ..inside };
    let list = Rect { width: if inside.width >= 110 { 52 } else { 34 }.min(body.width), ..body };
    draw_list(shown, edges, list, (theme, base), buffer);
    let x = list.right() + 2;
    let graph = Rect { x, width: body.right().saturating_sub(x), ..body };
    if graph.width >= 24 && graph.height >= 8 {
        let strongest = &edges.all[..shown.n.min(edges.all.len())];
        draw_graph(strongest, shown.selected, config, graph, (theme, base), buffer);
    }
}

fn draw_list(
    shown: &EdgesPanel,
    edges: &Edges,
    area: Rect,
    (theme, base): (Theme, Style),
    buffer: &mut Buffer,
) {
    let most = edges.all.first().map_or(0.0, |edge| edge.score.abs());
    let lines = usize::from(area.height);
    let first = shown.selected.saturating_sub(lines / 2).min(shown.n.saturating_sub(lines));
    let all = edges.all.iter().take(shown.n).enumerate().skip(first);
    for ((i, edge), y) in all.zip(area.y..area.bottom()) {
        let selected = i == shown.selected;
        let style = |style| if selected { theme.selected() } else { base.patch(style) };
        let mut spans = vec![
            Span::styled(if selected { "▸" } else { " " }, style(theme.accent())),
            Span::styled(pad(&edge.from.to_string(), 10), style(theme.text())),
            Span::styled(pad(&edge.to.to_string(), 13), style(theme.text())),
            Span::styled(format!("{:>6} ", short(edge.score as f32, 6)), style(theme.text())),
        ];
        let room = usize::from(area.width).saturating_sub(32);
        spans.extend(bar::signed(bar::share(edge.score, most), room, theme));
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
    }
}

/// Where components are in the graph, in cells from its top left.
struct Layout<'a> {
    config: &'a Config,
    width: f64,
    height: f64,
}

impl Layout<'_> {
    fn row(&self, number: usize) -> f64 {
        let last = (2 * self.config.n_layer + 1) as f64;
        0.5 + number as f64 * (self.height - 1.0) / last
    }

    fn head(&self, head: usize) -> f64 {
        (head as f64 + 0.5) * self.width / self.config.n_head as f64
    }

    fn from(&self, from: Sender) -> (f64, f64) {
        match from {
            Sender::Input => (self.width / 2.0, self.row(0)),
            Sender::Head(l, h) => (self.head(h), self.row(1 + 2 * l)),
            Sender::Mlp(l) => (self.width / 2.0, self.row(2 + 2 * l)),
        }
    }

    fn to(&self, to: Receiver) -> (f64, f64) {
        match to {
            Receiver::Head(l, h, _) => self.from(Sender::Head(l, h)),
            Receiver::Mlp(l) => self.from(Sender::Mlp(l)),
            Receiver::Logits => (self.width / 2.0, self.row(2 * self.config.n_layer + 1)),
        }
    }
}

fn draw_graph(
    edges: &[Edge],
    selected: usize,
    config: &Config,
    area: Rect,
    (theme, base): (Theme, Style),
    buffer: &mut Buffer,
) {
    let layout = Layout { config, width: area.width.into(), height: area.height.into() };
    let most = edges.first().map_or(1.0, |edge| edge.score.abs()).max(f64::MIN_POSITIVE);
    let color = |style: Style| style.fg.unwrap_or_default();
    Canvas::default()
        .marker(Marker::Braille)
        .background_color(base.bg.unwrap_or_default())
        .x_bounds([0.0, layout.width])
        .y_bounds([0.0, layout.height])
        .paint(|canvas| {
            // The strongest are drawn last, on top; then the selected one.
            let order = (0..edges.len()).rev().filter(|i| *i != selected).chain([selected]);
            for edge in order.filter_map(|i| Some((i, edges.get(i)?))) {
                let (i, edge) = edge;
                let share = (edge.score / most) as f32;
                let ink = if i == selected { theme.accent() } else { theme.signed(share) };
                line(canvas, &layout, edge, share.abs(), color(ink));
                canvas.layer();
            }
        })
        .render(area, buffer);
    let uses = |from: Sender| {
        edges.iter().any(|edge| {
            let receives = match (edge.to, from) {
                (Receiver::Head(l, h, _), Sender::Head(layer, head)) => (l, h) == (layer, head),
                (Receiver::Mlp(l), Sender::Mlp(layer)) => l == layer,
                _ => false,
            };
            edge.from == from || receives
        })
    };
    let mut node = |(x, y): (f64, f64), name: &str, used: bool| {
        let name = if used { name } else { "·" };
        let style = base.patch(if used { theme.strong() } else { theme.faint() });
        let left = area.x + (x - name.chars().count() as f64 / 2.0).max(0.0) as u16;
        put(buffer, left, area.y + y as u16, area.right().saturating_sub(left), name, style);
    };
    for from in Sender::all(config) {
        let name = match from {
            Sender::Input => "embeddings".to_owned(),
            Sender::Head(l, h) => format!("{l}.{h}"),
            Sender::Mlp(l) => format!("MLP {l}"),
        };
        node(layout.from(from), &name, uses(from));
    }
    node(layout.to(Receiver::Logits), "logits", true);
}

/// A line as wide as its share; those straight down bend aside, by their length.
fn line(canvas: &mut Context<'_>, layout: &Layout, edge: &Edge, share: f32, color: Color) {
    const WIDEST: f32 = 4.0;
    /// A dot of Braille.
    const DOT: f64 = 0.5;
    let ((x, y), (to_x, to_y)) = (layout.from(edge.from), layout.to(edge.to));
    let bend = if (x - to_x).abs() < 1.0 { (to_y - y) * 0.5 } else { 0.0 };
    let middle = (f64::midpoint(x, to_x) + bend, f64::midpoint(y, to_y));
    let up = |y: f64| layout.height - y;
    let n = (share * WIDEST).ceil().max(1.0) as usize;
    for i in 0..n {
        let aside = (i as f64 - (n - 1) as f64 / 2.0) * DOT;
        for ((x1, y1), (x2, y2)) in [((x, y), middle), (middle, (to_x, to_y))] {
            canvas.draw(&Line { x1: x1 + aside, y1: up(y1), x2: x2 + aside, y2: up(y2), color });
        }
    }
}
