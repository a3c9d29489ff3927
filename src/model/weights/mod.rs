//! A checkpoint's tensors by their names in GPT-2, whatever file they are in and however they are named
//! and laid out there.

mod adapter;
mod file;
mod names;
mod own;
mod safetensors;
mod unchanged;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

pub use self::adapter::{Adapter, base_of as adapter_base};
use self::file::WeightFile;
use self::names::{Names, Stored};
use self::safetensors::Safetensors;
use super::format::Format;
use crate::config::{ReadConfig, quantised};
use crate::error::{Error, Result};
use crate::guard::guard;
use crate::text::brief;

/// The tensors of a file that is no checkpoint of a GPT-2, by their own names.
pub(crate) struct TensorFile(WeightFile);

impl TensorFile {
    /// # Errors
    /// [`Error::File`] for a file that is missing, truncated, or holds no tensors that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        WeightFile::open(path).map(Self)
    }

    /// Built-in safetensors; `name` is for errors.
    pub fn embedded(bytes: &'static [u8], name: &str) -> Result<Self> {
        Ok(Self(WeightFile::Safetensors(Safetensors::embedded(bytes, name)?)))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.names()
    }

    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.info(name).map(|(_, shape)| shape)
    }

    /// A tensor of this shape as float32, on the CPU.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing, of another shape, or cannot be read.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let path = self.0.path();
        // Before anything is read: a file may claim to be huge.
        match self.shape(name) {
            None => return Err(Error::file(path, format!("has no tensor `{name}`"))),
            Some(found) if found != shape => {
                let name = brief(name, 80);
                let problem = format!("tensor `{name}` has shape {found:?}, but should have {shape:?}");
                return Err(Error::file(path, problem));
            }
            Some(_) => {}
        }
        let tensor = self.0.get(name)?.to_dtype(DType::F32)?.contiguous()?;
        self.0.check_unchanged()?;
        Ok(tensor)
    }

    /// The number format of a tensor.
    pub fn format(&self, name: &str) -> Option<Format> {
        self.0.info(name).map(|(format, _)| format)
    }

    /// The whole numbers of a tensor, if it holds such.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        match &self.0 {
            WeightFile::Safetensors(file) => file.integers(name),
            _ => None,
        }
    }

    /// The plain data beside the tensors, under a key of the whole file.
    pub fn value(&self, key: &str) -> Option<serde_json::Value> {
        match &self.0 {
            WeightFile::Pickle(file, _) => file.value(key),
            WeightFile::Safetensors(file) => {
                let text = file.metadata(key)?;
                Some(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
            }
            WeightFile::LlmC(..) => None,
        }
    }

    /// What the file says of itself: texts, or JSON as texts.
    pub fn metadata(&self) -> Option<BTreeMap<String, String>> {
        match &self.0 {
            WeightFile::Safetensors(file) => file.all_metadata(),
            _ => None,
        }
    }

    /// An error about the file.
    pub fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::file(self.0.path(), problem)
    }
}

/// Where the tensors of a checkpoint come from, and their target device and format.
pub struct Weights {
    files: Vec<WeightFile>,
    names: Names,
    /// Matrices are (out, in), as `nn.Linear` has them, not (in, out) as Hugging Face's `Conv1D`.
    linear: bool,
    /// Added to the matrices.
    adapter: Option<Adapter>,
    /// The names asked for.
    asked: Mutex<BTreeSet<String>>,
    device: Device,
    dtype: DType,
    /// Reused buffers for reading tensors: the system is slow to provide new memory.
    spare: Mutex<Vec<Vec<f32>>>,
}

/// Endings of the names of matrices.
const MATRICES: [&str; 3] = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];

/// Endings of names that quantised weights have, and the method.
const QUANTISED: [(&str, &str); 7] = [
    (".SCB", "bitsandbytes"),
    (".absmax", "bitsandbytes"),
    (".g_idx", "gptq"),
    (".qweight", "gptq or awq"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_inv", "fp8"),
    (".weight_scale", "fp8"),
];

/// Tensors of other heads, and the model whose head it is.
const HEADS: [(&str, &str); 5] = [
    ("score.", "GPT2ForSequenceClassification"),
    ("classifier.", "GPT2ForTokenClassification"),
    ("qa_outputs.", "GPT2ForQuestionAnswering"),
    ("multiple_choice_head.", "GPT2DoubleHeadsModel"),
    ("v_head.", "a value head of TRL"),
];

impl Weights {
    /// Opens the files of one checkpoint, each by its content.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, truncated, or holds no tensors that can be read, and
    /// for quantised weights.
    pub fn open(files: &[PathBuf], device: &Device, dtype: DType) -> Result<Self> {
        let files = files.iter().map(|file| WeightFile::open(file)).collect::<Result<_>>()?;
        Self::new(files, device, dtype)
    }

    /// Reads built-in safetensors; `name` is for errors.
    pub fn embedded(bytes: &'static [u8], name: &str, device: &Device, dtype: DType) -> Result<Self> {
        let file = WeightFile::Safetensors(Safetensors::embedded(bytes, name)?);
        Self::new(vec![file], device, dtype)
    }

    fn new(files: Vec<WeightFile>, device: &Device, dtype: DType) -> Result<Self> {
        let names = files
            .iter()
            .enumerate()
            .flat_map(|(file, open)| open.names().into_iter().map(move |name| Stored { name, file }));
        let mut weights = Self {
            names: Names::new(names),
            files,
            linear: false,
            adapter: None,
            asked: Mutex::default(),
            device: device.clone(),
            dtype,
            spare: Mutex::default(),
        };
        let method = |name: &String| QUANTISED.iter().find(|(ending, _)| name.ends_with(ending));
        if let Some((_, method)) = weights.names.all().find_map(method) {
            return Err(weights.refuse(quantised(method)));
        }
        let c_attn = weights.names.of("h.0.attn.c_attn.weight").and_then(|stored| weights.info(&stored[0]));
        weights.linear = c_attn.is_some_and(|(_, shape)| matches!(shape[..], [n, c] if n == 3 * c));
        Ok(weights)
    }

    /// Adds the changes of an adapter to the matrices.
    ///
    /// # Errors
    /// [`Error::File`] if it changes what is not there.
    pub fn adapt(&mut self, adapter: Adapter) -> Result<()> {
        if let Some(name) = adapter.names().find(|name| !self.has(name)) {
            return Err(adapter
                .refuse(format!("changes `{name}`, which the model does not have; it belongs to another")));
        }
        self.adapter = Some(adapter);
        Ok(())
    }

    /// The tensor `name` of GPT-2, on the device, in the requested format; matrices are (in, out).
    ///
    /// # Errors
    /// [`Error::File`] if it is missing, not of `shape`, cannot be read, or is there twice with
    /// different values.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.stored(name, shape)?;
        let tensor = match &self.adapter {
            Some(adapter) => adapter.change(name, tensor)?,
            None => tensor,
        };
        Ok(tensor.to_device(&self.device)?.to_dtype(self.dtype)?)
    }

    /// The same as in the files, but for the layout.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.ask(name);
        let Some([stored, others @ ..]) = self.names.of(name) else {
            if is_bias(name) && !self.has_biases() {
                return Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?);
            }
            return Err(self.missing(name));
        };
        let transposed = self.linear && MATRICES.iter().any(|ending| name.ends_with(ending));
        let load = |stored: &Stored| -> Result<Tensor> {
            if !transposed {
                return self.load(stored, shape);
            }
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            Ok(self.load(stored, &reversed)?.t()?.contiguous()?)
        };
        let tensor = load(stored)?;
        for other in others {
            if !same(&tensor, &load(other)?)? {
                let names = format!("`{}` and `{}`", stored.name, other.name);
                return Err(self.refuse(format!("holds {names} with different values; remove one")));
            }
        }
        Ok(tensor)
    }

    /// Passes the values of a matrix as float32, row by row.
    ///
    /// # Errors
    /// As for [`Weights::get`].
    pub fn floats<T>(&self, name: &str, shape: &[usize], make: impl FnOnce(&[f32]) -> T) -> Result<T> {
        if !self.linear
            && self.adapter.is_none()
            && let Some([stored]) = self.names.of(name)
            && let WeightFile::Safetensors(file) = &self.files[stored.file]
            && file.is_plain(&stored.name)
        {
            self.ask(name);
            self.check(stored, shape)?;
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let mut floats = spare.pop().unwrap_or_default();
            drop(spare);
            file.floats(&stored.name, &mut floats)?;
            let made = make(&floats);
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(floats);
            return Ok(made);
        }
        let tensor = self.get(name, shape)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(make(&tensor.flatten_all()?.to_vec1()?))
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.names.of(name).is_some()
    }

    /// Whether any layer has a bias.
    fn has_biases(&self) -> bool {
        self.names.all().any(|name| names::block(name).is_some() && is_bias(name) && !is_buffer(name))
    }

    /// What is unusual about the files, and how it is read, a sentence each; once the network was read.
    pub fn notes(&self, n_layer: usize) -> Vec<String> {
        let mut notes: Vec<String> = self.files.iter().filter_map(WeightFile::note).collect();
        if let Some(prefix) = self.names.prefix().filter(|prefix| !["", "transformer."].contains(prefix)) {
            notes.push(format!("the tensors' names begin with `{prefix}`"));
        }
        if self.linear && !self.files.iter().any(WeightFile::is_linear) {
            notes.push("the matrices are transposed, (out, in), as in nn.Linear".into());
        }
        if !self.has_biases() {
            notes.push("the file has no biases: they are 0".into());
        }
        let mut formats: Vec<String> = self
            .names
            .stored()
            .filter_map(|stored| self.info(stored))
            .filter(|(format, _)| !matches!(format, Format::Other(..)))
            .map(|(format, _)| format.to_string())
            .collect();
        formats.sort();
        formats.dedup();
        if formats.len() > 1 {
            notes.push(format!("the weights are in several formats: {}", formats.join(", ")));
        }
        if formats.iter().any(|format| format == "i8") {
            notes.push("int8 without scales: the weights are the whole numbers that the file has".into());
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = |name: &&String| {
            let beyond = names::block(name).is_some_and(|l| l >= n_layer);
            !asked.contains(*name) && !is_buffer(name) && !beyond
        };
        let unused: Vec<&String> = self.names.all().filter(is_unused).collect();
        for (start, class) in HEADS {
            if unused.iter().any(|name| name.starts_with(start)) {
                notes.push(format!(
                    "`{}` is the head of {class}: the logits shown are those of the head tied to wte, for which \
                     this model was not trained", start.trim_end_matches('.')
                ));
            }
        }
        let other: Vec<_> = unused
            .into_iter()
            .filter(|name| !HEADS.iter().any(|(start, _)| name.starts_with(start)))
            .collect();
        if let Some(first) = other.first() {
            let n = other.len();
            notes.push(if n == 1 {
                format!("the tensor `{first}` is not used")
            } else {
                format!("{n} tensors are not used, the first is `{first}`")
            });
        }
        notes
    }

    /// The configuration that the file brings along.
    ///
    /// # Errors
    /// [`Error::File`] if it is not one of a GPT-2.
    pub fn own_config(&self) -> Result<Option<ReadConfig>> {
        self.files.first().and_then(|file| file.own_config().transpose()).transpose()
    }

    /// What the weights are read from.
    pub fn described(&self) -> String {
        let kind = self.files.first().map_or("", WeightFile::kind);
        match self.files.len() {
            1 => kind.into(),
            n => format!("{kind}, {n} files"),
        }
    }

    /// The number of blocks in the files.
    pub fn n_layer(&self) -> usize {
        self.names.n_layer()
    }

    /// An error about the file.
    pub fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::file(self.files.first().map_or(Path::new(""), WeightFile::path), problem)
    }

    /// Refuses files that were modified since they were opened: tensors of two checkpoints may
    /// have been read.
    ///
    /// # Errors
    /// [`Error::File`] with the name of the file.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(WeightFile::check_unchanged)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The requested format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The format of the weights in the file: that of the token embedding.
    pub fn stored_format(&self) -> Option<Format> {
        let embedding = self.names.of("wte.weight").or_else(|| self.names.of("lm_head.weight"));
        Some(self.info(embedding?.first()?)?.0)
    }

    fn ask(&self, name: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
    }

    fn info(&self, stored: &Stored) -> Option<(Format, Vec<usize>)> {
        self.files[stored.file].info(&stored.name)
    }

    fn missing(&self, name: &str) -> Error {
        let there = match self.names.stored().next() {
            Some(Stored { name, .. }) => format!("the first of those it has is `{}`", brief(name, 60)),
            None => "it has none at all".into(),
        };
        self.refuse(format!("has no tensor `{name}`, which a GPT-2 of this configuration needs; {there}"))
    }

    /// Before anything is read: a file may claim to be huge.
    fn check(&self, stored: &Stored, shape: &[usize]) -> Result<()> {
        let found = self.info(stored).map(|(_, shape)| shape).unwrap_or_default();
        if found == shape {
            return Ok(());
        }
        let name = brief(&stored.name, 80);
        self.refuse_in(
            stored,
            format!("tensor `{name}` has shape {found:?}, but the configuration requires {shape:?}"),
        )
    }

    fn refuse_in<T>(&self, stored: &Stored, problem: String) -> Result<T> {
        Err(Error::file(self.files[stored.file].path(), problem))
    }

    fn load(&self, stored: &Stored, shape: &[usize]) -> Result<Tensor> {
        self.check(stored, shape)?;
        self.files[stored.file].get(&stored.name)
    }
}

fn is_bias(name: &str) -> bool {
    name.rsplit('.').next() == Some("bias")
}

/// Masks that old checkpoints store beside the weights.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

/// Whether two tensors have the same bits.
pub fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    let bits = |x: &Tensor| -> Result<Vec<u32>> {
        let floats: Vec<f32> = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(floats.into_iter().map(f32::to_bits).collect())
    };
    Ok(a.dims() == b.dims() && bits(a)? == bits(b)?)
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

/// The same for one tensor.
fn broken_tensor(file: &Path, name: &str, error: &candle_core::Error) -> Error {
    let problem = error.to_string();
    Error::file(file, format!("tensor `{}`: {}", brief(name, 80), problem.lines().next().unwrap_or_default()))
}

fn unreadable(file: &Path, cause: &str) -> Error {
    let size = std::fs::metadata(file).map(|m| format!(" of {} bytes", m.len())).unwrap_or_default();
    Error::file(
        file,
        format!("this file{size} cannot be read ({cause}); download, convert or write it again"),
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
