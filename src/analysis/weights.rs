//! The weights by themselves: neighbours of a row, circuits of a head, directions of a
//! neuron. The weights are as in the checkpoint: no LayerNorm is folded in, nothing is centred,
//! biases are left out.

use candle_core::{DType, Device, Tensor};
use nalgebra::{DMatrix, SVD};
use rayon::prelude::*;

use super::logits::order;
use super::view::matrix_of;
use crate::error::{Error, Result};
use crate::hooks::Quantity;
use crate::model::{Block, Gpt2};
use crate::picture::Matrix;
use crate::picture::chart::{Chart, Labels};
use crate::picture::matrix::dot;
use crate::text::num;

/// A row of a table, and its similarity to the row that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    pub row: usize,
    /// cos ∠ = a · b / (‖a‖ ‖b‖); NaN if one of them is 0.
    pub cosine: f64,
}

/// The `k` rows of `table` most similar to `x` by cosine, nearest first, without row
/// `except`. Rows without a direction come last.
pub fn nearest(x: &[f32], table: &Matrix, k: usize, except: Option<usize>) -> Vec<Neighbour> {
    let d: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let norm = dot(x, &d).sqrt();
    let cosines = table.map_rows(|row| {
        let own: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        dot(row, &d) / (norm * own.sqrt())
    });
    let cosines = cosines.into_iter().enumerate().filter(|(row, _)| Some(*row) != except);
    let mut all: Vec<_> = cosines.map(|(row, cosine)| Neighbour { row, cosine }).collect();
    let order = |n: &Neighbour| if n.cosine.is_nan() { f64::NEG_INFINITY } else { n.cosine };
    first_by(&mut all, k, |a, b| order(b).total_cmp(&order(a)).then(a.row.cmp(&b.row)));
    all
}

/// Keeps the first `k`, in order.
fn first_by<T>(all: &mut Vec<T>, k: usize, order: impl Fn(&T, &T) -> std::cmp::Ordering) {
    if k < all.len() {
        all.select_nth_unstable_by(k, &order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
}

/// A token, and its dot product with a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub id: u32,
    pub score: f64,
}

/// The tokens at both ends of a direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Ends {
    /// Highest scores first.
    pub top: Vec<Scored>,
    /// Lowest scores first.
    pub bottom: Vec<Scored>,
}

impl Ends {
    fn new(scores: &[f64], k: usize) -> Self {
        let scored = |(id, score): (usize, &f64)| Scored { id: id as u32, score: *score };
        let all: Vec<_> = scores.iter().enumerate().map(scored).collect();
        let (mut top, mut bottom) = (all.clone(), all);
        first_by(&mut top, k, |a, b| order(b.score, a.score).then(a.id.cmp(&b.id)));
        first_by(&mut bottom, k, |a, b| order(a.score, b.score).then(a.id.cmp(&b.id)));
        Self { top, bottom }
    }
}

/// The embedding's rows: wte, (V, C).
///
/// # Errors
/// If they cannot be copied to the CPU.
pub fn embedding(net: &Gpt2) -> Result<Matrix> {
    matrix_of(&net.wte)
}

/// The unembedding's columns as rows: W_Uᵀ, (V, C).
fn unembedding(net: &Gpt2) -> Result<Matrix> {
    matrix_of(&net.unembed)
}

/// One of the two matrices by which a head acts on the residual stream, each (C, C) of rank d_head;
/// rows times matrix, as everywhere here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Circuit {
    /// W_V · W_O: what the head writes for what it reads.
    Ov,
    /// W_Q · W_Kᵀ: which keys a query looks for; without the scale.
    Qk,
}

impl Circuit {
    pub const ALL: [Self; 2] = [Self::Ov, Self::Qk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ov => "OV",
            Self::Qk => "QK",
        }
    }

    pub fn formula(self) -> &'static str {
        match self {
            Self::Ov => "W_V · W_O",
            Self::Qk => "W_Q · W_Kᵀ",
        }
    }

    /// The names of its two sides.
    pub fn sides(self) -> [&'static str; 2] {
        match self {
            Self::Ov => ["reads", "writes"],
            Self::Qk => ["queries", "keys"],
        }
    }

    /// The factors A and B, both (C, d_head), with A · Bᵀ the circuit of head `h`.
    fn factors(self, block: &Block, h: usize, d_head: usize) -> Result<[DMatrix<f64>; 2]> {
        let (c_attn, w_o) = (&block.c_attn.weight()?, &block.attn_proj.weight()?);
        let c = w_o.dim(1)?;
        let of_head = |i: usize| matrix(&c_attn.narrow(1, i * c + h * d_head, d_head)?);
        Ok(match self {
            Self::Ov => [of_head(2)?, matrix(&w_o.narrow(0, h * d_head, d_head)?.t()?)?],
            Self::Qk => [of_head(0)?, of_head(1)?],
        })
    }
}

/// A circuit of a head as Σ sᵢ uᵢ vᵢᵀ.
///
/// With the thin QR factorizations A = Q₁ R₁ and B = Q₂ R₂ of its factors the circuit is
/// Q₁ (R₁ R₂ᵀ) Q₂ᵀ, so the singular values are those of the d_head × d_head core R₁ R₂ᵀ = U S Vᵀ,
/// and the singular directions are the columns of Q₁ U and Q₂ V. The (C, C) matrix is never made.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    pub circuit: Circuit,
    pub layer: usize,
    pub head: usize,
    /// The d_head singular values, largest first; the other C − d_head are 0.
    pub values: Vec<f64>,
    /// (C, d_head) each.
    directions: [DMatrix<f64>; 2],
}

impl Spectrum {
    /// # Errors
    /// [`Error::Usage`] for a layer or head that there is not, or weights that are not finite.
    pub fn new(net: &Gpt2, layer: usize, head: usize, circuit: Circuit) -> Result<Self> {
        Error::check("layer", layer, 0..net.config.n_layer)?;
        Error::check("head", head, 0..net.config.n_head)?;
        let [a, b] = circuit.factors(&net.blocks[layer], head, net.config.d_head())?;
        let cannot = || {
            let what = format!("{} of head {layer}.{head}", circuit.formula());
            Error::usage(format!("{what} has no singular values: its weights hold NaN or infinities"))
        };
        if !a.iter().chain(b.iter()).all(|x| x.is_finite()) {
            return Err(cannot());
        }
        let (a, b) = (a.qr(), b.qr());
        let core = a.r() * b.r().transpose();
        let svd = SVD::try_new(core, true, true, f64::EPSILON, 10_000).ok_or_else(cannot)?;
        let (u, v) = (svd.u.ok_or_else(cannot)?, svd.v_t.ok_or_else(cannot)?.transpose());
        let values = svd.singular_values.iter().copied().collect();
        Ok(Self { circuit, layer, head, values, directions: [a.q() * u, b.q() * v] })
    }

    /// The tokens at the ends of singular direction `index`, on both sides of the circuit: those
    /// that it reads by wte · u; those that it writes by vᵀ · W_U (OV), or those that are looked
    /// for by wte · v (QK).
    ///
    /// The signs of u and v can only be turned together; they are such that the largest |wte · u|
    /// is positive.
    ///
    /// # Errors
    /// [`Error::Usage`] for a direction that there is not.
    pub fn tokens(&self, net: &Gpt2, index: usize, k: usize) -> Result<[Ends; 2]> {
        Error::check("direction", index, 0..self.values.len())?;
        let [u, v] = [0, 1].map(|side| self.direction(side, index));
        let embedding = embedding(net)?;
        let mut from = embedding.times(&u);
        let mut to = match self.circuit {
            Circuit::Ov => unembedding(net)?.times(&v),
            Circuit::Qk => embedding.times(&v),
        };
        let largest = from.iter().copied().fold(0.0, |a: f64, x| if x.abs() > a.abs() { x } else { a });
        if largest < 0.0 {
            from.iter_mut().chain(&mut to).for_each(|x| *x = -*x);
        }
        Ok([Ends::new(&from, k), Ends::new(&to, k)])
    }

    /// The unit vector of singular direction `index` that is multiplied from the left (side 0) or
    /// the right (side 1): (C).
    pub fn direction(&self, side: usize, index: usize) -> Vec<f64> {
        self.directions[side].column(index).iter().copied().collect()
    }

    /// The share of Σ sᵢ² that direction `index` has; 0 if all are 0.
    pub fn share(&self, index: usize) -> f64 {
        let all: f64 = self.values.iter().map(|s| s * s).sum();
        if all == 0.0 { 0.0 } else { self.values[index].powi(2) / all }
    }
}

/// The singular values of a circuit of every head, head by head.
pub fn chart(net: &Gpt2, circuit: Circuit) -> Result<Chart> {
    let heads: Vec<_> =
        (0..net.config.n_layer).flat_map(|l| (0..net.config.n_head).map(move |h| (l, h))).collect();
    let spectra = heads.par_iter().map(|&(l, h)| Spectrum::new(net, l, h, circuit));
    let spectra: Vec<_> = spectra.collect::<Result<_>>()?;
    let values = spectra.iter().flat_map(|spectrum| &spectrum.values).map(|s| *s as f32).collect();
    Ok(Chart {
        title: format!("singular values of every head's {} circuit", circuit.name()),
        doc: "largest first; raw weights: no LayerNorm folded in, no biases".into(),
        formula: circuit.formula().into(),
        rows: Labels::named("head", heads.iter().map(|(l, h)| format!("{l}.{h}")).collect()),
        columns: Labels::numbered("singular value"),
        values: Matrix::new(values, heads.len(), net.config.d_head())?,
        quantity: Quantity::Positive,
        limit: None,
        texts: Vec::new(),
    })
}

/// A table of the weights: wte or wpe.
pub fn table(net: &Gpt2, wpe: bool) -> Result<Chart> {
    let (values, title, rows) =
        if wpe { (Matrix::of(&net.wpe)?, "wpe", "position") } else { (embedding(net)?, "wte", "token id") };
    Ok(Chart {
        title: title.into(),
        doc: if wpe { "positional embedding" } else { "token embedding" }.to_owned()
            + ": one row per "
            + rows,
        formula: String::new(),
        rows: Labels::numbered(rows),
        columns: Labels::numbered("channel"),
        values,
        quantity: Quantity::Signed,
        limit: None,
        texts: Vec::new(),
    })
}

/// The nearest rows, named by `names`; `of` describes the row that they are compared with.
pub fn neighbours_chart(
    of: &str,
    noun: &'static str,
    found: &[Neighbour],
    name: impl Fn(usize) -> String,
) -> Chart {
    Chart {
        title: format!("nearest to {of}"),
        doc: "by cosine, nearest first; raw rows: nothing centred or folded".into(),
        formula: "a · b / (‖a‖ ‖b‖)".into(),
        rows: Labels::named(noun, found.iter().map(|neighbour| name(neighbour.row)).collect()),
        columns: Labels::named("number", vec!["cosine".into()]),
        values: Matrix::new(found.iter().map(|n| n.cosine as f32).collect(), found.len(), 1)
            .expect("one each"),
        quantity: Quantity::Signed,
        limit: Some(1.0),
        texts: Vec::new(),
    }
}

/// Tokens by score, one column per list.
pub fn ends_chart(
    (title, formula): (String, &str),
    lists: [(&str, &[Scored]); 4],
    show: impl Fn(u32) -> String,
) -> Chart {
    let n = lists.iter().map(|(_, list)| list.len()).min().unwrap_or(0);
    let cells = || (0..n).flat_map(|rank| lists.iter().map(move |(_, list)| list[rank]));
    Chart {
        title,
        doc: "tokens with their scores; raw weights: no LayerNorm folded in, no biases".into(),
        formula: formula.into(),
        rows: Labels::named("rank", (1..=n).map(|rank| rank.to_string()).collect()),
        columns: Labels::named("list", lists.iter().map(|(name, _)| (*name).to_owned()).collect()),
        values: Matrix::new(cells().map(|cell| cell.score as f32).collect(), n, 4).expect("four each"),
        quantity: Quantity::Signed,
        limit: None,
        texts: cells().map(|cell| format!("{} {}", show(cell.id), num(cell.score as f32))).collect(),
    }
}

impl NeuronTokens {
    /// The tokens at the ends of its two directions.
    pub fn chart(&self, show: impl Fn(u32) -> String) -> Chart {
        let title = format!("neuron {}.{}", self.layer, self.neuron);
        ends_chart((title, "wte · W_in[:, n] and W_out[n] · W_U"), self.lists(), show)
    }

    /// The lists with their names.
    pub fn lists(&self) -> [(&'static str, &[Scored]); 4] {
        [
            ("activated by", &self.reads.top),
            ("promotes", &self.writes.top),
            ("inhibited by", &self.reads.bottom),
            ("suppresses", &self.writes.bottom),
        ]
    }
}

/// A tensor with two axes, in float64.
fn matrix(tensor: &Tensor) -> Result<DMatrix<f64>> {
    let (rows, columns) = tensor.dims2()?;
    let values: Vec<f64> = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(DMatrix::from_row_slice(rows, columns, &values))
}

/// A neuron by the tokens that its directions point to.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronTokens {
    pub layer: usize,
    pub neuron: usize,
    /// b_in of this neuron.
    pub bias: f64,
    /// ‖W_in\[:, n\]‖ and ‖W_out\[n\]‖.
    pub norms: [f64; 2],
    /// The tokens that activate it: wte · W_in\[:, n\].
    pub reads: Ends,
    /// The tokens that it promotes: W_out\[n\] · W_U.
    pub writes: Ends,
}

impl NeuronTokens {
    /// # Errors
    /// [`Error::Usage`] for a layer or neuron out of range.
    pub fn new(net: &Gpt2, layer: usize, neuron: usize, k: usize) -> Result<Self> {
        Error::check("layer", layer, 0..net.config.n_layer)?;
        Error::check("neuron", neuron, 0..net.config.d_mlp())?;
        let block = &net.blocks[layer];
        let from = vector(&block.c_fc.weight()?.narrow(1, neuron, 1)?)?;
        let to = vector(&block.mlp_proj.weight()?.narrow(0, neuron, 1)?)?;
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        Ok(Self {
            layer,
            neuron,
            bias: vector(&block.c_fc.bias.narrow(0, neuron, 1)?)?[0],
            norms: [norm(&from), norm(&to)],
            reads: Ends::new(&embedding(net)?.times(&from), k),
            writes: Ends::new(&unembedding(net)?.times(&to), k),
        })
    }
}

/// The values of a tensor, in float64.
fn vector(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_share_of_nothing() {
        let nothing = DMatrix::zeros(4, 2);
        let spectrum = Spectrum {
            circuit: Circuit::Ov,
            layer: 0,
            head: 0,
            values: vec![0.0; 2],
            directions: [nothing.clone(), nothing],
        };
        assert_eq!([spectrum.share(0), spectrum.share(1)], [0.0, 0.0]);
        assert_eq!(Spectrum { values: vec![3.0, 0.0], ..spectrum }.share(0), 1.0);
    }

    #[test]
    fn nan_is_at_the_top_whatever_its_sign() {
        let ends = Ends::new(&[1.0, -f64::NAN, 2.0, f64::NAN], 3);
        let ids = |list: &[Scored]| list.iter().map(|scored| scored.id).collect::<Vec<_>>();
        assert_eq!([ids(&ends.top), ids(&ends.bottom)], [[1, 3, 2], [0, 2, 1]]);
    }
}
