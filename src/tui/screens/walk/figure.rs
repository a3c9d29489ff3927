//! The picture of a step: its operation with the numbers behind it, or a figure of its own.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::cell;
use super::operation::{self, Drawn, Frame};
use crate::analysis::walk::{Cell, Curve, Kind, Line, Page, Table};
use crate::engine::Slot;
use crate::hooks::Axis;
use crate::picture::grid::Pooling;
use crate::picture::range::Range;
use crate::run::Run;
use crate::tui::app::{App, Selection};
use crate::tui::text::{count, fit, num, pad, put, put_line};
use crate::tui::theme::{Depth, Theme};
use crate::tui::widgets::bar::{self, histogram};
use crate::tui::widgets::row_strip;

/// Columns of a value in a table.
const VALUE: usize = 9;
/// Columns of a label in a table, at most.
const LABEL: usize = 18;
/// Columns of a bar that are worth drawing.
const BAR: u16 = 8;

/// Where what is.
#[derive(Default)]
struct Places {
    operation: Option<Rect>,
    magnifier: Option<Rect>,
    curve: Option<Rect>,
    /// Index of the table, and its place.
    tables: Vec<(usize, Rect)>,
}

fn places(page: &Page, area: Rect) -> Places {
    let split = |left: u16| {
        let left = left.min(area.width);
        let right = Rect { x: area.x + left, width: area.width - left, ..area };
        (Rect { width: left.saturating_sub(2), ..area }, right)
    };
    if page.parts.is_empty() || !page.magnifier.is_empty() {
        let tables = page.tables.iter().enumerate().map(|(i, _)| (i, area)).collect();
        let magnifier = (!page.magnifier.is_empty()).then_some(area);
        return Places { magnifier, tables, ..Places::default() };
    }
    let needs = page.tables.iter().map(table_width).collect::<Vec<_>>();
    let aside = if page.curve.is_some() { 30 } else { needs.first().copied().unwrap_or(0) };
    let beside = |places: &mut Places, side: Rect| {
        let (mut x, mut i) = (side.x, 0);
        if page.curve.is_some() {
            let width = (side.width * 3 / 5).min(100).max(30.min(side.width));
            places.curve = Some(Rect { width, ..side });
            x += width + 3;
        }
        while let Some(&need) = needs.get(i) {
            let left = side.right().saturating_sub(x);
            if left < need {
                break;
            }
            let width = (need + 24).min(left);
            places.tables.push((i, Rect { x, width, ..side }));
            (x, i) = (x + width + 3, i + 1);
        }
    };
    // One above the other where there is height for it, else side by side.
    if area.height >= 20 {
        let rows = page.tables.iter().map(|table| table.rows.len() as u16 + 3).max().unwrap_or(0);
        let figures = rows.max(if page.curve.is_some() { 14 } else { 0 }).min(area.height * 11 / 20);
        let height = (area.height - figures).clamp(10, 44);
        let below = Rect { y: area.y + height + 1, height: area.height - height - 1, ..area };
        let mut places = Places { operation: Some(Rect { height, ..area }), ..Places::default() };
        beside(&mut places, below);
        return places;
    }
    let least = operation::least_width(page);
    if aside == 0 || least + 2 + aside > area.width {
        return Places { operation: Some(area), ..Places::default() };
    }
    let side_by_side = needs.iter().sum::<u16>() + 2 * (needs.len() as u16).saturating_sub(1);
    if needs.len() > 1 && page.curve.is_none() && least + 2 + side_by_side <= area.width {
        let (left, right) = split(area.width - side_by_side.max(area.width / 2).min(area.width - least - 2));
        let spare = right.width - side_by_side;
        let mut places = Places { operation: Some(left), ..Places::default() };
        let mut x = right.x;
        for (i, need) in needs.iter().enumerate() {
            let width = need + spare / needs.len() as u16;
            places.tables.push((i, Rect { x, width, ..right }));
            x += width + 2;
        }
        return places;
    }
    let widest = needs.iter().copied().max().unwrap_or(0).max(aside) + 24;
    let right = (area.width * 2 / 5).clamp(aside, area.width - least - 2).min(widest);
    let (left, right) = split(area.width - right);
    let mut places = Places { operation: Some(left), ..Places::default() };
    if page.curve.is_some() {
        places.curve = Some(right);
    } else if needs.len() > 1 && right.height >= 11 && needs[1] <= right.width {
        let upper = right.height / 2;
        places.tables.push((0, Rect { height: upper, ..right }));
        places.tables.push((1, Rect { y: right.y + upper, height: right.height - upper, ..right }));
    } else {
        places.tables.push((0, right));
    }
    places
}

/// The operands that are drawn, in order.
pub fn operands<'a>(app: &App, run: &Run, page: &'a Page, area: Rect) -> Vec<Drawn<'a>> {
    let places = places(page, area);
    if places.magnifier.is_some() {
        let (table, _, result) = lookup(area);
        let frame = Frame::new(page, table.width, area.height);
        return page
            .operands()
            .zip([table, result])
            .map(|(operand, place)| Drawn::new(app, run, operand, place, frame))
            .collect();
    }
    places.operation.map_or_else(Vec::new, |place| operation::lay(app, run, page, place))
}

pub fn draw(app: &App, run: &Run, page: &Page, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    if area.height < 2 {
        return;
    }
    if page.at.step.kind == Kind::Tokens {
        return draw_tokens(page, area, theme, buffer);
    }
    let places = places(page, area);
    if places.magnifier.is_some() {
        return draw_lookup(app, run, page, area, buffer);
    }
    if let Some(place) = places.operation {
        operation::draw(app, run, page, place, buffer);
    }
    if let (Some(place), Some(curve)) = (places.curve, &page.curve) {
        draw_curve(curve, place, theme, buffer);
    }
    for (i, place) in places.tables {
        draw_table(&page.tables[i], place, theme, buffer);
    }
}

/// What a click selects.
pub fn hit(app: &App, run: &Run, page: &Page, area: Rect, x: u16, y: u16) -> Option<Selection> {
    let mut selection = app.selection;
    for drawn in operands(app, run, page, area) {
        let Some((row, column)) = drawn.hit(x, y) else { continue };
        let operand = drawn.operand;
        let Some(view) = operand.view else { continue };
        if view.axes().0 == Axis::Pos && operand.row == Some(page.at.position) {
            selection.position = row.min(run.n_tokens() - 1);
        }
        if view.axes().1 == Axis::Key {
            selection.key = column;
        } else if operand.column.is_some() || operand.row.is_some() {
            selection.column = column;
        }
        return Some(selection);
    }
    let (i, place) =
        places(page, area).tables.into_iter().find(|(_, place)| place.contains((x, y).into()))?;
    let table = &page.tables[i];
    let line = usize::from(y.checked_sub(place.y + head_lines(table, place))?);
    let row = shown_rows(table, rows_room(table, place)).get(line).copied()?;
    let index = table.rows[row].index?;
    match page.at.step.kind {
        Kind::Encoder | Kind::Tokens => selection.position = index,
        Kind::Scores | Kind::Scale | Kind::Mask | Kind::Softmax | Kind::Z if i == 0 => selection.key = index,
        Kind::Logits | Kind::Probs | Kind::Next => return None,
        Kind::Qkv | Kind::AttnOut | Kind::MlpPre | Kind::MlpOut | Kind::Scores => return None,
        _ => selection.column = index,
    }
    Some(selection)
}

// A row looked up in a matrix.

/// The whole matrix, the rows in large, and where the row goes.
fn lookup(area: Rect) -> (Rect, Rect, Rect) {
    let side = (area.width / 5).clamp(14, 44).min(area.width / 3);
    let left = Rect { width: side, ..area };
    let right = Rect { x: area.right() - side, width: side, ..area };
    let x = left.right() + 8;
    let middle = Rect { x, width: right.x.saturating_sub(x + 4), ..area };
    (left, middle, right)
}

fn draw_lookup(app: &App, run: &Run, page: &Page, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let (_, middle, right) = lookup(area);
    let drawn = operands(app, run, page, area);
    for (i, drawn) in drawn.iter().enumerate() {
        let map = app.map(Slot::Operand(i)).filter(|map| Some(map.view) == drawn.operand.view);
        drawn.draw(map, theme, buffer);
    }
    let line = drawn.first().and_then(Drawn::line);
    let marked = page.magnifier.iter().find(|line| line.marked);
    let row = draw_magnifier(&page.magnifier, middle, line, theme, buffer);
    if let (Some(y), Some(line), Some(first)) = (line, marked, drawn.first()) {
        let x = first.right();
        let after =
            put(buffer, x, y, middle.x.saturating_sub(x), &format!("◂{}", line.index), theme.accent());
        // A line to the frame, where it stands at this height.
        if y == row {
            let rule = "─".repeat(usize::from(middle.x.saturating_sub(after + 1)));
            put(buffer, after + 1, y, middle.x.saturating_sub(after), &rule, theme.focus());
        }
    }
    put(buffer, middle.right() + 1, row, right.x.saturating_sub(middle.right() + 1), "→", theme.strong());
}

/// The row between its neighbours, in a frame: index and token, cells, first and last values.
/// The row comes to stand as near to `beside` as can be; returns its line.
fn draw_magnifier(lines: &[Line], area: Rect, beside: Option<u16>, theme: Theme, buffer: &mut Buffer) -> u16 {
    if area.width < 12 || area.height < 3 {
        return area.y;
    }
    // Two lines a row where there is room for that, else only the row itself has its values.
    let room = usize::from(area.height) - 2;
    let all = room >= 2 * lines.len();
    let gap = usize::from(room >= 3 * lines.len());
    let needs = if all { (2 + gap) * lines.len() - gap } else { lines.len() + 1 };
    let inner = needs.min(room) as u16;
    let before = lines.iter().position(|line| line.marked).unwrap_or(0);
    let before = (before * if all { 2 + gap } else { 1 }) as u16;
    let lowest = area.bottom() - inner - 2;
    let top = beside.map_or(area.y, |y| y.saturating_sub(before + 1)).clamp(area.y, lowest);
    let area = Rect { y: top, ..area };
    let row = area.y + 1 + before;
    let across = "─".repeat(usize::from(area.width) - 2);
    put(buffer, area.x, area.y, area.width, &format!("╭{across}╮"), theme.focus());
    put(buffer, area.x, area.y + 1 + inner, area.width, &format!("╰{across}╯"), theme.focus());
    for y in area.y + 1..=area.y + inner {
        put(buffer, area.x, y, 1, "│", theme.focus());
        put(buffer, area.right() - 1, y, 1, "│", theme.focus());
    }
    let range = Range::of(lines.iter().flat_map(|line| &line.values));
    let label = |line: &Line| line.label.clone();
    let widest = lines.iter().map(|line| label(line).width()).max().unwrap_or(0);
    let label_width = (widest + 2).min(usize::from(area.width) / 3 + 2) as u16;
    let mut y = area.y + 1;
    let bottom = area.y + 1 + inner;
    for line in lines {
        if y >= bottom {
            break;
        }
        let style = if line.marked { theme.accent() } else { theme.dim() };
        let mark = if line.marked { "▸" } else { " " };
        let text = format!("{mark}{}", fit(&label(line), usize::from(label_width) - 2));
        put(buffer, area.x + 1, y, label_width, &text, style);
        let x = area.x + 1 + label_width;
        let width = (area.right() - 1).saturating_sub(x + 1);
        let strip = Rect { x, y, width, height: 1 };
        row_strip::draw(buffer, strip, &line.values, &range, Pooling::Extreme, theme);
        y += 1;
        if (all || line.marked) && y < bottom {
            let values = operation::ends(&line.values, width.into(), 1).concat();
            put(buffer, x, y, width, &values, if line.marked { theme.accent() } else { theme.dim() });
            y += 1 + gap as u16;
        }
    }
    row
}

// The tokens.

/// The text, cut: each token over its id and its bytes.
fn draw_tokens(page: &Page, area: Rect, theme: Theme, buffer: &mut Buffer) {
    let Some(table) = page.tables.first() else { return };
    let text = |i: usize, column: usize| table.rows[i].cells.get(column).map_or_else(String::new, cell);
    let head_width = table.columns.iter().map(|head| head.width()).max().unwrap_or(0) as u16 + 2;
    let room = area.width.saturating_sub(head_width);
    let width = |i: usize, n_columns: usize| {
        let widest = (0..n_columns).map(|column| text(i, column).width()).max().unwrap_or(0);
        (widest.max(table.rows[i].label.width()).min(24) + 1) as u16
    };
    let broken = |n_columns: usize| {
        let mut lines: Vec<Vec<usize>> = Vec::new();
        let mut used = room + 1;
        for i in 0..table.rows.len() {
            if used + width(i, n_columns) > room {
                lines.push(Vec::new());
                used = 0;
            }
            used += width(i, n_columns);
            lines.last_mut().expect("a line was begun above").push(i);
        }
        lines
    };
    let high = |n_columns: usize| n_columns as u16 + 2;
    // Without the bytes, where else not all would be seen.
    let all = table.columns.len() - 1;
    let needs = broken(all).len() * usize::from(high(all));
    let n_columns = if all > 2 && needs > usize::from(area.height) { all - 1 } else { all };
    let (lines, high, width) = (broken(n_columns), high(n_columns), |i| width(i, n_columns));
    let heads = table.columns.iter().take(n_columns + 1);
    let fits = usize::from(area.height / high).max(1);
    let marked = table.rows.iter().position(|row| row.marked).unwrap_or(0);
    let here = lines.iter().position(|line| line.contains(&marked)).unwrap_or(0);
    let first = (here + 1).saturating_sub(fits.div_ceil(2)).min(lines.len().saturating_sub(fits));
    for (line, k) in lines.iter().skip(first).take(fits).zip(0..) {
        let y = area.y + k * high;
        for (row, head) in (0..).zip(heads.clone()) {
            if y + row < area.bottom() {
                put(buffer, area.x, y + row, head_width, head, theme.dim());
            }
        }
        let mut x = area.x + head_width;
        for &i in line {
            let wide = width(i);
            let style = if i == marked { theme.selected() } else { theme.text() };
            let mut write = |row: u16, text: &str, style: Style| {
                if y + row < area.bottom() {
                    put(
                        buffer,
                        x,
                        y + row,
                        wide,
                        &pad(&fit(text, usize::from(wide) - 1), wide.into()),
                        style,
                    );
                }
            };
            write(0, &table.rows[i].label, if i == marked { theme.accent() } else { theme.faint() });
            let cut = if i % 2 == 0 { theme.panel() } else { theme.text() };
            write(1, &text(i, 0), if i == marked { style } else { cut.patch(theme.strong()) });
            for column in 1..n_columns {
                let style = if i == marked { theme.accent() } else { theme.dim() };
                write(1 + column as u16, &text(i, column), style);
            }
            x += wide;
        }
    }
    let hidden = lines.len().saturating_sub(first + fits);
    if hidden > 0 || first > 0 {
        let said = format!(
            "… {} of {} shown",
            lines.iter().skip(first).take(fits).map(Vec::len).sum::<usize>(),
            count(table.rows.len(), "token")
        );
        let y = area.y + fits as u16 * high - 1;
        put(buffer, area.x + head_width, y.min(area.bottom() - 1), room, &said, theme.dim());
    }
}

// Tables.

fn label_width(table: &Table) -> usize {
    let widest = table.rows.iter().map(|row| row.label.width()).chain([table.columns[0].width()]).max();
    widest.unwrap_or(0).min(LABEL) + 2
}

fn cell_width(table: &Table, column: usize) -> usize {
    let is_text = |row: &crate::analysis::walk::TableRow| matches!(row.cells.get(column), Some(Cell::Text(t)) if !t.is_empty());
    if table.rows.iter().any(is_text) {
        LABEL
    } else {
        VALUE.max(table.columns[column + 1].width().min(14) + 1)
    }
}

/// Columns that a table needs, without a bar.
fn table_width(table: &Table) -> u16 {
    let cells: usize = (0..table.columns.len() - 1).map(|column| cell_width(table, column)).sum();
    (label_width(table) + cells) as u16
}

fn head_lines(table: &Table, area: Rect) -> u16 {
    u16::from(!table.title.is_empty() && area.height >= 5) + u16::from(area.height >= 3)
}

fn rows_room(table: &Table, area: Rect) -> usize {
    usize::from(area.height.saturating_sub(head_lines(table, area)))
}

/// The rows to show where there is room for `room`: the marked one and those that sum up always,
/// of the others the largest, in the order of the table; without bars those around the marked one.
fn shown_rows(table: &Table, room: usize) -> Vec<usize> {
    let n = table.rows.len();
    if n <= room {
        return (0..n).collect();
    }
    let marked = table.rows.iter().position(|row| row.marked).unwrap_or(0);
    let Some(bar) = table.bar else {
        let first = marked.saturating_sub(room / 2).min(n - room);
        return (first..first + room).collect();
    };
    let size = |i: usize| match table.rows[i].cells.get(bar) {
        _ if table.rows[i].marked => f32::INFINITY,
        _ if table.rows[i].index.is_none() => f32::MAX,
        Some(Cell::Number(x)) if x.is_finite() => x.abs(),
        _ => 0.0,
    };
    let mut rows: Vec<_> = (0..n).collect();
    rows.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    rows.truncate(room);
    rows.sort_unstable();
    rows
}

fn draw_table(table: &Table, area: Rect, theme: Theme, buffer: &mut Buffer) {
    let heads = head_lines(table, area);
    let mut y = area.y;
    let line = |y: u16| Rect { y, height: 1, ..area };
    if heads == 2 {
        put_line(buffer, line(y), &[Span::styled(table.title.clone(), theme.text())]);
        y += 1;
    }
    let (labels, n_cells) = (label_width(table), table.columns.len() - 1);
    if heads > 0 {
        let mut spans = vec![Span::styled(format!(" {}", pad(&table.columns[0], labels - 1)), theme.dim())];
        for column in 0..n_cells {
            let width = cell_width(table, column);
            let head = fit(&table.columns[column + 1], width - 1);
            let blank = width - head.width();
            let text =
                if width == LABEL { pad(&head, width) } else { format!("{}{head}", " ".repeat(blank)) };
            spans.push(Span::styled(text, theme.dim()));
        }
        put_line(buffer, line(y), &spans);
        y += 1;
    }
    let used = table_width(table) + 1;
    let bar_width = area.width.saturating_sub(used).min(24);
    let value = |row: usize| match table.bar.and_then(|bar| table.rows[row].cells.get(bar)) {
        Some(Cell::Number(x)) if x.is_finite() => Some(*x),
        _ => None,
    };
    let of_items = (0..table.rows.len()).filter(|&row| table.rows[row].index.is_some());
    let has_signs = of_items.clone().filter_map(value).any(|x| x < 0.0);
    let most = of_items.filter_map(value).map(f32::abs).fold(0.0, f32::max);
    for (row, y) in shown_rows(table, rows_room(table, area)).into_iter().zip(y..area.bottom()) {
        let item = &table.rows[row];
        let ink = if item.marked { theme.accent() } else { theme.text() };
        let mark = if item.marked { "▸" } else { " " };
        let mut spans =
            vec![Span::styled(mark, theme.accent()), Span::styled(pad(&item.label, labels - 1), ink)];
        for (column, value) in item.cells.iter().enumerate() {
            let width = cell_width(table, column);
            let text = fit(&cell(value), width - 1);
            let text = match value {
                Cell::Text(_) => pad(&text, width),
                _ => format!("{}{text}", " ".repeat(width - text.width())),
            };
            spans.push(Span::styled(text, ink));
        }
        put_line(buffer, line(y), &spans);
        if let (Some(x), Some(_)) = (value(row), item.index)
            && bar_width >= BAR
            && most > 0.0
        {
            let area = Rect { x: area.x + used, width: bar_width, ..line(y) };
            if has_signs {
                put_line(buffer, area, &bar::signed(x / most, bar_width.into(), theme));
            } else {
                put(buffer, area.x, y, bar_width, &bar::bar(x / most, bar_width.into()), theme.amount());
            }
        }
    }
}

// The activation function.

/// The graph in braille, where neurons lie on it in the accent, and how many there are at each x.
fn draw_curve(curve: &Curve, area: Rect, theme: Theme, buffer: &mut Buffer) {
    if area.width < 12 || area.height < 5 {
        return;
    }
    let (Some(first), Some(last)) = (curve.line.first(), curve.line.last()) else { return };
    let plot = Rect { height: area.height - 2, ..area };
    let (low_x, high_x) = (first.0, last.0);
    let ys = || curve.line.iter().map(|(_, y)| *y).filter(|y| y.is_finite());
    let (low_y, high_y) = (ys().fold(0.0, f32::min), ys().fold(0.0, f32::max));
    let (wide, high) = (usize::from(plot.width) * 2, usize::from(plot.height) * 4);
    let place = |at: f32, low: f32, high: f32, n: usize| {
        let share = if high > low { (at - low) / (high - low) } else { 0.0 };
        ((share * (n - 1) as f32).round() as usize).min(n - 1)
    };
    let mut dots = vec![0u8; usize::from(plot.width) * usize::from(plot.height)];
    let index = |x: usize, y: usize| (high - 1 - y) / 4 * usize::from(plot.width) + x / 2;
    let mut before: Option<usize> = None;
    for x in 0..wide {
        let sample = curve.line[x * (curve.line.len() - 1) / (wide - 1)];
        if !sample.1.is_finite() {
            before = None;
            continue;
        }
        let y = place(sample.1, low_y, high_y, high);
        // Steep pieces are drawn without gaps.
        let from = before.map_or(y, |b| if b < y { b + 1 } else { b.saturating_sub(1).max(y) });
        for y in from.min(y)..=from.max(y) {
            dots[index(x, y)] |= braille(x % 2, (high - 1 - y) % 4);
        }
        before = Some(y);
    }
    let mut counts = vec![0usize; plot.width.into()];
    let mut busy = vec![false; dots.len()];
    for &(x, y) in curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
        let column = place(x, low_x, high_x, wide);
        counts[column / 2] += 1;
        busy[index(column, place(y, low_y, high_y, high))] = true;
    }
    let zero = (place(0.0, low_x, high_x, wide) / 2, (high - 1 - place(0.0, low_y, high_y, high)) / 4);
    for row in 0..usize::from(plot.height) {
        for column in 0..usize::from(plot.width) {
            let i = row * usize::from(plot.width) + column;
            let (text, style) = match (dots[i], busy[i]) {
                (0, true) => ("•".into(), theme.accent()),
                (0, false) if row == zero.1 && column == zero.0 => ("┼".into(), theme.faint()),
                (0, false) if row == zero.1 => ("─".into(), theme.faint()),
                (0, false) if column == zero.0 => ("│".into(), theme.faint()),
                (0, false) => continue,
                (bits, true) => (glyph(bits), theme.accent()),
                (bits, false) => {
                    (glyph(bits), if theme.depth == Depth::Mono { theme.text() } else { theme.dim() })
                }
            };
            put(buffer, plot.x + column as u16, plot.y + row as u16, 1, &text, style);
        }
    }
    put(buffer, plot.x, plot.y, plot.width, &format!("post, up to {}", num(high_y)), theme.dim());
    put(buffer, area.x, plot.bottom(), area.width, &histogram(&counts), theme.accent());
    let (low, high) = (num(low_x), num(high_x));
    let y = plot.bottom() + 1;
    put(buffer, area.x, y, area.width, &low, theme.dim());
    let said = format!("pre of {}", count(curve.points.len(), "neuron"));
    let (from, to) = (area.x + low.width() as u16 + 1, area.right().saturating_sub(high.width() as u16));
    let middle = from + (to.saturating_sub(from + said.width() as u16)) / 2;
    put(buffer, middle, y, to.saturating_sub(middle + 1), &said, theme.dim());
    put(buffer, to, y, high.width() as u16, &high, theme.dim());
}

/// The bit of a dot in a braille pattern, from its column and row in the cell.
fn braille(x: usize, y: usize) -> u8 {
    match (x, y) {
        (0, 3) => 0x40,
        (_, 3) => 0x80,
        (0, y) => 1 << y,
        (_, y) => 8 << y,
    }
}

fn glyph(bits: u8) -> String {
    char::from_u32(0x2800 + u32::from(bits)).map_or_else(String::new, String::from)
}
