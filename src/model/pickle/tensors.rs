//! The tensors that a pickle describes, by the functions of PyTorch that would rebuild them.

use std::collections::{BTreeMap, HashMap};

use candle_core::Result;

use super::bad;
use super::machine::{Id, Pickle, Value};
use crate::model::format::Format;

/// Upper limits for the names of tensors and storages, and for dimensions.
pub const LONGEST_NAME: usize = 512;
const MOST_DIMENSIONS: usize = 8;

/// The keys under which training programs put the model, the likeliest first, and a Jacobian lens its matrices.
const NESTS: [&str; 5] = ["model", "state_dict", "model_state_dict", "module", "J"];
const DEEPEST_NEST: usize = 3;

const UNKNOWN: Format = Format::Other("of an unknown kind", 1);

/// Where a tensor is: `shape` and `stride` over the elements of a storage from `offset` on.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub storage: String,
    pub format: Format,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
    /// Whether the storage holds the negative or conjugate of its values.
    pub inverted: bool,
}

/// A state dict, and the keys that lead to it.
#[derive(Debug)]
pub struct StateDict {
    pub nest: Option<String>,
    pub entries: BTreeMap<String, Entry>,
}

// `None` throughout: it is something else.
impl Pickle<'_> {
    /// The tensors of the state dict, in whichever nest it is.
    ///
    /// # Errors
    /// If there is none; says what there is instead.
    pub fn state_dict(&self) -> Result<StateDict> {
        let Some((path, dict)) = self.nest(self.top(), 0) else { return Err(bad(self.found(self.top()))) };
        let items = self.dict(dict).unwrap_or_default();
        let entries = items.iter().filter_map(|&(key, value)| Some((self.name(key)?, self.tensor(value)?)));
        let nest = (!path.is_empty()).then(|| path.join("."));
        Ok(StateDict { nest, entries: entries.collect() })
    }

    /// The dict that holds tensors, `id` or what is below it, and the keys that lead there.
    fn nest(&self, id: Id, depth: usize) -> Option<(Vec<&'static str>, Id)> {
        let items = self.dict(id)?;
        let below = |&key: &&'static str| {
            let (mut path, dict) = self.nest(self.item(id, key)?, depth + 1)?;
            path.insert(0, key);
            Some((path, dict))
        };
        let below = if depth < DEEPEST_NEST { NESTS.iter().find_map(below) } else { None };
        let is_tensor = |&(key, value): &(Id, Id)| self.is_name(key) && self.tensor(value).is_some();
        below.or_else(|| items.iter().any(is_tensor).then(|| (Vec::new(), id)))
    }

    /// One sentence about a value that is no state dict.
    fn found(&self, id: Id) -> String {
        match self.value(id) {
            _ if self.tensor(id).is_some() => "it holds a single tensor, not a state dict".into(),
            Value::Dict(items) => {
                let object = NESTS.iter().find_map(|key| self.item(id, key));
                if let Some(Value::Call(..)) = object.map(|id| self.value(id)) {
                    return self.found(object.unwrap_or(id));
                }
                let keys: Vec<_> = items.iter().filter_map(|&(key, _)| self.name(key)).take(4).collect();
                if keys.is_empty() {
                    return "it holds no tensors".into();
                }
                format!("it holds no tensors of a model; its keys begin with `{}`", keys.join("`, `"))
            }
            Value::Call(class, _) => {
                let class = match self.value(*class) {
                    // Before PyTorch 1.6, with the class's source.
                    Value::Persistent(id) => self.tuple(*id).and_then(|id| id.get(1)).copied(),
                    _ => Some(*class),
                };
                match class.map(|class| self.value(class)) {
                    Some(Value::Global(module, _)) if module.starts_with("torch.distributed") => {
                        DISTRIBUTED.into()
                    }
                    Some(Value::Global(module, name)) => format!(
                        "it holds a whole model object of the class `{module}.{name}`, not a state dict; save \
                         model.state_dict()"
                    ),
                    _ => "it holds a whole model object, not a state dict; save model.state_dict()".into(),
                }
            }
            _ => "it holds no state dict".into(),
        }
    }

    /// The name of a tensor: a text key, or the digits of an integer key.
    fn name(&self, key: Id) -> Option<String> {
        match self.value(key) {
            _ if !self.is_name(key) => None,
            Value::Text(name) => Some(name.to_string()),
            Value::Int(n) => Some(n.to_string()),
            _ => None,
        }
    }

    fn is_name(&self, key: Id) -> bool {
        match self.value(key) {
            Value::Text(name) => name.len() <= LONGEST_NAME,
            value => matches!(value, Value::Int(_)),
        }
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

    /// The tensor that a call rebuilds.
    fn tensor(&self, mut id: Id) -> Option<Entry> {
        // A parameter wraps a tensor.
        for _ in 0..4 {
            let Value::Call(function, args) = self.value(id) else { return None };
            let (mut function, mut args) = (self.function(*function)?, self.tuple(*args)?);
            // A subclass names the function that rebuilds it.
            if matches!(function, "_rebuild_from_type_v2" | "_rebuild_from_type") {
                (function, args) = (self.function(*args.first()?)?, self.tuple(*args.get(2)?)?);
            }
            match function {
                "_rebuild_tensor" | "_rebuild_tensor_v2" => return self.rebuilt(args, None, args.get(6)),
                "_rebuild_tensor_v3" => return self.rebuilt(args, Some(*args.get(6)?), args.get(7)),
                "_rebuild_parameter" | "_rebuild_parameter_with_state" => id = *args.first()?,
                _ => return None,
            }
        }
        None
    }

    /// The name of a function of PyTorch.
    fn function(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Global("torch._utils" | "torch._tensor" | "torch.tensor", name) => Some(name),
            _ => None,
        }
    }

    fn rebuilt(&self, args: &[Id], dtype: Option<Id>, metadata: Option<&Id>) -> Option<Entry> {
        let [storage, offset, shape, stride, ..] = args else { return None };
        let Value::Persistent(storage) = self.value(*storage) else { return None };
        let storage = self.storage(*storage)?;
        let format = match dtype.map(|dtype| self.value(dtype)) {
            None => storage.format.unwrap_or(UNKNOWN),
            Some(Value::Global("torch", name)) => Format::of_torch(name).unwrap_or(UNKNOWN),
            Some(_) => return None,
        };
        let (shape, stride) = (self.sizes(*shape)?, self.sizes(*stride)?);
        if shape.len() != stride.len() {
            return None;
        }
        Some(Entry {
            storage: storage.key.to_owned(),
            format,
            offset: self.size(*offset)?.checked_add(storage.start)?,
            shape,
            stride,
            inverted: metadata.and_then(|&id| self.dict(id)).is_some_and(|items| !items.is_empty()),
        })
    }

    /// `("storage", class, key, location, count, view)`, where PyTorch before 1.6 may give a `view`,
    /// `(key, start, count)`, of part of the storage.
    fn storage(&self, id: Id) -> Option<Storage<'_>> {
        let [kind, class, key, _location, _count, view @ ..] = self.tuple(id)? else { return None };
        let (Some("storage"), Some(key)) = (self.text(*kind), self.text(*key)) else { return None };
        let Value::Global(_, class) = self.value(*class) else { return None };
        let format = match *class {
            "UntypedStorage" => Some(Format::Other("u8", 1)),
            class => Format::of_storage(class),
        };
        let start = match view.first().map(|&view| self.value(view)) {
            Some(Value::Tuple(view)) => self.size(*view.get(1)?)?,
            _ => 0,
        };
        (key.len() <= LONGEST_NAME).then_some(Storage { key, format, start })
    }

    /// The format in which each storage is written, by its key.
    pub fn storages(&self) -> HashMap<&str, Option<Format>> {
        let mut formats = HashMap::new();
        for value in self.values() {
            if let Value::Persistent(id) = value
                && let Some(Storage { key, format, .. }) = self.storage(*id)
            {
                // The first counts, as for PyTorch.
                formats.entry(key).or_insert(format);
            }
        }
        formats
    }
}

pub const DISTRIBUTED: &str = "it is part of a distributed checkpoint; convert it with \
                               torch.distributed.checkpoint.format_utils.dcp_to_torch_save";

/// A storage: its key, `None` for an unknown format, and the element that the tensors' offsets count from.
struct Storage<'a> {
    key: &'a str,
    format: Option<Format>,
    start: usize,
}

impl Entry {
    /// The bytes from the first element to the last, and the number of bytes of all elements, each
    /// counted as often as the tensor has it; `None` if they are impossible.
    pub fn extent(&self) -> Option<(usize, usize)> {
        let size = self.format.size();
        let n = self.shape.iter().try_fold(size, |n, &d| n.checked_mul(d))?;
        if n == 0 {
            return Some((0, 0));
        }
        let last = self
            .axes()
            .try_fold(0usize, |last, (d, stride)| last.checked_add((d - 1).checked_mul(stride)?))?;
        Some((last.checked_add(1)?.checked_mul(size)?, n))
    }

    /// Whether the elements are in order and without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1usize;
        let in_order = |(d, stride): (usize, usize)| {
            let in_order = d == 1 || stride == step;
            step = step.saturating_mul(d);
            in_order
        };
        self.axes().rev().all(in_order)
    }

    /// The elements in order, from `span`, the bytes from the first to the last.
    pub fn gather(&self, span: &[u8], n_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n_bytes);
        if n_bytes > 0 {
            gather(span, self.format.size(), &self.axes().collect::<Vec<_>>(), 0, &mut bytes);
        }
        bytes
    }

    fn axes(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        self.shape.iter().copied().zip(self.stride.iter().copied())
    }
}

/// Appends the elements of `size` bytes along `axes`, each a size and a stride, from element `at` on.
fn gather(span: &[u8], size: usize, axes: &[(usize, usize)], at: usize, into: &mut Vec<u8>) {
    match axes {
        [] => into.extend_from_slice(&span[at * size..][..size]),
        [(d, 1)] => into.extend_from_slice(&span[at * size..][..d * size]),
        [(d, stride), inner @ ..] => (0..*d).for_each(|i| gather(span, size, inner, at + i * stride, into)),
    }
}
