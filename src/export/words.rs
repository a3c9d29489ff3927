//! Under which names tensors are written, and in which layout: ours, or those of another program.

use std::ops::Range;

use candle_core::Tensor;

use super::manifest::{TensorInfo, column};
use crate::config::Config;
use crate::error::Result;
use crate::foreign::layout;
use crate::foreign::names::{Dialect, Kind, Ours};
use crate::hooks::{Axis, Part, Site, TensorName};
use crate::run::Run;

/// Whose words a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Words {
    /// `None`: ours, which are TransformerLens's.
    pub dialect: Option<Dialect>,
    /// Whether tensors have a first axis of length 1. llm.c's always have one.
    pub batch: bool,
}

/// A tensor to be written.
#[derive(Debug)]
pub struct Item {
    pub name: String,
    of: Of,
    batch: bool,
}

#[derive(Debug)]
enum Of {
    Own(TensorName),
    /// Of another program; of llm.c, those of all blocks one after the other.
    Theirs(Dialect, Vec<Ours>),
}

impl Item {
    /// What these tensors are called; what the program has no name for is left out.
    pub fn all(names: &[TensorName], words: Words, config: &Config) -> Vec<Self> {
        let Some(dialect) = words.dialect else {
            let own =
                |name: &TensorName| Self { name: name.to_string(), of: Of::Own(*name), batch: words.batch };
            return names.iter().map(own).collect();
        };
        let has = |ours: &Ours| layout::sources(*ours).iter().all(|hook| names.contains(&(*hook).into()));
        let all = dialect.all(config).into_iter();
        // The last target of a prompt is not known.
        let all = all.filter(|(_, parts)| parts.iter().all(|ours| ours.kind != Kind::Losses && has(ours)));
        let batch = words.batch || dialect == Dialect::Llmc;
        all.map(|(name, parts)| Self { name, of: Of::Theirs(dialect, parts), batch }).collect()
    }

    /// Whether it has a column for each feature of a dictionary, of which few are not 0.
    pub fn is_wide(&self) -> bool {
        match self.of {
            Of::Own(name) => !self.batch && matches!(name.axes()[..], [_, Axis::Feature(_)]),
            Of::Theirs(..) => false,
        }
    }

    /// The tensor of ours that it is.
    pub fn own(&self) -> Option<TensorName> {
        match self.of {
            Of::Own(name) => Some(name),
            Of::Theirs(..) => None,
        }
    }

    pub fn info(&self, run: &Run, positions: &Range<usize>) -> TensorInfo {
        let (config, n) = (run.config(), run.n_tokens());
        let len = |axis: &Axis| if *axis == Axis::Pos { positions.len() } else { axis.len(config, n) };
        let (mut axes, mut shape): (Vec<String>, Vec<usize>) = match &self.of {
            Of::Own(name) => {
                let axes = name.axes();
                (axes.iter().map(|axis| column(*axis).to_owned()).collect(), axes.iter().map(len).collect())
            }
            Of::Theirs(dialect, parts) => {
                let axes = axes_of(*dialect, parts[0]);
                let mut shape: Vec<usize> = axes.iter().map(len).collect();
                if parts[0].kind == Kind::Qkv {
                    shape[1] *= 3;
                }
                (axes.into_iter().map(|axis| column(axis).to_owned()).collect(), shape)
            }
        };
        if self.batch {
            (axes, shape) = ([vec!["batch".into()], axes].concat(), [vec![1], shape].concat());
        }
        if let Of::Theirs(_, parts) = &self.of
            && self.is_stacked()
        {
            (axes, shape) = ([vec!["layer".into()], axes].concat(), [vec![parts.len()], shape].concat());
        }
        TensorInfo { name: self.name.clone(), shape, axes, sparse: false }
    }

    /// Its values at some positions.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if the run did not keep them.
    pub fn values(&self, run: &Run, positions: &Range<usize>) -> Result<Tensor> {
        let batched = |x: Tensor| if self.batch { x.unsqueeze(0) } else { Ok(x) };
        match &self.of {
            Of::Own(name) => Ok(batched(run.part(*name, &Part::rows(positions.clone()))?)?),
            Of::Theirs(dialect, parts) => {
                let one = |ours: &Ours| -> Result<Tensor> {
                    let x = layout::value(*ours, &run.cache, positions, &[])?;
                    Ok(batched(laid_out(*dialect, *ours, x)?)?)
                };
                let all = parts.iter().map(one).collect::<Result<Vec<_>>>()?;
                Ok(if self.is_stacked() { Tensor::stack(&all, 0)? } else { all[0].clone() })
            }
        }
    }

    /// Whether it is of all blocks, even if there is one.
    fn is_stacked(&self) -> bool {
        match &self.of {
            Of::Theirs(Dialect::Llmc, parts) => parts[0].hook.layer.is_some() && !self.is_single(),
            _ => false,
        }
    }

    /// llm.c's names of what is there once, though it is of a block here.
    fn is_single(&self) -> bool {
        matches!(self.name.as_str(), "encoded" | "lnf_mean")
    }
}

/// How many tensors of a run a program has no name for.
pub fn unnamed(names: &[TensorName], items: &[Item]) -> usize {
    let is_named = |name: &&TensorName| {
        items.iter().any(|item| match &item.of {
            Of::Own(own) => own == *name,
            Of::Theirs(_, parts) => parts.iter().any(|ours| {
                layout::sources(*ours).iter().any(|hook| name.hook == *hook && name.made.is_none())
            }),
        })
    };
    names.iter().filter(|name| !is_named(name)).count()
}

/// Whether a program has heads side by side, or first.
fn heads(dialect: Dialect, ours: Ours) -> Heads {
    let by_head = ours.kind == Kind::Whole && ours.hook.point().axes.contains(&Axis::HeadDim);
    match (dialect, ours.hook.site) {
        (Dialect::Llmc, _) if by_head => Heads::Merged,
        (Dialect::Hf, Site::K | Site::V) if by_head => Heads::First,
        _ => Heads::AsOurs,
    }
}

enum Heads {
    AsOurs,
    /// (T, C)
    Merged,
    /// (H, T, d_head)
    First,
}

fn axes_of(dialect: Dialect, ours: Ours) -> Vec<Axis> {
    match (ours.kind, heads(dialect, ours)) {
        (Kind::Mean | Kind::Rstd | Kind::Losses, _) => vec![Axis::Pos],
        (Kind::Qkv, _) | (_, Heads::Merged) => vec![Axis::Pos, Axis::Model],
        (_, Heads::First) => vec![Axis::Head, Axis::Pos, Axis::HeadDim],
        (_, Heads::AsOurs) => ours.hook.point().axes.to_vec(),
    }
}

fn laid_out(dialect: Dialect, ours: Ours, x: Tensor) -> Result<Tensor> {
    Ok(match heads(dialect, ours) {
        Heads::AsOurs => x,
        Heads::Merged => x.flatten_from(1)?,
        Heads::First => x.transpose(0, 1)?.contiguous()?,
    })
}
