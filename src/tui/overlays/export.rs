//! The form for exporting what is on screen, or everything.

use std::path::PathBuf;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{centred, panel};
use crate::engine::Export;
use crate::export::figure;
use crate::hooks::HookName;
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::tui::app::App;
use crate::tui::text::put_line;

pub struct ExportForm {
    run: Arc<Run>,
    /// The run to subtract, if differences are on screen.
    base: Option<Arc<Run>>,
    /// The name of that difference.
    difference: &'static str,
    /// The tensor on screen.
    pub hook: HookName,
    pub head: Option<usize>,
    /// The chart on screen, instead of a tensor.
    chart: Option<Chart>,
    /// Everything that was captured, rather than that tensor.
    pub everything: bool,
    pub path: String,
    /// The name that the form started with.
    proposed: String,
}

impl ExportForm {
    /// For a tensor, or a chart under a name of its own, of a run or of what it has over another.
    pub fn new(
        (hook, head): (HookName, Option<usize>),
        chart: Option<(String, Chart)>,
        (run, base): (Arc<Run>, Option<Arc<Run>>),
        difference: &'static str,
    ) -> Self {
        let (name, chart, head) = match chart {
            Some((name, chart)) => (name, Some(chart), None),
            None => (head.map_or_else(|| hook.to_string(), |head| format!("{hook}.head{head}")), None, head),
        };
        let (everything, empty) = (false, String::new);
        let form =
            Self { run, base, difference, hook, head, chart, everything, path: empty(), proposed: empty() };
        let path = format!("{name}{}.png", form.suffix());
        Self { proposed: path.clone(), path, ..form }
    }

    /// The request to write.
    pub fn export(self, path: PathBuf, figure: figure::Options) -> Export {
        let Self { run, base, difference, hook, head, chart, everything, .. } = self;
        let (hook, chart) = if everything { (None, None) } else { (Some(hook), chart) };
        Export { run, base, difference, hook, head, chart, path, figure }
    }

    /// The suffix in the names of differences.
    fn suffix(&self) -> &'static str {
        if self.base.is_some() { ".difference" } else { "" }
    }

    /// Handles a key; `true` to write.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return !self.path.trim().is_empty(),
            KeyCode::Tab | KeyCode::BackTab => self.toggle(),
            KeyCode::Backspace => drop(self.path.pop()),
            KeyCode::Char('u') if ctrl => self.path.clear(),
            KeyCode::Char(c) if !ctrl => self.path.push(c),
            _ => {}
        }
        false
    }

    pub fn paste(&mut self, text: &str) {
        self.path.extend(text.chars().filter(|c| !c.is_control()));
    }

    /// A figure cannot show everything, so the proposed name follows the choice.
    fn toggle(&mut self) {
        self.everything = !self.everything;
        let all = format!("run{}.safetensors", self.suffix());
        if self.everything && self.path == self.proposed {
            self.path = all;
        } else if !self.everything && self.path == all {
            self.path.clone_from(&self.proposed);
        }
    }
}

pub fn draw(form: &ExportForm, app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let base = theme.panel();
    let keys = "Tab what · Enter write · Ctrl-U clear · Esc close";
    let inside = panel(centred(area, 84, 9), "Export", keys, theme, buffer);
    let line = |y: u16| Rect { y: inside.y + y, height: 1.min(inside.height.saturating_sub(y)), ..inside };
    let dim = base.patch(theme.dim());
    let pick = |on: bool| if on { base.patch(theme.accent()) } else { dim };
    let head = form.head.map_or_else(String::new, |head| format!(" head {head}"));
    let difference = if form.base.is_some() { format!(", {}", form.difference) } else { String::new() };
    let tensor = || format!("{}{head}{difference}", form.hook);
    let name = form.chart.as_ref().map_or_else(tensor, |chart| chart.title.clone());
    let one = format!("{} {name}", if form.everything { '○' } else { '●' });
    let all = format!("{} every tensor of the run{difference}", if form.everything { '●' } else { '○' });
    put_line(buffer, line(1), &[Span::styled("write  ", dim), Span::styled(one, pick(!form.everything))]);
    put_line(buffer, line(2), &[Span::styled("       ", dim), Span::styled(all, pick(form.everything))]);
    put_line(
        buffer,
        line(4),
        &[
            Span::styled("to     ", dim),
            Span::styled(form.path.clone(), base.patch(theme.strong())),
            Span::styled("▏", base.patch(theme.accent())),
        ],
    );
    let kinds = match (form.everything, &form.chart) {
        (true, _) => "the extension sets the format: .safetensors .npz .json",
        (false, Some(_)) => "the extension sets the format: .png .svg",
        (false, None) => "the extension sets the format: .png .svg, or .safetensors .npz .npy .csv .json",
    };
    put_line(buffer, line(5), &[Span::styled(format!("       {kinds}"), dim)]);
}
