//! One token followed through the network, step by step.

mod bar;
mod figure;
mod operation;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{Scene, verdict};
use crate::analysis::AttnStage;
use crate::analysis::walk::{At, Cell, Kind, Page, Step, steps};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{Axis, HookName, Site};
use crate::model::Config;
use crate::run::Run;
use crate::tui::actions::moved;
use crate::tui::app::{App, Focus, Screen, Selection};
use crate::tui::command::{BLOCKS, Command};
use crate::tui::overlays::{Overlay, Picker};
use crate::tui::text::{count, num, put_line, put_right, wrap};

/// Seconds that a step stays while the walk plays, slowest first.
const PACES: [u64; 7] = [30, 20, 12, 8, 5, 3, 1];

/// The interval of ticks.
pub const TICK: Duration = Duration::from_millis(120);

/// Sentences are no wider than this, so that the eye finds the next line.
const MEASURE: u16 = 108;

/// The state of this screen.
#[derive(Debug, Clone)]
pub struct State {
    /// The kind of the step; its block is the selected one.
    kind: Kind,
    /// Whether the walk plays by itself.
    playing: bool,
    /// Index of the pace.
    pace: usize,
    /// Ticks since the last step.
    ticks: u32,
    /// The screen that Enter opened from here, and the step to come back to.
    left: Option<(Screen, Step)>,
}

impl Default for State {
    fn default() -> Self {
        Self { kind: Kind::Tokens, playing: false, pace: 3, ticks: 0, left: None }
    }
}

/// Whether time moves the walk on.
pub fn plays(app: &App) -> bool {
    app.screens.walk.playing && app.screen == Screen::Walk && app.overlay.is_none()
}

/// The step that is shown.
pub fn step(app: &App) -> Step {
    let kind = app.screens.walk.kind;
    Step { kind, layer: Kind::BLOCK.contains(&kind).then_some(app.selection.layer) }
}

/// Goes to a step.
pub fn go_to(app: &mut App, step: Step) {
    app.screens.walk.kind = step.kind;
    app.screens.walk.ticks = 0;
    if let Some(layer) = step.layer {
        app.selection.layer = layer;
    }
}

/// What the page is asked about.
pub fn at(app: &App) -> At {
    let Selection { position, head, key, column, .. } = app.selection;
    At { step: step(app), position, head, key, column, sampling: app.sampling }
}

/// The page of the step, once it is computed; the last one until then.
fn page(app: &App) -> Option<&Page> {
    match &**app.seen.get(&Slot::Walk)? {
        Seen::Walk(_, page) => Some(page),
        _ => None,
    }
}

/// Where the parts of the screen are, below the line of steps.
struct Layout {
    title: Rect,
    text: Rect,
    formula: Rect,
    shapes: Rect,
    /// Matrices, tables and curves.
    picture: Rect,
}

fn layout(page: &Page, area: Rect) -> Layout {
    let line = |y: u16, height: u16| {
        let y = y.min(area.bottom());
        Rect { y, height: height.min(area.bottom() - y), ..area }
    };
    let roomy = area.height >= 20;
    let gap = u16::from(roomy);
    let title = line(area.y + 1 + gap, 1);
    let lines = wrap(&page.text, area.width.min(MEASURE).into()).len() as u16;
    // On the smallest screens the matrices keep a few lines.
    let text = line(title.bottom(), lines.min(area.height.saturating_sub(8).max(2)));
    let formula = line(text.bottom() + gap, 1);
    let one = page.formula.width() + 3 + page.shapes.width() <= usize::from(area.width);
    let shapes = if one {
        let x = area.x + page.formula.width() as u16 + 3;
        Rect { x, width: area.right().saturating_sub(x), ..formula }
    } else {
        line(formula.bottom(), u16::from(area.height >= 10))
    };
    let picture = line(shapes.bottom() + gap, area.height);
    Layout { title, text, formula, shapes, picture }
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            BLOCKS,
            &[
                Command::Jump,
                Command::Play,
                Command::Slower,
                Command::Faster,
                Command::Cooler,
                Command::Warmer,
            ],
        ]
    }

    /// On the line of steps, goes to one.
    fn click(&self, app: &mut App, run: &Run, area: Rect, x: u16, y: u16) {
        if let Some(step) = step_at(app, run.config(), area, x, y) {
            go_to(app, step);
        } else if let Some(selection) = self.hit(app, run, area, x, y) {
            app.selection = selection;
        }
    }

    fn without_difference(&self, app: &App) -> Option<&'static str> {
        (app.screens.walk.kind == Kind::Tokens).then_some("changed, the tokens are the same")
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        match app.screens.walk.kind {
            Kind::Next => &[("←→", "step"), (", .", "token"), ("Enter", "append")],
            _ => &[("←→", "step"), (", .", "token"), ("Enter", "open")],
        }
    }

    fn wanted(&self, app: &App, run: &Run, area: Rect) -> Vec<(Slot, Look)> {
        let mut looks = vec![(Slot::Walk, Look::Walk(at(app)))];
        if let Some(page) = page(app).filter(|page| fits(page, app, run)) {
            let drawn = figure::operands(app, run, page, layout(page, area).picture);
            looks.extend(drawn.iter().enumerate().filter_map(|(i, drawn)| {
                let look = drawn.look(app)?;
                Some((Slot::Operand(i), look))
            }));
        }
        looks
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let config = run.config();
        bar::draw(buffer, Rect { height: 1, ..area }, config, step(app), theme);
        if let Some(Seen::Nothing(_, why)) = app.seen.get(&Slot::Walk).map(|seen| &**seen) {
            for (line, y) in wrap(why, area.width.into()).iter().zip(area.y + 2..area.bottom()) {
                put_line(buffer, Rect { y, height: 1, ..area }, &[Span::styled(line.clone(), theme.bad())]);
            }
            return;
        }
        let Some(page) = page(app).filter(|page| page.at.position < run.n_tokens()) else { return };
        let layout = layout(page, area);
        draw_title(app, page, layout.title, buffer);
        let sentences = wrap(&page.text, area.width.min(MEASURE).into());
        for (line, y) in sentences.iter().zip(layout.text.top()..layout.text.bottom()) {
            let cut = y + 1 == layout.text.bottom() && sentences.len() > usize::from(layout.text.height);
            let line = if cut { format!("{line} …") } else { line.clone() };
            put_line(buffer, Rect { y, height: 1, ..layout.text }, &[Span::styled(line, theme.text())]);
        }
        put_line(buffer, layout.formula, &[Span::styled(page.formula.clone(), theme.focus())]);
        put_line(buffer, layout.shapes, &[Span::styled(page.shapes.clone(), theme.dim())]);
        figure::draw(app, run, page, layout.picture, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let Some(page) = page(app).filter(|page| page.at.position < run.n_tokens()) else {
            return Vec::new();
        };
        let first = verdict(&page.check, theme).to_vec();
        let second = vec![
            Span::styled("→ ", theme.accent()),
            Span::styled(format!("{}   ", page.next), theme.text()),
            Span::styled(page.keys.clone(), theme.focus()),
        ];
        let mut third = Vec::new();
        for fact in &page.facts {
            third.push(Span::styled(format!("{} ", fact.name), theme.dim()));
            third.push(Span::styled(format!("{}   ", cell(&fact.value)), theme.text()));
        }
        let fourth = if app.differs() {
            "changed − base is what has a Δ; weights, words, curve and check are those of the changed run"
        } else {
            "colours: a cell of weights is a mean, on a range of its own; of all else the largest |x|, ranged as in Stages"
        };
        let fourth = vec![Span::styled(fourth, theme.dim())];
        vec![first, second, third, fourth]
    }

    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection> {
        let page = page(app).filter(|page| fits(page, app, run))?;
        let selection = figure::hit(app, run, page, layout(page, area).picture, x, y)?;
        Some(selection)
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        let all = steps(run.config());
        let index = moved(step(app).index(run.config()), right.saturating_add(down), all.len());
        go_to(app, all[index]);
    }

    fn go_layer(&self, app: &mut App, run: &Run, by: isize) {
        let config = run.config();
        let layer = match step(app).layer {
            Some(layer) => moved(layer, by, config.n_layer),
            None if Kind::AFTER.contains(&app.screens.walk.kind) == (by < 0) => {
                let (kind, layer) = if by < 0 { (14, config.n_layer - 1) } else { (0, 0) };
                return go_to(app, Step { kind: Kind::BLOCK[kind], layer: Some(layer) });
            }
            None => return,
        };
        go_to(app, Step { kind: app.screens.walk.kind, layer: Some(layer) });
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        let Some(run) = app.run.clone() else { return Vec::new() };
        let from = step(app);
        let last = run.n_tokens() - 1;
        match from.kind {
            Kind::Next if app.selection.position < last => {
                app.selection.position = last;
                app.note("the last token: here there is one to choose");
                return Vec::new();
            }
            Kind::Next if run.n_tokens() == run.config().n_positions => {
                app.complain(format!(
                    "the text has {}, all that this model takes",
                    count(run.n_tokens(), "token")
                ));
                return Vec::new();
            }
            Kind::Next => {
                go_to(app, Step::FIRST);
                return app.generate(1);
            }
            Kind::Tokens => app.screen = Screen::Tokens,
            Kind::Wte | Kind::Wpe | Kind::Sum => app.screen = Screen::Embedding,
            Kind::Scores | Kind::Scale | Kind::Mask | Kind::Softmax => {
                app.stage = match from.kind {
                    Kind::Scores => AttnStage::Scores,
                    Kind::Scale => AttnStage::Scaled,
                    Kind::Mask => AttnStage::Masked,
                    _ => AttnStage::Pattern,
                };
                app.screen = Screen::Attention;
            }
            Kind::Probs => app.screen = Screen::Logits,
            _ => {
                app.focus = Focus::Map;
                app.open_in_stages(from.hook().unwrap_or(Site::ResidPre.at(0)));
            }
        }
        app.screens.walk.left = Some((app.screen, from));
        Vec::new()
    }

    fn subject(&self, app: &App) -> (HookName, Option<usize>) {
        let step = step(app);
        let hook = step.hook().unwrap_or_else(|| match step.kind {
            Kind::Next => Site::Probs.once(),
            _ => Site::Embed.once(),
        });
        let headed = operation::in_head(step.kind) || hook.point().axes.contains(&Axis::Head);
        (hook, headed.then_some(app.selection.head))
    }
}

/// Whether a page is of this step, and of a run as long as this one.
fn fits(page: &Page, app: &App, run: &Run) -> bool {
    page.at.step == step(app) && page.at.position < run.n_tokens()
}

fn draw_title(app: &App, page: &Page, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let mut right = Vec::new();
    if let Some(layer) = page.at.step.layer {
        right.push(Span::styled(format!("block {layer}"), theme.text()));
        if operation::in_head(page.at.step.kind) {
            right.push(Span::styled(format!(", head {}", page.at.head), theme.text()));
        }
    }
    if app.screens.walk.playing {
        let said = format!("   ▶ {} s a step", PACES[app.screens.walk.pace]);
        right.push(Span::styled(said, theme.focus()));
    }
    let right = Line::from(right);
    let room = area.width.saturating_sub(right.width() as u16 + 2);
    let left = [
        Span::styled(format!("{}", page.index + 1), theme.accent()),
        Span::styled(format!(" of {}  ", page.n_steps), theme.dim()),
        Span::styled(page.title.clone(), theme.strong()),
    ];
    put_line(buffer, Rect { width: room, ..area }, &left);
    put_right(buffer, area, &right);
}

/// A value as it is written.
fn cell(value: &Cell) -> String {
    match value {
        Cell::Number(x) => num(*x),
        Cell::Count(n) => n.to_string(),
        Cell::Text(text) => text.clone(),
    }
}

/// The step whose place on the line of steps was clicked.
pub fn step_at(app: &App, config: &Config, area: Rect, x: u16, y: u16) -> Option<Step> {
    (y == area.y).then(|| bar::hit(config, step(app), area, x)).flatten()
}

/// Asks which step to go to.
pub fn jump(app: &mut App) {
    if let Some(run) = &app.run {
        app.overlay = Some(Overlay::Picker(Picker::steps(run.config())));
    }
}

/// Starts or stops the walk's going on by itself.
pub fn play(app: &mut App) {
    app.screens.walk.playing = !app.screens.walk.playing;
    app.screens.walk.ticks = 0;
}

/// Another pace.
pub fn pace(app: &mut App, by: isize) {
    app.screens.walk.pace = moved(app.screens.walk.pace, by, PACES.len());
    app.screens.walk.ticks = 0;
    app.note(format!("{} s for each step; p starts and stops", PACES[app.screens.walk.pace]));
}

/// Time has passed.
pub fn tick(app: &mut App) {
    let Some(run) = app.run.clone().filter(|_| plays(app)) else { return };
    app.screens.walk.ticks += 1;
    if TICK * app.screens.walk.ticks < Duration::from_secs(PACES[app.screens.walk.pace]) {
        return;
    }
    let before = step(app);
    app.screen.scene().go(app, &run, 1, 0);
    if step(app) == before {
        app.screens.walk.playing = false;
    }
}

/// Esc: stops the walk's playing, or comes back to the step that another screen was opened from.
/// Whether there was something of this to do.
pub fn back(app: &mut App) -> bool {
    if plays(app) {
        app.screens.walk.playing = false;
        return true;
    }
    match app.screens.walk.left.take() {
        Some((screen, step)) if screen == app.screen => {
            app.screen = Screen::Walk;
            app.focus = Focus::Tree;
            go_to(app, step);
            true
        }
        _ => false,
    }
}

/// Another screen than the one that was opened from here is none to come back from.
pub fn forget(app: &mut App) {
    if app.screens.walk.left.is_some_and(|(screen, _)| screen != app.screen) {
        app.screens.walk.left = None;
    }
}
