//! A figure as lines of text for a terminal.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::{Figure, labelled};
use crate::picture::colormap::{Depth, MASKED, Rgb, glyph, is_light, nearest_of_16, nearest_of_256};
use crate::picture::{Paint, Picture};
use crate::text::{fit, pad};

/// Up to this many rows get a line and a label each; more share lines in pairs.
const SINGLE_LINES: usize = 40;
/// More rows than this are pooled.
const MAX_ROWS: usize = 400;
const LABEL_COLUMNS: usize = 14;
/// The width of a cell in which its value can be printed.
const NUMBER_COLUMNS: usize = 7;
/// The same for words: the width of the longest, between these two.
const LEAST_TEXT: usize = 4;
const TEXT_COLUMNS: usize = 12;

const GREY: Rgb = [128, 128, 128];

pub(super) fn draw(figure: &Figure, width: usize, colors: Depth) -> String {
    let layout = Layout::new(figure, width, colors);
    let mut out = String::new();
    let words = [&figure.title, &figure.subtitle, &figure.doc];
    for text in words {
        wrap(&mut out, text.split(' '), " ", width);
    }
    if !figure.formula.is_empty() {
        wrap(&mut out, format!("= {}", figure.formula).split(' '), " ", width);
    }
    for (i, matrix) in figure.panels.iter().enumerate() {
        out.push('\n');
        if figure.panels.len() > 1 {
            let _ = writeln!(out, "head {i}");
        }
        layout.column_labels(&mut out, figure, matrix.n_columns);
        layout.heatmap(&mut out, figure, &figure.picture(i, layout.per_cell), colors);
    }
    out.push('\n');
    color_bar(&mut out, figure, width, colors);
    let row_step = layout.per_cell.0 * if layout.two_rows { 2 } else { 1 };
    // Columns are labelled by number, whatever they count.
    let mut notes = figure.notes(layout.per_cell, (row_step, 1));
    notes.extend(figure.mask_note().map(|note| format!("{MASKED} {note}")));
    wrap(&mut out, notes.iter().map(String::as_str), " · ", width);
    wrap(&mut out, figure.summary().iter().map(String::as_str), " · ", width);
    wrap(&mut out, figure.footer.split(" · "), " · ", width);
    out
}

struct Layout {
    per_cell: (usize, usize),
    /// Terminal columns of a cell.
    cell: usize,
    /// Values or words are printed in the cells.
    printed: bool,
    /// Two rows of the grid per line.
    two_rows: bool,
    /// Terminal columns of the row labels.
    label: usize,
    /// Digits of the largest row index.
    digits: usize,
}

impl Layout {
    fn new(figure: &Figure, width: usize, colors: Depth) -> Self {
        let (n_rows, n_columns) = (figure.panels[0].n_rows, figure.panels[0].n_columns);
        let index_alone = !figure.rows.is_named() || figure.rows.indexed;
        let digits = if index_alone { (n_rows - 1).to_string().len() } else { 0 };
        let longest = figure.rows.names.iter().map(|name| name.width()).max().unwrap_or(0);
        // At least the width of the axis name.
        let least = (figure.rows.noun.width() + 1).saturating_sub(digits);
        let label = longest.min(LABEL_COLUMNS).max(least).min(width / 3);
        let room = width.saturating_sub(digits + 1 + label + 1).max(1);
        let columns_per_cell = n_columns.div_ceil(room);
        let n_cells = n_columns.div_ceil(columns_per_cell);
        let rows_per_cell = n_rows.div_ceil(MAX_ROWS).max(if figure.square { columns_per_cell } else { 1 });
        // Glyphs cannot be split in halves.
        let two_rows = n_rows > SINGLE_LINES && colors != Depth::Mono;
        let texts = figure.texts.iter().map(|text| text.width() + 1).max().map(|n| n.min(TEXT_COLUMNS));
        let wanted = texts.unwrap_or(NUMBER_COLUMNS);
        let single = (rows_per_cell, columns_per_cell) == (1, 1);
        let least = if texts.is_some() { wanted.min(LEAST_TEXT) } else { wanted };
        let printed = room / n_cells >= least && !two_rows;
        let cell = match room / n_cells {
            n if printed => n.min(wanted),
            // A character is twice as tall as wide.
            n if figure.square => n.clamp(1, if two_rows { 1 } else { 2 }),
            n => n.clamp(1, 4),
        };
        let printed = printed && single;
        Self { per_cell: (rows_per_cell, columns_per_cell), cell, printed, two_rows, label, digits }
    }

    fn margin(&self) -> usize {
        self.digits + 1 + self.label + 1
    }

    /// The names of the axes, and a number over every few columns.
    fn column_labels(&self, out: &mut String, figure: &Figure, n: usize) {
        let (rows, columns) = (figure.rows.noun, figure.columns.noun);
        let margin = self.margin();
        let pitch = self.cell as f64 / self.per_cell.1 as f64;
        let fits = if self.cell >= 4 { 1 } else { (8.0 / pitch).ceil() as usize };
        let (_, shown) = labelled(n, fits);
        let at = |i: usize| margin + i / self.per_cell.1 * self.cell;

        let name = format!("{columns} →");
        let rows = if rows.width() + 2 < margin { format!("{rows} ↓") } else { "↓".into() };
        let _ = writeln!(out, "{rows:<margin$}{name}");
        if columns == "value" {
            return;
        }
        let mut line = String::new();
        for i in shown {
            let named = figure.columns.names.get(i).filter(|_| self.cell >= NUMBER_COLUMNS);
            let centred = |name: &String| format!("{:^n$}", fit(name, self.cell - 1), n = self.cell);
            let label = named.map_or_else(|| i.to_string(), centred);
            let gap = at(i).saturating_sub(line.width());
            let _ = write!(line, "{:gap$}{label}", "");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }

    fn heatmap(&self, out: &mut String, figure: &Figure, picture: &Picture, colors: Depth) {
        for row in (0..picture.grid.n_rows).step_by(if self.two_rows { 2 } else { 1 }) {
            let first = row * self.per_cell.0;
            let name = figure.rows.names.get(first).map_or("", String::as_str);
            let digits = self.digits;
            let index = if digits > 0 { format!("{first:>digits$}") } else { String::new() };
            let _ = write!(out, "{index} {} ", pad(name, self.label));
            let mut pen = Pen::new(out, colors);
            for column in 0..picture.grid.n_columns {
                if self.two_rows {
                    let [upper, lower] =
                        [row, row + 1].map(|row| figure.colormap().color(picture.paint(row, column)));
                    (0..self.cell).for_each(|_| pen.halves(upper, lower));
                } else {
                    self.cell(&mut pen, figure, picture, (row, column));
                }
            }
            pen.end();
        }
    }

    /// A cell with a line to itself.
    fn cell(&self, pen: &mut Pen<'_>, figure: &Figure, picture: &Picture, (row, column): (usize, usize)) {
        let paint = picture.paint(row, column);
        let paper = figure.colormap().color(paint);
        let ink = paper.map_or(GREY, |paper| if is_light(paper) { [0; 3] } else { [255; 3] });
        let text = match paint {
            Paint::Masked => MASKED.repeat(self.cell),
            _ if self.printed => fit(&figure.cell_text(picture, row, column), self.cell),
            _ if pen.colors == Depth::Mono => paint.glyph(figure.range.signed()).repeat(self.cell),
            _ => String::new(),
        };
        let before = self.cell.saturating_sub(text.width()) / 2;
        for c in pad(&format!("{}{text}", " ".repeat(before)), self.cell).chars() {
            pen.put((c != ' ').then_some(ink), paper, c.encode_utf8(&mut [0; 4]));
        }
    }
}

/// The scale of colours or glyphs between its ends.
fn color_bar(out: &mut String, figure: &Figure, width: usize, colors: Depth) {
    let [low, middle, high] = figure.bar_labels();
    let length = width.saturating_sub(low.width() + high.width() + 2).clamp(1, 40);
    let _ = write!(out, "{low} ");
    let mut pen = Pen::new(out, colors);
    for i in 0..length {
        let x = i as f32 / (length.max(2) - 1) as f32;
        match colors {
            Depth::Mono => pen.put(None, None, glyph(x, figure.range.signed())),
            _ => pen.put(None, Some(figure.colormap().at(x)), " "),
        }
    }
    pen.reset();
    let _ = writeln!(out, " {high}");
    if !middle.is_empty() && length >= 12 {
        let at = low.width() + 1 + length / 2;
        let _ = writeln!(out, "{middle:>at$}");
    }
}

/// Writes coloured characters, with escape sequences only where colours change.
pub(crate) struct Pen<'a> {
    out: &'a mut String,
    colors: Depth,
    ink: Option<Rgb>,
    paper: Option<Rgb>,
}

impl<'a> Pen<'a> {
    pub fn new(out: &'a mut String, colors: Depth) -> Self {
        Self { out, colors, ink: None, paper: None }
    }

    pub fn put(&mut self, ink: Option<Rgb>, paper: Option<Rgb>, text: &str) {
        if self.colors != Depth::Mono && (ink, paper) != (self.ink, self.paper) {
            self.out.push_str("\x1b[0");
            for (plane, color) in [(38, ink), (48, paper)] {
                match (color, self.colors) {
                    (None, _) => {}
                    (Some(rgb), Depth::Indexed) => {
                        let _ = write!(self.out, ";{plane};5;{}", nearest_of_256(rgb));
                    }
                    (Some(rgb), Depth::Sixteen) => {
                        let _ = write!(self.out, ";{plane};5;{}", nearest_of_16(rgb));
                    }
                    (Some([r, g, b]), _) => {
                        let _ = write!(self.out, ";{plane};2;{r};{g};{b}");
                    }
                }
            }
            self.out.push('m');
            (self.ink, self.paper) = (ink, paper);
        }
        self.out.push_str(text);
    }

    /// Two cells in one character; if one is masked, only the other has a colour.
    fn halves(&mut self, upper: Option<Rgb>, lower: Option<Rgb>) {
        match (upper, lower) {
            (Some(_), _) => self.put(upper, lower, "▀"),
            (None, Some(_)) => self.put(lower, None, "▄"),
            (None, None) => self.put(Some(GREY), None, MASKED),
        }
    }

    pub fn reset(&mut self) {
        if (self.ink, self.paper) != (None, None) {
            self.put(None, None, "");
        }
    }

    fn end(mut self) {
        self.reset();
        self.out.push('\n');
    }
}

/// Joins parts by `separator`, or by a line break where `width` is reached.
fn wrap<'a>(out: &mut String, parts: impl Iterator<Item = &'a str>, separator: &str, width: usize) {
    let mut used = 0;
    for (i, part) in parts.enumerate() {
        let n = part.width();
        if i > 0 {
            let breaks = used + separator.width() + n > width;
            out.push_str(if breaks { "\n" } else { separator });
            used = if breaks { 0 } else { used + separator.width() };
        }
        out.push_str(part);
        used += n;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_the_width() {
        let mut out = String::new();
        wrap(&mut out, ["aaa", "bb", "cccc"].into_iter(), " · ", 8);
        assert_eq!(out, "aaa · bb\ncccc\n");
    }
}
