//! A file of activations that another program wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::names::{self, Named, Ours};
use super::npy::{self, Archive, Array};
use crate::analysis::gradients::weights;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files;
use crate::hooks::Site;
use crate::model::{Format, LlmC, LlmCSizes as Sizes, TensorFile};
use crate::text::{brief, plain};

/// Whose names stand for which: theirs to ours, or to one that is known.
#[derive(Debug, Clone, Default)]
pub struct Mapping(BTreeMap<String, String>);

impl Mapping {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a JSON object, or lines of a name of theirs and one of ours.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is neither.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path, files::MAPPING)?;
        if text.trim_start().starts_with('{') {
            let map = serde_json::from_str(&text);
            return map
                .map(Self)
                .map_err(|error| Error::file(path, format!("is no object of names: {error}")));
        }
        let mut map = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<_> =
                line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty()).collect();
            let [theirs, ours] = words[..] else {
                return Err(Error::file(path, format!("line {number}: expected THEIR_NAME OUR_NAME")));
            };
            map.insert(theirs.to_owned(), ours.to_owned());
        }
        Ok(Self(map))
    }
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As the file has it.
    pub name: String,
    pub named: Named,
    pub shape: Vec<usize>,
    pub format: Format,
}

/// The tensors of a file that have a meaning in a model, and what it says of them.
pub struct Foreign {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    /// Gradients of tensors: their names end in `.grad`.
    pub gradients: Vec<Entry>,
    /// Gradients of weights: theirs and our name, by the shape that is there.
    pub of_weights: Vec<(String, String, Vec<usize>)>,
    /// The same at the end of a debug state of llm.c.
    debug_gradients: Option<LlmC>,
    /// The names that mean nothing here.
    pub unknown: Vec<String>,
    /// The tokens of each row of the batch, if the file has them.
    pub tokens: Option<Vec<Vec<u32>>>,
    /// The tokens that are to come next, if the file has them.
    pub targets: Option<Vec<Vec<u32>>>,
    /// The positions that it has, if it says so.
    pub positions: Option<Range<usize>>,
    /// The model that made it, if it says so.
    pub model: Option<String>,
    /// Of the weights that made it, if it says so.
    pub weights_sha256: Option<String>,
    /// All that a file of ours says of itself.
    pub manifest: Option<serde_json::Value>,
    /// The mean of the losses, if it has only that.
    pub loss: Option<f32>,
    /// What is in it and is not compared.
    pub notes: Vec<String>,
    from: From,
}

enum From {
    Tensors(TensorFile),
    Npz,
    Held(BTreeMap<String, Tensor>),
}

/// Of the files that are read.
const ENDINGS: [&str; 6] = ["safetensors", "npz", "npy", "pt", "pth", "bin"];

/// The first number of a debug state of llm.c.
const DEBUG_STATE: i32 = 20_240_327;

/// Names of whole numbers.
const TOKENS: [&str; 5] = ["input_ids", "token_ids", "tokens", "x", "idx"];
const TARGETS: [&str; 3] = ["targets", "labels", "y"];

/// Whether whole numbers of this name are token ids.
fn is_tokens(name: &str) -> bool {
    TOKENS.contains(&name) || TARGETS.contains(&name)
}

impl Foreign {
    /// Opens a `.safetensors`, `.npz`, `.npy`, `.pt`, or a debug state of llm.c. `hook` names the only tensor of a file
    /// without names.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, or has no tensor whose name is known; [`Error::Usage`] for a
    /// `.npy` without a name for it.
    pub fn open(path: &Path, hook: Option<&str>, mapping: &Mapping, config: &Config) -> Result<Self> {
        Self::read(path, hook, mapping, Some(config))
    }

    /// What a file says of its prompt, before there is a model.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read.
    pub fn about(path: &Path) -> Result<Self> {
        Self::read(path, None, &Mapping::default(), None)
    }

    fn read(path: &Path, hook: Option<&str>, mapping: &Mapping, config: Option<&Config>) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        let found = std::fs::metadata(path).map_err(|error| files::unreadable(path, &error))?;
        if !found.is_file() {
            return Err(Error::file(path, "is no regular file: name the file of the activations"));
        }
        if !ending.as_ref().is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            let kinds = "a .safetensors, .npz, .npy or .pt file, or the .bin of a debug state of llm.c";
            return Err(Error::file(path, format!("is of no kind that activations are read from: {kinds}")));
        }
        let mut foreign = Self {
            path: path.into(),
            entries: Vec::new(),
            gradients: Vec::new(),
            of_weights: Vec::new(),
            debug_gradients: None,
            unknown: Vec::new(),
            tokens: None,
            targets: None,
            positions: None,
            model: None,
            weights_sha256: None,
            manifest: None,
            loss: None,
            notes: Vec::new(),
            from: From::Npz,
        };
        match ending.as_deref() {
            Some("npy") if config.is_none() => {}
            Some("npy") => foreign.open_npy(hook, mapping, config)?,
            _ if hook.is_some() => {
                return Err(Error::usage("--hook names the array of a .npy file: other files have names"));
            }
            Some("npz") => foreign.open_npz(mapping, config)?,
            Some("bin") => foreign.open_debug_state(config)?,
            _ => foreign.open_tensors(mapping, config)?,
        }
        if config.is_some()
            && foreign.entries.is_empty()
            && foreign.gradients.is_empty()
            && foreign.of_weights.is_empty()
            && foreign.loss.is_none()
        {
            let has: Vec<_> =
                foreign.unknown.iter().take(3).map(|name| brief(name, 60).into_owned()).collect();
            let has = if has.is_empty() { "no tensors".into() } else { format!("`{}`", has.join("`, `")) };
            return Err(Error::file(
                path,
                format!(
                    "has no tensor with a name that is known: it has {has}; name them as TransformerLens, Hugging Face \
                     or llm.c do (see actscope hooks), or pass --map"
                ),
            ));
        }
        Ok(foreign)
    }

    /// The tensor of an entry, as float32.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn tensor(&self, entry: &Entry) -> Result<Tensor> {
        match &self.from {
            From::Tensors(file) => file.get(&entry.name, &entry.shape),
            From::Npz => match Archive::open(&self.path)?.array(&entry.name)? {
                Array::Floats(x, _) => Ok(x),
                Array::Integers(..) => {
                    Err(self.refuse(format!("{} holds whole numbers", plain(&entry.name))))
                }
            },
            From::Held(all) => Ok(all[&entry.name].clone()),
        }
    }

    /// The gradient of a weight, by their name and ours.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn of_weight(&self, theirs: &str, ours: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(found) = &self.debug_gradients {
            let x = found.get(ours).map_err(|why| self.refuse(format!("{ours}: {why}")))?;
            return x.ok_or_else(|| self.refuse(format!("has no gradient of {ours}")));
        }
        let named = Named::One(Ours::whole(Site::Embed.once()));
        let (name, shape) = (theirs.to_owned(), shape.to_vec());
        self.tensor(&Entry { name, named, shape, format: Format::F32 })
    }

    /// Whether the gradients are those of the mean loss for its targets.
    pub fn is_debug_state(&self) -> bool {
        self.debug_gradients.is_some()
    }

    fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }

    /// Takes a tensor of floating-point numbers by its name.
    fn add(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        format: Format,
        mapping: &Mapping,
        config: Option<&Config>,
    ) -> Result<()> {
        let Some(config) = config else { return Ok(()) };
        let known = mapping.0.get(name);
        let of = name.strip_suffix(".grad").or_else(|| name.strip_prefix("grad."));
        if let Some(of) = of.filter(|_| known.is_none()) {
            let weight = of.strip_prefix("transformer.").unwrap_or(of);
            let is_weight = |(known, _): &(String, Vec<usize>)| known == weight;
            if let Some(named) = names::find(mapping.0.get(of).map_or(of, String::as_str), config) {
                self.gradients.push(Entry { name: name.to_owned(), named, shape, format });
            } else if weights::names(config).iter().any(is_weight) {
                self.of_weights.push((name.to_owned(), weight.to_owned(), shape));
            } else {
                self.unknown.push(name.to_owned());
            }
            return Ok(());
        }
        match names::find(known.map_or(name, String::as_str), config) {
            Some(named) => self.entries.push(Entry { name: name.to_owned(), named, shape, format }),
            None if known.is_some() => {
                let known = known.map_or("", String::as_str);
                return Err(Error::usage(format!(
                    "the mapping of `{}`: this model has no `{}`",
                    plain(name),
                    plain(known)
                )));
            }
            None => self.unknown.push(name.to_owned()),
        }
        Ok(())
    }

    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// Takes token ids, (T) or (B, T).
    fn add_integers(&mut self, name: &str, all: &[i64], shape: &[usize]) -> Result<()> {
        let n = match shape {
            [_, n] | [n] if *n > 0 => *n,
            _ => {
                return Err(
                    self.refuse(format!("`{name}` has shape {shape:?}, and is no (B, T) of token ids"))
                );
            }
        };
        let ids: Option<Vec<u32>> = all.iter().map(|id| u32::try_from(*id).ok()).collect();
        let rows = ids.map(|ids| ids.chunks(n).map(<[u32]>::to_vec).collect::<Vec<_>>());
        if TARGETS.contains(&name) {
            // Targets that are to be left out are −1 or −100.
            self.targets = rows.or(self.targets.take());
        } else {
            let rows =
                rows.ok_or_else(|| self.refuse(format!("`{name}` has numbers that are no token ids")))?;
            self.tokens = Some(rows);
        }
        Ok(())
    }

    /// Takes what actscope's own exports say of themselves.
    fn add_manifest(&mut self, value: impl Fn(&str) -> Option<serde_json::Value>) {
        self.model = value("model").and_then(|model| model.as_str().map(str::to_owned));
        self.weights_sha256 = value("weights_sha256").and_then(|sha| sha.as_str().map(str::to_owned));
        if let Some(ids) = value("token_ids").and_then(|ids| serde_json::from_value::<Vec<u32>>(ids).ok()) {
            self.tokens = Some(vec![ids]);
        }
        let positions = value("positions").and_then(|at| serde_json::from_value::<[usize; 2]>(at).ok());
        self.positions = positions.map(|[first, end]| first..end);
    }

    fn open_tensors(&mut self, mapping: &Mapping, config: Option<&Config>) -> Result<()> {
        let file = TensorFile::open(&self.path)?;
        self.add_manifest(|key| file.value(key));
        self.manifest = file.metadata().filter(|all| all.contains_key("actscope_version")).map(manifest_of);
        for name in file.names() {
            let (Some(format), Some(shape)) = (file.format(&name), file.shape(&name)) else { continue };
            match format {
                Format::Other(..) => match file.integers(&name).filter(|_| is_tokens(&name)) {
                    Some(all) => self.add_integers(&name, &all, &shape)?,
                    None => self.unknown.push(name),
                },
                _ => self.add(&name, shape, format, mapping, config)?,
            }
        }
        self.from = From::Tensors(file);
        Ok(())
    }

    fn open_npz(&mut self, mapping: &Mapping, config: Option<&Config>) -> Result<()> {
        let path = self.path.clone();
        let mut archive = Archive::open(&path)?;
        let manifest = archive.text("manifest.json").and_then(|text| serde_json::from_str(&text).ok());
        let manifest: serde_json::Value = manifest.unwrap_or_default();
        self.add_manifest(|key| manifest.get(key).cloned());
        self.manifest = manifest.get("actscope_version").is_some().then_some(manifest);
        for name in archive.names() {
            match archive.info(&name)? {
                Some((Format::Other(..), _)) if is_tokens(&name) => {
                    if let Array::Integers(all, shape) = archive.array(&name)? {
                        self.add_integers(&name, &all, &shape)?;
                    }
                }
                None | Some((Format::Other(..), _)) => self.unknown.push(name),
                Some((format, shape)) => self.add(&name, shape, format, mapping, config)?,
            }
        }
        Ok(())
    }

    fn open_npy(&mut self, hook: Option<&str>, mapping: &Mapping, config: Option<&Config>) -> Result<()> {
        let Some(hook) = hook else {
            return Err(Error::usage("a .npy file has no name in it: say with --hook NAME what it is"));
        };
        let Array::Floats(x, format) = npy::read(&self.path)? else {
            return Err(self.refuse("holds whole numbers, and no activations"));
        };
        self.add(hook, x.dims().to_vec(), format, mapping, config)?;
        self.from = From::Held([(hook.to_owned(), x)].into());
        Ok(())
    }

    /// 256 integers, then the tokens and targets, (B, T), the logits, (B, T, V), and the loss; gradients follow.
    fn open_debug_state(&mut self, config: Option<&Config>) -> Result<()> {
        let path = self.path.clone();
        let failed = |path: &Path, why: String| Error::file(path, why);
        let mut file =
            File::open(&self.path).map_err(|e| failed(&self.path, format!("cannot be read: {e}")))?;
        let length = file.metadata().map_or(0, |found| found.len());
        let mut read = |n: u64| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let taken = (&mut file).take(n).read_to_end(&mut bytes);
            taken.map_err(|e| failed(&path, format!("cannot be read: {e}")))?;
            if bytes.len() as u64 == n {
                return Ok(bytes);
            }
            Err(failed(&path, format!("is cut short: it has {length} bytes")))
        };
        let ints = |bytes: &[u8]| -> Vec<i32> {
            bytes.as_chunks::<4>().0.iter().map(|&chunk| i32::from_le_bytes(chunk)).collect()
        };
        let header = ints(&read(1024)?);
        if header[0] != DEBUG_STATE {
            return Err(self
                .refuse("is no debug state of llm.c, which begins with 20240327; a .bin of another kind?"));
        }
        let (version, b, t) = (header[1], header[2], header[3]);
        let sizes = [b, t].map(|n| u64::try_from(n).ok().filter(|n| (1..=1 << 16).contains(n)));
        let (1..=2, [Some(b), Some(t)]) = (version, sizes) else {
            return Err(self.refuse(format!(
                "is of version {version}, B {b}, T {t}: 1 and 2 are read, of sizes above 0"
            )));
        };
        let v = config.map_or(0, |config| config.vocab_size as u64);
        if 1024 + 4 * (2 * b * t + b * t * v + 1) > length {
            return Err(self.refuse(format!(
                "is cut short, or of another vocabulary than this model's {v}: B {b} and T {t} take more than its \
                 {length} bytes"
            )));
        }
        for name in ["x", "y"] {
            let all: Vec<i64> = ints(&read(4 * b * t)?).into_iter().map(i64::from).collect();
            self.add_integers(name, &all, &[b as usize, t as usize])?;
        }
        if config.is_none() {
            return Ok(());
        }
        let logits = read(4 * b * t * v)?;
        let shape = vec![b as usize, t as usize, v as usize];
        let logits = Tensor::from_raw_buffer(&logits, candle_core::DType::F32, &shape, &Device::Cpu)?;
        let loss: [u8; 4] = read(4)?.try_into().unwrap_or_default();
        self.loss = Some(f32::from_le_bytes(loss));
        let start = 1024 + 4 * (2 * b * t + b * t * v + 1);
        if let Some(config) = config.filter(|_| start < length) {
            let sizes = Sizes {
                n_positions: config.n_positions,
                vocab_size: config.vocab_size,
                n_layer: config.n_layer,
                n_head: config.n_head,
                n_embd: config.n_embd,
                padded_vocab_size: config.vocab_size.next_multiple_of(128),
            };
            match LlmC::within(&self.path, sizes, start as usize) {
                Some(found) => {
                    let names = found.names();
                    self.of_weights = names.map(|name| (format!("{name}.grad"), name, Vec::new())).collect();
                    self.debug_gradients = Some(found);
                }
                None => {
                    self.note("its gradients are of another size than this model's weights: not compared");
                }
            }
        }
        self.add("logits", shape, Format::F32, &Mapping::default(), config)?;
        self.from = From::Held([("logits".to_owned(), logits)].into());
        Ok(())
    }
}

/// A manifest whose fields are texts: those that were texts, and JSON.
fn manifest_of(fields: BTreeMap<String, String>) -> serde_json::Value {
    const TEXTS: [&str; 8] =
        ["actscope_version", "model", "adapter", "weights_sha256", "dtype", "device", "prompt", "difference"];
    let value = |(key, text): (String, String)| {
        let json: Option<serde_json::Value> =
            if TEXTS.contains(&&*key) { None } else { serde_json::from_str(&text).ok() };
        (key, json.unwrap_or(text.into()))
    };
    fields.into_iter().map(value).collect()
}
