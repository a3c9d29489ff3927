//! What a file is, by its first bytes: for a sentence about one that is not what its name says.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The first number of a model of llm.c, and of its other files with what these are.
const LLMC: u32 = 20_240_326;
const LLMC_OTHERS: [(u32, &str); 7] = [
    (20_240_327, "is a debug state of llm.c (activations and gradients), not a model"),
    (20_240_328, "is a tokenizer of llm.c, not a model"),
    (20_240_520, "is token data of llm.c, not a model"),
    (20_240_522, "is evaluation data of llm.c, not a model"),
    (20_240_527, "is an optimizer state of llm.c, not a model"),
    (20_240_801, "is token data of llm.c for Llama 3, not a model"),
    (20_240_803, "is a Llama 3 of llm.c, not a GPT-2"),
];

/// What a file that was taken for weights, a configuration or a tokenizer can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    Empty,
    LfsPointer,
    WebPage,
    Gguf,
    Hdf5,
    PyTorch,
    Safetensors,
    /// A model of llm.c.
    LlmC,
    /// Another file of llm.c: what it is.
    OtherLlmC(&'static str),
}

impl Looks {
    /// By the first bytes; `None` if they are nothing known.
    pub fn of(start: &[u8]) -> Option<Self> {
        let text = start.trim_ascii_start().to_ascii_lowercase();
        Some(match start {
            [] => Self::Empty,
            // The length of a header, which may begin like a pickle, and the header.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Self::Safetensors,
            [b'P', b'K', ..] | [0x80, 2..=5, ..] => Self::PyTorch,
            _ if start.starts_with(b"version https://git-lfs") => Self::LfsPointer,
            _ if text.starts_with(b"<!doctype") || text.starts_with(b"<html") => Self::WebPage,
            _ if start.starts_with(b"GGUF") => Self::Gguf,
            _ if start.starts_with(b"\x89HDF") => Self::Hdf5,
            _ if start.starts_with(&LLMC.to_le_bytes()) => Self::LlmC,
            _ => {
                let number = u32::from_le_bytes(*start.first_chunk()?);
                let (_, what) = LLMC_OTHERS.iter().find(|(first, _)| *first == number)?;
                Self::OtherLlmC(what)
            }
        })
    }

    /// By the file's content.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mut start = Vec::new();
        File::open(path).ok()?.take(64).read_to_end(&mut start).ok()?;
        Self::of(&start)
    }

    /// What it is, and the way out.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Empty => "is empty; download it again",
            Self::LfsPointer => {
                "is a Git LFS pointer, not the file itself; run `git lfs pull` in its directory, or download it"
            }
            Self::WebPage => "is a web page; download the file itself",
            Self::Gguf => "is a GGUF file, which actscope does not read; use the model's safetensors",
            Self::Hdf5 => {
                "is a TensorFlow file, which actscope does not read; convert it to safetensors with transformers 4 \
                 (from_tf=True, save_pretrained)"
            }
            Self::PyTorch => "is a PyTorch file, not safetensors; name it pytorch_model.bin",
            Self::LlmC => "is a model of llm.c, not safetensors; name it model.bin",
            Self::OtherLlmC(what) => what,
            Self::Safetensors => "is a safetensors file; name it model.safetensors",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_show_what_they_are() {
        use Looks::*;
        assert_eq!(Looks::of(b""), Some(Empty));
        assert_eq!(Looks::of(b"version https://git-lfs.github.com/spec/v1\noid sha256:1"), Some(LfsPointer));
        for page in [&b"\n <!DOCTYPE html><html>"[..], b"<HTML>"] {
            assert_eq!(Looks::of(page), Some(WebPage));
        }
        assert_eq!(Looks::of(b"GGUF\x03\0\0\0"), Some(Gguf));
        assert_eq!(Looks::of(b"\x89HDF\r\n\x1a\n"), Some(Hdf5));
        assert_eq!(Looks::of(b"\x08\0\0\0\0\0\0\0{}      "), Some(Safetensors));
        assert_eq!(Looks::of(b"\x80\x02\0\0\0\0\0\0{\"a\""), Some(Safetensors));
        assert_eq!(Looks::of(b"PK\x03\x04"), Some(PyTorch));
        assert_eq!(Looks::of(&LLMC.to_le_bytes()), Some(LlmC));
        for (first, what) in LLMC_OTHERS {
            assert_eq!(Looks::of(&first.to_le_bytes()), Some(OtherLlmC(what)));
        }
        for unknown in [&b"dummy\n"[..], b"<", b"{\"a\": 1}", &[0x80, 1]] {
            assert_eq!(Looks::of(unknown), None);
        }
    }
}
