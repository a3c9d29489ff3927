//! The model files of llm.c: 256 integers, then the tensors in a fixed order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{Error, Result, Tensor};

use super::format::Format;

const HEADER: usize = 1024;
/// Far more than any model has; each has names.
const MOST_LAYERS: usize = 1 << 14;

/// The tensors of a model, read one by one on request, under GPT-2's names. Weights of linear layers
/// are (out, in).
#[derive(Debug)]
pub struct LlmC {
    pub path: PathBuf,
    pub sizes: Sizes,
    format: Format,
    /// Where the first tensor begins.
    start: usize,
}

/// The sizes in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The longest sequence, maxT.
    pub n_positions: usize,
    pub vocab_size: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_embd: usize,
    /// The rows of `wte` in the file; those from `vocab_size` on belong to no token.
    pub padded_vocab_size: usize,
}

/// How many rows a tensor has.
#[derive(Clone, Copy)]
enum Rows {
    Vocab,
    Positions,
    /// So many times C.
    Times(usize),
}

/// In the order of the file: the name, its rows, and its columns in multiples of C, 0 for a vector.
/// Where the name begins with `h.`, all blocks' come one after the other.
const TENSORS: [(&str, Rows, usize); 16] = [
    ("wte.weight", Rows::Vocab, 1),
    ("wpe.weight", Rows::Positions, 1),
    ("h.ln_1.weight", Rows::Times(1), 0),
    ("h.ln_1.bias", Rows::Times(1), 0),
    ("h.attn.c_attn.weight", Rows::Times(3), 1),
    ("h.attn.c_attn.bias", Rows::Times(3), 0),
    ("h.attn.c_proj.weight", Rows::Times(1), 1),
    ("h.attn.c_proj.bias", Rows::Times(1), 0),
    ("h.ln_2.weight", Rows::Times(1), 0),
    ("h.ln_2.bias", Rows::Times(1), 0),
    ("h.mlp.c_fc.weight", Rows::Times(4), 1),
    ("h.mlp.c_fc.bias", Rows::Times(4), 0),
    ("h.mlp.c_proj.weight", Rows::Times(1), 4),
    ("h.mlp.c_proj.bias", Rows::Times(1), 0),
    ("ln_f.weight", Rows::Times(1), 0),
    ("ln_f.bias", Rows::Times(1), 0),
];

impl LlmC {
    /// # Errors
    /// If the file is another of llm.c's, or its length is not what its sizes take.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut header = Vec::new();
        file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        let length = file.seek(SeekFrom::End(0))?;
        if header.len() < HEADER {
            return Err(bad("it is cut short within its header"));
        }
        let field = |i: usize| i32::from_le_bytes(std::array::from_fn(|byte| header[4 * i + byte]));
        let format = match field(1) {
            3 => Format::F32,
            5 => Format::Bf16,
            version => {
                return Err(bad(format!(
                    "it has version {version} of llm.c's format, of which 3 (float32) and 5 (bfloat16) can be read"
                )));
            }
        };
        let size = |i: usize, name: &str| match usize::try_from(field(i)) {
            Ok(n @ 1..) => Ok(n),
            _ => Err(bad(format!("its {name} is {}", field(i)))),
        };
        let sizes = Sizes {
            n_positions: size(2, "maxT")?,
            vocab_size: size(3, "vocabulary size")?,
            n_layer: size(4, "number of layers")?,
            n_head: size(5, "number of heads")?,
            n_embd: size(6, "number of channels")?,
            padded_vocab_size: size(7, "padded vocabulary size")?,
        };
        if sizes.n_layer > MOST_LAYERS {
            return Err(bad(format!("its number of layers is {}", sizes.n_layer)));
        }
        if sizes.padded_vocab_size < sizes.vocab_size {
            return Err(bad("its padded vocabulary is smaller than its vocabulary"));
        }
        let expected = HEADER as u128 + sizes.all() * format.size() as u128;
        if expected != length.into() {
            let how = if expected > length.into() { "it is cut short" } else { "bytes follow its tensors" };
            return Err(bad(format!("{how}: its sizes take {expected} bytes, but it has {length}")));
        }
        Ok(Self { path: path.into(), sizes, format, start: HEADER })
    }

    /// The float32 tensors of a model of these sizes that end a file, such as the gradients of a debug state; `None` if
    /// what is left of it from `start` on is of other sizes.
    pub fn within(path: &Path, sizes: Sizes, start: usize) -> Option<Self> {
        let left = std::fs::metadata(path).ok()?.len().checked_sub(start as u64)?;
        let format = Format::F32;
        let fits = sizes.all() * format.size() as u128 == u128::from(left);
        fits.then(|| Self { path: path.into(), sizes, format, start })
    }

    /// The names of all tensors, block by block within a kind.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let sizes = self.sizes;
        TENSORS.iter().flat_map(move |&(name, ..)| {
            (0..sizes.copies(name)).map(move |l| match name.strip_prefix("h.") {
                Some(rest) => format!("h.{l}.{rest}"),
                None => name.to_owned(),
            })
        })
    }

    /// The format and shape; `None` if there is no tensor with this name.
    pub fn info(&self, name: &str) -> Option<(Format, Vec<usize>)> {
        let (i, _) = self.find(name)?;
        Some((self.format, self.sizes.shape(&TENSORS[i])))
    }

    /// `None` if there is no tensor with this name.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some((i, copy)) = self.find(name) else { return Ok(None) };
        // The file's length was compared with the sizes: nothing overflows.
        let elements = |row| self.sizes.elements(row) as usize;
        let before: usize = TENSORS[..i].iter().map(|row| elements(row) * self.sizes.copies(row.0)).sum();
        let start = self.start + (before + copy * elements(&TENSORS[i])) * self.format.size();
        let shape = self.sizes.shape(&TENSORS[i]);
        let n_bytes = shape.iter().product::<usize>() * self.format.size();
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start as u64))?;
        let mut bytes = Vec::new();
        file.take(n_bytes as u64).read_to_end(&mut bytes)?;
        if bytes.len() != n_bytes {
            return Err(bad("it was cut short while being read"));
        }
        self.format.tensor(&bytes, &shape).map(Some)
    }

    /// The row of [`TENSORS`] of a name, and the block.
    fn find(&self, name: &str) -> Option<(usize, usize)> {
        let (kind, copy) = match name.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
            // Only the usual digits, so that each tensor has one name.
            Some((l, rest)) => (rest, l.parse::<usize>().ok().filter(|n| n.to_string() == l)?),
            None => (name, 0),
        };
        let is_it = |row: &str| match row.strip_prefix("h.") {
            Some(row) => name.starts_with("h.") && row == kind,
            None => row == name,
        };
        let i = TENSORS.iter().position(|row| is_it(row.0))?;
        (copy < self.sizes.copies(TENSORS[i].0)).then_some((i, copy))
    }
}

impl Sizes {
    /// The elements of all tensors: no product of four 31-bit numbers overflows 128 bits.
    fn all(self) -> u128 {
        TENSORS.iter().map(|row| self.elements(row) * self.copies(row.0) as u128).sum()
    }

    /// How often a kind of tensor is there.
    fn copies(self, name: &str) -> usize {
        if name.starts_with("h.") { self.n_layer } else { 1 }
    }

    /// The elements of one tensor of a kind in the file.
    fn elements(self, &(_, rows, columns): &(&str, Rows, usize)) -> u128 {
        let rows = match rows {
            Rows::Vocab => self.padded_vocab_size as u128,
            Rows::Positions => self.n_positions as u128,
            Rows::Times(n) => n as u128 * self.n_embd as u128,
        };
        if columns == 0 { rows } else { rows * columns as u128 * self.n_embd as u128 }
    }

    /// The shape, without the padding of the vocabulary.
    fn shape(self, &(_, rows, columns): &(&str, Rows, usize)) -> Vec<usize> {
        let rows = match rows {
            Rows::Vocab => self.vocab_size,
            Rows::Positions => self.n_positions,
            Rows::Times(n) => n * self.n_embd,
        };
        if columns == 0 { vec![rows] } else { vec![rows, columns * self.n_embd] }
    }
}

fn bad(problem: impl Into<String>) -> Error {
    Error::Msg(problem.into())
}

#[cfg(test)]
mod tests;
