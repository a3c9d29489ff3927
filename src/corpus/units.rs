//! Units: what a corpus is asked about, a number at each position. Neurons, heads, channels, features.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::piece::Piece;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName, Made, Site, TensorName};
use crate::interventions::Target;

/// How the numbers of a hook are made of its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Each value, (T, n).
    Values,
    /// The norm of what each head writes, (T, H, C) → (T, H).
    Norms,
    /// The largest weight of each head on a token other than the first, (H, T, T) → (T, H).
    Attention,
}

/// The units of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub tensor: TensorName,
    pub measure: Measure,
    /// How many there are.
    pub n: usize,
    /// The channels of a head, where each is a unit of its own.
    d_head: Option<usize>,
}

impl Group {
    /// # Errors
    /// [`Error::Usage`] for a tensor that has no row of units for each position.
    pub fn new(tensor: impl Into<TensorName>, config: &Config) -> Result<Self> {
        use Axis::{Head, HeadDim, Key, Model, Pos, Vocab};
        let tensor = tensor.into();
        let of = |measure, n, d_head| Self { tensor, measure, n, d_head };
        let h = config.n_head;
        match tensor.axes()[..] {
            [Pos, Vocab] => Err(Error::usage(format!(
                "{tensor} has a value for each token of the vocabulary: choose other hooks, or --reduce loss"
            ))),
            [Pos, axis] => Ok(of(Measure::Values, axis.len(config, 1), None)),
            [Pos, Head, HeadDim] => Ok(of(Measure::Values, h * config.d_head(), Some(config.d_head()))),
            [Pos, Head, Model] => Ok(of(Measure::Norms, h, None)),
            [Head, Pos, Key] if tensor.hook.site == Site::Pattern => Ok(of(Measure::Attention, h, None)),
            _ => Err(Error::usage(format!(
                "{tensor} has no units: neurons, heads, channels and features have them, such as post.*, pattern.* and resid_post.*"
            ))),
        }
    }

    /// The unit of a column of the tensor, in a head where there are heads.
    pub fn unit(&self, head: usize, column: usize) -> Option<usize> {
        let unit = match (self.measure, self.d_head) {
            (Measure::Norms | Measure::Attention, _) => head,
            (Measure::Values, Some(d_head)) => head * d_head + column,
            (Measure::Values, None) => column,
        };
        Some(unit).filter(|unit| *unit < self.n)
    }

    /// `neuron:2.117`, `head:5.1`, `result:5.1`, `feature:2.resid_pre/731`, `resid_post.2/17`, `z.2/5.31`.
    pub fn name(&self, unit: usize) -> String {
        let Self { tensor: TensorName { hook, made }, d_head, .. } = *self;
        if let Some(Made::Features(_)) = made {
            return Target::Feature { hook, feature: unit as u32 }.to_string();
        }
        match (hook.site, hook.layer, d_head) {
            (Site::MlpPost, Some(layer), _) if made.is_none() => format!("neuron:{layer}.{unit}"),
            (Site::Pattern, Some(layer), _) => format!("head:{layer}.{unit}"),
            (Site::Result, Some(layer), _) => format!("result:{layer}.{unit}"),
            (.., Some(d_head)) => format!("{}/{}.{}", self.tensor.short(), unit / d_head, unit % d_head),
            _ => format!("{}/{unit}", self.tensor.short()),
        }
    }

    /// The group and the number of the unit of this name, of a model with dictionaries of these hooks and sizes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name of another form.
    pub fn find(name: &str, config: &Config, dictionaries: &[(HookName, u32)]) -> Result<(Self, usize)> {
        let no = || {
            Error::usage(format!(
                "no unit named `{name}`: units are neuron:LAYER.INDEX, head:LAYER.INDEX, result:LAYER.INDEX, \
                 feature:LAYER.HOOK/INDEX, or a hook and an index, such as resid_post.2/17"
            ))
        };
        let (tensor, index) = if let Ok(Target::Feature { hook, feature }) = name.parse() {
            let has = |(written, _): &&(HookName, u32)| *written == hook;
            let (_, n) = dictionaries.iter().find(has).ok_or_else(|| {
                Error::usage(format!("there are no features of {hook}: the corpus was run without them"))
            })?;
            (TensorName { hook, made: Some(Made::Features(*n)) }, feature.to_string())
        } else if let Some((kind, place)) = name.split_once(':') {
            let (layer, index) = place.split_once('.').ok_or_else(no)?;
            let site = match kind {
                "neuron" => Site::MlpPost,
                "head" => Site::Pattern,
                "result" => Site::Result,
                _ => return Err(no()),
            };
            let layer = layer.parse().ok().filter(|layer| *layer < config.n_layer).ok_or_else(no)?;
            (site.at(layer).into(), index.to_owned())
        } else {
            let (tensor, index) = name.split_once('/').ok_or_else(no)?;
            (TensorName::find(tensor, config, dictionaries)?, index.to_owned())
        };
        let group = Self::new(tensor, config)?;
        let unit = match (group.d_head, index.split_once('.')) {
            (Some(d_head), Some((head, channel))) => head
                .parse::<usize>()
                .ok()
                .zip(channel.parse::<usize>().ok())
                .filter(|(_, channel)| *channel < d_head)
                .and_then(|(head, channel)| head.checked_mul(d_head)?.checked_add(channel)),
            _ => index.parse().ok(),
        };
        let unit = unit.filter(|unit| *unit < group.n).ok_or_else(no)?;
        Ok((group, unit))
    }

    /// Calls `f` with the numbers of all units at each position, (T, n).
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn with_values<T>(&self, x: &Tensor, f: impl FnOnce(&Values) -> T) -> Result<T> {
        let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let n_rows = if self.measure == Measure::Attention { x.dims()[1] } else { x.dims()[0] };
        let x = if self.measure == Measure::Norms { x.sqr()?.sum(2)?.sqrt()? } else { x.contiguous()? };
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(all)) = &*storage else {
            unreachable!("it is float32 on the CPU");
        };
        let given = &all[layout.start_offset()..][..x.elem_count()];
        let values = |values, keys| Values { n_units: self.n, n_rows, values, keys };
        if self.measure != Measure::Attention {
            return Ok(f(&values(given, None)));
        }
        let (mut largest, mut of) = (vec![0.0; n_rows * self.n], vec![0u32; n_rows * self.n]);
        for (head, pattern) in given.chunks_exact(n_rows * n_rows).enumerate() {
            for (query, row) in pattern.chunks_exact(n_rows).enumerate() {
                let at = query * self.n + head;
                for (key, weight) in row.iter().enumerate().take(query + 1).skip(1) {
                    if *weight > largest[at] {
                        (largest[at], of[at]) = (*weight, key as u32);
                    }
                }
            }
        }
        Ok(f(&values(&largest, Some(Keys { pattern: given, of }))))
    }
}

/// The numbers of units at each position of a piece.
#[derive(Debug)]
pub struct Values<'a> {
    pub n_units: usize,
    pub n_rows: usize,
    /// (T, n)
    pub values: &'a [f32],
    keys: Option<Keys<'a>>,
}

/// Where heads look.
#[derive(Debug)]
struct Keys<'a> {
    /// (H, T, T)
    pattern: &'a [f32],
    /// The key with the largest weight, (T, H).
    of: Vec<u32>,
}

impl Values<'_> {
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.n_units..(row + 1) * self.n_units]
    }

    /// What is shown at another row for the number of `unit` at `row`: the number there; of a head, the weight
    /// on that token.
    pub fn around(&self, unit: usize, row: usize, other: usize) -> f32 {
        match &self.keys {
            Some(keys) => keys.pattern[(unit * self.n_rows + row) * self.n_rows + other],
            None => self.values[other * self.n_units + unit],
        }
    }

    /// The position within the document of the token that a head attends to most.
    pub fn key(&self, unit: usize, row: usize, piece: &Piece) -> Option<u32> {
        let key = self.keys.as_ref()?.of[row * self.n_units + unit] as usize;
        (key >= piece.n_bos.max(1)).then(|| piece.position(key))
    }

    /// The attention pattern of `head`, (T, T), if this is of heads.
    pub fn pattern(&self, head: usize) -> Option<&[f32]> {
        let size = self.n_rows * self.n_rows;
        Some(&self.keys.as_ref()?.pattern[head * size..(head + 1) * size])
    }
}
