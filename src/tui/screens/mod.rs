//! *The* table of screens, and the trait of a screen.

pub mod attention;
pub mod attribution;
pub mod compare;
mod embedding;
mod features;
pub mod heads;
pub mod lens;
mod logits;
pub mod stages;
mod tokens;
pub mod walk;
pub mod weights;

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use super::app::{App, Focus, Selection};
use super::atlas::unit_at;
use super::command::{Command, Entry};
use super::gradient;
use super::layout::Frame;
use super::overlays::{Asked, Overlay, Picker};
use super::text::{num, put};
use super::theme::Theme;
use super::what_if;
use crate::analysis::base::DIFFERENCE;
use crate::analysis::walk::Check;
use crate::analysis::{Shown, View};
use crate::engine::{Look, Request, Slot};
use crate::hooks::{HookName, Quantity, Site, TensorName};
use crate::interventions::{Edge, Place, Target};
use crate::picture::chart::Chart;
use crate::run::Run;

macro_rules! screens {
    ($( $screen:ident $module:ident $short:literal $key:literal $doc:literal; )*) => {
        /// The screens, in the order of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Screen { $( $screen, )* }

        impl Screen {
            pub const ALL: [Self; [$( $key, )*].len()] = [ $( Self::$screen, )* ];

            pub fn name(self) -> &'static str {
                match self { $( Self::$screen => stringify!($screen), )* }
            }

            /// Its name in three letters, for narrow terminals.
            pub fn short(self) -> &'static str {
                match self { $( Self::$screen => $short, )* }
            }

            /// What it is.
            pub fn scene(self) -> &'static dyn Scene {
                match self { $( Self::$screen => &$module::Body, )* }
            }
        }

        /// The commands that open them.
        pub(super) const COMMANDS: [Entry; Screen::ALL.len()] = [ $( Entry {
            command: Command::Show(Screen::$screen),
            group: "Screens",
            name: stringify!($module),
            keys: &[$key],
            everywhere: true,
            hint: "",
            doc: concat!("screen: ", $doc),
            run: |app| { app.screen = Screen::$screen; Vec::new() },
        }, )* ];

        /// The state of each screen.
        #[derive(Debug, Clone, Default)]
        pub struct States { $( pub $module: $module::State, )* }
    };
}

screens! {
    // screen     module       short  key  what is there
    Tokens        tokens       "Tok"  "1"  "the prompt as tokens";
    Embedding     embedding    "Emb"  "2"  "rows of wte and wpe, and their sum";
    Stages        stages       "Stg"  "3"  "every tensor in data-flow order";
    Attention     attention    "Att"  "4"  "every head's attention map";
    Logits        logits       "Log"  "5"  "the likeliest next tokens";
    Walk          walk         "Wlk"  "6"  "one token followed through the network, step by step";
    Heads         heads        "Hds"  "7"  "what every head does";
    Lens          lens         "Lns"  "8"  "what each layer would predict";
    Attribution   attribution  "Atr"  "9"  "how much each component contributes to a logit";
    Compare       compare      "Cmp"  "0"  "two prompts, their difference, and patching";
    Weights       weights      "Wts"  "w"  "the weights by themselves, without a prompt";
    Features      features     "Fea"  "o"  "the active features of a sparse dictionary";
}

impl Screen {
    /// The command that opens it.
    pub fn command(self) -> Command {
        Command::Show(self)
    }

    /// The screen `step` after this one, cyclically.
    #[must_use]
    pub fn step(self, step: isize) -> Self {
        let n = Self::ALL.len() as isize;
        Self::ALL[(self as isize + step).rem_euclid(n) as usize]
    }
}

/// A screen: what it shows of the state, and what keys and clicks do. It is stateless:
/// its state is in [`States`].
pub trait Scene: Sync {
    /// The commands that work here, besides those that work everywhere.
    fn commands(&self) -> &'static [&'static [Command]];

    /// What the arrow keys and Enter do: keys, with a word each.
    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)];

    /// What it needs computed.
    fn wanted(&self, _app: &App, _run: &Run, _area: Rect) -> Vec<(Slot, Look)> {
        Vec::new()
    }

    /// Draws the body.
    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer);

    /// The lines of the inspector.
    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>>;

    /// The selection at a position.
    fn hit(&self, app: &App, run: &Run, area: Rect, x: u16, y: u16) -> Option<Selection>;

    /// Handles a click.
    fn click(&self, app: &mut App, run: &Run, area: Rect, x: u16, y: u16) {
        if let Some(selection) = self.hit(app, run, area, x, y) {
            app.selection = selection;
        }
    }

    /// Handles the wheel; returns whether it did something other than moving up or down.
    fn scroll(&self, _app: &mut App, _run: &Run, _area: Rect, _at: (u16, u16), _up: bool) -> bool {
        false
    }

    /// Handles the arrow keys.
    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize);

    /// Goes to another block.
    fn go_layer(&self, app: &mut App, run: &Run, by: isize) {
        app.go_layer(run, by);
    }

    /// Handles Enter.
    fn open(&self, app: &mut App) -> Vec<Request>;

    /// Handles Esc, if nothing is running.
    fn back(&self, app: &mut App) {
        app.focus = Focus::Tree;
    }

    /// What `/` searches.
    fn finder(&self, run: &Run) -> Picker {
        Picker::tensors(run)
    }

    /// The arguments of `actscope render` that show the same.
    fn rendered(&self, app: &App, _run: &Run) -> Vec<String> {
        let head = self.subject(app).1.map(|head| format!("--head={head}"));
        std::iter::once(self.tensor(app).short()).chain(head).collect()
    }

    /// The subcommand that shows the same, with its arguments.
    fn command_line(&self, app: &App, run: &Run) -> Vec<String> {
        if self.shown_as(app) == Shown::Value {
            return std::iter::once("render".to_owned()).chain(self.rendered(app, run)).collect();
        }
        let hooks = format!("--hooks={}", self.tensor(app).short());
        ["gradients".to_owned(), hooks].into_iter().chain(gradient::flag(app)).collect()
    }

    /// A tensor was chosen by name.
    fn find(&self, app: &mut App, name: TensorName) {
        app.open_in_stages(name);
    }

    /// A token was chosen; `None` for the final answer.
    fn take_token(&self, _app: &mut App, _asked: Asked, _token: Option<u32>) {}

    /// Shows the next or previous number.
    fn turn(&self, _app: &mut App, _by: isize) {}

    /// Whether its tensors are values or gradients.
    fn shown_as(&self, _app: &App) -> Shown {
        Shown::Value
    }

    /// Shows values, gradients, or both multiplied.
    fn turn_gradient(&self, app: &mut App) {
        gradient::next_shown(app);
    }

    /// Scrolls so that the selection is visible.
    fn settle(&self, _app: &mut App) {}

    /// The work it needs runs for and does not have yet.
    fn refresh(&self, _app: &mut App) -> Option<Request> {
        None
    }

    /// Requested runs will not be made; called on every screen.
    fn give_up(&self, _app: &mut App) {}

    /// The run that it shows.
    fn shown(&self, app: &App) -> Option<Arc<Run>> {
        app.run.clone()
    }

    /// Its base, where differences are shown.
    fn base(&self, app: &App) -> Option<Arc<Run>> {
        what_if::base_shown(app)
    }

    /// The run that `x` writes of, and its base.
    fn written(&self, app: &App) -> Option<(Arc<Run>, Option<Arc<Run>>)> {
        Some((app.run.clone()?, what_if::base_shown(app)))
    }

    /// The name of the difference.
    fn difference(&self) -> &'static str {
        DIFFERENCE
    }

    /// What is on screen instead, if the difference from the base cannot be shown.
    fn without_difference(&self, _app: &App) -> Option<&'static str> {
        None
    }

    /// The tensor that it shows, with the head if there is one: what `x` writes, unless there
    /// is a chart.
    fn subject(&self, _app: &App) -> (HookName, Option<usize>) {
        (Site::Probs.once(), None)
    }

    /// The same by its name, which may be of what a dictionary makes.
    fn tensor(&self, app: &App) -> TensorName {
        self.subject(app).0.into()
    }

    /// The chart that it shows, and a name for its file.
    fn chart(&self, _app: &App, _run: &Run) -> Option<(String, Chart)> {
        None
    }

    /// The place under the cursor, to be changed; or why it cannot be.
    fn place(&self, app: &App) -> Result<Place, &'static str> {
        Ok(Target::Tensor(Site::ResidPre.at(0)).at(app.selection.position))
    }

    /// The neuron, head, channel or feature under the cursor; or why there is none.
    fn unit(&self, app: &App, run: &Run) -> Result<(TensorName, usize), &'static str> {
        unit_at(self.subject(app), app.selection.column, run.config())
    }

    /// The edge of an attention map that is under the cursor, or where to find one.
    fn edge(&self, app: &App) -> Result<Edge, &'static str> {
        let Selection { layer, head, position, key, .. } = app.selection;
        Ok(Edge { layer, head, query: position, key })
    }

    /// The tensor that one looks at, on the way from the embedding to the logits.
    fn place_in_flow(&self, app: &App) -> HookName {
        Site::ResidPost.at(app.selection.layer)
    }

    /// The colour of a token in the token strip.
    fn token_shade(&self, app: &App, position: usize) -> Option<Color> {
        Some(surprise_shade(app, app.surprise(position)?))
    }
}

/// What the current screen needs of the run; nothing without a run or without room.
pub fn wanted(app: &App) -> Vec<(Slot, Look)> {
    let (Some(run), Some(frame)) = (&app.run, Frame::new(app.size)) else { return Vec::new() };
    if matches!(app.overlay, Some(Overlay::Finding)) {
        return vec![(Slot::Found, Look::Found)];
    }
    let mut looks = app.screen.scene().wanted(app, run, frame.body);
    looks.push((Slot::Flow, Look::Flow { position: app.selection.position }));
    looks
}

/// The colour of a surprise, or of its difference.
fn surprise_shade(app: &App, bits: f32) -> Color {
    let share = (bits / SURPRISED).clamp(-1.0, 1.0);
    if app.differs() {
        return app.theme.shade(Quantity::Signed, share.midpoint(1.0));
    }
    app.theme.shade(Quantity::Probability, share.max(0.0))
}

/// Bits of surprise at the end of the colours: one in 65,536.
pub const SURPRISED: f32 = 16.0;

/// The selected head's z at every position.
fn head_place(app: &App) -> Place {
    let Selection { layer, head, .. } = app.selection;
    Place { target: Target::Head(Site::Z.at(layer), head), position: None }
}

/// Where the result of the engine will be.
fn draw_computing(buffer: &mut Buffer, area: Rect, theme: Theme) {
    put(buffer, area.x, area.y, area.width, "computing …", theme.dim());
}

/// The verdict of a check, in one line.
fn verdict<'a>(check: &Check, theme: Theme) -> [Span<'a>; 3] {
    let [mark, claim, found] = check.verdict();
    let (good, text, dim) = if check.holds() {
        (theme.good(), theme.text(), theme.dim())
    } else {
        (theme.bad(), theme.bad(), theme.bad())
    };
    [
        Span::styled(format!("{mark} "), good),
        Span::styled(claim, text),
        Span::styled(format!("   {found}"), dim),
    ]
}

/// `7 ·lazy`, the label of a row that is a position.
fn position_label(run: &Run, position: usize) -> String {
    let digits = run.n_tokens().saturating_sub(1).max(1).to_string().len();
    format!("{position:>digits$} {}", run.token_text(position))
}

/// The texts of the tokens, each as what it is.
fn token_names(run: &Run) -> Vec<String> {
    (0..run.n_tokens()).map(|position| run.token_text(position)).collect()
}

/// Columns of the longest of them.
fn longest_label(run: &Run) -> u16 {
    let widths = (0..run.n_tokens()).map(|position| position_label(run, position).width());
    widths.max().map_or(0, |widest| u16::try_from(widest).unwrap_or(u16::MAX - 3))
}

/// The label of a row of `view`.
fn row_label(run: &Run, view: View, row: usize) -> String {
    use crate::hooks::Axis;
    match view.axes().0 {
        Axis::Pos => position_label(run, row),
        _ => row.to_string(),
    }
}

/// `[7, 75] = -1.284`
fn cell_text(row: usize, column: usize, value: Option<f32>) -> String {
    format!("[{row}, {column}] = {}", value.map_or_else(|| "…".into(), num))
}

/// `(12, 192)`
fn shape(dims: &[usize]) -> String {
    let sizes: Vec<_> = dims.iter().map(ToString::to_string).collect();
    format!("({})", sizes.join(", "))
}
