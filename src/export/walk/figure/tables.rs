//! What stands below an operation: tables with bars, the graph of the activation function.

use super::{Drawing, GUTTER, INNER, LINE, MARGIN, WIDTH};
use crate::analysis::walk::{Cell, Curve, Table};
use crate::export::walk::canvas::{Anchor, Face};
use crate::export::walk::excerpt;
use crate::text::printed;

/// A row of a table.
const ROW: f32 = 22.0;

impl Drawing<'_> {
    /// Tables beside each other, one of the columns of each as bars too.
    pub(super) fn bars(&mut self, tables: &[&Table]) {
        const BETWEEN: f32 = 30.0;
        const WIDEST: f32 = 620.0;
        let n = tables.len() as f32;
        let width = ((INNER - BETWEEN * (n - 1.0)) / n).min(WIDEST);
        let top = self.y;
        let left = (WIDTH - n * width - BETWEEN * (n - 1.0)) / 2.0;
        for (i, table) in tables.iter().enumerate() {
            let x = left + i as f32 * (width + BETWEEN);
            self.table(table, (x, top), width);
        }
    }

    fn table(&mut self, table: &Table, (left, top): (f32, f32), width: f32) {
        const APART: f32 = 16.0;
        let title = Face::NAME.fit(&table.title, width);
        self.canvas.text((left, top + 14.0), Face::NAME, Anchor::Start, &title);
        let shown = excerpt(table.rows.len(), table.rows.iter().position(|row| row.marked).unwrap_or(0), 24);
        let rows = &table.rows[shown];
        let text = |cell: &Cell| match cell {
            Cell::Number(x) => printed(*x),
            Cell::Count(n) => n.to_string(),
            Cell::Text(text) => text.clone(),
        };
        let column = |i: usize| rows.iter().map(move |row| row.cells.get(i).map(text).unwrap_or_default());
        let widest = |words: &mut dyn Iterator<Item = String>| {
            words.map(|text| Face::TEXT.width(&text)).fold(0.0, f32::max)
        };
        let n_columns = table.columns.len() - 1;
        let label_width =
            widest(&mut rows.iter().map(|row| row.label.clone()).chain([table.columns[0].clone()]));
        let label_width = label_width.min(0.36 * width);
        let mut x = left + GUTTER + label_width + APART;
        let mut places = Vec::new();
        for i in 0..n_columns {
            let wide = widest(&mut column(i).chain([table.columns[i + 1].clone()])).min(0.3 * width);
            places.push((x, wide));
            x += wide + APART;
        }
        let bars = (x, left + width - x);
        let mut y = top + 14.0 + LINE + 4.0;
        let head = Face::DIM.fit(&table.columns[0], label_width);
        self.canvas.text((left + GUTTER, y), Face::DIM, Anchor::Start, &head);
        let is_text = |i: usize| {
            rows.iter().any(|row| matches!(row.cells.get(i), Some(Cell::Text(text)) if !text.is_empty()))
        };
        for (i, (x, wide)) in places.iter().enumerate() {
            let (at, anchor) = if is_text(i) { (*x, Anchor::Start) } else { (x + wide, Anchor::End) };
            self.canvas.text((at, y), Face::DIM, anchor, &Face::DIM.fit(&table.columns[i + 1], *wide));
        }
        // Where other numbers stand between, the bars say again what they are of.
        if let Some(bar) = table.bar.filter(|bar| bar + 1 < n_columns) {
            let name = Face::DIM.fit(&table.columns[bar + 1], bars.1);
            self.canvas.text((bars.0, y), Face::DIM, Anchor::Start, &name);
        }
        y += 8.0;
        let values: Vec<Option<f32>> = rows
            .iter()
            .map(|row| match row.cells.get(table.bar?)? {
                Cell::Number(x) if x.is_finite() => Some(*x),
                _ => None,
            })
            .collect();
        let low = values.iter().flatten().copied().fold(0.0, f32::min);
        let high = values.iter().flatten().copied().fold(0.0, f32::max);
        let unit = if high > low { bars.1 / (high - low) } else { 0.0 };
        let zero = bars.0 - low * unit;
        let rows_top = y;
        for (row, value) in rows.iter().zip(&values) {
            let face = if row.marked { Face::MARKED } else { Face::TEXT };
            if row.marked {
                self.canvas.rect((left, y), (width, ROW), "w", r#"rx="3""#);
            }
            let base = y + 15.5;
            self.canvas.text((left + GUTTER, base), face, Anchor::Start, &face.fit(&row.label, label_width));
            for (i, (x, wide)) in places.iter().enumerate() {
                let words = row.cells.get(i).map(text).unwrap_or_default();
                if words.is_empty() {
                    continue;
                }
                let (at, anchor) = if is_text(i) { (*x, Anchor::Start) } else { (x + wide, Anchor::End) };
                self.canvas.text((at, base), face, anchor, &face.fit(&words, *wide));
            }
            if let Some(value) = value {
                let (from, long) =
                    if *value < 0.0 { (zero + value * unit, -value * unit) } else { (zero, value * unit) };
                let class = if *value < 0.0 { "n" } else { "p" };
                self.canvas.rect((from, y + 5.0), (long.max(0.5), ROW - 10.0), class, "");
            }
            y += ROW;
        }
        if unit > 0.0 {
            self.canvas.line(&[(zero, rows_top), (zero, y)], "l", 1.0);
        }
        let hidden = table.rows.len() - rows.len();
        if hidden > 0 {
            y += 15.0;
            self.canvas.text((left + GUTTER, y), Face::DIM, Anchor::Start, &format!("… {hidden} more"));
        }
        self.y = self.y.max(y);
    }

    /// The graph of the activation function, with a dot for each neuron.
    pub(super) fn curve(&mut self, curve: &Curve) {
        const HEIGHT: f32 = 200.0;
        let (left, right, top) = (MARGIN + 60.0, WIDTH - MARGIN - 60.0, self.y);
        let finite =
            || curve.line.iter().chain(&curve.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let fold = |f: fn(f32, f32) -> f32, of: fn(&(f32, f32)) -> f32| finite().map(of).fold(0.0, f);
        let (x0, x1) = (fold(f32::min, |p| p.0), fold(f32::max, |p| p.0));
        let (y0, y1) = (fold(f32::min, |p| p.1), fold(f32::max, |p| p.1));
        let (wide, high) = ((x1 - x0).max(f32::MIN_POSITIVE), (y1 - y0).max(f32::MIN_POSITIVE));
        let at = |(x, y): (f32, f32)| {
            (left + (x - x0) / wide * (right - left), top + HEIGHT - (y - y0) / high * HEIGHT)
        };
        let (zero_x, zero_y) = at((0.0, 0.0));
        self.canvas.line(&[(left, zero_y), (right, zero_y)], "l", 1.0);
        self.canvas.line(&[(zero_x, top), (zero_x, top + HEIGHT)], "l", 1.0);
        let line: Vec<_> = curve.line.iter().filter(|p| p.1.is_finite()).map(|p| at(*p)).collect();
        self.canvas.line(&line, "l", 2.0);
        let mut dots: Vec<_> =
            curve.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()).map(|p| at(*p)).collect();
        dots.sort_by(|a, b| a.0.total_cmp(&b.0));
        dots.dedup_by(|a, b| (a.0 - b.0).abs() < 0.3 && (a.1 - b.1).abs() < 0.3);
        self.canvas.dots(&dots, "o");
        let names: Vec<_> = self.page.operands().map(|operand| operand.name.clone()).collect();
        let below = top + HEIGHT + 20.0;
        self.canvas.text((left, below), Face::DIM, Anchor::Start, &printed(x0));
        self.canvas.text((right, below), Face::DIM, Anchor::End, &printed(x1));
        if let [x, y] = &names[..] {
            self.canvas.text((left.midpoint(right), below), Face::DIM, Anchor::Middle, &format!("{x} →"));
            self.canvas.text((zero_x + 8.0, top + 12.0), Face::DIM, Anchor::Start, &format!("↑ {y}"));
        }
        self.canvas.text((zero_x - 8.0, top + 12.0), Face::DIM, Anchor::End, &printed(y1));
        self.y = below + 4.0;
    }
}
