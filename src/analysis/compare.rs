//! Comparing two runs: which rows are aligned, where they differ, and by how much.

use rayon::prelude::*;

use super::View;
use super::base::Minus;
use super::logits::order;
use super::softmax::Softmax;
use crate::error::Result;
use crate::hooks::{Axis, HookName, Site};
use crate::picture::Matrix;
use crate::run::Run;

/// The alignment of the positions of two prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// In order; `None` if the other prompt has no such token.
    pub pairs: Vec<(Option<usize>, Option<usize>)>,
}

impl Alignment {
    /// Prompts of equal length are aligned position by position, others so that the fewest tokens
    /// are replaced, deleted or inserted.
    pub fn new(a: &[u32], b: &[u32]) -> Self {
        if a.len() == b.len() {
            return Self { pairs: (0..a.len()).map(|t| (Some(t), Some(t))).collect() };
        }
        // cost[i][j]: the cost of aligning a[i..] and b[j..].
        let mut cost = vec![vec![0usize; b.len() + 1]; a.len() + 1];
        for i in (0..=a.len()).rev() {
            for j in (0..=b.len()).rev() {
                cost[i][j] = match (a.get(i), b.get(j)) {
                    (None, _) => b.len() - j,
                    (_, None) => a.len() - i,
                    (Some(x), Some(y)) => {
                        let both = cost[i + 1][j + 1] + usize::from(x != y);
                        both.min(1 + cost[i + 1][j]).min(1 + cost[i][j + 1])
                    }
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        let mut pairs = Vec::new();
        while i < a.len() || j < b.len() {
            let both =
                i < a.len() && j < b.len() && cost[i][j] == cost[i + 1][j + 1] + usize::from(a[i] != b[j]);
            let left = i < a.len() && (both || cost[i][j] == 1 + cost[i + 1][j]);
            let right = both || !left;
            pairs.push((left.then_some(i), right.then_some(j)));
            (i, j) = (i + usize::from(left), j + usize::from(right));
        }
        Self { pairs }
    }

    /// The aligned pairs: (position in A, position in B).
    pub fn both(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        self.pairs.iter().filter_map(|&(a, b)| a.zip(b))
    }

    /// Whether every token is aligned with the same position of the other prompt.
    pub fn is_identity(&self) -> bool {
        self.pairs.iter().enumerate().all(|(t, &pair)| pair == (Some(t), Some(t)))
    }
}

/// `of − base`, row by row of `view`: rows (and keys) that are positions are those of the
/// alignment's pairs that have both, the rest are those of the tensor. What is −inf in both, a
/// masked cell, stays −inf.
pub fn difference(view: View, (of, base): (&Run, &Run), alignment: &Alignment) -> Result<Matrix> {
    let (a, b) = (view.matrix(of)?, view.matrix(base)?);
    let positions: Vec<_> = alignment.both().collect();
    let along = |axis: Axis, n: usize| match axis {
        Axis::Pos | Axis::Key => positions.clone(),
        _ => (0..n).map(|i| (i, i)).collect(),
    };
    let (rows, columns) = (along(view.axes().0, a.n_rows), along(view.axes().1, a.n_columns));
    let mut values = Vec::with_capacity(rows.len() * columns.len());
    a.read(|a| {
        b.read(|b| {
            for &(r, s) in &rows {
                let (a, b) = (a.get(r), b.get(s));
                values.extend(columns.iter().map(|&(c, d)| a[c].minus(&b[d])));
            }
        });
    });
    Matrix::new(values, rows.len(), columns.len())
}

/// How the prediction at one position changed. Logarithms are natural.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The next token in the prompt, if any: its id and Δ log-probability.
    pub actual: Option<(u32, f64)>,
    /// The likeliest token before, likewise.
    pub predicted: (u32, f64),
    /// KL(before ‖ after), in nats.
    pub kl: f64,
}

impl Shift {
    /// From one row of logits to another; `next` is the next token.
    pub fn new(before: &[f32], after: &[f32], next: Option<u32>) -> Self {
        let (p, q) = (Softmax::new(before), Softmax::new(after));
        let moved = |id: u32| (id, q.log_prob(after[id as usize]) - p.log_prob(before[id as usize]));
        let likeliest = before.iter().enumerate().max_by(|a, b| order(*a.1, *b.1).then(b.0.cmp(&a.0)));
        let kl = p.kl(before, after, &q);
        Self {
            actual: next.map(&moved),
            predicted: moved(likeliest.map_or(0, |(id, _)| id as u32)),
            // Rounding must not make it negative; NaN stays.
            kl: if kl < 0.0 { 0.0 } else { kl },
        }
    }
}

/// A tensor and a position.
pub type Spot = (HookName, usize);

/// The differences between two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// For each aligned pair, by position in the run after.
    pub shifts: Vec<Option<Shift>>,
    /// The first tensor in data-flow order that differs, and its first differing position.
    pub first: Option<Spot>,
    /// The first position where any residual stream, or the logits, differ.
    pub earliest: Option<usize>,
    /// The first tensor of the run after that has NaN, and its first position with NaN.
    pub nan: Option<Spot>,
}

impl Comparison {
    /// Of a run of `n_tokens`, as long as nothing is known of it.
    pub fn unknown(n_tokens: usize) -> Self {
        Self { shifts: vec![None; n_tokens], first: None, earliest: None, nan: None }
    }

    /// From `before` to `after`; both need their logits.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if the logits were not kept.
    pub fn new(before: &Run, after: &Run, alignment: &Alignment) -> Result<Self> {
        let logits = View::hook(Site::Logits.once(), 0);
        let (p, q) = (logits.matrix(before)?, logits.matrix(after)?);
        let next = |at: usize| after.tokens.get(at + 1).copied();
        let pairs: Vec<_> = alignment.both().collect();
        let moved: Vec<_> = p.read(|p| {
            q.read(|q| {
                pairs.par_iter().map(|&(a, b)| (b, Shift::new(&p.get(a), &q.get(b), next(b)))).collect()
            })
        });
        let mut shifts = vec![None; after.n_tokens()];
        for (position, shift) in moved {
            shifts[position] = Some(shift);
        }
        let (first, earliest) = if before.tokens == after.tokens {
            // Everything before the first change is the same by construction.
            let lists = [before, after].map(|run| run.input.interventions.first());
            let from = lists.into_iter().flatten().min();
            let changed = |hook: &HookName| Some((*hook, first_difference(*hook, before, after)?));
            let hooks: Vec<_> = kept(after).filter(|hook| from.is_some_and(|from| *hook >= from)).collect();
            let stream =
                |hook: &&HookName| matches!(hook.site, Site::ResidPre | Site::ResidPost | Site::Logits);
            let first = hooks.iter().find_map(changed);
            let rest = hooks.iter().filter(stream).filter_map(changed).map(|(_, at)| at);
            (first, rest.chain(first.map(|(_, at)| at)).min())
        } else {
            let other = |&(a, b): &(Option<usize>, Option<usize>)| match (a, b) {
                (Some(a), Some(b)) if before.tokens[a] == after.tokens[b] => None,
                (_, b) => Some(b.unwrap_or(after.n_tokens() - 1)),
            };
            let at = alignment.pairs.iter().find_map(other);
            (at.map(|at| (Site::Embed.once(), at)), at)
        };
        Ok(Self { shifts, first, earliest, nan: first_nan(after) })
    }
}

/// The first tensor, in data-flow order, that has NaN, and its first position with NaN.
pub fn first_nan(run: &Run) -> Option<Spot> {
    kept(run).find_map(|hook| {
        let matrix = Matrix::of(&run.tensor(hook)?).ok()?;
        let broken = matrix.read(|rows| {
            (0..matrix.n_rows)
                .filter(|&row| rows.get(row).iter().any(|x| x.is_nan()))
                .map(position(hook, run))
                .min()
        });
        Some((hook, broken?))
    })
}

fn kept(run: &Run) -> impl Iterator<Item = HookName> {
    let hooks = HookName::all(run.config()).into_iter();
    hooks.filter(|hook| run.tensor(*hook).is_some())
}

/// The first position where the tensors are not equal to the bit.
fn first_difference(hook: HookName, before: &Run, after: &Run) -> Option<usize> {
    let (a, b) = (Matrix::of(&before.tensor(hook)?).ok()?, Matrix::of(&after.tensor(hook)?).ok()?);
    let n_rows = b.n_rows;
    let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
    a.read(|a| {
        b.read(|b| {
            let differs = |&row: &usize| !a.get(row).iter().zip(&*b.get(row)).all(same);
            (0..n_rows).filter(differs).map(position(hook, after)).min()
        })
    })
}

/// The position of a row of a tensor whose axes except the last are flattened.
fn position(hook: HookName, run: &Run) -> impl Fn(usize) -> usize {
    let by_head = hook.point().axes.contains(&Axis::Head);
    let first = hook.point().axes[0];
    let (n_head, n_tokens) = (run.config().n_head, run.n_tokens());
    move |row| match (by_head, first) {
        (true, Axis::Head) => row % n_tokens,
        (true, _) => row / n_head,
        (false, _) => row,
    }
}
