//! Another program's tensors against ours: how far apart they are, and which is the first that is off.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;

use super::diagnose::{Case, Diagnosis};
use super::file::{Entry, Foreign};
use super::layout::{self, Fitted};
use super::names::{Dialect, Kind, Named, Ours};
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, HookName, Hooks, Site};
use crate::model::{ActivationCache, Format, Gpt2, Model};
use crate::picture::matrix::index;
use crate::text::plain;

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The most that a value may be off, by itself and as a share of ours: |theirs − ours| ≤ tolerance · max(1, |ours|);
    /// and a tenth of what a whole tensor may be off, as a share of its norm, so that small values count.
    pub tolerance: f32,
    /// The program whose words they are, where two programs mean different things by one.
    pub dialect: Option<Dialect>,
}

impl Default for Options {
    fn default() -> Self {
        Self { tolerance: 1e-4, dialect: None }
    }
}

/// A tensor of theirs and ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Our name.
    pub name: String,
    /// Theirs.
    pub theirs: String,
    pub shape: Vec<usize>,
    pub difference: Difference,
    /// How it was read, where that is not plain.
    pub note: Option<&'static str>,
}

/// How far values are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The largest |theirs − ours|; NaN if one is no number where the other is.
    pub max: f32,
    pub mean: f32,
    pub cosine: f32,
    /// Where the largest is, and both values there.
    pub at: Vec<usize>,
    pub theirs: f32,
    pub ours: f32,
    /// How far the worst value, or the whole, is off as a multiple of what it may be.
    pub excess: f32,
}

impl Difference {
    pub fn is_ok(&self) -> bool {
        self.excess <= 1.0
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// In data-flow order.
    pub tensors: Vec<Compared>,
    /// The mean loss: theirs and ours.
    pub loss: Option<(f32, f32)>,
    pub tolerance: f32,
    /// The first tensor that is off.
    pub first_off: Option<usize>,
    pub diagnoses: Vec<Diagnosis>,
}

impl Check {
    /// Runs the prompts and compares.
    ///
    /// # Errors
    /// [`Error::File`] for a tensor of another shape, or other weights than the file's; [`Error::Usage`] for tokens that
    /// the model cannot run.
    pub fn new(model: &Model, foreign: &Foreign, tokens: &[Vec<u32>], options: Options) -> Result<Self> {
        Ok(Self::with_tensors(model, foreign, tokens, options)?.0)
    }

    /// The same, and for one prompt the tensors of theirs that are whole hooks of ours, in our order.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_tensors(
        model: &Model,
        foreign: &Foreign,
        tokens: &[Vec<u32>],
        options: Options,
    ) -> Result<(Self, BTreeMap<HookName, Tensor>)> {
        foreign.check_weights(model)?;
        let net = &model.net;
        let theirs = read(net, foreign, tokens, options)?;
        let mut hooks: Vec<_> = theirs.iter().flat_map(|one| layout::sources(one.fitted.ours)).collect();
        hooks.extend(foreign.loss.map(|_| Site::Logits.once()));
        let keep = HookFilter::of(with_affine(&hooks));
        let caches = run(net, tokens, &keep, &mut || ())?;
        let side = Side {
            positions: foreign.rows(tokens),
            targets: foreign.targets(tokens),
            tolerance: options.tolerance,
        };
        let mut tensors = Vec::with_capacity(theirs.len());
        let mut held = Vec::with_capacity(theirs.len());
        for one in theirs {
            let (compared, held_one) = one.compare(&caches, &side)?;
            tensors.push(compared);
            held.push(held_one);
        }
        let loss = foreign.loss.map(|loss| Ok::<_, Error>((loss, mean_loss(&caches, &side)?))).transpose()?;
        let first_off = tensors.iter().position(|one| !one.difference.is_ok());
        let diagnoses = match first_off {
            Some(first) => {
                let (held, tensors, side) = (&held[..], &tensors[..], &side);
                Case { net, tokens, keep: &keep, held, tensors, first, side }.diagnose()?
            }
            None => Vec::new(),
        };
        let is_whole = foreign.rows(tokens).len() == tokens.first().map_or(0, Vec::len) && tokens.len() == 1;
        let whole = held.into_iter().filter(|_| is_whole).flat_map(|one| one.hooks(net));
        let whole = whole.collect::<Result<_>>()?;
        Ok((Self { tensors, loss, tolerance: options.tolerance, first_off, diagnoses }, whole))
    }

    /// Whether the loss is the same.
    pub fn loss_is_ok(&self) -> bool {
        let near = |(theirs, ours): (f32, f32)| (theirs - ours).abs() <= self.tolerance * ours.abs().max(1.0);
        self.loss.is_none_or(near)
    }

    /// Whether all hold.
    pub fn is_ok(&self) -> bool {
        self.first_off.is_none() && self.loss_is_ok()
    }
}

impl Foreign {
    /// Refuses a model with other weights than those that the file says it was made with.
    pub(super) fn check_weights(&self, model: &Model) -> Result<()> {
        match &self.weights_sha256 {
            Some(sha) if sha != model.provenance.weights_sha256()? => Err(Error::file(
                &self.path,
                format!(
                    "was made with other weights than {}'s: name its model with --model",
                    plain(&model.provenance.name())
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The positions that it has.
    pub(super) fn rows(&self, tokens: &[Vec<u32>]) -> Range<usize> {
        let n = tokens.first().map_or(0, Vec::len);
        self.positions.clone().filter(|at| at.end <= n && at.start < at.end).unwrap_or(0..n)
    }

    /// What is to come after each token: what the file says, or the next.
    pub(super) fn targets(&self, tokens: &[Vec<u32>]) -> Vec<Vec<Option<u32>>> {
        if let Some(targets) = self.targets.as_ref().filter(|targets| targets.len() == tokens.len()) {
            return targets.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
        }
        let next = |row: &Vec<u32>| row.iter().skip(1).copied().map(Some).chain([None]).collect();
        tokens.iter().map(next).collect()
    }
}

/// What of a prompt is compared, and how.
pub struct Side {
    pub positions: Range<usize>,
    /// By row of the batch.
    pub targets: Vec<Vec<Option<u32>>>,
    pub tolerance: f32,
}

/// A tensor of theirs in our order.
pub(super) struct Theirs {
    pub name: String,
    format: Format,
    fitted: Fitted,
    /// What it may be instead.
    other: Option<(Ours, &'static str)>,
}

/// A tensor of theirs, as it was compared.
pub struct Held {
    pub ours: Ours,
    pub format: Format,
    /// By row of the batch.
    pub rows: Vec<Tensor>,
}

impl Held {
    /// The hooks that it is.
    fn hooks(self, net: &Gpt2) -> Vec<Result<(HookName, Tensor)>> {
        let Some(x) = self.rows.into_iter().next() else { return Vec::new() };
        let (c, h) = (net.config.n_embd, net.config.n_head);
        match (self.ours.kind, self.ours.hook.layer) {
            (Kind::Whole, _) => vec![Ok((self.ours.hook, x))],
            (Kind::Qkv, Some(layer)) => {
                let part = |(i, site): (usize, Site)| {
                    let part = x.narrow(1, i * c, c)?.contiguous()?;
                    Ok((site.at(layer), part.reshape(((), h, c / h))?))
                };
                [Site::Q, Site::K, Site::V].into_iter().enumerate().map(part).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The tensors of a file of one prompt that are whole hooks, in our order.
///
/// # Errors
/// [`Error::File`] for a tensor of another shape, or that cannot be read.
pub fn tensors(net: &Gpt2, foreign: &Foreign, tokens: &[u32]) -> Result<BTreeMap<HookName, Tensor>> {
    let all = read(net, foreign, &[tokens.to_vec()], Options::default())?.into_iter();
    let held = all.filter_map(|one| {
        let (rows, _) = one.fitted.orders.into_iter().next()?;
        Some(Held { ours: one.fitted.ours, format: one.format, rows })
    });
    held.flat_map(|one| one.hooks(net)).collect()
}

/// All tensors of theirs, in data-flow order.
fn read(net: &Gpt2, foreign: &Foreign, tokens: &[Vec<u32>], options: Options) -> Result<Vec<Theirs>> {
    read_all(net, (foreign, &foreign.entries), tokens, options)
}

/// The same of some entries.
pub(super) fn read_all(
    net: &Gpt2,
    (foreign, entries): (&Foreign, &[Entry]),
    tokens: &[Vec<u32>],
    options: Options,
) -> Result<Vec<Theirs>> {
    let n = tokens.first().map_or(0, Vec::len);
    let positions = (foreign.rows(tokens).len(), n);
    let mut all = Vec::new();
    for entry in entries {
        let mut named = entry.named.clone();
        if options.dialect == Some(Dialect::Transformerlens2)
            && let Named::One(ours) = &mut named
            && let Some(affine) = affine(ours.hook)
        {
            ours.hook = affine;
        }
        // Before it is read: a file may claim to be huge.
        let refuse = |why: String| Error::file(&foreign.path, format!("`{}` {why}", plain(&entry.name)));
        layout::check_size(&entry.shape, &named, tokens.len(), &net.config, positions).map_err(refuse)?;
        let x = foreign.tensor(entry)?;
        let fitted = layout::fit(&x, &named, tokens.len(), &net.config, positions).map_err(refuse)?;
        for fitted in fitted {
            // What TransformerLens 2 calls normalized is after weight and bias.
            let other = affine(fitted.ours.hook)
                .filter(|_| options.dialect.is_none() && fitted.ours.kind == Kind::Whole);
            let other =
                other.map(|hook| (Ours::whole(hook), "after weight and bias, as TransformerLens 2 has it"));
            all.push(Theirs { name: entry.name.clone(), format: entry.format, fitted, other });
        }
    }
    all.sort_by_key(|one| one.fitted.ours);
    Ok(all)
}

/// What a LayerNorm gives after weight and bias.
fn affine(hook: HookName) -> Option<HookName> {
    let site = match hook.site {
        Site::Ln1Normalized => Site::Ln1Out,
        Site::Ln2Normalized => Site::Ln2Out,
        Site::LnFinalNormalized => Site::LnFinalOut,
        _ => return None,
    };
    Some(HookName { site, ..hook })
}

/// And what they may be instead.
pub(super) fn with_affine(hooks: &[HookName]) -> Vec<HookName> {
    hooks.iter().flat_map(|hook| std::iter::once(*hook).chain(affine(*hook))).collect()
}

impl Theirs {
    pub(super) fn ours(&self) -> Ours {
        self.fitted.ours
    }

    /// Compares it in the order that is nearest.
    pub(super) fn compare(self, caches: &[ActivationCache], side: &Side) -> Result<(Compared, Held)> {
        let mut best: Option<(Difference, Ours, Option<&'static str>, usize)> = None;
        let is_whole = self.fitted.ours;
        for (ours, said) in
            std::iter::once((is_whole, None)).chain(self.other.map(|(ours, said)| (ours, Some(said))))
        {
            let values = values(ours, caches, side)?;
            for (i, (rows, order)) in self.fitted.orders.iter().enumerate() {
                let found = difference(ours, &values, rows, side.tolerance)?;
                let note = said.or(Some(*order).filter(|order| !order.is_empty()));
                if best.as_ref().is_none_or(|(known, ..)| is_nearer(&found, known)) {
                    best = Some((found, ours, note, i));
                }
            }
            if best.as_ref().is_some_and(|(found, ..)| found.is_ok()) {
                break;
            }
        }
        let (difference, ours, note, i) = best.expect("there is an order");
        // Another reading counts only if it holds.
        let rows = self.fitted.orders.into_iter().nth(i).map(|(rows, _)| rows).unwrap_or_default();
        let compared =
            Compared { name: name_of(ours), theirs: self.name, shape: layout_of(&rows), difference, note };
        Ok((compared, Held { ours, format: self.format, rows }))
    }
}

fn is_nearer(a: &Difference, b: &Difference) -> bool {
    let size = |of: &Difference| if of.excess.is_nan() { f32::INFINITY } else { of.excess };
    size(a) < size(b)
}

/// With the batch, if there is one.
fn layout_of(rows: &[Tensor]) -> Vec<usize> {
    let inner = rows.first().map(|row| row.dims().to_vec()).unwrap_or_default();
    if rows.len() > 1 { std::iter::once(rows.len()).chain(inner).collect() } else { inner }
}

/// Our name of a tensor.
pub fn name_of(ours: Ours) -> String {
    match ours.kind {
        Kind::Whole => ours.hook.to_string(),
        Kind::Qkv => format!("{}, k, v", ours.hook),
        Kind::Mean => format!("mean of {}", ours.hook),
        Kind::Rstd => format!("1 / {}", ours.hook),
        Kind::Losses => format!("loss of {}", ours.hook),
    }
}

/// Ours, by row of the batch.
pub fn values(ours: Ours, caches: &[ActivationCache], side: &Side) -> Result<Vec<Tensor>> {
    let value = |(cache, targets): (_, &Vec<_>)| layout::value(ours, cache, &side.positions, targets);
    caches.iter().zip(&side.targets).map(value).collect()
}

/// The mean loss of all positions whose target is known.
fn mean_loss(caches: &[ActivationCache], side: &Side) -> Result<f32> {
    let losses = Ours { hook: Site::Logits.once(), kind: Kind::Losses };
    let mut all = Vec::new();
    for row in values(losses, caches, side)? {
        all.extend(row.to_vec1::<f32>()?.into_iter().filter(|x| !x.is_nan()).map(f64::from));
    }
    Ok((all.iter().sum::<f64>() / all.len() as f64) as f32)
}

/// What a whole tensor may be off, as a multiple of what a value may be.
const WHOLE: f32 = 10.0;

/// How far rows of theirs are from ours.
pub fn difference(ours: Ours, values: &[Tensor], rows: &[Tensor], tolerance: f32) -> Result<Difference> {
    let mut found = Difference {
        max: 0.0,
        mean: 0.0,
        cosine: 1.0,
        at: Vec::new(),
        theirs: f32::NAN,
        ours: f32::NAN,
        excess: 0.0,
    };
    // What is masked in ours was perhaps never computed.
    let skips = ours.hook.site == Site::AttnScores && ours.kind == Kind::Whole;
    let unknown = ours.kind == Kind::Losses;
    let (mut sum, mut n) = (0.0f64, 0u64);
    let (mut dot, mut own, mut other, mut apart) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    let mut worst = -1.0f32;
    for (row, (values, theirs)) in values.iter().zip(rows).enumerate() {
        let shape = values.dims().to_vec();
        let [a, b] = [values, theirs].map(|x| x.flatten_all()?.to_vec1::<f32>());
        for (i, (a, b)) in a?.into_iter().zip(b?).enumerate() {
            if (skips && a == f32::NEG_INFINITY) || (unknown && a.is_nan()) {
                continue;
            }
            let d = if a == b { 0.0 } else { (b - a).abs() };
            let excess = d / (tolerance * a.abs().max(1.0));
            let excess = if excess.is_nan() { f32::INFINITY } else { excess };
            (sum, n) = (sum + f64::from(d), n + 1);
            if a.is_finite() && b.is_finite() {
                let (a, b) = (f64::from(a), f64::from(b));
                (dot, own, other) = (dot + a * b, own + a * a, other + b * b);
                apart += (a - b) * (a - b);
            }
            found.max = if d.is_nan() || found.max.is_nan() { f32::NAN } else { found.max.max(d) };
            if excess > worst {
                worst = excess;
                let batch = (rows.len() > 1).then_some(row);
                found.at = batch.into_iter().chain(index(i, &shape)).collect();
                (found.ours, found.theirs) = (a, b);
            }
        }
    }
    // A mean is small where channels cancel.
    let share = if own > 0.0 && ours.kind != Kind::Mean { (apart / own).sqrt() as f32 } else { 0.0 };
    found.excess = worst.max(share / (WHOLE * tolerance));
    found.mean = (sum / n.max(1) as f64) as f32;
    let norms = (own * other).sqrt();
    found.cosine = if norms > 0.0 { (dot / norms) as f32 } else { f32::from(u8::from(own == other)) };
    Ok(found)
}

/// Runs each row of tokens with hooks that may change what is computed.
pub fn run<H: Hooks>(
    net: &Gpt2,
    tokens: &[Vec<u32>],
    keep: &HookFilter,
    hooks: &mut dyn FnMut() -> H,
) -> Result<Vec<ActivationCache>> {
    let mut caches = Vec::with_capacity(tokens.len());
    for row in tokens {
        let cache = ActivationCache::with_filter(keep.clone(), net).for_tokens(row.len());
        let mut chain = (hooks(), cache);
        net.run(row, &mut chain)?;
        caches.push(chain.1);
    }
    Ok(caches)
}
