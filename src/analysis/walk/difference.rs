//! What a step shows of two runs: the numbers of one without those of the other.

use super::{At, Cell, Fact, Operand, Page, Piece, Table, TableRow, label};
use crate::analysis::base::Minus;
use crate::error::Result;
use crate::run::Run;

/// Rows of a table that lists what differs most.
const LISTED: usize = 8;

impl Page {
    /// What a step shows of `run`, its tensors and tables without those of `minus`, if there is one.
    /// The words, the curve and the check stay those of `run`.
    pub fn with_base(run: &Run, base: Option<&Run>, at: At) -> Result<Self> {
        let Some(base) = base else { return Self::new(run, at) };
        let page = Self::of_pair(run, Some(base), at)?;
        Ok(page.minus(&Self::of_pair(base, Some(run), at)?))
    }

    /// Whether a name is that of an operand that is the same in every run.
    fn is_same(&self, name: &str) -> bool {
        self.operands().any(|operand| operand.name == name && !operand.differs())
    }
}

impl Operand {
    /// Whether it may be another in another run.
    fn differs(&self) -> bool {
        self.view.is_some_and(|view| !view.source.is_same())
    }
}

impl Minus for Page {
    fn minus(&self, base: &Self) -> Self {
        // Tokens that are drawn may be others, and their numbers then belong to others.
        let words = |page: &Self| -> Vec<_> {
            page.facts.iter().filter(|fact| matches!(fact.value, Cell::Text(_))).cloned().collect()
        };
        let comparable = words(self) == words(base);
        let fact = |fact: &Fact| {
            let other = base.facts.iter().find(|other| other.name == fact.name);
            match (&fact.value, other.map(|other| &other.value)) {
                (Cell::Number(a), Some(Cell::Number(b))) if comparable && !self.is_same(&fact.name) => {
                    Fact { name: format!("Δ {}", fact.name), value: Cell::Number(a.minus(b)) }
                }
                _ => fact.clone(),
            }
        };
        let table = |(table, other): (&Table, &Table)| {
            let same: Vec<_> = table.columns[1..].iter().map(|name| self.is_same(name)).collect();
            cut(minus(table, other, &same))
        };
        Self {
            parts: parts(self, base),
            facts: self.facts.iter().map(fact).collect(),
            tables: self.tables.iter().zip(&base.tables).map(table).collect(),
            ..self.clone()
        }
    }
}

/// The operation in differences. What is added to both runs alike drops out; a product of two
/// tensors that both differ is not the product of their differences, and is not written as one.
fn parts(of: &Page, base: &Page) -> Vec<Piece> {
    let mut others = base.operands();
    let mut parts: Vec<Piece> = Vec::new();
    for part in &of.parts {
        let Piece::Operand(operand) = part else {
            parts.push(part.clone());
            continue;
        };
        let other = others.next();
        if !operand.differs() {
            if matches!(parts.last(), Some(Piece::Sign("+"))) {
                parts.pop();
            } else {
                parts.push(part.clone());
            }
            continue;
        }
        let other = other.map_or(&[][..], |other| &other.values);
        let values = operand.values.iter().zip(other).map(|(a, b)| a.minus(b)).collect();
        parts.push(Piece::Operand(Operand {
            name: format!("Δ {}", operand.name),
            values,
            ..operand.clone()
        }));
    }
    let differs = |part: &Piece| matches!(part, Piece::Operand(operand) if operand.differs());
    let product =
        |three: &[Piece]| matches!(three[1], Piece::Sign("×")) && differs(&three[0]) && differs(&three[2]);
    if parts.windows(3).any(product) {
        for part in &mut parts {
            match part {
                Piece::Sign(sign @ "×") => *sign = ",",
                Piece::Sign(sign @ "=") => *sign = "→",
                _ => {}
            }
        }
    }
    parts
}

/// The numbers of one table without those of another; columns that are the `same` stay.
fn minus(table: &Table, base: &Table, same: &[bool]) -> Table {
    let other = |row: &TableRow, at: usize| match row.index {
        Some(index) => base.rows.iter().find(|other| other.index == Some(index)),
        None => base.rows.get(at),
    };
    let cell = |a: &Cell, b: Option<&Cell>, same: bool| match (a, b) {
        (Cell::Number(a), Some(Cell::Number(b))) if !same => Cell::Number(a.minus(b)),
        _ => a.clone(),
    };
    let row = |(at, row): (usize, &TableRow)| {
        let other = other(row, at);
        let cells = row.cells.iter().zip(same).enumerate();
        let cells = cells.map(|(i, (a, same))| cell(a, other.and_then(|other| other.cells.get(i)), *same));
        TableRow { cells: cells.collect(), ..row.clone() }
    };
    let numbers =
        |column: usize| table.rows.iter().any(|row| matches!(row.cells.get(column), Some(Cell::Number(_))));
    let mut columns = table.columns.clone();
    for (i, name) in columns.iter_mut().skip(1).enumerate() {
        if numbers(i) && !same[i] {
            *name = format!("Δ {name}");
        }
    }
    Table { columns, rows: table.rows.iter().enumerate().map(row).collect(), ..table.clone() }
}

/// A list of channels or neurons, cut to the selected one and those that differ most; what is left
/// out is added up where the table has a sum.
fn cut(table: Table) -> Table {
    if ![label("channel"), label("neuron")].contains(&table.columns[0].as_str()) {
        return table;
    }
    let size = |row: &TableRow| match row.cells.last() {
        _ if row.marked => f32::INFINITY,
        Some(Cell::Number(x)) => x.abs(),
        _ => 0.0,
    };
    let (mut rows, sums): (Vec<_>, Vec<_>) = table.rows.into_iter().partition(|row| row.index.is_some());
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let rest = rows.split_off(rows.len().min(LISTED));
    if !rest.is_empty() && !sums.is_empty() {
        let values = rest.iter().filter_map(|row| match row.cells.last() {
            Some(Cell::Number(x)) => Some(f64::from(*x)),
            _ => None,
        });
        let mut cells = vec![Cell::Text(String::new()); table.columns.len() - 2];
        cells.push(Cell::Number(values.sum::<f64>() as f32));
        let name = format!("{} {}", rest.len(), label("rest"));
        rows.push(TableRow { label: name, cells, marked: false, index: None });
    }
    rows.extend(sums);
    Table { rows, ..table }
}
