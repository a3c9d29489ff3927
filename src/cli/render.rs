//! `actscope render`: a tensor as a picture.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::args::{Color, InputArgs, ModelArgs};
use crate::analysis::Source;
use crate::error::{Error, Result};
use crate::export::Destination;
use crate::export::figure::{Figure, Options};
use crate::hooks::{HookFilter, HookName};
use crate::run::Run;

/// Draw one tensor as a heatmap: PNG, SVG or text
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  actscope render pattern.2 \"The cat sat on the mat\" --head 3 -o pattern.png
  actscope render resid_post.3 --prompt-file poem.txt -o residual.svg
  actscope render logits \"The cat sat\" --width 100")]
pub struct Args {
    /// Name or short name of a hook, as `actscope hooks` lists them
    hook: String,
    #[command(flatten)]
    input: InputArgs,
    /// Only this head, counted from 0; without it, all of them
    #[arg(long, value_name = "H")]
    head: Option<usize>,
    /// A .png or .svg file, or - for text on standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Light on dark
    #[arg(long)]
    dark: bool,
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
    Png,
    Svg,
    Text,
}

impl Form {
    fn of_path(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            _ if path == Path::new("-") => Ok(Self::Text),
            Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            _ => Err(Error::usage(format!(
                "{}: the name says no kind of picture; let it end in .png or .svg, or give - for text",
                path.display()
            ))),
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    let form = Form::of_path(&args.output)?;
    let input = args.input.required()?;
    let to = Destination::new(&args.output).prepare()?;
    let model = args.model.load()?;
    let hook = HookName::find(&args.hook, model.config())?;
    let run = Run::new(&model, input, HookFilter::new(&[hook.to_string()], model.config())?, ())?;
    let options = Options { dark: args.dark, ..Options::default() };
    let figure = Figure::new(&run, Source::Hook(hook), args.head, options)?;
    let bytes = match form {
        Form::Png => figure.to_png()?,
        Form::Svg => figure.to_svg().into_bytes(),
        Form::Text => {
            let width = args.width.unwrap_or_else(width);
            figure.to_ansi(width, args.color.of_stdout()).into_bytes()
        }
    };
    to.write(|out| out.write_all(&bytes))?;
    Ok(())
}

/// Columns of the terminal; where there is none, those of a common one.
fn width() -> usize {
    let terminal = std::io::stdout().is_terminal().then(crossterm::terminal::size);
    terminal.and_then(std::result::Result::ok).map_or(100, |(columns, _)| columns.into())
}
