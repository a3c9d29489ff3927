//! The extremes of all tensors of a run.

use rayon::prelude::*;

use super::View;
use crate::error::Result;
use crate::hooks::{Axis, Site, TensorName};
use crate::run::Run;

/// The multiple of the median channel's root mean square from which a channel is an outlier.
pub const OUTLIER: f64 = 5.0;

/// The extremes of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The largest |x| of each tensor, largest first; NaN and +inf before all others.
    pub values: Vec<Extreme>,
    /// The row with the largest norm of each tensor, largest first.
    pub rows: Vec<Extreme>,
    /// The outlier channels of the residual stream, those of most layers first.
    pub channels: Vec<Channel>,
    /// The number of values searched.
    pub n_values: u64,
}

/// A cell, or a row, of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extreme {
    pub name: TensorName,
    /// 0 if the tensor has no head axis.
    pub head: usize,
    pub row: usize,
    /// For a row, the column of its largest |x|.
    pub column: usize,
    /// The value with its sign, or the norm of the row.
    pub value: f32,
}

impl Extreme {
    /// The index of the row in the captured tensor.
    pub fn place(&self) -> Vec<usize> {
        match *self.name.axes() {
            [Axis::Head, ..] => vec![self.head, self.row],
            [_, Axis::Head, _] => vec![self.row, self.head],
            _ => vec![self.row],
        }
    }

    /// The index of the value in the captured tensor.
    pub fn cell(&self) -> Vec<usize> {
        let mut place = self.place();
        place.push(self.column);
        place
    }

    /// NaN before infinities before numbers.
    fn order(&self) -> f32 {
        if self.value.is_nan() { f32::INFINITY } else { self.value.abs() }
    }
}

/// A channel of the residual stream whose root mean square over positions is at least [`OUTLIER`]
/// times the median channel's, in some layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    pub channel: usize,
    /// The layers in whose resid_post it is an outlier.
    pub layers: Vec<usize>,
    /// The largest ratio of its root mean square to the median one.
    pub ratio: f64,
}

impl Found {
    /// Looks once at every number of every tensor that `run` kept; skips −inf, which masks.
    /// Before each tensor or small group of tensors, `progress` receives the number
    /// done and the total; an error from it ends the search.
    ///
    /// # Errors
    /// The error of `progress`.
    pub fn new(run: &Run, mut progress: impl FnMut(usize, usize) -> Result<()>) -> Result<Self> {
        let kept = run.cache.names();
        let mut names = run.model.tensors();
        names.retain(|name| run.model.sources(*name).iter().all(|hook| kept.contains(hook)));
        let mut scans: Vec<Scan> = Vec::with_capacity(names.len());
        for few in names.chunks(rayon::current_num_threads().min(8)) {
            progress(scans.len(), names.len())?;
            let scanned: Result<Vec<_>> = few.par_iter().map(|&name| Scan::new(run, name)).collect();
            scans.extend(scanned?);
        }
        let mut found = Self { n_values: scans.iter().map(|scan| scan.n_values).sum(), ..Self::default() };
        for scan in &scans {
            found.values.extend(scan.value);
            found.rows.extend(scan.row);
        }
        for list in [&mut found.values, &mut found.rows] {
            list.sort_by(|a, b| b.order().total_cmp(&a.order()).then(a.name.cmp(&b.name)));
        }
        found.channels = channels(&scans, run.config().n_embd);
        Ok(found)
    }
}

/// The extremes of one tensor.
struct Scan {
    name: TensorName,
    value: Option<Extreme>,
    row: Option<Extreme>,
    /// Root mean square of each channel over positions, for resid_post only.
    rms: Vec<f64>,
    n_values: u64,
}

impl Scan {
    fn new(run: &Run, name: TensorName) -> Result<Self> {
        let n_heads = if name.has_heads() { run.config().n_head } else { 1 };
        let mut scan = Self { name, value: None, row: None, rms: Vec::new(), n_values: 0 };
        for head in 0..n_heads {
            let matrix = View::hook(name, head).matrix(run)?;
            scan.n_values += (matrix.n_rows * matrix.n_columns) as u64;
            if name.made.is_none() && name.hook.site == Site::ResidPost {
                scan.rms = vec![0.0; matrix.n_columns];
            }
            matrix.read(|rows| (0..matrix.n_rows).for_each(|row| scan.see(head, row, &rows.get(row))));
            scan.rms.iter_mut().for_each(|square| *square = (*square / matrix.n_rows as f64).sqrt());
        }
        Ok(scan)
    }

    fn see(&mut self, head: usize, row: usize, values: &[f32]) {
        let (mut column, mut largest, mut squares) = (0, f32::NEG_INFINITY, 0.0);
        for (i, &x) in values.iter().enumerate() {
            if x == f32::NEG_INFINITY {
                continue;
            }
            let size = if x.is_nan() { f32::INFINITY } else { x.abs() };
            if size > largest {
                (column, largest) = (i, size);
            }
            squares += f64::from(x) * f64::from(x);
        }
        if largest == f32::NEG_INFINITY {
            return;
        }
        let extreme = |value| Extreme { name: self.name, head, row, column, value };
        let (value, norm) = (extreme(values[column]), extreme(squares.sqrt() as f32));
        for (best, new) in [(&mut self.value, value), (&mut self.row, norm)] {
            if best.is_none_or(|best| new.order() > best.order()) {
                *best = Some(new);
            }
        }
        for (sum, &x) in self.rms.iter_mut().zip(values) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
}

/// The outliers among `n` channels of the residual streams in `scans`.
fn channels(scans: &[Scan], n: usize) -> Vec<Channel> {
    let none = |channel| Channel { channel, layers: Vec::new(), ratio: 0.0 };
    let mut channels: Vec<_> = (0..n).map(none).collect();
    for scan in scans.iter().filter(|scan| !scan.rms.is_empty()) {
        let mut sorted = scan.rms.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        for (channel, rms) in channels.iter_mut().zip(&scan.rms) {
            let ratio = rms / median;
            if ratio >= OUTLIER {
                channel.layers.extend(scan.name.hook.layer);
                channel.ratio = channel.ratio.max(ratio);
            }
        }
    }
    channels.retain(|channel| !channel.layers.is_empty());
    channels.sort_by(|a, b| {
        b.layers.len().cmp(&a.layers.len()).then(b.ratio.total_cmp(&a.ratio)).then(a.channel.cmp(&b.channel))
    });
    channels
}
