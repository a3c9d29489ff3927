//! The tensors themselves, as safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::piece::Piece;
use super::shard::Shard;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::hooks::{Axis, TensorName};

pub const FOLDER: &str = "raw";

/// The number format of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum RawDtype {
    F32,
    F16,
    Bf16,
}

impl RawDtype {
    fn format(self) -> (DType, Dtype, u64) {
        match self {
            Self::F32 => (DType::F32, Dtype::F32, 4),
            Self::F16 => (DType::F16, Dtype::F16, 2),
            Self::Bf16 => (DType::BF16, Dtype::BF16, 2),
        }
    }
}

/// The tensors of the documents since the last file.
#[derive(Debug)]
pub struct Raw {
    dtype: RawDtype,
    /// The bytes of each tensor, one row after the other, and the shape of a row.
    tensors: BTreeMap<TensorName, (Vec<usize>, Vec<u8>)>,
    documents: Vec<i64>,
    positions: Vec<i32>,
    token_ids: Vec<i32>,
}

impl Raw {
    /// # Errors
    /// [`Error::Usage`] for a hook without a row for each position.
    pub fn new(names: &[TensorName], dtype: RawDtype, config: &Config) -> Result<Self> {
        let tensor = |name: &TensorName| match name.axes().first() {
            Some(Axis::Pos) => Ok((*name, (name.shape(config, 1)[1..].to_vec(), Vec::new()))),
            _ => Err(Error::usage(format!(
                "{name} has no row for each position, so --reduce raw cannot join documents: leave it out, or use \
                 actscope export for single prompts"
            ))),
        };
        Ok(Self {
            dtype,
            tensors: names.iter().map(tensor).collect::<Result<_>>()?,
            documents: Vec::new(),
            positions: Vec::new(),
            token_ids: Vec::new(),
        })
    }

    /// Bytes that are written for each token.
    pub fn bytes_per_token(&self) -> u64 {
        let (.., size) = self.dtype.format();
        let values: usize = self.tensors.values().map(|(shape, _)| shape.iter().product::<usize>()).sum();
        values as u64 * size + 16
    }

    /// The tokens of a file, which is held in memory until it is written.
    pub fn tokens_per_file(&self) -> u64 {
        const FILE: u64 = 128 << 20;
        (FILE / self.bytes_per_token()).max(1)
    }

    /// Counts the tokens of a piece.
    pub fn begin(&mut self, piece: &Piece) {
        for row in piece.counted.clone() {
            self.documents.push(piece.document as i64);
            self.positions.push(piece.position(row) as i32);
            self.token_ids.push(piece.tokens[row] as i32);
        }
    }

    /// # Errors
    /// [`Error::Tensor`]
    pub fn see(&mut self, name: TensorName, x: &Tensor, piece: &Piece) -> Result<()> {
        let Some((_, bytes)) = self.tensors.get_mut(&name) else { return Ok(()) };
        let x = x.narrow(0, piece.counted.start, piece.counted.len())?.to_device(&Device::Cpu)?;
        let x = x.to_dtype(self.dtype.format().0)?.flatten_all()?;
        match self.dtype {
            RawDtype::F32 => bytes.extend_from_slice(bytemuck::cast_slice(&x.to_vec1::<f32>()?)),
            RawDtype::F16 => x.to_vec1::<half::f16>()?.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            RawDtype::Bf16 => x.to_vec1::<half::bf16>()?.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        }
        Ok(())
    }

    /// Writes what there is as file `number` of `folder`, and forgets it.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written: a full disk, say.
    pub fn flush(&mut self, folder: &Path, number: usize) -> Result<()> {
        let n = self.documents.len();
        if n == 0 {
            return Ok(());
        }
        let folder = folder.join(FOLDER);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::file(&folder, format!("cannot be created: {error}")))?;
        let (_, dtype, _) = self.dtype.format();
        let path = folder.join(format!("{number:05}.safetensors"));
        let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes);
        let mut views = vec![
            ("document".to_owned(), view(Dtype::I64, vec![n], bytemuck::cast_slice(&self.documents))),
            ("position".to_owned(), view(Dtype::I32, vec![n], bytemuck::cast_slice(&self.positions))),
            ("token_id".to_owned(), view(Dtype::I32, vec![n], bytemuck::cast_slice(&self.token_ids))),
        ];
        for (name, (shape, bytes)) in &self.tensors {
            let shape = std::iter::once(n).chain(shape.iter().copied()).collect();
            views.push((name.to_string(), view(dtype, shape, bytes)));
        }
        let views = views.into_iter().map(|(name, view)| Ok((name, view?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        let bytes = views
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
        Destination::File(path).prepare()?.write(|out| out.write_all(&bytes))?;
        self.tensors.values_mut().for_each(|(_, bytes)| bytes.clear());
        (self.documents, self.positions, self.token_ids) = Default::default();
        Ok(())
    }
}

/// The bytes that are free where `folder` is, if the system says.
pub fn free(folder: &Path) -> Option<u64> {
    let mut at = folder;
    #[cfg(unix)]
    loop {
        if let Ok(found) = nix::sys::statvfs::statvfs(if at == Path::new("") { Path::new(".") } else { at }) {
            return Some(found.blocks_available() * found.fragment_size());
        }
        at = at.parent()?;
    }
    #[cfg(not(unix))]
    None
}

/// Puts the files of shards beside each other in `to`, by name: linked where the system can.
///
/// # Errors
/// [`Error::File`] for what cannot be read or written.
pub fn gather<'a>(shards: impl Iterator<Item = (Shard, &'a Path)>, to: &Path) -> Result<()> {
    let to = to.join(FOLDER);
    let cannot =
        |path: &Path, error: std::io::Error| Error::file(path, format!("cannot be written: {error}"));
    std::fs::create_dir_all(&to).map_err(|error| cannot(&to, error))?;
    for (shard, folder) in shards {
        let from = folder.join(FOLDER);
        for entry in std::fs::read_dir(&from).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let path = to.join(format!("{}-of-{}-{}", shard.index, shard.of, name.to_string_lossy()));
            let _ = std::fs::remove_file(&path); // of a merge that was killed
            std::fs::hard_link(entry.path(), &path)
                .or_else(|_| std::fs::copy(entry.path(), &path).map(drop))
                .map_err(|error| cannot(&path, error))?;
        }
    }
    Ok(())
}
