//! The form for exporting what is on screen, or everything.

use std::path::PathBuf;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::{Position, Rect};
use ratatui::text::Span;

use super::field::Field;
use super::{Panel, centred};
use crate::analysis::Shown;
use crate::engine::Writing;
use crate::export::figure;
use crate::hooks::TensorName;
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::tui::text::{put_line, wrap_to};
use crate::tui::theme::Theme;

pub struct ExportForm {
    run: Arc<Run>,
    /// The base, where differences are on screen.
    base: Option<Arc<Run>>,
    /// The name of that difference.
    difference: &'static str,
    /// The tensor on screen.
    pub name: TensorName,
    pub head: Option<usize>,
    /// The chart on screen, instead of a tensor.
    chart: Option<Chart>,
    /// Everything that was captured, rather than that tensor.
    pub everything: bool,
    path: Field,
    /// The name that the form started with.
    proposed: String,
    stage: Stage,
    /// What is on screen, as the text of a view.
    view: String,
}

/// How far it is.
#[derive(Debug, PartialEq)]
enum Stage {
    Typing,
    /// There is such a file: Enter again replaces it.
    Replacing,
    Writing,
    Failed(String),
}

impl ExportForm {
    /// For a tensor, or a chart under a name of its own, of a run or of what it has over another.
    pub fn new(
        (tensor, head): (TensorName, Option<usize>),
        chart: Option<(String, Chart)>,
        (run, base): (Arc<Run>, Option<Arc<Run>>),
        difference: &'static str,
        view: String,
    ) -> Self {
        let (name, chart, head) = if let Some((name, chart)) = chart {
            (name, Some(chart), None)
        } else {
            let head_too = |head| format!("{tensor}.head{head}");
            (head.map_or_else(|| tensor.to_string(), head_too), None, head)
        };
        let proposed = format!("{name}{}.png", suffix(base.is_some()));
        let path = Field::new(proposed.clone());
        Self {
            run,
            base,
            difference,
            name: tensor,
            head,
            chart,
            everything: false,
            path,
            proposed,
            stage: Stage::Typing,
            view,
        }
    }

    /// The request to write. The form stays until it is known how that went.
    pub fn export(&mut self, figure: figure::Options, (shown, metric): (Shown, Option<String>)) -> Writing {
        self.stage = Stage::Writing;
        Writing {
            run: Arc::clone(&self.run),
            base: self.base.clone(),
            difference: self.difference,
            name: (!self.everything).then_some(self.name),
            head: self.head,
            chart: self.chart.clone().filter(|_| !self.everything),
            path: self.path(),
            view: self.view.clone(),
            shown,
            metric,
            figure,
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(self.path.text().trim())
    }

    pub fn is_writing(&self) -> bool {
        self.stage == Stage::Writing
    }

    /// It could not be written.
    pub fn fail(&mut self, why: String) {
        self.stage = Stage::Failed(why);
    }

    /// Handles a key; `true` to write.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if self.is_writing() {
            return false;
        }
        let asked = std::mem::replace(&mut self.stage, Stage::Typing);
        match key.code {
            KeyCode::Enter if asked == Stage::Replacing => return true,
            KeyCode::Enter if self.path().exists() => self.stage = Stage::Replacing,
            KeyCode::Enter => return !self.path.text().trim().is_empty(),
            KeyCode::Tab | KeyCode::BackTab => self.toggle(),
            _ => drop(self.path.key(key)),
        }
        false
    }

    pub fn paste(&mut self, text: &str) {
        if !self.is_writing() {
            self.stage = Stage::Typing;
            self.path.paste(text);
        }
    }

    /// A click on what is to be written chooses it.
    pub fn click(&mut self, inside: Rect, at: Position) {
        let lines = [(ONE, false), (ALL, true)];
        let clicked = lines.into_iter().find(|(line, _)| inside.contains(at) && at.y == inside.y + line);
        if let Some((_, everything)) = clicked
            && everything != self.everything
            && !self.is_writing()
        {
            self.stage = Stage::Typing;
            self.toggle();
        }
    }

    /// A figure cannot show everything, so the proposed name follows the choice.
    fn toggle(&mut self) {
        self.everything = !self.everything;
        let all = format!("run{}.safetensors", suffix(self.base.is_some()));
        if self.everything && self.path.text() == self.proposed {
            self.path = Field::new(all);
        } else if !self.everything && self.path.text() == all {
            self.path = Field::new(self.proposed.clone());
        }
    }
}

/// The lines of the choices.
const ONE: u16 = 1;
const ALL: u16 = 2;

/// What the names of differences have more.
fn suffix(differs: bool) -> &'static str {
    if differs { ".difference" } else { "" }
}

pub fn panel(area: Rect) -> Panel {
    Panel::new(centred(area, 84, 10), "Export", "Tab what · Enter write · Ctrl-U clear · Esc close")
}

pub fn draw(form: &ExportForm, theme: Theme, inside: Rect, buffer: &mut Buffer) {
    let base = theme.panel();
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let dim = base.patch(theme.dim());
    let pick = |on: bool| if on { base.patch(theme.accent()) } else { dim };
    let head = form.head.map_or_else(String::new, |head| format!(" head {head}"));
    let difference = if form.base.is_some() { format!(", {}", form.difference) } else { String::new() };
    let tensor = || format!("{}{head}{difference}", form.name);
    let name = form.chart.as_ref().map_or_else(tensor, |chart| chart.title.clone());
    let one = format!("{} {name}", if form.everything { '○' } else { '●' });
    let all = format!("{} every tensor of the run{difference}", if form.everything { '●' } else { '○' });
    put_line(buffer, line(ONE), &[Span::styled("write  ", dim), Span::styled(one, pick(!form.everything))]);
    put_line(buffer, line(ALL), &[Span::styled("       ", dim), Span::styled(all, pick(form.everything))]);
    let [before, caret, after] = form.path.spans(str::to_owned, theme);
    put_line(buffer, line(4), &[Span::styled("to     ", dim), before, caret, after]);
    let kinds = match (form.everything, &form.chart) {
        (true, _) => "the extension sets the format: .safetensors .npz .json, .html (a page), .toml (a view)",
        (false, Some(_)) => "the extension sets the format: .png .svg",
        (false, None) => "the extension sets the format: .png .svg, or .safetensors .npz .npy .csv .json",
    };
    put_line(buffer, line(5), &[Span::styled(format!("       {kinds}"), dim)]);
    let (said, style) = match &form.stage {
        Stage::Typing => return,
        Stage::Replacing => ("there is such a file: Enter again replaces it", base.patch(theme.accent())),
        Stage::Writing => ("writing…", dim),
        Stage::Failed(why) => (&**why, base.patch(theme.bad())),
    };
    for (text, y) in wrap_to(said, usize::from(inside.width).saturating_sub(7), 2).into_iter().zip(6..) {
        put_line(buffer, line(y), &[Span::styled(format!("       {text}"), style)]);
    }
}
