//! The walk of one token through the network as a note: Markdown with a figure for each step, one
//! page of HTML, or text.
//!
//! ```
//! # use std::sync::Arc;
//! use actscope::export::walk::{Focus, Walk};
//! use actscope::{Input, Model};
//!
//! let place = Focus { layer: 1, head: 5, ..Focus::default() };
//! let walk = Walk::new(&Arc::new(Model::demo()), Input::text("The quick brown fox"), place)?;
//! let files = walk.to_files()?; // two figures for each step, light and dark, and walk.md
//! assert_eq!(files.len(), 2 * walk.pages().len() + 1);
//! assert!(walk.to_html()?.contains("<svg"));
//! # Ok::<(), actscope::Error>(())
//! ```

mod canvas;
mod figure;
mod html;
mod markdown;
mod terminal;
mod tile;

use std::ops::Range;
use std::sync::Arc;

use figure::Figure;

use super::Manifest;
use crate::analysis::View;
use crate::analysis::logits::Sampling;
use crate::analysis::walk::{At, Cell, Check, Kind, Operand, Page, Piece, Table, label, phrase, steps};
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, Site};
use crate::model::Model;
use crate::picture::colormap::Depth;
use crate::picture::stats::largest;
use crate::run::{Input, Run};
use crate::text::{json, num, shell_word};

/// The name of the Markdown file beside its figures.
pub const MARKDOWN: &str = "walk.md";
/// What holds a run's interventions in the command that makes it again.
const CHANGES: &str = "changes.json";
/// Tables list so many rows, those around the marked one.
const LISTED: usize = 64;
/// So many first and last values of a row are written out.
const WRITTEN: usize = 8;

/// Which token is followed, through which block and head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Focus {
    /// The last one, if `None`.
    pub position: Option<usize>,
    pub layer: usize,
    pub head: usize,
}

/// A walk, ready to be written down.
pub struct Walk {
    run: Run,
    place: Focus,
    pages: Vec<Page>,
    manifest: Manifest,
}

/// What a note is made of, in order.
enum Block<'a> {
    Title(String),
    Text(String),
    /// The steps, to choose from.
    Contents,
    /// A step, and its number in the note.
    Step(usize, &'a Page),
    /// Where the numbers come from, and the command that makes the note again.
    Origin(Vec<(&'static str, String)>, String),
}

impl Walk {
    /// Runs `input` and takes down every step outside the blocks and those of one block.
    ///
    /// # Errors
    /// [`Error::Usage`] for a position, block or head that there is not; as [`Run::new`];
    /// [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(model: &Arc<Model>, input: Input, place: Focus) -> Result<Self> {
        let c = model.config();
        Error::check("block", place.layer, 0..c.n_layer)?;
        Error::check("head", place.head, 0..c.n_head)?;
        let once = ["embed", "pos_embed", "ln_final*", "logits", "probs", "resid_pre.0"].map(str::to_owned);
        let blocks = [format!("*.{}", place.layer), format!("resid_post.{}", c.n_layer - 1)];
        let keep = HookFilter::new(&[&once[..], &blocks].concat(), c)?;
        let run = Run::new(model, input, keep, ())?;
        let position = place.position.unwrap_or(run.n_tokens() - 1);
        Error::check("position", position, 0..run.n_tokens())?;
        let pattern = View::hook(Site::Pattern.at(place.layer), place.head).matrix(&run)?.row(position);
        // The score that is taken apart is that of the key that is read most.
        let key = largest(&pattern, 1).first().map_or(0, |(key, _)| *key);
        let at =
            |step| At { step, position, head: place.head, key, column: 0, sampling: Sampling::default() };
        let walked = steps(c).into_iter().filter(|step| step.layer.is_none_or(|layer| layer == place.layer));
        let pages = walked.map(|step| Page::new(&run, at(step))).collect::<Result<_>>()?;
        let manifest = Manifest::new(&run, &(0..run.n_tokens()), Vec::new())?;
        Ok(Self { place: Focus { position: Some(position), ..place }, run, pages, manifest })
    }

    /// The steps.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Names and contents of the files of a directory: two figures for each step, and last
    /// [`MARKDOWN`], which refers to them.
    pub fn to_files(&self) -> Result<Vec<(String, String)>> {
        let mut files = Vec::new();
        for (i, page) in self.pages.iter().enumerate() {
            let figure = Figure::new(&self.run, page, (i, self.pages.len()))?;
            for dark in [false, true] {
                files.push((file_name(i, page, dark), figure.to_svg(dark)));
            }
        }
        files.push((MARKDOWN.into(), markdown::write(self)));
        Ok(files)
    }

    /// One page that needs no other file.
    pub fn to_html(&self) -> Result<String> {
        html::write(self)
    }

    /// Text for a terminal `width` columns wide.
    pub fn to_ansi(&self, width: usize, colors: Depth) -> Result<String> {
        terminal::write(self, width, colors)
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let position = self.pages[0].at.position;
        let token = self.run.token_text(position);
        let (l, n) = (self.place.layer, self.run.config().n_layer);
        let blocks = |a: usize, b: usize| match b - a {
            0 => phrase("note_block", &[("a", &a)]),
            _ => phrase("note_blocks", &[("a", &a), ("b", &b)]),
        };
        let mut all = vec![
            Block::Title(phrase("note_title", &[("model", &self.manifest.model)])),
            Block::Text(phrase("note_intro", &[("token", &token), ("t", &position)])),
            Block::Text(label("note_figures").into()),
            Block::Text(label("note_checks").into()),
            Block::Contents,
        ];
        let changes = &self.manifest.interventions;
        if !changes.is_idle() {
            all.insert(2, Block::Text(phrase("note_changed", &[("changes", changes)])));
        }
        for (i, page) in self.pages.iter().enumerate() {
            if page.at.step.kind == Kind::Ln1 && l > 0 {
                all.push(Block::Text(phrase("note_before", &[("skipped", &blocks(0, l - 1)), ("l", &l)])));
            }
            if page.at.step.kind == Kind::LnFinal && l + 1 < n {
                all.push(Block::Text(phrase("note_after", &[("skipped", &blocks(l + 1, n - 1))])));
            }
            all.push(Block::Step(i, page));
        }
        all.push(Block::Origin(self.origin(), self.command()));
        all
    }

    fn origin(&self) -> Vec<(&'static str, String)> {
        let m = &self.manifest;
        let stored = m.stored_dtype.as_ref().filter(|stored| **stored != m.dtype);
        let dtype = stored.map_or_else(|| m.dtype.clone(), |stored| format!("{stored} → {}", m.dtype));
        let ids: Vec<_> = m.token_ids.iter().map(ToString::to_string).collect();
        let mut fields = vec![("model", m.model.clone())];
        fields.extend(m.revision.clone().map(|revision| ("revision", revision)));
        fields.extend(m.adapter.clone().map(|adapter| ("adapter", adapter)));
        fields.extend([
            ("weights sha256", m.weights_sha256.clone()),
            ("number format", dtype),
            ("device", m.device.clone()),
            ("BOS", if m.bos { "yes" } else { "no" }.into()),
            ("token ids", ids.join(",")),
            ("actscope", m.actscope_version.clone()),
        ]);
        if !m.interventions.is_idle() {
            fields.push((CHANGES, json(&m.interventions)));
        }
        fields
    }

    /// The command that makes the note again, for a shell.
    fn command(&self) -> String {
        let Focus { layer, head, .. } = self.place;
        let m = &self.manifest;
        let bos = usize::from(m.bos);
        let ids: Vec<_> = m.token_ids[bos..].iter().map(ToString::to_string).collect();
        let position = self.pages[0].at.position;
        // Tied to its option, a value may begin with a dash.
        let mut words = vec!["actscope walk".to_owned(), format!("--model={}", shell_word(&m.model))];
        words.extend(m.revision.as_ref().map(|revision| format!("--revision={}", shell_word(revision))));
        words.extend(m.adapter.as_ref().map(|adapter| format!("--adapter={}", shell_word(adapter))));
        words.push(format!("--token-ids={}", ids.join(",")));
        words.extend(m.bos.then(|| "--bos".to_owned()));
        words.push(format!("--position {position} --layer {layer} --head {head}"));
        words.extend((!m.interventions.is_idle()).then(|| format!("--interventions {CHANGES}")));
        words.join(" ")
    }
}

/// Number and name of a step, for names of files and places in a page.
fn slug(i: usize, page: &Page) -> String {
    let words = page.name.to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(format!("{:02}", i + 1)).chain(words.map(str::to_owned)).collect::<Vec<_>>().join("-")
}

fn file_name(i: usize, page: &Page, dark: bool) -> String {
    format!("{}{}.svg", slug(i, page), if dark { "-dark" } else { "" })
}

/// The title of a step with its number in the note.
fn heading(i: usize, page: &Page) -> String {
    format!("{}. {}", i + 1, page.title)
}

/// The block of a step, and the head where it is about one.
fn whereabouts(page: &Page) -> Option<String> {
    let block = page.at.step.layer?;
    let head = if in_head(page.at.step.kind) { format!(", head {}", page.at.head) } else { String::new() };
    Some(format!("block {block}{head}"))
}

/// Whether a step is about one head.
fn in_head(kind: Kind) -> bool {
    use Kind::{Heads, Mask, Scale, Scores, Softmax, Z};
    matches!(kind, Heads | Scores | Scale | Mask | Softmax | Z)
}

/// A figure in words.
fn alt(page: &Page) -> String {
    let operand = |operand: &Operand| {
        let marked = match (operand.row, operand.column) {
            (Some(row), _) => format!(", {} {row} marked", label("row")),
            (None, Some(column)) => format!(", column {column} marked"),
            _ => String::new(),
        };
        format!("{} {}{marked}", operand.name, shape(&operand.shape))
    };
    let parts: Vec<_> = page
        .parts
        .iter()
        .map(|part| match part {
            Piece::Sign(sign) => (*sign).to_owned(),
            Piece::Operand(one) => operand(one).trim_end().to_owned(),
        })
        .collect();
    let tables: Vec<_> =
        page.tables.iter().map(|table| table.title.as_str()).filter(|title| !title.is_empty()).collect();
    let sentences = [page.title.clone(), parts.join(" "), tables.join("; ")];
    sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect::<Vec<_>>().join(". ")
}

/// The operands whose rows are not under the magnifier.
fn operands(page: &Page) -> impl Iterator<Item = &Operand> {
    page.operands().skip(usize::from(!page.magnifier.is_empty()))
}

/// What takes part of an operand, by name: `x[7]`, `W[:, 0]`.
fn operand_name(operand: &Operand) -> String {
    match (operand.row, operand.column) {
        // The name says which row: wte[id].
        _ if operand.name.contains('[') => operand.name.clone(),
        (Some(row), _) => format!("{}[{row}]", operand.name),
        (None, Some(column)) => format!("{}[:, {column}]", operand.name),
        _ => operand.name.clone(),
    }
}

fn shape(shape: &[usize]) -> String {
    let sizes: Vec<_> = shape.iter().map(ToString::to_string).collect();
    if sizes.is_empty() { String::new() } else { format!("({})", sizes.join(", ")) }
}

/// The first and last of many values.
fn written(values: &[f32]) -> String {
    let words = |values: &[f32]| values.iter().map(|x| num(*x)).collect::<Vec<_>>().join(" ");
    if values.len() <= WRITTEN {
        return words(values);
    }
    let half = WRITTEN / 2;
    format!("{} … {}", words(&values[..half]), words(&values[values.len() - half..]))
}

/// A value in a table, and whether it is a number.
fn cell(value: &Cell) -> (String, bool) {
    match value {
        Cell::Number(x) => (num(*x), true),
        Cell::Count(n) => (n.to_string(), true),
        Cell::Text(text) => (text.clone(), false),
    }
}

/// Whether a column of a table holds words.
fn is_words(table: &Table, column: usize) -> bool {
    let words = |cell: &Cell| matches!(cell, Cell::Text(text) if !text.is_empty());
    table.rows.iter().any(|row| row.cells.get(column).is_some_and(words))
}

/// The rows of a table that are listed, and how many are not.
fn listed(table: &Table) -> (Range<usize>, usize) {
    let marked = table.rows.iter().position(|row| row.marked).unwrap_or(0);
    let shown = excerpt(table.rows.len(), marked, LISTED);
    let hidden = table.rows.len() - shown.len();
    (shown, hidden)
}

/// At most `most` of `n`, those around `at`.
fn excerpt(n: usize, at: usize, most: usize) -> Range<usize> {
    let start = at.saturating_sub(most / 2).min(n.saturating_sub(most));
    start..(start + most).min(n)
}

/// A check in a line.
fn verdict(check: &Check) -> String {
    let [mark, claim, found] = check.verdict();
    format!("{mark} {claim}: {found}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_excerpt_is_as_long_as_it_may_be_and_holds_its_place(n in 1usize..300, at in 0usize..300, most in 1usize..80) {
            let at = at.min(n - 1);
            let shown = excerpt(n, at, most);
            prop_assert!(shown.contains(&at), "{shown:?}");
            prop_assert_eq!(shown.len(), n.min(most));
            prop_assert!(shown.end <= n);
        }
    }

    #[test]
    fn few_values_are_written_out_and_of_many_the_ends() {
        let values: Vec<f32> = (0..20).map(|i| i as f32).collect();
        assert_eq!(written(&values[..2]), "0 1.000");
        assert_eq!(written(&values), "0 1.000 2.000 3.000 … 16.00 17.00 18.00 19.00");
    }
}
