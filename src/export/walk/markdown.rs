//! The walk as Markdown, its figures in files beside it.

use std::fmt::Write;

use super::{
    Block, Walk, alt, cell, file_name, heading, is_words, listed, operand_name, operands, shape, verdict,
    whereabouts, written,
};
use crate::analysis::walk::{Page, Table, label, phrase};
use crate::export::figure::escaped;
use crate::text;

pub(super) fn write(walk: &Walk) -> String {
    let mut out = String::new();
    for block in walk.blocks() {
        match block {
            Block::Title(title) => out += &format!("# {}\n\n", text(&title)),
            Block::Text(words) => out += &format!("{}\n\n", text(&words)),
            // Code hosts make one of the headings.
            Block::Contents => {}
            Block::Step(i, page) => step(&mut out, i, page),
            Block::Origin(fields, command) => {
                let _ = writeln!(out, "## {}\n", text(label("note_origin")));
                out += "| | |\n|---|---|\n";
                for (name, value) in fields {
                    let _ = writeln!(out, "| {name} | {} |", code(&value));
                }
                let _ = writeln!(out, "\n{}:\n\n    {command}", text(label("note_again")));
            }
        }
    }
    out
}

fn step(out: &mut String, i: usize, page: &Page) {
    let _ = writeln!(out, "## {}\n", text(&heading(i, page)));
    if let Some(place) = whereabouts(page) {
        let _ = writeln!(out, "*{place}*\n");
    }
    let _ = writeln!(out, "{}\n", text(&page.text));
    let _ = writeln!(out, "```text\n{}\n{}\n```\n", page.formula, page.shapes);
    let (light, dark) = (file_name(i, page, false), file_name(i, page, true));
    let alt = escaped(&alt(page));
    let _ = writeln!(
        out,
        "<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"{dark}\">\n  <img src=\"{light}\" alt=\"{alt}\">\n</picture>\n"
    );
    rows(out, page);
    for one in &page.tables {
        table(out, one);
    }
    if !page.facts.is_empty() {
        let facts =
            page.facts.iter().map(|fact| format!("{} = {}", text(&fact.name), code(&cell(&fact.value).0)));
        let _ = writeln!(out, "{}\n", facts.collect::<Vec<_>>().join(" · "));
    }
    let _ = writeln!(out, "{}\n\n→ {}\n", text(&verdict(&page.check)), text(&page.next));
}

/// The rows and columns that take part, in numbers.
fn rows(out: &mut String, page: &Page) {
    if !page.magnifier.is_empty() {
        let _ = writeln!(out, "| {} | {} |\n|---|---|", label("row"), label("values"));
        for line in &page.magnifier {
            let [name, values] =
                [&line.label, &written(&line.values)].map(|text| strong(code(text), line.marked));
            let _ = writeln!(out, "| {name} | {values} |");
        }
        out.push('\n');
    }
    if operands(page).next().is_some() {
        let _ = writeln!(
            out,
            "| {} | {} | {} |\n|---|---|---|",
            label("operand"),
            label("shape"),
            label("values")
        );
        for operand in operands(page) {
            let [name, values] = [operand_name(operand), written(&operand.values)].map(|text| code(&text));
            let _ = writeln!(out, "| {name} | {} | {values} |", shape(&operand.shape));
        }
        out.push('\n');
    }
}

fn table(out: &mut String, table: &Table) {
    if !table.title.is_empty() {
        let _ = writeln!(out, "{}:\n", text(&table.title));
    }
    let heads: Vec<_> = table.columns.iter().map(|head| text(head)).collect();
    let _ = writeln!(out, "| {} |", heads.join(" | "));
    let lines = (1..heads.len()).map(|column| if is_words(table, column - 1) { "---" } else { "---:" });
    let _ = writeln!(out, "|---|{}|", lines.collect::<Vec<_>>().join("|"));
    let (shown, hidden) = listed(table);
    for row in &table.rows[shown] {
        let cells = row.cells.iter().map(|value| {
            let (text, is_number) = cell(value);
            strong(if is_number { text } else { code(&text) }, row.marked)
        });
        let cells: Vec<_> = cells.collect();
        let _ = writeln!(out, "| {} | {} |", strong(plain(&row.label), row.marked), cells.join(" | "));
    }
    if hidden > 0 {
        let _ = writeln!(out, "\n{}", phrase("more", &[("n", &hidden)]));
    }
    out.push('\n');
}

fn strong(text: String, marked: bool) -> String {
    if marked && !text.is_empty() { format!("**{text}**") } else { text }
}

/// Words that stand as they are, whatever they are made of.
fn text(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for (i, c) in text::plain(words).char_indices() {
        if "\\`*_[]<>&|~$".contains(c) || (i == 0 && "#+-=:".contains(c)) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Words as code, but for those that are nothing else anywhere.
fn plain(words: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || " ·".contains(c);
    if words.chars().all(harmless) { words.to_owned() } else { code(words) }
}

/// Words as code, in a table too.
fn code(words: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let words = text::plain(words);
    let longest = words.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let blank =
        if words.starts_with('`') || words.ends_with('`') || words.trim().is_empty() { " " } else { "" };
    format!("{fence}{blank}{}{blank}{fence}", words.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_markdown_would_take_as_its_own_is_escaped() {
        assert_eq!(text("a*b_c <d> [e](f) `g` | h"), r"a\*b\_c \<d\> \[e\](f) \`g\` \| h");
        assert_eq!(text("# a"), r"\# a");
        assert_eq!(code("·a|b"), r"`·a\|b`");
        assert_eq!(code("``"), "``` `` ```");
        assert_eq!(code(""), "");
        assert_eq!(text("a\n<b>\u{1b}\u{202e}"), r"a↵\<b\>⟨1b⟩⟨u+202e⟩");
        assert_eq!(code("a\n<b>\u{9b}"), "`a↵<b>⟨9b⟩`");
    }
}
