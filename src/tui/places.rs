//! Going places: back and forth through what was looked at, marks, and places by name.

use super::app::{App, Focus, Screen, Selection};

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    screen: Screen,
    selection: Selection,
    focus: Focus,
}

impl Place {
    pub fn of(app: &App) -> Self {
        Self { screen: app.screen, selection: app.selection, focus: app.focus }
    }

    /// Goes there, as far as the present run and model have it.
    fn go(self, app: &mut App) {
        let Some(run) = &app.run else { return };
        let (last, config) = (run.n_tokens() - 1, run.config());
        let mut selection = self.selection;
        selection.position = selection.position.min(last);
        selection.key = selection.key.min(last);
        selection.layer = selection.layer.min(config.n_layer - 1);
        selection.head = selection.head.min(config.n_head - 1);
        (app.screen, app.selection, app.focus) = (self.screen, selection, self.focus);
    }
}

/// The places before and after the present one, newest last, and the marked ones.
#[derive(Debug, Clone, Default)]
pub struct Places {
    before: Vec<Place>,
    after: Vec<Place>,
    marks: Vec<Place>,
    /// Going back is not leaving.
    travels: bool,
}

/// The places that are kept.
const KEPT: usize = 200;

impl Places {
    /// Keeps `before` if another screen is shown now.
    pub fn follow(&mut self, before: Place, now: Place) {
        if !std::mem::take(&mut self.travels) && before.screen != now.screen {
            self.left(before);
        }
    }

    /// `place` was left for another one.
    pub fn left(&mut self, place: Place) {
        self.after.clear();
        if self.before.last() != Some(&place) {
            self.before.push(place);
        }
        if self.before.len() > KEPT {
            self.before.remove(0);
        }
    }
}

/// Goes back to the place that was left last.
pub fn back(app: &mut App) {
    travel(app, true);
}

/// Goes forth to the place that was left by going back.
pub fn forth(app: &mut App) {
    travel(app, false);
}

fn travel(app: &mut App, back: bool) {
    let here = Place::of(app);
    let Places { before, after, travels, .. } = &mut app.places;
    let (from, to, end) = if back {
        (before, after, "this is where you started")
    } else {
        (after, before, "this is where you came back from")
    };
    match from.pop() {
        Some(place) => {
            to.push(here);
            *travels = true;
            place.go(app);
        }
        None => app.note(end),
    }
}

/// Marks the present place, or removes its mark.
pub fn mark(app: &mut App) {
    let here = Place::of(app);
    let marks = &mut app.places.marks;
    let n = marks.len();
    marks.retain(|place| *place != here);
    let said = if marks.len() < n {
        "the mark here is gone".to_owned()
    } else {
        marks.push(here);
        format!("marked, number {}: ' goes from mark to mark", marks.len())
    };
    app.note(said);
}

/// Goes to the next mark.
pub fn next_mark(app: &mut App) {
    let here = Place::of(app);
    let marks = &app.places.marks;
    let at = marks.iter().position(|place| *place == here);
    match marks.get(at.map_or(0, |at| (at + 1) % marks.len().max(1))).copied() {
        Some(place) => {
            app.places.left(here);
            place.go(app);
        }
        None => app.note("no marks yet: \" marks what you look at"),
    }
}

/// A place by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Position(usize),
    Channel(usize),
    Layer(usize),
    Head(usize, usize),
}

/// What there is to go to.
#[derive(Debug, Clone, Default)]
pub struct Goals {
    /// The texts of the tokens.
    pub tokens: Vec<String>,
    /// The selected one.
    pub position: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
}

impl Goals {
    pub fn of(app: &App) -> Self {
        let Some(run) = &app.run else { return Self::default() };
        let config = run.config();
        Self {
            tokens: (0..run.n_tokens()).map(|position| run.token_text(position)).collect(),
            position: app.selection.position,
            n_embd: config.n_embd,
            n_layer: config.n_layer,
            n_head: config.n_head,
        }
    }

    /// The place that `position 17`, `channel 300`, `head 5.1`, `layer 3` or `token sea` names, in words; or why
    /// there is none. `None` if the text names no place.
    pub fn find(&self, text: &str) -> Option<Result<(Goal, String), String>> {
        let (word, rest) = text.trim_start().split_once(' ')?;
        let rest = rest.trim();
        if rest.is_empty() {
            return None;
        }
        Some(match word {
            "position" | "pos" => within(rest, "position", self.tokens.len()).map(|position| {
                (Goal::Position(position), format!("position {position}: {}", self.tokens[position]))
            }),
            "channel" => within(rest, "channel", self.n_embd)
                .map(|channel| (Goal::Channel(channel), format!("channel {channel}"))),
            "layer" | "block" => within(rest, "block", self.n_layer)
                .map(|layer| (Goal::Layer(layer), format!("block {layer}"))),
            "head" => {
                self.head(rest).map(|(layer, head)| (Goal::Head(layer, head), format!("head {layer}.{head}")))
            }
            "token" => self.token(rest).map(|position| {
                (Goal::Position(position), format!("position {position}: {}", self.tokens[position]))
            }),
            _ => return None,
        })
    }

    fn head(&self, text: &str) -> Result<(usize, usize), String> {
        let Some((layer, head)) = text.split_once('.') else {
            return Err("a head is LAYER.HEAD, such as 5.1".into());
        };
        Ok((within(layer, "block", self.n_layer)?, within(head, "head", self.n_head)?))
    }

    /// The next position after the selected one, around the end, whose token is or contains `text`.
    fn token(&self, text: &str) -> Result<usize, String> {
        let text = text.trim_matches(['\'', '"']);
        let n = self.tokens.len();
        let order = || (1..=n).map(|by| (self.position + by) % n);
        let bare = |position: usize| self.tokens[position].trim_start_matches(['·', ' ']);
        let wanted = text.trim_start_matches(['·', ' ']);
        let exact = order().find(|&position| bare(position) == wanted);
        exact
            .or_else(|| order().find(|&position| self.tokens[position].contains(wanted)))
            .ok_or_else(|| format!("no token of the prompt has `{text}`"))
    }
}

/// A number below `n`.
fn within(text: &str, what: &str, n: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if number < n => Ok(number),
        Ok(number) => Err(format!("no {what} {number}: the last is {}", n.saturating_sub(1))),
        Err(_) => Err(format!("`{text}` is not the number of a {what}")),
    }
}

/// Goes to a place by name, on the same screen.
pub fn go_to(app: &mut App, goal: Goal) {
    app.places.left(Place::of(app));
    match goal {
        Goal::Position(position) => app.selection.position = position,
        Goal::Channel(channel) => app.selection.column = channel,
        Goal::Layer(layer) => set_layer(app, layer),
        Goal::Head(layer, head) => {
            set_layer(app, layer);
            app.selection.head = head;
        }
    }
}

fn set_layer(app: &mut App, layer: usize) {
    if let Some(run) = app.run.clone() {
        app.go_layer(&run, layer as isize - app.selection.layer as isize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goals() -> Goals {
        let tokens = ["The", "·sea", "·and", "·the", "·sea"].map(str::to_owned).into();
        Goals { tokens, position: 1, n_embd: 8, n_layer: 2, n_head: 4 }
    }

    #[test]
    fn places_have_names() {
        let found = |text: &str| goals().find(text).map(|found| found.map(|(goal, _)| goal));
        assert_eq!(found("position 3"), Some(Ok(Goal::Position(3))));
        assert_eq!(found("channel 7"), Some(Ok(Goal::Channel(7))));
        assert_eq!(found("block 1"), Some(Ok(Goal::Layer(1))));
        assert_eq!(found("head 1.3"), Some(Ok(Goal::Head(1, 3))));
        assert_eq!(found("token ' sea'"), Some(Ok(Goal::Position(4))), "the next one");
        assert_eq!(found("token an"), Some(Ok(Goal::Position(2))));
        for wrong in ["position 5", "position x", "channel 8", "layer 2", "head 1", "head 2.0", "token hill"]
        {
            assert!(found(wrong).is_some_and(|found| found.is_err()), "{wrong}");
        }
        for none in ["", "position", "position ", "zoom in", "token"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
