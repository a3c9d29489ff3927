//! The stack machine of pickles. It builds a description of what a pickle holds, and runs nothing:
//! functions and classes are names, and calls of them are kept as they are.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::{Error, Result};

use super::bad;

/// Some ten times what the description of the largest state dict takes.
pub const LONGEST_PICKLE: usize = 1 << 24;
/// No operation adds more than three values, one place on the stack, one mark and one slot of the
/// memo, so that their number bounds all of these.
pub const MOST_OPERATIONS: usize = 1 << 20;

/// The index of a value in a pickle.
pub type Id = usize;

#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    Float(f64),
    Text(Cow<'a, str>),
    /// A function or class by module and name.
    Global(&'a str, &'a str),
    Tuple(Vec<Id>),
    /// Also a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function or class and its arguments, not called.
    Call(Id, Id),
    /// What lies outside of the pickle: the description of a storage.
    Persistent(Id),
    /// Bytes, and what else no tensor needs.
    Other,
}

/// What a pickle describes. Values are in one list and refer to each other by index, so that none is
/// copied and nesting has no limit.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    top: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with; also returns the bytes after it.
    ///
    /// # Errors
    /// If it makes no sense, or is larger than any checkpoint's.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8])> {
        if bytes.len() > LONGEST_PICKLE {
            return Err(bad("its pickle is longer than any checkpoint's"));
        }
        let mut machine = Machine { rest: bytes, left: MOST_OPERATIONS, ..Machine::default() };
        while machine.left > 0 {
            machine.left -= 1;
            match machine.step() {
                Some(true) => {}
                Some(false) => {
                    let top = machine.stack.pop().ok_or_else(|| bad("its pickle is empty"))?;
                    return Ok((Self { values: machine.values, top }, machine.rest));
                }
                None => return Err(machine.fault()),
            }
        }
        Err(bad("its pickle describes more than any checkpoint"))
    }

    /// The value that the whole pickle is.
    pub fn top(&self) -> Id {
        self.top
    }

    pub fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    /// All values, those that nothing refers to as well, in the order of the pickle.
    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.value(id) { Some(text) } else { None }
    }

    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) = self.value(id) { Some(items) } else { None }
    }

    pub fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Value::Dict(items) = self.value(id) { Some(items) } else { None }
    }

    /// The value of a text key. Of equal keys, the last counts.
    pub fn item(&self, dict: Id, key: &str) -> Option<Id> {
        let mut items = self.dict(dict)?.iter().rev();
        items.find(|(name, _)| self.text(*name) == Some(key)).map(|&(_, value)| value)
    }
}

#[derive(Default)]
struct Machine<'a> {
    /// What is not read yet.
    rest: &'a [u8],
    /// The operations that may follow.
    left: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// The operation that is none.
    unknown: Option<u8>,
}

// `None` throughout: the pickle makes no sense.
impl<'a> Machine<'a> {
    fn fault(&self) -> Error {
        match self.unknown {
            Some(code) => bad(format!("its pickle has the operation {code:#04x}, which is unknown")),
            None if self.rest.is_empty() => bad("its pickle is cut short or damaged"),
            None => bad("its pickle is damaged"),
        }
    }

    /// Executes one operation of protocols 0 to 5; returns `false` at the end.
    fn step(&mut self) -> Option<bool> {
        match self.u8()? {
            // STOP
            b'.' => return Some(false),
            // PROTO, FRAME, READONLY_BUFFER
            0x80 => drop(self.u8()?),
            0x95 => drop(self.take(8)?),
            0x98 => {}
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(*self.stack.last()?),
            // Into the memo: MEMOIZE, BINPUT, LONG_BINPUT, PUT
            code @ (0x94 | b'q' | b'r' | b'p') => {
                let slot = match code {
                    b'q' => self.u8()?.into(),
                    b'r' => self.u32()?,
                    b'p' => self.line()?.parse().ok()?,
                    _ => self.memo.len() as u32,
                };
                self.memo.insert(slot, *self.stack.last()?);
            }
            // Out of it: BINGET, LONG_BINGET, GET
            code @ (b'h' | b'j' | b'g') => {
                let slot = match code {
                    b'h' => self.u8()?.into(),
                    b'j' => self.u32()?,
                    _ => self.line()?.parse().ok()?,
                };
                self.stack.push(*self.memo.get(&slot)?);
            }
            // Into a list or set: APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            // Into a dict: SETITEM, SETITEMS
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            // BUILD: gives what a call made its state, a state dict its metadata.
            b'b' => drop(self.pop()?),
            code => {
                let value = self.composed(code)?;
                self.push(value);
            }
        }
        Some(true)
    }

    /// The new value of an operation that takes others from the stack.
    fn composed(&mut self, code: u8) -> Option<Value<'a>> {
        Some(match code {
            // TUPLE1, TUPLE2, TUPLE3, TUPLE
            0x85..=0x87 => {
                let first = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                Value::Tuple(self.stack.split_off(first))
            }
            b't' => Value::Tuple(self.pop_to_mark()?),
            // LIST, FROZENSET, DICT
            b'l' | 0x91 => Value::List(self.pop_to_mark()?),
            b'd' => Value::Dict(pairs(&self.pop_to_mark()?)?.collect()),
            // STACK_GLOBAL
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(Cow::Borrowed(module)), Value::Text(Cow::Borrowed(name))) => {
                        Value::Global(module, name)
                    }
                    _ => return None,
                }
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST
            b'R' | 0x81 => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(function, args)?
            }
            0x92 => {
                let (_named, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, args)?
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let (&class, args) = items.split_first()?;
                let args = self.add(Value::Tuple(args.to_vec()));
                self.call(class, args)?
            }
            b'i' => {
                let class = Value::Global(self.line()?, self.line()?);
                let args = Value::Tuple(self.pop_to_mark()?);
                let (class, args) = (self.add(class), self.add(args));
                self.call(class, args)?
            }
            // BINPERSID
            b'Q' => Value::Persistent(self.pop()?),
            _ => return self.simple(code),
        })
    }

    /// The new value of an operation that takes nothing from the stack.
    fn simple(&mut self, code: u8) -> Option<Value<'a>> {
        Some(match code {
            // NONE, NEWTRUE, NEWFALSE
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            // BININT1, BININT2, BININT, LONG1, LONG4, INT, LONG
            b'K' => Value::Int(self.u8()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => long(self.counted(1)?),
            0x8b => long(self.counted(4)?),
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => Value::Int(digits.parse().ok()?),
            },
            b'L' => self.line()?.trim_end_matches('L').parse().map_or(Value::Other, Value::Int),
            // BINFLOAT, FLOAT
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'F' => Value::Float(self.line()?.parse().ok()?),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8, UNICODE; Python 2's SHORT_BINSTRING, BINSTRING, STRING
            0x8c | b'U' => text(self.counted(1)?),
            b'X' | b'T' => text(self.counted(4)?),
            0x8d => text(self.counted(8)?),
            b'V' => Value::Text(unescaped(self.bytes_line()?)?.into()),
            b'S' => unquoted(self.bytes_line()?)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8, NEXT_BUFFER
            b'C' => self.counted(1).map(|_| Value::Other)?,
            b'B' => self.counted(4).map(|_| Value::Other)?,
            0x8e | 0x96 => self.counted(8).map(|_| Value::Other)?,
            0x97 => Value::Other,
            // EMPTY_LIST, EMPTY_SET, EMPTY_TUPLE, EMPTY_DICT
            b']' | 0x8f => Value::List(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            // GLOBAL; EXT1, EXT2, EXT4
            b'c' => Value::Global(self.line()?, self.line()?),
            0x82 => self.take(1).map(|_| Value::Other)?,
            0x83 => self.take(2).map(|_| Value::Other)?,
            0x84 => self.take(4).map(|_| Value::Other)?,
            // PERSID
            b'P' => self.bytes_line().map(|_| Value::Other)?,
            unknown => {
                self.unknown = Some(unknown);
                return None;
            }
        })
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else {
            self.rest = &[];
            return None;
        };
        self.rest = rest;
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

    /// As many bytes as a little-endian number of `width` bytes before them says.
    fn counted(&mut self, width: usize) -> Option<&'a [u8]> {
        let mut n = [0; 8];
        n.get_mut(..width)?.copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(n)).ok()?)
    }

    fn bytes_line(&mut self) -> Option<&'a [u8]> {
        let n = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        self.take(n + 1)?.strip_suffix(b"\n")
    }

    fn line(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes_line()?).ok()
    }

    fn add(&mut self, value: Value<'a>) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }

    fn push(&mut self, value: Value<'a>) {
        let id = self.add(value);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Option<Id> {
        self.stack.pop()
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    /// To the list on top of the stack; anything else receives nothing that a tensor needs.
    fn append(&mut self, items: &[Id]) -> Option<()> {
        let list = *self.stack.last()?;
        if let Value::List(list) = &mut self.values[list] {
            list.extend(items);
        }
        Some(())
    }

    /// Alternating keys and values, to the dict on top of the stack.
    fn set_items(&mut self, items: &[Id]) -> Option<()> {
        let (dict, pairs) = (*self.stack.last()?, pairs(items)?);
        if let Value::Dict(dict) = &mut self.values[dict] {
            dict.extend(pairs);
        }
        Some(())
    }

    /// The kinds of dict are dicts; other calls are kept as they are.
    fn call(&mut self, function: Id, args: Id) -> Option<Value<'a>> {
        let is_dict = matches!(
            self.values[function],
            Value::Global("collections", "OrderedDict" | "defaultdict" | "Counter")
                | Value::Global("builtins" | "__builtin__", "dict")
        );
        if is_dict { self.items(args).map(Value::Dict) } else { Some(Value::Call(function, args)) }
    }

    /// The items of a dict made from a list of pairs, as Python 2 writes an `OrderedDict`.
    fn items(&mut self, args: Id) -> Option<Vec<(Id, Id)>> {
        let Value::Tuple(args) = &self.values[args] else { return None };
        let Some(Value::List(list)) = args.first().map(|&list| &self.values[list]) else {
            return Some(Vec::new());
        };
        // A copy, unlike anything else here, and there may be many of one list.
        self.left = self.left.saturating_sub(list.len());
        if self.left == 0 {
            return Some(Vec::new());
        }
        let pair = |&id: &Id| match &self.values[id] {
            Value::Tuple(pair) | Value::List(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        list.iter().map(|id| pair(id).map(|[key, value]| (key, value))).collect()
    }
}

/// Alternating keys and values as pairs.
fn pairs(items: &[Id]) -> Option<impl Iterator<Item = (Id, Id)>> {
    let (pairs, rest) = items.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|&[key, value]| (key, value)))
}

/// A little-endian integer whose last byte has the sign.
fn long(bytes: &[u8]) -> Value<'_> {
    let mut long = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 8];
    let Some(low) = long.get_mut(..bytes.len()) else { return Value::Long(bytes) };
    low.copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(long))
}

/// Python 2's text may be bytes, Python 3's half of a surrogate pair: neither is needed.
fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Other, |text| Value::Text(text.into()))
}

/// Protocol 0's text: Latin-1, with `\uXXXX` and `\UXXXXXXXX` for what else there is.
fn unescaped(mut bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        let digits = match (byte, rest.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(byte.into());
                continue;
            }
        };
        let (code, rest) = rest[1..].split_at_checked(digits)?;
        let code = u32::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?;
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        bytes = rest;
    }
    Some(text)
}

/// Python 2's text as it would be in a program: in quotes, with escapes.
fn unquoted<'a>(line: &[u8]) -> Option<Value<'a>> {
    let (quote, mut quoted) = line.split_first().filter(|(quote, _)| b"'\"".contains(quote))?;
    quoted = quoted.strip_suffix(&[*quote])?;
    let mut bytes = Vec::new();
    while let Some((&byte, rest)) = quoted.split_first() {
        quoted = rest;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escaped, rest) = rest.split_first()?;
        quoted = rest;
        bytes.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (code, rest) = rest.split_at_checked(2)?;
                quoted = rest;
                u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8(bytes).map_or(Value::Other, |text| Value::Text(text.into())))
}
