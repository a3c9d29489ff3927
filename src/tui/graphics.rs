//! Which kind of images the terminal shows, if any.

use std::time::Duration;

use ratatui::crossterm::terminal::window_size;
use ratatui_image::picker::cap_parser::QueryStdioOptions;
use ratatui_image::picker::{Picker, ProtocolType};

use super::terminal;
use crate::engine::pixels::Protocol;

/// Images of the terminal, in which maps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graphics {
    pub protocol: Protocol,
    /// Pixels of a character: width, height.
    pub font: (u16, u16),
    /// Something may lie on the maps.
    pub covered: bool,
}

/// How maps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// In pixels if the terminal is known to show them and says so itself.
    #[default]
    Auto,
    Pixels(Protocol),
    Half,
}

impl Choice {
    /// In settings and on the command line.
    pub const NAMES: [&str; 5] = ["auto", "kitty", "sixel", "iterm", "half"];

    /// By one of [`Self::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        let pixels = [Protocol::Kitty, Protocol::Sixel, Protocol::Iterm].map(Self::Pixels);
        Some([Self::Auto, pixels[0], pixels[1], pixels[2], Self::Half][at])
    }

    /// What the terminal shows; `None`: no images. Asks the terminal, which has to be in raw mode, with nothing else
    /// that reads from it.
    ///
    /// # Errors
    /// One sentence, if images are wanted and the terminal does not say how large its characters are.
    pub fn graphics(self) -> Result<Option<Graphics>, String> {
        let found = |protocol, font| Graphics { protocol, font, covered: false };
        match self {
            Self::Half => Ok(None),
            Self::Pixels(protocol) => match font() {
                Some(font) => Ok(Some(found(protocol, font))),
                None => Err("no graphics: the terminal does not say how large its characters are".into()),
            },
            Self::Auto if is_known() => Ok(ask().map(|(protocol, font)| found(protocol, font))),
            Self::Auto => Ok(None),
        }
    }
}

/// Whether the environment names a terminal that shows images, and none that stands between.
fn is_known() -> bool {
    let value = |name: &str| std::env::var(name).unwrap_or_default();
    let set = |name: &str| !value(name).is_empty();
    if set("TMUX") || set("STY") || set("ZELLIJ") {
        return false;
    }
    let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
    let starts = |text: &str, names: &[&str]| names.iter().any(|name| text.starts_with(name));
    starts(&term, &["xterm-kitty", "xterm-ghostty", "foot", "mlterm", "contour", "wezterm"])
        || starts(&program, &["iTerm", "WezTerm", "ghostty", "rio", "mintty"])
        || ["KITTY_WINDOW_ID", "XTERM_VERSION", "KONSOLE_VERSION", "WT_SESSION"].into_iter().any(set)
        || value("LC_TERMINAL").starts_with("iTerm")
}

/// Asks the terminal which images it shows, and how large its characters are.
fn ask() -> Option<(Protocol, (u16, u16))> {
    let options = QueryStdioOptions { timeout: Duration::from_millis(300), ..QueryStdioOptions::default() };
    let found = Picker::from_query_stdio_with_options(options).ok()?;
    let protocol = match found.protocol_type() {
        ProtocolType::Kitty if has_letters() => Protocol::Kitty,
        ProtocolType::Sixel => Protocol::Sixel,
        ProtocolType::Iterm2 => Protocol::Iterm,
        ProtocolType::Kitty | ProtocolType::Halfblocks => return None,
    };
    let size = found.font_size();
    Some((protocol, (size.width, size.height)))
}

/// Whether a terminal of kitty's protocol has images that are letters, as kitty has from version 0.28 on. It has just
/// answered, so it can be waited for.
fn has_letters() -> bool {
    terminal::version().is_ok_and(|version| is_new(&version))
}

/// `kitty(0.41.1)` is.
fn is_new(version: &str) -> bool {
    let Some((_, kitty)) = version.split_once("kitty(") else { return true };
    let mut numbers = kitty.split(['.', ')']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(0), Some(28))
}

/// The size of a character in pixels, if the terminal says it.
pub fn font() -> Option<(u16, u16)> {
    let size = window_size().ok()?;
    let font = (size.width.checked_div(size.columns)?, size.height.checked_div(size.rows)?);
    Some(font).filter(|font| font.0 > 0 && font.1 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_names() {
        assert_eq!(Choice::NAMES.map(|name| Choice::named(name).is_some()), [true; 5]);
        assert_eq!(Choice::named("sixel"), Some(Choice::Pixels(Protocol::Sixel)));
        assert_eq!(Choice::named("half"), Some(Choice::Half));
        assert_eq!(Choice::named("ascii"), None);
    }

    #[test]
    fn an_old_kitty_has_no_images_that_are_letters() {
        assert!(!is_new("\x1bP>|kitty(0.26.5)\x1b\\\x1b[0n"));
        assert!(is_new("\x1bP>|kitty(0.28.0)\x1b\\\x1b[0n") && is_new("\x1bP>|kitty(1.0.0)\x1b\\"));
        assert!(is_new("\x1bP>|ghostty 1.0.0\x1b\\\x1b[0n"));
    }
}
