//! A searchable list: the help, the palette, the finder of hooks.

use std::cmp::Reverse;
use std::collections::HashSet;

use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config as MatcherConfig, Matcher, Utf32Str};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Position, Rect};
use ratatui::text::Span;

use super::field::Field;
use super::{Panel, centred};
use crate::analysis::continuations::Continuation;
use crate::analysis::find::{Channel, Extreme, Found};
use crate::analysis::walk::{Step, steps};
use crate::corpus::atlas::OfGroup;
use crate::corpus::top;
use crate::hooks::{Axis, Site, TensorName};
use crate::model::Config;
use crate::run::{Input, Run};
use crate::tui::app::Screen;
use crate::tui::command::{COMMANDS, Command};
use crate::tui::keymap::{Keymap, Keys};
use crate::tui::places::{Goal, Goals};
use crate::tui::text::{count, fixed, num, pad, put, put_line, wrap_to};
use crate::tui::theme::Theme;

/// The action of choosing an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    Run(Command),
    /// A place by name.
    Go(Goal),
    /// The examples of a unit.
    Unit(TensorName, usize),
    /// The run of this input.
    Take(Box<Input>),
    /// Something to copy: what it is, and the text.
    Copy(&'static str, String),
    Find(TensorName),
    Step(Step),
    /// A cell of a tensor.
    Cell {
        name: TensorName,
        head: usize,
        row: usize,
        column: usize,
    },
}

/// The title of the list of extremes.
pub const EXTREMES: &str = "What stands out in this run";

struct Item {
    /// The heading that it is under.
    group: String,
    /// Three columns: name, key or shape, description.
    columns: [String; 3],
    /// Another name to search by.
    alias: String,
    choice: Choice,
}

pub struct Picker {
    title: &'static str,
    widths: [usize; 2],
    items: Vec<Item>,
    query: Field,
    /// Indices of the matching items, best first.
    matches: Vec<usize>,
    selected: usize,
    /// Places that a query may name, in the palette.
    goals: Option<Goals>,
    /// Why the place that the query names is not there.
    problem: Option<String>,
}

impl Picker {
    /// All commands with their keys; those of `screen` first.
    pub fn help(screen: Screen, keymap: &Keymap) -> Self {
        let mut picker = Self::commands(screen, keymap, Goals::default());
        picker.goals = None;
        picker.title = "Help: all keys";
        for item in &mut picker.items {
            item.columns.swap(0, 1);
        }
        picker.widths = [14, 17];
        picker
    }

    /// All commands by name, and places by name.
    pub fn commands(screen: Screen, keymap: &Keymap, goals: Goals) -> Self {
        let mut entries: Vec<_> = COMMANDS.iter().collect();
        let rank = |entry: &crate::tui::command::Entry| match (entry.everywhere, entry.works_on(screen)) {
            (false, true) => 0,
            (true, _) => 1,
            (false, false) => 2,
        };
        entries.sort_by_key(|entry| rank(entry));
        let item = |entry: &&crate::tui::command::Entry| {
            let doc = entry.doc.to_owned();
            let (group, doc) = match rank(entry) {
                0 => (format!("On {}", screen.name()), doc),
                1 => (entry.group.to_owned(), doc),
                _ => {
                    let screens: Vec<_> = entry.screens().map(Screen::name).collect();
                    ("On other screens".to_owned(), format!("{doc} ({})", screens.join(", ")))
                }
            };
            let columns = [entry.name.to_owned(), Keys(keymap.keys(entry.command)).to_string(), doc];
            let alias = entry.name.replace('-', " ");
            Item { group, columns, alias, choice: Choice::Run(entry.command) }
        };
        let picker = Self::new("Commands", [17, 14], entries.iter().map(item).collect());
        Self { goals: Some(goals), ..picker }
    }

    /// The tokens of the prompt.
    pub fn tokens(run: &Run) -> Self {
        let item = |(position, id): (usize, &u32)| {
            let text = run.token_text(position);
            let alias = text.trim_start_matches('·').to_owned();
            let columns = [position.to_string(), id.to_string(), text];
            Item { group: String::new(), columns, alias, choice: Choice::Go(Goal::Position(position)) }
        };
        Self::new("Find a token of the prompt", [6, 8], run.tokens.iter().enumerate().map(item).collect())
    }

    /// Continuations of `run`, with the probability of a token on average.
    pub fn continuations(run: &Run, found: &[Continuation]) -> Self {
        let item = |one: &Continuation| {
            let n = one.tokens.len().max(1) as f64;
            let text: String = one.tokens.iter().map(|&id| run.model.tokenizer.show(id)).collect();
            let each = num((one.log_prob / n).exp() as f32);
            let columns = [format!("{:.1} nats", one.log_prob), format!("{each} each"), text.clone()];
            let input = run.input.followed_by(one.tokens.iter().copied(), run);
            Item { group: String::new(), columns, alias: text, choice: Choice::Take(Box::new(input)) }
        };
        Self::new("Continuations, the likeliest first", [11, 13], found.iter().map(item).collect())
    }

    /// The units of a hook, with the token that each fires on most and those around it.
    pub fn units(group: &OfGroup) -> Self {
        let item = |(unit, of): (usize, &top::OfUnit)| {
            let example = of.best.first()?;
            let at = example.at();
            let text = |ids: &[u32]| ids.iter().map(|id| group.text(*id)).collect::<String>();
            let (before, rest) = example.token_ids.split_at(at);
            let fires = of.best.iter().map(|one| group.text(one.token_ids[one.at()]));
            let shown = format!("{}«{}»{}", text(before), text(&rest[..1]), text(&rest[1..]));
            Some(Item {
                group: String::new(),
                columns: [group.group.name(unit), num(example.value), shown],
                alias: fires.collect::<Vec<_>>().join(" "),
                choice: Choice::Unit(group.group.tensor, unit),
            })
        };
        let items = group.examples.iter().enumerate().filter_map(item).collect();
        Self::new("Units by the tokens they fire on", [16, 8], items)
    }

    /// What can be copied: what it is, and the text.
    pub fn copies(texts: Vec<(&'static str, String)>) -> Self {
        let item = |(what, text): (&'static str, String)| Item {
            group: String::new(),
            columns: [what.to_owned(), String::new(), text.clone()],
            alias: String::new(),
            choice: Choice::Copy(what, text),
        };
        Self::new("Copy", [10, 1], texts.into_iter().map(item).collect())
    }

    /// All hooks of the model.
    pub fn tensors(run: &Run) -> Self {
        let item = |name: TensorName| {
            let shape = name.shape(run.config(), run.n_tokens());
            let shape: Vec<_> = shape.iter().map(ToString::to_string).collect();
            let columns = [name.to_string(), format!("({})", shape.join(", ")), name.doc().to_owned()];
            Item { group: String::new(), columns, alias: name.short(), choice: Choice::Find(name) }
        };
        let names = run.model.tensors().into_iter().filter(|name| !name.hook.point().on_request);
        Self::new("Find a tensor", [32, 15], names.map(item).collect())
    }

    /// All steps of the walk.
    pub fn steps(config: &Config) -> Self {
        let item = |(i, step): (usize, Step)| {
            let place = step.layer.map_or_else(String::new, |layer| format!(" {layer}"));
            let name = format!("{}{place}", step.kind.name());
            let block = step.layer.map_or_else(String::new, |layer| format!("block {layer}"));
            let columns = [(i + 1).to_string(), block, step.kind.name().to_owned()];
            Item { group: String::new(), columns, alias: name, choice: Choice::Step(step) }
        };
        Self::new("Go to a step", [6, 10], steps(config).into_iter().enumerate().map(item).collect())
    }

    /// The largest value and row of each tensor, and the outlier channels.
    pub fn extremes(found: &Found, run: &Run) -> Self {
        const FIRST: usize = 6;
        let n_layer = run.config().n_layer;
        let cell = |x: &Extreme, what: &str| {
            let token = format!("{} ({})", run.token_text(x.row), x.row);
            let head = if x.place().len() == 2 { format!(", head {}", x.head) } else { String::new() };
            let column = match x.name.axes().last() {
                Some(Axis::One) | None => String::new(),
                Some(axis) => format!(", {} {}", axis.noun(), x.column),
            };
            Item {
                group: String::new(),
                columns: [
                    x.name.short(),
                    format!("{:>8}", num(x.value)),
                    format!("{what}: {token}{head}{column}"),
                ],
                alias: x.name.to_string(),
                choice: Choice::Cell { name: x.name, head: x.head, row: x.row, column: x.column },
            }
        };
        let channel = |c: &Channel| {
            let layer = *c.layers.last()?;
            let columns = [
                format!("channel {}", c.channel),
                format!("{:>7}×", fixed(c.ratio, 1)),
                format!("outlier in {} of {} (resid_post)", c.layers.len(), count(n_layer, "block")),
            ];
            let (name, row) = (Site::ResidPost.at(layer).into(), 0);
            let choice = Choice::Cell { name, head: 0, row, column: c.channel };
            Some(Item { group: String::new(), columns, alias: "outlier".into(), choice })
        };
        // The most notable of each kind first, then all.
        let values = found.values.iter().map(|x| cell(x, "largest |x|"));
        let rows = found.rows.iter().map(|x| cell(x, "longest row"));
        let channels = found.channels.iter().filter_map(channel);
        let first = values.clone().take(FIRST).chain(rows.clone().take(FIRST)).chain(channels);
        let items = first.chain(values.skip(FIRST)).chain(rows.skip(FIRST));
        Self::new(EXTREMES, [20, 9], items.collect())
    }

    fn new(title: &'static str, widths: [usize; 2], items: Vec<Item>) -> Self {
        let matches = (0..items.len()).collect();
        Self {
            title,
            widths,
            items,
            query: Field::default(),
            matches,
            selected: 0,
            goals: None,
            problem: None,
        }
    }

    /// Handles a key; returns the choice, if one was made.
    pub fn key(&mut self, key: KeyEvent) -> Option<Choice> {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let last = self.matches.len().saturating_sub(1);
        match key.code {
            KeyCode::Enter => return Some(self.items[*self.matches.get(self.selected)?].choice.clone()),
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::Char('p') if ctrl => self.selected = self.selected.saturating_sub(1),
            KeyCode::Char('n') if ctrl => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ if self.query.key(key) => self.search(),
            _ => {}
        }
        None
    }

    pub fn paste(&mut self, text: &str) {
        self.query.paste(text);
        self.search();
    }

    /// The choice at a position on the screen.
    pub fn hit(&self, inside: Rect, at: Position) -> Option<Choice> {
        let list = list_area(inside);
        let lines = self.lines(list.width);
        let first = self.first(&lines, list.height.into());
        let line = lines.get(first + usize::from(at.y.checked_sub(list.y)?))?;
        let item = self.matches.get(line.of?).filter(|_| list.contains(at))?;
        Some(self.items[*item].choice.clone())
    }

    /// Puts the place that the query names before the commands.
    fn name_place(&mut self) {
        self.items.retain(|item| !matches!(item.choice, Choice::Go(_)));
        self.problem = None;
        match self.goals.as_ref().and_then(|goals| goals.find(self.query.text())) {
            Some(Ok((goal, said))) => {
                let columns = ["go to".into(), String::new(), said];
                self.items.push(Item {
                    group: String::new(),
                    columns,
                    alias: self.query.text().to_owned(),
                    choice: Choice::Go(goal),
                });
            }
            Some(Err(why)) => self.problem = Some(why),
            None => {}
        }
    }

    fn search(&mut self) {
        if self.goals.is_some() {
            self.name_place();
        }
        let (query, case, norm) = (self.query.text(), CaseMatching::Smart, Normalization::Smart);
        let fuzzy = Pattern::parse(query, case, norm);
        // Scattered letters are in every sentence.
        let words = Pattern::new(query, case, norm, AtomKind::Substring);
        let mut matcher = Matcher::new(MatcherConfig::DEFAULT);
        let mut buffer = Vec::new();
        let mut scored: Vec<_> = (0..self.items.len())
            .filter_map(|i| {
                let Item { columns: [first, second, doc], alias, .. } = &self.items[i];
                let mut score =
                    |by: &Pattern, text: &str| by.score(Utf32Str::new(text, &mut buffer), &mut matcher);
                let by_name = [first, second, alias].into_iter().filter_map(|name| score(&fuzzy, name)).max();
                let by_doc = || score(&words, doc).map(|score| (true, Reverse(score), i));
                by_name.map(|score| (false, Reverse(score), i)).or_else(by_doc)
            })
            .collect();
        // Names come before descriptions.
        scored.sort_unstable();
        self.matches = scored.into_iter().map(|(.., i)| i).collect();
        self.selected = 0;
    }

    /// The lines of the list at a width: headings, as long as nothing is searched for, and matches with their
    /// descriptions.
    fn lines(&self, width: u16) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        let mut group = "";
        for (i, &item) in self.matches.iter().enumerate() {
            let item = &self.items[item];
            if item.group != group && self.query.text().is_empty() {
                group = &item.group;
                lines.push(Line { of: None, columns: ["", ""], text: group.to_owned() });
            }
            let [a, b, _] = &item.columns;
            let names = std::iter::once([a.as_str(), b.as_str()]).chain(std::iter::repeat(["", ""]));
            lines.extend(self.described(item, width).into_iter().zip(names).map(|(text, columns)| Line {
                of: Some(i),
                columns,
                text,
            }));
        }
        lines
    }

    /// The description of an item, wrapped.
    fn described(&self, item: &Item, width: u16) -> Vec<String> {
        let names = self.widths[0] + self.widths[1] + 2;
        let room = usize::from(width).saturating_sub(names).max(1);
        let mut lines = wrap_to(&item.columns[2], room, LONGEST);
        if lines.is_empty() {
            lines.push(String::new());
        }
        lines
    }

    /// The first line to show, so that the selected item is visible.
    fn first(&self, lines: &[Line], height: usize) -> usize {
        let last = lines.iter().rposition(|line| line.of == Some(self.selected)).unwrap_or(0);
        (last + 1).saturating_sub(height)
    }
}

/// The most lines of a description.
const LONGEST: usize = 4;

/// A line of the list.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    /// A match, by its number; `None` for a heading.
    of: Option<usize>,
    columns: [&'a str; 2],
    text: String,
}

/// As tall as all its lines need, whatever is typed.
fn place(picker: &Picker, area: Rect) -> Rect {
    let width = 140.min(area.width.saturating_sub(4)).max(76).min(area.width);
    let groups: HashSet<_> = picker.items.iter().map(|item| &item.group).collect();
    let described: usize =
        picker.items.iter().map(|item| picker.described(item, width.saturating_sub(4)).len()).sum();
    let lines = u16::try_from(groups.len() + described).unwrap_or(u16::MAX).max(6).saturating_add(4);
    centred(area, width, area.height.saturating_sub(4).min(lines))
}

fn list_area(inside: Rect) -> Rect {
    Rect { y: inside.y + 2, height: inside.height.saturating_sub(2), ..inside }
}

pub fn panel(picker: &Picker, area: Rect) -> Panel {
    let keys = match picker.goals {
        Some(_) => "type a command, or position 17 · channel 300 · head 5.1 · token sea",
        None => "type to search · ↑↓ choose · Enter run · Esc close",
    };
    Panel::new(place(picker, area), picker.title, keys)
}

pub fn draw(picker: &Picker, theme: Theme, inside: Rect, buffer: &mut Buffer) {
    let base = theme.panel();
    if inside.is_empty() {
        return;
    }
    let count = format!("{} of {}", picker.matches.len(), picker.items.len());
    let [before, caret, after] = picker.query.spans(str::to_owned, theme);
    let mark = Span::styled("› ", base.patch(theme.focus()));
    let count = Span::styled(format!("  {count}"), base.patch(theme.dim()));
    put_line(buffer, inside, &[mark, before, caret, after, count]);
    let list = list_area(inside);
    if picker.matches.is_empty() {
        let said = picker.problem.as_deref().unwrap_or("no matches");
        put(buffer, list.x, list.y, list.width, said, base.patch(theme.dim()));
    }
    let lines = picker.lines(list.width);
    let first = picker.first(&lines, list.height.into());
    for (line, y) in lines.iter().skip(first).zip(list.top()..list.bottom()) {
        let Line { of: Some(i), columns: [a, b], text } = line else {
            put(buffer, list.x, y, list.width, &line.text, base.patch(theme.accent()));
            continue;
        };
        let selected = *i == picker.selected;
        let row = Rect { y, height: 1, ..list };
        if selected {
            buffer.set_style(row, theme.selected());
        }
        let style = |style| if selected { theme.selected() } else { base.patch(style) };
        put_line(
            buffer,
            row,
            &[
                Span::styled(pad(a, picker.widths[0]), style(theme.strong())),
                Span::styled(" ", style(theme.text())),
                Span::styled(pad(b, picker.widths[1]), style(theme.focus())),
                Span::styled(" ", style(theme.text())),
                Span::styled(text.as_str(), style(theme.dim())),
            ],
        );
    }
}
