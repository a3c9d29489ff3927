//! A checkpoint's tensors: safetensors (one file, shards, or bytes in memory) or a PyTorch pickle.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::safetensors::{Load, MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use super::pickle::Archive;
use crate::error::{Error, Result};

/// Where the tensors of a checkpoint are read from, and what they become.
pub struct Weights {
    store: Store,
    /// For errors: the file, or the name of what is embedded.
    place: PathBuf,
    device: Device,
    dtype: DType,
}

enum Store {
    Mmaped(MmapedSafetensors),
    Embedded(SliceSafetensors<'static>),
    Pickle(Archive),
}

impl Weights {
    /// Memory-maps safetensors files, the shards of one checkpoint.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, truncated, or not safetensors.
    #[allow(unsafe_code)]
    pub fn open_safetensors(files: &[PathBuf], device: &Device, dtype: DType) -> Result<Self> {
        for file in files {
            // Checked one by one first, so that the error names the shard that is broken.
            // SAFETY: the file is mapped read-only; changing it while it is loaded is the user's doing.
            unsafe { MmapedSafetensors::new(file) }.map_err(|e| broken(file, &e))?;
        }
        // SAFETY: as above.
        let store = unsafe { MmapedSafetensors::multi(files) };
        let place = files.first().cloned().unwrap_or_default();
        let store = Store::Mmaped(store.map_err(|e| broken(&place, &e))?);
        Ok(Self { store, place, device: device.clone(), dtype })
    }

    /// Reads safetensors that are part of the program; `name` is for errors.
    pub fn embedded(bytes: &'static [u8], name: &str, device: &Device, dtype: DType) -> Result<Self> {
        let place = PathBuf::from(name);
        let store = SliceSafetensors::new(bytes).map_err(|e| broken(&place, &e))?;
        let store = Store::Embedded(store);
        Ok(Self { store, place, device: device.clone(), dtype })
    }

    /// Reads a `pytorch_model.bin`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing or no PyTorch checkpoint.
    pub fn open_pickle(file: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let store = Archive::open(file).map_err(|e| broken(file, &e))?;
        Ok(Self { store: Store::Pickle(store), place: file.into(), device: device.clone(), dtype })
    }

    /// The tensor called `name` or `transformer.{name}`, on the device, in the format asked for.
    ///
    /// # Errors
    /// [`Error::File`] when it is missing or not of `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.load(name).or_else(|| self.load(&prefixed(name)));
        let tensor = found.ok_or_else(|| self.missing(name))?.map_err(|e| broken(&self.place, &e))?;
        self.check(name, tensor.dims(), shape)?;
        Ok(tensor.to_device(&self.device)?.to_dtype(self.dtype)?)
    }

    /// Its values as float32, row after row: borrowed where the file holds them so.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let view = |name: &str| match &self.store {
            Store::Mmaped(s) => s.get(name).ok(),
            Store::Embedded(s) => s.get(name).ok(),
            Store::Pickle(_) => None,
        };
        if let Some(view) = view(name).or_else(|| view(&prefixed(name)))
            && view.dtype() == safetensors::Dtype::F32
            && cfg!(target_endian = "little")
            && let Ok(values) = bytemuck::try_cast_slice(view.data())
        {
            self.check(name, view.shape(), shape)?;
            return Ok(Cow::Borrowed(values));
        }
        let tensor = self.get(name, shape)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(Cow::Owned(tensor.flatten_all()?.to_vec1()?))
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The format asked for.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn missing(&self, name: &str) -> Error {
        let problem = format!("has no tensor `{name}`, which the configuration calls for");
        Error::file(&self.place, problem)
    }

    fn check(&self, name: &str, found: &[usize], shape: &[usize]) -> Result<()> {
        if found == shape {
            return Ok(());
        }
        let problem =
            format!("tensor `{name}` has shape {found:?}, but the configuration gives it {shape:?}");
        Err(Error::file(&self.place, problem))
    }

    /// The format of the weights in the file, read off the token embedding.
    pub fn stored_dtype(&self) -> Option<DType> {
        let dtype = |name: &str| match &self.store {
            Store::Mmaped(s) => s.get(name).ok()?.dtype().try_into().ok(),
            Store::Embedded(s) => s.get(name).ok()?.dtype().try_into().ok(),
            Store::Pickle(s) => s.dtype(name),
        };
        dtype("wte.weight").or_else(|| dtype(&prefixed("wte.weight")))
    }

    /// `None` if there is no tensor of that name.
    fn load(&self, name: &str) -> Option<candle_core::Result<Tensor>> {
        let cpu = &Device::Cpu;
        match &self.store {
            Store::Mmaped(s) => s.get(name).ok().map(|view| view.load(cpu)),
            Store::Embedded(s) => s.get(name).ok().map(|view| view.load(cpu)),
            Store::Pickle(s) => s.get(name).transpose(),
        }
    }
}

/// The name as a checkpoint with a language model's head has it.
fn prefixed(name: &str) -> String {
    format!("transformer.{name}")
}

/// SHA-256 over the bytes of the weight files, one after the other, in hexadecimal.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read.
pub fn sha256_of_files(files: &[PathBuf]) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    for path in files {
        let unreadable = |e| Error::file(path, format!("cannot be read: {e}"));
        let mut file = File::open(path).map_err(unreadable)?;
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
    }
    Ok(hex(hasher))
}

/// SHA-256 of `bytes` in hexadecimal.
pub fn sha256_of_bytes(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hex(hasher)
}

fn hex(hasher: Sha256) -> String {
    use std::fmt::Write;
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One sentence for a weight file that cannot be read, without candle's backtrace.
fn broken(file: &Path, error: &candle_core::Error) -> Error {
    let cause = error.to_string();
    let cause = cause.lines().next().unwrap_or("unknown error");
    let size = std::fs::metadata(file).map(|m| format!(" of {} bytes", m.len())).unwrap_or_default();
    Error::file(file, format!("this weight file{size} cannot be read ({cause}); fetch or convert it anew"))
}
