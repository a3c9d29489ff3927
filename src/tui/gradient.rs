//! Gradients in place of values, and what they are of.

use ratatui::text::Span;

use super::actions::turned;
use super::app::App;
use super::overlays::{MetricForm, Overlay};
use crate::analysis::Shown;
use crate::analysis::gradients::{Inputs, Method};
use crate::engine::{Seen, Slot};

/// What is shown of tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub shown: Shown,
    /// As typed; `None`: the log-probability of the likeliest next token.
    pub metric: Option<String>,
    /// How the tokens of the prompt are coloured; `None`: by their surprise.
    pub inputs: Option<Method>,
    /// Whether total effects are shown beside direct ones.
    pub totals: bool,
}

impl State {
    /// What is before a number that is not a value.
    pub fn prefix(&self) -> &'static str {
        match self.shown {
            Shown::Value => "",
            Shown::Gradient => "∂m/∂x ",
            Shown::Times => "x · ∂m/∂x ",
        }
    }
}

/// What the numbers of a map are, if they are no values.
pub fn title(app: &App, slot: Slot) -> Vec<Span<'static>> {
    let theme = app.theme;
    if app.gradient.shown == Shown::Value {
        return Vec::new();
    }
    let of = match app.seen.get(&slot).map(|seen| &**seen) {
        Some(Seen::Map(map)) if map.metric.is_some() => {
            let words = map.metric.as_deref().unwrap_or_default();
            Span::styled(format!("m: {words}"), theme.text())
        }
        Some(Seen::Nothing(_, why)) => Span::styled(why.clone(), theme.bad()),
        _ => Span::styled("…", theme.dim()),
    };
    let what = Span::styled(format!("{}  ", app.gradient.prefix().trim()), theme.accent());
    vec![what, of, Span::styled("   R: next, Q: other m", theme.dim())]
}

/// The metric as an argument, if one was chosen.
pub fn flag(app: &App) -> Option<String> {
    app.gradient.metric.as_ref().map(|metric| format!("--metric={metric}"))
}

/// What the tokens account for, if that is asked, and what is missing of it.
pub fn inputs(app: &App) -> Option<Result<(&Inputs, &str), &str>> {
    app.gradient.inputs?;
    Some(match &**app.seen.get(&Slot::Inputs)? {
        Seen::Inputs(_, inputs, words) => Ok((inputs, words)),
        Seen::Nothing(_, why) => Err(why),
        _ => return None,
    })
}

/// Shows total effects beside direct ones, or not.
pub fn next_totals(app: &mut App) {
    app.gradient.totals = !app.gradient.totals;
    app.note(if app.gradient.totals {
        "beside each part: its total effect, through everything that reads it, by the gradient"
    } else {
        "direct contributions alone"
    });
}

/// Colours tokens by their surprise, or by what they account for.
pub fn next_inputs(app: &mut App) {
    let all = [None, Some(Method::GradTimesInput), Some(Method::Integrated(Method::STEPS))];
    app.gradient.inputs = turned(&all, app.gradient.inputs, 1);
    app.note(match app.gradient.inputs {
        None => "coloured by surprise",
        Some(Method::GradTimesInput) => "coloured by gradient × input: what each token accounts for",
        Some(Method::Integrated(_)) => "coloured by integrated gradients: what each token accounts for",
    });
}

/// Shows values, gradients, or both multiplied.
pub fn next_shown(app: &mut App) {
    app.gradient.shown = turned(&Shown::ALL, app.gradient.shown, 1);
    app.note(format!("showing: {}", app.gradient.shown.name()));
}

/// Asks for another metric.
pub fn ask(app: &mut App) {
    let typed = app.gradient.metric.clone().unwrap_or_default();
    app.overlay = Some(Overlay::Metric(MetricForm::new(&typed)));
}

/// Takes the metric that was typed, if it is one.
pub fn take(app: &mut App) {
    let Some(Overlay::Metric(form)) = &app.overlay else { return };
    let typed = form.text().to_owned();
    if !typed.is_empty() && !matches!(form.metric(app), Some(Ok(_))) {
        return;
    }
    app.overlay = None;
    app.gradient.metric = (!typed.is_empty()).then_some(typed);
    // What was computed of the other metric is no longer right.
    app.shown_id += 1;
}
