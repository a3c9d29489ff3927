//! Values to colours, as tables of 256, for the explorer and figures.

use std::sync::OnceLock;

use colorgrad::Gradient;

use super::Paint;
use crate::hooks::Quantity;

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// A pair of colour maps: a diverging one for signed values, a sequential one for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Palette {
    /// Blue–neutral–red, and viridis.
    #[default]
    BlueRed,
    /// Orange–neutral–purple, and cividis: for any kind of colour vision.
    OrangePurple,
    /// Greys only.
    Grey,
}

impl Palette {
    pub const ALL: [Self; 3] = [Self::BlueRed, Self::OrangePurple, Self::Grey];

    /// The name in settings.
    pub fn key(self) -> &'static str {
        self.name().split(' ').next().unwrap_or_default()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::BlueRed => "blue-red / viridis",
            Self::OrangePurple => "orange-purple / cividis (colour-blind safe)",
            Self::Grey => "grey",
        }
    }

    /// The colour map for a quantity; the neutral middle of a diverging one is the colour of the
    /// background, dark or light.
    pub fn map(self, quantity: Quantity, light: bool) -> &'static Colormap {
        static MAPS: OnceLock<Vec<Colormap>> = OnceLock::new();
        let maps = MAPS.get_or_init(|| {
            let mut maps = Vec::new();
            for palette in Self::ALL {
                for light in [false, true] {
                    maps.extend([palette.diverging(light), palette.sequential(light)]);
                }
            }
            maps
        });
        let diverging = usize::from(quantity != Quantity::Signed);
        &maps[self as usize * 4 + usize::from(light) * 2 + diverging]
    }

    fn diverging(self, light: bool) -> Colormap {
        let stops: &[&str] = match (self, light) {
            (Self::BlueRed, false) => {
                &["#b9dcff", "#3f8fe0", "#1b4a80", "#17191e", "#7d2a26", "#e0604c", "#ffd0bd"]
            }
            (Self::BlueRed, true) => {
                &["#053061", "#2f78b7", "#9ccae1", "#f7f7f7", "#f6b799", "#c94741", "#67001f"]
            }
            (Self::OrangePurple, false) => {
                &["#ffdca3", "#e08a1e", "#7a4a12", "#17191e", "#4b3b7d", "#8f7fd0", "#dcd6ff"]
            }
            (Self::OrangePurple, true) => {
                &["#7f3b08", "#d1780f", "#fdc57f", "#f7f7f7", "#bfbbda", "#7d6cab", "#2d004b"]
            }
            (Self::Grey, false) => &["#ffffff", "#8c8c8c", "#17191e", "#8c8c8c", "#ffffff"],
            (Self::Grey, true) => &["#000000", "#777777", "#f7f7f7", "#777777", "#000000"],
        };
        Colormap::from_stops(stops)
    }

    fn sequential(self, light: bool) -> Colormap {
        match self {
            Self::BlueRed => Colormap::bake(&colorgrad::preset::viridis()),
            Self::OrangePurple => Colormap::bake(&colorgrad::preset::cividis()),
            Self::Grey if light => Colormap::from_stops(&["#f7f7f7", "#000000"]),
            Self::Grey => Colormap::from_stops(&["#17191e", "#ffffff"]),
        }
    }
}

/// A table of 256 colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colormap {
    table: Vec<Rgb>,
}

impl Colormap {
    fn bake(gradient: &dyn Gradient) -> Self {
        let color = |i: u16| gradient.at(f32::from(i) / 255.0).to_rgba8();
        let table = (0..256).map(color).map(|[r, g, b, _]| [r, g, b]).collect();
        Self { table }
    }

    fn from_stops(stops: &[&str]) -> Self {
        let mut builder = colorgrad::GradientBuilder::new();
        let gradient = builder.html_colors(stops).mode(colorgrad::BlendMode::Oklab);
        Self::bake(&gradient.build::<colorgrad::LinearGradient>().expect("the colours above are valid"))
    }

    /// The colour at 0..=1.
    pub fn at(&self, x: f32) -> Rgb {
        self.table[(x.clamp(0.0, 1.0) * 255.0).round() as usize]
    }

    /// The colour of a cell; `None` if masked.
    pub fn color(&self, paint: Paint) -> Option<Rgb> {
        match paint {
            Paint::Level(x) => Some(self.at(x)),
            Paint::Broken => Some(BROKEN),
            Paint::Masked | Paint::Outside => None,
        }
    }
}

/// Whether black text is easier to read on this colour than white.
pub fn is_light([r, g, b]: Rgb) -> bool {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b) > 140.0
}

/// The colour of NaN and +inf, which is in none of the maps.
pub const BROKEN: Rgb = [255, 0, 255];

/// The mark for masked values.
pub const MASKED: &str = "╱";

/// The colours that a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    #[default]
    True,
    /// The 256 of xterm.
    Indexed,
    /// The 16 of the Linux console.
    Sixteen,
    /// No colours: glyphs and numbers only.
    Mono,
}

impl Depth {
    /// For standard output, from the environment: COLORTERM, TERM, NO_COLOR.
    #[cfg(feature = "figures")]
    pub fn of_stdout() -> Self {
        match supports_color::on(supports_color::Stream::Stdout) {
            Some(level) if level.has_16m => Self::True,
            Some(level) if level.has_256 => Self::Indexed,
            Some(level) if level.has_basic => Self::Sixteen,
            _ => Self::Mono,
        }
    }
}

/// The nearest of xterm's 6 × 6 × 6 cube and 24 greys.
pub fn nearest_of_256(rgb: Rgb) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let distance = |a: Rgb| a.iter().zip(rgb).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>();
    let level = |x: u8| (0..6).min_by_key(|&i| LEVELS[i].abs_diff(x)).unwrap_or(0);
    let [r, g, b] = rgb.map(level);
    let cube = (distance([LEVELS[r], LEVELS[g], LEVELS[b]]), (16 + 36 * r + 6 * g + b) as u8);
    let grey = (0..24u8).map(|i| (distance([8 + 10 * i; 3]), 232 + i)).min();
    grey.map_or(cube, |grey| cube.min(grey)).1
}

/// The nearest of the Linux console's sixteen.
pub fn nearest_of_16(rgb: Rgb) -> u8 {
    const COLORS: [Rgb; 16] = [
        [0, 0, 0],
        [170, 0, 0],
        [0, 170, 0],
        [170, 85, 0],
        [0, 0, 170],
        [170, 0, 170],
        [0, 170, 170],
        [170, 170, 170],
        [85, 85, 85],
        [255, 85, 85],
        [85, 255, 85],
        [255, 255, 85],
        [85, 85, 255],
        [255, 85, 255],
        [85, 255, 255],
        [255, 255, 255],
    ];
    let distance = |&i: &u8| {
        COLORS[usize::from(i)].iter().zip(rgb).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>()
    };
    (0..16).min_by_key(distance).unwrap_or(0)
}

/// The glyph for a place in a colour map, 0..=1, without colours: the larger the value,
/// the darker; letters for negative values.
pub fn glyph(x: f32, signed: bool) -> &'static str {
    const NEGATIVE: [&str; 4] = [" ", "-", "o", "O"];
    const SIGNED_POSITIVE: [&str; 4] = [" ", "░", "▒", "█"];
    const POSITIVE: [&str; 5] = [" ", "░", "▒", "▓", "█"];
    if !signed {
        return POSITIVE[((x * 5.0) as usize).min(4)];
    }
    let step = (((x - 0.5).abs() * 8.0) as usize).min(3);
    if x < 0.5 { NEGATIVE[step] } else { SIGNED_POSITIVE[step] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_middle_are_far_apart() {
        let distance =
            |a: Rgb, b: Rgb| a.iter().zip(b).map(|(&a, b)| i32::from(a).abs_diff(i32::from(b))).sum::<u32>();
        for palette in Palette::ALL {
            for light in [false, true] {
                let map = palette.map(Quantity::Signed, light);
                assert!(distance(map.at(0.0), map.at(0.5)) > 250, "{palette:?} {light}");
                assert!(distance(map.at(1.0), map.at(0.5)) > 250, "{palette:?} {light}");
                let map = palette.map(Quantity::Probability, light);
                assert!(distance(map.at(0.0), map.at(1.0)) > 250, "{palette:?} {light}");
            }
        }
    }

    #[test]
    fn every_fixed_colour_is_its_own_nearest() {
        for (rgb, index) in [
            ([0, 0, 0], 16),
            ([255, 255, 255], 231),
            ([255, 0, 0], 196),
            ([8, 8, 8], 232),
            ([95, 135, 175], 67),
        ] {
            assert_eq!(nearest_of_256(rgb), index);
        }
    }
}
