//! A matrix as coloured half-blocks: two rows of cells per line of the terminal.

use std::ops::{Range, RangeInclusive};

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use crate::analysis::View;
use crate::engine::{Look, Map};
use crate::hooks::{Axis, Quantity};
use crate::picture::colormap::{BROKEN, MASKED, glyph};
use crate::picture::grid::{Pooling, Window};
use crate::picture::range::RangeMode;
use crate::picture::{Paint, Picture};
use crate::text::count;
use crate::tui::text::{fit, num, put, put_line, write_num};
use crate::tui::theme::{Depth, Theme};

/// The width of a printed number, and the minimum width of a cell that contains one.
const NUMBER: usize = 9;

/// The layout of a matrix in an area: which part is shown, how many values make a cell, and the size of a
/// cell. Drawing, requests to the engine and mouse positions all use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// Where cells are drawn.
    pub area: Rect,
    pub window: Window,
    /// Values per cell: rows, columns.
    pub per_cell: (usize, usize),
    /// The half-lines and columns that the cells share, as evenly as they can.
    pub extent: (usize, usize),
    /// Rows start on whole lines.
    pub whole_lines: bool,
    /// Whether each cell holds one value and its number.
    pub numbers: bool,
}

/// The visible part of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zoom {
    /// Each step halves the window.
    pub level: u8,
    /// The first row and column of the window.
    pub origin: (usize, usize),
}

/// The shape of the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// Roughly square.
    pub square: bool,
    /// One row per line: glyphs, unlike colours, cannot be split in halves.
    pub whole_lines: bool,
    /// Numbers are printed where there is room for all of them.
    pub numbers: bool,
}

impl Form {
    /// For a matrix whose columns count `columns`, in the colours of `theme`.
    pub fn new(columns: Axis, theme: Theme) -> Self {
        Self { square: columns == Axis::Key, whole_lines: theme.depth == Depth::Mono, numbers: false }
    }

    #[must_use]
    pub fn with_numbers(self) -> Self {
        Self { numbers: true, ..self }
    }
}

impl Plot {
    /// Lays out a matrix of `dims` rows and columns so that its cells fill `area`, or the largest square in it.
    pub fn new(area: Rect, dims: (usize, usize), zoom: Zoom, form: Form) -> Self {
        let (width, lines) = (usize::from(area.width), usize::from(area.height));
        let (n_rows, n_columns) = dims;
        if width == 0 || lines == 0 || n_rows == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let side = width.min(2 * lines);
        let (wide, high) = if form.square { (side, side.div_ceil(2)) } else { (width, lines) };
        // Zooming ends when every value has room for its number.
        let level = u32::from(zoom.level.min(31));
        let visible = |n: usize, room: usize| n.div_ceil(1 << level).max(room.clamp(1, n));
        let rows = visible(n_rows, high);
        let columns = visible(n_columns, wide / NUMBER);
        let numbers = form.numbers && rows <= high && columns * NUMBER <= wide;
        let from = |origin: usize, len: usize, n: usize| {
            let start = origin.min(n - len);
            start..start + len
        };
        let window = Window {
            rows: from(zoom.origin.0, rows, n_rows),
            columns: from(zoom.origin.1, columns, n_columns),
        };
        let whole_lines = form.whole_lines || numbers;
        let most_rows = if whole_lines { high } else { 2 * high };
        let mut per_cell = (rows.div_ceil(most_rows), columns.div_ceil(wide));
        let mut extent = (2 * high, wide);
        if form.square && !numbers {
            let pooled = per_cell.0.max(per_cell.1);
            per_cell = (pooled, pooled);
            // As high as wide on the eye, whatever part of the map is shown.
            let (cells_down, cells_across) = (rows.div_ceil(pooled), columns.div_ceil(pooled));
            let most = cells_down.max(cells_across);
            // Cells of one size if they fill nearly as much.
            let side = if side / most * most * 4 >= side * 3 { side / most * most } else { side };
            extent = ((side * cells_down / most).max(1), (side * cells_across / most).max(1));
            if whole_lines {
                extent.0 = extent.0.next_multiple_of(2).max(2 * cells_down).min(2 * high);
            }
        }
        Self { area, window, per_cell, extent, whole_lines, numbers }
    }

    fn nothing(area: Rect) -> Self {
        let window = Window { rows: 0..0, columns: 0..0 };
        Self { area, window, per_cell: (1, 1), extent: (0, 0), whole_lines: false, numbers: false }
    }

    /// Lays out whole rows, one per line, with the one at `row` in the middle.
    pub fn lines(area: Rect, (n_rows, n_columns): (usize, usize), row: usize) -> Self {
        let (width, lines) = (usize::from(area.width), usize::from(area.height).min(n_rows));
        if width == 0 || lines == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let first = row.saturating_sub(lines / 2).min(n_rows - lines);
        Self {
            area,
            window: Window { rows: first..first + lines, columns: 0..n_columns },
            per_cell: (1, n_columns.div_ceil(width)),
            extent: (2 * lines, width),
            whole_lines: true,
            numbers: false,
        }
    }

    /// Lays out cells with words or numbers in `area`, each `wide` = (minimum, maximum) columns;
    /// if they do not fit, scrolls by half windows so that `selected` is visible.
    pub fn cells(area: Rect, dims: (usize, usize), wide: (u16, u16), selected: (usize, usize)) -> Self {
        let (n_rows, n_columns) = dims;
        let (lines, fits) = (usize::from(area.height), usize::from(area.width / wide.0.max(1)));
        if lines == 0 || fits == 0 || n_rows == 0 || n_columns == 0 {
            return Self::nothing(area);
        }
        let visible = |n: usize, fits: usize, at: usize| {
            let (len, half) = (fits.min(n), (fits / 2).max(1));
            let start = (at.min(n - 1) / half * half).saturating_sub(half / 2).min(n - len);
            start..start + len
        };
        let window = Window {
            rows: visible(n_rows, lines, selected.0),
            columns: visible(n_columns, fits, selected.1),
        };
        let across = usize::from(area.width).min(window.columns.len() * usize::from(wide.1));
        let extent = (2 * lines, across);
        Self { area, window, per_cell: (1, 1), extent, whole_lines: true, numbers: true }
    }

    /// The request to the engine for this plot.
    pub fn look(&self, view: View, pooling: Pooling, range: RangeMode) -> Look {
        Look::Map { view, window: self.window.clone(), per_cell: self.per_cell, pooling, range }
    }

    /// The level beyond which zooming changes nothing.
    pub fn deepest(area: Rect, dims: (usize, usize), form: Form) -> u8 {
        let fits = |level: &u8| {
            Self::new(area, dims, Zoom { level: *level, origin: (0, 0) }, form.with_numbers()).numbers
        };
        (0..=31).find(fits).unwrap_or(31)
    }

    /// The columns and lines covered by cells.
    pub fn covered(&self) -> Rect {
        let height = self.extent.0.div_ceil(2).min(self.area.height.into());
        let width = self.extent.1.min(self.area.width.into());
        Rect { width: width as u16, height: height as u16, ..self.area }
    }

    /// The cells down and across.
    fn n_cells(&self) -> (usize, usize) {
        let Window { rows, columns } = &self.window;
        (rows.len().div_ceil(self.per_cell.0), columns.len().div_ceil(self.per_cell.1))
    }

    /// The cell down that covers a half-line.
    fn down_at(&self, half: usize) -> usize {
        let n = self.n_cells().0;
        if self.whole_lines { shared(half / 2, self.extent.0 / 2, n) } else { shared(half, self.extent.0, n) }
    }

    /// The half-lines that a cell down covers.
    fn halves(&self, cell: usize) -> Range<usize> {
        let n = self.n_cells().0;
        if self.whole_lines {
            let lines = share(cell, self.extent.0 / 2, n);
            2 * lines.start..2 * lines.end
        } else {
            share(cell, self.extent.0, n)
        }
    }

    /// The row and column of the matrix at a position on the screen.
    pub fn hit(&self, x: u16, y: u16) -> Option<(usize, usize)> {
        if !self.covered().contains((x, y).into()) {
            return None;
        }
        let (n_down, n_across) = self.n_cells();
        let down = self.down_at(usize::from(y - self.area.y) * 2).min(n_down - 1);
        let across = shared(usize::from(x - self.area.x), self.extent.1, n_across);
        let row = self.window.rows.start + down * self.per_cell.0;
        let column = self.window.columns.start + across * self.per_cell.1;
        Some((row.min(self.window.rows.end - 1), column.min(self.window.columns.end - 1)))
    }

    /// The lines that the cell of a row touches.
    pub fn lines_of(&self, row: usize) -> Option<Range<u16>> {
        let halves = self.halves(place(row, &self.window.rows, self.per_cell.0)?);
        let line = |half: usize| self.area.y + half as u16;
        let lines = line(halves.start / 2)..line(halves.end.div_ceil(2));
        (lines.start < self.area.bottom()).then_some(lines)
    }

    /// The columns of the screen that the cell of a column covers.
    pub fn columns_of(&self, column: usize) -> Option<Range<u16>> {
        let columns =
            share(place(column, &self.window.columns, self.per_cell.1)?, self.extent.1, self.n_cells().1);
        let at = |x: usize| self.area.x + x as u16;
        (columns.start < self.area.width.into()).then(|| at(columns.start)..at(columns.end))
    }

    /// The line of the screen where a row of the matrix starts.
    pub fn line_of(&self, row: usize) -> Option<u16> {
        Some(self.lines_of(row)?.start)
    }

    /// The line in the middle of a row.
    pub fn middle_of(&self, row: usize) -> Option<u16> {
        let halves = self.halves(place(row, &self.window.rows, self.per_cell.0)?);
        let middle = self.area.y + (middle(&halves) / 2) as u16;
        (middle < self.area.bottom()).then_some(middle)
    }

    /// The column of the screen where a column of the matrix starts.
    pub fn column_of(&self, column: usize) -> Option<u16> {
        Some(self.columns_of(column)?.start)
    }

    /// The column of the screen in the middle of a column.
    pub fn middle_column(&self, column: usize) -> Option<u16> {
        let Range { start, end } = self.columns_of(column)?;
        Some(start + (end - start).saturating_sub(1) / 2)
    }

    /// The least width of a cell.
    pub fn width(&self) -> u16 {
        (self.extent.1 / self.n_cells().1.max(1)) as u16
    }

    /// Where the words of a cell are: its middle line.
    pub fn words_of(&self, row: usize, column: usize) -> Option<Rect> {
        let (y, columns) = (self.middle_of(row)?, self.columns_of(column)?);
        Some(Rect { x: columns.start, y, width: columns.end - columns.start, height: 1 })
    }
}

fn place(index: usize, window: &Range<usize>, per_cell: usize) -> Option<usize> {
    window.contains(&index).then(|| (index - window.start) / per_cell)
}

/// What the `i`th of `n` has of `extent` when they share it evenly.
fn share(i: usize, extent: usize, n: usize) -> Range<usize> {
    i * extent / n..(i + 1) * extent / n
}

/// Which of `n` has the place `at` of `extent`.
fn shared(at: usize, extent: usize, n: usize) -> usize {
    ((at + 1) * n).saturating_sub(1) / extent.max(1)
}

fn middle(range: &Range<usize>) -> usize {
    range.start + range.len().saturating_sub(1) / 2
}

/// Draws the cells of `map` in the layout of `plot`, and marks `selected`.
pub fn draw(buffer: &mut Buffer, plot: &Plot, map: &Picture, theme: Theme, selected: Option<(usize, usize)>) {
    let covered = plot.covered().intersection(buffer.area);
    let n_across = plot.n_cells().1;
    for y in covered.top()..covered.bottom() {
        let half = usize::from(y - covered.y) * 2;
        let rows = [half, half + 1].map(|half| (half < plot.extent.0).then(|| plot.down_at(half)));
        for x in covered.left()..covered.right() {
            let column = shared(usize::from(x - covered.x), plot.extent.1, n_across);
            let paints = rows.map(|row| row.map_or(Paint::Outside, |row| map.paint(row, column)));
            draw_cell(&mut buffer[(x, y)], paints, map.range.quantity, theme);
        }
    }
    if plot.numbers {
        draw_numbers(buffer, plot, map, theme);
    }
    if let Some((row, column)) = selected
        && let (Some(row), Some(x)) =
            (place(row, &plot.window.rows, plot.per_cell.0), plot.middle_column(column))
        && !plot.numbers
    {
        // A large cell is marked in the middle.
        let half = middle(&plot.halves(row));
        let y = covered.y + (half / 2) as u16;
        if covered.contains((x, y).into()) {
            let cell = &mut buffer[(x, y)];
            let under = if cell.symbol() == "▀" && half.is_multiple_of(2) { cell.fg } else { cell.bg };
            let under = if theme.depth == Depth::Mono { Color::Reset } else { under };
            cell.set_symbol("╋").set_style(Style::new().fg(Theme::on(under)).bg(under));
        }
    }
}

/// Draws the upper and the lower half of a cell; where there are no colours, the upper one.
pub(super) fn draw_cell(cell: &mut Cell, paints: [Paint; 2], quantity: Quantity, theme: Theme) {
    let color = |paint| color(paint, quantity, theme);
    match paints {
        [above, _] if theme.depth == Depth::Mono => {
            cell.set_symbol(above.glyph(quantity == Quantity::Signed)).set_style(theme.text())
        }
        [Paint::Masked, Paint::Masked] => cell.set_symbol(MASKED).set_style(theme.faint()),
        // On the diagonal: a value is shown rather than that its neighbour is masked.
        [Paint::Masked, level @ Paint::Level(_)] | [level @ Paint::Level(_), Paint::Masked] => {
            cell.set_symbol(" ").set_bg(color(level))
        }
        [above, below] if above == below => cell.set_symbol(" ").set_bg(color(above)),
        [above, below] => cell.set_symbol("▀").set_fg(color(above)).set_bg(color(below)),
    };
}

fn draw_numbers(buffer: &mut Buffer, plot: &Plot, map: &Picture, theme: Theme) {
    let mut text = String::new();
    for row in plot.window.rows.clone() {
        for column in plot.window.columns.clone() {
            let Some(Rect { x, y, width: wide, .. }) = plot.words_of(row, column) else { continue };
            let Some((r, c)) = map.grid.place(row, column) else { continue };
            let Some(value) = map.grid.cell(r, c) else { continue };
            let ink = match (map.paint(r, c), theme.depth) {
                (Paint::Masked, _) => theme.dim(),
                (_, Depth::Mono) => theme.text(),
                (paint, _) => Style::new().fg(Theme::on(color(paint, map.range.quantity, theme))),
            };
            match map.text(r, c) {
                None => {
                    text.clear();
                    if map.is_future(r, c) && value == 0.0 {
                        text.push_str(MASKED);
                    } else {
                        write_num(&mut text, value);
                    }
                    let before = 9usize.saturating_sub(text.chars().count());
                    text.insert_str(0, &"         "[..before]);
                    put(buffer, x, y, wide, &text, ink)
                }
                Some(text) => {
                    let text = fit(text, usize::from(wide.saturating_sub(1)));
                    let before = (wide - text.width() as u16).div_ceil(2);
                    put(buffer, x + before, y, wide, &text, ink)
                }
            };
        }
    }
}

/// The colour of what a cell shows.
fn color(paint: Paint, quantity: Quantity, theme: Theme) -> Color {
    match paint {
        Paint::Level(x) => theme.shade(quantity, x),
        Paint::Masked => theme.faint().fg.unwrap_or_default(),
        Paint::Broken => Color::from(BROKEN),
        Paint::Outside => Color::Reset,
    }
}

/// The lines needed by a legend of this width.
fn legend_lines(width: u16) -> u16 {
    if width < 70 { 2 } else { 1 }
}

/// The colour bar right under a map: the ends, the kind of range, the values per cell. `area` is
/// the space of the map and its legend, labels included; `broken` is the number of NaN and +inf values.
pub(super) fn draw_legend(
    buffer: &mut Buffer,
    area: Rect,
    plot: &Plot,
    map: &Picture,
    broken: usize,
    theme: Theme,
) {
    let y = plot.covered().bottom().min(area.bottom().saturating_sub(legend_lines(area.width)));
    let area = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    if map.grid.cells.is_empty() {
        return;
    }
    let quantity = map.range.quantity;
    let bar_width = if area.width >= 100 { 16 } else { 8 };
    let (low, high) = if map.row_limits.is_empty() {
        let end = |x| if quantity == Quantity::Rank { format!("{x:.0}") } else { num(x) };
        map.range.ends().map(end).into()
    } else {
        (if map.range.signed() { "-max" } else { "0" }.into(), "max of row".into())
    };
    let mut spans = vec![Span::styled(format!("{low} "), theme.dim())];
    for i in 0..bar_width {
        let x = i as f32 / (bar_width - 1) as f32;
        spans.push(if theme.depth == Depth::Mono {
            Span::styled(glyph(x, map.range.signed()), theme.text())
        } else {
            Span::styled(" ", Style::new().bg(theme.shade(quantity, x)))
        });
    }
    let mut said = vec![map.range.mode.name().to_owned()];
    let (rows, columns) = map.grid.per_cell;
    if map.range.beyond > 0 {
        let beyond = map.range.beyond;
        let pooled = (rows, columns) != (1, 1);
        said.push(if pooled {
            format!("{} beyond", count(beyond, "cell"))
        } else {
            format!("{beyond} beyond")
        });
    }
    if (rows, columns) != (1, 1) {
        said.push(format!("1 cell = {rows} × {columns}, {}", map.grid.pooling.name()));
    }
    let (n_rows, n_columns) = map.grid.dims;
    if map.grid.window != Window::whole(n_rows, n_columns) {
        let Window { rows, columns } = &map.grid.window;
        said.push(format!(
            "rows {}–{}, columns {}–{}",
            rows.start,
            rows.end - 1,
            columns.start,
            columns.end - 1
        ));
    }
    if map.grid.n_columns > 0 && map.is_future(0, map.grid.n_columns - 1) {
        said.push("╱ masked: the future".into());
    }
    if broken > 0 {
        said.push(format!("{broken} NaN or inf"));
    }
    spans.push(Span::styled(format!(" {high}  "), theme.dim()));
    let beside = usize::from(area.width).saturating_sub(spans.iter().map(Span::width).sum());
    let below = if area.height < 2 { 0 } else { usize::from(area.width) };
    // Next to the bar if all of it fits, else where more of it does.
    let words = said.join(" · ");
    if words.width() <= beside || beside >= below {
        spans.push(Span::styled(whole_words(&said, beside), theme.dim()));
    } else {
        put(buffer, area.x, area.y + 1, area.width, &whole_words(&said, below), theme.dim());
    }
    put_line(buffer, area, &spans);
}

/// As many of the first ones as fit, with a mark for the others.
fn whole_words(said: &[String], width: usize) -> String {
    let first = |n: usize| said[..n].join(" · ") + if n < said.len() { " …" } else { "" };
    (1..=said.len())
        .rev()
        .map(first)
        .find(|words| words.width() <= width)
        .unwrap_or_else(|| fit(&said.join(" · "), width))
}

/// The scale above a map: the name of the columns, the first, last and selected index.
fn draw_axis(buffer: &mut Buffer, y: u16, plot: &Plot, axis: Axis, selected: usize, theme: Theme) {
    let covered = plot.covered();
    if covered.width == 0 || plot.window.columns.is_empty() || axis == Axis::One {
        return;
    }
    let Range { start, end } = plot.window.columns;
    let mark = plot.middle_column(selected).map(|x| {
        let mark = format!("▾{selected}");
        let width = mark.chars().count() as u16;
        let x = x.min(covered.right().saturating_sub(width).max(covered.x));
        put(buffer, x, y, plot.area.right().saturating_sub(x), &mark, theme.accent());
        (x, x + width)
    });
    // The ends, if the mark leaves room for them and a space.
    let mut end_label = |x: u16, text: &str| {
        let right = x + text.chars().count() as u16;
        if right <= plot.area.right() && mark.is_none_or(|(from, to)| right < from || to < x) {
            put(buffer, x, y, plot.area.right() - x, text, theme.dim());
        }
    };
    end_label(covered.x, &format!("{} {start}", axis.noun()));
    let last = (end - 1).to_string();
    let last_x = covered.right().saturating_sub(last.len() as u16);
    if last_x > covered.x + axis.noun().len() as u16 + start.to_string().len() as u16 + 1 {
        end_label(last_x, &last);
    }
}

/// The lines for names that are turned and do not fit.
const TURNED: RangeInclusive<u16> = 4..=8;

/// A map with its labels to the left, its axis above and its legend below.
#[derive(Debug, Clone, Copy)]
pub struct Sheet {
    pub axis: u16,
    /// Where the columns are named, above the axis.
    pub names: Rect,
    pub labels: Rect,
    pub plot: Rect,
    pub legend: Rect,
}

impl Sheet {
    /// The map begins `above` lines below the top of `area`, right of labels of `label` columns.
    pub fn new(area: Rect, above: u16, label: u16) -> Self {
        let above = above.min(area.height);
        let height = area.height.saturating_sub(above + legend_lines(area.width));
        let labels = Rect { y: area.y + above, width: label, height, ..area };
        let plot = Rect { x: area.x + label, width: area.width.saturating_sub(label), ..labels };
        let names = Rect { y: area.y + above, height: 0, ..plot };
        Self { axis: (area.y + above).saturating_sub(1), names, labels, plot, legend: area }
    }

    /// With lines for the names of the columns of an attention map, if each has a column of its own: one where
    /// they fit side by side, else as many as the longest has letters when they are turned.
    #[must_use]
    pub fn naming(self, names: &[String], theme: Theme) -> Self {
        let dims = (names.len(), names.len());
        let plot = |area| Plot::new(area, dims, Zoom::default(), Form::new(Axis::Key, theme));
        let longest = names.iter().map(|name| name.width()).max().unwrap_or(0) as u16;
        let side_by_side = longest < plot(self.plot).width();
        let lines = if side_by_side { 1 } else { longest.min(*TURNED.end()).min(self.plot.height / 5) };
        let below =
            Rect { y: self.plot.y + lines, height: self.plot.height.saturating_sub(lines), ..self.plot };
        let cut = !side_by_side && longest > lines && !TURNED.contains(&lines);
        if lines == 0 || cut || plot(below).per_cell != (1, 1) {
            return self;
        }
        Self {
            axis: self.axis + lines,
            names: Rect { y: self.axis, height: lines, ..self.plot },
            labels: Rect { y: below.y, height: below.height, ..self.labels },
            plot: below,
            ..self
        }
    }

    /// Names the columns, side by side or turned.
    pub fn draw_names(
        &self,
        buffer: &mut Buffer,
        plot: &Plot,
        names: &[String],
        selected: usize,
        theme: Theme,
    ) {
        let lines = usize::from(self.names.height);
        let side_by_side = lines == 1;
        for (column, name) in names.iter().enumerate() {
            let Some(Range { start: x, end }) = plot.columns_of(column).filter(|_| lines > 0) else {
                continue;
            };
            let width = end - x;
            let style = if column == selected { theme.accent() } else { theme.dim() };
            let middle = |text: &str| x + (width.saturating_sub(text.width() as u16)) / 2;
            if side_by_side {
                let name = fit(name, width.into());
                put(buffer, middle(&name), self.names.y, width, &name, style);
                continue;
            }
            let letters: Vec<_> = name.chars().map(String::from).collect();
            let cut = letters.len() > lines;
            let first = if cut { 0 } else { lines - letters.len() };
            for (at, letter) in letters.iter().take(lines).enumerate() {
                let letter = if cut && at + 1 == lines { "…" } else { letter };
                let y = self.names.y + (first + at) as u16;
                put(buffer, middle(letter), y, width, letter, style);
            }
        }
    }

    /// Draws `map` as `plot` lays it, the cell `selected` marked on all sides.
    pub fn draw(
        &self,
        buffer: &mut Buffer,
        plot: &Plot,
        map: &Map,
        label: &dyn Fn(usize) -> String,
        selected: (usize, usize),
        theme: Theme,
    ) {
        draw_axis(buffer, self.axis, plot, map.view.axes().1, selected.1, theme);
        draw_labels(buffer, self.labels, plot, label, selected.0, theme);
        draw(buffer, plot, map, theme, Some(selected));
        draw_legend(buffer, self.legend, plot, map, map.stats.broken, theme);
        // A dark map would be read as small values.
        if map.stats.min == 0.0 && map.stats.max == 0.0 && map.stats.broken == 0 {
            let said = if map.differs { " identical: every difference is 0 " } else { " every value is 0 " };
            let covered = plot.covered();
            let x = covered.x + covered.width.saturating_sub(said.width() as u16) / 2;
            let y = covered.y + covered.height / 2;
            put(buffer, x, y, plot.area.right().saturating_sub(x), said, theme.panel());
        }
    }
}

/// The labels to the left of a map, one per line, with the selected row marked.
pub fn draw_labels(
    buffer: &mut Buffer,
    area: Rect,
    plot: &Plot,
    label: &dyn Fn(usize) -> String,
    selected: usize,
    theme: Theme,
) {
    // A mark before each, a blank after it.
    let width = usize::from(area.width).saturating_sub(2);
    let label = |row| fit(&label(row), width);
    let mut free = area.y;
    for row in plot.window.rows.clone() {
        let Some(y) = plot.middle_of(row) else { continue };
        if y >= free && row != selected && plot.middle_of(selected) != plot.middle_of(row) {
            put(buffer, area.x, y, area.width, &format!(" {}", label(row)), theme.dim());
            free = y + 1;
        }
    }
    if let Some(y) = plot.middle_of(selected) {
        put(buffer, area.x, y, area.width, &format!("▸{}", label(selected)), theme.accent());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_of_the_window_has_a_place_that_leads_back(
            (width, height) in (0u16..200, 0u16..60),
            dims in (0usize..300, 0usize..5000),
            level in 0u8..12,
            origin in (0usize..400, 0usize..6000),
            (square, whole_lines, numbers) in any::<(bool, bool, bool)>(),
        ) {
            let area = Rect::new(3, 2, width, height);
            let plot = Plot::new(area, dims, Zoom { level, origin }, Form { square, whole_lines, numbers });
            let covered = plot.covered();
            prop_assert!(area.contains(covered.as_position()) || covered.is_empty());
            prop_assert!(covered.right() <= area.right() && covered.bottom() <= area.bottom());
            prop_assert!(plot.window.rows.end <= dims.0 && plot.window.columns.end <= dims.1);
            for row in plot.window.rows.clone() {
                let lines = plot.lines_of(row).unwrap();
                prop_assert!(!lines.is_empty() && lines.end <= covered.bottom());
                let half = plot.halves((row - plot.window.rows.start) / plot.per_cell.0);
                prop_assert!(!half.is_empty());
                prop_assert!(half.clone().all(|at| plot.down_at(at) == (row - plot.window.rows.start) / plot.per_cell.0));
                prop_assert!(!plot.whole_lines || half.start.is_multiple_of(2) && half.end.is_multiple_of(2));
            }
            if !covered.is_empty() && !square {
                prop_assert_eq!(covered, area);
            }
            for column in plot.window.columns.clone() {
                let x = plot.column_of(column).unwrap();
                let (_, found) = plot.hit(x, covered.y).unwrap();
                prop_assert_eq!((found - plot.window.columns.start) / plot.per_cell.1,
                    (column - plot.window.columns.start) / plot.per_cell.1);
            }
        }

        #[test]
        fn zooming_ends_at_numbers(dims in (1usize..2000, 1usize..60000), width in 9u16..200, height in 1u16..60) {
            let area = Rect::new(0, 0, width, height);
            let form = Form::default().with_numbers();
            let level = Plot::deepest(area, dims, form);
            let plot = Plot::new(area, dims, Zoom { level, origin: (0, 0) }, form);
            prop_assert!(plot.numbers);
            prop_assert_eq!(plot.per_cell, (1, 1));
        }
    }
}
