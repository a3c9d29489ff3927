//! `config.json`, beside weights that fit the seed.
#![no_main]

use actscope_fuzz::{WEIGHTS, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| open(&[("config.json", data), ("model.safetensors", WEIGHTS)]));
