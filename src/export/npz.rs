//! `.npz`: a zip archive of `.npy` files, as `numpy.load` reads it.

use std::io::{self, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::sparse::Sparse;
use super::{Export, Stored, TensorInfo, npy};

pub(super) fn write(export: &Export, out: &mut dyn Write) -> io::Result<()> {
    // The largest size that zip writes with 32 bits, with ample room for the header of an `.npy`.
    const LARGE: usize = u32::MAX as usize - (1 << 20);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut out = Fused { out, failed: None };
    let mut zip = ZipWriter::new_stream(&mut out);
    zip.start_file("manifest.json", stored)?;
    zip.write_all(export.manifest.to_json().as_bytes())?;
    for tensor in export.tensors() {
        let (TensorInfo { name, .. }, tensor) = tensor?;
        let start = |zip: &mut ZipWriter<_>, name: String, bytes: usize| {
            zip.start_file(format!("{name}.npy"), stored.large_file(bytes > LARGE))
        };
        match tensor {
            Stored::Dense(x) => {
                start(&mut zip, name.clone(), x.elem_count() * 4)?;
                npy::write(&x, &mut zip)?;
            }
            Stored::Sparse(sparse) => {
                let [indices, values] = Sparse::PARTS;
                start(&mut zip, format!("{name}.{indices}"), sparse.values.len() * 16)?;
                npy::write_indices(&sparse.indices, &mut zip)?;
                start(&mut zip, format!("{name}.{values}"), sparse.values.len() * 4)?;
                npy::write_values(&sparse.values, &mut zip)?;
            }
        }
    }
    zip.finish()?;
    out.failed.map_or(Ok(()), Err)
}

/// Passes writes on until the first failure, and swallows the rest: after
/// an error, a dropped `ZipWriter` would write again and complain on standard error.
struct Fused<'a> {
    out: &'a mut dyn Write,
    failed: Option<io::Error>,
}

impl Write for Fused<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.out.write_all(buf).err();
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
