//! The walk as lines of text, with colours where the terminal has them.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::tile::{level, of_row, place, ranges, strip};
use super::{Block, Walk, cell, heading, is_words, listed, operand_name, shape, verdict, whereabouts};
use crate::analysis::walk::{Cell, Page, Piece, Table, TableRow, label, phrase};
use crate::error::Result;
use crate::export::figure::Pen;
use crate::picture::Paint;
use crate::picture::colormap::{Depth, Palette, Rgb};
use crate::picture::range::Range;
use crate::text::{fit, num, pad, plain, wrap};

/// Sentences are no wider than this, so that the eye finds the next line.
const MEASURE: usize = 100;
/// A row as colours.
const STRIP: usize = 40;
const BAR: usize = 30;
/// What is followed, and signs: an amber that can be read on light and dark.
const ACCENT: Rgb = [200, 130, 20];

struct Terminal<'a> {
    walk: &'a Walk,
    width: usize,
    colors: Depth,
    out: String,
}

pub(super) fn write(walk: &Walk, width: usize, colors: Depth) -> Result<String> {
    let mut terminal = Terminal { walk, width: width.max(20), colors, out: String::new() };
    for block in walk.blocks() {
        terminal.block(block)?;
    }
    Ok(terminal.out)
}

impl Terminal<'_> {
    fn block(&mut self, block: Block<'_>) -> Result<()> {
        match block {
            Block::Title(title) => {
                self.bold(&title);
                self.out.push('\n');
            }
            Block::Text(words) => {
                self.words(&words);
                self.out.push('\n');
            }
            Block::Contents => {}
            Block::Step(i, page) => self.step(i, page)?,
            Block::Origin(fields, command) => {
                self.bold(label("note_origin"));
                let widest = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
                for (name, value) in fields {
                    let _ = writeln!(self.out, "{}  {}", pad(name, widest), plain(&value));
                }
                let _ = writeln!(self.out, "\n{}:\n{command}", label("note_again"));
            }
        }
        Ok(())
    }

    fn bold(&mut self, text: &str) {
        for line in wrap(&plain(text), self.width) {
            match self.colors {
                Depth::Mono => self.out += &line,
                _ => self.out += &format!("\x1b[1m{line}\x1b[0m"),
            }
            self.out.push('\n');
        }
    }

    fn words(&mut self, text: &str) {
        for line in wrap(&plain(text), self.width.min(MEASURE)) {
            self.out += &line;
            self.out.push('\n');
        }
    }

    fn ink(&mut self, color: Rgb, text: &str) {
        let mut pen = Pen::new(&mut self.out, self.colors);
        pen.put(Some(color), None, text);
        pen.reset();
    }

    fn step(&mut self, i: usize, page: &Page) -> Result<()> {
        let place = whereabouts(page).map(|place| format!("  ({place})")).unwrap_or_default();
        self.bold(&format!("{}{place}", heading(i, page)));
        self.words(&page.text);
        self.out.push('\n');
        for line in [&page.formula, &page.shapes] {
            for line in wrap(line, self.width.saturating_sub(2)) {
                let _ = writeln!(self.out, "  {line}");
            }
        }
        self.out.push('\n');
        self.rows(page)?;
        page.tables.iter().for_each(|table| self.table(table));
        if !page.facts.is_empty() {
            let facts: Vec<_> =
                page.facts.iter().map(|fact| format!("{} {}", fact.name, cell(&fact.value).0)).collect();
            self.words(&facts.join("  ·  "));
        }
        self.words(&verdict(&page.check));
        self.words(&format!("→ {}", page.next));
        self.out.push('\n');
        Ok(())
    }

    /// What is looked up in, and the rows of the operation under each other.
    fn rows(&mut self, page: &Page) -> Result<()> {
        let all: Vec<f32> = page.magnifier.iter().flat_map(|line| line.values.iter().copied()).collect();
        let mut lines = Vec::new();
        if !all.is_empty() {
            let range = Range::of(&all);
            for line in &page.magnifier {
                let name = line.label.clone();
                lines.push((
                    if line.marked { "▸" } else { "" },
                    name,
                    String::new(),
                    &line.values,
                    range.clone(),
                    None,
                ));
            }
        }
        let mut ranges = ranges(&self.walk.run, page)?.into_iter();
        let mut sign = "";
        let magnified = page.operands().next().filter(|_| !page.magnifier.is_empty());
        for part in &page.parts {
            match part {
                Piece::Sign(next) => sign = next,
                Piece::Operand(operand) => {
                    let range = ranges.next().expect("there is one for each operand");
                    if magnified.is_some_and(|magnified| std::ptr::eq(magnified, operand)) {
                        continue;
                    }
                    let (range, first_query) = of_row(operand, &range);
                    lines.push((
                        sign,
                        operand_name(operand),
                        shape(&operand.shape),
                        &operand.values,
                        range,
                        first_query,
                    ));
                    sign = "";
                }
            }
        }
        let widest = |words: &mut dyn Iterator<Item = usize>| words.max().unwrap_or(0);
        let name_width = widest(&mut lines.iter().map(|line| line.1.width())).min(28);
        let shape_width = widest(&mut lines.iter().map(|line| line.2.width()));
        let before = 3 + name_width + 2 + shape_width + 2;
        let room = self.width.saturating_sub(before);
        let strip_width = STRIP.min(room.saturating_sub(16) / 2);
        for (sign, name, shape, values, range, first_query) in &lines {
            self.ink(ACCENT, &pad(&format!(" {sign}"), 3));
            let _ = write!(self.out, "{}  {}  ", pad(name, name_width), pad(shape, shape_width));
            if values.len() > 1 && strip_width >= 8 {
                let used = self.strip(values, range.clone(), strip_width, *first_query)?;
                let _ = write!(self.out, "{:n$}", "", n = strip_width - used + 2);
            } else if strip_width >= 8 {
                let _ = write!(self.out, "{:n$}", "", n = strip_width + 2);
            }
            let numbers = if strip_width >= 8 { room - strip_width - 2 } else { room };
            let _ = writeln!(self.out, "{}", ends(values, numbers));
        }
        if !lines.is_empty() {
            self.out.push('\n');
        }
        Ok(())
    }

    /// A row as cells of colour, or of glyphs; returns how many.
    fn strip(
        &mut self,
        values: &[f32],
        range: Range,
        width: usize,
        first_query: Option<usize>,
    ) -> Result<usize> {
        let picture = strip(values, range, values.len().div_ceil(width), first_query)?;
        let map = Palette::default().map(picture.range.quantity, false);
        let mut pen = Pen::new(&mut self.out, self.colors);
        for paint in picture.paints() {
            // No more colours than the figures have.
            let paint = if let Paint::Level(x) = paint { Paint::Level(place(level(x))) } else { paint };
            let ink = (paint == Paint::Broken).then_some([0; 3]);
            let text = match paint {
                Paint::Level(_) if self.colors != Depth::Mono => " ",
                _ => paint.glyph(picture.range.signed()),
            };
            pen.put(ink, map.color(paint), text);
        }
        pen.reset();
        Ok(picture.grid.n_columns)
    }

    fn table(&mut self, table: &Table) {
        if !table.title.is_empty() {
            self.words(&table.title);
        }
        let (shown, hidden) = listed(table);
        let rows = &table.rows[shown];
        let n = table.columns.len();
        let text = |row: &TableRow, column: usize| match column {
            0 => row.label.clone(),
            _ => row.cells.get(column - 1).map(|value| cell(value).0).unwrap_or_default(),
        };
        let most = (self.width / 3).max(8);
        let width = |column: usize| {
            let cells = rows.iter().map(|row| text(row, column).width());
            cells.chain([table.columns[column].width()]).max().unwrap_or(0).min(most)
        };
        let widths: Vec<_> = (0..n).map(width).collect();
        let line = |words: &[String]| {
            let mut line = String::new();
            for (column, word) in words.iter().enumerate() {
                let word = fit(word, widths[column]);
                let gap = " ".repeat(widths[column] - word.width());
                let left = column == 0 || is_words(table, column - 1);
                line += &if left { format!("{word}{gap}") } else { format!("{gap}{word}") };
                line += "  ";
            }
            line
        };
        let value = |row: &TableRow| match row.cells.get(table.bar?)? {
            Cell::Number(x) if x.is_finite() => Some(*x),
            _ => None,
        };
        let largest = rows.iter().filter_map(value).map(f32::abs).fold(0.0, f32::max);
        let heads = fit(&format!("   {}", line(&table.columns)), self.width);
        let _ = writeln!(self.out, "{}", heads.trim_end());
        let room =
            self.width.saturating_sub(3 + widths.iter().map(|width| width + 2).sum::<usize>()).min(BAR);
        for row in rows {
            let words: Vec<_> = (0..n).map(|column| text(row, column)).collect();
            self.ink(ACCENT, if row.marked { " ▸ " } else { "   " });
            let mut words = line(&words);
            if let Some(x) = value(row).filter(|_| room >= 8 && largest > 0.0) {
                let long = (x.abs() / largest * room as f32).round() as usize;
                words += &if x < 0.0 { "░" } else { "█" }.repeat(long);
            }
            let _ = writeln!(self.out, "{}", fit(words.trim_end(), self.width.saturating_sub(3)));
        }
        if hidden > 0 {
            let _ = writeln!(self.out, "   {}", phrase("more", &[("n", &hidden)]));
        }
        self.out.push('\n');
    }
}

/// The first and last values that fit into `width` columns.
fn ends(values: &[f32], width: usize) -> String {
    let words: Vec<_> = values.iter().map(|x| num(*x)).collect();
    let whole = words.join(" ");
    if whole.width() <= width {
        return whole;
    }
    let some = |n: usize| {
        let (first, last) = (n.div_ceil(2), n / 2);
        format!("{} … {}", words[..first].join(" "), words[words.len() - last..].join(" "))
    };
    let counts = (1..words.len().min(width / 2 + 1)).rev();
    counts.map(some).find(|text| text.width() <= width).unwrap_or_default()
}
