//! A tensor as a picture with labels: one description, drawn as SVG, PNG or text.
//!
//! The picture is the explorer's: the same pooling, ranges and colour maps.
//!
//! ```
//! # use std::sync::Arc;
//! use actscope::analysis::ViewSource;
//! use actscope::picture::colormap::Depth;
//! use actscope::export::figure::{Figure, Options};
//! use actscope::hooks::HookName;
//! use actscope::{Input, Model, Run};
//!
//! let run = Run::all(&Arc::new(Model::demo()), Input::text("The quick brown fox"))?;
//! let hook = HookName::find("pattern.1", run.config())?;
//! let figure = Figure::new(&run, ViewSource::Tensor(hook.into()), Some(3), Options::default())?;
//! assert!(figure.to_svg().contains("·quick"));
//! assert!(figure.to_ansi(80, Depth::Mono).contains("·quick"));
//! # Ok::<(), actscope::Error>(())
//! ```

mod ansi;
pub mod graph;
mod png;
mod svg;

pub(crate) use ansi::Pen;
pub(super) use png::{encode_rgb, text_widths};
pub(crate) use svg::escaped;

use crate::analysis::base::WithBase;
use crate::analysis::{AttnStage, View, ViewSource};
use crate::error::{Error, Result};
use crate::hooks::{Axis, Quantity, Site};
use crate::model::Model;
use crate::picture::chart::{Chart, Labels};
use crate::picture::colormap::{Colormap, Depth, Palette};
use crate::picture::grid::{Grid, Pooling, Window};
use crate::picture::range::{Range, RangeMode};
use crate::picture::stats::Stats;
use crate::picture::{Matrix, Picture};
use crate::run::{Input, Run};
use crate::text::{brief, count, plain, significant, to_scale};

/// How a figure is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub palette: Palette,
    /// Light on dark instead of dark on light.
    pub dark: bool,
    /// `None`: as suits the quantity.
    pub range: Option<RangeMode>,
    pub pooling: Pooling,
}

/// A heatmap with its labels and notes; all heads side by side, if a tensor has
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
    /// One per head, or a single one.
    panels: Vec<Matrix>,
    rows: Labels,
    columns: Labels,
    /// Rows and columns count the same thing: cells are square.
    square: bool,
    /// Whether keys after their query are masked.
    causal: bool,
    /// Words for the cells of the only panel, row by row; empty if their numbers are printed.
    texts: Vec<String>,
    /// The same for all panels.
    range: Range,
    stats: Stats,
    options: Options,
}

impl Figure {
    /// The figure of a tensor of `run`, of one head or of all.
    ///
    /// # Errors
    /// [`Error::Usage`] if the run did not keep the tensor, if it has no such head, or no heads at
    /// all; [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(run: &Run, source: ViewSource, head: Option<usize>, options: Options) -> Result<Self> {
        Self::with_base(run, None, source, head, options)
    }

    /// The same minus the tensor of another run of equal length, if given, in signed colours;
    /// it comes with the name of the difference.
    ///
    /// # Errors
    /// See [`Self::new`], for either run.
    pub fn with_base(
        run: &Run,
        base: Option<(&Run, &str)>,
        source: ViewSource,
        head: Option<usize>,
        options: Options,
    ) -> Result<Self> {
        let base = base.filter(|_| !source.is_same());
        let view = View::of(source, head.unwrap_or(0));
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
            let matrix = |run: &Run, _: Option<&Matrix>| View::of(source, head).matrix(run);
            Ok(WithBase::ask(run, base.map(|(run, _)| run), matrix)?.shown(Matrix::clone))
        };
        let panels: Vec<_> = heads.map(panel).collect::<Result<_>>()?;
        let all = match &panels[..] {
            [one] => one.clone(),
            many => stacked(many)?,
        };
        let quantity = if base.is_some() { Quantity::Signed } else { view.quantity() };
        let mode = options.range.unwrap_or_else(|| RangeMode::suited(quantity));
        let (n_rows, n_columns) = view.dims(run);
        let axes = view.axes();
        let shape = match (view.has_heads(), head) {
            (true, None) => format!("({}, {n_rows}, {n_columns})", count(panels.len(), "head")),
            _ => format!("({n_rows}, {n_columns})"),
        };
        let model = model_name(&run.model);
        let difference = base.map_or_else(String::new, |(_, name)| format!(", {name}"));
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
            rows: labels(run, source, axes, axes.0),
            columns: labels(run, source, axes, axes.1),
            square: axes.1 == Axis::Key,
            causal: source.is_causal(),
            texts: Vec::new(),
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
            rows: chart.rows.clone(),
            columns: chart.columns.clone(),
            square: false,
            causal: false,
            texts: chart.texts.clone(),
            range: chart.range(options.range),
            stats: Stats::of_matrix(&chart.values),
            options,
        })
    }

    /// The figure as a self-contained SVG document.
    pub fn to_svg(&self) -> String {
        svg::draw(self)
    }

    /// The same as a PNG, two pixels per unit, with a built-in font.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is too large to draw.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let drawn = png::rasterize(&self.to_svg());
        let drawn = drawn.map_err(|e| Error::usage(format!("cannot draw this figure ({e}): use .svg")))?;
        drawn.ok_or_else(|| Error::usage("this figure is too large for PNG: use .svg"))
    }

    /// Text for a terminal `width` columns wide: every line ends in a newline and, with colours,
    /// in a reset.
    pub fn to_ansi(&self, width: usize, colors: Depth) -> String {
        ansi::draw(self, width, colors)
    }

    fn colormap(&self) -> &'static Colormap {
        self.options.palette.map(self.range.quantity, !self.options.dark)
    }

    /// A panel with this many rows and columns per cell.
    fn picture(&self, panel: usize, per_cell: (usize, usize)) -> Picture {
        let matrix = &self.panels[panel];
        let whole = Window::whole(matrix.n_rows, matrix.n_columns);
        let grid = Grid::new(matrix, &whole, per_cell, self.options.pooling);
        Picture {
            first_query: self.causal.then_some(0),
            // Cells of several values have no words.
            texts: if per_cell == (1, 1) { self.texts.clone() } else { Vec::new() },
            ..Picture::new(matrix, grid, self.range.clone())
        }
    }

    /// The meaning of hatching, if there is any.
    fn mask_note(&self) -> Option<&'static str> {
        match (self.causal, self.stats.masked) {
            (true, _) if self.panels[0].n_columns > 1 => Some("masked: the future"),
            (_, 0) => None,
            _ => Some("masked (−inf)"),
        }
    }

    /// The labels of the ends (and the middle) of the colour bar.
    fn bar_labels(&self) -> [String; 3] {
        let [low, high] = self.range.ends().map(significant);
        match (self.range.mode, self.range.quantity) {
            (RangeMode::Row, Quantity::Signed) => {
                ["−row’s largest".into(), "0".into(), "row’s largest".into()]
            }
            (RangeMode::Row, _) => ["0".into(), String::new(), "row’s largest".into()],
            (_, Quantity::Signed) => [low, "0".into(), high],
            (_, Quantity::Rank) => [low, String::new(), high],
            (_, Quantity::Positive | Quantity::Probability) => {
                [low, significant(self.range.limit / 2.0), high]
            }
        }
    }

    /// How to read the picture: what the colours mean, what a cell is, which rows and columns are labelled.
    fn notes(&self, per_cell: (usize, usize), label_steps: (usize, usize)) -> Vec<String> {
        let mut notes = vec![match (self.range.mode, self.range.beyond) {
            (mode, 0) => mode.name().to_owned(),
            (mode, n) => format!("{}, {} beyond", mode.name(), count(n, "value")),
        }];
        if self.panels.len() > 1 {
            notes.push("one range for all heads".into());
        }
        notes.push(match per_cell {
            (1, 1) => "1 cell = 1 value".into(),
            (rows, columns) => format!("1 cell = {rows} × {columns}, {}", self.options.pooling.name()),
        });
        let every = |step: usize| format!("every {}", ordinal(step));
        let step = |labels: &Labels, step: usize| if labels.is_named() { step } else { 1 };
        match (step(&self.rows, label_steps.0), step(&self.columns, label_steps.1)) {
            (1, 1) => {}
            (rows, columns) if rows == columns || columns == 1 => {
                notes.push(format!("{} {} named", every(rows), word(&self.rows)));
            }
            (rows, columns) => {
                let word = word(&self.rows);
                notes.push(format!("{} {word} named down, {} across", every(rows), every(columns)));
            }
        }
        notes
    }

    /// The text in a cell of a single value.
    fn cell_text(&self, picture: &Picture, row: usize, column: usize) -> String {
        let value = || picture.grid.cell(row, column).map(|x| to_scale(x, self.range.limit));
        picture.text(row, column).map(str::to_owned).or_else(value).unwrap_or_default()
    }

    /// The statistics as text.
    fn summary(&self) -> Vec<String> {
        let s = &self.stats;
        let mut words = vec![
            format!("min {}", significant(s.min)),
            format!("max {}", significant(s.max)),
            format!("mean {}", significant(s.mean as f32)),
            format!("σ {}", significant(s.std as f32)),
        ];
        if s.broken > 0 {
            words.push(format!("{} NaN or inf", s.broken));
        }
        words
    }
}

/// The labels along an axis of a tensor.
fn labels(run: &Run, source: ViewSource, (rows, columns): (Axis, Axis), axis: Axis) -> Labels {
    let attention = columns == Axis::Key && rows == Axis::Pos;
    let noun = if attention && axis == Axis::Pos { "query" } else { axis.noun() };
    if matches!(axis, Axis::Pos | Axis::Key) && source != ViewSource::Wpe {
        Labels::tokens(noun, (0..run.n_tokens()).map(|position| run.token_text(position)).collect())
    } else {
        Labels::numbered(noun)
    }
}

/// What a label names.
fn word(labels: &Labels) -> &'static str {
    if labels.indexed { "token" } else { labels.noun }
}

/// The indices, of `n`, that are labelled: at round numbers, at least `gap` apart.
fn labelled(n: usize, gap: usize) -> (usize, impl Iterator<Item = usize>) {
    let step = round_up(gap);
    (step, (0..n).step_by(step))
}

/// The first of 1, 2, 5, 10, 20, 50, … that is at least `n`.
fn round_up(n: usize) -> usize {
    let tens = (0..).map(|e| 10usize.pow(e));
    tens.flat_map(|ten| [ten, 2 * ten, 5 * ten]).find(|&step| step >= n).expect("the numbers are unbounded")
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

/// Name, description and formula of what is shown.
fn words(source: ViewSource) -> (String, String, String) {
    match source {
        ViewSource::Tensor(name) => (name.to_string(), name.doc().into(), name.formula().into()),
        ViewSource::Wte => ("wte".into(), "token embedding: a row for each token id".into(), String::new()),
        ViewSource::Wpe => {
            ("wpe".into(), "positional embedding: a row for each position".into(), String::new())
        }
        ViewSource::Merged(hook) => {
            (hook.to_string(), format!("{}, side by side", hook.point().doc), String::new())
        }
        ViewSource::KeysT(layer) => (
            format!("blocks.{layer}.attn.hook_k, transposed"),
            "keys of a head, transposed".into(),
            "kᵀ".into(),
        ),
        ViewSource::Mask => {
            ("mask".into(), "what is added to scores to hide the future".into(), String::new())
        }
        ViewSource::Weight(layer, weight) => (
            format!("blocks.{layer}, {}", weight.name()),
            "a weight matrix of the block".into(),
            String::new(),
        ),
        ViewSource::Unembed => {
            ("W_U".into(), "unembedding: a column for each token id".into(), String::new())
        }
        ViewSource::Stage(layer, AttnStage::Masked) => {
            words(View::hook(Site::AttnScores.at(layer), 0).source)
        }
        ViewSource::Stage(layer, AttnStage::Pattern) => words(View::hook(Site::Pattern.at(layer), 0).source),
        ViewSource::Stage(layer, stage) => {
            let formula = if stage == AttnStage::Scaled { "q · kᵀ · scale" } else { "q · kᵀ" };
            let doc = format!(
                "attention scores before {}",
                if stage == AttnStage::Scaled { "the mask" } else { "they are scaled" }
            );
            (format!("blocks.{layer}.attn, {}", stage.name()), doc, formula.into())
        }
    }
}

/// The model's name, escaped and shortened.
fn model_name(model: &Model) -> String {
    brief(&plain(&model.provenance.name()), 60).into_owned()
}

/// The provenance of a figure: the program, and the input unless it shows only weights.
fn footer(model: &Model, input: Option<&Input>, name: &str) -> Result<String> {
    let made_by = &model.provenance;
    let dtype = made_by.number_format();
    let revision =
        made_by.revision.as_ref().map(|r| format!(" @ {}", shorten(&plain(r), 13))).unwrap_or_default();
    let sha256 = &made_by.weights_sha256()?[..12];
    let bos = input.map_or("", |input| if input.has_bos(model) { " · with BOS" } else { " · no BOS" });
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
        matrix.read(|rows| (0..matrix.n_rows).for_each(|r| values.extend_from_slice(&rows.get(r))));
    }
    Matrix::new(values, matrices.iter().map(|m| m.n_rows).sum(), matrices[0].n_columns)
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
