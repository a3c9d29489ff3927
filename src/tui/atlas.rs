//! Examples of units from a corpus: what has been read of the atlas, and asking for more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::app::App;
use super::overlays::{Examples, Overlay, Picker};
use crate::corpus::Atlas;
use crate::corpus::atlas::OfGroup;
use crate::corpus::units::Group;
use crate::engine::{Errand, Request};
use crate::hooks::{HookName, Site, TensorName};
use crate::model::{Config, Model};
use crate::run::{Input, Prompt};
use crate::text::count;

/// The atlas, and what has been read of it.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub atlas: Option<Arc<Atlas>>,
    groups: HashMap<TensorName, Arc<OfGroup>>,
    asked: HashSet<TensorName>,
}

impl State {
    pub fn new(atlas: Option<Atlas>) -> Self {
        Self { atlas: atlas.map(Arc::new), ..Self::default() }
    }

    /// The demo model has an atlas of its own, if no other was chosen.
    pub fn settle(&mut self, model: &Model) {
        if self.atlas.is_none() && model.provenance.model == "demo" && model.provenance.adapter.is_none() {
            self.atlas = Some(Arc::new(Atlas::demo()));
        }
    }

    /// What was read of a tensor.
    pub fn group(&self, tensor: TensorName) -> Option<&Arc<OfGroup>> {
        self.groups.get(&tensor)
    }

    /// Asks for a tensor, if the atlas has it and it was not asked for.
    pub fn need(&mut self, tensor: TensorName) -> Option<Request> {
        let atlas = self.atlas.as_ref().filter(|atlas| atlas.has(tensor))?;
        let is_new = self.asked.insert(tensor);
        is_new.then(|| Request::Errand(Errand::Examples(Arc::clone(atlas), tensor)))
    }
}

/// The hash of the weights is known: an atlas of others is put away.
pub fn check(app: &mut App) {
    let (Some(atlas), Some(model)) = (&app.atlas.atlas, &app.model) else { return };
    if let Err(why) = atlas.check(model) {
        app.atlas = State::default();
        app.complain(why.to_string());
    }
}

/// What was asked for is there, or why not.
pub fn arrived(app: &mut App, tensor: TensorName, found: Result<Arc<OfGroup>, String>) {
    match found {
        Ok(group) => {
            app.atlas.groups.insert(tensor, group);
        }
        Err(why) => {
            if matches!(&app.overlay, Some(Overlay::Examples(shown)) if shown.tensor == tensor) {
                app.overlay = None;
            }
            app.complain(why);
        }
    }
}

/// Shows the examples of the unit under the cursor.
pub fn show(app: &mut App) -> Vec<Request> {
    let Some(run) = app.run.clone() else { return Vec::new() };
    match app.screen.scene().unit(app, &run) {
        Ok((tensor, unit)) => open(app, tensor, unit),
        Err(why) => {
            app.note(why);
            Vec::new()
        }
    }
}

/// Shows the examples of a unit.
pub fn open(app: &mut App, tensor: TensorName, unit: usize) -> Vec<Request> {
    let Some(atlas) = &app.atlas.atlas else {
        app.complain("no examples: make an atlas with `actscope corpus run`, and start with --atlas DIR");
        return Vec::new();
    };
    let Some(model) = app.model.as_ref() else { return Vec::new() };
    if let Err(why) = atlas.check_tensor(model, tensor) {
        app.complain(why.to_string());
        return Vec::new();
    }
    app.overlay = Some(Overlay::Examples(Examples::new(tensor, unit)));
    app.atlas.need(tensor).into_iter().collect()
}

/// Lists the units of a tensor by the tokens that they fire on.
pub fn search(app: &mut App, tensor: TensorName) {
    if let Some(group) = app.atlas.group(tensor) {
        app.overlay = Some(Overlay::Picker(Picker::units(group)));
    }
}

/// Takes an example as the prompt, with the cursor where it fires.
pub fn take(app: &mut App, tensor: TensorName, unit: usize, at: usize) -> Vec<Request> {
    let (Some(group), Some(atlas)) = (app.atlas.group(tensor), &app.atlas.atlas) else { return Vec::new() };
    let Some(example) = group.examples[unit].all().nth(at) else { return Vec::new() };
    let bos = atlas.manifest.settings.bos;
    let position = example.at();
    let before = example.first;
    let prompt = Prompt::Ids(example.token_ids.to_vec());
    app.overlay = None;
    app.input = Input { prompt, bos, ..app.input.clone() };
    let requests = app.start_run();
    app.landing = Some(position + usize::from(bos));
    if before > 0 {
        let what = count(before as usize, "token");
        app.note(format!("without the {what} before it in its document, so values can differ"));
    }
    requests
}

/// The unit of a place in a tensor, if it has units.
pub fn unit_at(
    (hook, head): (HookName, Option<usize>),
    column: usize,
    config: &Config,
) -> Result<(TensorName, usize), &'static str> {
    let hook = match (hook.site, hook.layer) {
        (Site::AttnScores, Some(layer)) => Site::Pattern.at(layer),
        _ => hook,
    };
    let none =
        "no neuron, head or channel is here: try Stages, Attention, Heads, Attribution, Features or Weights";
    let unit = Group::new(hook, config).ok().and_then(|group| group.unit(head.unwrap_or(0), column));
    unit.map(|unit| (hook.into(), unit)).ok_or(none)
}
