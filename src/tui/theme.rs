//! Colours by meaning, and the terminal's colour depth.

use std::sync::OnceLock;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

use super::graphics::Graphics;
use crate::engine::pixels::Paper;
use crate::hooks::Quantity;
pub use crate::picture::colormap::Depth;
use crate::picture::colormap::{Palette, Rgb, is_light, nearest_of_16, nearest_of_256};

/// The colours of the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Theme {
    pub light: bool,
    pub depth: Depth,
    pub palette: Palette,
    /// The background is drawn too, as the terminal's may be the opposite.
    pub paints: bool,
    pub themes: Themes,
    /// Where maps are drawn in pixels.
    pub graphics: Option<Graphics>,
}

/// A theme for a dark background, and one for a light one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Themes {
    dark: &'static Colours,
    light: &'static Colours,
}

/// The colours of a theme by meaning, and its background: a file in `assets/themes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    background: Background,
    opposite: String,
    colours: Colours,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Background {
    Dark,
    Light,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Colours {
    text: Hex,
    page: Hex,
    dim: Hex,
    faint: Hex,
    accent: Hex,
    focus: Hex,
    bad: Hex,
    good: Hex,
    amount: Hex,
    panel: Hex,
    selected: Hex,
}

/// `#74c7ec`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Rgb);

impl Hex {
    fn color(self) -> Color {
        let Self([r, g, b]) = self;
        Color::Rgb(r, g, b)
    }
}

fn ink(colour: Hex) -> Style {
    Style::new().fg(colour.color())
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a colour such as \"#74c7ec\"");
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6).ok_or_else(wrong)?;
        let number = u32::from_str_radix(digits, 16).map_err(|_| wrong())?;
        let [_, rgb @ ..] = number.to_be_bytes();
        Ok(Self(rgb))
    }
}

/// The themes of the program, by name.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("dark", include_str!("../../assets/themes/dark.toml")),
    ("light", include_str!("../../assets/themes/light.toml")),
    ("high-contrast", include_str!("../../assets/themes/high-contrast.toml")),
    ("high-contrast-light", include_str!("../../assets/themes/high-contrast-light.toml")),
];

impl Default for Themes {
    fn default() -> Self {
        static DEFAULT: OnceLock<Themes> = OnceLock::new();
        *DEFAULT.get_or_init(|| {
            let (themes, _) =
                Self::named("dark", &|_| Ok(None)).expect("a test reads the themes of the program");
            themes
        })
    }
}

impl Themes {
    /// The theme of this name with its opposite, and whether it is light; `read` gives the text of a theme that is not
    /// the program's, or says why it cannot.
    ///
    /// # Errors
    /// One sentence: an unknown name, or what is wrong in which line.
    pub fn named(
        name: &str,
        read: &dyn Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<(Self, bool), String> {
        let (first, light) = load(name, read)?;
        let other = load(&first.opposite, read)?.0;
        // Read once, for as long as the program runs.
        let [first, other] = [first.colours, other.colours].map(|colours| &*Box::leak(Box::new(colours)));
        let (dark, bright) = if light { (other, first) } else { (first, other) };
        Ok((Self { dark, light: bright }, light))
    }
}

fn load(name: &str, read: &dyn Fn(&str) -> Result<Option<String>, String>) -> Result<(File, bool), String> {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let Some(text) = read(name)?.or(built_in) else {
        let known: Vec<_> = BUILT_IN.iter().map(|(known, _)| *known).collect();
        return Err(format!(
            "no theme `{name}`: there are {}, and the files in the folder themes",
            known.join(", ")
        ));
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        format!("theme {name}, line {line}: {}", error.message().trim_end())
    })?;
    let light = file.background == Background::Light;
    Ok((file, light))
}

/// The line of a byte of `text`, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

impl Theme {
    fn colours(self) -> &'static Colours {
        if self.light { self.themes.light } else { self.themes.dark }
    }

    /// Plain text.
    pub fn text(self) -> Style {
        ink(self.colours().text)
    }

    /// Plain text on the background of the whole screen.
    pub fn page(self) -> Style {
        if self.paints { self.text().bg(self.colours().page.color()) } else { self.text() }
    }

    /// Explanations.
    pub fn dim(self) -> Style {
        ink(self.colours().dim)
    }

    /// Rules and hatching.
    pub fn faint(self) -> Style {
        ink(self.colours().faint)
    }

    /// The selection: one colour everywhere.
    pub fn accent(self) -> Style {
        ink(self.colours().accent).add_modifier(Modifier::BOLD)
    }

    /// The focus of the keys.
    pub fn focus(self) -> Style {
        ink(self.colours().focus)
    }

    /// Headings.
    pub fn strong(self) -> Style {
        self.text().add_modifier(Modifier::BOLD)
    }

    /// Something is wrong.
    pub fn bad(self) -> Style {
        ink(self.colours().bad).add_modifier(Modifier::BOLD)
    }

    /// Something is right.
    pub fn good(self) -> Style {
        ink(self.colours().good)
    }

    /// Bars of magnitudes: neither of the two colours of signed numbers.
    pub fn amount(self) -> Style {
        ink(self.colours().amount)
    }

    /// Bars of signed numbers: the colours of the map on the two sides of 0.
    pub fn signed(self, value: f32) -> Style {
        match self.depth {
            Depth::Mono => self.text(),
            _ => Style::new().fg(self.shade(Quantity::Signed, if value < 0.0 { 0.17 } else { 0.83 })),
        }
    }

    /// The background of overlays.
    pub fn panel(self) -> Style {
        self.text().bg(self.colours().panel.color())
    }

    /// The selected line of a list.
    pub fn selected(self) -> Style {
        let style = self.accent().bg(self.colours().selected.color());
        if self.depth == Depth::Mono { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    /// The colour of 0..=1 in the colour map for a quantity.
    pub fn shade(self, quantity: Quantity, x: f32) -> Color {
        let [r, g, b] = self.palette.map(quantity, self.light).at(x);
        Color::Rgb(r, g, b)
    }

    /// What maps are drawn on in pixels.
    pub fn paper(self) -> Option<Paper> {
        let Graphics { protocol, font, .. } = self.graphics.filter(|_| self.depth != Depth::Mono)?;
        let Colours { page, faint, .. } = self.colours();
        let page = self.paints.then_some(page.0);
        Some(Paper { protocol, font, palette: self.palette, light: self.light, page, hatch: faint.0 })
    }

    /// Whether pixels may be drawn now.
    pub fn shows_pixels(self) -> bool {
        self.graphics.is_some_and(|graphics| !graphics.covered || graphics.protocol.is_text())
    }

    /// Black or white, whichever is easier to read on `color`.
    pub fn on(color: Color) -> Color {
        match color {
            Color::Rgb(r, g, b) if is_light([r, g, b]) => Color::Rgb(10, 10, 12),
            _ => Color::Rgb(245, 245, 247),
        }
    }

    /// Reduces a drawn buffer to the colours of the terminal.
    pub fn degrade(self, buffer: &mut Buffer) {
        let convert: fn(Color) -> Color = match self.depth {
            Depth::True => return,
            Depth::Indexed => |color| indexed(color, nearest_of_256),
            Depth::Sixteen => |color| indexed(color, nearest_of_16),
            Depth::Mono => |_| Color::Reset,
        };
        for cell in &mut buffer.content {
            cell.fg = convert(cell.fg);
            cell.bg = convert(cell.bg);
        }
    }
}

fn indexed(color: Color, nearest: fn(Rgb) -> u8) -> Color {
    match color {
        Color::Rgb(r, g, b) => Color::Indexed(nearest([r, g, b])),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ratio of contrast of WCAG 2.
    fn contrast(a: Rgb, b: Rgb) -> f64 {
        let channel = |x: u8| {
            let x = f64::from(x) / 255.0;
            if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |[r, g, b]: Rgb| 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn the_themes_of_the_program_are_read_and_legible() {
        for (name, _) in BUILT_IN {
            let (file, light) = load(name, &|_| Ok(None)).unwrap();
            let (_, opposite) = load(&file.opposite, &|_| Ok(None)).unwrap();
            assert_ne!(light, opposite, "{name}");
            let c = file.colours;
            let least = if name.starts_with("high") { 7.0 } else { 4.5 };
            for (ink, paper) in [
                (c.text, c.page),
                (c.dim, c.page),
                (c.accent, c.page),
                (c.focus, c.page),
                (c.bad, c.page),
                (c.good, c.page),
                (c.text, c.panel),
                (c.accent, c.selected),
            ] {
                // The accent on its own background is bold.
                let least = if paper == c.selected { 3.5 } else { least };
                assert!(contrast(ink.0, paper.0) >= least, "{name}: {ink:?} on {paper:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_in_a_theme_is_said_with_its_line() {
        let text = BUILT_IN[0].1;
        let said = |text: String| {
            Themes::named("mine", &|name| Ok((name == "mine").then(|| text.clone()))).unwrap_err()
        };
        assert_eq!(
            said(text.replace("#74c7ec", "blue")),
            "theme mine, line 12: `blue` is not a colour such as \"#74c7ec\""
        );
        assert!(
            said(text.replace("dim =", "dimm =")).starts_with("theme mine, line 9: unknown field `dimm`")
        );
        assert!(
            said(text.replace("\"light\"", "\"sun\"")).starts_with("no theme `sun`: there are dark, light,")
        );
        assert!(Themes::named("mine", &|_| Ok(None)).unwrap_err().starts_with("no theme `mine`"));
        let mine = text.replace("#74c7ec", "#ff0000");
        let (themes, light) =
            Themes::named("mine", &|name| Ok((name == "mine").then(|| mine.clone()))).unwrap();
        assert!(!light);
        assert_eq!(Theme { themes, ..Theme::default() }.focus(), Style::new().fg(Color::Rgb(255, 0, 0)));
    }
}
