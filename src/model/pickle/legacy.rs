//! The format of `torch.save` before PyTorch 1.6: five pickles, then the storages one after the other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::Result;

use super::bad;
use super::machine::{LONGEST_PICKLE, Pickle, Value};
use super::tensors::DISTRIBUTED;

/// The integer in the first pickle.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// The offset of each storage and the number of its bytes, by its key.
pub type Places = HashMap<String, (u64, u64)>;

/// The pickle of the state dict, and the places of the storages.
///
/// # Errors
/// If the file is another, damaged or cut short.
pub fn read(path: &Path) -> Result<(Vec<u8>, Places)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(LONGEST_PICKLE as u64).read_to_end(&mut bytes)?;
    let length = file.seek(SeekFrom::End(0))?;

    let other = || bad("it is a Python pickle, but not one that torch.save wrote");
    let (magic, rest) = Pickle::read(&bytes)?;
    match magic.value(magic.top()) {
        Value::Long(magic) if *magic == MAGIC => {}
        Value::Call(class, _) => match magic.value(*class) {
            Value::Global(module, _) if module.starts_with("torch.distributed") => {
                return Err(bad(DISTRIBUTED));
            }
            _ => return Err(other()),
        },
        _ => return Err(other()),
    }
    let (version, rest) = Pickle::read(rest)?;
    if *version.value(version.top()) != Value::Int(VERSION) {
        return Err(bad("its version of PyTorch's old format is unknown"));
    }
    let (_system, described) = Pickle::read(rest)?;
    let (pickle, rest) = Pickle::read(described)?;
    let described = &described[..described.len() - rest.len()];
    let (keys, rest) = Pickle::read(rest)?;

    let formats = pickle.storages();
    let Value::List(ids) = keys.value(keys.top()) else { return Err(bad("its list of storages is damaged")) };
    let mut storages = HashMap::new();
    let mut at = (bytes.len() - rest.len()) as u64;
    for &id in ids {
        let format = keys.text(id).and_then(|key| Some((key, formats.get(key)?)));
        let (key, format) = format.ok_or_else(|| bad("its list of storages is damaged"))?;
        let format = format.ok_or_else(|| bad("it holds numbers of an unknown kind"))?;
        let cut = || bad("it is cut short");
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut count).map_err(|_| cut())?;
        let n_bytes = u64::from_le_bytes(count).checked_mul(format.size() as u64).ok_or_else(cut)?;
        let start = at + 8;
        at = start.checked_add(n_bytes).filter(|&end| end <= length).ok_or_else(cut)?;
        storages.insert(key.to_owned(), (start, n_bytes));
    }
    Ok((described.to_vec(), storages))
}
