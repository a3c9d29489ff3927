//! A file with tensors, of whichever kind its content shows.

use std::path::Path;

use candle_core::Tensor;

use super::safetensors::Safetensors;
use super::unchanged::Opened;
use super::{broken, guarded, own, unreadable};
use crate::config::ReadConfig;
use crate::error::{Error, Result};
use crate::model::format::Format;
use crate::model::llmc::LlmC;
use crate::model::pickle::Checkpoint;
use crate::sniff::Looks;

pub(super) enum WeightFile {
    Safetensors(Safetensors),
    Pickle(Checkpoint, Opened),
    LlmC(LlmC, Opened),
}

impl WeightFile {
    pub fn open(path: &Path) -> Result<Self> {
        let looks = Looks::of_file(path);
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            return match looks {
                Some(looks) if looks != Looks::Safetensors => Err(Error::file(path, looks.sentence())),
                _ => Safetensors::open(path).map(Self::Safetensors),
            };
        }
        let opened = || match path.metadata() {
            Ok(metadata) => Ok(Opened::new(&metadata)),
            Err(error) => Err(unreadable(path, &error.to_string())),
        };
        match looks {
            Some(Looks::Safetensors) => Safetensors::open(path).map(Self::Safetensors),
            Some(Looks::PyTorch) => {
                let open = || Checkpoint::open(path).map_err(|e| broken(path, &e));
                let opened = opened()?;
                Ok(Self::Pickle(guarded(path, open)?, opened))
            }
            Some(Looks::LlmC) => {
                let opened = opened()?;
                Ok(Self::LlmC(LlmC::open(path).map_err(|e| broken(path, &e))?, opened))
            }
            Some(looks) => Err(Error::file(path, looks.sentence())),
            None => {
                let problem = "is not a file of weights: not safetensors, and not of PyTorch or llm.c";
                Err(Error::file(path, problem))
            }
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Safetensors(file) if file.is_embedded() => "built in, safetensors",
            Self::Safetensors(_) => "safetensors",
            Self::Pickle(..) => "PyTorch",
            Self::LlmC(..) => "llm.c",
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => &file.path,
            Self::Pickle(file, _) => &file.path,
            Self::LlmC(file, _) => &file.path,
        }
    }

    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(file) => file.names(),
            Self::Pickle(file, _) => file.names().map(String::from).collect(),
            Self::LlmC(file, _) => file.names().collect(),
        }
    }

    pub fn info(&self, name: &str) -> Option<(Format, Vec<usize>)> {
        match self {
            Self::Safetensors(file) => file.info(name),
            Self::Pickle(file, _) => file.info(name).map(|(format, shape)| (format, shape.to_vec())),
            Self::LlmC(file, _) => file.info(name),
        }
    }

    /// A tensor that is there.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let read = |tensor: candle_core::Result<Option<Tensor>>| {
            tensor.map_err(|e| broken(self.path(), &e)).transpose()
        };
        match self {
            Self::Safetensors(file) => file.get(name),
            Self::Pickle(file, _) => guarded(self.path(), || Ok(read(file.get(name))))?,
            Self::LlmC(file, _) => read(file.get(name)),
        }
        .unwrap_or_else(|| Err(unreadable(self.path(), &format!("`{name}` is gone"))))
    }

    /// The configuration that it brings along.
    pub fn own_config(&self) -> Result<Option<ReadConfig>> {
        match self {
            Self::Safetensors(_) => Ok(None),
            Self::Pickle(file, _) => {
                file.value("model_args").map(|args| own::nanogpt(&args, &file.path)).transpose()
            }
            Self::LlmC(file, _) => own::llmc(file.sizes, &file.path).map(Some),
        }
    }

    /// Whether its program writes matrices as `nn.Linear` has them, which is no surprise then.
    pub fn is_linear(&self) -> bool {
        match self {
            Self::Safetensors(_) => false,
            Self::Pickle(file, _) => file.value("model_args").is_some(),
            Self::LlmC(..) => true,
        }
    }

    /// Where in the file the tensors are, if that is unusual.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Pickle(file, _) => {
                let nest = file.nest().filter(|_| !self.is_linear())?;
                Some(format!("the tensors are under `{nest}` in the file"))
            }
            _ => None,
        }
    }

    /// Refuses a file that was modified since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Safetensors(file) => file.check_unchanged(),
            Self::Pickle(_, opened) | Self::LlmC(_, opened) => {
                opened.check(self.path(), &self.path().metadata())
            }
        }
    }
}
