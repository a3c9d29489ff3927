//! Running a corpus: documents in, results in a folder, going on where a run that was killed had ended.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::documents::{Content, Document, Documents, Fault, Reading};
use super::loss::Loss;
use super::manifest::{self, Manifest, Progress, Settings};
use super::piece::{Cut, Piece};
use super::reduce::Reducers;
use super::shard::Shard;
use super::{raw, stats, top};
use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks};
use crate::interventions::Donors;
use crate::model::{Model, Sequence};
use crate::temporary;
use crate::text::bytes;

/// The rows that are computed at once: more are no faster.
const ROWS_AT_ONCE: usize = 1024;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub inputs: Vec<PathBuf>,
    pub settings: Settings,
    pub shard: Shard,
    /// A document with a fault is an error.
    pub strict: bool,
    /// The folder of the results.
    pub out: PathBuf,
}

impl Plan {
    /// The folder of the shard's results.
    pub fn folder(&self) -> PathBuf {
        shard_folder(&self.out, self.shard)
    }

    /// The token that is put first, and how documents are cut.
    fn cut(&self, model: &Model) -> Result<Cut> {
        let settings = &self.settings;
        let bos = model.config().bos_token_id.filter(|_| settings.bos);
        if settings.bos && bos.is_none() {
            return Err(Error::usage("this model's config.json has no bos_token_id: leave --bos out"));
        }
        let most = model.config().n_positions;
        Error::check("context", settings.context, 1 + usize::from(settings.bos)..most + 1)?;
        let cut = Cut { context: settings.context, stride: settings.stride, bos };
        Error::check("stride", settings.stride, 1..cut.room() + 1)?;
        Ok(cut)
    }
}

/// Where a shard's results are: the whole corpus in `out` itself.
pub fn shard_folder(out: &Path, shard: Shard) -> PathBuf {
    if shard == Shard::WHOLE {
        out.into()
    } else {
        out.join(format!("shard-{}-of-{}", shard.index, shard.of))
    }
}

/// A report of a run.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    /// The bytes that the raw tensors will take.
    Needs(u64),
    Ran {
        /// Tokens since this process began.
        new_tokens: u64,
        tokens: u64,
        documents: u64,
        /// Bytes of the inputs that were read, and of all.
        read: u64,
        size: Option<u64>,
        /// Whether the progress has just been recorded.
        recorded: bool,
    },
}

/// Runs what is left of a plan; returns its manifest, and whether there was anything to do.
///
/// # Errors
/// [`Error::File`] for inputs and results that cannot be read or written, or results of another run;
/// [`Error::Usage`] for settings that do not fit; those of `report`, which ends the run.
pub fn run(
    model: &Model,
    plan: &Plan,
    report: &mut dyn FnMut(Report) -> Result<()>,
) -> Result<(Manifest, bool)> {
    let folder = plan.folder();
    fs::create_dir_all(&folder)
        .map_err(|error| Error::file(&folder, format!("cannot be created: {error}")))?;
    let _lock = lock(&folder)?;
    // What a run that was killed had not finished.
    temporary::sweep_own(&folder);
    temporary::sweep_own(&folder.join(raw::FOLDER));
    if let Some(done) = Manifest::read(&folder)? {
        check(&done, plan, &folder)?;
        return Ok((done, false));
    }
    let mut state = match last_part(&folder)? {
        Some((part, manifest)) => {
            check(&manifest, plan, &part)?;
            if manifest.progress.complete {
                put_in_place(&folder, &part)?;
                return Ok((manifest, true));
            }
            let reducers = Reducers::read(&manifest, &part)?;
            State { reducers, manifest, ..State::new(model, plan, folder.clone())? }
        }
        None => State::new(model, plan, folder.clone())?,
    };
    let cut = plan.cut(model)?;
    if state.manifest.progress.chunks == 0 {
        state.room_for_raw(plan, cut, report)?;
    }
    let part = state.run(plan, cut, report)?;
    put_in_place(&folder, &part)?;
    Ok((state.manifest, true))
}

const LOCK: &str = ".lock";

/// One process at a time works in a folder.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file =
        File::create(&path).map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(Error::file(
            folder,
            "is being written by another actscope: wait for it, or choose another -o",
        )),
        // A file system without locks.
        _ => Ok(file),
    }
}

fn check(found: &Manifest, plan: &Plan, folder: &Path) -> Result<()> {
    let differences = plan.settings.differences(&found.settings);
    if differences.is_empty() && found.shard == plan.shard {
        return Ok(());
    }
    let what = if differences.is_empty() { "shard".to_owned() } else { differences.join(", ") };
    Err(Error::file(
        folder,
        format!(
            "holds the results of another run, which differs in {what}: choose another folder with -o, or remove it"
        ),
    ))
}

/// The newest record of the progress in a folder.
fn last_part(folder: &Path) -> Result<Option<(PathBuf, Manifest)>> {
    let mut parts = parts(folder);
    parts.sort_unstable();
    while let Some((_, part)) = parts.pop() {
        if let Some(manifest) = Manifest::read(&part)? {
            return Ok(Some((part, manifest)));
        }
    }
    Ok(None)
}

fn parts(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("part-")?.parse().ok();
    entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect()
}

/// Whether a document belongs to the sample.
fn is_drawn(document: u64, sample: Option<f64>) -> bool {
    sample.is_none_or(|share| (top::draw(document, 0) as f64) < share * u64::MAX as f64)
}

fn reading(model: &Model, settings: &Settings) -> Reading {
    Reading { per: settings.per, field: settings.field.clone(), separator: model.config().bos_token_id }
}

/// The token ids of a document.
fn ids(model: &Model, content: Content) -> Result<Vec<u32>, Fault> {
    let ids = match content {
        Content::Text(text) if text.is_empty() => Vec::new(),
        Content::Text(text) => {
            let ids = model.tokenizer.encode(&text).map_err(|_| Fault::NotTokenized)?;
            model.tokenizer.inside(&ids).to_vec()
        }
        Content::Ids(ids) => ids,
    };
    let v = model.config().vocab_size;
    if ids.iter().all(|id| (*id as usize) < v) { Ok(ids) } else { Err(Fault::NotInVocabulary) }
}

/// A run in progress.
struct State<'a> {
    model: &'a Model,
    reducers: Reducers,
    manifest: Manifest,
    folder: PathBuf,
    /// Pieces that have not been run yet.
    waiting: Vec<Piece>,
    /// What changes take from other prompts.
    donors: Donors,
}

impl<'a> State<'a> {
    fn new(model: &'a Model, plan: &Plan, folder: PathBuf) -> Result<Self> {
        let manifest = Manifest {
            settings: plan.settings.clone(),
            shard: plan.shard,
            progress: Progress::default(),
            histogram_edges: stats::edges(),
        };
        let reducers = Reducers::new(&plan.settings)?;
        Ok(Self { model, reducers, manifest, folder, waiting: Vec::new(), donors: Donors::default() })
    }

    /// Runs to the end; returns where its last record is.
    fn run(
        &mut self,
        plan: &Plan,
        cut: Cut,
        report: &mut dyn FnMut(Report) -> Result<()>,
    ) -> Result<PathBuf> {
        let settings = &plan.settings;
        let mut documents = Documents::open(&plan.inputs, reading(self.model, settings))?;
        let (first, before) = (self.manifest.progress.next_document, self.manifest.progress.tokens);
        let (mut rows, mut recorded_at) = (0, before);
        let raw = self.reducers.raw.as_ref().map_or(u64::MAX, raw::Raw::tokens_per_file);
        let chunk = settings.chunk.min(raw);
        let mut number = 0;
        while let Some(document) = documents.next() {
            if settings.limit.is_some_and(|limit| number >= limit) {
                break;
            }
            let document = document?;
            let is_ours = number >= first && plan.shard.has(number) && is_drawn(number, settings.sample);
            number += 1;
            if !is_ours {
                continue;
            }
            rows += self.take(plan, cut, number - 1, document)?;
            let mut report = |state: &Self, recorded| {
                let Progress { tokens, documents: n, .. } = state.manifest.progress;
                let (read, size) = (documents.read(), documents.size);
                report(Report::Ran {
                    new_tokens: tokens - before,
                    tokens,
                    documents: n,
                    read,
                    size,
                    recorded,
                })
            };
            if rows >= ROWS_AT_ONCE {
                self.batches(ROWS_AT_ONCE)?;
                rows = self.waiting.iter().map(|piece| piece.tokens.len()).sum();
                report(self, false)?;
            }
            if self.manifest.progress.tokens - recorded_at >= chunk {
                self.batches(0)?;
                (rows, recorded_at) = (0, self.manifest.progress.tokens);
                self.manifest.progress.next_document = number;
                self.record()?;
                report(self, true)?;
            }
        }
        self.batches(0)?;
        self.manifest.progress.next_document = number;
        self.manifest.progress.complete = true;
        self.manifest.progress.loss = self.reducers.loss.as_ref().map(Loss::total);
        self.record()
    }

    /// Cuts a document into pieces; returns the rows of the network that they are.
    fn take(&mut self, plan: &Plan, cut: Cut, number: u64, document: Document) -> Result<usize> {
        let (input, line) = (document.input, document.line);
        let progress = &mut self.manifest.progress;
        let mut fault = |fault: Fault| {
            progress.faults.entry(fault).or_default().add(number);
            if plan.strict {
                let said = fault.said();
                return Err(Error::file(&plan.inputs[input], format!("{line}: document {number}: {said}")));
            }
            Ok(())
        };
        let ids = match document.content.and_then(|content| ids(self.model, content)) {
            Ok(ids) => ids,
            Err(why) => return fault(why).map(|()| 0),
        };
        if ids.is_empty() {
            return fault(Fault::Empty).map(|()| 0);
        }
        if ids.len() > cut.room() {
            fault(Fault::TooLong)?;
        }
        progress.documents += 1;
        progress.tokens += ids.len() as u64;
        let before = self.waiting.len();
        self.waiting.extend(cut.pieces(number, &ids));
        Ok(self.waiting[before..].iter().map(|piece| piece.tokens.len()).sum())
    }

    /// Runs pieces that wait, some rows at a time, until fewer than `least` rows wait.
    fn batches(&mut self, least: usize) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut left: usize = waiting.iter().map(|piece| piece.tokens.len()).sum();
        let mut pieces = waiting.into_iter().peekable();
        while left > 0 && left >= least {
            let (mut batch, mut rows) = (Vec::new(), 0);
            while let Some(piece) =
                pieces.next_if(|piece| rows == 0 || rows + piece.tokens.len() <= ROWS_AT_ONCE)
            {
                rows += piece.tokens.len();
                batch.push(piece);
            }
            left -= rows;
            self.batch(&batch)?;
        }
        self.waiting = pieces.collect();
        Ok(())
    }

    /// Runs pieces in one forward pass.
    fn batch(&mut self, pieces: &[Piece]) -> Result<()> {
        let Self { model, reducers, manifest, donors, .. } = self;
        let interventions = &manifest.settings.interventions;
        for piece in pieces {
            reducers.begin(piece);
        }
        let wanted = reducers.wanted();
        let reducers = Mutex::new(reducers);
        let watch = |piece: &'_ Piece| {
            interventions
                .check(model.config(), piece.tokens.len())
                .map_err(|error| Error::usage(format!("document {}: {error}", piece.document)))?;
            interventions.hooks(model, donors)
        };
        let changes = pieces.iter().map(watch).collect::<Result<Vec<_>>>()?;
        let watch = |piece| Watch { model, wanted: &wanted, reducers: &reducers, piece };
        let mut hooks: Vec<_> = changes.into_iter().zip(pieces.iter().map(watch)).collect();
        let sequences =
            pieces.iter().zip(&mut hooks).map(|(piece, hooks)| Sequence::new(&piece.tokens, hooks, None));
        model.net.watch(sequences)
    }

    /// Records the progress; returns where.
    fn record(&mut self) -> Result<PathBuf> {
        let progress = &mut self.manifest.progress;
        progress.chunks += 1;
        let number = progress.chunks;
        if let Some(raw) = &mut self.reducers.raw {
            raw.flush(&self.folder, number)?;
        }
        let part = self.folder.join(format!("part-{number}"));
        let tokenizer = &self.model.tokenizer;
        let text = |id| tokenizer.is_some().then(|| tokenizer.show(id));
        self.reducers.write(&self.manifest, &text, &part)?;
        for (other, path) in parts(&self.folder) {
            if other != number {
                let _ = fs::remove_dir_all(path);
            }
        }
        Ok(part)
    }

    /// Checks that there is room for the raw tensors, and says how much they take.
    fn room_for_raw(
        &self,
        plan: &Plan,
        cut: Cut,
        report: &mut dyn FnMut(Report) -> Result<()>,
    ) -> Result<()> {
        let Some(raw) = &self.reducers.raw else { return Ok(()) };
        let settings = &plan.settings;
        let mut counted = Self::new(self.model, plan, self.folder.clone())?;
        let documents = Documents::open(&plan.inputs, reading(self.model, settings))?;
        let lenient = Plan { strict: false, ..plan.clone() };
        for (number, document) in (0..).zip(documents) {
            if settings.limit.is_some_and(|limit| number >= limit) {
                break;
            }
            if plan.shard.has(number) && is_drawn(number, settings.sample) {
                counted.take(&lenient, cut, number, document?)?;
                counted.waiting.clear();
            }
        }
        let needed = counted.manifest.progress.tokens * raw.bytes_per_token();
        report(Report::Needs(needed))?;
        match raw::free(&self.folder) {
            Some(free) if free < needed => Err(Error::file(
                &self.folder,
                format!(
                    "has no room for the raw tensors: they take {}, and {} are free; choose fewer --hooks, \
                     --raw-dtype f16, or another disk",
                    bytes(needed),
                    bytes(free)
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// How far the run in a folder is; `None` if nothing is recorded.
///
/// # Errors
/// [`Error::File`] for a manifest that cannot be read.
pub fn progress(folder: &Path) -> Result<Option<Manifest>> {
    Ok(match Manifest::read(folder)? {
        Some(manifest) => Some(manifest),
        None => last_part(folder)?.map(|(_, manifest)| manifest),
    })
}

/// Moves what is in the folder `part` to `folder`, the manifest last.
///
/// # Errors
/// [`Error::File`] for what the system refuses.
pub fn put_in_place(folder: &Path, part: &Path) -> Result<()> {
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |cause| Error::file(path, format!("cannot be written: {cause}"))
    };
    let entries = fs::read_dir(part).map_err(cannot(part))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable_by_key(|name| name == manifest::FILE);
    for name in names {
        let to = folder.join(&name);
        fs::rename(part.join(&name), &to).map_err(cannot(&to))?;
    }
    let _ = fs::remove_dir(part);
    let _ = fs::remove_file(folder.join(LOCK));
    Ok(())
}

/// Passes the tensors of one piece to the reducers.
struct Watch<'a> {
    model: &'a Model,
    wanted: &'a BTreeSet<HookName>,
    reducers: &'a Mutex<&'a mut Reducers>,
    piece: &'a Piece,
}

impl Hooks for Watch<'_> {
    fn wants(&self, name: HookName) -> bool {
        self.wanted.contains(&name)
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let mut reducers = self.reducers.lock().unwrap_or_else(PoisonError::into_inner);
        reducers.see(self.model, name, x, self.piece)?;
        Ok(None)
    }

    fn first_change(&self) -> Option<HookName> {
        None
    }
}
