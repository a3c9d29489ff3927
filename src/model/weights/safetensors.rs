//! A safetensors file, or one that is built in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};

use super::unchanged::Opened;
use super::{guarded, unreadable};
use crate::error::Result;
use crate::model::format::Format;

/// The longest header that the safetensors format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that one thread reads at a time.
const PIECE: usize = 1 << 21;

/// The tensors of one safetensors file, which is read, not mapped: truncating a mapped file kills the
/// process.
pub(super) struct Safetensors {
    pub path: PathBuf,
    bytes: Bytes,
    tensors: Metadata,
    /// Where the tensors begin, after the header.
    data: u64,
}

/// Where the bytes are.
enum Bytes {
    File(File, Opened),
    Embedded(&'static [u8]),
}

impl Safetensors {
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| unreadable(path, &e.to_string());
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Self::new(path, metadata.len(), Bytes::File(file, Opened::new(&metadata)))
    }

    /// Built-in bytes; `name` is for errors.
    pub fn embedded(bytes: &'static [u8], name: &str) -> Result<Self> {
        Self::new(Path::new(name), bytes.len() as u64, Bytes::Embedded(bytes))
    }

    fn new(path: &Path, length: u64, bytes: Bytes) -> Result<Self> {
        let failed = |problem: &str| unreadable(path, problem);
        let mut header = [0; 8];
        bytes.read(&mut header, 0).map_err(|e| failed(&e.to_string()))?;
        let n = u64::from_le_bytes(header);
        if n > LONGEST_HEADER {
            return Err(failed("its header is too long"));
        }
        if n + 8 > length {
            return Err(failed("it ends within its header"));
        }
        let mut header = vec![0; n as usize];
        bytes.read(&mut header, 8).map_err(|e| failed(&e.to_string()))?;
        let tensors: Metadata =
            guarded(path, || serde_json::from_slice(&header).map_err(|e| failed(&e.to_string())))?;
        let data = n + 8;
        if data + tensors.data_len() as u64 != length {
            return Err(failed(&format!("it should have {} bytes", data + tensors.data_len() as u64)));
        }
        Ok(Self { path: path.into(), bytes, tensors, data })
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.bytes, Bytes::Embedded(_))
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors.offset_keys()
    }

    /// The format and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<(Format, Vec<usize>)> {
        let info = self.tensors.info(name)?;
        let dtype = info.dtype.to_string();
        let format = Format::of_safetensors(&dtype).unwrap_or(Format::Other("unknown", 0));
        Some((format, info.shape.clone()))
    }

    pub fn get(&self, name: &str) -> Option<Result<Tensor>> {
        let (format, shape) = self.info(name)?;
        let info = self.tensors.info(name)?;
        let read = || {
            if self.is_plain(name) {
                let mut floats = Vec::new();
                self.floats(name, &mut floats)?;
                return Ok(Tensor::from_vec(floats, &*shape, &Device::Cpu)?);
            }
            let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
            self.read(info, &mut bytes)?;
            format.tensor(&bytes, &shape).map_err(|e| super::broken_tensor(&self.path, name, &e))
        };
        Some(read())
    }

    /// The whole numbers of a tensor, if it holds such.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let (info, (format, _)) = (self.tensors.info(name)?, self.info(name)?);
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        self.read(info, &mut bytes).ok()?;
        format.integers(&bytes)
    }

    /// A field of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.tensors.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// All of the file's metadata.
    pub fn all_metadata(&self) -> Option<BTreeMap<String, String>> {
        Some(
            self.tensors.metadata().as_ref()?.iter().map(|(key, text)| (key.clone(), text.clone())).collect(),
        )
    }

    /// Whether the bytes of a tensor are float32 values already.
    pub fn is_plain(&self, name: &str) -> bool {
        let is_f32 = |info: &TensorInfo| info.dtype == safetensors::Dtype::F32;
        cfg!(target_endian = "little") && self.tensors.info(name).is_some_and(is_f32)
    }

    /// Reads the values of a tensor of float32 into `floats`.
    pub fn floats(&self, name: &str, floats: &mut Vec<f32>) -> Result<()> {
        let Some(info) = self.tensors.info(name) else { return Ok(()) };
        floats.resize(info.shape.iter().product(), 0.0);
        self.read(info, bytemuck::cast_slice_mut(floats))
    }

    /// Reads the bytes of a tensor, as many as `into` takes, on all threads.
    fn read(&self, info: &TensorInfo, into: &mut [u8]) -> Result<()> {
        let start = self.data + info.data_offsets.0 as u64;
        let pieces = into.par_chunks_mut(PIECE).enumerate();
        let read = pieces.try_for_each(|(i, piece)| self.bytes.read(piece, start + (i * PIECE) as u64));
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => unreadable(&self.path, "it was truncated while being read"),
            _ => unreadable(&self.path, &e.to_string()),
        })
    }

    /// Refuses a file that was modified since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        match &self.bytes {
            Bytes::File(file, opened) => opened.check(&self.path, &file.metadata()),
            Bytes::Embedded(_) => Ok(()),
        }
    }
}

impl Bytes {
    /// Fills `buffer` with the bytes from `offset` on; any number of threads may call it.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file, _) => read_at(file, buffer, offset),
            Self::Embedded(bytes) => {
                let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < buffer.len() {
            match file.seek_read(&mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}
