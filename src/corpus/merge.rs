//! Merging the shards of a corpus.

use std::fs;
use std::path::{Path, PathBuf};

use super::loss::Loss;
use super::manifest::{self, Manifest, Reduce};
use super::raw;
use super::reduce::Reducers;
use super::run::{self, put_in_place, shard_folder};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::files::unreadable;

/// The results in a folder: its own, or those of the shards in it.
///
/// # Errors
/// [`Error::File`] for a folder without results, or with manifests that cannot be read.
pub fn results(folder: &Path) -> Result<Vec<PathBuf>> {
    if Manifest::read(folder)?.is_some() {
        return Ok(vec![folder.into()]);
    }
    let mut found = shards(folder)?;
    found.retain(|path| path.join(manifest::FILE).exists());
    if found.is_empty() {
        return Err(Error::file(
            folder,
            format!(
                "holds no finished results of a corpus: {} is not there (see actscope corpus status)",
                manifest::FILE
            ),
        ));
    }
    Ok(found)
}

/// The folders of shards in a folder, finished or not.
///
/// # Errors
/// [`Error::File`] for a folder that cannot be read.
pub fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let is_shard = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("shard-"))
    };
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_shard).collect();
    found.sort();
    Ok(found)
}

/// Merges shards into a folder, as if one process had run the whole corpus; returns the manifest.
///
/// # Errors
/// [`Error::File`] for shards that are missing, there twice, or of other runs, each by name, and for what cannot
/// be read or written.
pub fn merge(
    folders: &[PathBuf],
    out: &Path,
    report: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Manifest> {
    let mut found = Vec::new();
    for folder in folders {
        for folder in results(folder)? {
            let manifest = Manifest::read(&folder)?.ok_or_else(|| Error::file(&folder, "has no manifest"))?;
            found.push((manifest.shard, folder, manifest));
        }
    }
    found.sort_by_key(|(shard, ..)| *shard);
    check(&found)?;
    if Manifest::read(out)?.is_some() {
        return Err(Error::file(out, "already holds results: choose another folder with -o"));
    }
    let of = found.len();
    let mut merged: Option<(Reducers, Manifest)> = None;
    for (i, (_, folder, manifest)) in found.iter().enumerate() {
        report(i, of)?;
        let other = Reducers::read(manifest, folder)?;
        match &mut merged {
            None => merged = Some((other, manifest.clone())),
            Some((reducers, whole)) => {
                reducers.merge(other);
                whole.merge(manifest);
            }
        }
    }
    let (reducers, mut whole) = merged.ok_or_else(|| Error::usage("no shards given"))?;
    whole.shard = Shard::WHOLE;
    whole.progress.loss = reducers.loss.as_ref().map(Loss::total);
    let part = out.join("merged");
    fs::create_dir_all(out).map_err(|error| Error::file(out, format!("cannot be created: {error}")))?;
    // What a merge that was killed left.
    let _ = fs::remove_dir_all(&part);
    reducers.write(&whole, &|_| None, &part)?;
    if whole.settings.has(Reduce::Raw) {
        raw::gather(found.iter().map(|(shard, folder, _)| (*shard, folder.as_path())), out)?;
    }
    put_in_place(out, &part)?;
    report(of, of)?;
    Ok(whole)
}

/// Refuses shards that are not all of one run.
fn check(found: &[(Shard, PathBuf, Manifest)]) -> Result<()> {
    let Some((first, folder, manifest)) = found.first() else {
        return Err(Error::usage("no shards given: name their folders"));
    };
    for (shard, other, of_other) in found {
        let differences = manifest.settings.differences(&of_other.settings);
        if !differences.is_empty() || shard.of != first.of {
            let what = if differences.is_empty() {
                format!("the number of shards: {} and {}", first.of, shard.of)
            } else {
                differences.join(", ")
            };
            let folder = folder.display();
            return Err(Error::file(
                other,
                format!("is of another run than {folder}: they differ in {what}"),
            ));
        }
        if of_other.progress.next_document != manifest.progress.next_document {
            return Err(Error::file(
                other,
                format!(
                    "saw {} documents, {} saw {}: the inputs were not the same",
                    of_other.progress.next_document,
                    folder.display(),
                    manifest.progress.next_document
                ),
            ));
        }
        if !of_other.progress.complete {
            return Err(Error::file(other, "is not finished: run it again, it goes on where it ended"));
        }
    }
    for pair in found.windows(2) {
        if pair[0].0 == pair[1].0 {
            let (shard, other) = (pair[0].0, pair[0].1.display());
            return Err(Error::file(&pair[1].1, format!("is shard {shard}, and so is {other}")));
        }
    }
    let missing: Vec<_> = (1..=first.of)
        .map(|index| Shard { index, of: first.of })
        .filter(|shard| found.iter().all(|(there, ..)| there != shard))
        .map(|shard| shard.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("shards are missing: {}", missing.join(", "))))
}

/// A shard, and how far it is.
#[derive(Debug)]
pub struct Status {
    pub folder: PathBuf,
    /// `None` if it has not recorded anything yet.
    pub manifest: Option<Manifest>,
}

/// How far the runs in a folder are, those that are missing included.
///
/// # Errors
/// [`Error::File`] for what cannot be read.
pub fn status(folder: &Path) -> Result<Vec<Status>> {
    let mut folders = shards(folder)?;
    if folders.is_empty() || Manifest::read(folder)?.is_some() {
        folders = vec![folder.into()];
    }
    let mut found = Vec::new();
    for folder in folders {
        let manifest = run::progress(&folder)?;
        found.push(Status { folder, manifest });
    }
    let of = found.iter().filter_map(|status| Some(status.manifest.as_ref()?.shard.of)).max().unwrap_or(0);
    for index in (1..=of).filter(|_| of > 1) {
        let path = shard_folder(folder, Shard { index, of });
        if found.iter().all(|status| status.folder != path) {
            found.push(Status { folder: path, manifest: None });
        }
    }
    Ok(found)
}
