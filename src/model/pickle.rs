//! `pytorch_model.bin`: a zip archive with a pickle that says where each tensor is.
//!
//! Reads what `torch.save` writes for a state dict. Nothing in the file is run: the pickle is read as
//! a description; what is not needed is skipped, and nonsense is refused.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Error, Result, Tensor};

use super::archive::Directory;

// Some ten times what the description of the largest state dict takes. No operation adds more than
// one value, one place on the stack, one mark and one slot of the memo, so that their number bounds all
// of these.
const LONGEST_PICKLE: u64 = 1 << 24;
const MOST_OPERATIONS: usize = 1 << 20;

/// Upper limits for the names of tensors and storages, and for dimensions.
const LONGEST_NAME: usize = 512;
const MOST_DIMENSIONS: usize = 8;

/// The tensors of a checkpoint, read one by one on request.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    directory: Directory,
    /// The folder in the archive that contains everything.
    prefix: String,
    entries: HashMap<String, Entry>,
}

/// Where a tensor is: `shape` and `stride` over the elements of a storage from `offset` on.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    storage: String,
    dtype: DType,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Directory::read(path)?;
        let prefix = directory.names().filter_map(|name| name.strip_suffix("data.pkl")).min();
        let prefix =
            prefix.ok_or_else(|| bad("it contains no data.pkl, so it is not a PyTorch checkpoint"))?;
        let prefix = prefix.to_owned();
        let mut pickle = Vec::new();
        let (member, _) = directory.open(path, &format!("{prefix}data.pkl"))?;
        member.take(LONGEST_PICKLE + 1).read_to_end(&mut pickle)?;
        let entries = Machine::new(&pickle).run()?;
        Ok(Self { path: path.into(), directory, prefix, entries })
    }

    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// `None` if there is no tensor with this name.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let entry = self.entries.get(name);
        entry.map(|entry| self.read(entry).map_err(|e| bad(format!("tensor `{name}`: {e}")))).transpose()
    }

    fn read(&self, entry: &Entry) -> Result<Tensor> {
        let Entry { storage, dtype, offset, shape, stride } = entry;
        let transposed = match stride {
            stride if *stride == strides(shape.iter()) => false,
            stride if stride.iter().rev().eq(strides(shape.iter().rev()).iter()) => true,
            _ => return Err(bad("its elements are not contiguous")),
        };
        let size = dtype.size_in_bytes();
        let n_bytes = shape.iter().try_fold(size, |n, &d| n.checked_mul(d));
        let start = offset.checked_mul(size);
        let (mut member, n_stored) =
            self.directory.open(&self.path, &format!("{}data/{storage}", self.prefix))?;
        let (Some(n_bytes), Some(start)) = (n_bytes, start) else {
            return Err(bad("its size is impossible"));
        };
        if start.checked_add(n_bytes).is_none_or(|end| end as u64 > n_stored) {
            return Err(bad("it ends after its storage"));
        }
        std::io::copy(&mut member.by_ref().take(start as u64), &mut std::io::sink())?;
        // Grows as it is read, so that a false size costs nothing.
        let mut bytes = Vec::new();
        member.take(n_bytes as u64).read_to_end(&mut bytes)?;
        if bytes.len() != n_bytes {
            return Err(bad("its storage is cut short"));
        }
        if !transposed {
            return Tensor::from_raw_buffer(&bytes, *dtype, shape, &Device::Cpu);
        }
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        Tensor::from_raw_buffer(&bytes, *dtype, &reversed, &Device::Cpu)?.permute(axes)?.contiguous()
    }
}

fn bad(problem: impl Into<String>) -> Error {
    Error::Msg(problem.into())
}

/// The strides of a contiguous tensor, last axis fastest.
fn strides<'a>(shape: impl DoubleEndedIterator<Item = &'a usize>) -> Vec<usize> {
    let step = |n: &mut usize, d: &usize| {
        let stride = *n;
        *n = n.saturating_mul(*d);
        Some(stride)
    };
    let mut strides: Vec<usize> = shape.rev().scan(1, step).collect();
    strides.reverse();
    strides
}

/// The index of a value in [`Machine::values`].
type Id = usize;

/// What a pickle builds, as far as it describes tensors.
enum Value<'a> {
    Int(i64),
    Text(&'a str),
    /// A function or class by module and name.
    Global(&'a str, &'a str),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function and its arguments, not called.
    Call(Id, Id),
    /// The description of a storage.
    Persistent(Id),
    Other,
}

/// The stack machine that runs pickles. Values are in one list and refer to each other by
/// index, so that none is copied and nesting has no limit.
struct Machine<'a> {
    pickle: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

// `None` throughout, but for `run`: the pickle makes no sense.
impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// The tensors of the state dict that the pickle describes.
    fn run(mut self) -> Result<HashMap<String, Entry>> {
        let damaged = || bad("its data.pkl is damaged");
        if self.pickle.len() as u64 > LONGEST_PICKLE {
            return Err(bad("its data.pkl is longer than any checkpoint's"));
        }
        for _ in 0..MOST_OPERATIONS {
            if !self.step().ok_or_else(damaged)? {
                return self.tensors().ok_or_else(damaged);
            }
        }
        Err(bad("its data.pkl describes more than any checkpoint"))
    }

    fn tensors(&self) -> Option<HashMap<String, Entry>> {
        let Value::Dict(items) = self.value(*self.stack.last()?) else { return None };
        let named = |&(name, value): &(Id, Id)| match self.value(name) {
            Value::Text(name) if name.len() <= LONGEST_NAME => {
                Some(((*name).to_owned(), self.tensor(value)?))
            }
            _ => None,
        };
        Some(items.iter().filter_map(named).collect())
    }

    /// Executes one operation; returns `false` at the end.
    fn step(&mut self) -> Option<bool> {
        match self.u8()? {
            0x80 => drop(self.u8()?), // PROTO
            b'.' => return Some(false),
            b'(' => self.marks.push(self.stack.len()),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(module, name));
            }
            b'q' => {
                let slot = self.u8()?.into();
                self.memo.insert(slot, *self.stack.last()?);
            }
            b'r' => {
                let slot = self.u32()?;
                self.memo.insert(slot, *self.stack.last()?);
            }
            b'h' => {
                let slot = self.u8()?.into();
                self.stack.push(*self.memo.get(&slot)?);
            }
            b'j' => {
                let slot = self.u32()?;
                self.stack.push(*self.memo.get(&slot)?);
            }
            b'K' => {
                let n = self.u8()?.into();
                self.push(Value::Int(n));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?).into();
                self.push(Value::Int(n));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?).into();
                self.push(Value::Int(n));
            }
            0x8a => {
                // LONG1: a count, then as many little-endian bytes, the last with the sign.
                let n = self.u8()?.into();
                let bytes = self.take(n)?;
                let mut long = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 8];
                long.get_mut(..n)?.copy_from_slice(bytes);
                self.push(Value::Int(i64::from_le_bytes(long)));
            }
            b'X' => {
                let n = self.u32()? as usize;
                let text = std::str::from_utf8(self.take(n)?).ok()?;
                self.push(Value::Text(text));
            }
            b'G' => {
                self.take(8)?; // BINFLOAT
                self.push(Value::Other);
            }
            // None, True, False, and a list, whose elements no tensor needs.
            b'N' | 0x88 | 0x89 | b']' => self.push(Value::Other),
            // APPEND to such a list, and BUILD, which gives a state dict its metadata.
            b'a' | b'b' => drop(self.pop()?),
            b'e' => drop(self.pop_to_mark()?),
            b')' => self.push(Value::Tuple(Vec::new())),
            code @ 0x85..=0x87 => {
                // TUPLE1, TUPLE2, TUPLE3
                let first = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                let items = self.stack.split_off(first);
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                self.push(Value::Dict(Vec::new()));
                let dict = self.pop()?;
                let items = self.pop_to_mark()?;
                self.stack.push(dict);
                self.set_items(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'R' | 0x81 => {
                let (args, function) = (self.pop()?, self.pop()?);
                let dict = self.is_global(function, "collections", "OrderedDict");
                self.push(if dict { Value::Dict(Vec::new()) } else { Value::Call(function, args) });
            }
            b'Q' => {
                let storage = self.pop()?;
                self.push(Value::Persistent(storage));
            }
            _ => return None,
        }
        Some(true)
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.pickle.split_at_checked(n)?;
        self.pickle = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn line(&mut self) -> Option<&'a str> {
        let n = self.pickle.iter().position(|&byte| byte == b'\n')?;
        let line = self.take(n + 1)?;
        std::str::from_utf8(&line[..n]).ok()
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Option<Id> {
        self.stack.pop()
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    /// Alternating keys and values, into the dict on top of the stack.
    fn set_items(&mut self, items: &[Id]) -> Option<()> {
        let dict = *self.stack.last()?;
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        // Anything else receives nothing that a tensor needs.
        if let Value::Dict(dict) = &mut self.values[dict] {
            dict.extend(pairs);
        }
        items.len().is_multiple_of(2).then_some(())
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    fn is_global(&self, id: Id, module: &str, name: &str) -> bool {
        matches!(self.value(id), Value::Global(m, n) if *m == module && *n == name)
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) = self.value(id) { Some(items) } else { None }
    }

    fn size(&self, id: Id) -> Option<usize> {
        if let Value::Int(n) = self.value(id) { usize::try_from(*n).ok() } else { None }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let sizes = self.tuple(id)?;
        if sizes.len() > MOST_DIMENSIONS {
            return None;
        }
        sizes.iter().map(|&id| self.size(id)).collect()
    }

    /// The tensor that a call rebuilds; `None` for anything else.
    fn tensor(&self, mut id: Id) -> Option<Entry> {
        // A parameter wraps a tensor; a subclass names the function that rebuilds it.
        for _ in 0..4 {
            let Value::Call(function, args) = self.value(id) else { return None };
            let (function, mut args) = (*function, self.tuple(*args)?);
            let mut rebuilds = self.is_global(function, "torch._utils", "_rebuild_tensor_v2");
            if self.is_global(function, "torch._tensor", "_rebuild_from_type_v2") {
                rebuilds = self.is_global(*args.first()?, "torch._utils", "_rebuild_tensor_v2");
                args = self.tuple(*args.get(2)?)?;
            }
            if rebuilds {
                return self.rebuilt(args);
            }
            if !self.is_global(function, "torch._utils", "_rebuild_parameter") {
                return None;
            }
            id = *args.first()?;
        }
        None
    }

    fn rebuilt(&self, args: &[Id]) -> Option<Entry> {
        let [storage, offset, shape, stride, ..] = args else { return None };
        let Value::Persistent(storage) = self.value(*storage) else { return None };
        let [_, class, key, ..] = self.tuple(*storage)? else { return None };
        let (Value::Global(_, class), Value::Text(key)) = (self.value(*class), self.value(*key)) else {
            return None;
        };
        if key.len() > LONGEST_NAME {
            return None;
        }
        let dtype = match *class {
            "FloatStorage" => DType::F32,
            "DoubleStorage" => DType::F64,
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::BF16,
            _ => return None, // no weights: a mask
        };
        Some(Entry {
            storage: (*key).to_owned(),
            dtype,
            offset: self.size(*offset)?,
            shape: self.sizes(*shape)?,
            stride: self.sizes(*stride)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/pickle/pytorch_model.bin")
    }

    fn pickle() -> Vec<u8> {
        let mut bytes = Vec::new();
        let directory = Directory::read(&fixture()).unwrap();
        let (mut member, _) = directory.open(&fixture(), "pytorch_model/data.pkl").unwrap();
        member.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// A state dict of one float32 tensor `w`, as `torch.save` would describe it.
    fn archive(offset: u8, shape: [u8; 2], stride: [u8; 2], storage: &[f32]) -> Result<Tensor> {
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let pair = |[a, b]: [u8; 2]| vec![b'K', a, b'K', b, 0x86];
        let pickle = [
            b"\x80\x02}(".to_vec(),
            text("w"),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text("0"),
            text("cpu"),
            vec![b'K', storage.len() as u8, b't', b'Q', b'K', offset],
            pair(shape),
            pair(stride),
            b"\x89ccollections\nOrderedDict\n)RtRu.".to_vec(),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = ZipWriter::new(file.as_file());
        let bytes: Vec<u8> = storage.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (name, bytes) in [("m/data.pkl", pickle.concat()), ("m/data/0", bytes)] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap();
        Ok(Archive::open(file.path())?.get("w")?.unwrap())
    }

    #[test]
    fn tensors_lie_in_order_or_transposed_somewhere_in_their_storage() {
        let storage = [9., 0., 1., 2., 3., 4., 5.];
        let rows = |x: Result<Tensor>| x.unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows(archive(1, [2, 3], [3, 1], &storage)), [[0., 1., 2.], [3., 4., 5.]]);
        assert_eq!(rows(archive(1, [2, 3], [1, 2], &storage)), [[0., 2., 4.], [1., 3., 5.]]);
        for (offset, shape, stride) in [(2, [2, 3], [3, 1]), (0, [2, 2], [3, 1]), (0, [200, 200], [200, 1])] {
            let said = archive(offset, shape, stride, &storage).unwrap_err().to_string();
            assert!(said.contains("tensor `w`"), "{said}");
        }
    }

    #[test]
    fn every_tensor_of_a_state_dict_is_found() {
        let entries = Machine::new(&pickle()).run().unwrap();
        let wte = entries.iter().find(|(name, _)| name.ends_with("wte.weight")).unwrap().1;
        assert_eq!((wte.dtype, &wte.shape[..]), (DType::F32, &[97, 48][..]));
    }

    /// Every operation that can be had for ever, at the least bytes.
    /// What is repeated, from its number.
    type Repeat<'a> = &'a dyn Fn(u32) -> Vec<u8>;

    #[test]
    fn no_operation_is_repeated_without_end() {
        let said = |start: &[u8], again: &dyn Fn(u32) -> Vec<u8>| {
            let pickle: Vec<u8> = (0..=MOST_OPERATIONS as u32).flat_map(again).collect();
            Machine::new(&[start, &pickle].concat()).run().unwrap_err().to_string()
        };
        let slot = |op: u8, n: u32| [&[op][..], &n.to_le_bytes()].concat();
        let repeated: [(&[u8], Repeat); 18] = [
            (b"", &|_| b"]".to_vec()),
            (b"", &|_| b"(".to_vec()),
            (b"", &|_| b"(]".to_vec()),
            (b"", &|_| b"}".to_vec()),
            (b"", &|_| b")".to_vec()),
            (b"", &|_| b"K\0".to_vec()),
            (b"", &|_| b"X\0\0\0\0".to_vec()),
            (b"", &|_| b"c\n\n".to_vec()),
            (b"", &|_| vec![0x8a, 0]),
            (b"]", &|_| b"q\0".to_vec()),
            (b"]", &|n| slot(b'r', n)),
            (b"]q\0", &|_| b"h\0".to_vec()),
            (b"]r\0\0\0\0", &|_| slot(b'j', 0)),
            (b"]", &|_| vec![0x85]),
            (b"]", &|_| b"Q".to_vec()),
            (b"}", &|_| b"NNs".to_vec()),
            (b"}", &|_| b"(NNNNu".to_vec()),
            (b"]", &|_| b"(NNNNt".to_vec()),
        ];
        for (start, again) in repeated {
            let said = said(start, again);
            assert!(said.contains("more than any checkpoint"), "{:?}: {said}", again(0));
        }
        let long = vec![b']'; LONGEST_PICKLE as usize + 1];
        assert!(Machine::new(&long).run().unwrap_err().to_string().contains("longer than"));
    }

    /// What is described once and named often is not copied each time.
    #[test]
    fn names_and_shapes_have_bounds() {
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let tensors = |name: &str, key: &str, shape: &[u8]| {
            let pickle = [
                b"}(".to_vec(),
                text(name),
                b"ctorch._utils\n_rebuild_tensor_v2\n((N".to_vec(),
                b"ctorch\nFloatStorage\n".to_vec(),
                text(key),
                b"tQK\0".to_vec(),
                shape.to_vec(),
                shape.to_vec(),
                b"tRu.".to_vec(),
            ];
            Machine::new(&pickle.concat()).run().unwrap().len()
        };
        assert_eq!(tensors("w", "0", b"(K\x01t"), 1);
        let long = "x".repeat(LONGEST_NAME + 1);
        assert_eq!(tensors(&long, "0", b"(K\x01t"), 0);
        assert_eq!(tensors("w", &long, b"(K\x01t"), 0);
        assert_eq!(tensors("w", "0", &[b"(".to_vec(), b"K\x01".repeat(9), b"t".to_vec()].concat()), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn a_damaged_pickle_is_refused_or_read(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = pickle();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Machine::new(&bytes).run();
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Machine::new(&bytes).run();
        }
    }
}
