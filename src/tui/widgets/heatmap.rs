//! A matrix as coloured half-blocks: two rows of cells per line of the terminal.

use std::ops::{Range, RangeInclusive};

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::pixels;
pub use super::plot::{Form, Plot, Zoom};
use crate::engine::Map;
use crate::hooks::{Axis, Quantity};
use crate::picture::colormap::{BROKEN, MASKED, glyph};
use crate::picture::grid::Window;
use crate::picture::{Paint, Picture};
use crate::text::count;
use crate::tui::text::{fit, num, put, put_line, write_num};
use crate::tui::theme::{Depth, Theme};

/// Draws the cells of `map` in the layout of `plot`, and marks `selected`.
pub fn draw(buffer: &mut Buffer, plot: &Plot, map: &Picture, theme: Theme, selected: Option<(usize, usize)>) {
    let covered = plot.covered().intersection(buffer.area);
    let (per_line, per_column) = plot.dots();
    for y in covered.top()..covered.bottom() {
        // Where pixels are not there yet, the dots in the middle stand for those around them.
        let first = usize::from(y - covered.y) * per_line;
        let halves = [first + (per_line - 1) / 4, first + (per_line / 2).max(1) + (per_line - 1) / 4];
        let rows = halves.map(|dot| (dot < plot.extent.0).then(|| plot.down_at(dot)));
        for x in covered.left()..covered.right() {
            let column = plot.across_at(usize::from(x - covered.x) * per_column + (per_column - 1) / 2);
            let paints = rows.map(|row| row.map_or(Paint::Outside, |row| map.paint(row, column)));
            draw_cell(&mut buffer[(x, y)], paints, map.range.quantity, theme);
        }
    }
    if plot.numbers {
        draw_numbers(buffer, plot, map, theme);
    }
    if let Some((x, y, above)) = selected.and_then(|cell| mark(plot, cell)) {
        let cell = &mut buffer[(x, y)];
        let under = if cell.symbol() == "▀" && above { cell.fg } else { cell.bg };
        let under = if theme.depth == Depth::Mono { Color::Reset } else { under };
        cell.set_symbol("╋").set_style(Style::new().fg(Theme::on(under)).bg(under));
    }
}

/// Where a selected cell is marked: in its middle. Also whether that is in the upper half of the line.
fn mark(plot: &Plot, (row, column): (usize, usize)) -> Option<(u16, u16, bool)> {
    let (x, y) = (plot.middle_column(column)?, plot.middle_of(row)?);
    let (dot, per_line) = (plot.middle_dot(row)?, plot.dots().0);
    let shown = !plot.numbers && plot.covered().contains((x, y).into());
    shown.then_some((x, y, dot % per_line < per_line.div_ceil(2)))
}

/// Draws a map of the engine: in pixels, where they are there and nothing may come to lie on them.
pub fn draw_map(buffer: &mut Buffer, plot: &Plot, map: &Map, theme: Theme, selected: Option<(usize, usize)>) {
    draw(buffer, plot, map, theme, selected);
    let pixels = map.pixels.as_ref().filter(|pixels| Some(pixels.canvas) == plot.canvas());
    if let Some(pixels) = pixels.filter(|_| theme.shows_pixels() && !is_zero(map)) {
        let mark = selected.and_then(|cell| mark(plot, cell)).map(|(x, y, _)| Position { x, y });
        pixels::put(buffer, plot.covered(), pixels, mark);
    }
}

/// Whether every value is 0: a dark map would be read as small values.
fn is_zero(map: &Map) -> bool {
    map.stats.min == 0.0 && map.stats.max == 0.0 && map.stats.broken == 0
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
        let cell = if plot.paper.is_some() { "pixel" } else { "cell" };
        said.push(format!("1 {cell} = {rows} × {columns}, {}", map.grid.pooling.name()));
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
        draw_map(buffer, plot, map, theme, Some(selected));
        draw_legend(buffer, self.legend, plot, map, map.stats.broken, theme);
        if is_zero(map) {
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
