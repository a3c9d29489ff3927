//! `model.safetensors`; or, from `{` on, `model.safetensors.index.json`, a NUL and the shard `a.safetensors`.
#![no_main]

use actscope_fuzz::{CONFIG, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let config = ("config.json", CONFIG);
    if !data.starts_with(b"{") {
        return open(&[config, ("model.safetensors", data)]);
    }
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let [index, shard] = [(); 2].map(|()| parts.next().unwrap_or_default());
    open(&[config, ("model.safetensors.index.json", index), ("a.safetensors", shard)]);
});
