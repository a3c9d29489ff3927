//! One token's way into the network: its row of wte, its position's row of wpe, and their sum.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Scene, position_label, shape, verdict};
use crate::analysis::walk::Check;
use crate::analysis::{Shown, View, ViewSource};
use crate::engine::{Look, Request, RowLook, Slot};
use crate::hooks::{Axis, HookName, Site};
use crate::picture::grid::Pooling;
use crate::picture::range::{Range, RangeMode};
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Focus, Selection};
use crate::tui::command::{CHANGES, COLOURS, Command, GRADIENTS};
use crate::tui::gradient;
use crate::tui::text::{fit, num, pad, put, put_line};
use crate::tui::widgets::heatmap::{self, Form, Plot, Sheet, Zoom};
use crate::tui::widgets::row_strip;

const WTE: View = View::of(ViewSource::Wte, 0);
const WPE: View = View::of(ViewSource::Wpe, 0);

/// Indices of the seven strips in [`Slot::Strip`].
const WTE_ROWS: usize = 0;
const WPE_ROWS: usize = 3;
const SUM: usize = 6;

/// Width of the label before a strip.
const LABEL: u16 = 18;

/// The input of block 0.
const ENCODED: HookName = HookName { site: Site::ResidPre, layer: Some(0) };

fn encoder(app: &App) -> View {
    View::hook(ENCODED, 0).showing(app.gradient.shown)
}

struct Layout {
    /// wte and wpe: title line, miniature, three rows.
    tables: [Table; 2],
    sum: Rect,
    map_title: Rect,
    sheet: Sheet,
}

#[derive(Clone, Copy)]
struct Table {
    title: Rect,
    mini: Rect,
    rows: Rect,
}

fn layout(area: Rect) -> Layout {
    let roomy = area.height >= 26;
    let half = area.width / 2;
    let lines = if roomy { 5 } else { 4 };
    let mini_width = if area.width >= 120 { 14 } else { 6 };
    let table = |x: u16| Table {
        title: Rect { x, y: area.y, width: half - 2, height: 1 },
        mini: Rect { x, y: area.y + 1, width: mini_width, height: lines - 1 },
        rows: Rect { x: x + mini_width + 1, y: area.y + 1, width: half - mini_width - 3, height: lines - 1 },
    };
    let gap = u16::from(roomy);
    let sum = Rect { y: area.y + lines + gap, height: 4, ..area };
    let below = sum.bottom() + gap;
    let lower = Rect { y: below, height: area.bottom().saturating_sub(below), ..area };
    Layout {
        tables: [table(area.x), table(area.x + half)],
        sum,
        map_title: Rect { height: 1.min(lower.height), ..lower },
        sheet: Sheet::new(lower, 2, LABEL),
    }
}

fn mini_plot(app: &App, run: &Run, view: View, area: Rect) -> Plot {
    Plot::new(area, view.dims(run), Zoom::default(), Form::new(Axis::Model, app.theme))
}

/// A cell of a miniature pools so many values that only means differ visibly.
fn mini_look(app: &App, run: &Run, view: View, area: Rect) -> Look {
    mini_plot(app, run, view, area).look(view, Pooling::Mean, RangeMode::Shown)
}

fn plot(app: &App, run: &Run, area: Rect) -> Plot {
    Plot::new(area, encoder(app).dims(run), Zoom::default(), Form::new(Axis::Model, app.theme))
}

/// The row `around` with the one before and the one after, if they exist.
fn neighbours(around: usize, n: usize) -> [Option<usize>; 3] {
    [around.checked_sub(1), Some(around), Some(around + 1).filter(|&i| i < n)]
}

/// It has no state of its own.
pub type State = ();

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[COLOURS, CHANGES, &[Command::Direction], GRADIENTS]
    }

    fn place_in_flow(&self, _app: &App) -> HookName {
        Site::ResidPre.at(0)
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("←→", "token"), ("↑↓", "channel"), ("Enter", "in Stages")]
    }

    fn shown_as(&self, app: &App) -> Shown {
        app.gradient.shown
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let (s, n_embd) = (&mut app.selection, run.config().n_embd);
        s.position = moved(s.position, right, run.n_tokens());
        s.column = moved(s.column.min(n_embd - 1), down, n_embd);
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        app.focus = Focus::Map;
        app.open_in_stages(ENCODED);
        Vec::new()
    }

    fn subject(&self, _app: &App) -> (HookName, Option<usize>) {
        (ENCODED, None)
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let layout = layout(area);
        let position = app.selection.position;
        let range = app.range_for(encoder(app).quantity());
        let id = run.tokens[position] as usize;
        let mut looks = vec![
            (Slot::Wte, mini_look(app, run, WTE, layout.tables[0].mini)),
            (Slot::Wpe, mini_look(app, run, WPE, layout.tables[1].mini)),
            (Slot::Main, plot(app, run, layout.sheet.plot).look(encoder(app), app.pooling, range)),
            (Slot::Strip(SUM), Look::Row { view: View::hook(ENCODED, 0), row: position }),
        ];
        for (view, around, first) in [(WTE, id, WTE_ROWS), (WPE, position, WPE_ROWS)] {
            for (i, row) in neighbours(around, view.dims(run).0).into_iter().enumerate() {
                // Without a neighbour, the row itself is a placeholder, and is not drawn.
                looks.push((Slot::Strip(first + i), Look::Row { view, row: row.unwrap_or(around) }));
            }
        }
        looks
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let layout = layout(area);
        let theme = app.theme;
        let position = app.selection.position;
        let id = run.tokens[position];
        let tokenizer = &run.model.tokenizer;
        let name_token = |row: usize| format!("{row} {}", tokenizer.show(row as u32));
        let c = run.config();
        draw_table(
            app,
            run,
            layout.tables[0],
            (WTE, Slot::Wte, WTE_ROWS, id as usize),
            &[
                Span::styled("wte", theme.strong()),
                Span::styled(format!(" {} row ", shape(&[c.vocab_size, c.n_embd])), theme.dim()),
                Span::styled(name_token(id as usize), theme.accent()),
                Span::styled("  of the token embedding", theme.dim()),
            ],
            &name_token,
            buffer,
        );
        draw_table(
            app,
            run,
            layout.tables[1],
            (WPE, Slot::Wpe, WPE_ROWS, position),
            &[
                Span::styled("wpe", theme.strong()),
                Span::styled(format!(" {} row ", shape(&[c.n_positions, c.n_embd])), theme.dim()),
                Span::styled(position.to_string(), theme.accent()),
                Span::styled("  of the positional embedding", theme.dim()),
            ],
            &|row| format!("position {row}"),
            buffer,
        );
        draw_sum(app, run, layout.sum, buffer);
        let mut what = vec![
            Span::styled("x", theme.strong()),
            Span::styled(
                format!(" {} what enters block 0: all positions", shape(&[run.n_tokens(), c.n_embd])),
                theme.dim(),
            ),
        ];
        if app.gradient.shown != Shown::Value {
            what.push(Span::raw("   "));
            what.extend(gradient::title(app, Slot::Main));
        }
        put_line(buffer, layout.map_title, &what);
        if let Some(map) = app.map(Slot::Main).filter(|map| map.view == encoder(app)) {
            let plot = plot(app, run, layout.sheet.plot);
            let label = |row: usize| position_label(run, row);
            layout.sheet.draw(buffer, &plot, map, &label, (position, app.selection.column), theme);
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let position = app.selection.position;
        let id = run.tokens[position];
        let bytes = run.model.tokenizer.bytes(id).unwrap_or_default();
        let bytes: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        // A model without a tokenizer knows none.
        let bytes = if bytes.is_empty() { String::new() } else { format!(", bytes {}", bytes.join(" ")) };
        let first = vec![
            Span::styled(run.token_text(position), theme.accent()),
            Span::styled(format!("  id {id}{bytes}, position {position}"), theme.text()),
            Span::styled("   x[t] = wte[id] + wpe[t]", theme.focus()),
        ];
        let mut second = Vec::new();
        // A difference is no sum of rows of the weights.
        let rows = [WTE_ROWS + 1, WPE_ROWS + 1, SUM].map(|i| app.row(Slot::Strip(i)));
        if let ([Some(wte), Some(wpe), Some(x)], false) = (rows, app.differs()) {
            let sums: Vec<f32> = wte.values.iter().zip(&wpe.values).map(|(a, b)| a + b).collect();
            let check =
                Check::new("x = wte + wpe", &x.values, &sums, 1e-6 * Range::of(&x.values).limit.max(1.0));
            second.extend(verdict(&check, theme));
        }
        vec![first, second]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let (position, column) = plot(app, run, layout(area).sheet.plot).hit(x, y)?;
        Some(Selection { position, column, ..app.selection })
    }
}

/// A matrix in miniature, and three of its rows enlarged.
fn draw_table(
    app: &App,
    run: &Run,
    table: Table,
    (view, mini, first, around): (View, Slot, usize, usize),
    title: &[Span],
    name: &dyn Fn(usize) -> String,
    buffer: &mut Buffer,
) {
    let theme = app.theme;
    put_line(buffer, table.title, title);
    if let Some(map) = app.map(mini) {
        let plot = mini_plot(app, run, view, table.mini);
        heatmap::draw_map(buffer, &plot, map, theme, None);
        // The position of the row in the whole matrix.
        if let Some(y) = plot.line_of(around) {
            let width = plot.covered().width;
            put(buffer, table.mini.x + width, y, 1, "◂", theme.accent());
        }
    }
    let looks: Vec<_> =
        (0..3).map(|i| app.row(Slot::Strip(first + i)).filter(|row| row.view == view)).collect();
    let range = Range::of(looks.iter().flatten().flat_map(|row| &row.values));
    let rows = neighbours(around, view.dims(run).0);
    for (i, (row, look)) in rows.into_iter().zip(&looks).enumerate() {
        let (Some(row), Some(look)) = (row, look) else { continue };
        let y = table.rows.y + i as u16;
        let selected = row == around;
        let label =
            format!("{}{}", if selected { '▸' } else { ' ' }, fit(&name(row), usize::from(LABEL) - 4));
        put(buffer, table.rows.x, y, LABEL - 2, &label, if selected { theme.accent() } else { theme.dim() });
        let strip = Rect {
            x: table.rows.x + LABEL - 2,
            y,
            width: table.rows.width.saturating_sub(LABEL - 2),
            height: 1,
        };
        row_strip::draw(buffer, strip, &look.values, &range, app.pooling, theme);
    }
    if let Some(Some(look)) = looks.get(1)
        && table.rows.height > 3
    {
        let text = ends(&look.values, table.rows.width.into());
        put(buffer, table.rows.x + 1, table.rows.y + 3, table.rows.width - 1, &text, theme.text());
    }
}

/// The first and last values of a row, as many as fit.
fn ends(values: &[f32], width: usize) -> String {
    let each = (width.saturating_sub(8) / 18).clamp(1, values.len().max(2) / 2);
    let words = |part: &[f32]| part.iter().map(|x| num(*x)).collect::<Vec<_>>().join(" ");
    format!(
        "{} … {}",
        words(&values[..each.min(values.len())]),
        words(&values[values.len().saturating_sub(each)..])
    )
}

/// wte[id] + wpe[t] = x[t], as three strips on one range of colours.
fn draw_sum(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let position = app.selection.position;
    let id = run.tokens[position];
    let rows = [WTE_ROWS + 1, WPE_ROWS + 1, SUM].map(|i| app.row(Slot::Strip(i)));
    let range = Range::of(rows.iter().flatten().flat_map(|row| &row.values));
    let names = [format!("  wte[{id}]"), format!("+ wpe[{position}]"), format!("= x[{position}]")];
    let strip_width = area.width.saturating_sub(LABEL + 12);
    for (i, (name, row)) in names.iter().zip(&rows).enumerate() {
        let y = area.y + i as u16;
        put(buffer, area.x, y, LABEL - 1, &pad(name, 16), if i == 2 { theme.accent() } else { theme.text() });
        let Some(row) = row else { continue };
        let strip = Rect { x: area.x + LABEL, y, width: strip_width, height: 1 };
        row_strip::draw(buffer, strip, &row.values, &range, app.pooling, theme);
        let (per_cell, wide) = row_strip::fit(row.values.len(), strip_width);
        let end = strip.x + (row.values.len().div_ceil(per_cell) * wide) as u16;
        put(
            buffer,
            end.min(strip.right()) + 1,
            y,
            11,
            &format!("‖x‖ {}", num(row.stats.norm as f32)),
            theme.dim(),
        );
    }
    // The mark of the selected channel, and its sum.
    let Some([Some(wte), Some(wpe), Some(x)]) = Some(rows) else { return };
    let channel = app.selection.column.min(x.values.len().saturating_sub(1));
    let (per_cell, wide) = row_strip::fit(x.values.len(), strip_width);
    let value = |row: &RowLook| row.values.get(channel).copied().map_or_else(String::new, num);
    let text = format!("channel {channel}: {} + {} = {}", value(wte), value(wpe), value(x));
    let at = area.x + LABEL + ((channel / per_cell) * wide) as u16;
    let at = at.min(area.right().saturating_sub(1));
    let y = area.y + 3;
    let text_width = text.chars().count() as u16;
    put(buffer, at, y, 1, "▴", theme.accent());
    if at + 2 + text_width <= area.right() {
        put(buffer, at + 2, y, text_width, &text, theme.accent());
    } else if let Some(x) = at.checked_sub(text_width + 1) {
        put(buffer, x, y, text_width, &text, theme.accent());
    }
}
