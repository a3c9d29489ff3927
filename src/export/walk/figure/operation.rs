//! An operation: its matrices, the rows and columns that take part, a magnifier over a row.

use super::{Drawing, GUTTER, INNER, LINE, MARGIN};
use crate::analysis::ViewSource;
use crate::analysis::walk::{Line, Operand, Piece, label};
use crate::error::Result;
use crate::export::walk::canvas::{Anchor, Face};
use crate::export::walk::shape;
use crate::export::walk::tile::{of_row, ranges, strip, tile};
use crate::hooks::{Axis, Quantity};
use crate::picture::Picture;
use crate::picture::grid::Pooling;
use crate::picture::range::Range;
use crate::text::{printed, short};

/// Between operands that no sign parts.
const GAP: f32 = 14.0;
const SIGN: f32 = 30.0;
/// A single number.
const NUMBER: f32 = 90.0;
const STRIP: f32 = 14.0;
/// The height that matrices share, and that of a matrix that a row is picked from.
const TALL: f32 = 150.0;
const TALLER: f32 = 216.0;
/// Cells of a matrix are no smaller, of weights neither.
const LEAST_CELL: f32 = 3.0;
const LEAST_WEIGHT: f32 = 4.0;
/// Nor larger: wide, high.
const LARGEST_CELL: (f32, f32) = (22.0, 16.0);

/// An operand, laid out but not placed.
struct Laid<'a> {
    operand: &'a Operand,
    shape: String,
    /// The matrix, and how large it is.
    matrix: Option<(Picture, (f32, f32))>,
    /// The row or column of it that takes part, or the vector.
    strip: Option<Picture>,
    values: String,
    captions: Vec<String>,
    /// With the gutter.
    width: f32,
}

impl Laid<'_> {
    fn cells_width(&self) -> f32 {
        self.matrix.as_ref().map_or(self.width - GUTTER, |(_, size)| size.0)
    }
}

impl<'a> Drawing<'a> {
    fn lay(
        &self,
        operand: &'a Operand,
        range: &Range,
        room: f32,
        tall: f32,
        zoomed: bool,
    ) -> Result<Laid<'a>> {
        let cells = room - GUTTER;
        let weight = operand.view.is_some_and(|view| view.source.is_weight());
        let least = if weight { LEAST_WEIGHT } else { LEAST_CELL };
        let matrix = match operand.view {
            Some(view) => {
                let (n_rows, n_columns) = view.dims(self.run);
                let square = view.axes() == (Axis::Pos, Axis::Key);
                let (rows, height) = fit_cells(n_rows, tall, least, LARGEST_CELL.1);
                let (columns, width) = fit_cells(n_columns, cells, least, LARGEST_CELL.0);
                // Rows and columns that count the same are drawn alike.
                let (per_cell, size) = if square {
                    ((rows.max(columns), rows.max(columns)), [width.min(height); 2])
                } else {
                    ((rows, columns), [width, height])
                };
                let tile = tile(self.run, view, range, per_cell)?;
                let size = (size[0] * tile.grid.n_columns as f32, size[1] * tile.grid.n_rows as f32);
                Some((tile, size))
            }
            None => None,
        };
        let cells = matrix.as_ref().map_or(cells, |(_, size)| size.0);
        let (per_cell, _) = fit_cells(operand.values.len(), cells, least, f32::INFINITY);
        let (range, first_query) = of_row(operand, range);
        let strip = (zoomed && !operand.shape.is_empty())
            .then(|| strip(&operand.values, range, per_cell, first_query))
            .transpose()?;
        let shape = shape(&operand.shape);
        let words = Face::NAME.width(&operand.name).max(Face::DIM.width(&shape));
        let most = room - GUTTER;
        let width = cells.max(words).max(if zoomed { 116f32.min(most) } else { 0.0 }).min(most);
        let captions = match operand.view {
            Some(view) if view.source == ViewSource::Mask => vec![label("mask").to_owned()],
            _ => captions(matrix.as_ref().map(|(tile, _)| tile), strip.as_ref()),
        };
        let captioned = captions.iter().map(|text| Face::DIM.width(text)).fold(0.0, f32::max).ceil();
        let width = width.max(captioned).min(most);
        Ok(Laid {
            operand,
            shape,
            matrix,
            strip,
            values: ends(&operand.values, if zoomed { width } else { 0.0 }),
            captions: joined(&captions, width),
            width: width + GUTTER,
        })
    }

    pub(super) fn operation(&mut self) -> Result<()> {
        let parts = &self.page.parts;
        let share = |part: &Piece| match part {
            Piece::Sign(_) => 0.0,
            Piece::Operand(operand) if operand.shape.is_empty() => 0.0,
            Piece::Operand(operand) if operand.view.is_none() => 0.8,
            Piece::Operand(_) => 1.0,
        };
        let gap = |i: usize| match parts.get(i + 1) {
            Some(Piece::Operand(_)) if matches!(parts[i], Piece::Operand(_)) => GAP,
            _ => 0.0,
        };
        let fixed = |part: &Piece| match part {
            Piece::Sign(_) => SIGN,
            Piece::Operand(operand) if operand.shape.is_empty() => NUMBER,
            Piece::Operand(_) => 0.0,
        };
        let taken: f32 = parts.iter().enumerate().map(|(i, part)| fixed(part) + gap(i)).sum();
        let unit = (INNER - taken) / parts.iter().map(share).sum::<f32>();
        let mut ranges = ranges(self.run, self.page)?.into_iter();
        let mut laid = Vec::new();
        for part in parts {
            laid.push(match part {
                Piece::Sign(_) => None,
                Piece::Operand(operand) => {
                    let range = ranges.next().expect("there is one for each operand");
                    let room = fixed(part) + share(part) * unit;
                    Some(self.lay(operand, &range, room, TALL, true)?)
                }
            });
        }
        let widths =
            laid.iter().zip(parts).map(|(laid, part)| laid.as_ref().map_or(fixed(part), |laid| laid.width));
        let widths: Vec<f32> = widths.collect();
        let whole: f32 = widths.iter().enumerate().map(|(i, width)| width + gap(i)).sum();
        let mut x = MARGIN + ((INNER - whole) / 2.0).max(0.0);
        let top = self.y;
        let band = parts
            .iter()
            .any(|part| matches!(part, Piece::Operand(o) if o.band.is_some() || o.column.is_some()));
        let zone = top + 2.0 * LINE + if band { 16.0 } else { 8.0 };
        let height =
            laid.iter().flatten().filter_map(|laid| Some(laid.matrix.as_ref()?.1.1)).fold(STRIP, f32::max);
        let mut bottom = zone;
        for (i, part) in parts.iter().enumerate() {
            match (part, &laid[i]) {
                (Piece::Operand(_), Some(laid)) => {
                    bottom = self.place(laid, (x, top), (zone, height)).max(bottom);
                }
                (Piece::Sign(sign), _) => {
                    let at = (x + SIGN / 2.0, zone + height / 2.0 + 8.0);
                    // A product of numbers is a small dot in words.
                    self.canvas.text(at, Face::SIGN, Anchor::Middle, if *sign == "·" { "∙" } else { sign });
                }
                _ => {}
            }
            x += widths[i] + gap(i);
        }
        self.y = bottom;
        Ok(())
    }

    /// Draws an operand; returns where it ends.
    fn place(&mut self, laid: &Laid<'_>, (left, top): (f32, f32), (zone, height): (f32, f32)) -> f32 {
        let operand = laid.operand;
        let (x, room) = (left + GUTTER, laid.width - GUTTER);
        self.canvas.text((x, top + 14.0), Face::NAME, Anchor::Start, &Face::NAME.fit(&operand.name, room));
        self.canvas.text((x, top + 14.0 + LINE), Face::DIM, Anchor::Start, &Face::DIM.fit(&laid.shape, room));
        if operand.shape.is_empty() {
            let value = operand.values.first().map_or_else(String::new, |x| printed(*x));
            self.canvas.text((x, zone + height / 2.0 + 5.0), Face::NAME, Anchor::Start, &value);
            return zone + height;
        }
        let strip_top = zone + height + if laid.matrix.is_some() { 22.0 } else { 0.0 };
        let mut y = strip_top + STRIP;
        if let Some((tile, size)) = &laid.matrix {
            let at = (x, zone + (height - size.1) / 2.0);
            let hatch = self.hatch.clone();
            self.canvas.picture(tile, at, *size, &hatch);
            let picked = self.marks(operand, tile, at, *size);
            if let (Some((from, to)), Some(strip)) = (picked, &laid.strip) {
                for (from, to) in [(from, x), (to, x + size.0)] {
                    self.canvas.line(&[from, (to, strip_top)], "f", 0.75);
                }
                self.canvas.picture(strip, (x, strip_top), (size.0, STRIP), &hatch);
                self.canvas.rect((x, strip_top), (size.0, STRIP), "f", r#"stroke-width="1""#);
            }
        } else {
            let at = (x, zone + (height - STRIP) / 2.0);
            if let Some(strip) = &laid.strip {
                let hatch = self.hatch.clone();
                self.canvas.picture(strip, at, (laid.cells_width(), STRIP), &hatch);
            }
            y = zone + height + 22.0 + STRIP;
        }
        let marked = operand.row.is_some() || operand.column.is_some();
        let face = if marked { Face::MARKED } else { Face::TEXT };
        y += LINE - 1.0;
        self.canvas.text((x, y), face, Anchor::Start, &laid.values);
        for caption in &laid.captions {
            y += LINE;
            self.canvas.text((x, y), Face::DIM, Anchor::Start, caption);
        }
        y + 4.0
    }

    /// Marks the row, the column and the head's columns of a matrix; returns the lower corners of
    /// what is drawn again below it.
    fn marks(
        &mut self,
        operand: &Operand,
        tile: &Picture,
        (x, y): (f32, f32),
        (width, height): (f32, f32),
    ) -> Option<((f32, f32), (f32, f32))> {
        let canvas = &mut self.canvas;
        let cell = (width / tile.grid.n_columns as f32, height / tile.grid.n_rows as f32);
        let column_at = |column: usize| x + (column / tile.grid.per_cell.1) as f32 * cell.0;
        let mut picked = None;
        if let Some((first, end)) = operand.band {
            let (from, to) = (column_at(first), column_at(end - 1) + cell.0);
            canvas.line(&[(from, y - 3.0), (from, y - 7.0), (to, y - 7.0), (to, y - 3.0)], "f", 1.25);
        }
        if let Some(column) = operand.column {
            let left = column_at(column);
            canvas.arrow((left + cell.0 / 2.0, y - 2.0), true);
            if operand.row.is_none() {
                canvas.rect(
                    (left - 1.0, y - 1.0),
                    (cell.0 + 2.0, height + 2.0),
                    "f",
                    r#"stroke-width="1.25""#,
                );
                let bottom = y + height + 1.0;
                picked = Some(((left - 1.0, bottom), (left + cell.0 + 1.0, bottom)));
            }
        }
        if let Some(row) = operand.row {
            let top = y + (row / tile.grid.per_cell.0) as f32 * cell.1;
            canvas.arrow((x - 2.0, top + cell.1 / 2.0), false);
            canvas.rect((x - 1.0, top - 1.0), (width + 2.0, cell.1 + 2.0), "f", r#"stroke-width="1.25""#);
            let bottom = top + cell.1 + 1.0;
            picked = Some(((x - 0.5, bottom), (x + width + 0.5, bottom)));
        }
        picked
    }

    /// A row picked from a matrix, under a magnifier, and where it goes.
    pub(super) fn lookup(&mut self) -> Result<()> {
        const FROM: f32 = 170.0;
        const LENS_LEFT: f32 = 46.0;
        const TO: f32 = 196.0;
        let operands: Vec<_> = self.page.operands().collect();
        let [from, to] = operands[..] else { return self.operation() };
        let ranges = ranges(self.run, self.page)?;
        let from = self.lay(from, &ranges[0], FROM, TALLER, false)?;
        let to = self.lay(to, &ranges[1], TO, TALL, true)?;
        let lens = (INNER - from.width - LENS_LEFT - SIGN - to.width).min(440.0);
        let left = MARGIN + (INNER - from.width - LENS_LEFT - lens - SIGN - to.width) / 2.0;
        let (top, zone) = (self.y, self.y + 2.0 * LINE + 8.0);
        let lines = &self.page.magnifier;
        let row = LINE + STRIP + LINE + 12.0;
        let lens_height = lines.len() as f32 * row + 8.0;
        let height = from.matrix.as_ref().map_or(0.0, |(_, size)| size.1).max(lens_height);

        let x = left + GUTTER;
        self.canvas.text((x, top + 14.0), Face::NAME, Anchor::Start, &from.operand.name);
        self.canvas.text((x, top + 14.0 + LINE), Face::DIM, Anchor::Start, &from.shape);
        let lens_at = (left + from.width + LENS_LEFT, zone + (height - lens_height) / 2.0);
        let mut bottom = zone + height;
        if let Some((tile, size)) = &from.matrix {
            let at = (x, zone + (height - size.1) / 2.0);
            let hatch = self.hatch.clone();
            self.canvas.picture(tile, at, *size, &hatch);
            if let Some((_, (right, low))) = self.marks(from.operand, tile, at, *size) {
                let high = low - size.1 / tile.grid.n_rows as f32 - 2.0;
                for (y, corner) in [(high, lens_at.1), (low, lens_at.1 + lens_height)] {
                    self.canvas.line(&[(right + 0.5, y), (lens_at.0, corner)], "f", 0.75);
                }
            }
            for (i, caption) in from.captions.iter().enumerate() {
                let y = at.1 + size.1 + 1.0 + (i + 1) as f32 * LINE;
                self.canvas.text((x, y), Face::DIM, Anchor::Start, caption);
                bottom = bottom.max(y + 4.0);
            }
        }
        self.lens(lines, lens_at, (lens, lens_height), row)?;
        let x = lens_at.0 + lens;
        let sign = self.page.parts.iter().find_map(|part| match part {
            Piece::Sign(sign) => Some(*sign),
            Piece::Operand(_) => None,
        });
        let middle = zone + height / 2.0;
        self.canvas.text(
            (x + SIGN / 2.0, middle + 8.0),
            Face::SIGN,
            Anchor::Middle,
            sign.unwrap_or_default(),
        );
        // As high as its row is in the middle of the lens.
        let body = to.matrix.as_ref().map_or(0.0, |(_, size)| size.1);
        let below = 22.0 + STRIP + LINE * (1 + to.captions.len()) as f32;
        let own = (middle - f32::midpoint(body, below)).max(top + 2.0 * LINE + 8.0);
        bottom = self.place(&to, (x + SIGN, own - 2.0 * LINE - 8.0), (own, body)).max(bottom);
        self.y = bottom;
        Ok(())
    }

    /// Rows of a matrix in a frame, the middle one marked.
    fn lens(&mut self, lines: &[Line], at: (f32, f32), size: (f32, f32), row: f32) -> Result<()> {
        self.canvas.rect(at, size, "f", r#"stroke-width="1.5" rx="6""#);
        let all: Vec<f32> = lines.iter().flat_map(|line| line.values.iter().copied()).collect();
        let range = Range::of(&all);
        let (x, room) = (at.0 + 14.0, size.0 - 28.0);
        let mut caption = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            let top = at.1 + 4.0 + i as f32 * row;
            if line.marked {
                self.canvas.rect((at.0 + 1.0, top), (size.0 - 2.0, row), "w", "");
                self.canvas.arrow((x - 3.0, top + 13.0), false);
            }
            let (name, values) =
                if line.marked { (Face::MARKED_TOKEN, Face::MARKED) } else { (Face::TOKEN, Face::TEXT) };
            let label = name.fit(&line.label, room - 4.0);
            self.canvas.text((x + 4.0, top + 18.0), name, Anchor::Start, &label);
            let (per_cell, _) = fit_cells(line.values.len(), room, LEAST_CELL, f32::INFINITY);
            let strip = strip(&line.values, range.clone(), per_cell, None)?;
            let hatch = self.hatch.clone();
            self.canvas.picture(&strip, (x, top + 25.0), (room, STRIP), &hatch);
            self.canvas.text(
                (x, top + 25.0 + STRIP + 16.0),
                values,
                Anchor::Start,
                &ends(&line.values, room),
            );
            if line.marked {
                caption = joined(&captions(None, Some(&strip)), room);
            }
        }
        for (i, line) in caption.iter().enumerate() {
            let y = at.1 + size.1 + (i + 1) as f32 * LINE;
            self.canvas.text((x, y), Face::DIM, Anchor::Start, line);
        }
        Ok(())
    }
}

/// How many of `n` values share a cell, and how large cells are, in `room`.
fn fit_cells(n: usize, room: f32, least: f32, largest: f32) -> (usize, f32) {
    let per_cell = (n as f32 * least / room).ceil().max(1.0) as usize;
    (per_cell, (room / n.div_ceil(per_cell).max(1) as f32).min(largest))
}

/// Where the colours end, and how many values share a cell.
fn captions(matrix: Option<&Picture>, strip: Option<&Picture>) -> Vec<String> {
    let end = |range: &Range| match range.quantity {
        Quantity::Signed => format!("±{}", printed(range.limit)),
        _ => format!("0 … {}", printed(range.limit)),
    };
    let size = |tile: &Picture| format!("{}×{}", tile.grid.per_cell.0, tile.grid.per_cell.1);
    let mut lines = Vec::new();
    let pooled = |tile: &Picture, how: &str| {
        (tile.grid.per_cell != (1, 1)).then(|| format!("{how} of {}", size(tile)))
    };
    match (matrix, strip) {
        // A weight matrix has a range of its own, that of its means.
        (Some(matrix), strip) if matrix.grid.pooling == Pooling::Mean => {
            lines.extend(strip.map(|strip| end(&strip.range)));
            let mean = pooled(matrix, "mean").map(|mean| format!("{mean}: {}", end(&matrix.range)));
            lines.push(mean.unwrap_or_else(|| end(&matrix.range)));
            lines.dedup();
        }
        (Some(tile), _) | (None, Some(tile)) => {
            lines.push(end(&tile.range));
            let beyond = tile.range.beyond;
            lines.extend((beyond > 0).then(|| format!("{beyond} beyond")));
            lines.extend(pooled(tile, "max"));
        }
        (None, None) => {}
    }
    lines
}

/// Captions in as few lines as `room` allows, broken after a colon where one alone is too wide.
fn joined(captions: &[String], room: f32) -> Vec<String> {
    let fits = |text: &String| Face::DIM.width(text) <= room;
    let mut lines: Vec<String> = Vec::new();
    for caption in captions {
        let longer = lines.last().map(|line| format!("{line}, {caption}"));
        if let Some(longer) = longer.filter(fits) {
            lines.pop();
            lines.push(longer);
        } else if let Some((head, rest)) = caption.split_once(": ").filter(|_| !fits(caption)) {
            lines.extend([format!("{head}:"), rest.to_owned()].map(|text| Face::DIM.fit(&text, room)));
        } else {
            lines.push(Face::DIM.fit(caption, room));
        }
    }
    lines
}

/// The first and last of `values`, as many as `room` takes; one of each with fewer digits rather
/// than a single one.
fn ends(values: &[f32], room: f32) -> String {
    let fits = |text: &String| Face::TEXT.width(text) <= room;
    let all: Vec<_> = values.iter().map(|x| printed(*x)).collect();
    let some = |all: &[String], n: usize| {
        let (first, last) = (&all[..n.div_ceil(2)], &all[all.len() - n / 2..]);
        [first, &["…".to_owned()], last].concat().join(" ")
    };
    // No number is narrower than this.
    let most = (room / 9.0) as usize;
    if all.len() <= most && fits(&all.join(" ")) {
        return all.join(" ");
    }
    let fewer: Vec<_> = values.iter().map(|x| short(*x, 5).replace('-', "−")).collect();
    let mut texts = (2..all.len().min(most + 1)).rev().map(|n| some(&all, n));
    texts
        .find(fits)
        .or_else(|| (1..=all.len().min(2)).rev().map(|n| some(&fewer, n)).find(fits))
        .unwrap_or_default()
}
