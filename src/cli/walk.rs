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
/// The text becomes tokens, rows of wte and wpe, and their sum; then come a block with its attention
/// and MLP, the final LayerNorm, the logits and the next token. Each step has its formula, the matrices
/// of the run, and a check of the numbers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope walk \"The cat sat on the mat\" -o note        # note/walk.md and a figure for each step
  actscope walk \"The cat sat on the mat\" -o note.html   # one page with the figures in it
  actscope walk \"The cat sat\" --position 1 --layer 2 --head 3 | less -R

The figures are SVG, light and dark. Files of an earlier walk are replaced, other files left
alone; if writing fails, nothing is changed.")]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Position of the token to follow, counted from 0; default: the last
    #[arg(long, value_name = "T")]
    position: Option<usize>,
    /// Block to go through, counted from 0
    #[arg(long, value_name = "L", default_value_t = 0)]
    layer: usize,
    /// Attention head to look into, counted from 0
    #[arg(long, value_name = "H", default_value_t = 0)]
    head: usize,
    /// Directory for walk.md and its figures, an .html file, or - for text on standard output
    #[arg(short, long, value_name = "DIR|FILE", default_value = "-")]
    output: PathBuf,
    /// Width of the text in columns; default: that of the terminal
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
                Err(Error::file(path, "is not a directory: use a directory, or a file that ends in .html"))
            }
            None => Ok(Self::Directory),
            Some("html" | "htm") => Ok(Self::Html),
            Some(_) => Err(Error::usage(format!(
                "{}: use a directory (for {MARKDOWN} and its figures), a file that ends in .html, or - for text",
                text::path(path)
            ))),
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    let form = Form::of_path(&args.output)?;
    let input = args.input.required()?;
    let exists = args.output.is_dir();
    // Find out now, not after a long run, whether it can be written.
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

/// Writes the note into a directory, and prints where.
fn write(directory: &Path, files: &[(String, String)]) -> Result<()> {
    write_directory(directory, files)?;
    let path = directory.join(MARKDOWN);
    say(&format!("{} with {}", text::path(&path), text::count(files.len() - 1, "figure")));
    Ok(())
}
