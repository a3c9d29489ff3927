//! A run that was saved, without its model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::export::Manifest;
use crate::foreign::{Foreign, Mapping, check};
use crate::interventions::{Donors, Interventions};
use crate::model::absent::Known;
use crate::model::{ActivationCache, Model};
use crate::run::{Input, Prompt, Run};
use crate::text::plain;

/// Far more than any model has; each has names.
const MOST_LAYERS: usize = 1 << 12;

/// What to say where weights are needed.
pub fn needs_model(model: &Model) -> Error {
    let name = plain(&model.provenance.model).into_owned();
    Error::usage(format!(
        "this needs the model, of which only this run is here: start again with --model {name}"
    ))
}

/// The run in a file that `actscope export` wrote; `None` if the file does not say enough of its model.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read, or is a part of a run, or a difference of two.
pub fn open(path: &Path) -> Result<Option<Run>> {
    let Some(manifest) = Foreign::about(path)?.manifest else { return Ok(None) };
    let Ok(manifest) = serde_json::from_value::<Manifest>(manifest) else { return Ok(None) };
    let Some(config) = manifest.config else { return Ok(None) };
    let refuse = |problem: String| Error::file(path, problem);
    let config = config.checked(&[], path)?;
    if config.n_layer > MOST_LAYERS {
        return Err(refuse(format!("claims to be of a model of {} blocks", config.n_layer)));
    }
    if let Some(difference) = &manifest.difference {
        return Err(refuse(format!("holds a difference, {}, and no run", plain(difference))));
    }
    if manifest.positions != [0, manifest.token_ids.len()] || manifest.token_ids.is_empty() {
        let [first, end] = manifest.positions;
        return Err(refuse(format!("holds positions {first}..{end} only: export all of them to open it")));
    }
    if manifest.token_ids.iter().any(|id| *id as usize >= config.vocab_size) {
        return Err(refuse("has token ids that its vocabulary does not have".into()));
    }
    // They are shown as they are.
    let texts = manifest.tokens.iter().map(|text| plain(text).into_owned());
    let texts: BTreeMap<u32, String> = manifest.token_ids.iter().copied().zip(texts).collect();
    let known = Known {
        config,
        model: plain(&manifest.model).into_owned(),
        revision: manifest.revision,
        weights_sha256: manifest.weights_sha256,
        texts,
    };
    let mut notes = Vec::new();
    if !manifest.interventions.is_idle() {
        notes.push(format!("this run was saved with changes: {}", manifest.interventions));
    }
    let model = Arc::new(Model::absent(known, notes)?);
    let foreign = Foreign::open(path, None, &Mapping::default(), model.config())?;
    let tensors = check::tensors(&model.net, &foreign, &manifest.token_ids)?;
    if tensors.is_empty() {
        return Err(refuse("has no tensor that can be shown".into()));
    }
    let (ids, bos) = (&manifest.token_ids, model.config().bos_token_id);
    let bos = bos.filter(|id| manifest.bos && ids.first() == Some(id));
    let ids = ids[usize::from(bos.is_some())..].to_vec();
    let input = Input::new(Prompt::Ids(ids)).with_bos(bos.is_some());
    Ok(Some(Run {
        cache: ActivationCache::holding(tensors, &model.net),
        input: input.with_interventions(Interventions::default()),
        tokens: manifest.token_ids,
        took: Duration::ZERO,
        changed: None,
        donors: Donors::default(),
        reader: None,
        model,
    }))
}
