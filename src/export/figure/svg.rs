//! A figure as SVG.

use std::fmt::Write;

use base64::prelude::{BASE64_STANDARD, Engine};
use unicode_width::UnicodeWidthStr;

use super::png::{encode, text_widths};
use super::{Figure, labelled, shorten};
use crate::picture::chart::Labels;
use crate::picture::colormap::{BROKEN, is_light};
use crate::picture::{Matrix, Paint, Picture};
use crate::text::{fit, plain};

const MARGIN: f32 = 24.0;
/// The space shared by the panels: what fits on a page.
const AREA: (f32, f32) = (960.0, 640.0);
/// The same for several panels, which need more.
const AREA_OF_HEADS: (f32, f32) = (1000.0, 860.0);
/// The width if the cells contain words.
const AREA_OF_TEXTS: f32 = 1920.0;
/// The maximum characters of a cell's words, and the approximate width of each.
const TEXT_CHARS: usize = 12;
const TEXT_CHAR: f32 = 5.6;
/// The space between panels.
const GAP: f32 = 18.0;
const PANEL_TITLE: f32 = 18.0;
/// Font size and line height of labels.
const LABEL: f32 = 10.0;
const LABEL_LINE: f32 = 12.0;
/// Token labels are cut to this many characters.
const LABEL_CHARS: usize = 18;

/// Colours of everything around the picture.
struct Ink {
    paper: &'static str,
    text: &'static str,
    dim: &'static str,
    line: &'static str,
}

const LIGHT: Ink = Ink { paper: "#ffffff", text: "#1b1f24", dim: "#656d76", line: "#c4cad1" };
const DARK: Ink = Ink { paper: "#101216", text: "#e6e8eb", dim: "#9aa3ad", line: "#3a404a" };

/// The number of values per cell, and the size of cells.
#[derive(Debug, Clone, Copy)]
struct Cells {
    per_cell: (usize, usize),
    height: f32,
    width: f32,
}

impl Cells {
    /// The largest cells with which `matrix` fits into `area` (width, height).
    fn fit(matrix: &Matrix, area: (f32, f32), square: bool, texts: &[String]) -> Self {
        let axis = |n: usize, room: f32, largest: f32| {
            let per_cell = (n as f32 / room).ceil().max(1.0) as usize;
            // Half units are whole pixels in a PNG.
            let size = (room / n.div_ceil(per_cell) as f32 * 2.0).floor() / 2.0;
            (per_cell, size.clamp(1.0, largest))
        };
        if square {
            let (per_cell, size) = axis(matrix.n_rows.max(matrix.n_columns), area.0.min(area.1), 44.0);
            return Self { per_cell: (per_cell, per_cell), height: size, width: size };
        }
        // Few columns leave room for their numbers.
        let widest = if matrix.n_columns <= 20 { 44.0 } else { 16.0 };
        let longest = texts.iter().map(|text| text.width()).max().unwrap_or(0).min(TEXT_CHARS);
        let widest = (longest as f32 * TEXT_CHAR + 6.0).max(widest);
        let (rows, height) = axis(matrix.n_rows, area.1, 22.0);
        let (columns, width) = axis(matrix.n_columns, area.0, widest);
        Self { per_cell: (rows, columns), height, width }
    }
}

/// The labels of one axis: indices with their names, and the largest width.
struct Ticks {
    step: usize,
    labels: Vec<(usize, String)>,
    widest: f32,
}

impl Ticks {
    /// Labels for `n` indices that are `pitch` units apart, with `room` units for each label.
    fn new(labels: &Labels, n: usize, pitch: f32, room: f32) -> Self {
        let (step, shown) = labelled(n, (room / pitch - 0.01).ceil() as usize);
        let text = |i: usize| shorten(&labels.get(i), LABEL_CHARS);
        let labels: Vec<_> = shown.map(|i| (i, text(i))).collect();
        let widths = text_widths(labels.iter().map(|(_, text)| (text.as_str(), LABEL, false)));
        Self { step, labels, widest: widths.into_iter().fold(0.0, f32::max) }
    }
}

pub(super) fn draw(figure: &Figure) -> String {
    Drawing::new(figure).draw()
}

/// The layout.
struct Drawing<'a> {
    figure: &'a Figure,
    ink: &'static Ink,
    cells: Cells,
    /// Panels side by side.
    across: usize,
    panels: Vec<Picture>,
    rows: Ticks,
    columns: Ticks,
    /// Column labels are vertical, for lack of space.
    upright: bool,
    svg: String,
}

impl<'a> Drawing<'a> {
    fn new(figure: &'a Figure) -> Self {
        let n = figure.panels.len();
        let across = panels_across(n);
        let down = n.div_ceil(across);
        let share = |room: f32, n: usize, gap: f32| (room - gap * (n - 1) as f32) / n as f32;
        let area = if n == 1 {
            AREA
        } else {
            let (width, height) = AREA_OF_HEADS;
            (share(width, across, GAP), share(height, down, GAP + PANEL_TITLE))
        };
        let matrix = &figure.panels[0];
        let area = if figure.texts.is_empty() { area } else { (AREA_OF_TEXTS, area.1) };
        let cells = Cells::fit(matrix, area, figure.square, &figure.texts);
        let pitch = (cells.height / cells.per_cell.0 as f32, cells.width / cells.per_cell.1 as f32);

        let rows = Ticks::new(&figure.rows, matrix.n_rows, pitch.0, LABEL_LINE);
        let tokens_across = figure.columns.is_named();
        let mut columns = Ticks::new(
            &figure.columns,
            matrix.n_columns,
            pitch.1,
            if tokens_across { LABEL_LINE } else { 44.0 },
        );
        let upright = tokens_across && columns.widest + 6.0 > pitch.1;
        if figure.columns.noun == "value" {
            columns.labels.clear(); // a single column does not need a number
        }
        Self {
            figure,
            ink: if figure.options.dark { &DARK } else { &LIGHT },
            cells,
            across,
            panels: (0..n).map(|panel| figure.picture(panel, cells.per_cell)).collect(),
            rows,
            columns,
            upright,
            svg: String::new(),
        }
    }

    fn draw(mut self) -> String {
        let figure = self.figure;
        let ink = self.ink;
        let down = self.panels.len().div_ceil(self.across);
        let title_of_panel = if self.panels.len() > 1 { PANEL_TITLE } else { 0.0 };
        let panel = (
            self.cells.width * self.panels[0].grid.n_columns as f32,
            self.cells.height * self.panels[0].grid.n_rows as f32,
        );

        // From top to bottom: words, labels, panels, legend, footer.
        let left = self.left();
        let header = if figure.formula.is_empty() { 40.0 } else { 56.0 };
        let top = MARGIN + header + 22.0 + self.labels_height() + title_of_panel;
        let panels_width = self.across as f32 * (panel.0 + GAP) - GAP;
        let bottom = top + down as f32 * (panel.1 + GAP + title_of_panel) - GAP - title_of_panel;
        let legend_top = bottom + 20.0;
        let (words, legend_width) = self.legend_words();
        let legend_height = 30f32.max(words.len() as f32 * 15.0);
        let height = legend_top + legend_height + 18.0 + 12.0 + MARGIN;
        let width =
            (left + panels_width).max(MARGIN + self.header_width()).max(MARGIN + legend_width) + MARGIN;
        let (width, height) = (width.ceil(), height.ceil());

        let _ = write!(
            self.svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="'DejaVu Sans', Verdana, sans-serif" font-size="{LABEL}" fill="{}">
<title>{}</title>
<desc>{}</desc>
<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M-1.5,1.5 l3,-3 M0,6 l6,-6 M4.5,7.5 l3,-3" stroke="{}" stroke-width="1"/></pattern></defs>
<rect width="{width}" height="{height}" fill="{}"/>
"#,
            ink.text,
            escaped(&figure.title),
            escaped(&format!("{} {}. {}", figure.subtitle, figure.doc, figure.footer)),
            ink.line,
            ink.paper,
        );
        self.header();
        self.axis_names(left, top, panel, panels_width, title_of_panel, bottom);
        for i in 0..self.panels.len() {
            let (row, column) = (i / self.across, i % self.across);
            let x = left + column as f32 * (panel.0 + GAP);
            let y = top + row as f32 * (panel.1 + GAP + title_of_panel);
            if self.panels.len() > 1 {
                let above = if row == 0 { 8.0 + self.labels_height() } else { 6.0 };
                self.text(x, y - above, r#"font-weight="bold""#, ink.text, &format!("head {i}"));
            }
            self.heatmap(i, x, y, panel);
            if column == 0 {
                self.row_labels(x - 6.0, y);
            }
            if row == 0 {
                self.column_labels(x, y - 6.0);
            }
        }
        self.legend(legend_top, &words);
        let line = height - MARGIN - 16.0;
        let _ = writeln!(
            self.svg,
            r#"<path d="M{MARGIN},{line} H{}" stroke="{}" stroke-width="0.5"/>"#,
            width - MARGIN,
            ink.line
        );
        self.text(MARGIN, height - MARGIN, r#"font-size="9""#, ink.dim, &figure.footer);
        self.svg + "</svg>\n"
    }

    /// The left edge of the panels: after the margin, the axis name, indices and labels.
    fn left(&self) -> f32 {
        MARGIN + 18.0 + self.index_width() + self.rows.widest + 6.0
    }

    fn labels_height(&self) -> f32 {
        match self.columns.labels.len() {
            0 => 0.0,
            _ if self.upright => self.columns.widest + 4.0,
            _ => LABEL + 4.0,
        }
    }

    /// Room for the indices before token labels.
    fn index_width(&self) -> f32 {
        if !self.figure.rows.indexed {
            return 0.0;
        }
        let last = self.rows.labels.last().map_or(0, |(i, _)| *i).to_string();
        text_widths([(last.as_str(), LABEL, false)])[0] + 8.0
    }

    fn header_width(&self) -> f32 {
        let f = self.figure;
        let [title, subtitle, doc, formula, footer] = text_widths([
            (f.title.as_str(), 15.0, true),
            (&f.subtitle, 11.0, false),
            (&f.doc, 11.0, false),
            (&f.formula, 11.0, false),
            (&f.footer, 9.0, false),
        ])[..] else {
            unreachable!("one width per label")
        };
        (title + 12.0 + subtitle).max(doc).max(formula + 12.0).max(footer)
    }

    fn header(&mut self) {
        let (f, ink) = (self.figure, self.ink);
        let title_width = text_widths([(f.title.as_str(), 15.0, true)])[0];
        let mut y = MARGIN + 12.0;
        self.text(MARGIN, y, r#"font-size="15" font-weight="bold""#, ink.text, &f.title);
        self.text(MARGIN + title_width + 12.0, y, r#"font-size="11""#, ink.dim, &f.subtitle);
        y += 20.0;
        self.text(MARGIN, y, r#"font-size="11""#, ink.text, &f.doc);
        if !f.formula.is_empty() {
            self.text(MARGIN, y + 16.0, r#"font-size="11""#, ink.dim, &format!("= {}", f.formula));
        }
    }

    fn axis_names(&mut self, left: f32, top: f32, panel: (f32, f32), width: f32, title: f32, bottom: f32) {
        let ink = self.ink;
        let (rows, columns) = (self.figure.rows.noun, self.figure.columns.noun);
        let x = if self.across == 1 { left + panel.0 / 2.0 } else { left + width / 2.0 };
        let y = top - title - 8.0 - self.labels_height();
        let middle = top.midpoint(bottom);
        // The name of a narrow column begins where the column does.
        let (x, anchor) = if panel.0 < 60.0 && self.across == 1 { (left, "start") } else { (x, "middle") };
        self.text(x, y, &format!(r#"text-anchor="{anchor}""#), ink.dim, columns);
        let turned = format!(r#"text-anchor="middle" transform="rotate(-90 {} {middle})""#, MARGIN + 9.0);
        self.text(MARGIN + 9.0, middle, &turned, ink.dim, rows);
    }

    fn row_labels(&mut self, right: f32, top: f32) {
        let ink = self.ink;
        let named = self.figure.rows.is_named();
        let index_right = right - self.rows.widest - 8.0;
        for (i, label) in &self.rows.labels.clone() {
            let y = top + ((i / self.cells.per_cell.0) as f32 + 0.5) * self.cells.height + LABEL * 0.36;
            self.text(right, y, r#"text-anchor="end""#, if named { ink.text } else { ink.dim }, label);
            if self.figure.rows.indexed {
                self.text(index_right, y, r#"text-anchor="end""#, ink.dim, &i.to_string());
            }
        }
    }

    fn column_labels(&mut self, left: f32, bottom: f32) {
        let ink = self.ink;
        let color = if self.figure.columns.is_named() { ink.text } else { ink.dim };
        for (i, label) in &self.columns.labels.clone() {
            let x = left + ((i / self.cells.per_cell.1) as f32 + 0.5) * self.cells.width;
            let place = if self.upright {
                let x = x + LABEL * 0.36;
                format!(r#"transform="rotate(-90 {x} {bottom})""#)
            } else {
                r#"text-anchor="middle""#.to_owned()
            };
            let x = if self.upright { x + LABEL * 0.36 } else { x };
            self.text(x, bottom, &place, color, label);
        }
    }

    fn heatmap(&mut self, index: usize, x: f32, y: f32, (width, height): (f32, f32)) {
        let ink = self.ink;
        let picture = &self.panels[index];
        if picture.paints().any(|paint| paint == Paint::Masked) {
            let _ = writeln!(
                self.svg,
                r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="url(#hatch)"/>"#
            );
        }
        let map = self.figure.colormap();
        let pixel = |paint| map.color(paint).map_or([0; 4], |[r, g, b]| [r, g, b, 255]);
        let rgba: Vec<u8> = picture.paints().flat_map(pixel).collect();
        let n = (picture.grid.n_columns, picture.grid.n_rows);
        self.image(&rgba, n, (x, y), (width, height));
        let _ = writeln!(
            self.svg,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{}" stroke-width="0.75"/>"#,
            ink.line
        );
        if self.cells.per_cell == (1, 1) && self.cells.width >= 36.0 && self.cells.height >= 12.0 {
            self.numbers(index, (x, y));
        }
    }

    /// The text in a cell; words are cut to its width.
    fn cell_text(&self, picture: &Picture, row: usize, column: usize) -> String {
        let text = self.figure.cell_text(picture, row, column);
        let room = ((self.cells.width - 4.0) / TEXT_CHAR) as usize;
        if self.figure.texts.is_empty() { text } else { fit(&text, room.max(1)) }
    }

    /// The values themselves, if all fit their cells.
    fn numbers(&mut self, index: usize, (left, top): (f32, f32)) {
        let picture = &self.panels[index];
        let n = picture.grid.n_columns;
        let texts: Vec<_> = picture
            .paints()
            .enumerate()
            .filter(|(_, paint)| *paint != Paint::Masked)
            .map(|(i, paint)| (i / n, i % n, paint, self.cell_text(picture, i / n, i % n)))
            .collect();
        let widths = text_widths(texts.iter().map(|(_, _, _, text)| (text.as_str(), 9.0, false)));
        if widths.into_iter().any(|width| width + 3.0 > self.cells.width) {
            return;
        }
        for (row, column, paint, text) in texts {
            let dark = self.figure.colormap().color(paint).is_some_and(|color| !is_light(color));
            let x = left + (column as f32 + 0.5) * self.cells.width;
            let y = top + (row as f32 + 0.5) * self.cells.height + 3.2;
            let color = if dark { "#ffffff" } else { "#000000" };
            self.text(x, y, r#"text-anchor="middle" font-size="9""#, color, &text);
        }
    }

    /// The text next to the colour bar, line by line, and the total size of bar and text.
    fn legend_words(&self) -> (Vec<String>, f32) {
        let notes = self.figure.notes(self.cells.per_cell, (self.rows.step, self.columns.step));
        let lines = vec![notes.join(" · "), self.figure.summary().join(" · ")];
        let widest = text_widths(lines.iter().map(|line| (line.as_str(), LABEL, false)));
        let swatches = self.swatches().len() as f32 * SWATCH;
        (lines, BAR + 24.0 + widest.into_iter().fold(0.0, f32::max) + swatches)
    }

    /// Marks in the picture that are not colours of the bar.
    fn swatches(&self) -> Vec<(String, &'static str)> {
        let [r, g, b] = BROKEN;
        let masked = self.figure.mask_note().map(|note| ("url(#hatch)".to_owned(), note));
        let broken = (self.figure.stats.broken > 0).then(|| (format!("rgb({r},{g},{b})"), "NaN or inf"));
        masked.into_iter().chain(broken).collect()
    }

    fn legend(&mut self, top: f32, words: &[String]) {
        let ink = self.ink;
        let map = self.figure.colormap();
        let rgba: Vec<u8> = (0..256u16)
            .flat_map(|i| {
                let [r, g, b] = map.at(f32::from(i) / 255.0);
                [r, g, b, 255]
            })
            .collect();
        self.image(&rgba, (256, 1), (MARGIN, top), (BAR, 12.0));
        let _ = writeln!(
            self.svg,
            r#"<rect x="{MARGIN}" y="{top}" width="{BAR}" height="12" fill="none" stroke="{}" stroke-width="0.75"/>"#,
            ink.line
        );
        let labels = self.figure.bar_labels();
        for (label, (at, anchor)) in labels.iter().zip([(0.0, "start"), (0.5, "middle"), (1.0, "end")]) {
            let place = format!(r#"text-anchor="{anchor}""#);
            self.text(MARGIN + at * BAR, top + 25.0, &place, ink.text, label);
        }
        let mut x = MARGIN + BAR + 24.0;
        for (fill, name) in self.swatches() {
            let _ = writeln!(
                self.svg,
                r#"<rect x="{x}" y="{top}" width="18" height="12" fill="{fill}" stroke="{}" stroke-width="0.75"/>"#,
                ink.line
            );
            self.text(x, top + 25.0, "", ink.text, name);
            x += SWATCH;
        }
        for (i, line) in words.iter().enumerate() {
            self.text(x, top + 10.0 + i as f32 * 15.0, "", if i == 0 { ink.text } else { ink.dim }, line);
        }
    }

    /// A picture of `n` (columns, rows) pixels, stretched without smoothing.
    fn image(&mut self, rgba: &[u8], n: (usize, usize), at: (f32, f32), size: (f32, f32)) {
        let png = encode(rgba, n.0 as u32, n.1 as u32, png::ColorType::Rgba);
        let _ = writeln!(
            self.svg,
            r#"<image x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{}"/>"#,
            at.0,
            at.1,
            size.0,
            size.1,
            BASE64_STANDARD.encode(png)
        );
    }

    fn text(&mut self, x: f32, y: f32, attributes: &str, color: &str, text: &str) {
        let space = if attributes.is_empty() { "" } else { " " };
        let _ = writeln!(
            self.svg,
            r#"<text x="{x}" y="{y}"{space}{attributes} fill="{color}">{}</text>"#,
            escaped(text)
        );
    }
}

/// Width of the colour bar.
const BAR: f32 = 200.0;
/// Width of a legend entry: a swatch with its name.
const SWATCH: f32 = 118.0;

/// Panels per row: a divisor that makes the whole no taller than wide, if there is one.
fn panels_across(n: usize) -> usize {
    let root = (n as f64).sqrt().ceil() as usize;
    (root..=8).find(|across| n.is_multiple_of(*across)).unwrap_or(root)
}

/// Text escaped for XML; characters that XML cannot represent become `U+FFFD`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
