//! The state of the explorer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::actions::moved;
use super::overlays::{Editor, Overlay};
use super::screens::{States, walk};
use super::theme::Theme;
use super::what_if;
use crate::analysis::base::WithBase;
use crate::analysis::logits::Next;
use crate::analysis::logits::Sampling;
use crate::analysis::{AttnStage, View};
use crate::engine::{Look, Map, Request, RowLook, Seen, Slot, Steps, Summary, Wanted};
use crate::error::Error;
use crate::hooks::{HookName, Quantity, Site};
use crate::model::{Model, Progress};
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;
use crate::run::{Input, Prompt, Run};
use crate::signals::Signal;

pub use super::screens::Screen;

/// What writes to the residual stream in a block.
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
    pub layer: usize,
    pub head: usize,
    /// The selected head, or what else the block writes with.
    pub writer: Writer,
    /// The selected token: the row of most tensors, the query of attention maps.
    pub position: usize,
    /// The key of attention maps.
    pub key: usize,
    /// The column of everything else: channel, neuron, token id.
    pub column: usize,
    /// The line of the list of next tokens, from 0.
    pub candidate: usize,
}

/// What the arrow keys move on the Stages screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Tree,
    Map,
}

/// Something to tell the user, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    pub bad: bool,
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Activity {
    Loading(Progress),
    /// A run is about to enter this block; `left` tokens are to be drawn after it.
    Running {
        layer: usize,
        n_layer: usize,
        left: usize,
    },
    /// Of many runs, so many are made.
    Working(Steps),
    Exporting(PathBuf),
}

pub struct App {
    pub screen: Screen,
    pub overlay: Option<Overlay>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    pub theme: Theme,
    /// What the user asked for: `demo`, a hub id, a directory.
    pub asked_model: String,
    pub model: Option<Arc<Model>>,
    /// What is to be run; the last run may still be of what it was before.
    pub input: Input,
    pub run: Option<Arc<Run>>,
    pub summary: Option<Arc<Summary>>,
    /// Counts what is shown: another run, or another side of the same two.
    pub shown_id: u64,
    /// Id of the newest job.
    pub job_id: u64,
    pub selection: Selection,
    pub focus: Focus,
    /// Each step halves the window of the Stages map.
    pub zoom: u8,
    /// First row and column of the window.
    pub origin: (usize, usize),
    pub pooling: Pooling,
    /// A range chosen by hand; else what suits the quantity.
    pub range: Option<RangeMode>,
    pub stage: AttnStage,
    pub sampling: Sampling,
    pub what_if: what_if::State,
    /// What only single screens remember.
    pub screens: States,
    /// What was last computed for each place on the screens, of `run` or of the run before.
    pub seen: HashMap<Slot, Arc<Seen>>,
    /// What was last asked for, so that it is asked once.
    pub asked: Option<(u64, Vec<(Slot, Look)>)>,
    /// Number of that request.
    pub look_id: u64,
    /// How far it is, where it takes long.
    pub looking: Option<Steps>,
    /// Esc ended it: nothing is asked for until the next key.
    pub paused: bool,
    pub activity: Option<Activity>,
    pub notice: Option<Notice>,
    /// The frame of the spinner.
    pub tick: usize,
    /// Leave; with an error to show after the terminal is restored.
    pub quit: Option<Result<(), Error>>,
    /// What is still to be done with the terminal: it is not the state's to give back.
    pub signal: Option<Signal>,
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
                layer: 0,
                head: 0,
                writer: Writer::Head,
                position: 0,
                key: 0,
                column: 0,
                candidate: 0,
            },
            focus: Focus::Tree,
            zoom: 0,
            origin: (0, 0),
            pooling: Pooling::default(),
            range: None,
            stage: AttnStage::Pattern,
            sampling: Sampling::default(),
            what_if: what_if::State::default(),
            screens: States::default(),
            seen: HashMap::new(),
            asked: None,
            look_id: 0,
            looking: None,
            paused: false,
            activity: Some(Activity::Loading(Progress::Reading)),
            notice: None,
            tick: 0,
            quit: None,
            signal: None,
        }
    }

    /// The tensor of the Stages screen, as a matrix.
    pub fn stages_view(&self) -> View {
        View::hook(self.selection.hook, self.selection.head)
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

    /// The surprise of the token at `position`, in bits; its difference where differences are shown.
    pub fn surprise(&self, position: usize) -> Option<f32> {
        let bits = |summary: &Summary| Some((*summary.surprises.get(position)?)?.bits);
        let shown = bits(self.summary.as_ref()?)?;
        match &self.what_if.pair {
            Some(pair) if self.differs() => Some(shown - bits(&pair.base.summary)?),
            _ => Some(shown),
        }
    }

    /// The token under the cursor of the Logits screen.
    pub fn candidate(&self) -> Option<u32> {
        self.next()?.of.top.get(self.selection.candidate).map(|candidate| candidate.id)
    }

    /// An editor that starts with `prompt`: as ids, where there is no tokenizer to read text with.
    pub fn editor(&self, prompt: &Prompt) -> Option<Box<Editor>> {
        let tokenizer = &self.model.as_ref()?.tokenizer;
        let text = match prompt {
            Prompt::Ids(ids) if !tokenizer.is_some() => {
                ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
            prompt => prompt.to_text(tokenizer),
        };
        Some(Box::new(Editor::new(&text, !tokenizer.is_some(), self.theme)))
    }

    /// Shows a tensor on the Stages screen.
    pub fn open_in_stages(&mut self, hook: HookName) {
        self.screen = Screen::Stages;
        self.select_hook(hook);
        self.screen.scene().settle(self);
    }

    pub fn select_hook(&mut self, hook: HookName) {
        self.selection.hook = hook;
        self.selection.layer = hook.layer.unwrap_or(self.selection.layer);
    }

    /// To another block, with the tensor where it is one of a block.
    pub fn go_layer(&mut self, run: &Run, by: isize) {
        let s = &mut self.selection;
        s.layer = moved(s.layer, by, run.config().n_layer);
        if s.hook.layer.is_some() {
            s.hook = s.hook.site.at(s.layer);
        }
    }

    pub fn go_head(&mut self, by: isize) {
        if let Some(run) = &self.run {
            self.selection.head = moved(self.selection.head, by, run.config().n_head);
        }
    }

    /// Asks for what is to be seen of a run, in place of what was asked for before.
    pub fn look(&mut self, run: Arc<Run>, base: Option<Arc<Run>>, looks: Vec<(Slot, Look)>) -> Request {
        self.look_id += 1;
        self.looking = None;
        Request::Look(Wanted { run, base, shown_id: self.shown_id, id: self.look_id, looks })
    }

    /// The system asks for something.
    pub fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::Leave => self.quit = Some(Ok(())),
            // The kernel continues what it ends.
            _ if matches!(self.signal, Some(Signal::End(_))) => {}
            // Stopped and continued before either was seen to.
            signal => self.signal = Some(signal),
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), bad: false });
    }

    pub fn complain(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), bad: true });
    }

    /// Whether something is going on that the user waits for.
    pub fn is_busy(&self) -> bool {
        self.activity.is_some()
    }

    /// Whether the passing of time changes what is on screen.
    pub fn needs_ticks(&self) -> bool {
        self.is_busy() || self.looking.is_some() || walk::plays(self)
    }
}
