//! `pytorch_model.bin` where the bytes begin like one, a zip archive or a file from before PyTorch 1.6, or
//! like a model of llm.c; all else is the pickle in an archive, whose checksums random changes would break.
#![no_main]

use std::io::{Cursor, Read, Write};

use actscope_fuzz::{ARCHIVE, CONFIG, open};
use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

fuzz_target!(|data: &[u8]| {
    let starts: [&[u8]; 3] = [b"PK", b"\x80\x02\x8a\x0a", &20_240_326_u32.to_le_bytes()];
    let is_file = starts.iter().any(|start| data.starts_with(start));
    let archive = if is_file { data.to_vec() } else { archive(data) };
    open(&[("config.json", CONFIG), ("pytorch_model.bin", &archive)]);
});

/// The archive of the seeds with another pickle.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut from = ZipArchive::new(Cursor::new(ARCHIVE)).expect("the seed is an archive");
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for i in 0..from.len() {
        let mut file = from.by_index(i).expect("it is one of them");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("it is in memory");
        let name = file.name().expect("it is text").into_owned();
        let bytes = if name.ends_with("data.pkl") { pickle } else { &bytes };
        to.start_file(name, stored).expect("memory does not fail");
        to.write_all(bytes).expect("memory does not fail");
    }
    to.finish().expect("memory does not fail").into_inner()
}
