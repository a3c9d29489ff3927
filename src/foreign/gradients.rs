//! Gradients that another program computed against ours.

use std::slice::from_ref;
use std::sync::Arc;

use candle_core::Tensor;

use super::check::{Check, Compared, Difference, Options, Side, difference, read_all, with_affine};
use super::file::Foreign;
use super::layout;
use super::names::{Kind, Ours};
use crate::analysis::gradients::{Gradients, Metric, Stop, weights};
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Site};
use crate::model::Model;
use crate::run::{Input, Run};
use crate::text::plain;

/// The metric of the run of a prompt, by its number.
pub type MetricOf<'a> = dyn Fn(&Run, usize) -> Result<Metric> + 'a;

impl Check {
    /// Compares the gradients of a file: those of tensors in one prompt, and those of weights as means over its prompts.
    /// Nothing is diagnosed of them.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Run::gradients`]; [`Error::File`] for gradients of tensors of a batch, whose metric could
    /// be meant in two ways.
    pub fn of_gradients(
        model: &Arc<Model>,
        foreign: &Foreign,
        tokens: &[Vec<u32>],
        (metric, stop): (&MetricOf<'_>, Stop),
        options: Options,
    ) -> Result<Self> {
        foreign.check_weights(model)?;
        let gradients = |(i, ids): (usize, &Vec<u32>)| {
            let run = Run::all(model, Input::ids(ids.clone()))?;
            run.gradients_with(&metric(&run, i)?, stop, &|| Ok(()))
        };
        let all = tokens.iter().enumerate().map(gradients).collect::<Result<Vec<_>>>()?;
        let mut tensors = of_tensors(model, foreign, (tokens, &all), options)?;
        tensors.extend(of_weights(model, foreign, &all, options)?);
        let first_off = tensors.iter().position(|one| !one.difference.is_ok());
        Ok(Self { tensors, loss: None, tolerance: options.tolerance, first_off, diagnoses: Vec::new() })
    }
}

fn of_tensors(
    model: &Model,
    foreign: &Foreign,
    (tokens, all): (&[Vec<u32>], &[Gradients]),
    options: Options,
) -> Result<Vec<Compared>> {
    if foreign.gradients.is_empty() {
        return Ok(Vec::new());
    }
    let [gradients] = all else {
        let problem =
            "has gradients of several prompts: their metric may be a sum or a mean; write one prompt";
        return Err(Error::file(&foreign.path, problem));
    };
    let theirs = read_all(&model.net, (foreign, &foreign.gradients), tokens, options)?;
    if let Some(one) = theirs.iter().find(|one| !matches!(one.ours().kind, Kind::Whole | Kind::Qkv)) {
        let problem = format!("`{}` is no gradient of a tensor that is compared", plain(&one.name));
        return Err(Error::file(&foreign.path, problem));
    }
    let hooks: Vec<_> = theirs.iter().flat_map(|one| layout::sources(one.ours())).collect();
    let of = |hook: &HookName| Ok((*hook, gradients.part(*hook, &Part::default())?));
    let known = with_affine(&hooks).iter().map(of).collect::<Result<_>>()?;
    let caches = [gradients.run.with_tensors(known).cache];
    let side = Side {
        positions: foreign.rows(tokens),
        targets: foreign.targets(tokens),
        tolerance: options.tolerance,
    };
    let compare = |one: super::check::Theirs| {
        let (compared, _) = one.compare(&caches, &side)?;
        Ok(Compared { name: format!("{}.grad", compared.name), ..compared })
    };
    theirs.into_iter().map(compare).collect()
}

/// Matrices may be (in, out), as in GPT-2's checkpoints, or (out, in), as in torch's linear layers.
fn of_weights(
    model: &Model,
    foreign: &Foreign,
    all: &[Gradients],
    options: Options,
) -> Result<Vec<Compared>> {
    let known = weights::names(model.config());
    let mut tensors = Vec::new();
    for (name, shape) in &known {
        let found = foreign.of_weights.iter().find(|(_, ours, _)| ours == name);
        let Some((theirs, _, their_shape)) = found else { continue };
        let mut sum: Option<Tensor> = None;
        for gradients in all {
            let one = gradients.of_weight(name)?;
            sum = Some(match sum {
                Some(sum) => (sum + one)?,
                None => one,
            });
        }
        let Some(sum) = sum else { continue };
        let ours = (sum / all.len() as f64)?.contiguous()?;
        let x = foreign.of_weight(theirs, name, their_shape)?;
        let is_linear = name.starts_with("h.") && shape.len() == 2;
        let turned = if is_linear { Some(x.t()?.contiguous()?) } else { None };
        let compare = |x: &Tensor| -> Result<Option<Difference>> {
            if x.dims() != ours.dims() {
                return Ok(None);
            }
            let plain = Ours::whole(Site::Embed.once());
            difference(plain, from_ref(&ours), from_ref(x), options.tolerance).map(Some)
        };
        let straight = compare(&x)?;
        let other = turned.as_ref().map(&compare).transpose()?.flatten();
        let (difference, note) = match (straight, other) {
            (Some(a), Some(b)) if b.excess < a.excess => (b, Some("(out, in)")),
            (Some(a), _) => (a, None),
            (None, Some(b)) => (b, Some("(out, in)")),
            (None, None) => {
                let problem = format!("`{}` has shape {:?}, not {shape:?}", plain(theirs), x.dims());
                return Err(Error::file(&foreign.path, problem));
            }
        };
        let (name, shape) = (format!("{name}.grad"), x.dims().to_vec());
        tensors.push(Compared { name, theirs: theirs.clone(), shape, difference, note });
    }
    Ok(tensors)
}
