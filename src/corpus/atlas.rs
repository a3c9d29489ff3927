//! An atlas: the results of a corpus, unit by unit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Reduce};
use super::units::Group;
use super::{merge, stats, top};
use crate::error::{Error, Result};

/// The results of a corpus in a folder.
#[derive(Debug, Clone)]
pub struct Atlas {
    pub manifest: Manifest,
    folder: PathBuf,
    groups: Vec<Group>,
}

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
        let groups = manifest.groups()?;
        Ok(Self { manifest, folder: folder.clone(), groups })
    }

    /// What it has of the unit of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is none, or a unit of a hook that was not run.
    pub fn unit(&self, name: &str) -> Result<OfUnit> {
        let settings = &self.manifest.settings;
        let (group, unit) = Group::find(name, &settings.config)?;
        if !self.groups.contains(&group) {
            let hooks = brief(&settings.hooks);
            return Err(Error::usage(format!("this atlas has nothing of {}: it has {hooks}", group.hook)));
        }
        let mut texts = BTreeMap::new();
        let mut examples = top::OfUnit::default();
        if settings.has(Reduce::Top) {
            let mut all = top::read_group(&self.folder, &self.groups, group.hook, &mut texts)?;
            examples = all.swap_remove(unit);
        }
        let stats = if settings.has(Reduce::Stats) {
            Some(stats::read_group(&self.folder, &self.groups, group.hook)?.swap_remove(unit))
        } else {
            None
        };
        Ok(OfUnit { name: group.name(unit), examples, stats, texts })
    }
}

/// The first of some names.
fn brief(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more =
        if names.len() > SHOWN { format!(" and {} others", names.len() - SHOWN) } else { String::new() };
    names[..names.len().min(SHOWN)].join(", ") + &more
}
