//! The prompt as tokens: positions, ids, bytes, and how surprising each one was.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::{SURPRISED, Scene, Screen, surprise_shade};
use crate::analysis::gradients::{Inputs, Method};
use crate::engine::{Look, Request, Slot};
use crate::hooks::{HookName, Quantity, Site};
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Selection};
use crate::tui::command::{CHANGES, Command, GRADIENTS};
use crate::tui::gradient;
use crate::tui::overlays::Picker;
use crate::tui::text::{count, fit, fixed, num, pad, prob, put, put_line, signed_fixed};
use crate::tui::theme::{Depth, Theme};
use crate::tui::widgets::bar::{self, bar};

/// Columns of the table: with what is always there, with the token that was expected, and with bytes.
const TABLE: [u16; 3] = [56, 78, 96];

struct Layout {
    /// Side by side, as many as fit and are needed.
    tables: Vec<Rect>,
    /// What there is room for.
    expected: bool,
    bytes: bool,
    /// The first position in the tables.
    first: usize,
    text: Option<Rect>,
}

/// The least width of the prompt beside the tables.
const TEXT: u16 = 30;

fn layout(app: &App, run: &Run, area: Rect) -> Layout {
    let rows = usize::from(area.height.saturating_sub(1));
    // A model without a tokenizer knows no bytes.
    let has_bytes = run.model.tokenizer.is_some();
    let (n, most) = (run.n_tokens(), TABLE[if has_bytes { 2 } else { 1 }]);
    let fit = usize::from(area.width.saturating_sub(TEXT - 2) / (most + 2));
    let tables: Vec<_> = (0..fit.min(n.div_ceil(rows.max(1))) as u16)
        .map(|i| Rect { x: area.x + i * (most + 2), width: most, ..area })
        .collect();
    let text = tables.last().map(|last| Rect {
        x: last.right() + 2,
        width: area.right() - last.right() - 2,
        ..area
    });
    let tables = if tables.is_empty() { vec![area] } else { tables };
    let shown = rows * tables.len();
    let first = app.selection.position.saturating_sub(shown / 2).min(n.saturating_sub(shown));
    let width = tables[0].width;
    Layout { tables, expected: width >= TABLE[1], bytes: has_bytes && width >= most, first, text }
}

impl Layout {
    /// The rows of the tables that are on screen, with their positions.
    fn rows(&self, n_tokens: usize) -> impl Iterator<Item = (usize, Rect)> {
        let lines = self.tables.iter().flat_map(|table| {
            (1..table.height).map(move |line| Rect { y: table.y + line, height: 1, ..*table })
        });
        (self.first..n_tokens).zip(lines)
    }
}

/// It has no state of its own.
pub type State = ();

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[CHANGES, &[Command::Direction], GRADIENTS]
    }

    fn place_in_flow(&self, _app: &App) -> HookName {
        Site::ResidPre.at(0)
    }

    fn arrows(&self, _app: &App) -> &'static [(&'static str, &'static str)] {
        &[("↑↓", "token"), ("Enter", "its embedding")]
    }

    fn finder(&self, run: &Run) -> Picker {
        Picker::tokens(run)
    }

    fn turn_gradient(&self, app: &mut App) {
        gradient::next_inputs(app);
    }

    fn command_line(&self, app: &App, run: &Run) -> Vec<String> {
        match app.gradient.inputs {
            None => std::iter::once("render".to_owned()).chain(self.rendered(app, run)).collect(),
            Some(method) => ["inputs".to_owned(), format!("--method={}", method.name())]
                .into_iter()
                .chain(gradient::flag(app))
                .collect(),
        }
    }

    fn wanted(&self, app: &App, _run: &Run, _area: Rect) -> Vec<(Slot, Look)> {
        app.gradient.inputs.map(|method| (Slot::Inputs, Look::Inputs(method))).into_iter().collect()
    }

    fn token_shade(&self, app: &App, position: usize) -> Option<Color> {
        match gradient::inputs(app) {
            Some(Ok((inputs, _))) => {
                Some(app.theme.shade(Quantity::Signed, share(inputs, position).midpoint(1.0)))
            }
            _ => Some(surprise_shade(app, app.surprise(position)?)),
        }
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        app.selection.position = moved(app.selection.position, right.saturating_add(down), run.n_tokens());
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        app.screen = Screen::Embedding;
        Vec::new()
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let layout = layout(app, run, area);
        let theme = app.theme;
        let head = format!(
            " {:>4}  {}{:>6}  {}{}{}",
            "pos",
            pad("token", 18),
            "id",
            if layout.bytes { pad("bytes", 18) } else { String::new() },
            pad(column(app), 24),
            if layout.expected && app.gradient.inputs.is_none() { "expected" } else { "" },
        );
        for table in &layout.tables {
            put(buffer, table.x, area.y, table.width, &head, theme.dim());
        }
        for (position, row) in layout.rows(run.n_tokens()) {
            let id = run.tokens[position];
            let selected = position == app.selection.position;
            let (plain, dim) =
                if selected { (theme.selected(), theme.selected()) } else { (theme.text(), theme.dim()) };
            if selected {
                buffer.set_style(row, theme.selected());
            }
            let bytes = run.model.tokenizer.bytes(id).unwrap_or_default();
            let bytes: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let mut spans = vec![
                Span::styled(format!("{}{position:>4}  ", if selected { '▸' } else { ' ' }), dim),
                Span::styled(pad(&run.token_text(position), 18), plain),
                Span::styled(format!("{id:>6}  "), dim),
            ];
            if layout.bytes {
                spans.push(Span::styled(pad(&bytes.join(" "), 18), dim));
            }
            if app.gradient.inputs.is_some() {
                if let Some(Ok((inputs, _))) = gradient::inputs(app) {
                    let value = inputs.values.get(position).copied().unwrap_or(f64::NAN);
                    spans.push(Span::styled(format!("{:>9} ", signed_fixed(value, 4)), plain));
                    spans.extend(bar::signed(
                        share(inputs, position),
                        if layout.expected { 35 } else { 13 },
                        theme,
                    ));
                }
                put_line(buffer, row, &spans);
                continue;
            }
            match app.summary.as_ref().and_then(|s| *s.surprises.get(position)?) {
                Some(surprise) => {
                    let bits = app.surprise(position).unwrap_or(f32::NAN);
                    spans.push(Span::styled(
                        pad(&bar(bits.abs() / SURPRISED, 10), 11),
                        bar_style(app, bits, selected),
                    ));
                    let bits = if app.differs() { signed_fixed(bits, 1) } else { fixed(bits, 1) };
                    spans.push(Span::styled(format!("{bits:>5}"), plain));
                    spans.push(Span::styled(pad(&format!(" #{}", surprise.rank), 8), dim));
                    if layout.expected {
                        let (token, p) = surprise.expected;
                        let hit = if token == id && !selected { theme.good() } else { plain };
                        spans.push(Span::styled(pad(&run.model.tokenizer.show(token), 14), hit));
                        spans.push(Span::styled(format!(" {}", prob(p)), dim));
                    }
                }
                None if position == 0 => spans.push(Span::styled("the first token", dim)),
                None => spans.push(Span::styled("…", dim)),
            }
            put_line(buffer, row, &spans);
        }
        if let Some(area) = layout.text {
            draw_text(app, run, area, buffer);
        }
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let position = app.selection.position;
        let mut first = vec![
            Span::styled(run.token_text(position), theme.accent()),
            Span::styled(format!("  position {position}, id {}", run.tokens[position]), theme.text()),
        ];
        if let Some(character) = run.characters().get(position).copied().flatten() {
            first.push(Span::styled(format!("  {character}"), theme.accent()));
        }
        if let Some(surprise) = app.summary.as_ref().and_then(|s| *s.surprises.get(position)?) {
            let said = format!(
                "  the network gave it p = {}, rank {} of {}: {} bits of surprise",
                num((-surprise.bits).exp2()),
                surprise.rank,
                run.config().vocab_size,
                fixed(surprise.bits, 2)
            );
            first.push(Span::styled(said, theme.text()));
            if let Some(difference) = app.surprise(position).filter(|_| app.differs()) {
                first.push(Span::styled(
                    format!(", {} from the base", signed_fixed(difference, 2)),
                    theme.accent(),
                ));
            }
        }
        if app.gradient.inputs.is_some() {
            return vec![first, account(app)];
        }
        let known: Vec<f32> = (0..run.n_tokens()).filter_map(|p| app.surprise(p)).collect();
        let mut said = format!("{} of at most {}", count(run.n_tokens(), "token"), run.config().n_positions);
        // Nothing predicts the first token.
        if !known.is_empty() {
            let mean = known.iter().sum::<f32>() / known.len() as f32;
            let mean = if app.differs() {
                format!("change of surprise {}", signed_fixed(mean, 2))
            } else {
                format!("surprise {}", fixed(mean, 2))
            };
            said.push_str(&format!(" · mean {mean} bits per token · colours end at {SURPRISED} bits"));
        }
        let second = vec![Span::styled(said, theme.dim())];
        vec![first, second]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let layout = layout(app, run, area);
        let (position, _) = layout.rows(run.n_tokens()).find(|(_, row)| row.contains((x, y).into()))?;
        Some(Selection { position, ..app.selection })
    }
}

/// The heading of what is shown of each token.
fn column(app: &App) -> &'static str {
    match (app.gradient.inputs, app.differs()) {
        (Some(_), false) => "accounts for, of m",
        (Some(_), true) => "Δ accounts for, of m",
        (None, true) => "Δ surprise, bits, rank",
        (None, false) => "surprise, bits, rank",
    }
}

/// What a token accounts for, as a share of the most.
fn share(inputs: &Inputs, position: usize) -> f32 {
    let most = inputs.values.iter().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
    (inputs.values.get(position).copied().unwrap_or(0.0) / most) as f32
}

/// How what the tokens account for adds up.
fn account(app: &App) -> Vec<Span<'static>> {
    let theme = app.theme;
    let (inputs, words) = match gradient::inputs(app) {
        Some(Ok(known)) => known,
        Some(Err(why)) => return vec![Span::styled(why.to_owned(), theme.bad())],
        None => return vec![Span::styled("computing …", theme.dim())],
    };
    let how = match inputs.method {
        Method::GradTimesInput => "gradient × input".to_owned(),
        Method::Integrated(steps) => format!("integrated gradients, {steps} steps"),
    };
    vec![
        Span::styled(format!("m: {words}   "), theme.text()),
        Span::styled(
            format!(
                "{how}: sum {} of {} = {} − {} without tokens (wte rows 0)",
                num(inputs.sum() as f32),
                num(inputs.difference() as f32),
                num(inputs.value as f32),
                num(inputs.baseline as f32)
            ),
            theme.dim(),
        ),
    ]
}

fn bar_style(app: &App, bits: f32, selected: bool) -> Style {
    let theme = app.theme;
    let style = if selected { theme.selected() } else { theme.text() };
    match theme.depth {
        Depth::Mono => style,
        _ => style.fg(surprise_shade(app, bits)),
    }
}

/// The prompt as running text, each token on the colour of its surprise.
fn draw_text(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    put(
        buffer,
        area.x,
        area.y,
        area.width,
        if app.gradient.inputs.is_some() {
            "the prompt: red speaks for m, blue against it"
        } else if app.differs() {
            "the prompt, coloured by the change of surprise"
        } else {
            "the prompt: dark was expected, bright was a surprise"
        },
        theme.dim(),
    );
    let (mut x, mut y) = (area.x, area.y + 2);
    // Start so that the selected token is visible.
    let mut start = 0;
    let mut used = 0;
    let room = usize::from(area.width) * usize::from(area.height.saturating_sub(4)) / 2;
    for position in (0..=app.selection.position.min(run.n_tokens() - 1)).rev() {
        used += run.token_text(position).width();
        if used > room {
            start = position;
            break;
        }
    }
    if start > 0 {
        x = put(buffer, x, y, area.width, "… ", theme.dim());
    }
    for position in start..run.n_tokens() {
        let text = fit(&run.token_text(position), area.width.into());
        let width = text.width() as u16;
        if x + width > area.right() {
            (x, y) = (area.x, y + 1);
        }
        if y >= area.bottom() {
            put(buffer, area.right() - 1, area.bottom() - 1, 1, "…", theme.dim());
            break;
        }
        let style = match Body.token_shade(app, position) {
            _ if position == app.selection.position => theme.selected(),
            Some(color) if theme.depth != Depth::Mono => Style::new().bg(color).fg(Theme::on(color)),
            _ => theme.text(),
        };
        x = put(buffer, x, y, width, &text, style);
        if text.ends_with('↵') {
            (x, y) = (area.x, y + 1);
        }
    }
}
