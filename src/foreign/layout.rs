//! How tensors lie in files: with a batch, heads first or side by side, with padding. Brought into our order.

use candle_core::{DType, Tensor};

use super::names::{Kind, Named, Ours};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{Axis, Site};
use crate::model::ActivationCache;

/// What a tensor is of, and its values for each row of the batch, in every order that its shape allows, with what was
/// done for it.
pub struct Fitted {
    pub ours: Ours,
    pub orders: Vec<(Vec<Tensor>, &'static str)>,
}

/// The shape of what we have for `t` positions (of `n` tokens).
pub fn shape(ours: Ours, config: &Config, (t, n): (usize, usize)) -> Vec<usize> {
    match ours.kind {
        Kind::Whole => {
            let axes = ours.hook.point().axes.iter();
            axes.map(|axis| if *axis == Axis::Pos { t } else { axis.len(config, n) }).collect()
        }
        Kind::Qkv => vec![t, 3 * config.n_embd],
        Kind::Mean | Kind::Rstd | Kind::Losses => vec![t],
    }
}

/// A tensor of a file, brought into our order; `batch` is the number of rows of tokens.
///
/// # Errors
/// The shape that was expected, in words.
pub fn fit(
    x: &Tensor,
    named: &Named,
    batch: usize,
    config: &Config,
    positions: (usize, usize),
) -> Result<Vec<Fitted>, String> {
    let one = |ours: Ours, x: &Tensor| {
        let shape = shape(ours, config, positions);
        let orders = rows(x, batch, ours, &shape);
        if orders.is_empty() {
            let found = x.dims();
            return Err(format!(
                "has shape {found:?} where {shape:?} is expected{}",
                hint(found, &shape, (batch, positions.0))
            ));
        }
        Ok(Fitted { ours, orders })
    };
    match named {
        Named::One(ours) => Ok(vec![one(*ours, x)?]),
        Named::Stacked(all) => {
            let n = all.len();
            if x.dims().first() != Some(&n) {
                return Err(format!("has shape {:?} where all {n} come one after the other", x.dims()));
            }
            all.iter()
                .enumerate()
                .map(|(i, ours)| one(*ours, &x.get(i).map_err(|e| e.to_string())?))
                .collect()
        }
    }
}

/// Refuses a tensor that is far larger than any layout of what is expected: padding at most doubles it.
///
/// # Errors
/// The shape that was expected, in words.
pub fn check_size(
    found: &[usize],
    named: &Named,
    batch: usize,
    config: &Config,
    positions: (usize, usize),
) -> Result<(), String> {
    let (n, first) = match named {
        Named::One(ours) => (1, *ours),
        Named::Stacked(all) => (all.len(), all[0]),
    };
    let shape = shape(first, config, positions);
    let expected = (n * batch) as u128 * shape.iter().map(|axis| *axis as u128).product::<u128>();
    if found.iter().map(|axis| *axis as u128).product::<u128>() <= 2 * expected {
        return Ok(());
    }
    Err(format!(
        "has shape {found:?} where {shape:?} is expected{}",
        hint(found, &shape, (batch, positions.0))
    ))
}

/// What may be the reason for another shape.
fn hint(found: &[usize], expected: &[usize], (batch, t): (usize, usize)) -> String {
    match found {
        [b, rest @ ..] if batch == 1 && *b > 1 && rest == expected => {
            format!(": a batch of {b}, but one prompt")
        }
        _ if found.contains(&(t + 1)) || (t > 1 && found.contains(&(t - 1))) => {
            ": the prompt has another number of tokens; is BOS the difference?".into()
        }
        _ => String::new(),
    }
}

/// The rows of the batch, in each order that has this shape.
fn rows(x: &Tensor, batch: usize, ours: Ours, shape: &[usize]) -> Vec<(Vec<Tensor>, &'static str)> {
    let mut ways: Vec<Vec<Tensor>> = Vec::new();
    if batch == 1 {
        ways.push(vec![x.clone()]);
        let mut inner = x.clone();
        while inner.dims().first() == Some(&1) && inner.dims().len() > 1 {
            let Ok(squeezed) = inner.squeeze(0) else { break };
            inner = squeezed;
            ways.push(vec![inner.clone()]);
        }
    } else if x.dims().first() == Some(&batch) {
        ways.extend((0..batch).map(|row| x.get(row).ok()).collect::<Option<Vec<_>>>());
    }
    let mut found: Vec<(Vec<Tensor>, &'static str)> = Vec::new();
    for way in ways {
        for order in ORDERS {
            let all: Option<Vec<_>> = way.iter().map(|row| order.1(row, ours, shape)).collect();
            if let Some(all) = all {
                found.push((all, order.0));
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

type Order = (&'static str, fn(&Tensor, Ours, &[usize]) -> Option<Tensor>);

/// The orders that tensors come in, the likeliest first.
const ORDERS: [Order; 5] = [
    ("", |x, _, shape| (x.dims() == shape).then(|| x.clone())),
    ("", |x, ours, shape| {
        // Heads side by side, (T, C); a scale without its last axis, (T), or with one more, (T, 1).
        let heads = ours.hook.point().axes.contains(&Axis::HeadDim) && ours.kind == Kind::Whole;
        let same_rows = x.dims().first() == shape.first();
        let flat = match x.dims() {
            [_, n] => shape.len() == 1 && *n == 1 || heads && *n == shape[1..].iter().product::<usize>(),
            [_] => shape.len() == 2 && shape[1] == 1,
            _ => false,
        };
        (same_rows && flat).then(|| x.reshape(shape).ok())?
    }),
    ("heads come first", |x, ours, shape| {
        let [t, h, d] = shape else { return None };
        let heads = ours.hook.point().axes.contains(&Axis::HeadDim);
        (heads && x.dims() == [*h, *t, *d]).then(|| x.transpose(0, 1).ok()?.contiguous().ok())?
    }),
    ("a padded vocabulary is cut", |x, ours, shape| {
        let [t, v] = shape else { return None };
        let vocabulary = matches!(ours.hook.site, Site::Logits | Site::Probs) && ours.kind == Kind::Whole;
        let padded = matches!(x.dims(), [rows, n] if rows == t && n > v);
        (vocabulary && padded).then(|| x.narrow(1, 0, *v).ok()?.contiguous().ok())?
    }),
    ("positions are columns", |x, _, shape| {
        let [t, c] = shape else { return None };
        (t != c && x.dims() == [*c, *t]).then(|| x.t().ok()?.contiguous().ok())?
    }),
];

/// What we have, in the shape of [`shape`]; `targets` are for losses: without, the next tokens.
///
/// # Errors
/// [`Error::Usage`] if it was not kept.
pub fn value(
    ours: Ours,
    cache: &ActivationCache,
    rows: &std::ops::Range<usize>,
    targets: &[Option<u32>],
) -> Result<Tensor> {
    let part = |hook| cache.part(hook, &crate::hooks::Part::rows(rows.clone()));
    Ok(match ours.kind {
        Kind::Whole => part(ours.hook)?,
        Kind::Qkv => {
            let layer = ours.hook.layer.unwrap_or(0);
            let all = [Site::Q, Site::K, Site::V]
                .map(|site| part(site.at(layer))?.flatten_from(1).map_err(Error::from));
            let [q, k, v] = all;
            Tensor::cat(&[q?, k?, v?], 1)?
        }
        Kind::Mean => part(ours.hook)?.mean(1)?,
        Kind::Rstd => part(ours.hook)?.flatten_all()?.recip()?,
        Kind::Losses => {
            let logits = part(ours.hook)?.to_dtype(DType::F64)?;
            let most = logits.max_keepdim(1)?;
            let log_sum = logits.broadcast_sub(&most)?.exp()?.sum(1)?.log()?;
            let log_sum = (log_sum + most.squeeze(1)?)?.to_vec1::<f64>()?;
            let logits = logits.to_vec2::<f64>()?;
            let loss = |(i, row): (usize, &Vec<f64>)| {
                let target = targets.get(rows.start + i).copied().flatten();
                target.and_then(|id| row.get(id as usize)).map_or(f64::NAN, |x| log_sum[i] - x) as f32
            };
            let losses: Vec<f32> = logits.iter().enumerate().map(loss).collect();
            Tensor::new(losses, &candle_core::Device::Cpu)?
        }
    })
}

/// The hooks that it is made of.
pub fn sources(ours: Ours) -> Vec<crate::hooks::HookName> {
    match (ours.kind, ours.hook.layer) {
        (Kind::Qkv, Some(layer)) => [Site::Q, Site::K, Site::V].map(|site| site.at(layer)).to_vec(),
        _ => vec![ours.hook],
    }
}
