//! Reducers: what is kept of the activations while a corpus runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::loss::{self, Loss};
use super::manifest::{self, Manifest, Reduce, Settings};
use super::piece::Piece;
use super::raw::Raw;
use super::stats::{self, Stats};
use super::table::{self, Table};
use super::top::{self, STRIPE, Top};
use super::units::Group;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Site, TensorName};
use crate::model::Model;
use crate::temporary::TemporaryDirectory;

/// All that a run or a merge keeps.
#[derive(Debug)]
pub struct Reducers {
    groups: Vec<Group>,
    pub top: Option<Top>,
    pub stats: Option<Stats>,
    pub loss: Option<Loss>,
    pub raw: Option<Raw>,
    /// The hooks that are looked at, and what is kept of each: its own tensor, and what dictionaries make of it.
    wanted: BTreeMap<HookName, Vec<TensorName>>,
    /// The texts of tokens that a file had, for a merge, which has no tokenizer.
    texts: BTreeMap<u32, String>,
}

impl Reducers {
    /// # Errors
    /// [`Error::Usage`] for hooks that a reducer cannot use.
    pub fn new(settings: &Settings) -> Result<Self> {
        let groups = settings.groups()?;
        let names = settings.tensors()?;
        let has = |reduce| settings.has(reduce);
        let raw = has(Reduce::Raw).then(|| Raw::new(&names, settings.raw_dtype, &settings.origin.config));
        let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for name in names.into_iter().filter(|_| has(Reduce::Raw) || !groups.is_empty()) {
            wanted.entry(settings.source(name)?).or_default().push(name);
        }
        if has(Reduce::Loss) {
            wanted.entry(LAST.once()).or_default();
        }
        Ok(Self {
            top: has(Reduce::Top).then(|| Top::new(&groups, settings.size())),
            stats: has(Reduce::Stats).then(|| Stats::new(&groups)),
            loss: has(Reduce::Loss).then(Loss::default),
            raw: raw.transpose()?,
            groups,
            wanted,
            texts: BTreeMap::new(),
        })
    }

    /// The hooks that are looked at.
    pub fn wanted(&self) -> BTreeSet<HookName> {
        self.wanted.keys().copied().collect()
    }

    /// A piece whose tensors follow.
    pub fn begin(&mut self, piece: &Piece) {
        if let Some(raw) = &mut self.raw {
            raw.begin(piece);
        }
    }

    /// Takes what it keeps of a tensor, and of what dictionaries make of it.
    ///
    /// # Errors
    /// [`Error::Tensor`]
    pub fn see(&mut self, model: &Model, hook: HookName, x: &Tensor, piece: &Piece) -> Result<()> {
        if let Some(loss) = self.loss.as_mut().filter(|_| hook == LAST.once()) {
            loss.see(model, x, piece)?;
        }
        for name in self.wanted.get(&hook).cloned().unwrap_or_default() {
            match name.made {
                None => self.see_tensor(name, x, piece)?,
                Some(made) => {
                    let get = |_: HookName, _: &Part| Ok(x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?);
                    let made = model.make((name.hook, made), &Part::default(), &get)?;
                    self.see_tensor(name, &made, piece)?;
                }
            }
        }
        Ok(())
    }

    fn see_tensor(&mut self, name: TensorName, x: &Tensor, piece: &Piece) -> Result<()> {
        if let Some(group) = self.groups.iter().find(|group| group.tensor == name) {
            group.with_values(x, |values| {
                let windows = self.top.as_ref().map_or_else(Vec::new, |top| top.windows(piece));
                let mut stats = self.stats.iter_mut().flat_map(|stats| stats.stripes(name));
                let mut top = self.top.iter_mut().flat_map(|top| top.stripes(name));
                let stripes: Vec<_> =
                    (0..group.n.div_ceil(STRIPE)).map(|_| (stats.next(), top.next())).collect();
                // One after the other while the values of a stripe are in a core's cache.
                stripes.into_par_iter().for_each(|(stats, top)| {
                    if let Some(mut stats) = stats {
                        stats.see(values, piece);
                    }
                    if let Some(mut top) = top {
                        top.see(values, &windows, piece);
                    }
                });
                drop((stats, top));
                if let Some(stats) = &mut self.stats {
                    stats.see_heads(name, values, piece);
                }
            })?;
        }
        if let Some(raw) = &mut self.raw {
            raw.see(name, x, piece)?;
        }
        Ok(())
    }

    /// Writes all as a folder under a temporary name, with its manifest, and renames it.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written: a full disk, say.
    pub fn write(
        &self,
        manifest: &Manifest,
        text: &(dyn Fn(u32) -> Option<String> + Sync),
        to: &Path,
    ) -> Result<()> {
        let parent = to.parent().unwrap_or(Path::new("."));
        let cannot = |path: PathBuf| {
            move |cause: io::Error| {
                Error::file(path, format!("cannot be written ({cause}): make room, and run the same again"))
            }
        };
        let folder = TemporaryDirectory::new(parent).map_err(cannot(parent.into()))?;
        let write = |name: &str, fill: &mut dyn FnMut(&mut (dyn Write + Send)) -> io::Result<()>| {
            let written = folder.file(name).and_then(|file: File| {
                let mut out = BufWriter::with_capacity(1 << 16, file);
                fill(&mut out)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
            });
            written.map_err(cannot(to.join(name)))
        };
        let one = |name: &str, table: &Table| {
            write(name, &mut |out| table::write(out, std::iter::once(table.clone())))
        };
        let text =
            |id: u32| text(id).or_else(|| self.texts.get(&id).cloned()).unwrap_or_else(|| format!("#{id}"));
        if let Some(top) = &self.top {
            write(top::FILE, &mut |out| table::write(out, top.tables(&text)))?;
        }
        if let Some(stats) = &self.stats {
            write(stats::FILE, &mut |out| table::write(out, stats.tables()))?;
            if stats.has_heads() {
                one(stats::HEADS, &stats.heads_table())?;
            }
        }
        if let Some(loss) = &self.loss {
            one(loss::FILE, &loss.by_document())?;
            one(loss::BY_POSITION, &loss.by_position())?;
        }
        write(manifest::FILE, &mut |out| out.write_all(manifest.to_json().as_bytes()))?;
        folder.put(to).map_err(cannot(to.into()))
    }

    /// What a folder holds, to go on from there or to be merged.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, or does not hold what the manifest says.
    pub fn read(manifest: &Manifest, folder: &Path) -> Result<Self> {
        let settings = &manifest.settings;
        let mut read = Self::new(settings)?;
        let groups = &read.groups;
        if read.top.is_some() {
            read.top = Some(Top::read(folder, groups, settings.size(), &mut read.texts)?);
        }
        if read.stats.is_some() {
            read.stats = Some(Stats::read(folder, groups)?);
        }
        if read.loss.is_some() {
            read.loss = Some(Loss::read(folder)?);
        }
        Ok(read)
    }

    /// Adds what another shard kept.
    pub fn merge(&mut self, other: Self) {
        if let (Some(top), Some(other)) = (&mut self.top, other.top) {
            top.merge(other);
        }
        if let (Some(stats), Some(other)) = (&mut self.stats, &other.stats) {
            stats.merge(other);
        }
        if let (Some(loss), Some(other)) = (&mut self.loss, &other.loss) {
            loss.merge(other);
        }
        self.texts.extend(other.texts);
    }
}

/// What the unembedding reads.
const LAST: Site = Site::LnFinalOut;
