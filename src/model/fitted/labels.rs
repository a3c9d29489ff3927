//! What features were found to be about, in words.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::Dictionary;
use crate::error::Error;
use crate::files::{self, LABELS};

/// The labels of a dictionary's features, by feature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<u32, String>);

/// Of the demo model's own dictionaries, by hand, from what they are active on in the held-out books.
const DEMO: &str = include_str!("../../../assets/fitted/labels.jsonl");

impl Labels {
    /// Those of the demo model's own dictionaries.
    pub(super) fn of_demo(dictionary: &Dictionary) -> Self {
        Self::parse(DEMO, dictionary).unwrap_or_default()
    }

    /// Gives each dictionary what a file has of it.
    ///
    /// # Errors
    /// [`Error::File`] for what is no list of labels, or one of none of them.
    pub(super) fn read(path: &Path, dictionaries: &mut [Dictionary]) -> Result<(), Error> {
        let refuse = |problem| Error::file(path, problem);
        let text = files::read(path, LABELS)?;
        let text = String::from_utf8(text).map_err(|_| refuse("is not UTF-8 text".to_owned()))?;
        for one in &mut *dictionaries {
            one.labels = Self::parse(&text, one).map_err(refuse)?;
        }
        if dictionaries.iter().all(|one| one.labels == Self::default()) {
            return Err(refuse("has no label for any dictionary that was given".into()));
        }
        Ok(())
    }

    /// Reads Neuronpedia's JSON lines, `{modelId, layer, index, description}`, or lines of a feature and its label
    /// with a tab or comma between; those of other blocks are left out.
    ///
    /// # Errors
    /// What is wrong, and on which line.
    pub fn parse(text: &str, dictionary: &Dictionary) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: &str| format!("line {}: {what}", i + 1);
            let (feature, label) = if line.trim_start().starts_with('{') {
                let value: Value =
                    serde_json::from_str(line).map_err(|why| wrong(&format!("not JSON: {why}")))?;
                let layer = value["layer"].as_str().and_then(|layer| layer.split('-').next()?.parse().ok());
                if layer.is_some() && layer != dictionary.reads.layer {
                    continue;
                }
                let index = &value["index"];
                let index = index.as_u64().or_else(|| index.as_str()?.parse().ok());
                let index = index.ok_or_else(|| wrong("no index"))?;
                let label = value["description"].as_str().ok_or_else(|| wrong("no description"))?;
                (index, label.to_owned())
            } else {
                let (index, label) = line.split_once(['\t', ',']).ok_or_else(|| {
                    wrong("neither JSON nor a feature and its label with a tab or comma between")
                })?;
                match index.trim().parse() {
                    Ok(index) => (index, label.trim().trim_matches('"').to_owned()),
                    // The names of the columns.
                    Err(_) if i == 0 => continue,
                    Err(_) => return Err(wrong("the first column is no feature")),
                }
            };
            let feature = u32::try_from(feature).ok().filter(|feature| (*feature as usize) < dictionary.n);
            let feature = feature
                .ok_or_else(|| wrong(&format!("the dictionary has {} features, from 0", dictionary.n)))?;
            labels.entry(feature).or_insert(label);
        }
        Ok(Self(labels))
    }

    pub fn get(&self, feature: u32) -> Option<&str> {
        self.0.get(&feature).map(String::as_str)
    }
}
