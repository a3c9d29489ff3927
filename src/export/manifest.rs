//! The provenance of a file's numbers.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::analysis::gradients::Stop;
use crate::config::Config;
use crate::error::Result;
use crate::hooks::Axis;
use crate::interventions::Interventions;
use crate::run::Run;
use crate::text::json;

/// Everything needed to reproduce the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub actscope_version: String,
    /// `demo`, the hub id, or the directory.
    pub model: String,
    /// The hub's commit, if any.
    pub revision: Option<String>,
    /// The directory of the LoRA adapter that was merged into the model, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    pub weights_sha256: String,
    /// The sizes and switches of the model, so that the run can be looked at without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// Number format of the weights in their file.
    pub stored_dtype: Option<String>,
    /// Number format of the computation; the tensors are always written as float32.
    pub dtype: String,
    pub device: String,
    /// What was unusual about the checkpoint and how it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model_notes: Vec<String>,
    /// Whether a BOS token comes before the prompt; if so, `token_ids` includes it.
    pub bos: bool,
    pub prompt: String,
    /// The changes to the run; `--interventions` reads such a list.
    #[serde(default)]
    pub interventions: Interventions,
    /// `changed − base` if the values are those with the interventions minus those without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
    /// What the values are gradients of, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient: Option<OfMetric>,
    /// The complete input of the network.
    pub token_ids: Vec<u32>,
    /// The same as text, with every byte visible.
    pub tokens: Vec<String>,
    /// The first position written, and the one after the last.
    pub positions: [usize; 2],
    pub hooks: Vec<TensorInfo>,
}

/// What gradients are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfMetric {
    /// As `--metric` takes it.
    pub metric: String,
    pub value: f64,
    /// What was taken as constant: `scale`, `pattern`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

impl OfMetric {
    /// What was taken as constant.
    pub fn stop(&self) -> Stop {
        let has = |what: &str| self.stop.iter().any(|stop| stop == what);
        Stop { scale: has("scale"), pattern: has("pattern") }
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
    /// The names of the axes, as in the columns of a `.csv`.
    pub axes: Vec<String>,
    /// Whether the file has `NAME.indices` (2, k) and `NAME.values` (k) instead, of what is not 0 in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
}

impl Manifest {
    /// The manifest of the tensors of `run` at `positions`.
    ///
    /// # Errors
    /// [`crate::Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(run: &Run, positions: &Range<usize>, tensors: Vec<TensorInfo>) -> Result<Self> {
        let made_by = &run.model.provenance;
        Ok(Self {
            actscope_version: env!("CARGO_PKG_VERSION").to_owned(),
            model: made_by.model.clone(),
            revision: made_by.revision.clone(),
            adapter: made_by.adapter.clone(),
            weights_sha256: made_by.weights_sha256()?.to_owned(),
            config: Some(run.config().clone()),
            stored_dtype: made_by.stored_dtype.map(|format| format.to_string()),
            dtype: made_by.dtype.as_str().to_owned(),
            device: made_by.device.clone(),
            model_notes: made_by.notes.clone(),
            bos: run.input.has_bos(&run.model),
            interventions: Interventions(run.input.interventions.active().cloned().collect()),
            difference: None,
            gradient: None,
            prompt: run.prompt_text(),
            token_ids: run.tokens.clone(),
            tokens: (0..run.n_tokens()).map(|position| run.token_text(position)).collect(),
            positions: [positions.start, positions.end],
            hooks: tensors,
        })
    }

    /// A JSON object with one line per field.
    pub fn to_json(&self) -> String {
        let lines: Vec<_> =
            self.fields().iter().map(|(name, value)| format!("  {}: {}", json(name), json(value))).collect();
        format!("{{\n{}\n}}", lines.join(",\n"))
    }

    /// The fields in order.
    pub(super) fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            other => unreachable!("a struct of plain fields is a JSON object, not {other:?}"),
        }
    }
}

/// The name of an axis without spaces.
pub(super) fn column(axis: Axis) -> &'static str {
    match axis {
        Axis::Vocab => "token_id",
        Axis::One => "one",
        axis => axis.noun(),
    }
}
