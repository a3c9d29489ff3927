//! Changes of the features of sparse dictionaries.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Change, Place, Target};
use crate::error::{Error, Result};
use crate::hooks::HookName;
use crate::model::fitted::dictionary::{Features, OfFeatures};
use crate::model::{Dictionary, Model};

/// The dictionaries whose features are changed, and what their transcoders have read.
#[derive(Debug, Default)]
pub struct OnFeatures {
    dictionaries: Vec<Arc<Dictionary>>,
    read: HashMap<HookName, Features>,
    /// What was changed in the forward pass: the features before, and the positions that are spliced.
    changed: HashMap<HookName, (Features, Vec<bool>)>,
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
        Ok(Self { dictionaries, ..Self::default() })
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
        &mut self,
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
        let (features, before, after) = (before.clone(), decoded(&before)?, decoded(&after)?);
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
        self.changed.insert(name, (features, spliced));
        Ok(Tensor::from_vec(out, x.dims(), &Device::Cpu)?.to_device(x.device())?.to_dtype(x.dtype())?)
    }

    /// The tensors that transcoders with changed features write, of what `name` is read for.
    pub fn written_from(&self, name: HookName) -> impl Iterator<Item = HookName> + '_ {
        let of_name = self.dictionaries.iter().filter(move |one| one.is_transcoder() && one.reads == name);
        of_name.map(|one| one.writes)
    }

    /// What changes of features pass on of the gradient g of their tensor after them: to the tensor before them, and
    /// to what a transcoder read. After a forward pass.
    ///
    /// # Errors
    /// [`Error::Usage`] where gradients do not pass.
    pub fn back<'a>(
        &self,
        name: HookName,
        g: &Tensor,
        changes: impl DoubleEndedIterator<Item = &'a Change>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let known = self.dictionaries.iter().find(|one| one.writes == name).zip(self.changed.get(&name));
        let Some((dictionary, (features, spliced))) = known else {
            return Err(Error::usage(format!("the features of {name} are not known: nothing was run")));
        };
        dictionary.check_back()?;
        let changes: Vec<_> = changes.collect();
        let targets: Vec<_> = changes.iter().filter_map(|change| target(change)).collect();
        let rows: Vec<Vec<f32>> =
            g.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.flatten_from(1)?.to_vec2()?;
        // By feature and position: of those that are written or changed.
        let written: OfFeatures = rows
            .iter()
            .enumerate()
            .map(|(t, g)| {
                let active = features.rows[t].iter().map(|one| one.0).filter(|_| spliced[t]);
                let all = active.chain(targets.iter().map(|(feature, _)| *feature));
                all.map(|feature| (feature, dictionary.decode_back(features, t, feature, g))).collect()
            })
            .collect();
        let mut of_before = written.clone();
        for change in changes.iter().rev() {
            let Some((feature, position)) = target(change) else { continue };
            let placed = |t: usize| position.is_none_or(|position| position == t);
            let n = of_before.len();
            let total: f32 = (0..n).filter(|t| placed(*t)).map(|t| of_before[t][&feature]).sum();
            for (t, row) in of_before.iter_mut().enumerate() {
                let factor = match **change {
                    _ if !placed(t) => 1.0,
                    Change::Scale(_, factor) => factor,
                    Change::Steer(..) => 1.0,
                    _ => 0.0,
                };
                let mean = if matches!(change, Change::Mean(_)) { total / n as f32 } else { 0.0 };
                row.entry(feature).and_modify(|g| *g = *g * factor + mean);
            }
        }
        // What is not spliced is itself, less what its features were.
        let mut identity = rows.clone();
        for (t, row) in of_before.iter_mut().enumerate() {
            if spliced[t] {
                identity[t].fill(0.0);
            } else {
                for (feature, g) in row.iter_mut() {
                    *g -= written[t][feature];
                }
            }
        }
        let here =
            |x: Tensor| Ok::<_, Error>(x.to_device(g.device())?.to_dtype(g.dtype())?.reshape(g.dims())?);
        let identity = here(Tensor::from_vec(identity.concat(), g.dims(), &Device::Cpu)?)?;
        let mut read = dictionary.encode_back(features, &of_before)?;
        if !dictionary.is_transcoder() {
            return Ok(((identity + here(read)?)?, None));
        }
        let through_skip: Vec<f32> = rows
            .iter()
            .zip(spliced)
            .flat_map(|(row, on)| row.iter().map(move |g| if *on { *g } else { 0.0 }))
            .collect();
        let through_skip = Tensor::from_vec(through_skip, (rows.len(), rows[0].len()), &Device::Cpu)?;
        if let Some(skip) = dictionary.skip_back(&through_skip)? {
            read = (read + skip)?;
        }
        Ok((identity, Some(read)))
    }
}

/// The feature that a change is of, and its position.
fn target(change: &Change) -> Option<(u32, Option<usize>)> {
    match change.place()? {
        Place { target: Target::Feature { feature, .. }, position } => Some((feature, position)),
        _ => None,
    }
}
