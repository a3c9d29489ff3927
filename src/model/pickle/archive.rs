//! The zip archives that `torch.save` writes: members are stored uncompressed.
//!
//! A directory's claims about itself are not trusted: it is read entry by entry, so that a false
//! one takes no more memory than its bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::Result;

use super::bad;

/// More than the directory of any state dict.
const LONGEST_DIRECTORY: u64 = 1 << 24;

/// Where a member should be, according to the directory.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// The offset of its local header.
    header: u64,
    size: u64,
    stored: bool,
}

/// The members of an archive, by name.
#[derive(Debug)]
pub struct Directory {
    members: HashMap<String, Member>,
}

impl Directory {
    /// # Errors
    /// If the file is not a zip archive, or its directory is damaged or too long.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let (start, size) = place(&mut file)?;
        if size > LONGEST_DIRECTORY {
            return Err(bad("its directory is longer than any checkpoint's"));
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(size).read_to_end(&mut bytes)?;
        entries(&bytes).map(|members| Self { members }).ok_or_else(|| bad("its directory is damaged"))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Where the bytes of the member `name` start in the file, and their number according to the directory.
    ///
    /// # Errors
    /// If there is no such member, or it is not where the directory says.
    pub fn locate(&self, path: &Path, name: &str) -> Result<(u64, u64)> {
        let member = self.members.get(name).ok_or_else(|| bad(format!("it contains no {name}")))?;
        if !member.stored {
            return Err(bad(format!("{name} is compressed or encrypted, which PyTorch never does")));
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(member.header))?;
        let mut header = [0; 30];
        file.read_exact(&mut header)?;
        let mut fields = Fields(&header);
        if fields.u32() != Some(0x0403_4b50) || fields.skip(22).is_none() {
            return Err(bad(format!("{name} is not where its directory says")));
        }
        let names: u64 = [fields.u16(), fields.u16()].into_iter().flatten().map(u64::from).sum();
        // The header was read, so that this does not overflow.
        Ok((member.header + 30 + names, member.size))
    }
}

/// Where the directory starts, and its length.
fn place(file: &mut File) -> Result<(u64, u64)> {
    const END: usize = 22;
    let none = || bad("it is cut short: the directory of a zip archive is missing");
    // The end of the archive is a record of 22 bytes and a comment of at most 64 KiB.
    let len = file.seek(SeekFrom::End(0))?;
    let tail_start = len.saturating_sub((END + usize::from(u16::MAX)) as u64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(tail_start))?;
    file.take(len - tail_start).read_to_end(&mut tail)?;
    let end = tail.windows(END).rposition(|record| record.starts_with(b"PK\x05\x06")).ok_or_else(none)?;
    let mut fields = Fields(&tail[end + 12..]);
    let (size, start) = fields.u32().zip(fields.u32()).ok_or_else(none)?;
    if size != u32::MAX && start != u32::MAX {
        return Ok((start.into(), size.into()));
    }
    // Too large for 32 bits: an earlier record has the offset of one with 64.
    let at = end.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07")).ok_or_else(none)?;
    let at = Fields(&tail[at + 8..]).u64().ok_or_else(none)?;
    file.seek(SeekFrom::Start(at))?;
    let mut record = [0; 56];
    file.read_exact(&mut record)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Err(none());
    }
    let mut fields = Fields(&record[40..]);
    let (size, start) = fields.u64().zip(fields.u64()).ok_or_else(none)?;
    Ok((start, size))
}

/// The entries of a directory; `None` if it is damaged.
fn entries(directory: &[u8]) -> Option<HashMap<String, Member>> {
    let mut fields = Fields(directory);
    let mut members = HashMap::new();
    while !fields.0.is_empty() {
        let signature = fields.u32()?;
        fields.skip(4)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.skip(8)?;
        let (packed, size) = (fields.u32()?, fields.u32()?);
        let [name, extra, comment] = [fields.u16()?, fields.u16()?, fields.u16()?];
        fields.skip(8)?;
        let header = fields.u32()?;
        let name = std::str::from_utf8(fields.skip(name.into())?).ok()?;
        let mut extra = Fields(fields.skip(extra.into())?);
        fields.skip(comment.into())?;
        if signature != 0x0201_4b50 {
            return None;
        }
        // Values that do not fit 32 bits are in an extra field, in this order.
        let mut wide = Fields(&[]);
        while let (Some(tag), Some(len)) = (extra.u16(), extra.u16()) {
            let field = extra.skip(len.into())?;
            if tag == 1 {
                wide = Fields(field);
            }
        }
        let mut whole = |n: u32| if n == u32::MAX { wide.u64() } else { Some(n.into()) };
        let (size, packed, header) = (whole(size)?, whole(packed)?, whole(header)?);
        let stored = method == 0 && flags & 1 == 0 && packed == size;
        members.insert(name.to_owned(), Member { header, size, stored });
    }
    Some(members)
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn skip(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.skip(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.skip(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.skip(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(large: bool) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut zip = ZipWriter::new(&mut bytes);
        for (name, member) in [("m/data.pkl", &b"pickle"[..]), ("m/data/0", b""), ("m/data/1", b"storage")] {
            zip.start_file(name, SimpleFileOptions::default().large_file(large)).unwrap();
            zip.write_all(member).unwrap();
        }
        zip.set_comment("a comment").unwrap();
        zip.finish().unwrap();
        bytes.into_inner()
    }

    fn member(bytes: &[u8], name: &str) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let directory = Directory::read(file.path())?;
        let (at, size) = directory.locate(file.path(), name)?;
        let mut opened = File::open(file.path())?;
        opened.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        opened.take(size).read_to_end(&mut bytes)?;
        assert!(bytes.len() as u64 <= size);
        Ok(bytes)
    }

    #[test]
    fn members_are_found() {
        for large in [false, true] {
            let bytes = archive(large);
            for (name, content) in [("m/data.pkl", "pickle"), ("m/data/0", ""), ("m/data/1", "storage")] {
                assert_eq!(member(&bytes, name).unwrap(), content.as_bytes());
            }
            assert!(member(&bytes, "m/data/2").unwrap_err().to_string().contains("contains no m/data/2"));
        }
    }

    #[test]
    fn what_pytorch_writes_is_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/pickle/pytorch_model.bin");
        let mut names: Vec<_> = Directory::read(&file).unwrap().names().map(str::to_owned).collect();
        names.sort();
        assert_eq!(names[..2], ["pytorch_model/.data/serialization_id", "pytorch_model/.format_version"]);
        assert_eq!(names.len(), 0x2e);
    }

    #[test]
    fn lies_are_refused() {
        let said = |bytes: &[u8]| member(bytes, "m/data.pkl").unwrap_err().to_string();
        assert!(said(b"").contains("cut short"));
        assert!(said(&[0; 100]).contains("cut short"));
        let bytes = archive(false);
        let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
        let with = |at: usize, lie: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + lie.len()].copy_from_slice(lie);
            bytes
        };
        assert!(said(&with(end + 12, &0xffff_fffe_u32.to_le_bytes())).contains("longer than"));
        assert!(said(&with(end + 12, &u32::MAX.to_le_bytes())).contains("cut short"));
        assert!(said(&with(end + 16, &0_u32.to_le_bytes())).contains("damaged"));
        let first = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        assert!(said(&with(first + 10, &[8])).contains("compressed"));
        assert!(said(&with(first + 42, &[1])).contains("not where"));
        // A size that is not there gives what is there.
        let long = with(first + 20, &[0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0]);
        assert!(member(&long, "m/data.pkl").unwrap().len() < bytes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn a_damaged_archive_is_refused_or_read(
            large in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = archive(large);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = member(&bytes, "m/data.pkl");
        }
    }
}
