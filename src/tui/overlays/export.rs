//! Where to write what is on screen, or everything.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{centred, panel};
use crate::analysis::answer::DIFFERENCE;
use crate::hooks::HookName;
use crate::picture::chart::Chart;
use crate::run::Run;
use crate::tui::app::App;
use crate::tui::text::put_line;

pub struct ExportForm {
    /// The tensor on screen.
    pub hook: HookName,
    pub head: Option<usize>,
    /// The chart on screen, in place of a tensor.
    pub chart: Option<Chart>,
    /// The run that is taken off, where differences are on screen.
    pub minus: Option<Arc<Run>>,
    /// All that was captured, rather than that tensor.
    pub everything: bool,
    pub path: String,
    /// The name that the form began with.
    proposed: String,
}

impl ExportForm {
    pub fn new(hook: HookName, head: Option<usize>, minus: Option<Arc<Run>>) -> Self {
        let name = head.map_or_else(|| hook.to_string(), |head| format!("{hook}.head{head}"));
        Self::named(
            &name,
            Self {
                hook,
                head,
                chart: None,
                minus,
                everything: false,
                proposed: String::new(),
                path: String::new(),
            },
        )
    }

    /// For a chart under a name of its own.
    pub fn of_chart(name: &str, chart: Chart, hook: HookName, minus: Option<Arc<Run>>) -> Self {
        Self::named(name, Self { chart: Some(chart), ..Self::new(hook, None, minus) })
    }

    fn named(name: &str, form: Self) -> Self {
        let path = format!("{name}{}.png", form.suffix());
        Self { proposed: path.clone(), path, ..form }
    }

    /// What the names of differences have more.
    fn suffix(&self) -> &'static str {
        if self.minus.is_some() { ".difference" } else { "" }
    }

    /// Handles a key; `true` when it is to be written.
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

    /// A figure cannot show everything: the name follows while it is the proposed one.
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
    let difference = if form.minus.is_some() { format!(", {DIFFERENCE}") } else { String::new() };
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
        (true, _) => "the ending decides: .safetensors .npz .json",
        (false, Some(_)) => "the ending decides: .png .svg",
        (false, None) => "the ending decides: .png .svg, or .safetensors .npz .npy .csv .json",
    };
    put_line(buffer, line(5), &[Span::styled(format!("       {kinds}"), dim)]);
}
