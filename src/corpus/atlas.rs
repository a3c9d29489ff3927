//! An atlas: the results of a corpus, unit by unit. One of the demo model is part of the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest, Reduce};
use super::table::Reader;
use super::units::Group;
use super::{merge, stats, top};
use crate::error::{Error, Result};
use crate::hooks::TensorName;
use crate::model::Model;
use crate::text::plain;

/// The results of a corpus.
#[derive(Debug, Clone)]
pub struct Atlas {
    pub manifest: Manifest,
    from: From,
    groups: Vec<Group>,
}

#[derive(Debug, Clone)]
enum From {
    Folder(PathBuf),
    Demo,
}

/// The tables of the demo model's atlas: how they are made is in `tools/train-demo/README.md`.
const DEMO: [(&str, &[u8]); 2] = [
    (top::FILE, include_bytes!("../../assets/atlas/top.parquet")),
    (stats::FILE, include_bytes!("../../assets/atlas/stats.parquet")),
];
const DEMO_MANIFEST: &str = include_str!("../../assets/atlas/manifest.json");

/// What a corpus shows of a unit.
#[derive(Debug, Clone)]
pub struct OfUnit {
    /// `neuron:2.117`
    pub name: String,
    pub examples: top::OfUnit,
    pub stats: Option<stats::OfUnit>,
    /// The texts of the tokens of the examples.
    pub texts: BTreeMap<u32, String>,
}

/// What a corpus shows of all units of a hook.
#[derive(Debug, Clone)]
pub struct OfGroup {
    pub group: Group,
    pub examples: Vec<top::OfUnit>,
    /// Empty if there are none.
    pub stats: Vec<stats::OfUnit>,
    /// The texts of the tokens of the examples.
    pub texts: BTreeMap<u32, String>,
}

impl Atlas {
    /// # Errors
    /// [`Error::File`] for a folder without finished results, or with those of several shards.
    pub fn open(folder: &Path) -> Result<Self> {
        let results = merge::results(folder)?;
        let [folder] = &results[..] else {
            return Err(Error::file(
                folder,
                format!("holds {} shards: merge them with actscope corpus merge", results.len()),
            ));
        };
        let manifest = Manifest::read(folder)?.ok_or_else(|| Error::file(folder, "has no manifest"))?;
        Self::new(manifest, From::Folder(folder.clone()))
    }

    /// That of the demo model.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn demo() -> Self {
        let manifest = Manifest::from_json(DEMO_MANIFEST, Path::new(manifest::FILE));
        manifest.and_then(|manifest| Self::new(manifest, From::Demo)).expect("the built-in atlas is valid")
    }

    fn new(manifest: Manifest, from: From) -> Result<Self> {
        let groups = manifest.groups()?;
        Ok(Self { manifest, from, groups })
    }

    /// Whether it has units of a tensor.
    pub fn has(&self, tensor: TensorName) -> bool {
        self.groups.iter().any(|group| group.tensor == tensor)
    }

    /// Checks that it is of this model.
    ///
    /// # Errors
    /// [`Error::Usage`] for an atlas of other weights.
    pub fn check(&self, model: &Model) -> Result<()> {
        let settings = &self.manifest.settings;
        if settings.origin.weights_sha256 == model.provenance.weights_sha256()? {
            return Ok(());
        }
        let (of, is) = (&settings.origin.model, model.provenance.name());
        Err(Error::usage(format!("the atlas is of {of}, with other weights than {is}: run the corpus again")))
    }

    /// Checks that it has units of a tensor, and, if they are features, that they are those of the model's dictionary.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has none, or those of another dictionary.
    pub fn check_tensor(&self, model: &Model, tensor: TensorName) -> Result<()> {
        let settings = &self.manifest.settings;
        if tensor.made.is_some() {
            let written = tensor.hook.to_string();
            let of = settings.dictionaries.iter().find(|one| one.writes == written);
            let is = model.dictionary_of(tensor.hook);
            if let Some((of, is)) = of.zip(is).filter(|(of, is)| of.sha256 != is.sha256()) {
                return Err(Error::usage(format!(
                    "the atlas has the features of {}, which are others than those of {}: run the corpus again",
                    plain(&of.name),
                    plain(&is.name)
                )));
            }
        }
        if self.has(tensor) {
            return Ok(());
        }
        let has = brief(&settings.hooks);
        Err(Error::usage(format!("the atlas has nothing of {tensor}: it has {has}")))
    }

    /// What it has of all units of a tensor.
    ///
    /// # Errors
    /// [`Error::Usage`] for a tensor that was not run, [`Error::File`] for tables that cannot be read.
    pub fn group(&self, tensor: impl Into<TensorName>) -> Result<OfGroup> {
        let settings = &self.manifest.settings;
        let tensor = tensor.into();
        let Some(at) = self.groups.iter().position(|group| group.tensor == tensor) else {
            let has = brief(&settings.hooks);
            return Err(Error::usage(format!("the atlas has nothing of {tensor}: it has {has}")));
        };
        let group = self.groups[at];
        let mut texts = BTreeMap::new();
        let examples = if settings.has(Reduce::Top) {
            top::units(&self.reader(top::FILE)?, at, group, &mut texts)?
        } else {
            vec![top::OfUnit::default(); group.n]
        };
        let stats = if settings.has(Reduce::Stats) {
            stats::units(&self.reader(stats::FILE)?, at, group)?
        } else {
            Vec::new()
        };
        Ok(OfGroup { group, examples, stats, texts })
    }

    /// What it has of the unit of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is none, or a unit of a hook that was not run.
    pub fn unit(&self, name: &str) -> Result<OfUnit> {
        let settings = &self.manifest.settings;
        let (group, unit) = Group::find(name, &settings.origin.config, &settings.written()?)?;
        Ok(self.group(group.tensor)?.unit(unit))
    }

    fn reader(&self, name: &'static str) -> Result<Reader> {
        match &self.from {
            From::Folder(folder) => Reader::open(&folder.join(name)),
            From::Demo => {
                let found = DEMO.iter().find(|(of, _)| *of == name);
                Reader::embedded(name, found.map_or(&[], |(_, bytes)| *bytes))
            }
        }
    }
}

impl OfGroup {
    /// What there is of one unit.
    ///
    /// # Panics
    /// If the hook has fewer units.
    pub fn unit(&self, unit: usize) -> OfUnit {
        OfUnit {
            name: self.group.name(unit),
            examples: self.examples[unit].clone(),
            stats: self.stats.get(unit).cloned(),
            texts: self.texts.clone(),
        }
    }

    /// The text of a token of an example.
    pub fn text(&self, id: u32) -> &str {
        self.texts.get(&id).map_or("", String::as_str)
    }
}

/// The first of some names.
fn brief(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more =
        if names.len() > SHOWN { format!(" and {} others", names.len() - SHOWN) } else { String::new() };
    names[..names.len().min(SHOWN)].join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Site;

    #[test]
    fn the_atlas_of_the_demo_model_is_of_the_demo_model() {
        let (atlas, model) = (Atlas::demo(), Model::demo());
        atlas.check(&model).unwrap();
        assert_eq!(atlas.manifest.settings.origin.config, *model.config());
        assert_eq!(atlas.manifest.settings.origin.tokenizer_sha256, model.tokenizer_sha256());
        for layer in 0..model.config().n_layer {
            for hook in [Site::MlpPost.at(layer), Site::Pattern.at(layer)] {
                let group = atlas.group(hook).unwrap();
                for (unit, of) in group.examples.iter().enumerate() {
                    assert!(!of.best.is_empty(), "{}", group.group.name(unit));
                    assert_eq!(group.stats[unit].max, of.best[0].value);
                    assert!(
                        of.best[0].token_ids.iter().all(|id| group.text(*id) == model.tokenizer.show(*id))
                    );
                }
            }
        }
        assert!(atlas.group(Site::ResidPost.at(0)).is_err());
        let bytes: usize = DEMO.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 2_000_000, "{bytes}");
    }
}
