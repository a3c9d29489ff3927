//! GPT-2 in plain loops, after llm.c's train_gpt2.c, with its layouts and, on request, the usual mistakes.

// One page, as llm.c has it.
#![allow(clippy::too_many_lines, clippy::needless_range_loop)]

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Of which matrix: attn, attn_proj, fc or fc_proj.
    Transposed(&'static str),
    Erf,
    Epsilon(f64),
    NoScale,
    NoMask,
    /// The first token has position 1.
    Shifted,
    /// Heads in reverse.
    Reversed,
    /// Channels dealt to heads in turn.
    Interleaved,
    /// Heads put together as they lie in memory.
    MergedRaw,
    SwappedQk,
    PostNorm,
    /// Every result rounded.
    Half,
}

/// Shape and values.
pub type Array = (Vec<usize>, Vec<f32>);

pub struct Gpt2 {
    weights: BTreeMap<String, Array>,
    pub n_layer: usize,
    pub n_head: usize,
    pub c: usize,
    pub v: usize,
}

impl Gpt2 {
    /// The weights of a safetensors file in float16 or float32.
    pub fn new(file: &[u8], n_head: usize) -> Self {
        let file = SafeTensors::deserialize(file).unwrap();
        let mut weights = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = match view.dtype() {
                Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::F16 => {
                    view.data().as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
                }
                other => panic!("{other:?}"),
            };
            let name = name.strip_prefix("transformer.").unwrap_or(name).to_owned();
            weights.insert(name, (view.shape().to_vec(), values));
        }
        let n_layer =
            (0..1 << 10).take_while(|l| weights.contains_key(&format!("h.{l}.ln_1.weight"))).count();
        let (v, c) = (weights["wte.weight"].0[0], weights["wte.weight"].0[1]);
        Self { weights, n_layer, n_head, c, v }
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.weights[name].1
    }

    /// x · W + b, (T, in) → (T, out); W is (in, out) in memory.
    fn linear(&self, x: &[f64], name: &str, n_out: usize, turned: bool) -> Vec<f64> {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let n_in = w.len() / n_out;
        let mut out = Vec::with_capacity(x.len() / n_in * n_out);
        for row in x.chunks_exact(n_in) {
            for o in 0..n_out {
                let at = |i: usize| if turned { o * n_in + i } else { i * n_out + o };
                let sum: f64 = (0..n_in).map(|i| row[i] * f64::from(w[at(i)])).sum();
                out.push(sum + f64::from(b[o]));
            }
        }
        out
    }

    /// (out, mean, rstd)
    fn layer_norm(&self, x: &[f64], name: &str, eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let (mut out, mut means, mut rstds) = (Vec::new(), Vec::new(), Vec::new());
        for row in x.chunks_exact(self.c) {
            let mean = row.iter().sum::<f64>() / self.c as f64;
            let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / self.c as f64;
            let rstd = 1.0 / (var + eps).sqrt();
            out.extend(
                row.iter().zip(w).zip(b).map(|((x, w), b)| (x - mean) * rstd * f64::from(*w) + f64::from(*b)),
            );
            means.push(mean);
            rstds.push(rstd);
        }
        (out, means, rstds)
    }

    /// Everything by llm.c's names, with the number of the block: `ln1.0` (T, C), `att.0` (H, T, T).
    pub fn forward(&self, tokens: &[u32], fault: Fault) -> BTreeMap<String, Array> {
        let (t, c, h) = (tokens.len(), self.c, self.n_head);
        let d = c / h;
        let eps = if let Fault::Epsilon(eps) = fault { eps } else { 1e-5 };
        let turned = |matrix: &str| {
            fault
                == Fault::Transposed(match matrix {
                    "attn" => "attn",
                    "attn_proj" => "attn_proj",
                    "fc" => "fc",
                    _ => "fc_proj",
                })
        };
        let mut all = BTreeMap::new();
        let mut keep = |name: String, shape: Vec<usize>, values: &mut Vec<f64>| {
            if fault == Fault::Half {
                for x in values.iter_mut() {
                    *x = half::f16::from_f64(*x).to_f64();
                }
            }
            all.insert(name, (shape, values.iter().map(|x| *x as f32).collect::<Vec<f32>>()));
        };
        let first = usize::from(fault == Fault::Shifted);
        let mut x: Vec<f64> = Vec::new();
        for (at, id) in tokens.iter().enumerate() {
            let (wte, wpe) =
                (&self.get("wte.weight")[*id as usize * c..], &self.get("wpe.weight")[(at + first) * c..]);
            x.extend((0..c).map(|i| f64::from(wte[i]) + f64::from(wpe[i])));
        }
        keep("encoded".into(), vec![t, c], &mut x);
        for l in 0..self.n_layer {
            let name = |part: &str| format!("h.{l}.{part}");
            let (mut ln1, mut mean, mut rstd) = self.layer_norm(&x, &name("ln_1"), eps);
            if fault == Fault::PostNorm {
                ln1.clone_from(&x);
            }
            keep(format!("ln1.{l}"), vec![t, c], &mut ln1);
            keep(format!("ln1_mean.{l}"), vec![t], &mut mean);
            keep(format!("ln1_rstd.{l}"), vec![t], &mut rstd);
            let mut qkv = self.linear(&ln1, &name("attn.c_attn"), 3 * c, turned("attn"));
            if fault == Fault::SwappedQk {
                for row in qkv.chunks_exact_mut(3 * c) {
                    let (q, rest) = row.split_at_mut(c);
                    q.swap_with_slice(&mut rest[..c]);
                }
            }
            keep(format!("qkv.{l}"), vec![t, 3 * c], &mut qkv);
            let channel = |head: usize, i: usize| match fault {
                Fault::Reversed => (h - 1 - head) * d + i,
                Fault::Interleaved => i * h + head,
                _ => head * d + i,
            };
            let part = |which: usize, at: usize, head: usize, i: usize| {
                qkv[at * 3 * c + which * c + channel(head, i)]
            };
            for (which, name) in [(0, "q"), (1, "k"), (2, "v")] {
                let mut heads = Vec::new();
                for at in 0..t {
                    for head in 0..h {
                        heads.extend((0..d).map(|i| part(which, at, head, i)));
                    }
                }
                keep(format!("{name}.{l}"), vec![t, h, d], &mut heads);
            }
            let (mut preatt, mut att) = (vec![0.0; h * t * t], vec![0.0; h * t * t]);
            let mut z = vec![0.0; t * c];
            let scale = if fault == Fault::NoScale { 1.0 } else { 1.0 / (d as f64).sqrt() };
            for head in 0..h {
                for query in 0..t {
                    let seen = if fault == Fault::NoMask { t } else { query + 1 };
                    let row = (head * t + query) * t;
                    let mut most = f64::NEG_INFINITY;
                    for key in 0..seen {
                        let dot: f64 = (0..d).map(|i| part(0, query, head, i) * part(1, key, head, i)).sum();
                        preatt[row + key] = dot * scale;
                        most = most.max(dot * scale);
                    }
                    let sum: f64 = (0..seen).map(|key| (preatt[row + key] - most).exp()).sum();
                    for key in 0..seen {
                        att[row + key] = (preatt[row + key] - most).exp() / sum;
                        for i in 0..d {
                            let to = match fault {
                                Fault::MergedRaw => (head * t + query) * d + i,
                                _ => query * c + channel(head, i),
                            };
                            z[to] += att[row + key] * part(2, key, head, i);
                        }
                    }
                }
            }
            keep(format!("preatt.{l}"), vec![h, t, t], &mut preatt);
            keep(format!("att.{l}"), vec![h, t, t], &mut att);
            keep(format!("atty.{l}"), vec![t, c], &mut z);
            let mut attproj = self.linear(&z, &name("attn.c_proj"), c, turned("attn_proj"));
            keep(format!("attproj.{l}"), vec![t, c], &mut attproj);
            let mut mid: Vec<f64> = x.iter().zip(&attproj).map(|(x, a)| x + a).collect();
            if fault == Fault::PostNorm {
                mid = self.layer_norm(&mid, &name("ln_1"), eps).0;
            }
            keep(format!("residual2.{l}"), vec![t, c], &mut mid);
            let (mut ln2, mut mean, mut rstd) = self.layer_norm(&mid, &name("ln_2"), eps);
            if fault == Fault::PostNorm {
                ln2.clone_from(&mid);
            }
            keep(format!("ln2.{l}"), vec![t, c], &mut ln2);
            keep(format!("ln2_mean.{l}"), vec![t], &mut mean);
            keep(format!("ln2_rstd.{l}"), vec![t], &mut rstd);
            let mut fch = self.linear(&ln2, &name("mlp.c_fc"), 4 * c, turned("fc"));
            keep(format!("fch.{l}"), vec![t, 4 * c], &mut fch);
            let gelu = |x: f64| match fault {
                Fault::Erf => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
                _ => {
                    0.5 * x
                        * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
                }
            };
            let mut post: Vec<f64> = fch.iter().map(|x| gelu(*x)).collect();
            keep(format!("fch_gelu.{l}"), vec![t, 4 * c], &mut post);
            let mut fcproj = self.linear(&post, &name("mlp.c_proj"), c, turned("fc_proj"));
            keep(format!("fcproj.{l}"), vec![t, c], &mut fcproj);
            x = mid.iter().zip(&fcproj).map(|(x, m)| x + m).collect();
            if fault == Fault::PostNorm {
                x = self.layer_norm(&x, &name("ln_2"), eps).0;
            }
            keep(format!("residual3.{l}"), vec![t, c], &mut x);
        }
        let (mut lnf, mut mean, mut rstd) = self.layer_norm(&x, "ln_f", eps);
        keep("lnf".into(), vec![t, c], &mut lnf);
        keep("lnf_mean".into(), vec![t], &mut mean);
        keep("lnf_rstd".into(), vec![t], &mut rstd);
        let wte = self.get("wte.weight");
        let mut logits = Vec::new();
        for row in lnf.chunks_exact(c) {
            let dot = |w: &[f32]| row.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
            logits.extend(wte.chunks_exact(c).map(dot));
        }
        keep("logits".into(), vec![t, self.v], &mut logits);
        let mut probs = Vec::new();
        for row in logits.chunks_exact(self.v) {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            probs.extend(row.iter().map(|x| x.exp() / sum));
        }
        keep("probs".into(), vec![t, self.v], &mut probs);
        let next = |at: usize| tokens.get(at + 1).map_or(0.0, |id| -probs[at * self.v + *id as usize].ln());
        let mut losses: Vec<f64> = (0..t).map(next).collect();
        keep("losses".into(), vec![t], &mut losses);
        all
    }

    /// As llm.c has them in memory: all blocks one after the other, with a batch of one.
    pub fn stacked(&self, all: &BTreeMap<String, Array>) -> BTreeMap<String, Array> {
        let mut stacked: BTreeMap<String, Array> = BTreeMap::new();
        for (name, (shape, values)) in
            all.iter().filter(|(name, _)| !["q", "k", "v"].iter().any(|x| name.starts_with(&format!("{x}."))))
        {
            let Some((kind, _)) = name.split_once('.') else {
                stacked.insert(name.clone(), ([&[1], &shape[..]].concat(), values.clone()));
                continue;
            };
            if !stacked.contains_key(kind) {
                let of = |l: usize| all[&format!("{kind}.{l}")].1.clone();
                let values: Vec<f32> = (0..self.n_layer).flat_map(of).collect();
                stacked.insert(kind.to_owned(), ([&[self.n_layer, 1], &shape[..]].concat(), values));
            }
        }
        stacked
    }
}

/// erf by its series near 0, by its continued fraction elsewhere.
fn erf(x: f64) -> f64 {
    if x.abs() > 2.0 {
        let x2 = x.abs();
        let fraction = (1..=60).rev().fold(0.0, |rest, n| f64::from(n) / 2.0 / (x2 + rest));
        return x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x2 + fraction));
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

/// A safetensors file.
pub fn file(all: &BTreeMap<String, Array>) -> Vec<u8> {
    let bytes: BTreeMap<_, Vec<u8>> = all
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let view = |(name, (shape, _)): (&String, &Array)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
    };
    serialize(all.iter().map(view), None).unwrap()
}
