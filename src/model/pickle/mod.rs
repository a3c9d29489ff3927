//! What `torch.save` writes for a state dict: `pytorch_model.bin`, `ckpt.pt` and the like, as a zip archive
//! or in the format before PyTorch 1.6.
//!
//! Nothing in the file is run: its pickle is read as a description; what is not needed is skipped, and
//! nonsense is refused.

mod archive;
mod legacy;
mod machine;
mod plain;
mod tensors;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{Error, Result, Tensor};

use self::archive::Directory;
use self::machine::{LONGEST_PICKLE, Pickle};
pub use self::plain::plain;
use self::tensors::{DISTRIBUTED, Entry, StateDict};
use super::format::Format;

/// A tensor whose elements are at fewer places than it has elements takes at most so many bytes.
const MOST_EXPANDED: usize = 1 << 31;

/// The tensors of a file, read one by one on request.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    storages: Storages,
    /// The pickle that describes everything but the numbers.
    pickle: Vec<u8>,
    nest: Option<String>,
    entries: BTreeMap<String, Entry>,
}

/// Where the storages are.
#[derive(Debug)]
enum Storages {
    /// Members of an archive, below a folder.
    Zip(Directory, String),
    Legacy(legacy::Places),
}

impl Checkpoint {
    /// # Errors
    /// If the file is not one of PyTorch's, is damaged, or holds no state dict.
    pub fn open(path: &Path) -> Result<Self> {
        let mut first = Vec::new();
        File::open(path)?.take(2).read_to_end(&mut first)?;
        let (pickle, storages) = match first[..] {
            _ if path.extension().is_some_and(|extension| extension == "distcp") => {
                return Err(bad(DISTRIBUTED));
            }
            [b'P', b'K', ..] => zipped(path)?,
            [0x80, ..] => {
                let (pickle, storages) = legacy::read(path)?;
                (pickle, Storages::Legacy(storages))
            }
            _ => return Err(bad("it is not a file of PyTorch")),
        };
        let StateDict { nest, entries } = Pickle::read(&pickle)?.0.state_dict()?;
        Ok(Self { path: path.into(), storages, pickle, nest, entries })
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The keys that lead to the tensors, with dots between them: `model`.
    pub fn nest(&self) -> Option<&str> {
        self.nest.as_deref()
    }

    /// The format and shape, which is nothing but a claim: compare it with the expected shape before
    /// reading the tensor. `None` if there is no tensor with this name.
    pub fn info(&self, name: &str) -> Option<(Format, &[usize])> {
        self.entries.get(name).map(|entry| (entry.format, &entry.shape[..]))
    }

    /// `None` if there is no tensor with this name.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let entry = self.entries.get(name);
        entry.map(|entry| self.read(entry).map_err(|e| bad(format!("tensor `{name}`: {e}")))).transpose()
    }

    /// The plain data beside the tensors, under a key of the whole file.
    pub fn value(&self, name: &str) -> Option<serde_json::Value> {
        let (pickle, _) = Pickle::read(&self.pickle).ok()?;
        pickle.plain(pickle.item(pickle.top(), name)?).ok()?
    }

    fn read(&self, entry: &Entry) -> Result<Tensor> {
        let Entry { storage, format, offset, shape, inverted, .. } = entry;
        if let Format::Other(..) = format {
            return format.tensor(&[], shape);
        }
        if *inverted {
            return Err(bad("it is a negated or conjugated view, which cannot be read"));
        }
        let start = offset.checked_mul(format.size());
        let (Some((span, n_bytes)), Some(start)) = (entry.extent(), start) else {
            return Err(bad("its size is impossible"));
        };
        let (at, n_stored) = match &self.storages {
            Storages::Zip(directory, prefix) => {
                directory.locate(&self.path, &format!("{prefix}data/{storage}"))?
            }
            Storages::Legacy(storages) => {
                *storages.get(storage).ok_or_else(|| bad("its storage is not there"))?
            }
        };
        if start.checked_add(span).is_none_or(|end| end as u64 > n_stored) {
            return Err(bad("it ends after its storage"));
        }
        if n_bytes > span.max(MOST_EXPANDED) {
            return Err(bad("it repeats its elements too often"));
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(at.saturating_add(start as u64)))?;
        // Grows as it is read, so that a false size costs nothing.
        let mut bytes = Vec::new();
        file.take(span as u64).read_to_end(&mut bytes)?;
        if bytes.len() != span {
            return Err(bad("its storage is cut short"));
        }
        if !entry.is_contiguous() {
            bytes = entry.gather(&bytes, n_bytes);
        }
        format.tensor(&bytes, shape)
    }
}

/// The pickle and the storages of a zip archive.
fn zipped(path: &Path) -> Result<(Vec<u8>, Storages)> {
    let directory = Directory::read(path)?;
    let prefix = directory.names().filter_map(|name| name.strip_suffix("data.pkl")).min();
    let prefix = prefix.ok_or_else(|| bad("it contains no data.pkl, so it is not a PyTorch checkpoint"))?;
    let prefix = prefix.to_owned();
    if directory.names().any(|name| name.strip_prefix(&prefix) == Some("constants.pkl")) {
        return Err(bad("it is a TorchScript archive; save model.state_dict() with torch.save"));
    }
    let member = |name: &str, at_most: usize| -> Result<Vec<u8>> {
        let (at, size) = directory.locate(path, &format!("{prefix}{name}"))?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(size.min(at_most as u64 + 1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if member("byteorder", 3).is_ok_and(|order| order == b"big") {
        return Err(bad("it was written on a big-endian machine; save it again on another"));
    }
    let pickle = member("data.pkl", LONGEST_PICKLE)?;
    Ok((pickle, Storages::Zip(directory, prefix)))
}

fn bad(problem: impl Into<String>) -> Error {
    Error::Msg(problem.into())
}

#[cfg(test)]
mod tests;
