//! A checkpoint's tensors: safetensors (one file, shards, or bytes in memory) or a PyTorch pickle.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use sha2::{Digest, Sha256};

use super::pickle::Archive;
use crate::error::{Error, Result};
use crate::guard::guard;

/// The longest header that the safetensors format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that one thread reads at a time.
const PIECE: usize = 1 << 21;

/// Where the tensors of a checkpoint come from, and their target device and format.
pub struct Weights {
    store: Store,
    /// For errors: the file, or the name of the built-in model.
    place: PathBuf,
    device: Device,
    dtype: DType,
    /// Reused buffers for reading tensors: the system is slow to provide new memory.
    spare: Mutex<Vec<Vec<f32>>>,
}

enum Store {
    Shards(Vec<Shard>),
    Embedded(SliceSafetensors<'static>),
    Pickle(Archive),
}

impl Weights {
    /// Opens safetensors files, the shards of one checkpoint. They are read, not mapped: truncating
    /// a mapped file kills the process.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, truncated, or not safetensors.
    pub fn open_safetensors(files: &[PathBuf], device: &Device, dtype: DType) -> Result<Self> {
        let shards = files.iter().map(|file| Shard::open(file)).collect::<Result<_>>()?;
        let place = files.first().cloned().unwrap_or_default();
        Ok(Self::new(Store::Shards(shards), place, device, dtype))
    }

    /// Reads built-in safetensors; `name` is for errors.
    pub fn embedded(bytes: &'static [u8], name: &str, device: &Device, dtype: DType) -> Result<Self> {
        let place = PathBuf::from(name);
        let store = SliceSafetensors::new(bytes).map_err(|e| broken(&place, &e))?;
        Ok(Self::new(Store::Embedded(store), place, device, dtype))
    }

    /// Reads a `pytorch_model.bin`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing or not a PyTorch checkpoint.
    pub fn open_pickle(file: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let store = guarded(file, || Archive::open(file).map_err(|e| broken(file, &e)))?;
        Ok(Self::new(Store::Pickle(store), file.into(), device, dtype))
    }

    fn new(store: Store, place: PathBuf, device: &Device, dtype: DType) -> Self {
        Self { store, place, device: device.clone(), dtype, spare: Mutex::default() }
    }

    /// The tensor `name` or `transformer.{name}`, on the device, in the requested format.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing, not of `shape`, or cannot be read.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.load(name, shape).or_else(|| self.load(&prefixed(name), shape));
        let tensor = found.ok_or_else(|| self.missing(name))??;
        Ok(tensor.to_device(&self.device)?.to_dtype(self.dtype)?)
    }

    /// Passes its values as float32, row by row.
    pub fn floats<T>(&self, name: &str, shape: &[usize], make: impl FnOnce(&[f32]) -> T) -> Result<T> {
        if let Store::Shards(shards) = &self.store
            && let Some((shard, info)) = find(shards, name).or_else(|| find(shards, &prefixed(name)))
            && is_plain(info)
        {
            self.check(name, &info.shape, shape)?;
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let mut floats = spare.pop().unwrap_or_default();
            drop(spare);
            floats.resize(info.shape.iter().product(), 0.0);
            shard.read(info, bytemuck::cast_slice_mut(&mut floats))?;
            let made = make(&floats);
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(floats);
            return Ok(made);
        }
        let tensor = self.get(name, shape)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(make(&tensor.flatten_all()?.to_vec1()?))
    }

    /// Refuses files that were modified since they were opened: tensors of two checkpoints may
    /// have been read.
    ///
    /// # Errors
    /// [`Error::File`] with the name of the file.
    pub fn check_unchanged(&self) -> Result<()> {
        let Store::Shards(shards) = &self.store else { return Ok(()) };
        shards.iter().try_for_each(Shard::check_unchanged)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The requested format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn missing(&self, name: &str) -> Error {
        let problem = format!("has no tensor `{name}`, which the configuration requires");
        Error::file(&self.place, problem)
    }

    fn check(&self, name: &str, found: &[usize], shape: &[usize]) -> Result<()> {
        if found == shape {
            return Ok(());
        }
        let problem =
            format!("tensor `{name}` has shape {found:?}, but the configuration requires {shape:?}");
        Err(Error::file(&self.place, problem))
    }

    /// The format of the weights in the file: that of the token embedding.
    pub fn stored_dtype(&self) -> Option<DType> {
        let dtype = |name: &str| match &self.store {
            Store::Shards(shards) => find(shards, name)?.1.dtype.try_into().ok(),
            Store::Embedded(s) => s.get(name).ok()?.dtype().try_into().ok(),
            Store::Pickle(s) => s.dtype(name),
        };
        dtype("wte.weight").or_else(|| dtype(&prefixed("wte.weight")))
    }

    /// `None` if there is no tensor with this name.
    fn load(&self, name: &str, shape: &[usize]) -> Option<Result<Tensor>> {
        let loaded = match &self.store {
            Store::Shards(shards) => {
                let (shard, info) = find(shards, name)?;
                // Before anything is read: the file may claim to be huge.
                return Some(self.check(name, &info.shape, shape).and_then(|()| shard.load(info)));
            }
            Store::Embedded(s) => s.get(name).ok().map(|view| view.load(&Device::Cpu)),
            Store::Pickle(s) => {
                let read = || s.get(name).map_err(|e| broken(&self.place, &e));
                let tensor = guarded(&self.place, read).transpose()?;
                return Some(
                    tensor.and_then(|tensor| self.check(name, tensor.dims(), shape).map(|()| tensor)),
                );
            }
        };
        let tensor = loaded?.map_err(|e| broken(&self.place, &e));
        Some(tensor.and_then(|tensor| self.check(name, tensor.dims(), shape).map(|()| tensor)))
    }
}

/// Where a tensor is in the files of a checkpoint.
fn find<'a>(shards: &'a [Shard], name: &str) -> Option<(&'a Shard, &'a TensorInfo)> {
    shards.iter().find_map(|shard| Some((shard, shard.tensors.info(name)?)))
}

/// One safetensors file.
struct Shard {
    path: PathBuf,
    file: File,
    tensors: Metadata,
    /// Where the tensors begin, after the header.
    data: u64,
    /// When it was opened.
    state: State,
}

/// Shows whether a file was modified: its length and modification time.
type State = (u64, Option<SystemTime>);

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let unreadable = |e: &io::Error| unreadable(path, &e.to_string());
        let file = File::open(path).map_err(|e| unreadable(&e))?;
        let state = state(&file).map_err(|e| unreadable(&e))?;
        let mut header = [0; 8];
        read_at(&file, &mut header, 0).map_err(|e| unreadable(&e))?;
        let n = u64::from_le_bytes(header);
        if n > LONGEST_HEADER {
            return Err(self::unreadable(path, "its header is too long"));
        }
        if n + 8 > state.0 {
            return Err(self::unreadable(path, "it ends within its header"));
        }
        let mut header = vec![0; n as usize];
        read_at(&file, &mut header, 8).map_err(|e| unreadable(&e))?;
        let read = || serde_json::from_slice(&header).map_err(|e| self::unreadable(path, &e.to_string()));
        let tensors: Metadata = guarded(path, read)?;
        let data = n + 8;
        if data + tensors.data_len() as u64 != state.0 {
            let problem = format!("it should have {} bytes", data + tensors.data_len() as u64);
            return Err(self::unreadable(path, &problem));
        }
        Ok(Self { path: path.into(), file, tensors, data, state })
    }

    /// Reads the bytes of a tensor, as many as `into` takes, on all threads.
    fn read(&self, info: &TensorInfo, into: &mut [u8]) -> Result<()> {
        let start = self.data + info.data_offsets.0 as u64;
        let pieces = into.par_chunks_mut(PIECE).enumerate();
        let read = pieces.try_for_each(|(i, piece)| read_at(&self.file, piece, start + (i * PIECE) as u64));
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => unreadable(&self.path, "it was truncated while being read"),
            _ => unreadable(&self.path, &e.to_string()),
        })
    }

    fn load(&self, info: &TensorInfo) -> Result<Tensor> {
        if is_plain(info) {
            let mut floats = vec![0f32; info.shape.iter().product()];
            self.read(info, bytemuck::cast_slice_mut(&mut floats))?;
            return Ok(Tensor::from_vec(floats, &*info.shape, &Device::Cpu)?);
        }
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        self.read(info, &mut bytes)?;
        let view = TensorView::new(info.dtype, info.shape.clone(), &bytes);
        let view = view.map_err(|e| unreadable(&self.path, &e.to_string()))?;
        guarded(&self.path, || view.load(&Device::Cpu).map_err(|e| broken(&self.path, &e)))
    }

    fn check_unchanged(&self) -> Result<()> {
        if state(&self.file).is_ok_and(|now| now == self.state) {
            return Ok(());
        }
        Err(Error::file(&self.path, "was modified while being read; load it again once it is complete"))
    }
}

fn state(file: &File) -> io::Result<State> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// Whether the bytes in the file are float32 values already.
fn is_plain(info: &TensorInfo) -> bool {
    info.dtype == safetensors::Dtype::F32 && cfg!(target_endian = "little")
}

/// Fills `buffer` with the bytes of the file from `offset` on; any number of threads may call it.
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

/// The name in a checkpoint with a language model head.
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

/// Reads a weight file with a third-party crate; a panic becomes an error that names the file.
fn guarded<T>(file: &Path, body: impl FnOnce() -> Result<T>) -> Result<T> {
    guard(body).unwrap_or_else(|panic| Err(unreadable(file, &panic)))
}

/// One sentence for a weight file that cannot be read, without candle's backtrace.
fn broken(file: &Path, error: &candle_core::Error) -> Error {
    unreadable(file, error.to_string().lines().next().unwrap_or("unknown error"))
}

fn unreadable(file: &Path, cause: &str) -> Error {
    let size = std::fs::metadata(file).map(|m| format!(" of {} bytes", m.len())).unwrap_or_default();
    Error::file(
        file,
        format!("this weight file{size} cannot be read ({cause}); download or convert it again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_over_a_weight_file_names_the_file() {
        let said = guarded::<()>(Path::new("a.bin"), || panic!("broken crate")).unwrap_err().to_string();
        assert!(said.starts_with("a.bin: ") && said.contains("broken crate"), "{said}");
    }
}
