//! Writing runs to files for other programs: tensors with their provenance.
//!
//! | format | contents | non-finite values |
//! |---|---|---|
//! | `.safetensors` | all tensors by hook name, the [`Manifest`] as `__metadata__` | as they are |
//! | `.npz` | all tensors as `NAME.npy`, the manifest as `manifest.json`, stored uncompressed | as they are |
//! | `.json` | `{"manifest": {…}, "tensors": {NAME: nested arrays}}` | strings `"-inf"`, `"inf"`, `"nan"` |
//! | `.csv` | one tensor, one value per row after its indices | `-inf`, `inf`, `nan` |
//! | `.npy` | one tensor | as they are |
//!
//! The features of a sparse dictionary are written as what is not 0 in them, where that is smaller: `NAME.indices`,
//! (2, k) int64, and `NAME.values`, (k), as `torch.sparse_coo_tensor` takes them; `.csv` then has no rows of 0.
//!
//! All hold float32 exactly: a number written as text is the shortest that parses back to the same
//! bits. Every format can be written to standard output, since none needs to seek.
//!
//! ```
//! # use std::sync::Arc;
//! use actscope::export::{self, Destination, Format};
//! use actscope::{Input, Model, Run};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("fox.safetensors");
//! let format = Format::of_path(&path)?;
//! let file = Destination::new(path).prepare()?; // fails now, not after a long run
//! let run = Run::all(&Arc::new(Model::demo()), Input::text("The quick brown fox"))?;
//! let written = export::write(&run, Some(1..3), format, file)?;
//! assert_eq!(written.tensors, run.cache.iter().count());
//! # Ok::<(), actscope::Error>(())
//! ```

mod csv;
mod destination;
#[cfg(feature = "figures")]
pub mod figure;
mod json;
mod manifest;
mod npy;
mod npz;
#[cfg(feature = "figures")]
pub mod report;
mod safetensors;
mod sparse;
#[cfg(feature = "figures")]
pub mod walk;
mod words;

pub use destination::{Destination, Prepared, write_directory};
pub use manifest::{Manifest, OfMetric, TensorInfo};
use sparse::Sparse;
pub use words::Words;
use words::{Item, unnamed};

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use candle_core::Tensor;

use crate::analysis::base::Minus as _;
use crate::analysis::gradients::Gradients;
use crate::error::{Error, Result};
use crate::hooks::{Part, TensorName};
use crate::picture::Matrix;
use crate::run::Run;
use crate::text;

/// A file format for tensors; see the [module](self) for the contents of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    Npz,
    Json,
    Csv,
    Npy,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Safetensors, Self::Npz, Self::Json, Self::Csv, Self::Npy];

    /// The file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npz => "npz",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Npy => "npy",
        }
    }

    /// The format that a file name determines; for `-`, standard output, JSON.
    ///
    /// # Errors
    /// [`Error::Usage`] for any other extension, or none.
    pub fn of_path(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Json);
        }
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        ending.parse().map_err(|endings| {
            Error::usage(format!("{}: unknown format; use a name that ends in {endings}", text::path(path)))
        })
    }

    /// Whether it holds only a single tensor.
    pub fn holds_one(self) -> bool {
        matches!(self, Self::Csv | Self::Npy)
    }

    /// Whether it can be shown on a terminal.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Json | Self::Csv)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

impl FromStr for Format {
    /// The list of extensions, as text.
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.extension()));
        named.ok_or(".safetensors, .npz, .json, .csv or .npy")
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub tensors: usize,
    pub bytes: u64,
}

/// Writes what `run` kept, at `positions` (all if `None`), to `to`.
///
/// # Errors
/// See [`Export::new`]; also [`Error::File`] if writing fails: then the old file, if any,
/// is unchanged.
pub fn write(run: &Run, positions: Option<Range<usize>>, format: Format, to: Prepared) -> Result<Written> {
    Export::new(run, positions, format)?.write(to)
}

/// Tensors of a run that fit a format, cut to some positions, with their manifest.
#[derive(Debug)]
pub struct Export {
    pub manifest: Manifest,
    format: Format,
    positions: Range<usize>,
    items: Vec<Item>,
    /// Those of them, by number, that are written as what is not 0 in them.
    sparse: BTreeMap<usize, Sparse>,
    /// How many tensors the other program has no name for.
    pub unnamed: usize,
    run: Run,
    /// The run whose tensors are subtracted.
    base: Option<Run>,
    /// The gradients that are written in place of the tensors.
    gradients: Option<Gradients>,
}

impl Export {
    /// Takes what `run` kept at `positions`: rows of every tensor, or queries of an attention map
    /// (with all keys). Nothing is computed or copied before it is written.
    ///
    /// # Errors
    /// [`Error::Usage`] for positions outside the prompt, or more than one tensor for a format that
    /// holds one; [`Error::File`] if the weights cannot be read again to be hashed.
    pub fn new(run: &Run, positions: Option<Range<usize>>, format: Format) -> Result<Self> {
        let names: Vec<_> = run.cache.names().into_iter().map(TensorName::from).collect();
        Self::of(run, &names, Words::default(), positions, format)
    }

    /// The same of some tensors, which `run` kept or which dictionaries make of what it kept, in the words of another
    /// program if so wished.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn of(
        run: &Run,
        names: &[TensorName],
        words: Words,
        positions: Option<Range<usize>>,
        format: Format,
    ) -> Result<Self> {
        let n_tokens = run.n_tokens();
        let range = positions.unwrap_or(0..n_tokens);
        Error::check_all("position", &range, n_tokens)?;
        let items = Item::all(names, words, run.config());
        match items.len() {
            0 if !names.is_empty() => {
                return Err(Error::usage("that program has no names for these tensors: leave --names out"));
            }
            0 => return Err(Error::usage("nothing to write: no tensor was kept")),
            n if n > 1 && format.holds_one() => {
                return Err(Error::usage(format!(
                    "a .{format} file holds one tensor, but there are {n}: choose one with --hooks NAME, \
                     or use .safetensors, .npz or .json"
                )));
            }
            _ => {}
        }
        let infos = items.iter().map(|item| item.info(run, &range)).collect();
        let manifest = Manifest::new(run, &range, infos)?;
        let (run, sparse, unnamed) = (run.clone(), BTreeMap::new(), unnamed(names, &items));
        Self { manifest, format, positions: range, items, sparse, unnamed, run, base: None, gradients: None }
            .with_sparse()
    }

    /// The gradients of a metric for some tensors of its run, each as `NAME.grad`; the manifest names the metric.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn of_gradients(
        gradients: &Gradients,
        names: &[TensorName],
        positions: Option<Range<usize>>,
        format: Format,
    ) -> Result<Self> {
        let mut export = Self::of(&gradients.run, names, Words::default(), positions, format)?;
        export.sparse.clear();
        for (item, info) in export.items.iter_mut().zip(&mut export.manifest.hooks) {
            item.name.push_str(".grad");
            (info.name, info.sparse) = (item.name.clone(), false);
        }
        export.manifest.gradient = Some(OfMetric {
            metric: gradients.metric.to_string(),
            value: gradients.value,
            stop: gradients.stop.names().into_iter().map(String::from).collect(),
        });
        Ok(Self { gradients: Some(gradients.clone()), ..export })
    }

    /// Finds what is smaller if only what is not 0 is written.
    fn with_sparse(mut self) -> Result<Self> {
        self.sparse.clear();
        for (i, item) in self.items.iter().enumerate().filter(|(_, item)| item.is_wide()) {
            // A .npy file is one array.
            let found = if self.format == Format::Npy { None } else { Sparse::of(&self.values(item)?)? };
            self.manifest.hooks[i].sparse = found.is_some();
            self.sparse.extend(found.map(|sparse| (i, sparse)));
        }
        Ok(self)
    }

    /// The same minus the tensors of another run of equal length, which kept the same tensors; the manifest
    /// names the difference.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn with_base(mut self, base: Option<(&Run, &str)>) -> Result<Self> {
        self.manifest.difference = base.map(|(_, name)| name.to_owned());
        Self { base: base.map(|(base, _)| base.clone()), ..self }.with_sparse()
    }

    /// Writes it to `to`.
    ///
    /// # Errors
    /// [`Error::File`] if writing fails: then the old file, if any, is unchanged.
    pub fn write(&self, to: Prepared) -> Result<Written> {
        let bytes = to.write(|out| self.write_to(out))?;
        Ok(Written { tensors: self.items.len(), bytes })
    }

    /// The tensors, each computed when reached.
    fn tensors(&self) -> impl Iterator<Item = io::Result<(&TensorInfo, Stored<'_>)>> {
        let all = self.items.iter().zip(&self.manifest.hooks).enumerate();
        all.map(move |(i, (item, info))| {
            let stored = match self.sparse.get(&i) {
                Some(sparse) => Stored::Sparse(sparse),
                None => Stored::Dense(self.values(item).map_err(io::Error::other)?),
            };
            Ok((info, stored))
        })
    }

    fn values(&self, item: &Item) -> Result<Tensor> {
        if let Some((gradients, name)) = self.gradients.as_ref().zip(item.own()) {
            return gradients.part(name, &Part::rows(self.positions.clone()));
        }
        let of = item.values(&self.run, &self.positions)?;
        let Some(base) = &self.base else { return Ok(of) };
        let [a, b] = [of.flatten_all()?, item.values(base, &self.positions)?.flatten_all()?];
        Ok(Tensor::from_vec(a.to_vec1::<f32>()?.minus(&b.to_vec1()?), of.shape(), of.device())?)
    }

    /// The tensor, for a format that holds one.
    fn tensor(&self) -> io::Result<(&TensorInfo, Stored<'_>)> {
        self.tensors().next().expect("there is at least one")
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Safetensors => safetensors::write(self, out),
            Format::Npz => npz::write(self, out),
            Format::Json => json::write(self, out),
            Format::Csv => csv::write(self, out),
            Format::Npy => npy::write_one(&self.tensor()?.1, out),
        }
    }
}

/// A tensor as a file has it.
enum Stored<'a> {
    Dense(Tensor),
    Sparse(&'a Sparse),
}

/// The values of a tensor, last axis fastest.
fn values(x: &Tensor) -> io::Result<Vec<f32>> {
    x.flatten_all().and_then(|x| x.to_vec1()).map_err(io::Error::other)
}

/// Writes the values of a tensor as little-endian float32.
fn write_f32s(x: &Tensor, out: &mut dyn Write) -> io::Result<()> {
    let matrix = Matrix::of(x).map_err(io::Error::other)?;
    matrix.read(|rows| (0..matrix.n_rows).try_for_each(|row| write_floats(&rows.get(row), out)))
}

fn write_floats(values: &[f32], out: &mut dyn Write) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(values));
    }
    out.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// A float32 as the shortest text that parses back to the same bits.
struct Shortest(f32);

impl fmt::Display for Shortest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Unlike `{}`, `{:?}` has exponents.
        if self.0.is_nan() { f.write_str("nan") } else { write!(f, "{:?}", self.0) }
    }
}
