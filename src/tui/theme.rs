//! Colours that mean something, and how many the terminal can show.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use crate::colormap::{Palette, Rgb};
use crate::hooks::Quantity;

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    #[default]
    True,
    /// The 256 of xterm.
    Indexed,
    /// None: glyphs and numbers only.
    Mono,
}

/// The colours of the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Theme {
    pub light: bool,
    pub depth: Depth,
    pub palette: Palette,
}

impl Theme {
    fn pick(self, dark: Rgb, light: Rgb) -> Style {
        let [r, g, b] = if self.light { light } else { dark };
        Style::new().fg(Color::Rgb(r, g, b))
    }

    /// Plain text.
    pub fn text(self) -> Style {
        self.pick([214, 217, 224], [36, 38, 44])
    }

    /// Text that explains.
    pub fn dim(self) -> Style {
        self.pick([139, 144, 156], [104, 108, 118])
    }

    /// Rules and hatching.
    pub fn faint(self) -> Style {
        self.pick([68, 72, 82], [196, 199, 206])
    }

    /// What is selected: one colour, everywhere.
    pub fn accent(self) -> Style {
        self.pick([255, 200, 87], [168, 94, 0]).add_modifier(Modifier::BOLD)
    }

    /// What the keys act on.
    pub fn focus(self) -> Style {
        self.pick([116, 199, 236], [0, 98, 155])
    }

    /// Headings.
    pub fn strong(self) -> Style {
        self.text().add_modifier(Modifier::BOLD)
    }

    /// Something is wrong.
    pub fn bad(self) -> Style {
        self.pick([255, 120, 110], [185, 28, 28]).add_modifier(Modifier::BOLD)
    }

    /// Something is right.
    pub fn good(self) -> Style {
        self.pick([140, 210, 140], [22, 120, 50])
    }

    /// The background of panels that lie over the screen.
    pub fn panel(self) -> Style {
        let [r, g, b] = if self.light { [236, 238, 242] } else { [32, 35, 42] };
        self.text().bg(Color::Rgb(r, g, b))
    }

    /// The selected line of a list.
    pub fn selected(self) -> Style {
        let [r, g, b] = if self.light { [255, 226, 168] } else { [74, 62, 32] };
        let style = self.accent().bg(Color::Rgb(r, g, b));
        if self.depth == Depth::Mono { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    /// The colour of 0..=1 in the colour map for a quantity.
    pub fn shade(self, quantity: Quantity, x: f32) -> Color {
        let [r, g, b] = self.palette.map(quantity, self.light).at(x);
        Color::Rgb(r, g, b)
    }

    /// Black or white, whichever can be read on `color`.
    pub fn on(color: Color) -> Color {
        match color {
            Color::Rgb(r, g, b) if u32::from(r) * 3 + u32::from(g) * 6 + u32::from(b) > 1350 => {
                Color::Rgb(10, 10, 12)
            }
            _ => Color::Rgb(245, 245, 247),
        }
    }

    /// Brings a drawn buffer down to the colours that the terminal has.
    pub fn degrade(self, buffer: &mut Buffer) {
        let convert: fn(Color) -> Color = match self.depth {
            Depth::True => return,
            Depth::Indexed => to_indexed,
            Depth::Mono => |_| Color::Reset,
        };
        for cell in &mut buffer.content {
            cell.fg = convert(cell.fg);
            cell.bg = convert(cell.bg);
        }
    }
}

/// The nearest of xterm's 6×6×6 cube and 24 greys.
fn to_indexed(color: Color) -> Color {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let Color::Rgb(r, g, b) = color else { return color };
    let nearest = |x: u8| (0..6).min_by_key(|&i| STEPS[i as usize].abs_diff(x)).unwrap_or(0u8);
    let distance = |a: Rgb| {
        let d = |x: u8, y: u8| u32::from(x.abs_diff(y)).pow(2);
        d(a[0], r) + d(a[1], g) + d(a[2], b)
    };
    let (i, j, k) = (nearest(r), nearest(g), nearest(b));
    let cube = [i, j, k].map(|n| STEPS[n as usize]);
    let mean = (u32::from(r) + u32::from(g) + u32::from(b)) / 3;
    let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
    let grey_value = 8 + 10 * grey;
    if distance([grey_value; 3]) < distance(cube) {
        Color::Indexed(232 + grey)
    } else {
        Color::Indexed(16 + 36 * i + 6 * j + k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_256_colours_are_near() {
        assert_eq!(to_indexed(Color::Rgb(0, 0, 0)), Color::Indexed(16));
        assert_eq!(to_indexed(Color::Rgb(255, 255, 255)), Color::Indexed(231));
        assert_eq!(to_indexed(Color::Rgb(255, 0, 0)), Color::Indexed(196));
        assert_eq!(to_indexed(Color::Rgb(128, 128, 128)), Color::Indexed(244));
        assert_eq!(to_indexed(Color::Reset), Color::Reset);
    }
}
