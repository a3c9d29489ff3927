//! The active features of a sparse dictionary, at a position or on the whole prompt, and the page of each.

mod page;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Span;

use super::{Scene, draw_computing};
use crate::analysis::features::{Active, Asked, Listed, Page};
use crate::engine::{Look, Request, Seen, Slot};
use crate::hooks::{HookName, Made, Quantity, Site, TensorName};
use crate::interventions::{Place, Target};
use crate::model::Dictionary;
use crate::model::fitted::dictionary::Fit;
use crate::picture::range::{Range, RangeMode};
use crate::run::Run;
use crate::text::{plain, signed_fixed};
use crate::tui::actions::moved;
use crate::tui::app::{App, Selection};
use crate::tui::command::{CHANGES, Command};
use crate::tui::overlays::Asked as TokenAsked;
use crate::tui::text::{count, fit, fixed, num, pad, put, put_line};
use crate::tui::theme::Theme;
use crate::tui::what_if::Side;
use crate::tui::widgets::bar::bar;
use crate::tui::widgets::row_strip;

/// The lines around the cursor of which the promoted tokens are known: as many as fit on a screen.
const KNOWN: usize = 96;
/// Columns: the feature, its activation, its share and its effect; the bar; the words at least; the space between.
const NUMBERS: usize = 36;
const BAR: usize = 12;
const WORDS: usize = 24;
/// The width from which the activations along the prompt are beside the list.
const WIDE: u16 = 96;
/// Lines above the list.
const ABOVE: u16 = 3;

/// The state of this screen.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Which dictionary of the model.
    dictionary: usize,
    /// The selected feature; where it is not listed, the strongest.
    feature: Option<u32>,
    /// Whether all of the prompt are listed, and not those of the selected position.
    anywhere: bool,
    /// Whether its page is shown.
    page: bool,
    /// The token whose logit they have an effect on; the likeliest, if none was chosen.
    token: Option<u32>,
}

/// The dictionary that is shown.
fn dictionary<'a>(app: &App, run: &'a Run) -> Option<&'a Dictionary> {
    let all = run.model.dictionaries();
    all.get(app.screens.features.dictionary.min(all.len().checked_sub(1)?)).map(|one| &**one)
}

fn index(app: &App, run: &Run) -> usize {
    app.screens.features.dictionary.min(run.model.dictionaries().len().saturating_sub(1))
}

fn seen<'a>(app: &'a App, run: &Run) -> Option<(&'a Fit, &'a Listed)> {
    match &**app.seen.get(&Slot::Features)? {
        Seen::Features(Look::Features { dictionary, asked }, fit, listed)
            if *dictionary == index(app, run)
                && asked.position.is_none() == app.screens.features.anywhere =>
        {
            Some((fit, listed))
        }
        _ => None,
    }
}

/// The selected feature.
fn selected<'a>(app: &'a App, run: &Run) -> Option<&'a Active> {
    if app.screens.features.page {
        return page(app, run).map(|page| &page.of);
    }
    let (_, listed) = seen(app, run)?;
    listed.list.get(line(app, listed))
}

/// The page of the selected feature, if it is shown and known.
fn page<'a>(app: &'a App, run: &Run) -> Option<&'a Page> {
    let chosen = app.screens.features.feature.filter(|_| app.screens.features.page)?;
    match &**app.seen.get(&Slot::Feature)? {
        Seen::Feature(Look::Feature { dictionary, .. }, page)
            if *dictionary == index(app, run) && page.of.feature == chosen =>
        {
            Some(page)
        }
        _ => None,
    }
}

/// Its line in the list.
fn line(app: &App, listed: &Listed) -> usize {
    let chosen = app.screens.features.feature;
    listed.list.iter().position(|one| Some(one.feature) == chosen).unwrap_or(0)
}

/// The widths of the words and of the strips.
fn columns(area: Rect, n_tokens: usize) -> (usize, u16) {
    let rest = usize::from(area.width).saturating_sub(NUMBERS + BAR);
    if area.width < WIDE {
        return (rest, 0);
    }
    let strip = (2 * n_tokens).min(rest.saturating_sub(WORDS + 2)).min(rest * 2 / 3);
    (rest - strip - 2, strip as u16)
}

/// The first line of the list that is on screen, and how many are.
fn window(app: &App, listed: &Listed, area: Rect) -> (usize, usize) {
    let room = usize::from(area.height.saturating_sub(ABOVE));
    let shown = room.min(listed.list.len());
    (line(app, listed).saturating_sub(shown / 2).min(listed.list.len() - shown), shown)
}

/// The screen.
pub struct Body;

impl Scene for Body {
    fn commands(&self) -> &'static [&'static [Command]] {
        &[
            &[Command::PreviousLayer, Command::NextLayer, Command::FeaturesMode],
            CHANGES,
            &[Command::ChooseToken, Command::FinalAnswer],
        ]
    }

    fn arrows(&self, app: &App) -> &'static [(&'static str, &'static str)] {
        if app.screens.features.page {
            &[("←→", "position"), ("↑↓", "feature"), ("Enter", "its tensor"), ("Esc", "list")]
        } else {
            &[("←→", "position"), ("↑↓", "feature"), ("Enter", "its page")]
        }
    }

    fn wanted(&self, app: &App, run: &Run, _area: Rect) -> Vec<(Slot, Look)> {
        if dictionary(app, run).is_none() {
            return Vec::new();
        }
        let (dictionary, position) = (index(app, run), app.selection.position);
        let State { feature, anywhere, page, token, .. } = app.screens.features;
        let asked = Asked {
            position: (!anywhere).then_some(position),
            around: (feature, KNOWN),
            token,
            versus: None,
        };
        let mut looks = vec![(Slot::Features, Look::Features { dictionary, asked })];
        if let Some(feature) = feature.filter(|_| page) {
            looks.push((Slot::Feature, Look::Feature { dictionary, feature, position, token }));
        }
        looks
    }

    /// The page shows examples of a corpus.
    fn refresh(&self, app: &mut App) -> Option<Request> {
        let run = app.run.clone().filter(|_| app.screens.features.page)?;
        let (tensor, _) = self.unit(app, &run).ok()?;
        let atlas = app.atlas.atlas.as_ref()?;
        atlas.check_tensor(&run.model, tensor).ok()?;
        app.atlas.need(tensor)
    }

    fn take_token(&self, app: &mut App, _asked: TokenAsked, token: Option<u32>) {
        app.screens.features.token = token;
    }

    /// The features of the token, or of the prompt.
    fn turn(&self, app: &mut App, _by: isize) {
        let state = &mut app.screens.features;
        (state.anywhere, state.page) = (!state.anywhere, false);
    }

    fn back(&self, app: &mut App) {
        app.screens.features.page = false;
    }

    fn draw(&self, app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
        let theme = app.theme;
        let Some(dictionary) = dictionary(app, run) else {
            for (text, y) in WITHOUT.iter().zip(area.y..area.bottom()) {
                put(buffer, area.x, y, area.width, text, theme.dim());
            }
            return;
        };
        let Some((about, listed)) = seen(app, run) else {
            match app.seen.get(&Slot::Features).map(|seen| &**seen) {
                Some(Seen::Nothing(_, why)) => {
                    put(buffer, area.x, area.y, area.width, why, theme.bad());
                }
                _ => draw_computing(buffer, area, theme),
            }
            return;
        };
        if app.screens.features.page {
            page::draw(app, run, dictionary, area, buffer);
            return;
        }
        put_line(buffer, Rect { height: 1, ..area }, &title(run, dictionary, listed, theme));
        let style = if about.explained < 0.0 { theme.bad() } else { theme.dim() };
        put(buffer, area.x, area.y + 1, area.width, &about.to_string(), style);
        let (words, strip) = columns(area, run.n_tokens());
        let (per_cell, _) = row_strip::fit(run.n_tokens(), strip);
        let along = match (strip, per_cell) {
            (0, _) => String::new(),
            (_, 1) => "along the prompt".into(),
            (_, n) => format!("along the prompt, {n} tokens a cell"),
        };
        let [value, share, effect] = match listed.position {
            Some(_) => ["value", "share", "effect"],
            None => ["largest", "tokens", ""],
        };
        let heads = format!(
            " {:>7} {value:>8} {share:>7} {effect:>8}  {}{}  {along}",
            "feature",
            " ".repeat(BAR),
            pad("label, and what it promotes", words)
        );
        put(buffer, area.x, area.y + 2, area.width, heads.trim_end(), theme.dim());
        if strip > 0 {
            // Above the selected position.
            let (per_cell, wide) = row_strip::fit(run.n_tokens(), strip);
            let x = area.right().saturating_sub(strip) + (app.selection.position / per_cell * wide) as u16;
            put(buffer, x, area.y + 2, 1, "▾", theme.accent());
        }
        draw_list(app, run, area, buffer);
    }

    fn inspect<'a>(&self, app: &'a App, run: &'a Run) -> Vec<Vec<Span<'a>>> {
        let theme = app.theme;
        let (Some(dictionary), Some(one)) = (dictionary(app, run), selected(app, run)) else {
            return vec![vec![Span::styled("no feature", theme.dim())]];
        };
        let target = Target::Feature { hook: dictionary.writes, feature: one.feature };
        let n = one.along.iter().filter(|x| **x > 0.0).count();
        let most = (0..one.along.len()).max_by(|a, b| one.along[*a].total_cmp(&one.along[*b])).unwrap_or(0);
        let first = vec![
            Span::styled(target.to_string(), theme.accent()),
            Span::styled(
                format!(
                    "  {} here, active at {} of {}, largest {} at {} {}",
                    num(one.along.get(app.selection.position).copied().unwrap_or(0.0)),
                    n,
                    count(one.along.len(), "position"),
                    num(one.along[most]),
                    most,
                    run.token_text(most)
                ),
                theme.text(),
            ),
        ];
        let tokens: Vec<_> = one.promotes.iter().map(|id| run.model.tokenizer.show(*id)).collect();
        let mut second = Vec::new();
        if let Some(label) = dictionary.labels.get(one.feature) {
            second.push(Span::styled(format!("{}   ", plain(label)), theme.good()));
        }
        if !tokens.is_empty() {
            second.push(Span::styled(format!("promotes {}", tokens.join(" ")), theme.text()));
        }
        let bos = match dictionary.expects_bos {
            Some(true) if !run.input.bos => " · it was fitted to prompts that begin with BOS",
            _ => "",
        };
        let third = vec![Span::styled(
            format!(
                "{} · {} · dictionary {} of {}{bos}",
                plain(&dictionary.name),
                dictionary.format,
                index(app, run) + 1,
                run.model.dictionaries().len()
            ),
            theme.dim(),
        )];
        vec![first, second, third]
    }

    fn hit(&self, _: &App, _: &Run, _: Rect, _: u16, _: u16) -> Option<Selection> {
        None
    }

    fn click(&self, app: &mut App, run: &Run, area: Rect, x: u16, y: u16) {
        let Some((_, listed)) = seen(app, run).filter(|_| !app.screens.features.page) else { return };
        let (first, shown) = window(app, listed, area);
        let clicked = y.checked_sub(area.y + ABOVE).map(usize::from).filter(|line| *line < shown);
        if let Some(line) = clicked.filter(|_| area.contains((x, y).into())) {
            app.screens.features.feature = Some(listed.list[first + line].feature);
        }
    }

    fn go(&self, app: &mut App, run: &Run, right: isize, down: isize) {
        app.selection.position = moved(app.selection.position, right, run.n_tokens());
        let Some((_, listed)) = seen(app, run).filter(|_| down != 0) else { return };
        let to = moved(line(app, listed), down, listed.list.len().max(1));
        app.screens.features.feature = listed.list.get(to).map(|one| one.feature);
    }

    fn go_layer(&self, app: &mut App, run: &Run, by: isize) {
        let n = run.model.dictionaries().len().max(1);
        app.screens.features.dictionary = moved(index(app, run), by, n);
        app.screens.features.feature = None;
    }

    fn open(&self, app: &mut App) -> Vec<Request> {
        let Some(run) = app.run.clone() else { return Vec::new() };
        if app.screens.features.page {
            if let Ok((tensor, feature)) = self.unit(app, &run) {
                app.selection.column = feature;
                app.open_in_stages(tensor);
            }
        } else if let Some(one) = selected(app, &run) {
            app.screens.features.feature = Some(one.feature);
            app.screens.features.page = true;
        }
        Vec::new()
    }

    /// So that the cursor stays on a feature that is switched off.
    fn settle(&self, app: &mut App) {
        let Some(run) = app.run.clone().filter(|_| app.screens.features.feature.is_none()) else { return };
        app.screens.features.feature = selected(app, &run).map(|one| one.feature);
    }

    fn without_difference(&self, _app: &App) -> Option<&'static str> {
        Some(Side::Changed.name())
    }

    fn subject(&self, app: &App) -> (HookName, Option<usize>) {
        let of = |run: &std::sync::Arc<Run>| dictionary(app, run).map(|one| one.writes);
        (app.run.as_ref().and_then(of).unwrap_or(Site::ResidPre.at(0)), None)
    }

    fn place(&self, app: &App) -> Result<Place, &'static str> {
        let none = "no feature is under the cursor";
        let run = app.run.as_ref().ok_or(none)?;
        let dictionary = dictionary(app, run).ok_or(none)?;
        let feature = selected(app, run).ok_or(none)?.feature;
        Ok(Place { target: Target::Feature { hook: dictionary.writes, feature }, position: None })
    }

    fn unit(&self, app: &App, run: &Run) -> Result<(TensorName, usize), &'static str> {
        let (of, one) =
            dictionary(app, run).zip(selected(app, run)).ok_or("no feature is under the cursor")?;
        let made = Some(Made::Features(of.n as u32));
        Ok((TensorName { hook: of.writes, made }, one.feature as usize))
    }

    fn place_in_flow(&self, app: &App) -> HookName {
        self.subject(app).0
    }

    fn token_shade(&self, app: &App, position: usize) -> Option<Color> {
        let one = selected(app, app.run.as_ref()?)?;
        let most = one.along.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        Some(app.theme.shade(Quantity::Probability, one.along.get(position)? / most))
    }
}

/// What is shown of a model without dictionaries.
const WITHOUT: [&str; 4] = [
    "This model has no sparse dictionary.",
    "",
    "Start with --dictionary PATH, or ID:FOLDER on the hub: a sparse autoencoder or transcoder in the layout of",
    "SAELens, sparsify, OpenAI or Dunefsky; several for several activations. The demo model has two of its own.",
];

/// What is listed.
fn title<'a>(run: &Run, dictionary: &Dictionary, listed: &Listed, theme: Theme) -> Vec<Span<'a>> {
    let to = if dictionary.is_transcoder() { format!(" → {}", dictionary.writes) } else { String::new() };
    let place =
        listed.position.map_or_else(|| "on this prompt".into(), |at| format!("at {}", run.token_text(at)));
    let active = format!("   {} of {} active {place}", listed.n_active, count(dictionary.n, "feature"));
    let effects = listed.effects.map_or_else(String::new, |effects| {
        let [features, error] = [effects.features, effects.error].map(|x| signed_fixed(x, 2));
        let token = run.model.tokenizer.show(effects.token);
        format!("   effect on the logit of {token}: features {features}, what they leave out {error}")
    });
    vec![
        Span::styled(format!("{}{to}", dictionary.reads), theme.accent()),
        Span::styled(active, theme.text()),
        Span::styled(effects, theme.dim()),
    ]
}

/// Its share at a position, or at how many positions it is active.
fn share(listed: &Listed, one: &Active) -> String {
    match listed.position {
        Some(_) => format!("{:>5} %", fixed(100.0 * one.share, 1)),
        None => format!("{:>7}", one.along.iter().filter(|x| **x > 0.0).count()),
    }
}

fn effect(one: &Active) -> String {
    one.effect.map_or_else(String::new, |effect| signed_fixed(effect, 3))
}

/// The features, the strongest first, each with its activations along the prompt.
fn draw_list(app: &App, run: &Run, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme;
    let (Some(dictionary), Some((_, listed))) = (dictionary(app, run), seen(app, run)) else { return };
    let (first, shown) = window(app, listed, area);
    let (words, strip) = columns(area, run.n_tokens());
    let limit = listed.list.iter().flat_map(|one| &one.along).copied().fold(f32::MIN_POSITIVE, f32::max);
    let range = Range { mode: RangeMode::Full, quantity: Quantity::Positive, limit, beyond: 0 };
    let most = listed.list.first().map_or(1.0, |one| one.value);
    let line = line(app, listed);
    let lines = listed.list.iter().enumerate().skip(first).take(shown);
    for ((i, one), y) in lines.zip(area.y + ABOVE..area.bottom()) {
        let is_selected = i == line;
        let style = if is_selected { theme.selected() } else { theme.text() };
        let tokens: Vec<_> = one.promotes.iter().map(|id| run.model.tokenizer.show(*id)).collect();
        let label = dictionary
            .labels
            .get(one.feature)
            .map_or_else(String::new, |label| format!("{}  ", plain(label)));
        let label = fit(&label, words);
        let rest = words.saturating_sub(unicode_width::UnicodeWidthStr::width(&*label));
        // Below and above what fits.
        let cut = match () {
            () if i == first && first > 0 => "▴",
            () if i + 1 == first + shown && i + 1 < listed.list.len() => "▾",
            () => " ",
        };
        let spans = [
            Span::styled(if is_selected { "▸" } else { cut }, theme.accent()),
            Span::styled(
                format!("{:>7} {:>8} {} {:>8}", one.feature, num(one.value), share(listed, one), effect(one)),
                style,
            ),
            Span::raw("  "),
            Span::styled(pad(&bar(one.value / most, BAR - 1), BAR), theme.amount()),
            Span::styled(label, theme.good()),
            Span::styled(pad(&fit(&tokens.join(" "), rest), rest), theme.dim()),
        ];
        put_line(buffer, Rect { y, height: 1, ..area }, &spans);
        if strip > 0 {
            let x = area.right().saturating_sub(strip);
            let place = Rect { x, y, width: strip, height: 1 };
            row_strip::draw(buffer, place, &one.along, &range, app.pooling, theme);
        }
    }
}
