//! An operation on matrices, its operands side by side: A × B = C.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use crate::analysis::View;
use crate::analysis::walk::{Kind, Operand, Page, Piece};
use crate::engine::{Look, Map, Slot};
use crate::picture::grid::Pooling;
use crate::picture::range::{Range, RangeMode};
use crate::run::Run;
use crate::tui::app::App;
use crate::tui::screens::shape;
use crate::tui::text::{fit, num, put, put_line};
use crate::tui::theme::Theme;
use crate::tui::widgets::heatmap::{self, Form, Plot, Zoom};
use crate::tui::widgets::row_strip;

/// Columns of a sign and the blanks around it.
const SIGN: u16 = 3;
/// Least columns of an operand, and those of a single number.
const LEAST: u16 = 9;

/// Whether a step is about one head.
pub fn in_head(kind: Kind) -> bool {
    use Kind::{Heads, Mask, Scale, Scores, Softmax, Z};
    matches!(kind, Heads | Scores | Scale | Mask | Softmax | Z)
}

/// What stands above and below the cells of operands that are drawn side by side.
#[derive(Clone, Copy)]
pub struct Frame {
    /// A line for the marks of columns.
    marks: bool,
    /// Lines of values.
    values: u16,
    caption: bool,
}

impl Frame {
    /// For operands of at least `width` columns.
    pub fn new(page: &Page, width: u16, height: u16) -> Self {
        let narrow = width < 18;
        Self {
            marks: page.operands().any(|operand| operand.column.is_some() || operand.band.is_some()),
            values: 1 + u16::from(height >= 11 || (narrow && height >= 7)),
            caption: height >= 6,
        }
    }
}

/// An operand in its place.
pub struct Drawn<'a> {
    pub operand: &'a Operand,
    area: Rect,
    /// Where its values are printed, below it.
    values: Rect,
    /// What the colours are, below that; empty where there is no room.
    caption: Rect,
    /// Where its cells are.
    cells: Rect,
    /// How its matrix is laid out, if it has one.
    plot: Option<Plot>,
}

impl<'a> Drawn<'a> {
    /// An operand over all of `area`: name, marks, cells, values, caption.
    pub fn new(app: &App, run: &Run, operand: &'a Operand, area: Rect, frame: Frame) -> Self {
        let line = |y: u16, height: u16| Rect {
            y: y.min(area.bottom()),
            height: height.min(area.bottom().saturating_sub(y)),
            ..area
        };
        let top = area.y + 1 + u16::from(frame.marks);
        let bottom = area.bottom().saturating_sub(frame.values + u16::from(frame.caption)).max(area.y);
        let cells = Rect {
            x: area.x + 1,
            width: area.width.saturating_sub(1),
            y: top,
            height: bottom.saturating_sub(top),
        };
        let plot = operand.view.map(|view| {
            Plot::new(cells, view.dims(run), Zoom::default(), Form::new(view.axes().1, app.theme))
        });
        // Right under the cells.
        let end = plot.as_ref().map_or(middle(cells) + 1, |plot| plot.covered().bottom());
        let values = line(end.clamp(top.min(bottom), bottom), frame.values);
        Self { operand, area, values, caption: line(values.bottom(), u16::from(frame.caption)), cells, plot }
    }

    /// What to ask the engine for.
    pub fn look(&self, app: &App) -> Option<Look> {
        let (pooling, range) = shown(app, self.operand.view?);
        Some(self.plot.as_ref()?.look(self.operand.view?, pooling, range))
    }

    /// The row and column of the matrix at a place.
    pub fn hit(&self, x: u16, y: u16) -> Option<(usize, usize)> {
        self.plot.as_ref()?.hit(x, y)
    }

    /// The line of the screen where the marked row is.
    pub fn line(&self) -> Option<u16> {
        self.plot.as_ref()?.line_of(self.operand.row?)
    }

    /// The first column right of the cells.
    pub fn right(&self) -> u16 {
        self.plot.as_ref().map_or(self.area.right(), |plot| plot.covered().right())
    }

    pub fn draw(&self, map: Option<&Map>, theme: Theme, buffer: &mut Buffer) {
        let Self { operand, area, cells, .. } = self;
        put_line(buffer, Rect { height: 1.min(area.height), ..*area }, &self.header(theme));
        let width = usize::from(area.width.saturating_sub(1));
        match (&self.plot, map) {
            (Some(plot), Some(map)) => {
                heatmap::draw_map(buffer, plot, map, theme, None);
                self.mark(plot, theme, buffer);
                if self.caption.height > 0 {
                    put(buffer, area.x + 1, self.caption.y, width as u16, &caption(map, width), theme.dim());
                }
            }
            (Some(plot), None) => {
                put(buffer, plot.area.x, plot.area.y, plot.area.width, "…", theme.dim());
            }
            (None, _) if operand.shape.is_empty() => {
                let text = operand.values.iter().map(|x| num(*x)).collect::<String>();
                put(buffer, cells.x, middle(*cells), cells.width, &text, theme.text());
                return;
            }
            (None, _) if cells.height > 0 => {
                let strip = Rect { y: middle(*cells), height: 1, ..*cells };
                let range = Range::of(&operand.values);
                row_strip::draw(buffer, strip, &operand.values, &range, Pooling::Extreme, theme);
            }
            _ => {}
        }
        let mark = match (operand.row, operand.column) {
            (Some(_), _) => "▸",
            (None, Some(_)) => "▾",
            _ => " ",
        };
        let style = if mark == " " { theme.text() } else { theme.accent() };
        let lines = ends(&operand.values, width, self.values.height.into());
        for (i, (text, y)) in lines.iter().zip(self.values.top()..self.values.bottom()).enumerate() {
            put(buffer, area.x, y, 1, if i == 0 { mark } else { " " }, theme.accent());
            put(buffer, area.x + 1, y, width as u16, text, style);
        }
    }

    /// Name and shape, as far as they fit.
    fn header(&self, theme: Theme) -> Vec<Span<'_>> {
        let Operand { name, shape: dims, .. } = self.operand;
        let room = usize::from(self.area.width).saturating_sub(name.width() + 2);
        let shape = shape(dims);
        let shape = [shape.clone(), shape.replace(' ', "")].into_iter().find(|s| s.width() <= room);
        let mut spans = vec![Span::styled(format!(" {name}"), theme.strong())];
        if let Some(shape) = shape.filter(|_| !dims.is_empty()) {
            spans.push(Span::styled(format!(" {shape}"), theme.dim()));
        }
        spans
    }

    /// Marks the row at the left, the column and the head's columns above.
    fn mark(&self, plot: &Plot, theme: Theme, buffer: &mut Buffer) {
        let above = plot.area.y.saturating_sub(1);
        if let Some(y) = self.line() {
            put(buffer, self.area.x, y, 1, "▸", theme.accent());
        }
        let right = |column: usize| Some(plot.columns_of(column)?.end.saturating_sub(1));
        if let Some((first, end)) = self.operand.band
            && let (Some(from), Some(to)) = (plot.column_of(first), right(end - 1))
        {
            let to = to.max(from).min(plot.area.right().saturating_sub(1));
            let line = match to - from {
                0 => "┬".to_owned(),
                n => format!("┌{}┐", "─".repeat(usize::from(n) - 1)),
            };
            put(buffer, from, above, plot.area.right().saturating_sub(from), &line, theme.accent());
        }
        if let Some(x) = self.operand.column.and_then(|column| plot.middle_column(column)) {
            put(buffer, x, above, 1, "▾", theme.accent());
        }
    }
}

/// How a matrix is pooled and coloured. So many weights make a cell of their small pictures that
/// only their mean tells cells apart.
fn shown(app: &App, view: View) -> (Pooling, RangeMode) {
    if view.source.is_weight() {
        return (Pooling::Mean, RangeMode::Shown);
    }
    let range = app.range_for(view.quantity());
    (app.pooling, if range == RangeMode::Row { RangeMode::Full } else { range })
}

/// What the colours of a map end at, how many values make a cell, how many are beyond; as much of
/// that as fits.
fn caption(map: &Map, width: usize) -> String {
    let limit = format!("{}{}", if map.range.signed() { "±" } else { "0…" }, num(map.range.limit));
    let (rows, columns) = map.grid.per_cell;
    let pooled = ((rows, columns) != (1, 1)).then(|| {
        let how = if map.grid.pooling == Pooling::Mean { "mean" } else { "max" };
        (format!(" · {rows}×{columns} {how}"), format!(" {rows}×{columns}"))
    });
    let (long, short) = pooled.unwrap_or_default();
    let beyond =
        if map.range.beyond > 0 { format!(" · {} beyond", map.range.beyond) } else { String::new() };
    let texts = [format!("{limit}{long}{beyond}"), format!("{limit}{long}"), format!("{limit}{short}")];
    texts.into_iter().find(|text| text.width() <= width).unwrap_or(limit)
}

/// The line in the middle of an area.
fn middle(area: Rect) -> u16 {
    area.y + area.height.saturating_sub(1) / 2
}

/// The first and last values, as many as fit on a line; on two lines, the first on one and the last
/// on the other.
pub fn ends(values: &[f32], width: usize, lines: usize) -> Vec<String> {
    let words: Vec<String> = values.iter().map(|x| num(*x)).collect();
    let whole = words.join(" ");
    if whole.width() <= width {
        return vec![whole];
    }
    let gather = |words: &mut dyn Iterator<Item = &String>, room: usize| {
        let mut used = 0;
        let fit = |word: &&String| {
            used += word.width() + 1;
            used <= room + 1
        };
        words.take_while(fit).cloned().collect::<Vec<_>>()
    };
    let (first_room, last_room) = match lines {
        0 | 1 => (width.saturating_sub(3).div_ceil(2), width.saturating_sub(3) / 2),
        _ => (width.saturating_sub(2), width.saturating_sub(2)),
    };
    let first = gather(&mut words.iter(), first_room).join(" ");
    let mut last = gather(&mut words.iter().rev(), last_room);
    last.reverse();
    match lines {
        0 | 1 if first.is_empty() || last.is_empty() => {
            vec![format!("{} …", fit(&words[0], width.saturating_sub(2)))]
        }
        0 | 1 => vec![format!("{first} … {}", last.join(" "))],
        _ => vec![format!("{first} …"), format!("… {}", last.join(" "))],
    }
}

/// Columns that the operation needs at least.
pub fn least_width(page: &Page) -> u16 {
    page.parts.iter().map(|part| if matches!(part, Piece::Sign(_)) { SIGN } else { LEAST }).sum()
}

/// The operation over `area`.
pub fn lay<'a>(app: &App, run: &Run, page: &'a Page, area: Rect) -> Vec<Drawn<'a>> {
    let places = places(page, area);
    let matrices = places.iter().filter(|(part, _)| matches!(part, Piece::Operand(o) if !o.shape.is_empty()));
    let narrowest = matrices.map(|(_, place)| place.width).min().unwrap_or(0);
    let frame = Frame::new(page, narrowest, area.height);
    places
        .into_iter()
        .filter_map(|(part, place)| match part {
            Piece::Operand(operand) => Some(Drawn::new(app, run, operand, place, frame)),
            Piece::Sign(_) => None,
        })
        .collect()
}

/// The parts of the operation and their places: as wide as each other, but for single numbers.
fn places<'a>(page: &'a Page, area: Rect) -> Vec<(&'a Piece, Rect)> {
    let is_number = |part: &&Piece| matches!(part, Piece::Operand(o) if o.shape.is_empty());
    let numbers = page.parts.iter().filter(is_number).count() as u16;
    let signs = page.parts.iter().filter(|part| matches!(part, Piece::Sign(_))).count() as u16;
    let operands = (page.parts.len() as u16).saturating_sub(signs + numbers).max(1);
    let wide = area.width.saturating_sub(signs * SIGN + numbers * LEAST) / operands;
    let mut x = area.x;
    let mut place = |part: &'a Piece| {
        let width = match part {
            Piece::Sign(_) => SIGN,
            Piece::Operand(operand) if operand.shape.is_empty() => LEAST,
            Piece::Operand(_) => wide,
        };
        let rect = Rect { x, width, ..area };
        x += width;
        (part, rect.intersection(area))
    };
    page.parts.iter().map(&mut place).collect()
}

pub fn draw(app: &App, run: &Run, page: &Page, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let operands = lay(app, run, page, area);
    for (i, drawn) in operands.iter().enumerate() {
        let map = app.map(Slot::Operand(i)).filter(|map| Some(map.view) == drawn.operand.view);
        drawn.draw(map, theme, buffer);
    }
    let Some(middle) = operands.first().map(|drawn| middle(drawn.cells)) else { return };
    for (part, place) in places(page, area) {
        if let Piece::Sign(sign) = part {
            put(buffer, place.x + 1, middle, 1, sign, theme.strong());
        }
    }
}
