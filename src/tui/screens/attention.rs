//! All heads of a block as small maps, one of them large, and what the selected query reads.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::{Scene, head_place, longest_label, position_label, token_names};
use crate::analysis::{AttnStage, Shown, View, ViewSource};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{Axis, HookName, Quantity, Site};
use crate::interventions::Place;
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Focus, Selection};
use crate::tui::command::{BLOCKS, CHANGES, COLOURS, Command, GRADIENTS};
use crate::tui::gradient;
use crate::tui::text::{count, fixed, num, pad, put, put_line, short};
use crate::tui::widgets::bar;
use crate::tui::widgets::heatmap::{self, Form, Plot, Sheet, Zoom};

/// The least width for what a query reads, beside its map.
const READS: u16 = 34;

struct Layout {
    title: Rect,
    /// The small maps, one per head.
    heads: Vec<Rect>,
    stages: Rect,
    sheet: Sheet,
    reads: Rect,
}

fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let n_head = run.config().n_head;
    let left_width = (area.width * 2 / 5).min(90);
    let left = Rect { y: area.y + 2, width: left_width, height: area.height.saturating_sub(2), ..area };

    // The number of columns that makes the small maps largest; a terminal cell is twice as tall as wide.
    let size = |columns: usize| {
        let rows = n_head.div_ceil(columns);
        let width = usize::from(left.width) / columns;
        (width.saturating_sub(1)).min(2 * (usize::from(left.height) / rows).saturating_sub(1))
    };
    let columns = (1..=n_head).max_by_key(|&columns| (size(columns), columns)).unwrap_or(1);
    // Side by side without gaps: what they leave is for the large map.
    let wide = (left.width / columns as u16).min(size(columns) as u16 + 2);
    let high = left.height / n_head.div_ceil(columns) as u16;
    let taken = wide * columns as u16 + 2;
    let right = Rect { x: area.x + taken, width: area.width.saturating_sub(taken), ..area };
    let place = |head: usize| Rect {
        x: left.x + (head % columns) as u16 * wide,
        y: left.y + (head / columns) as u16 * high,
        width: wide,
        height: high,
    };

    let label_width = (longest_label(run) + 3).min(if right.width >= 90 { 20 } else { 13 });
    let names = token_names(run);
    let sheet_in = |area| Sheet::new(area, 3, label_width).naming(&names, app.theme);
    // What the query reads is beside the map or below it, whichever leaves more to the map.
    let n_reads = if area.height >= 30 { 8 } else { 3 };
    let reads = (n_reads + 1).min(right.height);
    let below = sheet_in(Rect { height: right.height - reads, ..right });
    let beside = sheet_in(Rect { width: right.width.saturating_sub(READS + 3), ..right });
    let covered = |sheet: &Sheet| main_plot(app, run, sheet.plot).covered();
    let (sheet, reads) = if covered(&beside).area() >= covered(&below).area() {
        let (x, y) = (covered(&beside).right() + 3, beside.axis);
        let height = beside.plot.bottom().saturating_sub(y);
        (beside, Rect { x, width: right.right().saturating_sub(x), y, height })
    } else {
        (below, Rect { y: right.bottom() - reads, height: reads, ..right })
    };
    Layout {
        title: Rect { height: 1, ..area },
        heads: (0..n_head).map(place).collect(),
        stages: Rect { y: right.y + 1, height: 1, ..right },
        sheet,
        reads,
    }
}

fn view(app: &App, head: usize) -> View {
    View::of(ViewSource::Stage(app.selection.layer, app.stage), head).showing(app.gradient.shown)
}

fn head_plot(app: &App, run: &Run, area: Rect) -> Plot {
    let inner = Rect {
        y: area.y + 1,
        width: area.width.saturating_sub(1),
        height: area.height.saturating_sub(1),
        ..area
    };
    let form = Form::new(Axis::Key, app.theme);
    Plot::new(inner, (run.n_tokens(), run.n_tokens()), Zoom::default(), form)
}

fn main_plot(app: &App, run: &Run, area: Rect) -> Plot {
    let form = Form::new(Axis::Key, app.theme).with_numbers();
    Plot::new(area, (run.n_tokens(), run.n_tokens()), Zoom::default(), form)
}

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The heads of all blocks are shown, rather than one of them.
    all: bool,
}

/// Shows the heads of all blocks, or one of them.
pub fn show_all(app: &mut App) {
    app.screens.attention.all = !app.screens.attention.all;
}

/// The map of every head: block down, head across; with a line for its name if there is room.
struct AllHeads {
    /// The size of the place of a head.
    cell: (u16, u16),
    named: bool,
    area: Rect,
    /// The blocks that are shown.
    layers: Range<usize>,
}

impl AllHeads {
    /// In `area`, with as many blocks around `layer` as have three lines each.
    fn new(run: &Run, area: Rect, layer: usize) -> Self {
        let config = run.config();
        let area = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
        let shown = config.n_layer.min(usize::from(area.height / 3)).max(1);
        let first = layer.saturating_sub(shown / 2).min(config.n_layer - shown);
        let cell = (area.width / config.n_head as u16, area.height / shown as u16);
        Self { cell, named: cell.1 >= 4, area, layers: first..first + shown }
    }

    fn place(&self, layer: usize, head: usize) -> Rect {
        let (width, height) = self.cell;
        let (x, y) = (head as u16 * width, (layer - self.layers.start) as u16 * height);
        Rect { x: self.area.x + x, y: self.area.y + y, width, height }.intersection(self.area)
    }

    fn plot(&self, app: &App, run: &Run, layer: usize, head: usize) -> Plot {
        let place = self.place(layer, head);
        let above = u16::from(self.named);
        let inner = Rect {
            y: place.y + above,
            width: place.width.saturating_sub(1),
            height: place.height.saturating_sub(above + u16::from(!self.named && self.cell.1 > 3)),
            ..place
        };
        let n = run.n_tokens();
        // The smallest ones use their whole places.
        let form = Form { square: self.named, ..Form::new(Axis::Key, app.theme) };
        Plot::new(inner, (n, n), Zoom::default(), form)
    }

    /// The blocks and heads that are shown.
    fn heads(&self, run: &Run) -> impl Iterator<Item = (usize, usize)> {
        let n_head = run.config().n_head;
        self.layers.clone().flat_map(move |layer| (0..n_head).map(move |head| (layer, head)))
    }

    fn draw(&self, app: &App, run: &Run, buffer: &mut Buffer) {
        let theme = app.theme;
        let n_head = run.config().n_head;
        let atlas = match app.seen.get(&Slot::Heads).map(|seen| &**seen) {
            Some(Seen::Heads(_, atlas)) if atlas.of.n_head == n_head => Some(&atlas.of),
            _ => None,
        };
        for (layer, head) in self.heads(run) {
            let place = self.place(layer, head);
            let selected = (layer, head) == (app.selection.layer, app.selection.head);
            let job = atlas.and_then(|atlas| atlas.job(layer, head));
            if let Some(map) = app.map(Slot::Head(layer * n_head + head)) {
                heatmap::draw_map(buffer, &self.plot(app, run, layer, head), map, theme, None);
            }
            let ink = match (selected, job) {
                (true, _) => theme.accent(),
                (_, Some(_)) => theme.strong(),
                _ => theme.dim(),
            };
            if self.named {
                let does = job.map_or_else(String::new, |(metric, share)| {
                    format!(" {} {}", metric.short(), short(share, 3))
                });
                let mark = if selected { '▸' } else { ' ' };
                let width = place.width.saturating_sub(1);
                put(buffer, place.x, place.y, width, &format!("{mark}{layer}.{head}{does}"), ink);
            } else if selected {
                put(buffer, place.x, place.y, place.width, "▸", ink);
            }
        }
    }
}

/// The title of the view of all heads.
fn title_of_all<'a>(app: &App, all: &AllHeads, run: &Run) -> Vec<Span<'a>> {
    let theme = app.theme;
    let n_layer = run.config().n_layer;
    let which = if all.layers.len() < n_layer {
        format!("blocks {}–{} of {n_layer}", all.layers.start, all.layers.end - 1)
    } else {
        "all blocks".to_owned()
    };
    vec![
        Span::styled("every head   ", theme.strong()),
        Span::styled(format!("{which} down, heads across · m: one head · Enter: this head"), theme.dim()),
        Span::styled(
            format!(
                "   the prompt above: what {} reads, mean over all heads",
                run.token_text(app.selection.position)
            ),
            theme.text(),
        ),
    ]
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            BLOCKS,
            COLOURS,
            CHANGES,
            &[Command::AttentionStage, Command::AllHeads, Command::Knockout, Command::Direction],
            GRADIENTS,
        ]
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        if app.screens.attention.all {
            return &[("←↑↓→", "head"), ("Enter", "its map"), ("Esc", "one head")];
        }
        &[("↑↓", "query"), ("←→", "key"), ("Enter", "in Stages")]
    }

    fn shown_as(&self, app: &App) -> Shown {
        app.gradient.shown
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        if app.screens.attention.all {
            app.selection.head = moved(app.selection.head, right, run.config().n_head);
            app.go_layer(run, down);
            return;
        }
        let (s, n) = (&mut app.selection, run.n_tokens());
        s.position = moved(s.position, down, n);
        s.key = moved(s.key, right, n);
    }

    fn back(&self, app: &mut App) {
        app.screens.attention.all = false;
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        if std::mem::take(&mut app.screens.attention.all) {
            return Vec::new();
        }
        app.focus = Focus::Map;
        app.open_in_stages(self.subject(app).0);
        Vec::new()
    }

    fn subject(&self, app: &App) -> (HookName, Option<usize>) {
        let site = if app.stage == AttnStage::Pattern { Site::Pattern } else { Site::AttnScores };
        (site.at(app.selection.layer), Some(app.selection.head))
    }

    fn place(&self, app: &App) -> Result<Place, &'static str> {
        Ok(head_place(app))
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let layout = layout(app, run, area);
        let range = |view: View| app.range_for(view.quantity());
        let mut looks = Vec::new();
        if app.screens.attention.all {
            let all = AllHeads::new(run, area, app.selection.layer);
            for (layer, head) in all.heads(run) {
                let view = View::of(ViewSource::Stage(layer, app.stage), head).showing(app.gradient.shown);
                let look = all.plot(app, run, layer, head).look(view, app.pooling, range(view));
                looks.push((Slot::Head(layer * run.config().n_head + head), look));
            }
            looks.push((Slot::Heads, Look::Heads));
            looks.push((Slot::Reads, Look::Reads { position: app.selection.position }));
            return looks;
        }
        for (head, &area) in layout.heads.iter().enumerate() {
            let view = view(app, head);
            looks.push((Slot::Head(head), head_plot(app, run, area).look(view, app.pooling, range(view))));
        }
        let view = view(app, app.selection.head);
        looks.push((Slot::Main, main_plot(app, run, layout.sheet.plot).look(view, app.pooling, range(view))));
        let pattern =
            View::of(ViewSource::Stage(app.selection.layer, AttnStage::Pattern), app.selection.head);
        looks.push((Slot::Row, Look::Row { view: pattern, row: app.selection.position }));
        let stage = Look::Row { view, row: app.selection.position };
        looks.push((Slot::Strip(0), stage));
        looks
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        if app.screens.attention.all {
            let all = AllHeads::new(run, area, app.selection.layer);
            put_line(buffer, Rect { height: 1, ..area }, &title_of_all(app, &all, run));
            all.draw(app, run, buffer);
            return;
        }
        let layout = layout(app, run, area);
        let selection = &app.selection;
        let title = [
            Span::styled(format!("block {}", selection.layer), theme.strong()),
            Span::styled(format!(" of {}, {{ }} others   ", run.config().n_layer), theme.dim()),
            Span::styled(format!("head {}.{}", selection.layer, selection.head), theme.accent()),
            Span::styled(format!(" of {}, [ ] others   ", run.config().n_head), theme.dim()),
            Span::styled(
                "down: query, the token that reads · across: key, the token that is read",
                theme.dim(),
            ),
        ];
        put_line(buffer, layout.title, &title);
        for (head, &area) in layout.heads.iter().enumerate() {
            let selected = head == selection.head;
            let name = format!("{}{}.{head}", if selected { '▸' } else { ' ' }, selection.layer);
            put(
                buffer,
                area.x,
                area.y,
                area.width,
                &name,
                if selected { theme.accent() } else { theme.dim() },
            );
            let map = app.map(Slot::Head(head)).filter(|map| map.view == view(app, head));
            if let Some(map) = map {
                let cell = selected.then_some((selection.position, selection.key));
                heatmap::draw_map(buffer, &head_plot(app, run, area), map, theme, cell);
            }
        }
        draw_stages(app, layout.stages, buffer);
        if let Some(map) = app.map(Slot::Main).filter(|map| map.view == view(app, selection.head)) {
            let plot = main_plot(app, run, layout.sheet.plot);
            let label = |row: usize| position_label(run, row);
            layout.sheet.draw(buffer, &plot, map, &label, (selection.position, selection.key), theme);
            layout.sheet.draw_names(buffer, &plot, &token_names(run), selection.key, theme);
        }
        draw_reads(app, run, layout.reads, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Selection { position, key, layer, head, .. } = app.selection;
        let value = |slot| app.row(slot).and_then(|row| row.values.get(key).copied());
        let stage_name = app.stage.name();
        let first = vec![
            Span::styled(
                format!("{} → {}", position_label(run, position).trim(), position_label(run, key).trim()),
                theme.accent(),
            ),
            Span::styled(format!("   {}{stage_name} ", app.gradient.prefix()), theme.dim()),
            Span::styled(value(Slot::Strip(0)).map_or_else(|| "…".into(), num), theme.strong()),
            Span::styled(if key > position { "   the future: masked" } else { "" }, theme.dim()),
        ];
        let mut second = vec![Span::styled(
            format!(
                "blocks.{layer}.attn.hook_{}, head {head}",
                if app.stage == AttnStage::Pattern { "pattern" } else { "attn_scores" }
            ),
            theme.dim(),
        )];
        if let Some(row) = app.row(Slot::Row).filter(|_| !app.differs()) {
            let terms = row.values.iter().filter(|p| **p != 0.0).map(|p| -p * p.log2());
            let entropy = fixed(terms.sum::<f32>(), 2);
            let sum: f32 = row.values.iter().sum();
            let said = format!("   this query: entropy {entropy} bits, sum {sum:.4}");
            second.push(Span::styled(said, theme.text()));
        }
        vec![first, second]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        if app.screens.attention.all {
            let all = AllHeads::new(run, area, app.selection.layer);
            let (layer, head) =
                all.heads(run).find(|&(layer, head)| all.place(layer, head).contains((x, y).into()))?;
            return Some(Selection { layer, head, ..app.selection });
        }
        let layout = layout(app, run, area);
        if let Some(head) = layout.heads.iter().position(|area| area.contains((x, y).into())) {
            return Some(Selection { head, ..app.selection });
        }
        let (position, key) = main_plot(app, run, layout.sheet.plot).hit(x, y)?;
        Some(Selection { position, key, ..app.selection })
    }

    fn click(&self, app: &mut App, run: &Run, area: Rect, x: u16, y: u16) {
        let stages = stages(app, layout(app, run, area).stages);
        let stage = stages.into_iter().find(|(_, _, place)| place.contains((x, y).into()));
        if let Some((stage, ..)) = stage.filter(|_| !app.screens.attention.all) {
            app.stage = stage;
        } else if let Some(selection) = self.hit(app, run, area, x, y) {
            app.selection = selection;
        }
    }

    fn token_shade(&self, app: &App, position: usize) -> Option<Color> {
        if app.screens.attention.all {
            let Seen::Reads(_, mean) = &**app.seen.get(&Slot::Reads)? else { return None };
            let most = mean.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
            return Some(app.theme.shade(Quantity::Probability, mean.get(position)? / most));
        }
        let share = *app.row(Slot::Row)?.values.get(position)?;
        if app.differs() {
            return Some(app.theme.shade(Quantity::Signed, share.clamp(-1.0, 1.0).midpoint(1.0)));
        }
        let limit = app.row(Slot::Row)?.stats.max;
        let share = if limit > 0.0 { share / limit } else { 0.0 };
        Some(app.theme.shade(Quantity::Probability, share))
    }
}

/// The stages, as they are named on the screen, and where each is.
fn stages(app: &App, area: Rect) -> Vec<(AttnStage, String, Rect)> {
    let mut x = area.x;
    let place = |stage| {
        let name = match stage {
            AttnStage::Scores => "q·kᵀ",
            AttnStage::Scaled => "scaled",
            AttnStage::Masked => "masked",
            AttnStage::Pattern => "softmax",
        };
        let name = if stage == app.stage { format!("[{name}]") } else { name.to_owned() };
        let width = name.width() as u16;
        let place = Rect { x, width, ..area }.intersection(area);
        x += width + ARROW.width() as u16;
        (stage, name, place)
    };
    AttnStage::ALL.into_iter().map(place).collect()
}

/// Between two stages.
const ARROW: &str = " → ";

fn draw_stages(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let mut spans = Vec::new();
    for (stage, name, _) in stages(app, area) {
        if !spans.is_empty() {
            spans.push(Span::styled(ARROW, theme.dim()));
        }
        spans.push(Span::styled(name, if stage == app.stage { theme.accent() } else { theme.dim() }));
    }
    spans.push(Span::styled("   s: next", theme.dim()));
    if app.gradient.shown != Shown::Value {
        spans.push(Span::raw("   "));
        spans.extend(gradient::title(app, Slot::Main));
    }
    put_line(buffer, area, &spans);
}

/// The keys that the selected query reads from, as bars.
fn draw_reads(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let Some(row) = app.row(Slot::Row) else { return };
    if area.is_empty() {
        return;
    }
    let query = app.selection.position;
    let reads = if app.differs() { "reads, changed − base" } else { "reads" };
    let lines = usize::from(area.height - 1);
    // Two columns of bars where they fit and are needed.
    let columns = if area.width >= 76 && row.largest.len() > lines { 2 } else { 1 };
    let width = area.width / columns;
    let read = row.largest.iter().filter(|(key, _)| *key <= query).take(lines * usize::from(columns));
    let (shown, keys) = (read.clone().count(), query + 1);
    let part = if shown < keys { format!("  {shown} of {}", count(keys, "key")) } else { String::new() };
    let title = Span::styled(format!("{} {reads}", run.token_text(query)), theme.strong());
    put_line(buffer, area, &[title, Span::styled(part, theme.dim())]);
    for (i, &(key, share)) in read.enumerate() {
        let (x, y) = (area.x + (i / lines.max(1)) as u16 * width, area.y + 1 + (i % lines.max(1)) as u16);
        let bar_width = usize::from(width).saturating_sub(25);
        let selected = key == app.selection.key;
        let mut spans = vec![
            Span::styled(if selected { "▸" } else { " " }, theme.accent()),
            Span::styled(
                pad(&position_label(run, key), 14),
                if selected { theme.accent() } else { theme.text() },
            ),
            Span::styled(format!(" {} ", short(share, 5)), theme.dim()),
        ];
        if app.differs() {
            spans.extend(bar::signed(share, bar_width, theme));
        } else {
            spans.push(Span::styled(bar::bar(share, bar_width), theme.amount()));
        }
        put_line(buffer, Rect { x, y, width, height: 1 }, &spans);
    }
}
