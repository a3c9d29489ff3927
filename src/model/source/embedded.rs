//! The built-in demo model.

use std::path::Path;

use candle_core::{DType, Device};

use crate::config::{Config, ReadConfig};
use crate::error::Result;
use crate::model::tokenizer::Beside;
use crate::model::{Tokenizer, Weights};

pub const WEIGHTS: &[u8] = include_bytes!("../../../assets/demo/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../../assets/demo/config.json");
const TOKENIZER: &[u8] = include_bytes!("../../../assets/demo/tokenizer.json");

pub fn open(device: &Device, dtype: DType) -> Result<(ReadConfig, Weights)> {
    let config = Config::from_json(CONFIG, Path::new("demo/config.json"))?;
    let weights = Weights::embedded(WEIGHTS, "demo/model.safetensors", device, dtype)?;
    Ok((config, weights))
}

pub fn tokenizer() -> Tokenizer {
    let read = Tokenizer::from_json(TOKENIZER, &Beside::default(), Path::new("demo/tokenizer.json"));
    read.expect("the built-in tokenizer is valid")
}
