//! Sparse dictionaries: sparse autoencoders of an activation, and transcoders from one to another.
//!
//! An activation x is written as few of many directions: f = act((norm(x) − b) · W_enc + b_enc), and
//! x̂ = f · W_dec + b_dec, with the norm undone. In a transcoder x̂ stands for another activation.

mod back;
mod features;
mod fit;
mod openai;
mod saelens;
mod sparsify;
mod transcoder;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde_json::Value;

pub use self::back::OfFeatures;
pub use self::features::Features;
pub use self::fit::Fit;
use super::Labels;
use super::place::{self, Named};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Axis, HookName};
use crate::model::source::OnProgress;
use crate::model::weights::sha256_of_bytes;
use crate::model::{Conv1D, Ops, TensorFile};
use crate::text;

/// Activations before the activation function that are held at a time.
const AT_ONCE: usize = 1 << 23;

/// Those of the demo model: name, settings, weights.
const DEMO: [(&str, &str, &[u8]); 2] = [
    (
        "demo/resid_pre.2",
        include_str!("../../../../assets/fitted/resid_pre.2/cfg.json"),
        include_bytes!("../../../../assets/fitted/resid_pre.2/sae_weights.safetensors"),
    ),
    (
        "demo/resid_pre.3",
        include_str!("../../../../assets/fitted/resid_pre.3/cfg.json"),
        include_bytes!("../../../../assets/fitted/resid_pre.3/sae_weights.safetensors"),
    ),
];

/// A sparse dictionary.
#[derive(Debug, Clone)]
pub struct Dictionary {
    /// What was named: a path or an id of the hub.
    pub name: String,
    /// The layout of its files, and its architecture: `SAELens, jumprelu`.
    pub format: String,
    /// The activation that it reads.
    pub reads: HookName,
    /// The activation that it writes: the same, unless it is a transcoder.
    pub writes: HookName,
    /// The number of features.
    pub n: usize,
    /// Whether it was fitted to prompts that begin with BOS, if that is known.
    pub expects_bos: Option<bool>,
    /// What is unusual about it, and what is done for it, a sentence each.
    pub notes: Vec<String>,
    /// What its features are about.
    pub labels: Labels,
    parts: Parts,
    sha256: OnceLock<String>,
}

/// The numbers, and how they are used.
#[derive(Debug, Clone)]
struct Parts {
    /// Whether the mean over channels is taken off first: it was fitted to weights without it.
    centred: bool,
    norm: Norm,
    /// Taken off after that.
    b_in: Option<Vec<f32>>,
    /// W_enc and b_enc, (C, n).
    encoder: Conv1D,
    activation: Activation,
    /// (n, C), row by row.
    decoder: Arc<Vec<f32>>,
    b_dec: Vec<f32>,
    /// Added to what is decoded, of the activation as it is: (C, C).
    skip: Option<Conv1D>,
}

/// What is done to each position before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    None,
    /// (x − μ) / (σ + 1e-5), σ over C − 1.
    Standard,
    /// x · √C / ‖x‖
    Constant,
}

/// How features become active.
#[derive(Debug, Clone, PartialEq)]
enum Activation {
    Relu,
    /// The largest k that are above 0; with norms of the decoder's rows, of the values times these.
    TopK(usize, Option<Vec<f32>>),
    /// Those above their thresholds and above 0.
    Jump(Vec<f32>),
    /// Where x · W_enc + `gate` is above 0, relu(x · W_enc · `scale` + `magnitude`).
    Gated {
        gate: Vec<f32>,
        scale: Vec<f32>,
        magnitude: Vec<f32>,
    },
}

/// What a file says, before it is checked against a model.
struct Read {
    format: String,
    reads: String,
    /// `None`: the same.
    writes: Option<String>,
    /// The widths of what it reads and writes, and the number of features.
    sizes: Sizes,
    expects_bos: Option<bool>,
    notes: Vec<String>,
    parts: Parts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    d_in: usize,
    d_out: usize,
    n: usize,
}

impl Dictionary {
    /// Opens a dictionary of a model: a directory or file in the layout of SAELens, sparsify, OpenAI's
    /// `sparse_autoencoder` or Dunefsky's transcoders, or such a directory on the hub (`ID:SUBFOLDER`).
    /// `HOOK=` before it says what it reads, for files that do not.
    ///
    /// # Errors
    /// [`Error::File`] for files that are missing or malformed, or of another width or hook than the
    /// model's.
    pub fn open(name: &str, config: &Config, offline: bool, on_progress: &OnProgress) -> Result<Self> {
        let named = Named::parse(name);
        let folder = named.folder(
            &["cfg.json", "sae_weights.safetensors", "sae.safetensors"],
            offline,
            on_progress,
        )?;
        Self::new(name, read(&folder, &named)?, &named, &folder, config)
    }

    /// Those of the demo model: how they are made is in `tools/train-demo/README.md`.
    ///
    /// # Panics
    /// Never: a test reads them.
    pub fn demo(config: &Config) -> Vec<Self> {
        let open = |(name, cfg, weights): (&str, &str, &'static [u8])| {
            let named = Named::parse(name);
            let file = TensorFile::embedded(weights, name)?;
            let settings = serde_json::from_str(cfg).unwrap_or_default();
            let read = saelens::read(Path::new(name), settings, &file, &named)?;
            let one = Self::new(name, read, &named, Path::new(name), config)?;
            Ok::<_, Error>(Self { labels: Labels::of_demo(&one), ..one })
        };
        DEMO.into_iter().map(|one| open(one).expect("the built-in dictionaries are valid")).collect()
    }

    /// Checks it against a model; `path` is for errors.
    fn new(name: &str, read: Read, named: &Named, path: &Path, config: &Config) -> Result<Self> {
        let refuse = |problem: String| Error::file(path, problem);
        let find = |hook: &str| {
            HookName::find(hook, config)
                .map_err(|why| refuse(format!("is for `{}`, and the model has {why}", text::plain(hook))))
        };
        let reads = find(named.hook.as_deref().unwrap_or(&read.reads))?;
        let writes = read.writes.as_deref().map_or(Ok(reads), find)?;
        for (hook, width) in [(reads, read.sizes.d_in), (writes, read.sizes.d_out)] {
            match width_of(hook, config) {
                Some(has) if has == width => {}
                Some(has) => {
                    return Err(refuse(format!(
                        "is for {width} channels, but {hook} of this model has {has}"
                    )));
                }
                None => return Err(refuse(format!("is for {hook}, which has no row for each position"))),
            }
        }
        let Read { format, expects_bos, notes, parts, sizes, .. } = read;
        let (name, labels) = (name.into(), Labels::default());
        let sha256 = OnceLock::new();
        Ok(Self { name, format, reads, writes, n: sizes.n, expects_bos, notes, labels, parts, sha256 })
    }

    /// Whether it writes another activation than it reads.
    pub fn is_transcoder(&self) -> bool {
        self.reads != self.writes
    }

    /// The active features of an activation, (T, C) or with heads (T, H, d_head).
    ///
    /// # Errors
    /// [`Error::Tensor`] for another width.
    pub fn encode(&self, x: &Tensor) -> Result<Features> {
        let Parts { centred, norm, b_in, encoder, activation, skip, .. } = &self.parts;
        let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.contiguous()?; // (T, C)
        let (t, c) = x.dims2()?;
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        let mut undo = vec![[0.0, 1.0]; t];
        for (row, undo) in values.chunks_exact_mut(c.max(1)).zip(&mut undo) {
            *undo = norm.apply(row, *centred);
            if let Some(b_in) = b_in {
                row.iter_mut().zip(b_in).for_each(|(x, b)| *x -= b);
            }
        }
        let input = Tensor::from_vec(values, (t, c), &Device::Cpu)?;
        let (ops, at_once) = (Ops::default(), (AT_ONCE / self.n.max(1)).max(1));
        let mut rows = Vec::with_capacity(t);
        for first in (0..t).step_by(at_once) {
            let some = input.narrow(0, first, at_once.min(t - first))?;
            let hidden: Vec<f32> = ops.linear(&some, encoder)?.flatten_all()?.to_vec1()?; // (S, n)
            rows.par_extend(hidden.par_chunks_exact(self.n.max(1)).map(|row| activation.of(row)));
        }
        let skip =
            skip.as_ref().map(|skip| ops.linear(&x, skip)?.flatten_all()?.to_vec1().map_err(Error::from));
        // What a transcoder writes was not normalised.
        let undo = if self.is_transcoder() { vec![[0.0, 1.0]; t] } else { undo };
        Ok(Features { n: self.n, rows, undo, skip: skip.transpose()? })
    }

    /// The activation that features stand for, (T, C).
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn decode(&self, features: &Features) -> Result<Tensor> {
        let Parts { decoder, b_dec, activation, .. } = &self.parts;
        let (t, c) = (features.rows.len(), b_dec.len());
        let mut out = vec![0.0f32; t * c];
        out.par_chunks_exact_mut(c.max(1)).enumerate().for_each(|(at, out)| {
            out.copy_from_slice(b_dec);
            for &(feature, value) in &features.rows[at] {
                let value = match activation {
                    Activation::TopK(_, Some(norms)) => value / norms[feature as usize],
                    _ => value,
                };
                let row = &decoder[feature as usize * c..][..c];
                out.iter_mut().zip(row).for_each(|(out, w)| *out += value * w);
            }
            let [mean, scale] = features.undo[at];
            for x in out.iter_mut() {
                *x = *x * scale + mean;
            }
            if let Some(skip) = &features.skip {
                out.iter_mut().zip(&skip[at * c..]).for_each(|(out, x)| *out += x);
            }
        });
        Ok(Tensor::from_vec(out, (t, c), &Device::Cpu)?)
    }

    /// SHA-256 of what its features write, W_dec (n, C) in float32: it tells dictionaries apart. Computed on the
    /// first call.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| sha256_of_bytes(bytemuck::cast_slice(&self.parts.decoder)))
    }

    /// How much of its direction a feature adds at a position when it has this activation.
    pub fn written(&self, features: &Features, position: usize, feature: u32, value: f32) -> f32 {
        let value = match &self.parts.activation {
            Activation::TopK(_, Some(norms)) => value / norms[feature as usize],
            _ => value,
        };
        value * features.undo[position][1]
    }

    /// The direction that a feature reads, (C): its column of W_enc.
    ///
    /// # Errors
    /// [`Error::Usage`] for a feature that there is not.
    pub fn column(&self, feature: u32) -> Result<Vec<f32>> {
        Error::check("feature", feature as usize, 0..self.n)?;
        Ok(self.parts.encoder.weight()?.narrow(1, feature as usize, 1)?.flatten_all()?.to_vec1()?)
    }

    /// The directions that all features write, W_dec (n, C) row by row.
    pub fn directions(&self) -> Arc<Vec<f32>> {
        Arc::clone(&self.parts.decoder)
    }

    /// The direction that a feature writes, (C): its row of W_dec.
    ///
    /// # Errors
    /// [`Error::Usage`] for a feature that there is not.
    pub fn direction(&self, feature: u32) -> Result<Vec<f32>> {
        Error::check("feature", feature as usize, 0..self.n)?;
        let c = self.parts.b_dec.len();
        Ok(self.parts.decoder[feature as usize * c..][..c].to_vec())
    }
}

/// The number of channels of a row of a tensor whose rows are positions.
fn width_of(hook: HookName, config: &Config) -> Option<usize> {
    match hook.point().axes {
        [Axis::Pos, rest @ ..] => Some(rest.iter().map(|axis| axis.len(config, 1)).product()),
        _ => None,
    }
}

/// Reads the files of a dictionary, of whichever layout.
fn read(path: &Path, named: &Named) -> Result<Read> {
    if path.is_file() {
        let file = TensorFile::open(path)?;
        let has = |name: &str| file.shape(name).is_some();
        return if has("encoder.weight") && has("pre_bias") {
            openai::read(&file, named)
        } else if has("W_enc") && has("b_dec_out") {
            transcoder::read(&file, path, named)
        } else {
            let mut names = file.names();
            names.truncate(3);
            Err(file.refuse(format!(
                "is no dictionary that is known: neither OpenAI's (pre_bias, encoder.weight) nor Dunefsky's (W_enc, \
                 b_dec_out); for SAELens and sparsify name the folder with cfg.json; it has `{}`",
                names.join("`, `")
            )))
        };
    }
    let file = |name: &str| -> Option<PathBuf> { Some(path.join(name)).filter(|path| path.is_file()) };
    match (file("cfg.json"), file("sae_weights.safetensors"), file("sae.safetensors")) {
        (Some(cfg), Some(weights), _) => {
            saelens::read(&cfg, place::json(&cfg)?, &TensorFile::open(&weights)?, named)
        }
        (Some(cfg), _, Some(weights)) => sparsify::read(&cfg, &TensorFile::open(&weights)?, path, named),
        _ => Err(Error::file(
            path,
            "holds no dictionary: SAELens writes cfg.json and sae_weights.safetensors, sparsify cfg.json and \
             sae.safetensors; name the folder of one hook",
        )),
    }
}

impl Norm {
    /// Normalises a row; returns the mean and scale that undo it.
    fn apply(self, row: &mut [f32], centred: bool) -> [f32; 2] {
        let c = row.len() as f64;
        let mut mean = 0.0;
        if centred || self == Self::Standard {
            mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / c;
            for x in row.iter_mut() {
                *x = (f64::from(*x) - mean) as f32;
            }
        }
        let squares = || row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let (factor, scale) = match self {
            Self::None => return [mean as f32, 1.0],
            Self::Standard => {
                let std = (squares() / (c - 1.0)).sqrt();
                ((std + 1e-5).recip(), std)
            }
            Self::Constant => {
                let factor = c.sqrt() / squares().sqrt();
                (factor, factor.recip())
            }
        };
        for x in row.iter_mut() {
            *x = (f64::from(*x) * factor) as f32;
        }
        [mean as f32, scale as f32]
    }
}

impl Activation {
    /// The active features of a row of (n).
    fn of(&self, row: &[f32]) -> Vec<(u32, f32)> {
        let all = || (0u32..).zip(row.iter().copied());
        match self {
            Self::Relu => all().filter(|(_, x)| is_above(*x, 0.0)).collect(),
            Self::Jump(thresholds) => {
                let is_active =
                    |(i, x): &(u32, f32)| is_above(*x, 0.0) && (x.is_nan() || *x > thresholds[*i as usize]);
                all().filter(is_active).collect()
            }
            Self::Gated { gate, scale, magnitude } => {
                let active = all().filter(|(i, x)| is_above(x + gate[*i as usize], 0.0));
                active
                    .map(|(i, x)| (i, x * scale[i as usize] + magnitude[i as usize]))
                    .filter(|(_, x)| is_above(*x, 0.0))
                    .collect()
            }
            Self::TopK(k, norms) => {
                let scaled =
                    |(i, x): (u32, f32)| (i, norms.as_ref().map_or(x, |norms| x * norms[i as usize]));
                let mut active: Vec<_> = all().map(scaled).filter(|(_, x)| is_above(*x, 0.0)).collect();
                if active.len() > *k {
                    active.select_nth_unstable_by(*k, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    active.truncate(*k);
                    active.sort_unstable_by_key(|one| one.0);
                }
                active
            }
        }
    }
}

/// NaN is, so that it is seen.
fn is_above(x: f32, least: f32) -> bool {
    x > least || x.is_nan()
}

/// A vector (n) of a file.
fn vector(file: &TensorFile, name: &str, n: usize) -> Result<Vec<f32>> {
    Ok(file.get(name, &[n])?.to_vec1()?)
}

/// W (in, out) and a bias, or 0.
fn conv(weight: &Tensor, bias: Option<Vec<f32>>) -> Result<Conv1D> {
    let n = weight.dims2()?.1;
    let bias = Tensor::from_vec(bias.unwrap_or_else(|| vec![0.0; n]), n, &Device::Cpu)?;
    Conv1D::new(weight, bias, Ops::default())
}

/// The rows of a matrix.
fn rows(x: &Tensor) -> Result<Arc<Vec<f32>>> {
    Ok(Arc::new(x.flatten_all()?.to_vec1()?))
}

/// Refuses settings that say other sizes than the weights have, which are of something else then.
fn check_sizes(file: &TensorFile, config: &Value, said: &[(&str, usize)]) -> Result<()> {
    for (name, has) in said {
        if let Some(says) = config[name].as_u64().filter(|says| *says != *has as u64) {
            return Err(file.refuse(format!("has {has} where its cfg.json says {name} is {says}")));
        }
    }
    Ok(())
}

/// The k of a top-k dictionary of `n` features.
fn top_k(file: &TensorFile, k: Option<u64>, n: usize) -> Result<usize> {
    match k {
        Some(k) if (1..=n as u64).contains(&k) => Ok(k as usize),
        Some(k) => Err(file.refuse(format!("keeps the {k} largest of {n} features, which cannot be"))),
        None => Err(file.refuse("is top-k, but has no k")),
    }
}

/// The sizes that a matrix (rows, columns) of a file claims.
fn matrix(file: &TensorFile, name: &str) -> Result<(usize, usize)> {
    match file.shape(name).as_deref() {
        Some(&[a, b]) if a > 0 && b > 0 && u32::try_from(a.max(b)).is_ok() => Ok((a, b)),
        Some(shape) => Err(file.refuse(format!("tensor `{name}` has shape {shape:?}, and is no matrix"))),
        None => Err(file.refuse(format!("has no tensor `{name}`"))),
    }
}
