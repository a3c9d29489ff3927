//! All hook points in data-flow order, and one tensor as a heatmap.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{
    Scene, cell_text, draw_computing, longest_label, position_label, row_label, shape, token_names, unit_at,
};
use crate::analysis::Shown;
use crate::engine::{Look, Request, Slot};
use crate::hooks::{Axis, HookName, Site, TensorName};
use crate::interventions::{Edge, Place, Target};
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Focus, Selection};
use crate::tui::command::{BLOCKS, CHANGES, COLOURS, Command, GRADIENTS};
use crate::tui::gradient;
use crate::tui::layout::Frame;
use crate::tui::text::{num, pad, put, put_line};
use crate::tui::widgets::bar::histogram;
use crate::tui::widgets::heatmap::{Form, Plot, Sheet, Zoom};

struct Layout {
    tree: Rect,
    rule: u16,
    title: Rect,
    sheet: Sheet,
}

fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let tree_width = if area.width >= 120 { 36 } else { 32 };
    let tree = Rect { width: tree_width, ..area };
    let right = Rect { x: area.x + tree_width + 2, width: area.width - tree_width - 2, ..area };
    let label_width = match app.stages_view().axes().0 {
        Axis::Pos if right.width >= 90 => 20,
        Axis::Pos => 14,
        _ => 8,
    };
    let label_width = label_width.min(3 + longest_label(run));
    let sheet = Sheet::new(right, 3, label_width);
    let names_keys = app.stages_view().axes().1 == Axis::Key && app.zoom == 0;
    Layout {
        tree,
        rule: area.x + tree_width,
        title: Rect { height: 1, ..right },
        sheet: if names_keys { sheet.naming(&token_names(run), app.theme) } else { sheet },
    }
}

/// The current layout of the tensor on the screen.
fn plot(app: &App, run: &Run) -> Option<Plot> {
    let frame = Frame::new(app.size)?;
    Some(plot_in(app, run, layout(app, run, frame.body).sheet.plot))
}

fn plot_in(app: &App, run: &Run, area: Rect) -> Plot {
    let view = app.stages_view();
    Plot::new(
        area,
        view.dims(run),
        Zoom { level: app.zoom, origin: app.origin },
        Form::new(view.axes().1, app.theme).with_numbers(),
    )
}

/// It has no state of its own.
pub type State = ();

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            BLOCKS,
            COLOURS,
            CHANGES,
            &[Command::ZoomIn, Command::ZoomOut, Command::ZoomReset, Command::Knockout, Command::Direction],
            GRADIENTS,
        ]
    }

    fn place_in_flow(&self, app: &App) -> HookName {
        app.selection.hook
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        match app.focus {
            Focus::Tree => &[("↑↓", "tensor"), ("←→", "token"), ("Enter", "into the map")],
            Focus::Map => &[("←↑↓→", "cell"), ("Esc", "tensor list")],
        }
    }

    /// A click on the map moves the keys to it.
    fn click(&self, app: &mut App, run: &Run, area: Rect, x: u16, y: u16) {
        if let Some(selection) = self.hit(app, run, area, x, y) {
            app.selection = selection;
            let tree = layout(app, run, area).tree.contains((x, y).into());
            app.focus = if tree { Focus::Tree } else { Focus::Map };
        }
    }

    /// Over the map, the wheel zooms.
    fn scroll(&self, app: &mut App, run: &Run, area: Rect, (x, y): (u16, u16), up: bool) -> bool {
        let Some(selection) = self.hit(app, run, area, x, y) else { return false };
        if layout(app, run, area).tree.contains((x, y).into()) {
            return false;
        }
        app.selection = selection;
        zoom(app, if up { 1 } else { -1 });
        self.settle(app);
        true
    }

    fn shown_as(&self, app: &App) -> Shown {
        app.gradient.shown
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        match app.focus {
            Focus::Tree => go_in_tree(app, run, right, down),
            Focus::Map => go_in_map(app, run, right, down),
        }
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        app.focus = if app.focus == Focus::Tree { Focus::Map } else { Focus::Tree };
        Vec::new()
    }

    /// Moves the window of the map so that it contains the selection, but not beyond the edge.
    fn settle(&self, app: &mut App) {
        let Some(run) = app.run.clone() else { return };
        let Some(plot) = plot(app, &run) else { return };
        let view = app.stages_view();
        let (n_rows, n_columns) = view.dims(&run);
        let (row, column) = app.cell_in(view);
        let (row, column) = (row.min(n_rows.saturating_sub(1)), column.min(n_columns.saturating_sub(1)));
        let shift = |at: usize, window: &Range<usize>| {
            if at < window.start {
                at
            } else if at >= window.end {
                at + 1 - window.len().min(at + 1)
            } else {
                window.start
            }
        };
        app.origin = (shift(row, &plot.window.rows), shift(column, &plot.window.columns));
    }

    fn tensor(&self, app: &App) -> TensorName {
        app.selection.tensor()
    }

    fn subject(&self, app: &App) -> (HookName, Option<usize>) {
        let s = &app.selection;
        (s.hook, app.stages_view().has_heads().then_some(s.head))
    }

    fn unit(&self, app: &App, run: &Run) -> Result<(TensorName, usize), &'static str> {
        match app.selection.made {
            Some(_) => Err("examples of features are on the screen Features"),
            None => unit_at(self.subject(app), app.selection.column, run.config()),
        }
    }

    /// In the map, the row or neuron; in the list, the whole tensor.
    fn place(&self, app: &App) -> Result<Place, &'static str> {
        let (s, in_map) = (app.selection, app.focus == Focus::Map);
        if s.made.is_some() {
            return Err("features are changed on the screen Features");
        }
        let HookName { site, layer } = s.hook;
        let target = match (site, layer) {
            (Site::AttnScores | Site::Pattern, Some(layer)) => Target::Head(Site::Z.at(layer), s.head),
            (Site::MlpPost, Some(layer)) if in_map => Target::Neuron { layer, neuron: s.column },
            (Site::ResidPost, Some(layer)) if !in_map => Target::Layer(layer),
            (Site::Probs, _) => {
                return Err("nothing follows the probabilities: change something before them");
            }
            _ if s.hook.point().axes.contains(&Axis::Head) => Target::Head(s.hook, s.head),
            _ => Target::Tensor(s.hook),
        };
        let row = in_map && !matches!(site, Site::MlpPost | Site::AttnScores | Site::Pattern);
        Ok(Place { target, position: row.then_some(s.position) })
    }

    fn edge(&self, app: &App) -> Result<Edge, &'static str> {
        let Selection { hook, head, position, key, .. } = app.selection;
        let map = matches!(hook.site, Site::AttnScores | Site::Pattern) && app.focus == Focus::Map;
        let layer = hook.layer.filter(|_| map);
        let layer =
            layer.ok_or("edges are cut in an attention map: select one, and press Enter to move into it")?;
        Ok(Edge { layer, head, query: position, key })
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let view = app.stages_view();
        let plot = plot_in(app, run, layout(app, run, area).sheet.plot);
        vec![
            (Slot::Main, plot.look(view, app.pooling, app.range_for(view.quantity()))),
            (Slot::Row, Look::Row { view, row: app.selection.position }),
        ]
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let layout = layout(app, run, area);
        draw_tree(app, run, layout.tree, buffer);
        for y in area.top()..area.bottom() {
            put(buffer, layout.rule, y, 1, "│", app.theme.faint());
        }
        draw_map(app, run, &layout, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
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
            Span::styled(app.gradient.prefix(), theme.accent()),
            Span::styled(cell_text(row, column, look.values.get(column).copied()), theme.accent()),
            Span::styled(format!("  {row_words} × {where_column}   "), theme.text()),
            Span::styled("row ", theme.dim()),
            Span::styled(stats_text(&look.stats), theme.text()),
        ];
        let top: Vec<_> = look.largest.iter().take(12).map(|(i, x)| format!("{i}:{}", num(*x))).collect();
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

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let layout = layout(app, run, area);
        if layout.tree.contains((x, y).into()) {
            let items = tree(app, run);
            let first = first_item(&items, app.selection.tensor(), layout.tree.height.into());
            let TensorName { hook, made } = match items.get(first + usize::from(y - area.y))? {
                Item::Tensor(name) => *name,
                Item::Before => Site::Embed.once().into(),
                Item::Block(layer) => Site::ResidPre.at(*layer).into(),
                Item::After => Site::LnFinalScale.once().into(),
            };
            let layer = hook.layer.unwrap_or(app.selection.layer);
            return Some(Selection { hook, made, layer, ..app.selection });
        }
        let (row, column) = plot_in(app, run, layout.sheet.plot).hit(x, y)?;
        let mut selection = Selection { position: row, ..app.selection };
        match app.stages_view().axes().1 {
            Axis::Key => selection.key = column,
            Axis::One => {}
            _ => selection.column = column,
        }
        Some(selection)
    }
}

/// Shows fewer values, or more.
pub fn zoom(app: &mut App, by: i8) {
    let Some(run) = app.run.clone() else { return };
    let Some(before) = plot(app, &run) else { return };
    let view = app.stages_view();
    let deepest = Plot::deepest(before.area, view.dims(&run), Form::new(view.axes().1, app.theme));
    app.zoom = app.zoom.min(deepest).saturating_add_signed(by).min(deepest);
    // The selection moves to the middle of the new window.
    if let Some(plot) = plot(app, &run) {
        let (row, column) = app.cell_in(view);
        let middle = |at: usize, len: usize| at.saturating_sub(len / 2);
        app.origin = (middle(row, plot.window.rows.len()), middle(column, plot.window.columns.len()));
    }
}

fn go_in_tree(app: &mut App, run: &Run, right: isize, down: isize) {
    app.selection.position = moved(app.selection.position, right, run.n_tokens());
    if down != 0 {
        let names = listed(run);
        let at = names.iter().position(|name| *name == app.selection.tensor()).unwrap_or(0);
        app.select_tensor(names[moved(at, down, names.len())]);
    }
}

fn go_in_map(app: &mut App, run: &Run, right: isize, down: isize) {
    let view = app.stages_view();
    let (_, column) = app.cell_in(view);
    let column = moved(column, right, view.dims(run).1);
    let s = &mut app.selection;
    s.position = moved(s.position, down, run.n_tokens());
    match view.axes().1 {
        Axis::Key => s.key = column,
        Axis::One => {}
        _ => s.column = column,
    }
}

/// The tensors of the tree: all but those that are kept only on request.
fn listed(run: &Run) -> Vec<TensorName> {
    let mut names = run.model.tensors();
    names.retain(|name| !name.hook.point().on_request);
    names
}

/// A line of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Before,
    Block(usize),
    After,
    Tensor(TensorName),
}

/// The lines of the tree: all groups, and the hooks of the selected group.
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
            items.extend(listed(run).into_iter().filter(|name| group(name.hook) == head).map(Item::Tensor));
        }
    }
    items
}

/// The first line of the tree to show, so that the selection is visible.
fn first_item(items: &[Item], selected: TensorName, height: usize) -> usize {
    let at = items.iter().position(|item| *item == Item::Tensor(selected)).unwrap_or(0);
    at.saturating_sub(height / 2).min(items.len().saturating_sub(height))
}

fn draw_tree(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let items = tree(app, run);
    let height = usize::from(area.height);
    let first = first_item(&items, app.selection.tensor(), height);
    let below = items.len().saturating_sub(first + height);
    // What is above and below has columns of its own.
    let marks = if first > 0 || below > 0 { 4 } else { 0 };
    let width = usize::from(area.width) - marks;
    // The pane that the arrow keys move in has bright titles.
    let title = if app.focus == Focus::Tree { theme.strong() } else { theme.dim() };
    for (y, item) in (area.top()..area.bottom()).zip(items.iter().skip(first)) {
        let row = Rect { y, height: 1, width: width as u16, ..area };
        let heading = match item {
            Item::Tensor(of) => {
                let dims = shape(&of.shape(run.config(), run.n_tokens())).replace(", ", ",");
                let name = of.made.map_or_else(
                    || of.hook.point().name.replace("hook_", ""),
                    |made| format!("  .{}", made.name()),
                );
                let selected = *of == app.selection.tensor();
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
        put(buffer, row.x, y, row.width, &heading, title);
    }
    if below > 0 {
        let text = format!("↓{below}");
        put(buffer, area.right().saturating_sub(3), area.bottom() - 1, 3, &text, theme.dim());
    }
    if first > 0 {
        put(buffer, area.right().saturating_sub(3), area.y, 3, &format!("↑{first}"), theme.dim());
    }
}

fn draw_map(app: &App, run: &Run, layout: &Layout, buffer: &mut Buffer) {
    let theme = app.theme;
    let name = app.selection.tensor();
    let mut title = vec![
        Span::styled(name.to_string(), if app.focus == Focus::Map { theme.strong() } else { theme.text() }),
        Span::styled(format!("  {}", shape(&name.shape(run.config(), run.n_tokens()))), theme.dim()),
    ];
    if app.stages_view().has_heads() {
        title.push(Span::styled(format!("  head {}", app.selection.head), theme.accent()));
        title.push(Span::styled(format!(" of {}, [ ] others", run.config().n_head), theme.dim()));
    }
    put_line(buffer, layout.title, &title);
    let mut formula = vec![
        Span::styled(format!("= {}", name.formula()), theme.focus()),
        Span::styled(format!("   {}", name.doc()), theme.dim()),
    ];
    if app.gradient.shown != Shown::Value {
        formula = gradient::title(app, Slot::Main);
    }
    put_line(buffer, Rect { y: layout.title.y + 1, ..layout.title }, &formula);
    match app.map(Slot::Main) {
        Some(map) if map.view == app.stages_view() => {
            let plot = plot_in(app, run, layout.sheet.plot);
            let (row, column) = app.cell_in(map.view);
            let label = |row: usize| row_label(run, map.view, row);
            layout.sheet.draw(buffer, &plot, map, &label, (row, column), theme);
            layout.sheet.draw_names(buffer, &plot, &token_names(run), column, theme);
            if let Some(cell) = plot.words_of(row, column).filter(|_| plot.numbers) {
                buffer.set_style(cell.intersection(buffer.area), theme.selected());
            }
        }
        _ => {
            draw_computing(buffer, layout.sheet.plot, theme);
        }
    }
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
