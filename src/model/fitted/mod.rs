//! What others fitted to a model: sparse dictionaries of its activations, lenses on its layers.

pub mod dictionary;
mod labels;
pub mod lens;
mod made;
mod place;

pub use dictionary::Dictionary;
pub use labels::Labels;
pub use lens::FittedLens;
pub use place::Named;

use std::sync::{Arc, OnceLock};

use super::source::{LoadOptions, OnProgress};
use crate::config::Config;
use crate::error::{Error, Result};

/// What was fitted to one model: what was named, or else the demo model's own.
#[derive(Debug, Default)]
pub struct Fitted {
    dictionaries: Vec<Arc<Dictionary>>,
    lenses: Vec<FittedLens>,
    /// The demo model's own, read when they are asked for.
    own: OnceLock<(Vec<Arc<Dictionary>>, Vec<FittedLens>)>,
}

impl Fitted {
    /// Opens what `options` name.
    ///
    /// # Errors
    /// As [`Dictionary::open`] and [`FittedLens::open`]; [`Error::Usage`] for two dictionaries of one activation;
    /// [`Error::File`] for labels of none of them.
    pub fn open(options: &LoadOptions, config: &Config, on_progress: &OnProgress) -> Result<Self> {
        let mut dictionaries: Vec<Dictionary> = Vec::new();
        for name in &options.dictionaries {
            let one = Dictionary::open(name, config, options.offline, on_progress)?;
            if let Some(other) = dictionaries.iter().find(|other| other.writes == one.writes) {
                let (a, b) = (&other.name, &one.name);
                return Err(Error::usage(format!("`{a}` and `{b}` are both of {}: give one", one.writes)));
            }
            dictionaries.push(one);
        }
        if let Some(path) = &options.labels {
            Labels::read(path, &mut dictionaries)?;
        }
        let lens = |name: &String| FittedLens::open(name, config, options.offline, on_progress);
        Ok(Self {
            dictionaries: dictionaries.into_iter().map(Arc::new).collect(),
            lenses: options.lenses.iter().map(lens).collect::<Result<_>>()?,
            own: OnceLock::new(),
        })
    }

    /// The dictionaries that were named.
    pub fn named(&self) -> &[Arc<Dictionary>] {
        &self.dictionaries
    }

    pub(super) fn dictionaries(&self, of_demo: Option<&Config>) -> &[Arc<Dictionary>] {
        match of_demo {
            Some(config) if self.dictionaries.is_empty() => &self.own(config).0,
            _ => &self.dictionaries,
        }
    }

    pub(super) fn lenses(&self, of_demo: Option<&Config>) -> &[FittedLens] {
        match of_demo {
            Some(config) if self.lenses.is_empty() => &self.own(config).1,
            _ => &self.lenses,
        }
    }

    fn own(&self, config: &Config) -> &(Vec<Arc<Dictionary>>, Vec<FittedLens>) {
        let open = || {
            let dictionaries = Dictionary::demo(config).into_iter().map(Arc::new).collect();
            (dictionaries, FittedLens::demo(config))
        };
        self.own.get_or_init(open)
    }
}
