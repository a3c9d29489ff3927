//! What if: changes to a forward pass as plain data, which can be listed, saved and applied again.
//!
//! A list of changes is part of the input ([`crate::Input`]). They act before any other hook; several
//! changes to the same tensor act in the order of the list. Each is one line of text:
//!
//! | text | the tensor becomes |
//! |---|---|
//! | `zero TARGET` | 0 |
//! | `mean TARGET` | its mean over the positions of the prompt |
//! | `scale TARGET=X` | itself times X |
//! | `add TARGET:A-B=X` | itself plus X · (row A − row B) of the same tensor; `=X` may be left out for 1 |
//! | `set TARGET=X` | X |
//! | `patch TARGET from IDS` | its value in another prompt with these token ids, under the changes before this one: at every position that both have, or at the position of the target; `from T of IDS` takes position T there |
//! | `knockout L.H:Q->K` | query Q of head L.H no longer reads key K: its score is −inf, so softmax gives K's share to the other keys. If no key is left, the row is NaN |
//!
//! | `add FEATURE=X` | itself plus X times the direction of the feature |
//! | `splice TENSOR` | what a sparse dictionary makes of it |
//!
//! | target | tensor |
//! |---|---|
//! | `feature:L.NAME/N` | the activation of feature N of the dictionary that writes NAME in block L, as in `feature:2.resid_pre/731`. Its tensor becomes itself plus the change of its direction, so that what the dictionary misses stays; under `splice`, what is decoded |
//! | `head:L.H` | `attn.hook_z` of head H in block L: what the head gathered |
//! | `neuron:L.N` | `mlp.hook_post` of neuron N in block L |
//! | `attn:L`, `mlp:L` | `hook_attn_out`, `hook_mlp_out` of block L, biases included |
//! | `layer:L` | both: without them, block L passes its input on unchanged |
//! | `position:T` | `hook_resid_pre` of block 0 at position T: the token's whole embedding |
//! | `resid_mid.3`, `q.3`, `q.3.5`, … | any tensor whose rows are positions, by short or full name; for tensors with heads, also one head |
//!
//! Every target except `position:T` may end in `@T` for position T only. Without it, all positions change.
//!
//! ```
//! use std::sync::Arc;
//! use actscope::{Input, Interventions, Model, Run};
//!
//! let model = Arc::new(Model::demo());
//! let without: Interventions = ["zero head:1.5", "knockout 3.2:4->0"].iter().map(|s| s.parse()).collect::<Result<_, _>>()?;
//! let run = Run::all(&model, Input::text("The quick brown fox jumps").with_interventions(without))?;
//! # Ok::<(), actscope::Error>(())
//! ```

mod apply;
mod back;
mod features;
mod words;

pub use apply::{Changes, Donors};

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName, Site};
use crate::text::json;

/// The part of a forward pass that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A head's part of a tensor with heads; for `attn.hook_z`, the head itself.
    Head(HookName, usize),
    Neuron {
        layer: usize,
        neuron: usize,
    },
    /// A feature of the dictionary that writes this tensor.
    Feature {
        hook: HookName,
        feature: u32,
    },
    /// The outputs of attention and MLP of a block.
    Layer(usize),
    /// A whole tensor.
    Tensor(HookName),
}

/// A target at one position or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub target: Target,
    pub position: Option<usize>,
}

/// `factor` · (row `plus` − row `minus`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Direction {
    pub plus: usize,
    pub minus: usize,
    pub factor: f32,
}

/// Activations of another prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Donor {
    /// All its tokens, BOS included.
    pub tokens: Vec<u32>,
    /// The position there, if one position is changed; `None`: the same.
    pub position: Option<usize>,
}

/// What a query reads from a key in one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    pub layer: usize,
    pub head: usize,
    pub query: usize,
    pub key: usize,
}

/// One change; see the [module](self) for what each does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Change {
    Zero(Place),
    Mean(Place),
    Scale(Place, f32),
    Set(Place, f32),
    Add(Place, Direction),
    /// So many times the direction of a feature.
    Steer(Place, f32),
    /// What a dictionary makes of a tensor.
    Splice(Place),
    Patch(Place, Donor),
    Knockout(Edge),
}

/// A change in the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervention {
    pub change: Change,
    /// Whether it acts.
    #[serde(default = "yes")]
    pub on: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Changes, in the order in which they apply.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Interventions(pub Vec<Intervention>);

fn yes() -> bool {
    true
}

impl Interventions {
    /// The active ones.
    pub fn active(&self) -> impl Iterator<Item = &Intervention> {
        self.0.iter().filter(|intervention| intervention.on)
    }

    /// Whether none is active: the run is the same as without them, to the bit.
    pub fn is_idle(&self) -> bool {
        self.active().next().is_none()
    }

    /// The first tensor, in data-flow order, that any of them changes: those before it are the
    /// same as without them.
    pub fn first(&self) -> Option<HookName> {
        self.active().flat_map(|intervention| intervention.change.hooks()).min()
    }

    /// Whether any of them changes a tensor in this range of the data flow.
    pub fn act_in(&self, range: RangeInclusive<HookName>) -> bool {
        self.active().flat_map(|intervention| intervention.change.hooks()).any(|hook| range.contains(&hook))
    }

    /// The first tensor that differs from a run of the same tokens under `other`.
    pub fn first_difference(&self, other: &Self) -> Option<HookName> {
        let same = self.active().zip(other.active()).take_while(|(a, b)| a.change == b.change).count();
        let rest = self.active().skip(same).chain(other.active().skip(same));
        rest.flat_map(|intervention| intervention.change.hooks()).min()
    }

    /// Whether each position still depends only on earlier ones, which a mean over the prompt or a
    /// direction from later rows would break.
    pub fn is_causal(&self) -> bool {
        self.active().all(|intervention| intervention.change.is_causal())
    }

    /// Checks that all active changes are possible, in a model of this configuration on this many tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] with the index that is out of range, and the range.
    pub fn check(&self, config: &Config, n_tokens: usize) -> Result<()> {
        self.active().try_for_each(|intervention| intervention.change.check(config, n_tokens))
    }

    /// The list as JSON, one line per change.
    pub fn to_json(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(json).collect();
        if lines.is_empty() { "[]\n".into() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
    }

    /// Parses the output of [`Self::to_json`].
    ///
    /// # Errors
    /// What is wrong, and on which line.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("is not a list of interventions: {e}"))
    }
}

impl FromIterator<Change> for Interventions {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Self(changes.into_iter().map(Intervention::from).collect())
    }
}

impl From<Change> for Intervention {
    fn from(change: Change) -> Self {
        Self { change, on: true, name: None }
    }
}

impl Target {
    /// The tensors it stands for.
    pub fn hooks(self) -> impl Iterator<Item = HookName> {
        let (first, second) = match self {
            Self::Layer(l) => (Site::AttnOut.at(l), Some(Site::MlpOut.at(l))),
            Self::Neuron { layer, .. } => (Site::MlpPost.at(layer), None),
            Self::Head(hook, _) | Self::Tensor(hook) | Self::Feature { hook, .. } => (hook, None),
        };
        std::iter::once(first).chain(second)
    }

    /// All positions of it.
    pub fn everywhere(self) -> Place {
        Place { target: self, position: None }
    }

    /// One position of it.
    pub fn at(self, position: usize) -> Place {
        Place { target: self, position: Some(position) }
    }
}

impl Change {
    /// The tensors it changes.
    pub fn hooks(&self) -> impl Iterator<Item = HookName> + use<> {
        let scores = match self {
            Self::Knockout(edge) => Some(Site::AttnScores.at(edge.layer)),
            _ => None,
        };
        self.place().into_iter().flat_map(|place| place.target.hooks()).chain(scores)
    }

    /// Where it acts, except for edges.
    pub(crate) fn place(&self) -> Option<Place> {
        match *self {
            Self::Zero(place)
            | Self::Mean(place)
            | Self::Scale(place, _)
            | Self::Set(place, _)
            | Self::Steer(place, _)
            | Self::Splice(place)
            | Self::Add(place, _)
            | Self::Patch(place, _) => Some(place),
            Self::Knockout(_) => None,
        }
    }

    fn is_causal(&self) -> bool {
        match *self {
            Self::Zero(_)
            | Self::Scale(..)
            | Self::Set(..)
            | Self::Steer(..)
            | Self::Splice(_)
            | Self::Patch(..)
            | Self::Knockout(_) => true,
            Self::Mean(_) => false,
            Self::Add(place, Direction { plus, minus, .. }) => {
                place.position.is_some_and(|position| plus.max(minus) <= position)
            }
        }
    }

    /// Checks that it is possible in a model of this configuration on this many tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] with the index that is out of range, and the range.
    pub fn check(&self, config: &Config, n_tokens: usize) -> Result<()> {
        let found = self.place().map_or(Ok(()), |place| place.find(config, n_tokens, true));
        let rest = || match self {
            Self::Add(Place { target: Target::Feature { .. }, .. }, _)
            | Self::Patch(Place { target: Target::Feature { .. }, .. }, _) => Err(Error::usage(
                "a feature can be set, scaled, ablated, or added to: add feature:L.NAME/N=X",
            )),
            Self::Steer(Place { target, .. }, _) if !matches!(target, Target::Feature { .. }) => {
                Err(Error::usage("only a feature has a direction to add"))
            }
            Self::Splice(Place { target, .. }) if !matches!(target, Target::Tensor(_)) => {
                Err(Error::usage("a whole tensor is spliced, such as resid_pre.2"))
            }
            Self::Zero(_)
            | Self::Mean(_)
            | Self::Scale(..)
            | Self::Set(..)
            | Self::Steer(..)
            | Self::Splice(_) => Ok(()),
            Self::Add(_, Direction { plus, minus, .. }) => position(*plus.max(minus), n_tokens),
            Self::Patch(place, donor) => donor.find(*place),
            Self::Knockout(edge) => edge.find(config, n_tokens),
        };
        let checked = found.and_then(|()| rest());
        checked.map_err(|why| Error::usage(format!("`{self}`: {why}")))
    }
}

impl Place {
    /// Checks that the place exists in a model of this configuration on this many tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] with the index that is out of range, and the range.
    pub fn check(self, config: &Config, n_tokens: usize) -> Result<()> {
        self.find(config, n_tokens, false).map_err(|why| Error::usage(format!("`{self}`: {why}")))
    }

    /// `by_rows`: only accept a tensor whose rows are positions.
    fn find(self, config: &Config, n_tokens: usize, by_rows: bool) -> Result<()> {
        for hook in self.target.hooks() {
            if let Some(layer) = hook.layer {
                Error::check("layer", layer, 0..config.n_layer)?;
            }
            if by_rows && hook.point().axes[0] != Axis::Pos {
                return Err(Error::usage(format!(
                    "{hook} can only be changed edge by edge: knockout L.H:Q->K"
                )));
            }
        }
        match self.target {
            Target::Head(hook, _) if !hook.point().axes.contains(&Axis::Head) => {
                return Err(Error::usage(format!("{hook} has no heads")));
            }
            Target::Head(_, head) => Error::check("head", head, 0..config.n_head)?,
            Target::Neuron { neuron, .. } => Error::check("neuron", neuron, 0..config.d_mlp())?,
            // Which features there are, the dictionary knows.
            Target::Feature { .. } | Target::Layer(_) | Target::Tensor(_) => {}
        }
        self.position.map_or(Ok(()), |at| position(at, n_tokens))
    }
}

impl Donor {
    /// The position in the other prompt that goes to `position`.
    fn position(&self, position: usize) -> usize {
        self.position.unwrap_or(position)
    }

    fn find(&self, place: Place) -> Result<()> {
        match (place.position, self.position) {
            _ if self.tokens.is_empty() => Err(Error::usage("no token ids to patch from")),
            (Some(at), _) => Error::check("position", self.position(at), 0..self.tokens.len())
                .map_err(|why| Error::usage(format!("{why} in the prompt to patch from"))),
            (None, Some(_)) => {
                Err(Error::usage("one source position needs one target position: add @T to the target"))
            }
            (None, None) => Ok(()),
        }
    }
}

impl Edge {
    /// Refuses a key that comes after its query.
    pub(crate) fn check_order(self) -> Result<()> {
        let Self { query, key, .. } = self;
        if key <= query {
            return Ok(());
        }
        Err(Error::usage(format!("query {query} never reads key {key}, which comes later")))
    }

    fn find(self, config: &Config, n_tokens: usize) -> Result<()> {
        let Self { layer, head, query, .. } = self;
        Error::check("layer", layer, 0..config.n_layer)?;
        Error::check("head", head, 0..config.n_head)?;
        position(query, n_tokens)?;
        self.check_order()
    }
}

fn position(at: usize, n_tokens: usize) -> Result<()> {
    // What is wrong with an empty prompt is not the position.
    if n_tokens == 0 { Ok(()) } else { Error::check("position", at, 0..n_tokens) }
}
