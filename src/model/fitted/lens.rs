//! Lenses that were fitted to a model: what a layer's residual stream becomes before it is unembedded.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::place::Named;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Site};
use crate::model::source::OnProgress;
use crate::model::{Conv1D, Ops, TensorFile};

/// Those of the demo model.
const TUNED: (&str, &[u8]) =
    ("demo/tuned_lens", include_bytes!("../../../assets/fitted/tuned_lens/params.safetensors"));
const JACOBIAN: (&str, &[u8]) =
    ("demo/jacobian_lens", include_bytes!("../../../assets/fitted/jacobian_lens/jacobians.safetensors"));

/// A tuned lens (Belrose et al., 2023), or a Jacobian lens.
///
/// The tuned lens reads `resid_pre` of each block, h + h · Wᵀ + b; the Jacobian lens `resid_post`, h · Jᵀ. What
/// leaves the last block is unembedded as it is.
#[derive(Debug, Clone)]
pub struct FittedLens {
    /// What was named: a path or an id of the hub.
    pub name: String,
    pub kind: Kind,
    /// By block.
    translators: BTreeMap<usize, Conv1D>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tuned,
    Jacobian,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tuned => "tuned lens",
            Self::Jacobian => "Jacobian lens",
        }
    }

    /// What it makes of a residual stream h, before ln_f.
    pub fn formula(self) -> &'static str {
        match self {
            Self::Tuned => "h + h · Wᵀ + b",
            Self::Jacobian => "h · Jᵀ",
        }
    }

    /// The residual stream of a block that it reads.
    fn site(self) -> Site {
        match self {
            Self::Tuned => Site::ResidPre,
            Self::Jacobian => Site::ResidPost,
        }
    }
}

impl FittedLens {
    /// Opens a lens of a model: the folder or `params.pt` of a tuned lens, or the file of a Jacobian lens; or such a
    /// folder or file on the hub (`ID:SUBFOLDER`).
    ///
    /// # Errors
    /// [`Error::File`] for files that are missing or malformed, or of another width or number of blocks than the
    /// model's.
    pub fn open(name: &str, config: &Config, offline: bool, on_progress: &OnProgress) -> Result<Self> {
        let path = Named::parse(name).folder(&["params.pt", "config.json"], offline, on_progress)?;
        let path = if path.is_dir() { path.join("params.pt") } else { path };
        Self::read(&TensorFile::open(&path)?, &path, name, config)
    }

    /// Those of the demo model, the tuned lens first: how they are made is in `tools/train-demo/README.md`.
    ///
    /// # Panics
    /// Never: a test reads them.
    pub fn demo(config: &Config) -> Vec<Self> {
        let open = |(name, bytes): (&str, &'static [u8])| {
            Self::read(&TensorFile::embedded(bytes, name)?, Path::new(name), name, config)
        };
        [TUNED, JACOBIAN].into_iter().map(|one| open(one).expect("the built-in lenses are valid")).collect()
    }

    fn read(file: &TensorFile, path: &Path, name: &str, config: &Config) -> Result<Self> {
        let (c, n_layer) = (config.n_embd, config.n_layer);
        let names = file.names();
        // Their numbers are whole names or come before `.weight`, perhaps after a prefix.
        let layer_of = |name: &str, ending: &str| -> Option<usize> {
            name.strip_suffix(ending)?.rsplit('.').next()?.parse().ok()
        };
        let weights = names.iter().filter_map(|name| Some((layer_of(name, ".weight")?, name)));
        let tuned: BTreeMap<usize, &String> = weights.collect();
        let jacobians: BTreeMap<usize, &String> =
            names.iter().filter_map(|name| Some((name.parse().ok()?, name))).collect();
        let (kind, of) = if tuned.is_empty() { (Kind::Jacobian, jacobians) } else { (Kind::Tuned, tuned) };
        let refuse = |problem: String| Err(Error::file(path, problem));
        let expected = match kind {
            Kind::Tuned => n_layer,
            Kind::Jacobian => n_layer - 1,
        };
        if of.is_empty() {
            return refuse("is no lens: a tuned lens has `0.weight`, a Jacobian lens `J`".into());
        }
        if of.len() != expected || of.keys().copied().ne(0..expected) {
            let kind = kind.name();
            return refuse(format!(
                "is a {kind} of {} blocks, from {} to {}; this model of {n_layer} blocks needs {expected}, from 0",
                of.len(),
                of.keys().next().copied().unwrap_or(0),
                of.keys().next_back().copied().unwrap_or(0),
            ));
        }
        let translator = |(layer, name): (usize, &String)| -> Result<(usize, Conv1D)> {
            let weight = file.get(name, &[c, c])?.t()?.contiguous()?; // (in, out)
            let bias = match (kind, name.strip_suffix(".weight").map(|start| format!("{start}.bias"))) {
                (Kind::Tuned, Some(bias)) if file.shape(&bias).is_some() => file.get(&bias, &[c])?,
                _ => Tensor::zeros(c, DType::F32, &Device::Cpu)?,
            };
            Ok((layer, Conv1D::new(&weight, bias, Ops::default())?))
        };
        let translators = of.into_iter().map(translator).collect::<Result<_>>()?;
        Ok(Self { name: name.into(), kind, translators })
    }

    /// The residual streams that it reads, in data-flow order, and what leaves the last block.
    pub fn hooks(&self, config: &Config) -> Vec<HookName> {
        let last = Site::ResidPost.at(config.n_layer - 1);
        let layers = self.translators.keys().map(|layer| self.kind.site().at(*layer));
        layers.chain(std::iter::once(last)).collect()
    }

    /// What takes the place of rows of a residual stream before ln_f, (n, C) → (n, C): themselves, if it does not
    /// read this one.
    ///
    /// # Errors
    /// [`Error::Tensor`] for rows of another width.
    pub fn translate(&self, hook: HookName, x: &Tensor) -> Result<Tensor> {
        // What enters a block is what leaves the one before.
        let layer = match (self.kind, hook.site, hook.layer) {
            (kind, site, layer) if site == kind.site() => layer,
            (Kind::Tuned, Site::ResidPost, Some(layer)) => Some(layer + 1),
            (Kind::Jacobian, Site::ResidPre, Some(layer)) => layer.checked_sub(1),
            _ => None,
        };
        let Some(translator) = layer.and_then(|layer| self.translators.get(&layer)) else {
            return Ok(x.clone());
        };
        let wide = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let moved = Ops::default().linear(&wide, translator)?;
        let moved = if self.kind == Kind::Tuned { (wide + moved)? } else { moved };
        Ok(moved.to_device(x.device())?.to_dtype(x.dtype())?)
    }
}
