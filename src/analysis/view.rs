//! Any tensor of a run or its model as a matrix.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName, Part, Quantity, Site, TensorName};
use crate::model::{Table, causal_mask};
use crate::picture::Matrix;
use crate::picture::grid::{Grid, Pooling, Window};
use crate::run::Run;

/// The steps from queries and keys to an attention pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttnStage {
    /// q · kᵀ
    Scores,
    /// q · kᵀ · scale
    Scaled,
    /// The same with −inf in the future: `hook_attn_scores`.
    Masked,
    /// Its softmax: `hook_pattern`.
    Pattern,
}

impl AttnStage {
    pub const ALL: [Self; 4] = [Self::Scores, Self::Scaled, Self::Masked, Self::Pattern];

    pub fn name(self) -> &'static str {
        match self {
            Self::Scores => "scores",
            Self::Scaled => "scaled",
            Self::Masked => "masked",
            Self::Pattern => "pattern",
        }
    }
}

/// A weight matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// W_Q, W_K and W_V side by side, (C, 3 C).
    Qkv,
    /// W_O, (C, C).
    O,
    /// W_in, (C, n_inner).
    In,
    /// W_out, (n_inner, C).
    Out,
}

impl Weight {
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "W_QKV",
            Self::O => "W_O",
            Self::In => "W_in",
            Self::Out => "W_out",
        }
    }
}

/// The source of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViewSource {
    /// Of a hook, or what a dictionary makes of it.
    Tensor(TensorName),
    /// The token embedding, (V, C).
    Wte,
    /// The positional embedding, (maxT, C).
    Wpe,
    /// A step of the attention of a block, (T, T) per head.
    Stage(usize, AttnStage),
    /// q, k, v or z with its heads side by side, (T, C).
    Merged(HookName),
    /// The keys of a block, transposed: (d_head, T) per head.
    KeysT(usize),
    /// The causal mask: 0 or −inf, (T, T).
    Mask,
    Weight(usize, Weight),
    /// W_U, (C, V).
    Unembed,
}

impl ViewSource {
    /// Whether the part right of the diagonal is the future, which attention cannot read.
    pub fn is_causal(self) -> bool {
        match self {
            Self::Tensor(name) => matches!(name.hook.site, Site::AttnScores | Site::Pattern),
            Self::Stage(_, stage) => matches!(stage, AttnStage::Masked | AttnStage::Pattern),
            Self::Mask => true,
            _ => false,
        }
    }

    /// Whether it is the same in two runs of equal length, whatever the interventions.
    pub fn is_same(self) -> bool {
        self.is_weight() || self == Self::Mask
    }

    /// Whether it belongs to the model and is the same in every run.
    pub fn is_weight(self) -> bool {
        matches!(self, Self::Wte | Self::Wpe | Self::Weight(..) | Self::Unembed)
    }
}

/// What is shown of a tensor x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Shown {
    #[default]
    Value,
    /// ∂m/∂x of a metric m.
    Gradient,
    /// x ⊙ ∂m/∂x
    Times,
}

impl Shown {
    pub const ALL: [Self; 3] = [Self::Value, Self::Gradient, Self::Times];

    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "values",
            Self::Gradient => "gradient",
            Self::Times => "gradient × value",
        }
    }
}

/// A matrix: a tensor, and one head if it has heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub source: ViewSource,
    /// Ignored if the tensor has no head axis.
    pub head: usize,
    /// What the numbers are: those of the run that is read are taken to be this.
    pub shown: Shown,
}

impl View {
    pub const fn of(source: ViewSource, head: usize) -> Self {
        Self { source, head, shown: Shown::Value }
    }

    pub fn hook(name: impl Into<TensorName>, head: usize) -> Self {
        Self::of(ViewSource::Tensor(name.into()), head)
    }

    /// The same of a tensor's gradient, where it is one of a run.
    #[must_use]
    pub fn showing(self, shown: Shown) -> Self {
        Self { shown: if self.source.is_same() { Shown::Value } else { shown }, ..self }
    }

    /// What the rows and the columns count.
    pub fn axes(&self) -> (Axis, Axis) {
        match self.source {
            ViewSource::Tensor(name) => match *name.axes() {
                [Axis::Head, rows, columns] | [rows, Axis::Head, columns] | [rows, columns] => {
                    (rows, columns)
                }
                ref other => unreachable!("{name} has axes {other:?}"),
            },
            ViewSource::Wte => (Axis::Vocab, Axis::Model),
            ViewSource::Wpe => (Axis::Pos, Axis::Model),
            ViewSource::Stage(..) | ViewSource::Mask => (Axis::Pos, Axis::Key),
            ViewSource::Merged(_) => (Axis::Pos, Axis::Model),
            ViewSource::KeysT(_) => (Axis::HeadDim, Axis::Key),
            ViewSource::Weight(_, Weight::Qkv | Weight::O) => (Axis::Model, Axis::Model),
            ViewSource::Weight(_, Weight::In) => (Axis::Model, Axis::Neuron),
            ViewSource::Weight(_, Weight::Out) => (Axis::Neuron, Axis::Model),
            ViewSource::Unembed => (Axis::Model, Axis::Vocab),
        }
    }

    /// The numbers of rows and columns for `run`.
    pub fn dims(&self, run: &Run) -> (usize, usize) {
        let (rows, columns) = self.axes();
        let of = |axis: Axis| axis.len(run.config(), run.n_tokens());
        match self.source {
            ViewSource::Wpe => (run.config().n_positions, of(columns)),
            ViewSource::Weight(_, Weight::Qkv) => (of(rows), 3 * of(columns)),
            _ => (of(rows), of(columns)),
        }
    }

    /// Whether the tensor has a head axis.
    pub fn has_heads(&self) -> bool {
        match self.source {
            ViewSource::Tensor(name) => name.has_heads(),
            ViewSource::Stage(..) | ViewSource::KeysT(_) => true,
            _ => false,
        }
    }

    pub fn quantity(&self) -> Quantity {
        match self.source {
            _ if self.shown != Shown::Value => Quantity::Signed,
            ViewSource::Tensor(name) => name.quantity(),
            ViewSource::Stage(_, AttnStage::Pattern) => Quantity::Probability,
            _ => Quantity::Signed,
        }
    }

    /// Whether the stored rows are the columns of this matrix: W_U, which is wteᵀ or as large.
    pub fn stored_transposed(&self) -> bool {
        self.source == ViewSource::Unembed
    }

    /// The matrix itself, or its transpose if it [is stored transposed](Self::stored_transposed).
    ///
    /// # Errors
    /// [`Error::Usage`] if the run did not keep the tensor or has no such head.
    pub fn stored(&self, run: &Run) -> Result<Matrix> {
        if !self.stored_transposed() {
            return self.matrix(run);
        }
        matrix_of(&run.model.net.unembed) // (V, C)
    }

    /// A window of the matrix, pooled; `stored` is its [stored form](Self::stored).
    pub fn grid(&self, stored: &Matrix, window: &Window, per_cell: (usize, usize), pooling: Pooling) -> Grid {
        if !self.stored_transposed() {
            return Grid::new(stored, window, per_cell, pooling);
        }
        let turned = Window { rows: window.columns.clone(), columns: window.rows.clone() };
        Grid::new(stored, &turned, (per_cell.1, per_cell.0), pooling).transposed()
    }

    /// The matrix itself.
    ///
    /// # Errors
    /// [`Error::Usage`] if the run did not capture the tensor or has no such head.
    pub fn matrix(&self, run: &Run) -> Result<Matrix> {
        self.rows(run, 0..self.dims(run).0)
    }

    /// Some of its rows; if the tensor is derived, only these are computed.
    ///
    /// # Errors
    /// See [`Self::matrix`].
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn rows(&self, run: &Run, rows: std::ops::Range<usize>) -> Result<Matrix> {
        let (all, n_columns) = self.dims(run);
        assert!(rows.end <= all, "rows {rows:?} of {all}");
        if self.has_heads() {
            Error::check("head", self.head, 0..run.config().n_head)?;
        }
        let n_rows = rows.len();
        let head = self.has_heads().then_some(self.head);
        let all_keys = Part { rows: None, head };
        let part = Part { rows: (n_rows < all).then(|| rows.clone()), head };
        let of = |whole: &Tensor| whole.narrow(0, rows.start, n_rows);
        let tensor = match self.source {
            ViewSource::Tensor(name) => run.part(name, &part)?,
            ViewSource::Merged(hook) => run.part(hook, &part)?,
            ViewSource::Wte if n_rows == all => return matrix_of(&run.model.net.wte),
            ViewSource::Wte => run.model.net.wte.rows(&rows.map(|row| row as u32).collect::<Vec<_>>())?,
            ViewSource::Wpe => of(&run.model.net.wpe)?,
            ViewSource::KeysT(l) => {
                let k = run.part(Site::K.at(l), &all_keys)?.squeeze(1)?; // (T, d_head)
                of(&k.t()?)?
            }
            ViewSource::Mask => causal_mask(rows.start, n_rows, run.n_tokens(), DType::F32, &Device::Cpu)?,
            ViewSource::Weight(l, weight) => {
                let block = &run.model.net.blocks[l];
                let conv = match weight {
                    Weight::Qkv => &block.c_attn,
                    Weight::O => &block.attn_proj,
                    Weight::In => &block.c_fc,
                    Weight::Out => &block.mlp_proj,
                };
                of(&conv.weight()?)?
            }
            ViewSource::Unembed => of(&run.model.net.unembed.all()?.t()?)?,
            ViewSource::Stage(l, AttnStage::Masked) => run.part(Site::AttnScores.at(l), &part)?,
            ViewSource::Stage(l, AttnStage::Pattern) => run.part(Site::Pattern.at(l), &part)?,
            // Of gradients, there are those of masked scores; the chain rule gives the others.
            ViewSource::Stage(l, stage) if self.shown != Shown::Value => {
                let before_scale = stage == AttnStage::Scores && self.shown == Shown::Gradient;
                let factor = if before_scale { run.config().attn_scale(l) } else { 1.0 };
                (run.part(Site::AttnScores.at(l), &part)? * factor)?
            }
            ViewSource::Stage(l, stage) => {
                let (q, k) = (run.part(Site::Q.at(l), &part)?, run.part(Site::K.at(l), &all_keys)?);
                let scores = q.squeeze(1)?.matmul(&k.squeeze(1)?.t()?)?; // (S, T)
                let scale = if stage == AttnStage::Scaled { run.config().attn_scale(l) } else { 1.0 };
                (scores * scale)?
            }
        };
        Matrix::of(&tensor.reshape((n_rows, n_columns))?)
    }
}

/// The rows of a table, (V, C), without a copy.
///
/// # Errors
/// If they cannot be copied to the CPU.
pub fn matrix_of(table: &Table) -> Result<Matrix> {
    let (n_rows, n_columns) = table.dims();
    match table.reader() {
        Some(read) => Ok(Matrix::reading(n_rows, n_columns, read)),
        None => Matrix::of(&table.all()?),
    }
}
