//! `actscope walk`: one token followed through the network, as a note with figures.

use std::path::{Path, PathBuf};

use super::args::{Color, InputArgs, ModelArgs};
use super::output::{ending, print_colored, say, width};
use crate::error::{Error, Result};
use crate::export::walk::{Focus, MARKDOWN, Walk};
use crate::export::{Destination, write_directory};
use crate::text;

/// Follow one token through the network, step by step, in words, numbers and figures
///
/// The text becomes tokens, a row of wte and one of wpe, their sum; then a block with its attention
/// and MLP; the final LayerNorm, the logits, the next token. Each step has its formula, the matrices
/// of the run, and a check that the numbers are what they should be.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope walk \"The cat sat on the mat\" -o note        # note/walk.md and a figure for each step
  actscope walk \"The cat sat on the mat\" -o note.html   # one page with the figures in it
  actscope walk \"The cat sat\" --position 1 --layer 2 --head 3 | less -R

The figures are SVG, light and dark. Files of an earlier walk are replaced, others left
alone; a walk that cannot be written whole changes nothing.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Position of the token to follow, counted from 0; without it, the last
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// The block to go through, counted from 0
    #[arg(long, value_name = "L", default_value_t = 0)]
    layer: usize,
    /// The attention head to look into, counted from 0
    #[arg(long, value_name = "H", default_value_t = 0)]
    head: usize,
    /// A directory for walk.md and its figures, an .html file, or - for text on standard output
    #[arg(short, long, value_name = "DIR|FILE", default_value = "-")]
    output: PathBuf,
    /// Columns of the text; without it, as many as the terminal has
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Colours of the text
    #[arg(long, value_name = "COLORS", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    model: ModelArgs,
}

enum Form {
    Text,
    Html,
    Directory,
}

impl Form {
    fn of_path(path: &Path) -> Result<Self> {
        let ending = ending(path);
        let named_directory = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
        match ending.as_deref() {
            _ if path == Path::new("-") => Ok(Self::Text),
            _ if named_directory || path.is_dir() => Ok(Self::Directory),
            None if path.exists() => {
                Err(Error::file(path, "is not a directory: name one, or a file that ends in .html"))
            }
            None => Ok(Self::Directory),
            Some("html" | "htm") => Ok(Self::Html),
            Some(_) => Err(Error::usage(format!(
                "{}: name a directory for {MARKDOWN} and its figures, a file that ends in .html, or - for text",
                text::path(path)
            ))),
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    let form = Form::of_path(&args.output)?;
    let input = args.input.required()?;
    let exists = args.output.is_dir();
    // Whether it can be written shows now, and not after a long run.
    let to = match form {
        Form::Directory if exists => Destination::new(args.output.join(MARKDOWN)),
        _ => Destination::new(&args.output),
    };
    let to = to.prepare()?;
    let model = args.model.load()?;
    let place = Focus { position: args.position, layer: args.layer, head: args.head };
    let walk = Walk::new(&model, input, place)?;
    let text = match form {
        Form::Text => {
            return print_colored(&walk.to_ansi(args.width.unwrap_or_else(width), args.color.of_stdout())?);
        }
        Form::Html => walk.to_html()?,
        Form::Directory => return write(&args.output, &walk.to_files()?),
    };
    to.write(|out| out.write_all(text.as_bytes()))?;
    Ok(())
}

/// Writes the note into a directory, and says so.
fn write(directory: &Path, files: &[(String, String)]) -> Result<()> {
    write_directory(directory, files)?;
    let path = directory.join(MARKDOWN);
    say(&format!("{} with {} figures", text::path(&path), files.len() - 1));
    Ok(())
}
