//! Every hook point in data-flow order, and the tensor of one of them as a heatmap.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Hit, cell_text, position_label, row_label, shape};
use crate::engine::{Look, Slot};
use crate::hooks::{Axis, HookName, Site};
use crate::run::Run;
use crate::tui::app::{App, Focus, Selection};
use crate::tui::layout::Frame;
use crate::tui::text::{fit, num, pad, put, put_line};
use crate::tui::widgets::bar::histogram;
use crate::tui::widgets::heatmap::{self, Form, Plot, Zoom};

struct Layout {
    tree: Rect,
    rule: u16,
    title: Rect,
    axis: u16,
    labels: Rect,
    plot: Rect,
    legend: Rect,
}

fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let tree_width = if area.width >= 120 { 34 } else { 29 };
    let tree = Rect { width: tree_width, ..area };
    let right = Rect { x: area.x + tree_width + 2, width: area.width - tree_width - 2, ..area };
    let label_width = match app.stages_view().axes().0 {
        Axis::Pos if right.width >= 90 => 20,
        Axis::Pos => 14,
        _ => 8,
    };
    let label_width = label_width.min(3 + (0..run.n_tokens()).map(|p| label_len(run, p)).max().unwrap_or(0));
    let top = 3.min(right.height);
    let plot = Rect {
        x: right.x + label_width,
        y: right.y + top,
        width: right.width.saturating_sub(label_width),
        height: right.height.saturating_sub(top + heatmap::legend_lines(right.width)),
    };
    Layout {
        tree,
        rule: area.x + tree_width,
        title: Rect { height: 1, ..right },
        axis: right.y + 2,
        labels: Rect { width: label_width, y: plot.y, height: plot.height, ..right },
        plot,
        legend: right,
    }
}

fn label_len(run: &Run, position: usize) -> u16 {
    u16::try_from(position_label(run, position).chars().count()).unwrap_or(u16::MAX)
}

/// How the tensor is laid out on the screen now.
pub fn plot(app: &App, run: &Run) -> Option<Plot> {
    let frame = Frame::new(app.size)?;
    Some(plot_in(app, run, layout(app, run, frame.body).plot))
}

fn plot_in(app: &App, run: &Run, area: Rect) -> Plot {
    let view = app.stages_view();
    Plot::new(
        area,
        view.dims(run),
        Zoom { level: app.zoom, origin: app.origin },
        Form::new(view.axes().1, app.theme),
    )
}

pub fn wanted(app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
    let view = app.stages_view();
    let plot = plot_in(app, run, layout(app, run, area).plot);
    vec![
        (Slot::Main, plot.look(view, app.pooling, app.range_for(view.quantity()))),
        (Slot::Row, Look::Row { view, row: app.selection.position }),
    ]
}

/// A line of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Before,
    Block(usize),
    After,
    Hook(HookName),
}

/// The lines of the tree: all groups, and the hooks of the one that holds the selection.
fn tree(app: &App, run: &Run) -> Vec<Item> {
    let group = |hook: HookName| match hook.layer {
        Some(layer) => Item::Block(layer),
        None if hook.site < Site::ResidPre => Item::Before,
        None => Item::After,
    };
    let open = group(app.selection.hook);
    let mut items = Vec::new();
    let blocks = (0..run.config().n_layer).map(Item::Block);
    for head in std::iter::once(Item::Before).chain(blocks).chain([Item::After]) {
        items.push(head);
        if head == open {
            let hooks = HookName::all(run.config()).into_iter().filter(|hook| group(*hook) == head);
            items.extend(hooks.filter(|hook| !hook.point().on_request).map(Item::Hook));
        }
    }
    items
}

/// First line of the tree to show, so that the selection is in sight.
fn first_item(items: &[Item], selected: HookName, height: usize) -> usize {
    let at = items.iter().position(|item| *item == Item::Hook(selected)).unwrap_or(0);
    at.saturating_sub(height / 2).min(items.len().saturating_sub(height))
}

pub fn draw(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let layout = layout(app, run, area);
    draw_tree(app, run, layout.tree, buffer);
    for y in area.top()..area.bottom() {
        put(buffer, layout.rule, y, 1, "│", app.theme.faint());
    }
    draw_map(app, run, &layout, buffer);
}

fn draw_tree(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let items = tree(app, run);
    let height = usize::from(area.height);
    let first = first_item(&items, app.selection.hook, height);
    let width = usize::from(area.width);
    for (y, item) in (area.top()..area.bottom()).zip(items.iter().skip(first)) {
        let row = Rect { y, height: 1, ..area };
        let heading = match item {
            Item::Hook(hook) => {
                let dims = shape(&hook.shape(run.config(), run.n_tokens())).replace(", ", ",");
                let name = hook.point().name.replace("hook_", "");
                let selected = *hook == app.selection.hook;
                let mark = if selected { '▸' } else { ' ' };
                let text = format!(" {mark}{}{dims}", pad(&name, width.saturating_sub(3 + dims.len())));
                let style = match (selected, app.focus) {
                    (true, Focus::Tree) => theme.selected(),
                    (true, Focus::Map) => theme.accent(),
                    (false, _) => theme.text(),
                };
                put(buffer, row.x, y, row.width, &text, style);
                continue;
            }
            Item::Before => "embeddings".to_owned(),
            Item::Block(layer) => format!("block {layer}"),
            Item::After => "final LayerNorm, logits".to_owned(),
        };
        put(buffer, row.x, y, row.width, &heading, theme.strong());
    }
    let below = items.len().saturating_sub(first + height);
    if below > 0 {
        let text = format!("↓{below}");
        put(buffer, area.right().saturating_sub(4), area.bottom() - 1, 4, &text, theme.dim());
    }
    if first > 0 {
        put(buffer, area.right().saturating_sub(4), area.y, 4, &format!("↑{first}"), theme.dim());
    }
}

fn draw_map(app: &App, run: &Run, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let hook = app.selection.hook;
    let point = hook.point();
    let mut title = vec![
        Span::styled(hook.to_string(), theme.strong()),
        Span::styled(format!("  {}", shape(&hook.shape(run.config(), run.n_tokens()))), theme.dim()),
    ];
    if app.stages_view().has_heads() {
        title.push(Span::styled(format!("  head {}", app.selection.head), theme.accent()));
        title.push(Span::styled(format!(" of {}, [ ] others", run.config().n_head), theme.dim()));
    }
    put_line(buffer, layout.title, &title);
    let formula = [
        Span::styled(format!("= {}", point.formula), theme.focus()),
        Span::styled(format!("   {}", point.doc), theme.dim()),
    ];
    put_line(buffer, Rect { y: layout.title.y + 1, ..layout.title }, &formula);
    match app.map(Slot::Main) {
        Some(map) if map.view == app.stages_view() => {
            let plot = plot_in(app, run, layout.plot);
            let (row, column) = app.cell_in(map.view);
            heatmap::draw_axis(buffer, layout.axis, &plot, map.view.axes().1, column, theme);
            let label = |row: usize| {
                fit(&row_label(run, map.view, row), usize::from(layout.labels.width).saturating_sub(2))
            };
            heatmap::draw_labels(buffer, layout.labels, &plot, &label, row, theme);
            heatmap::draw(buffer, &plot, map, theme, Some((row, column)));
            if plot.numbers
                && let (Some(y), Some(x)) = (plot.line_of(row), plot.column_of(column))
            {
                let cell =
                    Rect { x, y: y + plot.cell.0.saturating_sub(2) / 4, width: plot.cell.1, height: 1 };
                buffer.set_style(cell.intersection(buffer.area), theme.selected());
            }
            heatmap::draw_legend(buffer, layout.legend, &plot, map, map.stats.broken, theme);
        }
        _ => {
            put(buffer, layout.plot.x, layout.plot.y, layout.plot.width, "…", theme.dim());
        }
    }
}

pub fn inspect<'a>(app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
    let theme = app.theme;
    let view = app.stages_view();
    let (row, column) = app.cell_in(view);
    let Some(look) = app.row(Slot::Row).filter(|look| look.view == view) else { return Vec::new() };
    let (row_axis, column_axis) = view.axes();
    let where_column = match column_axis {
        Axis::Key => position_label(run, column),
        Axis::Vocab => format!("token {}", run.model.tokenizer.show(column as u32)),
        Axis::One => "scale".into(),
        axis => format!("{} {column}", axis.noun()),
    };
    let row_words = if row_axis == Axis::Pos { run.token_text(row) } else { row.to_string() };
    let first = vec![
        Span::styled(cell_text(row, column, look.values.get(column).copied()), theme.accent()),
        Span::styled(format!("  {row_words} × {where_column}   "), theme.text()),
        Span::styled("row ", theme.dim()),
        Span::styled(stats_text(&look.stats), theme.text()),
    ];
    let top: Vec<_> = look.largest.iter().map(|(i, x)| format!("{i}:{}", num(*x))).collect();
    let second = vec![
        Span::styled(histogram(&look.histogram), theme.focus()),
        Span::styled(" histogram of the row   ", theme.dim()),
        Span::styled("largest ", theme.dim()),
        Span::styled(top.join("  "), theme.text()),
    ];
    let mut lines = vec![first, second];
    if let Some(map) = app.map(Slot::Main).filter(|map| map.view == view) {
        lines.push(vec![
            Span::styled("tensor ", theme.dim()),
            Span::styled(stats_text(&map.stats), theme.text()),
            Span::styled(
                format!(
                    "  min {}  max {}  ({} × {})",
                    num(map.stats.min),
                    num(map.stats.max),
                    map.grid.dims.0,
                    map.grid.dims.1
                ),
                theme.text(),
            ),
        ]);
    }
    lines
}

fn stats_text(stats: &crate::picture::stats::Stats) -> String {
    let mut text = format!(
        "mean {}  σ {}  ‖x‖ {}",
        num(stats.mean as f32),
        num(stats.std as f32),
        num(stats.norm as f32)
    );
    if stats.masked > 0 {
        text.push_str(&format!("  {} masked", stats.masked));
    }
    if stats.broken > 0 {
        text.push_str(&format!("  {} NaN or inf", stats.broken));
    }
    text
}

pub fn hit(app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Hit> {
    let layout = layout(app, run, area);
    if layout.tree.contains((x, y).into()) {
        let items = tree(app, run);
        let first = first_item(&items, app.selection.hook, layout.tree.height.into());
        let hook = match items.get(first + usize::from(y - area.y))? {
            Item::Hook(hook) => *hook,
            Item::Before => Site::Embed.once(),
            Item::Block(layer) => Site::ResidPre.at(*layer),
            Item::After => Site::LnFinalScale.once(),
        };
        let layer = hook.layer.unwrap_or(app.selection.layer);
        return Some(Hit { selection: Selection { hook, layer, ..app.selection }, map: false });
    }
    let (row, column) = plot_in(app, run, layout.plot).hit(x, y)?;
    let mut selection = Selection { position: row, ..app.selection };
    match app.stages_view().axes().1 {
        Axis::Key => selection.key = column,
        Axis::One => {}
        _ => selection.column = column,
    }
    Some(Hit { selection, map: true })
}
