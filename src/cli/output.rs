//! All output except files: results on standard output,
//! messages on standard error. Nothing that a terminal would interpret gets through.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;

use serde::{Serialize, Serializer};
use unicode_width::UnicodeWidthStr;

use crate::analysis::weights::{Ends, Scored};
use crate::error::Result;
use crate::export::Destination;
use crate::model::Model;
use crate::text::{fixed, json, pad, plain, plain_lines};

/// Writes `text` to standard output. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// [`crate::Error::File`] if it cannot be written.
pub fn print(text: &str) -> Result<()> {
    write(&plain_lines(text))
}

/// The same with colours kept; names in the text have been escaped before.
pub fn print_colored(text: &str) -> Result<()> {
    write(&colored(text))
}

/// [`plain_lines`], but colour codes are kept.
fn colored(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = plain_lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let numbers = part.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(part.len());
        let (code, rest) = part.split_at(numbers);
        match rest.strip_prefix('m') {
            Some(rest) => out.extend(["\x1b[", code, "m", &plain_lines(rest)]),
            None => out.extend([&plain("\x1b"), "[", &plain_lines(part)]),
        }
    }
    out
}

fn write(text: &str) -> Result<()> {
    Destination::Stdout.prepare()?.write(|out| out.write_all(text.as_bytes()))?;
    Ok(())
}

/// Prints a message to standard error. Failure to write it is ignored.
pub fn say(sentence: &impl Display) {
    // Not `eprintln`, which panics if the pipe is closed.
    let _ = std::io::stderr().write_all(format!("{}\n", report(sentence)).as_bytes());
}

/// A message as it is printed: one line.
pub fn report(sentence: &impl Display) -> String {
    format!("actscope: {}", plain(&sentence.to_string()))
}

/// The width of the terminal, or a common width without one.
pub fn width() -> usize {
    let terminal = std::io::stdout().is_terminal().then(ratatui::crossterm::terminal::size);
    terminal.and_then(std::result::Result::ok).map_or(100, |(columns, _)| columns.into())
}

/// The extension of a file name, in lower case.
pub fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_lowercase())
}

/// Prints a JSON array, one line per row.
pub fn print_json<T: Serialize>(rows: &[T]) -> Result<()> {
    let rows: Vec<_> = rows.iter().map(json).collect();
    print(&if rows.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", rows.join(",\n")) })
}

/// Prints a JSON object on one line.
pub fn print_object<T: Serialize>(object: &T) -> Result<()> {
    print(&format!("{}\n", json(object)))
}

/// A token's text in JSON: bytes that are not UTF-8 become `U+FFFD`.
pub fn text_of(model: &Model, id: u32) -> Option<String> {
    model.tokenizer.bytes(id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The tokens at the two ends of a direction, in JSON.
#[derive(Serialize)]
pub struct EndsRow {
    top: Vec<ScoredRow>,
    bottom: Vec<ScoredRow>,
}

#[derive(Serialize)]
struct ScoredRow {
    id: u32,
    /// See `actscope tokens`.
    text: Option<String>,
    #[serde(serialize_with = "number")]
    score: f32,
}

impl EndsRow {
    pub fn new(model: &Model, ends: &Ends) -> Self {
        let row = |s: &Scored| ScoredRow { id: s.id, text: text_of(model, s.id), score: s.score as f32 };
        let rows = |list: &[Scored]| list.iter().map(row).collect();
        Self { top: rows(&ends.top), bottom: rows(&ends.bottom) }
    }
}

/// Lists of tokens with their scores, side by side, each under its name.
pub fn token_columns(model: &Model, columns: &[(String, &[Scored])]) -> String {
    let mut text = String::new();
    let lines = columns.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
    for line in 0..=lines {
        let start = text.len();
        for (name, list) in columns {
            let cell = match line.checked_sub(1).map(|i| list.get(i)) {
                None => name.clone(),
                Some(Some(s)) => format!("{:>8} {}", fixed(s.score, 3), model.tokenizer.show(s.id)),
                Some(None) => String::new(),
            };
            text.push_str(&pad(&cell, 26));
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
    text
}

/// Columns under their names, as wide as their cells.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

pub enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// One cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell).into_owned()).collect());
    }

    /// # Errors
    /// See [`print`].
    pub fn print(&self) -> Result<()> {
        let name = |column: &Column| match column {
            Column::Left(head) | Column::Right(head) => (*head).to_owned(),
        };
        let heads: Vec<_> = self.columns.iter().map(name).collect();
        let lines: Vec<_> = std::iter::once(&heads).chain(&self.rows).collect();
        let width = |i: usize| lines.iter().map(|line| line[i].width()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let start = text.len();
            for (i, cell) in line.iter().enumerate() {
                let gap = " ".repeat(widths[i] - cell.width());
                match self.columns[i] {
                    Column::Left(_) => text.extend([cell, gap.as_str(), "  "]),
                    Column::Right(_) => text.extend([gap.as_str(), cell, "  "]),
                }
            }
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        print(&text)
    }
}

/// A number in JSON; non-finite ones are strings, as in exports: `"-inf"`, `"inf"`, `"nan"`.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
pub fn number<S: Serializer>(x: &f32, to: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() { to.serialize_f32(*x) } else { to.serialize_str(&x.to_string().to_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_terminal_obeys_only_colours_pass() {
        assert_eq!(colored("a\x1b[38;5;1mb\x1b[0m\n\tc\x1b[m"), "a\x1b[38;5;1mb\x1b[0m\n\tc\x1b[m");
        assert_eq!(
            colored("\x1b[2J\x1b]52;c\x07\x1b[\x1b[1m\u{9b}1m"),
            "⟨1b⟩[2J⟨1b⟩]52;c⟨07⟩⟨1b⟩[\x1b[1m⟨9b⟩1m"
        );
        assert_eq!(colored("\x1b[1"), "⟨1b⟩[1");
    }

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        #[derive(serde::Serialize)]
        struct Row(#[serde(serialize_with = "number")] f32);
        let json = |x| serde_json::to_string(&Row(x)).unwrap();
        assert_eq!(json(0.1), "0.1");
        assert_eq!(
            [json(f32::NEG_INFINITY), json(f32::INFINITY), json(f32::NAN)],
            [r#""-inf""#, r#""inf""#, r#""nan""#]
        );
    }
}
