//! The steps: what each one shows of a run.

use super::checks::{exactly, floats, normalize, tempered, times, worse};
use super::{Draft, LISTED, UNEMBED, quoted};
use crate::analysis::logits::{Next, rank};
use crate::analysis::walk::{Cell, Check, Curve, Line, Table, TableRow, label};
use crate::analysis::{AttnStage, View, ViewSource, Weight};
use crate::error::Result;
use crate::hooks::Site;
use crate::model::{Conv1D, LayerNorm};
use crate::picture::stats::{Stats, largest};
use crate::run::Prompt;
use crate::text::num;
use candle_core::{Device, Tensor};

impl<'a> Draft<'a> {
    pub(super) fn tokens(&mut self) -> Check {
        let (run, tokenizer) = (self.run, &self.run.model.tokenizer);
        let bytes = |id: u32| tokenizer.bytes(id).unwrap_or_default();
        let hex = |id: u32| bytes(id).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        let rows = run.tokens.iter().enumerate().map(|(position, &id)| {
            let mut cells = vec![Cell::Text(run.token_text(position)), Cell::Count(id as usize)];
            cells.extend(tokenizer.is_some().then(|| Cell::Text(hex(id))));
            let (label, index) = (position.to_string(), Some(position));
            TableRow { label, cells, marked: position == self.t, index }
        });
        let heads = ["position", "token", "id", "bytes"];
        let n_heads = if tokenizer.is_some() { 4 } else { 3 };
        let table = Table {
            title: String::new(),
            columns: heads[..n_heads].iter().map(|head| label(head).to_owned()).collect(),
            rows: rows.collect(),
            bar: None,
        };
        self.tables.push(table);
        self.text(label("token"), run.token_text(self.t));
        self.count(label("id"), run.tokens[self.t] as usize);
        self.count(label("position"), self.t);
        if tokenizer.is_some() {
            self.text(label("bytes"), hex(run.tokens[self.t]));
        }
        let wrong = match &run.input.prompt {
            Prompt::Text(text) if tokenizer.is_exact() => {
                let joined: Vec<u8> = run.prompt_tokens().iter().flat_map(|&id| bytes(id)).collect();
                usize::from(joined != text.as_bytes())
            }
            _ => run.tokens.iter().filter(|&&id| id as usize >= self.c.vocab_size).count(),
        };
        exactly(wrong)
    }

    /// A row picked from wte or wpe.
    pub(super) fn lookup(
        &mut self,
        table: View,
        row: usize,
        site: Site,
        name: &str,
        result: &str,
    ) -> Result<Check> {
        let matrix = table.matrix(self.run)?;
        let values = matrix.row(row);
        let neighbours = [row.checked_sub(1), Some(row), Some(row + 1).filter(|&i| i < matrix.n_rows)];
        self.magnifier = neighbours
            .into_iter()
            .flatten()
            .map(|index| {
                let tokenizer = &self.run.model.tokenizer;
                let label = match table.source {
                    ViewSource::Wte if tokenizer.is_some() => {
                        format!("{index} {}", tokenizer.show(index as u32))
                    }
                    ViewSource::Wte => index.to_string(),
                    _ => format!("{} {index}", label("position")),
                };
                Line { index, label, values: matrix.row(index), marked: index == row }
            })
            .collect();
        self.operand(
            name,
            vec![matrix.n_rows, matrix.n_columns],
            Some(table),
            Some(row),
            None,
            values.clone(),
        );
        self.sign("→");
        let kept = self.matrix(result, View::hook(site.once(), 0))?;
        self.length(&format!("{name}[{row}]"), &values);
        Ok(self.compare(&kept, &values, &[]))
    }

    /// a + b = sum.
    pub(super) fn add(&mut self, sites: [Site; 3], names: [&str; 3]) -> Result<Check> {
        let views = sites.map(|site| self.hook(site));
        let a = self.matrix(names[0], views[0])?;
        self.sign("+");
        let b = self.matrix(names[1], views[1])?;
        self.sign("=");
        let sum = self.matrix(names[2], views[2])?;
        let rows: [(&str, &[f32]); 3] = [(names[0], &a), (names[1], &b), (names[2], &sum)];
        for (name, values) in rows {
            self.length(name, values);
        }
        self.beside("channel", "channels", &rows);
        let anew: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        Ok(self.compare(&sum, &anew, &[&a, &b]))
    }

    pub(super) fn encoder(&mut self) -> Result<Check> {
        let [embed, pos_embed, x] = [Site::Embed, Site::PosEmbed, Site::ResidPre].map(|site| self.hook(site));
        self.matrix("wte[ids]", embed)?;
        self.sign("+");
        self.matrix("wpe[0…]", pos_embed)?;
        self.sign("=");
        self.matrix("x", x)?;
        let [embed, pos_embed, x] =
            [embed.matrix(self.run)?, pos_embed.matrix(self.run)?, x.matrix(self.run)?];
        let mut rows = Vec::new();
        let mut worst = exactly(0);
        for position in 0..self.run.n_tokens() {
            let [a, b, sum] = [&embed, &pos_embed, &x].map(|matrix| matrix.row(position));
            let length = Stats::of(&sum).norm as f32;
            let cells = vec![Cell::Text(self.run.token_text(position)), Cell::Number(length)];
            let marked = position == self.t;
            rows.push(TableRow { label: position.to_string(), cells, marked, index: Some(position) });
            let anew: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            worst = worse(worst, self.compare(&sum, &anew, &[&a, &b]));
        }
        let columns = ["position", "token", "length"].map(|head| label(head).to_owned()).to_vec();
        self.tables.push(Table { title: String::new(), columns, rows, bar: None });
        Ok(worst)
    }

    /// Input, normalized, output and scale of a LayerNorm.
    pub(super) fn layer_norm(&mut self, ln: &LayerNorm, sites: [Site; 4], name: &str) -> Result<Check> {
        let [before, normalized, out, scale] = sites.map(|site| self.hook(site));
        let (w, b) = (floats(&ln.weight)?, floats(&ln.bias)?);
        let stream = if sites[0] == Site::ResidMid { "resid_mid" } else { "x" };
        let x = self.matrix(stream, before)?;
        self.sign("→");
        let normal = self.matrix("normalized", normalized)?;
        self.sign("·");
        self.vector("w", w.clone());
        self.sign("+");
        self.vector("b", b.clone());
        self.sign("=");
        let result = self.matrix(name, out)?;
        let divisor = self.row(scale)?[0];
        let stats = Stats::of(&x);
        self.words.set("mean", num(stats.mean as f32));
        self.words.set("scale", num(divisor));
        self.number(label("mean"), stats.mean as f32);
        self.number(label("scale"), divisor);
        self.length(name, &result);
        self.beside(
            "channel",
            "channels",
            &[(stream, &x), ("normalized", &normal), ("w", &w), ("b", &b), (name, &result)],
        );
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let anew_scale = (variance + ln.eps).sqrt();
        let anew = |i: usize| (f64::from(x[i]) - mean) / anew_scale * f64::from(w[i]) + f64::from(b[i]);
        let anew: Vec<f32> = (0..x.len()).map(|i| anew(i) as f32).collect();
        // Taking the mean off leaves the rounding of x itself.
        let size = stats.max.abs().max(stats.min.abs()) / anew_scale as f32;
        let sizes: Vec<f32> = w.iter().zip(&b).map(|(w, b)| (size * w).abs() + b.abs()).collect();
        Ok(self.compare_sums(&result, &anew, &sizes, 1))
    }

    /// x · W + b = y, with the products behind one entry of y.
    pub(super) fn project(&mut self, x: View, weight: Weight, site: Site, names: [&str; 4]) -> Result<Check> {
        let [x_name, w_name, b_name, y_name] = names;
        let y = self.hook(site);
        let column = self.column(y.dims(self.run).1);
        let x = self.matrix(x_name, x)?;
        if weight == Weight::O {
            self.mark_head();
        }
        self.sign("×");
        let (w, bias) = self.weight(w_name, weight, column)?;
        self.sign("+");
        self.vector(b_name, bias.clone());
        self.sign("=");
        let result = self.matrix(y_name, y)?;
        self.mark(column);
        self.length(y_name, &result);
        let entry = format!("{y_name}[{}, {column}]", self.t);
        self.products(&entry, [x_name, w_name], &x, &w, Some(bias[column]));
        self.recompute(&x, weight, 0, &result)
    }

    /// A weight matrix of the block with a column marked; returns the column, and the bias.
    pub(super) fn weight(
        &mut self,
        name: &str,
        weight: Weight,
        column: usize,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let view = View::of(ViewSource::Weight(self.l, weight), 0);
        let matrix = view.matrix(self.run)?;
        let values: Vec<f32> = matrix.read(|rows| (0..matrix.n_rows).map(|i| rows.get(i)[column]).collect());
        let shape = vec![matrix.n_rows, matrix.n_columns];
        self.operand(name, shape, Some(view), None, Some(column), values.clone());
        Ok((values, floats(&self.conv(weight).bias)?))
    }

    pub(super) fn conv(&self, weight: Weight) -> &'a Conv1D {
        let block = &self.run.model.net.blocks[self.l];
        match weight {
            Weight::Qkv => &block.c_attn,
            Weight::O => &block.attn_proj,
            Weight::In => &block.c_fc,
            Weight::Out => &block.mlp_proj,
        }
    }

    pub(super) fn qkv(&mut self) -> Result<Check> {
        let (c, ln1) = (self.c.n_embd, self.hook(Site::Ln1Out));
        let column = self.column(c);
        let x = self.matrix("ln1", ln1)?;
        self.sign("×");
        let (w, bias) = self.weight("W", Weight::Qkv, column)?;
        self.sign("+");
        self.vector("b", bias.clone());
        self.sign("=");
        let mut worst = exactly(0);
        for (i, (site, name)) in [(Site::Q, "q"), (Site::K, "k"), (Site::V, "v")].into_iter().enumerate() {
            let row = self.matrix(name, self.merged(site))?;
            if i == 0 {
                self.mark(column);
            }
            self.length(name, &row);
            worst = worse(worst, self.recompute(&x, Weight::Qkv, i * c, &row)?);
        }
        self.products(&format!("q[{}, {column}]", self.t), ["ln1", "W"], &x, &w, Some(bias[column]));
        Ok(worst)
    }

    /// A tensor that has heads, with its heads side by side.
    pub(super) fn merged(&self, site: Site) -> View {
        View::of(ViewSource::Merged(site.at(self.l)), 0)
    }

    pub(super) fn heads(&mut self) -> Result<Check> {
        self.matrix("q", self.merged(Site::Q))?;
        self.mark_head();
        self.sign("→");
        let mut rows = Vec::new();
        for (site, name) in [(Site::Q, "q_h"), (Site::K, "k_h"), (Site::V, "v_h")] {
            rows.push((name, self.matrix(name, self.hook(site))?));
        }
        for (name, row) in &rows {
            self.length(name, row);
        }
        let table: Vec<(&str, &[f32])> = rows.iter().map(|(name, row)| (*name, &row[..])).collect();
        self.beside("channel", "channels", &table);
        let x = self.row(self.hook(Site::Ln1Out))?;
        self.recompute(&x, Weight::Qkv, self.at.head * self.c.d_head(), &rows[0].1)
    }

    /// The token's row of the scores before they are scaled, and what the run holds of it.
    pub(super) fn score_rows(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((self.row(self.stage(AttnStage::Scores))?, self.row(self.stage(AttnStage::Masked))?))
    }

    pub(super) fn scores(&mut self) -> Result<Check> {
        let (raw, held) = self.score_rows()?;
        let key = self.key();
        let q = self.matrix("q", self.hook(Site::Q))?;
        self.sign("×");
        let k = self.hook(Site::K).matrix(self.run)?.row(key);
        let turned = View::of(ViewSource::KeysT(self.l), self.at.head);
        let shape = vec![self.c.d_head(), self.run.n_tokens()];
        self.operand("kᵀ", shape, Some(turned), None, Some(key), k.clone());
        self.sign("=");
        self.matrix("S", self.stage(AttnStage::Scores))?;
        self.mark(key);
        self.by_key("scores_of", &[("S", &raw)], Some(0))?;
        let entry = format!("S[{}, {key}]", self.t);
        self.products(&entry, ["q", "k"], &q, &k, None);
        self.number(entry, raw[key]);
        self.check_scores(&raw, &held)
    }

    pub(super) fn scale(&mut self) -> Result<Check> {
        let (raw, held) = self.score_rows()?;
        let scale = self.c.attn_scale(self.l) as f32;
        self.matrix("S", self.stage(AttnStage::Scores))?;
        self.mark(self.key());
        self.sign("·");
        self.operand("scale", vec![], None, None, None, vec![scale]);
        self.sign("=");
        let scaled = self.matrix("scaled", self.stage(AttnStage::Scaled))?;
        self.mark(self.key());
        self.by_key("scores_of", &[("S", &raw), ("scaled", &scaled)], Some(1))?;
        self.number(label("scale"), scale);
        self.check_scores(&raw, &held)
    }

    pub(super) fn mask(&mut self) -> Result<Check> {
        let scaled = self.matrix("scaled", self.stage(AttnStage::Scaled))?;
        self.sign("+");
        self.matrix("mask", View::of(ViewSource::Mask, 0))?;
        self.sign("=");
        let masked = self.matrix("masked", self.stage(AttnStage::Masked))?;
        self.by_key("scores_of", &[("scaled", &scaled), ("masked", &masked)], None)?;
        let hidden = |row: &[f32], t: usize| {
            row.iter().enumerate().filter(|(j, s)| (**s == f32::NEG_INFINITY) != (*j > t)).count()
        };
        let held = self.stage(AttnStage::Masked).matrix(self.run)?;
        let wrong = held.read(|rows| (0..held.n_rows).map(|t| hidden(&rows.get(t), t)).sum());
        Ok(exactly(wrong))
    }

    pub(super) fn softmax(&mut self) -> Result<Check> {
        let masked = self.matrix("masked", self.stage(AttnStage::Masked))?;
        self.sign("→");
        let shares = self.matrix("pattern", self.stage(AttnStage::Pattern))?;
        self.mark(self.key());
        self.by_key("reads", &[("masked", &masked), (label("share"), &shares)], Some(1))?;
        let best = largest(&shares, 1).first().map_or(0, |(j, _)| *j);
        self.words.set("best_key", format!("{} ({best})", quoted(self.run, self.run.tokens[best])));
        self.words.set("best_share", num(shares[best]));
        self.number(
            format!("Σ pattern[{}]", self.t),
            shares.iter().map(|p| f64::from(*p)).sum::<f64>() as f32,
        );
        let held = self.stage(AttnStage::Pattern).matrix(self.run)?;
        let sums: Vec<f32> = held.read(|rows| {
            let sum = |t| rows.get(t).iter().map(|p| f64::from(*p)).sum::<f64>() as f32;
            (0..held.n_rows).map(sum).collect()
        });
        let ones = vec![1.0; sums.len()];
        Ok(self.compare_sums(&sums, &ones, &ones, sums.len()))
    }

    pub(super) fn gather(&mut self) -> Result<Check> {
        let shares = self.matrix("pattern", self.stage(AttnStage::Pattern))?;
        self.sign("×");
        let view = self.hook(Site::V);
        let v = view.matrix(self.run)?;
        let column = self.column(v.n_columns);
        let of_column: Vec<f32> = v.read(|rows| (0..v.n_rows).map(|j| rows.get(j)[column]).collect());
        self.operand("v", vec![v.n_rows, v.n_columns], Some(view), None, Some(column), of_column.clone());
        self.sign("=");
        let z = self.matrix("z", self.hook(Site::Z))?;
        self.mark(column);
        let products: Vec<f32> = shares.iter().zip(&of_column).map(|(p, v)| p * v).collect();
        let (v_name, product) = (format!("v[j, {column}]"), label("product"));
        self.by_key(
            "reads",
            &[(label("share"), &shares), (&v_name, &of_column), (product, &products)],
            Some(0),
        )?;
        self.number(format!("z[{}, {column}]", self.t), z[column]);
        self.length("z", &z);
        let (sums, sizes) = times(&shares, &v, 0..v.n_columns);
        let anew: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        let sizes: Vec<f32> = sizes.iter().map(|size| *size as f32).collect();
        Ok(self.compare_sums(&z, &anew, &sizes, shares.len()))
    }

    pub(super) fn activation(&mut self) -> Result<Check> {
        let activation = self.c.activation_function;
        let pre = self.matrix("pre", self.hook(Site::MlpPre))?;
        self.sign("→");
        let post = self.matrix("post", self.hook(Site::MlpPost))?;
        let n_positive = pre.iter().filter(|x| **x > 0.0).count();
        self.words.set("n_positive", n_positive);
        self.count("> 0", n_positive);
        self.beside("neuron", "neurons", &[("pre", &pre), ("post", &post)]);
        let finite = pre.iter().copied().filter(|x| x.is_finite());
        let (low, high) = finite.fold((-4.0f32, 4.0f32), |(low, high), x| (low.min(x), high.max(x)));
        let xs: Vec<f32> = (0..=400).map(|i| low + (high - low) * i as f32 / 400.0).collect();
        let apply = |xs: &[f32]| -> Result<Vec<f32>> {
            floats(&activation.forward(&Tensor::new(xs, &Device::Cpu)?)?)
        };
        let line = xs.iter().copied().zip(apply(&xs)?).collect();
        let points = pre.iter().copied().zip(post.iter().copied()).collect();
        self.curve = Some(Curve { activation, line, points });
        let anew = apply(&pre)?;
        Ok(self.compare(&post, &anew, &[&pre]))
    }

    pub(super) fn logits(&mut self) -> Result<Check> {
        let (t, l) = (self.t, self.c.n_layer - 1);
        let x = self.matrix("out", self.hook(Site::LnFinalOut))?;
        let next = self.likeliest()?;
        let best = next.top.first().map_or(0, |candidate| candidate.id as usize);
        let unembed = UNEMBED.stored(self.run)?; // (V, C)
        let name = if self.c.tie_word_embeddings { "wteᵀ" } else { "W_U" };
        self.sign("×");
        let of_best = unembed.row(best);
        let shape = vec![self.c.n_embd, self.c.vocab_size];
        self.operand(name, shape, Some(UNEMBED), None, Some(best), of_best.clone());
        self.sign("=");
        let logits = self.matrix("logits", self.hook(Site::Logits))?;
        self.mark(best);
        self.candidates(&next, |c| vec![(label("logit"), Cell::Number(c.logit))], Some(1));
        let shown = self.run.model.tokenizer.show(best as u32);
        self.products(&format!("logits[{t}, {shown}]"), ["out", name], &x, &of_best, None);
        let resid = self.row(View::hook(Site::ResidPost.at(l), 0))?;
        let x = normalize(&self.run.model.net.ln_f, &resid)?;
        let dots = unembed.map_rows(|row| {
            let terms = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x);
            terms.fold((0.0, 0.0), |(sum, size): (f64, f64), term| (sum + term, size + term.abs()))
        });
        let anew: Vec<f32> = dots.iter().map(|(sum, _)| *sum as f32).collect();
        let sizes: Vec<f32> = dots.iter().map(|(_, size)| *size as f32).collect();
        Ok(self.compare_sums(&logits, &anew, &sizes, x.len()))
    }

    /// The likeliest tokens; beside another run those whose probability differs most.
    pub(super) fn likeliest(&self) -> Result<Next> {
        Ok(Next::with_base(self.run, self.other, self.t, LISTED)?.of)
    }

    /// The likeliest tokens, with what `cells` says of each.
    pub(super) fn candidates(
        &mut self,
        next: &Next,
        cells: impl Fn(&crate::analysis::logits::Candidate) -> Vec<(&'static str, Cell)>,
        bar: Option<usize>,
    ) {
        let mut columns = vec![String::new(), label("token").to_owned()];
        let mut rows = Vec::new();
        for (i, candidate) in next.top.iter().enumerate() {
            let named = cells(candidate);
            if i == 0 {
                columns.extend(named.iter().map(|(name, _)| (*name).to_owned()));
            }
            let id = candidate.id;
            let text = Cell::Text(self.run.model.tokenizer.show(id));
            let cells = std::iter::once(text).chain(named.into_iter().map(|(_, cell)| cell)).collect();
            let (label, index) = (candidate.rank.to_string(), Some(id as usize));
            rows.push(TableRow { label, cells, marked: i == 0, index });
        }
        let title = self.words.fill(label(if self.other.is_some() { "moved" } else { "candidates" }));
        self.tables.push(Table { title, columns, rows, bar });
    }

    pub(super) fn probs(&mut self) -> Result<Check> {
        let logits = self.matrix("logits", self.hook(Site::Logits))?;
        self.sign("→");
        let kept = self.matrix("p (τ = 1)", self.hook(Site::Probs))?;
        let next = self.likeliest()?;
        let warm = tempered(&logits, self.at.sampling.temperature);
        let of = |c: &crate::analysis::logits::Candidate| {
            vec![(label("logit"), Cell::Number(c.logit)), (label("prob"), Cell::Number(warm[c.id as usize]))]
        };
        self.candidates(&next, of, Some(2));
        self.text("τ", num(self.at.sampling.temperature as f32));
        self.number("Σ p", kept.iter().map(|p| f64::from(*p)).sum::<f64>() as f32);
        let ones = vec![1.0; kept.len()];
        let sum = kept.iter().map(|p| f64::from(*p)).sum::<f64>() as f32;
        let sums = self.compare_sums(&[sum], &[1.0], &[1.0], kept.len());
        Ok(worse(sums, self.compare_sums(&kept, &tempered(&logits, 1.0), &ones, kept.len())))
    }

    pub(super) fn next(&mut self) -> Result<Check> {
        let run = self.run;
        let logits = self.matrix("logits", self.hook(Site::Logits))?;
        self.parts.clear();
        let next = self.likeliest()?;
        let warm = tempered(&logits, self.at.sampling.temperature);
        let of =
            |c: &crate::analysis::logits::Candidate| vec![(label("prob"), Cell::Number(warm[c.id as usize]))];
        self.candidates(&next, of, Some(1));
        let kept = self.row(self.hook(Site::Probs))?;
        if let Some(actual) = next.actual {
            self.words.set("actual", quoted(run, actual.id));
            self.words.set("actual_p", num(actual.prob));
            self.words.set("actual_rank", actual.rank);
            self.words.set("actual_bits", num(-actual.prob.log2()));
            self.text(label("token"), run.model.tokenizer.show(actual.id));
            self.number(label("prob"), actual.prob);
            self.mark_candidate(actual.id);
            return Ok(self.compare_sums(&[kept[actual.id as usize]], &[actual.prob], &[1.0], kept.len()));
        }
        // Logits that are not numbers leave nothing to draw.
        let Ok(id) = self.at.sampling.draw(run) else {
            for name in ["chosen", "chosen_p", "chosen_rank"] {
                self.words.set(name, "?");
            }
            return Ok(exactly(1));
        };
        let p = warm[id as usize];
        let rank = rank(&logits, id as usize);
        self.words.set("chosen", quoted(run, id));
        self.words.set("chosen_p", num(p));
        self.words.set("chosen_rank", rank);
        self.text(label("token"), run.model.tokenizer.show(id));
        self.count(label("id"), id as usize);
        self.number(label("prob"), p);
        if let Some(table) = self.tables.last_mut()
            && !table.rows.iter().any(|row| row.index == Some(id as usize))
        {
            let cells = vec![Cell::Text(run.model.tokenizer.show(id)), Cell::Number(p)];
            table.rows.pop();
            table.rows.push(TableRow {
                label: rank.to_string(),
                cells,
                marked: true,
                index: Some(id as usize),
            });
        }
        self.mark_candidate(id);
        Ok(exactly(usize::from(p <= 0.0)))
    }

    /// Marks the row of a token in the last table.
    pub(super) fn mark_candidate(&mut self, id: u32) {
        for row in self.tables.last_mut().into_iter().flat_map(|table| &mut table.rows) {
            row.marked = row.index == Some(id as usize);
        }
    }
}
