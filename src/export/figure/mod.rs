//! A tensor as a picture with labels: one description, drawn as SVG, PNG or text.
//!
//! The picture is the explorer's: the same pooling, ranges and colour maps.
//!
//! ```
//! # use std::sync::Arc;
//! use actscope::analysis::Source;
//! use actscope::colormap::Depth;
//! use actscope::export::figure::{Figure, Options};
//! use actscope::hooks::HookName;
//! use actscope::{Input, Model, Run};
//!
//! let run = Run::all(&Arc::new(Model::demo()), Input::text("The quick brown fox"))?;
//! let hook = HookName::find("pattern.1", run.config())?;
//! let figure = Figure::new(&run, Source::Hook(hook), Some(3), Options::default())?;
//! assert!(figure.to_svg().contains("·quick"));
//! assert!(figure.to_ansi(80, Depth::Mono).contains("·quick"));
//! # Ok::<(), actscope::Error>(())
//! ```

mod ansi;
mod png;
mod svg;

pub(super) use ansi::Pen;
pub(super) use png::text_widths;
pub(super) use svg::escaped;

use crate::analysis::answer::{Answer, DIFFERENCE};
use crate::analysis::chart::{self, Chart};
use crate::analysis::grid::{Grid, Pooling, Window};
use crate::analysis::range::{Range, RangeMode};
use crate::analysis::stats::Stats;
use crate::analysis::{AttnStage, Matrix, Source, View};
use crate::colormap::{Colormap, Depth, Palette, Rgb};
use crate::error::{Error, Result};
use crate::hooks::{Axis, Quantity, Site};
use crate::model::Model;
use crate::run::{Input, Run};
use crate::text::{brief, plain};

/// How a figure is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub palette: Palette,
    /// Light on dark instead of dark on light.
    pub dark: bool,
    /// What suits the quantity, if `None`.
    pub range: Option<RangeMode>,
    pub pooling: Pooling,
}

/// A heatmap with everything that is written around it; of all heads side by side, if a tensor has
/// heads and none was chosen.
#[derive(Debug)]
pub struct Figure {
    /// Name of the tensor, and the head.
    title: String,
    /// Its shape, and the model.
    subtitle: String,
    doc: String,
    formula: String,
    footer: String,
    /// One for each head, or a single one.
    panels: Vec<Matrix>,
    rows: Labels,
    columns: Labels,
    /// Rows and columns count the same: cells are square.
    square: bool,
    /// Keys after their query cannot be read.
    causal: bool,
    /// Words for the cells of the only panel, row by row; empty where their numbers are printed.
    texts: Vec<String>,
    quantity: Quantity,
    /// The same for all panels.
    range: Range,
    stats: Stats,
    options: Options,
}

/// What stands along an axis.
#[derive(Debug)]
struct Labels {
    /// What it counts.
    noun: &'static str,
    /// A label for each index, where the index alone would say little.
    tokens: Option<Vec<String>>,
    /// Whether the index stands beside the label.
    indexed: bool,
}

/// The cells of a panel, and how each is drawn.
struct Painted {
    grid: Grid,
    paints: Vec<Paint>,
    /// What the end of the range stands for in each row.
    limits: Vec<f32>,
}

/// How one cell is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Color(Rgb),
    /// −inf, or a key after its query: hatched.
    Masked,
    /// NaN or +inf: in [`BROKEN`].
    Broken,
}

impl Figure {
    /// The figure of a tensor of `run`, of one head or of all.
    ///
    /// # Errors
    /// [`Error::Usage`] when the run did not keep the tensor, when it has no such head, or none at
    /// all; [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(run: &Run, source: Source, head: Option<usize>, options: Options) -> Result<Self> {
        Self::beside(run, None, source, head, options)
    }

    /// The same without that of another run of the same tokens, if there is one, in signed colours.
    ///
    /// # Errors
    /// As [`Self::new`], for either run.
    pub fn beside(
        run: &Run,
        minus: Option<&Run>,
        source: Source,
        head: Option<usize>,
        options: Options,
    ) -> Result<Self> {
        let minus = minus.filter(|_| !source.is_same());
        let view = View { source, head: head.unwrap_or(0) };
        let (name, doc, formula) = words(source);
        if head.is_some() && !view.has_heads() {
            return Err(Error::usage(format!("{name} has no heads: leave --head out")));
        }
        let heads = match head {
            Some(head) => head..=head,
            None if view.has_heads() => 0..=run.config().n_head - 1,
            None => 0..=0,
        };
        let panel = |head| {
            let matrix = |run: &Run, _: Option<&Matrix>| View { source, head }.matrix(run);
            Ok(Answer::ask(run, minus, matrix)?.shown(Matrix::clone))
        };
        let panels: Vec<_> = heads.map(panel).collect::<Result<_>>()?;
        let all = match &panels[..] {
            [one] => one.clone(),
            many => stacked(many)?,
        };
        let quantity = if minus.is_some() { Quantity::Signed } else { view.quantity() };
        let mode = options.range.unwrap_or_else(|| RangeMode::suited(quantity));
        let (n_rows, n_columns) = view.dims(run);
        let axes = view.axes();
        let shape = match (view.has_heads(), head) {
            (true, None) => format!("({} heads, {n_rows}, {n_columns})", panels.len()),
            _ => format!("({n_rows}, {n_columns})"),
        };
        let model = model_name(&run.model);
        let difference = minus.map_or_else(String::new, |_| format!(", {DIFFERENCE}"));
        Ok(Self {
            title: format!(
                "{}{difference}",
                head.map_or_else(|| name.clone(), |head| format!("{name}, head {head}"))
            ),
            subtitle: format!("{shape} · {model}"),
            doc,
            formula,
            footer: footer(&run.model, Some(&run.input), &model)?,
            panels,
            rows: Labels::new(run, source, axes, axes.0),
            columns: Labels::new(run, source, axes, axes.1),
            square: axes.1 == Axis::Key,
            causal: source.is_causal(),
            texts: Vec::new(),
            quantity,
            range: Range::new(&all, quantity, mode),
            stats: Stats::of_matrix(&all),
            options,
        })
    }

    /// The figure of a chart that was computed from `run`.
    ///
    /// # Errors
    /// [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn of_chart(run: &Run, chart: &Chart, options: Options) -> Result<Self> {
        Self::charted(&run.model, Some(&run.input), chart, options)
    }

    /// The figure of a chart of the weights alone.
    ///
    /// # Errors
    /// As [`Self::of_chart`].
    pub fn of_weights(model: &Model, chart: &Chart, options: Options) -> Result<Self> {
        Self::charted(model, None, chart, options)
    }

    fn charted(model: &Model, input: Option<&Input>, chart: &Chart, options: Options) -> Result<Self> {
        let name = model_name(model);
        Ok(Self {
            title: chart.title.clone(),
            subtitle: format!("({}, {}) · {name}", chart.values.n_rows, chart.values.n_columns),
            doc: chart.doc.clone(),
            formula: chart.formula.clone(),
            footer: footer(model, input, &name)?,
            panels: vec![chart.values.clone()],
            rows: Labels::of_chart(&chart.rows),
            columns: Labels::of_chart(&chart.columns),
            square: false,
            causal: false,
            texts: chart.texts.clone(),
            quantity: chart.quantity,
            range: chart.range(options.range),
            stats: Stats::of_matrix(&chart.values),
            options,
        })
    }

    /// The figure as an SVG document that needs no other file.
    pub fn to_svg(&self) -> String {
        svg::draw(self)
    }

    /// The same as a PNG, two pixels to the unit, in a font that is part of this program.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is too large to be drawn.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let drawn = png::rasterize(&self.to_svg());
        let drawn =
            drawn.map_err(|e| Error::usage(format!("this figure cannot be drawn ({e}): write .svg")))?;
        drawn.ok_or_else(|| Error::usage("this figure is too large for a PNG: write .svg"))
    }

    /// As text for a terminal `width` columns wide: every line ends in a newline and, with colours,
    /// in a reset.
    pub fn to_ansi(&self, width: usize, colors: Depth) -> String {
        ansi::draw(self, width, colors)
    }

    fn colormap(&self) -> &'static Colormap {
        self.options.palette.map(self.quantity, !self.options.dark)
    }

    /// A panel with so many rows and columns to a cell.
    fn painted(&self, panel: usize, per_cell: (usize, usize)) -> Painted {
        let matrix = &self.panels[panel];
        let whole = Window::whole(matrix.n_rows, matrix.n_columns);
        let grid = Grid::new(matrix, &whole, per_cell, self.options.pooling);
        let limits = match self.range.mode {
            RangeMode::Row => row_limits(matrix, per_cell.0),
            _ => vec![self.range.limit; grid.n_rows],
        };
        let paint = |i: usize| {
            let (row, column) = (i / grid.n_columns, i % grid.n_columns);
            let last_query = ((row + 1) * per_cell.0).min(matrix.n_rows) - 1;
            match grid.cells[i] {
                _ if self.causal && column * per_cell.1 > last_query => Paint::Masked,
                f32::NEG_INFINITY => Paint::Masked,
                x if x.is_finite() => Paint::Color(self.colormap().at(self.range.at(x, limits[row]))),
                _ => Paint::Broken,
            }
        };
        let paints = (0..grid.cells.len()).map(paint).collect();
        Painted { grid, paints, limits }
    }

    /// What hatching means, if there is any.
    fn mask_note(&self) -> Option<&'static str> {
        match (self.causal, self.stats.masked) {
            (true, _) if self.panels[0].n_columns > 1 => Some("masked: the future"),
            (_, 0) => None,
            _ => Some("masked (−inf)"),
        }
    }

    /// What the ends (and the middle) of the colour bar say.
    fn bar_labels(&self) -> [String; 3] {
        let [low, high] = self.range.ends().map(number);
        match (self.range.mode, self.quantity) {
            (RangeMode::Row, Quantity::Signed) => {
                ["−row’s largest".into(), "0".into(), "row’s largest".into()]
            }
            (RangeMode::Row, _) => ["0".into(), String::new(), "row’s largest".into()],
            (_, Quantity::Signed) => [low, "0".into(), high],
            (_, Quantity::Rank) => [low, String::new(), high],
            (_, Quantity::Positive | Quantity::Probability) => [low, number(self.range.limit / 2.0), high],
        }
    }

    /// How to read the picture: what the colours stand for, what a cell is, which labels there are.
    fn notes(&self, per_cell: (usize, usize), label_steps: (usize, usize)) -> Vec<String> {
        let mut notes = vec![match (self.range.mode, self.range.beyond) {
            (mode, 0) => mode.name().to_owned(),
            (mode, 1) => format!("{}, 1 value beyond", mode.name()),
            (mode, n) => format!("{}, {n} values beyond", mode.name()),
        }];
        if self.panels.len() > 1 {
            notes.push("one range for all heads".into());
        }
        notes.push(match per_cell {
            (1, 1) => "1 cell = 1 value".into(),
            (rows, columns) => format!("1 cell = {rows} × {columns}, {}", self.options.pooling.name()),
        });
        let every = |step: usize| format!("every {}", ordinal(step));
        let step = |labels: &Labels, step: usize| if labels.tokens.is_some() { step } else { 1 };
        match (step(&self.rows, label_steps.0), step(&self.columns, label_steps.1)) {
            (1, 1) => {}
            (rows, columns) if rows == columns || columns == 1 => {
                notes.push(format!("{} {} named", every(rows), self.rows.word()));
            }
            (rows, columns) => {
                let word = self.rows.word();
                notes.push(format!("{} {word} named down, {} across", every(rows), every(columns)));
            }
        }
        notes
    }

    /// What is printed into a cell of a panel that holds one value.
    fn cell_text(&self, index: usize, value: f32) -> String {
        self.texts.get(index).cloned().unwrap_or_else(|| self.in_cell(value))
    }

    /// A value as it is printed into a cell, with as many decimals as suit the range.
    fn in_cell(&self, value: f32) -> String {
        let limit = self.range.limit;
        if !value.is_finite() || !(0.001..99_999.5).contains(&limit) {
            return number(value);
        }
        let decimals = usize::try_from(2 - limit.log10().floor() as i32).unwrap_or(0);
        let text = format!("{:.decimals$}", value.abs());
        // What is rounded to zero has no sign.
        let sign = if value < 0.0 && text.contains(|c| ('1'..='9').contains(&c)) { "−" } else { "" };
        format!("{sign}{text}")
    }

    /// The statistics as words.
    fn summary(&self) -> Vec<String> {
        let s = &self.stats;
        let mut words = vec![
            format!("min {}", number(s.min)),
            format!("max {}", number(s.max)),
            format!("mean {}", number(s.mean as f32)),
            format!("σ {}", number(s.std as f32)),
        ];
        if s.broken > 0 {
            words.push(format!("{} NaN or inf", s.broken));
        }
        words
    }
}

impl Labels {
    fn new(run: &Run, source: Source, (rows, columns): (Axis, Axis), axis: Axis) -> Self {
        let attention = columns == Axis::Key && rows == Axis::Pos;
        let of_prompt = matches!(axis, Axis::Pos | Axis::Key) && source != Source::Wpe;
        Self {
            noun: if attention && axis == Axis::Pos { "query" } else { axis.noun() },
            tokens: of_prompt.then(|| (0..run.n_tokens()).map(|position| run.token_text(position)).collect()),
            indexed: of_prompt,
        }
    }

    fn of_chart(labels: &chart::Labels) -> Self {
        let tokens = (!labels.names.is_empty()).then(|| labels.names.clone());
        Self { noun: labels.noun, tokens, indexed: false }
    }

    /// What a label names.
    fn word(&self) -> &'static str {
        if self.indexed { "token" } else { self.noun }
    }

    /// Which of `n` indices are labelled, at least `gap` indices apart and at round numbers.
    fn shown(n: usize, gap: usize) -> (usize, impl Iterator<Item = usize>) {
        let step = round_up(gap);
        (step, (0..n).step_by(step))
    }
}

/// 1, 2, 5, 10, 20, 50, …: the first that is not below `n`.
fn round_up(n: usize) -> usize {
    let tens = (0..).map(|e| 10usize.pow(e));
    tens.flat_map(|ten| [ten, 2 * ten, 5 * ten])
        .find(|&step| step >= n)
        .expect("there is always a larger one")
}

/// 2nd, 3rd, 4th, …
fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// The largest finite |x| in every `n` rows.
fn row_limits(matrix: &Matrix, n: usize) -> Vec<f32> {
    matrix.read(|rows| {
        let of_row =
            |row: usize| rows.get(row).iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max);
        let firsts = (0..matrix.n_rows).step_by(n);
        firsts.map(|first| (first..(first + n).min(matrix.n_rows)).map(of_row).fold(0.0, f32::max)).collect()
    })
}

/// Name, description and formula of what is shown.
fn words(source: Source) -> (String, String, String) {
    match source {
        Source::Hook(hook) => (hook.to_string(), hook.point().doc.into(), hook.point().formula.into()),
        Source::Wte => ("wte".into(), "token embedding: a row for each token id".into(), String::new()),
        Source::Wpe => ("wpe".into(), "positional embedding: a row for each position".into(), String::new()),
        Source::Merged(hook) => {
            (hook.to_string(), format!("{}, side by side", hook.point().doc), String::new())
        }
        Source::KeysT(layer) => (
            format!("blocks.{layer}.attn.hook_k, transposed"),
            "keys of a head, transposed".into(),
            "kᵀ".into(),
        ),
        Source::Mask => ("mask".into(), "what is added to scores to hide the future".into(), String::new()),
        Source::Weight(layer, weight) => (
            format!("blocks.{layer}, {}", weight.name()),
            "a weight matrix of the block".into(),
            String::new(),
        ),
        Source::Unembed => ("W_U".into(), "unembedding: a column for each token id".into(), String::new()),
        Source::Stage(layer, AttnStage::Masked) => words(Source::Hook(Site::AttnScores.at(layer))),
        Source::Stage(layer, AttnStage::Pattern) => words(Source::Hook(Site::Pattern.at(layer))),
        Source::Stage(layer, stage) => {
            let formula = if stage == AttnStage::Scaled { "q · kᵀ · scale" } else { "q · kᵀ" };
            let doc = format!(
                "attention scores before {}",
                if stage == AttnStage::Scaled { "the mask" } else { "they are scaled" }
            );
            (format!("blocks.{layer}.attn, {}", stage.name()), doc, formula.into())
        }
    }
}

/// The model's name, however long and whatever it is.
fn model_name(model: &Model) -> String {
    brief(&plain(&model.provenance.model), 60).into_owned()
}

/// What made it, and of which input; of the weights alone, none.
fn footer(model: &Model, input: Option<&Input>, name: &str) -> Result<String> {
    let made_by = &model.provenance;
    let dtype = match made_by.stored_dtype {
        Some(stored) if stored != made_by.dtype => {
            format!("{} → {}", stored.as_str(), made_by.dtype.as_str())
        }
        _ => made_by.dtype.as_str().to_owned(),
    };
    let revision =
        made_by.revision.as_ref().map(|r| format!(" @ {}", shorten(&plain(r), 13))).unwrap_or_default();
    let sha256 = &made_by.weights_sha256()?[..12];
    let bos = input.map_or("", |input| if input.bos { " · with BOS" } else { " · no BOS" });
    let version = env!("CARGO_PKG_VERSION");
    let mut footer = format!(
        "{name}{revision} · weights sha256 {sha256}…{bos} · {dtype} · {} · actscope {version}",
        made_by.device
    );
    if let Some(input) = input.filter(|input| !input.interventions.is_idle()) {
        footer.push_str(&shorten(&format!(" · what if: {}", input.interventions), 160));
    }
    Ok(footer)
}

/// The rows of all matrices, one after the other.
fn stacked(matrices: &[Matrix]) -> Result<Matrix> {
    let mut values = Vec::new();
    for matrix in matrices {
        matrix.read(|rows| (0..matrix.n_rows).for_each(|r| values.extend_from_slice(rows.get(r))));
    }
    Matrix::new(values, matrices.iter().map(|m| m.n_rows).sum(), matrices[0].n_columns)
}

/// Whether black is easier to read on it than white.
fn is_light([r, g, b]: Rgb) -> bool {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b) > 140.0
}

/// Three significant digits, with a proper minus.
fn number(x: f32) -> String {
    let size = x.abs();
    let text = match size {
        _ if !x.is_finite() => {
            return if x.is_nan() {
                "NaN"
            } else if x < 0.0 {
                "−inf"
            } else {
                "inf"
            }
            .into();
        }
        0.0 => return "0".into(),
        _ if !(0.001..99_999.5).contains(&size) => format!("{size:.2e}"),
        _ => {
            let before = size.log10().floor() as i32 + 1;
            format!("{size:.*}", usize::try_from(3 - before).unwrap_or(0))
        }
    };
    let text = match text.split_once('e') {
        Some((digits, exponent)) => format!("{}e{}", trimmed(digits), exponent.replace('-', "−")),
        None => trimmed(&text).to_owned(),
    };
    if x < 0.0 { format!("−{text}") } else { text }
}

/// Without zeros at the end of a fraction.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// At most `n` characters, the last one `…` if some were cut.
fn shorten(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        return text.to_owned();
    }
    text.chars().take(n - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-4.127, "−4.13"),
            (0.061_23, "0.0612"),
            (12.0, "12"),
            (99.96, "100"),
            (3071.4, "3071"),
            (0.000_12, "1.2e−4"),
            (-1e30, "−1e30"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "−inf"),
            (f32::MIN_POSITIVE, "1.18e−38"),
        ] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn ordinals_are_english() {
        assert_eq!(
            [2, 3, 5, 11, 12, 21, 22].map(ordinal),
            ["2nd", "3rd", "5th", "11th", "12th", "21st", "22nd"]
        );
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([0, 1, 2, 3, 6, 11, 21, 51, 101].map(round_up), [1, 1, 2, 5, 10, 20, 50, 100, 200]);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
    }
}
