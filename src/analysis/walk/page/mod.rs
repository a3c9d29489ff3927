//! What each step shows, computed from the run.

use candle_core::{DType, Device, Tensor};

use super::words::{Condition, Values, curve, entry};
use super::{At, Cell, Check, Curve, Fact, Kind, Line, Operand, Page, Part, Table, TableRow, label, steps};
use crate::analysis::logits::Next;
use crate::analysis::{AttnStage, Source, View, Weight};
use crate::error::{Error, Result};
use crate::hooks::Site;
use crate::model::{Activation, Config, Conv1D, LayerNorm};
use crate::picture::Matrix;
use crate::picture::stats::{Stats, largest};
use crate::run::{Prompt, Run};
use crate::text::num;

/// Rows of a table that lists the largest of many.
const LISTED: usize = 8;
/// Up to so many tokens all keys are listed, beyond it those that are read most.
const KEYS: usize = 16;

const WTE: View = View { source: Source::Wte, head: 0 };
const WPE: View = View { source: Source::Wpe, head: 0 };
const UNEMBED: View = View { source: Source::Unembed, head: 0 };

impl Page {
    /// What a step shows of `run`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a block, position or head that there is not, or a tensor that the run
    /// did not keep.
    pub fn new(run: &Run, at: At) -> Result<Self> {
        Self::of_pair(run, None, at)
    }

    /// The same; beside another run the lists are whole, or of what the two differ in, so that
    /// theirs can be taken off row by row.
    pub(super) fn of_pair(run: &Run, other: Option<&Run>, at: At) -> Result<Self> {
        let c = run.config();
        for (what, index, n) in [
            ("block", at.step.layer.unwrap_or(0), c.n_layer),
            ("position", at.position, run.n_tokens()),
            ("head", at.head, c.n_head),
        ] {
            if index >= n {
                return Err(Error::usage(format!("there is no {what} {index}: {what}s are 0..={}", n - 1)));
            }
        }
        let mut draft = Draft { other, ..Draft::new(run, at) };
        let check = draft.step()?;
        let words = entry(at.step.kind).for_case(|condition| draft.holds(condition), &draft.words);
        let Draft { parts, magnifier, facts, tables, curve, .. } = draft;
        Ok(Self {
            at,
            index: at.step.index(c),
            n_steps: steps(c).len(),
            name: words.name,
            title: words.title,
            text: words.text,
            formula: words.formula,
            shapes: words.shapes,
            next: words.next,
            keys: words.keys,
            parts,
            magnifier,
            facts,
            tables,
            curve,
            check: Check { claim: words.check, ..check },
        })
    }
}

/// A token within a sentence: `“.”`; an id stands as it is.
fn quoted(run: &Run, id: u32) -> String {
    let text = run.model.tokenizer.show(id);
    if run.model.tokenizer.is_some() { format!("“{text}”") } else { text }
}

/// A page being made.
struct Draft<'a> {
    run: &'a Run,
    /// The other run of a pair.
    other: Option<&'a Run>,
    at: At,
    c: &'a Config,
    /// Position and block, short.
    t: usize,
    l: usize,
    words: Values,
    parts: Vec<Part>,
    magnifier: Vec<Line>,
    facts: Vec<Fact>,
    tables: Vec<Table>,
    curve: Option<Curve>,
}

impl<'a> Draft<'a> {
    fn new(run: &'a Run, at: At) -> Self {
        let (c, n, t, h) = (run.config(), run.n_tokens(), at.position, at.head);
        let l = at.step.layer.unwrap_or(0);
        let many = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
        let (name, formula) = curve(c.activation_function);
        let mut words = Values::default();
        words.set("T", n);
        words.set("T1", n + 1);
        words.set("T_rows", many(n, "row"));
        words.set("T_integers", many(n, "integer"));
        words.set("C", c.n_embd);
        words.set("C3", 3 * c.n_embd);
        words.set("V", c.vocab_size);
        words.set("V_last", c.vocab_size - 1);
        words.set("maxT", c.n_positions);
        words.set("H", c.n_head);
        words.set("H_last", c.n_head - 1);
        words.set("H_heads", many(c.n_head, "head"));
        words.set("L_blocks", many(c.n_layer, "block"));
        words.set("dh", c.d_head());
        words.set("M", c.d_mlp());
        words.set("l", l);
        words.set("l1", l + 1);
        words.set("h", h);
        words.set("h_first", h * c.d_head());
        words.set("h_last", (h + 1) * c.d_head() - 1);
        words.set("t", t);
        words.set("t1_tokens", many(t + 1, "token"));
        words.set("token", quoted(run, run.tokens[t]));
        words.set("id", run.tokens[t]);
        words.set("eps", format!("{:e}", c.layer_norm_epsilon));
        words.set("attn_scale", num(c.attn_scale(l) as f32));
        words.set("divisor", num(c.attn_scale(l).recip() as f32));
        words.set("act", name);
        words.set("act_formula", formula);
        words.set("tau", num(at.sampling.temperature as f32));
        Self {
            run,
            other: None,
            at,
            c,
            t,
            l,
            words,
            parts: Vec::new(),
            magnifier: Vec::new(),
            facts: Vec::new(),
            tables: Vec::new(),
            curve: None,
        }
    }

    fn holds(&self, condition: Condition) -> bool {
        let c = self.c;
        let (scaled, inverse) = (c.scale_attn_weights, c.scale_attn_by_inverse_layer_idx);
        let act = c.activation_function;
        match condition {
            Condition::Ids => !self.run.model.tokenizer.is_some(),
            Condition::Bos => self.run.input.bos,
            Condition::BosIds => self.run.input.bos && !self.run.model.tokenizer.is_some(),
            Condition::Appended => matches!(self.run.input.prompt, Prompt::Ids(_)),
            Condition::First => self.t == 0,
            Condition::Later => self.l > 0,
            Condition::LastBlock => self.l + 1 == c.n_layer,
            Condition::OneHead => c.n_head == 1,
            Condition::Unscaled => !scaled && !inverse,
            Condition::Inverse => scaled && inverse,
            Condition::InverseUnscaled => !scaled && inverse,
            Condition::Untied => !c.tie_word_embeddings,
            Condition::OtherCurve => !matches!(
                act,
                Activation::GeluNew
                    | Activation::Gelu
                    | Activation::QuickGelu
                    | Activation::Silu
                    | Activation::Mish
            ),
            Condition::Linear => act == Activation::Linear,
            Condition::Greedy => self.at.sampling.temperature <= 0.0,
            Condition::Inside => self.t + 1 < self.run.n_tokens(),
            Condition::Full => self.run.n_tokens() == c.n_positions,
        }
    }

    /// The step itself: fills the page, and checks its numbers.
    fn step(&mut self) -> Result<Check> {
        let l = self.l;
        match self.at.step.kind {
            Kind::Tokens => Ok(self.tokens()),
            Kind::Wte => self.lookup(WTE, self.run.tokens[self.t] as usize, Site::Embed, "wte", "embed"),
            Kind::Wpe => self.lookup(WPE, self.t, Site::PosEmbed, "wpe", "pos_embed"),
            Kind::Sum => self.add([Site::Embed, Site::PosEmbed, Site::ResidPre], ["wte[id]", "wpe[t]", "x"]),
            Kind::Encoder => self.encoder(),
            Kind::Ln1 => {
                let ln = &self.run.model.net.blocks[l].ln_1;
                self.layer_norm(
                    ln,
                    [Site::ResidPre, Site::Ln1Normalized, Site::Ln1Out, Site::Ln1Scale],
                    "ln1",
                )
            }
            Kind::Qkv => self.qkv(),
            Kind::Heads => self.heads(),
            Kind::Scores => self.scores(),
            Kind::Scale => self.scale(),
            Kind::Mask => self.mask(),
            Kind::Softmax => self.softmax(),
            Kind::Z => self.gather(),
            Kind::AttnOut => {
                let z = View { source: Source::Merged(Site::Z.at(l)), head: 0 };
                self.project(z, Weight::O, Site::AttnOut, ["z", "W_O", "b_O", "attn_out"])
            }
            Kind::ResidMid => {
                self.add([Site::ResidPre, Site::AttnOut, Site::ResidMid], ["x", "attn_out", "resid_mid"])
            }
            Kind::Ln2 => {
                let ln = &self.run.model.net.blocks[l].ln_2;
                self.layer_norm(
                    ln,
                    [Site::ResidMid, Site::Ln2Normalized, Site::Ln2Out, Site::Ln2Scale],
                    "ln2",
                )
            }
            Kind::MlpPre => {
                let x = self.hook(Site::Ln2Out);
                self.project(x, Weight::In, Site::MlpPre, ["ln2", "W_in", "b_in", "pre"])
            }
            Kind::MlpPost => self.activation(),
            Kind::MlpOut => {
                let x = self.hook(Site::MlpPost);
                self.project(x, Weight::Out, Site::MlpOut, ["post", "W_out", "b_out", "mlp_out"])
            }
            Kind::ResidPost => self
                .add([Site::ResidMid, Site::MlpOut, Site::ResidPost], ["resid_mid", "mlp_out", "resid_post"]),
            Kind::LnFinal => {
                self.l = self.c.n_layer - 1;
                let ln = &self.run.model.net.ln_f;
                let sites = [Site::ResidPost, Site::LnFinalNormalized, Site::LnFinalOut, Site::LnFinalScale];
                self.layer_norm(ln, sites, "out")
            }
            Kind::Logits => self.logits(),
            Kind::Probs => self.probs(),
            Kind::Next => self.next(),
        }
    }

    // Pieces of pages.

    /// The tensor of a site in this block, in this head.
    fn hook(&self, site: Site) -> View {
        View::hook(site.near(self.l), self.at.head)
    }

    fn stage(&self, stage: AttnStage) -> View {
        View { source: Source::Stage(self.l, stage), head: self.at.head }
    }

    /// The token's row of a matrix.
    fn row(&self, view: View) -> Result<Vec<f32>> {
        // A product of one row alone rounds by where it lies in memory: what is taken off another
        // run's is made as theirs is, with all rows.
        if self.other.is_some() && matches!(view.source, Source::Stage(..)) {
            return Ok(view.matrix(self.run)?.row(self.t));
        }
        Ok(view.rows(self.run, self.t..self.t + 1)?.row(0))
    }

    fn sign(&mut self, sign: &'static str) {
        self.parts.push(Part::Sign(sign));
    }

    /// A matrix with the token's row marked; returns the row.
    fn matrix(&mut self, name: &str, view: View) -> Result<Vec<f32>> {
        let values = self.row(view)?;
        let (n, width) = view.dims(self.run);
        self.operand(name, vec![n, width], Some(view), Some(self.t), None, values.clone());
        Ok(values)
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) {
        self.operand(name, vec![values.len()], None, None, None, values);
    }

    fn operand(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        view: Option<View>,
        row: Option<usize>,
        column: Option<usize>,
        values: Vec<f32>,
    ) {
        let name = name.to_owned();
        self.parts.push(Part::Operand(Operand { name, shape, view, row, column, band: None, values }));
    }

    /// Marks a column of the operand that was added last.
    fn mark(&mut self, column: usize) {
        if let Some(Part::Operand(operand)) = self.parts.last_mut() {
            operand.column = Some(column);
        }
    }

    /// Marks the head's columns of the operand that was added last.
    fn mark_head(&mut self) {
        let width = self.c.d_head();
        if let Some(Part::Operand(operand)) = self.parts.last_mut() {
            operand.band = Some((self.at.head * width, (self.at.head + 1) * width));
        }
    }

    fn number(&mut self, name: impl Into<String>, value: f32) {
        self.facts.push(Fact { name: name.into(), value: Cell::Number(value) });
    }

    fn count(&mut self, name: impl Into<String>, value: usize) {
        self.facts.push(Fact { name: name.into(), value: Cell::Count(value) });
    }

    fn text(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.facts.push(Fact { name: name.into(), value: Cell::Text(value.into()) });
    }

    fn length(&mut self, of: &str, values: &[f32]) {
        self.number(format!("‖{of}‖"), Stats::of(values).norm as f32);
    }

    /// The selected column of a result, or its last.
    fn column(&self, width: usize) -> usize {
        self.at.column.min(width.saturating_sub(1))
    }

    fn name_of(&self, position: usize) -> String {
        format!("{position} {}", self.run.token_text(position))
    }

    /// How many of `n` rows a table lists; beside another run all, until it is known what differs.
    fn listed(&self, n: usize) -> usize {
        if self.other.is_some() { n } else { LISTED }
    }

    /// Some columns of rows beside each other: the selected one, then those where the last row is
    /// largest.
    fn beside(&mut self, noun: &'static str, title: &'static str, rows: &[(&str, &[f32])]) {
        let Some((_, result)) = rows.last() else { return };
        let selected = self.column(result.len());
        let n = self.listed(result.len());
        let others = largest(result, n).into_iter().map(|(i, _)| i).filter(|&i| i != selected);
        let line = |i: usize| TableRow {
            label: format!("{} {i}", label(noun)),
            cells: rows.iter().map(|(_, values)| Cell::Number(values[i])).collect(),
            marked: i == selected,
            index: Some(i),
        };
        let rows_of = std::iter::once(selected).chain(others).take(n).map(line).collect();
        let names = rows.iter().map(|(name, _)| (*name).to_owned());
        let columns = std::iter::once(label(noun).to_owned()).chain(names).collect();
        let title = self.words.fill(label(title));
        self.tables.push(Table { title, columns, rows: rows_of, bar: None });
    }

    /// How `result` comes about as Σ a·b + bias: its largest products.
    fn products(&mut self, result: &str, names: [&str; 2], a: &[f32], b: &[f32], bias: Option<f32>) {
        let noun = if names[0] == "post" { "neuron" } else { "channel" };
        let products: Vec<f32> = a.iter().zip(b).map(|(a, b)| a * b).collect();
        let listed = largest(&products, self.listed(products.len()));
        let cell = Cell::Number;
        let mut rows: Vec<_> = listed
            .iter()
            .map(|&(i, product)| TableRow {
                label: i.to_string(),
                cells: vec![cell(a[i]), cell(b[i]), cell(product)],
                marked: false,
                index: Some(i),
            })
            .collect();
        let sum = |values: &mut dyn Iterator<Item = f32>| values.map(f64::from).sum::<f64>();
        let shown = sum(&mut listed.iter().map(|(_, product)| *product));
        let all = sum(&mut products.iter().copied());
        let blank = || Cell::Text(String::new());
        let mut last = |name: String, value: f64, marked: bool| {
            let cells = vec![blank(), blank(), cell(value as f32)];
            rows.push(TableRow { label: name, cells, marked, index: None });
        };
        if products.len() > listed.len() {
            last(format!("{} {}", products.len() - listed.len(), label("rest")), all - shown, false);
        }
        if let Some(bias) = bias {
            last(label("bias").into(), f64::from(bias), false);
        }
        last(label("total").into(), all + f64::from(bias.unwrap_or(0.0)), true);
        let mut words = Values::default();
        words.set("result", result);
        let columns = [label(noun), names[0], names[1], label("product")].map(str::to_owned).to_vec();
        let title = words.fill(label("largest_products"));
        self.tables.push(Table { title, columns, rows, bar: Some(2) });
    }

    /// The keys that tables list: those that may be read, or of many those that are read most, and
    /// the first that may not; in order.
    fn keys(&self) -> Result<Vec<usize>> {
        let future = (self.t + 1).min(self.run.n_tokens() - 1);
        if future < KEYS {
            return Ok((0..=future).collect());
        }
        let view = self.stage(AttnStage::Pattern);
        let mut pattern = self.row(view)?;
        if let Some(other) = self.other {
            let other = view.matrix(other)?.row(self.t);
            pattern.iter_mut().zip(other).for_each(|(of, other)| *of = (*of - other).abs());
        }
        let read = largest(&pattern, KEYS - 2).into_iter().map(|(j, _)| j).filter(|&j| j <= self.t);
        let mut keys: Vec<_> = read.chain([self.key(), future]).collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// The key whose score is taken apart: the selected one, as far as it may be read.
    fn key(&self) -> usize {
        self.at.key.min(self.t)
    }

    /// What each key has, beside each other.
    fn by_key(&mut self, title: &'static str, columns: &[(&str, &[f32])], bar: Option<usize>) -> Result<()> {
        let selected = self.key();
        let line = |j: usize| TableRow {
            label: self.name_of(j),
            cells: columns.iter().map(|(_, values)| Cell::Number(values[j])).collect(),
            marked: j == selected,
            index: Some(j),
        };
        let rows = self.keys()?.into_iter().map(line).collect();
        let names = columns.iter().map(|(name, _)| (*name).to_owned());
        let columns = std::iter::once(label("key").to_owned()).chain(names).collect();
        let title = self.words.fill(label(title));
        self.tables.push(Table { title, columns, rows, bar });
        Ok(())
    }

    // The steps.

    fn tokens(&mut self) -> Check {
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
            Prompt::Text(text) if tokenizer.is_some() => {
                let without_bos = run.tokens.iter().skip(usize::from(run.input.bos));
                let joined: Vec<u8> = without_bos.flat_map(|&id| bytes(id)).collect();
                usize::from(joined != text.as_bytes())
            }
            _ => run.tokens.iter().filter(|&&id| id as usize >= self.c.vocab_size).count(),
        };
        exactly(wrong)
    }

    /// A row picked from wte or wpe.
    fn lookup(&mut self, table: View, row: usize, site: Site, name: &str, result: &str) -> Result<Check> {
        let matrix = table.matrix(self.run)?;
        let values = matrix.row(row);
        let neighbours = [row.checked_sub(1), Some(row), Some(row + 1).filter(|&i| i < matrix.n_rows)];
        self.magnifier = neighbours
            .into_iter()
            .flatten()
            .map(|index| {
                let tokenizer = &self.run.model.tokenizer;
                let label = match table.source {
                    Source::Wte if tokenizer.is_some() => format!("{index} {}", tokenizer.show(index as u32)),
                    Source::Wte => index.to_string(),
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
    fn add(&mut self, sites: [Site; 3], names: [&str; 3]) -> Result<Check> {
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

    fn encoder(&mut self) -> Result<Check> {
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
    fn layer_norm(&mut self, ln: &LayerNorm, sites: [Site; 4], name: &str) -> Result<Check> {
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
    fn project(&mut self, x: View, weight: Weight, site: Site, names: [&str; 4]) -> Result<Check> {
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
    fn weight(&mut self, name: &str, weight: Weight, column: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let view = View { source: Source::Weight(self.l, weight), head: 0 };
        let matrix = view.matrix(self.run)?;
        let values: Vec<f32> = matrix.read(|rows| (0..matrix.n_rows).map(|i| rows.get(i)[column]).collect());
        let shape = vec![matrix.n_rows, matrix.n_columns];
        self.operand(name, shape, Some(view), None, Some(column), values.clone());
        Ok((values, floats(&self.conv(weight).bias)?))
    }

    fn conv(&self, weight: Weight) -> &'a Conv1D {
        let block = &self.run.model.net.blocks[self.l];
        match weight {
            Weight::Qkv => &block.c_attn,
            Weight::O => &block.attn_proj,
            Weight::In => &block.c_fc,
            Weight::Out => &block.mlp_proj,
        }
    }

    /// x · W + b once more, from column `first` on, against what the run holds.
    fn recompute(&self, x: &[f32], weight: Weight, first: usize, result: &[f32]) -> Result<Check> {
        let view = View { source: Source::Weight(self.l, weight), head: 0 };
        let bias = floats(&self.conv(weight).bias)?;
        let columns = first..first + result.len();
        let (sums, sizes) = times(x, &view.matrix(self.run)?, columns.clone());
        let bias = &bias[columns];
        let anew: Vec<f32> = sums.iter().zip(bias).map(|(sum, b)| (sum + f64::from(*b)) as f32).collect();
        let sizes: Vec<f32> = sizes.iter().zip(bias).map(|(size, b)| *size as f32 + b.abs()).collect();
        Ok(self.compare_sums(result, &anew, &sizes, x.len()))
    }

    fn qkv(&mut self) -> Result<Check> {
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
    fn merged(&self, site: Site) -> View {
        View { source: Source::Merged(site.at(self.l)), head: 0 }
    }

    fn heads(&mut self) -> Result<Check> {
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
    fn score_rows(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((self.row(self.stage(AttnStage::Scores))?, self.row(self.stage(AttnStage::Masked))?))
    }

    /// Whether the scores, scaled, are what the run holds.
    fn check_scores(&self, raw: &[f32], held: &[f32]) -> Result<Check> {
        let scale = self.c.attn_scale(self.l);
        let seen = self.t + 1;
        let anew: Vec<f32> = raw[..seen].iter().map(|s| (f64::from(*s) * scale) as f32).collect();
        let q = self.row(self.hook(Site::Q))?;
        let k = self.hook(Site::K).matrix(self.run)?;
        let size = |j: usize| q.iter().zip(&k.row(j)).map(|(q, k)| (q * k).abs()).sum::<f32>() * scale as f32;
        let sizes: Vec<f32> = (0..seen).map(size).collect();
        Ok(self.compare_sums(&held[..seen], &anew, &sizes, q.len()))
    }

    fn scores(&mut self) -> Result<Check> {
        let (raw, held) = self.score_rows()?;
        let key = self.key();
        let q = self.matrix("q", self.hook(Site::Q))?;
        self.sign("×");
        let k = self.hook(Site::K).matrix(self.run)?.row(key);
        let turned = View { source: Source::KeysT(self.l), head: self.at.head };
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

    fn scale(&mut self) -> Result<Check> {
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

    fn mask(&mut self) -> Result<Check> {
        let scaled = self.matrix("scaled", self.stage(AttnStage::Scaled))?;
        self.sign("+");
        self.matrix("mask", View { source: Source::Mask, head: 0 })?;
        self.sign("=");
        let masked = self.matrix("masked", self.stage(AttnStage::Masked))?;
        self.by_key("scores_of", &[("scaled", &scaled), ("masked", &masked)], None)?;
        let hidden = |row: &[f32], t: usize| {
            row.iter().enumerate().filter(|(j, s)| (**s == f32::NEG_INFINITY) != (*j > t)).count()
        };
        let held = self.stage(AttnStage::Masked).matrix(self.run)?;
        let wrong = held.read(|rows| (0..held.n_rows).map(|t| hidden(rows.get(t), t)).sum());
        Ok(exactly(wrong))
    }

    fn softmax(&mut self) -> Result<Check> {
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

    fn gather(&mut self) -> Result<Check> {
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

    fn activation(&mut self) -> Result<Check> {
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

    fn logits(&mut self) -> Result<Check> {
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
        let dots = unembed.read(|rows| {
            let dot = |v: usize| {
                let terms = rows.get(v).iter().zip(&x).map(|(w, x)| f64::from(*w) * x);
                terms.fold((0.0, 0.0), |(sum, size): (f64, f64), term| (sum + term, size + term.abs()))
            };
            (0..unembed.n_rows).map(dot).collect::<Vec<_>>()
        });
        let anew: Vec<f32> = dots.iter().map(|(sum, _)| *sum as f32).collect();
        let sizes: Vec<f32> = dots.iter().map(|(_, size)| *size as f32).collect();
        Ok(self.compare_sums(&logits, &anew, &sizes, x.len()))
    }

    /// The likeliest tokens; beside another run those whose probability differs most.
    fn likeliest(&self) -> Result<Next> {
        Ok(Next::beside(self.run, self.other, self.t, LISTED)?.of)
    }

    /// The likeliest tokens, with what `cells` says of each.
    fn candidates(
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

    fn probs(&mut self) -> Result<Check> {
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

    fn next(&mut self) -> Result<Check> {
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
        let rank = 1 + logits.iter().filter(|&&x| x > logits[id as usize]).count();
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
    fn mark_candidate(&mut self, id: u32) {
        for row in self.tables.last_mut().into_iter().flat_map(|table| &mut table.rows) {
            row.marked = row.index == Some(id as usize);
        }
    }

    // Checks.

    /// How finely the network's numbers are rounded.
    fn epsilon(&self) -> f32 {
        match self.run.model.net.dtype() {
            DType::F16 => 9.8e-4,
            DType::BF16 => 7.8e-3,
            _ => f32::EPSILON,
        }
    }

    /// What the run holds against the same computed anew in one operation on `from`.
    fn compare(&self, held: &[f32], anew: &[f32], from: &[&[f32]]) -> Check {
        let size = |i: usize| from.iter().map(|values| values[i].abs()).fold(anew[i].abs(), f32::max);
        let sizes: Vec<f32> = (0..anew.len()).map(size).collect();
        self.compare_sums(held, anew, &sizes, 1)
    }

    /// What the run holds against the same computed anew as sums of `n_terms` terms whose sizes add
    /// up to `sizes`: rounding grows with the root of their number.
    fn compare_sums(&self, held: &[f32], anew: &[f32], sizes: &[f32], n_terms: usize) -> Check {
        const UNITS: f32 = 4.0;
        let allowed = UNITS * self.epsilon() * (n_terms as f32).sqrt();
        let worst = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
        let apart = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() };
        Check {
            claim: String::new(),
            difference: held.iter().zip(anew).map(apart).fold(0.0, worst),
            largest: anew.iter().map(|x| x.abs()).fold(0.0, worst),
            allowed: allowed * sizes.iter().copied().fold(0.0, f32::max),
        }
    }
}

/// A check that allows no difference, and how many there are.
fn exactly(wrong: usize) -> Check {
    Check { claim: String::new(), difference: wrong as f32, largest: 0.0, allowed: 0.0 }
}

/// The check that holds less.
fn worse(a: Check, b: Check) -> Check {
    let rank = |check: &Check| (!check.holds(), check.difference.is_nan());
    let b_is = match rank(&b).cmp(&rank(&a)) {
        std::cmp::Ordering::Equal => b.difference - b.allowed > a.difference - a.allowed || a.largest == 0.0,
        order => order.is_gt(),
    };
    if b_is { b } else { a }
}

/// x · W for some columns of W, and Σ |x·w| of each, in float64.
fn times(x: &[f32], w: &Matrix, columns: std::ops::Range<usize>) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut sizes) = (vec![0.0; columns.len()], vec![0.0; columns.len()]);
    w.read(|rows| {
        for (i, &x) in x.iter().enumerate() {
            let row = &rows.get(i)[columns.clone()];
            for ((sum, size), &w) in sums.iter_mut().zip(&mut sizes).zip(row) {
                let product = f64::from(x) * f64::from(w);
                *sum += product;
                *size += f64::abs(product);
            }
        }
    });
    (sums, sizes)
}

/// LayerNorm of one row, in float64.
fn normalize(ln: &LayerNorm, x: &[f32]) -> Result<Vec<f64>> {
    let (w, b) = (floats(&ln.weight)?, floats(&ln.bias)?);
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let scale = (x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n + ln.eps).sqrt();
    let affine = w.iter().zip(&b);
    Ok(x.iter()
        .zip(affine)
        .map(|(&x, (&w, &b))| (f64::from(x) - mean) / scale * f64::from(w) + f64::from(b))
        .collect())
}

/// softmax(logits / temperature) in float64; at 0 the largest logit gets all.
fn tempered(logits: &[f32], temperature: f64) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if temperature <= 0.0 {
        let first = logits.iter().position(|x| *x == max);
        return (0..logits.len()).map(|i| if Some(i) == first { 1.0 } else { 0.0 }).collect();
    }
    let powers: Vec<f64> = logits.iter().map(|&x| (f64::from(x - max) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// A vector of the model as float32.
fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec1()?)
}
