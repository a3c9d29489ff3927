//! `actscope config`: where the settings are, and what they are by default.

use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use super::output;
use crate::error::{Error, Result};
use crate::files;
use crate::text;
use crate::tui::settings::{Settings, defaults};

/// Print where config.toml is, and its defaults, explained
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope config
  actscope config --path
  actscope config > \"$(actscope config --path)\"    start with the defaults

Set ACTSCOPE_CONFIG to read another file.")]
pub struct Args {
    /// Print only the path
    #[arg(long)]
    path: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = path()?;
    if args.path {
        return output::print(&format!("{}\n", path.display()));
    }
    for problem in read()?.1 {
        output::say(&problem);
    }
    let there = if path.is_file() { "" } else { ", which is not there yet" };
    output::print(&format!("# {}{there}\n{}", text::path(&path), defaults()))
}

/// `ACTSCOPE_CONFIG`, else `config.toml` in the user's folder of configuration.
fn path() -> Result<PathBuf> {
    match std::env::var_os("ACTSCOPE_CONFIG").filter(|file| !file.is_empty()) {
        Some(file) => Ok(file.into()),
        None => Ok(folder()?.join("config.toml")),
    }
}

fn folder() -> Result<PathBuf> {
    let dirs = ProjectDirs::from("", "", "actscope");
    let dirs = dirs.ok_or_else(|| Error::usage("no home directory for config.toml: set ACTSCOPE_CONFIG"))?;
    Ok(dirs.config_dir().to_owned())
}

/// The settings, and a sentence for each part of the file that is wrong.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read.
pub fn read() -> Result<(Settings, Vec<String>)> {
    match path() {
        Ok(path) if path.exists() => Ok(Settings::read(&files::read_text(&path, files::SETTINGS)?)),
        _ => Ok((Settings::default(), Vec::new())),
    }
}

/// The text of a user's theme: a file by its name, or one in the folder `themes`.
///
/// # Errors
/// One sentence, for a file that is there and cannot be read.
pub fn theme(name: &str) -> Result<Option<String>, String> {
    let beside = || Some(path().ok()?.parent()?.join("themes").join(format!("{name}.toml")));
    let is_file = Path::new(name).extension().is_some_and(|end| end == "toml");
    let file = if is_file { Some(PathBuf::from(name)) } else { beside() };
    match file.filter(|file| file.exists()) {
        Some(file) => files::read_text(&file, files::SETTINGS).map(Some).map_err(|error| error.to_string()),
        None => Ok(None),
    }
}

/// `ACTSCOPE_STATE`, else the folder `state` in the user's state directory; `None`: nothing is remembered.
pub fn state() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("ACTSCOPE_STATE") {
        return Some(PathBuf::from(folder)).filter(|folder| !folder.as_os_str().is_empty());
    }
    let dirs = ProjectDirs::from("", "", "actscope")?;
    Some(dirs.state_dir().unwrap_or(dirs.data_local_dir()).join("models"))
}
