//! The state of the explorer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::actions::moved;
use super::atlas;
use super::gradient;
use super::keymap::Keymap;
use super::overlays::{Editor, Overlay};
use super::places::Places;
use super::screens::{States, walk};
use super::state::State;
use super::theme::Theme;
use super::what_if;
use crate::analysis::base::WithBase;
use crate::analysis::logits::Next;
use crate::analysis::logits::Sampling;
use crate::analysis::{AttnStage, View};
use crate::engine::{Look, Map, Request, RowLook, Seen, Slot, Steps, Summary, Wanted};
use crate::error::Error;
use crate::hooks::{HookName, Made, Quantity, Site, TensorName};
use crate::model::{Model, Progress};
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;
use crate::run::{Input, Prompt, Run};
use crate::signals::Signal;

pub use super::screens::Screen;

/// The component of a block that writes to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The selected head.
    Head,
    AttnBias,
    Mlp,
    MlpBias,
    /// Interventions.
    Change,
}

/// What is being looked at: one selection for all screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    pub hook: HookName,
    /// What a dictionary makes of it, instead of the tensor itself.
    pub made: Option<Made>,
    pub layer: usize,
    pub head: usize,
    /// The selected component: a head, the MLP or a bias.
    pub writer: Writer,
    /// The selected token: the row of most tensors, and the query of attention maps.
    pub position: usize,
    /// The key of attention maps.
    pub key: usize,
    /// The column of all other tensors: channel, neuron, token id.
    pub column: usize,
    /// The line in the list of next tokens, from 0.
    pub candidate: usize,
}

impl Selection {
    /// The selected tensor.
    pub fn tensor(&self) -> TensorName {
        TensorName { hook: self.hook, made: self.made }
    }
}

/// What the arrow keys move on the screen Stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Tree,
    Map,
}

/// A message to the user, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    pub bad: bool,
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Activity {
    Loading(Progress),
    /// A run is about to enter this block; `left` tokens remain to be sampled after it.
    Running {
        layer: usize,
        n_layer: usize,
        left: usize,
    },
    /// The number of runs done, of many.
    Working(Steps),
    Exporting(PathBuf),
}

pub struct App {
    pub screen: Screen,
    pub overlay: Option<Overlay>,
    /// Size of the terminal in columns and rows.
    pub size: (u16, u16),
    pub theme: Theme,
    /// The model as requested: `demo`, a hub id, a directory.
    pub asked_model: String,
    pub model: Option<Arc<Model>>,
    /// The current input; the last run may still be of the previous one.
    pub input: Input,
    pub run: Option<Arc<Run>>,
    pub summary: Option<Arc<Summary>>,
    /// Incremented when another run is shown, or another side of the same pair.
    pub shown_id: u64,
    /// Id of the newest job.
    pub job_id: u64,
    pub selection: Selection,
    /// The position to select in the run that was asked for.
    pub landing: Option<usize>,
    pub focus: Focus,
    /// Each step halves the window of the Stages map.
    pub zoom: u8,
    /// First row and column of the window.
    pub origin: (usize, usize),
    pub pooling: Pooling,
    /// The range chosen by the user; `None`: as suits the quantity.
    pub range: Option<RangeMode>,
    pub stage: AttnStage,
    pub gradient: gradient::State,
    pub sampling: Sampling,
    pub what_if: what_if::State,
    /// The state of single screens.
    pub screens: States,
    /// The last result for each place on the screens, for `run` or the previous run.
    pub seen: HashMap<Slot, Arc<Seen>>,
    /// The last request, to avoid repeating it.
    pub asked: Option<(u64, Vec<(Slot, Look)>)>,
    /// The number of that request.
    pub look_id: u64,
    /// Its progress, if it takes long.
    pub looking: Option<Steps>,
    /// It is not answered yet.
    pub waits: bool,
    /// Ended by Esc: nothing is requested until the next key.
    pub paused: bool,
    pub activity: Option<Activity>,
    pub notice: Option<Notice>,
    /// The frame of the spinner.
    pub tick: usize,
    /// Quit, with an error to show after the terminal is restored.
    pub quit: Option<Result<(), Error>>,
    /// A pending action on the terminal, which the state cannot perform itself.
    pub signal: Option<Signal>,
    /// Text to copy, likewise, and what it is.
    pub copied: Option<(&'static str, String)>,
    pub places: Places,
    /// Examples of units.
    pub atlas: atlas::State,
    /// The prompts so far, the newest last.
    pub history: Vec<String>,
    /// What was remembered, until the first run.
    pub restored: Option<Box<State>>,
    pub keymap: Keymap,
    /// The last click: where, and when.
    pub clicked: Option<(u16, u16, Instant)>,
}

impl App {
    pub fn new(asked_model: String, input: Input, theme: Theme, size: (u16, u16)) -> Self {
        Self {
            screen: Screen::Tokens,
            overlay: None,
            size,
            theme,
            asked_model,
            model: None,
            input,
            run: None,
            summary: None,
            shown_id: 0,
            job_id: 0,
            selection: Selection {
                hook: Site::ResidPre.at(0),
                made: None,
                layer: 0,
                head: 0,
                writer: Writer::Head,
                position: 0,
                key: 0,
                column: 0,
                candidate: 0,
            },
            landing: None,
            focus: Focus::Tree,
            zoom: 0,
            origin: (0, 0),
            pooling: Pooling::default(),
            range: None,
            stage: AttnStage::Pattern,
            gradient: gradient::State::default(),
            sampling: Sampling::default(),
            what_if: what_if::State::default(),
            screens: States::default(),
            seen: HashMap::new(),
            asked: None,
            look_id: 0,
            looking: None,
            waits: false,
            paused: false,
            activity: Some(Activity::Loading(Progress::Reading)),
            notice: None,
            tick: 0,
            quit: None,
            signal: None,
            copied: None,
            atlas: atlas::State::default(),
            places: Places::default(),
            history: Vec::new(),
            restored: None,
            keymap: Keymap::default(),
            clicked: None,
        }
    }

    /// The tensor of the screen Stages, as a matrix.
    pub fn stages_view(&self) -> View {
        View::hook(self.selection.tensor(), self.selection.head).showing(self.gradient.shown)
    }

    pub fn range_for(&self, quantity: Quantity) -> RangeMode {
        self.range.unwrap_or(RangeMode::suited(quantity))
    }

    /// Row and column of the selection in a matrix.
    pub fn cell_in(&self, view: View) -> (usize, usize) {
        use crate::hooks::Axis;
        let column = match view.axes().1 {
            Axis::Key => self.selection.key,
            Axis::One => 0,
            _ => self.selection.column,
        };
        (self.selection.position, column)
    }

    pub fn map(&self, slot: Slot) -> Option<&Map> {
        match &**self.seen.get(&slot)? {
            Seen::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn row(&self, slot: Slot) -> Option<&RowLook> {
        match &**self.seen.get(&slot)? {
            Seen::Row(row) => Some(row),
            _ => None,
        }
    }

    pub fn next(&self) -> Option<&WithBase<Next>> {
        match &**self.seen.get(&Slot::Next)? {
            Seen::Next(_, next) => Some(next),
            _ => None,
        }
    }

    /// The surprise of the token at `position`, in bits; its difference if differences are shown.
    pub fn surprise(&self, position: usize) -> Option<f32> {
        let bits = |summary: &Summary| Some((*summary.surprises.get(position)?)?.bits);
        let shown = bits(self.summary.as_ref()?)?;
        match &self.what_if.pair {
            Some(pair) if self.differs() => Some(shown - bits(&pair.base.summary)?),
            _ => Some(shown),
        }
    }

    /// The token under the cursor on the screen Logits.
    pub fn candidate(&self) -> Option<u32> {
        self.next()?.of.top.get(self.selection.candidate).map(|candidate| candidate.id)
    }

    /// An editor that starts with `prompt`: as ids if not all of them have text, as without a tokenizer, for
    /// which a text is nothing.
    pub fn editor(&self, prompt: &Prompt) -> Option<Box<Editor>> {
        let tokenizer = &self.model.as_ref()?.tokenizer;
        let as_ids = match prompt {
            Prompt::Ids(ids) => !tokenizer.is_some() || ids.iter().any(|&id| tokenizer.bytes(id).is_none()),
            Prompt::Text(_) => !tokenizer.is_some(),
        };
        let text = match prompt {
            Prompt::Ids(ids) if as_ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Prompt::Text(_) if as_ids => String::new(),
            prompt => prompt.to_text(tokenizer),
        };
        let mut editor = Editor::new(&text, as_ids, self.theme).with_history(&self.history);
        if let Some(run) = self.run.as_ref().filter(|run| !as_ids && run.input.prompt == *prompt) {
            // What is before the caret: the text up to the selected token.
            let first = run.n_tokens() - run.prompt_tokens().len();
            let end = (self.selection.position + 1).max(first);
            let before = tokenizer.decode(&run.tokens[first..end]);
            if text.starts_with(&before) {
                editor.put_caret(&before);
            }
        }
        Some(Box::new(editor))
    }

    /// Shows a tensor on the screen Stages.
    pub fn open_in_stages(&mut self, name: impl Into<TensorName>) {
        self.screen = Screen::Stages;
        self.select_tensor(name.into());
        self.screen.scene().settle(self);
    }

    pub fn select_hook(&mut self, hook: HookName) {
        self.select_tensor(hook.into());
    }

    pub fn select_tensor(&mut self, TensorName { hook, made }: TensorName) {
        (self.selection.hook, self.selection.made) = (hook, made);
        self.selection.layer = hook.layer.unwrap_or(self.selection.layer);
    }

    /// Goes to another block, with the tensor if it belongs to a block.
    pub fn go_layer(&mut self, run: &Run, by: isize) {
        let s = &mut self.selection;
        s.layer = moved(s.layer, by, run.config().n_layer);
        if s.hook.layer.is_some() {
            (s.hook, s.made) = (s.hook.site.at(s.layer), None);
        }
    }

    pub fn go_head(&mut self, by: isize) {
        if let Some(run) = &self.run {
            self.selection.head = moved(self.selection.head, by, run.config().n_head);
        }
    }

    /// Requests what to show of a run, replacing the previous request.
    pub fn look(&mut self, run: Arc<Run>, base: Option<Arc<Run>>, looks: Vec<(Slot, Look)>) -> Request {
        self.look_id += 1;
        self.looking = None;
        if !self.waits && !self.is_busy() {
            self.tick = 0;
        }
        self.waits = !looks.is_empty();
        let metric = self.gradient.metric.clone();
        Request::Look(Wanted { run, base, shown_id: self.shown_id, id: self.look_id, metric, looks })
    }

    /// Greets someone new.
    pub fn welcome(&mut self) {
        self.overlay = Some(Overlay::Welcome);
    }

    /// Handles a signal.
    pub fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::Leave => self.quit = Some(Ok(())),
            // The kernel continues a process in order to end it.
            _ if matches!(self.signal, Some(Signal::End(_))) => {}
            // Stopped and continued before either was handled.
            signal => self.signal = Some(signal),
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), bad: false });
    }

    pub fn complain(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), bad: true });
    }

    /// Whether the user is waiting for something.
    pub fn is_busy(&self) -> bool {
        self.activity.is_some()
    }

    /// Whether the screen changes with time.
    pub fn needs_ticks(&self) -> bool {
        self.is_busy() || self.waits || self.looking.is_some() || walk::plays(self)
    }
}
