//! LoRA adapters of PEFT: what they add to the matrices of a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use fancy_regex::Regex;
use serde::Deserialize;

use super::{WeightFile, names};
use crate::error::{Error, Result};
use crate::files::{CONFIGURATION, read};

/// The name of an adapter's configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Its weights: the first that is there.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// The maximum bytes of a pattern.
const LONGEST_PATTERN: usize = 1 << 10;

/// The fields of PEFT's `LoraConfig` that a merge depends on.
#[derive(Debug, Deserialize)]
struct Settings {
    peft_type: Option<String>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    alpha_pattern: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    use_rslora: Option<bool>,
    #[serde(default)]
    use_dora: Option<bool>,
    modules_to_save: Option<serde_json::Value>,
    layer_replication: Option<serde_json::Value>,
    base_model_name_or_path: Option<String>,
}

/// A LoRA adapter: low-rank changes of matrices, and new biases.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    /// (in, out), by the name of the matrix.
    deltas: BTreeMap<String, Tensor>,
    /// By their names.
    biases: BTreeMap<String, Tensor>,
}

impl Adapter {
    /// Reads the files in an adapter's directory. The matrices' changes are α/r · (B A)ᵀ, or α/√r with
    /// `use_rslora`; α follows `alpha_pattern`, r is what the file has.
    ///
    /// # Errors
    /// [`Error::File`] for a directory that holds no LoRA adapter, and for one that does more than add
    /// to the matrices of the blocks.
    pub fn open(directory: &Path) -> Result<Self> {
        let config = directory.join(CONFIG);
        if !config.is_file() {
            let problem =
                format!("has no {CONFIG}, so it is not an adapter; --adapter takes a directory of PEFT");
            return Err(Error::file(directory, problem));
        }
        let refuse = |problem: String| Err(Error::file(&config, problem));
        let settings: Settings = match serde_json::from_slice(&read(&config, CONFIGURATION)?) {
            Ok(settings) => settings,
            Err(error) => {
                return refuse(format!("is not an adapter's configuration ({error}); download it again"));
            }
        };
        let kind = settings.peft_type.as_deref().unwrap_or("LORA");
        let more = [
            (kind != "LORA", format!("is a {kind} adapter")),
            (settings.use_dora == Some(true), "is a DoRA adapter (use_dora)".into()),
            (is_set(settings.modules_to_save.as_ref()), "holds whole layers (modules_to_save)".into()),
            (is_set(settings.layer_replication.as_ref()), "repeats layers (layer_replication)".into()),
        ];
        if let Some((_, what)) = more.into_iter().find(|(it_is, _)| *it_is) {
            return refuse(format!(
                "{what}, but actscope only merges LoRA; merge it with peft (merge_and_unload) and save the model"
            ));
        }
        let Some(file) = WEIGHTS.iter().map(|name| directory.join(name)).find(|path| path.is_file()) else {
            return Err(Error::file(
                directory,
                format!("has no weights: neither {} nor {}", WEIGHTS[0], WEIGHTS[1]),
            ));
        };
        let open = WeightFile::open(&file)?;
        let mut adapter = Self { path: file, deltas: BTreeMap::new(), biases: BTreeMap::new() };
        let mut pairs: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for name in open.names() {
            let bare = names::bare(&name).replace(".base_layer", "");
            let tensor = || Ok::<_, Error>(open.get(&name)?.to_dtype(DType::F32)?);
            if let Some(module) = bare.strip_suffix(".lora_A.weight").filter(|module| is_matrix(module)) {
                pairs.entry(module.into()).or_default()[0] = Some(tensor()?);
            } else if let Some(module) =
                bare.strip_suffix(".lora_B.weight").filter(|module| is_matrix(module))
            {
                pairs.entry(module.into()).or_default()[1] = Some(tensor()?);
            } else if super::is_bias(&bare) && !bare.contains("lora_") {
                adapter.biases.insert(bare, tensor()?);
            } else {
                let problem = format!(
                    "holds `{name}`, but actscope only merges LoRA into the blocks' matrices; merge it with peft (merge_and_unload) and save the model"
                );
                return Err(adapter.refuse(problem));
            }
        }
        for (module, pair) in pairs {
            let [Some(a), Some(b)] = pair else {
                return Err(adapter.refuse(format!(
                    "holds only one of lora_A and lora_B for `{module}`; download it again"
                )));
            };
            let (Ok((r, _)), Ok((_, r_of_b))) = (a.dims2(), b.dims2()) else {
                return Err(
                    adapter.refuse(format!("the matrices for `{module}` have other than two dimensions"))
                );
            };
            if r != r_of_b || r == 0 {
                return Err(
                    adapter.refuse(format!("lora_A and lora_B of `{module}` have ranks {r} and {r_of_b}"))
                );
            }
            let scale = settings.scale(&module, r);
            let scale = scale.map_err(|problem| Error::file(&config, problem))?;
            let delta = (b.matmul(&a)?.t()? * scale)?.contiguous()?;
            adapter.deltas.insert(format!("{module}.weight"), delta);
        }
        Ok(adapter)
    }

    /// The names of the tensors that it changes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.deltas.keys().chain(self.biases.keys()).map(String::as_str)
    }

    /// The file of its weights.
    pub fn file(&self) -> &Path {
        &self.path
    }

    pub(super) fn refuse(&self, problem: String) -> Error {
        Error::file(&self.path, problem)
    }

    /// The tensor `name` of the merged model.
    pub(super) fn change(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        let change = self.deltas.get(name).or_else(|| self.biases.get(name));
        let Some(change) = change else { return Ok(tensor) };
        if change.dims() != tensor.dims() {
            return Err(self.refuse(format!(
                "changes `{name}` by a tensor of shape {:?}, but the model's has {:?}; it belongs to another model",
                change.dims(), tensor.dims()
            )));
        }
        let change = change.to_device(&Device::Cpu)?.to_dtype(tensor.dtype())?;
        Ok(if self.deltas.contains_key(name) { (tensor + change)? } else { change })
    }
}

impl Settings {
    /// What PEFT multiplies B A by.
    fn scale(&self, module: &str, r: usize) -> Result<f64, String> {
        let mut alpha = self.lora_alpha.unwrap_or(8.0);
        let full_name = format!("transformer.{module}");
        for (pattern, value) in self.alpha_pattern.iter().flatten() {
            let regex = Some(pattern).filter(|pattern| pattern.len() <= LONGEST_PATTERN);
            let regex = regex.and_then(|pattern| Regex::new(&format!(r"^(?:(?:.*\.)?(?:{pattern}))$")).ok());
            let Some((regex, value)) = regex.zip(value.as_f64()) else {
                return Err(format!("alpha_pattern `{pattern}: {value}` cannot be read"));
            };
            // The name in a model without a head has no `transformer.`.
            if [&*full_name, module].iter().any(|name| regex.is_match(name).unwrap_or(false)) {
                alpha = value;
                break;
            }
        }
        let r = r as f64;
        Ok(if self.use_rslora == Some(true) { alpha / r.sqrt() } else { alpha / r })
    }
}

/// The model that an adapter's configuration in a directory was made for.
pub fn base_of(config: &Path) -> Option<String> {
    let settings: Settings = serde_json::from_slice(&read(config, CONFIGURATION).ok()?).ok()?;
    settings.base_model_name_or_path
}

fn is_matrix(module: &str) -> bool {
    let kinds = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    names::block(module).is_some_and(|l| kinds.iter().any(|kind| module == format!("h.{l}.{kind}")))
}

fn is_set(value: Option<&serde_json::Value>) -> bool {
    !matches!(value, None | Some(serde_json::Value::Null)) && value != Some(&serde_json::json!([]))
}
