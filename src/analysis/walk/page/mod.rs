//! What each step shows, computed from the run.

mod checks;
mod steps;

use super::words::{Condition, Values, curve, entry};
use super::{At, Cell, Check, Curve, Fact, Kind, Line, Operand, Page, Piece, Table, TableRow, label, steps};
use crate::analysis::{AttnStage, View, ViewSource, Weight};
use crate::error::{Error, Result};
use crate::hooks::Site;
use crate::model::{Activation, Config};
use crate::picture::stats::{Stats, largest};
use crate::run::{Prompt, Run};
use crate::text::num;

/// Rows of a table that lists the largest of many.
const LISTED: usize = 8;
/// Up to so many tokens all keys are listed, beyond it those that are read most.
const KEYS: usize = 16;

const WTE: View = View::of(ViewSource::Wte, 0);
const WPE: View = View::of(ViewSource::Wpe, 0);
const UNEMBED: View = View::of(ViewSource::Unembed, 0);

impl Page {
    /// What a step shows of `run`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a block, position or head that there is not, or a tensor that the run
    /// did not keep.
    pub fn new(run: &Run, at: At) -> Result<Self> {
        Self::of_pair(run, None, at)
    }

    /// Page of one run of a pair: its lists are whole, or of what the two differ in, so that
    /// theirs can be subtracted row by row.
    pub(super) fn of_pair(run: &Run, other: Option<&Run>, at: At) -> Result<Self> {
        let c = run.config();
        for (what, index, n) in [
            ("block", at.step.layer.unwrap_or(0), c.n_layer),
            ("position", at.position, run.n_tokens()),
            ("head", at.head, c.n_head),
        ] {
            Error::check(what, index, 0..n)?;
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
    parts: Vec<Piece>,
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
            Condition::Bos => self.run.input.has_bos(&self.run.model),
            Condition::BosIds => self.run.input.bos && !self.run.model.tokenizer.is_some(),
            Condition::Inexact => self.run.model.tokenizer.is_some() && !self.run.model.tokenizer.is_exact(),
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
                let z = View::of(ViewSource::Merged(Site::Z.at(l)), 0);
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
        View::of(ViewSource::Stage(self.l, stage), self.at.head)
    }

    /// The token's row of a matrix.
    fn row(&self, view: View) -> Result<Vec<f32>> {
        // A product of one row alone rounds by where it lies in memory: what is taken off another
        // run's is made as theirs is, with all rows.
        if self.other.is_some() && matches!(view.source, ViewSource::Stage(..)) {
            return Ok(view.matrix(self.run)?.row(self.t));
        }
        Ok(view.rows(self.run, self.t..self.t + 1)?.row(0))
    }

    fn sign(&mut self, sign: &'static str) {
        self.parts.push(Piece::Sign(sign));
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
        self.parts.push(Piece::Operand(Operand { name, shape, view, row, column, band: None, values }));
    }

    /// Marks a column of the operand that was added last.
    fn mark(&mut self, column: usize) {
        if let Some(Piece::Operand(operand)) = self.parts.last_mut() {
            operand.column = Some(column);
        }
    }

    /// Marks the head's columns of the operand that was added last.
    fn mark_head(&mut self) {
        let width = self.c.d_head();
        if let Some(Piece::Operand(operand)) = self.parts.last_mut() {
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
}
