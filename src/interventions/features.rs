//! Changes of the features of sparse dictionaries.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Change, Place, Target};
use crate::error::{Error, Result};
use crate::hooks::HookName;
use crate::model::fitted::dictionary::Features;
use crate::model::{Dictionary, Model};

/// The dictionaries whose features are changed, and what their transcoders have read.
#[derive(Debug, Default)]
pub struct OnFeatures {
    dictionaries: Vec<Arc<Dictionary>>,
    read: HashMap<HookName, Features>,
}

impl Change {
    /// Whether it acts on the features of a dictionary.
    pub(super) fn is_of_features(&self) -> bool {
        let target = self.place().map(|place| place.target);
        matches!(self, Self::Splice(_)) || matches!(target, Some(Target::Feature { .. }))
    }
}

impl OnFeatures {
    /// # Errors
    /// [`Error::Usage`] for a feature of a dictionary that was not opened, or that it does not have.
    pub fn new<'a>(changes: impl Iterator<Item = &'a Change>, model: &Model) -> Result<Self> {
        let mut dictionaries: Vec<Arc<Dictionary>> = Vec::new();
        for change in changes.filter(|change| change.is_of_features()) {
            let Some(hook) = change.hooks().next() else { continue };
            let found = model.dictionaries().iter().find(|dictionary| dictionary.writes == hook);
            let dictionary = found.ok_or_else(|| {
                Error::usage(format!("`{change}`: no dictionary of {hook} was given: use --dictionary"))
            })?;
            if let Some(Place { target: Target::Feature { feature, .. }, .. }) = change.place() {
                Error::check("feature", feature as usize, 0..dictionary.n)
                    .map_err(|why| Error::usage(format!("`{change}`: {why}")))?;
            }
            if !dictionaries.iter().any(|one| one.writes == hook) {
                dictionaries.push(Arc::clone(dictionary));
            }
        }
        Ok(Self { dictionaries, read: HashMap::new() })
    }

    /// Whether a tensor is read for one that is changed later.
    pub fn reads(&self, name: HookName) -> bool {
        self.dictionaries.iter().any(|one| one.is_transcoder() && one.reads == name)
    }

    /// Takes what a transcoder reads.
    pub fn see(&mut self, name: HookName, x: &Tensor) -> Result<()> {
        for one in self.dictionaries.iter().filter(|one| one.is_transcoder() && one.reads == name) {
            self.read.insert(one.writes, one.encode(x)?);
        }
        Ok(())
    }

    /// The tensor after changes of its features: itself and what they add, or where it is spliced, what they decode to.
    pub fn apply<'a>(
        &self,
        name: HookName,
        x: &Tensor,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<Tensor> {
        let Some(dictionary) = self.dictionaries.iter().find(|one| one.writes == name) else {
            return Ok(x.clone());
        };
        let before = match self.read.get(&name) {
            Some(features) => features.clone(),
            None => dictionary.encode(x)?,
        };
        let mut after = before.clone();
        let mut spliced = vec![false; x.dims()[0]];
        for change in changes {
            let Some(Place { target, position }) = change.place() else { continue };
            match (change, target) {
                (Change::Splice(_), _) => match position {
                    Some(position) => spliced[position] = true,
                    None => spliced.fill(true),
                },
                (_, Target::Feature { feature, .. }) => {
                    let of = after.of(feature);
                    let mean = of.iter().sum::<f32>() / of.len() as f32;
                    let new = |was: f32| match *change {
                        Change::Zero(_) => 0.0,
                        Change::Mean(_) => mean,
                        Change::Scale(_, factor) => was * factor,
                        Change::Set(_, value) => value,
                        Change::Steer(_, factor) => was + factor,
                        _ => was,
                    };
                    after.set(feature, position, new);
                }
                _ => {}
            }
        }
        let decoded =
            |features: &Features| -> Result<Vec<Vec<f32>>> { Ok(dictionary.decode(features)?.to_vec2()?) };
        let (before, after) = (decoded(&before)?, decoded(&after)?);
        let rows: Vec<Vec<f32>> =
            x.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.flatten_from(1)?.to_vec2()?;
        let mut out = Vec::with_capacity(x.elem_count());
        for (i, row) in rows.into_iter().enumerate() {
            if spliced[i] {
                out.extend_from_slice(&after[i]);
            } else {
                out.extend(row.iter().zip(&after[i]).zip(&before[i]).map(|((x, new), was)| x + (new - was)));
            }
        }
        Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?.to_device(x.device())?.to_dtype(x.dtype())?)
    }
}
