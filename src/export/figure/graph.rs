//! Edges between components as a graph: blocks down, heads across.

use std::fmt::Write;

use crate::analysis::gradients::edges::{Edge, Receiver, Sender};
use crate::config::Config;
use crate::hooks::Site;
use crate::text::{num, plain};

/// Sender one row to the next, and the space around the rows.
const ROW: f32 = 38.0;
const MARGIN: f32 = 28.0;
/// The title and the legend.
const TOP: f32 = 62.0;
/// Between heads, at most and at least.
const COLUMN: (f32, f32) = (74.0, 30.0);
const WIDTH: f32 = 960.0;
/// The widest line, for the largest score.
const LINE: f32 = 7.0;
const POSITIVE: &str = "#b2182b";
const NEGATIVE: &str = "#2166ac";
const INK: &str = "#1b1f24";
const DIM: &str = "#656d76";
const PAPER: &str = "#ffffff";

/// Where components are.
struct Layout<'a> {
    config: &'a Config,
    column: f32,
}

impl Layout<'_> {
    fn width(&self) -> f32 {
        2.0 * MARGIN + 60.0 + self.column * (self.config.n_head as f32)
    }

    /// The embeddings, two rows for each block, the logits.
    fn height(&self) -> f32 {
        2.0 * MARGIN + TOP + ROW * (2 * self.config.n_layer + 1) as f32
    }

    fn row(number: usize) -> f32 {
        MARGIN + TOP + ROW * number as f32
    }

    fn middle(&self) -> f32 {
        self.head(self.config.n_head as f32 / 2.0 - 0.5)
    }

    fn head(&self, head: f32) -> f32 {
        MARGIN + 60.0 + self.column * (head + 0.5)
    }

    fn from(&self, from: Sender) -> (f32, f32) {
        match from {
            Sender::Input => (self.middle(), Self::row(0)),
            Sender::Head(l, h) => (self.head(h as f32), Self::row(1 + 2 * l)),
            Sender::Mlp(l) => (self.middle(), Self::row(2 + 2 * l)),
        }
    }

    fn to(&self, to: Receiver) -> (f32, f32) {
        match to {
            Receiver::Head(l, h, site) => {
                let side = match site {
                    Site::Q => -9.0,
                    Site::K => 0.0,
                    _ => 9.0,
                };
                let (x, y) = self.from(Sender::Head(l, h));
                (x + side, y)
            }
            Receiver::Mlp(l) => self.from(Sender::Mlp(l)),
            Receiver::Logits => (self.middle(), Self::row(1 + 2 * self.config.n_layer)),
        }
    }
}

/// The edges as an SVG: the width of a line is the magnitude of its score, red raises the metric and blue lowers it
/// when corrupted. Queries arrive left at a head, keys in the middle, values right.
pub fn svg(edges: &[Edge], config: &Config, title: &str) -> String {
    let column = ((WIDTH - 2.0 * MARGIN - 60.0) / config.n_head as f32).clamp(COLUMN.1, COLUMN.0);
    let layout = Layout { config, column };
    let (width, height) = (layout.width().max(620.0), layout.height());
    let most = edges.iter().map(|edge| edge.score.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\"/>\n\
         <text x=\"{MARGIN}\" y=\"{MARGIN}\" fill=\"{INK}\" font-size=\"13\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"{}\" fill=\"{DIM}\">width: |score|, at most {}; if corrupted, \
         <tspan fill=\"{POSITIVE}\">red raises</tspan> and <tspan fill=\"{NEGATIVE}\">blue lowers</tspan> the logit \
         difference</text>\n\
         <text x=\"{MARGIN}\" y=\"{}\" fill=\"{DIM}\">into a head: queries left, keys middle, values right</text>\n",
        MARGIN + 17.0,
        num(most as f32),
        MARGIN + 33.0,
        title = escaped(title),
    );
    // The weakest first, so that the strongest is on top.
    for edge in edges.iter().rev() {
        let ((x, y), (to_x, to_y)) = (layout.from(edge.from), layout.to(edge.to));
        let (y, to_y) = (y + 9.0, to_y - 9.0);
        let bend = ((to_y - y) / 2.0).max(12.0);
        let share = (edge.score.abs() / most) as f32;
        let color = if edge.score < 0.0 { NEGATIVE } else { POSITIVE };
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {y:.1}C{x:.1} {:.1} {to_x:.1} {:.1} {to_x:.1} {to_y:.1}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"{:.2}\" stroke-opacity=\"{:.2}\"><title>{} → {}: {}</title></path>",
            y + bend,
            to_y - bend,
            (LINE * share).max(0.5),
            0.35 + 0.5 * share,
            edge.from,
            edge.to,
            num(edge.score as f32),
        );
    }
    nodes(&mut out, &layout, edges);
    out.push_str("</svg>\n");
    out
}

/// The components, those without an edge as dots.
fn nodes(out: &mut String, layout: &Layout, edges: &[Edge]) {
    let config = layout.config;
    let sends = |from: Sender| edges.iter().any(|edge| edge.from == from);
    let mut node = |(x, y): (f32, f32), name: &str, used: bool, wide: f32| {
        let _ = if used {
            writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{wide}\" height=\"18\" rx=\"4\" fill=\"{PAPER}\" stroke=\"{INK}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{INK}\">{name}</text>",
                x - wide / 2.0,
                y - 9.0,
                y + 4.0,
            )
        } else {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\" fill=\"{DIM}\"/>")
        };
    };
    node(layout.from(Sender::Input), "embeddings", sends(Sender::Input), 84.0);
    for l in 0..config.n_layer {
        for h in 0..config.n_head {
            let receives =
                |edge: &Edge| matches!(edge.to, Receiver::Head(layer, head, _) if (layer, head) == (l, h));
            let used = sends(Sender::Head(l, h)) || edges.iter().any(receives);
            node(layout.from(Sender::Head(l, h)), &format!("{l}.{h}"), used, 28.0);
        }
        let used = sends(Sender::Mlp(l)) || edges.iter().any(|edge| edge.to == Receiver::Mlp(l));
        node(layout.from(Sender::Mlp(l)), &format!("MLP {l}"), used, 52.0);
    }
    node(layout.to(Receiver::Logits), "logits", edges.iter().any(|edge| edge.to == Receiver::Logits), 60.0);
    for l in 0..config.n_layer {
        let y = Layout::row(1 + 2 * l) + 4.0;
        let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{y:.1}\" fill=\"{DIM}\">block {l}</text>");
    }
}

fn escaped(text: &str) -> String {
    plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_and_its_ends_are_drawn() {
        let config = Config { n_layer: 2, n_head: 3, ..Config::gpt2() };
        let edge = |from, to, score| Edge { from, to, score };
        let edges = [
            edge(Sender::Input, Receiver::Head(0, 1, Site::K), -2.0),
            edge(Sender::Head(0, 1), Receiver::Mlp(0), 1.0),
            edge(Sender::Mlp(0), Receiver::Logits, 0.5),
        ];
        let drawn = svg(&edges, &config, "a <b> & c");
        assert_eq!(drawn.matches("<path").count(), 3);
        assert!(drawn.contains("head:0.1 → mlp:0: 1") && drawn.contains("a &lt;b&gt; &amp; c"));
        for name in ["embeddings", ">0.1<", ">MLP 0<", ">logits<"] {
            assert!(drawn.contains(name), "{name}");
        }
        // The strongest is last, and the widest.
        assert!(
            drawn.rfind(NEGATIVE).unwrap() > drawn.rfind(POSITIVE).unwrap()
                && drawn.contains("stroke-width=\"7.00\"")
        );
        assert!(svg(&[], &config, "").contains("<circle"));
    }
}
