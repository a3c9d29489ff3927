//! The state of the explorer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::command::Command;
use super::overlays::Overlay;
use super::screens::{attribution, compare, heads, lens, walk, weights};
use super::theme::Theme;
use super::what_if;
use crate::analysis::answer::Answer;
use crate::analysis::logits::Next;
use crate::analysis::logits::Sampling;
use crate::analysis::{AttnStage, View};
use crate::engine::{Look, Map, RowLook, Seen, Slot, Steps, Summary};
use crate::error::Error;
use crate::hooks::{HookName, Quantity, Site};
use crate::model::{Model, Progress};
use crate::picture::grid::Pooling;
use crate::picture::range::RangeMode;
use crate::run::{Input, Run};
use crate::signals::Signal;

/// The screens, in the order of their number keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Screen {
    Tokens,
    Embedding,
    Stages,
    Attention,
    Logits,
    Walk,
    Heads,
    Lens,
    Attribution,
    Compare,
    Weights,
}

impl Screen {
    pub const ALL: [Self; 11] = [
        Self::Tokens,
        Self::Embedding,
        Self::Stages,
        Self::Attention,
        Self::Logits,
        Self::Walk,
        Self::Heads,
        Self::Lens,
        Self::Attribution,
        Self::Compare,
        Self::Weights,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "Tokens",
            Self::Embedding => "Embedding",
            Self::Stages => "Stages",
            Self::Attention => "Attention",
            Self::Logits => "Logits",
            Self::Walk => "Walk",
            Self::Heads => "Heads",
            Self::Lens => "Lens",
            Self::Attribution => "Attribution",
            Self::Compare => "Compare",
            Self::Weights => "Weights",
        }
    }

    /// The command that goes there.
    pub fn command(self) -> Command {
        match self {
            Self::Tokens => Command::Tokens,
            Self::Embedding => Command::Embedding,
            Self::Stages => Command::Stages,
            Self::Attention => Command::Attention,
            Self::Logits => Command::Logits,
            Self::Walk => Command::Walk,
            Self::Heads => Command::Heads,
            Self::Lens => Command::Lens,
            Self::Attribution => Command::Attribution,
            Self::Compare => Command::Compare,
            Self::Weights => Command::Weights,
        }
    }

    /// The screen `step` after this one, round and round.
    #[must_use]
    pub fn step(self, step: isize) -> Self {
        let n = Self::ALL.len() as isize;
        Self::ALL[(self as isize + step).rem_euclid(n) as usize]
    }
}

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
    /// Job `id` is about to enter this block.
    Running {
        id: u64,
        layer: usize,
        n_layer: usize,
        left: usize,
    },
    /// Job `id` has made `done` of the `of` runs it needs.
    Working {
        id: u64,
        what: &'static str,
        done: usize,
        of: usize,
    },
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
    /// Id of `run`.
    pub run_id: u64,
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
    pub walk: walk::State,
    pub heads: heads::State,
    pub lens: lens::State,
    pub attribution: attribution::State,
    pub compare: compare::State,
    pub weights: weights::State,
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
            run_id: 0,
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
            walk: walk::State::default(),
            heads: heads::State::default(),
            lens: lens::State::default(),
            attribution: attribution::State::default(),
            compare: compare::State::default(),
            weights: weights::State::default(),
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

    pub fn next(&self) -> Option<&Answer<Next>> {
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
