//! What features were found to be about, in words.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Dictionary;

/// The labels of a dictionary's features, by feature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<u32, String>);

/// Of the demo model's own dictionaries, by hand, from what they are active on in the held-out books.
const DEMO: &str = include_str!("../../../assets/fitted/labels.jsonl");

impl Labels {
    /// Those of a dictionary that is part of the program; none, of any other.
    pub fn built_in(dictionary: &Dictionary) -> Self {
        let of_demo = dictionary.is_built_in().then(|| Self::parse(DEMO, dictionary).ok()).flatten();
        of_demo.unwrap_or_default()
    }

    /// Reads Neuronpedia's JSON lines, `{modelId, layer, index, description}`, or lines of a feature and its label
    /// with a tab or comma between; those of other blocks are left out.
    ///
    /// # Errors
    /// What is wrong, and on which line.
    pub fn parse(text: &str, dictionary: &Dictionary) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        let mut n_lines = 0;
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            n_lines += 1;
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
        if labels.is_empty() && n_lines > 0 {
            return Err(format!("has no label for {}", dictionary.reads));
        }
        Ok(Self(labels))
    }

    pub fn get(&self, feature: u32) -> Option<&str> {
        self.0.get(&feature).map(String::as_str)
    }
}
