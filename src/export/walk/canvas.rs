//! Shapes and words of an SVG. Colours are classes, so that one drawing is light and dark.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use unicode_width::UnicodeWidthStr;

use super::tile::{LEVELS, level, place};
use crate::export::figure::{escaped, text_widths};
use crate::hooks::Quantity;
use crate::picture::colormap::{BROKEN, Palette, Rgb};
use crate::picture::{Paint, Picture};
use crate::text::fit;

/// What colours an SVG may have, besides those of the colour maps.
const INKS: [(&str, &str, &str); 9] = [
    // name, light, dark
    ("paper", "#ffffff", "#101216"),
    ("text", "#24262c", "#d6d9e0"),
    ("dim", "#626772", "#9aa0ac"),
    ("line", "#c4c7ce", "#444852"),
    ("accent", "#a85e00", "#ffc857"),
    ("good", "#167832", "#8cd28c"),
    ("bad", "#b91c1c", "#ff786e"),
    ("plus", "#c94741", "#e0604c"),
    ("minus", "#2f78b7", "#3f8fe0"),
];

/// What each class is, of the colours above.
const CLASSES: &str = "\
.paper{fill:$paper}.t{fill:$text}.m{fill:$dim}.a{fill:$accent}.b{font-weight:bold}\
.k{font-size:14px}.g{font-size:22px}.e{text-anchor:end}.c{text-anchor:middle}\
.l{stroke:$line;fill:none}.f{stroke:$accent;fill:none}.w{fill:$accent;opacity:.13}\
.p{fill:$plus}.n{fill:$minus}.o{stroke:$accent;fill:none;stroke-linecap:round;opacity:.45}";

/// The widths of characters in units of the font size, bold or not, measured once.
static WIDTHS: LazyLock<Mutex<HashMap<(char, bool), f32>>> = LazyLock::new(Mutex::default);
/// The font size that they are measured at.
const MEASURED: f32 = 100.0;

/// How words are set.
#[derive(Clone, Copy)]
pub(super) struct Face {
    class: &'static str,
    size: f32,
    bold: bool,
}

impl Face {
    pub const NAME: Self = Self { class: "t b k", size: 14.0, bold: true };
    pub const TEXT: Self = Self { class: "t", size: 13.0, bold: false };
    pub const DIM: Self = Self { class: "m", size: 13.0, bold: false };
    pub const MARKED: Self = Self { class: "a", size: 13.0, bold: false };
    pub const TOKEN: Self = Self { class: "t k", size: 14.0, bold: false };
    pub const MARKED_TOKEN: Self = Self { class: "a b k", size: 14.0, bold: true };
    pub const SIGN: Self = Self { class: "t g", size: 22.0, bold: false };

    /// How wide `text` is, but for kerning.
    pub fn width(self, text: &str) -> f32 {
        let mut known = WIDTHS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<char> = text.chars().filter(|c| !known.contains_key(&(*c, self.bold))).collect();
        if !new.is_empty() {
            new.sort_unstable();
            new.dedup();
            // Between two letters, for a blank alone is no text.
            let between: Vec<_> = new.iter().map(|c| format!("m{c}m")).chain(["mm".into()]).collect();
            let widths = text_widths(between.iter().map(|text| (text.as_str(), MEASURED, self.bold)));
            for (c, width) in new.iter().zip(&widths) {
                known.insert((*c, self.bold), (width - widths[new.len()]) / MEASURED);
            }
        }
        text.chars().map(|c| known[&(c, self.bold)]).sum::<f32>() * self.size
    }

    /// `text`, cut with `…` where it is wider than `room`.
    pub fn fit(self, text: &str, room: f32) -> String {
        let width = self.width(text);
        if width <= room {
            return text.to_owned();
        }
        let guess = (text.width() as f32 * room / width) as usize + 1;
        let mut shorter = (0..=guess).rev().map(|columns| fit(text, columns));
        shorter.find(|text| self.width(text) <= room).unwrap_or_default()
    }
}

/// Where words stand at their place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows.
#[derive(Default)]
pub(super) struct Canvas {
    pub svg: String,
}

impl Canvas {
    pub fn text(&mut self, (x, y): (f32, f32), face: Face, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " c",
            Anchor::End => " e",
        };
        let (x, y, text) = (tenths(x), tenths(y), escaped(text));
        let _ = writeln!(self.svg, r#"<text x="{x}" y="{y}" class="{}{anchor}">{text}</text>"#, face.class);
    }

    pub fn rect(&mut self, (x, y): (f32, f32), (width, height): (f32, f32), class: &str, more: &str) {
        let [x, y, width, height] = [x, y, width, height].map(tenths);
        let space = if more.is_empty() { "" } else { " " };
        let _ = writeln!(
            self.svg,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" class="{class}"{space}{more}/>"#
        );
    }

    /// Lines from point to point.
    pub fn line(&mut self, points: &[(f32, f32)], class: &str, width: f32) {
        let d = path(points);
        let _ = writeln!(self.svg, r#"<path d="{d}" class="{class}" stroke-width="{width}"/>"#);
    }

    /// A triangle that points right to `tip`, or down.
    pub fn arrow(&mut self, (x, y): (f32, f32), down: bool) {
        let points = if down {
            [(x, y), (x - 4.0, y - 7.0), (x + 4.0, y - 7.0)]
        } else {
            [(x, y), (x - 7.0, y - 4.0), (x - 7.0, y + 4.0)]
        };
        let _ = writeln!(self.svg, r#"<path d="{}z" class="a"/>"#, path(&points));
    }

    /// Dots, each about as large as a letter's.
    pub fn dots(&mut self, points: &[(f32, f32)], class: &str) {
        let mut d = String::new();
        for (x, y) in points {
            let _ = write!(d, "M{} {}h.01", tenths(*x), tenths(*y));
        }
        let _ = writeln!(self.svg, r#"<path d="{d}" class="{class}" stroke-width="5"/>"#);
    }

    /// The cells of a picture, as large as `size` together, with a line around them.
    pub fn picture(&mut self, picture: &Picture, at: (f32, f32), size: (f32, f32), hatch: &str) {
        let n = (picture.grid.n_columns, picture.grid.n_rows);
        let (letter, zero) = (letter(picture.range.quantity), zero(picture.range.quantity));
        let classes: Vec<_> = picture.paints().map(class).collect();
        let masked = classes.contains(&None);
        if masked {
            self.rect(at, size, "", &format!(r#"fill="url(#{hatch})""#));
        } else {
            self.rect(at, size, &format!("{letter}{zero}"), "");
        }
        let [x, y] = [at.0, at.1].map(tenths);
        let (width, height) = (size.0 / n.0 as f32, size.1 / n.1 as f32);
        let _ = write!(
            self.svg,
            r#"<g transform="translate({x} {y}) scale({width} {height})" shape-rendering="crispEdges" fill="none">"#
        );
        let kinds: BTreeSet<u8> = classes.iter().flatten().copied().collect();
        for kind in kinds.into_iter().filter(|&kind| masked || kind != zero) {
            let name = if kind == BROKEN_CLASS { "x".into() } else { format!("{letter}{kind}") };
            let _ = write!(self.svg, r#"<path class="{name}" d="{}"/>"#, runs(&classes, kind, n.0));
        }
        self.svg.push_str("</g>\n");
        self.rect(at, size, "l", r#"stroke-width=".75""#);
    }

    /// The scale of a colour map.
    pub fn scale(&mut self, quantity: Quantity, at: (f32, f32), size: (f32, f32)) {
        let step = size.0 / f32::from(LEVELS);
        for level in 0..LEVELS {
            let class = format!("{}{level}", letter(quantity));
            let place = (at.0 + f32::from(level) * step, at.1);
            self.rect(place, (step + 0.2, size.1), &class, r#"stroke="none" shape-rendering="crispEdges""#);
        }
    }
}

/// Number of the class of broken cells, after those of the levels.
const BROKEN_CLASS: u8 = LEVELS;

/// Number of the class of a cell; masked ones have none.
fn class(paint: Paint) -> Option<u8> {
    match paint {
        Paint::Level(x) => Some(level(x)),
        Paint::Broken => Some(BROKEN_CLASS),
        Paint::Masked | Paint::Outside => None,
    }
}

/// Cells of one class, as horizontal lines in units of cells.
fn runs(classes: &[Option<u8>], kind: u8, n_columns: usize) -> String {
    let mut d = String::new();
    for (row, classes) in classes.chunks(n_columns).enumerate() {
        let mut column = 0;
        while column < classes.len() {
            let n = classes[column..].iter().take_while(|&&class| class == Some(kind)).count();
            if n > 0 {
                let _ = write!(d, "M{column} {row}.5h{n}");
            }
            column += n.max(1);
        }
    }
    d
}

fn path(points: &[(f32, f32)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{} {}", if i == 0 { "M" } else { "L" }, tenths(*x), tenths(*y));
    }
    d
}

fn tenths(x: f32) -> f32 {
    (x * 10.0).round() / 10.0
}

/// The letter of the classes of a colour map.
fn letter(quantity: Quantity) -> char {
    if quantity == Quantity::Signed { 'd' } else { 's' }
}

/// The colour of 0.
fn zero(quantity: Quantity) -> u8 {
    if quantity == Quantity::Signed { LEVELS / 2 } else { 0 }
}

/// The colours by name.
fn colours(dark: bool) -> impl Iterator<Item = (String, String)> {
    let hex = |[r, g, b]: Rgb| format!("#{r:02x}{g:02x}{b:02x}");
    let inks = INKS
        .iter()
        .map(move |(name, light, night)| ((*name).to_owned(), if dark { *night } else { *light }.to_owned()));
    let levels = [Quantity::Signed, Quantity::Probability].into_iter().flat_map(move |quantity| {
        let map = Palette::default().map(quantity, !dark);
        (0..LEVELS).map(move |level| {
            let colour = map.at(place(level));
            (format!("{}{level}", letter(quantity)), hex(colour))
        })
    });
    inks.chain(levels).chain([("x".to_owned(), hex(BROKEN))])
}

/// The classes with the colours written out, as far as `body` has them: for an SVG of its own.
pub(super) fn style(dark: bool, body: &str) -> String {
    let mut rules = CLASSES.to_owned();
    for (name, colour) in colours(dark) {
        rules = rules.replace(&format!("${name}"), &colour);
        if is_level(&name) && body.contains(&format!("class=\"{name}\"")) {
            let _ = write!(rules, ".{name}{{stroke:{colour};fill:{colour}}}");
        }
    }
    rules
}

/// The classes by names of colours, and the colours for light and dark: for a page.
pub(super) fn style_of_page() -> String {
    let mut rules = CLASSES.to_owned();
    let mut levels = String::new();
    for (name, _) in colours(false) {
        rules = rules.replace(&format!("${name}"), &format!("var(--{name})"));
        if is_level(&name) {
            let _ = write!(levels, ".{name}{{stroke:var(--{name});fill:var(--{name})}}");
        }
    }
    let rules = format!("{rules}{levels}").replace("}.", "}\n.figure .");
    let names = |dark| {
        let names = colours(dark).map(|(name, colour)| format!("--{name}:{colour};"));
        names.collect::<Vec<_>>().concat()
    };
    format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n.figure {rules}\n",
        names(false),
        names(true)
    )
}

/// Whether a colour is of a colour map, or stands for what is broken.
fn is_level(name: &str) -> bool {
    name.len() <= 3 && name != "bad"
}
